//! What a device must be asked or told for AF_XDP that netlink is not needed for: its queues, its VLAN offloads,
//! promiscuity; and the way into its network namespace by a descriptor.
//!
//! Called when a port is opened or closed.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Asks for a `struct ethtool_channels`: command; the most rx, tx, other, combined; the present rx, tx, other,
/// combined.
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// How many rx queues the device has, each of which wants a socket of its own: the larger of its "combined" and "rx"
/// channels (`ETHTOOL_GCHANNELS`), one if it does not say.
pub(super) fn queue_count(device: &str) -> u32 {
    let mut channels = [ETHTOOL_GCHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
    match ethtool(device, &mut channels) {
        Ok(()) => channels[5].max(channels[8]).max(1),
        Err(_) => 1,
    }
}

/// Gives an end of a veth pair `count` rx and tx queues; says how many it can have, and does nothing if those are
/// fewer.
pub(super) fn set_queue_count(device: &str, count: u32) -> io::Result<u32> {
    const ETHTOOL_SCHANNELS: u32 = 0x3d;
    let mut channels = [ETHTOOL_GCHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
    ethtool(device, &mut channels)?;
    let most = channels[1].min(channels[2]);
    if count <= most && [channels[5], channels[6]] != [count; 2] {
        (channels[0], channels[5], channels[6]) = (ETHTOOL_SCHANNELS, count, count);
        ethtool(device, &mut channels)?;
    }
    Ok(most)
}

/// The receiving side of the device takes VLAN tags out of frames, into metadata that AF_XDP does not see.
pub(super) const STRIPS_TAGS: &str = "rx-vlan-hw-parse";
/// The sending side of the device puts VLAN tags in, so the kernel gives it frames without.
pub(super) const INSERTS_TAGS: &str = "tx-vlan-hw-insert";
/// The sending side of the device fills in the CRC of SCTP (RFC 9260), so the kernel gives it frames without.
pub(super) const FILLS_SCTP: &str = "tx-checksum-sctp";

/// Switches one offload of the device, by the kernel's name for it; true if that changed it.
///
/// # Errors
/// `ENOENT` from a kernel that does not know the name, `EOPNOTSUPP` from a driver in which it is fixed.
pub(super) fn switch_offload(device: &str, feature: &str, on: bool) -> io::Result<bool> {
    const ETHTOOL_GFEATURES: u32 = 0x3a;
    const ETHTOOL_SFEATURES: u32 = 0x3b;
    let names = feature_names(device)?;
    let bit = names.iter().position(|name| name == feature).ok_or(io::ErrorKind::NotFound)?;
    let (block, mask) = (bit / 32, 1 << (bit % 32));
    let blocks = names.len().div_ceil(32);
    // `struct ethtool_gfeatures`: command, blocks; of each the available, requested, active, never changed bits.
    let mut now = vec![0; 2 + 4 * blocks];
    (now[0], now[1]) = (ETHTOOL_GFEATURES, blocks as u32);
    ethtool(device, &mut now)?;
    let [available, active] = [now[2 + 4 * block], now[4 + 4 * block]];
    if (active & mask != 0) == on {
        return Ok(false);
    }
    if available & mask == 0 {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    // `struct ethtool_sfeatures`: command, blocks; of each the bits to change and their values.
    let mut change = vec![0; 2 + 2 * blocks];
    (change[0], change[1]) = (ETHTOOL_SFEATURES, blocks as u32);
    change[2 + 2 * block] = mask;
    change[3 + 2 * block] = if on { mask } else { 0 };
    ethtool(device, &mut change)?;
    Ok(true)
}

/// The kernel's names of all offloads, by bit.
fn feature_names(device: &str) -> io::Result<Vec<String>> {
    const ETHTOOL_GSSET_INFO: u32 = 0x37;
    const ETHTOOL_GSTRINGS: u32 = 0x1b;
    const FEATURES: u32 = 4;
    const NAME: usize = 32;
    // `struct ethtool_sset_info`: command, reserved, a mask of 64 bits; then the length of the set.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << FEATURES, 0, 0];
    ethtool(device, &mut info)?;
    let count = info[4].min(1024) as usize;
    // `struct ethtool_gstrings`: command, set, length; then names of 32 bytes.
    let mut names = vec![0; 3 + count * NAME / 4];
    names[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, FEATURES, count as u32]);
    ethtool(device, &mut names)?;
    let bytes: Vec<u8> = names[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let text = |name: &[u8]| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
    Ok(bytes.chunks(NAME).map(text).collect())
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
    if rc >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
