//! How the switch reaches other hosts: the stations that it plays itself, and the ways to its tunnels' remotes.
//!
//! A part of the control side's state. [`State::settle_reach`] brings it into line with the desired state after each
//! change; the agent tells of ways that were found, changed or lost, and each such word makes a new snapshot
//! ([`State::hear`]). Remotes are numbered here: a remote keeps its number as long as it is configured, since what
//! is learned is behind that number.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use control::schema::{BridgeName, Config, PortKind, Tunnel, TunnelName, Underlay, UnderlayName};
use hashbrown::HashMap;
use pmd::clock::Clock;
use pmd::local::{self, LocalPort};
use pmd::{Port, RxQueue};

use super::keeper::gone;
use super::kernel::{self, BoundPort, Kernel, Place, Wants};
use super::ports::stable_mac;
use super::{ApplyError, Cause, State, Switch};
use crate::agent::{Agent, Ends, Event, Liveness, Path, Pinger, Reason, Station, Timing, multicast_mac};
use crate::telemetry::counters::PortTotals;
use crate::worker::mailbox::Command;
use crate::worker::outlet::Tx;
use crate::worker::queue::{Incarnation, Queue};

/// Frames that wait at most between workers and a station.
const WAITING: usize = 256;

/// The MTU of a network that says none.
const MTU: u32 = 1500;

/// Where a station is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// It speaks on an underlay of our own.
    Underlay(UnderlayName),
    /// It is a bridge's address.
    Bridge(BridgeName),
}

impl Seat {
    pub(super) fn station_name(&self) -> Arc<str> {
        match self {
            Seat::Underlay(name) => format!("underlay {name}").into(),
            Seat::Bridge(name) => format!("bridge {name}").into(),
        }
    }
}

/// A station that is plugged in.
pub(super) struct Plugged {
    pub(super) seat: Seat,
    pub(super) station: Station,
    /// The index of its port.
    pub(super) index: u16,
    pub(super) port: LocalPort,
}

/// A remote's number.
struct Numbered {
    index: u16,
    /// What had been counted under it before.
    base: PortTotals,
}

/// What leads to other hosts, and what the switch says itself.
pub(super) struct Reach {
    agent: Agent,
    stations: BTreeMap<Arc<str>, Plugged>,
    /// Those who follow the host's kernel for shared underlays, by the name of the station that each stands for.
    kernels: BTreeMap<Arc<str>, Kernel>,
    /// What they tell goes here.
    told: Sender<Event>,
    /// The UDP ports of shared underlays.
    bound: BTreeMap<UdpPort, Result<BoundPort, String>>,
    /// The tunnels whose UDP port is not bound: somebody else has it.
    lacking: HashSet<TunnelName>,
    remotes: BTreeMap<(TunnelName, IpAddr), Numbered>,
    /// What the agent said last of a remote, by the station that it is reached from.
    paths: HashMap<(Arc<str>, IpAddr), Result<Path, Reason>>,
    /// The same of a BFD session; `None`: nothing yet.
    liveness: HashMap<(Arc<str>, Ends), Option<Liveness>>,
}

impl Reach {
    /// Starts the agent. What it says comes out of the channel.
    pub(super) fn new(clock: Arc<dyn Clock>) -> io::Result<(Reach, Receiver<Event>)> {
        let (told, events): (Sender<Event>, _) = channel();
        // Nobody listens only when the switch is going down.
        let agent = Agent::start(clock, {
            let told = told.clone();
            move |event| drop(told.send(event))
        })?;
        let reach = Reach {
            agent,
            stations: BTreeMap::new(),
            kernels: BTreeMap::new(),
            told,
            bound: BTreeMap::new(),
            lacking: HashSet::new(),
            remotes: BTreeMap::new(),
            paths: HashMap::new(),
            liveness: HashMap::new(),
        };
        Ok((reach, events))
    }

    /// The stations.
    pub(super) fn stations(&self) -> impl Iterator<Item = &Plugged> {
        self.stations.values()
    }

    /// The station of an underlay of our own.
    pub(super) fn underlay(&self, name: &UnderlayName) -> Option<&Plugged> {
        self.stations.get(&Seat::Underlay(name.clone()).station_name())
    }

    /// The index of a remote.
    pub(super) fn remote(&self, tunnel: &TunnelName, address: IpAddr) -> Option<u16> {
        self.remotes.get(&(tunnel.clone(), address)).map(|numbered| numbered.index)
    }

    /// The remote that has an index.
    pub(super) fn remote_at(&self, index: u16) -> Option<(&TunnelName, IpAddr)> {
        let found = self.remotes.iter().find(|(_, numbered)| numbered.index == index);
        found.map(|((tunnel, remote), _)| (tunnel, *remote))
    }

    /// Every remote, by its index.
    pub(super) fn remotes_by_index(&self) -> HashMap<u16, (&TunnelName, IpAddr)> {
        self.remotes.iter().map(|((tunnel, remote), numbered)| (numbered.index, (tunnel, *remote))).collect()
    }

    /// Who pings remotes; it is waited for, so that nothing of the switch may be held meanwhile.
    pub(super) fn pinger(&self) -> Pinger {
        self.agent.pinger()
    }

    /// How a remote is reached over an underlay, or why it is not.
    pub(super) fn path(&self, underlay: &UnderlayName, remote: IpAddr) -> Result<Path, Reason> {
        if remote.is_multicast() {
            return self.path_to_group(underlay, remote);
        }
        let station = Seat::Underlay(underlay.clone()).station_name();
        self.paths.get(&(station, remote)).copied().unwrap_or(Err(Reason::NoStation))
    }

    /// A group is there as soon as we are: nobody is asked for its address on the link.
    fn path_to_group(&self, underlay: &UnderlayName, group: IpAddr) -> Result<Path, Reason> {
        let station = &self.underlay(underlay).ok_or(Reason::NoStation)?.station;
        let (next_hop_mac, source_mac, mtu) = (multicast_mac(group), station.mac, station.mtu);
        let mut own = station.addresses.iter().map(|prefix| prefix.address());
        let source = own.find(|ip| ip.is_ipv4() == group.is_ipv4()).ok_or(Reason::NoRoute(group))?;
        Ok(Path { next_hop_mac, source_mac, source, mtu })
    }

    /// Why nothing shall be sent to a remote of a tunnel although there is a way: its UDP port is somebody else's, or
    /// BFD has found that nobody hears us.
    pub(super) fn fault(&self, tunnel: &Tunnel, remote: IpAddr) -> Option<Reason> {
        if self.lacks_port(&tunnel.name) {
            return Some(Reason::PortTaken(tunnel.port));
        }
        if !tunnel.bfd {
            return None;
        }
        let ends = Ends { local: tunnel.local, remote };
        let station = Seat::Underlay(tunnel.underlay.clone()).station_name();
        match self.liveness.get(&(station, ends))? {
            Some(liveness) if liveness.is_alive => None,
            Some(liveness) => Some(Reason::NotAlive(liveness.state, liveness.diagnostic)),
            None => Some(Reason::NotAlive(Default::default(), Default::default())),
        }
    }

    /// The BFD sessions of each station, as they are now, in the order of their ends.
    pub(super) fn sessions(&self) -> HashMap<Arc<str>, Vec<Liveness>> {
        self.agent.report().into_iter().map(|report| (report.name, report.liveness)).collect()
    }

    /// Whether a tunnel needs a UDP port that somebody else has.
    pub(super) fn lacks_port(&self, tunnel: &TunnelName) -> bool {
        self.lacking.contains(tunnel)
    }

    /// Whether anybody wants to know the way to a remote.
    fn wants(&self, station: &Arc<str>, remote: IpAddr) -> bool {
        let shared = self.kernels.get(station).is_some_and(|kernel| kernel.wants(remote));
        shared || self.stations.contains_key(station)
    }

    /// Leaves what is the host's to the host.
    pub(super) fn leave_host(&mut self) {
        self.kernels.clear();
        self.bound.clear();
    }
}

/// Takes what the agent says to the switch, until one of the two is gone.
pub(super) fn listen(switch: Weak<Switch>, events: Receiver<Event>) {
    let listen = move || {
        while let Ok(event) = events.recv() {
            let Some(switch) = switch.upgrade() else { return };
            // What came at the same time makes one snapshot.
            let events = std::iter::once(event).chain(events.try_iter()).collect();
            switch.lock().hear(events);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("reach".into()).spawn(listen) {
        eprintln!("vswitchd: no thread to hear of ways to remotes: {error}");
    }
}

impl State {
    /// What went to and came from a remote.
    pub(super) fn remote_totals(&self, tunnel: &TunnelName, remote: IpAddr) -> PortTotals {
        let numbered = self.reach.remotes.get(&(tunnel.clone(), remote));
        numbered.map_or_else(PortTotals::default, |numbered| {
            PortTotals::of(self.crew.counters(), numbered.index).since(&numbered.base)
        })
    }

    /// Takes in what the agent says.
    fn hear(&mut self, events: Vec<Event>) {
        let mut changed = false;
        for event in events {
            match event {
                // Late words of one who is not asked any more.
                Event::Path(change) if !self.reach.wants(&change.station, change.remote) => {}
                Event::Path(change) => {
                    let key = (change.station, change.remote);
                    changed |= self.reach.paths.insert(key, change.path) != Some(change.path);
                }
                // The path changes with it, of which the agent tells, too.
                Event::PathMtu(_) => {}
                Event::Liveness { station, liveness } => changed |= self.hear_of_session(station, liveness),
                Event::Duplicate { station, address, mac } => {
                    let objects = vec![
                        format!("neighbour {address}"),
                        station.to_string(),
                        control::mac::MacAddress::from(mac).to_string(),
                    ];
                    self.events.note(SystemTime::now(), "duplicate-ip", objects);
                }
            }
        }
        if changed {
            self.look_at_uplinks();
            self.publish_paths();
        }
    }

    /// Takes in what is new of a BFD session; gives whether that changes where frames go.
    fn hear_of_session(&mut self, station: Arc<str>, liveness: Liveness) -> bool {
        let remote = liveness.ends.remote;
        let objects = vec![format!("remote {remote}"), station.to_string()];
        // Of one that is not watched any more there may be a late word.
        let Some(known) = self.reach.liveness.get_mut(&(station, liveness.ends)) else { return false };
        let was_alive = known.replace(liveness).is_some_and(|known| known.is_alive);
        if was_alive == liveness.is_alive {
            return false;
        }
        let kind = if liveness.is_alive { "bfd-up" } else { "bfd-down" };
        self.events.note(SystemTime::now(), kind, objects);
        true
    }

    /// Has the ports of shared underlays look at their devices, with which ways come and go.
    fn look_at_uplinks(&mut self) {
        let uplinks = shared(&self.config).filter_map(|underlay| self.ports.get(&underlay.port));
        self.take_down_gone(uplinks.filter_map(gone).collect());
    }

    /// Plugs in the stations that there shall be, and numbers the remotes. Gives rx queues to be
    /// served once the workers know the configuration, and indices that are free when they do.
    pub(super) fn settle_reach(&mut self) -> Settled {
        let mut settled = Settled::default();
        for (seat, station) in self.wanted_stations() {
            match self.reach.stations.get_mut(&station.name) {
                Some(plugged) if plugged.station == station => {}
                // Its port takes no longer frames than it was made for.
                Some(plugged) if plugged.station.mtu != station.mtu => {
                    let index = plugged.index;
                    self.crew.retire(&[index]);
                    self.reach.stations.remove(&station.name);
                    self.plug(seat, station, index, &mut settled);
                }
                Some(plugged) => {
                    self.reach.agent.change(station.clone());
                    plugged.station = station;
                }
                None => {
                    // There is one: the limit is about stations, too.
                    if let Some(index) = self.free_index() {
                        self.plug(seat, station, index, &mut settled);
                    }
                }
            }
        }
        self.number_remotes(&mut settled);
        self.settle_kernels();
        settled
    }

    /// After the new snapshot is out.
    pub(super) fn finish_reach(&mut self, settled: Settled) {
        for (index, rx) in settled.rx {
            let queue = Queue {
                port: index,
                incarnation: Incarnation::default(),
                number: 0,
                rx,
                load: Arc::default(),
            };
            self.crew.tell(0, Command::AddQueue(queue));
        }
        if !settled.gone.is_empty() {
            self.crew.settle();
            for index in settled.gone {
                self.fdb.remove_port(index);
            }
        }
    }

    /// Follows the kernel for every shared underlay, and for no other.
    fn settle_kernels(&mut self) {
        let wanted: BTreeMap<Arc<str>, (Place, Wants)> = shared(&self.config)
            .filter_map(|underlay| {
                let name = Seat::Underlay(underlay.name.clone()).station_name();
                let mut wants = Wants::default();
                for tunnel in self.tunnels.iter().filter(|tunnel| tunnel.underlay == underlay.name) {
                    wants.remotes.extend(&tunnel.remotes);
                    wants.ports.insert(tunnel.port);
                }
                Some((name, (place(&self.config, underlay)?, wants)))
            })
            .collect();
        let Reach { kernels, paths, told, .. } = &mut self.reach;
        kernels.retain(|name, kernel| {
            let stays = wanted.get(name).is_some_and(|(place, _)| *place == kernel.place);
            paths.retain(|(station, remote), _| {
                station != name
                    || (stays && wanted.get(name).is_some_and(|(_, all)| all.remotes.contains(remote)))
            });
            stays
        });
        for (name, (place, wants)) in wanted {
            if !kernels.contains_key(&name) {
                match Kernel::start(name.clone(), place, told.clone()) {
                    Ok(kernel) => drop(kernels.insert(name.clone(), kernel)),
                    Err(error) => eprintln!("vswitchd: {name}: nobody to follow the host's kernel: {error}"),
                }
            }
            if let Some(kernel) = kernels.get(&name) {
                kernel.want(wants);
            }
        }
        self.bind_ports();
    }

    /// Takes the UDP ports of shared underlays that are not had yet, and lets others go.
    fn bind_ports(&mut self) {
        let needed: Vec<(&TunnelName, UdpPort)> =
            shared(&self.config).flat_map(|underlay| udp_ports(&self.config, underlay)).collect();
        let wanted: HashSet<UdpPort> = needed.iter().map(|(_, port)| port.clone()).collect();
        self.reach.bound.retain(|port, _| wanted.contains(port));
        for port in wanted {
            if !self.reach.bound.get(&port).is_some_and(Result::is_ok) {
                let bound = kernel::bind(port.0.as_deref(), port.1);
                if let (Err(error), None) = (&bound, self.reach.bound.get(&port)) {
                    eprintln!("vswitchd: {error}");
                }
                self.reach.bound.insert(port, bound);
            }
        }
        let lacks = |port: &UdpPort| self.reach.bound.get(port).is_some_and(Result::is_err);
        self.reach.lacking =
            needed.into_iter().filter(|(_, port)| lacks(port)).map(|(name, _)| name.clone()).collect();
    }

    /// Tries again to get UDP ports that somebody else has, or whose namespace has been made again.
    pub(super) fn claim_ports(&mut self) {
        for bound in self.reach.bound.values_mut() {
            if bound.as_ref().is_ok_and(|bound| !bound.holds()) {
                *bound = Err("its namespace was deleted".to_owned());
            }
        }
        let missing = |reach: &Reach| reach.bound.values().filter(|bound| bound.is_err()).count();
        let before = missing(&self.reach);
        if before > 0 {
            self.bind_ports();
            if missing(&self.reach) < before {
                self.publish_paths();
            }
        }
    }

    /// Refuses a configuration that needs one more UDP port, which somebody else has. One that is missing already is
    /// no reason to refuse a change of something else.
    pub(super) fn check_udp_ports(&self, wanted: &Config) -> Result<(), ApplyError> {
        for underlay in shared(wanted) {
            for (_, port) in udp_ports(wanted, underlay) {
                if !self.reach.bound.contains_key(&port)
                    && let Err(cause) = kernel::bind(port.0.as_deref(), port.1)
                {
                    let object = format!("underlay \"{}\"", underlay.name);
                    return Err(ApplyError { object, cause: Cause::Open(cause) });
                }
            }
        }
        Ok(())
    }

    /// Unplugs the stations that the desired state has no more: new ports may need their indices.
    pub(super) fn unplug_former(&mut self) {
        let wanted: HashSet<Arc<str>> =
            self.wanted_stations().into_iter().map(|(_, station)| station.name).collect();
        let gone: Vec<Arc<str>> =
            self.reach.stations.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
        let mut settled = Settled::default();
        for name in gone {
            self.reach.agent.remove(&name);
            self.reach.paths.retain(|(station, _), _| *station != name);
            self.reach.liveness.retain(|(station, _), _| *station != name);
            if let Some(plugged) = self.reach.stations.remove(&name) {
                self.crew.retire(&[plugged.index]);
                settled.gone.push(plugged.index);
            }
        }
        if !settled.gone.is_empty() {
            self.publish();
            self.finish_reach(settled);
        }
    }

    /// Plugs a station in, by a port of this index.
    fn plug(&mut self, seat: Seat, station: Station, index: u16, settled: &mut Settled) {
        let settings =
            local::Settings { mac: station.mac, mtu: station.mtu, capacity: WAITING, tx_queues: 1 };
        let (mut port, end) = match local::open(settings, self.reach.agent.bell()) {
            Ok(open) => open,
            Err(error) => {
                return eprintln!("vswitchd: {}: a port of the switch itself: {error}", station.name);
            }
        };
        let shared = port.take_tx().into_iter().next().map(|tx| Arc::new(Mutex::new(tx)));
        for worker in 0..self.crew.members().len() {
            if let Some(tx) = &shared {
                let tx = Tx::Shared(tx.clone());
                self.crew.tell(worker, Command::AddOutlet { port: index, tx });
            }
        }
        settled.rx.extend(port.take_rx().into_iter().map(|rx| (index, rx)));
        self.reach.agent.add(station.clone(), end);
        let plugged = Plugged { seat, station, index, port };
        self.reach.stations.insert(plugged.station.name.clone(), plugged);
    }

    /// The stations that the desired state has.
    fn wanted_stations(&self) -> Vec<(Seat, Station)> {
        let mut wanted = Vec::new();
        for underlay in self.config.underlays.iter().filter(|underlay| !underlay.is_shared(&self.config)) {
            let seat = Seat::Underlay(underlay.name.clone());
            let running = self.ports.get(&underlay.port);
            let open = running.and_then(|port| port.open());
            // Whoever else is on the wire knows a device by its own address.
            let of_device = running
                .filter(|port| matches!(port.config.kind, PortKind::Afxdp(_) | PortKind::Packet(_)))
                .and_then(|_| open?.mac());
            let name = seat.station_name();
            let station = Station {
                mac: of_device.unwrap_or_else(|| stable_mac(&name)),
                mtu: open.map_or(MTU, |open| open.mtu()),
                vlan: underlay.vlan.map(Into::into),
                addresses: underlay.addresses.clone(),
                routes: underlay.routes.clone(),
                groups: groups(&self.config, &underlay.name),
                name,
            };
            wanted.push((seat, station));
        }
        for bridge in self.config.bridges.iter().filter(|bridge| !bridge.addresses.is_empty()) {
            let seat = Seat::Bridge(bridge.name.clone());
            let name = seat.station_name();
            let station = Station {
                mac: stable_mac(&name),
                mtu: MTU,
                vlan: None,
                addresses: bridge.addresses.clone(),
                routes: Vec::new(),
                groups: Vec::new(),
                name,
            };
            wanted.push((seat, station));
        }
        wanted
    }

    /// Gives every configured remote a number, and has the agent find the way to it.
    fn number_remotes(&mut self, settled: &mut Settled) {
        let configured: HashSet<(TunnelName, IpAddr)> = self
            .tunnels
            .iter()
            .flat_map(|tunnel| tunnel.places().map(|remote| (tunnel.name.clone(), remote)))
            .collect();
        let (reach, limits) = (&mut self.reach, &self.limits);
        settled.gone.extend(
            reach
                .remotes
                .extract_if(.., |remote, _| !configured.contains(remote))
                .map(|(_, numbered)| numbered.index),
        );
        let taken: HashSet<u16> = reach.remotes.values().map(|numbered| numbered.index).collect();
        let indices = limits.ports as u16..super::indices(limits) as u16;
        let mut free = indices.filter(|index| !taken.contains(index));
        for remote in configured {
            if let std::collections::btree_map::Entry::Vacant(place) = reach.remotes.entry(remote)
                && let Some(index) = free.next()
            {
                place.insert(Numbered { index, base: PortTotals::of(self.crew.counters(), index) });
            }
        }
        for plugged in reach.stations.values() {
            let Seat::Underlay(underlay) = &plugged.seat else { continue };
            let name = &plugged.station.name;
            let wanted: HashSet<IpAddr> = self
                .tunnels
                .iter()
                .filter(|tunnel| tunnel.underlay == *underlay)
                .flat_map(|tunnel| tunnel.remotes.iter().copied())
                .collect();
            let known = reach.paths.keys().filter(|(station, _)| station == name).map(|(_, remote)| *remote);
            let known: HashSet<IpAddr> = known.collect();
            for remote in known.difference(&wanted) {
                reach.agent.unwant(name, *remote);
                reach.paths.remove(&(name.clone(), *remote));
            }
            for remote in wanted.difference(&known) {
                reach.agent.want(name, *remote);
                reach.paths.insert((name.clone(), *remote), Err(Reason::Asking(*remote)));
            }
            let watched = sessions(&self.tunnels, underlay);
            let known = reach.liveness.keys().filter(|(station, _)| station == name).map(|(_, ends)| *ends);
            let known: HashSet<Ends> = known.collect();
            for ends in known.difference(&watched) {
                reach.agent.watch(name, *ends, None);
                reach.liveness.remove(&(name.clone(), *ends));
            }
            for ends in watched.difference(&known) {
                reach.agent.watch(name, *ends, Some(Timing::default()));
                reach.liveness.insert((name.clone(), *ends), None);
            }
        }
    }

    /// The lowest port index that nobody has.
    pub(super) fn free_index(&self) -> Option<u16> {
        let ports = self.ports.values().map(|port| port.index);
        let taken: HashSet<u16> = ports.chain(self.reach.stations().map(|plugged| plugged.index)).collect();
        (0..self.limits.ports as u16).find(|index| !taken.contains(index))
    }
}

/// The multicast groups of tunnels over an underlay.
fn groups(config: &Config, underlay: &UnderlayName) -> Vec<IpAddr> {
    let tunnels = config.tunnels.iter().filter(|tunnel| tunnel.underlay == *underlay);
    let groups: BTreeSet<IpAddr> = tunnels.filter_map(|tunnel| tunnel.group).collect();
    groups.into_iter().collect()
}

/// The BFD sessions that tunnels over an underlay want; those between the same two addresses share one.
fn sessions(tunnels: &[Tunnel], underlay: &UnderlayName) -> HashSet<Ends> {
    let watched = tunnels.iter().filter(|tunnel| tunnel.underlay == *underlay && tunnel.bfd);
    let ends = |tunnel: &'_ Tunnel| {
        let local = tunnel.local;
        tunnel.remotes.clone().into_iter().map(move |remote| Ends { local, remote })
    };
    watched.flat_map(ends).collect()
}

/// A UDP port of a namespace.
type UdpPort = (Option<String>, u16);

/// The underlays that the host's kernel has.
pub(super) fn shared(config: &Config) -> impl Iterator<Item = &Underlay> {
    config.underlays.iter().filter(|underlay| underlay.is_shared(config))
}

/// Where a shared underlay is.
pub(super) fn place(config: &Config, underlay: &Underlay) -> Option<Place> {
    let (netns, device) = config.port(underlay.port.as_str())?.kind.interface()?;
    Some(Place {
        netns: netns.map(|netns| netns.path().display().to_string()),
        device: device.to_string(),
        vlan: underlay.vlan.map(Into::into),
    })
}

/// The UDP ports that tunnels over a shared underlay have.
fn udp_ports<'c>(
    config: &'c Config,
    underlay: &'c Underlay,
) -> impl Iterator<Item = (&'c TunnelName, UdpPort)> + 'c {
    let netns = place(config, underlay).map(|place| place.netns);
    let tunnels = config.tunnels.iter().filter(|tunnel| tunnel.underlay == underlay.name && tunnel.port != 0);
    tunnels.filter_map(move |tunnel| Some((&tunnel.name, (netns.clone()?, tunnel.port))))
}

/// What is left to do when the workers know a new configuration.
#[derive(Default)]
pub(super) struct Settled {
    rx: Vec<(u16, Box<dyn RxQueue>)>,
    gone: Vec<u16>,
}
