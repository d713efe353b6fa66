//! `mem`: ports in memory, for tests and benches, and the model of a driver.
//!
//! Two queues of packets and no device. The test holds the [`End`] and plays the machine at the other
//! side; the switch has the [`Port`](crate::Port). In the owning variant frames arrive in arena buffers and leave by
//! taking them, as AF_XDP does; in the [lending](Lending) one they arrive as a private head and segments in
//! memory that is not ours and leave as copies, as a guest's ring does.

mod open;
mod rx;
mod tx;

pub use open::{End, Lending, MemPort, Settings, open};

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::arena::Buffer;
use crate::offload::{Offload, Packed};

/// A frame on the wire of a `mem` port.
#[derive(Debug)]
pub struct Packet {
    first: Buffer,
    rest: Vec<Buffer>,
    offload: Packed,
}

impl Packet {
    /// Bytes of the frame.
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Buffer::len).sum::<usize>()
    }

    /// Whether the frame has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.first.data().to_vec();
        self.rest.iter().for_each(|buffer| bytes.extend_from_slice(buffer.data()));
        bytes
    }

    /// The frame's first bytes, as far as they lie in one buffer, to write: who sends a packet once more can
    /// address it anew.
    pub fn head_mut(&mut self) -> &mut [u8] {
        self.first.data_mut()
    }

    /// What the frame still needs.
    pub fn offload(&self) -> Offload {
        self.offload.unpack()
    }
}

/// A packet on its way.
#[derive(Debug)]
struct Parcel {
    first: Buffer,
    offload: Packed,
    /// How many buffers more it has, in [`Line::rest`].
    rest: u32,
}

/// What is on a wire.
#[derive(Debug, Default)]
struct Line {
    /// Nearly always all of them are taken at once; what is left moves up, which costs less than a ring does at
    /// each parcel.
    parcels: Vec<Parcel>,
    /// The further buffers of all parcels, in their order.
    rest: VecDeque<Buffer>,
}

impl Line {
    fn push(&mut self, packet: Packet) {
        let rest = packet.rest.len() as u32;
        self.rest.extend(packet.rest);
        self.parcels.push(Parcel { first: packet.first, offload: packet.offload, rest });
    }

    /// Takes the next `count` packets, of which there are so many.
    fn take(&mut self, count: usize) -> impl Iterator<Item = Packet> {
        let Line { parcels, rest: further } = self;
        parcels.drain(..count).map(|Parcel { first, offload, rest }| Packet {
            first,
            rest: if rest > 0 { further.drain(..rest as usize).collect() } else { Vec::new() },
            offload,
        })
    }

    fn pop(&mut self) -> Option<Packet> {
        self.take(self.parcels.len().min(1)).next()
    }
}

/// One direction of the wire: bounded, locked once a burst.
#[derive(Debug)]
struct Wire {
    line: Mutex<Line>,
    capacity: usize,
}

impl Wire {
    fn new(capacity: usize) -> Arc<Wire> {
        let line = Line { parcels: Vec::with_capacity(capacity), rest: VecDeque::new() };
        Arc::new(Wire { line: Mutex::new(line), capacity })
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
