//! An uplink that the host keeps: its kernel's own traffic goes on whatever becomes of the switch, and tunnels run
//! over the kernel's addresses, routes and neighbours, however these change.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use vswitch_tests::cases::scaled;
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::namespace::{Namespace, run};
use vswitch_tests::probe::frames::{ipv4_header, to_hex, with_sum};
use vswitch_tests::traffic::{Pings, assert_exchange, await_ping, iperf, iperf_server, pings, send_frames};
use vswitch_tests::wait::{BACK, SOON};
use vswitch_tests::{Attachment, Container, Ctl, Daemon, Lab, wait_until};

/// The address that the other host's overlay has.
const FAR: &str = "10.9.0.200";

/// A host with an uplink of its own, a container on the switch, and another host with a VXLAN device of the kernel.
struct Pair {
    lab: Lab,
    other: Namespace,
    container: Container,
}

impl Pair {
    fn new(tag: &str) -> Pair {
        let lab = Lab::new(tag);
        let other = Namespace::new("other");
        wire(&lab.host, &other);
        other.ip("link add vx0 type vxlan id 5001 local 192.0.2.2 remote 192.0.2.1 dstport 4789");
        other.ip("link set vx0 up");
        other.ip(&format!("address add {FAR}/24 dev vx0"));
        let container = lab.container("web", Attachment::Tap, 1450);
        Pair { lab, other, container }
    }

    fn configuration(&self) -> String {
        configuration(&self.container.port(""), "vxlan", "192.0.2.2")
    }

    fn await_overlay(&self) {
        await_ping(&self.container.namespace, FAR.parse().expect("an address"));
    }

    fn neighbour(&self) -> String {
        self.lab.host.ip("neighbour show 192.0.2.2 dev up0")
    }
}

/// With these ports of containers, and a tunnel over the host's uplink.
fn configuration(ports: &str, kind: &str, remote: &str) -> String {
    format!(
        "[switch]\nworkers = [1]\n[[bridge]]\nname = \"blue\"\nvni = 5001\n{ports}\n\
         [[port]]\nname = \"uplink\"\ntype = \"afxdp\"\ndevice = \"up0\"\n\
         [[underlay]]\nname = \"core\"\nport = \"uplink\"\n\
         [[tunnel]]\nname = \"dc\"\ntype = \"{kind}\"\nunderlay = \"core\"\nremote = [\"{remote}\"]\n"
    )
}

/// Makes a host's uplink, to another host.
fn wire(host: &Namespace, other: &Namespace) {
    host.ip(&format!("link add up0 type veth peer name up0 netns {}", other.name()));
    for (end, at) in [(host, 1), (other, 2)] {
        end.ip(&format!("address add 192.0.2.{at}/24 dev up0"));
        end.ip(&format!("address add 2001:db8::{at}/64 dev up0 nodad"));
        end.ip("link set up0 up");
    }
}

/// Why the tunnel does not work, if it does not.
fn reason(ctl: &Ctl) -> Option<String> {
    let tunnel = ctl.json(&["tunnel", "show", "dc"]);
    tunnel["reason"].as_str().map(str::to_owned)
}

fn await_reason(ctl: &Ctl, text: &str) {
    wait_until(&format!("the tunnel's reason says {text:?}"), SOON, || {
        reason(ctl).is_some_and(|reason| reason.contains(text))
    });
}

#[test]
fn a_tcp_session_of_the_host_survives_all_that_the_switch_does() {
    let pair = Pair::new("sharedtcp");
    let (host, other) = (&pair.lab.host, &pair.other);
    let server = iperf_server(other);
    let mut command = host.command("iperf3");
    command.args(["--json", "-t", "12", "-i", "1", "-b", "200M", "-c", "192.0.2.2"]);
    let client = thread::spawn(move || run(&mut command));

    let mut daemon = pair.lab.start(&pair.configuration());
    await_up(&daemon.ctl(), &["uplink"]);
    pair.await_overlay();
    let far = FAR.parse().expect("an address");
    assert_exchange(&pair.container.namespace, other, far, 7, 20 << 20);
    assert_conserved(&daemon.ctl());
    daemon.kill();
    assert!(pings(host, "192.0.2.2".parse().expect("an address")), "the host is cut off by a crash");
    daemon.start_again();
    pair.await_overlay();
    daemon.stop();
    assert!(pings(host, "192.0.2.2".parse().expect("an address")));
    daemon.start_again();
    pair.await_overlay();

    let report: Value = serde_json::from_str(&client.join().expect("iperf3 ends well")).expect("JSON");
    let intervals = report["intervals"].as_array().expect("iperf3 lists intervals");
    assert!(intervals.len() >= 11, "{report}");
    for interval in intervals {
        assert!(interval["sum"]["bytes"].as_u64() > Some(0), "the session stood still: {interval}");
    }
    drop(server);
    daemon.stop();
}

#[test]
fn the_host_keeps_what_is_not_a_tunnels() {
    let pair = Pair::new("sharedrest");
    let mut daemon = pair.lab.start(&pair.configuration());
    pair.await_overlay();
    let received = |daemon: &Daemon| daemon.ctl().port("uplink").expect("it is listed")["rx_frames"].as_u64();
    let before = received(&daemon);
    for address in ["192.0.2.2", "2001:db8::2"] {
        await_ping(&pair.lab.host, address.parse().expect("an address"));
    }
    for address in ["192.0.2.1", "2001:db8::1"] {
        await_ping(&pair.other, address.parse().expect("an address"));
    }
    let tcp =
        iperf(&pair.lab.host, &pair.other, "192.0.2.2".parse().expect("an address"), &["-t", "1", "-R"]);
    assert!(tcp["end"]["sum_received"]["bytes"].as_u64() > Some(1 << 20), "{tcp}");
    // The container's own stack says something now and then, the host's thousands of frames are not among it.
    let seen = received(&daemon).expect("a number") - before.expect("a number");
    assert!(seen < 50, "{seen} frames of the host came to the switch");
    assert!(pair.neighbour().contains("managed"), "{}", pair.neighbour());
    daemon.stop();
    assert!(!pair.neighbour().contains("managed"), "{}", pair.neighbour());
    let programs = pair.lab.host.ip("link show up0");
    assert!(!programs.contains("xdp"), "{programs}");
}

#[test]
fn what_changes_in_the_kernel_is_followed() {
    let pair = Pair::new("sharedmove");
    let mut daemon = pair.lab.start(&pair.configuration());
    let ctl = daemon.ctl();
    pair.await_overlay();
    let host = &pair.lab.host;

    host.ip("address del 192.0.2.1/24 dev up0");
    await_reason(&ctl, "no route to 192.0.2.2");
    host.ip("address add 192.0.2.1/24 dev up0");
    pair.await_overlay();

    host.ip("link set up0 down");
    await_reason(&ctl, "down");
    host.ip("link set up0 up");
    pair.await_overlay();

    host.ip("route add 192.0.2.2/32 dev lo");
    await_reason(&ctl, "another device");
    host.ip("route del 192.0.2.2/32 dev lo");
    pair.await_overlay();

    // Another address of the neighbour.
    pair.other.ip("link set up0 address 02:00:00:00:77:77");
    host.ip("neighbour del 192.0.2.2 dev up0");
    wait_until("the new neighbour is known", SOON, || {
        ctl.json(&["tunnel", "show", "dc"])["remotes"][0]["mac"] == "02:00:00:00:77:77"
    });
    pair.await_overlay();

    host.ip("route add 192.0.2.2/32 dev up0 mtu 1400");
    wait_until("the route's MTU is known", SOON, || {
        ctl.json(&["tunnel", "show", "dc"])["remotes"][0]["mtu"] == 1400
    });
    host.ip("route del 192.0.2.2/32 dev up0");

    // Neither a smaller nor a larger MTU of the device interrupts anything.
    let pings =
        Pings::start(&pair.container.namespace, FAR.parse().expect("an address"), Duration::from_millis(5));
    pings.await_answers(5);
    for mtu in [1420, 1500, 3000] {
        host.ip(&format!("link set up0 mtu {mtu}"));
        wait_until(&format!("an MTU of {mtu} is known"), SOON, || {
            let tunnel = ctl.json(&["tunnel", "show", "dc"]);
            let port = ctl.port("uplink").expect("it is listed");
            (&tunnel["remotes"][0]["mtu"], &port["mtu"], &port["state"])
                == (&mtu.into(), &mtu.into(), &"up".into())
        });
    }
    pings.await_answers(5);
    let answers: Vec<u32> = pings.answers().iter().map(|answer| answer.number).collect();
    let lost = answers.windows(2).map(|pair| pair[1] - pair[0] - 1).max();
    assert_eq!(lost, Some(0), "{answers:?}");
    assert!(!daemon.messages().contains("is up again"), "{}", daemon.messages());
    daemon.stop();
}

/// The MTU of a container's interface, as its kernel has it.
fn interface_mtu(container: &Container) -> Value {
    let links: Value =
        serde_json::from_str(&container.namespace.ip("-json link show eth0")).expect("ip prints JSON");
    links[0]["mtu"].clone()
}

#[test]
fn a_container_is_made_with_what_tunnels_leave() {
    let pair = Pair::new("sharedmtu");
    let containers = [
        pair.lab.container("tap", Attachment::Tap, 0),
        pair.lab.container("veth", Attachment::VethPacket, 0),
    ];
    let ports: String =
        containers.iter().map(|container| container.port("").replace("mtu = 0\n", "")).collect();
    let mut daemon = pair.lab.start(&configuration(&ports, "vxlan", "192.0.2.2"));
    let all_have = |daemon: &Daemon, mtu: u32| {
        for container in &containers {
            await_up(&daemon.ctl(), &[&container.name]);
            assert_eq!(interface_mtu(container), mtu, "{}", container.name);
            assert_eq!(daemon.ctl().port(&container.name).expect("it is listed")["mtu"], mtu);
        }
    };
    all_have(&daemon, 1450);
    for container in &containers {
        await_ping(&container.namespace, FAR.parse().expect("an address"));
        // As large as can be, with headers of 28 bytes.
        container.namespace.run(&format!("ping -n -q -c 1 -W 5 -M do -s {} {FAR}", 1450 - 28));
    }
    daemon.stop();
    pair.lab.host.ip("link set up0 mtu 1400");
    daemon.start_again();
    all_have(&daemon, 1350);
    daemon.stop();
}

#[test]
fn an_uplink_comes_back_with_its_interface() {
    let pair = Pair::new("sharedagain");
    let mut daemon = pair.lab.start(&pair.configuration());
    let ctl = daemon.ctl();
    pair.await_overlay();
    let far = FAR.parse().expect("an address");
    let pings = Pings::start(&pair.container.namespace, far, Duration::from_millis(20));
    pings.await_answers(1);
    pair.lab.host.ip("link del up0");
    wait_until("the port is down", SOON, || ctl.port("uplink").expect("it is listed")["state"] == "down");
    wire(&pair.lab.host, &pair.other);
    await_ping(&pair.lab.host, "192.0.2.2".parse().expect("an address"));
    let start = Instant::now();
    pings.await_answers(1);
    let took = start.elapsed();
    println!("back {took:?} after the host's own pings");
    assert!(took < BACK, "{took:?}");
    daemon.stop();
}

#[test]
fn an_uplink_comes_back_with_its_namespace_and_its_udp_port_too() {
    let pair = Pair::new("sharedspace");
    let edge = Namespace::new("edge");
    pair.lab.host.ip("link del up0");
    wire(&edge, &pair.other);
    let device = format!("device = \"up0\"\nnetns = \"{}\"", edge.name());
    let mut daemon = pair.lab.start(&pair.configuration().replace("device = \"up0\"", &device));
    pair.await_overlay();
    edge.delete();
    pair.other.ip("link del up0");
    edge.create_again();
    wire(&edge, &pair.other);
    pair.await_overlay();
    wait_until("the UDP port is taken", SOON, || edge.run("ss -uln").contains(":4789"));
    daemon.stop();
}

#[test]
fn a_vlan_without_a_device_of_the_host_is_named() {
    let pair = Pair::new("sharedvlan");
    let mut daemon = pair.lab.start(&pair.configuration().replace("[[tunnel]]", "vlan = 10\n[[tunnel]]"));
    await_reason(&daemon.ctl(), "no device for VLAN 10");
    daemon.stop();
}

#[test]
fn a_vxlan_device_of_the_kernel_on_the_port_is_named() {
    let pair = Pair::new("sharedport");
    pair.lab.host.ip("link add vx9 type vxlan id 9 local 192.0.2.1 dstport 4789");
    pair.lab.host.ip("link set vx9 up");
    let failure = Daemon::attempt(&pair.lab.host, pair.lab.folder(), &pair.configuration(), &[])
        .expect_err("the port is taken");
    assert!(failure.contains("vx9") && failure.contains("4789"), "{failure}");
    pair.lab.host.ip("link del vx9");
    let mut daemon = pair.lab.start(&pair.configuration());
    pair.await_overlay();
    // Now the port is ours.
    pair.lab.host.ip("link add vx9 type vxlan id 9 local 192.0.2.1 dstport 4789");
    assert!(!pair.lab.host.succeeds("ip link set vx9 up"), "two have UDP port 4789");
    daemon.stop();
}

/// Two hosts that share their uplinks with a switch of ours each, and two routers between them.
struct Routed {
    containers: [Container; 2],
    daemons: [Daemon; 2],
    routers: [Namespace; 2],
    /// The tunnels' ends.
    hosts: [String; 2],
    _labs: [Lab; 2],
}

impl Routed {
    /// With tunnels of a type over IPv4 or IPv6.
    fn new(kind: &str, family: u8) -> Self {
        let labs = [Lab::new("near"), Lab::new("far")];
        let routers = [Namespace::new("first"), Namespace::new("second")];
        let containers = ["near", "far"].map(|name| labs[0].container(name, Attachment::Tap, 1500));
        let (length, forwarding) = match family {
            4 => (24, "net.ipv4.ip_forward=1"),
            _ => (64, "net.ipv6.conf.all.forwarding=1"),
        };
        // Networks 1 and 2 are the hosts', 3 is between the routers.
        let address = |network: usize, host: usize| match family {
            4 => format!("10.77.{network}.{host}"),
            _ => format!("2001:db8:{network}::{host}"),
        };
        let add = |namespace: &Namespace, device: &str, network: usize, host: usize| {
            let flags = if family == 4 { "" } else { "nodad" };
            let address = address(network, host);
            namespace.ip(&format!("address add {address}/{length} dev {device} {flags}"));
            namespace.ip(&format!("link set {device} up"));
        };
        routers[0].ip(&format!("link add mid type veth peer name mid netns {}", routers[1].name()));
        for (number, router) in routers.iter().enumerate() {
            let host = &labs[number].host;
            let (near, far) = (number + 1, 2 - number);
            host.ip(&format!("link add up0 type veth peer name down0 netns {}", router.name()));
            add(host, "up0", near, 1);
            add(router, "down0", near, 254);
            router.run(&format!("sysctl -qw {forwarding}"));
            add(router, "mid", 3, near);
            router.ip(&format!(
                "route add {}/{length} via {}",
                address(far, 0).replace("::0", "::"),
                address(3, far)
            ));
            host.ip(&format!("route add default via {}", address(near, 254)));
        }
        let hosts = [address(1, 1), address(2, 1)];
        let start = |number: usize| {
            labs[number].start(&configuration(&containers[number].port(""), kind, &hosts[1 - number]))
        };
        let daemons = [start(0), start(1)];
        Self { containers, daemons, routers, hosts, _labs: labs }
    }

    /// The path MTU that an end knows.
    fn mtu(&self, end: usize) -> Value {
        self.daemons[end].ctl().json(&["tunnel", "show", "dc"])["remotes"][0]["mtu"].clone()
    }

    /// What `tunnel ping` finds out.
    fn ping(&self, end: usize) -> Value {
        self.daemons[end].ctl().rows(&["tunnel", "ping", "dc"])[0].clone()
    }
}

/// Containers with the MTU of the underlay work at once; a narrow link in the middle is found out, and TCP goes on.
fn narrow_link(kind: &str, family: u8) {
    let mut routed = Routed::new(kind, family);
    let [near, far] = &routed.containers;
    for family in [4, 6] {
        await_ping(&near.namespace, far.address(family));
        let bytes = scaled(3_000_000, 30_000_000);
        let seen = assert_exchange(&near.namespace, &far.namespace, far.address(family), 1, bytes);
        println!("{kind}, IPv{family} inside: {:.2} Gbit/s", seen.rate());
    }
    let answer = routed.ping(0);
    assert!(answer["round_trip_ms"].as_f64().is_some_and(|time| time > 0.0), "{answer}");
    assert_eq!((&answer["mtu"], &answer["reason"]), (&Value::from(1500), &Value::Null), "{answer}");

    for router in &routed.routers {
        router.ip("link set mid mtu 1400");
    }
    for (family, seed) in [(4, 2), (6, 3)] {
        let start = Instant::now();
        assert_exchange(&near.namespace, &far.namespace, far.address(family), seed, 300_000);
        let took = start.elapsed();
        println!("{kind} after a link of 1400: IPv{family} inside took {took:?}");
        assert!(took < BACK, "IPv{family}: {took:?}");
    }
    for end in [0, 1] {
        assert_eq!(routed.mtu(end), 1400, "of {}", routed.hosts[end]);
    }
    let answer = routed.ping(0);
    assert_eq!((&answer["mtu"], &answer["reason"]), (&Value::from(1400), &Value::Null), "{answer}");
    for daemon in &mut routed.daemons {
        assert_conserved(&daemon.ctl());
        daemon.stop();
    }
}

#[test]
fn a_narrow_link_is_found_out_vxlan() {
    narrow_link("vxlan", 4);
}

#[test]
fn a_narrow_link_is_found_out_nvgre_over_ipv6() {
    narrow_link("nvgre", 6);
}

#[test]
fn a_narrow_link_is_found_out_geneve_over_ipv6() {
    narrow_link("geneve", 6);
}

/// An error of the first router as a frame: of so many bytes at most, about a tunnel's packet from and to.
fn too_big(mac: &str, mtu: u16, from: [u8; 4], to: [u8; 4], protocol: u8, port: u16) -> String {
    let mut error = vec![3, 4, 0, 0, 0, 0];
    error.extend(mtu.to_be_bytes());
    error.extend(ipv4_header(1500, protocol, from, to));
    error.extend([0xc0, 1]);
    error.extend(port.to_be_bytes());
    error.extend([5, 0xc8, 0, 0]);
    let error = with_sum(error, 2);
    let header = ipv4_header(20 + error.len() as u16, 1, [10, 77, 1, 254], [10, 77, 1, 1]);
    format!("{}0200000000fe0800{}", mac.replace(':', ""), to_hex(&[header, error].concat()))
}

#[test]
fn an_error_is_believed_if_it_quotes_a_tunnel_and_never_wholly() {
    let mut routed = Routed::new("vxlan", 4);
    wait_until("the way is known", SOON, || routed.mtu(0) == 1500);
    let router = &routed.routers[0];
    let mac = router.neighbour("10.77.1.1");
    let say = |mtu, from, to, protocol, port| {
        let frame = too_big(&mac, mtu, from, to, protocol, port);
        send_frames(router, "down0", &frame, 1);
    };
    let (ours, theirs, other) = ([10, 77, 1, 1], [10, 77, 2, 1], [10, 77, 1, 9]);
    say(700, ours, theirs, 17, 4790);
    say(700, ours, theirs, 6, 4789);
    say(700, ours, theirs, 47, 4789);
    say(700, other, theirs, 17, 4789);
    say(700, ours, other, 17, 4789);
    say(1500, ours, theirs, 17, 4789);
    say(1234, ours, theirs, 17, 4789);
    wait_until("the right one is believed", SOON, || routed.mtu(0) == 1234);
    say(100, ours, theirs, 17, 4789);
    wait_until("no path is smaller than 576", SOON, || routed.mtu(0) == 576);
    for daemon in &mut routed.daemons {
        daemon.stop();
    }
}

#[test]
fn a_ping_finds_a_narrow_link_before_any_frame_does_and_a_silent_remote_is_told() {
    let mut routed = Routed::new("vxlan", 4);
    wait_until("the way is known", SOON, || routed.mtu(0) == 1500);
    routed.routers[1].ip("link set mid mtu 1300");
    routed.routers[0].ip("link set mid mtu 1300");
    let answer = routed.ping(0);
    assert_eq!((&answer["mtu"], &answer["reason"]), (&Value::from(1300), &Value::Null), "{answer}");
    routed.routers[0].ip("link set mid down");
    let answer = routed.ping(0);
    assert!(answer["mtu"].is_null() && answer["round_trip_ms"].is_null(), "{answer}");
    assert!(answer["reason"].as_str().is_some_and(|reason| reason.contains("no answer")), "{answer}");
    for daemon in &mut routed.daemons {
        daemon.stop();
    }
}
