//! Virtual machines on vhost-user ports: Debian's kernel in QEMU, of Debian 12 and of its backports, with the card's
//! default offloads, whichever side listens on the socket.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use vswitch_tests::cases::full;
use vswitch_tests::ctl::number;
use vswitch_tests::guest::{Guest, Plan, Qemu};
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::namespace::run;
use vswitch_tests::traffic::{Pings, await_ping, count_pings};
use vswitch_tests::wait::SOON;
use vswitch_tests::{Attachment, Container, Ctl, Daemon, Lab, wait_until};

/// Traffic goes on within this time of the moment that the two ends can reach each other again.
const GOES_ON: Duration = Duration::from_millis(200);

/// What runs the guest, and whether it is the one that listens. A full run takes all of them.
fn machines() -> Vec<(Qemu, bool)> {
    let all =
        [(Qemu::Backports, false), (Qemu::Debian, true), (Qemu::Debian, false), (Qemu::Backports, true)];
    all[..if full() { 4 } else { 2 }].to_vec()
}

/// The port of a guest.
fn port(plan: &Plan) -> String {
    let (name, socket) = (&plan.name, plan.socket.display());
    let mode = if plan.listens { "client" } else { "server" };
    format!(
        "[[port]]\nname = \"{name}\"\nbridge = \"blue\"\ntype = \"vhost-user\"\nsocket = \"{socket}\"\nmode = \"{mode}\"\n"
    )
}

fn row(ctl: &Ctl, name: &str) -> Value {
    ctl.port(name).expect("the port is listed")
}

fn await_link(ctl: &Ctl, name: &str, link: &str) {
    wait_until(&format!("the link of {name} is {link}"), SOON, || row(ctl, name)["link"] == link);
}

/// A switch with a container and a guest that has booted.
struct Scene {
    guest: Guest,
    container: Container,
    daemon: Daemon,
    _lab: Lab,
}

impl Scene {
    fn start((qemu, listens): (Qemu, bool)) -> Self {
        let lab = Lab::new("guest");
        let container = lab.container("left", Attachment::Tap, 1500);
        let plan = Plan::new("vm", 100, qemu, &lab.folder().join("vm.sock"), listens);
        let daemon = lab.start(&(Lab::configuration("[0, 1]", &[&container]) + &port(&plan)));
        let mut guest = Guest::start(&lab, plan);
        await_up(&daemon.ctl(), &["left", "vm"]);
        guest.await_boot();
        Self { guest, container, daemon, _lab: lab }
    }

    fn address(&self, family: u8) -> IpAddr {
        self.guest.plan.address(family)
    }

    /// Every ping is answered, by either protocol.
    fn assert_answers(&self) {
        for family in [4, 6] {
            await_ping(&self.container.namespace, self.address(family));
            assert_eq!(count_pings(&self.container.namespace, self.address(family), 50), 50, "IPv{family}");
        }
    }

    /// One iperf3 run from the container; the frames of the guest's port that it took have so many bytes on average,
    /// in the direction that the data went.
    fn assert_transfers(&self, arguments: &str, direction: &str) {
        let counted = || {
            let row = row(&self.daemon.ctl(), "vm");
            ["bytes", "frames"].map(|what| number(&row, &format!("{direction}_{what}")))
        };
        let before = counted();
        let mut command = self.container.namespace.command("iperf3");
        command.args(["--json", "-t", "1", "-c", &self.address(4).to_string()]);
        let report = run(command.args(arguments.split_whitespace()));
        let report: Value = serde_json::from_str(&report).expect("iperf3 prints JSON");
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0);
        let [bytes, frames] = [0, 1].map(|at| counted()[at] - before[at]);
        println!("{direction}: {:.2} Gbit/s, {} bytes a frame", rate / 1e9, bytes / frames);
        assert!(rate > 50e6, "hardly anything moved: {report}");
        assert!(bytes / frames > 20_000, "{bytes} bytes in {frames} frames: trains are cut on their way");
    }

    fn end(self) {
        let Self { guest, mut daemon, .. } = self;
        assert_conserved(&daemon.ctl());
        guest.power_off();
        daemon.stop();
    }
}

#[test]
fn a_guest_talks_with_its_offloads_and_does_so_again_after_a_reboot_and_a_crash() {
    for machine in machines() {
        println!("{machine:?}");
        let mut scene = Scene::start(machine);
        scene.assert_answers();
        scene.guest.run("iperf3 -s -D; until netstat -ltn | grep -q :5201; do sleep 0.02; done");
        scene.assert_transfers("", "tx");
        scene.assert_transfers("-R", "rx");

        scene.guest.reboot();
        scene.assert_answers();

        scene.guest.kill();
        await_link(&scene.daemon.ctl(), "vm", "down");
        let reason = row(&scene.daemon.ctl(), "vm")["reason"].to_string();
        assert!(reason.starts_with("\"disconnected: "), "{reason}");
        scene.guest.start_again();
        scene.guest.await_boot();
        scene.assert_answers();
        scene.end();
    }
}

#[test]
fn traffic_goes_on_at_once_when_the_switch_was_stopped_or_killed() {
    for machine in machines() {
        println!("{machine:?}");
        let mut scene = Scene::start(machine);
        let ctl = scene.daemon.ctl();
        // While the switch is away the container's kernel forgets the guest, and asks for it at most once a second.
        let (address, mac) = (scene.address(4), scene.guest.plan.mac());
        scene
            .container
            .namespace
            .ip(&format!("neighbour replace {address} lladdr {mac} dev eth0 nud permanent"));
        for end in [Daemon::stop, Daemon::kill] {
            await_ping(&scene.container.namespace, scene.address(4));
            let pings = Pings::start(&scene.container.namespace, scene.address(4));
            wait_until("pings are answered", SOON, || pings.answers().len() > 20);
            end(&mut scene.daemon);
            let gone = SystemTime::now();
            scene.daemon.start_again();
            await_link(&ctl, "vm", "up");
            let back = SystemTime::now();
            let first = || pings.answers().into_iter().find(|time| *time > gone);
            wait_until("pings are answered again", SOON, || first().is_some());
            let delay = first().and_then(|first| first.duration_since(back).ok()).unwrap_or_default();
            println!("answered {delay:?} after the link was up");
            assert!(delay < GOES_ON, "it took {delay:?}");
        }
        scene.end();
    }
}
