//! A member's own monotonic clock, which begins anywhere and runs a little fast or slow.

/// What a clock shows differs from true time by an offset and a rate.
#[derive(Clone, Copy, Default)]
pub(crate) struct Clock {
    pub(crate) offset_ms: u64,
    pub(crate) drift_ppm: i64,
}

impl Clock {
    /// Milliseconds on it at a moment of true time.
    pub(crate) fn ms(&self, now_us: u64) -> u64 {
        let rate = 1_000_000 + self.drift_ppm;
        let us = i128::from(now_us) * i128::from(rate) / 1_000_000;
        self.offset_ms + (us / 1000) as u64
    }
}
