//! What a device must be asked or told for AF_XDP that netlink is not needed for: its queues, its VLAN offloads,
//! promiscuity; and the way into its network namespace by a descriptor.
//!
//! Called when a port is opened or closed.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// How many rx queues the device has, each of which wants a socket of its own: the larger of its "combined" and "rx"
/// channels (`ETHTOOL_GCHANNELS`), one if it does not say.
pub(super) fn queue_count(device: &str) -> u32 {
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    // `struct ethtool_channels`: command; the most rx, tx, other, combined; the present rx, tx, other, combined.
    let mut channels = [ETHTOOL_GCHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
    match ethtool(device, &mut channels) {
        Ok(()) => channels[5].max(channels[8]).max(1),
        Err(_) => 1,
    }
}

/// The receiving side of the device takes VLAN tags out of frames, into metadata that AF_XDP does not see
/// (`rx-vlan-offload`).
pub(super) const STRIPS_TAGS: u32 = 1 << 8;
/// The sending side of the device puts VLAN tags in, so the kernel gives it frames without (`tx-vlan-offload`).
pub(super) const INSERTS_TAGS: u32 = 1 << 7;

/// Switches one offload of the device; true if that changed it.
///
/// # Errors
/// `EOPNOTSUPP` from a driver in which it is fixed.
pub(super) fn switch_offload(device: &str, flag: u32, on: bool) -> io::Result<bool> {
    const ETHTOOL_GFLAGS: u32 = 0x25;
    const ETHTOOL_SFLAGS: u32 = 0x26;
    let mut flags = [ETHTOOL_GFLAGS, 0];
    ethtool(device, &mut flags)?;
    let wanted = if on { flags[1] | flag } else { flags[1] & !flag };
    if wanted == flags[1] {
        return Ok(false);
    }
    ethtool(device, &mut [ETHTOOL_SFLAGS, wanted])?;
    Ok(true)
}

/// A packet socket that receives nothing and keeps the device promiscuous for as long as it is open.
pub(super) fn promiscuous_socket(ifindex: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; protocol 0 receives nothing.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel just made for us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let membership = libc::packet_mreq {
        mr_ifindex: ifindex as libc::c_int,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    // SAFETY: the value lives through the call and its true size is given.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const membership).cast(),
            size_of::<libc::packet_mreq>() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// One `SIOCETHTOOL` request; `words` begins with its command.
fn ethtool(device: &str, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel just made for us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeros is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the request and the structure that it points to, of the size that the command has, outlive the call.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &mut request) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor of the calling thread's network namespace.
pub(super) fn current_netns() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/proc/thread-self/ns/net")?.into())
}

/// Runs `work` on a thread of its own inside the network namespace `netns`.
pub(super) fn within<T: Send>(netns: &OwnedFd, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: no pointers; changes the namespace of this short-lived thread only.
            if unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(work())
        });
        inside.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}
