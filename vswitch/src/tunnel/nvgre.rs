//! NVGRE (RFC 7637): GRE with a key, which has the number of the virtual subnet and eight bits of entropy in it.
//!
//! | bits | field |
//! | --- | --- |
//! | 1, 1, 1, 1 | C: a checksum; reserved; K: a key; S: a sequence number |
//! | 9 | reserved, the first two of them must be zero (RFC 2784 section 2.3) |
//! | 3 | version |
//! | 16 | protocol type |
//! | 24 | VSID, which is called VNI everywhere else here |
//! | 8 | FlowID |

use super::ETHERNET;
use crate::telemetry::drops::DropReason;

const KEY: u16 = 0x2000;
/// C, the reserved bits 1, 4 and 5 (routing, in RFC 1701), K, S, and the version. Bits 6 to 12 must be ignored
/// (RFC 2784 section 2.3).
const KNOWN: u16 = 0xfc07;

/// Reads a header: VSID and FlowID.
///
/// # Errors
/// [`DropReason::NvgreFlags`] if the flags are not exactly K: C and S must be zero, K must be one
/// (RFC 7637 section 3.2); [`DropReason::TunnelProtocol`] if what follows is no Ethernet frame.
#[inline]
pub fn read(header: u64) -> Result<(u32, u8), DropReason> {
    if (header >> 48) as u16 & KNOWN != KEY {
        return Err(DropReason::NvgreFlags);
    }
    if (header >> 32) as u16 != ETHERNET {
        return Err(DropReason::TunnelProtocol);
    }
    Ok(((header >> 8) as u32 & 0xff_ffff, header as u8))
}

/// The header of a frame.
#[inline]
pub fn header(vsid: u32, flow_id: u8) -> u64 {
    (KEY as u64) << 48 | (ETHERNET as u64) << 32 | u64::from(vsid & 0xff_ffff) << 8 | u64::from(flow_id)
}
