//! Templates: the outer headers of one remote, ready but for what depends on the frame.
//!
//! A template is made when a remote or its path changes, and written in front of every frame that goes there:
//! [`Template::put`] copies it and fills in lengths, VNI, TOS, entropy and checksums, at the same cost for every frame.
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

/// Bytes that headers are written to the end of, however long they are.
pub const ROOM: usize = 80;

const _: () = assert!(MAX <= ROOM);

/// The outer headers of one remote.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Template {
    /// The headers, at the end, with zeros where they depend on the frame.
    image: [u8; ROOM],
    kind: Kind,
    is_tagged: bool,
    ipv6: bool,
    checksum: bool,
    gbp: bool,
    flow_id: Option<u8>,
    port: u16,
    /// The first eight bytes of the IP header, with zeros where they depend on the frame.
    first: u64,
    /// Of IPv4, the four bytes that follow, the last two of them zero.
    second: u32,
    /// The bits of the inner TOS that are taken over, and the others.
    tos_mask: u8,
    tos: u8,
    /// All ones if packets may be fragmented.
    id_mask: u16,
    /// The sum of the IP header as it is here, if that is IPv4.
    header_sum: u32,
}

impl Template {
    /// Makes a template; `None` if the addresses are of different families.
    pub fn new(setup: &Setup) -> Option<Template> {
        let carried = if setup.kind == Kind::Nvgre { protocol::GRE } else { protocol::UDP };
        let mut ip = [0; 40];
        let (ethertype, ip) = match (setup.src, setup.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                // RFC 6864 section 4.1: an atomic packet needs no identification.
                let flags = if setup.df { 0x40 } else { 0 };
                ip[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, flags, 0, setup.ttl, carried, 0, 0]);
                ip[12..16].copy_from_slice(&src.octets());
                ip[16..20].copy_from_slice(&dst.octets());
                (ethertype::IPV4, &ip[..20])
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, carried, setup.ttl]);
                ip[8..24].copy_from_slice(&src.octets());
                ip[24..40].copy_from_slice(&dst.octets());
                (ethertype::IPV6, &ip[..])
            }
            _ => return None,
        };
        let mut link = [&setup.dst_mac[..], &setup.src_mac].concat();
        if let Some(vlan) = setup.vlan {
            link.extend([ethertype::VLAN.to_be_bytes(), (vlan & 0xfff).to_be_bytes()].as_flattened());
        }
        link.extend(ethertype.to_be_bytes());
        let mut image = [0; ROOM];
        let l3 = ROOM - setup.kind.header_len() - ip.len();
        image[l3..l3 + ip.len()].copy_from_slice(ip);
        image[l3 - link.len()..l3].copy_from_slice(&link);
        let mut sum = Sum::default();
        sum.add(ip);
        let (first, rest) = ip.split_first_chunk()?;
        Some(Template {
            image,
            kind: setup.kind,
            is_tagged: setup.vlan.is_some(),
            ipv6: setup.src.is_ipv6(),
            checksum: setup.checksum && setup.kind != Kind::Nvgre,
            gbp: setup.gbp,
            flow_id: setup.flow_id,
            port: setup.port,
            first: u64::from_be_bytes(*first),
            second: u32::from_be_bytes(*rest.first_chunk()?),
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

    /// Whether UDP packets have a checksum.
    #[inline]
    pub fn has_checksum(&self) -> bool {
        self.checksum
    }

    /// The longest inner frame that a packet can be written for.
    #[inline]
    pub fn max_inner(&self) -> usize {
        usize::from(u16::MAX) - self.kind.overhead(self.ipv6)
    }

    /// Writes the headers of one frame to `out`, which is [`len`](Self::len) bytes long, as [`put`](Self::put) does.
    pub fn write(&self, out: &mut [u8], fill: &Fill) {
        let mut room = [0; ROOM];
        self.put(&mut room, fill);
        out.copy_from_slice(&room[ROOM - self.len()..]);
    }

    /// Writes the headers of one frame to the end of `room`, where the frame begins. What is before them changes, too:
    /// so much is the same for all templates that it is copied as a whole, in a few steps.
    ///
    /// A UDP checksum is left 0: it is for [`offload`](Self::offload) to fill in. An inner frame longer than
    /// [`max_inner`](Self::max_inner) gets lengths that are wrong.
    #[inline]
    pub fn put(&self, room: &mut [u8; ROOM], fill: &Fill) {
        const OVER_UDP: usize = ROOM - Kind::Vxlan.header_len();
        const OVER_GRE: usize = ROOM - Kind::Nvgre.header_len();
        *room = self.image;
        set::<{ ROOM - BASE }, 8>(room, self.tunnel(fill).to_be_bytes());
        let payload = fill.inner_len + self.kind.header_len() as u32;
        if self.kind != Kind::Nvgre {
            set::<OVER_UDP, 8>(room, self.udp(fill, payload as u16).to_be_bytes());
        }
        match (self.ipv6, self.kind) {
            (false, Kind::Nvgre) => {
                self.put_ipv4::<{ OVER_GRE - 20 }, { OVER_GRE - 12 }>(room, fill, payload)
            }
            (false, _) => self.put_ipv4::<{ OVER_UDP - 20 }, { OVER_UDP - 12 }>(room, fill, payload),
            (true, Kind::Nvgre) => self.put_ipv6::<{ OVER_GRE - 40 }>(room, fill, payload),
            (true, _) => self.put_ipv6::<{ OVER_UDP - 40 }>(room, fill, payload),
        }
    }

    /// What depends on the frame in an IPv4 header at `FIRST`, of which `SECOND` is the place of the ninth byte.
    #[inline]
    fn put_ipv4<const FIRST: usize, const SECOND: usize>(
        &self,
        room: &mut [u8; ROOM],
        fill: &Fill,
        payload: u32,
    ) {
        let (tos, total, id) = (self.tos(fill), (payload + 20) as u16, fill.id & self.id_mask);
        let checksum = !fold(self.header_sum + u32::from(tos) + u32::from(total) + u32::from(id));
        let first = self.first | u64::from(tos) << 48 | u64::from(total) << 32 | u64::from(id) << 16;
        set::<FIRST, 8>(room, first.to_be_bytes());
        set::<SECOND, 4>(room, (self.second | u32::from(checksum)).to_be_bytes());
    }

    /// What depends on the frame in an IPv6 header at `FIRST`.
    #[inline]
    fn put_ipv6<const FIRST: usize>(&self, room: &mut [u8; ROOM], fill: &Fill, payload: u32) {
        // RFC 6438 section 3: the flow label is entropy, too.
        let label = u64::from(fill.entropy & 0xf_ffff);
        let first = self.first | u64::from(self.tos(fill)) << 52 | label << 32;
        set::<FIRST, 8>(room, (first | u64::from(payload as u16) << 16).to_be_bytes());
    }

    /// RFC 6040 section 4.1, normal mode: ECN is taken over, whatever DSCP is.
    #[inline]
    fn tos(&self, fill: &Fill) -> u8 {
        fill.tos & self.tos_mask | self.tos
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

/// Writes `bytes` to place `AT`.
#[inline]
fn set<const AT: usize, const N: usize>(room: &mut [u8; ROOM], bytes: [u8; N]) {
    room[AT..AT + N].copy_from_slice(&bytes);
}

/// A sum of a few words, in ones' complement.
#[inline]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
