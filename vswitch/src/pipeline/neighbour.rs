//! Who has which IP address: overheard from frames that pass, and told to those who ask.
//!
//! Part of carrying out a flood, and of a miss: only frames of bridges that overhear are looked at, and only on these
//! slow ways. Requests for neighbours go to groups, so each of them is seen: ARP requests (RFC 826), solicitations
//! (RFC 4861), and what DHCP servers broadcast. Answers go to one station, by flows that the cache may know: an ARP
//! reply, an advertisement or a DHCP answer is seen when it is the first frame of its flow, or again after a change;
//! one in the middle of a flow is not. What is missed costs one more flood. Frames with two tags, or an 802.1ad tag,
//! speak of a network inside that is not ours to know.
//!
//! In a VLAN that an overlay carries, a station of this host that asks for a known neighbour is answered at once, as
//! RFC 9161, section 3.2, has it (and RFC 7432, section 10), and nobody else hears of it. Not answered, but flooded, is
//! - who asks one station, to know whether that is still there;
//! - who announces himself, so that the others hear of it;
//! - who probes whether an address is free (RFC 5227, RFC 4862), unless it is one that is configured or loaded: whether
//!   a station that was overheard is still alive, only that can say. It is forgotten until it does;
//! - who asks for the link-local address of somebody who has not said whether he is a router: an answer that denies it
//!   would cost the asker his default route (RFC 4861, section 7.2.5);
//! - who asks more often than the switch may write to his port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pmd::Batch;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet,
    Ipv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

use super::address::is_group;
use super::execute::Sink;
use super::reply::Reply;
use super::{Decision, Origin as From};
use crate::agent::frame::{Heard, is_sender, is_station, read_arp, read_ipv6};
use crate::flow::action::Action;
use crate::flow::headers::Link;
use crate::flow::numbers::{ethertype, protocol};
use crate::overlay::{Ingress, address};
use crate::snapshot::{PortView, Snapshot};
use crate::tables::neighbour::{Claim, Neighbour, NeighbourKey, Origin};

/// All stations (RFC 4291, section 2.7.1), and their group on Ethernet (RFC 2464, section 7).
const ALL_NODES: (Ipv6Addr, [u8; 6]) = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), [0x33, 0x33, 0, 0, 0, 1]);

/// What a frame says about neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    claim: Option<(IpAddr, [u8; 6], Origin, Option<bool>)>,
    question: Option<Question>,
}

/// Who has `target`? So asks `from`, who has no address yet if it is unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    from: IpAddr,
    mac: [u8; 6],
    target: IpAddr,
}

/// Overhears a frame that is on its way to one station, of a flow that was decided just now.
#[inline]
pub fn overhear(
    snapshot: &Snapshot,
    batch: &Batch<'_>,
    i: usize,
    ingress: Ingress,
    decision: &Decision,
    link: &Link,
    now_s: u32,
) {
    if !matches!(decision.actions.action, Action::Output(_) | Action::Tunnel { .. }) {
        return;
    }
    let Some((from, bridge)) = From::of(snapshot, ingress) else { return };
    if snapshot.bridge(bridge).is_some_and(|view| view.overhears)
        && let Some(said) = read(batch, i, link)
    {
        note(snapshot, (ingress, from), (bridge, decision.vlan), &said, now_s);
    }
}

/// Overhears frame `i`, which is to be flooded, and answers it; whether it did.
#[cold]
pub(super) fn answer<S: Sink>(
    snapshot: &Snapshot,
    batch: &mut Batch<'_>,
    i: usize,
    (ingress, from): (Ingress, From<'_>),
    (bridge, vlan): (u16, u16),
    link: &Link,
    sink: &mut S,
) -> bool {
    let Some(said) = read(batch, i, link) else { return false };
    if let Some(now_s) = sink.now_s() {
        note(snapshot, (ingress, from), (bridge, vlan), &said, now_s);
    }
    let (Some(question), From::Port(port)) = (said.question, from) else { return false };
    let stretched = snapshot.bridge(bridge).is_some_and(|view| view.stretch.overlay(vlan).is_some());
    if !stretched || !is_group(link.dst) {
        return false;
    }
    let key = NeighbourKey { bridge, vlan, ip: address(question.target) };
    let Some(known) = snapshot.neighbours.find(&key) else { return false };
    is_answered(&question, &known)
        && write(&question, &known, port, vlan)
            .is_some_and(|reply| reply.send(snapshot, batch, i, ingress.port, sink))
}

/// Whether the table is to answer for a neighbour.
fn is_answered(question: &Question, known: &Neighbour) -> bool {
    let Claim { mac, origin, router, .. } = known.claim;
    let is_probe = question.from.is_unspecified();
    let is_link_local = matches!(question.target, IpAddr::V6(ip) if ip.is_unicast_link_local());
    mac != question.mac
        && question.from != question.target
        && (origin.is_fixed() || !(is_probe || (is_link_local && router.is_none())))
}

/// Takes in what a frame says.
fn note(
    snapshot: &Snapshot,
    (ingress, from): (Ingress, From<'_>),
    (bridge, vlan): (u16, u16),
    said: &Said,
    now_s: u32,
) {
    // Of a tunnel that does not learn, somebody else says who is where.
    if matches!(from, From::Remote(remote, _) if !remote.learning) {
        return;
    }
    let key = |ip| NeighbourKey { bridge, vlan, ip: address(ip) };
    if let Some((ip, mac, origin, router)) = said.claim {
        snapshot.neighbours.hear(&Claim { key: key(ip), mac, origin, router }, ingress.port, now_s);
    }
    if let Some(question) = said.question.filter(|question| question.from.is_unspecified()) {
        snapshot.neighbours.doubt(&key(question.target), question.mac);
    }
}

/// What frame `i` says about neighbours, if anything.
fn read(batch: &Batch<'_>, i: usize, link: &Link) -> Option<Said> {
    if link.inner.is_present() || link.outer.tpid == ethertype::SERVICE_VLAN {
        return None;
    }
    let payload = batch.head(i).get(usize::from(link.l3)..)?;
    match link.ethertype {
        ethertype::ARP => Some(of_discovery(read_arp(payload)?)),
        ethertype::IPV6 if payload.get(6) == Some(&protocol::ICMPV6) => {
            Some(of_discovery(read_ipv6(payload, link.src, is_group(link.dst))?))
        }
        ethertype::IPV4 => read_dhcp(batch, i, payload, usize::from(link.l3)),
        _ => None,
    }
}

fn of_discovery(heard: Heard<'_>) -> Said {
    // A probe claims nothing (RFC 5227, section 1.1; RFC 4862, section 5.4).
    let claim = |ip: IpAddr, mac, origin, router| is_sender(ip).then_some((ip, mac, origin, router));
    match heard {
        Heard::Arp { request, sender, mac, target } => Said {
            claim: claim(sender.into(), mac, Origin::Arp, None),
            question: request.then_some(Question { from: sender.into(), mac, target: target.into() }),
        },
        Heard::Solicitation { from, mac, target } => Said {
            claim: claim(from.into(), mac, Origin::Nd, None),
            question: Some(Question { from: from.into(), mac, target: target.into() }),
        },
        Heard::Advertisement { target, mac: Some(mac), router, .. } => {
            Said { claim: claim(target.into(), mac, Origin::Nd, Some(router)), question: None }
        }
        _ => Said::default(),
    }
}

/// RFC 2131, section 2: a server's answer, up to the cookie before its options.
const DHCP: usize = 240;

/// Bytes of the options that are looked at: the kind of the message is among the first.
const OPTIONS: usize = 64;

/// A DHCP server's acknowledgement, which says what address a station has from now on (RFC 2131, section 3.1).
fn read_dhcp(batch: &Batch<'_>, i: usize, packet: &[u8], l3: usize) -> Option<Said> {
    let length = usize::from(packet.first()? & 0xf) * 4;
    let is_whole = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff == 0;
    let ports = packet.get(length..length + 4)?;
    // From a server's port to a client's or a relay's.
    if packet[0] >> 4 != 4
        || packet.get(9) != Some(&protocol::UDP)
        || !is_whole
        || !matches!(ports, [0, 67, 0, 67 | 68])
    {
        return None;
    }
    let at = l3 + length + 8;
    let mut message = [0; DHCP + OPTIONS];
    let len = batch.frame_len(i).checked_sub(at)?.min(message.len());
    let message = &mut message[..len];
    if !batch.read(i, at, message) {
        return None;
    }
    // A reply, to an Ethernet station (RFC 951, section 3), with DHCP's cookie (RFC 2132, section 2).
    if message.get(..3)? != [2, 1, 6]
        || message.get(236..DHCP)? != [99, 130, 83, 99]
        || !is_ack(&message[DHCP..])
    {
        return None;
    }
    let ip = IpAddr::from(*message.get(16..)?.first_chunk::<4>()?);
    let mac = *message.get(28..)?.first_chunk::<6>()?;
    (is_sender(ip) && is_station(mac))
        .then_some(Said { claim: Some((ip, mac, Origin::Dhcp, None)), question: None })
}

/// Whether the message type among the options (RFC 2132, section 9.6) is DHCPACK.
fn is_ack(mut options: &[u8]) -> bool {
    loop {
        options = match options {
            [53, 1, kind, ..] => return *kind == 5,
            [0, rest @ ..] => rest,
            [255, ..] | [] | [_] => return false,
            [_, len, rest @ ..] => rest.get(usize::from(*len)..).unwrap_or(&[]),
        };
    }
}

/// The answer, as if from the neighbour itself, so that switches on the way to the asker learn where that is.
fn write(question: &Question, known: &Neighbour, port: &PortView, vlan: u16) -> Option<Reply> {
    let mac = known.claim.mac;
    match (question.target, question.from) {
        (IpAddr::V4(target), IpAddr::V4(from)) => {
            let mut reply = Reply::new(&question.mac, &mac, port, vlan, ethertype::ARP);
            put_arp(&mut reply, (mac, target), (question.mac, from));
            Some(reply)
        }
        (IpAddr::V6(target), IpAddr::V6(from)) => {
            // RFC 4861, section 7.2.4: who has no address yet is answered with everybody.
            let (to, to_mac) = if from.is_unspecified() { ALL_NODES } else { (from, question.mac) };
            let mut reply = Reply::new(&to_mac, &mac, port, vlan, ethertype::IPV6);
            put_advertisement(&mut reply, (mac, target), to, known.claim.router == Some(true));
            Some(reply)
        }
        _ => None,
    }
}

fn put_arp(reply: &mut Reply, (mac, ip): ([u8; 6], Ipv4Addr), (to_mac, to): ([u8; 6], Ipv4Addr)) {
    let said = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: ip,
        target_hardware_addr: EthernetAddress(to_mac),
        target_protocol_addr: to,
    };
    said.emit(&mut ArpPacket::new_unchecked(reply.room(said.buffer_len())));
}

fn put_advertisement(reply: &mut Reply, (mac, ip): ([u8; 6], Ipv6Addr), to: Ipv6Addr, router: bool) {
    let mut flags = NdiscNeighborFlags::OVERRIDE;
    flags.set(NdiscNeighborFlags::SOLICITED, to != ALL_NODES.0);
    flags.set(NdiscNeighborFlags::ROUTER, router);
    let said = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags,
        target_addr: ip,
        lladdr: Some(RawHardwareAddress::from_bytes(&mac)),
    });
    let header = Ipv6Repr {
        src_addr: ip,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: said.buffer_len(),
        hop_limit: 255, // RFC 4861, section 7.1.2
    };
    let room = reply.room(header.buffer_len() + said.buffer_len());
    let (network, icmp) = room.split_at_mut(header.buffer_len());
    header.emit(&mut Ipv6Packet::new_unchecked(network));
    said.emit(&ip, &to, &mut Icmpv6Packet::new_unchecked(icmp), &ChecksumCapabilities::default());
}
