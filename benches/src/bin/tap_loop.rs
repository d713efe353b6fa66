//! The least that a user-space switch between two TAPs can do, as a yardstick: one thread that reads a frame, writes
//! it to the other side, and knows nothing else.
//!
//! Its round trip is the cost of the kernel's interface and of waking a process on another core; what a switch adds
//! is what it is slower. It polls without rest until it is killed.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::process::ExitCode;

use clap::Parser;
use pmd::netdev::Settings;
use pmd::tap::{TapConfig, open};

/// A virtio-net header and the largest frame.
const LARGEST: usize = 66_000;

#[derive(Parser)]
#[command(
    about = "Carries frames between two TAPs that it makes, each called eth0 in a namespace of its own"
)]
struct Arguments {
    /// The CPU to run on.
    cpu: usize,
    /// Namespace and address of one end, for example `left=198.18.95.1/24`.
    one: String,
    /// Of the other.
    two: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("tap_loop: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let mut ends = [make("loop-1", &arguments.one)?, make("loop-2", &arguments.two)?];
    if !core_affinity::set_for_current(core_affinity::CoreId { id: arguments.cpu }) {
        return Err(format!("CPU {} is not to be had", arguments.cpu));
    }
    println!("ready");
    let mut frame = vec![0; LARGEST];
    loop {
        for from in 0..2 {
            match ends[from].read(&mut frame) {
                // What the other end does not take (it is not up yet) is lost.
                Ok(len) => drop(ends[1 - from].write(&frame[..len])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("read: {error}")),
            }
        }
    }
}

/// Makes the TAP that `NAMESPACE=ADDRESS` asks for.
fn make(port: &str, end: &str) -> Result<File, String> {
    let (netns, address) =
        end.split_once('=').ok_or_else(|| format!("{end:?} is not NAMESPACE=ADDRESS/PREFIX"))?;
    let address = address.parse().map_err(|error| format!("{address:?}: {error}"))?;
    let settings = Settings { addresses: vec![address], ..Settings::default() };
    let config = TapConfig { port: port.into(), netns: Some(netns.into()), settings, queues: 1 };
    let mut opened = open(&config).map_err(|error| error.to_string())?;
    opened.queues.pop().map(File::from).ok_or_else(|| "no queue".into())
}
