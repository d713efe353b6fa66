//! Stations that talk to each other and to frames made by hand, second by second.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;
const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const C: [u8; 6] = [2, 0, 0, 0, 0, 0xc];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A station with addresses such as `10.0.0.1/24`.
fn station(mac: [u8; 6], addresses: &[&str], routes: &[(&str, &str)]) -> Station {
    let prefix = |text: &&str| text.parse().unwrap();
    Station {
        name: "dc".into(),
        mac,
        mtu: 1500,
        vlan: None,
        addresses: addresses.iter().map(prefix).collect(),
        routes: routes.iter().map(|(to, via)| Route { to: prefix(to), via: ip(via) }).collect(),
        groups: Vec::new(),
    }
}

/// Stations on one wire.
struct Wire {
    now_ns: u64,
    cores: Vec<Core>,
    /// What each has told, and what became of its pings.
    told: Vec<Output>,
    /// Frames that passed.
    seen: Vec<Vec<u8>>,
    /// Whether frames are lost.
    cut: bool,
}

impl Wire {
    fn new(stations: impl IntoIterator<Item = Station>) -> Wire {
        let mut wire =
            Wire { now_ns: SECOND, cores: Vec::new(), told: Vec::new(), seen: Vec::new(), cut: false };
        for station in stations {
            let mut out = Output::default();
            wire.cores.push(Core::new(station, SECOND, &mut out));
            wire.told.push(Output::default());
            wire.carry(wire.cores.len() - 1, out);
        }
        wire
    }

    /// What core `at` sends goes to all others, and so on, until all are silent.
    fn carry(&mut self, at: usize, mut out: Output) {
        self.told[at].events.append(&mut out.events);
        self.told[at].pongs.append(&mut out.pongs);
        for frame in out.frames {
            self.seen.push(frame.clone());
            for other in 0..self.cores.len() {
                if other != at && !self.cut {
                    self.put(other, &frame);
                }
            }
        }
    }

    /// Core `at` receives a frame.
    fn put(&mut self, at: usize, frame: &[u8]) {
        let mut out = Output::default();
        self.cores[at].input(frame, self.now_ns, &mut out);
        self.carry(at, out);
    }

    fn call(&mut self, at: usize, act: impl FnOnce(&mut Core, u64, &mut Output)) {
        let mut out = Output::default();
        act(&mut self.cores[at], self.now_ns, &mut out);
        self.carry(at, out);
    }

    fn want(&mut self, at: usize, remote: &str) {
        self.call(at, |core, now_ns, out| core.want(ip(remote), now_ns, out));
    }

    fn ping(&mut self, at: usize, number: u32, remote: &str, size: usize) {
        let ping = Ping { number, remote: ip(remote), size, deadline_ns: self.now_ns + 5 * SECOND };
        self.call(at, |core, now_ns, out| core.ping(ping, now_ns, out));
    }

    /// Time goes on, to every moment at which something is due.
    fn pass(&mut self, seconds: u64) {
        let end = self.now_ns + seconds * SECOND;
        loop {
            let due = self.cores.iter().map(Core::due_ns).min().unwrap_or(u64::MAX);
            self.now_ns = due.clamp(self.now_ns, end);
            for at in 0..self.cores.len() {
                self.call(at, |core, now_ns, out| core.poll(now_ns, out));
            }
            if due >= end {
                self.now_ns = end;
                return;
            }
        }
    }

    /// What core `at` has told since last asked, as text.
    fn told(&mut self, at: usize) -> Vec<String> {
        let text = |event: Event| match event {
            Event::Path(PathChange { remote, path: Ok(path), .. }) => {
                format!("{remote}: {:x} from {} mtu {}", path.next_hop_mac[5], path.source, path.mtu)
            }
            Event::Path(PathChange { path: Err(reason), .. }) => reason.to_string(),
            Event::PathMtu(PathMtu { remote, mtu, quoted, .. }) => {
                format!("{remote} takes {mtu}: {}", quoted.len())
            }
            Event::Liveness { liveness: Liveness { ends, state, diagnostic, is_alive, .. }, .. } => {
                let remote = ends.remote;
                if is_alive {
                    format!("{remote} is {state}")
                } else {
                    format!("{remote} is {state}: {diagnostic}")
                }
            }
            Event::Duplicate { address, mac, .. } => format!("{address} is at {:x}, too", mac[5]),
        };
        self.told[at].events.drain(..).map(text).collect()
    }

    fn pongs(&mut self, at: usize) -> Vec<(u32, Result<Duration, String>)> {
        let pongs = std::mem::take(&mut self.told[at].pongs);
        pongs
            .into_iter()
            .map(|(number, answer)| (number, answer.map_err(|error| error.to_string())))
            .collect()
    }
}

#[test]
fn two_stations_find_each_other() {
    for (addresses, protocol) in [
        (["10.0.0.1/24", "10.0.0.2/24"], "ARP"),
        (["2001:db8::1/64", "2001:db8::2/64"], "neighbour discovery"),
    ] {
        for vlan in [None, Some(7)] {
            let stations = [A, B].into_iter().zip(addresses);
            let make = |(mac, address)| Station { vlan, ..station(mac, &[address], &[]) };
            let mut wire = Wire::new(stations.map(make));
            let remote = addresses[1].split('/').next().unwrap();
            let own = addresses[0].split('/').next().unwrap();
            wire.want(0, remote);
            let found = format!("{remote}: b from {own} mtu 1500");
            let asked = format!("{remote} has not answered {protocol} yet");
            assert_eq!(wire.told(0), [asked, found.clone()]);
            assert_eq!(wire.cores[1].neighbours(), [], "nobody is learned that was not wanted");
            wire.pass(300);
            assert_eq!(wire.told(0), Vec::<String>::new(), "nothing changes");
            let asked = wire.cores[0].counters().asked;
            assert!((10..=11).contains(&asked), "{asked} times in 300 s");
            wire.cut = true;
            wire.pass(40);
            assert_eq!(wire.told(0), [format!("{remote} does not answer {protocol}")]);
            wire.pass(300);
            wire.cut = false;
            wire.pass(31);
            assert_eq!(wire.told(0), [found]);
            assert_eq!(wire.told(1), Vec::<String>::new());
        }
    }
}

#[test]
fn another_vlan_is_another_network() {
    let tagged = Station { vlan: Some(7), ..station(B, &["10.0.0.2/24"], &[]) };
    let mut wire = Wire::new([station(A, &["10.0.0.1/24"], &[]), tagged]);
    wire.want(0, "10.0.0.2");
    wire.pass(4);
    assert_eq!(wire.told(0), ["10.0.0.2 has not answered ARP yet", "10.0.0.2 does not answer ARP"]);
    assert_eq!(wire.cores[1].counters().heard, 0);
}

#[test]
fn a_route_leads_through_its_neighbour_and_its_lack_is_told() {
    let mut wire = Wire::new([
        station(A, &["10.0.0.1/24"], &[("10.8.0.0/16", "10.0.0.254")]),
        station(B, &["10.0.0.254/24"], &[]),
    ]);
    wire.want(0, "10.8.1.1");
    wire.want(0, "10.9.0.1");
    wire.want(0, "10.0.0.1");
    wire.want(0, "2001:db8::1");
    let told = wire.told(0);
    assert_eq!(told[..2], ["10.0.0.254 has not answered ARP yet", "10.8.1.1: b from 10.0.0.1 mtu 1500"]);
    assert_eq!(
        told[2..],
        ["no route to 10.9.0.1", "10.0.0.1 is an address of our own", "no route to 2001:db8::1"]
    );
    // The configuration changes: another route, another address.
    let other = station(A, &["10.0.0.3/24"], &[("0.0.0.0/0", "10.0.0.254")]);
    wire.call(0, |core, now_ns, out| core.configure(other, now_ns, out));
    let mut told = wire.told(0);
    told.sort();
    assert_eq!(
        told,
        [
            "10.0.0.1 has not answered ARP yet",
            "10.8.1.1: b from 10.0.0.3 mtu 1500",
            "10.9.0.1: b from 10.0.0.3 mtu 1500"
        ]
    );
    wire.call(0, |core, now_ns, _| core.unwant(ip("10.0.0.1"), now_ns));
    assert_eq!(wire.cores[0].neighbours(), [(ip("10.0.0.254"), Standing::Usable(B))]);
    wire.cut = true;
    wire.pass(40);
    assert!(wire.told(0).contains(&"10.0.0.254 does not answer ARP".to_owned()));
}

#[test]
fn pings_of_any_size_are_answered_up_to_the_mtu() {
    let mut wire = Wire::new([
        station(A, &["10.0.0.1/24", "2001:db8::1/64"], &[]),
        station(B, &["10.0.0.2/24", "2001:db8::2/64"], &[]),
    ]);
    wire.pass(10);
    wire.seen.clear();
    for (number, size) in [28, 60, 1499, 1500].into_iter().enumerate() {
        wire.ping(0, number as u32, "10.0.0.2", size);
        assert_eq!(wire.pongs(0), [(number as u32, Ok(Duration::ZERO))]);
        let [.., there, back] = &wire.seen[..] else { panic!() };
        assert_eq!((there.len(), back.len()), ((size + 14).max(60), (size + 14).max(60)));
        assert_eq!((there[20] & 0x40, back[34]), (0x40, 0), "DF; an echo reply");
    }
    for size in [48, 1500] {
        wire.ping(0, 7, "2001:db8::2", size);
        assert_eq!(wire.pongs(0), [(7, Ok(Duration::ZERO))]);
    }
    assert_eq!(wire.cores[1].counters().echoes, 6);
    assert_eq!(wire.cores[0].neighbours(), [], "who was pinged is forgotten");
    wire.ping(0, 8, "10.0.0.2", 27);
    wire.ping(0, 9, "10.0.0.2", 1501);
    let refused =
        ["a ping to 10.0.0.2 has at least 28 bytes", "1501 bytes are more than the MTU of dc, 1500"];
    assert_eq!(wire.pongs(0), [(8, Err(refused[0].into())), (9, Err(refused[1].into()))]);
    // A neighbour that takes more than we do gets no answer that nobody could carry.
    let large = Station { mtu: 9000, ..station(C, &["10.0.0.3/24"], &[]) };
    let mut wire = Wire::new([large, station(B, &["10.0.0.2/24"], &[])]);
    wire.ping(0, 1, "10.0.0.2", 1501);
    wire.pass(5);
    assert_eq!(wire.pongs(0), [(1, Err("no answer from 10.0.0.2 to 1501 bytes".into()))]);
}

#[test]
fn a_ping_says_why_it_has_no_answer() {
    let mut wire = Wire::new([station(A, &["10.0.0.1/24"], &[])]);
    wire.ping(0, 1, "10.1.0.1", 100);
    assert_eq!(wire.pongs(0), [(1, Err("no route to 10.1.0.1".into()))]);
    wire.ping(0, 2, "10.0.0.9", 100);
    assert_eq!(wire.pongs(0), []);
    wire.pass(3);
    assert_eq!(wire.pongs(0), [(2, Err("10.0.0.9 does not answer ARP".into()))]);
    for number in 0..65 {
        wire.ping(0, number, "10.0.0.9", 100);
    }
    assert_eq!(wire.pongs(0), [(64, Err("too many pings are under way".into()))]);
}

#[test]
fn what_was_not_wanted_is_not_learned_and_what_was_is() {
    let mut wire = Wire::new([station(A, &["10.0.0.1/24"], &[])]);
    let from = |mac| Writer { mac, vlan: None };
    wire.put(0, &from(B).announce(ip("10.0.0.2")));
    assert_eq!(wire.cores[0].neighbours(), []);
    wire.want(0, "10.0.0.2");
    wire.told(0);
    wire.put(0, &from(B).announce(ip("10.0.0.2")));
    assert_eq!(wire.told(0), ["10.0.0.2: b from 10.0.0.1 mtu 1500"]);
    wire.pass(2);
    // It moves, and asks for us from there.
    let ask = from(C).ask(None, ip("10.0.0.2"), ip("10.0.0.1")).unwrap();
    wire.put(0, &ask);
    assert_eq!(wire.told(0), ["10.0.0.2: c from 10.0.0.1 mtu 1500"]);
    // An answer to somebody else, and one that says it is from a group.
    wire.pass(2);
    wire.put(0, &from(B).answer_arp("10.0.0.7".parse().unwrap(), A, "10.0.0.1".parse().unwrap()));
    wire.put(0, &from([3, 0, 0, 0, 0, 1]).announce(ip("10.0.0.2")));
    assert_eq!(wire.told(0), Vec::<String>::new());
    assert_eq!(wire.cores[0].neighbours(), [(ip("10.0.0.2"), Standing::Usable(C))]);
}

#[test]
fn who_uses_our_address_is_told_of_and_answered_now_and_then() {
    for (own, probe) in [("10.0.0.1", "0.0.0.0"), ("2001:db8::1", "::")] {
        let mut wire = Wire::new([station(A, &["10.0.0.1/24", "2001:db8::1/64"], &[])]);
        wire.pass(10);
        let theirs = Writer { mac: B, vlan: None };
        wire.seen.clear();
        for _ in 0..100 {
            wire.put(0, &theirs.announce(ip(own)));
        }
        assert_eq!(wire.told(0), [format!("{own} is at b, too")]);
        let ours = Writer { mac: A, vlan: None };
        // An IPv4 announcement is a request for our address, and is answered as such, too.
        let announced = wire.seen.iter().filter(|frame| **frame == ours.announce(ip(own))).count();
        assert_eq!(announced, 1);
        wire.pass(10);
        if ip(own).is_ipv4() {
            wire.put(0, &theirs.ask(None, ip(probe), ip(own)).unwrap());
            assert_eq!(wire.told(0), [format!("{own} is at b, too")], "it asks whether it may");
        }
    }
}

#[test]
fn addresses_are_announced_twice() {
    let mut wire = Wire::new([station(A, &["10.0.0.1/24", "2001:db8::1/64"], &[])]);
    wire.pass(60);
    assert_eq!(wire.seen.len(), 4);
    assert_eq!(wire.seen[0], wire.seen[2]);
    let more = station(A, &["10.0.0.1/24", "10.0.0.2/24"], &[]);
    wire.call(0, |core, now_ns, out| core.configure(more, now_ns, out));
    wire.pass(60);
    assert_eq!(wire.seen.len(), 6, "the new one only");
    assert_eq!(wire.cores[0].due_ns(), u64::MAX, "nothing is due");
}

#[test]
fn answers_are_limited_and_counted() {
    let mut wire = Wire::new([station(A, &["10.0.0.1/24"], &[])]);
    let theirs = Writer { mac: B, vlan: None };
    let ask = theirs.ask(None, ip("10.0.0.2"), ip("10.0.0.1")).unwrap();
    let echo = theirs.echo(A, (ip("10.0.0.2"), ip("10.0.0.1")), true, (1, 1), b"x").unwrap();
    for _ in 0..1000 {
        wire.put(0, &ask);
        wire.put(0, &echo);
    }
    let Counters { resolutions, echoes, limited, .. } = wire.cores[0].counters();
    assert_eq!((resolutions, echoes, limited), (125, 125, 1750));
    wire.pass(1);
    wire.put(0, &ask);
    assert_eq!(wire.cores[0].counters().resolutions, 126);
}

/// An error about a packet of ours, as a router at C sends it to A.
fn too_big(mtu: u16, from: &str, to: &str, protocol: u8, total: u16) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let mut icmp = vec![3, 4, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend([0x45, 0]);
    icmp.extend(total.to_be_bytes());
    icmp.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    icmp.extend(octets(from));
    icmp.extend(octets(to));
    icmp.extend([0xc0, 0, 0x12, 0xb5, 5, 200, 0, 0]);
    let mut sum = pmd::checksum::Sum::default();
    sum.add(&icmp);
    icmp[2..4].copy_from_slice(&sum.finish());
    let mut ip = vec![0x45, 0, 0, 20 + icmp.len() as u8, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 254, 10, 0, 0, 1];
    let mut sum = pmd::checksum::Sum::default();
    sum.add(&ip);
    ip[10..12].copy_from_slice(&sum.finish());
    [&A[..], &C, &[8, 0], &ip, &icmp].concat()
}

#[test]
fn an_error_about_a_tunnel_packet_makes_its_path_smaller_for_a_while() {
    let mut wire = Wire::new([
        station(A, &["10.0.0.1/24"], &[("0.0.0.0/0", "10.0.0.254")]),
        station(C, &["10.0.0.254/24"], &[]),
    ]);
    wire.want(0, "10.9.0.1");
    wire.want(0, "10.9.0.2");
    wire.told(0);
    wire.put(0, &too_big(1400, "10.0.0.1", "10.9.0.1", path_mtu::UDP, 1500));
    assert_eq!(wire.told(0), ["10.9.0.1 takes 1400: 28", "10.9.0.1: c from 10.0.0.1 mtu 1400"]);
    wire.put(0, &too_big(1450, "10.0.0.1", "10.9.0.1", path_mtu::UDP, 1500));
    assert_eq!(wire.told(0), ["10.9.0.1 takes 1400: 28"], "no larger one before it is old");
    wire.pass(300);
    wire.put(0, &too_big(68, "10.0.0.1", "10.9.0.1", path_mtu::GRE, 1400));
    assert_eq!(wire.told(0), ["10.9.0.1 takes 576: 28", "10.9.0.1: c from 10.0.0.1 mtu 576"]);
    wire.pass(599);
    assert_eq!(wire.told(0), Vec::<String>::new());
    wire.pass(1);
    assert_eq!(wire.told(0), ["10.9.0.1: c from 10.0.0.1 mtu 1500"]);
    // What cannot be true: another's packet, an unwanted remote, another protocol, a packet that was small enough.
    let refused = wire.cores[0].counters().errors_refused;
    wire.put(0, &too_big(1400, "10.0.0.7", "10.9.0.1", path_mtu::UDP, 1500));
    wire.put(0, &too_big(1400, "10.0.0.1", "10.9.0.3", path_mtu::UDP, 1500));
    wire.put(0, &too_big(1400, "10.0.0.1", "10.9.0.1", 6, 1500));
    wire.put(0, &too_big(1400, "10.0.0.1", "10.9.0.1", path_mtu::UDP, 1400));
    let mut broken = too_big(1400, "10.0.0.1", "10.9.0.1", path_mtu::UDP, 1500);
    broken[41] ^= 1;
    wire.put(0, &broken);
    assert_eq!(wire.told(0), Vec::<String>::new());
    assert_eq!(wire.cores[0].counters().errors_refused, refused + 4);
}

#[test]
fn an_error_about_a_ping_ends_it() {
    let mut wire = Wire::new([
        station(A, &["10.0.0.1/24"], &[("0.0.0.0/0", "10.0.0.254")]),
        station(C, &["10.0.0.254/24"], &[]),
    ]);
    wire.ping(0, 0x12b5_05c8, "10.9.0.1", 1500);
    assert_eq!(wire.pongs(0), []);
    let mut error = too_big(1400, "10.0.0.1", "10.9.0.1", path_mtu::ICMP, 1500);
    // The quoted bytes behind the header are type, code, checksum, and the ping's numbers.
    let at = error.len() - 4;
    error[at..].copy_from_slice(&[0x12, 0xb5, 0x05, 0xc8]);
    error[36..38].copy_from_slice(&[0, 0]);
    let mut sum = pmd::checksum::Sum::default();
    sum.add(&error[34..]);
    let sum = sum.finish();
    error[36..38].copy_from_slice(&sum);
    wire.put(0, &error);
    let expected = "too big for a network on the way, which takes 1400 bytes";
    assert_eq!(wire.pongs(0), [(0x12b5_05c8, Err(expected.into()))]);
}

fn with(remote: &str) -> Ends {
    Ends { local: None, remote: ip(remote) }
}

#[test]
fn remotes_are_watched_next_to_us_and_behind_routers() {
    let addresses = [
        ("10.0.0.1/24", "10.0.0.2/24"),
        ("10.0.0.1/24", "10.9.0.1/24"),
        ("2001:db8::1/64", "2001:db8::2/64"),
    ];
    for (one, two) in addresses {
        let [remote, own] = [two, one].map(|text| text.split('/').next().unwrap());
        let routes = [("10.9.0.0/24", "10.0.0.254"), ("10.0.0.0/24", "10.9.0.254")];
        let make = |mac, own: &str, gateway: &str| station(mac, &[own, gateway], &routes);
        let mut wire = match two {
            // Each end is its own gateway, and known to the other by that address.
            "10.9.0.1/24" => Wire::new([make(A, one, "10.9.0.254/32"), make(B, two, "10.0.0.254/32")]),
            _ => Wire::new([station(A, &[one], &[]), station(B, &[two], &[])]),
        };
        let watch = |wire: &mut Wire, at: usize, remote: &str| {
            wire.call(at, |core, now_ns, out| {
                core.watch((with(remote), at as u32 + 1), Some(Timing::default()), now_ns, out);
            });
        };
        watch(&mut wire, 0, remote);
        wire.pass(10);
        assert_eq!(wire.told(0), Vec::<String>::new(), "it takes two");
        watch(&mut wire, 1, own);
        wire.pass(2);
        assert_eq!(wire.told(0).last(), Some(&format!("{remote} is up")));
        assert_eq!(wire.told(1).last(), Some(&format!("{own} is up")));
        let last = wire.seen.last().unwrap().clone();
        let port = if two == "10.9.0.1/24" { 4784 } else { 3784 };
        let read = etherparse::SlicedPacket::from_ethernet(&last).unwrap();
        let Some(etherparse::TransportSlice::Udp(udp)) = read.transport else { panic!("{last:?}") };
        assert_eq!((udp.destination_port(), udp.source_port() >= 49_152), (port, true));
        wire.cut = true;
        wire.pass(2);
        let down = format!("{remote} is down: nothing was heard for too long");
        assert_eq!(wire.told(0), [down]);
        wire.cut = false;
        wire.pass(3);
        assert_eq!(wire.told(0).last(), Some(&format!("{remote} is up")));
        wire.told(1);
        // Its remote is gone with the session, and the other end shall notice.
        wire.call(0, |core, now_ns, out| core.watch((with(remote), 1), None, now_ns, out));
        wire.pass(2);
        assert_eq!(wire.told(1), [format!("{own} is down: nothing was heard for too long")]);
        // The session alone is switched off: that says nothing about the way.
        watch(&mut wire, 0, remote);
        wire.want(0, remote);
        wire.pass(3);
        wire.told(1);
        wire.call(0, |core, now_ns, out| core.watch((with(remote), 1), None, now_ns, out));
        wire.pass(3);
        assert_eq!(wire.told(1), [format!("{own} is down")]);
    }
}

#[test]
fn a_control_packet_that_was_forwarded_is_no_neighbours() {
    let mut wire = Wire::new([station(A, &["10.0.0.1/24"], &[])]);
    wire.call(0, |core, now_ns, out| core.watch((with("10.0.0.2"), 1), Some(Timing::default()), now_ns, out));
    let theirs = Writer { mac: B, vlan: None };
    let packet = super::super::bfd::Session::new(9, Timing::default(), 0).tick(0).unwrap();
    let ends = (ip("10.0.0.2"), ip("10.0.0.1"));
    let mut forwarded = theirs.control(A, ends, true, 9, &packet).unwrap();
    forwarded[22] = 254;
    // One less in the TTL is one more in the checksum.
    forwarded[24] += 1;
    wire.put(0, &forwarded);
    wire.put(0, &theirs.control(A, ends, false, 9, &packet).unwrap());
    let liveness = wire.cores[0].liveness()[0];
    assert_eq!((liveness.packets.refused, liveness.packets.received), (2, 0));
    wire.put(0, &theirs.control(A, ends, true, 9, &packet).unwrap());
    assert_eq!(wire.cores[0].liveness()[0].packets.received, 1);
}

#[test]
fn another_implementation_reads_what_we_write() {
    let writer = Writer { mac: A, vlan: Some(7) };
    let four = (ip("10.0.0.1"), ip("10.0.0.2"));
    let six = (ip("2001:db8::1"), ip("2001:db8::2"));
    let arp = writer.ask(None, four.0, four.1).unwrap();
    assert_eq!(
        arp[..46],
        [
            &[0xff; 6][..],
            &A,
            &[0x81, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &A,
            &[10, 0, 0, 1],
            &[0; 6],
            &[10, 0, 0, 2],
        ]
        .concat()
    );
    assert_eq!(arp.len(), 60);
    let frames = [
        writer.echo(B, four, true, (1, 2), &[7; 99]).unwrap(),
        writer.echo(B, six, false, (1, 2), &[7; 99]).unwrap(),
        writer.ask(None, six.0, six.1).unwrap(),
        writer.ask(Some(B), six.0, six.1).unwrap(),
        writer.announce(six.0),
        writer.answer_solicitation("2001:db8::1".parse().unwrap(), B, "2001:db8::2".parse().unwrap()),
    ];
    let macs = [B, B, [0x33, 0x33, 0xff, 0, 0, 2], B, [0x33, 0x33, 0, 0, 0, 1], B];
    for (frame, mac) in frames.iter().zip(macs) {
        assert_eq!(frame[..6], mac);
        let read = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
        match (read.net.unwrap(), read.transport.unwrap()) {
            (etherparse::NetSlice::Ipv4(header), etherparse::TransportSlice::Icmpv4(icmp)) => {
                assert_eq!(
                    header.header().header_checksum(),
                    header.header().to_header().calc_header_checksum()
                );
                assert!(header.header().dont_fragment());
                let whole = icmp.slice();
                let sum = etherparse::checksum::Sum16BitWords::new().add_slice(whole).ones_complement();
                assert_eq!(sum, 0);
            }
            (etherparse::NetSlice::Ipv6(header), etherparse::TransportSlice::Icmpv6(icmp)) => {
                let header = header.header();
                assert!(icmp.is_checksum_valid(header.source(), header.destination()));
                let discovery = !(128..=129).contains(&icmp.slice()[0]);
                assert_eq!(header.hop_limit(), if discovery { 255 } else { 64 });
            }
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    /// Whatever comes, the station does nothing but answer, and its memory does not grow.
    #[test]
    fn no_frame_does_harm(
        which in 0usize..8,
        cut in 0usize..200,
        changes in proptest::collection::vec((0usize..200, any::<u8>()), 0..6),
    ) {
        let theirs = Writer { mac: B, vlan: None };
        let (a, b) = (ip("10.0.0.1"), ip("10.0.0.2"));
        let (a6, b6) = (ip("2001:db8::1"), ip("2001:db8::2"));
        let mut frame = match which {
            0 => theirs.ask(None, b, a).unwrap(),
            1 => theirs.ask(None, b6, a6).unwrap(),
            2 => theirs.announce(b),
            3 => theirs.announce(b6),
            4 => theirs.echo(A, (b, a), true, (1, 1), &[0; 70]).unwrap(),
            5 => theirs.echo(A, (b6, a6), true, (1, 1), &[0; 70]).unwrap(),
            6 => too_big(1400, "10.0.0.1", "10.0.0.2", path_mtu::UDP, 1500),
            _ => vec![0xff; 100],
        };
        for (at, value) in changes {
            let len = frame.len();
            frame[at % len] = value;
        }
        frame.truncate(cut);
        let mut wire = Wire::new([station(A, &["10.0.0.1/24", "2001:db8::1/64"], &[])]);
        wire.want(0, "10.0.0.2");
        wire.want(0, "2001:db8::2");
        wire.pass(10);
        let before = wire.seen.len();
        wire.put(0, &frame);
        prop_assert!(wire.seen.len() <= before + 3);
        prop_assert_eq!(wire.cores[0].neighbours().len(), 2);
    }
}

#[test]
fn a_question_about_groups_is_answered_with_what_we_are_in() {
    let groups = vec![ip("239.129.1.1"), ip("ff05::1:2")];
    let own = ["10.0.0.1/24", "fe80::1/64"];
    let mut wire = Wire::new([Station { groups, ..station(A, &own, &[]) }]);
    let reports = |wire: &mut Wire| -> Vec<Vec<u8>> {
        let is_report = |frame: &Vec<u8>| {
            (frame[12..15] == [8, 0, 0x46] && frame[38] == 0x16) || (frame[12] == 0x86 && frame[62] == 131)
        };
        let mut found: Vec<_> = wire.seen.drain(..).filter(is_report).collect();
        found.sort();
        found
    };
    wire.pass(30);
    let said = reports(&mut wire);
    assert_eq!(said.len(), 4, "two of each");
    let read = etherparse::SlicedPacket::from_ethernet(&said[0]).unwrap();
    let Some(etherparse::NetSlice::Ipv4(ipv4)) = read.net else { panic!("{:?}", said[0]) };
    let header = ipv4.header().to_header();
    assert_eq!((header.time_to_live, header.destination), (1, [239, 129, 1, 1]));
    assert_eq!(
        (header.calc_header_checksum(), &header.options[..]),
        (header.header_checksum, &[0x94, 4, 0, 0][..])
    );
    assert_eq!(said[0][..6], [1, 0, 0x5e, 1, 1, 1]);
    assert_eq!(said[2][..6], [0x33, 0x33, 0, 1, 0, 2]);
    assert_eq!((said[2][20], said[2][21]), (0, 1), "hop-by-hop options, and no further than one hop");
    let (from, to) = (ip("fe80::1"), ip("ff05::1:2"));
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { unreachable!() };
    let message = smoltcp::wire::Icmpv6Packet::new_unchecked(&said[2][62..86]);
    assert!(message.verify_checksum(&from, &to));

    // Questions: who is in any group, of either family.
    let mut question = said[0].clone();
    question[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]);
    question[6..12].copy_from_slice(&B);
    question[38..46].copy_from_slice(&[0x11, 10, 0xee, 0xf5, 0, 0, 0, 0]);
    wire.put(0, &question);
    wire.pass(2);
    assert_eq!(reports(&mut wire), [said[0].clone()]);
    let mut question = said[2].clone();
    question[6..12].copy_from_slice(&B);
    question[22 + 15] = 2;
    question[62..86].fill(0);
    (question[62], question[66]) = (130, 2);
    let (message, from) = (&mut question[62..86], std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
    smoltcp::wire::Icmpv6Packet::new_unchecked(message).fill_checksum(&from, &to);
    wire.put(0, &question);
    wire.pass(2);
    assert_eq!(reports(&mut wire), [said[2].clone()]);
    question[70] ^= 1;
    wire.put(0, &question);
    wire.pass(2);
    assert_eq!(reports(&mut wire), Vec::<Vec<u8>>::new(), "it was damaged");
}
