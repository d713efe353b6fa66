//! The control thread's side.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Bell, FRAME_MIN, Lane};

/// What a control thread sends to workers by, and receives from them.
pub struct LocalEnd {
    pub(super) to_switch: Arc<Lane>,
    pub(super) from_switch: Arc<Lane>,
    pub(super) worker: Bell,
    pub(super) bell: Bell,
}

impl LocalEnd {
    /// Sends a complete frame to the switch; false if there is no room for it, or if it is none.
    pub fn send(&self, frame: &[u8]) -> bool {
        let fits = (FRAME_MIN..=self.to_switch.frame_max).contains(&frame.len());
        let sent = fits && !self.to_switch.is_closed() && self.to_switch.put(|bytes| bytes.extend(frame));
        if sent {
            self.worker.ring();
        } else {
            self.to_switch.missed.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Replaces what is in `frame` by the next frame from the switch; false if there is none now.
    pub fn receive(&self, frame: &mut Vec<u8>) -> bool {
        self.from_switch.take(|bytes| {
            frame.clear();
            frame.extend_from_slice(bytes);
        })
    }

    /// Whether there are frames from the switch.
    pub fn has_frames(&self) -> bool {
        !self.from_switch.full.is_empty()
    }

    /// Whether the port is gone, so that no frame passes any more.
    pub fn is_closed(&self) -> bool {
        self.to_switch.is_closed()
    }

    /// Sleeps until there are frames from the switch, somebody rings the bell, or the time is over.
    pub fn wait(&self, timeout: Duration) {
        self.bell.wait(timeout, || self.has_frames());
    }
}

impl Drop for LocalEnd {
    fn drop(&mut self) {
        self.from_switch.closed.store(true, Ordering::Relaxed);
    }
}
