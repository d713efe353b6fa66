//! ARP, IPv4, IPv6 with its extension headers, and what makes a fragment.

use super::view::{Reach, View};
use super::{Fragment, Headers, MAX_EXTENSIONS, Malformed, Network, Transport, WINDOW, mapped, transport};
use crate::flow::numbers::{ethertype, protocol};

/// Reads the network layer and, of IP, the transport.
pub(super) fn parse(head: &[u8], frame_len: usize, headers: &mut Headers) -> Result<(), Malformed> {
    // Never past the window, whatever the driver gave: the verdict on a frame may not depend on the port type.
    let view = View { window: &head[..head.len().min(WINDOW)], end: frame_len };
    match headers.link.ethertype {
        ethertype::IPV4 => parse_ipv4(view, headers),
        ethertype::IPV6 => parse_ipv6(view, headers),
        ethertype::ARP => parse_arp(view, headers),
        _ => Ok(()),
    }
}

/// RFC 826, IPv4 over Ethernet only: no other kind has been seen on an Ethernet for decades.
fn parse_arp(view: View<'_>, headers: &mut Headers) -> Result<(), Malformed> {
    let Reach::Read(arp) = view.read::<28>(usize::from(headers.link.l3)) else {
        return Err(Malformed::TruncatedArp);
    };
    if arp[..6] != [0, 1, 8, 0, 6, 4] {
        return Err(Malformed::BadArp);
    }
    headers.network = Network::Arp;
    headers.arp_operation = u16::from_be_bytes([arp[6], arp[7]]);
    headers.src_ip = mapped([arp[14], arp[15], arp[16], arp[17]]);
    headers.dst_ip = mapped([arp[24], arp[25], arp[26], arp[27]]);
    Ok(())
}

fn parse_ipv4(view: View<'_>, headers: &mut Headers) -> Result<(), Malformed> {
    let l3 = usize::from(headers.link.l3);
    let Reach::Read(ip) = view.read::<20>(l3) else { return Err(Malformed::TruncatedIpv4) };
    if ip[0] >> 4 != 4 {
        return Err(Malformed::BadIpv4Version);
    }
    let header_length = usize::from(ip[0] & 0x0f) * 4;
    if header_length < 20 {
        return Err(Malformed::BadIpv4HeaderLength);
    }
    if l3 + header_length > view.end {
        return Err(Malformed::TruncatedIpv4);
    }
    let total_length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if total_length < header_length {
        return Err(Malformed::BadIpv4TotalLength);
    }
    if l3 + total_length > view.end {
        return Err(Malformed::Ipv4BeyondFrame);
    }
    headers.network = Network::Ipv4;
    headers.tos = ip[1];
    headers.ttl = ip[8];
    headers.protocol = ip[9];
    headers.src_ip = mapped([ip[12], ip[13], ip[14], ip[15]]);
    headers.dst_ip = mapped([ip[16], ip[17], ip[18], ip[19]]);
    headers.l4 = (l3 + header_length) as u16;

    let flags_and_offset = u16::from_be_bytes([ip[6], ip[7]]);
    let more = flags_and_offset & 0x2000 != 0;
    headers.fragment =
        fragment_of(flags_and_offset & 0x1fff, more, total_length - header_length, headers.protocol)?;
    // From here on the packet ends where IP says; what follows is padding.
    transport::parse(View { end: l3 + total_length, ..view }, headers)
}

/// Classes a fragment by its offset in units of 8 bytes. `length` is what it carries.
fn fragment_of(offset: u16, more: bool, length: usize, protocol: u8) -> Result<Fragment, Malformed> {
    if usize::from(offset) * 8 + length > 65_535 {
        return Err(Malformed::FragmentBeyondPacket);
    }
    match (offset, more) {
        (0, false) => Ok(Fragment::Whole),
        (0, true) => Ok(Fragment::First),
        // RFC 3128 section 4: such a fragment exists only to overwrite the flags in the first one.
        (1, _) if protocol == protocol::TCP => Err(Malformed::TinyFragment),
        _ => Ok(Fragment::Later),
    }
}

fn parse_ipv6(view: View<'_>, headers: &mut Headers) -> Result<(), Malformed> {
    let l3 = usize::from(headers.link.l3);
    let Reach::Read(ip) = view.read::<40>(l3) else { return Err(Malformed::TruncatedIpv6) };
    if ip[0] >> 4 != 6 {
        return Err(Malformed::BadIpv6Version);
    }
    let end = l3 + 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    if end > view.end {
        return Err(Malformed::Ipv6BeyondFrame);
    }
    headers.network = Network::Ipv6;
    headers.tos = ip[0] << 4 | ip[1] >> 4;
    headers.ttl = ip[7];
    headers.protocol = ip[6];
    headers.src_ip.copy_from_slice(&ip[8..24]);
    headers.dst_ip.copy_from_slice(&ip[24..40]);
    headers.l4 = (l3 + 40) as u16;
    let view = View { end, ..view };
    if is_extension(headers.protocol) && !follow_extensions(view, headers)? {
        headers.transport = Transport::Hidden;
        return Ok(());
    }
    transport::parse(view, headers)
}

/// The next headers that are extension headers with a known length (IANA's list, less ESP, which hides what follows).
#[inline]
fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6
    )
}

/// Walks the chain of extension headers (RFC 8200 section 4) until a transport header. Leaves `l4` and `protocol` at
/// where it stopped; returns whether what is there can be read on.
fn follow_extensions(view: View<'_>, headers: &mut Headers) -> Result<bool, Malformed> {
    let mut at = usize::from(headers.l4);
    for count in 0.. {
        let kind = headers.protocol;
        if !is_extension(kind) {
            break;
        }
        // Hop-by-hop options anywhere but first are not to be processed as such (RFC 8200 section 4.1).
        if count == MAX_EXTENSIONS || (kind == protocol::HOP_BY_HOP && count > 0) {
            return Ok(false);
        }
        let header = match view.read::<8>(at) {
            Reach::Read(header) => header,
            Reach::Hidden => return Ok(false),
            Reach::Truncated => return Err(transport::truncated(headers, Malformed::TruncatedIpv6Extension)),
        };
        let length = match kind {
            protocol::FRAGMENT => 8,
            // RFC 4302 section 2.2: in units of 4 bytes, less 2.
            protocol::AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        if at + length > view.end {
            return Err(transport::truncated(headers, Malformed::TruncatedIpv6Extension));
        }
        at += length;
        if kind == protocol::FRAGMENT {
            let field = u16::from_be_bytes([header[2], header[3]]);
            let fragment = fragment_of(field >> 3, field & 1 != 0, view.end - at, header[0])?;
            // A fragment header behind another may say less than the first, never more.
            if headers.fragment == Fragment::Whole {
                headers.fragment = fragment;
            }
        }
        if at > WINDOW {
            return Ok(false);
        }
        headers.l4 = at as u16;
        headers.protocol = header[0];
        if headers.fragment == Fragment::Later {
            break;
        }
    }
    Ok(true)
}
