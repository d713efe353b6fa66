//! What can go wrong while a socket is opened, told so that a person can act on it.

use std::io;

use thiserror::Error;

use super::Queue;

/// Why an AF_XDP socket could not be opened.
#[derive(Debug, Error)]
pub enum SocketError {
    /// No right to make or bind AF_XDP sockets.
    #[error(
        "device {device:?}: {call}: {source}: AF_XDP needs CAP_NET_RAW and CAP_NET_ADMIN; run as root or grant them"
    )]
    NoPrivilege {
        /// The device.
        device: String,
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The kernel will not pin the arena.
    #[error(
        "device {device:?}: XDP_UMEM_REG: {source}: pinning {mib} MiB of frame memory exceeds the memory-lock \
         limit; raise it (LimitMEMLOCK=infinity in a unit file, ulimit -l unlimited), grant CAP_IPC_LOCK, or \
         lower `[limits] frames`"
    )]
    MemoryLock {
        /// The device.
        device: String,
        /// Mebibytes that were to be pinned.
        mib: usize,
        /// The error.
        source: io::Error,
    },
    /// Somebody has the queue.
    #[error(
        "device {device:?}: bind queue {queue}: {source}: the queue already has an AF_XDP socket; \
         stop the program that holds it (a second vswitchd?)"
    )]
    QueueBusy {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
        /// The error.
        source: io::Error,
    },
    /// Zero-copy was demanded of a driver that cannot.
    #[error(
        "device {device:?}: bind queue {queue} zero-copy: {source}: its driver has no zero-copy; \
         use mode = \"auto\" or \"copy\""
    )]
    NoZeroCopy {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
        /// The error.
        source: io::Error,
    },
    /// No such device.
    #[error(
        "device {device:?}: bind queue {queue}: {source}: no such device in this namespace; it was removed or moved"
    )]
    NoDevice {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
        /// The error.
        source: io::Error,
    },
    /// No such queue.
    #[error(
        "device {device:?}: bind queue {queue}: {source}: the device has no such queue (see ethtool -l {device})"
    )]
    NoQueue {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
        /// The error.
        source: io::Error,
    },
    /// The kernel has no AF_XDP.
    #[error(
        "device {device:?}: {call}: {source}: this kernel lacks AF_XDP (CONFIG_XDP_SOCKETS) or is older than 5.4"
    )]
    NoKernelSupport {
        /// The device.
        device: String,
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// Anything else, by its call.
    #[error("device {device:?}: {call}: {source}")]
    System {
        /// The device.
        device: String,
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// Turns an errno into the likely cause and the fix.
pub(super) fn explain(queue: &Queue, call: &'static str, source: io::Error) -> SocketError {
    let Queue { device, queue, .. } = queue.clone();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => SocketError::NoPrivilege { device, call, source },
        Some(libc::EAFNOSUPPORT | libc::ENOPROTOOPT) => SocketError::NoKernelSupport { device, call, source },
        Some(libc::EBUSY) => SocketError::QueueBusy { device, queue, source },
        Some(libc::ENODEV | libc::ENXIO) => SocketError::NoDevice { device, queue, source },
        Some(libc::EINVAL) if call.starts_with("bind") => SocketError::NoQueue { device, queue, source },
        _ => SocketError::System { device, call, source },
    }
}
