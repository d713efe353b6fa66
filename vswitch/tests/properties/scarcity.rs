//! Nothing left: no frames in the arena, no room on the wires, no device. Every frame is accounted for all
//! the same, and all is well again when there is.

use pmd::mem::{Lending, Settings};
use vswitch::lab::{Design, Lab, PortDesign};
use vswitch::notation::build;
use vswitch::telemetry::drops::DropReason;
use vswitch::worker::Event as Report;

use super::scaled;
use super::scene::{Scene, look};

fn total(lab: &Lab, reason: DropReason) -> u64 {
    (0..lab.snapshot().ports.len() as u16).map(|port| lab.dropped(port, reason)).sum()
}

#[test]
fn an_exhausted_arena_drops_by_name_and_recovers() {
    let mut no_frame = 0;
    for seed in 0..scaled(12) {
        let mut scene = Scene::new(seed);
        (scene.offloads, scene.trains) = (30, 5);
        let lending = [Lending::Owned, Lending::Lent { head: 128 }][seed as usize % 2];
        // More than all pools may keep to themselves.
        let design = Design { frames: 1536, workers: 1 + seed as usize % 2, ..Design::default() };
        let mut lab = scene.lab(design, |wire| Settings { lending, ..wire });
        for _ in 0..800 {
            // Nobody reads, so the wires hold the frames until there are none.
            let (port, (bytes, offload)) = (scene.any_port(), scene.frame());
            lab.send(port, &bytes, offload);
            lab.run();
            assert!(lab.is_conserved(), "seed {seed}");
        }
        no_frame += total(&lab, DropReason::NoFrame);
        look(&mut lab);
        assert_eq!(lab.arena().free(), lab.arena().frames(), "seed {seed}: buffers are lost");

        let hello = build("eth(dst=ff:ff:ff:ff:ff:ff,src=02:00:00:00:00:77) arp").unwrap();
        let before = total(&lab, DropReason::NoFrame);
        for port in 0..scene.ports.len() as u16 {
            assert!(lab.send(port, &hello, pmd::Offload::NONE), "seed {seed}: there are frames again");
            lab.run();
            look(&mut lab);
        }
        assert_eq!(total(&lab, DropReason::NoFrame), before, "seed {seed}: and nobody lacks one");
    }
    assert!(no_frame > 100, "{no_frame} frames met an empty arena");
}

#[test]
fn ports_that_are_unplugged_or_removed_take_nothing_with_them() {
    for seed in 0..scaled(12) {
        let mut scene = Scene::new(seed);
        scene.spread = true;
        let lending = [Lending::Owned, Lending::Lent { head: 128 }][seed as usize % 2];
        let design = Design { workers: 1 + seed as usize % 2, ..Design::default() };
        let mut lab = scene.lab(design, |wire| Settings { lending, ..wire });
        let mut gone = Vec::new();
        for number in 0..200 {
            let (port, (bytes, offload)) = (scene.any_port(), scene.frame());
            lab.send(port, &bytes, offload);
            match number {
                50 => {
                    lab.end(0).unplug();
                    gone.push(0);
                }
                // What is on its wire now is never received.
                100 => lab.remove_port(1),
                _ => {}
            }
            lab.run();
            assert!(lab.is_conserved(), "seed {seed}, frame {number}");
        }
        while let Some(Report::Fault { port, fault, .. }) = lab.event() {
            assert_eq!((port, fault.reason.as_str()), (0, "unplugged"));
            gone.retain(|gone| *gone != port);
        }
        assert!(gone.is_empty(), "seed {seed}: nobody said that the port is gone");
        look(&mut lab);
        let waiting: usize = (0..2).map(|port| lab.end(port).backlog()).sum();
        assert!(waiting > 0, "frames to a port that is gone stay with the sender");
    }
}

#[test]
fn a_frame_for_a_port_that_is_gone_is_dropped_there() {
    let mut lab = Lab::new(Design::default()).unwrap();
    for _ in 0..3 {
        lab.add_port(PortDesign::default());
    }
    let hello = build("eth(dst=ff:ff:ff:ff:ff:ff,src=02:00:00:00:00:01) arp").unwrap();
    lab.end(1).unplug();
    assert_eq!(lab.pass(0, &hello), vec![(2, hello.clone())]);
    assert_eq!((lab.dropped(1, DropReason::TxDown), lab.totals(1).tx_frames), (1, 0));
    lab.remove_port(2);
    assert!(lab.pass(0, &hello).is_empty());
    assert_eq!(lab.dropped(1, DropReason::TxDown), 2);
    assert!(lab.is_conserved());
    assert_eq!(lab.arena().free(), lab.arena().frames());
}
