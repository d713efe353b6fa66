//! Loads a switch through two vhost-user ports, both ways at once, from one core, and says what came through.
//!
//! It is both ends of the traffic: two front ends of `vhost::driver`, polled by one thread. Every frame is written
//! anew (headers, number, time, payload), and of every frame that arrives headers, number and time are read: a client
//! that never touches what it sends makes any switch look fast. Prints one line of JSON.
//!
//! The client must not be what is measured: `client_cycles_per_frame` is its own work, and `client_idle` the share of
//! its time in which there was nothing to do. Where that is about 0, the client was the limit.

use std::fmt::Write;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use core_affinity::CoreId;
use hdrhistogram::Histogram;
use vhost::driver::frontend::{
    BUFFER, EVENT_INDEX, End, IN_ORDER, INDIRECT, MERGEABLE, OFFLOADS, Options, PACKED, VERSION_1,
};
use vhost::driver::queue::HEADER;
use vswitch_benches::cores;
use vswitch_benches::traffic::flows::{Flows, Side, TCP_WORDS, UDP_WORDS};
use vswitch_benches::traffic::outer::{Outer, meet};
use vswitch_benches::traffic::run::{Load, Outcome, Plan, run};

/// How long the switch is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
#[command(about = "Loads a switch through two vhost-user ports from one core")]
struct Arguments {
    /// Socket of the first port.
    a: PathBuf,
    /// Socket of the second port.
    b: PathBuf,
    /// Listen at the sockets; the switch connects.
    #[arg(long)]
    server: bool,
    /// The CPU to run on.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// The CPU of the switch: measure the distance between the two before and after.
    #[arg(long)]
    switch_cpu: Option<usize>,
    /// Bytes of a frame, check sequence included; above 1518 a TCP train of up to 64 KB that is to be cut.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(64..=65_000))]
    size: u32,
    /// Flows, in random order.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    flows: u32,
    /// Pairs of Ethernet addresses, in random order.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    macs: u32,
    /// Seconds to measure.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Seconds before that.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Millions of frames a second and direction; as many as pass if it is not given.
    #[arg(long)]
    rate: Option<f64>,
    /// Entries of each ring.
    #[arg(long, default_value_t = 256)]
    ring: u16,
    /// Entries of each transmit ring, if not the same: who sends has so many buffers, and uses each of them in turn.
    #[arg(long)]
    transmit_ring: Option<u16>,
    /// Frames of a direction that are on their way at most; the ring's size by default.
    #[arg(long)]
    window: Option<u64>,
    /// Most frames at a time.
    #[arg(long, default_value_t = 32)]
    burst: u16,
    /// Packed rings (`VIRTIO_F_RING_PACKED`).
    #[arg(long)]
    packed: bool,
    /// Give buffers back in order (`VIRTIO_F_IN_ORDER`).
    #[arg(long)]
    in_order: bool,
    /// A receive buffer holds any frame (no `VIRTIO_NET_F_MRG_RXBUF`).
    #[arg(long)]
    no_mergeable: bool,
    /// Send by indirect descriptors, header and frame apart.
    #[arg(long)]
    indirect: bool,
    /// Suppress events by index.
    #[arg(long)]
    event_index: bool,
    /// Take and give partial checksums and frames that are to be cut.
    #[arg(long)]
    offloads: bool,
    /// Memory in huge pages.
    #[arg(long)]
    huge: bool,
    /// The second port is an uplink: frames there lie inside a tunnel's, to and from so many VTEPs.
    #[arg(long)]
    vteps: Option<u16>,
}

fn main() -> ExitCode {
    match go(&Arguments::parse()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("vhost_generator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn go(arguments: &Arguments) -> io::Result<String> {
    let distance = || arguments.switch_cpu.map(|far| cores::distance(arguments.cpu, far)).transpose();
    let before = distance()?;
    if !core_affinity::set_for_current(CoreId { id: arguments.cpu }) {
        return Err(io::Error::other(format!("may not run on CPU {}", arguments.cpu)));
    }
    let [mut a, mut b] = ends(arguments)?;
    let outcome = if arguments.size > 1518 {
        traffic::<TCP_WORDS>(arguments, [&mut a, &mut b])
    } else {
        traffic::<UDP_WORDS>(arguments, [&mut a, &mut b])
    }?;
    let features = a.features();
    drop((a, b));
    Ok(report(&outcome, features, [before, distance()?]))
}

fn traffic<const WORDS: usize>(arguments: &Arguments, ends: [&mut End; 2]) -> io::Result<Outcome> {
    let [a, b] = ends;
    let size = arguments.size as usize;
    let outer = arguments.vteps.map(|vteps| around([a, b], vteps, size)).transpose()?;
    let flows = if WORDS == TCP_WORDS { 1 } else { arguments.flows };
    let load = match arguments.rate {
        Some(rate) => Load::Paced(rate * 1e6),
        None => Load::Window(arguments.window.unwrap_or(arguments.ring.into())),
    };
    let plan = Plan {
        load,
        burst: arguments.burst,
        size,
        outer,
        warm_up: Duration::from_secs_f64(arguments.warm_up),
        time: Duration::from_secs_f64(arguments.seconds),
    };
    run([a, b], [Side::A, Side::B].map(|side| Flows::<WORDS>::new(side, flows, arguments.macs, size)), &plan)
}

/// What is around the frames of the second port.
fn around(ends: [&mut End; 2], vteps: u16, size: usize) -> io::Result<Outer> {
    if size != 64 || vteps == 0 {
        return Err(io::Error::other("frames in a tunnel are of 64 bytes, and there is one VTEP at least"));
    }
    let first = Flows::<UDP_WORDS>::new(Side::A, 1, 1, size).next(0, 0);
    let bytes = first.map(u64::to_le_bytes);
    meet(ends, &bytes.as_flattened()[HEADER..], vteps, PATIENCE)
}

/// Both ends, connected.
fn ends(arguments: &Arguments) -> io::Result<[End; 2]> {
    let flag = |is, feature| if is { feature } else { 0 };
    let features = VERSION_1
        | flag(arguments.offloads || arguments.size > 1518, OFFLOADS)
        | flag(!arguments.no_mergeable, MERGEABLE)
        | flag(arguments.packed, PACKED)
        | flag(arguments.in_order, IN_ORDER)
        | flag(arguments.indirect, INDIRECT)
        | flag(arguments.event_index, EVENT_INDEX);
    let whole = (arguments.size + 8).max(BUFFER);
    let receive = if arguments.no_mergeable { whole } else { BUFFER };
    let options = Options {
        sizes: [arguments.ring, arguments.transmit_ring.unwrap_or(arguments.ring)],
        features,
        buffers: [receive, whole],
        huge: arguments.huge,
        ..Options::default()
    };
    let connect = |path: &Path| if arguments.server { accept(path) } else { connect(path) };
    let end = |path: &Path| {
        let named = |error| io::Error::other(format!("{}: {error}", path.display()));
        let end = connect(path).and_then(|stream| End::open(stream, options)).map_err(named)?;
        let lacks = features & !end.features();
        if lacks != 0 {
            return Err(named(io::Error::other(format!("the switch lacks features {lacks:#x}"))));
        }
        Ok(end)
    };
    Ok([end(&arguments.a)?, end(&arguments.b)?])
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Err(error) if begun.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
            done => return done,
        }
    }
}

fn accept(path: &Path) -> io::Result<UnixStream> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    let begun = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if begun.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn report(outcome: &Outcome, features: u64, distance: [Option<f64>; 2]) -> String {
    let hertz = outcome.cycles as f64 / outcome.seconds;
    let per_second = |count: u64| count as f64 / outcome.seconds / 1e6;
    let per_frame = |cycles: u64| cycles as f64 / (outcome.received.max(1)) as f64;
    let mut text = String::new();
    let mut put = |name: &str, value: String| {
        let comma = if text.is_empty() { "{" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}\"{name}\": {value}");
    };
    put("mframes_per_s", format!("{:.3}", per_second(outcome.received)));
    put("sent_mframes_per_s", format!("{:.3}", per_second(outcome.sent)));
    put("gbit_per_s", format!("{:.2}", per_second(outcome.bytes) * 8.0 / 1e3));
    put("cycles_per_frame", format!("{:.1}", per_frame(outcome.cycles)));
    put("client_cycles_per_frame", format!("{:.1}", per_frame(outcome.busy)));
    put("client_idle", format!("{:.3}", 1.0 - outcome.busy as f64 / outcome.cycles as f64));
    latency(&mut put, &outcome.latency, hertz);
    for (name, count) in [
        ("lost", outcome.lost),
        ("reordered", outcome.reordered),
        ("foreign", outcome.foreign),
        ("stalls", outcome.stalls),
    ] {
        put(name, count.to_string());
    }
    let nanoseconds = |distance: Option<f64>| distance.map_or("null".into(), |ns| format!("{ns:.0}"));
    put("core_distance_before_ns", nanoseconds(distance[0]));
    put("core_distance_after_ns", nanoseconds(distance[1]));
    put("tsc_mhz", format!("{:.1}", hertz / 1e6));
    put("features", format!("\"{features:#x}\""));
    text + "}"
}

fn latency(put: &mut impl FnMut(&str, String), latency: &Histogram<u64>, hertz: f64) {
    let microseconds = |cycles: u64| format!("{:.2}", cycles as f64 / hertz * 1e6);
    for (name, quantile) in [("p50_us", 0.5), ("p99_us", 0.99), ("p99_9_us", 0.999)] {
        put(name, microseconds(latency.value_at_quantile(quantile)));
    }
    put("max_us", microseconds(latency.max()));
}
