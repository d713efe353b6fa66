//! The crew: the threads that run the workers, and how to talk to all of them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::schema::Limits;
use core_affinity::CoreId;
use pmd::Arena;
use pmd::clock::Clock;

use super::indices;
use crate::snapshot::Snapshot;
use crate::tables::fdb::Fdb;
use crate::telemetry::counters::WorkerCounters;
use crate::worker::mailbox::{Command, Mailbox, Retired};
use crate::worker::{Event, Parts, Worker};

/// How long a change waits for workers to come to it, which takes them a burst.
const SETTLED: Duration = Duration::from_secs(5);

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The CPU does not exist, or this process may not use it.
    #[error(
        "`[switch] workers` names CPU {cpu}, and this process may use {allowed:?} only: name one of these, or \
             widen its CPU set (taskset, CPUAffinity=)"
    )]
    Cpu {
        /// The CPU.
        cpu: u16,
        /// CPUs that are allowed.
        allowed: Vec<usize>,
    },
    /// A thread or a descriptor could not be had.
    #[error(
        "starting worker {worker}: {error}; raise the limit on threads or open files (ulimit -u, ulimit -n)"
    )]
    System {
        /// The worker.
        worker: usize,
        /// What the kernel said.
        error: io::Error,
    },
}

/// One worker as the control side has it.
pub struct Member {
    /// The CPU that it is pinned to.
    pub cpu: u16,
    /// Its mailbox.
    pub mailbox: Arc<Mailbox>,
    /// What it counts.
    pub counters: Arc<WorkerCounters>,
    thread: Option<JoinHandle<()>>,
}

/// All workers.
pub struct Crew {
    members: Vec<Member>,
}

impl Crew {
    /// Starts a worker on each CPU.
    pub fn start(
        cpus: &[u16],
        arena: &Arena,
        fdb: &Arc<Fdb>,
        clock: &Arc<dyn Clock>,
        limits: &Limits,
        events: Sender<Event>,
        seed: u64,
    ) -> Result<Crew, WorkerError> {
        let mut crew = Crew { members: Vec::new() };
        for (index, &cpu) in cpus.iter().enumerate() {
            let system = |error| WorkerError::System { worker: index, error };
            let mailbox = Arc::new(Mailbox::new().map_err(system)?);
            let counters = Arc::new(WorkerCounters::new(indices(limits)));
            let worker = Worker::new(Parts {
                index,
                arena: arena.clone(),
                fdb: fdb.clone(),
                counters: counters.clone(),
                mailbox: mailbox.clone(),
                clock: clock.clone(),
                events: events.clone(),
                ports: indices(limits),
                flows: limits.flows as usize,
                seed,
            })
            .map_err(system)?;
            let thread = std::thread::Builder::new()
                .name(format!("worker{index}"))
                .spawn(move || {
                    // Checked before: a CPU that has vanished since leaves the worker unpinned.
                    core_affinity::set_for_current(CoreId { id: cpu.into() });
                    // A worker that is gone would leave its ports dead and whoever asks it waiting. A restart
                    // is over in milliseconds and leaves containers their interfaces.
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run())).is_err() {
                        eprintln!("vswitchd: worker {index} failed: ending, to be started again");
                        std::process::abort();
                    }
                })
                .map_err(system)?;
            crew.members.push(Member { cpu, mailbox, counters, thread: Some(thread) });
        }
        Ok(crew)
    }

    /// The workers.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The counters of all workers.
    pub fn counters(&self) -> impl Iterator<Item = &WorkerCounters> {
        self.members.iter().map(|member| member.counters.as_ref())
    }

    /// Tells one worker something.
    pub fn tell(&self, worker: usize, command: Command) {
        if let Some(member) = self.members.get(worker) {
            member.mailbox.send(command);
        }
    }

    /// Gives every worker the configuration.
    pub fn publish(&self, snapshot: &Arc<Snapshot>) {
        for member in &self.members {
            member.mailbox.send(Command::Snapshot(snapshot.clone()));
        }
    }

    /// Takes ports away from all workers and waits until they have given back everything; what they had is
    /// dropped here, where closing a device may take its time.
    pub fn retire(&self, ports: &[u16]) {
        let (reply, retired): (Sender<Retired>, Receiver<Retired>) = channel();
        for &port in ports {
            for member in &self.members {
                member.mailbox.send(Command::RemovePort { port, reply: reply.clone() });
            }
        }
        drop(reply);
        let mut all: Vec<Retired> = retired.into_iter().collect();
        crate::switch::ports::drop_all(&mut all);
    }

    /// Asks every worker one question and gathers the answers in their order.
    pub fn ask<T>(&self, question: impl Fn(Sender<T>) -> Command) -> Vec<T> {
        self.members
            .iter()
            .filter_map(|member| {
                let (reply, answer) = channel();
                member.mailbox.send(question(reply));
                answer.recv().ok()
            })
            .collect()
    }

    /// Waits until every worker has done all that it was told: it uses the configuration that was published
    /// last, and has no frame under way that it decided by an older one.
    pub fn settle(&self) {
        let (reply, settled) = channel();
        for member in &self.members {
            member.mailbox.send(Command::Settle { reply: reply.clone() });
        }
        drop(reply);
        let deadline = Instant::now() + SETTLED;
        for _ in &self.members {
            match settled.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("vswitchd: a worker has not answered for {} s", SETTLED.as_secs());
                    return;
                }
            }
        }
    }

    /// Ends the workers and waits for them.
    pub fn stop(&mut self) {
        for member in &self.members {
            member.mailbox.send(Command::Stop);
        }
        for member in &mut self.members {
            if let Some(thread) = member.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop();
    }
}
