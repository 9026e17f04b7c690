//! What must hold at every step, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::topology::{Epoch, MemberId, SLOTS, Shard, ShardId, SlotRange, Topology};

use super::data::{Data, Write};
use super::tally::{Tally, What};

/// How much of the asynchronous tail may be lost, in failure timeouts. No lease is granted unless each
/// member of the in-sync set was heard to be in sync within two, and a lease is not one long; its word
/// was a little old by then, and in bad weather it was more than one on its way.
const TAIL_TIMEOUTS: u64 = 5;

#[derive(Default)]
pub(crate) struct Checker {
    tail_ms: u64,
    /// Each epoch has one topology, whoever tells it.
    pub(crate) epochs: BTreeMap<Epoch, Arc<Topology>>,
    /// Promotions that have been looked at.
    promotions: BTreeSet<(ShardId, Epoch)>,
    /// When a write was acknowledged, true time.
    acked: BTreeMap<ShardId, BTreeMap<u64, u64>>,
    pub(crate) violations: Vec<String>,
    pub(crate) tally: Tally,
    /// Acknowledged, and missing in the primary of that epoch.
    pub(crate) lost: BTreeSet<(ShardId, Epoch, u64)>,
}

impl Checker {
    pub(crate) fn new(failure_timeout_ms: u64) -> Self {
        Self { tail_ms: TAIL_TIMEOUTS * failure_timeout_ms, ..Self::default() }
    }

    pub(crate) fn violation(&mut self, now_ms: u64, what: String) {
        if self.violations.len() < 8 {
            self.violations.push(format!("at {now_ms} ms: {what}"));
        }
    }

    pub(crate) fn acknowledged(&mut self, shard: ShardId, id: u64, now_ms: u64) {
        self.acked.entry(shard).or_default().insert(id, now_ms);
    }

    /// Somebody knows a topology. `true`: nobody has known it before.
    pub(crate) fn topology(&mut self, now_ms: u64, who: &str, topology: &Arc<Topology>) -> bool {
        if let Some(known) = self.epochs.get(&topology.epoch) {
            if known != topology {
                let epoch = topology.epoch;
                self.violation(now_ms, format!("{who} knows another topology of epoch {epoch}"));
            }
            return false;
        }
        let mut owned: Vec<SlotRange> = vec![];
        for (id, shard) in &topology.shards {
            if shard.epoch > topology.epoch {
                self.violation(now_ms, format!("shard {id} is ahead of its topology"));
            }
            owned.extend(&shard.slots);
        }
        owned.sort_by_key(|r| r.first);
        for range in owned.iter().filter(|r| r.first > r.last || r.last >= SLOTS) {
            self.violation(now_ms, format!("{range:?} is no range of slots"));
        }
        for pair in owned.windows(2).filter(|pair| pair[1].first <= pair[0].last) {
            self.violation(now_ms, format!("slot {} has two owners", pair[1].first));
        }
        let before = self.epochs.range(..topology.epoch).next_back().map(|(_, t)| t.clone());
        if let Some(before) = before {
            self.count_changes(&before, topology);
            self.check_owners(now_ms, &before, topology);
            for (id, shard) in &before.shards {
                if topology.shards.get(id).is_some_and(|s| s.epoch < shard.epoch) {
                    self.violation(now_ms, format!("the epoch of shard {id} went back"));
                }
            }
        }
        self.epochs.insert(topology.epoch, topology.clone());
        true
    }

    /// Slots change their owner by a move that was begun, and none is ever without one again.
    fn check_owners(&mut self, now_ms: u64, before: &Topology, after: &Topology) {
        let follows = after.epoch == before.epoch + 1;
        let mut moved = false;
        for slot in (0..SLOTS).step_by(37) {
            let (was, is) = (before.shard_of_slot(slot), after.shard_of_slot(slot));
            if was.is_none() || was == is {
                continue;
            }
            moved = true;
            let by_move = before.moves.iter().any(|m| {
                (Some(m.from), Some(m.to)) == (was, is) && m.slots.iter().any(|r| r.contains(slot))
            });
            if is.is_none() || follows && !by_move {
                let what = format!("slot {slot} went from {was:?} to {is:?} without a move");
                self.violation(now_ms, what);
            }
        }
        self.tally.count(What::Moved, u64::from(moved));
    }

    pub(crate) fn is_new_primary(&mut self, shard: ShardId, epoch: Epoch) -> bool {
        epoch > 0 && self.promotions.insert((shard, epoch))
    }

    /// What has happened between two topologies, as far as the later one shows it.
    fn count_changes(&mut self, before: &Topology, after: &Topology) {
        let tally = &mut self.tally;
        for (id, shard) in &after.shards {
            let Some(old) = before.shards.get(id) else { continue };
            if shard.epoch > old.epoch {
                let change = after.failovers.iter().rev().find(|f| f.epoch == shard.epoch);
                let what = match change.map(|f| f.window_ms) {
                    None => What::PrimaryFromNobody,
                    Some(0) => What::Handover,
                    Some(_) => What::Failover,
                };
                tally.count(what, 1);
            }
            let missing = |a: &Shard, b: &Shard| {
                a.in_sync.iter().filter(|(m, boot)| b.in_sync.get(*m) != Some(boot)).count() as u64
            };
            tally.count(What::LeftInSync, missing(old, shard));
            tally.count(What::JoinedInSync, missing(shard, old));
            let is_other = !old.electors.is_empty() && old.electors != shard.electors;
            tally.count(What::ElectorsChanged, u64::from(is_other));
        }
        tally.count(What::SeatMoved, u64::from(before.voters != after.voters));
    }

    /// `to` has become primary: what members that were in sync have must not be lost, but for the tail.
    pub(crate) fn promoted(
        &mut self,
        now_ms: u64,
        topology: &Topology,
        id: ShardId,
        to: &Data,
        others: &BTreeMap<MemberId, &Data>,
        quorum: bool,
    ) {
        let Some(epoch) = topology.shards.get(&id).map(|s| s.epoch) else { return };
        let Some((_, before)) = self.epochs.range(..epoch).next_back() else { return };
        let Some(shard) = before.shards.get(&id) else { return };
        let in_sync = shard.in_sync.clone();
        let floor = shard.floor.as_ref().map(|f| (f.epoch, f.offset));
        // The new primary may have put its mark behind what it had.
        let had = rank(to.journal.iter().filter(|w| w.0 < epoch));
        let best = others.values().map(|d| rank(d.journal.iter().filter(|w| w.0 < epoch))).max();
        let has: BTreeSet<u64> = to.journal.iter().map(|w| w.1).collect();
        let acked = self.acked.entry(id).or_default();
        let missing: BTreeMap<u64, u64> =
            acked.iter().filter(|(w, _)| !has.contains(w)).map(|(w, at)| (*w, *at)).collect();
        self.lost.extend(missing.keys().map(|write| (id, epoch, *write)));
        // The tail is what was acknowledged last, however long nobody has been primary since.
        let last_ms = acked.values().max().copied().unwrap_or(0);
        let name =
            |m: &MemberId| topology.members.get(m).map_or("?", |m| m.name.as_str()).to_owned();
        let mut found = vec![];
        for member in in_sync.keys() {
            let Some(data) = others.get(member) else { continue };
            let better = data
                .journal
                .iter()
                .filter(|w| missing.get(&w.1).is_some_and(|at| at + self.tail_ms < last_ms));
            let count = better.count();
            if count > 0 {
                found.push(format!(
                    "shard {id} epoch {}: {} has {count} old writes that the new primary lacks",
                    topology.epoch,
                    name(member)
                ));
            }
        }
        // Below what the last primary began with, or with nothing: only when nobody has more. A shard without slots has nothing
        // to lose: what is left of an earlier one of its number is nobody's (seeds 72579 and 89746 of the whole).
        let counts = !shard.slots.is_empty();
        if counts && (had == (0, 0) || floor.is_some_and(|floor| had < floor)) && best > Some(had) {
            found.push(format!(
                "shard {id} epoch {epoch}: the new primary has {had:?}, below {floor:?}, and \
                 another member {best:?}"
            ));
        }
        if quorum && !missing.is_empty() {
            found.push(format!(
                "shard {id} epoch {}: {} writes that a majority had are missing",
                topology.epoch,
                missing.len()
            ));
        }
        // What is lost is lost once.
        for write in missing.keys() {
            acked.remove(write);
        }
        found.into_iter().for_each(|f| self.violation(now_ms, f));
    }
}

/// What a journal is compared by: the epoch of its last write, and its length.
fn rank<'a>(journal: impl Iterator<Item = &'a Write>) -> (Epoch, u64) {
    journal.fold((0, 0), |(_, length), write| (write.0, length + 1))
}
