//! Events: asking many descriptors at once, and sleeping on them.
//!
//! Two `epoll` instances, one inside the other. The inner one holds the quiet rx queues behind system
//! calls and is asked by one call, so that a thousand idle TAPs cost no more than one; the outer one holds
//! it, the rings' descriptors and the mailbox's bell, and is what the worker sleeps on.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{Timespec, epoll};

/// Ready queues that one call reports.
const READY: usize = 64;

/// What a token says when it is no queue.
const OTHER: u64 = u64::MAX;

/// A worker's two sets of descriptors.
pub struct Events {
    inner: OwnedFd,
    outer: OwnedFd,
    /// Descriptors in the inner set.
    asked: usize,
    /// Tokens of the queues that are ready.
    ready: Vec<u64>,
}

impl Events {
    /// An empty set, with the bell.
    ///
    /// # Errors
    /// No descriptor could be had.
    pub fn new(bell: BorrowedFd<'_>) -> io::Result<Events> {
        let inner = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let outer = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let other = epoll::EventData::new_u64(OTHER);
        epoll::add(&outer, &inner, other, epoll::EventFlags::IN)?;
        epoll::add(&outer, bell, other, epoll::EventFlags::IN)?;
        Ok(Events { inner, outer, asked: 0, ready: Vec::with_capacity(READY) })
    }

    /// Adds a queue that is asked when its descriptor is readable, under `token`.
    ///
    /// # Errors
    /// `epoll_ctl` failed.
    pub fn add_descriptor(&mut self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        epoll::add(&self.inner, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?;
        self.asked += 1;
        Ok(())
    }

    /// Removes it.
    pub fn remove_descriptor(&mut self, fd: BorrowedFd<'_>) {
        if epoll::delete(&self.inner, fd).is_ok() {
            self.asked -= 1;
        }
    }

    /// Adds a ring's descriptor, which wakes the worker and is not asked.
    ///
    /// # Errors
    /// `epoll_ctl` failed.
    pub fn add_ring(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::add(&self.outer, fd, epoll::EventData::new_u64(OTHER), epoll::EventFlags::IN)?)
    }

    /// Removes it.
    pub fn remove_ring(&mut self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.outer, fd);
    }

    /// Asks which queues are readable now, or in a state to be looked at (an error, a hang-up). Gives their
    /// number; [`Events::token`] names them.
    #[inline]
    pub fn poll(&mut self) -> usize {
        self.ready.clear();
        if self.asked > 0 {
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut space = [const { MaybeUninit::uninit() }; READY];
            if let Ok((ready, _)) = epoll::wait(&self.inner, &mut space, Some(&zero)) {
                self.ready.extend(ready.iter().map(|event| event.data.u64()));
            }
        }
        self.ready.len()
    }

    /// The token of the `i`th ready queue.
    #[inline]
    pub fn token(&self, i: usize) -> u64 {
        self.ready[i]
    }

    /// Sleeps until something is readable or `timeout_ns` is over.
    pub fn sleep(&mut self, timeout_ns: u64) {
        const SECOND: u64 = 1_000_000_000;
        let timeout =
            Timespec { tv_sec: (timeout_ns / SECOND) as i64, tv_nsec: (timeout_ns % SECOND) as i64 };
        let mut space = [const { MaybeUninit::uninit() }; 1];
        let _ = epoll::wait(self.outer.as_fd(), &mut space, Some(&timeout));
    }
}
