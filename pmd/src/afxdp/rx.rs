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
    /// What the next call ends with, after the frames before it were handed up.
    fault: Option<Fault>,
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
        Rx { shared, rx, fill, lent, local_peer, gone: false, fault: None }
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

    /// Hands a frame of `parts` descriptors up; one that the kernel does not name rightly is refused.
    #[inline]
    fn push(&mut self, batch: &mut Batch<'_>, parts: u32) -> Result<(), Fault> {
        let first = self.buffer().inspect_err(|_| batch.refused_mut().failed += 1)?;
        let mut offload = Offload::NONE;
        if self.local_peer {
            offload.checksum = partial_checksum(first.data());
        }
        batch.push_buffer(first, offload);
        for _ in 1..parts {
            match self.buffer() {
                Ok(buffer) => batch.append_buffer(buffer),
                Err(fault) => {
                    let taken = batch.unpush();
                    batch.refused_mut().failed += u32::from(taken);
                    return Err(fault);
                }
            }
        }
        Ok(())
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
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let (mut batch, _) = memory.lend();
        let limit = limit.min(BATCH);
        while batch.len() < limit
            && let Some(parts) = self.parts()
        {
            if let Err(fault) = self.push(&mut batch, parts) {
                self.fault = Some(fault);
                return Ok(batch);
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

#[cfg(test)]
mod tests {
    use super::super::socket::Queue;
    use super::*;
    use crate::arena::{Arena, HugePages};

    #[test]
    fn a_fault_in_the_middle_of_a_batch_loses_no_frame_uncounted() {
        let arena = Arena::new(512, HugePages::Off).unwrap();
        for parts_before in [0, 1] {
            let (mut pool, mut memory) = (arena.pool(), RxMemory::new());
            let mut lent = Lent::new(&arena);
            let mut arrived = |len, options| {
                let addr = lent.lend(pool.get().unwrap());
                Descriptor { addr, len, options }
            };
            let mut ring = vec![arrived(60, 0), arrived(61, 0)];
            ring.extend((0..parts_before).map(|_| arrived(4000, libc::XDP_PKT_CONTD)));
            // A frame that nobody lent, and one that will not be looked at.
            let stranger = u64::from(arena.frames() - 1) * FRAME_SIZE as u64;
            ring.extend([Descriptor { addr: stranger, len: 62, options: 0 }, arrived(63, 0)]);
            let fd = || std::fs::File::open("/dev/null").unwrap().into();
            let queue = Queue { device: "eth9".into(), ifindex: 9, queue: 0 };
            let shared = Arc::new(Shared::new(fd(), queue, Arc::new(fd()), false));
            let mut rx = Rx::new(shared, Consumer::in_memory(&ring), Producer::in_memory(64), lent, false);

            let batch = rx.receive(&mut memory, &mut pool, BATCH).unwrap();
            assert_eq!((batch.len(), batch.frame_len(0), batch.frame_len(1)), (2, 60, 61));
            assert_eq!((batch.refused().failed, batch.refused().total()), (1, 1), "{parts_before}");
            batch.recycle(&mut pool);
            for _ in 0..2 {
                let fault = rx.receive(&mut memory, &mut pool, BATCH).err().unwrap();
                assert!(fault.reason.contains("was not lent"), "{fault}");
            }
            drop((rx, pool));
            assert_eq!(arena.free(), arena.frames());
        }
    }
}
