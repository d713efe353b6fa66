//! Frames that are lent and frames that are owned: the same bytes leave, and every buffer comes back.

use pmd::mem::{Lending, Settings};
use vswitch::lab::{Design, Lab};
use vswitch::telemetry::drops::DropReason;

use super::scaled;
use super::scene::{Event, Scene, Sent, look, play};

/// Packets that a destination takes before it is full.
const CAPACITY: usize = 12;

/// What a driver may give as a head: all, and the least.
const LENDING: [Lending; 3] = [Lending::Owned, Lending::Lent { head: 4096 }, Lending::Lent { head: 128 }];

fn labs(scene: &Scene, capacity: usize) -> Vec<Lab> {
    let design = Design { frames: 16_384, ..Design::default() };
    let lab = |lending| scene.lab(design, move |wire| Settings { lending, capacity, ..wire });
    LENDING.map(lab).into()
}

#[test]
fn lent_and_owned_frames_leave_alike() {
    for seed in 0..scaled(25) {
        let mut scene = Scene::new(seed);
        (scene.spread, scene.offloads, scene.trains) = (true, 40, 5);
        let mut labs = labs(&scene, 4096);
        for number in 0..40 {
            let event = match scene.event() {
                // Trains are long: few of them at a time.
                Event::Frames(frames) => Event::Frames(frames.into_iter().take(40).collect()),
                other => other,
            };
            let mut seen = labs.iter_mut().map(|lab| play(lab, &event));
            let owned = seen.next().unwrap();
            for lent in seen {
                assert!(owned == lent, "seed {seed}, event {number}: {event:?}\n{owned:?}\n{lent:?}");
            }
        }
    }
}

/// Sends frames one by one while nobody reads, then looks.
fn pile_up(lab: &mut Lab, frames: &[(u16, Sent)]) -> super::scene::Seen {
    for (port, (bytes, offload)) in frames {
        assert!(lab.send(*port, bytes, *offload));
        lab.run();
        assert!(lab.is_conserved());
    }
    let seen = look(lab);
    assert_eq!(lab.arena().free(), lab.arena().frames(), "buffers are lost");
    seen
}

#[test]
fn a_full_destination_loses_the_same_frames_of_either() {
    let (mut full, mut sent) = (0, 0);
    for seed in 0..scaled(25) {
        let mut scene = Scene::new(seed);
        (scene.spread, scene.offloads, scene.trains) = (true, 40, 5);
        let mut labs = labs(&scene, CAPACITY);
        for number in 0..20 {
            let frames: Vec<_> = (0..30).map(|_| (scene.any_port(), scene.frame())).collect();
            let mut seen = labs.iter_mut().map(|lab| pile_up(lab, &frames));
            let owned = seen.next().unwrap();
            for lent in seen {
                assert!(owned == lent, "seed {seed}, round {number}\n{owned:?}\n{lent:?}");
            }
            sent += owned.sent.iter().map(Vec::len).sum::<usize>();
        }
        full +=
            (0..scene.ports.len() as u16).map(|port| labs[0].dropped(port, DropReason::TxFull)).sum::<u64>();
    }
    assert!(full > 100 && sent > 100, "{full} frames met a full destination, {sent} did not");
}
