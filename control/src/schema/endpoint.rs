//! The end of a `tap` or `veth` port that the container sees: an interface that the switch makes and sets up.

use std::net::IpAddr;

use serde_json::{Value as Json, json};

use super::name::{InterfaceName, Netns, PortName};
use super::prefix::IpPrefix;
use super::section::Section;
use crate::mac::MacAddress;

/// The end of a `tap` or `veth` port that the container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `netns`: the namespace that the interface is in. None: the host's own, that is the daemon's.
    pub netns: Option<Netns>,
    /// `ifname`: `eth0` by default in a namespace; the port's name on the host, which has an eth0 already.
    pub ifname: InterfaceName,
    /// `mac`: a station's address. None: the switch chooses one that stays the same for this port name.
    pub mac: Option<MacAddress>,
    /// `mtu` in bytes. None: what tunnels leave of their underlay's to a bridge with a VNI, 1500 in others.
    pub mtu: Option<u16>,
    /// `address`: set without duplicate address detection.
    pub addresses: Vec<IpPrefix>,
    /// `gateway`: default routes, at most one of each family, each in the prefix of one of the addresses.
    pub gateways: Vec<IpAddr>,
}

impl Endpoint {
    /// The MTU of an endpoint that does not say it, where nothing else does.
    pub const MTU: u16 = 1500;

    /// An endpoint with every setting at its default: `eth0` in a namespace, the port's name on the
    /// host. None if the port's name cannot be an interface's.
    pub fn new(port: &PortName, netns: Option<Netns>) -> Option<Self> {
        let ifname = match netns {
            Some(_) => InterfaceName::eth0(),
            None => InterfaceName::new(port.as_str()).ok()?,
        };
        Some(Self { netns, ifname, mac: None, mtu: None, addresses: Vec::new(), gateways: Vec::new() })
    }

    pub(super) fn fields(&self, port: &PortName, fields: &mut Vec<(&'static str, Json)>) {
        fields.extend(self.netns.as_ref().map(|netns| ("netns", json!(netns.to_string()))));
        let default = if self.netns.is_some() { "eth0" } else { port.as_str() };
        fields.extend((self.ifname != default).then(|| ("ifname", json!(self.ifname))));
        fields.extend(self.mac.map(|mac| ("mac", json!(mac))));
        fields.extend(self.mtu.map(|mtu| ("mtu", json!(mtu))));
        fields.extend((!self.addresses.is_empty()).then(|| ("address", json!(self.addresses))));
        match self.gateways.as_slice() {
            [] => {}
            [gateway] => fields.push(("gateway", json!(gateway))),
            gateways => fields.push(("gateway", json!(gateways))),
        }
    }
}

pub(super) fn decode_endpoint(section: &mut Section<'_, '_>, port: Option<&PortName>) -> Endpoint {
    let netns: Option<Netns> = section.text("netns");
    let ifname = section.text("ifname").or_else(|| default_ifname(section, port));
    let mac = decode_mac(section);
    let mtu = decode_mtu(section);
    let addresses = section.one_or_list("address");
    let addresses = addresses.iter().filter_map(|node| section.text_of("address", node)).collect();
    let gateways = section.one_or_list("gateway");
    let gateways = gateways.iter().filter_map(|node| section.text_of("gateway", node)).collect();
    let ifname = ifname.unwrap_or_else(InterfaceName::eth0);
    Endpoint { netns, ifname, mac, mtu, addresses, gateways }
}

/// `mac`: the address of a station.
pub(super) fn decode_mac(section: &mut Section<'_, '_>) -> Option<MacAddress> {
    let mac: Option<MacAddress> = section.text("mac");
    if let Some(mac) = mac.filter(|mac| !mac.is_station()) {
        let hint = "multicast, broadcast and zero addresses cannot be an interface's".to_owned();
        section.error_at("mac", format!("`mac`: {mac} is not the address of a station"), Some(hint));
    }
    mac
}

/// `mtu` in bytes.
pub(super) fn decode_mtu(section: &mut Section<'_, '_>) -> Option<u16> {
    section.integer("mtu", 68..=65_535, " bytes")
}

/// The interface name of an endpoint that does not say it.
fn default_ifname(section: &mut Section<'_, '_>, port: Option<&PortName>) -> Option<InterfaceName> {
    if section.had("ifname") || section.had("netns") {
        return None;
    }
    match InterfaceName::new(port?.as_str()) {
        Ok(ifname) => Some(ifname),
        Err(error) => {
            let message =
                format!("without `netns` and `ifname` the interface has the port's name, but {error}");
            section.error_at("name", message, Some("add `ifname` or `netns`".to_owned()));
            None
        }
    }
}
