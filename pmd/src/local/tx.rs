//! Sending to the control thread. Each worker may have a queue; all lead into one lane.

use std::sync::Arc;

use super::{Bell, Lane};
use crate::gather::Burst;
use crate::pool::Pool;
use crate::port::{TxQueue, TxReport};

pub(super) struct Tx {
    lane: Arc<Lane>,
    bell: Bell,
}

impl Tx {
    pub(super) fn new(lane: Arc<Lane>, bell: Bell) -> Tx {
        Tx { lane, bell }
    }
}

impl TxQueue for Tx {
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, _pool: &mut Pool) -> TxReport {
        let mut report = TxReport::default();
        if self.lane.is_closed() {
            report.down = burst.len() as u32;
            return report;
        }
        for i in 0..burst.len() {
            let total = burst.item(i).total();
            if total > self.lane.frame_max {
                report.refused += 1;
                continue;
            }
            let sent = self.lane.put(|bytes| {
                bytes.resize(total, 0);
                let copied = burst.copy_to(i, bytes).unwrap_or(0);
                bytes.truncate(copied);
            });
            if sent {
                report.sent += 1;
                report.bytes += total as u64;
            } else {
                report.full += 1;
            }
        }
        if report.sent > 0 {
            self.bell.ring();
        }
        report
    }
}
