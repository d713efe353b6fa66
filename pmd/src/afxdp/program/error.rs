//! What can go wrong with the XDP program, told so that a person can act on it.

use std::ffi::c_int;
use std::io;

use thiserror::Error;

/// Why the program could not be attached or detached.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// Another program is there and does not share.
    #[error(
        "device {device:?}: XDP program \"{name}\" (id {id}) is already attached and was left alone; detach it \
         (ip link set dev {device} xdp off), or load it through libxdp's dispatcher with a bpffs at /sys/fs/bpf, \
         which lets programs share a device"
    )]
    Occupied {
        /// The device.
        device: String,
        /// Name of the program there.
        name: String,
        /// Its id, as `bpftool prog` shows it.
        id: u32,
    },
    /// No right to load programs.
    #[error(
        "device {device:?}: {call}: {source}: needs CAP_BPF, CAP_NET_ADMIN (and CAP_SYS_ADMIN before Linux 5.8)"
    )]
    NoPrivilege {
        /// The device.
        device: String,
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The driver refuses XDP at this MTU.
    #[error(
        "device {device:?}: {call}: {source}: the driver takes no XDP program at this MTU (or with these offloads, \
         LRO for one); lower the MTU (ip link set dev {device} mtu 1500)"
    )]
    MtuTooLarge {
        /// The device.
        device: String,
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// No such device.
    #[error("device {device:?}: {call}: {source}: no such device in this namespace; it was removed or moved")]
    NoDevice {
        /// The device.
        device: String,
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// Anything else, by its call.
    #[error("device {device:?}: {call}: {source}")]
    System {
        /// The device.
        device: String,
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// libbpf and libxdp return a negative errno.
pub(super) fn from_rc(rc: c_int) -> io::Error {
    io::Error::from_raw_os_error(rc.saturating_neg())
}

pub(super) fn check(rc: c_int, device: &str, call: &'static str) -> Result<(), ProgramError> {
    if rc < 0 { Err(explain(device, call, from_rc(rc))) } else { Ok(()) }
}

/// Turns an errno into the likely cause and the fix.
pub(super) fn explain(device: &str, call: &'static str, source: io::Error) -> ProgramError {
    let device = device.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => ProgramError::NoPrivilege { device, call, source },
        Some(libc::ENODEV | libc::ENXIO) => ProgramError::NoDevice { device, call, source },
        Some(libc::ERANGE) => ProgramError::MtuTooLarge { device, call, source },
        Some(libc::EBUSY | libc::EEXIST) => {
            ProgramError::Occupied { device, name: "(attached meanwhile)".into(), id: 0 }
        }
        _ => ProgramError::System { device, call, source },
    }
}
