//! `null`: a sink for what the port is sent, and, with a rate, a source of frames.
//!
//! The source makes frames of one size and one pair of addresses, at so many a second by the monotonic
//! clock. Both addresses are locally administered and neither is a group address, so that no source can
//! start a broadcast storm. A frame's EtherType is the first of those for local experiments (IEEE
//! 802-2014, 9.2.4), its payload a number that counts up, so that a loss shows at the other end.

mod open;
mod pace;
mod rx;
mod timer;
mod tx;

pub use open::{NullPort, SIZES, Settings, open};
