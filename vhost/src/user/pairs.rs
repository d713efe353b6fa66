//! Queue pairs: which rings run, and how a burst finds a pair that the guest has enabled.
//!
//! Each worker has a tx queue of its own on the port, and with it a pair, if there are so many; the guest enables and
//! disables pairs as it likes. What a worker has for a pair that is not enabled goes to one that is, which another
//! worker may be using: hence a lock for each ring, taken once a burst. What a worker has put into a ring is shown when
//! it has released the frames and all that lie before them are released, too. A port with one pair and one worker has
//! none of this.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pmd::{Burst, Pool, TxQueue, TxReport};

use crate::ring::tx::Tx;

/// Most queue pairs of a port.
pub const PAIRS: u16 = 8;

/// Which rings are with a worker: a bit for each, in the order of Virtual I/O Device 1.2, section 5.1.2 (the guest's
/// receive queue, its transmit queue, the next pair's). Written by the session, before it takes a ring and after
/// it has given one.
#[derive(Debug, Default)]
pub(super) struct Running(AtomicU32);

impl Running {
    pub(super) fn set(&self, ring: usize, runs: bool) {
        match runs {
            true => self.0.fetch_or(1 << ring, Ordering::Release),
            false => self.0.fetch_and(!(1 << ring), Ordering::Release),
        };
    }

    /// How many pairs run in both directions.
    pub(super) fn pairs(&self) -> u32 {
        let rings = self.0.load(Ordering::Acquire);
        (0..PAIRS).map(|pair| u32::from(rings >> (2 * pair) & 0b11 == 0b11)).sum()
    }

    /// Whether a ring runs.
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// The pairs that the guest receives on, in the order in which the worker with pair `own` tries them: its own,
    /// or else one of those that run, so that workers without one are spread over them.
    fn order(&self, own: usize) -> impl Iterator<Item = usize> {
        let rings = self.0.load(Ordering::Acquire);
        let all = 0..usize::from(PAIRS);
        let runs = move |pair: &usize| *pair < usize::from(PAIRS) && rings >> (2 * pair) & 1 != 0;
        let others = all.clone().filter(runs).count().max(1);
        let first = if runs(&own) { own } else { all.clone().filter(runs).nth(own % others).unwrap_or(own) };
        (first..all.end).chain(0..first).filter(runs)
    }
}

/// The tx queue of one worker.
pub(super) struct PairTx {
    rings: Arc<[Mutex<Tx>]>,
    running: Arc<Running>,
    own: usize,
    /// The pairs that were sent to and not flushed: a bit for each.
    sent: u8,
}

impl PairTx {
    /// A queue for each of `workers`.
    pub(super) fn over(rings: Vec<Tx>, running: &Arc<Running>, workers: usize) -> Vec<PairTx> {
        let rings: Arc<[Mutex<Tx>]> = rings.into_iter().map(Mutex::new).collect();
        let queue = |own| PairTx { rings: rings.clone(), running: running.clone(), own, sent: 0 };
        (0..workers.max(1)).map(queue).collect()
    }

    fn ring(&self, pair: usize) -> MutexGuard<'_, Tx> {
        self.rings[pair].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TxQueue for PairTx {
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, _pool: &mut Pool) -> TxReport {
        let frames = burst.len() as u32;
        let mut report = TxReport { down: frames, ..TxReport::default() };
        for pair in self.running.order(self.own) {
            report = self.ring(pair).send(burst, Some(self.own as u16));
            // Taken away since the order was made, perhaps: nothing was sent, the next one may be there.
            if report.down < frames {
                self.sent |= 1 << pair;
                break;
            }
        }
        report
    }

    fn flush(&mut self) {
        while self.sent != 0 {
            let pair = self.sent.trailing_zeros() as usize;
            self.ring(pair).show(Some(self.own as u16));
            self.sent &= self.sent - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_uses_its_own_pair_or_shares_those_that_run() {
        let running = Running::default();
        assert_eq!((running.order(3).count(), running.pairs()), (0, 0));
        for ring in [0, 1, 2, 3, 5, 6] {
            running.set(ring, true);
        }
        // The guest receives on pairs 0, 1 and 3, and transmits on 0, 1 and 2.
        assert_eq!(running.pairs(), 2);
        let order = |own| running.order(own).collect::<Vec<_>>();
        assert_eq!((order(0), order(1), order(3)), (vec![0, 1, 3], vec![1, 3, 0], vec![3, 0, 1]));
        assert_eq!((order(2), order(4), order(6)), (vec![3, 0, 1], vec![1, 3, 0], vec![0, 1, 3]));
        running.set(2, false);
        assert_eq!((order(1), running.pairs()), (vec![3, 0], 1));
    }
}
