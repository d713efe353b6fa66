//! Prints how far two CPUs are from each other: the round trip of a cache line, nanoseconds.

use std::io;

use clap::Parser;
use vswitch_benches::cores;

#[derive(Parser)]
#[command(about = "Measures the round trip of a cache line between two CPUs, nanoseconds")]
struct Arguments {
    #[arg(default_value_t = 0)]
    near: usize,
    #[arg(default_value_t = 1)]
    far: usize,
}

fn main() -> io::Result<()> {
    let Arguments { near, far } = Arguments::parse();
    println!("{:.0}", cores::distance(near, far)?);
    Ok(())
}
