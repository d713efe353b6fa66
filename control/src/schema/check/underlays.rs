//! What must hold between underlays, and of an underlay with its port.

use std::collections::{HashMap, HashSet};

use super::super::{Config, Errors, PortKind, Underlay, underlay_object};
use super::{Known, Places, Report, check_addresses, check_name, is_on_link, list_addresses, missing};

pub(super) fn check(config: &Config, known: &Known<'_>, places: &Places, errors: &mut Errors<'_>) {
    let mut names = HashSet::new();
    let mut uplinks = HashMap::new();
    for (underlay, marks) in config.underlays.iter().zip(&places.underlays) {
        let mut report = |key: &str, message: String, hint: Option<String>| {
            errors.push(marks.of(key).as_ref(), &underlay_object(underlay.name.as_str()), message, hint);
        };
        check_name(&mut names, underlay.name.as_str(), "underlay", &mut report);
        if let Some(other) = uplinks.insert(&underlay.port, &underlay.name) {
            let message = format!("port \"{}\" is that of underlay \"{other}\" already", underlay.port);
            report("port", message, Some("a port carries one underlay".to_owned()));
        }
        match known.ports.get(underlay.port.as_str()) {
            None => {
                let (message, hint) = missing("port", underlay.port.as_str(), &known.ports);
                report("port", message, hint);
            }
            Some(port) => {
                if let Some(bridge) = &port.bridge {
                    let message = format!("port \"{}\" is in bridge \"{bridge}\"", port.name);
                    let hint = "the port of an underlay is in no bridge: remove its `bridge`";
                    report("port", message, Some(hint.to_owned()));
                }
                let can_be_shared = matches!(port.kind, PortKind::Afxdp(_));
                if underlay.share == Some(true) && !can_be_shared {
                    let message =
                        format!("`share`: the host's kernel cannot keep a {} port", port.kind.type_name());
                    let hint = "`afxdp` ports can be shared; of others write `share = false`, and `address`";
                    report("share", message, Some(hint.to_owned()));
                } else if underlay.is_shared_on(Some(port)) {
                    check_shared(underlay, &mut report);
                } else {
                    check_own(underlay, can_be_shared, &mut report);
                }
            }
        }
    }
}

/// A shared underlay has what the kernel has.
fn check_shared(underlay: &Underlay, report: &mut Report<'_>) {
    let keys = [("address", !underlay.addresses.is_empty()), ("route", !underlay.routes.is_empty())];
    for (key, _) in keys.into_iter().filter(|(_, set)| *set) {
        let hint = format!("set it in the kernel and remove `{key}`; or write `share = false`");
        report(key, format!("`{key}`: a shared underlay has what the kernel has"), Some(hint));
    }
}

fn check_own(underlay: &Underlay, can_be_shared: bool, report: &mut Report<'_>) {
    if underlay.addresses.is_empty() {
        let share = if can_be_shared { ", or share the kernel's: `share = true`" } else { "" };
        let hint = format!("write `address = [\"192.0.2.1/24\"]`{share}");
        report("address", "`address` is missing".to_owned(), Some(hint));
    }
    check_addresses(&underlay.addresses, report);
    let mut networks = HashSet::new();
    for route in &underlay.routes {
        if !networks.insert(route.to) {
            report("route", format!("`route` names {} twice", route.to), None);
        }
        if underlay.addresses.iter().any(|prefix| prefix.address() == route.via) {
            report("route", format!("`route`: {} is an address of the underlay itself", route.via), None);
        } else if !is_on_link(route.via, &underlay.addresses) {
            let message = format!("`route`: {} is in no prefix of the underlay's addresses", route.via);
            report("route", message, Some(list_addresses("underlay", &underlay.addresses)));
        }
    }
}
