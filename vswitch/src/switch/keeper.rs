//! The keeper: the thread that looks after a running switch.
//!
//! It takes ports down that workers report as failed or whose devices it finds gone, has ports that are down
//! opened again by [`attempts`](super::attempts), and ages the FDB and with it
//! the neighbour table, a piece at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::schema::{self, PortName};
use pmd::Fate;

use super::apply::has_the_device;
use super::attempts::{Attempt, longest_wait};
use super::ports::{PortState, Running};
use super::{State, Switch, mtu};
use crate::config::diff::is_shared;
use crate::tables::fdb::Kind;
use crate::worker::Event;
use crate::worker::queue::Incarnation;

/// How often the keeper looks round.
const ROUND: Duration = Duration::from_millis(100);
/// Rounds in which the whole FDB is swept once: an entry leaves at most a second late.
const SWEEP_ROUNDS: u32 = 10;

/// Rounds in which every open port is looked at once: two seconds, so that a thousand ports cost 1% of a core.
const LOOK_ROUNDS: usize = 20;

/// Starts the keeper. `None` if no thread could be had: the switch works, but nothing comes back by itself.
pub(super) fn start(
    switch: Weak<Switch>,
    events: Receiver<Event>,
    stopping: Arc<AtomicBool>,
) -> Option<JoinHandle<()>> {
    let keep = move || {
        let (mut place, mut neighbours) = (0, 0);
        let mut round = 0;
        while !stopping.load(Ordering::Acquire) {
            let event = match events.recv_timeout(ROUND) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let Some(switch) = switch.upgrade() else { return };
            let mut state = switch.lock();
            if let Some(Event::Fault { port, incarnation, fault }) = event {
                state.take_down(port, incarnation, &fault.reason);
                continue;
            }
            place = state.sweep(place);
            neighbours = state.sweep_neighbours(neighbours);
            state.judge_conflicts();
            state.judge_stations();
            state.look(round % LOOK_ROUNDS);
            state.notice_features();
            round += 1;
            state.take_outcomes(|_| false, Instant::now());
            state.bring_up();
            state.claim_ports();
        }
    };
    std::thread::Builder::new().name("keeper".into()).spawn(keep).ok()
}

/// A port whose device is gone: its index, that opening of it, and the reason.
pub(super) type Gone = (u16, Incarnation, String);

/// Whether a port's device is gone.
pub(super) fn gone(port: &Running) -> Option<Gone> {
    let link = port.open()?.link();
    link.gone.then_some((port.index, port.incarnation, link.reason))
}

impl State {
    /// A port's device failed: out of use with it, and the reason noted. Nothing is done if that opening of the
    /// port is over: more than one queue reports it, and a report may come late.
    pub(super) fn take_down(&mut self, index: u16, incarnation: Incarnation, reason: &str) {
        let failed = self.port(index).filter(|port| port.incarnation == incarnation && port.open().is_some());
        let Some(name) = failed.map(|port| port.config.name.clone()) else { return };
        self.detach(std::slice::from_ref(&name));
        if let Some(running) = self.ports.get_mut(&name) {
            running.backoff.failed(self.clock.now_ns(), longest_wait(&running.config));
            eprintln!("vswitchd: port \"{name}\" is down: {reason}");
            running.close(Fate::Leave, reason);
        }
        self.fdb.flush(|entry| entry.port == index && entry.kind == Kind::Learned);
        self.restore_stations();
        self.publish();
    }

    /// Looks at a share of the open ports: not every device that is deleted wakes a queue, and a namespace that is
    /// deleted while we hold a device in it wakes none.
    fn look(&mut self, share: usize) {
        self.take_down_gone(self.ports.values().skip(share).step_by(LOOK_ROUNDS).filter_map(gone).collect());
    }

    /// Takes down ports whose devices are [`gone`].
    pub(super) fn take_down_gone(&mut self, ports: Vec<Gone>) {
        for (index, incarnation, reason) in ports {
            self.take_down(index, incarnation, &reason);
        }
    }

    /// Tells the workers when a port takes other or longer frames than before: what a guest takes is agreed on while
    /// its port is open.
    fn notice_features(&mut self) {
        let differs = |port: &Running| {
            let Some((open, known)) = port.open().zip(self.snapshot.port(port.index)) else { return false };
            open.features() != known.features || open.mtu() != known.mtu
        };
        if self.ports.values().any(differs) {
            self.attach(&[]);
        }
    }

    /// Begins to open every port that is down and whose time has come.
    fn bring_up(&mut self) {
        let now_ns = self.clock.now_ns();
        let workers = self.crew.members().len();
        for port in self.ports.values() {
            let is_due = port.open().is_none() && port.backoff.is_due(now_ns);
            if is_due && !self.attempts.is_under_way(&port.config.name) {
                let (opener, arena) = (self.opener.clone(), self.arena.clone());
                let shared = is_shared(&self.config, &port.config);
                let sized = mtu::sized(&self.config, &port.config);
                let open = move |_: &_| opener(&sized, shared, &arena, workers);
                self.attempts.begin(&port.config, Box::new(open));
            }
        }
    }

    /// Takes the outcomes of attempts that have ended; waits until `deadline` for those that `matter`.
    pub(super) fn take_outcomes(&mut self, matters: impl Fn(&schema::Port) -> bool, deadline: Instant) {
        let mut up = Vec::new();
        while let Some(attempt) = self.attempts.next(&matters, deadline) {
            up.extend(self.take_outcome(attempt));
        }
        if !up.is_empty() {
            self.attach(&up);
        }
    }

    /// Gives the port's name if it is open now, to be attached.
    fn take_outcome(&mut self, Attempt { config, outcome }: Attempt) -> Option<PortName> {
        let now_ns = self.clock.now_ns();
        let running = self.ports.get_mut(&config.name);
        match (running.filter(|port| port.open().is_none() && port.config == config), outcome) {
            (Some(running), Ok(port)) => {
                running.state = PortState::Open(port);
                eprintln!("vswitchd: port \"{}\" is up again", config.name);
                return Some(config.name);
            }
            (Some(running), Err(reason)) => {
                running.state = PortState::Down(reason);
                running.backoff.failed(now_ns, longest_wait(&running.config));
            }
            // It was changed or deleted meanwhile. A device that a port of now has, or wants to have, stays as it
            // is: not even a host's is given back, which closing it would do.
            (None, Ok(port)) => {
                if !self.ports.values().any(|running| has_the_device(&running.config, &config))
                    && let Err(fault) = port.close(Fate::Remove)
                {
                    eprintln!("vswitchd: port \"{}\": {fault}", config.name);
                }
            }
            (None, Err(_)) => {}
        }
        None
    }

    fn sweep(&mut self, place: u32) -> u32 {
        let ages: Vec<(u16, u32)> = self
            .config
            .bridges
            .iter()
            .filter_map(|bridge| {
                let never = bridge.ageing_s == 0;
                Some((*self.bridges.get(&bridge.name)?, if never { u32::MAX } else { bridge.ageing_s }))
            })
            .collect();
        let ageing = |bridge: u16| ages.iter().find(|(index, _)| *index == bridge).map_or(0, |(_, age)| *age);
        let share = self.fdb.bucket_count().div_ceil(SWEEP_ROUNDS);
        let mut gone = Vec::new();
        let place = self.fdb.sweep(place, share, self.now_s(), ageing, |entry| gone.push(entry.key));
        self.carry(gone.iter(), false);
        place
    }
}
