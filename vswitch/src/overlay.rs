//! Overlays as workers see them: which VNI is which bridge, who else is in it, and how he is reached.
//!
//! A part of the [snapshot](crate::snapshot), compiled by the switch and immutable. A *remote* is a VTEP that a
//! tunnel reaches. It has an index in the numbers of ports, behind all of these, so that the FDB, flow keys and
//! counters know it as one more place that a station can be behind. What is asked of a frame that came by an
//! underlay is [`Overlays::enter`]: whether a tunnel of ours brings it, from whom, and into which overlay. Tables
//! here are written by the configuration alone: whatever headers say, a search takes as long as for any other.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::flow::hash::HashKey;
use crate::telemetry::counters::VniTraffic;
use crate::telemetry::drops::DropReason;
use crate::tunnel::{Claims, Kind, Policy, Template};

/// An IP address, IPv4 as mapped IPv6 (RFC 4291 section 2.5.5.2).
pub type Address = [u8; 16];

/// An address as tables have it.
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// An address as people have it.
pub fn ip(address: &Address) -> IpAddr {
    Ipv6Addr::from(*address).to_canonical()
}

/// What leads to other hosts.
#[derive(Clone, Debug)]
pub struct Overlays {
    /// The index of the first remote; ports have lower ones.
    first: u16,
    remotes: Vec<Option<RemoteView>>,
    /// By overlay number.
    overlays: Vec<OverlayView>,
    /// By overlay number: what is counted of it, for each tunnel that carries it.
    traffic: Vec<Box<[Metered]>>,
    /// By underlay index.
    underlays: Vec<Option<UnderlayView>>,
    peers: HashTable<(Peer, u16)>,
    vnis: HashTable<(Network, u16)>,
    /// Spreads inner flows over source ports, too.
    pub hash: HashKey,
}

/// A tunnel, and where it is counted what it carries of an overlay.
type Metered = (u16, Arc<VniTraffic>);

/// A VTEP that a tunnel reaches.
#[derive(Clone, Debug)]
pub struct RemoteView {
    /// Its tunnel's name and its address, for people.
    pub name: Box<str>,
    /// Its tunnel's number.
    pub tunnel: u16,
    /// The underlay that leads to it.
    pub underlay: u16,
    /// Its address.
    pub address: Address,
    /// Ours, as it knows us.
    pub local: Address,
    /// The multicast group that it may send to as well.
    pub group: Option<Address>,
    /// Whether stations are learned from its frames.
    pub learning: bool,
    /// Whether its frames say of which group their sender is (VXLAN's group policy extension).
    pub gbp: bool,
    /// The port that frames for it leave by.
    pub outlet: u16,
    /// What comes before a frame for it; `None` while it is not known how to reach it.
    pub template: Option<Arc<Template>>,
    /// Longest network packet of an inner frame, in bytes.
    pub mtu: u32,
}

/// One VNI in one bridge.
#[derive(Clone, Debug)]
pub struct OverlayView {
    /// Its number on the wire (a VSID of NVGRE).
    pub vni: u32,
    /// The bridge.
    pub bridge: u16,
    /// The VLAN whose frames it carries, without their tag; `None` for all of the bridge's, as they are.
    pub vlan: Option<u16>,
    /// The remotes that get a copy of what is flooded.
    pub flood: Arc<[u16]>,
}

/// An IP network that tunnels go through.
#[derive(Clone, Debug)]
pub struct UnderlayView {
    /// Its port.
    pub port: u16,
    /// The port behind which the switch speaks for itself there.
    pub agent: Option<u16>,
    /// The VLAN that it is on; `None`: frames without a tag.
    pub vlan: Option<u16>,
    /// Our MAC address in it.
    pub mac: [u8; 6],
    /// The UDP ports that tunnels listen on, each with its kind.
    pub ports: Vec<(u16, Kind)>,
    /// Whether there is a tunnel over GRE.
    pub gre: bool,
}

impl UnderlayView {
    /// What is taken for a tunnel's.
    #[inline]
    pub fn claims(&self) -> Claims<'_> {
        Claims { ports: &self.ports, gre: self.gre }
    }
}

/// Whom an outer header names as its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The underlay that the frame came by.
    pub underlay: u16,
    /// The kind of its tunnel.
    pub kind: Kind,
    /// The UDP port that it was sent to; 0 for NVGRE.
    pub port: u16,
    /// Its address.
    pub address: Address,
}

/// A virtual network of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    tunnel: u16,
    vni: u32,
}

/// Where a frame came in, as far as decisions go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ingress {
    /// The port that received it, where it counts.
    pub rx: u16,
    /// The port, or the remote that sent it.
    pub port: u16,
    /// The overlay that it came by, if a remote sent it.
    pub overlay: u16,
    /// What the remote's side says of its sender, if the tunnel carries that.
    pub policy: Policy,
}

impl Ingress {
    /// By a port of a bridge.
    #[inline]
    pub fn port(port: u16) -> Ingress {
        Ingress { rx: port, port, overlay: 0, policy: Policy::default() }
    }

    /// Whether a remote sent it.
    #[inline]
    pub fn is_remote(self) -> bool {
        self.rx != self.port
    }
}

/// None, of a switch that can have none.
impl Default for Overlays {
    fn default() -> Overlays {
        Overlays::new(u16::MAX)
    }
}

impl Overlays {
    /// Empty, for a switch whose ports have indices below `first`.
    pub fn new(first: u16) -> Overlays {
        Overlays {
            first,
            remotes: Vec::new(),
            overlays: Vec::new(),
            traffic: Vec::new(),
            underlays: Vec::new(),
            peers: HashTable::new(),
            vnis: HashTable::new(),
            // Only the configuration puts anything into the tables: there is nothing to be gained by collisions.
            hash: HashKey::from_seed(0),
        }
    }

    /// The remote of this index, if it is one.
    #[inline]
    pub fn remote(&self, index: u16) -> Option<&RemoteView> {
        self.remotes.get(usize::from(index.checked_sub(self.first)?))?.as_ref()
    }

    /// Whether an index is that of a remote and not of a port, also of one that nothing is known of at the moment:
    /// what is decided about a flow must not depend on what changes without a new generation.
    #[inline]
    pub fn is_remote(&self, index: u16) -> bool {
        index >= self.first
    }

    /// The overlay of this number.
    #[inline]
    pub fn overlay(&self, overlay: u16) -> Option<&OverlayView> {
        self.overlays.get(usize::from(overlay))
    }

    /// The underlay of this index.
    #[inline]
    pub fn underlay(&self, underlay: u16) -> Option<&UnderlayView> {
        self.underlays.get(usize::from(underlay))?.as_ref()
    }

    /// Adds an underlay.
    pub fn put_underlay(&mut self, index: u16, view: UnderlayView) {
        put(&mut self.underlays, index, view);
    }

    /// Adds a remote; `port` is the UDP port that its tunnel has, 0 for NVGRE.
    pub fn put_remote(&mut self, index: u16, kind: Kind, port: u16, view: RemoteView) {
        let peer = Peer { underlay: view.underlay, kind, port, address: view.address };
        let Overlays { peers, hash, .. } = self;
        peers.insert_unique(of_peer(hash, &peer), (peer, index), |(peer, _)| of_peer(hash, peer));
        put(&mut self.remotes, index - self.first, view);
    }

    /// Adds an overlay that each of `tunnels` carries; gives its number.
    pub fn add(&mut self, view: OverlayView, tunnels: impl IntoIterator<Item = u16>) -> u16 {
        let number = self.overlays.len() as u16;
        let Overlays { vnis, hash, .. } = self;
        for tunnel in tunnels {
            let network = Network { tunnel, vni: view.vni };
            let entry = (network, number);
            vnis.insert_unique(of_network(hash, network), entry, |(network, _)| of_network(hash, *network));
        }
        self.overlays.push(view);
        number
    }

    /// Says where it is counted what tunnels carry of an overlay.
    pub fn meter(&mut self, overlay: u16, tunnels: impl IntoIterator<Item = (u16, Arc<VniTraffic>)>) {
        let place = usize::from(overlay);
        if self.traffic.len() <= place {
            self.traffic.resize_with(place + 1, Box::default);
        }
        self.traffic[place] = tunnels.into_iter().collect();
    }

    /// Where it is counted what a tunnel carries of an overlay.
    #[inline]
    pub fn traffic(&self, overlay: u16, tunnel: u16) -> Option<&VniTraffic> {
        let carriers = self.traffic.get(usize::from(overlay))?;
        carriers.iter().find(|(carrier, _)| *carrier == tunnel).map(|(_, traffic)| &**traffic)
    }

    /// Whose frame it is that `peer` sent to `local`, of `vni`: the remote and the overlay.
    ///
    /// # Errors
    /// Nobody's: an unknown sender, not to the address that he knows us by, not a network that his tunnel carries.
    #[inline]
    pub fn enter(&self, peer: &Peer, local: &Address, vni: u32) -> Result<(u16, u16), DropReason> {
        let mut reason = DropReason::UnknownVtep;
        // A VTEP may be reached by several tunnels, which carry different networks.
        for (known, index) in self.peers.iter_hash(of_peer(&self.hash, peer)) {
            let Some(remote) = self.remote(*index).filter(|_| known == peer) else { continue };
            if remote.local != *local && remote.group != Some(*local) {
                continue;
            }
            reason = DropReason::UnknownVni;
            let network = Network { tunnel: remote.tunnel, vni };
            let found = self.vnis.find(of_network(&self.hash, network), |(known, _)| *known == network);
            if let Some((_, overlay)) = found {
                return Ok((*index, *overlay));
            }
        }
        Err(reason)
    }
}

fn of_peer(hash: &HashKey, peer: &Peer) -> u64 {
    let [high, low] = halves(&peer.address);
    let rest = u64::from(peer.underlay) << 32 | u64::from(peer.port) << 8 | peer.kind as u64;
    hash.three([high, low, rest])
}

fn of_network(hash: &HashKey, network: Network) -> u64 {
    hash.two([u64::from(network.tunnel), network.vni.into()])
}

fn halves(address: &Address) -> [u64; 2] {
    let bits = u128::from_be_bytes(*address);
    [(bits >> 64) as u64, bits as u64]
}

fn put<T>(list: &mut Vec<Option<T>>, index: u16, value: T) {
    let place = usize::from(index);
    if list.len() <= place {
        list.resize_with(place + 1, || None);
    }
    list[place] = Some(value);
}
