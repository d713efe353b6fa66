//! The recorder: the thread that carries recorded frames to the disk.
//!
//! The tx queue appends to a [`Tape`] of fixed size; the thread takes the full one away by swapping it
//! for an empty one, and writes while the tx queue fills the other. The lock is held for a swap or for
//! one burst, never while the disk is asked.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use pcap_file::pcap::PcapHeader;
use pcap_file::{Endianness, PcapError as Flaw, TsResolution};

/// Bytes that wait for the disk at most, twice.
pub(super) const CAPACITY: usize = 4 << 20;

/// What a recording says is its longest frame (the largest that libpcap takes).
const SNAP_LENGTH: u32 = 262_144;

/// Frames on their way to the disk, in the shape of the file.
#[derive(Debug)]
pub(super) struct Tape {
    pub(super) bytes: Vec<u8>,
    /// Why there is no more recording.
    pub(super) failure: Option<String>,
    stop: bool,
}

/// The tape with its lock and the bell that wakes the thread.
#[derive(Debug)]
pub(super) struct Shared {
    tape: Mutex<Tape>,
    bell: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Tape> {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }
}

/// The running thread.
#[derive(Debug)]
pub(super) struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Writes the file's header and starts the thread; `path` is for messages.
    pub(super) fn start(mut file: File, path: &Path) -> io::Result<Recorder> {
        let header = PcapHeader {
            snaplen: SNAP_LENGTH,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        header.write_to(&mut file).map_err(|flaw| match flaw {
            Flaw::IoError(error) => error,
            other => io::Error::other(other),
        })?;
        let tape = Tape { bytes: Vec::with_capacity(CAPACITY), failure: None, stop: false };
        let shared = Arc::new(Shared { tape: Mutex::new(tape), bell: Condvar::new() });
        let (theirs, path) = (shared.clone(), path.to_owned());
        let thread = std::thread::Builder::new()
            .name("pcap-record".to_owned())
            .spawn(move || carry(&theirs, file, &path))?;
        Ok(Recorder { shared, thread: Some(thread) })
    }

    /// What a tx queue appends to.
    pub(super) fn tape(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Why there is no more recording, if so.
    pub(super) fn failure(&self) -> Option<String> {
        self.shared.lock().failure.clone()
    }

    /// Writes what is left and ends; gives what went wrong.
    pub(super) fn finish(mut self) -> Option<String> {
        self.stop();
        self.failure()
    }

    fn stop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.shared.lock().failure = Some("the recording thread panicked".to_owned());
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread: takes the tape away, writes it, until told to stop or until writing fails.
fn carry(shared: &Shared, mut file: File, path: &Path) {
    let mut taken = Vec::with_capacity(CAPACITY);
    loop {
        let mut tape = shared.lock();
        while tape.bytes.is_empty() && !tape.stop {
            tape = shared.bell.wait(tape).unwrap_or_else(PoisonError::into_inner);
        }
        if tape.bytes.is_empty() {
            return;
        }
        std::mem::swap(&mut tape.bytes, &mut taken);
        drop(tape);
        if let Err(error) = file.write_all(&taken) {
            let mut tape = shared.lock();
            tape.failure = Some(format!("write {}: {error}", path.display()));
            tape.bytes.clear();
            return;
        }
        taken.clear();
    }
}
