//! The source.

use std::time::Instant;

use super::pace::Pace;
use super::timer::Timer;
use crate::arena::HEADROOM;
use crate::batch::{BATCH, Batch, RxMemory};
use crate::offload::Offload;
use crate::pool::Pool;
use crate::port::{Fault, RxQueue, Source};

/// Local Experimental EtherType 1.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Where the number lies in a frame, right behind the Ethernet header.
const NUMBER: usize = 14;

pub(super) struct Rx {
    timer: Timer,
    pace: Pace,
    began: Instant,
    frame: Box<[u8]>,
    number: u64,
}

impl Rx {
    pub(super) fn new(timer: Timer, rate: u64, size: usize, mac: [u8; 6]) -> Rx {
        let mut destination = mac;
        destination[1] ^= 0xff;
        let mut frame = vec![0; size].into_boxed_slice();
        frame[..6].copy_from_slice(&destination);
        frame[6..12].copy_from_slice(&mac);
        frame[12..NUMBER].copy_from_slice(&ETHERTYPE);
        Rx { timer, pace: Pace::new(rate), began: Instant::now(), frame, number: 0 }
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

impl RxQueue for Rx {
    fn source(&self) -> Source<'_> {
        Source::Ring(self.timer.descriptor())
    }

    fn receive<'q>(
        &'q mut self,
        memory: &'q mut RxMemory,
        _pool: &mut Pool,
        limit: usize,
    ) -> Result<Batch<'q>, Fault> {
        let (mut batch, mut scratch) = memory.lend();
        let due = self.pace.due(self.now_ns()).min(limit.min(BATCH) as u64);
        while (batch.len() as u64) < due && scratch.rest().len() >= HEADROOM + self.frame.len() {
            let private = scratch.take(HEADROOM + self.frame.len());
            let frame = &mut private[HEADROOM..];
            frame.copy_from_slice(&self.frame);
            frame[NUMBER..NUMBER + 8].copy_from_slice(&self.number.to_be_bytes());
            self.number += 1;
            batch.push_private(private, HEADROOM, Offload::NONE);
        }
        self.pace.make(batch.len() as u64);
        Ok(batch)
    }

    fn arm(&mut self) -> bool {
        let wait = self.pace.next_ns().saturating_sub(self.now_ns());
        // A timer that cannot be set is as good as frames that are there: the worker stays awake.
        wait == 0 || !self.timer.set(wait)
    }
}
