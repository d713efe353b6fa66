//! Benchmarks: what the criterion benches and the small programs under `src/bin` share.

pub mod circuit;
pub mod cores;
pub mod handover;
pub mod traffic;
