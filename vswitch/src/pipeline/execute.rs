//! Carrying out the actions of a decision on one frame of a batch.
//!
//! Called by the worker for every frame, hit or miss, and by `trace` with a [`Sink`] that keeps what would
//! leave. What depends on the single frame and not on its flow is decided here: the MTU, what is left of
//! its offload metadata for a port that cannot take it, who gets a copy of a flood.

use pmd::segment::{SegmentError, Train};
use pmd::{Batch, Checksum, Part, Prefixes, TxItem};

use super::{Origin, egress, encapsulate, neighbour};
use crate::flow::action::{Action, Actions, TagChange};
use crate::flow::headers::parse_link;
use crate::flow::numbers::ethertype;
use crate::overlay::Ingress;
use crate::snapshot::{PortView, Snapshot};
use crate::telemetry::drops::DropReason;

/// Where outgoing frames go.
pub trait Sink {
    /// Sends `item` by `port`, now or at the end of the burst.
    fn emit(&mut self, batch: &mut Batch<'_>, port: u16, item: TxItem);

    /// Sends all of frame `frame`, of `len` bytes and no train, by `port` if that takes no closer look
    /// (it is short enough, and the port is there); false if it was not sent.
    fn emit_plain(&mut self, _frame: u16, _len: u32, _port: u16) -> bool {
        false
    }

    /// Counts a dropped frame.
    fn drop(&mut self, port: u16, reason: DropReason);

    /// Counts frames made at `port`.
    fn made(&mut self, port: u16, frames: u32);

    /// Counts a frame that the switch itself took.
    fn consumed(&mut self, port: u16);

    /// Counts a frame of so many bytes, header included, that is on its way to a remote by an overlay, beside what is
    /// counted at ports.
    fn sent(&mut self, _snapshot: &Snapshot, _target: (u16, u16), _bytes: u32) {}

    /// The same of a frame to or from a remote that was dropped.
    fn lost(&mut self, _remote: u16, _reason: DropReason) {}

    /// Whether the switch may write a frame of its own to `port` now: so that nobody can make it flood somebody.
    fn may_write(&mut self, port: u16) -> bool;

    /// Seconds of the switch's clock; `None` for a described frame, by which nothing changes.
    fn now_s(&self) -> Option<u32>;

    /// A number that no packet under way has which this worker has written: the identification of one that routers may
    /// cut (RFC 6864, section 4.3).
    fn identification(&mut self) -> u16;

    /// The memory for new headers, with room for at least `len` more bytes; sends what is pending if need
    /// be. `None` if it can never hold as many.
    fn prefixes(&mut self, batch: &mut Batch<'_>, len: usize) -> Option<&mut Prefixes>;

    /// The same memory, to read.
    fn written(&self) -> &Prefixes;
}

/// Bytes that are looked at to find a header's end: a prefix, and what a head holds at least.
const WINDOW: usize = 256;

/// Carries out `actions` on frame `i`, which came in by `ingress`.
#[inline(never)]
pub fn execute<S: Sink>(
    snapshot: &Snapshot,
    batch: &mut Batch<'_>,
    i: usize,
    ingress: Ingress,
    actions: &Actions,
    sink: &mut S,
) {
    if let Some(change) = actions.tag
        && !retag(batch, i, change)
    {
        return discard(ingress, DropReason::NoHeadroom, sink);
    }
    match actions.action {
        Action::Output(port) => output(snapshot, batch, port, TxItem::whole(batch, i, true), sink),
        Action::Drop(reason) => discard(ingress, reason, sink),
        Action::Tunnel { remote, overlay } => {
            encapsulate::whole(snapshot, batch, i, ingress, (remote, overlay), sink);
        }
        Action::Flood(vlan) => flood(snapshot, batch, i, ingress, vlan, sink),
    }
}

/// Sends a frame that nothing is decided about by one port.
#[inline(never)]
pub fn pass<S: Sink>(snapshot: &Snapshot, batch: &mut Batch<'_>, i: usize, port: u16, sink: &mut S) {
    output(snapshot, batch, port, TxItem::whole(batch, i, true), sink);
}

/// Drops a frame where it came in.
#[cold]
fn discard<S: Sink>(ingress: Ingress, reason: DropReason, sink: &mut S) {
    sink.drop(ingress.rx, reason);
    if ingress.is_remote() {
        sink.lost(ingress.port, reason);
    }
}

/// Changes the outer tag in place.
#[inline(never)]
fn retag(batch: &mut Batch<'_>, i: usize, change: TagChange) -> bool {
    match change {
        TagChange::Push(vlan) => match batch.insert(i, 12, 4) {
            Some(tag) => {
                tag[..2].copy_from_slice(&ethertype::VLAN.to_be_bytes());
                tag[2..4].copy_from_slice(&vlan.to_be_bytes());
                true
            }
            None => false,
        },
        TagChange::Set(vlan) => match batch.head_mut(i).get_mut(14..16) {
            Some(tci) => {
                let priority = u16::from_be_bytes([tci[0], tci[1]]) & 0xf000;
                tci.copy_from_slice(&(priority | vlan).to_be_bytes());
                true
            }
            None => false,
        },
        TagChange::Strip => batch.remove(i, 12, 4),
    }
}

/// Sends one frame by one port, or drops it there, having made it fit.
#[inline(never)]
pub(super) fn output<S: Sink>(
    snapshot: &Snapshot,
    batch: &mut Batch<'_>,
    port: u16,
    item: TxItem,
    sink: &mut S,
) {
    let Some(view) = snapshot.port(port) else { return sink.drop(port, DropReason::PortGone) };
    let part = sink.written().part(batch, item);
    // Short and no train: that is nearly every frame.
    if part.total() <= view.mtu as usize + 14 && !part.offload.has_gso() {
        return sink.emit(batch, port, item);
    }
    long(batch, port, view, item, sink);
}

/// The rest: trains, and frames whose length has to be looked at closely.
#[cold]
fn long<S: Sink>(batch: &mut Batch<'_>, port: u16, view: &PortView, item: TxItem, sink: &mut S) {
    let mut window = [0; WINDOW];
    let part = sink.written().part(batch, item);
    let head = outgoing_head(batch, item.frame(), &part, sink.written(), &mut window);
    let Some(l3) = parse_link(head).ok().map(|link| link.l3 as usize) else {
        return sink.drop(port, DropReason::BadOffload);
    };
    if !part.offload.has_gso() {
        if part.total() > view.mtu as usize + l3 {
            return sink.drop(port, DropReason::MtuExceeded);
        }
        return sink.emit(batch, port, item);
    }
    let mut train = match Train::new(head, item.frame(), part) {
        Ok(train) => train,
        Err(SegmentError::TooLong) => return sink.drop(port, DropReason::TooLong),
        Err(_) => return sink.drop(port, DropReason::BadOffload),
    };
    if train.longest() > view.mtu as usize + l3 {
        return sink.drop(port, DropReason::MtuExceeded);
    }
    if train.passes(view.features)
        && let Some(item) = uncut(batch, &train, item, sink)
    {
        return sink.emit(batch, port, item);
    }
    sink.made(port, train.count() as u32 - 1);
    for _ in 0..train.count() {
        let segment =
            sink.prefixes(batch, train.header_len()).and_then(|prefixes| train.next(prefixes).ok()?);
        match segment {
            Some(segment) => sink.emit(batch, port, segment),
            None => sink.drop(port, DropReason::NoHeadroom),
        }
    }
}

/// A train to send as it is. `None` if it lies in a tunnel that was only now found, and there is no room to note so
/// beside what the item itself lies in.
fn uncut<S: Sink>(batch: &mut Batch<'_>, train: &Train, item: TxItem, sink: &mut S) -> Option<TxItem> {
    let Some(part) = train.found() else { return Some(item) };
    if !sink.written().has_room(0) {
        return None;
    }
    sink.prefixes(batch, 0)?.add(item.frame() as u16, part)
}

/// The first bytes of an outgoing frame, its prefix included, put together in `window`.
fn outgoing_head<'w>(
    batch: &Batch<'_>,
    frame: usize,
    part: &Part,
    prefixes: &Prefixes,
    window: &'w mut [u8; WINDOW],
) -> &'w [u8] {
    let prefix = prefixes.get(part.prefix);
    let len = prefix.len().min(WINDOW);
    window[..len].copy_from_slice(&prefix[..len]);
    let rest = batch.head(frame).get(part.from as usize..).unwrap_or(&[]);
    let rest = &rest[..rest.len().min(part.len as usize).min(WINDOW - len)];
    window[len..len + rest.len()].copy_from_slice(rest);
    &window[..len + rest.len()]
}

/// Sends a copy by every port of the bridge that may have one, and, of a frame of this host, to every remote of the
/// VLAN's overlay. The frame is sent as it lies wherever its tag stays as it is; elsewhere with a private Ethernet
/// header in front. Who asks for a neighbour that is known gets his answer instead.
#[inline(never)]
fn flood<S: Sink>(
    snapshot: &Snapshot,
    batch: &mut Batch<'_>,
    i: usize,
    ingress: Ingress,
    vlan: u16,
    sink: &mut S,
) {
    let (Some((from, index)), Ok(link)) = (Origin::of(snapshot, ingress), parse_link(batch.head(i))) else {
        return discard(ingress, DropReason::PortGone, sink);
    };
    let Some(bridge) = snapshot.bridge(index) else {
        return discard(ingress, DropReason::PortGone, sink);
    };
    if bridge.overhears && neighbour::answer(snapshot, batch, i, (ingress, from), (index, vlan), &link, sink)
    {
        return sink.consumed(ingress.rx);
    }
    let mut copies = 0u32;
    for &member in &bridge.members {
        let Some(to) = snapshot.port(member) else { continue };
        if egress::allowed(from, index, to, member == ingress.port, vlan).is_err() {
            continue;
        }
        copies += 1;
        if copies > 1 {
            sink.made(ingress.rx, 1);
        }
        match egress::tag_change(&link, to, vlan) {
            None => output(snapshot, batch, member, TxItem::whole(batch, i, false), sink),
            Some(change) => match retagged(batch, i, change, sink) {
                Some(item) => output(snapshot, batch, member, item, sink),
                None => sink.drop(member, DropReason::NoHeadroom),
            },
        }
    }
    // Head-end replication; what came from a remote goes to no other (split horizon).
    if matches!(from, Origin::Port(_))
        && let Some(number) = bridge.stretch.overlay(vlan)
        && let Some(overlay) = snapshot.overlays.overlay(number)
    {
        let change = egress::overlay_tag_change(&link, overlay, vlan);
        for &remote in overlay.flood.iter() {
            copies += 1;
            if copies > 1 {
                sink.made(ingress.rx, 1);
            }
            encapsulate::copy(snapshot, batch, i, ingress, (remote, number), change, sink);
        }
    }
    if copies == 0 {
        discard(ingress, DropReason::NoDestination, sink);
    }
}

/// The bytes that a frame begins with after its tag has changed.
pub(super) struct NewTag {
    bytes: [u8; 16],
    len: u8,
    /// Where what follows them begins in the frame as it is.
    pub(super) from: u32,
}

impl NewTag {
    /// The two addresses and the new tag, if there is one.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }
}

/// Changes the tag of a copy.
pub(super) fn new_tag(head: &[u8], change: TagChange) -> Option<NewTag> {
    let mut header = [0; 16];
    header[..12].copy_from_slice(head.get(..12)?);
    let priority = if matches!(change, TagChange::Set(_)) {
        u16::from_be_bytes([*head.get(14)?, *head.get(15)?]) & 0xf000
    } else {
        0
    };
    let (len, from) = match change {
        TagChange::Push(_) => (16, 12),
        TagChange::Set(_) => (16, 16),
        TagChange::Strip => (12, 16),
    };
    if let TagChange::Push(vlan) | TagChange::Set(vlan) = change {
        header[12..14].copy_from_slice(&ethertype::VLAN.to_be_bytes());
        header[14..16].copy_from_slice(&(priority | vlan).to_be_bytes());
    }
    Some(NewTag { bytes: header, len, from })
}

/// A copy with another tag: a private Ethernet header, then the frame from behind its own tag on.
fn retagged<S: Sink>(batch: &mut Batch<'_>, i: usize, change: TagChange, sink: &mut S) -> Option<TxItem> {
    let tag = new_tag(batch.head(i), change)?;
    let len = (batch.frame_len(i) as u32).checked_sub(tag.from)?;
    let offload = batch.offload(i).shifted(change.growth())?.into();
    let prefixes = sink.prefixes(batch, tag.bytes().len())?;
    let prefix = prefixes.push(tag.bytes())?;
    prefixes.add(i as u16, Part::new(prefix, tag.from, len, offload))
}

/// Whether a received frame's metadata can be true: positions inside the frame, a train only with a
/// checksum to complete.
#[inline]
pub fn plausible(batch: &Batch<'_>, i: usize) -> bool {
    let offload = batch.offload(i);
    match offload.checksum {
        Checksum::Partial { start, offset } => {
            start as usize + offset as usize + 2 <= batch.frame_len(i) && start >= 14
        }
        Checksum::None | Checksum::Verified => offload.gso.is_none(),
    }
}
