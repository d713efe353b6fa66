//! One frame out of a capture file, for `trace --pcap`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    #[error("cannot read {0}: {1}")]
    Open(PathBuf, std::io::Error),
    #[error("{0} is no pcap or pcapng file, or is damaged: {1}")]
    Format(PathBuf, PcapError),
    #[error("{file} holds frames of link type {link:?}\n  fix: capture on an Ethernet interface")]
    NotEthernet { file: PathBuf, link: DataLink },
    #[error("{file} has {count} frames, and number {wanted} is asked for")]
    TooFew { file: PathBuf, count: usize, wanted: usize },
    #[error(
        "frame {number} of {file} was cut to {kept} of {length} bytes when it was captured\n  \
         fix: capture with a snapshot length of at least {length}"
    )]
    Cut { file: PathBuf, number: usize, kept: usize, length: u32 },
}

/// Splits `FILE:N`; without `:N` it is the first frame.
pub(crate) fn split(argument: &str) -> (PathBuf, usize) {
    match argument.rsplit_once(':') {
        Some((file, number)) => match number.parse() {
            Ok(number) if number > 0 => (PathBuf::from(file), number),
            _ => (PathBuf::from(argument), 1),
        },
        None => (PathBuf::from(argument), 1),
    }
}

/// Frame `number` (from 1) of a file.
pub(crate) fn frame(file: &Path, number: usize) -> Result<Vec<u8>, CaptureError> {
    let open = |error| CaptureError::Open(file.to_owned(), error);
    let mut stream = BufReader::new(File::open(file).map_err(open)?);
    let mut magic = [0; 4];
    stream.read_exact(&mut magic).map_err(open)?;
    let stream = magic.chain(stream);
    /// The type of a pcapng section header block, the same in either byte order.
    const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
    if magic == SECTION_HEADER { of_pcapng(file, stream, number) } else { of_pcap(file, stream, number) }
}

fn of_pcap(file: &Path, stream: impl Read, number: usize) -> Result<Vec<u8>, CaptureError> {
    let format = |error| CaptureError::Format(file.to_owned(), error);
    let mut reader = PcapReader::new(stream).map_err(format)?;
    check_link(file, reader.header().datalink)?;
    let mut count = 0;
    while let Some(packet) = reader.next_packet() {
        let packet = packet.map_err(format)?;
        count += 1;
        if count == number {
            return whole(file, number, packet.data.into_owned(), packet.orig_len);
        }
    }
    Err(CaptureError::TooFew { file: file.to_owned(), count, wanted: number })
}

fn of_pcapng(file: &Path, stream: impl Read, number: usize) -> Result<Vec<u8>, CaptureError> {
    let format = |error| CaptureError::Format(file.to_owned(), error);
    let mut reader = PcapNgReader::new(stream).map_err(format)?;
    let mut links = Vec::new();
    let mut count = 0;
    while let Some(block) = reader.next_block() {
        let (interface, data, length) = match block.map_err(format)? {
            Block::InterfaceDescription(interface) => {
                links.push(interface.linktype);
                continue;
            }
            Block::EnhancedPacket(packet) => (packet.interface_id as usize, packet.data, packet.original_len),
            Block::SimplePacket(packet) => (0, packet.data, packet.original_len),
            _ => continue,
        };
        count += 1;
        if count == number {
            check_link(file, links.get(interface).copied().unwrap_or(DataLink::ETHERNET))?;
            return whole(file, number, data.into_owned(), length);
        }
    }
    Err(CaptureError::TooFew { file: file.to_owned(), count, wanted: number })
}

fn check_link(file: &Path, link: DataLink) -> Result<(), CaptureError> {
    match link {
        DataLink::ETHERNET => Ok(()),
        link => Err(CaptureError::NotEthernet { file: file.to_owned(), link }),
    }
}

fn whole(file: &Path, number: usize, data: Vec<u8>, length: u32) -> Result<Vec<u8>, CaptureError> {
    let kept = data.len();
    if kept < length as usize {
        return Err(CaptureError::Cut { file: file.to_owned(), number, kept, length });
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use std::time::Duration;

    fn write(name: &str, link: DataLink, frames: &[(&[u8], u32)]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vswitchctl-{}-{name}.pcap", std::process::id()));
        let header = PcapHeader { datalink: link, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(File::create(&path).unwrap(), header).unwrap();
        for (data, length) in frames {
            writer.write_packet(&PcapPacket::new(Duration::ZERO, *length, data)).unwrap();
        }
        path
    }

    #[test]
    fn frames_are_counted_from_one() {
        let path = write("counted", DataLink::ETHERNET, &[(&[1, 2], 2), (&[3], 1), (&[4], 9)]);
        assert_eq!(frame(&path, 1).unwrap(), [1, 2]);
        assert_eq!(frame(&path, 2).unwrap(), [3]);
        let error = frame(&path, 3).unwrap_err().to_string();
        assert!(error.contains("cut to 1 of 9 bytes"), "{error}");
        let error = frame(&path, 4).unwrap_err().to_string();
        assert!(error.contains("has 3 frames, and number 4 is asked for"), "{error}");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn other_links_and_other_files_are_refused() {
        let path = write("link", DataLink::LINUX_SLL, &[(&[1], 1)]);
        assert!(matches!(frame(&path, 1), Err(CaptureError::NotEthernet { .. })));
        std::fs::write(&path, "no capture at all, but long enough").unwrap();
        assert!(matches!(frame(&path, 1), Err(CaptureError::Format(..))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(frame(&path, 1), Err(CaptureError::Open(..))));
    }

    #[test]
    fn pcapng() {
        use pcap_file::pcapng::PcapNgWriter;
        use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
        use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
        let path = std::env::temp_dir().join(format!("vswitchctl-{}.pcapng", std::process::id()));
        let mut writer = PcapNgWriter::new(File::create(&path).unwrap()).unwrap();
        let interface =
            InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options: vec![] };
        writer.write_pcapng_block(interface).unwrap();
        for data in [&[1u8, 2, 3][..], &[4, 5]] {
            let packet = EnhancedPacketBlock {
                interface_id: 0,
                timestamp: Duration::ZERO,
                original_len: data.len() as u32,
                data: data.into(),
                options: vec![],
            };
            writer.write_pcapng_block(packet).unwrap();
        }
        drop(writer);
        assert_eq!(frame(&path, 2).unwrap(), [4, 5]);
        assert!(matches!(frame(&path, 3), Err(CaptureError::TooFew { count: 2, .. })));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_name_may_have_a_colon() {
        assert_eq!(split("a.pcap:7"), (PathBuf::from("a.pcap"), 7));
        assert_eq!(split("a.pcap"), (PathBuf::from("a.pcap"), 1));
        assert_eq!(split("a:b"), (PathBuf::from("a:b"), 1));
        assert_eq!(split("a:b:2"), (PathBuf::from("a:b"), 2));
    }
}
