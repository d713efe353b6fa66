#![allow(unsafe_code)]
//! Sending by packet sockets: up to 64 frames a `sendmmsg`, each with its virtio-net header in front.
//!
//! Partial checksums and trains go through untouched. What the kernel refuses is counted by what it says, and
//! the frames behind it are still sent.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use crate::batch::BATCH;
use crate::gather::Burst;
use crate::pool::Pool;
use crate::port::{TxQueue, TxReport};
use crate::virtio::{self, HEADER, SHORT_HEADER};

/// Pieces that a call's frames have together, to begin with: header, and head or prefix and payload.
const PIECES: usize = BATCH * 4;

pub(super) struct Tx {
    socket: Arc<OwnedFd>,
    headers: Vec<[u8; HEADER]>,
    vectors: Vec<libc::iovec>,
    /// Where each frame's pieces end in `vectors`.
    ends: Vec<usize>,
    messages: Vec<libc::mmsghdr>,
}

// SAFETY: between bursts the lists are empty; during one their pointers are used on the calling thread only.
unsafe impl Send for Tx {}

impl Tx {
    pub(super) fn new(socket: Arc<OwnedFd>) -> Tx {
        Tx {
            socket,
            headers: Vec::with_capacity(BATCH),
            vectors: Vec::with_capacity(PIECES),
            ends: Vec::with_capacity(BATCH),
            messages: Vec::with_capacity(BATCH),
        }
    }

    /// Writes messages for outgoing frames `first..last`, at most [`BATCH`].
    fn prepare(&mut self, burst: &Burst<'_, '_>, first: usize, last: usize) {
        self.clear();
        for i in first..last {
            self.headers.push(virtio::encode(&burst.offload(i), burst.head(i), burst.item(i).total()));
        }
        for (i, header) in (first..last).zip(&mut self.headers) {
            self.vectors.push(libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: SHORT_HEADER });
            burst.gather(i, &mut self.vectors);
            self.ends.push(self.vectors.len());
        }
        // Only now, when the list of pieces has stopped growing, may anything point into it.
        let mut start = 0;
        for &end in &self.ends {
            // SAFETY: all zeros is a valid message.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = self.vectors[start..end].as_mut_ptr();
            message.msg_hdr.msg_iovlen = (end - start) as _;
            self.messages.push(message);
            start = end;
        }
    }

    fn clear(&mut self) {
        self.headers.clear();
        self.vectors.clear();
        self.ends.clear();
        self.messages.clear();
    }

    /// Sends the messages from `from` on; how many went, at least one.
    fn send(&mut self, from: usize) -> io::Result<usize> {
        let messages = &mut self.messages[from..];
        let flags = libc::MSG_DONTWAIT as _;
        // SAFETY: the messages and what they point to stay valid while the burst lives, longer than the call.
        let sent = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, flags)
        };
        if sent > 0 { Ok(sent as usize) } else { Err(io::Error::last_os_error()) }
    }
}

impl TxQueue for Tx {
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, _pool: &mut Pool) -> TxReport {
        let mut report = TxReport::default();
        let mut first = 0;
        let mut asked_again = false;
        while first < burst.len() {
            let last = (first + BATCH).min(burst.len());
            self.prepare(burst, first, last);
            let mut at = first;
            while at < last {
                match self.send(at - first) {
                    Ok(sent) => {
                        report.sent += sent as u32;
                        report.bytes += (at..at + sent).map(|i| burst.item(i).total() as u64).sum::<u64>();
                        at += sent;
                    }
                    Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                    // The socket says once that the device was down at some time before; it may be up again.
                    Err(cause) if cause.raw_os_error() == Some(libc::ENETDOWN) && !asked_again => {
                        asked_again = true;
                    }
                    Err(cause) => {
                        refuse(&mut report, &cause);
                        at += 1;
                    }
                }
            }
            first = last;
        }
        self.clear();
        report
    }
}

/// Counts one frame that the kernel did not take.
fn refuse(report: &mut TxReport, cause: &io::Error) {
    match cause.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => report.full += 1,
        Some(libc::EINVAL | libc::EMSGSIZE) => report.refused += 1,
        Some(libc::EFAULT) => report.unreadable += 1,
        // ENETDOWN: the device is set down. ENXIO: it is deleted.
        _ => report.down += 1,
    }
}
