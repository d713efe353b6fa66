//! What a ring reaches: the guest's memory, through descriptors that the guest has written.
//!
//! Both kinds of ring turn descriptors into [`Piece`]s here. Every address is checked against the memory that is
//! shared; how many descriptors are looked at in one burst is bounded.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use super::access::Access;
use super::taken::Piece;
use super::{BURST_DESCRIPTORS, BadRing, CHAIN, Direction};
use crate::memory::{GuestMemory, Hint};

/// Flags of a descriptor, the same for both kinds of ring (sections 2.7.5 and 2.8.13): the chain goes on, the
/// buffer is for us to write, the buffer is a table of descriptors.
pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR: u64 = 16;

/// Bytes of a line that is fetched at once.
const LINE: usize = 64;

/// The first two words of a descriptor's second half; what the last one means depends on the ring.
#[derive(Clone, Copy)]
pub(super) struct Raw {
    pub address: u64,
    pub bytes: u32,
    /// Split: the flags; packed: the buffer's id.
    pub third: u16,
    /// Split: the next descriptor; packed: the flags.
    pub fourth: u16,
}

/// A guest's memory, and what may be spent on looking at it.
pub(super) struct Reach<A> {
    memory: Arc<GuestMemory>,
    /// Where the last address was.
    pub hint: Hint,
    pub access: A,
    /// Descriptors that may still be looked at in this burst.
    pub budget: u32,
}

impl<A: Access> Reach<A> {
    pub fn new(memory: Arc<GuestMemory>, access: A) -> Reach<A> {
        Reach { memory, hint: Hint::default(), access, budget: BURST_DESCRIPTORS }
    }

    /// Begins a burst.
    #[inline]
    pub fn begin(&mut self) {
        self.budget = BURST_DESCRIPTORS;
    }

    /// Loads a descriptor.
    ///
    /// # Errors
    /// Too many in this burst.
    ///
    /// # Safety
    /// 16 bytes are mapped, readable and aligned to 8.
    #[inline]
    pub unsafe fn descriptor(&mut self, at: NonNull<[u64; 2]>) -> Result<Raw, BadRing> {
        self.budget = self.budget.checked_sub(1).ok_or(BadRing::Work)?;
        // SAFETY: as the caller says.
        Ok(unsafe { self.look(at) })
    }

    /// Loads a descriptor without counting it: the caller does.
    ///
    /// # Safety
    /// As for [`descriptor`](Self::descriptor).
    #[inline]
    pub unsafe fn look(&mut self, at: NonNull<[u64; 2]>) -> Raw {
        // SAFETY: as the caller says.
        let [address, words] = unsafe { self.access.descriptor(at) };
        Raw { address, bytes: words as u32, third: (words >> 32) as u16, fourth: (words >> 48) as u16 }
    }

    /// Where the buffer at `address` lies, if all of it lies together, as of nearly every one. It is fetched: to be
    /// read, or to be written. `hint` is [`Self::hint`], in registers of the caller.
    #[inline(always)]
    pub fn whole(&mut self, hint: &mut Hint, raw: Raw, direction: Direction) -> Option<NonNull<u8>> {
        let Raw { address, bytes, .. } = raw;
        let start = match hint.whole(address, bytes) {
            Some(start) => start,
            None => {
                let (start, together) = self.memory.guest(hint, address, bytes.into())?;
                (together == u64::from(bytes)).then_some(start)?
            }
        };
        // The header and the frame's first bytes: two lines. An address past a short buffer's end does no harm.
        for line in [start.as_ptr(), start.as_ptr().wrapping_add(LINE)] {
            match direction {
                Direction::Read => pmd::prefetch::for_reading(line),
                Direction::Write => pmd::prefetch::for_writing(line),
            }
        }
        Some(start)
    }

    /// Adds the buffer of a descriptor with these flags, in several pieces if it reaches over more than one region.
    pub fn buffer(
        &mut self,
        (mut address, bytes): (u64, u32),
        flags: u16,
        direction: Direction,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), BadRing> {
        let writable = flags & WRITE != 0;
        if writable != (direction == Direction::Write) {
            return Err(BadRing::Direction { writable });
        }
        let mut left = u64::from(bytes);
        while left > 0 {
            let bad = BadRing::Address { address, bytes };
            let (start, together) = self.memory.guest(&mut self.hint, address, left).ok_or(bad)?;
            pieces.push(Piece { start, bytes: together as u32 });
            left -= together;
            // A region ends where the address space does at the latest; what is left then is in no region.
            address = address.wrapping_add(together);
        }
        Ok(())
    }

    /// An indirect table (sections 2.7.5.3 and 2.8.7): where it is, and how many entries it has.
    pub fn table(&mut self, address: u64, bytes: u32) -> Result<(NonNull<[u64; 2]>, u32), BadRing> {
        let wanted = u64::from(bytes);
        if bytes == 0 || !wanted.is_multiple_of(DESCRIPTOR) {
            return Err(BadRing::Indirect(bytes));
        }
        let place = self.memory.guest(&mut self.hint, address, wanted);
        match place {
            Some((start, together)) if together == wanted && (start.as_ptr() as usize).is_multiple_of(8) => {
                Ok((start.cast(), bytes / DESCRIPTOR as u32))
            }
            _ => Err(BadRing::Address { address, bytes }),
        }
    }
}

/// How many descriptors a chain in a table of `entries` has at most.
pub(super) fn longest(entries: u32) -> u32 {
    entries.min(CHAIN)
}
