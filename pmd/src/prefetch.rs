//! The hint that a cache line will be read or written soon.
//!
//! Batched lookups use it between hashing and comparing, drivers between learning where a frame lies and touching
//! it, so that the memory latencies of a batch overlap. A line to be written is asked for as one's own, which spares
//! a second trip when another core has it.
#![allow(unsafe_code)]

/// Asks for the line that holds the first byte of `target`, for reading, into all levels of the cache.
#[inline(always)]
pub fn prefetch<T>(target: &T) {
    for_reading(std::ptr::from_ref(target).cast());
}

/// Asks for the line of `address`, for reading. Any address will do: one that is not mapped is ignored.
#[inline(always)]
pub fn for_reading(address: *const u8) {
    // SAFETY: a prefetch changes no architectural state and never faults, whatever the address.
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

/// Asks for the line of `address`, for writing: nobody else has it then. Any address will do.
#[inline(always)]
pub fn for_writing(address: *const u8) {
    // SAFETY: as in `for_reading`. The compiler's own intrinsic gives a read prefetch unless the target is known to
    // have this instruction; a processor without it takes it for a no-op.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("prefetchw [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
