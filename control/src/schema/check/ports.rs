//! What must hold between ports, and of a port with its bridge.

use std::collections::{HashMap, HashSet};

use super::super::{Config, Endpoint, Errors, Port, PortKind, VlanMode, port_object};
use super::{
    Known, Places, Report, check_addresses, check_name, family, is_on_link, list_addresses, missing,
};

pub(super) fn check(config: &Config, known: &Known<'_>, places: &Places, errors: &mut Errors<'_>) {
    let uplinks: HashSet<&str> = config.underlays.iter().map(|underlay| underlay.port.as_str()).collect();
    let mut names = HashSet::new();
    let mut interfaces = HashMap::new();
    let mut recordings = HashMap::new();
    let mut sockets = HashMap::new();
    for (port, marks) in config.ports.iter().zip(&places.ports) {
        let mut report = |key: &str, message: String, hint: Option<String>| {
            errors.push(marks.of(key).as_ref(), &port_object(port.name.as_str()), message, hint);
        };
        check_name(&mut names, port.name.as_str(), "port", &mut report);
        match &port.bridge {
            Some(bridge) if !known.bridges.contains_key(bridge.as_str()) => {
                let (message, hint) = missing("bridge", bridge.as_str(), &known.bridges);
                report("bridge", message, hint);
            }
            Some(_) => {}
            None => check_uplink(port, uplinks.contains(port.name.as_str()), &mut report),
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
}

/// A port without bridge is that of an underlay, and has nothing that is for ports of a bridge.
fn check_uplink(port: &Port, has_underlay: bool, report: &mut Report<'_>) {
    if !has_underlay {
        let hint =
            format!("write `bridge = \"blue\"`, or add an [[underlay]] with `port = \"{}\"`", port.name);
        report("bridge", "`bridge` is missing, and no underlay has the port".to_owned(), Some(hint));
        return;
    }
    let tags = "the tag of an uplink's frames is the `vlan` of its underlay";
    let settings = [
        ("vlan", matches!(port.vlan, VlanMode::Access(_)), Some(tags)),
        ("trunk", matches!(port.vlan, VlanMode::Trunk { .. }), Some(tags)),
        ("isolated", port.isolated, None),
        ("hairpin", port.hairpin, None),
        ("fdb_limit", port.fdb_limit.is_some(), None),
        ("policy_group", port.policy_group.is_some(), None),
    ];
    for (key, _, hint) in settings.into_iter().filter(|(_, set, _)| *set) {
        report(key, format!("`{key}` is for ports of a bridge"), hint.map(str::to_owned));
    }
}

fn check_workers(config: &Config, port: &Port, report: &mut Report<'_>) {
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

fn check_endpoint(endpoint: &Endpoint, report: &mut Report<'_>) {
    /// RFC 8200 section 5: IPv6 needs links of at least this MTU.
    const IPV6_LEAST_MTU: u16 = 1280;
    check_addresses(&endpoint.addresses, report);
    if let Some(mtu) = endpoint.mtu.filter(|mtu| *mtu < IPV6_LEAST_MTU)
        && endpoint.addresses.iter().any(|prefix| prefix.address().is_ipv6())
    {
        let message = format!("`mtu = {mtu}` is too small for the IPv6 address of the port");
        report("mtu", message, Some(format!("IPv6 needs {IPV6_LEAST_MTU} at least")));
    }
    let mut families = HashSet::new();
    for gateway in &endpoint.gateways {
        if !families.insert(family(*gateway)) {
            report("gateway", format!("`gateway` names two {} gateways", family(*gateway)), None);
        }
        if !is_on_link(*gateway, &endpoint.addresses) {
            let message = format!("`gateway`: {gateway} is in no prefix of the port's addresses");
            report("gateway", message, Some(list_addresses("port", &endpoint.addresses)));
        }
    }
}
