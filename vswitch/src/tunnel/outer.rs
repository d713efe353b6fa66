//! The outer headers of a frame that came in by an uplink: is it a tunnel's, and what do they say?
//!
//! Most frames are: untagged, IPv4 without options, no fragment, no error. These go a short way, [`plain`]; whatever
//! is unlike that goes the long one, [`general`], which gives the same answer for both and a reason for what is wrong.

use pmd::checksum::{self, Sum};

use super::{BASE, Kind, MIN_INNER, geneve, nvgre, vxlan};
use crate::flow::headers::{self, Depth, Fragment, Headers, Network, Tag, Transport, mapped};
use crate::flow::numbers::protocol;
use crate::telemetry::drops::DropReason;

/// What the caller takes for a tunnel's. Everything else is [`None`](parse) to it, so that it can be somebody else's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claims<'a> {
    /// The UDP destination ports of tunnels, and what comes to each.
    pub ports: &'a [(u16, Kind)],
    /// Whether GRE is ours.
    pub gre: bool,
}

impl Claims<'_> {
    #[inline]
    fn kind(&self, port: u16) -> Option<Kind> {
        self.ports.iter().find(|claim| claim.0 == port).map(|claim| claim.1)
    }
}

/// What the outer headers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outer {
    /// Source address; IPv4 as an IPv4-mapped IPv6 address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
    /// How the inner frame is encapsulated.
    pub kind: Kind,
    /// DSCP and ECN.
    pub tos: u8,
    /// FlowID of NVGRE.
    pub flow_id: u8,
    /// VNI or VSID.
    pub vni: u32,
    /// The group policy of VXLAN.
    pub policy: vxlan::Policy,
    /// The VLAN tag of the underlay.
    pub tag: Tag,
    /// UDP source port; 0 for NVGRE.
    pub src_port: u16,
    /// UDP destination port; 0 for NVGRE.
    pub dst_port: u16,
    /// The UDP checksum as it stands in the header; 0 if there is none.
    pub checksum: u16,
    /// Where the IP header begins.
    pub network: u16,
    /// Where the UDP or GRE header begins.
    pub transport: u16,
    /// Where the inner frame begins.
    pub inner: u16,
    /// Bytes of the inner frame. What follows it is padding.
    pub inner_len: u32,
}

impl Outer {
    /// The sum of the UDP pseudo-header. With all bytes from [`transport`](Self::transport) to the inner frame's end
    /// added, the checksum is right if [`Sum::finish`] gives zero. One that is absent need not be asked for
    /// (RFC 7348 section 4, RFC 8926 section 3.3; over IPv6 RFC 6935 section 5).
    pub fn pseudo_header(&self) -> Sum {
        let mut sum = Sum::default();
        // The first twelve bytes of mapped addresses add ff ff twice, which is zero in this arithmetic.
        sum.add(&self.src);
        sum.add(&self.dst);
        sum.add_word(protocol::UDP.into());
        sum.add_word((u32::from(self.inner - self.transport) + self.inner_len) as u16);
        sum
    }
}

/// Reads the frame of `frame_len` bytes that `head` begins. `None`: it is no tunnel's.
///
/// A fragment of a tunnel's packet is not put together again (RFC 7348 section 4.3 lets it be discarded, and so does
/// RFC 8926 section 4.4.1 a VTEP that will not).
///
/// # Errors
/// Why it must be dropped: headers that no packet may have, or a tunnel's packet that cannot be opened.
#[inline]
pub fn parse(head: &[u8], frame_len: usize, claims: Claims<'_>) -> Result<Option<Outer>, DropReason> {
    match plain(head, frame_len, claims) {
        Some(outer) => Ok(Some(outer)),
        None => general(head, frame_len, claims),
    }
}

/// Ethernet, IPv4 without options, and the longer of UDP and GRE with a tunnel header; then an inner Ethernet header.
const PLAIN: usize = 14 + 20 + 8 + BASE + MIN_INNER;

/// Reads a frame with nothing unusual about it.
#[inline]
pub(super) fn plain(head: &[u8], frame_len: usize, claims: Claims<'_>) -> Option<Outer> {
    let header = head.first_chunk::<PLAIN>()?;
    // Ethertype, version and header length, TOS, total length, identification.
    let first = long_at(header, 12);
    // Flags and fragment offset, TTL, protocol, checksum.
    let second = long_at(header, 20);
    let total = (first >> 16) as u16;
    if first >> 40 != 0x08_0045 || second & 0x3fff << 48 != 0 || 14 + usize::from(total) > frame_len {
        return None;
    }
    let ip = header[14..].first_chunk::<20>()?;
    if !is_sound(ip) {
        return None;
    }
    let mut outer = Outer {
        src: mapped([ip[12], ip[13], ip[14], ip[15]]),
        dst: mapped([ip[16], ip[17], ip[18], ip[19]]),
        tos: (first >> 32) as u8,
        network: 14,
        transport: 34,
        ..Outer::default()
    };
    match (second >> 32) as u8 {
        protocol::UDP => {
            let udp = long_at(header, 34);
            if (udp >> 16) as u16 != total.wrapping_sub(20) {
                return None;
            }
            (outer.src_port, outer.dst_port, outer.checksum) =
                ((udp >> 48) as u16, (udp >> 32) as u16, udp as u16);
            outer.kind = claims.kind(outer.dst_port)?;
            outer.inner = 50;
        }
        protocol::GRE if claims.gre => {
            outer.kind = Kind::Nvgre;
            outer.inner = 42;
        }
        _ => return None,
    }
    let options =
        outer.read(if outer.kind == Kind::Nvgre { long_at(header, 34) } else { long_at(header, 42) }).ok()?;
    outer.inner_len = (u32::from(total) + 14).checked_sub(outer.inner.into())?;
    (options == 0 && outer.inner_len >= MIN_INNER as u32).then_some(outer)
}

/// Reads any frame.
#[cold]
pub(super) fn general(
    head: &[u8],
    frame_len: usize,
    claims: Claims<'_>,
) -> Result<Option<Outer>, DropReason> {
    let head = &head[..head.len().min(frame_len)];
    let headers = headers::parse(head, frame_len, Depth::L4).map_err(DropReason::Malformed)?;
    let Some(kind) = claimed(&headers, claims)? else { return Ok(None) };
    if headers.fragment != Fragment::Whole {
        return Err(DropReason::OuterFragment);
    }
    let (l3, l4) = (usize::from(headers.link.l3), usize::from(headers.l4));
    let ip = head.get(l3..l4).unwrap_or(&[]);
    let mut end = l3;
    if headers.network == Network::Ipv4 {
        if checksum::of(ip) != [0, 0] {
            return Err(DropReason::OuterChecksum);
        }
        end += usize::from(short_at(ip, 2));
    } else {
        if ip.len() != 40 {
            return Err(DropReason::OuterExtension);
        }
        end += 40 + usize::from(short_at(ip, 4));
    }
    let mut outer = Outer {
        src: headers.src_ip,
        dst: headers.dst_ip,
        kind,
        tos: headers.tos,
        tag: headers.link.outer,
        src_port: headers.src_port,
        dst_port: headers.dst_port,
        network: l3 as u16,
        transport: l4 as u16,
        ..Outer::default()
    };
    let mut at = l4;
    if kind != Kind::Nvgre {
        let udp = &head[l4..];
        outer.checksum = short_at(udp, 6);
        // What UDP leaves of the packet is no part of the datagram (RFC 9868 section 4).
        end = l4 + usize::from(short_at(udp, 4));
        at += 8;
    }
    let Some(header) = reach(head, at, BASE, end)?.first_chunk() else {
        return Err(DropReason::TunnelTruncated);
    };
    let options = outer.read(u64::from_be_bytes(*header))?;
    geneve::check_options(reach(head, at + BASE, options, end)?)?;
    let inner = at + BASE + options;
    if end - inner < MIN_INNER {
        return Err(DropReason::InnerTooShort);
    }
    reach(head, inner, MIN_INNER, end)?;
    (outer.inner, outer.inner_len) = (inner as u16, (end - inner) as u32);
    Ok(Some(outer))
}

/// Which kind of tunnel a packet is of, if of any.
fn claimed(headers: &Headers, claims: Claims<'_>) -> Result<Option<Kind>, DropReason> {
    // The underlay has one tag at most.
    if headers.link.inner.is_present() {
        return Ok(None);
    }
    match (headers.transport, headers.protocol) {
        (Transport::Udp, _) => Ok(claims.kind(headers.dst_port)),
        // Its ports are in another fragment, or further behind than anybody looks.
        (Transport::Hidden, protocol::UDP) if !claims.ports.is_empty() => {
            let is_fragment = headers.fragment != Fragment::Whole;
            Err(if is_fragment { DropReason::OuterFragment } else { DropReason::OuterExtension })
        }
        (Transport::Other | Transport::Hidden, protocol::GRE) if claims.gre => Ok(Some(Kind::Nvgre)),
        _ => Ok(None),
    }
}

/// The `len` bytes at `at` of a packet that ends at `end`.
fn reach(head: &[u8], at: usize, len: usize, end: usize) -> Result<&[u8], DropReason> {
    if at + len > end {
        return Err(DropReason::TunnelTruncated);
    }
    head.get(at..at + len).ok_or(DropReason::OuterTooLong)
}

impl Outer {
    /// Reads the tunnel header; gives the length of the options behind it.
    #[inline]
    fn read(&mut self, header: u64) -> Result<usize, DropReason> {
        match self.kind {
            Kind::Vxlan => (self.vni, self.policy) = vxlan::read(header)?,
            Kind::Nvgre => (self.vni, self.flow_id) = nvgre::read(header)?,
            Kind::Geneve => {
                let (vni, options) = geneve::read(header)?;
                self.vni = vni;
                return Ok(options);
            }
        }
        Ok(0)
    }
}

/// Whether the checksum of an IPv4 header without options is right: all its words add up to all ones.
#[inline]
fn is_sound(ip: &[u8; 20]) -> bool {
    let (words, _) = ip.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    // End-around carries: the upper half of a number added to its half-turned self is both halves' sum.
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    sum.wrapping_add(sum.rotate_left(16)) >> 16 == 0xffff
}

#[inline]
fn long_at(header: &[u8; PLAIN], at: usize) -> u64 {
    header[at..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn short_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}
