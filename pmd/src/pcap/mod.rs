//! `pcap`: replays one capture file into the switch, records what the port is sent into another.
//!
//! Replay reads pcap and pcapng. The file is copied into memory of our own, and every record is checked,
//! when the port is opened: a capture that somebody cuts or rewrites later can neither stop a worker nor
//! change a frame on its way. A frame is replayed as captured, also one that the capture cut short; there
//! is no pause between frames, the worker takes as many in a turn as it takes from any port.
//!
//! Record writes nanosecond pcap. The tx queue copies frames into a bounded buffer, in the shape of the
//! file, and a thread of its own carries that to the disk: a slow disk costs frames of this port (counted as
//! full) and never a worker's time. The port asks for no offloads, so a recording shows frames as they are
//! on a wire: trains cut, checksums complete.

mod file;
mod open;
mod recorder;
mod rx;
mod tx;

pub use file::{LARGEST, Replay};
pub use open::{PcapPort, Settings, open};

use std::io;
use std::path::PathBuf;

/// Why a `pcap` port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// A system call failed on a file.
    #[error("`{key}` names {}: {call}: {error}{}", path.display(), fix(key, error))]
    System {
        /// The key of the configuration.
        key: &'static str,
        /// The call.
        call: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The name leads to something that is not a file.
    #[error("{} is not a regular file: name a file in `{key}`", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// The key of the configuration.
        key: &'static str,
    },
    /// The file is too large to be held in memory.
    #[error("{} has {bytes} bytes, and at most {LARGEST} can be replayed: cut it with `editcap -c`", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file does not begin as a capture does.
    #[error("{}: {reason}: a pcap or pcapng file is expected", path.display())]
    NotACapture {
        /// The file.
        path: PathBuf,
        /// What is wrong with its beginning.
        reason: String,
    },
    /// A record is damaged, or the file ends within it.
    #[error("{}: record {record}, at byte {offset}: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The record's number, from 1; in a pcapng file blocks are counted, as not every one has a frame.
        record: u64,
        /// Where it begins in the file.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Both keys name one file, which opening it for recording would empty.
    #[error("`read` and `write` name the same file {}: recording would erase what is to be replayed", path.display())]
    SameFile {
        /// The file.
        path: PathBuf,
    },
}

/// What to do about a file that the kernel refuses.
fn fix(key: &str, error: &io::Error) -> &'static str {
    match (error.kind(), key) {
        (io::ErrorKind::NotFound, "read") => {
            "; name a capture file that exists, seen from vswitchd's own directory"
        }
        (io::ErrorKind::NotFound, _) => "; make the folder first, or name a file in one that exists",
        (io::ErrorKind::PermissionDenied, _) => {
            "; vswitchd must be allowed to open it (run as root, or chown it)"
        }
        (io::ErrorKind::IsADirectory, _) => "; name a file in it",
        (io::ErrorKind::StorageFull | io::ErrorKind::ReadOnlyFilesystem, _) => {
            "; name a file on another disk"
        }
        _ => "",
    }
}
