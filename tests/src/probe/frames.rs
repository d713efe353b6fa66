//! Raw frames into and out of an interface, past the kernel's protocols (AF_PACKET).
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{fs::File, mem};

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;

/// A packet socket on one interface: what is written leaves there, what is read arrived there.
#[derive(Debug)]
pub struct FrameSocket {
    file: File,
}

impl FrameSocket {
    /// Opens it on the interface called `name` in the namespace that this process is in.
    pub fn open(name: &str) -> io::Result<Self> {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket takes three integers; the result is checked before it is owned.
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol)) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        let name = CString::new(name).map_err(io::Error::other)?;
        // SAFETY: the name ends with a NUL and lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: sockaddr_ll is plain integers, for which all zeros is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        let length = mem::size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is a sockaddr_ll of the length that is given.
        if unsafe { libc::bind(raw, (&raw const address).cast(), length) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = Self { file: File::from(socket) };
        // What others send out of the interface is not what arrives there.
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
        Ok(socket)
    }

    /// How long a read waits for a frame.
    pub fn limit(&self, wait: Duration) -> io::Result<()> {
        let time = libc::timeval {
            tv_sec: wait.as_secs() as libc::time_t,
            tv_usec: libc::suseconds_t::from(wait.subsec_micros()),
        };
        self.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time)
    }

    /// Sets a socket option whose value is a plain C value.
    fn set<T: Copy>(&self, level: i32, option: i32, value: &T) -> io::Result<()> {
        let length = mem::size_of::<T>() as libc::socklen_t;
        // SAFETY: the value lives through the call and has the length that is given.
        let set = unsafe {
            libc::setsockopt(self.file.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length)
        };
        if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends one frame.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.write_all(frame)
    }

    /// The next frame that comes in, or none within the limit. The kernel takes a VLAN tag out of the frame and
    /// tells it beside; here it is put back.
    pub fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut frame = vec![0; 65536];
        let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        let mut aside = [0_u64; 16];
        // SAFETY: msghdr is plain integers and pointers, for which all zeros is a value.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = aside.as_mut_ptr().cast();
        message.msg_controllen = mem::size_of_val(&aside) as _;
        // SAFETY: all that the message points to lives through the call and has the lengths that it gives.
        let length = unsafe { libc::recvmsg(self.file.as_raw_fd(), &raw mut message, 0) };
        if length < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
        }
        frame.truncate(length as usize);
        if let Some((protocol, tag)) = vlan_aside(&message) {
            frame.splice(12..12, [protocol.to_be_bytes(), tag.to_be_bytes()].concat());
        }
        Ok(Some(frame))
    }
}

/// The VLAN tag that the kernel took out of a frame: its protocol and its control information.
fn vlan_aside(message: &libc::msghdr) -> Option<(u16, u16)> {
    // SAFETY: the kernel filled the message in; CMSG_FIRSTHDR and CMSG_DATA stay within what it gave, and a
    // PACKET_AUXDATA message holds a tpacket_auxdata, which is plain integers.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null() || (*header).cmsg_type != libc::PACKET_AUXDATA {
            return None;
        }
        let aside: libc::tpacket_auxdata =
            libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
        let valid = aside.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
        valid.then_some((aside.tp_vlan_tpid, aside.tp_vlan_tci))
    }
}

/// What a run over many MAC addresses sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Frames that the kernel took.
    pub sent: u64,
    /// Frames that it refused (a full queue).
    pub refused: u64,
    /// How long it took, seconds.
    pub seconds: f64,
}

/// The MAC of station `number` behind `side` (0 or 1): locally administered, unicast.
pub fn station(side: u8, number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [0x02 | (side << 4), a, b, c, d, 0x77]
}

/// Sends 60-byte frames from stations of one side to stations of the other for `seconds`: in order once, so that
/// each is learned, when `learn`; otherwise in random order.
pub fn stations(name: &str, side: u8, count: u32, seconds: f64, learn: bool) -> io::Result<Sent> {
    let mut socket = FrameSocket::open(name)?;
    let (start, mut pattern) = (Instant::now(), Pattern::new(u64::from(count) + u64::from(side)));
    let mut seen = Sent { sent: 0, refused: 0, seconds: 0.0 };
    let mut frame = [0; 60];
    frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes()); // IEEE 802 local experimental EtherType 1
    for turn in 0.. {
        let done = if learn { turn >= count } else { start.elapsed().as_secs_f64() >= seconds };
        if done {
            break;
        }
        let pick = |pattern: &mut Pattern| pattern.below(u64::from(count)) as u32;
        let (from, to) = if learn { (turn, turn) } else { (pick(&mut pattern), pick(&mut pattern)) };
        frame[..6].copy_from_slice(&station(1 - side, to));
        frame[6..12].copy_from_slice(&station(side, from));
        match socket.send(&frame) {
            Ok(()) => seen.sent += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => seen.refused += 1,
            Err(error) => return Err(error),
        }
    }
    seen.seconds = start.elapsed().as_secs_f64();
    Ok(seen)
}

/// Prints `ready`, then sends one frame `count` times.
pub fn send(name: &str, frame: &[u8], count: u64) -> io::Result<()> {
    let mut socket = FrameSocket::open(name)?;
    println!("ready");
    (0..count).try_for_each(|_| socket.send(frame))
}

/// Prints `ready`, then each frame of an EtherType (behind a VLAN tag or not) that arrives on an interface as
/// hexadecimal digits, one a line, until none came for `quiet`.
pub fn watch(name: &str, ethertype: u16, quiet: Duration) -> io::Result<()> {
    let mut socket = FrameSocket::open(name)?;
    socket.limit(quiet)?;
    println!("ready");
    while let Some(frame) = socket.receive()? {
        let at = if frame.get(12..14) == Some(&0x8100_u16.to_be_bytes()) { 16 } else { 12 };
        if frame.get(at..at + 2) == Some(&ethertype.to_be_bytes()) {
            println!("{}", to_hex(&frame));
        }
    }
    Ok(())
}

/// Prints `ready`, then sends on what arrives on one interface out of another, for ever.
pub fn relay(from: &str, to: &str) -> io::Result<()> {
    let (mut from, mut to) = (FrameSocket::open(from)?, FrameSocket::open(to)?);
    println!("ready");
    loop {
        if let Some(frame) = from.receive()? {
            to.send(&frame)?;
        }
    }
}

/// The header of an IPv4 packet of `total` bytes that may not be cut.
pub fn ipv4_header(total: u16, protocol: u8, from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let [high, low] = total.to_be_bytes();
    let fixed = [0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    with_sum([&fixed[..], &from, &to].concat(), 10)
}

/// An even number of bytes, with their checksum (RFC 1071) at `at`, where zeros are.
pub fn with_sum(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal digits as bytes; none when they are not that.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    text.len().is_multiple_of(2).then(|| (0..text.len()).step_by(2).map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_go_both_ways() {
        assert_eq!(from_hex("00ff7a"), Some(vec![0, 255, 0x7a]));
        assert_eq!(to_hex(&[0, 255, 0x7a]), "00ff7a");
        assert_eq!((from_hex("0"), from_hex("zz")), (None, None));
    }

    #[test]
    fn stations_of_two_sides_never_share_a_mac() {
        assert_ne!(station(0, 5), station(1, 5));
        assert!((0..2).all(|side| station(side, 99_999)[0] & 3 == 2));
    }
}
