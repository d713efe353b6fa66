//! Scenes: a random switch, and a random sequence of what happens to it.
//!
//! The same seed makes the same ports and the same events on every machine; the designs that a scene is
//! played on may differ in whatever must not matter: the cache, the workers, how frames are lent.

use control::schema::{VlanId, VlanMode, VlanSet};
use pmd::mem::Settings;
use pmd::{Checksum, Features, Gso, GsoKind, Offload};
use vswitch::flow::headers::{Depth, Network, Transport, parse};
use vswitch::lab::{Design, Lab, PortDesign};
use vswitch::notation::random::{Frames, Mix, Random};
use vswitch::snapshot::{Place, PortVlans};
use vswitch::tables::fdb::{Kind, MacKey};
use vswitch::telemetry::counters::PortTotals;

/// VLANs that ports and frames have.
const VLANS: [u16; 4] = [1, 10, 20, 4094];

/// A frame with its metadata.
pub type Sent = (Vec<u8>, Offload);

/// Something that happens to a switch.
#[derive(Clone, Debug)]
pub enum Event {
    /// Frames come in, then all is quiet again. More than one port only if the order among ports may matter.
    Frames(Vec<(u16, Sent)>),
    /// A port's tags.
    Vlans(u16, VlanMode),
    /// A port is isolated, or not.
    Isolated(u16, bool),
    /// A port may send back, or not.
    Hairpin(u16, bool),
    /// A port's MTU.
    Mtu(u16, u32),
    /// A port goes down or up.
    Up(u16, bool),
    /// A port moves to a bridge.
    Bridge(u16, u16),
    /// What a bridge floods: unknown, broadcast, multicast.
    Flood(u16, [bool; 3]),
    /// How many addresses may be learned at a port.
    PortLimit(u16, u32),
    /// How many addresses may be learned in a bridge.
    BridgeLimit(u16, u32),
    /// An address is where it is by configuration.
    Static(MacKey, u16),
    /// An address is forgotten.
    Forget(MacKey),
    /// Time goes by.
    Wait(u64),
    /// What is older than this goes.
    AgeOut(u32),
    /// A port's frames are received by another worker from now on.
    Rehome(u16, usize),
}

/// What can be seen from outside after an event: what left by which port, all counters, all addresses.
#[derive(Debug, PartialEq)]
pub struct Seen {
    /// By port.
    pub sent: Vec<Vec<Sent>>,
    /// By port.
    pub totals: Vec<PortTotals>,
    /// Bridge, VLAN, address, port, static, last seen.
    pub addresses: Vec<(MacKey, u16, bool, u32)>,
}

/// A random switch and what happens to it.
pub struct Scene {
    pub random: Random,
    frames: Frames,
    pub ports: Vec<PortDesign>,
    /// Frames of one event may come in by several ports.
    pub spread: bool,
    /// How many of 100 frames have offload metadata.
    pub offloads: usize,
    /// How many of 100 frames are trains of up to 64 KB.
    pub trains: usize,
}

impl Scene {
    /// The scene of a seed.
    pub fn new(seed: u64) -> Scene {
        let mut random = Random::new(seed);
        let mix = Mix { vlans: VLANS.to_vec(), macs: 6 + random.below(20), ..Mix::default() };
        let ports = (0..3 + random.below(4)).map(|_| port(&mut random)).collect();
        let frames = Frames::new(random.next_u64(), mix);
        Scene { random, frames, ports, spread: false, offloads: 20, trains: 1 }
    }

    /// The scene's switch, laid out like `design`; `wire` says how each port's wire differs.
    pub fn lab(&self, design: Design, wire: impl Fn(Settings) -> Settings) -> Lab {
        let mut lab = Lab::new(design).unwrap();
        for port in &self.ports {
            lab.add_port(PortDesign { wire: wire(port.wire), ..port.clone() });
        }
        lab
    }

    /// Some port.
    pub fn any_port(&mut self) -> u16 {
        self.random.below(self.ports.len()) as u16
    }

    /// A frame, one in five malformed, with metadata that is mostly true if it has any.
    pub fn frame(&mut self) -> Sent {
        if self.random.chance(self.trains) {
            return self.train();
        }
        let bytes = self.frames.next_frame().bytes;
        let offload =
            if self.random.chance(self.offloads) { offload(&mut self.random, &bytes) } else { Offload::NONE };
        (bytes, offload)
    }

    /// A frame that is to be cut.
    pub fn train(&mut self) -> Sent {
        let random = &mut self.random;
        let mac = |random: &mut Random| format!("02:00:00:00:00:0{}", random.below(8));
        let tag =
            if random.chance(40) { format!(" vlan(id={})", random.one_of(&VLANS)) } else { String::new() };
        let text = format!(
            "eth(src={},dst={}){tag} {} {} payload(len={})",
            mac(random),
            mac(random),
            random.one_of(&["ipv4", "ipv6"]),
            random.one_of(&["tcp", "udp"]),
            1 + random.below(60_000),
        );
        let bytes = vswitch::notation::build(&text).unwrap();
        let mut offload = offload(random, &bytes);
        if let (None, Checksum::Partial { offset, .. }) = (offload.gso, offload.checksum) {
            let kind = match (offset, text.contains("ipv4")) {
                (6, _) => GsoKind::Udp,
                (_, true) => GsoKind::Tcp4,
                (_, false) => GsoKind::Tcp6,
            };
            offload.gso = Some(Gso { kind, size: 1400, ecn: false });
        }
        (bytes, offload)
    }

    /// The next thing that happens: mostly frames.
    pub fn event(&mut self) -> Event {
        let (port, bridge) = (self.any_port(), self.random.below(2) as u16);
        if self.random.chance(65) {
            return self.some_frames(port);
        }
        let random = &mut self.random;
        match random.below(14) {
            0 => Event::Vlans(port, vlans(random)),
            1 => Event::Isolated(port, random.chance(50)),
            2 => Event::Hairpin(port, random.chance(50)),
            3 => Event::Mtu(port, *random.one_of(&[68, 576, 1280, 1500, 9000])),
            4 => Event::Up(port, random.chance(70)),
            5 => Event::Bridge(port, bridge),
            6 => Event::Flood(bridge, [(); 3].map(|()| random.chance(70))),
            7 => Event::PortLimit(port, *random.one_of(&[0, 1, 3, u32::MAX])),
            8 => Event::BridgeLimit(bridge, *random.one_of(&[0, 4, 8, u32::MAX])),
            9 => Event::Static(address(random), port),
            10 => Event::Forget(address(random)),
            11 => Event::Wait(random.below(200) as u64),
            12 => Event::AgeOut(*random.one_of(&[300, 300, 60, 1])),
            _ => Event::Rehome(port, random.below(2)),
        }
    }

    fn some_frames(&mut self, port: u16) -> Event {
        if self.random.chance(3) {
            return Event::Frames(self.strangers(port));
        }
        if self.random.chance(50) {
            return Event::Frames(self.conversation(port));
        }
        let count = *self.random.one_of(&[1, 1, 2, 5, 64, 100]);
        let frames = (0..count).map(|_| {
            let port = if self.spread { self.any_port() } else { port };
            (port, self.frame())
        });
        Event::Frames(frames.collect())
    }

    /// The same few frames again and again, as real traffic is.
    fn conversation(&mut self, port: u16) -> Vec<(u16, Sent)> {
        let few: Vec<_> = (0..1 + self.random.below(5)).map(|_| self.frame()).collect();
        let ports: Vec<_> = few.iter().map(|_| if self.spread { self.any_port() } else { port }).collect();
        (0..100)
            .map(|_| {
                let one = self.random.below(few.len());
                (ports[one], few[one].clone())
            })
            .collect()
    }

    /// A flood of addresses that nobody has seen, which fills every table.
    fn strangers(&mut self, port: u16) -> Vec<(u16, Sent)> {
        let frame = vswitch::notation::build("eth(dst=02:00:00:00:00:01) ipv4 udp").unwrap();
        (0..300)
            .map(|_| {
                let mut frame = frame.clone();
                frame[6..12].copy_from_slice(&self.random.next_u64().to_be_bytes()[..6]);
                frame[6] = 0x06;
                (port, (frame, Offload::NONE))
            })
            .collect()
    }
}

/// Lets something happen, and looks.
pub fn play(lab: &mut Lab, event: &Event) -> Seen {
    match event.clone() {
        Event::Frames(frames) => {
            for (port, (bytes, offload)) in frames {
                assert!(lab.send(port, &bytes, offload), "the wire or the arena is full");
            }
        }
        Event::Vlans(port, mode) => lab.edit_port(port, |view| view.vlans = PortVlans::new(&mode)),
        Event::Isolated(port, isolated) => lab.edit_port(port, |view| view.isolated = isolated),
        Event::Hairpin(port, hairpin) => lab.edit_port(port, |view| view.hairpin = hairpin),
        Event::Mtu(port, mtu) => lab.edit_port(port, |view| view.mtu = mtu),
        Event::Up(port, up) => lab.edit_port(port, |view| view.up = up),
        Event::Bridge(port, bridge) => {
            lab.edit_port(port, |view| view.place = Place::Bridge(bridge));
            lab.fdb().remove_port(port);
        }
        Event::Flood(bridge, [unknown, broadcast, multicast]) => lab.edit(|snapshot| {
            if let Some(Some(bridge)) = snapshot.bridges.get_mut(bridge as usize) {
                (bridge.flood_unknown, bridge.flood_broadcast, bridge.flood_multicast) =
                    (unknown, broadcast, multicast);
            }
        }),
        Event::PortLimit(port, limit) => lab.fdb().set_port_limit(port, limit),
        Event::BridgeLimit(bridge, limit) => lab.fdb().set_bridge_limit(bridge, limit),
        Event::Static(key, port) => lab.fdb().add_static(key, port).unwrap_or_default(),
        Event::Forget(key) => drop(lab.fdb().remove(key)),
        Event::Wait(seconds) => lab.advance_s(seconds),
        Event::AgeOut(ageing_s) => lab.age_out(ageing_s),
        Event::Rehome(port, worker) => {
            let worker = worker % lab.workers().len();
            lab.rehome(port, worker);
        }
    }
    lab.run();
    assert!(lab.is_conserved(), "frames are lost or doubled");
    let seen = look(lab);
    assert_eq!(lab.arena().free(), lab.arena().frames(), "buffers are lost");
    seen
}

/// What can be seen of a lab that is at rest; empties the wires.
pub fn look(lab: &mut Lab) -> Seen {
    let ports = lab.snapshot().ports.len() as u16;
    let sent = (0..ports).map(|port| lab.received(port)).collect();
    let totals = (0..ports).map(|port| lab.totals(port)).collect();
    let entries = lab.fdb().entries();
    let mut addresses: Vec<_> =
        entries.map(|entry| (entry.key, entry.port, entry.kind == Kind::Static, entry.seen_s)).collect();
    addresses.sort_unstable();
    Seen { sent, totals, addresses }
}

fn vlan(random: &mut Random) -> VlanId {
    VlanId::new(*random.one_of(&VLANS)).unwrap()
}

fn vlans(random: &mut Random) -> VlanMode {
    match random.below(4) {
        0 | 1 => VlanMode::Transparent,
        2 => VlanMode::Access(vlan(random)),
        _ => {
            let vlans: VlanSet = (0..3).map(|_| vlan(random)).collect();
            let native = random.chance(50).then(|| vlan(random));
            VlanMode::Trunk { vlans: if random.chance(30) { VlanSet::all() } else { vlans }, native }
        }
    }
}

fn port(random: &mut Random) -> PortDesign {
    let features = *random.one_of(&[
        Features::NONE,
        Features::CHECKSUM,
        Features::VIRTIO,
        Features::VIRTIO,
        Features::VIRTIO.without(Features::USO).without(Features::ECN),
    ]);
    PortDesign {
        wire: Settings {
            features,
            mtu: *random.one_of(&[1500, 1500, 9000, 600]),
            capacity: 4096,
            ..Settings::default()
        },
        vlan: vlans(random),
        isolated: random.chance(20),
        hairpin: random.chance(20),
        bridge: u16::from(random.chance(15)),
    }
}

/// An address that frames have.
fn address(random: &mut Random) -> MacKey {
    let vlan = *random.one_of(&[0, 0, 1, 10]);
    MacKey { bridge: random.below(2) as u16, vlan, mac: [2, 0, 0, 0, 0, random.below(8) as u8] }
}

/// Metadata as a kernel would give it to the frame where that makes sense, now and then a lie.
pub fn offload(random: &mut Random, frame: &[u8]) -> Offload {
    if random.chance(15) {
        return lie(random, frame.len());
    }
    let Ok(headers) = parse(frame, frame.len(), Depth::L4) else { return Offload::NONE };
    let (offset, kind) = match (headers.transport, headers.network) {
        (Transport::Tcp, Network::Ipv4) => (16, GsoKind::Tcp4),
        (Transport::Tcp, _) => (16, GsoKind::Tcp6),
        (Transport::Udp, _) => (6, GsoKind::Udp),
        _ => return Offload { checksum: Checksum::Verified, ..Offload::NONE },
    };
    let checksum = Checksum::Partial { start: headers.l4, offset };
    let size = *random.one_of(&[100, 536, 1000, 1400]);
    let gso = random.chance(50).then(|| Gso { kind, size, ecn: kind != GsoKind::Udp && random.chance(20) });
    Offload { checksum, gso, outer: None }
}

/// Metadata that has nothing to do with the frame.
pub fn lie(random: &mut Random, len: usize) -> Offload {
    let mut number = |limit: usize| {
        let edges = [0, 1, 13, 14, 34, 54, len.saturating_sub(1), len, 65_535, random.below(limit + 1)];
        *random.one_of(&edges) as u16
    };
    let checksum = Checksum::Partial { start: number(len), offset: number(20) };
    let gso = Gso { kind: GsoKind::Tcp4, size: number(2000), ecn: false };
    let kind = *random.one_of(&[GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp]);
    let checksum = if random.chance(80) { checksum } else { Checksum::None };
    let gso = random.chance(60).then_some(Gso { kind, ecn: random.chance(20), ..gso });
    Offload { checksum, gso, outer: None }
}
