//! Ends and new starts: what containers have outlives the daemon, and nothing of a removed port stays.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use vswitch_tests::binaries::binary;
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::namespace::{messages, run};
use vswitch_tests::traffic::{await_ping, iperf_server, pings};
use vswitch_tests::wait::SOON;
use vswitch_tests::{Attachment, Container, Daemon, Lab, wait_until};

/// How the daemon ends in a test.
#[derive(Clone, Copy, Debug)]
enum End {
    Stopped,
    Killed,
}

impl End {
    fn of(self, daemon: &mut Daemon) {
        match self {
            Self::Stopped => daemon.stop(),
            Self::Killed => daemon.kill(),
        }
    }
}

fn pair(lab: &Lab, attachment: Attachment) -> [Container; 2] {
    ["left", "right"].map(|name| lab.container(name, attachment, 1500))
}

/// What a container sees of its interface: index, MAC and addresses.
fn interface(container: &Container) -> Vec<String> {
    let report: Value =
        serde_json::from_str(&container.namespace.ip("-json address show eth0")).expect("JSON");
    let link = &report[0];
    let addresses = link["addr_info"].as_array().into_iter().flatten();
    let ours =
        addresses.filter(|address| address["scope"] == "global").map(|address| address["local"].to_string());
    [link["ifindex"].to_string(), link["address"].to_string()].into_iter().chain(ours).collect()
}

/// An iperf3 connection between two containers goes on through an end and a new start of the daemon.
fn connection_survives(attachment: Attachment, end: End) {
    let lab = Lab::new("restart");
    let [left, right] = pair(&lab, attachment);
    let mut daemon = lab.start(&Lab::configuration("[1]", &[&left, &right]));
    await_ping(&left.namespace, right.v4);
    let before = [interface(&left), interface(&right)];

    let server = iperf_server(&right.namespace);
    let mut command = left.namespace.command("iperf3");
    command.args(["--json", "-t", "6", "-i", "0.5", "-c", &right.v4.to_string()]);
    let client = thread::spawn(move || run(&mut command));
    let moved = |daemon: &Daemon| {
        let port = daemon.ctl().port("left").expect("the port is listed");
        port["rx_bytes"].as_u64().expect("a number")
    };
    wait_until("the connection is under way", SOON, || moved(&daemon) > 10_000_000);
    end.of(&mut daemon);
    daemon.start_again();
    assert_eq!([interface(&left), interface(&right)], before, "an interface changed over the restart");
    wait_until("the same connection moves on", SOON, || moved(&daemon) > 10_000_000);

    let report: Value = serde_json::from_str(&client.join().expect("iperf3 ends well")).expect("JSON");
    server.finish(SOON);
    let intervals = report["intervals"].as_array().expect("intervals");
    let last = intervals.last().expect("at least one")["sum"]["bytes"].as_f64().expect("a number");
    assert!(last > 0.0, "nothing moved at the end: {report}");
    assert_conserved(&daemon.ctl());
    daemon.stop();
}

#[test]
fn a_tap_connection_survives_sigterm() {
    connection_survives(Attachment::Tap, End::Stopped);
}

#[test]
fn a_tap_connection_survives_kill_9() {
    connection_survives(Attachment::Tap, End::Killed);
}

#[test]
fn a_veth_packet_connection_survives_kill_9() {
    connection_survives(Attachment::VethPacket, End::Killed);
}

#[test]
fn a_veth_afxdp_connection_survives_sigterm() {
    connection_survives(Attachment::VethAfxdp, End::Stopped);
}

#[test]
fn a_veth_afxdp_connection_survives_kill_9() {
    connection_survives(Attachment::VethAfxdp, End::Killed);
}

#[test]
fn a_removed_port_takes_its_interfaces_with_it() {
    let lab = Lab::new("removal");
    let kinds = [Attachment::Tap, Attachment::VethPacket, Attachment::VethAfxdp];
    let containers = kinds.map(|kind| lab.container(kind.name(), kind, 1500));
    let host_before = lab.host.ip("-brief link");
    let mut daemon = lab.start(&Lab::configuration("[1]", &containers.each_ref()));
    assert!(containers.iter().all(|container| container.namespace.succeeds("ip link show eth0")));
    let empty = lab.write("empty.toml", &Lab::configuration("[1]", &[]));
    daemon.ctl().json(&["apply", &empty]);
    for container in &containers {
        assert!(!container.namespace.succeeds("ip link show eth0"), "{} is still there", container.name);
    }
    assert_eq!(lab.host.ip("-brief link"), host_before, "something is left in the host");
    daemon.stop();
}

#[test]
fn a_port_removed_while_the_daemon_was_down_is_removed_at_its_start() {
    let lab = Lab::new("orphan");
    let [left, right] = pair(&lab, Attachment::Tap);
    let mut daemon = lab.start(&Lab::configuration("[1]", &[&left, &right]));
    daemon.stop();
    assert!(right.namespace.succeeds("ip link show eth0"), "a stop took an interface away");
    fs::write(daemon.configuration(), Lab::configuration("[1]", &[&left])).expect("the file can be written");
    daemon.start_again();
    assert!(left.namespace.succeeds("ip link show eth0"));
    wait_until("the orphan is gone", SOON, || !right.namespace.succeeds("ip link show eth0"));
    daemon.stop();
}

#[test]
fn a_port_renamed_or_of_another_type_while_the_daemon_was_down_gets_its_place() {
    let lab = Lab::new("renamed");
    let [left, right] = pair(&lab, Attachment::Tap);
    let before = Lab::configuration("[1]", &[&left, &right]);
    let mut daemon = lab.start(&before);
    daemon.stop();
    let after = before.replace("name = \"left\"", "name = \"other\"").replacen(
        "type = \"tap\"",
        "type = \"veth\"",
        1,
    );
    assert_ne!(before, after);
    fs::write(daemon.configuration(), after).expect("the file can be written");
    daemon.start_again();
    await_up(&daemon.ctl(), &["other", "right"]);
    await_ping(&left.namespace, right.v4);
    daemon.stop();
}

#[test]
fn nothing_stays_of_a_port_that_is_deleted_while_it_is_down() {
    let lab = Lab::new("downgone");
    let veth = lab.container("veth", Attachment::VethPacket, 1500);
    let tap = lab.container("tap", Attachment::Tap, 1500);
    let tables = lab.host.run("nft list tables");
    let mut daemon = lab.start(&Lab::configuration("[1]", &[&veth, &tap]));
    assert_ne!(lab.host.run("nft list tables"), tables, "a closed host end has a table");
    veth.namespace.delete();
    wait_until("the port is down", SOON, || {
        daemon.ctl().port("veth").is_some_and(|port| port["state"] == "down")
    });
    daemon.ctl().json(&["port", "del", "veth"]);
    assert_eq!(lab.host.run("nft list tables"), tables, "the table of the closed host end stays");
    veth.namespace.create_again();
    daemon.stop();
}

fn a_device_is_given_back(kind: &str) {
    let lab = Lab::new("giveback");
    let [left, right] =
        [lab.container("left", Attachment::Packet, 1500), lab.container("right", Attachment::Tap, 1500)];
    let describe = || {
        // Its state as far as a switch could change it: flags, XDP programs, offloads, addresses.
        let device = left.device();
        [format!("-d link show {device}"), format!("address show {device}")]
            .map(|line| lab.host.ip(&line))
            .concat()
            + &lab.host.run(&format!("ethtool -k {device}"))
    };
    let before = describe();
    let port = left.port("").replace("\"packet\"", &format!("\"{kind}\""));
    let mut daemon = lab.start(&format!("{}{port}", Lab::configuration("[1]", &[&right])));
    await_ping(&left.namespace, right.v4);
    daemon.stop();
    assert_eq!(describe(), before, "the device is not as it was after a stop");
    daemon.start_again();
    await_ping(&left.namespace, right.v4);
    daemon.kill();
    daemon.start_again();
    await_ping(&left.namespace, right.v4);
    daemon.stop();
    assert_eq!(describe(), before, "the device is not as it was after a kill, a start and a stop");
    assert!(!pings(&left.namespace, right.v4));
}

#[test]
fn a_packet_device_is_given_back() {
    a_device_is_given_back("packet");
}

#[test]
fn an_afxdp_device_is_given_back() {
    a_device_is_given_back("afxdp");
}

#[test]
fn later_edits_come_back_unless_the_file_has_changed() {
    let lab = Lab::new("edits");
    let [left, right] = pair(&lab, Attachment::Tap);
    let mut daemon = lab.start(&Lab::configuration("[1]", &[&left]));
    let both = lab.write("both.toml", &Lab::configuration("[1]", &[&left, &right]));
    daemon.ctl().json(&["apply", &both]);
    daemon.kill();
    daemon.start_again();
    assert!(daemon.ctl().port("right").is_some(), "an edit was lost: {}", daemon.ctl().json(&["status"]));
    await_ping(&left.namespace, right.v4);
    daemon.stop();
    let changed = format!("# changed\n{}", Lab::configuration("[1]", &[&left]));
    fs::write(daemon.configuration(), changed).expect("the file can be written");
    daemon.start_again();
    assert!(daemon.ctl().port("right").is_none(), "the changed file was not applied");
    daemon.stop();
}

#[test]
fn a_second_daemon_on_the_same_socket_or_state_refuses_and_disturbs_nothing() {
    let lab = Lab::new("second");
    let [left, right] = pair(&lab, Attachment::Tap);
    let configuration = Lab::configuration("[1]", &[&left, &right]);
    let mut daemon = lab.start(&configuration);
    await_ping(&left.namespace, right.v4);
    let text = |path: PathBuf| path.to_str().expect("a path is text").to_owned();
    for (socket, state, named) in [
        (daemon.socket(), lab.folder().join("other"), "control.sock"),
        (lab.folder().join("other.sock"), daemon.state_folder(), "state"),
    ] {
        let mut command = lab.host.command(binary("vswitchd"));
        command.arg("--config").arg(daemon.configuration());
        command.args(["--socket", &text(socket), "--state-dir", &text(state)]);
        let output = command.output().expect("ip starts");
        let said = messages(&output);
        assert!(!output.status.success(), "a second daemon ran: {said}");
        assert!(said.contains(named) && said.contains("vswitchd"), "{named} should be named: {said}");
    }
    assert!(pings(&left.namespace, right.v4), "the first daemon was disturbed");
    daemon.ctl().json(&["status"]);
    daemon.stop();
}

/// Waits out nothing: a restart right after a kill, many times, always comes back to a working switch.
#[test]
fn many_kills_in_a_row_leave_a_working_switch() {
    let lab = Lab::new("kills");
    let [left, right] = pair(&lab, Attachment::Tap);
    let mut daemon = lab.start(&Lab::configuration("[0, 1]", &[&left, &right]));
    for _ in 0..5 {
        daemon.kill();
        daemon.start_again();
    }
    await_up(&daemon.ctl(), &["left", "right"]);
    await_ping(&left.namespace, right.v4);
    assert!(daemon.cpu_time() < Duration::from_secs(5));
    daemon.stop();
}

/// What the configuration names and is not there refuses the start; the interfaces that a crash left stay, for all
/// that the next start is for.
#[test]
fn a_refused_start_leaves_the_containers_their_interfaces() {
    let lab = Lab::new("refused");
    let kinds = [Attachment::Tap, Attachment::VethPacket, Attachment::VethAfxdp];
    let containers = kinds.map(|kind| lab.container(kind.name(), kind, 1500));
    let good = Lab::configuration("[1]", &containers.each_ref());
    let mut daemon = lab.start(&good);
    let before = containers.each_ref().map(interface);
    daemon.kill();
    // The one is missed before anything is touched, the other when all the rest is open.
    let lost = "[[port]]\nname = \"lost\"\nbridge = \"blue\"\ntype = ";
    let file = lab.folder().join("no-such.pcap");
    for bad in ["\"tap\"\nnetns = \"no-such-namespace\"\n".into(), format!("\"pcap\"\nread = {file:?}\n")] {
        let failure = Daemon::attempt(&lab.host, lab.folder(), &format!("{good}{lost}{bad}"), &[]);
        let failure = failure.expect_err("the start is refused");
        assert!(failure.contains("no-such"), "{failure}");
        assert_eq!(containers.each_ref().map(interface), before, "{bad}");
    }
    fs::write(daemon.configuration(), good).expect("the test's folder can be written");
    daemon.start_again();
    assert_eq!(containers.each_ref().map(interface), before);
    daemon.stop();
}
