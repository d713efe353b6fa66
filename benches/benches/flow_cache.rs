//! The flow cache: hits from ten flows to a hundred thousand in random order, and inserts.
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use vswitch::flow::cache::{BATCH, Current, FlowCache, Probes};
use vswitch::flow::key::{Field, FlowKey, KeyMask};
use vswitch::tables::versions::{Versions, Witness};

fn key(number: u64) -> FlowKey {
    let mut key = FlowKey::ZERO;
    key.set(Field::InPort, 1);
    key.set(Field::EthDst, 0x0200_0000_0000 + u128::from(number));
    key.set(Field::EthSrc, 0x0200_0001_0000 + u128::from(number));
    key.set(Field::IpSrc, number.into());
    key
}

/// The numbers below `count` in an order that no prefetcher follows, as often as it takes for 64 batches.
fn random_order(count: u64) -> Vec<u64> {
    let mut state = 1u64;
    (0..(64 * BATCH as u64).max(count * 2))
        .map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 33) % count
        })
        .collect()
}

fn hits(c: &mut Criterion) {
    for (name, fields) in [("bridge", &Field::BRIDGE[..]), ("all", &Field::ALL[..])] {
        let mut group = c.benchmark_group(format!("flow_cache/hit/{name}"));
        group.throughput(Throughput::Elements(BATCH as u64));
        for flows in [10, 100, 1_000, 10_000, 100_000] {
            let (mut cache, versions) = (FlowCache::<[u32; 5]>::new(131_072, 1), Versions::new());
            let (mask, mut probes) = (KeyMask::of(fields), Probes::default());
            let current = Current { generation: 1, versions: &versions };
            for number in 0..flows {
                let witnesses = [number, number * 7].map(|slot| versions.witness(slot as u16));
                cache.insert(&key(number), &mask, 1, witnesses, [number as u32; 5]);
            }
            let keys: Vec<FlowKey> = random_order(flows).into_iter().map(key).collect();
            let mut batches = keys.chunks_exact(BATCH).cycle();
            group.bench_function(flows.to_string(), |b| {
                b.iter(|| {
                    let mut keys = [FlowKey::ZERO; BATCH];
                    keys.copy_from_slice(batches.next().unwrap_or_default());
                    cache.probe(&mut keys, &mask, &mut probes);
                    let mut sum = 0;
                    for (at, key) in keys.iter().enumerate() {
                        if let Some(value) = cache.get(&probes, at, key, current) {
                            sum += value[0];
                        }
                    }
                    black_box(sum)
                })
            });
            let counters = cache.counters();
            let lookups = counters.hits + counters.misses;
            println!(
                "flow_cache/hit/{name}/{flows}: {:.1} % hits",
                100.0 * counters.hits as f64 / lookups as f64
            );
        }
    }
}

fn inserts(c: &mut Criterion) {
    let mask = KeyMask::of(&Field::BRIDGE);
    let mut group = c.benchmark_group("flow_cache/insert");
    group.throughput(Throughput::Elements(1));
    for (name, flows) in [("room", 100_000), ("full", 1_000_000)] {
        let mut cache = FlowCache::<[u32; 5]>::new(131_072, 1);
        let mut numbers = (0..flows).cycle();
        group.bench_function(name, |b| {
            b.iter_batched(
                || key(numbers.next().unwrap_or_default()),
                |key| cache.insert(&key, &mask, 1, [Witness::NOTHING; 2], [1; 5]),
                BatchSize::SmallInput,
            )
        });
    }
}

criterion_group!(benches, hits, inserts);
criterion_main!(benches);
