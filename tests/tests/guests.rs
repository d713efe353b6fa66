//! Virtual machines on vhost-user ports: Debian's kernel in QEMU, of Debian 12 and of its backports, with the card's
//! default offloads, whichever side listens on the socket.

use std::net::{IpAddr, SocketAddr};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use vswitch_tests::cases::{full, scaled};
use vswitch_tests::ctl::number;
use vswitch_tests::guest::{Guest, Plan, Qemu};
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::probe::stream::Exchange;
use vswitch_tests::traffic::{Pings, assert_exchange_with, await_ping, count_pings, pings};
use vswitch_tests::wait::{SOON, comes_true, wait_for};
use vswitch_tests::{Attachment, Container, Ctl, Daemon, Lab, wait_until};

/// Traffic goes on within this time of the moment that the two ends can reach each other again.
const GOES_ON: Duration = Duration::from_millis(200);

/// Held by tests that count what is late: an emulated guest that shares its two cores with others' is late by itself.
static CORES: RwLock<()> = RwLock::new(());

fn alone() -> RwLockWriteGuard<'static, ()> {
    CORES.write().unwrap_or_else(PoisonError::into_inner)
}

fn among_others() -> RwLockReadGuard<'static, ()> {
    CORES.read().unwrap_or_else(PoisonError::into_inner)
}

/// What runs the guest, whether it is the one that listens, and its card's further options. A full run takes all.
type Machine = (Qemu, bool, &'static str);

fn machines() -> Vec<Machine> {
    let mut all = vec![(Qemu::Backports, false, ",packed=on"), (Qemu::Debian, true, "")];
    if full() {
        all.extend([
            (Qemu::Debian, false, ""),
            (Qemu::Backports, true, ""),
            (Qemu::Debian, true, ",packed=on"),
        ]);
    }
    all
}

/// The port of a guest.
fn port(plan: &Plan, mtu: u32) -> String {
    let (name, socket) = (&plan.name, plan.socket.display());
    let mode = if plan.listens { "client" } else { "server" };
    format!(
        "[[port]]\nname = \"{name}\"\nbridge = \"blue\"\ntype = \"vhost-user\"\nsocket = \"{socket}\"\nmode = \"{mode}\"\n\
         mtu = {mtu}\nqueues = {}\n",
        plan.queues
    )
}

/// Waits, in a guest, for a server.
fn listening_on(port: u16) -> String {
    format!("until netstat -ltn | grep -q :{port}; do sleep 0.02; done")
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
    fn start((qemu, listens, options): Machine) -> Self {
        let lab = Lab::new("guest");
        let container = lab.container("left", Attachment::Tap, 1500);
        let plan = Plan::new("vm", 100, qemu, &lab.folder().join("vm.sock"), listens);
        let plan = Plan { options: options.to_owned(), ..plan };
        let daemon = lab.start(&(Lab::configuration("[0, 1]", &[&container]) + &port(&plan, 1500)));
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
        command.args(arguments.split_whitespace());
        // Between two clients its server listens anew, and refuses who comes meanwhile.
        let report = wait_for("iperf3 takes a client", SOON, || {
            let output = command.output().expect("iperf3 starts");
            let report: Value = serde_json::from_slice(&output.stdout).expect("iperf3 prints JSON");
            let is_refused = report["error"].as_str().is_some_and(|error| error.contains("refused"));
            (!is_refused).then_some(report)
        });
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
    let _cores = among_others();
    for machine in machines() {
        println!("{machine:?}");
        let mut scene = Scene::start(machine);
        scene.assert_answers();
        scene.guest.run(&format!("iperf3 -s -D; {}", listening_on(5201)));
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
    let _cores = alone();
    for machine in machines() {
        println!("{machine:?}");
        let mut scene = Scene::start(machine);
        let ctl = scene.daemon.ctl();
        // While the switch is away either kernel forgets the other, and asks for it at most once a second.
        let (address, mac) = (scene.address(4), scene.guest.plan.mac());
        scene
            .container
            .namespace
            .ip(&format!("neighbour replace {address} lladdr {mac} dev eth0 nud permanent"));
        let container = &scene.container;
        scene.guest.run(&format!("arp -s {} {}", container.v4, container.mac()));
        for end in [Daemon::stop, Daemon::kill] {
            await_ping(&scene.container.namespace, scene.address(4));
            let pings = Pings::start(&scene.container.namespace, scene.address(4), Duration::from_millis(10));
            pings.await_answers(20);
            end(&mut scene.daemon);
            let gone = SystemTime::now();
            scene.daemon.start_again();
            await_link(&ctl, "vm", "up");
            let back = SystemTime::now();
            pings.await_answers(1);
            let first = pings.answers().into_iter().find(|answer| answer.time > gone).expect("just seen");
            let delay = first.time.duration_since(back).unwrap_or_default();
            println!("answered {delay:?} after the link was up");
            assert!(delay < GOES_ON, "it took {delay:?}");
        }
        scene.end();
    }
}

/// The port of the server of files in a guest.
const FILES: u16 = 7000;

/// The rows of the table of file transfers, each a start of the switch of its own: MTU and workers. A normal run has
/// every number of workers, a full run all of them.
fn rows() -> Vec<(u32, &'static str)> {
    let mut all = vec![(1500, "[1]"), (9000, "[0, 1]"), (1500, "[0, 0, 1, 1]")];
    if full() {
        all.extend([(9000, "[1]"), (1500, "[0, 1]"), (9000, "[0, 0, 1, 1]")]);
    }
    all
}

/// Two guests, and a container of every kind and MTU.
struct Crowd {
    guests: Option<[Guest; 2]>,
    plans: [Plan; 2],
    containers: Vec<Container>,
    lab: Lab,
}

impl Crowd {
    fn new() -> Self {
        let lab = Lab::new("files");
        let kinds = [Attachment::Tap, Attachment::VethPacket, Attachment::VethAfxdp];
        let places = [1500, 9000].into_iter().flat_map(|mtu| kinds.map(|kind| (kind, mtu)));
        let containers =
            places.map(|(kind, mtu)| lab.container(&format!("{}{mtu}", kind.name()), kind, mtu)).collect();
        let plans = [("one", 100, Qemu::Backports, false), ("two", 101, Qemu::Debian, true)];
        let plans = plans.map(|(name, number, qemu, listens)| {
            Plan::new(name, number, qemu, &lab.folder().join(format!("{name}.sock")), listens)
        });
        Self { guests: None, plans, containers, lab }
    }

    fn configuration(&self, mtu: u32, workers: &str) -> String {
        let containers: Vec<_> = self.containers.iter().collect();
        Lab::configuration(workers, &containers) + &self.plans.each_ref().map(|plan| port(plan, mtu)).concat()
    }

    /// The guests, which need the switch to boot, and live on when it is another one.
    fn guests(&mut self) -> &mut [Guest; 2] {
        self.guests.get_or_insert_with(|| {
            let mut guests = self.plans.clone().map(|plan| Guest::start(&self.lab, plan));
            for guest in &mut guests {
                guest.await_boot();
                guest.run(&format!("netprobe stream-serve [::]:{FILES} 1000 & {}", listening_on(FILES)));
            }
            guests
        })
    }

    /// Files from every container of an MTU to each guest and back.
    fn exchange_with_containers(&mut self, family: u8, mtu: u32, bytes: u64) {
        for container in self.containers.iter().filter(|container| container.mtu == mtu) {
            for (plan, guest) in self.plans.iter().zip(self.guests.iter_mut().flatten()) {
                let to = plan.address(family);
                if !comes_true(SOON, || pings(&container.namespace, to)) {
                    let state = guest.run("ip address; ip -s link; ip neigh; cat /proc/interrupts");
                    panic!("{to} answers no ping from {}: {state}", container.namespace.name());
                }
                let seen = assert_exchange_with(&container.namespace, SocketAddr::new(to, FILES), 1, bytes);
                let kind = container.attachment.name();
                println!("{kind} to guest, IPv{family}, MTU {mtu}: {:.2} Gbit/s", seen.rate());
            }
        }
    }

    /// Files from one guest to the other and back, in frames that are larger than what a wire takes.
    fn exchange_between_guests(&mut self, ctl: &Ctl, family: u8, mtu: u32, bytes: u64) {
        let counted = || {
            let row = row(ctl, "one");
            ["bytes", "frames"]
                .map(|what| ["rx", "tx"].map(|side| number(&row, &format!("{side}_{what}"))).iter().sum())
        };
        let to = SocketAddr::new(self.plans[1].address(family), FILES);
        let [one, _] = self.guests();
        let before: [u64; 2] = counted();
        let report =
            one.run_for(&format!("netprobe stream-exchange {to} 2 {bytes}"), Duration::from_secs(120));
        let seen: Exchange = serde_json::from_str(&report).expect("netprobe prints JSON");
        seen.assert_intact("one guest to the other");
        println!("guest to guest, IPv{family}, MTU {mtu}: {:.2} Gbit/s", seen.rate());
        let [bytes, frames] = [0, 1].map(|at| counted()[at] - before[at]);
        assert!(bytes / frames > 10_000, "{bytes} bytes in {frames} frames: trains are cut on their way");
    }
}

#[test]
fn files_arrive_intact_between_guests_and_whatever_a_container_hangs_on() {
    let _cores = among_others();
    let mut crowd = Crowd::new();
    let bytes = scaled(10_000_000, 50_000_000);
    for (number, (mtu, workers)) in rows().into_iter().enumerate() {
        println!("MTU {mtu}, workers {workers}");
        let mut daemon = crowd.lab.start(&crowd.configuration(mtu, workers));
        let ctl = daemon.ctl();
        for guest in crowd.guests() {
            await_link(&ctl, &guest.plan.name, "up");
            // The guest is told later.
            guest.run("until grep -q 1 /sys/class/net/eth0/carrier; do sleep 0.02; done");
            guest.run(&format!("ip link set eth0 mtu {mtu}"));
        }
        let families: &[u8] = if full() { &[4, 6] } else { &[[4, 6][number % 2]] };
        for family in families {
            crowd.exchange_with_containers(*family, mtu, bytes);
            crowd.exchange_between_guests(&ctl, *family, mtu, bytes);
        }
        assert_conserved(&ctl);
        daemon.stop();
    }
    crowd.guests.into_iter().flatten().for_each(Guest::power_off);
}

/// Pings so far apart; one of them may be lost on a move.
const APART: Duration = Duration::from_millis(100);

/// A guest, and where it can move to: one port of the switch each.
struct Move {
    places: [Plan; 2],
    lab: Lab,
}

impl Move {
    /// Moves the guest, which is at the first place, to the second one, under pings from the container.
    fn carry_out(&mut self, mut from: Guest, container: &Container) -> Guest {
        self.places.rotate_left(1);
        let channel = format!("unix:{}", self.lab.folder().join("migration").display());
        let mut to =
            Guest::start(&self.lab, Plan { incoming: Some(channel.clone()), ..self.places[0].clone() });
        let pings = Pings::start(&container.namespace, from.plan.address(4), APART);
        pings.await_answers(5);
        from.monitor("migrate-set-parameters", json!({"downtime-limit": 50}));
        from.monitor("migrate", json!({"uri": channel}));
        let state = |guest: &mut Guest| guest.monitor("query-migrate", json!({}))["status"].clone();
        wait_until("the guest has moved", Duration::from_secs(60), || {
            let state = state(&mut from);
            assert_ne!(state, "failed", "{}", from.messages());
            state == "completed"
        });
        pings.await_answers(10);
        let answers = pings.answers();
        let lost = answers.last().expect("many").number as usize - answers.len();
        println!("{} to {}: {lost} pings lost", from.plan.name, to.plan.name);
        assert!(lost <= 1, "{lost} pings were lost: {answers:?}");
        // Its shell has moved with it.
        to.run("true");
        to
    }
}

#[test]
fn a_guest_moves_to_another_qemu_and_back_with_a_ping_lost_at_most() {
    let _cores = alone();
    for qemu in if full() { vec![Qemu::Backports, Qemu::Debian] } else { vec![Qemu::Backports] } {
        let lab = Lab::new("move");
        let container = lab.container("left", Attachment::Tap, 1500);
        let places = ["here", "there"]
            .map(|name| Plan::new(name, 100, qemu, &lab.folder().join(format!("{name}.sock")), false));
        let ports = places.each_ref().map(|plan| port(plan, 1500)).concat();
        let mut daemon = lab.start(&(Lab::configuration("[0, 1]", &[&container]) + &ports));
        let mut guest = Guest::start(&lab, places[0].clone());
        guest.await_boot();
        await_ping(&container.namespace, guest.plan.address(4));
        let mut way = Move { places, lab };
        let guest = way.carry_out(guest, &container);

        // Back, and this time its memory changes under a transfer.
        let mut guest = guest;
        guest.run(&format!("netprobe stream-serve [::]:{FILES} 1 & {}", listening_on(FILES)));
        let to = SocketAddr::new(guest.plan.address(4), FILES);
        let guest = thread::scope(|scope| {
            let transfer = scope
                .spawn(|| assert_exchange_with(&container.namespace, to, 1, scaled(50_000_000, 500_000_000)));
            let guest = way.carry_out(guest, &container);
            transfer.join().expect("the files arrive");
            guest
        });
        assert_conserved(&daemon.ctl());
        guest.power_off();
        daemon.stop();
    }
}

/// Interrupts of each receive queue of a guest's card, by which it hears of frames there.
fn interrupts(guest: &mut Guest) -> Vec<u64> {
    let count = |line: &str| line.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok()).sum();
    guest.run("grep -e -input /proc/interrupts").lines().map(count).collect()
}

#[test]
fn a_guest_with_four_queue_pairs_receives_on_those_of_both_workers_also_after_a_reboot() {
    let lab = Lab::new("pairs");
    let [left, right] = ["left", "right"].map(|name| lab.container(name, Attachment::Tap, 1500));
    let plan = Plan::new("vm", 100, Qemu::Backports, &lab.folder().join("vm.sock"), false);
    let plan = Plan { queues: 4, ..plan };
    let ports = [left.port("workers = [0]"), right.port("workers = [1]"), port(&plan, 1500)];
    let daemon = lab.start(&(Lab::configuration("[0, 1]", &[]) + &ports.concat()));
    let mut guest = Guest::start(&lab, plan);
    guest.await_boot();
    let mut scene = Scene { guest, container: left, daemon, _lab: lab };
    let pings = |to| count_pings(&right.namespace, to, 50);
    for round in 0..2 {
        scene.assert_answers();
        assert_eq!(row(&scene.daemon.ctl(), "vm")["queues_enabled"], 4);
        let before = interrupts(&mut scene.guest);
        await_ping(&right.namespace, scene.address(4));
        assert_eq!([4, 6].map(|family| pings(scene.address(family))), [50, 50]);
        scene.guest.run(&format!("iperf3 -s -D; {}", listening_on(5201)));
        scene.assert_transfers("-P 4", "tx");
        scene.assert_transfers("-P 4 -R", "rx");
        let after = interrupts(&mut scene.guest);
        println!("{before:?} interrupts have become {after:?}");
        assert_eq!(after.len(), 4);
        let used = after.iter().zip(&before).filter(|(after, before)| after > before).count();
        assert!(used >= 2, "one queue pair has it all");
        if round == 0 {
            scene.guest.reboot();
        }
    }
    scene.end();
}
