//! Slots that move in the simulated world: so many ticks after both sides have a primary that serves, the
//! target owns them. Who gets another primary meanwhile begins anew, as the council has it.

use std::collections::BTreeMap;

use engine::topology::{Change, Epoch, Move, SLOTS, ShardId, Topology};

use super::world::World;
use crate::desired::Seat;

/// Ticks that it takes to copy the keys.
const MOVE_TICKS: u64 = 2;

/// Copying, by the move's ID: since when, and under which epochs of source and target.
#[derive(Default)]
pub(super) struct Copying(BTreeMap<Epoch, (u64, Epoch, Epoch)>);

impl World {
    /// Moves get on, in a topology that is being changed.
    pub(super) fn copy(&mut self, topology: &mut Topology) {
        let mut copying = BTreeMap::new();
        let moves: Vec<Move> = topology.moves.clone();
        for Move { id, from, to, .. } in moves {
            let epochs = self.epoch_of(topology, from).zip(self.epoch_of(topology, to));
            let Some((from_epoch, to_epoch)) = epochs else { continue };
            let before = self.copying.0.get(&id).filter(|c| (c.1, c.2) == (from_epoch, to_epoch));
            let since = before.map_or(self.now, |c| c.0);
            if self.now - since < MOVE_TICKS {
                copying.insert(id, (since, from_epoch, to_epoch));
                continue;
            }
            let moved = topology.apply(&Change::Moved { id, from_epoch, to_epoch });
            assert_eq!(moved, Ok(()), "a move ends when both sides are as they were");
            self.moved += 1;
        }
        self.copying = Copying(copying);
        assert_owned_once(topology);
    }

    /// Since when the shard's primary is, if it serves.
    fn epoch_of(&self, topology: &Topology, shard: ShardId) -> Option<Epoch> {
        let shard = topology.shards.get(&shard)?;
        self.seat_of(shard.primary.as_ref()?).map(|_| shard.epoch)
    }

    /// What only this member has is not deleted while its shard owns slots.
    pub(super) fn assert_not_the_only_copy(&self, seat: Seat) {
        let (Some(topology), Some(shard)) = (&self.topology, seat.shard()) else { return };
        if topology.shards.get(&shard).is_none_or(|s| s.slots.is_empty()) {
            return;
        }
        let has_data = |s: &Seat| self.has_data(*s);
        let others = topology.members_of(shard).into_iter().filter_map(|m| self.home_of(&m.id));
        let spare = others.into_iter().any(|other| other != seat && has_data(&other));
        assert!(spare || !has_data(&seat), "the only copy of shard {shard} is deleted: {seat}");
    }
}

/// Every slot has exactly one owner, and none is in two moves.
fn assert_owned_once(topology: &Topology) {
    let mut owners = vec![0u8; usize::from(SLOTS)];
    let ranges = topology.shards.values().flat_map(|s| &s.slots);
    for slot in ranges.flat_map(|r| r.first..=r.last) {
        owners[usize::from(slot)] += 1;
    }
    assert!(owners.iter().all(|n| *n == 1), "a slot has no owner, or two");
    let mut moving = vec![0u8; usize::from(SLOTS)];
    for slot in topology.moves.iter().flat_map(|m| &m.slots).flat_map(|r| r.first..=r.last) {
        moving[usize::from(slot)] += 1;
    }
    assert!(moving.iter().all(|n| *n <= 1), "a slot is in two moves");
}
