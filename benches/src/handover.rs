//! What two cores hand over to each other when there is neither ring nor switch. It depends on the machine, and on how
//! much memory is in use and how many frames are on their way: no bound, but what to compare a switch with that works
//! in the same shape.
//!
//! One core writes every byte of a buffer, the other one copies it into a receiver's buffers, of which the first core
//! looks at the head. That is the work of a switch that copies once and of a client that is both ends, and no more.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::cores::pin;

/// Bytes of a receiver's buffer, and how many there are: two rings of 256.
const PIECE: usize = 2048;
const PIECES: usize = 512;

/// Bytes between buffers beyond their own: their beginnings are spread over the sets of a cache.
const LINE: usize = 64;

/// What is handed over.
#[derive(Clone, Copy, Debug)]
pub struct Handover {
    /// Bytes of a frame.
    pub bytes: usize,
    /// Buffers of the sender, which it uses one after the other.
    pub buffers: usize,
    /// Frames that are on their way at most.
    pub window: usize,
    /// Frames that are shown to the other core at a time.
    pub burst: usize,
}

/// A number on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicUsize);

/// The sender's buffers, the receiver's, and how many frames were written and copied.
struct Shared<'m> {
    sent: Vec<Mutex<&'m mut [u8]>>,
    received: Vec<Mutex<&'m mut [u8]>>,
    written: Count,
    copied: Count,
    over: AtomicBool,
}

impl Handover {
    /// Bytes a second from core `near` by core `far` back to `near`.
    ///
    /// # Errors
    /// The process may not run on one of them.
    pub fn rate(&self, near: usize, far: usize, time: Duration) -> io::Result<f64> {
        let stride = (self.bytes.div_ceil(LINE) | 1) * LINE;
        let of_sender = self.buffers * stride;
        let mut memory = vec![1u8; of_sender + PIECES * (PIECE + LINE)];
        pmd::huge::collapse(&memory);
        let (sent, received) = memory.split_at_mut(of_sender);
        let shared = Shared {
            sent: sent.chunks_exact_mut(stride).map(Mutex::new).collect(),
            received: received.chunks_exact_mut(PIECE + LINE).map(Mutex::new).collect(),
            written: Count::default(),
            copied: Count::default(),
            over: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            let copier = scope.spawn(|| {
                let outcome = pin(far);
                if outcome.is_ok() {
                    self.copy(&shared);
                }
                outcome
            });
            let rate = pin(near).map(|()| {
                self.write(&shared, time / 4, || copier.is_finished());
                self.write(&shared, time, || copier.is_finished())
            });
            shared.over.store(true, Ordering::Relaxed);
            copier.join().map_err(|_| io::Error::other("the other core's thread panicked"))??;
            rate
        })
    }

    /// The core that is both ends; bytes a second that came back.
    fn write(&self, shared: &Shared<'_>, time: Duration, is_alone: impl Fn() -> bool) -> f64 {
        let fresh: Vec<u8> = (0..self.bytes).map(|i| i as u8).collect();
        let (begun, pieces) = (Instant::now(), self.bytes.div_ceil(PIECE));
        let (mut written, first) =
            (shared.written.0.load(Ordering::Relaxed), shared.copied.0.load(Ordering::Acquire));
        let (mut looked, mut heads) = (first, 0u64);
        while begun.elapsed() < time && !is_alone() {
            let copied = shared.copied.0.load(Ordering::Acquire);
            for frame in looked..copied {
                heads += u64::from(lock(&shared.received[frame * pieces % PIECES])[0]);
            }
            looked = copied;
            let free = self.window - (written - copied);
            if free < self.burst {
                continue;
            }
            for frame in written..written + self.burst {
                lock(&shared.sent[frame % self.buffers])[..self.bytes].copy_from_slice(&fresh);
            }
            written += self.burst;
            shared.written.0.store(written, Ordering::Release);
        }
        std::hint::black_box(heads);
        ((looked - first) * self.bytes) as f64 / begun.elapsed().as_secs_f64()
    }

    /// The core that copies.
    fn copy(&self, shared: &Shared<'_>) {
        let (mut done, pieces) = (0, self.bytes.div_ceil(PIECE));
        while !shared.over.load(Ordering::Relaxed) {
            let written = shared.written.0.load(Ordering::Acquire);
            for frame in done..written {
                let from = lock(&shared.sent[frame % self.buffers]);
                for (i, piece) in from[..self.bytes].chunks(PIECE).enumerate() {
                    lock(&shared.received[(frame * pieces + i) % PIECES])[..piece.len()]
                        .copy_from_slice(piece);
                }
                if (frame + 1 - done) % self.burst == 0 {
                    shared.copied.0.store(frame + 1, Ordering::Release);
                }
            }
            done = written;
            shared.copied.0.store(done, Ordering::Release);
        }
    }
}

/// A buffer; nobody else has it but by mistake.
fn lock<'a, 'm>(buffer: &'a Mutex<&'m mut [u8]>) -> std::sync::MutexGuard<'a, &'m mut [u8]> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_round() {
        for (bytes, buffers, window, burst) in [(1518, 64, 64, 32), (65_000, 4, 2, 1)] {
            let rate = Handover { bytes, buffers, window, burst }.rate(0, 0, Duration::from_millis(50));
            assert!(rate.is_ok_and(|rate| rate > 0.0));
        }
        assert!(
            Handover { bytes: 64, buffers: 1, window: 1, burst: 1 }.rate(0, 1000, Duration::ZERO).is_err()
        );
    }
}
