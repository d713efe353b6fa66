//! The worst of all guests: memory that holds another value at every look, whatever somebody else picks.
//!
//! Ring code reads foreign memory by [`Access`] alone. [`Stage`] gives it one that asks for each value that it
//! loads, has a worker receive from such a ring and transmit to another, and checks what must hold whatever the
//! values are: nothing but the memory is touched (which a sanitizer or a crash tells), the work is bounded, every
//! frame is accounted for. Property tests and fuzz targets pick the values.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pmd::{Arena, Burst, Features, HugePages, Pool, Prefixes, RxMemory, RxQueue, TxItem, TxQueue};

use super::memory::{GUEST, SharedMemory};
use super::split::SplitDriver;
use crate::event::Bell;
use crate::ring::access::Access;
use crate::ring::packed::{Packed, Style};
use crate::ring::rx::Rx;
use crate::ring::split::Split;
use crate::ring::tx::Tx;
use crate::ring::{Alarm, BURST_DESCRIPTORS, Lane, Layout, Ring, Terms};
use crate::seat::{Owner, seat};

const MEMORY: u64 = 1 << 20;
const SIZE: u16 = 16;

/// Bursts of a play.
const BURSTS: u32 = 64;

/// Where values come from; `None` when there are no more.
pub type Values = Box<dyn FnMut() -> Option<u64> + Send>;

/// Memory that holds what is picked: of a number that is picked, the lowest bits say whether it is taken as it is or
/// made into what might be there, which most are; otherwise hardly a frame would ever pass.
#[derive(Clone)]
struct Flip {
    values: Arc<Mutex<Values>>,
    looks: Arc<AtomicU64>,
    over: Arc<AtomicU64>,
    packed: bool,
    /// Buffers are there to be written.
    writable: bool,
    /// Where the available index of a split ring would be, and what it was last.
    index: usize,
    available: u16,
}

/// Sections 2.7.5 and 2.8.1.
const NEXT: u64 = 1;
const WRITE: u64 = 2;
const INDIRECT: u64 = 4;
const AVAILABLE: u64 = 1 << 7;
const USED: u64 = 1 << 15;

impl Flip {
    /// A number, and whether it is to be taken as it is.
    fn next(&self) -> (u64, bool) {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let number = (self.values.lock().unwrap_or_else(PoisonError::into_inner))();
        let number = number.unwrap_or_else(|| {
            self.over.store(1, Ordering::Relaxed);
            0
        });
        (number >> 6, number % 64 == 1)
    }

    /// A descriptor's second word: length, and in a split ring flags and the next one, in a packed one identifier
    /// and flags.
    fn second_word(&self, number: u64) -> u64 {
        let (mut flags, mut length) = (0, number % 2600);
        match number >> 12 & 15 {
            0 => (flags, length) = (INDIRECT, 16 * (1 + number % 8)),
            1..=4 => flags = NEXT,
            _ => {}
        }
        if self.writable && flags != INDIRECT {
            flags |= WRITE;
        }
        let other = (number >> 16) % u64::from(SIZE);
        if self.packed {
            flags |= if number >> 24 & 1 == 0 { AVAILABLE } else { USED };
            length | other << 32 | flags << 48
        } else {
            length | flags << 32 | other << 48
        }
    }
}

// SAFETY: reads nothing at all.
unsafe impl Access for Flip {
    unsafe fn load(&mut self, at: NonNull<u16>) -> u16 {
        match self.next() {
            (number, true) => number as u16,
            (number, false) if at.as_ptr() as usize == self.index => {
                self.available = self.available.wrapping_add((number % u64::from(SIZE)) as u16);
                self.available
            }
            (number, false) if self.packed => (self.second_word(number) >> 48) as u16,
            (number, false) => (number % u64::from(SIZE)) as u16,
        }
    }

    unsafe fn descriptor(&mut self, _at: NonNull<[u64; 2]>) -> [u64; 2] {
        let ((address, bare), (second, odd)) = (self.next(), self.next());
        let address = if bare { address } else { GUEST + address % (MEMORY - 2600) / 8 * 8 };
        [address, if odd { second } else { self.second_word(second) }]
    }

    unsafe fn copy(&mut self, _from: NonNull<u8>, to: &mut [u8]) {
        // Half of the headers ask for nothing.
        let (number, _) = self.next();
        to.fill(0);
        if number % 2 == 0 {
            for piece in to.chunks_mut(4).take(3) {
                let bytes = (self.next().0 as u32).to_le_bytes();
                piece.copy_from_slice(&bytes[..piece.len()]);
            }
        }
    }
}

/// What was agreed on for the rings of a play.
#[derive(Clone, Copy, Debug, Default)]
pub struct Agreed {
    /// `VIRTIO_F_RING_PACKED`.
    pub packed: bool,
    /// `VIRTIO_F_IN_ORDER`.
    pub in_order: bool,
    /// `VIRTIO_F_EVENT_IDX`.
    pub event_index: bool,
    /// `VIRTIO_NET_F_MRG_RXBUF`.
    pub mergeable: bool,
}

/// A worker with two rings: one to receive from, one to transmit to.
pub struct Stage {
    memory: Arc<SharedMemory>,
    layout: Layout,
    /// Where a split ring's available index is.
    index: usize,
    rx: Rx<Flip>,
    tx: Tx<Flip>,
    /// Of the receiving ring, and the other.
    owners: [(Owner<Lane<Flip>>, Arc<Alarm>); 2],
    pool: Pool,
    scratch: RxMemory,
}

impl Stage {
    /// A stage, for any number of plays.
    ///
    /// # Errors
    /// No memory or descriptors could be had.
    pub fn new() -> std::io::Result<Stage> {
        let memory = Arc::new(SharedMemory::new(MEMORY)?);
        let layout = SplitDriver::new(memory.clone(), 0, SIZE).map_err(std::io::Error::other)?.layout();
        let available = memory.mapped().user(layout.available, 4, 2);
        let index = available.map_or(0, |place| place.as_ptr() as usize + 2);
        let (rx_owner, rx_seat) = seat();
        let (tx_owner, tx_seat) = seat();
        let alarms = [Arc::new(Alarm::new()?), Arc::new(Alarm::new()?)];
        let rx = Rx::new(rx_seat, Arc::new(Bell::new()?), alarms[0].clone());
        let tx = Tx::new(tx_seat, alarms[1].clone());
        let [receiving, sending] = alarms;
        let owners = [(rx_owner, receiving), (tx_owner, sending)];
        let pool = Arena::new(64, HugePages::Off).map_err(std::io::Error::other)?.pool();
        Ok(Stage { memory, layout, index, rx, tx, owners, pool, scratch: RxMemory::new() })
    }

    /// Plays bursts until there are no more values, or enough of them; how many frames were received, and sent.
    ///
    /// # Panics
    /// What must hold does not.
    pub fn play(&mut self, agreed: Agreed, values: Values) -> [u32; 2] {
        let mut frames = [0; 2];
        let flip = Flip {
            values: Arc::new(Mutex::new(values)),
            looks: Arc::default(),
            over: Arc::default(),
            packed: agreed.packed,
            writable: false,
            index: self.index,
            available: 0,
        };
        for which in [0, 1] {
            self.set_up(which, agreed, &flip);
        }
        for _ in 0..BURSTS {
            flip.looks.store(0, Ordering::Relaxed);
            let passed = self.burst();
            frames = [frames[0] + passed[0], frames[1] + passed[1]];
            // Each descriptor is loaded once, and each frame's head copied once.
            let looks = flip.looks.load(Ordering::Relaxed);
            assert!(looks < 4 * u64::from(BURST_DESCRIPTORS), "{looks} looks in one burst");
            if flip.over.load(Ordering::Relaxed) != 0 {
                break;
            }
            for which in [0, 1] {
                // A broken ring comes back as another one.
                if self.owners[which].1.take() {
                    self.set_up(which, agreed, &flip);
                }
            }
        }
        self.owners.iter_mut().for_each(|(owner, alarm)| drop((owner.take(), alarm.take())));
        frames
    }

    fn set_up(&mut self, which: usize, agreed: Agreed, flip: &Flip) {
        let Agreed { packed, in_order, event_index, mergeable } = agreed;
        let (memory, layout) = (self.memory.mapped(), &self.layout);
        let mut flip = flip.clone();
        // What a ring reads first is where it stands.
        flip.writable = which == 1;
        let ring = if packed {
            let style = Style { in_order, event_index };
            let base = (flip.next().0 as u32 % u32::from(SIZE)) | (1 << 15);
            Packed::new(memory, layout, style, base, None, flip).map(Ring::Packed)
        } else {
            Split::new(memory, layout, event_index, flip).map(Ring::Split)
        };
        let terms = Terms { header: 12, mergeable, features: Features::VIRTIO };
        let owner = &mut self.owners[which].0;
        match ring {
            Ok(ring) => drop(owner.put(Lane::new(ring, terms, None))),
            Err(_) => drop(owner.take()),
        }
    }

    /// How many frames were received and sent.
    fn burst(&mut self) -> [u32; 2] {
        let (pool, prefixes) = (&mut self.pool, Prefixes::default());
        let Ok(mut batch) = self.rx.receive(&mut self.scratch, pool, 64) else { return [0; 2] };
        let items: Vec<TxItem> = (0..batch.len() as u16).map(TxItem::exclusive).collect();
        assert!(items.len() <= 64);
        let mut sent = 0;
        if !items.is_empty() {
            let report =
                self.tx.transmit(&mut Burst::new(&mut batch, &items, &prefixes, Features::VIRTIO), pool);
            assert_eq!(report.total() as usize, items.len());
            sent = report.sent;
        }
        batch.recycle(pool);
        self.rx.release(pool);
        self.rx.arm();
        [items.len() as u32, sent]
    }
}
