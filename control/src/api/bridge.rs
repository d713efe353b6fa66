//! Methods on bridges.

use serde::{Deserialize, Serialize};

use crate::schema::{Bridge, BridgeName, PortName};

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
    /// Its part of the desired state, with the keys of `[[bridge]]`.
    pub config: Bridge,
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
