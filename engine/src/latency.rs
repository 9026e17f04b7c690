//! LATENCY: spikes above `latency-monitor-threshold` by what caused them, and how long each command takes.
//!
//! An event keeps the worst sample of each second, SAMPLES_MAX seconds back. Times of commands are counted in buckets
//! of powers of two; of quick commands, which are not timed one by one, each timed one stands for the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::server::{Shared, bump};

/// Samples that an event keeps.
const SAMPLES_MAX: usize = 160;
/// Buckets of a histogram: the last one is for all that took longer than 2^22 microseconds.
const BUCKETS: usize = 24;

/// Samples of one event: unix seconds and milliseconds.
#[derive(Default)]
pub struct Series {
    pub samples: VecDeque<(i64, u64)>,
    pub worst_ms: u64,
}

#[derive(Default)]
pub struct Latency {
    events: Mutex<BTreeMap<&'static str, Series>>,
}

impl Latency {
    pub fn events(&self) -> MutexGuard<'_, BTreeMap<&'static str, Series>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, event: &'static str, unix_s: i64, ms: u64) {
        let mut events = self.events();
        let series = events.entry(event).or_default();
        series.worst_ms = series.worst_ms.max(ms);
        match series.samples.back_mut() {
            Some((at, worst)) if *at == unix_s => *worst = ms.max(*worst),
            _ => series.samples.push_back((unix_s, ms)),
        }
        if series.samples.len() > SAMPLES_MAX {
            series.samples.pop_front();
        }
    }
}

impl Shared {
    /// Notes how long something took, if that is a spike.
    #[inline]
    pub fn note_latency(&self, event: &'static str, now_ms: i64, usec: u64) {
        // Most of what is timed takes less than a millisecond, and no threshold is below that.
        if usec >= 1000 {
            let threshold = self.config.hot().latency_threshold_ms;
            if threshold > 0 && usec / 1000 >= threshold {
                self.latency.add(event, now_ms / 1000, usec / 1000);
            }
        }
    }
}

/// How many calls took how long.
#[derive(Default)]
pub struct Histogram([AtomicU64; BUCKETS]);

impl Histogram {
    /// Counts calls of a length; only the thread that owns the histogram does.
    pub fn count(&self, usec: u64, calls: u64) {
        let bucket = (u64::BITS - usec.saturating_sub(1).leading_zeros()) as usize;
        bump(&self.0[bucket.min(BUCKETS - 1)], calls);
    }

    pub fn clear(&self) {
        self.0.iter().for_each(|n| n.store(0, Ordering::Relaxed));
    }

    /// Adds the counts of this one to others.
    pub fn add_to(&self, sums: &mut Sums) {
        self.0.iter().zip(&mut sums.0).for_each(|(n, sum)| *sum += n.load(Ordering::Relaxed));
    }
}

/// The counts of several histograms together.
#[derive(Default)]
pub struct Sums([u64; BUCKETS]);

impl Sums {
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Microseconds, and how many calls took at most as long: each bucket in which there are any.
    pub fn cumulated(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut seen = 0;
        self.0.iter().enumerate().filter(|(_, n)| **n > 0).map(move |(bucket, n)| {
            seen += n;
            (1 << bucket, seen)
        })
    }

    /// Microseconds that this share of the calls (percent) did not exceed.
    pub fn percentile(&self, percent: f64) -> u64 {
        let wanted = (self.total() as f64 * percent / 100.0).ceil() as u64;
        self.cumulated().find(|(_, seen)| *seen >= wanted).map_or(0, |(usec, _)| usec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_in_powers_of_two() {
        let (histogram, mut sums) = (Histogram::default(), Sums::default());
        for usec in [0, 1, 2, 3, 4, 5, 1000, 1024, 1025, u64::MAX] {
            histogram.count(usec, 2);
        }
        histogram.add_to(&mut sums);
        let found: Vec<_> = sums.cumulated().collect();
        let expected = [(1, 4), (2, 6), (4, 10), (8, 12), (1024, 16), (2048, 18), (1 << 23, 20)];
        assert_eq!(found, expected);
        assert_eq!(sums.total(), 20);
        assert_eq!(sums.percentile(50.0), 4);
        assert_eq!(sums.percentile(99.9), 1 << 23);
    }

    #[test]
    fn the_worst_of_each_second_is_kept_and_so_many_seconds() {
        let latency = Latency::default();
        for second in 0..300 {
            latency.add("command", second, 5);
            latency.add("command", second, second as u64);
        }
        let events = latency.events();
        let series = &events["command"];
        assert_eq!(series.samples.len(), SAMPLES_MAX);
        assert_eq!(
            (series.samples.front(), series.samples.back()),
            (Some(&(140, 140)), Some(&(299, 299)))
        );
        assert_eq!(series.worst_ms, 299);
    }
}
