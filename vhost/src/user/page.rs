//! Pages of our own: where packed rings stand, for front ends that keep nothing for us.
//!
//! QEMU has no inflight region for network cards. After the switch was away it says that a packed ring begins where it
//! began last, as it does not know better. So the [`Record`] of such a ring lies in a small file, which is there again
//! for the next switch.
//!
//! A page is about one ring of one front end, and says which: where the ring lies in which file of memory, what was
//! agreed on, where it began. One that is about another ring, or about one that has been told to begin elsewhere, is
//! written anew; one of a ring that was stopped is removed. What remains, a driver that was reset while the switch was
//! away, [`Record`] finds out.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};

use crate::memory::{GuestMemory, RegionSpec};
use crate::ring::Alarm;
use crate::ring::record::Record;

/// What a page begins with.
const MAGIC: u64 = u64::from_le_bytes(*b"vsring01");

/// Where the record begins: behind the magic number and the identity.
const RECORD: u64 = 128;

/// Which ring a page is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// What was agreed on.
    pub features: u64,
    /// Entries.
    pub size: u64,
    /// Where the front end has it begin.
    pub base: u64,
    /// Its parts, in the front end's addresses.
    pub parts: [u64; 3],
    /// The file of its memory: device, number, and where in it the ring lies.
    pub file: [u64; 3],
}

impl Identity {
    /// The first bytes of its page.
    fn to_bytes(self) -> [u8; RECORD as usize] {
        let ([a, b, c], [d, e, f]) = (self.parts, self.file);
        let words = [MAGIC, self.features, self.size, self.base, a, b, c, d, e, f];
        let mut bytes = [0; RECORD as usize];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// The pages of a port.
#[derive(Clone, Debug)]
pub(super) struct Pages(pub(super) PathBuf);

impl std::fmt::Display for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Pages {
    fn path(&self, ring: usize) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(format!(".{ring}"));
        path.into()
    }

    /// The record of a ring: as a predecessor left it if that was of the same one, or else a new one.
    ///
    /// # Errors
    /// The file cannot be made, is not in memory, or another switch uses it.
    pub(super) fn record(
        &self,
        ring: usize,
        identity: &Identity,
        alarm: &Arc<Alarm>,
    ) -> io::Result<Option<Record>> {
        let path = self.path(ring);
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let file = options.open(&path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let size = u16::try_from(identity.size).unwrap_or(u16::MAX);
        let bytes = RECORD + Record::bytes(size) as u64;
        let (mut found, wanted) = ([0; RECORD as usize], identity.to_bytes());
        if file.read_exact_at(&mut found, 0).is_err() || found != wanted || file.metadata()?.len() != bytes {
            // Nothing of the old one is left when it becomes a new one's.
            file.set_len(0)?;
            // All of it, as a page that memory has no room for later on would be missed in the middle of a burst.
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
            file.write_all_at(&wanted, 0)?;
        }
        let spec = RegionSpec { guest: 0, user: 0, bytes, offset: 0 };
        // The lock is held as long as it is mapped.
        let memory = GuestMemory::map([(spec, file)], Some(alarm)).map_err(io::Error::other)?;
        Ok(Record::new(Arc::new(memory), RECORD, size))
    }

    /// Forgets a ring: it has been stopped, and will be told where to begin.
    pub(super) fn forget(&self, ring: usize) {
        // There is none, mostly.
        let _ = std::fs::remove_file(self.path(ring));
    }
}

/// Where a ring lies in which file: device, number, place.
pub(super) fn file_of(table: &[(RegionSpec, File)], address: u64) -> Option<[u64; 3]> {
    use std::os::unix::fs::MetadataExt;
    let holds = |spec: &RegionSpec| address.wrapping_sub(spec.user) < spec.bytes;
    let (spec, file) = table.iter().find(|(spec, _)| holds(spec))?;
    let metadata = file.metadata().ok()?;
    Some([metadata.dev(), metadata.ino(), spec.offset.wrapping_add(address - spec.user)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_about_one_ring_until_it_is_stopped() {
        let folder = PathBuf::from(format!("/dev/shm/vhost-page-{}", std::process::id()));
        let pages = Pages(folder.join("rings/port"));
        let alarm = Arc::new(Alarm::new().unwrap());
        let identity = Identity { features: 1, size: 64, base: 2, parts: [3, 4, 5], file: [6, 7, 8] };
        let has = |ring, identity: &Identity| {
            let record = pages.record(ring, identity, &alarm).unwrap().unwrap();
            let had = record.left().is_some();
            record.settle(0);
            had
        };
        assert!(!has(0, &identity) && has(0, &identity) && !has(1, &identity));
        let others = [
            Identity { features: 0, ..identity },
            Identity { size: 32, ..identity },
            Identity { base: 0, ..identity },
            Identity { parts: [3, 4, 0], ..identity },
            Identity { file: [6, 0, 8], ..identity },
        ];
        for other in others {
            assert!(!has(0, &other) && has(0, &other), "{other:?}");
        }
        assert!(!has(0, &identity) && has(0, &identity));
        pages.forget(0);
        assert!(!has(0, &identity) && has(1, &identity));
        let held = pages.record(0, &identity, &alarm).unwrap();
        assert!(pages.record(0, &identity, &alarm).is_err(), "another switch has it");
        drop(held);
        assert!(has(0, &identity));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_ring_lies_in_a_file() {
        let file = crate::driver::memfd(8192).unwrap();
        let table = [(RegionSpec { guest: 0, user: 4096, bytes: 4096, offset: 4096 }, file)];
        assert_eq!(file_of(&table, 4100).map(|[_, _, place]| place), Some(4100));
        assert_eq!((file_of(&table, 4095), file_of(&table, 8192)), (None, None));
    }
}
