//! What threads write often, so that they do not meet on a line of memory.

use std::ops::Deref;
use std::sync::atomic::{AtomicI64, Ordering};

/// Threads that have a part of their own: event loops, by their numbers. All others share one more part.
const OWNERS: usize = 64;

/// What is written often, apart from its neighbours, which are read often: two lines, since processors fetch them in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A sum in parts, of which each thread has one.
pub struct Tally(Box<[Apart<AtomicI64>]>);

impl Default for Tally {
    fn default() -> Self {
        Self((0..=OWNERS).map(|_| Apart::default()).collect())
    }
}

impl Tally {
    /// For threads that have no number of their own.
    pub const ANY_THREAD: usize = OWNERS;

    /// Adds; only the thread with a number below `ANY_THREAD` may name it.
    #[inline]
    pub fn add(&self, thread: usize, count: i64) {
        if count == 0 {
            return;
        }
        let part = &self.0[thread.min(Self::ANY_THREAD)];
        if thread < Self::ANY_THREAD {
            // Nobody else writes it: no need to lock its line for each request.
            part.store(part.load(Ordering::Relaxed) + count, Ordering::Relaxed);
        } else {
            part.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Parts are read one after the other: the sum of what was added meanwhile may be in it or not, and while some add and others
    /// take away it may be below zero, which shows as zero.
    pub fn sum(&self) -> u64 {
        let sum: i64 = self.0.iter().map(|part| part.load(Ordering::Relaxed)).sum();
        u64::try_from(sum).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_threads_add_is_one_sum() {
        let tally = Tally::default();
        std::thread::scope(|scope| {
            for thread in 0..OWNERS + 2 {
                let tally = &tally;
                scope.spawn(move || (0..100).for_each(|_| tally.add(thread, 3)));
            }
        });
        tally.add(Tally::ANY_THREAD, -100);
        assert_eq!(tally.sum(), 300 * (OWNERS as u64 + 2) - 100);
        tally.add(0, -1_000_000);
        assert_eq!(tally.sum(), 0);
    }
}
