//! The life of a batch: parse, look up, decide what is not known, act, send.

use std::sync::Arc;

use pmd::{BATCH, Batch, Fault, Features, Pool, RxMemory};

use super::Parts;
use super::flows::Flow;
use super::outlet::Outlets;
use super::queue::Queue;
use crate::flow::action::Actions;
use crate::flow::headers::{Link, parse_link};
use crate::flow::key::FlowKey;
use crate::pipeline::execute::{Sink, execute, plausible};
use crate::pipeline::{Learning, decide};
use crate::snapshot::Snapshot;
use crate::tables::fdb::{Fdb, Learned};
use crate::telemetry::counters::WorkerCounters;
use crate::telemetry::drops::DropReason;

/// Decides the frames of one worker.
pub(super) struct Decider {
    worker: usize,
    snapshot: Arc<Snapshot>,
    fdb: Arc<Fdb>,
    counters: Arc<WorkerCounters>,
    now_s: u32,
}

impl Decider {
    pub(super) fn new(parts: &Parts) -> Decider {
        Decider {
            worker: parts.index,
            snapshot: Arc::default(),
            fdb: parts.fdb.clone(),
            counters: parts.counters.clone(),
            now_s: 0,
        }
    }

    pub(super) fn use_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
    }

    pub(super) fn set_time(&mut self, now_ns: u64) {
        self.now_s = (now_ns / 1_000_000_000) as u32;
    }

    pub(super) fn features(&self, port: u16) -> Features {
        self.snapshot.port(port).map_or(Features::NONE, |view| view.features)
    }

    pub(super) fn is_cached(&self, _key: &FlowKey) -> bool {
        false
    }

    pub(super) fn flows(&self) -> Vec<Flow> {
        Vec::new()
    }

    /// Receives one batch of `queue` and sees it off. Gives the number of frames.
    pub(super) fn burst(
        &mut self,
        queue: &mut Queue,
        memory: &mut RxMemory,
        pool: &mut Pool,
        outlets: &mut Outlets,
    ) -> Result<usize, Fault> {
        let mut batch = queue.rx.receive(memory, pool, BATCH)?;
        let frames = batch.len();
        let refused = batch.refused();
        let received = frames + refused.total() as usize;
        if received == 0 {
            return Ok(0);
        }
        let counters = self.counters.port(queue.port);
        counters.rx_frames.add(received as u64);
        self.counters.load.held.set(frames as u64);
        if received > frames {
            counters.drop(DropReason::BadOffload, refused.bad_offload.into());
            counters.drop(DropReason::TooLong, refused.too_long.into());
            counters.drop(DropReason::NoFrame, refused.no_frame.into());
        }
        let mut sink = outlets.sink(pool);
        let mut bytes = 0;
        for i in 0..frames {
            bytes += batch.frame_len(i) as u64;
            match self.admit(&batch, i) {
                Ok(link) => {
                    let actions = self.decide(queue.port, &link);
                    execute(&self.snapshot, &mut batch, i, queue.port, actions.as_slice(), &mut sink);
                }
                Err(reason) => sink.drop(queue.port, reason),
            }
        }
        self.counters.port(queue.port).rx_bytes.add(bytes);
        sink.flush(&mut batch);
        batch.recycle(pool);
        queue.rx.release(pool);
        self.counters.load.held.set(0);
        Ok(received)
    }

    /// Reads the header of frame `i`, if its metadata can be true.
    #[inline]
    fn admit(&self, batch: &Batch<'_>, i: usize) -> Result<Link, DropReason> {
        if !plausible(batch, i) {
            return Err(DropReason::BadOffload);
        }
        parse_link(batch.head(i)).map_err(DropReason::Malformed)
    }

    fn decide(&mut self, port: u16, link: &Link) -> Actions {
        let learning = Learning::On { worker: self.worker, now_s: self.now_s };
        let decision = decide(&self.snapshot, &self.fdb, port, link, learning, &mut ());
        if let Some(Learned::LimitTable | Learned::LimitBridge | Learned::LimitPort) = decision.learned {
            self.counters.port(port).learn_refused.add(1);
        }
        decision.actions
    }
}
