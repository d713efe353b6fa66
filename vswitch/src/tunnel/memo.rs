//! The outer headers of the frame before, which are nearly always those of the next one as well.
//!
//! Frames of one remote and one network differ in lengths, identification, checksum and what routers spread by. Where a
//! frame's headers are the same but for these, what was found out about those of the frame before holds for it too,
//! and only these are left to be looked at. A memo is of IPv4 without a tag, without options, without a UDP checksum
//! and without a mark of congestion: what else comes is read as if there were none.

use super::ecn::ECT1;
use super::{Kind, MIN_INNER, Outer};

/// Words of a frame that are compared: whatever the kind, no frame with one inside is shorter.
const WORDS: usize = 7;
/// Where the IPv4 header begins, and what follows it.
const IP: usize = 14;
const BEHIND_IP: usize = IP + 20;

/// Outer headers.
#[derive(Clone, Copy, Debug)]
pub struct Memo {
    /// The first bytes, with zeros where frames may differ, and the other bits.
    words: [u64; WORDS],
    mask: &'static [u64; WORDS],
    over_udp: bool,
    /// Where the inner frame begins.
    inner: u16,
    /// The sum of those words of the IPv4 header that are the same.
    sum: u32,
}

impl Memo {
    /// What [`parse`](super::parse) said of the frame that `head` begins, to be held against the next one. `None` if
    /// its headers are not of the usual sort.
    pub fn new(head: &[u8], outer: &Outer) -> Option<Memo> {
        let inner = BEHIND_IP + outer.kind.header_len();
        let is_usual = outer.network == IP as u16
            && outer.transport == BEHIND_IP as u16
            && outer.inner == inner as u16
            && outer.checksum == 0
            && outer.tos & ECT1 == 0;
        // An IPv6 header is longer.
        let bytes = words(head).filter(|_| is_usual)?;
        let mask = if outer.kind == Kind::Nvgre { &OVER_GRE } else { &OVER_UDP };
        let words = std::array::from_fn(|i| bytes[i] & mask[i]);
        let same = words.map(u64::to_ne_bytes);
        let sum = same.as_flattened()[IP..BEHIND_IP].as_chunks::<2>().0.iter();
        let sum = sum.map(|word| u32::from(u16::from_ne_bytes(*word))).sum();
        Some(Memo { words, mask, over_udp: outer.kind != Kind::Nvgre, inner: inner as u16, sum })
    }

    /// Where the inner frame begins.
    #[inline]
    pub fn inner(&self) -> usize {
        self.inner.into()
    }

    /// Bytes of the inner frame, if the frame of `frame_len` bytes that `head` begins has such headers as this is of.
    /// Then [`parse`](super::parse) would say the same of both, but for what is not remembered: source port and FlowID.
    #[inline]
    pub fn inner_len(&self, head: &[u8], frame_len: usize) -> Option<usize> {
        let words = words(head)?;
        let differ = (0..WORDS).fold(0, |bits, i| bits | words[i] & self.mask[i] ^ self.words[i]);
        let [total, id] = [words[2] as u16, (words[2] >> 16) as u16];
        let checksum = words[3] as u16;
        let sum = self.sum + u32::from(total) + u32::from(id) + u32::from(checksum);
        let sum = (sum & 0xffff) + (sum >> 16);
        let is_sound = (sum & 0xffff) + (sum >> 16) == 0xffff;
        let total = u16::from_be(total);
        let length = u16::from_be((words[4] >> 48) as u16);
        // What follows the IP header is a datagram, no more and no less.
        let is_full = !self.over_udp || length == total.wrapping_sub(20);
        let inner_len = usize::from(total).wrapping_sub(self.inner() - IP);
        let fits = usize::from(total) + IP <= frame_len && inner_len.wrapping_sub(MIN_INNER) < 1 << 16;
        (differ == 0 && is_sound & is_full & fits).then_some(inner_len)
    }
}

/// A number, below [`PLACES`], that frames of one VTEP and one network share, and those of others nearly never: where
/// the next one looks for the memo of the one before.
#[inline]
pub fn place(head: &[u8]) -> usize {
    // The end of the source address, and of a VNI over UDP.
    head.first_chunk::<{ 8 * WORDS }>().map_or(0, |head| usize::from(head[28] ^ head[29] ^ head[48]))
}

/// How many places there are.
pub const PLACES: usize = 256;

/// The first bytes as they lie in memory, the first one lowest.
#[inline]
fn words(head: &[u8]) -> Option<[u64; WORDS]> {
    let (words, _) = head.first_chunk::<{ 8 * WORDS }>()?.as_chunks::<8>();
    Some(std::array::from_fn(|i| u64::from_le_bytes(words[i])))
}

/// Frames may differ in their IPv4 total lengths, identifications and checksums, UDP source ports and lengths.
const OVER_UDP: [u64; WORDS] = mask(&[16, 17, 18, 19, 24, 25, 34, 35, 38, 39], BEHIND_IP + 16);
/// The same of GRE: the FlowID.
const OVER_GRE: [u64; WORDS] = mask(&[16, 17, 18, 19, 24, 25, 41], BEHIND_IP + 8);

/// All bits of the first `end` bytes but those `without`.
const fn mask(without: &[usize], end: usize) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    let mut at = 0;
    while at < end {
        words[at / 8] |= 0xff << (at % 8 * 8);
        at += 1;
    }
    let mut i = 0;
    while i < without.len() {
        words[without[i] / 8] &= !(0xff << (without[i] % 8 * 8));
        i += 1;
    }
    words
}
