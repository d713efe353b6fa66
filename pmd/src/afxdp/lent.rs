//! The frames of the arena that are in the kernel's hands, by one ring pair of one socket.
//!
//! A frame goes in as a [`Buffer`] and comes out as one. The set is what makes that sound: a frame number that the
//! kernel names is believed only if it is in here, and it is taken out before a buffer is made of it, so there are
//! never two buffers of one frame. It also knows what to bring home when the socket is closed, wherever in the
//! kernel the frames were at that moment: a set that is dropped brings its frames home, so it is dropped after the
//! socket was closed. One bit a frame: small enough to stay in a core's cache.
#![allow(unsafe_code)]

use crate::arena::{Arena, Buffer, FRAME_SIZE, FrameIndex};

/// See the module.
pub(super) struct Lent {
    arena: Arena,
    words: Box<[u64]>,
    count: u32,
    /// The kernel may still write the frames when the set is dropped: they stay out for ever.
    lost: bool,
}

impl Lent {
    /// An empty set of frames of `arena`.
    pub(super) fn new(arena: &Arena) -> Lent {
        let words = vec![0; arena.frames().div_ceil(64) as usize].into_boxed_slice();
        Lent { arena: arena.clone(), words, count: 0, lost: false }
    }

    /// How many there are.
    #[inline]
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Takes a buffer of this arena in; gives the address of its first byte of data.
    #[inline]
    pub(super) fn lend(&mut self, buffer: Buffer) -> u64 {
        let address = buffer.address();
        let index = buffer.into_index().0;
        self.words[index as usize / 64] |= 1 << (index % 64);
        self.count += 1;
        address
    }

    /// The frame that `address` lies in, as an empty buffer; `None` if it is not in the kernel's hands.
    #[inline]
    pub(super) fn take_back(&mut self, address: u64) -> Option<Buffer> {
        let index = u32::try_from(address / FRAME_SIZE as u64).ok()?;
        let word = self.words.get_mut(index as usize / 64)?;
        let bit = 1 << (index % 64);
        if *word & bit == 0 {
            return None;
        }
        *word &= !bit;
        self.count -= 1;
        // SAFETY: the frame came in by `lend`, which consumed its buffer, and leaves the set here; the kernel named
        // it in a completion or an rx descriptor (or has closed the socket), after which it does not write it.
        Some(unsafe { self.arena.reclaim(FrameIndex(index)) })
    }

    /// The set, leaving an empty one of no frames.
    pub(super) fn take(&mut self) -> Lent {
        let (words, count) = (std::mem::take(&mut self.words), std::mem::take(&mut self.count));
        Lent { arena: self.arena.clone(), words, count, lost: self.lost }
    }

    /// Says whether the kernel may hold on to the frames after the socket is closed.
    pub(super) fn set_lost(&mut self, lost: bool) {
        self.lost = lost;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.lost {
            return;
        }
        for word in 0..self.words.len() {
            while self.words[word] != 0 {
                let index = word as u64 * 64 + u64::from(self.words[word].trailing_zeros());
                drop(self.take_back(index * FRAME_SIZE as u64));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::HugePages;

    #[test]
    fn a_frame_comes_back_once() {
        let arena = Arena::new(512, HugePages::Off).unwrap();
        let mut pool = arena.pool();
        let mut lent = Lent::new(&arena);
        let buffer = pool.get().unwrap();
        let index = buffer.index();
        let address = lent.lend(buffer);
        assert_eq!((lent.count(), arena.free()), (1, arena.frames() - 1));
        assert_eq!(lent.take_back(address + 77).unwrap().index(), index);
        assert!(lent.take_back(address).is_none(), "twice");
        assert!(lent.take_back(u64::MAX).is_none() && lent.take_back(1 << 40).is_none(), "no such frame");
        for _ in 0..70 {
            lent.lend(pool.get().unwrap());
        }
        let taken = lent.take();
        assert_eq!((lent.count(), taken.count(), arena.free()), (0, 70, arena.frames() - 70));
        drop((lent, taken));
        assert_eq!(arena.free(), arena.frames());
    }
}
