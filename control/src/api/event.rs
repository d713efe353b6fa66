//! What happened that somebody may want to know of: duplicate addresses, stations that move too often, no room for
//! neighbours, remotes that BFD finds gone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// `events`: the latest events, oldest first; so many are kept as fit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Only those behind this one: the `number` of the last that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Events are numbered, from 1, since the daemon was started.
    pub number: u64,
    /// When, in UTC: `2026-01-31T12:00:00.250Z`.
    pub time: String,
    /// What: `duplicate-ip`, `duplicate-mac`, `mac-flapping`, `neighbours-full`, `bfd-down`, `bfd-up`; others may come.
    pub kind: String,
    /// Which objects it is about, as errors name them: `neighbour 10.1.0.11`, `port "web1"`.
    pub objects: Vec<String>,
}

impl Event {
    /// A time as `time` writes it (RFC 3339).
    pub fn utc(time: SystemTime) -> String {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        let ms = since.subsec_millis();
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. Counted in years that begin in March, so that
/// the leap day is the last; 719,468 days before 1970 an era of 400 years, which has 146,097 days, began.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.250Z"),
            (951_782_399, "2000-02-28T23:59:59.250Z"),
            (951_782_400, "2000-02-29T00:00:00.250Z"),
            (951_868_800, "2000-03-01T00:00:00.250Z"),
            (1_735_689_599, "2024-12-31T23:59:59.250Z"),
            (4_107_542_400, "2100-03-01T00:00:00.250Z"),
        ] {
            assert_eq!(Event::utc(UNIX_EPOCH + Duration::new(seconds, 250_000_000)), text);
        }
    }
}
