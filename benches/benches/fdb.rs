//! The FDB: lookups from ten addresses to a hundred thousand in random order, learning, sweeping.
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use vswitch::tables::fdb::{Fdb, MacKey, Size};

fn key(number: u64) -> MacKey {
    let [_, _, mac @ ..] = (0x0200_0000_0000 | number).to_be_bytes();
    MacKey { bridge: 1, vlan: 10, mac }
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
    *state >> 33
}

fn filled(addresses: u64) -> Fdb {
    let fdb = Fdb::new(Size::default(), 1);
    for number in 0..addresses {
        fdb.learn(key(number), 1, 0, 1);
    }
    fdb
}

fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("fdb/lookup");
    group.throughput(Throughput::Elements(1));
    for addresses in [10, 100, 1_000, 10_000, 100_000] {
        let (fdb, mut state) = (filled(addresses), 1);
        group.bench_function(addresses.to_string(), |b| {
            b.iter(|| black_box(fdb.lookup(key(random(&mut state) % addresses))))
        });
    }
    let (fdb, mut state) = (filled(100_000), 1);
    group.bench_function("unknown", |b| b.iter(|| black_box(fdb.lookup(key(1 << 40 | random(&mut state))))));
}

fn learning(c: &mut Criterion) {
    let mut group = c.benchmark_group("fdb/learn");
    group.throughput(Throughput::Elements(1));
    let (fdb, mut state) = (filled(10_000), 1);
    group.bench_function("known", |b| {
        b.iter(|| black_box(fdb.learn(key(random(&mut state) % 10_000), 1, 0, 1)))
    });
    let mut port = 0;
    group.bench_function("moved", |b| {
        b.iter(|| {
            port = port % 2 + 1;
            black_box(fdb.learn(key(7), port, 0, 1))
        })
    });
    group.throughput(Throughput::Elements(100_000));
    group.sample_size(10);
    group.bench_function("100,000 new", |b| {
        b.iter_batched(
            || Fdb::new(Size::default(), 1),
            |fdb| {
                for number in 0..100_000 {
                    fdb.learn(key(number), 1, 0, 1);
                }
                fdb
            },
            BatchSize::PerIteration,
        )
    });
}

fn sweeping(c: &mut Criterion) {
    let fdb = filled(100_000);
    c.bench_function("fdb/sweep of 100,000", |b| {
        b.iter(|| fdb.sweep(0, fdb.bucket_count(), 10, |_| 300, |entry| panic!("{entry:?} is young")))
    });
}

criterion_group!(benches, lookups, learning, sweeping);
criterion_main!(benches);
