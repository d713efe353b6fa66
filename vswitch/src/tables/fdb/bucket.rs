//! One cache line of the FDB: a sequence word and five entries of three words.
//!
//! The sequence word is both the lock of writers (odd while held) and the proof of readers (the same
//! even number before and after). All words are atomics, so a torn read is a read of old and new
//! words, which the proof rejects, never undefined behaviour. Only the table above knows what it means
//! that a key can live in two buckets; this file knows one line and how an entry is packed:
//!
//! | word | bits 31..16 | bits 15..0 |
//! | --- | --- | --- |
//! | 0 | MAC octets 0, 1 | MAC octets 2, 3 |
//! | 1 | MAC octets 4, 5 | bridge |
//! | 2 | port | occupied, static, loaded, held, VLAN (12) |

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::{Kind, MacKey};

/// Entries in a bucket: five times 12 bytes and the sequence word fill a line of 64.
pub(super) const WAYS: usize = 5;

/// How often a reader tries before it calls the bucket contended, and a worker before it gives up to lock it.
const TRIES: u32 = 16;

const OCCUPIED: u32 = 1 << 15;
const STATIC: u32 = 1 << 14;
const LOADED: u32 = 1 << 13;
const HELD: u32 = 1 << 12;
const VLAN: u32 = 0xfff;

/// An entry as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed([u32; 3]);

impl Packed {
    const EMPTY: Packed = Packed([0; 3]);

    pub(super) fn new(key: MacKey, port: u16, kind: Kind) -> Packed {
        let [a, b, c, d, e, f] = key.mac;
        let kind = match kind {
            Kind::Learned => 0,
            Kind::Loaded => LOADED,
            Kind::Static => STATIC,
        };
        Packed([
            u32::from_be_bytes([a, b, c, d]),
            u32::from(u16::from_be_bytes([e, f])) << 16 | u32::from(key.bridge),
            u32::from(port) << 16 | OCCUPIED | kind | u32::from(key.vlan) & VLAN,
        ])
    }

    #[inline]
    pub(super) fn port(self) -> u16 {
        (self.0[2] >> 16) as u16
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        match self.0[2] & (STATIC | LOADED) {
            0 => Kind::Learned,
            LOADED => Kind::Loaded,
            _ => Kind::Static,
        }
    }

    pub(super) fn key(self) -> MacKey {
        let [a, b, c, d] = self.0[0].to_be_bytes();
        let [e, f] = ((self.0[1] >> 16) as u16).to_be_bytes();
        MacKey { bridge: self.0[1] as u16, vlan: (self.0[2] & VLAN) as u16, mac: [a, b, c, d, e, f] }
    }

    /// Whether it stays where it is for a while, as it has moved too often.
    #[inline]
    pub(super) fn is_held(self) -> bool {
        self.0[2] & HELD != 0
    }

    /// The same, held or not.
    pub(super) fn held(self, held: bool) -> Packed {
        let [first, second, last] = self.0;
        Packed([first, second, if held { last | HELD } else { last & !HELD }])
    }

    /// The words that the key alone decides, for the hash.
    #[inline]
    pub(super) fn hashed(self) -> [u64; 2] {
        [u64::from(self.0[0]) << 32 | u64::from(self.0[1]), u64::from(self.0[2] & VLAN)]
    }

    fn is_occupied(self) -> bool {
        self.0[2] & OCCUPIED != 0
    }
}

/// A reader met writers on all of its tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contended;

/// Five entries that are read and written as one.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Bucket {
    sequence: AtomicU32,
    entries: [[AtomicU32; 3]; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    pub(super) fn new() -> Bucket {
        Bucket { sequence: AtomicU32::new(0), entries: std::array::from_fn(|_| [0; 3].map(AtomicU32::new)) }
    }

    /// The way and entry that hold `wanted`'s key, without waiting for any writer.
    #[inline]
    pub(super) fn find(&self, wanted: Packed) -> Result<Option<(usize, Packed)>, Contended> {
        self.read(|bucket| bucket.scan(wanted))
    }

    /// All entries as they were at one moment, in the order of ways.
    pub(super) fn entries(&self) -> Result<[Option<Packed>; WAYS], Contended> {
        self.read(|bucket| std::array::from_fn(|way| bucket.entry(way)))
    }

    #[inline]
    fn read<T>(&self, look: impl Fn(&Bucket) -> T) -> Result<T, Contended> {
        for _ in 0..TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            if before & 1 == 0 {
                let seen = look(self);
                // Pairs with the fence of `Locked::take`: had `look` seen a word of a writer, the load
                // below would see his odd number or a later one.
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return Ok(seen);
                }
            }
            spin_loop();
        }
        Err(Contended)
    }

    #[inline]
    fn scan(&self, wanted: Packed) -> Option<(usize, Packed)> {
        let identity = OCCUPIED | VLAN;
        for (way, words) in self.entries.iter().enumerate() {
            if words[0].load(Ordering::Relaxed) == wanted.0[0]
                && words[1].load(Ordering::Relaxed) == wanted.0[1]
            {
                let last = words[2].load(Ordering::Relaxed);
                if (last ^ wanted.0[2]) & identity == 0 {
                    return Some((way, Packed([wanted.0[0], wanted.0[1], last])));
                }
            }
        }
        None
    }

    fn entry(&self, way: usize) -> Option<Packed> {
        let words = &self.entries[way];
        let packed = Packed([0, 1, 2].map(|at| words[at].load(Ordering::Relaxed)));
        packed.is_occupied().then_some(packed)
    }

    /// Takes the lock, or gives up after a few tries: what a worker may do.
    pub(super) fn try_lock(&self) -> Option<Locked<'_>> {
        (0..TRIES).find_map(|_| {
            let locked = self.take();
            if locked.is_none() {
                spin_loop();
            }
            locked
        })
    }

    /// Takes the lock and lets others run until it has it: for control threads.
    pub(super) fn lock(&self) -> Locked<'_> {
        loop {
            if let Some(locked) = self.try_lock() {
                return locked;
            }
            std::thread::yield_now();
        }
    }

    fn take(&self) -> Option<Locked<'_>> {
        let even = self.sequence.load(Ordering::Relaxed) & !1;
        self.sequence
            .compare_exchange(even, even.wrapping_add(1), Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        // The odd number must be seen before any word that is written under it.
        fence(Ordering::Release);
        Some(Locked { bucket: self, even, wrote: false })
    }
}

/// The right to write one bucket, until dropped.
pub(super) struct Locked<'a> {
    bucket: &'a Bucket,
    even: u32,
    wrote: bool,
}

impl Locked<'_> {
    pub(super) fn find(&self, wanted: Packed) -> Option<(usize, Packed)> {
        self.bucket.scan(wanted)
    }

    pub(super) fn entry(&self, way: usize) -> Option<Packed> {
        self.bucket.entry(way)
    }

    pub(super) fn free_ways(&self) -> impl Iterator<Item = usize> {
        (0..WAYS).filter(|&way| self.bucket.entry(way).is_none())
    }

    pub(super) fn put(&mut self, way: usize, entry: Packed) {
        self.wrote = true;
        for (word, value) in self.bucket.entries[way].iter().zip(entry.0) {
            word.store(value, Ordering::Relaxed);
        }
    }

    pub(super) fn clear(&mut self, way: usize) {
        self.put(way, Packed::EMPTY);
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Who wrote nothing gives the old number back, and readers in between need not try again.
        let next = if self.wrote { self.even.wrapping_add(2) } else { self.even };
        self.bucket.sequence.store(next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_packing() {
        for key in [
            MacKey { bridge: 0xffff, vlan: 0xfff, mac: [0xff; 6] },
            MacKey { bridge: 0, vlan: 0, mac: [0; 6] },
            MacKey { bridge: 0x0102, vlan: 0x304, mac: [5, 6, 7, 8, 9, 10] },
        ] {
            for (port, kind) in [(0xffff, Kind::Learned), (7, Kind::Loaded), (0, Kind::Static)] {
                let packed = Packed::new(key, port, kind);
                assert_eq!((packed.key(), packed.port(), packed.kind()), (key, port, kind));
                assert!(packed.is_occupied() && !packed.is_held());
                let held = packed.held(true);
                assert!(held.is_held() && held.held(false) == packed);
                assert_eq!((held.key(), held.port(), held.kind()), (key, port, kind));
            }
        }
    }

    #[test]
    fn a_reader_of_a_locked_bucket_gives_up_and_does_not_wait() {
        let bucket = Bucket::new();
        let wanted = Packed::new(MacKey { bridge: 1, vlan: 0, mac: [2; 6] }, 3, Kind::Learned);
        let mut locked = bucket.try_lock().expect("nobody holds it");
        assert!(bucket.try_lock().is_none());
        locked.put(4, wanted);
        assert_eq!(bucket.find(wanted), Err(Contended));
        drop(locked);
        assert_eq!(bucket.find(wanted), Ok(Some((4, wanted))));
    }
}
