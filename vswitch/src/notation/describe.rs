//! Bytes to layers: the reverse of the builder.
//!
//! Each header that can be recognised is taken apart field by field, then every field that the builder would set to
//! the same value by itself is left out, which is found by asking it. So what a description leaves unsaid is
//! what is regular, and what it says of lengths and checksums is what is wrong with them.

use super::build::build;
use super::layers::{Kind, Place};
use super::text::{self, Layer};
use super::value::{Form, Value};
use crate::flow::numbers::{ethertype, protocol};

/// How many tags and extension headers are taken apart: more than anybody looks at, and few enough to be quick.
const MOST_HEADERS: usize = 20;

/// Layers such that [`build`] makes `frame` of them, byte by byte.
pub(super) fn describe(frame: &[u8]) -> Vec<Layer> {
    let mut layers = take_apart(frame);
    if build(&layers).is_ok_and(|bytes| bytes == frame) {
        leave_out_what_is_computed(&mut layers, frame);
        return layers;
    }
    vec![payload(frame)]
}

fn leave_out_what_is_computed(layers: &mut [Layer], frame: &[u8]) {
    for index in 0..layers.len() {
        for (position, field) in layers[index].kind.fields().iter().enumerate() {
            if field.shown {
                continue;
            }
            let value = layers[index].set_value(position, None);
            if value.is_some() && !build(layers).is_ok_and(|bytes| bytes == frame) {
                layers[index].set_value(position, value);
            }
        }
    }
}

/// All layers with all their fields.
fn take_apart(frame: &[u8]) -> Vec<Layer> {
    let mut rest = Rest { bytes: frame, layers: Vec::new(), pad: &[] };
    rest.ethernet();
    let Rest { bytes, mut layers, pad } = rest;
    if !bytes.is_empty() || layers.is_empty() {
        layers.push(payload(bytes));
    }
    if !pad.is_empty() {
        let mut layer = Layer::new(Kind::Pad);
        if pad.iter().all(|byte| *byte == 0) {
            layer.set("len", Value::Number(pad.len() as u128));
        } else {
            layer.set("hex", Value::Bytes(pad.to_vec()));
        }
        layers.push(layer);
    }
    layers
}

fn payload(bytes: &[u8]) -> Layer {
    let mut layer = Layer::new(Kind::Payload);
    let counts = bytes.iter().enumerate().all(|(index, byte)| *byte == index as u8);
    let first = bytes.first().copied().unwrap_or(0);
    if counts {
        layer.set("len", Value::Number(bytes.len() as u128));
    } else if bytes.len() > 8 && bytes.iter().all(|byte| *byte == first) {
        layer.set("len", Value::Number(bytes.len() as u128));
        layer.set("fill", Value::Number(first.into()));
    } else {
        let name = if matches!(text::form_of(bytes), Form::Text) { "text" } else { "hex" };
        layer.set(name, Value::Bytes(bytes.to_vec()));
    }
    layer
}

/// What is not yet taken apart.
struct Rest<'a> {
    bytes: &'a [u8],
    layers: Vec<Layer>,
    /// What the IP length leaves over.
    pad: &'a [u8],
}

impl Rest<'_> {
    /// Takes the first `length` bytes as a header of `kind`.
    fn take(&mut self, kind: Kind, length: usize) -> &mut Layer {
        let (header, bytes) = self.bytes.split_at(length);
        self.bytes = bytes;
        let mut layer = Layer::new(kind);
        let mut at = 0;
        for (position, field) in kind.fields().iter().enumerate() {
            match field.place {
                Place::Bits(width) => {
                    layer.set_value(position, Some(Value::Number(number_at(header, at, width))));
                    at += width as usize;
                }
                Place::Tail => {
                    layer.set_value(position, Some(Value::Bytes(header[at / 8..].to_vec())));
                }
                Place::Optional(..) | Place::Virtual => {}
            }
        }
        let index = self.layers.len();
        self.layers.push(layer);
        &mut self.layers[index]
    }

    /// The two bytes at `at`.
    fn u16_at(&self, at: usize) -> usize {
        number_at(self.bytes, at * 8, 16) as usize
    }

    fn ethernet(&mut self) {
        if self.bytes.len() < 14 {
            return;
        }
        self.take(Kind::Eth, 14);
        let mut ethertype = self.ethertype();
        while matches!(ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN | 0x9100)
            && self.bytes.len() >= 4
            && self.layers.len() < MOST_HEADERS
        {
            self.take(Kind::Vlan, 4).set("tpid", Value::Number(ethertype.into()));
            ethertype = self.ethertype();
        }
        match ethertype {
            ethertype::ARP => self.arp(),
            ethertype::IPV4 => self.ipv4(),
            ethertype::IPV6 => self.ipv6(),
            _ => {}
        }
    }

    fn ethertype(&self) -> u16 {
        self.layers.last().and_then(|layer| layer.number("type")).unwrap_or(0) as u16
    }

    fn arp(&mut self) {
        if self.bytes.len() >= 28 && self.bytes[4..6] == [6, 4] {
            self.take(Kind::Arp, 28);
            self.pad = std::mem::take(&mut self.bytes);
        }
    }

    /// Sets the bytes beyond `end` apart, if the length field that says so can be right.
    fn end_at(&mut self, end: usize) {
        if end <= self.bytes.len() {
            (self.bytes, self.pad) = self.bytes.split_at(end);
        }
    }

    fn ipv4(&mut self) {
        let Some(first) = self.bytes.first().copied() else { return };
        let header = usize::from(first & 15) * 4;
        if first >> 4 != 4 || header < 20 || self.bytes.len() < header {
            return;
        }
        let total = self.u16_at(2);
        let whole = self.u16_at(6) & 0x1fff == 0;
        let protocol = self.bytes[9];
        if total >= header {
            self.end_at(total);
        }
        self.take(Kind::Ipv4, header);
        if whole {
            self.transport(protocol, protocol::ICMP);
        }
    }

    fn ipv6(&mut self) {
        if self.bytes.len() < 40 || self.bytes[0] >> 4 != 6 {
            return;
        }
        let mut next = self.bytes[6];
        self.end_at(40 + self.u16_at(4));
        self.take(Kind::Ipv6, 40);
        while let Some((kind, length, later)) = self.extension(next) {
            next = self.bytes[0];
            self.take(kind, length);
            if later {
                return;
            }
        }
        self.transport(next, protocol::ICMPV6);
    }

    /// The extension header that comes next: its kind, its length, and whether it says that this is a later fragment.
    fn extension(&self, next: u8) -> Option<(Kind, usize, bool)> {
        if self.bytes.len() < 8 || self.layers.len() >= MOST_HEADERS {
            return None;
        }
        let units = usize::from(self.bytes[1]);
        let (kind, length) = match next {
            protocol::HOP_BY_HOP => (Kind::HopByHop, (units + 1) * 8),
            protocol::ROUTING => (Kind::Routing, (units + 1) * 8),
            protocol::DESTINATION => (Kind::Destination, (units + 1) * 8),
            protocol::FRAGMENT => (Kind::Fragment, 8),
            protocol::AUTHENTICATION => (Kind::Authentication, ((units + 2) * 4).max(12)),
            _ => return None,
        };
        let later = kind == Kind::Fragment && self.u16_at(2) >> 3 != 0;
        (length <= self.bytes.len()).then_some((kind, length, later))
    }

    fn transport(&mut self, number: u8, icmp: u8) {
        let available = self.bytes.len();
        match number {
            protocol::TCP if available >= 20 => {
                let header = usize::from(self.bytes[12] >> 4) * 4;
                if (20..=available).contains(&header) {
                    self.take(Kind::Tcp, header);
                }
            }
            protocol::UDP if available >= 8 => {
                self.take(Kind::Udp, 8);
            }
            protocol::SCTP if available >= 12 => {
                self.take(Kind::Sctp, 12);
            }
            protocol::ICMP if number == icmp && available >= 8 => {
                self.take(Kind::Icmp, 8);
            }
            protocol::ICMPV6 if number == icmp && available >= 8 => self.icmpv6(),
            _ => {}
        }
    }

    /// ICMPv6 with what neighbour discovery adds.
    fn icmpv6(&mut self) {
        let discovery = matches!(self.bytes[0], 135 | 136);
        self.take(Kind::Icmpv6, 8);
        if !discovery || self.bytes.len() < 16 {
            return;
        }
        for (position, field) in Kind::Icmpv6.fields().iter().enumerate() {
            let Place::Optional(prefix, width) = field.place else { continue };
            let Some(bytes) =
                self.bytes.strip_prefix(prefix).filter(|bytes| bytes.len() >= width as usize / 8)
            else {
                continue;
            };
            let value = Value::Number(number_at(bytes, 0, width));
            self.bytes = &bytes[width as usize / 8..];
            if let Some(layer) = self.layers.last_mut() {
                layer.set_value(position, Some(value));
            }
        }
    }
}

/// The number in `width` bits of `bytes` from the bit `at` on; bits beyond the end are 0.
fn number_at(bytes: &[u8], at: usize, width: u32) -> u128 {
    (at..at + width as usize).fold(0, |number, bit| {
        let byte = bytes.get(bit / 8).copied().unwrap_or(0);
        number << 1 | u128::from(byte >> (7 - bit % 8) & 1)
    })
}
