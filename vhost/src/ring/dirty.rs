//! Which pages of a guest's memory we have written, while somebody copies it to another machine.
//!
//! The front end shares a bitmap with a bit for each page ("Migration" in vhost-user.rst). A bit is set after its page
//! has been written, and before the guest or the front end is told anything that follows from it. Only a port that is
//! being migrated pays for any of this.
#![allow(unsafe_code)]

use std::ops::RangeInclusive;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::taken::Piece;
use crate::memory::GuestMemory;

/// Bytes of a page, whatever the guest's are.
const PAGE: u64 = 4096;

/// The bitmap. It is the other side's, and may be shorter than its memory needs: that is its own loss.
pub struct Bitmap {
    start: NonNull<u8>,
    bytes: u64,
    /// Keeps it mapped.
    memory: Arc<GuestMemory>,
}

// SAFETY: the pointer is into the memory, which lives as long; the bits are only changed by atomic operations.
unsafe impl Send for Bitmap {}
// SAFETY: as above.
unsafe impl Sync for Bitmap {}

impl Bitmap {
    /// A bitmap of all of the `bytes` bytes that `memory` has from its address 0 on. `None` if it has not so many.
    pub fn new(memory: Arc<GuestMemory>, bytes: u64) -> Option<Bitmap> {
        let start = memory.user(0, bytes, 1)?;
        Some(Bitmap { start, bytes, memory })
    }

    /// The memory that it lies in.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Notes that the page with this number was written.
    fn set(&self, page: u64) {
        let at = page / 8;
        if at < self.bytes {
            // SAFETY: within the bitmap, which is mapped. Nothing else is done to it but this.
            let byte = unsafe { AtomicU8::from_ptr(self.start.as_ptr().add(at as usize)) };
            byte.fetch_or(1 << (page % 8), Ordering::Release);
        }
    }
}

/// The bitmap as one ring needs it.
#[derive(Clone)]
pub struct Dirty {
    bitmap: Arc<Bitmap>,
    memory: Arc<GuestMemory>,
    /// The pages of what we write of the ring itself.
    ring: Vec<RangeInclusive<u64>>,
}

impl Dirty {
    /// For a ring in `memory`, of which we write these parts: guest addresses, which need not lie in there, and bytes.
    pub fn new(
        bitmap: Arc<Bitmap>,
        memory: Arc<GuestMemory>,
        parts: impl IntoIterator<Item = (u64, u64)>,
    ) -> Dirty {
        let parts = parts.into_iter().filter(|(_, bytes)| *bytes > 0);
        Dirty { ring: parts.map(|(address, bytes)| pages(address, bytes)).collect(), bitmap, memory }
    }

    /// The first `bytes` bytes of these pieces were written.
    #[cold]
    pub(super) fn mark(&self, pieces: &[Piece], mut bytes: u32) {
        for piece in pieces {
            let written = piece.bytes.min(bytes);
            bytes -= written;
            if written == 0 {
                continue;
            }
            if let Some(first) = self.memory.address(piece.start) {
                pages(first, written.into()).for_each(|page| self.bitmap.set(page));
            }
        }
    }

    /// Something of the ring itself was written: which part of its few pages is not worth telling.
    #[cold]
    pub(super) fn mark_ring(&self) {
        self.ring.iter().cloned().flatten().for_each(|page| self.bitmap.set(page));
    }
}

/// The pages that some bytes lie in; there is at least one.
fn pages(first: u64, bytes: u64) -> RangeInclusive<u64> {
    first / PAGE..=first.saturating_add(bytes - 1) / PAGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::memfd;
    use crate::memory::RegionSpec;

    fn memory(guest: u64, bytes: u64) -> Arc<GuestMemory> {
        let spec = RegionSpec { guest, user: guest, bytes, offset: 0 };
        Arc::new(GuestMemory::map([(spec, memfd(bytes).unwrap())], None).unwrap())
    }

    #[test]
    fn a_page_that_was_written_has_its_bit_and_no_other() {
        let guest = memory(0x1_0000, 0x1_0000);
        let log = memory(0, 4096);
        // Four bytes: pages 0 to 31.
        let bitmap = Arc::new(Bitmap::new(log.clone(), 4).unwrap());
        assert!(Bitmap::new(log.clone(), 4097).is_none());
        let dirty = Dirty::new(bitmap, guest.clone(), [(0x1_3000, 8), (0x1_fff0, 16), (0, 1), (u64::MAX, 9)]);
        let bits = || {
            let at = log.user(0, 4, 1).unwrap();
            // SAFETY: four bytes of a mapping that nobody else has.
            u32::from_le_bytes(unsafe { at.cast::<[u8; 4]>().read() })
        };
        let piece = |address, bytes| Piece { start: guest.user(address, 1, 1).unwrap(), bytes };
        dirty.mark(&[piece(0x1_0fff, 0), piece(0x1_0fff, 1)], 1);
        assert_eq!(bits(), 1 << 16);
        dirty.mark(&[piece(0x1_1fff, 2), piece(0x1_4000, 100), piece(0x1_5000, 1)], 5);
        assert_eq!(bits(), 0b10111 << 16);
        dirty.mark_ring();
        // What is written of the ring need not be the guest's, if there is a bit for it.
        assert_eq!(bits(), 0b1000_0000_0001_1111 << 16 | 1);
        // Beyond the bitmap nothing is written.
        let far = memory(0x2_0000, 0x1000);
        let start = far.user(0x2_0000, 1, 1).unwrap();
        let dirty = Dirty::new(dirty.bitmap, far, []);
        dirty.mark(&[Piece { start, bytes: 1 }], 1);
        // SAFETY: as above.
        assert_eq!(unsafe { log.user(4, 1, 1).unwrap().read() }, 0);
    }
}
