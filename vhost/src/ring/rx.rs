//! Receiving what a guest transmits.
//!
//! The head of a frame is copied out of the guest's memory once and only the copy is believed; the payload stays
//! where it is and is lent (a short frame, and one in too many pieces, is copied whole). The chains go back to the
//! guest at the end of the burst. From `receive` to `release` the worker sits in the [`seat`](crate::seat), so
//! neither ring nor memory can go away under a batch.
#![allow(unsafe_code)]

use std::sync::Arc;

use pmd::arena::HEADROOM;
use pmd::batch::{HEAD, Scratch};
use pmd::{BATCH, Batch, Fault, MAX_FRAME, Pool, RxMemory, RxQueue, Source, virtio};

use super::access::{Access, Direct};
use super::split::{Cursor, Split};
use super::{Alarm, Direction, Lane, Piece};
use crate::event::Bell;
use crate::seat::Occupant;

/// Shorter frames than an Ethernet header are none.
const ETHERNET: usize = 14;

/// Pieces that a lent frame has at most behind its head: what a batch has room for, for each of its frames.
const PIECES: usize = 17;

/// Scratch memory that any frame fits into, copied whole.
const WHOLE: usize = HEADROOM + MAX_FRAME + 64;

/// An rx queue over a ring of the guest's frames.
pub struct Rx<A: Access = Direct> {
    seat: Occupant<Lane<A>>,
    bell: Arc<Bell>,
    alarm: Arc<Alarm>,
    pieces: Vec<Piece>,
    /// Chains of this burst.
    heads: Vec<u16>,
}

impl<A: Access> Rx<A> {
    /// A queue over what is put into `seat`; `bell` rings when the guest kicks or something is put there.
    pub fn new(seat: Occupant<Lane<A>>, bell: Arc<Bell>, alarm: Arc<Alarm>) -> Rx<A> {
        let pieces = Vec::with_capacity(2 * super::CHAIN as usize);
        Rx { seat, bell, alarm, pieces, heads: Vec::with_capacity(BATCH) }
    }

    /// Gives the burst's chains back.
    #[inline]
    fn finish(&mut self) {
        if let Some(lane) = self.seat.current() {
            if !self.heads.is_empty() {
                self.heads.drain(..).for_each(|head| lane.ring.complete(head, 0));
                lane.publish();
            }
            self.seat.leave();
        }
    }
}

/// Reads one frame of `bytes` bytes, header included, and adds it to the batch.
#[inline]
fn push<'q, A: Access>(
    ring: &mut Split<A>,
    header_bytes: usize,
    pieces: &[Piece],
    bytes: u64,
    batch: &mut Batch<'q>,
    scratch: &mut Scratch<'q>,
) {
    let len = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_sub(header_bytes);
    if len < ETHERNET {
        batch.refused_mut().bad_offload += 1;
        return;
    }
    if len > MAX_FRAME {
        batch.refused_mut().too_long += 1;
        return;
    }
    let mut cursor = Cursor::new(pieces);
    let mut header = [0; virtio::HEADER];
    ring.read(&mut cursor, &mut header[..header_bytes]);
    let Ok(offload) = virtio::decode(&header, len) else {
        batch.refused_mut().bad_offload += 1;
        return;
    };
    let private = if cursor.left() > PIECES { len } else { len.min(HEAD) };
    let head = scratch.take(HEADROOM + private);
    ring.read(&mut cursor, &mut head[HEADROOM..]);
    batch.push_private(head, HEADROOM, offload);
    while let Some(piece) = cursor.next(u32::MAX) {
        // SAFETY: a piece of a chain lies in the ring's memory, which stays mapped while the worker is in the
        // seat: until `release`, which the borrow of the batch keeps from being called while the batch lives.
        unsafe { batch.append_foreign(piece.start, piece.bytes) };
    }
}

impl<A: Access> RxQueue for Rx<A> {
    fn source(&self) -> Source<'_> {
        Source::Ring(self.bell.fd())
    }

    fn receive<'q>(
        &'q mut self,
        memory: &'q mut RxMemory,
        _pool: &mut Pool,
        limit: usize,
    ) -> Result<Batch<'q>, Fault> {
        self.finish();
        let (mut batch, mut scratch) = memory.lend();
        let Some(lane) = self.seat.enter() else { return Ok(batch) };
        if lane.broken.is_some() {
            self.seat.leave();
            return Ok(batch);
        }
        lane.ring.hush();
        let header = lane.terms.header;
        let outcome = lane.ring.waiting().and_then(|waiting| {
            for _ in 0..usize::from(waiting).min(limit).min(BATCH) {
                if scratch.rest().len() < WHOLE {
                    break;
                }
                self.pieces.clear();
                let chain = lane.ring.chain(Direction::Read, &mut self.pieces)?;
                self.heads.push(chain.head);
                push(&mut lane.ring, header, &self.pieces, chain.bytes, &mut batch, &mut scratch);
            }
            Ok(())
        });
        if let Err(reason) = outcome {
            lane.fail(reason, &self.alarm);
        }
        if batch.is_blank() {
            self.finish();
        }
        Ok(batch)
    }

    fn release(&mut self, _pool: &mut Pool) {
        self.finish();
    }

    fn arm(&mut self) -> bool {
        self.finish();
        // First: a kick that comes from now on is heard.
        self.bell.hush();
        let there = self.seat.enter().is_some_and(|lane| lane.broken.is_none() && lane.ring.arm());
        self.seat.leave();
        there
    }
}
