//! The commands on overlays, and the values of their options.

use std::net::IpAddr;

use clap::Subcommand;
use control::MacAddress;
use control::schema::{BridgeName, TunnelName, VlanId, Vni};

#[derive(Debug, Subcommand)]
pub(crate) enum TunnelCommand {
    /// List all tunnels with their remotes
    List,
    /// Show everything about one tunnel
    Show {
        /// The tunnel
        name: TunnelName,
    },
    /// Measure the round trip and the path MTU to remotes
    Ping {
        /// The tunnel
        name: TunnelName,
        /// Only this remote
        #[arg(value_name = "ADDRESS")]
        remote: Option<IpAddr>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NeighbourCommand {
    /// List the neighbour table
    List {
        /// Only this bridge
        #[arg(long, value_name = "BRIDGE")]
        bridge: Option<BridgeName>,
        /// Only this VLAN; 0: untagged frames of ports without VLAN settings
        #[arg(long, value_name = "VLAN")]
        vlan: Option<u16>,
        /// Only this IP address
        #[arg(long, value_name = "ADDRESS")]
        ip: Option<IpAddr>,
        /// Only this MAC address
        #[arg(long, value_name = "MAC")]
        mac: Option<MacAddress>,
    },
}

/// A VNI.
pub(crate) fn vni(text: &str) -> Result<Vni, String> {
    let number: u32 = text.parse().map_err(|_| "a VNI is a number from 1 to 16777215".to_owned())?;
    Vni::new(number).map_err(|error| error.to_string())
}

/// A VLAN with its VNI: `10=5010`.
pub(crate) fn vlan_vni(text: &str) -> Result<(VlanId, Vni), String> {
    let (vlan, number) = text.split_once('=').ok_or("write VLAN=VNI, like 10=5010")?;
    let vlan: u16 = vlan.parse().map_err(|_| "a VLAN is a number from 1 to 4094".to_owned())?;
    Ok((VlanId::new(vlan).map_err(|error| error.to_string())?, vni(number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_with_their_vnis() {
        let (vlan, number) = vlan_vni("10=5010").unwrap();
        assert_eq!((vlan.get(), number.get()), (10, 5010));
        for text in ["10", "=5", "10=", "0=5", "10=0", "10=16777216", "4095=1"] {
            assert!(vlan_vni(text).is_err(), "{text}");
        }
    }
}
