//! What must hold between tunnels, and of a tunnel with its underlay.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::super::{Config, Errors, Tunnel, Underlay, tunnel_object};
use super::{Known, Places, Report, check_name, family, list_addresses, missing};

pub(super) fn check(config: &Config, known: &Known<'_>, places: &Places, errors: &mut Errors<'_>) {
    let mut names = HashSet::new();
    let (mut claims, mut kinds) = (HashMap::new(), HashMap::new());
    for (tunnel, marks) in config.tunnels.iter().zip(&places.tunnels) {
        let mut report = |key: &str, message: String, hint: Option<String>| {
            errors.push(marks.of(key).as_ref(), &tunnel_object(tunnel.name.as_str()), message, hint);
        };
        check_name(&mut names, tunnel.name.as_str(), "tunnel", &mut report);
        check_remotes(tunnel, &mut report);
        match known.underlays.get(tunnel.underlay.as_str()) {
            None => {
                let (message, hint) = missing("underlay", tunnel.underlay.as_str(), &known.underlays);
                report("underlay", message, hint);
            }
            Some(underlay) => {
                let port = known.ports.get(underlay.port.as_str()).copied();
                if !underlay.is_shared_on(port) && !underlay.addresses.is_empty() {
                    check_own(tunnel, underlay, &mut report);
                }
            }
        }
        let kind = *kinds.entry((tunnel.underlay.as_str(), tunnel.port)).or_insert(tunnel.kind);
        if kind != tunnel.kind {
            let message = format!(
                "`port = {}`: there are {} tunnels on this UDP port of underlay \"{}\"",
                tunnel.port,
                kind.as_str(),
                tunnel.underlay,
            );
            report("port", message, Some("give each type a port of its own".to_owned()));
        }
        check_claims(tunnel, &mut claims, &mut report);
    }
}

/// Each remote once, and of the family of `local`.
fn check_remotes(tunnel: &Tunnel, report: &mut Report<'_>) {
    let mut remotes = HashSet::new();
    for remote in &tunnel.remotes {
        if !remotes.insert(remote) {
            report("remote", format!("`remote` names {remote} twice"), None);
        }
        if tunnel.local == Some(*remote) {
            report("remote", format!("`remote`: {remote} is `local`, our own address"), None);
        }
    }
    let Some(local) = tunnel.local else { return };
    let group = tunnel.group.iter().map(|group| ("group", group));
    for (key, address) in tunnel.remotes.iter().map(|remote| ("remote", remote)).chain(group) {
        if family(*address) != family(local) {
            let message = format!("`{key}`: {address} is not of the family of `local`, which is {local}");
            report(key, message, Some("make a tunnel of its own for the other family".to_owned()));
        }
    }
}

/// The addresses of an underlay that is not shared are known here.
fn check_own(tunnel: &Tunnel, underlay: &Underlay, report: &mut Report<'_>) {
    let name = &underlay.name;
    let is_ours = |address: IpAddr| underlay.addresses.iter().any(|prefix| prefix.address() == address);
    if let Some(local) = tunnel.local.filter(|local| !is_ours(*local)) {
        let message = format!("`local`: {local} is no address of underlay \"{name}\"");
        report("local", message, Some(list_addresses("underlay", &underlay.addresses)));
    }
    for remote in tunnel.remotes.iter().filter(|remote| tunnel.local != Some(**remote)) {
        if is_ours(*remote) {
            report(
                "remote",
                format!("`remote`: {remote} is an address of underlay \"{name}\", our own"),
                None,
            );
        }
        let reaches = |prefix: &super::IpPrefix| family(prefix.address()) == family(*remote);
        if tunnel.local.is_none() && !underlay.addresses.iter().any(reaches) {
            let message = format!(
                "`remote`: underlay \"{name}\" has no {} address to reach {remote} from",
                family(*remote)
            );
            report("remote", message, Some(list_addresses("underlay", &underlay.addresses)));
        }
    }
}

/// What tells of which tunnel a frame is that came in, but for its VNI.
type Claim<'c> = (&'c str, super::super::TunnelKind, u16, IpAddr);

/// A frame that comes in belongs to one tunnel.
fn check_claims<'c>(
    tunnel: &'c Tunnel,
    claims: &mut HashMap<Claim<'c>, Vec<&'c Tunnel>>,
    report: &mut Report<'_>,
) {
    let mut rivals = HashSet::new();
    for remote in &tunnel.remotes {
        let claim = (tunnel.underlay.as_str(), tunnel.kind, tunnel.port, *remote);
        let others = claims.entry(claim).or_default();
        for other in others.iter() {
            let Some(vni) = tunnel.vnis.common(&other.vnis) else { continue };
            if std::ptr::eq(*other, tunnel) || !rivals.insert(other.name.as_str()) {
                continue;
            }
            let port = if tunnel.port == 0 { String::new() } else { format!(", port {}", tunnel.port) };
            let message = format!(
                "tunnel \"{}\" has the same frames: type {}{port}, remote {remote}, VNI {vni}",
                other.name,
                tunnel.kind.as_str(),
            );
            report("vnis", message, Some("give the two different `vnis`".to_owned()));
        }
        others.push(tunnel);
    }
}
