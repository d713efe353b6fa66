//! The switch as a whole: workers, ports and tables, run after one desired state.
//!
//! What holds everything together on the control side. A change goes through [`apply`](Switch::apply):
//! planned, opened, handed to the workers, or undone. Control threads lock the state, block on the kernel and
//! on workers' answers, and never hold what a worker needs; a worker is told things by its mailbox and by a
//! new [snapshot](crate::snapshot).

mod apply;
mod attempts;
mod compile;
mod echo;
mod events;
mod keeper;
mod kernel;
mod loaded;
mod mtu;
mod neighbours;
mod placement;
mod ports;
mod reach;
mod report;
#[cfg(test)]
mod tests;
pub mod tracing;
mod tunnels;
mod workers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::schema::{self, BridgeName, Config, PortName};
use hashbrown::HashMap;
use pmd::clock::{Clock, Monotonic};
use pmd::{Arena, Fate};

pub use self::apply::{ApplyError, Cause};
use self::attempts::Attempts;
use self::events::EventLog;
pub use self::loaded::LoadError;
use self::loaded::Loaded;
use self::ports::{Opener, Running};
use self::reach::Reach;
use self::workers::Crew;
use crate::agent;
use crate::snapshot::Snapshot;
use crate::tables::fdb::{Fdb, Size};
use crate::tables::neighbour::Neighbours;
use crate::telemetry::counters::VniTraffic;
use crate::worker::Event;

/// Most bridges of one switch.
const BRIDGES: usize = 16_384;

/// How long the end of the switch waits for changes that are being made.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to do with a port that cannot be opened when the switch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStart {
    /// Do not start: the configuration is new, and wrong.
    Refuse,
    /// Start with the port down, and go on trying: the configuration was right before.
    Retry,
}

/// Why a switch does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The memory for frames.
    #[error("memory for frames: {0}")]
    Arena(#[from] pmd::ArenaError),
    /// A worker.
    #[error(transparent)]
    Workers(#[from] workers::WorkerError),
    /// The thread that speaks for the switch itself.
    #[error("starting the agent: {0}; raise the limit on threads or open files (ulimit -u, ulimit -n)")]
    Agent(std::io::Error),
    /// A port.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// A switch that has nothing to do yet, what its workers report, and what its agent tells.
type Idle = (Arc<Switch>, Receiver<Event>, Receiver<agent::Event>);

/// Ports and remotes together: their indices are below this.
fn indices(limits: &schema::Limits) -> usize {
    (limits.ports + limits.remotes).min(u16::MAX.into()) as usize
}

/// A running switch.
pub struct Switch {
    state: Mutex<State>,
    stopping: Arc<AtomicBool>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// Everything that the control side knows.
pub(crate) struct State {
    /// The desired state.
    config: Config,
    /// The one before, for rollback.
    previous: Option<Config>,
    ports: BTreeMap<PortName, Running>,
    /// Bridge indices.
    bridges: HashMap<BridgeName, u16>,
    opener: Opener,
    /// How often ports were opened: the number of the latest opening.
    openings: u64,
    attempts: Attempts,
    crew: Crew,
    reach: Reach,
    arena: Arena,
    fdb: Arc<Fdb>,
    neighbours: Arc<Neighbours>,
    loaded: Loaded,
    /// The tunnels of the desired state, each with the remotes that controllers have given it, too.
    tunnels: Vec<schema::Tunnel>,
    /// What each VNI carries through each tunnel.
    traffic: HashMap<(schema::TunnelName, schema::Vni), Arc<VniTraffic>>,
    events: EventLog,
    clock: Arc<dyn Clock>,
    snapshot: Arc<Snapshot>,
    limits: schema::Limits,
}

impl Switch {
    /// Starts the workers and applies `config`. `seed` keys every hash; a random one, except in tests. `save` is
    /// called as by [`Switch::apply`]: if it fails, what was made is removed, and what was there stays. What shared
    /// rings leave for the next switch is put into the folder `rings`.
    ///
    /// # Errors
    /// No memory, a CPU that is not there, and, with [`AtStart::Refuse`], a port that cannot be opened; what `save`
    /// says.
    pub fn start<E: From<StartError> + From<ApplyError>>(
        config: Config,
        at_start: AtStart,
        seed: u64,
        rings: PathBuf,
        save: impl FnOnce() -> Result<(), E>,
    ) -> Result<Arc<Switch>, E> {
        let opener =
            move |port: &_, shared, arena: &_, workers| ports::open(port, shared, arena, workers, &rings);
        Switch::start_with(Arc::new(opener), config, at_start, seed, save)
    }

    /// [`Switch::start`] with another way to open ports.
    fn start_with<E: From<StartError> + From<ApplyError>>(
        opener: Opener,
        config: Config,
        at_start: AtStart,
        seed: u64,
        save: impl FnOnce() -> Result<(), E>,
    ) -> Result<Arc<Switch>, E> {
        let (switch, reports, ways) = Switch::idle(opener, &config, seed)?;
        reach::listen(Arc::downgrade(&switch), ways);
        switch.lock().apply(config, at_start, save)?;
        switch.lock().previous = None;
        let keeper = keeper::start(Arc::downgrade(&switch), reports, switch.stopping.clone());
        *switch.keeper.lock().unwrap_or_else(PoisonError::into_inner) = keeper;
        Ok(switch)
    }

    /// A switch with workers and memory as `config` says, and nothing else of it yet; and what the workers and the
    /// agent report.
    fn idle(opener: Opener, config: &Config, seed: u64) -> Result<Idle, StartError> {
        let limits = config.limits.clone();
        let huge = match config.switch.huge_pages {
            schema::HugePages::Auto => pmd::HugePages::Auto,
            schema::HugePages::On => pmd::HugePages::On,
            schema::HugePages::Off => pmd::HugePages::Off,
        };
        let arena = Arena::new(limits.frames, huge)?;
        let cpus = placement::cpus(&config.switch.workers)?;
        let size = Size {
            entries: limits.fdb,
            bridges: BRIDGES,
            ports: indices(&limits),
            first_remote: limits.ports as u16,
            workers: cpus.len(),
        };
        let fdb = Arc::new(Fdb::new(size, seed));
        let clock: Arc<dyn Clock> = Arc::new(Monotonic::default());
        let (events, reports) = channel();
        let crew = Crew::start(&cpus, &arena, &fdb, &clock, &limits, events, seed)?;
        let (reach, ways) = Reach::new(clock.clone()).map_err(StartError::Agent)?;
        let empty = Config { switch: config.switch.clone(), limits: limits.clone(), ..Config::default() };
        let state = State {
            config: empty,
            previous: None,
            ports: BTreeMap::new(),
            bridges: HashMap::new(),
            opener,
            openings: 0,
            attempts: Attempts::new(),
            crew,
            reach,
            arena,
            fdb,
            neighbours: Arc::new(Neighbours::new(limits.neighbours, indices(&limits), seed)),
            loaded: Loaded::default(),
            tunnels: Vec::new(),
            traffic: HashMap::new(),
            events: EventLog::default(),
            clock,
            snapshot: Arc::default(),
            limits,
        };
        let switch = Switch { state: Mutex::new(state), stopping: Arc::default(), keeper: Mutex::default() };
        Ok((Arc::new(switch), reports, ways))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `config` the desired state, wholly or not at all; says what was done. `save` is called when all
    /// else that can fail has succeeded, and nothing is changed if it fails.
    ///
    /// # Errors
    /// What could not be done. The running state is as it was before.
    pub fn apply<E: From<ApplyError>>(
        &self,
        config: Config,
        save: impl FnOnce() -> Result<(), E>,
    ) -> Result<Vec<String>, E> {
        self.lock().apply(config, AtStart::Refuse, save)
    }

    /// The desired state.
    pub fn config(&self) -> Config {
        self.lock().config.clone()
    }

    /// The desired state before the last change.
    pub fn previous(&self) -> Option<Config> {
        self.lock().previous.clone()
    }

    /// Ends the switch: containers keep their interfaces, host devices are given back. When the kernel does not let
    /// go of somebody who holds the state, nothing is done: the end of the process is as good as a crash then.
    pub fn stop(&self) {
        // The workers are gone after the first time: nobody would answer a second.
        if self.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(mut state) = self.take_over(Instant::now() + PATIENCE) else {
            eprintln!("vswitchd: a port hangs in being opened or closed: ending without it");
            return;
        };
        state.take_outcomes(|_| true, Instant::now() + attempts::GRACE);
        let names: Vec<_> = state.ports.keys().cloned().collect();
        state.detach(&names);
        state.crew.stop();
        state.reach.leave_host();
        ports::close_all(state.ports.values_mut(), Fate::Leave);
    }

    /// The state for good: when the keeper has ended and nobody else holds it, if that is before `deadline`.
    fn take_over(&self, deadline: Instant) -> Option<MutexGuard<'_, State>> {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The keeper itself may be who drops the switch.
        let me = std::thread::current().id();
        let is_over = |keeper: &JoinHandle<()>| keeper.is_finished() || keeper.thread().id() == me;
        loop {
            if keeper.as_ref().is_none_or(is_over) {
                match self.state.try_lock() {
                    Ok(state) => return Some(state),
                    Err(TryLockError::Poisoned(state)) => return Some(state.into_inner()),
                    Err(TryLockError::WouldBlock) => {}
                }
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Refuses a configuration with a port that cannot be opened, as far as that shows without touching anything.
///
/// # Errors
/// A namespace or a device that is not there.
pub fn check(config: &Config) -> Result<(), ApplyError> {
    config.ports.iter().try_for_each(apply::check)
}

/// Which interfaces of ports that went out of the desired state, or became other ports in it, while no switch
/// ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphans {
    /// Those that a port of the new state wants to have: they go before the switch starts.
    InTheWay,
    /// The others: they go when the new state is known to work.
    Elsewhere,
}

/// Removes interfaces that the desired state `before` had and `now` has not.
pub fn remove_orphans(before: &Config, now: &Config, which: Orphans) {
    let same = |old: &schema::Port, new: &schema::Port| {
        new.name == old.name
            && new.kind.interface() == old.kind.interface()
            && new.kind.type_name() == old.kind.type_name()
    };
    let is_orphan = |old: &&schema::Port| !now.ports.iter().any(|new| same(old, new));
    let is_in_the_way = |old: &schema::Port| now.ports.iter().any(|new| apply::in_the_way(old, new));
    let orphans = before.ports.iter().filter(is_orphan);
    ports::remove_interfaces(orphans.filter(|old| is_in_the_way(old) == (which == Orphans::InTheWay)));
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn now_s(&self) -> u32 {
        (self.clock.now_ns() / Duration::from_secs(1).as_nanos() as u64) as u32
    }

    fn port(&self, index: u16) -> Option<&Running> {
        self.ports.values().find(|port| port.index == index)
    }
}
