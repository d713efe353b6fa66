//! A split virtqueue, driver side: Virtual I/O Device 1.2, section 2.7.
//!
//! The parts that a ring is made of can each be written by hand; [`SplitDriver::offer`] and
//! [`SplitDriver::collect`] are the decent way.

use std::sync::Arc;

use super::memory::{GUEST, SharedMemory, USER};
use crate::ring::Layout;

/// The chain goes on.
pub const NEXT: u16 = 1;
/// The device writes the buffer.
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// One descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest address of the buffer.
    pub address: u64,
    /// Its bytes.
    pub bytes: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// The next descriptor.
    pub next: u16,
}

impl Descriptor {
    /// As it lies in memory.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// The driver side of a split virtqueue.
pub struct SplitDriver {
    memory: Arc<SharedMemory>,
    size: u16,
    /// Offset of the descriptor table; the rings follow it.
    at: u64,
    available: u16,
    collected: u16,
}

impl SplitDriver {
    /// A ring of `size` entries at offset `at` of the memory, aligned to 16.
    pub fn new(memory: Arc<SharedMemory>, at: u64, size: u16) -> SplitDriver {
        SplitDriver { memory, size, at, available: 0, collected: 0 }
    }

    /// Bytes that a ring of `size` entries takes.
    pub fn bytes(size: u16) -> u64 {
        let size = u64::from(size);
        16 * size + (6 + 2 * size).next_multiple_of(16) + (6 + 8 * size).next_multiple_of(16)
    }

    fn available_at(&self) -> u64 {
        self.at + 16 * u64::from(self.size)
    }

    fn used_at(&self) -> u64 {
        self.available_at() + (6 + 2 * u64::from(self.size)).next_multiple_of(16)
    }

    /// Where it is, for the device.
    pub fn layout(&self) -> Layout {
        Layout {
            size: self.size.into(),
            descriptors: USER + self.at,
            available: USER + self.available_at(),
            used: USER + self.used_at(),
        }
    }

    /// Writes a descriptor.
    pub fn describe(&self, index: u16, descriptor: Descriptor) {
        self.memory.write(self.at + 16 * u64::from(index), &descriptor.to_bytes());
    }

    /// Writes a chain over `buffers` (offset, bytes), with descriptors from `first` on.
    pub fn chain(&self, first: u16, buffers: &[(u64, u32)], flags: u16) {
        for (i, &(offset, bytes)) in (0..).zip(buffers) {
            let last = usize::from(i) + 1 == buffers.len();
            let (flags, next) = if last { (flags, 0) } else { (flags | NEXT, first + i + 1) };
            self.describe(first + i, Descriptor { address: GUEST + offset, bytes, flags, next });
        }
    }

    /// Makes the chain that begins at descriptor `head` available.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available & (self.size - 1));
        self.memory.store(self.available_at() + 4 + 2 * slot, head);
        self.available = self.available.wrapping_add(1);
        self.set_available(self.available);
    }

    /// Sets the available index.
    pub fn set_available(&self, index: u16) {
        self.memory.store(self.available_at() + 2, index);
    }

    /// The next chain that the device gave back: its head, and how many bytes were written.
    pub fn collect(&mut self) -> Option<(u16, u32)> {
        if self.memory.load(self.used_at() + 2) == self.collected {
            return None;
        }
        let mut entry = [0; 8];
        let slot = u64::from(self.collected & (self.size - 1));
        self.memory.read(self.used_at() + 4 + 8 * slot, &mut entry);
        self.collected = self.collected.wrapping_add(1);
        let [head, written] =
            [0, 4].map(|at| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]));
        Some((head as u16, written))
    }

    /// Whether the device asked to be kicked, by the flag of the used ring.
    pub fn wants_kick(&self) -> bool {
        self.memory.load(self.used_at()) & 1 == 0
    }

    /// At which available index the device asked to be kicked.
    pub fn kick_event(&self) -> u16 {
        self.memory.load(self.used_at() + 4 + 8 * u64::from(self.size))
    }

    /// Asks the device to call, or not.
    pub fn want_call(&self, wanted: bool) {
        self.memory.store(self.available_at(), u16::from(!wanted));
    }

    /// Asks the device to call when it has used the chain of this index.
    pub fn set_call_event(&self, index: u16) {
        self.memory.store(self.available_at() + 4 + 2 * u64::from(self.size), index);
    }
}
