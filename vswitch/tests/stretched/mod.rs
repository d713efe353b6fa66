//! A bridge of two ports that is stretched over other hosts, in memory: what tests of overlays and of neighbours begin
//! with.

use std::net::IpAddr;
use std::sync::Arc;

use control::schema::VlanMode;
use pmd::mem::Settings;
use vswitch::lab::{Design, Lab, PortDesign};
use vswitch::overlay::{OverlayView, RemoteView, UnderlayView, address};
use vswitch::pipeline::remote_mask;
use vswitch::snapshot::{Place, Stretch};
use vswitch::tunnel::{Fill, Kind, Setup, Template};

/// Two ports of the bridge.
pub const WEB: u16 = 0;
pub const DB: u16 = 1;
pub const UPLINK: u16 = 2;
/// Where the switch itself speaks.
pub const AGENT: u16 = 3;
/// The first remote; others have the numbers behind it.
pub const EAST: u16 = 48;
pub const VNI: u32 = 5001;
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 9, 1];
pub const NEXT_HOP: [u8; 6] = [2, 0, 0, 0, 9, 2];

/// The address of a host of the underlay; ours is the first.
pub fn host(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

/// What is between two of them.
pub fn setup(kind: Kind, from: u8, to: u8) -> Setup {
    Setup {
        kind,
        src_mac: OUR_MAC,
        dst_mac: NEXT_HOP,
        vlan: None,
        src: host(from),
        dst: host(to),
        port: if kind == Kind::Nvgre { 0 } else { 4789 },
        ttl: 64,
        df: true,
        dscp: None,
        flow_id: None,
        checksum: false,
        gbp: false,
    }
}

/// The remote that host `number` is.
pub fn remote(setup: &Setup) -> RemoteView {
    RemoteView {
        name: format!("tunnel/{}", setup.dst).into(),
        tunnel: 0,
        underlay: 0,
        address: address(setup.dst),
        local: address(setup.src),
        group: None,
        learning: true,
        gbp: setup.gbp,
        outlet: UPLINK,
        template: Template::new(setup).map(Arc::new),
        mtu: setup.kind.mtu_inside(1500, false),
    }
}

/// The switch: ports with these VLANs, and a remote for each of the tunnels' ends.
pub fn stretched(design: Design, vlan: &VlanMode, ends: &[Setup]) -> Lab {
    let mut lab = Lab::new(Design { first_remote: EAST, ..design }).unwrap();
    let wire = Settings { mtu: 9000, ..Settings::default() };
    for _ in [WEB, DB, UPLINK, AGENT] {
        lab.add_port(PortDesign { wire, vlan: vlan.clone(), ..PortDesign::default() });
    }
    lab.edit(|snapshot| {
        for port in [UPLINK, AGENT] {
            let view = snapshot.ports[usize::from(port)].as_mut().unwrap();
            (view.place, view.mask) = (Place::Underlay(0), remote_mask());
        }
        let kind = ends[0].kind;
        let underlay = UnderlayView {
            port: UPLINK,
            agent: Some(AGENT),
            vlan: None,
            mac: OUR_MAC,
            ports: vec![(4789, kind)],
            gre: kind == Kind::Nvgre,
        };
        snapshot.overlays.put_underlay(0, underlay);
        for (index, end) in (EAST..).zip(ends) {
            snapshot.overlays.put_remote(index, kind, end.port, remote(end));
        }
        let flood: Arc<[u16]> = (EAST..).take(ends.len()).collect();
        snapshot.overlays.add(OverlayView { vni: VNI, bridge: 0, vlan: None, flood }, [0]);
        let bridge = snapshot.bridges[0].as_mut().unwrap();
        (bridge.stretch, bridge.overhears) = (Stretch::Whole(0), true);
    });
    lab
}

pub fn mac(station: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, station]
}

/// What a host puts around a frame for us.
pub fn wrapped(kind: Kind, from: u8, vni: u32, inner: &[u8]) -> Vec<u8> {
    let setup = Setup { src_mac: NEXT_HOP, dst_mac: OUR_MAC, ..setup(kind, from, 1) };
    let template = Template::new(&setup).unwrap();
    let mut bytes = vec![0; template.len()];
    template.write(&mut bytes, &Fill { vni, inner_len: inner.len() as u32, ..Fill::default() });
    bytes.extend_from_slice(inner);
    bytes
}
