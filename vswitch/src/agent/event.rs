//! What the agent tells the switch.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::bfd::{Diagnostic, State};
use super::liveness::Liveness;

/// How a remote is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The Ethernet address of the neighbour that comes next.
    pub next_hop_mac: [u8; 6],
    /// Ours.
    pub source_mac: [u8; 6],
    /// Our address towards it.
    pub source: IpAddr,
    /// The largest packet that gets there, as far as is known.
    pub mtu: u32,
}

/// Why a remote is not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No route leads to it.
    NoRoute(IpAddr),
    /// It is one of our own addresses.
    Own(IpAddr),
    /// The neighbour that comes next was asked and has not answered yet.
    Asking(IpAddr),
    /// That neighbour does not answer.
    Silent(IpAddr),
    /// The device that leads to the underlay is down.
    LinkDown,
    /// The underlay is on this VLAN, for which the host has no device.
    NoVlan(u16),
    /// The host's route to it leads through another device.
    Elsewhere(IpAddr),
    /// Somebody else has this UDP port of the host.
    PortTaken(u16),
    /// Its BFD session is in this state, since that happened.
    NotAlive(State, Diagnostic),
    /// There is no such station, or no more.
    NoStation,
}

/// How neighbours with such an address are asked.
fn protocol(neighbour: &IpAddr) -> &'static str {
    if neighbour.is_ipv4() { "ARP" } else { "neighbour discovery" }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoRoute(remote) => write!(f, "no route to {remote}"),
            Reason::Own(remote) => write!(f, "{remote} is an address of our own"),
            Reason::Asking(hop) => write!(f, "{hop} has not answered {} yet", protocol(hop)),
            Reason::Silent(hop) => write!(f, "{hop} does not answer {}", protocol(hop)),
            Reason::LinkDown => f.write_str("the underlay's device is down"),
            Reason::Elsewhere(remote) => {
                write!(f, "the host's route to {remote} leads through another device than the underlay's")
            }
            Reason::NoVlan(vlan) => write!(
                f,
                "the host has no device for VLAN {vlan} on the underlay's: make one \
                 (`ip link add link DEVICE name DEVICE.{vlan} type vlan id {vlan}`), with the host's addresses"
            ),
            Reason::PortTaken(port) => write!(f, "somebody else has UDP port {port} of the host"),
            Reason::NotAlive(State::Init, _) => f.write_str("BFD: the other end does not hear us"),
            Reason::NotAlive(_, diagnostic) => write!(f, "BFD: {diagnostic}"),
            Reason::NoStation => f.write_str("the underlay is not there"),
        }
    }
}

/// A remote is reached in another way than before, or for the first time, or not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// The station's name.
    pub station: Arc<str>,
    /// The remote.
    pub remote: IpAddr,
    /// The way there, or why there is none.
    pub path: Result<Path, Reason>,
}

/// An error told that a packet of ours was too big. The path's MTU changes with it, by a [`PathChange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMtu {
    /// The station's name.
    pub station: Arc<str>,
    /// The remote that the packet went to.
    pub remote: IpAddr,
    /// What gets there.
    pub mtu: u32,
    /// The beginning of the packet, from its IP header on: as much as the error quotes.
    pub quoted: Vec<u8>,
}

/// What the agent tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// How a wanted remote is reached.
    Path(PathChange),
    /// What is too big for it.
    PathMtu(PathMtu),
    /// A BFD session is not as it was.
    Liveness {
        /// The station's name.
        station: Arc<str>,
        /// What it is now.
        liveness: Liveness,
    },
    /// Somebody else uses an address of ours.
    Duplicate {
        /// The station's name.
        station: Arc<str>,
        /// The address.
        address: IpAddr,
        /// Who uses it.
        mac: [u8; 6],
    },
}
