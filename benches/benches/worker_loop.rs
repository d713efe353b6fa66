//! The worker loop from `mem` to `mem`: batches of 64 frames of 64 bytes, hit by the flow cache, and decided
//! by the pipeline. Only the worker's turns are timed, not what plays the machines at the ends.
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pmd::mem::Lending;
use vswitch::flow::headers::parse_link;
use vswitch::overlay::Ingress;
use vswitch::pipeline::{Learning, decide};
use vswitch::snapshot::{BridgeView, Place, PortView, PortVlans, Snapshot};
use vswitch::tables::fdb::{Fdb, MacKey, Size};
use vswitch_benches::circuit::{Circuit, Load};

/// The time of `turns` turns.
fn turns(circuit: &mut Circuit, turns: u64) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..turns {
        let begin = Instant::now();
        let frames = circuit.turn();
        total += begin.elapsed();
        assert_eq!(black_box(frames), 64);
        circuit.close();
    }
    total
}

fn loops(c: &mut Criterion) {
    let mut group = c.benchmark_group("worker_loop");
    group.throughput(Throughput::Elements(64));
    let lent = Lending::Lent { head: 128 };
    for (name, load) in [
        ("hit, 1 flow", Load::default()),
        ("hit, 10000 flows", Load { flows: 10_000, ..Load::default() }),
        ("hit, 10000 flows, lent and copied", Load { flows: 10_000, lending: lent, ..Load::default() }),
        ("miss, 1 flow", Load { cache: 0, ..Load::default() }),
        ("miss, 10000 flows", Load { flows: 10_000, cache: 0, ..Load::default() }),
    ] {
        let Ok(mut circuit) = Circuit::new(load) else { continue };
        group.bench_function(name, |b| b.iter_custom(|iterations| turns(&mut circuit, iterations)));
    }
}

/// The pipeline alone, for a frame whose addresses are known.
fn pipeline(c: &mut Criterion) {
    let port = || PortView {
        name: "port".into(),
        place: Place::Bridge(0),
        vlans: PortVlans::new(&control::schema::VlanMode::Transparent),
        isolated: false,
        hairpin: false,
        mtu: 1500,
        features: pmd::Features::NONE,
        group: None,
        up: true,
        mask: vswitch::pipeline::mask(),
    };
    let bridge = BridgeView { members: vec![0, 1], ..BridgeView::default() };
    let snapshot = Snapshot {
        generation: 1,
        ports: vec![Some(port()), Some(port())],
        bridges: vec![Some(bridge)],
        ..Snapshot::default()
    };
    let fdb = Fdb::new(Size::default(), 1);
    let frame: Vec<u8> = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0].into_iter().chain([0; 50]).collect();
    for (last, port) in [(1, 1), (2, 0)] {
        fdb.learn(MacKey { bridge: 0, vlan: 0, mac: [2, 0, 0, 0, 0, last] }, port, 0, 1);
    }
    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(1));
    group.bench_function("known addresses", |b| {
        b.iter(|| {
            let link = parse_link(black_box(&frame));
            let learning = Learning::On { worker: 0, now_s: 1 };
            link.map(|link| decide(&snapshot, &fdb, Ingress::port(0), &link, learning, &mut ()))
        })
    });
}

criterion_group!(benches, loops, pipeline);
criterion_main!(benches);
