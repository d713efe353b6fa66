//! Transmitting to a guest: into the buffers that it has posted to receive into.
//!
//! A frame is copied from where it lies (private memory, the arena, another guest) straight into the guest's
//! buffers, header in front. With mergeable buffers it may fill several (Virtual I/O Device 1.2, section 5.1.6.4);
//! a frame for which the guest has posted too few is dropped. The guest sees all frames of a burst at once.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use pmd::{BATCH, Burst, Features, MAX_FRAME, Pool, TxQueue, TxReport, virtio};

use super::access::{Access, Direct};
use super::split::Cursor;
use super::{Alarm, BadRing, Chain, Direction, Lane, Piece};
use crate::seat::Occupant;

/// A tx queue over a ring of the guest's receive buffers.
pub struct Tx<A: Access = Direct> {
    seat: Occupant<Lane<A>>,
    alarm: Arc<Alarm>,
    work: Work,
}

/// Lists that are used anew for each frame.
struct Work {
    pieces: Vec<Piece>,
    chains: Vec<Chain>,
    vector: Vec<libc::iovec>,
    /// A frame whose checksum is completed on the way.
    completed: Box<[u8]>,
}

// SAFETY: between bursts the vector is empty; during one its pointers are used on the calling thread only.
unsafe impl Send for Work {}

/// What became of one frame.
enum Outcome {
    Sent,
    /// No room; nor for those behind it.
    Full,
    Refused,
}

impl<A: Access> Tx<A> {
    /// A queue over what is put into `seat`.
    pub fn new(seat: Occupant<Lane<A>>, alarm: Arc<Alarm>) -> Tx<A> {
        let work = Work {
            pieces: Vec::with_capacity(2 * super::CHAIN as usize),
            chains: Vec::with_capacity(BATCH),
            vector: Vec::with_capacity(BATCH),
            completed: vec![0; MAX_FRAME].into_boxed_slice(),
        };
        Tx { seat, alarm, work }
    }
}

impl Work {
    /// Sends outgoing frame `i`; `waiting` is how many chains the guest has posted.
    #[inline]
    fn send<A: Access>(
        &mut self,
        lane: &mut Lane<A>,
        burst: &Burst<'_, '_>,
        i: usize,
        waiting: &mut u16,
    ) -> Result<Outcome, BadRing> {
        let (item, offload) = (burst.item(i), burst.offload(i));
        // What the guest takes may have become less since the worker was told.
        if !offload.fits(lane.terms.features) {
            return Ok(Outcome::Refused);
        }
        let (frame, wanted) = (item.total(), (lane.terms.header + item.total()) as u64);
        self.pieces.clear();
        self.chains.clear();
        let mut room = 0;
        while room < wanted {
            if !self.chains.is_empty() && !lane.terms.mergeable {
                lane.ring.untake(1);
                return Ok(Outcome::Refused);
            }
            if usize::from(*waiting) == self.chains.len() {
                lane.ring.untake(self.chains.len() as u16);
                return Ok(Outcome::Full);
            }
            let chain = lane.ring.chain(Direction::Write, &mut self.pieces)?;
            room += chain.bytes;
            self.chains.push(chain);
        }
        *waiting -= self.chains.len() as u16;
        self.fill(lane, burst, i, frame);
        let mut left = wanted;
        for chain in &self.chains {
            let written = left.min(chain.bytes);
            lane.ring.complete(chain.head, written as u32);
            left -= written;
        }
        Ok(Outcome::Sent)
    }

    /// Writes header and frame.
    #[inline]
    fn fill<A: Access>(&mut self, lane: &Lane<A>, burst: &Burst<'_, '_>, i: usize, frame: usize) {
        let mut header = virtio::encode(&burst.offload(i), burst.head(i), frame);
        if !lane.terms.features.contains(Features::CHECKSUM) {
            // Section 5.1.6.4.1: without VIRTIO_NET_F_GUEST_CSUM no flag is set.
            header[0] = 0;
        }
        header[10..].copy_from_slice(&(self.chains.len() as u16).to_le_bytes());
        let mut cursor = Cursor::new(&self.pieces);
        // SAFETY: the pieces are buffers of chains of this ring: in its memory, which is mapped and ours to write.
        unsafe { cursor.write(NonNull::from(&header).cast(), lane.terms.header) };
        let completes = burst.item(i).offload.is_partial() && !burst.packed_offload(i).is_partial();
        if completes && burst.copy_to(i, &mut self.completed).is_some() {
            // SAFETY: as above; the frame is in private memory.
            unsafe { cursor.write(NonNull::from(&self.completed[..]).cast(), frame) };
            return;
        }
        burst.gather(i, &mut self.vector);
        for piece in self.vector.drain(..) {
            if let Some(start) = NonNull::new(piece.iov_base.cast()) {
                // SAFETY: as above; the pieces of a burst are readable as long as the burst lives.
                unsafe { cursor.write(start, piece.iov_len) };
            }
        }
    }
}

impl<A: Access> TxQueue for Tx<A> {
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, _pool: &mut Pool) -> TxReport {
        let mut report = TxReport::default();
        let frames = burst.len() as u32;
        let Some(lane) = self.seat.enter() else { return TxReport { down: frames, ..report } };
        if lane.broken.is_none() {
            let outcome = lane.ring.waiting().and_then(|mut waiting| {
                for i in 0..burst.len() {
                    match self.work.send(lane, burst, i, &mut waiting)? {
                        Outcome::Sent => {
                            report.sent += 1;
                            report.bytes += burst.item(i).total() as u64;
                        }
                        Outcome::Refused => report.refused += 1,
                        Outcome::Full => {
                            report.full = frames - report.total();
                            break;
                        }
                    }
                }
                Ok(())
            });
            if let Err(reason) = outcome {
                lane.fail(reason, &self.alarm);
            }
            lane.publish();
        }
        report.down = frames - report.total();
        self.seat.leave();
        report
    }
}
