//! What must hold for any bytes, one function for each thing that reads an outsider's bytes. Each panics if it does
//! not hold. The fuzz targets call these, and so does a test that needs no fuzzer.

use std::cell::RefCell;
use std::io::Cursor;
use std::net::IpAddr;

use control::api::{ApiError, MAX_REQUEST_BYTES, MessageReader, decode_request, encode_response};
use control::schema::Config;
use pmd::batch::HEAD;
use pmd::mem::Settings as Wire;
use pmd::{Features, virtio};
use vhost::driver::flip::{Agreed, Stage};
use vhost::user::rehearsal::Rehearsal;
use vhost::{Mode, Settings};
use vswitch::flow::hash::HashKey;
use vswitch::flow::headers::{Depth, Fragment, Headers, Network, Transport, WINDOW, parse, parse_link};
use vswitch::lab::{Design, Lab, PortDesign};
use vswitch::notation;
use vswitch::tunnel::{
    self, Claims, Fill, Inner, Kind, MIN_INNER, Outer, Setup, Template, ecn, geneve, vxlan,
};

/// A frame from a port: parsed at both depths, and described.
pub fn frame(bytes: &[u8]) {
    let length = bytes.len();
    let link = parse(bytes, length, Depth::L2);
    let all = parse(bytes, length, Depth::L4);
    assert_eq!(link.map(|headers| headers.link), parse_link(bytes), "L2 is what parse_link reads");
    assert_eq!(
        parse(&bytes[..length.min(WINDOW)], length, Depth::L4),
        all,
        "nothing beyond the window counts"
    );
    match (link, all) {
        (Ok(link), Ok(all)) => {
            assert_eq!(link.link, all.link);
            consistent(&all, length);
        }
        (Err(link), all) => assert_eq!(all, Err(link), "what L2 refuses, L4 refuses"),
        (Ok(_), Err(reason)) => assert!(!reason.name().is_empty()),
    }
    if length <= notation::MAX_FRAME {
        let text = notation::describe(bytes);
        assert_eq!(notation::build(&text).as_deref(), Ok(bytes), "{text}");
    }
}

/// What the fields of `Headers` say of each other.
fn consistent(headers: &Headers, length: usize) {
    let (l3, l4) = (usize::from(headers.link.l3), usize::from(headers.l4));
    assert!(l3 <= length && l4 <= length.min(WINDOW));
    assert_eq!(headers.link.inner.is_present(), l3 == 22);
    assert_eq!(headers.link.outer.is_present(), l3 > 14);
    let ip = matches!(headers.network, Network::Ipv4 | Network::Ipv6);
    assert_eq!(ip, headers.transport != Transport::Absent);
    assert_eq!(ip, l4 != 0);
    if headers.fragment == Fragment::Later {
        assert_eq!(headers.transport, Transport::Hidden);
    }
    let has_ports = matches!(headers.transport, Transport::Tcp | Transport::Udp | Transport::Sctp);
    assert!(has_ports || (headers.src_port, headers.dst_port, headers.tcp_flags) == (0, 0, 0));
    let least = match headers.transport {
        Transport::Tcp => 20,
        Transport::Udp | Transport::Icmp => 8,
        Transport::Sctp => 12,
        Transport::Icmpv6 => 4,
        _ => 0,
    };
    assert!(l4 + least <= length.min(WINDOW), "a transport header lies in the frame");
}

/// A frame from an underlay: whether it is a tunnel's, and what comes out of it.
pub fn tunnel(bytes: &[u8]) {
    const PORTS: [(u16, Kind); 2] = [(vxlan::PORT, Kind::Vxlan), (geneve::PORT, Kind::Geneve)];
    let claims = Claims { ports: &PORTS, gre: true };
    let head = &bytes[..bytes.len().min(HEAD)];
    let answer = tunnel::parse(head, bytes.len(), claims);
    let unclaimed = tunnel::parse(head, bytes.len(), Claims::default());
    let Ok(Some(outer)) = answer else {
        assert!(unclaimed.is_ok() || unclaimed == answer, "{answer:?} {unclaimed:?}");
        return assert!(!matches!(unclaimed, Ok(Some(_))));
    };
    assert_eq!(unclaimed, Ok(None), "what is nobody's is not ours");
    let (start, len) = (usize::from(outer.inner), outer.inner_len as usize);
    assert!(outer.network < outer.transport && outer.transport < outer.inner);
    assert!(len >= MIN_INNER && start + len <= bytes.len() && start + MIN_INNER <= head.len());
    let mut inner = bytes[start..start + len].to_vec();
    let (key, before) = (HashKey::from_seed(1), inner.clone());
    let was = Inner::read(&inner, &key);
    match ecn::apply(outer.tos, &mut inner) {
        Ok(()) => {
            assert_eq!(Inner::read(&inner, &key).entropy, was.entropy, "a mark is none of the flow's fields")
        }
        Err(_) => assert_eq!(inner, before),
    }
    again(&outer, &before, was);
}

/// The inner frame sent back through a template is read as it was sent.
#[allow(clippy::expect_used, reason = "what must hold")]
fn again(outer: &Outer, inner: &[u8], fields: Inner) {
    let (src, dst) = (IpAddr::from(outer.dst).to_canonical(), IpAddr::from(outer.src).to_canonical());
    let setup = Setup {
        kind: outer.kind,
        src_mac: [2; 6],
        dst_mac: [4; 6],
        vlan: outer.tag.is_present().then_some(outer.tag.vlan()),
        src,
        dst,
        port: outer.dst_port,
        ttl: 64,
        df: true,
        dscp: None,
        flow_id: Some(outer.flow_id),
        checksum: outer.checksum != 0,
        gbp: true,
    };
    let Some(template) = Template::new(&setup) else { return };
    if inner.len() > template.max_inner() {
        return;
    }
    let fill = Fill {
        vni: outer.vni,
        inner_len: inner.len() as u32,
        entropy: fields.entropy,
        tos: fields.tos,
        group: outer.policy.group(),
        id: 0,
    };
    let mut packet = vec![0; template.len()];
    template.write(&mut packet, &fill);
    packet.extend_from_slice(inner);
    let claims = Claims { ports: &[(outer.dst_port, outer.kind)], gre: true };
    let back = tunnel::parse(&packet, packet.len(), claims).ok().flatten().expect("it is a tunnel's packet");
    assert_eq!((back.kind, back.vni, back.flow_id), (outer.kind, outer.vni, outer.flow_id));
    assert_eq!((back.src, back.dst, back.tos), (outer.dst, outer.src, fields.tos));
    assert_eq!((back.inner_len, back.policy.group()), (outer.inner_len, outer.policy.group()));
}

/// A text for `trace`.
pub fn notation(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match notation::build(text) {
        Ok(frame) => {
            assert!(frame.len() <= notation::MAX_FRAME);
            let described = notation::describe(&frame);
            assert_eq!(notation::build(&described), Ok(frame), "{described}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(frame) = notation::from_hex(text) {
        assert!(frame.len() <= text.len() / 2);
    }
}

/// A configuration document.
pub fn config(bytes: &[u8]) {
    match Config::parse_bytes(bytes, "fuzz.toml") {
        Ok(config) => {
            assert_eq!(config.check(), Ok(()), "what is read is sound");
            let written = config.to_toml();
            assert_eq!(Config::parse(&written, "written.toml"), Ok(config), "{written}");
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

/// What a client sends to the control socket.
pub fn request(bytes: &[u8]) {
    let mut reader = MessageReader::new(Cursor::new(bytes), MAX_REQUEST_BYTES);
    while let Ok(Some(line)) = reader.next_line() {
        assert!(!line.contains(&b'\n'));
        answer(&line);
    }
    answer(bytes);
}

fn answer(line: &[u8]) {
    let answer = match decode_request(line) {
        Ok(request) => encode_response(request.id.as_ref(), &Ok::<_, ApiError>(request.call.name())),
        Err(bad) => encode_response(bad.id.as_ref(), &Err::<(), _>(bad.error)),
    };
    assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 1, "an answer is one line");
    assert_eq!(answer.last(), Some(&b'\n'));
}

/// A frame with a virtio-net header, from a guest or a container, on its way to ports that take all of its metadata,
/// only partial checksums, and nothing.
pub fn virtio_header(bytes: &[u8]) {
    thread_local! {
        static LAB: RefCell<Lab> = RefCell::new(lab());
    }
    let Some((header, frame)) = bytes.split_at_checked(virtio::HEADER) else { return };
    let Ok(offload) = virtio::decode(header, frame.len()) else { return };
    let encoded = virtio::encode(&offload, frame, frame.len());
    assert_eq!(virtio::decode(&encoded, frame.len()), Ok(offload), "what is written is what was read");
    LAB.with_borrow_mut(|lab| {
        if frame.len() < 14 || !lab.send(0, frame, offload) {
            return;
        }
        lab.run();
        for (port, takes) in (1..).zip(TAKES) {
            for (_, offload) in lab.received(port) {
                assert!(offload.fits(takes), "{offload:?} is more than the port takes");
            }
        }
        assert!(lab.is_conserved());
    });
}

/// What the ports take.
const TAKES: [Features; 3] = [Features::NONE, Features::CHECKSUM, Features::VIRTIO];

#[allow(clippy::expect_used, reason = "without memory there is nothing to check")]
fn lab() -> Lab {
    let mut lab =
        Lab::new(Design { frames: 1024, fdb: 64, ..Design::default() }).expect("a switch in memory");
    lab.add_port(PortDesign::default());
    for features in TAKES {
        lab.add_port(PortDesign { wire: Wire { features, ..Wire::default() }, ..PortDesign::default() });
    }
    lab
}

/// A split ring whose memory holds what the bytes say, at every look anew.
pub fn split_ring(bytes: &[u8]) {
    ring(false, bytes);
}

/// A packed ring whose memory holds what the bytes say, at every look anew.
pub fn packed_ring(bytes: &[u8]) {
    ring(true, bytes);
}

#[allow(clippy::expect_used, reason = "without memory there is nothing to check")]
fn ring(packed: bool, bytes: &[u8]) {
    thread_local! {
        static STAGE: RefCell<Stage> = RefCell::new(Stage::new().expect("a stage"));
    }
    let Some((&features, rest)) = bytes.split_first() else { return };
    let has = |bit: u8| features >> bit & 1 != 0;
    let agreed = Agreed { packed, in_order: has(0), event_index: has(1), mergeable: has(2) };
    let numbers: Vec<[u8; 8]> = rest.as_chunks().0.to_vec();
    let mut numbers = numbers.into_iter().map(u64::from_le_bytes);
    STAGE.with_borrow_mut(|stage| stage.play(agreed, Box::new(move || numbers.next())));
}

/// What a vhost-user front end says, with descriptors, and a worker's bursts in between.
#[allow(clippy::expect_used, reason = "without memory there is nothing to check")]
pub fn message(bytes: &[u8]) {
    thread_local! {
        static PORT: RefCell<Rehearsal> = RefCell::new(
            Rehearsal::new(&Settings { queues: 2, ..Settings::new("unused", Mode::Server) }).expect("a port"),
        );
    }
    PORT.with_borrow_mut(|port| port.play(bytes));
}
