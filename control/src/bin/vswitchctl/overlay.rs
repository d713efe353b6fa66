//! How overlays look to people: tunnels, neighbours, and what happened to them.

use std::net::IpAddr;

use control::api::*;
use control::schema::TunnelName;

use crate::table::{Cell, Colour, Style, printable, sheet, table};

fn state(state: UpDown) -> Cell {
    match state {
        UpDown::Up => Cell::text("up").colour(Colour::Good),
        UpDown::Down => Cell::text("down").colour(Colour::Bad),
    }
}

/// Where an address is: a port, or a remote of a tunnel.
pub(crate) fn place(
    port: Option<&impl AsRef<str>>,
    tunnel: Option<&TunnelName>,
    remote: Option<IpAddr>,
) -> Cell {
    match (port, tunnel, remote) {
        (Some(port), ..) => Cell::text(port.as_ref()),
        (None, Some(tunnel), Some(remote)) => Cell::text(format!("{tunnel} {remote}")),
        _ => Cell::option(None::<String>),
    }
}

pub(crate) fn tunnels(rows: &[TunnelRow], style: Style) -> String {
    let header = [
        "NAME", "TYPE", "UNDERLAY", "STATE", "LOCAL", "REMOTE", "STATE", "MTU", "RX", "TX", "DROPS", "REASON",
    ];
    let mut cells = Vec::new();
    for row in rows {
        let own = [
            Cell::text(row.name.as_str()),
            Cell::text(&row.tunnel_type),
            Cell::text(row.underlay.as_str()),
            state(row.state),
            Cell::option(row.local),
        ];
        let empty = || vec![Cell::text(""); 5];
        if row.remotes.is_empty() {
            let reason = Cell::text(row.reason.as_deref().unwrap_or(""));
            cells.push([own.to_vec(), vec![Cell::text("none")], empty(), vec![reason]].concat());
        }
        for (index, remote) in row.remotes.iter().enumerate() {
            // The tunnel stands in the line of its first remote.
            let first = if index == 0 { own.to_vec() } else { empty() };
            let reason = remote.reason.as_ref().or(row.reason.as_ref().filter(|_| index == 0));
            let rest = vec![
                Cell::text(remote.address.to_string()),
                state(remote.state),
                Cell::option(remote.mtu),
                Cell::number(remote.rx_frames),
                Cell::number(remote.tx_frames),
                Cell::number(remote.drops),
                Cell::text(reason.map_or("", String::as_str)),
            ];
            cells.push([first, rest].concat());
        }
    }
    table(&header, &cells, style, "no tunnels")
}

pub(crate) fn tunnel(detail: &TunnelDetail, style: Style) -> String {
    let row = &detail.row;
    let word = match row.state {
        UpDown::Up => style.paint(Colour::Good, "up"),
        UpDown::Down => style.paint(Colour::Bad, "down"),
    };
    let mut rows = vec![
        ("tunnel", style.paint(Colour::Strong, row.name.as_str())),
        ("type", printable(&row.tunnel_type)),
        ("underlay", format!("{} on port {}", row.underlay, detail.port)),
        ("state", word),
    ];
    rows.extend(row.reason.as_ref().map(|reason| ("reason", printable(reason))));
    rows.extend(row.local.map(|local| ("local", local.to_string())));
    for remote in &row.remotes {
        rows.push(("remote", remote_line(remote)));
    }
    for vni in &detail.vnis {
        let vlan = vni.vlan.map_or(String::new(), |vlan| format!(" VLAN {vlan}"));
        let mtu = vni.mtu.map_or(String::new(), |mtu| format!(", MTU {mtu}"));
        let passed = format!("{} received, {} sent", vni.rx_frames, vni.tx_frames);
        rows.push(("VNI", format!("{} is bridge {}{vlan}{mtu}; {passed}", vni.vni, vni.bridge)));
    }
    for drop in &detail.drop_reasons {
        rows.push(("drops", format!("{} {}", drop.frames, printable(&drop.reason))));
    }
    sheet(&rows, style)
}

/// A remote with its path.
fn remote_line(remote: &RemoteRow) -> String {
    let mut line = format!("{} {}", remote.address, if remote.state == UpDown::Up { "up" } else { "down" });
    if let Some(reason) = &remote.reason {
        line.push_str(&format!(": {}", printable(reason)));
    }
    if let Some(mac) = remote.mac {
        line.push_str(&format!(", at {mac}"));
    }
    if let Some(mtu) = remote.mtu {
        line.push_str(&format!(", MTU {mtu}"));
    }
    if let Some(bfd) = &remote.bfd {
        let BfdRow { state, sent, received, refused, downs } = bfd;
        let state = printable(state);
        line.push_str(&format!(
            ", BFD {state} ({sent} sent, {received} received, {refused} refused, {downs} downs)"
        ));
    }
    line.push_str(&format!(
        "; {} received, {} sent, {} dropped",
        remote.rx_frames, remote.tx_frames, remote.drops
    ));
    line
}

pub(crate) fn pinged(answers: &[Pinged], style: Style) -> String {
    let cells = |answer: &Pinged| {
        let (round_trip, reason) = match answer.round_trip_ms {
            Some(ms) => (Cell::number(format!("{ms:.3} ms")), ""),
            None => (Cell::number("-"), answer.reason.as_deref().unwrap_or("no answer")),
        };
        vec![Cell::text(answer.address.to_string()), round_trip, Cell::option(answer.mtu), Cell::text(reason)]
    };
    let header = ["REMOTE", "ROUND TRIP", "MTU", "REASON"];
    table(&header, &answers.iter().map(cells).collect::<Vec<_>>(), style, "no remotes")
}

pub(crate) fn neighbours(rows: &[NeighbourRow], style: Style) -> String {
    let cells = |row: &NeighbourRow| {
        let age = match row.origin {
            NeighbourOrigin::Config | NeighbourOrigin::Api => "-".to_owned(),
            _ => format!("{} s", row.age_s),
        };
        vec![
            Cell::text(row.bridge.as_str()),
            Cell::number(row.vlan),
            Cell::text(row.ip.to_string()),
            Cell::text(row.mac.to_string()),
            place(row.port.as_ref(), row.tunnel.as_ref(), row.remote),
            Cell::text(row.origin.as_str()),
            Cell::text(age),
        ]
    };
    let header = ["BRIDGE", "VLAN", "IP", "MAC", "PLACE", "ORIGIN", "AGE"];
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), style, "no neighbours")
}

pub(crate) fn events(events: &[Event], style: Style) -> String {
    let cells = |event: &Event| {
        vec![Cell::text(&event.time), Cell::text(&event.kind), Cell::text(event.objects.join(", "))]
    };
    let header = ["TIME", "KIND", "OBJECTS"];
    table(&header, &events.iter().map(cells).collect::<Vec<_>>(), style, "no events")
}

pub(crate) fn loaded(loaded: &FdbLoaded) -> String {
    let FdbLoaded { changed, unchanged, removed } = loaded;
    format!("{changed} entries loaded, {unchanged} were there already, {removed} removed\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colours: false };

    fn remote(last: u8, reason: Option<&str>) -> RemoteRow {
        RemoteRow {
            address: IpAddr::from([192, 0, 2, last]),
            state: if reason.is_none() { UpDown::Up } else { UpDown::Down },
            reason: reason.map(str::to_owned),
            mtu: reason.is_none().then_some(1500),
            mac: None,
            bfd: None,
            rx_frames: 1,
            tx_frames: 2,
            drops: 3,
        }
    }

    fn row(remotes: Vec<RemoteRow>) -> TunnelRow {
        TunnelRow {
            name: "dc1".parse().unwrap(),
            tunnel_type: "vxlan".to_owned(),
            underlay: "core".parse().unwrap(),
            state: UpDown::Up,
            reason: None,
            local: None,
            remotes,
        }
    }

    #[test]
    fn a_line_for_each_remote() {
        let rows = [row(vec![remote(2, None), remote(3, Some("no route"))]), row(vec![])];
        let text = tunnels(&rows, PLAIN);
        assert_eq!(
            text.lines().map(str::trim_end).collect::<Vec<_>>(),
            [
                "NAME  TYPE   UNDERLAY  STATE  LOCAL  REMOTE     STATE  MTU   RX  TX  DROPS  REASON",
                "dc1   vxlan  core      up     -      192.0.2.2  up     1500   1   2      3",
                "                                     192.0.2.3  down   -      1   2      3  no route",
                "dc1   vxlan  core      up     -      none",
            ]
        );
        assert_eq!(tunnels(&[], PLAIN), "no tunnels\n");
        assert_eq!(
            remote_line(&remote(3, Some("no route"))),
            "192.0.2.3 down: no route; 1 received, 2 sent, 3 dropped"
        );
    }

    #[test]
    fn a_remote_that_is_silent_says_why() {
        let answer = |ms, reason: Option<&str>| Pinged {
            address: IpAddr::from([192, 0, 2, 2]),
            round_trip_ms: ms,
            mtu: Some(1400),
            reason: reason.map(str::to_owned),
        };
        assert_eq!(
            pinged(&[answer(Some(0.25), None), answer(None, Some("no route"))], PLAIN),
            "REMOTE     ROUND TRIP  MTU   REASON\n192.0.2.2    0.250 ms  1400  \n192.0.2.2           -  1400  no route\n"
        );
    }
}
