//! Stage `forward`: where the destination is.

use super::address::is_group;
use super::learn::Source;
use super::{Context, Destination, Observer};
use crate::tables::fdb::{Fdb, Learned, MacKey};
use crate::tables::versions::Witness;
use crate::telemetry::drops::DropReason;

/// Looks the destination up, or decides to flood. The witness covers an address without an entry too.
#[inline]
pub fn lookup<O: Observer>(
    context: &Context<'_>,
    fdb: &Fdb,
    vlan: u16,
    source: &Source,
    observer: &mut O,
) -> (Result<Destination, DropReason>, Witness) {
    let mac = context.link.dst;
    let (result, witness) = if is_group(mac) {
        let (flood, reason) = if mac == [0xff; 6] {
            (context.bridge.flood_broadcast, DropReason::FloodBroadcast)
        } else {
            (context.bridge.flood_multicast, DropReason::FloodMulticast)
        };
        (if flood { Ok(Destination::Flood) } else { Err(reason) }, Witness::NOTHING)
    } else {
        let lookup = fdb.lookup(MacKey { bridge: context.bridge_index, vlan, mac });
        // A station that talks to itself: a described frame has not been learned, but counts as if it were.
        let is_source =
            mac == context.link.src && matches!(source.outcome, Learned::New | Learned::Moved { .. });
        let result = match lookup.found {
            _ if is_source => Ok(Destination::Port(context.in_port)),
            Some(found) => Ok(Destination::Port(found.port)),
            None if context.bridge.flood_unknown => Ok(Destination::Flood),
            None => Err(DropReason::FloodUnknown),
        };
        (result, lookup.witness)
    };
    observer.stage(
        "forward",
        || "destination address, VLAN, FDB".into(),
        || match result {
            Ok(Destination::Port(port)) => format!("known behind {}", context.snapshot.port_name(port)),
            Ok(Destination::Flood) => "flood".into(),
            Err(reason) => format!("drop: {}", reason.name()),
        },
    );
    (result, witness)
}
