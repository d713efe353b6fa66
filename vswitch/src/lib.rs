//! The switch: decides every frame, and is told how by one desired state.
//!
//! From the wire inwards: [`worker`] moves batches between the queues of `pmd`'s ports; [`flow`] knows
//! frames that were decided before; [`pipeline`] decides the others against [`tables`] that frames write
//! and a [`snapshot`] that configuration writes; [`telemetry`] counts and explains.
#![forbid(unsafe_code)]

pub mod agent;
mod bucket;
pub mod config;
pub mod daemon;
pub mod flow;
pub mod lab;
pub mod notation;
pub mod overlay;
pub mod pipeline;
pub mod server;
pub mod snapshot;
pub mod switch;
pub mod tables;
pub mod telemetry;
pub mod tunnel;
pub mod worker;
