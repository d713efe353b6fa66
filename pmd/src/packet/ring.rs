//! The rx ring of a packet socket: frames of ordinary size, in memory that the kernel writes and we read.
//!
//! The kernel copies a frame that fits a slot into it, on the sender's core and with no call of ours. Of a
//! longer one (a train, a jumbo frame) the slot holds only the beginning, and says that the whole frame waits
//! in the socket's queue; both are first in, first out. So asking for frames costs one load, and 64 KB are
//! still copied once. Called by `rx.rs`; knows no frames, only bytes.
//!
//! A slot: `struct tpacket2_hdr`, then, at `tp_mac`, the frame, with its virtio-net header right before it.
//! Its status word says whose the slot is. See the kernel's `Documentation/networking/packet_mmap.rst`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::virtio::SHORT_HEADER;

/// Bytes of a slot: what precedes a frame (at most 100 bytes), and one of 1500 bytes of IP.
const SLOT: usize = 2048;
/// Slots of a ring: 4 MB of kernel memory for each queue, and bursts of some milliseconds, in which the worker may not
/// have had its core, are kept.
const SLOTS: usize = 2048;
/// Bytes that the kernel allocates together.
const BLOCK: usize = 64 << 10;
/// Bytes of a VLAN tag.
pub(super) const TAG: usize = 4;

/// What is asked of the kernel (`PACKET_RX_RING`).
pub(super) fn request() -> libc::tpacket_req {
    libc::tpacket_req {
        tp_block_size: BLOCK as u32,
        tp_block_nr: (SLOT * SLOTS / BLOCK) as u32,
        tp_frame_size: SLOT as u32,
        tp_frame_nr: SLOTS as u32,
    }
}

/// A mapped ring, read from the front.
#[derive(Debug)]
pub(super) struct Ring {
    base: NonNull<u8>,
    /// The slot that is read next.
    at: usize,
}

// SAFETY: the mapping belongs to this value alone and to no thread.
unsafe impl Send for Ring {}

/// What a slot holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrived<'r> {
    pub(super) content: Content<'r>,
    /// Type and value of the VLAN tag that the kernel took out of the frame.
    pub(super) tag: Option<[u8; TAG]>,
}

/// Where a frame is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content<'r> {
    /// Here, its virtio-net header in front.
    Here(&'r [u8]),
    /// In the socket's queue.
    Queued,
    /// Nowhere: the socket's queue was full.
    Lost,
}

impl Ring {
    /// Maps the ring that a socket was given by [`request`]; nothing of it has been read.
    ///
    /// # Errors
    /// `mmap` failed.
    pub(super) fn map(socket: impl AsFd) -> io::Result<Ring> {
        let (all, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a fresh mapping; the kernel refuses a length that is not the ring's.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), SLOT * SLOTS, all, flags, socket.as_fd().as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        Ok(Ring { base, at: 0 })
    }

    /// The `ahead`th slot from the front, if the kernel has filled it.
    #[inline]
    pub(super) fn peek(&self, ahead: usize) -> Option<Arrived<'_>> {
        let slot = self.slot(ahead);
        let status = status_of(slot).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the slot is ours until it is released, which borrows the ring exclusively; the kernel has
        // written its header.
        let header: &libc::tpacket2_hdr = unsafe { slot.cast().as_ref() };
        let content = if status & libc::TP_STATUS_COPY != 0 {
            Content::Queued
        } else if header.tp_snaplen < header.tp_len {
            Content::Lost
        } else {
            let start = usize::from(header.tp_mac).saturating_sub(SHORT_HEADER);
            let end = (usize::from(header.tp_mac) + header.tp_snaplen as usize).min(SLOT);
            // SAFETY: within the slot, which is ours.
            Content::Here(unsafe {
                std::slice::from_raw_parts(slot.as_ptr().add(start), end.saturating_sub(start))
            })
        };
        Some(Arrived { content, tag: tag_of(status, header.tp_vlan_tci, header.tp_vlan_tpid) })
    }

    /// Gives the front slot back to the kernel.
    #[inline]
    pub(super) fn release(&mut self) {
        status_of(self.slot(0)).store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.at = (self.at + 1) % SLOTS;
    }

    #[inline]
    fn slot(&self, ahead: usize) -> NonNull<u8> {
        // SAFETY: a number below `SLOTS`, so within the mapping.
        unsafe { self.base.add((self.at + ahead) % SLOTS * SLOT) }
    }
}

/// The status word of a slot, which both sides write.
#[inline]
fn status_of<'r>(slot: NonNull<u8>) -> &'r AtomicU32 {
    // SAFETY: a slot begins with its status, a word aligned by the slot's size, mapped while the ring lives; the
    // callers are its methods.
    unsafe { slot.cast().as_ref() }
}

/// The VLAN tag beside a frame, as it stands in one.
fn tag_of(status: u32, value: u16, kind: u16) -> Option<[u8; TAG]> {
    if status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let kind = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { kind } else { 0x8100 };
    let ([a, b], [c, d]) = (kind.to_be_bytes(), value.to_be_bytes());
    Some([a, b, c, d])
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nothing borrows it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), SLOT * SLOTS) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_stands_beside_the_frame_only_if_the_kernel_says_so() {
        let (valid, known) = (libc::TP_STATUS_VLAN_VALID, libc::TP_STATUS_VLAN_TPID_VALID);
        assert_eq!(tag_of(libc::TP_STATUS_USER, 0x6007, 0x88a8), None);
        assert_eq!(tag_of(valid, 0x6007, 0x88a8), Some([0x81, 0, 0x60, 7]));
        assert_eq!(tag_of(valid | known, 0x6007, 0x88a8), Some([0x88, 0xa8, 0x60, 7]));
    }
}
