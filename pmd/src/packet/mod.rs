//! `packet`: any device that the kernel has, by AF_PACKET with virtio-net headers.
//!
//! Frames of up to 64 KB with partial checksums pass both ways, so a veth keeps all its offloads. A packet
//! socket takes nothing away from the kernel's own stack; the device is closed to it while the port is open
//! (see [`crate::netdev::ingress`]), and given back when the port ends.
//!
//! VLAN tags, which the kernel strips from a frame into a field of its own, are put back before anybody sees
//! the frame. Several queues are several sockets in one fan-out group, one flow always on the same.

mod open;
mod rx;
mod tx;

pub use open::{OpenPacket, PacketConfig, open, open_device, release};

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::netdev::link::Change;
use crate::netdev::{self, Anchor, Device, Links, Netns, ingress};
use crate::offload::Features;
use crate::port::{Fate, Fault, Link, Port, RxQueue, TxQueue};

/// An open device as a port.
pub struct PacketPort {
    device: Device,
    anchor: Option<Anchor>,
    sockets: Vec<Arc<OwnedFd>>,
    closed: bool,
    raised: bool,
    features: Features,
    taken: (bool, bool),
}

impl PacketPort {
    /// A port over what [`open`] opened; needs no privilege, but for giving the device back.
    pub fn new(open: OpenPacket) -> PacketPort {
        PacketPort {
            anchor: open.anchor,
            device: open.device,
            sockets: open.sockets.into_iter().map(Arc::new).collect(),
            closed: open.closed,
            raised: open.raised,
            features: open.features,
            taken: (false, false),
        }
    }

    /// The device's plain values.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Undoes what opening did to the device. A device that is gone needs nothing.
    fn give_back(&self) -> Result<(), netdev::Error> {
        if self.anchor.as_ref().is_some_and(|anchor| !anchor.holds()) {
            return Ok(());
        }
        let netns = Netns::open_or_own(self.device.netns.as_deref())?;
        if self.raised {
            let mut links = Links::open(&netns)?;
            if let Some(link) = links.find_index(self.device.index)? {
                links.change(&link, &[Change::Up(false)])?;
            }
        }
        if self.closed { ingress::reopen(&netns, &self.device.name) } else { Ok(()) }
    }
}

impl Port for PacketPort {
    fn kind(&self) -> &'static str {
        "packet"
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
            Ok(link) if !link.up => Link::down(format!("device {:?} is set down", link.name)),
            Ok(link) if !link.carrier => Link::down(format!("device {:?} has no carrier", link.name)),
            Ok(_) => Link::up(),
            Err(reason) => Link::gone(reason),
        }
    }

    fn take_rx(&mut self) -> Vec<Box<dyn RxQueue>> {
        if std::mem::replace(&mut self.taken.0, true) {
            return Vec::new();
        }
        self.sockets.iter().map(|socket| Box::new(rx::Rx::new(socket.clone())) as Box<dyn RxQueue>).collect()
    }

    fn take_tx(&mut self) -> Vec<Box<dyn TxQueue>> {
        if std::mem::replace(&mut self.taken.1, true) {
            return Vec::new();
        }
        self.sockets.iter().map(|socket| Box::new(tx::Tx::new(socket.clone())) as Box<dyn TxQueue>).collect()
    }

    fn close(mut self: Box<Self>, _fate: Fate) -> Result<(), Fault> {
        // Nobody listens any more before the stack does again: no frame is answered twice.
        self.sockets.clear();
        self.give_back().map_err(|error| Fault::new(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::Error;
    use crate::netdev::testing::{Sandbox, Wire, tcp};

    /// Two containers, each with a veth whose other end lies in a namespace that plays the host.
    fn containers() -> Sandbox {
        let sandbox = Sandbox::new(3);
        for i in [1, 2] {
            let end = format!("h{i}");
            sandbox.ip(0, &["link", "add", &end, "type", "veth", "peer", "eth0", "netns", sandbox.name(i)]);
            sandbox.ip(i, &["link", "set", "eth0", "up"]);
            sandbox.ip(i, &["addr", "add", &format!("10.1.0.{i}/24"), "dev", "eth0"]);
        }
        sandbox
    }

    fn config(sandbox: &Sandbox, device: &str) -> PacketConfig {
        let netns = Some(sandbox.name(0).into());
        PacketConfig { device: device.into(), netns, queues: 1, exclusive: false }
    }

    fn port(sandbox: &Sandbox, device: &str) -> PacketPort {
        PacketPort::new(open(&config(sandbox, device)).unwrap())
    }

    #[test]
    fn a_device_is_taken_and_given_back_as_it_was() {
        let sandbox = containers();
        let one = port(&sandbox, "h1");
        assert!(one.link().up && one.mtu() == 1500);
        assert!(sandbox.exec(0, &["nft", "list", "ruleset"]).1.contains("vswitch-h1"));
        Box::new(one).close(Fate::Leave).unwrap();
        assert_eq!(sandbox.exec(0, &["nft", "list", "ruleset"]).1, "");
        assert!(sandbox.ip(0, &["link", "show", "h1"]).contains("state DOWN"));
    }

    #[test]
    fn a_device_that_a_killed_switch_held_is_taken_again_or_released() {
        let sandbox = containers();
        // Dropped without `close`, as when the process dies.
        drop(port(&sandbox, "h1"));
        assert!(sandbox.exec(0, &["nft", "list", "ruleset"]).1.contains("vswitch-h1"));
        drop(port(&sandbox, "h1"));
        for _ in 0..2 {
            release(Some(sandbox.name(0)), "h1").unwrap();
            assert_eq!(sandbox.exec(0, &["nft", "list", "ruleset"]).1, "");
        }
        release(Some("vs-no-such"), "h1").unwrap();
    }

    #[test]
    fn a_device_that_the_host_uses_is_refused_with_the_reason() {
        let sandbox = containers();
        sandbox.ip(0, &["addr", "add", "192.0.2.7/24", "dev", "h1"]);
        let text = open(&config(&sandbox, "h1")).unwrap_err().to_string();
        assert!(text.contains("192.0.2.7/24") && text.contains("exclusive = true"), "{text}");
        open(&PacketConfig { exclusive: true, ..config(&sandbox, "h1") }).unwrap();
        sandbox.ip(0, &["link", "add", "br0", "type", "bridge"]);
        sandbox.ip(0, &["link", "set", "h2", "master", "br0"]);
        let text = open(&config(&sandbox, "h2")).unwrap_err().to_string();
        assert!(text.contains("member of the host's \"br0\""), "{text}");
        assert!(matches!(open(&config(&sandbox, "lo")).unwrap_err(), Error::Invalid { .. }));
        let text = open(&config(&sandbox, "eth9")).unwrap_err().to_string();
        assert!(text.contains("\"eth9\" does not exist") && text.contains("h1"), "{text}");
    }

    #[test]
    fn trains_that_a_device_cannot_cut_are_cut_by_the_kernel() {
        let sandbox = containers();
        let (mut one, mut two) = (port(&sandbox, "h1"), port(&sandbox, "h2"));
        let wire = Wire::new([&mut one, &mut two]);
        let off = ["ethtool", "-K", "h2", "tso", "off", "tx-udp-segmentation", "off"];
        assert!(sandbox.exec(0, &off).0);
        tcp(sandbox.netns(1), sandbox.netns(2), "10.1.0.2".parse().unwrap(), 20 << 20);
        let [there, _] = wire.stop();
        assert!(there.longest > 30_000, "no large frames: {there:?}");
        assert_eq!((there.report.full, there.report.refused, there.report.down), (0, 0, 0));
    }

    #[test]
    fn tagged_trains_keep_their_tags() {
        let sandbox = containers();
        sandbox.ip(0, &["link", "add", "m1", "type", "veth", "peer", "m2"]);
        let mut ports = ["h1", "m1", "m2", "h2"].map(|device| port(&sandbox, device));
        let [h1, m1, m2, h2] = &mut ports;
        let (there, back) = (Wire::tagging([h1, m1]), Wire::tagging([h2, m2]));
        tcp(sandbox.netns(1), sandbox.netns(2), "10.1.0.2".parse().unwrap(), 20 << 20);
        there.stop();
        let [_, tagged] = back.stop();
        // The devices in the middle greet their neighbours (MLD, router solicitations) without a tag.
        assert!(tagged.tagged > 100 && tagged.frames - tagged.tagged < 20, "{tagged:?}");
        assert!(tagged.longest > 30_000, "{tagged:?}");
        assert_eq!((tagged.refused, tagged.report.refused, tagged.report.down), (0, 0, 0));
    }

    #[test]
    fn a_device_set_down_recovers_and_a_deleted_one_is_gone() {
        let sandbox = containers();
        let (mut one, mut two) = (port(&sandbox, "h1"), port(&sandbox, "h2"));
        let wire = Wire::new([&mut one, &mut two]);
        tcp(sandbox.netns(1), sandbox.netns(2), "10.1.0.2".parse().unwrap(), 1 << 20);
        sandbox.ip(0, &["link", "set", "h1", "down"]);
        assert!(one.link().reason.contains("set down") && !one.link().gone, "{:?}", one.link());
        sandbox.ip(0, &["link", "set", "h1", "up"]);
        tcp(sandbox.netns(1), sandbox.netns(2), "10.1.0.2".parse().unwrap(), 1 << 20);
        sandbox.ip(0, &["link", "del", "h1"]);
        assert!(one.link().gone && one.link().reason.contains("deleted"));
        wire.stop();
        Box::new(one).close(Fate::Leave).unwrap();
    }
}
