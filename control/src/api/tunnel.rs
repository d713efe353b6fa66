//! Methods on tunnels and their remotes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{DropCount, UpDown};
use crate::mac::MacAddress;
use crate::schema::{BridgeName, PortName, Tunnel, TunnelName, UnderlayName, Vni};

/// `tunnel.list`: every tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelList {}

/// A row of `tunnel.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelRow {
    /// Its name.
    pub name: TunnelName,
    /// Its type, in the configuration's word.
    #[serde(rename = "type")]
    pub tunnel_type: String,
    /// The underlay that it runs over.
    pub underlay: UnderlayName,
    /// Whether a remote can be reached.
    pub state: UpDown,
    /// Why none can.
    pub reason: Option<String>,
    /// Our address, as configured or else as it is in use; null while none is.
    pub local: Option<IpAddr>,
    /// Its remotes: those of the configuration, in the order there, and those that controllers have given it; then its
    /// multicast group, if it has one.
    pub remotes: Vec<RemoteRow>,
}

/// A remote of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRow {
    /// Its address.
    pub address: IpAddr,
    /// Whether it can be reached, as far as is known without asking it.
    pub state: UpDown,
    /// Why it cannot.
    pub reason: Option<String>,
    /// The path MTU to it, outer headers included; null while it cannot be reached.
    pub mtu: Option<u16>,
    /// The next hop's address on the link.
    pub mac: Option<MacAddress>,
    /// Its BFD session; null where there is none.
    pub bfd: Option<BfdRow>,
    /// Frames received from it, as they are inside.
    pub rx_frames: u64,
    /// Frames sent to it.
    pub tx_frames: u64,
    /// Frames from or to it that were dropped.
    pub drops: u64,
}

/// A BFD session with a remote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdRow {
    /// `down`, `init` (the remote is heard and does not hear us), `up`.
    pub state: String,
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
    /// Packets from there that break a rule or belong to no session.
    pub refused: u64,
    /// How often it went down.
    pub downs: u64,
}

/// `tunnel.show`: everything about one tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelShow {
    /// Its name.
    pub name: TunnelName,
}

/// The result of `tunnel.show`: the row of `tunnel.list`, and more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelDetail {
    /// The row.
    #[serde(flatten)]
    pub row: TunnelRow,
    /// Its part of the desired state, with the keys of `[[tunnel]]`.
    pub config: Tunnel,
    /// The port of its underlay.
    pub port: PortName,
    /// The VNIs in use.
    pub vnis: Vec<VniRow>,
    /// Its drops by reason; only reasons that occurred.
    pub drop_reasons: Vec<DropCount>,
}

/// What one VNI carries through a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VniRow {
    /// The number on the wire.
    pub vni: Vni,
    /// The bridge that it is.
    pub bridge: BridgeName,
    /// The VLAN of the bridge; null: the whole bridge.
    pub vlan: Option<u16>,
    /// The largest frame that passes, as the MTU of those inside; null while no remote can be reached.
    pub mtu: Option<u16>,
    /// Its remotes that get a copy of what is flooded.
    pub flood: Vec<IpAddr>,
    /// Frames received with this number through the tunnel.
    pub rx_frames: u64,
    /// Their bytes, with the tunnel's headers.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Their bytes, with the tunnel's headers.
    pub tx_bytes: u64,
}

/// `tunnel.ping`: ask remotes for an answer, and find out how large a packet may be on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelPing {
    /// The tunnel.
    pub name: TunnelName,
    /// Only this remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
}

/// What a remote answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pinged {
    /// The remote.
    pub address: IpAddr,
    /// Milliseconds until it answered; null: it did not.
    pub round_trip_ms: Option<f64>,
    /// The path MTU to it; null while it is not known.
    pub mtu: Option<u16>,
    /// Why there was no answer.
    pub reason: Option<String>,
}
