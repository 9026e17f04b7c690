//! Where the time went for which clients were held, as one line of the log tells it.

use crate::clock;

/// Microseconds since it was begun, by laps.
pub(crate) struct Stopwatch {
    began_us: u64,
    last_us: u64,
    laps: String,
}

impl Stopwatch {
    pub(crate) fn new() -> Stopwatch {
        let now = clock::monotonic_us();
        Stopwatch { began_us: now, last_us: now, laps: String::new() }
    }

    /// What has ended with this moment, and began with the lap before.
    pub(crate) fn lap(&mut self, name: &str) {
        let now = clock::monotonic_us();
        self.laps.push_str(&format!("{name}={} ", now - self.last_us));
        self.last_us = now;
    }

    pub(crate) fn total_us(&self) -> u64 {
        clock::monotonic_us() - self.began_us
    }

    /// `NAME=MICROSECONDS`, parted by spaces.
    pub(crate) fn laps(&self) -> &str {
        self.laps.trim_end()
    }
}
