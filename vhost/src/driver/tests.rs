//! Queues of the driver with the device's own rings at the other end, and with a device that invents things.

use std::sync::Arc;

use pmd::{
    Arena, Burst, Features, HugePages, Pool, Prefixes, RxMemory, RxQueue, TxItem, TxQueue, batch::Scratch,
};

use super::memory::{SharedMemory, USER};
use super::queue::{DeviceFault, HEADER, Queue, Role, Shape};
use crate::event::Bell;
use crate::ring::access::Direct;
use crate::ring::packed::{Packed, Style};
use crate::ring::rx::Rx;
use crate::ring::split::Split;
use crate::ring::tx::Tx;
use crate::ring::{Alarm, Lane, Ring, Terms};
use crate::seat::{Occupant, Owner, seat};

const PLAIN: Shape = Shape {
    size: 16,
    packed: false,
    buffer: 2048,
    mergeable: true,
    indirect: false,
    event_index: false,
    in_order: false,
};

/// A transmit and a receive queue, with a device that sends what it receives back.
struct Rig {
    memory: Arc<SharedMemory>,
    transmit: Queue,
    receive: Queue,
    device: (Rx, Tx),
    _owners: [Owner<Lane>; 2],
    pool: Pool,
}

/// The device's end of a queue.
fn lane(memory: &SharedMemory, queue: &mut Queue, shape: Shape) -> (Owner<Lane>, Occupant<Lane>) {
    let (layout, base) = (queue.ring().layout(), queue.ring().base());
    let style = Style { in_order: shape.in_order, event_index: shape.event_index };
    let ring = if shape.packed {
        Ring::Packed(Packed::new(memory.mapped(), &layout, style, base.into(), None, Direct).unwrap())
    } else {
        Ring::Split(Split::new(memory.mapped(), &layout, shape.event_index, Direct).unwrap())
    };
    let terms = Terms { header: HEADER, mergeable: shape.mergeable, features: Features::NONE };
    let (mut owner, occupant) = seat();
    owner.put(Lane::new(ring, terms, None));
    (owner, occupant)
}

fn rig(shape: Shape) -> Rig {
    let memory = Arc::new(SharedMemory::new(2 * shape.bytes()).unwrap());
    let mut transmit = Queue::new(memory.clone(), 0, Role::Transmit, shape).unwrap();
    let mut receive = Queue::new(memory.clone(), shape.bytes(), Role::Receive, shape).unwrap();
    let (alarm, bell) = (Arc::new(Alarm::new().unwrap()), Arc::new(Bell::new().unwrap()));
    let (rx_owner, rx) = lane(&memory, &mut transmit, shape);
    let (tx_owner, tx) = lane(&memory, &mut receive, shape);
    let device = (Rx::new(rx, bell, alarm.clone()), Tx::new(tx, alarm));
    let pool = Arena::new(64, HugePages::Off).unwrap().pool();
    Rig { memory, transmit, receive, device, _owners: [rx_owner, tx_owner], pool }
}

impl Rig {
    /// The device sends back what it has received.
    fn echo(&mut self) {
        let (rx, tx) = &mut self.device;
        let mut memory = RxMemory::new();
        let mut batch = rx.receive(&mut memory, &mut self.pool, 64).unwrap();
        let items: Vec<TxItem> = (0..batch.len() as u16).map(TxItem::exclusive).collect();
        let prefixes = Prefixes::default();
        tx.transmit(&mut Burst::new(&mut batch, &items, &prefixes, Features::NONE), &mut self.pool);
        tx.flush();
        batch.recycle(&mut self.pool);
        rx.release(&mut self.pool);
    }

    /// The device sends one frame.
    fn device_sends(&mut self, frame: &[u8]) {
        let mut memory = RxMemory::new();
        let (mut batch, mut scratch): (_, Scratch<'_>) = memory.lend();
        let place = scratch.take(frame.len());
        place.copy_from_slice(frame);
        batch.push_private(place, 0, pmd::Offload::NONE);
        let (items, prefixes) = ([TxItem::exclusive(0)], Prefixes::default());
        let (_, tx) = &mut self.device;
        let mut burst = Burst::new(&mut batch, &items, &prefixes, Features::NONE);
        assert_eq!(tx.transmit(&mut burst, &mut self.pool).sent, 1);
        tx.flush();
    }

    /// An offset in the used ring of a split queue.
    fn used(queue: &mut Queue) -> u64 {
        queue.ring().layout().used - USER
    }
}

/// Every combination of the ring's ways.
fn shapes() -> impl Iterator<Item = Shape> {
    (0..32).map(|bits: u32| {
        let bit = |at: u32| bits & 1 << at != 0;
        Shape {
            packed: bit(0),
            mergeable: bit(1),
            indirect: bit(2),
            event_index: bit(3),
            in_order: bit(4),
            ..PLAIN
        }
    })
}

#[test]
fn frames_go_round_and_round_in_order_whatever_was_agreed_on() {
    for shape in shapes() {
        let mut rig = rig(shape);
        let (mut sent, mut got) = (0u64, 0u64);
        while got < 1000 {
            // Bursts of all lengths up to the ring's, so that it wraps at every entry.
            let burst = 1 + sent % 16;
            assert_eq!(rig.transmit.reclaim(), Ok(16));
            for number in sent..sent + burst {
                let rest = vec![number as u8; 60 + (number as usize * 31) % 1400];
                assert!(rig.transmit.send_words([0, 0, number], &rest), "{shape:?}");
            }
            rig.transmit.publish();
            sent += burst;
            rig.echo();
            while let Some(frame) = rig.receive.receive().unwrap() {
                let (head, bytes) = (frame.head_words::<3>(), frame.to_vec());
                assert_eq!((head[2], bytes.len() as u64), (got, frame.bytes()), "{shape:?}");
                assert_eq!(bytes[24..], vec![got as u8; 60 + (got as usize * 31) % 1400], "{shape:?}");
                got += 1;
            }
            rig.receive.publish();
            assert_eq!(got, sent, "{shape:?}");
        }
    }
}

#[test]
fn a_frame_is_put_together_from_the_buffers_that_it_is_spread_over() {
    for packed in [false, true] {
        let mut rig = rig(Shape { packed, ..PLAIN });
        let frame: Vec<u8> = (0..9000u32).map(|i| (i * 7 + i / 256) as u8).collect();
        for round in 0..20 {
            rig.device_sends(&frame);
            let received = rig.receive.receive().unwrap().unwrap();
            assert_eq!((received.buffers(), received.bytes()), (5, 9012), "{round}");
            assert_eq!(received.to_vec()[HEADER..], frame);
            rig.receive.publish();
        }
    }
}

#[test]
fn a_full_queue_and_a_frame_that_fits_no_buffer_are_not_sent() {
    let mut queue = rig(PLAIN).transmit;
    assert!(!queue.send(&[&[0; 2049]]) && !queue.send(&[&[0; 11]]) && queue.room() == 16);
    for _ in 0..16 {
        assert!(queue.send(&[&[0; 12], &[7; 2036]]));
    }
    assert!(!queue.send(&[&[0; 12], &[7; 60]]) && queue.room() == 0);
}

#[test]
fn buffers_may_come_back_in_any_order_and_only_those_that_are_away() {
    let mut rig = rig(PLAIN);
    for number in 0..4u64 {
        assert!(rig.transmit.send_words([0, 0, number], &[]));
    }
    rig.transmit.publish();
    let used = Rig::used(&mut rig.transmit);
    let entry = |id: u32| u64::from(id).to_le_bytes();
    for (slot, id) in [2, 0, 3].into_iter().enumerate() {
        rig.memory.write(used + 4 + 8 * slot as u64, &entry(id)).unwrap();
    }
    rig.memory.store(used + 2, 3).unwrap();
    assert_eq!(rig.transmit.reclaim(), Ok(15));
    // Once more, one that it never had, and one that there is not.
    for id in [2, 4, 16, 0x1_0001, u32::MAX] {
        let mut rig = self::rig(PLAIN);
        for number in 0..4u64 {
            assert!(rig.transmit.send_words([0, 0, number], &[]));
        }
        rig.transmit.publish();
        rig.memory.write(used + 4, &entry(2)).unwrap();
        rig.memory.write(used + 12, &entry(id)).unwrap();
        rig.memory.store(used + 2, 2).unwrap();
        assert_eq!(rig.transmit.reclaim(), Err(DeviceFault::Buffer(id)));
    }
    // An index that has run away: what is in the ring was never away.
    let mut rig = self::rig(PLAIN);
    rig.memory.store(used + 2, 500).unwrap();
    assert_eq!(rig.transmit.reclaim(), Err(DeviceFault::Buffer(0)));
}

#[test]
fn one_entry_gives_back_all_that_were_in_order_before_it() {
    let mut rig = rig(Shape { in_order: true, ..PLAIN });
    for number in 0..5u64 {
        assert!(rig.transmit.send_words([0, 0, number], &[]));
    }
    rig.transmit.publish();
    let used = Rig::used(&mut rig.transmit);
    rig.memory.write(used + 4, &3u64.to_le_bytes()).unwrap();
    rig.memory.store(used + 2, 4).unwrap();
    assert_eq!(rig.transmit.reclaim(), Ok(15));
    // It names one more than its index says.
    assert!((0..4u64).all(|number| rig.transmit.send_words([0, 0, number], &[])));
    rig.transmit.publish();
    rig.memory.write(used + 4 + 32, &6u64.to_le_bytes()).unwrap();
    rig.memory.store(used + 2, 6).unwrap();
    assert_eq!(rig.transmit.reclaim(), Err(DeviceFault::Buffer(6)));
}

#[test]
fn lengths_and_numbers_of_buffers_that_cannot_be_are_refused() {
    // Bytes written, number of buffers in the header, buffers that came back.
    for (written, buffers, back, fault) in [
        (2049, 1, 1, DeviceFault::Written { written: 2049, bytes: 2048 }),
        (u32::MAX, 1, 1, DeviceFault::Written { written: u32::MAX, bytes: 2048 }),
        (11, 1, 1, DeviceFault::Written { written: 11, bytes: 2048 }),
        (60, 0, 1, DeviceFault::Spread(0)),
        (60, 2, 1, DeviceFault::Spread(2)),
        (60, u16::MAX, 5, DeviceFault::Spread(u16::MAX)),
    ] {
        let mut rig = rig(PLAIN);
        let used = Rig::used(&mut rig.receive);
        for slot in 0..back {
            let entry = slot | u64::from(written) << 32;
            rig.memory.write(used + 4 + 8 * slot, &entry.to_le_bytes()).unwrap();
        }
        rig.memory.write(rig.receive.buffer(0) + 10, &u16::to_le_bytes(buffers)).unwrap();
        rig.memory.store(used + 2, back as u16).unwrap();
        assert_eq!(rig.receive.receive().map(|_| ()), Err(fault));
    }
}

#[test]
fn places_outside_of_the_memory_are_errors() {
    let memory = Arc::new(SharedMemory::new(4096).unwrap());
    for (offset, bytes) in [(4095, 2), (4096, 1), (u64::MAX, 1), (u64::MAX - (1 << 32), 1)] {
        assert!(memory.write(offset, &vec![0; bytes]).is_err(), "{offset:#x}");
        assert!(memory.read(offset, &mut vec![0; bytes]).is_err(), "{offset:#x}");
    }
    assert!(memory.load(4094).is_ok() && memory.load(1).is_err() && memory.store(4096, 0).is_err());
    for packed in [false, true] {
        let new = |at, shape| Queue::new(memory.clone(), at, Role::Receive, Shape { packed, ..shape });
        assert!(new(0, PLAIN).is_err() && new(0, Shape { size: 3, ..PLAIN }).is_err());
        assert!(new(0, Shape { size: 0, ..PLAIN }).is_err() && new(u64::MAX - 63, PLAIN).is_err());
    }
}
