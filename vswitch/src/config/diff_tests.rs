use super::*;
use control::schema::Bridge;
use proptest::collection::vec;
use proptest::prelude::*;

fn config(text: &str) -> Config {
    Config::parse(text, "test.toml").unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn shown(from: &str, to: &str) -> Vec<String> {
    diff(&config(from), &config(to)).unwrap().iter().map(Step::to_string).collect()
}

/// The order of a document's tables has no meaning.
fn sorted(mut config: Config) -> Config {
    config.bridges.sort_by(|a, b| a.name.cmp(&b.name));
    config.ports.sort_by(|a, b| a.name.cmp(&b.name));
    config.underlays.sort_by(|a, b| a.name.cmp(&b.name));
    config.tunnels.sort_by(|a, b| a.name.cmp(&b.name));
    config.fdb.sort_by_key(|entry| (entry.bridge.clone(), entry.vlan, entry.mac));
    config.neighbours.sort_by_key(|entry| (entry.bridge.clone(), entry.vlan, entry.ip));
    config
}

const TWO: &str = r#"
[[bridge]]
name = "blue"
[[port]]
name = "web1"
bridge = "blue"
type = "tap"
netns = "web1"
[[port]]
name = "up"
bridge = "blue"
type = "afxdp"
device = "eth1"
"#;

#[test]
fn what_each_key_costs() {
    let tap = |keys: &str| TWO.replace("netns = \"web1\"", &format!("netns = \"web1\"\n{keys}"));
    let one = |from: &str, to: &str| {
        let steps = shown(from, to);
        assert_eq!(steps.len(), 1, "{steps:?}");
        steps[0].clone()
    };
    for (keys, expected) in [
        ("vlan = 10", "change port \"web1\": vlan default -> 10"),
        (
            "isolated = true\nhairpin = true",
            "change port \"web1\": hairpin default -> true, isolated default -> true",
        ),
        ("address = [\"10.0.0.1/24\"]", "change port \"web1\": address default -> [\"10.0.0.1/24\"]"),
        ("workers = [0]", "change port \"web1\": workers default -> [0]"),
        ("mtu = 9000", "reopen port \"web1\": mtu default -> 9000"),
        ("mtu = 9000\nvlan = 3", "reopen port \"web1\": mtu default -> 9000, vlan default -> 3"),
    ] {
        assert_eq!(one(TWO, &tap(keys)), expected);
        assert!(one(&tap(keys), TWO).ends_with(" -> default") || keys.contains('\n'));
    }
    assert_eq!(one(&tap("mtu = 1400"), &tap("mtu = 9000")), "reopen port \"web1\": mtu 1400 -> 9000");
    let same = TWO.replace("netns = \"web1\"", "netns = \"/var/run/netns/web1\"");
    assert!(one(TWO, &same).starts_with("reopen port \"web1\": netns"));
    let again =
        ["delete port \"web1\" to make it again: ifname default -> \"eth9\"", "add port \"web1\" again"];
    assert_eq!(shown(TWO, &tap("ifname = \"eth9\"")), again);
    // A TAP for several queues serves with any number of them, one for a single queue does not.
    assert_eq!(one(&tap("queues = 2"), &tap("queues = 3")), "reopen port \"web1\": queues 2 -> 3");
    assert_eq!(one(&tap("queues = 2"), &tap("queues = 1")), "reopen port \"web1\": queues 2 -> default");
    let again = ["delete port \"web1\" to make it again: queues default -> 2", "add port \"web1\" again"];
    assert_eq!(shown(&tap("queues = 1"), &tap("queues = 2")), again);
    let up = TWO.replace("device = \"eth1\"", "device = \"eth1\"\nqueues = 1");
    assert_eq!(one(TWO, &up), "reopen port \"up\": queues default -> 1");
}

#[test]
fn ports_come_after_their_bridge_and_go_before_it() {
    let empty = "";
    let entry = "[[fdb]]\nbridge = \"blue\"\nmac = \"02:00:00:00:00:01\"\nport = \"web1\"\n";
    let full = format!("{TWO}{entry}");
    assert_eq!(
        shown(empty, &full),
        [
            "add bridge \"blue\"",
            "add port \"web1\" (tap) to bridge \"blue\"",
            "add port \"up\" (afxdp) to bridge \"blue\"",
            "add fdb entry 02:00:00:00:00:01 in bridge \"blue\" to port \"web1\"",
        ]
    );
    assert_eq!(
        shown(&full, empty),
        [
            "delete fdb entry 02:00:00:00:00:01 in bridge \"blue\" to port \"web1\"",
            "delete port \"web1\"",
            "delete port \"up\"",
            "delete bridge \"blue\"",
        ]
    );
    // A port that moves takes its entries along, and its old bridge goes when nobody is in it.
    let moved = full.replace("blue", "red");
    assert_eq!(
        shown(&full, &moved),
        [
            "delete fdb entry 02:00:00:00:00:01 in bridge \"blue\" to port \"web1\"",
            "add bridge \"red\"",
            "reopen port \"web1\": bridge \"blue\" -> \"red\"",
            "reopen port \"up\": bridge \"blue\" -> \"red\"",
            "delete bridge \"blue\"",
            "add fdb entry 02:00:00:00:00:01 in bridge \"red\" to port \"web1\"",
        ]
    );
    let ageing = TWO.replace("name = \"blue\"", "name = \"blue\"\nageing_s = 60");
    assert_eq!(shown(TWO, &ageing), ["change bridge \"blue\": ageing_s default -> 60"]);
}

const OVERLAY: &str = r#"
[[bridge]]
name = "blue"
vni = 5
[[port]]
name = "up"
type = "afxdp"
device = "eth1"
[[underlay]]
name = "core"
port = "up"
[[tunnel]]
name = "dc1"
type = "vxlan"
underlay = "core"
remote = ["192.0.2.2"]
[[fdb]]
bridge = "blue"
mac = "02:00:00:00:00:01"
tunnel = "dc1"
remote = "192.0.2.2"
[[neighbour]]
bridge = "blue"
vlan = 7
ip = "10.0.0.1"
mac = "02:00:00:00:00:01"
"#;

#[test]
fn overlays_come_and_go_in_the_order_in_which_they_stand_on_each_other() {
    assert_eq!(
        shown("", OVERLAY),
        [
            "add bridge \"blue\"",
            "add port \"up\" (afxdp)",
            "add underlay \"core\" on port \"up\"",
            "add tunnel \"dc1\" (vxlan) over underlay \"core\"",
            "add fdb entry 02:00:00:00:00:01 in bridge \"blue\" to 192.0.2.2 of tunnel \"dc1\"",
            "add neighbour 10.0.0.1 in bridge \"blue\" vlan 7 at 02:00:00:00:00:01",
        ]
    );
    assert_eq!(
        shown(OVERLAY, ""),
        [
            "delete fdb entry 02:00:00:00:00:01 in bridge \"blue\" to 192.0.2.2 of tunnel \"dc1\"",
            "delete neighbour 10.0.0.1 in bridge \"blue\" vlan 7 at 02:00:00:00:00:01",
            "delete tunnel \"dc1\"",
            "delete underlay \"core\"",
            "delete port \"up\"",
            "delete bridge \"blue\"",
        ]
    );
    let bent = |from: &str, to: &str| shown(OVERLAY, &OVERLAY.replacen(from, to, 1));
    let own = "port = \"up\"\nshare = false\naddress = \"192.0.2.1/24\"";
    assert_eq!(
        bent("port = \"up\"", own),
        [
            // The host's kernel gives its device away.
            "reopen port \"up\": for its underlay",
            "change underlay \"core\": address default -> [\"192.0.2.1/24\"], share default -> false"
        ]
    );
    assert_eq!(
        bent("type = \"vxlan\"", "type = \"vxlan\"\nttl = 9"),
        ["change tunnel \"dc1\": ttl default -> 9"]
    );
    // What is bound to a remote is bound again when the remotes are others.
    let steps = bent("[\"192.0.2.2\"]", "[\"192.0.2.2\", \"192.0.2.3\"]");
    let remotes = "change tunnel \"dc1\": remote [\"192.0.2.2\"] -> [\"192.0.2.2\",\"192.0.2.3\"]";
    assert_eq!((steps.len(), steps[1].as_str()), (3, remotes));
    // Another device: whatever stands on the port is made again.
    let steps = bent("eth1", "eth2");
    let (gone, come) = steps.split_at(4);
    assert!(gone.iter().all(|step| step.starts_with("delete ")), "{steps:?}");
    assert!(come.iter().all(|step| step.starts_with("add ")), "{steps:?}");
    assert_eq!(come.len(), 4);
}

#[test]
fn what_is_fixed_is_named_with_all_its_keys() {
    let other = format!("[switch]\nworkers = [0, 1]\nhuge_pages = \"off\"\n[limits]\nfdb = 100\n{TWO}");
    let error = diff(&config(TWO), &config(&other)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the running switch cannot change `[switch] workers` from \"auto\" to [0, 1], \
         `[switch] huge_pages` from \"auto\" to \"off\", `[limits] fdb` from 131072 to 100: restart it for that"
    );
    let error = ApiError::from(error);
    assert_eq!((error.code, error.data.object.as_str()), (ErrorCode::Configuration, "[switch] workers"));
    assert!(error.data.fix.unwrap().contains("restart vswitchd"));
}

/// Configurations out of few names, so that two of them have much in common and much to quarrel over.
fn small() -> impl Strategy<Value = Config> {
    let keys = prop_oneof![
        Just(""),
        Just("ageing_s = 9\n"),
        Just("vni = 5\n"),
        Just("vni = 6\ntunnels = [\"t0\"]\n"),
        Just("vlan_vni = {10 = 5, 11 = 7}\n"),
    ];
    let bridge = (0..3, keys).prop_map(|(name, keys)| format!("[[bridge]]\nname = \"b{name}\"\n{keys}"));
    let kind = prop_oneof![
        (0..2, 0..2, 0..2).prop_map(|(netns, ifname, mtu)| {
            format!("type = \"tap\"\nnetns = \"n{netns}\"\nifname = \"e{ifname}\"\nmtu = {}\n", 1500 + mtu)
        }),
        (0..2, prop_oneof![Just("afxdp"), Just("packet")]).prop_map(|(netns, driver)| format!(
            "type = \"veth\"\nnetns = \"n{netns}\"\ndriver = \"{driver}\"\n"
        )),
        (0..2, prop_oneof![Just("afxdp"), Just("packet")])
            .prop_map(|(device, kind)| format!("type = \"{kind}\"\ndevice = \"d{device}\"\n")),
        (0..2).prop_map(|file| format!("type = \"pcap\"\nwrite = \"/f{file}\"\n")),
        (0..2).prop_map(|rate| format!("type = \"null\"\nrate = {rate}\n")),
    ];
    let keys = prop_oneof![
        3 => Just(""),
        1 => Just("vlan = 10\n"),
        1 => Just("trunk = [10, 11]\nisolated = true\n"),
        1 => Just("queues = 2\n"),
    ];
    let port = (0..5, 0..3, kind, keys).prop_map(|(name, bridge, kind, keys)| {
        format!("[[port]]\nname = \"p{name}\"\nbridge = \"b{bridge}\"\n{kind}{keys}")
    });
    let entry = (0..3, 0..2, 0..3, 0..5).prop_map(|(bridge, vlan, mac, port)| {
        format!(
            "[[fdb]]\nbridge = \"b{bridge}\"\nvlan = {}\nmac = \"02:00:00:00:00:0{mac}\"\nport = \"p{port}\"\n",
            vlan * 10
        )
    });
    let far = (0..3, 0..2, 0..3, 0..3, 2..4).prop_map(|(bridge, vlan, mac, tunnel, remote)| {
        format!(
            "[[fdb]]\nbridge = \"b{bridge}\"\nvlan = {}\nmac = \"02:00:00:00:00:0{mac}\"\n\
             tunnel = \"t{tunnel}\"\nremote = \"10.0.0.{remote}\"\n",
            vlan * 10
        )
    });
    let neighbour = (0..3, 0..2, 1..3).prop_map(|(bridge, ip, mac)| {
        format!(
            "[[neighbour]]\nbridge = \"b{bridge}\"\nip = \"10.0.0.{}\"\nmac = \"02:00:00:00:00:0{mac}\"\n",
            ip + 1
        )
    });
    let keys = prop_oneof![Just(""), Just("share = false\naddress = \"10.0.0.1/24\"\n"), Just("vlan = 7\n")];
    let uplink = (0..2, 0..5, 0..2, keys).prop_map(|(name, port, device, keys)| {
        format!(
            "[[port]]\nname = \"p{port}\"\ntype = \"afxdp\"\ndevice = \"d{device}\"\n\
             [[underlay]]\nname = \"u{name}\"\nport = \"p{port}\"\n{keys}"
        )
    });
    let keys = prop_oneof![Just(""), Just("vnis = [5]\n"), Just("vnis = [6, 7]\n"), Just("ttl = 9\n")];
    let kind = prop_oneof![Just("vxlan"), Just("geneve"), Just("nvgre")];
    let tunnel = (0..3, kind, 0..2, prop_oneof![Just("2"), Just("3"), Just("2\", \"10.0.0.3")], keys)
        .prop_map(|(name, kind, underlay, remote, keys)| {
            format!(
                "[[tunnel]]\nname = \"t{name}\"\ntype = \"{kind}\"\nunderlay = \"u{underlay}\"\n\
                 remote = [\"10.0.0.{remote}\"]\n{keys}"
            )
        });
    let (uplinks, tunnels, bridges) = (vec(uplink, 0..3), vec(tunnel, 0..4), vec(bridge, 0..4));
    let (ports, entries) = (vec(port, 0..6), vec(prop_oneof![entry, far], 0..8));
    let below = (uplinks, tunnels).prop_map(|(uplinks, tunnels)| [uplinks, tunnels].concat());
    let tables = (below, bridges, ports, entries, vec(neighbour, 0..3));
    tables.prop_map(|(below, bridges, ports, entries, neighbours)| {
        // What does not fit to what is there already is left out.
        let mut text = String::new();
        for table in [below, bridges, ports, entries, neighbours].concat() {
            let longer = format!("{text}{table}");
            if Config::parse(&longer, "").is_ok() {
                text = longer;
            }
        }
        config(&text)
    })
}

/// What every object stands on is there.
fn assert_sound(config: &Config, after: &Step) {
    for port in &config.ports {
        let bridge = port.bridge.as_ref();
        assert!(
            bridge.is_none_or(|bridge| config.bridge(bridge.as_str()).is_some()),
            "after {after}: {port:?}"
        );
    }
    for underlay in &config.underlays {
        let port = config.port(underlay.port.as_str());
        assert!(port.is_some_and(|port| port.bridge.is_none()), "after {after}: {underlay:?}");
    }
    for tunnel in &config.tunnels {
        assert!(config.underlay(tunnel.underlay.as_str()).is_some(), "after {after}: {tunnel:?}");
    }
    for entry in &config.fdb {
        let there = match &entry.place {
            Place::Port(port) => {
                config.port(port.as_str()).is_some_and(|port| port.bridge.as_ref() == Some(&entry.bridge))
            }
            Place::Remote { tunnel, remote } => {
                let vni = config.bridge(entry.bridge.as_str()).and_then(|bridge| bridge.vni_of(entry.vlan));
                let tunnel = config.tunnel(tunnel.as_str());
                let carries = |tunnel: &Tunnel| {
                    tunnel.remotes.contains(remote) && vni.is_some_and(|vni| tunnel.vnis.contains(vni))
                };
                tunnel.is_some_and(carries)
            }
        };
        assert!(there, "after {after}: {entry:?}");
    }
    for neighbour in &config.neighbours {
        assert!(config.bridge(neighbour.bridge.as_str()).is_some(), "after {after}: {neighbour:?}");
    }
    // Without overlays it is valid in everything.
    let mut plain = config.clone();
    plain.underlays.clear();
    plain.tunnels.clear();
    plain.fdb.retain(|entry| entry.place.port().is_some());
    for bridge in &mut plain.bridges {
        (bridge.vni, bridge.tunnels) = (None, None);
        bridge.vlan_vni.clear();
    }
    plain.bridges.push(Bridge::new("uplinks".parse().unwrap()));
    for port in &mut plain.ports {
        port.bridge.get_or_insert("uplinks".parse().unwrap());
    }
    assert_eq!(plain.check(), Ok(()), "after {after}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_steps_lead_from_one_to_the_other_and_back(from in small(), to in small()) {
        let steps = diff(&from, &to).unwrap();
        let mut reached = from.clone();
        for step in &steps {
            step.patch(&mut reached);
            assert_sound(&reached, step);
            prop_assert!(!step.to_string().contains('\n'));
        }
        prop_assert_eq!(sorted(reached.clone()), sorted(to.clone()));
        prop_assert_eq!(diff(&reached, &to), Ok(vec![]));
        for step in steps.iter().rev() {
            step.inverse().patch(&mut reached);
            assert_sound(&reached, &step.inverse());
        }
        prop_assert_eq!(sorted(reached), sorted(from));
    }

    #[test]
    fn nothing_is_done_for_nothing(config in small()) {
        prop_assert_eq!(diff(&config, &config), Ok(vec![]));
        let mut shuffled = config.clone();
        shuffled.ports.reverse();
        shuffled.fdb.reverse();
        shuffled.bridges.reverse();
        shuffled.underlays.reverse();
        shuffled.tunnels.reverse();
        shuffled.neighbours.reverse();
        prop_assert_eq!(diff(&config, &shuffled), Ok(vec![]));
    }

    /// A port that needs no other device keeps the one it has, and an untouched port is not touched.
    #[test]
    fn no_step_is_larger_than_its_reason(now in small(), wanted in small()) {
        for step in diff(&now, &wanted).unwrap() {
            match step {
                Step::DeletePort { port, again } => {
                    let new = wanted.port(port.name.as_str());
                    prop_assert_eq!(again.as_deref(), new);
                    let device = |port: &Port| (port.kind.type_name(), port.kind.interface().map(|(netns, name)| {
                        (netns.map(|netns| netns.path()), name.clone())
                    }));
                    if let Some(new) = new && port.kind.interface().is_some() {
                        let more_queues = port.kind.type_name() == "tap" && port.queues.is_none() && new.queues.is_some();
                        prop_assert!(more_queues || device(&port) != device(new));
                    }
                }
                Step::ChangePort { from, to } => {
                    prop_assert!(from != to && from.bridge == to.bridge && from.queues == to.queues);
                }
                Step::ReopenPort { from, to } => {
                    prop_assert!(from != to || is_shared(&now, &from) != is_shared(&wanted, &to));
                }
                Step::ChangeUnderlay { from, to } => prop_assert!(from != to && from.port == to.port),
                Step::ChangeTunnel { from, to } => {
                    prop_assert!(from != to && from.kind == to.kind && from.underlay == to.underlay);
                }
                Step::DeleteTunnel(from) => {
                    if let (Some(new), true) = (wanted.tunnel(from.name.as_str()), wanted.underlays == now.underlays) {
                        let moved = from.kind != new.kind || from.underlay != new.underlay;
                        prop_assert!(moved || wanted.ports != now.ports);
                    }
                }
                _ => {}
            }
        }
    }
}
