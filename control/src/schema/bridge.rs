//! `[[bridge]]`: broadcast domains.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::document::{Field, Value};
use super::name::{BridgeName, TunnelName};
use super::prefix::IpPrefix;
use super::section::{Marks, Section, short};
use super::tunnel::Tunnel;
use super::underlay::decode_addresses;
use super::vlan::VlanId;
use super::vni::Vni;

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
    /// `vni`: the number by which other hosts know the bridge, as a whole.
    pub vni: Option<Vni>,
    /// `vlan_vni`: the numbers by which other hosts know VLANs of the bridge; the others end at this host.
    pub vlan_vni: BTreeMap<VlanId, Vni>,
    /// `tunnels`: those that reach other parts of the bridge. None: all that carry the VNI.
    pub tunnels: Option<Vec<TunnelName>>,
    /// `address`: the switch's own, which answer ARP, ND and ping.
    pub addresses: Vec<IpPrefix>,
}

impl Bridge {
    const KEYS: [&str; 10] = [
        "name",
        "ageing_s",
        "fdb_limit",
        "flood_unknown",
        "flood_broadcast",
        "flood_multicast",
        "vni",
        "vlan_vni",
        "tunnels",
        "address",
    ];

    /// A bridge with every setting at its default.
    pub fn new(name: BridgeName) -> Self {
        Self {
            name,
            ageing_s: 300,
            fdb_limit: None,
            flood_unknown: true,
            flood_broadcast: true,
            flood_multicast: true,
            vni: None,
            vlan_vni: BTreeMap::new(),
            tunnels: None,
            addresses: Vec::new(),
        }
    }

    /// The VNI of a VLAN; None: VLAN 0.
    pub fn vni_of(&self, vlan: Option<VlanId>) -> Option<Vni> {
        self.vni.or_else(|| self.vlan_vni.get(&vlan?).copied())
    }

    /// Every VNI of the bridge with its VLAN; None: the whole bridge.
    pub fn vnis(&self) -> impl Iterator<Item = (Option<VlanId>, Vni)> + '_ {
        let vlans = self.vlan_vni.iter().map(|(vlan, vni)| (Some(*vlan), *vni));
        self.vni.map(|vni| (None, vni)).into_iter().chain(vlans)
    }

    /// True if the bridge, being known as `vni`, reaches other parts of itself through the tunnel.
    pub fn uses(&self, tunnel: &Tunnel, vni: Vni) -> bool {
        tunnel.vnis.contains(vni) && self.tunnels.as_ref().is_none_or(|names| names.contains(&tunnel.name))
    }

    pub(super) fn decode(mut section: Section<'_, '_>) -> (Option<Self>, Marks) {
        let name = section.required_text::<BridgeName>("name", "\"blue\"");
        let ageing_s = section.integer("ageing_s", 0..=1_000_000, " s, 0 for never");
        let fdb_limit = section.integer("fdb_limit", FDB_LIMIT, " entries");
        let flood_unknown = section.boolean("flood_unknown");
        let flood_broadcast = section.boolean("flood_broadcast");
        let flood_multicast = section.boolean("flood_multicast");
        let vni = section.take("vni").and_then(|node| Vni::decode(&mut section, "vni", &node));
        let vlan_vni = decode_vlan_vni(&mut section);
        if section.had("vni") && section.had("vlan_vni") {
            let hint =
                "`vni` is for a bridge as a whole, `vlan_vni` for its VLANs; keep one of them".to_owned();
            section.error_at("vlan_vni", "`vni` and `vlan_vni` exclude each other", Some(hint));
        }
        let tunnels = section
            .list("tunnels")
            .map(|names| names.iter().filter_map(|node| section.text_of("tunnels", node)).collect());
        let addresses = decode_addresses(&mut section);
        let bridge = name.map(|name| {
            let default = Self::new(name);
            Self {
                ageing_s: ageing_s.unwrap_or(default.ageing_s),
                fdb_limit,
                flood_unknown: flood_unknown.unwrap_or(default.flood_unknown),
                flood_broadcast: flood_broadcast.unwrap_or(default.flood_broadcast),
                flood_multicast: flood_multicast.unwrap_or(default.flood_multicast),
                vni,
                vlan_vni,
                tunnels,
                addresses,
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
        fields.extend(self.vni.map(|vni| ("vni", json!(vni))));
        let vlan_vni: BTreeMap<String, Vni> =
            self.vlan_vni.iter().map(|(vlan, vni)| (vlan.to_string(), *vni)).collect();
        fields.extend((!vlan_vni.is_empty()).then(|| ("vlan_vni", json!(vlan_vni))));
        fields.extend(self.tunnels.as_ref().map(|tunnels| ("tunnels", json!(tunnels))));
        fields.extend((!self.addresses.is_empty()).then(|| ("address", json!(self.addresses))));
        fields
    }
}

/// A table of VNIs by VLAN: `{10 = 5010}`.
fn decode_vlan_vni(section: &mut Section<'_, '_>) -> BTreeMap<VlanId, Vni> {
    let (mut vnis, mut vlans) = (BTreeMap::new(), BTreeMap::new());
    let Some(node) = section.take("vlan_vni") else { return vnis };
    let Value::Table(fields) = node.value else {
        let hint = Some("write `vlan_vni = {10 = 5010}`".to_owned());
        let message = format!("`vlan_vni` must be a table of VNIs by VLAN, but is {}", node.value.kind());
        section.error(&node.span, message, hint);
        return vnis;
    };
    for Field { key, key_span, node } in fields {
        let vni = Vni::decode(section, "vlan_vni", &node);
        let vlan = key.parse().ok().and_then(|id| VlanId::new(id).ok());
        let Some(vlan) = vlan.filter(|vlan| vlan.to_string() == key) else {
            let message = format!("`vlan_vni`: `{}` is not a VLAN", short(&key));
            section.error(&key_span, message, Some("VLANs are numbers from 1 to 4094".to_owned()));
            continue;
        };
        let Some(vni) = vni else { continue };
        if let Some(other) = vlans.insert(vni, vlan) {
            let message = format!("`vlan_vni`: VLANs {other} and {vlan} have the same VNI, {vni}");
            section.error(&node.span, message, Some("give each a VNI of its own".to_owned()));
        }
        vnis.insert(vlan, vni);
    }
    vnis
}

/// The range of `fdb_limit`, of bridges and ports.
pub(super) const FDB_LIMIT: std::ops::RangeInclusive<i128> = 0..=16_777_216;
