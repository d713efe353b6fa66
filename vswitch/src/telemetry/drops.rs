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
    SplitHorizon "split-horizon" "it came from a remote, and what comes from one remote goes to no other",
    NoOverlay "no-overlay" "the destination is behind a tunnel that does not carry the frame's VLAN",
    InnerTag "inner-tag" "the tunnel's network is one VLAN's, and the frame inside has a tag (RFC 7348, section 6.1)",
    NotOurs "not-ours" "it came by an underlay, is no tunnel's, and is not addressed to the switch",
    Unclaimed "unclaimed" "it came by an underlay for the switch itself, and is neither of a configured tunnel's type and UDP port nor ARP, ICMP, IGMP or BFD",
    UnderlayVlan "underlay-vlan" "it came by an underlay with another VLAN tag than that has",
    NoPath "no-path" "there is no way to the remote at the moment (`vswitchctl tunnel show` says why)",
    MtuExceeded "mtu-exceeded" "longer than the out port's MTU",
    BadOffload "bad-offload" "the offload metadata contradicts the frame",
    TooLong "too-long" "longer than the switch can take",
    NoHeadroom "no-headroom" "no room before the frame for another header",
    NoFrame "no-frame" "the arena has no free frame left (raise `[limits] frames`)",
    RxFault "rx-fault" "the in port's device or the kernel failed while handing the frame up",
    QueueDisabled "queue-disabled" "sent on a queue that its sender has started and not enabled",
    TxFull "tx-full" "the out port's queue is full: its reader is too slow",
    TxRefused "tx-refused" "the out port's device refused the frame",
    TxDown "tx-down" "the out port's device is down or gone",
    TxUnreadable "tx-unreadable" "the payload lay in the sender's memory, and the sender took that away",
    OuterChecksum "outer-checksum" "the checksum of a tunnel's IPv4 header is wrong",
    OuterUdpChecksum "outer-udp-checksum" "the UDP checksum of a tunnel's packet is wrong",
    OuterFragment "outer-fragment" "a fragment of a tunnel's packet: these are not put together again",
    OuterExtension "outer-extension" "IPv6 extension headers before a tunnel's header",
    OuterTooLong "outer-too-long" "a tunnel's headers are longer than the part of a frame that is looked at",
    TunnelTruncated "tunnel-truncated" "a tunnel's packet ends inside the tunnel header",
    TunnelProtocol "tunnel-protocol" "what a tunnel's packet carries is no Ethernet frame",
    VxlanFlags "vxlan-flags" "the VXLAN header says that it has no VNI",
    NvgreFlags "nvgre-flags" "the GRE header is not that of NVGRE: a key, no checksum, no sequence number",
    GeneveVersion "geneve-version" "the version of the Geneve header is unknown",
    GeneveControl "geneve-control" "a Geneve control message",
    GeneveOptions "geneve-options" "the lengths of the Geneve options contradict each other",
    GeneveCritical "geneve-critical-option" "a Geneve option that must be understood is unknown",
    InnerTooShort "inner-too-short" "the frame inside a tunnel's packet is shorter than an Ethernet header",
    EcnForbidden "ecn-forbidden" "a router marked congestion on a tunnel's packet, and the frame inside cannot carry the mark (RFC 6040)",
    UnknownVtep "unknown-vtep" "a tunnel's packet from an address that is no remote of the tunnel",
    UnknownVni "unknown-vni" "a tunnel's packet with a VNI that no bridge has there",
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
