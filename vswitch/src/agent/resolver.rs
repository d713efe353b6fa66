//! Resolution of one neighbour: what we know of its Ethernet address, and when it is asked again.
//!
//! The states are those of RFC 4861, 7.3.2, for ARP as well, with two differences. A neighbour that we want is asked
//! whether or not frames go there, so there is no state without a timer. And one that has answered is given up late:
//! after three probes to itself it is looked for by the group while its address goes on to be used, as RFC 7048,
//! section 3, has it, since on a network that loses frames it would else be unreachable every few minutes. One that
//! does not answer is asked for ever, less and less often.
//!
//! Pure: it is given the time and what was heard, and says whom to ask.

const SECOND: u64 = 1_000_000_000;

/// Between two questions (RFC 4861, section 10: RETRANS_TIMER).
const RETRANS_NS: u64 = SECOND;
/// Questions until a neighbour counts as silent (MAX_MULTICAST_SOLICIT).
const SOLICIT: u32 = 3;
/// Questions to the neighbour itself (MAX_UNICAST_SOLICIT), before everybody is asked.
const UNICAST: u32 = 3;
/// How long an answer is good for (REACHABLE_TIME).
const REACHABLE_NS: u64 = 30 * SECOND;
/// The longest time between two questions to nobody.
const BACK_OFF_NS: u64 = 30 * SECOND;
/// After a change of its address a neighbour's claims of another one are not heard for so long: two machines that
/// both claim it cannot make us change with every frame.
const LOCK_NS: u64 = SECOND;

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is being asked for the first time.
    Asking,
    /// It is there.
    Usable([u8; 6]),
    /// It does not answer.
    Silent,
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    Everybody,
    Itself([u8; 6]),
}

/// How a neighbour's address was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It answered us.
    Answer,
    /// It, or somebody in its name, said so without having been asked.
    Claim,
    /// The same, and does not want to override what we know (RFC 4861, 7.2.5).
    Hint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asking { asked: u32 },
    Reachable([u8; 6]),
    Probing { mac: [u8; 6], asked: u32 },
    Silent { wait_ns: u64 },
}

/// A neighbour that is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbour {
    state: State,
    due_ns: u64,
    /// Until when claims of another address are not heard.
    locked_ns: u64,
}

impl Neighbour {
    /// A neighbour that nothing is known of. It is asked at once.
    pub(super) fn new(now_ns: u64) -> Neighbour {
        Neighbour { state: State::Asking { asked: 0 }, due_ns: now_ns, locked_ns: 0 }
    }

    pub(super) fn standing(&self) -> Standing {
        match self.state {
            State::Asking { .. } => Standing::Asking,
            State::Reachable(mac) | State::Probing { mac, .. } => Standing::Usable(mac),
            State::Silent { .. } => Standing::Silent,
        }
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(super) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Whom to ask now.
    pub(super) fn poll(&mut self, now_ns: u64) -> Option<Probe> {
        if now_ns < self.due_ns {
            return None;
        }
        if let State::Reachable(mac) = self.state {
            self.state = State::Probing { mac, asked: 0 };
        }
        let (probe, wait_ns) = match &mut self.state {
            State::Asking { asked } if *asked < SOLICIT => {
                *asked += 1;
                (Some(Probe::Everybody), RETRANS_NS)
            }
            State::Probing { mac, asked } if *asked < UNICAST + SOLICIT => {
                *asked += 1;
                let probe = if *asked <= UNICAST { Probe::Itself(*mac) } else { Probe::Everybody };
                (Some(probe), RETRANS_NS)
            }
            State::Silent { wait_ns } => {
                *wait_ns = (2 * *wait_ns).min(BACK_OFF_NS);
                (Some(Probe::Everybody), *wait_ns)
            }
            _ => {
                self.state = State::Silent { wait_ns: RETRANS_NS };
                (None, RETRANS_NS)
            }
        };
        self.due_ns = now_ns + wait_ns;
        probe
    }

    /// Something was heard of its address (`None`: that it is where it was).
    pub(super) fn hear(&mut self, now_ns: u64, mac: Option<[u8; 6]>, word: Word) {
        let known = match self.standing() {
            Standing::Usable(known) => Some(known),
            _ => None,
        };
        let Some(mac) = mac.or(known) else { return };
        let other = known.is_some_and(|known| known != mac);
        if other && (word == Word::Hint || now_ns < self.locked_ns) {
            // Somebody differs, and what we know may be wrong: ask, soon.
            if let State::Reachable(mac) = self.state {
                (self.state, self.due_ns) = match word {
                    Word::Hint => (State::Probing { mac, asked: 0 }, now_ns),
                    // Who was there first may have left: it is not asked, everybody is, when claims count again.
                    _ => (State::Probing { mac, asked: UNICAST }, self.locked_ns),
                };
            }
            return;
        }
        if known != Some(mac) {
            self.locked_ns = now_ns + LOCK_NS;
        }
        if word == Word::Answer {
            (self.state, self.due_ns) = (State::Reachable(mac), now_ns + REACHABLE_NS);
        } else if known != Some(mac) {
            // Used at once, and asked whether it is true.
            (self.state, self.due_ns) = (State::Probing { mac, asked: 0 }, now_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

    /// What is asked until `until_s`, by second.
    fn asked(neighbour: &mut Neighbour, until_s: u64) -> Vec<(u64, Probe)> {
        let mut asked = Vec::new();
        while neighbour.due_ns() <= until_s * SECOND {
            let now = neighbour.due_ns();
            asked.extend(neighbour.poll(now).map(|probe| (now / SECOND, probe)));
        }
        asked
    }

    #[test]
    fn nobody_is_asked_for_ever_and_less_and_less_often() {
        let mut neighbour = Neighbour::new(0);
        let times: Vec<_> = asked(&mut neighbour, 130)
            .into_iter()
            .map(|(at, probe)| {
                assert_eq!(probe, Probe::Everybody);
                at
            })
            .collect();
        assert_eq!(times, [0, 1, 2, 4, 6, 10, 18, 34, 64, 94, 124]);
        let mut neighbour = Neighbour::new(0);
        asked(&mut neighbour, 2);
        assert_eq!(neighbour.standing(), Standing::Asking);
        asked(&mut neighbour, 3);
        assert_eq!(neighbour.standing(), Standing::Silent);
        neighbour.hear(4 * SECOND, Some(A), Word::Answer);
        assert_eq!(neighbour.standing(), Standing::Usable(A));
        assert_eq!(neighbour.due_ns(), 34 * SECOND);
    }

    #[test]
    fn who_answers_is_asked_again_and_given_up_late() {
        let mut neighbour = Neighbour::new(0);
        asked(&mut neighbour, 0);
        neighbour.hear(0, Some(A), Word::Answer);
        assert_eq!(asked(&mut neighbour, 30), [(30, Probe::Itself(A))]);
        neighbour.hear(30 * SECOND, Some(A), Word::Answer);
        use Probe::{Everybody, Itself};
        let probes = [
            (60, Itself(A)),
            (61, Itself(A)),
            (62, Itself(A)),
            (63, Everybody),
            (64, Everybody),
            (65, Everybody),
        ];
        assert_eq!(asked(&mut neighbour, 65), probes);
        assert_eq!(neighbour.standing(), Standing::Usable(A));
        assert_eq!(asked(&mut neighbour, 66), []);
        assert_eq!(neighbour.standing(), Standing::Silent);
        // Somewhere else meanwhile.
        neighbour.hear(67 * SECOND, Some(B), Word::Claim);
        assert_eq!(neighbour.standing(), Standing::Usable(B));
        assert_eq!(asked(&mut neighbour, 67), [(67, Itself(B))]);
    }

    #[test]
    fn a_move_is_believed_and_asked_about() {
        let mut neighbour = Neighbour::new(0);
        neighbour.hear(0, Some(A), Word::Answer);
        neighbour.hear(SECOND / 2, Some(B), Word::Claim);
        assert_eq!(neighbour.standing(), Standing::Usable(A), "two claim it, the first has it");
        neighbour.hear(2 * SECOND, Some(B), Word::Claim);
        assert_eq!(neighbour.standing(), Standing::Usable(B));
        assert_eq!(neighbour.poll(2 * SECOND), Some(Probe::Itself(B)));
        neighbour.hear(2 * SECOND, Some(B), Word::Claim);
        assert_eq!(neighbour.poll(2 * SECOND), None, "a claim of what is known changes nothing");
        neighbour.hear(2 * SECOND, None, Word::Answer);
        assert_eq!((neighbour.standing(), neighbour.due_ns()), (Standing::Usable(B), 32 * SECOND));
    }

    #[test]
    fn a_move_right_after_the_first_word_is_found_out_when_claims_count_again() {
        let mut neighbour = Neighbour::new(0);
        neighbour.hear(0, Some(A), Word::Answer);
        neighbour.hear(SECOND / 2, Some(B), Word::Claim);
        assert_eq!(asked(&mut neighbour, 1), [(1, Probe::Everybody)]);
        neighbour.hear(SECOND + 1, Some(B), Word::Answer);
        assert_eq!(neighbour.standing(), Standing::Usable(B));
    }

    #[test]
    fn a_hint_overrides_nothing_but_makes_us_ask() {
        let mut neighbour = Neighbour::new(0);
        neighbour.hear(0, None, Word::Answer);
        assert_eq!(neighbour.standing(), Standing::Asking, "where it was is not known");
        neighbour.hear(0, Some(A), Word::Hint);
        assert_eq!(neighbour.standing(), Standing::Usable(A), "better than nothing");
        neighbour.hear(0, Some(A), Word::Answer);
        neighbour.hear(5 * SECOND, Some(B), Word::Hint);
        assert_eq!(neighbour.standing(), Standing::Usable(A));
        assert_eq!(neighbour.poll(5 * SECOND), Some(Probe::Itself(A)));
    }
}
