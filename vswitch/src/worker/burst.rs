//! The life of a batch: parse, look up, decide what is not known, act, send.

use std::ops::Range;
use std::sync::Arc;

use pmd::{BATCH, Batch, Fault, Pool, RxMemory};

use super::Parts;
use super::flows::Flow;
use super::outlet::Outlets;
use super::queue::Queue;
use super::tally::{Books, Tally, Way};
use crate::flow::action::Actions;
use crate::flow::cache::{Current, FlowCache, Probes};
use crate::flow::headers::{Link, parse_link, untagged};
use crate::flow::key::{FlowKey, KeyMask};
use crate::overlay::Ingress;
use crate::pipeline::decapsulate::{Admitted, Previous, admit as enter, again};
use crate::pipeline::execute::{Sink, execute, pass, plausible};
use crate::pipeline::{Decision, Learning, decide, neighbour, remote_mask};
use crate::snapshot::{Place, PortView, Snapshot};
use crate::tables::fdb::{Fdb, Learned, Location};
use crate::telemetry::counters::WorkerCounters;
use crate::telemetry::drops::DropReason;
use crate::tunnel::memo::{PLACES, place};

/// What the flow cache keeps of a decision.
#[derive(Clone, Copy, Debug, Default)]
struct Cached {
    actions: Actions,
    /// The port, if all that is done is to send the frame out by one; else [`NO_PORT`].
    out: u16,
    /// The source's FDB entry, or [`Location::NOWHERE`].
    location: Location,
    /// The second of that entry's stamp: within a second it is not looked at again.
    seen_s: u32,
}

/// A port index that no port has.
const NO_PORT: u16 = u16::MAX;

/// Decides the frames of one worker.
pub(super) struct Decider {
    worker: usize,
    snapshot: Arc<Snapshot>,
    fdb: Arc<Fdb>,
    counters: Arc<WorkerCounters>,
    now_s: u32,
    /// `None`: every frame goes through the pipeline.
    cache: Option<FlowCache<Cached>>,
    probes: Probes,
    keys: [FlowKey; BATCH],
    /// The frame of each key.
    frames: [Known; BATCH],
    /// Where each frame of a burst of an underlay came from, by its place in the batch.
    ingress: [Ingress; BATCH],
    /// Underlays' frames that were let in under this snapshot, by [`place`].
    previous: Box<[Option<Previous>; PLACES]>,
}

/// Where the frames of a burst came from.
#[derive(Clone, Copy)]
enum Origins {
    /// All by this port.
    Port(u16),
    /// From remotes: each as `Decider::ingress` says.
    Remotes,
}

/// What is kept of a frame beside its key.
#[derive(Clone, Copy, Default)]
struct Known {
    /// Its place in the batch.
    frame: u16,
    /// Its bytes, or [`NOT_PLAIN`].
    len: u32,
}

/// More bytes than any port takes without a closer look: said of trains.
const NOT_PLAIN: u32 = u32::MAX;

impl Decider {
    pub(super) fn new(parts: &Parts) -> Decider {
        Decider {
            worker: parts.index,
            snapshot: Arc::default(),
            fdb: parts.fdb.clone(),
            counters: parts.counters.clone(),
            now_s: 0,
            cache: (parts.flows > 0).then(|| FlowCache::new(parts.flows as u32, parts.seed)),
            probes: Probes::default(),
            keys: [FlowKey::ZERO; BATCH],
            frames: [Known::default(); BATCH],
            ingress: [Ingress::default(); BATCH],
            previous: Box::new([None; PLACES]),
        }
    }

    pub(super) fn use_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
        self.previous.fill(None);
    }

    pub(super) fn set_time(&mut self, now_ns: u64) {
        self.now_s = (now_ns / 1_000_000_000) as u32;
    }

    pub(super) fn view(&self, port: u16) -> Option<&PortView> {
        self.snapshot.port(port)
    }

    fn current(&self) -> Current<'_> {
        Current { generation: self.snapshot.generation, versions: self.fdb.versions() }
    }

    /// Whether a flow has a decision that stands.
    pub(super) fn is_cached(&self, key: &FlowKey) -> bool {
        let mask = match self.snapshot.port(key.in_port()) {
            Some(view) => view.mask,
            None if self.snapshot.overlays.is_remote(key.in_port()) => remote_mask(),
            None => return false,
        };
        self.cache.as_ref().is_some_and(|cache| cache.peek(key, &mask, self.current()).is_some())
    }

    /// Every flow that has a decision that stands.
    pub(super) fn flows(&self) -> Vec<Flow> {
        let Some(cache) = &self.cache else { return Vec::new() };
        let current = self.current();
        let stands = |flow: &crate::flow::cache::Flow<Cached>| {
            flow.generation == current.generation
                && flow.witnesses.iter().all(|witness| current.versions.is_current(*witness))
        };
        cache
            .flows(0..cache.capacity())
            .filter(stands)
            .map(|flow| Flow { key: flow.key, actions: flow.value.actions })
            .collect()
    }

    /// Receives one batch of `queue`, of at most `limit` frames, and sees it off. Gives the number of frames.
    pub(super) fn burst(
        &mut self,
        queue: &mut Queue,
        limit: usize,
        memory: &mut RxMemory,
        pool: &mut Pool,
        outlets: &mut Outlets,
    ) -> Result<usize, Fault> {
        let mut batch = queue.rx.receive(memory, pool, limit)?;
        let received = self.count(queue.port, &batch);
        if received == 0 {
            return Ok(0);
        }
        let mut sink = outlets.sink(pool);
        let Some((mask, place)) = self.snapshot.port(queue.port).map(|view| (view.mask, view.place)) else {
            (0..batch.len()).for_each(|_| sink.drop(queue.port, DropReason::PortGone));
            batch.recycle(pool);
            queue.rx.release(pool);
            self.counters.load.held.set(0);
            return Ok(received);
        };
        let (keys, origins) = match place {
            Place::Underlay(index) => {
                (self.read_underlay(&mut batch, index, queue.port, &mut sink), Origins::Remotes)
            }
            _ => (self.read(&batch, queue.port, &mut sink), Origins::Port(queue.port)),
        };
        if let Some(cache) = &mut self.cache {
            cache.probe(&mut self.keys[..keys], &mask, &mut self.probes);
            let (stamps, now_s) = (self.fdb.stamps(self.worker), self.now_s);
            let keys = &self.keys[..keys];
            cache.foresee(&mut self.probes, keys, self.fdb.versions(), |cached| {
                if cached.seen_s != now_s {
                    stamps.prefetch(cached.location);
                }
            });
        }
        // In order: a frame sees what the frames before it have changed.
        let mut at = 0;
        loop {
            at = self.act_on_known(at..keys, origins, &mut batch, &mut sink);
            if at == keys {
                break;
            }
            let frame = usize::from(self.frames[at].frame);
            let ingress = match origins {
                Origins::Port(port) => Ingress::port(port),
                Origins::Remotes => self.ingress[frame],
            };
            let actions = self.decide(&batch, frame, at, ingress, &mask);
            execute(&self.snapshot, &mut batch, frame, ingress, &actions, &mut sink);
            at += 1;
        }
        sink.flush(&mut batch);
        sink.settle(&self.snapshot);
        batch.recycle(pool);
        queue.rx.release(pool);
        outlets.flush();
        self.counters.load.held.set(0);
        Ok(received)
    }

    /// Counts what came in.
    #[inline]
    fn count(&self, port: u16, batch: &Batch<'_>) -> usize {
        let (frames, refused) = (batch.len(), batch.refused());
        let received = frames + refused.total() as usize;
        if received > 0 {
            let counters = self.counters.port(port);
            counters.rx_frames.add(received as u64);
            self.counters.load.held.set(frames as u64);
            if received > frames {
                counters.drop(DropReason::BadOffload, refused.bad_offload.into());
                counters.drop(DropReason::TooLong, refused.too_long.into());
                counters.drop(DropReason::NoFrame, refused.no_frame.into());
                counters.drop(DropReason::RxFault, refused.failed.into());
                counters.drop(DropReason::QueueDisabled, refused.disabled.into());
            }
        }
        received
    }

    /// Reads all headers and makes a key for each frame that can be decided; gives their number.
    fn read(&mut self, batch: &Batch<'_>, port: u16, sink: &mut impl Sink) -> usize {
        let (mut keys, mut frame) = (0, 0);
        loop {
            let plain = self.read_plain(batch, frame, port, keys);
            (keys, frame) = (keys + plain, frame + plain);
            if frame == batch.len() {
                break;
            }
            self.counters.port(port).rx_bytes.add(batch.frame_len(frame) as u64);
            match read_closely(batch, frame, port, &mut self.keys[keys]) {
                Ok(len) => {
                    self.frames[keys] = Known { frame: frame as u16, len };
                    keys += 1;
                }
                Err(reason) => sink.drop(port, reason),
            }
            frame += 1;
        }
        keys
    }

    /// Makes keys, from place `key` on, of the frames from `frame` on as long as they have no metadata and no tag:
    /// that is nearly every frame. Gives their number.
    #[inline(never)] // a loop with registers of its own
    fn read_plain(&mut self, batch: &Batch<'_>, frame: usize, port: u16, key: usize) -> usize {
        let places = self.keys[key..].iter_mut().zip(&mut self.frames[key..]);
        let (mut at, mut bytes) = (frame, 0);
        for (view, (key, known)) in batch.views(frame).zip(places) {
            let ethernet = if view.packed_offload().is_none() { untagged(view.head()) } else { None };
            let Some(ethernet) = ethernet else { break };
            key.set_untagged(ethernet, port);
            *known = Known { frame: at as u16, len: view.len() as u32 };
            bytes += view.len() as u64;
            at += 1;
        }
        self.counters.port(port).rx_bytes.add(bytes);
        at - frame
    }

    /// Lets in what comes by an underlay, without its outer headers, and makes a key for each frame inside; what else
    /// comes is seen off at once. Gives the number of keys.
    fn read_underlay(&mut self, batch: &mut Batch<'_>, index: u16, port: u16, sink: &mut impl Sink) -> usize {
        let (mut keys, mut frame, mut tally) = (0, 0, Tally::new(Way::In));
        loop {
            (keys, frame) = self.read_alike(batch, frame, port, keys, &mut tally, sink);
            if frame == batch.len() {
                break;
            }
            let len = batch.frame_len(frame) as u64;
            self.counters.port(port).rx_bytes.add(len);
            let admitted = if plausible(batch, frame) {
                let previous = &mut self.previous[place(batch.head(frame))];
                enter(&self.snapshot, index, port, batch, frame, previous)
            } else {
                Err(DropReason::BadOffload)
            };
            match admitted {
                Ok(Admitted::Inner(ingress)) => {
                    tally.add((ingress.port, ingress.overlay), len, self.books());
                    keys += self.read_inner(batch, frame, ingress, keys, sink);
                }
                Ok(Admitted::Pass(out)) => pass(&self.snapshot, batch, frame, out, sink),
                Err(reason) => sink.drop(port, reason),
            }
            frame += 1;
        }
        tally.settle(self.books());
        keys
    }

    /// Lets in frames from `frame` on as long as their outer headers are like those of one before: that is nearly every
    /// frame. Gives the next place for a key, of which `key` was one, and the first frame that was not let in.
    #[inline(never)] // a loop with registers of its own
    fn read_alike(
        &mut self,
        batch: &mut Batch<'_>,
        frame: usize,
        port: u16,
        key: usize,
        tally: &mut Tally,
        sink: &mut impl Sink,
    ) -> (usize, usize) {
        let (mut keys, mut at, mut bytes) = (key, frame, 0);
        while at < batch.len() {
            let len = batch.frame_len(at) as u64;
            let Some(previous) = &self.previous[place(batch.head(at))] else { break };
            let ingress = previous.ingress;
            if ingress.rx != port || !again(batch, at, previous) {
                break;
            }
            tally.add((ingress.port, ingress.overlay), len, self.books());
            keys += self.read_inner(batch, at, ingress, keys, sink);
            bytes += len;
            at += 1;
        }
        self.counters.port(port).rx_bytes.add(bytes);
        (keys, at)
    }

    fn books(&self) -> Books<'_> {
        Books { worker: self.worker, counters: &self.counters, overlays: &self.snapshot.overlays }
    }

    /// Makes the key, at place `at`, of a frame that was inside a tunnel's; gives the number of keys, which is 0 for a
    /// frame that ends here.
    #[inline]
    fn read_inner(
        &mut self,
        batch: &Batch<'_>,
        frame: usize,
        ingress: Ingress,
        at: usize,
        sink: &mut impl Sink,
    ) -> usize {
        match read_inner(batch, frame, ingress, &mut self.keys[at]) {
            Ok(len) => {
                self.frames[at] = Known { frame: frame as u16, len };
                self.ingress[frame] = ingress;
                1
            }
            Err(reason) => {
                sink.drop(ingress.rx, reason);
                sink.lost(ingress.port, reason);
                0
            }
        }
    }

    /// Acts on frames as long as it is known what was decided about their flows; gives the place of the first
    /// key of which it is not.
    #[inline(never)] // a loop with registers of its own
    fn act_on_known<S: Sink>(
        &mut self,
        places: Range<usize>,
        origins: Origins,
        batch: &mut Batch<'_>,
        sink: &mut S,
    ) -> usize {
        let Decider { snapshot, fdb, now_s, cache, probes, keys, frames, ingress, .. } = self;
        let (Some(cache), snapshot, now_s) = (cache, &**snapshot, *now_s) else { return places.start };
        let current = Current { generation: snapshot.generation, versions: fdb.versions() };
        let stamps = fdb.stamps(self.worker);
        cache.get_each(probes, (&keys[..], &frames[..]), places, current, |cached, &Known { frame, len }| {
            if cached.seen_s != now_s {
                cached.seen_s = now_s;
                stamps.touch(cached.location, now_s);
            }
            if !sink.emit_plain(frame, len, cached.out) {
                let ingress = match origins {
                    Origins::Port(port) => Ingress::port(port),
                    Origins::Remotes => ingress[usize::from(frame)],
                };
                execute(snapshot, batch, frame.into(), ingress, &cached.actions, sink);
            }
        })
    }

    /// Runs the pipeline for a frame and keeps what it decides.
    #[cold]
    fn decide(
        &mut self,
        batch: &Batch<'_>,
        frame: usize,
        at: usize,
        ingress: Ingress,
        mask: &KeyMask,
    ) -> Actions {
        let link = match admit(batch, frame) {
            Ok(link) => link,
            Err(reason) => return Actions::drop(reason),
        };
        let learning = Learning::On { worker: self.worker, now_s: self.now_s };
        let decision = decide(&self.snapshot, &self.fdb, ingress, &link, learning, &mut ());
        if let Some(Learned::LimitTable | Learned::LimitBridge | Learned::LimitPort) = decision.learned {
            self.counters.port(ingress.port).learn_refused.add(1);
        }
        neighbour::overhear(&self.snapshot, batch, frame, ingress, &decision, &link, self.now_s);
        self.counters.load.misses.add(1);
        if let Some(cache) = &mut self.cache {
            let Decision { actions, source, destination, .. } = decision;
            let location = decision.location.unwrap_or(Location::NOWHERE);
            let out = actions.single_output().unwrap_or(NO_PORT);
            // Learning has just touched the stamp.
            let cached = Cached { actions, out, location, seen_s: self.now_s };
            cache.insert(&self.keys[at], mask, self.snapshot.generation, [source, destination], cached);
        }
        decision.actions
    }
}

/// Makes the key of a frame that has metadata, tags or too few bytes; gives what is [`Known`] of its length.
#[cold]
fn read_closely(batch: &Batch<'_>, frame: usize, port: u16, key: &mut FlowKey) -> Result<u32, DropReason> {
    key.set_link(&admit(batch, frame)?, port);
    Ok(if batch.packed_offload(frame).has_gso() { NOT_PLAIN } else { batch.frame_len(frame) as u32 })
}

/// Makes the key of a frame that was inside a tunnel's; gives what is [`Known`] of its length.
#[inline]
fn read_inner(
    batch: &Batch<'_>,
    frame: usize,
    ingress: Ingress,
    key: &mut FlowKey,
) -> Result<u32, DropReason> {
    let ethernet = if batch.packed_offload(frame).is_none() { untagged(batch.head(frame)) } else { None };
    let len = match ethernet {
        Some(ethernet) => {
            key.set_untagged(ethernet, ingress.port);
            batch.frame_len(frame) as u32
        }
        None => read_closely(batch, frame, ingress.port, key)?,
    };
    key.set_overlay(ingress.overlay, ingress.policy.do_not_learn());
    Ok(len)
}

/// Reads the link-layer header of a frame whose metadata can be true.
#[inline(never)]
fn admit(batch: &Batch<'_>, frame: usize) -> Result<Link, DropReason> {
    if !plausible(batch, frame) {
        return Err(DropReason::BadOffload);
    }
    parse_link(batch.head(frame)).map_err(DropReason::Malformed)
}
