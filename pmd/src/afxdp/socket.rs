//! An AF_XDP socket from `socket` to `bind`: one queue of one network device.
//!
//! Called by `open.rs`, which holds the privileges that `socket`, `XDP_UMEM_REG` and `bind` want. Everything after
//! that (mapping the rings, kicking, reading statistics) needs only the descriptor, so it works on a descriptor
//! that came from another process too. Knows nothing of frames or ports.
//!
//! The order matters: register (or share) the UMEM, set the ring sizes, fill the fill ring, then bind. A driver
//! that finds an empty fill ring at bind time may never look again.
//!
//! Reference: `Documentation/networking/af_xdp.rst` of the kernel.
#![allow(unsafe_code)]

mod error;

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::ring::{Consumer, Descriptor, Producer, RingKind};
use super::umem::Umem;
use error::explain;

pub use error::SocketError;

/// How long a queue may stay taken after its socket was closed.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);

/// Slots of each ring; powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSizes {
    /// Received descriptors.
    pub rx: u32,
    /// Descriptors to send.
    pub tx: u32,
    /// Free chunks lent to the kernel.
    pub fill: u32,
    /// Sent chunks on their way back.
    pub completion: u32,
}

impl Default for RingSizes {
    fn default() -> Self {
        RingSizes { rx: 2048, tx: 2048, fill: 4096, completion: 4096 }
    }
}

/// What the user asked for (`mode` of an `afxdp` port).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Zero-copy if the device's driver can, else copy.
    #[default]
    Auto,
    /// Zero-copy or an error.
    ZeroCopy,
    /// Copy, also where the driver could do better.
    Copy,
}

/// What a bound socket got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The device reads and writes the UMEM itself.
    pub zero_copy: bool,
    /// Frames may span several descriptors.
    pub multi_buffer: bool,
}

/// One queue of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The device's name, for messages.
    pub device: String,
    /// The device's index in the network namespace where the socket was made.
    pub ifindex: u32,
    /// The device's rx and tx queue.
    pub queue: u32,
}

/// Frames that the kernel dropped or refused, since the socket was made (`XDP_STATISTICS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketStatistics {
    /// Received frames dropped for other reasons than a full ring (a frame larger than a chunk, …).
    pub rx_dropped: u64,
    /// Bad addresses in the fill ring.
    pub rx_invalid_descriptors: u64,
    /// Bad descriptors in the tx ring.
    pub tx_invalid_descriptors: u64,
    /// Received frames dropped because the rx ring was full: we were too slow.
    pub rx_ring_full: u64,
    /// Received frames that found no chunk in the fill ring.
    pub rx_fill_ring_empty: u64,
    /// Times that the kernel found nothing in the tx ring.
    pub tx_ring_empty: u64,
}

/// The four rings of a socket.
pub struct Rings {
    /// Received descriptors.
    pub rx: Consumer<Descriptor>,
    /// Descriptors to send.
    pub tx: Producer<Descriptor>,
    /// Free chunks for the kernel.
    pub fill: Producer<u64>,
    /// Sent chunks.
    pub completion: Consumer<u64>,
}

impl Rings {
    /// Maps all four rings of `socket`, at the position that they are in. Works on an adopted descriptor.
    ///
    /// # Errors
    /// Those of [`Producer::new`].
    pub fn map(socket: BorrowedFd<'_>, sizes: RingSizes) -> io::Result<Self> {
        Ok(Rings {
            rx: Consumer::new(socket, RingKind::Rx, sizes.rx)?,
            tx: Producer::new(socket, RingKind::Tx, sizes.tx)?,
            fill: Producer::new(socket, RingKind::Fill, sizes.fill)?,
            completion: Consumer::new(socket, RingKind::Completion, sizes.completion)?,
        })
    }
}

/// A socket that is being opened for `queue`; [`OpenSocket::into_fd`] gives what driving needs.
pub struct OpenSocket {
    fd: OwnedFd,
    queue: Queue,
    metadata: bool,
}

impl OpenSocket {
    /// Makes the socket, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`SocketError::NoPrivilege`], [`SocketError::NoKernelSupport`], [`SocketError::System`].
    pub fn new(queue: Queue) -> Result<Self, SocketError> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(explain(&queue, "socket(AF_XDP)", io::Error::last_os_error()));
        }
        // SAFETY: a descriptor that the kernel just made for us alone.
        Ok(OpenSocket { fd: unsafe { OwnedFd::from_raw_fd(fd) }, queue, metadata: false })
    }

    /// Registers `umem` as this socket's memory; with a place for transmit metadata where the kernel has it.
    ///
    /// # Errors
    /// [`SocketError::MemoryLock`] above the limit of locked memory; else [`SocketError::System`].
    pub fn register(&mut self, umem: &Umem) -> Result<(), SocketError> {
        let with_metadata =
            set_option(self.fd.as_fd(), libc::SOL_XDP, libc::XDP_UMEM_REG, &umem.registration(true));
        self.metadata = with_metadata.is_ok();
        let result = match with_metadata {
            // Kernels before 6.8 do not know the flag.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                set_option(self.fd.as_fd(), libc::SOL_XDP, libc::XDP_UMEM_REG, &umem.registration(false))
            }
            other => other,
        };
        result.map_err(|source| match source.raw_os_error() {
            Some(libc::ENOBUFS | libc::ENOMEM) => SocketError::MemoryLock {
                device: self.queue.device.clone(),
                mib: umem.length() >> 20,
                source,
            },
            _ => explain(&self.queue, "setsockopt(XDP_UMEM_REG)", source),
        })
    }

    /// True when the registered UMEM has a place for transmit metadata.
    pub fn has_metadata(&self) -> bool {
        self.metadata
    }

    /// Makes the four rings and maps them.
    ///
    /// # Errors
    /// [`SocketError::System`]: a size that is no power of two, no memory.
    pub fn make_rings(&self, sizes: RingSizes) -> Result<Rings, SocketError> {
        let options = [
            (libc::XDP_UMEM_FILL_RING, sizes.fill, "setsockopt(XDP_UMEM_FILL_RING)"),
            (libc::XDP_UMEM_COMPLETION_RING, sizes.completion, "setsockopt(XDP_UMEM_COMPLETION_RING)"),
            (libc::XDP_RX_RING, sizes.rx, "setsockopt(XDP_RX_RING)"),
            (libc::XDP_TX_RING, sizes.tx, "setsockopt(XDP_TX_RING)"),
        ];
        for (option, size, call) in options {
            set_option(self.fd.as_fd(), libc::SOL_XDP, option, &size)
                .map_err(|source| explain(&self.queue, call, source))?;
        }
        Rings::map(self.fd.as_fd(), sizes).map_err(|source| explain(&self.queue, "mmap of the rings", source))
    }

    /// Binds to the queue with memory of our own: zero-copy before copy as `mode` allows, multi-buffer frames
    /// before single ones (`needs_multi_buffer`: a frame may exceed a chunk, so single ones will not do).
    ///
    /// # Errors
    /// Those of the last way tried; see [`SocketError`].
    pub fn bind(&self, mode: Mode, needs_multi_buffer: bool) -> Result<Bound, SocketError> {
        let mut ways: Vec<u16> = Vec::with_capacity(4);
        for copying in [libc::XDP_ZEROCOPY, libc::XDP_COPY] {
            if (mode == Mode::ZeroCopy && copying == libc::XDP_COPY)
                || (mode == Mode::Copy && copying == libc::XDP_ZEROCOPY)
            {
                continue;
            }
            ways.push(copying | libc::XDP_USE_SG);
            if !needs_multi_buffer {
                ways.push(copying);
            }
        }
        let mut last = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        for way in ways {
            match self.bind_patiently(way | libc::XDP_USE_NEED_WAKEUP, None) {
                Ok(()) => return self.bound(way & libc::XDP_USE_SG != 0),
                // The queue or the device is not to be had in any way.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENODEV | libc::EPERM)) =>
                {
                    return Err(explain(&self.queue, "bind(AF_XDP)", error));
                }
                Err(error) => last = error,
            }
        }
        if mode == Mode::ZeroCopy && last.raw_os_error() != Some(libc::ENETDOWN) {
            let Queue { device, queue, .. } = self.queue.clone();
            return Err(SocketError::NoZeroCopy { device, queue, source: last });
        }
        Err(explain(&self.queue, "bind(AF_XDP)", last))
    }

    /// Binds to the queue and shares the UMEM of `other`, a bound socket: of another queue or another device. The
    /// copy mode, need-wakeup and multi-buffer settings of `other` hold for this socket too.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind_shared(&self, other: BorrowedFd<'_>, multi_buffer: bool) -> Result<Bound, SocketError> {
        self.bind_patiently(libc::XDP_SHARED_UMEM, Some(other))
            .map_err(|source| explain(&self.queue, "bind(AF_XDP, shared UMEM)", source))?;
        self.bound(multi_buffer)
    }

    /// The kernel frees the queue of a closed socket in the background, after a grace period: a restart may find
    /// it taken by its own predecessor.
    fn bind_patiently(&self, flags: u16, shared: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let give_up = Instant::now() + RELEASE_PATIENCE;
        loop {
            match self.bind_raw(flags, shared) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < give_up => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => return other,
            }
        }
    }

    fn bind_raw(&self, flags: u16, shared: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: self.queue.ifindex,
            sxdp_queue_id: self.queue.queue,
            sxdp_shared_umem_fd: shared.map_or(0, |fd| fd.as_raw_fd() as u32),
        };
        // SAFETY: the address lives through the call and its true size is given.
        let rc = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
            )
        };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn bound(&self, multi_buffer: bool) -> Result<Bound, SocketError> {
        let zero_copy = is_zero_copy(self.fd.as_fd())
            .map_err(|source| explain(&self.queue, "getsockopt(XDP_OPTIONS)", source))?;
        Ok(Bound { zero_copy, multi_buffer })
    }

    /// The descriptor, while opening goes on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The descriptor, which is all that driving needs.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

/// Reads back whether the socket got zero-copy.
///
/// # Errors
/// The error of `getsockopt(XDP_OPTIONS)`.
pub fn is_zero_copy(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let options: libc::xdp_options = get_option(socket, libc::XDP_OPTIONS)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// The kernel's counters of a socket.
///
/// # Errors
/// The error of `getsockopt(XDP_STATISTICS)`.
pub fn statistics(socket: BorrowedFd<'_>) -> io::Result<SocketStatistics> {
    let raw: libc::xdp_statistics = get_option(socket, libc::XDP_STATISTICS)?;
    Ok(SocketStatistics {
        rx_dropped: raw.rx_dropped,
        rx_invalid_descriptors: raw.rx_invalid_descs,
        tx_invalid_descriptors: raw.tx_invalid_descs,
        rx_ring_full: raw.rx_ring_full,
        rx_fill_ring_empty: raw.rx_fill_ring_empty_descs,
        tx_ring_empty: raw.tx_ring_empty_descs,
    })
}

/// Asks the kernel to send what is in the tx ring. In copy mode it takes a few tens of descriptors a call, in the
/// caller's time. The errors that only mean "later" count as success.
///
/// # Errors
/// `ENXIO` (not bound any more: the device is gone), `ENETDOWN` (device down), and whatever else `sendto` gives.
#[inline]
pub fn kick_tx(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer, no address.
    let rc = unsafe {
        libc::sendto(socket.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
    };
    if rc >= 0 { Ok(()) } else { later_is_fine(io::Error::last_os_error()) }
}

/// Asks the driver to look at the fill ring again.
///
/// # Errors
/// As [`kick_tx`].
#[inline]
pub fn kick_rx(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer, no address.
    let rc = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    if rc >= 0 { Ok(()) } else { later_is_fine(io::Error::last_os_error()) }
}

fn later_is_fine(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => Ok(()),
        _ => Err(error),
    }
}

/// Lets a copy-mode socket send many frames at a time: up to `descriptors` in one [`kick_tx`] where the kernel can
/// (Linux 6.17 on; else it stays at 32), and as many on their way as a full tx ring has.
pub fn allow_bursts(socket: BorrowedFd<'_>, descriptors: u32) {
    /// From `linux/if_xdp.h`.
    const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
    // Frames of a full ring, as the kernel counts their memory; without the privilege it stays at the default.
    const SEND_BUFFER: libc::c_int = 16 << 20;
    // Best effort both: without them all works, a little slower.
    let _ = set_option(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &descriptors);
    let _ = set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER);
}

/// True when the kernel has reported an error on the socket: its device was unregistered.
pub fn has_error(socket: BorrowedFd<'_>) -> bool {
    let mut error: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `error`.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &mut length,
        )
    };
    rc != 0 || error != 0
}

/// Waits until the kernel is done with a queue whose socket was closed: until it could be bound again, or its
/// device is gone. False if that takes longer than five seconds; an emulated device may need most of one.
pub(super) fn wait_for_release(queue: &Queue) -> bool {
    let give_up = Instant::now() + Duration::from_secs(5);
    loop {
        match probe(queue) {
            Err(SocketError::QueueBusy { .. }) if Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(()) | Err(SocketError::NoDevice { .. }) => return true,
            Err(_) => return false,
        }
    }
}

/// Binds the queue for a moment, with a page of memory, to see whether it is free.
fn probe(queue: &Queue) -> Result<(), SocketError> {
    let page = super::umem::ProbePage::new().map_err(|source| explain(queue, "mmap of a page", source))?;
    let mut socket = OpenSocket::new(queue.clone())?;
    socket.register(&page.umem())?;
    let _rings = socket.make_rings(RingSizes { rx: 2, tx: 2, fill: 2, completion: 2 })?;
    let result = socket.bind_raw(libc::XDP_COPY, None);
    drop(socket);
    result.map_err(|source| explain(queue, "bind(AF_XDP)", source))
}

fn set_option<T>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the value lives through the call and its true size is given.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get_option<T: Plain>(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<T> {
    // SAFETY: `Plain` types are structures of integers, for which zero is a value.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `value`.
    let rc = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, (&raw mut value).cast(), &mut length)
    };
    if rc == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Structures of integers that the kernel fills in.
trait Plain {}
impl Plain for libc::xdp_options {}
impl Plain for libc::xdp_statistics {}
