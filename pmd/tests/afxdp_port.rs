//! The AF_XDP driver between real network stacks: containers on veth pairs, our ports on the host ends.
//!
//! Needs root. A loop of a few lines stands for the switch.
#![allow(unsafe_code, clippy::unwrap_used)]

mod lab;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lab::{Container, FAR, NEAR, RawEnd, eventually, frame, ip, private_pair};
use pmd::afxdp::{AfxdpConfig, AfxdpPort, Mode, OpenError, Purpose, complete_far_end, open, open_host_end};
use pmd::netdev::Settings;
use pmd::veth::{self, VethConfig, VethPort};
use pmd::{
    Arena, BATCH, Burst, Checksum, Fate, Features, HugePages, Offload, Port, Prefixes, RxMemory, RxQueue,
    Taken, TxItem, TxQueue, TxReport,
};

/// How long a connection may stand still.
const PATIENCE: Duration = Duration::from_secs(15);

fn arena() -> Arena {
    Arena::new(8192, HugePages::Off).unwrap()
}

fn port(device: &str, purpose: Purpose, arena: &Arena) -> Result<AfxdpPort, OpenError> {
    port_on(device, None, purpose, arena)
}

fn port_on(
    device: &str,
    queues: Option<u32>,
    purpose: Purpose,
    arena: &Arena,
) -> Result<AfxdpPort, OpenError> {
    let config = AfxdpConfig { netns: None, device: device.into(), queues, mode: Mode::Auto, purpose };
    open(&config, arena).map(AfxdpPort::new)
}

fn queues(port: &mut AfxdpPort) -> (Box<dyn RxQueue>, Box<dyn TxQueue>) {
    (port.take_rx().remove(0), port.take_tx().remove(0))
}

/// Forwards one burst; gives how many frames came, and the report.
fn forward(
    from: &mut dyn RxQueue,
    to: &mut dyn TxQueue,
    memory: &mut RxMemory,
    pool: &mut pmd::Pool,
    features: Features,
) -> (usize, TxReport) {
    let prefixes = Prefixes::default();
    let mut batch = from.receive(memory, pool, BATCH).unwrap();
    let count = batch.len();
    let items: Vec<TxItem> = (0..count).map(|i| TxItem::whole(&batch, i, true)).collect();
    let mut burst = Burst::new(&mut batch, &items, &prefixes, features);
    let report = if count > 0 { to.transmit(&mut burst, pool) } else { TxReport::default() };
    assert_eq!(report.total() as usize, count);
    batch.recycle(pool);
    from.release(pool);
    to.maintain(pool);
    (count, report)
}

/// Two containers and the loop between their ports.
struct Rig {
    one: Container,
    two: Container,
    stop: Arc<AtomicBool>,
    forwarder: Option<JoinHandle<()>>,
}

impl Rig {
    /// `features` is what the loop believes the ports to have.
    fn new(mtu: u32, features: impl Fn(Features) -> Features) -> Self {
        // SAFETY: no pointers; concerns this thread alone.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
        let (one, two) = (Container::new(1, mtu), Container::new(2, mtu));
        let arena = arena();
        let mut ports = [&one, &two].map(|c| port(&c.device, Purpose::Closed, &arena).unwrap());
        let believed = features(ports[0].features());
        let [(mut rx1, mut tx1), (mut rx2, mut tx2)] = ports.each_mut().map(queues);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let forwarder = std::thread::spawn(move || {
            let (mut memory, mut pool) = (RxMemory::new(), arena.pool());
            while !stopped.load(Ordering::Relaxed) {
                let there = forward(&mut *rx1, &mut *tx2, &mut memory, &mut pool, believed).0;
                let back = forward(&mut *rx2, &mut *tx1, &mut memory, &mut pool, believed).0;
                if there + back == 0 && !rx1.arm() && !rx2.arm() {
                    std::thread::yield_now();
                }
            }
            drop((rx1, tx1, rx2, tx2));
            for port in ports {
                Box::new(port).close(Fate::Leave).unwrap();
            }
            drop(pool);
            assert_eq!(arena.free(), arena.frames(), "frames that did not come home");
        });
        Rig { one, two, stop, forwarder: Some(forwarder) }
    }

    /// Sends `bytes` from the first container to the second and back, and compares.
    fn tcp_echo(&self, address: &'static str, bytes: usize) {
        let listener = self.two.spawn(move || TcpListener::bind((address, 4711)).unwrap()).join().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            stream.write_all(&got).unwrap();
        });
        let sent: Vec<u8> = (0..bytes).map(|i| (i * 31 + i / 251) as u8).collect();
        let copy = sent.clone();
        let client = self.one.spawn(move || {
            let place = (address, 4711).to_socket_addrs().unwrap().next().unwrap();
            let mut stream = TcpStream::connect_timeout(&place, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&copy).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).unwrap();
            back
        });
        assert!(client.join().unwrap() == sent, "bytes changed on the way");
        server.join().unwrap();
    }

    /// Segments that a receiver threw away for their checksum.
    fn checksum_errors(&self) -> u64 {
        [&self.one, &self.two]
            .iter()
            .map(|container| {
                let (_, text) = container.run(&["cat", "/proc/net/snmp"]);
                let tcp: Vec<&str> = text.lines().filter(|line| line.starts_with("Tcp:")).collect();
                let column = tcp[0].split(' ').position(|name| name == "InCsumErrors").unwrap();
                tcp[1].split(' ').nth(column).unwrap().parse::<u64>().unwrap()
            })
            .sum()
    }

    fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.forwarder.take().unwrap().join().unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Partial checksums are recognised and handed on for the kernel to finish, or completed by us; TCP is right with
/// the containers' default offloads either way.
#[test]
fn tcp_crosses_with_default_offloads() {
    for (mtu, without) in [
        (1500, Features::NONE),
        (9000, Features::NONE),
        (1500, Features::CHECKSUM),
        (9000, Features::CHECKSUM),
    ] {
        let rig = Rig::new(mtu, |features| features.without(without));
        for address in ["10.77.0.2", "fd77::2"] {
            let (ok, text) = rig.one.run(&["ping", "-c", "3", "-i", "0.02", "-W", "2", address]);
            assert!(ok, "{text}");
            rig.tcp_echo(address, 8 << 20);
        }
        assert_eq!(rig.checksum_errors(), 0);
        rig.finish();
    }
}

/// The container's own tunnel: the checksum that is left to us lies in the inner frame.
#[test]
fn tcp_crosses_inside_a_containers_tunnel() {
    let rig = Rig::new(1500, |features| features);
    for (container, own, other) in [(&rig.one, 1, 2), (&rig.two, 2, 1)] {
        let name = container.name.as_str();
        ip(&[
            "-n",
            name,
            "link",
            "add",
            "vx0",
            "type",
            "vxlan",
            "id",
            "7",
            "dstport",
            "4789",
            "remote",
            &format!("10.77.0.{other}"),
            "dev",
            "eth0",
        ]);
        ip(&["-n", name, "addr", "add", &format!("10.78.0.{own}/24"), "dev", "vx0"]);
        ip(&["-n", name, "link", "set", "vx0", "up"]);
    }
    rig.tcp_echo("10.78.0.2", 4 << 20);
    assert_eq!(rig.checksum_errors(), 0);
    rig.finish();
}

/// A frame with a VLAN tag arrives with it.
#[test]
fn tags_of_a_trunk_arrive() {
    private_pair(1500);
    let arena = arena();
    let mut near = port(NEAR, Purpose::Closed, &arena).unwrap();
    let (mut rx, mut tx) = queues(&mut near);
    let outside = RawEnd::new(FAR);
    let mut tagged = frame(1, 60);
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    outside.send(&tagged);
    let (mut memory, mut pool) = (RxMemory::new(), arena.pool());
    let got = eventually(|| {
        let batch = rx.receive(&mut memory, &mut pool, BATCH).unwrap();
        let first = (!batch.is_empty()).then(|| batch.head(0).to_vec());
        batch.recycle(&mut pool);
        first
    });
    assert_eq!(got.unwrap(), tagged);
    assert_eq!(send(&mut *tx, &arena, &tagged).sent, 1);
    assert!(outside.receive().is_some());
}

/// A container's kernel can be told to write its tags and the CRC of SCTP into the frames.
#[test]
fn a_far_end_completes_its_frames() {
    private_pair(1500);
    let offloads = || {
        let output = std::process::Command::new("ethtool").args(["-k", FAR]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        ["tx-vlan-offload:", "tx-checksum-sctp:", "tx-checksum-ip-generic:"]
            .map(|name| text.split(name).nth(1).unwrap().trim_start().starts_with("on"))
    };
    assert_eq!(offloads(), [true, true, true]);
    complete_far_end(None, FAR).unwrap();
    assert_eq!(offloads(), [false, false, true]);
    complete_far_end(None, FAR).unwrap();
    assert!(complete_far_end(None, "vxnone").unwrap_err().to_string().contains("vxnone"));
}

/// The host end of a pair that we made talks to nobody but the switch, with the port open and after it.
#[test]
fn a_host_end_is_closed_to_the_host() {
    // SAFETY: no pointers; concerns this thread alone.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    ip(&["link", "set", "lo", "up"]);
    ip(&["addr", "add", "10.77.0.254/32", "dev", "lo"]);
    let container = Container::bare(9);
    let config = VethConfig {
        port: format!("{}-closed", container.name),
        netns: Some(container.name.clone()),
        settings: Settings { addresses: vec!["10.77.0.9/24".parse().unwrap()], ..Settings::default() },
    };
    let ping = || container.run(&["ping", "-c", "2", "-i", "0.05", "-W", "1", "10.77.0.254"]).0;
    let arena = arena();
    let pair = veth::open(&config).unwrap();
    let mut near = AfxdpPort::new(open_host_end(&pair, 1, Mode::Auto, &arena).unwrap());
    let (mut rx, _tx) = queues(&mut near);
    assert!(!ping(), "the host answered past the switch");
    let (mut memory, mut pool) = (RxMemory::new(), arena.pool());
    let asked = eventually(|| {
        let batch = rx.receive(&mut memory, &mut pool, BATCH).unwrap();
        let arp = (0..batch.len()).any(|i| batch.head(i)[12..14] == [0x08, 0x06]);
        batch.recycle(&mut pool);
        arp.then_some(())
    });
    asked.expect("the container's ARP request reaches the switch");
    drop((rx, _tx));
    Box::new(near).close(Fate::Leave).unwrap();
    assert!(!ping(), "the host answered while the switch was away");
    // Adopted, and removed in the end.
    let pair = veth::open(&config).unwrap();
    assert!(pair.adopted);
    let port = AfxdpPort::new(open_host_end(&pair, 1, Mode::Auto, &arena).unwrap());
    Box::new(VethPort::new(pair, Box::new(port))).close(Fate::Remove).unwrap();
    assert!(!container.run(&["ip", "link"]).1.contains("eth0"));
}

/// Whatever happens to the device, the queues say so and the frames come home.
#[test]
fn a_deleted_device_is_a_fault() {
    private_pair(1500);
    let arena = arena();
    let mut near = port(NEAR, Purpose::Host { exclusive: false }, &arena).unwrap();
    assert_eq!((near.kind(), near.mode(), near.mtu()), ("afxdp", "copy", 1500));
    assert!(near.link().up);
    let (mut rx, mut tx) = queues(&mut near);
    let (mut memory, mut pool) = (RxMemory::new(), arena.pool());
    ip(&["link", "del", FAR]);
    assert!(!near.link().up);
    assert!(near.link().reason.contains("deleted"), "{}", near.link().reason);
    assert!(rx.arm(), "must not sleep on a device that is gone");
    let fault = rx.receive(&mut memory, &mut pool, BATCH).err().unwrap();
    assert!(fault.reason.contains("gone"), "{fault}");
    for _ in 0..2 {
        let report = send(&mut *tx, &arena, &frame(1, 60));
        assert_eq!(report.total(), 1);
    }
    assert_eq!(send(&mut *tx, &arena, &frame(1, 60)).down, 1);
    assert!(!tx.maintain(&mut pool), "nothing will come of it");
    drop((rx, tx, pool, memory));
    Box::new(near).close(Fate::Leave).unwrap();
    assert_eq!(arena.free(), arena.frames());
}

/// Sends one frame out of scratch memory.
fn send(tx: &mut dyn TxQueue, arena: &Arena, bytes: &[u8]) -> TxReport {
    send_with(tx, arena, bytes, Checksum::None, Features::NONE)
}

fn send_with(
    tx: &mut dyn TxQueue,
    arena: &Arena,
    bytes: &[u8],
    checksum: Checksum,
    features: Features,
) -> TxReport {
    let (mut memory, mut pool, prefixes) = (RxMemory::new(), arena.pool(), Prefixes::default());
    let (mut batch, mut scratch) = memory.lend();
    let copy = scratch.take(bytes.len());
    copy.copy_from_slice(bytes);
    batch.push_private(copy, 0, Offload { checksum, ..Offload::NONE });
    let items = [TxItem::whole(&batch, 0, true)];
    let mut burst = Burst::new(&mut batch, &items, &prefixes, features);
    tx.transmit(&mut burst, &mut pool)
}

#[test]
fn what_the_device_cannot_take_is_refused() {
    private_pair(9000);
    let arena = arena();
    let mut near = port(NEAR, Purpose::Closed, &arena).unwrap();
    let outside = RawEnd::new(FAR);
    let (_rx, mut tx) = queues(&mut near);
    assert_eq!(send(&mut *tx, &arena, &frame(1, 14)[..13]).refused, 1);
    assert_eq!(send(&mut *tx, &arena, &frame(2, 70)).sent, 1);
    assert_eq!(send(&mut *tx, &arena, &frame(3, 9014)).sent, 1);
    // A checksum field outside the frame's first buffer.
    let beyond = Checksum::Partial { start: 3839, offset: 6 };
    if near.features().contains(Features::CHECKSUM) {
        assert_eq!(send_with(&mut *tx, &arena, &frame(4, 9000), beyond, near.features()).refused, 1);
    }
    assert_eq!(outside.receive().unwrap(), frame(2, 70));
    assert_eq!(outside.receive().unwrap(), frame(3, 9014));
    assert_eq!(outside.try_receive(), None);
}

/// A full tx ring drops, and what was sent comes back to whoever reaps it.
#[test]
fn a_device_that_is_down_drops_and_recovers() {
    private_pair(1500);
    let arena = arena();
    let mut near = port(NEAR, Purpose::Closed, &arena).unwrap();
    let outside = RawEnd::new(FAR);
    let (_rx, mut tx) = queues(&mut near);
    ip(&["link", "set", NEAR, "down"]);
    let first = send(&mut *tx, &arena, &frame(1, 60));
    assert_eq!(first.total(), 1);
    assert_eq!(send(&mut *tx, &arena, &frame(2, 60)).down, 1);
    assert!(!near.link().up);
    ip(&["link", "set", NEAR, "up"]);
    let sent = eventually(|| (send(&mut *tx, &arena, &frame(3, 60)).sent == 1).then_some(()));
    sent.unwrap();
    let seen = eventually(|| outside.try_receive().filter(|got| *got == frame(3, 60)));
    seen.unwrap();
    let mut pool = arena.pool();
    eventually(|| (!tx.maintain(&mut pool) && tx.outstanding() == 0).then_some(())).unwrap();
}

#[test]
fn a_device_of_the_host_is_not_taken_by_accident() {
    private_pair(1500);
    ip(&["addr", "add", "192.0.2.7/24", "dev", NEAR]);
    let arena = arena();
    let refused = port(NEAR, Purpose::Host { exclusive: false }, &arena).err().unwrap().to_string();
    assert!(refused.contains("192.0.2.7/24") && refused.contains("exclusive = true"), "{refused}");
    port(NEAR, Purpose::Host { exclusive: true }, &arena).unwrap();
    let missing = port("vxnone", Purpose::Host { exclusive: false }, &arena).err().unwrap().to_string();
    assert!(missing.contains("vxnone") && missing.contains(NEAR), "{missing}");
    assert_eq!(arena.free(), arena.frames(), "a failed opening keeps nothing");
}

/// An IP packet in a frame, with what stands first behind its header: the ports of UDP, or GRE's flags and what is inside.
fn packet(vlan: Option<u16>, to: IpAddr, protocol: u8, port: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(vlan.into_iter().flat_map(|vlan| [0x81, 0, (vlan >> 8) as u8, vlan as u8]));
    match to {
        IpAddr::V4(to) => {
            frame.extend([8, 0, 0x45, 0, 0, 48, 0, 0, 0x40, 0, 64, protocol, 0, 0, 192, 0, 2, 9]);
            frame.extend(to.octets());
        }
        IpAddr::V6(to) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 28, protocol, 64]);
            frame.extend([0x20; 16]);
            frame.extend(to.octets());
        }
    }
    match protocol {
        // A key, and what is inside.
        47 => frame.extend([0x20, 0, (port >> 8) as u8, port as u8, 0, 0x13, 0x88, 0]),
        _ => frame.extend([0xc0, 1, (port >> 8) as u8, port as u8, 0, 28, 0, 0]),
    }
    frame.extend([0x5a; 20]);
    frame
}

#[test]
fn a_shared_device_gives_what_is_selected_and_nothing_else() {
    private_pair(1500);
    let arena = arena();
    let mut near = port(NEAR, Purpose::Shared, &arena).unwrap();
    let (outside, host) = (RawEnd::new(FAR), RawEnd::new(NEAR));
    let (mut rx, _tx) = queues(&mut near);
    let (mut memory, mut pool) = (RxMemory::new(), arena.pool());
    let [four, six, other, near_four, near_six]: [IpAddr; 5] =
        ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.9", "2020:2020:2020:2020:2020:2020:2020:2020"]
            .map(|ip| ip.parse().unwrap());
    let taken = |vlan, to, protocol, port| Taken { to, from: None, protocol, port, vlan };
    let gre = |to, from| Taken { to, from: Some(from), protocol: 47, port: 0, vlan: None };
    let selection = [
        taken(None, four, 17, 4789),
        gre(six, near_six),
        gre(other, near_four),
        gre(four, other),
        taken(Some(7), six, 17, 6081),
    ];
    near.select(selection.into_iter().collect()).unwrap();
    for (vlan, to, protocol, port, is_ours) in [
        (None, four, 17, 4789, true),
        (None, six, 47, 0x6558, true),
        (None, other, 47, 0x6558, true),
        (Some(7), six, 17, 6081, true),
        (None, four, 17, 4790, false),
        (None, four, 6, 4789, false),
        // The host has GRE of its own: IPv4 inside, and with others.
        (None, six, 47, 0x0800, false),
        (None, four, 47, 0x6558, false),
        (None, other, 17, 4789, false),
        (None, six, 17, 6081, false),
        (Some(8), six, 17, 6081, false),
        (Some(7), four, 17, 4789, false),
    ] {
        let frame = packet(vlan, to, protocol, port);
        outside.send(&frame);
        if is_ours {
            let got = eventually(|| {
                let batch = rx.receive(&mut memory, &mut pool, BATCH).unwrap();
                (batch.len() == 1).then(|| batch.head(0).to_vec())
            });
            assert_eq!(got.unwrap(), frame);
            assert_eq!(host.try_receive(), None, "the host has it, too");
        } else {
            // The kernel has taken the tag off.
            let got = host.receive().unwrap();
            assert!(got.ends_with(&frame[if vlan.is_some() { 16 } else { 12 }..]), "{got:02x?}");
            assert!(rx.receive(&mut memory, &mut pool, BATCH).unwrap().is_empty());
        }
    }
    near.select(Default::default()).unwrap();
    outside.send(&packet(None, four, 17, 4789));
    assert!(host.receive().is_some(), "nothing is selected any more");
}

/// A device of another namespace is driven from here, and given back there.
#[test]
fn a_device_elsewhere() {
    // SAFETY: no pointers; concerns this thread alone.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    let container = Container::new(5, 1500);
    let arena = arena();
    let config = AfxdpConfig {
        netns: Some(container.name.clone()),
        device: "eth0".into(),
        queues: None,
        mode: Mode::Auto,
        purpose: Purpose::Host { exclusive: true },
    };
    let programs = |container: &Container| {
        container.run(&["ip", "-d", "link", "show", "eth0"]).1.matches("prog/xdp").count()
    };
    let mut there = AfxdpPort::new(open(&config, &arena).unwrap());
    assert!(there.link().up);
    assert_eq!(programs(&container), 1);
    let (mut rx, tx) = queues(&mut there);
    RawEnd::new(&container.device).send(&frame(1, 99));
    let (mut memory, mut pool) = (RxMemory::new(), arena.pool());
    let got = eventually(|| {
        let batch = rx.receive(&mut memory, &mut pool, BATCH).unwrap();
        let ours = (0..batch.len()).any(|i| batch.head(i) == frame(1, 99));
        batch.recycle(&mut pool);
        ours.then_some(())
    });
    got.unwrap();
    drop((rx, tx));
    Box::new(there).close(Fate::Leave).unwrap();
    assert_eq!(programs(&container), 0);

    let there = AfxdpPort::new(open(&config, &arena).unwrap());
    ip(&["netns", "del", &container.name]);
    assert!(there.link().gone && there.link().reason.contains("deleted"), "{:?}", there.link());
    Box::new(there).close(Fate::Leave).unwrap();
    drop(pool);
    assert_eq!(arena.free(), arena.frames());
}

/// A pair as [`private_pair`], with two queues at each end.
fn private_pair_of_two_queues() {
    // SAFETY: no pointers; concerns this thread alone.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    let queues = "numrxqueues 2 numtxqueues 2";
    let line = format!("link add {NEAR} {queues} type veth peer name {FAR} {queues}");
    ip(&line.split(' ').collect::<Vec<_>>());
    for end in [NEAR, FAR] {
        ip(&["link", "set", end, "addrgenmode", "none", "up"]);
    }
}

/// Each rx queue has a socket; frames of all of them arrive, and each tx queue sends.
#[test]
fn several_queues() {
    private_pair_of_two_queues();
    let arena = arena();
    let mut near = port(NEAR, Purpose::Closed, &arena).unwrap();
    let outside = RawEnd::new(FAR);
    let (rx, mut tx) = (near.take_rx(), near.take_tx());
    assert_eq!((rx.len(), tx.len()), (2, 2));
    for (index, queue) in tx.iter_mut().enumerate() {
        assert_eq!(send(&mut **queue, &arena, &frame(index as u8, 60)).sent, 1);
        eventually(|| outside.try_receive().filter(|got| *got == frame(index as u8, 60))).unwrap();
    }
    drop((rx, tx));
    Box::new(near).close(Fate::Leave).unwrap();
    assert_eq!(arena.free(), arena.frames());
}

/// Frames of many flows, which the sender's kernel spreads over its queues.
fn send_flows(from: &RawEnd, flows: u8) {
    for flow in 0..flows {
        // IPv4 (RFC 791) with UDP (RFC 768) from a port of the flow's own; nobody looks at the rest.
        let mut udp = frame(flow, 60);
        udp[12..14].copy_from_slice(&[0x08, 0x00]);
        udp[14..34].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        udp[34..42].copy_from_slice(&[0x10, flow, 0, 9, 0, 26, 0, 0]);
        from.send(&udp);
    }
}

/// Frames on queues that were not taken stay with the kernel, and never leave a closed device.
#[test]
fn queues_that_nobody_took() {
    const FLOWS: u8 = 64;
    private_pair_of_two_queues();
    let arena = arena();
    let outside = RawEnd::new(FAR);
    let host = RawEnd::new(NEAR);
    // Asks for frames until both kinds together are `all`; how many the port and the host's kernel got.
    let seen = |purpose: Purpose, all: &dyn Fn(usize, usize) -> bool| {
        let mut near = port_on(NEAR, Some(1), purpose, &arena).unwrap();
        let (mut rx, tx) = (near.take_rx(), near.take_tx());
        assert_eq!((rx.len(), tx.len()), (1, 1));
        send_flows(&outside, FLOWS);
        let (mut ours, mut hosts) = (0, 0);
        let (mut memory, mut pool) = (RxMemory::new(), arena.pool());
        eventually(|| {
            let batch = rx[0].receive(&mut memory, &mut pool, BATCH).unwrap();
            ours += batch.len();
            batch.recycle(&mut pool);
            rx[0].release(&mut pool);
            hosts += usize::from(host.try_receive().is_some());
            all(ours, hosts).then_some(())
        });
        drop((rx, tx));
        Box::new(near).close(Fate::Leave).unwrap();
        (ours, hosts)
    };
    let all = usize::from(FLOWS);
    let (ours, hosts) = seen(Purpose::Host { exclusive: false }, &|ours, hosts| ours + hosts == all);
    assert_eq!(ours + hosts, all);
    assert!(ours > 0 && hosts > 0, "{ours} on the queue that was taken, {hosts} on the other");
    // The same flows take the same queues.
    assert_eq!(seen(Purpose::Closed, &|got, _| got == ours), (ours, 0));
    let text = port_on(NEAR, Some(3), Purpose::Closed, &arena).err().unwrap().to_string();
    assert!(text.contains("has 2 rx queues, not 3") && text.contains("queues = 2"), "{text}");
}

/// The ends of a pair that we made get as many queues as are asked for, if the machine has the CPUs for it.
#[test]
fn a_pair_gets_its_queues() {
    // SAFETY: no pointers; concerns this thread alone.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    let container = Container::bare(10);
    let config = VethConfig {
        port: format!("{}-queues", container.name),
        netns: Some(container.name.clone()),
        settings: Settings::default(),
    };
    let arena = arena();
    let pair = veth::open(&config).unwrap();
    for queues in [2, 1] {
        let mut near = AfxdpPort::new(open_host_end(&pair, queues, Mode::Auto, &arena).unwrap());
        assert_eq!((near.take_rx().len(), near.take_tx().len()), (queues as usize, queues as usize));
        let (_, text) = container.run(&["ethtool", "-l", "eth0"]);
        let now = text.split("Current").nth(1).unwrap();
        let line =
            |kind| now.lines().find(|line| line.starts_with(kind)).unwrap().ends_with(&queues.to_string());
        assert!(line("RX:") && line("TX:"), "{text}");
        Box::new(near).close(Fate::Leave).unwrap();
    }
    let text = open_host_end(&pair, 5000, Mode::Auto, &arena).err().unwrap().to_string();
    assert!(text.contains("not 5000"), "{text}");
    veth::remove(&config.port, config.netns.as_deref(), "eth0").unwrap();
}
