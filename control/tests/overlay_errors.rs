//! What people read when underlays, tunnels and what goes through them are configured wrong.
#![allow(clippy::unwrap_used)]

use control::schema::Config;

/// A document with an underlay of its own and one that is shared, two tunnels and two bridges.
const GOOD: &str = r#"
[[bridge]]
name = "blue"
vni = 5001
[[bridge]]
name = "red"
vlan_vni = {10 = 5010, 20 = 5020}
[[port]]
name = "up1"
type = "tap"
[[port]]
name = "up2"
type = "afxdp"
device = "eth1"
[[port]]
name = "web1"
bridge = "blue"
type = "null"
[[underlay]]
name = "core"
port = "up1"
address = ["192.0.2.1/24", "2001:db8::1/64"]
route = [{to = "198.51.100.0/24", via = "192.0.2.254"}]
[[underlay]]
name = "edge"
port = "up2"
[[tunnel]]
name = "a"
type = "vxlan"
underlay = "core"
remote = ["192.0.2.2", "198.51.100.2"]
[[tunnel]]
name = "b"
type = "nvgre"
underlay = "edge"
remote = "203.0.113.2"
vnis = [5010]
[[fdb]]
bridge = "red"
vlan = 10
mac = "02:00:00:00:00:01"
tunnel = "b"
remote = "203.0.113.2"
[[neighbour]]
bridge = "red"
vlan = 10
ip = "10.0.0.1"
mac = "02:00:00:00:00:01"
"#;

/// Asserts what the document earns with each `from` replaced by `to`; a line of `wanted` is the text after the
/// file's name and place.
#[track_caller]
fn assert_errors(changes: &[(&str, &str)], wanted: &[&str]) {
    let mut text = GOOD.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let errors = Config::parse(&text, "s.toml").expect_err("the document must be refused");
    let mut said = Vec::new();
    for error in errors {
        assert!(error.line > 0 && error.column > 0, "{error}");
        said.push(error.to_string().splitn(4, ':').nth(3).unwrap().trim().to_owned());
    }
    assert_eq!(said, wanted, "for the document\n{text}");
}

#[track_caller]
fn assert_error(from: &str, to: &str, wanted: &str) {
    assert_errors(&[(from, to)], &[wanted]);
}

#[test]
fn the_document_that_is_bent_is_right() {
    let config = Config::parse(GOOD, "s.toml").unwrap();
    assert!(!config.underlays[0].is_shared(&config) && config.underlays[1].is_shared(&config));
    assert_eq!((config.tunnels[0].port, config.tunnels[1].port), (4789, 0));
    assert_eq!(Config::parse(&config.to_toml(), "export"), Ok(config));
}

#[test]
fn places_are_those_of_the_values() {
    let text = GOOD.replace("remote = \"203.0.113.2\"\nvnis", "remote = \"203.0.113.x\"\nvnis");
    let error = Config::parse(&text, "s.toml").unwrap_err().remove(0);
    let line = text.lines().position(|line| line.contains("113.x")).unwrap() + 1;
    assert_eq!((error.line as usize, error.column), (line, 10));
    let text = GOOD.replace("via", "vai");
    let error = Config::parse(&text, "s.toml").unwrap_err().remove(0);
    let line = text.lines().position(|line| line.contains("vai")).unwrap() + 1;
    assert_eq!(error.line as usize, line);
}

#[test]
fn a_port_without_bridge() {
    assert_errors(
        &[("port = \"up1\"", "port = \"up3\"")],
        &[
            "port \"up1\": `bridge` is missing, and no underlay has the port; write `bridge = \"blue\"`, \
             or add an [[underlay]] with `port = \"up1\"`",
            "underlay \"core\": port \"up3\" does not exist; nearest is \"up1\"",
        ],
    );
    assert_error(
        "name = \"up1\"",
        "name = \"up1\"\nbridge = \"red\"",
        "underlay \"core\": port \"up1\" is in bridge \"red\"; \
         the port of an underlay is in no bridge: remove its `bridge`",
    );
    assert_errors(
        &[("name = \"up1\"", "name = \"up1\"\nvlan = 10\nhairpin = true")],
        &[
            "port \"up1\": `vlan` is for ports of a bridge; the tag of an uplink's frames is the `vlan` of its underlay",
            "port \"up1\": `hairpin` is for ports of a bridge",
        ],
    );
}

#[test]
fn underlays() {
    assert_errors(
        &[("name = \"edge\"\nport = \"up2\"", "name = \"core\"\nport = \"up1\"\naddress = \"10.0.0.1/8\"")],
        &[
            "port \"up2\": `bridge` is missing, and no underlay has the port; write `bridge = \"blue\"`, \
             or add an [[underlay]] with `port = \"up2\"`",
            "underlay \"core\": there are two underlays of this name; rename one of the two",
            "underlay \"core\": port \"up1\" is that of underlay \"core\" already; a port carries one underlay",
            "tunnel \"b\": underlay \"edge\" does not exist; add an [[underlay]] with `name = \"edge\"`",
        ],
    );
    assert_error(
        "port = \"up1\"",
        "port = \"up1\"\nshare = true",
        "underlay \"core\": `share`: the host's kernel cannot keep a tap port; \
         `afxdp` ports can be shared; of others write `share = false`, and `address`",
    );
    assert_errors(
        &[(
            "port = \"up2\"",
            "port = \"up2\"\naddress = \"10.0.0.1/8\"\nroute = {to = \"::/0\", via = \"fe80::1\"}",
        )],
        &[
            "underlay \"edge\": `address`: a shared underlay has what the kernel has; \
             set it in the kernel and remove `address`; or write `share = false`",
            "underlay \"edge\": `route`: a shared underlay has what the kernel has; \
             set it in the kernel and remove `route`; or write `share = false`",
        ],
    );
    assert_error(
        "port = \"up2\"",
        "port = \"up2\"\nshare = false",
        "underlay \"edge\": `address` is missing; write `address = [\"192.0.2.1/24\"]`, \
         or share the kernel's: `share = true`",
    );
    assert_error(
        "port = \"up2\"",
        "port = \"up2\"\nshared = true",
        "underlay \"edge\": unknown key `shared`; nearest is `share`",
    );
}

#[test]
fn routes() {
    let route = "{to = \"198.51.100.0/24\", via = \"192.0.2.254\"}";
    for (wrong, says) in [
        (
            "{to = \"198.51.100.7/24\", via = \"192.0.2.254\"}",
            "route of underlay \"core\": `to`: 198.51.100.7/24 is an address, and a network is needed; \
             write `to = \"198.51.100.0/24\"`",
        ),
        (
            "{to = \"198.51.100.0/24\"}",
            "route of underlay \"core\": `via` is missing; write `via = \"10.1.0.1\"`",
        ),
        (
            "{to = \"198.51.100.0/24\", via = \"2001:db8::2\"}",
            "route of underlay \"core\": `via`: 2001:db8::2 is not of the family of 198.51.100.0/24",
        ),
        (
            "{to = \"198.51.100.0/24\", via = \"192.0.3.1\"}",
            "underlay \"core\": `route`: 192.0.3.1 is in no prefix of the underlay's addresses; \
             the underlay's addresses are 192.0.2.1/24, 2001:db8::1/64",
        ),
        (
            "{to = \"198.51.100.0/24\", via = \"192.0.2.1\"}",
            "underlay \"core\": `route`: 192.0.2.1 is an address of the underlay itself",
        ),
        ("7", "route of underlay \"core\": must be a table of keys, but is a number"),
    ] {
        assert_error(route, wrong, says);
    }
    let twice = format!("{route}, {route}");
    assert_error(route, &twice, "underlay \"core\": `route` names 198.51.100.0/24 twice");
}

#[test]
fn keys_of_another_type_of_tunnel() {
    assert_error(
        "type = \"vxlan\"",
        "type = \"vxlan\"\nflow_id = 1",
        "tunnel \"a\": `flow_id` is no key of a vxlan tunnel; tunnels of type `nvgre` have it",
    );
    assert_errors(
        &[("type = \"nvgre\"", "type = \"nvgre\"\nport = 4789\ngbp = true")],
        &[
            "tunnel \"b\": `port` is no key of a nvgre tunnel; tunnels of type `vxlan` and `geneve` have it",
            "tunnel \"b\": `gbp` is no key of a nvgre tunnel; tunnels of type `vxlan` have it",
        ],
    );
    assert_errors(
        &[("type = \"vxlan\"", "type = \"vxlna\"\nport = 1")],
        &[
            "tunnel \"a\": `type` has the unknown value \"vxlna\"; nearest is \"vxlan\"; \
             allowed are \"vxlan\", \"nvgre\" and \"geneve\"",
            "tunnel \"a\": `port` cannot be read before `name`, `type` and `underlay` are right",
        ],
    );
    assert_error("type = \"nvgre\"", "", "tunnel \"b\": `type` is missing; write `type = \"vxlan\"`");
    assert_error(
        "type = \"vxlan\"",
        "type = \"vxlan\"\nudp_checksun = true",
        "tunnel \"a\": unknown key `udp_checksun`; nearest is `udp_checksum`",
    );
}

#[test]
fn values_of_a_tunnel() {
    assert_errors(
        &[(
            "vnis = [5010]",
            "vnis = [0, 16777216, \"x\"]\ndscp = 64\nttl = 0\nflow_id = \"hsah\"\nlocal = \"0.0.0.0\"",
        )],
        &[
            "tunnel \"b\": `vnis = 0` is out of range; the range is 1 to 16777215",
            "tunnel \"b\": `vnis = 16777216` is out of range; the range is 1 to 16777215",
            "tunnel \"b\": `vnis` must be a whole number, but is a string",
            "tunnel \"b\": `dscp = 64` is out of range; the range is 0 to 63",
            "tunnel \"b\": `ttl = 0` is out of range; the range is 1 to 255",
            "tunnel \"b\": `flow_id` must be \"hash\" or a number, but is \"hsah\"; the range is 0 to 255",
            "tunnel \"b\": `local`: 0.0.0.0 is not the address of a station",
        ],
    );
    assert_error(
        "vnis = [5010]",
        "vnis = []",
        "tunnel \"b\": `vnis` is empty, so nothing would be carried; \
         write `vnis = \"all\"` or a list like `vnis = [5001, 5002]`",
    );
    assert_errors(
        &[("vnis = [5010]", "vnis = [5010]\ngroup = \"203.0.113.1\"")],
        &[
            "tunnel \"b\": `group`: 203.0.113.1 is no multicast address; groups are like 239.1.1.1 and ff05::1",
            "tunnel \"b\": `group` needs `local`; say which of our addresses is the source: `local = ADDRESS`",
        ],
    );
    assert_error(
        "vnis = [5010]",
        "vnis = [5010]\ngroup = \"ff05::1\"\nlocal = \"203.0.113.1\"",
        "tunnel \"b\": `group`: ff05::1 is not of the family of `local`, which is 203.0.113.1; \
         make a tunnel of its own for the other family",
    );
}

#[test]
fn remotes() {
    let remote = "remote = [\"192.0.2.2\", \"198.51.100.2\"]";
    for (to, says) in [
        ("remote = [\"192.0.2.2\", \"192.0.2.2\"]", "tunnel \"a\": `remote` names 192.0.2.2 twice"),
        (
            "remote = [\"192.0.2.1\"]",
            "tunnel \"a\": `remote`: 192.0.2.1 is an address of underlay \"core\", our own",
        ),
        (
            "remote = [\"192.0.2.1\"]\nlocal = \"192.0.2.1\"",
            "tunnel \"a\": `remote`: 192.0.2.1 is `local`, our own address",
        ),
        (
            "remote = [\"2001:db8::2\"]\nlocal = \"192.0.2.1\"",
            "tunnel \"a\": `remote`: 2001:db8::2 is not of the family of `local`, which is 192.0.2.1; \
             make a tunnel of its own for the other family",
        ),
        (
            "remote = [\"192.0.2.2\"]\nlocal = \"192.0.2.9\"",
            "tunnel \"a\": `local`: 192.0.2.9 is no address of underlay \"core\"; \
             the underlay's addresses are 192.0.2.1/24, 2001:db8::1/64",
        ),
        ("remote = [\"224.0.0.1\"]", "tunnel \"a\": `remote`: 224.0.0.1 is not the address of a station"),
    ] {
        assert_error(remote, to, says);
    }
    assert_errors(
        &[
            (remote, "remote = [\"2001:db8::2\"]"),
            ("\"192.0.2.1/24\", \"2001:db8::1/64\"", "\"192.0.2.1/24\""),
        ],
        &["tunnel \"a\": `remote`: underlay \"core\" has no IPv6 address to reach 2001:db8::2 from; \
           the underlay's addresses are 192.0.2.1/24"],
    );
}

#[test]
fn two_tunnels_for_the_same_frames() {
    let second = |keys: &str| {
        format!(
            "[[fdb]]\nbridge = \"blue\"\nmac = \"02:00:00:00:00:09\"\nport = \"web1\"\n[[tunnel]]\nname = \"c\"\n\
                 underlay = \"core\"\nremote = [\"192.0.2.7\", \"192.0.2.2\"]\n{keys}\n[[fdb]]"
        )
    };
    assert_error(
        "[[fdb]]",
        &second("type = \"vxlan\"\nvnis = [1, 2]"),
        "tunnel \"c\": tunnel \"a\" has the same frames: type vxlan, port 4789, remote 192.0.2.2, VNI 1; \
         give the two different `vnis`",
    );
    for keys in ["type = \"vxlan\"\nport = 8472", "type = \"geneve\"", "type = \"nvgre\""] {
        Config::parse(&GOOD.replacen("[[fdb]]", &second(keys), 1), "s.toml").unwrap();
    }
}

#[test]
fn vnis_of_bridges() {
    assert_error(
        "vni = 5001",
        "vni = 5001\nvlan_vni = {10 = 7}",
        "bridge \"blue\": `vni` and `vlan_vni` exclude each other; \
         `vni` is for a bridge as a whole, `vlan_vni` for its VLANs; keep one of them",
    );
    assert_error(
        "vni = 5001",
        "vni = 5010",
        "bridge \"red\": VNI 5010 of tunnel \"a\" is that of bridge \"blue\" already; \
         give one of the two another VNI, or other `tunnels`",
    );
    // Over different tunnels the same number is another network.
    let apart = GOOD.replace("vni = 5001", "vni = 5010\ntunnels = [\"a\"]");
    Config::parse(&apart.replace("5020}", "5020}\ntunnels = [\"b\"]"), "s.toml").unwrap();
    assert_errors(
        &[("{10 = 5010, 20 = 5020}", "{10 = 5010, 0 = 7, 20 = 5010, 4095 = 8, 030 = 9, 40 = 0}")],
        &[
            "bridge \"red\": `vlan_vni`: `0` is not a VLAN; VLANs are numbers from 1 to 4094",
            "bridge \"red\": `vlan_vni`: VLANs 10 and 20 have the same VNI, 5010; give each a VNI of its own",
            "bridge \"red\": `vlan_vni`: `4095` is not a VLAN; VLANs are numbers from 1 to 4094",
            "bridge \"red\": `vlan_vni`: `030` is not a VLAN; VLANs are numbers from 1 to 4094",
            "bridge \"red\": `vlan_vni = 0` is out of range; the range is 1 to 16777215",
        ],
    );
    assert_error(
        "{10 = 5010, 20 = 5020}",
        "[5010]",
        "bridge \"red\": `vlan_vni` must be a table of VNIs by VLAN, but is a list; write `vlan_vni = {10 = 5010}`",
    );
}

#[test]
fn tunnels_of_bridges() {
    assert_errors(
        &[("vni = 5001", "vni = 5001\ntunnels = [\"a\", \"a\", \"aa\", \"b\"]")],
        &[
            "bridge \"blue\": `tunnels` names \"a\" twice",
            "bridge \"blue\": tunnel \"aa\" does not exist; add a [[tunnel]] with `name = \"aa\"`",
            "bridge \"blue\": tunnel \"b\" carries no VNI of the bridge; add 5001 to the `vnis` of the tunnel",
        ],
    );
    assert_error(
        "vni = 5001",
        "tunnels = [\"a\"]",
        "bridge \"blue\": `tunnels` is for bridges with `vni` or `vlan_vni`; \
         add the number by which the other hosts know it: `vni = 5001`",
    );
    assert_error(
        "vni = 5001",
        "address = [\"10.0.0.1/24\", \"10.0.0.1/8\"]",
        "bridge \"blue\": `address` names 10.0.0.1 twice",
    );
}

#[test]
fn entries_behind_remotes() {
    let place = "tunnel = \"b\"\nremote = \"203.0.113.2\"\n[[neighbour]]";
    for (to, says) in [
        (
            "port = \"web1\"\ntunnel = \"b\"\n[[neighbour]]",
            "`port` and `tunnel` exclude each other; an address is at a port, or behind a remote of a tunnel",
        ),
        ("tunnel = \"b\"\n[[neighbour]]", "`remote` is missing; write `remote = \"192.0.2.2\"`"),
        ("remote = \"203.0.113.2\"\n[[neighbour]]", "`tunnel` is missing; write `tunnel = \"dc1\"`"),
        (
            "[[neighbour]]",
            "`port` is missing; write `port = \"web1\"`, or `tunnel = \"dc1\"` and `remote = \"192.0.2.2\"`",
        ),
        (
            "tunnel = \"b\"\nremote = \"203.0.113.3\"\n[[neighbour]]",
            "tunnel \"b\" does not reach 203.0.113.3; add it to the `remote` of the tunnel",
        ),
        (
            "tunnel = \"bb\"\nremote = \"203.0.113.3\"\n[[neighbour]]",
            "tunnel \"bb\" does not exist; add a [[tunnel]] with `name = \"bb\"`",
        ),
        (
            "port = \"up1\"\n[[neighbour]]",
            "port \"up1\" is not in bridge \"red\"; it is in none: it is that of an underlay",
        ),
    ] {
        assert_error(place, to, &format!("fdb entry 02:00:00:00:00:01: {says}"));
    }
    assert_error(
        "vlan = 10",
        "vlan = 20",
        "fdb entry 02:00:00:00:00:01: tunnel \"b\" does not carry VNI 5020 of bridge \"red\"; \
         add it to the `vnis` of the tunnel, and the tunnel to the `tunnels` of the bridge",
    );
    assert_error(
        "vlan = 10",
        "vlan = 30",
        "fdb entry 02:00:00:00:00:01: bridge \"red\" has no VNI for VLAN 30; add `vni` or `vlan_vni` to the bridge",
    );
}

#[test]
fn neighbours() {
    assert_errors(
        &[(
            "ip = \"10.0.0.1\"\nmac = \"02:00:00:00:00:01\"",
            "ip = \"239.0.0.1\"\nmac = \"ff:ff:ff:ff:ff:ff\"",
        )],
        &[
            "neighbour 239.0.0.1: `ip`: 239.0.0.1 is not the address of a station",
            "neighbour 239.0.0.1: `mac`: ff:ff:ff:ff:ff:ff is not the address of a station; \
             multicast, broadcast and zero addresses cannot be an interface's",
        ],
    );
    assert_errors(
        &[(
            "[[neighbour]]\nbridge = \"red\"\nvlan = 10\nip = \"10.0.0.1\"",
            "[[neighbour]]\nbridge = \"bleu\"",
        )],
        &["[[neighbour]] number 1: `ip` is missing; write `ip = \"10.1.0.11\"`"],
    );
    let again = "[[neighbour]]\nbridge = \"bleu\"\nip = \"10.0.0.1\"\nmac = \"02:00:00:00:00:02\"\n";
    assert_errors(
        &[("[[neighbour]]", &format!("{again}{again}[[neighbour]]"))],
        &[
            "neighbour 10.0.0.1: bridge \"bleu\" does not exist; nearest is \"blue\"",
            "neighbour 10.0.0.1: bridge \"bleu\" does not exist; nearest is \"blue\"",
            "neighbour 10.0.0.1: there are two entries for this address in the same bridge and VLAN; \
             remove one of the two",
        ],
    );
}

#[test]
fn more_than_the_limits() {
    assert_error(
        "[[bridge]]",
        "[limits]\nremotes = 2\n[[bridge]]",
        "[limits]: `remotes = 2` is a limit, but the configuration has 3 of them; raise it: `remotes = 3`",
    );
    // A group has a number, too.
    let remotes = "remote = [\"192.0.2.2\", \"198.51.100.2\"]";
    assert_errors(
        &[
            ("[[bridge]]", "[limits]\nremotes = 3\n[[bridge]]"),
            (remotes, &format!("{remotes}\nlocal = \"192.0.2.1\"\ngroup = \"239.1.1.1\"")),
        ],
        &["[limits]: `remotes = 3` is a limit, but the configuration has 4 of them; raise it: `remotes = 4`"],
    );
    assert_error(
        "[[bridge]]",
        "[limits]\nports = 65000\nremotes = 1000\n[[bridge]]",
        "[limits]: `ports = 65000` and `remotes = 1000` are too many together; \
         both share 65535 numbers: lower one of them",
    );
}
