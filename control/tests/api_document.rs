//! API.md and the types say the same: every method, every parameter, every member of a result.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use control::MacAddress;
use control::api::*;
use control::schema::*;
use serde::Serialize;
use serde_json::{Value, json};

const DOCUMENT: &str = include_str!("../API.md");

/// The part of the document under the heading of a method.
fn part(method: &str) -> &'static str {
    let heading = format!("\n### `{method}`\n");
    let start = DOCUMENT.find(&heading).unwrap_or_else(|| panic!("API.md has no heading for `{method}`"));
    let body = &DOCUMENT[start + heading.len()..];
    &body[..body.find("\n### ").unwrap_or(body.len())]
}

/// Every key of a JSON value, at any depth.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found.insert(key.clone());
                keys(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

/// Asserts that the part of a method (or the parts that it refers to) names every key of a sample.
#[track_caller]
fn assert_documented(parts: &[&str], sample: impl Serialize) {
    let text: String = parts.iter().map(|method| part(method)).collect();
    let mut found = BTreeSet::new();
    keys(&serde_json::to_value(sample).unwrap(), &mut found);
    assert!(!found.is_empty());
    for key in found {
        let named = text.contains(&format!("`{key}`")) || text.contains(&format!("`{key}?`"));
        assert!(named, "API.md does not name `{key}` under {parts:?}");
    }
}

#[test]
fn every_method_is_documented_and_no_other() {
    let headings: BTreeSet<&str> =
        DOCUMENT.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    assert_eq!(headings, METHODS.iter().copied().collect());
}

fn port_row() -> PortRow {
    PortRow {
        name: "web1".parse().unwrap(),
        port_type: "tap".to_owned(),
        bridge: "blue".parse().ok(),
        vlan: "transparent".to_owned(),
        state: UpDown::Up,
        reason: None,
        link: UpDown::Up,
        mode: None,
        mtu: 1500,
        mac: None,
        queues: 1,
        rx_frames: 0,
        rx_bytes: 0,
        tx_frames: 0,
        tx_bytes: 0,
        drops: 0,
        missed: 0,
        connected: None,
        ring: None,
        queues_enabled: None,
        features: None,
        resets: None,
    }
}

fn port() -> Port {
    let kind = PortKind::Null(Null { rate: 0, size: 60 });
    Port::new("web1".parse().unwrap(), "blue".parse().ok(), kind)
}

#[test]
fn the_field_names_that_programs_rely_on() {
    let row = serde_json::to_value(port_row()).unwrap();
    for key in [
        "name",
        "type",
        "bridge",
        "state",
        "reason",
        "link",
        "mode",
        "mtu",
        "mac",
        "queues",
        "rx_frames",
        "rx_bytes",
        "tx_frames",
        "tx_bytes",
        "connected",
        "ring",
        "queues_enabled",
        "features",
        "resets",
        "drops",
    ] {
        assert!(row.get(key).is_some(), "{key}");
    }
    assert_eq!((&row["state"], &row["type"], &row["reason"]), (&json!("up"), &json!("tap"), &Value::Null));
}

#[test]
fn members_of_the_switch() {
    let status = Status {
        version: String::new(),
        uptime_s: 0,
        config: ConfigSource::Stored,
        config_file: None,
        edited: false,
        page_size: 4096,
        frames: 0,
        frames_free: 0,
        generation: 0,
        rss_bytes: 0,
        workers: 1,
        ports: 0,
        bridges: 0,
        received: 0,
        made: 0,
        sent: 0,
        dropped: 0,
        consumed: 0,
        held: 0,
    };
    assert_eq!(serde_json::to_value(&status).unwrap()["config"], "stored");
    assert_documented(&["status"], status);
    assert_documented(&["apply"], Apply { config: String::new(), file: String::new(), dry_run: false });
    assert_documented(&["apply"], Applied { changed: false, steps: vec![] });
    assert_documented(&["diff"], Diff { config: String::new(), file: String::new() });
    assert_documented(&["export"], Exported { config: String::new() });
    assert_documented(&["rollback"], Rollback { dry_run: true });
}

#[test]
fn members_of_ports() {
    assert_documented(&["port.list"], PortList { bridge: Some("blue".parse().unwrap()) });
    assert_documented(&["port.list"], port_row());
    assert_documented(&["port.show"], PortShow { name: "web1".parse().unwrap() });
    let detail = PortDetail {
        row: port_row(),
        config: port(),
        offloads: vec![],
        placement: vec![QueuePlacement { queue: 0, worker: 0, cpu: 0 }],
        drop_reasons: vec![DropCount { reason: "x".to_owned(), frames: 1 }],
    };
    let json = serde_json::to_string(&detail).unwrap();
    assert_eq!(serde_json::from_str::<PortDetail>(&json).unwrap(), detail, "the flattened row reads back");
    assert_documented(&["port.show", "port.list"], detail);
    // The keys of the port itself are those of the configuration.
    assert!(part("port.add").contains("Parameter `port`") && part("port.add").contains("`[[port]]`"));
    assert_documented(&["port.del"], PortDel { name: "web1".parse().unwrap() });
}

#[test]
fn members_of_bridges_and_their_tables() {
    let row = BridgeRow {
        name: "blue".parse().unwrap(),
        ports: 1,
        fdb_entries: 0,
        fdb_limit: None,
        ageing_s: 300,
        flood_unknown: true,
        flood_broadcast: true,
        flood_multicast: true,
    };
    assert_documented(&["bridge.list"], &row);
    assert_documented(
        &["bridge.show", "bridge.list"],
        BridgeDetail { row, port_names: vec![], config: Bridge::new("blue".parse().unwrap()) },
    );
    let key = FdbKey { bridge: "blue".parse().unwrap(), vlan: 0, mac: MacAddress::default() };
    let request = FdbList {
        bridge: Some("blue".parse().unwrap()),
        port: Some("web1".parse().unwrap()),
        tunnel: Some("dc1".parse().unwrap()),
        remote: Some(IpAddr::from([192, 0, 2, 2])),
        vlan: Some(1),
        mac: Some(MacAddress::default()),
        after: Some(key.clone()),
    };
    assert_documented(&["fdb.list"], request);
    let row = FdbRow {
        bridge: "blue".parse().unwrap(),
        vlan: 0,
        mac: MacAddress::default(),
        port: "web1".parse().ok(),
        tunnel: None,
        remote: None,
        kind: FdbKind::Learned,
        origin: None,
        age_s: 0,
    };
    assert_eq!(serde_json::to_value(&row).unwrap()["kind"], "learned");
    assert_documented(&["fdb.list"], FdbPage { entries: vec![row], next: Some(key.clone()) });
    assert_documented(&["fdb.del"], FdbDel { entry: key });
    let flush = FdbFlush {
        bridge: Some("blue".parse().unwrap()),
        port: Some("web1".parse().unwrap()),
        vlan: Some(1),
    };
    assert_documented(&["fdb.flush"], flush);
    assert_documented(&["fdb.flush"], Flushed { removed: 0 });
}

#[test]
fn members_of_overlays() {
    let remote = RemoteRow {
        address: IpAddr::from([192, 0, 2, 2]),
        state: UpDown::Up,
        reason: None,
        mtu: Some(1500),
        mac: None,
        bfd: Some(BfdRow { state: "up".to_owned(), sent: 1, received: 1, refused: 0, downs: 0 }),
        rx_frames: 0,
        tx_frames: 0,
        drops: 0,
    };
    let row = TunnelRow {
        name: "dc1".parse().unwrap(),
        tunnel_type: "vxlan".to_owned(),
        underlay: "core".parse().unwrap(),
        state: UpDown::Up,
        reason: None,
        local: None,
        remotes: vec![remote],
    };
    assert_documented(&["tunnel.list"], &row);
    let name = || "dc1".parse::<TunnelName>().unwrap();
    let vni = VniRow {
        vni: Vni::new(5001).unwrap(),
        bridge: "blue".parse().unwrap(),
        vlan: None,
        mtu: None,
        flood: vec![],
        rx_frames: 1,
        rx_bytes: 2,
        tx_frames: 3,
        tx_bytes: 4,
    };
    let detail = TunnelDetail {
        row,
        config: Tunnel::new(name(), TunnelKind::Vxlan, "core".parse().unwrap()),
        port: "up".parse().unwrap(),
        vnis: vec![vni],
        drop_reasons: vec![DropCount { reason: "x".to_owned(), frames: 1 }],
    };
    let json = serde_json::to_string(&detail).unwrap();
    assert_eq!(serde_json::from_str::<TunnelDetail>(&json).unwrap(), detail, "the flattened row reads back");
    assert_documented(&["tunnel.show", "tunnel.list"], detail);
    assert_documented(&["tunnel.show"], TunnelShow { name: name() });
    let remote = IpAddr::from([192, 0, 2, 2]);
    assert_documented(&["tunnel.ping"], TunnelPing { name: name(), remote: Some(remote) });
    let answer = Pinged { address: remote, round_trip_ms: Some(1.0), mtu: None, reason: None };
    assert_documented(&["tunnel.ping"], answer);
    let row = NeighbourRow {
        bridge: "blue".parse().unwrap(),
        vlan: 0,
        ip: remote,
        mac: MacAddress::default(),
        port: None,
        tunnel: None,
        remote: None,
        origin: NeighbourOrigin::Arp,
        age_s: 0,
    };
    let request = NeighbourList {
        bridge: Some("blue".parse().unwrap()),
        vlan: Some(0),
        ip: Some(remote),
        mac: Some(MacAddress::default()),
        after: Some(row.key()),
    };
    assert_documented(&["neighbour.list"], request);
    let next = Some(row.key());
    assert_documented(&["neighbour.list"], NeighbourPage { entries: vec![row], next });
    assert_documented(&["events"], Events { after: Some(1) });
    let event = Event { number: 1, time: String::new(), kind: String::new(), objects: vec![] };
    assert_documented(&["events"], event);
    let place = Place::Remote { tunnel: name(), remote };
    let (bridge, mac) = ("blue".parse().unwrap(), MacAddress::new([2, 0, 0, 0, 0, 1]));
    let entry = FdbEntry { bridge, vlan: VlanId::new(1).ok(), mac, place, ip: Some(remote) };
    let load = FdbLoad { origin: "cni".parse().unwrap(), replace: true, entries: vec![entry] };
    assert_documented(&["fdb.load"], load);
    assert_documented(&["fdb.load"], FdbLoaded { changed: 1, unchanged: 1, removed: 1 });
}

#[test]
fn members_of_traffic_and_trace() {
    let request = FlowList { port: Some("web1".parse().unwrap()), worker: Some(0), limit: Some(1) };
    assert_documented(&["flow.list"], request);
    let flow =
        FlowRow { worker: 0, port: "web1".parse().unwrap(), key: String::new(), actions: String::new() };
    assert_documented(&["flow.list"], FlowPage { flows: vec![flow], total: 1 });
    let worker = WorkerRow {
        worker: 0,
        cpu: 0,
        frames: 0,
        busy_cycles: 0,
        idle_cycles: 0,
        cycles_per_frame: 0.0,
        sleeping: true,
        queues: vec![],
    };
    assert_documented(&["worker.list"], worker);
    assert_documented(&["worker.rebalance"], WorkerRebalance { dry_run: true });
    let one_move = QueueMove { port: "web1".parse().unwrap(), queue: 0, from: 0, to: 1 };
    assert_documented(
        &["worker.rebalance"],
        Rebalanced { moves: vec![one_move], before: vec![], after: vec![] },
    );
    assert_documented(&["drops.list"], DropsList { port: Some("web1".parse().unwrap()) });
    let drop = DropRow {
        port: "web1".parse().unwrap(),
        reason: String::new(),
        frames: 0,
        description: String::new(),
    };
    assert_documented(&["drops.list"], drop);
    let trace =
        Trace { port: "web1".parse().unwrap(), notation: Some(String::new()), hex: Some(String::new()) };
    assert_documented(&["trace"], trace);
    let traced = Traced {
        stages: vec![TraceStage { name: String::new(), read: String::new(), decided: String::new() }],
        key: String::new(),
        mask: String::new(),
        cached: false,
        verdict: Verdict::Forward,
        reason: None,
        outputs: vec![TraceOutput { port: "web1".parse().unwrap(), frame_hex: String::new() }],
    };
    assert_documented(&["trace"], traced);
}

#[test]
fn every_error_code_and_bound_is_documented() {
    for code in [
        ErrorCode::Parse,
        ErrorCode::InvalidRequest,
        ErrorCode::UnknownMethod,
        ErrorCode::InvalidParams,
        ErrorCode::Internal,
        ErrorCode::Configuration,
        ErrorCode::NotFound,
        ErrorCode::System,
        ErrorCode::Limit,
        ErrorCode::Denied,
        ErrorCode::Busy,
    ] {
        let row = format!("\n| {} | ", i64::from(code));
        assert!(DOCUMENT.contains(&row), "API.md has no row for {code:?}");
    }
    assert_eq!((MAX_REQUEST_BYTES >> 20, MAX_RESPONSE_BYTES >> 20, MAX_DEPTH), (16, 64, 32));
    for bound in ["at most 16 MiB and 32 levels", "at most 64 MiB", "at most 2 MiB"] {
        assert!(DOCUMENT.contains(bound), "{bound}");
    }
    assert_eq!(Config::MAX_BYTES >> 20, 2);
}
