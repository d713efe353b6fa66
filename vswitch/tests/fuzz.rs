//! The fuzz targets without a fuzzer: every check on the corpus, then on what a seeded loop of mutations makes of it.
//!
//! The same on every run and every machine. `VSWITCH_TEST_FULL=1` makes the loops ten times as long.
#![allow(clippy::unwrap_used, reason = "the whole file is tests")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use control::api::{decode_request, encode_hex};
use control::schema::Config;
use pmd::virtio;
use vhost::user::rehearsal::Rehearsal;
use vhost::{Mode, Settings};
use vswitch::notation;
use vswitch::notation::random::{Frames, Mix, Random};
use vswitch::tunnel::{self, Claims, Kind};

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "it is the library of the fuzz targets")]
mod checks;

/// Numbers at which length checks go wrong.
const EDGES: [u8; 12] = [0, 1, 4, 5, 7, 8, 15, 19, 20, 127, 128, 255];

/// The files of the target's corpus, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut paths: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus in {}", folder.display());
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Runs `check` on `bytes`, and says which bytes they were if it panics.
fn run(check: fn(&[u8]), bytes: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(bytes))) {
        eprintln!("the input was {} ({})", encode_hex(bytes), String::from_utf8_lossy(bytes).escape_debug());
        resume_unwind(panic);
    }
}

/// Runs `check` on all `seeds` and on `count` mutations of them (ten times as many in a full run).
fn fuzz(check: fn(&[u8]), seeds: &[Vec<u8>], words: &[&str], count: usize) {
    for seed in seeds {
        run(check, seed);
        for cut in 0..seed.len().min(400) {
            run(check, &seed[..cut]);
        }
    }
    let full = std::env::var("VSWITCH_TEST_FULL").is_ok_and(|value| value == "1");
    let mut random = Random::new(0x5eed);
    for _ in 0..if full { count * 10 } else { count } {
        let mut bytes = random.one_of(seeds).clone();
        for _ in 0..=random.below(4) {
            mutate(&mut random, &mut bytes, seeds, words);
        }
        bytes.truncate(4_096);
        run(check, &bytes);
    }
}

/// One change: a bit, a byte, a piece taken out, doubled, or put in from another seed or from `words`.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&str]) {
    // Mostly where headers are.
    let reach = if random.chance(80) { bytes.len().min(100) } else { bytes.len() };
    let at = random.below(reach);
    let end = (at + random.below(12)).min(bytes.len());
    match random.below(7) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = *random.one_of(&EDGES),
        2 if !bytes.is_empty() => bytes[at] = random.next_u64() as u8,
        3 => drop(bytes.drain(at..end)),
        4 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        5 if !words.is_empty() => drop(bytes.splice(at..at, random.one_of(words).bytes())),
        _ => {
            let other = random.one_of(seeds);
            let from = random.below(other.len());
            let piece = other[from..].iter().take(random.below(40)).copied();
            bytes.splice(at..end, piece);
        }
    }
}

#[test]
fn fuzz_frame() {
    let mut seeds = corpus("frame");
    seeds.extend(Frames::new(11, Mix { payload: 64, ..Mix::default() }).take(200).map(|frame| frame.bytes));
    fuzz(checks::frame, &seeds, &[], 20_000);
}

#[test]
fn fuzz_tunnel() {
    fuzz(checks::tunnel, &corpus("tunnel"), &[], 40_000);
}

#[test]
fn fuzz_notation() {
    let mut seeds = corpus("notation");
    seeds.extend(
        Frames::new(12, Mix { payload: 64, ..Mix::default() }).take(200).map(|frame| frame.text.into()),
    );
    let words =
        ["(", ")", ",", "=", "\"", "\\", " / ", "0x", "::", "eth", "vlan", "pad", "len=", "65535", "ü"];
    fuzz(checks::notation, &seeds, &words, 20_000);
}

#[test]
fn fuzz_config() {
    let words = [
        "[[port]]\n",
        "[limits]\n",
        "\"",
        "=",
        "\n",
        "[",
        "]",
        "all",
        "-",
        "0x",
        "ü",
        "vlan = 1\n",
        "1e9",
        "99999",
    ];
    fuzz(checks::config, &corpus("config"), &words, 10_000);
}

#[test]
fn fuzz_request() {
    let words = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "null",
        "\"id\":",
        "\"params\":{}",
        "\n",
        "\\u0000",
        "1e99",
        "ü",
    ];
    fuzz(checks::request, &corpus("request"), &words, 20_000);
}

#[test]
fn fuzz_virtio_header() {
    fuzz(checks::virtio_header, &corpus("virtio_header"), &[], 5_000);
}

#[test]
fn fuzz_split_ring() {
    fuzz(checks::split_ring, &corpus("split_ring"), &[], 2_000);
}

#[test]
fn fuzz_packed_ring() {
    fuzz(checks::packed_ring, &corpus("packed_ring"), &[], 2_000);
}

#[test]
fn fuzz_message() {
    fuzz(checks::message, &corpus("message"), &[], 5_000);
}

/// A corpus is of use only if most of it is good: mutations of what is refused at once reach nothing.
#[test]
fn fuzz_corpus_is_sound() {
    for bytes in corpus("frame") {
        assert!(notation::describe(&bytes).starts_with("eth("));
    }
    let claims = Claims { ports: &[(4789, Kind::Vxlan), (6081, Kind::Geneve)], gre: true };
    for bytes in corpus("tunnel") {
        assert!(matches!(tunnel::parse(&bytes, bytes.len(), claims), Ok(Some(_))), "{}", encode_hex(&bytes));
    }
    for bytes in corpus("notation") {
        let text = String::from_utf8(bytes).unwrap();
        assert!(notation::build(&text).is_ok() || notation::from_hex(&text).is_ok(), "{text}");
    }
    let good = corpus("config").iter().filter(|bytes| Config::parse_bytes(bytes, "").is_ok()).count();
    assert!(good >= 2, "{good} good configurations");
    for bytes in corpus("virtio_header") {
        assert!(virtio::decode(&bytes, bytes.len() - virtio::HEADER).is_ok());
    }
    let mut port = Rehearsal::new(&Settings::new("unused", Mode::Server)).unwrap();
    for bytes in corpus("message") {
        let (followed, was_up) = port.play(&bytes);
        assert!(followed >= 14 && was_up, "{followed}: {}", encode_hex(&bytes));
    }
    let good = corpus("request").iter().filter(|bytes| decode_request(bytes).is_ok()).count();
    assert!(good >= 5, "{good} good requests");
}
