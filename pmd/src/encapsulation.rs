//! Encapsulation: what an outer header in front of a frame makes of the frame's offloads.
//!
//! Called by the switch for each frame that it puts into a tunnel. There are two checksums then, and a frame's
//! metadata has room for one; there is never more than one to complete:
//!
//! | inner frame | outer checksum wanted | its field | left to do |
//! | --- | --- | --- | --- |
//! | complete | no | 0 | nothing |
//! | complete | yes | pseudo-header's sum | the outer checksum, as any other |
//! | partial | no | 0 | the inner checksum |
//! | partial | yes | the checksum ([`local`]) | the inner checksum |
//! | a train | no | 0 | segments, which know their [`Outer`] |
//! | a train | yes | pseudo-header's sum | the same |
//!
//! No payload is read here. Knows nothing of tunnels but where their headers lie.

use crate::checksum::{Sum, local, pseudo_header};
use crate::offload::{Checksum, Offload, Outer, Packed};

const UDP: u8 = 17;

/// What there is to know of an outer header (Ethernet, tags, IP, UDP or GRE, the tunnel's own).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encapsulation {
    /// Where its network header begins.
    pub network: u16,
    /// Where its transport header begins.
    pub transport: u16,
    /// Whether its UDP checksum is wanted; without one (RFC 7348, section 5; RFC 6935), or with GRE, false.
    pub checksum: bool,
}

impl Encapsulation {
    /// Finishes `header`, which is complete but for a checksum field of 0, for a frame that begins with `inner` and
    /// needs `offload`; gives what both together need. Positions in `offload` count from the first byte of `inner`,
    /// positions in the result from that of `header`. `None` for metadata that contradicts the frame.
    #[inline]
    pub fn finish(&self, header: &mut [u8], inner: &[u8], offload: Packed) -> Option<Packed> {
        if offload.is_none() && !self.checksum {
            return Some(Packed::NONE);
        }
        self.finish_closely(header, inner, offload.unpack()).map(Packed::from)
    }

    #[inline(never)]
    fn finish_closely(&self, header: &mut [u8], inner: &[u8], offload: Offload) -> Option<Offload> {
        let Encapsulation { network, transport, checksum } = *self;
        let moved = |at: usize| u16::try_from(at + header.len()).ok();
        let pseudo = if checksum { Some(self.pseudo_header(header)?) } else { None };
        let (needed, field) = match (offload.checksum, offload.gso) {
            (Checksum::Partial { start, offset }, gso) => {
                let needed = Checksum::Partial { start: moved(start.into())?, offset };
                let (outer, field) = match (gso, pseudo) {
                    (None, None) => (None, None),
                    (None, Some(pseudo)) => {
                        let field = usize::from(start) + usize::from(offset);
                        let partial = inner.get(field..)?.first_chunk()?;
                        (None, Some(self.local(pseudo, header, inner.get(..start.into())?, *partial)?))
                    }
                    (Some(_), pseudo) => {
                        let inner = moved(network_header(inner)?)?;
                        (Some(Outer { network, transport, inner, checksum }), pseudo.map(Sum::partial))
                    }
                };
                (Offload { checksum: needed, gso, outer }, field)
            }
            (_, Some(_)) => return None,
            (_, None) if checksum => {
                let needed = Checksum::Partial { start: transport, offset: 6 };
                (Offload { checksum: needed, ..Offload::NONE }, pseudo.map(Sum::partial))
            }
            (_, None) => (Offload::NONE, None),
        };
        if let Some(field) = field {
            let at = usize::from(transport) + 6;
            header.get_mut(at..at + 2)?.copy_from_slice(&field);
        }
        Some(needed)
    }

    /// The sum of the outer pseudo-header; the UDP header says how long the datagram is.
    fn pseudo_header(&self, header: &[u8]) -> Option<Sum> {
        let length = header.get(usize::from(self.transport) + 4..)?.first_chunk()?;
        pseudo_header(header.get(self.network.into()..)?, UDP, u16::from_be_bytes(*length))
    }

    /// The outer checksum around a partial one, which starts behind `before`.
    fn local(&self, pseudo: Sum, header: &[u8], before: &[u8], partial: [u8; 2]) -> Option<[u8; 2]> {
        let header = header.get(self.transport.into()..)?;
        let mut sum = pseudo;
        sum.add(header);
        sum.add(before);
        // Headers are made of words; what is not, is none.
        (header.len() + before.len()).is_multiple_of(2).then(|| local(sum, partial))
    }
}

/// Where the network header of an Ethernet frame begins, behind two tags at most.
pub(crate) fn network_header(head: &[u8]) -> Option<usize> {
    let mut network = 14;
    while network < 22 {
        match head.get(network - 2..network)? {
            [0x81, 0x00] | [0x88, 0xa8] => network += 4,
            _ => break,
        }
    }
    Some(network)
}
