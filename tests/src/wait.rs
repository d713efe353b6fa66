//! Waiting for something to become true, with a deadline and a reason that reads well when it does not.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what should happen at once. Generous, because two cores may be busy with other
/// tests; only a failing test ever waits this long.
pub const SOON: Duration = Duration::from_secs(10);

/// What comes back within this time of a change counts as back at once: a second, and one for a machine whose two
/// cores are busy with other tests.
pub const BACK: Duration = Duration::from_secs(2);

/// How long between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Calls `condition` until it is true.
///
/// # Panics
/// With `what` when it is still false after `deadline`.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, deadline, || condition().then_some(()));
}

/// Calls `attempt` until it gives a value, and returns that.
///
/// # Panics
/// With `what` when there is none after `deadline`.
pub fn wait_for<T>(what: &str, deadline: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain for: {what}");
        thread::sleep(PAUSE);
    }
}

/// Calls `condition` until it is true; whether that was before the deadline.
pub fn comes_true(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() >= deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}
