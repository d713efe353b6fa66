//! The neighbour table: which station of a bridge has which IP address.
//!
//! Who writes it: workers, of what they overhear (ARP, neighbour discovery, DHCP; see
//! [`pipeline::neighbour`](crate::pipeline::neighbour)), and the control side, of what is configured or loaded by a
//! controller. Who reads it: workers, that answer stations from it, and the control side. What is configured or loaded
//! neither ages nor gives way; what is overheard gives way to who claims the address next, as it does in every
//! kernel, and each such change is kept as a [`Conflict`] for somebody to judge. It knows no frames and no names.
//!
//! Nobody fills it alone: it is counted how many entries each port and remote has brought, and in a table without room
//! something of one that has brought many gives way to one that has brought few. What is refused all the same is told
//! of ([`Neighbours::next_refused`]).
//!
//! Fixed in size: all memory is had when the table is made. It is cut into shards, each behind a lock. A worker only
//! tries a lock: a busy shard has no entry for it, and takes none from it. Frames that come here are few and on a slow
//! way, and what is missed is flooded, as it would be without the table.
//!
//! How long an overheard entry lives is not told by its own age: stations that have talked to each other once may go on
//! for days without a word that is heard here. It lives as long as the MAC table knows its station, which every
//! frame of that refreshes; [`Neighbours::sweep`] is told.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use crossbeam::queue::ArrayQueue;
use hashbrown::HashTable;

use crate::flow::hash::HashKey;
use crate::overlay::Address;

/// Shards of a table.
pub const SHARDS: usize = 64;

/// Conflicts that are kept until somebody takes them; further ones are forgotten.
const CONFLICTS: usize = 256;

/// Ports without room that are kept until somebody takes them.
const REFUSED: usize = 64;

/// So many entries are looked at for one that gives way: enough to meet one of whoever has most of them.
const SAMPLE: usize = 16;

/// The port of what no frame says.
const NO_PORT: u16 = u16::MAX;

/// What an entry is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighbourKey {
    /// The bridge, by index.
    pub bridge: u16,
    /// The VLAN, 0 for none.
    pub vlan: u16,
    /// The IP address.
    pub ip: Address,
}

/// How a neighbour is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By the configuration.
    Config,
    /// By a controller.
    Api,
    /// By its ARP.
    Arp,
    /// By its neighbour discovery.
    Nd,
    /// By the answer of a DHCP server.
    Dhcp,
}

impl Origin {
    /// Whether somebody says so who has not to be told by frames.
    #[inline]
    pub fn is_fixed(self) -> bool {
        matches!(self, Origin::Config | Origin::Api)
    }
}

/// Who has an address, as a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address, and where.
    pub key: NeighbourKey,
    /// Who has it.
    pub mac: [u8; 6],
    /// What said so.
    pub origin: Origin,
    /// Whether it is a router, where that was said.
    pub router: Option<bool>,
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Who has which address.
    pub claim: Claim,
    /// The port or the remote whose frame said so, by index.
    pub port: u16,
    /// When that was heard last, in seconds of the switch's clock.
    pub seen_s: u32,
}

/// A station claims what another one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub key: NeighbourKey,
    /// Who has it, or had it until now.
    pub holder: [u8; 6],
    /// Whether the holder is configured, and keeps it.
    pub fixed: bool,
    /// Who claims it.
    pub claimant: [u8; 6],
}

/// The table has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the neighbour table has no room for more than {limit} entries ([limits] neighbours)")]
pub struct Full {
    /// Entries that it may have.
    pub limit: u32,
}

type Shard = HashTable<Neighbour>;

/// The table.
#[derive(Debug)]
pub struct Neighbours {
    shards: Box<[RwLock<Shard>]>,
    /// Entries of one shard at most.
    room: usize,
    limit: u32,
    count: AtomicU32,
    hash: HashKey,
    conflicts: ArrayQueue<Conflict>,
    /// Entries by the port that brought them.
    shares: Box<[AtomicU32]>,
    refused: ArrayQueue<u16>,
}

/// One that takes nothing.
impl Default for Neighbours {
    fn default() -> Neighbours {
        Neighbours::new(0, 0, 0)
    }
}

impl Neighbours {
    /// A table of at most `limit` entries, brought by ports below `ports`, hashed by `seed`.
    pub fn new(limit: u32, ports: usize, seed: u64) -> Neighbours {
        let mean = limit as usize / SHARDS;
        // Six deviations above the mean, which no hash reaches by chance.
        let room = (mean + 6 * mean.isqrt() + 16).min(limit as usize);
        // Twice the room, so that what deleted entries leave behind never makes the table grow.
        let shard = || RwLock::new(Shard::with_capacity(2 * room));
        Neighbours {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            room,
            limit,
            count: AtomicU32::new(0),
            hash: HashKey::from_seed(seed),
            conflicts: ArrayQueue::new(CONFLICTS),
            shares: (0..ports).map(|_| AtomicU32::new(0)).collect(),
            refused: ArrayQueue::new(REFUSED),
        }
    }

    /// Who has an address, as far as is known and nobody is just writing it. Never waits.
    pub fn find(&self, key: &NeighbourKey) -> Option<Neighbour> {
        let (hash, shard) = self.place(key);
        let shard = unpoisoned(shard.try_read())?;
        shard.find(hash, |entry| entry.claim.key == *key).copied()
    }

    /// Takes in what was overheard of a frame from `port`. Never waits: what cannot be written now is forgotten.
    pub fn hear(&self, claim: &Claim, port: u16, now_s: u32) {
        let (hash, shard) = self.place(&claim.key);
        let is_known = |entry: &Neighbour| {
            entry.seen_s == now_s
                && entry.claim.mac == claim.mac
                && claim.router.is_none_or(|router| entry.claim.router == Some(router))
        };
        if self.find(&claim.key).is_some_and(|entry| is_known(&entry)) {
            return;
        }
        let Some(mut shard) = unpoisoned(shard.try_write()) else { return };
        match shard.find_mut(hash, |entry| entry.claim.key == claim.key) {
            Some(entry) if entry.claim.mac == claim.mac => {
                entry.seen_s = now_s;
                if !entry.claim.origin.is_fixed() {
                    self.bring(std::mem::replace(&mut entry.port, port), port);
                    entry.claim.origin = claim.origin;
                    entry.claim.router = claim.router.or(entry.claim.router);
                }
            }
            Some(entry) => {
                let (holder, fixed) = (entry.claim.mac, entry.claim.origin.is_fixed());
                let conflict = Conflict { key: claim.key, holder, fixed, claimant: claim.mac };
                // Who is to judge has enough to do if it does not fit.
                let _ = self.conflicts.push(conflict);
                if !fixed {
                    self.bring(entry.port, port);
                    *entry = Neighbour { claim: *claim, port, seen_s: now_s };
                }
            }
            None => {
                let entry = Neighbour { claim: *claim, port, seen_s: now_s };
                let is_in = self.insert(&mut shard, hash, entry).is_ok()
                    || (self.give_way(&mut shard, hash, port)
                        && self.insert(&mut shard, hash, entry).is_ok());
                if !is_in {
                    let _ = self.refused.push(port);
                }
            }
        }
    }

    /// Forgets what was overheard of an address, if it is another one's than `mac`'s: somebody asks whether it is still
    /// in use, and who uses it will say so. Never waits.
    pub fn doubt(&self, key: &NeighbourKey, mac: [u8; 6]) {
        let (hash, shard) = self.place(key);
        let Some(mut shard) = unpoisoned(shard.try_write()) else { return };
        let doubted = |entry: &Neighbour| {
            entry.claim.key == *key && !entry.claim.origin.is_fixed() && entry.claim.mac != mac
        };
        if let Ok(entry) = shard.find_entry(hash, doubted) {
            self.uncount(&entry.remove().0);
        }
    }

    /// Says who has an address, whatever frames say. What is configured stands above what is loaded. If the table is
    /// full, something that was overheard gives way.
    ///
    /// # Errors
    /// There is nothing that could give way.
    pub fn put(&self, key: NeighbourKey, mac: [u8; 6], origin: Origin) -> Result<(), Full> {
        let entry = Neighbour { claim: Claim { key, mac, origin, router: None }, port: NO_PORT, seen_s: 0 };
        let full = match self.try_put(entry) {
            Ok(()) => return Ok(()),
            Err(full) => full,
        };
        let (_, own) = self.place(&key);
        // Its own shard first: that may be what is full.
        let made_room = std::iter::once(own).chain(&self.shards).any(|shard| self.evict(&mut write(shard)));
        if made_room { self.try_put(entry) } else { Err(full) }
    }

    fn try_put(&self, entry: Neighbour) -> Result<(), Full> {
        let (hash, shard) = self.place(&entry.claim.key);
        let mut shard = write(shard);
        match shard.find_mut(hash, |known| known.claim.key == entry.claim.key) {
            Some(known) if known.claim.origin == Origin::Config && entry.claim.origin == Origin::Api => {}
            Some(known) => {
                self.bring(known.port, entry.port);
                *known = entry;
            }
            None => return self.insert(&mut shard, hash, entry),
        }
        Ok(())
    }

    /// Removes the entry of an address if it is of `origin`; whether it was.
    pub fn remove(&self, key: &NeighbourKey, origin: Origin) -> bool {
        let (hash, shard) = self.place(key);
        let mut shard = write(shard);
        let wanted = |entry: &Neighbour| entry.claim.key == *key && entry.claim.origin == origin;
        let found = shard.find_entry(hash, wanted).map(|entry| entry.remove().0);
        found.inspect(|entry| self.uncount(entry)).is_ok()
    }

    /// Removes all that was overheard and is not to be `kept`, in `count` shards from `start` on; gives where to go on,
    /// 0 when the table is through.
    pub fn sweep(&self, start: usize, count: usize, kept: impl Fn(&Neighbour) -> bool) -> usize {
        let end = (start + count).min(SHARDS);
        for shard in &self.shards[start..end] {
            self.retain(shard, |entry| entry.claim.origin.is_fixed() || kept(entry));
        }
        end % SHARDS
    }

    /// Removes all of a bridge.
    pub fn remove_bridge(&self, bridge: u16) {
        for shard in &self.shards {
            self.retain(shard, |entry| entry.claim.key.bridge != bridge);
        }
    }

    fn retain(&self, shard: &RwLock<Shard>, mut kept: impl FnMut(&Neighbour) -> bool) {
        // To look for what has to go, nobody must be kept from reading.
        if read(shard).iter().all(&mut kept) {
            return;
        }
        let mut shard = write(shard);
        shard.retain(|entry| {
            let stays = kept(entry);
            if !stays {
                self.uncount(entry);
            }
            stays
        });
    }

    /// All entries, in no order.
    pub fn entries(&self) -> Vec<Neighbour> {
        self.shards.iter().flat_map(|shard| read(shard).iter().copied().collect::<Vec<_>>()).collect()
    }

    /// The next conflict that nobody has judged yet.
    pub fn next_conflict(&self) -> Option<Conflict> {
        self.conflicts.pop()
    }

    /// The next port or remote for whose neighbours there was no room, which nobody has taken yet.
    pub fn next_refused(&self) -> Option<u16> {
        self.refused.pop()
    }

    /// Entries in the table.
    pub fn len(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether the table has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn place(&self, key: &NeighbourKey) -> (u64, &RwLock<Shard>) {
        let hash = of(&self.hash, key);
        // The table itself uses the lowest bits and the highest seven.
        (hash, &self.shards[(hash >> 40) as usize % SHARDS])
    }

    fn insert(&self, shard: &mut Shard, hash: u64, entry: Neighbour) -> Result<(), Full> {
        let full = Full { limit: self.limit };
        if shard.len() >= self.room {
            return Err(full);
        }
        let more = |count: u32| (count < self.limit).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| full)?;
        self.bring(NO_PORT, entry.port);
        shard.insert_unique(hash, entry, |entry| of(&self.hash, &entry.claim.key));
        Ok(())
    }

    /// Counts an entry as brought by another port than before.
    fn bring(&self, from: u16, to: u16) {
        if let Some(share) = self.shares.get(usize::from(from)) {
            share.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(share) = self.shares.get(usize::from(to)) {
            share.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes an entry that has gone out of the counts.
    fn uncount(&self, entry: &Neighbour) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bring(entry.port, NO_PORT);
    }

    fn share(&self, port: u16) -> u32 {
        self.shares.get(usize::from(port)).map_or(0, |share| share.load(Ordering::Relaxed))
    }

    /// Removes an entry of a port that has brought more than `port` has, to make room for one whose hash this is;
    /// whether there was one.
    fn give_way(&self, shard: &mut Shard, hash: u64, port: u16) -> bool {
        // Anywhere: where entries gave way before, those of others stand.
        let buckets = shard.num_buckets();
        let place = (hash >> 20) as usize % buckets.max(1);
        // So far at most: a worker is waited for.
        let around =
            (0..buckets.min(8 * SAMPLE)).filter_map(|step| shard.get_bucket((place + step) % buckets));
        let overheard = around.filter(|entry| !entry.claim.origin.is_fixed()).take(SAMPLE);
        let victim = overheard.max_by_key(|entry| self.share(entry.port)).copied();
        // One more of the other's would only turn the two round.
        victim
            .filter(|victim| self.share(victim.port) > self.share(port) + 1)
            .is_some_and(|victim| self.take_out(shard, &victim))
    }

    /// Removes something that was overheard; whether there was anything.
    fn evict(&self, shard: &mut Shard) -> bool {
        let victim = shard.iter().find(|entry| !entry.claim.origin.is_fixed()).copied();
        victim.is_some_and(|victim| self.take_out(shard, &victim))
    }

    fn take_out(&self, shard: &mut Shard, victim: &Neighbour) -> bool {
        let hash = of(&self.hash, &victim.claim.key);
        let found = shard.find_entry(hash, |entry| entry.claim.key == victim.claim.key);
        found.map(|entry| entry.remove().0).inspect(|entry| self.uncount(entry)).is_ok()
    }
}

fn of(hash: &HashKey, key: &NeighbourKey) -> u64 {
    let bits = u128::from_be_bytes(key.ip);
    let place = u64::from(key.bridge) << 16 | u64::from(key.vlan);
    hash.three([(bits >> 64) as u64, bits as u64, place])
}

fn unpoisoned<T>(tried: Result<T, TryLockError<T>>) -> Option<T> {
    match tried {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(last: u16) -> NeighbourKey {
        let mut ip = [0; 16];
        ip[14..].copy_from_slice(&last.to_be_bytes());
        NeighbourKey { bridge: 1, vlan: 0, ip }
    }

    fn claim(last: u16, mac: u8) -> Claim {
        Claim { key: key(last), mac: [2, 0, 0, 0, 0, mac], origin: Origin::Arp, router: None }
    }

    #[test]
    fn the_limit_is_exact_and_what_is_fixed_takes_the_place_of_what_is_overheard() {
        for limit in [16, 1000] {
            let table = Neighbours::new(limit, 4, 7);
            (0..5000).for_each(|last| table.hear(&claim(last, 1), 1, 1));
            assert_eq!((table.len(), table.entries().len() as u32), (limit, limit));
            for last in 10_000..10_000 + limit as u16 {
                assert_eq!(table.put(key(last), [2; 6], Origin::Api), Ok(()), "{last}");
            }
            assert_eq!(table.len(), limit);
            assert_eq!(table.put(key(9_999), [2; 6], Origin::Config), Err(Full { limit }));
            table.remove_bridge(1);
            assert_eq!((table.len(), table.entries().len()), (0, 0));
            table.hear(&claim(1, 1), 1, 1);
            assert_eq!(table.len(), 1);
        }
    }

    #[test]
    fn one_port_does_not_fill_it_for_the_others() {
        const LIMIT: u32 = 16_384;
        let table = Neighbours::new(LIMIT, 4, 7);
        (0..20_000).for_each(|last| table.hear(&claim(last, 1), 1, 1));
        assert_eq!((table.len(), table.share(1)), (LIMIT, LIMIT));
        assert_eq!(table.next_refused(), Some(1));
        while table.next_refused().is_some() {}
        (20_000..26_000).for_each(|last| table.hear(&claim(last, 2), 2, 1));
        assert!((20_000..26_000).all(|last| table.find(&key(last)).is_some()));
        assert_eq!((table.len(), table.share(1), table.share(2)), (LIMIT, LIMIT - 6_000, 6_000));
        assert_eq!(table.next_refused(), None);
        // Up to its share, and no further.
        (30_000..40_000).for_each(|last| table.hear(&claim(last, 3), 3, 1));
        let shares = [1, 2, 3].map(|port| table.share(port));
        assert_eq!((shares.iter().sum::<u32>(), table.len()), (LIMIT, LIMIT));
        assert!(shares.iter().all(|share| share.abs_diff(LIMIT / 3) < LIMIT / 50), "{shares:?}");
        assert_eq!(table.next_refused(), Some(3));
        // A station that moves takes its entries along, and what is configured is nobody's.
        table.hear(&claim(30_000, 3), 0, 2);
        table.put(key(50_000), [2; 6], Origin::Api).unwrap();
        table.remove_bridge(1);
        assert_eq!([0, 1, 2, 3].map(|port| table.share(port)), [0; 4]);
    }

    #[test]
    fn memory_is_had_at_once() {
        let table = Neighbours::new(4096, 4, 7);
        let capacity = || table.shards.iter().map(|shard| read(shard).capacity()).sum::<usize>();
        let before = capacity();
        for round in 0..20u16 {
            (0..4096).for_each(|last| table.hear(&claim(round * 2048 + last, 1), 1, 1));
            let _ = table.sweep(0, SHARDS, |entry| entry.claim.key.ip[15].is_multiple_of(2));
        }
        assert_eq!(capacity(), before);
    }

    #[test]
    fn what_is_overheard_gives_way_and_what_is_configured_does_not() {
        let table = Neighbours::new(64, 4, 7);
        table.hear(&claim(1, 1), 1, 1);
        table.hear(&claim(1, 1), 1, 2);
        assert_eq!(table.next_conflict(), None);
        table.hear(&claim(1, 2), 1, 3);
        let seen = |last| table.find(&key(last)).map(|entry| (entry.claim.mac[5], entry.seen_s));
        assert_eq!(seen(1), Some((2, 3)));
        let conflict = table.next_conflict().unwrap();
        assert_eq!((conflict.holder[5], conflict.claimant[5], conflict.fixed), (1, 2, false));

        table.put(key(1), [2, 0, 0, 0, 0, 9], Origin::Config).unwrap();
        table.put(key(1), [2, 0, 0, 0, 0, 8], Origin::Api).unwrap();
        table.hear(&claim(1, 2), 1, 3);
        assert_eq!(seen(1), Some((9, 0)));
        assert!(table.next_conflict().unwrap().fixed);
        assert!(!table.remove(&key(1), Origin::Api));
        assert!(table.remove(&key(1), Origin::Config));
        assert_eq!((seen(1), table.len()), (None, 0));
    }

    #[test]
    fn who_writes_is_not_waited_for() {
        let table = Neighbours::new(64, 4, 7);
        table.hear(&claim(1, 1), 1, 1);
        let guards: Vec<_> = table.shards.iter().map(write).collect();
        assert_eq!(table.find(&key(1)), None);
        table.hear(&claim(2, 1), 1, 1);
        table.doubt(&key(1), [3; 6]);
        drop(guards);
        assert!(table.find(&key(1)).is_some());
        assert!(table.find(&key(2)).is_none());
    }
}
