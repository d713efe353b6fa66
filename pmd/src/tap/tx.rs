#![allow(unsafe_code)]
//! Sending to a TAP: one `writev` a frame, the virtio-net header in front.
//!
//! Partial checksums and trains go through untouched; the container's kernel knows what to do with them. The
//! write runs the container's receive path at once, so a TAP has no queue that could be full.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use crate::gather::Burst;
use crate::pool::Pool;
use crate::port::{TxQueue, TxReport};
use crate::virtio;

/// Pieces that one frame can have: header, prefix, head, and the segments of a batch's frame.
const PIECES: usize = 64;

pub(super) struct Tx {
    queue: Arc<OwnedFd>,
    header: usize,
    vector: Vec<libc::iovec>,
}

// SAFETY: between bursts the vector is empty; during one its pointers are used on the calling thread only.
unsafe impl Send for Tx {}

impl Tx {
    /// The sending half of `queue`, whose headers have `header` bytes.
    pub(super) fn new(queue: Arc<OwnedFd>, header: usize) -> Tx {
        Tx { queue, header, vector: Vec::with_capacity(PIECES) }
    }

    /// Writes outgoing frame `i`.
    fn write(&mut self, burst: &Burst<'_, '_>, i: usize) -> io::Result<()> {
        let mut header = virtio::encode_tunnel(&burst.offload(i), burst.head(i), burst.item(i).total());
        self.vector.clear();
        self.vector.push(libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: self.header });
        burst.gather(i, &mut self.vector);
        loop {
            // SAFETY: the pieces stay readable while `burst` and `header` live, which is longer than the call.
            let written = unsafe {
                libc::writev(self.queue.as_raw_fd(), self.vector.as_ptr(), self.vector.len() as libc::c_int)
            };
            if written >= 0 {
                return Ok(());
            }
            let cause = io::Error::last_os_error();
            if cause.kind() != io::ErrorKind::Interrupted {
                return Err(cause);
            }
        }
    }
}

impl TxQueue for Tx {
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, _pool: &mut Pool) -> TxReport {
        let mut report = TxReport::default();
        for i in 0..burst.len() {
            match self.write(burst, i) {
                Ok(()) => {
                    report.sent += 1;
                    report.bytes += burst.item(i).total() as u64;
                }
                Err(cause) => match cause.raw_os_error() {
                    Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => report.full += 1,
                    Some(libc::EINVAL | libc::EMSGSIZE) => report.refused += 1,
                    Some(libc::EFAULT) => report.unreadable += 1,
                    // EIO: the container set its interface down. EBADFD: the device is deleted.
                    _ => report.down += 1,
                },
            }
        }
        self.vector.clear();
        report
    }
}
