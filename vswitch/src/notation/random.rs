//! Random frames from a seed: the traffic that property tests and fuzz loops send through the switch.
//!
//! A sequence is made to be interesting for a switch, not for a parser alone: few addresses, VLANs and ports, so that
//! frames meet entries that earlier frames have made; now and then the very same frame again, so that caches hit; and
//! a share of malformed frames, most of which are one field away from a good one. The same seed and mix give the
//! same sequence on every machine.

use super::{build, describe};

/// A small generator of pseudo-random numbers (SplitMix64), so that a seed means the same in every version of
/// every library.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number from 0 to `limit - 1`; 0 if `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next_u64() >> 32).wrapping_mul(limit as u64).wrapping_shr(32) as usize
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, which may not be empty.
    pub fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// What the frames of a sequence are made of.
#[derive(Clone, Debug)]
pub struct Mix {
    /// How many unicast MAC addresses there are, 1 to 256: 02:00:00:00:00:00 and following.
    pub macs: usize,
    /// The VLANs that tags name; without any there are no tags.
    pub vlans: Vec<u16>,
    /// How many addresses of IPv4 (10.0.0.0 and following) and IPv6 (fd00:: and following), 1 to 256.
    pub addresses: usize,
    /// How many ports of TCP, UDP and SCTP, 1 to 256: 1000 and following.
    pub ports: usize,
    /// The longest payload behind the last header, in bytes.
    pub payload: usize,
    /// How many of 100 frames are malformed.
    pub malformed: usize,
    /// How many of 100 frames repeat one of the last 32.
    pub repeated: usize,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix {
            macs: 8,
            vlans: vec![1, 2, 10, 20, 4094],
            addresses: 8,
            ports: 8,
            payload: 1_430,
            malformed: 20,
            repeated: 30,
        }
    }
}

/// A frame of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RandomFrame {
    /// The frame in the notation; [`build`] makes `bytes` of it.
    pub text: String,
    /// The frame.
    pub bytes: Vec<u8>,
    /// Whether it was made to be malformed. Such a frame can still be one that nobody refuses.
    pub malformed: bool,
}

/// An endless sequence of frames.
#[derive(Clone, Debug)]
pub struct Frames {
    random: Random,
    mix: Mix,
    recent: Vec<RandomFrame>,
}

impl Frames {
    /// The sequence of `seed`.
    pub fn new(seed: u64, mix: Mix) -> Frames {
        Frames { random: Random::new(seed), mix, recent: Vec::new() }
    }

    /// The next frame.
    pub fn next_frame(&mut self) -> RandomFrame {
        if !self.recent.is_empty() && self.random.chance(self.mix.repeated) {
            return self.random.one_of(&self.recent).clone();
        }
        let malformed = self.random.chance(self.mix.malformed);
        let frame = if malformed { self.malformed() } else { self.well_formed() };
        if self.recent.len() < 32 {
            self.recent.push(frame.clone());
        } else {
            let place = self.random.below(32);
            self.recent[place] = frame.clone();
        }
        frame
    }

    fn well_formed(&mut self) -> RandomFrame {
        let text = self.text("", "");
        let bytes = build(&text).unwrap_or_default();
        RandomFrame { text, bytes, malformed: false }
    }

    /// A frame with one thing wrong: a field, the end, some bytes, or everything.
    fn malformed(&mut self) -> RandomFrame {
        let way = self.random.below(5);
        if way < 3 {
            let text = self.text_with_a_wrong_field();
            if let Ok(bytes) = build(&text) {
                return RandomFrame { text, bytes, malformed: true };
            }
        }
        let mut bytes = self.well_formed().bytes;
        match way {
            3 => bytes.truncate(self.random.below(bytes.len().min(128))),
            4 if self.random.chance(20) => {
                let length = self.random.below(200);
                bytes = (0..length).map(|_| self.random.next_u64() as u8).collect();
            }
            _ => {
                for _ in 0..=self.random.below(3) {
                    let at = self.random.below(bytes.len().min(100));
                    bytes[at] = self.random.next_u64() as u8;
                }
            }
        }
        RandomFrame { text: describe(&bytes), bytes, malformed: true }
    }

    fn text_with_a_wrong_field(&mut self) -> String {
        let small = self.random.below(20);
        let any = self.random.below(65_536);
        let edges = [0, 1, 4, 5, 19, 20, 21, 39, 40, 41, 1_500, 9_000, 65_535, small, any];
        let number = *self.random.one_of(&edges);
        let nibble = self.random.below(16);
        let wrong = *self.random.one_of(&[
            ("ipv4", "total_length", 65_536),
            ("ipv4", "header_length", 16),
            ("ipv4", "version", 16),
            ("ipv4", "fragment_offset", 8_192),
            ("ipv4", "protocol", 256),
            ("ipv6", "payload_length", 65_536),
            ("ipv6", "version", 16),
            ("ipv6", "next_header", 256),
            ("arp", "hlen", 256),
            ("arp", "ptype", 65_536),
            ("tcp", "data_offset", 16),
            ("udp", "length", 65_536),
            ("eth", "type", 65_536),
        ]);
        let value = if wrong.2 == 16 { nibble } else { number % wrong.2 };
        self.text(wrong.0, &format!("{}={value}", wrong.1))
    }

    /// A frame as text; `field` is added to the layer `layer` (which the frame then has).
    fn text(&mut self, layer: &str, field: &str) -> String {
        let network = match layer {
            "arp" | "ipv4" | "ipv6" => layer,
            "tcp" | "udp" => self.random.one_of(&["ipv4", "ipv6"]),
            _ => *self.random.one_of(&["arp", "ipv4", "ipv4", "ipv4", "ipv6", "ipv6", "other"]),
        };
        let mut layers = vec![self.ethernet()];
        self.tags(&mut layers);
        match network {
            "arp" => layers.push(self.arp()),
            "other" => {
                let kind = *self.random.one_of(&["type=lldp", "type=0x88b5", "type=46"]);
                if layers.len() == 1 {
                    add(&mut layers, "eth", kind);
                }
                layers.push(format!("payload(len={})", 46));
            }
            version => self.ip(version, layer, &mut layers),
        }
        if self.random.chance(30) {
            layers.push("pad(to=60)".to_owned());
        }
        if !field.is_empty() {
            add(&mut layers, layer, field);
        }
        layers.join(" ")
    }

    fn mac(&mut self) -> String {
        format!("02:00:00:00:00:{:02x}", self.random.below(self.mix.macs.clamp(1, 256)))
    }

    fn ethernet(&mut self) -> String {
        let dst = match self.random.below(100) {
            0..10 => "ff:ff:ff:ff:ff:ff".to_owned(),
            10..14 => "01:00:5e:00:00:01".to_owned(),
            14..18 => "33:33:00:00:00:01".to_owned(),
            18..20 => "01:80:c2:00:00:00".to_owned(),
            _ => self.mac(),
        };
        // A source that no station may have, now and then: it must not be learned.
        let src = match self.random.below(100) {
            0 => "00:00:00:00:00:00".to_owned(),
            1 => "01:00:5e:00:00:02".to_owned(),
            _ => self.mac(),
        };
        format!("eth(dst={dst},src={src})")
    }

    fn tags(&mut self, layers: &mut Vec<String>) {
        if self.mix.vlans.is_empty() {
            return;
        }
        let count = *self.random.one_of(&[0, 0, 0, 0, 1, 1, 1, 1, 2, 3]);
        for _ in 0..count {
            let id = if self.random.chance(10) { 0 } else { *self.random.one_of(&self.mix.vlans) };
            let tpid = *self.random.one_of(&["", "", "", ",tpid=0x88a8", ",tpid=0x8100"]);
            let pcp = *self.random.one_of(&["", ",pcp=5", ",dei"]);
            layers.push(format!("vlan(id={id}{pcp}{tpid})"));
        }
    }

    fn address(&mut self) -> usize {
        self.random.below(self.mix.addresses.clamp(1, 256))
    }

    fn arp(&mut self) -> String {
        let (op, spa, tpa) = (self.random.below(2) + 1, self.address(), self.address());
        format!("arp(op={op},spa=10.0.0.{spa},tpa=10.0.0.{tpa})")
    }

    fn ip(&mut self, version: &str, wanted: &str, layers: &mut Vec<String>) {
        let (src, dst) = (self.address(), self.address());
        let ttl = *self.random.one_of(&[64, 64, 255, 1, 0]);
        let tos = *self.random.one_of(&[0, 0, 0xb8, 3]);
        if version == "ipv4" {
            layers.push(format!("ipv4(src=10.0.0.{src},dst=10.0.0.{dst},ttl={ttl},tos={tos})"));
            if self.random.chance(10) {
                add(layers, "ipv4", "options=94040000");
            }
        } else {
            layers.push(format!("ipv6(src=fd00::{src:x},dst=fd00::{dst:x},ttl={ttl},tos={tos})"));
            for extension in ["hopbyhop", "destination"] {
                if self.random.chance(10) {
                    layers.push(extension.to_owned());
                }
            }
        }
        let payload = self.payload();
        if wanted.is_empty() && self.random.chance(10) {
            self.fragment(version, layers);
        } else {
            self.transport(version, wanted, layers);
        }
        layers.push(payload);
    }

    /// Makes a fragment of the packet: a first one with its transport header, or a later one.
    fn fragment(&mut self, version: &str, layers: &mut Vec<String>) {
        let first = self.random.chance(50);
        let offset = if first { 0 } else { self.random.below(180) + 2 };
        if version == "ipv4" {
            let more = if first || self.random.chance(50) { 1 } else { 0 };
            add(layers, "ipv4", &format!("fragment_offset={offset},mf={more},id=7"));
            if !first {
                add(layers, "ipv4", "protocol=udp");
            }
        } else {
            let protocol = if first { "" } else { ",next_header=udp" };
            layers.push(format!("fragment(offset={offset},more={},id=7{protocol})", u8::from(first)));
        }
        if first {
            self.transport(version, "", layers);
        }
    }

    fn transport(&mut self, version: &str, wanted: &str, layers: &mut Vec<String>) {
        let ports = self.mix.ports.clamp(1, 256);
        let (sport, dport) = (1_000 + self.random.below(ports), 1_000 + self.random.below(ports));
        let kind = match wanted {
            "tcp" | "udp" => wanted,
            _ => *self.random.one_of(&["tcp", "tcp", "tcp", "udp", "udp", "sctp", "icmp", "none"]),
        };
        let icmp_type = if version == "ipv4" { 8 } else { 128 };
        layers.push(match kind {
            "tcp" => {
                let flags = *self.random.one_of(&["syn", "syn+ack", "ack", "psh+ack", "fin+ack", "rst", "0"]);
                let options =
                    *self.random.one_of(&["", "", ",options=020405b4", ",options=0101080a0000000100000002"]);
                format!("tcp(sport={sport},dport={dport},flags={flags}{options})")
            }
            "icmp" if version == "ipv4" => format!("icmp(type={icmp_type},id={sport})"),
            "icmp" => format!("icmpv6(type={icmp_type},id={sport})"),
            "none" => return,
            other => format!("{other}(sport={sport},dport={dport})"),
        });
    }

    fn payload(&mut self) -> String {
        let limit = if self.random.chance(70) { self.mix.payload.min(64) } else { self.mix.payload };
        format!("payload(len={})", self.random.below(limit + 1))
    }
}

impl Iterator for Frames {
    type Item = RandomFrame;

    fn next(&mut self) -> Option<RandomFrame> {
        Some(self.next_frame())
    }
}

/// Adds `field` to the first layer named `name`.
fn add(layers: &mut [String], name: &str, field: &str) {
    let Some(layer) = layers.iter_mut().find(|layer| layer.split('(').next() == Some(name)) else { return };
    if layer.ends_with(')') {
        layer.pop();
        layer.push_str(&format!(",{field})"));
    } else {
        layer.push_str(&format!("({field})"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::headers::{Depth, Malformed, parse};
    use std::collections::HashSet;

    #[test]
    fn a_seed_means_one_sequence() {
        let some = |seed| Frames::new(seed, Mix::default()).take(200).collect::<Vec<_>>();
        assert_eq!(some(7), some(7));
        assert_ne!(some(7), some(8));
        assert_eq!(Random::new(0).next_u64(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn frames_are_what_they_claim() {
        let mut reasons = HashSet::new();
        let (mut malformed, mut refused, total) = (0, 0, 20_000);
        for frame in Frames::new(1, Mix::default()).take(total) {
            assert_eq!(build(&frame.text).as_ref(), Ok(&frame.bytes), "{}", frame.text);
            match parse(&frame.bytes, frame.bytes.len(), Depth::L4) {
                Ok(_) => {}
                Err(reason) => {
                    assert!(frame.malformed, "{reason}: {}", frame.text);
                    reasons.insert(reason);
                    refused += 1;
                }
            }
            malformed += usize::from(frame.malformed);
        }
        assert!((total / 6..total / 4).contains(&malformed), "{malformed} of {total} are malformed");
        assert!(refused > total / 20, "{refused} of {total} are refused");
        let never: Vec<_> = Malformed::ALL.iter().filter(|reason| !reasons.contains(reason)).collect();
        assert!(never.len() <= 4, "never seen: {never:?}");
    }

    #[test]
    fn every_share_can_be_none_or_all() {
        let of =
            |malformed, repeated| Mix { malformed, repeated, vlans: vec![], payload: 0, ..Mix::default() };
        assert!(Frames::new(3, of(0, 0)).take(500).all(|frame| !frame.malformed));
        assert!(Frames::new(3, of(100, 0)).take(500).all(|frame| frame.malformed));
        let distinct: HashSet<_> = Frames::new(3, of(0, 100)).take(500).map(|frame| frame.bytes).collect();
        assert_eq!(distinct.len(), 1);
    }
}
