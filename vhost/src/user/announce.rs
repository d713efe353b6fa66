//! An rx queue that the switch itself can say something on: where a guest is now.
//!
//! After a live migration somebody has to tell the network. A guest that can, does so itself
//! (`VIRTIO_NET_F_GUEST_ANNOUNCE`); for one that cannot, the front end asks us to (SEND_RARP in vhost-user.rst). The
//! frame is received as if the guest had sent it: it is counted, learned from and forwarded like any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pmd::arena::HEADROOM;
use pmd::{Batch, Fault, Offload, Pool, RxMemory, RxQueue, Source};

use crate::event::Bell;
use crate::ring::rx::Rx;

/// Bytes of a shortest frame, without FCS.
const FRAME: usize = 60;

/// Set beside an address that is to be announced.
const WANTED: u64 = 1 << 63;

/// The address that is to be announced next, if there is one.
#[derive(Debug, Default)]
pub(super) struct Announcement(AtomicU64);

impl Announcement {
    /// Has the queue announce `mac`, soon. Two at a time become one.
    pub(super) fn ask(&self, mac: [u8; 6], bell: &Bell) {
        let [a, b, c, d, e, f] = mac;
        self.0.store(WANTED | u64::from_be_bytes([0, 0, a, b, c, d, e, f]), Ordering::Release);
        bell.ring();
    }

    #[inline]
    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn take(&self) -> Option<[u8; 6]> {
        let asked = self.0.swap(0, Ordering::Acquire);
        let [_, _, mac @ ..] = asked.to_be_bytes();
        (asked & WANTED != 0).then_some(mac)
    }
}

/// A queue over a ring, with announcements in between.
pub(super) struct AnnouncingRx {
    rx: Rx,
    announcement: Arc<Announcement>,
}

impl AnnouncingRx {
    pub(super) fn new(rx: Rx, announcement: Arc<Announcement>) -> AnnouncingRx {
        AnnouncingRx { rx, announcement }
    }
}

/// "Who has my address?", which everybody hears (RFC 903).
fn frame(mac: [u8; 6]) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    // Type RARP; Ethernet, IPv4, their lengths, request reverse.
    frame[12..22].copy_from_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    frame[22..28].copy_from_slice(&mac);
    frame[32..38].copy_from_slice(&mac);
    frame
}

impl RxQueue for AnnouncingRx {
    fn source(&self) -> Source<'_> {
        self.rx.source()
    }

    #[inline]
    fn receive<'q>(
        &'q mut self,
        memory: &'q mut RxMemory,
        pool: &mut Pool,
        limit: usize,
    ) -> Result<Batch<'q>, Fault> {
        if self.announcement.is_asked()
            && let Some(mac) = self.announcement.take()
        {
            self.rx.release(pool);
            let (mut batch, mut scratch) = memory.lend();
            let place = scratch.take(HEADROOM + FRAME);
            place[HEADROOM..].copy_from_slice(&frame(mac));
            batch.push_private(place, HEADROOM, Offload::NONE);
            return Ok(batch);
        }
        self.rx.receive(memory, pool, limit)
    }

    fn release(&mut self, pool: &mut Pool) {
        self.rx.release(pool);
    }

    fn arm(&mut self) -> bool {
        self.rx.arm() || self.announcement.is_asked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_announced_once() {
        let (announcement, bell) = (Announcement::default(), Bell::new().unwrap());
        assert!(!announcement.is_asked() && announcement.take().is_none());
        for mac in [[2, 1, 2, 3, 4, 5], [0; 6]] {
            announcement.ask(mac, &bell);
            assert!(announcement.is_asked());
            assert_eq!((announcement.take(), announcement.take()), (Some(mac), None));
        }
    }
}
