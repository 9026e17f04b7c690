//! A member leaves in steps: what it counts for goes to others first, then it is forgotten.
//!
//! * Its vote. Who is in the topology no more has no address, and nobody can tell it anything: its vote is lost. Two
//!   that leave one right after the other could then be all that a majority lacks, for ever. So the leader keeps the
//!   wish, and gives the vote away (`pick` counts the member out).
//! * Its part in what a majority of its shard has acknowledged. It stands in the topology as one that is retiring, and
//!   is let go once its primary has found that a majority of the others has all of that: see `crate::quorum::electors`.
//!
//! And a primary must serve its shard. What cannot come about within a few failure timeouts is refused, and the member
//! stays.

use std::collections::{BTreeMap, BTreeSet};

use super::Council;
use super::lead::Tenure;
use crate::topology::{Change, Epoch, Member, MemberId, OwnChange, ShardId, Topology};

/// A wish is kept for this many failure timeouts: one less than who asked waits for an answer.
const TIMEOUTS: u64 = 4;

/// A member that is to leave, and who wished so.
pub(super) struct Departure {
    until_ms: u64,
    /// The `Leave`, or an unmanaged cluster's `Forget`, or `Replicate` for who leaves its shard only.
    change: Change,
    from: Option<MemberId>,
    token: u64,
    /// Where its `Leave` stands in the log, once it does.
    index: Option<u64>,
}

impl Departure {
    /// Who is told by nobody else: from when its `Leave` is in the log, that one is answered.
    pub(super) fn unanswered(self) -> Option<(Option<MemberId>, u64)> {
        self.index.is_none().then_some((self.from, self.token))
    }
}

impl Tenure {
    /// It is to leave the cluster, and its vote goes to another.
    pub(super) fn is_departing(&self, member: &MemberId) -> bool {
        self.departures.get(member).is_some_and(|d| ends_membership(&d.change))
    }

    pub(super) fn departed(&mut self, index: u64) {
        self.departures.retain(|_, d| d.index != Some(index));
    }
}

fn ends_membership(change: &Change) -> bool {
    !matches!(change, Change::Own(OwnChange::Replicate { .. }))
}

impl Council {
    pub(super) fn start_departure(
        &mut self,
        from: Option<MemberId>,
        token: u64,
        member: MemberId,
        change: Change,
        expected: Option<Epoch>,
    ) {
        let Some(machine) = self.consensus.as_ref().map(|c| &c.machine) else { return };
        let fits = match expected {
            Some(epoch) if epoch != machine.epoch => {
                Err(format!("the topology is at epoch {}", machine.epoch))
            }
            _ => machine
                .clone()
                .apply(&change)
                .and_then(|()| self.may_depart(machine, &member, &change)),
        };
        let is_asked = self.tenure.as_ref().is_none_or(|t| t.departures.contains_key(&member));
        let refusal = match fits {
            Ok(()) if is_asked => Some("the member is about to leave already".to_owned()),
            fits => fits.err(),
        };
        if let Some(why) = refusal {
            self.answer(from, token, Err(why));
            return;
        }
        if let Some(tenure) = &mut self.tenure {
            let until_ms = self.now_ms + TIMEOUTS * self.settings.failure_timeout_ms;
            let departure = Departure { until_ms, change, from, token, index: None };
            tenure.departures.insert(member, departure);
        }
        self.lead();
    }

    /// While no primary serves a shard, any of its members may be what is left of its data.
    /// (Who is forgotten by a user's word with all that it alone had, is gone: not one that is there.)
    pub(super) fn may_depart(
        &self,
        topology: &Topology,
        member: &MemberId,
        change: &Change,
    ) -> Result<(), String> {
        let Some(id) = topology.members.get(member).and_then(|m| m.shard) else { return Ok(()) };
        let Some(shard) = topology.shards.get(&id) else { return Ok(()) };
        if matches!(change, Change::Own(OwnChange::Forget { .. }))
            && topology.members_of(id).len() == 1
        {
            return if self.is_there(member) && !shard.slots.is_empty() {
                Err(format!("the member is the primary of shard {id}, which owns slots"))
            } else {
                Ok(())
            };
        }
        let since_ms = self.tenure.as_ref().map_or(0, |t| t.since_ms);
        if shard.slots.is_empty() || self.suspicion(shard, since_ms).is_none() {
            return Ok(());
        }
        Err(format!(
            "no primary serves shard {id} now, and any member may be all that is left of it"
        ))
    }

    /// A majority that has acknowledged something may lack it without this member.
    fn counts(&self, topology: &Topology, member: &MemberId) -> bool {
        let shard = topology.members.get(member).and_then(|m| topology.shards.get(&m.shard?));
        shard.is_some_and(|s| {
            let primary = s.primary.as_ref().filter(|p| *p != member);
            !s.slots.is_empty()
                && s.electors.contains(member)
                && primary.is_some_and(|p| self.acknowledges_by_majority(p))
        })
    }

    /// Has primaries look for other electors than those who are to leave, and no longer once those stay.
    fn note_retiring(&mut self, topology: &Topology) {
        let Some(tenure) = &self.tenure else { return };
        let mut wanted: BTreeMap<ShardId, BTreeSet<MemberId>> = BTreeMap::new();
        for member in tenure.departures.keys() {
            let Some(id) = topology.members.get(member).and_then(|m| m.shard) else { continue };
            let is_noted = topology.shards.get(&id).is_some_and(|s| s.retiring.contains(member));
            if is_noted || self.counts(topology, member) {
                wanted.entry(id).or_default().insert(member.clone());
            }
        }
        for (id, shard) in &topology.shards {
            let members = wanted.remove(id).unwrap_or_default();
            if shard.retiring != members {
                self.put_for(*id, Change::Retiring { shard: *id, members }, None);
            }
        }
    }

    /// It is this member, or one that is heard.
    pub(super) fn is_there(&self, member: &MemberId) -> bool {
        *member == self.me || self.seen.is_live(member, self.now_ms, &self.settings)
    }

    /// Whoever joins under a member's name takes its place. A pod that was deleted by force may live on for a while: its
    /// process is asked to end, and hands over what it serves, unless it is forgotten before. It is waited for as long as
    /// it is heard, and not for longer than a silent voter keeps its seat.
    pub(super) fn may_replace(&mut self, member: &Member) -> Result<(), String> {
        let Some(consensus) = &self.consensus else { return Ok(()) };
        let namesake = |m: &&Member| m.name == member.name && m.id != member.id;
        let old = consensus.machine.members.values().find(namesake);
        let Some(old) = old.filter(|old| self.is_there(&old.id)) else { return Ok(()) };
        let Some(tenure) = &mut self.tenure else { return Ok(()) };
        let since_ms = *tenure.succeeded.entry(old.id.clone()).or_insert(self.now_ms);
        if self.now_ms >= since_ms + self.settings.voter_silence_ms {
            return Ok(());
        }
        Err(format!("{}, whose place it is to take, still answers as {}", old.name, old.id))
    }

    /// Lets those go for whom others count by now.
    pub(super) fn look_after_departures(&mut self, topology: &Topology) {
        self.note_retiring(topology);
        let Some(tenure) = &self.tenure else { return };
        let waits = tenure.departures.iter().filter(|(_, d)| d.index.is_none());
        let waits: Vec<(MemberId, Change)> =
            waits.map(|(member, d)| (member.clone(), d.change.clone())).collect();
        for (member, change) in waits {
            let is_changing = self.consensus.as_ref().is_none_or(|c| c.is_changing_voters());
            let votes = is_changing || topology.voters.contains(&member);
            let is_needed = ends_membership(&change) && votes || self.counts(topology, &member);
            if !is_needed && self.may_depart(topology, &member, &change).is_ok() {
                let index = self.put(change, None);
                let Some(tenure) = &mut self.tenure else { return };
                let departure = tenure.departures.get_mut(&member);
                if let (Some(departure), Some(index)) = (departure, index) {
                    departure.index = Some(index);
                    let (from, token) = (departure.from.clone(), departure.token);
                    tenure.await_answer(index, from, token);
                }
            }
        }
        let now_ms = self.now_ms;
        let Some(tenure) = &mut self.tenure else { return };
        let is_over = |_: &MemberId, d: &mut Departure| d.index.is_none() && d.until_ms <= now_ms;
        let over: Vec<_> = tenure.departures.extract_if(.., is_over).collect();
        for (member, departure) in over {
            let lacks = self.counts(topology, &member).then(|| {
                format!("without {member} no majority of its shard has all that was acknowledged")
            });
            let why = self.may_depart(topology, &member, &departure.change).err().or(lacks);
            let vote = || format!("{member} votes, and no other member can take its vote now");
            let why = why.unwrap_or_else(vote);
            self.answer(departure.from, departure.token, Err(why));
        }
    }
}
