//! Whether the other end of a tunnel is there, as BFD finds out: between two switches of ours, next to each other and
//! behind routers, and with BIRD, another implementation.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use vswitch_tests::ctl::number;
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::service::Service;
use vswitch_tests::traffic::{await_ping, pings};
use vswitch_tests::wait::{SOON, comes_true};
use vswitch_tests::{Attachment, Container, Ctl, Daemon, Lab, Namespace, wait_until};

/// Three intervals of 300 ms, and time for a machine whose two cores are busy with other tests.
const NOTICED: Duration = Duration::from_secs(2);

/// A switch with a container and one remote. Its uplink is a TAP whose other end is in `network`.
fn configuration(container: &Container, network: &Namespace, underlay: &str, remote: &str) -> String {
    // A switch's own address on the wire follows from this name and the machine.
    let core = format!("core-{}", container.name);
    format!(
        "[switch]\nworkers = [1]\n[[bridge]]\nname = \"blue\"\nvni = 5001\n{}\
         [[port]]\nname = \"uplink\"\ntype = \"tap\"\nnetns = \"{}\"\nmtu = 1500\n\
         [[underlay]]\nname = \"{core}\"\nport = \"uplink\"\nshare = false\n{underlay}\n\
         [[tunnel]]\nname = \"dc\"\ntype = \"vxlan\"\nunderlay = \"{core}\"\nremote = [\"{remote}\"]\nbfd = true\n",
        container.port(""),
        network.name()
    )
}

/// The only remote of the tunnel.
fn remote(ctl: &Ctl) -> Value {
    ctl.json(&["tunnel", "show", "dc"])["remotes"][0].clone()
}

fn await_state(ctl: &Ctl, state: &str, deadline: Duration) {
    let start = Instant::now();
    let is_there = comes_true(deadline, || remote(ctl)["state"] == state);
    assert!(is_there, "the remote is not {state}: {:#?}", remote(ctl));
    println!("{state} after {:?}", start.elapsed());
}

/// Two switches and the network between them, of which `mid` is the middle.
struct Pair {
    containers: [Container; 2],
    daemons: [Daemon; 2],
    networks: [Namespace; 2],
    _labs: [Lab; 2],
}

impl Pair {
    /// `uplinks`: the underlays of the two; `prepare` makes a network of each namespace, when its uplink is there.
    fn new(underlays: [&str; 2], addresses: [&str; 2], prepare: impl Fn(usize, &Namespace)) -> Self {
        let labs = [Lab::new("near"), Lab::new("far")];
        let networks = [Namespace::new("first"), Namespace::new("second")];
        networks[0].ip(&format!("link add mid type veth peer name mid netns {}", networks[1].name()));
        let containers = ["near", "far"].map(|name| labs[0].container(name, Attachment::Tap, 1400));
        let daemons = [0, 1].map(|number| {
            let (container, network) = (&containers[number], &networks[number]);
            let text = configuration(container, network, underlays[number], addresses[1 - number]);
            let daemon = labs[number].start(&text);
            await_up(&daemon.ctl(), &[&container.name, "uplink"]);
            network.ip("link set mid up");
            prepare(number, network);
            daemon
        });
        Self { containers, daemons, networks, _labs: labs }
    }

    /// The middle is cut, and mended.
    fn come_and_go(mut self) {
        let [near, far] = &self.containers;
        let ctls = self.daemons.each_ref().map(Daemon::ctl);
        for ctl in &ctls {
            await_state(ctl, "up", SOON);
        }
        await_ping(&near.namespace, far.v4);
        assert_eq!(remote(&ctls[0])["bfd"]["state"], "up");
        // Every link stays up: only silence tells.
        for network in &self.networks {
            network.run(
                "nft add table netdev cut { chain in { type filter hook ingress device mid priority 0 ; policy drop ; } ; }",
            );
        }
        for ctl in &ctls {
            await_state(ctl, "down", NOTICED);
        }
        let down = remote(&ctls[0]);
        let reason = down["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("BFD") && number(&down["bfd"], "downs") == 1, "{down:#}");
        let before = ctls[0].drops(None, "no-path");
        assert!(!pings(&near.namespace, far.v4));
        assert!(ctls[0].drops(None, "no-path") > before);
        for network in &self.networks {
            network.run("nft delete table netdev cut");
        }
        for ctl in &ctls {
            await_state(ctl, "up", SOON);
        }
        await_ping(&near.namespace, far.v4);
        let events = ctls[0].rows(&["events"]);
        let kinds: Vec<_> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
        assert!(kinds.starts_with(&["bfd-up", "bfd-down"]), "{events:#?}");
        for daemon in &mut self.daemons {
            assert_conserved(&daemon.ctl());
            daemon.stop();
        }
    }
}

/// One Ethernet from uplink to uplink.
fn bridge(network: &Namespace) {
    network.ip("link add br0 type bridge mcast_snooping 0");
    for device in ["eth0", "mid"] {
        network.ip(&format!("link set {device} master br0 up"));
    }
    network.ip("link set br0 up");
}

#[test]
fn a_neighbour_that_goes_and_comes() {
    let underlays = ["address = [\"2001:db8::1/64\"]", "address = [\"2001:db8::2/64\"]"];
    Pair::new(underlays, ["2001:db8::1", "2001:db8::2"], |_, network| bridge(network)).come_and_go();
}

#[test]
fn a_remote_behind_routers_that_goes_and_comes() {
    let underlays = [0, 1].map(|number| {
        format!(
            "address = [\"192.0.2.{}/25\"]\nroute = [{{to = \"0.0.0.0/0\", via = \"192.0.2.{}\"}}]",
            128 * number + 1,
            128 * number + 2
        )
    });
    let prepare = |number: usize, network: &Namespace| {
        network.run("sysctl -qw net.ipv4.ip_forward=1");
        network.ip(&format!("address add 192.0.2.{}/25 dev eth0", 128 * number + 2));
        network.ip(&format!("address add 203.0.113.{}/24 dev mid", number + 1));
        let other = format!("192.0.2.{}/25 via 203.0.113.{} dev mid onlink", 128 * (1 - number), 2 - number);
        network.ip(&format!("route add {other}"));
    };
    let pair = Pair::new([&underlays[0], &underlays[1]], ["192.0.2.1", "192.0.2.129"], prepare);
    pair.come_and_go();
}

#[test]
fn another_implementation_agrees() {
    for (ours, theirs, length) in [("192.0.2.1", "192.0.2.2", 24), ("2001:db8::1", "2001:db8::2", 64)] {
        let (lab, network) = (Lab::new("near"), Namespace::new("bird"));
        let container = lab.container("near", Attachment::Tap, 1400);
        let underlay = format!("address = [\"{ours}/{length}\"]");
        let mut daemon = lab.start(&configuration(&container, &network, &underlay, theirs));
        let ctl = daemon.ctl();
        await_up(&ctl, &["uplink"]);
        let nodad = if length == 64 { "nodad" } else { "" };
        network.ip(&format!("address add {theirs}/{length} dev eth0 {nodad}"));
        let folder = lab.folder().display();
        let text = format!(
            "router id 192.0.2.2;\nprotocol device {{ }}\nprotocol bfd {{\n  interface \"eth0\" {{ interval 200 ms; multiplier 3; }};\n  \
             neighbor {ours} dev \"eth0\" local {theirs};\n}}\n"
        );
        lab.write("bird.conf", &text);
        let start = || {
            // It says that it has started where errors are said.
            let line = format!("exec bird -d -c {folder}/bird.conf -s {folder}/bird.ctl 2>&1");
            let mut command: Command = network.command("sh");
            Service::start(command.args(["-c", &line]), "Started")
        };
        let bird = start();
        await_state(&ctl, "up", SOON);
        let said = || network.run(&format!("birdc -s {folder}/bird.ctl show bfd sessions"));
        wait_until("BIRD's session is up", SOON, || said().contains("Up"));
        drop(bird);
        await_state(&ctl, "down", NOTICED);
        let _bird = start();
        await_state(&ctl, "up", SOON);
        let bfd = remote(&ctl)["bfd"].clone();
        assert_eq!((number(&bfd, "refused"), number(&bfd, "downs")), (0, 1), "{bfd}\n{}", said());
        daemon.stop();
    }
}
