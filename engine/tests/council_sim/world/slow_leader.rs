//! Handovers in good weather, but for the disk of the member that leads the council.

use engine::council::Council;
use engine::topology::Change;

use super::World;
use super::crowd::FORM_MS;

/// How long each sync of the leader's takes: less than a beat, and more than anything else here.
const SLOW_SYNC_US: u64 = 30_000;
/// Given up after this, milliseconds.
const HANDOVER_MS: u64 = 5_000;

impl World {
    pub(crate) fn three(seed: u64) -> Self {
        Self::calm(seed, 1, 2)
    }

    /// So many handovers among three members, whose promotions the two with good disks decide. Gives the longest time,
    /// in simulated milliseconds, that a new primary waited for its lease; `Err`: what is wrong.
    pub(crate) fn hands_over_beside_a_slow_leader(mut self, number: usize) -> Result<u64, String> {
        self.until("everybody is in sync", FORM_MS, |w| w.unwell().is_empty())?;
        let mut longest_ms = 0;
        for _ in 0..number {
            let leads = |n: &usize| self.nodes[*n].council.as_ref().is_some_and(Council::leads);
            let leader = (0..self.nodes.len()).find(leads).ok_or("nobody leads")?;
            for (n, node) in self.nodes.iter_mut().enumerate() {
                node.sync_us = (n == leader).then_some(SLOW_SYNC_US);
            }
            let heir = (0..self.nodes.len()).find(|n| *n != leader && !self.holds_lease(*n));
            let heir = heir.ok_or("there is no other replica")?;
            let topology = self.newest().ok_or("nothing is known")?;
            let (id, shard) = topology.shards.first_key_value().ok_or("there is no shard")?;
            let to = self.nodes[heir].member.id.clone();
            let change = Change::handover(*id, to, shard.epoch);
            self.wish(leader, change);
            self.until("the heir acts", HANDOVER_MS, |w| w.nodes[heir].data.acting.is_some())?;
            let began = self.ms();
            self.until("it has its lease", HANDOVER_MS, |w| w.holds_lease(heir))?;
            longest_ms = longest_ms.max(self.ms() - began);
            self.until("everybody is in sync", HANDOVER_MS, |w| w.unwell().is_empty())?;
        }
        Ok(longest_ms)
    }
}
