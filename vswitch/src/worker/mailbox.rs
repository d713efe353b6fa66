//! The mailbox: how control threads tell a worker something.
//!
//! A bounded queue and an event descriptor that wakes a sleeping worker. The worker empties it once a
//! turn, between bursts; it never waits for whoever writes, and answers by a channel that came with the
//! question.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::Sender;

use crossbeam::queue::ArrayQueue;
use pmd::RxQueue;
use rustix::event::{EventfdFlags, eventfd};

use super::outlet::Tx;
use super::queue::Queue;
use crate::flow::key::FlowKey;
use crate::snapshot::Snapshot;

/// What a worker is told.
pub enum Command {
    /// Use this configuration from now on.
    Snapshot(Arc<Snapshot>),
    /// Serve this rx queue.
    AddQueue(Queue),
    /// Send frames for a port by this queue.
    AddOutlet {
        /// The port.
        port: u16,
        /// Its queue.
        tx: Tx,
    },
    /// Give back everything of a port, so that it can be closed.
    RemovePort {
        /// The port.
        port: u16,
        /// Where it goes.
        reply: Sender<Retired>,
    },
    /// Give back one rx queue, so that another worker can serve it.
    TakeQueue {
        /// Its port.
        port: u16,
        /// Its number within the port.
        number: u16,
        /// Where it goes; nothing if it is not here.
        reply: Sender<Option<Queue>>,
    },
    /// Say that all that came before this is done, and no frame is under way that was decided before it.
    Settle {
        /// The answer.
        reply: Sender<()>,
    },
    /// Set the load counters to zero.
    ResetLoad,
    /// Say whether a flow is cached and current.
    Probe {
        /// The flow's masked key.
        key: FlowKey,
        /// The answer.
        reply: Sender<bool>,
    },
    /// List the cached flows.
    Flows {
        /// The answer.
        reply: Sender<Vec<super::flows::Flow>>,
    },
    /// Say how many frames each rx queue has missed, by its port.
    Missed {
        /// The answer.
        reply: Sender<Vec<(u16, u64)>>,
    },
    /// End, dropping every queue.
    Stop,
}

/// What a worker had of a port. Whoever gets it drops it: closing a device can take long.
#[derive(Default)]
pub struct Retired {
    /// Rx queues.
    pub rx: Vec<Box<dyn RxQueue>>,
    /// Tx queues.
    pub tx: Vec<Tx>,
}

/// One worker's mailbox.
pub struct Mailbox {
    queue: ArrayQueue<Command>,
    bell: OwnedFd,
    stopped: AtomicBool,
}

/// Commands that wait at most; a control thread that finds it full waits itself.
const CAPACITY: usize = 1024;

impl Mailbox {
    /// An empty one.
    ///
    /// # Errors
    /// No descriptor could be had.
    pub fn new() -> std::io::Result<Mailbox> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Mailbox { queue: ArrayQueue::new(CAPACITY), bell, stopped: AtomicBool::new(false) })
    }

    /// Leaves a command. Waits while the mailbox is full. If the worker has ended, or ends before it comes to
    /// it, the command is dropped, and with it the channel of the answer: whoever waits there is told.
    pub fn send(&self, command: Command) {
        let mut command = command;
        while let Err(back) = self.queue.push(command) {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            command = back;
            self.ring();
            std::thread::yield_now();
        }
        // Either this sees that the worker has ended, or the worker's last look sees the command.
        fence(Ordering::SeqCst);
        if self.stopped.load(Ordering::SeqCst) {
            self.clear();
        }
        self.ring();
    }

    fn ring(&self) {
        // Full means that it rings already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// The next command; for the worker only.
    #[inline]
    pub fn next(&self) -> Option<Command> {
        self.queue.pop()
    }

    /// Whether there is nothing to do.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The worker has ended: what is still in the queue, and what comes, is dropped.
    pub(super) fn close(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.clear();
    }

    fn clear(&self) {
        while self.queue.pop().is_some() {}
    }

    /// Readable when somebody has rung.
    pub fn bell(&self) -> &OwnedFd {
        &self.bell
    }

    /// Makes the bell silent again.
    pub(super) fn hush(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_asks_a_worker_that_has_ended_is_told() {
        let ask = |mailbox: &Mailbox| {
            let (reply, answer) = channel();
            mailbox.send(Command::Settle { reply });
            answer
        };
        let is_told = |answer: Receiver<()>| {
            answer.recv_timeout(Duration::from_secs(10)) == Err(RecvTimeoutError::Disconnected)
        };
        let mailbox = Mailbox::new().unwrap();
        let before = ask(&mailbox);
        mailbox.close();
        assert!(is_told(before) && is_told(ask(&mailbox)));
        // At the same time, in whatever order.
        for round in 0..1000 {
            let mailbox = Mailbox::new().unwrap();
            let answer = std::thread::scope(|scope| {
                scope.spawn(|| mailbox.close());
                ask(&mailbox)
            });
            assert!(is_told(answer), "round {round}");
        }
    }
}
