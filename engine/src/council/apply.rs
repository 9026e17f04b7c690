//! How a committed change alters the topology: the council's state machine.
//!
//! `apply` depends on nothing but the topology and the change, so that every voter ends in the same
//! state. A change that does not fit (any more) is refused with a reason and alters nothing.

use std::collections::BTreeSet;

use crate::topology::{
    Change, Epoch, FORMAT, Failover, Member, MemberId, SLOTS, Shard, ShardId, SlotRange, Topology,
};

/// Failovers that the topology remembers.
const FAILOVERS_MAX: usize = 32;
/// Longest name or host, bytes (a DNS name).
const NAME_BYTES_MAX: usize = 253;

/// The number by which the Raft library knows a member: the first 16 digits of its ID.
pub(super) fn raft_id(id: &str) -> Option<u64> {
    let digits = id.get(..16)?;
    u64::from_str_radix(digits, 16).ok().filter(|n| *n != 0)
}

fn is_member_id(id: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    id.len() == 40 && id.bytes().all(hex) && raft_id(id).is_some()
}

impl Topology {
    /// A new cluster of one member; shard `i` owns `shards[i]`.
    ///
    /// # Errors
    /// A reason, when the member or the slots do not make sense.
    pub fn form(
        cluster: String,
        incarnation: u64,
        me: &Member,
        shards: &[SlotRange],
    ) -> Result<Self, String> {
        let mut topology =
            Self { format: FORMAT, cluster, incarnation, epoch: 1, ..Self::default() };
        topology.apply(&Change::Join(me.clone()))?;
        for (shard, range) in (0..).zip(shards) {
            topology.apply(&Change::Assign { shard, slots: vec![*range] })?;
        }
        topology.voters.insert(me.id.clone());
        topology.epoch = 1;
        Ok(topology)
    }

    /// What survivors go on with when the majority of their council is gone for good: the next incarnation of the same
    /// cluster, in which they alone are members and `first` alone votes. No shard has a primary, so that one is chosen
    /// by what the survivors have; slots on their way stay where they were. `written`: the highest epoch under which any
    /// of them has written; they may have been told of it by their data before the council told them.
    ///
    /// # Errors
    /// When `first` is none of the members.
    pub fn survived_by(
        &self,
        survivors: &BTreeSet<MemberId>,
        first: &MemberId,
        written: Epoch,
    ) -> Result<Self, String> {
        if !survivors.contains(first) || !self.members.contains_key(first) {
            return Err(format!("{first} is none of the members that are left"));
        }
        let mut left = self.clone();
        left.incarnation += 1;
        left.data_since = if self.data_since == 0 { self.incarnation } else { self.data_since };
        left.epoch = left.epoch.max(written) + 1;
        left.members.retain(|id, _| survivors.contains(id));
        left.voters = BTreeSet::from([first.clone()]);
        left.moves.clear();
        for shard in left.shards.values_mut() {
            shard.primary = None;
            shard.in_sync.retain(|id, _| survivors.contains(id));
            shard.electors.retain(|id| survivors.contains(id));
            shard.retiring.clear();
        }
        Ok(left)
    }

    /// Applies a committed change; `epoch` grows by one unless it alters nothing.
    ///
    /// # Errors
    /// The reason why the change does not fit; the topology is as before.
    pub fn apply(&mut self, change: &Change) -> Result<(), String> {
        let altered = match change {
            Change::Join(member) => self.join(member)?,
            Change::Enter { member, seen } => {
                if *seen < self.barred && !self.members.contains_key(&member.id) {
                    return Err(format!(
                        "disks were barred at epoch {}, after the look at epoch {seen}: look again",
                        self.barred
                    ));
                }
                self.join(member)?
            }
            Change::Bar { name } => {
                if let Some(member) = self.members.values().find(|m| m.name == *name) {
                    return Err(format!("{name} is a member: {}", member.id));
                }
                self.barred = self.epoch + 1;
                true
            }
            Change::Leave { member } => self.leave(member)?,
            Change::Assign { shard, slots } => self.assign(*shard, slots)?,
            Change::Promote { shard, to, expected, window_ms, boot, lineage, by_majority } => {
                let epoch = self.epoch + 1;
                let electors = match by_majority {
                    true => self.electors_of(*shard).into_owned(),
                    false => BTreeSet::new(),
                };
                let shard = self.promotable(*shard, to, *expected)?;
                let (id, state) = shard;
                let from = state.primary.replace(to.clone());
                state.epoch = epoch;
                state.boot.clone_from(boot);
                state.floor.clone_from(lineage);
                state.electors = electors;
                // Who was replaced without having handed over has other data than its successor, until
                // it has followed that one.
                if *window_ms > 0
                    && let Some(from) = &from
                {
                    state.in_sync.remove(from);
                }
                state.in_sync.insert(to.clone(), boot.clone());
                self.note_failover(id, from, to, *window_ms);
                true
            }
            Change::Move { slots, from, to } => self.begin_move(slots, *from, *to)?,
            Change::Moved { id, from_epoch, to_epoch } => {
                self.end_move(*id, *from_epoch, *to_epoch)?
            }
            Change::CancelMove { id } => {
                let before = self.moves.len();
                self.moves.retain(|m| m.id != *id);
                self.moves.len() != before
            }
            Change::Synced { shard, epoch, in_sync } => {
                let known = self.shard_at(*shard, *epoch)?;
                let altered = known.in_sync != *in_sync;
                known.in_sync.clone_from(in_sync);
                altered
            }
            Change::JoinSync { shard: id, epoch, member, boot } => {
                if self.members.get(member).is_none_or(|m| m.shard != Some(*id)) {
                    return Err(format!("{member} is no member of shard {id}"));
                }
                let known = self.shard_at(*id, *epoch)?;
                let before = known.in_sync.insert(member.clone(), boot.clone());
                before.as_ref() != Some(boot)
            }
            Change::Electors { shard, epoch, electors } => {
                let known = self.shard_at(*shard, *epoch)?;
                let altered = known.electors != *electors;
                known.electors.clone_from(electors);
                altered
            }
            Change::Retiring { shard, members } => {
                let known = self.shards.get_mut(shard).ok_or("no such shard")?;
                let altered = known.retiring != *members;
                known.retiring.clone_from(members);
                altered
            }
            Change::Voters { voters } => {
                let altered = self.voters != *voters;
                self.voters.clone_from(voters);
                altered
            }
            Change::Dropped { shard, epoch, writes } => self
                .failovers
                .iter_mut()
                .find(|f| f.shard == *shard && f.epoch == *epoch && f.dropped_writes.is_none())
                .map(|f| f.dropped_writes = Some(*writes))
                .is_some(),
            Change::Own(change) => self.apply_own(change)?,
        };
        self.epoch += u64::from(altered);
        Ok(())
    }

    /// A member under the name of another takes its place: a name stands for one disk, so that the
    /// other's data set cannot come back.
    pub(super) fn join(&mut self, member: &Member) -> Result<bool, String> {
        if !is_member_id(&member.id) {
            return Err(format!("not a member ID: {:?}", member.id));
        }
        if member.name.is_empty() || member.name.len().max(member.host.len()) > NAME_BYTES_MAX {
            return Err("a member needs a name and a host of at most 253 bytes".into());
        }
        if let Some(known) = self.members.get(&member.id) {
            if known.shard != member.shard {
                return Err("a member never changes its shard".into());
            }
            if known == member {
                return Ok(false);
            }
        }
        let same_number = |id: &MemberId| *id != member.id && raft_id(id) == raft_id(&member.id);
        if self.members.keys().chain(&self.voters).any(same_number) {
            return Err("the ID is too much like another member's; make a new one".into());
        }
        let replaced = |m: &&Member| m.name == member.name && m.id != member.id;
        if let Some(old) = self.members.values().find(replaced).map(|m| m.id.clone()) {
            self.forget(&old);
        }
        if let Some(shard) = member.shard {
            self.shards.entry(shard).or_default();
        }
        self.members.insert(member.id.clone(), member.clone());
        Ok(true)
    }

    pub(super) fn leave(&mut self, id: &MemberId) -> Result<bool, String> {
        let leads = |s: &Shard| s.primary.as_ref() == Some(id) && !s.slots.is_empty();
        if let Some((shard, _)) = self.shards.iter().find(|(_, s)| leads(s)) {
            return Err(format!("the member is the primary of shard {shard}, which owns slots"));
        }
        let shard = self.members.get(id).and_then(|m| m.shard);
        let is_last = shard.is_some_and(|shard| self.members_of(shard).len() == 1);
        if let Some(under_way) = self.moves.iter().find(|m| is_last && Some(m.to) == shard) {
            return Err(format!("move {} goes to the member's shard", under_way.id));
        }
        if self.members.len() == 1 && self.members.contains_key(id) {
            return Err("the last member cannot leave".into());
        }
        Ok(self.forget(id))
    }

    pub(super) fn forget(&mut self, id: &MemberId) -> bool {
        for shard in self.shards.values_mut() {
            shard.in_sync.remove(id);
            shard.retiring.remove(id);
            if shard.primary.as_ref() == Some(id) {
                shard.primary = None;
                shard.boot.clear();
            }
        }
        let gone = self.members.remove(id);
        if let Some(shard) = gone.as_ref().and_then(|m| m.shard) {
            let empty = self.shards.get(&shard).is_some_and(|s| s.slots.is_empty());
            if empty && self.members_of(shard).is_empty() {
                self.shards.remove(&shard);
            }
        }
        gone.is_some()
    }

    fn assign(&mut self, shard: ShardId, slots: &[SlotRange]) -> Result<bool, String> {
        for range in slots {
            if range.first > range.last || range.last >= SLOTS {
                return Err(format!("not slots: {}-{}", range.first, range.last));
            }
            let taken = |s: &Shard| s.slots.iter().any(|r| overlap(r, range));
            if let Some((owner, _)) = self.shards.iter().find(|(id, s)| **id != shard && taken(s)) {
                return Err(format!(
                    "slots {}-{} belong to shard {owner} in part",
                    range.first, range.last
                ));
            }
        }
        let state = self.shards.entry(shard).or_default();
        let before = state.slots.clone();
        state.slots.extend_from_slice(slots);
        merge(&mut state.slots);
        Ok(state.slots != before)
    }

    fn promotable(
        &mut self,
        shard: ShardId,
        to: &MemberId,
        expected: Epoch,
    ) -> Result<(ShardId, &mut Shard), String> {
        if self.members.get(to).is_none_or(|m| m.shard != Some(shard)) {
            return Err(format!("{to} is no member of shard {shard}"));
        }
        Ok((shard, self.shard_at(shard, expected)?))
    }

    /// The shard, while it is at that epoch.
    fn shard_at(&mut self, id: ShardId, epoch: Epoch) -> Result<&mut Shard, String> {
        let shard = self.shards.get_mut(&id).ok_or("no such shard")?;
        if shard.epoch == epoch {
            Ok(shard)
        } else {
            Err(format!("the shard is at epoch {}", shard.epoch))
        }
    }

    fn note_failover(
        &mut self,
        shard: ShardId,
        from: Option<MemberId>,
        to: &MemberId,
        window_ms: u64,
    ) {
        if from.is_none() {
            return;
        }
        let epoch = self.epoch + 1;
        self.failovers.push(Failover {
            shard,
            epoch,
            from,
            to: to.clone(),
            // Nothing is dropped in a handover.
            dropped_writes: (window_ms == 0).then_some(0),
            window_ms,
        });
        let surplus = self.failovers.len().saturating_sub(FAILOVERS_MAX);
        self.failovers.drain(..surplus);
    }
}

pub(super) fn overlap(a: &SlotRange, b: &SlotRange) -> bool {
    a.first <= b.last && b.first <= a.last
}

/// Sorts the ranges and joins those that touch or overlap.
pub(super) fn merge(ranges: &mut Vec<SlotRange>) {
    ranges.sort_unstable();
    let mut merged: Vec<SlotRange> = Vec::with_capacity(ranges.len());
    for range in ranges.drain(..) {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    *ranges = merged;
}

#[cfg(test)]
mod tests;
