//! The FDB against a model, against its promises of isolation, and under four threads.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;

const AGEING_S: u32 = 30;

fn key(bridge: u16, vlan: u16, last: u8) -> MacKey {
    MacKey { bridge, vlan, mac: [2, 0, 0, 0, 0, last] }
}

fn numbered(number: u64) -> MacKey {
    let [_, _, mac @ ..] = (0x0200_0000_0000 | number).to_be_bytes();
    MacKey { bridge: 0, vlan: 0, mac }
}

fn small(entries: u32) -> Fdb {
    Fdb::new(Size { entries, bridges: 2, ports: 4, first_remote: 4, workers: 2 }, 11)
}

#[test]
fn learns_finds_moves_and_forgets() {
    let fdb = small(16);
    let host = key(0, 10, 1);
    assert_eq!(fdb.lookup(host).found, None);
    assert_eq!(fdb.learn(host, 1, 0, 5).outcome, Learned::New);
    assert_eq!(fdb.learn(host, 1, 0, 6).outcome, Learned::Known);
    assert_eq!(fdb.lookup(host).found.map(|found| found.port), Some(1));
    assert_eq!(fdb.learn(host, 2, 1, 7).outcome, Learned::Moved { from: 1 });
    assert_eq!(fdb.lookup(host).found.map(|found| found.port), Some(2));
    assert_eq!((fdb.port_len(1), fdb.port_len(2), fdb.bridge_len(0), fdb.len()), (0, 1, 1, 1));
    for other in [key(1, 10, 1), key(0, 11, 1), key(0, 10, 2)] {
        assert_eq!(fdb.lookup(other).found, None);
    }
    assert!(fdb.remove(host) && !fdb.remove(host));
    assert!(fdb.is_empty() && fdb.lookup(host).found.is_none());
}

#[test]
fn a_first_appearance_makes_a_cached_miss_stale() {
    let fdb = small(16);
    let miss = fdb.lookup(key(0, 0, 1)).witness;
    assert!(fdb.versions().is_current(miss));
    let learned = fdb.learn(key(0, 0, 1), 1, 0, 5).witness;
    assert!(!fdb.versions().is_current(miss) && fdb.versions().is_current(learned));
    fdb.learn(key(0, 0, 1), 1, 0, 6);
    assert!(fdb.versions().is_current(learned), "a refresh is no change");
}

#[test]
fn a_flapping_address_leaves_the_others_current() {
    let fdb = Fdb::new(Size::default(), 3);
    let others: Vec<_> = (1..200).map(|number| fdb.learn(numbered(number), 1, 0, 5).witness).collect();
    for turn in 0..1000 {
        fdb.learn(numbered(0), turn % 2, 0, 5);
    }
    let stale = others.iter().filter(|&&witness| !fdb.versions().is_current(witness)).count();
    // 65,536 slots: one of 199 sharing the flapping one's is a chance of 0.3 %, and the seed is fixed.
    assert_eq!(stale, 0);
}

#[test]
fn static_entries_win_over_frames_and_age() {
    let fdb = small(16);
    let host = key(1, 0, 9);
    fdb.learn(host, 1, 0, 5);
    fdb.add_static(host, 3).expect("there is room");
    assert_eq!((fdb.port_len(1), fdb.bridge_len(1), fdb.len()), (0, 0, 1));
    assert_eq!(fdb.learn(host, 1, 0, 6).outcome, Learned::Static);
    assert_eq!(fdb.learn(host, 3, 0, 6).outcome, Learned::Known);
    fdb.sweep(0, fdb.bucket_count(), 1_000_000, |_| AGEING_S, |_| panic!("a static entry does not age"));
    assert_eq!(fdb.entries().map(|entry| (entry.port, entry.kind)).collect::<Vec<_>>(), [(3, Kind::Static)]);
    assert_eq!(fdb.remove_port(3), 1);
    assert_eq!(fdb.learn(host, 1, 0, 7).outcome, Learned::New);
}

#[test]
fn what_is_loaded_gives_way_to_stations_of_this_host_alone() {
    let fdb = Fdb::new(Size { entries: 16, bridges: 2, ports: 6, first_remote: 4, workers: 1 }, 11);
    let (host, remote, other) = (key(1, 0, 9), 4, 5);
    let state = || fdb.entries().map(|entry| (entry.port, entry.kind)).collect::<Vec<_>>();
    fdb.load(host, remote, true).expect("there is room");
    fdb.sweep(0, fdb.bucket_count(), 1_000_000, |_| AGEING_S, |_| panic!("a loaded entry does not age"));
    assert_eq!(fdb.learn(host, other, 0, 5).outcome, Learned::Static);
    assert_eq!(fdb.foresee(host, 1), Learned::Moved { from: remote });
    assert_eq!(fdb.learn(host, 1, 0, 5).outcome, Learned::Moved { from: remote });
    assert_eq!((state(), fdb.port_len(1), fdb.bridge_len(1)), (vec![(1, Kind::Learned)], 1, 1));
    // Said again it is nothing new; something new is believed.
    fdb.load(host, remote, false).expect("there is room");
    fdb.unload(host);
    assert_eq!(state(), [(1, Kind::Learned)]);
    fdb.load(host, other, true).expect("there is room");
    assert_eq!((state(), fdb.port_len(1), fdb.bridge_len(1)), (vec![(other, Kind::Loaded)], 0, 0));
    fdb.add_static(host, 2).expect("there is room");
    fdb.load(host, other, true).expect("there is room");
    fdb.unload(host);
    assert_eq!((state(), fdb.len()), (vec![(2, Kind::Static)], 1));
    fdb.remove(host);
    fdb.set_bridge_limit(1, 0);
    fdb.load(host, remote, false).expect("there is room");
    assert_eq!(fdb.foresee(host, 1), Learned::LimitBridge);
    assert_eq!(fdb.learn(host, 1, 0, 5).outcome, Learned::LimitBridge);
    fdb.unload(host);
    assert_eq!((fdb.port_len(1), fdb.bridge_len(1), fdb.len()), (0, 0, 0));
}

#[test]
fn who_moves_too_often_is_held_for_a_while() {
    let fdb = small(16);
    let host = key(1, 0, 9);
    let moved = |from| Learned::Moved { from };
    fdb.learn(host, 0, 0, 1_000);
    // Seldom enough: the count begins anew before it is full.
    for turn in 0..20 {
        let (from, to) = (turn as u16 % 2, (turn as u16 + 1) % 2);
        assert_eq!(fdb.learn(host, to, 0, 1_000 + turn * WINDOW_S / 4).outcome, moved(from), "{turn}");
    }
    assert_eq!(fdb.next_alarm(), None);
    let now_s = 100_000;
    for turn in 0..MOVES as u16 {
        assert_eq!(fdb.learn(host, (turn + 1) % 2, 0, now_s).outcome, moved(turn % 2), "{turn}");
    }
    assert_eq!(fdb.next_alarm(), Some(Alarm { key: host, at: 1, seen: 0, flapping: true }));
    let (held, other) = (fdb.learn(host, 2, 0, now_s), fdb.foresee(host, 2));
    assert_eq!((held.outcome, other, held.location), (Learned::Held, Learned::Held, None));
    assert_eq!(fdb.learn(host, 1, 0, now_s).outcome, Learned::Known);
    assert_eq!(fdb.next_alarm(), Some(Alarm { key: host, at: 1, seen: 2, flapping: false }));
    let sweep = |now_s| fdb.sweep(0, fdb.bucket_count(), now_s, |_| AGEING_S, |_| ());
    sweep(now_s + HOLD_S - 1);
    assert_eq!(fdb.learn(host, 2, 0, now_s).outcome, Learned::Held);
    fdb.learn(host, 1, 0, now_s + HOLD_S);
    assert!(fdb.versions().is_current(held.witness));
    sweep(now_s + HOLD_S);
    assert!(!fdb.versions().is_current(held.witness), "a cached decision must not outlive the hold");
    assert_eq!(fdb.learn(host, 2, 0, now_s + HOLD_S).outcome, moved(1));
    assert_eq!((fdb.port_len(1), fdb.port_len(2)), (0, 1));
}

#[test]
fn a_new_user_of_a_place_does_not_inherit_its_moves() {
    let fdb = small(1);
    for turn in 0..=MOVES as u16 {
        fdb.learn(key(0, 0, 1), turn % 2, 0, 100);
    }
    assert!(fdb.lookup(key(0, 0, 1)).found.is_some_and(|found| found.held));
    fdb.remove(key(0, 0, 1));
    fdb.learn(key(0, 0, 1), 2, 0, 100);
    assert_eq!(fdb.learn(key(0, 0, 1), 3, 0, 100).outcome, Learned::Moved { from: 2 });
}

#[test]
fn any_workers_touch_keeps_an_entry_young() {
    let fdb = small(16);
    let (busy, quiet) = (key(0, 0, 1), key(0, 0, 2));
    let location = fdb.learn(busy, 1, 0, 100).location.expect("learned");
    fdb.learn(quiet, 1, 0, 100);
    fdb.touch(1, location, 120);
    let mut gone = Vec::new();
    let mut next = 0;
    loop {
        next = fdb.sweep(next, 3, 130, |_| AGEING_S, |entry| gone.push(entry.key));
        if next == 0 {
            break;
        }
    }
    assert_eq!(gone, [quiet]);
    assert_eq!(fdb.entries().next().map(|entry| entry.age_s(130)), Some(10));
    assert_eq!(fdb.port_len(1), 1);
}

#[test]
fn a_new_user_of_a_place_does_not_inherit_its_stamps() {
    let fdb = small(1);
    let location = fdb.learn(key(0, 0, 1), 1, 0, 100).location.expect("learned");
    fdb.touch(1, location, 500);
    fdb.remove(key(0, 0, 1));
    fdb.learn(key(0, 0, 1), 2, 0, 200);
    assert_eq!(fdb.entries().next().map(|entry| entry.seen_s), Some(200));
}

#[test]
fn limits_are_named_and_refusals_take_nothing() {
    let fdb = small(3);
    fdb.set_port_limit(1, 1);
    fdb.set_bridge_limit(1, 1);
    assert_eq!(fdb.learn(key(0, 0, 1), 1, 0, 5).outcome, Learned::New);
    let refused = fdb.learn(key(0, 0, 2), 1, 0, 5);
    assert_eq!(refused.outcome, Learned::LimitPort);
    assert!(!fdb.versions().is_current(refused.witness), "the next frame must try again");
    assert_eq!(fdb.learn(key(1, 0, 3), 2, 0, 5).outcome, Learned::New);
    assert_eq!(fdb.learn(key(1, 0, 4), 2, 0, 5).outcome, Learned::LimitBridge);
    assert_eq!(fdb.learn(key(1, 0, 3), 1, 0, 5).outcome, Learned::LimitPort, "a move counts too");
    assert_eq!(fdb.learn(key(0, 0, 5), 2, 0, 5).outcome, Learned::New);
    assert_eq!(fdb.learn(key(0, 0, 6), 2, 0, 5).outcome, Learned::LimitTable);
    assert_eq!(fdb.add_static(key(0, 0, 7), 2), Err(Full { limit: 3 }));
    assert_eq!((fdb.port_len(1), fdb.port_len(2), fdb.bridge_len(0), fdb.bridge_len(1)), (1, 2, 2, 1));
    assert_eq!(fdb.learn(key(9, 0, 1), 1, 0, 5).outcome, Learned::LimitBridge, "no such bridge");
    assert_eq!(fdb.learn(key(0, 0, 8), 9, 0, 5).outcome, Learned::LimitPort, "no such port");
}

#[test]
fn a_table_takes_all_that_it_promises() {
    // Random addresses, and a scan as from a sequential allocator.
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        state >> 24
    };
    for seed in 0..4 {
        let fdb = Fdb::new(Size::default(), seed);
        for number in 0..131_072 {
            let key = numbered(if seed % 2 == 0 { random() } else { number });
            let outcome = fdb.learn(key, 1, 0, 5).outcome;
            assert!(matches!(outcome, Learned::New | Learned::Known), "seed {seed}, {number}: {outcome:?}");
        }
        assert_eq!(fdb.entries().count(), fdb.len() as usize);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Learn(MacKey, u16, usize),
    Static(MacKey, u16),
    Remove(MacKey),
    RemovePort(u16),
    RemoveBridge(u16),
    Touch(MacKey, usize),
    Sweep,
    Wait(u32),
    PortLimit(u16, u32),
}

fn steps() -> impl Strategy<Value = Step> {
    let keys = (0..2u16, 0..2u16, 0..6u8).prop_map(|(bridge, vlan, last)| key(bridge, vlan, last));
    prop_oneof![
        8 => (keys.clone(), 0..4u16, 0..2usize).prop_map(|(key, port, worker)| Step::Learn(key, port, worker)),
        1 => (keys.clone(), 0..4u16).prop_map(|(key, port)| Step::Static(key, port)),
        2 => keys.clone().prop_map(Step::Remove),
        1 => (0..4u16).prop_map(Step::RemovePort),
        1 => (0..2u16).prop_map(Step::RemoveBridge),
        2 => (keys, 0..2usize).prop_map(|(key, worker)| Step::Touch(key, worker)),
        1 => Just(Step::Sweep),
        2 => (1..20u32).prop_map(Step::Wait),
        1 => (0..4u16, 0..5u32).prop_map(|(port, limit)| Step::PortLimit(port, limit)),
    ]
}

/// What the table should hold, in the plainest words.
struct Model {
    entries: HashMap<MacKey, (u16, Kind, u32)>,
    /// How often stations have moved, since when, and whether they are held.
    moves: HashMap<MacKey, (u32, u32, bool)>,
    limits: [u32; 4],
    capacity: usize,
}

impl Model {
    fn learned_on(&self, port: u16) -> u32 {
        self.entries.values().filter(|entry| entry.0 == port && entry.1 == Kind::Learned).count() as u32
    }

    fn learn(&mut self, key: MacKey, port: u16, now_s: u32) -> Learned {
        let room = self.learned_on(port) < self.limits[usize::from(port)];
        match self.entries.get(&key).copied() {
            Some((known, kind, _)) if known == port => {
                self.entries.insert(key, (port, kind, now_s));
                Learned::Known
            }
            Some(_) if self.moves.get(&key).is_some_and(|moves| moves.2) => Learned::Held,
            Some((_, Kind::Static, _)) => Learned::Static,
            _ if !room => Learned::LimitPort,
            Some((from, ..)) => {
                self.entries.insert(key, (port, Kind::Learned, now_s));
                let moves = self.moves.entry(key).or_insert((0, now_s, false));
                if now_s - moves.1 >= WINDOW_S {
                    *moves = (0, now_s, false);
                }
                moves.0 += 1;
                if moves.0 == MOVES {
                    *moves = (MOVES, now_s, true);
                }
                Learned::Moved { from }
            }
            None if self.entries.len() == self.capacity => Learned::LimitTable,
            None => {
                self.entries.insert(key, (port, Kind::Learned, now_s));
                Learned::New
            }
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(steps in prop::collection::vec(steps(), 1..200)) {
        let fdb = small(10);
        let mut model = Model { entries: HashMap::new(), moves: HashMap::new(), limits: [u32::MAX; 4], capacity: 10 };
        let mut now_s = 100;
        let all: Vec<MacKey> = (0..24).map(|n| key(n / 12, n / 6 % 2, (n % 6) as u8)).collect();
        let mut kept: HashMap<MacKey, (Option<u16>, Witness)> = HashMap::new();
        for step in steps {
            match step {
                Step::Learn(key, port, worker) => {
                    let foreseen = fdb.foresee(key, port);
                    let learn = fdb.learn(key, port, worker, now_s);
                    prop_assert_eq!(learn.outcome, foreseen);
                    prop_assert_eq!(learn.outcome, model.learn(key, port, now_s));
                    if learn.location.is_some() {
                        kept.insert(key, (Some(port), learn.witness));
                    }
                }
                Step::Static(key, port) => {
                    let fits = model.entries.contains_key(&key) || model.entries.len() < model.capacity;
                    prop_assert_eq!(fdb.add_static(key, port).is_ok(), fits);
                    if fits {
                        model.entries.insert(key, (port, Kind::Static, 0));
                        model.moves.remove(&key);
                    }
                }
                Step::Remove(key) => prop_assert_eq!(fdb.remove(key), model.entries.remove(&key).is_some()),
                Step::RemovePort(port) => {
                    let before = model.entries.len();
                    model.entries.retain(|_, entry| entry.0 != port);
                    prop_assert_eq!(fdb.remove_port(port), before - model.entries.len());
                }
                Step::RemoveBridge(bridge) => {
                    let before = model.entries.len();
                    model.entries.retain(|key, _| key.bridge != bridge);
                    prop_assert_eq!(fdb.remove_bridge(bridge), before - model.entries.len());
                }
                Step::Touch(key, worker) => {
                    if let Some(found) = fdb.lookup(key).found {
                        fdb.touch(worker, found.location, now_s);
                        model.entries.entry(key).and_modify(|entry| entry.2 = now_s);
                    }
                }
                Step::Sweep => {
                    let mut gone = 0;
                    fdb.sweep(0, fdb.bucket_count(), now_s, |_| AGEING_S, |_| gone += 1);
                    let before = model.entries.len();
                    model.entries.retain(|_, e| e.1 == Kind::Static || now_s - e.2 < AGEING_S);
                    prop_assert_eq!(gone, before - model.entries.len());
                    model.moves.retain(|_, moves| !moves.2 || now_s - moves.1 < HOLD_S);
                }
                Step::Wait(seconds) => now_s += seconds,
                Step::PortLimit(port, limit) => {
                    fdb.set_port_limit(port, limit);
                    model.limits[usize::from(port)] = limit;
                }
            }
            let Model { entries, moves, .. } = &mut model;
            moves.retain(|key, _| entries.contains_key(key));
            for &key in &all {
                let lookup = fdb.lookup(key);
                let port = lookup.found.map(|found| found.port);
                prop_assert_eq!(port, model.entries.get(&key).map(|entry| entry.0));
                // A cached answer that still passes for current is the answer.
                if let Some((cached, witness)) = kept.insert(key, (port, lookup.witness))
                    && fdb.versions().is_current(witness)
                {
                    prop_assert_eq!(cached, port);
                }
            }
            let listed: HashMap<_, _> = fdb.entries().map(|e| (e.key, (e.port, e.kind, e.seen_s))).collect();
            prop_assert_eq!(&listed, &model.entries);
            prop_assert_eq!(fdb.len() as usize, model.entries.len());
            for port in 0..4 {
                prop_assert_eq!(fdb.port_len(port), model.learned_on(port));
            }
        }
    }
}

/// Four workers learn, move, look up and remove the same few addresses; a control thread sweeps and lists.
#[test]
fn four_workers_never_see_a_port_that_was_never_true() {
    const KEYS: u64 = 48;
    const ROUNDS: u32 = 200_000;
    let fdb = Fdb::new(Size { entries: 40, bridges: 1, ports: 16, first_remote: 16, workers: 4 }, 5);
    fdb.set_port_limit(3, 2);
    // Key n is only ever behind port n % 8 or 8 + n % 8.
    let is_possible = |number: u64, port: u16| u64::from(port % 8) == number % 8;
    let (start, done) = (Barrier::new(5), AtomicBool::new(false));
    let run = |worker: usize| {
        start.wait();
        let mut state = worker as u64 + 1;
        let mut kept = HashMap::new();
        let mut counted = [0u32; 4];
        for round in 0..ROUNDS {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let number = (state >> 33) % KEYS;
            let port = (number % 8) as u16 + (state >> 60) as u16 % 2 * 8;
            match state >> 50 & 15 {
                0 => _ = fdb.remove(numbered(number)),
                1..6 => {
                    let learn = fdb.learn(numbered(number), port, worker, round);
                    counted[usize::from(learn.location.is_some())] += 1;
                    match learn.outcome {
                        Learned::Moved { from } => assert!(is_possible(number, from)),
                        Learned::Static => panic!("nobody made a static entry"),
                        _ => {}
                    }
                    if learn.location.is_some() {
                        kept.insert(number, (Some(port), learn.witness));
                    }
                }
                _ => {
                    let lookup = fdb.lookup(numbered(number));
                    if let Some(found) = lookup.found {
                        assert!(is_possible(number, found.port), "key {number} at {}", found.port);
                        fdb.touch(worker, found.location, round);
                        counted[2] += 1;
                    } else {
                        counted[3] += 1;
                    }
                    kept.insert(number, (lookup.found.map(|found| found.port), lookup.witness));
                }
            }
        }
        assert!(counted.iter().all(|&count| count > 0), "one-sided run: {counted:?}");
        kept
    };
    let kept: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|worker| scope.spawn(move || run(worker))).collect();
        scope.spawn(|| {
            start.wait();
            while !done.load(Ordering::Relaxed) {
                fdb.sweep(0, fdb.bucket_count(), ROUNDS, |_| ROUNDS / 2, |_| {});
                assert!(
                    fdb.entries().all(|entry| u64::from(entry.port % 8) == u64::from(entry.key.mac[5] % 8))
                );
                std::thread::yield_now();
            }
        });
        let joined: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        joined.into_iter().flat_map(|kept| kept.expect("no worker panics")).collect()
    });
    let now: HashMap<_, _> =
        (0..KEYS).map(|n| (n, fdb.lookup(numbered(n)).found.map(|found| found.port))).collect();
    for (number, (port, witness)) in kept {
        assert!(!fdb.versions().is_current(witness) || port == now[&number], "key {number}: kept {port:?}");
    }
    let entries: Vec<_> = fdb.entries().collect();
    let keys: std::collections::HashSet<_> = entries.iter().map(|entry| entry.key).collect();
    assert_eq!(keys.len(), entries.len(), "a key is in the table twice");
    assert_eq!(fdb.len() as usize, entries.len());
    assert_eq!(fdb.bridge_len(0) as usize, entries.len());
    for port in 0..16 {
        assert_eq!(fdb.port_len(port) as usize, entries.iter().filter(|entry| entry.port == port).count());
    }
    assert!(fdb.port_len(3) <= 2);
}
