//! Receiving what the control thread says.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Bell, Lane};
use crate::arena::HEADROOM;
use crate::batch::{Batch, RxMemory};
use crate::offload::Offload;
use crate::pool::Pool;
use crate::port::{Fault, RxQueue, Source};

pub(super) struct Rx {
    lane: Arc<Lane>,
    bell: Bell,
}

impl Rx {
    pub(super) fn new(lane: Arc<Lane>, bell: Bell) -> Rx {
        Rx { lane, bell }
    }
}

impl RxQueue for Rx {
    fn source(&self) -> Source<'_> {
        Source::Ring(self.bell.descriptor())
    }

    fn receive<'q>(
        &'q mut self,
        memory: &'q mut RxMemory,
        _pool: &mut Pool,
        limit: usize,
    ) -> Result<Batch<'q>, Fault> {
        let (mut batch, mut scratch) = memory.lend();
        // Asked every turn, and nearly always empty, which this look finds out for less than a pop does.
        if self.lane.full.is_empty() {
            return Ok(batch);
        }
        while batch.len() < limit
            && !batch.is_full()
            && scratch.rest().len() >= HEADROOM + self.lane.frame_max
            && self.lane.take(|bytes| {
                let private = scratch.take(HEADROOM + bytes.len());
                private[HEADROOM..].copy_from_slice(bytes);
                batch.push_private(private, HEADROOM, Offload::NONE);
            })
        {}
        Ok(batch)
    }

    fn arm(&mut self) -> bool {
        self.bell.arm(|| !self.lane.full.is_empty())
    }

    fn missed(&self) -> u64 {
        self.lane.missed.load(Ordering::Relaxed)
    }
}

impl Drop for Rx {
    fn drop(&mut self) {
        self.lane.closed.store(true, Ordering::Relaxed);
    }
}
