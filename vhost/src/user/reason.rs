//! Why frames do not pass: a word that programs can rely on, and what it was in detail.

use std::fmt::Display;

/// What a reason begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody is there, or it has not started its rings.
    Disconnected,
    /// A ring breaks the rules.
    BadRing,
    /// A message breaks the rules.
    BadMessage,
    /// Shared memory is gone under us.
    MemoryTruncated,
    /// More than the limits.
    Overflow,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 5] = [
        Reason::Disconnected,
        Reason::BadRing,
        Reason::BadMessage,
        Reason::MemoryTruncated,
        Reason::Overflow,
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Disconnected => "disconnected",
            Reason::BadRing => "bad-ring",
            Reason::BadMessage => "bad-message",
            Reason::MemoryTruncated => "memory-truncated",
            Reason::Overflow => "overflow",
        }
    }

    /// What it means, in a line.
    pub fn text(self) -> &'static str {
        match self {
            Reason::Disconnected => "nobody is connected, or the other end has not started its rings",
            Reason::BadRing => "a ring breaks the rules",
            Reason::BadMessage => "a message breaks the rules, or asks for what cannot be",
            Reason::MemoryTruncated => "the file of shared memory was cut short, or has no memory",
            Reason::Overflow => {
                "more than the limits: queues, memory regions, 4 TB of memory, entries of a ring"
            }
        }
    }

    /// The reason with its detail.
    pub fn because(self, detail: impl Display) -> String {
        format!("{}: {detail}", self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_for_people_is_this_one() {
        let document = include_str!("../../../docs/vhost-user.md");
        let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
        let listed: Vec<&str> = rows.skip_while(|row| !row.starts_with("disconnected")).collect();
        let all = Reason::ALL.map(|reason| format!("{}` | {}", reason.word(), reason.text()));
        assert_eq!(listed, all);
    }
}
