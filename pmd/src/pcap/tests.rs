use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::arena::{Arena, HugePages};
use crate::batch::{BATCH, RxMemory};
use crate::gather::{Burst, Prefixes, TxItem};
use crate::offload::{Checksum, Offload};
use crate::pcap::recorder::{CAPACITY, Recorder};
use crate::pcap::{PcapError, Replay};
use crate::port::TxReport;

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pcap-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.join("in.pcap");
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn frame(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 3 + number * 7) as u8).collect()
}

/// A little-endian microsecond capture: draft-ietf-opsawg-pcap, sections 4 and 5.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    for frame in frames {
        let len = (frame.len() as u32).to_le_bytes();
        bytes.extend([[7, 0, 0, 0], [9, 0, 0, 0], len, len].concat());
        bytes.extend(frame);
    }
    bytes
}

fn block(kind: u32, body: &[&[u8]]) -> Vec<u8> {
    let mut body = body.concat();
    body.resize(body.len().next_multiple_of(4), 0xee);
    let len = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &len, &body, &len].concat()
}

/// A pcapng capture with an enhanced, an old and a simple packet block, and one that is unknown.
fn pcapng(frames: &[Vec<u8>; 3]) -> Vec<u8> {
    let len = |i: usize| (frames[i].len() as u32).to_le_bytes();
    [
        block(0x0a0d_0d0a, &[&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0], &[0xff; 8]]),
        block(1, &[&[1, 0, 0, 0, 0, 0, 4, 0]]),
        block(6, &[&[0; 12], &len(0), &len(0), &frames[0]]),
        block(0x0bad_cafe, &[b"ignored"]),
        block(2, &[&[0; 12], &len(1), &len(1), &frames[1]]),
        block(3, &[&len(2), &frames[2]]),
    ]
    .concat()
}

fn frames_of(path: &Path) -> Result<Vec<Vec<u8>>, PcapError> {
    let replay = Replay::read(path)?;
    Ok((0..replay.len()).map(|i| replay.frame(i).unwrap().to_vec()).collect())
}

/// Receives one burst.
fn receive(
    rx: &mut dyn RxQueue,
    memory: &mut RxMemory,
    pool: &mut crate::Pool,
    limit: usize,
) -> Vec<Vec<u8>> {
    let batch = rx.receive(memory, pool, limit).unwrap();
    let copy = |i| {
        let mut bytes = vec![0; batch.frame_len(i)];
        assert!(batch.read(i, 0, &mut bytes));
        bytes
    };
    (0..batch.len()).map(copy).collect()
}

#[test]
fn a_file_is_replayed_in_full_batches_and_again() {
    let folder = Folder::new();
    let frames: Vec<_> = (0..100).map(|i| frame(i, if i == 3 { 9000 } else { 60 + i })).collect();
    let path = folder.file(&pcap(&frames));
    let arena = Arena::new(64, HugePages::Off).unwrap();
    let (mut pool, mut memory) = (arena.pool(), RxMemory::new());
    for repeat in [false, true] {
        let mut port = open(&Settings { read: Some(path.clone()), write: None, repeat }).unwrap();
        let mut rx = port.take_rx().pop().unwrap();
        assert!(port.take_rx().is_empty() && rx.arm());
        let mut burst = |limit| receive(rx.as_mut(), &mut memory, &mut pool, limit);
        assert_eq!(burst(1000), frames[..BATCH]);
        assert_eq!(burst(2), frames[BATCH..BATCH + 2]);
        let expected: Vec<_> = match repeat {
            false => frames[BATCH + 2..].to_vec(),
            true => frames.iter().cycle().skip(BATCH + 2).take(BATCH).cloned().collect(),
        };
        assert_eq!(burst(BATCH), expected);
        assert_eq!(burst(BATCH).is_empty(), !repeat);
        assert_eq!(rx.arm(), repeat);
    }
    assert_eq!(arena.free(), arena.frames(), "replay takes nothing from the arena");
}

#[test]
fn both_formats_are_read() {
    let folder = Folder::new();
    let frames = [frame(0, 61), frame(1, 1514), frame(2, 63)];
    assert_eq!(frames_of(&folder.file(&pcap(&frames))).unwrap(), frames);
    assert_eq!(frames_of(&folder.file(&pcapng(&frames))).unwrap(), frames);
    assert!(frames_of(&folder.file(&pcap(&[]))).unwrap().is_empty());
}

#[test]
fn a_record_that_the_capture_cut_short_is_replayed_as_captured() {
    let folder = Folder::new();
    let mut bytes = pcap(&[frame(0, 96)]);
    bytes[16..20].copy_from_slice(&96u32.to_le_bytes()); // snap length
    bytes[36..40].copy_from_slice(&1514u32.to_le_bytes()); // original length
    assert_eq!(frames_of(&folder.file(&bytes)).unwrap(), [frame(0, 96)]);
}

#[test]
fn cut_anywhere_the_error_names_file_and_record() {
    let folder = Folder::new();
    let frames = [frame(0, 20), frame(1, 33), frame(2, 18)];
    let pcap = pcap(&frames);
    for (whole, classic) in [(pcap.clone(), true), (pcapng(&frames), false)] {
        let mut accepted = 0;
        for cut in 0..=whole.len() {
            let path = folder.file(&whole[..cut]);
            match frames_of(&path) {
                Ok(read) => {
                    assert_eq!(read, frames[..read.len()], "cut at {cut}");
                    accepted += 1;
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.starts_with(&path.display().to_string()), "{text}");
                    assert!(text.contains("the file ends within it") || cut < 32, "cut at {cut}: {text}");
                    assert_eq!(
                        matches!(error, PcapError::Record { .. }),
                        cut >= if classic { 24 } else { 28 }
                    );
                }
            }
        }
        // Only between records may a file end.
        assert_eq!(accepted, if classic { 4 } else { 6 });
    }
    let text = frames_of(&folder.file(&pcap[..24 + 36 + 17])).unwrap_err().to_string();
    assert!(text.ends_with("record 2, at byte 60: the file ends within it, after 17 bytes"), "{text}");
}

#[test]
fn no_damage_panics() {
    let folder = Folder::new();
    let frames = [frame(0, 20), frame(1, 33), frame(2, 18)];
    let mut refused = 0;
    for whole in [pcap(&frames), pcapng(&frames)] {
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            refused += u32::from(frames_of(&folder.file(&bytes)).is_err());
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn what_is_no_capture_of_ethernet_is_refused() {
    let folder = Folder::new();
    let error = |bytes: &[u8]| frames_of(&folder.file(bytes)).unwrap_err().to_string();
    assert!(error(b"GET / HTTP/1.1\r\nHost: example").ends_with("a pcap or pcapng file is expected"));
    let mut raw_ip = pcap(&[frame(0, 60)]);
    raw_ip[20] = 101;
    assert!(error(&raw_ip).contains("the link type is RAW"), "{}", error(&raw_ip));
    assert!(error(&pcap(&[vec![]])).ends_with("record 1, at byte 24: the frame has no bytes"));
    assert!(error(&pcap(&[frame(0, 70_000)])).contains("the frame has 70000 bytes"));
    let text = Replay::read(Path::new("/")).unwrap_err().to_string();
    assert_eq!(text, "/ is not a regular file: name a file in `read`");
    let missing = |settings| open(&settings).err().unwrap().to_string();
    let absent = folder.0.join("absent");
    let text = missing(Settings { read: Some(absent.clone()), ..Settings::default() });
    assert!(text.starts_with(&format!("`read` names {}: open: No such file", absent.display())), "{text}");
    assert!(text.contains("name a capture file that exists"), "{text}");
    let text = missing(Settings { write: Some(absent.join("out.pcap")), ..Settings::default() });
    assert!(text.starts_with(&format!("`write` names {}/out.pcap: open: ", absent.display())), "{text}");
    assert!(text.contains("make the folder first"), "{text}");
}

#[test]
fn the_replayed_file_is_not_recorded_over() {
    let folder = Folder::new();
    let path = folder.file(&pcap(&[frame(0, 60)]));
    let link = folder.0.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let settings = Settings { read: Some(path.clone()), write: Some(link), repeat: false };
    assert!(matches!(open(&settings).err().unwrap(), PcapError::SameFile { .. }));
    assert_eq!(frames_of(&path).unwrap(), [frame(0, 60)]);
}

/// Sends `frames` in one burst, each with a checksum to complete at byte 16.
fn transmit(tx: &mut dyn TxQueue, frames: &[Vec<u8>]) -> TxReport {
    let arena = Arena::new(64, HugePages::Off).unwrap();
    let (mut pool, mut memory) = (arena.pool(), RxMemory::new());
    let (mut batch, mut scratch) = memory.lend();
    for frame in frames {
        let private = scratch.take(frame.len());
        private.copy_from_slice(frame);
        let checksum = Checksum::Partial { start: 14, offset: 2 };
        batch.push_private(private, 0, Offload { checksum, ..Offload::NONE });
    }
    let items: Vec<_> = (0..frames.len()).map(|i| TxItem::whole(&batch, i, true)).collect();
    let prefixes = Prefixes::default();
    let mut burst = Burst::new(&mut batch, &items, &prefixes, Features::NONE);
    tx.transmit(&mut burst, &mut pool)
}

#[test]
fn a_recording_reads_back_with_nanoseconds_and_checksums() {
    let folder = Folder::new();
    let path = folder.0.join("out.pcap");
    let before = std::time::SystemTime::now();
    let frames = [frame(0, 60), frame(1, 1514), frame(2, 9014)];
    let mut port = open(&Settings { write: Some(path.clone()), ..Settings::default() }).unwrap();
    assert!(port.take_rx().is_empty());
    let mut tx = port.take_tx().pop().unwrap();
    let report = transmit(tx.as_mut(), &frames);
    assert_eq!(report, TxReport { sent: 3, bytes: 60 + 1514 + 9014, ..TxReport::default() });
    drop(tx);
    Box::new(port).close(Fate::Leave).unwrap();

    let mut expected = frames.clone();
    expected.iter_mut().for_each(|frame| crate::gather::complete(frame, 14, 2));
    assert_eq!(frames_of(&path).unwrap(), expected);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes[..4], [0x4d, 0x3c, 0xb2, 0xa1], "the magic number of nanoseconds");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let stamp = std::time::UNIX_EPOCH + Duration::new(word(24).into(), word(28));
    assert!(stamp >= before && stamp <= std::time::SystemTime::now());
}

#[test]
fn a_full_disk_takes_the_port_down_and_nothing_else() {
    let device = Path::new("/dev/full");
    // The header is small enough to fail at once: the port does not open.
    let file = fs::OpenOptions::new().write(true).open(device).unwrap();
    assert_eq!(Recorder::start(file, device).unwrap_err().raw_os_error(), Some(libc::ENOSPC));

    // A reader that went away stands for a disk that fails later.
    let (reader, writer) = std::io::pipe().unwrap();
    let recorder = Recorder::start(fs::File::from(std::os::fd::OwnedFd::from(writer)), device).unwrap();
    drop(reader);
    let mut tx = crate::pcap::tx::Tx::new(Some(recorder.tape()));
    let mut port = PcapPort { rx: None, recorder: Some(recorder), tx_taken: true, mode: "record" };
    let deadline = Instant::now() + Duration::from_secs(10);
    assert_eq!(transmit(&mut tx, &[frame(0, 60)]).sent, 1);
    while port.link().up {
        assert!(Instant::now() < deadline, "the failure does not show");
        // Once more: a process that another test has just forked may have held the reader for a moment.
        transmit(&mut tx, &[frame(0, 60)]);
        std::thread::yield_now();
    }
    assert!(port.link().reason.starts_with("write /dev/full: "), "{}", port.link().reason);
    assert_eq!(transmit(&mut tx, &[frame(0, 60), frame(1, 60)]), TxReport { down: 2, ..TxReport::default() });
    assert!(port.take_tx().is_empty());
    assert!(Box::new(port).close(Fate::Leave).is_err());
}

#[test]
fn a_slow_disk_drops_and_does_not_wait() {
    // Nobody reads: the thread hangs in its first write, and the tape fills up.
    let (reader, writer) = std::io::pipe().unwrap();
    let recorder =
        Recorder::start(fs::File::from(std::os::fd::OwnedFd::from(writer)), Path::new("pipe")).unwrap();
    let mut tx = crate::pcap::tx::Tx::new(Some(recorder.tape()));
    let frames: Vec<_> = (0..50).map(|i| frame(i, 9000)).collect();
    let mut report = TxReport::default();
    let mut sent = 0;
    while report.full == 0 {
        report = transmit(&mut tx, &frames);
        assert_eq!(report.total(), 50);
        sent += report.sent as usize;
        assert!(sent * 9000 <= 2 * CAPACITY + (1 << 20));
    }
    drop(reader);
    assert!(recorder.finish().is_some());
}

#[test]
fn without_a_file_what_is_sent_vanishes() {
    let folder = Folder::new();
    let path = folder.file(&pcap(&[]));
    let mut port = open(&Settings { read: Some(path), ..Settings::default() }).unwrap();
    let mut tx = port.take_tx().pop().unwrap();
    assert_eq!(
        transmit(tx.as_mut(), &[frame(0, 60)]),
        TxReport { sent: 1, bytes: 60, ..TxReport::default() }
    );
}

#[test]
fn a_fifo_is_refused_and_keeps_nobody_waiting() {
    let folder = Folder::new();
    let path = folder.0.join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    for (key, settings) in [
        ("read", Settings { read: Some(path.clone()), ..Settings::default() }),
        ("write", Settings { write: Some(path.clone()), ..Settings::default() }),
    ] {
        let (answer, answered) = std::sync::mpsc::channel();
        std::thread::spawn(move || answer.send(open(&settings).err()));
        let refusal = answered.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
        match refusal {
            // Of a FIFO that nobody reads the kernel itself says that it cannot be written.
            PcapError::NotAFile { key: named, .. } | PcapError::System { key: named, call: "open", .. } => {
                assert_eq!(named, key);
            }
            other => panic!("{other}"),
        }
    }
}
