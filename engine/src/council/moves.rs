//! Moves of slots from shard to shard, as changes of the topology.
//!
//! Between `Move` and `Moved` the source serves the slots as ever, and the target fills up. `Moved` names the
//! epochs of both shards under which the data was handed on: a failover of either makes it void, so that a
//! write which the target has not seen can never be left behind with an owner that is none any more.

use super::apply::{merge, overlap};
use crate::topology::{Epoch, Move, SLOTS, ShardId, SlotRange, Topology};

/// Moves under way at the same time.
const MOVES_MAX: usize = 256;

impl Topology {
    pub(super) fn begin_move(
        &mut self,
        slots: &[SlotRange],
        from: ShardId,
        to: ShardId,
    ) -> Result<bool, String> {
        if slots.is_empty() || from == to {
            return Err("a move needs slots and two shards".into());
        }
        if self.moves.len() >= MOVES_MAX {
            return Err(format!("{MOVES_MAX} moves are under way already"));
        }
        if !self.shards.contains_key(&to) || self.members_of(to).is_empty() {
            return Err(format!("shard {to} has no members"));
        }
        let mut sorted = slots.to_vec();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| overlap(&pair[0], &pair[1])) {
            return Err("a slot is named twice".into());
        }
        for range in &sorted {
            let SlotRange { first, last } = *range;
            if first > last || last >= SLOTS {
                return Err(format!("not slots: {first}-{last}"));
            }
            if self.owner_of(range) != Some(from) {
                return Err(format!("shard {from} does not own all of {first}-{last}"));
            }
            let moves = |m: &&Move| m.slots.iter().any(|r| overlap(r, range));
            if let Some(other) = self.moves.iter().find(moves) {
                return Err(format!("move {} has some of {first}-{last} already", other.id));
            }
            if let Some((slot, _)) = self.unmanaged.migrating.range(first..=last).next() {
                return Err(format!("slot {slot} is migrating key by key"));
            }
        }
        merge(&mut sorted);
        self.moves.push(Move { id: self.epoch + 1, slots: sorted, from, to });
        Ok(true)
    }

    pub(super) fn end_move(
        &mut self,
        id: Epoch,
        from_epoch: Epoch,
        to_epoch: Epoch,
    ) -> Result<bool, String> {
        let at = self.moves.iter().position(|m| m.id == id).ok_or("no such move")?;
        let ends = [(self.moves[at].from, from_epoch), (self.moves[at].to, to_epoch)];
        for (shard, expected) in ends {
            let epoch = self.shards.get(&shard).map_or(0, |s| s.epoch);
            if epoch != expected {
                return Err(format!("shard {shard} is at epoch {epoch}, not {expected}"));
            }
        }
        let Move { slots, from, to, .. } = self.moves.remove(at);
        if let Some(source) = self.shards.get_mut(&from) {
            source.slots = without(&source.slots, &slots);
        }
        if let Some(target) = self.shards.get_mut(&to) {
            target.slots.extend_from_slice(&slots);
            merge(&mut target.slots);
        }
        Ok(true)
    }
}

/// The slots of `ranges` that are in none of `taken`.
pub(super) fn without(ranges: &[SlotRange], taken: &[SlotRange]) -> Vec<SlotRange> {
    let mut left = ranges.to_vec();
    for cut in taken {
        left = left
            .into_iter()
            .flat_map(|range| {
                if !overlap(&range, cut) {
                    return vec![range];
                }
                let mut parts = Vec::new();
                if range.first < cut.first {
                    parts.push(SlotRange { first: range.first, last: cut.first - 1 });
                }
                if cut.last < range.last {
                    parts.push(SlotRange { first: cut.last + 1, last: range.last });
                }
                parts
            })
            .collect();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Change, Member, even_slots};

    fn range(first: u16, last: u16) -> SlotRange {
        SlotRange { first, last }
    }

    fn member(n: u16) -> Member {
        Member {
            id: format!("{:040x}", u128::from(n + 1) << 100),
            name: format!("demo-{n}-0"),
            host: "h".into(),
            port: 1,
            tls_port: 0,
            bus_port: 2,
            shard: Some(n),
            node: None,
            zone: None,
        }
    }

    /// Two shards with slots, and one with a member and none.
    fn topology() -> Topology {
        let slots = [even_slots(0, 2), even_slots(1, 2)];
        let mut topology = Topology::form("x".into(), 1, &member(0), &slots).unwrap();
        for n in 1..3 {
            topology.apply(&Change::Join(member(n))).unwrap();
        }
        topology
    }

    fn begin(
        topology: &mut Topology,
        slots: &[SlotRange],
        from: u16,
        to: u16,
    ) -> Result<Epoch, String> {
        topology.apply(&Change::Move { slots: slots.to_vec(), from, to })?;
        Ok(topology.epoch)
    }

    #[test]
    fn slots_change_their_owner_at_once_and_every_slot_has_one() {
        let mut topology = topology();
        let id = begin(&mut topology, &[range(10, 20), range(0, 5)], 0, 2).unwrap();
        assert_eq!(topology.shard_of_slot(15), Some(0));
        topology.apply(&Change::Moved { id, from_epoch: 0, to_epoch: 0 }).unwrap();
        assert_eq!(topology.shards[&0].slots, [range(6, 9), range(21, 8191)]);
        assert_eq!(topology.shards[&2].slots, [range(0, 5), range(10, 20)]);
        assert!(topology.moves.is_empty());
        let owners: u32 =
            topology.shards.values().flat_map(|s| &s.slots).map(|r| u32::from(r.len())).sum();
        assert_eq!(owners, u32::from(SLOTS));
        assert!(topology.apply(&Change::Moved { id, from_epoch: 0, to_epoch: 0 }).is_err());
    }

    #[test]
    fn a_move_is_void_when_either_shard_got_another_primary() {
        for shard in [0, 2] {
            let mut topology = topology();
            let id = begin(&mut topology, &[range(0, 5)], 0, 2).unwrap();
            topology.shards.get_mut(&shard).unwrap().epoch = 9;
            let refused = topology.apply(&Change::Moved { id, from_epoch: 0, to_epoch: 0 });
            assert!(refused.unwrap_err().contains("epoch 9"));
            assert_eq!(topology.shard_of_slot(3), Some(0));
            assert!(topology.move_of(id).is_some());
            topology.apply(&Change::CancelMove { id }).unwrap();
            assert!(topology.moves.is_empty());
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut topology = topology();
        for (slots, from, to, why) in [
            (vec![], 0, 2, "needs slots"),
            (vec![range(0, 5)], 0, 0, "two shards"),
            (vec![range(0, 5)], 0, 7, "no members"),
            (vec![range(5, 0)], 0, 2, "not slots"),
            (vec![range(0, 16384)], 0, 2, "not slots"),
            (vec![range(0, 5), range(5, 6)], 0, 2, "named twice"),
            (vec![range(8190, 8195)], 0, 2, "does not own"),
            (vec![range(9000, 9001)], 0, 2, "does not own"),
        ] {
            let refused = begin(&mut topology, &slots, from, to).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        let id = begin(&mut topology, &[range(0, 5)], 0, 2).unwrap();
        let twice = begin(&mut topology, &[range(3, 9)], 0, 1).unwrap_err();
        assert!(twice.contains(&format!("move {id} has")), "{twice}");
        let leave = topology.apply(&Change::Leave { member: member(2).id }).unwrap_err();
        assert!(leave.contains("goes to the member's shard"), "{leave}");
    }
}
