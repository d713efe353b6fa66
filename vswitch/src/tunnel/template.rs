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
pub const MAX: usize = 14 + 4 + 40 + 8 + BASE;

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
    bytes: [u8; MAX],
    len: u8,
    network: u8,
    kind: Kind,
    ipv6: bool,
    checksum: bool,
    gbp: bool,
    flow_id: Option<u8>,
    /// The bits of the inner TOS that are taken over, and the others.
    tos_mask: u8,
    tos: u8,
    /// All ones if packets may be fragmented.
    id_mask: u16,
    /// The sum of the IPv4 header as it stands in `bytes`.
    header_sum: u32,
}

impl Template {
    /// Makes a template; `None` if the addresses are of different families.
    pub fn new(setup: &Setup) -> Option<Template> {
        let mut writer = Writer { bytes: [0; MAX], len: 0 };
        writer.put(&setup.dst_mac);
        writer.put(&setup.src_mac);
        if let Some(vlan) = setup.vlan {
            writer.put(&ethertype::VLAN.to_be_bytes());
            writer.put(&(vlan & 0xfff).to_be_bytes());
        }
        let network = writer.len + 2;
        let carried = if setup.kind == Kind::Nvgre { protocol::GRE } else { protocol::UDP };
        let ipv6 = match (setup.src, setup.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                writer.put(&ethertype::IPV4.to_be_bytes());
                // RFC 6864 section 4.1: an atomic packet needs no identification.
                let flags = if setup.df { 0x40 } else { 0 };
                writer.put(&[0x45, 0, 0, 0, 0, 0, flags, 0, setup.ttl, carried, 0, 0]);
                writer.put(&src.octets());
                writer.put(&dst.octets());
                false
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                writer.put(&ethertype::IPV6.to_be_bytes());
                writer.put(&[0x60, 0, 0, 0, 0, 0, carried, setup.ttl]);
                writer.put(&src.octets());
                writer.put(&dst.octets());
                true
            }
            _ => return None,
        };
        let mut header = Sum::default();
        header.add(&writer.bytes[network..writer.len]);
        if setup.kind != Kind::Nvgre {
            writer.put(&[0, 0]);
            writer.put(&setup.port.to_be_bytes());
            writer.put(&[0; 4]);
        }
        writer.put(&[0; BASE]);
        Some(Template {
            bytes: writer.bytes,
            len: writer.len as u8,
            network: network as u8,
            kind: setup.kind,
            ipv6,
            checksum: setup.checksum && setup.kind != Kind::Nvgre,
            gbp: setup.gbp,
            flow_id: setup.flow_id,
            tos_mask: if setup.dscp.is_some() { 0b11 } else { 0xff },
            tos: setup.dscp.unwrap_or(0) << 2,
            id_mask: if setup.df { 0 } else { 0xffff },
            header_sum: u16::from_be_bytes(header.partial()).into(),
        })
    }

    /// How long the headers are.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "headers are not a collection")]
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// Where the IP header begins.
    #[inline]
    pub fn network(&self) -> usize {
        self.network.into()
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

    /// Writes the headers of one frame to `out`, which is [`len`](Self::len) bytes long, right before the frame.
    ///
    /// A UDP checksum, where one is wanted, is left partial: the field has the pseudo-header's sum. An inner frame
    /// longer than [`max_inner`](Self::max_inner) gets lengths that are wrong.
    #[inline]
    pub fn write(&self, out: &mut [u8], fill: &Fill) {
        let len = self.len();
        let Some(out) = out.get_mut(..len) else { return };
        out.copy_from_slice(&self.bytes[..len]);
        let payload = fill.inner_len + self.kind.header_len() as u32;
        // RFC 6040 section 4.1, normal mode: ECN is taken over, whatever DSCP is.
        let tos = fill.tos & self.tos_mask | self.tos;
        if self.ipv6 {
            let Some(ip) = out.get_mut(self.network()..).and_then(|rest| rest.first_chunk_mut::<40>()) else {
                return;
            };
            // RFC 6438 section 3: the flow label is entropy, too.
            let first = 6 << 28 | u32::from(tos) << 20 | fill.entropy & 0xf_ffff;
            ip[..4].copy_from_slice(&first.to_be_bytes());
            ip[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
        } else {
            let Some(ip) = out.get_mut(self.network()..).and_then(|rest| rest.first_chunk_mut::<20>()) else {
                return;
            };
            let total = payload as u16 as u32 + 20;
            let id = fill.id & self.id_mask;
            let checksum = !fold(self.header_sum + u32::from(tos) + total + u32::from(id));
            ip[1] = tos;
            ip[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        if self.kind != Kind::Nvgre {
            let Some(udp) = out.last_chunk_mut::<16>() else { return };
            // RFC 7348 section 5 and RFC 8926 section 3.3 recommend the dynamic range.
            udp[..2].copy_from_slice(&(0xc000 | fill.entropy as u16 & 0x3fff).to_be_bytes());
            udp[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
        }
        let base = match self.kind {
            Kind::Vxlan => vxlan::header(fill.vni, if self.gbp { fill.group } else { None }),
            Kind::Nvgre => nvgre::header(fill.vni, self.flow_id.unwrap_or(fill.entropy as u8)),
            Kind::Geneve => geneve::header(fill.vni),
        };
        let Some(header) = out.last_chunk_mut::<BASE>() else { return };
        *header = base.to_be_bytes();
    }

    /// What the outgoing frame still needs, where the inner one, which `head` begins, needs `inner`. `header` is what
    /// [`write`](Self::write) wrote; its UDP checksum, if there is to be one, is filled in here as far as it can be.
    ///
    /// `None` if `inner` is not true.
    #[inline]
    pub fn offload(&self, header: &mut [u8], head: &[u8], inner: Packed) -> Option<Packed> {
        let (network, transport) = (self.network.into(), self.transport() as u16);
        Encapsulation { network, transport, checksum: self.checksum }.finish(header, head, inner)
    }
}

/// A sum of a few words, in ones' complement.
#[inline]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// A header that is being put together.
struct Writer {
    bytes: [u8; MAX],
    len: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}
