//! What an outer header takes over from the frame inside: its TOS, and a number that stands for its flow, which the
//! underlay's routers and receive queues spread by.

use crate::flow::hash::HashKey;
use crate::flow::headers::parse_link;
use crate::flow::numbers::{ethertype, protocol};

/// What is read of an inner frame, in one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inner {
    /// DSCP and ECN of the IP header, 0 if there is none.
    pub tos: u8,
    /// The same for all frames of a flow, and different in all its bits from one flow to another.
    pub entropy: u32,
}

impl Inner {
    /// Reads the frame that `head` begins. A flow is told by addresses and ethertype, IP addresses and protocol, and
    /// ports: of whole packets only, as the fragments of one packet must stay together, and later ones have no ports.
    /// What is not there counts as zero.
    #[inline]
    pub fn read(head: &[u8], key: &HashKey) -> Inner {
        let Some(ethernet) = head.first_chunk::<14>() else { return Inner::default() };
        let link = [word(ethernet, 0), word(ethernet, 6)];
        let (tos, hash) = match Ip::of(head) {
            Some(Ip::V4(at)) => ipv4(head, at, link, key),
            Some(Ip::V6(at)) => ipv6(head, at, link, key),
            None => None,
        }
        .unwrap_or_else(|| (0, key.two(link)));
        Inner { tos, entropy: (hash >> 32) as u32 }
    }
}

/// TOS and hash of an IPv4 packet whose header begins at `at`.
#[inline]
fn ipv4(head: &[u8], at: usize, link: [u64; 2], key: &HashKey) -> Option<(u8, u64)> {
    let header = head.get(at..)?.first_chunk::<20>()?;
    let is_whole = u16::from_be_bytes([header[6], header[7]]) & 0x3fff == 0;
    let behind = if is_whole { at + usize::from(header[0] & 0xf) * 4 } else { head.len() };
    // Nearly always the IP addresses tell the Ethernet addresses.
    let link = link[0] ^ link[1].rotate_left(32);
    Some((header[1], key.three([link, word(header, 12), transport(head, behind, header[9])])))
}

/// The same of an IPv6 packet.
fn ipv6(head: &[u8], at: usize, link: [u64; 2], key: &HashKey) -> Option<(u8, u64)> {
    let header = head.get(at..)?.first_chunk::<40>()?;
    let [a, b, c, d] = [8, 16, 24, 32].map(|at| word(header, at));
    let words = [link[0], link[1], a, b, c, d, transport(head, at + 40, header[6]), 0];
    Some((header[0] << 4 | header[1] >> 4, key.eight(&words)))
}

/// The protocol, and the ports at `at` if it has any.
#[inline]
fn transport(head: &[u8], at: usize, protocol: u8) -> u64 {
    let ports = match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => head.get(at..).and_then(|rest| rest.first_chunk()),
        _ => None,
    };
    u64::from(protocol) << 32 | u64::from(u32::from_be_bytes(*ports.unwrap_or(&[0; 4])))
}

/// The eight bytes at `at`.
#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_be_bytes(*word))
}

/// Where an IP header begins, of the version that the ethertype says.
pub(super) enum Ip {
    /// IPv4; 20 bytes of it need not be there.
    V4(usize),
    /// IPv6; 40 bytes of it need not be there.
    V6(usize),
}

impl Ip {
    /// Finds the IP header of the frame that `head` begins, behind up to two tags.
    #[inline]
    pub(super) fn of(head: &[u8]) -> Option<Ip> {
        let ethernet = head.first_chunk::<15>()?;
        match (u16::from_be_bytes([ethernet[12], ethernet[13]]), ethernet[14] >> 4) {
            (ethertype::IPV4, 4) => Some(Ip::V4(14)),
            (ethertype::IPV6, 6) => Some(Ip::V6(14)),
            (ethertype::VLAN | ethertype::SERVICE_VLAN, _) => Ip::behind_tags(head),
            _ => None,
        }
    }

    #[cold]
    fn behind_tags(head: &[u8]) -> Option<Ip> {
        let link = parse_link(head).ok()?;
        let at = usize::from(link.l3);
        match (link.ethertype, head.get(at)? >> 4) {
            (ethertype::IPV4, 4) => Some(Ip::V4(at)),
            (ethertype::IPV6, 6) => Some(Ip::V6(at)),
            _ => None,
        }
    }
}
