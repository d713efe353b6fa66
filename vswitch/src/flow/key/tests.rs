//! The key's layout, against headers and against itself.

use proptest::prelude::*;

use super::*;
use crate::flow::headers::{Depth, Fragment, Network, parse, parse_link, untagged};

fn any_key() -> impl Strategy<Value = FlowKey> {
    any::<[u64; WORDS]>().prop_map(FlowKey::from_words)
}

#[test]
fn fields_fill_the_words_without_overlap() {
    let mut seen = [0u64; WORDS];
    for field in Field::ALL {
        let mask = KeyMask::of(&[]).with_bits(field, field.all_ones());
        let own = FlowKey::from_words(*mask.words());
        for (at, word) in seen.iter_mut().enumerate() {
            let new = if field == Field::InPort {
                own.words[at]
            } else {
                own.words[at] & !KeyMask::IN_PORT.words()[at]
            };
            assert_eq!(*word & new, 0, "{field:?} overlaps in word {at}");
            *word |= new;
        }
    }
    let spare: u32 = seen.iter().map(|word| word.count_zeros()).sum();
    assert_eq!(spare, 0);
    assert!(Field::ALL.windows(2).all(|pair| pair[0] < pair[1]), "listed in order");
}

#[test]
fn a_tcp_frame_in_two_tags_lands_in_its_fields() {
    let link = Link {
        dst: [2, 0, 0, 0, 0, 1],
        src: [2, 0, 0, 0, 0, 2],
        outer: Tag { tpid: 0x88a8, tci: 0xb064 },
        inner: Tag { tpid: 0x8100, tci: 0x2003 },
        ethertype: 0x0800,
        l3: 22,
    };
    let headers = Headers {
        link,
        network: Network::Ipv4,
        fragment: Fragment::First,
        transport: Transport::Tcp,
        protocol: 6,
        tos: 0xb8,
        tcp_flags: 0x12,
        src_port: 1234,
        dst_port: 80,
        src_ip: crate::flow::headers::mapped([10, 0, 0, 1]),
        dst_ip: crate::flow::headers::mapped([10, 0, 0, 2]),
        ..Headers::default()
    };
    let key = FlowKey::new(&headers, 7);
    let text: Vec<_> = key.fields(&KeyMask::of(&Field::ALL)).map(|field| field.to_string()).collect();
    assert_eq!(
        text,
        [
            "eth.dst=02:00:00:00:00:01",
            "port=7",
            "eth.src=02:00:00:00:00:02",
            "vlan.id=100",
            "vlan.type=0x88a8",
            "inner.type=0x8100",
            "eth.type=0x0800",
            "inner.tci=0x2003",
            "vlan.priority=11",
            "overlay=0",
            "ip.tos=0xb8",
            "ip.fragment=first",
            "l4.hidden=0",
            "unlearned=0",
            "l4.src=1234",
            "l4.dst=80",
            "tcp.flags=0x12",
            "icmp.type=0",
            "icmp.code=0",
            "protocol=6",
            "ip.src=10.0.0.1",
            "ip.dst=10.0.0.2",
        ]
    );
    let mut link_only = FlowKey::ZERO;
    link_only.set_link(&link, 7);
    assert_eq!(link_only, FlowKey::new(&Headers { link, ..Headers::default() }, 7));
}

#[test]
fn every_header_value_reaches_the_key() {
    type Change = fn(&mut Headers);
    let changes: [(Field, Change); 20] = [
        (Field::EthDst, |h| h.link.dst[5] = 1),
        (Field::EthSrc, |h| h.link.src[0] = 1),
        (Field::VlanId, |h| h.link.outer.tci = 0x0fff),
        (Field::VlanPriority, |h| h.link.outer.tci = 0xf000),
        (Field::VlanType, |h| h.link.outer.tpid = 0x88a8),
        (Field::InnerType, |h| h.link.inner.tpid = 0x8100),
        (Field::InnerTci, |h| h.link.inner.tci = 0xffff),
        (Field::EthType, |h| h.link.ethertype = 0xffff),
        (Field::Protocol, |h| h.arp_operation = 0xffff),
        (Field::IpTos, |h| h.tos = 0xff),
        (Field::IpFragment, |h| h.fragment = Fragment::Later),
        (Field::L4Hidden, |h| h.transport = Transport::Hidden),
        (Field::L4Src, |h| h.src_port = 0xffff),
        (Field::L4Dst, |h| h.dst_port = 0xffff),
        (Field::TcpFlags, |h| h.tcp_flags = 0xff),
        (Field::IcmpType, |h| h.icmp_type = 0xff),
        (Field::IcmpCode, |h| h.icmp_code = 0xff),
        (Field::Protocol, |h| h.protocol = 0xff),
        (Field::IpSrc, |h| h.src_ip = [0xff; 16]),
        (Field::IpDst, |h| h.dst_ip = [0xff; 16]),
    ];
    // Both tags are there, so that what is in them counts.
    let mut base = Headers::default();
    (base.link.outer.tpid, base.link.inner.tpid) = (0x8100, 0x88a8);
    let before = FlowKey::new(&base, 0);
    for (field, change) in changes {
        let mut headers = base;
        change(&mut headers);
        let key = FlowKey::new(&headers, 0);
        for other in Field::ALL {
            assert_eq!(key.get(other) != before.get(other), other == field, "{field:?} shows in {other:?}");
        }
    }
}

#[test]
fn an_overlay_is_a_field_of_the_key() {
    let mut key = FlowKey::new(&Headers { tos: 0xff, ..Headers::default() }, 7);
    key.set_overlay(0xabcd, false);
    assert_eq!(key.get(Field::Unlearned), 0);
    key.set_overlay(0xabcd, true);
    assert_eq!((key.get(Field::Unlearned), key.get(Field::L4Hidden)), (1, 0));
    assert_eq!((key.overlay(), key.get(Field::Overlay), key.get(Field::IpTos)), (0xabcd, 0xabcd, 0xff));
    assert_eq!((key.in_port(), key.get(Field::EthType)), (7, 0));
}

#[test]
fn masks_know_their_width_and_depth() {
    let of = |fields: &[Field]| {
        let mask = KeyMask::of(fields);
        (mask.width(), mask.depth(), mask.word_count())
    };
    assert_eq!(of(&[]), (Width::Two, Depth::L2, 1));
    assert_eq!(of(&Field::BRIDGE), (Width::Two, Depth::L2, 2));
    assert_eq!(of(&[Field::EthType]), (Width::Three, Depth::L2, 3));
    assert_eq!(of(&[Field::IpTos]), (Width::Three, Depth::L4, 3));
    assert_eq!(of(&[Field::L4Dst]), (Width::Eight, Depth::L4, 4));
    let prefix = KeyMask::of(&Field::BRIDGE).with_bits(Field::IpSrc, u128::MAX << 8);
    assert_eq!((prefix.word_count(), prefix.contains(Field::IpSrc)), (6, false));
    assert!(prefix.contains(Field::EthDst) && prefix.contains(Field::InPort));
    let union = prefix.union(KeyMask::of(&Field::TRANSPORT));
    assert!(union.contains(Field::Protocol) && union.contains(Field::EthSrc));
    let key = FlowKey::from_words([u64::MAX; WORDS]);
    let text: Vec<_> = key.fields(&prefix).map(|field| field.to_string()).collect();
    assert_eq!(text.last().map(String::as_str), Some("ip.src=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120"));
}

proptest! {
    #[test]
    fn fields_are_set_and_read_alone(key in any_key(), at in 0..Field::ALL.len(), value: u128) {
        let field = Field::ALL[at];
        let mut changed = key;
        changed.set(field, value);
        prop_assert_eq!(changed.get(field), value & field.all_ones());
        for other in Field::ALL.into_iter().filter(|&other| other != field) {
            prop_assert_eq!(changed.get(other), key.get(other));
        }
    }

    #[test]
    fn keys_differ_under_a_mask_exactly_by_its_bits(
        key in any_key(),
        mask in prop::collection::vec(prop::sample::select(&Field::ALL[..]), 0..6),
        bit in 0..512usize,
    ) {
        let mask = KeyMask::of(&mask);
        let mut words = *key.words();
        words[bit / 64] ^= 1 << (bit % 64);
        let counts = mask.words()[bit / 64] >> (bit % 64) & 1 == 1;
        prop_assert_eq!(key.masked(&mask) != FlowKey::from_words(words).masked(&mask), counts);
    }

    #[test]
    fn a_link_parse_gives_all_that_a_link_mask_reads(frame in prop::collection::vec(any::<u8>(), 14..100)) {
        if let (Ok(link), Ok(all)) = (parse(&frame, frame.len(), Depth::L2), parse(&frame, frame.len(), Depth::L4)) {
            let fields: Vec<_> = Field::ALL.into_iter().filter(|field| field.is_link()).collect();
            let mask = KeyMask::of(&fields);
            prop_assert_eq!(mask.depth(), Depth::L2);
            prop_assert_eq!(FlowKey::new(&link, 1).masked(&mask), FlowKey::new(&all, 1).masked(&mask));
        }
    }
}

#[test]
fn the_short_way_to_a_key_is_the_long_one() {
    for ethertype in [0x0800, 0x86dd, 0x0806, 46, 0x8101, 0x8100, 0x88a8] {
        let mut frame: Vec<u8> = (1..=60).collect();
        frame[12..14].copy_from_slice(&u16::to_be_bytes(ethertype));
        let (mut long, mut short) = (FlowKey::ZERO, FlowKey::ZERO);
        long.set_link(&parse_link(&frame).unwrap(), 0xabcd);
        match untagged(&frame) {
            Some(ethernet) => {
                short.set_untagged(ethernet, 0xabcd);
                assert_eq!(long, short);
            }
            None => assert!(ethertype == 0x8100 || ethertype == 0x88a8),
        }
    }
    assert_eq!(untagged(&[0; 13]), None);
}
