//! Giving way: a loop that has answered lets others run before it asks the kernel what came.
//!
//! Where clients or other loops share its core, those whom it answered then send their next requests
//! before it looks again: one look finds many, in place of a sleep and a wake-up for every few (two loops
//! and a client on two cores, pipeline 1: 20 % less CPU per request and 40 % more requests).
//!
//! It gives way only while that pays: a core that a busy neighbour wants comes back a time slice late. How
//! long the core was away tells, on average; it is tried again later.

use std::time::{Duration, Instant};

/// Longer than clients and other loops keep the core on average; a busy neighbour keeps it for some ms.
const AWAY_MAX: Duration = Duration::from_micros(1000);
/// The average that is assumed at first, and after a pause: a trial costs some 30 ms at most.
const AWAY_AT_FIRST: Duration = Duration::from_micros(250);
/// The average is of about so many times: fewer, and a few slow turns of clients end it for nothing.
const AVERAGED: u32 = 32;

/// Until it is tried again, doubled each time that it is in vain.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

pub(super) struct GiveWay {
    not_before: Instant,
    pause: Duration,
    /// How long the core was away, on a moving average.
    away: Duration,
}

impl GiveWay {
    pub(super) fn new(now: Instant) -> GiveWay {
        GiveWay { not_before: now, pause: PAUSE, away: AWAY_AT_FIRST }
    }

    /// Gives way, if that has paid lately.
    pub(super) fn run(&mut self) {
        let before = Instant::now();
        if before >= self.not_before {
            std::thread::yield_now();
            self.back(before, Instant::now());
        }
    }

    /// Decides when it is tried next.
    fn back(&mut self, before: Instant, after: Instant) {
        self.away = (self.away * (AVERAGED - 1) + after.duration_since(before)) / AVERAGED;
        if self.away > AWAY_MAX {
            self.not_before = after + self.pause;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            self.away = AWAY_AT_FIRST;
        } else if self.away < AWAY_AT_FIRST / 2 {
            self.pause = PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives way for `micros`; how long it is not tried again.
    fn pause_after(way: &mut GiveWay, micros: u64) -> Duration {
        let before = way.not_before;
        let after = before + Duration::from_micros(micros);
        way.back(before, after);
        way.not_before.saturating_duration_since(after)
    }

    #[test]
    fn it_goes_on_while_the_core_comes_back_soon() {
        let mut way = GiveWay::new(Instant::now());
        for micros in [0, 300, 1500, 0, 0, 200, 1900, 1, 1, 1, 1, 1, 1500] {
            assert_eq!(pause_after(&mut way, micros), Duration::ZERO, "{micros}");
        }
    }

    /// Gives way for `micros` until a pause; how many times that took, and the pause.
    fn until_paused(way: &mut GiveWay, micros: u64) -> (u32, Duration) {
        (1..1000)
            .find_map(|times| match pause_after(way, micros) {
                Duration::ZERO => None,
                pause => Some((times, pause)),
            })
            .unwrap()
    }

    #[test]
    fn a_busy_neighbour_is_tried_ever_more_rarely_until_it_is_gone() {
        let mut way = GiveWay::new(Instant::now());
        assert_eq!(until_paused(&mut way, 3000), (11, PAUSE));
        assert_eq!(until_paused(&mut way, 3000), (11, PAUSE * 2));
        for _ in 0..20 {
            until_paused(&mut way, 3000);
        }
        assert_eq!(until_paused(&mut way, 3000).1, PAUSE_MAX);
        for _ in 0..200 {
            assert_eq!(pause_after(&mut way, 10), Duration::ZERO);
        }
        assert_eq!(until_paused(&mut way, 3000).1, PAUSE);
    }
}
