//! Routes as the kernel finds them: where a packet to an address would go now, and from which of the host's.
//!
//! The kernel is asked (`RTM_GETROUTE`) rather than its tables read: rules, multipath, and what it has learned about
//! the path's MTU are in its answer. Called by whoever sends in the host's name; knows nothing about neighbours. See
//! rtnetlink(7).

use std::net::IpAddr;

use super::address::{decode, encode};
use super::netlink::{Reply, Request, attributes, number};
use super::{Error, Links};

/// `<linux/rtnetlink.h>`: a next hop of another family than the destination's.
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;

/// The kernel's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destination is one of the host's own addresses.
    pub is_local: bool,
    /// Index of the device that the packet leaves by.
    pub device: u32,
    /// The router that it goes to; None if the destination is a neighbour itself.
    pub gateway: Option<IpAddr>,
    /// The host's address that it comes from.
    pub source: Option<IpAddr>,
    /// The MTU of the route, or what was learned of the path; None where the device's holds.
    pub mtu: Option<u32>,
}

impl Links {
    /// The way of a packet to `to`; None if no route leads there.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn route(&mut self, to: IpAddr) -> Result<Option<Route>, Error> {
        let (family, bytes) = encode(to);
        let mut header = [0; 12]; // `struct rtmsg`
        header[0] = family;
        header[1] = bytes.len() as u8 * 8;
        let mut request = Request::new(libc::RTM_GETROUTE, 0, &header);
        request.attribute(libc::RTA_DST, &bytes);
        let netns = &self.netns;
        match self.netlink.fetch(request, || format!("asking for the route to {to} in {netns}")) {
            Ok(replies) => Ok(replies.iter().find_map(parse)),
            // No route, or one that says no: unreachable, prohibit, blackhole.
            Err(error) if error.errno().is_some_and(is_no_route) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_no_route(errno: i32) -> bool {
    [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL, libc::ENETDOWN].contains(&errno)
}

fn parse(reply: &Reply) -> Option<Route> {
    let header = reply.body.get(..12).filter(|_| reply.kind == libc::RTM_NEWROUTE)?;
    // IPv6 says of a route that says no that it leads to the loopback.
    let is_local = header[7] == libc::RTN_LOCAL;
    if !is_local && header[7] != libc::RTN_UNICAST {
        return None;
    }
    let mut route = Route { is_local, device: 0, gateway: None, source: None, mtu: None };
    for (kind, value) in attributes(&reply.body[12..]) {
        match kind {
            libc::RTA_OIF => route.device = number(value),
            libc::RTA_GATEWAY => route.gateway = decode(value),
            // `struct rtvia`: the family, and the address.
            RTA_VIA => route.gateway = value.get(2..).and_then(decode),
            libc::RTA_PREFSRC => route.source = decode(value),
            libc::RTA_METRICS => {
                let mtu = attributes(value).find(|(kind, _)| *kind == RTAX_MTU);
                route.mtu = mtu.map(|(_, value)| number(value)).filter(|mtu| *mtu > 0);
            }
            _ => {}
        }
    }
    Some(route)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::testing::Sandbox;

    #[test]
    fn the_kernel_says_where_a_packet_goes() {
        let sandbox = Sandbox::new(1);
        let ip = |line: &str| sandbox.ip(0, &line.split_whitespace().collect::<Vec<_>>());
        ip("link add d0 type veth");
        ip("link set d0 up");
        ip("link set veth0 up");
        ip("addr add 192.0.2.1/24 dev d0");
        ip("addr add fd00::1/64 dev d0 nodad");
        ip("route add 198.51.100.0/24 via 192.0.2.9 mtu 1400");
        ip("route add fd01::/64 via fd00::9");
        ip("route add blackhole 203.0.113.0/24");
        let mut links = Links::open(sandbox.netns(0)).unwrap();
        let index = links.get("d0").unwrap().index;
        let mut route = |to: &str| links.route(to.parse().unwrap()).unwrap();
        let source = Some("192.0.2.1".parse().unwrap());
        let near = Route { is_local: false, device: index, gateway: None, source, mtu: None };
        assert_eq!(route("192.0.2.7"), Some(near));
        let gateway = Some("192.0.2.9".parse().unwrap());
        assert_eq!(route("198.51.100.1"), Some(Route { gateway, mtu: Some(1400), ..near }));
        let far = route("fd01::1").unwrap();
        assert_eq!(
            (far.device, far.gateway, far.source),
            (index, "fd00::9".parse().ok(), "fd00::1".parse().ok())
        );
        assert!(route("192.0.2.1").unwrap().is_local);
        for nowhere in ["203.0.113.1", "8.8.8.8", "fd02::1"] {
            assert_eq!(route(nowhere), None, "{nowhere}");
        }
    }
}
