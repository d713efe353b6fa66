//! Sending to a `mem` port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Packet, Wire};
use crate::arena::Buffer;
use crate::gather::Burst;
use crate::pool::Pool;
use crate::port::{TxQueue, TxReport};

pub(super) struct Tx {
    /// Whether arena buffers may be taken instead of copied.
    owned: bool,
    wire: Arc<Wire>,
    unplugged: Arc<AtomicBool>,
    chain: Vec<Buffer>,
}

impl Tx {
    pub(super) fn new(owned: bool, wire: Arc<Wire>, unplugged: Arc<AtomicBool>) -> Tx {
        Tx { owned, wire, unplugged, chain: Vec::with_capacity(32) }
    }
}

impl TxQueue for Tx {
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, pool: &mut Pool) -> TxReport {
        let mut report = TxReport::default();
        if self.unplugged.load(Ordering::Relaxed) {
            report.down = burst.len() as u32;
            return report;
        }
        let mut queue = self.wire.lock();
        for i in 0..burst.len() {
            if queue.len() >= self.wire.capacity {
                report.full = (burst.len() - i) as u32;
                break;
            }
            let offload = burst.offload(i);
            let bytes = burst.item(i).total() as u64;
            let taken = self.owned && burst.take(i, pool, &mut self.chain);
            if !taken && !burst.copy_to_buffers(i, pool, &mut self.chain) {
                report.no_frame += 1;
                continue;
            }
            let mut buffers = self.chain.drain(..);
            if let Some(first) = buffers.next() {
                queue.push_back(Packet { first, rest: buffers.collect(), offload });
                report.sent += 1;
                report.bytes += bytes;
            }
        }
        report
    }
}
