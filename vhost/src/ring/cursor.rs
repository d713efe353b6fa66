//! A cursor over the pieces of one frame: reading and writing that goes over their borders.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::access::Access;
use super::taken::Piece;

/// Takes pieces off the front of a list of pieces.
pub(crate) struct Cursor<'p> {
    pieces: &'p [Piece],
    /// Bytes of the first piece that are taken.
    taken: u32,
}

impl<'p> Cursor<'p> {
    pub(crate) fn new(pieces: &'p [Piece]) -> Cursor<'p> {
        Cursor { pieces, taken: 0 }
    }

    /// The next bytes that lie together, at most `most` and at least one. `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self, most: u32) -> Option<Piece> {
        let [first, rest @ ..] = self.pieces else { return None };
        // SAFETY: less of the piece is taken than it holds.
        let start = unsafe { first.start.add(self.taken as usize) };
        let bytes = (first.bytes - self.taken).min(most);
        self.taken += bytes;
        if self.taken == first.bytes {
            (self.pieces, self.taken) = (rest, 0);
        }
        Some(Piece { start, bytes })
    }

    /// Copies the next bytes to private memory; fewer if there are fewer.
    #[inline]
    pub(crate) fn read(&mut self, access: &mut impl Access, mut to: &mut [u8]) {
        while !to.is_empty() {
            let Some(piece) = self.next(to.len() as u32) else { return };
            let (now, later) = to.split_at_mut(piece.bytes as usize);
            // SAFETY: a piece of a chain lies in the ring's memory, which is mapped.
            unsafe { access.copy(piece.start, now) };
            to = later;
        }
    }

    /// Into how many pieces what is left falls.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.pieces.len()
    }

    /// Writes `bytes` of foreign or private memory at `from` behind the cursor.
    ///
    /// # Safety
    /// The bytes are readable, and the cursor's pieces are writable buffers that are mapped. They may overlap.
    #[inline]
    pub(crate) unsafe fn write(&mut self, mut from: NonNull<u8>, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let Some(piece) = self.next(left.min(u32::MAX as usize) as u32) else { return };
            let now = piece.bytes as usize;
            // SAFETY: readable and writable, says the caller. Two guests, or one, may have named the same bytes.
            unsafe {
                std::ptr::copy(from.as_ptr(), piece.start.as_ptr(), now);
                from = from.add(now);
            }
            left -= now;
        }
    }
}
