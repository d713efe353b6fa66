//! Tunnels to what others have written: Open vSwitch's userspace datapath for all three types, and the tunnel devices of
//! a kernel in a virtual machine. What a container sends with its default offloads arrives there byte by byte, and
//! the other way round; and a third one, tshark, finds nothing wrong with what is on the wire.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use vswitch_tests::cases::full;
use vswitch_tests::guest::{Guest, Plan, Qemu};
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::namespace::{Namespace, run};
use vswitch_tests::ovs::Ovs;
use vswitch_tests::service::Service;
use vswitch_tests::traffic::{assert_exchange, assert_exchange_with, await_ping, iperf};
use vswitch_tests::wait::{SOON, wait_for};
use vswitch_tests::{Attachment, Container, Daemon, Lab};

/// The station behind the other end's tunnel.
const FAR: &str = "10.9.0.100";
const BYTES: u64 = 1_000_000;

/// The VNI, and what it is in a GRE key whose last 8 bits are 0.
const VNI: u32 = 5001;
const GRE_KEY: u32 = VNI << 8;

fn far() -> IpAddr {
    FAR.parse().expect("an address")
}

/// A tunnel of ours: its type and further lines.
struct Kind {
    name: &'static str,
    further: &'static str,
}

const VXLAN: Kind = Kind { name: "vxlan", further: "" };
const GENEVE: Kind = Kind { name: "geneve", further: "" };
/// These peers compare all 32 bits of the key.
const NVGRE: Kind = Kind { name: "nvgre", further: "flow_id = 0\n" };

/// Starts our end: a container, and an uplink that is made by further lines of its table.
fn start(
    lab: &Lab,
    workers: &str,
    container: &Container,
    uplink: &str,
    kind: &Kind,
    checksum: bool,
) -> Daemon {
    let Kind { name, further } = kind;
    let checksum = if checksum { "udp_checksum = true\n" } else { "" };
    let daemon = lab.start(&format!(
        "[switch]\nworkers = {workers}\n[[bridge]]\nname = \"blue\"\nvni = {VNI}\n{}\
         [[port]]\nname = \"uplink\"\n{uplink}\n\
         [[underlay]]\nname = \"core\"\nport = \"uplink\"\nshare = false\naddress = [\"192.0.2.1/24\"]\n\
         [[tunnel]]\nname = \"dc\"\nunderlay = \"core\"\ntype = \"{name}\"\nremote = [\"192.0.2.2\"]\n\
         {checksum}{further}",
        container.port("")
    ));
    await_up(&daemon.ctl(), &[&container.name, "uplink"]);
    daemon
}

/// Bits a second that arrived, of an iperf3 report.
fn received(report: &Value) -> f64 {
    report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_default()
}

/// Captures the first frames of an interface into a file.
fn capture(inside: &Namespace, interface: &str, file: &Path) -> Service {
    let line = format!("exec dumpcap -q -i {interface} -c 1000 -w {} 2>&1", file.display());
    Service::start(inside.command("sh").args(["-c", &line]), "File: ")
}

/// The frames of a capture that a filter of tshark's picks; it looks at all checksums.
fn picked(file: &Path, filter: &str) -> Vec<String> {
    let mut command = Command::new("tshark");
    for protocol in ["ip", "udp", "tcp"] {
        command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    // The files' contents are nothing that it should know.
    command.args(["-d", "tcp.port==7000,data"]);
    command.arg("-r").arg(file).args(["-Y", filter]);
    run(&mut command).lines().map(str::to_owned).collect()
}

/// How Open vSwitch has a tunnel of ours.
fn at_ovs(kind: &Kind, checksum: bool) -> String {
    let (name, key) = if kind.name == "nvgre" { ("gre", GRE_KEY) } else { (kind.name, VNI) };
    format!("type={name} options:remote_ip=192.0.2.1 options:key={key} options:csum={checksum}")
}

fn open_vswitch(kind: &Kind, rows: &[(&str, bool)]) {
    let lab = Lab::new("peer");
    let ovs = Ovs::start(&lab);
    let wire = &ovs.namespace;
    lab.host.ip(&format!("link add up0 type veth peer name eth0 netns {}", wire.name()));
    // A card would complete the checksums that the pair leaves to the other end.
    lab.host.run("ethtool -K up0 tx off");
    lab.host.ip("link set up0 addrgenmode none up");
    wire.ip("link set eth0 addrgenmode none up");
    ovs.set("add-br br0 -- set bridge br0 datapath_type=netdev other-config:hwaddr=02:00:00:00:09:64");
    ovs.set("add-br phy -- set bridge phy datapath_type=netdev -- add-port phy eth0");
    wire.ip("address add 192.0.2.2/24 dev phy");
    wire.ip("link set phy up");
    wire.ip(&format!("address add {FAR}/24 dev br0"));
    wire.ip("link set br0 mtu 1450 up");
    let container = lab.container("near", Attachment::Tap, 1500);
    for (number, (workers, checksum)) in rows.iter().enumerate() {
        ovs.set(&format!(
            "--if-exists del-port tun -- add-port br0 tun -- set interface tun {}",
            at_ovs(kind, *checksum)
        ));
        let uplink = "type = \"afxdp\"\ndevice = \"up0\"";
        let mut daemon = start(&lab, workers, &container, uplink, kind, *checksum);
        await_ping(&container.namespace, far());
        let file = lab.folder().join(format!("{number}.pcapng"));
        let watch = capture(wire, "eth0", &file);
        assert_exchange(&container.namespace, wire, far(), 1, BYTES);
        watch.finish(SOON);
        assert_exchange(wire, &container.namespace, container.v4, 2, BYTES);
        let rates = [&["-n", "2M"][..], &["-n", "2M", "-R"]]
            .map(|arguments| received(&iperf(&container.namespace, wire, far(), arguments)) / 1e9);
        println!("Open vSwitch, {}, checksum {checksum}, workers {workers}: {rates:.2?} Gbit/s", kind.name);
        assert!(rates.iter().all(|rate| *rate > 0.0));
        assert_well_formed(&file, kind);
        assert_conserved(&daemon.ctl());
        daemon.stop();
    }
}

/// tshark sees our tunnel in a capture, in both directions, and nothing wrong.
fn assert_well_formed(file: &Path, kind: &Kind) {
    let (header, number) = match kind.name {
        "vxlan" => ("vxlan.vni", VNI),
        "geneve" => ("geneve.vni", VNI),
        _ => ("gre.key", GRE_KEY),
    };
    for side in ["src", "dst"] {
        let seen = picked(file, &format!("{header} == {number} && tcp && ip.{side} == 192.0.2.1"));
        assert!(seen.len() > 100, "{side}: {} frames", seen.len());
    }
    let wrong = picked(file, "_ws.malformed || _ws.expert.severity == error");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A fixed part of the table, or all of it.
fn rows<'a>(normal: &[(&'a str, bool)], checksums: &[bool]) -> Vec<(&'a str, bool)> {
    if !full() {
        return normal.to_vec();
    }
    let workers = ["[1]", "[0, 1]", "[0, 0, 1, 1]"];
    workers.iter().flat_map(|workers| checksums.iter().map(|checksum| (*workers, *checksum))).collect()
}

#[test]
fn open_vswitch_vxlan() {
    open_vswitch(&VXLAN, &rows(&[("[1]", true)], &[false, true]));
}

#[test]
fn open_vswitch_geneve() {
    open_vswitch(&GENEVE, &rows(&[("[0, 1]", false)], &[false, true]));
}

#[test]
fn open_vswitch_gre_with_a_key() {
    open_vswitch(&NVGRE, &rows(&[("[0, 0, 1, 1]", false)], &[false]));
}

/// Bits a second that arrived of what iperf3 sends to the guest, or with `-R` fetches.
fn transfer(from: &Namespace, back: &str) -> f64 {
    // Between two clients its server listens anew, and refuses who comes meanwhile.
    let report = wait_for("iperf3 takes a client", SOON, || {
        let mut command = from.command("iperf3");
        let output = command.args(["--json", "-c", FAR, "-n", "2M"]).args(back.split_whitespace()).output();
        let report = serde_json::from_slice(&output.expect("iperf3 starts").stdout).expect("it prints JSON");
        Some(report).filter(|report: &Value| report["error"].is_null())
    });
    received(&report)
}

/// The guest's card is our uplink's other end; its kernel has the tunnel.
#[test]
fn gretap_and_geneve_of_a_kernel_in_a_guest() {
    let lab = Lab::new("kernel");
    let container = lab.container("near", Attachment::Tap, 1500);
    let plan = Plan::new("vtep", 100, Qemu::Backports, &lab.folder().join("vtep.sock"), false);
    let uplink = format!(
        "type = \"vhost-user\"\nsocket = \"{}\"\nmode = \"server\"\nmtu = 1500",
        plan.socket.display()
    );
    let workers = rows(&[("[0, 1]", false)], &[false]);
    // To boot it needs a switch, the first one; it lives on when that is another one.
    let mut first = Some(start(&lab, workers[0].0, &container, &uplink, &NVGRE, false));
    let mut guest = Guest::start(&lab, plan);
    guest.await_boot();
    guest.run("ip address flush dev eth0; ip address add 192.0.2.2/24 dev eth0");
    let listening = |port: u16| format!("until netstat -ltn | grep -q :{port}; do sleep 0.02; done");
    guest.run(&format!("iperf3 -s -D; {}", listening(5201)));
    guest.run(&format!("netprobe stream-serve [::]:7000 1000 & {}", listening(7000)));
    let tunnels = [
        (&NVGRE, format!("gretap local 192.0.2.2 remote 192.0.2.1 key {GRE_KEY}")),
        (&GENEVE, format!("geneve id {VNI} remote 192.0.2.1")),
    ];
    for (kind, device) in tunnels {
        // By its path: the shell prefers its own, which knows no tunnels.
        guest.run(&format!(
            "/bin/ip link add tun0 type {device}; ip address add {FAR}/24 dev tun0; ip link set tun0 up"
        ));
        for (workers, _) in &workers {
            let again = || start(&lab, workers, &container, &uplink, kind, false);
            let mut daemon = first.take().unwrap_or_else(again);
            await_ping(&container.namespace, far());
            assert_exchange_with(&container.namespace, SocketAddr::new(far(), 7000), 1, BYTES);
            let rates = ["", "-R"].map(|back| transfer(&container.namespace, back) / 1e9);
            println!("{device}, workers {workers}: {rates:.2?} Gbit/s");
            assert!(rates.iter().all(|rate| *rate > 0.0));
            assert_conserved(&daemon.ctl());
            daemon.stop();
        }
        guest.run_for("ip link delete tun0", Duration::from_secs(20));
    }
    guest.power_off();
}
