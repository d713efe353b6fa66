//! Stage `egress`: whether the out port may have the frame, and with which tag.
//!
//! For one destination this is decided here and cached; for a flood, member by member, when the frame is
//! sent ([`execute`](super::execute)), by the same functions.

use super::{Context, Destination, Observer, Origin, vlan, words};
use crate::flow::action::{Action, Actions, TagChange};
use crate::flow::headers::Link;
use crate::flow::numbers::ethertype;
use crate::overlay::OverlayView;
use crate::snapshot::{Place, PortView};
use crate::telemetry::drops::DropReason;

/// Whether a frame of `vlan` may go from `from`, which is in `bridge`, to `to`; `same` if that is where it came from.
#[inline]
pub fn allowed(
    from: Origin<'_>,
    bridge: u16,
    to: &PortView,
    same: bool,
    vlan: u16,
) -> Result<(), DropReason> {
    let (hairpin, isolated) = match from {
        Origin::Port(port) => (port.hairpin, port.isolated),
        Origin::Remote(..) => (false, false),
    };
    if !to.up || to.place != Place::Bridge(bridge) {
        Err(DropReason::PortGone)
    } else if same && !hairpin {
        Err(DropReason::SamePort)
    } else if isolated && to.isolated && !same {
        Err(DropReason::Isolated)
    } else if !to.vlans.contains(vlan) {
        Err(DropReason::EgressVlan)
    } else {
        Ok(())
    }
}

/// How the tag changes when a frame of `vlan` with header `link` goes out by `to`. A frame without a VLAN
/// keeps what it has; a priority tag keeps its priority when it becomes a VLAN tag.
#[inline]
pub fn tag_change(link: &Link, to: &PortView, vlan: u16) -> Option<TagChange> {
    let has_tag = link.outer.tpid == ethertype::VLAN;
    if to.vlans.untagged == Some(vlan) {
        (has_tag && vlan != 0).then_some(TagChange::Strip)
    } else if vlan::tag(link) == Some(vlan) {
        None
    } else if has_tag {
        Some(TagChange::Set(vlan))
    } else {
        Some(TagChange::Push(vlan))
    }
}

/// How the tag changes when a frame of the bridge goes into an overlay of it.
#[inline]
pub fn overlay_tag_change(link: &Link, overlay: &OverlayView, vlan: u16) -> Option<TagChange> {
    let has_tag = link.outer.tpid == ethertype::VLAN;
    match overlay.vlan {
        Some(_) => has_tag.then_some(TagChange::Strip),
        None if vlan == 0 || vlan::tag(link) == Some(vlan) => None,
        None if has_tag => Some(TagChange::Set(vlan)),
        None => Some(TagChange::Push(vlan)),
    }
}

/// The actions for a destination, or why it may not have the frame.
#[inline]
pub fn permit<O: Observer>(
    context: &Context<'_>,
    vlan: u16,
    destination: Destination,
    observer: &mut O,
) -> Result<Actions, DropReason> {
    let result = match destination {
        Destination::Flood => Ok(Actions::one(Action::Flood(vlan))),
        Destination::Port(remote) if context.snapshot.overlays.is_remote(remote) => {
            tunnel(context, vlan, remote)
        }
        Destination::Port(port) => unicast(context, vlan, port),
    };
    observer.stage(
        "egress",
        || "out port, isolation, hairpin, VLAN".into(),
        || match &result {
            Ok(actions) => words(context.snapshot, actions),
            Err(reason) => format!("drop: {}", reason.name()),
        },
    );
    result
}

#[inline]
fn unicast(context: &Context<'_>, vlan: u16, port: u16) -> Result<Actions, DropReason> {
    let to = context.snapshot.port(port).ok_or(DropReason::PortGone)?;
    allowed(context.origin, context.bridge_index, to, port == context.in_port, vlan)?;
    Ok(Actions { tag: tag_change(context.link, to, vlan), action: Action::Output(port) })
}

#[inline]
fn tunnel(context: &Context<'_>, vlan: u16, remote: u16) -> Result<Actions, DropReason> {
    // What comes from one remote goes to no other: they reach each other without us.
    if matches!(context.origin, Origin::Remote(..)) {
        return Err(DropReason::SplitHorizon);
    }
    let number = context.bridge.stretch.overlay(vlan).ok_or(DropReason::NoOverlay)?;
    let overlay = context.snapshot.overlays.overlay(number).ok_or(DropReason::NoOverlay)?;
    let tag = overlay_tag_change(context.link, overlay, vlan);
    Ok(Actions { tag, action: Action::Tunnel { remote, overlay: number } })
}
