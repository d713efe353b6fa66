//! Virtqueues, device side: what the other end of a ring made available is received from it or written to it.
//!
//! [`split`] and [`packed`] are the rings of Virtual I/O Device 1.2, sections 2.7 and 2.8, behind one trait,
//! [`Virtqueue`]. [`rx`] and [`tx`] are queues of the port contract over one ring each: what the guest transmits we
//! receive, what we transmit it receives. [`access`] is how memory is read that the other side may be writing.
//! None of them knows how a ring came about.

pub mod access;
mod cursor;
pub mod dirty;
pub mod packed;
mod reach;
pub mod record;
pub mod rx;
pub mod split;
pub mod taken;
#[cfg(test)]
mod tests;
pub mod tx;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pmd::Features;

use self::access::{Access, Direct};
use self::dirty::Dirty;
use self::packed::Packed;
use self::split::Split;
pub use self::taken::Chain;
use self::taken::Taken;
use crate::caller;
use crate::event::Bell;

/// Most entries of a ring (section 2.7).
pub const RING: u16 = 32_768;

/// Most descriptors of a chain. A frame of 64 KB in pages needs 19.
pub const CHAIN: u32 = 1024;

/// Most descriptors that are looked at in one burst, whatever the ring says. 64 frames of 64 KB, received into
/// buffers of 2 KB, take 2,112.
pub const BURST_DESCRIPTORS: u32 = 8192;

/// How a ring breaks the rules. It is out of use from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRing {
    /// A size that no ring has.
    #[error("a ring of {0} entries; it is a power of two up to {RING}")]
    Size(u32),
    /// A part of the ring lies outside of the memory that is shared, or at an odd address.
    #[error("the ring's {part} at {address:#x} is not in shared memory, or not aligned")]
    Place {
        /// Which part.
        part: &'static str,
        /// Its address in the front end.
        address: u64,
    },
    /// More is available than the ring holds.
    #[error("{0} chains became available at once, more than the ring holds")]
    Overrun(u16),
    /// A chain begins at a descriptor that there is not.
    #[error("a chain begins at descriptor {0}, beyond the table")]
    Head(u16),
    /// A chain goes on at a descriptor that there is not.
    #[error("a chain goes on at descriptor {0}, beyond the table")]
    Next(u16),
    /// A chain is longer than its table, so it bites its tail, or longer than any frame needs.
    #[error("a chain of more than {0} descriptors, or one that ends nowhere")]
    Long(u32),
    /// A buffer to be read from is to be written to, or the other way round.
    #[error("a buffer that may only be {}", if *.writable { "written to, where we read" } else { "read, where we write" })]
    Direction {
        /// What the descriptor says.
        writable: bool,
    },
    /// A buffer that is not in shared memory.
    #[error("a buffer of {bytes} bytes at {address:#x} is not in shared memory")]
    Address {
        /// Its guest address.
        address: u64,
        /// Its bytes.
        bytes: u32,
    },
    /// An indirect table in an indirect table, with a next descriptor, of no entries or of half ones.
    #[error("an indirect table of {0} bytes in a wrong place, or of a wrong size")]
    Indirect(u32),
    /// What a predecessor left about a packed ring contradicts itself.
    #[error("the record of what was under way is damaged")]
    Record,
    /// More descriptors in one burst than any traffic needs.
    #[error("more than {BURST_DESCRIPTORS} descriptors in one burst")]
    Work,
}

/// Whether buffers are read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The guest has written them: its transmit queue.
    Read,
    /// The guest wants them filled: its receive queue.
    Write,
}

/// What was agreed on for the frames of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Bytes of the virtio-net header: 12, or 10 for a legacy guest without mergeable buffers (section 5.1.6).
    pub header: usize,
    /// A frame may go into several receive buffers (`VIRTIO_NET_F_MRG_RXBUF`).
    pub mergeable: bool,
    /// What the guest takes.
    pub features: Features,
}

/// Where a ring lies, as the front end says it: in its own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Entries.
    pub size: u32,
    /// The descriptor table, or the descriptor ring.
    pub descriptors: u64,
    /// The driver area: the available ring, or what the driver wants to be called for.
    pub available: u64,
    /// The device area: the used ring, or what we want to be kicked for.
    pub used: u64,
}

/// What [`rx`] and [`tx`] need of a ring, of whichever kind.
pub trait Virtqueue {
    /// How its memory is read.
    type Access: Access;

    /// Begins a burst: a new budget.
    fn begin(&mut self);

    /// Takes at most `most` chains of those that are available.
    ///
    /// # Errors
    /// What is available next is no chain; those before it are taken.
    fn take(&mut self, direction: Direction, most: usize, taken: &mut Taken) -> Result<(), BadRing>;

    /// Completes a chain, of which `written` bytes were written; in the order in which they were taken. The driver
    /// sees it after [`publish`](Self::publish).
    fn complete(&mut self, chain: Chain, written: u32);

    /// Completes chains that were only read from.
    fn give_back(&mut self, chains: &[Chain]);

    /// How many chains, or groups of them that are given back by one entry, were completed so far, modulo 2^16.
    fn completed(&self) -> u16;

    /// Asks for the lines that completing chains writes, which the driver had last, so that they come while the frames
    /// are looked at: but none on which it waits for us, which it would at once have back.
    fn foresee(&self, direction: Direction);

    /// Shows the driver what was completed, as far as this [number](Self::completed) of them. True if that is news.
    fn publish(&mut self, end: u16) -> bool;

    /// Whether the driver wants to be called for what it was shown since this was asked last. It waits until all that
    /// was written has reached memory.
    fn wants_call(&mut self) -> bool;

    /// Asks the driver to kick when it makes something available. True if there is something already.
    fn arm(&mut self) -> bool;

    /// Asks the driver not to kick.
    fn hush(&mut self);

    /// How its memory is read.
    fn access(&mut self) -> &mut Self::Access;
}

/// A ring of either kind.
pub enum Ring<A = Direct> {
    /// `VIRTIO_F_RING_PACKED` was not agreed on.
    Split(Split<A>),
    /// It was.
    Packed(Packed<A>),
}

/// Does the same with a ring of either kind, in code of its own for each; `Ring` is the one in scope.
macro_rules! with_ring {
    ($ring:expr, $name:ident => $run:expr) => {
        match $ring {
            Ring::Split($name) => $run,
            Ring::Packed($name) => $run,
        }
    };
}
pub(crate) use with_ring;

impl<A: Access> Ring<A> {
    /// Where it stands, as GET_VRING_BASE tells it (vhost-user.rst): the index of the next chain, and for a packed
    /// ring wrap counters and the used index besides.
    pub fn position(&self) -> u32 {
        match self {
            Ring::Split(ring) => ring.position().into(),
            Ring::Packed(ring) => ring.position(),
        }
    }
}

/// A ring in use, with all that a worker needs for it.
pub struct Lane<A = Direct> {
    /// The ring.
    pub ring: Ring<A>,
    /// What its frames are like.
    pub terms: Terms,
    /// By what the guest is called; it polls if there is nothing.
    pub call: Option<Arc<OwnedFd>>,
    /// The ring broke the rules and is not looked at any more.
    pub broken: Option<BadRing>,
    /// What notes which pages are written, if somebody wants to know.
    pub dirty: Option<Dirty>,
    /// What comes is thrown away.
    pub discards: bool,
    taken: Taken,
    /// Something was shown, and nobody has looked whether the guest wants to be called for it.
    owes_call: bool,
    /// What was sent and is not shown yet, in order, if several workers send here.
    shares: VecDeque<Share>,
}

/// What one of several workers has put into a ring in a row.
struct Share {
    sender: u16,
    /// How many chains were completed by its end.
    end: u16,
    /// Those whom the frames come from know that they were taken.
    released: bool,
}

impl<A: Access> Lane<A> {
    /// A ring that a worker can use from now on.
    pub fn new(ring: Ring<A>, terms: Terms, call: Option<Arc<OwnedFd>>) -> Lane<A> {
        Lane {
            ring,
            terms,
            call,
            broken: None,
            dirty: None,
            discards: false,
            taken: Taken::default(),
            owes_call: false,
            shares: VecDeque::new(),
        }
    }

    /// Chains that were completed so far, modulo 2^16.
    fn completed(&self) -> u16 {
        with_ring!(&self.ring, ring => ring.completed())
    }

    /// Notes that `sender`, one of several, has sent what was completed since the last one did.
    fn note(&mut self, sender: u16) {
        let end = self.completed();
        match self.shares.back_mut() {
            Some(last) if last.end == end => {}
            Some(last) if last.sender == sender && !last.released => last.end = end,
            _ => self.shares.push_back(Share { sender, end, released: false }),
        }
    }

    /// Shows what `sender` has sent, as far as nothing lies before it that another one has sent and not released: a
    /// ring is shown in order, and who is killed now must not have shown what will be sent again.
    fn publish_released(&mut self, sender: u16) {
        self.shares.iter_mut().filter(|share| share.sender == sender).for_each(|share| share.released = true);
        let released = self.shares.iter().take_while(|share| share.released).count();
        let last = self.shares.drain(..released).next_back();
        if let Some(last) = last {
            self.show_up_to(last.end);
        }
        self.call();
    }

    /// Shows the guest what was given back, and calls it if it wants to be called.
    #[inline]
    pub fn publish(&mut self) {
        self.show();
        self.call();
    }

    /// Shows the guest what was given back. The [call](Self::call) that it may want waits: to look whether it does is
    /// to wait for the lines of the ring, and what the burst brought has yet to be shown to others.
    #[inline]
    fn show(&mut self) {
        self.show_up_to(self.completed());
    }

    #[inline]
    fn show_up_to(&mut self, end: u16) {
        self.owes_call |= with_ring!(&mut self.ring, ring => ring.publish(end));
        self.mark_ring();
    }

    /// Calls the guest if it wants to be called for what it was shown.
    #[inline]
    fn call(&mut self) {
        if !std::mem::take(&mut self.owes_call) {
            return;
        }
        let wanted = with_ring!(&mut self.ring, ring => ring.wants_call());
        if wanted && let Some(call) = &self.call {
            use std::os::fd::AsFd;
            caller::call(call.as_fd());
        }
    }

    /// Notes that something of the ring itself was written.
    #[inline]
    pub fn mark_ring(&self) {
        if let Some(dirty) = &self.dirty {
            dirty.mark_ring();
        }
    }

    /// Notes that the ring is broken, and tells the control thread.
    #[cold]
    fn fail(&mut self, reason: BadRing, alarm: &Alarm) {
        self.broken = Some(reason);
        alarm.raise();
    }
}

/// How a worker tells the control thread that a ring is broken.
pub struct Alarm {
    raised: AtomicBool,
    bell: Bell,
}

impl Alarm {
    /// An alarm that is not raised.
    ///
    /// # Errors
    /// No descriptor could be had.
    pub fn new() -> std::io::Result<Alarm> {
        Ok(Alarm { raised: AtomicBool::new(false), bell: Bell::new()? })
    }

    /// What becomes readable when it is raised.
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.bell.fd()
    }

    /// Raises it.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Whether it is raised: nothing of the other end's is touched until somebody has seen to it.
    #[inline]
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }

    /// Whether it was raised since it was asked last.
    pub fn take(&self) -> bool {
        self.bell.hush();
        self.raised.swap(false, Ordering::Acquire)
    }
}
