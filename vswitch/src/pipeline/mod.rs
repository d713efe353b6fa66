//! The pipeline: the ordered stages that decide a flow.
//!
//! A miss of the flow cache runs it once, on the worker that has the frame, against the worker's snapshot;
//! `trace` runs the same code with an [`Observer`] that writes down what each stage read and decided, and
//! with [`Learning::Off`]. A stage is a file: a function from what is known to more of it, or to a drop.
//! What the stages may read of a frame is what [`mask`] says; a cached decision is good for all frames that
//! agree on those bits, as long as its witnesses hold.
//!
//! A frame that came inside a tunnel begins here without the tunnel's headers: who sent it stands in the place of its
//! in port.
//!
//! Order: `vlan` (which VLAN does the frame belong to) -> `address` (may these addresses be bridged) ->
//! `learn` (who sends) -> `forward` (who receives) -> `egress` (may this port send it, with which tag).
//! Places are kept before `learn` for port security, and before `egress` for policy and routing.

pub mod address;
pub mod decapsulate;
pub mod egress;
mod encapsulate;
pub mod execute;
pub mod forward;
pub mod learn;
pub mod neighbour;
mod reply;
mod too_big;
pub mod vlan;

use crate::flow::action::{Action, Actions, TagChange};
use crate::flow::headers::Link;
use crate::flow::key::{Field, KeyMask};
use crate::overlay::{Ingress, OverlayView, RemoteView};
use crate::snapshot::{BridgeView, PortView, Snapshot};
use crate::tables::fdb::{Fdb, Learned, Location};
use crate::tables::versions::Witness;
use crate::telemetry::drops::DropReason;

/// Whether a decision may change the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learning {
    /// A frame that is really there: its source is learned.
    On {
        /// Index of the worker that has it.
        worker: usize,
        /// Seconds of the switch's clock.
        now_s: u32,
    },
    /// A described frame: nothing changes.
    Off,
}

/// Watches the stages. The unit type watches nothing and costs nothing.
pub trait Observer {
    /// A stage is through: what it read, and what it decided.
    fn stage(&mut self, name: &'static str, read: impl FnOnce() -> String, decided: impl FnOnce() -> String);
}

impl Observer for () {
    #[inline]
    fn stage(&mut self, _: &'static str, _: impl FnOnce() -> String, _: impl FnOnce() -> String) {}
}

/// What is known about the frame on its way through the stages.
pub struct Context<'a> {
    /// The configuration.
    pub snapshot: &'a Snapshot,
    /// The in port, or the remote that sent it, by index.
    pub in_port: u16,
    /// The same, as it is configured.
    pub origin: Origin<'a>,
    /// Whether a tunnel's header asks that the sender is not learned.
    pub is_unlearned: bool,
    /// The bridge's index.
    pub bridge_index: u16,
    /// The bridge.
    pub bridge: &'a BridgeView,
    /// The link-layer header.
    pub link: &'a Link,
}

/// Where a frame comes from.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// A port of a bridge.
    Port(&'a PortView),
    /// A remote, by an overlay.
    Remote(&'a RemoteView, &'a OverlayView),
}

impl<'a> Origin<'a> {
    /// What there is in the snapshot, and the index of its bridge.
    #[inline]
    pub fn of(snapshot: &'a Snapshot, ingress: Ingress) -> Option<(Origin<'a>, u16)> {
        if let Some(remote) = snapshot.overlays.remote(ingress.port) {
            let overlay = snapshot.overlays.overlay(ingress.overlay)?;
            return Some((Origin::Remote(remote, overlay), overlay.bridge));
        }
        let port = snapshot.port(ingress.port)?;
        Some((Origin::Port(port), port.place.bridge()?))
    }
}

/// What the pipeline decided about a flow, and how long that is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is done with its frames.
    pub actions: Actions,
    /// The FDB entry of the source, to be touched by every frame.
    pub location: Option<Location>,
    /// What was seen of the FDB about the source.
    pub source: Witness,
    /// What was seen of the FDB about the destination.
    pub destination: Witness,
    /// What learning came to; not kept.
    pub learned: Option<Learned>,
    /// The VLAN; not kept.
    pub vlan: u16,
}

impl Decision {
    fn drop(reason: DropReason) -> Decision {
        Decision {
            actions: Actions::drop(reason),
            location: None,
            source: Witness::NOTHING,
            destination: Witness::NOTHING,
            learned: None,
            vlan: 0,
        }
    }
}

/// The bits of a flow key that the stages may read of a port's frames. All stages there are read the link layer only,
/// so a flow is a pair of addresses; a stage that reads more adds its fields for the ports that can reach it.
pub fn mask() -> KeyMask {
    KeyMask::of(&Field::BRIDGE)
}

/// The same of frames that remotes sent.
pub fn remote_mask() -> KeyMask {
    KeyMask::of(&Field::BRIDGE).union(KeyMask::of(&[Field::Overlay, Field::Unlearned]))
}

/// Decides what happens to a frame with header `link` from `ingress`.
pub fn decide<O: Observer>(
    snapshot: &Snapshot,
    fdb: &Fdb,
    ingress: Ingress,
    link: &Link,
    learning: Learning,
    observer: &mut O,
) -> Decision {
    let origin = Origin::of(snapshot, ingress)
        .and_then(|(origin, bridge)| Some((origin, bridge, snapshot.bridge(bridge)?)));
    let Some((origin, bridge_index, bridge)) = origin else { return Decision::drop(DropReason::PortGone) };
    let is_unlearned = ingress.policy.do_not_learn();
    let in_port = ingress.port;
    let context = Context { snapshot, in_port, origin, is_unlearned, bridge_index, bridge, link };
    let vlan = match vlan::classify(&context, observer) {
        Ok(vlan) => vlan,
        Err(reason) => return Decision::drop(reason),
    };
    if let Err(reason) = address::check(&context, observer) {
        return Decision::drop(reason);
    }
    let source = learn::learn(&context, fdb, vlan, learning, observer);
    let (destination, witness) = forward::lookup(&context, fdb, vlan, &source, observer);
    let actions = destination.and_then(|destination| egress::permit(&context, vlan, destination, observer));
    Decision {
        actions: actions.unwrap_or_else(Actions::drop),
        location: source.location,
        source: source.witness,
        destination: witness,
        learned: Some(source.outcome),
        vlan,
    }
}

/// Actions as people read them, ports by name: `push VLAN 10, output web1`.
pub fn words(snapshot: &Snapshot, actions: &Actions) -> String {
    let tag = match actions.tag {
        None => String::new(),
        Some(TagChange::Push(vlan)) => format!("push VLAN {vlan}, "),
        Some(TagChange::Set(vlan)) => format!("set VLAN {vlan}, "),
        Some(TagChange::Strip) => "strip the tag, ".into(),
    };
    let action = match actions.action {
        Action::Drop(reason) => format!("drop: {}", reason.name()),
        Action::Output(port) => format!("output {}", snapshot.port_name(port)),
        Action::Tunnel { remote, overlay } => {
            let vni = snapshot.overlays.overlay(overlay).map_or(0, |overlay| overlay.vni);
            format!("tunnel to {} with VNI {vni}", snapshot.port_name(remote))
        }
        Action::Flood(0) => "flood".into(),
        Action::Flood(vlan) => format!("flood VLAN {vlan}"),
    };
    tag + &action
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Behind one port, or one remote.
    Port(u16),
    /// To all ports of the VLAN.
    Flood,
}
