//! Bidirectional forwarding detection (RFC 5880, asynchronous mode): whether a remote hears us and we hear it.
//!
//! One session to one remote. Both ends send control packets; who has heard none for a while takes the session down,
//! and each learns from the other's packets that its own arrive. Pure: time and packets go in, packets come out. No
//! authentication, no demand mode, no echo: who can send from a remote's address can end its session, as he could
//! send its frames.

use std::fmt;

/// Bytes of a control packet without authentication (RFC 5880, 4.1).
pub(crate) const LENGTH: usize = 24;

/// Between two packets while the session is not up, at least (RFC 5880, 6.8.3).
const SLOW_US: u32 = 1_000_000;

const POLL: u8 = 1 << 5;
const FINAL: u8 = 1 << 4;
const AUTHENTICATED: u8 = 1 << 2;
const MULTIPOINT: u8 = 1;

/// The state of a session, by its numbers on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Its owner wants it to be down.
    AdminDown = 0,
    /// Nothing is heard.
    #[default]
    Down = 1,
    /// The other end is heard, and does not know it yet.
    Init = 2,
    /// Each end hears the other.
    Up = 3,
}

impl State {
    fn from_wire(bits: u8) -> State {
        match bits & 3 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::AdminDown => "admin-down",
            State::Down => "down",
            State::Init => "init",
            State::Up => "up",
        })
    }
}

/// Why a session went down last (RFC 5880, 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Diagnostic {
    /// It did not.
    #[default]
    None = 0,
    /// Nothing was heard for too long.
    Expired = 1,
    /// The other end said so.
    Neighbour = 3,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Diagnostic::None => "nothing was heard yet",
            Diagnostic::Expired => "nothing was heard for too long",
            Diagnostic::Neighbour => "the other end hears nothing",
        })
    }
}

/// How often packets go, and how many may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two packets, ours or theirs, in microseconds.
    pub interval_us: u32,
    /// So many intervals without a packet mean "down".
    pub multiplier: u8,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { interval_us: 300_000, multiplier: 3 }
    }
}

/// What passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Packets sent.
    pub sent: u64,
    /// Packets received and believed.
    pub received: u64,
    /// Packets that are none, or none of this session.
    pub refused: u64,
    /// How often the session went down.
    pub downs: u64,
}

/// A control packet, as far as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packet {
    state: State,
    flags: u8,
    multiplier: u8,
    mine: u32,
    yours: u32,
    desired_tx_us: u32,
    required_rx_us: u32,
}

impl Packet {
    /// Reads a packet by the rules of RFC 5880, 6.8.6, that need no session.
    fn read(bytes: &[u8]) -> Option<Packet> {
        let packet = bytes.first_chunk::<LENGTH>()?;
        let word =
            |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        let (version, flags, length) = (packet[0] >> 5, packet[1] & 0x3f, usize::from(packet[3]));
        let read = Packet {
            state: State::from_wire(packet[1] >> 6),
            flags,
            multiplier: packet[2],
            mine: word(4),
            yours: word(8),
            desired_tx_us: word(12),
            required_rx_us: word(16),
        };
        let fits = (LENGTH..=bytes.len()).contains(&length);
        let plain = flags & (AUTHENTICATED | MULTIPOINT) == 0;
        let addressed = read.yours != 0 || matches!(read.state, State::Down | State::AdminDown);
        (version == 1 && fits && plain && read.multiplier != 0 && read.mine != 0 && addressed).then_some(read)
    }

    fn write(&self, diagnostic: Diagnostic) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&[
            1 << 5 | diagnostic as u8,
            (self.state as u8) << 6 | self.flags,
            self.multiplier,
            LENGTH as u8,
        ]);
        let words = [self.mine, self.yours, self.desired_tx_us, self.required_rx_us, 0];
        for (place, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

/// A session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    timing: Timing,
    mine: u32,
    state: State,
    diagnostic: Diagnostic,
    /// What the other end said last.
    theirs: State,
    yours: u32,
    remote_rx_us: u32,
    /// How long to wait for its packets, as it said last.
    detect_ns: u64,
    /// We ask whether a change of our timing has arrived (RFC 5880, 6.5).
    polling: bool,
    send_ns: u64,
    expires_ns: Option<u64>,
    jitter: u32,
    packets: Packets,
}

impl Session {
    /// A session that is down. Its discriminator is not 0 and no other session's.
    pub(super) fn new(discriminator: u32, timing: Timing, now_ns: u64) -> Session {
        Session {
            timing,
            mine: discriminator,
            state: State::Down,
            diagnostic: Diagnostic::None,
            theirs: State::Down,
            yours: 0,
            // RFC 5880, 6.8.1.
            remote_rx_us: 1,
            detect_ns: 0,
            polling: false,
            send_ns: now_ns,
            expires_ns: None,
            jitter: discriminator | 1,
            packets: Packets::default(),
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// Whether nothing speaks against sending there.
    pub(super) fn is_alive(&self) -> bool {
        self.state == State::Up || self.theirs == State::AdminDown
    }

    pub(super) fn packets(&self) -> Packets {
        self.packets
    }

    pub(super) fn discriminator(&self) -> u32 {
        self.mine
    }

    /// The session is over: the last packet, which says that its owner wanted that (RFC 5880, 6.8.16).
    pub(super) fn close(&mut self) -> [u8; LENGTH] {
        self.state = State::AdminDown;
        self.packet(0)
    }

    /// A packet came that cannot be of this session.
    pub(super) fn refuse(&mut self) {
        self.packets.refused += 1;
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn due_ns(&self) -> u64 {
        self.send_ns.min(self.expires_ns.unwrap_or(u64::MAX))
    }

    /// Does what is due; gives the packet to send.
    pub(super) fn tick(&mut self, now_ns: u64) -> Option<[u8; LENGTH]> {
        if self.expires_ns.is_some_and(|expires_ns| expires_ns <= now_ns) {
            // RFC 5880, 6.8.4; who was silent for so long may have forgotten its discriminator (6.8.1).
            (self.expires_ns, self.yours) = (None, 0);
            if matches!(self.state, State::Init | State::Up) {
                self.go_down(Diagnostic::Expired);
                self.send_ns = now_ns;
            }
        }
        if now_ns < self.send_ns {
            return None;
        }
        self.send_ns = now_ns.saturating_add(self.interval_ns());
        // RFC 5880, 6.8.7: it wants none.
        (self.remote_rx_us != 0).then(|| self.packet(if self.polling { POLL } else { 0 }))
    }

    /// A packet of the remote came; gives the answer to it, if it wants one at once and that is allowed.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        now_ns: u64,
        is_allowed: impl FnOnce() -> bool,
    ) -> Option<[u8; LENGTH]> {
        let Some(packet) = Packet::read(bytes).filter(|packet| [0, self.mine].contains(&packet.yours)) else {
            self.refuse();
            return None;
        };
        self.packets.received += 1;
        (self.theirs, self.yours, self.remote_rx_us) = (packet.state, packet.mine, packet.required_rx_us);
        if packet.flags & FINAL != 0 {
            self.polling = false;
        }
        let theirs_us = self.timing.interval_us.max(packet.desired_tx_us);
        self.detect_ns = u64::from(packet.multiplier) * u64::from(theirs_us) * 1000;
        self.expires_ns = Some(now_ns.saturating_add(self.detect_ns));
        let before = self.state;
        match (before, packet.state) {
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.go_down(Diagnostic::Neighbour);
            }
            (State::Down, State::Down) => self.state = State::Init,
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => self.go_up(),
            _ => {}
        }
        // What the other end wants may have become sooner than we meant to send, and a change of state it shall know of
        // at once (RFC 5880, 6.8.7).
        let wait_ns = if self.state == before { self.interval_ns() } else { 0 };
        self.send_ns = self.send_ns.min(now_ns.saturating_add(wait_ns));
        (packet.flags & POLL != 0 && is_allowed()).then(|| self.packet(FINAL))
    }

    fn go_up(&mut self) {
        (self.state, self.diagnostic) = (State::Up, Diagnostic::None);
        // From now on packets go faster: a change that the other end has to know of (RFC 5880, 6.8.3).
        self.polling = true;
    }

    fn go_down(&mut self, why: Diagnostic) {
        self.packets.downs += u64::from(self.state == State::Up);
        (self.state, self.diagnostic, self.polling) = (State::Down, why, false);
    }

    fn desired_tx_us(&self) -> u32 {
        if self.state == State::Up { self.timing.interval_us } else { self.timing.interval_us.max(SLOW_US) }
    }

    /// Until the next packet: less by up to a quarter, so that sessions do not beat in time (RFC 5880, 6.8.7), and at
    /// least by a tenth if the other end waits for one packet only.
    fn interval_ns(&mut self) -> u64 {
        let whole_ns = u64::from(self.desired_tx_us().max(self.remote_rx_us)) * 1000;
        // Xorshift: no secret, only no rhythm.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 17;
        self.jitter ^= self.jitter << 5;
        let least = if self.timing.multiplier == 1 { 10 } else { 0 };
        whole_ns - whole_ns / 100 * (least + u64::from(self.jitter) % (26 - least))
    }

    fn packet(&mut self, flags: u8) -> [u8; LENGTH] {
        self.packets.sent += 1;
        Packet {
            state: self.state,
            flags,
            multiplier: self.timing.multiplier,
            mine: self.mine,
            yours: self.yours,
            desired_tx_us: self.desired_tx_us(),
            required_rx_us: self.timing.interval_us,
        }
        .write(self.diagnostic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Two ends, and what loses packets between them.
    struct Line {
        now_ns: u64,
        ends: [Session; 2],
        lost: [bool; 2],
    }

    impl Line {
        fn new() -> Line {
            let end = |discriminator| Session::new(discriminator, Timing::default(), 0);
            Line { now_ns: 0, ends: [end(7), end(9)], lost: [false; 2] }
        }

        fn pass(&mut self, ns: u64) {
            let end_ns = self.now_ns + ns;
            loop {
                let due_ns = self.ends[0].due_ns().min(self.ends[1].due_ns());
                if due_ns > end_ns {
                    self.now_ns = end_ns;
                    return;
                }
                self.now_ns = due_ns.max(self.now_ns);
                for (from, to) in [(0, 1), (1, 0)] {
                    let packet = self.ends[from].tick(self.now_ns);
                    let arrived = packet.filter(|_| !self.lost[from]);
                    let answer =
                        arrived.and_then(|packet| self.ends[to].receive(&packet, self.now_ns, || true));
                    if let Some(answer) = answer.filter(|_| !self.lost[to]) {
                        assert_eq!(self.ends[from].receive(&answer, self.now_ns, || true), None);
                    }
                }
            }
        }

        fn states(&self) -> [State; 2] {
            self.ends.map(|end| end.state())
        }
    }

    #[test]
    fn two_ends_come_up_and_packets_go_at_their_pace() {
        let mut line = Line::new();
        line.pass(3 * SECOND);
        assert_eq!(line.states(), [State::Up; 2]);
        assert!(!line.ends[0].polling && !line.ends[1].polling, "each knows the other's pace");
        let before = line.ends[0].packets();
        line.pass(30 * SECOND);
        let sent = line.ends[0].packets().sent - before.sent;
        assert!((100..=134).contains(&sent), "{sent} packets in 30 s");
        assert_eq!(line.ends[0].packets().refused + line.ends[0].packets().downs, 0);
    }

    #[test]
    fn silence_takes_both_ends_down_and_its_end_brings_them_up() {
        let mut line = Line::new();
        line.pass(5 * SECOND);
        // Only one direction: the other end has to be told.
        line.lost[0] = true;
        line.pass(SECOND / 2);
        assert_eq!(line.states(), [State::Up; 2], "a packet or two may be lost");
        line.pass(SECOND);
        assert_eq!(line.states()[1], State::Down);
        assert_eq!(line.ends[1].diagnostic(), Diagnostic::Expired);
        assert_eq!(line.ends[0].diagnostic(), Diagnostic::Neighbour);
        assert_ne!(line.states()[0], State::Up);
        let sent = line.ends[1].packets().sent;
        line.pass(10 * SECOND);
        assert!(line.ends[1].packets().sent - sent <= 14, "a second apart while down");
        line.lost[0] = false;
        line.pass(3 * SECOND);
        assert_eq!(line.states(), [State::Up; 2]);
        assert_eq!(line.ends[1].packets().downs, 1);
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let mut other = Session::new(9, Timing::default(), 0);
        let good = other.tick(0).unwrap();
        assert_eq!(
            good,
            [0x20, 0x40, 3, 24, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0xf, 0x42, 0x40, 0, 4, 0x93, 0xe0, 0, 0, 0, 0]
        );
        let wrong = [
            (0, 0x40, "version 2"),
            (3, 23, "too short"),
            (3, 25, "longer than it is"),
            (2, 0, "no multiplier"),
            (1, 0x40 | MULTIPOINT, "to many"),
            (1, 0x40 | AUTHENTICATED, "with a proof that we do not know"),
            (7, 0, "no discriminator"),
            (1, 0xc0, "up, and does not say with whom"),
            (11, 8, "with somebody else"),
        ];
        let mut session = Session::new(7, Timing::default(), 0);
        for (count, (at, byte, what)) in wrong.into_iter().enumerate() {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(session.receive(&bad, 0, || true), None, "{what}");
            let refused = (session.packets().refused, session.state());
            assert_eq!(refused, (count as u64 + 1, State::Down), "{what}");
        }
        session.receive(&good[..23], 0, || true);
        assert_eq!((session.packets().refused, session.state()), (10, State::Down));
        session.receive(&good, 0, || true);
        assert_eq!(session.state(), State::Init);
    }

    #[test]
    fn a_question_is_answered_at_once_and_who_wants_nothing_gets_nothing() {
        let mut session = Session::new(7, Timing::default(), 0);
        session.tick(0);
        let mut packet = Session::new(9, Timing::default(), 0).tick(0).unwrap();
        packet[1] |= POLL;
        let answer = session.receive(&packet, 0, || true).unwrap();
        assert_eq!((answer[1] & (POLL | FINAL), answer[8..12].to_vec()), (FINAL, vec![0, 0, 0, 9]));
        packet[16..20].fill(0);
        session.receive(&packet, 0, || true);
        assert_eq!(session.tick(2 * SECOND), None);
    }

    #[test]
    fn an_owner_who_takes_it_down_is_heard() {
        let mut line = Line::new();
        line.pass(5 * SECOND);
        let mut packet = line.ends[1].packet(0);
        packet[1] &= 0x3f;
        line.ends[0].receive(&packet, line.now_ns, || true);
        assert_eq!((line.states()[0], line.ends[0].diagnostic()), (State::Down, Diagnostic::Neighbour));
        assert!(line.ends[0].is_alive(), "it is nobody's failure");
        line.lost[1] = true;
        line.pass(5 * SECOND);
        assert!(line.ends[0].is_alive());
        line.lost[1] = false;
        line.pass(5 * SECOND);
        line.lost[1] = true;
        line.pass(5 * SECOND);
        assert!(!line.ends[0].is_alive(), "it was on again");
        assert_eq!(line.ends[1].close()[1] >> 6, State::AdminDown as u8);
    }

    #[test]
    fn changes_are_said_at_once() {
        let mut line = Line::new();
        line.pass(1);
        assert_eq!(line.states(), [State::Up; 2], "three packets, and no second between them");
        line.pass(SECOND);
        line.lost = [true; 2];
        line.pass(SECOND);
        assert_eq!(line.states(), [State::Down; 2]);
        let sent = line.ends[0].packets().sent;
        line.pass(1);
        assert!(line.ends[0].packets().sent <= sent + 1);
    }
}
