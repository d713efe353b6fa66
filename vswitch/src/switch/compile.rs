//! Compiling a snapshot from the desired state, the ports that are open and the ways that are known.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use control::schema::{Bridge, Dscp, FlowId, Tunnel, TunnelKind, TunnelName, Underlay, VlanMode};
use pmd::{Features, Port, Taken};

use super::State;
use super::loaded::Floods;
use super::ports::{PortState, Running};
use super::reach::{Plugged, Seat, shared};
use crate::agent::{Path, Reason};
use crate::flow::numbers::protocol;
use crate::overlay::{OverlayView, Overlays, RemoteView, UnderlayView, address};
use crate::pipeline::{mask, remote_mask};
use crate::snapshot::{BridgeView, Place, PortView, PortVlans, Snapshot, Stretch};
use crate::telemetry::counters::VniTraffic;
use crate::tunnel::{Kind, Setup, Template};

impl State {
    /// Builds the snapshot of the current state and gives it to every worker. Also sets the limits that the
    /// tables keep themselves.
    pub(super) fn publish(&mut self) {
        self.meter();
        self.compile(self.snapshot.generation.wrapping_add(1));
    }

    /// Has counters for what each VNI carries through each tunnel; those that were there before count on.
    fn meter(&mut self) {
        let mut before = std::mem::take(&mut self.traffic);
        let workers = self.crew.members().len();
        for bridge in &self.config.bridges {
            for (_, vni) in bridge.vnis() {
                for tunnel in self.config.tunnels.iter().filter(|tunnel| bridge.uses(tunnel, vni)) {
                    let key = (tunnel.name.clone(), vni);
                    let traffic = before.remove(&key).unwrap_or_else(|| Arc::new(VniTraffic::new(workers)));
                    self.traffic.insert(key, traffic);
                }
            }
        }
    }

    /// The same where only ways to remotes have changed: what is cached about flows stands.
    pub(super) fn publish_paths(&mut self) {
        self.compile(self.snapshot.generation);
    }

    fn compile(&mut self, generation: u32) {
        let ports = self.ports.values().map(|port| port.index);
        let last = ports.chain(self.reach.stations().map(|plugged| plugged.index)).max();
        let mut snapshot = Snapshot {
            generation,
            ports: vec![None; last.map_or(0, |last| usize::from(last) + 1)],
            bridges: vec![None; self.bridges.values().map(|index| *index as usize + 1).max().unwrap_or(0)],
            overlays: Overlays::new(self.limits.ports as u16),
            neighbours: self.neighbours.clone(),
        };
        self.add_bridges(&mut snapshot);
        self.add_ports(&mut snapshot);
        self.add_stations(&mut snapshot);
        for (index, underlay) in (0..).zip(&self.config.underlays) {
            self.add_underlay(index, underlay, &mut snapshot.overlays);
        }
        self.snapshot = Arc::new(snapshot);
        self.crew.publish(&self.snapshot);
        self.select();
    }

    fn add_bridges(&self, snapshot: &mut Snapshot) {
        let has_neighbours: HashSet<_> = self.config.neighbours.iter().map(|known| &known.bridge).collect();
        let floods = self.loaded.floods();
        for bridge in &self.config.bridges {
            let Some(&index) = self.bridges.get(&bridge.name) else { continue };
            self.fdb.set_bridge_limit(index, bridge.fdb_limit.unwrap_or(u32::MAX));
            let stretch = self.stretch(bridge, index, &floods, &mut snapshot.overlays);
            let overhears = stretch != Stretch::None || has_neighbours.contains(&bridge.name);
            snapshot.bridges[index as usize] = Some(BridgeView {
                members: Vec::new(),
                flood_unknown: bridge.flood_unknown,
                flood_broadcast: bridge.flood_broadcast,
                flood_multicast: bridge.flood_multicast,
                stretch,
                overhears,
            });
        }
    }

    /// Has ports that are shared with the host's kernel take what tunnels bring, and nothing else.
    fn select(&mut self) {
        for underlay in shared(&self.config) {
            let mut taken = BTreeSet::new();
            // Whoever has a UDP port has its frames.
            let is_ours =
                |tunnel: &&Tunnel| tunnel.underlay == underlay.name && !self.reach.lacks_port(&tunnel.name);
            for tunnel in self.tunnels.iter().filter(is_ours) {
                let is_gre = tunnel.kind == TunnelKind::Nvgre;
                let protocol = if is_gre { protocol::GRE } else { protocol::UDP };
                let vlan = underlay.vlan.map(Into::into);
                taken.extend(tunnel.remotes.iter().filter_map(|remote| {
                    let (to, from) = (self.local(underlay, tunnel, *remote)?, is_gre.then_some(*remote));
                    Some(Taken { to, from, protocol, port: tunnel.port, vlan })
                }));
            }
            if let Some(Running { state: PortState::Open(port), .. }) = self.ports.get_mut(&underlay.port)
                && let Err(fault) = port.select(taken)
            {
                eprintln!("vswitchd: port \"{}\": {fault}", underlay.port);
            }
        }
    }

    /// How frames of a tunnel get to a remote now.
    pub(super) fn way(&self, underlay: &Underlay, tunnel: &Tunnel, remote: IpAddr) -> Result<Path, Reason> {
        let path = self.reach.path(&underlay.name, remote)?;
        self.reach.fault(tunnel, remote).map_or(Ok(path), Err)
    }

    /// Our address, as a remote knows us: on an underlay of our own the first one, until there is a route that says
    /// which.
    fn local(&self, underlay: &Underlay, tunnel: &Tunnel, remote: IpAddr) -> Option<IpAddr> {
        let path = self.reach.path(&underlay.name, remote).ok();
        // The schema has a shared one have none.
        let mut addresses = underlay.addresses.iter().map(|prefix| prefix.address());
        let first = || addresses.find(|ip| ip.is_ipv4() == remote.is_ipv4());
        tunnel.local.or(path.map(|path| path.source)).or_else(first)
    }

    fn add_ports(&self, snapshot: &mut Snapshot) {
        for port in self.ports.values() {
            let bridge = port.config.bridge.as_ref().and_then(|bridge| self.bridges.get(bridge));
            let underlay =
                self.config.underlays.iter().position(|underlay| underlay.port == port.config.name);
            let place = match (bridge, underlay) {
                (Some(&bridge), _) => Place::Bridge(bridge),
                (None, Some(underlay)) => Place::Underlay(underlay as u16),
                (None, None) => Place::Nowhere,
            };
            let (mtu, features) = match port.open() {
                Some(open) => (open.mtu(), open.features()),
                None => Default::default(),
            };
            self.fdb.set_port_limit(port.index, port.config.fdb_limit.unwrap_or(u32::MAX));
            let view = PortView {
                name: port.config.name.as_str().into(),
                place,
                vlans: PortVlans::new(&port.config.vlan),
                isolated: port.config.isolated,
                hairpin: port.config.hairpin,
                mtu,
                features,
                group: port.config.policy_group,
                up: port.open().is_some(),
                mask: mask_of(place),
            };
            join(snapshot, port.index, view);
        }
    }

    /// The switch's own stations.
    fn add_stations(&self, snapshot: &mut Snapshot) {
        for Plugged { seat, station, index, port } in self.reach.stations() {
            let place = match seat {
                Seat::Underlay(name) => {
                    let underlay = self.config.underlays.iter().position(|underlay| underlay.name == *name);
                    underlay.map(|underlay| Place::Underlay(underlay as u16))
                }
                Seat::Bridge(name) => self.bridges.get(name).map(|bridge| Place::Bridge(*bridge)),
            };
            let place = place.unwrap_or(Place::Nowhere);
            let view = PortView {
                name: station.name.as_ref().into(),
                place,
                vlans: PortVlans::new(&VlanMode::Transparent),
                isolated: false,
                hairpin: false,
                // Tags of the underlay come on top.
                mtu: port.mtu() + 4,
                features: Features::NONE,
                group: None,
                up: true,
                mask: mask_of(place),
            };
            join(snapshot, *index, view);
        }
    }

    /// Numbers the overlays of a bridge.
    fn stretch(&self, bridge: &Bridge, index: u16, floods: &Floods<'_>, overlays: &mut Overlays) -> Stretch {
        let mut vlans = Vec::new();
        for (vlan, vni) in bridge.vnis() {
            let carriers: Vec<(u16, &Tunnel)> =
                (0..).zip(&self.config.tunnels).filter(|(_, tunnel)| bridge.uses(tunnel, vni)).collect();
            let remotes = carriers.iter().flat_map(|(_, tunnel)| {
                // Who is in the group has the frame by that.
                let flooded = tunnel.group.as_ref().map_or(&tunnel.remotes[..], std::slice::from_ref);
                flooded.iter().map(|ip| (&tunnel.name, ip))
            });
            let loaded = floods.get(&(index, vlan.map_or(0, Into::into)));
            let loaded = loaded.into_iter().flatten().map(|(tunnel, ip)| (tunnel, ip));
            // A host that several tunnels reach gets one copy of a flood, by the first of them that is not down.
            let mut reached = HashSet::new();
            let is_first = |(tunnel, ip): &(&TunnelName, &IpAddr)| {
                let tunnel =
                    carriers.iter().map(|(_, carrier)| carrier).find(|carrier| carrier.name == **tunnel);
                carriers.len() == 1
                    || tunnel.is_some_and(|tunnel| {
                        self.reach.fault(tunnel, **ip).is_none() && reached.insert((&tunnel.underlay, **ip))
                    })
            };
            let remotes = remotes.chain(loaded).filter(is_first);
            let mut flood: Vec<u16> =
                remotes.filter_map(|(tunnel, ip)| self.reach.remote(tunnel, *ip)).collect();
            flood.sort_unstable();
            flood.dedup();
            let view = OverlayView {
                vni: vni.into(),
                bridge: index,
                vlan: vlan.map(Into::into),
                flood: flood.into(),
            };
            let number = overlays.add(view, carriers.iter().map(|(tunnel, _)| *tunnel));
            let traffic = carriers.iter().filter_map(|(number, tunnel)| {
                Some((*number, self.traffic.get(&(tunnel.name.clone(), vni))?.clone()))
            });
            overlays.meter(number, traffic);
            match vlan {
                None => return Stretch::Whole(number),
                Some(vlan) => vlans.push((vlan.into(), number)),
            }
        }
        if vlans.is_empty() { Stretch::None } else { Stretch::Vlans(vlans.into()) }
    }

    fn add_underlay(&self, index: u16, underlay: &Underlay, overlays: &mut Overlays) {
        let Some(port) = self.ports.get(&underlay.port) else { return };
        let agent = self.reach.underlay(&underlay.name);
        let tunnels = (0..).zip(&self.tunnels).filter(|(_, tunnel)| tunnel.underlay == underlay.name);
        let tunnels: Vec<(u16, &Tunnel)> = tunnels.collect();
        // The host may give its device, or its VLAN, another address.
        let of_host = || {
            let mut remotes = tunnels.iter().flat_map(|(_, tunnel)| &tunnel.remotes);
            remotes.find_map(|remote| Some(self.reach.path(&underlay.name, *remote).ok()?.source_mac))
        };
        let mac = agent.map(|agent| agent.station.mac).or_else(of_host).or_else(|| port.open()?.mac());
        let mut ports: Vec<(u16, Kind)> = tunnels
            .iter()
            .map(|(_, tunnel)| (tunnel.port, kind(tunnel.kind)))
            .filter(|(_, kind)| *kind != Kind::Nvgre)
            .collect();
        ports.sort_unstable_by_key(|(port, _)| *port);
        ports.dedup();
        let view = UnderlayView {
            port: port.index,
            agent: agent.map(|agent| agent.index),
            vlan: underlay.vlan.map(Into::into),
            mac: mac.unwrap_or_default(),
            ports,
            gre: tunnels.iter().any(|(_, tunnel)| tunnel.kind == TunnelKind::Nvgre),
        };
        overlays.put_underlay(index, view);
        for (number, tunnel) in tunnels {
            for remote in tunnel.places() {
                let view = self.remote_view((index, underlay), (number, tunnel), remote, port.index);
                if let Some((place, view)) = self.reach.remote(&tunnel.name, remote).zip(view) {
                    overlays.put_remote(place, kind(tunnel.kind), tunnel.port, view);
                }
            }
        }
    }

    fn remote_view(
        &self,
        (index, underlay): (u16, &Underlay),
        (number, tunnel): (u16, &Tunnel),
        remote: IpAddr,
        outlet: u16,
    ) -> Option<RemoteView> {
        let local = self.local(underlay, tunnel, remote)?;
        let kind = kind(tunnel.kind);
        let path = self.way(underlay, tunnel, remote).ok();
        let template = path.and_then(|path| {
            Template::new(&Setup {
                kind,
                src_mac: path.source_mac,
                dst_mac: path.next_hop_mac,
                vlan: underlay.vlan.map(Into::into),
                src: local,
                dst: remote,
                port: tunnel.port,
                ttl: tunnel.ttl,
                df: tunnel.df,
                dscp: match tunnel.dscp {
                    Dscp::Inherit => None,
                    Dscp::Fixed(dscp) => Some(dscp),
                },
                flow_id: match tunnel.flow_id {
                    FlowId::Hash => None,
                    FlowId::Fixed(flow_id) => Some(flow_id),
                },
                checksum: tunnel.udp_checksum,
                gbp: tunnel.gbp,
            })
        });
        Some(RemoteView {
            name: format!("{}/{remote}", tunnel.name).into(),
            tunnel: number,
            underlay: index,
            address: address(remote),
            local: address(local),
            group: tunnel.group.map(address),
            learning: tunnel.learning,
            gbp: tunnel.gbp,
            outlet,
            template: template.map(Arc::new),
            mtu: path.map_or(0, |path| kind.mtu_inside(path.mtu, remote.is_ipv6())),
        })
    }
}

/// Puts a port into its place.
fn join(snapshot: &mut Snapshot, index: u16, view: PortView) {
    if let (true, Place::Bridge(bridge)) = (view.up, view.place)
        && let Some(Some(bridge)) = snapshot.bridges.get_mut(usize::from(bridge))
    {
        bridge.members.push(index);
    }
    snapshot.ports[usize::from(index)] = Some(view);
}

fn mask_of(place: Place) -> crate::flow::key::KeyMask {
    match place {
        Place::Underlay(_) => remote_mask(),
        Place::Bridge(_) | Place::Nowhere => mask(),
    }
}

pub(super) fn kind(kind: TunnelKind) -> Kind {
    match kind {
        TunnelKind::Vxlan => Kind::Vxlan,
        TunnelKind::Nvgre => Kind::Nvgre,
        TunnelKind::Geneve => Kind::Geneve,
    }
}
