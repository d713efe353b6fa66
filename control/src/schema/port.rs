//! `[[port]]`: what is plugged into the switch.
//!
//! The settings that every port has are in [`Port`]; what only one type has is in its variant of
//! [`PortKind`]. A key that belongs to another type is a mistake, and the message says whose it is.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::bridge::FDB_LIMIT;
use super::document::{Node, Value};
use super::endpoint::{Endpoint, decode_endpoint};
use super::name::{BridgeName, InterfaceName, Netns, PortName};
use super::nearest::nearest;
use super::section::{Marks, Section, code_list, short};
use super::vhost_user::{self, VhostUser};
use super::vlan::{VlanId, VlanMode, VlanSet};

/// `[[port]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// `name`.
    pub name: PortName,
    /// `bridge`: the bridge that the port belongs to. None: the port is that of an underlay.
    pub bridge: Option<BridgeName>,
    /// `vlan`, or `trunk` and `native_vlan`.
    pub vlan: VlanMode,
    /// `isolated`: no frame goes from one isolated port to another.
    pub isolated: bool,
    /// `hairpin`: a frame may leave by the port that it came from.
    pub hairpin: bool,
    /// `fdb_limit`: most MACs learned on this port. None: the bridge's limit alone.
    pub fdb_limit: Option<u32>,
    /// `policy_group`: the group that tunnels with `gbp` say the senders behind this port are of.
    pub policy_group: Option<u16>,
    /// `queues`: rx queues, 1 to 64; of a `vhost-user` port the queue pairs that the other end may use, 1 to 8.
    /// None: all that an `afxdp` device has, one of any other type.
    pub queues: Option<u16>,
    /// `workers`: places in `[switch] workers`, from 0, of the workers that serve the port's queues in
    /// turn. Empty: the switch spreads them.
    pub workers: Vec<u16>,
    /// `type` and the settings that only this type has.
    pub kind: PortKind,
}

/// The type of a port with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortKind {
    /// `tap`: a TAP device that we make, in a container or on the host.
    Tap(Tap),
    /// `veth`: a veth pair that we make.
    Veth(Veth),
    /// `afxdp`: an existing device, driven by AF_XDP.
    Afxdp(Afxdp),
    /// `packet`: an existing device, driven by AF_PACKET.
    Packet(Packet),
    /// `pcap`: replays one file and records into another.
    Pcap(Pcap),
    /// `null`: a source and a sink.
    Null(Null),
    /// `vhost-user`: a virtual machine, or a program with a network stack of its own.
    VhostUser(VhostUser),
}

/// Settings of a `tap` port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    /// The container's end.
    pub endpoint: Endpoint,
}

/// Settings of a `veth` port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veth {
    /// The container's end.
    pub endpoint: Endpoint,
    /// `driver`: what moves frames at our end.
    pub driver: VethDriver,
}

/// What drives our end of a veth pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VethDriver {
    /// AF_PACKET, which passes 64 KB frames.
    #[default]
    Packet,
    /// AF_XDP.
    Afxdp,
}

/// Settings of an `afxdp` port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Afxdp {
    /// `device`: an existing device.
    pub device: InterfaceName,
    /// `netns`: where the device is, if not in the daemon's namespace.
    pub netns: Option<Netns>,
    /// `mode`: with or without a copy in the kernel.
    pub mode: XdpMode,
    /// `exclusive`: take the device although the host has addresses on it.
    pub exclusive: bool,
}

/// How AF_XDP binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XdpMode {
    /// Zero-copy if the driver can, else copy.
    #[default]
    Auto,
    /// Zero-copy, or the port stays down.
    ZeroCopy,
    /// Copy.
    Copy,
}

/// Settings of a `packet` port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// `device`: an existing device.
    pub device: InterfaceName,
    /// `netns`: where the device is, if not in the daemon's namespace.
    pub netns: Option<Netns>,
    /// `exclusive`: take the device although the host has addresses on it.
    pub exclusive: bool,
}

/// Settings of a `pcap` port; at least one of the two files is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pcap {
    /// `read`: frames that the port receives.
    pub read: Option<PathBuf>,
    /// `write`: where the frames go that the port sends.
    pub write: Option<PathBuf>,
    /// `loop`: start again at the end of the file.
    pub repeat: bool,
}

/// Settings of a `null` port; what it sends vanishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Null {
    /// `rate`: frames that the port receives in a second; 0: none.
    pub rate: u64,
    /// `size` of those frames in bytes, without FCS.
    pub size: u16,
}

const COMMON_KEYS: [&str; 12] = [
    "name",
    "bridge",
    "type",
    "vlan",
    "trunk",
    "native_vlan",
    "isolated",
    "hairpin",
    "fdb_limit",
    "policy_group",
    "queues",
    "workers",
];

/// The port types of this version, each with the keys that only it and its like have.
const TYPES: [(&str, &[&str]); 7] = [
    ("tap", &["netns", "ifname", "mac", "mtu", "address", "gateway"]),
    ("veth", &["netns", "ifname", "mac", "mtu", "address", "gateway", "driver"]),
    ("afxdp", &["device", "netns", "mode", "exclusive"]),
    ("packet", &["device", "netns", "exclusive"]),
    ("pcap", &["read", "write", "loop"]),
    ("null", &["rate", "size"]),
    ("vhost-user", vhost_user::KEYS),
];

/// Port types that have a name and a place in the design, and no driver yet.
const LATER_TYPES: [&str; 2] = ["memif", "dpdk"];

/// Most queue pairs of a `vhost-user` port.
const QUEUE_PAIRS: u16 = 8;

const DRIVERS: [(&str, VethDriver); 2] = [("packet", VethDriver::Packet), ("afxdp", VethDriver::Afxdp)];
const MODES: [(&str, XdpMode); 3] =
    [("auto", XdpMode::Auto), ("zero-copy", XdpMode::ZeroCopy), ("copy", XdpMode::Copy)];

impl VethDriver {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            VethDriver::Packet => "packet",
            VethDriver::Afxdp => "afxdp",
        }
    }
}

impl XdpMode {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            XdpMode::Auto => "auto",
            XdpMode::ZeroCopy => "zero-copy",
            XdpMode::Copy => "copy",
        }
    }
}

impl PortKind {
    /// The word after `type =`.
    pub fn type_name(&self) -> &'static str {
        match self {
            PortKind::Tap(_) => "tap",
            PortKind::Veth(_) => "veth",
            PortKind::Afxdp(_) => "afxdp",
            PortKind::Packet(_) => "packet",
            PortKind::Pcap(_) => "pcap",
            PortKind::Null(_) => "null",
            PortKind::VhostUser(_) => "vhost-user",
        }
    }

    /// The container's end, of the types that make one.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            PortKind::Tap(tap) => Some(&tap.endpoint),
            PortKind::Veth(veth) => Some(&veth.endpoint),
            _ => None,
        }
    }

    /// The interface that the port makes or takes, with its namespace: no two ports may have the same.
    pub fn interface(&self) -> Option<(Option<&Netns>, &InterfaceName)> {
        match self {
            PortKind::Tap(Tap { endpoint }) | PortKind::Veth(Veth { endpoint, .. }) => {
                Some((endpoint.netns.as_ref(), &endpoint.ifname))
            }
            PortKind::Afxdp(Afxdp { device, netns, .. }) | PortKind::Packet(Packet { device, netns, .. }) => {
                Some((netns.as_ref(), device))
            }
            PortKind::Pcap(_) | PortKind::Null(_) | PortKind::VhostUser(_) => None,
        }
    }
}

impl Port {
    /// The port's settings at their defaults.
    pub fn new(name: PortName, bridge: impl Into<Option<BridgeName>>, kind: PortKind) -> Self {
        Self {
            name,
            bridge: bridge.into(),
            vlan: VlanMode::Transparent,
            isolated: false,
            hairpin: false,
            fdb_limit: None,
            policy_group: None,
            queues: None,
            workers: Vec::new(),
            kind,
        }
    }

    pub(super) fn decode(mut section: Section<'_, '_>) -> (Option<Self>, Marks) {
        let name = section.required_text::<PortName>("name", "\"web1\"");
        let bridge = section.text::<BridgeName>("bridge");
        let vlan = decode_vlan(&mut section);
        let isolated = section.boolean("isolated").unwrap_or(false);
        let hairpin = section.boolean("hairpin").unwrap_or(false);
        let fdb_limit = section.integer("fdb_limit", FDB_LIMIT, " entries");
        let policy_group = section.integer("policy_group", 0..=65_535, "");
        let queues = section.integer("queues", 1..=64, " queues");
        let workers = section.list("workers").unwrap_or_default();
        let workers = workers.iter().filter_map(|n| section.integer_of("workers", n, 0..=255, "")).collect();

        let type_name = decode_type(&mut section);
        // What the default says is as good as not said.
        let queues = queues.filter(|queues| *queues != 1 || type_name == Some("afxdp"));
        if queues.is_some_and(|queues| queues > QUEUE_PAIRS) && type_name == Some("vhost-user") {
            let message = format!("`queues`: a vhost-user port has at most {QUEUE_PAIRS} queue pairs");
            section.error_at("queues", message, None);
        }
        let kind = match type_name {
            Some("tap") => {
                Some(PortKind::Tap(Tap { endpoint: decode_endpoint(&mut section, name.as_ref()) }))
            }
            Some("veth") => {
                let endpoint = decode_endpoint(&mut section, name.as_ref());
                let driver = section.choice("driver", &DRIVERS).unwrap_or_default();
                Some(PortKind::Veth(Veth { endpoint, driver }))
            }
            Some("afxdp") => decode_afxdp(&mut section),
            Some("packet") => decode_packet(&mut section),
            Some("pcap") => Some(PortKind::Pcap(decode_pcap(&mut section))),
            Some("null") => Some(PortKind::Null(Null {
                rate: section.integer("rate", 0..=1_000_000_000, " frames a second").unwrap_or(0),
                size: section.integer("size", 60..=9018, " bytes").unwrap_or(60),
            })),
            Some("vhost-user") => vhost_user::decode(&mut section).map(PortKind::VhostUser),
            _ => None,
        };
        let marks = finish(section, type_name);
        let port = match (name, kind) {
            (Some(name), Some(kind)) => Some(Self {
                name,
                bridge,
                vlan,
                isolated,
                hairpin,
                fdb_limit,
                policy_group,
                queues,
                workers,
                kind,
            }),
            _ => None,
        };
        (port, marks)
    }

    pub(super) fn fields(&self) -> Vec<(&'static str, Json)> {
        let mut fields = vec![("name", json!(self.name))];
        fields.extend(self.bridge.as_ref().map(|bridge| ("bridge", json!(bridge))));
        fields.push(("type", json!(self.kind.type_name())));
        match &self.vlan {
            VlanMode::Transparent => {}
            VlanMode::Access(vlan) => fields.push(("vlan", json!(vlan))),
            VlanMode::Trunk { vlans, native } => {
                fields.push(("trunk", trunk_json(vlans)));
                fields.extend(native.map(|vlan| ("native_vlan", json!(vlan))));
            }
        }
        fields.extend(self.isolated.then_some(("isolated", json!(true))));
        fields.extend(self.hairpin.then_some(("hairpin", json!(true))));
        fields.extend(self.fdb_limit.map(|limit| ("fdb_limit", json!(limit))));
        fields.extend(self.policy_group.map(|group| ("policy_group", json!(group))));
        fields.extend(self.queues.map(|queues| ("queues", json!(queues))));
        fields.extend((!self.workers.is_empty()).then_some(("workers", json!(self.workers))));
        self.kind.fields(&self.name, &mut fields);
        fields
    }
}

/// Reports what is left over, and says so if a key belongs to another type.
fn finish(section: Section<'_, '_>, type_name: Option<&'static str>) -> Marks {
    let own: Vec<&str> = TYPES
        .iter()
        .filter(|(name, _)| type_name.is_none_or(|type_name| type_name == *name))
        .flat_map(|(_, keys)| keys.iter().copied())
        .collect();
    let known: Vec<&str> = COMMON_KEYS.into_iter().chain(own.iter().copied()).collect();
    section.finish_with(&known, |key| {
        let Some(type_name) = type_name else {
            // The type is unknown: a key of any type may be right.
            return own.contains(&key).then(|| format!("`{key}` cannot be read before `type` is right"));
        };
        let owners: Vec<&str> =
            TYPES.iter().filter(|(_, keys)| keys.contains(&key)).map(|(name, _)| *name).collect();
        (!owners.is_empty()).then(|| {
            format!("`{key}` is no key of a {type_name} port; ports of type {} have it", code_list(&owners))
        })
    })
}

fn decode_type(section: &mut Section<'_, '_>) -> Option<&'static str> {
    let text: String = section.required_text("type", "\"tap\"")?;
    if let Some((name, _)) = TYPES.iter().find(|(name, _)| *name == text) {
        return Some(name);
    }
    let names = TYPES.map(|(name, _)| name);
    let hint = format!("allowed are {}", code_list(&names));
    if LATER_TYPES.contains(&text.as_str()) {
        section.error_at("type", format!("`type`: {text} ports are not built in this version"), Some(hint));
    } else {
        let hint = match nearest(&text, names.into_iter().chain(LATER_TYPES)) {
            Some(near) => format!("nearest is `{near}`; {hint}"),
            None => hint,
        };
        section.error_at("type", format!("`type` has the unknown value \"{}\"", short(&text)), Some(hint));
    }
    None
}

fn decode_vlan(section: &mut Section<'_, '_>) -> VlanMode {
    const RANGE: std::ops::RangeInclusive<i128> = 1..=4094;
    let mut id = |key| section.integer(key, RANGE, "").and_then(|id| VlanId::new(id).ok());
    let access = id("vlan");
    let native = id("native_vlan");
    let trunk = section.take("trunk").map(|node| decode_trunk(section, &node));
    if section.had("vlan") && section.had("trunk") {
        let hint = "`vlan` makes an access port, `trunk` a port with tags; keep one of them".to_owned();
        section.error_at("trunk", "`vlan` and `trunk` exclude each other", Some(hint));
    }
    if section.had("native_vlan") && !section.had("trunk") {
        let hint = "add `trunk = [...]`, or write `vlan` for an access port".to_owned();
        section.error_at("native_vlan", "`native_vlan` is for ports with `trunk`", Some(hint));
    }
    match (access, trunk) {
        (_, Some(vlans)) => VlanMode::Trunk { vlans, native },
        (Some(vlan), None) => VlanMode::Access(vlan),
        (None, None) => VlanMode::Transparent,
    }
}

/// `"all"`, or a list of numbers and ranges: `[10, "20-29"]`.
fn decode_trunk(section: &mut Section<'_, '_>, node: &Node) -> VlanSet {
    let hint = || Some("write `trunk = \"all\"` or a list like `trunk = [10, \"20-29\"]`".to_owned());
    let mut set = VlanSet::default();
    match &node.value {
        Value::String(word) if word == "all" => return VlanSet::all(),
        Value::Array(items) if items.is_empty() => {
            section.error(&node.span, "`trunk` is empty, so the port would carry nothing", hint());
        }
        Value::Array(items) => {
            for item in items {
                match &item.value {
                    Value::String(text) => match parse_range(text) {
                        Some((first, last)) => set.insert(first, last),
                        None => {
                            let message = format!("`trunk`: \"{}\" is no range of VLANs", short(text));
                            section.error(
                                &item.span,
                                message,
                                Some("a range is like \"20-29\", 1 to 4094".into()),
                            );
                        }
                    },
                    _ => {
                        let id = section.integer_of("trunk", item, 1..=4094, "");
                        if let Some(id) = id.and_then(|id| VlanId::new(id).ok()) {
                            set.insert(id, id);
                        }
                    }
                }
            }
        }
        other => {
            let message = format!("`trunk` must be \"all\" or a list, but is {}", other.kind());
            section.error(&node.span, message, hint());
        }
    }
    set
}

fn parse_range(text: &str) -> Option<(VlanId, VlanId)> {
    let id = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| VlanId::new(text.parse().ok()?).ok()).flatten()
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (id(first.trim())?, id(last.trim())?),
        None => (id(text.trim())?, id(text.trim())?),
    };
    (first <= last).then_some((first, last))
}

fn trunk_json(vlans: &VlanSet) -> Json {
    if vlans.is_all() {
        return json!("all");
    }
    let range = |(first, last): (VlanId, VlanId)| {
        if first == last { json!(first) } else { json!(format!("{first}-{last}")) }
    };
    Json::Array(vlans.ranges().map(range).collect())
}

fn decode_afxdp(section: &mut Section<'_, '_>) -> Option<PortKind> {
    let device = section.required_text("device", "\"eth1\"");
    let netns = section.text("netns");
    let mode = section.choice("mode", &MODES).unwrap_or_default();
    let exclusive = section.boolean("exclusive").unwrap_or(false);
    Some(PortKind::Afxdp(Afxdp { device: device?, netns, mode, exclusive }))
}

fn decode_packet(section: &mut Section<'_, '_>) -> Option<PortKind> {
    let device = section.required_text("device", "\"eth1\"");
    let netns = section.text("netns");
    let exclusive = section.boolean("exclusive").unwrap_or(false);
    Some(PortKind::Packet(Packet { device: device?, netns, exclusive }))
}

pub(super) fn decode_file(section: &mut Section<'_, '_>, key: &'static str) -> Option<PathBuf> {
    let text: String = section.text(key)?;
    if text.is_empty() || text.contains('\0') {
        section.error_at(key, format!("`{key}` is not a file name"), None);
        return None;
    }
    Some(PathBuf::from(text))
}

fn decode_pcap(section: &mut Section<'_, '_>) -> Pcap {
    let read = decode_file(section, "read");
    let write = decode_file(section, "write");
    let repeat = section.boolean("loop").unwrap_or(false);
    if !section.had("read") && !section.had("write") {
        let hint = "add `read = \"FILE\"`, `write = \"FILE\"` or both".to_owned();
        section.error_at("type", "a pcap port needs a file", Some(hint));
    }
    if repeat && !section.had("read") {
        section.error_at("loop", "`loop` is for ports with `read`", None);
    }
    Pcap { read, write, repeat }
}

impl PortKind {
    fn fields(&self, port: &PortName, fields: &mut Vec<(&'static str, Json)>) {
        let netns_field =
            |netns: &Option<Netns>| netns.as_ref().map(|netns| ("netns", json!(netns.to_string())));
        match self {
            PortKind::Tap(tap) => tap.endpoint.fields(port, fields),
            PortKind::Veth(veth) => {
                veth.endpoint.fields(port, fields);
                let changed = veth.driver != VethDriver::default();
                fields.extend(changed.then(|| ("driver", json!(veth.driver.as_str()))));
            }
            PortKind::Afxdp(afxdp) => {
                fields.push(("device", json!(afxdp.device)));
                fields.extend(netns_field(&afxdp.netns));
                fields
                    .extend((afxdp.mode != XdpMode::default()).then(|| ("mode", json!(afxdp.mode.as_str()))));
                fields.extend(afxdp.exclusive.then_some(("exclusive", json!(true))));
            }
            PortKind::Packet(packet) => {
                fields.push(("device", json!(packet.device)));
                fields.extend(netns_field(&packet.netns));
                fields.extend(packet.exclusive.then_some(("exclusive", json!(true))));
            }
            PortKind::Pcap(pcap) => {
                fields.extend(pcap.read.as_ref().map(|path| ("read", json!(path.to_string_lossy()))));
                fields.extend(pcap.write.as_ref().map(|path| ("write", json!(path.to_string_lossy()))));
                fields.extend(pcap.repeat.then_some(("loop", json!(true))));
            }
            PortKind::Null(null) => {
                fields.extend((null.rate != 0).then_some(("rate", json!(null.rate))));
                fields.extend((null.size != 60).then_some(("size", json!(null.size))));
            }
            PortKind::VhostUser(vhost) => vhost.fields(fields),
        }
    }
}
