//! The split virtqueue, device side: Virtual I/O Device 1.2, section 2.7.
//!
//! Three tables in shared memory: descriptors, which name buffers and chain them; the available ring, in which the
//! driver hands chains to us; the used ring, in which we hand them back. Per burst [`Split::waiting`] looks once at
//! how much there is, [`Split::chain`] takes chains one by one, [`Split::complete`] gives them back, in order, and
//! [`Split::publish`] shows that to the driver by one store. As chains are completed in the order in which they
//! became available, the used index is also where a successor of ours would go on.
//!
//! Every field of the ring is loaded once and checked before it is used; all that bounds the work (the ring's
//! size, our own positions, the burst's budget) is private.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use super::access::{Access, Direct};
use super::{BURST_DESCRIPTORS, BadRing, CHAIN, Chain, Direction, Piece, RING};
use crate::memory::{GuestMemory, Hint};

/// Section 2.7.5: the chain goes on, the buffer is for us to write, the buffer is a table of descriptors.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Section 2.7.6, flags of the available ring: do not call.
const NO_INTERRUPT: u16 = 1;
/// Section 2.7.8, flags of the used ring: do not kick.
const NO_NOTIFY: u16 = 1;

/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;

/// Where a ring lies, as the front end says it: in its own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Entries.
    pub size: u32,
    /// The descriptor table.
    pub descriptors: u64,
    /// The available ring.
    pub available: u64,
    /// The used ring.
    pub used: u64,
}

/// The device side of a split virtqueue.
pub struct Split<A = Direct> {
    memory: Arc<GuestMemory>,
    access: A,
    hint: Hint,
    size: u16,
    descriptors: NonNull<[u64; 2]>,
    available: NonNull<u16>,
    used: NonNull<u16>,
    /// The next chain to take.
    next: u16,
    /// The available index as it was seen last.
    seen: u16,
    /// The next used entry to write.
    done: u16,
    /// What the driver was shown last.
    published: u16,
    /// Whether events are suppressed by index (`VIRTIO_F_EVENT_IDX`, section 2.7.7) and not by flag.
    event_index: bool,
    /// The driver was asked to kick.
    armed: bool,
    /// Descriptors that may still be looked at in this burst.
    budget: u32,
}

// SAFETY: the pointers are into `memory`, which lives as long; one thread at a time has the value.
unsafe impl<A: Send> Send for Split<A> {}

impl<A: Access> Split<A> {
    /// A ring of `memory` at `layout`. It goes on where the used index says that it stopped.
    ///
    /// # Errors
    /// No size of a ring, a part that does not lie in the memory.
    pub fn new(
        memory: Arc<GuestMemory>,
        layout: &Layout,
        event_index: bool,
        access: A,
    ) -> Result<Split<A>, BadRing> {
        let size = u16::try_from(layout.size).ok().filter(|size| size.is_power_of_two() && *size <= RING);
        let size = size.ok_or(BadRing::Size(layout.size))?;
        let entries = u64::from(size);
        let place = |part, address, bytes, align| {
            memory.user(address, bytes, align).ok_or(BadRing::Place { part, address })
        };
        // Flags and index before the entries, the other side's event index after them (sections 2.7.6 and 2.7.8).
        let descriptors = place("descriptor table", layout.descriptors, DESCRIPTOR * entries, 16)?;
        let available = place("available ring", layout.available, 4 + 2 * entries + 2, 2)?;
        let used = place("used ring", layout.used, 4 + 8 * entries + 2, 4)?;
        let mut split = Split {
            access,
            hint: Hint::default(),
            size,
            descriptors: descriptors.cast(),
            available: available.cast(),
            used: used.cast(),
            next: 0,
            seen: 0,
            done: 0,
            published: 0,
            event_index,
            armed: true,
            budget: 0,
            memory,
        };
        // SAFETY: within the used ring, aligned.
        let position = unsafe { split.access.load(split.used.add(1)) };
        (split.next, split.seen, split.done, split.published) = (position, position, position, position);
        split.hush();
        Ok(split)
    }

    /// Where the ring stands: chains that were taken and completed, modulo 2^16.
    pub fn position(&self) -> u16 {
        self.done
    }

    /// Begins a burst: how many chains wait.
    ///
    /// # Errors
    /// More than the ring holds.
    #[inline]
    pub fn waiting(&mut self) -> Result<u16, BadRing> {
        self.budget = BURST_DESCRIPTORS;
        // SAFETY: within the available ring, aligned.
        self.seen = unsafe { self.access.load(self.available.add(1)) };
        let waiting = self.seen.wrapping_sub(self.next);
        if waiting > self.size { Err(BadRing::Overrun(waiting)) } else { Ok(waiting) }
    }

    /// Takes the next chain, of which there is one: adds its buffers to `pieces`.
    ///
    /// # Errors
    /// It is no chain. What was added to `pieces` means nothing then.
    #[inline]
    pub fn chain(&mut self, direction: Direction, pieces: &mut Vec<Piece>) -> Result<Chain, BadRing> {
        let slot = usize::from(self.next & (self.size - 1));
        // SAFETY: `slot` is below the size: within the available ring, aligned.
        let head = unsafe { self.access.load(self.available.add(2 + slot)) };
        if head >= self.size {
            return Err(BadRing::Head(head));
        }
        self.next = self.next.wrapping_add(1);
        let mut chain = Chain { head, bytes: 0 };
        let (mut table, mut entries, mut at) = (self.descriptors, u32::from(self.size), head);
        let (mut left, mut indirect) = (entries.min(CHAIN), false);
        loop {
            left = left.checked_sub(1).ok_or(BadRing::Long(entries.min(CHAIN)))?;
            self.budget = self.budget.checked_sub(1).ok_or(BadRing::Work)?;
            // SAFETY: `at` is below the table's entries, which lie together and aligned.
            let [address, words] = unsafe { self.access.descriptor(table.add(at.into())) };
            let (bytes, flags, next) = (words as u32, (words >> 32) as u16, (words >> 48) as u16);
            if flags & INDIRECT != 0 {
                if indirect || flags & NEXT != 0 {
                    return Err(BadRing::Indirect(bytes));
                }
                (table, entries) = self.table(address, bytes)?;
                (at, left, indirect) = (0, entries.min(CHAIN), true);
                continue;
            }
            let writable = flags & WRITE != 0;
            if writable != (direction == Direction::Write) {
                return Err(BadRing::Direction { writable });
            }
            self.buffer(address, bytes, pieces)?;
            chain.bytes += u64::from(bytes);
            if flags & NEXT == 0 {
                return Ok(chain);
            }
            if u32::from(next) >= entries {
                return Err(BadRing::Next(next));
            }
            at = next;
        }
    }

    /// An indirect table (section 2.7.5.3): where it is, and how many entries it has.
    fn table(&mut self, address: u64, bytes: u32) -> Result<(NonNull<[u64; 2]>, u32), BadRing> {
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

    /// Adds a buffer, in several pieces if it reaches over more than one region.
    #[inline]
    fn buffer(&mut self, mut address: u64, bytes: u32, pieces: &mut Vec<Piece>) -> Result<(), BadRing> {
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

    /// Gives back the last `count` chains that were taken and not completed: they are taken again later.
    #[inline]
    pub fn untake(&mut self, count: u16) {
        self.next = self.next.wrapping_sub(count);
    }

    /// Completes a chain, of which `written` bytes were written (section 2.7.8); in the order in which they were
    /// taken. The driver sees it after [`publish`](Self::publish).
    #[inline]
    pub fn complete(&mut self, head: u16, written: u32) {
        let slot = usize::from(self.done & (self.size - 1));
        let entry = u64::from(head) | u64::from(written) << 32;
        // SAFETY: `slot` is below the size: within the used ring. Entries are aligned to 4 only.
        unsafe { self.used.add(2 + 4 * slot).cast::<u64>().write_unaligned(entry.to_le()) };
        self.done = self.done.wrapping_add(1);
    }

    /// Shows the driver what was completed. True if it wants to be called for that.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let before = self.published;
        if self.done == before {
            return false;
        }
        self.published = self.done;
        // SAFETY: within the used ring, aligned. Release: the entries, and the frames, are there before.
        unsafe { AtomicU16::from_ptr(self.used.add(1).as_ptr()) }.store(self.done.to_le(), Ordering::Release);
        // The driver turns its wish on, then looks at the index; we the other way round (section 2.7.10).
        fence(Ordering::SeqCst);
        if self.event_index {
            // SAFETY: the word after the available ring's entries, aligned.
            let event = unsafe { self.access.load(self.available.add(2 + usize::from(self.size))) };
            // Whether the event lies in `before..done`, modulo 2^16.
            self.done.wrapping_sub(event).wrapping_sub(1) < self.done.wrapping_sub(before)
        } else {
            // SAFETY: the first word of the available ring.
            let flags = unsafe { self.access.load(self.available) };
            flags & NO_INTERRUPT == 0
        }
    }

    /// Asks the driver to kick when it makes something available. True if there is something already.
    pub fn arm(&mut self) -> bool {
        self.armed = true;
        if self.event_index {
            self.store_event(self.next);
        } else {
            self.store_flags(0);
        }
        fence(Ordering::SeqCst);
        let there = self.waiting() != Ok(0);
        if there {
            self.hush();
        }
        there
    }

    /// Asks the driver not to kick.
    #[inline]
    pub fn hush(&mut self) {
        if !self.armed {
            return;
        }
        self.armed = false;
        // With event indices the flag means nothing (section 2.7.7.1), and an index that stays behind asks for one
        // kick in 65,536 chains.
        if !self.event_index {
            self.store_flags(NO_NOTIFY);
        }
    }

    fn store_flags(&mut self, flags: u16) {
        // SAFETY: the first word of the used ring, aligned.
        unsafe { AtomicU16::from_ptr(self.used.as_ptr()) }.store(flags.to_le(), Ordering::Relaxed);
    }

    fn store_event(&mut self, index: u16) {
        // SAFETY: the word after the used ring's entries, aligned.
        let event = unsafe { AtomicU16::from_ptr(self.used.add(2 + 4 * usize::from(self.size)).as_ptr()) };
        event.store(index.to_le(), Ordering::Relaxed);
    }

    /// Copies the first bytes of `pieces` to private memory, from byte `from` on; fewer if there are fewer.
    #[inline]
    pub(crate) fn read(&mut self, cursor: &mut Cursor<'_>, mut to: &mut [u8]) {
        while !to.is_empty() {
            let Some(piece) = cursor.next(to.len() as u32) else { return };
            let (now, later) = to.split_at_mut(piece.bytes as usize);
            // SAFETY: a piece of a chain of this ring lies in its memory, which is mapped.
            unsafe { self.access.copy(piece.start, now) };
            to = later;
        }
    }
}

/// Takes pieces off the front of a list of pieces.
pub(crate) struct Cursor<'p> {
    pieces: &'p [Piece],
    /// Bytes of the first piece that are taken.
    taken: u32,
}

impl<'p> Cursor<'p> {
    pub(crate) fn new(pieces: &'p [Piece]) -> Cursor<'p> {
        Cursor { pieces, taken: 0 }
    }

    /// The next bytes that lie together, at most `most` and at least one. `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self, most: u32) -> Option<Piece> {
        let [first, rest @ ..] = self.pieces else { return None };
        // SAFETY: less of the piece is taken than it holds.
        let start = unsafe { first.start.add(self.taken as usize) };
        let bytes = (first.bytes - self.taken).min(most);
        self.taken += bytes;
        if self.taken == first.bytes {
            (self.pieces, self.taken) = (rest, 0);
        }
        Some(Piece { start, bytes })
    }

    /// Into how many pieces what is left falls.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.pieces.len()
    }

    /// Writes `bytes` of foreign or private memory at `from` behind the cursor.
    ///
    /// # Safety
    /// The bytes are readable, and the cursor's pieces are writable buffers that are mapped. They may overlap.
    #[inline]
    pub(crate) unsafe fn write(&mut self, mut from: NonNull<u8>, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let Some(piece) = self.next(left.min(u32::MAX as usize) as u32) else { return };
            let now = piece.bytes as usize;
            // SAFETY: readable and writable, says the caller. Two guests, or one, may have named the same bytes.
            unsafe {
                std::ptr::copy(from.as_ptr(), piece.start.as_ptr(), now);
                from = from.add(now);
            }
            left -= now;
        }
    }
}
