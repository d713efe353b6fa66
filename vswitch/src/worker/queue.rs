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

/// An rx queue of a port.
pub struct Queue {
    /// The port's index.
    pub port: u16,
    /// The queue's number within the port.
    pub number: u16,
    /// The driver.
    pub rx: Box<dyn RxQueue>,
    /// What it costs.
    pub load: Arc<QueueLoad>,
}
