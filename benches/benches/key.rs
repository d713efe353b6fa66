//! Parsing a frame and packing its key, to the depth of a bridge and of a policy; the hash alone.
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vswitch::flow::hash::HashKey;
use vswitch::flow::headers::{Depth, parse, parse_link};
use vswitch::flow::key::{FlowKey, WORDS};

/// A TCP segment over IPv4 in a frame of 64 bytes.
fn frame() -> [u8; 64] {
    let mut frame = [0; 64];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0, 0, 64, 6]);
    frame[26..38].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0, 80]);
    frame[46] = 0x50;
    frame
}

fn keys(c: &mut Criterion) {
    let mut group = c.benchmark_group("key");
    group.throughput(Throughput::Elements(1));
    let frame = frame();
    let mut key = FlowKey::ZERO;
    group.bench_function("link", |b| {
        b.iter(|| {
            if let Ok(link) = parse_link(black_box(&frame)) {
                key.set_link(&link, 1);
            }
            black_box(&key);
        })
    });
    group.bench_function("all", |b| {
        b.iter(|| parse(black_box(&frame), frame.len(), Depth::L4).map(|headers| FlowKey::new(&headers, 1)))
    });
    group.finish();
}

fn hashes(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash");
    group.throughput(Throughput::Elements(1));
    let hash = HashKey::from_seed(1);
    group.bench_function("two words", |b| b.iter(|| hash.two(*black_box(&[1, 2]))));
    group.bench_function("three words", |b| b.iter(|| hash.three(*black_box(&[1, 2, 3]))));
    group.bench_function("eight words", |b| b.iter(|| hash.eight(black_box(&[1; WORDS]))));
    group.finish();
}

criterion_group!(benches, keys, hashes);
criterion_main!(benches);
