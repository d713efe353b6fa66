//! `afxdp`: frames between a network device's queue and the arena, past the host's stack.
//!
//! The kernel receives straight into the arena's frames (its UMEM) and sends straight out of them; with a driver
//! that can, the hardware does (zero-copy), else the kernel copies once. Which frames come to us is decided by a
//! small XDP program on the device. Serves physical devices, programs that speak AF_XDP, and the host ends of veth
//! pairs.
//!
//! The raw pieces stand on system calls alone, in files of one noun each: [`umem`] (the memory), [`ring`] (the four
//! rings of a socket), [`socket`] (a queue's socket from `socket` to `bind`), [`program`] (the XDP program, and the
//! map from queues to sockets). Everything that a driver needs in the end is a descriptor or a plain value, so that
//! another process can take them over and go on.
//!
//! A device of the host is given back when the port is closed, whatever its fate.

mod device;
mod lent;
mod open;
mod partial;
pub mod program;
pub mod ring;
mod rx;
mod shared;
pub mod socket;
mod tx;
pub mod umem;

pub use open::{
    AfxdpConfig, OpenAfxdp, OpenError, OpenQueue, Purpose, complete_far_end, open, open_host_end,
};
pub use socket::Mode;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::netdev::{Anchor, Device, Mtu};
use crate::offload::Features;
use crate::port::{Fate, Fault, Link, Port, RxQueue, Taken, TxQueue};
use program::{Attachment, SocketMap};
use shared::Shared;

/// An open device as a port.
pub struct AfxdpPort {
    device: Device,
    mtu: Mtu,
    mode: &'static str,
    features: Features,
    rx: Vec<rx::Rx>,
    tx: Vec<tx::Tx>,
    attachment: Attachment,
    anchor: Option<Anchor>,
    raised: bool,
    stripped_tags: bool,
    sockets: SocketMap,
    _promiscuous: Option<OwnedFd>,
}

impl AfxdpPort {
    /// A port over what [`open`] opened; needs no privilege.
    pub fn new(open: OpenAfxdp) -> AfxdpPort {
        let mode = open::mode_text(&open);
        let mut features = Features::ZERO_COPY;
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        let chains = open.queues.iter().all(|queue| queue.bound.multi_buffer);
        let mtu = Mtu::new(&open.device, if chains { u32::MAX } else { open::LONGEST_PACKET });
        for queue in open.queues {
            let netns = open.netns.clone();
            // A zero-copy driver would have to know how to finish checksums; few do.
            let metadata_checksum = queue.metadata && !queue.bound.zero_copy;
            if metadata_checksum {
                features = features.with(Features::CHECKSUM);
            }
            let shared = Arc::new(Shared::new(queue.socket, queue.queue, netns, queue.bound.zero_copy));
            let rings = queue.rings;
            let lent = lent::Lent::new(&open.arena);
            tx.push(tx::Tx::new(
                shared.clone(),
                rings.tx,
                rings.completion,
                lent,
                queue.metadata,
                queue.bound.multi_buffer,
            ));
            rx.push(rx::Rx::new(shared, rings.rx, rings.fill, queue.lent, open.local_peer));
        }
        AfxdpPort {
            mtu,
            device: open.device,
            mode,
            features,
            rx,
            tx,
            attachment: open.attachment,
            anchor: open.anchor,
            raised: open.raised,
            stripped_tags: open.stripped_tags,
            sockets: open.sockets,
            _promiscuous: open.promiscuous,
        }
    }

    /// The device's plain values.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl Port for AfxdpPort {
    fn kind(&self) -> &'static str {
        "afxdp"
    }

    fn mode(&self) -> &str {
        self.mode
    }

    fn mac(&self) -> Option<[u8; 6]> {
        Some(self.device.mac)
    }

    fn mtu(&self) -> u32 {
        self.mtu.get()
    }

    fn features(&self) -> Features {
        self.features
    }

    fn link(&self) -> Link {
        self.device.state(self.anchor.as_ref(), &self.mtu)
    }

    fn take_rx(&mut self) -> Vec<Box<dyn RxQueue>> {
        std::mem::take(&mut self.rx).into_iter().map(|queue| Box::new(queue) as Box<dyn RxQueue>).collect()
    }

    fn take_tx(&mut self) -> Vec<Box<dyn TxQueue>> {
        std::mem::take(&mut self.tx).into_iter().map(|queue| Box::new(queue) as Box<dyn TxQueue>).collect()
    }

    fn select(&mut self, taken: BTreeSet<Taken>) -> Result<(), Fault> {
        self.sockets.select(&self.device.name, taken).map_err(|error| Fault::new(error.to_string()))
    }

    fn close(self: Box<Self>, _fate: Fate) -> Result<(), Fault> {
        let detached = self.attachment.detach().map_err(|error| Fault::new(error.to_string()));
        if self.stripped_tags || self.raised {
            open::give_back(&self.device, self.stripped_tags, self.raised);
        }
        detached
    }
}
