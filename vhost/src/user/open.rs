//! Opening a vhost-user port: its socket, where we are the one who listens.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Who connects to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// We listen; the other end connects.
    Server,
    /// The other end listens; we connect, again and again.
    Client,
}

/// What a port is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The socket's file.
    pub socket: PathBuf,
    /// Who connects to whom.
    pub mode: Mode,
    /// The guest's address, as the configuration has it.
    pub mac: [u8; 6],
    /// The largest network packet.
    pub mtu: u32,
    /// Most queue pairs that are offered, up to [`PAIRS`](super::PAIRS).
    pub queues: u16,
    /// Workers that send to it: as many tx queues.
    pub workers: usize,
    /// Partial checksums and trains are offered.
    pub offloads: bool,
    /// Packed rings are offered.
    pub packed: bool,
    /// Where packed rings note how far they are, for front ends that keep no such notes: the path of files, as far as
    /// the ring's number. In memory (tmpfs).
    pub pages: Option<PathBuf>,
    /// Permissions of a server's socket.
    pub socket_mode: u32,
    /// The group that a server's socket is given to, by name or number.
    pub socket_group: Option<String>,
}

impl Settings {
    /// A port at `socket` with everything else as it is by default.
    pub fn new(socket: impl Into<PathBuf>, mode: Mode) -> Settings {
        Settings {
            socket: socket.into(),
            mode,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            queues: 1,
            workers: 1,
            offloads: true,
            packed: true,
            pages: None,
            socket_mode: 0o660,
            socket_group: None,
        }
    }
}

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The socket's name is taken.
    #[error("socket {path:?}: {what}: remove it, or name another `socket`")]
    Taken {
        /// The socket.
        path: PathBuf,
        /// By what.
        what: &'static str,
    },
    /// The group that the socket is to belong to is unknown.
    #[error("`socket_group`: there is no group \"{0}\"; name one of /etc/group, or give its number")]
    Group(String),
    /// A system call failed.
    #[error("{call} {path:?}: {error}; the folder must exist, and the switch be allowed to write there")]
    System {
        /// The call.
        call: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// No descriptor or thread could be had.
    #[error("{0}; raise the limit on open files or threads (ulimit -n, ulimit -u)")]
    Resources(io::Error),
}

/// A socket that listens, and its file while it is ours.
pub(super) struct Listening {
    pub(super) socket: UnixListener,
    path: PathBuf,
    inode: Option<u64>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Somebody may have put another file in its place.
        if self.inode.is_some() && inode(&self.path) == self.inode {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}

/// What a port is built from: open descriptors and plain values.
pub struct OpenVhostUser {
    pub(super) settings: Settings,
    pub(super) listening: Option<Listening>,
}

/// Opens the socket of a server; a client has nothing to open.
///
/// # Errors
/// The name is taken, or the socket cannot be made.
pub fn open(settings: Settings) -> Result<OpenVhostUser, OpenError> {
    let listening = match settings.mode {
        Mode::Server => Some(listen(&settings)?),
        Mode::Client => None,
    };
    Ok(OpenVhostUser { settings, listening })
}

/// Connects without ever waiting: who does not accept has us try again.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// The number of a group.
fn group(name: &str) -> Result<u32, OpenError> {
    let unknown = || OpenError::Group(name.into());
    match name.parse() {
        Ok(number) => Ok(number),
        Err(_) => {
            let group = nix::unistd::Group::from_name(name).ok().flatten();
            group.map(|group| group.gid.as_raw()).ok_or_else(unknown)
        }
    }
}

fn listen(settings: &Settings) -> Result<Listening, OpenError> {
    let path = settings.socket.as_path();
    let group = settings.socket_group.as_deref().map(group).transpose()?;
    let system = |call| move |error| OpenError::System { call, path: path.into(), error };
    let taken = |what| OpenError::Taken { path: path.into(), what };
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(taken("there is a file of that name, and it is no socket"));
        }
        // Nobody listens, or somebody whose queue is full.
        if !connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return Err(taken("another process listens there"));
        }
        // Left behind by a switch that was killed.
        std::fs::remove_file(path).map_err(system("unlink"))?;
    }
    let socket = UnixListener::bind(path).map_err(system("bind"))?;
    let listening = Listening { socket, path: path.into(), inode: inode(path) };
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group).map_err(system("chown"))?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(settings.socket_mode)).map_err(system("chmod"))?;
    listening.socket.set_nonblocking(true).map_err(OpenError::Resources)?;
    Ok(listening)
}
