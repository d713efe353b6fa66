//! What the switch says about itself, in the words of the API.

use std::sync::atomic::Ordering;

use control::api::{
    BridgeDetail, BridgeRow, DropCount, DropRow, FdbFlush, FdbKind, FdbRow, FlowList, FlowPage, FlowRow,
    PortDetail, PortRow, QueueMove, QueuePlacement, Rebalanced, Traced, UpDown, WorkerRow,
};
use control::schema::{self, BridgeName, PortName, TunnelName};
use hashbrown::HashMap;
use pmd::Offload;

use super::placement::{self, Placed};
use super::ports::Running;
use super::{State, Switch, tracing};
use crate::flow::key::KeyMask;
use crate::pipeline;
use crate::tables::fdb::Kind;
use crate::telemetry::counters::PortTotals;
use crate::telemetry::drops::DropReason;
use crate::worker::mailbox::Command;

/// Figures of the whole switch.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Bytes of a page of the arena.
    pub page_size: u64,
    /// Frames of the arena.
    pub frames: u64,
    /// Those that are free.
    pub frames_free: u64,
    /// Generation that all workers use.
    pub generation: u64,
    /// Workers.
    pub workers: u32,
    /// Frames received.
    pub received: u64,
    /// Frames made.
    pub made: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// Frames taken by the switch.
    pub consumed: u64,
    /// Frames under way.
    pub held: u64,
}

impl Switch {
    /// Figures of the whole switch.
    pub fn totals(&self) -> Totals {
        let state = self.lock();
        let mut totals = Totals {
            page_size: state.arena.page_size() as u64,
            frames: state.arena.frames().into(),
            frames_free: state.arena.free().into(),
            workers: state.crew.members().len() as u32,
            generation: state.crew.counters().map(|c| c.load.generation.get()).min().unwrap_or(0),
            held: state.crew.counters().map(|c| c.load.held.get()).sum(),
            ..Totals::default()
        };
        for index in 0..state.limits.ports as u16 {
            let port = PortTotals::of(state.crew.counters(), index);
            totals.received += port.rx_frames;
            totals.made += port.made;
            totals.sent += port.tx_frames;
            totals.dropped += port.dropped();
            totals.consumed += port.consumed;
        }
        totals
    }

    /// Every port, in the order of the names.
    pub fn ports(&self) -> Vec<PortRow> {
        let state = self.lock();
        let missed = state.missed();
        state.ports.values().map(|port| state.port_row(port, &missed)).collect()
    }

    /// One port.
    pub fn port(&self, name: &PortName) -> Option<PortDetail> {
        let state = self.lock();
        let port = state.ports.get(name)?;
        let totals = state.totals_of(port);
        Some(PortDetail {
            row: state.port_row(port, &state.missed()),
            config: port.config.clone(),
            offloads: port
                .open()
                .map(|open| open.features().names().map(str::to_owned).collect())
                .unwrap_or_default(),
            placement: port
                .queues
                .iter()
                .map(|served| QueuePlacement {
                    queue: served.number.into(),
                    worker: served.worker as u32,
                    cpu: state.crew.members()[served.worker].cpu.into(),
                })
                .collect(),
            drop_reasons: reasons(&totals)
                .map(|(reason, frames)| DropCount { reason: reason.name().into(), frames })
                .collect(),
        })
    }

    /// Every bridge.
    pub fn bridges(&self) -> Vec<BridgeDetail> {
        let state = self.lock();
        let mut entries = vec![0u32; super::BRIDGES];
        for entry in state.fdb.entries() {
            entries[entry.key.bridge as usize] += 1;
        }
        let bridge = |bridge: &schema::Bridge| {
            let port_names: Vec<PortName> = state
                .ports
                .values()
                .filter(|port| port.config.bridge.as_ref() == Some(&bridge.name))
                .map(|port| port.config.name.clone())
                .collect();
            let index = state.bridges.get(&bridge.name).copied().unwrap_or(0);
            let row = BridgeRow {
                name: bridge.name.clone(),
                ports: port_names.len() as u32,
                fdb_entries: entries[index as usize],
                fdb_limit: bridge.fdb_limit,
                ageing_s: bridge.ageing_s,
                flood_unknown: bridge.flood_unknown,
                flood_broadcast: bridge.flood_broadcast,
                flood_multicast: bridge.flood_multicast,
            };
            BridgeDetail { row, port_names, config: bridge.clone() }
        };
        state.config.bridges.iter().map(bridge).collect()
    }

    /// Every entry of the MAC tables.
    pub fn fdb(&self) -> Vec<FdbRow> {
        let state = self.lock();
        let now = state.now_s();
        let bridges: HashMap<u16, &BridgeName> =
            state.bridges.iter().map(|(name, index)| (*index, name)).collect();
        let ports: HashMap<u16, &PortName> =
            state.ports.values().map(|port| (port.index, &port.config.name)).collect();
        let remotes = state.reach.remotes_by_index();
        let row = |entry: crate::tables::fdb::Entry| {
            let learned = entry.kind == Kind::Learned;
            let remote = remotes.get(&entry.port);
            let port = ports.get(&entry.port).map(|name| PortName::clone(name));
            if port.is_none() && remote.is_none() {
                return None;
            }
            Some(FdbRow {
                bridge: BridgeName::clone(bridges.get(&entry.key.bridge)?),
                vlan: entry.key.vlan,
                mac: entry.key.mac.into(),
                port,
                tunnel: remote.map(|(tunnel, _)| TunnelName::clone(tunnel)),
                remote: remote.map(|(_, address)| *address),
                kind: match entry.kind {
                    Kind::Learned => FdbKind::Learned,
                    Kind::Loaded => FdbKind::Loaded,
                    Kind::Static => FdbKind::Static,
                },
                origin: state.loaded.origin(&entry.key).filter(|_| entry.kind == Kind::Loaded).cloned(),
                age_s: if learned { entry.age_s(now).into() } else { 0 },
            })
        };
        state.fdb.entries().filter_map(row).collect()
    }

    /// Forgets learned addresses; gives how many.
    pub fn flush(&self, request: &FdbFlush) -> u64 {
        let state = self.lock();
        let bridge = request.bridge.as_ref().map(|name| state.bridges.get(name).copied());
        let port = request.port.as_ref().map(|name| state.ports.get(name).map(|port| port.index));
        let doomed = |entry: &crate::tables::fdb::Entry| {
            entry.kind == Kind::Learned
                && bridge.is_none_or(|bridge| bridge == Some(entry.key.bridge))
                && port.is_none_or(|port| port == Some(entry.port))
                && request.vlan.is_none_or(|vlan| vlan == entry.key.vlan)
        };
        let removed = state.fdb.flush(doomed) as u64;
        state.restore_stations();
        removed
    }

    /// Dropped frames by port and reason.
    pub fn drops(&self, only: Option<&PortName>) -> Vec<DropRow> {
        let state = self.lock();
        let mut rows = Vec::new();
        for port in state.ports.values().filter(|port| only.is_none_or(|name| port.config.name == *name)) {
            rows.extend(reasons(&state.totals_of(port)).map(|(reason, frames)| DropRow {
                port: port.config.name.clone(),
                reason: reason.name().into(),
                frames,
                description: reason.text(),
            }));
        }
        rows
    }

    /// Every worker.
    pub fn workers(&self) -> Vec<WorkerRow> {
        let state = self.lock();
        let row = |(index, member): (usize, &super::workers::Member)| {
            let load = &member.counters.load;
            let (frames, busy_cycles) = (load.frames.get(), load.busy_cycles.get());
            WorkerRow {
                worker: index as u32,
                cpu: member.cpu.into(),
                frames,
                busy_cycles,
                idle_cycles: load.idle_cycles.get(),
                cycles_per_frame: if frames == 0 { 0.0 } else { busy_cycles as f64 / frames as f64 },
                sleeping: load.sleeping.load(Ordering::Relaxed),
                queues: state
                    .ports
                    .values()
                    .flat_map(|port| port.queues.iter().map(move |served| (port, served)))
                    .filter(|(_, served)| served.worker == index)
                    .map(|(port, served)| format!("{}:{}", port.config.name, served.number))
                    .collect(),
            }
        };
        state.crew.members().iter().enumerate().map(row).collect()
    }

    /// Counts frames and cycles from zero.
    pub fn reset_workers(&self) {
        let mut state = self.lock();
        for worker in 0..state.crew.members().len() {
            state.crew.tell(worker, Command::ResetLoad);
        }
        for served in state.ports.values_mut().flat_map(|port| &mut port.queues) {
            served.base_cycles = served.load.cycles.get();
        }
    }

    /// Spreads the queues over the workers by what they cost since the last reset.
    pub fn rebalance(&self, dry_run: bool) -> Rebalanced {
        let mut state = self.lock();
        let workers = state.crew.members().len();
        let placed: Vec<Placed<(PortName, u16)>> = state
            .ports
            .values()
            .flat_map(|port| port.queues.iter().map(move |served| (port, served)))
            .map(|(port, served)| Placed {
                key: (port.config.name.clone(), served.number),
                worker: served.worker,
                load: served.load.cycles.get().wrapping_sub(served.base_cycles) as f64,
                pinned: served.pinned,
            })
            .collect();
        let plan = placement::rebalance(&placed, workers);
        let spent: Vec<f64> = state
            .crew
            .counters()
            .map(|c| (c.load.busy_cycles.get() + c.load.idle_cycles.get()).max(1) as f64)
            .collect();
        let loads = |plan: &dyn Fn(usize) -> usize| {
            let mut loads = vec![0.0; workers];
            for (i, queue) in placed.iter().enumerate() {
                loads[plan(i)] += queue.load / spent[queue.worker];
            }
            loads
        };
        let (before, after) = (loads(&|i| placed[i].worker), loads(&|i| plan[i]));
        let mut moves = Vec::new();
        for (queue, &to) in placed.iter().zip(&plan).filter(|(queue, to)| queue.worker != **to) {
            let (port, number) = queue.key.clone();
            if !dry_run {
                state.move_queue(&port, number, to);
            }
            moves.push(QueueMove { port, queue: number.into(), from: queue.worker as u32, to: to as u32 });
        }
        Rebalanced { moves, before, after }
    }

    /// Cached flows of all workers.
    pub fn flows(&self, request: &FlowList) -> FlowPage {
        let state = self.lock();
        let limit = request.limit();
        let mut flows = Vec::new();
        let mut total = 0;
        for (worker, cached) in state.crew.ask(|reply| Command::Flows { reply }).into_iter().enumerate() {
            if request.worker.is_some_and(|wanted| wanted as usize != worker) {
                continue;
            }
            for flow in cached {
                let Some(port) = state.port(flow.key.in_port()) else { continue };
                if request.port.as_ref().is_some_and(|wanted| *wanted != port.config.name) {
                    continue;
                }
                let mask = state.snapshot.port(port.index).map_or(KeyMask::IN_PORT, |view| view.mask);
                total += 1;
                if flows.len() < limit {
                    flows.push(FlowRow {
                        worker: worker as u32,
                        port: port.config.name.clone(),
                        key: tracing::key_words(&state.snapshot, &flow.key, &mask),
                        actions: pipeline::words(&state.snapshot, &flow.actions),
                    });
                }
            }
        }
        FlowPage { flows, total }
    }

    /// A described frame's way through the switch.
    pub fn trace(&self, port: &PortName, frame: &[u8]) -> Option<Traced> {
        let state = self.lock();
        let running = state.ports.get(port)?;
        let trace = tracing::trace(&state.snapshot, &state.fdb, running.index, frame, Offload::NONE);
        let cached = trace.key.is_some_and(|key| {
            state.crew.ask(|reply| Command::Probe { key, reply }).into_iter().any(|cached| cached)
        });
        Some(
            trace.report(cached, &state.snapshot, |index| {
                state.port(index).map(|port| port.config.name.clone())
            }),
        )
    }
}

pub(super) fn reasons(totals: &PortTotals) -> impl Iterator<Item = (DropReason, u64)> {
    let drops = totals.drops.clone();
    DropReason::all().zip(drops).filter(|(_, frames)| *frames > 0)
}

impl State {
    fn totals_of(&self, port: &Running) -> PortTotals {
        PortTotals::of(self.crew.counters(), port.index).since(&port.base)
    }

    /// Frames that rx queues have missed, by port index; asked of the workers, who own the queues.
    fn missed(&self) -> HashMap<u16, u64> {
        let mut sums = HashMap::new();
        for (port, frames) in self.crew.ask(|reply| Command::Missed { reply }).into_iter().flatten() {
            *sums.entry(port).or_default() += frames;
        }
        sums
    }

    fn port_row(&self, port: &Running, missed: &HashMap<u16, u64>) -> PortRow {
        let totals = self.totals_of(port);
        let open = port.open();
        let link = open.map(|open| open.link()).unwrap_or_default();
        let peer = open.and_then(|open| open.peer());
        let reason = port.outage(&link);
        PortRow {
            name: port.config.name.clone(),
            port_type: port.config.kind.type_name().into(),
            bridge: port.config.bridge.clone(),
            vlan: port.config.vlan.to_string(),
            state: if open.is_some() { UpDown::Up } else { UpDown::Down },
            reason,
            link: if link.up { UpDown::Up } else { UpDown::Down },
            mode: open.map(|open| open.mode().to_owned()),
            mtu: open.map_or(0, |open| open.mtu()),
            mac: open.and_then(|open| open.mac()).map(Into::into),
            queues: port.queues.len() as u32,
            rx_frames: totals.rx_frames,
            rx_bytes: totals.rx_bytes,
            tx_frames: totals.tx_frames,
            tx_bytes: totals.tx_bytes,
            drops: totals.dropped(),
            missed: missed.get(&port.index).copied().unwrap_or(0),
            connected: peer.as_ref().map(|peer| peer.connected),
            ring: peer.as_ref().and_then(|peer| peer.ring).map(str::to_owned),
            queues_enabled: peer.as_ref().map(|peer| peer.queues_enabled),
            resets: peer.as_ref().map(|peer| peer.resets),
            features: peer.map(|peer| peer.features.into_iter().map(str::to_owned).collect()),
        }
    }

    /// Moves one rx queue to another worker, between two bursts: order within a flow is kept, as the old
    /// worker gives the queue back before the new one gets it.
    pub(super) fn move_queue(&mut self, name: &PortName, number: u16, to: usize) {
        let Some(port) = self.ports.get_mut(name) else { return };
        let index = port.index;
        let Some(served) = port.queues.iter_mut().find(|served| served.number == number) else { return };
        let (reply, answer) = std::sync::mpsc::channel();
        self.crew.tell(served.worker, Command::TakeQueue { port: index, number, reply });
        if let Ok(Some(queue)) = answer.recv() {
            served.worker = to;
            self.crew.tell(to, Command::AddQueue(queue));
        }
    }

    /// Moves a port's queues to the workers that its configuration names.
    pub(super) fn move_to_configured(&mut self, name: &PortName) {
        let workers = self.crew.members().len();
        let Some(port) = self.ports.get_mut(name) else { return };
        let pins = port.config.workers.clone();
        let mut moves = Vec::new();
        for served in &mut port.queues {
            served.pinned = !pins.is_empty();
            if let Some(pin) = pins.get(usize::from(served.number) % pins.len().max(1)) {
                moves.push((served.number, usize::from(*pin) % workers, served.worker));
            }
        }
        for (number, to, from) in moves {
            if from != to {
                self.move_queue(name, number, to);
            }
        }
    }
}
