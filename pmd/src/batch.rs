//! A batch: up to [`BATCH`] frames that an rx queue lends for one burst.
//!
//! A frame is a *head* (its first bytes, contiguous, in memory that only we can write, with headroom
//! before it, at least [`HEAD`] bytes long or the whole frame) and any number of further *segments*. Headers are parsed from the head and nowhere else;
//! segments may lie in memory that a hostile guest is writing at this moment, so no method reads a
//! segment but those that copy it away. All of it is lent: the lifetime `'q` ties the batch to the queue
//! and to the worker's [`RxMemory`], so nothing of it can be kept past the burst. What shall outlive it is
//! copied into the arena, or taken, if it lies there already ([`Burst::take`](crate::gather::Burst::take)).
//!
//! Where frames lie, by driver: AF_XDP pushes arena [`Buffer`]s (owned, chains for jumbo frames); a TAP
//! reads up to 64 KB into [`Scratch`], memory of the worker that all its TAPs share, one burst after the
//! other, so a thousand idle ones cost nothing; a guest's frame is a head copied into scratch and segments
//! that stay where they are.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::arena::Buffer;
use crate::offload::{Offload, Packed};
use crate::pool::Pool;

/// The most frames that travel together.
pub const BATCH: usize = 64;

/// The longest frame: 64 KB of IP behind an Ethernet header with two VLAN tags.
pub const MAX_FRAME: usize = 65_535 + 22;

/// Bytes that a frame's head holds at least, or the whole frame if it is shorter: enough for all headers,
/// also for those that segmentation writes anew (two VLAN tags, IPv6 with a good number of extension headers,
/// TCP with all its options).
pub const HEAD: usize = 192;

/// Bytes of a worker's scratch memory. It holds seven of the largest frames or a full batch of small
/// ones, and stays within a core's second-level cache.
pub const SCRATCH: usize = 512 << 10;

/// Segments that a batch has room for: a head and 17 fragments (the kernel's `MAX_SKB_FRAGS`) for each frame, the
/// most that a device hands up.
const SEGMENTS: usize = BATCH * 18;

/// Bytes after a frame's head, wherever they lie.
pub(crate) struct Segment {
    pub(crate) start: NonNull<u8>,
    pub(crate) len: u32,
    pub(crate) buffer: Option<Buffer>,
}

pub(crate) struct Frame {
    pub(crate) head: NonNull<u8>,
    pub(crate) head_len: u32,
    pub(crate) headroom: u32,
    /// Bytes of all segments.
    pub(crate) rest: u32,
    pub(crate) first_segment: u16,
    pub(crate) segments: u16,
    /// Whether the frame lies in arena buffers that may be taken.
    pub(crate) buffer: Option<Buffer>,
    pub(crate) offload: Packed,
}

impl Frame {
    /// A frame, or its beginning, that lies in a buffer; what is appended to it comes behind `segments` others.
    #[inline]
    fn in_buffer(buffer: Buffer, offload: Packed, segments: usize) -> Frame {
        Frame {
            head: buffer.as_ptr(),
            head_len: buffer.len() as u32,
            headroom: buffer.headroom() as u32,
            rest: 0,
            first_segment: segments as u16,
            segments: 0,
            buffer: Some(buffer),
            offload,
        }
    }
}

/// Frames that a driver met and could not hand up, by reason. They count as received and dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// The frame's offload metadata contradicts the frame.
    pub bad_offload: u32,
    /// Longer than the port or the switch can take.
    pub too_long: u32,
    /// No free frame in the arena to receive it into.
    pub no_frame: u32,
    /// Lost on the way up: the kernel could not hand it over, or it is more than a batch holds.
    pub failed: u32,
    /// From a queue that its other end has disabled: what it sends there is to be thrown away.
    pub disabled: u32,
}

impl Refused {
    /// All of them.
    pub fn total(self) -> u32 {
        self.bad_offload + self.too_long + self.no_frame + self.failed + self.disabled
    }
}

/// What a worker lends to its rx queues, one burst after the other. Allocated once.
pub struct RxMemory {
    frames: Vec<Frame>,
    segments: Vec<Segment>,
    scratch: Box<[u8]>,
}

// SAFETY: between bursts the lists are empty, and during one a batch borrows the memory exclusively;
// what the pointers of a batch point to is lent for as long.
unsafe impl Send for RxMemory {}

impl Default for RxMemory {
    fn default() -> Self {
        RxMemory::new()
    }
}

impl RxMemory {
    /// Allocates the lists and the scratch memory.
    pub fn new() -> RxMemory {
        RxMemory {
            frames: Vec::with_capacity(BATCH),
            segments: Vec::with_capacity(SEGMENTS),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
        }
    }

    /// Starts a burst: an empty batch, and the scratch memory that its frames may lie in.
    #[inline]
    pub fn lend(&mut self) -> (Batch<'_>, Scratch<'_>) {
        self.frames.clear();
        self.segments.clear();
        let batch = Batch {
            frames: &mut self.frames,
            segments: &mut self.segments,
            refused: Refused::default(),
            refused_at: usize::MAX,
            lent: PhantomData,
        };
        (batch, Scratch { rest: &mut self.scratch })
    }
}

/// Scratch memory for the frames of one burst, handed out from the front.
pub struct Scratch<'q> {
    rest: &'q mut [u8],
}

impl<'q> Scratch<'q> {
    /// What is left, to read into before it is known how much will be used.
    #[inline]
    pub fn rest(&mut self) -> &mut [u8] {
        self.rest
    }

    /// Takes the first `len` bytes for the burst (fewer if there are fewer). What follows begins on a
    /// cache line of its own.
    #[inline]
    pub fn take(&mut self, len: usize) -> &'q mut [u8] {
        let rest = std::mem::take(&mut self.rest);
        let whole = len.next_multiple_of(64).min(rest.len());
        let (taken, rest) = rest.split_at_mut(whole);
        self.rest = rest;
        let len = len.min(whole);
        &mut taken[..len]
    }
}

/// Frames on their way together.
pub struct Batch<'q> {
    pub(crate) frames: &'q mut Vec<Frame>,
    pub(crate) segments: &'q mut Vec<Segment>,
    refused: Refused,
    /// How many frames there were when one was refused: while there are as many, what is appended belongs to
    /// that one.
    refused_at: usize,
    lent: PhantomData<&'q mut [u8]>,
}

/// One frame of a batch, to look at.
#[derive(Clone, Copy)]
pub struct View<'b>(&'b Frame);

impl<'b> View<'b> {
    /// The private first bytes.
    #[inline]
    pub fn head(self) -> &'b [u8] {
        // SAFETY: the head lies in a buffer that the frame owns or in memory lent to the batch alone, and the
        // batch is borrowed for as long.
        unsafe { std::slice::from_raw_parts(self.0.head.as_ptr(), self.0.head_len as usize) }
    }

    /// Bytes of the frame, head and segments.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a frame is not a collection")]
    pub fn len(self) -> usize {
        (self.0.head_len + self.0.rest) as usize
    }

    /// What the frame still needs, unread.
    #[inline]
    pub fn packed_offload(self) -> Packed {
        self.0.offload
    }
}

/// For drivers: filling a batch.
impl<'q> Batch<'q> {
    /// Whether the batch has no room for another frame.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.frames.len() >= BATCH
    }

    /// Adds a frame that lies in an arena buffer, whole or (see [`append_buffer`](Self::append_buffer))
    /// its beginning. A full batch refuses it, back to the arena.
    #[inline]
    pub fn push_buffer(&mut self, buffer: Buffer, offload: impl Into<Packed>) {
        if self.is_full() {
            return self.refuse();
        }
        self.frames.push(Frame::in_buffer(buffer, offload.into(), self.segments.len()));
    }

    /// Adds frames that lie in an arena buffer each, in order. What a full batch has no room for is refused.
    #[inline]
    pub fn push_buffers(&mut self, buffers: impl ExactSizeIterator<Item = (Buffer, Packed)>) {
        let (room, segments) = (BATCH - self.frames.len(), self.segments.len());
        let refused = buffers.len().saturating_sub(room);
        let frames = buffers.take(room).map(|(buffer, offload)| Frame::in_buffer(buffer, offload, segments));
        self.frames.extend(frames);
        for _ in 0..refused {
            self.refuse();
        }
    }

    /// Adds a frame that lies in memory of the worker or of the driver, private to us until the burst
    /// ends: `memory[headroom..]` is the frame or its head. A full batch refuses it.
    #[inline]
    pub fn push_private(&mut self, memory: &'q mut [u8], headroom: usize, offload: impl Into<Packed>) {
        if self.is_full() || headroom > memory.len() || memory.len() > u32::MAX as usize {
            return self.refuse();
        }
        let head = &mut memory[headroom..];
        self.frames.push(Frame {
            head_len: head.len() as u32,
            head: NonNull::from(head).cast(),
            headroom: headroom as u32,
            rest: 0,
            first_segment: self.segments.len() as u16,
            segments: 0,
            buffer: None,
            offload: offload.into(),
        });
    }

    /// Adds an arena buffer to the end of the frame that was pushed last. A frame that becomes longer than the
    /// batch has room for is refused whole, and what else is appended to it goes nowhere.
    #[inline]
    pub fn append_buffer(&mut self, buffer: Buffer) {
        let (start, len) = (buffer.as_ptr(), buffer.len() as u32);
        self.append(Segment { start, len, buffer: Some(buffer) });
    }

    /// Adds lent bytes to the end of the frame that was pushed last, as [`append_buffer`](Self::append_buffer)
    /// does.
    #[inline]
    pub fn append_lent(&mut self, bytes: &'q [u8]) {
        // A frame of so many bytes is refused.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.append(Segment { start: NonNull::from(bytes).cast(), len, buffer: None });
    }

    /// Adds bytes of foreign memory, which its owner may be writing, to the end of the frame that was
    /// pushed last, as [`append_buffer`](Self::append_buffer) does.
    ///
    /// # Safety
    /// `len` bytes at `start` stay mapped and readable until the batch is gone.
    #[inline]
    pub unsafe fn append_foreign(&mut self, start: NonNull<u8>, len: u32) {
        self.append(Segment { start, len, buffer: None });
    }

    #[inline]
    fn append(&mut self, segment: Segment) {
        if self.frames.len() == self.refused_at {
            return;
        }
        let Some(frame) = self.frames.last_mut() else { return };
        let total = (frame.head_len + frame.rest).checked_add(segment.len);
        match total.filter(|total| *total < u32::MAX && self.segments.len() < SEGMENTS) {
            Some(total) => {
                frame.rest = total - frame.head_len;
                frame.segments += 1;
                self.segments.push(segment);
            }
            None => self.refused.too_long += u32::from(self.unpush()),
        }
    }

    /// Takes back the frame that was pushed last, and what else is appended to it; counting it as refused is
    /// up to the caller. False if it was refused already.
    #[cold]
    pub fn unpush(&mut self) -> bool {
        if self.frames.len() == self.refused_at {
            return false;
        }
        let Some(frame) = self.frames.pop() else { return false };
        self.segments.truncate(frame.first_segment as usize);
        self.refused_at = self.frames.len();
        true
    }

    /// Counts a frame that was not pushed.
    #[cold]
    fn refuse(&mut self) {
        self.refused.failed += 1;
        self.refused_at = self.frames.len();
    }

    /// Whether there is neither a frame nor a refused one: nothing is lost if the batch is not handed up.
    pub fn is_blank(&self) -> bool {
        self.frames.is_empty() && self.refused.total() == 0
    }

    /// Where the driver counts frames that it cannot hand up.
    #[inline]
    pub fn refused_mut(&mut self) -> &mut Refused {
        &mut self.refused
    }
}

/// For the worker: looking at frames and changing them.
impl Batch<'_> {
    /// How many frames there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames that the driver could not hand up in this burst.
    #[inline]
    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// The frames from the `first` on, in order, to look at.
    #[inline]
    pub fn views(&self, first: usize) -> impl Iterator<Item = View<'_>> {
        self.frames[first..].iter().map(View)
    }

    /// The private first bytes of frame `i`.
    #[inline]
    pub fn head(&self, i: usize) -> &[u8] {
        View(&self.frames[i]).head()
    }

    /// The private first bytes of frame `i`, to write.
    #[inline]
    pub fn head_mut(&mut self, i: usize) -> &mut [u8] {
        let frame = &mut self.frames[i];
        // SAFETY: as in `head`; heads of different frames do not overlap, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(frame.head.as_ptr(), frame.head_len as usize) }
    }

    /// Bytes of frame `i`, head and segments.
    #[inline]
    pub fn frame_len(&self, i: usize) -> usize {
        let frame = &self.frames[i];
        (frame.head_len + frame.rest) as usize
    }

    /// What frame `i` still needs.
    #[inline]
    pub fn offload(&self, i: usize) -> Offload {
        self.frames[i].offload.unpack()
    }

    /// What frame `i` still needs, unread.
    #[inline]
    pub fn packed_offload(&self, i: usize) -> Packed {
        self.frames[i].offload
    }

    /// Says what frame `i` still needs.
    #[inline]
    pub fn set_offload(&mut self, i: usize, offload: impl Into<Packed>) {
        self.frames[i].offload = offload.into();
    }

    /// Makes room for `count` bytes at position `at` of frame `i` by moving what is before it towards
    /// the front, and gives the room to fill. `None`, and nothing changed, if the headroom is too small
    /// or `at` lies outside the head. The offload metadata moves along.
    #[inline]
    pub fn insert(&mut self, i: usize, at: usize, count: usize) -> Option<&mut [u8]> {
        let frame = &mut self.frames[i];
        if count > frame.headroom as usize || at > frame.head_len as usize {
            return None;
        }
        if !frame.offload.is_none() {
            frame.offload = frame.offload.unpack().shifted(i32::try_from(count).ok()?)?.into();
        }
        // SAFETY: `headroom` bytes before the head belong to it.
        frame.head = unsafe { frame.head.sub(count) };
        frame.headroom -= count as u32;
        frame.head_len += count as u32;
        let head = self.head_mut(i);
        head.copy_within(count..count + at, 0);
        Some(&mut head[at..at + count])
    }

    /// Makes room for `count` bytes in front of frame `i`, and gives the `N` bytes that end where it began, of which the
    /// last `count` are that room; the others may be written as well, and belong to no frame. `None`, and nothing
    /// changed, if the headroom is less than `N`. The offload metadata moves along.
    #[inline]
    pub fn prepend<const N: usize>(&mut self, i: usize, count: usize) -> Option<&mut [u8; N]> {
        let frame = &mut self.frames[i];
        if count > N || N > frame.headroom as usize {
            return None;
        }
        if !frame.offload.is_none() {
            frame.offload = frame.offload.unpack().shifted(i32::try_from(count).ok()?)?.into();
        }
        let end = frame.head;
        // SAFETY: `headroom` bytes before the head belong to it.
        frame.head = unsafe { end.sub(count) };
        frame.headroom -= count as u32;
        frame.head_len += count as u32;
        // SAFETY: as in `head_mut`, of which they are a part, and of the headroom before it.
        Some(unsafe { end.sub(N).cast().as_mut() })
    }

    /// Takes `count` bytes at position `at` out of frame `i`. False, and nothing changed, if the head
    /// does not hold them. The offload metadata moves along; bytes from the front are an outer header, and what
    /// was known of it is forgotten ([`Offload::decapsulated`]: false also where that has no answer).
    #[inline]
    pub fn remove(&mut self, i: usize, at: usize, count: usize) -> bool {
        let frame = &mut self.frames[i];
        if at.checked_add(count).is_none_or(|end| end > frame.head_len as usize) {
            return false;
        }
        if !frame.offload.is_none() {
            let (before, count) = (frame.offload.unpack(), u16::try_from(count));
            let after = count.ok().and_then(|count| match at {
                0 => before.decapsulated(count),
                _ => before.shifted(-i32::from(count)),
            });
            let Some(after) = after else { return false };
            frame.offload = after.into();
        }
        if at > 0 {
            self.head_mut(i).copy_within(0..at, count);
        }
        let frame = &mut self.frames[i];
        // SAFETY: the head is at least `count` bytes long.
        frame.head = unsafe { frame.head.add(count) };
        frame.headroom += count as u32;
        frame.head_len -= count as u32;
        true
    }

    /// Cuts frame `i` to `len` bytes, if it has more.
    #[inline]
    pub fn truncate(&mut self, i: usize, len: usize) {
        if len < self.frame_len(i) {
            self.cut(i, len as u32);
        }
    }

    #[cold]
    fn cut(&mut self, i: usize, len: u32) {
        let frame = &mut self.frames[i];
        frame.head_len = frame.head_len.min(len);
        frame.rest = len - frame.head_len;
        let (first, mut left) = (frame.first_segment as usize, frame.rest);
        for segment in &mut self.segments[first..first + frame.segments as usize] {
            // What is left of a chain behind the cut stays in it, empty, and goes home with it.
            segment.len = segment.len.min(left);
            left -= segment.len;
        }
    }

    /// Copies `dst.len()` bytes of frame `i` from position `from` on; false if it has fewer.
    #[inline]
    pub fn read(&self, i: usize, from: usize, dst: &mut [u8]) -> bool {
        if from.checked_add(dst.len()).is_none_or(|end| end > self.frame_len(i)) {
            return false;
        }
        let mut at = 0;
        self.pieces(i, from, dst.len(), |start, len| {
            // SAFETY: `pieces` gives readable memory of the frame, and `dst` is none of it; the lengths add
            // up to `dst.len()`.
            unsafe { std::ptr::copy_nonoverlapping(start.as_ptr(), dst.as_mut_ptr().add(at), len) };
            at += len;
        });
        true
    }

    /// Calls `each` with every contiguous piece of bytes `from..from + len` of frame `i`, cut to the frame.
    #[inline]
    pub(crate) fn pieces(&self, i: usize, from: usize, len: usize, mut each: impl FnMut(NonNull<u8>, usize)) {
        let frame = &self.frames[i];
        let (mut skip, mut left) = (from, len);
        let mut visit = |start: NonNull<u8>, piece: usize| {
            if skip >= piece {
                skip -= piece;
            } else if left > 0 {
                let len = (piece - skip).min(left);
                // SAFETY: `skip` lies inside the piece.
                each(unsafe { start.add(skip) }, len);
                left -= len;
                skip = 0;
            }
        };
        visit(frame.head, frame.head_len as usize);
        if frame.segments > 0 {
            let first = frame.first_segment as usize;
            for segment in &self.segments[first..first + frame.segments as usize] {
                visit(segment.start, segment.len as usize);
            }
        }
    }

    /// Ends the burst: arena buffers that nobody took go back to the pool.
    #[inline]
    pub fn recycle(self, pool: &mut Pool) {
        for frame in self.frames.drain(..) {
            if let Some(buffer) = frame.buffer {
                pool.put(buffer);
            }
        }
        for segment in self.segments.drain(..) {
            if let Some(buffer) = segment.buffer {
                pool.put(buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests;
