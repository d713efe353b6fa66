//! Carrying out a change of the desired state: wholly, or not at all.
//!
//! The steps come from [`diff`](crate::config::diff). They are carried out in the order that endangers
//! least: what can be known beforehand is checked; new ports are opened, beside everything that runs; then ports
//! that must be closed to be opened again, over the same devices; then those whose devices must go first; then
//! the desired state is saved; and only when all that can fail has succeeded do workers get the new configuration
//! and deleted ports go. A failure closes what was opened, leaves the devices that were there before, and opens
//! again what was closed.

use std::collections::HashSet;
use std::time::Instant;

use control::schema::{self, Config, PortName, StaticEntry};
use pmd::{Fate, Port};

use super::attempts::{Backoff, GRACE};
use super::ports::{self, PortState, Running};
use super::{AtStart, BRIDGES, State, mtu, placement};
use crate::config::diff::{RestartNeeded, Step, diff, is_shared};
use crate::config::names::Names;
use crate::tables::fdb::{Kind, MacKey};
use crate::telemetry::counters::PortTotals;
use crate::worker::mailbox::Command;
use crate::worker::queue::{Incarnation, Queue};

/// A change that was not made.
#[derive(Debug, thiserror::Error)]
#[error("{object}: {cause}")]
pub struct ApplyError {
    /// What it is about: `port "web1"`.
    pub object: String,
    /// Why.
    pub cause: Cause,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// Something changes that is fixed while the switch runs.
    #[error("{0}")]
    Restart(#[from] RestartNeeded),
    /// A port cannot be opened.
    #[error("{0}")]
    Open(String),
    /// A maximum is reached.
    #[error("{cause}")]
    Limit {
        /// Which.
        cause: String,
        /// What to do.
        fix: String,
    },
}

/// A port that was opened for the change, not yet in use.
struct Opened {
    config: schema::Port,
    port: Result<Box<dyn Port>, String>,
}

impl State {
    pub(super) fn apply<E: From<ApplyError>>(
        &mut self,
        wanted: Config,
        at_start: AtStart,
        save: impl FnOnce() -> Result<(), E>,
    ) -> Result<Vec<String>, E> {
        let steps = diff(&self.config, &wanted).map_err(|needed| ApplyError {
            object: needed.keys.first().map_or("", |key| key.key).into(),
            cause: needed.into(),
        })?;
        if steps.is_empty() {
            save()?;
            self.config = wanted;
            return Ok(Vec::new());
        }
        self.check_limits(&wanted)?;
        check_overlays(&wanted)?;
        if at_start == AtStart::Refuse {
            self.check_udp_ports(&wanted)?;
        }
        let concerns = |port: &schema::Port| steps.iter().filter_map(touched).any(|to| in_the_way(port, to));
        self.take_outcomes(concerns, Instant::now() + GRACE);
        let (mut opened, closed) = self.open_all(&steps, &wanted, at_start)?;
        let addressed = self.readdress_all(&steps).map_err(E::from);
        let saved = addressed.and_then(|()| save().inspect_err(|_| self.readdress_back(&steps)));
        self.or_undo(saved, &mut opened, &closed)?;
        self.commit(&steps, wanted, opened);
        Ok(steps.iter().map(Step::to_string).collect())
    }

    fn check_limits(&self, wanted: &Config) -> Result<(), ApplyError> {
        let most = self.limits.ports as usize;
        let ports = wanted.all_ports();
        if ports > most {
            return Err(limit("[limits] ports", format!("{ports} ports, and {most} are allowed"), RAISE));
        }
        let (remotes, most) = (self.loaded.remotes_with(wanted), self.limits.remotes as usize);
        if remotes > most {
            let cause = format!("{remotes} remotes with those that controllers have loaded, and {most} fit");
            return Err(limit("[limits] remotes", cause, RAISE));
        }
        if wanted.bridges.len() > BRIDGES {
            return Err(limit(
                "bridges",
                format!("{} bridges, and {BRIDGES} are allowed", wanted.bridges.len()),
                "use fewer bridges, or VLANs of one bridge",
            ));
        }
        let workers = self.crew.members().len();
        for port in &wanted.ports {
            if let Some(place) = port.workers.iter().find(|place| usize::from(**place) >= workers) {
                let cause = format!(
                    "`workers` names place {place} of `[switch] workers`, which has {workers} (the first is 0)"
                );
                let fix = format!(
                    "name places from 0 to {}, or add a CPU to `[switch] workers` and restart vswitchd",
                    workers - 1
                );
                return Err(limit(&format!("port \"{}\"", port.name), cause, fix));
            }
        }
        if wanted.fdb.len() > self.limits.fdb as usize {
            let entries = wanted.fdb.len();
            return Err(limit(
                "[limits] fdb",
                format!("{entries} static entries, and {} fit", self.limits.fdb),
                RAISE,
            ));
        }
        if wanted.neighbours.len() > self.limits.neighbours as usize {
            let entries = wanted.neighbours.len();
            return Err(limit(
                "[limits] neighbours",
                format!("{entries} neighbours, and {} fit", self.limits.neighbours),
                RAISE,
            ));
        }
        Ok(())
    }

    /// Opens every port of the steps, or none. Those that are to be opened again, and ports that are in the way,
    /// are closed on the way, and open again after a failure.
    /// Gives the new ports and the names of those that were closed for them.
    fn open_all(
        &mut self,
        steps: &[Step],
        wanted: &Config,
        at_start: AtStart,
    ) -> Result<(Vec<Opened>, Vec<PortName>), ApplyError> {
        let (mut beside, mut again, mut instead) = (Vec::new(), Vec::new(), Vec::new());
        let doomed: Vec<&schema::Port> = steps.iter().filter_map(deleted).collect();
        for step in steps {
            match step {
                Step::AddPort { port, .. } if doomed.iter().any(|old| in_the_way(old, port)) => {
                    instead.push(port.as_ref());
                }
                Step::AddPort { port, .. } => beside.push(port.as_ref()),
                Step::ReopenPort { to, .. } => again.push(to.as_ref()),
                _ => {}
            }
        }
        if at_start == AtStart::Refuse {
            [&beside, &again, &instead].into_iter().flatten().try_for_each(|port| check(port))?;
        }
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        // A device that is removed comes back after a failure, but its connections do not: that is last.
        for (new, fate) in [(beside, None), (again, Some(Fate::Leave)), (instead, Some(Fate::Remove))] {
            if let Some(fate) = fate {
                closed.extend(self.make_way(&new, fate));
            }
            for config in new {
                let result = self.open_one(config, wanted, at_start, &mut opened);
                self.or_undo(result, &mut opened, &closed)?;
            }
        }
        Ok((opened, closed))
    }

    /// Closes the ports that are in the way of new ones; gives their names.
    fn make_way(&mut self, new: &[&schema::Port], fate: Fate) -> Vec<PortName> {
        let closing: Vec<PortName> = self
            .ports
            .values()
            .filter(|running| new.iter().any(|new| in_the_way(&running.config, new)))
            .map(|running| running.config.name.clone())
            .collect();
        self.detach(&closing);
        for name in &closing {
            if let Some(running) = self.ports.get_mut(name) {
                running.close(fate, "being changed");
            }
        }
        closing
    }

    /// Gives interfaces of ports that stay open their new addresses, all or none.
    fn readdress_all(&self, steps: &[Step]) -> Result<(), ApplyError> {
        for (place, step) in steps.iter().enumerate() {
            if let Some((from, to)) = self.changed(step)
                && let Err(cause) = ports::readdress(from, to)
            {
                self.readdress_back(&steps[..=place]); // half of the last may be done
                return Err(ApplyError { object: step.object(), cause: Cause::Open(cause) });
            }
        }
        Ok(())
    }

    /// Gives interfaces the addresses that they had before the steps.
    fn readdress_back(&self, steps: &[Step]) {
        for (from, to) in steps.iter().filter_map(|step| self.changed(step)) {
            // What failed is told already; what cannot be undone stays.
            let _ = ports::readdress(to, from);
        }
    }

    /// An open port that a step changes in place: as it is, and as it shall be.
    fn changed<'s>(&self, step: &'s Step) -> Option<(&'s schema::Port, &'s schema::Port)> {
        let Step::ChangePort { from, to } = step else { return None };
        self.ports.get(&to.name)?.open()?;
        Some((from, to))
    }

    fn open_one(
        &self,
        config: &schema::Port,
        wanted: &Config,
        at_start: AtStart,
        opened: &mut Vec<Opened>,
    ) -> Result<(), ApplyError> {
        let (sized, shared) = (mtu::sized(wanted, config), is_shared(wanted, config));
        let port = (self.opener)(&sized, shared, &self.arena, self.crew.members().len());
        match (port, at_start) {
            (Err(cause), AtStart::Refuse) => {
                Err(ApplyError { object: format!("port \"{}\"", config.name), cause: Cause::Open(cause) })
            }
            (port, _) => {
                opened.push(Opened { config: config.clone(), port });
                Ok(())
            }
        }
    }

    /// After a failure: closes what was opened, with what was made for it, and opens again what was closed.
    fn or_undo<E>(
        &mut self,
        result: Result<(), E>,
        opened: &mut Vec<Opened>,
        closed: &[PortName],
    ) -> Result<(), E> {
        if result.is_err() {
            for port in opened.drain(..).filter_map(|opened| opened.port.ok()) {
                let fate = if port.is_adopted() { Fate::Leave } else { Fate::Remove };
                let _ = port.close(fate);
            }
            self.attach_again(closed);
        }
        result
    }

    /// Opens ports that are down, as their configuration says, and puts them into use.
    fn attach_again(&mut self, names: &[PortName]) {
        let workers = self.crew.members().len();
        let mut up = Vec::new();
        for name in names {
            let Some(running) = self.ports.get_mut(name) else { continue };
            if running.open().is_some() || self.attempts.is_under_way(name) {
                continue;
            }
            let shared = is_shared(&self.config, &running.config);
            let sized = mtu::sized(&self.config, &running.config);
            running.state = match (self.opener)(&sized, shared, &self.arena, workers) {
                Ok(port) => {
                    up.push(name.clone());
                    PortState::Open(port)
                }
                Err(reason) => PortState::Down(reason),
            };
        }
        if !up.is_empty() {
            self.attach(&up);
        }
    }

    /// Everything is open: from here on nothing fails.
    fn commit(&mut self, steps: &[Step], wanted: Config, opened: Vec<Opened>) {
        let gone: Vec<PortName> = steps.iter().filter_map(deleted).map(|port| port.name.clone()).collect();
        for step in steps {
            if let Step::DeleteEntry(entry) = step
                && let Some(key) = self.key(entry)
            {
                self.fdb.remove(key);
            }
            if let Step::DeleteNeighbour(neighbour) = step {
                self.forget_neighbour(neighbour);
            }
        }
        let mut removed = self.take_out(&gone);
        // What was in a new port's way went before that was opened; its place is the new one's now.
        removed.retain(|old| !opened.iter().any(|new| in_the_way(&old.config, &new.config)));
        self.previous = Some(std::mem::replace(&mut self.config, wanted));
        self.number_bridges();
        self.revise_loaded();
        self.unplug_former();
        let fresh: Vec<PortName> = opened.iter().map(|opened| opened.config.name.clone()).collect();
        for Opened { config, port } in opened {
            let state = match port {
                Ok(port) => PortState::Open(port),
                Err(reason) => PortState::Down(reason),
            };
            self.put(config, state);
        }
        for step in steps {
            if let Step::ChangePort { from, to } = step {
                self.change_in_place(from, to);
            }
        }
        self.attach(&fresh);
        self.forget_former_vlans(steps);
        for step in steps {
            if let Step::AddEntry(entry) = step {
                self.bind(entry);
            }
            if let Step::AddNeighbour(neighbour) = step {
                self.know_neighbour(neighbour);
            }
        }
        self.restore_loaded();
        ports::close_all(removed.iter_mut(), Fate::Remove);
    }

    /// Takes ports out of the switch. After this no frame is on its way to one of them: who gets their indices
    /// next starts with tables and counters of his own.
    fn take_out(&mut self, names: &[PortName]) -> Vec<Running> {
        self.detach(names);
        let gone: Vec<Running> = names.iter().filter_map(|name| self.ports.remove(name)).collect();
        if !gone.is_empty() {
            self.publish();
            self.crew.settle();
        }
        for port in &gone {
            self.fdb.remove_port(port.index);
        }
        gone
    }

    /// Forgets what was learned at ports by their former VLANs, when no worker learns by those any more.
    fn forget_former_vlans(&self, steps: &[Step]) {
        let moved: Vec<u16> = steps
            .iter()
            .filter_map(|step| match step {
                Step::ChangePort { from, to } if from.vlan != to.vlan => self.ports.get(&to.name),
                _ => None,
            })
            .map(|running| running.index)
            .collect();
        if !moved.is_empty() {
            self.crew.settle();
            self.fdb.flush(|entry| entry.kind == Kind::Learned && moved.contains(&entry.port));
        }
    }

    /// Gives every configured bridge an index, and forgets those of bridges that are gone.
    fn number_bridges(&mut self) {
        let configured = Names::of(&self.config.bridges);
        for (_, index) in self.bridges.extract_if(|name, _| configured.get(name.as_str()).is_none()) {
            self.fdb.remove_bridge(index);
            self.neighbours.remove_bridge(index);
            self.loaded.remove_bridge(index);
        }
        let taken: HashSet<u16> = self.bridges.values().copied().collect();
        let mut free = (0..BRIDGES as u16).filter(|index| !taken.contains(index));
        for bridge in &self.config.bridges {
            if !self.bridges.contains_key(&bridge.name)
                && let Some(index) = free.next()
            {
                self.bridges.insert(bridge.name.clone(), index);
            }
        }
    }

    /// Adds a port to the table, or gives one that is there its new state.
    fn put(&mut self, config: schema::Port, state: PortState) {
        if let Some(running) = self.ports.get_mut(&config.name) {
            self.fdb.remove_port(running.index);
            (running.config, running.state) = (config, state);
            running.backoff = Backoff::default();
            return;
        }
        // There is one: `check_limits` has counted, and what goes is gone.
        let Some(index) = self.free_index() else { return };
        let base = PortTotals::of(self.crew.counters(), index);
        let name = config.name.clone();
        let running = Running {
            config,
            index,
            base,
            incarnation: Incarnation::default(),
            state,
            backoff: Backoff::default(),
            queues: Vec::new(),
        };
        self.ports.insert(name, running);
    }

    fn change_in_place(&mut self, from: &schema::Port, to: &schema::Port) {
        let Some(running) = self.ports.get_mut(&to.name) else { return };
        running.config = to.clone();
        if from.workers != to.workers {
            self.move_to_configured(&to.name);
        }
    }

    /// Puts open ports into use: every worker can send to them, all know the configuration, and each rx
    /// queue is served. The switch's own stations follow what devices there are.
    pub(super) fn attach(&mut self, names: &[PortName]) {
        let workers = self.crew.members().len();
        let mut receiving = Vec::new();
        for name in names {
            let Some(running) = self.ports.get_mut(name) else { continue };
            let PortState::Open(port) = &mut running.state else { continue };
            self.openings += 1;
            running.incarnation = Incarnation(self.openings);
            for (worker, tx) in ports::outlets(port.take_tx(), workers).into_iter().enumerate() {
                self.crew.tell(worker, Command::AddOutlet { port: running.index, tx });
            }
            receiving.extend(ports::numbered(port.take_rx()).map(|(number, rx)| (name.clone(), number, rx)));
        }
        let settled = self.settle_reach();
        self.publish();
        for (name, number, rx) in receiving {
            let worker = self.worker_for(&name, number);
            let Some(running) = self.ports.get_mut(&name) else { continue };
            let load = std::sync::Arc::default();
            let queue = Queue {
                port: running.index,
                incarnation: running.incarnation,
                number,
                rx,
                load: std::sync::Arc::clone(&load),
            };
            let pinned = !running.config.workers.is_empty();
            running.queues.push(ports::Served { number, worker, pinned, load, base_cycles: 0 });
            self.crew.tell(worker, Command::AddQueue(queue));
        }
        self.finish_reach(settled);
    }

    /// The worker that a new queue goes to: as pinned, else the one with the fewest queues.
    fn worker_for(&self, name: &PortName, number: u16) -> usize {
        let workers = self.crew.members().len();
        let pins = self.ports.get(name).map_or(&[][..], |running| &running.config.workers);
        if let Some(pin) = pins.get(usize::from(number) % pins.len().max(1)) {
            return usize::from(*pin) % workers;
        }
        let mut counts = vec![0; workers];
        for served in self.ports.values().flat_map(|port| &port.queues) {
            counts[served.worker] += 1;
        }
        placement::least_loaded(&counts)
    }

    /// Takes ports out of use: no worker asks them or sends to them any more, and their queues are gone.
    pub(super) fn detach(&mut self, names: &[PortName]) {
        let mut indices = Vec::new();
        for name in names {
            if let Some(running) = self.ports.get_mut(name) {
                running.queues.clear();
                indices.push(running.index);
            }
        }
        if !indices.is_empty() {
            self.crew.retire(&indices);
        }
    }

    fn key(&self, entry: &StaticEntry) -> Option<MacKey> {
        Some(MacKey {
            bridge: *self.bridges.get(&entry.bridge)?,
            vlan: entry.vlan.map_or(0, Into::into),
            mac: entry.mac.into(),
        })
    }

    /// The index of a port or a remote.
    pub(super) fn index(&self, place: &schema::Place) -> Option<u16> {
        match place {
            schema::Place::Port(port) => self.ports.get(port).map(|port| port.index),
            schema::Place::Remote { tunnel, remote } => self.reach.remote(tunnel, *remote),
        }
    }

    fn bind(&self, entry: &StaticEntry) {
        let (Some(key), Some(index)) = (self.key(entry), self.index(&entry.place)) else { return };
        if self.fdb.add_static(key, index).is_err() {
            // What was learned gives way to what is configured.
            self.fdb.flush(|entry| entry.kind == Kind::Learned);
            if let Err(error) = self.fdb.add_static(key, index) {
                eprintln!("vswitchd: fdb entry {}: {error}", entry.mac);
            }
        }
    }
}

/// Refuses what the configuration can say of overlays and this version cannot do.
fn check_overlays(wanted: &Config) -> Result<(), ApplyError> {
    let (vnis, most) =
        (wanted.bridges.iter().map(|bridge| bridge.vnis().count()).sum::<usize>(), usize::from(u16::MAX));
    if vnis > most {
        let cause = format!("{vnis} VNIs of all bridges together, and {most} are possible");
        return Err(limit("bridges", cause, "give fewer VLANs a VNI"));
    }
    for tunnel in &wanted.tunnels {
        let is_shared =
            wanted.underlay(tunnel.underlay.as_str()).is_some_and(|underlay| underlay.is_shared(wanted));
        let missing = [("bfd", tunnel.bfd && is_shared), ("group", tunnel.group.is_some() && is_shared)];
        if let Some((key, _)) = missing.into_iter().find(|(_, is_set)| *is_set) {
            let cause = format!("`{key}` is a setting that this version of the switch cannot carry out yet");
            return Err(limit(&format!("tunnel \"{}\"", tunnel.name), cause, format!("leave `{key}` out")));
        }
    }
    Ok(())
}

/// What to do about a limit of the configuration.
pub(super) const RAISE: &str = "raise the limit in the configuration and restart vswitchd";

pub(super) fn limit(object: &str, cause: String, fix: impl Into<String>) -> ApplyError {
    ApplyError { object: object.into(), cause: Cause::Limit { cause, fix: fix.into() } }
}

/// The port that a step opens, closes or changes.
fn touched(step: &Step) -> Option<&schema::Port> {
    match step {
        Step::AddPort { port, .. } | Step::DeletePort { port, .. } => Some(port),
        Step::ReopenPort { to: port, .. } | Step::ChangePort { to: port, .. } => Some(port),
        _ => None,
    }
}

fn deleted(step: &Step) -> Option<&schema::Port> {
    match step {
        Step::DeletePort { port, .. } => Some(port),
        _ => None,
    }
}

/// Refuses a port that cannot be opened, as far as that shows without touching anything.
pub(super) fn check(port: &schema::Port) -> Result<(), ApplyError> {
    ports::check(port)
        .map_err(|cause| ApplyError { object: format!("port \"{}\"", port.name), cause: Cause::Open(cause) })
}

/// Whether `old` has what `new` wants to have: its name, its interface, its device or its socket.
pub(super) fn in_the_way(old: &schema::Port, new: &schema::Port) -> bool {
    old.name == new.name || has_the_device(old, new)
}

/// Whether `old` has the interface, the device or the socket that `new` wants to have.
pub(super) fn has_the_device(old: &schema::Port, new: &schema::Port) -> bool {
    let interface = |port: &schema::Port| {
        port.kind.interface().map(|(netns, name)| (netns.map(|netns| netns.path()), name.to_string()))
    };
    let socket = |port: &schema::Port| match &port.kind {
        schema::PortKind::VhostUser(vhost) => Some(vhost.socket.clone()),
        _ => None,
    };
    (interface(old).is_some() && interface(old) == interface(new))
        || (socket(old).is_some() && socket(old) == socket(new))
}
