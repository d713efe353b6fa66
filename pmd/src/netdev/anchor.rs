//! Which namespace a name meant when a port was opened, to tell later whether it still does.
//!
//! An open TAP or packet socket keeps a deleted namespace alive, and nothing wakes its owner: only the name tells
//! that the namespace is gone. The anchor also keeps a netlink socket there, so that looking at the device every
//! second costs two system calls and no thread. Held by ports for as long as they hold their device.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Error, Link, Links, Netns};

/// A port's hold on a namespace other than the daemon's own.
pub struct Anchor {
    path: PathBuf,
    identity: (u64, u64),
    links: Mutex<Links>,
}

impl Anchor {
    /// Remembers what `name` means now; `None` for the daemon's own namespace, which stays.
    pub fn new(name: Option<&str>) -> Result<Option<Self>, Error> {
        let Some(name) = name else { return Ok(None) };
        let netns = Netns::open(name)?;
        let links = Mutex::new(Links::open(&netns)?);
        Ok(Some(Self { path: Netns::path(name), identity: netns.identity()?, links }))
    }

    /// Whether the name still means the same namespace.
    pub fn holds(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|data| (data.dev(), data.ino()) == self.identity)
    }

    /// The file of the namespace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device of this index in the namespace, whatever the name means by now.
    pub fn find_index(&self, index: u32) -> Result<Option<Link>, Error> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).find_index(index)
    }
}

impl std::fmt::Debug for Anchor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Anchor")
            .field("path", &self.path)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
