//! The FDB: which port a MAC address is behind, for all bridges and VLANs in one table.
//!
//! Workers look up and learn on a flow-cache miss, and touch the source's stamp on a hit; control
//! threads add static entries and load those of controllers, sweep out the aged ones, remove ports and list. The table knows bridges,
//! ports and workers as numbers, and no clock: the time is passed in, in seconds of any clock that only
//! goes forward.
//!
//! **Shape.** Allocated once. A key has two buckets by its keyed hash and goes into the emptier one;
//! with two and a half places an entry or more, both are full only by a chance that does not happen.
//! Nothing ever moves from bucket to bucket, so a reader that misses a key while others write cannot
//! have overlooked it.
//!
//! **Threads.** A lookup takes no lock and never waits: a few tries under the bucket's sequence number,
//! then it is a miss. Learning what is known already is a lookup. A new or moved address takes the locks
//! of its two buckets, again only by a few tries ([`Learned::Busy`]: the next frame learns it); only
//! control threads wait for a lock.
//!
//! **Staleness.** Every answer comes with a [`Witness`]: a version slot that any change of that key
//! advances, also its first insertion. A cached decision is as good as its witnesses. Answers that must
//! not be kept carry [`Witness::STALE`].
//!
//! **Moves.** A station that moves [`MOVES`] times within [`WINDOW_S`] seconds is held where it is for [`HOLD_S`]: there
//! are two of it, or a loop. The sweep ends the hold. Each hold, and each try to learn a station that is elsewhere than
//! it may be, is an [`Alarm`]; what the flow cache knows of raises none.
//!
//! **Age.** A hit must not write what another worker writes: each worker has its own array of stamps, in
//! seconds, by [`Location`]; an entry was last seen at the latest of them.

mod bucket;
mod entry;
mod home;
mod quota;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use self::bucket::{Bucket, Contended, Packed, WAYS};
pub use self::entry::{Alarm, Entry, Kind, Location, MacKey};
use self::home::{Home, Pair, locate};
use self::quota::Quota;
use super::versions::{Versions, Witness};
use crate::flow::hash::HashKey;

/// Moves of a station after which it is held (RFC 7432, section 15.1).
pub const MOVES: u32 = 5;

/// For so long moves are counted together, in seconds (RFC 7432, section 15.1).
pub const WINDOW_S: u32 = 180;

/// For so long a station is held, in seconds.
pub const HOLD_S: u32 = 30;

/// Alarms that are kept until somebody takes them; further ones are forgotten.
const ALARMS: usize = 256;

/// An answer that names a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Index of the port that the address is behind.
    pub port: u16,
    /// Where the entry came from.
    pub kind: Kind,
    /// It has moved too often, and stays for a while.
    pub held: bool,
    /// What [`Fdb::touch`] wants.
    pub location: Location,
}

/// The answer to a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup {
    /// The entry, if there is one.
    pub found: Option<Found>,
    /// What a cached decision keeps; also of a miss.
    pub witness: Witness,
}

/// What learning an address came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// It is known on this port.
    Known,
    /// It was not known, and is now.
    New,
    /// It was behind another port.
    Moved {
        /// Index of the port that it left.
        from: u16,
    },
    /// The configuration or a controller says that it is behind another port: nothing changed.
    Static,
    /// It has moved too often, and is held behind another port for a while: nothing changed.
    Held,
    /// The table is full (or, hardly ever, both buckets are): nothing changed.
    LimitTable,
    /// The bridge has as many learned addresses as it may: nothing changed.
    LimitBridge,
    /// The port has as many learned addresses as it may: nothing changed.
    LimitPort,
    /// Another thread holds a bucket: nothing changed; the next frame will do.
    Busy,
}

/// The result of [`Fdb::learn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learn {
    /// What it came to.
    pub outcome: Learned,
    /// The entry to touch on later hits: present for `Known`, `New` and `Moved`.
    pub location: Option<Location>,
    /// What a cached decision keeps; stale from the start where nothing could be learned for want of
    /// room, so that the next frame tries again.
    pub witness: Witness,
}

/// An entry was refused because the table is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the FDB is full: raise `[limits] fdb`, now {limit} entries")]
pub struct Full {
    /// Entries that the table may hold.
    pub limit: u32,
}

/// The fixed sizes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Entries it may hold.
    pub entries: u32,
    /// Bridge indices are below this.
    pub bridges: usize,
    /// Port indices are below this.
    pub ports: usize,
    /// Those from here on are of remotes, behind which a station that was loaded stays.
    pub first_remote: u16,
    /// Worker indices are below this.
    pub workers: usize,
}

impl Default for Size {
    fn default() -> Size {
        Size { entries: 131_072, bridges: 1024, ports: 4096, first_remote: 4096, workers: 1 }
    }
}

/// When a worker saw a frame of each entry.
#[derive(Clone, Copy, Debug)]
pub struct Stamps<'a>(&'a [AtomicU32]);

impl Stamps<'_> {
    /// Fetches the stamp of an entry.
    #[inline]
    pub fn prefetch(self, location: Location) {
        if let Some(stamp) = self.0.get(location.0 as usize) {
            pmd::prefetch(stamp);
        }
    }

    /// What [`Fdb::touch`] does; nothing for [`Location::NOWHERE`].
    #[inline]
    pub fn touch(self, location: Location, now_s: u32) {
        if let Some(stamp) = self.0.get(location.0 as usize)
            && stamp.load(Ordering::Relaxed) != now_s
        {
            stamp.store(now_s, Ordering::Relaxed);
        }
    }
}

/// The table.
#[derive(Debug)]
pub struct Fdb {
    buckets: Box<[Bucket]>,
    versions: Versions,
    stamps: Box<[Box<[AtomicU32]>]>,
    hash: HashKey,
    /// All entries.
    total: CachePadded<Quota>,
    /// Learned entries by bridge.
    bridges: Box<[Quota]>,
    /// Learned entries by port.
    ports: Box<[Quota]>,
    first_remote: u16,
    /// By location: in the low eight bits how often the station has moved, above them since when that is counted, or when
    /// its hold began. Written under the bucket's lock.
    moves: Box<[AtomicU32]>,
    alarms: ArrayQueue<Alarm>,
}

impl Fdb {
    /// A table of `size` that hashes by `seed`. Bridges and ports have no limits of their own yet.
    pub fn new(size: Size, seed: u64) -> Fdb {
        let count = (size.entries as usize).div_ceil(2).next_power_of_two().clamp(16, 1 << 24);
        let stamps = || {
            let stamps: Box<[AtomicU32]> = (0..count * WAYS).map(|_| AtomicU32::new(0)).collect();
            pmd::huge::collapse(&stamps);
            stamps
        };
        let quotas = |count: usize| (0..count).map(|_| Quota::new(u32::MAX)).collect();
        Fdb {
            buckets: (0..count).map(|_| Bucket::new()).collect(),
            versions: Versions::new(),
            stamps: (0..size.workers).map(|_| stamps()).collect(),
            hash: HashKey::from_seed(seed),
            total: CachePadded::new(Quota::new(size.entries)),
            bridges: quotas(size.bridges),
            ports: quotas(size.ports),
            first_remote: size.first_remote,
            moves: (0..count * WAYS).map(|_| AtomicU32::new(0)).collect(),
            alarms: ArrayQueue::new(ALARMS),
        }
    }

    /// Which port `key` is behind. Takes no lock and never waits.
    #[inline]
    pub fn lookup(&self, key: MacKey) -> Lookup {
        let wanted = Packed::new(key, 0, Kind::Learned);
        let home = self.home(wanted);
        let witness = self.versions.witness(home.slot);
        match self.find(home, wanted) {
            Ok(found) => Lookup { found: found.map(|(location, entry)| entry.found(location)), witness },
            Err(Contended) => Lookup { found: None, witness: Witness::STALE },
        }
    }

    /// Notes that a frame from `key` came in by `port`. Never waits.
    pub fn learn(&self, key: MacKey, port: u16, worker: usize, now_s: u32) -> Learn {
        let wanted = Packed::new(key, port, Kind::Learned);
        let home = self.home(wanted);
        let witness = self.versions.witness(home.slot);
        if let Ok(Some((location, entry))) = self.find(home, wanted)
            && (entry.port() == port || !self.gives_way(entry, port))
        {
            return self.confirm(entry, port, location, witness, worker, now_s);
        }
        let Some(mut pair) = self.try_lock(home) else { return Learn::refused(Learned::Busy) };
        let changed = match pair.find(wanted) {
            // Another worker was faster.
            Some((location, entry)) if entry.port() == port || !self.gives_way(entry, port) => {
                let witness = self.versions.witness(home.slot);
                return self.confirm(entry, port, location, witness, worker, now_s);
            }
            Some((location, entry)) => self.change_port(&mut pair, location, entry, wanted, now_s),
            None => self.insert(&mut pair, wanted),
        };
        match changed {
            Ok((outcome, location)) => {
                self.reset_stamps(location, Some(worker), now_s);
                // Under the locks: a later change of this key gets a later version than ours.
                Learn { outcome, location: Some(location), witness: self.versions.advance(home.slot) }
            }
            Err(limit) => Learn::refused(limit),
        }
    }

    /// What [`Fdb::learn`] would come to if nobody else learned meanwhile; changes nothing.
    pub fn foresee(&self, key: MacKey, port: u16) -> Learned {
        let found = self.lookup(key).found;
        let is_full =
            |quotas: &[Quota], index: u16| quotas.get(usize::from(index)).is_none_or(Quota::is_full);
        match found {
            Some(found) if found.port == port => Learned::Known,
            Some(found) if found.held => Learned::Held,
            Some(found) if !self.is_movable(found.kind, port) => Learned::Static,
            _ if is_full(&self.ports, port) => Learned::LimitPort,
            // It takes a place of the bridge, which only what is learned does.
            Some(found) if found.kind == Kind::Loaded && is_full(&self.bridges, key.bridge) => {
                Learned::LimitBridge
            }
            Some(found) => Learned::Moved { from: found.port },
            None if is_full(&self.bridges, key.bridge) => Learned::LimitBridge,
            None if self.total.is_full() => Learned::LimitTable,
            None => Learned::New,
        }
    }

    /// Notes that a frame from the entry at `location` was seen: what a flow-cache hit does. Writes at
    /// most once a second, and only what this worker alone writes.
    #[inline]
    pub fn touch(&self, worker: usize, location: Location, now_s: u32) {
        self.stamps(worker).touch(location, now_s);
    }

    /// A worker's own stamps, to be touched many times.
    #[inline]
    pub fn stamps(&self, worker: usize) -> Stamps<'_> {
        Stamps(self.stamps.get(worker).map_or(&[], |stamps| stamps))
    }

    /// The version slots, for the flow cache to check its witnesses against.
    #[inline]
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Puts `key` behind `port` whatever frames say. Replaces any entry of the key.
    pub fn add_static(&self, key: MacKey, port: u16) -> Result<(), Full> {
        self.put(Packed::new(key, port, Kind::Static), |_| false)
    }

    /// Puts `key` behind `port` as a controller says. A static entry stays, and so does a station that was learned at
    /// a port of this host, unless the controller says something new (`anew`).
    pub fn load(&self, key: MacKey, port: u16, anew: bool) -> Result<(), Full> {
        let wanted = Packed::new(key, port, Kind::Loaded);
        self.put(wanted, |before| match before.kind() {
            Kind::Static => true,
            Kind::Loaded => before == wanted,
            Kind::Learned => !anew && before.port() < self.first_remote,
        })
    }

    /// Puts an entry into its place, unless the one that is there `stays`.
    fn put(&self, wanted: Packed, stays: impl Fn(Packed) -> bool) -> Result<(), Full> {
        let home = self.home(wanted);
        let mut pair = self.lock(home);
        let location = match pair.find(wanted) {
            Some((_, before)) if stays(before) => return Ok(()),
            Some((location, before)) => {
                self.release_learned(before);
                location
            }
            None => {
                let full = Full { limit: self.total.limit() };
                let location = pair.free().ok_or(full)?;
                if !self.total.take() {
                    return Err(full);
                }
                location
            }
        };
        self.moves[location.0 as usize].store(0, Ordering::Relaxed);
        pair.put(location, wanted);
        self.reset_stamps(location, None, 0);
        self.versions.advance(home.slot);
        Ok(())
    }

    /// Removes the entry of `key` if it is a controller's.
    pub fn unload(&self, key: MacKey) {
        self.remove_if(key, |entry| entry.kind() == Kind::Loaded);
    }

    /// Removes the entry of `key`, of any kind; whether there was one.
    pub fn remove(&self, key: MacKey) -> bool {
        self.remove_if(key, |_| true)
    }

    fn remove_if(&self, key: MacKey, doomed: impl Fn(Packed) -> bool) -> bool {
        let wanted = Packed::new(key, 0, Kind::Learned);
        let home = self.home(wanted);
        let mut pair = self.lock(home);
        let Some((location, entry)) = pair.find(wanted).filter(|(_, entry)| doomed(*entry)) else {
            return false;
        };
        pair.clear(location);
        self.release(entry);
        self.versions.advance(home.slot);
        true
    }

    /// Removes all entries of a port; how many. Frames from it must have ceased, or they learn it anew.
    pub fn remove_port(&self, port: u16) -> usize {
        self.flush(|entry| entry.port == port)
    }

    /// Removes all entries of a bridge; how many. Frames in it must have ceased, or they learn it anew.
    pub fn remove_bridge(&self, bridge: u16) -> usize {
        self.flush(|entry| entry.key.bridge == bridge)
    }

    /// Removes all entries, of any kind, that `doomed` picks; how many.
    pub fn flush(&self, doomed: impl Fn(&Entry) -> bool) -> usize {
        (0..self.buckets.len() as u32).map(|index| self.remove_in(index, &doomed, &mut |_| {})).sum()
    }

    /// Removes what has aged in `count` buckets from `start` on, tells `gone` of each, and returns where
    /// to go on; 0 when the table is through. `ageing_s` gives a bridge's ageing time (`u32::MAX`: none).
    /// A control thread goes round the table by this, a piece at a time.
    pub fn sweep(
        &self,
        start: u32,
        count: u32,
        now_s: u32,
        ageing_s: impl Fn(u16) -> u32,
        mut gone: impl FnMut(&Entry),
    ) -> u32 {
        let end = start.saturating_add(count).min(self.buckets.len() as u32);
        let doomed =
            |entry: &Entry| entry.kind == Kind::Learned && entry.age_s(now_s) >= ageing_s(entry.key.bridge);
        for index in start..end {
            self.remove_in(index, &doomed, &mut gone);
            self.end_holds(index, now_s);
        }
        if end == self.buckets.len() as u32 { 0 } else { end }
    }

    /// How many buckets [`Fdb::sweep`] has to go through.
    pub fn bucket_count(&self) -> u32 {
        self.buckets.len() as u32
    }

    /// All entries, bucket by bucket, each bucket as it is when the iterator gets there.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..self.buckets.len() as u32).flat_map(move |index| {
            let entries = loop {
                match self.buckets[index as usize].entries() {
                    Ok(entries) => break entries,
                    Err(Contended) => std::thread::yield_now(),
                }
            };
            (0..WAYS)
                .zip(entries)
                .filter_map(move |(way, entry)| Some(self.describe(locate(index, way), entry?)))
        })
    }

    /// Entries in the table.
    pub fn len(&self) -> u32 {
        self.total.count()
    }

    /// Whether the table has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Learned entries of a bridge.
    pub fn bridge_len(&self, bridge: u16) -> u32 {
        self.bridges.get(usize::from(bridge)).map_or(0, Quota::count)
    }

    /// Learned entries of a port.
    pub fn port_len(&self, port: u16) -> u32 {
        self.ports.get(usize::from(port)).map_or(0, Quota::count)
    }

    /// Sets how many learned entries a bridge may have. What is there already stays.
    pub fn set_bridge_limit(&self, bridge: u16, limit: u32) {
        if let Some(quota) = self.bridges.get(usize::from(bridge)) {
            quota.set_limit(limit);
        }
    }

    /// Sets how many learned entries a port may have. What is there already stays.
    pub fn set_port_limit(&self, port: u16, limit: u32) {
        if let Some(quota) = self.ports.get(usize::from(port)) {
            quota.set_limit(limit);
        }
    }

    #[inline]
    fn home(&self, wanted: Packed) -> Home {
        let hash = self.hash.two(wanted.hashed());
        let mask = self.buckets.len() as u32 - 1;
        let first = hash as u32 & mask;
        let second = (hash >> 24) as u32 & mask;
        // Two buckets in any case, so that two are always there to lock.
        let second = if second == first { first ^ 1 } else { second };
        Home { buckets: [first, second], slot: self.versions.slot(hash) }
    }

    #[inline]
    fn find(&self, home: Home, wanted: Packed) -> Result<Option<(Location, Packed)>, Contended> {
        let [first, second] = home.buckets;
        let in_first = self.buckets[first as usize].find(wanted);
        if let Ok(Some((way, entry))) = in_first {
            return Ok(Some((locate(first, way), entry)));
        }
        match self.buckets[second as usize].find(wanted)? {
            Some((way, entry)) => Ok(Some((locate(second, way), entry))),
            None => in_first.map(|_| None),
        }
    }

    fn try_lock(&self, home: Home) -> Option<Pair<'_>> {
        Pair::take(home, |index| self.buckets[index as usize].try_lock())
    }

    fn lock(&self, home: Home) -> Pair<'_> {
        loop {
            // Both by tries: a thread that waits for one must not hold the other.
            if let Some(pair) = self.try_lock(home) {
                return pair;
            }
            std::thread::yield_now();
        }
    }

    fn confirm(
        &self,
        entry: Packed,
        port: u16,
        location: Location,
        witness: Witness,
        worker: usize,
        now_s: u32,
    ) -> Learn {
        if entry.port() != port {
            let _ =
                self.alarms.push(Alarm { key: entry.key(), at: entry.port(), seen: port, flapping: false });
            let outcome = if entry.is_held() { Learned::Held } else { Learned::Static };
            return Learn { outcome, location: None, witness };
        }
        self.touch(worker, location, now_s);
        Learn { outcome: Learned::Known, location: Some(location), witness }
    }

    /// Whether an entry moves with a frame that comes by another `port`.
    #[inline]
    fn gives_way(&self, entry: Packed, port: u16) -> bool {
        !entry.is_held() && self.is_movable(entry.kind(), port)
    }

    #[inline]
    fn is_movable(&self, kind: Kind, port: u16) -> bool {
        match kind {
            Kind::Learned => true,
            Kind::Loaded => port < self.first_remote,
            Kind::Static => false,
        }
    }

    fn change_port(
        &self,
        pair: &mut Pair<'_>,
        location: Location,
        before: Packed,
        wanted: Packed,
        now_s: u32,
    ) -> Result<(Learned, Location), Learned> {
        let quota = self.ports.get(usize::from(wanted.port())).ok_or(Learned::LimitPort)?;
        if !quota.take() {
            return Err(Learned::LimitPort);
        }
        if before.kind() == Kind::Loaded
            && !self.bridges.get(usize::from(wanted.key().bridge)).is_some_and(Quota::take)
        {
            quota.give();
            return Err(Learned::LimitBridge);
        }
        if let Some(quota) =
            self.ports.get(usize::from(before.port())).filter(|_| before.kind() == Kind::Learned)
        {
            quota.give();
        }
        let flapping = self.count_move(location, now_s);
        if flapping {
            let _ = self.alarms.push(Alarm {
                key: wanted.key(),
                at: wanted.port(),
                seen: before.port(),
                flapping,
            });
        }
        pair.put(location, wanted.held(flapping));
        Ok((Learned::Moved { from: before.port() }, location))
    }

    /// Counts a move; whether it is one too many.
    fn count_move(&self, location: Location, now_s: u32) -> bool {
        let moves = &self.moves[location.0 as usize];
        let (count, since) = unpack_moves(moves.load(Ordering::Relaxed));
        let is_new = count == 0 || elapsed(since, now_s) >= WINDOW_S;
        let (count, since) = if is_new { (1, now_s) } else { (count + 1, since) };
        let flapping = count == MOVES;
        moves.store(if flapping { now_s << 8 | count } else { since << 8 | count }, Ordering::Relaxed);
        flapping
    }

    /// Lets those in a bucket go whose hold has lasted long enough.
    fn end_holds(&self, index: u32, now_s: u32) {
        let bucket = &self.buckets[index as usize];
        let is_held = |entry: &Option<Packed>| entry.is_some_and(Packed::is_held);
        if bucket.entries().is_ok_and(|entries| !entries.iter().any(is_held)) {
            return;
        }
        let mut locked = bucket.lock();
        for way in 0..WAYS {
            let Some(packed) = locked.entry(way).filter(|packed| packed.is_held()) else { continue };
            let moves = &self.moves[locate(index, way).0 as usize];
            if elapsed(unpack_moves(moves.load(Ordering::Relaxed)).1, now_s) >= HOLD_S {
                moves.store(0, Ordering::Relaxed);
                locked.put(way, packed.held(false));
                // What was decided about its frames from elsewhere is decided anew.
                self.versions.advance(self.home(packed).slot);
            }
        }
    }

    /// The next alarm that nobody has taken yet.
    pub fn next_alarm(&self) -> Option<Alarm> {
        self.alarms.pop()
    }

    fn insert(&self, pair: &mut Pair<'_>, wanted: Packed) -> Result<(Learned, Location), Learned> {
        let port = self.ports.get(usize::from(wanted.port())).ok_or(Learned::LimitPort)?;
        let bridge = self.bridges.get(usize::from(wanted.key().bridge)).ok_or(Learned::LimitBridge)?;
        let location = pair.free().ok_or(Learned::LimitTable)?;
        if !port.take() {
            return Err(Learned::LimitPort);
        }
        if !bridge.take() {
            port.give();
            return Err(Learned::LimitBridge);
        }
        if !self.total.take() {
            port.give();
            bridge.give();
            return Err(Learned::LimitTable);
        }
        self.moves[location.0 as usize].store(0, Ordering::Relaxed);
        pair.put(location, wanted);
        Ok((Learned::New, location))
    }

    fn remove_in(
        &self,
        index: u32,
        doomed: &impl Fn(&Entry) -> bool,
        gone: &mut impl FnMut(&Entry),
    ) -> usize {
        let bucket = &self.buckets[index as usize];
        let is_doomed = |(way, entry)| doomed(&self.describe(locate(index, way), entry));
        if let Ok(entries) = bucket.entries()
            && !(0..WAYS).zip(entries).any(|(way, entry)| entry.is_some_and(|entry| is_doomed((way, entry))))
        {
            return 0;
        }
        let mut locked = bucket.lock();
        let mut removed = 0;
        for way in 0..WAYS {
            let Some(packed) = locked.entry(way) else { continue };
            let entry = self.describe(locate(index, way), packed);
            if doomed(&entry) {
                locked.clear(way);
                self.release(packed);
                self.versions.advance(self.home(packed).slot);
                gone(&entry);
                removed += 1;
            }
        }
        removed
    }

    /// Gives back what an entry that is no more had taken.
    fn release(&self, entry: Packed) {
        self.total.give();
        self.release_learned(entry);
    }

    fn release_learned(&self, entry: Packed) {
        if entry.kind() != Kind::Learned {
            return;
        }
        let bridge = self.bridges.get(usize::from(entry.key().bridge));
        for quota in bridge.into_iter().chain(self.ports.get(usize::from(entry.port()))) {
            quota.give();
        }
    }

    /// Forgets when the former user of a place was seen; the new one was seen by `worker` just now.
    fn reset_stamps(&self, location: Location, worker: Option<usize>, now_s: u32) {
        for (index, stamps) in self.stamps.iter().enumerate() {
            let seen = if Some(index) == worker { now_s } else { 0 };
            stamps[location.0 as usize].store(seen, Ordering::Relaxed);
        }
    }

    fn describe(&self, location: Location, entry: Packed) -> Entry {
        let stamps = self.stamps.iter().map(|stamps| stamps[location.0 as usize].load(Ordering::Relaxed));
        let seen_s = stamps.max().unwrap_or(0);
        Entry { key: entry.key(), port: entry.port(), kind: entry.kind(), seen_s, location }
    }
}

impl Learn {
    fn refused(outcome: Learned) -> Learn {
        Learn { outcome, location: None, witness: Witness::STALE }
    }
}

impl Packed {
    #[inline]
    fn found(self, location: Location) -> Found {
        Found { port: self.port(), kind: self.kind(), held: self.is_held(), location }
    }
}

/// How often, and since when.
fn unpack_moves(word: u32) -> (u32, u32) {
    (word & 0xff, word >> 8)
}

/// Seconds since a time of which the low 24 bits are kept; none if another's clock is a little ahead.
fn elapsed(since: u32, now_s: u32) -> u32 {
    ((now_s.wrapping_sub(since) << 8) as i32 >> 8).max(0) as u32
}
