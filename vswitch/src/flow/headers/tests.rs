//! Frames that are known byte by byte, every place where one can be cut, and two other parsers asked the same.

use super::*;
use etherparse::{IpNumber, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use smoltcp::wire;

const DST: [u8; 6] = [0x02, 0, 0, 0, 0, 0xd];
const SRC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x5];

/// An Ethernet header with the ethertype and what follows given as bytes.
fn ethernet(rest: &[&[u8]]) -> Vec<u8> {
    [&[&DST[..], &SRC[..]], rest].concat().concat()
}

/// An IPv4 header of `20 + options` bytes around `payload`.
fn ipv4(protocol: u8, flags_and_offset: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = 20 + options.len();
    let total = ((length + payload.len()) as u16).to_be_bytes();
    let fragment = flags_and_offset.to_be_bytes();
    let fixed = [
        0x40 | (length / 4) as u8,
        0xb8,
        total[0],
        total[1],
        0,
        7,
        fragment[0],
        fragment[1],
        63,
        protocol,
        0,
        0,
    ];
    [&fixed[..], &[10, 0, 0, 1, 10, 0, 0, 2], options, payload].concat()
}

/// An IPv6 header around `payload`.
fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    let mut bytes = vec![0x6a, 0xb0, 0, 0, length[0], length[1], next_header, 64];
    bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    [&bytes[..], payload].concat()
}

/// A TCP header from port 4660 to port 80 with `options` and the flags SYN and ACK.
fn tcp(options: &[u8]) -> Vec<u8> {
    let offset = (((20 + options.len()) / 4) << 4) as u8;
    let fixed = [0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, offset, 0x12, 0xff, 0xff, 0, 0, 0, 0];
    [&fixed[..], options].concat()
}

fn udp(length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    vec![0x30, 0x39, 0, 53, high, low, 0, 0]
}

fn l4(frame: &[u8]) -> Result<Headers, Malformed> {
    parse(frame, frame.len(), Depth::L4)
}

const IPV4: &[u8] = &[0x08, 0x00];
const IPV6: &[u8] = &[0x86, 0xdd];

#[test]
fn link_layer_alone() {
    let frame = ethernet(&[&[0x88, 0xa8, 0xe0, 0x0a], &[0x81, 0x00, 0x00, 0x14], &[0x08, 0x00]]);
    let link = parse_link(&frame).unwrap();
    assert_eq!((link.dst, link.src), (DST, SRC));
    assert_eq!((link.outer.tpid, link.outer.vlan(), link.outer.priority()), (0x88a8, 10, 7));
    assert_eq!((link.inner.tpid, link.inner.vlan(), link.inner.priority()), (0x8100, 20, 0));
    assert_eq!((link.ethertype, link.l3), (0x0800, 22));
    // The IPv4 header is missing: no business of an L2 bridge.
    assert!(parse(&frame, frame.len(), Depth::L2).is_ok());
    assert_eq!(l4(&frame), Err(Malformed::TruncatedIpv4));
}

#[test]
fn a_third_tag_is_an_ethertype() {
    let frame = ethernet(&[&[0x81, 0, 0, 1], &[0x81, 0, 0, 2], &[0x81, 0, 0, 3], IPV4]);
    let headers = l4(&frame).unwrap();
    assert_eq!((headers.link.ethertype, headers.link.l3, headers.network), (0x8100, 22, Network::Other));
}

#[test]
fn arp_request() {
    let body = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 5, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
    let frame = ethernet(&[&[0x08, 0x06], &body]);
    let headers = l4(&frame).unwrap();
    assert_eq!((headers.network, headers.arp_operation), (Network::Arp, 1));
    assert_eq!((headers.src_ip, headers.dst_ip), (mapped([10, 0, 0, 1]), mapped([10, 0, 0, 2])));
    assert_eq!(headers.transport, Transport::Absent);
    let mut odd = frame.clone();
    odd[18] = 8;
    assert_eq!(l4(&odd), Err(Malformed::BadArp));
}

#[test]
fn tcp_over_ipv4_with_options_and_padding() {
    let packet = ipv4(6, 0x4000, &[1; 40], &tcp(&[1; 40]));
    let frame = ethernet(&[&[0x88, 0xa8, 0, 1], &[0x81, 0, 0, 2], IPV4, &packet, &[0; 300]]);
    let headers = parse(&frame[..WINDOW], frame.len(), Depth::L4).unwrap();
    assert_eq!((headers.link.l3, headers.l4), (22, 82));
    assert_eq!((headers.network, headers.transport, headers.protocol), (Network::Ipv4, Transport::Tcp, 6));
    assert_eq!((headers.tos, headers.ttl, headers.tcp_flags), (0xb8, 63, 0x12));
    assert_eq!((headers.src_port, headers.dst_port), (4660, 80));
}

#[test]
fn udp_sctp_icmp_and_others_over_ipv4() {
    let of = |protocol, payload: &[u8]| l4(&ethernet(&[IPV4, &ipv4(protocol, 0, &[], payload)])).unwrap();
    let headers = of(17, &udp(8));
    assert_eq!((headers.transport, headers.src_port, headers.dst_port), (Transport::Udp, 12345, 53));
    let headers = of(132, &[0, 7, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((headers.transport, headers.src_port, headers.dst_port), (Transport::Sctp, 7, 9));
    let headers = of(1, &[3, 4, 0, 0, 0, 0, 5, 0xdc]);
    assert_eq!((headers.transport, headers.icmp_type, headers.icmp_code), (Transport::Icmp, 3, 4));
    for (protocol, expected) in [(47, Transport::Other), (58, Transport::Other), (50, Transport::Hidden)] {
        assert_eq!((of(protocol, &[0; 40]).transport, of(protocol, &[]).protocol), (expected, protocol));
    }
}

#[test]
fn transports_over_ipv6() {
    let of = |next, payload: &[u8]| l4(&ethernet(&[IPV6, &ipv6(next, payload)])).unwrap();
    let headers = of(6, &tcp(&[]));
    assert_eq!((headers.network, headers.transport, headers.l4), (Network::Ipv6, Transport::Tcp, 54));
    assert_eq!((headers.tos, headers.ttl), (0xab, 64));
    assert_eq!((headers.src_ip[0], headers.src_ip[15], headers.dst_ip[15]), (0xfd, 1, 2));
    let headers = of(58, &[135, 0, 0, 0]);
    assert_eq!((headers.transport, headers.icmp_type), (Transport::Icmpv6, 135));
    assert_eq!(of(1, &[8, 0, 0, 0, 0, 0, 0, 0]).transport, Transport::Other);
    assert_eq!(of(59, &[]).transport, Transport::Other);
}

#[test]
fn extension_headers_are_walked() {
    let hop_by_hop = [43, 0, 1, 4, 0, 0, 0, 0];
    let routing = [51, 0, 0, 0, 0, 0, 0, 0];
    let authentication = [60, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    let destination = [17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let payload = [&hop_by_hop[..], &routing, &authentication, &destination, &udp(8)].concat();
    let headers = l4(&ethernet(&[IPV6, &ipv6(0, &payload)])).unwrap();
    assert_eq!((headers.transport, headers.protocol, headers.l4), (Transport::Udp, 17, 54 + 8 + 8 + 12 + 16));
    assert_eq!(headers.dst_port, 53);
}

#[test]
fn a_chain_that_is_too_long_hides_the_transport() {
    let chain = |count: usize| {
        let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        let last = payload.len() - 8;
        payload[last] = 17;
        payload.extend(udp(8));
        let frame = ethernet(&[IPV6, &ipv6(60, &payload)]);
        let headers = l4(&frame).unwrap();
        (headers.transport, headers.protocol, headers.l4)
    };
    assert_eq!(chain(1), (Transport::Udp, 17, 62));
    assert_eq!(chain(8), (Transport::Udp, 17, 118));
    assert_eq!(chain(9), (Transport::Hidden, 60, 118));
    // One header that alone leaves the window.
    let mut long = vec![17, 15, 1, 124];
    long.resize(128, 0);
    let headers = l4(&ethernet(&[IPV6, &ipv6(60, &[&long[..], &udp(8)].concat())])).unwrap();
    assert_eq!((headers.transport, headers.protocol, headers.l4), (Transport::Hidden, 60, 54));
    // Hop-by-hop options in the wrong place.
    let payload = [&[0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0][..], &udp(8)].concat();
    let headers = l4(&ethernet(&[IPV6, &ipv6(60, &payload)])).unwrap();
    assert_eq!((headers.transport, headers.protocol, headers.l4), (Transport::Hidden, 0, 62));
}

#[test]
fn the_window_is_the_same_for_every_port_type() {
    let payload =
        [[60, 0, 1, 4, 0, 0, 0, 0].repeat(7), vec![6, 1], vec![0; 14], tcp(&[]), vec![0; 100]].concat();
    let frame = ethernet(&[&[0x81, 0, 0, 1], IPV6, &ipv6(60, &payload)]);
    let windowed = parse(&frame[..WINDOW], frame.len(), Depth::L4).unwrap();
    assert_eq!(windowed, l4(&frame).unwrap());
    assert_eq!((windowed.transport, windowed.protocol), (Transport::Hidden, 60));
}

#[test]
fn ipv4_fragments() {
    let of = |field, payload: &[u8]| l4(&ethernet(&[IPV4, &ipv4(17, field, &[], payload)]));
    let first = of(0x2000, &udp(2000)).unwrap();
    assert_eq!((first.fragment, first.transport, first.dst_port), (Fragment::First, Transport::Udp, 53));
    let later = of(0x0001, &udp(8)).unwrap();
    assert_eq!((later.fragment, later.transport, later.dst_port), (Fragment::Later, Transport::Hidden, 0));
    assert_eq!(of(0x2000, &[0, 1]), Err(Malformed::TinyFragment));
    assert_eq!(of(0x1fff, &[0; 100]), Err(Malformed::FragmentBeyondPacket));
    let overlap = l4(&ethernet(&[IPV4, &ipv4(6, 0x0001, &[], &[0; 16])]));
    assert_eq!(overlap, Err(Malformed::TinyFragment));
}

#[test]
fn ipv6_fragments() {
    let of = |field: u16, next: u8, rest: &[u8]| {
        let [high, low] = field.to_be_bytes();
        l4(&ethernet(&[IPV6, &ipv6(44, &[&[next, 0, high, low, 0, 0, 0, 9][..], rest].concat())]))
    };
    let atomic = of(0, 17, &udp(8)).unwrap();
    assert_eq!((atomic.fragment, atomic.transport), (Fragment::Whole, Transport::Udp));
    let first = of(1, 6, &tcp(&[])).unwrap();
    assert_eq!((first.fragment, first.transport, first.l4), (Fragment::First, Transport::Tcp, 62));
    let later = of(0x0010, 60, &[1; 30]).unwrap();
    assert_eq!((later.fragment, later.transport, later.protocol), (Fragment::Later, Transport::Hidden, 60));
    // RFC 7112: the transport header is missing in the first fragment, or an extension header is cut.
    assert_eq!(of(1, 6, &[0; 19]), Err(Malformed::TinyFragment));
    assert_eq!(of(1, 60, &[6, 4, 0, 0, 0, 0, 0, 0]), Err(Malformed::TinyFragment));
    assert_eq!(of(0xfff8, 6, &[0; 16]), Err(Malformed::FragmentBeyondPacket));
}

#[test]
fn absurd_headers_are_named() {
    let with = |at: usize, value: u8, packet: Vec<u8>, ethertype: &[u8]| {
        let mut frame = ethernet(&[ethertype, &packet]);
        frame[at] = value;
        l4(&frame).unwrap_err().name()
    };
    let over4 = |at, value| with(at, value, ipv4(6, 0, &[], &tcp(&[])), IPV4);
    assert_eq!(over4(14, 0x65), "bad-ipv4-version");
    assert_eq!(over4(14, 0x44), "bad-ipv4-header-length");
    assert_eq!(over4(14, 0x4f), "truncated-ipv4");
    assert_eq!(over4(17, 19), "bad-ipv4-total-length");
    assert_eq!(over4(17, 41), "ipv4-beyond-frame");
    assert_eq!(over4(17, 39), "truncated-tcp");
    assert_eq!(over4(46, 0x40), "bad-tcp-header-length");
    assert_eq!(over4(46, 0x60), "truncated-tcp");
    let over6 = |at, value| with(at, value, ipv6(17, &udp(8)), IPV6);
    assert_eq!(over6(14, 0x45), "bad-ipv6-version");
    assert_eq!(over6(19, 9), "ipv6-beyond-frame");
    assert_eq!(over6(59, 7), "bad-udp-length");
    assert_eq!(over6(59, 9), "bad-udp-length");
    assert_eq!(over6(19, 7), "truncated-udp");
    assert_eq!(over6(20, 132), "truncated-sctp");
    assert_eq!(with(15, 0, ipv6(58, &[1, 2, 3]), IPV6), "truncated-icmpv6");
    assert_eq!(with(15, 0, ipv4(1, 0, &[], &[8; 7]), IPV4), "truncated-icmp");
}

/// Cuts `frame` at every byte and checks that the reason is that of the header which was cut.
fn cut_everywhere(frame: &[u8], reasons: &[(usize, Malformed)]) {
    assert!(l4(frame).is_ok());
    for length in 0..frame.len() {
        let expected = reasons.iter().find(|(end, _)| length < *end).map(|(_, reason)| *reason);
        assert_eq!(l4(&frame[..length]).err(), expected, "cut at {length}");
    }
}

#[test]
fn every_truncation_point() {
    let tagged = ethernet(&[&[0x88, 0xa8, 0, 1], &[0x81, 0, 0, 2], IPV4, &ipv4(6, 0, &[1; 8], &tcp(&[]))]);
    let vlan = [(14, Malformed::TruncatedEthernet), (22, Malformed::TruncatedVlan)];
    let end = tagged.len();
    cut_everywhere(
        &tagged,
        &[&vlan[..], &[(50, Malformed::TruncatedIpv4), (end, Malformed::Ipv4BeyondFrame)]].concat(),
    );

    let six = ethernet(&[IPV6, &ipv6(17, &udp(8))]);
    let end = six.len();
    let reasons = [vlan[0], (54, Malformed::TruncatedIpv6), (end, Malformed::Ipv6BeyondFrame)];
    cut_everywhere(&six, &reasons);

    let arp = ethernet(&[&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]]);
    cut_everywhere(&arp, &[vlan[0], (42, Malformed::TruncatedArp)]);
}

/// The same cuts, with the lengths in the IP header cut too, so that each reaches the header behind.
#[test]
fn every_truncation_point_behind_ip() {
    let packet4 = |length: usize, protocol, bytes: &[u8]| {
        l4(&ethernet(&[IPV4, &ipv4(protocol, 0, &[], &bytes[..length])]))
    };
    for length in 0..20 {
        assert_eq!(packet4(length, 6, &tcp(&[])), Err(Malformed::TruncatedTcp));
    }
    for length in 0..12 {
        assert_eq!(packet4(length, 132, &[0; 12]), Err(Malformed::TruncatedSctp));
    }
    for length in 0..8 {
        assert_eq!(packet4(length, 17, &udp(8)), Err(Malformed::TruncatedUdp));
        assert_eq!(packet4(length, 1, &[8; 8]), Err(Malformed::TruncatedIcmp));
    }
    let chain = [&[43, 0, 1, 4, 0, 0, 0, 0, 17, 1][..], &[0; 14], &udp(8)].concat();
    for length in 0..chain.len() {
        let expected = if length < 24 { Malformed::TruncatedIpv6Extension } else { Malformed::TruncatedUdp };
        assert_eq!(l4(&ethernet(&[IPV6, &ipv6(0, &chain[..length])])), Err(expected), "cut at {length}");
    }
}

#[test]
fn names_are_unique_and_headers_are_small() {
    let names: std::collections::HashSet<_> = Malformed::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), Malformed::ALL.len());
    for (number, reason) in Malformed::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, number);
    }
    assert!(size_of::<Headers>() <= 88, "{}", size_of::<Headers>());
}

/// A frame that etherparse made: another implementation's idea of every layer that we read.
fn built() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..40);
    (0u8..3, any::<bool>(), 0u8..5, any::<[u16; 4]>(), any::<[u8; 4]>(), payload).prop_map(
        |(tags, six, transport, numbers, bytes, payload)| {
            let builder = PacketBuilder::ethernet2(SRC, DST);
            let vlan = |number: u16| (number & 0x0fff).try_into().unwrap();
            let ip = |builder: etherparse::PacketBuilderStep<etherparse::Ethernet2Header>| match six {
                true => builder.ipv6([bytes[0]; 16], [bytes[1]; 16], bytes[2]),
                false => builder.ipv4([bytes[0]; 4], [bytes[1]; 4], bytes[2]),
            };
            let ip_tagged = |builder: etherparse::PacketBuilderStep<etherparse::VlanHeader>| match six {
                true => builder.ipv6([bytes[0]; 16], [bytes[1]; 16], bytes[2]),
                false => builder.ipv4([bytes[0]; 4], [bytes[1]; 4], bytes[2]),
            };
            let step = match tags {
                0 => ip(builder),
                1 => ip_tagged(builder.single_vlan(vlan(numbers[2]))),
                _ => ip_tagged(builder.double_vlan(vlan(numbers[2]), vlan(numbers[3]))),
            };
            let mut frame = Vec::new();
            match transport {
                0 => step.tcp(numbers[0], numbers[1], 1, 2).syn().write(&mut frame, &payload),
                1 => step.udp(numbers[0], numbers[1]).write(&mut frame, &payload),
                2 if six => step.icmpv6_raw(bytes[3], 0, [0; 4]).write(&mut frame, &payload),
                2 => step.icmpv4_raw(bytes[3], 0, [0; 4]).write(&mut frame, &payload),
                _ => step.write(&mut frame, IpNumber(253), &payload),
            }
            .unwrap();
            frame
        },
    )
}

/// What etherparse says, in our words; `None` where the two mean different things by design.
fn compare_with_etherparse(frame: &[u8]) -> Result<(), TestCaseError> {
    let (ours, theirs) = (l4(frame), SlicedPacket::from_ethernet(frame));
    let (ours, theirs) = match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Ok(ours), Err(error)) => {
            // What etherparse reads and we do not: MACsec, authentication headers in IPv4, IGMP, a third tag, the
            // length of ICMP timestamp messages; it wants 8 bytes of ICMPv6 where RFC 4443 wants 4.
            let beyond = ours.network == Network::Other
                || matches!(ours.transport, Transport::Other | Transport::Hidden)
                || (ours.transport == Transport::Icmp && matches!(ours.icmp_type, 13 | 14))
                || (ours.transport == Transport::Icmpv6
                    && frame[usize::from(ours.link.l3) + 4..][..2] < [0, 8][..]);
            prop_assert!(beyond, "we accept {ours:?}, etherparse says {error}");
            return Ok(());
        }
        (Err(reason), Ok(_)) => {
            // What we refuse and etherparse does not look at.
            let stricter = [
                Malformed::BadArp,
                Malformed::TruncatedArp, // with shorter addresses
                Malformed::FragmentBeyondPacket,
                Malformed::TinyFragment,
                Malformed::BadUdpLength,
                Malformed::TruncatedIpv6Extension,
                Malformed::TruncatedSctp,
            ];
            // An IPv6 payload length of 0 means to etherparse what it means in a jumbogram.
            let link = parse_link(frame).unwrap();
            let jumbo = link.ethertype == ethertype::IPV6 && frame[usize::from(link.l3) + 4..][..2] == [0, 0];
            prop_assert!(jumbo || stricter.contains(&reason), "we refuse as {reason}, etherparse accepts");
            return Ok(());
        }
        (Err(_), Err(_)) => return Ok(()),
    };
    if ours.network == Network::Other {
        return Ok(()); // etherparse follows a third tag, the TPID 0x9100 and MACsec
    }
    match theirs.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            prop_assert_eq!(ours.network, Network::Ipv4);
            prop_assert_eq!(
                (ours.src_ip, ours.dst_ip),
                (mapped(header.source()), mapped(header.destination()))
            );
            prop_assert_eq!(
                (ours.ttl, ours.tos),
                (header.ttl(), header.dcp().value() << 2 | header.ecn().value())
            );
            prop_assert_eq!(ours.fragment != Fragment::Whole, header.is_fragmenting_payload());
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            prop_assert_eq!(ours.network, Network::Ipv6);
            prop_assert_eq!((ours.src_ip, ours.dst_ip), (header.source(), header.destination()));
            prop_assert_eq!((ours.ttl, ours.tos), (header.hop_limit(), header.traffic_class()));
            if ours.transport != Transport::Hidden {
                prop_assert_eq!(ours.fragment != Fragment::Whole, ip.is_payload_fragmented());
                // etherparse stops at mobility, HIP and shim6 headers.
                let stopped = ip.payload().ip_number.0;
                prop_assert!(ours.protocol == stopped || matches!(stopped, 135 | 139 | 140));
            }
        }
        _ => return Ok(()),
    }
    // etherparse gives no transport of any fragment; we read it in the first.
    match theirs.transport {
        Some(TransportSlice::Tcp(tcp)) if ours.transport != Transport::Hidden => {
            prop_assert_eq!(ours.transport, Transport::Tcp);
            prop_assert_eq!((ours.src_port, ours.dst_port), (tcp.source_port(), tcp.destination_port()));
            prop_assert_eq!(ours.tcp_flags & 2 != 0, tcp.syn());
        }
        Some(TransportSlice::Udp(udp)) if ours.transport != Transport::Hidden => {
            prop_assert_eq!(ours.transport, Transport::Udp);
            prop_assert_eq!((ours.src_port, ours.dst_port), (udp.source_port(), udp.destination_port()));
        }
        Some(TransportSlice::Icmpv4(icmp)) if ours.transport != Transport::Other => {
            prop_assert_eq!((ours.icmp_type, ours.icmp_code), (icmp.type_u8(), icmp.code_u8()));
        }
        Some(TransportSlice::Icmpv6(icmp)) if ours.transport != Transport::Other => {
            prop_assert_eq!((ours.icmp_type, ours.icmp_code), (icmp.type_u8(), icmp.code_u8()));
        }
        _ => {}
    }
    Ok(())
}

/// smoltcp's checked view of the same bytes, where it has one.
fn compare_with_smoltcp(frame: &[u8]) -> Result<(), TestCaseError> {
    let Ok(ours) = l4(frame) else { return Ok(()) };
    let rest = &frame[usize::from(ours.link.l3)..];
    match ours.network {
        Network::Arp => {
            let arp = wire::ArpPacket::new_checked(rest);
            prop_assert!(arp.is_ok());
            prop_assert_eq!(ours.arp_operation, u16::from(arp.unwrap().operation()));
        }
        Network::Ipv4 => {
            let ip = wire::Ipv4Packet::new_checked(rest);
            prop_assert!(ip.is_ok());
            let ip = ip.unwrap();
            prop_assert_eq!(
                (ours.src_ip, ours.dst_ip),
                (mapped(ip.src_addr().octets()), mapped(ip.dst_addr().octets()))
            );
            prop_assert_eq!(usize::from(ours.l4 - ours.link.l3), usize::from(ip.header_len()));
            prop_assert_eq!(ours.fragment == Fragment::Later, ip.frag_offset() != 0);
            if ours.transport == Transport::Udp && ours.fragment == Fragment::Whole {
                prop_assert!(wire::UdpPacket::new_checked(ip.payload()).is_ok());
            }
            if ours.transport == Transport::Tcp {
                prop_assert!(wire::TcpPacket::new_checked(ip.payload()).is_ok());
            }
        }
        Network::Ipv6 => {
            let ip = wire::Ipv6Packet::new_checked(rest);
            prop_assert!(ip.is_ok());
            let ip = ip.unwrap();
            prop_assert_eq!((ours.src_ip, ours.dst_ip), (ip.src_addr().octets(), ip.dst_addr().octets()));
            prop_assert_eq!(ours.ttl, ip.hop_limit());
        }
        Network::Other => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), longer in 0usize..70_000) {
        let frame_len = bytes.len() + longer;
        let link = parse(&bytes, frame_len, Depth::L2);
        let all = parse(&bytes, frame_len, Depth::L4);
        if let (Ok(link), Ok(all)) = (link, all) {
            prop_assert_eq!(link.link, all.link);
        }
        prop_assert!(link.is_ok() || all == link);
    }

    #[test]
    fn agrees_with_other_parsers(
        frame in built(),
        changes in proptest::collection::vec((0usize..90, any::<u8>()), 0..4),
        cut in prop_oneof![3 => Just(usize::MAX), 1 => 0usize..120],
    ) {
        let mut frame = frame;
        compare_with_etherparse(&frame)?;
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut);
        compare_with_etherparse(&frame)?;
        compare_with_smoltcp(&frame)?;
    }
}
