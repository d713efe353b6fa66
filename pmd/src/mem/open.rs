//! Opening a `mem` port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::rx::Rx;
use super::tx::Tx;
use super::{Packet, Wire};
use crate::arena::{Arena, FRAME_SIZE, HEADROOM};
use crate::offload::{Features, Offload};
use crate::pool::Pool;
use crate::port::{Fate, Fault, Link, Port, RxQueue, TxQueue};

/// How frames arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lending {
    /// In arena buffers, which the switch owns.
    #[default]
    Owned,
    /// As a private head of at most this many bytes and segments in foreign memory.
    Lent {
        /// Bytes of the head.
        head: usize,
    },
}

/// What a `mem` port is like.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How frames arrive.
    pub lending: Lending,
    /// What the port takes.
    pub features: Features,
    /// The largest packet.
    pub mtu: u32,
    /// Packets that each direction holds.
    pub capacity: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { lending: Lending::Owned, features: Features::NONE, mtu: 1500, capacity: 1024 }
    }
}

/// The switch's side.
pub struct MemPort {
    settings: Settings,
    to_switch: Arc<Wire>,
    from_switch: Arc<Wire>,
    unplugged: Arc<AtomicBool>,
    taken: (bool, bool),
}

/// The other side: sends to the switch and receives from it.
pub struct End {
    pool: Pool,
    to_switch: Arc<Wire>,
    from_switch: Arc<Wire>,
    unplugged: Arc<AtomicBool>,
}

/// Makes a port and its other end. `arena` is the switch's.
pub fn open(arena: &Arena, settings: Settings) -> (MemPort, End) {
    let (to_switch, from_switch) = (Wire::new(settings.capacity), Wire::new(settings.capacity));
    let unplugged = Arc::new(AtomicBool::new(false));
    let end = End {
        pool: arena.pool(),
        to_switch: to_switch.clone(),
        from_switch: from_switch.clone(),
        unplugged: unplugged.clone(),
    };
    (MemPort { settings, to_switch, from_switch, unplugged, taken: (false, false) }, end)
}

impl End {
    /// Sends a frame to the switch; false if the wire or the arena is full.
    pub fn send(&mut self, bytes: &[u8], offload: Offload) -> bool {
        let mut queue = self.to_switch.lock();
        if queue.parcels.len() >= self.to_switch.capacity {
            return false;
        }
        let mut buffers = Vec::new();
        let mut chunks = bytes.chunks(FRAME_SIZE - HEADROOM);
        let first = chunks.next().unwrap_or(&[]);
        for chunk in std::iter::once(first).chain(chunks) {
            let Some(mut buffer) = self.pool.get() else {
                buffers.into_iter().for_each(|buffer| self.pool.put(buffer));
                return false;
            };
            buffer.set_data(HEADROOM, chunk.len());
            buffer.data_mut().copy_from_slice(chunk);
            buffers.push(buffer);
        }
        let rest = buffers.split_off(1);
        if let Some(first) = buffers.pop() {
            queue.push(Packet { first, rest, offload: offload.into() });
        }
        true
    }

    /// Sends a packet to the switch that came from it; gives it back if the wire is full.
    pub fn resend(&mut self, packet: Packet) -> Result<(), Packet> {
        let mut queue = self.to_switch.lock();
        if queue.parcels.len() >= self.to_switch.capacity {
            return Err(packet);
        }
        queue.push(packet);
        Ok(())
    }

    /// The next frame from the switch.
    pub fn receive(&mut self) -> Option<Packet> {
        self.from_switch.lock().pop()
    }

    /// Gives a packet's buffers back.
    pub fn recycle(&mut self, packet: Packet) {
        self.pool.put(packet.first);
        packet.rest.into_iter().for_each(|buffer| self.pool.put(buffer));
    }

    /// Frames that the switch has not received yet.
    pub fn backlog(&self) -> usize {
        self.to_switch.lock().parcels.len()
    }

    /// Pulls the plug: the switch's next call finds the device gone.
    pub fn unplug(&self) {
        self.unplugged.store(true, Ordering::Relaxed);
    }
}

impl Port for MemPort {
    fn kind(&self) -> &'static str {
        "mem"
    }

    fn mode(&self) -> &str {
        match self.settings.lending {
            Lending::Owned => "owned",
            Lending::Lent { .. } => "lent",
        }
    }

    fn mac(&self) -> Option<[u8; 6]> {
        None
    }

    fn mtu(&self) -> u32 {
        self.settings.mtu
    }

    fn features(&self) -> Features {
        self.settings.features
    }

    fn link(&self) -> Link {
        if self.unplugged.load(Ordering::Relaxed) { Link::gone("unplugged") } else { Link::up() }
    }

    fn take_rx(&mut self) -> Vec<Box<dyn RxQueue>> {
        if std::mem::replace(&mut self.taken.0, true) {
            return Vec::new();
        }
        vec![Box::new(Rx::new(self.settings.lending, self.to_switch.clone(), self.unplugged.clone()))]
    }

    fn take_tx(&mut self) -> Vec<Box<dyn TxQueue>> {
        if std::mem::replace(&mut self.taken.1, true) {
            return Vec::new();
        }
        let owned = self.settings.lending == Lending::Owned;
        vec![Box::new(Tx::new(owned, self.from_switch.clone(), self.unplugged.clone()))]
    }

    fn close(self: Box<Self>, _fate: Fate) -> Result<(), Fault> {
        Ok(())
    }
}
