//! The flow cache: what was decided for a masked key, found again in one or two cache lines.
//!
//! Each worker has one of its own, so nothing here is atomic but the versions that it reads. It is an
//! accelerator, never a source of truth: whatever it does not find, or finds stale, is decided by the
//! pipeline and put in. It knows no action: `V` is a small value that the pipeline makes.
//!
//! **Shape.** Fixed in size. A bucket has eight ways. Each way has a line of its own with the first three
//! words of its key, what makes it stale, and the value; the other five words lie elsewhere and are read
//! only for keys that are that wide. The tags of a bucket's ways share half a line. A key has a *home*
//! among all ways by its hash, and is put there if the way is free: so most flows of a cache that is not
//! crowded are found by one look at one line. The others are found by their tags.
//!
//! **A batch** is looked up in steps, so that memory latencies overlap: [`FlowCache::probe`] masks and
//! hashes all keys and asks for the lines of their homes; [`FlowCache::foresee`] sees which are away, and asks
//! for the tags and then for the entries that those name. When in the last batch an eighth was away from
//! home, the tags come first for all. [`FlowCache::get`] is called
//! frame by frame, in order, with inserts in between: it sees what frames before it in the same batch have
//! learned and inserted, so that a batch has the verdicts of its frames one by one.
//!
//! **Staleness.** An entry carries the generation of the snapshot and two [`Witness`]es (source and
//! destination, say). A hit counts only while all three stand; otherwise it is a miss whose insert
//! overwrites the entry in place. Witnesses are of lines elsewhere, which are in no near cache when there
//! are many flows: an entry notes how many changes there had been when they were last compared, and while
//! there have been no others, they are not compared again.
//!
//! **Masks.** The in-port is in every mask, and a port has one mask in a generation; so a masked key that
//! is equal in the words of its width and in generation was made by the same mask.

mod bucket;
#[cfg(test)]
mod tests;

use std::ops::Range;

use pmd::prefetch;

use self::bucket::{Bucket, WAYS};
use super::hash::HashKey;
use super::key::{FlowKey, KeyMask, WORDS, Width};
use crate::tables::versions::{Versions, Witness};

/// Keys that one probe takes: a batch.
pub const BATCH: usize = 64;

/// Words of the key that lie in the entry's own line.
const FRONT: usize = 3;

/// A worker's cache.
pub struct FlowCache<V> {
    buckets: Box<[Bucket]>,
    entries: Box<[Entry<V>]>,
    backs: Box<[Back]>,
    hash: HashKey,
    /// Whether so many flows are away from home that a probe had better look for them.
    is_crowded: bool,
    /// Flows of the current batch that were found away from home.
    away: u32,
    lookups: u64,
    counters: Counters,
}

/// One flow: a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Entry<V> {
    front: [u64; FRONT],
    /// The generation, and in bit 0 whether the entry was hit since it was last considered for eviction.
    generation_and_hit: u32,
    versions: [u32; 2],
    slots: [u16; 2],
    /// [`Versions::changes`] when the witnesses were last found to be current.
    confirmed: u32,
    value: V,
}

/// The words of a key that a bridge does not look at.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Back([u64; WORDS - FRONT]);

/// What has happened in a cache since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Lookups that found a decision that stands. Every probed key must be asked for once.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// Lookups that found one which does not stand any more. Not among the misses.
    pub stale: u64,
    /// Inserts that found a free way, or the stale entry of the same key.
    pub inserts: u64,
    /// Inserts that took another key's way.
    pub evictions: u64,
}

/// Against what entries are checked.
#[derive(Debug, Clone, Copy)]
pub struct Current<'a> {
    /// The generation of the worker's snapshot, of which the lower 31 bits count.
    pub generation: u32,
    /// The versions that witnesses are of.
    pub versions: &'a Versions,
}

/// What [`FlowCache::probe`] found out about a batch of keys, for [`FlowCache::get`].
pub struct Probes {
    width: Width,
    probes: [Probe; BATCH],
}

#[derive(Clone, Copy, Default)]
struct Probe {
    hash: u64,
    /// The entry that most likely holds the key.
    candidate: u32,
}

/// A flow as it is listed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flow<V> {
    /// The masked key.
    pub key: FlowKey,
    /// The generation that it was decided in.
    pub generation: u32,
    /// What it was decided by.
    pub witnesses: [Witness; 2],
    /// What was decided.
    pub value: V,
}

impl Default for Probes {
    fn default() -> Probes {
        Probes { width: Width::Two, probes: [Probe::default(); BATCH] }
    }
}

impl<V: Copy + Default> FlowCache<V> {
    /// A cache of at most `flows` entries (the next lower power of two, at least 64), hashing by `seed`.
    /// `V` has at most 20 bytes; a larger one does not compile.
    pub fn new(flows: u32, seed: u64) -> FlowCache<V> {
        const { assert!(size_of::<Entry<V>>() == 64, "the value of a flow has at most 20 bytes") };
        let count = 1usize << flows.clamp(64, 1 << 30).ilog2();
        // An unused entry has the key of zeros: a witness that is never current keeps it from being one.
        let empty = Entry {
            front: [0; FRONT],
            generation_and_hit: 0,
            versions: [Witness::STALE.version; 2],
            slots: [Witness::STALE.slot; 2],
            confirmed: Versions::NEVER,
            value: V::default(),
        };
        let entries: Box<[Entry<V>]> = vec![empty; count].into();
        let backs: Box<[Back]> = vec![Back::default(); count].into();
        pmd::huge::collapse(&entries);
        pmd::huge::collapse(&backs);
        FlowCache {
            buckets: vec![Bucket::default(); count / WAYS].into(),
            entries,
            backs,
            hash: HashKey::from_seed(seed),
            is_crowded: false,
            away: 0,
            lookups: 0,
            counters: Counters::default(),
        }
    }

    /// Masks `keys` in place (the first [`BATCH`]; only the words of the mask's width), hashes them and
    /// fetches what [`FlowCache::get`] will compare. All keys must be of ports with this mask.
    pub fn probe(&mut self, keys: &mut [FlowKey], mask: &KeyMask, probes: &mut Probes) {
        probes.width = mask.width();
        match probes.width {
            Width::Two => self.probe_first::<2>(keys, mask, &mut probes.probes),
            Width::Three => self.probe_first::<3>(keys, mask, &mut probes.probes),
            Width::Eight => self.probe_first::<WORDS>(keys, mask, &mut probes.probes),
        }
    }

    /// Fetches what the decisions for `keys`, as the last probe left them, will be held against, where that is to be
    /// compared again, and calls `each` with each decision, to fetch what it needs beyond. They may be other keys'
    /// decisions.
    #[inline]
    pub fn foresee(
        &mut self,
        probes: &mut Probes,
        keys: &[FlowKey],
        versions: &Versions,
        mut each: impl FnMut(&V),
    ) {
        let changes = versions.changes();
        let (mut away, mut count) = ([0; BATCH], 0);
        for (at, (probe, key)) in probes.probes.iter().zip(keys).enumerate() {
            let entry = &self.entries[probe.candidate as usize];
            if entry.confirmed != changes {
                entry.slots.iter().for_each(|slot| versions.prefetch(*slot));
            }
            each(&entry.value);
            // The words that every key has tell nearly always whose it is.
            if entry.front[..2] != key.words()[..2] {
                prefetch(&self.buckets[self.bucket(probe.hash)]);
                away[count] = at as u8;
                count += 1;
            }
        }
        for at in &away[..count] {
            let probe = &mut probes.probes[usize::from(*at)];
            let bucket = self.bucket(probe.hash);
            probe.candidate =
                (bucket * WAYS + self.buckets[bucket].candidate(Bucket::tag(probe.hash))) as u32;
            prefetch(&self.entries[probe.candidate as usize]);
        }
    }

    /// The decision for the `at`th key of the last probe, if there is one and it stands. `key` is that key
    /// as the probe left it.
    #[inline]
    pub fn get(&mut self, probes: &Probes, at: usize, key: &FlowKey, current: Current<'_>) -> Option<&V> {
        let probe = probes.probes[at];
        let value = match probes.width {
            Width::Two => self.get_first::<2>(probe, key, current),
            Width::Three => self.get_first::<3>(probe, key, current),
            Width::Eight => self.get_first::<WORDS>(probe, key, current),
        };
        value.map(|value| &*value)
    }

    /// Calls `each` with the decision for each key of the last probe in `places`, which it may annotate, and with
    /// what the caller keeps `beside` that key, in order, as long as [`FlowCache::get`] finds one; gives the first
    /// place without, or the end.
    #[inline]
    pub fn get_each<T>(
        &mut self,
        probes: &Probes,
        (keys, beside): (&[FlowKey], &[T]),
        places: Range<usize>,
        current: Current<'_>,
        each: impl FnMut(&mut V, &T),
    ) -> usize {
        let (first, keys, beside) = (places.start, &keys[places.clone()], &beside[places.clone()]);
        let probed = probes.probes[places].iter().zip(keys).zip(beside);
        first
            + match probes.width {
                Width::Two => self.get_each_first::<2, T>(probed, current, each),
                Width::Three => self.get_each_first::<3, T>(probed, current, each),
                Width::Eight => self.get_each_first::<WORDS, T>(probed, current, each),
            }
    }

    /// The decision for a key, if there is one and it stands; changes nothing and counts nothing.
    pub fn peek(&self, key: &FlowKey, mask: &KeyMask, current: Current<'_>) -> Option<&V> {
        let key = key.masked(mask);
        let at = match mask.width() {
            Width::Two => self.search::<2>(self.hash_first::<2>(&key), &key),
            Width::Three => self.search::<3>(self.hash_first::<3>(&key), &key),
            Width::Eight => self.search::<WORDS>(self.hash_first::<WORDS>(&key), &key),
        }?;
        self.entries[at].stands(current).then_some(&self.entries[at].value)
    }

    /// Keeps a decision, in place of an older one for the same key, or in a free way, or in the way of
    /// the entry that has to go.
    pub fn insert(
        &mut self,
        key: &FlowKey,
        mask: &KeyMask,
        generation: u32,
        witnesses: [Witness; 2],
        value: V,
    ) {
        let key = key.masked(mask);
        let (hash, same) = match mask.width() {
            Width::Two => self.locate::<2>(&key),
            Width::Three => self.locate::<3>(&key),
            Width::Eight => self.locate::<WORDS>(&key),
        };
        let at = same.unwrap_or_else(|| self.make_room(hash, key.in_port()));
        self.counters.inserts += u64::from(same.is_some());
        let [a, b, c, back @ ..] = *key.words();
        self.entries[at] = Entry {
            front: [a, b, c],
            generation_and_hit: generation << 1,
            versions: witnesses.map(|witness| witness.version),
            slots: witnesses.map(|witness| witness.slot),
            confirmed: Versions::NEVER,
            value,
        };
        self.backs[at] = Back(back);
        self.buckets[at / WAYS].set(at % WAYS, Bucket::tag(hash), key.in_port());
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        let Counters { misses, stale, .. } = self.counters;
        // Counted once a batch; what came to nothing else was a hit.
        Counters { hits: self.lookups - misses - stale, ..self.counters }
    }

    /// How many flows there is room for.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// The flows in a range of places below [`FlowCache::capacity`], stale ones too: a worker that is asked
    /// for a list answers in pieces.
    pub fn flows(&self, places: Range<usize>) -> impl Iterator<Item = Flow<V>> {
        let places = places.start..places.end.min(self.capacity());
        places.filter(|&at| self.buckets[at / WAYS].is_occupied(at % WAYS)).map(|at| {
            let (entry, back) = (&self.entries[at], &self.backs[at].0);
            let words =
                std::array::from_fn(|word| if word < FRONT { entry.front[word] } else { back[word - FRONT] });
            Flow {
                key: FlowKey::from_words(words),
                generation: entry.generation_and_hit >> 1,
                witnesses: entry.witnesses(),
                value: entry.value,
            }
        })
    }

    fn probe_first<const N: usize>(
        &mut self,
        keys: &mut [FlowKey],
        mask: &KeyMask,
        probes: &mut [Probe; BATCH],
    ) {
        let count = keys.len().min(BATCH);
        let (keys, probes) = (&mut keys[..count], &mut probes[..count]);
        self.is_crowded = self.away as usize * 8 > count;
        self.away = 0;
        self.lookups += count as u64;
        for (key, probe) in keys.iter_mut().zip(probes.iter_mut()) {
            key.mask_first::<N>(mask);
            probe.hash = self.hash_first::<N>(key);
            probe.candidate = self.home(probe.hash) as u32;
            if self.is_crowded {
                prefetch(&self.buckets[self.bucket(probe.hash)]);
            } else {
                self.prefetch_entry::<N>(self.home(probe.hash));
            }
        }
        if self.is_crowded {
            self.find_candidates::<N>(probes);
        }
    }

    /// The second step, for when guessing that flows are at home is wrong too often.
    fn find_candidates<const N: usize>(&mut self, probes: &mut [Probe]) {
        for probe in probes {
            let bucket = self.bucket(probe.hash);
            let candidate = bucket * WAYS + self.buckets[bucket].candidate(Bucket::tag(probe.hash));
            self.prefetch_entry::<N>(candidate);
            self.away += u32::from(candidate as u32 != probe.candidate);
            probe.candidate = candidate as u32;
        }
    }

    #[inline]
    fn prefetch_entry<const N: usize>(&self, at: usize) {
        prefetch(&self.entries[at]);
        if N > FRONT {
            prefetch(&self.backs[at]);
        }
    }

    #[inline]
    fn get_first<const N: usize>(
        &mut self,
        probe: Probe,
        key: &FlowKey,
        current: Current<'_>,
    ) -> Option<&mut V> {
        let at = probe.candidate as usize;
        if self.entries[at].holds::<N>(&self.backs, at, key) {
            return self.get_at(at, current);
        }
        // Not at home, or inserted since by a frame of the same batch, or not here.
        let Some(at) = self.search::<N>(probe.hash, key) else {
            self.counters.misses += 1;
            return None;
        };
        self.away += 1;
        self.get_at(at, current)
    }

    #[inline]
    fn get_each_first<'k, const N: usize, T: 'k>(
        &mut self,
        probed: impl Iterator<Item = ((&'k Probe, &'k FlowKey), &'k T)>,
        current: Current<'_>,
        mut each: impl FnMut(&mut V, &T),
    ) -> usize {
        let mut found = 0;
        for ((probe, key), beside) in probed {
            let Some(value) = self.get_first::<N>(*probe, key, current) else { break };
            each(value, beside);
            found += 1;
        }
        found
    }

    #[inline]
    fn get_at(&mut self, at: usize, current: Current<'_>) -> Option<&mut V> {
        let entry = &mut self.entries[at];
        if !(entry.confirm(current.versions) && entry.hit(current.generation)) {
            self.counters.stale += 1;
            return None;
        }
        Some(&mut entry.value)
    }

    #[cold]
    fn search<const N: usize>(&self, hash: u64, key: &FlowKey) -> Option<usize> {
        let bucket = self.bucket(hash);
        let mut ways = Bucket::ways(self.buckets[bucket].matches(Bucket::tag(hash)));
        ways.find(|way| self.entries[bucket * WAYS + way].holds::<N>(&self.backs, bucket * WAYS + way, key))
            .map(|way| bucket * WAYS + way)
    }

    fn locate<const N: usize>(&self, key: &FlowKey) -> (u64, Option<usize>) {
        let hash = self.hash_first::<N>(key);
        (hash, self.search::<N>(hash, key))
    }

    fn make_room(&mut self, hash: u64, port: u16) -> usize {
        let home = self.home(hash);
        let first = home / WAYS * WAYS;
        let entries = &mut self.entries[first..first + WAYS];
        let victim = self.buckets[home / WAYS].victim(port, home % WAYS, |way| entries[way].spare());
        if victim.was_occupied {
            self.counters.evictions += 1;
        } else {
            self.counters.inserts += 1;
        }
        first + victim.way
    }

    #[inline]
    fn hash_first<const N: usize>(&self, key: &FlowKey) -> u64 {
        let words = key.words();
        match N {
            2 => self.hash.two([words[0], words[1]]),
            3 => self.hash.three([words[0], words[1], words[2]]),
            _ => self.hash.eight(words),
        }
    }

    /// The place that a key has if nobody was there before.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.entries.len() - 1)
    }

    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        (hash as usize / WAYS) & (self.buckets.len() - 1)
    }
}

impl<V> Entry<V> {
    /// Whether the entry at `at` has the key's first `N` words.
    #[inline]
    fn holds<const N: usize>(&self, backs: &[Back], at: usize, key: &FlowKey) -> bool {
        let words = key.words();
        let differ = |key: &[u64], held: &[u64]| key.iter().zip(held).fold(0, |bits, (a, b)| bits | (a ^ b));
        let mut differing = differ(&words[..N.min(FRONT)], &self.front);
        if N > FRONT {
            differing |= differ(&words[FRONT..], &backs[at].0);
        }
        differing == 0
    }

    /// Whether what was decided still is what would be decided.
    #[inline]
    fn stands(&self, current: Current<'_>) -> bool {
        self.generation_and_hit | 1 == current.generation << 1 | 1 && self.is_witnessed(current.versions)
    }

    /// Whether what it was decided by has not changed.
    #[inline]
    fn is_witnessed(&self, versions: &Versions) -> bool {
        let [first, second] = self.witnesses();
        versions.is_current(first) && versions.is_current(second)
    }

    /// The same, and notes it.
    #[inline]
    fn confirm(&mut self, versions: &Versions) -> bool {
        // Before the slots are looked at: a change that comes meanwhile makes it another count.
        let changes = versions.changes();
        if self.confirmed == changes {
            return true;
        }
        let is_witnessed = self.is_witnessed(versions);
        if is_witnessed {
            self.confirmed = changes;
        }
        is_witnessed
    }

    /// Marks an entry of this generation as hit; false if it is of another.
    #[inline]
    fn hit(&mut self, generation: u32) -> bool {
        let marked = generation << 1 | 1;
        // Nearly always: it was hit before, and nothing is written.
        if self.generation_and_hit == marked {
            return true;
        }
        let is_current = self.generation_and_hit | 1 == marked;
        self.generation_and_hit |= u32::from(is_current);
        is_current
    }

    /// Whether it was hit since this was last asked.
    fn spare(&mut self) -> bool {
        let was_hit = self.generation_and_hit & 1 == 1;
        self.generation_and_hit &= !1;
        was_hit
    }

    #[inline]
    fn witnesses(&self) -> [Witness; 2] {
        [0, 1].map(|at| Witness { slot: self.slots[at], version: self.versions[at] })
    }
}
