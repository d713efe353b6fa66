//! Checks between objects: names that must be unique, references that must lead somewhere.
//!
//! Everything here can be said from the document alone. Whether a namespace or a device exists, and
//! whether there is memory for it all, the switch finds out when it opens the ports.

mod bridges;
mod fdb;
mod ports;
mod tunnels;
mod underlays;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

pub use fdb::shown;

use super::error::Errors;
use super::nearest::nearest;
use super::section::Marks;
use super::{Bridge, Config, IpPrefix, Limits, Port, Tunnel, Underlay};

/// Where the objects of a document stand, by their place in the lists of [`Config`].
#[derive(Default)]
pub(super) struct Places {
    pub(super) limits: Marks,
    pub(super) bridges: Vec<Marks>,
    pub(super) ports: Vec<Marks>,
    pub(super) underlays: Vec<Marks>,
    pub(super) tunnels: Vec<Marks>,
    pub(super) fdb: Vec<Marks>,
    pub(super) neighbours: Vec<Marks>,
}

impl Places {
    /// For values that came from no document.
    pub(super) fn nowhere(config: &Config) -> Self {
        let marks = |count| std::iter::repeat_with(Marks::default).take(count).collect();
        Self {
            limits: Marks::default(),
            bridges: marks(config.bridges.len()),
            ports: marks(config.ports.len()),
            underlays: marks(config.underlays.len()),
            tunnels: marks(config.tunnels.len()),
            fdb: marks(config.fdb.len()),
            neighbours: marks(config.neighbours.len()),
        }
    }
}

/// The objects by their names; of two with the same name, one.
struct Known<'c> {
    bridges: HashMap<&'c str, &'c Bridge>,
    ports: HashMap<&'c str, &'c Port>,
    underlays: HashMap<&'c str, &'c Underlay>,
    tunnels: HashMap<&'c str, &'c Tunnel>,
}

/// What a check of one object says: the key, the message, and what to write instead.
type Report<'r> = dyn FnMut(&str, String, Option<String>) + 'r;

/// Reports everything that is wrong between the objects of a configuration.
pub(super) fn check(config: &Config, places: &Places, errors: &mut Errors<'_>) {
    let known = Known {
        bridges: config.bridges.iter().map(|bridge| (bridge.name.as_str(), bridge)).collect(),
        ports: config.ports.iter().map(|port| (port.name.as_str(), port)).collect(),
        underlays: config.underlays.iter().map(|underlay| (underlay.name.as_str(), underlay)).collect(),
        tunnels: config.tunnels.iter().map(|tunnel| (tunnel.name.as_str(), tunnel)).collect(),
    };
    check_limits(config, places, errors);
    bridges::check(config, &known, places, errors);
    ports::check(config, &known, places, errors);
    underlays::check(config, &known, places, errors);
    tunnels::check(config, &known, places, errors);
    fdb::check(config, &known, places, errors);
    fdb::check_neighbours(config, &known, places, errors);
}

/// Reports a name that an earlier object of its kind has.
fn check_name<'c>(names: &mut HashSet<&'c str>, name: &'c str, kind: &str, report: &mut Report<'_>) {
    if !names.insert(name) {
        let hint = Some("rename one of the two".to_owned());
        report("name", format!("there are two {kind}s of this name"), hint);
    }
}

/// What is said of a name that no object of its kind has.
fn missing<T>(kind: &str, name: &str, known: &HashMap<&str, T>) -> (String, Option<String>) {
    let hint = match nearest(name, sorted(known.keys().copied())) {
        Some(near) => format!("nearest is \"{near}\""),
        None => {
            format!("add {} [[{kind}]] with `name = \"{name}\"`", if kind == "underlay" { "an" } else { "a" })
        }
    };
    (format!("{kind} \"{name}\" does not exist"), Some(hint))
}

/// In an order that does not depend on the map, so that the same mistake earns the same words.
fn sorted<'c>(names: impl Iterator<Item = &'c str>) -> Vec<&'c str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names
}

/// Reports addresses that an object names twice under `address`.
fn check_addresses(addresses: &[IpPrefix], report: &mut Report<'_>) {
    let mut seen = HashSet::new();
    for prefix in addresses {
        if !seen.insert(prefix.address()) {
            report("address", format!("`address` names {} twice", prefix.address()), None);
        }
    }
}

/// For messages: what kind of address it is.
fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// `its addresses are ...`, for a hint.
fn list_addresses(of: &str, addresses: &[IpPrefix]) -> String {
    let prefixes: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    if prefixes.is_empty() {
        format!("the {of} has no `address`")
    } else {
        format!("the {of}'s addresses are {}", prefixes.join(", "))
    }
}

/// True if `router` is on a link with these addresses.
fn is_on_link(router: IpAddr, addresses: &[IpPrefix]) -> bool {
    // A link-local address is on the link by its nature (RFC 4291 section 2.5.6).
    let link_local = matches!(router, IpAddr::V6(ip) if ip.is_unicast_link_local());
    link_local || addresses.iter().any(|prefix| prefix.contains(router))
}

fn check_limits(config: &Config, places: &Places, errors: &mut Errors<'_>) {
    let limits = &config.limits;
    let remotes = config.tunnels.iter().map(|tunnel| tunnel.places().count()).sum();
    let counts = [
        ("ports", config.all_ports(), limits.ports, places.ports.last()),
        ("fdb", config.fdb.len(), limits.fdb, places.fdb.last()),
        ("remotes", remotes, limits.remotes, places.tunnels.last()),
        ("neighbours", config.neighbours.len(), limits.neighbours, places.neighbours.last()),
    ];
    for (key, count, limit, last) in counts {
        if count > limit as usize {
            let message = format!("`{key} = {limit}` is a limit, but the configuration has {count} of them");
            let span = Some(&places.limits).filter(|marks| marks.object.is_some()).or(last);
            let span = span.and_then(|marks| marks.of(key));
            errors.push(span.as_ref(), "[limits]", message, Some(format!("raise it: `{key} = {count}`")));
        }
    }
    let most = Limits::MOST_PORTS_AND_REMOTES;
    if limits.ports + limits.remotes > most {
        let message =
            format!("`ports = {}` and `remotes = {}` are too many together", limits.ports, limits.remotes);
        let hint = Some(format!("both share {most} numbers: lower one of them"));
        errors.push(places.limits.of("remotes").as_ref(), "[limits]", message, hint);
    }
}
