//! A seat: where a value sits that one thread works with and another one gives and takes.
//!
//! The control thread owns a ring and puts it into the seat; a worker works with what it finds there, a burst at
//! a time; when the ring must change or its memory go, the control thread takes it out again. Taking waits for
//! the burst that is under way and for nothing else: not for a worker that sleeps, that has not been given its
//! queue yet or will never get it. A worker never waits.
//!
//! Each of the two announces itself and then looks at the other (Dekker): the worker says that it is inside and
//! looks whether the seat is open, the owner closes it and looks whether somebody is inside. With sequentially
//! consistent accesses at least one of them sees the other. It costs the worker one such store a burst.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;

/// How often the owner looks before it lets others run.
const SPINS: u32 = 100;

struct Seat<T> {
    /// Written by the worker.
    inside: CachePadded<AtomicBool>,
    /// Written by the owner.
    open: CachePadded<AtomicBool>,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value is reached by the worker between `enter` and `leave` and by the owner while the seat is closed
// and nobody inside; never by both, so it is sent to and fro, and not shared.
unsafe impl<T: Send> Sync for Seat<T> {}

/// The side that gives and takes. There is one for each seat.
pub struct Owner<T>(Arc<Seat<T>>);

/// The side that works. There is one for each seat.
pub struct Occupant<T> {
    seat: Arc<Seat<T>>,
    inside: bool,
}

/// An empty seat.
pub fn seat<T>() -> (Owner<T>, Occupant<T>) {
    let seat = Arc::new(Seat {
        inside: CachePadded::new(AtomicBool::new(false)),
        open: CachePadded::new(AtomicBool::new(false)),
        value: UnsafeCell::new(None),
    });
    (Owner(seat.clone()), Occupant { seat, inside: false })
}

impl<T> Owner<T> {
    /// Gives the worker a value, from its next burst on. What was there before comes back.
    pub fn put(&mut self, value: T) -> Option<T> {
        let before = self.take();
        // SAFETY: `take` has closed the seat, and nobody is inside.
        unsafe { *self.0.value.get() = Some(value) };
        self.0.open.store(true, Ordering::SeqCst);
        before
    }

    /// Takes the value away; the worker is done with it.
    pub fn take(&mut self) -> Option<T> {
        self.0.open.store(false, Ordering::SeqCst);
        let mut looks = 0u32;
        while self.0.inside.load(Ordering::SeqCst) {
            looks += 1;
            if looks < SPINS {
                std::hint::spin_loop();
            } else {
                // The worker was interrupted in the middle of a burst.
                std::thread::sleep(Duration::from_micros(20));
            }
        }
        // SAFETY: closed, and nobody is inside: whoever enters from now on finds it closed and leaves at once.
        unsafe { (*self.0.value.get()).take() }
    }
}

impl<T> Occupant<T> {
    /// Begins a burst. `None` if there is nothing to work with. Until [`leave`](Self::leave) the value stays.
    #[inline]
    pub fn enter(&mut self) -> Option<&mut T> {
        if !self.inside {
            if !self.seat.open.load(Ordering::Relaxed) {
                return None;
            }
            self.seat.inside.store(true, Ordering::SeqCst);
            self.inside = true;
            if !self.seat.open.load(Ordering::SeqCst) {
                self.leave();
                return None;
            }
        }
        // SAFETY: inside and open, so the owner waits before it touches the value.
        unsafe { (*self.seat.value.get()).as_mut() }
    }

    /// Ends the burst.
    #[inline]
    pub fn leave(&mut self) {
        if self.inside {
            self.inside = false;
            self.seat.inside.store(false, Ordering::Release);
        }
    }

    /// The value, within a burst.
    #[inline]
    pub fn current(&mut self) -> Option<&mut T> {
        // SAFETY: as in `enter`; `inside` says that the burst has not ended.
        if self.inside { unsafe { (*self.seat.value.get()).as_mut() } } else { None }
    }
}

impl<T> Drop for Occupant<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn what_is_put_can_be_used_and_taken() {
        let (mut owner, mut occupant) = seat();
        assert_eq!((occupant.enter(), owner.take()), (None, None));
        assert_eq!(owner.put(1), None);
        *occupant.enter().unwrap() += 1;
        assert_eq!(occupant.current(), Some(&mut 2));
        occupant.leave();
        assert_eq!((occupant.current(), owner.put(5)), (None, Some(2)));
        assert_eq!((owner.take(), occupant.enter()), (Some(5), None));
    }

    #[test]
    fn a_worker_that_goes_away_holds_nobody_up() {
        let (mut owner, mut occupant) = seat();
        owner.put(1);
        occupant.enter().unwrap();
        drop(occupant);
        assert_eq!(owner.take(), Some(1));
    }

    #[test]
    fn giving_and_taking_under_work_loses_nothing() {
        let (mut owner, mut occupant) = seat();
        let (done, worked) = (AtomicBool::new(false), AtomicU64::new(0));
        let total = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // Two values that nobody ever sees unequal.
                    if let Some((a, b)) = occupant.enter() {
                        *a += 1u64;
                        assert_eq!(*a, *b + 1);
                        *b += 1u64;
                        worked.fetch_add(1, Ordering::Relaxed);
                    }
                    occupant.leave();
                }
            });
            let mut value = (0, 0);
            let (mut round, begun) = (0, std::time::Instant::now());
            while (round < 20_000 || worked.load(Ordering::Relaxed) < 1000)
                && begun.elapsed() < Duration::from_secs(20)
            {
                owner.put(value);
                value = owner.take().unwrap();
                assert_eq!(value.0, value.1);
                round += 1;
            }
            done.store(true, Ordering::Relaxed);
            value.0
        });
        assert_eq!(total, worked.load(Ordering::Relaxed));
        assert!(total >= 1000, "the worker hardly ever worked: {total}");
    }
}
