//! Numbered datagrams of several flows: does each flow keep its order?

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What a receiver saw of numbered datagrams.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Order {
    /// Datagrams that came.
    pub received: u64,
    /// Those that came after one with a higher number of the same flow.
    pub late: u64,
    /// Those that came twice in a row.
    pub doubled: u64,
    /// Flows that were seen.
    pub flows: u64,
}

/// Sends numbered datagrams on `flows` flows (a source port each), turn by turn, for `seconds`; how many it sent.
/// Between two turns it waits, so that the receiver can keep up.
pub fn send(address: SocketAddr, flows: u32, seconds: f64) -> io::Result<u64> {
    let open = |_| {
        let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(address)?;
        Ok(socket)
    };
    let sockets = (0..flows).map(open).collect::<io::Result<Vec<_>>>()?;
    let (start, mut sent, mut payload) = (Instant::now(), 0, [0; 32]);
    for number in 1_u64.. {
        if start.elapsed().as_secs_f64() >= seconds {
            break;
        }
        payload[..8].copy_from_slice(&number.to_le_bytes());
        for socket in &sockets {
            sent += u64::from(socket.send(&payload).is_ok());
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(sent)
}

/// Prints `ready`, then receives until nothing came for `quiet`.
pub fn receive(address: SocketAddr, quiet: Duration) -> io::Result<Order> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(quiet))?;
    println!("ready");
    let (mut order, mut newest, mut payload) = (Order::default(), HashMap::new(), [0; 64]);
    loop {
        match socket.recv_from(&mut payload) {
            Ok((length, from)) if length >= 8 => {
                let number = u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"));
                note(&mut order, newest.entry(from).or_insert(0), number);
            }
            Ok(_) => {}
            // Silence before the first datagram is not the end: the sender may just be starting.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && order.received == 0 => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    order.flows = newest.len() as u64;
    Ok(order)
}

fn note(order: &mut Order, newest: &mut u64, number: u64) {
    order.received += 1;
    order.late += u64::from(number < *newest);
    order.doubled += u64::from(number == *newest);
    *newest = number.max(*newest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_and_doubled_numbers_are_seen_and_gaps_are_not_held_against_a_flow() {
        let (mut order, mut newest) = (Order::default(), 0);
        [1, 2, 5, 4, 5, 6].into_iter().for_each(|number| note(&mut order, &mut newest, number));
        assert_eq!((order.received, order.late, order.doubled), (6, 1, 1));
    }
}
