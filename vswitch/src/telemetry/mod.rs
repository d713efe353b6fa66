//! What the switch says about itself: counters, drop reasons, trace.

pub mod contents;
pub mod counters;
pub mod drops;
