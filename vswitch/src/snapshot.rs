//! The snapshot: the configuration as workers read it, immutable and numbered.
//!
//! The switch compiles one from the desired state and the ports that are open, and hands the same one to
//! every worker's mailbox; a worker uses it from the next turn on. Ports and bridges are indices here;
//! their names are the control side's.

use std::sync::Arc;

use control::schema::{VlanId, VlanMode, VlanSet};
use pmd::Features;

use crate::flow::key::KeyMask;
use crate::overlay::Overlays;
use crate::tables::neighbour::Neighbours;

/// The configuration of all ports and bridges.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Rises with every snapshot; a cached decision of another generation is stale.
    pub generation: u32,
    /// By port index.
    pub ports: Vec<Option<PortView>>,
    /// By bridge index.
    pub bridges: Vec<Option<BridgeView>>,
    /// What leads to other hosts.
    pub overlays: Overlays,
    /// Who has which IP address: no part of the configuration, but wanted where that is.
    pub neighbours: Arc<Neighbours>,
}

impl Snapshot {
    /// The port of this index, if it is there.
    #[inline]
    pub fn port(&self, port: u16) -> Option<&PortView> {
        self.ports.get(port as usize)?.as_ref()
    }

    /// The name of a port or of a remote, for people.
    pub fn port_name(&self, port: u16) -> &str {
        match self.overlays.remote(port) {
            Some(remote) => &remote.name,
            None => self.port(port).map_or("(gone)", |view| &view.name),
        }
    }

    /// The bridge of this index, if it is there.
    #[inline]
    pub fn bridge(&self, bridge: u16) -> Option<&BridgeView> {
        self.bridges.get(bridge as usize)?.as_ref()
    }
}

/// What a port is part of, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A bridge.
    Bridge(u16),
    /// An underlay: its frames are not bridged, but may have frames for a bridge inside.
    Underlay(u16),
    /// Nothing: what comes in ends here.
    Nowhere,
}

impl Place {
    /// The bridge, if it is one.
    #[inline]
    pub fn bridge(self) -> Option<u16> {
        match self {
            Place::Bridge(bridge) => Some(bridge),
            Place::Underlay(_) | Place::Nowhere => None,
        }
    }
}

/// A port as workers see it.
#[derive(Clone, Debug)]
pub struct PortView {
    /// Its name, for `trace`.
    pub name: Box<str>,
    /// What it is part of.
    pub place: Place,
    /// What it does with tags.
    pub vlans: PortVlans,
    /// Exchanges nothing with other isolated ports.
    pub isolated: bool,
    /// May send a frame back where it came from.
    pub hairpin: bool,
    /// Longest network packet in bytes.
    pub mtu: u32,
    /// What its tx queues take.
    pub features: Features,
    /// The group that its senders are of, where a tunnel carries that.
    pub group: Option<u16>,
    /// Whether it is open.
    pub up: bool,
    /// The bits of a flow key that a decision about its frames may depend on.
    pub mask: KeyMask,
}

/// A bridge as workers see it.
#[derive(Clone, Debug)]
pub struct BridgeView {
    /// Its ports that are up.
    pub members: Vec<u16>,
    /// Flood frames to addresses that are not in the FDB.
    pub flood_unknown: bool,
    /// Flood broadcast.
    pub flood_broadcast: bool,
    /// Flood multicast.
    pub flood_multicast: bool,
    /// The overlays that stretch it over other hosts.
    pub stretch: Stretch,
    /// Overhear who has which IP address.
    pub overhears: bool,
}

/// Which overlays a bridge has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stretch {
    /// None: it ends with this host.
    #[default]
    None,
    /// One, which carries its frames as they are, tags and all.
    Whole(u16),
    /// One for each of some VLANs, in the order of these; their frames travel without a tag.
    Vlans(Box<[(u16, u16)]>),
}

impl Stretch {
    /// The overlay that carries a VLAN.
    #[inline]
    pub fn overlay(&self, vlan: u16) -> Option<u16> {
        match self {
            Stretch::None => None,
            Stretch::Whole(overlay) => Some(*overlay),
            Stretch::Vlans(map) => {
                map.binary_search_by_key(&vlan, |(vlan, _)| *vlan).ok().map(|at| map[at].1)
            }
        }
    }
}

/// No members, and floods everything.
impl Default for BridgeView {
    fn default() -> Self {
        BridgeView {
            members: Vec::new(),
            flood_unknown: true,
            flood_broadcast: true,
            flood_multicast: true,
            stretch: Stretch::None,
            overhears: false,
        }
    }
}

/// What a port does with tags, compiled for lookups.
///
/// A frame belongs to one VLAN of its bridge, 0 being that of frames that have none. The outer 802.1Q tag
/// counts; an 802.1ad tag (QinQ) is payload and passes through.
#[derive(Clone, Debug)]
pub struct PortVlans {
    /// Untagged and priority-tagged frames belong to this VLAN when they come in, and frames of it go out
    /// untagged.
    pub untagged: Option<u16>,
    /// VLANs that come in and go out tagged, one bit each.
    tagged: Box<[u64; 64]>,
    /// The configured mode is `access`, for the name of the drop reason.
    pub access: bool,
}

impl PortVlans {
    /// Compiles the configured mode.
    pub fn new(mode: &VlanMode) -> PortVlans {
        let mut tagged = Box::new([0u64; 64]);
        let mut add = |set: &VlanSet| {
            for vlan in set.iter() {
                tagged[vlan.get() as usize / 64] |= 1 << (vlan.get() % 64);
            }
        };
        let (untagged, access) = match mode {
            VlanMode::Transparent => {
                add(&VlanSet::all());
                (Some(0), false)
            }
            VlanMode::Access(vlan) => (Some(vlan.get()), true),
            VlanMode::Trunk { vlans, native } => {
                add(vlans);
                (native.map(VlanId::get), false)
            }
        };
        PortVlans { untagged, tagged, access }
    }

    /// Whether frames of `vlan` come in and go out with a tag.
    #[inline]
    pub fn has_tagged(&self, vlan: u16) -> bool {
        self.tagged[(vlan / 64 % 64) as usize] >> (vlan % 64) & 1 == 1
    }

    /// Whether the port is in `vlan`.
    #[inline]
    pub fn contains(&self, vlan: u16) -> bool {
        self.untagged == Some(vlan) || self.has_tagged(vlan)
    }
}
