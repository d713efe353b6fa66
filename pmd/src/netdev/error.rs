//! What can go wrong while a kernel device is opened, told so that a person can act on it.
//!
//! Every message names the object (device, namespace), what was tried, the system call that refused, and the
//! fix where one is known. `tap`, `packet`, `veth` and `netdev` share this one enum, because opening a kernel
//! device fails in the same ways whatever drives it afterwards. The port's name is put in front by the caller,
//! who knows it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a kernel device could not be opened, set or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The named namespace has no file.
    #[error("network namespace {name:?} is missing: {} does not exist; {}", path.display(), remedy(name))]
    NamespaceMissing {
        /// As the configuration names it.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
    },

    /// The path exists and is something else.
    #[error("{} is not a network namespace; give the name of one in /run/netns, or /proc/PID/ns/net", path.display())]
    NotANamespace {
        /// The file that was opened.
        path: PathBuf,
    },

    /// The device is not there.
    #[error("device {device:?} does not exist in {netns} (devices there: {present})")]
    DeviceMissing {
        /// The name asked for.
        device: String,
        /// The namespace, in words.
        netns: String,
        /// What is there instead.
        present: String,
    },

    /// A device of this name is there, and we did not make it.
    #[error(
        "device {device:?} in {netns} exists already and is not ours ({what}); remove it, or choose another \
         `ifname` for the port"
    )]
    Foreign {
        /// The name asked for.
        device: String,
        /// The namespace, in words.
        netns: String,
        /// What it is, for example `a veth without the mark "vswitch:web1"`.
        what: String,
    },

    /// Another process drives the device.
    #[error(
        "device {device:?} in {netns} is in use: {holder}; stop the other process (a second vswitchd?) or \
         choose another `ifname`"
    )]
    Busy {
        /// The device.
        device: String,
        /// The namespace, in words.
        netns: String,
        /// Who or what holds it, as far as the kernel tells.
        holder: String,
    },

    /// The device carries the host's own traffic.
    #[error(
        "device {device:?} in {netns} {reason}: as a port all its traffic would belong to the switch and the \
         host would be cut off; use another device, or say `exclusive = true`"
    )]
    HostUses {
        /// The device.
        device: String,
        /// The namespace, in words.
        netns: String,
        /// For example `has the host's addresses 192.0.2.7/24`.
        reason: String,
    },

    /// A setting that no kernel would take.
    #[error("{what}: {why}")]
    Invalid {
        /// The setting, with its value.
        what: String,
        /// Why not, and what would do.
        why: String,
    },

    /// A system call refused.
    #[error("{doing}: {call}: {cause}{detail}{}", fix(call, cause))]
    Call {
        /// What was tried, on which object.
        doing: String,
        /// The system call, and its request where it has one.
        call: &'static str,
        /// What the kernel said.
        cause: io::Error,
        /// The kernel's own words where it has any.
        detail: Detail,
    },
}

/// The text that a kernel adds to an error number (netlink's extended acknowledgement); often empty.
#[derive(Debug, Default, Clone)]
pub struct Detail(pub String);

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

impl Error {
    /// The error of the system call that has just returned -1.
    pub(crate) fn last(doing: impl Into<String>, call: &'static str) -> Self {
        Self::call(doing, call, io::Error::last_os_error())
    }

    /// A refused system call, with its cause at hand.
    pub(crate) fn call(doing: impl Into<String>, call: &'static str, cause: io::Error) -> Self {
        Self::Call { doing: doing.into(), call, cause, detail: Detail::default() }
    }

    /// The number of the kernel's error, where a system call refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { cause, .. } => cause.raw_os_error(),
            _ => None,
        }
    }
}

/// What to do about a namespace that is not there.
fn remedy(name: &str) -> String {
    if name.contains('/') {
        "does its process still run? give the path of a namespace that is there, or a name in /run/netns"
            .into()
    } else {
        format!("create it first (`ip netns add {name}`) or give the path of one, such as /proc/PID/ns/net")
    }
}

/// What to do about an error number, as far as the call tells; starts with `; `, or is empty.
fn fix(call: &str, cause: &io::Error) -> &'static str {
    let tun = call.contains("/dev/net/tun");
    match cause.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if tun => {
            "; vswitchd needs CAP_NET_ADMIN (run as root) and read and write access to /dev/net/tun"
        }
        Some(libc::EPERM | libc::EACCES) if call.contains("setns") => {
            "; entering a namespace needs CAP_SYS_ADMIN (run vswitchd as root)"
        }
        Some(libc::EPERM | libc::EACCES) if call.contains("AF_PACKET") => {
            "; packet sockets need CAP_NET_RAW (run vswitchd as root)"
        }
        // A missing capability is EPERM there.
        Some(libc::EACCES) if call.contains("rtnetlink") => {
            "; is IPv6 disabled there? enable it (sysctl net.ipv6.conf.all.disable_ipv6=0 in that namespace), or \
             leave the port's IPv6 addresses out"
        }
        Some(libc::EPERM | libc::EACCES) => "; this needs CAP_NET_ADMIN (run vswitchd as root)",
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) if tun => {
            "; the kernel's tun driver is missing: `modprobe tun`, and give the container of the daemon \
             the device /dev/net/tun (character device 10:200)"
        }
        Some(libc::EMFILE) => "; too many open files: raise the limit (`ulimit -n`, LimitNOFILE= in systemd)",
        Some(libc::ENFILE) => "; the whole machine is out of open files: raise fs.file-max",
        Some(libc::ENOMEM | libc::ENOBUFS) => "; the kernel is out of memory for it",
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) if call.contains("nfnetlink") => {
            "; the kernel has no nf_tables with the netdev family: `modprobe nf_tables`, or a kernel with \
             CONFIG_NF_TABLES_NETDEV"
        }
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => "; is the gateway inside one of the port's networks?",
        Some(libc::ENODEV | libc::ENXIO) => "; the device has just been removed",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_object_call_cause_and_fix() {
        let cause = io::Error::from_raw_os_error(libc::EPERM);
        let text = Error::call("opening the TAP \"eth0\"", "open(/dev/net/tun)", cause).to_string();
        for part in ["opening the TAP \"eth0\"", "open(/dev/net/tun)", "not permitted", "CAP_NET_ADMIN"] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
        let refused = |number| {
            let cause = io::Error::from_raw_os_error(number);
            Error::call("adding fd00::1/64", "netlink (rtnetlink)", cause).to_string()
        };
        assert!(refused(libc::EPERM).contains("CAP_NET_ADMIN"));
        assert!(refused(libc::EACCES).contains("IPv6") && !refused(libc::EACCES).contains("CAP_NET_ADMIN"));
        let text =
            Error::NamespaceMissing { name: "web1".into(), path: "/run/netns/web1".into() }.to_string();
        assert!(text.contains("ip netns add web1") && text.contains("/run/netns/web1"), "{text}");
    }
}
