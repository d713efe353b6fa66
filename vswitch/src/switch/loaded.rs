//! What controllers have loaded: where stations are, which IP addresses they have, and who gets what is flooded.
//!
//! Kept beside the desired state, and no part of it. The FDB and the neighbour table have what frames need; here is
//! whose each entry is, and what an entry comes back to that a station of this host has taken over for a while, or that
//! the desired state covers. A VTEP that an entry names is a remote of its tunnel as long as one does. What the desired
//! state has no place for any more is forgotten with the change that took it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use control::api::{FdbEntry, FdbLoad, FdbLoaded};
use control::schema::{
    Bridge, BridgeName, Config, ConfigError, IpPrefix, OriginName, Place, Port, PortName, Tunnel, TunnelName,
    Underlay, VlanId, is_station, shown,
};
use hashbrown::{HashMap, HashSet};

use super::apply::{RAISE, limit};
use super::{ApplyError, State, Switch};
use crate::overlay::address;
use crate::tables::fdb::{Kind, MacKey};
use crate::tables::neighbour::{NeighbourKey, Origin};

/// So many mistakes of one load are told.
const TOLD: usize = 50;

/// Why nothing was loaded.
#[derive(Debug)]
pub enum LoadError {
    /// These entries cannot be; their `line` is the entry's number, from 1.
    Entries(Vec<ConfigError>),
    /// There is no room.
    Limit(ApplyError),
}

/// A VTEP of a tunnel.
type Vtep = (TunnelName, IpAddr);

/// What is flooded in a VLAN of a bridge goes to this VTEP.
type Flood = (u16, u16, Vtep);

/// Those of a bridge and a VLAN.
pub(super) type Floods<'l> = HashMap<(u16, u16), Vec<&'l Vtep>>;

/// The VTEPs that some stations are behind, or that get what is flooded.
fn vteps<'l>(
    places: impl Iterator<Item = &'l Place>,
    floods: impl Iterator<Item = &'l Flood>,
) -> BTreeSet<Vtep> {
    let places: HashSet<&Place> = places.collect();
    let of_stations = places.into_iter().filter_map(|place| match place {
        Place::Remote { tunnel, remote } => Some((tunnel.clone(), *remote)),
        Place::Port(_) => None,
    });
    of_stations.chain(floods.map(|(_, _, vtep)| vtep.clone())).collect()
}

/// Everything that is loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    stations: HashMap<MacKey, (Place, OriginName)>,
    neighbours: HashMap<NeighbourKey, ([u8; 6], OriginName)>,
    floods: BTreeMap<Flood, OriginName>,
}

impl Loaded {
    /// Who loaded a station.
    pub(super) fn origin(&self, key: &MacKey) -> Option<&OriginName> {
        self.stations.get(key).map(|(_, origin)| origin)
    }

    /// Who gets a copy of what is flooded.
    pub(super) fn floods(&self) -> Floods<'_> {
        let mut floods = Floods::new();
        for (bridge, vlan, vtep) in self.floods.keys() {
            floods.entry((*bridge, *vlan)).or_default().push(vtep);
        }
        floods
    }

    /// The VTEPs that are named.
    fn vteps(&self) -> BTreeSet<Vtep> {
        vteps(self.stations.values().map(|(place, _)| place), self.floods.keys())
    }

    /// The tunnels of a configuration, each with the remotes that it has by this, too.
    pub(super) fn extend(&self, config: &Config) -> Vec<Tunnel> {
        let mut tunnels = config.tunnels.clone();
        for (name, remote) in self.vteps() {
            if let Some(tunnel) = tunnels.iter_mut().find(|tunnel| tunnel.name == name)
                && !tunnel.remotes.contains(&remote)
            {
                tunnel.remotes.push(remote);
            }
        }
        tunnels
    }

    /// How many remotes the tunnels of a configuration have with this.
    pub(super) fn remotes_with(&self, config: &Config) -> usize {
        self.extend(config).iter().map(|tunnel| tunnel.places().count()).sum()
    }

    /// Forgets what is in a bridge.
    pub(super) fn remove_bridge(&mut self, bridge: u16) {
        self.stations.retain(|key, _| key.bridge != bridge);
        self.neighbours.retain(|key, _| key.bridge != bridge);
        self.floods.retain(|(at, ..), _| *at != bridge);
    }
}

/// What entries are held against.
struct Known<'s> {
    config: &'s Config,
    /// By index, and the indices by name.
    bridges: HashMap<u16, &'s Bridge>,
    indices: &'s HashMap<BridgeName, u16>,
    ports: HashMap<&'s str, &'s Port>,
    tunnels: &'s [Tunnel],
}

/// What is wrong with an entry: the message, and what to do.
type Mistake = (String, Option<String>);

impl<'s> Known<'s> {
    fn of(state: &'s State) -> Known<'s> {
        let State { config, bridges: indices, tunnels, .. } = state;
        let bridges = config.bridges.iter().filter_map(|bridge| Some((*indices.get(&bridge.name)?, bridge)));
        let ports = config.ports.iter().map(|port| (port.name.as_str(), port));
        Known { config, bridges: bridges.collect(), indices, ports: ports.collect(), tunnels }
    }

    /// Whether there is such a place in a VLAN of a bridge.
    fn check(&self, bridge: &Bridge, vlan: Option<VlanId>, place: &Place) -> Result<(), Mistake> {
        match place {
            Place::Port(name) => self.check_port(bridge, vlan, name),
            Place::Remote { tunnel, remote } => self.check_remote(bridge, vlan, tunnel, *remote),
        }
    }

    fn check_port(&self, bridge: &Bridge, vlan: Option<VlanId>, name: &PortName) -> Result<(), Mistake> {
        let Some(port) = self.ports.get(name.as_str()) else {
            return Err(absent("port", name.as_str(), self.ports.keys().copied()));
        };
        if port.bridge.as_ref() != Some(&bridge.name) {
            return Err((format!("port \"{name}\" is not in bridge \"{}\"", bridge.name), None));
        }
        if !port.vlan.carries(vlan) {
            let hint = format!("its VLANs: {}", port.vlan);
            return Err((format!("port \"{name}\" does not carry {}", shown(vlan)), Some(hint)));
        }
        Ok(())
    }

    fn check_remote(
        &self,
        bridge: &Bridge,
        vlan: Option<VlanId>,
        name: &TunnelName,
        remote: IpAddr,
    ) -> Result<(), Mistake> {
        let Some(tunnel) = self.tunnels.iter().find(|tunnel| tunnel.name == *name) else {
            return Err(absent(
                "tunnel",
                name.as_str(),
                self.tunnels.iter().map(|tunnel| tunnel.name.as_str()),
            ));
        };
        let Some(vni) = bridge.vni_of(vlan) else {
            let hint = "add `vni` or `vlan_vni` to the bridge".to_owned();
            return Err((format!("bridge \"{}\" has no VNI for {}", bridge.name, shown(vlan)), Some(hint)));
        };
        if !bridge.uses(tunnel, vni) {
            let hint = "see `vnis` of the tunnel and `tunnels` of the bridge".to_owned();
            return Err((
                format!("tunnel \"{name}\" does not carry VNI {vni} of bridge \"{}\"", bridge.name),
                Some(hint),
            ));
        }
        if tunnel.remotes.contains(&remote) { Ok(()) } else { self.check_vtep(tunnel, remote) }
    }

    /// Whether a tunnel can have one more remote.
    fn check_vtep(&self, tunnel: &Tunnel, remote: IpAddr) -> Result<(), Mistake> {
        let underlay = self.config.underlay(tunnel.underlay.as_str());
        let is_ours = tunnel.local == Some(remote)
            || underlay.is_some_and(|underlay| underlay.addresses.iter().any(|own| own.address() == remote));
        if is_ours {
            return Err((format!("{remote} is an address of our own"), None));
        }
        if !is_station(remote) {
            return Err((format!("{remote} is not the address of a host"), None));
        }
        if tunnel.local.is_some_and(|local| local.is_ipv4() != remote.is_ipv4()) {
            return Err((
                format!("tunnel \"{}\" has a `local` address of the other family", tunnel.name),
                None,
            ));
        }
        let reaches = |own: &IpPrefix| own.address().is_ipv4() == remote.is_ipv4();
        let is_foreign = |underlay: &&Underlay| {
            !underlay.is_shared(self.config) && !underlay.addresses.iter().any(reaches)
        };
        if let Some(underlay) = underlay.filter(|_| tunnel.local.is_none()).filter(is_foreign) {
            return Err((
                format!("underlay \"{}\" has no address to reach {remote} from", underlay.name),
                None,
            ));
        }
        let rival = self.tunnels.iter().find(|other| {
            (&other.underlay, other.kind, other.port) == (&tunnel.underlay, tunnel.kind, tunnel.port)
                && other.name != tunnel.name
                && other.remotes.contains(&remote)
                && other.vnis.common(&tunnel.vnis).is_some()
        });
        match rival {
            Some(other) => {
                let hint = Some("give the two different `vnis`".to_owned());
                Err((format!("tunnel \"{}\" has the same frames of {remote}", other.name), hint))
            }
            None => Ok(()),
        }
    }

    /// Takes an entry into `loaded`, where others of the same load may be.
    fn take(&self, entry: FdbEntry, origin: &OriginName, loaded: &mut Loaded) -> Result<(), Mistake> {
        let FdbEntry { bridge: name, vlan, mac, place, ip } = entry;
        let index = self.indices.get(&name).copied();
        let Some((index, bridge)) = index.and_then(|index| Some((index, *self.bridges.get(&index)?))) else {
            return Err(absent("bridge", name.as_str(), self.indices.keys().map(BridgeName::as_str)));
        };
        self.check(bridge, vlan, &place)?;
        let (vlan, station) = (vlan.map_or(0, Into::into), mac.is_station());
        match place {
            Place::Remote { tunnel, remote } if !station => {
                loaded.floods.insert((index, vlan, (tunnel, remote)), origin.clone());
                return Ok(());
            }
            place => {
                let key = MacKey { bridge: index, vlan, mac: mac.octets() };
                let known = loaded.stations.entry(key).or_insert_with(|| (place.clone(), origin.clone()));
                if known.0 != place {
                    return Err(("an entry before this one says that it is elsewhere".to_owned(), None));
                }
            }
        }
        let Some(ip) = ip else { return Ok(()) };
        if !is_station(ip) {
            return Err((format!("{ip} is not the address of a host"), None));
        }
        let key = NeighbourKey { bridge: index, vlan, ip: address(ip) };
        let known = loaded.neighbours.entry(key).or_insert_with(|| (mac.octets(), origin.clone()));
        if known.0 != mac.octets() {
            return Err((format!("an entry before this one says that another station has {ip}"), None));
        }
        Ok(())
    }
}

fn absent<'n>(kind: &str, name: &str, known: impl IntoIterator<Item = &'n str>) -> Mistake {
    let near = control::schema::nearest(name, known).map(|near| format!("nearest is \"{near}\""));
    (format!("{kind} \"{name}\" does not exist"), near)
}

impl Switch {
    /// Takes in what a controller knows: all of it, or nothing.
    ///
    /// # Errors
    /// An entry cannot be, or there is no room.
    pub fn load(&self, request: FdbLoad) -> Result<FdbLoaded, LoadError> {
        let mut state = self.lock();
        let FdbLoad { origin, replace, entries } = request;
        let fresh = state.check_entries(entries, &origin).map_err(LoadError::Entries)?;
        let swept = if replace { state.swept(&origin, &fresh) } else { Swept::default() };
        state.check_room(&fresh, &swept).map_err(LoadError::Limit)?;
        Ok(state.replace(fresh, swept))
    }
}

/// What an origin does not load any more.
#[derive(Default)]
struct Swept {
    stations: Vec<MacKey>,
    neighbours: Vec<NeighbourKey>,
    floods: Vec<Flood>,
}

impl State {
    fn check_entries(&self, entries: Vec<FdbEntry>, origin: &OriginName) -> Result<Loaded, Vec<ConfigError>> {
        let (known, mut fresh, mut mistakes) = (Known::of(self), Loaded::default(), Vec::new());
        for (number, entry) in (1..).zip(entries) {
            let mac = entry.mac;
            if let Err((message, hint)) = known.take(entry, origin, &mut fresh)
                && mistakes.len() < TOLD
            {
                let (file, object) = ("entries".to_owned(), mac.to_string());
                mistakes.push(ConfigError { file, line: number, column: 1, object, message, hint });
            }
        }
        if mistakes.is_empty() { Ok(fresh) } else { Err(mistakes) }
    }

    fn swept(&self, origin: &OriginName, fresh: &Loaded) -> Swept {
        let Loaded { stations, neighbours, floods } = &self.loaded;
        let stations =
            stations.iter().filter(|(key, old)| old.1 == *origin && !fresh.stations.contains_key(*key));
        let neighbours =
            neighbours.iter().filter(|(key, old)| old.1 == *origin && !fresh.neighbours.contains_key(*key));
        let floods = floods.iter().filter(|(key, old)| *old == origin && !fresh.floods.contains_key(*key));
        Swept {
            stations: stations.map(|(key, _)| *key).collect(),
            neighbours: neighbours.map(|(key, _)| *key).collect(),
            floods: floods.map(|(key, _)| key.clone()).collect(),
        }
    }

    /// Refuses what does not fit beside the desired state. What was learned gives way.
    fn check_room(&self, fresh: &Loaded, swept: &Swept) -> Result<(), ApplyError> {
        let grown = |new: usize, gone: usize| new.saturating_sub(gone);
        let (before, limits) = (&self.loaded, &self.limits);
        let new = fresh.stations.keys().filter(|key| !before.stations.contains_key(*key)).count();
        let stations = self.config.fdb.len() + before.stations.len() + new;
        let new = fresh.neighbours.keys().filter(|key| !before.neighbours.contains_key(*key)).count();
        let neighbours = self.config.neighbours.len() + before.neighbours.len() + new;
        let configured = self
            .config
            .tunnels
            .iter()
            .flat_map(|tunnel| tunnel.places().map(|remote| (tunnel.name.clone(), remote)));
        let (gone, unflooded): (HashSet<_>, HashSet<_>) =
            (swept.stations.iter().collect(), swept.floods.iter().collect());
        let stay = before
            .stations
            .iter()
            .filter(|(key, _)| !gone.contains(key) && !fresh.stations.contains_key(*key));
        let floods = before.floods.keys().filter(|flood| !unflooded.contains(flood));
        let staying = vteps(stay.map(|(_, (place, _))| place), floods);
        let remotes: BTreeSet<Vtep> = configured.chain(staying).chain(fresh.vteps()).collect();
        for (key, count, limit_of) in [
            ("fdb", grown(stations, swept.stations.len()), limits.fdb),
            ("neighbours", grown(neighbours, swept.neighbours.len()), limits.neighbours),
            ("remotes", remotes.len(), limits.remotes),
        ] {
            if count > limit_of as usize {
                let cause =
                    format!("{count} with what would be loaded, and {limit_of} fit; nothing was loaded");
                return Err(limit(&format!("[limits] {key}"), cause, RAISE));
            }
        }
        Ok(())
    }

    fn replace(&mut self, fresh: Loaded, swept: Swept) -> FdbLoaded {
        let total = fresh.stations.len() + fresh.floods.len();
        let mut changed = HashSet::new();
        let removed = swept.stations.len() + swept.floods.len();
        self.forget(&swept);
        for (key, station) in fresh.stations {
            let before = self.loaded.stations.insert(key, station.clone());
            if before.is_none_or(|before| before.0 != station.0) {
                changed.insert(key);
            }
        }
        let mut addressed = Vec::new();
        for (key, neighbour) in fresh.neighbours {
            let before = self.loaded.neighbours.insert(key, neighbour.clone());
            if before.is_none_or(|before| before.0 != neighbour.0) {
                addressed.push(key);
            }
        }
        let mut flooding = 0;
        for (key, origin) in fresh.floods {
            flooding += usize::from(self.loaded.floods.insert(key, origin).is_none());
        }
        let tunnels = self.loaded.extend(&self.config);
        if tunnels != self.tunnels || flooding + swept.floods.len() > 0 {
            self.tunnels = tunnels;
            self.attach(&[]);
        }
        self.carry(changed.iter(), true);
        addressed.iter().for_each(|key| self.carry_neighbour(key));
        // A station with a new address is another entry, as well as one at another place.
        changed.extend(addressed.iter().filter_map(|key| {
            let (mac, _) = self.loaded.neighbours.get(key)?;
            Some(MacKey { bridge: key.bridge, vlan: key.vlan, mac: *mac })
        }));
        let changed = changed.len() + flooding;
        FdbLoaded { changed: changed as u64, unchanged: (total - changed) as u64, removed: removed as u64 }
    }

    /// Forgets what the desired state has no place for any more, and reckons with the remotes that stay.
    pub(super) fn revise_loaded(&mut self) {
        self.tunnels = self.config.tunnels.clone();
        let misplaced = self.misplaced();
        self.forget(&misplaced);
        self.tunnels = self.loaded.extend(&self.config);
    }

    fn misplaced(&self) -> Swept {
        let known = Known::of(self);
        let stays = |bridge: u16, vlan: u16, place: &Place| {
            let bridge = known.bridges.get(&bridge);
            bridge.is_some_and(|bridge| known.check(bridge, VlanId::new(vlan).ok(), place).is_ok())
        };
        let Loaded { stations, neighbours, floods } = &self.loaded;
        let mut judged = HashMap::new();
        let stations = stations.iter().filter(|(key, (place, _))| {
            let (bridge, vlan) = (key.bridge, key.vlan);
            !*judged.entry((bridge, vlan, place)).or_insert_with(|| stays(bridge, vlan, place))
        });
        let stations: HashSet<MacKey> = stations.map(|(key, _)| *key).collect();
        let neighbours = neighbours.iter().filter(|(key, (mac, _))| {
            stations.contains(&MacKey { bridge: key.bridge, vlan: key.vlan, mac: *mac })
        });
        let floods = floods.keys().filter(|(bridge, vlan, (tunnel, remote))| {
            !stays(*bridge, *vlan, &Place::Remote { tunnel: tunnel.clone(), remote: *remote })
        });
        Swept {
            neighbours: neighbours.map(|(key, _)| *key).collect(),
            floods: floods.cloned().collect(),
            stations: stations.into_iter().collect(),
        }
    }

    fn forget(&mut self, swept: &Swept) {
        for key in &swept.stations {
            self.loaded.stations.remove(key);
            self.fdb.unload(*key);
        }
        for key in &swept.neighbours {
            self.loaded.neighbours.remove(key);
            self.neighbours.remove(key, Origin::Api);
        }
        for key in &swept.floods {
            self.loaded.floods.remove(key);
        }
    }

    /// Puts what is loaded into the tables, where a change or a station has taken it out.
    pub(super) fn restore_loaded(&self) {
        self.restore_stations();
        self.loaded.neighbours.keys().for_each(|key| self.carry_neighbour(key));
    }

    /// Puts the stations among it into the FDB.
    pub(super) fn restore_stations(&self) {
        self.carry(self.loaded.stations.keys(), false);
    }

    /// Puts some stations into the FDB; whether these are news (`anew`).
    pub(super) fn carry<'k>(&self, keys: impl Iterator<Item = &'k MacKey>, anew: bool) {
        let mut places: HashMap<&Place, Option<u16>> = HashMap::new();
        for key in keys {
            let Some((place, _)) = self.loaded.stations.get(key) else { continue };
            let Some(index) = *places.entry(place).or_insert_with(|| self.index(place)) else { continue };
            if self.fdb.load(*key, index, anew).is_err() {
                self.fdb.flush(|entry| entry.kind == Kind::Learned);
                if let Err(error) = self.fdb.load(*key, index, anew) {
                    eprintln!("vswitchd: fdb entry {}: {error}", control::MacAddress::from(key.mac));
                }
            }
        }
    }

    fn carry_neighbour(&self, key: &NeighbourKey) {
        let Some((mac, _)) = self.loaded.neighbours.get(key) else { return };
        if let Err(error) = self.neighbours.put(*key, *mac, Origin::Api) {
            eprintln!("vswitchd: neighbour {}: {error}", crate::overlay::ip(&key.ip));
        }
    }
}
