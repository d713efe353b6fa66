//! Any bytes with any metadata into any port: no panic, no loss.

use pmd::Offload;
use pmd::mem::{Lending, Settings};
use proptest::collection::vec;
use proptest::prelude::*;
use vswitch::lab::Design;
use vswitch::notation::random::Random;

use super::scaled;
use super::scene::{Event, Scene, lie, offload, play};

/// How frames are lent: owned, and with heads down to what a driver may give.
fn lending(number: u64) -> impl Fn(Settings) -> Settings {
    let lending =
        [Lending::Owned, Lending::Lent { head: 128 }, Lending::Lent { head: 256 }][number as usize % 3];
    move |wire| Settings { lending, ..wire }
}

fn bytes(random: &mut Random) -> Vec<u8> {
    let edges = [0, 1, 12, 13, 14, 15, 17, 18, 21, 22, 60, 128, 256, 1514, 3840, 3841, 9014, 65_535, 65_557];
    let len = if random.chance(50) { *random.one_of(&edges) } else { random.below(2000) };
    let mut bytes: Vec<u8> = (0..len).map(|_| random.next_u64() as u8).collect();
    // Half of them look like something.
    if random.chance(50) && len > 60 {
        let types = [[0x81, 0x00], [0x88, 0xa8], [0x08, 0x00], [0x86, 0xdd]];
        for at in [12, 16, 20] {
            bytes[at..at + 2].copy_from_slice(random.one_of::<[u8; 2]>(&types));
        }
        bytes[0] &= 0xfe;
        bytes[6] &= 0xfe;
    }
    bytes
}

#[test]
fn random_bytes_with_random_metadata() {
    for seed in 0..scaled(30) {
        let mut scene = Scene::new(seed);
        let mut lab = scene.lab(Design { frames: 8192, ..Design::default() }, lending(seed));
        for _ in 0..100 {
            let port = scene.any_port();
            let random = &mut scene.random;
            let bytes = bytes(random);
            let offload = if random.chance(50) { lie(random, bytes.len()) } else { offload(random, &bytes) };
            play(&mut lab, &Event::Frames(vec![(port, (bytes, offload))]));
        }
    }
}

#[test]
fn good_frames_with_every_lie_about_them() {
    for seed in 0..scaled(30) {
        let mut scene = Scene::new(seed);
        let mut lab = scene.lab(Design::default(), lending(seed));
        for _ in 0..100 {
            let (port, (bytes, _)) = (scene.any_port(), scene.frame());
            let lie = lie(&mut scene.random, bytes.len());
            play(&mut lab, &Event::Frames(vec![(port, (bytes, lie))]));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_trace_and_a_switch_take_any_bytes(frame in vec(any::<u8>(), 0..300), seed in 0..50u64) {
        let scene = Scene::new(seed);
        let mut lab = scene.lab(Design { flows: 64, ..Design::default() }, lending(seed));
        for port in 0..scene.ports.len() as u16 {
            lab.trace(port, &frame, Offload::NONE);
            play(&mut lab, &Event::Frames(vec![(port, (frame.clone(), Offload::NONE))]));
        }
    }
}
