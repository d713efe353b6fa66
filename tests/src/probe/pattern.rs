//! Bytes that look random and can be made again from a seed.

/// An endless sequence of pseudo-random bytes (xorshift64*), the same for the same seed.
#[derive(Debug, Clone)]
pub struct Pattern {
    state: u64,
}

impl Pattern {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        // The generator must not start at zero; the constant spreads small seeds over the word.
        Self { state: (seed ^ 0x9e37_79b9_7f4a_7c15).max(1) }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound.max(1)
    }

    /// Writes the next bytes of the sequence. Only the last call of a sequence may give a length that is no
    /// multiple of 8: the rest of a word is thrown away.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn the_same_seed_gives_the_same_bytes_however_they_are_asked_for() {
        let (mut whole, mut parts) = ([0; 64], [0; 64]);
        Pattern::new(7).fill(&mut whole);
        let mut pattern = Pattern::new(7);
        parts.chunks_mut(16).for_each(|part| pattern.fill(part));
        assert_eq!(whole, parts);
        Pattern::new(8).fill(&mut parts);
        assert_ne!(whole, parts);
    }
}
