//! Edits of the desired state, one object at a time: what `port add` and its like do before the result
//! goes the way of every change. Pure functions: the state as it is in, the state as it shall be out.

use control::api::{ApiError, ErrorCode, FdbKey};
use control::schema::{Bridge, BridgeName, Config, Port, PortName, StaticEntry};

use super::names::PlaceName;

/// With another port.
///
/// # Errors
/// There is one of this name; its bridge is missing; its interface is taken; a limit is reached.
pub fn add_port(config: &Config, port: Port) -> Result<Config, ApiError> {
    if config.port(port.name.as_str()).is_some() {
        return Err(exists("port", port.name.as_str()));
    }
    let mut config = config.clone();
    config.ports.push(port);
    checked(config)
}

/// Without a port and its static entries.
///
/// # Errors
/// There is none of this name.
pub fn delete_port(config: &Config, name: &PortName) -> Result<Config, ApiError> {
    if config.port(name.as_str()).is_none() {
        let known = config.ports.iter().map(|port| port.name.as_str());
        return Err(ApiError::not_found("port", name.as_str(), known));
    }
    let mut config = config.clone();
    config.ports.retain(|port| port.name != *name);
    config.fdb.retain(|entry| entry.place.port() != Some(name));
    checked(config)
}

/// With another bridge.
///
/// # Errors
/// There is one of this name.
pub fn add_bridge(config: &Config, bridge: Bridge) -> Result<Config, ApiError> {
    if config.bridge(bridge.name.as_str()).is_some() {
        return Err(exists("bridge", bridge.name.as_str()));
    }
    let mut config = config.clone();
    config.bridges.push(bridge);
    checked(config)
}

/// Without a bridge and the entries of its tables.
///
/// # Errors
/// There is none of this name; it has ports.
pub fn delete_bridge(config: &Config, name: &BridgeName) -> Result<Config, ApiError> {
    if config.bridge(name.as_str()).is_none() {
        let known = config.bridges.iter().map(|bridge| bridge.name.as_str());
        return Err(ApiError::not_found("bridge", name.as_str(), known));
    }
    let ports = config.ports.iter().filter(|port| port.bridge.as_ref() == Some(name));
    let ports: Vec<&str> = ports.map(|port| port.name.as_str()).collect();
    if let Some((first, more)) = ports.split_first() {
        let rest = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        return Err(ApiError::new(ErrorCode::Configuration, format!("bridge \"{name}\" has ports"))
            .object(format!("bridge \"{name}\""))
            .cause(format!("port \"{first}\"{rest} would have no bridge"))
            .fix("delete its ports first, or move them to another bridge by `vswitchctl apply`"));
    }
    let mut config = config.clone();
    config.bridges.retain(|bridge| bridge.name != *name);
    config.fdb.retain(|entry| entry.bridge != *name);
    config.neighbours.retain(|neighbour| neighbour.bridge != *name);
    checked(config)
}

/// With another static entry.
///
/// # Errors
/// The address is bound already; its bridge or port is missing or does not carry its VLAN.
pub fn add_entry(config: &Config, entry: StaticEntry) -> Result<Config, ApiError> {
    let key = key_of(&entry);
    if let Some(other) = config.fdb.iter().find(|other| key_of(other) == key) {
        return Err(ApiError::new(ErrorCode::Configuration, format!("{} is bound already", entry.mac))
            .object(format!("fdb entry {}", entry.mac))
            .cause(format!("a static entry of the same bridge and VLAN binds it {}", PlaceName(&other.place)))
            .fix("delete that entry first"));
    }
    let mut config = config.clone();
    config.fdb.push(entry);
    checked(config)
}

/// Without a static entry.
///
/// # Errors
/// There is no such static entry; one that was learned is none.
pub fn delete_entry(config: &Config, key: &FdbKey) -> Result<Config, ApiError> {
    let mut config = config.clone();
    let before = config.fdb.len();
    config.fdb.retain(|entry| key_of(entry) != *key);
    if config.fdb.len() == before {
        let place = format!("in bridge \"{}\", VLAN {}", key.bridge, key.vlan);
        return Err(ApiError::new(
            ErrorCode::NotFound,
            format!("there is no static entry {} {place}", key.mac),
        )
        .object(format!("fdb entry {}", key.mac))
        .fix("`vswitchctl fdb list` shows the entries; `vswitchctl fdb flush` forgets learned ones"));
    }
    checked(config)
}

fn key_of(entry: &StaticEntry) -> FdbKey {
    let vlan = entry.vlan.map_or(0, |vlan| vlan.get());
    FdbKey { bridge: entry.bridge.clone(), vlan, mac: entry.mac }
}

fn exists(kind: &str, name: &str) -> ApiError {
    ApiError::new(ErrorCode::Configuration, format!("{kind} \"{name}\" exists already"))
        .object(format!("{kind} \"{name}\""))
        .fix(format!("choose another name; or delete it first, `vswitchctl {kind} del {name}`"))
}

fn checked(config: Config) -> Result<Config, ApiError> {
    config.check()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::schema::{Null, Place, PortKind};

    fn config() -> Config {
        let text = "[[bridge]]\nname = \"blue\"\n[[port]]\nname = \"p1\"\nbridge = \"blue\"\ntype = \"null\"\n\
                    [[port]]\nname = \"p2\"\nbridge = \"blue\"\ntype = \"null\"\n\
                    [[fdb]]\nbridge = \"blue\"\nmac = \"02:00:00:00:00:01\"\nport = \"p1\"\n";
        Config::parse(text, "").unwrap()
    }

    fn port(name: &str, bridge: &str) -> Port {
        let kind = PortKind::Null(Null { rate: 0, size: 60 });
        Port::new(name.parse().unwrap(), bridge.parse().ok(), kind)
    }

    #[test]
    fn what_is_added_can_be_deleted_again() {
        let before = config();
        let after = add_port(&before, port("p3", "blue")).unwrap();
        assert_eq!(after.ports.len(), 3);
        assert_eq!(delete_port(&after, &"p3".parse().unwrap()).unwrap(), before);
        let after = add_bridge(&before, Bridge::new("red".parse().unwrap())).unwrap();
        assert_eq!(delete_bridge(&after, &"red".parse().unwrap()).unwrap(), before);
        let key = key_of(&before.fdb[0]);
        let after = delete_entry(&before, &key).unwrap();
        assert_eq!(add_entry(&after, before.fdb[0].clone()).unwrap(), before);
    }

    #[test]
    fn a_port_takes_its_entries_along() {
        let after = delete_port(&config(), &"p1".parse().unwrap()).unwrap();
        assert_eq!((after.ports.len(), after.fdb.len()), (1, 0));
    }

    #[test]
    fn refusals_name_the_object_and_what_to_do() {
        let config = config();
        let bridge: BridgeName = "blue".parse().unwrap();
        let entry = StaticEntry { place: Place::Port("p2".parse().unwrap()), ..config.fdb[0].clone() };
        let key = FdbKey { vlan: 7, ..key_of(&entry) };
        for (outcome, object, says) in [
            (add_port(&config, port("p1", "blue")), "port \"p1\"", "exists already"),
            (add_port(&config, port("p3", "bleu")), "port \"p3\"", "nearest is \"blue\""),
            (delete_port(&config, &"p3".parse().unwrap()), "port \"p3\"", "does not exist"),
            (add_bridge(&config, Bridge::new(bridge.clone())), "bridge \"blue\"", "exists already"),
            (delete_bridge(&config, &bridge), "bridge \"blue\"", "port \"p1\" and 1 more"),
            (delete_bridge(&config, &"red".parse().unwrap()), "bridge \"red\"", "does not exist"),
            (add_entry(&config, entry), "fdb entry 02:00:00:00:00:01", "port \"p1\""),
            (delete_entry(&config, &key), "fdb entry 02:00:00:00:00:01", "VLAN 7"),
        ] {
            let error = outcome.unwrap_err();
            assert_eq!(error.data.object, object, "{error}");
            assert!(error.to_string().contains(says), "{error}");
            let has_fix =
                error.data.fix.is_some() || error.data.errors.iter().any(|error| error.hint.is_some());
            assert!(has_fix, "{error}");
        }
    }
}
