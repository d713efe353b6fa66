//! Routes of a station: which neighbour a packet goes to next, and which of our addresses it comes from.
//!
//! The longest prefix wins, among the networks that we have an address in and the configured routes; of two that are
//! as long, the network that we are in. A route whose `via` is no neighbour leads nowhere and is as if it were not
//! there. Pure: the same question has the same answer until the routes are others.

use std::net::IpAddr;

use control::schema::{IpPrefix, Route};

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Whose Ethernet address the frame gets.
    pub next: IpAddr,
    /// Our address.
    pub source: IpAddr,
}

/// The addresses and routes of a station.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    addresses: Vec<IpPrefix>,
    routes: Vec<Route>,
}

impl Routes {
    /// The routes of a station with these addresses.
    pub fn new(addresses: Vec<IpPrefix>, routes: Vec<Route>) -> Routes {
        Routes { addresses, routes }
    }

    /// Our addresses, in the order in which they were given.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(IpPrefix::address)
    }

    /// Whether the address is one of ours.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.addresses().any(|own| own == address)
    }

    /// Where a packet to `remote` goes next; `None` if no route leads there.
    pub fn hop(&self, remote: IpAddr) -> Option<Hop> {
        let connected = self.connected(remote);
        let routed = (self.routes.iter().filter(|route| route.to.contains(remote)))
            .filter_map(|route| {
                Some((route.to.length(), Hop { next: route.via, source: self.neighbour_source(route.via)? }))
            })
            .max_by_key(|(len, _)| *len);
        match (connected, routed) {
            (Some((near, hop)), Some((far, _))) if near >= far => Some(hop),
            (_, Some((_, hop))) => Some(hop),
            (connected, None) => connected.map(|(_, hop)| hop),
        }
    }

    /// The longest network of ours that `remote` is in.
    fn connected(&self, remote: IpAddr) -> Option<(u8, Hop)> {
        (self.addresses.iter().filter(|prefix| prefix.contains(remote)))
            .map(|prefix| (prefix.length(), Hop { next: remote, source: prefix.address() }))
            .max_by_key(|(len, _)| *len)
    }

    /// Our address towards a neighbour. One with a link-local address is a neighbour of whoever speaks IPv6
    /// (RFC 4291, 2.5.6), whether or not we have such an address, too.
    pub(super) fn neighbour_source(&self, neighbour: IpAddr) -> Option<IpAddr> {
        let link_local = matches!(neighbour, IpAddr::V6(address) if address.is_unicast_link_local());
        match self.connected(neighbour) {
            Some((_, hop)) => Some(hop.source),
            None if link_local => self.addresses().find(IpAddr::is_ipv6),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn route(to: &str, len: u8, via: &str) -> Route {
        Route { to: prefix(to, len), via: ip(via) }
    }

    fn prefix(address: &str, len: u8) -> IpPrefix {
        IpPrefix::new(ip(address), len).unwrap()
    }

    fn hop(routes: &Routes, remote: &str) -> Option<(String, String)> {
        routes.hop(ip(remote)).map(|hop| (hop.next.to_string(), hop.source.to_string()))
    }

    fn found(next: &str, source: &str) -> Option<(String, String)> {
        Some((next.into(), source.into()))
    }

    #[test]
    fn the_longest_prefix_wins() {
        let routes = Routes::new(
            vec![prefix("10.0.0.1", 24), prefix("10.1.0.1", 16), prefix("10.0.0.65", 26)],
            vec![
                route("0.0.0.0", 0, "10.0.0.254"),
                route("10.2.0.0", 16, "10.1.0.254"),
                route("10.2.3.0", 24, "10.0.0.253"),
                route("10.1.7.0", 24, "10.0.0.252"),
                route("10.0.0.0", 24, "10.1.0.9"),
                route("10.2.3.4", 32, "10.9.9.9"),
            ],
        );
        assert_eq!(hop(&routes, "10.0.0.2"), found("10.0.0.2", "10.0.0.1"), "the network that we are in");
        assert_eq!(hop(&routes, "10.0.0.70"), found("10.0.0.70", "10.0.0.65"));
        assert_eq!(hop(&routes, "10.1.6.1"), found("10.1.6.1", "10.1.0.1"));
        assert_eq!(hop(&routes, "10.1.7.1"), found("10.0.0.252", "10.0.0.1"), "longer than the network");
        assert_eq!(hop(&routes, "10.2.1.1"), found("10.1.0.254", "10.1.0.1"));
        assert_eq!(hop(&routes, "10.2.3.4"), found("10.0.0.253", "10.0.0.1"), "10.9.9.9 is no neighbour");
        assert_eq!(hop(&routes, "192.0.2.1"), found("10.0.0.254", "10.0.0.1"));
        assert_eq!(hop(&routes, "2001:db8::1"), None);
    }

    #[test]
    fn without_a_route_there_is_none() {
        assert_eq!(hop(&Routes::default(), "10.0.0.2"), None);
        let routes = Routes::new(vec![prefix("10.0.0.1", 31)], vec![route("0.0.0.0", 0, "10.0.0.2")]);
        assert_eq!(hop(&routes, "10.0.0.0"), found("10.0.0.0", "10.0.0.1"));
        assert_eq!(hop(&routes, "10.0.0.2"), None, "its own way leads through itself");
        assert!(routes.is_own(ip("10.0.0.1")) && !routes.is_own(ip("10.0.0.0")));
    }

    #[test]
    fn a_router_may_have_a_link_local_address_only() {
        let routes = Routes::new(
            vec![prefix("10.0.0.1", 24), prefix("2001:db8::1", 64)],
            vec![route("::", 0, "fe80::1")],
        );
        assert_eq!(hop(&routes, "2001:db8::2"), found("2001:db8::2", "2001:db8::1"));
        assert_eq!(hop(&routes, "2001:db8:1::2"), found("fe80::1", "2001:db8::1"));
        let only = Routes::new(vec![prefix("10.0.0.1", 24)], vec![route("::", 0, "fe80::1")]);
        assert_eq!(hop(&only, "2001:db8:1::2"), None, "we do not speak IPv6");
    }
}
