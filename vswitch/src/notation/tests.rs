//! The notation against itself: what is computed, what is refused, and that there and back is where one was.

use super::*;
use crate::flow::headers::{Depth, Headers, Network, Transport, parse};
use proptest::prelude::*;

fn headers(text: &str) -> Headers {
    let frame = build(text).unwrap();
    parse(&frame, frame.len(), Depth::L4).unwrap()
}

#[test]
fn the_example_of_the_documentation() {
    let text = "eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:0d) vlan(id=10) ipv4(src=10.0.0.1,dst=10.0.0.9) tcp(dport=80)";
    let headers = headers(text);
    assert_eq!((headers.link.outer.tpid, headers.link.outer.vlan()), (0x8100, 10));
    assert_eq!((headers.network, headers.transport, headers.dst_port), (Network::Ipv4, Transport::Tcp, 80));
    assert_eq!(headers.dst_ip[12..], [10, 0, 0, 9]);
    let described = describe(&build(text).unwrap());
    let expected = "eth(dst=02:00:00:00:00:0d,src=02:00:00:00:00:01) vlan(id=10) ipv4(src=10.0.0.1,dst=10.0.0.9) \
                    tcp(sport=1024,dport=80,flags=syn)";
    assert_eq!(described, expected);
}

#[test]
fn two_tags_are_a_service_tag_and_a_customer_tag() {
    let both = headers("eth vlan(id=5) vlan(id=6,pcp=7,dei) ipv6 udp");
    assert_eq!((both.link.outer.tpid, both.link.outer.vlan()), (0x88a8, 5));
    assert_eq!((both.link.inner.tpid, both.link.inner.tci), (0x8100, 0xf006));
    let both = headers("eth vlan(id=5,tpid=0x8100) vlan(id=6,tpid=0x88a8) ipv6 udp");
    assert_eq!((both.link.outer.tpid, both.link.inner.tpid), (0x8100, 0x88a8));
}

#[test]
fn what_is_given_is_not_computed() {
    let frame = build(
        "eth(type=0x1234) ipv4(total_length=5,header_length=15,checksum=0xbeef,version=9) udp(length=1)",
    );
    let frame = frame.unwrap();
    assert_eq!(frame[12..18], [0x12, 0x34, 0x9f, 0, 0, 5]);
    assert_eq!((&frame[24..26], &frame[38..40]), (&[0xbe, 0xef][..], &[0, 1][..]));
}

#[test]
fn options_fill_up_their_header() {
    let frame = build("eth ipv4(options=010203) tcp(options=02:04:05:b4:01)").unwrap();
    assert_eq!((frame[14], frame[34..38].to_vec(), frame[38 + 12] >> 4), (0x46, vec![1, 2, 3, 0], 7));
    assert_eq!(frame.len(), 14 + 24 + 28);
}

#[test]
fn padding_is_outside_of_ip() {
    let frame = build("eth ipv4 udp payload(text=hi) pad(to=60)").unwrap();
    assert_eq!((frame.len(), frame[16..18].to_vec()), (60, vec![0, 30]));
    assert!(describe(&frame).ends_with("payload(text=\"hi\") pad(len=16)"), "{}", describe(&frame));
}

#[test]
fn errors_say_where_and_what() {
    let error = |text: &str| build(text).unwrap_err().to_string();
    assert_eq!(error("eth ipv5()"), "column 5: there is no layer `ipv5`; nearest is `ipv4`");
    assert!(
        error("eth geneve").starts_with("column 5: there is no layer `geneve`; known are eth, vlan, arp, ")
    );
    assert_eq!(error("eth(scr=1)"), "column 5: `eth` has no field `scr`; nearest is `src`");
    assert_eq!(
        error("eth ipv4(dst=10.0.0)"),
        "column 14: `ipv4.dst` cannot be `10.0.0`: expected an IPv4 address like 10.0.0.1"
    );
    assert_eq!(
        error("eth vlan(id=4096)"),
        "column 13: `vlan.id` cannot be `4096`: expected a number that fits in 12 bits"
    );
    assert_eq!(
        error("eth(dst=1,"),
        "column 9: `eth.dst` cannot be `1`: expected a MAC address like 02:00:00:00:00:01"
    );
    assert_eq!(error("eth(dst"), "column 8: expected `=` and a value, found the end");
    assert_eq!(error("eth("), "column 5: expected a field like dst=... or `)`, found the end");
    assert_eq!(error("eth payload(text=\"x"), "column 20: expected a closing quote, found the end");
    assert_eq!(error("eth arp(op=1,op=2)"), "column 14: `arp.op` is set twice");
    assert_eq!(error("ipv4 tcp"), "column 1: `ipv4` cannot follow `the start`: a frame starts with eth(...)");
    assert_eq!(error("eth tcp"), "column 5: `tcp` cannot follow `eth` unless its `type` is given");
    assert_eq!(error("eth ipv4 tcp udp"), "column 14: `udp` cannot follow `tcp`");
    assert_eq!(
        error("eth payload(len=1,hex=00)"),
        "column 5: `payload` takes one of len (with or without fill), hex, text"
    );
    assert_eq!(
        error("eth pad(len=1) payload"),
        "column 16: `payload` cannot follow `pad`: nothing follows the padding"
    );
    assert!(error("eth payload(len=70000)").starts_with("the frame would have 70000 bytes"));
    assert!(error("eth ipv6 payload(len=65536)").contains("65536 does not fit in `ipv6.payload_length`"));
    assert!(
        error("eth ipv4 payload(len=65520)").contains("column 5: 65540 does not fit in `ipv4.total_length`")
    );
    assert!(error("  ").starts_with("the text is empty"));
    assert!(build("eth(type=ipv4) tcp").is_ok());
}

#[test]
fn what_to_do_about_a_mistake_is_about_that_mistake() {
    for (text, fix) in [
        ("eth tpc(dport=80)", "layers are eth, vlan, arp, ipv4"),
        ("eth ipv4 tcp(port=80)", "fields of `tcp` are sport, dport"),
        ("eth ipv4(ttl=1,ttl=2)", "keep one `ttl`"),
        ("eth ipv4(src=10.0.0)", "give `ipv4.src` an IPv4 address"),
        ("eth ipv4(src=10.0.0.1", "a layer is a name, with its fields in brackets"),
        ("eth tcp", "in the order of the wire"),
    ] {
        let error = build(text).unwrap_err();
        assert!(error.fix().contains(fix), "{text}: {error}: {}", error.fix());
        assert_eq!(error.fix().starts_with("layers are"), fix.starts_with("layers are"), "{text}");
    }
}

#[test]
fn hexadecimal_in_the_shapes_that_people_paste() {
    let expected = vec![0xde, 0xad, 0xbe, 0xef];
    for text in [
        "deadbeef",
        "DE AD BE EF",
        "de:ad:be:ef",
        "0xdeadbeef",
        " dead\n beef\n",
        "0x0000:  dead\n0x0002:  beef",
    ] {
        assert_eq!(from_hex(text).unwrap(), expected, "{text}");
    }
    assert_eq!(
        from_hex("deag").unwrap_err().to_string(),
        "column 4: expected a pair of hexadecimal digits, found `g`"
    );
    assert!(from_hex("dea").is_err() && from_hex("de a d").is_err());
    assert_eq!(from_hex(&control::api::encode_hex(&expected)).unwrap(), expected);
}

#[test]
fn every_field_of_every_layer_can_be_set_and_is_read_back() {
    for kind in layers::Kind::ALL {
        for field in kind.fields() {
            let value = match field.form {
                value::Form::Mac => "02:00:00:00:00:77",
                value::Form::Ipv4 => "10.9.8.7",
                value::Form::Ipv6 => "fd00::77",
                value::Form::Bytes => "0102030405060708",
                value::Form::Text => "\"some text\"",
                _ => "1",
            };
            let before = match kind {
                layers::Kind::Eth => "",
                layers::Kind::Payload | layers::Kind::Pad => "eth ",
                _ => "eth(type=1) ",
            };
            let text = format!("{before}{}({}={value})", kind.name(), field.name);
            // `fill` is of use with `len` only.
            assert_eq!(build(&text).is_ok(), field.name != "fill", "{text}");
        }
    }
}

/// Frames and texts that are made to cost time. What takes long here would take long on the control socket.
#[test]
fn endless_chains_end() {
    let tags = build(&format!("eth(type=vlan) payload(hex={})", "00018100".repeat(16_000))).unwrap();
    let extensions =
        build(&format!("eth ipv6(next_header=60) payload(hex={})", "3c00000000000000".repeat(8_000)));
    for frame in [tags, extensions.unwrap(), build("eth ipv4 tcp payload(len=65000)").unwrap()] {
        let text = describe(&frame);
        assert_eq!(build(&text).unwrap(), frame);
    }
    assert!(matches!(
        build(&"eth ".repeat(1_000)),
        Err(NotationError::TooManyLayers { column: 129, limit: 32 })
    ));
    assert!(matches!(build(&" ".repeat(1 << 20)), Err(NotationError::TextTooLong { .. })));
    assert!(matches!(from_hex(&"0".repeat(1 << 20)), Err(NotationError::TextTooLong { .. })));
}

/// Bytes that begin like a frame of some kind and go wrong anywhere.
fn nearly_a_frame() -> impl Strategy<Value = Vec<u8>> {
    let texts = prop_oneof![
        Just("eth arp pad(to=60)"),
        Just("eth vlan(id=3) vlan ipv4(options=01010101) tcp(options=0101) payload(len=20) pad(len=3)"),
        Just("eth ipv6 hopbyhop routing destination auth(icv=01020304) fragment udp payload(len=9)"),
        Just("eth ipv6 icmpv6(type=neighbor-solicitation,target=fd00::1,sll=02:00:00:00:00:01)"),
        Just("eth ipv4(mf) udp payload(text=\"a \\\"quoted\\\" text\")"),
        Just("eth ipv4 sctp payload(len=12,fill=0xaa)"),
        Just("eth vlan ipv4 icmp(type=unreachable,code=4,mtu=1400) ipv4 udp"),
    ];
    let changes = proptest::collection::vec((0usize..100, any::<u8>()), 0..4);
    (texts, changes, 0usize..120).prop_map(|(text, changes, cut)| {
        let mut frame = build(text).unwrap();
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if cut < 100 && cut % 3 == 0 {
            frame.truncate(cut);
        }
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn there_and_back_for_any_bytes(frame in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(build(&describe(&frame)).unwrap(), frame);
    }

    #[test]
    fn there_and_back_for_frames_and_nearly_frames(frame in nearly_a_frame()) {
        let text = describe(&frame);
        prop_assert_eq!(build(&text).unwrap(), frame, "{}", text);
    }

    #[test]
    fn any_text_builds_or_is_refused(text in "[a-z0-9_=(),\\\\\" \n:.é-]{0,60}") {
        let _ = build(&text);
        let _ = build(&format!("eth({text}"));
        let _ = from_hex(&text);
    }
}
