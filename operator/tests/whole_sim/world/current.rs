//! Reads of replicas with a bound, as `engine::replication::fresh` has it: what primaries vouch for, for which slots, and how
//! long keys that have moved away stay for replicas that do not know it yet.

use std::collections::BTreeMap;

use engine::replication::fresh::{Awareness, Fresh, Note, Unaware, hash_of};
use engine::topology::{Epoch, MemberId, ShardId, SlotRange, Topology};

use super::clients::Answer;
use super::serve::Request;
use super::{Op, What, World};
use crate::data::Took;

/// A replica's link, as its primary has it.
struct Link {
    number: u64,
    boot: String,
    known: Epoch,
    is_vouched: bool,
}

/// What a process knows of replication's links, in both directions.
#[derive(Default)]
pub(super) struct Links {
    fresh: Fresh,
    /// The one to its primary.
    upward: u64,
    replicas: BTreeMap<MemberId, Link>,
    owned: Option<Vec<SlotRange>>,
    owns_less_since: Epoch,
    unaware: Unaware,
}

impl Links {
    /// The role is another one: nobody follows on the links of before.
    pub(super) fn begin_anew(&mut self) {
        self.replicas.clear();
    }
}

impl World {
    pub(super) fn learn_slots(&mut self, n: usize, topology: &Topology) {
        let shard = self.shard_of(n).and_then(|shard| topology.shards.get(&shard));
        let slots = shard.map(|s| s.slots.clone()).unwrap_or_default();
        let now = self.clock(n);
        let Some(process) = &mut self.nodes[n].process else { return };
        let links = &mut process.links;
        let is_kept = |slot: u16| slots.iter().any(|r| r.contains(slot));
        let before = links.owned.iter().flatten().flat_map(|r| r.first..=r.last);
        if links.owned.is_none() || !before.into_iter().all(is_kept) {
            links.owns_less_since = topology.epoch;
        }
        links.fresh.own(hash_of(&slots), now, || {});
        links.owned = Some(slots);
    }

    /// A replica pulled: on which link, and what is vouched for.
    pub(super) fn vouch(
        &mut self,
        n: usize,
        replica: &MemberId,
        boot: String,
        (clock_ms, known): (u64, Epoch),
    ) -> (u64, Option<Note>) {
        let may_execute = self.may_execute(n);
        let end = self.nodes[n].data.journal.len() as u64;
        let Some(process) = &mut self.nodes[n].process else { return (0, None) };
        let links = &mut process.links;
        if links.replicas.get(replica).is_none_or(|link| link.boot != boot) {
            self.connections += 1;
            let link = Link { number: self.connections, boot, known, is_vouched: false };
            links.replicas.insert(replica.clone(), link);
        }
        let slots = hash_of(links.owned.as_deref().unwrap_or_default());
        let Some(link) = links.replicas.get_mut(replica) else { return (0, None) };
        link.known = known;
        let vouches = known >= links.owns_less_since && process.held.is_empty() && may_execute;
        link.is_vouched |= known >= links.owns_less_since;
        (link.number, vouches.then_some(Note { clock_ms, end, age_ms: 0, slots }))
    }

    /// What came over that link is heard; what is still on its way on an earlier one is not.
    pub(super) fn is_link(&mut self, n: usize, number: u64) -> bool {
        let Some(process) = &mut self.nodes[n].process else { return false };
        let links = &mut process.links;
        if number > links.upward {
            links.upward = number;
            links.fresh.forget();
        }
        number == links.upward
    }

    pub(super) fn note_current(&mut self, n: usize, took: Took, note: Option<Note>) {
        let (now, have) = (self.clock(n), self.nodes[n].data.journal.len() as u64);
        let Some(process) = &mut self.nodes[n].process else { return };
        if took == Took::Anew {
            process.links.fresh.forget();
        }
        if let Some(note) = note.filter(|_| took != Took::Nothing) {
            process.links.fresh.take(note, have, now);
        }
    }

    /// No replica answers for slots that have gone: their keys may be deleted.
    pub(super) fn is_nobody_unaware(&mut self, n: usize) -> bool {
        let now = self.clock(n);
        let Some(process) = &mut self.nodes[n].process else { return false };
        let links = &mut process.links;
        let since = links.owns_less_since;
        let is_unaware = |link: &Link| link.is_vouched && link.known < since;
        let is_somebody = links.replicas.values().any(is_unaware);
        let awareness = links.unaware.look(since, is_somebody, now);
        self.tally.count(What::SweepWaited, u64::from(is_somebody));
        if awareness == Awareness::Overdue {
            self.tally.count(What::LinkCut, 1);
            links.replicas.retain(|_, link| !is_unaware(link));
        }
        awareness == Awareness::Complete
    }

    pub(super) fn may_answer_as_replica(
        &self,
        n: usize,
        owner: ShardId,
        request: &Request,
    ) -> bool {
        let node = &self.nodes[n];
        let (Some(bound_ms), Some(process)) = (request.bound_ms, &node.process) else {
            return false;
        };
        self.shard_of(n) == Some(owner) && process.links.fresh.is_within(bound_ms, self.clock(n))
    }

    pub(super) fn execute_as_replica(&mut self, n: usize, request: &Request) {
        let journal = self.nodes[n].data.journal.iter().rev();
        let mut ops = journal.map(|(_, number)| self.ops[*number as usize]);
        let value = ops.find_map(|op| match op {
            Op::Set { key, value } if key == request.key => Some(Some(value)),
            Op::Clear { key } if key == request.key => Some(None),
            _ => None,
        });
        let value = value.flatten();
        self.note(|w| {
            format!("{} answers as a replica: {} is {value:?}", w.name(n), w.keys[request.key])
        });
        self.answer(n, request, Answer::OfReplica(value));
    }
}
