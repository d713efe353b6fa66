//! Compiling a snapshot from the desired state and the ports that are open.

use std::sync::Arc;

use super::State;
use crate::overlay::Overlays;
use crate::pipeline;
use crate::snapshot::{BridgeView, Place, PortView, PortVlans, Snapshot, Stretch};

impl State {
    /// Builds the snapshot of the current state and gives it to every worker. Also sets the limits that the
    /// tables keep themselves.
    pub(super) fn publish(&mut self) {
        let mut snapshot = Snapshot {
            generation: self.snapshot.generation.wrapping_add(1),
            ports: vec![None; self.ports.values().map(|port| port.index as usize + 1).max().unwrap_or(0)],
            bridges: vec![None; self.bridges.values().map(|index| *index as usize + 1).max().unwrap_or(0)],
            overlays: Overlays::new(self.limits.ports as u16),
        };
        for bridge in &self.config.bridges {
            let Some(&index) = self.bridges.get(&bridge.name) else { continue };
            self.fdb.set_bridge_limit(index, bridge.fdb_limit.unwrap_or(u32::MAX));
            snapshot.bridges[index as usize] = Some(BridgeView {
                members: Vec::new(),
                flood_unknown: bridge.flood_unknown,
                flood_broadcast: bridge.flood_broadcast,
                flood_multicast: bridge.flood_multicast,
                stretch: Stretch::None,
            });
        }
        for port in self.ports.values() {
            let bridge = port.config.bridge.as_ref().and_then(|bridge| self.bridges.get(bridge));
            let Some(&bridge) = bridge else { continue };
            let (mtu, features) = match port.open() {
                Some(open) => (open.mtu(), open.features()),
                None => Default::default(),
            };
            self.fdb.set_port_limit(port.index, port.config.fdb_limit.unwrap_or(u32::MAX));
            snapshot.ports[port.index as usize] = Some(PortView {
                name: port.config.name.as_str().into(),
                place: Place::Bridge(bridge),
                vlans: PortVlans::new(&port.config.vlan),
                isolated: port.config.isolated,
                hairpin: port.config.hairpin,
                mtu,
                features,
                up: port.open().is_some(),
                mask: pipeline::mask(),
            });
            if port.open().is_some()
                && let Some(Some(bridge)) = snapshot.bridges.get_mut(bridge as usize)
            {
                bridge.members.push(port.index);
            }
        }
        self.snapshot = Arc::new(snapshot);
        self.crew.publish(&self.snapshot);
    }
}
