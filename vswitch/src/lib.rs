//! The switch.
#![forbid(unsafe_code)]
