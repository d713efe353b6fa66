//! The frames that a station understands, read and written: ARP, neighbour discovery, echo, errors that say
//! "too big", control packets of BFD, and who is in which multicast group.
//!
//! Headers are smoltcp's. What does not concern a station, or breaks a rule of its protocol, is not heard at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr,
    IgmpPacket, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
    RawHardwareAddress, UdpPacket, UdpRepr,
};

use super::liveness::{Arrival, NEVER_FORWARDED};

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;

const BROADCAST: [u8; 6] = [0xff; 6];

/// All stations (RFC 4291, 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Bytes of the shortest frame that Ethernet knows, FCS not counted (IEEE 802.3).
const SHORTEST: usize = 60;

/// The TTL of echoes.
const TTL: u8 = 64;

/// What a frame says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard<'f> {
    /// A request or a reply; either tells who the sender is.
    Arp { request: bool, sender: Ipv4Addr, mac: [u8; 6], target: Ipv4Addr },
    /// Who has `target`? Asked by nobody yet, if `from` is unspecified.
    Solicitation { from: Ipv6Addr, mac: [u8; 6], target: Ipv6Addr },
    /// `target` is at `mac`, or where it was.
    Advertisement { target: Ipv6Addr, mac: Option<[u8; 6]>, solicited: bool, overriding: bool, router: bool },
    /// A ping, or its answer.
    Echo { request: bool, from: IpAddr, to: IpAddr, ident: u16, sequence: u16, data: &'f [u8] },
    /// Who is in this multicast group? In any of its family, if it is unspecified.
    WhoIsIn { group: IpAddr, within_ns: u64 },
    /// A packet of a BFD session.
    Control(Arrival<'f>),
    /// A packet of ours was too big for a router on its way.
    TooBig { to: IpAddr, mtu: u32, quoted: &'f [u8] },
}

/// Ports of BFD: between neighbours (RFC 5881, 4) and over routers (RFC 5883, 5).
pub(crate) const CONTROL: [u16; 2] = [3784, 4784];

/// Where ports begin that sessions send from (RFC 5881, 4).
const CONTROL_FROM: u16 = 49_152;

/// The port that the packets of BFD session `number` come from.
pub(crate) fn control_source(number: u32) -> u16 {
    CONTROL_FROM + (number % u32::from(u16::MAX - CONTROL_FROM)) as u16
}

/// Whether one station can have this address.
pub(crate) fn is_station(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

/// Reads a frame for the station `mac` in `vlan`; gives its sender, too. `None` if it does not concern us.
pub(super) fn read(frame: &[u8], mac: [u8; 6], vlan: Option<u16>) -> Option<([u8; 6], Heard<'_>)> {
    let (to, rest) = frame.split_first_chunk::<6>()?;
    let (from, rest) = rest.split_first_chunk::<6>()?;
    let group = to[0] & 1 == 1;
    // What comes from ourselves has come back by a loop.
    if !(group || *to == mac) || !is_station(*from) || *from == mac {
        return None;
    }
    let (ethertype, payload) = untagged(rest, vlan)?;
    let heard = match ethertype {
        ARP => read_arp(payload)?,
        IPV4 => read_ipv4(payload, group)?,
        IPV6 => read_ipv6(payload, *from, group)?,
        _ => return None,
    };
    Some((*from, heard))
}

/// The type behind the tag of `vlan`; a tag of VLAN 0 is none (IEEE 802.1Q-2018, table 9-2).
fn untagged(rest: &[u8], vlan: Option<u16>) -> Option<(u16, &[u8])> {
    let (ethertype, rest) = rest.split_first_chunk()?;
    let (mut ethertype, mut rest, mut found) = (u16::from_be_bytes(*ethertype), rest, 0);
    if ethertype == VLAN {
        let (tag, behind) = rest.split_first_chunk::<4>()?;
        found = u16::from_be_bytes([tag[0], tag[1]]) & 0xfff;
        (ethertype, rest) = (u16::from_be_bytes([tag[2], tag[3]]), behind);
    }
    (found == vlan.unwrap_or(0)).then_some((ethertype, rest))
}

/// Reads an ARP packet for IPv4.
pub(crate) fn read_arp<'f>(payload: &[u8]) -> Option<Heard<'f>> {
    let packet = ArpPacket::new_checked(payload).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let request = match operation {
        ArpOperation::Request => true,
        ArpOperation::Reply => false,
        ArpOperation::Unknown(_) => return None,
    };
    let mac = source_hardware_addr.0;
    is_station(mac).then_some(Heard::Arp {
        request,
        sender: source_protocol_addr,
        mac,
        target: target_protocol_addr,
    })
}

fn read_ipv4(payload: &[u8], group: bool) -> Option<Heard<'_>> {
    let packet = Ipv4Packet::new_checked(payload).ok()?;
    let capabilities = ChecksumCapabilities::default();
    let header = Ipv4Repr::parse(&packet, &capabilities).ok()?;
    let (from, to) = (header.src_addr, header.dst_addr);
    if header.next_header == IpProtocol::Igmp {
        return read_igmp(packet.payload());
    }
    if group {
        return None;
    }
    if header.next_header == IpProtocol::Udp {
        return read_control((from.into(), to.into()), header.hop_limit, packet.payload());
    }
    if header.next_header != IpProtocol::Icmp || !is_sender(from.into()) {
        return None;
    }
    let icmp = Icmpv4Packet::new_checked(packet.payload()).ok()?;
    // What it quotes is most often cut short.
    if let Some((mtu, quoted)) = too_big(packet.payload(), true) {
        return icmp.verify_checksum().then_some(Heard::TooBig { to: to.into(), mtu, quoted });
    }
    let (request, ident, sequence, data) = match Icmpv4Repr::parse(&icmp, &capabilities).ok()? {
        Icmpv4Repr::EchoRequest { ident, seq_no, data } => (true, ident, seq_no, data),
        Icmpv4Repr::EchoReply { ident, seq_no, data } => (false, ident, seq_no, data),
        _ => return None,
    };
    Some(Heard::Echo { request, from: from.into(), to: to.into(), ident, sequence, data })
}

/// Reads a question of IGMP, of any version.
fn read_igmp(message: &[u8]) -> Option<Heard<'static>> {
    let [0x11, within, _, _, group @ ..] = message else { return None };
    let group = Ipv4Addr::from(*group.first_chunk()?);
    let packet = IgmpPacket::new_checked(message).ok()?;
    // RFC 2236, 4: version 1 says no time, and means ten seconds. Version 3 writes long times otherwise (RFC 3376,
    // 4.1.1), and may have its answer sooner.
    let tenths = if *within == 0 { 100 } else { u64::from(*within).min(100) };
    packet
        .verify_checksum()
        .then_some(Heard::WhoIsIn { group: group.into(), within_ns: tenths * 100_000_000 })
}

/// Reads a question of MLD (RFC 2710, 3), behind its hop-by-hop options.
fn read_mld<'f>(options: &[u8], from: Ipv6Addr, to: Ipv6Addr) -> Option<Heard<'f>> {
    let message = options.get((usize::from(*options.get(1)?) + 1) * 8..)?;
    let [130, _, _, _, high, low, _, _, group @ ..] = message else { return None };
    let group = Ipv6Addr::from(*group.first_chunk::<16>()?);
    // smoltcp knows the longer messages of version 2 only.
    let intact = options[0] == 58 && Icmpv6Packet::new_unchecked(message).verify_checksum(&from, &to);
    let within_ns = u64::from(u16::from_be_bytes([*high, *low])) * 1_000_000;
    intact.then_some(Heard::WhoIsIn { group: group.into(), within_ns })
}

/// What a message of ICMP, or of ICMPv6, says of a packet that was too big: what would not have been, and the packet's
/// beginning. Its checksum is not looked at.
pub(crate) fn too_big(message: &[u8], is_ipv4: bool) -> Option<(u32, &[u8])> {
    match (message, is_ipv4) {
        // Destination unreachable, fragmentation needed and DF set (RFC 1191, 4).
        ([3, 4, _, _, _, _, high, low, quoted @ ..], true) => {
            Some((u16::from_be_bytes([*high, *low]).into(), quoted))
        }
        // Packet too big; its code means nothing (RFC 4443, 3.2).
        ([2, _, _, _, a, b, c, d, quoted @ ..], false) => {
            Some((u32::from_be_bytes([*a, *b, *c, *d]), quoted))
        }
        _ => None,
    }
}

/// Reads an IPv6 packet from the station `sender`, to a group of stations or to one.
pub(crate) fn read_ipv6(payload: &[u8], sender: [u8; 6], group: bool) -> Option<Heard<'_>> {
    let packet = Ipv6Packet::new_checked(payload).ok()?;
    let header = Ipv6Repr::parse(&packet).ok()?;
    let (from, to) = (header.src_addr, header.dst_addr);
    if header.next_header == IpProtocol::Udp && !group {
        return read_control((from.into(), to.into()), header.hop_limit, packet.payload());
    }
    if header.next_header == IpProtocol::HopByHop && header.hop_limit == 1 {
        return read_mld(packet.payload(), from, to);
    }
    if header.next_header != IpProtocol::Icmpv6 || from.is_multicast() {
        return None;
    }
    let icmp = Icmpv6Packet::new_checked(packet.payload()).ok()?;
    if let Some((mtu, quoted)) = too_big(packet.payload(), false) {
        let intact = !group && icmp.verify_checksum(&from, &to);
        return intact.then_some(Heard::TooBig { to: to.into(), mtu, quoted });
    }
    let said = Icmpv6Repr::parse(&from, &to, &icmp, &ChecksumCapabilities::default()).ok()?;
    let (request, ident, sequence, data) = match said {
        Icmpv6Repr::Ndisc(said) => {
            // RFC 4861, 7.1.
            return if header.hop_limit == NEVER_FORWARDED {
                read_discovery(said, from, to, sender)
            } else {
                None
            };
        }
        Icmpv6Repr::EchoRequest { ident, seq_no, data } if !group => (true, ident, seq_no, data),
        Icmpv6Repr::EchoReply { ident, seq_no, data } if !group => (false, ident, seq_no, data),
        _ => return None,
    };
    is_sender(from.into()).then_some(Heard::Echo {
        request,
        from: from.into(),
        to: to.into(),
        ident,
        sequence,
        data,
    })
}

fn read_control((from, to): (IpAddr, IpAddr), ttl: u8, udp: &[u8]) -> Option<Heard<'_>> {
    let packet = UdpPacket::new_checked(udp).ok()?;
    UdpRepr::parse(&packet, &from.into(), &to.into(), &ChecksumCapabilities::default()).ok()?;
    let is_direct = CONTROL.iter().position(|port| *port == packet.dst_port())? == 0;
    Some(Heard::Control(Arrival { from, to, is_direct, ttl, packet: packet.payload() }))
}

fn read_discovery<'f>(
    said: NdiscRepr<'_>,
    from: Ipv6Addr,
    to: Ipv6Addr,
    sender: [u8; 6],
) -> Option<Heard<'f>> {
    let station = |link: RawHardwareAddress| {
        let mac = <[u8; 6]>::try_from(link.as_bytes()).ok()?;
        is_station(mac).then_some(mac)
    };
    match said {
        NdiscRepr::NeighborSolicit { target_addr: target, lladdr } => {
            // RFC 4861, 7.1.1: who has no address yet asks the group, and does not say where he is.
            let valid = !from.is_unspecified() || (to.is_multicast() && lladdr.is_none());
            let mac = match lladdr {
                Some(link) => station(link)?,
                None => sender,
            };
            (valid && !target.is_multicast()).then_some(Heard::Solicitation { from, mac, target })
        }
        NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr } => {
            let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
            // RFC 4861, 7.1.2: nobody asked for what everybody is told.
            let everybody = to.is_multicast() && solicited;
            let mac = match lladdr {
                Some(link) => Some(station(link)?),
                None => None,
            };
            let overriding = flags.contains(NdiscNeighborFlags::OVERRIDE);
            (!target.is_multicast() && !everybody).then_some(Heard::Advertisement {
                target,
                mac,
                solicited,
                overriding,
                router: flags.contains(NdiscNeighborFlags::ROUTER),
            })
        }
        _ => None,
    }
}

/// Whether an answer can go to this address.
pub(crate) fn is_sender(address: IpAddr) -> bool {
    let limited = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(address.is_multicast() || address.is_unspecified() || address.is_loopback() || limited)
}

/// A ping without its IP header, for a packet of `size` bytes. Of ICMPv6, the kernel fills the checksum.
pub(crate) fn ping(remote: IpAddr, ident: u16, seq_no: u16, size: usize) -> Vec<u8> {
    let data = vec![0x76; size.saturating_sub(echo_overhead(remote))];
    let mut bytes = vec![0; 8 + data.len()];
    if remote.is_ipv4() {
        let said = Icmpv4Repr::EchoRequest { ident, seq_no, data: &data };
        said.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &ChecksumCapabilities::default());
    } else {
        let (said, nobody) = (Icmpv6Repr::EchoRequest { ident, seq_no, data: &data }, Ipv6Addr::UNSPECIFIED);
        let mut packet = Icmpv6Packet::new_unchecked(&mut bytes);
        said.emit(&nobody, &nobody, &mut packet, &ChecksumCapabilities::ignored());
    }
    bytes
}

/// Bytes of an echo's packet that are not its data.
pub(super) fn echo_overhead(remote: IpAddr) -> usize {
    if remote.is_ipv4() { 28 } else { 48 }
}

/// Writes the frames of a station.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    pub(super) mac: [u8; 6],
    pub(super) vlan: Option<u16>,
}

impl Writer {
    fn frame(&self, to: [u8; 6], ethertype: u16, len: usize, write: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut frame = Vec::with_capacity(SHORTEST.max(18 + len));
        frame.extend(to);
        frame.extend(self.mac);
        if let Some(vlan) = self.vlan {
            frame.extend(VLAN.to_be_bytes());
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
        let at = frame.len();
        frame.resize(at + len, 0);
        write(&mut frame[at..]);
        frame.resize(frame.len().max(SHORTEST), 0);
        frame
    }

    fn arp(
        &self,
        to: [u8; 6],
        operation: ArpOperation,
        sender: Ipv4Addr,
        target: ([u8; 6], Ipv4Addr),
    ) -> Vec<u8> {
        let said = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(self.mac),
            source_protocol_addr: sender,
            target_hardware_addr: EthernetAddress(target.0),
            target_protocol_addr: target.1,
        };
        self.frame(to, ARP, said.buffer_len(), |bytes| said.emit(&mut ArpPacket::new_unchecked(bytes)))
    }

    /// Asks for the Ethernet address of `target`: everybody, or whom we believe to be it.
    pub(super) fn ask(&self, whom: Option<[u8; 6]>, source: IpAddr, target: IpAddr) -> Option<Vec<u8>> {
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let unknown = ([0; 6], target);
                Some(self.arp(whom.unwrap_or(BROADCAST), ArpOperation::Request, source, unknown))
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let said = NdiscRepr::NeighborSolicit { target_addr: target, lladdr: Some(self.link()) };
                // RFC 4861, 7.2.2.
                let to = if whom.is_some() { target } else { solicited_node(target) };
                let mac = whom.unwrap_or_else(|| multicast_mac(to.into()));
                Some(self.icmpv6(mac, source, to, NEVER_FORWARDED, Icmpv6Repr::Ndisc(said)))
            }
            _ => None,
        }
    }

    /// Answers who asked for our address `own`.
    pub(super) fn answer_arp(&self, own: Ipv4Addr, mac: [u8; 6], asker: Ipv4Addr) -> Vec<u8> {
        self.arp(mac, ArpOperation::Reply, own, (mac, asker))
    }

    /// Answers who asked for our address `own`; everybody, if he has no address yet (RFC 4861, 7.2.4).
    pub(super) fn answer_solicitation(&self, own: Ipv6Addr, mac: [u8; 6], asker: Ipv6Addr) -> Vec<u8> {
        if asker.is_unspecified() {
            return self.advertise(own);
        }
        let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
        self.advertisement(own, mac, asker, flags)
    }

    /// Tells everybody that an address is ours (RFC 5227, 2.3; RFC 4861, 7.2.6).
    pub(super) fn announce(&self, own: IpAddr) -> Vec<u8> {
        match own {
            IpAddr::V4(own) => self.arp(BROADCAST, ArpOperation::Request, own, ([0; 6], own)),
            IpAddr::V6(own) => self.advertise(own),
        }
    }

    fn advertise(&self, own: Ipv6Addr) -> Vec<u8> {
        self.advertisement(own, multicast_mac(ALL_NODES.into()), ALL_NODES, NdiscNeighborFlags::OVERRIDE)
    }

    fn advertisement(&self, own: Ipv6Addr, mac: [u8; 6], to: Ipv6Addr, flags: NdiscNeighborFlags) -> Vec<u8> {
        let said = NdiscRepr::NeighborAdvert { flags, target_addr: own, lladdr: Some(self.link()) };
        self.icmpv6(mac, own, to, NEVER_FORWARDED, Icmpv6Repr::Ndisc(said))
    }

    /// A ping or its answer, which no router may cut (DF). `None` if the addresses are of two kinds.
    pub(super) fn echo(
        &self,
        mac: [u8; 6],
        (from, to): (IpAddr, IpAddr),
        request: bool,
        (ident, seq_no): (u16, u16),
        data: &[u8],
    ) -> Option<Vec<u8>> {
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let said = match request {
                    true => Icmpv4Repr::EchoRequest { ident, seq_no, data },
                    false => Icmpv4Repr::EchoReply { ident, seq_no, data },
                };
                Some(self.icmpv4(mac, from, to, said))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let said = match request {
                    true => Icmpv6Repr::EchoRequest { ident, seq_no, data },
                    false => Icmpv6Repr::EchoReply { ident, seq_no, data },
                };
                Some(self.icmpv6(mac, from, to, TTL, said))
            }
            _ => None,
        }
    }

    /// A packet of BFD session `number`, to a neighbour or over routers. `None` if the addresses are of two kinds.
    pub(super) fn control(
        &self,
        mac: [u8; 6],
        (from, to): (IpAddr, IpAddr),
        is_direct: bool,
        number: u32,
        packet: &[u8],
    ) -> Option<Vec<u8>> {
        let ports = UdpRepr { src_port: control_source(number), dst_port: CONTROL[usize::from(!is_direct)] };
        let (next_header, payload_len) = (IpProtocol::Udp, ports.header_len() + packet.len());
        // RFC 5881, 5: who hears it knows by this that nobody forwarded it.
        let hop_limit = NEVER_FORWARDED;
        let capabilities = ChecksumCapabilities::default();
        let emit = |bytes: &mut [u8]| {
            let mut udp = UdpPacket::new_unchecked(bytes);
            let fill = |payload: &mut [u8]| payload.copy_from_slice(packet);
            ports.emit(&mut udp, &from.into(), &to.into(), packet.len(), fill, &capabilities);
        };
        match (from, to) {
            (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
                let header = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
                Some(self.frame(mac, IPV4, header.buffer_len() + payload_len, |bytes| {
                    header.emit(&mut Ipv4Packet::new_unchecked(&mut *bytes), &capabilities);
                    emit(&mut bytes[header.buffer_len()..]);
                }))
            }
            (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
                let header = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
                Some(self.frame(mac, IPV6, header.buffer_len() + payload_len, |bytes| {
                    header.emit(&mut Ipv6Packet::new_unchecked(&mut *bytes));
                    emit(&mut bytes[header.buffer_len()..]);
                }))
            }
            _ => None,
        }
    }

    /// Says that we are in a group.
    pub(super) fn report(&self, group: IpAddr, own: impl Iterator<Item = IpAddr>) -> Vec<u8> {
        match group {
            IpAddr::V4(group) => self.report_ipv4(group, own),
            IpAddr::V6(group) => self.report_ipv6(group, own),
        }
    }

    /// RFC 2236, 2: TTL 1, and the option that has routers look at it (RFC 2113).
    fn report_ipv4(&self, group: Ipv4Addr, own: impl Iterator<Item = IpAddr>) -> Vec<u8> {
        let from = own.filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None }).next();
        self.frame(multicast_mac(group.into()), IPV4, 32, |bytes| {
            bytes[..12].copy_from_slice(&[0x46, 0xc0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0]);
            bytes[12..16].copy_from_slice(&from.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
            bytes[16..20].copy_from_slice(&group.octets());
            bytes[20..26].copy_from_slice(&[0x94, 4, 0, 0, 0x16, 0]);
            bytes[28..32].copy_from_slice(&group.octets());
            IgmpPacket::new_unchecked(&mut bytes[24..]).fill_checksum();
            Ipv4Packet::new_unchecked(bytes).fill_checksum();
        })
    }

    /// RFC 2710, 3: hop limit 1, and the option that has routers look at it (RFC 2711). Who has no link-local address
    /// says none (RFC 3590).
    fn report_ipv6(&self, group: Ipv6Addr, own: impl Iterator<Item = IpAddr>) -> Vec<u8> {
        let mut own = own.filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None });
        let from = own.find(Ipv6Addr::is_unicast_link_local).unwrap_or(Ipv6Addr::UNSPECIFIED);
        self.frame(multicast_mac(group.into()), IPV6, 72, |bytes| {
            bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 32, 0, 1]);
            bytes[8..24].copy_from_slice(&from.octets());
            bytes[24..40].copy_from_slice(&group.octets());
            bytes[40..48].copy_from_slice(&[58, 0, 5, 2, 0, 0, 1, 0]);
            bytes[48] = 131;
            bytes[56..72].copy_from_slice(&group.octets());
            Icmpv6Packet::new_unchecked(&mut bytes[48..]).fill_checksum(&from, &group);
        })
    }

    fn link(&self) -> RawHardwareAddress {
        RawHardwareAddress::from_bytes(&self.mac)
    }

    fn icmpv4(&self, mac: [u8; 6], from: Ipv4Addr, to: Ipv4Addr, said: Icmpv4Repr<'_>) -> Vec<u8> {
        let header = Ipv4Repr {
            src_addr: from,
            dst_addr: to,
            next_header: IpProtocol::Icmp,
            payload_len: said.buffer_len(),
            hop_limit: TTL,
        };
        let capabilities = ChecksumCapabilities::default();
        self.frame(mac, IPV4, header.buffer_len() + said.buffer_len(), |bytes| {
            let (ip, icmp) = bytes.split_at_mut(header.buffer_len());
            said.emit(&mut Icmpv4Packet::new_unchecked(icmp), &capabilities);
            header.emit(&mut Ipv4Packet::new_unchecked(ip), &capabilities);
        })
    }

    fn icmpv6(
        &self,
        mac: [u8; 6],
        from: Ipv6Addr,
        to: Ipv6Addr,
        hop_limit: u8,
        said: Icmpv6Repr<'_>,
    ) -> Vec<u8> {
        let header = Ipv6Repr {
            src_addr: from,
            dst_addr: to,
            next_header: IpProtocol::Icmpv6,
            payload_len: said.buffer_len(),
            hop_limit,
        };
        self.frame(mac, IPV6, header.buffer_len() + said.buffer_len(), |bytes| {
            let (ip, icmp) = bytes.split_at_mut(header.buffer_len());
            let mut icmp = Icmpv6Packet::new_unchecked(icmp);
            said.emit(&from, &to, &mut icmp, &ChecksumCapabilities::default());
            header.emit(&mut Ipv6Packet::new_unchecked(ip));
        })
    }
}

/// The group that a station with this address listens to (RFC 4291, 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet address of a group: RFC 1112, 6.4; RFC 2464, 7.
pub fn multicast_mac(group: IpAddr) -> [u8; 6] {
    match group {
        IpAddr::V4(group) => {
            let [_, a, b, c] = group.octets();
            [1, 0, 0x5e, a & 0x7f, b, c]
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}
