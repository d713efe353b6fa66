//! Stage `vlan`: which VLAN of its bridge a frame belongs to.
//!
//! The outer 802.1Q tag counts (IEEE 802.1Q, 6.9); VLAN 0 in a tag means priority only, and the frame is
//! treated as untagged. An outer 802.1ad tag is payload: the frame is untagged as far as we are concerned.

use super::{Context, Observer, Origin};
use crate::flow::headers::Link;
use crate::flow::numbers::ethertype;
use crate::overlay::OverlayView;
use crate::snapshot::PortVlans;
use crate::telemetry::drops::DropReason;

/// The frame's own VLAN tag, if it has one that counts: not 0, not 802.1ad.
#[inline]
pub fn tag(link: &Link) -> Option<u16> {
    (link.outer.tpid == ethertype::VLAN && link.outer.vlan() != 0).then(|| link.outer.vlan())
}

/// The VLAN, or why the port does not take the frame.
#[inline]
pub fn classify<O: Observer>(context: &Context<'_>, observer: &mut O) -> Result<u16, DropReason> {
    let tag = tag(context.link);
    let result = match context.origin {
        Origin::Port(port) => of_port(&port.vlans, tag),
        // RFC 7348, section 6.1: a network that is one VLAN's has no tags inside.
        Origin::Remote(_, OverlayView { vlan: Some(_), .. }) if tag.is_some() => Err(DropReason::InnerTag),
        Origin::Remote(_, overlay) => Ok(overlay.vlan.or(tag).unwrap_or(0)),
    };
    observer.stage(
        "vlan",
        || {
            let place = match context.origin {
                Origin::Port(_) => "in port".into(),
                Origin::Remote(_, overlay) => format!("VNI {}", overlay.vni),
            };
            match tag {
                Some(vlan) => format!("{place}, tag with VLAN {vlan}"),
                None => format!("{place}, no VLAN tag"),
            }
        },
        || match result {
            Ok(0) => "no VLAN".into(),
            Ok(vlan) => format!("VLAN {vlan}"),
            Err(reason) => format!("drop: {}", reason.name()),
        },
    );
    result
}

#[inline]
fn of_port(vlans: &PortVlans, tag: Option<u16>) -> Result<u16, DropReason> {
    match tag {
        Some(vlan) if vlans.has_tagged(vlan) => Ok(vlan),
        Some(_) if vlans.access => Err(DropReason::TagOnAccess),
        Some(_) => Err(DropReason::VlanNotMember),
        None => vlans.untagged.ok_or(DropReason::UntaggedOnTrunk),
    }
}
