//! Completion of offloads in the switch: trains and partial checksums from a port of containers to ports
//! that take less, checked by another implementation of IP, TCP and UDP.
#![allow(clippy::unwrap_used, reason = "the whole file is tests")]

use control::schema::{VlanId, VlanMode};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pmd::mem::{Lending, Settings};
use pmd::{Checksum, Features, Gso, GsoKind, Offload, Outer};
use vswitch::lab::{Design, Lab, PortDesign};
use vswitch::notation::build;
use vswitch::telemetry::drops::DropReason;

/// Payload bytes of each segment but the last.
const SIZE: u16 = 1_000;

/// What a frame of these tests is.
#[derive(Clone, Copy, Debug)]
struct Kind {
    ip: &'static str,
    transport: &'static str,
    tagged: bool,
}

impl Kind {
    fn all() -> impl Iterator<Item = Kind> {
        let kinds = ["ipv4", "ipv6"].into_iter().flat_map(|ip| ["tcp", "udp"].map(move |t| (ip, t)));
        kinds.flat_map(|(ip, transport)| [false, true].map(|tagged| Kind { ip, transport, tagged }))
    }

    /// A frame to `dst` as a kernel hands it over: a pseudo-header's sum in the place of the checksum.
    fn frame(self, dst: &str, payload: usize) -> (Vec<u8>, Offload) {
        let tag = if self.tagged { " vlan(id=10,pcp=3)" } else { "" };
        let Kind { ip, transport, .. } = self;
        let text =
            format!("eth(src=02:00:00:00:00:01,dst={dst}){tag} {ip} {transport} payload(len={payload})");
        let mut frame = build(&text).unwrap();
        let start = 14 + if self.tagged { 4 } else { 0 } + if ip == "ipv4" { 20 } else { 40 };
        let (offset, header, protocol) = if transport == "tcp" { (16, 20, 6u16) } else { (6, 8, 17) };
        for (i, byte) in frame[start + header..].iter_mut().enumerate() {
            *byte = (i % 251) as u8;
        }
        let addresses = if ip == "ipv4" { start - 8..start } else { start - 32..start };
        let mut sum = u32::from(protocol) + (frame.len() - start) as u32;
        for pair in frame[addresses].chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        frame[start + offset..start + offset + 2].copy_from_slice(&(sum as u16).to_be_bytes());
        let checksum = Checksum::Partial { start: start as u16, offset: offset as u16 };
        (frame, Offload { checksum, ..Offload::NONE })
    }

    /// A train of `payload` bytes.
    fn train(self, dst: &str, payload: usize) -> (Vec<u8>, Offload) {
        let (frame, offload) = self.frame(dst, payload);
        let kind = match (self.transport, self.ip) {
            ("udp", _) => GsoKind::Udp,
            (_, "ipv4") => GsoKind::Tcp4,
            _ => GsoKind::Tcp6,
        };
        (frame, Offload { gso: Some(Gso { kind, size: SIZE, ecn: false }), ..offload })
    }
}

/// Checks every length and checksum of a frame and gives its VLAN, its place in the stream and its payload.
fn verify(frame: &[u8]) -> (Option<u16>, u32, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let vlan = packet.vlan_ids().first().map(|id| id.value());
    let addresses = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum, "IPv4 header");
            Ok((header.source, header.destination))
        }
        NetSlice::Ipv6(ip) => Err((ip.header().source(), ip.header().destination())),
        NetSlice::Arp(_) => panic!("no IP"),
    };
    match packet.transport.as_ref().unwrap() {
        TransportSlice::Tcp(tcp) => {
            let sum = match addresses {
                Ok((src, dst)) => tcp.calc_checksum_ipv4(src, dst),
                Err((src, dst)) => tcp.calc_checksum_ipv6(src, dst),
            };
            assert_eq!(sum.unwrap(), tcp.checksum(), "TCP");
            (vlan, tcp.sequence_number(), tcp.payload().to_vec())
        }
        TransportSlice::Udp(udp) => {
            let (header, payload) = (udp.to_header(), udp.payload());
            assert_eq!(usize::from(header.length), 8 + payload.len());
            let sum = match addresses {
                Ok((src, dst)) => header.calc_checksum_ipv4_raw(src, dst, payload),
                Err((src, dst)) => header.calc_checksum_ipv6_raw(src, dst, payload),
            };
            assert_eq!(sum.unwrap(), udp.checksum(), "UDP");
            (vlan, 0, payload.to_vec())
        }
        other => panic!("{other:?}"),
    }
}

/// Checks that frames are one stream cut in order; gives its payload.
fn join(frames: &[(Vec<u8>, Offload)], vlan: Option<u16>, is_tcp: bool) -> Vec<u8> {
    let mut joined = Vec::new();
    let first = verify(&frames[0].0).1;
    for (frame, offload) in frames {
        assert_eq!(*offload, Offload::NONE, "nothing is left to do");
        let (tag, sequence, payload) = verify(frame);
        assert_eq!(tag, vlan);
        if is_tcp {
            assert_eq!(sequence, first + joined.len() as u32);
        }
        joined.extend(payload);
    }
    joined
}

/// Ports of a VLAN, by what they take and how they are tagged; port 0 sends, as a trunk or as an access port.
fn lab(sender_is_trunk: bool, lending: Lending, mtu: u32) -> Lab {
    let vlan = VlanId::new(10).unwrap();
    let access = VlanMode::Access(vlan);
    let trunk = VlanMode::Trunk { vlans: [vlan].into_iter().collect(), native: None };
    let mut lab = Lab::new(Design::default()).unwrap();
    let sender = if sender_is_trunk { trunk.clone() } else { access.clone() };
    for (features, vlan) in [
        (Features::VIRTIO, sender),
        (Features::NONE, access.clone()),
        (Features::CHECKSUM, access.clone()),
        (Features::VIRTIO, access),
        (Features::NONE, trunk.clone()),
        (Features::CHECKSUM, trunk),
    ] {
        let wire = Settings { features, lending, mtu, ..Settings::default() };
        lab.add_port(PortDesign { wire, vlan, ..PortDesign::default() });
    }
    // Behind each port is a station whose address ends with the port's number.
    for port in 1..6u16 {
        let tag = if port > 3 { " vlan(id=10)" } else { "" };
        lab.pass(
            port,
            &build(&format!("eth(src={},dst=02:00:00:00:00:01){tag} arp", station(port))).unwrap(),
        );
    }
    lab
}

fn station(port: u16) -> String {
    format!("02:00:00:00:00:1{port}")
}

/// The VLAN tag that frames have behind a port.
fn tag(port: u16) -> Option<u16> {
    (port > 3).then_some(10)
}

const LENDING: [Lending; 2] = [Lending::Owned, Lending::Lent { head: 128 }];

/// Checks what a port that got `sent` by itself has to do with it: nothing, the checksum, or all.
fn check(port: u16, kind: Kind, sent: &(Vec<u8>, Offload), got: &[(Vec<u8>, Offload)]) {
    let header = if kind.transport == "tcp" { 20 } else { 8 };
    let ip = if kind.ip == "ipv4" { 20 } else { 40 };
    let start = 14 + if kind.tagged { 4 } else { 0 } + ip;
    let payload = &sent.0[start + header..];
    if port != 3 {
        // CHECKSUM alone takes no train, but leaves the sum of each segment to the device.
        let completed: Vec<_> = got.iter().map(|(frame, offload)| complete(frame, *offload)).collect();
        if port == 1 || port == 4 {
            assert!(got.iter().all(|(_, offload)| *offload == Offload::NONE), "nothing is left to do");
        }
        let segments = if sent.1.gso.is_some() { payload.len().div_ceil(SIZE.into()) } else { 1 };
        assert_eq!(got.len(), segments, "port {port}, {kind:?}");
        assert!(join(&completed, tag(port), kind.transport == "tcp") == payload, "port {port}, {kind:?}");
        return;
    }
    // The train itself, with its metadata, moved along with the tag.
    assert_eq!(got.len(), 1);
    let (frame, offload) = &got[0];
    assert_eq!((offload.gso, frame.len()), (sent.1.gso, 14 + ip + header + payload.len()));
    assert!(&frame[14 + ip + header..] == payload);
    let Checksum::Partial { start, .. } = offload.checksum else { panic!("{offload:?}") };
    assert_eq!(usize::from(start), 14 + ip);
}

/// What a device does that was left a partial checksum.
fn complete(frame: &[u8], offload: Offload) -> (Vec<u8>, Offload) {
    let mut frame = frame.to_vec();
    if let Checksum::Partial { start, offset } = offload.checksum {
        pmd::gather::complete(&mut frame, start, offset);
    }
    (frame, Offload { checksum: Checksum::None, ..offload })
}

#[test]
fn a_train_arrives_as_each_port_can_take_it() {
    for (kind, lending) in Kind::all().flat_map(|kind| LENDING.map(|lending| (kind, lending))) {
        let mut lab = lab(kind.tagged, lending, 1500);
        for payload in [1, 999, 1000, 1001, 2500, 60_000] {
            for port in 1..6 {
                let sent = kind.train(&station(port), payload);
                let before = lab.totals(port).made;
                assert!(lab.send(0, &sent.0, sent.1));
                lab.run();
                check(port, kind, &sent, &lab.received(port));
                let segments = if port == 3 { 1 } else { payload.div_ceil(SIZE.into()) as u64 };
                assert_eq!(
                    lab.totals(port).made - before,
                    segments - 1,
                    "segments are made where they leave"
                );
                assert!(lab.is_conserved());
                assert_eq!(lab.arena().free(), lab.arena().frames());
            }
        }
    }
}

#[test]
fn a_flooded_train_arrives_at_each_port_as_it_can_take_it() {
    for (kind, lending) in Kind::all().flat_map(|kind| LENDING.map(|lending| (kind, lending))) {
        let mut lab = lab(kind.tagged, lending, 1500);
        let (train, single) = (kind.train("ff:ff:ff:ff:ff:ff", 30_000), kind.frame("ff:ff:ff:ff:ff:ff", 700));
        for sent in [&train, &single, &train] {
            assert!(lab.send(0, &sent.0, sent.1));
            lab.run();
            for port in 1..6 {
                check(port, kind, sent, &lab.received(port));
            }
        }
        assert!(lab.is_conserved());
        assert_eq!(lab.arena().free(), lab.arena().frames());
    }
}

#[test]
fn segments_longer_than_the_mtu_are_dropped_by_name() {
    for kind in Kind::all() {
        let headers = if kind.ip == "ipv4" { 20 } else { 40 } + if kind.transport == "tcp" { 20 } else { 8 };
        let fitting = u32::from(SIZE) + headers;
        for (mtu, passes) in [(fitting, true), (fitting - 1, false)] {
            let mut lab = lab(kind.tagged, Lending::Owned, mtu);
            for port in 1..6 {
                let sent = kind.train(&station(port), 5_000);
                assert!(lab.send(0, &sent.0, sent.1));
                lab.run();
                assert_eq!(lab.received(port).is_empty(), !passes, "port {port}, {kind:?}, MTU {mtu}");
                assert_eq!(lab.dropped(port, DropReason::MtuExceeded), u64::from(!passes));
                assert!(lab.is_conserved());
            }
        }
    }
}

#[test]
fn a_train_that_lies_is_dropped_by_name() {
    let kind = Kind { ip: "ipv4", transport: "tcp", tagged: false };
    let mut lab = lab(false, Lending::Owned, 1500);
    let (frame, good) = kind.train(&station(1), 5_000);
    let gso = good.gso.unwrap();
    for (lie, at) in [
        // No checksum to complete: refused where it comes in.
        (Offload { checksum: Checksum::None, ..good }, 0),
        (Offload { checksum: Checksum::Partial { start: 9_000, offset: 16 }, ..good }, 0),
        // Headers that are not what the metadata says: found where it is cut.
        (Offload { gso: Some(Gso { kind: GsoKind::Tcp6, ..gso }), ..good }, 1),
        (Offload { gso: Some(Gso { size: 0, ..gso }), ..good }, 1),
        (Offload { checksum: Checksum::Partial { start: 38, offset: 16 }, ..good }, 1),
    ] {
        let before = lab.dropped(at, DropReason::BadOffload);
        assert!(lab.send(0, &frame, lie));
        lab.run();
        assert!(lab.received(1).is_empty(), "{lie:?}");
        assert_eq!(lab.dropped(at, DropReason::BadOffload), before + 1, "{lie:?}");
        assert!(lab.is_conserved());
    }
}

/// Puts a frame into a VXLAN tunnel of the sender's own, as its kernel does: every length is that of the whole train,
/// and all that is told is where the inner checksum starts.
fn tunnelled(sent: &(Vec<u8>, Offload), dst: &str, ip: &str, checksum: bool) -> (Vec<u8>, Offload) {
    let (frame, offload) = sent;
    let text = format!(
        "eth(src=02:00:00:00:00:01,dst={dst}) {ip} udp(sport=49152,dport=4789) payload(len={})",
        frame.len() + 8
    );
    let mut outer = build(&text).unwrap();
    let payload = outer.len() - frame.len();
    if !checksum {
        outer[payload - 10..payload - 8].fill(0);
    }
    outer[payload - 8..payload].copy_from_slice(&[8, 0, 0, 0, 0, 0, 5, 0]);
    outer[payload..].copy_from_slice(frame);
    (outer, offload.shifted(payload as i32).unwrap())
}

/// Checks the outer headers of a frame; gives the frame inside.
fn inner(frame: &[u8], checksum: bool) -> Vec<u8> {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
    assert_eq!(udp.checksum() != 0, checksum);
    assert_eq!(usize::from(udp.length()), 8 + udp.payload().len());
    let payload = udp.payload().to_vec();
    if checksum {
        verify(frame);
    } else if let Some(NetSlice::Ipv4(ip)) = packet.net {
        let header = ip.header().to_header();
        assert_eq!(header.calc_header_checksum(), header.header_checksum, "IPv4 header");
    }
    payload[8..].to_vec()
}

#[test]
fn a_train_in_a_tunnel_of_the_senders_own_arrives_right_on_both_levels() {
    let ports = [
        Features::VIRTIO,
        Features::NONE,
        Features::CHECKSUM,
        Features::VIRTIO,
        Features::VIRTIO.with(Features::TUNNEL),
    ];
    let lending = [Lending::Owned, Lending::Lent { head: pmd::batch::HEAD }];
    for (kind, lending) in Kind::all().flat_map(|kind| lending.map(|lending| (kind, lending))) {
        for (ip, checksum) in [("ipv4", false), ("ipv4", true), ("ipv6", false), ("ipv6", true)] {
            let mut lab = Lab::new(Design::default()).unwrap();
            for features in ports {
                let wire = Settings { features, lending, mtu: 1500, ..Settings::default() };
                lab.add_port(PortDesign { wire, ..PortDesign::default() });
            }
            // Flooded: to every port at once, each as it can take it.
            let train = kind.train("02:00:00:00:00:99", 5_500);
            let sent = tunnelled(&train, "ff:ff:ff:ff:ff:ff", ip, checksum);
            assert!(lab.send(0, &sent.0, sent.1));
            lab.run();
            for port in 1..4 {
                let got = lab.received(port);
                assert_eq!(got.len(), 6, "port {port}, {kind:?} in {ip}: its kernel would cut it wrong");
                let frames: Vec<_> = got
                    .iter()
                    .map(|(frame, offload)| complete(frame, *offload))
                    .map(|(frame, offload)| (inner(&frame, checksum), offload))
                    .collect();
                let header = if kind.transport == "tcp" { 20 } else { 8 };
                let vlan = kind.tagged.then_some(10);
                let payload = &train.0[train.0.len() - 5_500..];
                assert!(join(&frames, vlan, header == 20) == payload, "port {port}, {kind:?}");
            }
            let transport = if ip == "ipv4" { 34 } else { 54 };
            let outer = Outer {
                network: 14,
                transport,
                inner: transport + 16 + if kind.tagged { 18 } else { 14 },
                checksum,
            };
            let named = Offload { outer: Some(outer), ..sent.1 };
            assert_eq!(lab.received(4), [(sent.0, named)], "uncut, with what was found");
            assert!(lab.is_conserved());
            assert_eq!(lab.arena().free(), lab.arena().frames());
        }
    }
}

#[test]
fn segments_of_one_burst_become_a_train_for_a_port_that_takes_one() {
    for ip in ["ipv4", "ipv6"] {
        let kind = Kind { ip, transport: "tcp", tagged: false };
        let mut lab = Lab::new(Design::default()).unwrap();
        for features in [Features::NONE, Features::VIRTIO, Features::CHECKSUM] {
            let wire = Settings { features, mtu: 1500, ..Settings::default() };
            lab.add_port(PortDesign { wire, ..PortDesign::default() });
        }
        // Cut by the switch itself, on the way to a port that takes no trains.
        let mut train = kind.train("ff:ff:ff:ff:ff:ff", 30_000);
        let Checksum::Partial { start, .. } = train.1.checksum else { panic!("partial") };
        train.0[usize::from(start) + 13] = 0x10; // ACK
        assert!(lab.send(1, &train.0, train.1));
        lab.run();
        let segments = lab.received(0);
        assert_eq!(segments.len(), 30);
        lab.received(2);
        for (frame, offload) in &segments {
            assert!(lab.send(0, frame, *offload));
        }
        lab.run();
        let joined = lab.received(1);
        assert_eq!(joined.len(), 1);
        let (frame, offload) = &joined[0];
        assert_eq!((frame, offload.gso), (&train.0, train.1.gso), "the train that it was");
        assert_eq!(lab.totals(1).consumed, 29, "what travels inside another is consumed");
        assert_eq!(lab.received(2).len(), 30);
        assert!(lab.is_conserved());
        assert_eq!(lab.arena().free(), lab.arena().frames());
    }
}
