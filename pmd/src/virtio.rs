//! The virtio-net header: [`Offload`] metadata as twelve bytes in front of a frame.
//!
//! TAPs, packet sockets and (later) guests' rings speak it. It is written by the other side, a container or a
//! guest, so reading it trusts nothing: whatever contradicts the frame is an error, and the frame a named drop.
//! Knows nothing about where header and frame lie. Virtual I/O Device 1.2, section 5.1.6.

use crate::offload::{Checksum, Gso, GsoKind, Offload};

/// Bytes of the header with `num_buffers`, as TAPs and guests use it.
pub const HEADER: usize = 12;
/// Bytes of the header that tells of tunnels, too (Virtual I/O Device 1.4, section 5.1.6: behind a hash and its kind
/// there are two positions), as TAPs of Linux 6.17 use it.
pub const TUNNEL_HEADER: usize = 24;
/// Bytes of the header without `num_buffers`, as packet sockets use it.
pub const SHORT_HEADER: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const F_UDP_TUNNEL_CSUM: u8 = 8;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_UDP_TUNNEL_IPV4: u8 = 0x20;
const GSO_UDP_TUNNEL_IPV6: u8 = 0x40;
const GSO_UDP_TUNNEL: u8 = GSO_UDP_TUNNEL_IPV4 | GSO_UDP_TUNNEL_IPV6;
const GSO_ECN: u8 = 0x80;

/// An Ethernet header: no checksum starts inside it.
const ETHERNET: usize = 14;

/// The header contradicts itself or its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the virtio-net header contradicts the frame")]
pub struct BadHeader;

/// Reads the header (the first ten bytes; more are ignored) of a frame of `len` bytes.
///
/// # Errors
/// A checksum outside the frame, a train without a size, without a partial checksum or of a kind that was not
/// offered.
#[inline]
pub fn decode(header: &[u8], len: usize) -> Result<Offload, BadHeader> {
    let header: &[u8; SHORT_HEADER] = header.first_chunk().ok_or(BadHeader)?;
    let [flags, kind, ..] = *header;
    // The common case first: nothing asked, nothing to check.
    if flags & F_NEEDS_CSUM == 0 && kind == GSO_NONE {
        let checksum = if flags & F_DATA_VALID != 0 { Checksum::Verified } else { Checksum::None };
        return Ok(Offload { checksum, ..Offload::NONE });
    }
    let (size, start, offset) = (word(header, 4), word(header, 6), word(header, 8));
    let field = usize::from(start) + usize::from(offset);
    if flags & F_NEEDS_CSUM == 0 || usize::from(start) < ETHERNET || field + 2 > len {
        return Err(BadHeader);
    }
    let checksum = Checksum::Partial { start, offset };
    let gso_kind = match kind & !GSO_ECN {
        GSO_NONE => {
            return if kind == GSO_NONE { Ok(Offload { checksum, ..Offload::NONE }) } else { Err(BadHeader) };
        }
        GSO_TCPV4 => GsoKind::Tcp4,
        GSO_TCPV6 => GsoKind::Tcp6,
        GSO_UDP_L4 => GsoKind::Udp,
        _ => return Err(BadHeader),
    };
    if size == 0 {
        return Err(BadHeader);
    }
    let gso = Gso { kind: gso_kind, size, ecn: kind & GSO_ECN != 0 };
    Ok(Offload { checksum, gso: Some(gso), outer: None })
}

/// [`decode`] for a header of which [`TUNNEL_HEADER`] bytes were agreed on: a train may lie in a tunnel. Where that is,
/// [`segment`](crate::segment) finds out itself, of those that are never told: the header is only another one who
/// could be wrong.
///
/// # Errors
/// As [`decode`]; a tunnel around anything but a train.
#[inline]
pub fn decode_tunnel(header: &[u8], len: usize) -> Result<Offload, BadHeader> {
    let header: &[u8; SHORT_HEADER] = header.first_chunk().ok_or(BadHeader)?;
    if header[1] & GSO_UDP_TUNNEL == 0 {
        return decode(header, len);
    }
    let mut plain = *header;
    plain[1] &= !GSO_UDP_TUNNEL;
    decode(&plain, len).and_then(|offload| offload.gso.map(|_| offload).ok_or(BadHeader))
}

/// [`encode`] for a port that takes trains in tunnels.
#[inline]
pub fn encode_tunnel(offload: &Offload, head: &[u8], len: usize) -> [u8; TUNNEL_HEADER] {
    let mut header = [0; TUNNEL_HEADER];
    header[..HEADER].copy_from_slice(&encode(offload, head, len));
    if let (Some(outer), Some(_)) = (offload.outer, offload.gso) {
        let version = head.get(usize::from(outer.network)).map_or(4, |first| first >> 4);
        header[1] |= if version == 6 { GSO_UDP_TUNNEL_IPV6 } else { GSO_UDP_TUNNEL_IPV4 };
        if outer.checksum {
            header[0] |= F_UDP_TUNNEL_CSUM;
        }
        // Little-endian always, other than what comes before.
        header[20..22].copy_from_slice(&outer.transport.to_le_bytes());
        header[22..24].copy_from_slice(&outer.inner.to_le_bytes());
    }
    header
}

/// Writes the header of a frame of `len` bytes that begins with `head`.
#[inline]
pub fn encode(offload: &Offload, head: &[u8], len: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let (start, offset) = match offload.checksum {
        Checksum::None => return header,
        Checksum::Verified => {
            header[0] = F_DATA_VALID;
            return header;
        }
        Checksum::Partial { start, offset } => (start, offset),
    };
    header[0] = F_NEEDS_CSUM;
    put(&mut header, 6, start);
    put(&mut header, 8, offset);
    if let Some(gso) = offload.gso {
        let ecn = if gso.ecn { GSO_ECN } else { 0 };
        header[1] = ecn
            | match gso.kind {
                GsoKind::Tcp4 => GSO_TCPV4,
                GsoKind::Tcp6 => GSO_TCPV6,
                GsoKind::Udp => GSO_UDP_L4,
            };
        put(&mut header, 4, gso.size);
    }
    // A hint of how much to keep together; the receiver checks it against the frame.
    let headers = usize::from(start) + transport_len(offload, head, usize::from(start));
    put(&mut header, 2, headers.min(len) as u16);
    header
}

/// Bytes of the transport header at `start`: what a TCP header in private memory says, else the least.
#[inline]
fn transport_len(offload: &Offload, head: &[u8], start: usize) -> usize {
    match offload.checksum {
        Checksum::Partial { offset: 16, .. } => {
            head.get(start + 12).map_or(20, |byte| usize::from(byte >> 4) * 4).max(20)
        }
        _ => 8,
    }
}

#[inline]
fn word(header: &[u8; SHORT_HEADER], at: usize) -> u16 {
    u16::from_ne_bytes([header[at], header[at + 1]])
}

#[inline]
fn put(header: &mut [u8; HEADER], at: usize, value: u16) {
    header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::offload::Outer;

    fn partial(start: u16, offset: u16) -> Offload {
        Offload { checksum: Checksum::Partial { start, offset }, ..Offload::NONE }
    }

    fn train(kind: GsoKind, size: u16, ecn: bool) -> Offload {
        Offload {
            gso: Some(Gso { kind, size, ecn }),
            ..partial(34, if kind == GsoKind::Udp { 6 } else { 16 })
        }
    }

    #[test]
    fn the_words_are_where_the_specification_puts_them() {
        let mut head = [0u8; 66];
        head[34 + 12] = 8 << 4; // a TCP header of 32 bytes
        let bytes = encode(&train(GsoKind::Tcp4, 1448, true), &head, 9000);
        let words = [34 + 32u16, 1448, 34, 16].map(u16::to_ne_bytes).concat();
        assert_eq!(bytes[..2], [1, 0x81]);
        assert_eq!(bytes[2..10], words);
        assert_eq!(encode(&Offload::NONE, &head, 66), [0; HEADER]);
    }

    #[test]
    fn what_is_written_is_read() {
        let verified = Offload { checksum: Checksum::Verified, ..Offload::NONE };
        let all = [
            Offload::NONE,
            verified,
            partial(34, 6),
            train(GsoKind::Tcp4, 1448, false),
            train(GsoKind::Tcp6, 1428, true),
            train(GsoKind::Udp, 1472, false),
        ];
        for offload in all {
            assert_eq!(decode(&encode(&offload, &[0; 60], 4000), 4000), Ok(offload));
        }
    }

    #[test]
    fn a_tunnel_is_told_of_as_the_kernel_does() {
        // What Linux 6.18 writes for a train of its own VXLAN, and expects from us.
        let outer = Outer { network: 14, transport: 34, inner: 64, checksum: false };
        let partial = Checksum::Partial { start: 84, offset: 16 };
        let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1398, ecn: false });
        let offload = Offload { checksum: partial, gso, outer: Some(outer) };
        let mut head = [0; 128];
        (head[14], head[96]) = (0x45, 8 << 4);
        let mut expected = [0; TUNNEL_HEADER];
        let text = "012174007605540010000000000000000000000022004000";
        for (byte, digits) in expected.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        }
        assert_eq!(encode_tunnel(&offload, &head, 7380 - 24), expected);
        assert_eq!(decode_tunnel(&expected, 7380 - 24), Ok(Offload { outer: None, ..offload }));
        assert_eq!(decode(&expected, 7380 - 24), Err(BadHeader), "it was not agreed on");

        head[14] = 0x60;
        let outer = Outer { transport: 54, inner: 84, checksum: true, ..outer };
        let bytes = encode_tunnel(&Offload { outer: Some(outer), ..offload }, &head, 7400);
        assert_eq!((bytes[0], bytes[1], &bytes[20..]), (9, 0x41, &[54, 0, 84, 0][..]));

        let plain = encode_tunnel(&Offload { outer: None, ..offload }, &head, 7400);
        assert_eq!((plain[1], &plain[12..]), (1, &[0; 12][..]));
        let mut around_nothing = plain;
        (around_nothing[1], around_nothing[4]) = (0x20, 0);
        assert_eq!(decode_tunnel(&around_nothing, 7400), Err(BadHeader));
    }

    #[test]
    fn contradictions_are_refused() {
        let good = encode(&train(GsoKind::Tcp4, 1448, false), &[0; 60], 4000);
        let with = |at: usize, byte: u8| {
            let mut header = good;
            header[at] = byte;
            header
        };
        assert!(decode(&good, 4000).is_ok());
        let bad = [
            (with(0, 0), 4000, "a train without a partial checksum"),
            (with(1, 3), 4000, "fragmentation (UFO), which is not offered"),
            (with(1, 0x21), 4000, "a tunnel's train, which is not offered"),
            (with(1, 0x80), 4000, "ECN without a train"),
            (with(6, 13), 4000, "a checksum that starts in the Ethernet header"),
            (good, 51, "a checksum field behind the frame's end"),
        ];
        for (header, len, what) in bad {
            assert_eq!(decode(&header, len), Err(BadHeader), "{what}");
        }
        let mut sizeless = good;
        sizeless[4..6].fill(0);
        assert_eq!(decode(&sizeless, 4000), Err(BadHeader));
        assert_eq!(decode(&good[..9], 4000), Err(BadHeader));
    }

    proptest! {
        /// Whatever the twelve bytes say: what is accepted lies inside the frame.
        #[test]
        fn accepted_positions_lie_inside_the_frame(header: [u8; HEADER], len in 0usize..70_000) {
            let Ok(offload) = decode(&header, len) else { return Ok(()) };
            if let Checksum::Partial { start, offset } = offload.checksum {
                prop_assert!(usize::from(start) + usize::from(offset) + 2 <= len);
            } else {
                prop_assert_eq!(offload.gso, None);
            }
            prop_assert!(offload.gso.is_none_or(|gso| gso.size > 0));
        }
    }
}
