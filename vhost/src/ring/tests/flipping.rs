//! The worst of all guests: its memory holds another value at every look.

use crate::driver::flip::{Agreed, Stage};

/// Whatever the memory says, and however it changes between two looks: nothing but the memory is touched, the work
/// is bounded, and what cannot be is refused.
#[test]
fn no_values_at_all_do_harm() {
    let mut stage = Stage::new().unwrap();
    for kind in 0..16u64 {
        let has = |bit: u64| kind >> bit & 1 != 0;
        let agreed = Agreed { packed: has(0), in_order: has(1), event_index: has(2), mergeable: has(3) };
        let mut frames = [0; 2];
        for seed in 1..=200u64 {
            let mut state = seed << 8 | kind | 1 << 40;
            let passed = stage.play(
                agreed,
                Box::new(move || {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    Some(state)
                }),
            );
            frames = [frames[0] + passed[0], frames[1] + passed[1]];
        }
        // Not all of it is refused at once.
        assert!(frames[0] > 1000 && frames[1] > 300, "{agreed:?}: {frames:?}");
    }
}
