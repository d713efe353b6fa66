//! The port contract: what a driver implements and a worker calls. The essay is at the crate's root.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use crate::batch::{Batch, RxMemory};
use crate::gather::Burst;
use crate::offload::Features;
use crate::pool::Pool;

/// How a worker learns that an rx queue has frames.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The queue is a ring in memory: the worker asks it every turn, and sleeps on the descriptor after
    /// [`RxQueue::arm`].
    Ring(BorrowedFd<'a>),
    /// Asking costs a system call: while the queue is quiet the worker asks only when its `epoll_wait` says that
    /// the descriptor is readable; while frames come it asks every turn. The descriptor is non-blocking.
    Descriptor(BorrowedFd<'a>),
    /// There is nothing to sleep on: the worker asks every turn and naps at most a millisecond.
    Polled,
}

/// Why a port stopped working. The port goes down with this as its reason, the rest goes on, and the
/// control thread tries to open it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// For people: the call that failed and what it means, e.g. `read: the device is gone`.
    pub reason: String,
}

impl Fault {
    /// A fault with the call that showed it.
    pub fn new(reason: impl Into<String>) -> Fault {
        Fault { reason: reason.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fault {}

/// One receive queue of a port. A worker owns it.
pub trait RxQueue: Send {
    /// How to learn that there are frames.
    fn source(&self) -> Source<'_>;

    /// Receives at most `limit` frames (and at most [`BATCH`](crate::batch::BATCH)) and lends them. Starts
    /// by giving back what the last burst lent, if the device needs to be told. An empty batch means that
    /// there is nothing now.
    ///
    /// # Errors
    /// The device is gone or unusable; the worker stops asking and reports it. What was received before is handed
    /// up, and what was lost counted as refused, by an earlier call: nothing vanishes with an error.
    fn receive<'q>(
        &'q mut self,
        memory: &'q mut RxMemory,
        pool: &mut Pool,
        limit: usize,
    ) -> Result<Batch<'q>, Fault>;

    /// Ends the burst: gives back what was lent, at once and not at the next `receive`.
    fn release(&mut self, _pool: &mut Pool) {}

    /// Called before the worker sleeps: asks the device to make the descriptor readable at the next frame.
    /// True if frames are there already, so that it must not sleep.
    fn arm(&mut self) -> bool {
        false
    }

    /// Called about once a second, also while nothing comes: finds what neither an event nor a frame tells.
    ///
    /// # Errors
    /// The queue will bring no frames any more.
    fn check(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// Frames that were lost before the queue could see them (a full ring, a full socket buffer), since it
    /// was opened. They are not part of the switch's conservation, as it never had them.
    fn missed(&self) -> u64 {
        0
    }
}

/// What became of a burst. The counts add up to its frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxReport {
    /// Frames sent.
    pub sent: u32,
    /// Their bytes.
    pub bytes: u64,
    /// Frames dropped because the destination is full.
    pub full: u32,
    /// Frames dropped because the device refused them (too long for it, a header it cannot take).
    pub refused: u32,
    /// Frames dropped because the arena had no free frame to copy them into.
    pub no_frame: u32,
    /// Frames dropped because the device is down or gone.
    pub down: u32,
    /// Frames dropped because the memory that their payload lay in is gone: the sender took it away.
    pub unreadable: u32,
}

impl TxReport {
    /// All of them.
    pub fn total(&self) -> u32 {
        self.sent + self.full + self.refused + self.no_frame + self.down + self.unreadable
    }
}

/// One transmit queue of a port. A worker owns it, or several share it behind a lock taken once a burst.
pub trait TxQueue: Send {
    /// Sends a burst, in order, or drops what does not fit: it never waits and never keeps what was lent.
    /// Every frame is complete or within [`Port::features`].
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, pool: &mut Pool) -> TxReport;

    /// Called after the rx queue that a burst came from was [released](RxQueue::release): shows the other end what
    /// was sent, where that is a step of its own. A frame that its sender may send again, because it has not been
    /// told that it was taken, must not have arrived yet; who is killed in between loses it, and does not double it.
    fn flush(&mut self) {}

    /// Called once a turn while it returned true: reaps completions, kicks the device. True while frames
    /// are outstanding.
    fn maintain(&mut self, _pool: &mut Pool) -> bool {
        false
    }

    /// Frames handed to the device that it has not completed.
    fn outstanding(&self) -> u32 {
        0
    }
}

/// Whether the other end is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Frames can pass.
    pub up: bool,
    /// The device does not exist any more and will not come back by itself: close the port and open it again.
    /// Not every device says so by a [`Fault`]; a deleted namespace says nothing at all.
    pub gone: bool,
    /// If not up, why.
    pub reason: String,
}

impl Link {
    /// Frames can pass.
    pub fn up() -> Link {
        Link { up: true, gone: false, reason: String::new() }
    }

    /// No frames can pass now, because of `reason`.
    pub fn down(reason: impl Into<String>) -> Link {
        Link { up: false, gone: false, reason: reason.into() }
    }

    /// The device is gone for good, because of `reason`.
    pub fn gone(reason: impl Into<String>) -> Link {
        Link { up: false, gone: true, reason: reason.into() }
    }
}

/// What is known about the other end of a port that somebody plugs into while it is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Somebody is connected.
    pub connected: bool,
    /// The kind of ring that frames pass through, once one is in use.
    pub ring: Option<&'static str>,
    /// Queue pairs that are in use.
    pub queues_enabled: u32,
    /// What both ends have agreed on, by the names of the port's standard.
    pub features: Vec<&'static str>,
    /// How often the use of the rings came to an end: the other end was reset or went away, or broke the rules.
    pub resets: u64,
}

/// Frames that a port takes of a device that it shares with the host's kernel. Of GRE (47) these are Ethernet frames with
/// a key, as NVGRE has them (RFC 7637, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taken {
    /// The IP address that they are sent to.
    pub to: IpAddr,
    /// The IP address that they come from; `None`: any, and of GRE none.
    pub from: Option<IpAddr>,
    /// The IP protocol.
    pub protocol: u8,
    /// The UDP port that they are sent to; 0 without UDP.
    pub port: u16,
    /// The VLAN tag that they have, if they shall have one.
    pub vlan: Option<u16>,
}

/// The control side of an open port: plain values, and what to do with the device. Queues are taken out
/// once and given to workers.
pub trait Port: Send {
    /// The driver's name, as in the configuration (`tap`, `afxdp`).
    fn kind(&self) -> &'static str;

    /// How the driver runs, for people: `zero-copy`, `copy`, `virtio-net headers`.
    fn mode(&self) -> &str;

    /// The Ethernet address of the port's device (for a container's port, that of the container), if any.
    fn mac(&self) -> Option<[u8; 6]>;

    /// The largest network packet in bytes, Ethernet header not counted.
    fn mtu(&self) -> u32;

    /// What its tx queues take.
    fn features(&self) -> Features;

    /// Whether the other end is there, asked now.
    fn link(&self) -> Link;

    /// The other end, of a port that somebody plugs into.
    fn peer(&self) -> Option<Peer> {
        None
    }

    /// Whether opening found the device that an earlier port had made, and took it over: undoing the opening
    /// leaves it there.
    fn is_adopted(&self) -> bool {
        false
    }

    /// Takes the rx queues. Empty the second time.
    fn take_rx(&mut self) -> Vec<Box<dyn RxQueue>>;

    /// Takes the tx queues: as many as were asked for at opening, or fewer. Empty the second time.
    fn take_tx(&mut self) -> Vec<Box<dyn TxQueue>>;

    /// Takes exactly these frames from now on, and leaves all others to the host's kernel. Of a port that was opened
    /// to share its device; others take everything.
    ///
    /// # Errors
    /// What the kernel refused.
    fn select(&mut self, _taken: BTreeSet<Taken>) -> Result<(), Fault> {
        Ok(())
    }

    /// Ends the port. Its queues are dropped before this is called.
    fn close(self: Box<Self>, fate: Fate) -> Result<(), Fault>;
}

/// What becomes of a port's device when the port is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The daemon stops or restarts: what a container uses stays, a host's device is given back.
    Leave,
    /// The port is deleted: what we made is removed.
    Remove,
}
