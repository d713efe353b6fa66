//! Chains that were taken from a ring and not given back yet, in order.
//!
//! What the guest offers is turned into chains and pieces a batch at a time, and used up from the front. A ring of
//! buffers that we write is kept ahead of the frames: its chains are here, and their first lines on their way to
//! this core, before there is a frame for them.

use std::ptr::NonNull;

use pmd::BATCH;

/// Bytes of a buffer that lie together.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub(crate) start: NonNull<u8>,
    pub(crate) bytes: u32,
}

// SAFETY is not at stake: a pointer is only a number until somebody, in an unsafe block, follows it.
#[allow(unsafe_code)]
const _: () = {
    // SAFETY: nothing is done through the pointer here; who follows it answers for that.
    unsafe impl Send for Piece {}
};

/// A chain of descriptors: one frame, or one buffer for a frame.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// Where it lies, if it is in one piece.
    pub(super) start: NonNull<u8>,
    /// Bytes of its buffers; `u32::MAX` stands for more.
    pub bytes: u32,
    /// How many pieces it has; 0 if it is in one piece and that is `start`.
    pieces: u32,
    /// The first of them.
    first: u32,
    /// By which it is given back: split, its first descriptor; packed, the id of its buffer.
    pub id: u16,
    /// Entries of the ring that it takes (packed).
    pub entries: u16,
}

#[allow(unsafe_code)]
const _: () = {
    // SAFETY: as for a piece.
    unsafe impl Send for Chain {}
};

impl Default for Chain {
    fn default() -> Self {
        Chain { start: NonNull::dangling(), bytes: 0, pieces: 0, first: 0, id: 0, entries: 1 }
    }
}

impl Chain {
    /// A chain that is one buffer in one piece.
    #[inline(always)]
    pub fn single(start: NonNull<u8>, bytes: u32, id: u16) -> Chain {
        Chain { start, bytes, pieces: 0, first: 0, id, entries: 1 }
    }

    /// Whether it lies at `start`, and is not in pieces.
    #[inline(always)]
    pub fn is_single(&self) -> bool {
        self.pieces == 0
    }
}

/// Chains with their pieces.
pub struct Taken {
    /// Those from `next` to `end` are not used yet, those before are.
    chains: Vec<Chain>,
    next: usize,
    end: usize,
    pieces: Vec<Piece>,
    /// The pieces of some chains, one after the other.
    list: Vec<Piece>,
}

/// Chains that there is room for from the beginning: a frame of 64 KB in buffers of 64 bytes. A guest with smaller
/// ones has us allocate once more.
const ROOM: usize = 1024 + 4 * BATCH;

impl Default for Taken {
    fn default() -> Self {
        let (pieces, list) = (Vec::with_capacity(ROOM), Vec::with_capacity(ROOM));
        Taken { chains: vec![Chain::default(); ROOM], next: 0, end: 0, pieces, list }
    }
}

impl Taken {
    /// Chains that are not used yet.
    #[inline]
    pub fn left(&self) -> &[Chain] {
        &self.chains[self.next..self.end]
    }

    /// Chains that are used, of which nobody has heard yet.
    #[inline]
    pub fn used(&self) -> &[Chain] {
        &self.chains[..self.next]
    }

    /// Uses the next `count` chains.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        self.next = (self.next + count).min(self.end);
    }

    /// Forgets those that are used.
    #[inline]
    pub fn forget_used(&mut self) {
        if self.next == self.end {
            self.clear();
        } else if self.next > 0 {
            self.chains.copy_within(self.next..self.end, 0);
            (self.next, self.end) = (0, self.end - self.next);
            self.forget_pieces();
        }
    }

    /// Forgets the pieces before those of the first chain that has some.
    #[inline]
    fn forget_pieces(&mut self) {
        let chains = &mut self.chains[..self.end];
        let Some(first) = chains.iter().find(|chain| !chain.is_single()).map(|chain| chain.first) else {
            return self.pieces.clear();
        };
        self.pieces.drain(..first as usize);
        chains.iter_mut().for_each(|chain| chain.first = chain.first.wrapping_sub(first));
    }

    /// Forgets all.
    #[inline]
    pub fn clear(&mut self) {
        self.pieces.clear();
        (self.next, self.end) = (0, 0);
    }

    /// Room for `count` chains more, of which [`add`](Self::add) says how many there are.
    #[inline]
    pub fn room(&mut self, count: usize) -> &mut [Chain] {
        let wanted = self.end + count;
        if wanted > self.chains.len() {
            self.chains.resize(wanted, Chain::default());
        }
        &mut self.chains[self.end..wanted]
    }

    /// Adds the first `count` chains that were written to the [room](Self::room).
    #[inline]
    pub fn add(&mut self, count: usize) {
        self.end = (self.end + count).min(self.chains.len());
    }

    /// The pieces of a chain.
    pub fn pieces_of(&mut self, chain: Chain) -> &[Piece] {
        self.list.clear();
        self.list_pieces(chain);
        &self.list
    }

    /// The pieces of `count` chains from the next one on.
    pub fn pieces(&mut self, count: usize) -> &[Piece] {
        self.list.clear();
        for at in self.next..self.end.min(self.next + count) {
            self.list_pieces(self.chains[at]);
        }
        &self.list
    }

    fn list_pieces(&mut self, chain: Chain) {
        if chain.is_single() {
            self.list.push(Piece { start: chain.start, bytes: chain.bytes });
        } else {
            let (first, count) = (chain.first as usize, chain.pieces as usize);
            self.list.extend_from_slice(&self.pieces[first..first + count]);
        }
    }

    /// Adds the chain of what `collect` adds to the pieces; it gives the chain's id and entries. Gives the entries.
    /// Nothing is added if it fails.
    pub fn push_chain<E>(
        &mut self,
        collect: impl FnOnce(&mut Vec<Piece>) -> Result<(u16, u16), E>,
    ) -> Result<u16, E> {
        let first = self.pieces.len();
        match collect(&mut self.pieces) {
            Ok((id, entries)) => {
                let bytes =
                    self.pieces[first..].iter().fold(0u32, |all, piece| all.saturating_add(piece.bytes));
                // A chain of no bytes has one piece of none.
                if self.pieces.len() == first {
                    self.pieces.push(Piece { start: NonNull::dangling(), bytes: 0 });
                }
                let pieces = (self.pieces.len() - first) as u32;
                let chain = Chain { bytes, pieces, first: first as u32, id, entries, ..Chain::default() };
                if let Some(place) = self.room(1).first_mut() {
                    *place = chain;
                }
                self.add(1);
                Ok(entries)
            }
            Err(error) => {
                self.pieces.truncate(first);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_used_in_order_and_keep_their_pieces() {
        let mut bytes = [0u8; 64];
        let start = NonNull::from(&mut bytes).cast::<u8>();
        let mut taken = Taken::default();
        let single = |taken: &mut Taken, bytes, id| {
            taken.room(1)[0] = Chain::single(start, bytes, id);
            taken.add(1);
        };
        single(&mut taken, 1, 7);
        let two = |pieces: &mut Vec<Piece>| {
            pieces.extend([2, 3].map(|bytes| Piece { start, bytes }));
            Ok::<_, ()>((8, 2))
        };
        assert_eq!(taken.push_chain(two), Ok(2));
        let bad = |pieces: &mut Vec<Piece>| {
            pieces.push(Piece { start, bytes: 9 });
            Err(())
        };
        assert_eq!(taken.push_chain(bad), Err(()));
        single(&mut taken, 4, 9);
        assert_eq!(taken.push_chain(|_| Ok::<_, ()>((3, 1))), Ok(1));
        assert_eq!(taken.push_chain(two), Ok(2));
        let sizes = |taken: &mut Taken, count| -> Vec<u32> {
            taken.pieces(count).iter().map(|piece| piece.bytes).collect()
        };
        assert_eq!((sizes(&mut taken, 5), sizes(&mut taken, 1)), (vec![1, 2, 3, 4, 0, 2, 3], vec![1]));
        let singles: Vec<_> = taken.left().iter().map(Chain::is_single).collect();
        assert_eq!(singles, [true, false, true, false, false]);
        taken.advance(1);
        assert_eq!(taken.used().iter().map(|chain| chain.id).collect::<Vec<_>>(), [7]);
        taken.forget_used();
        assert_eq!((sizes(&mut taken, 1), taken.left()[0].bytes, taken.used().len()), (vec![2, 3], 5, 0));
        taken.advance(1);
        taken.forget_used();
        assert_eq!((sizes(&mut taken, 9), taken.left().len()), (vec![4, 0, 2, 3], 3));
        taken.advance(2);
        taken.forget_used();
        let last = taken.left()[0];
        assert_eq!(taken.pieces_of(last).iter().map(|piece| piece.bytes).collect::<Vec<_>>(), [2, 3]);
        taken.advance(5);
        taken.forget_used();
        assert!(taken.left().is_empty() && taken.pieces(1).is_empty());
    }

    #[test]
    fn there_is_room_for_any_number() {
        let mut taken = Taken::default();
        for round in 0..3 {
            assert_eq!(taken.room(ROOM).len(), ROOM, "{round}");
            taken.add(ROOM);
        }
        assert_eq!(taken.left().len(), 3 * ROOM);
    }
}
