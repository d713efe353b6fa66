//! The MTU that a container's interface is made with.
//!
//! A bridge that spans hosts takes smaller packets than its underlay: what a tunnel puts in front has to fit, too. A
//! `tap` or `veth` port of such a bridge that does not say its `mtu` gets what is left in any tunnel of the bridge, so
//! that its container knows from its first packet on. It keeps that until it is opened again; where it is too large by
//! then, or is set so, senders are told like others.

use control::schema::{self, Bridge, Config, Endpoint, PortKind, Tap, Tunnel, Veth, VlanMode};
use pmd::netdev::{Error, Links, Netns};

use super::compile::kind;

/// What every network takes: RFC 791, 3.2, and RFC 8200, 5.
const LEAST: (u16, u16) = (576, 1280);

/// A port as it is to be opened.
pub(super) fn sized(config: &Config, port: &schema::Port) -> schema::Port {
    let mut sized = port.clone();
    if let PortKind::Tap(Tap { endpoint }) | PortKind::Veth(Veth { endpoint, .. }) = &mut sized.kind
        && endpoint.mtu.is_none()
    {
        endpoint.mtu = overlay_mtu(config, port, endpoint);
    }
    sized
}

/// What fits into every tunnel of the port's bridge; `None` if it has none.
fn overlay_mtu(config: &Config, port: &schema::Port, endpoint: &Endpoint) -> Option<u16> {
    let bridge = config.bridges.iter().find(|bridge| port.bridge.as_ref() == Some(&bridge.name))?;
    let uses = |tunnel: &&Tunnel| bridge.vnis().any(|(_, vni)| bridge.uses(tunnel, vni));
    let left = config.tunnels.iter().filter(uses).map(|tunnel| left_inside(config, tunnel)).min()?;
    let left = left.saturating_sub(tag_inside(bridge, port)).try_into().unwrap_or(u16::MAX);
    let has_ipv6 = endpoint.addresses.iter().any(|prefix| prefix.address().is_ipv6());
    Some(left.max(if has_ipv6 { LEAST.1 } else { LEAST.0 }))
}

/// What a tunnel leaves of its underlay's MTU.
fn left_inside(config: &Config, tunnel: &Tunnel) -> u32 {
    let underlay = config.underlay(tunnel.underlay.as_str());
    let mtu = underlay.and_then(|underlay| config.port(underlay.port.as_str())).map_or(DEFAULT, mtu_of);
    let is_ipv6 = tunnel.places().chain(tunnel.local).any(|ip| ip.is_ipv6());
    kind(tunnel.kind).mtu_inside(mtu, is_ipv6)
}

/// Bytes of the tag that frames of the port keep inside a tunnel.
fn tag_inside(bridge: &Bridge, port: &schema::Port) -> u32 {
    if bridge.vni.is_some() && port.vlan != VlanMode::Transparent { 4 } else { 0 }
}

const DEFAULT: u32 = Endpoint::MTU as u32;

/// The MTU of an uplink: as its configuration says, or its device has.
fn mtu_of(uplink: &schema::Port) -> u32 {
    match &uplink.kind {
        PortKind::Tap(Tap { endpoint }) | PortKind::Veth(Veth { endpoint, .. }) => {
            endpoint.mtu.map_or(DEFAULT, Into::into)
        }
        PortKind::VhostUser(user) => user.mtu.into(),
        PortKind::Packet(_) | PortKind::Afxdp(_) => {
            // That it is missing, if it is, is told when it is opened.
            device_mtu(uplink).ok().flatten().unwrap_or(DEFAULT)
        }
        PortKind::Pcap(_) | PortKind::Null(_) => DEFAULT,
    }
}

fn device_mtu(uplink: &schema::Port) -> Result<Option<u32>, Error> {
    let Some((netns, device)) = uplink.kind.interface() else { return Ok(None) };
    let netns = netns.map(|netns| netns.path().display().to_string());
    let link = Links::open(&Netns::open_or_own(netns.as_deref())?)?.find(device.as_str())?;
    Ok(link.map(|link| link.mtu))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mtu(further: &str, port: &str, tunnels: &str) -> Option<u16> {
        let text = format!(
            "[[bridge]]\nname = \"blue\"\n{further}\n\
             [[port]]\nname = \"web\"\nbridge = \"blue\"\ntype = \"tap\"\n{port}\n\
             [[port]]\nname = \"up\"\ntype = \"tap\"\nmtu = 2000\n\
             [[underlay]]\nname = \"core\"\nport = \"up\"\naddress = [\"192.0.2.1/24\", \"2001:db8::1/64\"]\n{tunnels}"
        );
        let config = Config::parse(&text, "test").unwrap();
        let sized = sized(&config, config.port("web").unwrap());
        sized.kind.endpoint().unwrap().mtu
    }

    fn tunnel(kind: &str, remote: &str) -> String {
        format!(
            "[[tunnel]]\nname = \"{kind}\"\ntype = \"{kind}\"\nunderlay = \"core\"\nremote = \"{remote}\"\n"
        )
    }

    #[test]
    fn a_container_gets_what_its_narrowest_tunnel_leaves() {
        let (vxlan, nvgre) = (tunnel("vxlan", "192.0.2.2"), tunnel("nvgre", "2001:db8::2"));
        assert_eq!(mtu("vni = 5001", "", &vxlan), Some(1950));
        assert_eq!(mtu("vni = 5001", "", &(vxlan.clone() + &nvgre)), Some(1938));
        assert_eq!(mtu("vni = 5001", "mtu = 1500", &vxlan), Some(1500), "what is set holds");
        assert_eq!(mtu("vni = 5001", "vlan = 10", &vxlan), Some(1946), "the tag is inside");
        assert_eq!(mtu("vlan_vni = {10 = 5010}", "vlan = 10", &vxlan), Some(1950), "it is not");
        assert_eq!(mtu("vni = 5001", "", ""), None);
        assert_eq!(mtu("", "", &vxlan), None);
        assert_eq!(mtu("vni = 5001\ntunnels = [\"vxlan\"]", "", &(vxlan + &nvgre)), Some(1950));
    }
}
