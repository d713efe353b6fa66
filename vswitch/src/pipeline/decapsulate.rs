//! What comes by an underlay: a frame inside a tunnel's, something for the switch itself, or neither.
//!
//! Called by the worker for each frame of an underlay's port, by [`again`] or else [`admit`], before there is a flow key, and by `trace`. What is let
//! in loses its outer headers here and goes on as a frame of the remote that sent it; so outer headers never reach the
//! flow cache, and nothing is parsed twice. What is not a tunnel's and may be meant for the switch goes to the port
//! behind which it speaks for itself.

use pmd::{Batch, Checksum, Offload};

use super::address::is_group;
use crate::agent::BFD_PORTS as BFD;
use crate::flow::headers::{Depth, Network, Tag, parse as parse_all};
use crate::flow::numbers::{ethertype, protocol};
use crate::overlay::{Ingress, Peer, UnderlayView};
use crate::snapshot::Snapshot;
use crate::telemetry::drops::DropReason;
use crate::tunnel::{Memo, Outer, Policy, ecn, parse};

/// A frame that was let in before, for those like it.
#[derive(Clone, Copy, Debug)]
pub struct Previous {
    memo: Memo,
    /// Where it came from.
    pub ingress: Ingress,
}

/// What a frame of an underlay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// A frame for a bridge. It has no outer headers any more.
    Inner(Ingress),
    /// A frame for the switch itself, or of it: to be sent by this port.
    Pass(u16),
}

/// Looks at frame `i`, which came in by `rx`, a port of underlay number `index`. One that is let in is noted in `previous`,
/// if those like it may be let in by [`again`].
///
/// # Errors
/// Why it ends here.
#[inline(never)]
pub fn admit(
    snapshot: &Snapshot,
    index: u16,
    rx: u16,
    batch: &mut Batch<'_>,
    i: usize,
    previous: &mut Option<Previous>,
) -> Result<Admitted, DropReason> {
    let underlay = snapshot.overlays.underlay(index).ok_or(DropReason::PortGone)?;
    if rx != underlay.port {
        return Ok(Admitted::Pass(underlay.port));
    }
    let Some(outer) = parse(batch.head(i), batch.frame_len(i), underlay.claims())? else {
        return pass(underlay, batch.head(i), batch.frame_len(i));
    };
    let peer = Peer { underlay: index, kind: outer.kind, port: outer.dst_port, address: outer.src };
    let head = batch.head(i);
    if !is_of(underlay, outer.tag) {
        return Err(DropReason::UnderlayVlan);
    }
    if !head.starts_with(&underlay.mac) && head.first().is_none_or(|byte| byte & 1 == 0) {
        return Err(DropReason::NotOurs);
    }
    let (remote, overlay) = snapshot.overlays.enter(&peer, &outer.dst, outer.vni)?;
    // Without the extension its bits are reserved, and nothing to us.
    let has_policy =
        outer.policy.group().is_some() && snapshot.overlays.remote(remote).is_some_and(|remote| remote.gbp);
    let policy = if has_policy { outer.policy } else { Policy::default() };
    let ingress = Ingress { rx, port: remote, overlay, policy };
    // What cannot be remembered leaves the memo that there is: it stands as long as the snapshot does.
    if batch.packed_offload(i).is_none()
        && let Some(memo) = Memo::new(batch.head(i), &outer)
    {
        *previous = Some(Previous { memo, ingress });
    }
    strip(batch, i, &outer)?;
    Ok(Admitted::Inner(ingress))
}

/// Lets frame `i` in without its outer headers if they are those of the `previous` one, which came by the same
/// port while the snapshot was the same. False if it is to be looked at by [`admit`].
#[inline]
pub fn again(batch: &mut Batch<'_>, i: usize, previous: &Previous) -> bool {
    let len = batch.frame_len(i);
    let inner_len = previous.memo.inner_len(batch.head(i), len);
    let Some(inner_len) = inner_len.filter(|_| batch.packed_offload(i).is_none()) else { return false };
    let inner = previous.memo.inner();
    batch.truncate(i, inner + inner_len);
    batch.remove(i, 0, inner)
}

/// Whether a frame with this tag is of the underlay's VLAN: what has an 802.1ad tag is another network's.
#[inline]
fn is_of(underlay: &UnderlayView, tag: Tag) -> bool {
    tag.tpid != ethertype::SERVICE_VLAN && tag.vlan() == underlay.vlan.unwrap_or(0)
}

/// Not a tunnel's: the switch may be meant, which speaks ARP, neighbour discovery, ping, BFD and IGMP.
#[cold]
fn pass(underlay: &UnderlayView, head: &[u8], len: usize) -> Result<Admitted, DropReason> {
    let headers = parse_all(head, len, Depth::L4).map_err(DropReason::Malformed)?;
    let link = &headers.link;
    if !is_of(underlay, link.outer) {
        return Err(DropReason::UnderlayVlan);
    }
    let is_spoken = match headers.protocol {
        protocol::ICMP | protocol::ICMPV6 | protocol::IGMP => true,
        protocol::UDP => BFD.contains(&headers.dst_port),
        _ => headers.network == Network::Arp,
    };
    match underlay.agent {
        Some(agent) if is_spoken && (link.dst == underlay.mac || is_group(link.dst)) => {
            Ok(Admitted::Pass(agent))
        }
        Some(_) if link.dst == underlay.mac => Err(DropReason::Unclaimed),
        _ => Err(DropReason::NotOurs),
    }
}

/// Takes the outer headers off.
#[inline]
fn strip(batch: &mut Batch<'_>, i: usize, outer: &Outer) -> Result<(), DropReason> {
    let offload = batch.offload(i);
    // Metadata of the outer level says nothing about the inner frame.
    let inner = match offload.checksum {
        Checksum::Partial { start, .. } if start >= outer.inner => {
            offload.gso.map_or(Offload { checksum: offload.checksum, ..Offload::NONE }, |gso| Offload {
                checksum: offload.checksum,
                gso: Some(gso),
                outer: None,
            })
        }
        _ if offload.gso.is_some() => return Err(DropReason::BadOffload),
        Checksum::None if outer.checksum != 0 && !is_intact(batch, i, outer) => {
            return Err(DropReason::OuterUdpChecksum);
        }
        _ => Offload::NONE,
    };
    batch.set_offload(i, inner);
    batch.truncate(i, u32::from(outer.inner) as usize + outer.inner_len as usize);
    if !batch.remove(i, 0, outer.inner.into()) {
        return Err(DropReason::OuterTooLong);
    }
    ecn::apply(outer.tos, batch.head_mut(i))
}

/// Whether a UDP checksum is right.
#[cold]
fn is_intact(batch: &Batch<'_>, i: usize, outer: &Outer) -> bool {
    let mut sum = outer.pseudo_header();
    let end = usize::from(outer.inner) + outer.inner_len as usize;
    let (mut at, mut piece) = (usize::from(outer.transport), [0; 2048]);
    while at < end {
        let piece = &mut piece[..(end - at).min(2048)];
        if !batch.read(i, at, piece) {
            return false;
        }
        sum.add(piece);
        at += piece.len();
    }
    sum.finish() == [0, 0]
}
