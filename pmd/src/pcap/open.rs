//! Opening a `pcap` port: the two files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::PcapError;
use super::file::Replay;
use super::recorder::Recorder;
use super::rx::Rx;
use super::tx::Tx;
use crate::offload::Features;
use crate::port::{Fate, Fault, Link, Port, RxQueue, TxQueue};

/// What a `pcap` port is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The file that is replayed.
    pub read: Option<PathBuf>,
    /// The file that is recorded into; it is made, or emptied.
    pub write: Option<PathBuf>,
    /// Whether the replay starts again at the file's end.
    pub repeat: bool,
}

/// An open `pcap` port.
pub struct PcapPort {
    rx: Option<Rx>,
    recorder: Option<Recorder>,
    tx_taken: bool,
    mode: &'static str,
}

/// Opens the files. The one to record into is touched last, when nothing else can fail.
///
/// # Errors
/// A file cannot be opened, or the one to replay is damaged.
pub fn open(settings: &Settings) -> Result<PcapPort, PcapError> {
    let replay = settings.read.as_deref().map(Replay::open).transpose()?;
    let source = replay.as_ref().map(|(_, metadata)| (metadata.dev(), metadata.ino()));
    let rx = match (replay, &settings.read) {
        (Some((replay, _)), Some(path)) => {
            Some(Rx::new(replay, settings.repeat).map_err(system("read", "pipe", path))?)
        }
        _ => None,
    };
    let recorder = match &settings.write {
        Some(path) => {
            let file = recording(path, source)?;
            Some(Recorder::start(file, path).map_err(system("write", "write", path))?)
        }
        None => None,
    };
    let mode = match (&rx, &recorder) {
        (Some(_), Some(_)) => "replay and record",
        (None, Some(_)) => "record",
        _ => "replay",
    };
    Ok(PcapPort { rx, recorder, tx_taken: false, mode })
}

fn system(key: &'static str, call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PcapError {
    move |error| PcapError::System { key, call, path: path.to_owned(), error }
}

/// Opens the file to record into, which must not be the one that is replayed, and empties it.
fn recording(path: &Path, source: Option<(u64, u64)>) -> Result<File, PcapError> {
    // Not blocking: a FIFO that nobody reads must not hold up the control thread.
    let options = OpenOptions::new().write(true).create(true).custom_flags(libc::O_NONBLOCK).to_owned();
    let system = |call| system("write", call, path);
    let file = options.open(path).map_err(system("open"))?;
    let metadata = file.metadata().map_err(system("stat"))?;
    if !metadata.is_file() {
        return Err(PcapError::NotAFile { path: path.to_owned(), key: "write" });
    }
    if source == Some((metadata.dev(), metadata.ino())) {
        return Err(PcapError::SameFile { path: path.to_owned() });
    }
    file.set_len(0).map_err(system("truncate"))?;
    Ok(file)
}

impl Port for PcapPort {
    fn kind(&self) -> &'static str {
        "pcap"
    }

    fn mode(&self) -> &str {
        self.mode
    }

    fn mac(&self) -> Option<[u8; 6]> {
        None
    }

    fn mtu(&self) -> u32 {
        u16::MAX.into()
    }

    fn features(&self) -> Features {
        Features::NONE
    }

    fn link(&self) -> Link {
        match self.recorder.as_ref().and_then(Recorder::failure) {
            Some(reason) => Link::down(reason),
            None => Link::up(),
        }
    }

    fn take_rx(&mut self) -> Vec<Box<dyn RxQueue>> {
        self.rx.take().into_iter().map(|rx| Box::new(rx) as Box<dyn RxQueue>).collect()
    }

    fn take_tx(&mut self) -> Vec<Box<dyn TxQueue>> {
        if std::mem::replace(&mut self.tx_taken, true) {
            return Vec::new();
        }
        vec![Box::new(Tx::new(self.recorder.as_ref().map(Recorder::tape)))]
    }

    fn close(mut self: Box<Self>, _fate: Fate) -> Result<(), Fault> {
        match self.recorder.take().and_then(Recorder::finish) {
            Some(reason) => Err(Fault::new(reason)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
