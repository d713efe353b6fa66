//! Batches: what is pushed, refused, read and given back.

use super::*;
use crate::arena::{Arena, HugePages};
use crate::offload::Checksum;

#[test]
fn room_is_made_and_taken_back() {
    let mut memory = RxMemory::new();
    let (mut batch, mut scratch) = memory.lend();
    let bytes = scratch.take(16 + 8);
    bytes[16..].copy_from_slice(b"ABCDEFGH");
    let checksum = Checksum::Partial { start: 6, offset: 1 };
    batch.push_private(bytes, 16, Offload { checksum, ..Offload::NONE });
    batch.append_lent(b"rest");
    batch.insert(0, 4, 2).unwrap().copy_from_slice(b"--");
    assert_eq!(batch.head(0), b"ABCD--EFGH");
    assert_eq!(batch.offload(0).checksum, Checksum::Partial { start: 8, offset: 1 });
    assert_eq!(batch.frame_len(0), 14);
    assert!(batch.insert(0, 0, 15).is_none(), "more than the headroom");
    assert!(batch.remove(0, 4, 2));
    assert_eq!(batch.head(0), b"ABCDEFGH");
    assert!(!batch.remove(0, 4, 5), "more than the head");
    let mut across = [0; 5];
    assert!(batch.read(0, 6, &mut across));
    assert_eq!(&across, b"GHres");
    assert!(!batch.read(0, 8, &mut across));
}

#[test]
fn a_full_batch_loses_no_buffer() {
    let arena = Arena::new(512, HugePages::Off).unwrap();
    let mut pool = arena.pool();
    let mut memory = RxMemory::new();
    let (mut batch, _) = memory.lend();
    for _ in 0..BATCH + 3 {
        batch.push_buffer(pool.get().unwrap(), Offload::NONE);
        batch.append_buffer(pool.get().unwrap());
    }
    assert_eq!((batch.len(), batch.refused().failed, batch.refused().total()), (BATCH, 3, 3));
    assert_eq!(batch.segments.len(), BATCH, "what is appended to a refused frame is part of no other");
    batch.recycle(&mut pool);
    assert_eq!(arena.free(), arena.frames());

    let buffers: Vec<_> = std::iter::from_fn(|| pool.get()).take(BATCH + 3).collect();
    let (mut batch, _) = memory.lend();
    batch.push_buffers(buffers.into_iter().map(|buffer| (buffer, Packed::NONE)));
    assert_eq!((batch.len(), batch.refused().failed, batch.refused().total()), (BATCH, 3, 3));
    batch.recycle(&mut pool);
    assert_eq!(arena.free(), arena.frames());
}

#[test]
fn a_frame_of_too_many_segments_is_refused_whole() {
    let arena = Arena::new(2048, HugePages::Off).unwrap();
    let mut pool = arena.pool();
    let mut memory = RxMemory::new();
    let (mut batch, mut scratch) = memory.lend();
    batch.push_private(scratch.take(60), 0, Offload::NONE);
    batch.append_lent(b"kept");
    batch.push_buffer(pool.get().unwrap(), Offload::NONE);
    for _ in 0..SEGMENTS + 7 {
        batch.append_buffer(pool.get().unwrap());
    }
    assert_eq!((batch.len(), batch.frame_len(0)), (1, 64));
    assert_eq!(batch.refused(), Refused { too_long: 1, ..Refused::default() });
    assert!(!batch.unpush(), "it is gone already");
    // The next one is whole again.
    batch.push_private(scratch.take(60), 0, Offload::NONE);
    batch.append_lent(b"and so is this");
    assert_eq!((batch.len(), batch.frame_len(0), batch.frame_len(1)), (2, 64, 74));
    assert!(batch.unpush());
    batch.append_lent(b"late");
    assert_eq!((batch.len(), batch.frame_len(0)), (1, 64));
    batch.recycle(&mut pool);
    assert_eq!(arena.free(), arena.frames());
}

#[test]
fn absurd_positions_and_counts_change_nothing() {
    let mut memory = RxMemory::new();
    let (mut batch, mut scratch) = memory.lend();
    let bytes = scratch.take(16 + 8);
    bytes[16..].copy_from_slice(b"ABCDEFGH");
    batch.push_private(bytes, 16, Offload::NONE);
    for count in [1 << 32, (1 << 32) + 4, usize::MAX - 3, usize::MAX] {
        assert!(batch.insert(0, 4, count).is_none(), "{count}");
        assert!(!batch.remove(0, 4, count), "{count}");
        assert!(!batch.read(0, count, &mut [0; 4]), "{count}");
    }
    assert!(batch.insert(0, usize::MAX, 1).is_none() && !batch.remove(0, usize::MAX, 1));
    assert_eq!(batch.head(0), b"ABCDEFGH");
    batch.push_private(scratch.take(8), 9, Offload::NONE);
    assert_eq!((batch.len(), batch.refused().failed), (1, 1), "more headroom than there is");
}

#[test]
fn scratch_is_never_handed_out_twice() {
    let mut memory = RxMemory::new();
    let (_, mut scratch) = memory.lend();
    let (a, b) = (scratch.take(100), scratch.take(SCRATCH));
    assert_eq!((a.len(), b.len()), (100, SCRATCH - 128));
    assert!(scratch.take(1).is_empty());
    a.fill(1);
    b.fill(2);
    assert!(a.iter().all(|byte| *byte == 1));
}
