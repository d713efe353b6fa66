//! The frames of a direction: UDP over IPv4 on a number of flows between a number of pairs of addresses, in random
//! order; or one TCP connection's frames of up to 64 KB, to be cut by whoever must.
//!
//! A frame is written anew each time, as words that go straight into the driver's buffer. In front stands the
//! virtio-net header (Virtual I/O Device 1.2, section 5.1.6); behind the headers come a mark, the frame's number and
//! the time at which it was due.

/// Bytes of the virtio-net header.
const HEADER: usize = 12;

/// Words of a frame up to its time, UDP and TCP.
pub const UDP_WORDS: usize = 9;
/// The same of a TCP segment.
pub const TCP_WORDS: usize = 11;

/// By which our frames are known.
const MARK: u16 = 0x5eed;

/// Payload of a segment, for whoever cuts.
const SEGMENT: u16 = 1448;

/// One of the two ends, and the direction away from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first port.
    A,
    /// The second port.
    B,
}

impl Side {
    fn number(self) -> u64 {
        match self {
            Side::A => 0xa,
            Side::B => 0xb,
        }
    }

    fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }
}

/// One frame's addresses.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// The pair of Ethernet addresses, and what follows the first byte of both IPv4 addresses, in network order.
    pair: u32,
    host: u32,
    port: u16,
    checksum: u16,
}

/// The frames of a direction, in an order that was drawn once.
#[derive(Debug)]
pub struct Flows<const WORDS: usize> {
    order: Vec<Flow>,
    next: usize,
    template: [u64; WORDS],
    /// First bytes of destination and source, in their words.
    from: Side,
}

/// What a frame that came back says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub number: u64,
    /// When it was due.
    pub due: u64,
}

impl<const WORDS: usize> Flows<WORDS> {
    /// `flows` flows between `pairs` pairs of addresses in frames of `size` bytes, check sequence included. `WORDS`
    /// says which kind: [`UDP_WORDS`] or [`TCP_WORDS`].
    pub fn new(from: Side, flows: u32, pairs: u32, size: usize) -> Flows<WORDS> {
        let head = head(from, WORDS == TCP_WORDS, size - 4);
        let mut bytes = [0; 8 * TCP_WORDS];
        bytes[..head.len()].copy_from_slice(&head);
        let mut template = [0; WORDS];
        for (word, bytes) in template.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        let mut order: Vec<Flow> =
            (0..flows.max(pairs)).map(|i| flow(from, i % flows, i % pairs, &head)).collect();
        shuffle(&mut order, from.number());
        Flows { order, next: 0, template, from }
    }

    /// After so many frames each one has been there.
    pub fn round(&self) -> usize {
        self.order.len()
    }

    /// Bytes of a frame with its header up to its time; what follows is the caller's.
    pub const BYTES: usize = 8 * WORDS;

    /// The next frame.
    #[inline]
    pub fn next(&mut self, number: u64, due: u64) -> [u64; WORDS] {
        let flow = self.order[self.next];
        self.next = if self.next + 1 == self.order.len() { 0 } else { self.next + 1 };
        let (from, to) = (self.from.number(), self.from.other().number());
        let mut words = self.template;
        let address = |side: u64| 0x02 | side << 8 | u64::from(flow.pair) << 16;
        let host = |side: u64| side | u64::from(flow.host) << 8;
        // The virtio-net header's number of buffers, which is the device's, stands in the way of the first four.
        words[1] |= address(to) << 32;
        words[2] = address(to) >> 32 | address(from) << 16;
        words[4] |= u64::from(flow.checksum) << 32 | host(from) << 48;
        words[5] = (host(from) >> 16 & 0xffff) | host(to) << 16 | u64::from(flow.port) << 48;
        words[WORDS - 2] = number;
        words[WORDS - 1] = due;
        words
    }

    /// The pair of addresses and the flow of the next frame, as far as they are told apart outside of a tunnel.
    #[inline]
    pub fn upcoming(&self) -> (u32, u16) {
        let flow = self.order[self.next];
        (flow.pair.swap_bytes(), flow.port)
    }

    /// What a frame that arrived at the other end says; none if it is not ours.
    #[inline]
    pub fn read(&self, words: &[u64; WORDS]) -> Option<Seen> {
        let to = 0x02 | self.from.other().number() << 8;
        let ours = words[1] >> 32 & 0xffff == to
            && words[3] & 0xffff == self.template[3] & 0xffff
            && words[WORDS - 3] >> 48 == u64::from(MARK);
        ours.then_some(Seen { number: words[WORDS - 2], due: words[WORDS - 1] })
    }
}

/// The headers, as far as they are the same for all flows; addresses and IPv4's checksum are left out. A
/// TCP segment's partial checksum is that of flow 0.
fn head(from: Side, tcp: bool, size: usize) -> Vec<u8> {
    let mut head = vec![0; HEADER];
    if tcp {
        // A partial checksum from byte 34 on, TCP over IPv4, headers of 54 bytes.
        head[0] = 1;
        head[1] = 1;
        head[2..4].copy_from_slice(&54u16.to_le_bytes());
        head[4..6].copy_from_slice(&SEGMENT.to_le_bytes());
        head[6..8].copy_from_slice(&34u16.to_le_bytes());
        head[8..10].copy_from_slice(&16u16.to_le_bytes());
    }
    head.extend([0; 12]);
    head.extend([0x08, 0x00, 0x45, 0]);
    let total = (size - 14) as u16;
    head.extend(total.to_be_bytes());
    head.extend([0, 0, 0x40, 0, 64, if tcp { 6 } else { 17 }, 0, 0]);
    head.extend([0; 8]);
    if tcp {
        // Ports, sequence and acknowledgement, data offset and flags (ACK), window, checksum, urgent pointer.
        head.extend([0, 0, 0x12, 0xb5, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff]);
        let mut pseudo = pmd::checksum::Sum::default();
        pseudo.add(&[from.number() as u8, 0, 0, 0, from.other().number() as u8, 0, 0, 0, 0, 6]);
        pseudo.add(&(total - 20).to_be_bytes());
        head.extend(pseudo.partial());
        head.resize(8 * (TCP_WORDS - 2) - 2, 0);
    } else {
        head.extend([0, 0, 0x12, 0xb5]);
        head.extend((total - 20).to_be_bytes());
        // No UDP checksum (RFC 768).
        head.extend([0, 0]);
    }
    head.extend(MARK.to_le_bytes());
    head
}

fn flow(from: Side, flow: u32, pair: u32, head: &[u8]) -> Flow {
    // The same numbers name a flow and its answers.
    let host = flow.to_be_bytes();
    let mut ip: [u8; 20] = [0; 20];
    ip.copy_from_slice(&head[HEADER + 14..HEADER + 34]);
    ip[12..16].copy_from_slice(&[from.number() as u8, host[1], host[2], host[3]]);
    ip[16..20].copy_from_slice(&[from.other().number() as u8, host[1], host[2], host[3]]);
    Flow {
        pair: u32::from_le_bytes(pair.to_be_bytes()),
        host: u32::from_le_bytes([host[1], host[2], host[3], 0]),
        port: (1024 + flow % 50_000) as u16,
        checksum: u16::from_le_bytes(pmd::checksum::of(&ip)),
    }
}

/// Puts the order into one that depends on the seed only (xorshift64*, Fisher and Yates).
fn shuffle(order: &mut [Flow], seed: u64) {
    let mut state = seed | 1 << 32;
    for end in (1..order.len()).rev() {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let random = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        order.swap(end, ((u128::from(random) * (end as u128 + 1)) >> 64) as usize);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn bytes<const WORDS: usize>(words: [u64; WORDS]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn frames_are_well_formed_and_each_flow_and_pair_has_its_turn() {
        let (mut to_b, mut to_a) = (
            Flows::<UDP_WORDS>::new(Side::A, 1000, 300, 64),
            Flows::<UDP_WORDS>::new(Side::B, 1000, 300, 64),
        );
        assert_eq!(to_b.round(), 1000);
        let (mut seen, mut answers) = (HashSet::new(), HashSet::new());
        for number in 0..1000 {
            let words = to_b.next(number, number + 7);
            assert_eq!(to_b.read(&words), Some(Seen { number, due: number + 7 }));
            assert_eq!(to_a.read(&words), None);
            let frame = bytes(words);
            assert_eq!((&frame[..12], frame.len()), (&[0; 12][..], 72));
            assert_eq!((&frame[24..26], frame[26]), (&[8, 0][..], 0x45));
            assert_eq!(u16::from_be_bytes([frame[28], frame[29]]), 46);
            assert_eq!(pmd::checksum::of(&frame[26..46]), [0, 0]);
            seen.insert((frame[12..24].to_vec(), frame[38..50].to_vec()));
            let frame = bytes(to_a.next(0, 0));
            let turned = [&frame[18..24], &frame[12..18]].concat();
            answers.insert((turned, [&frame[42..46], &frame[38..42], &frame[46..50]].concat()));
        }
        assert_eq!(seen.len(), 1000);
        assert_eq!(seen, answers);
        assert_eq!(seen.iter().map(|(addresses, _)| addresses).collect::<HashSet<_>>().len(), 300);
        let mut other = Flows::<UDP_WORDS>::new(Side::A, 1000, 300, 64);
        assert_eq!(other.next(1, 1), to_b.next(1, 1));
    }

    #[test]
    fn a_train_says_how_it_is_to_be_cut() {
        let mut flows = Flows::<TCP_WORDS>::new(Side::A, 1, 1, 65_000);
        let frame = bytes(flows.next(3, 4));
        let offload = pmd::virtio::decode(&frame, 64_996).unwrap();
        assert_eq!(offload.gso.map(|gso| gso.size), Some(1448));
        assert_eq!(offload.checksum, pmd::offload::Checksum::Partial { start: 34, offset: 16 });
        assert_eq!((pmd::checksum::of(&frame[26..46]), frame[35], frame[58]), ([0, 0], 6, 0x50));
    }
}
