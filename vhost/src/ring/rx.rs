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
use pmd::offload::Packed;
use pmd::{BATCH, Batch, Fault, MAX_FRAME, Pool, RxMemory, RxQueue, Source, virtio};

use super::access::{Access, Direct};
use super::cursor::Cursor;
use super::taken::{Chain, Piece, Taken};
use super::{Alarm, BadRing, Direction, Lane, Ring, Virtqueue, with_ring};
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
}

impl<A: Access> Rx<A> {
    /// A queue over what is put into `seat`; `bell` rings when the guest kicks or something is put there.
    pub fn new(seat: Occupant<Lane<A>>, bell: Arc<Bell>, alarm: Arc<Alarm>) -> Rx<A> {
        Rx { seat, bell, alarm }
    }

    /// Gives the burst's chains back.
    #[inline]
    fn finish(&mut self) {
        if let Some(lane) = self.seat.current() {
            if !lane.taken.used().is_empty() {
                with_ring!(&mut lane.ring, ring => ring.give_back(lane.taken.used()));
                lane.taken.forget_used();
                lane.show();
            }
            self.seat.leave();
        }
    }
}

/// Takes frames from the ring and adds them to the batch, as long as there is room.
#[inline]
fn take<'q, V: Virtqueue>(
    ring: &mut V,
    taken: &mut Taken,
    header: usize,
    limit: usize,
    batch: &mut Batch<'q>,
    scratch: &mut Scratch<'q>,
) -> Result<(), BadRing> {
    ring.begin();
    let outcome = match limit.checked_sub(taken.left().len()) {
        Some(more @ 1..) => ring.take(Direction::Read, more, taken),
        _ => Ok(()),
    };
    // What came before a chain that is none is received.
    let mut left = taken.left().len().min(limit);
    if left > 0 {
        ring.foresee(Direction::Read);
    }
    while left > 0 && scratch.rest().len() >= WHOLE {
        let run = push_short(ring.access(), header, &taken.left()[..left], batch, scratch);
        taken.advance(run);
        left -= run;
        if let Some(&chain) = taken.left().first().filter(|_| left > 0 && scratch.rest().len() >= WHOLE) {
            push(ring.access(), header, taken.pieces_of(chain), chain.bytes, batch, scratch);
            taken.advance(1);
            left -= 1;
        }
    }
    outcome
}

/// Takes frames from the ring and throws them away: all that is done with what comes on a ring that is disabled ("Ring
/// states" in vhost-user.rst). Gives their number.
#[cold]
fn discard<V: Virtqueue>(ring: &mut V, taken: &mut Taken, limit: usize) -> (u32, Result<(), BadRing>) {
    ring.begin();
    let outcome = ring.take(Direction::Read, limit, taken);
    let frames = taken.left().len();
    taken.advance(frames);
    (frames as u32, outcome)
}

/// Reads frames as long as each lies together, is all head, and has a header that says nothing. Gives their number.
#[inline(never)] // a loop with registers of its own
fn push_short<'q, A: Access>(
    access: &mut A,
    header_bytes: usize,
    chains: &[Chain],
    batch: &mut Batch<'q>,
    scratch: &mut Scratch<'q>,
) -> usize {
    let mut frames = 0;
    for chain in chains {
        let len = (chain.bytes as usize).wrapping_sub(header_bytes);
        if !(ETHERNET..=HEAD).contains(&len) || !chain.is_single() || scratch.rest().len() < WHOLE {
            break;
        }
        let mut header = [0; virtio::SHORT_HEADER];
        // SAFETY: the chain lies in the ring's memory, which is mapped, and holds the header and `len` bytes more.
        unsafe { access.copy(chain.start, &mut header) };
        if header[..2] != [0, 0] {
            break;
        }
        let head = scratch.take(HEADROOM + len);
        // SAFETY: as above.
        unsafe { access.copy(chain.start.add(header_bytes), &mut head[HEADROOM..]) };
        batch.push_private(head, HEADROOM, Packed::NONE);
        frames += 1;
    }
    frames
}

/// Reads one frame of `bytes` bytes, header included, and adds it to the batch.
#[inline(never)]
fn push<'q, A: Access>(
    access: &mut A,
    header_bytes: usize,
    pieces: &[Piece],
    bytes: u32,
    batch: &mut Batch<'q>,
    scratch: &mut Scratch<'q>,
) {
    let len = (bytes as usize).saturating_sub(header_bytes);
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
    cursor.read(access, &mut header[..header_bytes]);
    let Ok(offload) = virtio::decode(&header, len) else {
        batch.refused_mut().bad_offload += 1;
        return;
    };
    let private = if cursor.left() > PIECES { len } else { len.min(HEAD) };
    let head = scratch.take(HEADROOM + private);
    cursor.read(access, &mut head[HEADROOM..]);
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
        if lane.broken.is_some() || self.alarm.is_raised() {
            self.seat.leave();
            return Ok(batch);
        }
        lane.call();
        let Lane { ring, taken, terms, discards, .. } = lane;
        let outcome = with_ring!(ring, ring => {
            ring.hush();
            if *discards {
                let (frames, outcome) = discard(ring, taken, limit.min(BATCH));
                batch.refused_mut().disabled += frames;
                outcome
            } else {
                take(ring, taken, terms.header, limit.min(BATCH), &mut batch, &mut scratch)
            }
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
        let there = self.seat.enter().is_some_and(|lane| {
            lane.call();
            let there = lane.broken.is_none()
                && (!lane.taken.left().is_empty() || with_ring!(&mut lane.ring, ring => ring.arm()));
            lane.mark_ring();
            there
        });
        self.seat.leave();
        there
    }
}
