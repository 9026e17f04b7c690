//! How fast a snapshot of slots is sent: as fast as it goes, until the source's own clients feel it.
//!
//! While a move sends, the loops count the requests that they serve, and those of them that were served in a turn
//! longer than `larder-move-p99-ms`. An interval with more than one such request in a hundred halves the rate; every
//! other one adds a step, until there is no limit again (additive increase, multiplicative decrease, as TCP does it). The
//! rate never falls below `FLOOR`, whoever else makes the turns long, so that a move always comes to its end.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The slowest that is sent, and what a good interval adds, bytes per second.
const FLOOR: u64 = 4 << 20;
const STEP: u64 = 4 << 20;
/// From here on there is no limit, bytes per second.
const NO_LIMIT: u64 = 1 << 30;
/// After so long it is decided anew, milliseconds.
const INTERVAL_MS: u64 = 100;
/// The longest wait before the sender looks at the world again, milliseconds.
const WAIT_MS: u64 = 100;
/// Of so many requests one may be slow.
const ONE_IN: u64 = 100;

/// What loops have served while a move was sending. Only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) requests: u64,
    /// Those in turns that were too long.
    pub(super) slow: u64,
}

/// What the loops are to count, and what they have.
#[derive(Default)]
pub struct Watch {
    /// Moves that are sending.
    senders: AtomicUsize,
    requests: AtomicU64,
    slow: AtomicU64,
}

impl Watch {
    #[inline]
    pub fn is_on(&self) -> bool {
        self.senders.load(Ordering::Relaxed) > 0
    }

    /// A loop has served so many requests in one turn.
    pub fn count(&self, requests: u64, is_slow: bool) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
        if is_slow {
            self.slow.fetch_add(requests, Ordering::Relaxed);
        }
    }

    pub(super) fn begin(&self) {
        self.senders.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.senders.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn served(&self) -> Served {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Served { requests: get(&self.requests), slow: get(&self.slow) }
    }
}

/// The pace of one sender.
pub(super) struct Pace {
    /// Bytes per second; `None`: as fast as it goes.
    limit: Option<u64>,
    began_ms: u64,
    before: Served,
    /// Sent in this interval, and what earlier ones sent too much.
    bytes: u64,
}

impl Pace {
    pub(super) fn new(now_ms: u64, served: Served) -> Pace {
        Pace { limit: None, began_ms: now_ms, before: served, bytes: 0 }
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Milliseconds to wait before more is sent.
    pub(super) fn wait_ms(&mut self, now_ms: u64, served: Served) -> u64 {
        let elapsed_ms = now_ms.saturating_sub(self.began_ms);
        if elapsed_ms >= INTERVAL_MS {
            self.decide(elapsed_ms, served);
            (self.began_ms, self.before) = (now_ms, served);
        }
        let elapsed_ms = now_ms.saturating_sub(self.began_ms);
        let due_ms = self.limit.map_or(0, |limit| self.bytes.saturating_mul(1000) / limit);
        due_ms.saturating_sub(elapsed_ms).min(WAIT_MS)
    }

    fn decide(&mut self, elapsed_ms: u64, served: Served) {
        let requests = served.requests.saturating_sub(self.before.requests);
        let slow = served.slow.saturating_sub(self.before.slow);
        let rate = self.bytes.saturating_mul(1000) / elapsed_ms;
        let allowed = self.limit.map_or(u64::MAX, |limit| limit.saturating_mul(elapsed_ms) / 1000);
        self.limit = if slow.saturating_mul(ONE_IN) > requests {
            Some((self.limit.unwrap_or(rate) / 2).max(FLOOR))
        } else {
            self.limit.map(|limit| limit + STEP).filter(|limit| *limit < NO_LIMIT)
        };
        self.bytes = self.bytes.saturating_sub(allowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as fast as it may for some intervals, in each of which clients have these requests served; gives the bytes
    /// of the last interval.
    fn run(pace: &mut Pace, now_ms: &mut u64, total: &mut Served, each: Served, times: u64) -> u64 {
        let mut sent = 0;
        for _ in 0..times {
            sent = 0;
            let end = *now_ms + INTERVAL_MS;
            total.requests += each.requests;
            total.slow += each.slow;
            while *now_ms < end {
                match pace.wait_ms(*now_ms, *total) {
                    // A millisecond for 64 KiB, where nothing holds it up.
                    0 => {
                        pace.sent(64 << 10);
                        sent += 64 << 10;
                        *now_ms += 1;
                    }
                    wait => *now_ms += wait,
                }
            }
        }
        sent
    }

    fn served(requests: u64, slow: u64) -> Served {
        Served { requests, slow }
    }

    #[test]
    fn nothing_holds_it_up_while_clients_are_served_in_time() {
        let (mut now, mut total) = (1_000, served(7, 7));
        let mut pace = Pace::new(now, total);
        // One slow request in a hundred is what is allowed.
        assert_eq!(run(&mut pace, &mut now, &mut total, served(100, 1), 20), 100 * (64 << 10));
        assert_eq!(run(&mut pace, &mut now, &mut total, served(0, 0), 20), 100 * (64 << 10));
        assert_eq!(pace.limit(), None);
    }

    #[test]
    fn slow_clients_halve_the_rate_down_to_the_floor_and_it_always_goes_on() {
        let (mut now, mut total) = (1_000, served(0, 0));
        let mut pace = Pace::new(now, total);
        run(&mut pace, &mut now, &mut total, served(100, 2), 2);
        let first = pace.limit().unwrap();
        assert!(((28 << 20)..(34 << 20)).contains(&first), "{first}");
        run(&mut pace, &mut now, &mut total, served(100, 2), 1);
        assert_eq!(pace.limit(), Some(first / 2));
        let sent = run(&mut pace, &mut now, &mut total, served(1, 1), 50);
        assert_eq!(pace.limit(), Some(FLOOR));
        // Some 400 KiB in a tenth of a second, and never nothing.
        assert!(((320 << 10)..=(512 << 10)).contains(&sent), "{sent}");
    }

    #[test]
    fn it_grows_by_steps_when_clients_are_well_again_until_there_is_no_limit() {
        let (mut now, mut total) = (1_000, served(0, 0));
        let mut pace = Pace::new(now, total);
        run(&mut pace, &mut now, &mut total, served(100, 50), 30);
        assert_eq!(pace.limit(), Some(FLOOR));
        run(&mut pace, &mut now, &mut total, served(100, 0), 6);
        let grown = pace.limit().unwrap();
        assert!((FLOOR + 4 * STEP..=FLOOR + 7 * STEP).contains(&grown), "{grown}");
        run(&mut pace, &mut now, &mut total, served(100, 0), NO_LIMIT / STEP);
        assert_eq!(pace.limit(), None);
    }

    #[test]
    fn a_large_value_is_paid_for_by_waits_that_are_bounded() {
        let mut pace = Pace::new(0, served(0, 0));
        pace.sent(1 << 20);
        pace.wait_ms(INTERVAL_MS, served(10, 10));
        let limit = pace.limit().unwrap();
        pace.sent(1 << 30);
        assert_eq!(pace.wait_ms(INTERVAL_MS + 1, served(10, 10)), WAIT_MS);
        assert!(limit >= FLOOR);
    }
}
