//! Gather lists: what a tx queue is given to send.
//!
//! A [`TxItem`] is one outgoing frame: a frame of the batch as it is, or a [`Part`], which is a private prefix
//! (a rewritten header) followed by a range of the frame's bytes, and of others' where frames were joined. The parts
//! of a burst lie beside their prefixes, so that an item is four bytes. Many items may share one frame: the copies
//! of a flood, the segments of a train. The [`Burst`] that a tx queue gets has three ways to use an item: as an I/O
//! vector (a TAP, AF_PACKET), as a copy (a ring in somebody's memory), or by taking the arena buffers
//! themselves (AF_XDP). For a port without [`Features::CHECKSUM`] the last two complete a partial checksum
//! on the way, in the same pass; that is the one place where checksums are filled in.
#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr::NonNull;

use crate::arena::{Buffer, FRAME_SIZE, HEADROOM};
use crate::batch::{Batch, Frame, Segment};
use crate::checksum::{Sum, never_zero};
use crate::offload::{Checksum, Features, Offload, Packed};
use crate::pool::Pool;

/// Bytes of prefixes in one burst: 45 segment headers for each of 64 frames.
pub const PREFIXES: usize = 256 << 10;

/// Parts of one burst: more than as many segments.
const PARTS: usize = 4096;

/// Tails of one burst: as many as fit 16 sendings of two batches each.
const TAILS: usize = 2048;

/// What is made for one burst: private bytes that outgoing frames begin with, and which range of which frame
/// follows them. Allocated once.
pub struct Prefixes {
    bytes: Vec<u8>,
    parts: Vec<Part>,
    tails: Vec<Tail>,
}

impl Default for Prefixes {
    fn default() -> Self {
        Prefixes {
            bytes: Vec::with_capacity(PREFIXES),
            parts: Vec::with_capacity(PARTS),
            tails: Vec::with_capacity(TAILS),
        }
    }
}

impl Prefixes {
    /// Forgets all of them.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.parts.clear();
        self.tails.clear();
    }

    /// Whether another part with a prefix of `len` bytes fits.
    #[inline]
    pub fn has_room(&self, len: usize) -> bool {
        self.bytes.len() + len <= PREFIXES && self.parts.len() < PARTS
    }

    /// Adds an outgoing frame that is a part of frame `frame`; `None` when there is no room.
    #[inline]
    pub fn add(&mut self, frame: u16, part: Part) -> Option<TxItem> {
        if !self.has_room(0) {
            return None;
        }
        self.parts.push(part);
        Some(TxItem { frame, part: FIRST_PART + self.parts.len() as u16 - 1 })
    }

    /// Adds what follows a part, in order; `None` when there is no room for all of it.
    pub(crate) fn push_tails(&mut self, tails: impl ExactSizeIterator<Item = Tail>) -> Option<Tails> {
        if self.tails.len() + tails.len() > TAILS {
            return None;
        }
        let first = self.tails.len();
        self.tails.extend(tails);
        let len = self.tails[first..].iter().map(|tail| tail.len).sum();
        Some(Tails { first: first as u16, count: (self.tails.len() - first) as u16, len })
    }

    /// What follows a part.
    #[inline]
    fn tails(&self, tails: Tails) -> &[Tail] {
        &self.tails[tails.first as usize..(tails.first + tails.count) as usize]
    }

    /// What an item says of the batch that it is of.
    #[inline]
    pub fn part(&self, batch: &Batch<'_>, item: TxItem) -> Part {
        match item.part.checked_sub(FIRST_PART) {
            Some(at) => self.parts[at as usize],
            None => Part::whole(batch, item.frame()),
        }
    }

    /// Adds a prefix; `None` when there is no room.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> Option<Prefix> {
        if !self.has_room(bytes.len()) {
            return None;
        }
        let prefix = Prefix { at: self.bytes.len() as u32, len: bytes.len() as u32 };
        self.bytes.extend_from_slice(bytes);
        Some(prefix)
    }

    /// The bytes of a prefix.
    #[inline]
    pub fn get(&self, prefix: Prefix) -> &[u8] {
        &self.bytes[prefix.at as usize..(prefix.at + prefix.len) as usize]
    }

    /// The bytes of a prefix, to write.
    #[inline]
    pub fn get_mut(&mut self, prefix: Prefix) -> &mut [u8] {
        &mut self.bytes[prefix.at as usize..(prefix.at + prefix.len) as usize]
    }
}

/// A place in [`Prefixes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    at: u32,
    len: u32,
}

impl Prefix {
    /// Bytes of it.
    #[inline]
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// The bytes of one outgoing frame, and what they need.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What comes before the frame's bytes.
    pub prefix: Prefix,
    /// The first byte of the frame that is sent.
    pub from: u32,
    /// How many bytes of the frame are sent.
    pub len: u32,
    /// What comes behind them, of other frames.
    pub tails: Tails,
    /// What the outgoing frame still needs; positions count from its first byte, prefix included.
    pub offload: Packed,
}

impl Part {
    /// A prefix, and `len` bytes of one frame, from the `from`th on.
    #[inline]
    pub fn new(prefix: Prefix, from: u32, len: u32, offload: Packed) -> Part {
        Part { prefix, from, len, tails: Tails::default(), offload }
    }

    /// All of a frame.
    #[inline]
    pub fn whole(batch: &Batch<'_>, frame: usize) -> Part {
        Part::new(Prefix::default(), 0, batch.frame_len(frame) as u32, batch.packed_offload(frame))
    }

    /// Bytes of the outgoing frame.
    #[inline]
    pub fn total(&self) -> usize {
        (self.prefix.len + self.len + self.tails.len) as usize
    }
}

/// Bytes of another frame that come behind a part's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    pub(crate) frame: u16,
    pub(crate) from: u32,
    pub(crate) len: u32,
}

/// A place in [`Prefixes`]: some tails, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tails {
    first: u16,
    count: u16,
    len: u32,
}

/// One outgoing frame.
#[derive(Clone, Copy, Debug)]
pub struct TxItem {
    /// Which frame of the batch the bytes come from.
    frame: u16,
    /// All of it ([`EXCLUSIVE`], [`SHARED`]), or the number of the part counted from [`FIRST_PART`].
    part: u16,
}

/// The only item of its frame and all of it, so its buffers may be taken.
const EXCLUSIVE: u16 = 0;
/// All of a frame that has other items.
const SHARED: u16 = 1;
const FIRST_PART: u16 = 2;

impl TxItem {
    /// The whole frame as it is when it is sent, of which there is no other item.
    #[inline]
    pub fn exclusive(frame: u16) -> TxItem {
        TxItem { frame, part: EXCLUSIVE }
    }

    /// The whole frame as it is when it is sent; `exclusive` if there is no other item of it.
    #[inline]
    pub fn whole(_batch: &Batch<'_>, frame: usize, exclusive: bool) -> TxItem {
        TxItem { frame: frame as u16, part: if exclusive { EXCLUSIVE } else { SHARED } }
    }

    /// Which frame of the batch the bytes come from; the first ones, if they come from several.
    #[inline]
    pub fn frame(self) -> usize {
        self.frame.into()
    }

    /// Whether it is all of its frame, as it is.
    #[inline]
    pub fn is_whole(self) -> bool {
        self.part < FIRST_PART
    }
}

/// An outgoing frame that is a whole frame of the batch and needs nothing.
#[derive(Clone, Copy)]
pub struct Plain<'b> {
    frame: &'b Frame,
    segments: &'b [Segment],
}

impl Plain<'_> {
    /// Bytes of it.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a frame is not a collection")]
    pub fn len(&self) -> usize {
        (self.frame.head_len + self.frame.rest) as usize
    }

    /// Calls `each` with its pieces, as [`Burst::pieces`] does.
    #[inline]
    pub fn pieces(&self, mut each: impl FnMut(NonNull<u8>, usize)) {
        let Frame { head, head_len, first_segment, segments, .. } = *self.frame;
        each(head, head_len as usize);
        let first = first_segment as usize;
        for segment in &self.segments[first..first + segments as usize] {
            each(segment.start, segment.len as usize);
        }
    }
}

/// What one tx queue is given in one burst.
pub struct Burst<'b, 'q> {
    batch: &'b mut Batch<'q>,
    items: &'b [TxItem],
    prefixes: &'b Prefixes,
    complete: bool,
}

impl<'b, 'q> Burst<'b, 'q> {
    /// Puts a burst together for a port with `features`. The items' ranges must lie in the batch's
    /// frames; what does not is cut off.
    #[inline]
    pub fn new(
        batch: &'b mut Batch<'q>,
        items: &'b [TxItem],
        prefixes: &'b Prefixes,
        features: Features,
    ) -> Self {
        Burst { batch, items, prefixes, complete: !features.contains(Features::CHECKSUM) }
    }

    /// What outgoing frame `i` still needs after it was copied or taken.
    #[inline]
    pub fn offload(&self, i: usize) -> Offload {
        self.packed_offload(i).unpack()
    }

    /// [`offload`](Self::offload), unread.
    #[inline]
    pub fn packed_offload(&self, i: usize) -> Packed {
        let offload = self.item(i).offload;
        if self.complete && offload.is_partial() { offload.completed() } else { offload }
    }

    /// The checksum to complete in outgoing frame `i`.
    #[inline]
    fn missing(&self, i: usize) -> Option<(u16, u16)> {
        let offload = self.item(i).offload;
        if !(self.complete && offload.is_partial()) {
            return None;
        }
        match offload.unpack().checksum {
            Checksum::Partial { start, offset } => Some((start, offset)),
            _ => None,
        }
    }

    /// How many frames are to be sent.
    #[inline]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Outgoing frame `i`.
    #[inline]
    pub fn item(&self, i: usize) -> Part {
        self.prefixes.part(self.batch, self.items[i])
    }

    /// The first bytes of outgoing frame `i` that lie together in private memory; headers may be read here.
    #[inline]
    pub fn head(&self, i: usize) -> &[u8] {
        let item = self.item(i);
        if item.prefix.len > 0 {
            self.prefixes.get(item.prefix)
        } else {
            let head = self.batch.head(self.items[i].frame());
            let from = (item.from as usize).min(head.len());
            &head[from..head.len().min(from + item.len as usize)]
        }
    }

    /// Outgoing frame `i`, if it is a frame of the batch as it is, which needs nothing: nearly every one.
    #[inline]
    pub fn plain(&self, i: usize) -> Option<Plain<'_>> {
        let item = self.items[i];
        let frame = &self.batch.frames[item.frame()];
        (item.is_whole() && frame.offload.is_none()).then_some(Plain { frame, segments: self.batch.segments })
    }

    /// Calls `each` with the pieces of outgoing frame `i`, in order. They may be read until the burst is gone; who
    /// writes what lies there at the same time is another matter.
    #[inline]
    pub fn pieces(&self, i: usize, mut each: impl FnMut(NonNull<u8>, usize)) {
        let item = self.item(i);
        if item.prefix.len > 0 {
            let prefix = self.prefixes.get(item.prefix);
            each(NonNull::from(prefix).cast(), prefix.len());
        }
        self.batch.pieces(self.items[i].frame(), item.from as usize, item.len as usize, &mut each);
        for tail in self.prefixes.tails(item.tails) {
            self.batch.pieces(tail.frame.into(), tail.from as usize, tail.len as usize, &mut each);
        }
    }

    /// Appends the pieces of outgoing frame `i` to an I/O vector for `writev` or `sendmsg`. They may be
    /// read until the burst is gone.
    #[inline]
    pub fn gather(&self, i: usize, vector: &mut Vec<libc::iovec>) {
        self.pieces(i, |start, len| {
            vector.push(libc::iovec { iov_base: start.as_ptr().cast(), iov_len: len });
        });
    }

    /// Copies outgoing frame `i` to `dst` completing its checksum; gives the number of bytes, or
    /// `None` if `dst` is too small.
    #[inline]
    pub fn copy_to(&self, i: usize, dst: &mut [u8]) -> Option<usize> {
        let total = self.item(i).total();
        let dst = dst.get_mut(..total)?;
        let mut at = 0;
        self.pieces(i, |start, len| {
            // SAFETY: the piece is readable and no part of `dst`, which is exclusively ours; `Batch::pieces`
            // cuts what it gives to `item.len`, so `at + len <= total`.
            unsafe { std::ptr::copy_nonoverlapping(start.as_ptr(), dst.as_mut_ptr().add(at), len) };
            at += len;
        });
        if let Some((start, offset)) = self.missing(i) {
            complete(dst, start, offset);
        }
        Some(at)
    }

    /// Copies outgoing frame `i` into buffers of `pool`, a chain if one is too short, and completes its
    /// checksum. False, and nothing taken from the pool, if the pool has too few.
    #[inline]
    pub fn copy_to_buffers(&self, i: usize, pool: &mut Pool, chain: &mut Vec<Buffer>) -> bool {
        const ROOM: usize = FRAME_SIZE - HEADROOM;
        let total = self.item(i).total();
        if total <= ROOM {
            let Some(mut buffer) = pool.get() else { return false };
            buffer.set_data(HEADROOM, total);
            self.copy_to(i, buffer.data_mut());
            chain.push(buffer);
            return true;
        }
        let first = chain.len();
        let mut left = total;
        while left > 0 {
            let Some(mut buffer) = pool.get() else {
                chain.drain(first..).for_each(|buffer| pool.put(buffer));
                return false;
            };
            buffer.set_data(HEADROOM, left.min(ROOM));
            left -= buffer.len();
            chain.push(buffer);
        }
        let buffers = &mut chain[first..];
        let mut at = 0;
        self.pieces(i, |mut start, mut len| {
            while len > 0 {
                let (index, within) = (at / ROOM, at % ROOM);
                let dst = &mut buffers[index].data_mut()[within..];
                let part = len.min(dst.len());
                // SAFETY: as in `copy_to`; `part` is within both the piece and the buffer's data.
                unsafe {
                    std::ptr::copy_nonoverlapping(start.as_ptr(), dst.as_mut_ptr(), part);
                    start = start.add(part);
                }
                len -= part;
                at += part;
            }
        });
        if let Some((start, offset)) = self.missing(i) {
            complete_chain(buffers, start, offset);
        }
        true
    }

    /// Takes the buffers that the outgoing frames in `range` lie in, in order, each with what it still needs:
    /// [`take`](Self::take) for the common case of one buffer and nothing to complete. Ends at the first frame that
    /// is none of these and leaves it as it was; gives the number taken.
    #[inline]
    pub fn take_singles(
        &mut self,
        range: Range<usize>,
        pool: &Pool,
        mut each: impl FnMut(Buffer, Packed),
    ) -> usize {
        let (frames, arena) = (self.batch.frames.as_mut_slice(), pool.arena().owner.inner());
        let (complete, mut items) = (self.complete, &self.items[range]);
        let offered = items.len();
        while let [item, behind @ ..] = items {
            let frame = &mut frames[item.frame()];
            let offload = frame.offload;
            if item.part != EXCLUSIVE || frame.segments > 0 || (complete && !offload.is_none()) {
                break;
            }
            let Some(mut buffer) = frame.buffer.take_if(|buffer| buffer.belongs_to(arena)) else { break };
            buffer.set_known_data(frame.headroom, frame.head_len);
            // What is gone cannot be read through the batch any more.
            frame.head_len = 0;
            each(buffer, offload);
            items = behind;
        }
        offered - items.len()
    }

    /// Takes the buffers that outgoing frame `i` lies in, if it lies in buffers of `pool`'s arena and
    /// nobody else needs them, completing its checksum. False, and nothing taken, if it must be copied.
    #[inline]
    pub fn take(&mut self, i: usize, pool: &Pool, chain: &mut Vec<Buffer>) -> bool {
        let item = self.items[i];
        let frame = &mut self.batch.frames[item.frame()];
        let ours = frame.buffer.as_ref().is_some_and(|buffer| buffer.belongs_to(pool.arena().owner.inner()));
        if !(item.part == EXCLUSIVE && ours) {
            return false;
        }
        let Some(mut buffer) = frame.buffer.take() else { return false };
        buffer.set_data(frame.headroom as usize, frame.head_len as usize);
        let first = chain.len();
        chain.push(buffer);
        let segments = frame.first_segment as usize..(frame.first_segment + frame.segments) as usize;
        for segment in &mut self.batch.segments[segments] {
            chain.extend(segment.buffer.take());
        }
        // What is gone cannot be read through the batch any more.
        (frame.head_len, frame.rest, frame.segments) = (0, 0, 0);
        if let Some((start, offset)) = self.missing(i) {
            complete_chain(&mut chain[first..], start, offset);
        }
        true
    }
}

/// Completes a partial checksum in a frame that lies together. A position outside the frame completes
/// nothing: the receiver will find the frame wrong, and nothing else is harmed.
pub fn complete(frame: &mut [u8], start: u16, offset: u16) {
    let Some(covered) = frame.get_mut(start as usize..) else { return };
    let field = offset as usize..offset as usize + 2;
    if field.end > covered.len() {
        return;
    }
    let mut sum = Sum::default();
    sum.add(covered);
    covered[field].copy_from_slice(&never_zero(sum.finish()));
}

fn complete_chain(chain: &mut [Buffer], start: u16, offset: u16) {
    if let [buffer] = chain {
        return complete(buffer.data_mut(), start, offset);
    }
    let total: usize = chain.iter().map(Buffer::len).sum();
    let field = start as usize + offset as usize;
    if field + 2 > total {
        return;
    }
    let (mut sum, mut skip) = (Sum::default(), start as usize);
    for buffer in chain.iter() {
        let data = buffer.data();
        sum.add(&data[skip.min(data.len())..]);
        skip = skip.saturating_sub(data.len());
    }
    let mut at = field;
    let value = never_zero(sum.finish());
    let mut bytes = value.iter();
    for buffer in chain {
        let len = buffer.len();
        while at < len {
            let Some(byte) = bytes.next() else { return };
            buffer.data_mut()[at] = *byte;
            at += 1;
        }
        at -= len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Arena, HugePages};
    use crate::batch::RxMemory;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    /// Single buffers are taken up to the first frame that is none, or is not alone in its buffer.
    #[test]
    fn singles_are_taken_in_a_run() {
        let arena = Arena::new(32, HugePages::Off).unwrap();
        let mut pool = arena.pool();
        let mut memory = RxMemory::new();
        let (mut batch, _) = memory.lend();
        let indices: Vec<_> = (0..5)
            .map(|_| {
                let mut buffer = pool.get().unwrap();
                buffer.set_data(HEADROOM, 60);
                let index = buffer.index();
                batch.push_buffer(buffer, Offload::NONE);
                index
            })
            .collect();
        batch.append_buffer(pool.get().unwrap());
        let items: Vec<_> = (0..5).map(|i| TxItem::whole(&batch, i, i != 2)).collect();
        let prefixes = Prefixes::default();
        let mut burst = Burst::new(&mut batch, &items, &prefixes, Features::NONE);
        let mut run = |range| {
            let mut got = Vec::new();
            let taken = burst.take_singles(range, &pool, |buffer, offload| {
                assert!(offload.is_none() && buffer.len() == 60 && buffer.headroom() == HEADROOM);
                got.push(buffer.index());
            });
            assert_eq!(taken, got.len());
            got
        };
        assert_eq!(run(0..5), indices[..2], "frame 2 has other items");
        assert_eq!(run(0..1), [], "it is gone");
        assert_eq!(run(3..5), indices[3..4], "frame 4 has two buffers");
        assert_eq!(run(5..5), []);
        batch.recycle(&mut pool);
        assert_eq!(arena.free(), arena.frames());
    }

    /// One frame of a private head and two lent segments, sent with a prefix instead of its first bytes.
    #[test]
    fn all_three_ways_send_the_same_bytes() {
        let arena = Arena::new(512, HugePages::Off).unwrap();
        let mut pool = arena.pool();
        let bytes = pattern(9000);
        let mut memory = RxMemory::new();
        let (mut batch, mut scratch) = memory.lend();
        let head = scratch.take(64 + 100);
        head[64..].copy_from_slice(&bytes[..100]);
        batch.push_private(head, 64, Offload::NONE);
        batch.append_lent(&bytes[100..5001]);
        batch.append_lent(&bytes[5001..]);
        let mut prefixes = Prefixes::default();
        let prefix = prefixes.push(b"new header").unwrap();
        let checksum = Checksum::Partial { start: 4, offset: 3 };
        let part = Part::new(prefix, 14, 8986, Offload { checksum, ..Offload::NONE }.into());
        let items = [prefixes.add(0, part).unwrap()];
        let mut burst = Burst::new(&mut batch, &items, &prefixes, Features::NONE);

        let mut expected = b"new header".to_vec();
        expected.extend_from_slice(&bytes[14..]);
        complete(&mut expected, 4, 3);

        let mut flat = vec![0; 9000];
        assert_eq!(burst.copy_to(0, &mut flat), Some(8996));
        assert!(flat[..8996] == expected[..]);
        assert_eq!(burst.copy_to(0, &mut flat[..8995]), None);

        let mut chain = Vec::new();
        assert!(!burst.take(0, &pool, &mut chain));
        assert!(burst.copy_to_buffers(0, &mut pool, &mut chain));
        assert_eq!(chain.len(), 3);
        let joined: Vec<u8> = chain.iter().flat_map(|buffer| buffer.data().to_vec()).collect();
        assert!(joined == expected);

        let mut vector = Vec::new();
        burst.gather(0, &mut vector);
        assert_eq!(vector.iter().map(|piece| piece.iov_len).sum::<usize>(), 8996);
    }

    #[test]
    fn an_exclusive_chain_is_taken_and_completed() {
        let arena = Arena::new(512, HugePages::Off).unwrap();
        let mut pool = arena.pool();
        let bytes = pattern(5001);
        let mut memory = RxMemory::new();
        let (mut batch, _) = memory.lend();
        let checksum = Checksum::Partial { start: 1, offset: 2000 };
        let offload = Offload { checksum, ..Offload::NONE };
        let (mut one, mut two) = (pool.get().unwrap(), pool.get().unwrap());
        one.set_data(HEADROOM, 2002); // the checksum field's two bytes lie in different buffers
        one.data_mut().copy_from_slice(&bytes[..2002]);
        two.set_data(0, 2999);
        two.data_mut().copy_from_slice(&bytes[2002..]);
        batch.push_buffer(one, offload);
        batch.append_buffer(two);
        let items = [TxItem::whole(&batch, 0, true)];
        let prefixes = Prefixes::default();
        let mut chain = Vec::new();
        let mut burst = Burst::new(&mut batch, &items, &prefixes, Features::NONE);
        assert!(burst.take(0, &pool, &mut chain));
        assert!(!burst.take(0, &pool, &mut chain), "taken twice");
        let mut expected = bytes;
        complete(&mut expected, 1, 2000);
        let joined: Vec<u8> = chain.iter().flat_map(|buffer| buffer.data().to_vec()).collect();
        assert!(joined == expected);
        batch.recycle(&mut pool);
        chain.drain(..).for_each(|buffer| pool.put(buffer));
        assert_eq!(arena.free(), arena.frames());
    }

    #[test]
    fn an_empty_pool_takes_nothing() {
        let arena = Arena::new(32, HugePages::Off).unwrap();
        let mut pool = arena.pool();
        let held: Vec<_> = std::iter::from_fn(|| pool.get()).skip(1).collect();
        let mut memory = RxMemory::new();
        let (mut batch, mut scratch) = memory.lend();
        batch.push_private(scratch.take(9000), 0, Offload::NONE);
        let items = [TxItem::whole(&batch, 0, true)];
        let prefixes = Prefixes::default();
        let mut chain = Vec::new();
        let burst = Burst::new(&mut batch, &items, &prefixes, Features::NONE);
        assert!(!burst.copy_to_buffers(0, &mut pool, &mut chain));
        assert!(chain.is_empty());
        drop(held);
        assert_eq!(arena.free(), arena.frames());
    }

    #[test]
    fn a_checksum_outside_the_frame_harms_nothing() {
        let mut frame = pattern(60);
        for (start, offset) in [(0, 59), (60, 0), (61, 0), (65535, 65535), (10, 49)] {
            let before = frame.clone();
            complete(&mut frame, start, offset);
            assert_eq!(frame, before, "{start} {offset}");
        }
    }
}
