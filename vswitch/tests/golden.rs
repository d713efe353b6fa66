//! The notation against scapy: frames that another implementation built, byte by byte.
//!
//! `golden/frames.txt` is made by `golden/make.py`.

#![allow(clippy::unwrap_used, reason = "the whole file is tests")]

use control::api::encode_hex;
use vswitch::flow::headers::{Depth, parse};
use vswitch::notation;

/// Name, text and bytes of every frame in the file.
fn frames() -> impl Iterator<Item = (&'static str, &'static str, Vec<u8>)> {
    include_str!("golden/frames.txt").lines().map(|line| {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap();
        (next(), next(), notation::from_hex(next()).unwrap())
    })
}

#[test]
fn builds_what_scapy_builds() {
    let mut count = 0;
    for (name, text, expected) in frames() {
        let built = notation::build(text).unwrap();
        assert_eq!(encode_hex(&built), encode_hex(&expected), "{name}: {text}");
        count += 1;
    }
    assert!(count >= 40, "only {count} frames");
}

/// A description gives the frame back, and names a checksum only where scapy was told to get it wrong.
#[test]
fn describes_what_scapy_builds() {
    for (name, text, frame) in frames() {
        let described = notation::describe(&frame);
        assert_eq!(notation::build(&described).unwrap(), frame, "{name}: {described}");
        let lengths = ["_length=", "(length=", ",length=", "checksum=", "type=ipv", "type=arp", "header=udp"];
        let given = |of: &str| lengths.iter().any(|field| of.contains(field));
        assert!(given(text) || !given(&described), "{name}: {described}");
    }
}

#[test]
fn reads_what_scapy_builds() {
    for (name, text, frame) in frames() {
        let headers = parse(&frame, frame.len(), Depth::L4);
        assert_eq!(
            headers.is_err(),
            name.starts_with("wrong") && name != "wrong checksums",
            "{name}: {text}"
        );
    }
}
