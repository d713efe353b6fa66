//! A token bucket: so many at once, so many a second, and no more.
//!
//! Whatever the switch writes of its own goes through one: the agent's answers, and what workers write to a port.

/// Allows so many events a second, and some at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// Nanoseconds that one event costs.
    cost_ns: u64,
    /// What is saved up at most.
    depth_ns: u64,
    /// The time at which it is full again, less its depth.
    spent_ns: u64,
}

impl Bucket {
    /// A full bucket, of `rate` events a second and `burst` at once.
    pub(crate) const fn new(rate: u64, burst: u64) -> Bucket {
        let cost_ns = 1_000_000_000 / rate;
        Bucket { cost_ns, depth_ns: cost_ns * burst, spent_ns: 0 }
    }

    /// Whether one more is allowed now.
    pub(crate) fn take(&mut self, now_ns: u64) -> bool {
        let spent = self.spent_ns.max(now_ns) + self.cost_ns;
        let allowed = spent <= now_ns + self.depth_ns;
        if allowed {
            self.spent_ns = spent;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let second = 1_000_000_000;
        let mut bucket = Bucket::new(1000, 125);
        let passed = |bucket: &mut Bucket, now| (0..10_000).filter(|_| bucket.take(now)).count();
        assert_eq!(passed(&mut bucket, 0), 125, "it is full from the first moment on");
        assert_eq!(passed(&mut bucket, second), 125);
        assert_eq!(passed(&mut bucket, second), 0);
        assert_eq!(passed(&mut bucket, second + second / 100), 10);
        assert_eq!(passed(&mut bucket, 100 * second), 125, "what is saved up is bounded");
    }
}
