//! What the fast path must not do: allocate, or call the kernel.
//!
//! A whole switch in memory is warmed up; then a backlog of known unicast frames, floods, frames of
//! stations that nobody has seen, changes of tags, trains to be cut, and a full destination waits on its
//! wires, and nothing runs any more but the worker.
#![allow(clippy::unwrap_used, reason = "the whole file is tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use control::schema::{VlanId, VlanMode, VlanSet};
use pmd::mem::{Lending, Settings};
use pmd::{Checksum, Features, Gso, GsoKind, Offload};
use vswitch::lab::{Design, Lab, PortDesign};
use vswitch::notation::build;
use vswitch::telemetry::drops::DropReason;

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Not while the thread ends and has no such variable any more.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: everything is the system allocator's; counting touches one number of the thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Packets that a wire holds: a backlog of 512 from each port, also when all of it is flooded to one.
const CAPACITY: usize = 1024;

/// The port whose wire is nearly always full.
const NARROW: u16 = 4;

/// Two access ports, a trunk, a port that lends, and one that is soon full.
fn switch(flows: usize) -> Lab {
    let vlan = |id| VlanId::new(id).unwrap();
    let wire = Settings { capacity: CAPACITY, ..Settings::default() };
    let lent = Settings { lending: Lending::Lent { head: 128 }, ..wire };
    let vlans: VlanSet = [vlan(10), vlan(20)].into_iter().collect();
    let access = VlanMode::Access(vlan(10));
    let trunk = VlanMode::Trunk { vlans, native: None };
    let mut lab = Lab::new(Design { frames: 16_384, flows, fdb: 65_536, ..Design::default() }).unwrap();
    for (wire, vlan) in [
        (wire, access.clone()),
        (Settings { features: Features::CHECKSUM, ..wire }, access.clone()),
        (wire, trunk),
        (lent, access.clone()),
        (Settings { capacity: 8, ..wire }, access),
    ] {
        lab.add_port(PortDesign { wire, vlan, ..PortDesign::default() });
    }
    lab
}

/// Puts a backlog on the wires; `round` makes the strangers in it new.
fn load(lab: &mut Lab, round: u32) {
    let frame = |text: &str| build(text).unwrap();
    let known = frame("eth(src=02:00:00:00:00:0a,dst=02:00:00:00:00:0b) ipv4 udp");
    let answer = frame("eth(src=02:00:00:00:00:0b,dst=02:00:00:00:00:0a) ipv4 udp");
    let tagged = frame("eth(src=02:00:00:00:00:0c,dst=02:00:00:00:00:0a) vlan(id=10) ipv4 udp");
    let broadcast = frame("eth(src=02:00:00:00:00:0d,dst=ff:ff:ff:ff:ff:ff) arp");
    let train = frame("eth(src=02:00:00:00:00:0a,dst=02:00:00:00:00:0b) ipv4 tcp payload(len=3000)");
    let gso = Offload {
        checksum: Checksum::Partial { start: 34, offset: 16 },
        gso: Some(Gso { kind: GsoKind::Tcp4, size: 1000, ecn: false }),
        outer: None,
    };
    let mut stranger = frame("eth(src=06:00:00:00:00:00,dst=02:00:00:00:00:0c) ipv4 udp");
    for number in 0..100u32 {
        stranger[7..11].copy_from_slice(&(round * 1000 + number).to_be_bytes());
        lab.send(0, &known, Offload::NONE);
        lab.send(0, &stranger, Offload::NONE);
        lab.send(0, &train, gso);
        lab.send(1, &answer, Offload::NONE);
        lab.send(1, &known[..13], Offload::NONE);
        lab.send(2, &tagged, Offload::NONE);
        lab.send(3, &broadcast, Offload::NONE);
        lab.send(3, &known, Offload::NONE);
    }
}

fn drain(lab: &mut Lab) {
    for port in 0..5 {
        while let Some(packet) = lab.end(port).receive() {
            lab.end(port).recycle(packet);
        }
    }
}

/// A switch that has seen it all before, with a backlog.
fn warm(flows: usize) -> Lab {
    let mut lab = switch(flows);
    for round in 0..20 {
        load(&mut lab, round);
        lab.run();
        drain(&mut lab);
    }
    load(&mut lab, 21);
    lab
}

fn allocations(of: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    of();
    ALLOCATIONS.get() - before
}

#[test]
fn frames_are_moved_without_allocating() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 2, "allocations are counted");
    for flows in [4096, 64, 0] {
        let mut lab = warm(flows);
        let before = lab.misses();
        assert_eq!(allocations(|| lab.run()), 0, "with {flows} flows");
        // It was what it should have been.
        assert!(lab.misses() - before >= 100, "strangers are decided by the pipeline");
        assert!(lab.totals(0).made > 0 && lab.totals(1).made > 0, "copies and segments are made");
        assert!(lab.dropped(NARROW, DropReason::TxFull) > 0);
        assert!(lab.is_conserved());
        drain(&mut lab);
        assert_eq!(lab.arena().free(), lab.arena().frames());
    }
}

/// Tells the copy of this program that the test below starts what to do.
const ROLE: &str = "VSWITCH_TEST_STEADY";

/// What such a copy ends with if it comes to its end.
const DONE: i32 = 42;

/// From here on the process may do nothing but end: any other system call kills it (seccomp(2)).
fn forbid_system_calls() {
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let load_number = statement((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0);
    let is_exit = libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: libc::SYS_exit_group as u32,
    };
    let give = |verdict| statement((libc::BPF_RET | libc::BPF_K) as u16, verdict);
    let mut filter =
        [load_number, is_exit, give(libc::SECCOMP_RET_ALLOW), give(libc::SECCOMP_RET_KILL_PROCESS)];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls read their arguments only; the program lives until they return.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(refused, 0, "{}", std::io::Error::last_os_error());
}

/// Not a test of its own: what the copy of this program does.
#[test]
fn the_process_that_may_not_call_the_kernel() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut lab = warm(4096);
    let before = lab.totals(1).tx_frames;
    forbid_system_calls();
    lab.run();
    let moved = lab.totals(1).tx_frames - before >= 100;
    if role == "guilty" {
        // SAFETY: asks for a number.
        unsafe { libc::getppid() };
    }
    // SAFETY: ends the process, and nothing else.
    unsafe { libc::_exit(if moved { DONE } else { 1 }) };
}

#[test]
fn frames_are_moved_without_system_calls() {
    let run = |role| {
        let mut copy = Command::new(std::env::current_exe().unwrap());
        copy.args(["--exact", "the_process_that_may_not_call_the_kernel", "--nocapture"]).env(ROLE, role);
        copy.output().unwrap().status
    };
    assert_eq!(run("innocent").code(), Some(DONE), "killed for a system call, or no frame moved");
    assert_eq!(run("guilty").signal(), Some(libc::SIGSYS), "a system call kills");
}
