//! The multicast groups that a station is in, and what is said of them: switches that look into it, and routers, send
//! frames to a group where somebody has said that he is in it.
//!
//! IGMP version 2 (RFC 2236) and MLD version 1 (RFC 2710), which those of later versions understand (RFC 3376, 7.3.2;
//! RFC 3810, 8.3.2). A report at once and once more, and one after each question; who leaves is forgotten by those
//! who ask. Pure, as all of a station.

use std::collections::HashMap;
use std::net::IpAddr;

/// Reports when a group is joined, and between two of them (RFC 2236, 8.10; RFC 2710, 7.10).
const REPORTS: u32 = 2;
const REPORT_NS: u64 = 10_000_000_000;

#[derive(Debug)]
struct Member {
    due_ns: u64,
    left: u32,
}

/// The groups.
#[derive(Debug, Default)]
pub(super) struct Groups(HashMap<IpAddr, Member>);

impl Groups {
    /// It is in these from now on, and in no others.
    pub(super) fn set(&mut self, groups: &[IpAddr], now_ns: u64) {
        self.0.retain(|group, _| groups.contains(group));
        for group in groups {
            self.0.entry(*group).or_insert(Member { due_ns: now_ns, left: REPORTS });
        }
    }

    /// Somebody asks who is in a group, or in any of that family, and wants to know within `within_ns`.
    pub(super) fn ask(&mut self, group: IpAddr, within_ns: u64, now_ns: u64) {
        let is_asked = |member: &IpAddr| {
            *member == group || (group.is_unspecified() && member.is_ipv4() == group.is_ipv4())
        };
        for (place, (_, member)) in (1..).zip(self.0.iter_mut().filter(|(group, _)| is_asked(group))) {
            // Not all at once; a nanosecond clock's low digits are as good as dice.
            let wait_ns = (now_ns ^ place << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15) % within_ns.max(1);
            let due_ns = now_ns + wait_ns;
            if member.left == 0 || due_ns < member.due_ns {
                member.due_ns = due_ns;
            }
            member.left = member.left.max(1);
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.0.values().filter(|member| member.left > 0).map(|member| member.due_ns).min()
    }

    /// The groups of which a report is due.
    pub(super) fn tick(&mut self, now_ns: u64) -> Vec<IpAddr> {
        let mut due = Vec::new();
        for (group, member) in &mut self.0 {
            if member.left > 0 && member.due_ns <= now_ns {
                member.left -= 1;
                member.due_ns = now_ns + REPORT_NS;
                due.push(*group);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_group_is_reported_twice_and_whenever_somebody_asks() {
        let mut groups = Groups::default();
        let (v4, v6) = (ip("239.1.1.1"), ip("ff05::1"));
        groups.set(&[v4, v6], 0);
        assert_eq!(groups.tick(0).len(), 2);
        groups.set(&[v4, v6], SECOND);
        assert_eq!((groups.tick(9 * SECOND).len(), groups.due_ns()), (0, Some(10 * SECOND)));
        assert_eq!(groups.tick(10 * SECOND).len(), 2);
        assert_eq!((groups.tick(100 * SECOND).len(), groups.due_ns()), (0, None));
        // Of one family, within the time; of one group; of one that it is not in.
        groups.ask(ip("0.0.0.0"), 2 * SECOND, 100 * SECOND);
        assert!(groups.due_ns().is_some_and(|due| (100 * SECOND..102 * SECOND).contains(&due)));
        assert_eq!(groups.tick(102 * SECOND), [v4]);
        groups.ask(v6, SECOND, 200 * SECOND);
        assert_eq!(groups.tick(201 * SECOND), [v6]);
        groups.ask(ip("239.1.1.2"), SECOND, 300 * SECOND);
        assert_eq!(groups.due_ns(), None);
        groups.set(&[v6], 300 * SECOND);
        groups.ask(v4, SECOND, 300 * SECOND);
        assert_eq!(groups.due_ns(), None);
    }
}
