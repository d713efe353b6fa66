//! What a hostile front end can do to a switch that others use: to its own port, as much as it likes; to the others,
//! nothing.
//!
//! Each test is one attack on the real daemon, by a front end that writes its messages and rings byte by byte. Beside
//! it a stream of frames at a steady rate passes between two ports of the same worker. The attack is made several
//! times; each time the port tells why it is down, by the word that stands in the table, or stays up where what was
//! done is only silly; each time a decent front end finds it at work again. At the end the others have had their
//! rate, no descriptor, mapping or memory is left behind, and all frames are accounted for.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{FallocateFlags, MemfdFlags, OFlags, fallocate, fcntl_setfl};
use vswitch_tests::frontend::{
    BUFFER, FEATURES, FrontEnd, GUEST, INDIRECT, MEMORY, NEXT, RECEIVE, SIZE, TRANSMIT, USER, WRITE, at,
    available_at, buffer_at, descriptor, longs, memory, request, used_at, words,
};
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::probe::pattern::Pattern;
use vswitch_tests::wait::SOON;
use vswitch_tests::{Attachment, Container, Daemon, Lab, wait_until};

/// Frames a second of the stream beside the attack, and what of it must arrive.
const RATE: f64 = 5000.0;
const KEPT: f64 = 0.9;

/// How often each attack is made.
const ROUNDS: usize = 3;

/// By how much the memory of the daemon may differ afterwards: what an allocator keeps.
const SPARE_BYTES: u64 = 8 << 20;

/// The third of the ports, and nobody.
const STATION: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 0xa], [2, 0, 0, 0, 0, 0xb], [2, 0, 0, 0, 0, 0xc]];

fn frame(from: usize, to: usize) -> Vec<u8> {
    [&STATION[to][..], &STATION[from], &[0x88, 0xb5], &[7; 86]].concat()
}

/// A steady stream from one port to another, and how much of it arrives.
struct Stream {
    end: Arc<AtomicBool>,
    /// Frames of the stream, and of others, that arrived.
    arrived: Arc<[AtomicU64; 2]>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    fn start(mut from: FrontEnd, mut to: FrontEnd) -> Self {
        let (end, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicU64::new(0) }; 2]));
        let (ends, counts) = (end.clone(), arrived.clone());
        let thread = thread::spawn(move || {
            assert!(to.send(&frame(1, 0)), "the ring is empty");
            let (begun, mut sent) = (Instant::now(), 0);
            let everybody = [&[0xff; 6], &frame(1, 0)[6..]].concat();
            while !ends.load(Ordering::Relaxed) {
                // The attacker gets something to receive.
                let _ = to.send(&everybody);
                while from.receive().is_some() {}
                let due = (begun.elapsed().as_secs_f64() * RATE) as u64;
                while sent < due && from.send(&frame(0, 1)) {
                    sent += 1;
                }
                while let Some(frame) = to.receive() {
                    let other = usize::from(frame[6..12] != STATION[0]);
                    counts[other].fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_micros(300));
            }
        });
        Self { end, arrived, thread: Some(thread) }
    }

    fn arrived(&self, other: bool) -> u64 {
        self.arrived[usize::from(other)].load(Ordering::Relaxed)
    }

    /// Which part of what was due arrived while `work` was done.
    fn kept(&self, work: impl FnOnce()) -> f64 {
        let (begun, before) = (Instant::now(), self.arrived(false));
        work();
        (self.arrived(false) - before) as f64 / (begun.elapsed().as_secs_f64() * RATE)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A switch with a port `vm` for the attacker and two others with a stream between them.
struct Scene {
    stream: Stream,
    container: Container,
    daemon: Daemon,
    lab: Lab,
    _alone: File,
}

impl Scene {
    fn start() -> Self {
        // One at a time, also where each test is a process: the stream wants a core, and the worker the other.
        let alone = File::create(std::env::temp_dir().join("vswitch-hostile.lock")).expect("a file");
        alone.lock().expect("a lock");
        let lab = Lab::new("hostile");
        let container = lab.container("tap", Attachment::Tap, 1500);
        let port = |name: &str| {
            let socket = lab.folder().join(name);
            let keys = format!("type = \"vhost-user\"\nsocket = \"{}\"\n", socket.display());
            format!("[[port]]\nname = \"{name}\"\nbridge = \"blue\"\n{keys}")
        };
        let ports = ["a", "b", "vm"].map(port).concat();
        let daemon = lab.start(&(Lab::configuration("[1]", &[&container]) + &ports));
        await_up(&daemon.ctl(), &["tap", "a", "b", "vm"]);
        let [from, to] = ["a", "b"].map(|name| FrontEnd::decent(&lab.folder().join(name)).expect("a port"));
        let scene = Self { stream: Stream::start(from, to), container, daemon, lab, _alone: alone };
        wait_until("the stream flows", SOON, || scene.stream.arrived(false) > 100);
        scene.behave();
        scene
    }

    fn socket(&self) -> PathBuf {
        self.lab.folder().join("vm")
    }

    fn decent(&self) -> FrontEnd {
        let end = FrontEnd::decent(&self.socket()).expect("the port takes a decent front end");
        self.await_link("up", "");
        end
    }

    fn await_link(&self, link: &str, reason: &str) {
        let mut last = (String::new(), String::new());
        let ctl = self.daemon.ctl();
        let begun = Instant::now();
        while last.0 != link || !last.1.starts_with(reason) {
            let row = ctl.port("vm").expect("the port is listed");
            last = ["link", "reason"].map(|field| row[field].as_str().unwrap_or("").to_owned()).into();
            assert!(begun.elapsed() < SOON, "the link should be {link}, {reason:?}; it is {last:?}");
        }
    }

    /// A decent front end is served, and goes.
    fn behave(&self) {
        let mut end = self.decent();
        let before = self.stream.arrived(true);
        assert!(end.send(&frame(2, 1)));
        wait_until("a frame of a decent front end arrives", SOON, || self.stream.arrived(true) > before);
        drop(end);
        self.await_link("down", "disconnected");
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.daemon.pid().to_string()).join(file)
    }

    /// Its descriptors, and its mappings of memory that front ends share.
    fn belongings(&self) -> [usize; 2] {
        let sample = || {
            let maps = fs::read_to_string(self.proc("maps")).expect("maps");
            let shared = maps.lines().filter(|line| line.contains("front end")).count();
            [fs::read_dir(self.proc("fd")).expect("descriptors").count(), shared]
        };
        // The connection of the last command may still be there.
        let samples: Vec<_> = (0..20).map(|_| sample()).collect();
        [0, 1].map(|which| samples.iter().map(|sample| sample[which]).min().expect("a sample"))
    }

    fn resident(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Does `work`, which is to leave nothing behind and to cost the stream nothing.
    fn unharmed(&self, work: impl FnOnce()) {
        let (before, resident) = (self.belongings(), self.resident());
        let kept = self.stream.kept(work);
        assert!(kept >= KEPT, "of the others' stream {:.0}% arrived", 100.0 * kept);
        wait_until("descriptors and mappings are given back", SOON, || {
            self.belongings().iter().zip(&before).all(|(now, before)| now <= before)
        });
        let now = self.resident();
        assert!(now < resident + SPARE_BYTES, "{resident} bytes have become {now}");
        assert_conserved(&self.daemon.ctl());
    }
}

/// An attack that takes the port down with a reason that begins with `word`.
fn faults(word: &str, attack: impl Fn(&mut FrontEnd)) {
    let scene = Scene::start();
    scene.unharmed(|| {
        for _ in 0..ROUNDS {
            let mut end = scene.decent();
            attack(&mut end);
            scene.await_link("down", word);
            drop(end);
            scene.behave();
        }
    });
}

/// An attack that the port bears.
fn bears(attack: impl Fn(&mut FrontEnd)) {
    let scene = Scene::start();
    scene.unharmed(|| {
        for _ in 0..ROUNDS {
            let mut end = scene.decent();
            attack(&mut end);
            end.settle().expect("the port is still served");
            scene.await_link("up", "");
            drop(end);
            scene.await_link("down", "disconnected");
            scene.behave();
        }
    });
}

/// Makes a test of each attack.
macro_rules! attacks {
    ($($how:ident ($($word:literal)?) $name:ident $attack:expr;)*) => {
        $(#[test] fn $name() { $how($($word,)? $attack); })*
    };
}

/// A descriptor that is what a decent one would be, but for one thing.
fn transmit(end: &mut FrontEnd, address: u64, bytes: u32, flags: u16, next: u16) {
    end.describe(TRANSMIT, 0, address, bytes, flags, next);
    end.offer(TRANSMIT, 0);
    end.kick(TRANSMIT);
}

/// An indirect table of these descriptors, at the transmit ring's first buffer.
fn indirect(end: &mut FrontEnd, descriptors: &[[u8; 16]]) {
    let place = buffer_at(TRANSMIT, 0);
    end.write(place, descriptors.as_flattened());
    transmit(end, GUEST + place, 16 * u32::try_from(descriptors.len()).expect("few"), INDIRECT, 0);
}

const FRAME: u32 = 100;
const INSIDE: u64 = GUEST + (6 << 20);

// Rings: each field of a descriptor, of a table, of an index (CVE-2018-1059, CVE-2020-10725, CVE-2020-14374 to 14378,
// CVE-2022-0669, CVE-2022-2132; loops and jumps that other switches went round for ever).
attacks! {
    faults("bad-ring") a_chain_that_bites_its_tail |end| transmit(end, INSIDE, FRAME, NEXT, 0);
    faults("bad-ring") a_chain_through_the_whole_table_that_ends_nowhere |end| {
        for index in 0..SIZE {
            end.describe(TRANSMIT, index, INSIDE, 1, NEXT, (index + 1) % SIZE);
        }
        end.offer(TRANSMIT, 0);
        end.kick(TRANSMIT);
    };
    faults("bad-ring") a_chain_that_begins_beyond_the_table |end| {
        end.offer(TRANSMIT, SIZE);
        end.kick(TRANSMIT);
    };
    faults("bad-ring") a_chain_that_goes_on_beyond_the_table |end| transmit(end, INSIDE, FRAME, NEXT, SIZE);
    faults("bad-ring") an_index_that_jumps_over_the_ring |end| {
        end.set_available(TRANSMIT, SIZE + 1);
        end.kick(TRANSMIT);
    };
    faults("bad-ring") an_index_that_runs_backwards |end| {
        end.set_available(TRANSMIT, u16::MAX);
        end.kick(TRANSMIT);
    };
    faults("bad-ring") a_buffer_outside_of_the_memory |end| transmit(end, GUEST + MEMORY, FRAME, 0, 0);
    faults("bad-ring") a_buffer_that_ends_outside_of_the_memory |end| transmit(end, GUEST + MEMORY - 50, FRAME, 0, 0);
    faults("bad-ring") a_buffer_at_the_end_of_all_addresses |end| transmit(end, u64::MAX - 50, FRAME, 0, 0);
    faults("bad-ring") a_buffer_of_all_bytes |end| transmit(end, INSIDE, u32::MAX, 0, 0);
    faults("bad-ring") a_buffer_to_be_written_where_we_read |end| transmit(end, INSIDE, FRAME, WRITE, 0);
    faults("bad-ring") an_indirect_table_outside_of_the_memory |end| transmit(end, GUEST + MEMORY, 32, INDIRECT, 0);
    faults("bad-ring") an_indirect_table_that_ends_outside_of_the_memory
        |end| transmit(end, GUEST + MEMORY - 16, 32, INDIRECT, 0);
    faults("bad-ring") an_indirect_table_of_nothing |end| transmit(end, INSIDE, 0, INDIRECT, 0);
    faults("bad-ring") an_indirect_table_of_half_a_descriptor |end| transmit(end, INSIDE, 24, INDIRECT, 0);
    faults("bad-ring") an_indirect_table_and_a_next_one |end| transmit(end, INSIDE, 32, INDIRECT | NEXT, 1);
    faults("bad-ring") an_indirect_table_in_itself
        |end| indirect(end, &[descriptor(GUEST + buffer_at(TRANSMIT, 0), 16, INDIRECT, 0)]);
    faults("bad-ring") an_indirect_table_that_bites_its_tail |end| indirect(end, &[descriptor(INSIDE, 1, NEXT, 0)]);
    faults("bad-ring") an_indirect_table_that_is_left |end| indirect(end, &[descriptor(INSIDE, 1, NEXT, 1)]);
    faults("bad-ring") a_receive_buffer_outside_of_the_memory |end| {
        for index in 0..SIZE {
            end.describe(RECEIVE, index, GUEST + MEMORY, BUFFER as u32, WRITE, 0);
        }
    };
    bears() buffers_of_no_bytes_in_every_place |end| {
        for place in 0..4 {
            for index in 0..4 {
                let bytes = if index == place { 0 } else { FRAME };
                let flags = if index < 3 { NEXT } else { 0 };
                end.describe(TRANSMIT, 4 * place + index, INSIDE, bytes, flags, 4 * place + index + 1);
            }
            end.offer(TRANSMIT, 4 * place);
        }
        end.describe(TRANSMIT, 16, INSIDE, 0, 0, 0);
        end.offer(TRANSMIT, 16);
        end.kick(TRANSMIT);
        wait_until("the chains are given back", SOON, || end.given_back(TRANSMIT) == 5);
    };
    bears() a_header_in_pieces_and_frames_shorter_than_it |end| {
        let mut index = 0;
        let mut heads = 0;
        for cut in 1..=12 {
            for rest in [0, 1, 13, 100] {
                end.describe(TRANSMIT, index, INSIDE, cut, NEXT, index + 1);
                end.describe(TRANSMIT, index + 1, INSIDE, 12 - cut, NEXT, index + 2);
                end.describe(TRANSMIT, index + 2, INSIDE, rest, 0, 0);
                end.offer(TRANSMIT, index);
                (index, heads) = (index + 3, heads + 1);
            }
            end.describe(TRANSMIT, index, INSIDE, cut, 0, 0);
            end.offer(TRANSMIT, index);
            (index, heads) = (index + 1, heads + 1);
        }
        end.kick(TRANSMIT);
        wait_until("the chains are given back", SOON, || end.given_back(TRANSMIT) == heads);
    };
    // CVE-2024-11614.
    bears() headers_that_lie_about_their_frame |end| {
        let mut random = Pattern::new(5);
        for index in 0..SIZE {
            let mut header = [0; 12];
            random.fill(&mut header);
            if index % 2 == 0 {
                (header[0], header[1]) = (1, [0, 1, 4, 5, 0x81][usize::from(index / 2 % 5)]);
            }
            end.write(buffer_at(TRANSMIT, index), &[&header[..], &frame(2, 1)].concat());
            end.describe(TRANSMIT, index, GUEST + buffer_at(TRANSMIT, index), 112, 0, 0);
            end.offer(TRANSMIT, index);
        }
        end.kick(TRANSMIT);
        wait_until("the chains are given back", SOON, || end.given_back(TRANSMIT) == SIZE);
    };
    // CVE-2019-3900: a queue that is never empty.
    bears() a_ring_that_is_always_full |end| {
        flood(end, Duration::from_millis(300));
    };
    bears() a_guest_that_takes_no_frames |end| {
        wait_until("its buffers are used up", SOON, || end.given_back(RECEIVE) == SIZE);
    };
    faults("bad-ring") a_ring_that_is_scribbled_over |end| {
        let mut random = Pattern::new(9);
        for _ in 0..2000 {
            let ring = [RECEIVE, TRANSMIT][random.below(2) as usize];
            end.write(at(ring) + 2 * random.below(0x4000), &random.next_u64().to_le_bytes());
            end.kick(ring);
        }
    };
    bears() kicks_without_end |end| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(300) {
            end.kick(TRANSMIT);
            end.kick(RECEIVE);
        }
    };
}

/// Shows the switch a full ring again and again.
fn flood(end: &mut FrontEnd, time: Duration) {
    for index in 0..SIZE {
        let frame = [&[0; 12], &frame(2, 2)[..]].concat();
        end.write(buffer_at(TRANSMIT, index), &frame);
        end.describe(TRANSMIT, index, GUEST + buffer_at(TRANSMIT, index), FRAME + 12, 0, 0);
        end.write(available_at(TRANSMIT) + 4 + 2 * u64::from(index), &index.to_le_bytes());
    }
    let begun = Instant::now();
    while begun.elapsed() < time {
        end.set_available(TRANSMIT, end.given_back(TRANSMIT).wrapping_add(SIZE));
        end.kick(TRANSMIT);
    }
}

// Memory: what becomes of the file behind it.
attacks! {
    faults("memory-truncated") a_file_cut_to_nothing |end| cut(end, 0);
    faults("memory-truncated") a_file_cut_to_a_page |end| cut(end, 4096);
    faults("memory-truncated") a_file_cut_behind_the_rings |end| {
        end.memory.set_len(1 << 20).expect("a memfd can be cut");
        transmit(end, INSIDE, FRAME, 0, 0);
    };
    faults("memory-truncated") a_file_cut_and_grown_again |end| {
        end.memory.set_len(0).expect("a memfd can be cut");
        end.kick(TRANSMIT);
        thread::sleep(Duration::from_millis(1));
        let _ = end.memory.set_len(MEMORY);
        end.memory.set_len(0).expect("a memfd can be cut");
        end.kick(TRANSMIT);
    };
    faults("memory-truncated") huge_pages_whose_file_is_cut |end| {
        let huge = memory(1 << 30, MemfdFlags::HUGETLB).expect("hugetlbfs");
        end.share_memory(&[[GUEST, 1 << 30, USER, 0]], &[huge.as_fd()]).expect("a message is sent");
        // Where no huge pages are left it is over by now.
        let _ = end.settle();
        huge.set_len(0).expect("a memfd can be cut");
        [RECEIVE, TRANSMIT].into_iter().for_each(|ring| drop(end.start(ring)));
    };
    bears() a_file_with_holes |end| {
        let holes = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&end.memory, holes, buffer_at(RECEIVE, 0), MEMORY - buffer_at(RECEIVE, 0)).expect("a hole");
        assert!(end.send(&frame(2, 1)));
    };
    faults("bad-message") memory_that_is_no_memory |end| {
        let disk = File::open("/sys/kernel/uevent_seqnum").expect("a file");
        end.share_memory(&[[GUEST, 4096, USER, 0]], &[disk.as_fd()]).expect("a message is sent");
    };
    bears() another_memory_again_and_again_under_traffic |end| {
        for _ in 0..300 {
            let _ = end.send(&frame(2, 1));
            end.share_memory(&[[GUEST, MEMORY, USER, 0]], &[end.memory.as_fd()]).expect("a message is sent");
        }
    };
}

fn cut(end: &FrontEnd, bytes: u64) {
    end.memory.set_len(bytes).expect("a memfd can be cut");
    end.kick(TRANSMIT);
}

/// Sends a message that need not arrive: the switch may have hung up by now.
fn say(end: &FrontEnd, request: u32, payload: &[u8]) {
    let _ = end.say(request, payload, &[]);
}

/// A table of regions, all in the memory of the front end.
fn regions(end: &FrontEnd, regions: &[[u64; 4]]) {
    let files = vec![end.memory.as_fd(); regions.len()];
    let _ = end.share_memory(regions, &files);
}

// Messages: what cannot be, and what can but should not (CVE-2019-14818, CVE-2020-10722, CVE-2020-10723,
// CVE-2020-10726, CVE-2021-3839, CVE-2026-5747, and rings that are moved under a worker).
attacks! {
    faults("bad-message") a_request_that_there_is_not |end| say(end, 99, &[]);
    faults("bad-message") a_request_of_all_ones |end| say(end, u32::MAX, &[]);
    faults("bad-message") a_message_of_all_bytes |end| {
        let _ = end.raw(&words(&[request::SET_OWNER, 1, u32::MAX]), &[]);
    };
    faults("bad-message") a_message_of_another_version |end| {
        let _ = end.raw(&words(&[request::SET_OWNER, 3, 0]), &[]);
    };
    faults("bad-message") a_message_that_is_an_answer |end| {
        let _ = end.raw(&words(&[request::SET_OWNER, 5, 0]), &[]);
    };
    faults("bad-message") a_message_that_is_too_short |end| say(end, request::SET_VRING_NUM, &words(&[1]));
    faults("bad-message") a_message_that_is_too_long |end| say(end, request::SET_VRING_NUM, &words(&[1, 2, 3]));
    faults("bad-message") features_that_were_not_offered
        |end| say(end, request::SET_FEATURES, &longs(&[FEATURES | 1 << 60]));
    faults("bad-message") regions_that_overlap
        |end| regions(end, &[[GUEST, 8192, USER, 0], [GUEST + 4096, 4096, USER + (1 << 30), 0]]);
    faults("bad-message") a_region_beyond_its_file |end| regions(end, &[[GUEST, MEMORY, USER, 4096]]);
    faults("bad-message") a_region_whose_place_in_the_file_overflows
        |end| regions(end, &[[GUEST, MEMORY, USER, u64::MAX - 4095]]);
    faults("bad-message") a_region_at_the_end_of_all_addresses
        |end| regions(end, &[[u64::MAX - 4095, 8192, USER, 0]]);
    faults("bad-message") a_region_of_nothing |end| regions(end, &[[GUEST, 0, USER, 0]]);
    faults("bad-message") regions_without_files
        |end| drop(end.share_memory(&[[GUEST, 4096, USER, 0], [GUEST + 4096, 4096, USER, 0]], &[end.memory.as_fd()]));
    faults("bad-message") more_regions_than_a_message_says |end| {
        let payload = [words(&[u32::MAX, 0]), longs(&[GUEST, 4096, USER, 0])].concat();
        let _ = end.say(request::SET_MEM_TABLE, &payload, &[end.memory.as_fd()]);
    };
    faults("bad-message") a_log_whose_size_overflows |end| {
        let _ = end.say(request::SET_LOG_BASE, &longs(&[u64::MAX - 100, 4096]), &[end.memory.as_fd()]);
    };
    faults("bad-message") buffers_under_way_of_rings_that_there_are_not |end| {
        let payload = [longs(&[4096, 0]), words(&[0xffff_ffff])].concat();
        let _ = end.say(request::SET_INFLIGHT_FD, &payload, &[end.memory.as_fd()]);
    };
    faults("bad-message") a_region_more_than_was_agreed_on |end| {
        let region = longs(&[0, u64::MAX - 4095, 8192, USER, 0]);
        let _ = end.say(request::ADD_MEM_REG, &region, &[end.memory.as_fd()]);
    };
    faults("bad-message") a_call_descriptor_that_is_a_file |end| {
        let _ = end.say(request::SET_VRING_CALL, &longs(&[0]), &[end.memory.as_fd()]);
    };
    faults("bad-message") a_kick_descriptor_that_is_a_pipe |end| {
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let _ = end.say(request::SET_VRING_KICK, &longs(&[1]), &[reader.as_fd()]);
    };
    faults("bad-ring") a_ring_of_no_entries |end| say(end, request::SET_VRING_NUM, &words(&[1, 0]));
    faults("bad-ring") a_ring_of_three_entries |end| say(end, request::SET_VRING_NUM, &words(&[1, 3]));
    faults("overflow") a_ring_of_more_entries_than_there_can_be
        |end| say(end, request::SET_VRING_NUM, &words(&[1, 65_535]));
    faults("bad-ring") descriptors_outside_of_the_memory
        |end| drop(end.place(TRANSMIT, [USER + MEMORY - 16, USER, USER]));
    faults("bad-ring") used_entries_outside_of_the_memory
        |end| drop(end.place(TRANSMIT, [USER, USER + MEMORY - 8, USER]));
    faults("bad-ring") available_entries_at_the_end_of_all_addresses
        |end| drop(end.place(TRANSMIT, [USER, USER, u64::MAX - 1]));
    bears() a_ring_of_one_entry |end| say(end, request::SET_VRING_NUM, &words(&[1, 1]));
    faults("bad-ring") a_ring_that_is_moved_over_another |end| {
        let [descriptors, used, available] = [at(RECEIVE), used_at(RECEIVE), available_at(RECEIVE)];
        let _ = end.place(TRANSMIT, [descriptors, used, available].map(|offset| USER + offset));
    };
    bears() descriptors_given_again_and_again |end| {
        for _ in 0..1000 {
            let descriptor = eventfd(0, EventfdFlags::NONBLOCK).expect("a descriptor");
            for request in [request::SET_VRING_CALL, request::SET_VRING_KICK, request::SET_VRING_ERR] {
                end.say(request, &longs(&[1]), &[descriptor.as_fd()]).expect("a message is sent");
            }
        }
    };
    bears() a_call_descriptor_that_is_full_and_waits |end| {
        // What was accepted as one that does not wait is the same open file.
        let call = &end.calls[RECEIVE];
        while rustix::io::write(call, &(u64::MAX - 1).to_le_bytes()).is_err() {
            let _ = rustix::io::read(call, &mut [0; 8]);
        }
        fcntl_setfl(call, OFlags::empty()).expect("a flag");
        let before = end.given_back(RECEIVE);
        wait_until("frames come in nevertheless", SOON, || end.given_back(RECEIVE) > before + 100);
    };
}

/// Each message that names a ring, of rings that there are not.
#[test]
fn rings_that_there_are_not() {
    let scene = Scene::start();
    scene.unharmed(|| {
        for (request, index) in [
            (request::SET_VRING_NUM, 2),
            (request::SET_VRING_BASE, 0xffff),
            (request::GET_VRING_BASE, 0x1_0000),
            (request::SET_VRING_ENABLE, 0x1_0001),
            (request::SET_VRING_NUM, u32::MAX),
        ] {
            let end = scene.decent();
            say(&end, request, &words(&[index, 1]));
            scene.await_link("down", "overflow");
            drop(end);
            scene.behave();
        }
        for request in [request::SET_VRING_CALL, request::SET_VRING_KICK, request::SET_VRING_ERR] {
            let end = scene.decent();
            end.say(request, &longs(&[255]), &[end.kicks[0].as_fd()]).expect("a message is sent");
            scene.await_link("down", "overflow");
            drop(end);
            scene.behave();
        }
    });
}

/// Descriptors with messages that take fewer or none.
#[test]
fn descriptors_that_nobody_asked_for() {
    let scene = Scene::start();
    scene.unharmed(|| {
        for (request, payload) in [
            (request::SET_OWNER, vec![]),
            (request::GET_FEATURES, vec![]),
            (request::SET_VRING_KICK, longs(&[0])),
            (request::SET_MEM_TABLE, vswitch_tests::frontend::table(&[[GUEST, MEMORY, USER, 0]])),
        ] {
            for count in [2, 9, 253] {
                let end = scene.decent();
                let _ = end.say(request, &payload, &vec![end.kicks[0].as_fd(); count]);
                drop(end);
                scene.await_link("down", "");
                scene.behave();
            }
        }
    });
}

/// Connections, whole and cut off in the middle of a message, one after the other.
#[test]
fn connections_without_end() {
    let scene = Scene::start();
    scene.unharmed(|| {
        for _ in 0..500 {
            FrontEnd::connect(&scene.socket()).expect("the socket listens");
        }
        for cut in [1, 12, 19] {
            let end = FrontEnd::connect(&scene.socket()).expect("the socket listens");
            end.raw(&words(&[request::SET_VRING_NUM, 1, 8, 0, 0])[..cut], &[]).expect("bytes are sent");
        }
        scene.behave();
    });
}

/// A payload that its sender takes away before a kernel reads it costs the sender that frame, and the port that it
/// was for nothing.
#[test]
fn a_payload_that_is_gone_when_it_is_sent() {
    let scene = Scene::start();
    let mac = scene.container.mac();
    let mac: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a MAC")).collect();
    scene.unharmed(|| {
        let mut end = scene.decent();
        end.memory.set_len(6 << 20).expect("a memfd can be cut");
        let head = [&[0; 12], &mac[..], &frame(2, 1)[6..]].concat();
        let _ = vswitch_tests::traffic::pings(
            &scene.container.namespace,
            "10.9.0.99".parse().expect("an address"),
        );
        end.write(buffer_at(TRANSMIT, 0), &head);
        end.describe(TRANSMIT, 0, GUEST + buffer_at(TRANSMIT, 0), 300, NEXT, 1);
        end.describe(TRANSMIT, 1, INSIDE, 1000, 0, 0);
        for _ in 0..10 {
            end.offer(TRANSMIT, 0);
        }
        end.kick(TRANSMIT);
        let lost = || scene.daemon.ctl().drops(Some("tap"), "tx-unreadable");
        wait_until("ten frames are unreadable", SOON, || lost() == 10);
        scene.await_link("up", "");
        let port = scene.daemon.ctl().port("tap").expect("it is listed");
        assert_eq!((&port["state"], &port["link"]), (&"up".into(), &"up".into()), "{port}");
        drop(end);
        scene.await_link("down", "disconnected");
    });
}
