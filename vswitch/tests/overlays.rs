//! A bridge that goes on at other hosts, in memory, frame by frame: what leaves, what is let in, and which counters
//! moved.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::sync::Arc;

use pmd::mem::Settings;
use pmd::{Checksum, Gso, GsoKind, Offload};
use vswitch::lab::{Design, Lab, PortDesign};
use vswitch::overlay::{OverlayView, RemoteView, UnderlayView};
use vswitch::pipeline::remote_mask;
use vswitch::snapshot::{Place, Stretch};
use vswitch::telemetry::drops::DropReason;
use vswitch::tunnel::{Claims, Kind, Setup, Template, parse};

/// Two ports of the bridge.
const WEB: u16 = 0;
const DB: u16 = 1;
const UPLINK: u16 = 2;
/// Where the switch itself speaks.
const AGENT: u16 = 3;
/// Remotes.
const EAST: u16 = 48;
const WEST: u16 = 49;
const VNI: u32 = 5001;
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 9, 1];
const NEXT_HOP: [u8; 6] = [2, 0, 0, 0, 9, 2];
const PATH_MTU: u32 = 1500;

fn address(host: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, host])
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn setup(kind: Kind, from: IpAddr, to: IpAddr) -> Setup {
    Setup {
        kind,
        src_mac: OUR_MAC,
        dst_mac: NEXT_HOP,
        vlan: None,
        src: from,
        dst: to,
        port: if kind == Kind::Nvgre { 0 } else { 4789 },
        ttl: 64,
        df: true,
        dscp: None,
        flow_id: None,
        checksum: false,
        gbp: false,
    }
}

/// A bridge with two ports, stretched over two remotes.
fn lab(kind: Kind) -> Lab {
    lab_with(kind, |_| {})
}

fn lab_with(kind: Kind, change: impl Fn(&mut Setup)) -> Lab {
    let mut lab = Lab::new(Design { first_remote: EAST, ..Design::default() }).unwrap();
    let wire = Settings { mtu: 9000, ..Settings::default() };
    for _ in [WEB, DB, UPLINK, AGENT] {
        lab.add_port(PortDesign { wire, ..PortDesign::default() });
    }
    lab.edit(|snapshot| {
        for port in [UPLINK, AGENT] {
            let view = snapshot.ports[usize::from(port)].as_mut().unwrap();
            (view.place, view.mask) = (Place::Underlay(0), remote_mask());
        }
        let overlays = &mut snapshot.overlays;
        overlays.put_underlay(
            0,
            UnderlayView {
                port: UPLINK,
                agent: Some(AGENT),
                vlan: None,
                mac: OUR_MAC,
                ports: vec![(4789, kind)],
                gre: kind == Kind::Nvgre,
            },
        );
        for (index, host) in [(EAST, 2), (WEST, 3)] {
            let mut setup = setup(kind, address(1), address(host));
            change(&mut setup);
            overlays.put_remote(
                index,
                kind,
                setup.port,
                RemoteView {
                    name: format!("tunnel/{}", address(host)).into(),
                    tunnel: 0,
                    underlay: 0,
                    address: mapped(address(host)),
                    local: mapped(address(1)),
                    learning: true,
                    outlet: UPLINK,
                    template: Template::new(&setup).map(Arc::new),
                    mtu: kind.mtu_inside(PATH_MTU, false),
                },
            );
        }
        let flood: Arc<[u16]> = Arc::from([EAST, WEST]);
        overlays.add(OverlayView { vni: VNI, bridge: 0, vlan: None, flood }, [0]);
        snapshot.bridges[0].as_mut().unwrap().stretch = Stretch::Whole(0);
    });
    lab
}

fn mac(station: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, station]
}

/// An Ethernet frame with `payload` bytes that are no IP packet.
fn frame(to: [u8; 6], from: [u8; 6], payload: usize) -> Vec<u8> {
    [&to[..], &from[..], &[0x88, 0xb5], &vec![7; payload]].concat()
}

/// What `host` puts around a frame for us.
fn wrapped(kind: Kind, host: u8, vni: u32, inner: &[u8]) -> Vec<u8> {
    let template = Template::new(&Setup {
        src_mac: NEXT_HOP,
        dst_mac: OUR_MAC,
        ..setup(kind, address(host), address(1))
    })
    .unwrap();
    let mut bytes = vec![0; template.len()];
    let fill = vswitch::tunnel::Fill { vni, inner_len: inner.len() as u32, ..Default::default() };
    template.write(&mut bytes, &fill);
    bytes.extend_from_slice(inner);
    bytes
}

/// The host that a frame goes to, its VNI and the frame inside.
fn unwrapped(kind: Kind, bytes: &[u8]) -> (u8, u32, Vec<u8>) {
    let claims = Claims { ports: &[(4789, kind)], gre: kind == Kind::Nvgre };
    let outer = parse(bytes, bytes.len(), claims).unwrap().expect("a tunnel's");
    assert_eq!((&bytes[..6], &bytes[6..12]), (&NEXT_HOP[..], &OUR_MAC[..]));
    assert_eq!(outer.src, mapped(address(1)));
    (outer.dst[15], outer.vni, bytes[outer.inner.into()..].to_vec())
}

const KINDS: [Kind; 3] = [Kind::Vxlan, Kind::Nvgre, Kind::Geneve];

#[test]
fn a_flood_reaches_every_remote_and_the_answer_comes_back_to_who_asked() {
    for kind in KINDS {
        let mut lab = lab(kind);
        let ask = frame([0xff; 6], mac(1), 50);
        let left = lab.pass(WEB, &ask);
        assert_eq!(left.len(), 3, "{kind:?}");
        assert_eq!(left[0], (DB, ask.clone()));
        let copies: Vec<_> = left[1..].iter().map(|(_, bytes)| unwrapped(kind, bytes)).collect();
        assert_eq!(copies, [(2, VNI, ask.clone()), (3, VNI, ask)]);
        assert_eq!(lab.totals(WEB).made, 2);

        // The answer: to the port alone, and from then on the station is known to be behind that remote.
        for _ in 0..3 {
            let answer = frame(mac(1), mac(9), 50);
            assert_eq!(lab.pass(UPLINK, &wrapped(kind, 3, VNI, &answer)), [(WEB, answer)]);
            let more = frame(mac(9), mac(1), 300);
            let left = lab.pass(WEB, &more);
            assert_eq!((left.len(), left[0].0), (1, UPLINK));
            assert_eq!(unwrapped(kind, &left[0].1), (3, VNI, more));
        }
        assert_eq!(lab.misses(), 3, "one each, and then the cache");
        let west = lab.totals(WEST);
        assert_eq!((west.rx_frames, west.tx_frames), (3, 4));
        assert!(lab.is_conserved());
    }
}

#[test]
fn a_station_that_moves_to_another_remote_is_found_there() {
    let mut lab = lab(Kind::Vxlan);
    let hello = frame(mac(1), mac(9), 50);
    lab.pass(WEB, &frame(mac(9), mac(1), 50));
    for host in [2, 3, 2] {
        assert_eq!(lab.pass(UPLINK, &wrapped(Kind::Vxlan, host, VNI, &hello)), [(WEB, hello.clone())]);
        let left = lab.pass(WEB, &frame(mac(9), mac(1), 50));
        assert_eq!((left.len(), unwrapped(Kind::Vxlan, &left[0].1).0), (1, host));
    }
}

#[test]
fn what_one_remote_sends_goes_to_no_other() {
    let mut lab = lab(Kind::Vxlan);
    let flood = frame([0xff; 6], mac(9), 50);
    let left = lab.pass(UPLINK, &wrapped(Kind::Vxlan, 2, VNI, &flood));
    assert_eq!(left, [(WEB, flood.clone()), (DB, flood)]);
    // A station behind the other remote, which the first asks us for.
    lab.pass(UPLINK, &wrapped(Kind::Vxlan, 3, VNI, &frame([0xff; 6], mac(8), 50)));
    assert_eq!(lab.pass(UPLINK, &wrapped(Kind::Vxlan, 2, VNI, &frame(mac(8), mac(9), 50))), []);
    assert_eq!(lab.dropped(UPLINK, DropReason::SplitHorizon), 1);
    assert_eq!(lab.dropped(EAST, DropReason::SplitHorizon), 1);
    assert!(lab.is_conserved());
}

#[test]
fn only_what_is_configured_is_let_in() {
    let inner = frame(mac(1), mac(9), 50);
    let good = wrapped(Kind::Vxlan, 2, VNI, &inner);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        // The header's checksum is right all the same.
        bytes[24..26].fill(0);
        let sum = pmd::checksum::of(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum);
        bytes
    };
    let cases = [
        ("another sender", changed(29, 77), DropReason::UnknownVtep),
        ("another address of ours", changed(33, 77), DropReason::UnknownVtep),
        ("another VNI", wrapped(Kind::Vxlan, 2, 5002, &inner), DropReason::UnknownVni),
        ("no VNI", changed(42, 0), DropReason::VxlanFlags),
        ("another MAC", changed(5, 77), DropReason::NotOurs),
        ("too short inside", wrapped(Kind::Vxlan, 2, VNI, &inner[..13]), DropReason::InnerTooShort),
        ("not a tunnel's", frame(mac(77), mac(9), 50), DropReason::NotOurs),
    ];
    for (name, bytes, reason) in cases {
        let mut lab = lab(Kind::Vxlan);
        lab.pass(WEB, &frame(mac(9), mac(1), 50));
        assert_eq!(lab.pass(UPLINK, &bytes), [], "{name}");
        assert_eq!(lab.dropped(UPLINK, reason), 1, "{name}");
        assert!(lab.is_conserved(), "{name}");
        assert_eq!(lab.pass(UPLINK, &good), [(WEB, inner.clone())], "{name}");
    }
}

#[test]
fn what_may_be_for_the_switch_itself_goes_to_its_agent_and_the_agents_frames_to_the_wire() {
    let mut lab = lab(Kind::Vxlan);
    let ask = frame([0xff; 6], NEXT_HOP, 50);
    assert_eq!(lab.pass(UPLINK, &ask), [(AGENT, ask)]);
    let reply = frame(NEXT_HOP, OUR_MAC, 50);
    assert_eq!(lab.pass(AGENT, &reply), [(UPLINK, reply)]);
    // Even what looks like a tunnel's: nobody gets into a bridge from here.
    let odd = wrapped(Kind::Vxlan, 2, VNI, &frame(mac(1), mac(9), 50));
    assert_eq!(lab.pass(AGENT, &odd), [(UPLINK, odd)]);
    assert!(lab.is_conserved());
}

/// A packet of `len` bytes from station 1 to station 9, IPv4 or IPv6.
fn packet(v6: bool, len: usize) -> Vec<u8> {
    let mut bytes = frame(mac(9), mac(1), len);
    if v6 {
        bytes[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 17, 64]);
        bytes[18..20].copy_from_slice(&(len as u16 - 40).to_be_bytes());
        bytes[22..54]
            .copy_from_slice(&[[0xfd, 1], [0xfd, 2]].map(|top| [&top[..], &[0; 14]].concat()).concat());
    } else {
        bytes[12..34]
            .copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9]);
        bytes[16..18].copy_from_slice(&(len as u16).to_be_bytes());
        let sum = pmd::checksum::of(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum);
    }
    let l4 = if v6 { 54 } else { 34 };
    bytes[l4 + 4..l4 + 6].copy_from_slice(&((len + 14 - l4) as u16).to_be_bytes());
    bytes
}

#[test]
fn who_sends_too_large_packets_is_told_and_not_too_often() {
    for (v6, max) in [(false, 1450), (true, 1450)] {
        let mut lab = lab(Kind::Vxlan);
        lab.pass(UPLINK, &wrapped(Kind::Vxlan, 2, VNI, &frame(mac(1), mac(9), 50)));
        let left = lab.pass(WEB, &packet(v6, max));
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, UPLINK);
        let left = lab.pass(WEB, &packet(v6, max + 1));
        assert_eq!((left.len(), left[0].0), (1, WEB), "IPv6 {v6}");
        let told = vswitch::notation::describe(&left[0].1);
        let headers =
            vswitch::flow::headers::parse(&left[0].1, left[0].1.len(), vswitch::flow::headers::Depth::L4);
        let headers = headers.unwrap();
        assert_eq!((headers.link.dst, headers.link.src), (mac(1), mac(9)));
        assert_eq!((headers.icmp_type, headers.icmp_code), if v6 { (2, 0) } else { (3, 4) }, "{told}");
        let icmp = usize::from(headers.l4);
        assert_eq!(left[0].1[icmp + 6..icmp + 8], (max as u16).to_be_bytes(), "{told}");
        let quoted = &left[0].1[icmp + 8..];
        assert_eq!(quoted, &packet(v6, max + 1)[14..14 + quoted.len()]);
        assert_eq!(lab.dropped(UPLINK, DropReason::MtuExceeded), 1);
        assert_eq!(lab.totals(WEB).made, 1);

        let told = (0..1000).filter(|_| !lab.pass(WEB, &packet(v6, max + 1)).is_empty()).count();
        assert_eq!(told, 99, "a hundred in a row");
        lab.advance_s(1);
        assert_eq!(lab.pass(WEB, &packet(v6, max + 1)).len(), 1);
        assert!(lab.is_conserved());
    }
}

#[test]
fn a_train_crosses_whole_or_is_cut_with_both_headers_right() {
    for checksum in [false, true] {
        let mut lab = lab_with(Kind::Vxlan, |setup| setup.checksum = checksum);
        lab.pass(UPLINK, &wrapped(Kind::Vxlan, 2, VNI, &frame(mac(1), mac(9), 50)));
        let mut train = frame(mac(9), mac(1), 40 + 3000);
        train[12..34]
            .copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9]);
        train[16..18].copy_from_slice(&3040u16.to_be_bytes());
        train[46] = 0x50;
        let mut pseudo = pmd::checksum::Sum::default();
        pseudo.add(&train[26..34]);
        pseudo.add_word(6);
        pseudo.add_word(3020);
        train[50..52].copy_from_slice(&pseudo.partial());
        let offload = Offload {
            checksum: Checksum::Partial { start: 34, offset: 16 },
            gso: Some(Gso { kind: GsoKind::Tcp4, size: 1000, ecn: false }),
            outer: None,
        };
        assert!(lab.send(WEB, &train, offload));
        lab.run();
        let segments = lab.received(UPLINK);
        assert_eq!(segments.len(), 3);
        for (bytes, offload) in segments {
            assert_eq!(offload, Offload::NONE);
            let (host, vni, inner) = unwrapped(Kind::Vxlan, &bytes);
            assert_eq!((host, vni, inner.len()), (2, VNI, 54 + 1000));
            let mut sum = pmd::checksum::Sum::default();
            sum.add(&inner[26..34]);
            sum.add_word(6);
            sum.add_word(1020);
            sum.add(&inner[34..]);
            assert_eq!(sum.finish(), [0, 0], "inner checksum");
            let claims = Claims { ports: &[(4789, Kind::Vxlan)], gre: false };
            let outer = parse(&bytes, bytes.len(), claims).unwrap().unwrap();
            assert_eq!(outer.checksum != 0, checksum);
            if checksum {
                let mut sum = outer.pseudo_header();
                sum.add(&bytes[outer.transport.into()..]);
                assert_eq!(sum.finish(), [0, 0], "outer checksum");
            }
        }
        assert!(lab.is_conserved());
    }
}
