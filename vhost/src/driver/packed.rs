//! A packed virtqueue, driver side: Virtual I/O Device 1.2, section 2.8.
//!
//! [`PackedDriver::stage`] and [`PackedDriver::publish`] are the decent way; [`PackedDriver::describe`] writes a
//! descriptor by hand. Of what was staged the first descriptor's flags are written last, so the device sees all of
//! it at once. Indices are counted modulo the ring's size.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};

use pmd::prefetch::{for_reading, for_writing};

use super::memory::{Outside, SharedMemory, USER};
use super::ring::{LINE, NEXT, checked};
use crate::ring::Layout;

/// Section 2.8.1: made available, used; each is compared with a wrap counter.
pub const AVAILABLE: u16 = 1 << 7;
/// The device is done with it.
pub const USED: u16 = 1 << 15;

/// Section 2.8.10, flags of an event structure: not wanted, wanted at a position.
const DISABLE: u16 = 1;
const AT: u16 = 2;

/// A place in the ring: an index, and a wrap counter above it, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot(u32);

impl Spot {
    const WRAP: u32 = 1 << 16;
    const START: Spot = Spot(Spot::WRAP);

    #[inline]
    fn index(self) -> u16 {
        self.0 as u16
    }

    #[inline]
    fn wrap(self) -> bool {
        self.0 & Spot::WRAP != 0
    }

    #[inline]
    fn plus(self, entries: u16, size: u16) -> Spot {
        let next = Spot(self.0 + u32::from(entries));
        if u32::from(self.index()) + u32::from(entries) < u32::from(size) {
            return next;
        }
        Spot((next.0 - u32::from(size)) ^ Spot::WRAP)
    }

    #[inline]
    fn available(self) -> u16 {
        if self.wrap() { AVAILABLE } else { USED }
    }

    #[inline]
    fn is_used(self, flags: u16) -> bool {
        (flags & AVAILABLE != 0) == self.wrap() && (flags & USED != 0) == self.wrap()
    }
}

/// Descriptors on a cache line.
const ENTRIES: u16 = 4;

/// The driver side of a packed virtqueue.
pub struct PackedDriver {
    /// Keeps the ring mapped.
    _memory: Arc<SharedMemory>,
    size: u16,
    at: u64,
    descriptors: NonNull<AtomicU64>,
    /// What we want to be called for, and what the device wants to be kicked for: position and flags.
    driver: NonNull<AtomicU16>,
    device: NonNull<AtomicU16>,
    /// Entries of the chain with each id.
    entries: Box<[u16]>,
    /// The next entry to be made available.
    next: Spot,
    /// Where what the device was not shown yet begins.
    shown: Spot,
    /// Up to where it was looked whether the device wants to be kicked.
    asked: Spot,
    /// The second word of the descriptor there.
    held: Option<u64>,
    /// The next entry to be collected.
    collected: Spot,
    event_index: bool,
    /// How many were waiting when it was looked last.
    before: u16,
}

// SAFETY: the pointers are into the memory that the value keeps; one thread at a time has the value.
unsafe impl Send for PackedDriver {}

impl PackedDriver {
    /// A ring of `size` entries, a power of two, at offset `at` of the memory.
    ///
    /// # Errors
    /// It is not in the memory, or not aligned to 16.
    pub fn new(memory: Arc<SharedMemory>, at: u64, size: u16) -> Result<PackedDriver, Outside> {
        let bytes = PackedDriver::bytes(size);
        let size = checked(size, at, bytes)?;
        let start = memory.place(at, bytes, 16)?;
        let part = |offset: u64| {
            // SAFETY: all `bytes` of the ring lie together, and the offset is within.
            unsafe { start.add((offset - at) as usize) }
        };
        let (driver, device) = (part(driver_at(at, size)).cast(), part(device_at(at, size)).cast());
        Ok(PackedDriver {
            _memory: memory,
            size,
            at,
            descriptors: start.cast(),
            driver,
            device,
            entries: vec![1; size.into()].into(),
            next: Spot::START,
            shown: Spot::START,
            asked: Spot::START,
            held: None,
            collected: Spot::START,
            event_index: false,
            before: 0,
        })
    }

    /// Bytes that a ring of `size` entries takes.
    pub fn bytes(size: u16) -> u64 {
        device_at(0, size) + LINE
    }

    /// Where it is, for the device.
    pub fn layout(&self) -> Layout {
        Layout {
            size: self.size.into(),
            descriptors: USER + self.at,
            available: USER + driver_at(self.at, self.size),
            used: USER + device_at(self.at, self.size),
        }
    }

    /// Events are suppressed by position from now on, or by flag.
    pub fn set_event_index(&mut self, by_index: bool) {
        self.event_index = by_index;
    }

    #[inline]
    fn word(&self, index: u16, word: usize) -> &AtomicU64 {
        // SAFETY: the index is below the size; two words a descriptor, aligned.
        unsafe { self.descriptors.add(2 * usize::from(index & (self.size - 1)) + word).as_ref() }
    }

    /// Writes a descriptor by hand: all of its flags, too.
    pub fn describe(&mut self, index: u16, buffer: (u64, u32), id: u16, flags: u16) {
        self.word(index, 0).store(buffer.0.to_le(), Ordering::Relaxed);
        self.word(index, 1).store(second_word(buffer.1, id, flags).to_le(), Ordering::Release);
    }

    /// Puts the chain `id` over `buffers` (guest address, bytes) into the ring, for [`publish`](Self::publish) to
    /// show. The caller sees to it that there is room.
    #[inline]
    pub fn stage(&mut self, id: u16, buffers: &[(u64, u32)], flags: u16) {
        for (i, &(address, bytes)) in buffers.iter().enumerate() {
            let spot = self.next;
            let more = if i + 1 < buffers.len() { NEXT } else { 0 };
            let second = second_word(bytes, id, flags | more | spot.available());
            self.word(spot.index(), 0).store(address.to_le(), Ordering::Relaxed);
            if spot == self.shown && self.held.is_none() {
                self.held = Some(second);
            } else {
                self.word(spot.index(), 1).store(second.to_le(), Ordering::Relaxed);
            }
            self.next = spot.plus(1, self.size);
        }
        self.entries[usize::from(id & (self.size - 1))] = buffers.len() as u16;
    }

    /// Shows the device what was staged.
    #[inline]
    pub fn publish(&mut self) {
        if let Some(second) = self.held.take() {
            let first = std::mem::replace(&mut self.shown, self.next);
            self.word(first.index(), 1).store(second.to_le(), Ordering::Release);
        }
    }

    /// Whether the device is to be kicked for what it was shown since it was asked last.
    #[inline]
    pub fn is_kick_due(&mut self) -> bool {
        if self.asked == self.shown {
            return false;
        }
        let before = std::mem::replace(&mut self.asked, self.shown);
        // The device asks for kicks and then looks whether there is something (section 2.8.21.3.1).
        fence(Ordering::SeqCst);
        let (position, flags) = self.kick_event();
        match flags & 0b11 {
            DISABLE => false,
            AT if self.event_index => {
                // Whether the position is among the entries from `before` on to `shown`, all on one line.
                let line = |index: u16, wrap| {
                    let shift = if wrap == self.shown.wrap() { 0 } else { i32::from(self.size) };
                    i32::from(index) - shift
                };
                let wanted = line(position & !(1 << 15), position >> 15 == 1);
                (line(before.index(), before.wrap())..i32::from(self.shown.index())).contains(&wanted)
            }
            _ => true,
        }
    }

    /// Fetches what [`waiting`](Self::waiting) looks at first.
    #[inline]
    pub fn fetch(&self) {
        let word: *const AtomicU64 = self.word(self.collected.index(), 1);
        for_reading(word.cast());
    }

    /// How many chains the device has given back from the next one on; more than `limit` are counted as that. With
    /// `VIRTIO_F_IN_ORDER` it may have given back others for which it wrote nothing.
    #[inline]
    pub fn waiting(&mut self, limit: u16) -> u16 {
        let (mut spot, mut count) = (self.collected, 0);
        if limit > 0 && spot.is_used(self.flags(spot.index())) {
            // Most probably as many as before. They are written again when they have been collected.
            for i in (ENTRIES..self.before.min(limit)).step_by(ENTRIES.into()) {
                let word: *const AtomicU64 = self.word(spot.plus(i, self.size).index(), 0);
                for_writing(word.cast());
            }
        }
        while count < limit && spot.is_used(self.flags(spot.index())) {
            let id = (u64::from_le(self.word(spot.index(), 1).load(Ordering::Relaxed)) >> 32) as u16;
            spot = spot.plus(self.entries[usize::from(id & (self.size - 1))], self.size);
            count += 1;
        }
        self.before = count;
        count
    }

    #[inline]
    fn flags(&self, index: u16) -> u16 {
        (u64::from_le(self.word(index, 1).load(Ordering::Acquire)) >> 48) as u16
    }

    /// The next chain that the device gave back: its id, and how many bytes were written, as the device says. It
    /// stays the next one until [`advance`](Self::advance).
    #[inline]
    pub fn peek(&mut self) -> Option<(u32, u32)> {
        let word = u64::from_le(self.word(self.collected.index(), 1).load(Ordering::Acquire));
        let used = self.collected.is_used((word >> 48) as u16);
        used.then_some(((word >> 32) as u32 & 0xffff, word as u32))
    }

    /// Counts the chain `id` as collected.
    #[inline]
    pub fn advance(&mut self, id: u16) {
        self.collected = self.collected.plus(self.entries[usize::from(id & (self.size - 1))], self.size);
    }

    /// What the device wants to be kicked for: a position, and flags.
    #[inline]
    pub fn kick_event(&self) -> (u16, u16) {
        // SAFETY: two aligned numbers of the ring's device area.
        let [position, flags] = [0, 1].map(|at| unsafe { self.device.add(at).as_ref() });
        (u16::from_le(position.load(Ordering::Relaxed)), u16::from_le(flags.load(Ordering::Relaxed)))
    }

    /// Asks the device to call, or not.
    pub fn want_call(&mut self, wanted: bool) {
        self.set_call_event(0, u16::from(!wanted));
    }

    /// Writes what we want to be called for: a position, and flags.
    pub fn set_call_event(&mut self, position: u16, flags: u16) {
        // SAFETY: two aligned numbers of the ring's driver area.
        let [at, wish] = [0, 1].map(|at| unsafe { self.driver.add(at).as_ref() });
        at.store(position.to_le(), Ordering::Relaxed);
        wish.store(flags.to_le(), Ordering::Release);
    }
}

#[inline]
fn second_word(bytes: u32, id: u16, flags: u16) -> u64 {
    u64::from(bytes) | u64::from(id) << 32 | u64::from(flags) << 48
}

fn driver_at(at: u64, size: u16) -> u64 {
    at + (16 * u64::from(size)).next_multiple_of(LINE)
}

fn device_at(at: u64, size: u16) -> u64 {
    driver_at(at, size) + LINE
}
