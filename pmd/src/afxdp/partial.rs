//! Whether a frame from a local veth peer still lacks its transport checksum.
//!
//! A container's kernel leaves the checksum of what it sends over a veth to the "device". A packet socket would be
//! told so by metadata; an AF_XDP socket is not. The frame's content tells: the field then holds the sum of the
//! pseudo-header, not complemented, which is what the device's part starts from.
//!
//! A container may run a tunnel of its own. Then the unfinished checksum is that of the inner frame, and the outer
//! one, if there is any, is right as soon as the inner one is: both levels are looked at.
//!
//! A complete frame can look like that by chance, once in 65,536. Completing it again changes nothing: a field that
//! is right and equals the pseudo-header's sum is its own completion. But a frame that was damaged on a wire might
//! be "repaired" so; hence this is asked of local peers only, where there is no wire.

use crate::checksum::Sum;
use crate::offload::Checksum;

const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;

/// The EtherType by which GRE and Geneve say that they carry an Ethernet frame.
const FRAME: u16 = 0x6558;

/// Reads the frame's headers from its first bytes: Ethernet, up to two VLAN tags, IPv4 or IPv6, TCP or UDP; and the
/// same again inside a VXLAN, Geneve or GRE tunnel.
#[inline]
pub(super) fn partial_checksum(head: &[u8]) -> Checksum {
    let (start, offset) = match find(head) {
        Found::Partial(start, offset) => (start, offset),
        Found::Tunnel(inner) => match head.get(inner..).map(find) {
            Some(Found::Partial(start, offset)) => (inner + start, offset),
            _ => return Checksum::None,
        },
        Found::Nothing => return Checksum::None,
    };
    Checksum::Partial { start: start as u16, offset }
}

/// What a look at one level of headers found.
enum Found {
    /// A partial checksum: where summing begins, and where the field lies after that.
    Partial(usize, u16),
    /// A complete datagram with an Ethernet frame in it, here.
    Tunnel(usize),
    Nothing,
}

#[inline]
fn find(head: &[u8]) -> Found {
    look(head).unwrap_or(Found::Nothing)
}

#[inline]
fn look(head: &[u8]) -> Option<Found> {
    let mut network = 14;
    let mut kind = word(head, 12)?;
    while matches!(kind, 0x8100 | 0x88a8) && network < 22 {
        kind = word(head, network + 2)?;
        network += 4;
    }
    let mut sum = Sum::default();
    let (protocol, transport) = match kind {
        0x0800 => {
            let header = head.get(network..network + 20)?;
            let length = usize::from(header[0] & 15) * 4;
            // Of a fragment only the whole has a checksum.
            if header[0] >> 4 != 4 || length < 20 || word(header, 6)? & 0x3fff != 0 {
                return None;
            }
            sum.add(&header[12..20]);
            sum.add_word(word(header, 2)?.checked_sub(length as u16)?);
            (header[9], network + length)
        }
        0x86dd => {
            let header = head.get(network..network + 40)?;
            sum.add(&header[8..40]);
            sum.add_word(word(header, 4)?);
            (header[6], network + 40)
        }
        _ => return None,
    };
    let offset = match protocol {
        TCP => 16,
        UDP => 6,
        GRE => return gre(head, transport),
        _ => return None,
    };
    sum.add_word(u16::from(protocol));
    let field = head.get(transport + offset..transport + offset + 2)?;
    if field == sum.partial() {
        return Some(Found::Partial(transport, offset as u16));
    }
    if protocol == UDP { tunnel(head, transport) } else { None }
}

/// The Ethernet frame in a datagram that looks like Geneve's (RFC 8926, section 3.4) or VXLAN's (RFC 7348, section 5),
/// to whatever port: either can be had at another than its own.
#[inline]
fn tunnel(head: &[u8], transport: usize) -> Option<Found> {
    let payload = transport + 8;
    match (*head.get(payload)?, word(head, payload + 2)?) {
        // Options in words of four bytes.
        (first, FRAME) if first >> 6 == 0 => Some(Found::Tunnel(payload + 8 + usize::from(first & 0x3f) * 4)),
        (flags, _) if flags & 0x08 != 0 => Some(Found::Tunnel(payload + 8)),
        _ => None,
    }
}

/// The Ethernet frame behind a GRE header without a checksum of its own: NVGRE (RFC 7637), and others with a key or
/// a sequence number (RFC 2890).
#[inline]
fn gre(head: &[u8], transport: usize) -> Option<Found> {
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    let flags = word(head, transport)?;
    let options = (flags & (KEY | SEQUENCE)).count_ones() as usize;
    let carries_frame = flags & !(KEY | SEQUENCE) == 0 && word(head, transport + 2)? == FRAME;
    carries_frame.then_some(Found::Tunnel(transport + 4 + options * 4))
}

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gather::complete;

    /// What a kernel sends for one UDP byte over IPv4: pseudo-header sum 0x1432 + … in the field.
    fn udp4() -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([0x08, 0]);
        frame.extend([0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x30, 0x39, 0, 53, 0, 9, 0x14, 0x1d]); // 0a00+0001+0a00+0002+0011+0009 = 0x141d
        frame.push(0x61);
        frame
    }

    fn udp6() -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 9, 17, 64]);
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        frame.extend([0x30, 0x39, 0, 53, 0, 9, 0xfa, 0x1e]); // fd00+1+fd00+2+11+9 = 0x1fa1d, folded fa1e
        frame.push(0x61);
        frame
    }

    #[test]
    fn partial_frames_are_recognised_with_and_without_tags() {
        assert_eq!(partial_checksum(&udp4()), Checksum::Partial { start: 34, offset: 6 });
        assert_eq!(partial_checksum(&udp6()), Checksum::Partial { start: 54, offset: 6 });
        let mut tagged = udp4();
        tagged.splice(12..12, [0x88, 0xa8, 0, 7, 0x81, 0, 0, 9]);
        assert_eq!(partial_checksum(&tagged), Checksum::Partial { start: 42, offset: 6 });
    }

    #[test]
    fn the_inner_checksum_of_a_tunnel_is_found() {
        for (port, tunnel) in [
            (4789, vec![8, 0, 0, 0, 0, 0, 5, 0]),
            (4790, vec![0x88, 0, 0x65, 0x58, 0, 0, 5, 0]),
            (6081, vec![1, 0, 0x65, 0x58, 0, 0, 5, 0, 1, 2, 3, 4]),
        ] {
            let mut frame = udp4();
            frame[36..38].copy_from_slice(&u16::to_be_bytes(port));
            frame[40..42].fill(0); // no outer checksum
            frame.truncate(42);
            frame.extend(&tunnel);
            frame.extend(udp6());
            let start = (42 + tunnel.len() + 54) as u16;
            assert_eq!(partial_checksum(&frame), Checksum::Partial { start, offset: 6 });
            for cut in 42..frame.len() - 3 {
                assert_eq!(partial_checksum(&frame[..cut]), Checksum::None, "cut at {cut}");
            }
        }
    }

    #[test]
    fn the_inner_checksum_behind_gre_is_found() {
        let packet = |header: &[u8]| {
            let mut frame = udp4();
            frame[23] = GRE;
            frame.truncate(34);
            frame.extend(header);
            frame.extend(udp6());
            frame
        };
        let key = [0x20, 0, 0x65, 0x58, 0, 0x13, 0x89, 0x26];
        let sequence = [0x30, 0, 0x65, 0x58, 0, 0x13, 0x89, 0x26, 0, 0, 0, 1];
        for header in [&[0, 0, 0x65, 0x58][..], &key, &sequence] {
            let start = (34 + header.len() + 54) as u16;
            assert_eq!(partial_checksum(&packet(header)), Checksum::Partial { start, offset: 6 });
        }
        for other in [[0x20, 1, 0x65, 0x58], [0xa0, 0, 0x65, 0x58], [0x20, 0, 0x08, 0x00]] {
            let header = [&other[..], &key[4..]].concat();
            assert_eq!(partial_checksum(&packet(&header)), Checksum::None, "{other:x?}");
        }
    }

    #[test]
    fn complete_frames_and_others_are_left_alone() {
        for (mut frame, start) in [(udp4(), 34), (udp6(), 54)] {
            complete(&mut frame, start, 6);
            assert_eq!(partial_checksum(&frame), Checksum::None);
        }
        let mut fragment = udp4();
        fragment[20] = 0x20;
        assert_eq!(partial_checksum(&fragment), Checksum::None);
        let mut sctp = udp4();
        sctp[23] = 132;
        assert_eq!(partial_checksum(&sctp), Checksum::None);
        for cut in 0..udp6().len() - 1 {
            assert_eq!(partial_checksum(&udp6()[..cut.min(61)]), Checksum::None, "cut at {cut}");
        }
    }

    /// A right checksum that happens to equal the pseudo-header's sum survives completion.
    #[test]
    fn a_coincidence_is_harmless() {
        let mut frame = udp4();
        // Choose the port so that the datagram's sum is the complement of twice the pseudo-header's sum.
        for port in 0..=u16::MAX {
            frame[34..36].copy_from_slice(&port.to_be_bytes());
            let mut done = frame.clone();
            complete(&mut done, 34, 6);
            if done[40..42] == frame[40..42] {
                let mut again = done.clone();
                assert!(matches!(partial_checksum(&done), Checksum::Partial { .. }));
                complete(&mut again, 34, 6);
                assert_eq!(again, done);
                return;
            }
        }
        panic!("no such port");
    }
}
