//! Tunnels on the wire: Ethernet frames inside IP packets, as VXLAN, NVGRE and Geneve put them there.
//!
//! Pure functions over bytes, with no allocation. Who calls them: the worker, for the frames of an underlay
//! ([`Memo::inner_len`], or [`outer::parse`] where that has no answer) and for every frame that leaves by a tunnel
//! ([`Template::put`]). What they may not know: ports, configuration, tables; whether a VTEP or a VNI is known to us is for the caller to say.
//!
//! | file | what it is |
//! | --- | --- |
//! | `outer.rs` | Is this frame of the underlay a tunnel's, and what do its outer headers say? |
//! | `memo.rs` | Are they those of the frame before? |
//! | `vxlan.rs`, `nvgre.rs`, `geneve.rs` | a tunnel header each; all three have eight bytes that are always there |
//! | `template.rs` | the outer headers of one remote, ready but for what depends on the frame |
//! | `inner.rs` | what the outer header takes over from the frame inside: TOS, and the entropy of its flow |
//! | `ecn.rs` | explicit congestion notification through a tunnel |
//!
//! Exactly one level is read: whatever is inside is an Ethernet frame, and if that is a tunnel's in its turn, it is
//! its receiver's to open.

pub mod ecn;
pub mod geneve;
pub mod inner;
pub mod memo;
pub mod nvgre;
pub mod outer;
pub mod template;
pub mod vxlan;

pub use inner::Inner;
pub use memo::Memo;
pub use outer::{Claims, Outer, parse};
pub use template::{Fill, Setup, Template};
pub use vxlan::Policy;

/// How frames are encapsulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// VXLAN (RFC 7348): over UDP.
    #[default]
    Vxlan,
    /// NVGRE (RFC 7637): over GRE.
    Nvgre,
    /// Geneve (RFC 8926): over UDP.
    Geneve,
}

/// The bytes of a tunnel header that are always there, whatever the kind; of NVGRE it is the GRE header with its key.
pub const BASE: usize = 8;

/// The protocol type of an Ethernet frame, in GRE and in Geneve: transparent Ethernet bridging (RFC 1701).
pub const ETHERNET: u16 = 0x6558;

/// The shortest inner frame: an Ethernet header.
pub const MIN_INNER: usize = 14;

impl Kind {
    /// Bytes between the outer IP header and the inner frame, with no options.
    pub const fn header_len(self) -> usize {
        match self {
            Kind::Vxlan | Kind::Geneve => 8 + BASE,
            Kind::Nvgre => BASE,
        }
    }

    /// Bytes that a tunnel takes of the MTU of its underlay: outer IP, UDP and tunnel header. (An MTU counts what an
    /// Ethernet header or its tag is followed by.)
    pub const fn overhead(self, ipv6: bool) -> usize {
        (if ipv6 { 40 } else { 20 }) + self.header_len()
    }

    /// Bytes put in front of an inner frame.
    pub const fn outer_len(self, ipv6: bool, tagged: bool) -> usize {
        14 + (if tagged { 4 } else { 0 }) + self.overhead(ipv6)
    }

    /// The MTU of untagged frames inside, where packets of up to `path_mtu` bytes reach the remote: what is left for
    /// the inner frame, less its Ethernet header (and less 4 more for each tag that frames keep inside).
    pub const fn mtu_inside(self, path_mtu: u32, ipv6: bool) -> u32 {
        path_mtu.saturating_sub((self.overhead(ipv6) + MIN_INNER) as u32)
    }
}

#[cfg(test)]
mod tests;
