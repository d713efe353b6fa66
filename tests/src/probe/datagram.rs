//! UDP: an echo, round-trip times, and a flood.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// An answer that takes longer is counted as lost.
const LOST: Duration = Duration::from_millis(500);

/// Round-trip times, microseconds; 0 when none was answered.
#[derive(Debug, Serialize, Deserialize)]
pub struct RoundTrips {
    /// Answers that came.
    pub answered: u64,
    /// Answers that did not.
    pub lost: u64,
    /// The median.
    pub p50_us: f64,
    /// 99 of 100 are at most this.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Sends every datagram back to where it came from, for ever; prints `ready` when it listens.
pub fn echo(address: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    println!("ready");
    let mut buffer = [0; 65536];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        // A peer that is gone (connection refused) must not end the echo for the others.
        let _ = socket.send_to(&buffer[..length], from);
    }
}

/// Asks an echo `count` times, one datagram after the other, each of `size` bytes (at least 8).
pub fn round_trips(address: SocketAddr, count: u64, size: usize) -> io::Result<RoundTrips> {
    let socket = local(address)?;
    socket.set_read_timeout(Some(LOST))?;
    let (mut times, mut lost) = (Vec::new(), 0);
    let (mut request, mut reply) = (vec![0; size.max(8)], [0; 65536]);
    for number in 0..count {
        request[..8].copy_from_slice(&number.to_le_bytes());
        let start = Instant::now();
        socket.send(&request)?;
        if await_reply(&socket, &request, &mut reply)? {
            times.push(start.elapsed().as_secs_f64() * 1e6);
        } else {
            lost += 1;
        }
    }
    times.sort_by(f64::total_cmp);
    let share = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or(0.0);
    Ok(RoundTrips {
        answered: times.len() as u64,
        lost,
        p50_us: share(0.5),
        p99_us: share(0.99),
        max_us: times.last().copied().unwrap_or(0.0),
    })
}

fn local(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(address)?;
    Ok(socket)
}

/// Whether the answer to `request` comes; a late answer to an earlier one is passed over.
fn await_reply(socket: &UdpSocket, request: &[u8], reply: &mut [u8]) -> io::Result<bool> {
    loop {
        match socket.recv(reply) {
            Ok(length) if reply[..length] == *request => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Sends datagrams of `size` bytes as fast as it can for `seconds`; how many it sent.
pub fn flood(address: SocketAddr, seconds: f64, size: usize) -> io::Result<u64> {
    let socket = local(address)?;
    let (start, payload, mut sent) = (Instant::now(), vec![0x55; size], 0);
    while start.elapsed().as_secs_f64() < seconds {
        // A full queue and a refused datagram are part of a flood.
        sent += u64::from(socket.send(&payload).is_ok());
    }
    Ok(sent)
}
