//! Templates: the outer headers of one remote, ready but for what depends on the frame.
//!
//! A template is made when a remote or its path changes, and written in front of every frame that goes there:
//! [`Template::write`] copies it and fills in lengths, VNI, TOS, entropy and checksums, at the same cost for every frame.
//! What the outgoing frame still needs as a whole is [`Template::offload`]'s to say.

use std::net::IpAddr;

use pmd::checksum::Sum;
use pmd::{Encapsulation, Packed};

use super::{BASE, Kind, geneve, nvgre, vxlan};
use crate::flow::numbers::{ethertype, protocol};

/// The longest template: Ethernet with a tag, IPv6, UDP, tunnel header.
pub const MAX: usize = Kind::Vxlan.outer_len(true, true);

/// What a template is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How frames are encapsulated.
    pub kind: Kind,
    /// Address of the out port.
    pub src_mac: [u8; 6],
    /// Address of the next hop.
    pub dst_mac: [u8; 6],
    /// The VLAN of the underlay.
    pub vlan: Option<u16>,
    /// Our address.
    pub src: IpAddr,
    /// The remote's address, of the same family.
    pub dst: IpAddr,
    /// UDP destination port.
    pub port: u16,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Whether IPv4 packets must not be fragmented.
    pub df: bool,
    /// DSCP of all packets; `None` to take over that of the inner frame.
    pub dscp: Option<u8>,
    /// FlowID of all packets of NVGRE; `None` for entropy.
    pub flow_id: Option<u8>,
    /// Whether UDP packets have a checksum.
    pub checksum: bool,
    /// Whether VXLAN has the group policy extension.
    pub gbp: bool,
}

/// What depends on the frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fill {
    /// VNI or VSID.
    pub vni: u32,
    /// Bytes of the inner frame.
    pub inner_len: u32,
    /// [`Inner::entropy`](super::Inner::entropy).
    pub entropy: u32,
    /// [`Inner::tos`](super::Inner::tos).
    pub tos: u8,
    /// The group of the sender.
    pub group: Option<u16>,
    /// IPv4 identification, for packets that may be fragmented: unique among those under way (RFC 6864 section 4.3).
    /// Others have none.
    pub id: u16,
}

/// The outer headers of one remote.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// The Ethernet header, with its tag if there is one.
    link: [u8; 18],
    /// The IP header, with zeros where it depends on the frame.
    ip: [u8; 40],
    kind: Kind,
    is_tagged: bool,
    ipv6: bool,
    checksum: bool,
    gbp: bool,
    flow_id: Option<u8>,
    port: u16,
    /// The bits of the inner TOS that are taken over, and the others.
    tos_mask: u8,
    tos: u8,
    /// All ones if packets may be fragmented.
    id_mask: u16,
    /// The sum of `ip`, if that is IPv4.
    header_sum: u32,
}

impl Template {
    /// Makes a template; `None` if the addresses are of different families.
    pub fn new(setup: &Setup) -> Option<Template> {
        let carried = if setup.kind == Kind::Nvgre { protocol::GRE } else { protocol::UDP };
        let mut ip = [0; 40];
        let ethertype = match (setup.src, setup.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                // RFC 6864 section 4.1: an atomic packet needs no identification.
                let flags = if setup.df { 0x40 } else { 0 };
                ip[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, flags, 0, setup.ttl, carried, 0, 0]);
                ip[12..16].copy_from_slice(&src.octets());
                ip[16..20].copy_from_slice(&dst.octets());
                ethertype::IPV4
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, carried, setup.ttl]);
                ip[8..24].copy_from_slice(&src.octets());
                ip[24..40].copy_from_slice(&dst.octets());
                ethertype::IPV6
            }
            _ => return None,
        };
        let mut link = [0; 18];
        link[..6].copy_from_slice(&setup.dst_mac);
        link[6..12].copy_from_slice(&setup.src_mac);
        link[12..14].copy_from_slice(&ethertype.to_be_bytes());
        if let Some(vlan) = setup.vlan {
            link[12..14].copy_from_slice(&ethertype::VLAN.to_be_bytes());
            link[14..16].copy_from_slice(&(vlan & 0xfff).to_be_bytes());
            link[16..18].copy_from_slice(&ethertype.to_be_bytes());
        }
        let mut sum = Sum::default();
        sum.add(&ip);
        Some(Template {
            link,
            ip,
            kind: setup.kind,
            is_tagged: setup.vlan.is_some(),
            ipv6: setup.src.is_ipv6(),
            checksum: setup.checksum && setup.kind != Kind::Nvgre,
            gbp: setup.gbp,
            flow_id: setup.flow_id,
            port: setup.port,
            tos_mask: if setup.dscp.is_some() { 0b11 } else { 0xff },
            tos: setup.dscp.unwrap_or(0) << 2,
            id_mask: if setup.df { 0 } else { 0xffff },
            header_sum: u16::from_be_bytes(sum.partial()).into(),
        })
    }

    /// Whether the headers say of which group the sender is.
    #[inline]
    pub fn has_group(&self) -> bool {
        self.gbp
    }

    /// How long the headers are.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "headers are not a collection")]
    pub fn len(&self) -> usize {
        self.kind.outer_len(self.ipv6, self.is_tagged)
    }

    /// Where the IP header begins.
    #[inline]
    pub fn network(&self) -> usize {
        if self.is_tagged { 18 } else { 14 }
    }

    /// Where the UDP or GRE header begins.
    #[inline]
    pub fn transport(&self) -> usize {
        self.len() - self.kind.header_len()
    }

    /// The longest inner frame that a packet can be written for.
    #[inline]
    pub fn max_inner(&self) -> usize {
        usize::from(u16::MAX) - self.kind.overhead(self.ipv6)
    }

    /// Writes the headers of one frame to `out`, which is [`len`](Self::len) bytes long and ends where the frame begins.
    /// From back to front: that way each header is where it is whatever lies before it.
    ///
    /// A UDP checksum is left 0: it is for [`offload`](Self::offload) to fill in. An inner frame longer than
    /// [`max_inner`](Self::max_inner) gets lengths that are wrong.
    #[inline]
    pub fn write(&self, out: &mut [u8], fill: &Fill) {
        let mut payload = fill.inner_len + BASE as u32;
        let Some((mut rest, tunnel)) = out.split_last_chunk_mut() else { return };
        *tunnel = self.tunnel(fill).to_be_bytes();
        if self.kind != Kind::Nvgre {
            payload += 8;
            let Some((before, udp)) = rest.split_last_chunk_mut() else { return };
            *udp = self.udp(fill, payload as u16).to_be_bytes();
            rest = before;
        }
        // RFC 6040 section 4.1, normal mode: ECN is taken over, whatever DSCP is.
        let tos = fill.tos & self.tos_mask | self.tos;
        if self.ipv6 {
            let Some((before, ip)) = rest.split_last_chunk_mut() else { return };
            *ip = self.ip;
            // RFC 6438 section 3: the flow label is entropy, too.
            let first = 6 << 28 | u32::from(tos) << 20 | fill.entropy & 0xf_ffff;
            ip[..4].copy_from_slice(&first.to_be_bytes());
            ip[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
            rest = before;
        } else {
            let Some((before, ip)) = rest.split_last_chunk_mut::<20>() else { return };
            let (total, id) = ((payload + 20) as u16, fill.id & self.id_mask);
            let checksum = !fold(self.header_sum + u32::from(tos) + u32::from(total) + u32::from(id));
            ip.copy_from_slice(&self.ip[..20]);
            ip[1] = tos;
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            rest = before;
        }
        match rest.len() {
            14 => rest.copy_from_slice(&self.link[..14]),
            18 => rest.copy_from_slice(&self.link),
            _ => {}
        }
    }

    /// The tunnel header.
    #[inline]
    fn tunnel(&self, fill: &Fill) -> u64 {
        match self.kind {
            Kind::Vxlan => vxlan::header(fill.vni, if self.gbp { fill.group } else { None }),
            Kind::Nvgre => nvgre::header(fill.vni, self.flow_id.unwrap_or(fill.entropy as u8)),
            Kind::Geneve => geneve::header(fill.vni),
        }
    }

    /// The UDP header of a datagram of `length` bytes.
    #[inline]
    fn udp(&self, fill: &Fill, length: u16) -> u64 {
        // RFC 7348 section 5 recommends the dynamic range; Geneve may use any (RFC 8926 section 3.3).
        let src_port = 0xc000 | fill.entropy as u16 & 0x3fff;
        u64::from(src_port) << 48 | u64::from(self.port) << 32 | u64::from(length) << 16
    }

    /// What the outgoing frame still needs, where the inner one, which `head` begins, needs `inner`. `header` is what
    /// [`write`](Self::write) wrote; its UDP checksum, if there is to be one, is filled in here as far as it can be.
    ///
    /// `None` if `inner` is not true.
    #[inline]
    pub fn offload(&self, header: &mut [u8], head: &[u8], inner: Packed) -> Option<Packed> {
        let (network, transport) = (self.network() as u16, self.transport() as u16);
        Encapsulation { network, transport, checksum: self.checksum }.finish(header, head, inner)
    }
}

/// A sum of a few words, in ones' complement.
#[inline]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
