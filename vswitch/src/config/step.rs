//! One thing to do to get from one desired state to another.
//!
//! What [`diff`](super::diff::diff) lists and [`Step::patch`] carries out on a configuration; whoever owns ports and
//! tables carries it out on them. Its text is what people are shown.

use std::fmt;

use control::schema::{Bridge, Config, Neighbour, Port, StaticEntry, Tunnel, Underlay, VlanId};
use serde::Serialize;
use serde_json::{Map, Value};

use super::names::{Named, PlaceName};

/// One thing to do. [`Step::inverse`] undoes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Remove a static entry.
    DeleteEntry(StaticEntry),
    /// Close a port and remove what was made for it.
    DeletePort {
        /// The port as it is.
        port: Box<Port>,
        /// What it will be made again as, by a later step.
        again: Option<Box<Port>>,
    },
    /// Make a bridge.
    AddBridge(Bridge),
    /// Change settings of a bridge.
    ChangeBridge {
        /// As it is.
        from: Bridge,
        /// As it shall be.
        to: Bridge,
    },
    /// Open a port.
    AddPort {
        /// The port as it shall be.
        port: Box<Port>,
        /// What it was before an earlier step deleted it.
        again: Option<Box<Port>>,
    },
    /// Change settings of a port while its queues go on.
    ChangePort {
        /// As it is.
        from: Box<Port>,
        /// As it shall be.
        to: Box<Port>,
    },
    /// Close a port, leave its device as it is, and open that again with other settings.
    ReopenPort {
        /// As it is.
        from: Box<Port>,
        /// As it shall be.
        to: Box<Port>,
    },
    /// Remove a bridge, which has no ports any more.
    DeleteBridge(Bridge),
    /// Remove an underlay.
    DeleteUnderlay(Underlay),
    /// Put an underlay on its port.
    AddUnderlay(Underlay),
    /// Change settings of an underlay that stays on its port.
    ChangeUnderlay {
        /// As it is.
        from: Underlay,
        /// As it shall be.
        to: Underlay,
    },
    /// Remove a tunnel.
    DeleteTunnel(Tunnel),
    /// Make a tunnel.
    AddTunnel(Tunnel),
    /// Change settings of a tunnel that stays of its type, over its underlay.
    ChangeTunnel {
        /// As it is.
        from: Tunnel,
        /// As it shall be.
        to: Tunnel,
    },
    /// Bind a static entry to its place.
    AddEntry(StaticEntry),
    /// Remove an entry of a neighbour table.
    DeleteNeighbour(Neighbour),
    /// Make an entry of a neighbour table.
    AddNeighbour(Neighbour),
}

impl Step {
    /// Carries the step out on a configuration.
    pub fn patch(&self, config: &mut Config) {
        match self {
            Step::DeleteEntry(gone) => config.fdb.retain(|entry| entry != gone),
            Step::DeletePort { port: gone, .. } => config.ports.retain(|port| port.name != gone.name),
            Step::DeleteBridge(gone) => config.bridges.retain(|bridge| bridge.name != gone.name),
            Step::AddBridge(bridge) => config.bridges.push(bridge.clone()),
            Step::AddPort { port, .. } => config.ports.push(Port::clone(port)),
            Step::AddEntry(entry) => config.fdb.push(entry.clone()),
            Step::DeleteUnderlay(gone) => config.underlays.retain(|underlay| underlay.name != gone.name),
            Step::AddUnderlay(underlay) => config.underlays.push(underlay.clone()),
            Step::DeleteTunnel(gone) => config.tunnels.retain(|tunnel| tunnel.name != gone.name),
            Step::AddTunnel(tunnel) => config.tunnels.push(tunnel.clone()),
            Step::DeleteNeighbour(gone) => config.neighbours.retain(|neighbour| neighbour != gone),
            Step::AddNeighbour(neighbour) => config.neighbours.push(neighbour.clone()),
            Step::ChangeBridge { to, .. } => replace(&mut config.bridges, to),
            Step::ChangePort { to, .. } | Step::ReopenPort { to, .. } => replace(&mut config.ports, to),
            Step::ChangeUnderlay { to, .. } => replace(&mut config.underlays, to),
            Step::ChangeTunnel { to, .. } => replace(&mut config.tunnels, to),
        }
    }

    /// The step that undoes this one. The inverses in reverse order lead back.
    pub fn inverse(&self) -> Step {
        match self.clone() {
            Step::DeleteEntry(entry) => Step::AddEntry(entry),
            Step::AddEntry(entry) => Step::DeleteEntry(entry),
            Step::DeletePort { port, again } => Step::AddPort { port, again },
            Step::AddPort { port, again } => Step::DeletePort { port, again },
            Step::AddBridge(bridge) => Step::DeleteBridge(bridge),
            Step::DeleteBridge(bridge) => Step::AddBridge(bridge),
            Step::ChangeBridge { from, to } => Step::ChangeBridge { from: to, to: from },
            Step::ChangePort { from, to } => Step::ChangePort { from: to, to: from },
            Step::ReopenPort { from, to } => Step::ReopenPort { from: to, to: from },
            Step::DeleteUnderlay(underlay) => Step::AddUnderlay(underlay),
            Step::AddUnderlay(underlay) => Step::DeleteUnderlay(underlay),
            Step::ChangeUnderlay { from, to } => Step::ChangeUnderlay { from: to, to: from },
            Step::DeleteTunnel(tunnel) => Step::AddTunnel(tunnel),
            Step::AddTunnel(tunnel) => Step::DeleteTunnel(tunnel),
            Step::ChangeTunnel { from, to } => Step::ChangeTunnel { from: to, to: from },
            Step::DeleteNeighbour(neighbour) => Step::AddNeighbour(neighbour),
            Step::AddNeighbour(neighbour) => Step::DeleteNeighbour(neighbour),
        }
    }

    /// The object that the step is about, as errors name it.
    pub fn object(&self) -> String {
        match self {
            Step::DeleteEntry(entry) | Step::AddEntry(entry) => format!("fdb entry {}", entry.mac),
            Step::AddBridge(bridge) | Step::DeleteBridge(bridge) | Step::ChangeBridge { to: bridge, .. } => {
                format!("bridge \"{}\"", bridge.name)
            }
            Step::DeletePort { port, .. }
            | Step::AddPort { port, .. }
            | Step::ChangePort { to: port, .. }
            | Step::ReopenPort { to: port, .. } => format!("port \"{}\"", port.name),
            Step::DeleteUnderlay(underlay)
            | Step::AddUnderlay(underlay)
            | Step::ChangeUnderlay { to: underlay, .. } => format!("underlay \"{}\"", underlay.name),
            Step::DeleteTunnel(tunnel) | Step::AddTunnel(tunnel) | Step::ChangeTunnel { to: tunnel, .. } => {
                format!("tunnel \"{}\"", tunnel.name)
            }
            Step::DeleteNeighbour(neighbour) | Step::AddNeighbour(neighbour) => {
                format!("neighbour {}", neighbour.ip)
            }
        }
    }
}

/// For people, in one line: `reopen port "web1": mtu 1500 -> 9000`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = self.object();
        match self {
            Step::DeleteEntry(entry) => write!(f, "delete {object} {}", Bound(entry)),
            Step::AddEntry(entry) => write!(f, "add {object} {}", Bound(entry)),
            Step::AddBridge(_) => write!(f, "add {object}"),
            Step::DeleteBridge(_) => write!(f, "delete {object}"),
            Step::ChangeBridge { from, to } => write!(f, "change {object}: {}", List(changes(from, to))),
            Step::DeletePort { again: None, .. } => write!(f, "delete {object}"),
            Step::DeletePort { port, again: Some(to) } => {
                write!(f, "delete {object} to make it again: {}", List(changes(&**port, to)))
            }
            Step::AddPort { again: Some(_), .. } => write!(f, "add {object} again"),
            Step::AddPort { port, again: None } => {
                write!(f, "add {object} ({})", port.kind.type_name())?;
                port.bridge.iter().try_for_each(|bridge| write!(f, " to bridge \"{bridge}\""))
            }
            Step::ChangePort { from, to } => write!(f, "change {object}: {}", List(changes(from, to))),
            Step::ReopenPort { from, to } if from == to => write!(f, "reopen {object}: for its underlay"),
            Step::ReopenPort { from, to } => write!(f, "reopen {object}: {}", List(changes(from, to))),
            Step::DeleteUnderlay(_) | Step::DeleteTunnel(_) => write!(f, "delete {object}"),
            Step::AddUnderlay(underlay) => write!(f, "add {object} on port \"{}\"", underlay.port),
            Step::ChangeUnderlay { from, to } => write!(f, "change {object}: {}", List(changes(from, to))),
            Step::AddTunnel(tunnel) => {
                write!(f, "add {object} ({}) over underlay \"{}\"", tunnel.kind.as_str(), tunnel.underlay)
            }
            Step::ChangeTunnel { from, to } => write!(f, "change {object}: {}", List(changes(from, to))),
            Step::DeleteNeighbour(neighbour) => write!(f, "delete {object} {}", Found(neighbour)),
            Step::AddNeighbour(neighbour) => write!(f, "add {object} {}", Found(neighbour)),
        }
    }
}

/// Where a static entry is bound.
struct Bound<'e>(&'e StaticEntry);

impl fmt::Display for Bound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StaticEntry { bridge, vlan, place, .. } = self.0;
        write!(f, "in bridge \"{bridge}\"{} {}", Tagged(*vlan), PlaceName(place))
    }
}

/// Where a neighbour is.
struct Found<'n>(&'n Neighbour);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Neighbour { bridge, vlan, mac, .. } = self.0;
        write!(f, "in bridge \"{bridge}\"{} at {mac}", Tagged(*vlan))
    }
}

/// A VLAN behind a bridge's name; nothing if it is none.
struct Tagged(Option<VlanId>);

impl fmt::Display for Tagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|vlan| write!(f, " vlan {vlan}"))
    }
}

fn replace<T: Named + Clone>(objects: &mut [T], to: &T) {
    objects.iter_mut().filter(|object| object.name() == to.name()).for_each(|object| object.clone_from(to));
}

/// A key whose value changes; None stands for the default.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: String,
    from: Option<Value>,
    to: Option<Value>,
}

struct List(Vec<Change>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Change { key, from, to }) in self.0.iter().enumerate() {
            let text = |value: &Option<Value>| value.as_ref().map_or("default".to_owned(), Value::to_string);
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{key} {} -> {}", text(from), text(to))?;
        }
        Ok(())
    }
}

/// The keys in which two objects differ, by the names that the configuration has for them.
pub(super) fn changes<T: Serialize>(from: &T, to: &T) -> Vec<Change> {
    let (mut from, to) = (object(from), object(to));
    let mut list: Vec<Change> = Vec::new();
    for (key, value) in to {
        let old = from.remove(&key);
        if old.as_ref() != Some(&value) {
            list.push(Change { key, from: old, to: Some(value) });
        }
    }
    list.extend(from.into_iter().map(|(key, value)| Change { key, from: Some(value), to: None }));
    list.sort_by(|a, b| a.key.cmp(&b.key));
    list
}

fn object<T: Serialize>(value: &T) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        // The schema's objects are nothing else.
        _ => Map::new(),
    }
}
