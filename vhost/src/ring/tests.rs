//! Rings against a driver of our own, decent and hostile.

mod flipping;

use pmd::batch::HEAD;
use pmd::offload::{Checksum, Gso, GsoKind};
use pmd::{
    Arena, Burst, Features, HugePages, Offload, Pool, Prefixes, RxMemory, RxQueue, TxItem, TxQueue, TxReport,
};

use super::access::{Access, Direct};
use super::rx::Rx;
use super::split::Split;
use super::tx::Tx;
use super::*;
use crate::driver::memory::{GUEST, SharedMemory};
use crate::driver::ring::{Descriptor, INDIRECT, NEXT, WRITE};
use crate::driver::split::SplitDriver;
use crate::event::Bell;
use crate::seat::{Owner, seat};

const MEMORY: u64 = 1 << 20;
const BUFFERS: u64 = 1 << 16;
const SIZE: u16 = 16;

const TERMS: Terms = Terms { header: 12, mergeable: true, features: Features::VIRTIO };

/// A ring with its driver, and a place for it in a queue.
struct Rig<A: Access = Direct> {
    memory: Arc<SharedMemory>,
    driver: SplitDriver,
    owner: Owner<Lane<A>>,
    alarm: Arc<Alarm>,
    pool: Pool,
}

fn rig<A: Access>(terms: Terms, event_index: bool, access: A) -> (Rig<A>, crate::seat::Occupant<Lane<A>>) {
    let memory = Arc::new(SharedMemory::new(MEMORY).unwrap());
    let driver = SplitDriver::new(memory.clone(), 0, SIZE).unwrap();
    let (mut owner, occupant) = seat();
    let ring = Split::new(memory.mapped(), &driver.layout(), event_index, access).unwrap();
    owner.put(Lane::new(Ring::Split(ring), terms, None));
    let pool = Arena::new(64, HugePages::Off).unwrap().pool();
    (Rig { memory, driver, owner, alarm: Arc::new(Alarm::new().unwrap()), pool }, occupant)
}

fn receiver() -> (Rig, Rx) {
    let (rig, occupant) = rig(TERMS, false, Direct);
    let rx = Rx::new(occupant, Arc::new(Bell::new().unwrap()), rig.alarm.clone());
    (rig, rx)
}

fn transmitter(terms: Terms) -> (Rig, Tx) {
    let (rig, occupant) = rig(terms, false, Direct);
    let tx = Tx::new(occupant, rig.alarm.clone());
    (rig, tx)
}

impl<A: Access> Rig<A> {
    /// Receives one burst: the frames, how many bytes of each lie in its head, and how many were refused.
    fn receive(&mut self, rx: &mut Rx<A>) -> (Vec<Vec<u8>>, Vec<usize>, u32) {
        let mut memory = RxMemory::new();
        let batch = rx.receive(&mut memory, &mut self.pool, 64).unwrap();
        let frames = (0..batch.len()).map(|i| {
            let mut bytes = vec![0; batch.frame_len(i)];
            assert!(batch.read(i, 0, &mut bytes));
            bytes
        });
        let outcome = (
            frames.collect(),
            (0..batch.len()).map(|i| batch.head(i).len()).collect(),
            batch.refused().total(),
        );
        rx.release(&mut self.pool);
        outcome
    }

    /// Why the ring is out of use.
    fn broken(&mut self) -> Option<BadRing> {
        assert!(self.alarm.take(), "no alarm was raised");
        self.owner.take().unwrap().broken
    }

    /// Writes header and frame over buffers of these sizes and offers them as one chain.
    fn send(&mut self, first: u16, header: [u8; 12], frame: &[u8], cuts: &[u32]) {
        let bytes = [&header[..], frame].concat();
        let mut buffers = Vec::new();
        let mut at = 0;
        for &cut in cuts.iter().chain([&u32::MAX]) {
            let len = (cut as usize).min(bytes.len() - at);
            let offset = BUFFERS + u64::from(first) * 8192 + 2 * at as u64;
            self.memory.write(offset, &bytes[at..at + len]).unwrap();
            buffers.push((offset, len as u32));
            at += len;
        }
        self.driver.chain(first, &buffers, 0);
        self.driver.offer(first);
    }
}

/// Transmits one frame of these bytes.
fn transmit(rig: &mut Rig, tx: &mut Tx, frame: &[u8], offload: Offload, features: Features) -> TxReport {
    let mut memory = RxMemory::new();
    let (mut batch, mut scratch) = memory.lend();
    let place = scratch.take(frame.len());
    place.copy_from_slice(frame);
    batch.push_private(place, 0, offload);
    let (items, prefixes) = ([TxItem::exclusive(0)], Prefixes::default());
    let report = tx.transmit(&mut Burst::new(&mut batch, &items, &prefixes, features), &mut rig.pool);
    tx.flush();
    report
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

#[test]
fn frames_are_received_however_they_are_cut() {
    let (mut rig, mut rx) = receiver();
    // The header cut at every byte, zero-length descriptors in every place, many pieces.
    let mut cuts: Vec<Vec<u32>> = (0..=12).map(|cut| vec![cut]).collect();
    cuts.extend([vec![0, 0, 12, 0], vec![1; 12], vec![12, 14, 1, 1], vec![6, 0, 6, 0, 100, 0]]);
    for len in [14, 60, HEAD, HEAD + 1, 1514, 3000] {
        for cuts in &cuts {
            let sent = frame(len);
            rig.send(0, [0; 12], &sent, cuts);
            let (frames, heads, refused) = rig.receive(&mut rx);
            assert_eq!((frames, refused), (vec![sent], 0), "{len} {cuts:?}");
            assert_eq!(heads, [len.min(HEAD)]);
            assert_eq!(rig.driver.collect(), Some((0, 0)));
        }
    }
    // More pieces than a batch has room for: copied whole.
    let (memory, mut long) = (rig.memory.clone(), SplitDriver::new(rig.memory.clone(), 8192, 64).unwrap());
    rig.owner.take();
    let ring = Split::new(memory.mapped(), &long.layout(), false, Direct).unwrap();
    rig.owner.put(Lane::new(Ring::Split(ring), TERMS, None));
    let sent = frame(2000 - 12);
    let bytes = [&[0; 12][..], &sent].concat();
    let buffers: Vec<_> = (0..40).map(|i| (BUFFERS + i * 64, 50)).collect();
    for (buffer, part) in buffers.iter().zip(bytes.chunks(50)) {
        memory.write(buffer.0, part).unwrap();
    }
    long.chain(0, &buffers, 0);
    long.offer(0);
    assert_eq!(rig.receive(&mut rx), (vec![sent], vec![1988], 0));
    assert_eq!(long.collect(), Some((0, 0)));
}

#[test]
fn an_indirect_table_is_followed() {
    let (mut rig, mut rx) = receiver();
    let sent = frame(500);
    rig.memory.write(BUFFERS, &[0; 12]).unwrap();
    rig.memory.write(BUFFERS + 100, &sent).unwrap();
    let entries = [
        Descriptor { address: GUEST + BUFFERS, bytes: 12, flags: NEXT, next: 2 },
        Descriptor::default(),
        Descriptor { address: GUEST + BUFFERS + 100, bytes: 500, flags: 0, next: 0 },
    ];
    let table: Vec<u8> = entries.iter().flat_map(|entry| entry.to_bytes()).collect();
    rig.memory.write(BUFFERS + 4096, &table).unwrap();
    let address = GUEST + BUFFERS + 4096;
    rig.driver.describe(5, Descriptor { address, bytes: 48, flags: INDIRECT, next: 0 });
    rig.driver.offer(5);
    assert_eq!(rig.receive(&mut rx).0, [sent]);
    assert_eq!(rig.driver.collect(), Some((5, 0)));
}

#[test]
fn frames_that_cannot_be_are_refused_and_their_buffers_given_back() {
    let (mut rig, mut rx) = receiver();
    rig.send(0, [0; 12], &frame(13), &[12]);
    rig.send(2, [1, 0, 0, 0, 0, 0, 50, 0, 16, 0, 0, 0], &frame(60), &[12]);
    let huge = (BUFFERS, 70_000);
    rig.driver.chain(4, &[huge], 0);
    rig.driver.offer(4);
    rig.send(6, [0; 12], &frame(60), &[12]);
    let (frames, _, refused) = rig.receive(&mut rx);
    assert_eq!((frames, refused), (vec![frame(60)], 3));
    let heads: Vec<u32> = std::iter::from_fn(|| rig.driver.collect()).map(|(head, _)| head).collect();
    assert_eq!(heads, [0, 2, 4, 6]);
}

#[test]
fn a_burst_is_shown_to_the_driver_when_it_is_over() {
    let (mut rig, mut rx) = receiver();
    rig.send(0, [0; 12], &frame(1514), &[12]);
    let mut memory = RxMemory::new();
    assert_eq!(rx.receive(&mut memory, &mut rig.pool, 64).unwrap().len(), 1);
    assert_eq!(rig.driver.collect(), None);
    rx.release(&mut rig.pool);
    assert_eq!(rig.driver.collect(), Some((0, 0)));
}

#[test]
fn a_ring_that_breaks_the_rules_is_out_of_use_with_a_reason() {
    type Attack = (&'static str, fn(&mut Rig), BadRing);
    let far = GUEST + MEMORY;
    let attacks: [Attack; 14] = [
        ("index jumps", |rig| rig.driver.set_available(18), BadRing::Overrun(17)),
        ("index runs backwards", |rig| rig.driver.set_available(0), BadRing::Overrun(0xffff)),
        ("head beyond the table", |rig| rig.driver.offer(16), BadRing::Head(16)),
        ("head beyond any table", |rig| rig.driver.offer(0xffff), BadRing::Head(0xffff)),
        (
            "next beyond the table",
            |rig| {
                rig.driver.describe(0, Descriptor { address: GUEST, bytes: 5, flags: NEXT, next: 16 });
                rig.driver.offer(0);
            },
            BadRing::Next(16),
        ),
        (
            "a chain that bites its tail",
            |rig| {
                rig.driver.describe(0, Descriptor { address: GUEST, bytes: 5, flags: NEXT, next: 0 });
                rig.driver.offer(0);
            },
            BadRing::Long(16),
        ),
        (
            "a loop of empty buffers",
            |rig| {
                rig.driver.describe(3, Descriptor { address: u64::MAX, bytes: 0, flags: NEXT, next: 4 });
                rig.driver.describe(4, Descriptor { address: u64::MAX, bytes: 0, flags: NEXT, next: 3 });
                rig.driver.offer(3);
            },
            BadRing::Long(16),
        ),
        (
            "a buffer to be written to",
            |rig| {
                rig.driver.chain(0, &[(0, 100)], WRITE);
                rig.driver.offer(0);
            },
            BadRing::Direction { writable: true },
        ),
        (
            "a buffer behind the memory",
            |rig| {
                rig.driver.chain(0, &[(MEMORY, 1)], 0);
                rig.driver.offer(0);
            },
            BadRing::Address { address: far, bytes: 1 },
        ),
        (
            "a buffer that ends behind the memory",
            |rig| {
                rig.driver.chain(0, &[(MEMORY - 60, 61)], 0);
                rig.driver.offer(0);
            },
            BadRing::Address { address: far, bytes: 61 },
        ),
        (
            "a buffer round the end of the address space",
            |rig| {
                rig.driver
                    .describe(0, Descriptor { address: u64::MAX - 10, bytes: 100, ..Descriptor::default() });
                rig.driver.offer(0);
            },
            BadRing::Address { address: u64::MAX - 10, bytes: 100 },
        ),
        (
            "half an indirect table",
            |rig| {
                rig.driver.chain(0, &[(BUFFERS, 24)], INDIRECT);
                rig.driver.offer(0);
            },
            BadRing::Indirect(24),
        ),
        (
            "an indirect table in an indirect table",
            |rig| {
                let inner = Descriptor { address: GUEST + BUFFERS, bytes: 16, flags: INDIRECT, next: 0 };
                rig.memory.write(BUFFERS, &inner.to_bytes()).unwrap();
                rig.driver.describe(0, inner);
                rig.driver.offer(0);
            },
            BadRing::Indirect(16),
        ),
        (
            "an indirect table that reaches out of the memory",
            |rig| {
                rig.driver.chain(0, &[(MEMORY - 16, 32)], INDIRECT);
                rig.driver.offer(0);
            },
            BadRing::Address { address: far - 16, bytes: 32 },
        ),
    ];
    for (name, attack, reason) in attacks {
        let (mut rig, mut rx) = receiver();
        // What came before the attack arrives.
        rig.send(8, [0; 12], &frame(60), &[12]);
        let before = rig.receive(&mut rx).0;
        assert_eq!(before.len(), 1, "{name}");
        attack(&mut rig);
        for _ in 0..3 {
            assert_eq!(rig.receive(&mut rx).0.len(), 0, "{name}");
        }
        assert!(!rx.arm());
        assert_eq!(rig.broken(), Some(reason), "{name}");
    }
}

#[test]
fn a_long_indirect_chain_and_many_of_them_cost_a_bounded_burst() {
    let empty = |next| Descriptor { flags: NEXT, next, ..Descriptor::default() };
    let offer_table = |rig: &mut Rig, entries: u16, last: u16| {
        let mut table: Vec<u8> = (1..entries).flat_map(|next| empty(next).to_bytes()).collect();
        table.extend(Descriptor { flags: last, ..Descriptor::default() }.to_bytes());
        rig.memory.write(BUFFERS, &table).unwrap();
        rig.driver.chain(0, &[(BUFFERS, table.len() as u32)], INDIRECT);
    };
    let (mut rig, mut rx) = receiver();
    offer_table(&mut rig, 1025, 0);
    rig.driver.offer(0);
    rig.receive(&mut rx);
    assert_eq!(rig.broken(), Some(BadRing::Long(1024)));

    let (mut rig, mut rx) = receiver();
    offer_table(&mut rig, 1000, 0);
    (0..16).for_each(|_| rig.driver.offer(0));
    rig.receive(&mut rx);
    assert_eq!(rig.broken(), Some(BadRing::Work));
}

#[test]
fn rings_that_are_none_are_refused() {
    let memory = SharedMemory::new(MEMORY).unwrap();
    let good = SplitDriver::new(Arc::new(SharedMemory::new(MEMORY).unwrap()), 0, SIZE).unwrap().layout();
    let refusal = |layout: Layout| Split::new(memory.mapped(), &layout, false, Direct).map(drop).unwrap_err();
    for size in [0, 1 << 16, 3, 100, 65_537, u32::MAX] {
        assert_eq!(refusal(Layout { size, ..good }), BadRing::Size(size));
    }
    let outside = |address| BadRing::Place { part: "used ring", address };
    for address in [0, u64::MAX, good.used + 2, good.used + MEMORY, (1 << 40) + MEMORY - 8] {
        assert_eq!(refusal(Layout { used: address, ..good }), outside(address));
    }
    assert!(matches!(refusal(Layout { descriptors: good.descriptors + 8, ..good }), BadRing::Place { .. }));
    assert!(matches!(refusal(Layout { available: good.available + 1, ..good }), BadRing::Place { .. }));
    let end = (1 << 40) + MEMORY - 16;
    assert!(matches!(refusal(Layout { descriptors: end, ..good }), BadRing::Place { .. }));
}

#[test]
fn a_frame_fills_as_many_buffers_as_it_needs() {
    let (mut rig, mut tx) = transmitter(TERMS);
    for head in 0..8 {
        rig.driver.chain(head, &[(BUFFERS + u64::from(head) * 512, 512)], WRITE);
        rig.driver.offer(head);
    }
    let sent = frame(1514);
    let report = transmit(&mut rig, &mut tx, &sent, Offload::NONE, Features::VIRTIO);
    assert_eq!((report.sent, report.bytes, report.total()), (1, 1514, 1));
    let used: Vec<_> = std::iter::from_fn(|| rig.driver.collect()).collect();
    assert_eq!(used, [(0, 512), (1, 512), (2, 502)]);
    let mut bytes = vec![0; 1526];
    rig.memory.read(BUFFERS, &mut bytes).unwrap();
    assert_eq!((&bytes[..12], &bytes[12..]), (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0][..], &sent[..]));
    // Five buffers are left: too few for this one, enough for the next.
    assert_eq!(transmit(&mut rig, &mut tx, &frame(2600), Offload::NONE, Features::VIRTIO).full, 1);
    assert_eq!(transmit(&mut rig, &mut tx, &frame(2500), Offload::NONE, Features::VIRTIO).sent, 1);
    assert_eq!(rig.driver.collect(), Some((3, 512)));
    rig.owner.take();
    assert_eq!(transmit(&mut rig, &mut tx, &sent, Offload::NONE, Features::VIRTIO).down, 1);
}

#[test]
fn without_mergeable_buffers_a_frame_fits_its_chain_or_is_refused() {
    let terms = Terms { header: 10, mergeable: false, features: Features::NONE };
    let (mut rig, mut tx) = transmitter(terms);
    rig.driver.chain(0, &[(BUFFERS, 10), (BUFFERS + 64, 100)], WRITE);
    rig.driver.offer(0);
    assert_eq!(transmit(&mut rig, &mut tx, &frame(101), Offload::NONE, Features::NONE).refused, 1);
    assert_eq!(rig.driver.collect(), None);
    let sent = frame(100);
    assert_eq!(transmit(&mut rig, &mut tx, &sent, Offload::NONE, Features::NONE).sent, 1);
    assert_eq!(rig.driver.collect(), Some((0, 110)));
    let mut bytes = vec![0; 100];
    rig.memory.read(BUFFERS + 64, &mut bytes).unwrap();
    assert_eq!(bytes, sent);
    assert_eq!(transmit(&mut rig, &mut tx, &sent, Offload::NONE, Features::NONE).full, 1);
}

#[test]
fn a_guest_gets_the_metadata_that_it_takes_and_complete_frames_otherwise() {
    let partial = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, ..Offload::NONE };
    let train = Offload { gso: Some(Gso { kind: GsoKind::Tcp4, size: 500, ecn: false }), ..partial };
    let verified = Offload { checksum: Checksum::Verified, ..Offload::NONE };
    let header_of = |takes: Features, told: Features, offload| {
        let (mut rig, mut tx) = transmitter(Terms { features: takes, ..TERMS });
        rig.driver.chain(0, &[(BUFFERS, 4096)], WRITE);
        rig.driver.offer(0);
        let report = transmit(&mut rig, &mut tx, &frame(1500), offload, told);
        let mut bytes = vec![0; 12 + 1500];
        rig.memory.read(BUFFERS, &mut bytes).unwrap();
        (report.sent, bytes[0], bytes[1], bytes[12 + 50..12 + 52].to_vec())
    };
    let untouched = frame(1500)[50..52].to_vec();
    assert_eq!(header_of(Features::VIRTIO, Features::VIRTIO, train), (1, 1, 1, untouched.clone()));
    assert_eq!(header_of(Features::VIRTIO, Features::VIRTIO, verified).1, 2);
    assert_eq!(header_of(Features::NONE, Features::NONE, verified).1, 0);
    let (sent, flags, kind, checksum) = header_of(Features::NONE, Features::NONE, partial);
    assert!((sent, flags, kind) == (1, 0, 0) && checksum != untouched);
    // The worker has not been told yet that the guest takes less than the last one did.
    assert_eq!(header_of(Features::NONE, Features::VIRTIO, train).0, 0);
}

#[test]
fn hostile_receive_buffers_break_the_ring_and_nothing_else() {
    let (mut rig, mut tx) = transmitter(TERMS);
    rig.driver.chain(0, &[(BUFFERS, 2048)], 0);
    rig.driver.offer(0);
    assert_eq!(transmit(&mut rig, &mut tx, &frame(60), Offload::NONE, Features::VIRTIO).down, 1);
    assert_eq!(transmit(&mut rig, &mut tx, &frame(60), Offload::NONE, Features::VIRTIO).down, 1);
    assert_eq!(rig.broken(), Some(BadRing::Direction { writable: false }));

    // Buffers of no bytes: used up, and no frame in them.
    let (mut rig, mut tx) = transmitter(TERMS);
    rig.driver.chain(0, &[(BUFFERS, 0)], WRITE);
    (0..16).for_each(|_| rig.driver.offer(0));
    assert_eq!(transmit(&mut rig, &mut tx, &frame(60), Offload::NONE, Features::VIRTIO).full, 1);
    assert_eq!(rig.driver.collect(), None);
}

#[test]
fn kicks_are_wanted_asleep_and_calls_made_when_wanted() {
    for event_index in [false, true] {
        let (mut rig, occupant) = rig(TERMS, event_index, Direct);
        let bell = Arc::new(Bell::new().unwrap());
        let mut rx = Rx::new(occupant, bell, rig.alarm.clone());
        rig.receive(&mut rx);
        let wants =
            |rig: &Rig| if event_index { rig.driver.kick_event() == 1 } else { rig.driver.wants_kick() };
        assert!(!wants(&rig));
        rig.send(0, [0; 12], &frame(60), &[]);
        assert!(rx.arm(), "there is a frame");
        assert_eq!(rig.receive(&mut rx).0.len(), 1);
        assert!(!rx.arm() && wants(&rig));

        rig.receive(&mut rx);
        let lane = &mut rig.owner.take().unwrap();
        rig.driver.want_call(false);
        rig.driver.set_call_event(2);
        let Ring::Split(ring) = &mut lane.ring else { unreachable!("a split ring was put there") };
        ring.complete(Chain::default(), 0);
        assert!(ring.publish(ring.completed()) && !ring.wants_call());
        rig.driver.want_call(true);
        // What was shown in two turns is asked about once.
        for _ in 0..2 {
            ring.complete(Chain::default(), 0);
            assert!(ring.publish(ring.completed()));
        }
        assert!(ring.wants_call(), "the chain of index 2 is used now: {event_index}");
        assert!(!ring.publish(ring.completed()), "nothing is new");
    }
}

#[test]
fn an_index_that_jumps_is_found_out_also_by_who_looked_before_he_slept() {
    let (mut rig, _occupant) = rig(TERMS, false, Direct);
    let lane = &mut rig.owner.take().unwrap();
    let Ring::Split(ring) = &mut lane.ring else { unreachable!("a split ring was put there") };
    rig.driver.set_available(17);
    assert!(ring.arm());
    let mut taken = Taken::default();
    assert_eq!(ring.take(Direction::Read, 4, &mut taken), Err(BadRing::Overrun(17)));
    assert!(taken.left().is_empty());
}

#[test]
fn a_successor_goes_on_where_the_ring_stopped() {
    let (mut rig, mut rx) = receiver();
    for round in 0..70_000u32 {
        rig.send(0, [0; 12], &round.to_le_bytes().repeat(15), &[]);
        if round % 1000 == 999 {
            let lane = rig.owner.take().unwrap();
            assert_eq!(lane.ring.position(), u32::from(round as u16));
            let ring = Split::new(rig.memory.mapped(), &rig.driver.layout(), false, Direct).unwrap();
            rig.owner.put(Lane { ring: Ring::Split(ring), ..lane });
        }
        assert_eq!(rig.receive(&mut rx).0, [round.to_le_bytes().repeat(15)]);
        assert_eq!(rig.driver.collect(), Some((0, 0)));
    }
}

#[test]
fn a_successor_finishes_the_burst_of_a_packed_ring_once() {
    use super::packed::{Packed, Style};
    use super::record::{Record, Used};
    use crate::driver::memory::USER;
    use crate::driver::packed::PackedDriver;

    const BEGIN: u16 = 1 << 15;
    // Killed before the burst was shown; after; and after the driver had offered the same entries again.
    for (shown, again) in [(false, false), (true, false), (true, true)] {
        let memory = Arc::new(SharedMemory::new(MEMORY).unwrap());
        let mut driver = PackedDriver::new(memory.clone(), 0, 4).unwrap();
        let post = |driver: &mut PackedDriver, ids: std::ops::Range<u16>| {
            for id in ids {
                driver.stage(id, &[(GUEST + BUFFERS + u64::from(id) * 2048, 2048)], WRITE);
            }
            driver.publish();
        };
        post(&mut driver, 0..4);
        let record = || Record::new(memory.mapped(), USER + 8192, 4).unwrap();
        let ring = || {
            let (layout, base) = (driver.layout(), BEGIN.into());
            Packed::new(memory.mapped(), &layout, Style::default(), base, Some(record()), Direct).unwrap()
        };
        let (mut first, mut taken) = (ring(), Taken::default());
        first.take(Direction::Write, 2, &mut taken).unwrap();
        let used: Vec<Used> =
            taken.left().iter().map(|chain| Used { id: chain.id, entries: 1, written: 100 }).collect();
        taken.left().iter().for_each(|chain| first.complete(*chain, 100));
        if shown {
            first.publish(first.completed());
        }
        drop(first);
        record().intend(BEGIN, &used, |entries| BEGIN + entries);
        let layout = driver.layout();
        if again {
            assert_eq!(driver.waiting(4), 2);
            for id in 0..2 {
                assert_eq!(driver.peek(), Some((id, 100)));
                driver.advance(1);
            }
            post(&mut driver, 0..2);
        }
        let base = BEGIN.into();
        let mut second =
            Packed::new(memory.mapped(), &layout, Style::default(), base, Some(record()), Direct).unwrap();
        if !again {
            assert_eq!(driver.waiting(4), 2, "shown before: {shown}");
        }
        let mut taken = Taken::default();
        second.take(Direction::Write, 8, &mut taken).unwrap();
        let ids: Vec<u16> = taken.left().iter().map(|chain| chain.id).collect();
        assert_eq!(ids, if again { vec![2, 3, 0, 1] } else { vec![2, 3] }, "shown before: {shown}");
    }
}

#[test]
fn a_record_is_believed_if_the_ring_bears_it_out() {
    use super::packed::{Packed, Style};
    use super::record::Record;
    use crate::driver::memory::USER;
    use crate::driver::packed::PackedDriver;

    const BEGIN: u32 = 1 << 15;
    let memory = Arc::new(SharedMemory::new(MEMORY).unwrap());
    let mut driver = PackedDriver::new(memory.clone(), 0, 4).unwrap();
    for id in 0..3 {
        driver.stage(id, &[(GUEST + BUFFERS + u64::from(id) * 2048, 2048)], WRITE);
    }
    driver.publish();
    let layout = driver.layout();
    let ring = || {
        let record = Record::new(memory.mapped(), USER + 8192, 4);
        Packed::new(memory.mapped(), &layout, Style::default(), BEGIN, record, Direct).unwrap()
    };
    let (mut first, mut taken) = (ring(), Taken::default());
    first.take(Direction::Write, 3, &mut taken).unwrap();
    taken.left().iter().for_each(|chain| first.complete(*chain, 100));
    first.publish(first.completed());
    let stands = first.position();
    drop(first);
    assert_eq!((ring().position(), stands & 0xffff), (stands, BEGIN + 3));
    // Armed, and then as QEMU leaves it: no kicks, at the same place.
    let device = layout.used - USER;
    ring().arm();
    memory.write(device + 2, &1u16.to_le_bytes()).unwrap();
    assert_eq!(ring().position(), stands);
    // Another device area than was left; and none at all, as a driver begins with.
    for wish in [[1u8, 0, 1, 0], [0; 4]] {
        let mut left = [0; 4];
        memory.read(device, &mut left).unwrap();
        let mut record = [0; 56];
        memory.read(8192, &mut record).unwrap();
        memory.write(device, &wish).unwrap();
        assert_eq!(ring().position() & 0xffff, BEGIN, "{wish:?}");
        memory.write(device, &left).unwrap();
        memory.write(8192, &record).unwrap();
        assert_eq!(ring().position(), stands);
    }
    // Somebody has gone on there without the record.
    memory.write(layout.descriptors - USER + 3 * 16 + 14, &0x8080u16.to_le_bytes()).unwrap();
    assert_eq!(ring().position() & 0xffff, BEGIN);
}

#[test]
fn nothing_is_touched_while_the_alarm_is_raised() {
    let (mut rig, mut rx) = receiver();
    rig.send(0, [0; 12], &frame(60), &[]);
    rig.alarm.raise();
    assert_eq!(rig.receive(&mut rx).0.len(), 0);
    assert!(rig.alarm.take());
    assert_eq!(rig.receive(&mut rx).0.len(), 1);

    let (mut rig, mut tx) = transmitter(TERMS);
    rig.driver.chain(0, &[(BUFFERS, 2048)], WRITE);
    rig.driver.offer(0);
    rig.alarm.raise();
    assert_eq!(transmit(&mut rig, &mut tx, &frame(60), Offload::NONE, Features::VIRTIO).down, 1);
    assert!(rig.alarm.take());
    assert_eq!(transmit(&mut rig, &mut tx, &frame(60), Offload::NONE, Features::VIRTIO).sent, 1);
}
