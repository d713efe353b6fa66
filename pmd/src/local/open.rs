//! Opening a `local` port.

use std::io;
use std::sync::Arc;

use super::rx::Rx;
use super::tx::Tx;
use super::{Bell, Lane, LocalEnd};
use crate::offload::Features;
use crate::port::{Fate, Fault, Link, Port, RxQueue, TxQueue};

/// What a `local` port is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The station's address.
    pub mac: [u8; 6],
    /// The largest network packet.
    pub mtu: u32,
    /// Frames that each direction holds.
    pub capacity: usize,
    /// Tx queues.
    pub tx_queues: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { mac: [2, 0, 0, 0, 0, 1], mtu: 1500, capacity: 128, tx_queues: 1 }
    }
}

/// The workers' side.
pub struct LocalPort {
    settings: Settings,
    rx: Option<Rx>,
    from_switch: Arc<Lane>,
    bell: Bell,
    tx_queues: usize,
}

/// Makes a port and its other end, for the control thread that sleeps on `bell`.
///
/// # Errors
/// The kernel gives no descriptor (`eventfd`).
pub fn open(settings: Settings, bell: &Bell) -> io::Result<(LocalPort, LocalEnd)> {
    let lane = || Arc::new(Lane::new(settings.capacity, settings.mtu));
    let (to_switch, from_switch, worker) = (lane(), lane(), Bell::new()?);
    let port = LocalPort {
        settings,
        rx: Some(Rx::new(to_switch.clone(), worker.clone())),
        from_switch: from_switch.clone(),
        bell: bell.clone(),
        tx_queues: settings.tx_queues,
    };
    Ok((port, LocalEnd { to_switch, from_switch, worker, bell: bell.clone() }))
}

impl Port for LocalPort {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn mode(&self) -> &str {
        "the switch's own"
    }

    fn mac(&self) -> Option<[u8; 6]> {
        Some(self.settings.mac)
    }

    fn mtu(&self) -> u32 {
        self.settings.mtu
    }

    fn features(&self) -> Features {
        Features::NONE
    }

    fn link(&self) -> Link {
        if self.from_switch.is_closed() { Link::down("nobody is at the other end") } else { Link::up() }
    }

    fn take_rx(&mut self) -> Vec<Box<dyn RxQueue>> {
        self.rx.take().into_iter().map(|rx| Box::new(rx) as Box<dyn RxQueue>).collect()
    }

    fn take_tx(&mut self) -> Vec<Box<dyn TxQueue>> {
        let queue = || Box::new(Tx::new(self.from_switch.clone(), self.bell.clone())) as Box<dyn TxQueue>;
        (0..std::mem::take(&mut self.tx_queues)).map(|_| queue()).collect()
    }

    fn close(self: Box<Self>, _fate: Fate) -> Result<(), Fault> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::arena::{Arena, HEADROOM, HugePages};
    use crate::batch::{BATCH, RxMemory};
    use crate::checksum::Sum;
    use crate::gather::{Burst, Prefixes, TxItem};
    use crate::offload::{Checksum, Offload};
    use crate::pool::Pool;
    use crate::port::{Source, TxReport};

    /// A worker's memory.
    struct Worker {
        pool: Pool,
        memory: RxMemory,
    }

    impl Worker {
        fn new() -> Worker {
            let arena = Arena::new(64, HugePages::Off).unwrap();
            Worker { pool: arena.pool(), memory: RxMemory::new() }
        }

        fn receive(&mut self, rx: &mut dyn RxQueue, limit: usize) -> Vec<Vec<u8>> {
            let batch = rx.receive(&mut self.memory, &mut self.pool, limit).unwrap();
            (0..batch.len()).map(|i| batch.head(i).to_vec()).collect()
        }

        fn send(&mut self, tx: &mut dyn TxQueue, frame: &[u8], copies: usize, offload: Offload) -> TxReport {
            let (mut batch, mut scratch) = self.memory.lend();
            let private = scratch.take(HEADROOM + frame.len());
            private[HEADROOM..].copy_from_slice(frame);
            batch.push_private(private, HEADROOM, offload);
            let items = vec![TxItem::whole(&batch, 0, false); copies];
            let prefixes = Prefixes::default();
            let mut burst = Burst::new(&mut batch, &items, &prefixes, Features::NONE);
            tx.transmit(&mut burst, &mut self.pool)
        }
    }

    fn is_readable(rx: &dyn RxQueue, timeout_ms: i32) -> bool {
        let Source::Ring(descriptor) = rx.source() else { panic!("a ring") };
        let mut event = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        #[allow(unsafe_code)]
        // SAFETY: one descriptor, which lives through the call.
        let count = unsafe { libc::poll(&mut event, 1, timeout_ms) };
        count == 1
    }

    fn frame(len: usize, number: usize) -> Vec<u8> {
        let mut frame = vec![0x5a; len];
        frame[12..14].copy_from_slice(&(number as u16).to_be_bytes());
        frame
    }

    #[test]
    fn what_the_control_thread_says_comes_in_order_and_whole() {
        let mut worker = Worker::new();
        let (mut port, end) =
            open(Settings { mtu: 9000, ..Settings::default() }, &Bell::new().unwrap()).unwrap();
        let mut rx = port.take_rx().pop().unwrap();
        assert!(port.take_rx().is_empty());
        assert!(worker.receive(&mut *rx, BATCH).is_empty());
        let frames: Vec<_> =
            [14, 60, 1514, 9022].into_iter().enumerate().map(|(n, len)| frame(len, n)).collect();
        assert!(frames.iter().all(|frame| end.send(frame)));
        let first = worker.receive(&mut *rx, 1);
        assert_eq!(first, frames[..1]);
        assert_eq!(worker.receive(&mut *rx, BATCH), frames[1..]);
        assert_eq!(rx.missed(), 0);
        // Neither a frame: too short to have a type, longer than the MTU.
        assert!(!end.send(&[0; 13]) && !end.send(&[0; 9023]));
        assert_eq!(rx.missed(), 2);
    }

    #[test]
    fn large_frames_come_in_smaller_bursts_and_all_come() {
        let mut worker = Worker::new();
        let (mut port, end) =
            open(Settings { mtu: 9000, ..Settings::default() }, &Bell::new().unwrap()).unwrap();
        let mut rx = port.take_rx().pop().unwrap();
        let frames: Vec<_> = (0..128).map(|n| frame(9022, n)).collect();
        assert!(frames.iter().all(|frame| end.send(frame)));
        assert!(!end.send(&frames[0]), "there is room for 128");
        let mut seen = Vec::new();
        loop {
            let burst = worker.receive(&mut *rx, BATCH);
            if burst.is_empty() {
                break;
            }
            seen.extend(burst);
        }
        assert!(seen == frames);
        assert!(end.send(&frames[0]), "there is room again");
    }

    #[test]
    fn a_worker_sleeps_until_it_is_rung_for() {
        let mut worker = Worker::new();
        let (mut port, end) = open(Settings::default(), &Bell::new().unwrap()).unwrap();
        let mut rx = port.take_rx().pop().unwrap();
        end.send(&frame(60, 0));
        assert!(!is_readable(&*rx, 0), "nobody listened");
        assert!(rx.arm(), "a frame is there");
        worker.receive(&mut *rx, BATCH);
        for _ in 0..3 {
            assert!(!rx.arm());
            assert!(!is_readable(&*rx, 0));
            end.send(&frame(60, 0));
            assert!(is_readable(&*rx, 0));
            assert_eq!(worker.receive(&mut *rx, BATCH).len(), 1);
        }
    }

    #[test]
    fn several_workers_send_to_one_thread_and_nothing_is_lost_unseen() {
        const EACH: usize = 5_000;
        let bell = Bell::new().unwrap();
        let (mut port, end) = open(Settings { tx_queues: 2, ..Settings::default() }, &bell).unwrap();
        let (queues, mut counts) = (port.take_tx(), [0usize; 2]);
        assert_eq!((queues.len(), port.take_tx().len()), (2, 0));
        let senders: Vec<_> = (queues.into_iter().enumerate())
            .map(|(who, mut tx)| {
                thread::spawn(move || {
                    let mut worker = Worker::new();
                    let mut sent = 0;
                    while sent < EACH {
                        let report = worker.send(&mut *tx, &frame(100 + who, who), 10, Offload::NONE);
                        assert_eq!(report.total(), 10);
                        assert_eq!(
                            (report.full, report.bytes),
                            (10 - report.sent, u64::from(report.sent) * (100 + who as u64))
                        );
                        sent += report.sent as usize;
                    }
                    sent
                })
            })
            .collect();
        let (mut bytes, began) = (Vec::new(), Instant::now());
        loop {
            let done = senders.iter().all(|sender| sender.is_finished());
            while end.receive(&mut bytes) {
                let who = usize::from(bytes[13]);
                assert_eq!(bytes, frame(100 + who, who));
                counts[who] += 1;
            }
            if done {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60));
            end.wait(Duration::from_millis(10));
        }
        let sent: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        assert_eq!(sent, counts);
    }

    #[test]
    fn a_thread_that_sleeps_is_woken() {
        let bell = Bell::new().unwrap();
        let (mut port, end) = open(Settings::default(), &bell).unwrap();
        let mut tx = port.take_tx().pop().unwrap();
        let long = Duration::from_secs(30);
        let sleeper = thread::spawn(move || {
            let began = Instant::now();
            let mut bytes = Vec::new();
            for _ in 0..100 {
                while !end.receive(&mut bytes) {
                    end.wait(long);
                }
            }
            assert!(began.elapsed() < long);
            end
        });
        let mut worker = Worker::new();
        for number in 0..100 {
            while worker.send(&mut *tx, &frame(60, number), 1, Offload::NONE).full > 0 {}
        }
        let end = sleeper.join().unwrap();
        // A bell rings for whatever its thread waits for, not only for frames.
        let other = bell.clone();
        let ringer = thread::spawn(move || other.ring());
        ringer.join().unwrap();
        end.wait(Duration::ZERO);
        assert!(!end.has_frames());
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        let mut worker = Worker::new();
        let (mut port, end) = open(Settings::default(), &Bell::new().unwrap()).unwrap();
        let mut tx = port.take_tx().pop().unwrap();
        let mut sent = frame(61, 8);
        sent[20..22].copy_from_slice(&[0, 0]);
        let offload = Offload { checksum: Checksum::Partial { start: 14, offset: 6 }, ..Offload::NONE };
        assert_eq!(worker.send(&mut *tx, &sent, 1, offload).sent, 1);
        let mut bytes = Vec::new();
        assert!(end.receive(&mut bytes));
        let mut sum = Sum::default();
        sum.add(&bytes[14..]);
        assert_eq!(sum.partial(), [0xff, 0xff]);
        assert_eq!(bytes[22..], sent[22..]);
    }

    #[test]
    fn what_is_too_long_is_refused_and_who_is_gone_gets_nothing() {
        let mut worker = Worker::new();
        let (mut port, end) =
            open(Settings { capacity: 4, ..Settings::default() }, &Bell::new().unwrap()).unwrap();
        let (mut rx, mut tx) = (port.take_rx().pop().unwrap(), port.take_tx().pop().unwrap());
        let report = worker.send(&mut *tx, &frame(1523, 0), 2, Offload::NONE);
        assert_eq!(report, TxReport { refused: 2, ..TxReport::default() });
        let report = worker.send(&mut *tx, &frame(1522, 0), 5, Offload::NONE);
        assert_eq!(report, TxReport { sent: 4, bytes: 4 * 1522, full: 1, ..TxReport::default() });
        assert!(port.link().up && !end.is_closed());
        let (_other, other_end) = open(Settings::default(), &Bell::new().unwrap()).unwrap();
        drop(_other);
        assert!(other_end.is_closed() && !other_end.send(&frame(60, 0)));
        drop(end);
        assert!(!port.link().up);
        assert_eq!(worker.send(&mut *tx, &frame(60, 0), 3, Offload::NONE).down, 3);
        assert!(worker.receive(&mut *rx, BATCH).is_empty());
    }
}
