//! Counts of what a simulation's own list names: see its `tally`.

use std::collections::BTreeMap;
use std::fmt;

use super::tally::{ALL, What};

/// Counts by kind.
#[derive(Clone, Default)]
pub(crate) struct Tally(BTreeMap<What, u64>);

impl Tally {
    pub(crate) fn count(&mut self, what: What, by: u64) {
        if by > 0 {
            *self.0.entry(what).or_default() += by;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, count)| self.count(*what, *count));
    }

    /// What has never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        ALL.iter().filter(|(what, _)| !self.0.contains_key(what)).map(|(_, name)| *name).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (what, name)) in ALL.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} {name}", self.0.get(what).copied().unwrap_or(0))?;
        }
        Ok(())
    }
}
