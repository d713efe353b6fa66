//! The flow cache on, off, and full, with one worker and with two: nobody can tell the difference.

use vswitch::lab::{Design, Lab};

use super::scaled;
use super::scene::{Event, Scene, play};

/// Flows of a worker's cache: off, as few as it can be made to hold, plenty.
const FLOWS: [usize; 3] = [0, 1, 4096];

/// Frames of the arena: enough for all copies of all segments of an event. Who gets the last free ones depends on the
/// number of workers, and is looked at in `scarcity.rs`.
const FRAMES: u32 = 1 << 15;

fn labs(scene: &Scene, workers: usize) -> Vec<Lab> {
    let lab = |flows| {
        scene.lab(Design { frames: FRAMES, flows, workers, fdb: 256, ..Design::default() }, |wire| wire)
    };
    FLOWS.map(lab).into()
}

/// Plays a scene on all labs; what is seen must be the same everywhere after every event. Gives how many
/// frames came in, and how many of them each lab decided by the pipeline.
fn agree(seed: u64, scene: &mut Scene, labs: &mut [Lab], events: usize) -> (u64, Vec<u64>) {
    let mut frames = 0;
    for number in 0..events {
        let event = scene.event();
        if let Event::Frames(some) = &event {
            frames += some.len() as u64;
        }
        let mut seen = labs.iter_mut().map(|lab| play(lab, &event));
        let first = seen.next().unwrap();
        for (index, other) in seen.enumerate() {
            assert!(
                first == other,
                "seed {seed}, event {number}, lab {}: after {event:?}\n{first:?}\n{other:?}",
                index + 1
            );
        }
    }
    (frames, labs.iter().map(Lab::misses).collect())
}

#[test]
fn on_off_and_full_agree_with_one_worker_and_with_two() {
    let (mut frames, mut misses) = (0, vec![0; 6]);
    for seed in 0..scaled(30) {
        let mut scene = Scene::new(seed);
        let mut labs: Vec<_> = [1, 2].into_iter().flat_map(|workers| labs(&scene, workers)).collect();
        let (some, missed) = agree(seed, &mut scene, &mut labs, 60);
        frames += some;
        misses.iter_mut().zip(missed).for_each(|(sum, more)| *sum += more);
    }
    // The caches did what they are called.
    assert!(misses[2] * 2 < misses[0], "of {frames} frames {misses:?} were decided by the pipeline");
    assert!(misses[2] < misses[1] && misses[1] < misses[0], "of {frames} frames: {misses:?}");
}

#[test]
fn on_off_and_full_agree_when_all_ports_send_at_once() {
    for workers in [1, 2] {
        for seed in 1000..1000 + scaled(15) {
            let mut scene = Scene::new(seed);
            scene.spread = true;
            let mut labs = labs(&scene, workers);
            agree(seed, &mut scene, &mut labs, 60);
        }
    }
}
