//! What the council's leader does: notices who is gone, and appoints who takes over. see: `super::grant` for the leases

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::choose::{Candidate, Choice, Rules, choose};
use super::consensus::{Consensus, Proposal};
use super::departure::Departure;
use super::grant::Round;
use super::handover::Handover;
use super::message::{Renewal, Stamp};
use super::{Council, detect::Suspicion, refusal};
use crate::topology::{Change, Epoch, Member, MemberId, OwnChange, Shard, ShardId, Topology};

/// What a leader remembers of its term; a later leader knows none of it and needs none of it.
pub(super) struct Tenure {
    pub(super) term: u64,
    pub(super) since_ms: u64,
    /// When this leader last granted something for a shard.
    granted: BTreeMap<ShardId, u64>,
    pub(super) collected: Vec<(MemberId, Renewal)>,
    /// The last renewal of each member that could not be granted, but may be once more is applied: a new primary
    /// may know of its promotion before this leader does, whose own disk is not needed for that.
    pub(super) refused: BTreeMap<MemberId, Renewal>,
    pub(super) rounds: VecDeque<Round>,
    pub(super) round_last: u64,
    /// Index of the `Promote` or other change that is in the log and not applied yet.
    pub(super) promoting: BTreeMap<ShardId, u64>,
    /// The same of a `Synced` or `Retiring`.
    pub(super) finding: BTreeMap<ShardId, u64>,
    pub(super) other: Option<u64>,
    losses: BTreeMap<ShardId, Loss>,
    unserved: BTreeMap<ShardId, Unserved>,
    pub(super) released: BTreeMap<ShardId, (Epoch, u64)>,
    pub(super) handovers: BTreeMap<ShardId, Handover>,
    pub(super) departures: BTreeMap<MemberId, Departure>,
    /// Since when somebody wants to take the place of a member that is still there.
    pub(super) succeeded: BTreeMap<MemberId, u64>,
    /// Since when a member that is not in the in-sync set belongs there.
    pub(super) attached: BTreeMap<MemberId, u64>,
    /// When silent members were called last, and which one was the last of those.
    pub(super) called_ms: u64,
    pub(super) called: Option<MemberId>,
    unanswered: BTreeMap<u64, (Option<MemberId>, u64)>,
}

/// A shard whose primary is to be replaced.
struct Loss {
    since_ms: u64,
    polled_ms: u64,
    reason: String,
}

/// A shard epoch that began with this leader's own promotion, and that nobody has had a lease of yet: no other leader can have
/// granted one, so nothing was acknowledged under it, and who was in sync before it lacks nothing.
struct Unserved {
    epoch: Epoch,
    in_sync: BTreeMap<MemberId, String>,
}

impl Tenure {
    pub(super) fn new(term: u64, since_ms: u64) -> Self {
        Self {
            term,
            since_ms,
            granted: BTreeMap::new(),
            collected: vec![],
            refused: BTreeMap::new(),
            rounds: VecDeque::new(),
            round_last: 0,
            promoting: BTreeMap::new(),
            finding: BTreeMap::new(),
            other: None,
            losses: BTreeMap::new(),
            unserved: BTreeMap::new(),
            released: BTreeMap::new(),
            handovers: BTreeMap::new(),
            departures: BTreeMap::new(),
            succeeded: BTreeMap::new(),
            attached: BTreeMap::new(),
            called_ms: since_ms,
            called: None,
            unanswered: BTreeMap::new(),
        }
    }

    pub(super) fn collect(&mut self, from: MemberId, renewal: Renewal) {
        self.refused.remove(&from);
        self.collected.retain(|(m, _)| *m != from);
        self.collected.push((from, renewal));
    }

    /// A beat of a member of that shard may be what it waits for.
    pub(super) fn is_waiting(&self, shard: ShardId) -> bool {
        self.losses.contains_key(&shard) || self.handovers.contains_key(&shard)
    }

    /// The entry at `index` is applied: who asked for it.
    pub(super) fn applied(&mut self, index: u64) -> Option<(Option<MemberId>, u64)> {
        self.promoting.retain(|_, i| *i != index);
        self.finding.retain(|_, i| *i != index);
        self.other = self.other.filter(|i| *i != index);
        self.departed(index);
        for (from, renewal) in std::mem::take(&mut self.refused) {
            self.collect(from, renewal);
        }
        self.unanswered.remove(&index)
    }

    pub(super) fn into_unanswered(self) -> Vec<(Option<MemberId>, u64)> {
        let handovers = self.handovers.into_values().map(|h| (h.from, h.token));
        let departures = self.departures.into_values().filter_map(Departure::unanswered);
        self.unanswered.into_values().chain(handovers).chain(departures).collect()
    }

    pub(super) fn reasons(&self) -> BTreeMap<ShardId, String> {
        self.losses.iter().map(|(shard, loss)| (*shard, loss.reason.clone())).collect()
    }

    pub(super) fn await_answer(&mut self, index: u64, from: Option<MemberId>, token: u64) {
        self.unanswered.insert(index, (from, token));
    }

    pub(super) fn note_promoting(&mut self, shard: ShardId, index: u64) {
        self.promoting.insert(shard, index);
        self.losses.remove(&shard);
    }

    /// The promotion at `index` began that epoch. Where it is this leader's own, the in-sync set from before is remembered until
    /// the new primary gets its lease.
    pub(super) fn note_promoted(&mut self, index: u64, former: Shard, epoch: Epoch) {
        let Some(id) = self.promoting.iter().find(|(_, i)| **i == index).map(|(id, _)| *id) else {
            return;
        };
        let before = self.unserved.remove(&id).filter(|u| u.epoch == former.epoch);
        let mut in_sync = before.map(|u| u.in_sync).unwrap_or_default();
        in_sync.extend(former.in_sync);
        self.unserved.insert(id, Unserved { epoch, in_sync });
    }

    /// Somebody has got a lease of the shard at `now_ms`.
    pub(super) fn note_granted(&mut self, id: ShardId, now_ms: u64) {
        self.granted.insert(id, now_ms);
        self.unserved.remove(&id);
    }

    /// From when on every lease that was ever granted for the shard is over.
    pub(super) fn fence_ms(&self, id: ShardId, shard: &Shard, lease_wait_ms: u64) -> u64 {
        if shard.epoch == 0 {
            return 0;
        }
        let last_ms = self.granted.get(&id).copied().unwrap_or(0);
        last_ms.max(self.since_ms) + lease_wait_ms
    }
}

impl Council {
    pub(super) fn suspicion(&self, shard: &Shard, since_ms: u64) -> Option<Suspicion> {
        self.seen.suspicion(shard, self.now_ms, since_ms, &self.settings)
    }

    /// Puts a change into the log; the index at which it will be applied.
    pub(super) fn put(&mut self, change: Change, expected: Option<Epoch>) -> Option<u64> {
        self.consensus.as_mut()?.propose(&Proposal { change, expected })
    }

    /// Looks after every shard, the voters and the accounts.
    pub(super) fn lead(&mut self) {
        let Some(topology) = self.topology_led() else { return };
        let mut by_shard = topology.members_by_shard();
        for (id, shard) in &topology.shards {
            let members = by_shard.remove(id).unwrap_or_default();
            self.look_after_handover(&topology, *id, shard);
            self.look_after(&topology, *id, shard, &members);
        }
        self.look_after_departures(&topology);
        self.look_after_voters(&topology);
        self.call_the_silent(&topology);
        self.note_dropped(&topology);
        self.confirm();
    }

    /// A member has spoken: its shard may have waited for that.
    pub(super) fn look_after_shard_of(&mut self, member: &MemberId) {
        let Some(topology) = self.topology_led() else { return };
        let id = topology.members.get(member).and_then(|m| m.shard);
        let Some(id) = id.filter(|id| self.tenure.as_ref().is_some_and(|t| t.is_waiting(*id)))
        else {
            return;
        };
        let Some(shard) = topology.shards.get(&id) else { return };
        self.look_after_handover(&topology, id, shard);
        self.look_after(&topology, id, shard, &topology.members_of(id));
    }

    /// What this leader's log has come to; `None` while it may not lead (yet).
    fn topology_led(&self) -> Option<Arc<Topology>> {
        let consensus = self.consensus.as_ref()?;
        if self.tenure.is_none() || !consensus.is_caught_up() {
            return None;
        }
        let machine = &consensus.machine;
        Some(match &self.known {
            Some(known) if known.epoch == machine.epoch => known.clone(),
            _ => Arc::new(machine.clone()),
        })
    }

    fn look_after(&mut self, topology: &Topology, id: ShardId, shard: &Shard, members: &[&Member]) {
        let Some(tenure) = &mut self.tenure else { return };
        if tenure.promoting.contains_key(&id) || tenure.handovers.contains_key(&id) {
            return;
        }
        let since_ms = tenure.since_ms;
        let Some(suspicion) = self.seen.suspicion(shard, self.now_ms, since_ms, &self.settings)
        else {
            tenure.losses.remove(&id);
            self.look_after_sync(topology, id, shard, members);
            return;
        };
        let fresh = Loss {
            since_ms: self.now_ms,
            polled_ms: 0,
            reason: format!("the primary is to be replaced: {suspicion:?}"),
        };
        let lost_ms = tenure.losses.entry(id).or_insert(fresh).since_ms;
        let fence_ms = tenure.fence_ms(id, shard, self.settings.lease_wait_ms);
        if self.now_ms < fence_ms {
            return;
        }
        let patience_ms = fence_ms.max(lost_ms) + 3 * self.settings.beat_ms;
        if shard.epoch > 0 && self.poll(members, id, fence_ms) && self.now_ms < patience_ms {
            return;
        }
        let patience_over = self.now_ms >= lost_ms.max(since_ms) + self.settings.grace_ms;
        let candidates: Vec<_> = members.iter().map(|m| self.candidate(m, fence_ms)).collect();
        let reports = || members.iter().filter_map(|m| self.seen.get(&m.id)).map(|s| &s.report);
        // Who has promised by majority is never replaced by whoever happens to be there.
        let is_strict = reports().any(|r| r.quorum);
        let rules = Rules {
            patience_over: patience_over && !is_strict,
            set_has_all: reports().any(|r| r.min_in_sync > 0),
        };
        let served = self.as_last_served(id, shard);
        match choose(topology, id, &served, &candidates, rules) {
            Choice::Appoint { to, boot, lineage } => {
                let last_ms = shard.primary.as_ref().and_then(|p| self.seen.get(p));
                let last_ms = last_ms.map_or(since_ms, |s| s.at_ms.min(lost_ms));
                let window_ms = self.now_ms.saturating_sub(last_ms).max(1);
                let expected = shard.epoch;
                let by_majority = self.acknowledges_by_majority(&to);
                let change = Change::Promote {
                    shard: id,
                    to,
                    expected,
                    window_ms,
                    boot,
                    lineage,
                    by_majority,
                };
                self.promote(id, change);
            }
            Choice::Wait(reason) => {
                if let Some(loss) = self.tenure.as_mut().and_then(|t| t.losses.get_mut(&id)) {
                    loss.reason = reason;
                }
            }
        }
    }

    /// The shard with the in-sync set of the last epoch that somebody had a lease of: when a new primary dies before it has
    /// one, its predecessor takes over again, unless that was restarted meanwhile.
    fn as_last_served<'a>(&self, id: ShardId, shard: &'a Shard) -> Cow<'a, Shard> {
        let unserved = self.tenure.as_ref().and_then(|t| t.unserved.get(&id));
        let Some(unserved) = unserved.filter(|u| u.epoch == shard.epoch) else {
            return Cow::Borrowed(shard);
        };
        let mut served = shard.clone();
        for (member, boot) in &unserved.in_sync {
            if self.seen.get(member).is_some_and(|s| s.report.boot == *boot) {
                served.in_sync.entry(member.clone()).or_insert_with(|| boot.clone());
            }
        }
        Cow::Owned(served)
    }

    /// As far as is known.
    pub(super) fn acknowledges_by_majority(&self, member: &MemberId) -> bool {
        self.seen.get(member).is_some_and(|s| s.report.quorum && s.report.min_in_sync == 0)
    }

    pub(super) fn promote(&mut self, id: ShardId, change: Change) -> Option<u64> {
        let index = self.put(change, None)?;
        self.tenure.as_mut()?.note_promoting(id, index);
        Some(index)
    }

    /// The member, with its report if that was made after `fence_ms`.
    fn candidate<'a>(&'a self, member: &'a Member, fence_ms: u64) -> Candidate<'a> {
        let term = self.term();
        let is_current =
            |as_of: Stamp| fence_ms == 0 || (as_of.term == term && as_of.at_ms > fence_ms);
        let live = self.seen.is_live(&member.id, self.now_ms, &self.settings);
        let seen = self.seen.get(&member.id).filter(|s| live && is_current(s.as_of));
        Candidate {
            id: &member.id,
            name: &member.name,
            report: seen.map(|s| &s.report).filter(|r| !r.loading),
        }
    }

    /// Asks those that are there, but have not spoken since `fence_ms`. `true`: there are some.
    pub(super) fn poll(&mut self, members: &[&Member], id: ShardId, fence_ms: u64) -> bool {
        let is_late = |m: &&&Member| {
            let seen = self.seen.get(&m.id).filter(|s| !s.report.loading);
            seen.is_some()
                && self.seen.is_live(&m.id, self.now_ms, &self.settings)
                && self.candidate(m, fence_ms).report.is_none()
        };
        let late: Vec<MemberId> = members.iter().filter(is_late).map(|m| m.id.clone()).collect();
        if late.is_empty() {
            return false;
        }
        let every_ms = self.settings.beat_ms / 2;
        let loss = self.tenure.as_mut().and_then(|t| t.losses.get_mut(&id));
        let is_due = loss.is_none_or(|l| {
            let is_due = self.now_ms >= l.polled_ms + every_ms || l.polled_ms < fence_ms;
            l.polled_ms = if is_due { self.now_ms } else { l.polled_ms };
            is_due
        });
        if is_due {
            late.iter().for_each(|m| self.send_heard(m, true));
        }
        true
    }

    /// A wish of the operator's or of an unmanaged member's.
    pub(super) fn wish(
        &mut self,
        from: Option<MemberId>,
        token: u64,
        change: Change,
        expected: Option<Epoch>,
    ) {
        let is_ready = self.consensus.as_ref().is_some_and(Consensus::is_caught_up);
        if self.tenure.is_none() || !is_ready {
            self.answer(from, token, Err(refusal::NOT_LEADING.to_owned()));
            return;
        }
        if let Change::Join(member) | Change::Enter { member, .. } = &change
            && let Err(why) = self.may_replace(member)
        {
            self.answer(from, token, Err(why));
            return;
        }
        match change {
            Change::Own(
                OwnChange::Forget { ref member } | OwnChange::Replicate { ref member, .. },
            ) => {
                let member = member.clone();
                self.start_departure(from, token, member, change, expected);
            }
            // Said late it would count on somebody whom the primary does not wait for any more.
            Change::JoinSync { .. } | Change::Electors { .. } if expected.is_none() => {
                let why = "who is waited for changes in a known topology";
                self.answer(from, token, Err(why.to_owned()));
            }
            Change::Join(_)
            | Change::Enter { .. }
            | Change::Bar { .. }
            | Change::JoinSync { .. }
            | Change::Electors { .. }
            | Change::Assign { .. }
            | Change::Move { .. }
            | Change::Moved { .. }
            | Change::CancelMove { .. }
            | Change::Own(_) => match self.put(change, expected) {
                Some(index) => {
                    if let Some(tenure) = &mut self.tenure {
                        tenure.await_answer(index, from, token);
                    }
                }
                None => self.answer(from, token, Err(refusal::LOG_BUSY.to_owned())),
            },
            Change::Leave { ref member } => {
                let member = member.clone();
                self.start_departure(from, token, member, change, expected);
            }
            Change::Promote { shard, to, expected, .. } => {
                self.start_handover(from, token, shard, to, expected);
            }
            Change::Voters { .. }
            | Change::Dropped { .. }
            | Change::Synced { .. }
            | Change::Retiring { .. } => {
                let why = "only the council itself decides that";
                self.answer(from, token, Err(why.to_owned()));
            }
        }
    }
}
