//! How far two cores are from each other: what every two-core figure depends on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use core_affinity::CoreId;

/// Round trips that are timed at once.
const ROUNDS: u64 = 2_000;
/// How often; the shortest counts, so that a moment in which a core was taken away does not.
const TIMES: u64 = 100;

/// The time that one cache line takes from core `near` to core `far` and back, nanoseconds.
pub fn distance(near: usize, far: usize) -> io::Result<f64> {
    let line = Arc::new(AtomicU64::new(0));
    let other = Arc::clone(&line);
    pin(near)?;
    let echo = thread::spawn(move || -> io::Result<()> {
        pin(far)?;
        // Odd is ours to answer: the value goes up by one on each side.
        for turn in 0..ROUNDS * TIMES {
            spin(&other, 2 * turn + 1);
            other.store(2 * turn + 2, Ordering::Release);
        }
        Ok(())
    });
    let mut best = f64::INFINITY;
    for time in 0..TIMES {
        let start = Instant::now();
        for turn in time * ROUNDS..(time + 1) * ROUNDS {
            line.store(2 * turn + 1, Ordering::Release);
            spin(&line, 2 * turn + 2);
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / ROUNDS as f64);
    }
    echo.join().map_err(|_| io::Error::other("the other core's thread panicked"))??;
    Ok(best)
}

/// Has this thread run on a core only.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    let pinned = core_affinity::set_for_current(CoreId { id: core });
    if pinned { Ok(()) } else { Err(io::Error::other(format!("this process may not run on CPU {core}"))) }
}

fn spin(line: &AtomicU64, wanted: u64) {
    while line.load(Ordering::Acquire) != wanted {
        std::hint::spin_loop();
    }
}
