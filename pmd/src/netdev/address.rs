//! IP addresses and default routes of a device, over rtnetlink.
//!
//! What we add carries a protocol number of our own, so that a later run can take away what the configuration
//! no longer wants and leaves alone what the container added itself. IPv6 addresses are added with `nodad`:
//! the switch knows who has which address, and a second of silence at every start is worth nothing.
//! Called by `settings`, and by those who must know whether a device carries the host's traffic.
//! See rtnetlink(7), <linux/if_addr.h>, <linux/rtnetlink.h>.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::link::Links;
use super::netlink::{CREATE, CREATE_OR_UPDATE, DUMP, Reply, Request, attributes, number};
use super::{Error, Link};

/// The protocol number of addresses and routes that we added ("v"); free in the kernel's and iproute2's lists.
const OURS: u8 = 0x76;
/// <linux/if_addr.h>: who added an address; older kernels step over it.
const IFA_PROTO: u16 = 11;

/// An address with the length of its network's prefix: `10.1.0.11/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    /// The address itself, host bits included.
    pub ip: IpAddr,
    /// Bits of the prefix: up to 32 or 128.
    pub prefix: u8,
}

impl FromStr for Network {
    type Err = Error;

    /// Reads `ADDRESS/PREFIX`; without a prefix it is the address alone (/32 or /128).
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::Invalid { what: format!("address {text:?}"), why: why.into() };
        let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
        let ip: IpAddr =
            ip.parse().map_err(|_| bad("no IPv4 or IPv6 address; write 10.1.0.11/24 or fd00::11/64"))?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) => digits.parse().map_err(|_| bad("the prefix length is no number"))?,
            None => most,
        };
        if prefix > most {
            return Err(bad("the prefix is longer than the address"));
        }
        Ok(Self { ip, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// An address that a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Address and prefix.
    pub network: Network,
    /// Added by us.
    pub ours: bool,
}

impl Address {
    /// An IPv6 link-local address, such as the kernel gives every device that is up.
    pub fn is_link_local(&self) -> bool {
        matches!(self.network.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
    }
}

/// A default route through a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The next hop.
    pub gateway: IpAddr,
    /// Added by us.
    pub ours: bool,
}

impl Links {
    /// The addresses of one device, of both families.
    pub fn addresses(&mut self, link: &Link) -> Result<Vec<Address>, Error> {
        let netns = &self.netns;
        let request = Request::new(libc::RTM_GETADDR, DUMP, &[0; 8]);
        let doing = || format!("reading the addresses of device {:?} in {netns}", link.name);
        let replies = self.netlink.fetch(request, doing)?;
        Ok(replies.iter().filter_map(|reply| parse_address(reply, link.index)).collect())
    }

    /// Adds an address; one that is there already is fine.
    pub fn add_address(&mut self, link: &Link, network: Network) -> Result<(), Error> {
        let mut request = address_request(libc::RTM_NEWADDR, CREATE, link, network);
        request.attribute(IFA_PROTO, &[OURS]);
        if network.ip.is_ipv6() {
            request.number(libc::IFA_FLAGS, libc::IFA_F_NODAD);
        }
        let netns = &self.netns;
        let doing = || format!("adding {network} to device {:?} in {netns}", link.name);
        settled(self.netlink.apply(request, doing), libc::EEXIST)
    }

    /// Takes an address away; one that is gone already is fine.
    pub fn remove_address(&mut self, link: &Link, network: Network) -> Result<(), Error> {
        let request = address_request(libc::RTM_DELADDR, 0, link, network);
        let netns = &self.netns;
        let doing = || format!("removing {network} from device {:?} in {netns}", link.name);
        settled(self.netlink.apply(request, doing), libc::EADDRNOTAVAIL)
    }

    /// The default routes through one device, in the main table.
    pub fn default_routes(&mut self, link: &Link) -> Result<Vec<DefaultRoute>, Error> {
        let netns = &self.netns;
        let request = Request::new(libc::RTM_GETROUTE, DUMP, &[0; 12]);
        let doing = || format!("reading the routes of {netns}");
        let replies = self.netlink.fetch(request, doing)?;
        Ok(replies.iter().filter_map(|reply| parse_default(reply, link.index)).collect())
    }

    /// Adds (IPv4: puts in place) the default route by `gateway`; one that is there already is fine.
    ///
    /// # Errors
    /// `ENETUNREACH` or `EHOSTUNREACH` when no address of the device has the gateway in its network.
    pub fn add_default_route(&mut self, link: &Link, gateway: IpAddr) -> Result<(), Error> {
        let request = route_request(libc::RTM_NEWROUTE, CREATE_OR_UPDATE, link, gateway);
        let netns = &self.netns;
        let doing = || format!("adding the gateway {gateway} on device {:?} in {netns}", link.name);
        settled(self.netlink.apply(request, doing), libc::EEXIST)
    }

    /// Takes a default route away; one that is gone already is fine.
    pub fn remove_default_route(&mut self, link: &Link, gateway: IpAddr) -> Result<(), Error> {
        let request = route_request(libc::RTM_DELROUTE, 0, link, gateway);
        let netns = &self.netns;
        let doing = || format!("removing the gateway {gateway} from device {:?} in {netns}", link.name);
        settled(self.netlink.apply(request, doing), libc::ESRCH)
    }
}

/// An error that says "it is so already" is none.
fn settled(outcome: Result<(), Error>, harmless: i32) -> Result<(), Error> {
    match outcome {
        Err(error) if error.errno() == Some(harmless) => Ok(()),
        outcome => outcome,
    }
}

/// The address as the kernel takes it: family and bytes.
pub(super) fn encode(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => (libc::AF_INET as u8, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6 as u8, ip.octets().to_vec()),
    }
}

pub(super) fn decode(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        16 => bytes.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

/// `struct ifaddrmsg` and the address.
fn address_request(kind: u16, flags: u16, link: &Link, network: Network) -> Request {
    let (family, bytes) = encode(network.ip);
    let mut header = [family, network.prefix, 0, libc::RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    header[4..].copy_from_slice(&link.index.to_ne_bytes());
    let mut request = Request::new(kind, flags, &header);
    request.attribute(libc::IFA_LOCAL, &bytes).attribute(libc::IFA_ADDRESS, &bytes);
    request
}

/// `struct rtmsg`, next hop and device.
fn route_request(kind: u16, flags: u16, link: &Link, gateway: IpAddr) -> Request {
    let (family, bytes) = encode(gateway);
    let header =
        [family, 0, 0, 0, libc::RT_TABLE_MAIN, OURS, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST, 0, 0, 0, 0];
    let mut request = Request::new(kind, flags, &header);
    request.attribute(libc::RTA_GATEWAY, &bytes).number(libc::RTA_OIF, link.index);
    request
}

fn parse_address(reply: &Reply, index: u32) -> Option<Address> {
    let body = reply.body.as_slice();
    if reply.kind != libc::RTM_NEWADDR || number(body.get(4..)?) != index {
        return None;
    }
    let (mut ip, mut local, mut ours) = (None, None, false);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            libc::IFA_ADDRESS => ip = decode(value),
            libc::IFA_LOCAL => local = decode(value),
            IFA_PROTO => ours = value.first() == Some(&OURS),
            _ => {}
        }
    }
    // Of a point-to-point pair IFA_ADDRESS is the other side; IFA_LOCAL is ours where there is one.
    Some(Address { network: Network { ip: local.or(ip)?, prefix: body[1] }, ours })
}

fn parse_default(reply: &Reply, index: u32) -> Option<DefaultRoute> {
    let body = reply.body.as_slice();
    let header = body.get(..12)?;
    if reply.kind != libc::RTM_NEWROUTE || header[1] != 0 || header[4] != libc::RT_TABLE_MAIN {
        return None;
    }
    let (mut device, mut gateway) = (0, None);
    for (kind, value) in attributes(&body[12..]) {
        match kind {
            libc::RTA_OIF => device = number(value),
            libc::RTA_GATEWAY => gateway = decode(value),
            _ => {}
        }
    }
    Some(DefaultRoute { gateway: gateway?, ours: header[5] == OURS }).filter(|_| device == index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::link::Change;
    use crate::netdev::testing::Sandbox;

    #[test]
    fn addresses_are_read_from_text() {
        let network: Network = "10.1.0.11/24".parse().unwrap();
        assert_eq!(network.to_string(), "10.1.0.11/24");
        assert_eq!("fd00::1".parse::<Network>().unwrap().prefix, 128);
        for bad in ["", "10.1.0.11/33", "10.1.0", "fd00::1/129", "10.1.0.1/x", "10.1.0.1/"] {
            let text = bad.parse::<Network>().unwrap_err().to_string();
            assert!(text.contains(&format!("{bad:?}")), "{text}");
        }
    }

    #[test]
    fn addresses_and_gateways_come_and_go_and_ours_are_known() {
        let sandbox = Sandbox::new(1);
        sandbox.ip(0, &["link", "add", "d0", "type", "veth"]);
        sandbox.ip(0, &["addr", "add", "192.0.2.1/24", "dev", "d0"]);
        let mut links = Links::open(sandbox.netns(0)).unwrap();
        let link = links.get("d0").unwrap();
        links.change(&link, &[Change::Up(true)]).unwrap();
        let wanted = ["10.1.0.11/24", "fd00:1::11/64"].map(|text| text.parse::<Network>().unwrap());
        for network in wanted {
            links.add_address(&link, network).unwrap();
            links.add_address(&link, network).unwrap();
        }
        let found = links.addresses(&link).unwrap();
        let ours: Vec<_> = found.iter().filter(|a| a.ours).map(|a| a.network).collect();
        assert_eq!(ours, wanted);
        assert!(found.iter().any(|a| !a.ours && a.network.to_string() == "192.0.2.1/24"));
        assert!(
            !sandbox.ip(0, &["addr", "show", "dev", "d0"]).contains("fd00:1::11/64 scope global tentative")
        );

        let gateways: [IpAddr; 2] = ["10.1.0.1".parse().unwrap(), "fd00:1::1".parse().unwrap()];
        for gateway in gateways {
            links.add_default_route(&link, gateway).unwrap();
            links.add_default_route(&link, gateway).unwrap();
        }
        let routes = links.default_routes(&link).unwrap();
        assert_eq!(routes, gateways.map(|gateway| DefaultRoute { gateway, ours: true }));
        let text = links.add_default_route(&link, "172.16.0.1".parse().unwrap()).unwrap_err().to_string();
        assert!(text.contains("172.16.0.1") && text.contains("inside one of the port's networks"), "{text}");

        for gateway in gateways {
            links.remove_default_route(&link, gateway).unwrap();
            links.remove_default_route(&link, gateway).unwrap();
        }
        for network in wanted {
            links.remove_address(&link, network).unwrap();
            links.remove_address(&link, network).unwrap();
        }
        assert!(links.default_routes(&link).unwrap().is_empty());
        assert!(links.addresses(&link).unwrap().iter().all(|a| !a.ours));
    }
}
