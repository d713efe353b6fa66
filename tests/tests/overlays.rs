//! Bridges that span hosts, over real kernels: a container on our switch and what stands at the other end of a tunnel.
//! That is the kernel's VXLAN device, or a second switch of ours behind two routers. Each underlay is the switch's
//! own: its uplink is a TAP whose other end is the network's.
//!
//! A normal run takes a fixed part of the table of foreign peers and small files; a full run takes all of it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use vswitch_tests::cases::{full, scaled};
use vswitch_tests::ctl::number;
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::namespace::{Namespace, messages};
use vswitch_tests::probe::frames::{ipv4_header, to_hex};
use vswitch_tests::traffic::{Pings, assert_exchange, await_ping, pings, probe_service, send_frames};
use vswitch_tests::wait::{BACK, SOON};
use vswitch_tests::{Attachment, Container, Ctl, Daemon, Lab, wait_until};

/// Our address on the underlay, and the other host's, by family.
const OURS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const THEIRS: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// The station behind the kernel's tunnel device.
const FAR: [&str; 2] = ["10.9.0.100", "fd09::100"];
const FAR_MAC: &str = "02:00:00:00:09:64";

/// A switch of ours: its container, the namespace that its uplink ends in, and the tunnel to the other end.
struct Site<'a> {
    workers: &'a str,
    container: &'a Container,
    network: &'a Namespace,
    /// Addresses with prefix lengths: the network's end of the uplink, and ours.
    uplink: [&'a str; 2],
    /// Further lines of the underlay's table.
    underlay: &'a str,
    /// The tunnel's type and further lines.
    tunnel: &'a str,
}

/// One with one worker, over IPv4.
fn site<'a>(container: &'a Container, network: &'a Namespace, tunnel: &'a str) -> Site<'a> {
    Site {
        workers: "[1]",
        container,
        network,
        uplink: ["192.0.2.2/24", "192.0.2.1/24"],
        underlay: "",
        tunnel,
    }
}

impl Site<'_> {
    /// Its configuration.
    fn text(&self) -> String {
        let Self { workers, container, network, uplink: [theirs, ours], underlay, tunnel } = self;
        format!(
            "[switch]\nworkers = {workers}\n[[bridge]]\nname = \"blue\"\nvni = 5001\n{}\
             [[port]]\nname = \"uplink\"\ntype = \"tap\"\nnetns = \"{}\"\nmtu = 1500\naddress = [\"{theirs}\"]\n\
             [[underlay]]\nname = \"core\"\nport = \"uplink\"\nshare = false\naddress = [\"{ours}\"]\n{underlay}\n\
             [[tunnel]]\nname = \"dc\"\nunderlay = \"core\"\n{tunnel}\n",
            container.port(""),
            network.name()
        )
    }
}

/// Prints what the switch knows when the test that holds it fails.
struct Report(Ctl);

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for what in ["drops", "tunnel list", "fdb list", "port list"] {
                let words: Vec<_> = what.split(' ').collect();
                eprintln!("{what}: {:#?}", self.0.rows(&words));
            }
        }
    }
}

/// A kernel's tunnel device at the other end, and how both are set up.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    /// 4 or 6: the underlay's.
    family: u8,
    checksum: bool,
    /// Stations are configured at both ends instead of learned.
    configured: bool,
}

impl Kernel {
    /// All of them.
    fn all() -> Vec<Self> {
        let bit = |number: u8, at: u8| number >> at & 1 != 0;
        let of = |number: u8| Self {
            family: if bit(number, 0) { 6 } else { 4 },
            checksum: bit(number, 1),
            configured: bit(number, 2),
        };
        (0..8).map(of).collect()
    }

    fn side(&self) -> usize {
        usize::from(self.family == 6)
    }

    /// Starts our end.
    fn start(&self, lab: &Lab, workers: &str, container: &Container, network: &Namespace) -> Daemon {
        let length = if self.family == 4 { 24 } else { 64 };
        let (ours, theirs) = (OURS[self.side()], THEIRS[self.side()]);
        let (checksum, learning) = (self.checksum, !self.configured);
        let tunnel = format!(
            "type = \"vxlan\"\nremote = [\"{theirs}\"]\nudp_checksum = {checksum}\nlearning = {learning}\n"
        );
        let station = format!(
            "[[fdb]]\nbridge = \"blue\"\nmac = \"{FAR_MAC}\"\ntunnel = \"dc\"\nremote = \"{theirs}\"\n"
        );
        let site = Site {
            workers,
            container,
            network,
            uplink: [&format!("{theirs}/{length}"), &format!("{ours}/{length}")],
            underlay: "",
            tunnel: &(if self.configured { tunnel + &station } else { tunnel }),
        };
        let daemon = lab.start(&site.text());
        await_up(&daemon.ctl(), &[&container.name, "uplink"]);
        daemon
    }

    /// Makes the kernel's end.
    fn make(&self, network: &Namespace, container: &Container) {
        let (ours, theirs) = (OURS[self.side()], THEIRS[self.side()]);
        let checksum = match self.checksum {
            true => "udpcsum noudp6zerocsumtx noudp6zerocsumrx",
            false => "noudpcsum udp6zerocsumtx udp6zerocsumrx",
        };
        let learning = if self.configured { "nolearning" } else { "learning" };
        network.ip(&format!(
            "link add vx0 address {FAR_MAC} type vxlan id 5001 local {theirs} dstport 4789 {checksum} {learning}"
        ));
        let zero = "00:00:00:00:00:00";
        network.run(&format!("bridge fdb append {zero} dev vx0 dst {ours}"));
        if self.configured {
            network.run(&format!("bridge fdb add {} dev vx0 dst {ours}", container.mac()));
        }
        network.ip(&format!("address add {}/24 dev vx0", FAR[0]));
        network.ip(&format!("address add {}/64 dev vx0 nodad", FAR[1]));
        // What IPv6 leaves for headers; over IPv4 the kernel's own choice is the same or higher.
        network.ip("link set vx0 mtu 1430 up");
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn kernel_vxlan(workers: &str, normal: &[usize]) {
    let all = Kernel::all();
    let rows = if full() { (0..all.len()).collect() } else { normal.to_vec() };
    for (number, row) in rows.into_iter().enumerate() {
        let kernel = all[row];
        let lab = Lab::new("vxlan");
        let (container, network) = (lab.container("near", Attachment::Tap, 1430), Namespace::new("vtep"));
        let mut daemon = kernel.start(&lab, workers, &container, &network);
        let report = Report(daemon.ctl());
        kernel.make(&network, &container);
        for family in [4, 6] {
            let far = address(FAR[usize::from(family == 6)]);
            await_ping(&container.namespace, far);
            let bytes = scaled(3_000_000, 30_000_000);
            let seed = number as u64;
            let out = assert_exchange(&container.namespace, &network, far, seed, bytes);
            let back =
                assert_exchange(&network, &container.namespace, container.address(family), seed, bytes);
            println!(
                "{kernel:?}, IPv{family} inside, workers {workers}: {:.2} and {:.2} Gbit/s",
                out.rate(),
                back.rate()
            );
        }
        assert_conserved(&daemon.ctl());
        drop(report);
        daemon.stop();
    }
}

// Bits of a row: IPv6 underlay, checksum, configured stations.

#[test]
fn kernel_vxlan_one_worker() {
    kernel_vxlan("[1]", &[0b000, 0b111]);
}

#[test]
fn kernel_vxlan_two_workers() {
    kernel_vxlan("[0, 1]", &[0b010, 0b101]);
}

#[test]
fn kernel_vxlan_four_workers() {
    kernel_vxlan("[0, 0, 1, 1]", &[0b001, 0b110]);
}

/// What is flooded goes to a multicast group, both ways, and is heard there.
#[test]
fn kernel_vxlan_with_a_multicast_group() {
    for (side, group) in ["239.1.1.1", "ff05::1:1"].into_iter().enumerate() {
        let lab = Lab::new("group");
        let (container, network) = (lab.container("near", Attachment::Tap, 1430), Namespace::new("vtep"));
        let (ours, theirs, length) = (OURS[side], THEIRS[side], [24, 64][side]);
        let site = Site {
            workers: "[1]",
            container: &container,
            network: &network,
            uplink: [&format!("{theirs}/{length}"), &format!("{ours}/{length}")],
            underlay: "",
            tunnel: &format!(
                "type = \"vxlan\"\nlocal = \"{ours}\"\nremote = [\"{theirs}\"]\ngroup = \"{group}\"\n\
                 udp_checksum = true\n"
            ),
        };
        let mut daemon = lab.start(&site.text());
        let (ctl, report) = (daemon.ctl(), Report(daemon.ctl()));
        await_up(&ctl, &[&container.name, "uplink"]);
        network.ip(&format!(
            "link add vx0 address {FAR_MAC} type vxlan id 5001 local {theirs} group {group} dev eth0 dstport 4789 udpcsum"
        ));
        let far = address(FAR[0]);
        network.ip(&format!("address add {far}/24 dev vx0"));
        network.ip("link set vx0 mtu 1430 up");
        // Our question goes to the group, and so does its own.
        await_ping(&container.namespace, far);
        network.ip("neighbour flush dev vx0");
        await_ping(&network, container.v4);
        let remotes = &ctl.json(&["tunnel", "show", "dc"])["remotes"];
        assert_eq!((remotes[1]["address"].as_str(), remotes[1]["state"].as_str()), (Some(group), Some("up")));
        assert!(remotes[1]["tx_frames"].as_u64() > Some(0), "{remotes:#}");
        assert_eq!(ctl.drops(None, "unknown-vtep"), 0);
        assert_conserved(&ctl);
        drop(report);
        daemon.stop();
    }
}

/// A kernel's mark is the group that its frames carry, and the group that they carry becomes its mark.
#[test]
fn kernel_vxlan_with_policy_groups() {
    let lab = Lab::new("gbp");
    let (container, network) = (lab.container("near", Attachment::Tap, 1430), Namespace::new("vtep"));
    let tunnel = format!("type = \"vxlan\"\nremote = [\"{}\"]\ngbp = true\n", THEIRS[0]);
    let site = site(&container, &network, &tunnel);
    let port = "bridge = \"blue\"\n";
    let mut daemon = lab.start(&site.text().replacen(port, &format!("{port}policy_group = 7\n"), 1));
    let (ctl, report) = (daemon.ctl(), Report(daemon.ctl()));
    await_up(&ctl, &[&container.name, "uplink"]);
    let (ours, theirs) = (OURS[0], THEIRS[0]);
    network.ip(&format!(
        "link add vx0 address {FAR_MAC} type vxlan id 5001 local {theirs} remote {ours} dstport 4789 gbp"
    ));
    network.run("sysctl -qw net.ipv6.conf.vx0.disable_ipv6=1");
    let far = address(FAR[0]);
    network.ip(&format!("address add {far}/24 dev vx0"));
    network.run(
        "nft add table ip hearing { chain in { type filter hook input priority 0 ; iifname vx0 meta mark 7 counter ; } ; }",
    );
    let mark = |mark: u32| {
        let chain = "type route hook output priority 0 ; oifname vx0";
        network.run(&format!(
            "nft add table ip marking {{ chain out {{ {chain} meta mark set {mark:#x} ; }} ; }}"
        ));
    };
    // Group 9; its sender shall not be learned.
    mark(0x40_0009);
    // No ARP: marks are those of IP packets.
    network.ip("link set vx0 mtu 1430 up");
    network.ip(&format!("neighbour add {} lladdr {} dev vx0", container.v4, container.mac()));
    container.namespace.ip(&format!("neighbour add {far} lladdr {FAR_MAC} dev eth0"));
    let is_known = || ctl.rows(&["fdb", "list"]).iter().any(|entry| entry["mac"] == FAR_MAC);
    await_ping(&container.namespace, far);
    let seen = network.run("nft list chain ip hearing in");
    assert!(!seen.contains("counter packets 0"), "our group is its mark: {seen}");
    assert!(!is_known(), "it asked not to be learned");
    network.run("nft delete table ip marking");
    mark(9);
    await_ping(&container.namespace, far);
    assert!(is_known());
    assert_conserved(&ctl);
    drop(report);
    daemon.stop();
}

/// Two hosts with a switch of ours each, and two routers between them.
struct Routed {
    near: Container,
    far: Container,
    daemons: [Daemon; 2],
    routers: [Namespace; 2],
    _labs: [Lab; 2],
}

impl Routed {
    fn new(kind: &str, workers: &str) -> Self {
        let labs = [Lab::new("near"), Lab::new("far")];
        let routers = [Namespace::new("first"), Namespace::new("second")];
        let near = labs[0].container("near", Attachment::Tap, 1500);
        let far = labs[0].container("far", Attachment::Tap, 1500);
        routers[0].ip(&format!("link add mid type veth peer name mid netns {}", routers[1].name()));
        for (number, router) in routers.iter().enumerate() {
            router.run("sysctl -qw net.ipv4.ip_forward=1");
            router.ip(&format!("address add 203.0.113.{}/24 dev mid", number + 1));
            router.ip("link set mid up");
            router.ip(&format!("route add 192.0.2.{}/25 via 203.0.113.{}", 128 * (1 - number), 2 - number));
        }
        let start = |number: usize, container: &Container| {
            let host = |number: usize| format!("192.0.2.{}", 128 * number + 1);
            let gateway = format!("192.0.2.{}", 128 * number + 2);
            let site = Site {
                workers,
                container,
                network: &routers[number],
                uplink: [&format!("{gateway}/25"), &format!("{}/25", host(number))],
                underlay: &format!("route = [{{to = \"0.0.0.0/0\", via = \"{gateway}\"}}]"),
                tunnel: &format!("type = \"{kind}\"\nremote = [\"{}\"]", host(1 - number)),
            };
            let daemon = labs[number].start(&site.text());
            await_up(&daemon.ctl(), &[&container.name, "uplink"]);
            daemon
        };
        let daemons = [start(0, &near), start(1, &far)];
        Self { near, far, daemons, routers, _labs: labs }
    }

    fn reports(&self) -> [Report; 2] {
        self.daemons.each_ref().map(|daemon| Report(daemon.ctl()))
    }

    fn finish(mut self) {
        for daemon in &mut self.daemons {
            assert_conserved(&daemon.ctl());
            daemon.stop();
        }
    }
}

/// Two switches of ours, routers between them; containers with the MTU of the underlay work at once.
fn routed(kind: &str, workers: &str) {
    let pair = Routed::new(kind, workers);
    let reports = pair.reports();
    let (near, far) = (&pair.near, &pair.far);
    for family in [4, 6] {
        await_ping(&near.namespace, far.address(family));
        let bytes = scaled(3_000_000, 30_000_000);
        let out = assert_exchange(&near.namespace, &far.namespace, far.address(family), 1, bytes);
        let back = assert_exchange(&far.namespace, &near.namespace, near.address(family), 2, bytes);
        println!("{kind}, IPv{family} inside: {:.2} and {:.2} Gbit/s", out.rate(), back.rate());
    }
    let shown = pair.daemons[0].ctl().json(&["tunnel", "show", "dc"]);
    let (vni, remote) = (&shown["vnis"][0], &shown["remotes"][0]);
    for direction in ["rx", "tx"] {
        let (frames, bytes) = (format!("{direction}_frames"), format!("{direction}_bytes"));
        // One remote, one VNI; between the two readings a frame more may have passed.
        assert!(number(vni, &frames) > 0 && number(vni, &bytes) > 100 * number(vni, &frames), "{vni}");
        assert!(number(vni, &frames).abs_diff(number(remote, &frames)) < 10, "{vni} {remote}");
    }
    drop(reports);
    pair.finish();
}

#[test]
fn two_switches_over_routers_vxlan() {
    routed("vxlan", "[0, 1]");
}

#[test]
fn two_switches_over_routers_nvgre() {
    routed("nvgre", "[1]");
}

#[test]
fn two_switches_over_routers_geneve() {
    routed("geneve", "[0, 0, 1, 1]");
}

#[test]
fn a_packet_that_may_not_be_cut_is_too_long_once() {
    let pair = Routed::new("vxlan", "[1]");
    let reports = pair.reports();
    let (near, far) = (&pair.near, &pair.far);
    for (family, size, header) in [(4, 1472, 28), (6, 1452, 48)] {
        let to = far.address(family);
        await_ping(&near.namespace, to);
        let ping = |size: u32, count: u32| {
            let line = format!("-n -M do -c {count} -i 0.2 -W 1 -s {size} {to}");
            let output = near.namespace.command("ping").args(line.split(' ')).output().expect("ping starts");
            (output.status.success(), messages(&output))
        };
        // The first is answered by the switch; the kernel of the container knows from then on.
        let (answered, said) = ping(size, 3);
        assert!(!answered && said.contains("mtu") && said.contains("1450"), "IPv{family}: {said}");
        let (answered, said) = ping(1450 - header, 1);
        assert!(answered, "IPv{family}: {said}");
    }
    drop(reports);
    pair.finish();
}

#[test]
fn a_narrow_link_in_the_middle_is_found_out_and_tcp_goes_on() {
    let pair = Routed::new("vxlan", "[1]");
    let reports = pair.reports();
    let (near, far) = (&pair.near, &pair.far);
    await_ping(&near.namespace, far.v4);
    assert_exchange(&near.namespace, &far.namespace, far.v4, 1, 1_000_000);
    for router in &pair.routers {
        router.ip("link set mid mtu 1400");
    }
    for (family, seed) in [(4, 2), (6, 3)] {
        let start = Instant::now();
        assert_exchange(&near.namespace, &far.namespace, far.address(family), seed, 300_000);
        let took = start.elapsed();
        println!("after a link of 1400: IPv{family} took {took:?}");
        assert!(took < BACK, "IPv{family}: {took:?}");
    }
    drop(reports);
    pair.finish();
}

/// A broadcast frame of a test's EtherType, full of `mark`s, in VXLAN over IPv4, as the other host's kernel would send it.
fn tunnel_frame(to: &str, mark: u8, source: [u8; 4], protocol: u8, port: u16, vni: u32) -> String {
    let mut inner = vec![0xff; 6];
    inner.extend([2, 0, 0, 0, 9, 0x65, 0x88, 0xb5]);
    inner.resize(60, mark);
    let vni = vni.to_be_bytes();
    let mut packet = vec![];
    if protocol == 17 {
        packet.extend(50_000_u16.to_be_bytes());
        packet.extend(port.to_be_bytes());
        packet.extend((8 + 8 + inner.len() as u16).to_be_bytes());
        packet.extend([0, 0, 8, 0, 0, 0]);
        packet.extend([vni[1], vni[2], vni[3], 0]);
    } else {
        packet.extend([0x20, 0, 0x65, 0x58, vni[1], vni[2], vni[3], 0]);
    }
    packet.extend(inner);
    let header = ipv4_header(20 + packet.len() as u16, protocol, source, [192, 0, 2, 1]);
    format!("{}0200000000fe0800{}", to.replace(':', ""), to_hex(&[header, packet].concat()))
}

#[test]
fn what_no_peer_of_ours_sends_does_not_get_in() {
    let kernel = Kernel { family: 4, checksum: false, configured: false };
    let lab = Lab::new("admit");
    let (container, network) = (lab.container("near", Attachment::Tap, 1430), Namespace::new("vtep"));
    let mut daemon = kernel.start(&lab, "[1]", &container, &network);
    let (ctl, report) = (daemon.ctl(), Report(daemon.ctl()));
    await_ping(&network, address(OURS[0]));
    let mac = network.neighbour(OURS[0]);
    let send = |mark, source, protocol, port, vni, count: u64| {
        let frame = tunnel_frame(&mac, mark, source, protocol, port, vni);
        send_frames(&network, "eth0", &frame, count);
    };
    let right = [192, 0, 2, 2];
    let watch = probe_service(&container.namespace, &["frame-watch", "eth0", "88b5", "5000"]);
    // A million that the switch has looked at: the TAP's queue in the kernel may lose some of what is sent.
    let count = 250_000;
    for (reason, source, protocol, port, vni) in [
        ("unknown-vtep", [192, 0, 2, 99], 17, 4789, 5001),
        ("unknown-vni", right, 17, 4789, 5002),
        ("unclaimed", right, 17, 4790, 5001),
        ("unclaimed", right, 47, 0, 5001),
    ] {
        let wanted = ctl.drops(None, reason) + count;
        wait_until(&format!("{count} frames are dropped as {reason}"), SOON, || {
            send(0xbb, source, protocol, port, vni, 50_000);
            // One that is right, to see that the watcher would see.
            send(0xaa, right, 17, 4789, 5001, 1);
            ctl.drops(None, reason) >= wanted
        });
    }
    // The watcher was there to the end.
    send(0xcc, right, 17, 4789, 5001, 1);
    let seen = watch.finish(SOON);
    let frames: Vec<&str> = seen.lines().collect();
    println!("{} frames that were right came in", frames.len());
    let (last, others) = frames.split_last().expect("frames that were right");
    assert!(last.ends_with("cccc") && others.len() > 4, "{seen}");
    assert!(others.iter().all(|frame| frame.ends_with("aaaa")), "{seen}");
    assert_conserved(&ctl);
    drop(report);
    daemon.stop();
}

/// The tunnel is configured without a remote: who is let in, and who is where, only a controller says.
#[test]
fn a_controller_says_who_is_where() {
    let kernel = Kernel { family: 4, checksum: false, configured: true };
    let lab = Lab::new("control");
    let (container, network) = (lab.container("near", Attachment::Tap, 1430), Namespace::new("vtep"));
    let site = site(&container, &network, "type = \"vxlan\"\nlearning = false\n");
    let mut daemon = lab.start(&site.text());
    let (ctl, report) = (daemon.ctl(), Report(daemon.ctl()));
    await_up(&ctl, &[&container.name, "uplink"]);
    kernel.make(&network, &container);
    let far = format!(
        "{{\"bridge\":\"blue\",\"mac\":\"{FAR_MAC}\",\"tunnel\":\"dc\",\"remote\":\"{}\",\"ip\":\"{}\"}}\n",
        THEIRS[0], FAR[0]
    );
    let load = |text: &str| {
        ctl.attempt(&["fdb", "load", &lab.write("entries", text), "--origin", "evpn", "--replace"])
    };
    let refusal = load(&(far.clone() + &far.replace("dc", "cd"))).expect_err("there is no such tunnel");
    for says in [r#""line":2"#, r#"nearest is \"dc\""#] {
        assert!(refusal.text.contains(says), "{}", refusal.text);
    }
    assert!(!pings(&container.namespace, address(FAR[0])));
    assert_eq!(load(&far).expect("it can be")["changed"], 1);
    await_ping(&container.namespace, address(FAR[0]));
    let rows = ctl.rows(&["fdb", "list", "--mac", FAR_MAC]);
    assert_eq!((rows.len(), &rows[0]["kind"], &rows[0]["origin"]), (1, &"loaded".into(), &"evpn".into()));
    let neighbours = ctl.rows(&["neighbour", "list", "--ip", FAR[0]]);
    assert_eq!((&neighbours[0]["origin"], &neighbours[0]["remote"]), (&"api".into(), &THEIRS[0].into()));
    assert_eq!(load("").expect("it can be")["removed"], 1);
    assert!(!pings(&container.namespace, address(FAR[0])));
    let refused = || ctl.drops(None, "unknown-vtep") + ctl.drops(None, "unclaimed");
    let before = refused();
    wait_until("its frames are not let in any more", SOON, || {
        assert!(!pings(&network, container.v4));
        refused() > before
    });
    assert_conserved(&ctl);
    drop(report);
    daemon.stop();
}

#[test]
fn the_underlay_changes_under_traffic() {
    let kernel = Kernel { family: 4, checksum: false, configured: false };
    let lab = Lab::new("changes");
    let (container, network) = (lab.container("near", Attachment::Tap, 1430), Namespace::new("vtep"));
    let mut daemon = kernel.start(&lab, "[1]", &container, &network);
    let report = Report(daemon.ctl());
    kernel.make(&network, &container);
    await_ping(&container.namespace, address(FAR[0]));
    let pings = Pings::start(&container.namespace, address(FAR[0]), Duration::from_millis(20));
    pings.await_answers(5);
    // As a host does whose address moves to another card: it says so.
    network.run("sysctl -qw net.ipv4.conf.eth0.arp_notify=1");
    network.ip("link set eth0 address 02:00:00:00:00:77");
    pings.assert_back("another MAC of the neighbour");
    network.ip("link set eth0 down");
    std::thread::sleep(Duration::from_millis(300)); // as long as it is to be down
    network.ip("link set eth0 up");
    pings.assert_back("link down and up");
    assert_conserved(&daemon.ctl());
    drop(report);
    daemon.stop();
}
