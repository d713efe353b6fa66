//! Who has which IP address, in memory, frame by frame: what is overheard, what is answered, and what is flooded.

#![allow(clippy::unwrap_used)]

mod stretched;

use std::net::Ipv6Addr;

use control::schema::{VlanId, VlanMode, VlanSet};
use pmd::Offload;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::*;
use vswitch::lab::{Design, Lab};
use vswitch::snapshot::Stretch;
use vswitch::tables::neighbour::{Neighbour, NeighbourKey, Origin};
use vswitch::tunnel::Kind;

use self::stretched::{DB, UPLINK, VNI, WEB, mac, setup, stretched};

/// A bridge with two ports, stretched over a remote.
fn lab() -> Lab {
    lab_with(Design::default(), VlanMode::Transparent)
}

fn lab_with(design: Design, vlan: VlanMode) -> Lab {
    stretched(design, &vlan, &[setup(Kind::Vxlan, 1, 2)])
}

fn ip(v4: [u8; 4]) -> [u8; 16] {
    std::net::Ipv4Addr::from(v4).to_ipv6_mapped().octets()
}

fn v4(station: u8) -> [u8; 4] {
    [10, 0, 0, station]
}

fn v6(station: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, station.into())
}

fn link_local(station: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, station.into())
}

fn key(ip: [u8; 16]) -> NeighbourKey {
    NeighbourKey { bridge: 0, vlan: 0, ip }
}

fn known(lab: &Lab, ip: [u8; 16]) -> Option<(u8, Origin)> {
    let Neighbour { claim, .. } = lab.snapshot().neighbours.find(&key(ip))?;
    Some((claim.mac[5], claim.origin))
}

fn arp(operation: ArpOperation, to: [u8; 6], from: (u8, [u8; 4]), target: ([u8; 6], [u8; 4])) -> Vec<u8> {
    let said = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(mac(from.0)),
        source_protocol_addr: from.1.into(),
        target_hardware_addr: EthernetAddress(target.0),
        target_protocol_addr: target.1.into(),
    };
    let mut bytes = [&to[..], &mac(from.0), &[8, 6], &[0; 46]].concat();
    said.emit(&mut ArpPacket::new_unchecked(&mut bytes[14..]));
    bytes
}

/// Station `from` asks who has the address of station `target`.
fn who_has(from: u8, target: u8) -> Vec<u8> {
    arp(ArpOperation::Request, [0xff; 6], (from, v4(from)), ([0; 6], v4(target)))
}

fn is_at(from: u8, to: u8) -> Vec<u8> {
    arp(ArpOperation::Reply, mac(to), (from, v4(from)), (mac(to), v4(to)))
}

fn discovery(to: ([u8; 6], Ipv6Addr), from: (u8, Ipv6Addr), said: NdiscRepr<'_>) -> Vec<u8> {
    let said = Icmpv6Repr::Ndisc(said);
    let header = Ipv6Repr {
        src_addr: from.1,
        dst_addr: to.1,
        next_header: IpProtocol::Icmpv6,
        payload_len: said.buffer_len(),
        hop_limit: 255,
    };
    let mut bytes = [&to.0[..], &mac(from.0), &[0x86, 0xdd], &vec![0; 40 + said.buffer_len()]].concat();
    header.emit(&mut Ipv6Packet::new_unchecked(&mut bytes[14..]));
    let mut icmp = Icmpv6Packet::new_unchecked(&mut bytes[54..]);
    said.emit(&from.1, &to.1, &mut icmp, &ChecksumCapabilities::default());
    bytes
}

fn solicitation(station: u8, from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let lladdr = (!from.is_unspecified()).then(|| RawHardwareAddress::from_bytes(&mac(station)));
    let said = NdiscRepr::NeighborSolicit { target_addr: target, lladdr };
    discovery(([0x33, 0x33, 0xff, a, b, c], group), (station, from), said)
}

fn advertisement(from: u8, target: Ipv6Addr, to: (u8, Ipv6Addr), flags: NdiscNeighborFlags) -> Vec<u8> {
    let lladdr = Some(RawHardwareAddress::from_bytes(&mac(from)));
    let said = NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr };
    discovery((mac(to.0), to.1), (from, target), said)
}

/// What the remote puts around a frame for us.
fn wrapped(inner: &[u8]) -> Vec<u8> {
    stretched::wrapped(Kind::Vxlan, 2, VNI, inner)
}

/// The ports by which frames left.
fn ports(left: &[(u16, Vec<u8>)]) -> Vec<u16> {
    left.iter().map(|(port, _)| *port).collect()
}

#[test]
fn who_asks_for_a_known_station_is_answered_at_once_and_nobody_else_hears_of_it() {
    let mut lab = lab();
    // Unknown yet: everybody is asked, and the question says who asks.
    assert_eq!(ports(&lab.pass(WEB, &who_has(1, 9))), [DB, UPLINK]);
    assert_eq!(known(&lab, ip(v4(1))), Some((1, Origin::Arp)));
    // The answer goes to one station, and is overheard on its way.
    assert_eq!(ports(&lab.pass(UPLINK, &wrapped(&is_at(9, 1)))), [WEB]);
    assert_eq!(known(&lab, ip(v4(9))), Some((9, Origin::Arp)));
    let before = lab.totals(DB);
    for _ in 0..3 {
        assert_eq!(lab.pass(DB, &who_has(2, 9)), [(DB, is_at(9, 2))]);
    }
    let after = lab.totals(DB);
    assert_eq!((after.consumed - before.consumed, after.made - before.made), (3, 3));
    assert_eq!(lab.pass(WEB, &who_has(1, 2)), [(WEB, is_at(2, 1))]);
    // What the remote asks for is asked here: its own switch did not know.
    assert_eq!(ports(&lab.pass(UPLINK, &wrapped(&who_has(9, 1)))), [WEB, DB]);
    assert!(lab.is_conserved());
}

#[test]
fn solicitations_are_answered_with_what_was_said_of_routers() {
    let mut lab = lab();
    assert_eq!(ports(&lab.pass(WEB, &solicitation(1, v6(1), v6(9)))), [DB, UPLINK]);
    assert_eq!(known(&lab, v6(1).octets()), Some((1, Origin::Nd)));
    let all = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    for (flags, from) in [(all, v6(9)), (all | NdiscNeighborFlags::ROUTER, link_local(9))] {
        let said = advertisement(9, from, (1, v6(1)), flags);
        lab.pass(UPLINK, &wrapped(&said));
        // Later ones belong to a flow that is known, and are not seen.
        lab.edit(|_| {});
        let answer = advertisement(9, from, (2, v6(2)), flags);
        assert_eq!(lab.pass(DB, &solicitation(2, v6(2), from)), [(DB, answer)]);
    }
    // Whether it is a router, station 2 has not said: for its link-local address that matters.
    lab.pass(DB, &solicitation(2, link_local(2), v6(77)));
    assert_eq!(known(&lab, link_local(2).octets()), Some((2, Origin::Nd)));
    assert_eq!(ports(&lab.pass(WEB, &solicitation(1, v6(1), link_local(2)))), [DB, UPLINK]);
    assert_eq!(ports(&lab.pass(WEB, &solicitation(1, v6(1), v6(2)))), [WEB]);
    assert!(lab.is_conserved());
}

#[test]
fn announcements_probes_and_questions_to_one_station_are_not_answered() {
    let mut lab = lab();
    lab.pass(WEB, &who_has(1, 77));
    lab.pass(DB, &who_has(2, 77));
    lab.pass(DB, &solicitation(2, v6(2), v6(77)));
    let announcement = arp(ArpOperation::Request, [0xff; 6], (2, v4(2)), ([0; 6], v4(2)));
    assert_eq!(ports(&lab.pass(DB, &announcement)), [WEB, UPLINK]);
    let still_there = arp(ArpOperation::Request, mac(2), (1, v4(1)), (mac(2), v4(2)));
    assert_eq!(ports(&lab.pass(WEB, &still_there)), [DB]);

    // Of its own address nobody is told, and it stays known; another one's probe puts it in doubt.
    let probe = |station, target| arp(ArpOperation::Request, [0xff; 6], (station, [0; 4]), ([0; 6], target));
    assert_eq!(ports(&lab.pass(DB, &probe(2, v4(2)))), [WEB, UPLINK]);
    assert_eq!(known(&lab, ip(v4(2))), Some((2, Origin::Arp)));
    assert_eq!(ports(&lab.pass(WEB, &probe(1, v4(2)))), [DB, UPLINK]);
    assert_eq!(known(&lab, ip(v4(2))), None);
    assert_eq!(ports(&lab.pass(WEB, &solicitation(1, Ipv6Addr::UNSPECIFIED, v6(2)))), [DB, UPLINK]);
    assert_eq!(known(&lab, v6(2).octets()), None);

    // Unless it is configured.
    let table = lab.snapshot().neighbours.clone();
    table.put(key(ip(v4(2))), mac(2), Origin::Config).unwrap();
    table.put(key(v6(2).octets()), mac(2), Origin::Config).unwrap();
    let answer = arp(ArpOperation::Reply, mac(1), (2, v4(2)), (mac(1), [0; 4]));
    assert_eq!(lab.pass(WEB, &probe(1, v4(2))), [(WEB, answer)]);
    let left = lab.pass(WEB, &solicitation(1, Ipv6Addr::UNSPECIFIED, v6(2)));
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut answer = advertisement(2, v6(2), (1, all), NdiscNeighborFlags::OVERRIDE);
    answer[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(left, [(WEB, answer)]);
    assert!(lab.is_conserved());
}

#[test]
fn two_stations_with_one_address_are_a_conflict() {
    let mut lab = lab();
    let table = lab.snapshot().neighbours.clone();
    lab.pass(WEB, &who_has(1, 77));
    lab.pass(WEB, &who_has(1, 78));
    assert_eq!(table.next_conflict(), None);
    lab.pass(DB, &arp(ArpOperation::Request, [0xff; 6], (2, v4(1)), ([0; 6], v4(77))));
    let conflict = table.next_conflict().unwrap();
    assert_eq!((conflict.key, conflict.fixed), (key(ip(v4(1))), false));
    assert_eq!((conflict.holder, conflict.claimant), (mac(1), mac(2)));
    assert_eq!(known(&lab, ip(v4(1))), Some((2, Origin::Arp)));

    table.put(key(ip(v4(1))), mac(1), Origin::Config).unwrap();
    lab.pass(DB, &arp(ArpOperation::Request, [0xff; 6], (2, v4(1)), ([0; 6], v4(79))));
    assert!(table.next_conflict().unwrap().fixed);
    assert_eq!(known(&lab, ip(v4(1))), Some((1, Origin::Config)));
}

/// A DHCP server's message of a kind to station `to`, which gets the address `yours`.
fn dhcp(kind: u8, to: u8, yours: [u8; 4]) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[2, 1, 6]);
    message[16..20].copy_from_slice(&yours);
    message[28..34].copy_from_slice(&mac(to));
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([54, 4, 10, 0, 0, 3, 53, 1, kind, 255]);
    let mut bytes = [&mac(to)[..], &mac(3), &[8, 0]].concat();
    let total = (28 + message.len()) as u16;
    bytes.extend([0x45, 0, (total >> 8) as u8, total as u8, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 3]);
    bytes.extend(yours);
    bytes.extend([0, 67, 0, 68, ((total - 20) >> 8) as u8, (total - 20) as u8, 0, 0]);
    bytes.extend(message);
    bytes
}

#[test]
fn a_dhcp_servers_acknowledgement_is_heard_to_one_station_and_to_all() {
    let mut lab = lab();
    for kind in [2, 6] {
        lab.pass(WEB, &dhcp(kind, 2, v4(2)));
        lab.edit(|_| {});
    }
    assert_eq!(known(&lab, ip(v4(2))), None);
    lab.pass(WEB, &dhcp(5, 2, v4(2)));
    assert_eq!(known(&lab, ip(v4(2))), Some((2, Origin::Dhcp)));
    lab.pass(DB, &who_has(4, 77));
    lab.pass(WEB, &dhcp(5, 4, v4(5)));
    assert_eq!(known(&lab, ip(v4(5))), Some((4, Origin::Dhcp)));
    let mut to_all = dhcp(5, 6, v4(6));
    to_all[..6].fill(0xff);
    // Cut anywhere, it says nothing, and is carried all the same.
    for len in 14..to_all.len() - 2 {
        assert_eq!(ports(&lab.pass(WEB, &to_all[..len])), [DB, UPLINK], "{len}");
        assert_eq!(known(&lab, ip(v4(6))), None, "{len}");
    }
    assert_eq!(ports(&lab.pass(WEB, &to_all)), [DB, UPLINK]);
    assert_eq!(known(&lab, ip(v4(6))), Some((6, Origin::Dhcp)));
    assert!(lab.is_conserved());
}

#[test]
fn the_table_has_a_limit_and_a_port_is_not_written_to_too_often() {
    let mut lab = lab_with(Design { neighbours: 16, ..Design::default() }, VlanMode::Transparent);
    for station in 1..=40 {
        lab.pass(WEB, &who_has(station, 200));
    }
    assert_eq!(lab.snapshot().neighbours.len(), 16);
    let answered = (0..500).filter(|_| ports(&lab.pass(DB, &who_has(50, 1))) == [DB]).count();
    assert_eq!(answered, 100, "the others are flooded");
    assert!(lab.is_conserved());
}

#[test]
fn a_bridge_that_ends_here_overhears_but_does_not_answer_and_one_without_neighbours_does_neither() {
    for overhears in [true, false] {
        let mut lab = lab();
        lab.edit(|snapshot| {
            let bridge = snapshot.bridges[0].as_mut().unwrap();
            (bridge.stretch, bridge.overhears) = (Stretch::None, overhears);
        });
        lab.pass(WEB, &who_has(1, 77));
        assert_eq!(known(&lab, ip(v4(1))).is_some(), overhears);
        assert_eq!(ports(&lab.pass(DB, &who_has(2, 1))), [WEB]);
    }
}

#[test]
fn vlans_are_told_apart_and_answers_have_the_askers_tag() {
    let trunk = VlanMode::Trunk { vlans: VlanSet::all(), native: VlanId::new(20).ok() };
    let mut lab = lab_with(Design::default(), trunk);
    let tagged = |frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0, 10], &frame[12..]].concat();
    lab.pass(WEB, &tagged(who_has(1, 77)));
    // Padded to the shortest frame only, so that the tag costs no bytes.
    assert_eq!(lab.pass(DB, &tagged(who_has(2, 1))), [(DB, tagged(is_at(1, 2))[..60].to_vec())]);
    assert_eq!(ports(&lab.pass(DB, &who_has(2, 1))), [WEB, UPLINK], "another VLAN");
    assert_eq!(lab.pass(WEB, &who_has(1, 2)), [(WEB, is_at(2, 1))]);
    // A network inside the customer's.
    let double = |frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0, 10, 0x81, 0, 0, 5], &frame[12..]].concat();
    assert_eq!(ports(&lab.pass(DB, &double(who_has(3, 1)))), [WEB, UPLINK]);
    assert!(lab.is_conserved());
}

#[test]
fn a_described_frame_is_answered_and_nothing_is_overheard() {
    let mut lab = lab();
    lab.pass(WEB, &who_has(1, 77));
    let trace = lab.trace(DB, &who_has(2, 1), Offload::NONE);
    assert_eq!(trace.outputs, [(DB, is_at(1, 2))]);
    assert_eq!(known(&lab, ip(v4(2))), None);
}
