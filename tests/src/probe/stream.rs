//! A file each way over one TCP connection, checked byte by byte at both ends.
//!
//! The client sends a request (seed and length), then its file; the server checks it, answers with one byte
//! (1 intact, 0 damaged) and sends a file of the same length made from the next seed, which the client checks.
//! Both files are computed from their seed at both ends: a damaged, missing or doubled byte is seen, and where.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;

/// How much is written or read at once; a multiple of the pattern's word.
const CHUNK: usize = 256 * 1024;
/// A connection that moves nothing for so long is dead.
const STALL: Duration = Duration::from_secs(20);

/// What a client saw of one exchange.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exchange {
    /// Bytes in each direction.
    pub bytes: u64,
    /// The server got its file intact.
    pub sent_intact: bool,
    /// We got ours intact.
    pub received_intact: bool,
    /// How long both took, seconds.
    pub seconds: f64,
}

impl Exchange {
    /// How fast it was, both directions together, Gbit/s.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 16.0 / self.seconds / 1e9
    }

    /// Both files arrived as they were sent; `route` says from where to where.
    ///
    /// # Panics
    /// When one did not.
    pub fn assert_intact(&self, route: &str) {
        assert!(self.sent_intact, "the file sent from {route} arrived damaged");
        assert!(self.received_intact, "the file sent back over {route} arrived damaged");
    }
}

/// Serves `connections` clients on `address`, one after the other; prints `ready` when it listens.
pub fn serve(address: SocketAddr, connections: u32) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("ready");
    for _ in 0..connections {
        let (stream, _) = listener.accept()?;
        answer(stream)?;
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    limit(&stream)?;
    let mut request = [0; 16];
    stream.read_exact(&mut request)?;
    let seed = u64::from_le_bytes(request[..8].try_into().expect("eight bytes"));
    let length = u64::from_le_bytes(request[8..].try_into().expect("eight bytes"));
    let intact = check(&mut stream, seed, length)?;
    stream.write_all(&[u8::from(intact)])?;
    send(&mut stream, seed.wrapping_add(1), length)
}

/// Exchanges files of `length` bytes with the server at `address`.
pub fn exchange(address: SocketAddr, seed: u64, length: u64) -> io::Result<Exchange> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, STALL)?;
    limit(&stream)?;
    stream.write_all(&seed.to_le_bytes())?;
    stream.write_all(&length.to_le_bytes())?;
    send(&mut stream, seed, length)?;
    let mut verdict = [0];
    stream.read_exact(&mut verdict)?;
    let received_intact = check(&mut stream, seed.wrapping_add(1), length)?;
    Ok(Exchange {
        bytes: length,
        sent_intact: verdict == [1],
        received_intact,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn limit(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))
}

fn send(stream: &mut TcpStream, seed: u64, length: u64) -> io::Result<()> {
    let (mut pattern, mut chunk) = (Pattern::new(seed), vec![0; CHUNK]);
    let mut left = length;
    while left > 0 {
        let part = &mut chunk[..usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        pattern.fill(part);
        stream.write_all(part)?;
        left -= part.len() as u64;
    }
    Ok(())
}

/// Reads a file to its end; whether every byte was right. The first wrong one is named on standard error.
fn check(stream: &mut TcpStream, seed: u64, length: u64) -> io::Result<bool> {
    let (mut pattern, mut wanted, mut got) = (Pattern::new(seed), vec![0; CHUNK], vec![0; CHUNK]);
    let (mut left, mut intact) = (length, true);
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        stream.read_exact(&mut got[..size])?;
        pattern.fill(&mut wanted[..size]);
        if intact && got[..size] != wanted[..size] {
            intact = false;
            let offset = got.iter().zip(&wanted).position(|(got, wanted)| got != wanted).unwrap_or(0);
            eprintln!("byte {} is damaged", length - left + offset as u64);
        }
        left -= size as u64;
    }
    Ok(intact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn served(answer: impl FnOnce(TcpStream) -> io::Result<()> + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || answer(listener.accept().unwrap().0));
        address
    }

    #[test]
    fn an_intact_exchange_says_so() {
        let seen = exchange(served(answer), 3, 300_001).unwrap();
        assert!(seen.sent_intact && seen.received_intact && seen.bytes == 300_001);
    }

    #[test]
    fn one_wrong_byte_is_seen() {
        let address = served(|mut stream| {
            let mut file = vec![0; 16 + 1000];
            stream.read_exact(&mut file)?;
            let mut reply = vec![0; 1000];
            Pattern::new(4).fill(&mut reply);
            reply[999] ^= 1;
            stream.write_all(&[1])?;
            stream.write_all(&reply)
        });
        let seen = exchange(address, 3, 1000).unwrap();
        assert!(seen.sent_intact && !seen.received_intact);
    }
}
