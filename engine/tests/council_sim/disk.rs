//! A member's disk: what was synced survives a crash, of the rest only what happened to get there.

use std::collections::VecDeque;

use engine::council::record::{Batch, Record};
use engine::council::rng::Rng;

#[derive(Default)]
pub(crate) struct Disk {
    durable: Vec<Record>,
    pending: VecDeque<Batch>,
    /// When the sync under way ends, and the one that follows it with all that was written meanwhile.
    busy_until: u64,
    next_until: u64,
}

impl Disk {
    pub(crate) fn write(&mut self, batch: Batch) {
        self.pending.push_back(batch);
    }

    /// When a batch that is written at `now` is durable; times in microseconds.
    pub(crate) fn sync_ends(&mut self, now: u64, latency: u64) -> u64 {
        if now >= self.busy_until {
            self.busy_until = self.next_until.max(self.busy_until);
        }
        if now >= self.busy_until {
            self.busy_until = now + latency;
            return self.busy_until;
        }
        if self.next_until <= self.busy_until {
            self.next_until = self.busy_until + latency;
        }
        self.next_until
    }

    /// A sync has ended: everything up to `number` is safe.
    pub(crate) fn synced(&mut self, number: u64) {
        while self.pending.front().is_some_and(|b| b.number <= number) {
            self.keep_one();
        }
    }

    /// How many batches were lost.
    pub(crate) fn crash(&mut self, rng: &mut Rng) -> usize {
        for _ in 0..rng.below(self.pending.len() as u64 + 1) {
            self.keep_one();
        }
        let lost = self.pending.len();
        self.pending.clear();
        (self.busy_until, self.next_until) = (0, 0);
        lost
    }

    fn keep_one(&mut self) {
        if let Some(batch) = self.pending.pop_front() {
            if batch.rewrite {
                self.durable.clear();
            }
            self.durable.extend(batch.records);
        }
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.durable.clone()
    }
}
