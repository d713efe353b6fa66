//! How results look to people.

use control::api::*;

use crate::overlay::place;
use crate::table::{Cell, Colour, Style, printable, sheet, table};

pub(crate) fn status(status: &Status, style: Style) -> String {
    let config = match (status.config, &status.config_file) {
        (ConfigSource::File, Some(file)) => format!("applied from {}", printable(file)),
        (ConfigSource::File, None) => "applied from a file".to_owned(),
        (ConfigSource::Stored, _) => "restored from the state directory".to_owned(),
        (ConfigSource::Empty, _) => "empty at the start".to_owned(),
    };
    let edited = if status.edited { ", edited since" } else { "" };
    let pages = match status.page_size {
        4096 => "4 KB pages (no huge pages)".to_owned(),
        2_097_152 => "2 MB huge pages".to_owned(),
        other => format!("pages of {other} bytes"),
    };
    let rows = [
        ("version", printable(&status.version)),
        ("up", duration(status.uptime_s)),
        ("configuration", format!("{config}{edited}, generation {}", status.generation)),
        (
            "objects",
            format!("{} bridges, {} ports, {} workers", status.bridges, status.ports, status.workers),
        ),
        ("arena", format!("{} frames, {} free, on {pages}", status.frames, status.frames_free)),
        ("memory", format!("{:.1} MB resident", status.rss_bytes as f64 / 1e6)),
        ("received", status.received.to_string()),
        ("made", status.made.to_string()),
        ("sent", status.sent.to_string()),
        ("dropped", status.dropped.to_string()),
        ("consumed", status.consumed.to_string()),
        ("held", status.held.to_string()),
    ];
    sheet(&rows, style)
}

fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// What `apply`, `diff`, `rollback` and the edits did, or would do.
pub(crate) fn applied(applied: &Applied, dry_run: bool) -> String {
    match (applied.changed, dry_run) {
        (false, _) => "nothing to change\n".to_owned(),
        (true, true) => format!("would be done:\n{}", steps(applied)),
        (true, false) => format!("done:\n{}", steps(applied)),
    }
}

fn steps(applied: &Applied) -> String {
    applied.steps.iter().map(|step| format!("  {}\n", printable(step))).collect()
}

fn up_down(state: UpDown) -> Cell {
    let colour = if state == UpDown::Up { Colour::Good } else { Colour::Bad };
    Cell::text(state.as_str()).colour(colour)
}

pub(crate) fn ports(rows: &[PortRow], style: Style) -> String {
    // Columns that say nothing where nobody plugs in.
    let peers = rows.iter().any(|row| row.connected.is_some());
    let mut header = vec![
        "NAME",
        "TYPE",
        "BRIDGE",
        "VLAN",
        "STATE",
        "LINK",
        "MODE",
        "MTU",
        "MAC",
        "QUEUES",
        "RX FRAMES",
        "RX BYTES",
        "TX FRAMES",
        "TX BYTES",
        "DROPS",
        "MISSED",
    ];
    header.extend(["RING", "ENABLED", "RESETS"].iter().filter(|_| peers));
    header.push("REASON");
    let cells = |row: &PortRow| {
        let lost = |frames: u64| {
            let cell = Cell::number(frames);
            if frames > 0 { cell.colour(Colour::Bad) } else { cell }
        };
        let mut cells = vec![
            Cell::text(row.name.as_str()),
            Cell::text(&row.port_type),
            Cell::option(row.bridge.as_ref()),
            Cell::text(&row.vlan),
            up_down(row.state),
            up_down(row.link),
            Cell::option(row.mode.as_ref()),
            Cell::number(row.mtu),
            Cell::option(row.mac),
            Cell::number(row.queues),
            Cell::number(row.rx_frames),
            Cell::number(row.rx_bytes),
            Cell::number(row.tx_frames),
            Cell::number(row.tx_bytes),
            lost(row.drops),
            lost(row.missed),
        ];
        if peers {
            cells.push(Cell::option(row.ring.as_ref()));
            cells.push(Cell::option(row.queues_enabled));
            cells.push(Cell::option(row.resets));
        }
        cells.push(Cell::text(row.reason.as_deref().unwrap_or("")));
        cells
    };
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), style, "no ports")
}

pub(crate) fn port(detail: &PortDetail, style: Style) -> String {
    let row = &detail.row;
    let (mut state, mut link) = (row.state.as_str().to_owned(), row.link.as_str().to_owned());
    if let Some(reason) = &row.reason {
        // Of the one that is down; of a port that is, the link is, too.
        let down = if row.state == UpDown::Up { &mut link } else { &mut state };
        *down = format!("{down}: {}", printable(reason));
    }
    let colour = if row.state == UpDown::Up { Colour::Good } else { Colour::Bad };
    let mut rows = vec![
        ("port", style.paint(Colour::Strong, row.name.as_str())),
        ("type", printable(&row.port_type)),
        ("bridge", row.bridge.as_ref().map_or("-".to_owned(), ToString::to_string)),
        ("vlan", printable(&row.vlan)),
        ("state", style.paint(colour, &state)),
        ("link", link),
    ];
    rows.extend(row.mode.as_ref().map(|mode| ("mode", printable(mode))));
    rows.push(("mtu", row.mtu.to_string()));
    rows.extend(row.mac.map(|mac| ("mac", mac.to_string())));
    if let Some(endpoint) = detail.config.kind.endpoint() {
        let netns = endpoint.netns.as_ref().map_or("the host".to_owned(), |netns| format!("netns {netns}"));
        rows.push(("interface", printable(&format!("{} in {netns}", endpoint.ifname))));
        let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
        rows.extend((!addresses.is_empty()).then(|| ("address", addresses.join(", "))));
        let gateways: Vec<String> = endpoint.gateways.iter().map(ToString::to_string).collect();
        rows.extend((!gateways.is_empty()).then(|| ("gateway", gateways.join(", "))));
    }
    if !detail.offloads.is_empty() {
        rows.push(("offloads", printable(&detail.offloads.join(", "))));
    }
    rows.extend(row.ring.as_ref().map(|ring| ("ring", printable(ring))));
    rows.extend(row.queues_enabled.map(|pairs| ("enabled", format!("{pairs} queue pairs"))));
    if let Some(features) = row.features.as_ref().filter(|features| !features.is_empty()) {
        rows.push(("features", printable(&features.join(", "))));
    }
    rows.extend(row.resets.map(|resets| ("resets", resets.to_string())));
    rows.push(("received", format!("{} frames, {} bytes", row.rx_frames, row.rx_bytes)));
    rows.push(("sent", format!("{} frames, {} bytes", row.tx_frames, row.tx_bytes)));
    rows.push(("drops", row.drops.to_string()));
    for drop in &detail.drop_reasons {
        rows.push(("", format!("{} {}", drop.frames, printable(&drop.reason))));
    }
    if row.missed > 0 {
        rows.push(("missed", format!("{} frames, lost by the kernel before they came in", row.missed)));
    }
    for place in &detail.placement {
        rows.push(("queue", format!("{} on worker {} (CPU {})", place.queue, place.worker, place.cpu)));
    }
    sheet(&rows, style)
}

pub(crate) fn bridges(rows: &[BridgeRow], style: Style) -> String {
    let header = ["NAME", "PORTS", "MACS", "LIMIT", "AGEING", "FLOODS"];
    let cells = |row: &BridgeRow| {
        vec![
            Cell::text(row.name.as_str()),
            Cell::number(row.ports),
            Cell::number(row.fdb_entries),
            Cell::option(row.fdb_limit),
            Cell::text(ageing(row)),
            Cell::text(floods(row)),
        ]
    };
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), style, "no bridges")
}

fn ageing(row: &BridgeRow) -> String {
    if row.ageing_s == 0 { "never".to_owned() } else { format!("{} s", row.ageing_s) }
}

fn floods(row: &BridgeRow) -> String {
    let kinds = [
        ("unknown", row.flood_unknown),
        ("broadcast", row.flood_broadcast),
        ("multicast", row.flood_multicast),
    ];
    let on: Vec<&str> = kinds.into_iter().filter(|(_, on)| *on).map(|(kind, _)| kind).collect();
    if on.is_empty() { "nothing".to_owned() } else { on.join(", ") }
}

pub(crate) fn bridge(detail: &BridgeDetail, style: Style) -> String {
    let row = &detail.row;
    let limit = row.fdb_limit.map_or("no limit of its own".to_owned(), |limit| format!("{limit} at most"));
    let names: Vec<&str> = detail.port_names.iter().map(|name| name.as_str()).collect();
    let mut rows = vec![
        ("bridge", style.paint(Colour::Strong, row.name.as_str())),
        ("MACs", format!("{} ({limit})", row.fdb_entries)),
        ("ageing", ageing(row)),
        ("floods", floods(row)),
        ("ports", if names.is_empty() { "none".to_owned() } else { names.join(", ") }),
    ];
    let config = &detail.config;
    for (vlan, vni) in config.vnis() {
        rows.push(("VNI", vlan.map_or(vni.to_string(), |vlan| format!("{vni} of VLAN {vlan}"))));
    }
    if let Some(tunnels) = &config.tunnels {
        let names: Vec<&str> = tunnels.iter().map(|name| name.as_str()).collect();
        rows.push(("tunnels", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
    }
    rows.extend(config.addresses.iter().map(|address| ("address", address.to_string())));
    sheet(&rows, style)
}

pub(crate) fn fdb(rows: &[FdbRow], style: Style) -> String {
    let cells = |row: &FdbRow| {
        let age = match row.kind {
            FdbKind::Learned => format!("{} s", row.age_s),
            FdbKind::Static | FdbKind::Loaded => "-".to_owned(),
        };
        let kind = match &row.origin {
            Some(origin) => format!("{} by {origin}", row.kind.as_str()),
            None => row.kind.as_str().to_owned(),
        };
        vec![
            Cell::text(row.bridge.as_str()),
            Cell::number(row.vlan),
            Cell::text(row.mac.to_string()),
            place(row.port.as_ref(), row.tunnel.as_ref(), row.remote),
            Cell::text(kind),
            Cell::text(age),
        ]
    };
    let header = ["BRIDGE", "VLAN", "MAC", "PLACE", "KIND", "AGE"];
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), style, "no MAC addresses")
}

pub(crate) fn flows(page: &FlowPage, style: Style) -> String {
    let cells = |row: &FlowRow| {
        vec![
            Cell::number(row.worker),
            Cell::text(row.port.as_str()),
            Cell::text(&row.key),
            Cell::text(&row.actions),
        ]
    };
    let header = ["WORKER", "PORT", "KEY", "ACTIONS"];
    let mut text = table(&header, &page.flows.iter().map(cells).collect::<Vec<_>>(), style, "no flows");
    if page.total > page.flows.len() as u64 {
        text.push_str(&format!("{} of {} flows; --limit shows more\n", page.flows.len(), page.total));
    }
    text
}

pub(crate) fn workers(rows: &[WorkerRow], style: Style) -> String {
    let cells = |row: &WorkerRow| {
        let cycles = row.busy_cycles.saturating_add(row.idle_cycles);
        let busy = if cycles == 0 { 0.0 } else { 100.0 * row.busy_cycles as f64 / cycles as f64 };
        vec![
            Cell::number(row.worker),
            Cell::number(row.cpu),
            Cell::number(row.frames),
            Cell::number(format!("{busy:.1} %")),
            Cell::number(format!("{:.0}", row.cycles_per_frame)),
            Cell::text(if row.sleeping { "yes" } else { "no" }),
            Cell::text(row.queues.join(" ")),
        ]
    };
    let header = ["WORKER", "CPU", "FRAMES", "BUSY", "CYCLES/FRAME", "SLEEPING", "QUEUES"];
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), style, "no workers")
}

pub(crate) fn rebalanced(result: &Rebalanced, dry_run: bool, style: Style) -> String {
    if result.moves.is_empty() {
        return "nothing to move: the queues are spread as well as they can be\n".to_owned();
    }
    let cells = |step: &QueueMove| {
        vec![
            Cell::text(step.port.as_str()),
            Cell::number(step.queue),
            Cell::number(step.from),
            Cell::number(step.to),
        ]
    };
    let header = ["PORT", "QUEUE", "FROM WORKER", "TO WORKER"];
    let mut text = table(&header, &result.moves.iter().map(cells).collect::<Vec<_>>(), style, "");
    let loads = |loads: &[f64]| {
        loads.iter().map(|load| format!("{:.0} %", 100.0 * load)).collect::<Vec<_>>().join(", ")
    };
    let verb = if dry_run { "would go" } else { "goes" };
    text.push_str(&format!("load {verb} from {} to {}\n", loads(&result.before), loads(&result.after)));
    text
}

pub(crate) fn drops(rows: &[DropRow], style: Style) -> String {
    let cells = |row: &DropRow| {
        vec![
            Cell::text(row.port.as_str()),
            Cell::text(&row.reason),
            Cell::number(row.frames),
            Cell::text(&row.description),
        ]
    };
    let header = ["PORT", "REASON", "FRAMES", "MEANING"];
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), style, "no drops")
}

pub(crate) fn traced(traced: &Traced, style: Style) -> String {
    let cells = |stage: &TraceStage| {
        vec![Cell::text(&stage.name), Cell::text(&stage.read), Cell::text(&stage.decided)]
    };
    let stages: Vec<Vec<Cell>> = traced.stages.iter().map(cells).collect();
    let mut text = table(&["STAGE", "READ", "DECIDED"], &stages, style, "no stage saw the frame");
    let verdict = match &traced.reason {
        Some(reason) => format!("{}: {}", traced.verdict.as_str(), printable(reason)),
        None => traced.verdict.as_str().to_owned(),
    };
    let colour = if traced.verdict == Verdict::Drop { Colour::Bad } else { Colour::Good };
    let mut rows = vec![
        ("mask", printable(&traced.mask)),
        ("key", printable(&traced.key)),
        ("cached", if traced.cached { "yes" } else { "no" }.to_owned()),
        ("verdict", style.paint(colour, &verdict)),
    ];
    for output in &traced.outputs {
        rows.push(("output", format!("{} {}", output.port, printable(&output.frame_hex))));
    }
    text.push('\n');
    text.push_str(&sheet(&rows, style));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colours: false };

    #[test]
    fn durations() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3661, "1 h 1 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn what_was_done() {
        let change = Applied { changed: true, steps: vec!["add port \"web1\"".into()] };
        assert_eq!(applied(&change, false), "done:\n  add port \"web1\"\n");
        assert_eq!(applied(&change, true), "would be done:\n  add port \"web1\"\n");
        assert_eq!(applied(&Applied { changed: false, steps: vec![] }, false), "nothing to change\n");
    }

    #[test]
    fn a_trace_ends_in_its_verdict() {
        let result = Traced {
            stages: vec![TraceStage {
                name: "vlan".into(),
                read: "untagged".into(),
                decided: "VLAN 10".into(),
            }],
            key: "dst=02:00:00:00:00:02".into(),
            mask: "eth".into(),
            cached: true,
            verdict: Verdict::Drop,
            reason: Some("isolated".into()),
            outputs: vec![],
        };
        assert_eq!(
            traced(&result, PLAIN),
            "STAGE  READ      DECIDED\nvlan   untagged  VLAN 10\n\n\
             mask     eth\nkey      dst=02:00:00:00:00:02\ncached   yes\nverdict  drop: isolated\n"
        );
    }

    #[test]
    fn a_worker_without_cycles_is_not_busy() {
        let row = WorkerRow {
            worker: 0,
            cpu: 1,
            frames: 0,
            busy_cycles: 0,
            idle_cycles: 0,
            cycles_per_frame: 0.0,
            sleeping: true,
            queues: vec!["web1:0".into()],
        };
        assert!(workers(&[row], PLAIN).contains("0.0 %"));
    }
}
