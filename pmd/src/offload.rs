//! Offload metadata: what a frame still needs, and what a port can do about it.
//!
//! A kernel hands us frames whose transport checksum is not filled in ("partial") and frames of up to
//! 64 KB that are to be cut into segments later (GSO). Whoever receives a frame describes that in its
//! [`Offload`]; whoever sends it either passes the description on or has the work done by
//! [`gather`](crate::gather) (checksum) and [`segment`](crate::segment) (segmentation). The words are
//! those of `struct virtio_net_hdr` (Virtual I/O Device 1.2, section 5.1.6).

/// The state of a frame's transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Said to be complete; nobody has verified it.
    #[default]
    None,
    /// Verified by whoever handed the frame to us.
    Verified,
    /// The field holds the pseudo-header's sum only. What is missing is the ones' complement sum of
    /// all bytes from `start` to the frame's end, stored at `start + offset`. Both count from the
    /// frame's first byte. A `start` behind the outer transport header means just that: an inner checksum.
    Partial {
        /// Where summing begins.
        start: u16,
        /// Where the field lies, after `start`.
        offset: u16,
    },
}

/// What kind of segmentation a frame awaits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP, cut into datagrams (USO), over either.
    Udp,
}

/// Generic segmentation offload: the frame is a train of segments that share one header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What it is.
    pub kind: GsoKind,
    /// Payload bytes of each segment but the last; never 0.
    pub size: u16,
    /// TCP only: the first segment alone carries CWR (RFC 3168).
    pub ecn: bool,
}

/// The outer level of a train inside a tunnel, whose inner one the rest of the metadata describes. A kernel hands
/// such trains up without a word about it: then the partial checksum starts behind the outer transport header, and
/// [`segment`](crate::segment) finds the outer level itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Where the outer network header begins.
    pub network: u16,
    /// Where the outer transport header begins: UDP or GRE.
    pub transport: u16,
    /// Where the network header of the frame inside begins.
    pub inner: u16,
    /// Whether the outer transport checksum is wanted.
    pub checksum: bool,
}

/// What a frame still needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The state of the transport checksum.
    pub checksum: Checksum,
    /// The segmentation that the frame awaits.
    pub gso: Option<Gso>,
    /// The tunnel around it.
    pub outer: Option<Outer>,
}

impl Offload {
    /// Nothing left to do, nothing known.
    pub const NONE: Offload = Offload { checksum: Checksum::None, gso: None, outer: None };

    /// The metadata after `by` bytes were put in (or, negative, taken out) before the network header.
    /// `None` if a position would leave the frame.
    #[inline]
    pub fn shifted(self, by: i32) -> Option<Offload> {
        let shift = |at: u16| u16::try_from(i32::from(at) + by).ok();
        let checksum = match self.checksum {
            Checksum::Partial { start, offset } => Checksum::Partial { start: shift(start)?, offset },
            other => other,
        };
        let outer = match self.outer {
            Some(Outer { network, transport, inner, checksum }) => Some(Outer {
                network: shift(network)?,
                transport: shift(transport)?,
                inner: shift(inner)?,
                checksum,
            }),
            None => None,
        };
        Some(Offload { checksum, gso: self.gso, outer })
    }

    /// The metadata after an outer header of `header` bytes was taken off the front. What was known of that header
    /// goes with it; so does [`Checksum::Verified`], as it may have been the outer checksum that was verified.
    /// `None` for a train of outer headers, which has to be cut first.
    #[inline]
    pub fn decapsulated(self, header: u16) -> Option<Offload> {
        let checksum = match self.checksum {
            Checksum::Partial { start, offset } if start >= header => {
                Checksum::Partial { start: start - header, offset }
            }
            _ if self.gso.is_some() => return None,
            _ => Checksum::None,
        };
        Some(Offload { checksum, gso: self.gso, outer: None })
    }

    /// Whether a port with `features` takes the frame as it is, if the frame is what the metadata says: of a train,
    /// only [`Train::passes`](crate::segment::Train::passes) knows.
    #[inline]
    pub fn fits(&self, features: Features) -> bool {
        let checksum = match self.checksum {
            Checksum::Partial { .. } => features.contains(Features::CHECKSUM),
            _ => true,
        };
        let gso = match self.gso {
            None => true,
            Some(gso) => features.contains(Features::of(gso)),
        };
        checksum && gso && (self.outer.is_none() || features.contains(Features::TUNNEL))
    }
}

/// An [`Offload`] in two words, as frames carry it: it is copied with every frame, and looked into only
/// where there is something in it.
///
/// | word | bits |
/// | --- | --- |
/// | 0 | checksum: state (2), start (16), offset (16); GSO: kind (2), CWR (1), size (16) |
/// | 1 | outer: present (1), checksum (1), network (16), transport (16), inner (16) |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed([u64; 2]);

const VERIFIED: u64 = 1;
const PARTIAL: u64 = 2;
const CHECKSUM: u64 = 0x3_ffff_ffff;
const GSO: u64 = 0b11 << 34;

impl Packed {
    /// [`Offload::NONE`].
    pub const NONE: Packed = Packed([0; 2]);

    /// Whether nothing is left to do and nothing is known.
    #[inline]
    pub fn is_none(self) -> bool {
        self.0[0] | self.0[1] == 0
    }

    /// Whether the frame is a train.
    #[inline]
    pub fn has_gso(self) -> bool {
        self.0[0] & GSO != 0
    }

    /// Whether the checksum is partial.
    #[inline]
    pub fn is_partial(self) -> bool {
        self.0[0] & 0b11 == PARTIAL
    }

    /// The same with a checksum that is said to be complete.
    #[inline]
    pub fn completed(self) -> Packed {
        Packed([self.0[0] & !CHECKSUM, self.0[1]])
    }

    /// What it says.
    #[inline]
    pub fn unpack(self) -> Offload {
        let [word, outer] = self.0;
        let checksum = match word & 0b11 {
            VERIFIED => Checksum::Verified,
            PARTIAL => Checksum::Partial { start: (word >> 2) as u16, offset: (word >> 18) as u16 },
            _ => Checksum::None,
        };
        let train = |kind| Some(Gso { kind, ecn: word >> 36 & 1 == 1, size: (word >> 37) as u16 });
        let gso = match (word & GSO) >> 34 {
            1 => train(GsoKind::Tcp4),
            2 => train(GsoKind::Tcp6),
            3 => train(GsoKind::Udp),
            _ => None,
        };
        let outer = (outer & 1 == 1).then_some(Outer {
            checksum: outer >> 1 & 1 == 1,
            network: (outer >> 2) as u16,
            transport: (outer >> 18) as u16,
            inner: (outer >> 34) as u16,
        });
        Offload { checksum, gso, outer }
    }
}

impl From<Offload> for Packed {
    #[inline]
    fn from(offload: Offload) -> Packed {
        let checksum = match offload.checksum {
            Checksum::None => 0,
            Checksum::Verified => VERIFIED,
            Checksum::Partial { start, offset } => PARTIAL | u64::from(start) << 2 | u64::from(offset) << 18,
        };
        let gso = offload.gso.map_or(0, |gso| {
            let kind = match gso.kind {
                GsoKind::Tcp4 => 1,
                GsoKind::Tcp6 => 2,
                GsoKind::Udp => 3,
            };
            kind << 34 | u64::from(gso.ecn) << 36 | u64::from(gso.size) << 37
        });
        let outer = offload.outer.map_or(0, |outer| {
            1 | u64::from(outer.checksum) << 1
                | u64::from(outer.network) << 2
                | u64::from(outer.transport) << 18
                | u64::from(outer.inner) << 34
        });
        Packed([checksum | gso, outer])
    }
}

/// A set of things that a port can do with frames that it is given to send. Wide enough for virtio's
/// feature bits above 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u128);

impl Features {
    /// Nothing: every frame must be complete and fit the MTU.
    pub const NONE: Features = Features(0);
    /// Fills partial checksums in, or hands them on to one who does.
    pub const CHECKSUM: Features = Features(1);
    /// Takes TCP/IPv4 trains.
    pub const TSO4: Features = Features(1 << 1);
    /// Takes TCP/IPv6 trains.
    pub const TSO6: Features = Features(1 << 2);
    /// Takes trains whose first segment carries CWR.
    pub const ECN: Features = Features(1 << 3);
    /// Takes UDP trains.
    pub const USO: Features = Features(1 << 4);
    /// Takes trains inside a tunnel over UDP, if told where the levels lie.
    pub const TUNNEL: Features = Features(1 << 5);
    /// Sends arena frames without copying them.
    pub const ZERO_COPY: Features = Features(1 << 6);
    /// Checksum and every kind of train: what a TAP or AF_PACKET with virtio-net headers takes.
    pub const VIRTIO: Features = Features(0b11111);

    /// Both sets together.
    pub const fn with(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    /// This set without the other.
    pub const fn without(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    /// Whether all of `other` is in this set.
    #[inline]
    pub const fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    /// What a port needs to take a train.
    #[inline]
    pub const fn of(gso: Gso) -> Features {
        let kind = match gso.kind {
            GsoKind::Tcp4 => Features::TSO4,
            GsoKind::Tcp6 => Features::TSO6,
            GsoKind::Udp => Features::USO,
        };
        if gso.ecn { kind.with(Features::ECN) } else { kind }
    }

    /// The names of the set's members, for people.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        const NAMES: [(Features, &str); 7] = [
            (Features::CHECKSUM, "checksum"),
            (Features::TSO4, "tso4"),
            (Features::TSO6, "tso6"),
            (Features::ECN, "ecn"),
            (Features::USO, "uso"),
            (Features::TUNNEL, "tunnel"),
            (Features::ZERO_COPY, "zero-copy"),
        ];
        NAMES.into_iter().filter(move |(feature, _)| self.contains(*feature)).map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_takes_what_it_says() {
        let train = Gso { kind: GsoKind::Tcp6, size: 1440, ecn: true };
        let offload =
            Offload { checksum: Checksum::Partial { start: 54, offset: 16 }, gso: Some(train), outer: None };
        assert!(offload.fits(Features::VIRTIO));
        assert!(!offload.fits(Features::VIRTIO.without(Features::ECN)));
        assert!(!offload.fits(Features::VIRTIO.without(Features::CHECKSUM)));
        assert!(Offload::NONE.fits(Features::NONE));
    }

    #[test]
    fn packing_loses_nothing() {
        let checksums = [
            Checksum::None,
            Checksum::Verified,
            Checksum::Partial { start: 0, offset: 0 },
            Checksum::Partial { start: 0xffff, offset: 0 },
            Checksum::Partial { start: 0, offset: 0xffff },
        ];
        let train = |kind, size, ecn| Some(Gso { kind, size, ecn });
        let trains = [
            None,
            train(GsoKind::Tcp4, 1, false),
            train(GsoKind::Tcp6, 0xffff, true),
            train(GsoKind::Udp, 0, false),
        ];
        let outers = [
            None,
            Some(Outer { network: 0, transport: 0, inner: 0, checksum: false }),
            Some(Outer { network: 0xffff, transport: 14, inner: 0, checksum: true }),
            Some(Outer { network: 14, transport: 0xffff, inner: 0, checksum: false }),
            Some(Outer { network: 0, transport: 0, inner: 0xffff, checksum: false }),
        ];
        for (checksum, gso, outer) in
            checksums.iter().flat_map(|c| trains.iter().flat_map(|g| outers.iter().map(|o| (*c, *g, *o))))
        {
            let offload = Offload { checksum, gso, outer };
            let packed = Packed::from(offload);
            assert_eq!(packed.unpack(), offload);
            assert_eq!(packed.is_none(), offload == Offload::NONE);
            assert_eq!(packed.has_gso(), gso.is_some());
            assert_eq!(packed.is_partial(), matches!(checksum, Checksum::Partial { .. }));
            assert_eq!(packed.completed().unpack(), Offload { checksum: Checksum::None, gso, outer });
        }
    }

    #[test]
    fn positions_move_with_the_header() {
        let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, ..Offload::NONE };
        assert_eq!(offload.shifted(4).unwrap().checksum, Checksum::Partial { start: 38, offset: 6 });
        assert_eq!(offload.shifted(-35), None);
    }

    #[test]
    fn what_was_known_of_an_outer_header_goes_with_it() {
        let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1398, ecn: false });
        let outer = Some(Outer { network: 14, transport: 34, inner: 64, checksum: true });
        let partial = |start| Checksum::Partial { start, offset: 16 };
        let with = |checksum, gso, outer| Offload { checksum, gso, outer };
        for (before, after) in [
            (with(partial(84), gso, outer), Some(with(partial(34), gso, None))),
            (with(partial(84), gso, None), Some(with(partial(34), gso, None))),
            (with(partial(84), None, None), Some(with(partial(34), None, None))),
            (with(partial(34), None, None), Some(Offload::NONE)),
            (with(Checksum::Verified, None, None), Some(Offload::NONE)),
            (Offload::NONE, Some(Offload::NONE)),
            (with(partial(34), gso, None), None),
            (with(partial(49), gso, None), None),
        ] {
            assert_eq!(before.decapsulated(50), after, "{before:?}");
        }
    }
}
