//! Whose majority acknowledges, as the primary keeps it where a majority counts.
//!
//! The electors of a shard stand in the council's topology. A write is acknowledged once a majority of them has it, and
//! nobody is promoted before half of them have spoken, so that somebody who has it is among those. Members come and go by
//! the word of others; electors change by their primary's word alone, once the next majority has what the last one had:
//!
//! ```text
//! the shard's members, but for those about to leave, are other than its electors
//!  1. wanted   a majority of them has what the journal held when they were first wanted | nobody waits for it
//!  2. awaited  acknowledgements wait for both majorities from here on
//!  3. marked   at a later look: the end of the journal then; the new majority has that, too
//!  4. proposed to the council, on condition that the topology is the one known here
//!     -> they are the electors, or the topology has moved on: then that proposal can come to nothing any more
//! ```
//!
//! The same steps as those into an in-sync set, for the same reasons: see `super::set`. Without them a replica could
//! leave of which a majority consisted, while another one lags: that one and nobody else would be half of those who stay.
//! Who leaves is therefore let go only once it is no elector (see `crate::council`), and who has gone without a word, or
//! comes under the same name with an empty disk, stays an elector until those who are there have what it had.

use std::collections::BTreeSet;

use super::proposal::Proposal;
use super::set::{Acked, Follower};
use crate::topology::{Change, Epoch, MemberId, ShardId, Topology};

/// Those who are to be the electors.
#[derive(Clone, Debug)]
struct Next {
    members: BTreeSet<MemberId>,
    /// End of the journal when they were first wanted.
    seen: u64,
    /// Acknowledgements wait for a majority of them once there is one.
    proposal: Option<Proposal>,
}

/// The primary's side of its electors. All of its methods are called under one lock.
#[derive(Debug, Default)]
pub struct Electors {
    /// Shard epoch that all of this is about.
    epoch: Epoch,
    next: Option<Next>,
}

impl Electors {
    /// What those have who must have a write. `me`: the primary itself.
    pub fn state(
        &self,
        topology: &Topology,
        id: ShardId,
        me: &MemberId,
        followers: &[Follower<'_>],
    ) -> Acked {
        let now = majority(&topology.electors_of(id), me, followers);
        let Some(next) = self.next.as_ref().filter(|next| next.proposal.is_some()) else {
            return now;
        };
        let next = majority(&next.members, me, followers);
        Acked { offset: now.offset.min(next.offset), enough: now.enough && next.enough }
    }

    /// Looks at who is there, once in a while: what is to be put to the council, on condition that its topology still has
    /// the epoch of this one. `end`: of the journal, read after the call before this one had returned.
    pub fn look(
        &mut self,
        topology: &Topology,
        id: ShardId,
        me: &MemberId,
        followers: &[Follower<'_>],
        end: u64,
    ) -> Option<Change> {
        let shard = topology.shards.get(&id)?;
        if self.epoch != shard.epoch {
            *self = Self { epoch: shard.epoch, next: None };
        }
        let wanted: BTreeSet<MemberId> = topology
            .members_of(id)
            .into_iter()
            .map(|m| m.id.clone())
            .filter(|m| !shard.retiring.contains(m))
            .collect();
        let is_over = |next: &Next| {
            let fits = next.members == wanted;
            next.proposal.as_ref().map_or(!fits, |p| p.is_over(topology.epoch, fits))
        };
        if self.next.as_ref().is_some_and(is_over) {
            self.next = None;
        }
        if self.next.is_none() && (wanted == shard.electors || wanted.is_empty()) {
            return None;
        }
        let fresh = Next { members: wanted, seen: end, proposal: None };
        let next = self.next.get_or_insert(fresh);
        let has = majority(&next.members, me, followers).offset;
        match &mut next.proposal {
            Some(proposal) => proposal.look(Some(has), end, topology.epoch),
            None if has >= next.seen => next.proposal = Some(Proposal::default()),
            None => {}
        }
        next.proposal.as_ref().filter(|p| p.is_for(topology.epoch))?;
        let electors = next.members.clone();
        Some(Change::Electors { shard: id, epoch: shard.epoch, electors })
    }
}

/// What a majority of them has: half of them, rounded up to more than half, the primary among them if it is one.
fn majority(electors: &BTreeSet<MemberId>, me: &MemberId, followers: &[Follower<'_>]) -> Acked {
    let needed = electors.len() / 2 + 1 - usize::from(electors.contains(me));
    let others = || electors.iter().filter(|id| *id != me);
    let heard = others().filter(|id| followers.iter().any(|f| f.id == **id && f.is_heard)).count();
    let offset = |id: &MemberId| followers.iter().filter(|f| f.id == id).map(|f| f.offset).max();
    let mut offsets: Vec<u64> = others().filter_map(offset).collect();
    offsets.sort_unstable_by_key(|offset| std::cmp::Reverse(*offset));
    let offset = match needed {
        0 => u64::MAX,
        _ => offsets.get(needed - 1).copied().unwrap_or(0),
    };
    Acked { offset, enough: heard >= needed }
}

#[cfg(test)]
mod tests;
