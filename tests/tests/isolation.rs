//! The host cannot be reached round the switch, the switch does not take the host's own traffic, and nobody starves
//! his neighbour.

use vswitch_tests::binaries::binary;
use vswitch_tests::lab::assert_conserved;
use vswitch_tests::traffic::{
    assert_exchange, await_ping, count_pings, pings, probe, probe_service, round_trips,
};
use vswitch_tests::{Attachment, Container, Lab};

/// An address that the host has, though not on any device of the container.
const HOST: &str = "10.9.0.200";
/// The host's address on a TAP port: this one is reached through the switch.
const OFFICIAL: &str = "10.9.0.201";

/// What the container gets to know of the host's kernel without the switch: ARP, ping, ND, and a datagram sent
/// straight to the MAC of the host end. None of it may be answered.
fn assert_closed(lab: &Lab, container: &Container, when: &str) {
    let (inside, kind) = (&container.namespace, container.attachment.name());
    inside.ip("neighbour flush dev eth0");
    assert!(!pings(inside, HOST.parse().expect("an address")), "{kind}: ping answered {when}");
    assert!(!pings(inside, "fd09::200".parse().expect("an address")), "{kind}: IPv6 ping answered {when}");
    let neighbours = inside.ip("neighbour show dev eth0");
    assert!(!neighbours.contains("lladdr"), "{kind}: the host told its MAC {when}: {neighbours}");
    for mac in host_macs(lab) {
        inside.ip(&format!("neighbour replace {HOST} lladdr {mac} dev eth0"));
        let address = format!("{HOST}:7001");
        let seen: vswitch_tests::probe::datagram::RoundTrips = probe(inside, &["round-trips", &address, "2"]);
        assert_eq!(seen.answered, 0, "{kind}: UDP to {mac} answered {when}");
        inside.ip(&format!("neighbour del {HOST} dev eth0"));
    }
}

/// The MACs of all devices of the host except loopback.
fn host_macs(lab: &Lab) -> Vec<String> {
    let links = lab.host.ip("-o link show");
    let mac = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "link/ether");
        words.nth(1).map(str::to_owned)
    };
    links.lines().filter_map(mac).collect()
}

fn host_is_closed(attachment: Attachment) {
    let lab = Lab::new("closed");
    let container = lab.container("guest", attachment, 1500);
    lab.host.ip(&format!("address add {HOST}/32 dev lo"));
    lab.host.ip("address add fd09::200/128 dev lo");
    let _echo = probe_service(&lab.host, &["echo", "0.0.0.0:7001"]);
    let mut daemon = lab.start(&Lab::configuration("[1]", &[&container]));
    let addresses = lab.host.ip("-o -6 address show scope link");
    assert_eq!(addresses, "", "the host end has an IPv6 address");
    assert_closed(&lab, &container, "while the switch runs");
    daemon.kill();
    assert_closed(&lab, &container, "after a kill");
    daemon.start_again();
    assert_closed(&lab, &container, "after a new start");
    daemon.stop();
    assert_closed(&lab, &container, "after a stop");
}

#[test]
fn the_host_end_of_a_veth_packet_port_is_closed() {
    host_is_closed(Attachment::VethPacket);
}

#[test]
fn the_host_end_of_a_veth_afxdp_port_is_closed() {
    host_is_closed(Attachment::VethAfxdp);
}

#[test]
fn a_tap_without_a_namespace_lets_the_host_reach_its_containers() {
    let lab = Lab::new("host");
    let kinds = [Attachment::Tap, Attachment::VethPacket, Attachment::VethAfxdp];
    let containers = kinds.map(|kind| lab.container(kind.name(), kind, 1500));
    let official = format!(
        "[[port]]\nname = \"host\"\nbridge = \"blue\"\ntype = \"tap\"\nifname = \"blue0\"\naddress = [\"{OFFICIAL}/24\"]\n"
    );
    let configuration = format!("{}{official}", Lab::configuration("[1]", &containers.each_ref()));
    let mut daemon = lab.start(&configuration);
    for container in &containers {
        await_ping(&container.namespace, OFFICIAL.parse().expect("an address"));
        await_ping(&lab.host, container.v4);
        assert_exchange(&lab.host, &container.namespace, container.v4, 5, 2_000_000);
    }
    assert_conserved(&daemon.ctl());
    daemon.stop();
}

#[test]
fn a_device_with_addresses_of_the_host_is_taken_only_when_it_is_said_to_be_exclusive() {
    let lab = Lab::new("shared");
    let [wire, inner] =
        [lab.container("wire", Attachment::Packet, 1500), lab.container("inner", Attachment::Tap, 1500)];
    lab.host.ip(&format!("address add 10.9.0.100/24 dev {}", wire.device()));
    let host = "10.9.0.100".parse().expect("an address");
    await_ping(&wire.namespace, host);
    let head = Lab::configuration("[1]", &[&inner]);
    let mut daemon = lab.start(&head);
    let ctl = daemon.ctl();
    for kind in ["packet", "afxdp"] {
        let port = |more| wire.port(more).replace("\"packet\"", &format!("\"{kind}\""));
        let path = lab.write("shared.toml", &format!("{head}{}", port("")));
        let refusal = ctl.attempt(&["apply", &path]).expect_err("it must be refused");
        for part in ["wire", "10.9.0.100", "exclusive"] {
            assert!(refusal.text.contains(part), "{kind}: {part} is missing: {}", refusal.text);
        }
        assert!(pings(&wire.namespace, host), "{kind}: a refusal disturbed the host");
        let path = lab.write("exclusive.toml", &format!("{head}{}", port("exclusive = true")));
        ctl.json(&["apply", &path]);
        await_ping(&wire.namespace, inner.v4);
        let path = lab.write("without.toml", &head);
        ctl.json(&["apply", &path]);
        await_ping(&wire.namespace, host);
    }
    daemon.stop();
}

#[test]
fn a_flooding_container_does_not_starve_the_others() {
    let lab = Lab::new("flood");
    let names = ["loud", "deaf", "left", "right"];
    let containers = names.map(|name| lab.container(name, Attachment::Tap, 1500));
    let [loud, deaf, left, right] = containers.each_ref();
    let mut daemon = lab.start(&Lab::configuration("[1]", &containers.each_ref()));
    await_ping(&loud.namespace, deaf.v4);
    await_ping(&left.namespace, right.v4);
    let address = format!("{}:9", deaf.v4);
    let mut command = loud.namespace.command(binary("netprobe"));
    let flood = command.args(["flood", &address, "60"]);
    let mut flood = flood.spawn().expect("netprobe starts");
    let answered = count_pings(&left.namespace, right.v4, 200);
    let seen = round_trips(&left.namespace, &right.namespace, right.v4, 500);
    assert_exchange(&left.namespace, &right.namespace, right.v4, 6, 10_000_000);
    let flooding = flood.try_wait().expect("a child can be waited for").is_none();
    flood.kill().expect("it can be killed");
    flood.wait().expect("it can be waited for");
    assert!(flooding, "the flood ended too early to show anything");
    assert!(answered >= 198, "only {answered} of 200 pings were answered beside a flood");
    assert!(seen.lost <= 5, "{} of 500 datagrams were lost beside a flood", seen.lost);
    assert_conserved(&daemon.ctl());
    daemon.stop();
}

#[test]
fn isolated_ports_reach_others_but_not_each_other() {
    let lab = Lab::new("isolated");
    let containers = ["one", "two", "open"].map(|name| lab.container(name, Attachment::Tap, 1500));
    let [one, two, open] = containers.each_ref();
    let head = Lab::configuration("[1]", &[]);
    let ports = [one.port("isolated = true"), two.port("isolated = true"), open.port("")].concat();
    let mut daemon = lab.start(&format!("{head}{ports}"));
    await_ping(&one.namespace, open.v4);
    await_ping(&open.namespace, two.v4);
    assert!(!pings(&one.namespace, two.v4), "isolated ports reach each other");
    daemon.stop();
}
