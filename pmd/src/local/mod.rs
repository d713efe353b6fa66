//! `local`: a port at which the switch itself sits, for what it says and hears as a station of a network.
//!
//! Workers have the [`LocalPort`], like any other; a control thread holds the [`LocalEnd`] and plays the machine at
//! the other side. Between them are two bounded lanes of copied frames. Neither side waits for the other: a lane is
//! two queues without locks, of frames that are under way and of empty ones, so that a control thread that is stuck
//! in the middle of a frame holds that one frame and nothing that a worker needs. A full lane drops and counts.
//!
//! Each side sleeps on a [`Bell`] of its own, which costs the one who rings a system call only if somebody sleeps.
//! All ends that one thread holds share its bell.
//!
//! A lane's memory is allocated at opening. Nothing here is fast, as a copy and some atomic operations per frame
//! are; what passes is ARP, pings and the like.

mod bell;
mod end;
mod open;
mod rx;
mod tx;

pub use bell::Bell;
pub use end::LocalEnd;
pub use open::{LocalPort, Settings, open};

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;

/// What the least Ethernet frame has: addresses and a type.
const FRAME_MIN: usize = 14;

/// What a frame has beside its network packet at most: an Ethernet header and two VLAN tags.
const LINK_HEADER: usize = 22;

/// One direction: frames under way and empty ones, of a fixed number altogether.
struct Lane {
    full: ArrayQueue<Vec<u8>>,
    empty: ArrayQueue<Vec<u8>>,
    frame_max: usize,
    /// Whoever receives from it is gone.
    closed: AtomicBool,
    /// Frames that there was no room for.
    missed: AtomicU64,
}

impl Lane {
    fn new(frames: usize, mtu: u32) -> Lane {
        let (frames, frame_max) = (frames.max(1), mtu as usize + LINK_HEADER);
        let lane = Lane {
            full: ArrayQueue::new(frames),
            empty: ArrayQueue::new(frames),
            frame_max,
            closed: AtomicBool::new(false),
            missed: AtomicU64::new(0),
        };
        while lane.empty.push(Vec::with_capacity(frame_max)).is_ok() {}
        lane
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Puts a frame on its way that `write` writes into an empty one; false if there is none.
    fn put(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(mut frame) = self.empty.pop() else { return false };
        frame.clear();
        write(&mut frame);
        // There are no more frames than either queue has room for.
        self.full.push(frame).is_ok()
    }

    /// Takes the next frame, for `read` to copy; false if there is none.
    fn take(&self, read: impl FnOnce(&[u8])) -> bool {
        let Some(frame) = self.full.pop() else { return false };
        read(&frame);
        self.empty.push(frame).is_ok()
    }
}
