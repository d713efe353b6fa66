//! One ring of an AF_XDP socket, seen from our side.
//!
//! A socket has four rings in memory that it shares with the kernel: fill (free chunks for the kernel to receive
//! into), rx (received descriptors), tx (descriptors to send) and completion (chunks that were sent). We produce
//! into fill and tx and consume from rx and completion. Each has one producer and one consumer; the indices run
//! freely over 32 bits and are masked on use, so `producer - consumer` is the number of filled slots.
//!
//! Called by the driver's `rx.rs` and `tx.rs`. Knows nothing of frames, arenas or sockets: it is built from an
//! open descriptor and the ring's size, and starts at the position that the shared memory holds. So another
//! process that was given the same descriptor can build the same ring again and go on where the first one stopped.
//!
//! Layout: `XDP_MMAP_OFFSETS` in the kernel's `Documentation/networking/af_xdp.rst`.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A slot of the rx or tx ring: where the bytes lie in the UMEM, how many, and whether the frame goes on in the
/// next descriptor ([`libc::XDP_PKT_CONTD`]).
pub type Descriptor = libc::xdp_desc;

/// Which ring of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingKind {
    /// Received descriptors; we consume.
    Rx,
    /// Descriptors to send; we produce.
    Tx,
    /// Free chunks for the kernel to receive into; we produce.
    Fill,
    /// Chunks whose frames were sent; we consume.
    Completion,
}

impl RingKind {
    fn page_offset(self) -> libc::off_t {
        match self {
            RingKind::Rx => libc::XDP_PGOFF_RX_RING as libc::off_t,
            RingKind::Tx => libc::XDP_PGOFF_TX_RING as libc::off_t,
            RingKind::Fill => libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t,
            RingKind::Completion => libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t,
        }
    }

    fn offsets(self, all: &libc::xdp_mmap_offsets) -> &libc::xdp_ring_offset {
        match self {
            RingKind::Rx => &all.rx,
            RingKind::Tx => &all.tx,
            RingKind::Fill => &all.fr,
            RingKind::Completion => &all.cr,
        }
    }
}

mod sealed {
    /// What a slot may hold: plain integers in which every bit pattern is a value.
    pub trait Slot: Copy {}
    impl Slot for u64 {}
    impl Slot for super::Descriptor {}
}

/// Where a ring stands: plain values, for a report or for a check after a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingPosition {
    /// Index of the next slot that the producer writes.
    pub producer: u32,
    /// Index of the next slot that the consumer reads.
    pub consumer: u32,
}

/// The mapped memory of one ring.
struct Mapping<T> {
    base: NonNull<u8>,
    length: usize,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T>,
    mask: u32,
    slot: PhantomData<T>,
}

// SAFETY: the mapping is shared memory that outlives the value, its owner is the only one on our side of the ring
// (`Producer` and `Consumer` are not `Clone` and write through `&mut self`), and no thread-local state is involved.
unsafe impl<T: Send> Send for Mapping<T> {}

impl<T: sealed::Slot> Mapping<T> {
    fn new(socket: BorrowedFd<'_>, kind: RingKind, size: u32) -> io::Result<Self> {
        if !size.is_power_of_two() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a ring's size is a power of two"));
        }
        let all = mmap_offsets(socket)?;
        let offsets = kind.offsets(&all);
        let length = offsets.desc as usize + size as usize * size_of::<T>();
        // SAFETY: a fresh shared mapping of the ring; the kernel checks that `length` is within the ring it made.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_raw_fd(),
                kind.page_offset(),
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        // SAFETY: the kernel names these offsets for this very mapping: each field lies inside it and is aligned.
        let at = |offset: u64| unsafe { base.add(offset as usize) };
        Ok(Mapping {
            base,
            length,
            producer: at(offsets.producer).cast(),
            consumer: at(offsets.consumer).cast(),
            flags: at(offsets.flags).cast(),
            slots: at(offsets.desc).cast(),
            mask: size - 1,
            slot: PhantomData,
        })
    }

    fn size(&self) -> u32 {
        self.mask + 1
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: points into the live mapping, aligned, and is only ever accessed atomically on both sides.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> u32 {
        // SAFETY: as for `producer`.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed)
    }

    fn slot(&self, index: u32) -> *mut T {
        // SAFETY: the masked index is below the number of slots, which the mapping was sized for.
        unsafe { self.slots.as_ptr().add((index & self.mask) as usize) }
    }

    fn position(&self) -> RingPosition {
        RingPosition {
            producer: self.producer().load(Ordering::Acquire),
            consumer: self.consumer().load(Ordering::Acquire),
        }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `mmap` returned; nothing borrowed from it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

fn mmap_offsets(socket: BorrowedFd<'_>) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: a structure of integers, for which zero is a value.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::xdp_mmap_offsets>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `offsets`.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            (&raw mut offsets).cast(),
            &mut length,
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize != size_of::<libc::xdp_mmap_offsets>() {
        // Kernels before 5.4 have no flags field and with it no need-wakeup.
        return Err(io::Error::new(io::ErrorKind::Unsupported, "kernel older than 5.4: no need-wakeup flag"));
    }
    Ok(offsets)
}

/// Our end of a fill (`u64` addresses) or tx ([`Descriptor`]) ring.
pub struct Producer<T> {
    ring: Mapping<T>,
    /// Next slot that we write; what the kernel has been told lags behind until [`Producer::submit`].
    next: u32,
    /// The kernel's consumer index as of our last look.
    seen_consumer: u32,
}

impl<T: sealed::Slot> Producer<T> {
    /// Maps the ring of `socket`, whose size was set to `size` slots, and starts at the position it is in.
    ///
    /// # Errors
    /// The error of `getsockopt(XDP_MMAP_OFFSETS)` or `mmap`; `InvalidInput` for a size that is no power of two.
    pub fn new(socket: BorrowedFd<'_>, kind: RingKind, size: u32) -> io::Result<Self> {
        let ring = Mapping::new(socket, kind, size)?;
        let RingPosition { producer, consumer } = ring.position();
        Ok(Producer { ring, next: producer, seen_consumer: consumer })
    }

    /// Number of slots.
    pub fn size(&self) -> u32 {
        self.ring.size()
    }

    /// How many slots may be pushed now. Looks at the kernel's index only when the last look shows fewer than
    /// `wanted`, since that line moves between cores.
    pub fn free(&mut self, wanted: u32) -> u32 {
        let known = self.size() - self.next.wrapping_sub(self.seen_consumer);
        if known >= wanted {
            return known;
        }
        // Acquire: the kernel is done reading a slot before it moves its index past it.
        self.seen_consumer = self.ring.consumer().load(Ordering::Acquire);
        self.size() - self.next.wrapping_sub(self.seen_consumer).min(self.size())
    }

    /// Writes the next slot; the kernel sees it after [`Producer::submit`]. False when the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> bool {
        if self.free(1) == 0 {
            return false;
        }
        // SAFETY: `slot` is inside the mapping, and the kernel does not read a slot beyond the producer index.
        unsafe { self.ring.slot(self.next).write(value) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Takes back the last `count` slots pushed since the last [`Producer::submit`]; at most that many.
    pub fn cancel(&mut self, count: u32) {
        let staged = self.next.wrapping_sub(self.ring.producer().load(Ordering::Relaxed));
        self.next = self.next.wrapping_sub(count.min(staged));
    }

    /// Shows all pushed slots to the kernel: one write of the index for a whole burst.
    #[inline]
    pub fn submit(&mut self) {
        // Release: the slots are written before the index that covers them.
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// True when the kernel sleeps and wants a system call before it looks at this ring again.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.ring.flags() & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Submitted slots that the kernel has not consumed yet.
    pub fn pending(&self) -> u32 {
        let RingPosition { producer, consumer } = self.ring.position();
        producer.wrapping_sub(consumer)
    }

    /// Both indices as the shared memory has them.
    pub fn position(&self) -> RingPosition {
        self.ring.position()
    }
}

/// Our end of an rx ([`Descriptor`]) or completion (`u64` addresses) ring.
pub struct Consumer<T> {
    ring: Mapping<T>,
    /// Next slot that we read; what the kernel has been told lags behind until [`Consumer::release`].
    next: u32,
    /// The kernel's producer index as of our last look.
    seen_producer: u32,
}

impl<T: sealed::Slot> Consumer<T> {
    /// Maps the ring of `socket`, whose size was set to `size` slots, and starts at the position it is in.
    ///
    /// # Errors
    /// As [`Producer::new`].
    pub fn new(socket: BorrowedFd<'_>, kind: RingKind, size: u32) -> io::Result<Self> {
        let ring = Mapping::new(socket, kind, size)?;
        let RingPosition { producer, consumer } = ring.position();
        Ok(Consumer { ring, next: consumer, seen_producer: producer })
    }

    /// Number of slots.
    pub fn size(&self) -> u32 {
        self.ring.size()
    }

    /// How many slots can be read now; looks at the kernel's index only when the last look shows fewer than
    /// `wanted`.
    pub fn available(&mut self, wanted: u32) -> u32 {
        let known = self.seen_producer.wrapping_sub(self.next);
        if known >= wanted {
            return known;
        }
        // Acquire: the slots that the index covers are written before it.
        self.seen_producer = self.ring.producer().load(Ordering::Acquire);
        self.seen_producer.wrapping_sub(self.next).min(self.size())
    }

    /// The value `ahead` slots behind the next one, without taking it; `None` beyond what is available.
    #[inline]
    pub fn peek(&mut self, ahead: u32) -> Option<T> {
        if self.available(ahead + 1) <= ahead {
            return None;
        }
        // SAFETY: inside the mapping, and the kernel does not write a slot before our consumer index passes it.
        Some(unsafe { self.ring.slot(self.next.wrapping_add(ahead)).read() })
    }

    /// Takes the next value; its slot goes back to the kernel with [`Consumer::release`].
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let value = self.peek(0)?;
        self.next = self.next.wrapping_add(1);
        Some(value)
    }

    /// Gives all taken slots back to the kernel: one write of the index for a whole burst.
    #[inline]
    pub fn release(&mut self) {
        // Release: our reads of the slots come before the index that frees them.
        self.ring.consumer().store(self.next, Ordering::Release);
    }

    /// Both indices as the shared memory has them.
    pub fn position(&self) -> RingPosition {
        self.ring.position()
    }
}

/// Rings without a socket, for tests of what is built on rings.
#[cfg(test)]
mod in_memory {
    use super::*;

    /// Bytes of the two indices and the flags, each on a line of its own.
    const INDICES: usize = 192;

    fn mapping<T: sealed::Slot>(size: u32) -> Mapping<T> {
        let length = INDICES + size as usize * size_of::<T>();
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), length, access, kind, -1, 0) };
        assert!(base != libc::MAP_FAILED && size.is_power_of_two());
        let base = NonNull::new(base.cast::<u8>()).unwrap();
        // SAFETY: inside the mapping, and aligned.
        let at = |offset: usize| unsafe { base.add(offset) };
        Mapping {
            base,
            length,
            producer: at(0).cast(),
            consumer: at(64).cast(),
            flags: at(128).cast(),
            slots: at(INDICES).cast(),
            mask: size - 1,
            slot: PhantomData,
        }
    }

    impl<T: sealed::Slot> Producer<T> {
        /// Our end of an empty ring that nobody reads.
        pub(in crate::afxdp) fn in_memory(size: u32) -> Producer<T> {
            Producer { ring: mapping(size), next: 0, seen_consumer: 0 }
        }
    }

    impl<T: sealed::Slot> Consumer<T> {
        /// Our end of a ring that somebody wrote `values` into.
        pub(in crate::afxdp) fn in_memory(values: &[T]) -> Consumer<T> {
            let ring: Mapping<T> = mapping(values.len().next_power_of_two() as u32);
            for (index, value) in (0..).zip(values) {
                // SAFETY: inside the mapping, which has a slot for each value.
                unsafe { ring.slot(index).write(*value) };
            }
            ring.producer().store(values.len() as u32, Ordering::Release);
            Consumer { ring, next: 0, seen_producer: 0 }
        }
    }
}
