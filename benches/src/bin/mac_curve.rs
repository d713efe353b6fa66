//! The cost of a frame by the number of stations, in random order: the worker loop in memory.
//!
//! Prints a table. Half of the stations send to the other half, each to its own partner. Every figure is
//! the median of five runs; only the worker's turns are timed. `benches/mac-curve` records it.

use std::io;
use std::time::{Duration, Instant};

use pmd::BATCH;
use vswitch_benches::circuit::{Circuit, Load};

/// How many stations.
const STATIONS: [u32; 9] = [10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000];
/// Turns of a run: each station's frame comes up several times.
const TURNS: u32 = 8_000;

fn main() -> io::Result<()> {
    println!("| MACs | cached, ns a frame | hits | pipeline only, ns a frame |");
    println!("| ---: | ---: | ---: | ---: |");
    for stations in STATIONS {
        let (cached, hits) = median(stations, 131_072)?;
        let (decided, _) = median(stations, 0)?;
        println!("| {stations} | {cached:.1} | {hits:.1} % | {decided:.1} |");
    }
    Ok(())
}

/// Nanoseconds a frame, and how many of 100 frames the flow cache knew.
fn median(stations: u32, cache: usize) -> io::Result<(f64, f64)> {
    let mut circuit = Circuit::new(Load { flows: stations / 2, cache, ..Load::default() })?;
    let misses = circuit.misses();
    let frames = f64::from(TURNS) * BATCH as f64;
    let mut runs = [(); 5].map(|()| run(&mut circuit).as_nanos() as f64 / frames);
    runs.sort_by(f64::total_cmp);
    let missed = (circuit.misses() - misses) as f64 / (5.0 * frames);
    Ok((runs[2], 100.0 * (1.0 - missed)))
}

fn run(circuit: &mut Circuit) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..TURNS {
        let begin = Instant::now();
        circuit.turn();
        total += begin.elapsed();
        circuit.close();
    }
    total
}
