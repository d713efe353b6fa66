//! What must hold of the entries of bridges' tables: MAC addresses and neighbours.

use std::collections::HashSet;
use std::net::IpAddr;

use super::super::{
    Config, Errors, Place, Port, StaticEntry, Tunnel, VlanId, VlanMode, fdb_object, neighbour_object,
};
use super::{Known, Places, Report, missing};

pub(super) fn check(config: &Config, known: &Known<'_>, places: &Places, errors: &mut Errors<'_>) {
    let mut entries = HashSet::new();
    for (entry, marks) in config.fdb.iter().zip(&places.fdb) {
        let mut report = |key: &str, message: String, hint: Option<String>| {
            errors.push(marks.of(key).as_ref(), &fdb_object(&entry.mac.to_string()), message, hint);
        };
        if !known.bridges.contains_key(entry.bridge.as_str()) {
            let (message, hint) = missing("bridge", entry.bridge.as_str(), &known.bridges);
            report("bridge", message, hint);
        }
        match &entry.place {
            Place::Port(name) => match known.ports.get(name.as_str()) {
                Some(port) => check_port(entry, port, &mut report),
                None => {
                    let (message, hint) = missing("port", name.as_str(), &known.ports);
                    report("port", message, hint);
                }
            },
            Place::Remote { tunnel: name, remote } => match known.tunnels.get(name.as_str()) {
                Some(tunnel) => check_tunnel(entry, tunnel, *remote, known, &mut report),
                None => {
                    let (message, hint) = missing("tunnel", name.as_str(), &known.tunnels);
                    report("tunnel", message, hint);
                }
            },
        }
        if !entries.insert((&entry.bridge, entry.vlan, entry.mac)) {
            let message = "there are two entries for this MAC in the same bridge and VLAN";
            report("mac", message.to_owned(), Some("remove one of the two".to_owned()));
        }
    }
}

fn check_port(entry: &StaticEntry, port: &Port, report: &mut Report<'_>) {
    if port.bridge.as_ref() != Some(&entry.bridge) {
        let message = format!("port \"{}\" is not in bridge \"{}\"", port.name, entry.bridge);
        let hint = match &port.bridge {
            Some(bridge) => format!("it is in bridge \"{bridge}\""),
            None => "it is in none: it is that of an underlay".to_owned(),
        };
        report("port", message, Some(hint));
    } else if !port.vlan.carries(entry.vlan) {
        let hint = match &port.vlan {
            VlanMode::Access(own) => Some(format!("write `vlan = {own}`")),
            VlanMode::Trunk { vlans, .. } => Some(format!("its trunk carries {vlans}")),
            VlanMode::Transparent => None,
        };
        report("vlan", format!("port \"{}\" does not carry {}", port.name, shown(entry.vlan)), hint);
    }
}

fn check_tunnel(
    entry: &StaticEntry,
    tunnel: &Tunnel,
    remote: IpAddr,
    known: &Known<'_>,
    report: &mut Report<'_>,
) {
    if !tunnel.remotes.contains(&remote) {
        let message = format!("tunnel \"{}\" does not reach {remote}", tunnel.name);
        report("remote", message, Some("add it to the `remote` of the tunnel".to_owned()));
    }
    let Some(bridge) = known.bridges.get(entry.bridge.as_str()) else { return };
    match bridge.vni_of(entry.vlan) {
        None => {
            let message = format!("bridge \"{}\" has no VNI for {}", bridge.name, shown(entry.vlan));
            report("vlan", message, Some("add `vni` or `vlan_vni` to the bridge".to_owned()));
        }
        Some(vni) if !bridge.uses(tunnel, vni) => {
            let message =
                format!("tunnel \"{}\" does not carry VNI {vni} of bridge \"{}\"", tunnel.name, bridge.name);
            let hint = "add it to the `vnis` of the tunnel, and the tunnel to the `tunnels` of the bridge";
            report("tunnel", message, Some(hint.to_owned()));
        }
        Some(_) => {}
    }
}

/// For messages: a VLAN, or none.
pub fn shown(vlan: Option<VlanId>) -> String {
    vlan.map_or("untagged frames (VLAN 0)".to_owned(), |vlan| format!("VLAN {vlan}"))
}

/// `[[neighbour]]`: each address once in a bridge and VLAN.
pub(super) fn check_neighbours(config: &Config, known: &Known<'_>, places: &Places, errors: &mut Errors<'_>) {
    let mut addresses = HashSet::new();
    for (neighbour, marks) in config.neighbours.iter().zip(&places.neighbours) {
        let mut report = |key: &str, message: &str, hint: Option<String>| {
            let object = neighbour_object(&neighbour.ip.to_string());
            errors.push(marks.of(key).as_ref(), &object, message, hint);
        };
        if !known.bridges.contains_key(neighbour.bridge.as_str()) {
            let (message, hint) = missing("bridge", neighbour.bridge.as_str(), &known.bridges);
            report("bridge", &message, hint);
        }
        if !addresses.insert((&neighbour.bridge, neighbour.vlan, neighbour.ip)) {
            let message = "there are two entries for this address in the same bridge and VLAN";
            report("ip", message, Some("remove one of the two".to_owned()));
        }
    }
}
