//! A pool: one worker's private share of the arena's free frames.
//!
//! Taking and giving a buffer is a push or pop on a private list; only when that runs empty or over does
//! a whole group of frames travel to or from the arena. Each worker has one, and nobody else touches it.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};

use crossbeam::utils::CachePadded;

use crate::arena::{Arena, Buffer, FrameIndex, GROUP};

/// Frames that a pool keeps before it gives a group back.
const HIGH: usize = 4 * GROUP;

/// A private list of free frames.
pub struct Pool {
    arena: Arena,
    free: Vec<FrameIndex>,
    held: Arc<CachePadded<AtomicU32>>,
}

impl Arena {
    /// A new, empty pool; it fills itself at the first [`Pool::get`].
    pub fn pool(&self) -> Pool {
        let held = Arc::new(CachePadded::new(AtomicU32::new(0)));
        let inner = self.owner.inner();
        inner.pools.lock().unwrap_or_else(PoisonError::into_inner).push(held.clone());
        Pool { arena: self.clone(), free: Vec::with_capacity(HIGH + GROUP), held }
    }
}

impl Pool {
    /// The arena behind the pool.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Takes a free frame as an empty buffer with [`HEADROOM`](crate::arena::HEADROOM) in front, or
    /// nothing when the arena has none left.
    #[inline]
    pub fn get(&mut self) -> Option<Buffer> {
        if self.free.is_empty() {
            self.refill();
        }
        let index = self.free.pop()?;
        self.publish();
        // SAFETY: the index came out of the arena's free frames, so no buffer of it exists.
        Some(unsafe { self.arena.reclaim(index) })
    }

    /// Gives a buffer back.
    #[inline]
    pub fn put(&mut self, buffer: Buffer) {
        if !buffer.belongs_to(self.arena.owner.inner()) {
            return; // another arena's: its own drop takes it home
        }
        if self.free.len() >= HIGH {
            self.spill();
        }
        self.free.push(buffer.into_index());
        self.publish();
    }

    #[inline]
    fn publish(&self) {
        self.held.store(self.free.len() as u32, Ordering::Relaxed);
    }

    #[cold]
    fn refill(&mut self) {
        let inner = self.arena.owner.inner();
        if let Some(group) = inner.groups.pop() {
            self.free.extend_from_slice(&group);
        } else {
            let mut strays = inner.strays();
            let keep = strays.len().saturating_sub(GROUP);
            self.free.extend(strays.drain(keep..));
        }
    }

    #[cold]
    fn spill(&mut self) {
        let mut group = [FrameIndex(0); GROUP];
        let keep = self.free.len() - GROUP;
        group.copy_from_slice(&self.free[keep..]);
        self.free.truncate(keep);
        let inner = self.arena.owner.inner();
        if let Err(group) = inner.groups.push(group) {
            inner.strays().extend_from_slice(&group);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let inner = self.arena.owner.inner();
        inner.strays().append(&mut self.free);
        let mut pools = inner.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|held| !Arc::ptr_eq(held, &self.held));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::HugePages;
    use std::collections::HashSet;

    #[test]
    fn every_frame_is_handed_out_once_and_comes_back() {
        let arena = Arena::new(512, HugePages::Off).unwrap();
        let (mut a, mut b) = (arena.pool(), arena.pool());
        let mut out = Vec::new();
        while let Some(buffer) = a.get().or_else(|| b.get()) {
            out.push(buffer);
        }
        let distinct: HashSet<_> = out.iter().map(Buffer::index).collect();
        assert_eq!((out.len(), distinct.len()), (arena.frames() as usize, arena.frames() as usize));
        assert_eq!(arena.free(), 0);
        for buffer in out {
            b.put(buffer);
        }
        assert_eq!(arena.free(), arena.frames());
        drop((a, b));
        assert_eq!(arena.free(), arena.frames());
    }

    #[test]
    fn a_foreign_buffer_goes_to_its_own_arena() {
        let (one, two) = (Arena::new(64, HugePages::Off).unwrap(), Arena::new(64, HugePages::Off).unwrap());
        let (mut pool_one, mut pool_two) = (one.pool(), two.pool());
        pool_two.put(pool_one.get().unwrap());
        assert_eq!((one.free(), two.free()), (one.frames(), two.frames()));
    }
}
