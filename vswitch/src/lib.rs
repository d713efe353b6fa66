//! The switch.
#![forbid(unsafe_code)]

pub mod flow;
pub mod notation;
pub mod tables;
