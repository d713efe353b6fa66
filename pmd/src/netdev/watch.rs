#![allow(unsafe_code)]
//! Changes of a namespace's networking, as they happen: devices, addresses, routes, rules, neighbours.
//!
//! What has changed is not told, only that something has: whoever depends on it asks the kernel anew, which is right
//! also when news were lost. See rtnetlink(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr};

use super::{Error, Netns};

/// `RTNLGRP_LINK`, `NEIGH`, `IPV4_IFADDR`, `IPV4_ROUTE`, `IPV4_RULE`, `IPV6_IFADDR`, `IPV6_ROUTE`, `IPV6_RULE`.
const GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];

/// An ear at the kernel.
pub struct Watch(Socket);

impl Watch {
    /// Hears of changes in `netns` from now on.
    ///
    /// # Errors
    /// No socket is to be had.
    pub fn open(netns: &Netns) -> Result<Watch, Error> {
        netns.run(|| {
            let failed = |cause| Error::call("listening to the kernel", super::link::CALL, cause);
            let mut socket = Socket::new(libc::NETLINK_ROUTE as isize).map_err(failed)?;
            socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
            GROUPS.iter().try_for_each(|group| socket.add_membership(*group)).map_err(failed)?;
            socket.set_non_blocking(true).map_err(failed)?;
            Ok(Watch(socket))
        })
    }

    /// Whether something has changed since the last time.
    pub fn has_news(&self) -> bool {
        let mut news = false;
        loop {
            // News that were lost (`ENOBUFS`) are news.
            match self.0.recv_from_full() {
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return news,
                Err(cause) if cause.raw_os_error() != Some(libc::ENOBUFS) => return true,
                _ => news = true,
            }
        }
    }
}

impl AsFd for Watch {
    /// Readable when there are news.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::testing::Sandbox;

    #[test]
    fn every_kind_of_change_is_heard() {
        let sandbox = Sandbox::new(1);
        let watch = Watch::open(sandbox.netns(0)).unwrap();
        assert!(!watch.has_news());
        for line in [
            "link add d0 type veth",
            "link set d0 up",
            "link set veth0 up",
            "addr add 192.0.2.1/24 dev d0",
            "addr add fd00::1/64 dev d0 nodad",
            "route add 198.51.100.0/24 via 192.0.2.2",
            "route add fd01::/64 via fd00::2",
            "neigh add 192.0.2.3 lladdr 02:00:00:00:00:33 dev d0",
            "rule add from 192.0.2.1 lookup 100",
            "link del d0",
        ] {
            watch.has_news();
            sandbox.ip(0, &line.split_whitespace().collect::<Vec<_>>());
            assert!(watch.has_news(), "{line}");
        }
    }
}
