//! The headers of a frame, read in one pass from its private head, with no allocation.
//!
//! Who calls it: the worker, once for every frame of a batch, before the flow key is made; `trace` and the slow
//! path, through the same function. What it may not know: ports, configuration, tables. It states facts about bytes;
//! whether a fact is welcome is for the pipeline to say.
//!
//! Rules that everything below obeys:
//!
//! - **Only private memory.** The head is a copy (or lies in our own arena): a guest that rewrites its buffer
//!   cannot make two readers see two headers.
//! - **Only as deep as asked.** A pure L2 bridge asks for [`Depth::L2`] and is never told of a bad IPv4 header: it
//!   may not drop what a wire would carry. What is found absurd at the depth asked is a [`Malformed`], and each of
//!   its variants is a drop reason of its own.
//! - **Refuse, never guess.** Lengths are checked against the frame and against the layer above them. A header that
//!   cannot be reached (a later fragment, more than [`MAX_EXTENSIONS`] extension headers, an encrypted payload,
//!   anything past the first [`WINDOW`] bytes) is [`Transport::Hidden`]: it never equals a transport protocol, so no rule
//!   over ports can match it by accident.
//! - **Bounded work.** Two VLAN tags, [`MAX_EXTENSIONS`] extension headers, [`WINDOW`] bytes.
//!
//! One level of tunnel will be read here too: from the outer `l4` offset on, into a second `Headers`.

pub use super::malformed::Malformed;
use super::numbers::{ethertype, protocol};

/// How much of a frame is ever looked at, in bytes. Ethernet with two tags, IPv4 with all its options and TCP end at
/// 82 + 20 bytes; only a long chain of IPv6 extension headers goes further, and is then [`Transport::Hidden`].
/// A driver provides a private head of at least this length, or of the whole frame if that is shorter.
pub const WINDOW: usize = 128;

/// The longest chain of IPv6 extension headers that is followed. RFC 8504 section 5.3 lets a node stop at 8.
pub const MAX_EXTENSIONS: usize = 8;

/// How deep a frame is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Ethernet addresses, VLAN tags, ethertype.
    L2,
    /// Everything: ARP, IP, and the transport's first fields.
    L4,
}

/// A VLAN tag as it lies on the wire. An absent tag has the TPID 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The tag's protocol: 0x8100 (802.1Q), 0x88a8 (802.1ad), or 0 where there is no tag.
    pub tpid: u16,
    /// Tag control information: priority (3 bits), drop eligible (1 bit), VLAN (12 bits).
    pub tci: u16,
}

impl Tag {
    /// Whether the frame has this tag.
    #[inline]
    pub fn is_present(self) -> bool {
        self.tpid != 0
    }

    /// The VLAN number, 0 to 4095 (0 is a priority tag, 4095 is reserved).
    #[inline]
    pub fn vlan(self) -> u16 {
        self.tci & 0x0fff
    }

    /// The priority code point, 0 to 7.
    #[inline]
    pub fn priority(self) -> u8 {
        (self.tci >> 13) as u8
    }
}

/// The link layer: all that [`Depth::L2`] reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Destination address.
    pub dst: [u8; 6],
    /// Source address.
    pub src: [u8; 6],
    /// The outer (or only) VLAN tag.
    pub outer: Tag,
    /// The second VLAN tag. A third is not read: its TPID is then the ethertype.
    pub inner: Tag,
    /// What follows the tags; below 0x0600 it is the length of an 802.3 frame.
    pub ethertype: u16,
    /// Offset of the first byte after the ethertype, from the start of the frame.
    pub l3: u16,
}

/// The network protocol of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Network {
    /// Neither ARP nor IP, or not looked at.
    #[default]
    Other,
    /// ARP for IPv4 over Ethernet (RFC 826).
    Arp,
    /// IPv4 (RFC 791).
    Ipv4,
    /// IPv6 (RFC 8200).
    Ipv6,
}

/// Which piece of an IP packet this is. An IPv6 atomic fragment (RFC 6946) is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fragment {
    /// All of it.
    #[default]
    Whole,
    /// The first of several: it has the transport header.
    First,
    /// Any other: there is no transport header in it.
    Later,
}

/// What the transport header is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// The frame is not an IP packet, or was read to [`Depth::L2`] only.
    #[default]
    Absent,
    /// TCP: ports and flags are set.
    Tcp,
    /// UDP: ports are set.
    Udp,
    /// SCTP: ports are set.
    Sctp,
    /// ICMP over IPv4: type and code are set.
    Icmp,
    /// ICMPv6 over IPv6: type and code are set.
    Icmpv6,
    /// Another protocol, which `protocol` names.
    Other,
    /// There may be a transport header, but it is out of reach (see the rules at the top of this file).
    Hidden,
}

/// Everything that one pass over a frame finds. Fields that the frame does not have are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Ethernet and VLAN tags.
    pub link: Link,
    /// Offset of the transport header, or of what stands in its place, from the start of the frame; 0 if not IP.
    pub l4: u16,
    /// Which network protocol was read.
    pub network: Network,
    /// Which piece of an IP packet this is.
    pub fragment: Fragment,
    /// What the transport header is.
    pub transport: Transport,
    /// The IP protocol: of the transport header, or of the last extension header that was not followed.
    pub protocol: u8,
    /// IPv4 type of service, IPv6 traffic class: DSCP (6 bits) and ECN (2 bits).
    pub tos: u8,
    /// IPv4 time to live, IPv6 hop limit.
    pub ttl: u8,
    /// TCP flags, FIN in bit 0 to CWR in bit 7.
    pub tcp_flags: u8,
    /// ICMP or ICMPv6 type.
    pub icmp_type: u8,
    /// ICMP or ICMPv6 code.
    pub icmp_code: u8,
    /// ARP operation: 1 request, 2 reply.
    pub arp_operation: u16,
    /// Source port of TCP, UDP, SCTP.
    pub src_port: u16,
    /// Destination port of TCP, UDP, SCTP.
    pub dst_port: u16,
    /// Source address of IP, sender's protocol address of ARP. IPv4 stands as an IPv4-mapped IPv6 address
    /// (RFC 4291 section 2.5.5.2).
    pub src_ip: [u8; 16],
    /// Destination address of IP, target's protocol address of ARP, in the same form.
    pub dst_ip: [u8; 16],
}

/// Reads the headers of a frame of `frame_len` bytes, of which `head` holds the first [`WINDOW`] (or all, if it is
/// shorter; more does no harm).
///
/// # Errors
/// The first thing that is wrong with a header that `depth` asks for.
#[inline]
pub fn parse(head: &[u8], frame_len: usize, depth: Depth) -> Result<Headers, Malformed> {
    let head = &head[..head.len().min(frame_len)];
    let link = parse_link(head)?;
    let mut headers = Headers { link, ..Headers::default() };
    if depth == Depth::L4 {
        parse_network(head, frame_len, &mut headers)?;
    }
    Ok(headers)
}

/// Reads what a pure L2 bridge needs: addresses, tags, ethertype.
///
/// # Errors
/// [`Malformed::TruncatedEthernet`] and [`Malformed::TruncatedVlan`], no other.
#[inline]
pub fn parse_link(head: &[u8]) -> Result<Link, Malformed> {
    let Some(ethernet) = head.first_chunk::<14>() else { return Err(Malformed::TruncatedEthernet) };
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, type0, type1] = *ethernet;
    let mut link = Link {
        dst: [d0, d1, d2, d3, d4, d5],
        src: [s0, s1, s2, s3, s4, s5],
        outer: Tag::default(),
        inner: Tag::default(),
        ethertype: u16::from_be_bytes([type0, type1]),
        l3: 14,
    };
    if is_tag(link.ethertype) {
        parse_tags(head, &mut link)?;
    }
    Ok(link)
}

#[inline]
fn is_tag(ethertype: u16) -> bool {
    ethertype == ethertype::VLAN || ethertype == ethertype::SERVICE_VLAN
}

/// One or two tags, of either kind in either place: what a customer sends is not ours to forbid.
fn parse_tags(head: &[u8], link: &mut Link) -> Result<(), Malformed> {
    (link.outer, link.ethertype) = parse_tag(head, 14, link.ethertype)?;
    link.l3 = 18;
    if is_tag(link.ethertype) {
        (link.inner, link.ethertype) = parse_tag(head, 18, link.ethertype)?;
        link.l3 = 22;
    }
    Ok(())
}

/// The tag whose control information stands at `at`, and the ethertype behind it.
#[inline]
fn parse_tag(head: &[u8], at: usize, tpid: u16) -> Result<(Tag, u16), Malformed> {
    let [tci0, tci1, type0, type1] = bytes_at(head, at).ok_or(Malformed::TruncatedVlan)?;
    Ok((Tag { tpid, tci: u16::from_be_bytes([tci0, tci1]) }, u16::from_be_bytes([type0, type1])))
}

/// The `N` bytes at `at`, if they are there.
#[inline]
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

/// An IPv4 address in the form of [`Headers::src_ip`].
#[inline]
pub fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

fn parse_network(head: &[u8], frame_len: usize, headers: &mut Headers) -> Result<(), Malformed> {
    // Never past the window, whatever the driver gave: the verdict on a frame may not depend on the port type.
    let view = View { window: &head[..head.len().min(WINDOW)], end: frame_len };
    match headers.link.ethertype {
        ethertype::IPV4 => parse_ipv4(view, headers),
        ethertype::IPV6 => parse_ipv6(view, headers),
        ethertype::ARP => parse_arp(view, headers),
        _ => Ok(()),
    }
}

/// What can be read (`window`) and where the current layer ends (`end`, from the start of the frame).
#[derive(Clone, Copy)]
struct View<'a> {
    window: &'a [u8],
    end: usize,
}

/// Whether a header could be read.
enum Reach<const N: usize> {
    /// Here it is.
    Read([u8; N]),
    /// The layer ends before it does.
    Truncated,
    /// It lies past the window.
    Hidden,
}

impl View<'_> {
    #[inline]
    fn read<const N: usize>(self, at: usize) -> Reach<N> {
        if at + N > self.end {
            return Reach::Truncated;
        }
        match bytes_at(self.window, at) {
            Some(bytes) => Reach::Read(bytes),
            None => Reach::Hidden,
        }
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
    parse_transport(View { end: l3 + total_length, ..view }, headers)
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
    parse_transport(view, headers)
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
            Reach::Truncated => return Err(truncated(headers, Malformed::TruncatedIpv6Extension)),
        };
        let length = match kind {
            protocol::FRAGMENT => 8,
            // RFC 4302 section 2.2: in units of 4 bytes, less 2.
            protocol::AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        if at + length > view.end {
            return Err(truncated(headers, Malformed::TruncatedIpv6Extension));
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

/// The reason for a header that its packet cuts short. RFC 7112 section 5: a first fragment holds all headers.
fn truncated(headers: &Headers, reason: Malformed) -> Malformed {
    if headers.fragment == Fragment::First { Malformed::TinyFragment } else { reason }
}

fn parse_transport(view: View<'_>, headers: &mut Headers) -> Result<(), Malformed> {
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

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
