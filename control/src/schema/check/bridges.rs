//! What must hold between bridges, and of a bridge with the tunnels that it names.

use std::collections::{HashMap, HashSet};

use super::super::{Bridge, Config, Errors, Vni, bridge_object};
use super::{Known, Places, Report, check_addresses, check_name, missing};

pub(super) fn check(config: &Config, known: &Known<'_>, places: &Places, errors: &mut Errors<'_>) {
    let mut names = HashSet::new();
    let mut taken: HashMap<Vni, Vec<&Bridge>> = HashMap::new();
    for (bridge, marks) in config.bridges.iter().zip(&places.bridges) {
        let mut report = |key: &str, message: String, hint: Option<String>| {
            errors.push(marks.of(key).as_ref(), &bridge_object(bridge.name.as_str()), message, hint);
        };
        check_name(&mut names, bridge.name.as_str(), "bridge", &mut report);
        check_tunnels(bridge, known, &mut report);
        check_addresses(&bridge.addresses, &mut report);
        for (_, vni) in bridge.vnis() {
            let others = taken.entry(vni).or_default();
            check_vni(config, bridge, vni, others, &mut report);
            others.push(bridge);
        }
    }
}

fn check_tunnels(bridge: &Bridge, known: &Known<'_>, report: &mut Report<'_>) {
    let Some(tunnels) = &bridge.tunnels else { return };
    if bridge.vnis().next().is_none() {
        let hint = Some("add the number by which the other hosts know it: `vni = 5001`".to_owned());
        report("tunnels", "`tunnels` is for bridges with `vni` or `vlan_vni`".to_owned(), hint);
    }
    let mut seen = HashSet::new();
    for name in tunnels {
        if !seen.insert(name) {
            report("tunnels", format!("`tunnels` names \"{name}\" twice"), None);
        }
        let Some(tunnel) = known.tunnels.get(name.as_str()) else {
            let (message, hint) = missing("tunnel", name.as_str(), &known.tunnels);
            report("tunnels", message, hint);
            continue;
        };
        if let Some((_, first)) = bridge.vnis().next()
            && !bridge.vnis().any(|(_, vni)| tunnel.vnis.contains(vni))
        {
            let message = format!("tunnel \"{name}\" carries no VNI of the bridge");
            report("tunnels", message, Some(format!("add {first} to the `vnis` of the tunnel")));
        }
    }
}

/// A frame that comes out of a tunnel belongs to one bridge.
fn check_vni(config: &Config, bridge: &Bridge, vni: Vni, others: &[&Bridge], report: &mut Report<'_>) {
    for other in others {
        let both = config.tunnels.iter().find(|tunnel| bridge.uses(tunnel, vni) && other.uses(tunnel, vni));
        if let Some(tunnel) = both {
            let key = if bridge.vni.is_some() { "vni" } else { "vlan_vni" };
            let message = format!(
                "VNI {vni} of tunnel \"{}\" is that of bridge \"{}\" already",
                tunnel.name, other.name
            );
            let hint = "give one of the two another VNI, or other `tunnels`";
            report(key, message, Some(hint.to_owned()));
            return;
        }
    }
}
