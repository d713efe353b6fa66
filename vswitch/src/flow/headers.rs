//! The headers of a frame, read in one pass from its private head, with no allocation.
//!
//! Who calls it: the worker, once for every frame of a batch, before the flow key is made, and again for a frame
//! that the pipeline has to decide. As no stage reads more than the link layer, that is [`parse_link`], or [`untagged`]
//! where that is enough; `trace` calls it too, and [`parse`] for the key, as deep as the port's mask. What it may not
//! know: ports, configuration, tables. It states facts about bytes; whether a fact is welcome is for the pipeline to say.
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
//! A tunnel's outer headers are read by [`tunnel`](crate::tunnel), and taken off before the inner frame is read here.

mod network;
mod transport;
mod view;

pub use super::malformed::Malformed;
use super::numbers::ethertype;

/// How much of a frame is ever looked at, in bytes. Ethernet with two tags, IPv4 with all its options and TCP end at
/// 82 + 20 bytes; only a long chain of IPv6 extension headers goes further, and is then [`Transport::Hidden`].
/// A driver provides a private head of at least [`pmd::batch::HEAD`], or of the whole frame if that is shorter.
pub const WINDOW: usize = 128;

const _: () = assert!(WINDOW <= pmd::batch::HEAD);

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
        network::parse(head, frame_len, &mut headers)?;
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

/// The Ethernet header of a frame that has one and no tag; [`parse_link`] reads the same of it.
#[inline]
pub fn untagged(head: &[u8]) -> Option<&[u8; 14]> {
    let ethernet = head.first_chunk::<14>()?;
    // Read in one with the source, which is wanted next.
    let source_and_type = u64::from_be_bytes(*ethernet.last_chunk()?);
    (!is_tag(source_and_type as u16)).then_some(ethernet)
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

#[cfg(test)]
mod tests;
