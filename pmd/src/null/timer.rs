//! A timer that a worker can sleep on (timerfd_create(2)).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub(super) struct Timer {
    descriptor: OwnedFd,
}

impl Timer {
    /// Makes a timer that is not set.
    pub(super) fn new() -> io::Result<Timer> {
        // SAFETY: a plain system call without pointers.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        Ok(Timer { descriptor: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Makes the descriptor readable after `wait_ns`, which is not 0, and not before. False if the
    /// kernel refused.
    pub(super) fn set(&self, wait_ns: u64) -> bool {
        let at = libc::timespec {
            tv_sec: (wait_ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (wait_ns % 1_000_000_000) as libc::c_long,
        };
        let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::itimerspec { it_interval: once, it_value: at };
        // SAFETY: `value` lives through the call; the old value is not asked for.
        unsafe { libc::timerfd_settime(self.descriptor.as_raw_fd(), 0, &value, std::ptr::null_mut()) == 0 }
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
