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

    /// Sends a frame that has to be copied, or that lies in several buffers; gives its bytes, or `None` if there
    /// are no buffers.
    #[inline(never)] // keeps the loop over single buffers short
    fn send_chain(
        &mut self,
        burst: &mut Burst<'_, '_>,
        i: usize,
        pool: &mut Pool,
        line: &mut Line,
    ) -> Option<u64> {
        let (offload, bytes) = (burst.packed_offload(i), burst.item(i).total() as u64);
        let taken = self.owned && burst.take(i, pool, &mut self.chain);
        if !taken && !burst.copy_to_buffers(i, pool, &mut self.chain) {
            return None;
        }
        let rest = self.chain.len() as u32 - 1;
        let mut buffers = self.chain.drain(..);
        if let Some(first) = buffers.next() {
            line.parcels.push(Parcel { first, offload, rest });
        }
        line.rest.extend(buffers);
        Some(bytes)
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
        let (mut i, count) = (0, burst.len());
        while i < count {
            let room = wire.capacity.saturating_sub(line.parcels.len());
            let end = count.min(i + room);
            if self.owned {
                let (parcels, mut bytes) = (&mut line.parcels, 0);
                let taken = burst.take_singles(i..end, pool, |first, offload| {
                    bytes += first.len() as u64;
                    parcels.push(Parcel { first, offload, rest: 0 });
                });
                report.sent += taken as u32;
                report.bytes += bytes;
                i += taken;
            }
            if i == end {
                report.full = (count - end) as u32;
                break;
            }
            match self.send_chain(burst, i, pool, &mut line) {
                Some(bytes) => {
                    report.sent += 1;
                    report.bytes += bytes;
                }
                None => report.no_frame += 1,
            }
            i += 1;
        }
        report
    }
}
