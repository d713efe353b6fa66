//! The switch.
#![forbid(unsafe_code)]

pub mod flow;
pub mod tables;
