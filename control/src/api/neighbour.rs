//! Methods on the neighbour table: which MAC address has which IP address, and where.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::page;
use crate::mac::MacAddress;
use crate::schema::{BridgeName, PortName, TunnelName};

/// What identifies an entry of the neighbour table; the order is that of `neighbour.list`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighbourKey {
    /// The bridge.
    pub bridge: BridgeName,
    /// The VLAN; 0: untagged frames of ports without VLAN settings.
    #[serde(default)]
    pub vlan: u16,
    /// The address.
    pub ip: IpAddr,
}

/// `neighbour.list`: the neighbour table, sorted by bridge, VLAN and address, a page at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighbourList {
    /// Only this bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeName>,
    /// Only this VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Only this IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Only this MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Go on behind this entry: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<NeighbourKey>,
}

/// The result of `neighbour.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourPage {
    /// At most [`NeighbourPage::LONGEST`] rows.
    pub entries: Vec<NeighbourRow>,
    /// Null on the last page; else the `after` of the request for the next.
    pub next: Option<NeighbourKey>,
}

/// An entry of the neighbour table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourRow {
    /// The bridge.
    pub bridge: BridgeName,
    /// The VLAN; 0: untagged frames of ports without VLAN settings.
    pub vlan: u16,
    /// The IP address.
    pub ip: IpAddr,
    /// Who has it.
    pub mac: MacAddress,
    /// The port that the MAC address is on; null if it is behind a remote, or its place is not known.
    pub port: Option<PortName>,
    /// The tunnel that it is behind.
    pub tunnel: Option<TunnelName>,
    /// The remote of the tunnel.
    pub remote: Option<IpAddr>,
    /// How it is known.
    pub origin: NeighbourOrigin,
    /// Seconds since it was last seen; 0 if it was never to be.
    pub age_s: u64,
}

/// How a neighbour is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NeighbourOrigin {
    /// From the desired state.
    Config,
    /// From its ARP.
    Arp,
    /// From its neighbour discovery.
    Nd,
    /// From the answer of a DHCP server.
    Dhcp,
    /// From `fdb.load`.
    Api,
}

impl NeighbourOrigin {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            NeighbourOrigin::Config => "config",
            NeighbourOrigin::Arp => "arp",
            NeighbourOrigin::Nd => "nd",
            NeighbourOrigin::Dhcp => "dhcp",
            NeighbourOrigin::Api => "api",
        }
    }
}

impl NeighbourRow {
    /// What identifies the entry.
    pub fn key(&self) -> NeighbourKey {
        NeighbourKey { bridge: self.bridge.clone(), vlan: self.vlan, ip: self.ip }
    }
}

impl NeighbourList {
    /// True if the filters let the row pass.
    pub fn wants(&self, row: &NeighbourRow) -> bool {
        self.bridge.as_ref().is_none_or(|bridge| *bridge == row.bridge)
            && self.vlan.is_none_or(|vlan| vlan == row.vlan)
            && self.ip.is_none_or(|ip| ip == row.ip)
            && self.mac.is_none_or(|mac| mac == row.mac)
    }
}

impl NeighbourPage {
    /// Rows of a page: some three megabytes of JSON.
    pub const LONGEST: usize = 16_384;

    /// The page that a request asks for, out of all rows in any order.
    pub fn cut(mut rows: Vec<NeighbourRow>, request: &NeighbourList) -> Self {
        rows.retain(|row| request.wants(row));
        let (entries, next) = page::cut(rows, Self::LONGEST, NeighbourRow::key, request.after.as_ref());
        Self { entries, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_order() {
        let row = |bridge: &str, last: u8| NeighbourRow {
            bridge: bridge.parse().unwrap(),
            vlan: 0,
            ip: IpAddr::from([10, 0, 0, last]),
            mac: MacAddress::new([2, 0, 0, 0, 0, last]),
            port: None,
            tunnel: None,
            remote: None,
            origin: NeighbourOrigin::Arp,
            age_s: 0,
        };
        let rows = vec![row("b", 1), row("a", 10), row("a", 9)];
        let page = |request: &NeighbourList| NeighbourPage::cut(rows.clone(), request).entries;
        assert_eq!(page(&NeighbourList::default()), [row("a", 9), row("a", 10), row("b", 1)]);
        let after = Some(row("a", 9).key());
        let request = NeighbourList { bridge: "a".parse().ok(), after, ..NeighbourList::default() };
        assert_eq!(page(&request), [row("a", 10)]);
        let request = NeighbourList { ip: Some(row("b", 1).ip), ..NeighbourList::default() };
        assert_eq!(page(&request), [row("b", 1)]);
        let request = NeighbourList { mac: Some(row("b", 2).mac), ..NeighbourList::default() };
        assert_eq!(page(&request), []);
    }

    #[test]
    fn words() {
        for origin in [
            NeighbourOrigin::Config,
            NeighbourOrigin::Arp,
            NeighbourOrigin::Nd,
            NeighbourOrigin::Dhcp,
            NeighbourOrigin::Api,
        ] {
            assert_eq!(serde_json::to_value(origin).unwrap(), origin.as_str());
        }
    }
}
