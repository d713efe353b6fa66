//! From one desired state to another: the list of steps, in an order that is safe to carry out.
//!
//! After every step the configuration so far is a valid one: no entry without its port, no port without
//! its bridge, no interface in two hands. So entries go first, then ports, then bridges come, then ports
//! come and change, then bridges that nobody is in any more go, then entries come.
//!
//! A changed port keeps as much as it can:
//! - [`Step::ChangePort`]: its queues go on. Only the snapshot changes, the workers that serve it, or the
//!   addresses of its container's interface.
//! - [`Step::ReopenPort`]: it is closed with its device left as it is, and opened again over the same
//!   device. Connections of the container live through it.
//! - [`Step::DeletePort`] and [`Step::AddPort`]: it becomes another device.
//!
//! What is allocated or started once ([`RestartNeeded`]) is refused.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use control::api::{ApiError, ErrorCode};
use control::schema::{Bridge, Config, HugePages, Port, PortKind, PortName, StaticEntry, WorkerPlacement};
use serde::Serialize;
use serde_json::{Map, Value};

use super::names::{Names, PlaceName};

/// Keys of `[[port]]` that change while the port's queues go on.
const IN_PLACE: [&str; 9] =
    ["vlan", "trunk", "native_vlan", "isolated", "hairpin", "fdb_limit", "workers", "address", "gateway"];

/// Keys of `[[port]]` for which it is enough to open the same device again. A port that moves to another
/// bridge is among them, so that nothing that was learned or cached about it moves along.
const REOPEN: [&str; 11] = [
    "bridge",
    "queues",
    "mtu",
    "mac",
    "driver",
    "mode",
    "exclusive",
    "socket_mode",
    "socket_group",
    "offloads",
    "packed",
];

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
    /// Bind a static entry to its port.
    AddEntry(StaticEntry),
}

/// A key that the running switch cannot change, with both values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedKey {
    /// Where it stands: `[limits] frames`.
    pub key: &'static str,
    /// The value that the switch runs with.
    pub from: String,
    /// The value that is wanted.
    pub to: String,
}

/// The change needs a restart; nothing of it can be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RestartNeeded {
    /// The keys, never none.
    pub keys: Vec<FixedKey>,
}

impl fmt::Display for RestartNeeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> =
            self.keys.iter().map(|key| format!("`{}` from {} to {}", key.key, key.from, key.to)).collect();
        write!(f, "the running switch cannot change {}: restart it for that", list.join(", "))
    }
}

impl From<RestartNeeded> for ApiError {
    fn from(error: RestartNeeded) -> ApiError {
        let object = error.keys.first().map_or("", |key| key.key);
        ApiError::new(ErrorCode::Configuration, error.to_string())
            .object(object)
            .cause("workers and memory are set up once, when the switch starts")
            .fix("write it to the file given by --config and restart vswitchd; or keep the value")
    }
}

/// The steps from `current` to `wanted`, both of which are valid; none if they mean the same.
///
/// # Errors
/// `wanted` differs in what is fixed while the switch runs.
pub fn diff(current: &Config, wanted: &Config) -> Result<Vec<Step>, RestartNeeded> {
    check_fixed(current, wanted)?;
    let ports = PortSteps::between(current, wanted);
    let mut steps = Vec::new();
    steps.extend(lost(&current.fdb, &wanted.fdb, &ports.unsettled).map(Step::DeleteEntry));
    steps.extend(ports.deletions);
    let (old, new) = (Names::of(&current.bridges), Names::of(&wanted.bridges));
    for to in &wanted.bridges {
        match old.get(to.name.as_str()) {
            None => steps.push(Step::AddBridge(to.clone())),
            Some(from) if from == to => {}
            Some(from) => steps.push(Step::ChangeBridge { from: from.clone(), to: to.clone() }),
        }
    }
    steps.extend(ports.changes);
    steps.extend(ports.additions);
    let left = current.bridges.iter().filter(|bridge| new.get(bridge.name.as_str()).is_none());
    steps.extend(left.cloned().map(Step::DeleteBridge));
    steps.extend(lost(&wanted.fdb, &current.fdb, &ports.unsettled).map(Step::AddEntry));
    Ok(steps)
}

/// The configuration after the steps. An object that a step speaks of and that is not there is passed over.
pub fn patch(config: &Config, steps: &[Step]) -> Config {
    let mut config = config.clone();
    steps.iter().for_each(|step| step.patch(&mut config));
    config
}

fn check_fixed(current: &Config, wanted: &Config) -> Result<(), RestartNeeded> {
    let workers = |config: &Config| match &config.switch.workers {
        WorkerPlacement::Auto => "\"auto\"".to_owned(),
        WorkerPlacement::Cpus(cpus) => format!("{cpus:?}"),
    };
    let pages = |config: &Config| match config.switch.huge_pages {
        HugePages::Auto => "\"auto\"".to_owned(),
        HugePages::On => "\"on\"".to_owned(),
        HugePages::Off => "\"off\"".to_owned(),
    };
    let values = |config: &Config| {
        let limits = &config.limits;
        [
            ("[switch] workers", workers(config)),
            ("[switch] huge_pages", pages(config)),
            ("[limits] frames", limits.frames.to_string()),
            ("[limits] flows", limits.flows.to_string()),
            ("[limits] fdb", limits.fdb.to_string()),
            ("[limits] ports", limits.ports.to_string()),
            ("[limits] remotes", limits.remotes.to_string()),
            ("[limits] neighbours", limits.neighbours.to_string()),
        ]
    };
    let pairs = values(current).into_iter().zip(values(wanted));
    let changed = pairs.filter(|(from, to)| from != to);
    let keys: Vec<_> = changed.map(|((key, from), (_, to))| FixedKey { key, from, to }).collect();
    if keys.is_empty() { Ok(()) } else { Err(RestartNeeded { keys }) }
}

/// Entries of `these` that are not among `those`, or are bound to a port that loses its entries on the way.
fn lost(
    these: &[StaticEntry],
    those: &[StaticEntry],
    unsettled: &HashSet<PortName>,
) -> impl Iterator<Item = StaticEntry> {
    let those: HashSet<&StaticEntry> = those.iter().collect();
    let is_lost = move |entry: &&StaticEntry| {
        !those.contains(entry) || entry.place.port().is_some_and(|port| unsettled.contains(port))
    };
    these.iter().filter(is_lost).cloned().collect::<Vec<_>>().into_iter()
}

/// What is to be done with ports.
#[derive(Default)]
struct PortSteps {
    deletions: Vec<Step>,
    changes: Vec<Step>,
    additions: Vec<Step>,
    /// Ports that are closed on the way.
    unsettled: HashSet<PortName>,
}

impl PortSteps {
    fn between(current: &Config, wanted: &Config) -> PortSteps {
        let mut steps = PortSteps::default();
        let (old, new) = (Names::of(&current.ports), Names::of(&wanted.ports));
        for from in &current.ports {
            match new.get(from.name.as_str()) {
                None => steps.delete(from, None),
                Some(to) if to == from => {}
                Some(to) => match Effort::between(from, to) {
                    Effort::InPlace => {
                        let (from, to) = (Box::new(from.clone()), Box::new(to.clone()));
                        steps.changes.push(Step::ChangePort { from, to });
                    }
                    Effort::Reopen => {
                        steps.unsettled.insert(from.name.clone());
                        let (from, to) = (Box::new(from.clone()), Box::new(to.clone()));
                        steps.changes.push(Step::ReopenPort { from, to });
                    }
                    Effort::Again => steps.delete(from, Some(to)),
                },
            }
        }
        for to in &wanted.ports {
            let again = match old.get(to.name.as_str()) {
                None => None,
                Some(from) if from != to && Effort::between(from, to) == Effort::Again => Some(from),
                Some(_) => continue,
            };
            let again = again.map(|from| Box::new(from.clone()));
            steps.additions.push(Step::AddPort { port: Box::new(to.clone()), again });
        }
        steps
    }

    fn delete(&mut self, port: &Port, again: Option<&Port>) {
        self.unsettled.insert(port.name.clone());
        let again = again.map(|port| Box::new(port.clone()));
        self.deletions.push(Step::DeletePort { port: Box::new(port.clone()), again });
    }
}

/// What a change costs the port; the larger wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effort {
    InPlace,
    Reopen,
    Again,
}

impl Effort {
    fn between(from: &Port, to: &Port) -> Effort {
        let efforts = changes(from, to).into_iter().map(|change| match change.key.as_str() {
            key if IN_PLACE.contains(&key) => Effort::InPlace,
            // A TAP that was made for one queue cannot get more; of one that has one, nothing tells for how many.
            "queues" if matches!(to.kind, PortKind::Tap(_)) && from.queues.is_none() => Effort::Again,
            key if REOPEN.contains(&key) => Effort::Reopen,
            // The same namespace by another spelling.
            "netns" if namespace(from) == namespace(to) => Effort::Reopen,
            _ => Effort::Again,
        });
        efforts.max().unwrap_or(Effort::InPlace)
    }
}

fn namespace(port: &Port) -> Option<PathBuf> {
    port.kind.interface()?.0.map(|netns| netns.path())
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
            Step::ChangeBridge { to, .. } => {
                config.bridges.iter_mut().filter(|bridge| bridge.name == to.name).for_each(|bridge| {
                    bridge.clone_from(to);
                });
            }
            Step::ChangePort { to, .. } | Step::ReopenPort { to, .. } => {
                config.ports.iter_mut().filter(|port| port.name == to.name).for_each(|port| {
                    port.clone_from(to);
                });
            }
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
            Step::ReopenPort { from, to } => write!(f, "reopen {object}: {}", List(changes(from, to))),
        }
    }
}

/// Where a static entry is bound.
struct Bound<'e>(&'e StaticEntry);

impl fmt::Display for Bound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StaticEntry { bridge, vlan, place, .. } = self.0;
        let vlan = vlan.map_or(String::new(), |vlan| format!(" vlan {vlan}"));
        write!(f, "in bridge \"{bridge}\"{vlan} {}", PlaceName(place))
    }
}

/// A key whose value changes; None stands for the default.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    key: String,
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
fn changes<T: Serialize>(from: &T, to: &T) -> Vec<Change> {
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

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
