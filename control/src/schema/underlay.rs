//! `[[underlay]]`: an IP network that tunnels run over, behind one port.
//!
//! Its addresses, routes and neighbours are the switch's own, or those of the host's kernel, with which it
//! then shares the port.

use std::net::IpAddr;

use serde_json::{Value as Json, json};

use super::name::{PortName, UnderlayName};
use super::port::PortKind;
use super::prefix::{IpPrefix, is_station};
use super::section::{Marks, Section};
use super::vlan::VlanId;
use super::{Config, Port};

/// `[[underlay]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// `name`.
    pub name: UnderlayName,
    /// `port`: the uplink, a port without `bridge`.
    pub port: PortName,
    /// `share`: the host's kernel keeps the device, its addresses and its routes. None: with an `afxdp` port.
    pub share: Option<bool>,
    /// `address`: ours; none if the underlay is shared.
    pub addresses: Vec<IpPrefix>,
    /// `route`: what is behind which router; none if the underlay is shared.
    pub routes: Vec<Route>,
    /// `vlan`: the frames have this tag. None: they have none.
    pub vlan: Option<VlanId>,
}

/// An entry of `route`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// `to`: a network.
    pub to: IpPrefix,
    /// `via`: a router that one of the underlay's addresses reaches directly.
    pub via: IpAddr,
}

impl Underlay {
    const KEYS: [&str; 6] = ["name", "port", "share", "address", "route", "vlan"];

    /// An underlay with every setting at its default.
    pub fn new(name: UnderlayName, port: PortName) -> Self {
        Self { name, port, share: None, addresses: Vec::new(), routes: Vec::new(), vlan: None }
    }

    /// True if the host's kernel has the addresses, the routes and the neighbours.
    pub fn is_shared(&self, config: &Config) -> bool {
        self.is_shared_on(config.port(self.port.as_str()))
    }

    pub(super) fn is_shared_on(&self, port: Option<&Port>) -> bool {
        let default = || port.is_some_and(|port| matches!(port.kind, PortKind::Afxdp(_)));
        self.share.unwrap_or_else(default)
    }

    pub(super) fn decode(mut section: Section<'_, '_>) -> (Option<Self>, Marks) {
        let name = section.required_text("name", "\"core\"");
        let port = section.required_text("port", "\"uplink\"");
        let share = section.boolean("share");
        let addresses = decode_addresses(&mut section);
        let routes = section.one_or_list("route");
        let routes =
            routes.into_iter().filter_map(|node| Route::decode(section.inner("route", node)?)).collect();
        let vlan = section.integer("vlan", 1..=4094, "").and_then(|id| VlanId::new(id).ok());
        let underlay = match (name, port) {
            (Some(name), Some(port)) => Some(Self { name, port, share, addresses, routes, vlan }),
            _ => None,
        };
        (underlay, section.finish(&Self::KEYS))
    }

    pub(super) fn fields(&self) -> Vec<(&'static str, Json)> {
        let mut fields = vec![("name", json!(self.name)), ("port", json!(self.port))];
        fields.extend(self.share.map(|share| ("share", json!(share))));
        fields.extend((!self.addresses.is_empty()).then(|| ("address", json!(self.addresses))));
        let routes: Vec<Json> =
            self.routes.iter().map(|route| json!({ "to": route.to, "via": route.via })).collect();
        fields.extend((!routes.is_empty()).then(|| ("route", json!(routes))));
        fields.extend(self.vlan.map(|vlan| ("vlan", json!(vlan))));
        fields
    }
}

impl Route {
    const KEYS: [&str; 2] = ["to", "via"];

    fn decode(mut section: Section<'_, '_>) -> Option<Self> {
        let to = section.required_text::<IpPrefix>("to", "\"10.2.0.0/16\"");
        let via = section.required_text::<IpAddr>("via", "\"10.1.0.1\"");
        if let Some(to) = to.filter(|to| to.network() != *to) {
            let hint = Some(format!("write `to = \"{}\"`", to.network()));
            section.error_at("to", format!("`to`: {to} is an address, and a network is needed"), hint);
        }
        if let Some((to, via)) = to.zip(via).filter(|(to, via)| to.address().is_ipv4() != via.is_ipv4()) {
            section.error_at("via", format!("`via`: {via} is not of the family of {to}"), None);
        }
        section.finish(&Self::KEYS);
        Some(Self { to: to?, via: via? })
    }
}

/// `address`: of a station, each with the length of its prefix.
pub(super) fn decode_addresses(section: &mut Section<'_, '_>) -> Vec<IpPrefix> {
    let mut addresses = Vec::new();
    for node in section.one_or_list("address") {
        let Some(prefix) = section.text_of::<IpPrefix>("address", &node) else { continue };
        if !is_station(prefix.address()) {
            let message = format!("`address`: {} is not the address of a station", prefix.address());
            section.error(&node.span, message, None);
        }
        addresses.push(prefix);
    }
    addresses
}
