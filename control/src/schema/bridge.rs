//! `[[bridge]]` and `[[fdb]]`: broadcast domains and the MAC addresses that are fixed in them.

use serde_json::{Value as Json, json};

use super::name::{BridgeName, PortName};
use super::section::{Marks, Section};
use super::vlan::VlanId;
use crate::mac::MacAddress;

/// `[[bridge]]`: one L2 broadcast domain, which may carry VLANs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// `name`.
    pub name: BridgeName,
    /// `ageing_s`: a learned MAC is forgotten after so many seconds without a frame from it; 0: never.
    pub ageing_s: u32,
    /// `fdb_limit`: most learned MACs of this bridge. None: only `[limits] fdb` bounds it.
    pub fdb_limit: Option<u32>,
    /// `flood_unknown`: unicast to an unknown MAC goes to all ports; else it is dropped.
    pub flood_unknown: bool,
    /// `flood_broadcast`: broadcast goes to all ports; else it is dropped.
    pub flood_broadcast: bool,
    /// `flood_multicast`: multicast goes to all ports; else it is dropped.
    pub flood_multicast: bool,
}

impl Bridge {
    pub(super) const KEYS: [&str; 6] =
        ["name", "ageing_s", "fdb_limit", "flood_unknown", "flood_broadcast", "flood_multicast"];

    /// A bridge with every setting at its default.
    pub fn new(name: BridgeName) -> Self {
        Self {
            name,
            ageing_s: 300,
            fdb_limit: None,
            flood_unknown: true,
            flood_broadcast: true,
            flood_multicast: true,
        }
    }

    pub(super) fn decode(mut section: Section<'_, '_>) -> (Option<Self>, Marks) {
        let name = section.required_text::<BridgeName>("name", "\"blue\"");
        let ageing_s = section.integer("ageing_s", 0..=1_000_000, " s, 0 for never");
        let fdb_limit = section.integer("fdb_limit", FDB_LIMIT, " entries");
        let flood_unknown = section.boolean("flood_unknown");
        let flood_broadcast = section.boolean("flood_broadcast");
        let flood_multicast = section.boolean("flood_multicast");
        let bridge = name.map(|name| {
            let default = Self::new(name);
            Self {
                ageing_s: ageing_s.unwrap_or(default.ageing_s),
                fdb_limit,
                flood_unknown: flood_unknown.unwrap_or(default.flood_unknown),
                flood_broadcast: flood_broadcast.unwrap_or(default.flood_broadcast),
                flood_multicast: flood_multicast.unwrap_or(default.flood_multicast),
                ..default
            }
        });
        (bridge, section.finish(&Self::KEYS))
    }

    pub(super) fn fields(&self) -> Vec<(&'static str, Json)> {
        let default = Self::new(self.name.clone());
        let mut fields = vec![("name", json!(self.name))];
        if self.ageing_s != default.ageing_s {
            fields.push(("ageing_s", json!(self.ageing_s)));
        }
        if let Some(limit) = self.fdb_limit {
            fields.push(("fdb_limit", json!(limit)));
        }
        let floods = [
            ("flood_unknown", self.flood_unknown),
            ("flood_broadcast", self.flood_broadcast),
            ("flood_multicast", self.flood_multicast),
        ];
        fields.extend(floods.into_iter().filter(|(_, on)| !on).map(|(key, on)| (key, json!(on))));
        fields
    }
}

/// The range of `fdb_limit`, of bridges and ports.
pub(super) const FDB_LIMIT: std::ops::RangeInclusive<i128> = 0..=16_777_216;

/// `[[fdb]]`: a MAC address fixed to a port; it neither ages nor moves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StaticEntry {
    /// `bridge`.
    pub bridge: BridgeName,
    /// `vlan`; None (no key, or 0): untagged frames of a port without VLAN settings, VLAN 0.
    pub vlan: Option<VlanId>,
    /// `mac`: a station's address.
    pub mac: MacAddress,
    /// `port`: of the same bridge.
    pub port: PortName,
}

impl StaticEntry {
    pub(super) const KEYS: [&str; 4] = ["bridge", "vlan", "mac", "port"];

    pub(super) fn decode(mut section: Section<'_, '_>) -> (Option<Self>, Marks) {
        let bridge = section.required_text("bridge", "\"blue\"");
        let vlan = section.integer("vlan", 0..=4094, ", 0 for untagged");
        let mac = section.required_text::<MacAddress>("mac", "\"02:00:00:00:00:01\"");
        if let Some(mac) = mac.filter(|mac| !mac.is_station()) {
            let message = format!("`mac`: {mac} is not the address of a station");
            let hint = "multicast, broadcast and zero addresses cannot be bound to a port".to_owned();
            section.error_at("mac", message, Some(hint));
        }
        let port = section.required_text("port", "\"web1\"");
        let vlan = vlan.and_then(|id| VlanId::new(id).ok());
        let entry = match (bridge, mac, port) {
            (Some(bridge), Some(mac), Some(port)) => Some(Self { bridge, vlan, mac, port }),
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
        fields.push(("port", json!(self.port)));
        fields
    }
}
