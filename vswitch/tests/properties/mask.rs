//! Bits that a port's mask leaves out: flipping one changes no verdict.

use pmd::Offload;
use vswitch::flow::headers::{Depth, parse};
use vswitch::flow::key::FlowKey;
use vswitch::lab::{Design, Lab};

use super::scaled;
use super::scene::{Event, Scene, play};

/// The masked key of a frame, if its headers can be read.
fn key(lab: &Lab, port: u16, frame: &[u8]) -> Option<FlowKey> {
    let mask = lab.snapshot().port(port)?.mask;
    let headers = parse(frame, frame.len(), mask.depth()).ok()?;
    Some(FlowKey::new(&headers, port).masked(&mask))
}

/// Whether `flipped` is `frame` but for the bit that was flipped `from_end` bytes before the end, or but for
/// nothing where that bit was part of a tag that is not sent on.
fn is_same_but_for(frame: &[u8], flipped: &[u8], from_end: usize, bit: u8) -> bool {
    let mut expected = frame.to_vec();
    let has_byte = expected.len() >= from_end;
    if has_byte {
        let at = expected.len() - from_end;
        expected[at] ^= bit;
    }
    let tag = frame.len().saturating_sub(from_end) < 18;
    expected == flipped || (tag && frame == flipped)
}

#[test]
fn a_bit_outside_the_mask_changes_nothing() {
    let (mut flips, mut outputs) = (0u64, 0u64);
    for seed in 0..scaled(20) {
        let mut scene = Scene::new(seed);
        scene.offloads = 0;
        // Without a cache: it is the pipeline that must not look.
        let mut lab = scene.lab(Design { flows: 0, ..Design::default() }, |wire| wire);
        for _ in 0..30 {
            let event = scene.event();
            play(&mut lab, &event);
            let Event::Frames(frames) = event else { continue };
            let (port, (frame, _)) = scene.random.one_of(&frames).clone();
            let Some(masked) = key(&lab, port, &frame) else { continue };
            play(&mut lab, &Event::Frames(vec![(port, (frame.clone(), Offload::NONE))]));
            for _ in 0..60 {
                // Mostly in the headers.
                let end = if scene.random.chance(80) { frame.len().min(60) } else { frame.len() };
                let (at, bit) = (scene.random.below(end), 1 << scene.random.below(8));
                let mut other = frame.clone();
                other[at] ^= bit;
                if key(&lab, port, &other) != Some(masked) {
                    continue;
                }
                let sent = |frame: &[u8]| Event::Frames(vec![(port, (frame.to_vec(), Offload::NONE))]);
                let before = play(&mut lab, &sent(&frame));
                let after = play(&mut lab, &sent(&other));
                let again = play(&mut lab, &sent(&frame));
                flips += 1;
                for (plain, flipped) in before.sent.iter().zip(&after.sent) {
                    assert_eq!(
                        plain.len(),
                        flipped.len(),
                        "seed {seed}: byte {at} bit {bit:#x} of {frame:02x?}"
                    );
                    for ((plain, _), (flipped, _)) in plain.iter().zip(flipped) {
                        outputs += 1;
                        assert!(
                            is_same_but_for(plain, flipped, frame.len() - at, bit),
                            "seed {seed}: byte {at} bit {bit:#x} of {frame:02x?}: {flipped:02x?}"
                        );
                    }
                }
                // Dropped for the same reasons, too: the counters move alike.
                for ((a, b), c) in before.totals.iter().zip(&after.totals).zip(&again.totals) {
                    assert_eq!(b.since(a), c.since(b), "seed {seed}: byte {at} bit {bit:#x} of {frame:02x?}");
                }
                assert_eq!(before.addresses, after.addresses);
            }
        }
    }
    assert!(flips > 2_000 && outputs > 1_000, "{flips} flips, {outputs} frames compared");
}

#[test]
fn a_plain_bridge_looks_at_addresses_and_the_vlan_only() {
    let scene = Scene::new(1);
    let lab = scene.lab(Design::default(), |wire| wire);
    assert_eq!(lab.snapshot().port(0).unwrap().mask.depth(), Depth::L2);
}
