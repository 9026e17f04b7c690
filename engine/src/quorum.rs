//! `durability: Quorum`: a write is acknowledged once a majority of its shard's members has it, the primary
//! included: in memory, or on disk with `appendfsync always`.
//!
//! ```text
//! request -> executed, journaled, remembered per slot -> reply waits for the slot's offset
//! replica -> REPLCONF ACK behind each batch -> offset that a majority has -> replies go out
//! ```
//!
//! A read waits, too, for the last write to its slot: what it has seen can be lost no more. Slots that nobody
//! has written to since wait for nothing, so that reads go on when too few replicas are there. Writes are
//! refused then, before they are made.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::server::Shared;
use crate::topology::{MemberId, SLOTS};

/// Replies that wait for a majority longer than this are given up with their connection, milliseconds: whether
/// the write lasts is not known.
pub const WAIT_MS: u64 = 5_000;

#[derive(Default)]
pub struct Quorum {
    /// Members that must have a write beside the primary; 0: replies wait for nobody.
    needed: AtomicUsize,
    /// Those of the shard's other members that follow this one now.
    following: AtomicUsize,
    /// Journal offset that `needed` others have.
    offset: AtomicU64,
    /// Offset behind the last write to each slot; empty where durability is not Quorum.
    written: Box<[AtomicU64]>,
}

impl Quorum {
    pub fn new(is_on: bool) -> Quorum {
        let slots = if is_on { SLOTS } else { 0 };
        Quorum { written: (0..slots).map(|_| AtomicU64::new(0)).collect(), ..Quorum::default() }
    }

    /// This member's shard acknowledges by majority.
    pub fn is_configured(&self) -> bool {
        !self.written.is_empty()
    }

    /// Replies wait for other members.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.needed.load(Ordering::Acquire) > 0
    }

    /// Journal offset that a majority has.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    pub fn has_enough(&self) -> bool {
        self.following.load(Ordering::Acquire) >= self.needed.load(Ordering::Acquire)
    }

    /// The shard has that many members.
    pub fn set_members(&self, members: usize) {
        // A majority of n is n / 2 + 1, the primary among them.
        let needed = if self.is_configured() { members / 2 } else { 0 };
        self.needed.store(needed, Ordering::Release);
    }

    /// What a reply has to wait for that has read or written this slot; the caller holds its lock. `wrote`: the
    /// journal offset behind the write.
    #[inline]
    pub fn gate(&self, slot: u16, wrote: Option<u64>) -> u64 {
        let Some(last) = self.written.get(slot as usize) else { return 0 };
        match wrote {
            Some(offset) => {
                last.store(offset, Ordering::Relaxed);
                offset
            }
            None => last.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    /// Looks anew at what the replicas have: after each acknowledgement, and when one comes or goes.
    pub fn note_acks(&self) {
        let quorum = &self.quorum;
        let needed = quorum.needed.load(Ordering::Acquire);
        if needed == 0 {
            return;
        }
        let on_disk = self.state.acks_wait_for_disk.load(Ordering::Acquire);
        let view = self.cluster.view();
        let shard = view.me().and_then(|m| m.shard);
        let is_mate =
            |id: &MemberId| view.topology.members.get(id).is_some_and(|m| m.shard == shard);
        let mut acks: Vec<(MemberId, u64)> = Vec::new();
        for peer in self.replication.peers().iter().filter(|p| p.is_online()) {
            let ack = if on_disk { peer.durable_ack() } else { peer.ack() };
            if !is_mate(peer.member()) || peer.member() == &view.my_id {
                continue;
            }
            match acks.iter_mut().find(|(id, _)| id == peer.member()) {
                Some((_, known)) => *known = ack.max(*known),
                None => acks.push((peer.member().clone(), ack)),
            }
        }
        quorum.following.store(acks.len(), Ordering::Release);
        let mut offsets: Vec<u64> = acks.into_iter().map(|(_, ack)| ack).collect();
        offsets.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(offset) = offsets.get(needed - 1) {
            // What a majority once had stays so, whoever goes away.
            quorum.offset.fetch_max(*offset, Ordering::AcqRel);
        }
    }

    /// What was acknowledged to another primary counts for nothing in a new epoch; everything must be locked.
    pub fn reset_quorum(&self) {
        self.quorum.offset.store(0, Ordering::Release);
        let end = self.journal.end();
        // What came with the old epoch is certain only once a majority follows in this one.
        self.quorum.written.iter().for_each(|slot| slot.store(end, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_counted_with_the_primary_in_it() {
        let quorum = Quorum::new(true);
        for (members, needed) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
            quorum.set_members(members);
            assert_eq!(quorum.needed.load(Ordering::Relaxed), needed, "{members} members");
        }
        let off = Quorum::new(false);
        off.set_members(3);
        assert!(!off.is_on());
    }

    #[test]
    fn a_read_waits_for_the_last_write_to_its_slot_only() {
        let quorum = Quorum::new(true);
        assert_eq!(quorum.gate(7, Some(100)), 100);
        assert_eq!(quorum.gate(7, None), 100);
        assert_eq!(quorum.gate(8, None), 0);
        assert_eq!(Quorum::new(false).gate(7, Some(100)), 0);
    }
}
