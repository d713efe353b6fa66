#![allow(unsafe_code)]
//! A handle on a network namespace, and the one way into it.
//!
//! A thread lives in one namespace at a time, and sockets, TAPs and `/proc/sys/net` belong to the namespace of
//! the thread that opens them. So work in a foreign namespace runs on a thread of its own that enters, works,
//! and ends: no thread of the daemon is ever left elsewhere, whatever the work does (also when it panics).
//! A descriptor that was opened inside keeps working outside; drivers need no namespace.
//! Called by everything that opens; knows nothing about devices.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use super::Error;

/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";

/// A network namespace: one that was opened by name or path, or the one that the daemon runs in.
#[derive(Debug)]
pub struct Netns {
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    file: File,
    name: String,
}

impl Netns {
    /// The namespace that the daemon itself runs in.
    pub fn own() -> Self {
        Self { place: None }
    }

    /// Opens a namespace by its name in `/run/netns`, or by its path when `name` has a slash in it.
    pub fn open(name: &str) -> Result<Self, Error> {
        let relative = name.contains('/') && !name.starts_with('/');
        if name.is_empty() || name == "." || name == ".." || relative {
            return Err(Error::Invalid {
                what: format!("netns = {name:?}"),
                why: "give a name in /run/netns or an absolute path".into(),
            });
        }
        let path = Self::path(name);
        // Errors call a namespace what `ip netns` calls it.
        let name = path.strip_prefix(NAMES).ok().and_then(Path::to_str).unwrap_or(name);
        let file = File::open(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => Error::NamespaceMissing { name: name.into(), path: path.clone() },
            _ => Error::call(format!("opening the network namespace {name:?}"), "open", cause),
        })?;
        if !is_network_namespace(&file) {
            return Err(Error::NotANamespace { path });
        }
        Ok(Self { place: Some(Place { file, name: name.into() }) })
    }

    /// The file of a namespace that is given by name or by path.
    pub fn path(name: &str) -> PathBuf {
        if name.contains('/') { PathBuf::from(name) } else { PathBuf::from(NAMES).join(name) }
    }

    /// [`Netns::open`] where there is a name, else the daemon's own.
    pub fn open_or_own(name: Option<&str>) -> Result<Self, Error> {
        name.map_or_else(|| Ok(Self::own()), Self::open)
    }

    /// Runs `work` inside the namespace and hands its result out.
    ///
    /// # Errors
    /// `setns` refuses without `CAP_SYS_ADMIN`; else what `work` returns. A panic of `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        let Some(place) = &self.place else { return work() };
        let doing = || format!("entering the network namespace {:?}", place.name);
        thread::scope(|scope| {
            let visit = thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || {
                    // SAFETY: takes an open descriptor and a flag; changes nothing but this thread's namespace.
                    if unsafe { libc::setns(place.file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                        return Err(Error::last(doing(), "setns"));
                    }
                    work()
                })
                .map_err(|cause| Error::call(doing(), "clone", cause))?;
            visit.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The descriptor of the namespace; of the daemon's own one, a new descriptor on it.
    pub(crate) fn descriptor(&self) -> Result<Descriptor<'_>, Error> {
        match &self.place {
            Some(place) => Ok(Descriptor::Borrowed(place.file.as_fd())),
            None => {
                let path = "/proc/thread-self/ns/net";
                let own = File::open(path)
                    .map_err(|cause| Error::call("opening the daemon's network namespace", "open", cause))?;
                Ok(Descriptor::Owned(own.into()))
            }
        }
    }

    /// What tells one namespace from another: device and inode of its file.
    pub fn identity(&self) -> Result<(u64, u64), Error> {
        let doing = "telling the network namespace";
        let data = match &self.place {
            Some(place) => place.file.metadata(),
            None => fs::metadata("/proc/thread-self/ns/net"),
        };
        data.map(|data| (data.dev(), data.ino())).map_err(|cause| Error::call(doing, "stat", cause))
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "namespace {:?}", place.name),
            None => f.write_str("the daemon's own namespace"),
        }
    }
}

/// A namespace's descriptor, for as long as a request needs it.
pub(crate) enum Descriptor<'a> {
    Borrowed(BorrowedFd<'a>),
    Owned(OwnedFd),
}

impl AsRawFd for Descriptor<'_> {
    fn as_raw_fd(&self) -> i32 {
        match self {
            Self::Borrowed(fd) => fd.as_raw_fd(),
            Self::Owned(fd) => fd.as_raw_fd(),
        }
    }
}

/// Asks the kernel what kind of namespace a file is (`NS_GET_NSTYPE`, ioctl_ns(2)); other files refuse.
fn is_network_namespace(file: &File) -> bool {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument, and on any other file the kernel answers ENOTTY or the like.
    unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) == libc::CLONE_NEWNET }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::testing::Sandbox;

    #[test]
    fn a_missing_namespace_says_what_to_do() {
        let text = Netns::open("vs-no-such").unwrap_err().to_string();
        assert!(text.contains("ip netns add vs-no-such"), "{text}");
        let text = Netns::open("/run/netns/vs-no-such").unwrap_err().to_string();
        assert!(text.contains("`ip netns add vs-no-such`"), "{text}");
        let text = Netns::open("/proc/0/ns/net").unwrap_err().to_string();
        assert!(text.contains("/proc/0/ns/net does not exist") && !text.contains("ip netns add"), "{text}");
        let text = Netns::open("/etc/hostname").unwrap_err().to_string();
        assert!(text.contains("/etc/hostname is not a network namespace"), "{text}");
        for bad in ["", "..", "../net", "proc/1/ns/net"] {
            assert!(matches!(Netns::open(bad).unwrap_err(), Error::Invalid { .. }), "{bad:?}");
        }
    }

    #[test]
    fn work_runs_inside_and_the_caller_stays_outside() {
        let sandbox = Sandbox::new(1);
        let before = Netns::own().identity().unwrap();
        let netns = sandbox.netns(0);
        let inside = netns.run(|| Netns::own().identity()).unwrap();
        assert_eq!(inside, netns.identity().unwrap());
        assert_ne!(inside, before);
        assert_eq!(Netns::own().identity().unwrap(), before);
    }

    #[test]
    fn a_panic_inside_reaches_the_caller() {
        let sandbox = Sandbox::new(1);
        let outcome =
            std::panic::catch_unwind(|| sandbox.netns(0).run(|| -> Result<(), Error> { panic!("inside") }));
        assert!(outcome.is_err());
    }
}
