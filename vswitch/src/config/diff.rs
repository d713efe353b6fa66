//! From one desired state to another: the list of steps, in an order that is safe to carry out.
//!
//! After every step each object stands on what it needs: no entry without its port or tunnel, no tunnel without
//! its underlay, no underlay without its port, no port without its bridge, no interface in two hands. So entries
//! go first, then tunnels, underlays and ports, then bridges come, then ports come and change, then bridges that
//! nobody is in any more go, then underlays, tunnels and entries come. (What is said of VNIs, addresses and routes
//! is right again when all is done.)
//!
//! A changed port keeps as much as it can:
//! - [`Step::ChangePort`]: its queues go on. Only the snapshot changes, the workers that serve it, or the
//!   addresses of its container's interface.
//! - [`Step::ReopenPort`]: it is closed with its device left as it is, and opened again over the same
//!   device. Connections of the container live through it.
//! - [`Step::DeletePort`] and [`Step::AddPort`]: it becomes another device.
//!
//! An underlay whose port goes, a tunnel of another type or over another underlay, and what stands on it are
//! deleted and made again; everything else about them changes in place.
//!
//! What is allocated or started once ([`RestartNeeded`]) is refused.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use control::api::{ApiError, ErrorCode};
use control::schema::{
    Config, HugePages, Neighbour, Place, Port, PortKind, StaticEntry, Tunnel, Underlay, WorkerPlacement,
};

use super::names::{Named, Names};
pub use super::step::Step;
use super::step::changes;

/// Keys of `[[port]]` that change while the port's queues go on.
const IN_PLACE: [&str; 10] = [
    "vlan",
    "trunk",
    "native_vlan",
    "isolated",
    "hairpin",
    "fdb_limit",
    "policy_group",
    "workers",
    "address",
    "gateway",
];

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
    let overlays = OverlaySteps::between(current, wanted, &ports);
    let unsettled = Unsettled::between(current, wanted, &ports, &overlays);
    let mut steps = Vec::new();
    steps.extend(lost(&current.fdb, &wanted.fdb, &unsettled).map(Step::DeleteEntry));
    steps.extend(missing(&current.neighbours, &wanted.neighbours).map(Step::DeleteNeighbour));
    steps.extend(overlays.tunnels.deleted.iter().map(|tunnel| Step::DeleteTunnel(Tunnel::clone(tunnel))));
    steps.extend(overlays.underlays.deleted.iter().map(|gone| Step::DeleteUnderlay(Underlay::clone(gone))));
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
    for (from, to) in overlays.underlays.changed {
        steps.push(Step::ChangeUnderlay { from: from.clone(), to: to.clone() });
    }
    steps.extend(overlays.underlays.added.into_iter().cloned().map(Step::AddUnderlay));
    for (from, to) in overlays.tunnels.changed {
        steps.push(Step::ChangeTunnel { from: from.clone(), to: to.clone() });
    }
    steps.extend(overlays.tunnels.added.into_iter().cloned().map(Step::AddTunnel));
    steps.extend(lost(&wanted.fdb, &current.fdb, &unsettled).map(Step::AddEntry));
    steps.extend(missing(&wanted.neighbours, &current.neighbours).map(Step::AddNeighbour));
    Ok(steps)
}

/// Whether the host's kernel keeps a port's device, and shares it with an underlay.
pub fn is_shared(config: &Config, port: &Port) -> bool {
    config.underlays.iter().any(|underlay| underlay.port == port.name && underlay.is_shared(config))
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

/// Entries of `these` that are not among `those`, or lose their place on the way.
fn lost(
    these: &[StaticEntry],
    those: &[StaticEntry],
    unsettled: &Unsettled<'_>,
) -> impl Iterator<Item = StaticEntry> {
    let those: HashSet<&StaticEntry> = those.iter().collect();
    let is_lost = move |entry: &&StaticEntry| !those.contains(entry) || unsettled.has(entry);
    these.iter().filter(is_lost).cloned().collect::<Vec<_>>().into_iter()
}

/// Entries of `these` that are not among `those`.
fn missing(these: &[Neighbour], those: &[Neighbour]) -> impl Iterator<Item = Neighbour> {
    let those: HashSet<&Neighbour> = those.iter().collect();
    these.iter().filter(move |entry| !those.contains(entry)).cloned().collect::<Vec<_>>().into_iter()
}

/// What entries are bound to that goes or changes on the way.
struct Unsettled<'c> {
    ports: HashSet<&'c str>,
    tunnels: HashSet<&'c str>,
    bridges: HashSet<&'c str>,
}

impl<'c> Unsettled<'c> {
    fn between(
        current: &'c Config,
        wanted: &'c Config,
        ports: &PortSteps<'c>,
        overlays: &OverlaySteps<'c>,
    ) -> Self {
        let gone = overlays.tunnels.deleted.iter().map(|tunnel| tunnel.name());
        let moved = overlays.tunnels.changed.iter();
        let moved = moved.filter(|(from, to)| from.remotes != to.remotes || from.vnis != to.vnis);
        let new = Names::of(&wanted.bridges);
        let stretched = current.bridges.iter().filter(|from| {
            new.get(from.name()).is_some_and(|to| {
                (from.vni, &from.vlan_vni, &from.tunnels) != (to.vni, &to.vlan_vni, &to.tunnels)
            })
        });
        Unsettled {
            ports: ports.unsettled.clone(),
            tunnels: gone.chain(moved.map(|(from, _)| from.name())).collect(),
            bridges: stretched.map(Named::name).collect(),
        }
    }

    fn has(&self, entry: &StaticEntry) -> bool {
        match &entry.place {
            Place::Port(port) => self.ports.contains(port.as_str()),
            Place::Remote { tunnel, .. } => {
                self.tunnels.contains(tunnel.as_str()) || self.bridges.contains(entry.bridge.as_str())
            }
        }
    }
}

/// What is to be done with underlays and tunnels.
struct OverlaySteps<'c> {
    underlays: Comparison<'c, Underlay>,
    tunnels: Comparison<'c, Tunnel>,
}

impl<'c> OverlaySteps<'c> {
    fn between(current: &'c Config, wanted: &'c Config, ports: &PortSteps<'c>) -> Self {
        let underlays = Comparison::of(&current.underlays, &wanted.underlays, |from, to| {
            from.port != to.port || ports.deleted.contains(from.port.as_str())
        });
        let gone: HashSet<&str> = underlays.deleted.iter().map(|underlay| underlay.name()).collect();
        let tunnels = Comparison::of(&current.tunnels, &wanted.tunnels, |from, to| {
            (from.kind, &from.underlay) != (to.kind, &to.underlay) || gone.contains(from.underlay.as_str())
        });
        OverlaySteps { underlays, tunnels }
    }
}

/// Objects of one kind in two states; what is to be made again is among the deleted and the added.
struct Comparison<'c, T> {
    deleted: Vec<&'c T>,
    changed: Vec<(&'c T, &'c T)>,
    added: Vec<&'c T>,
}

impl<'c, T: Named + PartialEq> Comparison<'c, T> {
    fn of(old: &'c [T], new: &'c [T], again: impl Fn(&T, &T) -> bool) -> Self {
        let (by_name, mut seen) = (Names::of(new), HashSet::new());
        let mut comparison = Comparison { deleted: Vec::new(), changed: Vec::new(), added: Vec::new() };
        for from in old {
            match by_name.get(from.name()).filter(|to| !again(from, to)) {
                None => comparison.deleted.push(from),
                Some(to) => {
                    seen.insert(to.name());
                    comparison.changed.extend((from != to).then_some((from, to)));
                }
            }
        }
        comparison.added = new.iter().filter(|to| !seen.contains(to.name())).collect();
        comparison
    }
}

/// What is to be done with ports.
#[derive(Default)]
struct PortSteps<'c> {
    deletions: Vec<Step>,
    changes: Vec<Step>,
    additions: Vec<Step>,
    /// Ports that are not there for a while, or for ever.
    deleted: HashSet<&'c str>,
    /// Ports that are closed on the way.
    unsettled: HashSet<&'c str>,
}

impl<'c> PortSteps<'c> {
    fn between(current: &'c Config, wanted: &Config) -> Self {
        let changes_hands = |from, to| is_shared(current, from) != is_shared(wanted, to);
        let mut steps = PortSteps::default();
        let (old, new) = (Names::of(&current.ports), Names::of(&wanted.ports));
        for from in &current.ports {
            match new.get(from.name.as_str()) {
                None => steps.delete(from, None),
                Some(to) if to == from && !changes_hands(from, to) => {}
                Some(to) => match Effort::between(from, to) {
                    Effort::InPlace if !changes_hands(from, to) => {
                        let (from, to) = (Box::new(from.clone()), Box::new(to.clone()));
                        steps.changes.push(Step::ChangePort { from, to });
                    }
                    Effort::InPlace | Effort::Reopen => {
                        steps.unsettled.insert(from.name());
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

    fn delete(&mut self, port: &'c Port, again: Option<&Port>) {
        self.deleted.insert(port.name());
        self.unsettled.insert(port.name());
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

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
