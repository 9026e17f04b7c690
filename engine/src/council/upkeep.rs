//! What the leader keeps true while all is well: the in-sync sets, the voters, the accounts of losses.

use raft::eraftpb::ConfChangeType;

use super::Council;
use super::choose::lineage_of;
use super::voters::pick;
use crate::topology::{Change, MemberId, Role, Shard, ShardId, Topology};

impl Council {
    /// Keeps the in-sync set true: who lags or is silent for long leaves it, who has caught up joins.
    pub(super) fn look_after_sync(&mut self, topology: &Topology, id: ShardId, shard: &Shard) {
        let Some(primary) = &shard.primary else { return };
        let Some(lead) = self.seen.get(primary) else { return };
        let lead_lineage = lineage_of(topology, id, &lead.report);
        let mut wanted = shard.in_sync.clone();
        wanted.retain(|m, _| topology.members.contains_key(m));
        let mut waits = vec![];
        for member in topology.members_of(id).into_iter().filter(|m| m.id != *primary) {
            let seen = self.seen.get(&member.id).filter(|s| {
                let lineage = lineage_of(topology, id, &s.report);
                self.seen.is_live(&member.id, self.now_ms, &self.settings)
                    && s.report.in_sync
                    && s.report.role == Role::Replica
                    && lineage.is_some()
                    && lineage.map(|l| l.epoch) == lead_lineage.map(|l| l.epoch)
            });
            let is_attached = seen.map(|s| s.report.boot.clone());
            if is_attached.as_ref() == shard.in_sync.get(&member.id) {
                continue;
            }
            waits.push(member.id.clone());
            let tenure_differs = self.tenure.as_ref().and_then(|t| t.differs.get(&member.id));
            let since_ms = tenure_differs.copied().unwrap_or(self.now_ms);
            let patience_ms = match is_attached {
                Some(_) => self.settings.beat_ms,
                None => self.settings.sync_lag_ms,
            };
            if self.now_ms >= since_ms + patience_ms {
                match is_attached {
                    Some(boot) => wanted.insert(member.id.clone(), boot),
                    None => wanted.remove(&member.id),
                };
            }
        }
        let now_ms = self.now_ms;
        let Some(tenure) = &mut self.tenure else { return };
        for member in topology.members_of(id) {
            if waits.contains(&member.id) {
                tenure.differs.entry(member.id.clone()).or_insert(now_ms);
            } else {
                tenure.differs.remove(&member.id);
            }
        }
        if wanted != shard.in_sync && !tenure.syncing.contains_key(&id) {
            let change = Change::Synced { shard: id, epoch: shard.epoch, in_sync: wanted };
            if let Some(index) = self.put(change, None)
                && let Some(tenure) = &mut self.tenure
            {
                tenure.syncing.insert(id, index);
            }
        }
    }

    /// Moves the council's seats, one change at a time: first a learner, then a voter, then one less.
    pub(super) fn look_after_voters(&mut self, topology: &Topology) {
        let Some(tenure) = &self.tenure else { return };
        let since_ms = tenure.since_ms;
        let wanted =
            pick(topology, |id| self.seen.presence(id, self.now_ms, since_ms, &self.settings));
        let me = self.me.clone();
        let Some(consensus) = self.consensus.as_mut().filter(|c| !c.is_changing_voters()) else {
            return;
        };
        let learners: Vec<MemberId> = consensus.learners().cloned().collect();
        if let Some(stray) = learners.iter().find(|l| !wanted.contains(*l)) {
            consensus.change_voter(ConfChangeType::RemoveNode, stray);
        } else if let Some(learner) = learners.iter().find(|l| consensus.has_caught_up(l)) {
            consensus.change_voter(ConfChangeType::AddNode, learner);
        } else if let Some(new) =
            wanted.iter().find(|w| !topology.voters.contains(*w) && !learners.contains(w))
        {
            consensus.change_voter(ConfChangeType::AddLearnerNode, new);
        } else if learners.is_empty() {
            let surplus = |v: &&MemberId| !wanted.contains(*v);
            let others = topology.voters.iter().filter(|v| **v != me);
            if let Some(old) = others.clone().find(surplus) {
                consensus.change_voter(ConfChangeType::RemoveNode, old);
            } else if !wanted.contains(&me)
                && let Some(next) = others.clone().find(|v| consensus.has_caught_up(v))
            {
                consensus.hand_leadership_to(next);
            }
        }
    }

    /// What a former primary counted goes into the record of the failover that cost it.
    pub(super) fn note_dropped(&mut self, topology: &Topology) {
        if self.tenure.as_ref().is_none_or(|t| t.other.is_some()) {
            return;
        }
        let counted = topology.failovers.iter().find_map(|f| {
            let report = &self.seen.get(f.from.as_ref()?)?.report;
            let is_told = f.dropped_writes.is_none() && report.dropped_epoch == f.epoch;
            is_told.then_some((f.shard, f.epoch, report.dropped_writes))
        });
        if let Some((shard, epoch, writes)) = counted {
            let index = self.put(Change::Dropped { shard, epoch, writes }, None);
            if let Some(tenure) = &mut self.tenure {
                tenure.other = index;
            }
        }
    }
}
