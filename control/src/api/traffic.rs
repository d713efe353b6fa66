//! Methods on what moves frames: workers, their flow caches, and the drops.

use serde::{Deserialize, Serialize};

use crate::schema::PortName;

/// `worker.list`: every worker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerList {}

/// A row of `worker.list`. Frames and cycles are counted since `worker.reset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its place in `[switch] workers`, from 0.
    pub worker: u32,
    /// The CPU that it is pinned to.
    pub cpu: u32,
    /// Frames received.
    pub frames: u64,
    /// TSC cycles of turns that found frames.
    pub busy_cycles: u64,
    /// TSC cycles of turns that found none, sleep included.
    pub idle_cycles: u64,
    /// `busy_cycles` by `frames`; 0 without frames.
    pub cycles_per_frame: f64,
    /// True while it waits on its descriptors.
    pub sleeping: bool,
    /// The rx queues that it serves, as `port:queue`.
    pub queues: Vec<String>,
}

/// `worker.reset`: count frames and cycles from zero.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerReset {}

/// `worker.rebalance`: spread the rx queues that are not pinned by hand over the workers by their load.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerRebalance {
    /// Say what would move, and move nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The result of `worker.rebalance`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rebalanced {
    /// The queues that move.
    pub moves: Vec<QueueMove>,
    /// The load of each worker before, 1 being a whole core.
    pub before: Vec<f64>,
    /// The load expected after.
    pub after: Vec<f64>,
}

/// An rx queue that moves to another worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueMove {
    /// The port.
    pub port: PortName,
    /// Its queue, from 0.
    pub queue: u32,
    /// The worker that has it.
    pub from: u32,
    /// The worker that gets it.
    pub to: u32,
}

/// `flow.list`: entries of the workers' flow caches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowList {
    /// Only flows of this in-port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// Only flows of this worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u32>,
    /// At most so many; 1000 if absent, 10000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl FlowList {
    /// Rows that the request allows.
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(1_000).min(10_000) as usize
    }
}

/// The result of `flow.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPage {
    /// The flows, worker by worker.
    pub flows: Vec<FlowRow>,
    /// How many match.
    pub total: u64,
}

/// An entry of a flow cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRow {
    /// The worker whose cache it is in.
    pub worker: u32,
    /// The port that its frames come from.
    pub port: PortName,
    /// The masked key, in the words of `trace`.
    pub key: String,
    /// What is done with its frames, in the words of `trace`.
    pub actions: String,
}

/// `drops.list`: dropped frames by port and reason; only what occurred.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropsList {
    /// Only this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
}

/// A row of `drops.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// The port where the drop happened.
    pub port: PortName,
    /// The name of the reason.
    pub reason: String,
    /// Frames.
    pub frames: u64,
    /// The reason in one line.
    pub description: String,
}
