//! Version counters by which a cached decision notices that a table changed under it.
//!
//! Each key of a table that frames write falls on one slot. Whoever inserts, moves or removes a key
//! advances that slot and no other; whoever decides a flow keeps the slots that it asked (also those
//! that had no answer) with their versions as a [`Witness`]. A hit of the flow cache compares them, so
//! that one flapping key makes stale only the few flows that share its slot. A count of all changes
//! spares most hits even that: who has compared keeps the count, and while it is the same, nothing has
//! happened on any slot.
//!
//! The order that makes this safe: a reader takes the version *before* it reads the table, a writer
//! advances it *after* it has changed the table. A race then makes a cached decision stale too early,
//! never wrong for good. So with the count: it is read before the slots, and rises after them.

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::utils::CachePadded;

/// What a decision saw of a table: a slot and its version at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// Which slot the key falls on.
    pub slot: u16,
    /// The slot's version before the table was read.
    pub version: u32,
}

impl Witness {
    /// For a decision that asked no table: never stale.
    pub const NOTHING: Witness = Witness { slot: RESERVED, version: 0 };

    /// For an answer that must not be kept: stale from the start.
    pub const STALE: Witness = Witness { slot: RESERVED, version: 1 };
}

/// The slot that no key falls on, so that it stays at version 0.
const RESERVED: u16 = 0;

/// The slots of one table.
#[derive(Debug)]
pub struct Versions {
    // As many as a slot number can say, so that indexing needs no check.
    slots: Box<[AtomicU32; SLOTS]>,
    changes: CachePadded<AtomicU32>,
}

const SLOTS: usize = 1 << 16;

impl Default for Versions {
    fn default() -> Versions {
        Versions::new()
    }
}

impl Versions {
    /// What [`Versions::changes`] was before there was a table.
    pub const NEVER: u32 = 0;

    /// 65,536 slots (256 KiB), all at version 0.
    pub fn new() -> Versions {
        let slots: Box<[AtomicU32]> = (0..SLOTS).map(|_| AtomicU32::new(0)).collect();
        match slots.try_into() {
            Ok(slots) => Versions { slots, changes: CachePadded::new(AtomicU32::new(Self::NEVER + 1)) },
            Err(_) => unreachable!("the length is that of the range above"),
        }
    }

    /// The slot of a key by its 64-bit hash (by the highest bits; tables use the low ones).
    #[inline]
    pub fn slot(&self, hash: u64) -> u16 {
        ((hash >> 48) as u16).max(RESERVED + 1)
    }

    /// What is to be kept of `slot` by one who reads the table now, afterwards.
    #[inline]
    pub fn witness(&self, slot: u16) -> Witness {
        Witness { slot, version: self.slots[usize::from(slot)].load(Ordering::Acquire) }
    }

    /// A count that is another one after any slot was advanced. It goes round, as versions do: who keeps it
    /// over as many changes as it has values, to the very number, takes the new for the old.
    #[inline]
    pub fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }

    /// Fetches a slot.
    #[inline]
    pub fn prefetch(&self, slot: u16) {
        pmd::prefetch(&self.slots[usize::from(slot)]);
    }

    /// Whether nothing has happened on the slot since.
    #[inline]
    pub fn is_current(&self, witness: Witness) -> bool {
        self.slots[usize::from(witness.slot)].load(Ordering::Relaxed) == witness.version
    }

    /// Advances a slot after its key changed, while the writer still holds the key; the writer itself
    /// may keep what this returns as its own witness.
    pub(crate) fn advance(&self, slot: u16) -> Witness {
        let before = self.slots[usize::from(slot)].fetch_add(1, Ordering::Release);
        // Behind the slot: who sees this sees that.
        self.changes.fetch_add(1, Ordering::Release);
        Witness { slot, version: before.wrapping_add(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stays_current_and_stale_never_is() {
        let versions = Versions::new();
        for hash in (0..=u16::MAX).map(|high| u64::from(high) << 48) {
            versions.advance(versions.slot(hash));
        }
        assert!(versions.is_current(Witness::NOTHING));
        assert!(!versions.is_current(Witness::STALE));
    }

    #[test]
    fn an_advance_makes_only_its_own_slot_stale() {
        let versions = Versions::new();
        let (one, other) = (versions.witness(7), versions.witness(8));
        let before = versions.changes();
        assert_ne!(before, Versions::NEVER);
        let after = versions.advance(7);
        assert_ne!(versions.changes(), before);
        assert!(!versions.is_current(one));
        assert!(versions.is_current(other) && versions.is_current(after));
    }
}
