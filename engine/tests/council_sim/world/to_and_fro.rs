//! Handovers that follow each other as fast as the data allow.

use engine::topology::Change;

use super::World;
use super::crowd::FORM_MS;

/// Given up after this, milliseconds.
const HANDOVER_MS: u64 = 5_000;

impl World {
    /// A pair hands its shard to and fro, each time as soon as the replica follows, which the council's leader has not heard by
    /// then. `Err`: what is wrong.
    pub(crate) fn hands_to_and_fro(mut self, number: usize) -> Result<(), String> {
        self.until("everybody is in sync", FORM_MS, |w| w.unwell().is_empty())?;
        let pair: Vec<usize> =
            (0..self.nodes.len()).filter(|n| self.nodes[*n].member.shard.is_some()).collect();
        for _ in 0..number {
            let topology = self.newest().ok_or("nothing is known")?;
            let (id, shard) = topology.shards.first_key_value().ok_or("there is no shard")?;
            let is_replica =
                |n: &&usize| shard.primary.as_ref() != Some(&self.nodes[**n].member.id);
            let heir = *pair.iter().find(is_replica).ok_or("there is no replica")?;
            let to = self.nodes[heir].member.id.clone();
            let change = Change::handover(*id, to, shard.epoch);
            self.until_looked_at("the replica follows", HANDOVER_MS, 0, |w| {
                w.nodes[heir].data.in_sync_until_ms > w.ms()
            })?;
            self.wish(heir, change);
            self.until_looked_at("it has its lease", HANDOVER_MS, 0, |w| w.holds_lease(heir))?;
        }
        Ok(())
    }
}
