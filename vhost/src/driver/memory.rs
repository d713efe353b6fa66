//! Memory that a driver shares, as the driver itself sees it: numbers and bytes at guest addresses.
//!
//! An address outside of it is the caller's mistake and panics: this is the side that makes the addresses.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::memfd;
use crate::memory::{GuestMemory, Hint, RegionSpec};

/// Where the memory begins for the guest.
pub const GUEST: u64 = 1 << 32;
/// Where it begins for the front end.
pub const USER: u64 = 1 << 40;

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
        let file = memfd(bytes)?;
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

    fn place(&self, offset: u64, bytes: usize) -> NonNull<u8> {
        let found = self.memory.guest(&mut Hint::default(), GUEST + offset, bytes as u64);
        match found {
            Some((place, together)) if together == bytes as u64 => place,
            _ => panic!("{bytes} bytes at {offset:#x} are not in the shared memory"),
        }
    }

    /// Writes bytes.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let place = self.place(offset, bytes.len());
        // SAFETY: `place` holds so many bytes of the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), bytes.len()) };
    }

    /// Reads bytes.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        let place = self.place(offset, bytes.len());
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(place.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
    }

    fn word(&self, offset: u64) -> &AtomicU16 {
        assert!(offset.is_multiple_of(2));
        // SAFETY: in the mapping, which lives as long as `self`, and aligned as the mapping is.
        unsafe { AtomicU16::from_ptr(self.place(offset, 2).as_ptr().cast()) }
    }

    /// Loads an index.
    pub fn load(&self, offset: u64) -> u16 {
        u16::from_le(self.word(offset).load(Ordering::Acquire))
    }

    /// Stores an index; what was written before is seen before.
    pub fn store(&self, offset: u64, value: u16) {
        self.word(offset).store(value.to_le(), Ordering::Release);
    }
}
