//! What may be read of a frame, and where the current layer ends.

use super::bytes_at;

/// What can be read (`window`) and where the current layer ends (`end`, from the start of the frame).
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) window: &'a [u8],
    pub(super) end: usize,
}

/// Whether a header could be read.
pub(super) enum Reach<const N: usize> {
    /// Here it is.
    Read([u8; N]),
    /// The layer ends before it does.
    Truncated,
    /// It lies past the window.
    Hidden,
}

impl View<'_> {
    #[inline]
    pub(super) fn read<const N: usize>(self, at: usize) -> Reach<N> {
        if at + N > self.end {
            return Reach::Truncated;
        }
        match bytes_at(self.window, at) {
            Some(bytes) => Reach::Read(bytes),
            None => Reach::Hidden,
        }
    }
}
