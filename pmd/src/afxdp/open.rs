//! Opening an AF_XDP port: sockets on the queues of a device, and our program on it.
//!
//! Privileged (CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, and CAP_IPC_LOCK or a high memory-lock limit). What it gives is
//! descriptors and plain values; driving needs nothing else. Order: memory, rings, fill ring, bind, socket map,
//! program. With the program comes the traffic, so it is last; and who holds the sockets may remove what a killed
//! predecessor left of it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use thiserror::Error;

use super::device::{
    FILLS_SCTP, INSERTS_TAGS, STRIPS_TAGS, current_netns, promiscuous_socket, queue_count, set_queue_count,
    switch_offload,
};
use super::lent::Lent;
use super::program::{Attachment, Company, ProgramError, SocketMap, Unclaimed, XdpMode};
use super::socket::{Bound, Mode, OpenSocket, Queue, RingSizes, Rings, SocketError, allow_bursts};
use super::umem::{CHUNK_SIZE, KERNEL_HEADROOM, of_arena};
use crate::arena::{Arena, FRAME_SIZE, HEADROOM};
use crate::netdev::link::Change;
use crate::netdev::{self, Anchor, Device, Link, Links, Netns};
use crate::veth::OpenVeth;

/// Most descriptors that one system call sends in copy mode.
const KICK_BUDGET: u32 = 256;

/// What a socket map has room for; no device has more queues.
const QUEUES_MAX: u32 = 1024;

/// Slots of rings that are as large as is useful.
const RING_MAX: u32 = 2048;
const RING_MIN: u32 = 64;

/// The part of the arena that all queues of one device may hold for receiving: one in this many frames.
const ARENA_SHARE: u32 = 8;

/// Whose device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A device of the host: what no socket takes is the kernel's, other XDP programs may be there, and a device
    /// with the host's addresses is refused unless it is `exclusive`.
    Host {
        /// The switch may have the host's traffic.
        exclusive: bool,
    },
    /// A device that the host's kernel keeps, with its addresses: we get what is [selected](crate::Port::select),
    /// nothing at first, and change nothing about it.
    Shared,
    /// The host end of a veth pair that we made: nobody else's, and closed to the host's stack: what no socket takes
    /// is dropped.
    Closed,
}

/// What an `afxdp` port shall be.
#[derive(Debug, Clone)]
pub struct AfxdpConfig {
    /// The device's namespace by name or path; `None` is the daemon's own.
    pub netns: Option<String>,
    /// The device.
    pub device: String,
    /// How many of its queues, from the first on; `None` takes all. On one that is not taken a frame goes the way of
    /// all that no socket takes: see [`Purpose`].
    pub queues: Option<u32>,
    /// Zero-copy or copy.
    pub mode: Mode,
    /// Whose it is.
    pub purpose: Purpose,
}

/// Why an AF_XDP port could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The device is missing, in use by the host, in a namespace that is missing, …
    #[error(transparent)]
    Device(#[from] netdev::Error),
    /// A socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The XDP program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The arena has too few free frames to receive into.
    #[error(
        "device {device:?}: the arena has no {frames} free frames for the receive rings of its queues; raise \
         `[limits] frames`"
    )]
    NoFrames {
        /// The device.
        device: String,
        /// Frames needed.
        frames: u32,
    },
    /// The device has fewer queues than are wanted.
    #[error("device {device:?} has {there} rx queues, not {wanted}: write `queues = {there}` or fewer{also}")]
    TooFewQueues {
        /// The device.
        device: String,
        /// Queues that it has, or at most can have.
        there: u32,
        /// `queues` of the configuration.
        wanted: u32,
        /// What else may help.
        also: &'static str,
    },
}

/// One open queue.
pub struct OpenQueue {
    /// The socket.
    pub socket: OwnedFd,
    /// Which queue of which device.
    pub queue: Queue,
    /// The rings' sizes, from which they can be mapped again.
    pub sizes: RingSizes,
    /// What it got.
    pub bound: Bound,
    /// Its memory has room for transmit metadata.
    pub metadata: bool,
    pub(super) rings: Rings,
    /// What lies in the fill ring. After the socket, so that it is dropped after it.
    pub(super) lent: Lent,
}

/// An open device.
pub struct OpenAfxdp {
    /// The device.
    pub device: Device,
    /// Its rx and tx queues, in order.
    pub queues: Vec<OpenQueue>,
    /// The map that the program redirects by.
    pub sockets: SocketMap,
    /// The program on the device.
    pub attachment: Attachment,
    /// The other end is a kernel on this machine, which leaves checksums to us.
    pub local_peer: bool,
    /// The namespace that the device is in.
    pub netns: Arc<OwnedFd>,
    /// What the namespace's name meant when the device was opened.
    pub anchor: Option<Anchor>,
    /// We set the device up; it is set down at the end.
    pub raised: bool,
    /// The device took VLAN tags out of received frames and was told not to; it shall again when we are done.
    pub stripped_tags: bool,
    /// Keeps the device promiscuous: a bridge wants the frames of all stations.
    pub promiscuous: Option<OwnedFd>,
    pub(super) arena: Arena,
}

/// Opens the device that `config` describes, with frames of `arena`.
///
/// # Errors
/// See [`OpenError`]; the device is then as it was.
pub fn open(config: &AfxdpConfig, arena: &Arena) -> Result<OpenAfxdp, OpenError> {
    let netns = Netns::open_or_own(config.netns.as_deref())?;
    netns.run(|| Ok(open_here(config, arena, Links::here(&netns)?)))?
}

fn open_here(config: &AfxdpConfig, arena: &Arena, mut links: Links) -> Result<OpenAfxdp, OpenError> {
    // The host end of a pair that we made is nobody else's, and what is shared may have addresses.
    let exclusive = config.purpose != Purpose::Host { exclusive: false };
    let link = links.claim(&config.device, exclusive)?;
    let raised = !link.up && config.purpose != Purpose::Shared;
    if raised {
        links.change(&link, &[Change::Up(true)])?;
    }
    open_raised(config, arena, &link, raised).inspect_err(|_| {
        if raised {
            // The first error is the one to tell.
            let _ = links.change(&link, &[Change::Up(false)]);
        }
    })
}

fn open_raised(
    config: &AfxdpConfig,
    arena: &Arena,
    link: &Link,
    raised: bool,
) -> Result<OpenAfxdp, OpenError> {
    let (queues, bound) = open_queues(config, arena, link)?;
    let sockets = match config.purpose {
        Purpose::Shared => SocketMap::selective(&link.name, QUEUES_MAX)?,
        Purpose::Host { .. } | Purpose::Closed => SocketMap::new(&link.name, QUEUES_MAX)?,
    };
    for queue in &queues {
        sockets.insert(&link.name, queue.queue.queue, queue.socket.as_fd())?;
    }
    let (unclaimed, company) = match config.purpose {
        Purpose::Host { .. } | Purpose::Shared => (Unclaimed::Pass, Company::Beside),
        Purpose::Closed => (Unclaimed::Drop, Company::Alone),
    };
    let generic = !bound.zero_copy;
    let attachment = Attachment::new(&link.name, link.index, &sockets, unclaimed, company, generic)?;
    let netns = current_netns().map_err(|cause| {
        netdev::Error::call("opening the device's network namespace", "open(/proc/thread-self/ns/net)", cause)
    })?;
    let promiscuous = match config.purpose {
        Purpose::Host { .. } => Some(promiscuous(link)?),
        Purpose::Shared | Purpose::Closed => None,
    };
    // Fixed in some drivers; then tagged frames arrive as the driver gives them.
    let strips = config.purpose != Purpose::Closed && link.kind != "veth";
    let stripped_tags = strips && switch_offload(&link.name, STRIPS_TAGS, false).unwrap_or(false);
    Ok(OpenAfxdp {
        device: Device::new(link, config.netns.as_deref()),
        queues,
        sockets,
        attachment,
        local_peer: link.kind == "veth",
        netns: Arc::new(netns),
        anchor: Anchor::new(config.netns.as_deref())?,
        raised,
        stripped_tags,
        promiscuous,
        arena: arena.clone(),
    })
}

/// Opens the host end of a veth pair that we made: closed to the host's stack, with complete frames from the
/// container's end, on so many queues: as many as the machine has CPUs are possible.
///
/// # Errors
/// As [`open`].
pub fn open_host_end(
    pair: &OpenVeth,
    queues: u32,
    mode: Mode,
    arena: &Arena,
) -> Result<OpenAfxdp, OpenError> {
    complete_far_end(pair.container.netns.as_deref(), &pair.container.name)?;
    // What the container sends on its queue n arrives on the host end's queue n. Never fewer here: the kernel lets no
    // queue go that had a socket a moment ago, and nothing arrives on the others.
    if queue_count(&pair.host.name) < queues {
        give_queues(&pair.host, queues)?;
    }
    give_queues(&pair.container, queues)?;
    let config = AfxdpConfig {
        netns: pair.host.netns.clone(),
        device: pair.host.name.clone(),
        queues: Some(queues),
        mode,
        purpose: Purpose::Closed,
    };
    open(&config, arena)
}

fn give_queues(end: &Device, wanted: u32) -> Result<(), OpenError> {
    let set = || {
        set_queue_count(&end.name, wanted).map_err(|cause| {
            let doing = format!("giving {:?} {wanted} queues", end.name);
            netdev::Error::call(doing, "ioctl(SIOCETHTOOL, SCHANNELS)", cause)
        })
    };
    let there = Netns::open_or_own(end.netns.as_deref())?.run(set)?;
    if there < wanted {
        let device = end.name.clone();
        return Err(OpenError::TooFewQueues { device, there, wanted, also: "" });
    }
    Ok(())
}

/// Has the kernel at the far end of a veth pair write into its frames what else it would leave to metadata that AF_XDP
/// at the near end does not see: VLAN tags, and the CRC of SCTP.
///
/// # Errors
/// The namespace or the device is missing.
pub fn complete_far_end(netns: Option<&str>, device: &str) -> Result<(), netdev::Error> {
    Netns::open_or_own(netns)?.run(|| {
        [INSERTS_TAGS, FILLS_SCTP].into_iter().try_for_each(|offload| {
            match switch_offload(device, offload, false) {
                // A kernel that does not know it does not do it.
                Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                    let doing = format!("switching {offload} of {device:?} off");
                    Err(netdev::Error::call(doing, "ioctl(SIOCETHTOOL)", cause))
                }
                _ => Ok(()),
            }
        })
    })
}

/// Gives a device of the host back as it was: taking VLAN tags out of received frames, down. Best effort: it may be
/// gone.
pub(super) fn give_back(device: &Device, stripped_tags: bool, raised: bool) {
    let restore = || -> Result<(), netdev::Error> {
        let netns = Netns::open_or_own(device.netns.as_deref())?;
        netns.run(|| {
            let mut links = Links::here(&netns)?;
            let Some(link) = links.find_index(device.index)? else { return Ok(()) };
            if stripped_tags {
                let _ = switch_offload(&link.name, STRIPS_TAGS, true);
            }
            if raised { links.change(&link, &[Change::Up(false)]) } else { Ok(()) }
        })
    };
    let _ = restore();
}

/// How many queues to take.
fn count_queues(config: &AfxdpConfig, link: &Link) -> Result<u32, OpenError> {
    let there = queue_count(&link.name);
    match config.queues {
        None => Ok(there),
        Some(wanted) if wanted <= there => Ok(wanted.max(1)),
        Some(wanted) => {
            let also = ", or give it more by `ethtool -L`";
            Err(OpenError::TooFewQueues { device: link.name.clone(), there, wanted, also })
        }
    }
}

/// Opens a socket on each queue that is wanted. The first registers the arena; the others share its UMEM, and with it
/// its mode.
fn open_queues(
    config: &AfxdpConfig,
    arena: &Arena,
    link: &Link,
) -> Result<(Vec<OpenQueue>, Bound), OpenError> {
    let count = count_queues(config, link)?;
    let sizes = ring_sizes(arena, count);
    let needs_multi_buffer = link.mtu > LONGEST_PACKET;
    let mut queues: Vec<OpenQueue> = Vec::with_capacity(count as usize);
    let mut first: Option<Bound> = None;
    for queue in 0..count {
        let queue = Queue { device: link.name.clone(), ifindex: link.index, queue };
        let mut lent = Lent::new(arena); // dropped after the socket
        let mut socket = OpenSocket::new(queue.clone())?;
        if first.is_none() {
            socket.register(&of_arena(arena))?;
        }
        let mut rings = socket.make_rings(sizes)?;
        fill(&queue.device, arena, &mut rings, &mut lent, sizes.fill)?;
        let bound = match (&first, queues.first()) {
            (Some(bound), Some(other)) => socket.bind_shared(other.socket.as_fd(), bound.multi_buffer),
            _ => socket.bind(config.mode, needs_multi_buffer),
        };
        // On an error the socket is closed here, and then the frames come home.
        let bound = bound?;
        lent.set_lost(bound.zero_copy);
        let metadata = queues.first().map_or(socket.has_metadata(), |other| other.metadata);
        allow_bursts(socket.fd(), KICK_BUDGET.min(sizes.tx));
        first.get_or_insert(bound);
        queues.push(OpenQueue { socket: socket.into_fd(), queue, sizes, bound, metadata, rings, lent });
    }
    let bound = first.unwrap_or(Bound { zero_copy: false, multi_buffer: false });
    Ok((queues, bound))
}

// An arena's frame is a chunk, and the room in front of a received frame is what the kernel keeps anyway.
const _: () = assert!(HEADROOM == KERNEL_HEADROOM as usize && FRAME_SIZE == CHUNK_SIZE as usize);

/// Gives the kernel its first free frames.
fn fill(
    device: &str,
    arena: &Arena,
    rings: &mut Rings,
    lent: &mut Lent,
    frames: u32,
) -> Result<(), OpenError> {
    let mut pool = arena.pool();
    for _ in 0..frames {
        let buffer = pool.get().ok_or_else(|| OpenError::NoFrames { device: device.to_owned(), frames })?;
        rings.fill.push(lent.lend(buffer) & !(FRAME_SIZE as u64 - 1));
    }
    rings.fill.submit();
    Ok(())
}

/// The longest packet that lies in one frame of the arena, with an Ethernet header and two tags.
pub(super) const LONGEST_PACKET: u32 = (FRAME_SIZE - HEADROOM - 22) as u32;

/// Rings for `queues` queues that leave most of the arena to others.
fn ring_sizes(arena: &Arena, queues: u32) -> RingSizes {
    let share = (arena.frames() / ARENA_SHARE / queues.max(1)).max(1);
    let fill = (1 << share.ilog2()).clamp(RING_MIN, RING_MAX);
    RingSizes { rx: RING_MAX, tx: RING_MAX, fill, completion: RING_MAX }
}

/// How the port runs, for people.
pub(super) fn mode_text(open: &OpenAfxdp) -> &'static str {
    match (open.queues.first().is_some_and(|queue| queue.bound.zero_copy), open.attachment.mode()) {
        (true, _) => "zero-copy",
        (false, XdpMode::Native) => "copy",
        (false, XdpMode::Generic) => "copy (generic XDP)",
    }
}

fn promiscuous(link: &Link) -> Result<OwnedFd, OpenError> {
    let socket = promiscuous_socket(link.index).map_err(|cause| {
        netdev::Error::call(
            format!("making the device {:?} promiscuous", link.name),
            "setsockopt(PACKET_ADD_MEMBERSHIP)",
            cause,
        )
    })?;
    Ok(socket)
}
