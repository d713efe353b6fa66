//! What a packed ring leaves behind for a successor.
//!
//! A packed ring does not say where its device stopped, and a burst overwrites descriptors before it is shown. So
//! what a burst will write is noted here first: killed at any moment, a successor finds either that the burst was not
//! begun, or all that it needs to finish it. That costs a word for each buffer, written where no other core looks.
//!
//! The record lies in memory that outlives us: the front end keeps it ("Inflight I/O tracking" in vhost-user.rst,
//! which leaves the layout to the back end), or we do, in a page of our own. It may hand back anything, so what is
//! read is checked.
//!
//! A driver that was reset while nobody was there begins anew, in a ring that may lie where the old one did. What we
//! wrote into the device area tells the two apart, as a driver zeroes it before it begins; so that is noted, too.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use crate::memory::GuestMemory;

/// A buffer that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub id: u16,
    /// Entries of the ring that its chain takes.
    pub entries: u16,
    /// Bytes that were written; 0 for what was only read.
    pub written: u32,
}

impl Used {
    fn to_word(self) -> u64 {
        u64::from(self.id) | u64::from(self.entries) << 16 | u64::from(self.written) << 32
    }

    fn from_word(word: u64) -> Used {
        Used { id: word as u16, entries: (word >> 16) as u16, written: (word >> 32) as u32 }
    }
}

/// Words before the notes: the positions, how many notes there are, and what is in the device area.
const HEADER: usize = 3;

/// Set in the word of positions once there are some.
const VALID: u64 = 1 << 63;

/// The record of one ring.
pub struct Record {
    /// Its first word.
    start: NonNull<u64>,
    size: u16,
    /// Keeps it mapped.
    _memory: Arc<GuestMemory>,
}

// SAFETY: the pointer is into the memory, which lives as long; one thread at a time has the value.
unsafe impl Send for Record {}

/// What a predecessor left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Up to where the ring shows what is used.
    pub settled: u16,
    /// Up to where it is to show it, and by which buffers.
    pub intended: u16,
    pub used: Vec<Used>,
    /// What is in the device area: one of these.
    pub wishes: [u32; 2],
}

impl Record {
    /// Bytes of the record of a ring of `size` entries.
    pub const fn bytes(size: u16) -> usize {
        8 * (HEADER + size as usize)
    }

    /// The record of a ring of `size` entries at the front end's address `at` of `memory`. `None` if it does not lie
    /// in there, or not at a multiple of 8.
    pub fn new(memory: Arc<GuestMemory>, at: u64, size: u16) -> Option<Record> {
        let start = memory.user(at, Record::bytes(size) as u64, 8)?;
        Some(Record { start: start.cast(), size, _memory: memory })
    }

    /// Forgets everything: the front end has been told where the ring stands, and will say where it goes on.
    pub fn forget(&self) {
        self.word(0).store(0, Ordering::Relaxed);
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < HEADER + usize::from(self.size));
        // SAFETY: mapped as long as the memory lives, and within it for every index up to the header's words and the
        // ring's size; aligned (both checked in `new`).
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(index)) }
    }

    fn set_positions(&self, settled: u16, intended: u16) {
        compiler_fence(Ordering::SeqCst);
        self.word(0).store(VALID | u64::from(settled) | u64::from(intended) << 16, Ordering::Relaxed);
        // Only our own death is to be survived, and it keeps the order of the instructions.
        compiler_fence(Ordering::SeqCst);
    }

    /// Notes a burst that will bring the ring on from `settled`; `end` tells how far, by the entries that it takes.
    #[inline]
    pub(super) fn intend(&self, settled: u16, used: &[Used], end: impl FnOnce(u16) -> u16) {
        let mut entries = 0u16;
        for (at, used) in used.iter().take(self.size.into()).enumerate() {
            self.word(HEADER + at).store(used.to_word(), Ordering::Relaxed);
            entries = entries.wrapping_add(used.entries);
        }
        self.word(1).store(used.len() as u64, Ordering::Relaxed);
        self.set_positions(settled, end(entries));
    }

    /// Notes that `after` will be written into the device area, in place of `before`.
    pub(super) fn wish(&self, before: u32, after: u32) {
        self.word(2).store(u64::from(before) | u64::from(after) << 32, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// Notes that the ring shows everything up to `position`.
    #[inline]
    pub(crate) fn settle(&self, position: u16) {
        self.set_positions(position, position);
    }

    /// What is there, if there is anything.
    pub(crate) fn left(&self) -> Option<Left> {
        let positions = self.word(0).load(Ordering::Relaxed);
        if positions & VALID == 0 {
            return None;
        }
        let count = self.word(1).load(Ordering::Relaxed).min(self.size.into()) as usize;
        let used = (0..count).map(|at| Used::from_word(self.word(HEADER + at).load(Ordering::Relaxed)));
        let (settled, intended) = (positions as u16, (positions >> 16) as u16);
        let wishes = self.word(2).load(Ordering::Relaxed);
        let wishes = [wishes as u32, (wishes >> 32) as u32];
        Some(Left { settled, intended, used: used.collect(), wishes })
    }
}
