//! Outlets: the tx side of a worker. Frames are gathered per out port and sent at the end of the burst.

use std::sync::{Arc, Mutex, PoisonError};

use pmd::coalesce::coalesce;
use pmd::{BATCH, Batch, Burst, Features, Pool, Prefixes, TxItem, TxQueue, TxReport};

use crate::bucket::Bucket;
use crate::pipeline::execute::Sink;
use crate::snapshot::{PortView, Snapshot};
use crate::telemetry::counters::{PortCounters, WorkerCounters};
use crate::telemetry::drops::DropReason;
use crate::worker::tally::{Books, Tally, Way};

/// A tx queue, the worker's own or shared behind a lock that is taken once a burst.
pub enum Tx {
    /// The worker's own.
    Own(Box<dyn TxQueue>),
    /// Shared with other workers.
    Shared(Arc<Mutex<Box<dyn TxQueue>>>),
}

impl Tx {
    fn with<T>(&mut self, run: impl FnOnce(&mut dyn TxQueue) -> T) -> T {
        match self {
            Tx::Own(queue) => run(queue.as_mut()),
            Tx::Shared(queue) => run(queue.lock().unwrap_or_else(PoisonError::into_inner).as_mut()),
        }
    }
}

/// A port's place. One without a port takes nothing and has no items.
#[derive(Default)]
struct Outlet {
    tx: Option<Tx>,
    takes: Takes,
    items: Vec<TxItem>,
    /// Listed in `Outlets::busy`.
    busy: bool,
}

/// What a port takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Takes {
    features: Features,
    /// Bytes of a frame that is surely within the MTU; 0 for a port that is not there.
    plain: u32,
}

impl From<Option<&PortView>> for Takes {
    fn from(view: Option<&PortView>) -> Takes {
        view.map_or(Takes::default(), |view| Takes { features: view.features, plain: view.mtu + 14 })
    }
}

/// Items that are gathered for a port before it is sent to in the middle of a burst.
const CAPACITY: usize = 2 * BATCH;

/// All outlets of a worker, by port index.
pub struct Outlets {
    by_port: Vec<Outlet>,
    /// Ports that have items in this burst.
    touched: Vec<u16>,
    /// Ports that were sent to in this burst.
    sent: Vec<u16>,
    /// Ports whose queue wants to be maintained.
    busy: Vec<u16>,
    prefixes: Prefixes,
    /// By port: what the switch may still write to it.
    writes: Vec<Bucket>,
    now_ns: u64,
    /// What [`Sink::identification`] gives next.
    identification: u16,
    worker: usize,
    counters: Arc<WorkerCounters>,
    tally: Tally,
}

/// Frames that the switch writes to one port in a row at most, and in a second on average.
const WRITES: u64 = 100;

impl Outlets {
    /// None yet, for ports below `ports`, of this worker.
    pub fn new(ports: usize, worker: usize, counters: Arc<WorkerCounters>) -> Outlets {
        Outlets {
            by_port: (0..ports).map(|_| Outlet::default()).collect(),
            touched: Vec::with_capacity(ports),
            sent: Vec::with_capacity(ports),
            busy: Vec::with_capacity(ports),
            prefixes: Prefixes::default(),
            writes: vec![Bucket::new(WRITES, WRITES); ports],
            now_ns: 0,
            identification: 0,
            worker,
            counters,
            tally: Tally::new(Way::Out),
        }
    }

    /// Adds the worker's way to a port; what was there before comes back.
    pub fn add(&mut self, port: u16, tx: Tx, takes: Takes) -> Option<Tx> {
        let slot = self.by_port.get_mut(port as usize)?;
        let outlet = Outlet { tx: Some(tx), takes, items: Vec::with_capacity(CAPACITY), busy: false };
        self.busy.retain(|busy| *busy != port);
        std::mem::replace(slot, outlet).tx
    }

    /// Says what time it is.
    pub fn set_time(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Says what every port takes, by a new configuration.
    pub fn use_snapshot(&mut self, snapshot: &Snapshot) {
        for (port, outlet) in (0..).zip(&mut self.by_port) {
            if outlet.tx.is_some() {
                outlet.takes = snapshot.port(port).into();
            }
        }
    }

    /// Removes the worker's way to a port.
    pub fn remove(&mut self, port: u16) -> Option<Tx> {
        self.busy.retain(|busy| *busy != port);
        std::mem::take(self.by_port.get_mut(port as usize)?).tx
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.busy.clear();
        self.by_port.iter_mut().for_each(|outlet| *outlet = Outlet::default());
    }

    /// Whether some queue has frames outstanding.
    pub fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Reaps and kicks the queues that have frames outstanding.
    #[inline]
    pub fn maintain(&mut self, pool: &mut Pool) {
        let by_port = &mut self.by_port;
        self.busy.retain(|&port| {
            let outlet = &mut by_port[port as usize];
            outlet.busy = outlet.tx.as_mut().is_some_and(|tx| tx.with(|tx| tx.maintain(pool)));
            outlet.busy
        });
    }

    /// Shows the other ends what was sent to them in this burst.
    #[inline]
    pub fn flush(&mut self) {
        while let Some(port) = self.sent.pop() {
            if let Some(tx) = &mut self.by_port[port as usize].tx {
                tx.with(|tx| tx.flush());
            }
        }
    }

    /// The sink of one burst.
    #[inline]
    pub fn sink<'a>(&'a mut self, pool: &'a mut Pool) -> BurstSink<'a> {
        BurstSink { outlets: self, pool }
    }

    #[inline]
    fn send(&mut self, batch: &mut Batch<'_>, pool: &mut Pool, port: u16) {
        let outlet = &mut self.by_port[port as usize];
        let Some(tx) = outlet.tx.as_mut().filter(|_| !outlet.items.is_empty()) else { return };
        let joined = coalesce(batch, &mut outlet.items, &mut self.prefixes, outlet.takes.features);
        let mut burst = Burst::new(batch, &outlet.items, &self.prefixes, outlet.takes.features);
        let (report, busy) = tx.with(|tx| {
            let report = tx.transmit(&mut burst, pool);
            (report, tx.outstanding() > 0)
        });
        debug_assert_eq!(report.total() as usize, outlet.items.len());
        outlet.items.clear();
        if busy && !outlet.busy {
            outlet.busy = true;
            self.busy.push(port);
        }
        let counters = self.counters.port(port);
        count(counters, &report);
        if joined > 0 {
            counters.consumed.add(joined.into());
        }
    }
}

/// Lists a port once.
#[inline(never)]
fn touch(touched: &mut Vec<u16>, port: u16) {
    if !touched.contains(&port) {
        touched.push(port);
    }
}

#[inline]
fn count(counters: &PortCounters, report: &TxReport) {
    counters.tx_frames.add(report.sent.into());
    counters.tx_bytes.add(report.bytes);
    if report.sent != report.total() {
        for (reason, frames) in [
            (DropReason::TxFull, report.full),
            (DropReason::TxRefused, report.refused),
            (DropReason::NoFrame, report.no_frame),
            (DropReason::TxDown, report.down),
            (DropReason::TxUnreadable, report.unreadable),
        ] {
            counters.drop(reason, frames.into());
        }
    }
}

/// Takes the frames of one burst.
pub struct BurstSink<'a> {
    outlets: &'a mut Outlets,
    pool: &'a mut Pool,
}

impl BurstSink<'_> {
    /// Sends what was gathered for a port, to have room for one more.
    #[cold]
    fn emit_full(&mut self, batch: &mut Batch<'_>, port: u16, item: TxItem) {
        self.outlets.send(batch, self.pool, port);
        if let Some(outlet) = self.outlets.by_port.get_mut(port as usize) {
            outlet.items.push(item);
        }
    }

    /// Sends everything that was gathered.
    #[inline]
    pub fn flush(&mut self, batch: &mut Batch<'_>) {
        while let Some(port) = self.outlets.touched.pop() {
            self.outlets.send(batch, self.pool, port);
            self.outlets.sent.push(port);
        }
        self.outlets.prefixes.clear();
    }

    /// Counts what was sent to remotes since it was called last.
    #[inline]
    pub fn settle(&mut self, snapshot: &Snapshot) {
        let Outlets { worker, counters, tally, .. } = &mut *self.outlets;
        tally.settle(Books { worker: *worker, counters, overlays: &snapshot.overlays });
    }
}

impl Sink for BurstSink<'_> {
    #[inline]
    fn emit(&mut self, batch: &mut Batch<'_>, port: u16, item: TxItem) {
        let Some(outlet) = self.outlets.by_port.get_mut(port as usize).filter(|outlet| outlet.tx.is_some())
        else {
            return self.drop(port, DropReason::PortGone);
        };
        if outlet.items.is_empty() {
            touch(&mut self.outlets.touched, port);
        }
        if outlet.items.len() == outlet.items.capacity() {
            return self.emit_full(batch, port, item);
        }
        outlet.items.push(item);
    }

    #[inline(always)]
    fn emit_plain(&mut self, frame: u16, len: u32, port: u16) -> bool {
        let Some(outlet) = self.outlets.by_port.get_mut(port as usize) else { return false };
        let items = outlet.items.len();
        // The first item lists the port, the last makes room: both by the long way.
        if len > outlet.takes.plain || items == 0 || items == outlet.items.capacity() {
            return false;
        }
        outlet.items.push(TxItem::exclusive(frame));
        true
    }

    #[inline]
    fn drop(&mut self, port: u16, reason: DropReason) {
        self.outlets.counters.port(port).drop(reason, 1);
    }

    #[inline]
    fn made(&mut self, port: u16, frames: u32) {
        self.outlets.counters.port(port).made.add(frames.into());
    }

    #[inline]
    fn consumed(&mut self, port: u16) {
        self.outlets.counters.port(port).consumed.add(1);
    }

    #[inline]
    fn sent(&mut self, snapshot: &Snapshot, target: (u16, u16), bytes: u32) {
        let Outlets { worker, counters, tally, .. } = &mut *self.outlets;
        let books = Books { worker: *worker, counters, overlays: &snapshot.overlays };
        tally.add(target, bytes.into(), books);
    }

    fn lost(&mut self, remote: u16, reason: DropReason) {
        self.outlets.counters.port(remote).drop(reason, 1);
    }

    fn may_write(&mut self, port: u16) -> bool {
        let now_ns = self.outlets.now_ns;
        let may = self.outlets.writes.get_mut(usize::from(port)).is_some_and(|writes| writes.take(now_ns));
        if !may {
            self.outlets.counters.port(port).unwritten.add(1);
        }
        may
    }

    fn now_s(&self) -> Option<u32> {
        Some((self.outlets.now_ns / 1_000_000_000) as u32)
    }

    #[inline]
    fn identification(&mut self) -> u16 {
        self.outlets.identification = self.outlets.identification.wrapping_add(1);
        self.outlets.identification
    }

    fn prefixes(&mut self, batch: &mut Batch<'_>, len: usize) -> Option<&mut Prefixes> {
        if !self.outlets.prefixes.has_room(len) {
            self.flush(batch);
        }
        self.outlets.prefixes.has_room(len).then_some(&mut self.outlets.prefixes)
    }

    fn written(&self) -> &Prefixes {
        &self.outlets.prefixes
    }
}
