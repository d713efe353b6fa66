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

/// One step of what is done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// End it here.
    Drop(DropReason),
    /// Change its tag.
    Tag(TagChange),
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

/// The most actions of one decision.
const MAX: usize = 2;

/// What is done with a frame, in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Actions {
    list: [Action; MAX],
    len: u8,
}

/// Nothing: the frame ends here, unexplained. No decision has it; it fills places that hold none yet.
impl Default for Actions {
    fn default() -> Self {
        Actions { list: [Action::Flood(0); MAX], len: 0 }
    }
}

impl Actions {
    /// The one action.
    pub const fn one(action: Action) -> Actions {
        Actions { list: [action; MAX], len: 1 }
    }

    /// Drop.
    pub const fn drop(reason: DropReason) -> Actions {
        Actions::one(Action::Drop(reason))
    }

    /// Two actions.
    pub const fn two(first: Action, second: Action) -> Actions {
        Actions { list: [first, second], len: 2 }
    }

    /// The port, if all that is done is to send the frame out by one.
    #[inline]
    pub fn single_output(&self) -> Option<u16> {
        match self.list[0] {
            Action::Output(port) if self.len == 1 => Some(port),
            _ => None,
        }
    }

    /// The actions.
    #[inline]
    pub fn as_slice(&self) -> &[Action] {
        &self.list[..self.len as usize]
    }
}

impl std::fmt::Debug for Actions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}
