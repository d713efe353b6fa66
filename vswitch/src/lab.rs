//! The laboratory: the whole data path in memory, one step at a time.
//!
//! Real workers, tables and pipeline on `mem` ports and a clock that is turned by hand; no thread, no
//! privilege, no chance but the seed. Unit tests, property tests, fuzzers and benches build their switch
//! here. Nothing in the daemon uses it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use control::schema::VlanMode;
use pmd::clock::{Clock, Manual};
use pmd::mem::{End, Settings, open};
use pmd::{Arena, HugePages, Offload, Port};

use crate::overlay::Overlays;
use crate::pipeline;
use crate::snapshot::{BridgeView, Place, PortView, PortVlans, Snapshot};
use crate::switch::tracing::{Trace, trace};
use crate::tables::fdb::{Fdb, Size};
use crate::tables::neighbour::Neighbours;
use crate::telemetry::counters::{PortTotals, WorkerCounters};
use crate::telemetry::drops::DropReason;
use crate::worker::mailbox::{Command, Mailbox};
use crate::worker::outlet::Tx;
use crate::worker::queue::{Incarnation, Queue};
use crate::worker::{Event, Parts, Worker};

/// What a laboratory is like.
#[derive(Clone, Copy, Debug)]
pub struct Design {
    /// Frames of the arena.
    pub frames: u32,
    /// Flow-cache entries of each worker; 0 turns the cache off.
    pub flows: usize,
    /// FDB entries.
    pub fdb: u32,
    /// Neighbour table entries.
    pub neighbours: u32,
    /// Workers; ports are dealt out to them in turn.
    pub workers: usize,
    /// Most ports.
    pub ports: usize,
    /// Index of the first remote, if there are any: ports have lower ones.
    pub first_remote: u16,
    /// Seed of all secrets.
    pub seed: u64,
}

impl Default for Design {
    fn default() -> Self {
        Design {
            frames: 4096,
            flows: 4096,
            fdb: 1024,
            neighbours: 1024,
            workers: 1,
            ports: 64,
            first_remote: 64,
            seed: 1,
        }
    }
}

/// What a port of the laboratory is like.
#[derive(Clone, Debug, Default)]
pub struct PortDesign {
    /// Its wire.
    pub wire: Settings,
    /// What it does with tags.
    pub vlan: VlanMode,
    /// Exchanges nothing with other isolated ports.
    pub isolated: bool,
    /// May send back.
    pub hairpin: bool,
    /// Index of its bridge.
    pub bridge: u16,
}

/// A switch in memory.
pub struct Lab {
    arena: Arena,
    fdb: Arc<Fdb>,
    clock: Arc<Manual>,
    workers: Vec<Worker>,
    mailboxes: Vec<Arc<Mailbox>>,
    counters: Vec<Arc<WorkerCounters>>,
    events: Receiver<Event>,
    snapshot: Snapshot,
    ends: Vec<End>,
}

impl Lab {
    /// A switch without ports, with one bridge that floods everything.
    ///
    /// # Errors
    /// No memory, no descriptors.
    pub fn new(design: Design) -> io::Result<Lab> {
        let arena = Arena::new(design.frames, HugePages::Off)?;
        let size = Size {
            entries: design.fdb,
            bridges: 8,
            ports: design.ports,
            first_remote: design.first_remote,
            workers: design.workers,
        };
        let fdb = Arc::new(Fdb::new(size, design.seed));
        let clock = Arc::new(Manual::default());
        let (sender, events) = channel();
        let (mut workers, mut mailboxes, mut counters) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..design.workers {
            let mailbox = Arc::new(Mailbox::new()?);
            let own = Arc::new(WorkerCounters::new(design.ports));
            workers.push(Worker::new(Parts {
                index,
                arena: arena.clone(),
                fdb: fdb.clone(),
                counters: own.clone(),
                mailbox: mailbox.clone(),
                clock: clock.clone(),
                events: sender.clone(),
                ports: design.ports,
                flows: design.flows,
                seed: design.seed,
            })?);
            mailboxes.push(mailbox);
            counters.push(own);
        }
        let (bridges, overlays) = (vec![Some(BridgeView::default())], Overlays::new(design.first_remote));
        let neighbours = Arc::new(Neighbours::new(design.neighbours, design.ports, design.seed));
        let snapshot = Snapshot { bridges, overlays, neighbours, ..Snapshot::default() };
        Ok(Lab { arena, fdb, clock, workers, mailboxes, counters, events, snapshot, ends: Vec::new() })
    }

    /// Adds a port and gives its index.
    pub fn add_port(&mut self, design: PortDesign) -> u16 {
        let (mut port, end) = open(&self.arena, design.wire);
        let index = self.ends.len() as u16;
        self.ends.push(end);
        self.edit(|snapshot| {
            snapshot.ports.push(Some(PortView {
                name: format!("port{index}").into(),
                place: Place::Bridge(design.bridge),
                vlans: PortVlans::new(&design.vlan),
                isolated: design.isolated,
                hairpin: design.hairpin,
                mtu: design.wire.mtu,
                features: design.wire.features,
                group: None,
                up: true,
                mask: pipeline::mask(),
            }));
            while snapshot.bridges.len() <= design.bridge as usize {
                snapshot.bridges.push(Some(BridgeView::default()));
            }
        });
        let owner = index as usize % self.workers.len();
        for rx in port.take_rx() {
            let queue = Queue {
                port: index,
                incarnation: Incarnation::default(),
                number: 0,
                rx,
                load: Arc::default(),
            };
            self.mailboxes[owner].send(Command::AddQueue(queue));
        }
        for tx in port.take_tx() {
            let shared = Arc::new(std::sync::Mutex::new(tx));
            for mailbox in &self.mailboxes {
                mailbox.send(Command::AddOutlet { port: index, tx: Tx::Shared(shared.clone()) });
            }
        }
        index
    }

    /// Changes the configuration and hands the new one to the workers. A bridge's members are its ports that
    /// are up, in the order of their indices.
    pub fn edit(&mut self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.snapshot);
        self.snapshot.generation += 1;
        self.publish();
    }

    /// Changes what is known of the ways to remotes, which is no new configuration.
    pub fn edit_ways(&mut self, change: impl FnOnce(&mut Overlays)) {
        change(&mut self.snapshot.overlays);
        self.publish();
    }

    fn publish(&mut self) {
        for (index, bridge) in (0..).zip(&mut self.snapshot.bridges) {
            let ports = (0..).zip(&self.snapshot.ports);
            let members = ports.filter(|(_, view)| {
                view.as_ref().is_some_and(|view: &PortView| view.up && view.place == Place::Bridge(index))
            });
            if let Some(bridge) = bridge {
                bridge.members = members.map(|(port, _)| port).collect();
            }
        }
        let snapshot = Arc::new(self.snapshot.clone());
        for mailbox in &self.mailboxes {
            mailbox.send(Command::Snapshot(snapshot.clone()));
        }
    }

    /// The configuration.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The MAC table.
    pub fn fdb(&self) -> &Arc<Fdb> {
        &self.fdb
    }

    /// The memory of frames.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Changes one port's configuration.
    pub fn edit_port(&mut self, port: u16, change: impl FnOnce(&mut PortView)) {
        self.edit(|snapshot| {
            if let Some(Some(view)) = snapshot.ports.get_mut(port as usize) {
                change(view);
            }
        });
    }

    /// Gives a port's rx queue to another worker.
    pub fn rehome(&mut self, port: u16, worker: usize) {
        for from in 0..self.workers.len() {
            let (reply, answer) = channel();
            self.mailboxes[from].send(Command::TakeQueue { port, number: 0, reply });
            self.workers[from].read_mail();
            if let Ok(Some(queue)) = answer.try_recv() {
                return self.mailboxes[worker].send(Command::AddQueue(queue));
            }
        }
    }

    /// Takes a port away from the workers, and what was learned there from the table.
    pub fn remove_port(&mut self, port: u16) {
        self.edit(|snapshot| snapshot.ports[port as usize] = None);
        for (mailbox, worker) in self.mailboxes.iter().zip(&mut self.workers) {
            let (reply, _) = channel();
            mailbox.send(Command::RemovePort { port, reply });
            worker.read_mail();
        }
        self.fdb.remove_port(port);
    }

    /// Removes what was not seen for `ageing_s` seconds from the MAC table.
    pub fn age_out(&self, ageing_s: u32) {
        let now_s = (self.clock.now_ns() / 1_000_000_000) as u32;
        self.fdb.sweep(0, u32::MAX, now_s, |_| ageing_s, |_| {});
    }

    /// What would happen to a frame, as `vswitchctl trace` says it.
    pub fn trace(&self, port: u16, frame: &[u8], offload: Offload) -> Trace {
        trace(&self.snapshot, &self.fdb, port, frame, offload)
    }

    /// The workers.
    pub fn workers(&mut self) -> &mut [Worker] {
        &mut self.workers
    }

    /// The other end of a port.
    pub fn end(&mut self, port: u16) -> &mut End {
        &mut self.ends[port as usize]
    }

    /// Moves the clock.
    pub fn advance_s(&self, seconds: u64) {
        self.clock.advance_ns(seconds * 1_000_000_000);
    }

    /// Sends a frame into a port; false if there is no room.
    pub fn send(&mut self, port: u16, frame: &[u8], offload: Offload) -> bool {
        self.ends[port as usize].send(frame, offload)
    }

    /// Turns all workers until none has anything to do.
    pub fn run(&mut self) {
        while self.workers.iter_mut().map(Worker::turn).sum::<usize>() > 0 {}
    }

    /// What left by a port since it was asked last.
    pub fn received(&mut self, port: u16) -> Vec<(Vec<u8>, Offload)> {
        let end = &mut self.ends[port as usize];
        let mut frames = Vec::new();
        while let Some(packet) = end.receive() {
            frames.push((packet.bytes(), packet.offload()));
            end.recycle(packet);
        }
        frames
    }

    /// Sends one frame, lets it through, and gives what left by which port, in the order of the ports.
    pub fn pass(&mut self, port: u16, frame: &[u8]) -> Vec<(u16, Vec<u8>)> {
        self.send(port, frame, Offload::NONE);
        self.run();
        (0..self.ends.len() as u16)
            .flat_map(|port| self.received(port).into_iter().map(move |(bytes, _)| (port, bytes)))
            .collect()
    }

    /// Frames that were decided by the pipeline and not by the flow cache.
    pub fn misses(&self) -> u64 {
        self.counters.iter().map(|counters| counters.load.misses.get()).sum()
    }

    /// The next event that a worker reported.
    pub fn event(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// A port's counters.
    pub fn totals(&self, port: u16) -> PortTotals {
        PortTotals::of(self.counters.iter().map(Arc::as_ref), port)
    }

    /// Frames that were dropped at a port for a reason.
    pub fn dropped(&self, port: u16, reason: DropReason) -> u64 {
        self.totals(port).drops[reason.index()]
    }

    /// Whether every frame is accounted for: what came in or was made went out, was dropped or consumed,
    /// and every buffer is at home or on a wire.
    pub fn is_conserved(&self) -> bool {
        let mut sum = PortTotals::default();
        let mut drops = 0;
        for port in 0..self.ends.len() as u16 {
            let totals = self.totals(port);
            sum.rx_frames += totals.rx_frames;
            sum.made += totals.made;
            sum.tx_frames += totals.tx_frames;
            sum.consumed += totals.consumed;
            drops += totals.dropped();
        }
        let held: u64 = self.counters.iter().map(|counters| counters.load.held.get()).sum();
        sum.rx_frames + sum.made == sum.tx_frames + drops + sum.consumed + held
    }
}
