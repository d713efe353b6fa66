//! Reading memory that the other side may be writing at this moment.
//!
//! All loads of ring code go through here, so that a test can be the worst of all guests: one whose memory holds
//! another value at every look. Indices are atomic; a descriptor is two words, each read once. Copies may be torn,
//! and what is copied out is private from then on.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// How foreign memory is read.
///
/// # Safety
/// An implementation reads nothing but the place that it is given.
pub unsafe trait Access: Send {
    /// Loads a number of 16 bits; what is read after it is at least as new.
    ///
    /// # Safety
    /// The place is mapped, readable and aligned.
    unsafe fn load(&mut self, at: NonNull<u16>) -> u16;

    /// Loads a descriptor.
    ///
    /// # Safety
    /// 16 bytes are mapped, readable and aligned to 8.
    unsafe fn descriptor(&mut self, at: NonNull<[u64; 2]>) -> [u64; 2];

    /// Copies bytes to private memory.
    ///
    /// # Safety
    /// `to.len()` bytes are mapped and readable.
    unsafe fn copy(&mut self, from: NonNull<u8>, to: &mut [u8]);
}

/// Reads what is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct;

// SAFETY: each method reads its argument's place only.
unsafe impl Access for Direct {
    #[inline]
    unsafe fn load(&mut self, at: NonNull<u16>) -> u16 {
        // SAFETY: aligned and mapped, says the caller; both sides access it atomically.
        u16::from_le(unsafe { AtomicU16::from_ptr(at.as_ptr()) }.load(Ordering::Acquire))
    }

    #[inline]
    unsafe fn descriptor(&mut self, at: NonNull<[u64; 2]>) -> [u64; 2] {
        let word = |i: usize| {
            // SAFETY: aligned to 8 and mapped, says the caller.
            u64::from_le(
                unsafe { AtomicU64::from_ptr(at.cast::<u64>().add(i).as_ptr()) }.load(Ordering::Relaxed),
            )
        };
        [word(0), word(1)]
    }

    #[inline]
    unsafe fn copy(&mut self, from: NonNull<u8>, to: &mut [u8]) {
        // SAFETY: readable, says the caller; `to` is ours to write.
        unsafe { copy(from, NonNull::from(&mut *to).cast(), to.len()) };
    }
}

/// Copies bytes. Short ones, which most are, without a call; the last block overlaps the one before it.
///
/// # Safety
/// `len` bytes are readable at `from` and writable at `to`. They may overlap; what is there afterwards is then
/// anybody's guess.
#[inline]
pub(super) unsafe fn copy(from: NonNull<u8>, to: NonNull<u8>, len: usize) {
    /// Copies the first and the last `size_of::<T>()` of `len` bytes.
    ///
    /// # Safety
    /// As above, and `len` is at least one and at most two of them.
    #[inline(always)]
    unsafe fn ends<T>(from: NonNull<u8>, to: NonNull<u8>, len: usize) {
        let last = len - size_of::<T>();
        // SAFETY: within `len` bytes, says the caller.
        unsafe {
            let (a, b) = (from.cast::<T>().read_unaligned(), from.add(last).cast::<T>().read_unaligned());
            to.cast::<T>().write_unaligned(a);
            to.add(last).cast::<T>().write_unaligned(b);
        }
    }
    // SAFETY: as the caller says; each arm is given as many bytes as it needs.
    unsafe {
        match len {
            64..=128 => {
                ends::<[u128; 2]>(from, to, 64);
                ends::<[u128; 2]>(from.add(len - 64), to.add(len - 64), 64);
            }
            32..64 => ends::<[u128; 2]>(from, to, len),
            16..32 => ends::<u128>(from, to, len),
            8..16 => ends::<u64>(from, to, len),
            4..8 => ends::<u32>(from, to, len),
            2..4 => ends::<u16>(from, to, len),
            _ => std::ptr::copy(from.as_ptr(), to.as_ptr(), len),
        }
    }
}
