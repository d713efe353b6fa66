//! The Internet checksum (RFC 1071): ones' complement sums over bytes that lie in pieces.

/// A running ones' complement sum. Bytes may be added in pieces of any length; an odd piece is
/// remembered, so the sum is that of the pieces laid end to end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    total: u64,
    odd: bool,
}

impl Sum {
    /// Adds bytes.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let folded = fold(raw(bytes));
        let folded = if self.odd { folded.swap_bytes() } else { folded };
        self.total += u64::from(folded);
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// Adds one big-endian 16-bit word, as a length or a protocol number; only on an even position.
    #[inline]
    pub fn add_word(&mut self, word: u16) {
        self.total += u64::from(word.to_be());
    }

    /// The sum as it is stored in a field that holds a pseudo-header's sum: big-endian, not complemented.
    #[inline]
    pub fn partial(self) -> [u8; 2] {
        fold(self.total).to_ne_bytes()
    }

    /// The checksum: the complement of the sum, big-endian.
    #[inline]
    pub fn finish(self) -> [u8; 2] {
        (!fold(self.total)).to_ne_bytes()
    }
}

/// The unfolded sum of native-endian words; byte order comes out right because ones' complement sums
/// commute with swapping (RFC 1071, section 2 (B)).
#[inline]
fn raw(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; 4];
    let mut blocks = bytes.chunks_exact(16);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut total: u64 = lanes.iter().map(|lane| (lane & 0xffff_ffff) + (lane >> 32)).sum();
    let mut rest = blocks.remainder().chunks_exact(2);
    for word in &mut rest {
        total += u64::from(u16::from_ne_bytes([word[0], word[1]]));
    }
    if let [last] = rest.remainder() {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    total
}

#[inline]
fn fold(total: u64) -> u16 {
    let mut sum = (total & 0xffff_ffff) + (total >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum of bytes that lie together.
#[inline]
pub fn of(bytes: &[u8]) -> [u8; 2] {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.finish()
}

/// The sum of the pseudo-header of a datagram of `length` bytes behind the IP header that `ip` begins with (RFC 9293,
/// section 3.1; RFC 8200, section 8.1). `None` if `ip` does not hold its addresses.
#[inline]
pub fn pseudo_header(ip: &[u8], protocol: u8, length: u16) -> Option<Sum> {
    let addresses = match ip.first()? >> 4 {
        4 => ip.get(12..20)?,
        6 => ip.get(8..40)?,
        _ => return None,
    };
    let mut sum = Sum::default();
    sum.add(addresses);
    sum.add_word(u16::from(protocol));
    sum.add_word(length);
    Some(sum)
}

/// The checksum over bytes that end with what an inner partial checksum covers, without reading that: once it is
/// completed, it sums to the complement of what its field holds now (`partial`). `before` is the sum of all bytes in
/// front of it, an even number. Linux calls this local checksum offload
/// (Documentation/networking/checksum-offloads.rst).
#[inline]
pub fn local(mut before: Sum, partial: [u8; 2]) -> [u8; 2] {
    before.add_word(!u16::from_be_bytes(partial));
    never_zero(before.finish())
}

/// A transport checksum as it goes on the wire: a computed 0 is sent as all ones for UDP, whose 0 means
/// "none" (RFC 768); TCP and ICMP verify with either, so the rule is the same for all, as in the kernel.
#[inline]
pub fn never_zero(checksum: [u8; 2]) -> [u8; 2] {
    if checksum == [0, 0] { [0xff, 0xff] } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slow(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), [0x22, 0x0d]);
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(of(&bytes), slow(&bytes));
        }

        #[test]
        fn pieces_sum_like_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..200), cuts in proptest::collection::vec(0usize..200, 0..6)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut sum = Sum::default();
            for pair in cuts.windows(2) {
                sum.add(&bytes[pair[0]..pair[1]]);
            }
            prop_assert_eq!(sum.finish(), slow(&bytes));
        }
    }
}
