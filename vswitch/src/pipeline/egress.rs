//! Stage `egress`: whether the out port may have the frame, and with which tag.
//!
//! For one destination this is decided here and cached; for a flood, member by member, when the frame is
//! sent ([`execute`](super::execute)), by the same two functions.

use super::{Context, Destination, Observer, plain, vlan, words};
use crate::flow::action::{Action, Actions, TagChange};
use crate::flow::headers::Link;
use crate::flow::numbers::ethertype;
use crate::snapshot::PortView;
use crate::telemetry::drops::DropReason;

/// Whether a frame of `vlan` may go from `from` to `to`.
#[inline]
pub fn allowed(from: &PortView, to: &PortView, same: bool, vlan: u16) -> Result<(), DropReason> {
    if !to.up || from.bridge != to.bridge {
        Err(DropReason::PortGone)
    } else if same && !from.hairpin {
        Err(DropReason::SamePort)
    } else if from.isolated && to.isolated && !same {
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

/// The actions for a destination, or why it may not have the frame.
#[inline]
pub fn permit<O: Observer>(
    context: &Context<'_>,
    vlan: u16,
    destination: Destination,
    observer: &mut O,
) -> Result<Actions, DropReason> {
    let result = match destination {
        Destination::Flood => Ok(Actions::one(plain(destination, vlan))),
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
    allowed(context.port, to, port == context.in_port, vlan)?;
    Ok(match tag_change(context.link, to, vlan) {
        None => Actions::one(Action::Output(port)),
        Some(change) => Actions::two(Action::Tag(change), Action::Output(port)),
    })
}
