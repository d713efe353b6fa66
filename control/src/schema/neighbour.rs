//! `[[neighbour]]`: which MAC address an IP address of a bridge has.

use std::net::IpAddr;

use serde_json::{Value as Json, json};

use super::endpoint::decode_mac;
use super::name::BridgeName;
use super::section::{Marks, Section};
use super::tunnel::decode_station;
use super::vlan::VlanId;
use crate::mac::MacAddress;

/// `[[neighbour]]`: an entry that neither ages nor gives way to what is seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// `bridge`.
    pub bridge: BridgeName,
    /// `vlan`; None (no key, or 0): VLAN 0.
    pub vlan: Option<VlanId>,
    /// `ip`: a station's address.
    pub ip: IpAddr,
    /// `mac`: a station's address.
    pub mac: MacAddress,
}

impl Neighbour {
    const KEYS: [&str; 4] = ["bridge", "vlan", "ip", "mac"];

    pub(super) fn decode(mut section: Section<'_, '_>) -> (Option<Self>, Marks) {
        let bridge = section.required_text("bridge", "\"blue\"");
        let vlan = section.integer("vlan", 0..=4094, ", 0 for untagged");
        let ip = decode_station(&mut section, "ip");
        section.require("ip", "\"10.1.0.11\"");
        let mac = decode_mac(&mut section);
        section.require("mac", "\"02:00:00:00:00:01\"");
        let vlan = vlan.and_then(|id| VlanId::new(id).ok());
        let neighbour = match (bridge, ip, mac) {
            (Some(bridge), Some(ip), Some(mac)) => Some(Self { bridge, vlan, ip, mac }),
            _ => None,
        };
        (neighbour, section.finish(&Self::KEYS))
    }

    pub(super) fn fields(&self) -> Vec<(&'static str, Json)> {
        let mut fields = vec![("bridge", json!(self.bridge))];
        fields.extend(self.vlan.map(|vlan| ("vlan", json!(vlan))));
        fields.extend([("ip", json!(self.ip)), ("mac", json!(self.mac))]);
        fields
    }
}
