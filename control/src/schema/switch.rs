//! `[switch]` and `[limits]`: the workers, the memory, and how much of everything there may be.

use serde_json::{Value as Json, json};

use super::document::{Node, Value};
use super::section::{Marks, Section};

/// `[switch]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Switch {
    /// `workers`: which threads move frames.
    pub workers: WorkerPlacement,
    /// `huge_pages`: the memory that frames live in.
    pub huge_pages: HugePages,
}

/// Which workers run, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WorkerPlacement {
    /// `"auto"`: one worker on each isolated CPU, or one on the last allowed CPU if none is isolated.
    #[default]
    Auto,
    /// One worker for each entry, pinned to that CPU; the same CPU may be named twice.
    Cpus(Vec<u16>),
}

impl WorkerPlacement {
    /// The number of workers, where the configuration says it.
    pub fn count(&self) -> Option<usize> {
        match self {
            WorkerPlacement::Auto => None,
            WorkerPlacement::Cpus(cpus) => Some(cpus.len()),
        }
    }
}

/// Whether the arena is on huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HugePages {
    /// Huge pages if there are enough of them, else small ones.
    #[default]
    Auto,
    /// Huge pages, or the start fails.
    On,
    /// Small pages.
    Off,
}

const HUGE_PAGES: [(&str, HugePages); 3] =
    [("auto", HugePages::Auto), ("on", HugePages::On), ("off", HugePages::Off)];

impl Switch {
    const KEYS: [&str; 2] = ["workers", "huge_pages"];
    /// More workers than any machine this runs on has CPUs.
    const MOST_WORKERS: usize = 256;
    /// CPU numbers end here (the kernel's largest NR_CPUS).
    const MOST_CPUS: i128 = 8192;

    pub(super) fn decode(mut section: Section<'_, '_>) -> (Self, Marks) {
        let workers = match section.take("workers") {
            Some(node) => decode_workers(&mut section, &node),
            None => WorkerPlacement::Auto,
        };
        let huge_pages = section.choice("huge_pages", &HUGE_PAGES).unwrap_or_default();
        (Self { workers, huge_pages }, section.finish(&Self::KEYS))
    }

    pub(super) fn fields(&self) -> Vec<(&'static str, Json)> {
        let mut fields = Vec::new();
        if let WorkerPlacement::Cpus(cpus) = &self.workers {
            fields.push(("workers", json!(cpus)));
        }
        if self.huge_pages != HugePages::default() {
            let word = HUGE_PAGES.iter().find(|(_, value)| *value == self.huge_pages).map(|(word, _)| *word);
            fields.push(("huge_pages", json!(word)));
        }
        fields
    }
}

fn decode_workers(section: &mut Section<'_, '_>, node: &Node) -> WorkerPlacement {
    let example = || Some("write `workers = \"auto\"` or CPU numbers, `workers = [2, 3]`".to_owned());
    match &node.value {
        Value::String(word) if word == "auto" => WorkerPlacement::Auto,
        Value::Array(items) if items.is_empty() || items.len() > Switch::MOST_WORKERS => {
            let message =
                format!("`workers` must name 1 to {} CPUs, but names {}", Switch::MOST_WORKERS, items.len());
            section.error(&node.span, message, example());
            WorkerPlacement::Auto
        }
        Value::Array(items) => {
            let cpu = |item| section.integer_of("workers", item, 0..=Switch::MOST_CPUS - 1, "");
            WorkerPlacement::Cpus(items.iter().filter_map(cpu).collect())
        }
        other => {
            let message =
                format!("`workers` must be \"auto\" or a list of CPU numbers, but is {}", other.kind());
            section.error(&node.span, message, example());
            WorkerPlacement::Auto
        }
    }
}

/// `[limits]`: maxima that hold for the whole switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `frames`: frames of the arena, which also bounds the memory locked.
    pub frames: u32,
    /// `flows`: entries of each worker's flow cache.
    pub flows: u32,
    /// `fdb`: entries of all bridges' MAC tables together.
    pub fdb: u32,
    /// `ports`: ports of the switch, one more for each underlay of its own and each bridge with addresses.
    pub ports: u32,
    /// `remotes`: remotes of all tunnels together; one that two tunnels reach counts twice.
    pub remotes: u32,
    /// `neighbours`: entries of all bridges' neighbour tables together.
    pub neighbours: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frames: 16_384,
            flows: 131_072,
            fdb: 131_072,
            ports: 4_096,
            remotes: 1_024,
            neighbours: 65_536,
        }
    }
}

impl Limits {
    const KEYS: [&str; 6] = ["frames", "flows", "fdb", "ports", "remotes", "neighbours"];
    /// Ports and remotes share one space of numbers of 16 bits, in which the last one means "none".
    pub const MOST_PORTS_AND_REMOTES: u32 = 65_535;

    pub(super) fn decode(mut section: Section<'_, '_>) -> (Self, Marks) {
        let default = Self::default();
        let limits = Self {
            frames: section.integer("frames", 256..=4_194_304, " frames").unwrap_or(default.frames),
            flows: section.integer("flows", 64..=16_777_216, " entries").unwrap_or(default.flows),
            fdb: section.integer("fdb", 16..=16_777_216, " entries").unwrap_or(default.fdb),
            ports: section.integer("ports", 1..=65_534, " ports").unwrap_or(default.ports),
            remotes: section.integer("remotes", 1..=65_534, " remotes").unwrap_or(default.remotes),
            neighbours: section
                .integer("neighbours", 16..=16_777_216, " entries")
                .unwrap_or(default.neighbours),
        };
        (limits, section.finish(&Self::KEYS))
    }

    pub(super) fn fields(&self) -> Vec<(&'static str, Json)> {
        let default = Self::default();
        [
            ("frames", self.frames, default.frames),
            ("flows", self.flows, default.flows),
            ("fdb", self.fdb, default.fdb),
            ("ports", self.ports, default.ports),
            ("remotes", self.remotes, default.remotes),
            ("neighbours", self.neighbours, default.neighbours),
        ]
        .into_iter()
        .filter(|(_, value, default)| value != default)
        .map(|(key, value, _)| (key, json!(value)))
        .collect()
    }
}
