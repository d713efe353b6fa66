//! A ping in the host's name, over a network of its kernel.
//!
//! On a shared underlay the host's kernel sends and receives what is not a tunnel's: pings go by a raw socket of it.
//! They may not be cut, and are as large as is asked for whatever the kernel believes of the path. One thread asks and
//! waits, for one ping; whoever is asked by several at once has a socket for each.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use pmd::netdev::Netns;
use pmd::netdev::icmp::IcmpSocket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::agent::PingError;
use crate::agent::frame::{ping as request, too_big};
use crate::agent::path_mtu::{ICMP, ICMPV6, Quote};
use crate::agent::ping::unanswered;

/// The number of the only ping of its identifier.
const SEQUENCE: u16 = 1;

/// A ping that is under way.
struct Echo {
    socket: IcmpSocket,
    remote: IpAddr,
    ident: u16,
}

/// Pings `remote` from the host's address `source` with a packet of `size` bytes; gives the time until the answer.
///
/// # Errors
/// Why there is none.
pub(super) fn ping(
    netns: Option<&str>,
    (source, remote): (IpAddr, IpAddr),
    size: usize,
    timeout: Duration,
) -> Result<Duration, PingError> {
    let mut ident = [0; 2];
    // Whatever it is, the sender of an answer is looked at, too.
    let _ = getrandom(&mut ident, GetRandomFlags::empty());
    let ident = u16::from_ne_bytes(ident);
    let socket = Netns::open_or_own(netns).and_then(|netns| IcmpSocket::for_pings(&netns, source, ident));
    let echo = Echo { socket: socket.map_err(|error| error.to_string())?, remote, ident };
    let start = Instant::now();
    echo.socket
        .send(remote, &request(remote, ident, SEQUENCE, size))
        .map_err(|cause| format!("sending {size} bytes to {remote}: {cause}"))?;
    while let Some(left) = timeout.checked_sub(start.elapsed()) {
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        // Whatever it returns, the socket is asked.
        let _ = poll(&mut [PollFd::new(&echo.socket, PollFlags::IN)], Some(&left));
        if let Some(ended) = echo.hear()? {
            return ended.map(|()| start.elapsed());
        }
    }
    Err(unanswered(remote, size))
}

impl Echo {
    /// What came of it, if something did.
    fn hear(&self) -> Result<Option<Result<(), PingError>>, PingError> {
        let mut bytes = vec![0; usize::from(u16::MAX)];
        let failed = |cause| format!("waiting for an answer from {}: {cause}", self.remote);
        while let Some((from, message)) = self.socket.receive(&mut bytes).map_err(failed)? {
            if from == self.remote && self.is_answer(message) {
                return Ok(Some(Ok(())));
            }
            if let Some(mtu) = self.too_big(message) {
                return Ok(Some(Err(PingError::TooBig { mtu })));
            }
        }
        Ok(None)
    }

    fn numbers(&self) -> [u8; 4] {
        (u32::from(self.ident) << 16 | u32::from(SEQUENCE)).to_be_bytes()
    }

    fn is_answer(&self, message: &[u8]) -> bool {
        // RFC 792; RFC 4443, 4.2.
        let reply = if self.remote.is_ipv4() { 0 } else { 129 };
        message.first() == Some(&reply) && message.get(4..8) == Some(&self.numbers()[..])
    }

    /// An error quotes it: what would not have been too big.
    fn too_big(&self, message: &[u8]) -> Option<u32> {
        let (mtu, quoted) = too_big(message, self.remote.is_ipv4())?;
        let quote = Quote::read(quoted)?;
        let protocol = if self.remote.is_ipv4() { ICMP } else { ICMPV6 };
        let is_it = (quote.to, quote.protocol) == (self.remote, protocol)
            && quote.payload.get(4..8) == Some(&self.numbers()[..]);
        quote.path_mtu(mtu).filter(|_| is_it)
    }
}
