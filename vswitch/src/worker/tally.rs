//! A tally: frames in a row to or from one remote by one overlay, which are counted together.
//!
//! Counted where the next is another's, and at the end of the burst: a burst of one flow costs the counters of a remote
//! and of its VNI no more than one frame does.

use crate::overlay::Overlays;
use crate::telemetry::counters::WorkerCounters;

/// Frames that are not counted yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    way: Way,
    remote: u16,
    overlay: u16,
    frames: u64,
    bytes: u64,
}

/// Which way the frames of a tally go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the remote.
    In,
    /// To it.
    Out,
}

/// Where a worker counts.
pub(super) struct Books<'a> {
    pub(super) worker: usize,
    pub(super) counters: &'a WorkerCounters,
    pub(super) overlays: &'a Overlays,
}

impl Tally {
    /// Of none yet.
    pub(super) fn new(way: Way) -> Tally {
        Tally { way, remote: 0, overlay: 0, frames: 0, bytes: 0 }
    }

    /// Takes a frame in.
    #[inline]
    pub(super) fn add(&mut self, (remote, overlay): (u16, u16), bytes: u64, books: Books<'_>) {
        if (self.remote, self.overlay) != (remote, overlay) {
            self.settle(books);
            (self.remote, self.overlay) = (remote, overlay);
        }
        self.frames += 1;
        self.bytes += bytes;
    }

    /// Counts what there is.
    #[inline(never)]
    pub(super) fn settle(&mut self, books: Books<'_>) {
        if self.frames == 0 {
            return;
        }
        let Books { worker, counters, overlays } = books;
        let port = counters.port(self.remote);
        let tunnel = overlays.remote(self.remote).map(|remote| remote.tunnel);
        let traffic = tunnel.and_then(|tunnel| overlays.traffic(self.overlay, tunnel)?.of(worker));
        match self.way {
            Way::In => {
                port.rx_frames.add(self.frames);
                port.rx_bytes.add(self.bytes);
                if let Some(traffic) = traffic {
                    traffic.rx_frames.add(self.frames);
                    traffic.rx_bytes.add(self.bytes);
                }
            }
            Way::Out => {
                port.tx_frames.add(self.frames);
                port.tx_bytes.add(self.bytes);
                if let Some(traffic) = traffic {
                    traffic.tx_frames.add(self.frames);
                    traffic.tx_bytes.add(self.bytes);
                }
            }
        }
        (self.frames, self.bytes) = (0, 0);
    }
}
