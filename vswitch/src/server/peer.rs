//! Who is at the other end of a connection, and whether they may be.
//!
//! The socket's mode keeps others out already; this holds also where somebody widened it.

use std::fmt;
use std::os::unix::net::UnixStream;

use control::api::{ApiError, ErrorCode};

/// A client that may not use the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    user: Option<u32>,
    group: u32,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            Some(user) => {
                write!(f, "user {user} is neither root nor the daemon's user nor in group {}", self.group)
            }
            None => f.write_str("the kernel does not say who it is (SO_PEERCRED)"),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        ApiError::new(ErrorCode::Denied, "you may not control this switch")
            .cause(refused.to_string())
            .fix("run this as root, or as a member of the group that owns the socket")
    }
}

/// Lets root, the daemon's own user, and members of `group` pass.
pub(super) fn check(stream: &UnixStream, group: u32) -> Result<(), Refused> {
    let peer = rustix::net::sockopt::socket_peercred(stream).map_err(|_| Refused { user: None, group })?;
    let (user, primary) = (peer.uid.as_raw(), peer.gid.as_raw());
    let trusted = user == 0 || user == rustix::process::geteuid().as_raw() || primary == group;
    if trusted || supplementary(peer.pid.as_raw_nonzero().get()).contains(&group) {
        return Ok(());
    }
    Err(Refused { user: Some(user), group })
}

/// The supplementary groups of a process; none if it is gone.
fn supplementary(process: i32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    groups(&status)
}

/// The line `Groups:` of proc_pid_status(5).
fn groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_whitespace().filter_map(|group| group.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read() {
        assert_eq!(groups("Name:\tx\nGroups:\t4 27 1000 \nNStgid:\t1\n"), [4, 27, 1000]);
        assert_eq!(groups("Name:\tGroups: 0\n"), Vec::<u32>::new());
        assert_eq!(groups(""), Vec::<u32>::new());
    }
}
