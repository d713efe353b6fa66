//! A capture file in memory: its bytes, and where in them each frame lies.
//!
//! Built once, when a port is opened or a frame of a file is to be traced; knows nothing of ports.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use memmap2::{Mmap, MmapMut};
use pcap_file::pcap::PcapParser;
use pcap_file::pcapng::{Block, PcapNgParser};
use pcap_file::{DataLink, PcapError as Flaw};

use super::PcapError;
use crate::batch::MAX_FRAME;

/// Bytes of the largest file that is replayed.
pub const LARGEST: u64 = 1 << 30;

/// The first four bytes of a pcapng file, whatever its byte order: the type of a section header block
/// (draft-ietf-opsawg-pcapng, section 4.1).
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The checked frames of a capture file.
#[derive(Debug)]
pub struct Replay {
    bytes: Mmap,
    /// First byte and length of each frame.
    frames: Vec<(u32, u32)>,
}

impl Replay {
    /// Reads and checks a whole file.
    ///
    /// # Errors
    /// The file cannot be read, is no capture of Ethernet frames, or has a damaged record; the error
    /// names the file, the record and what is wrong.
    pub fn read(path: &Path) -> Result<Replay, PcapError> {
        Replay::open(path).map(|(replay, _)| replay)
    }

    /// As [`Replay::read`]; also says which file it was.
    pub(super) fn open(path: &Path) -> Result<(Replay, Metadata), PcapError> {
        let system =
            |call| move |error| PcapError::System { key: "read", call, path: path.to_owned(), error };
        // Not blocking: a FIFO that nobody writes must not hold up the control thread.
        let options = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).to_owned();
        let file = options.open(path).map_err(system("open"))?;
        let metadata = file.metadata().map_err(system("stat"))?;
        if !metadata.is_file() {
            return Err(PcapError::NotAFile { path: path.to_owned(), key: "read" });
        }
        if metadata.len() > LARGEST {
            return Err(PcapError::TooLarge { path: path.to_owned(), bytes: metadata.len() });
        }
        // One byte more than is needed, as an empty mapping is an error; what is not read stays zero.
        let size = metadata.len() as usize;
        let mut bytes = MmapMut::map_anon(size + 1).map_err(system("mmap"))?;
        let read = read_up_to(file, &mut bytes[..size]).map_err(system("read"))?;
        let bytes = bytes.make_read_only().map_err(system("mprotect"))?;
        let frames = index(&bytes[..read], path)?;
        Ok((Replay { bytes, frames }, metadata))
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frame `i`, from 0.
    #[inline]
    pub fn frame(&self, i: usize) -> Option<&[u8]> {
        let &(at, len) = self.frames.get(i)?;
        Some(&self.bytes[at as usize..][..len as usize])
    }
}

/// Fills `memory` from the file; fewer bytes if the file was cut since it was measured.
fn read_up_to(mut file: File, memory: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < memory.len() {
        match file.read(&mut memory[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Walks through the whole file.
fn index(bytes: &[u8], path: &Path) -> Result<Vec<(u32, u32)>, PcapError> {
    let mut walk = Walk { bytes, path, frames: Vec::new(), record: 0, offset: 0 };
    if bytes.starts_with(&PCAPNG) {
        walk.pcapng()?
    } else {
        walk.pcap()?
    }
    Ok(walk.frames)
}

struct Walk<'a> {
    bytes: &'a [u8],
    path: &'a Path,
    frames: Vec<(u32, u32)>,
    /// The record that is being looked at, and its first byte.
    record: u64,
    offset: usize,
}

impl<'a> Walk<'a> {
    fn pcap(&mut self) -> Result<(), PcapError> {
        let (mut rest, parser) = PcapParser::new(self.bytes).map_err(|flaw| self.no_capture(flaw))?;
        self.check_link(parser.header().datalink)?;
        while !rest.is_empty() {
            self.next(rest);
            // Unchecked by the crate, which takes a record that was cut by a snap length for an error.
            let (after, packet) = parser.next_raw_packet(rest).map_err(|flaw| self.flaw(flaw))?;
            self.add(&packet.data)?;
            rest = after;
        }
        Ok(())
    }

    fn pcapng(&mut self) -> Result<(), PcapError> {
        let (mut rest, mut parser) = PcapNgParser::new(self.bytes).map_err(|flaw| self.no_capture(flaw))?;
        while !rest.is_empty() {
            self.next(rest);
            let (after, block) = parser.next_block(rest).map_err(|flaw| self.flaw(flaw))?;
            let (interface, frame) = match &block {
                Block::EnhancedPacket(block) => (block.interface_id, &block.data[..]),
                Block::Packet(block) => (block.interface_id.into(), &block.data[..]),
                Block::SimplePacket(block) => {
                    // Without its padding: section 4.4.
                    let snaplen = parser.interfaces().first().map_or(0, |interface| interface.snaplen);
                    let limit = if snaplen == 0 { u32::MAX } else { snaplen };
                    let len = block.data.len().min(block.original_len.min(limit) as usize);
                    (0, &block.data[..len])
                }
                _ => {
                    rest = after;
                    continue;
                }
            };
            match parser.interfaces().get(interface as usize) {
                Some(description) => self.check_link(description.linktype)?,
                None => return Err(self.error(format!("interface {interface} is described nowhere"))),
            }
            self.add(frame)?;
            rest = after;
        }
        Ok(())
    }

    /// Begins with the next record, which is the first of `rest`.
    fn next(&mut self, rest: &[u8]) {
        self.record += 1;
        self.offset = self.bytes.len() - rest.len();
    }

    fn add(&mut self, frame: &[u8]) -> Result<(), PcapError> {
        if frame.is_empty() {
            return Err(self.error("the frame has no bytes".to_owned()));
        }
        if frame.len() > MAX_FRAME {
            let reason = format!("the frame has {} bytes, and the longest has {MAX_FRAME}", frame.len());
            return Err(self.error(reason));
        }
        // A part of `bytes`, which are fewer than `LARGEST`.
        let at = frame.as_ptr().addr() - self.bytes.as_ptr().addr();
        self.frames.push((at as u32, frame.len() as u32));
        Ok(())
    }

    fn check_link(&self, link: DataLink) -> Result<(), PcapError> {
        if link == DataLink::ETHERNET {
            return Ok(());
        }
        let reason = format!("the link type is {link:?}, and only Ethernet frames can be replayed");
        if self.record == 0 {
            return Err(PcapError::NotACapture { path: self.path.to_owned(), reason });
        }
        Err(self.error(reason))
    }

    fn no_capture(&self, flaw: Flaw) -> PcapError {
        PcapError::NotACapture { path: self.path.to_owned(), reason: describe(flaw, self.bytes.len()) }
    }

    fn flaw(&self, flaw: Flaw) -> PcapError {
        self.error(describe(flaw, self.bytes.len() - self.offset))
    }

    fn error(&self, reason: String) -> PcapError {
        let (record, offset) = (self.record, self.offset as u64);
        PcapError::Record { path: self.path.to_owned(), record, offset, reason }
    }
}

/// What is wrong, for people; `left` bytes of the file were there to read.
fn describe(flaw: Flaw, left: usize) -> String {
    match flaw {
        Flaw::IncompleteBuffer => format!("the file ends within it, after {left} bytes"),
        other => other.to_string(),
    }
}
