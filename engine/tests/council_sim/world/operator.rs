//! The operator, as far as the council needs one, and what it would still have to complain about.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::topology::{Change, Topology, even_slots};

use super::{Action, World};

impl World {
    /// The operator: forms the cluster, tells members of it, wishes them to join.
    pub(super) fn operate(&mut self) {
        self.after(150_000, Action::Operate);
        let Some(topology) = self.newest().cloned() else {
            // Nobody who is there knows anything; those who do will be back.
            if self.has_formed {
                return;
            }
            let now = self.clock(0);
            let cluster = self.rng.hex40();
            let shards: Vec<_> = (0..self.shards).map(|i| even_slots(i, self.shards)).collect();
            let node = &mut self.nodes[0];
            if let Some(council) = &mut node.council {
                council.form(now, cluster, 1, &node.member, &shards).unwrap();
                self.has_formed = true;
            }
            self.drive(0);
            return;
        };
        for n in 0..self.nodes.len() {
            let now = self.clock(n);
            let Some(council) = &mut self.nodes[n].council else { continue };
            if council.topology().is_none() {
                council.adopt(now, Topology::clone(&topology)).unwrap();
                self.drive(n);
            }
        }
        let known = |n: &usize| topology.members.contains_key(&self.nodes[*n].member.id);
        let missing: Vec<usize> = (0..self.nodes.len()).filter(|n| !known(n)).collect();
        for n in missing.into_iter().take(self.joins_at_once) {
            let via = self.rng.below(self.nodes.len() as u64) as usize;
            let now = self.clock(via);
            let member = self.nodes[n].member.clone();
            if let Some(council) = &mut self.nodes[via].council {
                council.propose(now, Change::Join(member), None);
            }
            self.drive(via);
        }
    }

    /// The newest topology that somebody who is there knows.
    pub(super) fn newest(&self) -> Option<&Arc<Topology>> {
        let known = self.nodes.iter().filter_map(|n| n.council.as_ref()?.topology());
        known.max_by_key(|t| t.epoch)
    }

    /// What is still not as it should be.
    pub(super) fn unwell(&self) -> Vec<String> {
        let mut missing = vec![];
        let served: BTreeSet<_> = (0..self.nodes.len())
            .filter(|n| self.holds_lease(*n))
            .filter_map(|n| self.nodes[n].member.shard)
            .collect();
        let leader = self.nodes.iter().filter_map(|n| n.council.as_ref()).find(|c| c.leads());
        let reasons = leader.map(|c| c.waiting_for()).unwrap_or_default();
        for shard in (0..self.shards).filter(|shard| !served.contains(shard)) {
            missing.push(format!("shard {shard} is not served: {:?}", reasons.get(&shard)));
        }
        let Some(topology) = self.newest() else { return missing };
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            if !topology.members.contains_key(&node.member.id) {
                missing.push(format!("{} has not joined", node.member.name));
            }
            if let Some(shard) = node.member.shard
                && !topology.shards[&shard].in_sync.contains_key(&node.member.id)
            {
                missing.push(format!("{} is not in sync", node.member.name));
            }
        }
        missing
    }
}
