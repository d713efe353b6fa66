//! Counters: what each worker did, by port, and by VNI of a tunnel.
//!
//! Each worker writes its own, with plain loads and stores, and whoever asks adds them up. Conservation:
//! over all ports and workers, `received + made = sent + dropped + consumed + held`. A frame is received
//! when its burst begins; `held` are the frames of a burst that is not over yet, so the sum is exact
//! whenever no worker is in the middle of one. A drop counts at the port where it happens: the in port for
//! a decision, the out port for a full queue. A train counts as one where it crosses as one; copies of a
//! flood count as made at the in port, segments at the out port that cannot take the train.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use super::drops::DropReason;

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; for the writer only.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Sets; for the writer only.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One worker's counters of one port.
#[derive(Debug)]
pub struct PortCounters {
    /// Frames that came in, also those that the driver refused.
    pub rx_frames: Counter,
    /// Their bytes.
    pub rx_bytes: Counter,
    /// Frames that went out.
    pub tx_frames: Counter,
    /// Their bytes.
    pub tx_bytes: Counter,
    /// Copies of frames that came in here, segments of trains that go out here, frames that the switch wrote.
    pub made: Counter,
    /// Frames that the switch itself took: answered or merged.
    pub consumed: Counter,
    /// Source addresses that could not be learned for want of room in a table.
    pub learn_refused: Counter,
    /// Frames that the switch would have written to the port and did not, as there were too many.
    pub unwritten: Counter,
    drops: [Counter; DropReason::COUNT],
}

impl Default for PortCounters {
    fn default() -> Self {
        PortCounters {
            rx_frames: Counter::default(),
            rx_bytes: Counter::default(),
            tx_frames: Counter::default(),
            tx_bytes: Counter::default(),
            made: Counter::default(),
            consumed: Counter::default(),
            learn_refused: Counter::default(),
            unwritten: Counter::default(),
            drops: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl PortCounters {
    /// Counts dropped frames.
    #[inline]
    pub fn drop(&self, reason: DropReason, frames: u64) {
        self.drops[reason.index()].add(frames);
    }

    /// Frames dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason.index()].get()
    }
}

/// One worker's counters.
#[derive(Debug)]
pub struct WorkerCounters {
    ports: Box<[PortCounters]>,
    /// What is not about a port.
    pub load: CachePadded<Load>,
}

/// What a worker did with its time.
#[derive(Debug, Default)]
pub struct Load {
    /// Frames received.
    pub frames: Counter,
    /// TSC cycles of turns that had frames.
    pub busy_cycles: Counter,
    /// TSC cycles of turns that had none, sleep included.
    pub idle_cycles: Counter,
    /// Frames of the burst that is under way.
    pub held: Counter,
    /// The worker sleeps on its descriptors.
    pub sleeping: AtomicBool,
    /// Generation of the snapshot that the worker uses.
    pub generation: Counter,
    /// Frames that were decided by the pipeline.
    pub misses: Counter,
}

impl WorkerCounters {
    /// Counters for ports below `ports`, all zero.
    pub fn new(ports: usize) -> WorkerCounters {
        WorkerCounters {
            ports: (0..ports).map(|_| PortCounters::default()).collect(),
            load: CachePadded::default(),
        }
    }

    /// A port's.
    #[inline]
    pub fn port(&self, port: u16) -> &PortCounters {
        &self.ports[port as usize]
    }
}

/// What one VNI carries through a tunnel: each worker's counters, and a line of its own for each.
#[derive(Debug)]
pub struct VniTraffic(Box<[CachePadded<VniCounters>]>);

/// One worker's counters of one VNI of a tunnel; bytes with the tunnel's headers.
#[derive(Debug, Default)]
pub struct VniCounters {
    /// Frames that came in.
    pub rx_frames: Counter,
    /// Their bytes.
    pub rx_bytes: Counter,
    /// Frames that are on their way out.
    pub tx_frames: Counter,
    /// Their bytes.
    pub tx_bytes: Counter,
}

/// The counters of one VNI of a tunnel, added up over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VniTotals {
    /// Frames that came in.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that went out.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
}

impl VniTraffic {
    /// Counters for so many workers, all zero.
    pub fn new(workers: usize) -> VniTraffic {
        VniTraffic((0..workers).map(|_| CachePadded::default()).collect())
    }

    /// One worker's.
    #[inline]
    pub fn of(&self, worker: usize) -> Option<&VniCounters> {
        self.0.get(worker).map(|counters| &**counters)
    }

    /// The sum over all workers.
    pub fn totals(&self) -> VniTotals {
        let mut totals = VniTotals::default();
        for counters in &self.0 {
            totals.rx_frames += counters.rx_frames.get();
            totals.rx_bytes += counters.rx_bytes.get();
            totals.tx_frames += counters.tx_frames.get();
            totals.tx_bytes += counters.tx_bytes.get();
        }
        totals
    }
}

/// A port's counters, added up over the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortTotals {
    /// Frames that came in.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that went out.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Copies and segments made.
    pub made: u64,
    /// Frames that the switch took.
    pub consumed: u64,
    /// Addresses that could not be learned.
    pub learn_refused: u64,
    /// Drops by the reason's index.
    pub drops: Vec<u64>,
}

impl PortTotals {
    /// Adds a port up over all workers.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a WorkerCounters>, port: u16) -> PortTotals {
        let mut totals = PortTotals { drops: vec![0; DropReason::COUNT], ..PortTotals::default() };
        for worker in workers {
            let counters = worker.port(port);
            totals.rx_frames += counters.rx_frames.get();
            totals.rx_bytes += counters.rx_bytes.get();
            totals.tx_frames += counters.tx_frames.get();
            totals.tx_bytes += counters.tx_bytes.get();
            totals.made += counters.made.get();
            totals.consumed += counters.consumed.get();
            totals.learn_refused += counters.learn_refused.get();
            for (total, counter) in totals.drops.iter_mut().zip(&counters.drops) {
                *total += counter.get();
            }
        }
        totals
    }

    /// All drops.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// What became of a port index before it was given to another port: its counters from here on.
    pub fn since(&self, base: &PortTotals) -> PortTotals {
        let zero = vec![0; DropReason::COUNT];
        let before = if base.drops.is_empty() { &zero } else { &base.drops };
        PortTotals {
            rx_frames: self.rx_frames - base.rx_frames,
            rx_bytes: self.rx_bytes - base.rx_bytes,
            tx_frames: self.tx_frames - base.tx_frames,
            tx_bytes: self.tx_bytes - base.tx_bytes,
            made: self.made - base.made,
            consumed: self.consumed - base.consumed,
            learn_refused: self.learn_refused - base.learn_refused,
            drops: self.drops.iter().zip(before).map(|(now, before)| now - before).collect(),
        }
    }
}
