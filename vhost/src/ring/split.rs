//! The split virtqueue, device side: Virtual I/O Device 1.2, section 2.7.
//!
//! Three tables in shared memory: descriptors, which name buffers and chain them; the available ring, in which the
//! driver hands chains to us; the used ring, in which we hand them back. [`Split::take`] takes what is available, a
//! batch at a time, [`Split::complete`] gives chains back, in order, and [`Split::publish`] shows that to the driver
//! by one store. As chains are completed in the order in which they became available, the used index is also where a
//! successor of ours would go on.
//!
//! Every field of the ring is loaded once and checked before it is used; all that bounds the work (the ring's
//! size, our own positions, the burst's budget) is private.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use pmd::prefetch::for_writing;

use super::access::{Access, Direct};
use super::reach::{DESCRIPTOR, INDIRECT, NEXT, Reach, WRITE, longest};
use super::taken::{Chain, Piece, Taken};
use super::{BadRing, Direction, Layout, RING, Virtqueue};
use crate::memory::GuestMemory;

/// Section 2.7.6, flags of the available ring: do not call.
const NO_INTERRUPT: u16 = 1;
/// Section 2.7.8, flags of the used ring: do not kick.
const NO_NOTIFY: u16 = 1;

/// The device side of a split virtqueue.
pub struct Split<A = Direct> {
    reach: Reach<A>,
    /// Entries, less one.
    mask: usize,
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
    /// What it was shown when it was last asked whether it wants to be called.
    asked: u16,
    /// Whether events are suppressed by index (`VIRTIO_F_EVENT_IDX`, section 2.7.7) and not by flag.
    event_index: bool,
    /// The driver was asked to kick.
    armed: bool,
}

// SAFETY: the pointers are into the reach's memory, which lives as long; one thread at a time has the value.
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
            mask: usize::from(size) - 1,
            descriptors: descriptors.cast(),
            available: available.cast(),
            used: used.cast(),
            next: 0,
            seen: 0,
            done: 0,
            published: 0,
            asked: 0,
            event_index,
            armed: true,
            reach: Reach::new(memory, access),
        };
        // SAFETY: within the used ring, aligned.
        let position = unsafe { split.reach.access.load(split.used.add(1)) };
        (split.next, split.seen, split.done) = (position, position, position);
        (split.published, split.asked) = (position, position);
        split.hush();
        Ok(split)
    }

    /// Where the ring stands: chains that were taken and completed, modulo 2^16.
    pub fn position(&self) -> u16 {
        self.done
    }

    /// Looks how many chains wait.
    #[inline]
    fn look(&mut self) -> Result<u16, BadRing> {
        // SAFETY: within the available ring, aligned.
        let seen = unsafe { self.reach.access.load(self.available.add(1)) };
        // What is taken and not given back is part of what the ring holds.
        let held = seen.wrapping_sub(self.done);
        if usize::from(held) > self.mask + 1 {
            return Err(BadRing::Overrun(held));
        }
        // Only now: who looks before he sleeps leaves it to the next burst to say what is wrong.
        self.seen = seen;
        Ok(self.seen.wrapping_sub(self.next))
    }

    /// Takes chains as long as each is one buffer that lies together: nearly all of them. Gives their number.
    #[inline(never)] // a loop with registers of its own
    fn take_buffers(&mut self, direction: Direction, most: usize, taken: &mut Taken) -> usize {
        let flags = if direction == Direction::Write { WRITE } else { 0 };
        // Nothing of the loop waits for what it has just stored.
        let (mask, available, descriptors, next) = (self.mask, self.available, self.descriptors, self.next);
        let (mut hint, mut count) = (self.reach.hint, 0);
        for place in taken.room(most.min(self.reach.budget as usize)) {
            let slot = usize::from(next.wrapping_add(count as u16)) & mask;
            // SAFETY: below the size: within the available ring, aligned.
            let head = unsafe { self.reach.access.load(available.add(2 + slot)) };
            if usize::from(head) > mask {
                break;
            }
            // SAFETY: the head is below the table's entries, aligned.
            let raw = unsafe { self.reach.look(descriptors.add(head.into())) };
            if raw.third & (NEXT | WRITE | INDIRECT) != flags {
                break;
            }
            let Some(start) = self.reach.whole(&mut hint, raw, direction) else { break };
            *place = Chain::single(start, raw.bytes, head);
            count += 1;
        }
        taken.add(count);
        self.reach.budget -= count as u32;
        self.reach.hint = hint;
        self.next = next.wrapping_add(count as u16);
        count
    }

    /// Takes the next chain, whatever it is.
    #[inline(never)]
    fn take_chain(&mut self, direction: Direction, taken: &mut Taken) -> Result<(), BadRing> {
        let slot = usize::from(self.next) & self.mask;
        // SAFETY: below the size: within the available ring, aligned.
        let head = unsafe { self.reach.access.load(self.available.add(2 + slot)) };
        if usize::from(head) > self.mask {
            return Err(BadRing::Head(head));
        }
        taken.push_chain(|pieces| self.walk(head, direction, pieces).map(|()| (head, 1)))?;
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Adds the pieces of the chain at `head`.
    fn walk(&mut self, head: u16, direction: Direction, pieces: &mut Vec<Piece>) -> Result<(), BadRing> {
        let (mut table, mut entries, mut at) = (self.descriptors, self.mask as u32 + 1, head);
        let (mut left, mut indirect) = (longest(entries), false);
        loop {
            left = left.checked_sub(1).ok_or(BadRing::Long(longest(entries)))?;
            // SAFETY: `at` is below the table's entries, which lie together and aligned.
            let raw = unsafe { self.reach.descriptor(table.add(at.into())) }?;
            let (flags, next) = (raw.third, raw.fourth);
            if flags & INDIRECT != 0 {
                if indirect || flags & NEXT != 0 {
                    return Err(BadRing::Indirect(raw.bytes));
                }
                (table, entries) = self.reach.table(raw.address, raw.bytes)?;
                (at, left, indirect) = (0, longest(entries), true);
                continue;
            }
            self.reach.buffer((raw.address, raw.bytes), flags, direction, pieces)?;
            if flags & NEXT == 0 {
                return Ok(());
            }
            if u32::from(next) >= entries {
                return Err(BadRing::Next(next));
            }
            at = next;
        }
    }

    fn store_flags(&mut self, flags: u16) {
        // SAFETY: the first word of the used ring, aligned.
        unsafe { AtomicU16::from_ptr(self.used.as_ptr()) }.store(flags.to_le(), Ordering::Relaxed);
    }

    fn store_event(&mut self, index: u16) {
        // SAFETY: the word after the used ring's entries, aligned.
        let event = unsafe { AtomicU16::from_ptr(self.used.add(2 + 4 * (self.mask + 1)).as_ptr()) };
        event.store(index.to_le(), Ordering::Relaxed);
    }

    /// Writes the used entry of chain `head` (section 2.7.8) at position `done`.
    #[inline]
    fn give(&mut self, done: u16, head: u16, written: u32) {
        let slot = usize::from(done) & self.mask;
        let entry = u64::from(head) | u64::from(written) << 32;
        // SAFETY: `slot` is below the size: within the used ring. Entries are aligned to 4 only.
        unsafe { self.used.add(2 + 4 * slot).cast::<u64>().write_unaligned(entry.to_le()) };
    }
}

impl<A: Access> Virtqueue for Split<A> {
    type Access = A;

    #[inline]
    fn begin(&mut self) {
        self.reach.begin();
    }

    #[inline]
    fn take(&mut self, direction: Direction, most: usize, taken: &mut Taken) -> Result<(), BadRing> {
        let mut waiting = self.seen.wrapping_sub(self.next);
        if usize::from(waiting) < most {
            waiting = self.look()?;
        }
        let mut left = most.min(waiting.into());
        while left > 0 {
            left -= self.take_buffers(direction, left, taken);
            if left > 0 {
                self.take_chain(direction, taken)?;
                left -= 1;
            }
        }
        Ok(())
    }

    #[inline]
    fn complete(&mut self, chain: Chain, written: u32) {
        self.give(self.done, chain.id, written);
        self.done = self.done.wrapping_add(1);
    }

    #[inline]
    fn give_back(&mut self, chains: &[Chain]) {
        let mut done = self.done;
        for chain in chains {
            self.give(done, chain.id, 0);
            done = done.wrapping_add(1);
        }
        self.done = done;
    }

    #[inline]
    fn completed(&self) -> u16 {
        self.done
    }

    #[inline]
    fn foresee(&self, direction: Direction) {
        let slot = usize::from(self.done) & self.mask;
        for_writing(self.used.as_ptr().wrapping_add(2 + 4 * slot).cast());
        if direction == Direction::Read {
            for_writing(self.used.as_ptr().cast());
        }
    }

    #[inline]
    fn publish(&mut self, end: u16) -> bool {
        if end == self.published {
            return false;
        }
        self.published = end;
        // SAFETY: within the used ring, aligned. Release: the entries, and the frames, are there before.
        unsafe { AtomicU16::from_ptr(self.used.add(1).as_ptr()) }.store(end.to_le(), Ordering::Release);
        true
    }

    #[inline]
    fn wants_call(&mut self) -> bool {
        let (before, end) = (std::mem::replace(&mut self.asked, self.published), self.published);
        // The driver turns its wish on, then looks at the index; we the other way round (section 2.7.10).
        fence(Ordering::SeqCst);
        if self.event_index {
            // SAFETY: the word after the available ring's entries, aligned.
            let event = unsafe { self.reach.access.load(self.available.add(3 + self.mask)) };
            // Whether the event lies in `before..end`, modulo 2^16.
            end.wrapping_sub(event).wrapping_sub(1) < end.wrapping_sub(before)
        } else {
            // SAFETY: the first word of the available ring.
            let flags = unsafe { self.reach.access.load(self.available) };
            flags & NO_INTERRUPT == 0
        }
    }

    fn arm(&mut self) -> bool {
        self.armed = true;
        if self.event_index {
            self.store_event(self.next);
        } else {
            self.store_flags(0);
        }
        fence(Ordering::SeqCst);
        let there = self.look() != Ok(0);
        if there {
            self.hush();
        }
        there
    }

    #[inline]
    fn hush(&mut self) {
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

    #[inline]
    fn access(&mut self) -> &mut A {
        &mut self.reach.access
    }
}
