//! Where a key lives: its two buckets, and the right to write both of them.
//!
//! The table above hashes; this file turns buckets and ways into locations and back.

use super::Location;
use super::bucket::{Locked, Packed, WAYS};

/// The two buckets, never the same one, and the version slot of a key.
#[derive(Clone, Copy)]
pub(super) struct Home {
    pub(super) buckets: [u32; 2],
    pub(super) slot: u16,
}

/// The place of a way of a bucket, in one number.
#[inline]
pub(super) fn locate(bucket: u32, way: usize) -> Location {
    Location(bucket * WAYS as u32 + way as u32)
}

/// Both buckets of a key, locked.
pub(super) struct Pair<'a> {
    home: Home,
    locked: [Locked<'a>; 2],
}

impl<'a> Pair<'a> {
    pub(super) fn take(home: Home, mut lock: impl FnMut(u32) -> Option<Locked<'a>>) -> Option<Pair<'a>> {
        let [first, second] = home.buckets;
        Some(Pair { home, locked: [lock(first)?, lock(second)?] })
    }

    pub(super) fn find(&self, wanted: Packed) -> Option<(Location, Packed)> {
        self.home.buckets.iter().zip(&self.locked).find_map(|(&bucket, locked)| {
            locked.find(wanted).map(|(way, entry)| (locate(bucket, way), entry))
        })
    }

    /// A free place in the emptier bucket.
    pub(super) fn free(&self) -> Option<Location> {
        let [first, second] = [0, 1].map(|at| self.locked[at].free_ways().count());
        let at = usize::from(second > first);
        self.locked[at].free_ways().next().map(|way| locate(self.home.buckets[at], way))
    }

    pub(super) fn put(&mut self, location: Location, entry: Packed) {
        let (locked, way) = self.at(location);
        locked.put(way, entry);
    }

    pub(super) fn clear(&mut self, location: Location) {
        let (locked, way) = self.at(location);
        locked.clear(way);
    }

    fn at(&mut self, location: Location) -> (&mut Locked<'a>, usize) {
        let (bucket, way) = (location.0 / WAYS as u32, location.0 as usize % WAYS);
        (&mut self.locked[usize::from(bucket != self.home.buckets[0])], way)
    }
}
