//! What programs rely on: the fields of every list, learning, static entries, drops and traces.

use serde_json::Value;
use vswitch_tests::lab::assert_conserved;
use vswitch_tests::traffic::await_ping;
use vswitch_tests::wait::SOON;
use vswitch_tests::{Attachment, Lab, wait_until};

fn assert_fields(row: &Value, fields: &[&str]) {
    for field in fields {
        assert!(row.get(field).is_some(), "{field} is missing in {row}");
    }
}

#[test]
fn lists_have_the_fields_that_programs_rely_on() {
    let lab = Lab::new("fields");
    let containers = Attachment::ALL.map(|kind| lab.container(kind.name(), kind, 1500));
    let mut daemon = lab.start(&Lab::configuration("[0, 1]", &containers.each_ref()));
    await_ping(&containers[0].namespace, containers[1].v4);
    let ctl = daemon.ctl();
    let ports = ctl.rows(&["port", "list"]);
    assert_eq!(ports.len(), containers.len());
    for port in &ports {
        let plain = ["name", "type", "bridge", "state", "reason", "link", "mode", "mtu", "mac", "queues"];
        assert_fields(port, &plain);
        assert_fields(port, &["rx_frames", "rx_bytes", "tx_frames", "tx_bytes", "drops"]);
        assert_eq!(
            (&port["state"], &port["bridge"], &port["mtu"]),
            (&"up".into(), &"blue".into(), &1500.into())
        );
    }
    let fields = ["cpu", "frames", "busy_cycles", "idle_cycles", "cycles_per_frame", "sleeping"];
    let workers = ctl.rows(&["worker", "list"]);
    assert_eq!(workers.len(), 2);
    workers.iter().for_each(|worker| assert_fields(worker, &fields));
    let status = ctl.json(&["status"]);
    assert_fields(
        &status,
        &["version", "uptime_s", "config", "page_size", "frames", "frames_free", "generation"],
    );
    assert_fields(&status, &["rss_bytes", "received", "made", "sent", "dropped", "consumed", "held"]);
    for table in [
        &["port", "list"][..],
        &["worker", "list"],
        &["fdb", "list"],
        &["bridge", "list"],
        &["drops"],
        &["status"],
    ] {
        assert!(!ctl.text(table).contains('\u{1b}'), "{table:?}: colours are for terminals only");
    }
    daemon.stop();
}

#[test]
fn macs_are_learned_and_static_entries_stay() {
    let lab = Lab::new("fdb");
    let [left, right] = ["left", "right"].map(|name| lab.container(name, Attachment::Tap, 1500));
    let entry = "[[fdb]]\nbridge = \"blue\"\nmac = \"02:00:00:00:00:99\"\nport = \"right\"\n";
    let mut daemon = lab.start(&format!("{}{entry}", Lab::configuration("[1]", &[&left, &right])));
    await_ping(&left.namespace, right.v4);
    let ctl = daemon.ctl();
    let find = |mac: &str| ctl.rows(&["fdb", "list"]).into_iter().find(|row| row["mac"] == mac);
    for container in [&left, &right] {
        let row = find(&container.mac()).unwrap_or_else(|| panic!("{} is not learned", container.name));
        assert_fields(&row, &["bridge", "vlan", "mac", "port", "kind", "age_s"]);
        assert_eq!((&row["port"], &row["kind"]), (&Value::from(container.name.as_str()), &"learned".into()));
    }
    assert_eq!(find("02:00:00:00:00:99").expect("it was configured")["kind"], "static");
    daemon.stop();
}

#[test]
fn a_trace_tells_what_would_happen_and_changes_nothing() {
    let lab = Lab::new("trace");
    let [left, right] = ["left", "right"].map(|name| lab.container(name, Attachment::Tap, 1500));
    let mut daemon = lab.start(&Lab::configuration("[1]", &[&left, &right]));
    await_ping(&left.namespace, right.v4);
    let ctl = daemon.ctl();
    let fdb = ctl.rows(&["fdb", "list"]).len();
    let frame = format!(
        "eth(src=02:00:00:00:00:42,dst={}) ipv4(src=10.9.0.77,dst={}) tcp(dport=80)",
        right.mac(),
        right.v4
    );
    let trace = ctl.json(&["trace", "left", &frame]);
    assert_eq!(trace["verdict"], "forward", "{trace}");
    assert_eq!(trace["outputs"][0]["port"], "right", "{trace}");
    assert_fields(&trace, &["stages", "key", "cached", "verdict", "reason", "outputs"]);
    assert_fields(&trace["stages"][0], &["name", "read", "decided"]);
    let hex = trace["outputs"][0]["frame_hex"].as_str().expect("text");
    assert!(hex.starts_with(&right.mac().replace(':', "")), "{hex}");
    assert_eq!(ctl.rows(&["fdb", "list"]).len(), fdb, "a trace taught the switch something");
    let again = ctl.json(&["trace", "left", "--hex", hex]);
    assert_eq!(again["outputs"][0]["frame_hex"], hex, "{again}");
    daemon.stop();
}

#[test]
fn a_frame_too_large_for_its_way_out_is_dropped_by_name() {
    let lab = Lab::new("mtu");
    let large = lab.container("large", Attachment::Tap, 9000);
    let small = lab.container("small", Attachment::Tap, 1500);
    let mut daemon = lab.start(&Lab::configuration("[1]", &[&large, &small]));
    await_ping(&large.namespace, small.v4);
    let ctl = daemon.ctl();
    let mtu_drops = || ctl.drops(Some("small"), "mtu-exceeded");
    assert_eq!(mtu_drops(), 0);
    assert!(!large.namespace.succeeds(&format!("ping -n -q -c 1 -W 1 -s 4000 -M do {}", small.v4)));
    wait_until("the drop is counted by its name", SOON, || mtu_drops() >= 1);
    assert_conserved(&ctl);
    daemon.stop();
}

#[test]
fn the_number_of_queues_changes_and_a_container_keeps_its_interface_where_that_can_be() {
    let lab = Lab::new("queues");
    let [tap, xdp, other] =
        [("tap", Attachment::Tap), ("xdp", Attachment::VethAfxdp), ("other", Attachment::Tap)]
            .map(|(name, kind)| lab.container(name, kind, 1500));
    let fixed = Lab::configuration("[0, 1]", &[&other]);
    let with = |queues: [u16; 2]| {
        let [one, two] = queues.map(|queues| format!("queues = {queues}"));
        format!("{fixed}{}{}", tap.port(&one), xdp.port(&two))
    };
    let mut daemon = lab.start(&with([2, 2]));
    let ctl = daemon.ctl();
    let indices = || {
        let index = |line: String| line.split(':').next().expect("an index").to_owned();
        [&tap, &xdp].map(|container| index(container.namespace.ip("-o link show eth0")))
    };
    let check = |queues: [u16; 2]| {
        for (container, queues) in [&tap, &xdp].into_iter().zip(queues) {
            assert_eq!(ctl.port(&container.name).expect("it is there")["queues"], queues);
            await_ping(&container.namespace, other.v4);
        }
    };
    check([2, 2]);
    let before = indices();
    for queues in [[1, 1], [1, 2]] {
        ctl.json(&["apply", &lab.write("changed.toml", &with(queues))]);
        check(queues);
        assert_eq!(indices(), before, "an interface was made again for {queues:?} queues");
    }
    // What a TAP for one queue cannot have is said before it is done.
    let more = lab.write("more.toml", &with([2, 2]));
    let plan = ctl.text(&["apply", "--dry-run", &more]);
    assert!(plan.contains("delete port \"tap\" to make it again: queues"), "{plan}");
    ctl.json(&["apply", &more]);
    check([2, 2]);
    assert_conserved(&ctl);
    daemon.stop();
}
