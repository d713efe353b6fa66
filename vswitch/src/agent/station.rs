//! A station: the switch as a machine of one network, with addresses of its own.
//!
//! It answers ARP, neighbour discovery and pings, without memory: an answer goes back to whoever asked. It keeps the
//! [neighbours](super::resolver) through whom wanted remotes are reached, believes of others nothing that it did not
//! want to know, and learns how large a packet may be from [errors](super::path_mtu) that quote one of ours.
//!
//! Pure: time and frames go in, frames and events come out. The [agent](super)'s thread has many of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use control::schema::{IpPrefix, Route};

use super::bfd::Timing;
use super::event::{Event, Path, PathChange, PathMtu, Reason};
use super::frame::{Heard, Writer, echo_overhead, read};
use super::groups::Groups;
use super::liveness::{Ends, Liveness, Sessions, Spoken};
use super::path_mtu::{self, PathMtus, Quote};
use super::ping::{Ping, PingError, Pings, Pong};
use super::resolver::{Neighbour, Probe, Standing, Word};
use super::routes::Routes;
use crate::bucket::Bucket;

/// Answers a second, of each kind.
const ANSWERS: u64 = 1000;
/// Errors a second that are looked at.
const ERRORS: u64 = 100;

/// How often an address is announced, and how long after each other (RFC 5227, section 1.1: ANNOUNCE_NUM,
/// ANNOUNCE_INTERVAL).
const ANNOUNCEMENTS: u32 = 2;
const ANNOUNCE_NS: u64 = 2_000_000_000;
/// Between two defences of an address, and two events about it (DEFEND_INTERVAL).
const DEFEND_NS: u64 = 10_000_000_000;

/// What a station is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its name, by which it is spoken of.
    pub name: Arc<str>,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// The largest packet on its network.
    pub mtu: u32,
    /// The VLAN that its frames are tagged with.
    pub vlan: Option<u16>,
    /// Its addresses, with their networks.
    pub addresses: Vec<IpPrefix>,
    /// Ways to other networks.
    pub routes: Vec<Route>,
    /// The multicast groups that it is in.
    pub groups: Vec<IpAddr>,
}

/// What a station did, since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that it received.
    pub received: u64,
    /// Of these, those that said something to it.
    pub heard: u64,
    /// ARP and neighbour discovery that it answered.
    pub resolutions: u64,
    /// Pings that it answered.
    pub echoes: u64,
    /// Answers that it did not give, as it had given too many.
    pub limited: u64,
    /// Questions that it asked for neighbours.
    pub asked: u64,
    /// Errors about packets that are too big which it did not believe.
    pub errors_refused: u64,
    /// Frames that it could not send, as the way to the workers was full.
    pub unsent: u64,
}

/// What comes of a call.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Frames to send.
    pub(super) frames: Vec<Vec<u8>>,
    /// What to tell.
    pub(super) events: Vec<Event>,
    /// Pings that came to an end, by their numbers.
    pub(super) pongs: Vec<Pong>,
}

/// An address that is announced.
#[derive(Debug)]
struct Announcement {
    address: IpAddr,
    due_ns: u64,
    left: u32,
}

/// A station at work.
#[derive(Debug)]
pub(super) struct Core {
    name: Arc<str>,
    writer: Writer,
    mtu: u32,
    routes: Routes,
    neighbours: HashMap<IpAddr, Neighbour>,
    /// The remotes that tunnels go to, each with what was told last.
    wants: HashMap<IpAddr, Option<Result<Path, Reason>>>,
    path_mtus: PathMtus,
    pings: Pings,
    sessions: Sessions,
    groups: Groups,
    announcements: Vec<Announcement>,
    /// When each address was defended last.
    defended: HashMap<IpAddr, u64>,
    resolutions: Bucket,
    echoes: Bucket,
    errors: Bucket,
    counters: Counters,
}

impl Core {
    pub(super) fn new(station: Station, now_ns: u64, out: &mut Output) -> Core {
        let writer = Writer { mac: station.mac, vlan: station.vlan };
        let mut core = Core {
            name: station.name.clone(),
            writer,
            mtu: station.mtu,
            routes: Routes::default(),
            neighbours: HashMap::new(),
            wants: HashMap::new(),
            path_mtus: PathMtus::default(),
            pings: Pings::default(),
            sessions: Sessions::default(),
            groups: Groups::default(),
            announcements: Vec::new(),
            defended: HashMap::new(),
            resolutions: Bucket::new(ANSWERS, ANSWERS / 8),
            echoes: Bucket::new(ANSWERS, ANSWERS / 8),
            errors: Bucket::new(ERRORS, ERRORS / 8),
            counters: Counters::default(),
        };
        core.configure(station, now_ns, out);
        core
    }

    /// The station is as `station` says from now on; what is wanted of it stays.
    pub(super) fn configure(&mut self, station: Station, now_ns: u64, out: &mut Output) {
        let writer = Writer { mac: station.mac, vlan: station.vlan };
        let elsewhere = writer.mac != self.writer.mac || writer.vlan != self.writer.vlan;
        if elsewhere {
            self.neighbours.clear();
        }
        let routes = Routes::new(station.addresses, station.routes);
        for address in routes.addresses().filter(|address| elsewhere || !self.routes.is_own(*address)) {
            self.announcements.push(Announcement { address, due_ns: now_ns, left: ANNOUNCEMENTS });
        }
        self.announcements.retain(|announcement| routes.is_own(announcement.address));
        self.defended.retain(|address, _| routes.is_own(*address));
        (self.writer, self.mtu, self.routes) = (writer, station.mtu, routes);
        self.groups.set(&station.groups, now_ns);
        self.choose_neighbours(now_ns);
        self.tick(now_ns, out);
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// Frames that could not be sent.
    pub(super) fn count_unsent(&mut self, frames: u64) {
        self.counters.unsent += frames;
    }

    /// The neighbours through whom remotes are reached.
    pub(super) fn neighbours(&self) -> Vec<(IpAddr, Standing)> {
        let mut neighbours: Vec<_> =
            self.neighbours.iter().map(|(address, neighbour)| (*address, neighbour.standing())).collect();
        neighbours.sort_unstable_by_key(|(address, _)| *address);
        neighbours
    }

    /// A tunnel goes to `remote`: how it is reached is told from now on.
    pub(super) fn want(&mut self, remote: IpAddr, now_ns: u64, out: &mut Output) {
        self.wants.insert(remote, None);
        self.choose_neighbours(now_ns);
        self.tick(now_ns, out);
    }

    /// No tunnel goes there any more.
    pub(super) fn unwant(&mut self, remote: IpAddr, now_ns: u64) {
        self.wants.remove(&remote);
        self.path_mtus.retain(|known| *known != remote);
        self.choose_neighbours(now_ns);
    }

    /// What was wanted.
    pub(super) fn wanted(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.wants.keys().copied()
    }

    /// Pings `remote` with a packet of `size` bytes that nobody may cut.
    pub(super) fn ping(&mut self, ping: Ping, now_ns: u64, out: &mut Output) {
        let number = ping.number;
        match self.pings.add(ping, &self.name, self.mtu) {
            Ok(()) => {
                self.choose_neighbours(now_ns);
                self.tick(now_ns, out);
            }
            Err(refused) => out.pongs.push((number, Err(refused))),
        }
    }

    /// Watches by BFD whether a remote is there, or does so no more.
    pub(super) fn watch(
        &mut self,
        (ends, discriminator): (Ends, u32),
        timing: Option<Timing>,
        now_ns: u64,
        out: &mut Output,
    ) {
        let mut spoken = Spoken::default();
        match timing {
            Some(timing) => self.sessions.begin(ends, discriminator, timing, now_ns),
            // Where no tunnel goes any more, it shall find that nobody is there.
            None => {
                spoken.said.extend(self.sessions.end(ends).filter(|_| self.wants.contains_key(&ends.remote)))
            }
        }
        self.speak(spoken, out);
        self.choose_neighbours(now_ns);
        self.tick(now_ns, out);
    }

    /// The BFD sessions.
    pub(super) fn liveness(&self) -> Vec<Liveness> {
        self.sessions.report()
    }

    /// The pings that nobody has answered yet.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = u32> + '_ {
        self.pings.numbers()
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(super) fn due_ns(&self) -> u64 {
        self.chores_due_ns().min(self.sessions.due_ns())
    }

    /// The same, of all that is not BFD.
    fn chores_due_ns(&self) -> u64 {
        let neighbours = self.neighbours.values().map(Neighbour::due_ns);
        let announcements = self.announcements.iter().map(|announcement| announcement.due_ns);
        neighbours
            .chain(announcements)
            .chain(self.path_mtus.due_ns())
            .chain(self.groups.due_ns())
            .chain(self.pings.due_ns())
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Does what is due.
    pub(super) fn poll(&mut self, now_ns: u64, out: &mut Output) {
        let mut spoken = Spoken::default();
        self.sessions.tick(now_ns, &mut spoken);
        self.speak(spoken, out);
        if self.chores_due_ns() <= now_ns {
            self.tick(now_ns, out);
        }
    }

    /// Does what is due, but for BFD, and tells of ways.
    fn tick(&mut self, now_ns: u64, out: &mut Output) {
        for announcement in &mut self.announcements {
            if announcement.due_ns <= now_ns {
                out.frames.push(self.writer.announce(announcement.address));
                announcement.left -= 1;
                announcement.due_ns = now_ns + ANNOUNCE_NS;
            }
        }
        self.announcements.retain(|announcement| announcement.left > 0);
        for (address, neighbour) in &mut self.neighbours {
            if let Some(probe) = neighbour.poll(now_ns)
                && let Some(source) = self.routes.neighbour_source(*address)
            {
                let whom = match probe {
                    Probe::Everybody => None,
                    Probe::Itself(mac) => Some(mac),
                };
                out.frames.extend(self.writer.ask(whom, source, *address));
                self.counters.asked += 1;
            }
        }
        self.path_mtus.age(now_ns);
        for group in self.groups.tick(now_ns) {
            out.frames.push(self.writer.report(group, self.routes.addresses()));
        }
        self.send_pings(now_ns, out);
        self.tell(out);
    }

    /// A frame came.
    pub(super) fn input(&mut self, frame: &[u8], now_ns: u64, out: &mut Output) {
        self.counters.received += 1;
        let Some((sender, heard)) = read(frame, self.writer.mac, self.writer.vlan) else { return };
        self.counters.heard += 1;
        match heard {
            Heard::Arp { request, sender, mac, target } => {
                if request && sender.is_unspecified() {
                    // Somebody asks whether he may have the address (RFC 5227, 2.1.1).
                    self.notice_duplicate(target.into(), mac, now_ns, out);
                }
                let (sender, target) = (IpAddr::from(sender), IpAddr::from(target));
                // A reply has to be for us; a request of another is none of our business but as a claim about
                // its sender, who is wanted or is not.
                let answer = !request && self.routes.is_own(target) && frame[0] & 1 == 0;
                self.hear_of(sender, Some(mac), if answer { Word::Answer } else { Word::Claim }, now_ns, out);
                if request && self.routes.is_own(target) {
                    self.answer_resolution(target, sender, mac, now_ns, out);
                }
            }
            Heard::Solicitation { from, mac, target } => {
                let (from, target) = (IpAddr::from(from), IpAddr::from(target));
                if from.is_unspecified() {
                    // The same (RFC 4862, 5.4.3).
                    self.notice_duplicate(target, mac, now_ns, out);
                } else {
                    self.hear_of(from, Some(mac), Word::Claim, now_ns, out);
                }
                if self.routes.is_own(target) {
                    self.answer_resolution(target, from, mac, now_ns, out);
                }
            }
            Heard::Advertisement { target, mac, solicited, overriding, .. } => {
                let word = match (solicited, overriding) {
                    (true, true) => Word::Answer,
                    (false, true) => Word::Claim,
                    // RFC 4861, 7.2.5: an answer about what we know already, or a hint.
                    (true, false) if self.knows(target.into(), mac) => Word::Answer,
                    (_, false) => Word::Hint,
                };
                self.hear_of(target.into(), mac, word, now_ns, out);
            }
            Heard::Echo { request: true, from, to, ident, sequence, data } => {
                let fits = data.len() + echo_overhead(from) <= self.mtu as usize;
                if fits && self.routes.is_own(to) && self.allow(|core| &mut core.echoes, now_ns) {
                    let numbers = (ident, sequence);
                    out.frames.extend(self.writer.echo(sender, (to, from), false, numbers, data));
                    self.counters.echoes += 1;
                }
            }
            Heard::Echo { request: false, from, to, ident, sequence, .. } if self.routes.is_own(to) => {
                let number = u32::from(ident) << 16 | u32::from(sequence);
                let took = |sent_ns| Ok(Duration::from_nanos(now_ns.saturating_sub(sent_ns)));
                self.end_ping(number, from, now_ns, took, out);
            }
            Heard::Echo { .. } => {}
            Heard::WhoIsIn { group, within_ns } => self.groups.ask(group, within_ns, now_ns),
            Heard::Control(arrival) => {
                if self.routes.is_own(arrival.to) {
                    let mut spoken = Spoken::default();
                    let is_neighbour = self.is_neighbour(arrival.from);
                    self.sessions.receive(&arrival, is_neighbour, now_ns, &mut spoken);
                    self.speak(spoken, out);
                }
            }
            Heard::TooBig { to, mtu, quoted } => {
                let believed = self.routes.is_own(to) && self.errors.take(now_ns);
                if !(believed && self.too_big(mtu, quoted, now_ns, out).is_some()) {
                    self.counters.errors_refused += 1;
                }
            }
        }
    }

    /// Takes one from a bucket, or counts that it is empty.
    fn allow(&mut self, bucket: impl Fn(&mut Core) -> &mut Bucket, now_ns: u64) -> bool {
        let allowed = bucket(self).take(now_ns);
        self.counters.limited += u64::from(!allowed);
        allowed
    }

    fn answer_resolution(&mut self, own: IpAddr, asker: IpAddr, mac: [u8; 6], now_ns: u64, out: &mut Output) {
        if !self.allow(|core| &mut core.resolutions, now_ns) {
            return;
        }
        self.counters.resolutions += 1;
        out.frames.push(match (own, asker) {
            // A probe (RFC 5227, 2.1.1) has no address yet, and is answered like others.
            (IpAddr::V4(own), IpAddr::V4(asker)) => self.writer.answer_arp(own, mac, asker),
            (IpAddr::V6(own), IpAddr::V6(asker)) => self.writer.answer_solicitation(own, mac, asker),
            _ => return,
        });
    }

    /// Something was heard of the address `address`. New ones are not learned.
    fn hear_of(&mut self, address: IpAddr, mac: Option<[u8; 6]>, word: Word, now_ns: u64, out: &mut Output) {
        if let Some(mac) = mac
            && self.routes.is_own(address)
        {
            self.notice_duplicate(address, mac, now_ns, out);
        } else if let Some(neighbour) = self.neighbours.get_mut(&address) {
            neighbour.hear(now_ns, mac, word);
            // What it says may have to be asked about at once, and may change paths.
            self.tick(now_ns, out);
        }
    }

    /// Whether `mac` is what is known of a neighbour.
    fn knows(&self, address: IpAddr, mac: Option<[u8; 6]>) -> bool {
        let standing = self.neighbours.get(&address).map(Neighbour::standing);
        matches!((standing, mac), (Some(Standing::Usable(_)), None))
            || matches!((standing, mac), (Some(Standing::Usable(known)), Some(mac)) if known == mac)
            || matches!((standing, mac), (Some(Standing::Asking | Standing::Silent), Some(_)))
    }

    /// Somebody else uses our address: told and defended now and then, as he may say so often.
    fn notice_duplicate(&mut self, address: IpAddr, mac: [u8; 6], now_ns: u64, out: &mut Output) {
        if !self.routes.is_own(address) {
            return;
        }
        let due = self.defended.get(&address).is_none_or(|last_ns| last_ns + DEFEND_NS <= now_ns);
        if due {
            self.defended.insert(address, now_ns);
            out.events.push(Event::Duplicate { station: self.name.clone(), address, mac });
            // RFC 5227, 2.4 (b).
            out.frames.push(self.writer.announce(address));
        }
    }

    /// An error says that a packet of ours was too big. `None` if it cannot be true.
    fn too_big(&mut self, mtu: u32, quoted: &[u8], now_ns: u64, out: &mut Output) -> Option<()> {
        let quote = Quote::read(quoted).filter(|quote| self.routes.is_own(quote.from))?;
        match quote.protocol {
            path_mtu::ICMP | path_mtu::ICMPV6 => {
                // Type, code, checksum, and the numbers of the ping.
                let number = u32::from_be_bytes(*quote.payload[4..].first_chunk()?);
                let mtu = quote.path_mtu(mtu)?;
                self.end_ping(number, quote.to, now_ns, |_| Err(PingError::TooBig { mtu }), out)
            }
            path_mtu::UDP | path_mtu::GRE => {
                self.wants.get(&quote.to)?;
                let mtu = self.path_mtus.hear(&quote, mtu, self.mtu, now_ns)?;
                out.events.push(Event::PathMtu(PathMtu {
                    station: self.name.clone(),
                    remote: quote.to,
                    mtu,
                    quoted: quoted.to_vec(),
                }));
                self.tell(out);
                Some(())
            }
            _ => None,
        }
    }

    /// Ends a ping, whose remote is nobody's business any more. `None` if there is no such one.
    fn end_ping(
        &mut self,
        number: u32,
        remote: IpAddr,
        now_ns: u64,
        end: impl FnOnce(u64) -> Result<Duration, PingError>,
        out: &mut Output,
    ) -> Option<()> {
        out.pongs.push(self.pings.end(number, remote, end)?);
        self.choose_neighbours(now_ns);
        Some(())
    }

    /// How a remote is reached now.
    fn path(&self, remote: IpAddr) -> Result<Path, Reason> {
        if self.routes.is_own(remote) {
            return Err(Reason::Own(remote));
        }
        let hop = self.routes.hop(remote).ok_or(Reason::NoRoute(remote))?;
        let standing = self.neighbours.get(&hop.next).map_or(Standing::Asking, Neighbour::standing);
        match standing {
            Standing::Asking => Err(Reason::Asking(hop.next)),
            Standing::Silent => Err(Reason::Silent(hop.next)),
            Standing::Usable(next_hop_mac) => {
                let mtu = self.path_mtus.limit(remote, self.mtu);
                Ok(Path { next_hop_mac, source_mac: self.writer.mac, source: hop.source, mtu })
            }
        }
    }

    /// Whether nobody has to forward what goes to an address.
    fn is_neighbour(&self, address: IpAddr) -> bool {
        self.routes.hop(address).is_some_and(|hop| hop.next == address)
    }

    /// Sends what BFD sessions say, and tells of them.
    fn speak(&self, spoken: Spoken, out: &mut Output) {
        for said in spoken.said {
            let remote = said.ends.remote;
            if let Ok(path) = self.path(remote) {
                let ends = (said.ends.local.unwrap_or(path.source), remote);
                let (mac, is_direct) = (path.next_hop_mac, self.is_neighbour(remote));
                out.frames.extend(self.writer.control(mac, ends, is_direct, said.number, &said.packet));
            }
        }
        let event = |liveness| Event::Liveness { station: self.name.clone(), liveness };
        out.events.extend(spoken.changed.into_iter().map(event));
    }

    /// Tells of each wanted remote what was not told yet.
    fn tell(&mut self, out: &mut Output) {
        let changed: Vec<_> = (self.wants.iter())
            .map(|(remote, told)| (*remote, self.path(*remote), *told))
            .filter(|(_, path, told)| Some(*path) != *told)
            .collect();
        for (remote, path, _) in changed {
            if let Some(told) = self.wants.get_mut(&remote) {
                *told = Some(path);
            }
            let station = self.name.clone();
            out.events.push(Event::Path(PathChange { station, remote, path }));
        }
    }

    /// Keeps those neighbours through whom something is to be reached.
    fn choose_neighbours(&mut self, now_ns: u64) {
        let remotes = self.wants.keys().copied().chain(self.pings.remotes()).chain(self.sessions.remotes());
        let hops: HashMap<IpAddr, Neighbour> = (remotes.filter(|remote| !self.routes.is_own(*remote)))
            .filter_map(|remote| Some(self.routes.hop(remote)?.next))
            .map(|next| {
                let known = self.neighbours.get(&next).copied();
                (next, known.unwrap_or_else(|| Neighbour::new(now_ns)))
            })
            .collect();
        self.neighbours = hops;
    }

    /// Sends the pings whose way is known, and ends those that never will be or have waited for long enough.
    fn send_pings(&mut self, now_ns: u64, out: &mut Output) {
        if self.pings.is_empty() {
            return;
        }
        let mut pings = std::mem::take(&mut self.pings);
        let ended = out.pongs.len();
        pings.tick(now_ns, |remote| self.path(remote), &self.writer, out);
        self.pings = pings;
        if out.pongs.len() > ended {
            self.choose_neighbours(now_ns);
        }
    }
}

#[cfg(test)]
mod tests;
