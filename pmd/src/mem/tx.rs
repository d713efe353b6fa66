//! Sending to a `mem` port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Line, Parcel, Wire};
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

    /// Sends a frame that has to be copied, or that lies in several buffers; false if there are none.
    #[inline(never)] // keeps the loop over single buffers short
    fn send_chain(&mut self, burst: &mut Burst<'_, '_>, i: usize, pool: &mut Pool, line: &mut Line) -> bool {
        let offload = burst.packed_offload(i);
        let taken = self.owned && burst.take(i, pool, &mut self.chain);
        if !taken && !burst.copy_to_buffers(i, pool, &mut self.chain) {
            return false;
        }
        let rest = self.chain.len() as u32 - 1;
        let mut buffers = self.chain.drain(..);
        if let Some(first) = buffers.next() {
            line.parcels.push_back(Parcel { first, offload, rest });
        }
        line.rest.extend(buffers);
        true
    }
}

impl TxQueue for Tx {
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, pool: &mut Pool) -> TxReport {
        let mut report = TxReport::default();
        if self.unplugged.load(Ordering::Relaxed) {
            report.down = burst.len() as u32;
            return report;
        }
        let wire = self.wire.clone();
        let mut line = wire.lock();
        for i in 0..burst.len() {
            if line.parcels.len() >= wire.capacity {
                report.full = (burst.len() - i) as u32;
                break;
            }
            if self.owned
                && let Some((first, offload)) = burst.take_single(i, pool)
            {
                report.bytes += first.len() as u64;
                line.parcels.push_back(Parcel { first, offload, rest: 0 });
            } else {
                let bytes = burst.item(i).total() as u64;
                if !self.send_chain(burst, i, pool, &mut line) {
                    report.no_frame += 1;
                    continue;
                }
                report.bytes += bytes;
            }
            report.sent += 1;
        }
        report
    }
}
