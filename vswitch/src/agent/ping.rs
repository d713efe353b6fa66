//! Pings of ours, under way: how long it takes to a remote and back, and whether a packet of a size gets there.

use std::net::IpAddr;
use std::time::Duration;

use super::event::{Path, Reason};
use super::frame::{Writer, echo_overhead};
use super::station::Output;

/// Pings that a station has under way at most.
pub(crate) const PINGS: usize = 64;

/// A ping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ping {
    /// What its answer is known by.
    pub(super) number: u32,
    pub(super) remote: IpAddr,
    /// Bytes of the packet, its IP header among them.
    pub(super) size: usize,
    pub(super) deadline_ns: u64,
}

/// The pings of a station, each with the time when it was sent.
#[derive(Debug, Default)]
pub(super) struct Pings(Vec<(Ping, Option<u64>)>);

/// A ping that came to its end, by its number.
pub(super) type Pong = (u32, Result<Duration, PingError>);

/// Why there is no answer to a ping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PingError {
    /// A router said so.
    #[error("too big for a network on the way, which takes {mtu} bytes")]
    TooBig {
        /// What would not have been.
        mtu: u32,
    },
    /// Another reason, for people.
    #[error("{0}")]
    Other(String),
}

impl From<String> for PingError {
    fn from(reason: String) -> PingError {
        PingError::Other(reason)
    }
}

impl From<Reason> for PingError {
    fn from(reason: Reason) -> PingError {
        reason.to_string().into()
    }
}

impl Pings {
    /// Takes a ping on, or says why not.
    pub(super) fn add(&mut self, ping: Ping, station: &str, mtu: u32) -> Result<(), PingError> {
        let Ping { remote, size, .. } = ping;
        let least = echo_overhead(remote);
        if size < least {
            return Err(format!("a ping to {remote} has at least {least} bytes").into());
        }
        if size > mtu as usize {
            return Err(format!("{size} bytes are more than the MTU of {station}, {mtu}").into());
        }
        if self.0.len() >= PINGS {
            return Err("too many pings are under way".to_owned().into());
        }
        self.0.push((ping, None));
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers of all of them.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().map(|(ping, _)| ping.number)
    }

    pub(super) fn remotes(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.0.iter().map(|(ping, _)| ping.remote)
    }

    /// When each is over at the latest.
    pub(super) fn due_ns(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|(ping, _)| ping.deadline_ns)
    }

    /// Sends those whose way is known, and ends those whose way never will be or that have waited for long enough.
    pub(super) fn tick(
        &mut self,
        now_ns: u64,
        path: impl Fn(IpAddr) -> Result<Path, Reason>,
        writer: &Writer,
        out: &mut Output,
    ) {
        self.0.retain_mut(|(ping, sent_ns)| {
            let late = ping.deadline_ns <= now_ns;
            let failed = match (path(ping.remote), *sent_ns) {
                (Ok(path), None) => {
                    let data = vec![0x76; ping.size - echo_overhead(ping.remote)];
                    let ends = (path.source, ping.remote);
                    out.frames.extend(writer.echo(
                        path.next_hop_mac,
                        ends,
                        true,
                        numbers(ping.number),
                        &data,
                    ));
                    *sent_ns = Some(now_ns);
                    None
                }
                (Err(Reason::Asking(_)), None) if !late => None,
                (Err(reason), None) => Some(reason.into()),
                (_, Some(_)) if late => Some(unanswered(ping.remote, ping.size)),
                (_, Some(_)) => None,
            };
            let goes_on = failed.is_none();
            out.pongs.extend(failed.map(|reason| (ping.number, Err(reason))));
            goes_on
        });
    }

    /// Ends the ping of this number to `remote` with what `end` makes of the time when it was sent.
    pub(super) fn end(
        &mut self,
        number: u32,
        remote: IpAddr,
        end: impl FnOnce(u64) -> Result<Duration, PingError>,
    ) -> Option<Pong> {
        let is_it = |(ping, _): &(Ping, _)| ping.number == number && ping.remote == remote;
        let at = self.0.iter().position(is_it)?;
        let sent_ns = self.0[at].1?;
        self.0.remove(at);
        Some((number, end(sent_ns)))
    }
}

/// Nobody has said anything to a ping of this size.
pub(crate) fn unanswered(remote: IpAddr, size: usize) -> PingError {
    format!("no answer from {remote} to {size} bytes").into()
}

/// A number as an echo's identifier and sequence number.
fn numbers(number: u32) -> (u16, u16) {
    ((number >> 16) as u16, number as u16)
}
