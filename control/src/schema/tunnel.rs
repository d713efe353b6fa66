//! `[[tunnel]]`: how other hosts are reached over an underlay, and which.
//!
//! A key that only tunnels of another type have is a mistake, and the message says whose it is.

use std::net::IpAddr;

use serde_json::{Value as Json, json};

use super::name::{TunnelName, UnderlayName};
use super::prefix::is_station;
use super::section::{Marks, Section, code_list};
use super::vni::Vnis;

/// `[[tunnel]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// `name`.
    pub name: TunnelName,
    /// `type`: what is on the wire.
    pub kind: TunnelKind,
    /// `underlay`: the network that it runs over.
    pub underlay: UnderlayName,
    /// `local`: our address. None: that of the underlay, as each remote needs it.
    pub local: Option<IpAddr>,
    /// `remote`: the VTEPs that it reaches; of others no frame is accepted.
    pub remotes: Vec<IpAddr>,
    /// `port`: the UDP port that is sent to and received at; 0 without UDP.
    pub port: u16,
    /// `vnis`: what it carries.
    pub vnis: Vnis,
    /// `flow_id`, NVGRE: the last 8 bits of the key.
    pub flow_id: FlowId,
    /// `udp_checksum`: the outer UDP header has one. It is always verified where a peer sends one.
    pub udp_checksum: bool,
    /// `dscp` of the outer IP header.
    pub dscp: Dscp,
    /// `ttl` of the outer IP header.
    pub ttl: u8,
    /// `df`: outer IPv4 packets are not fragmented on their way.
    pub df: bool,
    /// `gbp`, VXLAN: the group-policy extension.
    pub gbp: bool,
    /// `group`: a multicast group that floods are sent to, instead of one copy for each remote.
    pub group: Option<IpAddr>,
    /// `learning`: of the MAC addresses behind remotes from the frames that come in.
    pub learning: bool,
    /// `bfd`: whether remotes are there is found out by BFD.
    pub bfd: bool,
}

/// What a tunnel's frames are wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TunnelKind {
    /// RFC 7348.
    Vxlan,
    /// RFC 7637.
    Nvgre,
    /// RFC 8926.
    Geneve,
}

/// The last 8 bits of NVGRE's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlowId {
    /// From the inner frame: entropy for those who spread flows by it (RFC 7637 section 3.2).
    #[default]
    Hash,
    /// Always this: for peers that compare all 32 bits of the key.
    Fixed(u8),
}

/// The differentiated services field of the outer IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dscp {
    /// That of the inner packet; 0 if it is none.
    #[default]
    Inherit,
    /// Always this, 0 to 63.
    Fixed(u8),
}

const COMMON_KEYS: [&str; 12] =
    ["name", "type", "underlay", "local", "remote", "vnis", "dscp", "ttl", "df", "group", "learning", "bfd"];

/// The types, each with the keys that not all have.
const TYPES: [(&str, TunnelKind, &[&str]); 3] = [
    ("vxlan", TunnelKind::Vxlan, &["port", "udp_checksum", "gbp"]),
    ("nvgre", TunnelKind::Nvgre, &["flow_id"]),
    ("geneve", TunnelKind::Geneve, &["port", "udp_checksum"]),
];

impl TunnelKind {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        TYPES[self as usize].0
    }

    /// The UDP port that is this type's by default, if it has one.
    pub fn default_port(self) -> Option<u16> {
        match self {
            TunnelKind::Vxlan => Some(4789),
            TunnelKind::Nvgre => None,
            TunnelKind::Geneve => Some(6081),
        }
    }

    fn has(self, key: &str) -> bool {
        TYPES[self as usize].2.contains(&key)
    }
}

impl Tunnel {
    /// Where it sends frames to: its remotes, and its group.
    pub fn places(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.remotes.iter().chain(&self.group).copied()
    }

    /// A tunnel with every setting at its default, to no remote yet.
    pub fn new(name: TunnelName, kind: TunnelKind, underlay: UnderlayName) -> Self {
        Self {
            name,
            kind,
            underlay,
            local: None,
            remotes: Vec::new(),
            port: kind.default_port().unwrap_or(0),
            vnis: Vnis::All,
            flow_id: FlowId::Hash,
            udp_checksum: false,
            dscp: Dscp::Inherit,
            ttl: 64,
            df: true,
            gbp: false,
            group: None,
            learning: true,
            bfd: false,
        }
    }

    pub(super) fn decode(mut section: Section<'_, '_>) -> (Option<Self>, Marks) {
        let name = section.required_text("name", "\"dc1\"");
        let kind = section.choice("type", &TYPES.map(|(word, kind, _)| (word, kind)));
        section.require("type", "\"vxlan\"");
        let underlay = section.required_text("underlay", "\"core\"");
        let local = decode_station(&mut section, "local");
        let remotes = section.one_or_list("remote");
        let remotes = remotes.iter().filter_map(|node| station_of(&mut section, "remote", node)).collect();
        let vnis = Vnis::decode(&mut section, "vnis").unwrap_or_default();
        let dscp = section.word_or_integer("dscp", "inherit", 0..=63).map_or(Dscp::Inherit, Dscp::Fixed);
        let ttl = section.integer("ttl", 1..=255, "");
        let df = section.boolean("df");
        let group = decode_group(&mut section);
        let learning = section.boolean("learning");
        let bfd = section.boolean("bfd");
        let tunnel = match (name, kind, underlay) {
            (Some(name), Some(kind), Some(underlay)) => {
                let default = Self::new(name, kind, underlay);
                let own = Own::decode(&mut section, &default);
                Some(Self {
                    local,
                    remotes,
                    port: own.port,
                    vnis,
                    flow_id: own.flow_id,
                    udp_checksum: own.udp_checksum,
                    dscp,
                    ttl: ttl.unwrap_or(default.ttl),
                    df: df.unwrap_or(default.df),
                    gbp: own.gbp,
                    group,
                    learning: learning.unwrap_or(default.learning),
                    bfd: bfd.unwrap_or(default.bfd),
                    ..default
                })
            }
            _ => None,
        };
        (tunnel, finish(section, kind))
    }

    pub(super) fn fields(&self) -> Vec<(&'static str, Json)> {
        let default = Self::new(self.name.clone(), self.kind, self.underlay.clone());
        let mut fields = vec![
            ("name", json!(self.name)),
            ("type", json!(self.kind.as_str())),
            ("underlay", json!(self.underlay)),
        ];
        fields.extend(self.local.map(|local| ("local", json!(local))));
        fields.extend((!self.remotes.is_empty()).then(|| ("remote", json!(self.remotes))));
        fields.extend((self.port != default.port).then(|| ("port", json!(self.port))));
        fields.extend(self.vnis.json().map(|vnis| ("vnis", vnis)));
        if let FlowId::Fixed(flow_id) = self.flow_id {
            fields.push(("flow_id", json!(flow_id)));
        }
        fields.extend(self.udp_checksum.then_some(("udp_checksum", json!(true))));
        if let Dscp::Fixed(dscp) = self.dscp {
            fields.push(("dscp", json!(dscp)));
        }
        fields.extend((self.ttl != default.ttl).then(|| ("ttl", json!(self.ttl))));
        fields.extend((!self.df).then_some(("df", json!(false))));
        fields.extend(self.gbp.then_some(("gbp", json!(true))));
        fields.extend(self.group.map(|group| ("group", json!(group))));
        fields.extend((!self.learning).then_some(("learning", json!(false))));
        fields.extend(self.bfd.then_some(("bfd", json!(true))));
        fields
    }
}

/// What not every type has.
struct Own {
    port: u16,
    flow_id: FlowId,
    udp_checksum: bool,
    gbp: bool,
}

impl Own {
    /// Takes the keys that the type has; those of others stay, for [`finish`] to find.
    fn decode(section: &mut Section<'_, '_>, default: &Tunnel) -> Self {
        let has = |key| default.kind.has(key);
        let mut own = Self { port: default.port, flow_id: FlowId::Hash, udp_checksum: false, gbp: false };
        if has("port") {
            own.port = section.integer("port", 1..=65_535, "").unwrap_or(default.port);
        }
        if has("flow_id") {
            own.flow_id =
                section.word_or_integer("flow_id", "hash", 0..=255).map_or(FlowId::Hash, FlowId::Fixed);
        }
        if has("udp_checksum") {
            own.udp_checksum = section.boolean("udp_checksum").unwrap_or(false);
        }
        if has("gbp") {
            own.gbp = section.boolean("gbp").unwrap_or(false);
        }
        own
    }
}

/// Reports what is left over, and says so if a key belongs to another type.
fn finish(section: Section<'_, '_>, kind: Option<TunnelKind>) -> Marks {
    let own = |key: &str| TYPES.iter().any(|(.., keys)| keys.contains(&key));
    let some: Vec<&str> = COMMON_KEYS
        .into_iter()
        .chain(["port", "flow_id", "udp_checksum", "gbp"])
        .filter(|key| kind.is_none_or(|kind| kind.has(key)) || !own(key))
        .collect();
    section.finish_with(&some, |key| {
        if !own(key) {
            return None;
        }
        // Not taken, as something that is needed first was wrong.
        let Some(kind) = kind.filter(|kind| !kind.has(key)) else {
            return Some(format!("`{key}` cannot be read before `name`, `type` and `underlay` are right"));
        };
        let owners: Vec<&str> =
            TYPES.iter().filter(|(.., keys)| keys.contains(&key)).map(|(word, ..)| *word).collect();
        let (word, owners) = (kind.as_str(), code_list(&owners));
        Some(format!("`{key}` is no key of a {word} tunnel; tunnels of type {owners} have it"))
    })
}

/// The address of one station.
pub(super) fn decode_station(section: &mut Section<'_, '_>, key: &'static str) -> Option<IpAddr> {
    let node = section.take(key)?;
    station_of(section, key, &node)
}

fn station_of(section: &mut Section<'_, '_>, key: &str, node: &super::document::Node) -> Option<IpAddr> {
    let address: IpAddr = section.text_of(key, node)?;
    if !is_station(address) {
        section.error(&node.span, format!("`{key}`: {address} is not the address of a station"), None);
    }
    Some(address)
}

/// `group`, which needs `local`: its packets have one source.
fn decode_group(section: &mut Section<'_, '_>) -> Option<IpAddr> {
    let group: IpAddr = section.text("group")?;
    if !group.is_multicast() {
        let hint = Some("groups are like 239.1.1.1 and ff05::1".to_owned());
        section.error_at("group", format!("`group`: {group} is no multicast address"), hint);
    }
    if !section.had("local") {
        let hint = Some("say which of our addresses is the source: `local = ADDRESS`".to_owned());
        section.error_at("group", "`group` needs `local`", hint);
    }
    Some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_stand_in_their_order() {
        for (word, kind, _) in TYPES {
            assert_eq!(kind.as_str(), word);
            assert_eq!(kind.has("port"), kind.default_port().is_some());
        }
    }
}
