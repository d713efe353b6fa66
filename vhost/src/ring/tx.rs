//! Transmitting to a guest: into the buffers that it has posted to receive into.
//!
//! A frame is copied from where it lies (private memory, the arena, another guest) straight into the guest's
//! buffers, header in front. With mergeable buffers it may fill several (Virtual I/O Device 1.2, section 5.1.6.4);
//! a frame for which the guest has posted too few is dropped. The guest sees all frames of a burst at once, when it
//! is [flushed](pmd::TxQueue::flush).
//!
//! The guest's core had the lines of a buffer last, so writing there is slow until they have moved. Buffers are
//! therefore taken, and their first lines asked for, a burst before they are needed.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use pmd::{BATCH, Burst, Features, MAX_FRAME, Pool, TxQueue, TxReport, virtio};

use super::access::{Access, Direct, copy};
use super::cursor::Cursor;
use super::dirty::Dirty;
use super::taken::Taken;
use super::{Alarm, BadRing, Direction, Lane, Ring, Terms, Virtqueue, with_ring};
use crate::seat::Occupant;

/// Buffers that are taken at a time: a burst's, and the next one's.
const STOCK: usize = 2 * BATCH;

/// A tx queue over a ring of the guest's receive buffers.
pub struct Tx<A: Access = Direct> {
    seat: Occupant<Lane<A>>,
    alarm: Arc<Alarm>,
    /// A frame whose checksum is completed on the way.
    completed: Box<[u8]>,
}

impl<A: Access> Tx<A> {
    /// A queue over what is put into `seat`.
    pub fn new(seat: Occupant<Lane<A>>, alarm: Arc<Alarm>) -> Tx<A> {
        Tx { seat, alarm, completed: vec![0; MAX_FRAME].into_boxed_slice() }
    }
}

/// What became of one frame.
enum Outcome {
    Sent,
    /// No room; nor for those behind it.
    Full,
    Refused,
}

/// A ring with its buffers, during a burst.
struct Filler<'a, V> {
    ring: &'a mut V,
    taken: &'a mut Taken,
    terms: Terms,
    completed: &'a mut [u8],
    dirty: Option<&'a Dirty>,
}

impl<V: Virtqueue> Filler<'_, V> {
    /// Sends all frames of a burst, as far as there are buffers for them.
    #[inline]
    fn send_all(&mut self, burst: &Burst<'_, '_>, report: &mut TxReport) -> Result<(), BadRing> {
        self.ring.begin();
        self.ring.foresee(Direction::Write);
        let mut at = self.send_plain(burst, 0, report);
        while at < burst.len() {
            if self.taken.left().is_empty() {
                self.restock()?;
            }
            match self.send(burst, at)? {
                Outcome::Sent => {
                    report.sent += 1;
                    report.bytes += burst.item(at).total() as u64;
                }
                Outcome::Refused => report.refused += 1,
                Outcome::Full => {
                    report.full = burst.len() as u32 - report.total();
                    break;
                }
            }
            at = self.send_plain(burst, at + 1, report);
        }
        if self.taken.left().len() < BATCH { self.restock() } else { Ok(()) }
    }

    /// Takes more buffers.
    #[inline]
    fn restock(&mut self) -> Result<(), BadRing> {
        self.taken.forget_used();
        let more = STOCK.saturating_sub(self.taken.left().len());
        self.ring.take(Direction::Write, more, self.taken)
    }

    /// Sends frames, from the one at `first` on, as long as they need nothing and fit into the next buffer: that is
    /// nearly every one, unless pages are to be noted. Gives the first that does not.
    #[inline]
    fn send_plain(&mut self, burst: &Burst<'_, '_>, first: usize, report: &mut TxReport) -> usize {
        if self.dirty.is_some() {
            return first;
        }
        let header = self.terms.header;
        // Nothing is asked of the guest; `num_buffers`, where there is one, says 1.
        let last = if header == virtio::HEADER { 1u32 << 16 } else { 0 };
        let (mut at, mut all) = (first, 0);
        for (chain, i) in self.taken.left().iter().zip(first..burst.len()) {
            let (start, Some(frame)) = (chain.start, burst.plain(i)) else { break };
            let bytes = header + frame.len();
            if !chain.is_single() || bytes > chain.bytes as usize {
                break;
            }
            // SAFETY: the buffer is in the ring's memory, which is mapped and ours to write, and has room for header
            // and frame; a header has at least ten bytes.
            unsafe {
                start.cast::<u64>().write_unaligned(0);
                start.add(header - 4).cast::<u32>().write_unaligned(last.to_le());
            }
            let mut to = header;
            frame.pieces(|from, len| {
                // SAFETY: as above; the pieces of a frame are as long as the frame. They may be the guest's own
                // buffers.
                unsafe { copy(from, start.add(to), len) };
                to += len;
            });
            self.ring.complete(*chain, bytes as u32);
            (at, all) = (at + 1, all + frame.len());
        }
        self.taken.advance(at - first);
        report.sent += (at - first) as u32;
        report.bytes += all as u64;
        at
    }

    /// Completes the next `count` buffers, which `left` bytes were written to.
    #[inline]
    fn complete(&mut self, count: usize, mut left: u32) {
        if let Some(dirty) = self.dirty {
            dirty.mark(self.taken.pieces(count), left);
        }
        for i in 0..count {
            let Some(&chain) = self.taken.left().get(i) else { break };
            let written = left.min(chain.bytes);
            self.ring.complete(chain, written);
            left -= written;
        }
        self.taken.advance(count);
    }

    /// How many buffers a frame of `wanted` bytes fills, header included; as many are taken. `None` if there are too
    /// few.
    fn reserve(&mut self, wanted: u32) -> Result<Option<usize>, BadRing> {
        let (mut room, mut count) = (0u32, 0);
        loop {
            while let Some(chain) = self.taken.left().get(count) {
                (room, count) = (room.saturating_add(chain.bytes), count + 1);
                if room >= wanted {
                    return Ok(Some(count));
                }
                if !self.terms.mergeable {
                    return Ok(None);
                }
            }
            if count >= super::CHAIN as usize {
                return Ok(None);
            }
            self.taken.forget_used();
            self.ring.take(Direction::Write, BATCH, self.taken)?;
            if self.taken.left().len() == count {
                return Ok(None);
            }
        }
    }

    /// Sends frame `i`, whatever it is.
    #[inline(never)]
    fn send(&mut self, burst: &Burst<'_, '_>, i: usize) -> Result<Outcome, BadRing> {
        // What the guest takes may have become less since the worker was told.
        if !burst.offload(i).fits(self.terms.features) {
            return Ok(Outcome::Refused);
        }
        let frame = burst.item(i).total();
        let wanted = (self.terms.header + frame) as u32;
        let Some(count) = self.reserve(wanted)? else {
            // Without mergeable buffers the next one is too short for this frame, and not for others.
            let is_short = !self.terms.mergeable && !self.taken.left().is_empty();
            return Ok(if is_short { Outcome::Refused } else { Outcome::Full });
        };
        self.fill(burst, i, frame, count);
        self.complete(count, wanted);
        Ok(Outcome::Sent)
    }

    /// Writes header and frame into the next `count` buffers.
    fn fill(&mut self, burst: &Burst<'_, '_>, i: usize, frame: usize, count: usize) {
        let mut header = virtio::encode(&burst.offload(i), burst.head(i), frame);
        if !self.terms.features.contains(Features::CHECKSUM) {
            // Section 5.1.6.4.1: without VIRTIO_NET_F_GUEST_CSUM no flag is set.
            header[0] = 0;
        }
        header[10..].copy_from_slice(&(count as u16).to_le_bytes());
        let mut cursor = Cursor::new(self.taken.pieces(count));
        // SAFETY: the pieces are buffers of chains of this ring: in its memory, which is mapped and ours to write.
        unsafe { cursor.write(NonNull::from(&header).cast(), self.terms.header) };
        let completes = burst.item(i).offload.is_partial() && !burst.packed_offload(i).is_partial();
        if completes && burst.copy_to(i, self.completed).is_some() {
            // SAFETY: as above; the frame is in private memory.
            unsafe { cursor.write(NonNull::from(&self.completed[..]).cast(), frame) };
            return;
        }
        burst.pieces(i, |start, len| {
            // SAFETY: as above; the pieces of a burst are readable as long as the burst lives.
            unsafe { cursor.write(start, len) };
        });
    }
}

impl<A: Access> Tx<A> {
    /// Sends a burst; `sender` is the number of the worker, where several send here.
    #[inline]
    pub fn send(&mut self, burst: &Burst<'_, '_>, sender: Option<u16>) -> TxReport {
        let mut report = TxReport::default();
        let frames = burst.len() as u32;
        let Some(lane) = self.seat.enter() else { return TxReport { down: frames, ..report } };
        if lane.broken.is_none() && !self.alarm.is_raised() {
            let Lane { ring, taken, terms, dirty, .. } = lane;
            let (terms, completed) = (*terms, &mut self.completed[..]);
            let outcome = with_ring!(ring, ring => {
                Filler { ring, taken, terms, completed, dirty: dirty.as_ref() }.send_all(burst, &mut report)
            });
            if let Err(reason) = outcome {
                lane.fail(reason, &self.alarm);
            }
        }
        if let Some(sender) = sender {
            lane.note(sender);
        }
        report.down = frames - report.total();
        self.seat.leave();
        report
    }

    /// Shows what was sent; all of it, or what one of several workers has sent.
    #[inline]
    pub fn show(&mut self, sender: Option<u16>) {
        if let Some(lane) = self.seat.enter() {
            match sender {
                None => lane.publish(),
                Some(sender) => lane.publish_released(sender),
            }
        }
        self.seat.leave();
    }
}

impl<A: Access> TxQueue for Tx<A> {
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, _pool: &mut Pool) -> TxReport {
        self.send(burst, None)
    }

    fn flush(&mut self) {
        self.show(None);
    }
}
