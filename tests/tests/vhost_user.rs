//! vhost-user ports with a front end of others: frames of a container reach a program with its own stack and come
//! back, whichever side listens, and do so again after either side was gone.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::service::Service;
use vswitch_tests::testpmd::{self, Options};
use vswitch_tests::traffic::{await_ping, count_pings};
use vswitch_tests::wait::SOON;
use vswitch_tests::{Attachment, Container, Daemon, Lab, wait_until};

/// A switch with a container and a vhost-user port `vm`; `mode` is the switch's side.
struct Scene {
    container: Container,
    daemon: Daemon,
    lab: Lab,
    mode: &'static str,
}

impl Scene {
    fn start(mode: &'static str) -> Self {
        Self::with(mode, "[0, 0]", "", "")
    }

    /// One with these workers, and more settings for the container's port and for the other.
    fn with(mode: &'static str, workers: &str, left: &str, vm: &str) -> Self {
        let lab = Lab::new("vhost");
        let container = lab.container("left", Attachment::Tap, 1500);
        let port = format!(
            "[[port]]\nname = \"vm\"\nbridge = \"blue\"\ntype = \"vhost-user\"\nsocket = \"{}\"\nmode = \"{mode}\"\n{vm}\n",
            lab.folder().join("vm.sock").display()
        );
        let configuration = Lab::configuration(workers, &[]) + &container.port(left) + &port;
        let daemon = lab.start(&configuration);
        await_up(&daemon.ctl(), &["left", "vm"]);
        Self { container, daemon, lab, mode }
    }

    fn socket(&self) -> PathBuf {
        self.lab.folder().join("vm.sock")
    }

    fn program(&self, mode: &'static str) -> Service {
        self.program_with(Options { server: self.mode == "client", mode, queues: 1, used: 1, device: "" })
    }

    fn program_with(&self, options: Options) -> Service {
        if self.mode == "client" {
            // One that was killed leaves it behind, and the next one does not replace it.
            let _ = std::fs::remove_file(self.socket());
        }
        testpmd::start(self.lab.folder(), &self.socket(), options)
    }

    fn row(&self) -> Value {
        self.daemon.ctl().port("vm").expect("the port is listed")
    }

    fn await_link(&self, link: &str) {
        wait_until(&format!("the link of vm is {link}"), SOON, || self.row()["link"] == link);
    }

    /// Pings are answered by the program, every one of them.
    fn assert_answers(&self) {
        let address = "10.9.0.77".parse().expect("an address");
        await_ping(&self.container.namespace, address);
        assert_eq!(count_pings(&self.container.namespace, address, 200), 200);
        // Longer than a head: the payload is lent from the program's memory. ping compares what comes back.
        let report = self.container.namespace.run("ping -n -c 20 -i 0.01 -W 1 -s 1400 10.9.0.77");
        assert!(report.contains(" 20 received") && !report.contains("wrong data"), "{report}");
    }
}

#[test]
fn a_program_with_its_own_stack_is_reached_whichever_side_listens() {
    for mode in ["server", "client"] {
        let scene = Scene::start(mode);
        let row = scene.row();
        assert_eq!((&row["state"], &row["link"], &row["mode"]), (&"up".into(), &"down".into(), &mode.into()));
        let program = scene.program("icmpecho");
        scene.await_link("up");
        scene.assert_answers();

        // The program dies in the middle of everything, and another one takes its place.
        drop(program);
        scene.await_link("down");
        let reason = scene.row()["reason"].to_string();
        assert!(reason.starts_with("\"disconnected: "), "{reason}");
        let _program = scene.program("icmpecho");
        scene.assert_answers();
        assert_conserved(&scene.daemon.ctl());
    }
}

#[test]
fn rings_of_both_kinds_carry_frames() {
    let scene = Scene::start("server");
    for (device, ring) in [
        ("", "split"),
        (",in_order=0", "split"),
        (",packed_vq=1", "packed"),
        (",packed_vq=1,in_order=0", "packed"),
        (",packed_vq=1,mrg_rxbuf=0", "packed"),
        (",mrg_rxbuf=0", "split"),
    ] {
        let program =
            scene.program_with(Options { server: false, mode: "icmpecho", queues: 1, used: 1, device });
        wait_until("its rings are enabled", SOON, || scene.row()["queues_enabled"] == 1);
        let row = scene.row();
        let has = |name: &str| row["features"].as_array().is_some_and(|all| all.contains(&name.into()));
        assert_eq!(row["ring"], ring, "{device}");
        assert_eq!(has("in_order"), !device.contains("in_order=0"), "{device}");
        assert_eq!(has("mrg_rxbuf"), !device.contains("mrg_rxbuf=0"), "{device}");
        scene.assert_answers();
        drop(program);
        scene.await_link("down");
    }
    assert_conserved(&scene.daemon.ctl());
}

#[test]
fn pairs_that_the_program_does_not_use_are_not_sent_to() {
    for mode in ["server", "client"] {
        // The container's frames come from a worker whose own pair is the last.
        let scene = Scene::with(mode, "[0, 0, 0, 0]", "workers = [3]", "queues = 4");
        assert_eq!(scene.row()["queues"], 4);
        for used in [4, 1, 2] {
            let server = mode == "client";
            let _program =
                scene.program_with(Options { server, mode: "icmpecho", queues: 4, used, device: "" });
            wait_until("its pairs are enabled", SOON, || scene.row()["queues_enabled"] == used);
            scene.assert_answers();
            let row = scene.row();
            let features: Vec<&str> =
                row["features"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
            assert!(features.contains(&"mq") && features.contains(&"mrg_rxbuf"), "{features:?}");
            assert_eq!((&row["connected"], &row["ring"]), (&true.into(), &"split".into()));
        }
        wait_until("the last one to be gone", SOON, || scene.row()["connected"] == false);
        assert_eq!(scene.row()["resets"], 3);
        assert_conserved(&scene.daemon.ctl());
    }
}

#[test]
fn a_switch_that_was_killed_finds_the_other_end_again() {
    let mut scene = Scene::start("client");
    let _program = scene.program("icmpecho");
    scene.assert_answers();
    for _ in 0..3 {
        scene.daemon.kill();
        scene.daemon.start_again();
        scene.await_link("up");
        scene.assert_answers();
    }
}

/// Files that a process has mapped or open: their inodes, of those whose name has `name` in it.
fn files(process: &Path, name: &str) -> BTreeSet<u64> {
    let maps = std::fs::read_to_string(process.join("maps")).unwrap_or_default();
    let mapped = maps.lines().filter(|line| line.contains(name));
    let mapped = mapped.filter_map(|line| line.split_whitespace().nth(4)?.parse().ok());
    let open = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let open = open.filter(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().contains(name))
    });
    mapped.chain(open.filter_map(|entry| Some(std::fs::metadata(entry.path()).ok()?.ino()))).collect()
}

#[test]
fn a_program_has_its_own_memory_and_none_of_the_switch() {
    for mode in ["server", "client"] {
        let scene = Scene::start(mode);
        let _program = scene.program("icmpecho");
        scene.assert_answers();
        let switch = PathBuf::from(format!("/proc/{}", scene.daemon.pid()));
        let others: Vec<PathBuf> = std::fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.join("maps").exists() && *path != switch)
            .filter(|path| path.file_name().is_some_and(|name| name != "self" && name != "thread-self"))
            .collect();
        let arena = files(&switch, "memfd:vswitch-arena");
        assert_eq!(arena.len(), 1, "the switch has an arena");
        for other in &others {
            let seen = files(other, "memfd:vswitch-arena");
            assert!(seen.is_disjoint(&arena), "{} has the switch's arena", other.display());
        }
        // What is shared is found that way: the program's memory is with the switch.
        let shared = files(&switch, "memfd:");
        assert!(others.iter().any(|other| !files(other, "memfd:").is_disjoint(&shared)));
    }
}

#[test]
fn a_program_that_sends_all_it_can_is_received_and_every_frame_accounted_for() {
    let scene = Scene::start("server");
    let program = scene.program("txonly");
    let frames = || scene.row()["rx_frames"].as_u64().unwrap_or(0);
    wait_until("100,000 frames came in", SOON, || frames() > 100_000);
    drop(program);
    scene.await_link("down");
    assert_conserved(&scene.daemon.ctl());
}
