//! What must hold for every sequence of frames: the whole switch in memory against itself.
//!
//! A [`scene`] is a random switch and what happens to it, from one seed; each file below plays scenes and
//! compares. A failure names its seed. `VSWITCH_TEST_FULL=1` plays ten times as many.
#![allow(clippy::unwrap_used, reason = "the whole file is tests")]

mod any_bytes;
mod cache;
mod lending;
mod mask;
mod scarcity;
mod scene;
mod trace;

/// `normal`, or ten times as many in a full run.
fn scaled(normal: u64) -> u64 {
    let full = std::env::var("VSWITCH_TEST_FULL").is_ok_and(|value| value == "1");
    if full { normal * 10 } else { normal }
}
