//! The BFD sessions of one underlay: one for each pair of addresses whose liveness is watched.
//!
//! Packets go between the outer addresses of a tunnel, beside it and not inside it: what is watched is the way that all
//! of its VNIs take. To a neighbour that is the single hop of RFC 5881, with a TTL that says that nobody forwarded it;
//! to everybody else it is the multihop of RFC 5883. Who carries the packets, and knows which of the two it is, is
//! the owner of the sessions.

use std::collections::HashMap;
use std::net::IpAddr;

use super::bfd::{Diagnostic, LENGTH, Packets, Session, State, Timing};
use crate::bucket::Bucket;

/// The TTL of a packet that nobody forwarded (RFC 5881, 5).
pub(crate) const NEVER_FORWARDED: u8 = 255;

/// Questions a second that are answered at once (RFC 5880, 6.5).
const ANSWERS: u64 = 1000;

/// Between whom a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ends {
    /// Our address, if it is not the one that the way there has anyway.
    pub local: Option<IpAddr>,
    /// The other end's.
    pub remote: IpAddr,
}

/// A session, as somebody asks about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// Between whom it is.
    pub ends: Ends,
    /// What it is.
    pub state: State,
    /// Why it went down last.
    pub diagnostic: Diagnostic,
    /// Whether the remote counts as there: it hears us and we hear it, or its owner has switched its end off, which
    /// says nothing about the way (RFC 5882, 4.2).
    pub is_alive: bool,
    /// What passed.
    pub packets: Packets,
}

/// A packet to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) ends: Ends,
    /// The session's own number.
    pub(crate) number: u32,
    pub(crate) packet: [u8; LENGTH],
}

/// A packet that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival<'p> {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    /// Whether it was sent to the port of neighbours, and not to that of everybody else.
    pub(crate) is_direct: bool,
    pub(crate) ttl: u8,
    pub(crate) packet: &'p [u8],
}

/// What comes of a call.
#[derive(Debug, Default)]
pub(crate) struct Spoken {
    /// Packets to send, as far as there is a way.
    pub(crate) said: Vec<Said>,
    /// Sessions that are not as they were.
    pub(crate) changed: Vec<Liveness>,
}

#[derive(Debug)]
struct Watched {
    session: Session,
    told: (State, Diagnostic, bool),
}

/// The sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    all: HashMap<Ends, Watched>,
    answers: Bucket,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions { all: HashMap::new(), answers: Bucket::new(ANSWERS, ANSWERS / 8) }
    }
}

impl Sessions {
    /// Begins a session, anew if there was one.
    pub(crate) fn begin(&mut self, ends: Ends, discriminator: u32, timing: Timing, now_ns: u64) {
        let session = Session::new(discriminator, timing, now_ns);
        let told = (session.state(), session.diagnostic(), session.is_alive());
        self.all.insert(ends, Watched { session, told });
    }

    /// Ends a session. What it gives tells the other end that this is nobody's failure.
    pub(crate) fn end(&mut self, ends: Ends) -> Option<Said> {
        let mut watched = self.all.remove(&ends)?;
        let packet = watched.session.close();
        Some(Said { ends, number: watched.session.discriminator(), packet })
    }

    pub(crate) fn remotes(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.all.keys().map(|ends| ends.remote)
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn due_ns(&self) -> u64 {
        self.all.values().map(|watched| watched.session.due_ns()).min().unwrap_or(u64::MAX)
    }

    pub(crate) fn report(&self) -> Vec<Liveness> {
        let mut all: Vec<_> = self.all.iter().map(|(ends, watched)| watched.liveness(*ends)).collect();
        all.sort_unstable_by_key(|liveness| liveness.ends);
        all
    }

    /// Does what is due. A packet that has no way is missed by the other end.
    pub(crate) fn tick(&mut self, now_ns: u64, out: &mut Spoken) {
        for (ends, watched) in &mut self.all {
            if watched.session.due_ns() <= now_ns {
                let packet = watched.session.tick(now_ns);
                watched.speak(*ends, packet, out);
            }
        }
    }

    /// A packet came; `is_neighbour` says whether its sender is one.
    pub(crate) fn receive(
        &mut self,
        arrival: &Arrival<'_>,
        is_neighbour: bool,
        now_ns: u64,
        out: &mut Spoken,
    ) {
        let Sessions { all, answers } = self;
        let of = |local| Ends { local, remote: arrival.from };
        let known = [of(Some(arrival.to)), of(None)].into_iter().find(|ends| all.contains_key(ends));
        let Some((ends, watched)) = known.and_then(|ends| Some((ends, all.get_mut(&ends)?))) else { return };
        // RFC 5881, 5: what says that it is a neighbour's must not have been forwarded.
        if arrival.is_direct != is_neighbour || (is_neighbour && arrival.ttl != NEVER_FORWARDED) {
            watched.session.refuse();
            return;
        }
        let answer = watched.session.receive(arrival.packet, now_ns, || answers.take(now_ns));
        watched.speak(ends, answer, out);
    }
}

impl Watched {
    fn liveness(&self, ends: Ends) -> Liveness {
        Liveness {
            ends,
            state: self.session.state(),
            diagnostic: self.session.diagnostic(),
            is_alive: self.session.is_alive(),
            packets: self.session.packets(),
        }
    }

    /// Says a packet, and tells what is news.
    fn speak(&mut self, ends: Ends, packet: Option<[u8; LENGTH]>, out: &mut Spoken) {
        let number = self.session.discriminator();
        out.said.extend(packet.map(|packet| Said { ends, number, packet }));
        let liveness = self.liveness(ends);
        let state = (liveness.state, liveness.diagnostic, liveness.is_alive);
        if state != self.told {
            self.told = state;
            out.changed.push(liveness);
        }
    }
}
