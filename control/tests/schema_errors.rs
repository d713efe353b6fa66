//! What people read when a configuration is wrong: the whole text of each message.
#![allow(clippy::unwrap_used)]

use control::schema::Config;

/// The messages that a document earns, one a line.
fn errors(text: &str) -> String {
    let errors = Config::parse(text, "s.toml").expect_err("the document must be refused");
    errors.iter().map(|error| format!("{error}\n")).collect()
}

/// A document with one bridge and one port that has the given lines.
fn port(lines: &str) -> String {
    format!("[[bridge]]\nname = \"blue\"\n[[port]]\nname = \"web1\"\nbridge = \"blue\"\n{lines}")
}

#[track_caller]
fn assert_errors(text: &str, wanted: &str) {
    let wanted: String = wanted.trim().lines().map(|line| format!("{}\n", line.trim())).collect();
    assert_eq!(errors(text), wanted, "for the document\n{text}");
}

#[test]
fn unknown_keys_name_their_neighbour() {
    assert_errors(
        &port("type = \"tap\"\nnetsn = \"web1\""),
        "s.toml:7:1: port \"web1\": unknown key `netsn`; nearest is `netns`",
    );
    assert_errors("[swich]\n", "s.toml:1:2: unknown section or key `swich`; nearest is `switch`");
    assert_errors(
        "[switch]\nhugepages = \"on\"\n",
        "s.toml:2:1: [switch]: unknown key `hugepages`; nearest is `huge_pages`",
    );
    assert_errors(
        "[[bridge]]\nname = \"b\"\nageing = 3\ncolour = 1\n",
        "s.toml:3:1: bridge \"b\": unknown key `ageing`; nearest is `ageing_s`
         s.toml:4:1: bridge \"b\": unknown key `colour`; known are `name`, `ageing_s`, `fdb_limit`, \
         `flood_unknown`, `flood_broadcast`, `flood_multicast`, `vni`, `vlan_vni`, `tunnels` and `address`",
    );
}

#[test]
fn keys_of_another_type() {
    assert_errors(
        &port("type = \"tap\"\ndriver = \"afxdp\""),
        "s.toml:7:1: port \"web1\": `driver` is no key of a tap port; ports of type `veth` have it",
    );
    assert_errors(
        &port("type = \"null\"\ndevice = \"eth1\""),
        "s.toml:7:1: port \"web1\": `device` is no key of a null port; ports of type `afxdp` and `packet` have it",
    );
}

#[test]
fn port_types() {
    assert_errors(
        &port("type = \"tab\""),
        "s.toml:6:8: port \"web1\": `type` has the unknown value \"tab\"; nearest is `tap`; \
         allowed are `tap`, `veth`, `afxdp`, `packet`, `pcap`, `null` and `vhost-user`",
    );
    assert_errors(
        &port("type = \"vhost-user\"\nsocket = \"vm1.sock\""),
        "s.toml:7:10: port \"web1\": `socket` is not an absolute path; begin it with `/`: where a relative one is \
         depends on where vswitchd was started",
    );
    for later in ["memif", "dpdk"] {
        assert_errors(
            &port(&format!("type = \"{later}\"")),
            &format!(
                "s.toml:6:8: port \"web1\": `type`: {later} ports are not built in this version; \
                 allowed are `tap`, `veth`, `afxdp`, `packet`, `pcap`, `null` and `vhost-user`"
            ),
        );
    }
    assert_errors(&port(""), "s.toml:3:1: port \"web1\": `type` is missing; write `type = \"tap\"`");
}

#[test]
fn wrong_kinds_of_values() {
    assert_errors(
        &port("type = \"tap\"\nnetns = 7\nisolated = \"yes\"\nmtu = 1500.5\naddress = [1]"),
        "s.toml:7:9: port \"web1\": `netns` must be a string, but is a number
         s.toml:8:12: port \"web1\": `isolated` must be true or false, but is a string
         s.toml:9:7: port \"web1\": `mtu` must be a whole number, but is a number with a fraction
         s.toml:10:12: port \"web1\": `address` must be a string, but is a number",
    );
    assert_errors("[[switch]]\n", "s.toml:1:1: [switch]: must be a table of keys, but is a list");
    assert_errors("[port]\n", "s.toml:1:1: `port` is a list of tables; write [[port]] with two brackets");
    assert_errors("port = [7]\n", "s.toml:1:9: [[port]] number 1: must be a table of keys, but is a number");
}

#[test]
fn syntax() {
    assert_errors(
        "[[bridge]]\nname = blue\n",
        "s.toml:2:8: string values must be quoted, expected literal string",
    );
    assert_errors("[switch]\n[limits]\n[switch]\n", "s.toml:3:2: duplicate key");
    let error = Config::parse_bytes(b"[switch]\nx = \"\xff\"\n", "s.toml").unwrap_err();
    assert_eq!(error[0].to_string(), "s.toml:2:6: a byte that is no text; the document must be UTF-8");
}

#[test]
fn ranges() {
    assert_errors(
        &port("type = \"tap\"\nmtu = 67\nqueues = 65\nvlan = 4095\nfdb_limit = -1"),
        "s.toml:7:7: port \"web1\": `mtu = 67` is out of range; the range is 68 to 65535 bytes
         s.toml:8:10: port \"web1\": `queues = 65` is out of range; the range is 1 to 64 queues
         s.toml:9:8: port \"web1\": `vlan = 4095` is out of range; the range is 1 to 4094
         s.toml:10:13: port \"web1\": `fdb_limit = -1` is out of range; the range is 0 to 16777216 entries",
    );
    assert_errors(
        "[limits]\nframes = 1\nports = 99999999999999999999999999999999999999999999\n",
        "s.toml:2:10: [limits]: `frames = 1` is out of range; the range is 256 to 4194304 frames
         s.toml:3:9: [limits]: `ports = 170141183460469231731687303715884105727` is out of range; \
         the range is 1 to 65534 ports",
    );
}

#[test]
fn workers() {
    assert_errors(
        "[switch]\nworkers = []\n",
        "s.toml:2:11: [switch]: `workers` must name 1 to 256 CPUs, but names 0; \
         write `workers = \"auto\"` or CPU numbers, `workers = [2, 3]`",
    );
    assert_errors(
        "[switch]\nworkers = 1\n",
        "s.toml:2:11: [switch]: `workers` must be \"auto\" or a list of CPU numbers, but is a number; \
         write `workers = \"auto\"` or CPU numbers, `workers = [2, 3]`",
    );
    assert_errors(
        &format!("[switch]\nworkers = [3, 3]\n{}", port("type = \"tap\"\nworkers = [1, 2]")),
        "s.toml:9:11: port \"web1\": worker 2 does not exist; \
         a port names workers by their place in the list of [switch], from 0: 0 to 1 here",
    );
}

#[test]
fn names() {
    assert_errors(
        "[[bridge]]\nname = \"a b\"\n",
        "s.toml:2:8: bridge \"a b\": `name`: `a b` is no name: letters, digits and punctuation of ASCII are \
         allowed, but no space, `/`, `\\` or `\"`",
    );
    assert_errors(
        &port("type = \"tap\"\nifname = \"a-very-long-name\""),
        "s.toml:7:10: port \"web1\": `ifname`: `a-very-long-name` is no interface name: the kernel allows 1 to 15 bytes",
    );
    assert_errors(
        "[[bridge]]\nname = \"b\"\n[[port]]\nname = \"a-very-long-port\"\nbridge = \"b\"\ntype = \"tap\"\n",
        "s.toml:4:8: port \"a-very-long-port\": without `netns` and `ifname` the interface has the port's name, but \
         `a-very-long-port` is no interface name: the kernel allows 1 to 15 bytes; add `ifname` or `netns`",
    );
}

#[test]
fn vlans() {
    assert_errors(
        &port("type = \"tap\"\nvlan = 10\ntrunk = [20]"),
        "s.toml:8:9: port \"web1\": `vlan` and `trunk` exclude each other; \
         `vlan` makes an access port, `trunk` a port with tags; keep one of them",
    );
    assert_errors(
        &port("type = \"tap\"\nnative_vlan = 10"),
        "s.toml:7:15: port \"web1\": `native_vlan` is for ports with `trunk`; \
         add `trunk = [...]`, or write `vlan` for an access port",
    );
    assert_errors(
        &port("type = \"tap\"\ntrunk = [0, \"30-20\", \"x\"]"),
        "s.toml:7:10: port \"web1\": `trunk = 0` is out of range; the range is 1 to 4094
         s.toml:7:13: port \"web1\": `trunk`: \"30-20\" is no range of VLANs; a range is like \"20-29\", 1 to 4094
         s.toml:7:22: port \"web1\": `trunk`: \"x\" is no range of VLANs; a range is like \"20-29\", 1 to 4094",
    );
    assert_errors(
        &port("type = \"tap\"\ntrunk = []"),
        "s.toml:7:9: port \"web1\": `trunk` is empty, so the port would carry nothing; \
         write `trunk = \"all\"` or a list like `trunk = [10, \"20-29\"]`",
    );
}

#[test]
fn addresses() {
    assert_errors(
        &port(
            "type = \"tap\"\nnetns = \"n\"\nmac = \"01:00:5e:00:00:01\"\naddress = [\"10.1.0.11\", \"10.1.0.12/40\"]",
        ),
        "s.toml:8:7: port \"web1\": `mac`: 01:00:5e:00:00:01 is not the address of a station; \
         multicast, broadcast and zero addresses cannot be an interface's
         s.toml:9:12: port \"web1\": `address`: `10.1.0.11` has no prefix length; write `10.1.0.11/24`
         s.toml:9:25: port \"web1\": `address`: `10.1.0.12/40` is not an address with prefix length \
         like 10.1.0.11/24 or fd00::11/64",
    );
    assert_errors(
        &port("type = \"tap\"\naddress = [\"10.1.0.11/24\"]\ngateway = \"10.1.1.1\""),
        "s.toml:8:11: port \"web1\": `gateway`: 10.1.1.1 is in no prefix of the port's addresses; \
         the port's addresses are 10.1.0.11/24",
    );
    assert_errors(
        &port("type = \"tap\"\ngateway = \"10.1.1.1\""),
        "s.toml:7:11: port \"web1\": `gateway`: 10.1.1.1 is in no prefix of the port's addresses; \
         the port has no `address`",
    );
    assert_errors(
        &port("type = \"tap\"\nmtu = 1000\naddress = [\"fd00::1/64\", \"fd00::1/64\"]"),
        "s.toml:7:7: port \"web1\": `mtu = 1000` is too small for the IPv6 address of the port; IPv6 needs 1280 at least
         s.toml:8:11: port \"web1\": `address` names fd00::1 twice",
    );
}

#[test]
fn references_and_duplicates() {
    assert_errors(
        "[[bridge]]\nname = \"blue\"\n[[bridge]]\nname = \"blue\"\n\
         [[port]]\nname = \"p\"\nbridge = \"blu\"\ntype = \"null\"\n\
         [[port]]\nname = \"p\"\nbridge = \"green\"\ntype = \"null\"\n",
        "s.toml:4:8: bridge \"blue\": there are two bridges of this name; rename one of the two
         s.toml:7:10: port \"p\": bridge \"blu\" does not exist; nearest is \"blue\"
         s.toml:10:8: port \"p\": there are two ports of this name; rename one of the two
         s.toml:11:10: port \"p\": bridge \"green\" does not exist; add a [[bridge]] with `name = \"green\"`",
    );
}

#[test]
fn one_interface_for_one_port() {
    assert_errors(
        &format!(
            "{}[[port]]\nname = \"web2\"\nbridge = \"blue\"\ntype = \"veth\"\nnetns = \"/var/run/netns/n\"\n",
            port("type = \"tap\"\nnetns = \"n\"\n")
        ),
        "s.toml:8:1: port \"web2\": interface \"eth0\" of namespace \"/var/run/netns/n\" is already that of \
         port \"web1\"; give one of the two another `ifname`",
    );
    assert_errors(
        &format!(
            "{}[[port]]\nname = \"up2\"\nbridge = \"blue\"\ntype = \"packet\"\ndevice = \"eth1\"\n",
            port("type = \"afxdp\"\ndevice = \"eth1\"\n")
        ),
        "s.toml:12:10: port \"up2\": interface \"eth1\" of the host is already that of port \"web1\"; \
         give one of the two another `device`",
    );
}

#[test]
fn static_entries() {
    let base = "[[bridge]]\nname = \"b\"\n[[bridge]]\nname = \"c\"\n\
                [[port]]\nname = \"p\"\nbridge = \"b\"\ntype = \"null\"\nvlan = 10\n";
    let entry = |lines: &str| format!("{base}[[fdb]]\n{lines}\n");
    assert_errors(
        &entry("bridge = \"b\"\nvlan = 10\nmac = \"ff:ff:ff:ff:ff:ff\"\nport = \"p\""),
        "s.toml:13:7: fdb entry ff:ff:ff:ff:ff:ff: `mac`: ff:ff:ff:ff:ff:ff is not the address of a station; \
         multicast, broadcast and zero addresses cannot be bound to a port",
    );
    assert_errors(
        &entry("bridge = \"b\"\nmac = \"02:00:00:00:00:01\"\nport = \"p\""),
        "s.toml:10:1: fdb entry 02:00:00:00:00:01: port \"p\" does not carry untagged frames (VLAN 0); write `vlan = 10`",
    );
    assert_errors(
        &entry("bridge = \"c\"\nvlan = 10\nmac = \"02:00:00:00:00:01\"\nport = \"p\""),
        "s.toml:14:8: fdb entry 02:00:00:00:00:01: port \"p\" is not in bridge \"c\"; it is in bridge \"b\"",
    );
    assert_errors(
        &entry("bridge = \"d\"\nvlan = 10\nmac = \"02:00:00:00:00:01\"\nport = \"pp\""),
        "s.toml:11:10: fdb entry 02:00:00:00:00:01: bridge \"d\" does not exist; add a [[bridge]] with `name = \"d\"`
         s.toml:14:8: fdb entry 02:00:00:00:00:01: port \"pp\" does not exist; add a [[port]] with `name = \"pp\"`",
    );
    assert_errors(
        &format!(
            "{base}{0}{0}",
            "[[fdb]]\nbridge = \"b\"\nvlan = 10\nmac = \"02:00:00:00:00:01\"\nport = \"p\"\n"
        ),
        "s.toml:18:7: fdb entry 02:00:00:00:00:01: there are two entries for this MAC in the same bridge and VLAN; \
         remove one of the two",
    );
}

#[test]
fn files_of_pcap_ports() {
    assert_errors(
        &port("type = \"pcap\"\nloop = true"),
        "s.toml:6:8: port \"web1\": a pcap port needs a file; add `read = \"FILE\"`, `write = \"FILE\"` or both
         s.toml:7:8: port \"web1\": `loop` is for ports with `read`",
    );
    assert_errors(
        &format!(
            "{}[[port]]\nname = \"web2\"\nbridge = \"blue\"\ntype = \"pcap\"\nwrite = \"/a.pcap\"\n",
            port("type = \"pcap\"\nwrite = \"/a.pcap\"\n")
        ),
        "s.toml:12:9: port \"web2\": `write`: port \"web1\" records into the same file; give one of the two another file",
    );
}

#[test]
fn more_than_the_limits() {
    assert_errors(
        &format!(
            "[limits]\nports = 1\n{}[[port]]\nname = \"web2\"\nbridge = \"blue\"\ntype = \"null\"\n",
            port("type = \"null\"\n")
        ),
        "s.toml:2:9: [limits]: `ports = 1` is a limit, but the configuration has 2 of them; raise it: `ports = 2`",
    );
}

#[test]
fn errors_are_data_as_well() {
    let errors = Config::parse(&port("type = \"tap\"\nnetsn = \"x\""), "s.toml").unwrap_err();
    let error = &errors[0];
    assert_eq!((error.line, error.column, error.object.as_str()), (7, 1, "port \"web1\""));
    assert_eq!(
        (error.message.as_str(), error.hint.as_deref()),
        ("unknown key `netsn`", Some("nearest is `netns`"))
    );
}

#[test]
fn a_program_s_values_are_checked_too() {
    let mut config = Config::parse(&port("type = \"null\"\n"), "s.toml").unwrap();
    assert_eq!(config.check(), Ok(()));
    config.ports.push(config.ports[0].clone());
    let errors = config.check().unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "port \"web1\": there are two ports of this name; rename one of the two"
    );
}
