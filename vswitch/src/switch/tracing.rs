//! `trace`: a described frame goes through the production code, and everything is written down.
//!
//! The same parse, the same stages, the same execution as a worker's; only that nothing is learned, nothing
//! is cached, and what would leave is kept.

use control::api::{TraceOutput, TraceStage, Traced, Verdict, encode_hex};
use pmd::{Batch, Burst, Offload, Prefixes, RxMemory, TxItem};

use crate::flow::headers::{Depth, Link, parse, parse_link};
use crate::flow::key::{Field, FieldValue, FlowKey, KeyMask};
use crate::overlay::Ingress;
use crate::pipeline::decapsulate::{self, Admitted};
use crate::pipeline::execute::{Sink, execute, pass, plausible};
use crate::pipeline::{Learning, Observer, decide};
use crate::snapshot::{Place, Snapshot};
use crate::tables::fdb::Fdb;
use crate::telemetry::contents::contents;
use crate::telemetry::drops::DropReason;

/// Bytes before a described frame: as much as any driver leaves.
const HEADROOM: usize = 256;

/// Writes down what the stages say.
#[derive(Default)]
struct Recorder {
    stages: Vec<TraceStage>,
}

impl Observer for Recorder {
    fn stage(&mut self, name: &'static str, read: impl FnOnce() -> String, decided: impl FnOnce() -> String) {
        self.stages.push(TraceStage { name: name.into(), read: read(), decided: decided() });
    }
}

/// Keeps what would leave.
struct Collector<'a> {
    snapshot: &'a Snapshot,
    prefixes: Prefixes,
    outputs: Vec<(u16, Vec<u8>)>,
    drops: Vec<(u16, DropReason)>,
}

impl Sink for Collector<'_> {
    fn emit(&mut self, batch: &mut Batch<'_>, port: u16, item: TxItem) {
        let features = self.snapshot.port(port).map(|view| view.features).unwrap_or_default();
        let items = [item];
        let burst = Burst::new(batch, &items, &self.prefixes, features);
        let mut bytes = vec![0; burst.item(0).total()];
        let len = burst.copy_to(0, &mut bytes).unwrap_or(0);
        bytes.truncate(len);
        self.outputs.push((port, bytes));
    }

    fn drop(&mut self, port: u16, reason: DropReason) {
        self.drops.push((port, reason));
    }

    fn made(&mut self, _port: u16, _frames: u32) {}

    fn consumed(&mut self, _port: u16) {}

    fn may_write(&mut self, _port: u16) -> bool {
        true
    }

    fn now_s(&self) -> Option<u32> {
        None
    }

    fn identification(&mut self) -> u16 {
        0
    }

    fn prefixes(&mut self, _batch: &mut Batch<'_>, len: usize) -> Option<&mut Prefixes> {
        if !self.prefixes.has_room(len) {
            self.prefixes.clear(); // all that was emitted is copied already
        }
        Some(&mut self.prefixes)
    }

    fn written(&self) -> &Prefixes {
        &self.prefixes
    }
}

/// A trace before ports have names.
pub struct Trace {
    /// What the stages said.
    pub stages: Vec<TraceStage>,
    /// The masked flow key, if the header could be read.
    pub key: Option<FlowKey>,
    /// The bits of the key that count.
    pub mask: KeyMask,
    /// What would leave, by port index.
    pub outputs: Vec<(u16, Vec<u8>)>,
    /// What would be dropped, and where.
    pub drops: Vec<(u16, DropReason)>,
}

/// Sends `frame` in by `port`, in thought.
pub fn trace(snapshot: &Snapshot, fdb: &Fdb, port: u16, frame: &[u8], offload: Offload) -> Trace {
    let mut memory = RxMemory::new();
    let (mut batch, mut scratch) = memory.lend();
    let bytes = scratch.take(HEADROOM + frame.len());
    let fits = bytes.len() == HEADROOM + frame.len();
    let mut recorder = Recorder::default();
    let mut collector =
        Collector { snapshot, prefixes: Prefixes::default(), outputs: Vec::new(), drops: Vec::new() };
    let mask = snapshot.port(port).map_or(KeyMask::IN_PORT, |view| view.mask);
    let mut key = None;
    if !fits {
        collector.drop(port, DropReason::TooLong);
    } else {
        bytes[HEADROOM..].copy_from_slice(frame);
        batch.push_private(bytes, HEADROOM, offload);
        let entered = match snapshot.port(port).map(|view| view.place) {
            Some(Place::Underlay(index)) => enter(snapshot, index, port, &mut batch, &mut recorder),
            _ => Ok(Admitted::Inner(Ingress::port(port))),
        };
        let link = match entered {
            Ok(Admitted::Inner(ingress)) => admit(&batch, &mut recorder).map(|link| Some((ingress, link))),
            Ok(Admitted::Pass(out)) => {
                pass(snapshot, &mut batch, 0, out, &mut collector);
                Ok(None)
            }
            Err(reason) => Err(reason),
        };
        match link {
            Err(reason) => collector.drop(port, reason),
            Ok(None) => {}
            Ok(Some((ingress, link))) => {
                let len = batch.frame_len(0);
                let headers = parse(batch.head(0), len, mask.depth());
                let headers = headers.or_else(|_| parse(batch.head(0), len, Depth::L2));
                key = headers.ok().map(|headers| {
                    let mut key = FlowKey::new(&headers, ingress.port);
                    key.set_overlay(ingress.overlay, ingress.policy.do_not_learn());
                    key.masked(&mask)
                });
                let decision = decide(snapshot, fdb, ingress, &link, Learning::Off, &mut recorder);
                execute(snapshot, &mut batch, 0, ingress, &decision.actions, &mut collector);
            }
        }
    }
    Trace { stages: recorder.stages, key, mask, outputs: collector.outputs, drops: collector.drops }
}

/// What comes by an underlay, with the outer headers off.
fn enter(
    snapshot: &Snapshot,
    index: u16,
    port: u16,
    batch: &mut Batch<'_>,
    recorder: &mut Recorder,
) -> Result<Admitted, DropReason> {
    let (outer, len) = (crate::notation::describe(batch.head(0)), batch.frame_len(0));
    let result = if plausible(batch, 0) {
        decapsulate::admit(snapshot, index, port, batch, 0, &mut None)
    } else {
        Err(DropReason::BadOffload)
    };
    recorder.stage(
        "decapsulate",
        || format!("{len} bytes = {outer}"),
        || match result {
            Ok(Admitted::Inner(ingress)) => {
                let vni = snapshot.overlays.overlay(ingress.overlay).map_or(0, |overlay| overlay.vni);
                format!("from {}, VNI {vni}{}", snapshot.port_name(ingress.port), ingress.policy)
            }
            Ok(Admitted::Pass(out)) => format!("no tunnel's: to {}", snapshot.port_name(out)),
            Err(reason) => format!("drop: {}", reason.name()),
        },
    );
    result
}

fn admit(batch: &Batch<'_>, recorder: &mut Recorder) -> Result<Link, DropReason> {
    let result = if plausible(batch, 0) {
        parse_link(batch.head(0)).map_err(DropReason::Malformed)
    } else {
        Err(DropReason::BadOffload)
    };
    recorder.stage(
        "parse",
        || format!("{} bytes", batch.frame_len(0)),
        || match &result {
            Ok(_) => match contents(batch.head(0)) {
                Some(contents) => format!("{contents} = {}", crate::notation::describe(batch.head(0))),
                None => crate::notation::describe(batch.head(0)),
            },
            Err(reason) => format!("drop: {}", reason.name()),
        },
    );
    result
}

impl Trace {
    /// The answer of the API, with ports named by `name`.
    pub fn report(
        self,
        cached: bool,
        snapshot: &Snapshot,
        name: impl Fn(u16) -> Option<control::schema::PortName>,
    ) -> Traced {
        let reason =
            if self.outputs.is_empty() { self.drops.first().map(|(_, reason)| *reason) } else { None };
        let verdict = match (self.outputs.is_empty(), self.drops.is_empty()) {
            (false, _) => Verdict::Forward,
            (true, false) => Verdict::Drop,
            (true, true) => Verdict::Consume,
        };
        Traced {
            stages: self.stages,
            key: self.key.map(|key| key_words(snapshot, &key, &self.mask)).unwrap_or_default(),
            mask: mask_words(&self.mask),
            cached,
            verdict,
            reason: reason.map(|reason| reason.name().to_owned()),
            outputs: self
                .outputs
                .into_iter()
                .filter_map(|(port, bytes)| {
                    Some(TraceOutput { port: name(port)?, frame_hex: encode_hex(&bytes) })
                })
                .collect(),
        }
    }
}

/// A masked key as people read it: `port=web1 eth.dst=02:00:00:00:00:0b`.
pub fn key_words(snapshot: &Snapshot, key: &FlowKey, mask: &KeyMask) -> String {
    let word = |field: FieldValue| match field.field {
        Field::InPort => format!("{}={}", Field::InPort.name(), snapshot.port_name(key.in_port())),
        _ => field.to_string(),
    };
    key.fields(mask).map(word).collect::<Vec<_>>().join(" ")
}

/// The fields of a mask: `eth.dst port eth.src/ffff`.
fn mask_words(mask: &KeyMask) -> String {
    let ones = FlowKey::from_words(*mask.words());
    let word = |field: FieldValue| match field.mask_text() {
        None => field.field.name().to_owned(),
        Some(bits) => format!("{}/{bits}", field.field.name()),
    };
    ones.fields(mask).map(word).collect::<Vec<_>>().join(" ")
}
