//! Telling a sender that his packet is too large for where it goes.
//!
//! Part of carrying out a decision. A bridge is no router, yet one that ends in a tunnel has an MTU that its stations
//! do not know. So the answer comes as if from where the packet was going to, as that of a kernel's bridged tunnel
//! does: "fragmentation needed" (RFC 1191, section 4) or "packet too big" (RFC 4443, section 3.2). It quotes no more
//! than what lies in the private head, which is more than the eight bytes that a sender needs to know which flow it was.

use pmd::Batch;
use pmd::checksum::{Sum, of};

use super::address::is_group;
use super::execute::Sink;
use super::reply::Reply;
use super::vlan;
use crate::flow::headers::{Depth, Fragment, Headers, Network, Transport, parse};
use crate::flow::numbers::ethertype;
use crate::overlay::Ingress;
use crate::snapshot::{PortView, Snapshot};

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
    let head = batch.head(i);
    let Ok(headers) = parse(head, batch.frame_len(i), Depth::L4) else { return };
    if !is_to_be_told(&headers) {
        return;
    }
    if let Some(reply) = write(head, &headers, port, mtu) {
        reply.send(snapshot, batch, i, ingress.port, sink);
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

/// The answer. `None` when it cannot be.
fn write(head: &[u8], headers: &Headers, port: &PortView, mtu: u32) -> Option<Reply> {
    let (l3, link) = (usize::from(headers.link.l3), &headers.link);
    // A reply has one tag at most, and what is behind two is another network.
    if link.inner.is_present() || link.outer.tpid == ethertype::SERVICE_VLAN {
        return None;
    }
    let vlan = vlan::tag(link).or(port.vlans.untagged).unwrap_or(0);
    let mut reply = Reply::new(&link.src, &link.dst, port, vlan, link.ethertype);
    let packet = head.get(l3..)?;
    let quoted = &packet[..packet.len().min(QUOTED)];
    match headers.network {
        Network::Ipv4 => put_ipv4(&mut reply, packet, quoted, mtu)?,
        Network::Ipv6 => put_ipv6(&mut reply, packet, quoted, mtu)?,
        _ => return None,
    }
    Some(reply)
}

/// RFC 791, section 3.1, and RFC 792.
fn put_ipv4(reply: &mut Reply, packet: &[u8], quoted: &[u8], mtu: u32) -> Option<()> {
    let start = reply.len();
    let total = (20 + 8 + quoted.len()) as u16;
    reply.put(&[0x45, 0]);
    reply.put(&total.to_be_bytes());
    // Identification, flags and offset of what is never cut; TTL, ICMP, room for the checksum.
    reply.put(&[0, 0, 0x40, 0, 64, 1, 0, 0]);
    reply.put(packet.get(16..20)?);
    reply.put(packet.get(12..16)?);
    let header = reply.behind(start);
    let sum = of(header);
    header[10..12].copy_from_slice(&sum);
    put_icmp(reply, &[3, 4], &mtu.min(0xffff).to_be_bytes(), quoted, Sum::default());
    Some(())
}

/// RFC 8200, section 3, and RFC 4443, section 2.3.
fn put_ipv6(reply: &mut Reply, packet: &[u8], quoted: &[u8], mtu: u32) -> Option<()> {
    let len = (8 + quoted.len()) as u16;
    reply.put(&[0x60, 0, 0, 0]);
    reply.put(&len.to_be_bytes());
    reply.put(&[58, 64]);
    let addresses = reply.len();
    reply.put(packet.get(24..40)?);
    reply.put(packet.get(8..24)?);
    let mut pseudo = Sum::default();
    pseudo.add(reply.behind(addresses));
    pseudo.add(&u32::from(len).to_be_bytes());
    pseudo.add(&[0, 0, 0, 58]);
    put_icmp(reply, &[2, 0], &mtu.to_be_bytes(), quoted, pseudo);
    Some(())
}

fn put_icmp(reply: &mut Reply, kind: &[u8; 2], mtu: &[u8; 4], quoted: &[u8], mut sum: Sum) {
    let start = reply.len();
    reply.put(kind);
    reply.put(&[0, 0]);
    reply.put(mtu);
    reply.put(quoted);
    let message = reply.behind(start);
    sum.add(message);
    message[2..4].copy_from_slice(&sum.finish());
}
