//! Many ports, and none of them busy. Correctness only: the figures are the benchmarks' business.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use vswitch_tests::traffic::await_ping;
use vswitch_tests::{Attachment, Container, Lab};

const PORTS: usize = 100;

/// The part of a core that a switch with nothing to do may use.
const IDLE_SHARE: f64 = 0.02;

fn many(lab: &Lab) -> Vec<Container> {
    (0..PORTS).map(|number| lab.container(&format!("t{number}"), Attachment::Tap, 1500)).collect()
}

#[test]
fn a_hundred_taps_come_by_one_apply_stay_by_the_next_and_go_by_a_third() {
    let lab = Lab::new("hundred");
    let containers = many(&lab);
    let mut daemon = lab.start(&Lab::configuration("[1]", &[]));
    let ctl = daemon.ctl();
    let all = lab.write("all.toml", &Lab::configuration("[1]", &containers.iter().collect::<Vec<_>>()));
    let none = lab.write("none.toml", &Lab::configuration("[1]", &[]));
    let mut times = String::new();
    let mut apply = |path: &str| {
        let start = Instant::now();
        let answer = ctl.json(&["apply", path]);
        let _ = write!(times, "{:?} ", start.elapsed());
        answer
    };
    apply(&all);
    assert_eq!(ctl.rows(&["port", "list"]).len(), PORTS);
    let [first, last] = [&containers[0], &containers[PORTS - 1]];
    await_ping(&first.namespace, last.v4);
    await_ping(&last.namespace, first.v6);
    let again = apply(&all);
    assert_eq!(again["changed"], false, "the same configuration again changed something: {again}");
    apply(&none);
    assert!(containers.iter().all(|container| !container.namespace.succeeds("ip link show eth0")));
    println!("100 TAPs: made, the same again, removed: {times}");
    daemon.stop();
}

#[test]
fn an_idle_switch_sleeps_and_the_first_frame_wakes_it() {
    let lab = Lab::new("idle");
    let kinds = Attachment::ALL.map(|kind| lab.container(kind.name(), kind, 1500));
    let mut daemon = lab.start(&Lab::configuration("[0, 1]", &kinds.each_ref()));
    await_ping(&kinds[0].namespace, kinds[1].v4);
    // The stacks' own multicast at the start dies away; then an idle stretch is looked for, not a given one.
    let (mut share, start) = (f64::MAX, Instant::now());
    while share > IDLE_SHARE && start.elapsed() < Duration::from_secs(40) {
        let (used, stretch) = (daemon.cpu_time(), Instant::now());
        thread::sleep(Duration::from_secs(4));
        share = (daemon.cpu_time() - used).as_secs_f64() / stretch.elapsed().as_secs_f64();
    }
    assert!(share <= IDLE_SHARE, "the idle switch used {share} of a core");
    println!("the idle switch used {share} of a core");
    let workers = daemon.ctl().rows(&["worker", "list"]);
    assert!(workers.iter().all(|worker| worker["sleeping"] == true), "{workers:?}");
    for (from, to) in kinds.iter().zip(kinds.iter().cycle().skip(1)) {
        await_ping(&from.namespace, to.v4);
    }
    daemon.stop();
}
