//! What one run, or many, came to.

use std::fmt;

use super::tally::Tally;

#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Vec<String>,
    pub(crate) tally: Tally,
    pub(crate) seeds: u64,
    pub(crate) events: u64,
    pub(crate) rounds: u64,
    /// Acknowledged with `Async`, and missing in a later primary.
    pub(crate) lost: u64,
    pub(crate) settle_max_ms: u64,
}

impl Outcome {
    pub(crate) fn violated(what: String) -> Self {
        Self { violations: vec![what], seeds: 1, ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.rounds += other.rounds;
        self.tally.add(&other.tally);
        self.lost += other.lost;
        self.settle_max_ms = self.settle_max_ms.max(other.settle_max_ms);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds, {} events, {} rounds of the operator, {} writes lost with a tail, whole again after at most {} ms",
            self.seeds, self.events, self.rounds, self.lost, self.settle_max_ms
        )?;
        write!(f, "{}", self.tally)
    }
}
