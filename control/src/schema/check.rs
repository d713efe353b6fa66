//! Checks between objects: names that must be unique, references that must lead somewhere.
//!
//! Everything here can be said from the document alone. Whether a namespace or a device exists, and
//! whether there is memory for it all, the switch finds out when it opens the ports.

use std::collections::{HashMap, HashSet};

use super::endpoint::Endpoint;
use super::error::Errors;
use super::nearest::nearest;
use super::port::PortKind;
use super::section::Marks;
use super::{Bridge, Config, Port, StaticEntry, bridge_object, fdb_object, port_object};

/// Where the objects of a document stand, by their place in the lists of [`Config`].
#[derive(Default)]
pub(super) struct Places {
    pub(super) limits: Marks,
    pub(super) bridges: Vec<Marks>,
    pub(super) ports: Vec<Marks>,
    pub(super) fdb: Vec<Marks>,
}

impl Places {
    /// For values that came from no document.
    pub(super) fn nowhere(config: &Config) -> Self {
        let marks = |count| std::iter::repeat_with(Marks::default).take(count).collect();
        Self {
            limits: Marks::default(),
            bridges: marks(config.bridges.len()),
            ports: marks(config.ports.len()),
            fdb: marks(config.fdb.len()),
        }
    }
}

/// Reports everything that is wrong between the objects of a configuration.
pub(super) fn check(config: &Config, places: &Places, errors: &mut Errors<'_>) {
    check_limits(config, places, errors);
    let mut bridges = HashSet::new();
    for (bridge, marks) in config.bridges.iter().zip(&places.bridges) {
        if !bridges.insert(bridge.name.as_str()) {
            let object = bridge_object(bridge.name.as_str());
            errors.push(marks.of("name").as_ref(), &object, "there are two bridges of this name", rename());
        }
    }
    let mut names = HashSet::new();
    let mut interfaces = HashMap::new();
    let mut recordings = HashMap::new();
    let mut sockets = HashMap::new();
    for (port, marks) in config.ports.iter().zip(&places.ports) {
        let mut report = |key: &str, message: String, hint: Option<String>| {
            errors.push(marks.of(key).as_ref(), &port_object(port.name.as_str()), message, hint);
        };
        if !names.insert(port.name.as_str()) {
            report("name", "there are two ports of this name".to_owned(), rename());
        }
        if !bridges.contains(port.bridge.as_str()) {
            let (message, hint) = no_such_bridge(port.bridge.as_str(), &config.bridges);
            report("bridge", message, hint);
        }
        check_workers(config, port, &mut report);
        if let Some(endpoint) = port.kind.endpoint() {
            check_endpoint(endpoint, &mut report);
        }
        if let Some((netns, interface)) = port.kind.interface()
            && let Some(other) = interfaces.insert((netns.map(|netns| netns.path()), interface), &port.name)
        {
            let place = netns.map_or("the host".to_owned(), |netns| format!("namespace \"{netns}\""));
            let key = if port.kind.endpoint().is_some() { "ifname" } else { "device" };
            let message = format!("interface \"{interface}\" of {place} is already that of port \"{other}\"");
            report(key, message, Some(format!("give one of the two another `{key}`")));
        }
        if let PortKind::Pcap(pcap) = &port.kind
            && let Some(file) = &pcap.write
            && let Some(other) = recordings.insert(file, &port.name)
        {
            let message = format!("`write`: port \"{other}\" records into the same file");
            report("write", message, Some("give one of the two another file".to_owned()));
        }
        if let PortKind::VhostUser(vhost) = &port.kind
            && let Some(other) = sockets.insert(&vhost.socket, &port.name)
        {
            let message = format!("`socket`: port \"{other}\" has the same");
            report("socket", message, Some("give one of the two another socket".to_owned()));
        }
    }
    check_fdb(config, places, errors);
}

fn rename() -> Option<String> {
    Some("rename one of the two".to_owned())
}

fn no_such_bridge(name: &str, bridges: &[Bridge]) -> (String, Option<String>) {
    let names = bridges.iter().map(|bridge| bridge.name.as_str());
    let hint = match nearest(name, names) {
        Some(near) => format!("nearest is \"{near}\""),
        None => format!("add a [[bridge]] with `name = \"{name}\"`"),
    };
    (format!("bridge \"{name}\" does not exist"), Some(hint))
}

fn check_limits(config: &Config, places: &Places, errors: &mut Errors<'_>) {
    let counts = [
        ("ports", config.ports.len(), config.limits.ports, places.ports.last()),
        ("fdb", config.fdb.len(), config.limits.fdb, places.fdb.last()),
    ];
    for (key, count, limit, last) in counts {
        if count > limit as usize {
            let message = format!("`{key} = {limit}` is a limit, but the configuration has {count} of them");
            let span = Some(&places.limits).filter(|marks| marks.object.is_some()).or(last);
            let span = span.and_then(|marks| marks.of(key));
            errors.push(span.as_ref(), "[limits]", message, Some(format!("raise it: `{key} = {count}`")));
        }
    }
}

fn check_workers(config: &Config, port: &Port, report: &mut impl FnMut(&str, String, Option<String>)) {
    let Some(count) = config.switch.workers.count() else { return };
    for &worker in &port.workers {
        if usize::from(worker) >= count {
            let hint = format!(
                "a port names workers by their place in the list of [switch], from 0: 0 to {} here",
                count - 1
            );
            report("workers", format!("worker {worker} does not exist"), Some(hint));
        }
    }
}

fn check_endpoint(endpoint: &Endpoint, report: &mut impl FnMut(&str, String, Option<String>)) {
    /// RFC 8200 section 5: IPv6 needs links of at least this MTU.
    const IPV6_LEAST_MTU: u16 = 1280;
    let mut addresses = HashSet::new();
    for prefix in &endpoint.addresses {
        if !addresses.insert(prefix.address()) {
            report("address", format!("`address` names {} twice", prefix.address()), None);
        }
    }
    if endpoint.mtu < IPV6_LEAST_MTU && endpoint.addresses.iter().any(|prefix| prefix.address().is_ipv6()) {
        let message = format!("`mtu = {}` is too small for the IPv6 address of the port", endpoint.mtu);
        report("mtu", message, Some(format!("IPv6 needs {IPV6_LEAST_MTU} at least")));
    }
    let mut families = HashSet::new();
    for gateway in &endpoint.gateways {
        let family = if gateway.is_ipv4() { "IPv4" } else { "IPv6" };
        if !families.insert(family) {
            report("gateway", format!("`gateway` names two {family} gateways"), None);
        }
        // A link-local gateway is on the link by its nature (RFC 4291 section 2.5.6).
        let link_local = matches!(gateway, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local());
        if !link_local && !endpoint.addresses.iter().any(|prefix| prefix.contains(*gateway)) {
            let prefixes: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
            let hint = if prefixes.is_empty() {
                "the port has no `address`".to_owned()
            } else {
                format!("the port's addresses are {}", prefixes.join(", "))
            };
            let message = format!("`gateway`: {gateway} is in no prefix of the port's addresses");
            report("gateway", message, Some(hint));
        }
    }
}

fn check_fdb(config: &Config, places: &Places, errors: &mut Errors<'_>) {
    let ports: HashMap<&str, &Port> = config.ports.iter().map(|port| (port.name.as_str(), port)).collect();
    let mut entries = HashSet::new();
    for (entry, marks) in config.fdb.iter().zip(&places.fdb) {
        let mut report = |key: &str, message: String, hint: Option<String>| {
            errors.push(marks.of(key).as_ref(), &fdb_object(&entry.mac.to_string()), message, hint);
        };
        if !config.bridges.iter().any(|bridge| bridge.name == entry.bridge) {
            let (message, hint) = no_such_bridge(entry.bridge.as_str(), &config.bridges);
            report("bridge", message, hint);
        }
        match ports.get(entry.port.as_str()) {
            Some(port) => check_fdb_port(entry, port, &mut report),
            None => {
                let hint = match nearest(entry.port.as_str(), ports.keys().copied()) {
                    Some(near) => format!("nearest is \"{near}\""),
                    None => format!("add a [[port]] with `name = \"{}\"`", entry.port),
                };
                report("port", format!("port \"{}\" does not exist", entry.port), Some(hint));
            }
        }
        if !entries.insert((&entry.bridge, entry.vlan, entry.mac)) {
            let message = "there are two entries for this MAC in the same bridge and VLAN";
            report("mac", message.to_owned(), Some("remove one of the two".to_owned()));
        }
    }
}

fn check_fdb_port(entry: &StaticEntry, port: &Port, report: &mut impl FnMut(&str, String, Option<String>)) {
    if port.bridge != entry.bridge {
        let message = format!("port \"{}\" is not in bridge \"{}\"", port.name, entry.bridge);
        report("port", message, Some(format!("it is in bridge \"{}\"", port.bridge)));
    } else if !port.vlan.carries(entry.vlan) {
        let vlan = entry.vlan.map_or("untagged frames (VLAN 0)".to_owned(), |vlan| format!("VLAN {vlan}"));
        let hint = match &port.vlan {
            super::VlanMode::Access(own) => Some(format!("write `vlan = {own}`")),
            super::VlanMode::Trunk { vlans, .. } => Some(format!("its trunk carries {vlans}")),
            super::VlanMode::Transparent => None,
        };
        report("vlan", format!("port \"{}\" does not carry {vlan}", port.name), hint);
    }
}
