#![allow(unsafe_code)]
//! ICMP as a process of the host has it: a raw socket that hears only what it was opened for.
//!
//! The kernel hands errors about packets to the sockets that sent them. Who sends past its stack has none, and reads
//! them here: those that say "too big" of a packet of a tunnel, or the answers to pings of its own. All else is turned
//! away in the kernel by a filter, so that whatever the host's ICMP is, nobody here is woken for it. A filter reads
//! what somebody outside wrote, and is no proof: whoever is handed a message judges it. See raw(7), bpf(4),
//! <linux/filter.h>.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, sock_filter};

use super::{Error, Netns};
use crate::checksum::Sum;

/// IP protocols whose packets are asked about.
const UDP: u32 = 17;
const GRE: u32 = 47;

/// Every packet that is sent may not be cut, whatever the kernel believes of the path (`<linux/in.h>`, `<linux/in6.h>`:
/// `IP_PMTUDISC_PROBE`, which has the same number for IPv6).
const PROBE: c_int = 3;

/// How the two kinds of ICMP differ, as a filter sees them.
struct Shape {
    protocol: u32,
    /// Where the message begins: the kernel shows the IP header of an IPv4 packet alone.
    start: sock_filter,
    /// Type, and code where that matters: RFC 792 and RFC 1191, 4; RFC 4443, 3.2 and 4.2.
    word: sock_filter,
    too_big: u32,
    reply: u32,
    /// Where a quoted header, behind eight bytes of the error, has its protocol.
    quoted_protocol: u32,
}

// Opcodes: load into the index (a number, or the length of an IPv4 header), load relative to it, compare, return.
const INDEX_NUMBER: u32 = libc::BPF_LDX | libc::BPF_IMM;
const INDEX_IPV4: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// One instruction; `yes` and `no` are how many are stepped over.
const fn code(opcode: u32, k: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter { code: opcode as u16, jt: yes, jf: no, k }
}

impl Shape {
    fn of(is_ipv4: bool) -> Shape {
        match is_ipv4 {
            true => Shape {
                protocol: libc::IPPROTO_ICMP as u32,
                start: code(INDEX_IPV4, 0, 0, 0),
                word: code(HALF, 0, 0, 0),
                too_big: 0x0304,
                reply: 0,
                quoted_protocol: 8 + 9,
            },
            false => Shape {
                protocol: libc::IPPROTO_ICMPV6 as u32,
                start: code(INDEX_NUMBER, 0, 0, 0),
                word: code(BYTE, 0, 0, 0),
                too_big: 2,
                reply: 129,
                quoted_protocol: 8 + 6,
            },
        }
    }

    /// Errors that quote what tunnels send.
    fn errors(&self) -> [sock_filter; 8] {
        [
            self.start,
            self.word,
            code(EQUAL, self.too_big, 0, 3),
            code(BYTE, self.quoted_protocol, 0, 0),
            code(EQUAL, UDP, 2, 0),
            code(EQUAL, GRE, 1, 0),
            code(RETURN, 0, 0, 0),
            code(RETURN, u32::MAX, 0, 0),
        ]
    }

    /// Answers to pings of this identifier, and errors that quote a ping.
    fn answers(&self, ident: u16) -> [sock_filter; 10] {
        [
            self.start,
            self.word,
            code(EQUAL, self.too_big, 0, 2),
            code(BYTE, self.quoted_protocol, 0, 0),
            code(EQUAL, self.protocol, 4, 3),
            code(EQUAL, self.reply, 0, 2),
            code(HALF, 4, 0, 0),
            code(EQUAL, ident.into(), 1, 0),
            code(RETURN, 0, 0, 0),
            code(RETURN, u32::MAX, 0, 0),
        ]
    }
}

/// A raw socket for ICMP, or ICMPv6, in one namespace. It never waits.
#[derive(Debug)]
pub struct IcmpSocket {
    // Its type is only a way to send and receive: the protocol is that of the socket that was made.
    socket: UdpSocket,
    is_ipv4: bool,
}

impl IcmpSocket {
    /// Hears errors that say of a packet of UDP or GRE that it was too big.
    ///
    /// # Errors
    /// No capability (`CAP_NET_RAW`), no such family.
    pub fn for_errors(netns: &Netns, is_ipv4: bool) -> Result<IcmpSocket, Error> {
        let socket = netns.run(|| open(is_ipv4))?;
        filter(&socket, &Shape::of(is_ipv4).errors())?;
        Ok(IcmpSocket { socket: UdpSocket::from(socket), is_ipv4 })
    }

    /// Pings from `source` by this identifier, by packets that nobody may cut.
    ///
    /// # Errors
    /// The same, or `source` is no address of the namespace.
    pub fn for_pings(netns: &Netns, source: IpAddr, ident: u16) -> Result<IcmpSocket, Error> {
        let is_ipv4 = source.is_ipv4();
        let socket = netns.run(|| open(is_ipv4))?;
        filter(&socket, &Shape::of(is_ipv4).answers(ident))?;
        match is_ipv4 {
            true => set(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &PROBE)?,
            false => set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &PROBE)?,
        }
        bind(&socket, source)?;
        Ok(IcmpSocket { socket: UdpSocket::from(socket), is_ipv4 })
    }

    /// Whether it speaks ICMP, not ICMPv6.
    pub fn is_ipv4(&self) -> bool {
        self.is_ipv4
    }

    /// Sends a message, from its ICMP header on; the kernel fills the checksum of ICMPv6.
    ///
    /// # Errors
    /// As of `sendto`.
    pub fn send(&self, to: IpAddr, message: &[u8]) -> io::Result<()> {
        // A raw socket of IPv6 takes no port.
        self.socket.send_to(message, SocketAddr::new(to, 0)).map(drop)
    }

    /// The next message that is whole, from its ICMP header on, and its sender; `None` if there is none.
    ///
    /// # Errors
    /// As of `recvfrom`.
    pub fn receive<'b>(&self, bytes: &'b mut [u8]) -> io::Result<Option<(IpAddr, &'b [u8])>> {
        loop {
            let (length, from) = match self.socket.recv_from(bytes) {
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                received => received?,
            };
            let header = if self.is_ipv4 { usize::from(bytes[0] & 0xf) * 4 } else { 0 };
            // The kernel has looked at the checksum of ICMPv6 only.
            if header < length && (!self.is_ipv4 || is_intact(&bytes[header..length])) {
                return Ok(Some((from.ip(), &bytes[header..length])));
            }
        }
    }
}

fn is_intact(message: &[u8]) -> bool {
    let mut sum = Sum::default();
    sum.add(message);
    sum.finish() == [0; 2]
}

impl AsFd for IcmpSocket {
    /// Readable when there is a message.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(is_ipv4: bool) -> Result<OwnedFd, Error> {
    let family = if is_ipv4 { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(family, kind, Shape::of(is_ipv4).protocol as c_int) };
    if fd < 0 {
        return Err(Error::last("opening a raw socket for ICMP", "socket(SOCK_RAW)"));
    }
    // SAFETY: a descriptor that the kernel just made for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn filter(socket: &OwnedFd, program: &[sock_filter]) -> Result<(), Error> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // The kernel copies the program, and writes nothing.
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

fn set<T>(socket: &OwnedFd, level: c_int, name: c_int, value: &T) -> Result<(), Error> {
    // SAFETY: the value, and what it points to, live through the call, and its true size is given.
    let rc = unsafe {
        let value = std::ptr::from_ref(value).cast();
        libc::setsockopt(socket.as_raw_fd(), level, name, value, size_of::<T>() as libc::socklen_t)
    };
    if rc == 0 { Ok(()) } else { Err(Error::last("setting up a raw socket for ICMP", "setsockopt")) }
}

fn bind(socket: &OwnedFd, source: IpAddr) -> Result<(), Error> {
    // SAFETY: all zeros is a valid address of any family.
    let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    let length = match source {
        IpAddr::V4(v4) => {
            let at = std::ptr::from_mut(&mut address).cast::<libc::sockaddr_in>();
            // SAFETY: an address of IPv6 has room for one of IPv4, and is aligned as much.
            unsafe {
                (*at).sin_family = libc::AF_INET as libc::sa_family_t;
                (*at).sin_addr.s_addr = u32::from_ne_bytes(v4.octets());
            }
            size_of::<libc::sockaddr_in>()
        }
        IpAddr::V6(v6) => {
            address.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            address.sin6_addr.s6_addr = v6.octets();
            size_of::<libc::sockaddr_in6>()
        }
    };
    // SAFETY: the address lives through the call, and its true size is given.
    let rc = unsafe {
        libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length as libc::socklen_t)
    };
    if rc == 0 { Ok(()) } else { Err(Error::last(format!("taking the address {source} for pings"), "bind")) }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::netdev::testing::Sandbox;

    /// A message with its checksum, which the kernel fills for ICMPv6.
    fn message(head: [u8; 8], rest: &[u8]) -> Vec<u8> {
        let mut message = [&head[..], rest].concat();
        let mut sum = Sum::default();
        sum.add(&message);
        message[2..4].copy_from_slice(&sum.finish());
        message
    }

    fn quoted(is_ipv4: bool, protocol: u8) -> Vec<u8> {
        let mut quoted = vec![0; if is_ipv4 { 28 } else { 48 }];
        quoted[0] = if is_ipv4 { 0x45 } else { 0x60 };
        quoted[if is_ipv4 { 9 } else { 6 }] = protocol;
        quoted
    }

    fn received(socket: &IcmpSocket) -> Option<Vec<u8>> {
        let (deadline, mut bytes) = (Instant::now() + Duration::from_secs(5), [0; 256]);
        while Instant::now() < deadline {
            if let Some((from, message)) = socket.receive(&mut bytes).unwrap() {
                assert!(from.is_loopback(), "{from}");
                return Some(message.to_vec());
            }
        }
        None
    }

    /// Type and code of an error, and types of the question and the answer.
    fn types(is_ipv4: bool) -> ([u8; 2], u8, u8) {
        if is_ipv4 { ([3, 4], 8, 0) } else { ([2, 0], 128, 129) }
    }

    #[test]
    fn only_errors_that_quote_tunnels_are_heard() {
        let sandbox = Sandbox::new(1);
        let netns = sandbox.netns(0);
        for (is_ipv4, to) in [(true, IpAddr::from(Ipv4Addr::LOCALHOST)), (false, Ipv6Addr::LOCALHOST.into())]
        {
            let errors = IcmpSocket::for_errors(netns, is_ipv4).unwrap();
            let sender = IcmpSocket::for_pings(netns, to, 1).unwrap();
            let ([kind, code], request, _) = types(is_ipv4);
            let head = [kind, code, 0, 0, 0, 0, 5, 120];
            for (head, quote) in [
                (head, quoted(is_ipv4, 6)),
                ([1, 0, 0, 0, 0, 0, 0, 0], quoted(is_ipv4, 17)),
                ([request, 0, 0, 0, 0, 7, 0, 1], quoted(is_ipv4, 17)),
                (head, vec![]),
            ] {
                sender.send(to, &message(head, &quote)).unwrap();
            }
            if is_ipv4 {
                let mut broken = message(head, &quoted(is_ipv4, 17));
                broken[7] ^= 1;
                sender.send(to, &broken).unwrap();
            }
            for protocol in [17, 47] {
                sender.send(to, &message(head, &quoted(is_ipv4, protocol))).unwrap();
                let heard = received(&errors).expect("an error is heard");
                assert_eq!(heard[..2], [kind, code]);
                assert_eq!(heard[8..], quoted(is_ipv4, protocol), "of {protocol}");
            }
            assert!(errors.receive(&mut [0; 256]).unwrap().is_none());
        }
    }

    #[test]
    fn a_ping_is_answered_to_its_own_socket() {
        let sandbox = Sandbox::new(1);
        let netns = sandbox.netns(0);
        for (is_ipv4, to) in [(true, IpAddr::from(Ipv4Addr::LOCALHOST)), (false, Ipv6Addr::LOCALHOST.into())]
        {
            let [mine, others] = [7, 8].map(|ident| IcmpSocket::for_pings(netns, to, ident).unwrap());
            let (_, request, reply) = types(is_ipv4);
            mine.send(to, &message([request, 0, 0, 0, 0, 7, 0, 1], b"data")).unwrap();
            let heard = received(&mine).expect("the kernel answers");
            assert_eq!((heard[0], &heard[4..]), (reply, &b"\0\x07\0\x01data"[..]));
            assert!(others.receive(&mut [0; 256]).unwrap().is_none());
        }
    }

    #[test]
    fn nobody_pings_from_an_address_of_others() {
        let sandbox = Sandbox::new(1);
        let refused = IcmpSocket::for_pings(sandbox.netns(0), "192.0.2.1".parse().unwrap(), 1);
        assert!(refused.unwrap_err().to_string().contains("192.0.2.1"));
    }
}
