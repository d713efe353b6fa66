//! Sending: owned arena buffers go to the kernel as they are, everything else is copied into buffers first.
//!
//! Built from an adopted or a freshly opened socket alone. Frames come back through the completion ring and go to
//! the pool of whoever reaps them.
//!
//! When to kick. In copy mode the kernel does nothing by itself: a system call sends a limited number of
//! descriptors, and those that it did not take wait for the next. So a kick follows every burst, and another every
//! turn for as long as the kernel has not taken everything. A zero-copy driver runs by itself and sets the
//! need-wakeup flag when it has gone to sleep.
//!
//! A partial checksum is passed on where the socket takes transmit metadata (a few bytes in front of the frame):
//! for a veth the kernel then hands it to the peer as its own stack does, and nobody sums the payload at all. Where
//! the socket does not, the port says so in its features and gets complete frames.

use std::io;
use std::sync::Arc;

use super::lent::Lent;
use super::ring::{Consumer, Descriptor, Producer};
use super::shared::Shared;
use super::socket::kick_tx;
use super::umem::{METADATA_LENGTH, TransmitMetadata};
use crate::arena::{Buffer, FRAME_SIZE, HEADROOM};
use crate::gather::Burst;
use crate::offload::Checksum;
use crate::pool::Pool;
use crate::port::{TxQueue, TxReport};

/// Descriptors that one frame may have (the kernel's `MAX_SKB_FRAGS` and the head).
const MAX_PARTS: usize = 18;

/// An Ethernet header; the kernel sends nothing shorter.
const MIN_FRAME: usize = 14;

pub(super) struct Tx {
    tx: Producer<Descriptor>,
    completion: Consumer<u64>,
    /// In the tx ring, on the way, or in the completion ring.
    lent: Lent,
    /// Room in front of every frame is set aside for [`TransmitMetadata`].
    metadata: bool,
    /// The most descriptors of one frame.
    max_parts: usize,
    /// The last kick failed: the device is down or gone.
    down: bool,
    chain: Vec<Buffer>,
    /// After the rings: a mapped ring keeps the socket open, and the last one to let go of it waits for its end.
    shared: Arc<Shared>,
}

impl Tx {
    pub(super) fn new(
        shared: Arc<Shared>,
        tx: Producer<Descriptor>,
        completion: Consumer<u64>,
        lent: Lent,
        metadata: bool,
        multi_buffer: bool,
    ) -> Tx {
        let max_parts = if multi_buffer { MAX_PARTS } else { 1 };
        let chain = Vec::with_capacity(MAX_PARTS);
        Tx { shared, tx, completion, lent, metadata, max_parts, down: false, chain }
    }

    /// Gives sent frames back to the pool.
    #[inline]
    fn reap(&mut self, pool: &mut Pool) {
        let mut any = false;
        while let Some(address) = self.completion.pop() {
            if let Some(buffer) = self.lent.take_back(address) {
                pool.put(buffer);
            }
            any = true;
        }
        if any {
            self.completion.release();
        }
    }

    /// Has the kernel send what it has not taken yet, if it waits to be told.
    #[inline]
    fn kick(&mut self) {
        let mut waiting = self.waiting();
        while waiting > 0 && self.tx.needs_wakeup() {
            self.down = match kick_tx(self.shared.fd()) {
                Ok(()) => false,
                Err(error) => is_down(&error),
            };
            // Older kernels take 32 at a time. One that took none has a reason that will pass.
            let left = self.waiting();
            if self.shared.is_zero_copy() || left >= waiting {
                break;
            }
            waiting = left;
        }
    }

    /// Descriptors that the kernel may have to be told of.
    #[inline]
    fn waiting(&self) -> u32 {
        if self.shared.is_zero_copy() { self.lent.count() } else { self.tx.pending() }
    }

    /// Puts the frame in `chain` into the ring.
    #[inline]
    fn push(&mut self, checksum: Checksum, pool: &mut Pool) -> Pushed {
        self.chain.retain(|buffer| !buffer.is_empty());
        if self.chain.len() > self.max_parts || self.chain.first().is_none_or(|head| head.len() < MIN_FRAME) {
            return Pushed::Refused;
        }
        if (self.tx.free(self.chain.len() as u32) as usize) < self.chain.len() {
            return Pushed::Full;
        }
        let mut options = 0;
        if self.metadata {
            if let Some(refusal) = self.make_headroom(pool) {
                return refusal;
            }
            if let Checksum::Partial { start, offset } = checksum {
                if !write_metadata(&mut self.chain[0], start, offset) {
                    return Pushed::Refused;
                }
                options = libc::XDP_TX_METADATA;
            }
        }
        let last = self.chain.len() - 1;
        for (index, buffer) in self.chain.drain(..).enumerate() {
            let len = buffer.len() as u32;
            if index < last {
                options |= libc::XDP_PKT_CONTD;
            }
            let addr = self.lent.lend(buffer);
            self.tx.push(Descriptor { addr, len, options });
            options = 0;
        }
        Pushed::Sent
    }

    /// The kernel wants room for metadata in front of each descriptor's bytes, also where none is written. Headers
    /// that grew into it are rare; such a buffer is copied.
    #[inline]
    fn make_headroom(&mut self, pool: &mut Pool) -> Option<Pushed> {
        for buffer in &mut self.chain {
            if buffer.headroom() >= METADATA_LENGTH as usize {
                continue;
            }
            if buffer.len() > FRAME_SIZE - HEADROOM {
                return Some(Pushed::Refused);
            }
            let Some(mut roomy) = pool.get() else { return Some(Pushed::NoFrame) };
            roomy.set_data(HEADROOM, buffer.len());
            roomy.data_mut().copy_from_slice(buffer.data());
            pool.put(std::mem::replace(buffer, roomy));
        }
        None
    }
}

/// What became of one frame.
enum Pushed {
    Sent,
    Refused,
    Full,
    NoFrame,
}

/// Writes the order to finish the checksum in front of the frame. False when the kernel would refuse it: the field
/// must lie in the first buffer.
#[inline]
fn write_metadata(head: &mut Buffer, start: u16, offset: u16) -> bool {
    let (at, len) = (head.headroom(), head.len());
    if usize::from(start) + usize::from(offset) + 2 > len {
        return false;
    }
    let room = METADATA_LENGTH as usize;
    head.set_data(at - room, room);
    head.data_mut().copy_from_slice(&TransmitMetadata::checksum(start, offset).to_bytes());
    head.set_data(at, len);
    true
}

/// Errors of a kick that mean that nothing will be sent; others pass.
fn is_down(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV | libc::EBADF))
}

impl TxQueue for Tx {
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, pool: &mut Pool) -> TxReport {
        let mut report = TxReport::default();
        self.reap(pool);
        if self.down {
            // Ask again: a device that was set down may be up now.
            self.down = kick_tx(self.shared.fd()).is_err_and(|error| is_down(&error));
            if self.down {
                report.down = burst.len() as u32;
                return report;
            }
        }
        for i in 0..burst.len() {
            if self.tx.free(1) == 0 {
                report.full += 1;
                continue;
            }
            let offload = burst.offload(i);
            let bytes = burst.item(i).total() as u64;
            if !burst.take(i, pool, &mut self.chain) && !burst.copy_to_buffers(i, pool, &mut self.chain) {
                report.no_frame += 1;
                continue;
            }
            match self.push(offload.checksum, pool) {
                Pushed::Sent => {
                    report.sent += 1;
                    report.bytes += bytes;
                }
                Pushed::Refused => report.refused += 1,
                Pushed::Full => report.full += 1,
                Pushed::NoFrame => report.no_frame += 1,
            }
            self.chain.drain(..).for_each(|buffer| pool.put(buffer));
        }
        if report.sent > 0 {
            self.tx.submit();
            self.kick();
        }
        report
    }

    fn maintain(&mut self, pool: &mut Pool) -> bool {
        self.reap(pool);
        self.kick();
        if self.down {
            return false;
        }
        self.reap(pool);
        // What the kernel has taken needs no more of us in copy mode; it is reaped with the next burst.
        self.waiting() > 0
    }

    fn outstanding(&self) -> u32 {
        self.lent.count()
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        self.shared.leave(&mut self.lent);
    }
}
