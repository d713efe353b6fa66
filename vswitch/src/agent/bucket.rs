//! A token bucket: so many at once, so many a second, and no more.

/// Allows `rate` events a second, and `rate / 8` at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// Nanoseconds that one event costs.
    cost_ns: u64,
    /// What was saved up at most.
    depth_ns: u64,
    /// The time up to which everything is spent.
    spent_ns: u64,
}

impl Bucket {
    /// A full bucket.
    pub(super) const fn new(rate: u64) -> Bucket {
        Bucket { cost_ns: 1_000_000_000 / rate, depth_ns: 1_000_000_000 / 8, spent_ns: 0 }
    }

    /// Whether one more is allowed now.
    pub(super) fn take(&mut self, now_ns: u64) -> bool {
        let from = self.spent_ns.max(now_ns.saturating_sub(self.depth_ns));
        let allowed = from + self.cost_ns <= now_ns;
        if allowed {
            self.spent_ns = from + self.cost_ns;
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
        let mut bucket = Bucket::new(1000);
        let passed = |bucket: &mut Bucket, now| (0..10_000).filter(|_| bucket.take(now)).count();
        assert_eq!(passed(&mut bucket, second), 125);
        assert_eq!(passed(&mut bucket, second), 0);
        assert_eq!(passed(&mut bucket, second + second / 100), 10);
        assert_eq!(passed(&mut bucket, 100 * second), 125, "what is saved up is bounded");
    }
}
