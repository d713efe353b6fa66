//! What `trace` says is what the ports then see.

use vswitch::lab::{Design, Lab};
use vswitch::telemetry::drops::DropReason;

use super::scaled;
use super::scene::{Event, Scene, Sent, play};

/// What left by which port, and what was dropped where and why, in order of the ports.
#[derive(Debug, PartialEq)]
struct Fate {
    outputs: Vec<(u16, Vec<u8>)>,
    drops: Vec<(u16, &'static str)>,
}

fn traced(lab: &Lab, port: u16, (frame, offload): &Sent) -> Fate {
    let trace = lab.trace(port, frame, *offload);
    let mut fate = Fate {
        outputs: trace.outputs,
        drops: trace.drops.iter().map(|(port, reason)| (*port, reason.name())).collect(),
    };
    fate.outputs.sort_by_key(|(port, _)| *port);
    fate.drops.sort_unstable();
    fate
}

fn happened(lab: &mut Lab, port: u16, sent: &Sent) -> Fate {
    let ports = 0..lab.snapshot().ports.len() as u16;
    let before: Vec<_> = ports.clone().map(|port| lab.totals(port)).collect();
    let seen = play(lab, &Event::Frames(vec![(port, sent.clone())]));
    let outputs = ports.clone().zip(seen.sent);
    let outputs = outputs.flat_map(|(port, sent)| sent.into_iter().map(move |(bytes, _)| (port, bytes)));
    let mut drops = Vec::new();
    for ((port, after), before) in ports.zip(seen.totals).zip(&before) {
        for (reason, count) in DropReason::all().zip(after.since(before).drops) {
            drops.extend((0..count).map(|_| (port, reason.name())));
        }
    }
    drops.sort_unstable();
    Fate { outputs: outputs.collect(), drops }
}

#[test]
fn trace_says_what_then_happens() {
    let (mut traces, mut forwarded, mut dropped) = (0, 0, 0);
    for seed in 0.. {
        if traces >= scaled(10_000) {
            break;
        }
        let mut scene = Scene::new(seed);
        scene.offloads = 30;
        // A cache, so that most of what happens comes from there, while what is traced never does.
        let mut lab = scene.lab(Design { fdb: 64, ..Design::default() }, |wire| wire);
        for _ in 0..60 {
            match scene.event() {
                Event::Frames(frames) => {
                    for (port, sent) in frames.into_iter().take(8) {
                        let addresses = lab.fdb().len();
                        let said = traced(&lab, port, &sent);
                        assert_eq!(addresses, lab.fdb().len(), "a trace changes nothing");
                        let fate = happened(&mut lab, port, &sent);
                        assert!(
                            said == fate,
                            "seed {seed}, trace {traces}: port {port}, {:?}, {}\nsaid {said:?}\nwas {fate:?}",
                            sent.1,
                            vswitch::notation::describe(&sent.0),
                        );
                        traces += 1;
                        forwarded += u64::from(!fate.outputs.is_empty());
                        dropped += u64::from(fate.outputs.is_empty());
                    }
                }
                other => drop(play(&mut lab, &other)),
            }
        }
    }
    assert!(forwarded > traces / 4 && dropped > traces / 8, "{forwarded} and {dropped} of {traces}");
}
