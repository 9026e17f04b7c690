//! Keys in slots that this member's shard does not own: left over from a move, in either direction.
//!
//! A replica that does not know yet that a slot has gone answers for it, to clients that asked for a bound: it would find
//! nothing where its primary had deleted the keys. So they are deleted only once it knows (see `replication::fresh`).

use std::sync::atomic::Ordering;

use super::{SlotSet, acting, lock};
use crate::clock;
use crate::keyspace::Db;
use crate::lazy;
use crate::notify::class;
use crate::persist::load;
use crate::replication::fresh::Awareness;
use crate::server::Shared;
use crate::tally::Tally;
use crate::topology::{Epoch, SLOTS, ShardId};

/// Keys deleted under one lock.
const KEYS_PER_LOCK: usize = 64;
/// No replica answers for slots that have gone: their keys may be deleted. Whoever takes too long to learn of it loses its link.
pub(super) fn is_nobody_unaware(shared: &Shared) -> bool {
    let epoch = shared.cluster.owns_less_since();
    let is_somebody = !shared.replication.unaware(epoch).is_empty();
    let now_ms = clock::monotonic_ms();
    let awareness = lock(&shared.moves.unaware).look(epoch, is_somebody, now_ms);
    if awareness == Awareness::Overdue {
        shared.replication.cut_unaware(epoch);
    }
    awareness == Awareness::Complete
}

/// Keys of slots that have gone are about to go by another way than the sweep, which does not wait: whoever answers for them
/// loses its link first.
pub(crate) fn cut_unaware(shared: &Shared) {
    if shared.cluster.is_enabled() {
        shared.replication.cut_unaware(shared.cluster.owns_less_since());
    }
}

/// Deletes what is left in slots of other shards, except what is coming in; `false` when it had to stop.
pub(super) fn sweep(shared: &Shared, shard: ShardId, epoch: Epoch) -> bool {
    let view = shared.cluster.view();
    let coming = view.topology.moves.iter().filter(|m| m.to == shard);
    let coming = SlotSet::of(&coming.flat_map(|m| m.slots.clone()).collect::<Vec<_>>());
    let is_left = |slot: &u16| {
        (0..shared.keyspace.databases()).any(|db| shared.keyspace.lock_table(db, *slot).is_some())
    };
    let foreign = (0..SLOTS).filter(|slot| {
        let owner = shared.cluster.owner_of(*slot);
        let comes = coming.contains(*slot) || shared.cluster.imports(*slot);
        !comes && owner.is_some_and(|owner| owner != shard)
    });
    foreign.filter(is_left).all(|slot| is_nobody_unaware(shared) && clear_slot(shared, slot, epoch))
}

/// Deletes the keys of a slot, as the primary of that epoch, and writes so to the journal. `false`: this member
/// acts as that primary no longer.
pub(super) fn clear_slot(shared: &Shared, slot: u16, epoch: Epoch) -> bool {
    for db in 0..shared.keyspace.databases() {
        while shared.keyspace.lock_table(db, slot).is_some()
            && !shared.cluster.imports(slot)
            && !shared.cluster.owns(slot)
        {
            // Roles change only while no batch is under way.
            let _importing = shared.moves.importing();
            if shared.hold.is_on() || acting(shared).is_none_or(|(_, e)| e != epoch) {
                return false;
            }
            clear_some(shared, db, slot);
        }
    }
    true
}

fn clear_some(shared: &Shared, index: u16, slot: u16) {
    let mut env = load::env(shared);
    let mut locked = shared.keyspace.lock_slot(slot);
    // Whatever somebody believed before: what is ours is not left over.
    if shared.cluster.owns(slot) || shared.state.is_replica.load(Ordering::Acquire) {
        return;
    }
    // What is imported key by key is there only while the slot is known to be: looked at under its lock.
    if shared.cluster.imports(slot) {
        return;
    }
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut cursor = 0;
    loop {
        cursor = locked.table(index, slot).scan(cursor, |entry| keys.push(entry.key().to_vec()));
        if cursor == 0 || keys.len() >= KEYS_PER_LOCK {
            break;
        }
    }
    shared.heed(&mut env);
    let preimages = shared.preimages();
    let mut db = Db::new(locked, index, &env, preimages.as_deref());
    for key in &keys {
        if let Some(entry) = db.take(key) {
            lazy::free(entry);
            db.note_changed(key);
            db.note_event(class::GENERIC, "del", key);
        }
    }
    if shared.journal.is_active() && !keys.is_empty() {
        let mut request: Vec<&[u8]> = vec![b"UNLINK"];
        request.extend(keys.iter().map(Vec::as_slice));
        shared.journal.append(index, &request);
    }
    shared.tell(&mut db, 0);
    shared.state.dirty.add(Tally::ANY_THREAD, keys.len() as i64);
}
