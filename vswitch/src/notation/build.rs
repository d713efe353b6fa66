//! Layers to bytes: what the text leaves out is worked out of the layers around it, from the last to the first, so
//! that every length and checksum covers what really follows.

use super::error::NotationError;
use super::layers::{Absent, Field, Kind, Place};
use super::text::Layer;
use super::value::Value;
use crate::flow::numbers::ethertype;

/// The longest frame: Ethernet with two tags around the longest IPv6 packet, as segmentation offload passes it.
pub const MAX_FRAME: usize = 22 + 40 + 65_535;

/// The ethertype of a frame with nothing that has one: IEEE 802's first for local experiments.
const EXPERIMENTAL_ETHERTYPE: u16 = 0x88b5;

/// The IP protocol of a packet with nothing that has one: RFC 3692's first for experiments.
const EXPERIMENTAL_PROTOCOL: u8 = 253;

/// "No next header" (RFC 8200 section 4.7).
const NO_NEXT_HEADER: u8 = 59;

/// The frame that `layers` describe.
pub(super) fn build(layers: &[Layer]) -> Result<Vec<u8>, NotationError> {
    check_order(layers)?;
    let pads = layers.iter().rev().take_while(|layer| layer.kind == Kind::Pad).count();
    let (layers, pads) = layers.split_at(layers.len() - pads);
    let mut frame = Vec::new();
    for index in (0..layers.len()).rev() {
        let mut bytes = layer_bytes(layers, index, &frame)?;
        limit(bytes.len() + frame.len())?;
        bytes.append(&mut frame);
        frame = bytes;
    }
    for pad in pads {
        frame.extend(pad_bytes(pad, frame.len())?);
    }
    limit(frame.len())?;
    Ok(frame)
}

fn limit(length: usize) -> Result<(), NotationError> {
    if length > MAX_FRAME {
        return Err(NotationError::TooLong { length, limit: MAX_FRAME });
    }
    Ok(())
}

/// Refuses an order of layers that is surely a slip. What announces the next layer by number may announce anything,
/// if the number is given.
fn check_order(layers: &[Layer]) -> Result<(), NotationError> {
    let refuse = |layer: &Layer, before, fix| {
        Err(NotationError::Order { column: layer.column, layer: layer.kind.name(), before, fix })
    };
    if let Some(first) = layers.first().filter(|first| !matches!(first.kind, Kind::Eth | Kind::Payload)) {
        return refuse(first, "the start", ": a frame starts with eth(...)");
    }
    for pair in layers.windows(2) {
        let (before, layer) = (&pair[0], &pair[1]);
        let name = before.kind.name();
        if layer.kind == Kind::Pad || (layer.kind == Kind::Payload && before.kind != Kind::Pad) {
            continue;
        }
        let (follows, fix) = match before.kind {
            Kind::Eth | Kind::Vlan => (
                before.number("type").is_some()
                    || layer.kind == Kind::Vlan
                    || layer.kind.ethertype().is_some(),
                " unless its `type` is given",
            ),
            Kind::Ipv4 => (
                before.number("protocol").is_some() || layer.kind.protocol().is_some(),
                " unless its `protocol` is given",
            ),
            Kind::Ipv6
            | Kind::HopByHop
            | Kind::Routing
            | Kind::Fragment
            | Kind::Destination
            | Kind::Authentication => (
                before.number("next_header").is_some() || layer.kind.protocol().is_some(),
                " unless its `next_header` is given",
            ),
            // An ICMP error quotes the packet that it is about.
            Kind::Icmp => (layer.kind == Kind::Ipv4, ""),
            Kind::Icmpv6 => (layer.kind == Kind::Ipv6, ""),
            // A frame inside a frame: a tunnel header can be written as payload.
            Kind::Payload => (layer.kind == Kind::Eth, ""),
            Kind::Udp => (layer.kind == Kind::Eth, ""),
            Kind::Arp | Kind::Tcp | Kind::Sctp => (false, ""),
            Kind::Pad => (false, ": nothing follows the padding"),
        };
        if !follows {
            return refuse(layer, name, fix);
        }
    }
    Ok(())
}

fn layer_bytes(layers: &[Layer], index: usize, body: &[u8]) -> Result<Vec<u8>, NotationError> {
    let layer = &layers[index];
    if layer.kind == Kind::Payload {
        return payload_bytes(layer);
    }
    let tail = tail_of(layer);
    let length = header_length(layer, &tail);
    let context = Context { layers, index, header: length, body };
    let mut bits = Bits::default();
    let mut checksum_at = None;
    for (position, field) in layer.kind.fields().iter().enumerate() {
        let given = match layer.value(position) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        };
        if field.name == "checksum" && given.is_none() {
            checksum_at = Some(bits.bytes.len());
        }
        match field.place {
            Place::Bits(width) => bits.push(context.number(field, given)?, width),
            Place::Optional(prefix, width) => {
                if let Some(number) = given {
                    bits.bytes.extend(prefix);
                    bits.push(number, width);
                }
            }
            Place::Tail => bits.bytes.extend(&tail),
            Place::Virtual => {}
        }
    }
    let mut header = bits.bytes;
    if let Some(at) = checksum_at {
        let checksum = context.checksum(&header);
        header[at..at + checksum.len()].copy_from_slice(&checksum);
    }
    Ok(header)
}

/// Bits in the order of the wire.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// How many bits of the last byte are used; 0 means all.
    used: u32,
}

impl Bits {
    fn push(&mut self, number: u128, width: u32) {
        for bit in (0..width).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((number >> bit & 1) as u8) << (7 - self.used);
            }
            self.used = (self.used + 1) % 8;
        }
    }
}

/// How many bytes a layer's header has in front of its tail, and in units of how many its length is counted.
fn shape(kind: Kind) -> (usize, usize) {
    match kind {
        Kind::Ipv4 | Kind::Tcp => (20, 4),
        Kind::HopByHop | Kind::Destination => (2, 8),
        Kind::Routing => (4, 8),
        Kind::Authentication => (12, 4),
        _ => (0, 1),
    }
}

/// The bytes at the end of the header. Where the header's length is not given they are filled up to what it can say.
fn tail_of(layer: &Layer) -> Vec<u8> {
    let (fixed, unit) = shape(layer.kind);
    let (name, given) = match layer.kind {
        Kind::Ipv4 => ("options", layer.number("header_length")),
        Kind::Tcp => ("options", layer.number("data_offset")),
        Kind::HopByHop | Kind::Destination | Kind::Routing => ("data", layer.number("length")),
        Kind::Authentication => ("icv", layer.number("length")),
        _ => return Vec::new(),
    };
    let mut tail = match (layer.bytes(name), layer.kind) {
        (Some(bytes), _) => bytes.to_vec(),
        // PadN over the whole header (RFC 8200 section 4.2).
        (None, Kind::HopByHop | Kind::Destination) => vec![1, 4, 0, 0, 0, 0],
        (None, _) => Vec::new(),
    };
    if given.is_none() {
        tail.resize((fixed + tail.len()).next_multiple_of(unit) - fixed, 0);
    }
    tail
}

/// The bytes of the whole header.
fn header_length(layer: &Layer, tail: &[u8]) -> usize {
    let (fixed, _) = shape(layer.kind);
    if fixed > 0 {
        return fixed + tail.len();
    }
    let bits: usize = layer
        .kind
        .fields()
        .iter()
        .enumerate()
        .map(|(position, field)| match field.place {
            Place::Bits(width) => width as usize,
            Place::Optional(prefix, width) if layer.value(position).is_some() => {
                prefix.len() * 8 + width as usize
            }
            _ => 0,
        })
        .sum();
    bits / 8
}

/// A layer among the others, with what follows it as bytes.
struct Context<'a> {
    layers: &'a [Layer],
    index: usize,
    /// Length of this layer's own header.
    header: usize,
    body: &'a [u8],
}

impl Context<'_> {
    fn layer(&self) -> &Layer {
        &self.layers[self.index]
    }

    fn next(&self) -> Option<&Layer> {
        self.layers.get(self.index + 1)
    }

    /// The nearest layer before this one that is of one of `kinds`.
    fn before(&self, kinds: &[Kind]) -> Option<&Layer> {
        self.layers[..self.index].iter().rev().find(|layer| kinds.contains(&layer.kind))
    }

    fn number(&self, field: &Field, given: Option<u128>) -> Result<u128, NotationError> {
        match (given, field.absent) {
            (Some(number), _) | (None, Absent::Default(number)) => Ok(number),
            (None, Absent::Nothing) => Ok(0),
            (None, Absent::Computed) => self.compute(field),
        }
    }

    fn compute(&self, field: &Field) -> Result<u128, NotationError> {
        let total = self.header + self.body.len();
        match (self.layer().kind, field.name) {
            (Kind::Eth | Kind::Vlan, "type") => Ok(self.next_ethertype()),
            (Kind::Arp, "sha") => Ok(self.address("src")),
            (Kind::Arp, "tha") if self.layer().number("op") == Some(2) => Ok(self.address("dst")),
            (_, "protocol" | "next_header") => Ok(self.next_protocol()),
            (_, "header_length" | "data_offset") => self.fits(field, self.header / 4),
            (_, "total_length") => self.fits(field, total),
            (_, "payload_length") => self.fits(field, self.body.len()),
            (Kind::Udp, "length") => self.fits(field, total),
            // RFC 4302 section 2.2.
            (Kind::Authentication, "length") => self.fits(field, (self.header / 4).saturating_sub(2)),
            (_, "length") => self.fits(field, (self.header / 8).saturating_sub(1)),
            // Checksums start as 0 and are summed when the header stands.
            _ => Ok(0),
        }
    }

    fn fits(&self, field: &Field, length: usize) -> Result<u128, NotationError> {
        let layer = self.layer();
        if length as u128 >> field.width() != 0 {
            let (column, field) = (layer.column, field.name);
            return Err(NotationError::Length { column, layer: layer.kind.name(), field, length });
        }
        Ok(length as u128)
    }

    fn next_ethertype(&self) -> u128 {
        match self.next() {
            Some(vlan) if vlan.kind == Kind::Vlan => vlan.number("tpid").unwrap_or_else(|| {
                // QinQ: the outer one of two tags is a service tag.
                let two = self.layers.get(self.index + 2).is_some_and(|layer| layer.kind == Kind::Vlan);
                if two { ethertype::SERVICE_VLAN.into() } else { ethertype::VLAN.into() }
            }),
            next => next.and_then(|layer| layer.kind.ethertype()).unwrap_or(EXPERIMENTAL_ETHERTYPE).into(),
        }
    }

    fn next_protocol(&self) -> u128 {
        let nothing = if self.layer().kind == Kind::Ipv4 { EXPERIMENTAL_PROTOCOL } else { NO_NEXT_HEADER };
        match self.next() {
            Some(layer) => layer.kind.protocol().unwrap_or(EXPERIMENTAL_PROTOCOL).into(),
            None => nothing.into(),
        }
    }

    /// The MAC address `name` of the Ethernet header that this layer is in.
    fn address(&self, name: &str) -> u128 {
        self.before(&[Kind::Eth]).map_or(0, |ethernet| given_or_default(ethernet, name))
    }

    /// The checksum of this layer with `header`, in which it is still 0.
    fn checksum(&self, header: &[u8]) -> Vec<u8> {
        let mut sum = Sum::default();
        match self.layer().kind {
            Kind::Ipv4 => sum.add(header),
            Kind::Icmp => sum.add_all(&[header, self.body]),
            Kind::Sctp => return crc32c(&[header, self.body]).to_le_bytes().to_vec(),
            _ => {
                self.add_pseudo_header(&mut sum, header.len() + self.body.len());
                sum.add_all(&[header, self.body]);
            }
        }
        let checksum = match (self.layer().kind, sum.finish()) {
            // RFC 768: 0 means that there is none.
            (Kind::Udp, 0) => 0xffff,
            (_, checksum) => checksum,
        };
        checksum.to_be_bytes().to_vec()
    }

    /// RFC 768, RFC 9293 section 3.1, RFC 8200 section 8.1.
    fn add_pseudo_header(&self, sum: &mut Sum, length: usize) {
        let Some(ip) = self.before(&[Kind::Ipv4, Kind::Ipv6]) else { return };
        for name in ["src", "dst"] {
            sum.add(&given_or_default(ip, name).to_be_bytes());
        }
        sum.add(&(length as u32).to_be_bytes());
        sum.add(&[0, self.layer().kind.protocol().unwrap_or(0)]);
    }
}

/// The value of a field that has a plain default.
fn given_or_default(layer: &Layer, name: &str) -> u128 {
    layer.number(name).unwrap_or_else(|| {
        let field = layer.kind.position(name).map(|position| &layer.kind.fields()[position]);
        match field.map(|field| field.absent) {
            Some(Absent::Default(value)) => value,
            _ => 0,
        }
    })
}

/// The Internet checksum (RFC 1071).
#[derive(Default)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            self.0 += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
        }
    }

    /// Adds pieces of which only the last may have an odd length.
    fn add_all(&mut self, pieces: &[&[u8]]) {
        for piece in pieces {
            self.add(piece);
        }
    }

    fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

/// CRC32c (RFC 9260 appendix A), bit by bit: no frame here is in a hurry.
fn crc32c(pieces: &[&[u8]]) -> u32 {
    let mut crc = !0u32;
    for byte in pieces.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// At most one of `len`, `hex` and `text`; `len` counts 0, 1, 2… unless `fill` says what to repeat.
fn payload_bytes(layer: &Layer) -> Result<Vec<u8>, NotationError> {
    let length = layer.number("len").map(|length| length as usize);
    let bytes = layer.bytes("hex");
    let text = layer.bytes("text");
    let given = usize::from(length.is_some()) + usize::from(bytes.is_some()) + usize::from(text.is_some());
    let fill = layer.number("fill");
    if given > 1 || (fill.is_some() && length.is_none()) {
        return Err(choice(layer, "len (with or without fill), hex, text"));
    }
    if let Some(bytes) = bytes.or(text) {
        return Ok(bytes.to_vec());
    }
    let length = length.unwrap_or(0);
    limit(length)?;
    Ok((0..length).map(|index| fill.map_or(index as u8, |fill| fill as u8)).collect())
}

/// At most one of `len`, `to` and `hex`; `to` is the length of the whole frame.
fn pad_bytes(layer: &Layer, frame: usize) -> Result<Vec<u8>, NotationError> {
    let length = match (layer.number("len"), layer.number("to"), layer.bytes("hex")) {
        (None, None, Some(bytes)) => return Ok(bytes.to_vec()),
        (Some(length), None, None) => length as usize,
        (None, to, None) => to.map_or(0, |to| (to as usize).saturating_sub(frame)),
        _ => return Err(choice(layer, "len, to, hex")),
    };
    limit(length)?;
    Ok(vec![0; length])
}

fn choice(layer: &Layer, fields: &'static str) -> NotationError {
    NotationError::Choice { column: layer.column, layer: layer.kind.name(), fields }
}
