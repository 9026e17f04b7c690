//! What the leader keeps true while all is well: the in-sync sets, the voters, the accounts of losses.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use raft::eraftpb::ConfChangeType;

use super::Council;
use super::seating::{SeatChange, Seats};
use super::voters::{Presence, pick};
use crate::topology::{Change, Epoch, Member, MemberId, Shard, ShardId, Topology};

/// Silent members that are told the topology at a time.
const CALLED_MAX: usize = 16;

impl Council {
    /// This process is about to end: if it leads, another voter is to lead before an election has to find that
    /// out. `false`: there is nothing to wait for.
    pub fn retire(&mut self, now_ms: u64) -> bool {
        self.now_ms = now_ms;
        let Some(known) = self.known.clone().filter(|_| self.tenure.is_some()) else {
            return false;
        };
        let able = |v: &&MemberId| {
            let stays = self.seen.get(v).is_some_and(|s| !s.report.leaving);
            **v != self.me && stays && self.seen.is_live(v, self.now_ms, &self.settings)
        };
        let caught_up = |v: &&MemberId| self.consensus.as_ref().is_some_and(|c| c.has_caught_up(v));
        let next = known.voters.iter().filter(able).find(caught_up).cloned();
        let (Some(next), Some(consensus)) = (next, &mut self.consensus) else { return false };
        consensus.hand_leadership_to(&next);
        self.turn();
        true
    }

    /// Keeps the in-sync set true: who lags or is silent for long leaves it, who has caught up joins.
    pub(super) fn look_after_sync(
        &mut self,
        topology: &Topology,
        id: ShardId,
        shard: &Shard,
        members: &[&Member],
    ) {
        let Some(primary) = &shard.primary else { return };
        let Some(min) = self.seen.get(primary).map(|s| s.report.min_in_sync) else { return };
        if min > 0 {
            self.look_after_kept_set(topology, id, shard, min.into());
            return;
        }
        let mut wanted = shard.in_sync.clone();
        wanted.retain(|m, _| topology.members.contains_key(m));
        let mut waits = vec![];
        let lag_ms = self.settings.sync_lag_ms;
        for member in members.iter().filter(|m| m.id != *primary) {
            let is_live = self.seen.is_live(&member.id, self.now_ms, &self.settings);
            let attached = self.seen.attached_boot(topology, id, shard, &member.id);
            let attached = attached.filter(|_| is_live).cloned();
            let counted = shard.in_sync.get(&member.id);
            if attached.as_ref() == counted {
                continue;
            }
            let Some(boot) = attached else {
                if counted.is_some() && self.has_fallen_behind(id, shard, &member.id, lag_ms) {
                    wanted.remove(&member.id);
                }
                continue;
            };
            waits.push(member.id.clone());
            let since_ms = self.tenure.as_ref().and_then(|t| t.attached.get(&member.id));
            if since_ms.is_some_and(|since_ms| self.now_ms >= since_ms + self.settings.beat_ms) {
                wanted.insert(member.id.clone(), boot);
            }
        }
        let now_ms = self.now_ms;
        let Some(tenure) = &mut self.tenure else { return };
        for member in members {
            if waits.contains(&member.id) {
                tenure.attached.entry(member.id.clone()).or_insert(now_ms);
            } else {
                tenure.attached.remove(&member.id);
            }
        }
        self.put_sync(id, shard, wanted, None);
    }

    fn put_sync(
        &mut self,
        id: ShardId,
        shard: &Shard,
        in_sync: BTreeMap<MemberId, String>,
        expected: Option<Epoch>,
    ) {
        if in_sync != shard.in_sync {
            let change = Change::Synced { shard: id, epoch: shard.epoch, in_sync };
            self.put_for(id, change, expected);
        }
    }

    /// Puts a finding about a shard into the log, if the one before it has come true.
    pub(super) fn put_for(&mut self, id: ShardId, change: Change, expected: Option<Epoch>) {
        let is_free = self.tenure.as_ref().is_some_and(|t| !t.finding.contains_key(&id));
        if is_free
            && let Some(index) = self.put(change, expected)
            && let Some(tenure) = &mut self.tenure
        {
            tenure.finding.insert(id, index);
        }
    }

    /// The set that its primary keeps: nobody is added, and of those that are away or about to end, who has been so
    /// for longest goes first, as long as more than `min` are in it. Writes wait for them meanwhile.
    fn look_after_kept_set(&mut self, topology: &Topology, id: ShardId, shard: &Shard, min: usize) {
        let lag_ms = self.settings.kept_lag_ms;
        let mut away: Vec<(u64, &MemberId)> = vec![];
        for (member, boot) in
            shard.in_sync.iter().filter(|(m, _)| shard.primary.as_ref() != Some(m))
        {
            let report = self.seen.get(member).map(|s| &s.report).filter(|r| r.boot == *boot);
            if report.is_some_and(|r| r.leaving) {
                away.push((0, member));
            } else if self.has_fallen_behind(id, shard, member, lag_ms) {
                away.push((self.seen.last_in_sync_ms(id, shard, member).unwrap_or(0), member));
            }
        }
        away.sort_unstable();
        let mut wanted = shard.in_sync.clone();
        wanted.retain(|m, _| topology.members.contains_key(m));
        for (_, member) in away {
            if wanted.len() > min {
                wanted.remove(member);
            }
        }
        // Who has left meanwhile, and come again, is not to be in it by this.
        self.put_sync(id, shard, wanted, Some(topology.epoch));
    }

    /// Its primary keeps the set itself, and waits for everybody in it: it is never longer than the truth.
    pub(super) fn keeps_its_set(&self, shard: &Shard) -> bool {
        let primary = shard.primary.as_ref().and_then(|p| self.seen.get(p));
        primary.is_some_and(|s| s.report.min_in_sync > 0)
    }

    /// A member of the set that was not known to be in sync for `lag_ms`. Who leads anew goes by
    /// what it heard before, so that one leader after another does not give it more and more time; a
    /// live member is heard by then.
    fn has_fallen_behind(
        &self,
        id: ShardId,
        shard: &Shard,
        member: &MemberId,
        lag_ms: u64,
    ) -> bool {
        let Some(tenure) = &self.tenure else { return false };
        let last_ms = self.seen.last_in_sync_ms(id, shard, member).unwrap_or(0);
        let until_ms = last_ms + lag_ms;
        self.now_ms >= until_ms.max(tenure.since_ms + self.settings.suspect_ms)
    }

    /// The set is true: each of its members was in sync lately. Else the primary waits until who is
    /// not has left the set, or what it acknowledges may be lost however long ago that was.
    pub(super) fn is_set_true(&self, id: ShardId, shard: &Shard) -> bool {
        let lag_ms = self.settings.sync_lag_ms + 2 * self.settings.beat_ms;
        let mut others = shard.in_sync.keys().filter(|m| shard.primary.as_ref() != Some(*m));
        others.all(|member| {
            let last_ms = self.seen.last_in_sync_ms(id, shard, member);
            last_ms.is_some_and(|last_ms| self.now_ms < last_ms + lag_ms)
        })
    }

    /// Moves the council's seats, one change at a time. see: `super::seating`
    pub(super) fn look_after_voters(&mut self, topology: &Topology) {
        let Some(tenure) = &self.tenure else { return };
        let presence = |id: &MemberId| {
            if tenure.is_departing(id) {
                return Presence::Departing;
            }
            self.seen.presence(id, self.now_ms, tenure.since_ms, &self.settings)
        };
        let wanted = pick(topology, presence);
        let Some(consensus) = self.consensus.as_ref().filter(|c| !c.is_changing_voters()) else {
            return;
        };
        let learners: Vec<MemberId> = consensus.learners().cloned().collect();
        let is_ending = |v: &&MemberId| {
            tenure.is_departing(v) || self.seen.get(v).is_some_and(|s| s.report.leaving)
        };
        let ending = topology.voters.iter().filter(is_ending).cloned().collect();
        let seats = Seats {
            me: &self.me,
            voters: &topology.voters,
            members: &topology.members,
            learners: &learners,
            wanted: &wanted,
            ending: &ending,
        };
        let change = seats.next(|v| self.is_there(v), |m| consensus.has_caught_up(m));
        let (Some(change), Some(consensus)) = (change, &mut self.consensus) else { return };
        match change {
            SeatChange::Learn(m) => consensus.change_voter(ConfChangeType::AddLearnerNode, &m),
            SeatChange::Vote(m) => consensus.change_voter(ConfChangeType::AddNode, &m),
            SeatChange::Leave(m) => consensus.change_voter(ConfChangeType::RemoveNode, &m),
            SeatChange::HandOver(m) => consensus.hand_leadership_to(&m),
        }
    }

    /// Who is not heard may know only voters that are none any more, and have nobody to report to: once in a
    /// failure timeout the leader tells some of those, one after the other, who is there now.
    pub(super) fn call_the_silent(&mut self, topology: &Arc<Topology>) {
        let Some(tenure) = &mut self.tenure else { return };
        if self.now_ms < tenure.called_ms + self.settings.failure_timeout_ms {
            return;
        }
        tenure.called_ms = self.now_ms;
        let last = tenure.called.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let after = topology.members.range((last, Bound::Unbounded)).map(|(id, _)| id);
        let is_silent =
            |id: &&MemberId| **id != self.me && !self.seen.is_live(id, self.now_ms, &self.settings);
        let called: Vec<_> = after.filter(is_silent).take(CALLED_MAX).cloned().collect();
        // Those who come first in the next round, when this one is over.
        tenure.called = called.last().filter(|_| called.len() == CALLED_MAX).cloned();
        called.iter().for_each(|m| self.tell_topology(topology, m));
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
