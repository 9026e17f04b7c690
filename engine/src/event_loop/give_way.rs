//! Giving way: a loop that has answered lets others run before it asks the kernel what came.
//!
//! Where clients or other loops share its core, those whom it answered then send their next requests
//! before it looks again: one look finds many, in place of a sleep and a wake-up for every few (two loops
//! and a client on two cores, pipeline 1: 20 % less CPU per request and 40 % more requests).
//!
//! It gives way only while that pays: a core that a busy neighbour wants comes back a time slice late. How
//! long the core was away tells, on average; it is tried again later.

use crate::clock;

/// Longer than clients and other loops keep the core on average; a busy neighbour keeps it for some ms.
const AWAY_MAX_US: u64 = 1000;
/// The average that is assumed at first, and after a pause: a trial costs some 30 ms at most.
const AWAY_AT_FIRST_US: u64 = 250;
/// The average is of about so many times: fewer, and a few slow turns of clients end it for nothing.
const AVERAGED: u64 = 32;

/// Until it is tried again, doubled each time that it is in vain.
const PAUSE_US: u64 = 100_000;
const PAUSE_MAX_US: u64 = 10_000_000;

/// Times are microseconds of the monotonic clock.
pub(super) struct GiveWay {
    not_before_us: u64,
    pause_us: u64,
    /// How long the core was away, on a moving average.
    away_us: u64,
}

impl GiveWay {
    pub(super) fn new() -> GiveWay {
        GiveWay { not_before_us: 0, pause_us: PAUSE_US, away_us: AWAY_AT_FIRST_US }
    }

    /// Gives way, if that has paid lately.
    pub(super) fn run(&mut self) {
        let before_us = clock::monotonic_us();
        if before_us >= self.not_before_us {
            std::thread::yield_now();
            self.back(before_us, clock::monotonic_us());
        }
    }

    /// Decides when it is tried next.
    fn back(&mut self, before_us: u64, after_us: u64) {
        let away_us = after_us.saturating_sub(before_us);
        self.away_us = (self.away_us * (AVERAGED - 1) + away_us) / AVERAGED;
        if self.away_us > AWAY_MAX_US {
            self.not_before_us = after_us + self.pause_us;
            self.pause_us = (self.pause_us * 2).min(PAUSE_MAX_US);
            self.away_us = AWAY_AT_FIRST_US;
        } else if self.away_us < AWAY_AT_FIRST_US / 2 {
            self.pause_us = PAUSE_US;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives way for so long; how long it is not tried again.
    fn pause_after(way: &mut GiveWay, away_us: u64) -> u64 {
        let after_us = way.not_before_us + away_us;
        way.back(way.not_before_us, after_us);
        way.not_before_us.saturating_sub(after_us)
    }

    #[test]
    fn it_goes_on_while_the_core_comes_back_soon() {
        let mut way = GiveWay::new();
        for away_us in [0, 300, 1500, 0, 0, 200, 1900, 1, 1, 1, 1, 1, 1500] {
            assert_eq!(pause_after(&mut way, away_us), 0, "{away_us}");
        }
    }

    /// Gives way for so long each time until a pause; how many times that took, and the pause.
    fn until_paused(way: &mut GiveWay, away_us: u64) -> (u32, u64) {
        (1..1000)
            .find_map(|times| match pause_after(way, away_us) {
                0 => None,
                pause_us => Some((times, pause_us)),
            })
            .unwrap()
    }

    #[test]
    fn a_busy_neighbour_is_tried_ever_more_rarely_until_it_is_gone() {
        let mut way = GiveWay::new();
        assert_eq!(until_paused(&mut way, 3000), (11, PAUSE_US));
        assert_eq!(until_paused(&mut way, 3000), (11, PAUSE_US * 2));
        for _ in 0..20 {
            until_paused(&mut way, 3000);
        }
        assert_eq!(until_paused(&mut way, 3000).1, PAUSE_MAX_US);
        for _ in 0..200 {
            assert_eq!(pause_after(&mut way, 10), 0);
        }
        assert_eq!(until_paused(&mut way, 3000).1, PAUSE_US);
    }
}
