//! Methods on ports.

use serde::{Deserialize, Serialize};

use crate::mac::MacAddress;
use crate::schema::{BridgeName, Port, PortName};

/// `port.list`: every port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortList {
    /// Only ports of this bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeName>,
}

/// Up or down: of a port, and of its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpDown {
    /// Frames pass.
    Up,
    /// No frame passes.
    Down,
}

impl UpDown {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            UpDown::Up => "up",
            UpDown::Down => "down",
        }
    }
}

/// A row of `port.list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortRow {
    /// Its name.
    pub name: PortName,
    /// Its type, as the configuration writes it.
    #[serde(rename = "type")]
    pub port_type: String,
    /// Its bridge.
    pub bridge: Option<BridgeName>,
    /// What it does with VLANs, as people read it: `transparent`, `10`, `trunk 20-29 native 5`.
    pub vlan: String,
    /// Up: the switch drives it. Down: it could not be opened or was lost.
    pub state: UpDown,
    /// Why it is down; null while it is up.
    pub reason: Option<String>,
    /// Whether the other end has a carrier.
    pub link: UpDown,
    /// How it is driven, where there is a choice: `zero-copy`, `copy`; null otherwise.
    pub mode: Option<String>,
    /// The largest frame it takes, without its Ethernet header, in bytes.
    pub mtu: u32,
    /// The address of the interface that it makes or drives; null where there is none.
    pub mac: Option<MacAddress>,
    /// Rx queues.
    pub queues: u32,
    /// Frames received from the port.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames sent to the port.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames dropped at the port, in either direction.
    pub drops: u64,
    /// Frames that the kernel lost in front of the port's rx queues, since it was opened: they never came in.
    #[serde(default)]
    pub missed: u64,
    /// Whether somebody is connected to it; null, as the next four, of a port that nobody plugs into.
    #[serde(default)]
    pub connected: Option<bool>,
    /// The kind of ring in use: `split`, `packed`; null while none is.
    #[serde(default)]
    pub ring: Option<String>,
    /// Queue pairs in use.
    #[serde(default)]
    pub queues_enabled: Option<u32>,
    /// What both ends have agreed on, by the names of the standard: `csum`, `mrg_rxbuf`, `version_1`.
    #[serde(default)]
    pub features: Option<Vec<String>>,
    /// How often the rings' use came to an end: the other end was reset or went away, or broke the rules.
    #[serde(default)]
    pub resets: Option<u64>,
}

/// `port.show`: everything about one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortShow {
    /// Its name.
    pub name: PortName,
}

/// The result of `port.show`: the row of `port.list`, and more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortDetail {
    /// The row.
    #[serde(flatten)]
    pub row: PortRow,
    /// Its part of the desired state, with the keys of `[[port]]`.
    pub config: Port,
    /// What the port can take over from us or hand to us: `checksum`, `tso4`, `tso6`, `uso`.
    pub offloads: Vec<String>,
    /// Which worker serves which rx queue.
    pub placement: Vec<QueuePlacement>,
    /// Its drops by reason; only reasons that occurred.
    pub drop_reasons: Vec<DropCount>,
}

/// The worker of an rx queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePlacement {
    /// The queue, from 0.
    pub queue: u32,
    /// The worker's place in `[switch] workers`, from 0.
    pub worker: u32,
    /// The CPU that this worker is pinned to.
    pub cpu: u32,
}

/// Drops of one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// The name of the reason.
    pub reason: String,
    /// Frames.
    pub frames: u64,
}

/// `port.add`: add a port to the desired state, and open it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortAdd {
    /// The port, with the keys of `[[port]]`.
    pub port: Port,
}

/// `port.del`: remove a port from the desired state, and its interface where we made it. Static
/// entries of the port go with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortDel {
    /// Its name.
    pub name: PortName,
}
