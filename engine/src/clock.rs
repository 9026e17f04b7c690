//! The clocks, read at the rims only: everything else takes time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of wall-clock time since 1970; expiry times are of this clock.
pub fn unix_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the rim at which wall-clock time enters")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Microseconds of the same clock.
pub fn unix_us() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the rim at which wall-clock time enters")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

/// Microseconds of a clock that never goes back, for durations.
pub fn monotonic_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec that the call fills; CLOCK_MONOTONIC always exists on Linux.
    #[expect(unsafe_code, reason = "std's Instant cannot be turned into a number")]
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
    }
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// Milliseconds of the same clock as `monotonic_us`.
pub fn monotonic_ms() -> u64 {
    monotonic_us() / 1_000
}
