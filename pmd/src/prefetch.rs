//! The hint that a cache line will be read soon.
//!
//! Batched lookups use it between hashing and comparing, so that the memory latencies of a batch overlap.
#![allow(unsafe_code)]

/// Asks for the line that holds the first byte of `target`, for reading, into all levels of the cache.
#[inline(always)]
pub fn prefetch<T>(target: &T) {
    let address: *const T = target;
    // SAFETY: a prefetch changes no architectural state and never faults, and the address is a live one.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    // SAFETY: as above; the instruction reads one register and writes none.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
