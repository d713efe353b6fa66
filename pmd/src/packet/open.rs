#![allow(unsafe_code)]
//! Opening a device with packet sockets.
//!
//! Order matters. The device is closed to the kernel's stack first; a socket is made without a protocol, so that
//! it hears nothing of other devices; it is set, given its ring, and drops everything by a filter; it is bound, and joins its
//! fan-out group; when all have joined, the filters go. So no frame is seen twice, and none of another device.
//! Privileged (CAP_NET_RAW, CAP_NET_ADMIN); knows nothing about frames. See packet(7).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::ring::{self, Ring};
use crate::netdev::link::Change;
use crate::netdev::{Anchor, Device, Error, Link, Links, Netns, ingress};
use crate::offload::Features;

/// Bytes of frames, as the kernel counts their memory, that a socket holds for us: some 200 of 64 KB.
const RECEIVE_BUFFER: libc::c_int = 16 << 20;
/// Bytes that the kernel may have on their way out.
const SEND_BUFFER: libc::c_int = 16 << 20;
/// `PACKET_FANOUT_FLAG_IGNORE_OUTGOING` of linux/if_packet.h: what the host itself sends is not received.
const FANOUT_IGNORE_OUTGOING: u32 = 0x4000;
/// The most sockets of one device; more than any machine has cores.
const QUEUES_MAX: u16 = 256;

/// What a `packet` port shall be.
#[derive(Debug, Clone)]
pub struct PacketConfig {
    /// The device's name.
    pub device: String,
    /// Its namespace by name or path; `None` is the daemon's own.
    pub netns: Option<String>,
    /// Queues, at least 1.
    pub queues: u16,
    /// Take the device even if it carries the host's own traffic.
    pub exclusive: bool,
}

/// An open device: descriptors and plain values, from which any process can drive it.
#[derive(Debug)]
pub struct OpenPacket {
    /// The device.
    pub device: Device,
    /// One a queue, at least one.
    pub queues: Vec<OpenQueue>,
    /// What it takes.
    pub features: Features,
    /// Its namespace, where that is not the daemon's own.
    pub anchor: Option<Anchor>,
    /// We closed the device to the kernel's stack; it is reopened at the end.
    pub closed: bool,
    /// We set the device up; it is set down at the end.
    pub raised: bool,
}

/// One queue of a device, for both directions.
#[derive(Debug)]
pub struct OpenQueue {
    /// A bound, non-blocking socket with an rx ring.
    pub socket: OwnedFd,
    /// Its ring, mapped.
    pub(super) ring: Ring,
}

/// Opens a device of the host: refuses one that the host uses, closes it to the kernel's stack, sets it up.
///
/// # Errors
/// [`Error::DeviceMissing`], [`Error::HostUses`], [`Error::Invalid`] for what is no Ethernet device; what the kernel refuses.
pub fn open(config: &PacketConfig) -> Result<OpenPacket, Error> {
    let netns = Netns::open_or_own(config.netns.as_deref())?;
    let mut links = Links::open(&netns)?;
    let link = links.claim(&config.device, config.exclusive)?;
    ingress::close(&netns, &[&link.name])?;
    let opened = open_raised(&mut links, &netns, &link, config);
    if opened.is_err() {
        // The first error is the one to tell.
        let _ = ingress::reopen(&netns, &link.name);
    }
    opened
}

/// Gives a device back to the kernel's stack that a switch held when it was killed. A device that was not held, or
/// is gone with its namespace, is fine.
pub fn release(netns: Option<&str>, device: &str) -> Result<(), Error> {
    match Netns::open_or_own(netns) {
        Err(Error::NamespaceMissing { .. }) => Ok(()),
        netns => ingress::reopen(&netns?, device),
    }
}

/// Opens packet sockets on a device that the caller has made, closed and set up: a veth's host end.
pub fn open_device(netns: &Netns, device: Device, queues: u16) -> Result<OpenPacket, Error> {
    if !(1..=QUEUES_MAX).contains(&queues) {
        let why = format!("a device has 1 to {QUEUES_MAX} sockets");
        return Err(Error::Invalid { what: format!("queues = {queues}"), why });
    }
    let sockets = netns.run(|| {
        let mut group = None;
        let sockets =
            (0..queues).map(|_| open_socket(&device, queues, &mut group)).collect::<Result<Vec<_>, _>>()?;
        sockets.iter().try_for_each(|socket| listen(socket, &device))?;
        Ok(sockets)
    })?;
    let queues = sockets.into_iter().map(|socket| map(socket, &device)).collect::<Result<_, _>>()?;
    let anchor = Anchor::new(device.netns.as_deref())?;
    Ok(OpenPacket { device, queues, features: features(), anchor, closed: false, raised: false })
}

/// Sets the device up before it is opened: a socket that is bound to one that is down cannot join a group on older
/// kernels, and says to the first who asks that it was down.
fn open_raised(
    links: &mut Links,
    netns: &Netns,
    link: &Link,
    config: &PacketConfig,
) -> Result<OpenPacket, Error> {
    if !link.up {
        links.change(link, &[Change::Up(true)])?;
    }
    match open_device(netns, Device::new(link, config.netns.as_deref()), config.queues) {
        Ok(opened) => Ok(OpenPacket { closed: true, raised: !link.up, ..opened }),
        Err(error) => {
            if !link.up {
                // The first error is the one to tell.
                let _ = links.change(link, &[Change::Up(false)]);
            }
            Err(error)
        }
    }
}

/// What a packet socket takes: UDP segmentation came with Linux 6.2, and nothing but its number tells.
fn features() -> Features {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if has_udp_segmentation(&release) { Features::VIRTIO } else { Features::VIRTIO.without(Features::USO) }
}

fn has_udp_segmentation(release: &str) -> bool {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0u32));
    (numbers.next(), numbers.next()) >= (Some(6), Some(2))
}

/// Makes one socket that is set, bound and in its group, and still drops everything.
fn open_socket(device: &Device, queues: u16, group: &mut Option<u16>) -> Result<OwnedFd, Error> {
    let doing = || doing(device);
    // SAFETY: plain numbers; the new descriptor is nobody else's.
    let socket = unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        match libc::socket(libc::AF_PACKET, kind, 0) {
            -1 => return Err(Error::last(doing(), "socket(AF_PACKET)")),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    let one: libc::c_int = 1;
    // Not PACKET_QDISC_BYPASS: on that way the kernel drops every train that the device cannot cut itself.
    for (option, name) in [
        (libc::PACKET_VNET_HDR, "setsockopt(AF_PACKET, PACKET_VNET_HDR)"),
        (libc::PACKET_IGNORE_OUTGOING, "setsockopt(AF_PACKET, PACKET_IGNORE_OUTGOING)"),
    ] {
        set(&socket, libc::SOL_PACKET, option, &one).map_err(|cause| Error::call(doing(), name, cause))?;
    }
    let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
    set(&socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version)
        .and_then(|()| set(&socket, libc::SOL_PACKET, libc::PACKET_COPY_THRESH, &one))
        .and_then(|()| set(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &ring::request()))
        .map_err(|cause| Error::call(doing(), "setsockopt(AF_PACKET, PACKET_RX_RING)", cause))?;
    enlarge(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER);
    enlarge(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER);
    drop_all(&socket).map_err(|cause| Error::call(doing(), "setsockopt(SO_ATTACH_FILTER)", cause))?;
    bind(&socket, device)?;
    promiscuous(&socket, device)?;
    if queues > 1 {
        join(&socket, device, group)?;
    }
    Ok(socket)
}

fn map(socket: OwnedFd, device: &Device) -> Result<OpenQueue, Error> {
    let ring =
        Ring::map(&socket).map_err(|cause| Error::call(doing(device), "mmap(PACKET_RX_RING)", cause))?;
    Ok(OpenQueue { socket, ring })
}

fn doing(device: &Device) -> String {
    format!("opening a packet socket on device {:?}", device.name)
}

fn bind(socket: &OwnedFd, device: &Device) -> Result<(), Error> {
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = device.index as i32;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is valid for its length and outlives the call.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(()),
        _ => Err(Error::last(doing(device), "bind(AF_PACKET)")),
    }
}

/// Asks for frames to all addresses; the kernel takes the wish back when the socket closes.
fn promiscuous(socket: &OwnedFd, device: &Device) -> Result<(), Error> {
    let wish = libc::packet_mreq {
        mr_ifindex: device.index as i32,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &wish)
        .map_err(|cause| Error::call(doing(device), "setsockopt(AF_PACKET, PACKET_ADD_MEMBERSHIP)", cause))
}

/// Joins the fan-out group: the first socket has the kernel choose a free number for it.
fn join(socket: &OwnedFd, device: &Device, group: &mut Option<u16>) -> Result<(), Error> {
    let failed = |cause| Error::call(doing(device), "setsockopt(AF_PACKET, PACKET_FANOUT)", cause);
    // The group has a hook of its own, which asks the sockets nothing.
    let kind = libc::PACKET_FANOUT_HASH | FANOUT_IGNORE_OUTGOING;
    let flags = kind | if group.is_none() { libc::PACKET_FANOUT_FLAG_UNIQUEID } else { 0 };
    let wish = u32::from(group.unwrap_or(0)) | flags << 16;
    set(socket, libc::SOL_PACKET, libc::PACKET_FANOUT, &wish).map_err(failed)?;
    if group.is_none() {
        let mut chosen = 0u32;
        let mut length = size_of::<u32>() as libc::socklen_t;
        // SAFETY: writes at most `length` bytes to `chosen`.
        let outcome = unsafe {
            let value = (&raw mut chosen).cast();
            libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT, value, &mut length)
        };
        if outcome != 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        *group = Some(chosen as u16);
    }
    Ok(())
}

/// A filter that keeps nothing: `ret 0`.
fn drop_all(socket: &OwnedFd) -> io::Result<()> {
    let mut nothing = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &mut nothing };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Takes the filter away; frames arrive from now on.
fn listen(socket: &OwnedFd, device: &Device) -> Result<(), Error> {
    let none: libc::c_int = 0;
    set(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &none)
        .map_err(|cause| Error::call(doing(device), "setsockopt(SO_DETACH_FILTER)", cause))
}

/// Enlarges a buffer: past the system's limit where we may, else up to it. A small one works, and loses more.
fn enlarge(socket: &OwnedFd, force: libc::c_int, polite: libc::c_int, bytes: libc::c_int) {
    if set(socket, libc::SOL_SOCKET, force, &bytes).is_err() {
        let _ = set(socket, libc::SOL_SOCKET, polite, &bytes);
    }
}

fn set<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let value: *const T = value;
    // SAFETY: reads `length` bytes at `value`, which is a whole `T` and outlives the call.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_number_tells_of_udp_segmentation() {
        let releases = ["6.1.0-18-amd64", "5.15.0", "", "6.2.0", "6.18.44-fc", "7.0-rc1"];
        assert_eq!(releases.map(has_udp_segmentation), [false, false, false, true, true, true]);
    }
}
