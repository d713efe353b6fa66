//! Descriptors that wake: the worker's, by which a guest's kick reaches it, and the guest's, by which we call it.
//!
//! Both belong to the other side, which may do to them what it likes. A kick is therefore never read: an `epoll`
//! set of ours notes its edges, and that is what the worker sleeps on. Calls are the [`caller`](crate::caller)'s.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fs::{FileType, OFlags};

/// What a worker sleeps on for one queue.
pub struct Bell {
    set: OwnedFd,
    own: OwnedFd,
}

impl Bell {
    /// A bell that nobody rings yet.
    pub fn new() -> io::Result<Bell> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let own = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let bell = Bell { set, own };
        bell.watch(bell.own.as_fd())?;
        Ok(bell)
    }

    /// What becomes readable when the bell rings.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }

    /// Rings whenever `fd` is written to. It stays open until [`unwatch`](Self::unwatch).
    pub fn watch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.set, fd, epoll::EventData::new_u64(0), edge)?)
    }

    /// Rings for it no more. To be called before it is closed: others have it, too.
    pub fn unwatch(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.set, fd);
    }

    /// Rings.
    pub fn ring(&self) {
        signal(self.own.as_fd());
    }

    /// Silences it until it rings again.
    pub fn hush(&self) {
        let mut space = [const { std::mem::MaybeUninit::uninit() }; 4];
        let _ = epoll::wait(&self.set, &mut space, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    }
}

/// Signals an eventfd of our own, which nobody else could make wait.
pub fn signal(fd: BorrowedFd<'_>) {
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

/// Takes a descriptor that the other side wants to be called or kicks by: an eventfd, made non-blocking. What is a
/// file, a socket, a pipe, a device is refused: writing to those has effects.
pub fn accept(file: File) -> io::Result<OwnedFd> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    // Others without a type of file (an epoll set, a timer) have their own names.
    let name = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if kind != FileType::Unknown || name.as_os_str() != "anon_inode:[eventfd]" {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is no eventfd"));
    }
    let flags = rustix::fs::fcntl_getfl(&file)?;
    if !flags.contains(OFlags::NONBLOCK) {
        rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK)?;
    }
    Ok(file.into())
}
