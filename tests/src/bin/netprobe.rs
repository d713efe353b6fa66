//! Sends and receives inside whatever network namespace it is started in; prints JSON. The system tests, the demo
//! and the side-by-side benchmarks run it by `ip netns exec`.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use vswitch_tests::probe::{datagram, frames, numbered, stream};

/// Traffic with a check on every byte.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Serve files over TCP to a number of clients, one after the other
    StreamServe {
        address: SocketAddr,
        #[arg(default_value_t = 1)]
        connections: u32,
    },
    /// Exchange files of BYTES with a server, both ways, and check them
    StreamExchange { address: SocketAddr, seed: u64, bytes: u64 },
    /// Send UDP datagrams back
    Echo { address: SocketAddr },
    /// Measure UDP round trips against an echo
    RoundTrips {
        address: SocketAddr,
        count: u64,
        #[arg(default_value_t = 18)]
        size: usize,
    },
    /// Send UDP datagrams as fast as possible
    Flood {
        address: SocketAddr,
        seconds: f64,
        #[arg(default_value_t = 18)]
        size: usize,
    },
    /// Send numbered datagrams on a number of flows
    NumberedSend { address: SocketAddr, flows: u32, seconds: f64 },
    /// Receive numbered datagrams and tell whether each flow kept its order, once none came for a while
    NumberedReceive { address: SocketAddr, quiet_ms: u64 },
    /// Send one frame, given in hexadecimal digits
    FrameSend {
        interface: String,
        frame: String,
        #[arg(default_value_t = 1)]
        count: u64,
    },
    /// Print the frames of an EtherType (hexadecimal) that arrive, until none came for a while
    FrameWatch { interface: String, ethertype: String, quiet_ms: u64 },
    /// Send on what arrives on an interface out of another one
    FrameRelay { from: String, to: String },
    /// Send frames between many MAC addresses: each once to be learned, or in random order
    Stations {
        interface: String,
        side: u8,
        count: u32,
        seconds: f64,
        #[arg(long)]
        learn: bool,
    },
}

fn main() -> Result<(), Box<dyn Error>> {
    match Arguments::parse().what {
        What::StreamServe { address, connections } => stream::serve(address, connections)?,
        What::StreamExchange { address, seed, bytes } => {
            println!("{}", serde_json::to_string(&stream::exchange(address, seed, bytes)?)?);
        }
        What::Echo { address } => datagram::echo(address)?,
        What::RoundTrips { address, count, size } => {
            println!("{}", serde_json::to_string(&datagram::round_trips(address, count, size)?)?);
        }
        What::Flood { address, seconds, size } => {
            println!("{{\"sent\":{}}}", datagram::flood(address, seconds, size)?);
        }
        What::NumberedSend { address, flows, seconds } => {
            println!("{}", numbered::send(address, flows, seconds)?);
        }
        What::NumberedReceive { address, quiet_ms } => {
            let seen = numbered::receive(address, Duration::from_millis(quiet_ms))?;
            println!("{}", serde_json::to_string(&seen)?);
        }
        What::FrameSend { interface, frame, count } => {
            let frame = frames::from_hex(&frame).ok_or("a frame is given in hexadecimal digits")?;
            frames::send(&interface, &frame, count)?;
        }
        What::FrameWatch { interface, ethertype, quiet_ms } => {
            let ethertype = u16::from_str_radix(&ethertype, 16)?;
            frames::watch(&interface, ethertype, Duration::from_millis(quiet_ms))?;
        }
        What::FrameRelay { from, to } => frames::relay(&from, &to)?,
        What::Stations { interface, side, count, seconds, learn } => {
            let seen = frames::stations(&interface, side, count, seconds, learn)?;
            println!("{}", serde_json::to_string(&seen)?);
        }
    }
    Ok(())
}
