//! The demo of a bridge over three hosts: all that it shows is there, and nothing of it stays, also when it is
//! interrupted.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{self, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use vswitch_tests::binaries::{binary, workspace};
use vswitch_tests::namespace::run;
use vswitch_tests::service::Service;
use vswitch_tests::wait::wait_for;

/// The demo in a process group of its own, as a terminal would have it; `tag` is in the names of its namespaces.
fn command(tag: &str) -> Command {
    let programs = binary("vswitchd").parent().expect("a program lies in a folder").to_owned();
    let mut command = Command::new(workspace().join("scripts/demo"));
    command.args(["overlay", "--seconds", "1"]).env("BIN", programs).env("LAB", tag).process_group(0);
    command
}

/// Namespaces of tests that a later one sweeps away are called so.
fn tag(name: &str) -> String {
    format!("vstest{}-{name}", process::id())
}

fn assert_nothing_is_left(tag: &str) {
    let namespaces = run(Command::new("ip").args(["netns", "list"]));
    assert!(!namespaces.contains(tag), "{namespaces}");
    let folders = fs::read_dir(env::temp_dir()).expect("a folder").flatten();
    let names = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let left: Vec<String> = names.filter(|name| name.starts_with(tag)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_bridge_over_three_hosts_is_shown() {
    let tag = tag("show");
    let shown =
        Service::start(&mut command(&tag), "Three hosts and a router").finish(Duration::from_secs(120));
    assert_nothing_is_left(&tag);
    assert_eq!(shown.matches("20/20 answered").count(), 7, "{shown}");
    let speeds: Vec<f64> = ["web to db (NVGRE)", "web to cache (VXLAN)"]
        .iter()
        .flat_map(|path| shown.split_once(path).expect("a row for it").1.split_whitespace().take(2))
        .map(|figure| figure.parse().expect("a figure"))
        .collect();
    assert!(speeds.len() == 4 && speeds.iter().all(|speed| *speed > 0.0), "{speeds:?}: {shown}");
    for sign in [
        "made for an MTU of 1450",                  // by the narrower of the tunnels
        "mtu = 1458",                               // of 1500, less 42 for NVGRE
        "0 received",                               // and nothing is let through that is larger
        "1430 bytes from 198.18.77.12",             // but what fits is
        "tunnel to three/198.18.3.1 with VNI 5001", // the trace
        "vxlan  core      up     198.18.1.1  198.18.3.1  up", // the tunnels
    ] {
        assert!(shown.contains(sign), "{sign}: {shown}");
    }
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let tag = tag("stop");
    let mut demo = command(&tag).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(demo.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("20/20 answered")), "it ended before it showed anything");
    // As a terminal does it: to all of its processes.
    run(Command::new("kill").args(["-INT", "--", &format!("-{}", demo.id())]));
    let status = wait_for("the demo ends", Duration::from_secs(15), || demo.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(130));
    assert_nothing_is_left(&tag);
}
