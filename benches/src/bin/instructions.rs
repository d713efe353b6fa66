//! Runs one piece of the fast path a given number of times, for a tool that counts instructions.
//!
//! `instructions CASE BATCHES`: the difference between two counts, divided by the difference of the
//! frames, is free of all set-up. `benches/instructions` does this by callgrind for each case.

use std::hint::black_box;
use std::net::IpAddr;
use std::process::ExitCode;

use pmd::coalesce::coalesce;
use pmd::mem::Lending;
use pmd::{Features, Offload, Prefixes, RxMemory, TxItem};
use vswitch::flow::cache::{BATCH, Current, FlowCache, Probes};
use vswitch::flow::hash::HashKey;
use vswitch::flow::headers::{Depth, parse, parse_link};
use vswitch::flow::key::{Field, FlowKey, KeyMask};
use vswitch::tables::fdb::{Fdb, MacKey, Size};
use vswitch::tables::versions::Witness;
use vswitch::tunnel::template::ROOM;
use vswitch::tunnel::{self, Claims, Fill, Inner, Kind, Memo, Setup, Template, vxlan};
use vswitch_benches::circuit::{Circuit, Load, setup};

/// A name and what runs so many batches.
type Case = (&'static str, fn(usize));

/// The cases by name; each runs a number of batches of 64 frames.
const CASES: [Case; 25] = [
    ("hash-3", hash),
    ("key-link", key_link),
    ("key-all", key_all),
    ("cache-hit-2", |batches| cache_hit(&Field::BRIDGE, batches)),
    ("cache-hit-3", |batches| cache_hit(&[Field::EthDst, Field::EthSrc, Field::EthType], batches)),
    ("cache-hit-8", |batches| cache_hit(&Field::ALL, batches)),
    ("cache-insert", cache_insert),
    ("fdb-lookup", fdb_lookup),
    ("fdb-learn-known", fdb_learn),
    ("join-none-short", |batches| join(|_| frame(1).to_vec(), BATCH, batches)),
    ("join-none-udp", |batches| join(|_| long(17, 1, 0), BATCH, batches)),
    ("join-none-tcp", |batches| join(|number| long(6, number, 0), BATCH, batches)),
    ("join-all", |batches| join(|number| long(6, 1, number), 2, batches)),
    ("tunnel-read-vxlan", |batches| tunnel_read(Kind::Vxlan, "192.0.2.2", batches)),
    ("tunnel-again", tunnel_again),
    ("tunnel-read-nvgre", |batches| tunnel_read(Kind::Nvgre, "192.0.2.2", batches)),
    ("tunnel-read-ipv6", |batches| tunnel_read(Kind::Vxlan, "2001:db8::2", batches)),
    ("tunnel-write-vxlan", |batches| tunnel_write(Kind::Vxlan, batches)),
    ("tunnel-write-nvgre", |batches| tunnel_write(Kind::Nvgre, batches)),
    ("tunnel-inner", tunnel_inner),
    ("loop-hit", |batches| worker_loop(Load::default(), batches)),
    ("loop-hit-lent", |batches| worker_loop(Load { lending: LENT, ..Load::default() }, batches)),
    ("loop-vxlan", |batches| worker_loop(Load { tunnel: Some(Kind::Vxlan), ..Load::default() }, batches)),
    ("loop-nvgre", |batches| worker_loop(Load { tunnel: Some(Kind::Nvgre), ..Load::default() }, batches)),
    ("loop-miss", |batches| worker_loop(Load { cache: 0, ..Load::default() }, batches)),
];

const LENT: Lending = Lending::Lent { head: 128 };

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let case = arguments.next().and_then(|name| CASES.iter().find(|case| case.0 == name));
    let batches = arguments.next().and_then(|count| count.parse().ok());
    match (case, batches) {
        (Some((_, run)), Some(batches)) => {
            run(batches);
            ExitCode::SUCCESS
        }
        _ => {
            let names = CASES.map(|case| case.0).join(" | ");
            eprintln!("usage: instructions [{names}] BATCHES");
            ExitCode::from(2)
        }
    }
}

/// A TCP frame of 64 bytes.
fn frame(number: u8) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, number, 2, 0, 0, 0, 1, number]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0, 0, 64, 6]);
    frame[26..34].copy_from_slice(&[10, 0, 0, number, 10, 0, 1, number]);
    frame[34..38].copy_from_slice(&[0x12, 0x34, 0, 80]);
    frame[46] = 0x50;
    frame
}

fn frames() -> Vec<[u8; 64]> {
    (0..BATCH as u8).map(frame).collect()
}

fn key_of(frame: &[u8]) -> FlowKey {
    parse(frame, frame.len(), Depth::L4).map(|headers| FlowKey::new(&headers, 1)).unwrap_or_default()
}

fn hash(batches: usize) {
    let key = HashKey::from_seed(1);
    for _ in 0..batches {
        for number in 0..BATCH as u64 {
            black_box(key.three(black_box([number, 2, 3])));
        }
    }
}

fn key_link(batches: usize) {
    let (frames, mut keys) = (frames(), [FlowKey::ZERO; BATCH]);
    for _ in 0..batches {
        for (key, frame) in keys.iter_mut().zip(black_box(&frames)) {
            if let Ok(link) = parse_link(frame) {
                key.set_link(&link, 1);
            }
        }
        black_box(&mut keys);
    }
}

fn key_all(batches: usize) {
    let (frames, mut keys) = (frames(), [FlowKey::ZERO; BATCH]);
    for _ in 0..batches {
        for (key, frame) in keys.iter_mut().zip(black_box(&frames)) {
            *key = key_of(frame);
        }
        black_box(&mut keys);
    }
}

fn cache_hit(fields: &[Field], batches: usize) {
    let (mut cache, fdb) = (FlowCache::<[u32; 5]>::new(1 << 16, 1), Fdb::new(Size::default(), 1));
    let (mask, mut probes) = (KeyMask::of(fields), Probes::default());
    let unmasked: Vec<FlowKey> = frames().iter().map(|frame| key_of(frame)).collect();
    for key in &unmasked {
        let slots = [1, 2].map(|slot| fdb.versions().witness(slot));
        cache.insert(key, &mask, 1, slots, [1, 2, 3, 4, 5]);
    }
    let current = Current { generation: 1, versions: fdb.versions() };
    let mut keys = unmasked;
    let mut sum = 0;
    for _ in 0..batches {
        cache.probe(black_box(&mut keys), &mask, &mut probes);
        for (at, key) in keys.iter().enumerate() {
            if let Some(value) = cache.get(&probes, at, key, current) {
                sum += u64::from(value[0]);
            }
        }
    }
    assert_eq!(sum, (batches * BATCH) as u64, "every lookup is a hit");
}

fn cache_insert(batches: usize) {
    let mut cache = FlowCache::<[u32; 5]>::new(1 << 16, 1);
    let mask = KeyMask::of(&Field::BRIDGE);
    let mut key = key_of(&frame(1));
    for number in 0..batches * BATCH {
        key.set(Field::EthDst, number as u128);
        cache.insert(&key, &mask, 1, [Witness::NOTHING; 2], [1, 2, 3, 4, 5]);
    }
    black_box(cache.counters());
}

fn learned() -> (Fdb, Vec<MacKey>) {
    let fdb = Fdb::new(Size::default(), 1);
    let keys: Vec<_> =
        (0..BATCH as u8).map(|n| MacKey { bridge: 1, vlan: 0, mac: [2, 0, 0, 0, 0, n] }).collect();
    for &key in &keys {
        fdb.learn(key, 1, 0, 1);
    }
    (fdb, keys)
}

fn fdb_lookup(batches: usize) {
    let (fdb, keys) = learned();
    for _ in 0..batches {
        for &key in black_box(&keys) {
            black_box(fdb.lookup(key));
        }
    }
}

fn fdb_learn(batches: usize) {
    let (fdb, keys) = learned();
    for _ in 0..batches {
        for &key in black_box(&keys) {
            black_box(fdb.learn(key, 1, 0, 2));
        }
    }
}

/// Frame `number` of a stream, of 1500 bytes of IP.
fn long(protocol: u8, stream: u8, number: u8) -> Vec<u8> {
    let mut bytes = frame(stream).to_vec();
    bytes.resize(1514, 0);
    bytes[16..18].copy_from_slice(&1500u16.to_be_bytes());
    bytes[20] = 0x40; // DF
    bytes[23] = protocol;
    bytes[38..42].copy_from_slice(&(u32::from(number) * 1460).to_be_bytes());
    bytes[47] = 0x10; // ACK
    let pseudo = pmd::checksum::pseudo_header(&bytes[14..], protocol, 1480);
    let mut sum = pseudo.unwrap_or_default();
    sum.add(&bytes[34..]);
    bytes[50..52].copy_from_slice(&sum.finish());
    bytes
}

/// Looks for frames to join in batches of which `left` items are left in the end.
fn join(frame: impl Fn(u8) -> Vec<u8>, left: usize, batches: usize) {
    let mut memory = RxMemory::new();
    let (mut batch, mut scratch) = memory.lend();
    for number in 0..BATCH as u8 {
        let bytes = frame(number);
        let place = scratch.take(bytes.len());
        place.copy_from_slice(&bytes);
        batch.push_private(place, 0, Offload::NONE);
    }
    let (mut items, mut prefixes) = (Vec::with_capacity(BATCH), Prefixes::default());
    for _ in 0..batches {
        items.clear();
        items.extend((0..BATCH).map(|i| TxItem::whole(&batch, i, true)));
        prefixes.clear();
        black_box(coalesce(black_box(&batch), &mut items, &mut prefixes, Features::VIRTIO));
        assert_eq!(items.len(), left);
    }
}

fn template(kind: Kind, remote: &str) -> Option<Template> {
    let dst: IpAddr = remote.parse().ok()?;
    let src = if dst.is_ipv4() { [192, 0, 2, 1].into() } else { dst };
    Template::new(&Setup { src, dst, ..setup(kind, 1, 2) })
}

fn fill(number: usize) -> Fill {
    Fill { vni: 5001, inner_len: 64, entropy: number as u32, ..Fill::default() }
}

/// A batch of frames inside a tunnel's.
fn tunnel_frames(template: &Template) -> Vec<Vec<u8>> {
    let wrapped = |number: usize| {
        let mut outer = vec![0; template.len()];
        template.write(&mut outer, &fill(number));
        [outer, frame(number as u8).to_vec()].concat()
    };
    (0..BATCH).map(wrapped).collect()
}

fn tunnel_read(kind: Kind, remote: &str, batches: usize) {
    let Some(template) = template(kind, remote) else { return };
    let frames = tunnel_frames(&template);
    let claims = Claims { ports: &[(vxlan::PORT, Kind::Vxlan)], gre: true };
    let mut sum = 0;
    for _ in 0..batches {
        for frame in black_box(&frames) {
            if let Ok(Some(outer)) = tunnel::parse(frame, frame.len(), claims) {
                sum += black_box(&outer).vni as usize;
            }
        }
    }
    assert_eq!(sum, batches * BATCH * 5001, "every frame is a tunnel's");
}

/// As `tunnel-read-vxlan`, but each frame is held against the one before.
fn tunnel_again(batches: usize) {
    let Some(template) = template(Kind::Vxlan, "192.0.2.2") else { return };
    let frames = tunnel_frames(&template);
    let claims = Claims { ports: &[(vxlan::PORT, Kind::Vxlan)], gre: true };
    let first = tunnel::parse(&frames[0], frames[0].len(), claims);
    let Some(memo) = first.ok().flatten().and_then(|outer| Memo::new(&frames[0], &outer)) else { return };
    for _ in 0..batches {
        for frame in black_box(&frames) {
            assert_eq!(black_box(memo.inner_len(frame, frame.len())), Some(64));
        }
    }
}

fn tunnel_write(kind: Kind, batches: usize) {
    let Some(template) = template(kind, "192.0.2.2") else { return };
    let mut room = [0; ROOM];
    for _ in 0..batches {
        for number in 0..BATCH {
            black_box(&template).put(black_box(&mut room), black_box(&fill(number)));
        }
    }
}

fn tunnel_inner(batches: usize) {
    let (frames, key) = (frames(), HashKey::from_seed(1));
    for _ in 0..batches {
        for frame in black_box(&frames) {
            black_box(Inner::read(frame, &key));
        }
    }
}

/// The whole loop; the script counts inside of the worker's turns only.
fn worker_loop(load: Load, batches: usize) {
    let Ok(mut circuit) = Circuit::new(load) else { return };
    for _ in 0..batches {
        assert_eq!(black_box(circuit.turn()), BATCH);
        circuit.close();
    }
}
