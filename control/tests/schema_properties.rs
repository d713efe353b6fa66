//! Properties of the schema: what is written reads back, and no text is too strange to be refused.
#![allow(clippy::unwrap_used)]

use control::MacAddress;
use control::schema::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::IpAddr;

fn vlan_id() -> impl Strategy<Value = VlanId> {
    (1u16..=4094).prop_map(|id| VlanId::new(id).unwrap())
}

fn vlan_mode() -> impl Strategy<Value = VlanMode> {
    let set = vec((vlan_id(), vlan_id()), 1..5).prop_map(|ranges| {
        let mut set = VlanSet::default();
        ranges.into_iter().for_each(|(a, b)| set.insert(a, b));
        set
    });
    let set = prop_oneof![1 => Just(VlanSet::all()), 4 => set];
    prop_oneof![
        Just(VlanMode::Transparent),
        vlan_id().prop_map(VlanMode::Access),
        (set, option::of(vlan_id())).prop_map(|(vlans, native)| VlanMode::Trunk { vlans, native }),
    ]
}

fn mac() -> impl Strategy<Value = MacAddress> {
    any::<[u8; 6]>().prop_map(|mut octets| {
        octets[0] = (octets[0] & 0xfe) | 2;
        MacAddress::new(octets)
    })
}

fn prefixes() -> impl Strategy<Value = Vec<IpPrefix>> {
    let v4 = (any::<[u8; 4]>(), 0u8..=32)
        .prop_map(|(ip, length)| IpPrefix::new(IpAddr::from(ip), length).unwrap());
    let v6 = (any::<[u8; 16]>(), 0u8..=128)
        .prop_map(|(ip, length)| IpPrefix::new(IpAddr::from(ip), length).unwrap());
    (option::of(v4), option::of(v6)).prop_map(|(v4, v6)| v4.into_iter().chain(v6).collect())
}

/// An endpoint whose interface no other port has: `index` is in its namespace's name.
fn endpoint(index: usize) -> impl Strategy<Value = Endpoint> {
    let path = Just(format!("/proc/{index}/ns/net"));
    let netns = prop_oneof![Just(format!("net{index}")), path];
    let ifname = prop_oneof![Just("eth0".to_owned()), "[a-z]{1,10}"];
    (netns, ifname, option::of(mac()), option::of(1280u16..), prefixes(), any::<bool>()).prop_map(
        |(netns, ifname, mac, mtu, addresses, gateway)| Endpoint {
            netns: Some(netns.parse().unwrap()),
            ifname: InterfaceName::new(&ifname).unwrap(),
            mac,
            mtu,
            gateways: addresses.iter().filter(|_| gateway).map(IpPrefix::address).collect(),
            addresses,
        },
    )
}

fn kind(index: usize) -> impl Strategy<Value = PortKind> {
    let device = InterfaceName::new(&format!("dev{index}")).unwrap();
    let netns = option::of(Just("away".parse::<Netns>().unwrap()));
    let driver = prop_oneof![Just(VethDriver::Packet), Just(VethDriver::Afxdp)];
    let mode = prop_oneof![Just(XdpMode::Auto), Just(XdpMode::ZeroCopy), Just(XdpMode::Copy)];
    let strange_path = "[ -~é\n\"'\\\\]{1,20}";
    prop_oneof![
        endpoint(index).prop_map(|endpoint| PortKind::Tap(Tap { endpoint })),
        (endpoint(index), driver).prop_map(|(endpoint, driver)| PortKind::Veth(Veth { endpoint, driver })),
        (Just(device.clone()), netns.clone(), mode, any::<bool>()).prop_map(
            |(device, netns, mode, exclusive)| { PortKind::Afxdp(Afxdp { device, netns, mode, exclusive }) }
        ),
        (Just(device), netns, any::<bool>())
            .prop_map(|(device, netns, exclusive)| PortKind::Packet(Packet { device, netns, exclusive })),
        (strange_path, option::of(Just(format!("/tmp/{index}.pcap"))), any::<bool>()).prop_map(
            |(read, write, repeat)| {
                PortKind::Pcap(Pcap { read: Some(read.into()), write: write.map(Into::into), repeat })
            }
        ),
        (0u64..=1_000_000_000, 60u16..=9018).prop_map(|(rate, size)| PortKind::Null(Null { rate, size })),
        (any::<(bool, bool, bool)>(), option::of(mac()), 68u16.., 0u16..0o1000, option::of("[ -~]{1,9}"))
            .prop_map(move |((client, offloads, packed), mac, mtu, bits, group)| {
                let plain = VhostUser::new(format!("/run/{index} é.sock"));
                let plain = VhostUser { mac, mtu, offloads, packed, ..plain };
                PortKind::VhostUser(if client {
                    VhostUser { mode: SocketMode::Client, ..plain }
                } else {
                    let socket_mode = format!("{bits:04o}").parse().unwrap();
                    VhostUser { socket_mode, socket_group: group, ..plain }
                })
            }),
    ]
}

fn port(index: usize, bridges: usize) -> impl Strategy<Value = Port> {
    (
        "[!#-.0-Z^-~]{0,50}",
        0..bridges,
        vlan_mode(),
        any::<(bool, bool)>(),
        option::of(0u32..=16_777_216),
        any::<Option<u16>>(),
        option::of(2u16..=64),
        vec(0u16..2, 0..3),
        kind(index),
    )
        .prop_map(
            move |(
                name,
                bridge,
                vlan,
                (isolated, hairpin),
                fdb_limit,
                policy_group,
                queues,
                workers,
                kind,
            )| {
                let queues = queues.filter(|queues| *queues <= 8 || !matches!(kind, PortKind::VhostUser(_)));
                Port {
                    name: PortName::new(&format!("p{index}{name}")).unwrap(),
                    bridge: Some(bridge_name(bridge)),
                    vlan,
                    isolated,
                    hairpin,
                    fdb_limit,
                    policy_group,
                    queues,
                    workers,
                    kind,
                }
            },
        )
}

fn bridge_name(index: usize) -> BridgeName {
    BridgeName::new(&format!("bridge{index}")).unwrap()
}

fn bridges() -> impl Strategy<Value = Vec<Bridge>> {
    let settings = (0u32..=1_000_000, option::of(0u32..=16_777_216), any::<[bool; 3]>());
    let bridge = settings.prop_map(|(ageing_s, fdb_limit, flood)| Bridge {
        name: bridge_name(0),
        ageing_s,
        fdb_limit,
        flood_unknown: flood[0],
        flood_broadcast: flood[1],
        flood_multicast: flood[2],
        ..Bridge::new(bridge_name(0))
    });
    vec(bridge, 1..4).prop_map(|mut bridges| {
        for (index, bridge) in bridges.iter_mut().enumerate() {
            bridge.name = bridge_name(index);
        }
        bridges
    })
}

fn switch() -> impl Strategy<Value = Switch> {
    let cpus = vec(0u16..8192, 2..5).prop_map(WorkerPlacement::Cpus);
    let workers = prop_oneof![Just(WorkerPlacement::Auto), cpus];
    let huge_pages = prop_oneof![Just(HugePages::Auto), Just(HugePages::On), Just(HugePages::Off)];
    (workers, huge_pages).prop_map(|(workers, huge_pages)| Switch { workers, huge_pages })
}

fn limits() -> impl Strategy<Value = Limits> {
    let tables = (64u32..=16_777_216, 16u32..=16_777_216, 16u32..=16_777_216);
    (256u32..=4_194_304, tables, 100u32..=60_000, 40u32..=5_535).prop_map(
        |(frames, (flows, fdb, neighbours), ports, remotes)| Limits {
            frames,
            flows,
            fdb,
            ports,
            remotes,
            neighbours,
        },
    )
}

/// Static entries for some of the ports, in a VLAN that the port carries.
fn fdb(ports: &[Port]) -> Vec<StaticEntry> {
    let entry = |(index, port): (usize, &Port)| StaticEntry {
        bridge: port.bridge.clone().unwrap(),
        vlan: match &port.vlan {
            VlanMode::Transparent => None,
            VlanMode::Access(vlan) => Some(*vlan),
            VlanMode::Trunk { vlans, .. } => vlans.iter().next(),
        },
        mac: MacAddress::new([2, 0, 0, 0, 0, index as u8]),
        place: Place::Port(port.name.clone()),
    };
    ports.iter().enumerate().filter(|(index, _)| index % 2 == 0).map(entry).collect()
}

/// One underlay behind a port of its own, own or shared.
fn underlay() -> impl Strategy<Value = (Port, Underlay)> {
    let own = (any::<[u8; 3]>(), vec((0u8..=16, 1u8..=254), 0..3), any::<bool>());
    let own = own.prop_map(|([a, b, c], networks, both)| {
        let via = IpAddr::from([10, a, b, c.wrapping_add(1)]);
        let v4 = IpPrefix::new(IpAddr::from([10, a, b, c]), 16).unwrap();
        let v6 = both.then(|| "fd00::1/64".parse().unwrap());
        let route = |(length, number): (u8, u8)| Route {
            to: IpPrefix::new(IpAddr::from([number, 0, 0, 0]), length).unwrap().network(),
            via,
        };
        let mut routes: Vec<Route> = networks.into_iter().map(route).collect();
        routes.sort_by_key(|route| route.to);
        routes.dedup_by_key(|route| route.to);
        ("type = \"null\"", Some(v4).into_iter().chain(v6).collect(), routes, None)
    });
    let shared = option::of(Just(true))
        .prop_map(|share| ("type = \"afxdp\"\ndevice = \"up0\"", Vec::new(), Vec::new(), share));
    (prop_oneof![own, shared], option::of(vlan_id())).prop_map(|((kind, addresses, routes, share), vlan)| {
        let text = format!(
            "[[port]]\nname = \"up\"\n{kind}\n[[underlay]]\nname = \"u\"\nport = \"up\"\n{}",
            if addresses.is_empty() { "" } else { "address = \"192.0.2.1/24\"" }
        );
        let port = Config::parse(&text, "").unwrap().ports.remove(0);
        let plain = Underlay::new("u".parse().unwrap(), "up".parse().unwrap());
        (port, Underlay { share, addresses, routes, vlan, ..plain })
    })
}

/// A tunnel whose remotes no other one has.
fn tunnel(index: usize) -> impl Strategy<Value = Tunnel> {
    let kind = prop_oneof![Just(TunnelKind::Vxlan), Just(TunnelKind::Nvgre), Just(TunnelKind::Geneve)];
    let vnis = prop_oneof![
        Just(Vnis::All),
        vec(1u32..=0xff_ffff, 1..4)
            .prop_map(|vnis| Vnis::Set(vnis.into_iter().map(|vni| Vni::new(vni).unwrap()).collect())),
    ];
    let numbers = (1u16.., option::of(any::<u8>()), option::of(0u8..64), 1u8..);
    (kind, vnis, numbers, any::<[bool; 5]>(), 0u8..4).prop_map(
        move |(kind, vnis, (port, flow_id, dscp, ttl), [udp_checksum, df, gbp, learning, bfd], remotes)| {
            let plain = Tunnel::new(format!("t{index}").parse().unwrap(), kind, "u".parse().unwrap());
            let udp = plain.port != 0;
            Tunnel {
                remotes: (0..remotes).map(|last| IpAddr::from([172, 16, index as u8, last])).collect(),
                port: if udp { port } else { 0 },
                vnis,
                flow_id: flow_id.filter(|_| !udp).map_or(FlowId::Hash, FlowId::Fixed),
                udp_checksum: udp && udp_checksum,
                dscp: dscp.map_or(Dscp::Inherit, Dscp::Fixed),
                ttl,
                df,
                gbp: gbp && kind == TunnelKind::Vxlan,
                learning,
                bfd,
                ..plain
            }
        },
    )
}

/// Gives every bridge numbers of its own and addresses, and one that a tunnel carries an entry behind its remote.
fn stretch(config: &mut Config, vlans: &[VlanId], whole: bool, addresses: Vec<IpPrefix>) {
    for (index, bridge) in config.bridges.iter_mut().enumerate() {
        bridge.addresses = addresses.iter().copied().filter(|prefix| !bad(prefix.address())).collect();
        let vni = |number: usize| Vni::new((index * 100 + number + 1) as u32).unwrap();
        if whole {
            bridge.vni = Some(vni(0));
        } else {
            bridge.vlan_vni = vlans.iter().enumerate().map(|(number, vlan)| (*vlan, vni(number))).collect();
        }
        let all = config.tunnels.iter().filter(|tunnel| tunnel.vnis == Vnis::All);
        let names: Vec<TunnelName> = all.map(|tunnel| tunnel.name.clone()).collect();
        let Some((vlan, _)) = bridge.vnis().next() else { continue };
        bridge.tunnels = (index % 2 == 0).then(|| names.clone());
        let far = config.tunnels.iter().find(|tunnel| tunnel.vnis == Vnis::All && !tunnel.remotes.is_empty());
        if let Some(tunnel) = far {
            let place = Place::Remote { tunnel: tunnel.name.clone(), remote: tunnel.remotes[0] };
            let mac = MacAddress::new([2, 0, 0, 0, 1, 1]);
            config.fdb.push(StaticEntry { bridge: bridge.name.clone(), vlan, mac, place });
        }
    }
}

/// What no station has.
fn bad(address: IpAddr) -> bool {
    let broadcast = address == IpAddr::from([255; 4]);
    address.is_multicast() || address.is_unspecified() || address.is_loopback() || broadcast
}

fn neighbours(bridges: usize) -> impl Strategy<Value = Vec<Neighbour>> {
    let neighbour = (0..bridges, option::of(vlan_id()), mac());
    vec(neighbour, 0..4).prop_map(|list| {
        let entry = |(index, (bridge, vlan, mac)): (usize, (usize, Option<VlanId>, MacAddress))| Neighbour {
            bridge: bridge_name(bridge),
            vlan,
            ip: if index % 2 == 0 {
                IpAddr::from([10, 0, 0, index as u8])
            } else {
                "fe80::1:2".parse().unwrap()
            },
            mac,
        };
        let mut list: Vec<Neighbour> = list.into_iter().enumerate().map(entry).collect();
        list.sort_by_key(|entry| (entry.bridge.clone(), entry.vlan, entry.ip));
        list.dedup_by_key(|entry| (entry.bridge.clone(), entry.vlan, entry.ip));
        list
    })
}

fn config() -> impl Strategy<Value = Config> {
    let overlays = (
        option::of(underlay()),
        (0usize..4).prop_flat_map(|count| (0..count).map(tunnel).collect::<Vec<_>>()),
        vec(vlan_id(), 0..3),
        any::<bool>(),
        prefixes(),
        neighbours(1),
    );
    (bridged(), overlays).prop_map(
        |(mut config, (underlay, tunnels, vlans, whole, addresses, neighbours))| {
            if let Some((port, underlay)) = underlay {
                config.ports.push(port);
                config.underlays.push(underlay);
                config.tunnels = tunnels;
            }
            stretch(&mut config, &vlans, whole, addresses);
            config.neighbours = neighbours;
            config
        },
    )
}

/// Bridges with their ports and static entries.
fn bridged() -> impl Strategy<Value = Config> {
    bridges().prop_flat_map(|bridges| {
        let count = bridges.len();
        let ports = (0usize..6)
            .prop_flat_map(move |ports| (0..ports).map(|index| port(index, count)).collect::<Vec<_>>());
        (switch(), limits(), Just(bridges), ports).prop_map(|(switch, limits, bridges, ports)| {
            let fdb = fdb(&ports);
            Config { switch, limits, bridges, ports, fdb, ..Config::default() }
        })
    })
}

proptest! {
    #[test]
    fn what_is_exported_reads_back(config in config()) {
        let text = config.to_toml();
        let back = Config::parse(&text, "export.toml");
        prop_assert_eq!(back.map_err(|errors| format!("{errors:#?}\n{text}")), Ok(config.clone()));
        prop_assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn objects_cross_json(config in config()) {
        for port in &config.ports {
            let json = serde_json::to_string(port).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Port>(&json).unwrap(), port);
        }
        for bridge in &config.bridges {
            let json = serde_json::to_string(bridge).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Bridge>(&json).unwrap(), bridge);
        }
        for entry in &config.fdb {
            let json = serde_json::to_string(entry).unwrap();
            prop_assert_eq!(&serde_json::from_str::<StaticEntry>(&json).unwrap(), entry);
        }
        for underlay in &config.underlays {
            let json = serde_json::to_string(underlay).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Underlay>(&json).unwrap(), underlay);
        }
        for tunnel in &config.tunnels {
            let json = serde_json::to_string(tunnel).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Tunnel>(&json).unwrap(), tunnel);
        }
        for neighbour in &config.neighbours {
            let json = serde_json::to_string(neighbour).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Neighbour>(&json).unwrap(), neighbour);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        if let Err(errors) = Config::parse_bytes(&bytes, "f") {
            prop_assert!(!errors.is_empty());
        }
    }

    /// Text made of the words of the language gets deeper than random bytes.
    #[test]
    fn any_words_are_read_or_refused(words in vec(prop_oneof![
        "(switch|limits|bridge|port|fdb|underlay|tunnel|neighbour|route|to|via|remote|vnis|vlan_vni|ip|name|type|vlan|trunk|native_vlan|workers|mac|address|gateway|netns|mtu|loop)",
        "(\\[|\\]|\\[\\[|\\]\\]|=|\n|,|\\{|\\}|\"|'|#|\\.)",
        "(\"vxlan\"|\"inherit\"|\"tap\"|\"veth\"|\"pcap\"|\"all\"|\"auto\"|\"20-29\"|\"10.0.0.1/8\"|\"blue\"|true|0|10|-1|1e9|99999999999999999999)",
    ], 0..40)) {
        if let Err(errors) = Config::parse(&words.join(" "), "f") {
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.iter().all(|error| !error.to_string().contains('\n')));
        }
    }

    /// A document cut short is the state of a disk after a crash.
    #[test]
    fn a_cut_document_is_read_or_refused(config in config(), cut in any::<prop::sample::Index>()) {
        let bytes = config.to_toml().into_bytes();
        let kept = &bytes[..cut.index(bytes.len() + 1)];
        if let Err(errors) = Config::parse_bytes(kept, "f") {
            prop_assert!(!errors.is_empty());
        }
    }
}

#[test]
fn deep_nesting_is_refused() {
    for text in ["[".repeat(100_000), format!("a = {}", "[".repeat(100_000)), "a = {b = ".repeat(100_000)] {
        assert!(Config::parse(&text, "f").is_err());
    }
}

#[test]
fn a_huge_document_is_refused_at_once() {
    let text = "#".repeat(Config::MAX_BYTES + 1);
    let errors = Config::parse(&text, "big.toml").unwrap_err();
    assert!(errors[0].to_string().contains("2097152 are allowed"), "{}", errors[0]);
}

#[test]
fn an_empty_document_is_the_default() {
    assert_eq!(Config::parse("", "f"), Ok(Config::default()));
    assert_eq!(Config::default().to_toml(), "");
}
