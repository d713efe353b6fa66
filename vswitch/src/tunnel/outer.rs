//! The outer headers of a frame that came in by an uplink: is it a tunnel's, and what do they say?
//!
//! Most frames are: untagged, IPv4 without options or IPv6 without extension headers, no fragment, no error. These go a
//! short way, `ipv4` or `ipv6`; whatever is unlike that goes the long one, `general`, which gives the same answer
//! to all, and a reason for what is wrong.

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
/// Fragments of a tunnel's packet are not put together again (RFC 7348 section 4.3 lets them be discarded).
///
/// # Errors
/// Why it must be dropped: headers that no packet may have, or a tunnel's packet that cannot be opened.
#[inline]
pub fn parse(head: &[u8], frame_len: usize, claims: Claims<'_>) -> Result<Option<Outer>, DropReason> {
    match ipv4(head, frame_len, claims) {
        Some(outer) => Ok(Some(outer)),
        None => parse_others(head, frame_len, claims),
    }
}

#[inline(never)]
fn parse_others(head: &[u8], frame_len: usize, claims: Claims<'_>) -> Result<Option<Outer>, DropReason> {
    match ipv6(head, frame_len, claims) {
        Some(outer) => Ok(Some(outer)),
        None => general(head, frame_len, claims),
    }
}

/// What follows a plain IP header at least: the longer of UDP and GRE with a tunnel header, and an Ethernet header.
const BEHIND_IP: usize = 8 + BASE + MIN_INNER;

/// Reads a frame with nothing unusual about it, over IPv4.
#[inline]
pub(super) fn ipv4(head: &[u8], frame_len: usize, claims: Claims<'_>) -> Option<Outer> {
    const LEAST: usize = 14 + 20 + BEHIND_IP;
    let header = head.first_chunk::<LEAST>()?;
    // Ethertype, version and header length, TOS, total length, identification.
    let first = long_at(header, 12);
    // Flags and fragment offset, TTL, protocol, checksum.
    let second = long_at(header, 20);
    let total = (first >> 16) as u16;
    // The packet ends behind the shortest there is, and in the frame.
    let ends = usize::from(total).wrapping_sub(LEAST - 14) <= frame_len.checked_sub(LEAST)?;
    if !ends || first >> 40 ^ 0x08_0045 | second & 0x3fff << 48 != 0 {
        return None;
    }
    let ip = header[14..].first_chunk::<20>()?;
    if !is_sound(ip) {
        return None;
    }
    let outer = Outer {
        src: mapped([ip[12], ip[13], ip[14], ip[15]]),
        dst: mapped([ip[16], ip[17], ip[18], ip[19]]),
        tos: (first >> 32) as u8,
        network: 14,
        ..Outer::default()
    };
    outer.behind_ip::<34, LEAST>(header, (second >> 32) as u8, total - 20, claims)
}

/// The same over IPv6.
#[inline]
pub(super) fn ipv6(head: &[u8], frame_len: usize, claims: Claims<'_>) -> Option<Outer> {
    const LEAST: usize = 14 + 40 + BEHIND_IP;
    let header = head.first_chunk::<LEAST>()?;
    // Ethertype, version, traffic class, flow label, payload length.
    let first = long_at(header, 12);
    let payload = first as u16;
    let ends = usize::from(payload).wrapping_sub(BEHIND_IP) <= frame_len.checked_sub(LEAST)?;
    if !ends || first >> 44 != 0x86dd6 {
        return None;
    }
    let ip = header[14..].first_chunk::<40>()?;
    let [src, dst] = [&ip[8..24], &ip[24..40]].map(|address| address.first_chunk::<16>().copied());
    let outer = Outer { src: src?, dst: dst?, tos: (first >> 36) as u8, network: 14, ..Outer::default() };
    if is_mapped(&outer.src) || is_mapped(&outer.dst) {
        return None;
    }
    outer.behind_ip::<54, LEAST>(header, ip[6], payload, claims)
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
        // What UDP leaves of the packet is no part of the datagram (RFC 768: header and data).
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
    // An IPv4-mapped address has no place on a wire (RFC 5156 section 2.2), and would pass for an IPv4 one here.
    if headers.network == Network::Ipv6 && [headers.src_ip, headers.dst_ip].iter().any(is_mapped) {
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

#[inline]
fn is_mapped(address: &[u8; 16]) -> bool {
    address[..12] == mapped([0; 4])[..12]
}

/// The `len` bytes at `at` of a packet that ends at `end`.
fn reach(head: &[u8], at: usize, len: usize, end: usize) -> Result<&[u8], DropReason> {
    if at + len > end {
        return Err(DropReason::TunnelTruncated);
    }
    head.get(at..at + len).ok_or(DropReason::OuterTooLong)
}

impl Outer {
    /// Reads what follows a plain IP header: `payload` bytes, of which the first are in `header` at `L4`.
    #[inline]
    fn behind_ip<const L4: usize, const N: usize>(
        mut self,
        header: &[u8; N],
        protocol: u8,
        payload: u16,
        claims: Claims<'_>,
    ) -> Option<Outer> {
        self.transport = L4 as u16;
        let mut at = L4;
        match protocol {
            protocol::UDP => {
                let udp = long_at(header, L4);
                if (udp >> 16) as u16 != payload {
                    return None;
                }
                self.src_port = (udp >> 48) as u16;
                self.dst_port = (udp >> 32) as u16;
                self.checksum = udp as u16;
                self.kind = claims.kind(self.dst_port)?;
                at += 8;
            }
            protocol::GRE if claims.gre => self.kind = Kind::Nvgre,
            _ => return None,
        }
        self.inner = (at + BASE) as u16;
        self.inner_len = u32::from(payload) - (at + BASE - L4) as u32;
        let options = self.read(long_at(header, at));
        matches!(options, Ok(0)).then_some(self)
    }

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
fn long_at<const N: usize>(header: &[u8; N], at: usize) -> u64 {
    header[at..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn short_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}
