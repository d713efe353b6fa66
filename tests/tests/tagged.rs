//! TCP in tagged frames: between containers on trunks, and from a trunk to an access port, every byte arrives, with
//! the default offload settings of all of them.
//!
//! What tags in the container is a second switch (not every kernel has VLAN devices): a TAP of its own on each VLAN
//! for the container's TCP, and the container's `eth0` as the trunk. So tagged frames cross the switch that is
//! tested as kernels leave them: of up to 64 KB, with checksums to be filled in.

use std::net::IpAddr;

use vswitch_tests::cases::{full, scaled};
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::traffic::{assert_exchange, await_ping, pings};
use vswitch_tests::{Attachment, Container, Daemon, Lab};

/// The VLANs of every trunk; the access port is in the first.
const VLANS: [u16; 2] = [10, 20];

/// The address of container `number` in the network of a VLAN.
fn address(vlan: u16, number: usize, family: u8) -> IpAddr {
    let text = if family == 4 { format!("10.{vlan}.0.{number}") } else { format!("fd{vlan}::{number}") };
    text.parse().expect("an address")
}

/// The switch inside container `number`, with an interface in each VLAN.
fn tagger(lab: &Lab, container: &Container, number: usize) -> Daemon {
    let folder = lab.folder().join(&container.name);
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let mut text =
        "[switch]\nworkers = [0]\n[limits]\nframes = 4096\n[[bridge]]\nname = \"inside\"\n".to_owned();
    text += "[[port]]\nname = \"trunk\"\nbridge = \"inside\"\ntype = \"packet\"\ndevice = \"eth0\"\n";
    text += &format!("exclusive = true\ntrunk = {VLANS:?}\n");
    for vlan in VLANS {
        text += &format!("[[port]]\nname = \"vlan{vlan}of{number}\"\nbridge = \"inside\"\ntype = \"tap\"\n");
        text += &format!("ifname = \"vlan{vlan}\"\nvlan = {vlan}\nmtu = {}\n", container.mtu);
        let [v4, v6] = [4, 6].map(|family| address(vlan, number, family));
        text += &format!("address = [\"{v4}/24\", \"{v6}/64\"]\n");
    }
    Daemon::start(&container.namespace, &folder, &text)
}

fn exchange(client: &Container, server: &Container, to: IpAddr, seed: usize) {
    await_ping(&client.namespace, to);
    let bytes = scaled(5_000_000, 100_000_000);
    assert_exchange(&client.namespace, &server.namespace, to, seed as u64, bytes);
}

fn trunks_and_an_access_port(mtu: u32, workers: &str) {
    let lab = Lab::new("tagged");
    let trunks = Attachment::ALL.map(|kind| lab.container(kind.name(), kind, mtu));
    let access = lab.container("access", Attachment::Tap, mtu);
    let mut text = Lab::configuration(workers, &[]);
    trunks.iter().for_each(|trunk| text += &trunk.port(&format!("trunk = {VLANS:?}")));
    text += &access.port(&format!("vlan = {}", VLANS[0]));
    let mut daemon = lab.start(&text);
    let ctl = daemon.ctl();
    await_up(&ctl, &trunks.each_ref().map(|trunk| trunk.name.as_str()));
    let mut taggers: Vec<_> =
        trunks.iter().enumerate().map(|(number, trunk)| tagger(&lab, trunk, number + 1)).collect();
    let outside = trunks.len() + 1;
    for family in [4, 6] {
        let length = if family == 4 { 24 } else { 64 };
        let own = address(VLANS[0], outside, family);
        access.namespace.ip(&format!("address add {own}/{length} dev eth0"));
    }
    for (turn, client) in trunks.iter().enumerate() {
        let family = if turn % 2 == 0 { 4 } else { 6 };
        let next = (turn + 1) % trunks.len();
        for server in if full() { 0..trunks.len() } else { next..next + 1 }.filter(|server| *server != turn) {
            exchange(client, &trunks[server], address(VLANS[1], server + 1, family), turn);
        }
        exchange(client, &access, address(VLANS[0], outside, family), turn + 10);
        exchange(&access, client, address(VLANS[0], turn + 1, family), turn + 20);
    }
    assert!(!pings(&access.namespace, address(VLANS[1], 1, 4)), "one VLAN reached the other");
    taggers.iter_mut().for_each(Daemon::stop);
    assert_conserved(&ctl);
    daemon.stop();
}

#[test]
fn tcp_crosses_between_trunks_and_an_access_port() {
    trunks_and_an_access_port(1500, "[0, 1]");
}

#[test]
fn tcp_crosses_between_trunks_and_an_access_port_in_large_frames() {
    trunks_and_an_access_port(9000, "[1]");
}
