//! The pace of a source: how many frames are due at a time.

use crate::batch::BATCH;

const SECOND: u128 = 1_000_000_000;

/// Counts frames against a clock that is passed in, in nanoseconds since the source began.
#[derive(Debug)]
pub(super) struct Pace {
    rate: u64,
    made: u64,
}

impl Pace {
    pub(super) fn new(rate: u64) -> Pace {
        Pace { rate: rate.max(1), made: 0 }
    }

    /// Frames that are due. Of what was missed more than 10 ms (or a batch) ago nothing is made up for:
    /// a source that was held up goes on at its rate and not with a burst.
    #[inline]
    pub(super) fn due(&mut self, now_ns: u64) -> u64 {
        let total = (u128::from(now_ns) * u128::from(self.rate) / SECOND) as u64;
        let most = (self.rate / 100).max(BATCH as u64);
        self.made = self.made.max(total.saturating_sub(most));
        total.saturating_sub(self.made)
    }

    /// Says that `count` frames were made.
    #[inline]
    pub(super) fn make(&mut self, count: u64) {
        self.made += count;
    }

    /// When the next frame is due.
    pub(super) fn next_ns(&self) -> u64 {
        ((u128::from(self.made) + 1) * SECOND).div_ceil(u128::from(self.rate)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_frame_comes_early_and_none_is_forgotten() {
        for rate in [1, 3, 64, 999, 1_000_000, 999_999_937] {
            let (mut pace, mut made) = (Pace::new(rate), 0);
            while made < 1000 {
                let next = pace.next_ns();
                assert_eq!(pace.due(next - 1), 0, "rate {rate}");
                let due = pace.due(next);
                assert!(due >= 1, "rate {rate}");
                pace.make(due);
                made += due;
            }
            // The next frame, number made + 1, is due when as many periods are over.
            let exact = u128::from(made + 1) * SECOND / u128::from(rate);
            assert!(u128::from(pace.next_ns()) - exact <= 1, "rate {rate}");
        }
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let mut pace = Pace::new(1_000_000);
        assert_eq!(pace.due(3_600_000_000_000), 10_000);
        pace.make(10_000);
        assert_eq!(pace.due(3_600_000_000_000), 0);
        assert_eq!(pace.due(3_600_000_005_000), 5);
        let mut slow = Pace::new(10);
        assert_eq!(slow.due(3_600_000_000_000), BATCH as u64);
    }
}
