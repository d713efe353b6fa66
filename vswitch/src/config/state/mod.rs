//! The state directory: the desired state as it was last, so that a restart comes back to it.
//!
//! `state.toml` is the state, `state.toml.previous` the one before the last change, `lock` keeps a second
//! daemon out. A new state is written beside the old one and synced before it takes its name, so that at
//! any moment, also when the machine loses power, one of the two is whole. Each carries a checksum
//! (`document`): a damaged one is never believed, the other is used then and the log says so.
//!
//! Saving has two halves, so that the running switch and the disk agree: [`Store::prepare`] does all that
//! can fail for want of space or rights; then the switch opens what it needs; [`Store::commit`] only renames;
//! then the switch changes.
//!
//! At start ([`Store::load`]) the file given by `--config` holds if there is no stored state or if the file
//! is not the one that was applied last; otherwise the stored state, with its later edits, comes back.

mod document;

pub use document::{Digest, Origin};

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use control::api::{ApiError, ConfigSource, ErrorCode};
use control::schema::{Config, ConfigError};

use document::Stored;

/// Where the state is kept unless the daemon is told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/vswitch";

const CURRENT: &str = "state.toml";
const PREVIOUS: &str = "state.toml.previous";
const NEW: &str = "state.toml.new";
const LINK: &str = "state.toml.link";
const LOCK: &str = "lock";

/// Why the desired state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A system call failed.
    #[error("{call} {}: {error}{}", path.display(), remedy(error))]
    System {
        /// The call.
        call: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Another daemon has the directory.
    #[error(
        "the state directory {} is in use by another vswitchd (process {process}): stop that one, or give this one \
         a directory of its own with --state-dir", dir.display()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The other's process id, as it says.
        process: String,
    },
    /// Neither the state nor the one before can be believed.
    #[error(
        "{}:{line}: {reason}\n  cause: the stored state is damaged, and there is no good one before it\n  \
         fix: restore the file from a backup; or remove it, then the file given by --config is applied",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage shows.
        line: u32,
        /// How.
        reason: String,
    },
    /// More than can be read back.
    #[error("the desired state has {0} bytes as a document, and at most {max} can be stored", max = Config::MAX_BYTES)]
    TooLarge(usize),
    /// The file given by `--config` cannot be read.
    #[error("cannot read the configuration {}: {error}: check the path given with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The file given by `--config` is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<ConfigError>),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            ": the change is not made, as it would not survive a restart; free some space first"
        }
        ErrorKind::ReadOnlyFilesystem => {
            ": the state must be kept on a file system that can be written; name one with --state-dir"
        }
        ErrorKind::PermissionDenied => {
            ": the daemon must be able to write there; run it as root, or name another directory with --state-dir"
        }
        _ => "",
    }
}

impl From<StateError> for ApiError {
    fn from(error: StateError) -> ApiError {
        match error {
            StateError::Config(errors) => errors.into(),
            StateError::System { call, path, error } => {
                ApiError::new(ErrorCode::System, "the desired state cannot be stored, so nothing was changed")
                    .object(format!("state file {}", path.display()))
                    .cause(format!("{call}: {error}"))
                    .fix(match remedy(&error).trim_start_matches(": ") {
                        "" => "look at the file system that the state directory is on",
                        remedy => remedy,
                    })
            }
            other => ApiError::new(ErrorCode::System, other.to_string()),
        }
    }
}

/// The state directory, locked.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// What `state.toml` holds, if it is good.
    current: Option<Stored>,
    /// Locked as long as it is open.
    _lock: File,
}

/// What the switch starts with.
#[derive(Debug)]
pub struct Start {
    /// The desired state.
    pub config: Config,
    /// Where it comes from.
    pub source: ConfigSource,
    /// What was desired before, when the file takes the place of a stored state.
    pub before: Option<Config>,
    /// To be stored with it.
    pub origin: Origin,
    /// Whether it must be stored, because the directory does not hold it.
    pub unsaved: bool,
    /// What the log should say: damage that was found and survived.
    pub notes: Vec<String>,
}

/// A state that is on the disk and not valid yet. Dropped, it vanishes.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    stored: Option<Stored>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.stored.is_some() {
            // Nobody reads it; the next `prepare` or start removes it too.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Store {
    /// Makes the directory if it is missing, and locks it.
    ///
    /// # Errors
    /// [`StateError::Locked`]; [`StateError::System`] if it cannot be made or written.
    pub fn open(dir: &Path) -> Result<Store, StateError> {
        let system = |call, path: &Path| {
            let path = path.to_owned();
            move |error| StateError::System { call, path, error }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(system("mkdir", dir))?;
        let path = dir.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(&path).map_err(system("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(system("flock", &path)(error)),
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                let read = lock.take(20).read_to_string(&mut process);
                let known = read.is_ok() && process.trim().parse::<u32>().is_ok();
                let process = if known { process.trim().to_owned() } else { "unknown".to_owned() };
                return Err(StateError::Locked { dir: dir.to_owned(), process });
            }
        }
        // The number is for the message above; without it the lock holds as well.
        let _ = lock.set_len(0).and_then(|()| lock.write_all(format!("{}\n", std::process::id()).as_bytes()));
        Ok(Store { dir: dir.to_owned(), current: None, _lock: lock })
    }

    /// Decides what to start with. `file` is the one given by `--config`.
    ///
    /// # Errors
    /// The file is unreadable or wrong; the stored state is damaged and the one before it too.
    pub fn load(&mut self, file: Option<&Path>) -> Result<Start, StateError> {
        let mut notes = Vec::new();
        let stored = self.stored(&mut notes)?;
        let file = match file {
            None => None,
            Some(path) => {
                let bytes = read_bounded(path)
                    .map_err(|error| StateError::Unreadable { path: path.to_owned(), error })?;
                Some((path, Digest::of(&bytes), bytes))
            }
        };
        let mut before = None;
        let (config, source, origin) = match (file, stored) {
            (None, None) => (Config::default(), ConfigSource::Empty, Origin::default()),
            (None, Some(stored)) => (stored.config, ConfigSource::Stored, stored.origin),
            (Some((_, digest, _)), Some(stored)) if stored.origin.knows(&digest) => {
                let origin = Origin { file: Some(digest), ..stored.origin };
                (stored.config, ConfigSource::Stored, origin)
            }
            (Some((path, digest, bytes)), stored) => {
                before = stored.map(|stored| stored.config);
                let name = path.display().to_string();
                let config = Config::parse_bytes(&bytes, &name).map_err(StateError::Config)?;
                (config, ConfigSource::File, Origin::file(digest))
            }
        };
        let unsaved = match &self.current {
            Some(current) => current.config != config || current.origin != origin,
            None => source != ConfigSource::Empty,
        };
        Ok(Start { config, source, before, origin, unsaved, notes })
    }

    /// The last good state. Says in `notes` what was wrong with a newer one.
    fn stored(&mut self, notes: &mut Vec<String>) -> Result<Option<Stored>, StateError> {
        let current = self.dir.join(CURRENT);
        let damage = match read(&current)? {
            Some(Ok(stored)) => {
                self.current = Some(stored.clone());
                return Ok(Some(stored));
            }
            Some(Err(damage)) => Some(damage),
            None => None,
        };
        let previous = self.dir.join(PREVIOUS);
        match (read(&previous)?, damage) {
            (Some(Ok(stored)), damage) => {
                let what = damage.map_or("the file is missing".to_owned(), |damage| damage.to_string());
                let (current, previous) = (current.display(), previous.display());
                notes.push(format!(
                    "{current}: {what}: the state before the last change is used, from {previous}"
                ));
                Ok(Some(stored))
            }
            (None, None) => Ok(None),
            (_, Some(damage)) => {
                Err(StateError::Damaged { path: current, line: damage.line, reason: damage.reason })
            }
            (Some(Err(damage)), None) => {
                Err(StateError::Damaged { path: previous, line: damage.line, reason: damage.reason })
            }
        }
    }

    /// The state before the last change, if there is a good one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn previous(&self) -> Result<Option<Config>, StateError> {
        Ok(read(&self.dir.join(PREVIOUS))?.and_then(Result::ok).map(|stored| stored.config))
    }

    /// Writes a state to the disk, where it is not valid before [`Store::commit`]. One at a time.
    ///
    /// # Errors
    /// [`StateError::System`]: the disk is full, cannot be written; the valid state is what it was.
    pub fn prepare(&self, config: &Config, origin: Origin) -> Result<Pending, StateError> {
        let path = self.dir.join(NEW);
        let system = |call| {
            let path = path.clone();
            move |error| StateError::System { call, path, error }
        };
        let stored = Stored { config: config.clone(), origin };
        let text = stored.encode();
        if text.len() > Config::MAX_BYTES {
            return Err(StateError::TooLarge(text.len()));
        }
        remove(&path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(system("open"))?;
        // From here on it vanishes with the value.
        let pending = Pending { path: path.clone(), stored: Some(stored) };
        file.write_all(text.as_bytes()).map_err(system("write"))?;
        file.sync_all().map_err(system("fsync"))?;
        Ok(pending)
    }

    /// Makes a prepared state the valid one; the one that was becomes the previous one.
    ///
    /// # Errors
    /// [`StateError::System`]; the valid state is what it was.
    pub fn commit(&mut self, mut pending: Pending) -> Result<(), StateError> {
        let current = self.dir.join(CURRENT);
        let Some(stored) = &pending.stored else { return Ok(()) };
        // A state that was damaged or that is the same replaces no good previous one.
        if self.current.as_ref().is_some_and(|current| current.config != stored.config) {
            let (link, previous) = (self.dir.join(LINK), self.dir.join(PREVIOUS));
            remove(&link)?;
            // A second name rather than another, so that `state.toml` is never missing.
            fs::hard_link(&current, &link)
                .or_else(|_| fs::copy(&current, &link).map(|_| ()))
                .map_err(|error| StateError::System { call: "link", path: link.clone(), error })?;
            rename(&link, &previous)?;
        }
        rename(&pending.path, &current)?;
        self.current = pending.stored.take();
        // It is the valid one already, for every restart but that after a power cut.
        if let Err(error) = File::open(&self.dir).and_then(|dir| dir.sync_all()) {
            let dir = self.dir.display();
            eprintln!(
                "vswitchd: fsync {dir}: {error}: the change may be lost if the machine loses power now"
            );
        }
        Ok(())
    }

    /// [`Store::prepare`] and [`Store::commit`] in one.
    ///
    /// # Errors
    /// As theirs.
    pub fn save(&mut self, config: &Config, origin: Origin) -> Result<(), StateError> {
        let pending = self.prepare(config, origin)?;
        self.commit(pending)
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), StateError> {
    fs::rename(from, to).map_err(|error| StateError::System { call: "rename", path: to.to_owned(), error })
}

/// Removes a file that may be missing.
fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StateError::System { call: "unlink", path: path.to_owned(), error })
        }
        _ => Ok(()),
    }
}

/// Reads a state file; None if there is none.
fn read(path: &Path) -> Result<Option<Result<Stored, document::Damage>>, StateError> {
    match read_bounded(path) {
        Ok(bytes) => Ok(Some(Stored::decode(&bytes, &path.display().to_string()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::System { call: "read", path: path.to_owned(), error }),
    }
}

/// Reads a file of no more than a document may have; of a longer one, enough to be refused.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(Config::MAX_BYTES as u64 + 4096).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
