//! TCP between every pair of port types that reaches a container carries every byte, with the containers' default
//! offload settings: both ways, IPv4 and IPv6, MTU 1500 and 9000, with one, two and four workers.
//!
//! A normal run takes a fixed tenth of the table, in which every pair of port types and every row of (MTU, workers)
//! comes up, and small files; a full run takes all of it with files of 100 MB.

use vswitch_tests::cases::{full, scaled, shuffled};
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::traffic::{assert_exchange, await_ping};
use vswitch_tests::{Attachment, Lab};

/// The rows of the table, each a topology of its own.
const MTUS: [u32; 2] = [1500, 9000];
const WORKERS: [&str; 3] = ["[1]", "[0, 1]", "[0, 0, 1, 1]"];
/// How many transfers a row takes in a normal run: 6 rows of 2 are a tenth of 6 rows of 20.
const NORMAL: usize = 2;
/// What shuffles the table for a normal run.
const SEED: u64 = 20_26;

type Pair = (Attachment, Attachment);

/// Every pair of attachments, also of two alike.
fn pairs() -> Vec<Pair> {
    let all = Attachment::ALL;
    let from = |at: usize| all[at..].iter().map(move |&to| (all[at], to));
    (0..all.len()).flat_map(from).collect()
}

/// The transfers of one row: pairs and address families.
fn transfers(row: usize) -> Vec<(Pair, u8)> {
    let families = |pair: Pair| [(pair, 4), (pair, 6)];
    if full() {
        return pairs().into_iter().flat_map(families).collect();
    }
    // Round and round the shuffled pairs, so that ten pairs fill twelve places and all of them come up.
    let order = shuffled(SEED, pairs());
    let pick =
        |place: usize| (order[place % order.len()], if (place + row).is_multiple_of(2) { 4 } else { 6 });
    (row * NORMAL..(row + 1) * NORMAL).map(pick).collect()
}

fn run_row(row: usize) {
    let (mtu, workers) = (MTUS[row % MTUS.len()], WORKERS[row / MTUS.len()]);
    let lab = Lab::new("integrity");
    let transfers = transfers(row);
    let kinds =
        Attachment::ALL.into_iter().filter(|kind| transfers.iter().any(|((a, b), _)| a == kind || b == kind));
    let ends: Vec<_> = kinds
        .map(|kind| ["a", "b"].map(|end| lab.container(&format!("{}{end}", kind.name()), kind, mtu)))
        .collect();
    let all: Vec<_> = ends.iter().flatten().collect();
    let mut daemon = lab.start(&Lab::configuration(workers, &all));
    await_up(&daemon.ctl(), &all.iter().map(|container| container.name.as_str()).collect::<Vec<_>>());
    for (number, ((from, to), family)) in transfers.into_iter().enumerate() {
        let end = |kind, side: usize| {
            ends.iter().find(|pair| pair[0].attachment == kind).map(|pair| &pair[side]).expect("made above")
        };
        let (client, server) = (end(from, 0), end(to, 1));
        await_ping(&client.namespace, server.address(family));
        let seen = assert_exchange(
            &client.namespace,
            &server.namespace,
            server.address(family),
            number as u64,
            scaled(10_000_000, 100_000_000),
        );
        println!(
            "{} to {}, IPv{family}, MTU {mtu}, workers {workers}: {:.2} Gbit/s",
            client.name,
            server.name,
            seen.rate()
        );
    }
    assert_conserved(&daemon.ctl());
    daemon.stop();
}

#[test]
fn mtu_1500_one_worker() {
    run_row(0);
}

#[test]
fn mtu_9000_one_worker() {
    run_row(1);
}

#[test]
fn mtu_1500_two_workers() {
    run_row(2);
}

#[test]
fn mtu_9000_two_workers() {
    run_row(3);
}

#[test]
fn mtu_1500_four_workers() {
    run_row(4);
}

#[test]
fn mtu_9000_four_workers() {
    run_row(5);
}

#[test]
fn the_normal_tenth_has_every_pair_of_port_types() {
    let taken: Vec<Pair> =
        (0..MTUS.len() * WORKERS.len()).flat_map(transfers).map(|(pair, _)| pair).collect();
    assert!(pairs().iter().all(|pair| taken.contains(pair)));
}
