//! The keeper: the thread that looks after a running switch.
//!
//! It takes ports down that workers report as failed or whose devices it finds gone, tries again and again
//! to open ports that are down, and ages the FDB, a piece at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::schema::PortName;
use pmd::Fate;

use super::{State, Switch};
use crate::worker::Event;

/// How often the keeper looks round.
const ROUND: Duration = Duration::from_millis(100);
/// How often a port that is down is tried again.
const RETRY: Duration = Duration::from_millis(500);
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
        let mut place = 0;
        let mut round = 0;
        let mut tried = Instant::now();
        while !stopping.load(Ordering::Acquire) {
            let event = match events.recv_timeout(ROUND) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let Some(switch) = switch.upgrade() else { return };
            let mut state = switch.lock();
            if let Some(Event::Fault { port, fault }) = event {
                state.take_down(port, &fault.reason);
                continue;
            }
            place = state.sweep(place);
            state.look(round % LOOK_ROUNDS);
            round += 1;
            if tried.elapsed() >= RETRY {
                tried = Instant::now();
                state.bring_up();
            }
        }
    };
    std::thread::Builder::new().name("keeper".into()).spawn(keep).ok()
}

impl State {
    /// A port's device failed: out of use with it, and the reason noted.
    fn take_down(&mut self, index: u16, reason: &str) {
        let Some(name) = self.port(index).map(|port| port.config.name.clone()) else { return };
        self.detach(std::slice::from_ref(&name));
        if let Some(running) = self.ports.get_mut(&name) {
            if running.open().is_none() {
                return; // reported by more than one queue
            }
            eprintln!("vswitchd: port \"{name}\" is down: {reason}");
            running.close(Fate::Leave, reason);
        }
        self.fdb.flush(|entry| entry.port == index && entry.kind == crate::tables::fdb::Kind::Learned);
        self.publish();
    }

    /// Looks at a share of the open ports: not every device that is deleted wakes a queue, and a namespace that is
    /// deleted while we hold a device in it wakes none.
    fn look(&mut self, share: usize) {
        let gone: Vec<(u16, String)> = self
            .ports
            .values()
            .skip(share)
            .step_by(LOOK_ROUNDS)
            .filter_map(|port| {
                let link = port.open()?.link();
                link.gone.then_some((port.index, link.reason))
            })
            .collect();
        for (index, reason) in gone {
            self.take_down(index, &reason);
        }
    }

    /// Tries to open every port that is down.
    fn bring_up(&mut self) {
        let down: Vec<PortName> = self
            .ports
            .values()
            .filter(|port| port.open().is_none())
            .map(|port| port.config.name.clone())
            .collect();
        if !down.is_empty() && self.attach_again(&down) > 0 {
            for name in down.iter().filter(|name| self.ports.get(*name).is_some_and(|p| p.open().is_some())) {
                eprintln!("vswitchd: port \"{name}\" is up again");
            }
        }
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
        self.fdb.sweep(place, share, self.now_s(), ageing, |_| {})
    }
}
