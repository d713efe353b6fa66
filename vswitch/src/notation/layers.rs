//! What each layer of the notation is made of: its fields in the order of the wire, their widths, how they are
//! written and what they are when nobody says. The builder and the describer both work from these tables, so a new
//! header is a new table, and the number by which the header before it announces it.

use super::value::Form;
use crate::flow::numbers::{ethertype, protocol};

/// A kind of layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Eth,
    Vlan,
    Arp,
    Ipv4,
    Ipv6,
    HopByHop,
    Routing,
    Fragment,
    Destination,
    Authentication,
    Tcp,
    Udp,
    Icmp,
    Icmpv6,
    Sctp,
    Payload,
    Pad,
}

/// Where a field lies in its header.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// The next so many bits.
    Bits(u32),
    /// All bytes up to the end of the header.
    Tail,
    /// These bytes and then so many bits, if the field is given; nothing if it is not.
    Optional(&'static [u8], u32),
    /// Nowhere: it tells the builder something.
    Virtual,
}

/// What a field is when the text does not set it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Absent {
    /// This value.
    Default(u128),
    /// What the builder works out of the layers around it.
    Computed,
    /// Not there at all.
    Nothing,
}

/// A field of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// The name in the text.
    pub(super) name: &'static str,
    /// A second name for it, or "".
    pub(super) alias: &'static str,
    pub(super) form: Form,
    pub(super) place: Place,
    pub(super) absent: Absent,
    /// Whether a description names it even where the builder would set the same value.
    pub(super) shown: bool,
}

const fn bits(name: &'static str, bits: u32) -> Field {
    Field {
        name,
        alias: "",
        form: Form::Decimal,
        place: Place::Bits(bits),
        absent: Absent::Computed,
        shown: false,
    }
}

const fn tail(name: &'static str) -> Field {
    Field { form: Form::Bytes, place: Place::Tail, absent: Absent::Nothing, ..bits(name, 0) }
}

const fn virtual_field(name: &'static str, form: Form) -> Field {
    Field { form, place: Place::Virtual, absent: Absent::Nothing, ..bits(name, 0) }
}

impl Field {
    const fn or(mut self, value: u128) -> Field {
        self.absent = Absent::Default(value);
        self
    }

    const fn form(mut self, form: Form) -> Field {
        self.form = form;
        self
    }

    const fn hex(self) -> Field {
        self.form(Form::Hex)
    }

    const fn mac(self) -> Field {
        self.form(Form::Mac)
    }

    const fn alias(mut self, alias: &'static str) -> Field {
        self.alias = alias;
        self
    }

    const fn shown(mut self) -> Field {
        self.shown = true;
        self
    }

    const fn optional(mut self, prefix: &'static [u8]) -> Field {
        if let Place::Bits(bits) = self.place {
            self.place = Place::Optional(prefix, bits);
        }
        self.absent = Absent::Nothing;
        self
    }

    /// How many bits a number in this field may have.
    pub(super) fn width(&self) -> u32 {
        match self.place {
            Place::Bits(bits) | Place::Optional(_, bits) => bits,
            Place::Tail | Place::Virtual => 32,
        }
    }
}

const ETHERTYPES: Form = Form::Named(&[
    ("ipv4", ethertype::IPV4 as u128),
    ("arp", ethertype::ARP as u128),
    ("ipv6", ethertype::IPV6 as u128),
    ("vlan", ethertype::VLAN as u128),
    ("service-vlan", ethertype::SERVICE_VLAN as u128),
    ("lldp", 0x88cc),
]);

const PROTOCOLS: Form = Form::Named(&[
    ("hopbyhop", protocol::HOP_BY_HOP as u128),
    ("icmp", protocol::ICMP as u128),
    ("igmp", 2),
    ("ipv4", 4),
    ("tcp", protocol::TCP as u128),
    ("udp", protocol::UDP as u128),
    ("ipv6", 41),
    ("routing", protocol::ROUTING as u128),
    ("fragment", protocol::FRAGMENT as u128),
    ("gre", 47),
    ("esp", protocol::ESP as u128),
    ("auth", protocol::AUTHENTICATION as u128),
    ("icmpv6", protocol::ICMPV6 as u128),
    ("none", 59),
    ("destination", protocol::DESTINATION as u128),
    ("sctp", protocol::SCTP as u128),
]);

const TCP_FLAGS: Form = Form::Flags(&[
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
]);

const ICMP_TYPES: Form = Form::Named(&[
    ("echo-reply", 0),
    ("unreachable", 3),
    ("redirect", 5),
    ("echo-request", 8),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
]);

const ICMPV6_TYPES: Form = Form::Named(&[
    ("unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("router-solicitation", 133),
    ("router-advertisement", 134),
    ("neighbor-solicitation", 135),
    ("neighbor-advertisement", 136),
    ("redirect", 137),
]);

/// Addresses that a frame gets when nobody says: locally administered, and of the private ranges.
const SRC_MAC: u128 = 0x0200_0000_0001;
const DST_MAC: u128 = 0x0200_0000_0002;
const SRC_IPV4: u128 = 0x0a00_0001;
const DST_IPV4: u128 = 0x0a00_0002;
const SRC_IPV6: u128 = 0xfd00 << 112 | 1;
const DST_IPV6: u128 = 0xfd00 << 112 | 2;

const ETH: &[Field] = &[
    bits("dst", 48).mac().or(DST_MAC).shown(),
    bits("src", 48).mac().or(SRC_MAC).shown(),
    bits("type", 16).form(ETHERTYPES),
];

const VLAN: &[Field] = &[
    virtual_field("tpid", Form::Hex),
    bits("pcp", 3).or(0),
    bits("dei", 1).or(0),
    bits("id", 12).or(1).shown(),
    bits("type", 16).form(ETHERTYPES),
];

const ARP: &[Field] = &[
    bits("htype", 16).or(1),
    bits("ptype", 16).hex().or(0x0800),
    bits("hlen", 8).or(6),
    bits("plen", 8).or(4),
    bits("op", 16).form(Form::Named(&[("request", 1), ("reply", 2)])).or(1).shown(),
    bits("sha", 48).mac(),
    bits("spa", 32).form(Form::Ipv4).or(SRC_IPV4).shown(),
    bits("tha", 48).mac(),
    bits("tpa", 32).form(Form::Ipv4).or(DST_IPV4).shown(),
];

const IPV4: &[Field] = &[
    bits("version", 4).or(4),
    bits("header_length", 4),
    bits("tos", 8).hex().or(0),
    bits("total_length", 16),
    bits("id", 16).or(0),
    bits("reserved", 1).or(0),
    bits("df", 1).or(0),
    bits("mf", 1).or(0),
    bits("fragment_offset", 13).or(0),
    bits("ttl", 8).or(64),
    bits("protocol", 8).form(PROTOCOLS),
    bits("checksum", 16).hex(),
    bits("src", 32).form(Form::Ipv4).or(SRC_IPV4).shown(),
    bits("dst", 32).form(Form::Ipv4).or(DST_IPV4).shown(),
    tail("options"),
];

const IPV6: &[Field] = &[
    bits("version", 4).or(6),
    bits("traffic_class", 8).hex().alias("tos").or(0),
    bits("flow_label", 20).hex().or(0),
    bits("payload_length", 16),
    bits("next_header", 8).form(PROTOCOLS),
    bits("hop_limit", 8).alias("ttl").or(64),
    bits("src", 128).form(Form::Ipv6).or(SRC_IPV6).shown(),
    bits("dst", 128).form(Form::Ipv6).or(DST_IPV6).shown(),
];

/// Hop-by-hop and destination options (RFC 8200 sections 4.3 and 4.6).
const OPTIONS: &[Field] = &[bits("next_header", 8).form(PROTOCOLS), bits("length", 8), tail("data")];

const ROUTING: &[Field] = &[
    bits("next_header", 8).form(PROTOCOLS),
    bits("length", 8),
    bits("type", 8).or(0),
    bits("segments_left", 8).or(0),
    tail("data"),
];

const FRAGMENT: &[Field] = &[
    bits("next_header", 8).form(PROTOCOLS),
    bits("reserved", 8).or(0),
    bits("offset", 13).or(0).shown(),
    bits("reserved2", 2).or(0),
    bits("more", 1).or(0).shown(),
    bits("id", 32).or(0),
];

const AUTHENTICATION: &[Field] = &[
    bits("next_header", 8).form(PROTOCOLS),
    bits("length", 8),
    bits("reserved", 16).or(0),
    bits("spi", 32).or(1),
    bits("seq", 32).or(1),
    tail("icv"),
];

const TCP: &[Field] = &[
    bits("sport", 16).or(1024).shown(),
    bits("dport", 16).or(80).shown(),
    bits("seq", 32).or(0),
    bits("ack", 32).or(0),
    bits("data_offset", 4),
    bits("reserved", 4).or(0),
    bits("flags", 8).form(TCP_FLAGS).or(0x02).shown(),
    bits("window", 16).or(65_535),
    bits("checksum", 16).hex(),
    bits("urgent", 16).or(0),
    tail("options"),
];

const UDP: &[Field] = &[
    bits("sport", 16).or(1024).shown(),
    bits("dport", 16).or(9).shown(),
    bits("length", 16),
    bits("checksum", 16).hex(),
];

const ICMP: &[Field] = &[
    bits("type", 8).form(ICMP_TYPES).or(8).shown(),
    bits("code", 8).or(0),
    bits("checksum", 16).hex(),
    bits("id", 16).or(0),
    bits("seq", 16).alias("mtu").or(0),
];

/// With the target and link-layer address options of neighbour discovery (RFC 4861 sections 4.3, 4.4 and 4.6.1).
const ICMPV6: &[Field] = &[
    bits("type", 8).form(ICMPV6_TYPES).or(128).shown(),
    bits("code", 8).or(0),
    bits("checksum", 16).hex(),
    bits("id", 16).or(0),
    bits("seq", 16).alias("mtu").or(0),
    bits("target", 128).form(Form::Ipv6).optional(&[]).shown(),
    bits("sll", 48).mac().optional(&[1, 1]).shown(),
    bits("tll", 48).mac().optional(&[2, 1]).shown(),
];

const SCTP: &[Field] = &[
    bits("sport", 16).or(1024).shown(),
    bits("dport", 16).or(9).shown(),
    bits("tag", 32).hex().or(0),
    bits("checksum", 32).hex(),
];

const PAYLOAD: &[Field] = &[
    virtual_field("len", Form::Decimal).shown(),
    virtual_field("fill", Form::Hex).shown(),
    virtual_field("hex", Form::Bytes).shown(),
    virtual_field("text", Form::Text).shown(),
];

const PAD: &[Field] = &[
    virtual_field("len", Form::Decimal).shown(),
    virtual_field("to", Form::Decimal).shown(),
    virtual_field("hex", Form::Bytes).shown(),
];

impl Kind {
    /// Every kind, outer ones first.
    pub(super) const ALL: [Kind; 17] = [
        Kind::Eth,
        Kind::Vlan,
        Kind::Arp,
        Kind::Ipv4,
        Kind::Ipv6,
        Kind::HopByHop,
        Kind::Routing,
        Kind::Fragment,
        Kind::Destination,
        Kind::Authentication,
        Kind::Tcp,
        Kind::Udp,
        Kind::Icmp,
        Kind::Icmpv6,
        Kind::Sctp,
        Kind::Payload,
        Kind::Pad,
    ];

    /// The name in the text.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Eth => "eth",
            Kind::Vlan => "vlan",
            Kind::Arp => "arp",
            Kind::Ipv4 => "ipv4",
            Kind::Ipv6 => "ipv6",
            Kind::HopByHop => "hopbyhop",
            Kind::Routing => "routing",
            Kind::Fragment => "fragment",
            Kind::Destination => "destination",
            Kind::Authentication => "auth",
            Kind::Tcp => "tcp",
            Kind::Udp => "udp",
            Kind::Icmp => "icmp",
            Kind::Icmpv6 => "icmpv6",
            Kind::Sctp => "sctp",
            Kind::Payload => "payload",
            Kind::Pad => "pad",
        }
    }

    /// The fields in the order of the wire.
    pub(super) fn fields(self) -> &'static [Field] {
        match self {
            Kind::Eth => ETH,
            Kind::Vlan => VLAN,
            Kind::Arp => ARP,
            Kind::Ipv4 => IPV4,
            Kind::Ipv6 => IPV6,
            Kind::HopByHop | Kind::Destination => OPTIONS,
            Kind::Routing => ROUTING,
            Kind::Fragment => FRAGMENT,
            Kind::Authentication => AUTHENTICATION,
            Kind::Tcp => TCP,
            Kind::Udp => UDP,
            Kind::Icmp => ICMP,
            Kind::Icmpv6 => ICMPV6,
            Kind::Sctp => SCTP,
            Kind::Payload => PAYLOAD,
            Kind::Pad => PAD,
        }
    }

    /// The IP protocol number that announces this layer.
    pub(super) fn protocol(self) -> Option<u8> {
        match self {
            Kind::Ipv4 => Some(4),
            Kind::Ipv6 => Some(41),
            Kind::HopByHop => Some(protocol::HOP_BY_HOP),
            Kind::Routing => Some(protocol::ROUTING),
            Kind::Fragment => Some(protocol::FRAGMENT),
            Kind::Destination => Some(protocol::DESTINATION),
            Kind::Authentication => Some(protocol::AUTHENTICATION),
            Kind::Tcp => Some(protocol::TCP),
            Kind::Udp => Some(protocol::UDP),
            Kind::Icmp => Some(protocol::ICMP),
            Kind::Icmpv6 => Some(protocol::ICMPV6),
            Kind::Sctp => Some(protocol::SCTP),
            Kind::Eth | Kind::Vlan | Kind::Arp | Kind::Payload | Kind::Pad => None,
        }
    }

    /// The ethertype that announces this layer; a VLAN tag's is its TPID.
    pub(super) fn ethertype(self) -> Option<u16> {
        match self {
            Kind::Arp => Some(ethertype::ARP),
            Kind::Ipv4 => Some(ethertype::IPV4),
            Kind::Ipv6 => Some(ethertype::IPV6),
            _ => None,
        }
    }

    /// The place of the field of this name (or alias) in [`Kind::fields`].
    pub(super) fn position(self, name: &str) -> Option<usize> {
        self.fields().iter().position(|field| field.name == name || (field.alias == name && !name.is_empty()))
    }
}
