//! Memory that a driver shares, as the driver itself sees it: numbers and bytes at offsets.
//!
//! One region, which the other side maps, too, and may write at any moment: what is read is copied out.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::fs::MemfdFlags;

use super::memfd_with;
use crate::memory::{GuestMemory, Hint, RegionSpec};

/// Where the memory begins for the guest.
pub const GUEST: u64 = 1 << 32;
/// Where it begins for the front end.
pub const USER: u64 = 1 << 40;

/// Bytes of a huge page.
const HUGE: u64 = 2 << 20;

/// Bytes that are not in the memory, or not aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes at offset {offset:#x} are not in the shared memory, or not aligned")]
pub struct Outside {
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// One region of shared memory.
pub struct SharedMemory {
    file: File,
    spec: RegionSpec,
    memory: Arc<GuestMemory>,
}

impl SharedMemory {
    /// Memory of `bytes` bytes.
    ///
    /// # Errors
    /// It could not be had.
    pub fn new(bytes: u64) -> io::Result<SharedMemory> {
        SharedMemory::of(bytes, MemfdFlags::CLOEXEC)
    }

    /// Memory of at least `bytes` bytes in huge pages.
    ///
    /// # Errors
    /// It could not be had: too few huge pages are reserved.
    pub fn huge(bytes: u64) -> io::Result<SharedMemory> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        SharedMemory::of(bytes.next_multiple_of(HUGE), flags)
    }

    fn of(bytes: u64, flags: MemfdFlags) -> io::Result<SharedMemory> {
        let file = memfd_with(bytes, flags)?;
        let spec = RegionSpec { guest: GUEST, user: USER, bytes, offset: 0 };
        let memory = GuestMemory::map([(spec, file.try_clone()?)], None).map_err(io::Error::other)?;
        Ok(SharedMemory { file, spec, memory: Arc::new(memory) })
    }

    /// The file and the region, for the message that shares them.
    pub fn region(&self) -> (&File, RegionSpec) {
        (&self.file, self.spec)
    }

    /// The mapping, for a device in the same process.
    pub fn mapped(&self) -> Arc<GuestMemory> {
        self.memory.clone()
    }

    /// Where `bytes` bytes lie, aligned to `align`. They stay there as long as the value lives.
    ///
    /// # Errors
    /// Not all of them are in the memory, or they are not aligned.
    pub fn place(&self, offset: u64, bytes: u64, align: usize) -> Result<NonNull<u8>, Outside> {
        let outside = Outside { offset, bytes };
        let address = GUEST.checked_add(offset).ok_or(outside)?;
        match self.memory.guest(&mut Hint::default(), address, bytes) {
            Some((place, together)) if together == bytes && place.addr().get().is_multiple_of(align) => {
                Ok(place)
            }
            _ => Err(outside),
        }
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// They are not in the memory.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Outside> {
        if bytes.is_empty() {
            return Ok(());
        }
        let place = self.place(offset, bytes.len() as u64, 1)?;
        // SAFETY: `place` holds so many bytes of the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// They are not in the memory.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Outside> {
        if bytes.is_empty() {
            return Ok(());
        }
        let place = self.place(offset, bytes.len() as u64, 1)?;
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(place.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn word(&self, offset: u64) -> Result<&AtomicU16, Outside> {
        let place = self.place(offset, 2, 2)?;
        // SAFETY: in the mapping, which lives as long as `self`, and aligned.
        Ok(unsafe { AtomicU16::from_ptr(place.as_ptr().cast()) })
    }

    /// Loads an index.
    ///
    /// # Errors
    /// It is not in the memory, or not aligned.
    pub fn load(&self, offset: u64) -> Result<u16, Outside> {
        Ok(u16::from_le(self.word(offset)?.load(Ordering::Acquire)))
    }

    /// Stores an index; what was written before is seen before.
    ///
    /// # Errors
    /// It is not in the memory, or not aligned.
    pub fn store(&self, offset: u64, value: u16) -> Result<(), Outside> {
        self.word(offset)?.store(value.to_le(), Ordering::Release);
        Ok(())
    }
}
