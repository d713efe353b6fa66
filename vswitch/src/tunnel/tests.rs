use std::net::IpAddr;

use pmd::Packed;
use pmd::checksum::{self, Sum};
use pmd::offload::{Checksum, Gso, GsoKind, Offload};
use proptest::prelude::*;

use super::*;
use crate::flow::hash::HashKey;
use crate::notation;
use crate::telemetry::drops::DropReason;

const PORTS: [(u16, Kind); 3] = [(4789, Kind::Vxlan), (6081, Kind::Geneve), (8472, Kind::Vxlan)];
const ALL: Claims<'_> = Claims { ports: &PORTS, gre: true };

/// A template of any sort.
fn setups() -> impl Strategy<Value = Setup> {
    let addresses = prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(src, dst)| (IpAddr::from(src), IpAddr::from(dst))),
        any::<([u8; 16], [u8; 16])>().prop_map(|(src, dst)| (IpAddr::from(src), IpAddr::from(dst))),
    ];
    let kinds = prop_oneof![Just((Kind::Vxlan, 4789)), Just((Kind::Nvgre, 0)), Just((Kind::Geneve, 6081))];
    let plain = (kinds, any::<([u8; 6], [u8; 6])>(), proptest::option::of(0u16..4096), addresses);
    let choices = (any::<(u8, bool, Option<u8>, bool, bool)>(), proptest::option::of(0u8..64));
    (plain, choices).prop_map(|((kind, macs, vlan, addresses), (others, dscp))| Setup {
        kind: kind.0,
        src_mac: macs.0,
        dst_mac: macs.1,
        vlan,
        src: addresses.0,
        dst: addresses.1,
        port: kind.1,
        ttl: others.0,
        df: others.1,
        dscp,
        flow_id: others.2,
        checksum: others.3,
        gbp: others.4,
    })
}

fn fills() -> impl Strategy<Value = Fill> {
    any::<(u32, u32, u8, Option<u16>, u16)>().prop_map(|(vni, entropy, tos, group, id)| Fill {
        vni: vni >> 8,
        entropy,
        tos,
        group,
        id,
        inner_len: 0,
    })
}

fn inners() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 14..200)
}

/// The inner frame with its outer headers; a checksum that is wanted is completed.
fn encapsulate(setup: &Setup, fill: &Fill, inner: &[u8]) -> Vec<u8> {
    let template = Template::new(setup).unwrap();
    let mut frame = vec![0; template.len()];
    template.write(&mut frame, &Fill { inner_len: inner.len() as u32, ..*fill });
    let offload = template.offload(&mut frame, inner, Packed::NONE).unwrap().unpack();
    frame.extend_from_slice(inner);
    if let Checksum::Partial { start, offset } = offload.checksum {
        pmd::gather::complete(&mut frame, start, offset);
    }
    frame
}

/// What the short ways say.
fn plain(frame: &[u8]) -> Option<Outer> {
    outer::ipv4(frame, frame.len(), ALL).or_else(|| outer::ipv6(frame, frame.len(), ALL))
}

fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

proptest! {
    /// What was written is what is read, and both ways of reading agree.
    #[test]
    fn what_is_written_is_read(setup in setups(), fill in fills(), inner in inners(), padding in 0usize..9) {
        let mut frame = encapsulate(&setup, &fill, &inner);
        prop_assert_eq!(frame.len() - inner.len(), setup.kind.outer_len(setup.src.is_ipv6(), setup.vlan.is_some()));
        frame.extend(vec![0x55; padding]);
        let outer = parse(&frame, frame.len(), ALL).unwrap().unwrap();
        prop_assert_eq!(outer.kind, setup.kind);
        prop_assert_eq!((outer.src, outer.dst), (bytes(setup.src), bytes(setup.dst)));
        prop_assert_eq!((outer.vni, outer.dst_port), (fill.vni, setup.port));
        prop_assert_eq!(outer.tag.is_present().then(|| outer.tag.vlan()), setup.vlan);
        prop_assert_eq!(outer.tos & 3, fill.tos & 3);
        prop_assert_eq!(outer.tos >> 2, setup.dscp.unwrap_or(fill.tos >> 2));
        let start = usize::from(outer.inner);
        prop_assert_eq!(&frame[start..start + outer.inner_len as usize], &inner[..]);
        let group = if setup.gbp && setup.kind == Kind::Vxlan { fill.group } else { None };
        prop_assert_eq!((outer.policy.group(), outer.policy.do_not_learn()), (group, false));
        if setup.kind == Kind::Nvgre {
            prop_assert_eq!((outer.src_port, outer.checksum), (0, 0));
            prop_assert_eq!(outer.flow_id, setup.flow_id.unwrap_or(fill.entropy as u8));
        } else {
            prop_assert!(outer.src_port >= 49_152);
            prop_assert_eq!(outer.checksum != 0, setup.checksum);
        }
        if outer.checksum != 0 {
            let mut sum = outer.pseudo_header();
            sum.add(&frame[usize::from(outer.transport)..frame.len() - padding]);
            prop_assert_eq!(sum.finish(), [0, 0]);
        }
        prop_assert_eq!(outer::general(&frame, frame.len(), ALL), Ok(Some(outer)));
        let is_short = setup.kind == Kind::Nvgre && inner.len() < MIN_INNER + 8;
        let is_plain = setup.vlan.is_none() && !is_short;
        prop_assert_eq!(plain(&frame).is_some(), is_plain);
    }

    /// Whatever the bytes, there is an answer, the same by both ways, and it lies in the frame.
    #[test]
    fn any_bytes_have_an_answer(
        setup in setups(), fill in fills(), inner in inners(),
        changes in proptest::collection::vec((0usize..80, any::<u8>()), 0..4), cut in 0usize..300,
    ) {
        let mut frame = encapsulate(&setup, &fill, &inner);
        for (at, byte) in changes {
            let at = at % frame.len();
            frame[at] ^= byte;
        }
        let head = &frame[..cut.min(frame.len())];
        for head in [head, &frame] {
            let answer = parse(head, head.len(), ALL);
            if let Some(plain) = plain(head) {
                prop_assert_eq!(outer::general(head, head.len(), ALL), Ok(Some(plain)));
            }
            if let Ok(Some(outer)) = answer {
                prop_assert!(outer.inner_len >= 14);
                prop_assert!(usize::from(outer.inner) + outer.inner_len as usize <= head.len());
            }
        }
    }

    /// A frame whose headers are taken for those of the one before says the same as that one; and such as differ in
    /// what differs within a network are.
    #[test]
    fn what_was_read_before_is_not_read_again(
        setup in setups(), fill in fills(), inner in inners(), other in fills(), more in inners(),
        changes in proptest::collection::vec((0usize..80, any::<u8>()), 0..4), cut in 0usize..300, padding in 0usize..9,
    ) {
        let frame = encapsulate(&setup, &fill, &inner);
        let outer = parse(&frame, frame.len(), ALL).unwrap().unwrap();
        let memo = Memo::new(&frame, &outer);
        let is_usual = setup.src.is_ipv4() && setup.vlan.is_none() && outer.checksum == 0 && outer.tos & 1 == 0;
        prop_assert_eq!(memo.is_some(), is_usual && frame.len() >= 56);
        let Some(memo) = memo else { return Ok(()) };
        let alike = Fill { vni: fill.vni, tos: fill.tos, group: fill.group, ..other };
        let mut next = encapsulate(&setup, &alike, &more);
        next.extend(vec![0x55; padding]);
        let is_short = setup.kind == Kind::Nvgre && next.len() < 56;
        let expected = if is_short { None } else { Some(more.len()) };
        prop_assert_eq!(memo.inner_len(&next, next.len()), expected);
        for (at, byte) in changes {
            let at = at % next.len();
            next[at] ^= byte;
        }
        for next in [&next[..cut.min(next.len())], &next] {
            let Some(inner_len) = memo.inner_len(next, next.len()) else { continue };
            let read = parse(next, next.len(), ALL).unwrap().unwrap();
            let (src_port, flow_id) = (read.src_port, read.flow_id);
            prop_assert_eq!(read, Outer { src_port, flow_id, inner_len: inner_len as u32, ..outer });
        }
    }

    /// A bit of the outer headers that flips changes what is read, but for those that a receiver must ignore.
    #[test]
    fn every_bit_counts(setup in setups(), fill in fills(), inner in inners()) {
        let frame = encapsulate(&setup, &fill, &inner);
        let before = parse(&frame, frame.len(), ALL);
        let template = Template::new(&setup).unwrap();
        let base = template.len() - BASE;
        for bit in 12 * 8..template.len() * 8 {
            let mut other = frame.clone();
            other[bit / 8] ^= 0x80 >> (bit % 8);
            let network = bit as i64 - template.network() as i64 * 8;
            let ignored = if bit >= base * 8 {
                let word = u64::from_be_bytes(*frame[base..].first_chunk().unwrap());
                let significant = match setup.kind {
                    // Only the extension's sender says that the rest of the first word is significant.
                    Kind::Vxlan if word >> 63 == 1 => 0x8848_ffff_ffff_ff00,
                    Kind::Vxlan => 0x8800_0000_ffff_ff00,
                    // Bits 6 to 12 are ignored.
                    Kind::Nvgre => 0xfc07_ffff_ffff_ffff,
                    Kind::Geneve => 0xff80_ffff_ffff_ff00,
                };
                // G alone says nothing where no group follows; I cannot be missed.
                significant << (bit - base * 8) & 1 << 63 == 0u64
            } else {
                // IPv6: flow label and hop limit.
                setup.src.is_ipv6() && ((12..32).contains(&network) || (56..64).contains(&network))
            };
            let after = parse(&other, other.len(), ALL);
            prop_assert_eq!(before == after, ignored, "bit {} of byte {}", bit % 8, bit / 8);
        }
    }

    /// Headers alone give the outer checksum where the inner one is partial.
    #[test]
    fn both_checksums_come_out_right(
        setup in setups(), fill in fills(), inner in inners(), start in 0usize..100, offset in 0usize..20,
    ) {
        let setup = Setup { checksum: true, ..setup };
        let (start, offset) = (start & !1, offset & !1);
        prop_assume!(start + offset + 2 <= inner.len());
        let partial = Checksum::Partial { start: start as u16, offset: offset as u16 };
        let template = Template::new(&setup).unwrap();
        let mut frame = vec![0; template.len()];
        template.write(&mut frame, &Fill { inner_len: inner.len() as u32, ..fill });
        let offload = template.offload(&mut frame, &inner, Offload { checksum: partial, ..Offload::NONE }.into()).unwrap().unpack();
        frame.extend_from_slice(&inner);
        let Checksum::Partial { start: at, offset: field } = offload.checksum else { panic!("{offload:?}") };
        prop_assert_eq!((usize::from(at), usize::from(field)), (start + template.len(), offset));
        prop_assert!(offload.outer.is_none());
        pmd::gather::complete(&mut frame, at, field);
        if setup.kind != Kind::Nvgre {
            let outer = parse(&frame, frame.len(), ALL).unwrap().unwrap();
            let mut sum = outer.pseudo_header();
            sum.add(&frame[usize::from(outer.transport)..]);
            prop_assert_eq!(sum.finish(), [0, 0]);
            prop_assert_ne!(outer.checksum, 0);
        }
    }

    /// A mark reaches the inner header, whose checksum stays right.
    #[test]
    fn marks_go_inside(outer in any::<u8>(), tos in any::<u8>(), ipv6 in any::<bool>(), tags in 0usize..3) {
        let tags = "vlan(id=5,tpid=0x8100) ".repeat(tags);
        let network = if ipv6 { format!("ipv6(traffic_class={tos})") } else { format!("ipv4(tos={tos})") };
        let mut frame = notation::build(&format!("eth {tags}{network} udp")).unwrap();
        let before = frame.clone();
        let l3 = 14 + tags.len() / 23 * 4;
        match ecn::leaving(outer, tos) {
            Err(reason) => {
                prop_assert_eq!(ecn::apply(outer, &mut frame), Err(reason));
                prop_assert_eq!(frame, before);
            }
            Ok(codepoint) => {
                prop_assert_eq!(ecn::apply(outer, &mut frame), Ok(()));
                let inner = Inner::read(&frame, &HashKey::from_seed(1));
                prop_assert_eq!(inner.tos, tos & !3 | codepoint);
                if !ipv6 {
                    prop_assert_eq!(checksum::of(&frame[l3..l3 + 20]), [0, 0]);
                }
                let changed = frame.iter().zip(&before).filter(|(new, old)| new != old).count();
                prop_assert!(changed <= 3);
            }
        }
    }
}

/// RFC 6040 figure 4, row by row.
#[test]
fn congestion_is_told_as_rfc_6040_says() {
    use ecn::{CE, ECT0, ECT1, NOT_ECT};
    let drop = Err(DropReason::EcnForbidden);
    let table = [
        (NOT_ECT, [Ok(NOT_ECT), Ok(NOT_ECT), Ok(NOT_ECT), drop]),
        (ECT0, [Ok(ECT0), Ok(ECT0), Ok(ECT1), Ok(CE)]),
        (ECT1, [Ok(ECT1), Ok(ECT1), Ok(ECT1), Ok(CE)]),
        (CE, [Ok(CE), Ok(CE), Ok(CE), Ok(CE)]),
    ];
    for (inner, row) in table {
        for (outer, expected) in [NOT_ECT, ECT0, ECT1, CE].into_iter().zip(row) {
            assert_eq!(ecn::leaving(outer | 0xa0, inner | 0x14), expected, "{outer:02b} around {inner:02b}");
        }
    }
}

#[test]
fn what_is_no_ip_packet_carries_no_mark() {
    for text in ["eth arp", "eth(type=0x0800) payload(hex=45)", "eth(type=0x86dd) payload(hex=4500)", "eth"] {
        let mut frame = notation::build(text).unwrap();
        let before = frame.clone();
        assert_eq!(ecn::apply(ecn::CE, &mut frame), Ok(()), "{text}");
        assert_eq!(frame, before, "{text}");
    }
}

/// Flows differ, frames of one do not; a fragment has no ports.
#[test]
fn entropy_is_of_the_flow() {
    let key = HashKey::from_seed(7);
    let of = |text: &str| Inner::read(&notation::build(text).unwrap(), &key).entropy;
    let flows = [
        "eth ipv4 tcp",
        "eth(src=02:00:00:00:00:09) ipv4 tcp",
        "eth(dst=02:00:00:00:00:09) ipv4 tcp",
        "eth ipv4(src=10.0.0.9) tcp",
        "eth ipv4(dst=10.0.0.9) tcp",
        "eth ipv4 tcp(sport=9)",
        "eth ipv4 tcp(dport=9)",
        "eth ipv4 udp(sport=1024,dport=80)",
        "eth ipv4(options=94040000) udp(sport=1,dport=80)",
        "eth ipv4 icmp",
        "eth ipv6 tcp",
        "eth ipv6(src=fd00::9) tcp",
        "eth ipv6(dst=fd00::9) tcp",
        "eth ipv6 tcp(sport=9)",
        "eth ipv6 tcp(dport=9)",
        "eth arp",
        "eth vlan(id=5) ipv4 tcp",
    ];
    let hashes: std::collections::HashSet<u32> = flows.iter().map(|flow| of(flow)).collect();
    assert_eq!(hashes.len(), flows.len());
    assert_eq!(of("eth ipv4 tcp"), of("eth ipv4(id=77,tos=4,ttl=3) tcp(seq=99,flags=ack) payload(len=9)"));
    let first = "eth ipv4(id=9,mf,protocol=udp) udp(sport=5,dport=6) payload(len=16)";
    assert_eq!(of(first), of("eth ipv4(id=9,fragment_offset=3,protocol=udp) payload(len=7)"));
}

#[test]
fn a_train_keeps_its_inner_level() {
    let setup = Setup {
        kind: Kind::Vxlan,
        src_mac: [2, 0, 0, 0, 0, 1],
        dst_mac: [2, 0, 0, 0, 0, 2],
        vlan: None,
        src: IpAddr::from([192, 0, 2, 1]),
        dst: IpAddr::from([192, 0, 2, 2]),
        port: 4789,
        ttl: 64,
        df: true,
        dscp: None,
        flow_id: None,
        checksum: true,
        gbp: false,
    };
    let template = Template::new(&setup).unwrap();
    let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1400, ecn: false });
    let inner = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso, outer: None };
    let mut header = [0; 50];
    template.write(&mut header, &Fill { inner_len: 60_000, ..Fill::default() });
    let offload = template.offload(&mut header, &[0; 60], inner.into()).unwrap().unpack();
    let mut pseudo = Sum::default();
    pseudo.add(&[192, 0, 2, 1, 192, 0, 2, 2, 0, 17]);
    pseudo.add(&60_016u16.to_be_bytes());
    assert_eq!(header[40..42], pseudo.partial());
    assert_eq!(offload.checksum, Checksum::Partial { start: 84, offset: 16 });
    assert_eq!(offload.gso, gso);
    let outer = pmd::offload::Outer { network: 14, transport: 34, inner: 64, checksum: true };
    assert_eq!(offload.outer, Some(outer));
    assert_eq!(template.max_inner(), 65_535 - 36);
    assert!(Template::new(&Setup { dst: IpAddr::from([0; 16]), ..setup }).is_none());
}

#[test]
fn overheads_are_those_of_the_headers() {
    assert_eq!(Kind::Vxlan.outer_len(false, false), 50);
    assert_eq!(Kind::Vxlan.mtu_inside(1500, false), 1450);
    assert_eq!(Kind::Geneve.mtu_inside(1500, true), 1430);
    assert_eq!(Kind::Nvgre.mtu_inside(1500, false), 1458);
    assert_eq!(Kind::Nvgre.outer_len(true, true), template::MAX - 8);
    assert_eq!(Kind::Vxlan.mtu_inside(40, true), 0);
}
