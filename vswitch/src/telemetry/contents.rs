//! What a frame says, in words: ARP, neighbour discovery, ICMP and DHCP, for `trace`.
//!
//! The slow path's reading of the protocols by which hosts find one another. The wire formats are
//! smoltcp's; nothing here decides anything, and what cannot be read has no words.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpPacket, Icmpv4Message, Icmpv4Packet, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv4Packet, Ipv6Packet, NdiscRepr, UdpPacket,
};

use crate::flow::headers::parse_link;
use crate::flow::numbers::ethertype;

/// One line about the message in a frame, or nothing.
pub fn contents(frame: &[u8]) -> Option<String> {
    let link = parse_link(frame).ok()?;
    let payload = frame.get(link.l3 as usize..)?;
    match link.ethertype {
        ethertype::ARP => arp(payload),
        ethertype::IPV4 => ipv4(payload),
        ethertype::IPV6 => ipv6(payload),
        _ => None,
    }
}

fn arp(payload: &[u8]) -> Option<String> {
    let packet = ArpPacket::new_checked(payload).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    Some(match operation {
        ArpOperation::Request => format!("ARP: who has {target_protocol_addr}, asks {source_protocol_addr}"),
        ArpOperation::Reply => format!("ARP: {source_protocol_addr} is at {source_hardware_addr}"),
        ArpOperation::Unknown(number) => format!("ARP: operation {number}"),
    })
}

fn ipv4(payload: &[u8]) -> Option<String> {
    let packet = Ipv4Packet::new_checked(payload).ok()?;
    match packet.next_header() {
        IpProtocol::Icmp => {
            let message = Icmpv4Packet::new_checked(packet.payload()).ok()?;
            let about = match message.msg_type() {
                Icmpv4Message::EchoRequest | Icmpv4Message::EchoReply => {
                    format!(", identifier {}, sequence {}", message.echo_ident(), message.echo_seq_no())
                }
                _ => format!(", code {}", message.msg_code()),
            };
            Some(format!("ICMP: {}{about}", message.msg_type()))
        }
        IpProtocol::Udp => dhcp(packet.payload()),
        _ => None,
    }
}

fn dhcp(payload: &[u8]) -> Option<String> {
    let datagram = UdpPacket::new_checked(payload).ok()?;
    if !matches!((datagram.src_port(), datagram.dst_port()), (67 | 68, 67 | 68)) {
        return None;
    }
    let packet = DhcpPacket::new_checked(datagram.payload()).ok()?;
    // Option 53 (RFC 2132, section 9.6) says which message it is.
    let kind =
        packet.options().find(|option| option.kind == 53).and_then(|option| option.data.first().copied());
    let kind = match kind? {
        1 => "discover",
        2 => "offer",
        3 => "request",
        4 => "decline",
        5 => "acknowledgement",
        6 => "refusal",
        7 => "release",
        8 => "inform",
        _ => "unknown message",
    };
    Some(format!("DHCP: {kind} of {}, address {}", packet.client_hardware_address(), packet.your_ip()))
}

fn ipv6(payload: &[u8]) -> Option<String> {
    let packet = Ipv6Packet::new_checked(payload).ok()?;
    if packet.next_header() != IpProtocol::Icmpv6 {
        return None;
    }
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    let message = Icmpv6Packet::new_checked(packet.payload()).ok()?;
    let kind = message.msg_type();
    Some(match Icmpv6Repr::parse(&from, &to, &message, &ChecksumCapabilities::ignored()) {
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. })) => {
            format!("ND: who has {target_addr}, asks {from}")
        }
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, lladdr, .. })) => match lladdr {
            Some(mac) => format!("ND: {target_addr} is at {mac}"),
            None => format!("ND: {target_addr} is here"),
        },
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert { .. })) => {
            format!("ND: router {from} advertises itself")
        }
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { .. })) => format!("ND: {from} looks for routers"),
        Ok(Icmpv6Repr::EchoRequest { ident, seq_no, .. } | Icmpv6Repr::EchoReply { ident, seq_no, .. }) => {
            format!("ICMPv6: {kind}, identifier {ident}, sequence {seq_no}")
        }
        _ => format!("ICMPv6: {kind}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notation::build;

    fn words(text: &str) -> Option<String> {
        contents(&build(text).unwrap())
    }

    #[test]
    fn hosts_that_look_for_one_another() {
        let arp = words(
            "eth(dst=ff:ff:ff:ff:ff:ff,src=02:00:00:00:00:01) vlan(id=5) arp(spa=10.0.0.1,tpa=10.0.0.2)",
        );
        assert_eq!(arp.unwrap(), "ARP: who has 10.0.0.2, asks 10.0.0.1");
        let echo = words("eth() ipv4(src=10.0.0.1,dst=10.0.0.2) icmp(type=8,id=7,seq=3)").unwrap();
        assert!(
            echo.starts_with("ICMP: echo request") && echo.ends_with("identifier 7, sequence 3"),
            "{echo}"
        );
        let nd = words("eth() ipv6(src=fe80::1,dst=ff02::1:ff00:2) icmpv6(type=135,target=fe80::2)");
        assert_eq!(nd.unwrap(), "ND: who has fe80::2, asks fe80::1");
    }

    #[test]
    fn what_has_no_words() {
        assert_eq!(words("eth() ipv4() tcp(dport=80)"), None);
        assert_eq!(contents(&[0; 13]), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), kind in 0usize..3) {
            let mut frame = vec![2u8; 12];
            frame.extend_from_slice(&[[8, 0], [8, 6], [0x86, 0xdd]][kind]);
            frame.extend_from_slice(&bytes);
            let _ = contents(&frame);
        }
    }
}
