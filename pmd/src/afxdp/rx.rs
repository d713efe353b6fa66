//! Receiving: rx descriptors become arena buffers that we own, and the fill ring gets others in their place.
//!
//! Built from an adopted or a freshly opened socket alone. No system call a frame; one a burst at most, and only
//! where a zero-copy driver asks to be woken.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::lent::Lent;
use super::partial::partial_checksum;
use super::ring::{Consumer, Descriptor, Producer};
use super::shared::Shared;
use super::socket::kick_rx;
use crate::arena::{Buffer, FRAME_SIZE};
use crate::batch::{BATCH, Batch, RxMemory};
use crate::offload::Offload;
use crate::pool::Pool;
use crate::port::{Fault, RxQueue, Source};

/// Fewer free slots than this in the fill ring are left for the next burst: one index write for many frames.
const REFILL: u32 = 32;

pub(super) struct Rx {
    rx: Consumer<Descriptor>,
    fill: Producer<u64>,
    /// In the fill ring, in the driver, or in the rx ring.
    lent: Lent,
    /// The other end is a kernel on this machine, which leaves checksums to us.
    local_peer: bool,
    gone: bool,
    /// After the rings: a mapped ring keeps the socket open, and the last one to let go of it waits for its end.
    shared: Arc<Shared>,
}

impl Rx {
    pub(super) fn new(
        shared: Arc<Shared>,
        rx: Consumer<Descriptor>,
        fill: Producer<u64>,
        lent: Lent,
        local_peer: bool,
    ) -> Rx {
        Rx { shared, rx, fill, lent, local_peer, gone: false }
    }

    /// Keeps the fill ring full, as far as the pool has frames.
    #[inline]
    fn refill(&mut self, pool: &mut Pool) {
        let missing = self.fill.size() - self.lent.count().min(self.fill.size());
        if missing < REFILL {
            return;
        }
        let room = self.fill.free(missing).min(missing);
        let mut pushed = 0;
        while pushed < room
            && let Some(buffer) = pool.get()
        {
            // The chunk's own address: the kernel adds its headroom.
            let address = self.lent.lend(buffer) & !(FRAME_SIZE as u64 - 1);
            self.fill.push(address);
            pushed += 1;
        }
        if pushed > 0 {
            self.fill.submit();
            self.wake();
        }
    }

    /// Wakes a driver that ran out of chunks and waits to be told of new ones.
    fn wake(&mut self) {
        if self.fill.needs_wakeup()
            && let Err(error) = kick_rx(self.shared.fd())
        {
            // Not bound any more, as the device was unregistered; a device that is only down says otherwise.
            self.gone |= matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV));
        }
    }

    /// How many descriptors the next frame has; `None` if it is not all there.
    #[inline]
    fn parts(&mut self) -> Option<u32> {
        let mut parts = 0;
        loop {
            let descriptor = self.rx.peek(parts)?;
            parts += 1;
            if descriptor.options & libc::XDP_PKT_CONTD == 0 {
                return Some(parts);
            }
        }
    }

    #[inline]
    fn buffer(&mut self) -> Result<Buffer, Fault> {
        let descriptor = self.rx.pop().ok_or_else(|| Fault::new("rx ring: a frame without its end"))?;
        let mut buffer = self
            .lent
            .take_back(descriptor.addr)
            .ok_or_else(|| Fault::new("rx ring: the kernel named a frame that it was not lent"))?;
        buffer.set_data(descriptor.addr as usize % FRAME_SIZE, descriptor.len as usize);
        Ok(buffer)
    }
}

impl RxQueue for Rx {
    fn source(&self) -> Source<'_> {
        Source::Ring(self.shared.fd())
    }

    fn receive<'q>(
        &'q mut self,
        memory: &'q mut RxMemory,
        pool: &mut Pool,
        limit: usize,
    ) -> Result<Batch<'q>, Fault> {
        if self.gone {
            return Err(Fault::new("AF_XDP socket: the device is gone"));
        }
        let (mut batch, _) = memory.lend();
        let limit = limit.min(BATCH);
        while batch.len() < limit
            && let Some(parts) = self.parts()
        {
            let first = self.buffer()?;
            let mut offload = Offload::NONE;
            if self.local_peer {
                offload.checksum = partial_checksum(first.data());
            }
            batch.push_buffer(first, offload);
            for _ in 1..parts {
                batch.append_buffer(self.buffer()?);
            }
        }
        if !batch.is_empty() {
            self.rx.release();
        }
        self.refill(pool);
        Ok(batch)
    }

    fn arm(&mut self) -> bool {
        self.wake();
        self.gone |= self.shared.is_gone();
        self.gone || self.rx.available(1) > 0
    }

    fn missed(&self) -> u64 {
        // A frame that found the fill ring empty is among `rx_dropped` already.
        super::socket::statistics(self.shared.fd().as_fd()).map_or(0, |s| s.rx_dropped + s.rx_ring_full)
    }
}

impl Drop for Rx {
    fn drop(&mut self) {
        self.shared.leave(&mut self.lent);
    }
}
