//! The wanted state of a device inside a container, and bringing the device there.
//!
//! The same function serves the first opening and every later one: it looks, changes only what differs, and
//! keeps what is right, so that adopting a device after a restart disturbs no connection. What the container
//! set itself (further addresses, its own routes) stays. Called by `tap` and `veth`; may not make or delete
//! devices.

use std::net::IpAddr;

use super::address::Network;
use super::link::{Change, Link, Links, Mac};
use super::{Error, check_name};

/// The smallest MTU of IPv4 (RFC 791), which every Ethernet device takes.
pub const MTU_MIN: u32 = 68;
/// The largest that TAP and veth take: 65535 less the Ethernet header.
pub const MTU_MAX: u32 = 65521;

/// How the device of a container shall be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name inside the namespace.
    pub ifname: String,
    /// Ethernet address; without one the device keeps what it has, or what the kernel draws.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses with their networks.
    pub addresses: Vec<Network>,
    /// Default gateways, at most one of each family.
    pub gateways: Vec<IpAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ifname: "eth0".into(), mac: None, mtu: 1500, addresses: Vec::new(), gateways: Vec::new() }
    }
}

impl Settings {
    /// Refuses what no kernel would take, before anything is made.
    pub fn check(&self) -> Result<(), Error> {
        check_name(&self.ifname)?;
        if !(MTU_MIN..=MTU_MAX).contains(&self.mtu) {
            let why = format!("a TAP or veth takes {MTU_MIN} to {MTU_MAX} bytes");
            return Err(Error::Invalid { what: format!("mtu = {}", self.mtu), why });
        }
        let v6 = self.addresses.iter().any(|a| a.ip.is_ipv6()) || self.gateways.iter().any(IpAddr::is_ipv6);
        if v6 && self.mtu < 1280 {
            let why = "IPv6 needs at least 1280 bytes (RFC 8200 section 5)".into();
            return Err(Error::Invalid { what: format!("mtu = {}", self.mtu), why });
        }
        match self.mac {
            Some(mac) if mac[0] & 1 != 0 || mac == [0; 6] => Err(Error::Invalid {
                what: format!("mac = {:?}", super::link::mac_text(mac)),
                why: "a device needs a unicast address: an even first byte, not all zeros".into(),
            }),
            _ => Ok(()),
        }
    }

    /// Brings `link` to this state, up included; returns what it is then.
    ///
    /// # Errors
    /// What the kernel refuses. Nothing is undone: a device that was just made is the caller's to delete.
    pub fn apply(&self, links: &mut Links, link: &Link) -> Result<Link, Error> {
        let mut changes = Vec::new();
        if let Some(mac) = self.mac.filter(|mac| *mac != link.mac) {
            changes.push(Change::Mac(mac));
        }
        if link.mtu != self.mtu {
            changes.push(Change::Mtu(self.mtu));
        }
        if !link.up {
            changes.push(Change::Up(true));
        }
        links.change(link, &changes)?;
        self.apply_addresses(links, link)?;
        self.apply_gateways(links, link)?;
        links.get(&link.name)
    }

    fn apply_addresses(&self, links: &mut Links, link: &Link) -> Result<(), Error> {
        let present = links.addresses(link)?;
        // New ones first: with the last address of a network its routes, and with them connections, would go.
        for network in &self.addresses {
            if !present.iter().any(|address| address.network == *network) {
                links.add_address(link, *network)?;
            }
        }
        for address in present.iter().filter(|address| address.ours) {
            if !self.addresses.contains(&address.network) {
                links.remove_address(link, address.network)?;
            }
        }
        Ok(())
    }

    fn apply_gateways(&self, links: &mut Links, link: &Link) -> Result<(), Error> {
        let present = links.default_routes(link)?;
        for route in present.iter().filter(|route| route.ours && !self.gateways.contains(&route.gateway)) {
            links.remove_default_route(link, route.gateway)?;
        }
        for gateway in &self.gateways {
            if !present.iter().any(|route| route.gateway == *gateway) {
                links.add_default_route(link, *gateway)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::testing::Sandbox;

    #[test]
    fn settings_that_no_kernel_takes_are_refused_with_the_reason() {
        let good = Settings::default();
        good.check().unwrap();
        let bad = [
            (Settings { ifname: "a-name-too-long-x".into(), ..good.clone() }, "15 bytes"),
            (Settings { ifname: "a/b".into(), ..good.clone() }, "slash"),
            (Settings { mtu: 67, ..good.clone() }, "68 to 65521"),
            (Settings { mtu: 70_000, ..good.clone() }, "mtu = 70000"),
            (Settings { mtu: 1279, addresses: vec!["fd00::1/64".parse().unwrap()], ..good.clone() }, "1280"),
            (Settings { mac: Some([1, 0, 0, 0, 0, 0]), ..good.clone() }, "unicast"),
        ];
        for (settings, part) in bad {
            let text = settings.check().unwrap_err().to_string();
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }

    #[test]
    fn applying_again_changes_only_what_differs_and_keeps_the_containers_own() {
        let sandbox = Sandbox::new(1);
        sandbox.ip(0, &["link", "add", "eth0", "type", "veth"]);
        let mut links = Links::open(sandbox.netns(0)).unwrap();
        let mut settings = Settings {
            mac: Some([2, 0, 0, 0, 1, 1]),
            mtu: 1400,
            addresses: vec!["10.1.0.11/24".parse().unwrap(), "fd00:1::11/64".parse().unwrap()],
            gateways: vec!["10.1.0.1".parse().unwrap()],
            ..Settings::default()
        };
        let link = links.get("eth0").unwrap();
        let link = settings.apply(&mut links, &link).unwrap();
        assert_eq!((link.mac, link.mtu, link.up), ([2, 0, 0, 0, 1, 1], 1400, true));
        sandbox.ip(0, &["addr", "add", "10.9.0.1/24", "dev", "eth0"]);

        assert_eq!(settings.apply(&mut links, &link).unwrap(), link);
        settings.addresses = vec!["10.2.0.11/24".parse().unwrap()];
        settings.gateways = vec!["10.2.0.1".parse().unwrap()];
        settings.apply(&mut links, &link).unwrap();
        let shown = sandbox.ip(0, &["addr", "show", "dev", "eth0"]);
        assert!(shown.contains("10.2.0.11/24") && shown.contains("10.9.0.1/24"), "{shown}");
        assert!(!shown.contains("10.1.0.11") && !shown.contains("fd00:1::11"), "{shown}");
        let routes = sandbox.ip(0, &["route"]);
        assert!(routes.contains("default via 10.2.0.1") && !routes.contains("via 10.1.0.1"), "{routes}");
    }
}
