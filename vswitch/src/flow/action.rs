//! Actions: what is done with a frame, short and flat, so that a cached decision is a copy of a few bytes.

use crate::telemetry::drops::DropReason;

/// A change of the outer 802.1Q tag (TPID 0x8100).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TagChange {
    /// Insert a tag with this VLAN and priority 0.
    Push(u16),
    /// Set the VLAN of the tag that is there and keep its priority.
    Set(u16),
    /// Remove the tag.
    Strip,
}

impl TagChange {
    /// By how many bytes a frame becomes longer.
    pub const fn growth(self) -> i32 {
        match self {
            TagChange::Push(_) => 4,
            TagChange::Set(_) => 0,
            TagChange::Strip => -4,
        }
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// End it here.
    Drop(DropReason),
    /// Send it out by this port.
    Output(u16),
    /// Send it to a remote.
    Tunnel {
        /// The remote.
        remote: u16,
        /// The overlay that it belongs to.
        overlay: u16,
    },
    /// Send it out by every other port of the in port's bridge that may have frames of this VLAN.
    Flood(u16),
}

/// What is done with a frame, in order: ten bytes, to be kept with every flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Actions {
    /// How its tag changes first.
    pub tag: Option<TagChange>,
    /// What becomes of it.
    pub action: Action,
}

const _: () = assert!(size_of::<Actions>() == 10);

/// A flood of a bridge's own VLAN. No decision has it by default; it fills places that hold none yet.
impl Default for Actions {
    fn default() -> Self {
        Actions::one(Action::Flood(0))
    }
}

impl Actions {
    /// An action on a frame as it is.
    pub const fn one(action: Action) -> Actions {
        Actions { tag: None, action }
    }

    /// Drop.
    pub const fn drop(reason: DropReason) -> Actions {
        Actions::one(Action::Drop(reason))
    }

    /// The port, if all that is done is to send the frame out by one.
    #[inline]
    pub fn single_output(&self) -> Option<u16> {
        match self {
            Actions { tag: None, action: Action::Output(port) } => Some(*port),
            _ => None,
        }
    }
}
