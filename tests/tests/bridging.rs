//! Frames over real ports: VLANs, floods, and every frame accounted for.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use vswitch_tests::ctl::number;
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::probe::frames::Sent;
use vswitch_tests::probe::numbered::Order;
use vswitch_tests::traffic::{assert_exchange, await_ping, pings, probe, probe_service, send_frames};
use vswitch_tests::wait::SOON;
use vswitch_tests::{Attachment, Container, Lab, binaries, wait_until};

/// The EtherType of the frames that these tests make (IEEE 802 local experimental 1): no kernel sends it by itself.
const ETHERTYPE: &str = "88b5";

/// A 60-byte frame in hexadecimal digits, with a VLAN tag when one is given.
fn frame(destination: &str, source: &str, vlan: Option<u16>) -> String {
    let tag = vlan.map(|vlan| format!("8100{vlan:04x}")).unwrap_or_default();
    format!("{:0<120}", format!("{destination}{source}{tag}{ETHERTYPE}"))
}

fn send(from: &Container, frame: &str, count: u64) {
    send_frames(&from.namespace, "eth0", frame, count);
}

/// Runs `traffic` and returns which of our frames then arrive at each of `ends`, in hexadecimal digits.
fn frames_at(ends: &[&Container], traffic: impl FnOnce()) -> Vec<Vec<String>> {
    let watch = |end: &&Container| probe_service(&end.namespace, &["frame-watch", "eth0", ETHERTYPE, "700"]);
    let watches: Vec<_> = ends.iter().map(watch).collect();
    traffic();
    watches.into_iter().map(|watch| watch.finish(SOON).lines().map(str::to_owned).collect()).collect()
}

/// Runs `traffic` and returns how many of our frames then arrive at each of `ends`.
fn arrivals(ends: &[&Container], traffic: impl FnOnce()) -> Vec<usize> {
    frames_at(ends, traffic).iter().map(Vec::len).collect()
}

#[test]
fn floods_reach_everybody_once_and_learned_frames_one_only() {
    let lab = Lab::new("floods");
    let containers = Attachment::ALL.map(|kind| lab.container(kind.name(), kind, 1500));
    let mut daemon = lab.start(&Lab::configuration("[0, 1]", &containers.each_ref()));
    let ctl = daemon.ctl();
    await_up(&ctl, &containers.each_ref().map(|container| container.name.as_str()));
    let [first, rest @ ..] = containers.each_ref();
    let station = "020000000011";
    for (destination, what) in
        [("ffffffffffff", "broadcast"), ("01005e000001", "multicast"), ("020000000099", "unknown")]
    {
        let seen = arrivals(&rest, || send(first, &frame(destination, station, None), 20));
        assert_eq!(seen, [20, 20, 20], "{what} frames");
    }
    wait_until("the station is learned", SOON, || {
        ctl.rows(&["fdb", "list"])
            .iter()
            .any(|row| row["mac"] == "02:00:00:00:00:11" && row["port"] == first.name.as_str())
    });
    let all = containers.each_ref();
    let seen = arrivals(&all, || send(rest[0], &frame(station, "020000000012", None), 20));
    assert_eq!(seen, [20, 0, 0, 0], "frames to a learned station");
    assert_conserved(&ctl);
    daemon.stop();
}

#[test]
fn vlans_keep_apart_what_is_apart_and_a_trunk_carries_them_tagged() {
    let lab = Lab::new("vlans");
    let names = ["trunk", "ten", "tenner", "twenty"];
    let kinds = [Attachment::Tap, Attachment::VethPacket, Attachment::VethAfxdp, Attachment::Tap];
    let made: Vec<_> = names.iter().zip(kinds).map(|(name, kind)| lab.container(name, kind, 1500)).collect();
    let [trunk, ten, tenner, twenty] = &made[..] else { panic!("four containers were made") };
    let ports = [
        trunk.port("trunk = [10, \"20-29\"]"),
        ten.port("vlan = 10"),
        tenner.port("vlan = 10"),
        twenty.port("vlan = 20"),
    ];
    let mut daemon = lab.start(&format!("{}{}", Lab::configuration("[1]", &[]), ports.concat()));
    await_ping(&ten.namespace, tenner.v4);
    assert!(!pings(&ten.namespace, twenty.v4), "VLAN 10 reached VLAN 20");
    assert_exchange(&ten.namespace, &tenner.namespace, tenner.v4, 9, 5_000_000);
    let (everybody, source) = ("ffffffffffff", "020000000031");
    let plain = frame(everybody, source, None);
    // From an access port a frame comes out tagged on the trunk, and as it was on its own VLAN's other port.
    for (from, vlan, others) in [(ten, 10, [1, 0]), (twenty, 20, [0, 0])] {
        let seen =
            frames_at(&[trunk, tenner, if vlan == 10 { twenty } else { ten }], || send(from, &plain, 1));
        assert_eq!([seen[1].len(), seen[2].len()], others, "VLAN {vlan}");
        let tagged = frame(everybody, source, Some(vlan));
        assert!(
            seen[0].len() == 1 && seen[0][0].starts_with(&tagged[..36]),
            "VLAN {vlan} on the trunk: {:?}",
            seen[0]
        );
    }
    // From the trunk it reaches the ports of its VLAN, without the tag.
    for (vlan, counts) in [(10, [1, 1, 0]), (20, [0, 0, 1])] {
        let seen =
            frames_at(&[ten, tenner, twenty], || send(trunk, &frame(everybody, source, Some(vlan)), 1));
        assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), counts, "VLAN {vlan} from the trunk");
        assert!(seen.iter().flatten().all(|frame| frame.starts_with(&plain[..28])), "{seen:?}");
    }
    let ctl = daemon.ctl();
    let drops = || ctl.drops(Some("trunk"), "vlan-not-member");
    let before = drops();
    let seen = arrivals(&[ten, tenner, twenty], || {
        send(trunk, &frame("ffffffffffff", "020000000031", Some(30)), 20)
    });
    assert_eq!(seen, [0, 0, 0], "a VLAN that the trunk does not carry got through");
    assert!(drops() >= before + 20, "frames of a VLAN that is not carried should be counted as drops");
    assert_conserved(&ctl);
    daemon.stop();
}

#[test]
fn random_traffic_of_many_stations_is_conserved() {
    for workers in ["[1]", "[0, 1]", "[0, 0, 1, 1]"] {
        let lab = Lab::new("conserved");
        let containers = Attachment::ALL.map(|kind| lab.container(kind.name(), kind, 1500));
        let mut daemon = lab.start(&Lab::configuration(workers, &containers.each_ref()));
        let ctl = daemon.ctl();
        await_up(&ctl, &containers.each_ref().map(|container| container.name.as_str()));
        let mut senders = Vec::new();
        for (number, container) in containers.iter().enumerate() {
            let side = (number % 2).to_string();
            let mut command = container.namespace.command(binaries::binary("netprobe"));
            senders.push(
                command.args(["stations", "eth0", &side, "300", "1"]).spawn().expect("netprobe starts"),
            );
        }
        let ended = |mut sender: std::process::Child| sender.wait().expect("it can be waited for").success();
        assert!(senders.into_iter().all(ended));
        assert_conserved(&ctl);
        let status = ctl.json(&["status"]);
        assert!(status["received"].as_u64().is_some_and(|frames| frames > 10_000), "{status}");
        daemon.stop();
    }
}

#[test]
fn ports_added_and_removed_under_traffic_lose_no_account_of_a_frame() {
    let lab = Lab::new("churn");
    let [left, right] = ["left", "right"].map(|name| lab.container(name, Attachment::Tap, 1500));
    let extra = Attachment::ALL.map(|kind| lab.container(kind.name(), kind, 1500));
    let few = Lab::configuration("[0, 1]", &[&left, &right]);
    let many = extra.iter().fold(few.clone(), |text, container| text + &container.port(""));
    let mut daemon = lab.start(&few);
    let ctl = daemon.ctl();
    await_ping(&left.namespace, right.v4);
    let (few, many) = (lab.write("few.toml", &few), lab.write("many.toml", &many));
    let mut command = left.namespace.command(binaries::binary("netprobe"));
    let mut stations = command.args(["stations", "eth0", "0", "200", "60"]).spawn().expect("netprobe starts");
    for _ in 0..5 {
        ctl.json(&["apply", &many]);
        ctl.json(&["apply", &few]);
        daemon.assert_alive();
    }
    let busy = stations.try_wait().expect("it can be waited for").is_none();
    stations.kill().expect("it can be killed");
    stations.wait().expect("it can be waited for");
    assert!(busy, "the traffic ended too early to show anything");
    await_ping(&left.namespace, right.v4);
    assert_conserved(&ctl);
    daemon.stop();
}

#[test]
fn ten_thousand_stations_are_learned() {
    let lab = Lab::new("stations");
    let [left, right] = ["left", "right"].map(|name| lab.container(name, Attachment::Tap, 1500));
    let mut daemon = lab.start(&Lab::configuration("[1]", &[&left, &right]));
    let ctl = daemon.ctl();
    let learned = || ctl.rows(&["fdb", "list"]).iter().filter(|row| row["port"] == "left").count();
    // The TAP's own queue drops frames that come faster than they are read: those are sent again.
    wait_until("all stations are learned", Duration::from_secs(30), || {
        let sent: Sent = probe(&left.namespace, &["stations", "eth0", "0", "10000", "0", "--learn"]);
        sent.sent == 10_000 && learned() >= 10_000
    });
    assert_conserved(&ctl);
    daemon.stop();
}

#[test]
fn each_flow_keeps_its_order_while_queues_move_between_workers() {
    let lab = Lab::new("order");
    let kinds = [Attachment::Tap, Attachment::VethPacket, Attachment::VethAfxdp];
    let senders = kinds.map(|kind| lab.container(kind.name(), kind, 1500));
    let sink = lab.container("sink", Attachment::Tap, 1500);
    let two = [&senders[0], &senders[2], &sink].map(|container| container.port("queues = 2"));
    let rest = Lab::configuration("[0, 0, 1, 1]", &[&senders[1]]);
    let mut daemon = lab.start(&format!("{rest}{}", two.concat()));
    let ctl = daemon.ctl();
    let queues = |name: &str| number(&ctl.port(name).expect("it is there"), "queues");
    assert_eq!(senders.each_ref().map(|sender| queues(&sender.name)), [2, 1, 2]);
    for sender in &senders {
        await_ping(&sender.namespace, sink.v4);
    }
    let address = format!("{}:7002", sink.v4);
    let receiver = probe_service(&sink.namespace, &["numbered-receive", &address, "1000"]);
    let start = |sender: &Container| {
        let mut command = sender.namespace.command(binaries::binary("netprobe"));
        command.args(["numbered-send", &address, "8", "3"]).stdout(Stdio::null());
        command.spawn().expect("netprobe starts")
    };
    let running: Vec<_> = senders.iter().map(start).collect();
    for mut sender in running {
        while sender.try_wait().expect("it can be waited for").is_none() {
            ctl.json(&["worker", "rebalance"]);
        }
    }
    let seen: Order = serde_json::from_str(&receiver.finish(SOON)).expect("netprobe prints JSON");
    assert_eq!((seen.late, seen.doubled), (0, 0), "{seen:?}");
    assert_eq!(seen.flows, 24, "{seen:?}");
    assert_conserved(&ctl);
    daemon.stop();
}

#[test]
fn a_mac_that_moves_between_workers_takes_its_traffic_along() {
    let lab = Lab::new("moves");
    let made = ["here", "there", "near", "far"].map(|name| lab.container(name, Attachment::Tap, 1500));
    // One place and one sender on each worker.
    let ports = made.iter().zip([0, 1, 0, 1]).map(|(end, worker)| end.port(&format!("workers = [{worker}]")));
    let mut daemon =
        lab.start(&format!("{}{}", Lab::configuration("[0, 1]", &[]), ports.collect::<String>()));
    let ctl = daemon.ctl();
    await_up(&ctl, &made.each_ref().map(|end| end.name.as_str()));
    let placement = ctl.rows(&["worker", "list"]);
    for (worker, queues) in placement.iter().zip([["here:0", "near:0"], ["there:0", "far:0"]]) {
        let served = worker["queues"].as_array().expect("a list");
        assert!(queues.iter().all(|queue| served.iter().any(|one| one == queue)), "{worker}");
    }
    let [here, there, near, far] = made.each_ref();
    let station = "020000000055";
    let announce = |from: &Container| send(from, &frame("ffffffffffff", station, None), 1);
    let located = |place: &Container| {
        ctl.rows(&["fdb", "list"])
            .iter()
            .any(|row| row["mac"] == "02:00:00:00:00:55" && row["port"] == place.name.as_str())
    };
    let arrived = |place: &Container| number(&ctl.port(&place.name).expect("it is there"), "tx_frames");
    announce(here);
    wait_until("the station is learned", SOON, || located(here));
    let traffic = [(near, "020000000061"), (far, "020000000062")].map(|(sender, source)| {
        let endless = u32::MAX.to_string();
        probe_service(&sender.namespace, &["frame-send", "eth0", &frame(station, source, None), &endless])
    });
    // One move more, and the station would be held where it is.
    for turn in 0..4 {
        let (old, new) = if turn % 2 == 0 { (here, there) } else { (there, here) };
        announce(new);
        wait_until(&format!("the FDB follows move {turn}"), SOON, || located(new));
        wait_until(&format!("all traffic follows move {turn}"), SOON, || {
            let before = [arrived(old), arrived(new)];
            wait_until("the traffic goes on", SOON, || {
                arrived(old) + arrived(new) > before[0] + before[1] + 1000
            });
            // The containers' own stacks say something now and then, which goes everywhere.
            arrived(old) - before[0] < 20
        });
    }
    drop(traffic);
    assert_conserved(&ctl);
    daemon.stop();
}

#[test]
fn a_station_that_is_at_two_places_is_held_and_told_of() {
    let lab = Lab::new("twice");
    let containers = ["one", "two"].map(|name| lab.container(name, Attachment::Tap, 1500));
    let [one, two] = &containers;
    let mut daemon = lab.start(&Lab::configuration("[0, 1]", &[one, two]));
    let ctl = daemon.ctl();
    await_up(&ctl, &["one", "two"]);
    let frame = frame("ffffffffffff", "020000000977", None);
    let send = |from: &Container| send(from, &frame, 1);
    let place =
        || ctl.rows(&["fdb", "list", "--mac", "02:00:00:00:09:77"]).first().map(|row| row["port"].clone());
    for from in [one, two, one, two, one, two] {
        send(from);
        wait_until("it is learned where it is", SOON, || place() == Some(from.name.as_str().into()));
    }
    let told = |kind: &str| {
        let events = ctl.rows(&["events"]);
        let about =
            |event: &&Value| event["kind"] == kind && event["objects"][0] == "fdb entry 02:00:00:00:09:77";
        events.iter().find(about).map(|event| event["objects"].clone())
    };
    wait_until("it is told that the station flaps", SOON, || told("mac-flapping").is_some());
    let objects = told("mac-flapping").expect("it is told");
    assert_eq!(
        objects,
        json!(["fdb entry 02:00:00:00:09:77", "bridge \"blue\"", "port \"one\"", "port \"two\""])
    );
    assert_eq!(told("duplicate-mac"), None);
    send(one);
    wait_until("it is told that there are two of it", SOON, || {
        told("duplicate-mac") == Some(objects.clone())
    });
    assert_eq!(place(), Some("two".into()));
    assert_conserved(&ctl);
    daemon.stop();
}
