//! Explicit congestion notification through a tunnel (RFC 6040).
//!
//! On the way in the outer header takes over the inner codepoint ("normal mode", section 4.1), which
//! [`Template::put`](super::Template::put) does. On the way out what routers have marked on the outer header is put
//! into the inner one, as section 4.2 says:
//!
//! | inner \ outer | Not-ECT | ECT(0) | ECT(1) | CE |
//! | --- | --- | --- | --- | --- |
//! | Not-ECT | Not-ECT | Not-ECT | Not-ECT | drop |
//! | ECT(0) | ECT(0) | ECT(0) | ECT(1) | CE |
//! | ECT(1) | ECT(1) | ECT(1) | ECT(1) | CE |
//! | CE | CE | CE | CE | CE |

use super::inner::Ip;
use crate::telemetry::drops::DropReason;

/// Not capable of it.
pub const NOT_ECT: u8 = 0b00;
/// Capable; the other sort.
pub const ECT1: u8 = 0b01;
/// Capable; the usual sort.
pub const ECT0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// The codepoint that leaves the tunnel, from the last two bits of `outer` and `inner`.
///
/// # Errors
/// [`DropReason::EcnForbidden`] for the one combination that must be dropped: a router marked what cannot carry marks.
#[inline]
pub fn leaving(outer: u8, inner: u8) -> Result<u8, DropReason> {
    match (outer & CE, inner & CE) {
        (CE, NOT_ECT) => Err(DropReason::EcnForbidden),
        (CE, _) => Ok(CE),
        (ECT1, ECT0) => Ok(ECT1),
        (_, inner) => Ok(inner),
    }
}

/// Puts the outer marks into the inner frame that `head` begins. A frame that is no IP packet has no place for them,
/// and stays as it is.
///
/// # Errors
/// [`DropReason::EcnForbidden`], as of [`leaving`].
#[inline]
pub fn apply(outer_tos: u8, head: &mut [u8]) -> Result<(), DropReason> {
    // Only CE and ECT(1) change anything, and have that bit in common.
    if outer_tos & ECT1 == 0 {
        return Ok(());
    }
    mark(outer_tos, head)
}

#[cold]
fn mark(outer_tos: u8, head: &mut [u8]) -> Result<(), DropReason> {
    match Ip::of(head) {
        Some(Ip::V4(at)) => {
            let Some(header) = head.get_mut(at..).and_then(|header| header.first_chunk_mut::<20>()) else {
                return Ok(());
            };
            let ecn = leaving(outer_tos, header[1])?;
            let before = u16::from_be_bytes([header[0], header[1]]);
            header[1] = header[1] & !CE | ecn;
            let after = u16::from_be_bytes([header[0], header[1]]);
            let checksum = updated(u16::from_be_bytes([header[10], header[11]]), before, after);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        Some(Ip::V6(at)) => {
            let Some(header) = head.get_mut(at..).and_then(|header| header.first_chunk_mut::<40>()) else {
                return Ok(());
            };
            let ecn = leaving(outer_tos, header[1] >> 4)?;
            header[1] = header[1] & !(CE << 4) | ecn << 4;
        }
        None => {}
    }
    Ok(())
}

/// A checksum after one word that it covers has changed (RFC 1624 section 3, equation 3).
#[inline]
fn updated(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
