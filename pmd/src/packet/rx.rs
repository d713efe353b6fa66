#![allow(unsafe_code)]
//! Receiving from packet sockets: frames of ordinary size out of the rx ring, longer ones by `recvmmsg`, both
//! into the worker's scratch memory, in the order of the ring.
//!
//! Of a longer frame every message gets a place for the largest, since nobody knows what comes; those that turn
//! out short are then moved together, so that many of them fit. The virtio-net header lands in the headroom
//! right before the frame. The VLAN tag that the kernel took out stands in the ring, and is put back.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::ring::{Arrived, Content, Ring, TAG};
use crate::arena::HEADROOM;
use crate::batch::{BATCH, Batch, MAX_FRAME, Refused, RxMemory, Scratch};
use crate::pool::Pool;
use crate::port::{Fault, RxQueue, Source};
use crate::virtio::{self, SHORT_HEADER as HEADER};

/// A place in scratch memory: headroom and the largest frame, whole cache lines.
const PLACE: usize = (HEADROOM + MAX_FRAME).next_multiple_of(64);
/// Messages of one call: as many places as scratch memory has.
const CALL: usize = 7;
/// Up to this length moving a frame is cheaper than the memory that it would waste.
const SMALL: usize = 4096;
/// What the least Ethernet frame has: addresses and a type.
const FRAME_MIN: usize = 14;
/// The ring tells of frames and of nothing else; so many times empty, the socket is asked how it does.
const QUIET: u32 = 256;

pub(super) struct Rx {
    socket: Arc<OwnedFd>,
    ring: Ring,
    messages: [MaybeUninit<libc::mmsghdr>; CALL],
    vectors: [MaybeUninit<libc::iovec>; CALL],
    /// How often in a row the ring was empty.
    quiet: u32,
    missed: Cell<u64>,
    /// What `missed` was at the last check.
    missed_before: u64,
    /// Whether the ring had a frame since the last check.
    had_frames: bool,
}

// SAFETY: the pointers in `messages` and `vectors` are written anew and used within one `receive` only.
unsafe impl Send for Rx {}

/// What came with a frame.
#[derive(Clone, Copy, Default)]
struct Arrival {
    /// Bytes read, header included.
    read: usize,
    /// The frame did not fit.
    cut: bool,
    /// Type and value of the VLAN tag that was taken out.
    tag: Option<[u8; TAG]>,
}

impl Rx {
    pub(super) fn new(socket: Arc<OwnedFd>, ring: Ring) -> Rx {
        Rx {
            socket,
            ring,
            messages: [const { MaybeUninit::uninit() }; CALL],
            vectors: [const { MaybeUninit::uninit() }; CALL],
            quiet: 0,
            missed: Cell::new(0),
            missed_before: 0,
            had_frames: false,
        }
    }

    /// Reads up to `count` frames, of which the ring's next slots tell, into the first places of `memory`, and
    /// releases the slots; how many. One that the kernel drops instead is counted as refused.
    fn read(
        &mut self,
        memory: &mut [u8],
        count: usize,
        arrivals: &mut [Arrival; CALL],
        refused: &mut Refused,
    ) -> Result<usize, Fault> {
        let count = count.min(CALL).min(memory.len() / PLACE);
        for (i, place) in memory.chunks_exact_mut(PLACE).take(count).enumerate() {
            let into = &mut place[HEADROOM - HEADER..];
            let vector = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
            let vector: *mut libc::iovec = self.vectors[i].write(vector);
            // SAFETY: all zeros is a valid message.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            self.messages[i].write(message);
        }
        let (fd, messages) = (self.socket.as_raw_fd(), self.messages.as_mut_ptr().cast());
        // SAFETY: the first `count` messages were just written; their pieces are exclusively ours and outlive
        // the call.
        let got = unsafe {
            libc::recvmmsg(fd, messages, count as u32, libc::MSG_DONTWAIT as _, std::ptr::null_mut())
        };
        if got < 0 {
            return self.no_frames(io::Error::last_os_error(), refused);
        }
        for (message, arrival) in self.messages.iter().zip(arrivals).take(got as usize) {
            // SAFETY: the kernel filled this message in.
            let message = unsafe { message.assume_init_ref() };
            arrival.read = message.msg_len as usize;
            arrival.cut = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            self.ring.release();
        }
        Ok(got as usize)
    }

    /// What a refused read means: nothing there, a device set down (which may come up again), or one gone.
    fn no_frames(&mut self, cause: io::Error, refused: &mut Refused) -> Result<usize, Fault> {
        match cause.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(0),
            // A train of a kind that the header has no word for; the kernel has dropped it.
            Some(libc::EINVAL) => {
                refused.failed += 1;
                self.ring.release();
                Ok(0)
            }
            Some(libc::ENETDOWN) if self.is_bound() => Ok(0),
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => {
                Err(Fault::new("recvmmsg: the device was deleted"))
            }
            _ => Err(Fault::new(format!("recvmmsg: {cause}"))),
        }
    }

    /// Whether the socket still has its device; the kernel unbinds it when the device goes.
    fn is_bound(&self) -> bool {
        let mut address = MaybeUninit::<libc::sockaddr_ll>::zeroed();
        let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: writes at most `length` bytes to `address`, for which all zeros is valid.
        unsafe {
            let outcome =
                libc::getsockname(self.socket.as_raw_fd(), address.as_mut_ptr().cast(), &mut length);
            outcome == 0 && address.assume_init().sll_ifindex > 0
        }
    }

    /// Takes the frames that wait in the socket's queue, as many as the next slots tell of, and as there is
    /// room and leave for; how many.
    fn receive_queued<'q>(
        &mut self,
        batch: &mut Batch<'q>,
        scratch: &mut Scratch<'q>,
        left: usize,
    ) -> Result<usize, Fault> {
        let places = (scratch.rest().len() / PLACE).min(CALL).min(left);
        let mut arrivals = [Arrival::default(); CALL];
        let mut count = 0;
        while count < places
            && let Some(Arrived { content: Content::Queued, tag }) = self.ring.peek(count)
        {
            arrivals[count].tag = tag;
            count += 1;
        }
        let got = self.read(scratch.rest(), count, &mut arrivals, batch.refused_mut())?;
        Rx::push(batch, scratch, &arrivals[..got]);
        Ok(got)
    }

    /// A slot whose frame is nowhere.
    #[cold]
    fn lose(&mut self) {
        self.had_frames = true;
        self.missed.set(self.missed.get() + 1);
        self.ring.release();
    }

    /// The ring is empty. It says nothing of a device that is gone, so now and then the socket is asked; asking
    /// also makes a socket whose device was set down quiet again.
    #[inline]
    fn look(&mut self, refused: &mut Refused) -> Result<(), Fault> {
        self.quiet = self.quiet.wrapping_add(1);
        if !self.quiet.is_multiple_of(QUIET) {
            return Ok(());
        }
        match socket_error(self.socket.as_fd())? {
            0 => Ok(()),
            code => self.no_frames(io::Error::from_raw_os_error(code), refused).map(|_| ()),
        }
    }

    /// Moves small frames together and takes all of them out of scratch memory and into the batch.
    fn push<'q>(batch: &mut Batch<'q>, scratch: &mut Scratch<'q>, arrivals: &[Arrival]) {
        let mut behind = 0; // bytes already taken of the memory that the places began with
        for (i, arrival) in arrivals.iter().enumerate() {
            let Some(len) = arrival.read.checked_sub(HEADER).filter(|len| *len >= FRAME_MIN && !arrival.cut)
            else {
                batch.refused_mut().too_long += 1;
                continue;
            };
            let gap = i * PLACE - behind;
            if gap > 0 && len <= SMALL {
                let bytes = HEADROOM - HEADER..HEADROOM + len;
                scratch.rest().copy_within(gap + bytes.start..gap + bytes.end, bytes.start);
            } else {
                behind += gap;
                scratch.take(gap);
            }
            let frame = scratch.take(HEADROOM + len);
            behind += (HEADROOM + len).next_multiple_of(64);
            push_frame(batch, frame, arrival.tag);
        }
    }
}

/// Takes the error that waits on a socket, 0 if none does.
fn socket_error(socket: BorrowedFd<'_>) -> Result<libc::c_int, Fault> {
    let mut code: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: writes at most `length` bytes to `code`.
    let outcome = unsafe {
        let value = (&raw mut code).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, value, &mut length)
    };
    match outcome {
        0 => Ok(code),
        _ => Err(Fault::new(format!("getsockopt(SO_ERROR): {}", io::Error::last_os_error()))),
    }
}

/// Copies a frame with its header out of the ring, if there is room.
#[inline]
fn copy<'q>(bytes: &[u8], scratch: &mut Scratch<'q>) -> Option<&'q mut [u8]> {
    let len = HEADROOM - HEADER + bytes.len();
    if scratch.rest().len() < len {
        return None;
    }
    let frame = scratch.take(len);
    frame[HEADROOM - HEADER..].copy_from_slice(bytes);
    Some(frame)
}

/// Reads the header before the frame, puts the VLAN tag back, adds the frame to the batch.
fn push_frame<'q>(batch: &mut Batch<'q>, frame: &'q mut [u8], tag: Option<[u8; TAG]>) {
    let Some(len) = frame.len().checked_sub(HEADROOM).filter(|len| *len >= FRAME_MIN) else {
        batch.refused_mut().too_long += 1;
        return;
    };
    let Ok(offload) = virtio::decode(&frame[HEADROOM - HEADER..HEADROOM], len) else {
        batch.refused_mut().bad_offload += 1;
        return;
    };
    let Some(tag) = tag else { return batch.push_private(frame, HEADROOM, offload) };
    // The header's positions count from the frame without its tag.
    let Some(offload) = offload.shifted(TAG as i32) else {
        batch.refused_mut().bad_offload += 1;
        return;
    };
    frame.copy_within(HEADROOM..HEADROOM + 12, HEADROOM - TAG);
    frame[HEADROOM + 12 - TAG..HEADROOM + 12].copy_from_slice(&tag);
    batch.push_private(frame, HEADROOM - TAG, offload);
}

impl RxQueue for Rx {
    fn source(&self) -> Source<'_> {
        Source::Descriptor(self.socket.as_fd())
    }

    fn receive<'q>(
        &'q mut self,
        memory: &'q mut RxMemory,
        _pool: &mut Pool,
        limit: usize,
    ) -> Result<Batch<'q>, Fault> {
        let (mut batch, mut scratch) = memory.lend();
        let limit = limit.min(BATCH);
        let mut left = limit;
        while left > 0 {
            let Some(Arrived { content, tag }) = self.ring.peek(0) else { break };
            let taken = match content {
                Content::Here(bytes) => {
                    let Some(frame) = copy(bytes, &mut scratch) else { break };
                    self.ring.release();
                    push_frame(&mut batch, frame, tag);
                    1
                }
                Content::Lost => {
                    self.lose();
                    continue;
                }
                Content::Queued => match self.receive_queued(&mut batch, &mut scratch, left) {
                    Ok(0) => break,
                    Ok(taken) => taken,
                    // What was read before the fault is still handed up; the next call meets the fault again.
                    Err(_) if !batch.is_blank() => break,
                    Err(fault) => return Err(fault),
                },
            };
            left -= taken;
        }
        if left < limit {
            (self.quiet, self.had_frames) = (0, true);
        } else {
            self.look(batch.refused_mut())?;
        }
        Ok(batch)
    }

    /// A frame of a kind that the virtio-net header has no word for (UFO, a train of SCTP) leaves its slot for ever
    /// neither the kernel's nor ours, and the kernel drops all that come after it. No other ring drops while it is
    /// empty.
    fn check(&mut self) -> Result<(), Fault> {
        let missed = self.missed();
        let dropped = std::mem::replace(&mut self.missed_before, missed) < missed;
        let had_frames = std::mem::take(&mut self.had_frames);
        if dropped && !had_frames && self.ring.peek(0).is_none() {
            return Err(Fault::new(
                "the kernel's ring is stuck behind a frame that has no virtio-net header (UFO, an SCTP train)",
            ));
        }
        Ok(())
    }

    fn missed(&self) -> u64 {
        let mut counts = MaybeUninit::<libc::tpacket_stats>::zeroed();
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: writes at most `length` bytes to `counts`, for which all zeros is valid. The kernel starts
        // counting anew at each reading.
        unsafe {
            let (fd, value) = (self.socket.as_raw_fd(), counts.as_mut_ptr().cast());
            if libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, value, &mut length) == 0 {
                self.missed.set(self.missed.get() + u64::from(counts.assume_init().tp_drops));
            }
        }
        self.missed.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::{Checksum, Offload};

    /// Fills places as the kernel would: a header, then bytes that tell the frame.
    fn arrive(scratch: &mut Scratch<'_>, lengths: &[usize]) -> Vec<Arrival> {
        let header = virtio::encode(
            &Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, ..Offload::NONE },
            &[],
            64,
        );
        for (i, (place, len)) in scratch.rest().chunks_exact_mut(PLACE).zip(lengths).enumerate() {
            place[HEADROOM - HEADER..HEADROOM].copy_from_slice(&header[..HEADER]);
            place[HEADROOM..HEADROOM + len].fill(i as u8 + 1);
        }
        lengths.iter().map(|len| Arrival { read: HEADER + len, cut: false, tag: None }).collect()
    }

    #[test]
    fn frames_of_all_sizes_are_moved_together_unharmed() {
        let cases: [&[usize]; 5] = [
            &[60; 7],
            &[1514, 60, 60_000, 60, 5000, 100, 64],
            &[MAX_FRAME; 7],
            &[SMALL, SMALL + 1, SMALL, MAX_FRAME, 64, 1514, 60],
            &[65_000, 60, 60],
        ];
        for lengths in cases {
            let mut memory = RxMemory::new();
            let (mut batch, mut scratch) = memory.lend();
            let arrivals = arrive(&mut scratch, lengths);
            Rx::push(&mut batch, &mut scratch, &arrivals);
            assert_eq!(batch.len(), lengths.len());
            for (i, len) in lengths.iter().enumerate() {
                assert_eq!(batch.head(i).len(), *len, "{lengths:?}");
                assert!(batch.head(i).iter().all(|byte| *byte == i as u8 + 1), "frame {i} of {lengths:?}");
                assert_eq!(batch.offload(i).checksum, Checksum::Partial { start: 34, offset: 6 });
            }
        }
    }

    #[test]
    fn small_frames_leave_room_for_many_more() {
        let mut memory = RxMemory::new();
        let (mut batch, mut scratch) = memory.lend();
        while !batch.is_full() {
            let arrivals = arrive(&mut scratch, &[1514; CALL][..CALL.min(BATCH - batch.len())]);
            Rx::push(&mut batch, &mut scratch, &arrivals);
        }
        assert_eq!(batch.len(), BATCH);
    }

    #[test]
    fn cut_short_and_contradicting_frames_are_refused_and_the_others_kept() {
        let mut memory = RxMemory::new();
        let (mut batch, mut scratch) = memory.lend();
        let mut arrivals = arrive(&mut scratch, &[60, 100, 60, 60, 60]);
        arrivals[0].cut = true;
        arrivals[2].read = HEADER + 13;
        arrivals[3].read = 5;
        scratch.rest()[4 * PLACE + HEADROOM - HEADER + 6] = 0; // the checksum starts in the Ethernet header
        Rx::push(&mut batch, &mut scratch, &arrivals);
        assert_eq!((batch.len(), batch.head(0).len(), batch.head(0)[99]), (1, 100, 2));
        assert_eq!((batch.refused().too_long, batch.refused().bad_offload), (3, 1));
    }

    #[test]
    fn a_tag_is_put_back_and_positions_move_with_it() {
        let mut memory = RxMemory::new();
        let (mut batch, mut scratch) = memory.lend();
        let mut arrivals = arrive(&mut scratch, &[60, 60]);
        arrivals[1].tag = Some([0x88, 0xa8, 0x60, 7]);
        Rx::push(&mut batch, &mut scratch, &arrivals);
        let tagged = batch.head(1);
        assert_eq!((tagged.len(), &tagged[11..18]), (64, &[2, 0x88, 0xa8, 0x60, 7, 2, 2][..]));
        assert_eq!(batch.offload(1).checksum, Checksum::Partial { start: 38, offset: 6 });
        assert_eq!(batch.head(0).len(), 60);
    }
}
