//! The in-sync set as its primary keeps it, where `minInSync` is given: who must have a write, and who joins.
//!
//! The set stands in the council's topology. A write is acknowledged once every member of the set has it, so
//! that any one of them can be promoted (as in Kafka). Members are counted by process: one that was restarted
//! may have lost what it had, and joins again.
//!
//! ```text
//! a replica's link is up          | its process is not in the set
//!  1. seen     it has what the journal held when it was first seen | nobody waits for it
//!  2. awaited  acknowledgements wait for it from here on
//!  3. marked   at a later look: the end of the journal then; it has that, too
//!  4. proposed to the council, on condition that the topology is the one known here
//!     -> in the set, or the topology has moved on: then that proposal can come to nothing any more
//! ```
//!
//! So it is awaited before the council may count on it (2 before 4), and has all that was acknowledged without it
//! (3 is after 2: whoever acknowledged without waiting for it did so before the mark). A proposal may be applied
//! late, but not once the topology has changed; until that is seen here it is awaited and proposed again, alive or not.
//!
//! The leader of the council adds nobody to such a set. It takes out who has fallen behind, and stops at `minInSync`: from there on
//! writes wait, and what was acknowledged is with all who are left in the set. A primary that has not heard of it
//! yet waits for one too many.

use std::collections::BTreeMap;

use super::proposal::Proposal;
use crate::topology::{Change, Epoch, MemberId, Shard, ShardId, Topology};

/// A replica that follows this primary: its member, the process, and the journal offset that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower<'a> {
    pub id: &'a str,
    pub boot: &'a str,
    pub offset: u64,
    /// It has said something of late.
    pub is_heard: bool,
}

/// On its way into the set.
#[derive(Clone, Debug)]
struct Joiner {
    id: MemberId,
    boot: String,
    proposal: Proposal,
}

/// The primary's side of the in-sync set. All of its methods are called under one lock.
#[derive(Debug, Default)]
pub struct InSync {
    /// Members, the primary among them, without which no write is acknowledged.
    min: usize,
    /// Shard epoch that all of this is about.
    epoch: Epoch,
    /// Followers outside of the set, with the end of the journal when each was first seen.
    seen: BTreeMap<(MemberId, String), u64>,
    /// At most one at a time.
    joiner: Option<Joiner>,
}

/// Who has what: see `InSync::state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Journal offset that all who are awaited have; `u64::MAX` where nobody is, 0 where the set is too small.
    pub offset: u64,
    /// There are enough members to go on with writes.
    pub enough: bool,
}

impl InSync {
    pub fn new(min: usize) -> Self {
        Self { min, ..Self::default() }
    }

    /// `minInSync`; 0: there is none.
    pub fn min(&self) -> usize {
        self.min
    }

    /// What those have who must have a write. `me`: the primary itself.
    pub fn state(&self, shard: &Shard, me: &MemberId, followers: &[Follower<'_>]) -> Acked {
        let offset_of = |id: &MemberId, boot: &String| {
            followers.iter().filter(|f| f.id == id && f.boot == boot).map(|f| f.offset).max()
        };
        let set = || shard.in_sync.iter().filter(|(id, _)| *id != me);
        let joiner = self.joiner.iter().map(|j| (&j.id, &j.boot));
        let least = set().chain(joiner).map(|(id, boot)| offset_of(id, boot).unwrap_or(0)).min();
        let is_heard = |id: &MemberId, boot: &String| {
            followers.iter().any(|f| f.id == id && f.boot == boot && f.is_heard)
        };
        let there = set().filter(|(id, boot)| is_heard(id, boot)).count();
        let is_large = set().count() + 1 >= self.min;
        Acked {
            offset: if is_large { least.unwrap_or(u64::MAX) } else { 0 },
            enough: there + 1 >= self.min,
        }
    }

    /// Looks at who follows, once in a while: what is to be put to the council, on condition that its topology still has
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
            *self = Self { min: self.min, epoch: shard.epoch, ..Self::default() };
        }
        let follows =
            |id: &MemberId, boot: &String| followers.iter().find(|f| f.id == id && f.boot == boot);
        let is_outside = |f: &&Follower<'_>| {
            let member = topology.members.get(f.id);
            f.id != me
                && member.is_some_and(|m| m.shard == Some(id))
                && !shard.is_in_sync(f.id, f.boot)
        };
        self.seen.retain(|(id, boot), _| follows(id, boot).is_some_and(|f| is_outside(&f)));
        if let Some(joiner) = &mut self.joiner {
            let now = follows(&joiner.id, &joiner.boot);
            let fits = now.is_some_and(|f| is_outside(&f));
            if joiner.proposal.is_over(topology.epoch, fits) {
                self.seen.remove(&(joiner.id.clone(), joiner.boot.clone()));
                self.joiner = None;
            } else {
                joiner.proposal.look(now.map(|f| f.offset), end, topology.epoch);
            }
        }
        for follower in followers.iter().filter(is_outside) {
            let (id, boot) = (follower.id.to_owned(), follower.boot.to_owned());
            let first = *self.seen.entry((id.clone(), boot.clone())).or_insert(end);
            if self.joiner.is_none() && follower.offset >= first {
                self.joiner = Some(Joiner { id, boot, proposal: Proposal::default() });
            }
        }
        let joiner = self.joiner.as_ref().filter(|j| j.proposal.is_for(topology.epoch))?;
        Some(Change::JoinSync {
            shard: id,
            epoch: shard.epoch,
            member: joiner.id.clone(),
            boot: joiner.boot.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
