//! Segmentation: a train becomes frames that fit the wire.
//!
//! The one place where the switch does what a kernel or a NIC calls GSO. A segment is a header of its own
//! (in the burst's [`Prefixes`]) and a range of the train's payload, which is not copied here; its checksum
//! stays partial and is completed where the bytes are copied. Called by the worker for an out port that
//! cannot take the train.

use crate::batch::HEAD;
use crate::checksum::{Sum, of};
use crate::gather::{Part, Prefixes, TxItem};
use crate::offload::{Checksum, Gso, GsoKind, Offload};

/// Why a train cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The headers are not where the metadata says, or not in the frame's private head.
    #[error("the offload metadata contradicts the headers")]
    BadOffload,
    /// A segment would be longer than the length fields of its headers can say.
    #[error("a segment would be longer than an IP packet can be")]
    TooLong,
    /// The burst has no room left for another header.
    #[error("no room for another header in this burst")]
    NoRoom,
}

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Where a train's headers lie, in the outgoing frame.
#[derive(Debug)]
struct Layout {
    network: usize,
    transport: usize,
    /// The first payload byte.
    payload: usize,
    ipv6: bool,
}

/// Bytes of an IPv6 header without extensions.
const IPV6_HEADER: usize = 40;

/// The longest header that is copied in front of each segment.
const MAX_HEADER: usize = HEAD;

/// The most segments of one train. Linux goes down to an MSS of 88, which makes 745 of 64 KB.
const MAX_SEGMENTS: usize = 1024;

/// A train on its way to become segments, one at a time.
///
/// Header fields change as RFC 9293 (TCP) and RFC 768 (UDP) ask: lengths, the IPv4 identification
/// (RFC 791), the sequence number, FIN and PSH on the last segment only, CWR on the first only (RFC 3168,
/// section 6.1.2).
#[derive(Debug)]
pub struct Train {
    header: [u8; MAX_HEADER],
    layout: Layout,
    gso: Gso,
    /// The frame of the batch that it lies in.
    frame: u16,
    /// The train as one outgoing frame.
    train: Part,
    next: usize,
    count: usize,
}

impl Train {
    /// Looks at the train that `train` of frame `frame` is, whose outgoing bytes begin with `head`.
    ///
    /// # Errors
    /// The metadata contradicts the headers, or asks for segments that cannot be.
    pub fn new(head: &[u8], frame: usize, train: Part) -> Result<Train, SegmentError> {
        let (layout, gso) = layout(head, train.total(), train.offload.unpack())?;
        let count = (train.total() - layout.payload).div_ceil(gso.size as usize);
        if layout.payload > MAX_HEADER || count > MAX_SEGMENTS {
            return Err(SegmentError::BadOffload);
        }
        let mut header = [0; MAX_HEADER];
        header[..layout.payload].copy_from_slice(&head[..layout.payload]);
        let train = Train { header, layout, gso, frame: frame as u16, train, next: 0, count };
        // IPv4 counts its own header, IPv6 what follows it.
        let counted_from = train.layout.network + if train.layout.ipv6 { IPV6_HEADER } else { 0 };
        if train.longest() - counted_from > u16::MAX as usize {
            return Err(SegmentError::TooLong);
        }
        Ok(train)
    }

    /// How many segments it becomes in all.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the headers in front of each segment's payload.
    pub fn header_len(&self) -> usize {
        self.layout.payload
    }

    /// The longest segment in bytes.
    pub fn longest(&self) -> usize {
        self.train.total().min(self.layout.payload + self.gso.size as usize)
    }

    /// The next segment; `None` after the last one.
    ///
    /// # Errors
    /// `prefixes` has no room for its header; make some and ask again.
    pub fn next(&mut self, prefixes: &mut Prefixes) -> Result<Option<TxItem>, SegmentError> {
        if self.next == self.count {
            return Ok(None);
        }
        let size = self.gso.size as usize;
        let from = self.layout.payload + self.next * size;
        let payload = size.min(self.train.total() - from);
        let prefix = prefixes.push(&self.header[..self.layout.payload]).ok_or(SegmentError::NoRoom)?;
        let last = self.next + 1 == self.count;
        rewrite(prefixes.get_mut(prefix), &self.layout, self.gso, self.next, payload, last);
        self.next += 1;
        let offset = if self.gso.kind == GsoKind::Udp { 6 } else { 16 };
        let checksum = Checksum::Partial { start: self.layout.transport as u16, offset };
        let part = Part {
            prefix,
            from: from as u32 + self.train.from - self.train.prefix.len() as u32,
            len: payload as u32,
            offload: Offload { checksum, ..Offload::NONE }.into(),
        };
        prefixes.add(self.frame, part).ok_or(SegmentError::NoRoom).map(Some)
    }
}

/// Finds the headers and checks that they say what the metadata says. Positions come from the frame's
/// own headers, never from a length that a guest claims.
fn layout(head: &[u8], len: usize, offload: Offload) -> Result<(Layout, Gso), SegmentError> {
    let bad = SegmentError::BadOffload;
    let (Some(gso), Checksum::Partial { start, .. }) = (offload.gso, offload.checksum) else {
        return Err(bad);
    };
    if gso.size == 0 || offload.outer.is_some() {
        return Err(bad);
    }
    let mut network = 14;
    let mut ethertype = word(head, 12).ok_or(bad)?;
    while matches!(ethertype, 0x8100 | 0x88a8) && network < 22 {
        ethertype = word(head, network + 2).ok_or(bad)?;
        network += 4;
    }
    let transport = start as usize;
    let protocol = if gso.kind == GsoKind::Udp { 17 } else { 6 };
    let ipv6 = match (ethertype, gso.kind) {
        (0x0800, GsoKind::Tcp4 | GsoKind::Udp) => false,
        (0x86dd, GsoKind::Tcp6 | GsoKind::Udp) => true,
        _ => return Err(bad),
    };
    if ipv6 {
        // Extension headers may stand between; the last "next header" before the transport is not
        // looked up again, since only the position counts here.
        if transport < network + 40 {
            return Err(bad);
        }
        if transport == network + 40 && *head.get(network + 6).ok_or(bad)? != protocol {
            return Err(bad);
        }
    } else {
        let first = *head.get(network).ok_or(bad)?;
        if transport != network + usize::from(first & 0x0f) * 4
            || *head.get(network + 9).ok_or(bad)? != protocol
        {
            return Err(bad);
        }
        if transport < network + 20 {
            return Err(bad);
        }
    }
    let header = match gso.kind {
        GsoKind::Udp => 8,
        GsoKind::Tcp4 | GsoKind::Tcp6 => usize::from(*head.get(transport + 12).ok_or(bad)? >> 4) * 4,
    };
    let payload = transport + header;
    if header < 8 || (gso.kind != GsoKind::Udp && header < 20) || payload > head.len() || payload >= len {
        return Err(bad);
    }
    Ok((Layout { network, transport, payload, ipv6 }, gso))
}

/// Writes the header of a segment, whose lengths [`Train::new`] found to fit.
fn rewrite(header: &mut [u8], layout: &Layout, gso: Gso, number: usize, payload: usize, last: bool) {
    let Layout { network, transport, ipv6, .. } = *layout;
    let after_network = (layout.payload - transport + payload) as u16;
    let mut pseudo = Sum::default();
    if ipv6 {
        let length = after_network + (transport - network - 40) as u16;
        header[network + 4..network + 6].copy_from_slice(&length.to_be_bytes());
        pseudo.add(&header[network + 8..network + 40]);
    } else {
        let length = after_network + (transport - network) as u16;
        header[network + 2..network + 4].copy_from_slice(&length.to_be_bytes());
        let id = u16::from_be_bytes([header[network + 4], header[network + 5]]).wrapping_add(number as u16);
        header[network + 4..network + 6].copy_from_slice(&id.to_be_bytes());
        header[network + 10..network + 12].fill(0);
        let sum = of(&header[network..transport]);
        header[network + 10..network + 12].copy_from_slice(&sum);
        pseudo.add(&header[network + 12..network + 20]);
    }
    pseudo.add_word(after_network);
    if gso.kind == GsoKind::Udp {
        pseudo.add_word(17);
        header[transport + 4..transport + 6].copy_from_slice(&after_network.to_be_bytes());
        header[transport + 6..transport + 8].copy_from_slice(&pseudo.partial());
        return;
    }
    pseudo.add_word(6);
    let at = transport + 4;
    let sequence = u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let sequence = sequence.wrapping_add((number * gso.size as usize) as u32);
    header[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
    if !last {
        header[transport + 13] &= !(FIN | PSH);
    }
    if number > 0 {
        header[transport + 13] &= !CWR;
    }
    header[transport + 16..transport + 18].copy_from_slice(&pseudo.partial());
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::RxMemory;
    use crate::gather::Burst;
    use crate::offload::Features;

    fn train(ipv6: bool, udp: bool, payload: usize) -> (Vec<u8>, Offload) {
        let mut frame = vec![2u8; 12];
        let transport_len = if udp { 8 } else { 32 };
        if ipv6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, if udp { 17 } else { 6 }, 64]);
            frame.extend([0xfd; 32]);
        } else {
            frame.extend([
                0x08,
                0x00,
                0x45,
                0,
                0,
                0,
                0xff,
                0xff,
                0x40,
                0,
                64,
                if udp { 17 } else { 6 },
                0,
                0,
            ]);
            frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        }
        let transport = frame.len();
        let mut header = vec![0u8; transport_len];
        header[..4].copy_from_slice(&[0x30, 0x39, 0, 80]);
        if !udp {
            header[4..8].copy_from_slice(&0xffff_ff00u32.to_be_bytes());
            header[12] = 8 << 4;
            header[13] = FIN | PSH | CWR | 0x10;
        }
        frame.extend(header);
        frame.extend((0..payload).map(|i| (i % 253) as u8));
        let kind = match (udp, ipv6) {
            (true, _) => GsoKind::Udp,
            (false, true) => GsoKind::Tcp6,
            (false, false) => GsoKind::Tcp4,
        };
        let checksum = Checksum::Partial { start: transport as u16, offset: if udp { 6 } else { 16 } };
        (frame, Offload { checksum, gso: Some(Gso { kind, size: 1000, ecn: false }), outer: None })
    }

    fn cut(frame: &[u8], head: usize, offload: Offload) -> Result<Vec<Vec<u8>>, SegmentError> {
        let mut memory = RxMemory::new();
        let (mut batch, mut scratch) = memory.lend();
        let bytes = scratch.take(head);
        bytes.copy_from_slice(&frame[..head]);
        batch.push_private(bytes, 0, offload);
        batch.append_lent(&frame[head..]);
        let mut prefixes = Prefixes::default();
        let mut items = Vec::new();
        let mut train = Train::new(batch.head(0), 0, Part::whole(&batch, 0))?;
        while let Some(item) = train.next(&mut prefixes)? {
            items.push(item);
        }
        assert_eq!(items.len(), train.count());
        let burst = Burst::new(&mut batch, &items, &prefixes, Features::NONE);
        Ok((0..burst.len())
            .map(|i| {
                let mut bytes = vec![0; burst.item(i).total()];
                burst.copy_to(i, &mut bytes).unwrap();
                bytes
            })
            .collect())
    }

    fn verify(frame: &[u8], ipv6: bool, udp: bool) {
        let transport = if ipv6 { 54 } else { 34 };
        let length = (frame.len() - transport) as u16;
        let mut sum = Sum::default();
        if ipv6 {
            assert_eq!(word(frame, 18).unwrap(), length);
            sum.add(&frame[22..54]);
        } else {
            assert_eq!(word(frame, 16).unwrap(), length + 20);
            assert_eq!(of(&frame[14..34]), [0, 0], "IPv4 header checksum");
            sum.add(&frame[26..34]);
        }
        sum.add_word(if udp { 17 } else { 6 });
        sum.add_word(length);
        sum.add(&frame[transport..]);
        assert_eq!(sum.finish(), [0, 0], "transport checksum");
    }

    #[test]
    fn every_segment_is_a_right_frame() {
        for (ipv6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
            let (frame, offload) = train(ipv6, udp, 2500);
            let segments = cut(&frame, 100, offload).unwrap();
            assert_eq!(segments.len(), 3);
            let transport = if ipv6 { 54 } else { 34 };
            let header = transport + if udp { 8 } else { 32 };
            let mut joined = frame[..header].to_vec();
            for (number, segment) in segments.iter().enumerate() {
                verify(segment, ipv6, udp);
                joined.extend_from_slice(&segment[header..]);
                if udp {
                    continue;
                }
                let at = transport + 4;
                let sequence = u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
                assert_eq!(sequence, 0xffff_ff00u32.wrapping_add(number as u32 * 1000));
                let flags = segment[transport + 13];
                assert_eq!(flags & (FIN | PSH), if number == 2 { FIN | PSH } else { 0 });
                assert_eq!(flags & CWR, if number == 0 { CWR } else { 0 });
                if !ipv6 {
                    assert_eq!(word(segment, 18), Some(0xffffu16.wrapping_add(number as u16)));
                }
            }
            assert!(joined == frame, "payload in order");
        }
    }

    #[test]
    fn lies_are_refused() {
        let (frame, offload) = train(false, false, 3000);
        let gso = offload.gso.unwrap();
        let with = |gso, checksum| Offload { gso: Some(gso), checksum, outer: None };
        for wrong in [
            with(Gso { size: 0, ..gso }, offload.checksum),
            with(Gso { kind: GsoKind::Tcp6, ..gso }, offload.checksum),
            with(Gso { kind: GsoKind::Udp, ..gso }, offload.checksum),
            with(gso, Checksum::None),
            with(gso, Checksum::Partial { start: 33, offset: 16 }),
            with(gso, Checksum::Partial { start: 65535, offset: 16 }),
        ] {
            assert_eq!(cut(&frame, 100, wrong), Err(SegmentError::BadOffload), "{wrong:?}");
        }
        assert_eq!(cut(&frame, 60, offload), Err(SegmentError::BadOffload), "header outside the head");
        assert_eq!(cut(&frame[..66], 66, offload), Err(SegmentError::BadOffload), "no payload");
    }

    #[test]
    fn a_segment_longer_than_its_length_fields_can_say_is_refused() {
        for (ipv6, udp, longest) in
            [(false, false, 65_535 - 52), (true, false, 65_535 - 32), (false, true, 65_535 - 28)]
        {
            for (payload, expected) in [(longest, Ok(1)), (longest + 1, Err(SegmentError::TooLong))] {
                let (frame, mut offload) = train(ipv6, udp, payload);
                offload.gso = offload.gso.map(|gso| Gso { size: u16::MAX, ..gso });
                let segments = cut(&frame, 100, offload).map(|segments| {
                    segments.iter().for_each(|segment| verify(segment, ipv6, udp));
                    segments.len()
                });
                assert_eq!(segments, expected, "{ipv6} {udp} {payload}");
            }
        }
    }

    #[test]
    fn a_train_of_single_bytes_is_bounded() {
        let (frame, mut offload) = train(false, false, 60_000);
        offload.gso = Some(Gso { kind: GsoKind::Tcp4, size: 1, ecn: false });
        assert_eq!(cut(&frame, 100, offload), Err(SegmentError::BadOffload));
    }
}
