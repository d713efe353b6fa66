//! The first fields of the transport protocols.

use super::view::{Reach, View};
use super::{Fragment, Headers, Malformed, Network, Transport};
use crate::flow::numbers::protocol;

/// The reason for a header that its packet cuts short. RFC 7112 section 5: a first fragment holds all headers.
pub(super) fn truncated(headers: &Headers, reason: Malformed) -> Malformed {
    if headers.fragment == Fragment::First { Malformed::TinyFragment } else { reason }
}

/// Reads the transport header that `protocol` names at `l4`; `view` ends where the IP packet does.
pub(super) fn parse(view: View<'_>, headers: &mut Headers) -> Result<(), Malformed> {
    if headers.fragment == Fragment::Later {
        headers.transport = Transport::Hidden;
        return Ok(());
    }
    match (headers.protocol, headers.network) {
        (protocol::TCP, _) => parse_tcp(view, headers),
        (protocol::UDP, _) => parse_udp(view, headers),
        (protocol::SCTP, _) => parse_sctp(view, headers),
        (protocol::ICMP, Network::Ipv4) => parse_icmp(view, headers),
        (protocol::ICMPV6, Network::Ipv6) => parse_icmpv6(view, headers),
        (protocol::ESP, _) => {
            headers.transport = Transport::Hidden;
            Ok(())
        }
        _ => {
            headers.transport = Transport::Other;
            Ok(())
        }
    }
}

/// The fixed part of a transport header, or `None` (and `Hidden` set) past the window.
#[inline]
fn transport_header<const N: usize>(
    view: View<'_>,
    headers: &mut Headers,
    kind: Transport,
    reason: Malformed,
) -> Result<Option<[u8; N]>, Malformed> {
    match view.read::<N>(usize::from(headers.l4)) {
        Reach::Read(header) => {
            headers.transport = kind;
            Ok(Some(header))
        }
        Reach::Hidden => {
            headers.transport = Transport::Hidden;
            Ok(None)
        }
        Reach::Truncated => Err(truncated(headers, reason)),
    }
}

#[inline]
fn set_ports(headers: &mut Headers, header: &[u8]) {
    headers.src_port = u16::from_be_bytes([header[0], header[1]]);
    headers.dst_port = u16::from_be_bytes([header[2], header[3]]);
}

/// RFC 9293 section 3.1.
fn parse_tcp(view: View<'_>, headers: &mut Headers) -> Result<(), Malformed> {
    let Some(tcp) = transport_header::<20>(view, headers, Transport::Tcp, Malformed::TruncatedTcp)? else {
        return Ok(());
    };
    let header_length = usize::from(tcp[12] >> 4) * 4;
    if header_length < 20 {
        return Err(Malformed::BadTcpHeaderLength);
    }
    if usize::from(headers.l4) + header_length > view.end {
        return Err(truncated(headers, Malformed::TruncatedTcp));
    }
    set_ports(headers, &tcp);
    headers.tcp_flags = tcp[13];
    Ok(())
}

/// RFC 768.
fn parse_udp(view: View<'_>, headers: &mut Headers) -> Result<(), Malformed> {
    let Some(udp) = transport_header::<8>(view, headers, Transport::Udp, Malformed::TruncatedUdp)? else {
        return Ok(());
    };
    let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    // In a first fragment the length is that of the whole datagram.
    let beyond = headers.fragment == Fragment::Whole && usize::from(headers.l4) + length > view.end;
    if length < 8 || beyond {
        return Err(Malformed::BadUdpLength);
    }
    set_ports(headers, &udp);
    Ok(())
}

/// RFC 9260 section 3.1.
fn parse_sctp(view: View<'_>, headers: &mut Headers) -> Result<(), Malformed> {
    if let Some(sctp) = transport_header::<12>(view, headers, Transport::Sctp, Malformed::TruncatedSctp)? {
        set_ports(headers, &sctp);
    }
    Ok(())
}

/// RFC 792: every message has at least 8 bytes.
fn parse_icmp(view: View<'_>, headers: &mut Headers) -> Result<(), Malformed> {
    if let Some(icmp) = transport_header::<8>(view, headers, Transport::Icmp, Malformed::TruncatedIcmp)? {
        headers.icmp_type = icmp[0];
        headers.icmp_code = icmp[1];
    }
    Ok(())
}

/// RFC 4443 section 2.1: type, code, checksum; the rest depends on the type.
fn parse_icmpv6(view: View<'_>, headers: &mut Headers) -> Result<(), Malformed> {
    if let Some(icmp) = transport_header::<4>(view, headers, Transport::Icmpv6, Malformed::TruncatedIcmpv6)? {
        headers.icmp_type = icmp[0];
        headers.icmp_code = icmp[1];
    }
    Ok(())
}
