//! The arena: the memory that frames live in.
//!
//! One memfd, mapped once, cut into frames of [`FRAME_SIZE`] bytes; AF_XDP registers the very same
//! mapping as its UMEM, and another process that is given the descriptor can map it again. The arena
//! knows which frames are at home (in nobody's hands); [`Pool`](crate::pool::Pool) is a worker's
//! private share of them, and [`Buffer`] is the one owner of a frame that is in use. Safe code can
//! neither free a buffer twice nor have two of the same frame: a `Buffer` is not `Clone`, and only a
//! driver (in an unsafe block that says why) turns a frame index that the kernel gave back into one.
//!
//! Complications: a `Buffer` does not count references to the arena, since that would cost an atomic
//! operation a frame. Instead the mapping is only given back when every frame is at home at the
//! moment that the last `Arena` and `Pool` are dropped; otherwise it is left mapped for ever, so a
//! buffer's pointer never dangles.
//!
//! Thread safety: frames move between workers and the arena in groups through a lock-free queue; odd
//! ones (a dropped buffer, the rest of a pool) go through a mutex on a path that no steady traffic takes.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

/// Bytes of one frame of the arena: the chunk size of AF_XDP (Documentation/networking/af_xdp.rst).
/// A longer frame (jumbo, GSO) is a chain of buffers.
pub const FRAME_SIZE: usize = 4096;

/// Bytes kept free in front of a frame's data, for encapsulation. The kernel leaves as much in front
/// of what it puts into a UMEM chunk (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;

/// Frames that travel between a pool and the arena at a time.
pub(crate) const GROUP: usize = 32;

const HUGE_PAGE: usize = 2 << 20;

/// The number of a frame in its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameIndex(pub u32);

/// Whether the arena lies on 2 MB pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// On huge pages if enough are reserved, else on small ones.
    #[default]
    Auto,
    /// On huge pages or not at all.
    On,
    /// On small pages.
    Off,
}

/// Why there is no arena.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// Fewer frames than one group, or more than an index can number.
    #[error("an arena of {0} frames: it holds between {GROUP} and {max} (set `[limits] frames`)", max = u32::MAX / 2)]
    Size(u32),
    /// Huge pages are demanded and not there.
    #[error(
        "{need} huge pages of 2 MB are needed for the arena and could not be had ({error}): reserve them with \
         `echo {need} > /proc/sys/vm/nr_hugepages`, or set `huge_pages = \"auto\"`"
    )]
    HugePages {
        /// Pages of 2 MB.
        need: usize,
        /// What the kernel said.
        error: io::Error,
    },
    /// A system call failed.
    #[error("{call} for an arena of {bytes} bytes: {error}; lower `[limits] frames` or free memory")]
    System {
        /// The call.
        call: &'static str,
        /// Its size.
        bytes: usize,
        /// What the kernel said.
        error: io::Error,
    },
}

/// The state behind [`Arena`], `Pool` and `Buffer`.
pub(crate) struct Inner {
    memory: NonNull<u8>,
    bytes: usize,
    page_size: usize,
    frames: u32,
    file: File,
    pub(crate) groups: ArrayQueue<[FrameIndex; GROUP]>,
    strays: Mutex<Vec<FrameIndex>>,
    /// How many frames each living pool holds, published by its owner.
    pub(crate) pools: Mutex<Vec<Arc<CachePadded<AtomicU32>>>>,
}

// SAFETY: the mapping is plain memory that stays where it is; who may touch which frame of it is
// decided by the ownership of `Buffer`s, and all other fields are themselves `Sync`.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Inner {
    pub(crate) fn strays(&self) -> MutexGuard<'_, Vec<FrameIndex>> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn take_home(&self, index: FrameIndex) {
        self.strays().push(index);
    }

    fn at_home(&self) -> usize {
        self.groups.len() * GROUP + self.strays().len()
    }

    #[inline]
    fn frame(&self, index: FrameIndex) -> NonNull<u8> {
        debug_assert!(index.0 < self.frames);
        // SAFETY: every index in circulation is below `frames`, and the mapping holds that many.
        unsafe { self.memory.add(index.0 as usize * FRAME_SIZE) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this address and length, and no frame is out.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}

/// Gives the arena's memory back when the last handle goes, unless a frame is still out.
pub(crate) struct Owner {
    inner: ManuallyDrop<Box<Inner>>,
}

impl Owner {
    #[inline]
    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.inner.at_home() == self.inner.frames as usize {
            // SAFETY: dropped once, here; no `Buffer` is left that could point into it.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
    }
}

/// A handle on the memory of frames; cheap to clone.
#[derive(Clone)]
pub struct Arena {
    pub(crate) owner: Arc<Owner>,
}

impl Arena {
    /// Makes an arena of `frames` frames, rounded up to whole groups of 32 (and to whole pages).
    ///
    /// # Errors
    /// No memory, no huge pages where they are demanded, an absurd size.
    pub fn new(frames: u32, huge: HugePages) -> Result<Arena, ArenaError> {
        if frames < GROUP as u32 || frames > u32::MAX / 2 {
            return Err(ArenaError::Size(frames));
        }
        let frames = frames.next_multiple_of((HUGE_PAGE / FRAME_SIZE) as u32);
        let bytes = frames as usize * FRAME_SIZE;
        let (file, memory, page_size) = match huge {
            HugePages::Off => map(bytes, false)?,
            HugePages::On => map(bytes, true)
                .map_err(|error| ArenaError::HugePages { need: bytes / HUGE_PAGE, error: error.into() })?,
            HugePages::Auto => map(bytes, true).or_else(|_| map(bytes, false))?,
        };
        let groups = ArrayQueue::new(frames as usize / GROUP + 1);
        for first in (0..frames).step_by(GROUP) {
            let group = std::array::from_fn(|i| FrameIndex(first + i as u32));
            let _ = groups.push(group);
        }
        let inner = Inner {
            memory,
            bytes,
            page_size,
            frames,
            file,
            groups,
            strays: Mutex::new(Vec::with_capacity(frames as usize)),
            pools: Mutex::default(),
        };
        Ok(Arena { owner: Arc::new(Owner { inner: ManuallyDrop::new(Box::new(inner)) }) })
    }

    fn inner(&self) -> &Inner {
        self.owner.inner()
    }

    /// The memfd behind the memory.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inner().file.as_fd()
    }

    /// Address and length in bytes of the mapping, for registering it with the kernel (`XDP_UMEM_REG`).
    pub fn mapping(&self) -> (NonNull<u8>, usize) {
        (self.inner().memory, self.inner().bytes)
    }

    /// Bytes of a page that the arena lies on: 4096 or 2 MB.
    pub fn page_size(&self) -> usize {
        self.inner().page_size
    }

    /// How many frames there are.
    pub fn frames(&self) -> u32 {
        self.inner().frames
    }

    /// How many frames are in nobody's hands: at home in the arena or in a pool. Exact when no worker is
    /// in the middle of a burst.
    pub fn free(&self) -> u32 {
        let pools = self.inner().pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pooled: u32 = pools.iter().map(|held| held.load(Ordering::Relaxed)).sum();
        self.inner().at_home() as u32 + pooled
    }

    /// Turns a frame that the kernel gave back into a buffer.
    ///
    /// # Safety
    /// The caller owns frame `index` of this arena: it came out of [`Buffer::into_index`] and has been
    /// turned back into a buffer by nobody since, and nobody (the kernel, another process) writes it any more.
    #[inline]
    pub unsafe fn reclaim(&self, index: FrameIndex) -> Buffer {
        Buffer { inner: NonNull::from(self.inner()), index, offset: HEADROOM as u16, len: 0 }
    }
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arena({} frames on pages of {} bytes)", self.frames(), self.page_size())
    }
}

impl From<ArenaError> for io::Error {
    fn from(error: ArenaError) -> io::Error {
        match error {
            ArenaError::System { error, .. } | ArenaError::HugePages { error, .. } => error,
            ArenaError::Size(_) => io::Error::from(io::ErrorKind::InvalidInput),
        }
    }
}

/// Makes and maps the memfd. Huge pages are faulted in here, so that a lack of them shows as an error
/// and not as a SIGBUS later.
fn map(bytes: usize, huge: bool) -> Result<(File, NonNull<u8>, usize), ArenaError> {
    let system = |call| ArenaError::System { call, bytes, error: io::Error::last_os_error() };
    let huge_flag = if huge { libc::MFD_HUGETLB | libc::MFD_HUGE_2MB } else { 0 };
    // SAFETY: the name is a C string, the flags are flags; a new descriptor comes back or -1.
    let fd = unsafe { libc::memfd_create(c"vswitch-arena".as_ptr(), libc::MFD_CLOEXEC | huge_flag) };
    if fd < 0 {
        return Err(system("memfd_create"));
    }
    // SAFETY: the descriptor is new and ours alone.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(bytes as u64).map_err(|error| ArenaError::System { call: "ftruncate", bytes, error })?;
    let flags = libc::MAP_SHARED | if huge { libc::MAP_POPULATE } else { 0 };
    // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            file.as_raw_fd(),
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(system("mmap"));
    }
    let memory = NonNull::new(memory.cast::<u8>()).ok_or_else(|| system("mmap"))?;
    Ok((file, memory, if huge { HUGE_PAGE } else { 4096 }))
}

/// The owner of one frame of the arena, and of the bytes `offset..offset + len` of it as its data.
///
/// A buffer that is dropped finds its way home by itself, slowly; [`Pool::put`](crate::pool::Pool::put)
/// is the fast way.
pub struct Buffer {
    inner: NonNull<Inner>,
    index: FrameIndex,
    offset: u16,
    len: u16,
}

// SAFETY: a buffer is the only way to its frame, and `Inner` may be used from every thread.
unsafe impl Send for Buffer {}

impl Buffer {
    /// The frame's number.
    #[inline]
    pub fn index(&self) -> FrameIndex {
        self.index
    }

    /// Where the data begins in the arena, in bytes: the address of an AF_XDP descriptor.
    #[inline]
    pub fn address(&self) -> u64 {
        self.index.0 as u64 * FRAME_SIZE as u64 + u64::from(self.offset)
    }

    /// Bytes of data.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no data.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Free bytes before the data.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.offset as usize
    }

    /// Says where the data lies: `offset..offset + len` of the frame, cut to what the frame has.
    #[inline]
    pub fn set_data(&mut self, offset: usize, len: usize) {
        let offset = offset.min(FRAME_SIZE);
        self.offset = offset as u16;
        self.len = len.min(FRAME_SIZE - offset) as u16;
    }

    /// [`set_data`](Self::set_data) for a place that is known to be inside the frame.
    #[inline]
    pub(crate) fn set_known_data(&mut self, offset: u32, len: u32) {
        debug_assert!(offset as usize + len as usize <= FRAME_SIZE);
        (self.offset, self.len) = (offset as u16, len as u16);
    }

    #[inline]
    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        // SAFETY: the arena outlives its buffers (module comment), and `offset <= FRAME_SIZE`.
        unsafe { self.inner.as_ref().frame(self.index).add(self.offset as usize) }
    }

    /// The data.
    #[inline]
    pub fn data(&self) -> &[u8] {
        // SAFETY: this buffer owns the frame, and `offset + len <= FRAME_SIZE`.
        unsafe { std::slice::from_raw_parts(self.as_ptr().as_ptr(), self.len as usize) }
    }

    /// The data, to write.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr().as_ptr(), self.len as usize) }
    }

    /// Gives the frame into other hands (the kernel's), who keep track of it by its number.
    #[inline]
    pub fn into_index(self) -> FrameIndex {
        let index = self.index;
        std::mem::forget(self);
        index
    }

    pub(crate) fn belongs_to(&self, inner: &Inner) -> bool {
        std::ptr::eq(self.inner.as_ptr(), inner)
    }
}

impl Drop for Buffer {
    // In place and by value: a buffer whose address nobody takes moves in registers.
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the arena outlives its buffers (module comment).
        unsafe { self.inner.as_ref() }.take_home(self.index);
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} at {} + {})", self.index.0, self.offset, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_comes_home() {
        let arena = Arena::new(64, HugePages::Off).unwrap();
        let total = arena.free();
        let mut pool = arena.pool();
        let buffer = pool.get().unwrap();
        assert_eq!(arena.free(), total - 1);
        drop(buffer);
        assert_eq!(arena.free(), total);
    }

    #[test]
    fn a_buffer_outlives_the_arena() {
        let arena = Arena::new(64, HugePages::Off).unwrap();
        let mut buffer = arena.pool().get().unwrap();
        drop(arena);
        buffer.set_data(HEADROOM, 8);
        buffer.data_mut().copy_from_slice(b"still me");
        assert_eq!(buffer.data(), b"still me");
    }

    #[test]
    fn data_never_leaves_the_frame() {
        let arena = Arena::new(64, HugePages::Off).unwrap();
        let mut buffer = arena.pool().get().unwrap();
        for (offset, len) in [(0, 0), (0, 5000), (4095, 2), (9999, 1), (usize::MAX, usize::MAX)] {
            buffer.set_data(offset, len);
            assert!(buffer.headroom() + buffer.len() <= FRAME_SIZE);
        }
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert!(matches!(Arena::new(0, HugePages::Off), Err(ArenaError::Size(0))));
        assert!(matches!(Arena::new(u32::MAX, HugePages::Off), Err(ArenaError::Size(_))));
    }

    #[test]
    fn huge_pages_are_used_or_named() {
        match Arena::new(512, HugePages::On) {
            Ok(arena) => assert_eq!(arena.page_size(), HUGE_PAGE),
            Err(error) => assert!(error.to_string().contains("/proc/sys/vm/nr_hugepages"), "{error}"),
        }
        assert!(Arena::new(512, HugePages::Auto).is_ok());
    }
}
