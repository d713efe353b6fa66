//! A virtqueue of either kind, driver side: what a [`Queue`](super::queue::Queue) needs of one.

use super::memory::Outside;
use super::packed::PackedDriver;
use super::split::SplitDriver;
use crate::ring::{Layout, with_ring};

/// The chain goes on.
pub const NEXT: u16 = 1;
/// The device writes the buffer.
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// Bytes of a cache line: the parts of a ring begin on lines of their own.
pub(super) const LINE: u64 = 64;

/// One descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest address of the buffer.
    pub address: u64,
    /// Its bytes.
    pub bytes: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// The next descriptor, of a split ring.
    pub next: u16,
}

impl Descriptor {
    pub(super) fn words(self) -> [u64; 2] {
        [self.address, u64::from(self.bytes) | u64::from(self.flags) << 32 | u64::from(self.next) << 48]
    }

    /// As it lies in the memory of a split ring, or of a table of one.
    pub fn to_bytes(self) -> [u8; 16] {
        let [address, rest] = self.words();
        (u128::from(address) | u128::from(rest) << 64).to_le_bytes()
    }
}

/// A ring of either kind.
pub enum Ring {
    /// `VIRTIO_F_RING_PACKED` was not agreed on.
    Split(SplitDriver),
    /// It was.
    Packed(PackedDriver),
}

impl Ring {
    /// Bytes that a ring of `size` entries takes.
    pub fn bytes(packed: bool, size: u16) -> u64 {
        if packed { PackedDriver::bytes(size) } else { SplitDriver::bytes(size) }
    }

    /// Where it is, for the device.
    pub fn layout(&self) -> Layout {
        with_ring!(self, ring => ring.layout())
    }

    /// Where a device begins that has used nothing yet, as SET_VRING_BASE gives it (vhost-user.rst).
    pub fn base(&self) -> u16 {
        match self {
            Ring::Split(_) => 0,
            // The wrap counters begin with one.
            Ring::Packed(_) => 1 << 15,
        }
    }

    /// Puts a chain of one descriptor into the ring, for [`publish`](Self::publish) to show.
    #[inline]
    pub fn stage(&mut self, id: u16, descriptor: Descriptor) {
        match self {
            Ring::Split(ring) => ring.stage(id, descriptor),
            Ring::Packed(ring) => {
                ring.stage(id, &[(descriptor.address, descriptor.bytes)], descriptor.flags);
            }
        }
    }

    /// Shows the device what was staged.
    #[inline]
    pub fn publish(&mut self) {
        with_ring!(self, ring => ring.publish());
    }

    /// Whether the device is to be kicked for what it was shown since it was asked last.
    #[inline]
    pub fn is_kick_due(&mut self) -> bool {
        with_ring!(self, ring => ring.is_kick_due())
    }

    /// Fetches what [`waiting`](Self::waiting) looks at first.
    #[inline]
    pub fn fetch(&self) {
        with_ring!(self, ring => ring.fetch());
    }

    /// How many chains the device has given back that were not collected; more than `limit` are counted as that.
    #[inline]
    pub fn waiting(&mut self, limit: u16) -> u16 {
        match self {
            Ring::Split(ring) => ring.waiting().min(limit),
            Ring::Packed(ring) => ring.waiting(limit),
        }
    }

    /// The next chain that the device gave back, and how many bytes were written, as the device says.
    #[inline]
    pub fn peek(&mut self) -> Option<(u32, u32)> {
        with_ring!(self, ring => ring.peek())
    }

    /// Counts the chain `id` as collected.
    #[inline]
    pub fn advance(&mut self, id: u16) {
        match self {
            Ring::Split(ring) => ring.advance(),
            Ring::Packed(ring) => ring.advance(id),
        }
    }

    /// Whether the device may have given back `more` chains beyond the next one, for which it wrote nothing.
    pub fn has(&self, more: u16) -> bool {
        match self {
            Ring::Split(ring) => ring.has(more),
            // It is not told how many there are; the one that it names says so.
            Ring::Packed(_) => true,
        }
    }

    /// Asks the device to call, or not.
    pub fn want_call(&mut self, wanted: bool) {
        with_ring!(self, ring => ring.want_call(wanted));
    }
}

/// A size that no ring has, as an error of its place.
pub(super) fn checked(size: u16, at: u64, bytes: u64) -> Result<u16, Outside> {
    if size.is_power_of_two() { Ok(size) } else { Err(Outside { offset: at, bytes }) }
}
