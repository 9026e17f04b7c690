//! Active expiry: memory of expired keys comes back although nobody reads them.
//!
//! Each table knows a lower bound of its next expiry time, so a sweep over all slots looks into a table
//! only when something in it is due. The slots are dealt among the loops; a sweep has a time budget and
//! goes on where it stopped. Replicas do not expire: their primary's DEL comes through the journal.

use std::sync::atomic::Ordering;

use crate::clock;
use crate::command::exec::Executor;
use crate::keyspace::Db;
use crate::topology::SLOTS;

/// Longest time of one sweep, microseconds: a tenth of the tick.
const BUDGET_US: u64 = 10_000;
/// Keys deleted under one lock.
const KEYS_PER_LOCK: usize = 64;

/// Deletes due keys of this loop's share of the slots; gives the slot to go on with.
pub fn sweep(executor: &mut Executor<'_>, from: u16) -> u16 {
    let shared = executor.shared;
    let state = &shared.state;
    let off = state.active_expire_off.load(Ordering::Acquire);
    if off || executor.env.hides_expired || state.loading.load(Ordering::Acquire) {
        return from;
    }
    let (loops, me) = (shared.loops.len().max(1) as u16, executor.env.thread as u16);
    let begin = clock::monotonic_us();
    for step in 0..SLOTS {
        let slot = (from + step) % SLOTS;
        if slot % loops != me % loops {
            continue;
        }
        if step % 256 == 0 && clock::monotonic_us() - begin > BUDGET_US {
            return slot;
        }
        for index in 0..shared.keyspace.databases() {
            while shared.keyspace.has_due(index, slot, executor.env.now_ms) {
                executor.env.tracks_changes = shared.waiters.any();
                let locked = shared.keyspace.lock_slot(slot);
                let preimages = shared.preimages();
                let mut db = Db::new(locked, index, &executor.env, preimages.as_deref());
                let gone = db.expire_slot(slot, KEYS_PER_LOCK);
                if shared.journal.is_active() {
                    for (at, key) in db.expired.drain(..) {
                        shared.journal.append(at, &[b"DEL".as_slice(), &key]);
                    }
                }
                let changed = std::mem::take(&mut db.changed);
                drop(db);
                shared.stats.expired_keys.fetch_add(gone as u64, Ordering::Relaxed);
                changed.iter().for_each(|(db, key)| shared.waiters.changed(*db, key));
                if gone < KEYS_PER_LOCK {
                    break;
                }
            }
        }
    }
    from
}
