//! Why a frame's headers cannot be read. [`headers`](super::headers) finds these; each is a drop reason with a counter
//! of its own, so the names here are part of what `vswitchctl drops` and `trace` print, and stay.

use thiserror::Error;

/// Why a frame cannot be read at the depth asked. Every variant is a drop reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[repr(u8)]
#[allow(missing_docs, reason = "the error text of each variant is its documentation")]
pub enum Malformed {
    #[error("the frame ends inside the Ethernet header")]
    TruncatedEthernet,
    #[error("the frame ends inside a VLAN tag")]
    TruncatedVlan,
    #[error("the frame ends inside the ARP packet")]
    TruncatedArp,
    #[error("the ARP packet is not for IPv4 over Ethernet")]
    BadArp,
    #[error("the frame ends inside the IPv4 header")]
    TruncatedIpv4,
    #[error("the ethertype says IPv4, the header's version does not")]
    BadIpv4Version,
    #[error("the IPv4 header length is less than 20 bytes")]
    BadIpv4HeaderLength,
    #[error("the IPv4 total length is less than the header")]
    BadIpv4TotalLength,
    #[error("the IPv4 total length goes beyond the end of the frame")]
    Ipv4BeyondFrame,
    #[error("the frame ends inside the IPv6 header")]
    TruncatedIpv6,
    #[error("the ethertype says IPv6, the header's version does not")]
    BadIpv6Version,
    #[error("the IPv6 payload length goes beyond the end of the frame")]
    Ipv6BeyondFrame,
    #[error("the IPv6 packet ends inside an extension header")]
    TruncatedIpv6Extension,
    #[error("the fragment ends beyond the longest possible packet of 65535 bytes")]
    FragmentBeyondPacket,
    #[error("the first fragment does not hold the whole transport header, or a later one overlaps it")]
    TinyFragment,
    #[error("the IP packet ends inside the TCP header")]
    TruncatedTcp,
    #[error("the TCP data offset is less than 20 bytes")]
    BadTcpHeaderLength,
    #[error("the IP packet ends inside the UDP header")]
    TruncatedUdp,
    #[error("the UDP length is less than 8 bytes or goes beyond the IP packet")]
    BadUdpLength,
    #[error("the IP packet ends inside the SCTP header")]
    TruncatedSctp,
    #[error("the IP packet ends inside the ICMP header")]
    TruncatedIcmp,
    #[error("the IP packet ends inside the ICMPv6 header")]
    TruncatedIcmpv6,
}

impl Malformed {
    /// Every variant, in the order of their numbers.
    pub const ALL: [Malformed; 22] = [
        Malformed::TruncatedEthernet,
        Malformed::TruncatedVlan,
        Malformed::TruncatedArp,
        Malformed::BadArp,
        Malformed::TruncatedIpv4,
        Malformed::BadIpv4Version,
        Malformed::BadIpv4HeaderLength,
        Malformed::BadIpv4TotalLength,
        Malformed::Ipv4BeyondFrame,
        Malformed::TruncatedIpv6,
        Malformed::BadIpv6Version,
        Malformed::Ipv6BeyondFrame,
        Malformed::TruncatedIpv6Extension,
        Malformed::FragmentBeyondPacket,
        Malformed::TinyFragment,
        Malformed::TruncatedTcp,
        Malformed::BadTcpHeaderLength,
        Malformed::TruncatedUdp,
        Malformed::BadUdpLength,
        Malformed::TruncatedSctp,
        Malformed::TruncatedIcmp,
        Malformed::TruncatedIcmpv6,
    ];

    /// The name of the drop reason, as counters and `trace` print it.
    pub const fn name(self) -> &'static str {
        match self {
            Malformed::TruncatedEthernet => "truncated-ethernet",
            Malformed::TruncatedVlan => "truncated-vlan",
            Malformed::TruncatedArp => "truncated-arp",
            Malformed::BadArp => "bad-arp",
            Malformed::TruncatedIpv4 => "truncated-ipv4",
            Malformed::BadIpv4Version => "bad-ipv4-version",
            Malformed::BadIpv4HeaderLength => "bad-ipv4-header-length",
            Malformed::BadIpv4TotalLength => "bad-ipv4-total-length",
            Malformed::Ipv4BeyondFrame => "ipv4-beyond-frame",
            Malformed::TruncatedIpv6 => "truncated-ipv6",
            Malformed::BadIpv6Version => "bad-ipv6-version",
            Malformed::Ipv6BeyondFrame => "ipv6-beyond-frame",
            Malformed::TruncatedIpv6Extension => "truncated-ipv6-extension",
            Malformed::FragmentBeyondPacket => "fragment-beyond-packet",
            Malformed::TinyFragment => "tiny-fragment",
            Malformed::TruncatedTcp => "truncated-tcp",
            Malformed::BadTcpHeaderLength => "bad-tcp-header-length",
            Malformed::TruncatedUdp => "truncated-udp",
            Malformed::BadUdpLength => "bad-udp-length",
            Malformed::TruncatedSctp => "truncated-sctp",
            Malformed::TruncatedIcmp => "truncated-icmp",
            Malformed::TruncatedIcmpv6 => "truncated-icmpv6",
        }
    }
}
