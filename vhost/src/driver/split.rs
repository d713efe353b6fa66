//! A split virtqueue, driver side: Virtual I/O Device 1.2, section 2.7.
//!
//! The parts that a ring is made of can each be written by hand; [`SplitDriver::offer`] and
//! [`SplitDriver::collect`] are the decent way, one chain at a time, and [`SplitDriver::stage`],
//! [`SplitDriver::publish`] the fast one. What is in shared memory already is not written again: a line that stays
//! as it is stays in the other side's cache.
//!
//! Descriptors and slots are counted modulo the ring's size, so whatever number comes from outside, the ring touches
//! itself only.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use pmd::prefetch::for_reading;

use super::memory::{GUEST, Outside, SharedMemory, USER};
use super::ring::{Descriptor, LINE, NEXT, checked};
use crate::ring::Layout;

/// Used entries on a cache line.
const ENTRIES: usize = 8;

/// The driver side of a split virtqueue.
pub struct SplitDriver {
    /// Keeps the ring mapped.
    _memory: Arc<SharedMemory>,
    size: u16,
    /// Offset of the descriptor table; the rings follow it.
    at: u64,
    descriptors: NonNull<AtomicU64>,
    available: NonNull<AtomicU16>,
    used: NonNull<AtomicU16>,
    /// What each descriptor holds.
    table: Box<[Descriptor]>,
    /// The next slot of the available ring.
    next: u16,
    /// What the device was shown last, and what it was when it was looked whether it wants to be kicked.
    shown: u16,
    asked: u16,
    /// The next slot of the used ring.
    collected: u16,
    /// The used index as it was seen last.
    seen: u16,
    /// Whether events are suppressed by index (`VIRTIO_F_EVENT_IDX`).
    event_index: bool,
}

// SAFETY: the pointers are into the memory that the value keeps; one thread at a time has the value.
unsafe impl Send for SplitDriver {}

impl SplitDriver {
    /// A ring of `size` entries, a power of two, at offset `at` of the memory.
    ///
    /// # Errors
    /// It is not in the memory, or not aligned to 16.
    pub fn new(memory: Arc<SharedMemory>, at: u64, size: u16) -> Result<SplitDriver, Outside> {
        let bytes = SplitDriver::bytes(size);
        let size = checked(size, at, bytes)?;
        let start = memory.place(at, bytes, 16)?;
        let part = |offset: u64| {
            // SAFETY: all `bytes` of the ring lie together, and the offset is within.
            unsafe { start.add((offset - at) as usize) }
        };
        let (available, used) = (part(available_at(at, size)).cast(), part(used_at(at, size)).cast());
        Ok(SplitDriver {
            _memory: memory,
            size,
            at,
            descriptors: start.cast(),
            available,
            used,
            table: vec![Descriptor::default(); size.into()].into(),
            next: 0,
            shown: 0,
            asked: 0,
            collected: 0,
            seen: 0,
            event_index: false,
        })
    }

    /// Bytes that a ring of `size` entries takes.
    pub fn bytes(size: u16) -> u64 {
        used_at(0, size) + (6 + 8 * u64::from(size)).next_multiple_of(LINE)
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Where it is, for the device.
    pub fn layout(&self) -> Layout {
        Layout {
            size: self.size.into(),
            descriptors: USER + self.at,
            available: USER + available_at(self.at, self.size),
            used: USER + used_at(self.at, self.size),
        }
    }

    /// Events are suppressed by index from now on, or by flag.
    pub fn set_event_index(&mut self, by_index: bool) {
        self.event_index = by_index;
    }

    /// Writes a descriptor.
    pub fn describe(&mut self, index: u16, descriptor: Descriptor) {
        let index = usize::from(index & (self.size - 1));
        self.table[index] = descriptor;
        for (i, word) in descriptor.words().into_iter().enumerate() {
            // SAFETY: the index is below the size of the table, which has two words for each entry, aligned.
            let place = unsafe { self.descriptors.add(2 * index + i).as_ref() };
            place.store(word.to_le(), Ordering::Relaxed);
        }
    }

    /// Writes a chain over `buffers` (offset, bytes), with descriptors from `first` on.
    pub fn chain(&mut self, first: u16, buffers: &[(u64, u32)], flags: u16) {
        for (i, &(offset, bytes)) in (0..).zip(buffers) {
            let last = usize::from(i) + 1 == buffers.len();
            let index = first.wrapping_add(i);
            let (flags, next) = if last { (flags, 0) } else { (flags | NEXT, index.wrapping_add(1)) };
            let address = GUEST.wrapping_add(offset);
            self.describe(index, Descriptor { address, bytes, flags, next });
        }
    }

    /// An index or a flag of the available ring: 0 are the flags, 1 is the index, the slots follow.
    #[inline]
    fn available(&self, at: u16) -> &AtomicU16 {
        // SAFETY: called with at most 2 + size, where the ring ends with the event index; aligned as the ring is.
        unsafe { self.available.add(at.into()).as_ref() }
    }

    /// The same of the used ring, whose slots take four of its numbers each.
    #[inline]
    fn used(&self, at: usize) -> &AtomicU16 {
        // SAFETY: called with at most 2 + 4 * size.
        unsafe { self.used.add(at).as_ref() }
    }

    /// Puts a chain of one descriptor into the next slot, for [`publish`](Self::publish) to show.
    #[inline]
    pub fn stage(&mut self, index: u16, descriptor: Descriptor) {
        if self.table[usize::from(index & (self.size - 1))] != descriptor {
            self.describe(index, descriptor);
        }
        self.put(index);
    }

    #[inline]
    fn put(&mut self, head: u16) {
        let slot = self.available(2 + (self.next & (self.size - 1)));
        if u16::from_le(slot.load(Ordering::Relaxed)) != head {
            slot.store(head.to_le(), Ordering::Relaxed);
        }
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the device what was staged.
    #[inline]
    pub fn publish(&mut self) {
        if self.shown != self.next {
            self.set_available(self.next);
        }
    }

    /// Whether the device is to be kicked for what it was shown since it was asked last.
    #[inline]
    pub fn is_kick_due(&mut self) -> bool {
        let (before, now) = (self.asked, self.shown);
        if before == now {
            return false;
        }
        self.asked = now;
        // The device asks for kicks and then looks whether there is something (sections 2.7.7 and 2.7.13).
        fence(Ordering::SeqCst);
        if self.event_index {
            now.wrapping_sub(self.kick_event()).wrapping_sub(1) < now.wrapping_sub(before)
        } else {
            self.wants_kick()
        }
    }

    /// Makes the chain that begins at descriptor `head` available.
    pub fn offer(&mut self, head: u16) {
        self.put(head);
        self.set_available(self.next);
    }

    /// Sets the available index.
    pub fn set_available(&mut self, index: u16) {
        self.shown = index;
        self.available(1).store(index.to_le(), Ordering::Release);
    }

    /// How many chains the device has given back that were not collected yet; the entries of those that are new are
    /// fetched.
    #[inline]
    pub fn waiting(&mut self) -> u16 {
        let before = self.seen;
        self.seen = u16::from_le(self.used(1).load(Ordering::Acquire));
        let new = self.seen.wrapping_sub(before).min(self.size);
        for i in (0..new).step_by(ENTRIES) {
            for_reading(self.entry(before.wrapping_add(i)));
        }
        if new > 0 {
            for_reading(self.entry(self.seen.wrapping_sub(1)));
        }
        self.seen.wrapping_sub(self.collected)
    }

    /// Fetches what [`waiting`](Self::waiting) looks at first.
    #[inline]
    pub fn fetch(&self) {
        let index: *const AtomicU16 = self.used(1);
        for_reading(index.cast());
    }

    /// The used entry of an index.
    #[inline]
    fn entry(&self, index: u16) -> *const u8 {
        let entry: *const AtomicU16 = self.used(2 + 4 * usize::from(index & (self.size - 1)));
        entry.cast()
    }

    /// The next chain that the device gave back: its head, and how many bytes were written, as the device says. It
    /// stays the next one until [`advance`](Self::advance).
    #[inline]
    pub fn peek(&mut self) -> Option<(u32, u32)> {
        if self.seen == self.collected && self.waiting() == 0 {
            return None;
        }
        let entry = self.entry(self.collected).cast::<AtomicU32>();
        // SAFETY: the two numbers of an entry of the ring, aligned to 4.
        let [head, written] = [0, 1].map(|at| unsafe { &*entry.add(at) }.load(Ordering::Relaxed));
        Some((u32::from_le(head), u32::from_le(written)))
    }

    /// Counts a chain as collected.
    #[inline]
    pub fn advance(&mut self) {
        self.collected = self.collected.wrapping_add(1);
    }

    /// The next chain that the device gave back, collected.
    pub fn collect(&mut self) -> Option<(u32, u32)> {
        let used = self.peek()?;
        self.advance();
        Some(used)
    }

    /// Whether the device has given back `more` chains beyond the next one.
    pub fn has(&self, more: u16) -> bool {
        self.seen.wrapping_sub(self.collected) > more
    }

    /// Whether the device asked to be kicked, by the flag of the used ring.
    #[inline]
    pub fn wants_kick(&self) -> bool {
        u16::from_le(self.used(0).load(Ordering::Relaxed)) & 1 == 0
    }

    /// At which available index the device asked to be kicked.
    pub fn kick_event(&self) -> u16 {
        u16::from_le(self.used(2 + 4 * usize::from(self.size)).load(Ordering::Relaxed))
    }

    /// Asks the device to call, or not.
    pub fn want_call(&self, wanted: bool) {
        self.available(0).store(u16::from(!wanted).to_le(), Ordering::Release);
    }

    /// Asks the device to call when it has used the chain of this index.
    pub fn set_call_event(&self, index: u16) {
        self.available(2 + self.size).store(index.to_le(), Ordering::Release);
    }
}

fn available_at(at: u64, size: u16) -> u64 {
    at + (16 * u64::from(size)).next_multiple_of(LINE)
}

fn used_at(at: u64, size: u16) -> u64 {
    available_at(at, size) + (6 + 2 * u64::from(size)).next_multiple_of(LINE)
}
