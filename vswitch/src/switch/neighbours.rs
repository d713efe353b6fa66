//! The control side of the neighbour table: what is configured, what has gone, who quarrels, and what people see.

use std::time::SystemTime;

use control::api::{Event, NeighbourOrigin, NeighbourRow};
use control::mac::MacAddress;
use control::schema::{self, BridgeName, PortName, TunnelName};
use hashbrown::HashMap;

use super::{State, Switch};
use crate::overlay::{address, ip};
use crate::tables::fdb::{Alarm, MacKey};
use crate::tables::neighbour::{Conflict, Neighbour, NeighbourKey, Origin, SHARDS};
use crate::tables::versions::Witness;

/// Rounds of the keeper in which the whole table is swept once.
const SWEEP_ROUNDS: usize = 10;

impl Switch {
    /// Every entry of the neighbour table.
    pub fn neighbours(&self) -> Vec<NeighbourRow> {
        let state = self.lock();
        let now = state.now_s();
        let bridges: HashMap<u16, &BridgeName> =
            state.bridges.iter().map(|(name, index)| (*index, name)).collect();
        let ports: HashMap<u16, &PortName> =
            state.ports.values().map(|port| (port.index, &port.config.name)).collect();
        let remotes = state.reach.remotes_by_index();
        let row = |entry: Neighbour| {
            let claim = entry.claim;
            let place = state.place_of(&claim.key, claim.mac);
            let remote = place.and_then(|place| remotes.get(&place));
            Some(NeighbourRow {
                bridge: BridgeName::clone(bridges.get(&claim.key.bridge)?),
                vlan: claim.key.vlan,
                ip: ip(&claim.key.ip),
                mac: claim.mac.into(),
                port: place.and_then(|place| ports.get(&place)).map(|name| PortName::clone(name)),
                tunnel: remote.map(|(tunnel, _)| TunnelName::clone(tunnel)),
                remote: remote.map(|(_, address)| *address),
                origin: match claim.origin {
                    Origin::Config => NeighbourOrigin::Config,
                    Origin::Api => NeighbourOrigin::Api,
                    Origin::Arp => NeighbourOrigin::Arp,
                    Origin::Nd => NeighbourOrigin::Nd,
                    Origin::Dhcp => NeighbourOrigin::Dhcp,
                },
                age_s: if claim.origin.is_fixed() { 0 } else { now.saturating_sub(entry.seen_s).into() },
            })
        };
        state.neighbours.entries().into_iter().filter_map(row).collect()
    }

    /// What happened of late, behind the event of this number.
    pub fn events(&self, after: Option<u64>) -> Vec<Event> {
        self.lock().events.after(after.unwrap_or(0))
    }
}

impl State {
    /// Takes in an entry of the desired state.
    pub(super) fn know_neighbour(&self, neighbour: &schema::Neighbour) {
        let Some(key) = self.neighbour_key(neighbour) else { return };
        if let Err(error) = self.neighbours.put(key, neighbour.mac.into(), Origin::Config) {
            eprintln!("vswitchd: neighbour {}: {error}", neighbour.ip);
        }
    }

    /// Forgets an entry of the desired state.
    pub(super) fn forget_neighbour(&self, neighbour: &schema::Neighbour) {
        if let Some(key) = self.neighbour_key(neighbour) {
            self.neighbours.remove(&key, Origin::Config);
        }
    }

    fn neighbour_key(&self, neighbour: &schema::Neighbour) -> Option<NeighbourKey> {
        Some(NeighbourKey {
            bridge: *self.bridges.get(&neighbour.bridge)?,
            vlan: neighbour.vlan.map_or(0, Into::into),
            ip: address(neighbour.ip),
        })
    }

    /// Forgets, in a share of the table, what was overheard of stations that the MAC table does not know any more, or
    /// in bridges that do not overhear any more. Gives where to go on.
    pub(super) fn sweep_neighbours(&self, start: usize) -> usize {
        let kept = |entry: &Neighbour| {
            let key = &entry.claim.key;
            let lookup = self.fdb.lookup(MacKey { bridge: key.bridge, vlan: key.vlan, mac: entry.claim.mac });
            // Of a place that is being written it is not known.
            let is_known = lookup.found.is_some() || lookup.witness == Witness::STALE;
            is_known && self.snapshot.bridge(key.bridge).is_some_and(|bridge| bridge.overhears)
        };
        self.neighbours.sweep(start, SHARDS.div_ceil(SWEEP_ROUNDS), kept)
    }

    /// Notes that two stations have one address. One that was overheard and is gone is no such station.
    pub(super) fn judge_conflicts(&mut self) {
        while let Some(conflict) = self.neighbours.next_conflict() {
            let Conflict { key, holder, fixed, claimant } = conflict;
            let places = [holder, claimant].map(|mac| self.place_of(&key, mac));
            if !fixed && places[0].is_none() {
                continue;
            }
            let bridge = self.bridges.iter().find(|(_, index)| **index == key.bridge);
            let mut macs = [holder, claimant].map(MacAddress::from);
            // Who claims and who has change places all the time: it is one event.
            macs.sort_unstable();
            let mut objects = vec![format!("neighbour {}", ip(&key.ip))];
            objects.extend(bridge.map(|(name, _)| format!("bridge \"{name}\"")));
            objects.extend(macs.iter().map(MacAddress::to_string));
            self.events.note(SystemTime::now(), "duplicate-ip", objects);
        }
    }

    /// Notes which stations move too often, which are at two places at a time, and which places have brought more
    /// neighbours than there is room for.
    pub(super) fn judge_stations(&mut self) {
        while let Some(Alarm { key, at, seen, flapping }) = self.fdb.next_alarm() {
            let bridge = self.bridges.iter().find(|(_, index)| **index == key.bridge);
            let mut objects = vec![format!("fdb entry {}", MacAddress::from(key.mac))];
            objects.extend(bridge.map(|(name, _)| format!("bridge \"{name}\"")));
            objects.extend((key.vlan != 0).then(|| format!("VLAN {}", key.vlan)));
            // Of the two one is as much at fault as the other, and they change places.
            let mut places = [at, seen];
            places.sort_unstable();
            objects.extend(places.into_iter().filter_map(|place| self.place_name(place)));
            let kind = if flapping { "mac-flapping" } else { "duplicate-mac" };
            self.events.note(SystemTime::now(), kind, objects);
        }
        while let Some(place) = self.neighbours.next_refused() {
            let objects =
                self.place_name(place).into_iter().chain(["[limits] neighbours".to_owned()]).collect();
            self.events.note(SystemTime::now(), "neighbours-full", objects);
        }
    }

    /// A port or a remote, as errors name it.
    fn place_name(&self, place: u16) -> Option<String> {
        if let Some(port) = self.port(place) {
            return Some(format!("port \"{}\"", port.config.name));
        }
        let (tunnel, remote) = self.reach.remote_at(place)?;
        Some(format!("tunnel \"{tunnel}\" remote {remote}"))
    }

    /// The port or the remote that a station is behind.
    fn place_of(&self, key: &NeighbourKey, mac: [u8; 6]) -> Option<u16> {
        let found = self.fdb.lookup(MacKey { bridge: key.bridge, vlan: key.vlan, mac }).found?;
        Some(found.port)
    }
}
