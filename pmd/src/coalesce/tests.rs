//! What is joined, what is not, and what comes of it.

use super::*;
use crate::batch::RxMemory;
use crate::gather::Burst;
use crate::segment::Train;

/// A TCP segment of these tests.
#[derive(Clone, Debug)]
struct Frame {
    bytes: Vec<u8>,
    offload: Offload,
    ipv6: bool,
}

impl Frame {
    fn network(&self) -> usize {
        network_header(&self.bytes).unwrap()
    }

    fn transport(&self) -> usize {
        self.network() + if self.ipv6 { 40 } else { 20 }
    }

    /// Changes a byte and makes the checksums right again.
    fn with(mut self, at: impl Fn(&Frame) -> usize, value: u8) -> Frame {
        let at = at(&self);
        self.bytes[at] = value;
        self.complete()
    }

    fn complete(mut self) -> Frame {
        let (network, transport) = (self.network(), self.transport());
        let length = self.bytes.len() - transport;
        if self.ipv6 {
            self.bytes[network + 4..network + 6].copy_from_slice(&(length as u16).to_be_bytes());
        } else {
            self.bytes[network + 2..network + 4].copy_from_slice(&(length as u16 + 20).to_be_bytes());
            self.bytes[network + 10..network + 12].fill(0);
            let sum = of(&self.bytes[network..transport]);
            self.bytes[network + 10..network + 12].copy_from_slice(&sum);
        }
        self.bytes[transport + 16..transport + 18].fill(0);
        let mut sum = pseudo_header(&self.bytes[network..], TCP, length as u16).unwrap();
        sum.add(&self.bytes[transport..]);
        self.bytes[transport + 16..transport + 18].copy_from_slice(&sum.finish());
        self
    }
}

/// Bytes `from..from + len` of stream `port`.
fn segment(ipv6: bool, port: u8, from: u32, len: usize) -> Frame {
    let mut bytes = vec![2; 12];
    if ipv6 {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 7, 0, 0, TCP, 64]);
        bytes.extend([0xfd; 32]);
    } else {
        let id = (from / 1000) as u16;
        bytes.extend([0x08, 0x00, 0x45, 0, 0, 0, (id >> 8) as u8, id as u8, 0, 0, 64, TCP, 0, 0]);
        bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    }
    bytes.extend([0x30, port, 0, 80]);
    bytes.extend(0xffff_f000u32.wrapping_add(from).to_be_bytes());
    bytes.extend([0, 0, 0, 9, 8 << 4, ACK, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 6]);
    bytes.extend((from..from + len as u32).map(|i| (i % 251) as u8));
    Frame { bytes, offload: Offload::NONE, ipv6 }.complete()
}

/// What is sent of frames, by their numbers: those that were joined together, with the train's size.
type Sent = Vec<(Vec<usize>, Option<u16>)>;

/// Coalesces frames for a port that takes everything; checks that cutting gives back what was put in.
fn sent(frames: &[Frame]) -> Sent {
    let mut memory = RxMemory::new();
    let (mut batch, mut scratch) = memory.lend();
    for frame in frames {
        let place = scratch.take(frame.bytes.len());
        place.copy_from_slice(&frame.bytes);
        batch.push_private(place, 0, frame.offload);
    }
    let mut items: Vec<_> = (0..frames.len()).map(|i| TxItem::whole(&batch, i, true)).collect();
    let mut prefixes = Prefixes::default();
    let gone = coalesce(&batch, &mut items, &mut prefixes, Features::VIRTIO);
    assert_eq!(items.len() + gone as usize, frames.len());
    let mut cut = Vec::new();
    let mut places: Vec<_> = items.iter().map(|item| prefixes.part(&batch, *item)).collect();
    let counts: Vec<_> = items
        .iter()
        .zip(&mut places)
        .map(|(item, part)| {
            let first = item.frame();
            if part.offload.has_gso() && frames[first].offload.gso.is_none() {
                let flat = {
                    let burst =
                        Burst::new(&mut batch, std::slice::from_ref(item), &prefixes, Features::VIRTIO);
                    let mut flat = vec![0; part.total()];
                    assert_eq!(burst.copy_to(0, &mut flat), Some(part.total()));
                    flat
                };
                cut.extend(segments(&flat, part.offload.unpack()));
            } else {
                cut.push(wire(&frames[first]));
            }
            (first, part.offload.unpack().gso.map(|gso| gso.size))
        })
        .collect();
    // Each frame that was put in came out once; those of one stream in order.
    let mut numbers: Vec<usize> = Vec::new();
    for bytes in &cut {
        let number = (0..frames.len())
            .find(|i| !numbers.contains(i) && wire(&frames[*i]) == *bytes)
            .unwrap_or_else(|| panic!("not what was put in: {bytes:?}"));
        numbers.push(number);
    }
    assert_eq!(numbers.len(), frames.len());
    let mut all = numbers.into_iter().peekable();
    let firsts: Vec<_> = counts.iter().map(|(first, _)| *first).collect();
    counts
        .into_iter()
        .map(|(first, size)| {
            let mut run = vec![all.next().unwrap()];
            assert_eq!(run[0], first);
            while all.peek().is_some_and(|number| size.is_some() && !firsts.contains(number)) {
                run.extend(all.next());
            }
            (run, size)
        })
        .collect()
}

/// A frame as it goes on a wire.
fn wire(frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.bytes.clone();
    if let Checksum::Partial { start, offset } = frame.offload.checksum {
        crate::gather::complete(&mut bytes, start, offset);
    }
    bytes
}

/// Cuts a train.
fn segments(train: &[u8], offload: Offload) -> Vec<Vec<u8>> {
    let mut memory = RxMemory::new();
    let (mut batch, mut scratch) = memory.lend();
    let place = scratch.take(train.len());
    place.copy_from_slice(train);
    batch.push_private(place, 0, offload);
    let mut prefixes = Prefixes::default();
    let mut train = Train::new(batch.head(0), 0, Part::whole(&batch, 0)).unwrap();
    let mut items = Vec::new();
    while let Some(item) = train.next(&mut prefixes).unwrap() {
        items.push(item);
    }
    let burst = Burst::new(&mut batch, &items, &prefixes, Features::NONE);
    (0..burst.len())
        .map(|i| {
            let mut bytes = vec![0; burst.item(i).total()];
            burst.copy_to(i, &mut bytes).unwrap();
            bytes
        })
        .collect()
}

fn joined(numbers: &[usize]) -> (Vec<usize>, Option<u16>) {
    (numbers.to_vec(), Some(1000))
}

fn alone(number: usize) -> (Vec<usize>, Option<u16>) {
    (vec![number], None)
}

/// The checksum left to whoever sends the frame.
fn partial(mut frame: Frame) -> Frame {
    let (network, transport) = (frame.network(), frame.transport());
    let length = (frame.bytes.len() - transport) as u16;
    let sum = pseudo_header(&frame.bytes[network..], TCP, length).unwrap().partial();
    frame.bytes[transport + 16..transport + 18].copy_from_slice(&sum);
    frame.offload.checksum = Checksum::Partial { start: transport as u16, offset: 16 };
    frame
}

#[test]
fn segments_of_a_stream_become_one_train() {
    for ipv6 in [false, true] {
        let full = |i: u32| segment(ipv6, 1, i * 1000, 1000);
        let pushed = |i: u32, len| segment(ipv6, 1, i * 1000, len).with(|f| f.transport() + 13, ACK | PSH);
        assert_eq!(sent(&[full(0), full(1), full(2)]), [joined(&[0, 1, 2])]);
        let with_end = [full(0), full(1), pushed(2, 300), full(3), full(4)];
        // What is behind a short one does not go on where it ended.
        assert_eq!(sent(&with_end), [joined(&[0, 1, 2]), joined(&[3, 4])]);
        assert_eq!(sent(&[full(0), pushed(1, 1000), full(2)]), [joined(&[0, 1]), alone(2)]);
        assert_eq!(sent(&[partial(full(0)), full(1), partial(full(2))]), [joined(&[0, 1, 2])]);
        let mut tagged = [full(0), full(1)];
        for frame in &mut tagged {
            frame.bytes.splice(12..12, [0x81, 0, 0, 7]);
        }
        assert_eq!(sent(&tagged), [joined(&[0, 1])]);
    }
}

#[test]
fn streams_that_are_mixed_are_joined_each_for_itself_and_none_changes_its_order() {
    let of = |port, i: u32| segment(false, port, i * 1000, 1000);
    let mixed = [of(1, 0), of(2, 0), of(1, 1), of(3, 0), of(2, 1), of(1, 2)];
    assert_eq!(sent(&mixed), [joined(&[0, 2, 5]), joined(&[1, 4]), alone(3)]);
    // More streams than are gathered at once.
    let many: Vec<_> = (0..2).flat_map(|i| (1..=6).map(move |port| of(port, i))).collect();
    assert_eq!(sent(&many).iter().map(|(run, _)| run.len()).sum::<usize>(), 12);
    let acknowledgement = segment(false, 1, 2000, 0);
    let around = [of(1, 0), of(1, 1), acknowledgement, of(1, 2), of(1, 3)];
    assert_eq!(sent(&around), [joined(&[0, 1]), alone(2), joined(&[3, 4])]);
}

#[test]
fn what_differs_in_anything_that_counts_stays_alone() {
    for ipv6 in [false, true] {
        let first = segment(ipv6, 1, 0, 1000);
        let second = segment(ipv6, 1, 1000, 1000);
        assert_eq!(sent(&[first.clone(), second.clone()]), [joined(&[0, 1])]);
        let mut changes: Vec<(&str, Frame)> = vec![
            ("a gap", segment(ipv6, 1, 2000, 1000)),
            ("the same again", first.clone()),
            ("longer than the first", segment(ipv6, 1, 1000, 1001)),
            ("an Ethernet address", second.clone().with(|_| 3, 9)),
        ];
        let transport =
            [(3, "port"), (11, "acknowledgement"), (14, "window"), (19, "urgent"), (27, "timestamp")];
        for (at, what) in transport {
            changes.push((what, second.clone().with(|f| f.transport() + at, 99)));
        }
        for flags in [ACK | 1, ACK | 2, ACK | 4, ACK | 0x20, ACK | 0x40, ACK | 0x80, 0] {
            changes.push(("flags", second.clone().with(|f| f.transport() + 13, flags)));
        }
        let (ttl, class) = if ipv6 { (7, 0) } else { (8, 1) };
        changes.push(("TTL", second.clone().with(|f| f.network() + ttl, 63)));
        changes.push(("class", second.clone().with(|f| f.network() + class, if ipv6 { 0x62 } else { 3 })));
        if ipv6 {
            changes.push(("flow label", second.clone().with(|f| f.network() + 3, 9)));
        } else {
            changes.push(("DF", second.clone().with(|f| f.network() + 6, 0x40)));
            changes.push(("identification", second.clone().with(|f| f.network() + 5, 7)));
        }
        let mut wrong = second.clone();
        wrong.bytes[500] ^= 1;
        changes.push(("a wrong checksum", wrong));
        let mut train = partial(second.clone());
        let kind = if ipv6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
        train.offload.gso = Some(Gso { kind, size: 500, ecn: false });
        for (what, frame) in changes {
            assert_eq!(sent(&[first.clone(), frame.clone()]), [alone(0), alone(1)], "{what}");
            assert_eq!(
                sent(&[frame, second.clone()]).len(),
                if what == "the same again" { 1 } else { 2 },
                "{what}"
            );
        }
        let uncut = sent(&[first.clone(), train.clone()]);
        assert_eq!(uncut, [alone(0), (vec![1], Some(500))], "a train is not joined");
    }
}

#[test]
fn with_df_identifications_do_not_count() {
    let df = |i: u32, id| segment(false, 1, i * 1000, 1000).with(|_| 20, 0x40).with(|_| 19, id);
    let mut frames = [df(0, 7), df(1, 7), df(2, 3)];
    let mut memory = RxMemory::new();
    let (mut batch, mut scratch) = memory.lend();
    for frame in &mut frames {
        let place = scratch.take(frame.bytes.len());
        place.copy_from_slice(&frame.bytes);
        batch.push_private(place, 0, frame.offload);
    }
    let mut items: Vec<_> = (0..3).map(|i| TxItem::whole(&batch, i, true)).collect();
    assert_eq!(coalesce(&batch, &mut items, &mut Prefixes::default(), Features::VIRTIO), 2);
}

#[test]
fn padding_is_no_payload_and_lent_bytes_are_not_summed() {
    let full = |i: u32| segment(false, 1, i * 1000, 1000);
    let mut padded = full(1);
    padded.bytes.extend([0; 4]);
    assert_eq!(sent(&[full(0), padded]), [alone(0), alone(1)]);

    let (first, second) = (full(0), full(1));
    for (checksum, gone) in [(Checksum::None, 0), (Checksum::Verified, 1)] {
        let mut memory = RxMemory::new();
        let (mut batch, mut scratch) = memory.lend();
        for frame in [&first, &second] {
            let head = scratch.take(200);
            head.copy_from_slice(&frame.bytes[..200]);
            batch.push_private(head, 0, Offload { checksum, ..Offload::NONE });
            batch.append_lent(&frame.bytes[200..]);
        }
        let mut items: Vec<_> = (0..2).map(|i| TxItem::whole(&batch, i, true)).collect();
        let mut prefixes = Prefixes::default();
        assert_eq!(coalesce(&batch, &mut items, &mut prefixes, Features::VIRTIO), gone, "{checksum:?}");
    }
}

#[test]
fn a_port_gets_what_it_takes_and_no_train_is_too_long() {
    let mut memory = RxMemory::new();
    let (mut batch, mut scratch) = memory.lend();
    for i in 0..64 {
        let frame = segment(false, 1, i * 1400, 1400).with(|_| 20, 0x40);
        let place = scratch.take(frame.bytes.len());
        place.copy_from_slice(&frame.bytes);
        batch.push_private(place, 0, frame.offload);
    }
    let all: Vec<_> = (0..64).map(|i| TxItem::whole(&batch, i, true)).collect();
    for (features, left) in [
        (Features::NONE, 64),
        (Features::VIRTIO.without(Features::TSO4), 64),
        (Features::VIRTIO.without(Features::CHECKSUM), 64),
        (Features::VIRTIO, 2),
    ] {
        let (mut items, mut prefixes) = (all.clone(), Prefixes::default());
        coalesce(&batch, &mut items, &mut prefixes, features);
        assert_eq!(items.len(), left, "{features:?}");
        let totals: Vec<_> = items.iter().map(|item| prefixes.part(&batch, *item).total()).collect();
        assert!(totals.iter().all(|total| *total <= 65_535 + 14), "{totals:?}");
    }
}
