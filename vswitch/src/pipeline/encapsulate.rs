//! Putting a frame into a tunnel: a ready header in front of it, with what is the frame's own filled in.
//!
//! Part of carrying out a decision ([`execute`](super::execute)). The header of a remote is a
//! [template](crate::tunnel::Template) in the snapshot; here come the VNI, lengths, the entropy of the source port, and
//! what the frame's own IP header says for the outer one. A frame that nobody else has gets it into its headroom, a
//! copy of a flood as a prefix. One that is too large for its tunnel is not sent, and its sender is told
//! ([`too_big`](super::too_big)).

use pmd::segment::Train;
use pmd::{Batch, Packed, Part, TxItem};

use super::execute::{Sink, new_tag, output};
use super::too_big;
use crate::flow::action::TagChange;
use crate::flow::hash::HashKey;
use crate::flow::headers::parse_link;
use crate::overlay::{Ingress, OverlayView, RemoteView};
use crate::snapshot::Snapshot;
use crate::telemetry::drops::DropReason;
use crate::tunnel::template::ROOM;
use crate::tunnel::{Fill, Inner, Template};

/// A remote and an overlay, by their numbers.
type Target = (u16, u16);

/// Sends all of frame `i`, of which there is no other copy, to a remote.
#[inline(never)]
pub(super) fn whole<S: Sink>(
    snapshot: &Snapshot,
    batch: &mut Batch<'_>,
    i: usize,
    ingress: Ingress,
    target: Target,
    sink: &mut S,
) {
    let Some((view, overlay, template)) = reach(snapshot, ingress, target, sink) else { return };
    if !fits(batch, i, view, 0) {
        return refuse(snapshot, batch, i, ingress, (target.0, view), 0, sink);
    }
    let group = group(snapshot, ingress, template);
    let fill = fill(batch.head(i), batch.frame_len(i), overlay, group, &snapshot.overlays.hash, sink);
    let (offload, len) = (batch.packed_offload(i), template.len());
    // Metadata of the two levels together is the template's to say.
    batch.set_offload(i, Packed::NONE);
    match batch.prepend(i, len) {
        Some(room) => template.put(room, &fill),
        None => {
            batch.set_offload(i, offload);
            return copy(snapshot, batch, i, ingress, target, None, sink);
        }
    }
    let total = batch.frame_len(i) as u32;
    let is_plain = offload.is_none() && !template.has_checksum();
    if !is_plain {
        let (header, head) = batch.head_mut(i).split_at_mut(len);
        match template.offload(header, head, offload) {
            Some(offload) => batch.set_offload(i, offload),
            None => return fail(target.0, view, DropReason::BadOffload, sink),
        }
    }
    sink.sent(snapshot, target, total);
    if !(is_plain && sink.emit_plain(i as u16, total, view.outlet)) {
        output(snapshot, batch, view.outlet, TxItem::whole(batch, i, true), sink);
    }
}

/// Sends a copy of frame `i` to a remote, with its tag changed.
#[inline(never)]
pub(super) fn copy<S: Sink>(
    snapshot: &Snapshot,
    batch: &mut Batch<'_>,
    i: usize,
    ingress: Ingress,
    target: Target,
    change: Option<TagChange>,
    sink: &mut S,
) {
    let Some((view, overlay, template)) = reach(snapshot, ingress, target, sink) else { return };
    let growth = change.map_or(0, TagChange::growth);
    if !fits(batch, i, view, growth) {
        return refuse(snapshot, batch, i, ingress, (target.0, view), growth, sink);
    }
    match prefixed(
        batch,
        i,
        (overlay, template, group(snapshot, ingress, template)),
        &snapshot.overlays.hash,
        change,
        sink,
    ) {
        Some(item) => {
            let len = sink.written().part(batch, item).total() as u32;
            sink.sent(snapshot, target, len);
            output(snapshot, batch, view.outlet, item, sink);
        }
        None => fail(target.0, view, DropReason::NoHeadroom, sink),
    }
}

/// What is needed to send to a remote, or a drop where there is no way.
#[inline]
fn reach<'s, S: Sink>(
    snapshot: &'s Snapshot,
    ingress: Ingress,
    (remote, overlay): Target,
    sink: &mut S,
) -> Option<(&'s RemoteView, &'s OverlayView, &'s Template)> {
    let found = snapshot.overlays.remote(remote).zip(snapshot.overlays.overlay(overlay));
    let Some((view, overlay)) = found else {
        // On a shared underlay not even our own address is known while there is no way.
        sink.drop(ingress.rx, DropReason::NoPath);
        sink.lost(remote, DropReason::NoPath);
        return None;
    };
    let Some(template) = &view.template else {
        fail(remote, view, DropReason::NoPath, sink);
        return None;
    };
    Some((view, overlay, template))
}

/// Drops a frame on its way to a remote.
#[cold]
fn fail<S: Sink>(remote: u16, view: &RemoteView, reason: DropReason, sink: &mut S) {
    sink.drop(view.outlet, reason);
    sink.lost(remote, reason);
}

/// Drops a frame that is too large, and tells who sent it.
#[cold]
fn refuse<S: Sink>(
    snapshot: &Snapshot,
    batch: &mut Batch<'_>,
    i: usize,
    ingress: Ingress,
    (remote, view): (u16, &RemoteView),
    growth: i32,
    sink: &mut S,
) {
    fail(remote, view, DropReason::MtuExceeded, sink);
    let Ok(link) = parse_link(batch.head(i)) else { return };
    let tags = u32::from(link.l3 - 14).saturating_add_signed(growth);
    too_big::tell(snapshot, batch, i, ingress, view.mtu.saturating_sub(tags), sink);
}

/// Whether a frame that becomes `growth` bytes longer, or every segment of such a train, fits into the tunnel. Tags
/// inside take of the tunnel's room.
#[inline]
fn fits(batch: &Batch<'_>, i: usize, view: &RemoteView, growth: i32) -> bool {
    let longest = if batch.packed_offload(i).has_gso() {
        match Train::new(batch.head(i), i, Part::whole(batch, i)) {
            Ok(train) => train.longest(),
            // Whoever sends it will say what is wrong with it.
            Err(_) => return true,
        }
    } else {
        batch.frame_len(i)
    };
    longest.saturating_add_signed(growth as isize) <= view.mtu as usize + 14
}

/// The group of whoever is behind the port that the frame came in by, for a tunnel that says so.
#[inline]
fn group(snapshot: &Snapshot, ingress: Ingress, template: &Template) -> Option<u16> {
    if template.has_group() { snapshot.port(ingress.port)?.group } else { None }
}

/// What the header says of the frame behind it, which has `len` bytes.
#[inline]
fn fill<S: Sink>(
    head: &[u8],
    len: usize,
    overlay: &OverlayView,
    group: Option<u16>,
    hash: &HashKey,
    sink: &mut S,
) -> Fill {
    let Inner { tos, entropy } = Inner::read(head, hash);
    let id = sink.identification();
    Fill { vni: overlay.vni, inner_len: len as u32, entropy, tos, group, id }
}

/// A copy in a tunnel: the header, and the frame's own beginning if that changes, as a prefix.
fn prefixed<S: Sink>(
    batch: &mut Batch<'_>,
    i: usize,
    (overlay, template, group): (&OverlayView, &Template, Option<u16>),
    hash: &HashKey,
    change: Option<TagChange>,
    sink: &mut S,
) -> Option<TxItem> {
    let tag = match change {
        Some(change) => Some(new_tag(batch.head(i), change)?),
        None => None,
    };
    let (bytes, from) = tag.as_ref().map_or((&[][..], 0), |tag| (tag.bytes(), tag.from));
    let rest = (batch.frame_len(i) as u32).checked_sub(from)?;
    let fill = fill(batch.head(i), bytes.len() + rest as usize, overlay, group, hash, sink);
    let offload = batch.offload(i).shifted(change.map_or(0, TagChange::growth))?.into();
    let mut written = [0; ROOM + 16];
    let (room, behind) = written.split_first_chunk_mut::<ROOM>()?;
    template.put(room, &fill);
    behind[..bytes.len()].copy_from_slice(bytes);
    let len = template.len();
    let header = &mut written[ROOM - len..ROOM + bytes.len()];
    let offload = match tag {
        None => template.offload(&mut header[..len], batch.head(i), offload)?,
        // The two levels' checksums are about the head as it will be.
        Some(_) => {
            let mut head = [0; pmd::batch::HEAD + 16];
            let kept = batch.head(i).get(from as usize..)?;
            let kept = &kept[..kept.len().min(pmd::batch::HEAD)];
            head[..bytes.len()].copy_from_slice(bytes);
            head[bytes.len()..bytes.len() + kept.len()].copy_from_slice(kept);
            template.offload(&mut header[..len], &head[..bytes.len() + kept.len()], offload)?
        }
    };
    let prefixes = sink.prefixes(batch, header.len())?;
    let prefix = prefixes.push(header)?;
    prefixes.add(i as u16, Part::new(prefix, from, rest, offload))
}
