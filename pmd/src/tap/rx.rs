#![allow(unsafe_code)]
//! Receiving from a TAP: one `read` a frame, into the worker's scratch memory.
//!
//! The virtio-net header lands in the frame's headroom, right before its first byte, so one plain `read` takes
//! both. Frames are read until there are none or the scratch memory cannot hold another of the largest size.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use crate::arena::HEADROOM;
use crate::batch::{Batch, MAX_FRAME, RxMemory, Scratch};
use crate::pool::Pool;
use crate::port::{Fault, RxQueue, Source};
use crate::virtio::{self, TUNNEL_HEADER};

/// A frame's place in scratch memory begins with the headroom.
const PLACE: usize = HEADROOM + MAX_FRAME;
/// What the least Ethernet frame has: addresses and a type.
const FRAME_MIN: usize = 14;

pub(super) struct Rx {
    queue: Arc<OwnedFd>,
    header: usize,
}

impl Rx {
    /// The receiving half of `queue`, whose headers have `header` bytes.
    pub(super) fn new(queue: Arc<OwnedFd>, header: usize) -> Rx {
        Rx { queue, header }
    }

    /// Reads one frame with its header; its length with the header, or `None` when there is none now.
    fn read(&self, place: &mut [u8]) -> Result<Option<usize>, Fault> {
        let into = &mut place[HEADROOM - self.header..];
        loop {
            // SAFETY: writes at most `into.len()` bytes to memory that is exclusively ours.
            let read = unsafe { libc::read(self.queue.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) };
            if read >= 0 {
                return Ok(Some(read as usize));
            }
            let cause = io::Error::last_os_error();
            match cause.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(None),
                Some(libc::EINTR) => {}
                // The kernel says "bad state" once the device is deleted, "bad address" while it is.
                Some(libc::EBADFD | libc::EFAULT) => return Err(Fault::new("read: the TAP was deleted")),
                _ => return Err(Fault::new(format!("read of the TAP: {cause}"))),
            }
        }
    }

    /// Takes the frame just read out of scratch memory and into the batch.
    fn push<'q>(&self, batch: &mut Batch<'q>, scratch: &mut Scratch<'q>, read: usize) {
        let Some(len) = read.checked_sub(self.header).filter(|len| *len >= FRAME_MIN) else {
            batch.refused_mut().bad_offload += 1;
            return;
        };
        let frame = scratch.take(HEADROOM + len);
        let header = &frame[HEADROOM - self.header..HEADROOM];
        let offload = match self.header {
            TUNNEL_HEADER => virtio::decode_tunnel(header, len),
            _ => virtio::decode(header, len),
        };
        match offload {
            Ok(offload) => batch.push_private(frame, HEADROOM, offload),
            Err(virtio::BadHeader) => batch.refused_mut().bad_offload += 1,
        }
    }
}

impl RxQueue for Rx {
    fn source(&self) -> Source<'_> {
        Source::Descriptor(self.queue.as_fd())
    }

    fn receive<'q>(
        &'q mut self,
        memory: &'q mut RxMemory,
        _pool: &mut Pool,
        limit: usize,
    ) -> Result<Batch<'q>, Fault> {
        let (mut batch, mut scratch) = memory.lend();
        let mut left = limit;
        while left > 0 && !batch.is_full() {
            let Some(place) = scratch.rest().get_mut(..PLACE) else { break };
            match self.read(place) {
                Ok(Some(read)) => self.push(&mut batch, &mut scratch, read),
                Ok(None) => break,
                // What was read before the fault is still handed up; the next call meets the fault again.
                Err(_) if !batch.is_blank() => break,
                Err(fault) => return Err(fault),
            }
            left -= 1;
        }
        Ok(batch)
    }
}
