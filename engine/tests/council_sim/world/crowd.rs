//! Members in good weather, many of them, and what a great many failures at once do to them.

use engine::council::Council;
use engine::council::rng::Rng;

use super::{Action, Weather, Wires, World};

/// The crowd is whole within this, milliseconds.
pub(super) const FORM_MS: u64 = 60_000;
/// Given up after this, milliseconds.
const OUTAGE_MAX_MS: u64 = 60_000;
/// How often it is looked whether something has come true, milliseconds.
const LOOK_MS: u64 = 10;

impl World {
    /// Shards with one replica each.
    pub(crate) fn crowd(seed: u64, shards: u16) -> Self {
        let mut world = Self::calm(seed, shards, 1);
        world.joins_at_once = 64;
        world
    }

    /// Default settings, no faults but those that are asked for.
    pub(super) fn calm(seed: u64, shards: u16, replicas: u16) -> Self {
        let weather = Weather {
            wires: Wires::good(),
            fault_every_ms: u64::MAX,
            refusals: true,
            quorum: false,
            min_in_sync: 0,
            persistent: true,
        };
        let size = (shards, replicas);
        let mut world = Self::of(seed, Rng::new(seed), weather, 1000, size, false);
        world.healthy = true;
        world.at(1_000, Action::Operate);
        world
    }

    /// Forms the crowd, then kills half of the primaries at one moment, for good, the council's leader and as many voters among
    /// them as the council can do without. Gives the simulated milliseconds until every shard is served again; `Err`: what is wrong.
    pub(crate) fn half_of_the_primaries_die(mut self) -> Result<u64, String> {
        self.until("everybody is in sync", FORM_MS, |w| w.unwell().is_empty())?;
        let voters = self.newest().map(|t| t.voters.clone()).unwrap_or_default();
        let votes = |n: &usize| voters.contains(&self.nodes[*n].member.id);
        let leads = |n: &usize| self.nodes[*n].council.as_ref().is_some_and(Council::leads);
        let mut primaries: Vec<usize> =
            (0..self.nodes.len()).filter(|n| self.holds_lease(*n)).collect();
        primaries.sort_by_key(|n| (!leads(n), !votes(n)));
        let spared = (voters.len() - 1) / 2;
        let half = primaries.len() / 2;
        let (first, rest) = primaries.split_at(spared);
        let mut doomed: Vec<usize> = first.iter().copied().filter(votes).collect();
        let others: Vec<usize> = rest.iter().copied().filter(|n| !votes(n)).collect();
        doomed.extend(others.into_iter().take(half - doomed.len()));
        assert_eq!(doomed.len(), half, "half of the primaries");
        for n in doomed {
            self.crash(n, 10 * OUTAGE_MAX_MS * 1000);
        }
        let killed = self.ms();
        self.until("every shard is served", OUTAGE_MAX_MS, |w| {
            let mut served: Vec<u16> = (0..w.nodes.len())
                .filter(|n| w.holds_lease(*n))
                .filter_map(|n| w.nodes[n].member.shard)
                .collect();
            served.sort_unstable();
            served.dedup();
            served.len() == usize::from(w.shards)
        })?;
        Ok(self.ms() - killed)
    }

    pub(super) fn until(
        &mut self,
        what: &str,
        limit_ms: u64,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        self.until_looked_at(what, limit_ms, LOOK_MS, holds)
    }

    pub(super) fn until_looked_at(
        &mut self,
        what: &str,
        limit_ms: u64,
        every_ms: u64,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let end = self.ms() + limit_ms;
        let mut next_look = self.ms();
        while let Some(((at, _), action)) = self.queue.pop_first() {
            self.now_us = at;
            self.act(action);
            if let Some(violation) = self.checker.violations.first() {
                return Err(violation.clone());
            }
            if self.ms() >= next_look {
                if holds(self) {
                    return Ok(());
                }
                next_look = self.ms() + every_ms;
            }
            if self.ms() > end {
                let unwell = self.unwell();
                let some: Vec<_> = unwell.iter().take(5).collect();
                return Err(format!(
                    "{what}: not within {limit_ms} ms: {} such as {some:?}",
                    unwell.len()
                ));
            }
        }
        Err("nothing happens any more".into())
    }
}
