//! A primary that is replaced while it lives, by a replica that dies before it has its lease.

use engine::council::Council;

use super::World;
use super::crowd::FORM_MS;

/// Given up after this, milliseconds.
const OUTAGE_MAX_MS: u64 = 30_000;

impl World {
    /// One shard of two, and a voter that has no data.
    pub(crate) fn pair(seed: u64) -> Self {
        Self::calm(seed, 1, 1)
    }

    /// The primary's disk fails for good, its replica is promoted, and crashes for good before it knows. Gives the simulated
    /// milliseconds until the shard is served again, `None` where the heir may have granted itself a lease; `Err`: what is wrong.
    pub(crate) fn loses_the_heir(mut self) -> Result<Option<u64>, String> {
        self.until("everybody is in sync and votes", FORM_MS, |w| {
            w.unwell().is_empty() && w.newest().is_some_and(|t| t.voters.len() == 3)
        })?;
        let of_shard = |w: &Self, n: &usize| w.nodes[*n].member.shard.is_some();
        let mut pair = (0..self.nodes.len()).filter(|n| of_shard(&self, n));
        let (Some(a), Some(b)) = (pair.next(), pair.next()) else { return Err("no pair".into()) };
        let (primary, heir) = if self.holds_lease(a) { (a, b) } else { (b, a) };
        let to = self.nodes[heir].member.id.clone();
        self.nodes[primary].disk_error_until = u64::MAX;
        self.until_looked_at("the replica is promoted", OUTAGE_MAX_MS, 0, |w| {
            w.newest().is_some_and(|t| t.shards.values().all(|s| s.primary.as_ref() == Some(&to)))
        })?;
        let leads = self.nodes[heir].council.as_ref().is_some_and(Council::leads);
        if leads || self.nodes[heir].data.acting.is_some() {
            return Ok(None);
        }
        self.crash(heir, 10 * OUTAGE_MAX_MS * 1000);
        let crashed = self.ms();
        self.until("the shard is served", OUTAGE_MAX_MS, |w| w.holds_lease(primary))?;
        Ok(Some(self.ms() - crashed))
    }
}
