//! The cache against a map, its isolation between ports, and batches against single frames.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::flow::key::Field;

fn bridge_key(port: u16, dst: u64, src: u64) -> FlowKey {
    let mut key = FlowKey::ZERO;
    key.set(Field::InPort, port.into());
    key.set(Field::EthDst, dst.into());
    key.set(Field::EthSrc, src.into());
    key
}

/// One lookup by the way that the worker goes.
fn get(cache: &mut FlowCache<u64>, key: &FlowKey, mask: &KeyMask, current: Current<'_>) -> Option<u64> {
    let mut probes = Probes::default();
    let mut keys = [*key];
    cache.probe(&mut keys, mask, &mut probes);
    let mut got = None;
    let end = cache.get_each(&probes, (&keys[..], &[5][..]), 0..1, current, |value, beside| {
        assert_eq!(*beside, 5);
        got = Some(*value);
    });
    assert_eq!(end, usize::from(got.is_some()));
    got
}

#[test]
fn an_empty_cache_has_not_even_the_key_of_zeros() {
    let (mut cache, versions) = (FlowCache::<u64>::new(64, 1), Versions::new());
    let current = Current { generation: 0, versions: &versions };
    for fields in [&Field::BRIDGE[..], &[Field::EthType], &Field::ALL] {
        let mask = KeyMask::of(fields);
        assert_eq!(get(&mut cache, &FlowKey::ZERO, &mask, current), None);
        assert_eq!(cache.peek(&FlowKey::ZERO, &mask, current), None);
    }
    assert_eq!(cache.flows(0..cache.capacity()).count(), 0);
}

#[test]
fn counters_tell_hits_misses_stale_and_evictions() {
    let (mut cache, versions) = (FlowCache::<u64>::new(64, 1), Versions::new());
    let current = Current { generation: 1, versions: &versions };
    let mask = KeyMask::of(&Field::BRIDGE);
    let key = bridge_key(1, 2, 3);
    assert_eq!(get(&mut cache, &key, &mask, current), None);
    cache.insert(&key, &mask, 1, [versions.witness(9), Witness::NOTHING], 42);
    assert_eq!(get(&mut cache, &key, &mask, current), Some(42));
    versions.advance(9);
    assert_eq!(get(&mut cache, &key, &mask, current), None);
    cache.insert(&key, &mask, 1, [versions.witness(9), Witness::NOTHING], 43);
    assert_eq!(cache.flows(0..64).map(|flow| flow.value).collect::<Vec<_>>(), [43], "decided again in place");
    assert_eq!(get(&mut cache, &key, &mask, Current { generation: 2, ..current }), None);
    assert_eq!(cache.counters(), Counters { hits: 1, misses: 1, stale: 2, inserts: 2, evictions: 0 });
    for dst in 0..1000 {
        cache.insert(&bridge_key(1, dst, 3), &mask, 1, [Witness::NOTHING; 2], dst);
    }
    // 1000 keys, one of them twice in place: whoever is not there any more was evicted.
    let counters = cache.counters();
    assert_eq!(counters.inserts + counters.evictions, 1002);
    assert_eq!(counters.evictions as usize, 1000 - cache.flows(0..64).count());
}

#[test]
fn flows_away_from_home_are_foreseen() {
    let (mut cache, versions) = (FlowCache::<u64>::new(64, 1), Versions::new());
    let current = Current { generation: 1, versions: &versions };
    let mask = KeyMask::of(&Field::BRIDGE);
    let mut keys: Vec<_> = (0..48).map(|dst| bridge_key(1, dst, 3)).collect();
    for (key, value) in keys.iter().zip(0..) {
        cache.insert(key, &mask, 1, [versions.witness(5), Witness::NOTHING], value);
    }
    let mut probes = Probes::default();
    cache.probe(&mut keys, &mask, &mut probes);
    let mut foreseen = 0;
    cache.foresee(&mut probes, &keys, &versions, |_| foreseen += 1);
    assert_eq!(foreseen, keys.len(), "each place is looked at once");
    let (mut kept, mut found) = (0, 0);
    for (at, key) in keys.iter().enumerate() {
        let entry = &cache.entries[probes.probes[at].candidate as usize];
        found += usize::from(entry.front[..2] == key.words()[..2]);
        let got = cache.get(&probes, at, key, current).copied();
        assert!(got.is_none_or(|got| got == at as u64), "{at}: {got:?}");
        kept += usize::from(got.is_some());
    }
    // Tags of 14 bits: two alike in a bucket are a chance that this seed does not bring.
    assert_eq!(found, kept);
    assert!(keys.iter().any(|key| cache.home(cache.hash_first::<2>(key)) != place(&cache, key)));
}

/// Where a key is.
fn place(cache: &FlowCache<u64>, key: &FlowKey) -> usize {
    cache.search::<2>(cache.hash_first::<2>(key), key).unwrap_or(usize::MAX)
}

#[test]
fn what_was_compared_once_stands_until_its_own_slots_change() {
    let (mut cache, versions) = (FlowCache::<u64>::new(64, 1), Versions::new());
    let current = Current { generation: 1, versions: &versions };
    let mask = KeyMask::of(&Field::BRIDGE);
    for slot in [5, 6] {
        let key = bridge_key(1, slot.into(), 3);
        cache.insert(&key, &mask, 1, [versions.witness(5), versions.witness(6)], 7);
        for other in 7..20 {
            assert_eq!(get(&mut cache, &key, &mask, current), Some(7), "nothing happened");
            versions.advance(other);
            assert_eq!(get(&mut cache, &key, &mask, current), Some(7), "another slot changed");
        }
        versions.advance(slot);
        versions.advance(20);
        for _ in 0..2 {
            assert_eq!(get(&mut cache, &key, &mask, current), None, "slot {slot} changed");
        }
    }
}

#[test]
fn what_is_noted_beside_a_decision_lasts_until_the_next_one() {
    let (mut cache, versions) = (FlowCache::<u64>::new(64, 1), Versions::new());
    let current = Current { generation: 1, versions: &versions };
    let (mask, mut keys) = (KeyMask::of(&Field::BRIDGE), [bridge_key(1, 2, 3)]);
    let (key, mut probes) = (keys[0], Probes::default());
    cache.insert(&key, &mask, 1, [Witness::NOTHING; 2], 1);
    cache.probe(&mut keys, &mask, &mut probes);
    cache.get_each(&probes, (&keys[..], &[()][..]), 0..1, current, |value, ()| *value += 10);
    assert_eq!(get(&mut cache, &key, &mask, current), Some(11));
    cache.insert(&key, &mask, 1, [Witness::NOTHING; 2], 2);
    assert_eq!(get(&mut cache, &key, &mask, current), Some(2));
}

#[test]
fn a_run_of_hits_ends_at_the_first_miss() {
    let (mut cache, versions) = (FlowCache::<u64>::new(64, 1), Versions::new());
    let current = Current { generation: 1, versions: &versions };
    let mask = KeyMask::of(&Field::BRIDGE);
    let mut keys = [2, 3, 4, 5].map(|dst| bridge_key(1, dst, 1));
    for (at, value) in [(0, 10), (1, 11), (3, 13)] {
        cache.insert(&keys[at], &mask, 1, [Witness::NOTHING; 2], value);
    }
    let mut probes = Probes::default();
    cache.probe(&mut keys, &mask, &mut probes);
    let mut run = |places| {
        let mut got = Vec::new();
        let keys = (&keys[..], &["a", "b", "c", "d"][..]);
        let end = cache.get_each(&probes, keys, places, current, |value, beside| got.push((*value, *beside)));
        (end, got)
    };
    assert_eq!(run(0..4), (2, vec![(10, "a"), (11, "b")]));
    assert_eq!(run(3..4), (4, vec![(13, "d")]));
    assert_eq!(run(4..4), (4, vec![]));
}

#[test]
fn a_frame_sees_what_the_frames_before_it_in_the_batch_inserted() {
    let (mut cache, versions) = (FlowCache::<u64>::new(64, 1), Versions::new());
    let current = Current { generation: 1, versions: &versions };
    let mask = KeyMask::of(&Field::BRIDGE);
    let mut keys = [bridge_key(1, 2, 3), bridge_key(1, 4, 3), bridge_key(1, 2, 3)];
    let mut probes = Probes::default();
    cache.insert(&keys[1], &mask, 1, [versions.witness(5), Witness::NOTHING], 8);
    cache.probe(&mut keys, &mask, &mut probes);
    assert_eq!(cache.get(&probes, 0, &keys[0], current), None);
    cache.insert(&keys[0], &mask, 1, [Witness::NOTHING; 2], 7);
    versions.advance(5);
    assert_eq!(cache.get(&probes, 1, &keys[1], current), None, "learned by frame 0");
    assert_eq!(cache.get(&probes, 2, &keys[2], current), Some(&7), "inserted by frame 0");
}

#[test]
fn a_flood_of_flows_leaves_the_others_theirs() {
    let (mut cache, versions) = (FlowCache::<u64>::new(1024, 3), Versions::new());
    let current = Current { generation: 1, versions: &versions };
    let mask = KeyMask::of(&Field::BRIDGE);
    let flood = |cache: &mut FlowCache<u64>, from: u64| {
        for src in from..from + 50_000 {
            cache.insert(&bridge_key(66, 1, src), &mask, 1, [Witness::NOTHING; 2], 0);
        }
    };
    // One flow a bucket on average, of two ports: a bucket shared by three leaves each two ways at least.
    let own: Vec<FlowKey> = (0..128).map(|dst| bridge_key(1 + (dst % 2) as u16, dst, 9)).collect();
    flood(&mut cache, 0);
    for (value, key) in own.iter().enumerate() {
        cache.insert(key, &mask, 1, [Witness::NOTHING; 2], value as u64);
    }
    flood(&mut cache, 1 << 32);
    let kept = own.iter().filter(|key| get(&mut cache, key, &mask, current).is_some()).count();
    // More than that in one bucket is rare, not impossible.
    assert!(kept >= 125, "{kept} of 128 kept");
    let (flooder, all): (Vec<_>, Vec<_>) = cache.flows(0..1024).partition(|flow| flow.key.in_port() == 66);
    assert_eq!(flooder.len() + all.len(), 1024, "the flooder may have what nobody else wants");
}

#[test]
fn a_cache_holds_most_of_what_fits() {
    let (mut cache, versions) = (FlowCache::<u64>::new(131_072, 3), Versions::new());
    let current = Current { generation: 1, versions: &versions };
    let mask = KeyMask::of(&Field::BRIDGE);
    for dst in 0..100_000 {
        cache.insert(&bridge_key(1, dst, 9), &mask, 1, [Witness::NOTHING; 2], dst);
    }
    let kept = (0..100_000)
        .filter(|&dst| get(&mut cache, &bridge_key(1, dst, 9), &mask, current) == Some(dst))
        .count();
    // Poisson with mean 6.1 and room for 8: four in a hundred find their bucket full.
    assert!(kept > 94_000, "{kept}");
}

#[derive(Debug, Clone)]
enum Step {
    Insert { key: usize, slots: [u16; 2], value: u64 },
    Get(Vec<usize>),
    Advance(u16),
    Generation,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..200usize, 1..9u16, 1..9u16, any::<u64>())
            .prop_map(|(key, a, b, value)| Step::Insert { key, slots: [a, b], value }),
        6 => prop::collection::vec(0..200usize, 1..BATCH).prop_map(Step::Get),
        1 => (1..9u16).prop_map(Step::Advance),
        1 => Just(Step::Generation),
    ]
}

/// What a key was last given: value, generation, witnesses.
type Given = (u64, u32, [Witness; 2]);

proptest! {
    #[test]
    fn a_hit_is_what_was_last_inserted(
        seed: u64,
        fields in prop::sample::select(vec![&Field::BRIDGE[..], &[Field::EthDst, Field::EthType], &Field::ALL[..]]),
        steps in prop::collection::vec(steps(), 1..150),
    ) {
        let (mut cache, versions) = (FlowCache::<u64>::new(64, seed), Versions::new());
        let (mask, mut generation) = (KeyMask::of(fields), 1);
        let mut model: HashMap<FlowKey, Given> = HashMap::new();
        let mut probes = Probes::default();
        // Keys that share words in all combinations, each with noise that the mask may or may not hide.
        let keys: Vec<FlowKey> = (0..200u64)
            .map(|n| FlowKey::from_words(std::array::from_fn(|word| (n >> word & 1) * 0x0101_0101_0101_0101)))
            .collect();
        for step in steps {
            match step {
                Step::Insert { key, slots, value } => {
                    let witnesses = slots.map(|slot| versions.witness(slot));
                    cache.insert(&keys[key], &mask, generation, witnesses, value);
                    model.insert(keys[key].masked(&mask), (value, generation, witnesses));
                    let current = Current { generation, versions: &versions };
                    prop_assert_eq!(cache.peek(&keys[key], &mask, current), Some(&value));
                }
                Step::Get(batch) => {
                    let mut asked: Vec<FlowKey> = batch.iter().map(|&key| keys[key]).collect();
                    let current = Current { generation, versions: &versions };
                    cache.probe(&mut asked, &mask, &mut probes);
                    for (at, key) in asked.iter().enumerate() {
                        let peeked = cache.peek(key, &mask, current).copied();
                        let got = cache.get(&probes, at, key, current).copied();
                        prop_assert_eq!(got, peeked);
                        if let Some(value) = got {
                            let given = model.get(&key.masked(&mask));
                            prop_assert_eq!(given.map(|given| (given.0, given.1)), Some((value, generation)));
                            prop_assert!(given.is_some_and(|given| given.2.iter().all(|&w| versions.is_current(w))));
                        }
                    }
                }
                Step::Advance(slot) => _ = versions.advance(slot),
                Step::Generation => generation += 1,
            }
            let listed: Vec<_> = cache.flows(0..64).collect();
            let distinct: HashSet<FlowKey> = listed.iter().map(|flow| flow.key).collect();
            prop_assert_eq!(distinct.len(), listed.len(), "a key is there twice");
            for flow in listed {
                prop_assert_eq!(model.get(&flow.key), Some(&(flow.value, flow.generation, flow.witnesses)));
            }
        }
    }

    #[test]
    fn only_bits_of_the_mask_tell_flows_apart(
        words: [u64; WORDS],
        fields in prop::collection::vec(prop::sample::select(&Field::ALL[..]), 0..8),
        bit in 0..512usize,
    ) {
        let (mut cache, versions) = (FlowCache::<u64>::new(64, 5), Versions::new());
        let current = Current { generation: 1, versions: &versions };
        let mask = KeyMask::of(&fields);
        cache.insert(&FlowKey::from_words(words), &mask, 1, [Witness::NOTHING; 2], 1);
        let mut flipped = words;
        flipped[bit / 64] ^= 1 << (bit % 64);
        let counts = mask.words()[bit / 64] >> (bit % 64) & 1 == 1;
        let found = get(&mut cache, &FlowKey::from_words(flipped), &mask, current);
        prop_assert_eq!(found, (!counts).then_some(1));
    }
}
