//! Feature bits of virtio-net and of the ring, and what they mean for a lane.
//!
//! Virtual I/O Device 1.2, sections 5.1.3 (virtio-net) and 6 (reserved bits). "Host" is us, "guest" is the other
//! end: what has GUEST in its name it takes from us, what has HOST we take from it.

use pmd::Features;
use pmd::virtio::{HEADER, SHORT_HEADER};

use super::open::Settings;
use crate::ring::Terms;

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const GUEST_ECN: u64 = 1 << 9;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const HOST_ECN: u64 = 1 << 13;
const MRG_RXBUF: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
/// The control queue. It is the front end's own: what the guest says there it follows, or tells us by messages. It is
/// offered because what needs it (several queue pairs) can only be offered with it (section 5.1.3.1).
const CTRL_VQ: u64 = 1 << 17;
const GUEST_ANNOUNCE: u64 = 1 << 21;
const MQ: u64 = 1 << 22;
/// Vhost's own: the pages that we write are to be noted.
pub const LOG_ALL: u64 = 1 << 26;
const INDIRECT_DESC: u64 = 1 << 28;
/// Chains of events by index, both ways.
pub const EVENT_IDX: u64 = 1 << 29;
/// Vhost-user's own: there are protocol features, and rings begin disabled.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;
const VERSION_1: u64 = 1 << 32;
/// The ring is a packed one.
pub const RING_PACKED: u64 = 1 << 34;
/// Buffers are used in the order in which they were made available, which we do anyway.
pub const IN_ORDER: u64 = 1 << 35;
const GUEST_USO4: u64 = 1 << 54;
const GUEST_USO6: u64 = 1 << 55;
const HOST_USO: u64 = 1 << 56;

/// Partial checksums and trains, both ways. UFO is not among them: its frames are not cut into segments, but into
/// fragments, which nothing here does.
const OFFLOADS: u64 = CSUM
    | GUEST_CSUM
    | GUEST_TSO4
    | GUEST_TSO6
    | GUEST_ECN
    | HOST_TSO4
    | HOST_TSO6
    | HOST_ECN
    | GUEST_USO4
    | GUEST_USO6
    | HOST_USO;

/// What a port with these settings offers.
pub fn offered(settings: &Settings) -> u64 {
    let mut offered = MTU | MAC | MRG_RXBUF | STATUS | CTRL_VQ | GUEST_ANNOUNCE;
    offered |= INDIRECT_DESC | EVENT_IDX | PROTOCOL_FEATURES | VERSION_1 | IN_ORDER | LOG_ALL;
    if settings.packed {
        offered |= RING_PACKED;
    }
    if settings.queues > 1 {
        offered |= MQ;
    }
    if settings.offloads {
        offered |= OFFLOADS;
    }
    offered
}

/// Names of feature bits: the standard's, in lower case and without what they all begin with.
const NAMES: [(u64, &str); 23] = [
    (CSUM, "csum"),
    (GUEST_CSUM, "guest_csum"),
    (MTU, "mtu"),
    (MAC, "mac"),
    (GUEST_TSO4, "guest_tso4"),
    (GUEST_TSO6, "guest_tso6"),
    (GUEST_ECN, "guest_ecn"),
    (HOST_TSO4, "host_tso4"),
    (HOST_TSO6, "host_tso6"),
    (HOST_ECN, "host_ecn"),
    (MRG_RXBUF, "mrg_rxbuf"),
    (STATUS, "status"),
    (CTRL_VQ, "ctrl_vq"),
    (GUEST_ANNOUNCE, "guest_announce"),
    (MQ, "mq"),
    (INDIRECT_DESC, "indirect_desc"),
    (EVENT_IDX, "event_idx"),
    (VERSION_1, "version_1"),
    (RING_PACKED, "ring_packed"),
    (IN_ORDER, "in_order"),
    (GUEST_USO4, "guest_uso4"),
    (GUEST_USO6, "guest_uso6"),
    (HOST_USO, "host_uso"),
];

/// The names of these features.
pub fn names(features: u64) -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().filter(move |(bit, _)| features & bit != 0).map(|(_, name)| name)
}

/// The kind of ring that the features that both have make.
pub fn ring(features: u64) -> &'static str {
    if features & RING_PACKED != 0 { "packed" } else { "split" }
}

/// What the features that both have mean for the frames of a ring.
pub fn terms(features: u64) -> Terms {
    let has = |bits| features & bits == bits;
    let mergeable = has(MRG_RXBUF);
    let takes = [
        (GUEST_CSUM, Features::CHECKSUM),
        (GUEST_CSUM | GUEST_TSO4, Features::TSO4),
        (GUEST_CSUM | GUEST_TSO6, Features::TSO6),
        (GUEST_CSUM | GUEST_ECN, Features::ECN),
        (GUEST_CSUM | GUEST_USO4 | GUEST_USO6, Features::USO),
    ];
    let takes = takes.into_iter().filter(|(bits, _)| has(*bits));
    Terms {
        // Section 5.1.6.1: a legacy header has no `num_buffers` without mergeable buffers.
        header: if has(VERSION_1) || mergeable { HEADER } else { SHORT_HEADER },
        mergeable,
        features: takes.fold(Features::NONE, |all, (_, feature)| all.with(feature)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::open::Mode;
    use super::*;

    #[test]
    fn what_is_offered_follows_the_settings() {
        let settings = Settings::new("/s", Mode::Server);
        let offer = offered(&settings);
        assert!(offer & OFFLOADS == OFFLOADS && offer & MQ == 0);
        assert_eq!(offered(&Settings { queues: 2, ..settings.clone() }), offer | MQ);
        assert_eq!(offered(&Settings { packed: false, ..settings.clone() }), offer & !RING_PACKED);
        assert_eq!(offered(&Settings { offloads: false, ..settings }), offer & !OFFLOADS);
        // Every one has a name, but for the two that are none of virtio's.
        assert_eq!(names(offer | MQ).count() as u32 + 2, (offer | MQ).count_ones());
        assert_eq!(names(VERSION_1 | MRG_RXBUF).collect::<Vec<_>>(), ["mrg_rxbuf", "version_1"]);
    }

    #[test]
    fn a_guest_is_given_what_it_takes() {
        let all = terms(OFFLOADS | MRG_RXBUF | VERSION_1);
        assert_eq!(all, Terms { header: 12, mergeable: true, features: Features::VIRTIO });
        let plain = terms(VERSION_1);
        assert_eq!(plain, Terms { header: 12, mergeable: false, features: Features::NONE });
        assert_eq!(terms(0).header, 10);
        // A train needs a partial checksum, and USO both kinds.
        assert_eq!(terms(GUEST_TSO4 | GUEST_USO4).features, Features::NONE);
        assert!(!terms(GUEST_CSUM | GUEST_USO4).features.contains(Features::USO));
    }
}
