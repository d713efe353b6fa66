//! Methods on bridges and their MAC tables.

use serde::{Deserialize, Serialize};

use crate::mac::MacAddress;
use crate::schema::{Bridge, BridgeName, PortName, StaticEntry};

/// `bridge.list`: every bridge.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeList {}

/// A row of `bridge.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeRow {
    /// Its name.
    pub name: BridgeName,
    /// Its ports.
    pub ports: u32,
    /// MAC addresses that it knows now, static ones included.
    pub fdb_entries: u32,
    /// Most MACs that it learns; null: only `[limits] fdb` bounds it.
    pub fdb_limit: Option<u32>,
    /// Seconds after which a silent MAC is forgotten; 0: never.
    pub ageing_s: u32,
    /// Whether unicast to an unknown MAC goes to all ports.
    pub flood_unknown: bool,
    /// Whether broadcast goes to all ports.
    pub flood_broadcast: bool,
    /// Whether multicast goes to all ports.
    pub flood_multicast: bool,
}

/// `bridge.show`: everything about one bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeShow {
    /// Its name.
    pub name: BridgeName,
}

/// The result of `bridge.show`: the row of `bridge.list`, and more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeDetail {
    /// The row.
    #[serde(flatten)]
    pub row: BridgeRow,
    /// The names of its ports.
    pub port_names: Vec<PortName>,
}

/// `bridge.add`: add a bridge to the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeAdd {
    /// The bridge, with the keys of `[[bridge]]`.
    pub bridge: Bridge,
}

/// `bridge.del`: remove a bridge, which must have no ports, from the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeDel {
    /// Its name.
    pub name: BridgeName,
}

/// What identifies an entry of the MAC tables; the order is that of `fdb.list`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbKey {
    /// The bridge.
    pub bridge: BridgeName,
    /// The VLAN; 0: untagged frames of ports without VLAN settings.
    #[serde(default)]
    pub vlan: u16,
    /// The address.
    pub mac: MacAddress,
}

/// `fdb.list`: MAC addresses, sorted by bridge, VLAN and address, a page at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbList {
    /// Only this bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeName>,
    /// Only this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// Only this VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Only this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Go on behind this entry: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<FdbKey>,
}

/// The result of `fdb.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbPage {
    /// At most [`FdbPage::LONGEST`] rows.
    pub entries: Vec<FdbRow>,
    /// Null on the last page; else the `after` of the request for the next.
    pub next: Option<FdbKey>,
}

/// An entry of the MAC tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbRow {
    /// The bridge.
    pub bridge: BridgeName,
    /// The VLAN; 0: untagged frames of ports without VLAN settings.
    pub vlan: u16,
    /// The address.
    pub mac: MacAddress,
    /// The port that it is on.
    pub port: PortName,
    /// Where the entry comes from.
    pub kind: FdbKind,
    /// Seconds since the last frame from it; 0 for static entries.
    pub age_s: u64,
}

/// Where an entry of the MAC tables comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FdbKind {
    /// From a frame.
    Learned,
    /// From the desired state.
    Static,
}

impl FdbKind {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            FdbKind::Learned => "learned",
            FdbKind::Static => "static",
        }
    }
}

impl FdbRow {
    /// What identifies the entry.
    pub fn key(&self) -> FdbKey {
        FdbKey { bridge: self.bridge.clone(), vlan: self.vlan, mac: self.mac }
    }
}

impl FdbList {
    /// True if the filters let the row pass.
    pub fn wants(&self, row: &FdbRow) -> bool {
        self.bridge.as_ref().is_none_or(|bridge| *bridge == row.bridge)
            && self.port.as_ref().is_none_or(|port| *port == row.port)
            && self.vlan.is_none_or(|vlan| vlan == row.vlan)
            && self.mac.is_none_or(|mac| mac == row.mac)
    }
}

impl FdbPage {
    /// Rows of a page: some two megabytes of JSON.
    pub const LONGEST: usize = 16_384;

    /// The page that a request asks for, out of all rows in any order.
    pub fn cut(mut rows: Vec<FdbRow>, request: &FdbList) -> Self {
        rows.retain(|row| {
            request.wants(row) && request.after.as_ref().is_none_or(|after| row.key() > *after)
        });
        rows.sort_by_cached_key(FdbRow::key);
        let more = rows.len() > Self::LONGEST;
        rows.truncate(Self::LONGEST);
        let next = rows.last().filter(|_| more).map(FdbRow::key);
        Self { entries: rows, next }
    }
}

/// `fdb.add`: bind an address to a port, in the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbAdd {
    /// The entry, with the keys of `[[fdb]]`.
    pub entry: StaticEntry,
}

/// `fdb.del`: remove a static entry from the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbDel {
    /// Which.
    pub entry: FdbKey,
}

/// `fdb.flush`: forget learned addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbFlush {
    /// Only of this bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeName>,
    /// Only of this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// Only of this VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
}

/// The result of `fdb.flush`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// Entries that were forgotten.
    pub removed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bridge: &str, mac: u8) -> FdbRow {
        FdbRow {
            bridge: bridge.parse().unwrap(),
            vlan: 0,
            mac: MacAddress::new([2, 0, 0, 0, 0, mac]),
            port: "p".parse().unwrap(),
            kind: FdbKind::Learned,
            age_s: 0,
        }
    }

    #[test]
    fn pages_join_to_the_whole() {
        let mut rows: Vec<FdbRow> = Vec::new();
        for index in 0..FdbPage::LONGEST as u32 * 2 + 7 {
            let [_, b, c, d] = index.to_be_bytes();
            rows.push(FdbRow { mac: MacAddress::new([2, 0, 0, b, c, d]), ..row("b", 0) });
        }
        rows.reverse();
        let (mut request, mut seen, mut pages) = (FdbList::default(), Vec::new(), 0);
        loop {
            let page = FdbPage::cut(rows.clone(), &request);
            seen.extend(page.entries);
            pages += 1;
            request.after = page.next;
            if request.after.is_none() {
                break;
            }
        }
        rows.reverse();
        assert_eq!((pages, seen), (3, rows));
    }

    #[test]
    fn filters() {
        let rows = vec![row("b", 1), row("a", 2), row("a", 1)];
        let request = FdbList { bridge: Some("a".parse().unwrap()), ..FdbList::default() };
        assert_eq!(
            FdbPage::cut(rows.clone(), &request),
            FdbPage { entries: vec![row("a", 1), row("a", 2)], next: None }
        );
        let request = FdbList { vlan: Some(3), ..FdbList::default() };
        assert_eq!(FdbPage::cut(rows, &request).entries, vec![]);
    }
}
