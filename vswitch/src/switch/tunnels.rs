//! What is told of tunnels: how their remotes are reached, and what went there.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use control::api::{BfdRow, DropCount, Pinged, RemoteRow, TunnelDetail, TunnelRow, UpDown, VniRow};
use control::schema::{BridgeName, Tunnel, TunnelName, Underlay};
use hashbrown::HashMap;

use super::report::reasons;
use super::{State, Switch};
use crate::agent::ping::PINGS;
use crate::agent::{Ends, Liveness, Packets, Path, PingError, Pinger, Reason};
use crate::telemetry::counters::{PortTotals, VniTotals};

/// The BFD sessions of each station, in the order of their ends.
type Sessions = HashMap<Arc<str>, Vec<Liveness>>;

/// How long a remote has to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of the smallest ping: IPv6 and ICMPv6 headers, and a few bytes to carry.
const SMALL: usize = 64;

/// Networks on the way, each smaller than the one before, after whom a ping gives up.
const NETWORKS: usize = 8;

impl Switch {
    /// Every tunnel, in the order of the configuration.
    pub fn tunnels(&self) -> Vec<TunnelRow> {
        let state = self.lock();
        // What there is of BFD is asked once, of the agent.
        let sessions = state.sessions();
        state.tunnels.iter().map(|tunnel| state.tunnel_row(tunnel, &sessions)).collect()
    }

    /// One tunnel.
    pub fn tunnel(&self, name: &TunnelName) -> Option<TunnelDetail> {
        let state = self.lock();
        let configured = state.config.tunnel(name.as_str())?;
        let tunnel = state.tunnels.iter().find(|tunnel| tunnel.name == *name)?;
        let underlay = state.config.underlay(tunnel.underlay.as_str())?;
        let mut drops = vec![0; crate::telemetry::drops::DropReason::COUNT];
        for remote in tunnel.places() {
            let totals = state.remote_totals(&tunnel.name, remote);
            drops.iter_mut().zip(&totals.drops).for_each(|(sum, frames)| *sum += frames);
        }
        let drops = PortTotals { drops, ..PortTotals::default() };
        Some(TunnelDetail {
            row: state.tunnel_row(tunnel, &state.sessions()),
            config: configured.clone(),
            port: underlay.port.clone(),
            vnis: state.vni_rows(tunnel),
            drop_reasons: reasons(&drops)
                .map(|(reason, frames)| DropCount { reason: reason.name().into(), frames })
                .collect(),
        })
    }

    /// Asks the remotes of a tunnel, or one of them, for an answer, and how large a packet may be on the way. `None`:
    /// there is no such tunnel, or remote.
    pub fn ping(&self, name: &TunnelName, only: Option<IpAddr>) -> Option<Vec<Pinged>> {
        // The answer comes when it comes: the state must not be held meanwhile.
        let (asker, remotes) = {
            let state = self.lock();
            let tunnel = state.tunnels.iter().find(|tunnel| tunnel.name == *name)?;
            let underlay = state.config.underlay(tunnel.underlay.as_str())?;
            let remotes: Vec<_> = tunnel
                .remotes
                .iter()
                .filter(|remote| only.is_none_or(|only| only == **remote))
                .map(|remote| (*remote, state.reach.path(&tunnel.underlay, *remote)))
                .collect();
            (state.asker(tunnel, underlay), remotes)
        };
        if remotes.is_empty() {
            return None;
        }
        // Side by side: one that is silent does not keep the others waiting.
        let ask = |some: &[(IpAddr, Result<Path, Reason>)]| {
            std::thread::scope(|scope| {
                let ask = |(remote, path): &(IpAddr, Result<Path, Reason>)| asker.ping(*remote, *path);
                let asked: Vec<_> = some.iter().map(|one| scope.spawn(move || ask(one))).collect();
                asked.into_iter().filter_map(|asked| asked.join().ok()).collect::<Vec<_>>()
            })
        };
        Some(remotes.chunks(PINGS).flat_map(ask).collect())
    }
}

/// Who pings: the station that the switch plays on a network of its own, or the host on one of its kernel.
enum Asker {
    Station { pinger: Pinger, station: Arc<str> },
    Host { netns: Option<String>, local: Option<IpAddr> },
}

impl Asker {
    /// One small packet for the time, and one as large as the path is believed to take. If a router knows better, one
    /// that is as large as it says.
    fn ping(&self, remote: IpAddr, path: Result<Path, Reason>) -> Pinged {
        let mut answer = Pinged { address: remote, round_trip_ms: None, mtu: None, reason: None };
        match self.ask(remote, path, SMALL) {
            Ok(time) => answer.round_trip_ms = Some(time.as_secs_f64() * 1e3),
            Err(error) => {
                answer.reason = Some(error.to_string());
                return answer;
            }
        }
        let Ok(Path { mut mtu, .. }) = path else { return answer };
        for _ in 0..NETWORKS {
            answer.reason = None;
            match self.ask(remote, path, mtu as usize) {
                Ok(_) => {
                    answer.mtu = u16::try_from(mtu).ok();
                    break;
                }
                Err(error) => {
                    answer.reason = Some(format!("a packet of {mtu} bytes: {error}"));
                    match error {
                        PingError::TooBig { mtu: smaller } => mtu = smaller,
                        PingError::Other(_) => break,
                    }
                }
            }
        }
        answer
    }

    fn ask(&self, remote: IpAddr, path: Result<Path, Reason>, size: usize) -> Result<Duration, PingError> {
        match self {
            Asker::Station { pinger, station } => pinger.ping(station, remote, size, PATIENCE),
            Asker::Host { netns, local } => {
                let source = local.unwrap_or(path?.source);
                super::echo::ping(netns.as_deref(), (source, remote), size, PATIENCE)
            }
        }
    }
}

/// A BFD session, for the API.
fn bfd_row(session: &Liveness) -> BfdRow {
    let Packets { sent, received, refused, downs } = session.packets;
    BfdRow { state: session.state.to_string(), sent, received, refused, downs }
}

impl State {
    fn asker(&self, tunnel: &Tunnel, underlay: &Underlay) -> Asker {
        match super::reach::place(&self.config, underlay).filter(|_| underlay.is_shared(&self.config)) {
            Some(place) => Asker::Host { netns: place.netns, local: tunnel.local },
            None => {
                let station = super::reach::Seat::Underlay(underlay.name.clone()).station_name();
                Asker::Station { pinger: self.reach.pinger(), station }
            }
        }
    }

    fn sessions(&self) -> Sessions {
        if self.tunnels.iter().any(|tunnel| tunnel.bfd) { self.reach.sessions() } else { Sessions::new() }
    }

    fn tunnel_row(&self, tunnel: &Tunnel, sessions: &Sessions) -> TunnelRow {
        let underlay = self.config.underlay(tunnel.underlay.as_str());
        // What the device is like is asked once, of the kernel.
        let outage = underlay.and_then(|underlay| self.ports.get(&underlay.port)).and_then(|port| {
            let link = port.open().map(|open| open.link()).unwrap_or_default();
            Some(format!("port \"{}\" is down: {}", port.config.name, port.outage(&link)?))
        });
        let way = |remote| match (underlay, &outage) {
            (None, _) => Err(Reason::NoStation.to_string()),
            (_, Some(outage)) => Err(outage.clone()),
            (Some(underlay), None) => self.way(underlay, tunnel, remote).map_err(|reason| reason.to_string()),
        };
        let station = super::reach::Seat::Underlay(tunnel.underlay.clone()).station_name();
        let sessions = sessions.get(&station).filter(|_| tunnel.bfd).map_or(&[][..], Vec::as_slice);
        let row = |remote: &IpAddr| {
            let ends = Ends { local: tunnel.local, remote: *remote };
            let session = sessions.binary_search_by_key(&ends, |session| session.ends);
            self.remote_row(tunnel, *remote, way(*remote), session.ok().map(|at| &sessions[at]))
        };
        let mut remotes: Vec<RemoteRow> = tunnel.remotes.iter().map(row).collect();
        let is_up = remotes.iter().any(|remote| remote.state == UpDown::Up);
        let reason = match remotes.first() {
            _ if is_up => None,
            None => Some("it has no remote".to_owned()),
            Some(first) => first.reason.clone(),
        };
        remotes.extend(tunnel.group.as_ref().map(row));
        let known = tunnel.remotes.iter().find_map(|remote| self.reach.path(&tunnel.underlay, *remote).ok());
        TunnelRow {
            name: tunnel.name.clone(),
            tunnel_type: tunnel.kind.as_str().to_owned(),
            underlay: tunnel.underlay.clone(),
            state: if is_up { UpDown::Up } else { UpDown::Down },
            reason,
            local: tunnel.local.or_else(|| known.map(|path| path.source)),
            remotes,
        }
    }

    fn remote_row(
        &self,
        tunnel: &Tunnel,
        remote: IpAddr,
        path: Result<Path, String>,
        session: Option<&Liveness>,
    ) -> RemoteRow {
        let totals = self.remote_totals(&tunnel.name, remote);
        RemoteRow {
            address: remote,
            state: if path.is_ok() { UpDown::Up } else { UpDown::Down },
            reason: path.as_ref().err().cloned(),
            mtu: path.as_ref().ok().and_then(|path| u16::try_from(path.mtu).ok()),
            mac: path.as_ref().ok().map(|path| path.next_hop_mac.into()),
            bfd: session.map(bfd_row),
            rx_frames: totals.rx_frames,
            tx_frames: totals.tx_frames,
            drops: totals.dropped(),
        }
    }

    /// Those of some remotes that get a copy of what is flooded in a VLAN of a bridge.
    fn flood_list(&self, remotes: &HashMap<u16, IpAddr>, bridge: &BridgeName, vlan: u16) -> Vec<IpAddr> {
        let overlay = self.bridges.get(bridge).and_then(|index| {
            let number = self.snapshot.bridge(*index)?.stretch.overlay(vlan)?;
            self.snapshot.overlays.overlay(number)
        });
        let flooded = overlay.into_iter().flat_map(|overlay| overlay.flood.iter());
        flooded.filter_map(|index| remotes.get(index).copied()).collect()
    }

    fn vni_rows(&self, tunnel: &Tunnel) -> Vec<VniRow> {
        let indexed = |remote: IpAddr| Some((self.reach.remote(&tunnel.name, remote)?, remote));
        let remotes: HashMap<u16, IpAddr> = tunnel.places().filter_map(indexed).collect();
        let mtu = tunnel.remotes.iter().filter_map(|remote| {
            let index = self.reach.remote(&tunnel.name, *remote)?;
            self.snapshot.overlays.remote(index).filter(|remote| remote.template.is_some())
        });
        let mtu = mtu.map(|remote| remote.mtu).min().and_then(|mtu| u16::try_from(mtu).ok());
        let of_bridge = |bridge: &control::schema::Bridge| {
            let used = bridge.vnis().filter(|(_, vni)| bridge.uses(tunnel, *vni));
            let row = |(vlan, vni): (Option<control::schema::VlanId>, control::schema::Vni)| {
                let traffic = self.traffic.get(&(tunnel.name.clone(), vni));
                let VniTotals { rx_frames, rx_bytes, tx_frames, tx_bytes } =
                    traffic.map(|traffic| traffic.totals()).unwrap_or_default();
                VniRow {
                    vni,
                    bridge: bridge.name.clone(),
                    vlan: vlan.map(Into::into),
                    mtu,
                    flood: self.flood_list(&remotes, &bridge.name, vlan.map_or(0, Into::into)),
                    rx_frames,
                    rx_bytes,
                    tx_frames,
                    tx_bytes,
                }
            };
            used.map(row).collect::<Vec<_>>()
        };
        self.config.bridges.iter().flat_map(of_bridge).collect()
    }
}
