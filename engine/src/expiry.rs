//! Active expiry: memory of expired keys, and of expired fields of hashes, comes back although nobody reads them.
//!
//! Each table knows a lower bound of its next expiry time, so a sweep over all slots looks into a table
//! only when something in it is due. The slots are dealt among the loops; a sweep has a time budget and
//! goes on where it stopped. Replicas do not expire: their primary's DEL and HDEL come through the journal.

use std::sync::atomic::Ordering;

use crate::clock;
use crate::command::exec::Executor;
use crate::keyspace::Db;
use crate::keyspace::db::ExpiryWalk;
use crate::topology::SLOTS;

/// Longest time of one sweep, microseconds: a tenth of the tick.
const BUDGET_US: u64 = 10_000;
/// Keys, or fields, deleted under one lock.
const KEYS_PER_LOCK: usize = 64;

/// Where a loop's sweep stands.
#[derive(Default)]
pub struct Sweep {
    slot: u16,
    /// The database and the walk through its table that the time was over for.
    under_way: Option<(u16, ExpiryWalk)>,
}

impl Sweep {
    /// Deletes due keys and fields of this loop's share of the slots, as far as the time allows.
    pub fn run(&mut self, executor: &mut Executor<'_>) {
        let shared = executor.shared;
        let state = &shared.state;
        let off = state.active_expire_off.load(Ordering::Acquire);
        if off || executor.env.hides_expired || state.loading.load(Ordering::Acquire) {
            return;
        }
        let begin = clock::monotonic_us();
        let in_time = || clock::monotonic_us() - begin <= BUDGET_US;
        self.walk(executor, &in_time);
        let now_ms = executor.env.now_ms;
        shared.note_latency("expire-cycle", now_ms, clock::monotonic_us() - begin);
    }

    fn walk(&mut self, executor: &mut Executor<'_>, in_time: &impl Fn() -> bool) {
        let shared = executor.shared;
        let (loops, me) = (shared.loops.len().max(1) as u16, executor.env.thread as u16);
        for step in 0..SLOTS {
            if self.slot % loops == me % loops {
                if step % 256 == 0 && !in_time() {
                    return;
                }
                // Keys that are on their way to this shard expire at the source.
                let foreign = shared.cluster.is_enabled() && !shared.cluster.owns(self.slot);
                if !foreign && !self.sweep_slot(executor, in_time) {
                    return;
                }
            }
            self.slot = (self.slot + 1) % SLOTS;
        }
    }

    /// All databases of one slot; `false` when the time is over and the rest is left for the next sweep.
    fn sweep_slot(&mut self, executor: &mut Executor<'_>, in_time: &impl Fn() -> bool) -> bool {
        let shared = executor.shared;
        let (from, mut resumed) = match self.under_way.take() {
            Some((db, walk)) => (db, Some(walk)),
            None => (0, None),
        };
        for index in from..shared.keyspace.databases() {
            let mut walk = match resumed.take() {
                Some(walk) => walk,
                None if shared.keyspace.has_due(index, self.slot, executor.env.now_ms) => {
                    ExpiryWalk::default()
                }
                None => continue,
            };
            while !walk.done {
                expire_some(executor, index, self.slot, &mut walk);
                if !walk.done && !in_time() {
                    self.under_way = Some((index, walk));
                    return false;
                }
            }
        }
        true
    }
}

/// One step of a walk, under the lock of its slot.
fn expire_some(executor: &mut Executor<'_>, index: u16, slot: u16, walk: &mut ExpiryWalk) {
    let shared = executor.shared;
    let locked = shared.keyspace.lock_slot(slot);
    if shared.state.is_replica.load(Ordering::Acquire) {
        // Since this turn began: what expires is the primary's to say.
        walk.done = true;
        return;
    }
    shared.heed(&mut executor.env);
    let preimages = shared.preimages();
    let mut db = Db::new(locked, index, &executor.env, preimages.as_deref());
    let gone = db.expire_some(slot, walk, KEYS_PER_LOCK);
    if shared.journal.is_active() {
        for key in &gone.keys {
            shared.journal.append(index, &[b"DEL".as_slice(), key]);
        }
        for (key, fields) in &gone.fields {
            let mut request = vec![b"HDEL".as_slice(), key];
            request.extend(fields.iter().map(Vec::as_slice));
            shared.journal.append(index, &request);
        }
    }
    shared.tell(&mut db, 0);
    let stats = &shared.stats;
    stats.expired_keys.fetch_add(gone.keys.len() as u64, Ordering::Relaxed);
    let fields: usize = gone.fields.iter().map(|(_, fields)| fields.len()).sum();
    stats.expired_fields.fetch_add(fields as u64, Ordering::Relaxed);
}
