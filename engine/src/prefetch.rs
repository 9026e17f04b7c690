//! Memory that is about to be used, brought nearer: what waits for several of its places waits for them side by side.

/// Brings the cache line at an address nearer; what lies there does not matter.
#[inline]
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on the cache, and faults on nothing.
    #[expect(unsafe_code, reason = "an intrinsic")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The same for a line that is about to be written: it is asked of the core that has it, so that nobody waits for it when it is.
#[inline]
pub(crate) fn prefetch_to_write<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it faults on no address, and where a processor does not know it, it does nothing.
    #[expect(unsafe_code, reason = "an instruction that the library has no function for")]
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    prefetch(at);
}
