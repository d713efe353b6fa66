//!
//! Neither knows of ports, workers or frames: both speak of
//! [`control::schema::Config`] and nothing else.

pub mod diff;

pub use diff::{RestartNeeded, Step, diff, patch};
