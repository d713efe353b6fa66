//! What the rx and the tx queue of one AF_XDP socket share: the socket, and the frames to bring home after it.
//!
//! The two queues may belong to different workers and end at different times. The socket is closed with the last of
//! them, and with their rings, since a mapping keeps a socket open; only then do the frames that the kernel still
//! held go back to the arena, as until then it may write them.
//! In copy mode the kernel is done when `close` returns. A zero-copy driver lets go of its queue a little later, in
//! the background, so there we wait until the queue can be bound again; if that takes too long, the frames are
//! left out of circulation, which costs memory and breaks nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use super::device::within;
use super::lent::Lent;
use super::socket::{Queue, has_error, wait_for_release};

pub(super) struct Shared {
    // Closed before `home` is dropped: fields drop in this order.
    socket: OwnedFd,
    home: Home,
}

impl Shared {
    /// `netns` is the namespace that the socket was made in.
    pub(super) fn new(socket: OwnedFd, queue: Queue, netns: Arc<OwnedFd>, zero_copy: bool) -> Shared {
        Shared { socket, home: Home { queue, netns, zero_copy, left: Mutex::default() } }
    }

    /// The socket.
    #[inline]
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// True when the device was unregistered: the kernel says so through the socket's error, and says it once.
    pub(super) fn is_gone(&self) -> bool {
        has_error(self.fd())
    }

    /// Whether the driver itself reads and writes the arena.
    pub(super) fn is_zero_copy(&self) -> bool {
        self.home.zero_copy
    }

    /// A queue ends; its frames come home when the socket is closed.
    pub(super) fn leave(&self, lent: &mut Lent) {
        self.home.left.lock().unwrap_or_else(PoisonError::into_inner).push(lent.take());
    }
}

/// Brings the frames home after the socket was closed.
struct Home {
    queue: Queue,
    netns: Arc<OwnedFd>,
    zero_copy: bool,
    left: Mutex<Vec<Lent>>,
}

impl Drop for Home {
    fn drop(&mut self) {
        let released =
            !self.zero_copy || within(&self.netns, || wait_for_release(&self.queue)).unwrap_or(false);
        for lent in self.left.get_mut().unwrap_or_else(PoisonError::into_inner) {
            lent.set_lost(!released);
        }
    }
}
