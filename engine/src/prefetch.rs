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
