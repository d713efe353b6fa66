//! Trains and their segments: lengths, checksums, levels.

use super::*;
use crate::batch::RxMemory;
use crate::encapsulation::Encapsulation;
use crate::gather::Burst;

fn train(ipv6: bool, udp: bool, payload: usize) -> (Vec<u8>, Offload) {
    let mut frame = vec![2u8; 12];
    let transport_len = if udp { 8 } else { 32 };
    if ipv6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, if udp { 17 } else { 6 }, 64]);
        frame.extend([0xfd; 32]);
    } else {
        frame.extend([0x08, 0x00, 0x45, 0, 0, 0, 0xff, 0xff, 0x40, 0, 64, if udp { 17 } else { 6 }, 0, 0]);
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
    let (field, counted_from) = if ipv6 { (18, 54) } else { (16, 14) };
    let length = (frame.len() - counted_from) as u16;
    frame[field..field + 2].copy_from_slice(&length.to_be_bytes());
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

/// Tunnels of these tests.
#[derive(Clone, Copy, Debug)]
struct Tunnel {
    ipv6: bool,
    gre: bool,
    checksum: bool,
    tagged: bool,
}

const VXLAN: Tunnel = Tunnel { ipv6: false, gre: false, checksum: false, tagged: false };

impl Tunnel {
    fn all() -> Vec<Tunnel> {
        let flags = [false, true];
        let all = flags.iter().flat_map(|ipv6| flags.map(|tagged| Tunnel { ipv6: *ipv6, tagged, ..VXLAN }));
        all.flat_map(|tunnel| [tunnel, Tunnel { checksum: true, ..tunnel }, Tunnel { gre: true, ..tunnel }])
            .collect()
    }

    /// Puts a frame into the tunnel.
    fn wrap(self, frame: &[u8], offload: Offload) -> (Vec<u8>, Offload) {
        let mut header = vec![4u8; 12];
        if self.tagged {
            header.extend([0x81, 0x00, 0, 7]);
        }
        header.extend(if self.ipv6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        let network = header.len();
        let protocol = if self.gre { GRE } else { UDP };
        if self.ipv6 {
            header.extend([0x60, 0, 0, 0, 0, 0, protocol, 64]);
            header.extend([0xfc; 32]);
        } else {
            header.extend([0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
        }
        let transport = header.len();
        if self.gre {
            header.extend([0x20, 0, 0x65, 0x58, 0, 0, 5, 0]);
        } else {
            let length = (16 + frame.len()) as u16;
            header.extend([0xc0, 0, 0x12, 0xb5]);
            header.extend(length.to_be_bytes());
            header.extend([0, 0, 8, 0, 0, 0, 0, 0, 5, 0]);
        }
        let at =
            Encapsulation { network: network as u16, transport: transport as u16, checksum: self.checksum };
        let needed = at.finish(&mut header, frame, offload.into()).unwrap();
        header.extend(frame);
        // As a kernel leaves them: right for the train as a whole.
        let behind = header.len() - transport;
        Ip::read(&header, network).unwrap().rewrite(&mut header, behind, 0);
        (header, needed.unpack())
    }

    /// Checks the outer headers of a frame; gives the frame inside.
    fn unwrap(self, frame: &[u8], number: u16) -> &[u8] {
        let network = if self.tagged { 18 } else { 14 };
        let transport = network + if self.ipv6 { 40 } else { 20 };
        let length = (frame.len() - transport) as u16;
        let mut sum = Sum::default();
        if self.ipv6 {
            assert_eq!(word(frame, network + 4).unwrap(), length);
            sum.add(&frame[network + 8..transport]);
        } else {
            assert_eq!(word(frame, network + 2).unwrap(), length + 20);
            assert_eq!(word(frame, network + 4).unwrap(), 0x1234 + number);
            assert_eq!(of(&frame[network..transport]), [0, 0], "outer IPv4 header checksum");
            sum.add(&frame[network + 12..transport]);
        }
        if self.gre {
            return &frame[transport + 8..];
        }
        assert_eq!(word(frame, transport + 4).unwrap(), length);
        if self.checksum {
            sum.add_word(UDP.into());
            sum.add_word(length);
            sum.add(&frame[transport..]);
            assert_eq!(sum.finish(), [0, 0], "outer UDP checksum");
            assert_ne!(word(frame, transport + 6).unwrap(), 0);
        } else {
            assert_eq!(word(frame, transport + 6).unwrap(), 0);
        }
        &frame[transport + 16..]
    }
}

const KINDS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

#[test]
fn segments_of_a_train_in_a_tunnel_are_right_on_every_level() {
    for ((ipv6, udp), tunnel) in KINDS.iter().flat_map(|kind| Tunnel::all().into_iter().map(|t| (*kind, t))) {
        let (frame, offload) = train(ipv6, udp, 2500);
        let expected = cut(&frame, 100, offload).unwrap();
        let (wrapped, told) = tunnel.wrap(&frame, offload);
        assert!(told.outer.is_some());
        for offload in [told, Offload { outer: None, ..told }] {
            let segments = cut(&wrapped, 192, offload).unwrap();
            assert_eq!(segments.len(), 3);
            for (number, (segment, expected)) in (0..).zip(segments.iter().zip(&expected)) {
                assert!(tunnel.unwrap(segment, number) == expected, "{tunnel:?} {offload:?}");
            }
        }
    }
}

#[test]
fn a_tunnel_in_a_tunnel_is_cut_right_on_every_level() {
    for (outer, middle) in
        Tunnel::all().into_iter().flat_map(|o| Tunnel::all().into_iter().map(move |m| (o, m)))
    {
        let (frame, offload) = train(false, false, 2500);
        let expected = cut(&frame, 100, offload).unwrap();
        let (frame, offload) = middle.wrap(&frame, offload);
        for hidden in [offload, Offload { outer: None, ..offload }] {
            let (wrapped, offload) = outer.wrap(&frame, hidden);
            let segments = cut(&wrapped, 256, offload).unwrap();
            for (number, (segment, expected)) in (0..).zip(segments.iter().zip(&expected)) {
                assert!(middle.unwrap(outer.unwrap(segment, number), number) == expected);
            }
            let lost = Offload { outer: None, ..offload };
            assert!(cut(&wrapped, 256, lost) == Err(SegmentError::BadOffload), "two levels hidden");
        }
    }
}

#[test]
fn a_train_in_a_tunnel_passes_where_it_is_understood() {
    let (frame, offload) = train(false, false, 2500);
    let look = |frame: &[u8], offload: Offload| {
        let mut memory = RxMemory::new();
        let (mut batch, mut scratch) = memory.lend();
        let bytes = scratch.take(frame.len());
        bytes.copy_from_slice(frame);
        batch.push_private(bytes, 0, offload);
        Train::new(batch.head(0), 0, Part::whole(&batch, 0)).unwrap()
    };
    let tunnels = Features::VIRTIO.with(Features::TUNNEL);
    assert!(look(&frame, offload).passes(Features::VIRTIO));
    assert!(look(&frame, offload).found().is_none());
    let (vxlan, told) = VXLAN.wrap(&frame, offload);
    for offload in [told, Offload { outer: None, ..told }] {
        let train = look(&vxlan, offload);
        assert!(train.passes(tunnels) && !train.passes(Features::VIRTIO), "{offload:?}");
        assert!(!train.passes(tunnels.without(Features::CHECKSUM)));
        let named = train.found().map_or(offload, |part| part.offload.unpack());
        assert_eq!(named, told);
    }
    let (nested, twice) = VXLAN.wrap(&vxlan, told);
    assert!(!look(&nested, twice).passes(tunnels), "one level is all that can be said");
    let (gre, told) = Tunnel { gre: true, ..VXLAN }.wrap(&frame, offload);
    assert!(!look(&gre, told).passes(tunnels), "not over UDP");
    let (frame, offload) = train(false, false, 65_535 - 52);
    let (long, told) = VXLAN.wrap(&frame, offload);
    let train = look(&long, told);
    assert!(!train.passes(tunnels), "longer than the outer header can say");
    assert_eq!(train.count(), 66);
}

#[test]
fn lies_about_a_tunnel_are_refused() {
    let (frame, offload) = train(false, false, 2500);
    let (wrapped, told) = VXLAN.wrap(&frame, offload);
    let outer = told.outer.unwrap();
    let with = |outer| Offload { outer: Some(outer), ..told };
    for wrong in [
        with(Outer { network: 18, ..outer }),
        with(Outer { transport: 38, ..outer }),
        with(Outer { inner: 38, ..outer }),
        with(Outer { inner: 60, ..outer }),
        with(Outer { inner: 0xffff, ..outer }),
        Offload { checksum: Checksum::Partial { start: 85, offset: 16 }, outer: None, ..told },
        Offload { checksum: Checksum::Partial { start: 88, offset: 16 }, outer: None, ..told },
    ] {
        assert_eq!(cut(&wrapped, 192, wrong), Err(SegmentError::BadOffload), "{wrong:?}");
    }
    let (gre, told) = Tunnel { gre: true, ..VXLAN }.wrap(&frame, offload);
    for flags in [0x80, 0x10, 0xb0] {
        let mut gre = gre.clone();
        gre[34] |= flags;
        assert_eq!(cut(&gre, 192, told), Err(SegmentError::BadOffload), "a checksum or a sequence number");
    }
    // A length inside that says something else is no sign of an inner header.
    let mut odd = wrapped;
    odd[64 + 3] ^= 1;
    let hidden = Offload { outer: None, ..told };
    assert_eq!(cut(&odd, 192, hidden), Err(SegmentError::BadOffload));
}

#[test]
fn a_single_frame_in_a_tunnel_is_complete_on_both_levels() {
    for ((ipv6, udp), tunnel) in KINDS.iter().flat_map(|kind| Tunnel::all().into_iter().map(|t| (*kind, t))) {
        let (frame, offload) = train(ipv6, udp, 999);
        let [complete] = &cut(&frame, 100, offload).unwrap()[..] else { panic!("one segment") };
        let partial = {
            let mut frame = complete.clone();
            let Checksum::Partial { start, offset } = offload.checksum else { panic!("partial") };
            let ip = Ip::read(&frame, 14).unwrap();
            let sum = ip.pseudo_header(&frame, frame.len() - ip.end).partial();
            frame[usize::from(start + offset)..][..2].copy_from_slice(&sum);
            frame
        };
        let verified = Offload { checksum: Checksum::Verified, ..Offload::NONE };
        let needed = Offload { gso: None, ..offload };
        for (frame, offload) in [(&partial, needed), (complete, Offload::NONE), (complete, verified)] {
            let (mut wrapped, needed) = tunnel.wrap(frame, offload);
            assert_eq!((needed.gso, needed.outer), (None, None));
            if let Checksum::Partial { start, offset } = needed.checksum {
                crate::gather::complete(&mut wrapped, start, offset);
            }
            assert!(tunnel.unwrap(&wrapped, 0) == complete, "{tunnel:?} {offload:?}");
        }
    }
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
