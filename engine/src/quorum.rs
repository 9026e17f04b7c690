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
//!
//! Whose majority that is stands in the council's topology: see `electors`.
//!
//! With `minInSync` it is not a majority, but every member of the in-sync set that the council has in its topology: see
//! `set` for who is in it. Such a shard goes on with fewer members, down to that number.

pub mod electors;
pub mod keeper;
mod proposal;
pub mod set;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::cluster::View;
use crate::replication::Peer;
use crate::server::Shared;
use crate::topology::{Change, MemberId, SLOTS};
use electors::Electors;
use set::{Acked, Follower, InSync};

/// Replies that wait for a majority longer than this are given up with their connection, milliseconds: whether
/// the write lasts is not known.
pub const WAIT_MS: u64 = 5_000;

#[derive(Default)]
pub struct Quorum {
    /// Replies wait for others.
    waits: AtomicBool,
    /// There are too few to go on with writes.
    lacks: AtomicBool,
    /// Journal offset that all who are needed have.
    offset: AtomicU64,
    /// Offset behind the last write to each slot; empty where durability is not Quorum.
    written: Box<[AtomicU64]>,
    /// Who is waited for. Whatever follows from it is made known under its lock.
    awaited: Mutex<Awaited>,
}

/// Who is waited for: the in-sync set with `minInSync`, a majority of the electors without.
#[derive(Default)]
struct Awaited {
    in_sync: InSync,
    electors: Electors,
}

impl Quorum {
    /// `min_in_sync` 0: a majority counts, not the in-sync set.
    pub fn new(is_on: bool, min_in_sync: usize) -> Quorum {
        let slots = if is_on { SLOTS } else { 0 };
        Quorum {
            written: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            awaited: Mutex::new(Awaited {
                in_sync: InSync::new(if is_on { min_in_sync } else { 0 }),
                electors: Electors::default(),
            }),
            ..Quorum::default()
        }
    }

    /// This member's shard acknowledges by majority, or by its in-sync set.
    pub fn is_configured(&self) -> bool {
        !self.written.is_empty()
    }

    /// `minInSync`; 0: a majority counts.
    pub fn min_in_sync(&self) -> usize {
        self.awaited().in_sync.min()
    }

    fn awaited(&self) -> MutexGuard<'_, Awaited> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replies wait for other members.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// Journal offset that all who are needed have.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Why no write is taken now, where so few members are there that none could be acknowledged.
    #[inline]
    pub fn refusal(&self) -> Option<&'static str> {
        let lacks = self.is_on() && !self.has_enough();
        lacks.then_some("NOREPLICAS Not enough good replicas to write.")
    }

    fn has_enough(&self) -> bool {
        !self.lacks.load(Ordering::Acquire)
    }

    /// What is known now; who is awaited is locked.
    fn set(&self, acked: Acked) {
        self.waits.store(acked.offset != u64::MAX, Ordering::SeqCst);
        self.lacks.store(!acked.enough, Ordering::Release);
        if acked.offset != u64::MAX {
            // What all once had stays so, whoever goes away.
            self.offset.fetch_max(acked.offset, Ordering::AcqRel);
        }
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

impl Awaited {
    fn state(&self, view: &View, followers: &[Follower<'_>]) -> Acked {
        let nobody = Acked { offset: u64::MAX, enough: true };
        let Some(id) = view.me().and_then(|me| me.shard) else { return nobody };
        match view.topology.shards.get(&id) {
            None => nobody,
            Some(shard) if self.in_sync.min() > 0 => {
                self.in_sync.state(shard, &view.my_id, followers)
            }
            Some(_) => self.electors.state(&view.topology, id, &view.my_id, followers),
        }
    }

    /// One look: a change to be proposed, for the topology of that epoch only. `end`: of the journal.
    fn look(&mut self, view: &View, followers: &[Follower<'_>], end: u64) -> Option<Change> {
        let (topology, me, id) = (&view.topology, &view.my_id, view.me()?.shard?);
        match self.in_sync.min() {
            0 => self.electors.look(topology, id, me, followers, end),
            _ => self.in_sync.look(topology, id, me, followers, end),
        }
    }
}

impl Shared {
    /// Looks anew at what the replicas have: after each acknowledgement, and when one comes or goes.
    pub fn note_acks(&self) {
        let quorum = &self.quorum;
        if !quorum.is_configured() {
            return;
        }
        let awaited = quorum.awaited();
        let view = self.cluster.view();
        let peers = self.replication.peers();
        let followers = self.followers(&view, &peers);
        quorum.set(awaited.state(&view, &followers));
    }

    /// The other members of the shard that follow this one, by what they have told.
    fn followers<'p>(&self, view: &View, peers: &'p [Arc<Peer>]) -> Vec<Follower<'p>> {
        let on_disk = self.state.acks_wait_for_disk.load(Ordering::Acquire);
        let shard = view.me().and_then(|m| m.shard);
        let (members, now_ms) = (&view.topology.members, clock::monotonic_ms());
        let is_mate =
            |id: &MemberId| *id != view.my_id && members.get(id).is_some_and(|m| m.shard == shard);
        let mates = peers.iter().filter(|p| p.is_online() && is_mate(p.member()));
        mates
            .map(|peer| Follower {
                id: peer.member(),
                boot: peer.boot(),
                offset: if on_disk { peer.durable_ack() } else { peer.ack() },
                is_heard: peer.is_heard(now_ms),
            })
            .collect()
    }

    /// What was acknowledged to another primary counts for nothing in a new epoch; everything must be locked.
    pub fn reset_quorum(&self) {
        let _awaited = self.quorum.awaited();
        self.quorum.offset.store(0, Ordering::Release);
        let end = self.journal.end();
        // What came with the old epoch is certain only once those who are needed follow in this one.
        self.quorum.written.iter().for_each(|slot| slot.store(end, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_waits_for_the_last_write_to_its_slot_only() {
        let quorum = Quorum::new(true, 0);
        assert_eq!(quorum.gate(7, Some(100)), 100);
        assert_eq!(quorum.gate(7, None), 100);
        assert_eq!(quorum.gate(8, None), 0);
        assert_eq!(Quorum::new(false, 0).gate(7, Some(100)), 0);
    }
}
