//! The packed virtqueue, device side: Virtual I/O Device 1.2, section 2.8.
//!
//! One ring of descriptors, which driver and device write in turn: the driver makes a descriptor available, the
//! device overwrites it with what it used. Two flags in it say whose turn it is, by comparison with wrap counters
//! that each side keeps. A burst becomes visible by one store: the flags of its first descriptor are written last.
//!
//! Nothing in the ring says where a device stopped; a [`Record`] does, where there is one.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

use pmd::prefetch::for_writing;

use super::access::{Access, Direct};
use super::reach::{DESCRIPTOR, INDIRECT, NEXT, Reach, WRITE, longest};
use super::record::{Left, Record, Used};
use super::taken::{Chain, Piece, Taken};
use super::{BadRing, Direction, Layout, RING, Virtqueue};
use crate::memory::GuestMemory;

/// Section 2.8.1: made available, used; each is compared with a wrap counter.
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Section 2.8.10: events are wanted, not wanted, wanted at a position.
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const AT: u16 = 2;

/// A place in the ring: an index, and the wrap counter in the highest bit, as GET_VRING_BASE and the event
/// structures have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot(u16);

impl Spot {
    const WRAP: u16 = 1 << 15;

    #[inline]
    fn index(self) -> u16 {
        self.0 & !Spot::WRAP
    }

    #[inline]
    fn wrap(self) -> bool {
        self.0 & Spot::WRAP != 0
    }

    /// `entries` further on, in a ring of `size`.
    #[inline]
    fn plus(self, entries: u16, size: u16) -> Spot {
        let index = u32::from(self.index()) + u32::from(entries);
        let size = u32::from(size);
        if index >= size {
            Spot((index - size) as u16 | (!self.0 & Spot::WRAP))
        } else {
            Spot(index as u16 | (self.0 & Spot::WRAP))
        }
    }

    /// The flags by which a descriptor here is used.
    #[inline]
    fn used(self) -> u16 {
        if self.wrap() { AVAILABLE | USED } else { 0 }
    }
}

/// The device side of a packed virtqueue.
pub struct Packed<A = Direct> {
    reach: Reach<A>,
    size: u16,
    ring: NonNull<[u64; 2]>,
    /// What the driver wants to be called for.
    driver: NonNull<u16>,
    /// What we want to be kicked for.
    device: NonNull<u16>,
    /// The next descriptor to take.
    next: Spot,
    /// Up to where the ring shows what is used.
    shown: Spot,
    /// Up to where it did when the driver was last asked whether it wants to be called.
    asked: Spot,
    /// What is used and not shown yet.
    used: Vec<Used>,
    /// How many times something was used, and shown, modulo 2^16.
    settled: u16,
    /// Entries that are taken and not shown yet.
    open: u32,
    /// Buffers that were only read are given back by one descriptor for all (`VIRTIO_F_IN_ORDER`).
    in_order: bool,
    event_index: bool,
    armed: bool,
    /// What is in the device area: an event's place, and flags.
    wish: u32,
    record: Option<Record>,
}

// SAFETY: the pointers are into the reach's memory, which lives as long; one thread at a time has the value.
unsafe impl<A: Send> Send for Packed<A> {}

/// What the features say about a packed ring.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// `VIRTIO_F_IN_ORDER`.
    pub in_order: bool,
    /// `VIRTIO_F_EVENT_IDX`.
    pub event_index: bool,
}

impl<A: Access> Packed<A> {
    /// A ring of `memory` at `layout`. It goes on where the record says that its predecessor stopped, or else at
    /// `base`, as SET_VRING_BASE gives it.
    ///
    /// # Errors
    /// No size of a ring, a part that does not lie in the memory, a position beyond it.
    pub fn new(
        memory: Arc<GuestMemory>,
        layout: &Layout,
        style: Style,
        base: u32,
        record: Option<Record>,
        access: A,
    ) -> Result<Packed<A>, BadRing> {
        let size = u16::try_from(layout.size).ok().filter(|size| (1..=RING).contains(size));
        let size = size.ok_or(BadRing::Size(layout.size))?;
        let place = |part, address, bytes, align| {
            memory.user(address, bytes, align).ok_or(BadRing::Place { part, address })
        };
        let ring = place("descriptor ring", layout.descriptors, DESCRIPTOR * u64::from(size), 16)?;
        let driver = place("driver area", layout.available, 4, 4)?;
        let device = place("device area", layout.used, 4, 4)?;
        let mut packed = Packed {
            size,
            ring: ring.cast(),
            driver: driver.cast(),
            device: device.cast(),
            next: Spot(Spot::WRAP),
            shown: Spot(Spot::WRAP),
            asked: Spot(Spot::WRAP),
            used: Vec::with_capacity(size.into()),
            settled: 0,
            open: 0,
            in_order: style.in_order,
            event_index: style.event_index,
            armed: true,
            wish: 0,
            record,
            reach: Reach::new(memory, access),
        };
        packed.wish = packed.written_wish();
        let left = packed.record.as_ref().and_then(Record::left).filter(|left| packed.agrees(left));
        let start = Spot(left.as_ref().map_or(base as u16, |left| left.settled));
        if start.index() >= size {
            return Err(BadRing::Head(start.index()));
        }
        packed.shown = start;
        if let Some(left) = left.filter(|left| left.settled != left.intended) {
            let entries: u64 = left.used.iter().map(|used| u64::from(used.entries)).sum();
            if left.used.is_empty() || entries > u64::from(size) {
                return Err(BadRing::Record);
            }
            // Shown already, and perhaps made available again since: either way the flag tells.
            if (packed.flags_at(start) & USED != 0) == start.wrap() {
                let end = left.used.iter().fold(start, |spot, used| spot.plus(used.entries, size));
                packed.shown = end;
            } else {
                packed.used.extend(left.used);
                packed.show(packed.used.len());
            }
        }
        (packed.next, packed.asked) = (packed.shown, packed.shown);
        if let Some(record) = &packed.record {
            record.wish(packed.wish, packed.wish);
            record.settle(packed.shown.0);
        }
        packed.hush();
        Ok(packed)
    }

    /// What somebody has written into the device area.
    fn written_wish(&mut self) -> u32 {
        // SAFETY: the two words of the device area, aligned.
        let [place, flags] =
            [0, 1].map(|word| u32::from(unsafe { self.reach.access.load(self.device.add(word)) }));
        place | flags << 16
    }

    /// Whether the ring can be the one that a record is about: its device area is as it was left, and at its place
    /// nothing has been used that the record knows nothing of.
    fn agrees(&mut self, left: &Left) -> bool {
        let spot = Spot(left.settled);
        let is_used = |flags: u16| [AVAILABLE, USED].map(|flag| flags & flag != 0) == [spot.wrap(); 2];
        // QEMU turns kicks off while nobody is there, and leaves the place.
        let places = left.wishes.map(|wish| wish as u16);
        (self.wish != 0 && places.contains(&(self.wish as u16)))
            && (left.settled != left.intended || spot.index() >= self.size || !is_used(self.flags_at(spot)))
    }

    /// Where the ring stands, as GET_VRING_BASE tells it: the next descriptor to take in the lower half, the next
    /// one to use in the upper.
    pub fn position(&self) -> u32 {
        u32::from(self.shown.0) | u32::from(self.shown.0) << 16
    }

    #[inline]
    fn descriptor_at(&self, spot: Spot) -> NonNull<[u64; 2]> {
        // SAFETY: the index is below the size (checked in `new`, kept by `plus`): within the ring.
        unsafe { self.ring.add(spot.index().into()) }
    }

    /// The place of a descriptor's flags.
    #[inline]
    fn flags_place(&self, spot: Spot) -> NonNull<u16> {
        // SAFETY: the last of a descriptor's eight words.
        unsafe { self.descriptor_at(spot).cast::<u16>().add(7) }
    }

    #[inline]
    fn flags_at(&mut self, spot: Spot) -> u16 {
        let place = self.flags_place(spot);
        // SAFETY: within the ring, aligned.
        unsafe { self.reach.access.load(place) }
    }

    #[inline]
    fn is_available(flags: u16, spot: Spot) -> bool {
        (flags & AVAILABLE != 0) == spot.wrap() && (flags & USED != 0) != spot.wrap()
    }

    /// Entries of the ring that are not taken. One that is taken whole does not look available, unless its owner wants
    /// to do harm.
    fn room(&self) -> u32 {
        u32::from(self.size).saturating_sub(self.open)
    }

    /// Takes chains as long as each is one buffer that lies together: nearly all of them. Gives their number.
    #[inline(never)] // a loop with registers of its own
    fn take_buffers(&mut self, direction: Direction, most: usize, taken: &mut Taken) -> usize {
        let wanted = if direction == Direction::Write { WRITE } else { 0 };
        let (ring, size) = (self.ring, self.size);
        let most = most.min(self.room() as usize).min(self.reach.budget as usize);
        // Nothing of the loop waits for what it has just stored.
        let (mut spot, mut hint, mut count) = (self.next, self.reach.hint, 0);
        for place in taken.room(most) {
            // SAFETY: the index is below the size, as `plus` keeps it: within the ring, aligned.
            let descriptor = unsafe { ring.add(spot.index().into()) };
            // SAFETY: its last word.
            let flags = unsafe { self.reach.access.load(descriptor.cast::<u16>().add(7)) };
            if flags & (NEXT | WRITE | INDIRECT) != wanted || !Self::is_available(flags, spot) {
                break;
            }
            // SAFETY: as above.
            let raw = unsafe { self.reach.look(descriptor) };
            let Some(start) = self.reach.whole(&mut hint, raw, direction) else { break };
            *place = Chain::single(start, raw.bytes, raw.third);
            spot = spot.plus(1, size);
            count += 1;
        }
        taken.add(count);
        self.reach.budget -= count as u32;
        (self.reach.hint, self.next, self.open) = (hint, spot, self.open + count as u32);
        count
    }

    /// Takes the next chain, whatever it is. False if there is none.
    #[inline(never)]
    fn take_chain(&mut self, direction: Direction, taken: &mut Taken) -> Result<bool, BadRing> {
        let (spot, room) = (self.next, self.room());
        let flags = self.flags_at(spot);
        if room == 0 || !Self::is_available(flags, spot) {
            return Ok(false);
        }
        let entries = taken.push_chain(|pieces| self.walk(spot, room, direction, pieces))?;
        (self.next, self.open) = (spot.plus(entries, self.size), self.open + u32::from(entries));
        Ok(true)
    }

    /// Adds the pieces of the chain at `spot`. Gives its id and entries.
    fn walk(
        &mut self,
        mut spot: Spot,
        room: u32,
        direction: Direction,
        pieces: &mut Vec<Piece>,
    ) -> Result<(u16, u16), BadRing> {
        let mut entries = 0u16;
        loop {
            if u32::from(entries) >= longest(room) {
                return Err(BadRing::Long(longest(room)));
            }
            // SAFETY: within the ring, aligned.
            let raw = unsafe { self.reach.descriptor(self.descriptor_at(spot)) }?;
            let (id, flags) = (raw.third, raw.fourth);
            entries += 1;
            if flags & INDIRECT != 0 {
                if flags & NEXT != 0 || entries > 1 {
                    return Err(BadRing::Indirect(raw.bytes));
                }
                self.table(raw.address, raw.bytes, direction, pieces)?;
                return Ok((id, entries));
            }
            self.reach.buffer((raw.address, raw.bytes), flags, direction, pieces)?;
            if flags & NEXT == 0 {
                return Ok((id, entries));
            }
            spot = spot.plus(1, self.size);
        }
    }

    /// Adds the pieces of an indirect table: all of its entries, in order (section 2.8.7).
    fn table(
        &mut self,
        address: u64,
        bytes: u32,
        direction: Direction,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), BadRing> {
        let (table, entries) = self.reach.table(address, bytes)?;
        if entries > longest(entries) {
            return Err(BadRing::Long(longest(entries)));
        }
        for at in 0..entries {
            // SAFETY: `at` is below the table's entries, which lie together and aligned.
            let raw = unsafe { self.reach.descriptor(table.add(at as usize)) }?;
            if raw.fourth & INDIRECT != 0 {
                return Err(BadRing::Indirect(raw.bytes));
            }
            self.reach.buffer((raw.address, raw.bytes), raw.fourth, direction, pieces)?;
        }
        Ok(())
    }

    /// Writes the first `count` of what is used over the descriptors (section 2.8.8); the flags of the first one, by
    /// which the driver sees all of it, last.
    #[inline]
    fn show(&mut self, count: usize) {
        let spot = self.shown;
        let flags = |spot: Spot, used: &Used| spot.used() | if used.written > 0 { WRITE } else { 0 };
        let Some(first) = self.used.first().copied() else { return };
        let mut behind = spot.plus(first.entries, self.size);
        let mut entries = u32::from(first.entries);
        for used in &self.used[1..count] {
            entries += u32::from(used.entries);
            let words =
                u64::from(used.written) | u64::from(used.id) << 32 | u64::from(flags(behind, used)) << 48;
            // SAFETY: the second half of a descriptor of the ring, aligned to 8.
            unsafe { self.descriptor_at(behind).cast::<u64>().add(1).write_volatile(words.to_le()) };
            behind = behind.plus(used.entries, self.size);
        }
        let half = self.descriptor_at(spot).cast::<u32>();
        // SAFETY: length, id and flags of a descriptor of the ring, aligned. Release: the other descriptors, and the
        // frames, are there before.
        unsafe {
            AtomicU32::from_ptr(half.add(2).as_ptr()).store(first.written.to_le(), Ordering::Relaxed);
            AtomicU16::from_ptr(half.cast::<u16>().add(6).as_ptr())
                .store(first.id.to_le(), Ordering::Relaxed);
            let place = AtomicU16::from_ptr(self.flags_place(spot).as_ptr());
            place.store(flags(spot, &first).to_le(), Ordering::Release);
        }
        self.shown = behind;
        self.open = self.open.saturating_sub(entries);
        self.settled = self.settled.wrapping_add(count as u16);
        self.used.drain(..count);
    }

    /// The driver's wish: whether it wants to be called for what lies from `before` on.
    fn wishes_call(&mut self, before: Spot) -> bool {
        // SAFETY: the second word of the driver area, aligned.
        let flags = unsafe { self.reach.access.load(self.driver.add(1)) };
        match flags & 0b11 {
            DISABLE => false,
            AT if self.event_index => {
                // SAFETY: its first word.
                let event = Spot(unsafe { self.reach.access.load(self.driver) });
                // On a line that ends where the ring is shown up to.
                let line = |spot: Spot| {
                    let index = i32::from(spot.index());
                    if spot.wrap() == self.shown.wrap() { index } else { index - i32::from(self.size) }
                };
                (line(before)..i32::from(self.shown.index())).contains(&line(event))
            }
            _ => true,
        }
    }

    /// Tells the driver whether we want to be kicked. Never by all zeros, which a driver that begins has written.
    fn want_kicks(&mut self, spot: Spot, flags: u16) {
        // The place counts for nothing if kicks are wanted anyway (section 2.8.10).
        let spot = if flags == ENABLE { Spot(spot.0 | Spot::WRAP) } else { spot };
        let wish = u32::from(spot.0) | u32::from(flags) << 16;
        if let Some(record) = &self.record {
            record.wish(self.wish, wish);
        }
        self.wish = wish;
        // SAFETY: the device area, aligned to 4.
        unsafe { AtomicU32::from_ptr(self.device.cast().as_ptr()) }.store(wish.to_le(), Ordering::Release);
    }
}

impl<A: Access> Virtqueue for Packed<A> {
    type Access = A;

    #[inline]
    fn begin(&mut self) {
        self.reach.begin();
    }

    #[inline]
    fn take(&mut self, direction: Direction, most: usize, taken: &mut Taken) -> Result<(), BadRing> {
        let mut left = most;
        loop {
            left -= self.take_buffers(direction, left, taken);
            if left == 0 || !self.take_chain(direction, taken)? {
                return Ok(());
            }
            left -= 1;
        }
    }

    #[inline]
    fn complete(&mut self, chain: Chain, written: u32) {
        self.used.push(Used { id: chain.id, entries: chain.entries, written });
    }

    #[inline]
    fn give_back(&mut self, chains: &[Chain]) {
        match chains.last() {
            // Section 2.8.9: one used descriptor, with the id of the last buffer, for all of them.
            Some(last) if self.in_order => {
                let entries = chains.iter().fold(0u32, |all, chain| all + u32::from(chain.entries));
                self.used.push(Used { id: last.id, entries: entries as u16, written: 0 });
            }
            _ => chains.iter().for_each(|chain| self.complete(*chain, 0)),
        }
    }

    #[inline]
    fn completed(&self) -> u16 {
        self.settled.wrapping_add(self.used.len() as u16)
    }

    #[inline]
    fn foresee(&self, direction: Direction) {
        if direction == Direction::Read {
            for_writing(self.descriptor_at(self.shown).as_ptr().cast());
        }
    }

    #[inline]
    fn publish(&mut self, end: u16) -> bool {
        let count = usize::from(end.wrapping_sub(self.settled)).min(self.used.len());
        if count == 0 {
            return false;
        }
        let before = self.shown;
        if let Some(record) = &self.record {
            record.intend(before.0, &self.used[..count], |entries| before.plus(entries, self.size).0);
        }
        self.show(count);
        if let Some(record) = &self.record {
            record.settle(self.shown.0);
        }
        true
    }

    #[inline]
    fn wants_call(&mut self) -> bool {
        // The driver turns its wish on, then looks at the ring; we the other way round.
        fence(Ordering::SeqCst);
        let before = std::mem::replace(&mut self.asked, self.shown);
        self.wishes_call(before)
    }

    fn arm(&mut self) -> bool {
        self.armed = true;
        self.want_kicks(self.next, if self.event_index { AT } else { ENABLE });
        fence(Ordering::SeqCst);
        let next = self.next;
        let flags = self.flags_at(next);
        let there = Self::is_available(flags, next);
        if there {
            self.hush();
        }
        there
    }

    #[inline]
    fn hush(&mut self) {
        if self.armed {
            self.armed = false;
            self.want_kicks(self.next, DISABLE);
        }
    }

    #[inline]
    fn access(&mut self) -> &mut A {
        &mut self.reach.access
    }
}
