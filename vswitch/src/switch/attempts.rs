//! Attempts to open ports that are down, each on a thread of its own.
//!
//! Opening asks the kernel, and the kernel can take its time: a device that is going, a file on a disk that
//! is gone. So nobody waits for it and nothing is locked meanwhile: the keeper begins an attempt, and takes its
//! outcome in a later round. By then the port may be gone from the desired state, or be another; whoever takes
//! the outcome has to look.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use control::schema::{self, PortName};
use pmd::{Fate, Port};

use super::ports::Opening;

/// Attempts at a time; more ports than this that hang keep the others from coming back.
const MOST: usize = 32;

/// How long somebody waits for an attempt that is in his way; hardly any takes longer, and one that hangs may
/// take for ever.
pub const GRACE: Duration = Duration::from_secs(1);

/// How long after a failure a port is tried again. The wait doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// The longest wait for an uplink: there are few, and all that is behind its tunnels is away as long.
const UPLINK_WAIT: Duration = Duration::from_millis(200);

/// How long a port is left alone at most, however often it could not be opened.
pub fn longest_wait(config: &schema::Port) -> Duration {
    if config.bridge.is_none() { UPLINK_WAIT } else { LAST_WAIT }
}

/// What an attempt came to.
pub struct Attempt {
    /// The port as it was configured.
    pub config: schema::Port,
    /// Open, or why not.
    pub outcome: Result<Box<dyn Port>, String>,
}

/// The attempts under way.
pub struct Attempts {
    under_way: HashMap<PortName, schema::Port>,
    report: Sender<Attempt>,
    outcomes: Receiver<Attempt>,
}

impl Attempts {
    /// None.
    pub fn new() -> Attempts {
        let (report, outcomes) = channel();
        Attempts { under_way: HashMap::new(), report, outcomes }
    }

    /// Begins to open a port, if it is not being opened already and a thread can be had for it.
    pub fn begin(&mut self, config: &schema::Port, open: Opening) {
        if self.under_way.len() >= MOST || self.is_under_way(&config.name) {
            return;
        }
        let (report, attempted) = (self.report.clone(), config.clone());
        let attempt = move || {
            let outcome = open(&attempted);
            // Nobody listens only when the switch has ended meanwhile.
            if let Err(unheard) = report.send(Attempt { config: attempted, outcome })
                && let Ok(port) = unheard.0.outcome
            {
                let _ = port.close(Fate::Leave);
            }
        };
        if std::thread::Builder::new().name("reopen".into()).spawn(attempt).is_ok() {
            self.under_way.insert(config.name.clone(), config.clone());
        }
    }

    /// Whether a port is being opened.
    pub fn is_under_way(&self, name: &PortName) -> bool {
        self.under_way.contains_key(name)
    }

    /// The outcome of an attempt that has ended; waits for it until `deadline` while one is under way that
    /// `matters`.
    pub fn next(&mut self, matters: impl Fn(&schema::Port) -> bool, deadline: Instant) -> Option<Attempt> {
        let wait = match self.under_way.values().any(matters) {
            true => deadline.saturating_duration_since(Instant::now()),
            false => Duration::ZERO,
        };
        let attempt = self.outcomes.recv_timeout(wait).ok()?;
        self.under_way.remove(&attempt.config.name);
        Some(attempt)
    }
}

/// When a port that is down is tried again: at once, then more and more rarely.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    wait: Duration,
    due_ns: u64,
}

impl Backoff {
    /// Whether it is time.
    pub fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.due_ns
    }

    /// It could not be opened, or worked and does not any more. A failure long after the last is a new one; others
    /// make the wait longer, up to the `longest`.
    pub fn failed(&mut self, now_ns: u64, longest: Duration) {
        let is_new = now_ns.saturating_sub(self.due_ns) > LAST_WAIT.as_nanos() as u64;
        let wait = if is_new { FIRST_WAIT } else { (2 * self.wait).max(FIRST_WAIT) };
        self.wait = wait.min(longest);
        self.due_ns = now_ns + self.wait.as_nanos() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_stays_down_is_tried_more_and_more_rarely() {
        let mut backoff = Backoff::default();
        let mut now_ns = 7;
        assert!(backoff.is_due(now_ns), "at once");
        for wait_ms in [500, 1000, 2000, 4000, 5000, 5000] {
            backoff.failed(now_ns, LAST_WAIT);
            now_ns += wait_ms * 1_000_000;
            assert!(!backoff.is_due(now_ns - 1) && backoff.is_due(now_ns), "{wait_ms} ms");
        }
        // It works for a while: what happened before is forgotten.
        now_ns += LAST_WAIT.as_nanos() as u64 + 1;
        let mut uplink = backoff;
        backoff.failed(now_ns, LAST_WAIT);
        assert!(backoff.is_due(now_ns + 500_000_000));
        for _ in 0..2 {
            uplink.failed(now_ns, UPLINK_WAIT);
            assert!(!uplink.is_due(now_ns + 199_000_000) && uplink.is_due(now_ns + 200_000_000));
        }
    }
}
