//! The fields of a flow key by name: where each lies, and how it is printed.
//!
//! Stages name the fields that they read; `trace` prints them. The numbers are bit positions in the
//! layout that the key's essay describes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::WORDS;

/// A field of the flow key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// Destination MAC address.
    EthDst,
    /// Index of the port that the frame came in by; in every mask.
    InPort,
    /// Source MAC address.
    EthSrc,
    /// VLAN ID of the outer tag; 0 without one.
    VlanId,
    /// Type of the outer tag: 0 none, 1 for 0x8100, 2 for 0x88a8.
    VlanType,
    /// Type of the inner tag, likewise.
    InnerType,
    /// Ethertype behind the tags (or an 802.3 length). Tells whether the frame is ARP, IPv4 or IPv6.
    EthType,
    /// All 16 bits of the inner tag.
    InnerTci,
    /// Priority (3 bits) and drop-eligible bit of the outer tag.
    VlanPriority,
    /// The overlay (its number in the snapshot) that a tunnel's header named; 0 for a frame of a port.
    Overlay,
    /// IPv4 type of service, IPv6 traffic class.
    IpTos,
    /// 0 a whole packet, 1 a first fragment, 2 a later one.
    IpFragment,
    /// 1 if there may be a transport header, but out of reach: no port matches then.
    L4Hidden,
    /// 1 if a tunnel's header asks that the sender is not learned.
    Unlearned,
    /// Source port of TCP, UDP, SCTP.
    L4Src,
    /// Destination port of TCP, UDP, SCTP.
    L4Dst,
    /// TCP flags.
    TcpFlags,
    /// ICMP or ICMPv6 type.
    IcmpType,
    /// ICMP or ICMPv6 code.
    IcmpCode,
    /// IP protocol of the transport header; of ARP the operation, where 255 stands for all that are larger.
    Protocol,
    /// Source address of IP, sender's address of ARP; IPv4 as mapped IPv6 (RFC 4291 section 2.5.5.2).
    IpSrc,
    /// Destination address of IP, target's address of ARP, likewise.
    IpDst,
}

impl Field {
    /// Every field, in the order of the layout.
    pub const ALL: [Field; 22] = [
        Field::EthDst,
        Field::InPort,
        Field::EthSrc,
        Field::VlanId,
        Field::VlanType,
        Field::InnerType,
        Field::EthType,
        Field::InnerTci,
        Field::VlanPriority,
        Field::Overlay,
        Field::IpTos,
        Field::IpFragment,
        Field::L4Hidden,
        Field::Unlearned,
        Field::L4Src,
        Field::L4Dst,
        Field::TcpFlags,
        Field::IcmpType,
        Field::IcmpCode,
        Field::Protocol,
        Field::IpSrc,
        Field::IpDst,
    ];

    /// What a plain bridge reads: addresses and VLAN.
    pub const BRIDGE: [Field; 4] = [Field::EthDst, Field::EthSrc, Field::VlanId, Field::VlanType];

    /// What decides which transport header a frame has: to be declared by whoever reads one.
    pub const TRANSPORT: [Field; 4] = [Field::EthType, Field::Protocol, Field::IpFragment, Field::L4Hidden];

    /// The name in `trace` and `flow list`.
    pub const fn name(self) -> &'static str {
        match self {
            Field::EthDst => "eth.dst",
            Field::InPort => "port",
            Field::EthSrc => "eth.src",
            Field::VlanId => "vlan.id",
            Field::VlanType => "vlan.type",
            Field::InnerType => "inner.type",
            Field::EthType => "eth.type",
            Field::InnerTci => "inner.tci",
            Field::VlanPriority => "vlan.priority",
            Field::Overlay => "overlay",
            Field::IpTos => "ip.tos",
            Field::IpFragment => "ip.fragment",
            Field::L4Hidden => "l4.hidden",
            Field::Unlearned => "unlearned",
            Field::L4Src => "l4.src",
            Field::L4Dst => "l4.dst",
            Field::TcpFlags => "tcp.flags",
            Field::IcmpType => "icmp.type",
            Field::IcmpCode => "icmp.code",
            Field::Protocol => "protocol",
            Field::IpSrc => "ip.src",
            Field::IpDst => "ip.dst",
        }
    }

    /// First word, bits to the right of the field in it, width in bits.
    pub(super) const fn place(self) -> (usize, u32, u32) {
        match self {
            Field::EthDst => (0, 16, 48),
            Field::InPort => (0, 0, 16),
            Field::EthSrc => (1, 16, 48),
            Field::VlanId => (1, 4, 12),
            Field::VlanType => (1, 2, 2),
            Field::InnerType => (1, 0, 2),
            Field::EthType => (2, 48, 16),
            Field::InnerTci => (2, 32, 16),
            Field::VlanPriority => (2, 28, 4),
            Field::Overlay => (2, 12, 16),
            Field::IpTos => (2, 4, 8),
            Field::IpFragment => (2, 2, 2),
            Field::L4Hidden => (2, 1, 1),
            Field::Unlearned => (2, 0, 1),
            Field::L4Src => (3, 48, 16),
            Field::L4Dst => (3, 32, 16),
            Field::TcpFlags => (3, 24, 8),
            Field::IcmpType => (3, 16, 8),
            Field::IcmpCode => (3, 8, 8),
            Field::Protocol => (3, 0, 8),
            Field::IpSrc => (4, 0, 128),
            Field::IpDst => (6, 0, 128),
        }
    }

    /// Width in bits.
    pub const fn bits(self) -> u32 {
        self.place().2
    }

    /// The field with all of its bits set.
    pub const fn all_ones(self) -> u128 {
        u128::MAX >> (128 - self.bits())
    }

    /// Whether parsing the link layer alone gives its value.
    pub const fn is_link(self) -> bool {
        matches!(
            self,
            Field::EthDst
                | Field::InPort
                | Field::EthSrc
                | Field::VlanId
                | Field::VlanType
                | Field::InnerType
                | Field::EthType
                | Field::InnerTci
                | Field::VlanPriority
                | Field::Overlay
                | Field::Unlearned
        )
    }

    pub(super) fn extract(self, words: &[u64; WORDS]) -> u128 {
        let (word, shift, bits) = self.place();
        if bits == 128 {
            return u128::from(words[word]) << 64 | u128::from(words[word + 1]);
        }
        u128::from(words[word] >> shift) & self.all_ones()
    }

    pub(super) fn insert(self, words: &mut [u64; WORDS], value: u128) {
        let (word, shift, bits) = self.place();
        if bits == 128 {
            (words[word], words[word + 1]) = ((value >> 64) as u64, value as u64);
            return;
        }
        let ones = self.all_ones() as u64;
        words[word] = words[word] & !(ones << shift) | (value as u64 & ones) << shift;
    }
}

/// A field with its value and the bits of it that count; prints as `name=value` or `name=value/mask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldValue {
    /// Which field.
    pub field: Field,
    /// Its value, right-aligned, 0 where the mask is.
    pub value: u128,
    /// The bits that count, right-aligned.
    pub mask: u128,
}

impl FieldValue {
    /// All of a field.
    pub fn whole(field: Field, value: u128) -> FieldValue {
        FieldValue { field, value, mask: field.all_ones() }
    }

    /// The value without the name.
    pub fn value_text(&self) -> String {
        text(self.field, self.value)
    }

    /// The mask in the value's notation; `None` where all bits count.
    pub fn mask_text(&self) -> Option<String> {
        (self.mask != self.field.all_ones()).then(|| match self.field {
            Field::IpSrc | Field::IpDst if self.mask.leading_ones() + self.mask.trailing_zeros() == 128 => {
                self.mask.leading_ones().to_string()
            }
            Field::IpSrc | Field::IpDst => Ipv6Addr::from_bits(self.mask).to_string(),
            field => text(field, self.mask),
        })
    }
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.field.name(), self.value_text())?;
        self.mask_text().map_or(Ok(()), |mask| write!(f, "/{mask}"))
    }
}

fn text(field: Field, value: u128) -> String {
    match field {
        Field::EthDst | Field::EthSrc => {
            let [.., a, b, c, d, e, g] = value.to_be_bytes();
            format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
        }
        Field::IpSrc | Field::IpDst => IpAddr::V6(Ipv6Addr::from_bits(value)).to_canonical().to_string(),
        Field::VlanType | Field::InnerType => match value {
            0 => "none".into(),
            1 => "0x8100".into(),
            2 => "0x88a8".into(),
            other => other.to_string(),
        },
        Field::IpFragment => match value {
            0 => "whole".into(),
            1 => "first".into(),
            2 => "later".into(),
            other => other.to_string(),
        },
        Field::EthType | Field::InnerTci => format!("{value:#06x}"),
        Field::IpTos | Field::TcpFlags => format!("{value:#04x}"),
        _ => value.to_string(),
    }
}
