//! Virtqueues, device side: what the other end of a ring made available is received from it or written to it.
//!
//! [`split`] is the ring of Virtual I/O Device 1.2, section 2.7. [`rx`] and [`tx`] are queues of the port contract
//! over one ring each: what the guest transmits we receive, what we transmit it receives. [`access`] is how memory
//! is read that the other side may be writing. None of them knows how a ring came about.

pub mod access;
pub mod rx;
pub mod split;
#[cfg(test)]
mod tests;
pub mod tx;

use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pmd::Features;

use self::access::{Access, Direct};
use self::split::Split;
use crate::event::{Bell, signal};

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
    /// More descriptors in one burst than any traffic needs.
    #[error("more than {BURST_DESCRIPTORS} descriptors in one burst")]
    Work,
}

/// Bytes of a buffer that lie together.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub(crate) start: NonNull<u8>,
    pub(crate) bytes: u32,
}

// SAFETY is not at stake: a pointer is only a number until somebody, in an unsafe block, follows it.
#[allow(unsafe_code)]
const _: () = {
    // SAFETY: nothing is done through the pointer here; who follows it answers for that.
    unsafe impl Send for Piece {}
};

/// A chain of descriptors: one frame, or one buffer for a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chain {
    /// Its first descriptor, by which it is given back.
    pub head: u16,
    /// Bytes of its buffers.
    pub bytes: u64,
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

/// A ring in use, with all that a worker needs for it.
pub struct Lane<A = Direct> {
    /// The ring.
    pub ring: Split<A>,
    /// What its frames are like.
    pub terms: Terms,
    /// By what the guest is called; it polls if there is nothing.
    pub call: Option<Arc<OwnedFd>>,
    /// The ring broke the rules and is not looked at any more.
    pub broken: Option<BadRing>,
}

impl<A: Access> Lane<A> {
    /// Shows the guest what was given back in this burst, and calls it if it wants to be called.
    #[inline]
    fn publish(&mut self) {
        if self.ring.publish()
            && let Some(call) = &self.call
        {
            use std::os::fd::AsFd;
            signal(call.as_fd());
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

    /// Whether it was raised since it was asked last.
    pub fn take(&self) -> bool {
        self.bell.hush();
        self.raised.swap(false, Ordering::Acquire)
    }
}
