//! Underlays that misbehave, and that change: a wire that loses, doubles and disorders frames, and addresses, routes,
//! neighbours, MTUs and devices that go and come back under traffic. The other end is a kernel's VXLAN device behind a
//! gateway; the wire to it is a namespace that passes frames on by netfilter, or does not.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::namespace::Namespace;
use vswitch_tests::traffic::{Pings, assert_exchange, await_ping, probe_service};
use vswitch_tests::wait::{SOON, comes_true, wait_until};
use vswitch_tests::{Attachment, Container, Ctl, Daemon, Lab};

/// The station behind the tunnel.
const FAR: &str = "10.9.0.100";

fn far() -> IpAddr {
    FAR.parse().expect("an address")
}

/// A host with a container and an uplink of the switch's own, a wire, and another host.
struct Rig {
    container: Container,
    wire: Namespace,
    vtep: Namespace,
    lab: Lab,
}

impl Rig {
    fn new(tag: &str) -> Self {
        let lab = Lab::new(tag);
        let container = lab.container("near", Attachment::Tap, 1500);
        let rig = Self { container, wire: Namespace::new("wire"), vtep: Namespace::new("vtep"), lab };
        rig.make_uplink();
        let Self { wire, vtep, .. } = &rig;
        wire.ip(&format!("link add right type veth peer name eth0 netns {}", vtep.name()));
        wire.ip("link add detour0 type veth peer name detour1");
        for device in ["right", "detour0", "detour1"] {
            wire.ip(&format!("link set {device} addrgenmode none up"));
        }
        vtep.ip("address add 198.51.100.1/32 dev lo");
        vtep.ip("address add 192.0.2.2/24 dev eth0");
        vtep.run("sysctl -qw net.ipv4.conf.eth0.arp_notify=1");
        vtep.ip("link set eth0 up");
        vtep.ip("link add vx0 mtu 1450 type vxlan id 5001 local 198.51.100.1 remote 192.0.2.1 dstport 4789");
        vtep.ip(&format!("address add {FAR}/24 dev vx0"));
        vtep.ip("link set vx0 up");
        rig.pass("");
        rig
    }

    /// The switch's device, and the other end of it, on the wire.
    fn make_uplink(&self) {
        self.lab.host.ip(&format!("link add up0 type veth peer name left netns {}", self.wire.name()));
        // A card would complete the checksums that the pair leaves to the other end.
        self.lab.host.run("ethtool -K up0 tx off");
        self.lab.host.ip("link set up0 addrgenmode none up");
        self.wire.ip("link set left addrgenmode none up");
    }

    /// What the wire does with a frame before it passes it on, by nftables; `OUT` is where that would be.
    fn pass(&self, fate: &str) {
        let chain = |name: &str, from: &str, to: &str| {
            let fate = fate.replace("OUT", to);
            format!(
                "chain {name} {{ type filter hook ingress device \"{from}\" priority 0; {fate} fwd to \"{to}\"; }}\n"
            )
        };
        let both = chain("there", "left", "right") + &chain("back", "right", "left");
        let text =
            format!("table netdev wire {{ }}\ndelete table netdev wire\ntable netdev wire {{\n{both}}}\n");
        self.wire.run(&format!("nft -f {}", self.lab.write("wire.nft", &text)));
    }

    /// The configuration, with this line of the underlay's addresses and this route.
    fn text(&self, addresses: &str, route: &str) -> String {
        format!(
            "[switch]\nworkers = [1]\n[[bridge]]\nname = \"blue\"\nvni = 5001\n{}\
             [[port]]\nname = \"uplink\"\ntype = \"packet\"\ndevice = \"up0\"\n\
             [[underlay]]\nname = \"core\"\nport = \"uplink\"\nshare = false\naddress = [{addresses}]\nroute = [{route}]\n\
             [[tunnel]]\nname = \"dc\"\ntype = \"vxlan\"\nunderlay = \"core\"\nremote = [\"198.51.100.1\"]\n",
            self.container.port("")
        )
    }

    /// What the configuration is when nothing is wrong.
    fn right_text(&self) -> String {
        self.text(OURS, ROUTE)
    }

    fn start(&self) -> Daemon {
        let daemon = self.lab.start(&self.right_text());
        await_up(&daemon.ctl(), &["near", "uplink"]);
        await_ping(&self.container.namespace, far());
        daemon
    }
}

const OURS: &str = "\"192.0.2.1/24\"";
const ROUTE: &str = "{to = \"198.51.100.0/24\", via = \"192.0.2.2\"}";

/// A counter of the kernel's TCP.
fn tcp_counter(inside: &Namespace, name: &str) -> u64 {
    let text = inside.run("cat /proc/net/netstat");
    let lines: Vec<Vec<&str>> = text.lines().take(2).map(|line| line.split(' ').collect()).collect();
    let at = lines[0].iter().position(|field| *field == name).expect("the kernel counts it");
    lines[1][at].parse().expect("a number")
}

/// What the switch remembers stays as small as the network is.
fn assert_small(ctl: &Ctl) {
    let sizes = ["fdb", "neighbour", "flow"].map(|table| ctl.rows(&[table, "list"]).len());
    println!("entries of FDB, neighbour table and flow caches: {sizes:?}");
    // Two stations, a few groups that the kernels' multicast goes to, and both directions of it all.
    let [stations, neighbours, flows] = sizes;
    assert!((2..=4).contains(&stations) && neighbours <= 8 && flows <= 60, "{sizes:?}");
    let events = ctl.rows(&["events"]);
    assert!(events.is_empty(), "{events:#?}");
}

#[test]
fn a_wire_that_loses_doubles_and_disorders_frames_ends_no_session_and_fills_no_table() {
    let rig = Rig::new("wire");
    let mut daemon = rig.start();
    let (ctl, near) = (daemon.ctl(), &rig.container.namespace);
    const LOSSY: &str = "numgen random mod 100 < 20 drop; numgen random mod 100 < 20 dup to \"OUT\";";
    rig.pass(LOSSY);
    thread::scope(|scope| {
        let session = scope.spawn(|| assert_exchange(near, &rig.vtep, far(), 1, 3_000_000));
        let command = format!("ping -n -q -i 0.01 -c 300 -W 1 {FAR}");
        let output =
            near.command("sh").args(["-c", &format!("{command}; true")]).output().expect("ping starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let answered = number_before(&said, " received");
        println!(
            "{answered} of 300 pings answered, {} answers too many",
            number_before(&said, " duplicates")
        );
        // 64 of 100 are to be expected.
        assert!((120..=260).contains(&answered) && number_before(&said, " duplicates") > 20, "{said}");
        assert_eq!(ctl.json(&["tunnel", "show", "dc"])["state"], "up");
        rig.pass("");
        session.join().expect("the session goes on");
    });
    assert_small(&ctl);

    let before = tcp_counter(&rig.vtep, "TCPOFOQueue");
    // Those that make a detour through a program fall behind.
    let _relay = probe_service(&rig.wire, &["frame-relay", "detour1", "right"]);
    rig.pass("iifname \"left\" numgen random mod 100 < 20 fwd to \"detour0\";");
    assert_exchange(near, &rig.vtep, far(), 2, 3_000_000);
    let late = tcp_counter(&rig.vtep, "TCPOFOQueue") - before;
    println!("{late} segments came before an earlier one");
    assert!(late > 10, "nothing was out of order");
    assert_small(&ctl);
    assert_conserved(&ctl);
    daemon.stop();
}

/// The number in front of a word, or 0 where that is not.
fn number_before(text: &str, word: &str) -> usize {
    let before = text.split_once(word).map_or("0", |(before, _)| before);
    before.rsplit([' ', '+']).next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Pings under way while something changes.
struct Change<'a> {
    ctl: &'a Ctl,
    pings: Pings,
}

impl Change<'_> {
    /// Waits until the tunnel is said to be down, and why.
    fn await_reason(&self, what: &str, reason: &str) {
        let (mut last, start) = (Value::Null, Instant::now());
        let is_told = comes_true(SOON, || {
            last = self.ctl.json(&["tunnel", "show", "dc"])["reason"].take();
            last.as_str().is_some_and(|text| text.contains(reason))
        });
        assert!(is_told, "{what}: the tunnel's reason is {last} instead of {reason:?}");
        println!("{what}: {last} after {:?}", start.elapsed());
    }

    /// Waits until pings are answered again, which may not take long.
    fn assert_back(&self, what: &str) {
        self.pings.assert_back(what);
        assert!(self.ctl.json(&["tunnel", "show", "dc"])["reason"].is_null(), "{what}");
    }
}

#[test]
fn what_changes_under_a_tunnel_is_named_and_traffic_comes_back_with_it() {
    let rig = Rig::new("change");
    let mut daemon = rig.start();
    let ctl = daemon.ctl();
    let apply = |text: String| {
        let file = rig.lab.write("new.toml", &text);
        ctl.text(&["apply", &file]);
    };
    let pings = Pings::start(&rig.container.namespace, far(), Duration::from_millis(20));
    pings.await_answers(5);
    let change = Change { ctl: &ctl, pings };

    apply(rig.text(OURS, ""));
    change.await_reason("no route", "no route to 198.51.100.1");
    apply(rig.right_text());
    change.assert_back("no route");

    apply(rig.text("\"192.0.3.1/24\"", &ROUTE.replace("192.0.2", "192.0.3")));
    change.await_reason("another address", "192.0.3.2 ");
    apply(rig.right_text());
    change.assert_back("another address");

    rig.lab.host.ip("link set up0 down");
    change.await_reason("link down", "set down");
    rig.lab.host.ip("link set up0 up");
    change.assert_back("link down");

    rig.lab.host.ip("link delete up0");
    change.await_reason("no device", "up0");
    thread::sleep(Duration::from_secs(2)); // for which it is away
    rig.make_uplink();
    rig.pass("");
    change.assert_back("no device");

    rig.vtep.ip("link set eth0 address 02:00:00:00:00:77");
    change.assert_back("another neighbour");

    // The other host knows of it, too: no router is between the two that would tell.
    rig.vtep.ip("link set vx0 mtu 1350");
    rig.lab.host.ip("link set up0 mtu 1400");
    wait_until("the path MTU follows the device's", SOON, || {
        ctl.json(&["tunnel", "show", "dc"])["remotes"][0]["mtu"] == 1400
    });
    assert_exchange(&rig.container.namespace, &rig.vtep, far(), 1, 300_000);
    change.assert_back("a smaller MTU");

    assert_conserved(&ctl);
    daemon.stop();
}
