//! What must hold at every step, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::topology::{Epoch, MemberId, SLOTS, ShardId, Topology};

use super::data::Data;

/// How much of the asynchronous tail may be lost, in failure timeouts: a replica that has stopped to
/// follow is noticed after one half, leaves the in-sync set after two more, and a new leader of the
/// council, or a slow log, may make that take as long again.
const TAIL_TIMEOUTS: u64 = 5;

#[derive(Default)]
pub(crate) struct Checker {
    tail_ms: u64,
    /// Each epoch has one topology, whoever tells it.
    epochs: BTreeMap<Epoch, Arc<Topology>>,
    /// When a write was acknowledged, true time.
    acked: BTreeMap<ShardId, BTreeMap<u64, u64>>,
    pub(crate) violations: Vec<String>,
    pub(crate) promotions: u64,
    pub(crate) lost: u64,
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
        let mut owned = BTreeSet::new();
        for (id, shard) in &topology.shards {
            if shard.epoch > topology.epoch {
                self.violation(now_ms, format!("shard {id} is ahead of its topology"));
            }
            for slot in shard.slots.iter().flat_map(|r| r.first..=r.last) {
                if slot >= SLOTS || !owned.insert(slot) {
                    self.violation(now_ms, format!("slot {slot} has two owners"));
                }
            }
        }
        let before = self.epochs.range(..topology.epoch).next_back().map(|(_, t)| t.clone());
        if let Some(before) = before {
            for (id, shard) in &before.shards {
                if topology.shards.get(id).is_some_and(|s| s.epoch < shard.epoch) {
                    self.violation(now_ms, format!("the epoch of shard {id} went back"));
                }
            }
        }
        self.epochs.insert(topology.epoch, topology.clone());
        true
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
        self.promotions += 1;
        let Some((_, before)) = self.epochs.range(..topology.epoch).next_back() else { return };
        let Some(shard) = before.shards.get(&id) else { return };
        let in_sync = shard.in_sync.clone();
        let has: BTreeSet<u64> = to.journal.iter().map(|w| w.1).collect();
        let acked = self.acked.entry(id).or_default();
        let missing: BTreeMap<u64, u64> =
            acked.iter().filter(|(w, _)| !has.contains(w)).map(|(w, at)| (*w, *at)).collect();
        self.lost += missing.len() as u64;
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
