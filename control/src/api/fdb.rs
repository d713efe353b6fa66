//! Methods on the MAC tables of bridges.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::page;
use crate::mac::MacAddress;
use crate::schema::{BridgeName, OriginName, Place, PortName, StaticEntry, TunnelName, VlanId};

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
    /// Only this tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelName>,
    /// Only this remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
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
    /// The port that it is on; null if it is behind a remote.
    pub port: Option<PortName>,
    /// The tunnel that it is behind.
    #[serde(default)]
    pub tunnel: Option<TunnelName>,
    /// The remote of the tunnel.
    #[serde(default)]
    pub remote: Option<IpAddr>,
    /// Where the entry comes from.
    pub kind: FdbKind,
    /// Who loaded it; null of other kinds.
    #[serde(default)]
    pub origin: Option<OriginName>,
    /// Seconds since the last frame from it; 0 unless it was learned.
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
    /// From `fdb.load`.
    Loaded,
}

impl FdbKind {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            FdbKind::Learned => "learned",
            FdbKind::Static => "static",
            FdbKind::Loaded => "loaded",
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
            && (self.port.is_none() || self.port == row.port)
            && (self.tunnel.is_none() || self.tunnel == row.tunnel)
            && (self.remote.is_none() || self.remote == row.remote)
            && self.vlan.is_none_or(|vlan| vlan == row.vlan)
            && self.mac.is_none_or(|mac| mac == row.mac)
    }
}

impl FdbPage {
    /// Rows of a page: some two megabytes of JSON.
    pub const LONGEST: usize = 16_384;

    /// The page that a request asks for, out of all rows in any order.
    pub fn cut(mut rows: Vec<FdbRow>, request: &FdbList) -> Self {
        rows.retain(|row| request.wants(row));
        let (entries, next) = page::cut(rows, Self::LONGEST, FdbRow::key, request.after.as_ref());
        Self { entries, next }
    }
}

/// `fdb.add`: bind an address to a port or a remote, in the desired state.
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

/// `fdb.load`: addresses that a controller knows of, in one change; no part of the desired state.
///
/// They stay when the client goes away, and are gone when the daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbLoad {
    /// Whose they are.
    pub origin: OriginName,
    /// Remove all other entries of this origin.
    #[serde(default)]
    pub replace: bool,
    /// The entries.
    pub entries: Vec<FdbEntry>,
}

/// An entry of `fdb.load`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FlatEntry", into = "FlatEntry")]
pub struct FdbEntry {
    /// The bridge.
    pub bridge: BridgeName,
    /// The VLAN; None: untagged frames of ports without VLAN settings.
    pub vlan: Option<VlanId>,
    /// The address. All zeros with a remote: what is flooded goes to that remote, too.
    pub mac: MacAddress,
    /// Where it is. A remote that the tunnel is not configured with becomes one of its remotes.
    pub place: Place,
    /// An IP address that it has: an entry of the neighbour table.
    pub ip: Option<IpAddr>,
}

/// An entry as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlatEntry {
    bridge: BridgeName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vlan: Option<u16>,
    mac: MacAddress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<PortName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tunnel: Option<TunnelName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remote: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
}

impl TryFrom<FlatEntry> for FdbEntry {
    type Error = String;

    fn try_from(flat: FlatEntry) -> Result<Self, String> {
        let FlatEntry { bridge, vlan, mac, port, tunnel, remote, ip } = flat;
        let is_flood = mac == MacAddress::ZERO && tunnel.is_some() && ip.is_none();
        if !mac.is_station() && !is_flood {
            return Err(format!("`mac`: {mac} is not the address of a station"));
        }
        let vlan = vlan.filter(|vlan| *vlan != 0).map(VlanId::new).transpose();
        let place = match (port, tunnel, remote) {
            (Some(port), None, None) => Place::Port(port),
            (None, Some(tunnel), Some(remote)) => Place::Remote { tunnel, remote },
            _ => return Err(format!("{mac} must have either `port`, or `tunnel` and `remote`")),
        };
        Ok(Self { bridge, vlan: vlan.map_err(|error| format!("`vlan`: {error}"))?, mac, place, ip })
    }
}

impl From<FdbEntry> for FlatEntry {
    fn from(entry: FdbEntry) -> Self {
        let FdbEntry { bridge, vlan, mac, place, ip } = entry;
        let (port, tunnel, remote) = match place {
            Place::Port(port) => (Some(port), None, None),
            Place::Remote { tunnel, remote } => (None, Some(tunnel), Some(remote)),
        };
        Self { bridge, vlan: vlan.map(VlanId::get), mac, port, tunnel, remote, ip }
    }
}

/// The result of `fdb.load`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbLoaded {
    /// Entries that are new or at another place.
    pub changed: u64,
    /// Entries that were so already.
    pub unchanged: u64,
    /// Entries that were removed.
    pub removed: u64,
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
            port: "p".parse().ok(),
            tunnel: None,
            remote: None,
            kind: FdbKind::Learned,
            origin: None,
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
    fn an_entry_is_at_one_place() {
        let read = |keys: &str| {
            let text = format!("{{\"bridge\":\"b\",\"mac\":\"02:00:00:00:00:01\"{keys}}}");
            serde_json::from_str::<FdbEntry>(&text).map_err(|error| error.to_string())
        };
        for keys in [r#","port":"p""#, r#","vlan":7,"tunnel":"t","remote":"192.0.2.1","ip":"fd00::1""#] {
            let entry = read(keys).unwrap();
            let text = serde_json::to_string(&entry).unwrap();
            assert_eq!(serde_json::from_str::<FdbEntry>(&text).unwrap(), entry);
        }
        assert_eq!(read(r#","port":"p","vlan":0"#).unwrap().vlan, None);
        for (keys, says) in [
            ("", "must have either"),
            (r#","port":"p","tunnel":"t""#, "must have either"),
            (r#","tunnel":"t""#, "must have either"),
            (r#","port":"p","vlan":4095"#, "not a VLAN"),
            (r#","prot":"p""#, "unknown field `prot`"),
        ] {
            let error = read(keys).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_is_flooded_goes_to_remotes() {
        let read = |place: &str| {
            let text = format!("{{\"bridge\":\"b\",\"mac\":\"00:00:00:00:00:00\",{place}}}");
            serde_json::from_str::<FdbEntry>(&text)
        };
        assert!(read(r#""tunnel":"t","remote":"192.0.2.1""#).is_ok());
        for place in [r#""port":"p""#, r#""tunnel":"t","remote":"192.0.2.1","ip":"10.0.0.1""#] {
            assert!(read(place).unwrap_err().to_string().contains("not the address of a station"));
        }
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
