//! Guest memory: what the other side shares with us, mapped, and how an address of its becomes one of ours.
//!
//! The vhost-user front end sends a table of regions with a descriptor each ("Memory region description" in
//! vhost-user.rst). Descriptors of a ring hold guest addresses, the messages that set a ring up hold the front
//! end's own addresses; both are looked up here. A table never changes: another one is another value, and a ring
//! keeps the one that it was set up with for as long as it lives, so nothing that a worker may touch is unmapped.
//!
//! Knows nothing about rings. Does not read the memory: who does is in [`ring`](crate::ring).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::guard::Mapping;
use crate::ring::Alarm;

/// Most regions of a table: as many descriptors as a message holds.
pub const REGIONS: usize = 32;

/// Most bytes of a table, and of a region with what lies before it in its file: 4 TB. Address space is shared with
/// everybody else's memory.
const TABLE_BYTES: u64 = 4 << 40;

/// A page that is surely aligned for any mapping that is not of huge pages.
const PAGE: u64 = 4096;

/// A region as the front end describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// Its guest address.
    pub guest: u64,
    /// Its address in the front end.
    pub user: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Where it begins in its file.
    pub offset: u64,
}

/// Why a table of regions is refused.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// More than [`REGIONS`].
    #[error("{0} memory regions, and at most {REGIONS} are taken")]
    Count(usize),
    /// More bytes than a table may have.
    #[error("memory regions of more than {} TB", TABLE_BYTES >> 40)]
    Total,
    /// Empty, too long, or beyond the end of the address space.
    #[error("a memory region of {} bytes at {:#x}, file offset {:#x}, is none", .0.bytes, .0.guest, .0.offset)]
    Range(RegionSpec),
    /// Two regions have an address in common.
    #[error("the memory regions at {0:#x} and {1:#x} overlap")]
    Overlap(u64, u64),
    /// The descriptor is no file that holds the region.
    #[error("the memory region at {:#x} needs {} bytes from {:#x} on of a file that has {has}", .spec.guest, .spec.bytes, .spec.offset)]
    Short {
        /// The region.
        spec: RegionSpec,
        /// Bytes of the file; 0 for what is no file.
        has: u64,
    },
    /// Its pages are not in memory.
    #[error(
        "the memory region at {0:#x} is a file that is not in memory: only those of tmpfs (a memfd, /dev/shm) and \
         hugetlbfs are taken"
    )]
    Kind(u64),
    /// It could not be mapped.
    #[error("mmap of the memory region at {guest:#x}: {error}")]
    Map {
        /// The region.
        guest: u64,
        /// What the kernel said.
        error: io::Error,
    },
}

impl MemoryError {
    /// It is more than the limits.
    pub fn is_overflow(&self) -> bool {
        match self {
            MemoryError::Count(_) | MemoryError::Total => true,
            MemoryError::Map { error, .. } => error.kind() == io::ErrorKind::QuotaExceeded,
            _ => false,
        }
    }
}

struct Region {
    guest: u64,
    user: u64,
    bytes: u64,
    host: NonNull<u8>,
    /// Keeps it mapped.
    mapping: Arc<Mapping>,
}

/// The memory of one guest.
pub struct GuestMemory {
    /// By guest address, without overlaps.
    regions: Vec<Region>,
}

// SAFETY: the pointers are into shared mappings that stay where they are as long as the value lives; what is done
// to the bytes behind them is up to the code that does it.
unsafe impl Send for GuestMemory {}
// SAFETY: as above.
unsafe impl Sync for GuestMemory {}

/// The region that an address was in last: most addresses are in the same one. It is of the memory that it was used
/// with.
#[derive(Clone, Copy, Debug)]
pub struct Hint {
    guest: u64,
    bytes: u64,
    host: *mut u8,
}

impl Default for Hint {
    fn default() -> Self {
        Hint { guest: 0, bytes: 0, host: std::ptr::null_mut() }
    }
}

impl Hint {
    /// The `bytes` bytes at guest address `address`, if all of them are in that region and there are some.
    #[inline(always)]
    pub fn whole(&self, address: u64, bytes: u32) -> Option<NonNull<u8>> {
        let within = address.wrapping_sub(self.guest);
        let bytes = u64::from(bytes);
        let holds = within < self.bytes && bytes.wrapping_sub(1) < self.bytes - within;
        if holds { NonNull::new(self.host.wrapping_add(within as usize)) } else { None }
    }
}

impl GuestMemory {
    /// Maps a table of regions. `alarm` is raised when one of them is [lost](Self::lost).
    ///
    /// # Errors
    /// A region that cannot be, overlapping ones, files that are too short or no memory.
    pub fn map(
        table: impl IntoIterator<Item = (RegionSpec, File)>,
        alarm: Option<&Arc<Alarm>>,
    ) -> Result<GuestMemory, MemoryError> {
        let (mut regions, mut total) = (Vec::new(), 0u64);
        for (spec, file) in table {
            if regions.len() == REGIONS {
                return Err(MemoryError::Count(regions.len() + 1));
            }
            total = spec
                .bytes
                .checked_add(total)
                .filter(|total| *total <= TABLE_BYTES)
                .ok_or(MemoryError::Total)?;
            regions.push(map(spec, file, alarm.cloned())?);
        }
        regions.sort_by_key(|region| region.guest);
        for pair in regions.windows(2) {
            if pair[0].guest + pair[0].bytes > pair[1].guest {
                return Err(MemoryError::Overlap(pair[0].guest, pair[1].guest));
            }
        }
        Ok(GuestMemory { regions })
    }

    /// The bytes at guest address `address`: where they are, and how many of `bytes` lie together there (at
    /// least one). `None` if the address is in no region, or `bytes` is 0.
    #[inline]
    pub fn guest(&self, hint: &mut Hint, address: u64, bytes: u64) -> Option<(NonNull<u8>, u64)> {
        if address.wrapping_sub(hint.guest) >= hint.bytes {
            *hint = self.find(address)?;
        }
        let within = address - hint.guest;
        let together = bytes.min(hint.bytes - within);
        let start = NonNull::new(hint.host.wrapping_add(within as usize))?;
        (together > 0).then_some((start, together))
    }

    #[cold]
    fn find(&self, address: u64) -> Option<Hint> {
        let at = self.regions.partition_point(|region| region.guest <= address).checked_sub(1)?;
        let Region { guest, bytes, host, .. } = &self.regions[at];
        (address - guest < *bytes).then_some(Hint { guest: *guest, bytes: *bytes, host: host.as_ptr() })
    }

    /// The guest address of a region whose file is shorter than it was, or has no memory, if somebody touched one.
    pub fn lost(&self) -> Option<u64> {
        self.regions.iter().find(|region| region.mapping.is_lost()).map(|region| region.guest)
    }

    /// All of `bytes` bytes at the front end's address `address`, in one region and aligned to `align`.
    pub fn user(&self, address: u64, bytes: u64, align: usize) -> Option<NonNull<u8>> {
        let holds = |region: &&Region| address >= region.user && address - region.user < region.bytes;
        let region = self.regions.iter().find(holds)?;
        let within = address - region.user;
        if bytes > region.bytes - within {
            return None;
        }
        // SAFETY: `within` is below the region's length.
        let place = unsafe { region.host.add(within as usize) };
        (place.as_ptr() as usize).is_multiple_of(align).then_some(place)
    }
}

impl GuestMemory {
    /// The guest address of a place in the memory.
    pub fn address(&self, place: NonNull<u8>) -> Option<u64> {
        let place = place.as_ptr() as usize;
        self.regions.iter().find_map(|region| {
            let within = place.checked_sub(region.host.as_ptr() as usize)? as u64;
            (within < region.bytes).then(|| region.guest + within)
        })
    }
}

impl std::fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes: u64 = self.regions.iter().map(|region| region.bytes).sum();
        write!(f, "GuestMemory({} regions, {bytes} bytes)", self.regions.len())
    }
}

fn map(spec: RegionSpec, file: File, alarm: Option<Arc<Alarm>>) -> Result<Region, MemoryError> {
    let end = spec.offset.checked_add(spec.bytes).filter(|end| spec.bytes > 0 && *end <= TABLE_BYTES);
    let fits = |start: u64| start.checked_add(spec.bytes).is_some();
    let (Some(end), true, true) = (end, fits(spec.guest), fits(spec.user)) else {
        return Err(MemoryError::Range(spec));
    };
    // A descriptor that is no file could block or have side effects when it is mapped or touched.
    let metadata = file.metadata().ok().filter(|metadata| metadata.is_file());
    let has = metadata.as_ref().map_or(0, MetadataExt::size);
    if end > has {
        return Err(MemoryError::Short { spec, has });
    }
    if !is_memory(&file) {
        return Err(MemoryError::Kind(spec.guest));
    }
    // Huge pages are mapped in whole pages; the file's block size is theirs.
    let block = metadata.map_or(PAGE, |metadata| metadata.blksize()).max(PAGE);
    let start = spec.offset - spec.offset % block;
    let bytes = (end.next_multiple_of(block).min(has) - start) as usize;
    let mapping = Mapping::new(file, start, bytes, alarm)
        .map_err(|error| MemoryError::Map { guest: spec.guest, error })?;
    // SAFETY: the mapping holds the file from `start` to at least `end`, and `offset` is between them.
    let host = unsafe { mapping.start().add((spec.offset - start) as usize) };
    Ok(Region { guest: spec.guest, user: spec.user, bytes: spec.bytes, host, mapping: Arc::new(mapping) })
}

/// Whether a file's pages are memory. To touch a page of another one waits for a disk, or for a process that serves
/// a file system and may never answer.
fn is_memory(file: &File) -> bool {
    const KINDS: [u64; 3] = [0x0102_1994, 0x9584_58f6, 0x8584_58f6]; // tmpfs and memfd, hugetlbfs, ramfs
    rustix::fs::fstatfs(file).is_ok_and(|system| KINDS.contains(&(system.f_type as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::memfd;

    fn spec(guest: u64, bytes: u64, offset: u64) -> RegionSpec {
        RegionSpec { guest, user: guest.wrapping_add(1 << 40), bytes, offset }
    }

    fn table(specs: &[RegionSpec], file_bytes: u64) -> Result<GuestMemory, MemoryError> {
        GuestMemory::map(specs.iter().map(|spec| (*spec, memfd(file_bytes).unwrap())), None)
    }

    #[test]
    fn an_address_is_found_in_its_region_and_nowhere_else() {
        let memory =
            table(&[spec(0x10000, 0x1000, 0), spec(0, 0x1000, 0x1000), spec(0x1000, 0x2000, 0)], 0x2000);
        let memory = memory.unwrap();
        let mut hint = Hint::default();
        // Across the end of a region lies what another file holds, or nothing.
        for (address, bytes, together) in [
            (0, 1, Some(1)),
            (0xfff, 100, Some(1)),
            (0x1000, 0x2000, Some(0x2000)),
            (0x2fff, u64::MAX, Some(1)),
            (0x3000, 1, None),
            (0xffff, 2, None),
            (0x10fff, 2, Some(1)),
            (0x11000, 1, None),
            (u64::MAX, u64::MAX, None),
            (0, 0, None),
        ] {
            let found = memory.guest(&mut hint, address, bytes).map(|(_, together)| together);
            assert_eq!(found, together, "{address:#x} {bytes}");
        }
        let user = |address: u64, bytes, align| memory.user((1 << 40) + address, bytes, align).is_some();
        assert!(user(0x1000, 0x2000, 16) && user(0x1008, 8, 8));
        assert!(!user(0x1000, 0x2001, 16) && !user(0x1008, 8, 16) && !user(0x3000, 1, 1));
        // The last region that was looked into.
        let mut hint = Hint::default();
        assert!(hint.whole(0, 1).is_none());
        let (start, _) = memory.guest(&mut hint, 0x1000, 1).unwrap();
        assert_eq!(hint.whole(0x1000, 0x2000), Some(start));
        for (address, bytes) in
            [(0x1000, 0x2001), (0x1000, 0), (0x2fff, 2), (0xfff, 1), (0x3000, 0), (0x3000, 1)]
        {
            assert!(hint.whole(address, bytes).is_none(), "{address:#x} {bytes}");
        }
    }

    #[test]
    fn what_cannot_be_a_region_is_refused() {
        let refused = |specs: &[RegionSpec]| table(specs, 0x2000).unwrap_err();
        assert!(matches!(refused(&[spec(0, 0, 0)]), MemoryError::Range(_)));
        assert!(matches!(refused(&[spec(u64::MAX - 5, 0x1000, 0)]), MemoryError::Range(_)));
        assert!(matches!(refused(&[spec(0, 0x1000, u64::MAX - 5)]), MemoryError::Range(_)));
        assert!(matches!(refused(&[spec(0, 1 << 63, 0)]), MemoryError::Total));
        assert!(matches!(refused(&[spec(0, 0x1000, 0x1001)]), MemoryError::Short { has: 0x2000, .. }));
        let overlapping = [spec(0, 0x2000, 0), spec(0x1fff, 0x1000, 0)];
        assert!(matches!(refused(&overlapping), MemoryError::Overlap(0, 0x1fff)));
        let many: Vec<_> = (0..33).map(|i| spec(i << 12, 0x1000, 0)).collect();
        assert!(matches!(refused(&many), MemoryError::Count(33)));
        // Sparse files cost nobody anything but us.
        let sparse = (0..3).map(|i| (spec(i << 41, 2 << 40, 0), memfd(2 << 40).unwrap()));
        assert!(matches!(GuestMemory::map(sparse, None), Err(MemoryError::Total)));
        let null = File::open("/dev/zero").unwrap();
        let device = GuestMemory::map([(spec(0, 0x1000, 0), null)], None).unwrap_err();
        assert!(matches!(device, MemoryError::Short { has: 0, .. }));
        let disk = File::open("/sys/kernel/uevent_seqnum").unwrap();
        let disk = GuestMemory::map([(spec(0, 0x1000, 0), disk)], None).unwrap_err();
        assert!(matches!(disk, MemoryError::Kind(0)), "{disk}");
    }
}
