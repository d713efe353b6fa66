//! The socket's place on the file system: taken from a dead daemon, never from a living one.
//!
//! A lock beside the socket (`control.sock.lock`) keeps two daemons that start at once apart. With it held,
//! a socket that refuses connections is a dead daemon's. The new one is made under another name, given its
//! mode, and renamed over the old: nobody ever finds it with a wrong mode or finds none. A symbolic link,
//! or anything that is no socket, is left alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The owner and the socket's group may connect.
const MODE: u32 = 0o660;

/// Why the socket's place cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A daemon answers there.
    #[error(
        "another vswitchd listens at {}: stop that one, or name another socket with --socket", .0.display()
    )]
    InUse(PathBuf),
    /// Something else is there.
    #[error(
        "{} is {what}, and not a socket: remove it, or name another path with --socket", path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A system call failed.
    #[error("{call} {}: {error}: check the directory of the path given with --socket", path.display())]
    System {
        /// The call.
        call: &'static str,
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// A socket that clients can connect to; nobody answers yet.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    place: Place,
}

/// Where the socket is.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Device and inode, to know our socket from another.
    identity: (u64, u64),
    group: u32,
    /// Locked as long as it is open.
    _lock: File,
}

impl Listener {
    /// Takes the place at `path`, making its directory if it is missing.
    ///
    /// # Errors
    /// A living daemon, or something that is no socket, is there; the kernel refuses.
    pub fn bind(path: &Path) -> Result<Listener, SocketError> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
            made.map_err(system("mkdir", dir))?;
        }
        let lock = lock(path)?;
        check_free(path)?;
        let new = with_suffix(path, ".new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(system("unlink", &new)(error));
            }
            _ => {}
        }
        let socket = UnixListener::bind(&new).map_err(system("bind", &new))?;
        let placed = fs::set_permissions(&new, Permissions::from_mode(MODE))
            .map_err(system("chmod", &new))
            .and_then(|()| fs::symlink_metadata(&new).map_err(system("stat", &new)))
            .and_then(|metadata| fs::rename(&new, path).map(|()| metadata).map_err(system("rename", path)));
        let metadata = placed.inspect_err(|_| drop(fs::remove_file(&new)))?;
        let (identity, group) = ((metadata.dev(), metadata.ino()), metadata.gid());
        Ok(Listener { socket, place: Place { path: path.to_owned(), identity, group, _lock: lock } })
    }

    pub(super) fn into_parts(self) -> (UnixListener, Place) {
        (self.socket, self.place)
    }
}

impl Place {
    /// The group whose members may connect: the socket's, which may be changed while we run.
    pub(super) fn group(&self) -> u32 {
        self.metadata().map_or(self.group, |metadata| metadata.gid())
    }

    /// Removes the socket, if it is still ours.
    pub(super) fn vacate(&self) {
        if self.metadata().is_some() {
            // One that stays is found dead by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }

    fn metadata(&self) -> Option<fs::Metadata> {
        let metadata = fs::symlink_metadata(&self.path).ok()?;
        ((metadata.dev(), metadata.ino()) == self.identity).then_some(metadata)
    }
}

/// Nobody began to answer, so nobody else will give the place back.
impl Drop for Place {
    fn drop(&mut self) {
        self.vacate();
    }
}

fn system(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |error| SocketError::System { call, path, error }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn lock(path: &Path) -> Result<File, SocketError> {
    let lock = with_suffix(path, ".lock");
    let mut options = OpenOptions::new();
    // O_NOFOLLOW: a link would have us make a file wherever it leads.
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(&lock).map_err(system("open", &lock))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SocketError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(system("flock", &lock)(error)),
    }
}

/// Refuses if something is at `path` that is not a dead daemon's socket.
fn check_free(path: &Path) -> Result<(), SocketError> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(system("stat", path))?,
    };
    let kind = metadata.file_type();
    if !kind.is_socket() {
        let what = match () {
            () if kind.is_symlink() => "a symbolic link",
            () if kind.is_dir() => "a directory",
            () if kind.is_file() => "a file",
            () => "a device or a pipe",
        };
        return Err(SocketError::NotASocket { path: path.to_owned(), what });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(system("connect", path)(error)),
    }
}
