//! Methods on the switch as a whole: how it is, and what it should be.

use serde::{Deserialize, Serialize};

/// `status`: how the switch is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetStatus {}

/// The result of `status`.
///
/// The last six are the terms of conservation, summed over the switch since its start:
/// `received + made = sent + dropped + consumed + held`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the daemon.
    pub version: String,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// Where the desired state came from.
    pub config: ConfigSource,
    /// The file given at the start, whether it was applied or not.
    pub config_file: Option<String>,
    /// True if the desired state was edited since the file was applied.
    pub edited: bool,
    /// The page size of the arena in bytes: 2097152 on huge pages, 4096 without.
    pub page_size: u64,
    /// Buffers of the arena.
    pub frames: u64,
    /// Buffers that are free now.
    pub frames_free: u64,
    /// The number of the snapshot that workers use.
    pub generation: u64,
    /// Resident memory of the daemon in bytes.
    pub rss_bytes: u64,
    /// Workers that run.
    pub workers: u32,
    /// Ports that are configured.
    pub ports: u32,
    /// Bridges that are configured.
    pub bridges: u32,
    /// Frames taken from ports.
    pub received: u64,
    /// Frames that the switch made: copies of floods, segments, frames of its own.
    pub made: u64,
    /// Frames given to ports.
    pub sent: u64,
    /// Frames dropped, by whatever reason.
    pub dropped: u64,
    /// Frames that ended in the switch: answered or merged.
    pub consumed: u64,
    /// Frames that are in the switch now.
    pub held: u64,
}

/// Where the desired state came from at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigSource {
    /// The file given by `--config`: it is new, or differs from the one last applied.
    File,
    /// The state directory: the last good state with its later edits.
    Stored,
    /// Nothing: no file and no stored state.
    Empty,
}

impl ConfigSource {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            ConfigSource::File => "file",
            ConfigSource::Stored => "stored",
            ConfigSource::Empty => "empty",
        }
    }
}

/// `apply`: make this document the desired state, wholly or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// The TOML text.
    pub config: String,
    /// What to call the document in errors.
    #[serde(default)]
    pub file: String,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// `diff`: what `apply` would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diff {
    /// The TOML text.
    pub config: String,
    /// What to call the document in errors.
    #[serde(default)]
    pub file: String,
}

/// The result of `apply`, `diff`, `rollback` and of every edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// True if there was (or would be) anything to do.
    pub changed: bool,
    /// What was (or would be) done, in its order: `add port "web1"`.
    pub steps: Vec<String>,
}

/// `export`: the desired state as a document.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {}

/// The result of `export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The TOML text; `apply` of it changes nothing.
    pub config: String,
}

/// `rollback`: back to the desired state before the last change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The result of a method that has nothing to say: an empty object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Nothing {}
