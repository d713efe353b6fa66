//! The desired state of a switch: a TOML document, or the values that it stands for.
//!
//! ```toml
//! [switch]
//! workers = [0, 1]              # CPU numbers; "auto" by default
//! huge_pages = "auto"           # auto | on | off
//!
//! [limits]                      # frames, flows, fdb, ports, remotes, neighbours
//! fdb = 100000
//!
//! [[bridge]]
//! name = "blue"
//! vni = 5001                    # or vlan_vni = {10 = 5010}
//!
//! [[port]]
//! name = "web1"
//! bridge = "blue"
//! type = "tap"                  # tap | veth | afxdp | packet | pcap | null
//! netns = "web1"
//! address = ["10.1.0.11/24"]
//!
//! [[port]]
//! name = "uplink"               # without `bridge`: an underlay has it
//! type = "afxdp"
//! device = "eth1"
//!
//! [[underlay]]
//! name = "core"
//! port = "uplink"
//!
//! [[tunnel]]
//! name = "dc1"
//! type = "vxlan"                # vxlan | nvgre | geneve
//! underlay = "core"
//! remote = ["192.0.2.2", "192.0.2.3"]
//!
//! [[fdb]]
//! bridge = "blue"
//! mac = "02:00:00:00:00:01"
//! port = "web1"                 # or tunnel and remote
//!
//! [[neighbour]]
//! bridge = "blue"
//! ip = "10.1.0.11"
//! mac = "02:00:00:00:00:01"
//! ```
//!
//! [`Config::parse`] reads a document completely and reports all of its mistakes, each with line and
//! column; [`Config::to_toml`] writes one that reads back as the same value. A caller that edits the
//! value itself (`port add`) calls [`Config::check`] before it applies the result.
//!
//! The text goes through a tree of values with places (`document`), tables whose keys are taken one
//! by one (`section`), the types of this module, and the checks between objects (`check`). It is
//! decoded by hand and not by derived `Deserialize`, because that stops at the first mistake and
//! loses the place of all that is found later.

mod bridge;
mod check;
mod document;
mod endpoint;
mod error;
mod fdb;
mod name;
mod nearest;
mod neighbour;
mod port;
mod prefix;
mod section;
mod switch;
mod tunnel;
mod underlay;
mod vhost_user;
mod vlan;
mod vni;

use std::fmt;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

pub use bridge::Bridge;
pub use check::shown;
pub use endpoint::Endpoint;
pub use error::ConfigError;
pub use fdb::{Place, StaticEntry};
pub use name::{BridgeName, InterfaceName, NameError, Netns, OriginName, PortName, TunnelName, UnderlayName};
pub use nearest::nearest;
pub use neighbour::Neighbour;
pub use port::{Afxdp, Null, Packet, Pcap, Port, PortKind, Tap, Veth, VethDriver, XdpMode};
pub use prefix::{IpPrefix, IpPrefixError, is_station};
pub use switch::{HugePages, Limits, Switch, WorkerPlacement};
pub use tunnel::{Dscp, FlowId, Tunnel, TunnelKind};
pub use underlay::{Route, Underlay};
pub use vhost_user::{BadFileMode, FileMode, SocketMode, VhostUser};
pub use vlan::{VlanId, VlanIdError, VlanMode, VlanSet};
pub use vni::{Vni, VniError, Vnis};

use check::Places;
use document::{Field, Node, Value};
use error::Errors;
use section::{Marks, Section};

/// The whole desired state. Equal values mean the same switch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `[switch]`.
    pub switch: Switch,
    /// `[limits]`.
    pub limits: Limits,
    /// `[[bridge]]`, in the order of the document.
    pub bridges: Vec<Bridge>,
    /// `[[port]]`, in the order of the document.
    pub ports: Vec<Port>,
    /// `[[underlay]]`, in the order of the document.
    pub underlays: Vec<Underlay>,
    /// `[[tunnel]]`, in the order of the document.
    pub tunnels: Vec<Tunnel>,
    /// `[[fdb]]`, in the order of the document.
    pub fdb: Vec<StaticEntry>,
    /// `[[neighbour]]`, in the order of the document.
    pub neighbours: Vec<Neighbour>,
}

impl Config {
    /// The largest document that is read, in bytes; it fits an API message with room to spare.
    pub const MAX_BYTES: usize = 2 * 1024 * 1024;

    const KEYS: [&str; 8] = ["switch", "limits", "bridge", "port", "underlay", "tunnel", "fdb", "neighbour"];

    /// Reads a document; `file_name` stands in the errors. All mistakes of one kind are reported
    /// together: syntax first, then keys and values, then what does not fit between objects.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Errors::new(file_name, text);
        if text.len() > Self::MAX_BYTES {
            let message =
                format!("the document has {} bytes, and {} are allowed", text.len(), Self::MAX_BYTES);
            errors.push(None, file_name, message, None);
            return Err(errors.finish());
        }
        let root = document::from_toml(text, &mut errors);
        if !errors.is_empty() {
            return Err(errors.finish());
        }
        Self::from_tree(root, errors)
    }

    /// As [`Config::parse`], of bytes that may not be text.
    pub fn parse_bytes(bytes: &[u8], file_name: &str) -> Result<Self, Vec<ConfigError>> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text, file_name),
            Err(error) => {
                let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let mut errors = Errors::new(file_name, &good);
                let hint = Some("the document must be UTF-8".to_owned());
                errors.push(Some(&(good.len()..good.len())), "", "a byte that is no text", hint);
                Err(errors.finish())
            }
        }
    }

    /// The document that [`Config::parse`] reads back as this value; what is at its default is left out.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        write_table(&mut text, "[switch]", &self.switch.fields());
        write_table(&mut text, "[limits]", &self.limits.fields());
        for bridge in &self.bridges {
            write_table(&mut text, "[[bridge]]", &bridge.fields());
        }
        for port in &self.ports {
            write_table(&mut text, "[[port]]", &port.fields());
        }
        for underlay in &self.underlays {
            write_table(&mut text, "[[underlay]]", &underlay.fields());
        }
        for tunnel in &self.tunnels {
            write_table(&mut text, "[[tunnel]]", &tunnel.fields());
        }
        for entry in &self.fdb {
            write_table(&mut text, "[[fdb]]", &entry.fields());
        }
        for neighbour in &self.neighbours {
            write_table(&mut text, "[[neighbour]]", &neighbour.fields());
        }
        text
    }

    /// Checks what must hold between the objects; for values that were put together or edited by a program.
    pub fn check(&self) -> Result<(), Vec<ConfigError>> {
        let mut errors = Errors::new("", "");
        check::check(self, &Places::nowhere(self), &mut errors);
        if errors.is_empty() { Ok(()) } else { Err(errors.finish()) }
    }

    /// How many ports there are with those behind which the switch speaks for itself: one for each underlay of its own,
    /// and one for each bridge with addresses. `[limits] ports` is about all of them.
    pub fn all_ports(&self) -> usize {
        let own = self.underlays.iter().filter(|underlay| !underlay.is_shared(self)).count();
        let addressed = self.bridges.iter().filter(|bridge| !bridge.addresses.is_empty()).count();
        self.ports.len() + own + addressed
    }

    /// The port of this name.
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == *name)
    }

    /// The bridge of this name.
    pub fn bridge(&self, name: &str) -> Option<&Bridge> {
        self.bridges.iter().find(|bridge| bridge.name == *name)
    }

    /// The underlay of this name.
    pub fn underlay(&self, name: &str) -> Option<&Underlay> {
        self.underlays.iter().find(|underlay| underlay.name == *name)
    }

    /// The tunnel of this name.
    pub fn tunnel(&self, name: &str) -> Option<&Tunnel> {
        self.tunnels.iter().find(|tunnel| tunnel.name == *name)
    }

    fn from_tree(root: Node, mut errors: Errors<'_>) -> Result<Self, Vec<ConfigError>> {
        let (mut config, mut places) = (Self::default(), Places::default());
        let Value::Table(fields) = root.value else {
            errors.push(None, "", "the document must be a table", None);
            return Err(errors.finish());
        };
        for Field { key, key_span, node } in fields {
            if !config.decode(&key, node, &mut places, &mut errors) {
                let hint = match nearest(&key, Self::KEYS) {
                    Some(near) => format!("nearest is `{near}`"),
                    None => "known are [switch], [limits], [[bridge]], [[port]], [[underlay]], [[tunnel]], \
                             [[fdb]] and [[neighbour]]"
                        .to_owned(),
                };
                let message = format!("unknown section or key `{}`", section::short(&key));
                errors.push(key_span.as_ref(), "", message, Some(hint));
            }
        }
        if errors.is_empty() {
            check::check(&config, &places, &mut errors);
        }
        if errors.is_empty() { Ok(config) } else { Err(errors.finish()) }
    }

    /// Takes one key of the document; false if there is none of this name.
    fn decode(&mut self, key: &str, node: Node, places: &mut Places, errors: &mut Errors<'_>) -> bool {
        match key {
            "switch" => {
                if let Some(section) = Section::open(errors, "[switch]".to_owned(), node) {
                    self.switch = Switch::decode(section).0;
                }
            }
            "limits" => {
                if let Some(section) = Section::open(errors, "[limits]".to_owned(), node) {
                    (self.limits, places.limits) = Limits::decode(section);
                }
            }
            "bridge" => (self.bridges, places.bridges) = decode_list(errors, node),
            "port" => (self.ports, places.ports) = decode_list(errors, node),
            "underlay" => (self.underlays, places.underlays) = decode_list(errors, node),
            "tunnel" => (self.tunnels, places.tunnels) = decode_list(errors, node),
            "fdb" => (self.fdb, places.fdb) = decode_list(errors, node),
            "neighbour" => (self.neighbours, places.neighbours) = decode_list(errors, node),
            _ => return false,
        }
        true
    }
}

/// A document that [`Config::parse`] reads back.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_toml())
    }
}

fn bridge_object(name: &str) -> String {
    format!("bridge \"{}\"", section::short(name))
}

fn port_object(name: &str) -> String {
    format!("port \"{}\"", section::short(name))
}

fn underlay_object(name: &str) -> String {
    format!("underlay \"{}\"", section::short(name))
}

fn tunnel_object(name: &str) -> String {
    format!("tunnel \"{}\"", section::short(name))
}

fn neighbour_object(ip: &str) -> String {
    format!("neighbour {}", section::short(ip))
}

fn fdb_object(mac: &str) -> String {
    format!("fdb entry {}", section::short(mac))
}

/// An object of which a document has a list.
trait Object: Sized {
    /// The name of the list: `[[port]]`.
    const ARRAY: &'static str;
    /// The key by whose text errors name an object.
    const NAME_KEY: &'static str;
    /// How errors name it.
    fn object(name: &str) -> String;
    /// Takes the keys of one.
    fn decode(section: Section<'_, '_>) -> (Option<Self>, Marks);
}

/// Decodes the tables of a list.
fn decode_list<T: Object>(errors: &mut Errors<'_>, node: Node) -> (Vec<T>, Vec<Marks>) {
    let (mut values, mut places) = (Vec::new(), Vec::new());
    let array = T::ARRAY;
    let Value::Array(items) = node.value else {
        let message = format!("`{array}` is a list of tables");
        errors.push(node.span.as_ref(), "", message, Some(format!("write [[{array}]] with two brackets")));
        return (values, places);
    };
    for (index, item) in items.into_iter().enumerate() {
        let Some(mut section) = Section::open(errors, format!("[[{array}]] number {}", index + 1), item)
        else {
            continue;
        };
        if let Some(name) = section.peek_text(T::NAME_KEY).map(T::object) {
            section.rename(name);
        }
        if let (Some(value), marks) = T::decode(section) {
            values.push(value);
            places.push(marks);
        }
    }
    (values, places)
}

/// Writes one table, with a blank line before it if it is not the first; nothing if it has no keys.
fn write_table(text: &mut String, header: &str, fields: &[(&'static str, Json)]) {
    if fields.is_empty() {
        return;
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(header);
    text.push('\n');
    for (key, value) in fields {
        text.push_str(key);
        text.push_str(" = ");
        write_value(text, value);
        text.push('\n');
    }
}

fn write_value(text: &mut String, value: &Json) {
    match value {
        Json::String(string) => text.push_str(&toml::Value::String(string.clone()).to_string()),
        Json::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                write_value(text, item);
            }
            text.push(']');
        }
        Json::Object(map) => {
            text.push('{');
            for (index, (key, item)) in map.iter().enumerate() {
                // The keys of inner tables are plain words and numbers, which stand without quotes.
                text.push_str(if index > 0 { ", " } else { "" });
                text.push_str(&format!("{key} = "));
                write_value(text, item);
            }
            text.push('}');
        }
        // Numbers and booleans are written alike in both formats; nothing else comes from `fields`.
        other => text.push_str(&other.to_string()),
    }
}

/// Makes a type an object of a list, and a JSON object with the keys of the document, in both directions.
macro_rules! list_object {
    ($type:ty, $array:literal, $name_key:literal, $object:ident) => {
        impl Object for $type {
            const ARRAY: &'static str = $array;
            const NAME_KEY: &'static str = $name_key;

            fn object(name: &str) -> String {
                $object(name)
            }

            fn decode(section: Section<'_, '_>) -> (Option<Self>, Marks) {
                <$type>::decode(section)
            }
        }

        /// An object with the keys of the document; what is at its default is left out.
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let fields = self.fields();
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in &fields {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }

        /// An object with the keys of the document, checked as the document is; what must hold
        /// between objects is not.
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let node = document::from_json(Json::deserialize(deserializer)?);
                let list = Node { span: None, value: Value::Array(vec![node]) };
                let mut errors = Errors::new("", "");
                let (mut values, _) = decode_list::<Self>(&mut errors, list);
                match values.pop().filter(|_| errors.is_empty()) {
                    Some(value) => Ok(value),
                    None => {
                        let messages: Vec<String> = errors.finish().iter().map(ToString::to_string).collect();
                        Err(D::Error::custom(messages.join("\n")))
                    }
                }
            }
        }
    };
}

list_object!(Bridge, "bridge", "name", bridge_object);
list_object!(Port, "port", "name", port_object);
list_object!(Underlay, "underlay", "name", underlay_object);
list_object!(Tunnel, "tunnel", "name", tunnel_object);
list_object!(StaticEntry, "fdb", "mac", fdb_object);
list_object!(Neighbour, "neighbour", "ip", neighbour_object);
