//! Telling a sender that his packet is too large for where it goes.
//!
//! Part of carrying out a decision. A bridge is no router, yet one that ends in a tunnel has an MTU that its stations
//! do not know. So the answer comes as if from where the packet was going to, as that of a kernel's bridged tunnel
//! does: "fragmentation needed" (RFC 1191, section 4) or "packet too big" (RFC 4443, section 3.2). It quotes no more
//! than what lies in the private head, which is more than the eight bytes that a sender needs to know which flow it was.

use pmd::checksum::{Sum, of};
use pmd::{Batch, Packed, Part};

use super::address::is_group;
use super::execute::{Sink, output};
use super::vlan;
use crate::flow::headers::{Depth, Fragment, Headers, Network, Transport, parse};
use crate::flow::numbers::ethertype;
use crate::overlay::Ingress;
use crate::snapshot::{PortView, Snapshot};

/// Ethernet with a tag, IPv6, ICMPv6 and what is quoted.
const LONGEST: usize = 18 + 40 + 8 + QUOTED;

/// Bytes of the packet that are quoted at most.
const QUOTED: usize = 128;

/// Writes to the sender of frame `i`, if it is one who is to be told, that packets of more than `mtu` bytes do not
/// get through.
#[cold]
pub(super) fn tell<S: Sink>(
    snapshot: &Snapshot,
    batch: &mut Batch<'_>,
    i: usize,
    ingress: Ingress,
    mtu: u32,
    sink: &mut S,
) {
    let Some(port) = snapshot.port(ingress.port) else { return };
    let mut reply = Reply { bytes: [0; LONGEST], len: 0 };
    let head = batch.head(i);
    let Ok(headers) = parse(head, batch.frame_len(i), Depth::L4) else { return };
    if !is_to_be_told(&headers) || reply.write(head, &headers, port, mtu).is_none() {
        return;
    }
    if !sink.may_write(ingress.port) {
        return;
    }
    let item = sink.prefixes(batch, reply.len).and_then(|prefixes| {
        let prefix = prefixes.push(&reply.bytes[..reply.len])?;
        prefixes.add(i as u16, Part::new(prefix, 0, 0, Packed::NONE))
    });
    if let Some(item) = item {
        sink.made(ingress.port, 1);
        output(snapshot, batch, ingress.port, item, sink);
    }
}

/// RFC 1122, section 3.2.2: no error about an error, a later fragment, or what was sent to or by a group.
fn is_to_be_told(headers: &Headers) -> bool {
    let is_error = match headers.transport {
        // Echo, timestamp, information and address mask, and the discovery of routers are none.
        Transport::Icmp => !matches!(headers.icmp_type, 0 | 8 | 9 | 10 | 13..=18),
        Transport::Icmpv6 => headers.icmp_type < 128,
        _ => false,
    };
    let is_station = |address: [u8; 16]| {
        let address = std::net::Ipv6Addr::from(address);
        match address.to_ipv4_mapped() {
            Some(v4) => !(v4.is_multicast() || v4.is_broadcast() || v4.octets()[0] == 0),
            None => !(address.is_multicast() || address.is_unspecified()),
        }
    };
    matches!(headers.network, Network::Ipv4 | Network::Ipv6)
        && headers.fragment != Fragment::Later
        && !is_error
        && !is_group(headers.link.dst)
        && is_station(headers.src_ip)
        && is_station(headers.dst_ip)
}

/// The answer, as it grows.
struct Reply {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Reply {
    /// `None` when it cannot be.
    fn write(&mut self, head: &[u8], headers: &Headers, port: &PortView, mtu: u32) -> Option<()> {
        let (l3, link) = (usize::from(headers.link.l3), &headers.link);
        self.put(&link.src);
        self.put(&link.dst);
        let vlan = vlan::tag(link).or(port.vlans.untagged).unwrap_or(0);
        if vlan != 0 && port.vlans.untagged != Some(vlan) {
            self.put(&ethertype::VLAN.to_be_bytes());
            self.put(&vlan.to_be_bytes());
        }
        self.put(&link.ethertype.to_be_bytes());
        let packet = head.get(l3..)?;
        let quoted = &packet[..packet.len().min(QUOTED)];
        match headers.network {
            Network::Ipv4 => self.put_ipv4(packet, quoted, mtu),
            Network::Ipv6 => self.put_ipv6(packet, quoted, mtu),
            _ => None,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// RFC 791, section 3.1, and RFC 792.
    fn put_ipv4(&mut self, packet: &[u8], quoted: &[u8], mtu: u32) -> Option<()> {
        let start = self.len;
        let total = (20 + 8 + quoted.len()) as u16;
        self.put(&[0x45, 0]);
        self.put(&total.to_be_bytes());
        // Identification, flags and offset of what is never cut; TTL, ICMP, room for the checksum.
        self.put(&[0, 0, 0x40, 0, 64, 1, 0, 0]);
        self.put(packet.get(16..20)?);
        self.put(packet.get(12..16)?);
        let sum = of(&self.bytes[start..self.len]);
        self.bytes[start + 10..start + 12].copy_from_slice(&sum);
        self.put_icmp(&[3, 4], &mtu.min(0xffff).to_be_bytes(), quoted, Sum::default())
    }

    /// RFC 8200, section 3, and RFC 4443, section 2.3.
    fn put_ipv6(&mut self, packet: &[u8], quoted: &[u8], mtu: u32) -> Option<()> {
        let len = (8 + quoted.len()) as u16;
        self.put(&[0x60, 0, 0, 0]);
        self.put(&len.to_be_bytes());
        self.put(&[58, 64]);
        let addresses = self.len;
        self.put(packet.get(24..40)?);
        self.put(packet.get(8..24)?);
        let mut pseudo = Sum::default();
        pseudo.add(&self.bytes[addresses..self.len]);
        pseudo.add(&u32::from(len).to_be_bytes());
        pseudo.add(&[0, 0, 0, 58]);
        self.put_icmp(&[2, 0], &mtu.to_be_bytes(), quoted, pseudo)
    }

    fn put_icmp(&mut self, kind: &[u8; 2], mtu: &[u8; 4], quoted: &[u8], mut sum: Sum) -> Option<()> {
        let start = self.len;
        self.put(kind);
        self.put(&[0, 0]);
        self.put(mtu);
        self.put(quoted);
        sum.add(&self.bytes[start..self.len]);
        self.bytes[start + 2..start + 4].copy_from_slice(&sum.finish());
        Some(())
    }
}
