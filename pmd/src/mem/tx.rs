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

    /// The buffers of a frame that is copied, or that lies in several. Apart, to keep the loop of single ones
    /// short.
    #[inline(never)]
    fn chain(
        &mut self,
        burst: &mut Burst<'_, '_>,
        i: usize,
        pool: &mut Pool,
    ) -> Option<(Buffer, Vec<Buffer>)> {
        let taken = self.owned && burst.take(i, pool, &mut self.chain);
        if !taken && !burst.copy_to_buffers(i, pool, &mut self.chain) {
            return None;
        }
        let mut buffers = self.chain.drain(..);
        // Collecting nothing allocates nothing.
        buffers.next().map(|first| (first, buffers.collect()))
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
        let mut queue = wire.lock();
        for i in 0..burst.len() {
            if queue.len() >= wire.capacity {
                report.full = (burst.len() - i) as u32;
                break;
            }
            let offload = burst.packed_offload(i);
            let bytes = burst.item(i).total() as u64;
            let single = if self.owned { burst.take_single(i, pool) } else { None };
            let (first, rest) = match single.map(|first| (first, Vec::new())) {
                Some(single) => single,
                None => match self.chain(burst, i, pool) {
                    Some(chain) => chain,
                    None => {
                        report.no_frame += 1;
                        continue;
                    }
                },
            };
            queue.push_back(Packet { first, rest, offload });
            report.sent += 1;
            report.bytes += bytes;
        }
        report
    }
}
