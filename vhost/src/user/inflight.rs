//! The inflight region: memory that the front end keeps for us while we are gone.
//!
//! "Inflight I/O tracking" in vhost-user.rst: we make the memory, the front end has it and gives it to whoever comes
//! after us. What is in it is our own business. A split ring needs nothing there, as its used index tells where it
//! stands; a packed ring has its [`Record`] there.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::memory::{GuestMemory, MemoryError, RegionSpec};
use crate::ring::Alarm;
use crate::ring::record::Record;

/// Records begin at cache lines of their own.
const LINE: usize = 64;

/// What a region is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Rings.
    pub queues: u16,
    /// Most entries of each.
    pub size: u16,
}

impl Shape {
    fn stride(self) -> usize {
        Record::bytes(self.size).next_multiple_of(LINE)
    }

    /// Bytes of the region.
    pub(super) fn bytes(self) -> u64 {
        u64::from(self.queues) * self.stride() as u64
    }

    /// Makes a region with nothing in it. Nobody can make it shorter.
    pub(super) fn make(self) -> io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create("vswitch-inflight", flags)?);
        file.set_len(self.bytes())?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(file)
    }
}

/// A region that the front end gave us.
pub(super) struct Inflight {
    pub(super) memory: Arc<GuestMemory>,
    shape: Shape,
}

impl Inflight {
    /// Maps a region that begins at `offset` of `file`. It is the other side's, and may hold anything.
    ///
    /// # Errors
    /// It cannot be mapped, or is too short.
    pub(super) fn map(
        file: File,
        offset: u64,
        shape: Shape,
        alarm: &Arc<Alarm>,
    ) -> Result<Inflight, MemoryError> {
        let spec = RegionSpec { guest: 0, user: 0, bytes: shape.bytes(), offset };
        let memory = Arc::new(GuestMemory::map([(spec, file)], Some(alarm))?);
        Ok(Inflight { memory, shape })
    }

    /// The record of ring `index`, which has `size` entries. `None` if there is none for it.
    pub(super) fn record(&self, index: usize, size: u32) -> Option<Record> {
        let size = u16::try_from(size).ok().filter(|size| *size <= self.shape.size)?;
        let within = index < usize::from(self.shape.queues);
        within.then(|| Record::new(self.memory.clone(), (index * self.shape.stride()) as u64, size)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::memfd;

    #[test]
    fn every_ring_has_a_record_of_its_own() {
        let shape = Shape { queues: 3, size: 256 };
        let file = shape.make().unwrap();
        assert!(file.set_len(0).is_err());
        let alarm = Arc::new(Alarm::new().unwrap());
        let inflight = Inflight::map(file, 0, shape, &alarm).unwrap();
        let has = |index, size| inflight.record(index, size).is_some();
        assert!(has(0, 256) && has(2, 1) && !has(3, 256) && !has(0, 257) && !has(0, 65_536 + 256));
        let short = Inflight::map(memfd(shape.bytes() - 1).unwrap(), 0, shape, &alarm).map(drop);
        assert!(matches!(short, Err(MemoryError::Short { .. })));
        assert!(Inflight::map(memfd(1 << 20).unwrap(), u64::MAX - 3, shape, &alarm).is_err());
    }
}
