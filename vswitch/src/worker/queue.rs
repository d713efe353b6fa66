//! An rx queue as a worker has it.

use std::sync::Arc;

use pmd::RxQueue;

use crate::telemetry::counters::Counter;

/// What one queue costs, for spreading queues over workers.
#[derive(Debug, Default)]
pub struct QueueLoad {
    /// Frames received.
    pub frames: Counter,
    /// TSC cycles spent on them.
    pub cycles: Counter,
}

/// Which opening of a port something comes from. An index belongs to one port after the other, and a port is
/// opened again and again; no two openings have the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incarnation(pub u64);

/// An rx queue of a port.
pub struct Queue {
    /// The port's index.
    pub port: u16,
    /// The port's opening.
    pub incarnation: Incarnation,
    /// The queue's number within the port.
    pub number: u16,
    /// The driver.
    pub rx: Box<dyn RxQueue>,
    /// What it costs.
    pub load: Arc<QueueLoad>,
}
