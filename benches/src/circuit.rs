//! A circuit: a worker between two `mem` ports, and frames that go round.
//!
//! Frames leave by the second port and are sent in again by the first, addressed anew, in the very same
//! buffers; so nothing is made or copied between turns, and what a turn costs is the switch alone. With a tunnel the
//! second port is its uplink: what leaves there in a tunnel's frame comes back in the same one, turned round, and then
//! by the first port once more; so half of the turns put frames in, and half take them out.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use pmd::mem::{Lending, Settings};
use pmd::{BATCH, Offload};
use vswitch::lab::{Design, Lab, PortDesign};
use vswitch::overlay::{OverlayView, RemoteView, UnderlayView, address};
use vswitch::pipeline::remote_mask;
use vswitch::snapshot::{Place, Snapshot, Stretch};
use vswitch::tunnel::{Fill, Kind, Setup, Template};

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
    /// The tunnel behind the second port.
    pub tunnel: Option<Kind>,
}

impl Default for Load {
    fn default() -> Self {
        Load { flows: 1, cache: 131_072, len: 64, lending: Lending::Owned, tunnel: None }
    }
}

/// A switch with frames going round in it.
pub struct Circuit {
    lab: Lab,
    /// The flow of each frame to come, in an order that no prefetcher follows.
    order: Vec<u32>,
    next: usize,
    tunnel: Option<Kind>,
}

/// The remote's number, the tunnel's UDP port and the overlay's VNI.
const REMOTE: u16 = 48;
const PORT: u16 = 4789;
const VNI: u32 = 5001;

/// What is around frames to or from the remote, which is number 2; we are number 1.
pub fn setup(kind: Kind, from: u8, to: u8) -> Setup {
    Setup {
        kind,
        src_mac: [2, 0, 0, 0, 9, from],
        dst_mac: [2, 0, 0, 0, 9, to],
        vlan: None,
        src: IpAddr::from([192, 0, 2, from]),
        dst: IpAddr::from([192, 0, 2, to]),
        port: PORT,
        ttl: 64,
        df: true,
        dscp: None,
        flow_id: None,
        checksum: false,
        gbp: false,
    }
}

/// Stretches the bridge over the remote behind the second port.
fn stretch(snapshot: &mut Snapshot, kind: Kind) {
    if let Some(Some(view)) = snapshot.ports.get_mut(1) {
        (view.place, view.mask) = (Place::Underlay(0), remote_mask());
    }
    let setup = setup(kind, 1, 2);
    let underlay = UnderlayView {
        port: 1,
        agent: None,
        vlan: None,
        mac: setup.src_mac,
        ports: vec![(PORT, kind)],
        gre: kind == Kind::Nvgre,
    };
    snapshot.overlays.put_underlay(0, underlay);
    let remote = RemoteView {
        name: "remote".into(),
        tunnel: 0,
        underlay: 0,
        address: address(setup.dst),
        local: address(setup.src),
        group: None,
        learning: true,
        gbp: false,
        outlet: 1,
        template: Template::new(&setup).map(Arc::new),
        mtu: kind.mtu_inside(1500, false),
    };
    let port = if kind == Kind::Nvgre { 0 } else { PORT };
    snapshot.overlays.put_remote(REMOTE, kind, port, remote);
    let flood = Arc::from([REMOTE]);
    snapshot.overlays.add(OverlayView { vni: VNI, bridge: 0, vlan: None, flood }, [0]);
    if let Some(Some(bridge)) = snapshot.bridges.get_mut(0) {
        bridge.stretch = Stretch::Whole(0);
    }
}

/// A frame that the remote sends.
fn wrapped(kind: Kind, inner: &[u8]) -> Vec<u8> {
    let Some(template) = Template::new(&setup(kind, 2, 1)) else { return Vec::new() };
    let mut frame = vec![0; template.len()];
    template.write(&mut frame, &Fill { vni: VNI, inner_len: inner.len() as u32, ..Fill::default() });
    [&frame, inner].concat()
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
        let design = Design { flows: load.cache, fdb, first_remote: REMOTE, ..Design::default() };
        let mut lab = Lab::new(design)?;
        for _ in 0..2 {
            let wire = Settings { lending: load.lending, ..Settings::default() };
            lab.add_port(PortDesign { wire, ..PortDesign::default() });
        }
        if let Some(kind) = load.tunnel {
            lab.edit(|snapshot| stretch(snapshot, kind));
        }
        let as_sent = |frame: &[u8]| load.tunnel.map_or_else(|| frame.to_vec(), |kind| wrapped(kind, frame));
        let mut frame = vec![0; load.len];
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        for flow in 0..load.flows {
            // The destination says hello, so that nothing is flooded afterwards.
            frame[..6].copy_from_slice(&mac(0, flow));
            frame[6..12].copy_from_slice(&mac(1, flow));
            lab.send(1, &as_sent(&frame), Offload::NONE);
            if flow % 64 == 63 {
                lab.run();
                lab.received(0);
            }
        }
        lab.run();
        lab.received(0);
        for _ in 0..BATCH {
            lab.send(1, &as_sent(&frame), Offload::NONE); // dummies, to be taken up below
        }
        lab.run();
        let mut circuit = Circuit { lab, order: random_order(load.flows), next: 0, tunnel: load.tunnel };
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
        match self.tunnel {
            Some(kind) => {
                self.turn_round(34 + kind.header_len());
                self.hand_over(0);
            }
            None => self.hand_over(1),
        }
    }

    /// Sends back what went to the remote, behind so many bytes of outer headers.
    fn turn_round(&mut self, outer: usize) {
        while let Some(mut packet) = self.lab.end(1).receive() {
            let head = packet.head_mut();
            for (at, len) in [(0, 6), (26, 4), (outer, 6)] {
                let (before, behind) = head.split_at_mut(at + len);
                before[at..].swap_with_slice(&mut behind[..len]);
            }
            if let Err(packet) = self.lab.end(1).resend(packet) {
                self.lab.end(1).recycle(packet);
            }
        }
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
