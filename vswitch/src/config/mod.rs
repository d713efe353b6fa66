//! The desired state: how to get from one to another, and where it is kept.
//!
//! [`mod@diff`] says what has to be done, as a pure function that gives [`step`]s; whoever owns the ports does it. [`state`]
//! keeps the desired state on disk and decides at start whether it or the file given by `--config` holds.
//! [`edit`] changes one object of it, and [`names`] finds objects by name. None of them knows ports, workers or frames: they speak of
//! [`control::schema::Config`] and nothing else.

pub mod diff;
pub mod edit;
pub mod names;
pub mod state;
pub mod step;

pub use diff::{RestartNeeded, diff, patch};
pub use state::{Digest, Origin, Start, StateError, Store};
pub use step::Step;
