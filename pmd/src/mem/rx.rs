//! Receiving from a `mem` port.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Lending, Line, Packet, Wire};
use crate::arena::HEADROOM;
use crate::batch::{BATCH, Batch, RxMemory};
use crate::pool::Pool;
use crate::port::{Fault, RxQueue, Source};

pub(super) struct Rx {
    lending: Lending,
    wire: Arc<Wire>,
    unplugged: Arc<AtomicBool>,
    /// What the last burst lent.
    lent: Vec<Packet>,
}

impl Rx {
    pub(super) fn new(lending: Lending, wire: Arc<Wire>, unplugged: Arc<AtomicBool>) -> Rx {
        Rx { lending, wire, unplugged, lent: Vec::with_capacity(BATCH) }
    }

    fn lend<'q>(&mut self, memory: &'q mut RxMemory, head: usize, limit: usize) -> Batch<'q> {
        let (mut batch, mut scratch) = memory.lend();
        let mut queue = self.wire.lock();
        let count = queue.parcels.len().min(limit).min(BATCH);
        self.lent.extend(queue.take(count));
        for packet in &self.lent {
            let data = packet.first.data();
            let split = head.min(data.len());
            let private = scratch.take(HEADROOM + split);
            private[HEADROOM..].copy_from_slice(&data[..split]);
            batch.push_private(private, HEADROOM, packet.offload.unpack());
            for bytes in std::iter::once(&data[split..]).chain(packet.rest.iter().map(|buffer| buffer.data()))
            {
                // SAFETY: `self.lent` keeps the buffers until `release`, which the borrow of the batch
                // keeps from being called while the batch lives.
                unsafe { batch.append_foreign(NonNull::from(bytes).cast(), bytes.len() as u32) };
            }
        }
        batch
    }
}

impl RxQueue for Rx {
    fn source(&self) -> Source<'_> {
        Source::Polled
    }

    fn receive<'q>(
        &'q mut self,
        memory: &'q mut RxMemory,
        pool: &mut Pool,
        limit: usize,
    ) -> Result<Batch<'q>, Fault> {
        self.release(pool);
        if self.unplugged.load(Ordering::Relaxed) {
            return Err(Fault::new("unplugged"));
        }
        if let Lending::Lent { head } = self.lending {
            return Ok(self.lend(memory, head, limit));
        }
        let (mut batch, _) = memory.lend();
        let mut queue = self.wire.lock();
        let Line { parcels, rest } = &mut *queue;
        let count = parcels.len().min(limit).min(BATCH);
        if rest.is_empty() {
            batch.push_buffers(parcels.drain(..count).map(|parcel| (parcel.first, parcel.offload)));
            return Ok(batch);
        }
        for parcel in parcels.drain(..count) {
            batch.push_buffer(parcel.first, parcel.offload);
            if parcel.rest > 0 {
                rest.drain(..parcel.rest as usize).for_each(|buffer| batch.append_buffer(buffer));
            }
        }
        Ok(batch)
    }

    fn release(&mut self, pool: &mut Pool) {
        for packet in self.lent.drain(..) {
            pool.put(packet.first);
            packet.rest.into_iter().for_each(|buffer| pool.put(buffer));
        }
    }

    fn arm(&mut self) -> bool {
        !self.wire.lock().parcels.is_empty()
    }
}
