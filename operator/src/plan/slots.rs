//! How slots are dealt among shards: what each has, what it is to have, and which ones are to go.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use engine::topology::{SLOTS, Shard, ShardId, SlotRange, Topology};

/// Slots that one move takes at most: so much is copied again when a failover makes a move void, and so
/// often does the way to the wish become visible.
pub const SLOTS_PER_MOVE: u16 = 512;

/// The part of the slots that a shard has and is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Once all moves under way are done.
    has: u16,
    target: u16,
}

impl Share {
    /// Slots that are to leave the shard.
    pub(super) fn excess(self) -> u16 {
        self.has.saturating_sub(self.target)
    }

    /// Slots that are to come to it.
    pub(super) fn lack(self) -> u16 {
        self.target.saturating_sub(self.has)
    }
}

/// Slots in these ranges.
pub(super) fn count(ranges: &[SlotRange]) -> u16 {
    ranges.iter().map(SlotRange::len).sum()
}

/// The share of each shard that there is or is to be. Each of the `wanted` ones gets the same number, and
/// one more those that have most: so the fewest slots move, and what is even stays as it is, whichever
/// shards have the one slot more.
pub(super) fn shares(topology: &Topology, wanted: u16) -> BTreeMap<ShardId, Share> {
    let mut shares: BTreeMap<ShardId, Share> =
        (0..wanted).map(|shard| (shard, Share::default())).collect();
    for (id, shard) in &topology.shards {
        shares.entry(*id).or_default().has = count(&shard.slots);
    }
    for under_way in &topology.moves {
        let slots = count(&under_way.slots);
        let from = shares.entry(under_way.from).or_default();
        from.has = from.has.saturating_sub(slots);
        shares.entry(under_way.to).or_default().has += slots;
    }
    let mut stay: Vec<_> = shares.iter_mut().filter(|(shard, _)| **shard < wanted).collect();
    stay.sort_by_key(|(shard, share)| (Reverse(share.has), **shard));
    for ((_, share), place) in stay.into_iter().zip(0..) {
        share.target = SLOTS / wanted + u16::from(place < SLOTS % wanted);
    }
    shares
}

/// So many slots of a shard, from its last one down: what moves in several steps is one range again.
pub(super) fn last_slots(shard: &Shard, number: u16) -> Vec<SlotRange> {
    let mut ranges = shard.slots.clone();
    ranges.sort_unstable();
    let mut left = number;
    let mut out = Vec::new();
    for range in ranges.into_iter().rev() {
        let taken = range.len().min(left);
        if taken == 0 {
            break;
        }
        out.insert(0, SlotRange { first: range.last - (taken - 1), last: range.last });
        left -= taken;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::topology::{Move, even_slots};

    fn range(first: u16, last: u16) -> SlotRange {
        SlotRange { first, last }
    }

    fn formed(shards: u16) -> Topology {
        let mut topology = Topology::default();
        for shard in 0..shards {
            topology.shards.entry(shard).or_default().slots = vec![even_slots(shard, shards)];
        }
        topology
    }

    fn change(topology: &Topology, wanted: u16) -> Vec<(ShardId, i32)> {
        let of = |s: Share| i32::from(s.lack()) - i32::from(s.excess());
        shares(topology, wanted).into_iter().map(|(id, share)| (id, of(share))).collect()
    }

    #[test]
    fn what_was_dealt_evenly_stays() {
        for shards in 1..=500 {
            assert!(change(&formed(shards), shards).iter().all(|(_, n)| *n == 0), "{shards}");
        }
    }

    #[test]
    fn new_shards_get_what_the_old_ones_have_too_much_of() {
        assert_eq!(change(&formed(1), 2), [(0, -8192), (1, 8192)]);
        let by_three = [(0, -2730), (1, -2731), (2, -2730), (3, 2731), (4, 2730), (5, 2730)];
        assert_eq!(change(&formed(3), 6), by_three);
    }

    #[test]
    fn shards_that_go_keep_nothing() {
        assert_eq!(change(&formed(3), 2), [(0, 2731), (1, 2730), (2, -5461)]);
        assert_eq!(change(&formed(2), 1), [(0, 8192), (1, -8192)]);
    }

    #[test]
    fn a_move_under_way_counts_as_done() {
        let mut topology = formed(2);
        topology.moves.push(Move { id: 9, slots: vec![range(8000, 8191)], from: 0, to: 1 });
        assert_eq!(change(&topology, 2), [(0, 192), (1, -192)]);
    }

    #[test]
    fn the_last_slots_are_taken_from_as_many_ranges_as_it_takes() {
        let shard = Shard { slots: vec![range(90, 99), range(0, 9)], ..Shard::default() };
        assert_eq!(last_slots(&shard, 4), [range(96, 99)]);
        assert_eq!(last_slots(&shard, 10), [range(90, 99)]);
        assert_eq!(last_slots(&shard, 12), [range(8, 9), range(90, 99)]);
        assert_eq!(last_slots(&shard, 99), [range(0, 9), range(90, 99)]);
        assert_eq!(last_slots(&shard, 0), []);
    }
}
