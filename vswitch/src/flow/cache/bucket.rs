//! Eight ways of the flow cache in half a cache line: which may hold a key, and which is to go.
//!
//! A way is known by a tag, 14 bits of its key's hash and a bit that says that the way is taken, in a
//! lane of 16 bits, four lanes a word: all eight are compared by arithmetic on two words. Beside the tags stand
//! the ports that the ways belong to.
//!
//! **Fairness.** A full bucket gives its ways to the ports that compete for it in equal shares. A port
//! evicts its own entry unless another port holds at least two more; then it evicts that one's. So among
//! `n` ports in a bucket nobody can be pushed below `8 / n` ways by the others, however many flows they
//! invent, and a port that is alone may have all. Within the victim's ways the clock decides: one that
//! was hit lately gets a second chance.

/// Ways in a bucket.
pub(super) const WAYS: usize = 8;

const LANES: u64 = 0x0001_0001_0001_0001;
const HIGH: u64 = LANES << 15;

/// The bit of a tag that says that the way has an entry.
const TAKEN: u16 = 1 << 14;

/// Tags and owners of eight ways.
#[derive(Clone, Copy, Default)]
#[repr(align(32))]
pub(super) struct Bucket {
    /// Way `w` is lane `w / 2` of word `w % 2`: the order in which [`Bucket::matches`] numbers them.
    tags: [u64; 2],
    ports: [u16; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 32);

/// Where a new entry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Victim {
    pub(super) way: usize,
    /// Whether there was an entry.
    pub(super) was_occupied: bool,
}

impl Bucket {
    /// The tag of a hash, from its highest bits; the bucket is chosen by its lowest.
    #[inline]
    pub(super) fn tag(hash: u64) -> u16 {
        (hash >> 49) as u16 | TAKEN
    }

    /// A set that has bit `8 * w + 7` for each way `w` whose tag is `tag`, and no other bits.
    #[inline]
    pub(super) fn matches(&self, tag: u16) -> u64 {
        let wanted = u64::from(tag) * LANES;
        // A lane of 15 bits subtracted from 0x8000 leaves the high bit only if it is 0; nothing is borrowed.
        let equal = |word: u64| (HIGH - (word ^ wanted)) & HIGH;
        equal(self.tags[0]) >> 8 | equal(self.tags[1])
    }

    /// The first way whose tag is `tag`; the last way if there is none.
    #[inline]
    pub(super) fn candidate(&self, tag: u16) -> usize {
        ((self.matches(tag) | 1 << 63).trailing_zeros() >> 3) as usize
    }

    /// The ways in a set that [`Bucket::matches`] returned.
    pub(super) fn ways(mut matches: u64) -> impl Iterator<Item = usize> {
        std::iter::from_fn(move || {
            let way = (matches != 0).then(|| (matches.trailing_zeros() >> 3) as usize)?;
            matches &= matches - 1;
            Some(way)
        })
    }

    pub(super) fn is_occupied(&self, way: usize) -> bool {
        self.tag_of(way) != 0
    }

    pub(super) fn set(&mut self, way: usize, tag: u16, port: u16) {
        let shift = way / 2 * 16;
        let word = &mut self.tags[way % 2];
        *word = *word & !(0xffff << shift) | u64::from(tag) << shift;
        self.ports[way] = port;
    }

    /// The way for a new entry of `port`, `home` if that is as good as any. `spare` tells whether a way was
    /// hit since it was last asked for, and forgets it.
    pub(super) fn victim(&self, port: u16, home: usize, mut spare: impl FnMut(usize) -> bool) -> Victim {
        let order = (0..WAYS).map(|step| (home + step) % WAYS);
        if let Some(way) = order.clone().find(|&way| !self.is_occupied(way)) {
            return Victim { way, was_occupied: false };
        }
        let held = |port: u16| self.ports.iter().filter(|&&owner| owner == port).count();
        let own = held(port);
        let most = self.ports.iter().map(|&owner| held(owner)).max().unwrap_or(own);
        let takes_own = own > 0 && most <= own + 1;
        let is_candidate = |way: &usize| {
            let owner = self.ports[*way];
            if takes_own { owner == port } else { held(owner) == most }
        };
        let mut candidates = order.filter(is_candidate);
        let first = candidates.clone().next().unwrap_or(home);
        Victim { way: candidates.find(|&way| !spare(way)).unwrap_or(first), was_occupied: true }
    }

    fn tag_of(&self, way: usize) -> u16 {
        (self.tags[way % 2] >> (way / 2 * 16)) as u16
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_way_is_found_by_its_own_tag_only() {
        for way in 0..WAYS {
            for tag in [0x4000, 0x4001, 0x7ffe, 0x7fff] {
                let mut bucket = Bucket::default();
                bucket.set(way, tag, 3);
                assert_eq!(Bucket::ways(bucket.matches(tag)).collect::<Vec<_>>(), [way]);
                assert_eq!(bucket.candidate(tag), way);
                assert_eq!(bucket.matches(tag ^ 4), 0);
            }
        }
        let mut bucket = Bucket::default();
        (0..WAYS).for_each(|way| bucket.set(way, 7, 3));
        assert_eq!(Bucket::ways(bucket.matches(7)).collect::<Vec<_>>(), (0..WAYS).collect::<Vec<_>>());
    }

    #[test]
    fn a_way_that_was_hit_gets_a_second_chance() {
        let mut bucket = Bucket::default();
        (0..WAYS).for_each(|way| bucket.set(way, Bucket::tag(0), 3));
        let mut hit = [true; WAYS];
        hit[5] = false;
        let mut victim = |home| bucket.victim(3, home, |way| std::mem::take(&mut hit[way])).way;
        assert_eq!(victim(2), 5, "2, 3, 4 are spared");
        assert_eq!(victim(3), 3, "and not again");
        assert_eq!(victim(0), 2, "0 and 1 still were");
        assert_eq!(hit, [false, false, false, false, false, false, true, true]);
    }

    #[test]
    fn where_all_were_hit_the_home_goes() {
        let mut bucket = Bucket::default();
        (0..WAYS).for_each(|way| bucket.set(way, Bucket::tag(0), 3));
        let mut hit = [true; WAYS];
        assert_eq!(bucket.victim(3, 6, |way| std::mem::take(&mut hit[way])).way, 6);
        assert_eq!(hit, [false; WAYS]);
    }

    proptest! {
        #[test]
        fn tags_agree_with_a_plain_search(tags in prop::array::uniform8(0x4000..0x4006u16), wanted in 0x4000..0x4006u16) {
            let mut bucket = Bucket::default();
            (0..WAYS).for_each(|way| bucket.set(way, tags[way], 0));
            let found: Vec<_> = Bucket::ways(bucket.matches(wanted)).collect();
            let expected: Vec<_> = (0..WAYS).filter(|&way| tags[way] == wanted).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn nobody_is_pushed_below_his_share(
            inserts in prop::collection::vec((0..6u16, 0..WAYS, any::<u8>()), 1..200),
        ) {
            let mut bucket = Bucket::default();
            for (port, home, hit) in inserts {
                let victim = bucket.victim(port, home, |way| hit >> way & 1 == 1);
                prop_assert_eq!(victim.was_occupied, bucket.is_occupied(victim.way));
                let owner = bucket.ports[victim.way];
                if victim.was_occupied && owner != port {
                    let rivals: HashSet<u16> = bucket.ports.into_iter().chain([port]).collect();
                    let held = bucket.ports.iter().filter(|&&other| other == owner).count();
                    prop_assert!(held > WAYS / rivals.len(), "{:?}: {port} took way {}", bucket.ports, victim.way);
                }
                bucket.set(victim.way, Bucket::tag(0), port);
            }
        }
    }
}
