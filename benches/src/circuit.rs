//! A circuit: a worker between two `mem` ports, and frames that go round.
//!
//! Frames leave by the second port and are sent in again by the first, addressed anew, in the very same
//! buffers; so nothing is made or copied between turns, and what a turn costs is the switch alone.

use std::io;

use pmd::mem::{Lending, Settings};
use pmd::{BATCH, Offload};
use vswitch::lab::{Design, Lab, PortDesign};

/// What goes round.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Flows; each has a source and a destination of its own.
    pub flows: u32,
    /// Flow-cache entries; 0 decides every frame by the pipeline.
    pub cache: usize,
    /// Bytes of a frame.
    pub len: usize,
    /// How frames are lent.
    pub lending: Lending,
}

impl Default for Load {
    fn default() -> Self {
        Load { flows: 1, cache: 131_072, len: 64, lending: Lending::Owned }
    }
}

/// A switch with frames going round in it.
pub struct Circuit {
    lab: Lab,
    /// The flow of each frame to come, in an order that no prefetcher follows.
    order: Vec<u32>,
    next: usize,
}

/// The address of a flow's source (side 0) or destination (side 1).
fn mac(side: u8, flow: u32) -> [u8; 6] {
    let [a, b, c, d] = flow.to_be_bytes();
    [2, side, a, b, c, d]
}

/// The numbers below `count` in a random order, again and again, in whole batches.
fn random_order(count: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).cycle().take((count as usize).next_multiple_of(BATCH)).collect();
    let mut state = 1u64;
    for end in (1..order.len()).rev() {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        order.swap(end, ((state >> 33) % (end as u64 + 1)) as usize);
    }
    order
}

impl Circuit {
    /// Builds the switch and lets it learn every address. The first batch is on its way in.
    ///
    /// # Errors
    /// No memory, no descriptors.
    pub fn new(load: Load) -> io::Result<Circuit> {
        let fdb = (2 * load.flows + 64).next_power_of_two().max(131_072);
        let mut lab = Lab::new(Design { flows: load.cache, fdb, ..Design::default() })?;
        for _ in 0..2 {
            let wire = Settings { lending: load.lending, ..Settings::default() };
            lab.add_port(PortDesign { wire, ..PortDesign::default() });
        }
        let mut frame = vec![0; load.len];
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        for flow in 0..load.flows {
            // The destination says hello, so that nothing is flooded afterwards.
            frame[..6].copy_from_slice(&mac(0, flow));
            frame[6..12].copy_from_slice(&mac(1, flow));
            lab.send(1, &frame, Offload::NONE);
            if flow % 64 == 63 {
                lab.run();
                lab.received(0);
            }
        }
        lab.run();
        lab.received(0);
        for _ in 0..BATCH {
            lab.send(1, &frame, Offload::NONE); // dummies, to be taken up below
        }
        lab.run();
        let mut circuit = Circuit { lab, order: random_order(load.flows), next: 0 };
        circuit.hand_over(0);
        for _ in 0..2 * circuit.order.len() / BATCH {
            circuit.turn();
            circuit.close();
        }
        Ok(circuit)
    }

    /// One turn of the worker: what is to be measured. Gives the frames that it received.
    pub fn turn(&mut self) -> usize {
        self.lab.workers().iter_mut().map(vswitch::worker::Worker::turn).sum()
    }

    /// Sends what came out in again.
    pub fn close(&mut self) {
        self.hand_over(1);
    }

    /// Frames that were decided by the pipeline so far.
    pub fn misses(&self) -> u64 {
        self.lab.misses()
    }

    fn hand_over(&mut self, from: u16) {
        while let Some(mut packet) = self.lab.end(from).receive() {
            let flow = self.order[self.next];
            self.next = (self.next + 1) % self.order.len();
            let head = packet.head_mut();
            head[..6].copy_from_slice(&mac(1, flow));
            head[6..12].copy_from_slice(&mac(0, flow));
            if let Err(packet) = self.lab.end(0).resend(packet) {
                self.lab.end(from).recycle(packet);
            }
        }
    }
}
