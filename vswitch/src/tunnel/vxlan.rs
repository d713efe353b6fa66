//! VXLAN (RFC 7348), with the group policy extension (draft-smith-vxlan-group-policy).
//!
//! | bits | field |
//! | --- | --- |
//! | 1 | G: there is a group (extension) |
//! | 3 | reserved |
//! | 1 | I: there is a VNI |
//! | 4 | reserved |
//! | 1, 1, 2 | reserved; D: do not learn the source; reserved (extension) |
//! | 1, 3 | A: the policy was applied already; reserved (extension) |
//! | 16 | group of the source (extension) |
//! | 24 | VNI |
//! | 8 | reserved |

use std::fmt;

use crate::telemetry::drops::DropReason;

/// The UDP port that IANA assigned (RFC 7348 section 4).
pub const PORT: u16 = 4789;

const HAS_VNI: u64 = 0x08 << 56;
const HAS_GROUP: u32 = 0x80 << 24;
const DO_NOT_LEARN: u32 = 0x40 << 16;
const APPLIED: u32 = 0x08 << 16;

/// The first word of a VXLAN header, which has the group policy in it, if there is one. A caller whose tunnel is
/// without the extension does not ask: to it all of this is reserved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy(u32);

impl Policy {
    /// The group of whoever sent the inner frame.
    #[inline]
    pub fn group(self) -> Option<u16> {
        (self.0 & HAS_GROUP != 0).then_some(self.0 as u16)
    }

    /// Whether the receiver is asked not to learn the inner source address.
    #[inline]
    pub fn do_not_learn(self) -> bool {
        self.0 & (HAS_GROUP | DO_NOT_LEARN) == HAS_GROUP | DO_NOT_LEARN
    }

    /// Whether the sender's side has applied the policy already.
    #[inline]
    pub fn is_applied(self) -> bool {
        self.0 & (HAS_GROUP | APPLIED) == HAS_GROUP | APPLIED
    }
}

/// What it says, behind something else: `, group 7, policy applied`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(group) = self.group() else { return Ok(()) };
        write!(f, ", group {group}")?;
        f.write_str(if self.do_not_learn() { ", not to be learned" } else { "" })?;
        f.write_str(if self.is_applied() { ", policy applied" } else { "" })
    }
}

impl PartialEq for Policy {
    /// Reserved bits do not count.
    fn eq(&self, other: &Policy) -> bool {
        let said = |of: &Policy| (of.group(), of.do_not_learn(), of.is_applied());
        said(self) == said(other)
    }
}

impl Eq for Policy {}

/// Reads a header: its VNI, and the word with the group policy. All reserved bits are ignored (RFC 7348 section 5).
///
/// # Errors
/// [`DropReason::VxlanFlags`] if I is not set (RFC 7348 section 5: it must be, for a VNI to be valid).
#[inline]
pub fn read(header: u64) -> Result<(u32, Policy), DropReason> {
    if header & HAS_VNI == 0 {
        return Err(DropReason::VxlanFlags);
    }
    Ok(((header >> 8) as u32 & 0xff_ffff, Policy((header >> 32) as u32)))
}

/// The header of a frame.
#[inline]
pub fn header(vni: u32, group: Option<u16>) -> u64 {
    let policy = group.map_or(0, |group| HAS_GROUP | u32::from(group));
    HAS_VNI | u64::from(policy) << 32 | u64::from(vni & 0xff_ffff) << 8
}
