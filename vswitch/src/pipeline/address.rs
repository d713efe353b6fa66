//! Stage `address`: whether frames between these addresses are bridged at all.

use super::{Context, Observer};
use crate::telemetry::drops::DropReason;

/// 01:80:c2:00:00:00 to 0f: spanning tree, pause, LACP, LLDP and the like stay on their link (IEEE 802.1Q,
/// table 8-1).
#[inline]
fn is_reserved(mac: [u8; 6]) -> bool {
    mac[..5] == [0x01, 0x80, 0xc2, 0x00, 0x00] && mac[5] <= 0x0f
}

/// Whether an address names a group (IEEE 802, 8.2).
#[inline]
pub fn is_group(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 1
}

/// Refuses what no bridge forwards.
#[inline]
pub fn check<O: Observer>(context: &Context<'_>, observer: &mut O) -> Result<(), DropReason> {
    let link = context.link;
    let result = if is_group(link.src) || link.src == [0; 6] {
        Err(DropReason::SourceInvalid)
    } else if is_reserved(link.dst) {
        Err(DropReason::ReservedAddress)
    } else {
        Ok(())
    };
    observer.stage(
        "address",
        || "source and destination address".into(),
        || match result {
            Ok(()) => "may be bridged".into(),
            Err(reason) => format!("drop: {}", reason.name()),
        },
    );
    result
}
