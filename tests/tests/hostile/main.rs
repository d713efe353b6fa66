//! What a hostile front end can do to a switch that others use: to its own port, as much as it likes; to the others,
//! nothing.
//!
//! Each test is one attack on the real daemon, by a front end that writes its messages and rings byte by byte. Beside
//! it a stream of frames at a steady rate passes between two ports of the same worker. The attack is made over rings of
//! both kinds, or of the one that it is about; each time the port tells why it is down, by the word that stands in the
//! table, or stays up where what was done is only silly; each time a decent front end finds it at work again. At the
//! end the others have had their rate, no descriptor, mapping or memory is left behind, and all frames are accounted
//! for.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{FallocateFlags, MemfdFlags, OFlags, fallocate, fcntl_setfl};
use vswitch_tests::cases::scaled;
use vswitch_tests::frontend::{
    BUFFER, FEATURES, FrontEnd, GUEST, INDIRECT, Kind, MEMORY, NEXT, RECEIVE, SIZE, TRANSMIT, USER, WRITE,
    at, available_at, buffer_at, descriptor, longs, memory, request, table, used_at, words,
};
use vswitch_tests::lab::await_up;
use vswitch_tests::probe::pattern::Pattern;
use vswitch_tests::wait::SOON;
use vswitch_tests::wait_until;

mod scene;

use self::scene::{ANY, BOTH, PACKED, SPLIT, bears, faults, frame, port, with_scene};

/// Makes a test of each attack.
macro_rules! attacks {
    ($($how:ident ($($argument:expr),*) $name:ident $attack:expr;)*) => {
        $(#[test] fn $name() { $how($($argument,)* $attack); })*
    };
}

/// A descriptor that is what a decent one would be, but for one thing.
fn transmit(end: &mut FrontEnd, address: u64, bytes: u32, flags: u16, next: u16) {
    end.describe(TRANSMIT, 0, address, bytes, flags, next);
    end.offer(TRANSMIT, 0);
    end.kick(TRANSMIT);
}

/// An indirect table of this descriptor, at the transmit ring's first buffer.
fn indirect(end: &mut FrontEnd, descriptor: [u8; 16]) {
    let place = buffer_at(TRANSMIT, 0);
    end.write(place, &descriptor);
    transmit(end, GUEST + place, 16, INDIRECT, 0);
}

const FRAME: u32 = 100;
const INSIDE: u64 = GUEST + (6 << 20);

/// Most descriptors of a chain, and most that a worker looks at in one burst of 64 chains.
const LONGEST: u16 = 1024;
const WORK: u16 = 8192;

/// Receive buffers that a worker may have taken before there are frames for them.
const TAKEN: u16 = 256;

/// A table of `count` buffers at [`INSIDE`], all of them the same bytes: where a frame begins.
fn crumbs(end: &FrontEnd, count: u16, bytes: u32, flags: u16) {
    let place = INSIDE + (1 << 20);
    let entry = |index| match end.kind {
        Kind::Split if index < count => descriptor(place, bytes, flags | NEXT, index),
        Kind::Split => descriptor(place, bytes, flags, 0),
        Kind::Packed => descriptor(place, bytes, 0, flags),
    };
    let table: Vec<u8> = (1..=count).flat_map(entry).collect();
    end.write(INSIDE - GUEST, &table);
    end.write(place - GUEST, &[&[0; 12], &frame(2, 1)[..]].concat());
}

// Rings: each field of a descriptor, of a table, of an index (CVE-2018-1059, CVE-2020-10725, CVE-2020-14374 to 14378,
// CVE-2022-0669, CVE-2022-2132; loops and jumps that other switches went round for ever).
attacks! {
    faults("bad-ring", SPLIT) a_chain_that_bites_its_tail |end| transmit(end, INSIDE, FRAME, NEXT, 0);
    faults("bad-ring", BOTH) a_chain_through_the_whole_ring_that_ends_nowhere |end| {
        for index in 0..SIZE {
            end.describe(TRANSMIT, index, INSIDE, 1, NEXT, (index + 1) % SIZE);
        }
        end.offer(TRANSMIT, 0);
        end.kick(TRANSMIT);
    };
    faults("bad-ring", SPLIT) a_chain_that_begins_beyond_the_table |end| {
        end.offer(TRANSMIT, SIZE);
        end.kick(TRANSMIT);
    };
    faults("bad-ring", SPLIT) a_chain_that_goes_on_beyond_the_table |end| transmit(end, INSIDE, FRAME, NEXT, SIZE);
    faults("bad-ring", SPLIT) an_index_that_jumps_over_the_ring |end| {
        end.set_available(TRANSMIT, SIZE + 1);
        end.kick(TRANSMIT);
    };
    faults("bad-ring", SPLIT) an_index_that_runs_backwards |end| {
        end.set_available(TRANSMIT, u16::MAX);
        end.kick(TRANSMIT);
    };
    faults("bad-ring", BOTH) a_buffer_outside_of_the_memory |end| transmit(end, GUEST + MEMORY, FRAME, 0, 0);
    faults("bad-ring", BOTH) a_buffer_that_ends_outside_of_the_memory |end| transmit(end, GUEST + MEMORY - 50, FRAME, 0, 0);
    faults("bad-ring", BOTH) a_buffer_at_the_end_of_all_addresses |end| transmit(end, u64::MAX - 50, FRAME, 0, 0);
    faults("bad-ring", BOTH) a_buffer_of_all_bytes |end| transmit(end, INSIDE, u32::MAX, 0, 0);
    faults("bad-ring", BOTH) a_buffer_to_be_written_where_we_read |end| transmit(end, INSIDE, FRAME, WRITE, 0);
    faults("bad-ring", BOTH) an_indirect_table_outside_of_the_memory |end| transmit(end, GUEST + MEMORY, 32, INDIRECT, 0);
    faults("bad-ring", BOTH) an_indirect_table_that_ends_outside_of_the_memory
        |end| transmit(end, GUEST + MEMORY - 16, 32, INDIRECT, 0);
    faults("bad-ring", BOTH) an_indirect_table_of_nothing |end| transmit(end, INSIDE, 0, INDIRECT, 0);
    faults("bad-ring", BOTH) an_indirect_table_of_half_a_descriptor |end| transmit(end, INSIDE, 24, INDIRECT, 0);
    faults("bad-ring", BOTH) an_indirect_table_and_a_next_one |end| transmit(end, INSIDE, 32, INDIRECT | NEXT, 1);
    faults("bad-ring", PACKED) an_indirect_table_within_a_chain |end| {
        end.describe(TRANSMIT, 0, INSIDE, FRAME, NEXT, 1);
        end.describe(TRANSMIT, 1, INSIDE, 32, INDIRECT, 0);
        end.offer(TRANSMIT, 0);
        end.kick(TRANSMIT);
    };
    faults("bad-ring", BOTH) an_indirect_table_longer_than_any_frame_needs |end| {
        crumbs(end, LONGEST + 1, 1, 0);
        transmit(end, INSIDE, 16 * u32::from(LONGEST + 1), INDIRECT, 0);
    };
    faults("bad-ring", SPLIT) an_indirect_table_in_itself
        |end| indirect(end, descriptor(GUEST + buffer_at(TRANSMIT, 0), 16, INDIRECT, 0));
    faults("bad-ring", PACKED) an_indirect_table_in_itself_packed
        |end| indirect(end, descriptor(GUEST + buffer_at(TRANSMIT, 0), 16, 0, INDIRECT));
    faults("bad-ring", SPLIT) an_indirect_table_that_bites_its_tail |end| indirect(end, descriptor(INSIDE, 1, NEXT, 0));
    faults("bad-ring", SPLIT) an_indirect_table_that_is_left |end| indirect(end, descriptor(INSIDE, 1, NEXT, 1));
    faults("bad-ring", BOTH) receive_buffers_outside_of_the_memory
        |end| end.replace_buffers(TAKEN, GUEST + MEMORY, BUFFER as u32, WRITE);
    bears(BOTH) buffers_of_no_bytes_in_every_place |end| {
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
    bears(BOTH) a_header_in_pieces_and_frames_shorter_than_it |end| {
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
    bears(BOTH) headers_that_lie_about_their_frame |end| {
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
    bears(BOTH) a_ring_that_is_always_full |end| {
        for index in 0..SIZE {
            end.write(buffer_at(TRANSMIT, index), &[&[0; 12], &frame(2, 2)[..]].concat());
        }
        let chain = |index| (GUEST + buffer_at(TRANSMIT, index), FRAME + 12, 0);
        end.flood(TRANSMIT, Duration::from_millis(300), chain);
    };
    // A frame of 64 KB in each chain, and with the ring's own descriptor all that a burst may look at.
    bears(BOTH) chains_that_are_as_much_work_as_a_burst_may_be |end| {
        let count = WORK / 64 - 1;
        crumbs(end, count, 500, 0);
        let chain = |_| (INSIDE, 16 * u32::from(count), INDIRECT);
        end.flood(TRANSMIT, Duration::from_millis(300), chain);
    };
    faults("bad-ring", BOTH) chains_that_are_more_work_than_a_burst_may_be |end| {
        crumbs(end, LONGEST, 1, 0);
        let chain = |_| (INSIDE, 16 * u32::from(LONGEST), INDIRECT);
        end.flood(TRANSMIT, Duration::from_millis(10), chain);
    };
    bears(BOTH) receive_buffers_in_pieces_of_a_byte |end| {
        crumbs(end, 32, 1, WRITE);
        end.replace_buffers(TAKEN, INSIDE, 16 * 32, INDIRECT);
        wait_until("frames come in nevertheless", SOON, || end.given_back(RECEIVE) > SIZE - 100);
    };
    bears(BOTH) a_guest_that_takes_no_frames |end| {
        wait_until("its buffers are used up", SOON, || end.given_back(RECEIVE) == SIZE);
    };
    faults("bad-ring", BOTH) a_ring_that_is_scribbled_over |end| {
        let mut random = Pattern::new(9);
        for round in 0..2000 {
            let ring = [RECEIVE, TRANSMIT][random.below(2) as usize];
            // Every other time where the switch looks next.
            let words = [0x4000, 16][round % 2];
            end.write(at(ring) + 2 * random.below(words), &random.next_u64().to_le_bytes());
            end.kick(ring);
        }
    };
    bears(ANY) kicks_without_end |end| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(300) {
            end.kick(TRANSMIT);
            end.kick(RECEIVE);
        }
    };
}

// Memory: what becomes of the file behind it.
attacks! {
    faults("memory-truncated", BOTH) a_file_cut_to_nothing |end| cut(end, 0);
    faults("memory-truncated", BOTH) a_file_cut_to_a_page |end| cut(end, 4096);
    faults("memory-truncated", BOTH) a_file_cut_behind_the_rings |end| {
        end.memory.set_len(1 << 20).expect("a memfd can be cut");
        transmit(end, INSIDE, FRAME, 0, 0);
    };
    faults("memory-truncated", BOTH) a_file_cut_and_grown_again |end| {
        end.memory.set_len(0).expect("a memfd can be cut");
        end.kick(TRANSMIT);
        thread::sleep(Duration::from_millis(1));
        let _ = end.memory.set_len(MEMORY);
        end.memory.set_len(0).expect("a memfd can be cut");
        end.kick(TRANSMIT);
    };
    faults("memory-truncated", BOTH) huge_pages_whose_file_is_cut |end| {
        let huge = memory(1 << 30, MemfdFlags::HUGETLB).expect("hugetlbfs");
        end.share_memory(&[[GUEST, 1 << 30, USER, 0]], &[huge.as_fd()]).expect("a message is sent");
        // Where no huge pages are left it is over by now.
        let _ = end.settle();
        huge.set_len(0).expect("a memfd can be cut");
        [RECEIVE, TRANSMIT].into_iter().for_each(|ring| drop(end.start(ring)));
    };
    bears(BOTH) a_file_with_holes |end| {
        let holes = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&end.memory, holes, buffer_at(RECEIVE, 0), MEMORY - buffer_at(RECEIVE, 0)).expect("a hole");
        assert!(end.send(&frame(2, 1)));
    };
    faults("bad-message", ANY) memory_that_is_no_memory |end| {
        let disk = File::open("/sys/kernel/uevent_seqnum").expect("a file");
        end.share_memory(&[[GUEST, 4096, USER, 0]], &[disk.as_fd()]).expect("a message is sent");
    };
    // Whole, as one file twice, shorter, with another region beside it, and where the rings are not.
    bears(BOTH) another_memory_again_and_again_under_traffic |end| {
        let (whole, half) = ([GUEST, MEMORY, USER, 0], MEMORY / 2);
        let tables: [&[[u64; 4]]; 5] = [
            &[[GUEST, half, USER, 0], [GUEST + half, half, USER + half, half]],
            &[[GUEST, INSIDE - GUEST, USER, 0]],
            &[whole, [GUEST + (1 << 40), 4096, USER + (1 << 40), 0]],
            &[[GUEST, MEMORY, USER + (1 << 40), 0]],
            &[whole],
        ];
        for table in tables.into_iter().cycle().take(usize::try_from(scaled(500, 10_000)).expect("few")) {
            let _ = end.send(&frame(2, 1));
            share(end, table);
        }
        end.settle().expect("the port is still served");
        assert!(end.send(&frame(2, 1)));
        wait_until("all frames are taken", SOON, || end.is_idle());
    };
    faults("overflow", ANY) a_region_of_more_than_4_tb
        |end| end.share_memory(&[[GUEST, 5 << 40, USER, 0]], &[sparse(5 << 40).as_fd()]).expect("a message is sent");
    faults("overflow", ANY) regions_of_more_than_4_tb_together |end| {
        let (file, half) = (sparse(3 << 40), 3 << 40);
        let regions = [[GUEST, half, USER, 0], [GUEST + half, half, USER + half, 0]];
        end.share_memory(&regions, &[file.as_fd(), file.as_fd()]).expect("a message is sent");
    };
    faults("overflow", ANY) a_region_added_to_more_than_4_tb
        |end| add(end, [GUEST + (1 << 41), 4 << 40, USER + (1 << 41), 0], &[sparse(4 << 40).as_fd()]);
    // The message is waited for, but not for ever, and the memory that goes away meanwhile is noticed.
    faults("memory-truncated", BOTH) half_a_message_and_a_file_cut |end| {
        end.raw(&words(&[request::SET_VRING_NUM, 1, 8, 0])[..15], &[]).expect("bytes are sent");
        cut(end, 0);
    };
}

/// A file of so many bytes, which has no memory yet.
fn sparse(bytes: u64) -> File {
    memory(bytes, MemfdFlags::empty()).expect("a sparse file")
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
fn share(end: &FrontEnd, regions: &[[u64; 4]]) {
    let files = vec![end.memory.as_fd(); regions.len()];
    let _ = end.share_memory(regions, &files);
}

/// Adds a region.
fn add(end: &FrontEnd, region: [u64; 4], files: &[BorrowedFd<'_>]) {
    let _ = end.say(request::ADD_MEM_REG, &longs(&[&[0], &region[..]].concat()), files);
}

/// Takes a region away.
fn remove(end: &FrontEnd, region: [u64; 4]) {
    let _ = end.say(request::REM_MEM_REG, &longs(&[&[0], &region[..]].concat()), &[]);
}

/// A region beside the memory, of its first page.
fn beside(number: u64) -> [u64; 4] {
    [GUEST + (1 << 40) + 8192 * number, 4096, USER + (1 << 40) + 8192 * number, 0]
}

/// Has the switch note what it writes in `bytes` bytes from `offset` on of a file.
fn log(end: &FrontEnd, bytes: u64, offset: u64, files: &[BorrowedFd<'_>]) {
    let _ = end.agree(LOG_ALL);
    let _ = end.say(request::SET_LOG_BASE, &longs(&[bytes, offset]), files);
    for ring in [RECEIVE, TRANSMIT] {
        let _ = end.note_used(ring);
    }
}

/// `VHOST_F_LOG_ALL`.
const LOG_ALL: u64 = 1 << 26;

/// Bytes of a log of all the memory, a bit for each page.
const LOG: u64 = (GUEST + MEMORY) / 4096 / 8;

/// Waits until the switch has written frames.
fn await_frames(end: &FrontEnd) {
    let before = end.given_back(RECEIVE);
    wait_until("frames come in", SOON, || end.given_back(RECEIVE) > before + 20);
}

/// What an inflight region is said to be.
fn shape(bytes: u64, offset: u64, queues: u16, size: u16) -> Vec<u8> {
    [longs(&[bytes, offset]), words(&[u32::from(size) << 16 | u32::from(queues), 0])].concat()
}

fn under_way(end: &FrontEnd, shape: &[u8], files: &[BorrowedFd<'_>]) {
    let _ = end.say(request::SET_INFLIGHT_FD, shape, files);
}

/// Bytes of what the switch keeps there about one ring: positions, a count, what it has written into the device area,
/// and a word for each entry.
const RECORD: u64 = (8 * (3 + SIZE as u64)).next_multiple_of(64);

/// Hands back an inflight region in which the switch is said to have left this about the transmit ring: positions, a
/// count, entries.
fn left(end: &FrontEnd, words: &[u64]) -> File {
    let file = sparse(2 * RECORD);
    let (begin, entries) = words.split_at(2);
    // The place of the next event is where the ring begins.
    let record = longs(&[begin, &[LAP.into()], entries].concat());
    file.write_all_at(&record, TRANSMIT as u64 * RECORD).expect("a memfd can be written");
    under_way(end, &shape(2 * RECORD, 0, 2, SIZE), &[file.as_fd()]);
    file
}

/// Positions in such a record: up to where the ring shows what is used, and up to where it is to.
fn positions(settled: u16, intended: u16) -> u64 {
    1 << 63 | u64::from(settled) | u64::from(intended) << 16
}

/// A position in the first lap.
const LAP: u16 = 1 << 15;

// Messages: what cannot be, and what can but should not (CVE-2019-14818, CVE-2020-10722, CVE-2020-10723,
// CVE-2020-10726, CVE-2021-3839, CVE-2026-5747, and rings that are moved under a worker).
attacks! {
    faults("bad-message", ANY) a_request_that_there_is_not |end| say(end, 99, &[]);
    faults("bad-message", ANY) a_request_of_all_ones |end| say(end, u32::MAX, &[]);
    faults("bad-message", ANY) a_message_of_all_bytes |end| {
        let _ = end.raw(&words(&[request::SET_OWNER, 1, u32::MAX]), &[]);
    };
    faults("bad-message", ANY) a_message_of_another_version |end| {
        let _ = end.raw(&words(&[request::SET_OWNER, 3, 0]), &[]);
    };
    faults("bad-message", ANY) a_message_that_is_an_answer |end| {
        let _ = end.raw(&words(&[request::SET_OWNER, 5, 0]), &[]);
    };
    faults("bad-message", ANY) a_message_that_is_too_short |end| say(end, request::SET_VRING_NUM, &words(&[1]));
    faults("bad-message", ANY) a_message_that_is_too_long |end| say(end, request::SET_VRING_NUM, &words(&[1, 2, 3]));
    faults("bad-message", ANY) features_that_were_not_offered
        |end| say(end, request::SET_FEATURES, &longs(&[FEATURES | 1 << 60]));
    faults("bad-message", ANY) regions_that_overlap
        |end| share(end, &[[GUEST, 8192, USER, 0], [GUEST + 4096, 4096, USER + (1 << 30), 0]]);
    faults("bad-message", ANY) a_region_beyond_its_file |end| share(end, &[[GUEST, MEMORY, USER, 4096]]);
    faults("bad-message", ANY) a_region_whose_place_in_the_file_overflows
        |end| share(end, &[[GUEST, MEMORY, USER, u64::MAX - 4095]]);
    faults("bad-message", ANY) a_region_at_the_end_of_all_addresses
        |end| share(end, &[[u64::MAX - 4095, 8192, USER, 0]]);
    faults("bad-message", ANY) a_region_of_nothing |end| share(end, &[[GUEST, 0, USER, 0]]);
    faults("bad-message", ANY) regions_without_files
        |end| drop(end.share_memory(&[[GUEST, 4096, USER, 0], [GUEST + 4096, 4096, USER, 0]], &[end.memory.as_fd()]));
    faults("bad-message", ANY) more_regions_than_a_message_says |end| {
        let payload = [words(&[u32::MAX, 0]), longs(&[GUEST, 4096, USER, 0])].concat();
        let _ = end.say(request::SET_MEM_TABLE, &payload, &[end.memory.as_fd()]);
    };
    faults("bad-message", ANY) a_table_of_no_regions |end| share(end, &[]);
    faults("bad-message", ANY) a_call_descriptor_that_is_a_file |end| {
        let _ = end.say(request::SET_VRING_CALL, &longs(&[0]), &[end.memory.as_fd()]);
    };
    faults("bad-message", ANY) a_kick_descriptor_that_is_a_pipe |end| {
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let _ = end.say(request::SET_VRING_KICK, &longs(&[1]), &[reader.as_fd()]);
    };
    faults("bad-ring", BOTH) a_ring_of_no_entries |end| say(end, request::SET_VRING_NUM, &words(&[1, 0]));
    faults("bad-ring", SPLIT) a_ring_of_three_entries |end| say(end, request::SET_VRING_NUM, &words(&[1, 3]));
    faults("overflow", ANY) a_ring_of_more_entries_than_there_can_be
        |end| say(end, request::SET_VRING_NUM, &words(&[1, 65_535]));
    faults("bad-ring", BOTH) descriptors_outside_of_the_memory
        |end| drop(end.place(TRANSMIT, [USER + MEMORY - 16, USER, USER]));
    faults("bad-ring", SPLIT) used_entries_outside_of_the_memory
        |end| drop(end.place(TRANSMIT, [USER, USER + MEMORY - 8, USER]));
    faults("bad-ring", PACKED) a_device_area_outside_of_the_memory
        |end| drop(end.place(TRANSMIT, [USER, USER + MEMORY, USER]));
    faults("bad-ring", BOTH) available_entries_at_the_end_of_all_addresses
        |end| drop(end.place(TRANSMIT, [USER, USER, u64::MAX - 1]));
    bears(PACKED) a_packed_ring_of_three_entries |end| say(end, request::SET_VRING_NUM, &words(&[1, 3]));
    faults("bad-ring", PACKED) a_position_beyond_a_packed_ring
        |end| say(end, request::SET_VRING_BASE, &words(&[1, u32::from(LAP | SIZE)]));
    bears(BOTH) a_ring_of_one_entry |end| say(end, request::SET_VRING_NUM, &words(&[1, 1]));
    faults("bad-ring", SPLIT) a_ring_that_is_moved_over_another |end| {
        let [descriptors, used, available] = [at(RECEIVE), used_at(RECEIVE), available_at(RECEIVE)];
        let _ = end.place(TRANSMIT, [descriptors, used, available].map(|offset| USER + offset));
    };
    bears(ANY) descriptors_given_again_and_again |end| {
        for _ in 0..1000 {
            let descriptor = eventfd(0, EventfdFlags::NONBLOCK).expect("a descriptor");
            for request in [request::SET_VRING_CALL, request::SET_VRING_KICK, request::SET_VRING_ERR] {
                end.say(request, &longs(&[1]), &[descriptor.as_fd()]).expect("a message is sent");
            }
        }
    };
    bears(BOTH) a_call_descriptor_that_is_full_and_waits |end| {
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

// Memory that comes and goes piece by piece, the log of a migration (CVE-2019-14835), and what the switch has a front
// end keep for it: all agreed on before.
attacks! {
    faults("bad-message", ANY) an_added_region_that_overlaps
        |end| add(end, [GUEST + MEMORY - 4096, 8192, USER + (1 << 40), 0], &[end.memory.as_fd()]);
    faults("bad-message", ANY) an_added_region_of_nothing
        |end| add(end, [GUEST + (1 << 40), 0, USER + (1 << 40), 0], &[end.memory.as_fd()]);
    faults("bad-message", ANY) an_added_region_at_the_end_of_all_addresses
        |end| add(end, [u64::MAX - 4095, 8192, USER + (1 << 40), 0], &[end.memory.as_fd()]);
    faults("bad-message", ANY) an_added_region_beyond_its_file
        |end| add(end, [GUEST + (1 << 40), 8192, USER + (1 << 40), MEMORY - 4096], &[end.memory.as_fd()]);
    faults("bad-message", ANY) an_added_region_without_a_file |end| add(end, beside(0), &[]);
    faults("bad-message", ANY) an_added_region_with_two_files |end| add(end, beside(0), &[end.memory.as_fd(); 2]);
    faults("overflow", ANY) regions_added_without_end
        |end| (0..32).for_each(|number| add(end, beside(number), &[end.memory.as_fd()]));
    bears(ANY) regions_added_and_removed_again_and_again |end| {
        for number in 0..300 {
            add(end, beside(number), &[end.memory.as_fd()]);
            remove(end, beside(number));
        }
    };
    faults("bad-message", ANY) a_region_removed_that_there_is_not |end| remove(end, beside(0));
    faults("bad-ring", BOTH) the_region_of_the_rings_removed |end| remove(end, [GUEST, MEMORY, USER, 0]);
    bears(BOTH) the_region_of_the_rings_removed_and_added_again |end| {
        let region = [GUEST, MEMORY, USER, 0];
        for _ in 0..100 {
            let _ = end.send(&frame(2, 1));
            remove(end, region);
            add(end, region, &[end.memory.as_fd()]);
        }
        wait_until("all frames are taken", SOON, || end.is_idle());
    };

    faults("bad-message", ANY) a_log_whose_size_overflows
        |end| log(end, u64::MAX - 100, 4096, &[end.memory.as_fd()]);
    faults("bad-message", ANY) a_log_of_nothing |end| log(end, 0, 0, &[end.memory.as_fd()]);
    faults("bad-message", ANY) a_log_beyond_its_file |end| log(end, 4096, MEMORY, &[end.memory.as_fd()]);
    faults("bad-message", ANY) a_log_without_a_file |end| log(end, 4096, 0, &[]);
    faults("bad-message", ANY) a_log_that_is_no_file |end| log(end, 4096, 0, &[end.kicks[0].as_fd()]);
    faults("bad-message", ANY) a_log_that_is_no_memory
        |end| log(end, 4096, 0, &[File::open("/sys/kernel/uevent_seqnum").expect("a file").as_fd()]);
    faults("overflow", ANY) a_log_of_more_than_4_tb |end| log(end, 5 << 40, 0, &[sparse(5 << 40).as_fd()]);
    // It has bits for the rings, and none for the buffers.
    bears(BOTH) a_log_that_is_too_short |end| {
        let (file, bytes) = (sparse(2 * LOG), (GUEST + (1 << 20)) / 4096 / 8);
        log(end, bytes, 0, &[file.as_fd()]);
        end.settle().expect("the port is still served");
        await_frames(end);
        let mut seen = vec![0; usize::try_from(2 * LOG).expect("short")];
        file.read_exact_at(&mut seen, 0).expect("a memfd can be read");
        let (noted, beyond) = seen.split_at(usize::try_from(bytes).expect("short"));
        assert!(noted.iter().any(|byte| *byte != 0), "nothing is noted");
        assert!(beyond.iter().all(|byte| *byte == 0), "the switch writes beyond the log");
    };
    bears(BOTH) another_log_again_and_again |end| {
        for _ in 0..300 {
            log(end, LOG, 0, &[sparse(LOG).as_fd()]);
        }
        end.settle().expect("the port is still served");
        await_frames(end);
    };
    faults("memory-truncated", BOTH) a_log_that_is_cut |end| {
        let file = sparse(LOG);
        log(end, LOG, 0, &[file.as_fd()]);
        end.settle().expect("the port is still served");
        file.set_len(0).expect("a memfd can be cut");
    };
    bears(BOTH) a_ring_whose_log_address_is_nowhere |end| {
        log(end, LOG, 0, &[sparse(LOG).as_fd()]);
        let addresses = [at(RECEIVE), used_at(RECEIVE), available_at(RECEIVE)].map(|offset| USER + offset);
        let payload = [words(&[RECEIVE as u32, 1]), longs(&addresses), longs(&[u64::MAX])].concat();
        say(end, request::SET_VRING_ADDR, &payload);
        end.settle().expect("the port is still served");
        await_frames(end);
    };

    faults("overflow", ANY) buffers_under_way_of_rings_that_there_are_not
        |end| under_way(end, &shape(MEMORY, 0, 0xffff, 8), &[end.memory.as_fd()]);
    faults("overflow", ANY) buffers_under_way_of_rings_without_end
        |end| under_way(end, &shape(MEMORY, 0, 2, 0xffff), &[end.memory.as_fd()]);
    faults("bad-message", ANY) buffers_under_way_of_no_rings
        |end| under_way(end, &shape(MEMORY, 0, 0, 0), &[end.memory.as_fd()]);
    faults("bad-message", ANY) an_inflight_region_that_is_too_short
        |end| under_way(end, &shape(2 * RECORD - 1, 0, 2, SIZE), &[end.memory.as_fd()]);
    faults("bad-message", ANY) an_inflight_region_beyond_its_file
        |end| under_way(end, &shape(u64::MAX, MEMORY - 4096, 2, SIZE), &[end.memory.as_fd()]);
    faults("bad-message", ANY) an_inflight_region_whose_place_overflows
        |end| under_way(end, &shape(2 * RECORD, u64::MAX - 100, 2, SIZE), &[end.memory.as_fd()]);
    faults("bad-message", ANY) an_inflight_region_that_is_no_file
        |end| under_way(end, &shape(2 * RECORD, 0, 2, SIZE), &[end.kicks[0].as_fd()]);
    faults("bad-message", ANY) an_inflight_region_without_a_file
        |end| under_way(end, &shape(2 * RECORD, 0, 2, SIZE), &[]);
    faults("bad-message", ANY) an_inflight_region_with_two_files
        |end| under_way(end, &shape(2 * RECORD, 0, 2, SIZE), &[end.memory.as_fd(); 2]);
    faults("overflow", ANY) an_inflight_region_wanted_of_rings_without_end
        |end| say(end, request::GET_INFLIGHT_FD, &shape(0, 0, 2, 0xffff));
    faults("bad-message", ANY) an_inflight_region_wanted_of_no_rings
        |end| say(end, request::GET_INFLIGHT_FD, &shape(0, 0, 0, SIZE));
    bears(ANY) inflight_regions_wanted_again_and_again |end| {
        for _ in 0..300 {
            say(end, request::GET_INFLIGHT_FD, &shape(0, 0, 2, SIZE));
            end.settle().expect("the port is still served");
        }
    };
    faults("bad-ring", PACKED) a_record_of_a_position_beyond_the_ring
        |end| drop(left(end, &[positions(LAP | SIZE, LAP | SIZE), 0]));
    faults("bad-ring", PACKED) a_record_of_more_buffers_than_the_ring_has
        |end| drop(left(end, &[positions(LAP, LAP | 1), 2, 0x0400_0000, 0x0400_0000]));
    faults("bad-ring", PACKED) a_record_of_a_burst_of_nothing |end| drop(left(end, &[positions(LAP, LAP | 1), 0]));
    bears(PACKED) a_record_whose_count_is_out_of_range
        |end| drop(left(end, &[positions(LAP, LAP | 1), u64::MAX, u64::from(u32::MAX) << 32]));
    bears(PACKED) a_record_that_is_scribbled_over_while_the_ring_runs |end| {
        let (file, mut random) = (left(end, &[0, 0]), Pattern::new(3));
        for _ in 0..500 {
            let _ = end.send(&frame(2, 1));
            let place = TRANSMIT as u64 * RECORD + 8 * random.below(RECORD / 8);
            file.write_all_at(&random.next_u64().to_le_bytes(), place).expect("a memfd can be written");
        }
        wait_until("all frames are taken", SOON, || end.is_idle());
    };
    faults("memory-truncated", PACKED) an_inflight_region_that_is_cut |end| {
        let file = left(end, &[0, 0]);
        end.settle().expect("the port is still served");
        file.set_len(0).expect("a memfd can be cut");
        let _ = end.send(&frame(2, 1));
    };
}

/// Copies the memory of a front end whose rings stand still to a new file.
fn copied(end: &FrontEnd) -> File {
    let fresh = memory(MEMORY, MemfdFlags::empty()).expect("a memfd");
    let mut bytes = vec![0; usize::try_from(MEMORY).expect("few")];
    end.memory.read_exact_at(&mut bytes, 0).expect("a memfd can be read");
    fresh.write_all_at(&bytes, 0).expect("a memfd can be written");
    fresh
}

/// A map that is kept too long would show frames that a stranger writes where the memory was.
#[test]
fn a_memory_that_was_replaced_is_not_looked_at() {
    with_scene(|scene| {
        scene.unharmed(|| {
            let stranger = [&frame(2, 1)[..6], &[2, 0, 0, 0, 0, 0xd], &frame(2, 1)[12..]].concat();
            for kind in [Kind::Split, Kind::Packed] {
                let mut end = scene.decent(kind);
                for _ in 0..scaled(8, 1000) {
                    assert!(end.send(&frame(2, 1)));
                    wait_until("the frame is taken", SOON, || end.is_idle());
                    set_enabled(&mut end, false);
                    let fresh = copied(&end);
                    end.share_memory(&[[GUEST, MEMORY, USER, 0]], &[fresh.as_fd()])
                        .expect("a message is sent");
                    set_enabled(&mut end, true);
                    for index in 0..SIZE {
                        end.write(buffer_at(TRANSMIT, index), &[&[0; 12], &stranger[..]].concat());
                    }
                    let bytes = u32::try_from(12 + stranger.len()).expect("short");
                    let chain = |index| (GUEST + buffer_at(TRANSMIT, index), bytes, 0);
                    end.flood(TRANSMIT, Duration::from_millis(2), chain);
                    end.memory = fresh;
                }
                assert!(end.send(&frame(2, 1)));
                wait_until("the port is still served", SOON, || end.is_idle());
            }
            let addresses = scene.daemon.ctl().rows(&["fdb", "list"]);
            let knows = |mac: &str| addresses.iter().any(|row| row["mac"] == *mac);
            assert!(knows("02:00:00:00:00:0c"), "{addresses:?}");
            assert!(!knows("02:00:00:00:00:0d"), "frames of a memory that was replaced");
        });
    });
}

/// Turns both rings off or on; the switch has done so.
fn set_enabled(end: &mut FrontEnd, on: bool) {
    for ring in [RECEIVE, TRANSMIT] {
        let state = words(&[u32::try_from(ring).expect("few"), on.into()]);
        end.say(request::SET_VRING_ENABLE, &state, &[]).expect("a message is sent");
    }
    end.settle().expect("the port answers");
}

/// Each message that names a ring, of rings that there are not.
#[test]
fn rings_that_there_are_not() {
    with_scene(|scene| {
        scene.unharmed(|| {
            let state = |request, index| (request, words(&[index, 1]), 0);
            let attacks = [
                state(request::SET_VRING_NUM, 2),
                state(request::SET_VRING_BASE, 0xffff),
                state(request::GET_VRING_BASE, 0x1_0000),
                state(request::SET_VRING_ENABLE, 0x1_0001),
                state(request::SET_VRING_NUM, u32::MAX),
                (request::SET_VRING_ADDR, [words(&[2, 0]), longs(&[USER; 4])].concat(), 0),
                (request::SET_VRING_CALL, longs(&[255]), 1),
                (request::SET_VRING_KICK, longs(&[255]), 1),
                (request::SET_VRING_ERR, longs(&[255]), 1),
            ];
            for (request, payload, files) in attacks {
                let end = scene.decent(Kind::Split);
                end.say(request, &payload, &vec![end.kicks[0].as_fd(); files]).expect("a message is sent");
                scene.await_link("down", "overflow");
                drop(end);
                scene.behave(Kind::Split);
            }
        });
    });
}

/// Descriptors with messages that take fewer or none, and more than any takes.
#[test]
fn descriptors_that_nobody_asked_for() {
    with_scene(|scene| {
        scene.unharmed(|| {
            for (request, payload, counts) in [
                (request::SET_OWNER, vec![], &[1, 32, 33, 253][..]),
                (request::GET_FEATURES, vec![], &[1, 9, 253]),
                (request::SET_VRING_NUM, words(&[0, 8]), &[1, 253]),
                (request::SET_VRING_KICK, longs(&[0]), &[0, 2, 9, 253]),
                (request::SET_MEM_TABLE, table(&[[GUEST, MEMORY, USER, 0]]), &[0, 2, 9, 32, 33, 253]),
                (request::SEND_RARP, longs(&[0]), &[33, 253]),
            ] {
                for count in counts {
                    let end = scene.decent(Kind::Split);
                    let _ = end.say(request, &payload, &vec![end.kicks[0].as_fd(); *count]);
                    scene.await_link("down", "bad-message");
                    drop(end);
                    scene.behave(Kind::Split);
                }
            }
        });
    });
}

/// Descriptors in the middle of a header, and with what follows it.
#[test]
fn descriptors_in_the_middle_of_a_message() {
    with_scene(|scene| {
        scene.unharmed(|| {
            let message = words(&[request::SET_VRING_NUM, 1, 8, 0, 8]);
            for (cut, counts) in [(6, [1, 253]), (6, [253, 1]), (12, [0, 253])] {
                let end = scene.decent(Kind::Split);
                for (part, count) in [&message[..cut], &message[cut..]].into_iter().zip(counts) {
                    let _ = end.raw(part, &vec![end.kicks[0].as_fd(); count]);
                }
                scene.await_link("down", "bad-message");
                drop(end);
                scene.behave(Kind::Split);
            }
        });
    });
}

/// Connections, whole and cut off in the middle of a message, one after the other.
#[test]
fn connections_without_end() {
    with_scene(|scene| {
        scene.unharmed(|| {
            let connect = || FrontEnd::connect(&scene.socket(), Kind::Split).expect("the socket listens");
            (0..500).for_each(|_| drop(connect()));
            for cut in [1, 12, 19] {
                let message = words(&[request::SET_VRING_NUM, 1, 8, 0, 0]);
                connect().raw(&message[..cut], &[]).expect("bytes are sent");
            }
            scene.behave(Kind::Split);
        });
    });
}

/// A file that is cut in the middle of traffic, again and again.
#[test]
fn a_file_cut_again_and_again() {
    with_scene(|scene| {
        scene.unharmed(|| {
            for round in 0..scaled(100, 1000) {
                let kind = BOTH.0[usize::from(round % 2 != 0)];
                let mut end = scene.decent(kind);
                for _ in 0..round % 50 {
                    let _ = end.send(&frame(2, 1));
                }
                // With buffers left the switch goes on writing into them.
                while end.receive().is_some() {}
                cut(&end, [0, 4096, buffer_at(RECEIVE, 0)][(round / 2 % 3) as usize]);
                end.await_end().expect("the switch hangs up");
                scene.await_link("down", "memory-truncated");
                drop(end);
                // One that goes by itself has the next one served at once.
                drop(FrontEnd::connect(&scene.socket(), kind));
                scene.await_link("down", "disconnected");
            }
            BOTH.0.iter().for_each(|kind| scene.behave(*kind));
        });
    });
}

/// More memory than a process can address, which somebody may ask for who has many ports. It is not for others to
/// suffer from when he goes.
#[test]
fn memory_of_more_than_64_tb_on_many_ports() {
    with_scene(|scene| {
        let names: Vec<_> = (0..16).map(|number| format!("big{number}")).collect();
        let apply = |text: &str| scene.daemon.ctl().json(&["apply", &scene.lab.write("hostile.toml", text)]);
        scene.unharmed(|| {
            let ports = names.iter().map(|name| port(&scene.lab, name));
            apply(&(scene.configuration.clone() + &ports.collect::<String>()));
            await_up(&scene.daemon.ctl(), &names.iter().map(String::as_str).collect::<Vec<_>>());
            let file = sparse(4 << 40);
            let connect = |name: &String| {
                let mut end = FrontEnd::connect(&scene.lab.folder().join(name), Kind::Split).expect("a port");
                end.negotiate().expect("the switch listens");
                end.share_memory(&[[GUEST, 4 << 40, USER, 0]], &[file.as_fd()]).expect("the switch listens");
                end.settle().map(|_| end)
            };
            // The two of the stream have some, too.
            let ends: Vec<_> = names.iter().map(connect).collect();
            assert_eq!(
                ends.iter().map(Result::is_ok).collect::<Vec<_>>(),
                [[true; 15].as_slice(), &[false]].concat()
            );
            scene.await_link_of("big15", "down", "overflow");
            drop(ends);
            scene.behave(Kind::Split);
            apply(&scene.configuration);
        });
    });
}

/// A payload that its sender takes away before a kernel reads it costs the sender that frame, and the port that it
/// was for nothing.
#[test]
fn a_payload_that_is_gone_when_it_is_sent() {
    with_scene(|scene| {
        let mac = scene.container.mac();
        let mac: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a MAC")).collect();
        scene.unharmed(|| {
            let lost = || scene.daemon.ctl().drops(Some("tap"), "tx-unreadable");
            let before = lost();
            let mut end = scene.decent(Kind::Split);
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
            wait_until("ten frames are unreadable", SOON, || lost() == before + 10);
            scene.await_link("up", "");
            let port = scene.daemon.ctl().port("tap").expect("it is listed");
            assert_eq!((&port["state"], &port["link"]), (&"up".into(), &"up".into()), "{port}");
            drop(end);
            scene.await_link("down", "disconnected");
        });
    });
}
