//! Prints what two CPUs can hand over to each other without a ring or a switch between them, Gbit/s.

use std::io;
use std::time::Duration;

use clap::Parser;
use vswitch_benches::handover::Handover;

#[derive(Parser)]
#[command(about = "Measures what two CPUs can hand over to each other, Gbit/s")]
struct Arguments {
    #[arg(default_value_t = 0)]
    near: usize,
    #[arg(default_value_t = 1)]
    far: usize,
    /// Bytes of a frame.
    #[arg(long, default_value_t = 65_000, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    bytes: u32,
    /// Buffers of the sender, which it uses one after the other; at least as many as frames on their way.
    #[arg(long, default_value_t = 16)]
    buffers: usize,
    /// Frames that are on their way at most.
    #[arg(long, default_value_t = 8)]
    window: usize,
    /// Frames that are shown to the other core at a time.
    #[arg(long, default_value_t = 1)]
    burst: usize,
    /// Seconds to measure.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

fn main() -> io::Result<()> {
    let Arguments { near, far, bytes, buffers, window, burst, seconds } = Arguments::parse();
    if burst == 0 || window < burst || buffers < window {
        return Err(io::Error::other("at most the window is shown at a time, and it needs so many buffers"));
    }
    let handover = Handover { bytes: bytes as usize, buffers, window, burst };
    println!("{:.2}", handover.rate(near, far, Duration::from_secs_f64(seconds))? * 8.0 / 1e9);
    Ok(())
}
