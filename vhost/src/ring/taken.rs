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
#[derive(Clone, Copy, Debug, Default)]
pub struct Chain {
    /// Bytes of its buffers; `u32::MAX` stands for more.
    pub bytes: u32,
    /// Its first piece.
    pub(super) first: u32,
    /// How many it has.
    pub(super) pieces: u32,
    /// By which it is given back: split, its first descriptor; packed, the id of its buffer.
    pub id: u16,
    /// Entries of the ring that it takes (packed).
    pub entries: u16,
}

/// Chains with their pieces.
pub struct Taken {
    chains: Vec<Chain>,
    pieces: Vec<Piece>,
    /// The first chain that is not used yet.
    next: usize,
}

impl Default for Taken {
    fn default() -> Self {
        // Frames of 64 KB in buffers of 64 bytes; a guest with smaller ones has us allocate once more.
        Taken { chains: Vec::with_capacity(1024 + 2 * BATCH), pieces: Vec::with_capacity(2048), next: 0 }
    }
}

impl Taken {
    /// Chains that are not used yet.
    #[inline]
    pub fn left(&self) -> &[Chain] {
        &self.chains[self.next..]
    }

    /// Chains that are used, of which nobody has heard yet.
    #[inline]
    pub fn used(&self) -> &[Chain] {
        &self.chains[..self.next]
    }

    /// Uses the next `count` chains.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        self.next = (self.next + count).min(self.chains.len());
    }

    /// Forgets those that are used.
    #[inline]
    pub fn forget_used(&mut self) {
        if self.next == self.chains.len() {
            self.clear();
        } else if self.next > 0 {
            self.shift();
        }
    }

    /// Forgets all.
    #[inline]
    pub fn clear(&mut self) {
        self.chains.clear();
        self.pieces.clear();
        self.next = 0;
    }

    fn shift(&mut self) {
        let first = self.chains[self.next].first;
        self.pieces.drain(..first as usize);
        self.chains.drain(..self.next);
        self.chains.iter_mut().for_each(|chain| chain.first -= first);
        self.next = 0;
    }

    /// The pieces of a chain.
    #[inline]
    pub fn pieces_of(&self, chain: &Chain) -> &[Piece] {
        &self.pieces[chain.first as usize..(chain.first + chain.pieces) as usize]
    }

    /// The pieces of `count` chains from the next one on; they lie together.
    #[inline]
    pub fn pieces(&self, count: usize) -> &[Piece] {
        match (self.left().first(), self.left().get(..count).and_then(<[_]>::last)) {
            (Some(first), Some(last)) => {
                &self.pieces[first.first as usize..(last.first + last.pieces) as usize]
            }
            _ => &[],
        }
    }

    /// Chains that are not used yet, each with its place if it is in one piece.
    #[inline]
    pub fn singles(&self) -> impl Iterator<Item = (Chain, Option<Piece>)> {
        self.left().iter().map(|chain| {
            let piece = if chain.pieces == 1 { self.pieces.get(chain.first as usize) } else { None };
            (*chain, piece.copied())
        })
    }

    /// Adds a chain of one piece.
    #[inline]
    pub fn push(&mut self, id: u16, piece: Piece) {
        let first = self.pieces.len() as u32;
        self.pieces.push(piece);
        self.chains.push(Chain { bytes: piece.bytes, first, pieces: 1, id, entries: 1 });
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
                let pieces = (self.pieces.len() - first) as u32;
                self.chains.push(Chain { bytes, first: first as u32, pieces, id, entries });
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
        taken.push(7, Piece { start, bytes: 1 });
        let two = |pieces: &mut Vec<Piece>| {
            pieces.extend([2, 3].map(|bytes| Piece { start, bytes }));
            Ok::<_, ()>((8, 2))
        };
        taken.push_chain(two).unwrap();
        assert_eq!(
            taken.push_chain(|pieces| {
                pieces.push(Piece { start, bytes: 9 });
                Err(())
            }),
            Err(())
        );
        taken.push(9, Piece { start, bytes: 4 });
        let sizes = |taken: &Taken, count| -> Vec<u32> {
            taken.pieces(count).iter().map(|piece| piece.bytes).collect()
        };
        assert_eq!((sizes(&taken, 3), sizes(&taken, 1)), (vec![1, 2, 3, 4], vec![1]));
        let singles: Vec<_> = taken.singles().map(|(_, piece)| piece.map(|piece| piece.bytes)).collect();
        assert_eq!(singles, [Some(1), None, Some(4)]);
        taken.advance(1);
        assert_eq!(taken.used().iter().map(|chain| chain.id).collect::<Vec<_>>(), [7]);
        taken.forget_used();
        assert_eq!((sizes(&taken, 1), taken.left()[0].bytes, taken.used().len()), (vec![2, 3], 5, 0));
        taken.advance(1);
        taken.forget_used();
        assert_eq!((sizes(&taken, 1), taken.left().len()), (vec![4], 1));
        taken.advance(5);
        taken.forget_used();
        assert!(taken.left().is_empty() && taken.pieces(1).is_empty());
    }
}
