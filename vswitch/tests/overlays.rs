//! A bridge that goes on at other hosts, in memory, frame by frame: what leaves, what is let in, and which counters
//! moved.

#![allow(clippy::unwrap_used)]

mod stretched;

use std::sync::Arc;

use control::schema::{VlanId, VlanMode};
use pmd::{Checksum, Gso, GsoKind, Offload};
use vswitch::lab::{Design, Lab};
use vswitch::notation::build;
use vswitch::overlay::{Overlays, RemoteView, address};
use vswitch::snapshot::{PortVlans, Stretch};
use vswitch::telemetry::counters::VniTraffic;
use vswitch::telemetry::drops::DropReason;
use vswitch::tunnel::{Claims, Kind, Setup, parse};

use self::stretched::{
    AGENT, DB, EAST, NEXT_HOP, OUR_MAC, UPLINK, VNI, WEB, host, mac, remote, setup, stretched, wrapped,
};

/// The second remote.
const WEST: u16 = EAST + 1;

/// A bridge with two ports, stretched over two remotes.
fn lab(kind: Kind) -> Lab {
    lab_with(kind, |setup| setup)
}

fn lab_with(kind: Kind, change: impl Fn(Setup) -> Setup) -> Lab {
    let ends = [2, 3].map(|to| change(setup(kind, 1, to)));
    stretched(Design::default(), &VlanMode::Transparent, &ends)
}

/// An Ethernet frame with `payload` bytes that are no IP packet.
fn frame(to: [u8; 6], from: [u8; 6], payload: usize) -> Vec<u8> {
    [&to[..], &from[..], &[0x88, 0xb5], &vec![7; payload]].concat()
}

/// The host that a frame goes to, its VNI and the frame inside.
fn unwrapped(kind: Kind, bytes: &[u8]) -> (u8, u32, Vec<u8>) {
    let claims = Claims { ports: &[(4789, kind)], gre: kind == Kind::Nvgre };
    let outer = parse(bytes, bytes.len(), claims).unwrap().expect("a tunnel's");
    assert_eq!((&bytes[..6], &bytes[6..12]), (&NEXT_HOP[..], &OUR_MAC[..]));
    assert_eq!(outer.src, address(host(1)));
    (outer.dst[15], outer.vni, bytes[outer.inner.into()..].to_vec())
}

const KINDS: [Kind; 3] = [Kind::Vxlan, Kind::Nvgre, Kind::Geneve];

#[test]
fn a_flood_reaches_every_remote_and_the_answer_comes_back_to_who_asked() {
    for kind in KINDS {
        let mut lab = lab(kind);
        let traffic = Arc::new(VniTraffic::new(1));
        lab.edit(|snapshot| snapshot.overlays.meter(0, [(0, traffic.clone())]));
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
        let (east, totals) = (lab.totals(EAST), traffic.totals());
        assert_eq!((totals.rx_frames, totals.tx_frames), (3, 5));
        assert_eq!((totals.rx_bytes, totals.tx_bytes), (west.rx_bytes, west.tx_bytes + east.tx_bytes));
        assert_eq!(
            (west.rx_bytes, east.tx_frames),
            (3 * wrapped(kind, 3, VNI, &frame(mac(1), mac(9), 50)).len() as u64, 1)
        );
        assert!(lab.is_conserved());
    }
}

#[test]
fn a_station_that_moves_to_another_remote_is_found_there() {
    let mut lab = lab(Kind::Vxlan);
    let hello = frame(mac(1), mac(9), 50);
    lab.pass(WEB, &frame(mac(9), mac(1), 50));
    for from in [2, 3, 2] {
        assert_eq!(lab.pass(UPLINK, &wrapped(Kind::Vxlan, from, VNI, &hello)), [(WEB, hello.clone())]);
        let left = lab.pass(WEB, &frame(mac(9), mac(1), 50));
        assert_eq!((left.len(), unwrapped(Kind::Vxlan, &left[0].1).0), (1, from));
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

/// To the switch itself.
const PING: &str =
    "eth(src=02:00:00:00:09:02,dst=02:00:00:00:09:01) ipv4(src=192.0.2.2,dst=192.0.2.1) icmp(type=8)";

#[test]
fn only_what_is_configured_is_let_in() {
    let inner = frame(mac(1), mac(9), 50);
    let good = wrapped(Kind::Vxlan, 2, VNI, &inner);
    const SERVICE_TAG: [u8; 4] = [0x88, 0xa8, 0, 0];
    let ping = build(PING).unwrap();
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
        ("another UDP port", changed(37, 77), DropReason::Unclaimed),
        ("another type", changed(23, 47), DropReason::Unclaimed),
        ("too short inside", wrapped(Kind::Vxlan, 2, VNI, &inner[..13]), DropReason::InnerTooShort),
        ("not a tunnel's", frame(mac(77), mac(9), 50), DropReason::NotOurs),
        // Of VLAN 0, as untagged frames are: but an 802.1ad tag is another network's.
        (
            "another network's tag",
            [&good[..12], &SERVICE_TAG, &good[12..]].concat(),
            DropReason::UnderlayVlan,
        ),
        (
            "another network's ping",
            [&ping[..12], &SERVICE_TAG, &ping[12..]].concat(),
            DropReason::UnderlayVlan,
        ),
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
    let ask = build("eth(src=02:00:00:00:09:02,dst=ff:ff:ff:ff:ff:ff) arp(op=1,spa=192.0.2.2,tpa=192.0.2.1)")
        .unwrap();
    assert_eq!(lab.pass(UPLINK, &ask), [(AGENT, ask)]);
    let ping = build(PING).unwrap();
    assert_eq!(lab.pass(UPLINK, &ping), [(AGENT, ping)]);
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
        let mut lab = lab_with(Kind::Vxlan, |setup| Setup { checksum, ..setup });
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

/// A way that is lost and found again is no new configuration: what is decided meanwhile must not outlive it.
#[test]
fn a_flow_that_began_while_there_was_no_way_goes_on_when_there_is() {
    let mut lab = lab(Kind::Vxlan);
    lab.pass(UPLINK, &wrapped(Kind::Vxlan, 2, VNI, &frame(mac(1), mac(9), 50)));
    let (known, unknown) = (frame(mac(9), mac(1), 50), frame(mac(9), mac(2), 50));
    assert_eq!(lab.pass(WEB, &known).len(), 1);
    let ways = lab.snapshot().overlays.clone();
    let lost = |overlays: &mut Overlays| {
        let (underlay, overlay) =
            (overlays.underlay(0).unwrap().clone(), overlays.overlay(0).unwrap().clone());
        *overlays = Overlays::new(EAST);
        overlays.put_underlay(0, underlay);
        overlays.add(overlay, [0]);
    };
    lab.edit_ways(lost);
    for _ in 0..2 {
        assert_eq!(lab.pass(WEB, &known), []);
        assert_eq!(lab.pass(DB, &unknown), []);
    }
    assert_eq!(lab.dropped(WEB, DropReason::NoPath) + lab.dropped(DB, DropReason::NoPath), 4);
    assert_eq!(lab.dropped(EAST, DropReason::NoPath), 4);
    let misses = lab.misses();
    lab.edit_ways(|overlays| *overlays = ways);
    assert_eq!((lab.pass(WEB, &known).len(), lab.pass(DB, &unknown).len()), (1, 1));
    assert_eq!(lab.misses(), misses, "what was decided stands");
    assert!(lab.is_conserved());
}

#[test]
fn tags_inside_take_of_the_tunnels_room_and_tags_that_are_taken_off_do_not() {
    let tagged = |len: usize| {
        let mut bytes = packet(false, len);
        bytes.splice(12..12, [0x81, 0, 0, 10]);
        bytes
    };
    let hello = wrapped(
        Kind::Vxlan,
        2,
        VNI,
        &[&frame(mac(1), mac(9), 50)[..12], &[0x81, 0, 0, 10, 0x88, 0xb5, 7, 7]].concat(),
    );
    let mut whole = lab(Kind::Vxlan);
    whole.pass(UPLINK, &hello);
    let fits = whole.pass(WEB, &tagged(1446));
    assert_eq!((fits.len(), fits[0].0, fits[0].1.len()), (1, UPLINK, 1514));
    let told = whole.pass(WEB, &tagged(1447));
    assert_eq!((told.len(), told[0].0), (1, WEB));
    assert_eq!(&told[0].1[12..16], [0x81, 0, 0, 10]);
    assert_eq!(told[0].1[18 + 20 + 6..18 + 20 + 8], 1446u16.to_be_bytes());

    // The same VLAN as a network of its own: to one station, and flooded.
    let mut own = lab(Kind::Vxlan);
    own.edit(|snapshot| {
        snapshot.bridges[0].as_mut().unwrap().stretch = Stretch::Vlans([(10, 0)].into());
        let trunk = VlanMode::Trunk { vlans: [VlanId::new(10).unwrap()].into_iter().collect(), native: None };
        snapshot.ports[usize::from(WEB)].as_mut().unwrap().vlans = PortVlans::new(&trunk);
        let mut overlay = snapshot.overlays.overlay(0).unwrap().clone();
        overlay.vlan = Some(10);
        let underlay = snapshot.overlays.underlay(0).unwrap().clone();
        snapshot.overlays = Overlays::new(EAST);
        snapshot.overlays.put_underlay(0, underlay);
        snapshot.overlays.add(overlay, [0]);
        for (index, to) in [(EAST, 2), (WEST, 3)] {
            let end = setup(Kind::Vxlan, 1, to);
            snapshot.overlays.put_remote(index, Kind::Vxlan, end.port, remote(&end));
        }
    });
    let sizes = |left: Vec<(u16, Vec<u8>)>| -> Vec<usize> {
        left.into_iter().filter(|(port, _)| *port == UPLINK).map(|(_, bytes)| bytes.len()).collect()
    };
    assert_eq!(sizes(own.pass(WEB, &tagged(1450))), [1514, 1514]);
    own.pass(UPLINK, &wrapped(Kind::Vxlan, 2, VNI, &frame(mac(1), mac(9), 50)));
    assert_eq!(sizes(own.pass(WEB, &tagged(1450))), [1514]);
    assert!(sizes(own.pass(WEB, &tagged(1451))).is_empty());
}

/// RFC 6864, section 4.3: packets that routers may cut are told apart by their identification.
#[test]
fn packets_that_may_be_cut_are_told_apart() {
    for df in [true, false] {
        let mut lab = lab_with(Kind::Vxlan, |setup| Setup { df, ..setup });
        lab.pass(UPLINK, &wrapped(Kind::Vxlan, 2, VNI, &frame(mac(1), mac(9), 50)));
        let numbers: std::collections::HashSet<[u8; 2]> = (0..100)
            .map(|_| lab.pass(WEB, &frame(mac(9), mac(1), 50))[0].1[18..20].try_into().unwrap())
            .collect();
        assert_eq!(numbers.len(), if df { 1 } else { 100 });
    }
}

/// A frame in VXLAN from host 2, with the first word of the tunnel's header as given.
fn with_policy(word: u32, inner: &[u8]) -> Vec<u8> {
    let mut bytes = wrapped(Kind::Vxlan, 2, VNI, inner);
    let at = bytes.len() - inner.len() - 8;
    bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
    bytes
}

/// VNI and group are valid; do not learn; the policy was applied.
const GROUPED: u32 = 0x8800_0000;
const UNLEARNED: u32 = 0x0040_0000;
const APPLIED: u32 = 0x0008_0000;

#[test]
fn the_group_of_a_port_travels_with_its_frames_where_the_tunnel_carries_it() {
    for gbp in [false, true] {
        let mut lab = lab_with(Kind::Vxlan, |setup| Setup { gbp, ..setup });
        lab.edit(|snapshot| snapshot.ports[usize::from(WEB)].as_mut().unwrap().group = Some(0xabcd));
        let policy = |bytes: &[u8]| {
            let claims = Claims { ports: &[(4789, Kind::Vxlan)], gre: false };
            parse(bytes, bytes.len(), claims).unwrap().unwrap().policy
        };
        let groups = |left: &[(u16, Vec<u8>)]| -> Vec<_> {
            let outside = left.iter().filter(|(port, _)| *port == UPLINK);
            outside.map(|(_, bytes)| policy(bytes).group()).collect()
        };
        let expected = gbp.then_some(0xabcd);
        // A flood, and then one frame to one remote.
        assert_eq!(groups(&lab.pass(WEB, &frame([0xff; 6], mac(1), 50))), [expected; 2]);
        lab.pass(UPLINK, &wrapped(Kind::Vxlan, 2, VNI, &frame(mac(1), mac(9), 50)));
        let left = lab.pass(WEB, &frame(mac(9), mac(1), 50));
        assert_eq!(groups(&left), [expected]);
        assert!(!policy(&left[0].1).do_not_learn() && !policy(&left[0].1).is_applied());
        assert_eq!(groups(&lab.pass(DB, &frame(mac(9), mac(2), 50))), [None], "who has no group says none");
    }
}

#[test]
fn who_shall_not_be_learned_is_not_where_the_tunnel_carries_that() {
    for gbp in [false, true] {
        let mut lab = lab_with(Kind::Vxlan, |setup| Setup { gbp, ..setup });
        let from = |station: u8| frame(mac(1), mac(station), 50);
        lab.pass(WEB, &frame([0xff; 6], mac(1), 50));
        let send = |lab: &mut Lab, word: u32, station: u8| {
            let left = lab.pass(UPLINK, &with_policy(word, &from(station)));
            assert_eq!(left, [(WEB, from(station))], "{word:08x} is let in, gbp = {gbp}");
            // Whoever is not known is looked for everywhere.
            lab.pass(WEB, &frame(mac(station), mac(1), 50)).len() == 1
        };
        assert_eq!(send(&mut lab, GROUPED | UNLEARNED | 7, 9), !gbp, "without it the bits are reserved");
        if gbp {
            assert!(!send(&mut lab, GROUPED | UNLEARNED | 7, 9), "nor by the second");
            assert!(send(&mut lab, GROUPED | 7, 9), "the bit is the frame's, not the flow's");
        }
        assert!(send(&mut lab, GROUPED | APPLIED | 7, 10));
        assert!(send(&mut lab, UNLEARNED | 0x0800_0000, 11), "it counts only with a group (G)");
        assert!(lab.is_conserved());
    }
}

#[test]
fn a_group_brings_frames_of_those_who_are_configured_and_of_nobody_else() {
    let mut lab = lab(Kind::Vxlan);
    let groups = [[239, 1, 1, 1], [239, 1, 1, 2]].map(std::net::IpAddr::from);
    lab.edit(|snapshot| {
        let overlay = snapshot.overlays.overlay(0).unwrap().clone();
        let underlay = snapshot.overlays.underlay(0).unwrap().clone();
        snapshot.overlays = Overlays::new(EAST);
        snapshot.overlays.put_underlay(0, underlay);
        snapshot.overlays.add(overlay, [0]);
        let end = setup(Kind::Vxlan, 1, 2);
        let east = RemoteView { group: Some(address(groups[0])), ..remote(&end) };
        snapshot.overlays.put_remote(EAST, Kind::Vxlan, end.port, east);
    });
    let inner = frame([0xff; 6], mac(9), 50);
    let to = |group: std::net::IpAddr, from: u8| {
        let mac = vswitch::agent::multicast_mac(group);
        let setup = Setup { src_mac: NEXT_HOP, dst_mac: mac, dst: group, ..setup(Kind::Vxlan, from, 1) };
        let template = vswitch::tunnel::Template::new(&setup).unwrap();
        let mut bytes = vec![0; template.len()];
        let fill = vswitch::tunnel::Fill { vni: VNI, inner_len: inner.len() as u32, ..Default::default() };
        template.write(&mut bytes, &fill);
        [bytes, inner.clone()].concat()
    };
    assert_eq!(lab.pass(UPLINK, &to(groups[0], 2)), [(WEB, inner.clone()), (DB, inner.clone())]);
    assert_eq!(lab.pass(UPLINK, &to(groups[1], 2)), []);
    assert_eq!(lab.pass(UPLINK, &to(groups[0], 77)), []);
    assert_eq!(lab.dropped(UPLINK, DropReason::UnknownVtep), 2);
    assert!(lab.is_conserved());
}
