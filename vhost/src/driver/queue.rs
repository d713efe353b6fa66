//! A ring with its buffers: frames are sent and received through it.
//!
//! Each descriptor has a buffer of its own, all of one size, and a frame that is sent lies in one of them behind its
//! virtio-net header. A frame that is received may be spread over several (`VIRTIO_NET_F_MRG_RXBUF`, Virtual I/O
//! Device 1.2, section 5.1.6.4). Buffers go round in the order in which the device gives them back.
//!
//! **The device is not believed.** Whatever it says is checked against what is private: which buffers it has, how
//! large they are. What it writes into them is copied out. A device that breaks the rules is a [`DeviceFault`], and
//! the queue is of no use from then on.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use pmd::prefetch::{for_reading, for_writing};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::memory::{GUEST, Outside, SharedMemory};
use super::packed::PackedDriver;
use super::ring::{Descriptor, INDIRECT, LINE, NEXT, Ring, WRITE};
use super::split::SplitDriver;

/// Bytes of the virtio-net header (section 5.1.6).
pub const HEADER: usize = 12;

/// Bytes of an indirect table of a header and a frame.
const TABLE: u64 = 32;

/// How a device breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceFault {
    /// It gave back a buffer that it does not have.
    #[error("the device gave back buffer {0}, which it does not have")]
    Buffer(u32),
    /// It says that it wrote more than the buffer holds, or less than a header.
    #[error("the device says that it wrote {written} bytes to a buffer of {bytes}")]
    Written {
        /// What it says.
        written: u32,
        /// What there is.
        bytes: u32,
    },
    /// A frame's header says that it is spread over more buffers than were given back with it, or over none.
    #[error("a frame of {0} buffers, which were not given back together")]
    Spread(u16),
}

/// Whether the driver writes the buffers, or the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Frames are sent.
    Transmit,
    /// Frames are received.
    Receive,
}

/// What a queue is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Entries of the ring, a power of two.
    pub size: u16,
    /// The ring is a packed one.
    pub packed: bool,
    /// Bytes of a buffer, header included.
    pub buffer: u32,
    /// A frame may be spread over several receive buffers.
    pub mergeable: bool,
    /// What is sent is named by indirect tables, header and frame apart.
    pub indirect: bool,
    /// Events are suppressed by index.
    pub event_index: bool,
    /// The device gives buffers back in order and may tell so once for several.
    pub in_order: bool,
}

impl Shape {
    /// Bytes from one buffer to the next: an odd number of cache lines, so that the buffers' beginnings are spread
    /// over all sets of a cache.
    fn stride(&self) -> u64 {
        (u64::from(self.buffer).div_ceil(LINE) | 1) * LINE
    }

    fn tables(&self) -> u64 {
        Ring::bytes(self.packed, self.size).next_multiple_of(LINE)
    }

    fn buffers(&self) -> u64 {
        (self.tables() + TABLE * u64::from(self.size)).next_multiple_of(4096)
    }

    /// Bytes of memory that a queue takes.
    pub fn bytes(&self) -> u64 {
        (self.buffers() + self.stride() * u64::from(self.size)).next_multiple_of(4096)
    }
}

/// One direction of a device.
pub struct Queue {
    ring: Ring,
    role: Role,
    shape: Shape,
    memory: Arc<SharedMemory>,
    /// Offset of the indirect tables, and of the first buffer.
    tables: u64,
    offset: u64,
    stride: u64,
    first: NonNull<u8>,
    /// Buffers by place: from `taken` to `given` the device has them, in this order; the others are ours, in the
    /// order in which they are used next. Places are counted on for ever, modulo the ring's size; as whole words, for
    /// two halves that are stored apart and loaded together would make each frame wait for the one before.
    order: Box<[u16]>,
    given: u32,
    taken: u32,
    /// Bytes written to the buffer at each place.
    written: Box<[u32]>,
    /// The last buffer of those that the device told about at once, and what it wrote to it.
    together: Option<(u16, u32)>,
    kick: EventFd,
    call: EventFd,
}

// SAFETY: the pointer is into the memory that the value keeps; one thread at a time has the value.
unsafe impl Send for Queue {}

/// A frame that was received, until the next one is.
pub struct Frame<'q> {
    queue: &'q Queue,
    /// The place of its first buffer, and how many there are.
    place: u32,
    buffers: u16,
    bytes: u64,
}

impl Queue {
    /// A queue in `memory` from offset `at` on, aligned to 64. A receive queue has posted all of its buffers.
    ///
    /// # Errors
    /// It is not in the memory, or no descriptor could be had.
    pub fn new(memory: Arc<SharedMemory>, at: u64, role: Role, shape: Shape) -> io::Result<Queue> {
        let outside = |error: Outside| io::Error::new(io::ErrorKind::InvalidInput, error);
        memory.place(at, shape.bytes(), 64).map_err(outside)?;
        if shape.buffer < LINE as u32 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a buffer holds less than a cache line"));
        }
        let mut ring = ring(memory.clone(), at, &shape).map_err(outside)?;
        ring.want_call(false);
        let offset = at + shape.buffers();
        let mut queue = Queue {
            ring,
            role,
            shape,
            tables: at + shape.tables(),
            offset,
            stride: shape.stride(),
            first: memory.place(offset, 1, 64).map_err(outside)?,
            memory,
            order: (0..shape.size).collect(),
            given: 0,
            taken: 0,
            written: vec![0; shape.size.into()].into(),
            together: None,
            kick: EventFd::new(EFD_NONBLOCK)?,
            call: EventFd::new(EFD_NONBLOCK)?,
        };
        if role == Role::Receive {
            queue.publish();
        } else if shape.indirect {
            (0..shape.size).try_for_each(|id| queue.write_table(id, shape.buffer)).map_err(outside)?;
        }
        Ok(queue)
    }

    /// The ring, to do with it what one likes.
    pub fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// Offset of a buffer in the memory.
    pub fn buffer(&self, id: u16) -> u64 {
        self.offset + u64::from(id & (self.shape.size - 1)) * self.stride
    }

    /// By what the device is kicked, and by what it calls.
    pub fn events(&self) -> (&EventFd, &EventFd) {
        (&self.kick, &self.call)
    }

    #[inline]
    fn at(&self, place: u32) -> usize {
        (place & (u32::from(self.shape.size) - 1)) as usize
    }

    #[inline]
    fn start(&self, id: u16) -> NonNull<u8> {
        // SAFETY: buffers of all ids below the ring's size lie in the memory, one stride apart.
        unsafe { self.first.add(usize::from(id & (self.shape.size - 1)) * self.stride as usize) }
    }

    #[inline]
    fn outstanding(&self) -> u16 {
        self.given.wrapping_sub(self.taken) as u16
    }

    /// Buffers that a frame can be sent in.
    #[inline]
    pub fn room(&self) -> u16 {
        self.shape.size - self.outstanding()
    }

    /// Takes back a buffer that the device is done with: its place.
    #[inline]
    fn collect(&mut self) -> Result<Option<u32>, DeviceFault> {
        let place = self.taken;
        let slot = self.at(place);
        let written = if let Some((last, written)) = self.together {
            if last == self.order[slot] {
                self.together = None;
                written
            } else {
                self.full()
            }
        } else {
            let Some((id, written)) = self.ring.peek() else { return Ok(None) };
            if self.outstanding() == 0 {
                return Err(DeviceFault::Buffer(id));
            }
            if u32::from(self.order[slot]) == id { written } else { self.take_out_of_turn(id, written)? }
        };
        self.ring.advance(self.order[slot]);
        self.written[slot] = written;
        self.taken = place.wrapping_add(1);
        Ok(Some(place))
    }

    /// What is written to a buffer of which the device says nothing (section 2.7.9: all of it).
    fn full(&self) -> u32 {
        if self.role == Role::Receive { self.shape.buffer } else { 0 }
    }

    /// A buffer came back that is not the next one. Returns what was written to the buffer at the next place.
    #[cold]
    fn take_out_of_turn(&mut self, id: u32, written: u32) -> Result<u32, DeviceFault> {
        let fault = DeviceFault::Buffer(id);
        let mut places = (0..self.outstanding()).map(|i| self.at(self.taken.wrapping_add(i.into())));
        let (turn, found) =
            (0..).zip(&mut places).find(|(_, at)| u32::from(self.order[*at]) == id).ok_or(fault)?;
        if self.shape.in_order {
            // All up to this one are done, and it is the last.
            if !self.ring.has(turn) {
                return Err(fault);
            }
            self.together = Some((id as u16, written));
            return Ok(self.full());
        }
        let place = self.at(self.taken);
        self.order.swap(place, found);
        Ok(written)
    }

    /// Takes back all that was sent; how much room there is now.
    ///
    /// # Errors
    /// The device breaks the rules.
    #[inline]
    pub fn reclaim(&mut self) -> Result<u16, DeviceFault> {
        while self.collect()?.is_some() {}
        Ok(self.room())
    }

    /// Fetches the buffers that the next `frames` frames are sent in, to be written.
    #[inline]
    pub fn prefetch(&self, frames: u16, bytes: usize) {
        for i in 0..frames.min(self.room()) {
            let start = self.start(self.order[self.at(self.given.wrapping_add(i.into()))]);
            for line in (0..bytes.min(self.shape.buffer as usize)).step_by(LINE as usize) {
                for_writing(start.as_ptr().wrapping_add(line));
            }
        }
    }

    /// Sends a frame: `head`, words as they lie in memory, which begins with the virtio-net header, and `rest`. The
    /// device sees it after [`publish`](Self::publish). False if there is no room, or it does not fit a buffer.
    #[inline]
    pub fn send_words<const N: usize>(&mut self, head: [u64; N], rest: &[u8]) -> bool {
        let Some(id) = self.next_buffer(8 * N + rest.len()) else { return false };
        let start = self.start(id);
        // SAFETY: head and rest fit the buffer, which is in shared memory and so no part of either.
        unsafe {
            start.cast::<[u64; N]>().write_unaligned(head);
            if !rest.is_empty() {
                std::ptr::copy_nonoverlapping(rest.as_ptr(), start.as_ptr().add(8 * N), rest.len());
            }
        }
        self.give(id, (8 * N + rest.len()) as u32);
        true
    }

    /// Sends a frame, of which the virtio-net header is the first part; otherwise as
    /// [`send_words`](Self::send_words).
    pub fn send(&mut self, parts: &[&[u8]]) -> bool {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let Some(id) = self.next_buffer(bytes) else { return false };
        let mut at = self.start(id);
        for part in parts {
            // SAFETY: as above; the parts together are `bytes` long.
            unsafe {
                std::ptr::copy_nonoverlapping(part.as_ptr(), at.as_ptr(), part.len());
                at = at.add(part.len());
            }
        }
        self.give(id, bytes as u32);
        true
    }

    #[inline]
    fn next_buffer(&self, bytes: usize) -> Option<u16> {
        let fits = self.room() > 0 && (HEADER..=self.shape.buffer as usize).contains(&bytes);
        fits.then(|| self.order[self.at(self.given)])
    }

    #[inline]
    fn give(&mut self, id: u16, bytes: u32) {
        let address = GUEST + self.buffer(id);
        let descriptor = if self.role == Role::Receive {
            Descriptor { address, bytes, flags: WRITE, next: 0 }
        } else if self.shape.indirect {
            let address = GUEST + self.table(id);
            // Cannot fail: the tables are in the memory since the queue was made.
            let _ = self.write_table(id, bytes);
            Descriptor { address, bytes: TABLE as u32, flags: INDIRECT, next: 0 }
        } else {
            Descriptor { address, bytes, flags: 0, next: 0 }
        };
        self.ring.stage(id, descriptor);
        self.given = self.given.wrapping_add(1);
    }

    fn table(&self, id: u16) -> u64 {
        self.tables + TABLE * u64::from(id & (self.shape.size - 1))
    }

    /// Writes the table that names a buffer's header and the `bytes` less that follow it.
    fn write_table(&self, id: u16, bytes: u32) -> Result<(), Outside> {
        let address = GUEST + self.buffer(id);
        let header = Descriptor { address, bytes: HEADER as u32, flags: NEXT, next: 1 };
        let frame = Descriptor {
            address: address + HEADER as u64,
            bytes: bytes.saturating_sub(HEADER as u32),
            ..Descriptor::default()
        };
        let [header, frame] =
            [header, frame].map(|entry| if self.shape.packed { packed(entry) } else { entry.to_bytes() });
        self.memory.write(self.table(id), &header)?;
        self.memory.write(self.table(id) + TABLE / 2, &frame)
    }

    /// How many buffers have come back and were not looked at, `limit` at most; `bytes` of each are fetched.
    #[inline]
    pub fn waiting(&mut self, limit: u16, bytes: usize) -> u16 {
        let waiting = self.ring.waiting(limit).min(self.outstanding());
        for i in 0..waiting {
            let start = self.start(self.order[self.at(self.taken.wrapping_add(i.into()))]);
            for line in (0..bytes.min(self.shape.buffer as usize)).step_by(LINE as usize) {
                for_reading(start.as_ptr().wrapping_add(line));
            }
        }
        waiting
    }

    /// The next frame. Its buffers are posted again by [`publish`](Self::publish).
    ///
    /// # Errors
    /// The device breaks the rules.
    #[inline]
    pub fn receive(&mut self) -> Result<Option<Frame<'_>>, DeviceFault> {
        let Some(place) = self.collect()? else { return Ok(None) };
        let written = self.written[self.at(place)];
        let bytes = self.shape.buffer;
        if written > bytes || (written as usize) < HEADER {
            return Err(DeviceFault::Written { written, bytes });
        }
        let (mut buffers, mut bytes) = (1, u64::from(written));
        if self.shape.mergeable {
            let [.., low, high] = self.head::<HEADER>(place);
            buffers = u16::from_le_bytes([low, high]);
            if buffers != 1 {
                bytes += self.receive_rest(buffers)?;
            }
        }
        Ok(Some(Frame { queue: self, place, buffers, bytes }))
    }

    /// The first `N` bytes of the buffer at a place.
    #[inline]
    fn head<const N: usize>(&self, place: u32) -> [u8; N] {
        let start = self.start(self.order[self.at(place)]);
        let bytes = self.shape.buffer as usize;
        if N <= bytes {
            // SAFETY: the buffer holds so many.
            return unsafe { start.cast::<[u8; N]>().read_unaligned() };
        }
        let mut head = [0; N];
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(start.as_ptr(), head.as_mut_ptr(), bytes) };
        head
    }

    /// The other buffers of a frame of `buffers`; how much is in them.
    fn receive_rest(&mut self, buffers: u16) -> Result<u64, DeviceFault> {
        let fault = DeviceFault::Spread(buffers);
        let mut sum = 0;
        for _ in 1..buffers {
            let place = self.collect()?.ok_or(fault)?;
            let (written, bytes) = (self.written[self.at(place)], self.shape.buffer);
            if written > bytes {
                return Err(DeviceFault::Written { written, bytes });
            }
            sum += u64::from(written);
        }
        if buffers == 0 { Err(fault) } else { Ok(sum) }
    }

    /// Shows the device what was sent, or posts the buffers that were received from, and kicks it if it wants to be.
    #[inline]
    pub fn publish(&mut self) {
        self.show();
        self.kick();
    }

    /// The first half of [`publish`](Self::publish), for who has several queues to show: the second one waits until
    /// all that was written has arrived.
    #[inline]
    pub fn show(&mut self) {
        if self.role == Role::Receive {
            while self.room() > 0 {
                self.give(self.order[self.at(self.given)], self.shape.buffer);
            }
        }
        self.ring.publish();
    }

    /// The second half.
    #[inline]
    pub fn kick(&mut self) {
        if self.ring.is_kick_due() {
            // A full counter is a kick, too.
            let _ = self.kick.write(1);
        }
    }

    /// Fetches what [`waiting`](Self::waiting) looks at first.
    #[inline]
    pub fn fetch(&self) {
        self.ring.fetch();
    }
}

/// A descriptor as it lies in a packed ring's table (section 2.8.13): the id before the flags, none of which chains.
fn packed(entry: Descriptor) -> [u8; 16] {
    Descriptor { flags: 0, next: entry.flags & !NEXT, ..entry }.to_bytes()
}

fn ring(memory: Arc<SharedMemory>, at: u64, shape: &Shape) -> Result<Ring, Outside> {
    if shape.packed {
        let mut ring = PackedDriver::new(memory, at, shape.size)?;
        ring.set_event_index(shape.event_index);
        return Ok(Ring::Packed(ring));
    }
    let mut ring = SplitDriver::new(memory, at, shape.size)?;
    ring.set_event_index(shape.event_index);
    Ok(Ring::Split(ring))
}

impl Frame<'_> {
    /// Bytes of the frame with its header.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its buffers.
    pub fn buffers(&self) -> u16 {
        self.buffers
    }

    /// The first `N` bytes of its first buffer, of which [`bytes`](Self::bytes) are the frame's; zero beyond the
    /// buffer, or whatever was there.
    #[inline]
    pub fn head<const N: usize>(&self) -> [u8; N] {
        self.queue.head(self.place)
    }

    /// The same as words, as they lie in memory.
    #[inline]
    pub fn head_words<const N: usize>(&self) -> [u64; N] {
        let start = self.queue.start(self.queue.order[self.queue.at(self.place)]);
        if 8 * N > self.queue.shape.buffer as usize {
            return [0; N];
        }
        // SAFETY: the buffer holds so many; any bytes are words.
        unsafe { start.cast::<[u64; N]>().read_unaligned() }
    }

    /// All of it.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.bytes as usize);
        for i in 0..self.buffers {
            let at = self.queue.at(self.place.wrapping_add(i.into()));
            let written = self.queue.written[at] as usize;
            let start = self.queue.start(self.queue.order[at]);
            let before = all.len();
            all.resize(before + written, 0);
            // SAFETY: what is written was checked against the buffer's size when the frame was received.
            unsafe { std::ptr::copy_nonoverlapping(start.as_ptr(), all[before..].as_mut_ptr(), written) };
        }
        all
    }
}
