//! Drop reasons: every way that a frame can end here.
//!
//! A drop is a value. Each reason has a name (in counters, `trace`, `vswitchctl drops`), a line for people,
//! and a counter per port; there is no other way for a frame to vanish.

use crate::flow::headers::Malformed;

macro_rules! reasons {
    ($($variant:ident $name:literal $text:literal,)*) => {
        /// Why a frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            /// The headers cannot be read.
            Malformed(Malformed),
            $(#[doc = $text] $variant,)*
        }

        /// The reasons that are not about headers, in the order of their indices.
        const OTHERS: &[DropReason] = &[$(DropReason::$variant,)*];

        impl DropReason {
            /// The reason's name: stable, lower case, with hyphens.
            pub const fn name(self) -> &'static str {
                match self {
                    DropReason::Malformed(malformed) => malformed.name(),
                    $(DropReason::$variant => $name,)*
                }
            }

            /// One line for people.
            pub fn text(self) -> String {
                match self {
                    DropReason::Malformed(malformed) => malformed.to_string(),
                    $(DropReason::$variant => $text.to_string(),)*
                }
            }
        }
    };
}

reasons! {
    PortGone "port-gone" "the port was deleted or went down while the frame was under way",
    VlanNotMember "vlan-not-member" "the port is not a member of the VLAN that the frame is tagged with",
    TagOnAccess "tag-on-access" "a tagged frame came in by an access port",
    UntaggedOnTrunk "untagged-on-trunk" "an untagged frame came in by a trunk that has no native VLAN",
    SourceInvalid "source-invalid" "the source address is zero or a group address",
    ReservedAddress "reserved-address" "the destination is a link-local group address that no bridge forwards (IEEE 802.1Q, table 8-1)",
    SamePort "same-port" "the destination is behind the port that the frame came from (set `hairpin` to allow it)",
    Isolated "isolated" "both ports are isolated",
    EgressVlan "egress-vlan" "the out port is not a member of the frame's VLAN",
    FloodUnknown "flood-unknown-off" "the destination is unknown and the bridge does not flood unknown addresses",
    FloodBroadcast "flood-broadcast-off" "the bridge does not flood broadcast",
    FloodMulticast "flood-multicast-off" "the bridge does not flood multicast",
    NoDestination "no-destination" "flooded, and no other port may have it",
    MtuExceeded "mtu-exceeded" "longer than the out port's MTU",
    BadOffload "bad-offload" "the offload metadata contradicts the frame",
    TooLong "too-long" "longer than the switch can take",
    NoHeadroom "no-headroom" "no room before the frame for another header",
    NoFrame "no-frame" "the arena has no free frame left (raise `[limits] frames`)",
    RxFault "rx-fault" "the in port's device or the kernel failed while handing the frame up",
    TxFull "tx-full" "the out port's queue is full: its reader is too slow",
    TxRefused "tx-refused" "the out port's device refused the frame",
    TxDown "tx-down" "the out port's device is down or gone",
    TxUnreadable "tx-unreadable" "the payload lay in the sender's memory, and the sender took that away",
}

impl DropReason {
    /// How many there are.
    pub const COUNT: usize = Malformed::ALL.len() + OTHERS.len();

    /// All of them, by index.
    pub fn all() -> impl Iterator<Item = DropReason> {
        Malformed::ALL.iter().map(|malformed| DropReason::Malformed(*malformed)).chain(OTHERS.iter().copied())
    }

    /// The place of the reason's counter, below [`DropReason::COUNT`].
    #[inline]
    pub fn index(self) -> usize {
        match self {
            DropReason::Malformed(malformed) => malformed as usize,
            other => Malformed::ALL.len() + other.ordinal(),
        }
    }

    fn ordinal(self) -> usize {
        OTHERS.iter().position(|other| *other == self).unwrap_or(0)
    }

    /// The reason of this name.
    pub fn named(name: &str) -> Option<DropReason> {
        DropReason::all().find(|reason| reason.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_index_name_and_text() {
        let all: Vec<_> = DropReason::all().collect();
        assert_eq!(all.len(), DropReason::COUNT);
        for (index, reason) in all.iter().enumerate() {
            assert_eq!(reason.index(), index, "{reason:?}");
            assert_eq!(DropReason::named(reason.name()), Some(*reason));
            assert!(!reason.text().is_empty());
        }
        let names: HashSet<_> = all.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), all.len());
    }
}
