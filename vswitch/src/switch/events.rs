//! What happened that somebody may want to know of, kept for a while.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use control::api::Event;

/// Events that are kept.
const KEPT: usize = 1024;

/// For so long nothing is said again about the same objects.
const QUIET: Duration = Duration::from_secs(60);

/// The latest events.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    events: VecDeque<(SystemTime, Event)>,
    last: u64,
}

impl EventLog {
    /// Notes an event, if it has not just been noted.
    pub(super) fn note(&mut self, now: SystemTime, kind: &str, objects: Vec<String>) {
        let since = |time: &SystemTime| now.duration_since(*time).unwrap_or_default();
        let mut recent = self.events.iter().rev().take_while(|(time, _)| since(time) < QUIET);
        if recent.any(|(_, event)| event.kind == kind && event.objects == objects) {
            return;
        }
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.last += 1;
        let event = Event { number: self.last, time: Event::utc(now), kind: kind.into(), objects };
        self.events.push_back((now, event));
    }

    /// The events behind one, oldest first.
    pub(super) fn after(&self, number: u64) -> Vec<Event> {
        let behind = self.events.iter().filter(|(_, event)| event.number > number);
        behind.map(|(_, event)| event.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_and_nothing_is_said_twice_in_a_row() {
        let mut log = EventLog::default();
        let start = SystemTime::UNIX_EPOCH;
        for _ in 0..3 {
            log.note(start, "duplicate-ip", vec!["a".into()]);
            log.note(start, "flapping", vec!["a".into()]);
        }
        log.note(start + QUIET, "flapping", vec!["a".into()]);
        assert_eq!(log.after(0).iter().map(|event| event.number).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(log.after(2)[0].time, "1970-01-01T00:01:00.000Z");
        for number in 0..2 * KEPT {
            log.note(start + QUIET, "flapping", vec![number.to_string()]);
        }
        let kept = log.after(0);
        assert_eq!((kept.len(), kept[0].number), (KEPT, 3 + KEPT as u64 + 1));
        assert_eq!(log.after(kept[KEPT - 1].number), []);
    }
}
