//! Which bits of a flow key any stage behind a port may read.
//!
//! The snapshot makes one for each port, as the union of what its stages declare. The in-port is in
//! every mask: ports have different masks, and a masked key that did not say whose it is could be taken
//! for another port's.

use super::{Field, WORDS};
use crate::flow::headers::Depth;

/// The bits that count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyMask {
    words: [u64; WORDS],
}

/// How many leading words of a key have to be hashed and compared: one of three, so that each has code
/// of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// Addresses, VLAN, in-port.
    Two,
    /// And ethertype, priority, inner tag.
    Three,
    /// All.
    Eight,
}

impl KeyMask {
    /// The in-port only: what nobody reads more than.
    pub const IN_PORT: KeyMask = KeyMask { words: [0xffff, 0, 0, 0, 0, 0, 0, 0] };

    /// A mask of whole fields.
    pub fn of(fields: &[Field]) -> KeyMask {
        fields.iter().fold(KeyMask::IN_PORT, |mask, &field| mask.with_bits(field, field.all_ones()))
    }

    /// With some bits of a field in addition (an address prefix).
    pub fn with_bits(mut self, field: Field, bits: u128) -> KeyMask {
        let before = field.extract(&self.words);
        field.insert(&mut self.words, before | bits);
        self
    }

    /// The bits that either has.
    pub fn union(self, other: KeyMask) -> KeyMask {
        KeyMask { words: std::array::from_fn(|at| self.words[at] | other.words[at]) }
    }

    /// Whether all bits of the field count.
    pub fn contains(&self, field: Field) -> bool {
        self.get(field) == field.all_ones()
    }

    /// The bits of a field that count, right-aligned.
    pub fn get(&self, field: Field) -> u128 {
        field.extract(&self.words)
    }

    /// The packed words.
    #[inline]
    pub fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// How many words there are up to the last that counts.
    pub fn word_count(&self) -> usize {
        self.words.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1)
    }

    /// How many words have to be looked at. Worth keeping beside the mask.
    #[inline]
    pub fn width(&self) -> Width {
        if self.words[3..].iter().any(|&word| word != 0) {
            Width::Eight
        } else if self.words[2] != 0 {
            Width::Three
        } else {
            Width::Two
        }
    }

    /// How deep frames have to be parsed for the fields that count.
    pub fn depth(&self) -> Depth {
        let is_deep = |field: &Field| !field.is_link() && self.get(*field) != 0;
        if Field::ALL.iter().any(is_deep) { Depth::L4 } else { Depth::L2 }
    }
}

impl std::fmt::Debug for KeyMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields = Field::ALL.into_iter().filter(|&field| self.get(field) != 0);
        f.debug_list().entries(fields.map(Field::name)).finish()
    }
}
