//! The memory that AF_XDP descriptors point into: the arena, registered with a socket.
//!
//! A UMEM is not memory of its own. It is a promise to the kernel that a range of our address space (the mapping
//! of the arena's memfd) is cut into chunks of [`CHUNK_SIZE`] bytes and stays where it is; the kernel pins its
//! pages. An address in a descriptor is an offset into that range, so the same number names the same bytes for
//! every socket, and for another process that maps the same memfd elsewhere.
//!
//! The same range may be registered any number of times. We register it once a device: the queues of a device
//! share one UMEM, and ports come and go without a thought for each other.
#![allow(unsafe_code)]

use std::mem::size_of;
use std::ptr::NonNull;

use crate::arena::Arena;

/// Bytes in a chunk: one small page. Kernels refuse more (`EINVAL`) for small pages, and 2 KB would leave a
/// zero-copy driver too little room for a full frame next to its headroom.
pub const CHUNK_SIZE: u32 = 4096;

/// Bytes that the kernel leaves free in front of a received frame, on top of the UMEM's own headroom
/// (`XDP_PACKET_HEADROOM`).
pub const KERNEL_HEADROOM: u32 = 256;

/// Bytes in front of a frame to send that may carry orders to the kernel about it ([`TransmitMetadata`]).
pub const METADATA_LENGTH: u32 = size_of::<TransmitMetadata>() as u32;

/// What the kernel reads in front of a frame whose descriptor says [`libc::XDP_TX_METADATA`]: "finish this
/// checksum". Layout of `struct xsk_tx_metadata` (`Documentation/networking/xsk-tx-metadata.rst`), Linux 6.8 on.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransmitMetadata {
    /// [`libc::XDP_TXMD_FLAGS_CHECKSUM`] or nothing.
    pub flags: u64,
    /// First byte that the checksum covers, from the frame's start.
    pub checksum_start: u16,
    /// The checksum field's place, from `checksum_start`.
    pub checksum_offset: u16,
    /// Padding of the kernel's union, and room for a launch time that we never ask for.
    pub unused: [u32; 3],
}

impl TransmitMetadata {
    /// The order to finish a partial checksum.
    pub fn checksum(start: u16, offset: u16) -> Self {
        let flags = u64::from(libc::XDP_TXMD_FLAGS_CHECKSUM);
        TransmitMetadata { flags, checksum_start: start, checksum_offset: offset, unused: [0; 3] }
    }

    /// The bytes to write right in front of the frame.
    pub fn to_bytes(self) -> [u8; METADATA_LENGTH as usize] {
        let mut bytes = [0; METADATA_LENGTH as usize];
        bytes[0..8].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.checksum_start.to_ne_bytes());
        bytes[10..12].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        bytes
    }
}

/// A range of our address space, ready to be registered. Plain values; owns nothing.
#[derive(Debug, Clone, Copy)]
pub struct Umem {
    address: NonNull<u8>,
    length: usize,
    headroom: u32,
}

// SAFETY: an address that only the kernel dereferences; every access of ours goes through the arena.
unsafe impl Send for Umem {}
// SAFETY: as above, immutable.
unsafe impl Sync for Umem {}

impl Umem {
    /// Describes `length` bytes at `address`: a page-aligned mapping that lives as long as any socket that it is
    /// registered with. `headroom` is left free in front of a received frame beyond [`KERNEL_HEADROOM`].
    ///
    /// # Safety
    /// The range must be mapped, shared and writable, and stay so until the last socket is closed: the kernel
    /// writes received frames into it.
    pub unsafe fn new(address: NonNull<u8>, length: usize, headroom: u32) -> Self {
        Umem { address, length, headroom }
    }

    /// Bytes registered, cut down to whole chunks.
    pub fn length(&self) -> usize {
        self.length - self.length % CHUNK_SIZE as usize
    }

    /// What the kernel wants to hear; `metadata` reserves the place for [`TransmitMetadata`] in front of frames.
    pub(super) fn registration(&self, metadata: bool) -> libc::xdp_umem_reg {
        // SAFETY: a structure of integers, for which zero is a value.
        let mut registration: libc::xdp_umem_reg = unsafe { std::mem::zeroed() };
        registration.addr = self.address.as_ptr() as u64;
        registration.len = self.length() as u64;
        registration.chunk_size = CHUNK_SIZE;
        registration.headroom = self.headroom;
        if metadata {
            registration.flags = libc::XDP_UMEM_TX_METADATA_LEN;
            registration.tx_metadata_len = METADATA_LENGTH;
        }
        registration
    }
}

/// The arena's whole mapping, with no headroom beyond the kernel's own.
pub(super) fn of_arena(arena: &Arena) -> Umem {
    let (address, length) = arena.mapping();
    // SAFETY: the mapping is shared and writable, and stays for as long as a frame is out of the arena: the frames
    // that the kernel may write are held by `Lent` until after the socket is closed.
    unsafe { Umem::new(address, length, 0) }
}

/// One page of anonymous memory, for a socket that is bound only to see whether it can be.
pub(super) struct ProbePage(NonNull<u8>);

impl ProbePage {
    pub(super) fn new() -> std::io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), CHUNK_SIZE as usize, access, flags, -1, 0) };
        match NonNull::new(page.cast()) {
            Some(address) if page != libc::MAP_FAILED => Ok(ProbePage(address)),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    pub(super) fn umem(&self) -> Umem {
        Umem { address: self.0, length: CHUNK_SIZE as usize, headroom: 0 }
    }
}

impl Drop for ProbePage {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, used by nobody: the probe's socket is closed.
        unsafe { libc::munmap(self.0.as_ptr().cast(), CHUNK_SIZE as usize) };
    }
}
