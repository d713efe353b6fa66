//! The flow key: all that a decision may depend on, of one frame, in eight words.
//!
//! The worker makes one for each frame of a batch, masks it by what the stages behind the in-port can
//! read at all, and looks it up in the flow cache; `trace` prints key and mask by field names. The key
//! knows headers as they were parsed; it knows no configuration and no table.
//!
//! **Layout.** Link-layer fields come first, and the in-port with them: a plain bridge needs two words,
//! one that reads ethertypes or priorities three, and only policy needs all eight. High bits first:
//!
//! | word | fields |
//! | --- | --- |
//! | 0 | destination MAC (48), in-port (16) |
//! | 1 | source MAC (48), outer VLAN ID (12), outer tag type (2), inner tag type (2) |
//! | 2 | ethertype (16), inner TCI (16), outer priority and DEI (4), overlay (16), TOS (8), fragment (2), hidden transport (1), not to be learned (1) |
//! | 3 | source port (16), destination port (16), TCP flags (8), ICMP type (8), ICMP code (8), IP protocol or ARP operation (8) |
//! | 4, 5 | source address of IP or ARP |
//! | 6, 7 | destination address of IP or ARP |
//!
//! Fields do not share bits: a mask that holds a field holds nothing else. A field that the frame does
//! not have is 0, and what says so (tag type, ethertype, protocol) is a field too: a stage that reads
//! a port number declares also by what it knew that there was one ([`Field::TRANSPORT`]). The TTL is
//! deliberately absent: whoever lowers it checks it on each frame.

mod field;
mod mask;

use super::headers::{Headers, Link, Tag, Transport};
use super::numbers::ethertype;

pub use self::field::{Field, FieldValue};
pub use self::mask::{KeyMask, Width};

/// Words in a key.
pub const WORDS: usize = 8;

/// A frame's fields, packed. Equal keys under a port's mask have equal verdicts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(align(64))]
pub struct FlowKey {
    words: [u64; WORDS],
}

impl FlowKey {
    /// A key with all fields 0.
    pub const ZERO: FlowKey = FlowKey { words: [0; WORDS] };

    /// The key of a frame that came in by `in_port` and was parsed as deep as its mask asks.
    #[inline]
    pub fn new(headers: &Headers, in_port: u16) -> FlowKey {
        let mut key = FlowKey::ZERO;
        key.set_link(&headers.link, in_port);
        key.set_network(headers);
        key
    }

    /// Writes what the link layer has (the fields of [`Depth::L2`](super::headers::Depth)), all of the
    /// first three words, and leaves the others as they are: for a batch of keys that had only such
    /// fields before.
    #[inline]
    pub fn set_link(&mut self, link: &Link, in_port: u16) {
        self.words[0] = mac(link.dst) << 16 | u64::from(in_port);
        self.words[1] = mac(link.src) << 16;
        self.words[2] = u64::from(link.ethertype) << 48;
        // Most frames have no tag; without an outer one there is no inner one.
        if link.outer.is_present() {
            self.words[1] |=
                u64::from(link.outer.vlan()) << 4 | tag_type(link.outer) << 2 | tag_type(link.inner);
            self.words[2] |= u64::from(link.inner.tci) << 32 | u64::from(link.outer.tci >> 12) << 28;
        }
    }

    /// Writes what [`set_link`](FlowKey::set_link) would of a frame without tags that begins with `ethernet`.
    #[inline]
    pub fn set_untagged(&mut self, ethernet: &[u8; 14], in_port: u16) {
        // Two words that overlap: the last bytes of one are no part of the destination.
        let (Some(destination), Some(source_and_type)) = (ethernet.first_chunk(), ethernet.last_chunk())
        else {
            return;
        };
        let destination = u64::from_be_bytes(*destination);
        let source_and_type = u64::from_be_bytes(*source_and_type);
        self.words[0] = destination & !0xffff | u64::from(in_port);
        self.words[1] = source_and_type & !0xffff;
        self.words[2] = source_and_type << 48;
    }

    /// Says which overlay the frame came by, and whether its sender shall not be learned; after
    /// [`set_link`](FlowKey::set_link) or its short form.
    #[inline]
    pub fn set_overlay(&mut self, overlay: u16, is_unlearned: bool) {
        self.words[2] |= u64::from(overlay) << 12 | u64::from(is_unlearned);
    }

    #[inline]
    fn set_network(&mut self, headers: &Headers) {
        let hidden = headers.transport == Transport::Hidden;
        self.words[2] |=
            u64::from(headers.tos) << 4 | (headers.fragment as u64) << 2 | u64::from(hidden) << 1;
        self.words[3] = u64::from(headers.src_port) << 48
            | u64::from(headers.dst_port) << 32
            | u64::from(headers.tcp_flags) << 24
            | u64::from(headers.icmp_type) << 16
            | u64::from(headers.icmp_code) << 8
            | u64::from(headers.protocol)
            | u64::from(headers.arp_operation.min(0xff)); // one of the two is 0
        (self.words[4], self.words[5]) = halves(headers.src_ip);
        (self.words[6], self.words[7]) = halves(headers.dst_ip);
    }

    /// The packed words.
    #[inline]
    pub fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// A key of packed words, as [`FlowKey::words`] gave them.
    #[inline]
    pub fn from_words(words: [u64; WORDS]) -> FlowKey {
        FlowKey { words }
    }

    /// The port that the frame came in by.
    #[inline]
    pub fn in_port(&self) -> u16 {
        self.words[0] as u16
    }

    /// The overlay that the frame came by.
    #[inline]
    pub fn overlay(&self) -> u16 {
        (self.words[2] >> 12) as u16
    }

    /// One field, right-aligned.
    pub fn get(&self, field: Field) -> u128 {
        field.extract(&self.words)
    }

    /// Sets one field; bits that it does not have are ignored. Not for the fast path.
    pub fn set(&mut self, field: Field, value: u128) {
        field.insert(&mut self.words, value);
    }

    /// The key with all bits that the mask leaves out cleared.
    #[inline]
    pub fn masked(&self, mask: &KeyMask) -> FlowKey {
        FlowKey { words: std::array::from_fn(|at| self.words[at] & mask.words()[at]) }
    }

    /// Clears what the mask leaves out in the first `N` words, and leaves the others as they are.
    #[inline]
    pub(super) fn mask_first<const N: usize>(&mut self, mask: &KeyMask) {
        for at in 0..N {
            self.words[at] &= mask.words()[at];
        }
    }

    /// The fields that the mask touches, in the order of the layout, for printing.
    pub fn fields(&self, mask: &KeyMask) -> impl Iterator<Item = FieldValue> {
        let (key, mask) = (self.words, *mask.words());
        Field::ALL.into_iter().filter_map(move |field| {
            let bits = field.extract(&mask);
            (bits != 0).then(|| FieldValue { field, value: field.extract(&key) & bits, mask: bits })
        })
    }
}

impl std::fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set = Field::ALL.into_iter().filter(|&field| self.get(field) != 0);
        f.debug_list().entries(set.map(|field| FieldValue::whole(field, self.get(field)))).finish()
    }
}

#[inline]
fn mac([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Absent, 802.1Q, 802.1ad: the values of [`Field::VlanType`].
#[inline]
fn tag_type(tag: Tag) -> u64 {
    u64::from(tag.tpid != 0) << u32::from(tag.tpid == ethertype::SERVICE_VLAN)
}

#[inline]
fn halves(address: [u8; 16]) -> (u64, u64) {
    let bits = u128::from_be_bytes(address);
    ((bits >> 64) as u64, bits as u64)
}

#[cfg(test)]
mod tests;
