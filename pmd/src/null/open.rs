//! Opening a `null` port.

use std::io;
use std::ops::RangeInclusive;

use super::rx::Rx;
use super::timer::Timer;
use super::tx::Tx;
use crate::offload::Features;
use crate::port::{Fate, Fault, Link, Port, RxQueue, TxQueue};

/// Bytes that a made frame may have, FCS not counted.
pub const SIZES: RangeInclusive<usize> = 60..=9018;

/// What a `null` port is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Frames that are made in a second; 0: none, the port is a sink only.
    pub rate: u64,
    /// Bytes of each; the nearest of [`SIZES`] is taken.
    pub size: usize,
    /// The sender's address; it is made a locally administered station's.
    pub mac: [u8; 6],
    /// Tx queues.
    pub tx_queues: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { rate: 0, size: *SIZES.start(), mac: [2, 0, 0, 0, 0, 1], tx_queues: 1 }
    }
}

/// An open `null` port.
pub struct NullPort {
    rx: Option<Rx>,
    mode: &'static str,
    mac: [u8; 6],
    tx_queues: usize,
}

/// Opens the port.
///
/// # Errors
/// The kernel has no timer left (`timerfd_create`).
pub fn open(settings: Settings) -> io::Result<NullPort> {
    let Settings { rate, size, mut mac, tx_queues } = settings;
    // IEEE 802-2014, 8.2.2: bit 1 is "locally administered", bit 0 "group".
    mac[0] = mac[0] & !1 | 2;
    let size = size.clamp(*SIZES.start(), *SIZES.end());
    let rx = match rate {
        0 => None,
        _ => Some(Rx::new(Timer::new()?, rate, size, mac)),
    };
    let mode = if rx.is_some() { "source and sink" } else { "sink" };
    Ok(NullPort { rx, mode, mac, tx_queues })
}

impl Port for NullPort {
    fn kind(&self) -> &'static str {
        "null"
    }

    fn mode(&self) -> &str {
        self.mode
    }

    fn mac(&self) -> Option<[u8; 6]> {
        Some(self.mac)
    }

    fn mtu(&self) -> u32 {
        u16::MAX.into()
    }

    fn features(&self) -> Features {
        Features::VIRTIO.with(Features::TUNNEL)
    }

    fn link(&self) -> Link {
        Link::up()
    }

    fn take_rx(&mut self) -> Vec<Box<dyn RxQueue>> {
        self.rx.take().into_iter().map(|rx| Box::new(rx) as Box<dyn RxQueue>).collect()
    }

    fn take_tx(&mut self) -> Vec<Box<dyn TxQueue>> {
        let count = std::mem::take(&mut self.tx_queues);
        (0..count).map(|_| Box::new(Tx) as Box<dyn TxQueue>).collect()
    }

    fn close(self: Box<Self>, _fate: Fate) -> Result<(), Fault> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::arena::{Arena, HugePages};
    use crate::batch::{BATCH, RxMemory};
    use crate::gather::{Burst, Prefixes, TxItem};
    use crate::port::{Source, TxReport};

    #[test]
    fn a_source_keeps_its_rate_and_counts_its_frames() {
        let arena = Arena::new(64, HugePages::Off).unwrap();
        let (mut pool, mut memory) = (arena.pool(), RxMemory::new());
        let settings = Settings { rate: 200_000, size: 100, mac: [1, 2, 3, 4, 5, 6], tx_queues: 1 };
        let began = Instant::now();
        let mut port = open(settings).unwrap();
        let mut rx = port.take_rx().pop().unwrap();
        assert!(port.take_rx().is_empty());
        assert_eq!(port.mode(), "source and sink");
        let mut made = 0u64;
        while made < 2000 {
            assert!(began.elapsed() < Duration::from_secs(10), "only {made} frames");
            let batch = rx.receive(&mut memory, &mut pool, 1000).unwrap();
            assert!(batch.len() <= BATCH);
            for i in 0..batch.len() {
                let head = batch.head(i);
                assert_eq!((head.len(), head[0] & 3, head[6] & 3), (100, 2, 2), "stations of our own");
                assert_ne!(head[..6], head[6..12]);
                assert_eq!(head[14..22], made.to_be_bytes());
                made += 1;
            }
            let most = began.elapsed().as_nanos() as u64 / 5000;
            assert!(made <= most, "{made} frames are more than {most}");
        }
    }

    #[test]
    fn a_worker_can_sleep_until_the_next_frame() {
        let arena = Arena::new(64, HugePages::Off).unwrap();
        let (mut pool, mut memory) = (arena.pool(), RxMemory::new());
        let mut port = open(Settings { rate: 50, ..Settings::default() }).unwrap();
        let mut rx = port.take_rx().pop().unwrap();
        for _ in 0..3 {
            if !rx.arm() {
                let Source::Ring(descriptor) = rx.source() else { panic!("a ring") };
                let mut ready = libc::pollfd {
                    fd: std::os::fd::AsRawFd::as_raw_fd(&descriptor),
                    events: libc::POLLIN,
                    revents: 0,
                };
                #[allow(unsafe_code)]
                // SAFETY: one descriptor, which lives through the call.
                let count = unsafe { libc::poll(&mut ready, 1, 5000) };
                assert_eq!(count, 1, "nobody woke us");
            }
            assert!(!rx.receive(&mut memory, &mut pool, BATCH).unwrap().is_empty());
        }
    }

    #[test]
    fn large_frames_come_in_smaller_bursts_and_all_come() {
        let arena = Arena::new(64, HugePages::Off).unwrap();
        let (mut pool, mut memory) = (arena.pool(), RxMemory::new());
        let mut port = open(Settings { rate: 1_000_000_000, size: 100_000, ..Settings::default() }).unwrap();
        let mut rx = port.take_rx().pop().unwrap();
        let mut numbers = HashSet::new();
        for _ in 0..4 {
            let batch = rx.receive(&mut memory, &mut pool, BATCH).unwrap();
            for i in 0..batch.len() {
                assert_eq!(batch.frame_len(i), *SIZES.end());
                numbers.insert(batch.head(i)[14..22].to_vec());
            }
        }
        let last = (numbers.len() as u64 - 1).to_be_bytes();
        assert!(numbers.len() > 4 * 32 && numbers.contains(&last[..]));
    }

    #[test]
    fn a_sink_has_no_rx_queue_and_takes_everything() {
        let arena = Arena::new(64, HugePages::Off).unwrap();
        let (mut pool, mut memory) = (arena.pool(), RxMemory::new());
        let mut port = open(Settings { tx_queues: 3, ..Settings::default() }).unwrap();
        assert!(port.take_rx().is_empty());
        let mut tx = port.take_tx();
        assert_eq!((tx.len(), port.take_tx().len()), (3, 0));
        let (mut batch, mut scratch) = memory.lend();
        batch.push_private(scratch.take(60), 0, crate::Offload::NONE);
        let items = [TxItem::whole(&batch, 0, false); 5];
        let prefixes = Prefixes::default();
        let mut burst = Burst::new(&mut batch, &items, &prefixes, port.features());
        let report = tx[2].transmit(&mut burst, &mut pool);
        assert_eq!(report, TxReport { sent: 5, bytes: 300, ..TxReport::default() });
    }
}
