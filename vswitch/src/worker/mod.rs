//! A worker: a thread that moves frames, from the rx queues that it owns to the ports that they go to.
//!
//! One core, start to finish: a batch is received, decided, sent and its buffers returned before the next
//! is taken. [`Worker::turn`] is one round over everything; [`Worker::run`] goes round until it is told to
//! stop, and sleeps on descriptors when there has been nothing for a while. Between bursts it reads its
//! [`mailbox`], which is all that others can tell it. It knows ports as indices and drivers by the
//! port contract; it knows no names, no files and no clock but the one passed in.

mod burst;
pub mod events;
pub mod flows;
pub mod mailbox;
pub mod outlet;
pub mod queue;
mod queues;
mod tally;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use pmd::clock::{Clock, cycles};
use pmd::{Arena, BATCH, Fault, Pool, RxMemory};

use self::burst::Decider;
use self::events::Events;
use self::mailbox::{Command, Mailbox, Retired};
use self::outlet::Outlets;
use self::queue::{Incarnation, Queue};
use self::queues::Queues;
use crate::snapshot::Snapshot;
use crate::tables::fdb::Fdb;
use crate::telemetry::counters::WorkerCounters;

/// How long a worker goes on asking after the last frame before it sleeps.
const SPIN_NS: u64 = 100_000;
/// How long it sleeps at most: nothing depends on it, all that happens rings a bell.
const SLEEP_NS: u64 = 1_000_000_000;
/// How long it sleeps while a queue has to be asked, or maintained, without a bell.
const NAP_NS: u64 = 500_000;

/// How often every queue is checked.
const CHECK_NS: u64 = 1_000_000_000;

/// Cycles for which a reading of the clock is good. A turn that finds nothing takes a tenth of that, and half of it
/// would go into reading clocks: the next frame waits for it.
const CLOCK_CYCLES: u64 = 1024;

/// Rings that are asked in a row before the cycle counter is read again: so many quiet ones are counted with the
/// one behind them that has frames.
const RINGS: usize = 8;

/// While there are hot queues, the watched ones are asked about every so many turns.
const WATCH_TURNS: u32 = 8;

/// What a worker tells the control side.
#[derive(Debug)]
pub enum Event {
    /// A port's queue has failed; the worker has stopped asking it.
    Fault {
        /// The port.
        port: u16,
        /// Its opening: the index may belong to another port by now.
        incarnation: Incarnation,
        /// Why.
        fault: Fault,
    },
}

/// What a worker is made of.
pub struct Parts {
    /// Its number.
    pub index: usize,
    /// The memory of frames.
    pub arena: Arena,
    /// The MAC table that all workers share.
    pub fdb: Arc<Fdb>,
    /// Its own counters.
    pub counters: Arc<WorkerCounters>,
    /// Its mailbox.
    pub mailbox: Arc<Mailbox>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where faults go.
    pub events: Sender<Event>,
    /// Port indices are below this.
    pub ports: usize,
    /// Entries of the flow cache; 0 decides every frame by the pipeline.
    pub flows: usize,
    /// The secret that its tables hash by.
    pub seed: u64,
}

/// A worker.
pub struct Worker {
    queues: Queues,
    memory: RxMemory,
    pool: Pool,
    decider: Decider,
    outlets: Outlets,
    counters: Arc<WorkerCounters>,
    mailbox: Arc<Mailbox>,
    clock: Arc<dyn Clock>,
    report: Sender<Event>,
    /// The time of this turn.
    now_ns: u64,
    /// The cycle counter, as it was read last.
    mark: u64,
    check_at_ns: u64,
    idle_since_ns: Option<u64>,
    turns: u32,
    stop: bool,
}

impl Worker {
    /// Puts a worker together; it has no queues yet.
    ///
    /// # Errors
    /// No descriptor could be had.
    pub fn new(parts: Parts) -> std::io::Result<Worker> {
        let events = Events::new(std::os::fd::AsFd::as_fd(parts.mailbox.bell()))?;
        Ok(Worker {
            queues: Queues::new(events),
            memory: RxMemory::new(),
            pool: parts.arena.pool(),
            outlets: Outlets::new(parts.ports, parts.index, parts.counters.clone()),
            decider: Decider::new(&parts),
            counters: parts.counters,
            mailbox: parts.mailbox,
            clock: parts.clock,
            report: parts.events,
            now_ns: 0,
            mark: 0,
            check_at_ns: 0,
            idle_since_ns: None,
            turns: 0,
            stop: false,
        })
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        let mut begin = cycles();
        let mut read_at = begin.wrapping_sub(CLOCK_CYCLES);
        while !self.stop {
            if begin.wrapping_sub(read_at) >= CLOCK_CYCLES {
                self.now_ns = self.clock.now_ns();
                read_at = begin;
            }
            self.mark = begin;
            let frames = self.round();
            if frames > 0 {
                self.idle_since_ns = None;
            } else {
                let since = *self.idle_since_ns.get_or_insert(self.now_ns);
                if self.now_ns.saturating_sub(since) >= SPIN_NS {
                    self.sleep();
                }
            }
            let end = cycles();
            let load = &self.counters.load;
            let spent = if frames > 0 { &load.busy_cycles } else { &load.idle_cycles };
            spent.add(end.wrapping_sub(begin));
            begin = end;
        }
        self.mailbox.close();
    }

    /// One round at the time that the clock tells now. Gives the frames that were received.
    pub fn turn(&mut self) -> usize {
        self.now_ns = self.clock.now_ns();
        self.mark = cycles();
        self.round()
    }

    /// One round: the mailbox, every rx queue that may have frames, what is outstanding. Gives the frames
    /// that were received.
    #[inline(never)] // one call a turn, and profiles have a name to begin at
    fn round(&mut self) -> usize {
        if !self.mailbox.is_empty() {
            self.read_mail();
            self.mark = cycles();
        }
        let now_ns = self.now_ns;
        if now_ns >= self.check_at_ns {
            self.check(now_ns);
        }
        self.decider.set_time(now_ns);
        self.outlets.set_time(now_ns);
        let mut frames = 0;
        let mut at = 0;
        while let Some(slot) = self.queues.polled(at) {
            let got = self.serve(slot, BATCH);
            if got > 0 {
                self.queues.unwatch(at);
            }
            frames += got;
            at += 1;
            if at.is_multiple_of(RINGS) {
                self.mark = cycles();
            }
        }
        at = 0;
        while let Some((slot, limit)) = self.queues.hot(at) {
            self.mark = cycles();
            let got = self.serve(slot, limit);
            frames += got;
            at += usize::from(!self.queues.asked(at, got, now_ns));
        }
        self.turns = self.turns.wrapping_add(1);
        if !self.queues.has_hot() || self.turns.is_multiple_of(WATCH_TURNS) {
            frames += self.serve_watched(now_ns);
        }
        if self.outlets.is_busy() {
            self.outlets.maintain(&mut self.pool);
        }
        frames
    }

    /// Checks every queue for what nothing tells.
    #[cold]
    fn check(&mut self, now_ns: u64) {
        self.check_at_ns = now_ns + CHECK_NS;
        while let Some((slot, fault)) = self.queues.check() {
            self.fail(slot, fault);
        }
    }

    /// A queue failed.
    #[cold]
    fn fail(&mut self, slot: usize, fault: Fault) {
        if let Some(&Queue { port, incarnation, .. }) = self.queues.fail(slot) {
            // Nobody listens only when the switch is going down.
            let _ = self.report.send(Event::Fault { port, incarnation, fault });
        }
    }

    /// One burst of each watched queue that is ready.
    fn serve_watched(&mut self, now_ns: u64) -> usize {
        let mut frames = 0;
        for i in 0..self.queues.poll() {
            let slot = self.queues.ready(i);
            self.mark = cycles();
            let got = self.serve(slot, BATCH);
            if got > 0 {
                self.queues.heat(slot, now_ns);
            }
            frames += got;
        }
        frames
    }

    /// One burst of one queue.
    #[inline]
    fn serve(&mut self, slot: usize, limit: usize) -> usize {
        let Some(queue) = self.queues.get(slot) else { return 0 };
        match self.decider.burst(queue, limit, &mut self.memory, &mut self.pool, &mut self.outlets) {
            Ok(0) => 0,
            Ok(frames) => {
                queue.load.frames.add(frames as u64);
                let end = cycles();
                queue.load.cycles.add(end.wrapping_sub(std::mem::replace(&mut self.mark, end)));
                self.counters.load.frames.add(frames as u64);
                frames
            }
            Err(fault) => {
                self.fail(slot, fault);
                0
            }
        }
    }

    fn sleep(&mut self) {
        if !self.queues.arm() {
            return;
        }
        let load = &self.counters.load;
        load.sleeping.store(true, Ordering::SeqCst);
        if self.mailbox.is_empty() {
            let restless = self.queues.is_restless() || self.outlets.is_busy();
            self.queues.sleep(if restless { NAP_NS } else { SLEEP_NS });
        }
        load.sleeping.store(false, Ordering::SeqCst);
        self.mailbox.hush();
    }

    /// Does what the mailbox says; between bursts only.
    pub(crate) fn read_mail(&mut self) {
        while let Some(command) = self.mailbox.next() {
            self.idle_since_ns = None;
            match command {
                Command::Snapshot(snapshot) => self.use_snapshot(snapshot),
                Command::AddQueue(queue) => self.add_queue(queue),
                Command::AddOutlet { port, tx } => {
                    self.outlets.add(port, tx, self.decider.view(port).into());
                }
                Command::RemovePort { port, reply } => {
                    let _ = reply.send(self.remove_port(port));
                }
                Command::TakeQueue { port, number, reply } => {
                    let slot = self.queues.find(port, number);
                    let _ = reply.send(slot.and_then(|slot| self.queues.remove(slot)));
                }
                Command::Settle { reply } => {
                    let _ = reply.send(());
                }
                Command::ResetLoad => {
                    for counter in [
                        &self.counters.load.frames,
                        &self.counters.load.busy_cycles,
                        &self.counters.load.idle_cycles,
                    ] {
                        counter.set(0);
                    }
                }
                Command::Probe { key, reply } => {
                    let _ = reply.send(self.decider.is_cached(&key));
                }
                Command::Flows { reply } => {
                    let _ = reply.send(self.decider.flows());
                }
                Command::Missed { reply } => {
                    let _ = reply.send(self.queues.missed());
                }
                Command::Stop => {
                    self.stop = true;
                    self.queues.clear();
                    self.outlets.clear();
                }
            }
        }
    }

    fn use_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.outlets.use_snapshot(&snapshot);
        self.counters.load.generation.set(snapshot.generation.into());
        self.decider.use_snapshot(snapshot);
    }

    fn add_queue(&mut self, queue: Queue) {
        let Queue { port, incarnation, .. } = queue;
        if let Err((queue, fault)) = self.queues.add(queue) {
            self.queues.keep_faulty(queue);
            let _ = self.report.send(Event::Fault { port, incarnation, fault });
        }
    }

    fn remove_port(&mut self, port: u16) -> Retired {
        let mut retired = Retired::default();
        self.queues.remove_port(port, &mut retired);
        retired.tx.extend(self.outlets.remove(port));
        retired
    }
}
