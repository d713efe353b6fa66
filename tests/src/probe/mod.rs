//! The senders and receivers that `netprobe` runs inside a namespace.
//!
//! Each is a plain function with plain arguments that returns what it saw as a value to be printed as JSON. What
//! they send can be computed again from a seed, so that the receiver checks every byte by itself.

pub mod datagram;
pub mod frames;
pub mod numbered;
pub mod pattern;
pub mod stream;
