//! `[[fdb]]`: MAC addresses that are fixed in a bridge.

use std::net::IpAddr;

use serde_json::{Value as Json, json};

use super::name::{BridgeName, PortName, TunnelName};
use super::section::{Marks, Section};
use super::tunnel::decode_station;
use super::vlan::VlanId;
use crate::mac::MacAddress;

/// `[[fdb]]`: a MAC address fixed to a place; it neither ages nor moves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StaticEntry {
    /// `bridge`.
    pub bridge: BridgeName,
    /// `vlan`; None (no key, or 0): untagged frames of a port without VLAN settings, VLAN 0.
    pub vlan: Option<VlanId>,
    /// `mac`: a station's address.
    pub mac: MacAddress,
    /// `port`, or `tunnel` and `remote`.
    pub place: Place,
}

/// Where a MAC address is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// At a port of the bridge.
    Port(PortName),
    /// Behind a remote of a tunnel.
    Remote {
        /// The tunnel.
        tunnel: TunnelName,
        /// One of its remotes.
        remote: IpAddr,
    },
}

impl StaticEntry {
    const KEYS: [&str; 6] = ["bridge", "vlan", "mac", "port", "tunnel", "remote"];

    pub(super) fn decode(mut section: Section<'_, '_>) -> (Option<Self>, Marks) {
        let bridge = section.required_text("bridge", "\"blue\"");
        let vlan = section.integer("vlan", 0..=4094, ", 0 for untagged");
        let mac = section.required_text::<MacAddress>("mac", "\"02:00:00:00:00:01\"");
        if let Some(mac) = mac.filter(|mac| !mac.is_station()) {
            let message = format!("`mac`: {mac} is not the address of a station");
            let hint = "multicast, broadcast and zero addresses cannot be bound to a port".to_owned();
            section.error_at("mac", message, Some(hint));
        }
        let place = Place::decode(&mut section);
        let vlan = vlan.and_then(|id| VlanId::new(id).ok());
        let entry = match (bridge, mac, place) {
            (Some(bridge), Some(mac), Some(place)) => Some(Self { bridge, vlan, mac, place }),
            _ => None,
        };
        (entry, section.finish(&Self::KEYS))
    }

    pub(super) fn fields(&self) -> Vec<(&'static str, Json)> {
        let mut fields = vec![("bridge", json!(self.bridge))];
        if let Some(vlan) = self.vlan {
            fields.push(("vlan", json!(vlan)));
        }
        fields.push(("mac", json!(self.mac)));
        match &self.place {
            Place::Port(port) => fields.push(("port", json!(port))),
            Place::Remote { tunnel, remote } => {
                fields.extend([("tunnel", json!(tunnel)), ("remote", json!(remote))]);
            }
        }
        fields
    }
}

impl Place {
    /// The port, if it is one.
    pub fn port(&self) -> Option<&PortName> {
        match self {
            Place::Port(port) => Some(port),
            Place::Remote { .. } => None,
        }
    }

    fn decode(section: &mut Section<'_, '_>) -> Option<Self> {
        let port = section.text("port");
        let tunnel = section.text("tunnel");
        let remote = decode_station(section, "remote");
        let behind = section.had("tunnel") || section.had("remote");
        match (section.had("port"), behind) {
            (true, true) => {
                let hint = Some("an address is at a port, or behind a remote of a tunnel".to_owned());
                let key = if section.had("tunnel") { "tunnel" } else { "remote" };
                section.error_at(key, format!("`port` and `{key}` exclude each other"), hint);
            }
            (false, true) => {
                section.require("tunnel", "\"dc1\"");
                section.require("remote", "\"192.0.2.2\"");
            }
            (true, false) => {}
            (false, false) => {
                let hint = Some(
                    "write `port = \"web1\"`, or `tunnel = \"dc1\"` and `remote = \"192.0.2.2\"`".into(),
                );
                section.error_at("port", "`port` is missing", hint);
            }
        }
        match (port, tunnel, remote) {
            (Some(port), ..) => Some(Place::Port(port)),
            (None, Some(tunnel), Some(remote)) => Some(Place::Remote { tunnel, remote }),
            _ => None,
        }
    }
}
