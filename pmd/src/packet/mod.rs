//! `packet`: any device that the kernel has, by AF_PACKET with virtio-net headers.
//!
//! Frames of up to 64 KB with partial checksums pass both ways, so a veth keeps all its offloads. A packet
//! socket takes nothing away from the kernel's own stack; the device is closed to it while the port is open
//! (see [`crate::netdev::ingress`]), and given back when the port ends.
//!
//! Frames of ordinary size come by a ring in shared memory, so that asking for them is no system call; longer
//! ones by `recvmmsg`, so that their 64 KB are copied once, on the switch's core and not on the sender's.
//!
//! VLAN tags, which the kernel strips from a frame into a field of its own, are put back before anybody sees
//! the frame. Several queues are several sockets in one fan-out group, one flow always on the same.

mod open;
mod ring;
mod rx;
mod tx;

pub use open::{OpenPacket, OpenQueue, PacketConfig, open, open_device, release};

use std::sync::Arc;

use crate::netdev::link::Change;
use crate::netdev::{self, Anchor, Device, Links, Mtu, Netns, ingress};
use crate::offload::Features;
use crate::port::{Fate, Fault, Link, Port, RxQueue, TxQueue};

/// An open device as a port.
pub struct PacketPort {
    device: Device,
    anchor: Option<Anchor>,
    mtu: Mtu,
    rx: Vec<Box<dyn RxQueue>>,
    tx: Vec<Box<dyn TxQueue>>,
    closed: bool,
    raised: bool,
    features: Features,
}

impl PacketPort {
    /// A port over what [`open`] opened; needs no privilege, but for giving the device back.
    pub fn new(open: OpenPacket) -> PacketPort {
        let mut rx: Vec<Box<dyn RxQueue>> = Vec::new();
        let mut tx: Vec<Box<dyn TxQueue>> = Vec::new();
        for queue in open.queues {
            let socket = Arc::new(queue.socket);
            tx.push(Box::new(tx::Tx::new(socket.clone())));
            rx.push(Box::new(rx::Rx::new(socket, queue.ring)));
        }
        PacketPort {
            anchor: open.anchor,
            mtu: Mtu::new(&open.device, u32::MAX),
            device: open.device,
            rx,
            tx,
            closed: open.closed,
            raised: open.raised,
            features: open.features,
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
        self.mtu.get()
    }

    fn features(&self) -> Features {
        self.features
    }

    fn link(&self) -> Link {
        self.device.state(self.anchor.as_ref(), &self.mtu)
    }

    fn take_rx(&mut self) -> Vec<Box<dyn RxQueue>> {
        std::mem::take(&mut self.rx)
    }

    fn take_tx(&mut self) -> Vec<Box<dyn TxQueue>> {
        std::mem::take(&mut self.tx)
    }

    fn close(mut self: Box<Self>, _fate: Fate) -> Result<(), Fault> {
        // Nobody listens any more before the stack does again: no frame is answered twice.
        self.rx.clear();
        self.tx.clear();
        self.give_back().map_err(|error| Fault::new(error.to_string()))
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::arena::{Arena, HEADROOM, HugePages};
    use crate::batch::{BATCH, RxMemory};
    use crate::gather::{Burst, Prefixes, TxItem};
    use crate::netdev::testing::{Sandbox, Wire, tcp, wait_until};
    use crate::netdev::{Error, Settings};
    use crate::offload::Offload;
    use crate::port::Source;
    use crate::tap::TapConfig;
    use crate::virtio::HEADER;

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
        sandbox.ip(0, &["tuntap", "add", "tun0", "mode", "tun"]);
        for device in ["lo", "tun0"] {
            assert!(
                matches!(open(&config(&sandbox, device)).unwrap_err(), Error::Invalid { .. }),
                "{device}"
            );
        }
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

    /// A wire of two devices in the sandbox's first namespace, both opened.
    fn middle(sandbox: &Sandbox) -> [PacketPort; 2] {
        sandbox.ip(0, &["link", "add", "m1", "mtu", "9000", "type", "veth", "peer", "m2", "mtu", "9000"]);
        // No greetings (MLD, router solicitations) beside the test's own frames.
        assert!(sandbox.exec(0, &["sysctl", "-w", "net.ipv6.conf.default.disable_ipv6=1"]).0);
        for device in ["m1", "m2"] {
            sandbox.ip(0, &["link", "set", device, "addrgenmode", "none"]);
        }
        let ports = ["m1", "m2"].map(|device| port(sandbox, device));
        let is_up =
            |port: &PacketPort| sandbox.ip(0, &["link", "show", &port.device.name]).contains("state UP");
        wait_until("the wire to be up", || ports.iter().all(is_up));
        ports
    }

    /// Sends a frame of each length, every byte behind the addresses telling its number; how many went.
    fn send(tx: &mut dyn TxQueue, lengths: &[usize]) -> u32 {
        let (arena, mut memory) = (Arena::new(64, HugePages::Off).unwrap(), RxMemory::new());
        let (mut pool, prefixes, mut sent) = (arena.pool(), Prefixes::default(), 0);
        for (number, len) in lengths.iter().enumerate() {
            let (mut batch, mut scratch) = memory.lend();
            let frame = scratch.take(HEADROOM + len);
            frame[HEADROOM..].fill(number as u8);
            frame[HEADROOM..HEADROOM + 14].copy_from_slice(b"\x02abcde\x02ABCDE\x88\xb5");
            batch.push_private(frame, HEADROOM, Offload::NONE);
            let items = [TxItem::exclusive(0)];
            let mut burst = Burst::new(&mut batch, &items, &prefixes, Features::VIRTIO);
            sent += tx.transmit(&mut burst, &mut pool).sent;
        }
        sent
    }

    /// Receives until nothing comes any more: length and number of each frame.
    fn receive(rx: &mut dyn RxQueue) -> Vec<(usize, u8)> {
        let (arena, mut memory) = (Arena::new(64, HugePages::Off).unwrap(), RxMemory::new());
        let (mut pool, mut got) = (arena.pool(), Vec::new());
        loop {
            let batch = rx.receive(&mut memory, &mut pool, BATCH).unwrap();
            if batch.is_blank() {
                return got;
            }
            for i in 0..batch.len() {
                let (head, len) = (batch.head(i), batch.frame_len(i));
                assert!(head[14..].iter().all(|byte| *byte == head[14]), "frame {} is mixed", head[14]);
                got.push((len, head[14]));
            }
        }
    }

    /// The sender's address of each frame that has come.
    fn sources(rx: &mut dyn RxQueue) -> Vec<[u8; 6]> {
        let (arena, mut memory) = (Arena::new(64, HugePages::Off).unwrap(), RxMemory::new());
        let batch = rx.receive(&mut memory, &mut arena.pool(), BATCH).unwrap();
        (0..batch.len()).filter_map(|i| batch.head(i)[6..12].try_into().ok()).collect()
    }

    #[test]
    fn frames_in_the_ring_and_longer_ones_come_whole_and_in_order() {
        let sandbox = Sandbox::new(1);
        let [mut one, mut two] = middle(&sandbox);
        let (mut tx, mut rx) = (one.take_tx(), two.take_rx());
        // 1972 bytes are the most that a slot holds.
        let lengths: Vec<usize> =
            [60, 1973, 1972, 9014, 9014, 60, 1514, 5000].into_iter().cycle().take(200).collect();
        // More frames than the ring has slots.
        for round in 0..12 {
            assert_eq!(send(tx[0].as_mut(), &lengths), 200);
            let expected: Vec<_> = (0..).zip(&lengths).map(|(number, len)| (*len, number)).collect();
            assert_eq!(receive(rx[0].as_mut()), expected, "round {round}");
        }
        assert_eq!(rx[0].missed(), 0);
    }

    #[test]
    fn frames_that_a_full_ring_or_a_full_queue_has_no_room_for_are_missed_and_the_others_kept() {
        let sandbox = Sandbox::new(1);
        let [mut one, mut two] = middle(&sandbox);
        let (mut tx, mut rx) = (one.take_tx(), two.take_rx());
        assert_eq!(send(tx[0].as_mut(), &[60; 2100]), 2100);
        assert_eq!((receive(rx[0].as_mut()).len(), rx[0].missed()), (2048, 52));
        rx[0].check().unwrap();

        // The queue takes no frame any more once it holds so many bytes.
        let Source::Descriptor(socket) = rx[0].source() else { panic!("no descriptor") };
        let bytes: libc::c_int = 4096;
        // SAFETY: reads an integer that outlives the call.
        let outcome = unsafe {
            let value = (&raw const bytes).cast();
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, value, 4)
        };
        assert_eq!(outcome, 0);
        assert_eq!(send(tx[0].as_mut(), &[9014, 9014, 60, 9014]), 4);
        assert_eq!(receive(rx[0].as_mut()), [(9014, 0), (60, 2)]);
        assert_eq!(rx[0].missed(), 54);
        rx[0].check().unwrap();
        rx[0].check().unwrap();
    }

    #[test]
    fn a_ring_that_a_frame_without_a_virtio_net_header_has_stuck_is_found() {
        let sandbox = Sandbox::new(1);
        let netns = Some(sandbox.name(0).into());
        let config = TapConfig { port: "t".into(), netns, settings: Settings::default(), queues: 1 };
        let mut tap = std::fs::File::from(crate::tap::open(&config).unwrap().queues.remove(0));
        let mut one = port(&sandbox, "eth0");
        let mut rx = one.take_rx();
        // UDP of 3000 bytes, to be fragmented (VIRTIO_NET_HDR_GSO_UDP), its checksum at 34 + 6.
        let mut large = vec![0; HEADER + 3042];
        large[..12].copy_from_slice(&[1, 3, 42, 0, 0xe8, 3, 34, 0, 6, 0, 0, 0]);
        large[HEADER..HEADER + 38].copy_from_slice(
            b"\x02abcde\x02ABCDE\x08\0E\0\x0b\xd4\0\0\0\0@\x11\0\0\x0a\0\0\x01\x0a\0\0\x02\0\x07\0\x07",
        );
        let mut plain = vec![0; HEADER + 60];
        plain[HEADER..HEADER + 14].copy_from_slice(b"\x02abcde\x02ABCDE\x88\xb5");
        let mut write = |frame: &[u8]| assert_eq!(tap.write(frame).unwrap(), frame.len());

        write(&plain);
        wait_until("the frame", || rx[0].missed() == 0 && one.link().up);
        assert_eq!(receive(rx[0].as_mut()).len(), 1);
        write(&large);
        rx[0].check().unwrap();
        write(&plain);
        assert_eq!(receive(rx[0].as_mut()), []);
        let text = rx[0].check().unwrap_err().to_string();
        assert!(text.contains("stuck") && rx[0].missed() == 2, "{text}");
        // The next opening hears again.
        drop((rx, one));
        let mut rx = port(&sandbox, "eth0").take_rx();
        write(&plain);
        assert_eq!(receive(rx[0].as_mut()).len(), 1);
        rx[0].check().unwrap();
    }

    #[test]
    fn what_the_host_sends_by_the_device_is_not_received_by_any_number_of_queues() {
        let sandbox = containers();
        sandbox.ip(0, &["addr", "add", "10.1.0.9/24", "dev", "h1"]);
        for queues in [1, 2] {
            let config = PacketConfig { queues, exclusive: true, ..config(&sandbox, "h1") };
            let mut one = PacketPort::new(open(&config).unwrap());
            let mut rx = one.take_rx();
            assert_eq!(rx.len(), usize::from(queues));
            sandbox.ip(0, &["neigh", "replace", "10.1.0.1", "lladdr", "02:00:00:00:00:01", "dev", "h1"]);
            sandbox.exec(0, &["ping", "-c", "3", "-i", "0.05", "-W", "1", "10.1.0.1"]);
            let ours: Vec<_> = rx.iter_mut().flat_map(|rx| sources(rx.as_mut())).collect();
            assert!(!ours.contains(&one.device.mac), "{queues} queues: {ours:?}");
        }
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
        sandbox.ip(0, &["link", "set", "h1", "mtu", "1400"]);
        assert!(one.link().up && one.mtu() == 1400, "{:?}", one.link());
        sandbox.ip(0, &["link", "del", "h1"]);
        assert!(one.link().gone && one.link().reason.contains("deleted"));
        wire.stop();
        Box::new(one).close(Fate::Leave).unwrap();
    }
}
