//! A bell: what a thread sleeps on, and others ring (eventfd(2)).
//!
//! Ringing a bell that nobody listens for is a look at a flag. The flag and what is waited for are written by the two
//! sides crosswise, each reading the other's after a full fence, so one of them sees the other in every case.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

/// What one thread sleeps on. Clones are the same bell.
#[derive(Clone, Debug)]
pub struct Bell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    event: OwnedFd,
    listening: AtomicBool,
}

impl Bell {
    /// Makes a bell.
    ///
    /// # Errors
    /// The kernel gives no descriptor (`eventfd`).
    pub fn new() -> io::Result<Bell> {
        // SAFETY: a plain system call without pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Bell(Arc::new(Inner { event, listening: AtomicBool::new(false) })))
    }

    /// Wakes the thread, if it sleeps or is about to. What it shall find was written before.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.0.listening.load(Ordering::Relaxed) && self.0.listening.swap(false, Ordering::Relaxed) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: reads eight bytes, which live through the call. The counter cannot be full.
            unsafe { libc::write(self.0.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// Before sleep: from now on [`ring`](Self::ring) makes the descriptor readable. True if `ready` finds something
    /// now, so that the thread must not sleep.
    pub fn arm(&self, ready: impl FnOnce() -> bool) -> bool {
        let mut count = [0u8; 8];
        // SAFETY: writes eight bytes, to where there are so many.
        unsafe { libc::read(self.0.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        self.0.listening.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let awake = ready();
        if awake {
            self.0.listening.store(false, Ordering::Relaxed);
        }
        awake
    }

    /// Sleeps until somebody rings or the time is over, or not at all if `ready` finds something.
    pub fn wait(&self, timeout: Duration, ready: impl FnOnce() -> bool) {
        if !self.arm(ready) {
            let mut event = libc::pollfd { fd: self.0.event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // Rounded up: who wakes before his time is due only goes to sleep again.
            let timeout = timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as libc::c_int;
            // SAFETY: one descriptor, which lives through the call. Whatever it returns, the thread looks for itself.
            unsafe { libc::poll(&mut event, 1, timeout) };
            self.0.listening.store(false, Ordering::Relaxed);
        }
    }

    /// What becomes readable.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
