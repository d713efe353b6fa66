//! `tap`: a container's interface is a TAP, and we hold its other end.
//!
//! The kernel hands over and takes frames of up to 64 KB whole, with a virtio-net header that says what is left
//! to do, so a TCP stream between two containers crosses the switch in a few large frames with no checksum
//! computed. The price is one system call a frame; there is no batch on this interface.
//!
//! The TAP is persistent and carries our mark: it stays when the daemon ends, whichever way, and the next one
//! attaches to it again. While nobody is attached the container sees "no carrier" and keeps its addresses and
//! connections.

mod open;
mod rx;
mod tx;

pub use open::{OpenTap, QUEUES_MAX, TapConfig, open, remove};

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::netdev::{Anchor, Device};
use crate::offload::Features;
use crate::port::{Fate, Fault, Link, Port, RxQueue, TxQueue};

/// An open TAP as a port.
pub struct TapPort {
    port: String,
    device: Device,
    anchor: Option<Anchor>,
    features: Features,
    queues: Vec<Arc<OwnedFd>>,
    taken: (bool, bool),
    adopted: bool,
}

impl TapPort {
    /// A port over what [`open`] opened; needs no privilege.
    pub fn new(open: OpenTap) -> TapPort {
        TapPort {
            port: open.port,
            device: open.device,
            anchor: open.anchor,
            features: open.features,
            queues: open.queues.into_iter().map(Arc::new).collect(),
            taken: (false, false),
            adopted: open.adopted,
        }
    }

    /// The device's plain values.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl Port for TapPort {
    fn kind(&self) -> &'static str {
        "tap"
    }

    fn mode(&self) -> &str {
        "virtio-net headers"
    }

    fn mac(&self) -> Option<[u8; 6]> {
        Some(self.device.mac)
    }

    fn mtu(&self) -> u32 {
        self.device.mtu
    }

    fn features(&self) -> Features {
        self.features
    }

    fn link(&self) -> Link {
        match self.device.look(self.anchor.as_ref()) {
            Ok(link) if link.up => Link::up(),
            Ok(link) => Link::down(format!("the container has set its interface {:?} down", link.name)),
            Err(reason) => Link::gone(reason),
        }
    }

    fn is_adopted(&self) -> bool {
        self.adopted
    }

    fn take_rx(&mut self) -> Vec<Box<dyn RxQueue>> {
        if std::mem::replace(&mut self.taken.0, true) {
            return Vec::new();
        }
        let header = open::header(self.features);
        let rx = |queue: &Arc<OwnedFd>| Box::new(rx::Rx::new(queue.clone(), header)) as Box<dyn RxQueue>;
        self.queues.iter().map(rx).collect()
    }

    fn take_tx(&mut self) -> Vec<Box<dyn TxQueue>> {
        if std::mem::replace(&mut self.taken.1, true) {
            return Vec::new();
        }
        let header = open::header(self.features);
        let tx = |queue: &Arc<OwnedFd>| Box::new(tx::Tx::new(queue.clone(), header)) as Box<dyn TxQueue>;
        self.queues.iter().map(tx).collect()
    }

    fn close(self: Box<Self>, fate: Fate) -> Result<(), Fault> {
        drop(self.queues);
        match fate {
            Fate::Leave => Ok(()),
            Fate::Remove => remove(&self.port, self.device.netns.as_deref(), &self.device.name)
                .map_err(|error| Fault::new(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::Settings;
    use crate::netdev::testing::{Sandbox, Wire, connection, exchange, tcp};

    fn port(sandbox: &Sandbox, i: usize, mtu: u32, queues: u16) -> TapPort {
        let addresses =
            vec![format!("10.1.0.1{i}/24").parse().unwrap(), format!("fd00:1::1{i}/64").parse().unwrap()];
        let settings = Settings { mtu, addresses, ..Settings::default() };
        let netns = Some(sandbox.name(i).into());
        TapPort::new(open(&TapConfig { port: format!("t{i}"), netns, settings, queues }).unwrap())
    }

    #[test]
    fn tcp_crosses_whole_in_large_frames_over_both_families() {
        for (mtu, queues) in [(1500, 1), (9000, 2)] {
            let sandbox = Sandbox::new(2);
            let (mut one, mut two) = (port(&sandbox, 0, mtu, queues), port(&sandbox, 1, mtu, queues));
            let wire = Wire::new([&mut one, &mut two]);
            tcp(sandbox.netns(0), sandbox.netns(1), "10.1.0.11".parse().unwrap(), 20 << 20);
            tcp(sandbox.netns(1), sandbox.netns(0), "fd00:1::10".parse().unwrap(), 20 << 20);
            let seen = wire.stop();
            for direction in &seen {
                assert!(direction.longest > 30_000, "no large frames: {seen:?}");
                assert_eq!((direction.refused, direction.report.refused, direction.report.full), (0, 0, 0));
            }
        }
    }

    #[test]
    fn open_connections_survive_a_daemon_that_dies_and_comes_back() {
        let sandbox = Sandbox::new(2);
        let start = || {
            let (mut one, mut two) = (port(&sandbox, 0, 1500, 1), port(&sandbox, 1, 1500, 1));
            let wire = Wire::new([&mut one, &mut two]);
            (wire, one, two)
        };
        let (wire, one, two) = start();
        let mut connections = ["10.1.0.11", "fd00:1::11"]
            .map(|address| connection(sandbox.netns(0), sandbox.netns(1), address.parse().unwrap()));
        connections.iter_mut().for_each(|connection| exchange(connection, b"before"));
        // Dropped without `close`, as when the process dies.
        wire.stop();
        drop((one, two));
        let (wire, ..) = start();
        connections.iter_mut().for_each(|connection| exchange(connection, b"after"));
        wire.stop();
    }

    #[test]
    fn an_interface_that_is_set_down_or_deleted_shows() {
        let sandbox = Sandbox::new(2);
        let (mut one, mut two) = (port(&sandbox, 0, 1500, 1), port(&sandbox, 1, 1500, 1));
        assert!(one.link().up);
        sandbox.ip(0, &["link", "set", "eth0", "down"]);
        assert!(one.link().reason.contains("set its interface"), "{:?}", one.link());
        let wire = Wire::new([&mut one, &mut two]);
        sandbox.ip(0, &["link", "del", "eth0"]);
        assert!(wire.fault().reason.contains("deleted"));
        assert!(one.link().reason.contains("deleted"), "{:?}", one.link());
    }

    #[test]
    fn a_deleted_namespace_shows_and_closing_twice_over_is_fine() {
        let sandbox = Sandbox::new(1);
        let port = port(&sandbox, 0, 1500, 1);
        drop(sandbox);
        assert!(port.link().reason.contains("namespace"), "{:?}", port.link());
        Box::new(port).close(Fate::Remove).unwrap();
    }
}
