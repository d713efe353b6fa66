//! A count with a limit, shared by all threads and exact: what is taken is given back once.

use std::sync::atomic::{AtomicU32, Ordering};

/// A count that never passes its limit.
#[derive(Debug)]
pub(super) struct Quota {
    count: AtomicU32,
    limit: AtomicU32,
}

impl Quota {
    pub(super) fn new(limit: u32) -> Quota {
        Quota { count: AtomicU32::new(0), limit: AtomicU32::new(limit) }
    }

    pub(super) fn take(&self) -> bool {
        let limit = self.limit();
        let more = |count: u32| (count < limit).then(|| count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn is_full(&self) -> bool {
        self.count() >= self.limit()
    }

    pub(super) fn give(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }
}
