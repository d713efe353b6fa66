//! Calls to a guest: adding one to an eventfd that is as much the guest's as ours.
//!
//! A guest may fill the counter of its descriptor, and take away the flag by which a write to a full one returns: the
//! flag belongs to the open file, which both have. A worker that writes would then wait for ever, and all ports with
//! it. Asking before (`poll`) leaves a moment in between. But when the *kernel* signals an eventfd, it never waits,
//! and asynchronous I/O (`io_submit(2)`, `IOCB_FLAG_RESFD`) does that for whoever asks: so a worker lets it look
//! whether `/dev/null` can be written to, which it always can, and names the guest's descriptor as the one to tell.
//! That costs 0.4 us more than a write (0.7 to 0.3), once in a burst, of a guest that sleeps and has to be woken;
//! one that polls is not called at all.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// linux/aio_abi.h.
const POLL: u16 = 5;
const SIGNAL: u32 = 1;

/// Completions that a context keeps until they are collected.
const COMPLETIONS: usize = 128;

/// Bytes of a completion; nothing is in them that anybody wants to know.
type Completion = MaybeUninit<[u64; 4]>;

/// What all threads call with. Contexts are counted by the kernel, over all processes.
struct Caller {
    context: libc::c_ulong,
    ready: File,
}

static CALLER: OnceLock<Option<Caller>> = OnceLock::new();

/// Calls by an eventfd, whatever its flags and its counter are. What is no eventfd is not touched.
pub fn call(fd: BorrowedFd<'_>) {
    let caller = CALLER.get_or_init(|| Caller::new().ok());
    if caller.as_ref().and_then(|caller| caller.call(fd)).is_none() {
        attempt(fd);
    }
}

/// A write, if it seems that it would not wait: without asynchronous I/O (`fs.aio-max-nr` is used up) that is all.
#[cold]
fn attempt(fd: BorrowedFd<'_>) {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    // A counter at its end reports an error instead.
    if poll(&mut fds, Some(&now)).is_ok() && fds[0].revents() == PollFlags::OUT {
        let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
    }
}

impl Caller {
    fn new() -> io::Result<Caller> {
        let ready = OpenOptions::new().write(true).open("/dev/null")?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: the call writes a context into a variable that lives through it.
        let made =
            unsafe { libc::syscall(libc::SYS_io_setup, COMPLETIONS as libc::c_uint, &raw mut context) };
        if made == 0 { Ok(Caller { context, ready }) } else { Err(io::Error::last_os_error()) }
    }

    /// `None` if it could not be asked for.
    fn call(&self, fd: BorrowedFd<'_>) -> Option<()> {
        // SAFETY: all zeros is a valid request.
        let mut request: libc::iocb = unsafe { std::mem::zeroed() };
        request.aio_lio_opcode = POLL;
        request.aio_fildes = self.ready.as_raw_fd() as u32;
        request.aio_buf = libc::POLLOUT as u64;
        (request.aio_flags, request.aio_resfd) = (SIGNAL, fd.as_raw_fd() as u32);
        match self.submit(&mut request) {
            Err(libc::EAGAIN) => {
                self.collect();
                self.submit(&mut request).ok()
            }
            // No eventfd.
            Err(libc::EINVAL) => Some(()),
            other => other.ok(),
        }
    }

    fn submit(&self, request: &mut libc::iocb) -> Result<(), i32> {
        let mut list = [&raw mut *request];
        // SAFETY: one request, which the kernel reads in this call; it names no memory of ours.
        let taken =
            unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1 as libc::c_long, list.as_mut_ptr()) };
        if taken == 1 { Ok(()) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
    }

    /// Makes room for further completions.
    #[cold]
    fn collect(&self) {
        let mut completions = [Completion::uninit(); COMPLETIONS];
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let most = completions.len() as libc::c_long;
        let least: libc::c_long = 0;
        // SAFETY: at most `most` completions of four words each are written to where so many are.
        unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                least,
                most,
                completions.as_mut_ptr(),
                &raw const now,
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;
    use crate::event::accept;

    #[test]
    fn every_call_counts() {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        for _ in 0..5 * COMPLETIONS {
            call(fd.as_fd());
        }
        let mut count = [0; 8];
        rustix::io::read(&fd, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 5 * COMPLETIONS as u64);
        attempt(fd.as_fd());
        rustix::io::read(&fd, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    #[test]
    fn what_is_no_eventfd_is_not_written_to() {
        let (reader, writer) = std::io::pipe().unwrap();
        call(writer.as_fd());
        let readable = poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&Timespec::default()));
        assert_eq!(readable, Ok(0));
    }

    #[test]
    fn whoever_fills_his_descriptor_holds_nobody_up() {
        let theirs = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let ours = accept(File::from(theirs.try_clone().unwrap())).unwrap();
        // Both are one open file: what was accepted as non-blocking is not any more, and it is full.
        fcntl_setfl(&theirs, OFlags::empty()).unwrap();
        rustix::io::write(&theirs, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        for how in [call, attempt] {
            let (done, waits) = mpsc::channel();
            let ours = ours.try_clone().unwrap();
            std::thread::spawn(move || {
                how(ours.as_fd());
                done.send(()).unwrap();
            });
            waits.recv_timeout(Duration::from_secs(5)).expect("the call returns");
        }
    }
}
