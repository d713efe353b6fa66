//! Messages that the protocol crate does not decode, or not at the time at which front ends send them.
//!
//! They are looked at in the socket before the crate sees them, and taken out of it if they are ours.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recv, recvmsg};

use crate::memory::REGIONS;

/// Requests of vhost-user.rst, "Front-end message types".
const SET_LOG_FD: u32 = 7;
const SET_VRING_ENABLE: u32 = 18;
const SEND_RARP: u32 = 19;
const NET_SET_MTU: u32 = 20;

/// Bytes of a header: request, flags, size.
const HEADER: usize = 12;

/// Flags of a header: its version, an answer, an answer is wanted.
const VERSION_MASK: u32 = 0b11;
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// What a message says.
#[derive(Debug)]
pub(super) enum Body {
    /// Ring `index` is enabled or not.
    Enable { index: u32, state: u32 },
    /// Announce this address where the port is now.
    Rarp([u8; 6]),
    /// The guest takes packets of so many bytes at most.
    Mtu(u64),
    /// By what to tell that the log has changed, which we do not: who asks for a log reads it when it wants.
    LogFd,
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    request: u32,
    /// An answer is wanted.
    pub(super) needs_reply: bool,
    pub(super) body: Body,
}

/// How long a message that has begun may take to be all there, and an answer to be taken.
pub(super) const STALL: Duration = Duration::from_secs(1);

/// Bytes behind a header at most; the protocol crate refuses more.
const MOST: usize = 4096;

/// Descriptors with a message at most: one for each memory region.
const DESCRIPTORS: usize = REGIONS;

/// Waits until the next message is all there, or will never be because the other end is gone: who reads it then is not
/// held up by anybody.
///
/// # Errors
/// It takes longer than [`STALL`]; no message begins so; system calls fail.
pub(super) fn await_whole(stream: &UnixStream) -> io::Result<()> {
    let begun = Instant::now();
    let mut wanted = HEADER;
    loop {
        let there = usize::try_from(rustix::io::ioctl_fionread(stream)?).unwrap_or(usize::MAX);
        if there >= wanted && wanted == HEADER {
            let size = size(stream)?;
            if size == 0 || size > MOST {
                return Ok(());
            }
            wanted += size;
            continue;
        }
        let mut ends = [PollFd::new(stream, PollFlags::RDHUP)];
        if there >= wanted || poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {
            return Ok(());
        }
        if begun.elapsed() > STALL {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a message that does not end"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes behind the next message's header, which is there.
///
/// # Errors
/// Its descriptors are more than any message has, or come in the middle of it. The protocol crate would lose the header
/// with them, and wait for another one.
fn size(stream: &UnixStream) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut header = [0; HEADER];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let seen = recvmsg(stream, &mut [IoSliceMut::new(&mut header)], &mut control, flags)?;
    let descriptors = control.drain().map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.count(),
        _ => 0,
    });
    let too_many = descriptors.sum::<usize>() > DESCRIPTORS || seen.flags.contains(ReturnFlags::CTRUNC);
    if too_many || seen.bytes < HEADER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a header with descriptors that none has"));
    }
    Ok(word(&header, 8) as usize)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Bytes behind the header, of the requests that are ours. One that enables a ring before the features are set is:
/// DPDK's virtio-user begins so when it is connected to again, QEMU when it resets the device; they mean well.
fn expected(request: u32, early: bool) -> Option<u32> {
    match request {
        SET_LOG_FD => Some(0),
        SEND_RARP | NET_SET_MTU => Some(8),
        SET_VRING_ENABLE if early => Some(8),
        _ => None,
    }
}

/// Takes the next message if it is one of these. `early`: no features have been set.
///
/// # Errors
/// The connection is gone.
pub(super) fn take(stream: &UnixStream, early: bool) -> io::Result<Option<Message>> {
    let mut header = [0; HEADER];
    let seen = recv(stream, &mut header, RecvFlags::PEEK | RecvFlags::DONTWAIT);
    let (request, flags, size) = (word(&header, 0), word(&header, 4), word(&header, 8));
    let is_whole = seen.is_ok_and(|(bytes, _)| bytes == HEADER) && flags & (VERSION_MASK | REPLY) == VERSION;
    if !is_whole || expected(request, early) != Some(size) {
        return Ok(None);
    }
    let mut reader: &UnixStream = stream;
    // A descriptor that comes along is closed by that.
    reader.read_exact(&mut header)?;
    let mut body = [0; 8];
    reader.read_exact(&mut body[..size as usize])?;
    let body = match request {
        SET_LOG_FD => Body::LogFd,
        SEND_RARP => Body::Rarp([body[0], body[1], body[2], body[3], body[4], body[5]]),
        NET_SET_MTU => Body::Mtu(u64::from_ne_bytes(body)),
        _ => Body::Enable { index: word(&body, 0), state: word(&body, 4) },
    };
    Ok(Some(Message { request, needs_reply: flags & NEED_REPLY != 0, body }))
}

/// Answers a message: 0 for what was done.
///
/// # Errors
/// The connection is gone.
pub(super) fn reply(mut stream: &UnixStream, message: &Message, is_done: bool) -> io::Result<()> {
    let mut bytes = [0; HEADER + 8];
    for (at, value) in [message.request, VERSION | REPLY, 8, u32::from(!is_done)].into_iter().enumerate() {
        bytes[4 * at..4 * at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    stream.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
        let header = [request, flags, body.len() as u32];
        header.iter().flat_map(|word| word.to_ne_bytes()).chain(body.iter().copied()).collect()
    }

    #[test]
    fn only_messages_of_ours_are_taken() {
        let (near, mut far) = UnixStream::pair().unwrap();
        assert!(take(&near, true).unwrap().is_none());
        far.write_all(&message(SEND_RARP, VERSION | NEED_REPLY, &[2, 0, 0, 0, 0, 9, 0, 0])).unwrap();
        far.write_all(&message(NET_SET_MTU, VERSION, &1400u64.to_ne_bytes())).unwrap();
        far.write_all(&message(SET_LOG_FD, VERSION, &[])).unwrap();
        let enable: Vec<u8> = [3u32, 1].iter().flat_map(|word| word.to_ne_bytes()).collect();
        far.write_all(&message(SET_VRING_ENABLE, VERSION, &enable)).unwrap();
        let rarp = take(&near, false).unwrap().unwrap();
        assert!(rarp.needs_reply && matches!(rarp.body, Body::Rarp([2, 0, 0, 0, 0, 9])));
        reply(&near, &rarp, false).unwrap();
        let mut answer = [0; 20];
        far.read_exact(&mut answer).unwrap();
        assert_eq!([0, 4, 8, 12].map(|at| word(&answer, at)), [SEND_RARP, VERSION | REPLY, 8, 1]);
        let mtu = take(&near, false).unwrap().unwrap();
        assert!(!mtu.needs_reply && matches!(mtu.body, Body::Mtu(1400)));
        assert!(matches!(take(&near, false).unwrap().unwrap().body, Body::LogFd));
        // Left for the crate, but for one that comes too early.
        assert!(take(&near, false).unwrap().is_none());
        let early = take(&near, true).unwrap().unwrap();
        assert!(matches!(early.body, Body::Enable { index: 3, state: 1 }));
        for odd in [message(SEND_RARP, VERSION, &[0; 7]), message(SEND_RARP, 2, &[0; 8]), vec![19, 0, 0]] {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(&odd).unwrap();
            assert!(take(&near, true).unwrap().is_none(), "{odd:?}");
        }
    }
}
