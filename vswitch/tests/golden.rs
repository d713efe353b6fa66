//! The notation, and the headers of tunnels, against scapy: frames that another implementation built, byte by byte.
//!
//! `golden/frames.txt` is made by `golden/make.py`, `golden/tunnels.txt` by `golden/tunnels.py`.

#![allow(clippy::unwrap_used, reason = "the whole file is tests")]

use std::collections::HashMap;
use std::net::IpAddr;

use control::api::encode_hex;
use pmd::{Checksum, Packed};
use vswitch::flow::hash::HashKey;
use vswitch::flow::headers::{Depth, parse};
use vswitch::notation;
use vswitch::telemetry::drops::DropReason;
use vswitch::tunnel::{self, Claims, Fill, Inner, Kind, Outer, Setup, Template};

/// Name, text and bytes of every frame in the file.
fn frames() -> impl Iterator<Item = (&'static str, &'static str, Vec<u8>)> {
    lines(include_str!("golden/frames.txt"))
}

fn lines(file: &'static str) -> impl Iterator<Item = (&'static str, &'static str, Vec<u8>)> {
    file.lines().map(|line| {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap();
        (next(), next(), notation::from_hex(next()).unwrap())
    })
}

#[test]
fn builds_what_scapy_builds() {
    let mut count = 0;
    for (name, text, expected) in frames() {
        let built = notation::build(text).unwrap();
        assert_eq!(encode_hex(&built), encode_hex(&expected), "{name}: {text}");
        count += 1;
    }
    assert!(count >= 40, "only {count} frames");
}

/// A description gives the frame back, and names a checksum only where scapy was told to get it wrong.
#[test]
fn describes_what_scapy_builds() {
    for (name, text, frame) in frames() {
        let described = notation::describe(&frame);
        assert_eq!(notation::build(&described).unwrap(), frame, "{name}: {described}");
        let lengths = ["_length=", "(length=", ",length=", "checksum=", "type=ipv", "type=arp", "header=udp"];
        let given = |of: &str| lengths.iter().any(|field| of.contains(field));
        assert!(given(text) || !given(&described), "{name}: {described}");
    }
}

#[test]
fn reads_what_scapy_builds() {
    for (name, text, frame) in frames() {
        let headers = parse(&frame, frame.len(), Depth::L4);
        assert_eq!(
            headers.is_err(),
            name.starts_with("wrong") && name != "wrong checksums",
            "{name}: {text}"
        );
    }
}

/// What a line of `tunnels.txt` says of its packet.
struct Expected(HashMap<&'static str, &'static str>);

impl Expected {
    fn new(fields: &'static str) -> Expected {
        Expected(fields.split(' ').map(|field| field.split_once('=').unwrap()).collect())
    }

    fn number(&self, key: &str) -> Option<u32> {
        self.0.get(key).map(|value| value.parse().unwrap())
    }

    fn is_set(&self, key: &str) -> bool {
        self.number(key) == Some(1)
    }

    fn address(&self, key: &str) -> IpAddr {
        self.0[key].parse().unwrap()
    }

    fn kind(&self) -> Kind {
        match self.0["kind"] {
            "vxlan" => Kind::Vxlan,
            "nvgre" => Kind::Nvgre,
            "geneve" => Kind::Geneve,
            other => panic!("{other}"),
        }
    }

    /// What was read is what is expected, as far as something is.
    fn check(&self, name: &str, outer: &Outer) {
        let family = |address: [u8; 16]| IpAddr::from(address).to_canonical().to_string();
        assert_eq!(outer.kind, self.kind(), "{name}");
        let found = [
            ("src", family(outer.src)),
            ("dst", family(outer.dst)),
            ("vni", outer.vni.to_string()),
            ("vlan", outer.tag.vlan().to_string()),
            ("group", outer.policy.group().map_or(String::new(), |group| group.to_string())),
            ("learn", u8::from(!outer.policy.do_not_learn()).to_string()),
            ("applied", u8::from(outer.policy.is_applied()).to_string()),
            ("sport", outer.src_port.to_string()),
            ("flow", outer.flow_id.to_string()),
            ("inner", outer.inner_len.to_string()),
        ];
        for (key, value) in found {
            assert_eq!(self.0.get(key).unwrap_or(&value.as_str()), &value, "{name}: {key}");
        }
        assert_eq!(outer.tag.is_present(), self.0.contains_key("vlan"), "{name}");
        assert_eq!(outer.policy.group().is_some(), self.0.contains_key("group"), "{name}");
    }

    fn setup(&self) -> Setup {
        Setup {
            kind: self.kind(),
            src_mac: [2, 0, 0, 0, 0, 1],
            dst_mac: [2, 0, 0, 0, 0, 2],
            vlan: self.number("vlan").map(|vlan| vlan as u16),
            src: self.address("src"),
            dst: self.address("dst"),
            port: if self.kind() == Kind::Geneve { tunnel::geneve::PORT } else { tunnel::vxlan::PORT },
            ttl: self.number("ttl").unwrap() as u8,
            df: self.is_set("df"),
            dscp: self.number("dscp").map(|dscp| dscp as u8),
            flow_id: self.number("flow_id").map(|id| id as u8),
            checksum: self.is_set("checksum"),
            gbp: self.0.contains_key("group"),
        }
    }

    /// The packet as we write it around `inner`.
    fn write(&self, inner: &[u8]) -> Vec<u8> {
        let template = Template::new(&self.setup()).unwrap();
        let mut packet = vec![0xee; template.len()];
        let fill = Fill {
            vni: self.number("vni").unwrap(),
            inner_len: inner.len() as u32,
            entropy: self.number("entropy").unwrap(),
            tos: Inner::read(inner, &HashKey::from_seed(1)).tos,
            group: self.number("group").map(|group| group as u16),
            id: self.number("id").unwrap() as u16,
        };
        template.write(&mut packet, &fill);
        let offload = template.offload(&mut packet, inner, Packed::NONE).unwrap().unpack();
        packet.extend_from_slice(inner);
        if let Checksum::Partial { start, offset } = offload.checksum {
            pmd::gather::complete(&mut packet, start, offset);
        }
        packet
    }
}

const PORTS: [(u16, Kind); 3] = [(8472, Kind::Vxlan), (4789, Kind::Vxlan), (6081, Kind::Geneve)];

/// Every packet of a tunnel is written as scapy writes it, and read, or dropped by its own reason.
#[test]
fn reads_and_writes_the_tunnels_that_scapy_builds() {
    let claims = Claims { ports: &PORTS, gre: true };
    let mut count = HashMap::new();
    for (name, text, packet) in lines(include_str!("golden/tunnels.txt")) {
        let (what, fields) = text.split_once(' ').unwrap_or((text, ""));
        let answer = tunnel::parse(&packet[..packet.len().min(pmd::batch::HEAD)], packet.len(), claims);
        match (what, answer) {
            ("write", Ok(Some(outer))) => {
                let expected = Expected::new(fields);
                expected.check(name, &outer);
                let inner = &packet[usize::from(outer.inner)..];
                assert_eq!(encode_hex(&expected.write(inner)), encode_hex(&packet), "{name}: {text}");
            }
            ("read", Ok(Some(outer))) => Expected::new(fields).check(name, &outer),
            ("drop", Err(reason)) => assert_eq!(reason.name(), fields, "{name}"),
            ("other", Ok(None)) => {}
            (_, answer) => panic!("{name}: {text}, not {answer:?}"),
        }
        *count.entry(what).or_insert(0) += 1;
        // Whoever claims nothing is told of nothing but what no packet may have.
        let unclaimed = tunnel::parse(&packet, packet.len(), Claims::default());
        assert!(matches!(unclaimed, Ok(None) | Err(DropReason::Malformed(_))), "{name}: {unclaimed:?}");
    }
    assert!(
        count["write"] >= 30 && count["read"] >= 12 && count["drop"] >= 34 && count["other"] >= 8,
        "{count:?}"
    );
}
