//! The keyed hash of everything that frames can choose: flow keys and MAC addresses.
//!
//! Whoever sends frames chooses the words that are hashed, so the hash must not let him choose the
//! bucket. A 64 by 64 bit product folded to 64 bits (high half xor low half) is not linear, and both
//! factors are masked with secret words first: unlike a CRC, whose collisions are the same under every
//! seed, two words that collide under one key do not under another. It costs one multiplication per
//! two words. It is no cryptographic hash, and need not be: its values never leave the process.
//!
//! The caller passes the seed in (one random seed a start, a fixed one in tests); nothing here knows
//! what the words mean.

/// How many secret words a key has: one for each of up to eight hashed words, and two for the finish.
const SECRETS: usize = 10;

/// The secret words of one table, derived from one seed.
#[derive(Clone)]
pub struct HashKey {
    secrets: [u64; SECRETS],
}

impl HashKey {
    /// Expands `seed`; equal seeds give equal hashes. One random seed a start serves all tables.
    pub fn from_seed(seed: u64) -> HashKey {
        let mut state = seed;
        HashKey { secrets: std::array::from_fn(|_| splitmix(&mut state)) }
    }

    /// The hash of two words.
    #[inline]
    pub fn two(&self, words: [u64; 2]) -> u64 {
        self.finish(self.pair(words[0], words[1], 0), 0)
    }

    /// The hash of three words: what a plain L2 flow key has.
    #[inline]
    pub fn three(&self, words: [u64; 3]) -> u64 {
        self.finish(self.pair(words[0], words[1], 0), words[2])
    }

    /// The hash of eight words: a whole flow key. The products do not wait for one another.
    #[inline]
    pub fn eight(&self, words: &[u64; 8]) -> u64 {
        let first = self.pair(words[0], words[1], 0) ^ self.pair(words[2], words[3], 2);
        let second = self.pair(words[4], words[5], 4) ^ self.pair(words[6], words[7], 6);
        self.finish(first, second)
    }

    /// One product of two masked words; `at` picks the secrets, so that equal pairs differ by place.
    #[inline]
    fn pair(&self, a: u64, b: u64, at: usize) -> u64 {
        fold(a ^ self.secrets[at], b ^ self.secrets[at + 1])
    }

    /// Spreads the last words over all bits of the result.
    #[inline]
    fn finish(&self, a: u64, b: u64) -> u64 {
        fold(a ^ self.secrets[8], b ^ self.secrets[9])
    }
}

impl std::fmt::Debug for HashKey {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey")
    }
}

/// The 128-bit product of `a` and `b`, its halves joined.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// One step of the splitmix64 generator, which turns one seed into independent words.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plain sequence as a MAC scan would produce it: only the low bits of one word move.
    fn scan(key: &HashKey, count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(move |low| key.three([0x0200_0000_0000 | low, 0x0200_0000_0001, 7]))
    }

    #[test]
    fn sequences_spread_evenly_over_low_middle_and_high_bits() {
        let key = HashKey::from_seed(1);
        for shift in [0, 24, 48] {
            let mut load = [0u32; 1024];
            for hash in scan(&key, 64 * 1024) {
                load[(hash >> shift) as usize & 1023] += 1;
            }
            // 64 expected in each, standard deviation 8: six of them is one chance in ten million a bucket.
            let (least, most) = (load.iter().min(), load.iter().max());
            assert!(least > Some(&16) && most < Some(&112), "shift {shift}: {least:?} to {most:?}");
        }
    }

    #[test]
    fn one_flipped_bit_flips_about_half_of_the_hash() {
        let key = HashKey::from_seed(2);
        let words: [u64; 8] = std::array::from_fn(|at| 0x1234_5678_9abc_def0u64.rotate_left(at as u32 * 7));
        let base = key.eight(&words);
        let mut flips = 0;
        for bit in 0..512 {
            let mut other = words;
            other[bit / 64] ^= 1 << (bit % 64);
            let moved = (base ^ key.eight(&other)).count_ones();
            assert!(moved >= 8, "bit {bit} moved only {moved} bits");
            flips += moved;
        }
        let mean = f64::from(flips) / 512.0;
        assert!((30.0..34.0).contains(&mean), "mean {mean}");
    }

    #[test]
    fn collisions_do_not_survive_a_change_of_key() {
        let (one, other) = (HashKey::from_seed(3), HashKey::from_seed(4));
        let bucket = |hash: u64| hash & 0xff;
        let target = bucket(one.two([0, 0]));
        let colliding: Vec<u64> = (0..1u64 << 16).filter(|&w| bucket(one.two([w, 0])) == target).collect();
        assert!(colliding.len() > 100);
        let still =
            colliding.iter().filter(|&&w| bucket(other.two([w, 0])) == bucket(other.two([0, 0]))).count();
        // By chance one in 256 of them; a linear hash would keep all.
        assert!(still * 16 < colliding.len(), "{still} of {}", colliding.len());
    }

    #[test]
    fn the_hash_is_not_linear() {
        let key = HashKey::from_seed(5);
        let hash = |w: u64| key.two([w, 9]);
        let linear = (1..1000u64).filter(|&w| hash(w) ^ hash(w << 8) ^ hash(0) == hash(w ^ w << 8)).count();
        assert_eq!(linear, 0);
    }

    #[test]
    fn equal_words_in_other_places_hash_differently() {
        let key = HashKey::from_seed(6);
        assert_ne!(key.two([1, 2]), key.two([2, 1]));
        assert_ne!(key.eight(&[1, 2, 3, 4, 0, 0, 0, 0]), key.eight(&[3, 4, 1, 2, 0, 0, 0, 0]));
        assert_ne!(HashKey::from_seed(6).two([1, 2]), HashKey::from_seed(7).two([1, 2]));
    }
}
