//! Ports that are files: a capture is replayed into a bridge and recorded on its other side, byte by byte.

use std::fs;

use vswitch_tests::lab::assert_conserved;
use vswitch_tests::probe::pattern::Pattern;
use vswitch_tests::wait::SOON;
use vswitch_tests::{Attachment, Lab, wait_until};

/// The header of a capture file: microseconds, version 2.4, Ethernet.
fn header() -> Vec<u8> {
    let words = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A capture file of these frames.
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let record = |(number, frame): (usize, &Vec<u8>)| {
        let length = frame.len() as u32;
        let words = [1, number as u32, length, length].map(u32::to_le_bytes).concat();
        [words, frame.clone()].concat()
    };
    [header(), frames.iter().enumerate().flat_map(record).collect()].concat()
}

/// The frames of a capture file of either byte order of ours, microseconds or nanoseconds.
fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &bytes[24..];
    let mut frames = Vec::new();
    while rest.len() >= 16 {
        let length = u32::from_le_bytes(rest[8..12].try_into().expect("four bytes")) as usize;
        frames.push(rest[16..16 + length].to_vec());
        rest = &rest[16 + length..];
    }
    frames
}

#[test]
fn a_replayed_capture_is_recorded_as_it_was() {
    let lab = Lab::new("capture");
    let mut pattern = Pattern::new(9);
    let frame = |number: u64| {
        let mut frame = vec![0; 60 + (number as usize * 37) % 1400];
        pattern.fill(&mut frame[14..]);
        frame[..6].copy_from_slice(&[0xff; 6]);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, number as u8]);
        frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());
        frame
    };
    let sent: Vec<_> = (0..200).map(frame).collect();
    let (from, to) = (lab.folder().join("from.pcap"), lab.folder().join("to.pcap"));
    fs::write(&from, capture(&sent)).expect("it can be written");
    let port = |name: &str, key: &str, file: &std::path::Path| {
        format!(
            "[[port]]\nname = \"{name}\"\nbridge = \"blue\"\ntype = \"pcap\"\n{key} = \"{}\"\n",
            file.display()
        )
    };
    // The recorder is there from the start; the replay comes by an edit, so that no frame is early.
    let container = lab.container("beside", Attachment::Tap, 1500);
    let head = format!("{}{}", Lab::configuration("[1]", &[&container]), port("recorder", "write", &to));
    let mut daemon = lab.start(&head);
    let ctl = daemon.ctl();
    let path = lab.write("replay.toml", &format!("{head}{}", port("replay", "read", &from)));
    ctl.json(&["apply", &path]);
    let replayed = || ctl.port("replay").and_then(|port| port["rx_frames"].as_u64()) == Some(200);
    wait_until("all frames are replayed", SOON, replayed);
    assert_conserved(&ctl);
    daemon.stop();
    let recorded = frames(&fs::read(&to).expect("it was recorded"));
    let ours: Vec<_> =
        recorded.into_iter().filter(|frame| frame[12..14] == 0x88b5_u16.to_be_bytes()).collect();
    assert!(ours == sent, "{} frames were replayed, {} recorded, or they differ", sent.len(), ours.len());
}

#[test]
fn a_source_and_a_sink_move_frames_at_their_rate() {
    let lab = Lab::new("null");
    let port = |name: &str, more: &str| {
        format!("[[port]]\nname = \"{name}\"\nbridge = \"blue\"\ntype = \"null\"\n{more}\n")
    };
    let ports = [port("source", "rate = 10000\nsize = 60"), port("sink", "")].concat();
    let mut daemon = lab.start(&format!("{}{ports}", Lab::configuration("[1]", &[])));
    let ctl = daemon.ctl();
    let arrived = || ctl.port("sink").and_then(|port| port["tx_frames"].as_u64()).unwrap_or(0);
    wait_until("the sink gets frames", SOON, || arrived() > 1000);
    daemon.stop();
}
