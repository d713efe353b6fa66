//! The worst of all guests: its memory holds another value at every look.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use proptest::prelude::*;

use super::*;

/// Memory that holds another value at every look, and a count of looks.
struct Flip {
    values: Box<dyn FnMut() -> u64 + Send>,
    looks: Arc<std::sync::atomic::AtomicU64>,
}

// SAFETY: reads nothing at all.
unsafe impl Access for Flip {
    unsafe fn load(&mut self, _at: NonNull<u16>) -> u16 {
        self.looks.fetch_add(1, Ordering::Relaxed);
        (self.values)() as u16
    }

    unsafe fn descriptor(&mut self, _at: NonNull<[u64; 2]>) -> [u64; 2] {
        self.looks.fetch_add(1, Ordering::Relaxed);
        [(self.values)(), (self.values)()]
    }

    unsafe fn copy(&mut self, _from: NonNull<u8>, to: &mut [u8]) {
        to.fill_with(|| (self.values)() as u8);
    }
}

/// Values that come near to what a ring can hold: mostly small numbers, addresses in and about the memory, flags.
fn flipping(mut state: u64) -> Box<dyn FnMut() -> u64 + Send> {
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    Box::new(move || {
        let value = next();
        match value % 8 {
            0 => value,
            1 => u64::MAX - value % 4096,
            2 | 3 => value % 18,
            4 | 5 => GUEST + value % (MEMORY + 4096),
            // A descriptor's second word: a length, flags, a next.
            _ => (value % 5000) | ((value >> 20 & 7) << 32) | ((value >> 24 & 15) << 48),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the memory says, and however it changes between two looks: nothing but the memory is touched, the
    /// work is bounded, and what cannot be is refused.
    #[test]
    fn no_values_at_all_do_harm(seed in 1u64.., mergeable: bool, event_index: bool) {
        let looks = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let flip = |seed| Flip { values: flipping(seed), looks: looks.clone() };
        let terms = Terms { mergeable, ..TERMS };
        let (mut receiving, occupant) = rig(terms, event_index, flip(seed));
        let mut rx = Rx::new(occupant, Arc::new(Bell::new().unwrap()), receiving.alarm.clone());
        let (mut sending, occupant) = rig(terms, event_index, flip(seed.rotate_left(17) | 1));
        let mut tx = Tx::new(occupant, sending.alarm.clone());
        let mut memory = RxMemory::new();
        let (items, prefixes) = ([TxItem::exclusive(0)], Prefixes::default());
        for round in 0..64 {
            looks.store(0, Ordering::Relaxed);
            let mut batch = rx.receive(&mut memory, &mut receiving.pool, 64).unwrap();
            prop_assert!(batch.len() <= 64);
            if !batch.is_empty() {
                let mut burst = Burst::new(&mut batch, &items, &prefixes, Features::VIRTIO);
                prop_assert_eq!(tx.transmit(&mut burst, &mut sending.pool).total(), 1);
            }
            batch.recycle(&mut receiving.pool);
            rx.release(&mut receiving.pool);
            rx.arm();
            prop_assert!(looks.load(Ordering::Relaxed) < 4 * u64::from(BURST_DESCRIPTORS));
            // A broken ring comes back as another one.
            for (rig, seed) in [(&mut receiving, seed ^ round), (&mut sending, seed ^ round << 8)] {
                if rig.alarm.take() && rig.owner.take().is_some() {
                    let access = flip(seed | 1);
                    let ring = Split::new(rig.memory.mapped(), &rig.driver.layout(), event_index, access).unwrap();
                    rig.owner.put(Lane::new(Ring::Split(ring), terms, None));
                }
            }
        }
    }
}
