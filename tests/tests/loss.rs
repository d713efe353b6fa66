//! Namespaces and devices that go away under us: that port goes down with a reason, the rest goes on, and the port
//! comes back when the device does.

use serde_json::Value;
use vswitch_tests::ctl::number;
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::namespace::run;
use vswitch_tests::traffic::{await_ping, pings, send_frames};
use vswitch_tests::wait::SOON;
use vswitch_tests::{Attachment, Container, Ctl, Lab, wait_until};

/// Waits until the port is down and says why.
fn await_down(ctl: &Ctl, name: &str) -> String {
    wait_until(&format!("port {name} is down"), SOON, || {
        ctl.port(name).is_some_and(|port| port["state"] == "down")
    });
    let port = ctl.port(name).expect("it is still listed");
    let reason = port["reason"].as_str().unwrap_or_default().to_owned();
    assert!(!reason.is_empty(), "a port that is down should say why: {port}");
    reason
}

/// Three containers, of which the middle one will be hurt.
fn trio(lab: &Lab, attachment: Attachment) -> [Container; 3] {
    [
        lab.container("left", Attachment::Tap, 1500),
        lab.container("hurt", attachment, 1500),
        lab.container("right", Attachment::VethPacket, 1500),
    ]
}

fn namespace_goes_and_comes_back(attachment: Attachment) {
    let lab = Lab::new("nsgone");
    let containers = trio(&lab, attachment);
    let [left, hurt, right] = containers.each_ref();
    let mut daemon = lab.start(&Lab::configuration("[1]", &containers.each_ref()));
    await_ping(&left.namespace, hurt.v4);
    hurt.namespace.delete();
    await_down(&daemon.ctl(), "hurt");
    assert!(pings(&left.namespace, right.v4), "the rest did not go on");
    hurt.namespace.create_again();
    await_up(&daemon.ctl(), &["hurt"]);
    await_ping(&left.namespace, hurt.v4);
    assert_conserved(&daemon.ctl());
    daemon.stop();
}

#[test]
fn a_deleted_namespace_downs_its_tap_only_and_comes_back() {
    namespace_goes_and_comes_back(Attachment::Tap);
}

#[test]
fn a_deleted_namespace_downs_its_veth_packet_port_only_and_comes_back() {
    namespace_goes_and_comes_back(Attachment::VethPacket);
}

#[test]
fn a_deleted_namespace_downs_its_veth_afxdp_port_only_and_comes_back() {
    namespace_goes_and_comes_back(Attachment::VethAfxdp);
}

/// A device that is not ours to make: deleted, it takes its port down; made again, the port works again.
fn device_goes_and_comes_back(kind: &str) {
    let lab = Lab::new("devgone");
    let containers = trio(&lab, Attachment::Packet);
    let [left, hurt, right] = containers.each_ref();
    let port = hurt.port("").replace("\"packet\"", &format!("\"{kind}\""));
    let mut daemon = lab.start(&format!("{}{port}", Lab::configuration("[1]", &[left, right])));
    await_ping(&left.namespace, hurt.v4);
    lab.host.ip(&format!("link delete {}", hurt.device()));
    await_down(&daemon.ctl(), "hurt");
    assert!(pings(&left.namespace, right.v4), "the rest did not go on");
    lab.make_pair(hurt);
    await_up(&daemon.ctl(), &["hurt"]);
    await_ping(&left.namespace, hurt.v4);
    assert_conserved(&daemon.ctl());
    daemon.stop();
}

#[test]
fn a_deleted_packet_device_comes_back() {
    device_goes_and_comes_back("packet");
}

#[test]
fn a_deleted_afxdp_device_comes_back() {
    device_goes_and_comes_back("afxdp");
}

#[test]
fn a_link_that_goes_down_and_up_again_works_again() {
    let lab = Lab::new("flap");
    let containers = Attachment::ALL.map(|kind| lab.container(kind.name(), kind, 1500));
    let mut daemon = lab.start(&Lab::configuration("[1]", &containers.each_ref()));
    let ctl = daemon.ctl();
    let link = |name: &str| ctl.port(name).map_or(Value::Null, |port| port["link"].clone());
    for (container, other) in containers.iter().zip(containers.iter().cycle().skip(1)) {
        await_ping(&container.namespace, other.v4);
        let up = link(&container.name);
        container.namespace.ip("link set eth0 down");
        wait_until(&format!("{}'s link is seen to change", container.name), SOON, || {
            link(&container.name) != up
        });
        container.namespace.ip("link set eth0 up");
        wait_until(&format!("{}'s link is seen to come back", container.name), SOON, || {
            link(&container.name) == up
        });
        await_ping(&container.namespace, other.v4);
    }
    assert_conserved(&ctl);
    daemon.stop();
}

#[test]
fn frames_that_the_kernel_loses_in_front_of_a_port_are_counted() {
    const FRAMES: u64 = 5000;
    let lab = Lab::new("missed");
    let container = lab.container("busy", Attachment::VethAfxdp, 1500);
    let mut daemon = lab.start(&Lab::configuration("[1]", &[&container]));
    let port = || daemon.ctl().port("busy").expect("the port is listed");
    let before = number(&port(), "rx_frames");
    let pid = daemon.pid().to_string();
    run(std::process::Command::new("kill").args(["-STOP", &pid]));
    let frame = format!("ffffffffffff02000000000788b5{}", "00".repeat(46));
    send_frames(&container.namespace, "eth0", &frame, FRAMES);
    run(std::process::Command::new("kill").args(["-CONT", &pid]));
    wait_until("every frame is received or missed", SOON, || {
        let port = port();
        number(&port, "rx_frames") - before + number(&port, "missed") >= FRAMES
    });
    let missed = number(&port(), "missed");
    // A few of the kernel's own (neighbour discovery) may be among them.
    assert!((1..FRAMES + 50).contains(&missed), "{missed} missed");
    assert_conserved(&daemon.ctl());
    daemon.stop();
}
