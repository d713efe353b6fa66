//! The switch in memory, frame by frame: what leaves which port, and which counters moved.

#![allow(clippy::unwrap_used)]

use control::schema::{VlanId, VlanMode, VlanSet};
use pmd::mem::Settings;
use pmd::{Checksum, Features, Gso, GsoKind, Offload};
use vswitch::lab::{Design, Lab, PortDesign};
use vswitch::notation::build;
use vswitch::tables::fdb::MacKey;
use vswitch::telemetry::counters::PortTotals;
use vswitch::telemetry::drops::DropReason;

fn frame(text: &str) -> Vec<u8> {
    build(text).unwrap()
}

fn vlan(id: u16) -> VlanId {
    VlanId::new(id).unwrap()
}

fn access(id: u16) -> PortDesign {
    PortDesign { vlan: VlanMode::Access(vlan(id)), ..PortDesign::default() }
}

fn trunk(ids: &[u16], native: Option<u16>) -> PortDesign {
    let vlans: VlanSet = ids.iter().map(|id| vlan(*id)).collect();
    PortDesign { vlan: VlanMode::Trunk { vlans, native: native.map(vlan) }, ..PortDesign::default() }
}

fn lab(ports: &[PortDesign]) -> Lab {
    let mut lab = Lab::new(Design::default()).unwrap();
    for port in ports {
        lab.add_port(port.clone());
    }
    lab
}

const A_TO_B: &str =
    "eth(src=02:00:00:00:00:0a,dst=02:00:00:00:00:0b) ipv4(src=10.0.0.1,dst=10.0.0.2) udp(dport=9)";
const B_TO_A: &str =
    "eth(src=02:00:00:00:00:0b,dst=02:00:00:00:00:0a) ipv4(src=10.0.0.2,dst=10.0.0.1) udp(dport=9)";

#[test]
fn an_unknown_address_is_flooded_and_a_known_one_is_not() {
    let mut lab = lab(&[PortDesign::default(), PortDesign::default(), PortDesign::default()]);
    let (there, back) = (frame(A_TO_B), frame(B_TO_A));
    assert_eq!(lab.pass(0, &there), vec![(1, there.clone()), (2, there.clone())]);
    assert_eq!(lab.pass(1, &back), vec![(0, back.clone())]);
    assert_eq!(lab.pass(0, &there), vec![(1, there.clone())]);
    assert_eq!(lab.totals(0).made, 1);
    assert_eq!((lab.totals(0).rx_frames, lab.totals(1).tx_frames, lab.totals(2).tx_frames), (2, 2, 1));
    assert!(lab.is_conserved());
}

#[test]
fn a_station_that_moves_is_found_at_its_new_port_at_once() {
    let mut lab = lab(&[PortDesign::default(), PortDesign::default(), PortDesign::default()]);
    let (there, back) = (frame(A_TO_B), frame(B_TO_A));
    lab.pass(0, &there);
    lab.pass(1, &back);
    assert_eq!(lab.pass(0, &there), vec![(1, there.clone())]);
    lab.pass(2, &back); // B is behind port 2 now
    assert_eq!(lab.pass(0, &there), vec![(2, there.clone())]);
}

#[test]
fn access_ports_and_trunks_change_tags() {
    let mut lab = lab(&[access(10), access(10), access(20), trunk(&[10, 20], Some(30)), trunk(&[20], None)]);
    let plain = frame(A_TO_B);
    let tagged = frame(&A_TO_B.replace(") ipv4", ") vlan(id=10) ipv4"));
    assert_eq!(lab.pass(0, &plain), vec![(1, plain.clone()), (3, tagged.clone())]);
    // Back over the trunk: the tag goes, and the answer is unicast.
    let back_tagged = frame(&B_TO_A.replace(") ipv4", ") vlan(id=10) ipv4"));
    assert_eq!(lab.pass(3, &back_tagged), vec![(0, frame(B_TO_A))]);
    assert_eq!(lab.pass(0, &plain), vec![(3, tagged)]);
    assert!(lab.is_conserved());
}

#[test]
fn what_a_port_does_not_carry_is_dropped_by_name() {
    let mut lab = lab(&[access(10), trunk(&[20], None), access(20)]);
    let tagged = frame(&A_TO_B.replace(") ipv4", ") vlan(id=10) ipv4"));
    assert!(lab.pass(0, &tagged).is_empty());
    assert_eq!(lab.dropped(0, DropReason::TagOnAccess), 1);
    assert!(lab.pass(1, &tagged).is_empty());
    assert_eq!(lab.dropped(1, DropReason::VlanNotMember), 1);
    assert!(lab.pass(1, &frame(A_TO_B)).is_empty());
    assert_eq!(lab.dropped(1, DropReason::UntaggedOnTrunk), 1);
    assert!(lab.is_conserved());
}

#[test]
fn priority_tags_are_untagged_frames_that_keep_their_priority_on_a_trunk() {
    let mut lab = lab(&[access(10), access(10), trunk(&[10], None)]);
    let priority = frame(&A_TO_B.replace(") ipv4", ") vlan(id=0,pcp=5) ipv4"));
    let on_trunk = frame(&A_TO_B.replace(") ipv4", ") vlan(id=10,pcp=5) ipv4"));
    assert_eq!(lab.pass(0, &priority), vec![(1, frame(A_TO_B)), (2, on_trunk)]);
}

#[test]
fn a_service_tag_is_payload() {
    let mut lab = lab(&[access(10), trunk(&[10], None), access(10)]);
    let service = frame(&A_TO_B.replace(") ipv4", ") vlan(tpid=0x88a8,id=77) ipv4"));
    let outer = frame(&A_TO_B.replace(") ipv4", ") vlan(tpid=0x8100,id=10) vlan(tpid=0x88a8,id=77) ipv4"));
    assert_eq!(lab.pass(0, &service), vec![(1, outer), (2, service)]);
}

#[test]
fn isolated_ports_reach_only_the_others() {
    let isolated = PortDesign { isolated: true, ..PortDesign::default() };
    let mut lab = lab(&[isolated.clone(), isolated, PortDesign::default()]);
    let (there, back) = (frame(A_TO_B), frame(B_TO_A));
    assert_eq!(lab.pass(0, &there), vec![(2, there.clone())]);
    assert_eq!(lab.pass(1, &back), vec![]);
    assert_eq!(lab.dropped(1, DropReason::Isolated), 1);
    assert!(lab.is_conserved());
}

#[test]
fn a_frame_goes_back_where_it_came_from_only_by_hairpin() {
    let hairpin = PortDesign { hairpin: true, ..PortDesign::default() };
    let mut lab = lab(&[PortDesign::default(), hairpin]);
    let (there, back) = (frame(A_TO_B), frame(B_TO_A));
    lab.pass(0, &there);
    lab.pass(0, &back); // both stations are behind port 0
    assert!(lab.pass(0, &there).is_empty());
    assert_eq!(lab.dropped(0, DropReason::SamePort), 2);
    lab.pass(1, &there);
    lab.pass(1, &back);
    assert_eq!(lab.pass(1, &there), vec![(1, there.clone())]);
    assert!(lab.is_conserved());
}

#[test]
fn flooding_is_switched_off_by_kind() {
    let mut lab = lab(&[PortDesign::default(), PortDesign::default()]);
    lab.edit(|snapshot| {
        let bridge = snapshot.bridges[0].as_mut().unwrap();
        (bridge.flood_unknown, bridge.flood_broadcast, bridge.flood_multicast) = (false, false, false);
    });
    let to = |dst: &str| frame(&A_TO_B.replace("02:00:00:00:00:0b", dst));
    for (dst, reason) in [
        ("02:00:00:00:00:0b", DropReason::FloodUnknown),
        ("ff:ff:ff:ff:ff:ff", DropReason::FloodBroadcast),
        ("01:00:5e:00:00:01", DropReason::FloodMulticast),
        ("01:80:c2:00:00:0e", DropReason::ReservedAddress),
    ] {
        assert!(lab.pass(0, &to(dst)).is_empty());
        assert_eq!(lab.dropped(0, reason), 1, "{dst}");
    }
}

#[test]
fn an_address_is_forgotten_after_its_time_and_not_before() {
    let mut lab = lab(&[PortDesign::default(), PortDesign::default(), PortDesign::default()]);
    let (there, back) = (frame(A_TO_B), frame(B_TO_A));
    lab.pass(0, &there);
    lab.pass(1, &back);
    lab.advance_s(299);
    lab.pass(1, &back); // a hit of the cache, which keeps B young
    lab.advance_s(299);
    lab.fdb().sweep(0, u32::MAX, 598, |_| 300, |_| {});
    assert_eq!(lab.fdb().len(), 1, "A is gone, B is not");
    assert_eq!(lab.pass(0, &there).len(), 1);
    lab.advance_s(301);
    lab.fdb().sweep(0, u32::MAX, 899, |_| 300, |_| {});
    assert_eq!(lab.pass(0, &there).len(), 2, "B is gone: flooded again, whatever the cache held");
}

/// What moved at a port between two looks at its counters, by name, without the bytes.
fn moved(lab: &Lab, port: u16, before: &PortTotals) -> Vec<(&'static str, u64)> {
    let totals = lab.totals(port).since(before);
    let PortTotals { rx_frames, tx_frames, made, consumed, learn_refused, ref drops, .. } = totals;
    let counters = [
        ("rx", rx_frames),
        ("tx", tx_frames),
        ("made", made),
        ("consumed", consumed),
        ("learn-refused", learn_refused),
    ];
    let drops = DropReason::all().map(DropReason::name).zip(drops.iter().copied());
    counters.into_iter().chain(drops).filter(|(_, count)| *count > 0).collect()
}

/// Sends one frame and gives what moved at each port.
fn moves(lab: &mut Lab, port: u16, frame: &[u8], offload: Offload) -> Vec<Vec<(&'static str, u64)>> {
    let ports = 0..lab.snapshot().ports.len() as u16;
    let before: Vec<_> = ports.clone().map(|port| lab.totals(port)).collect();
    assert!(lab.send(port, frame, offload));
    lab.run();
    ports.clone().for_each(|port| drop(lab.received(port)));
    assert!(lab.is_conserved());
    assert_eq!(lab.arena().free(), lab.arena().frames());
    ports.zip(&before).map(|(port, before)| moved(lab, port, before)).collect()
}

#[test]
fn every_frame_moves_its_counters_and_no_other() {
    let isolated = PortDesign { isolated: true, ..PortDesign::default() };
    let mut lab = lab(&[isolated.clone(), PortDesign::default(), isolated]);
    let (there, back) = (frame(A_TO_B), frame(B_TO_A));
    let mut moves = |port, frame: &[u8]| moves(&mut lab, port, frame, Offload::NONE);
    // A flood that an isolated port does not get; with one copy nothing is made.
    assert_eq!(moves(0, &there), [vec![("rx", 1)], vec![("tx", 1)], vec![]]);
    assert_eq!(moves(1, &there), [vec![("tx", 1)], vec![("rx", 1), ("made", 1)], vec![("tx", 1)]]);
    assert_eq!(moves(2, &back), [vec![], vec![("tx", 1)], vec![("rx", 1)]]);
    // A is behind port 1 since, which sent to itself; B behind port 2, where A's frames may go.
    assert_eq!(moves(1, &there), [vec![], vec![("rx", 1)], vec![("tx", 1)]]);
    assert_eq!(moves(1, &back), [vec![], vec![("rx", 1), ("same-port", 1)], vec![]]);
    assert_eq!(moves(0, &there[..13]), [vec![("rx", 1), ("truncated-ethernet", 1)], vec![], vec![]]);
}

#[test]
fn addresses_are_learned_up_to_the_limits_of_port_and_bridge() {
    let mut lab = lab(&[PortDesign::default(), PortDesign::default(), PortDesign::default()]);
    let station = |last: u8| frame(&A_TO_B.replace("00:0a", &format!("00:{last:02x}")));
    lab.fdb().set_port_limit(0, 2);
    lab.fdb().set_bridge_limit(0, 3);
    let refused = |lab: &mut Lab, port, frame: &[u8]| {
        let moved = moves(lab, port, frame, Offload::NONE).swap_remove(port as usize);
        // The frame itself is forwarded in any case.
        assert!(moved.contains(&("rx", 1)) && moved.contains(&("made", 1)), "{moved:?}");
        moved.contains(&("learn-refused", 1))
    };
    assert!(!refused(&mut lab, 0, &station(0x20)));
    assert!(!refused(&mut lab, 0, &station(0x21)));
    assert!(refused(&mut lab, 0, &station(0x22)), "the port's limit");
    assert!(refused(&mut lab, 0, &station(0x22)), "and each frame says so, cached or not");
    assert!(!refused(&mut lab, 0, &station(0x21)), "who is known stays known");
    assert!(!refused(&mut lab, 1, &station(0x22)));
    assert!(refused(&mut lab, 1, &station(0x23)), "the bridge's limit");
    assert_eq!((lab.fdb().port_len(0), lab.fdb().port_len(1), lab.fdb().bridge_len(0)), (2, 1, 3));
    lab.fdb().set_bridge_limit(0, u32::MAX);
    assert!(!refused(&mut lab, 1, &station(0x23)), "the next frame learns it as soon as it may");
}

#[test]
fn a_static_entry_says_where_an_address_is_whatever_frames_say() {
    let mut lab = lab(&[PortDesign::default(), PortDesign::default(), PortDesign::default()]);
    let (there, back) = (frame(A_TO_B), frame(B_TO_A));
    let b = MacKey { bridge: 0, vlan: 0, mac: [2, 0, 0, 0, 0, 0x0b] };
    lab.pass(0, &there);
    lab.fdb().add_static(b, 2).unwrap();
    assert_eq!(lab.pass(0, &there), vec![(2, there.clone())], "the cached flood is stale");
    assert_eq!(lab.pass(1, &back), vec![(0, back.clone())], "an impostor may speak");
    assert_eq!(lab.pass(0, &there), vec![(2, there.clone())], "but gets nothing");
    lab.advance_s(10_000);
    lab.age_out(300);
    assert_eq!(lab.pass(0, &there), vec![(2, there.clone())], "it does not age");
    assert!(lab.fdb().remove(b));
    assert_eq!(lab.pass(0, &there).len(), 2);
    lab.pass(1, &back);
    assert_eq!(lab.pass(0, &there), vec![(1, there)]);
}

#[test]
fn the_mtu_counts_the_packet_and_not_its_tags() {
    let mut lab = lab(&[access(10), access(10), trunk(&[10], None)]);
    let of = |payload: usize| frame(&format!("{A_TO_B} payload(len={payload})"));
    let (longest, longer) = (of(1500 - 28), of(1500 - 27));
    assert_eq!(lab.pass(0, &longest).iter().map(|(_, frame)| frame.len()).collect::<Vec<_>>(), [1514, 1518]);
    let moved = moves(&mut lab, 0, &longer, Offload::NONE);
    let dropped = vec![("mtu-exceeded", 1)];
    assert_eq!(
        moved,
        [vec![("rx", 1), ("made", 1)], dropped.clone(), dropped],
        "dropped where it would leave"
    );
}

#[test]
fn a_train_counts_once_where_it_crosses_whole() {
    let wire =
        |features| PortDesign { wire: Settings { features, ..Settings::default() }, ..PortDesign::default() };
    let mut lab = lab(&[wire(Features::VIRTIO), wire(Features::VIRTIO), wire(Features::NONE)]);
    let train = frame(&format!("{} tcp payload(len=2500)", A_TO_B.replace(" udp(dport=9)", "")));
    let offload = Offload {
        checksum: Checksum::Partial { start: 34, offset: 16 },
        gso: Some(Gso { kind: GsoKind::Tcp4, size: 1000, ecn: false }),
        outer: None,
    };
    // Flooded: one copy is made at the in port, two segments more at the port that takes no train.
    let moved = moves(&mut lab, 0, &train, offload);
    assert_eq!(moved, [vec![("rx", 1), ("made", 1)], vec![("tx", 1)], vec![("tx", 3), ("made", 2)]]);
    lab.pass(2, &frame(B_TO_A));
    let moved = moves(&mut lab, 0, &train, offload);
    assert_eq!(moved, [vec![("rx", 1)], vec![], vec![("tx", 3), ("made", 2)]]);
}
