//! Geneve (RFC 8926).
//!
//! | bits | field |
//! | --- | --- |
//! | 2 | version |
//! | 6 | length of the options, in units of 4 bytes |
//! | 1 | O: a control message, no frame |
//! | 1 | C: a critical option is among the options |
//! | 6 | reserved |
//! | 16 | protocol type |
//! | 24 | VNI |
//! | 8 | reserved |
//!
//! Options follow: class (16 bits), type (8, of which the first says "critical"), reserved (3), length (5, in units of
//! 4 bytes, without these 4). We know none.

use super::ETHERNET;
use crate::telemetry::drops::DropReason;

/// The UDP port that IANA assigned (RFC 8926 section 3.3).
pub const PORT: u16 = 6081;

/// The most bytes that options can take.
pub const MAX_OPTIONS: usize = 63 * 4;

/// Reads what comes before the options: VNI, and the length of the options in bytes. Reserved bits are ignored
/// (RFC 8926 section 3.4).
///
/// # Errors
/// [`DropReason::GeneveVersion`], [`DropReason::GeneveControl`], and [`DropReason::TunnelProtocol`] if what follows is
/// no Ethernet frame.
#[inline]
pub fn read(header: u64) -> Result<(u32, usize), DropReason> {
    // RFC 8926 section 3.4: an unknown version must be dropped.
    if header >> 62 != 0 {
        return Err(DropReason::GeneveVersion);
    }
    // RFC 8926 section 3.4: the payload of a control message must not be forwarded.
    if header & 0x80 << 48 != 0 {
        return Err(DropReason::GeneveControl);
    }
    if (header >> 32) as u16 != ETHERNET {
        return Err(DropReason::TunnelProtocol);
    }
    Ok(((header >> 8) as u32 & 0xff_ffff, (header >> 56) as usize * 4))
}

/// Walks the options. The C bit may let a receiver skip them (RFC 8926 section 3.4); it is not asked, so an option
/// that says "critical" is heard also where the bit is missing.
///
/// # Errors
/// [`DropReason::GeneveOptions`] if their lengths do not add up (RFC 8926 section 3.5),
/// [`DropReason::GeneveCritical`] if one must be understood.
pub fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    while !options.is_empty() {
        let Some(&[_, _, kind, length]) = options.first_chunk() else {
            return Err(DropReason::GeneveOptions);
        };
        let length = 4 + usize::from(length & 0x1f) * 4;
        options = options.get(length..).ok_or(DropReason::GeneveOptions)?;
        // RFC 8926 section 3.5: a packet with a critical option that is not recognized must be dropped.
        if kind & 0x80 != 0 {
            return Err(DropReason::GeneveCritical);
        }
    }
    Ok(())
}

/// The header of a frame, without options.
#[inline]
pub fn header(vni: u32) -> u64 {
    (ETHERNET as u64) << 32 | u64::from(vni & 0xff_ffff) << 8
}
