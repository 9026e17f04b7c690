//! maxmemory: which key goes when a write needs room.
//!
//! A few keys of random slots are sampled and the best to go are kept in a pool of sixteen, so that over
//! several rounds the choice comes near to the true order (the longest idle, the least used, the next to
//! expire) without any list through all keys. No lock is held but that of the slot that is looked at.
//! What the LRU policies take for longest idle: see `crate::keyspace::recency`.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use crate::clock;
use crate::config::{Hot, Policy};
use crate::keyspace::db::{lfu_counter, lru_clock};
use crate::keyspace::{Db, Entry, Env, recency};
use crate::moves;
use crate::notify::class;
use crate::random;
use crate::server::Shared;
use crate::topology::SLOTS;

/// What a write is answered that there is no room for.
pub const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";
/// Candidates that are kept between samples.
const POOL: usize = 16;
/// Random slots that are tried before one with keys is looked for in order.
const TRIES: usize = 32;
/// Slots that are looked at in order once something was found.
const WALK_SLOTS: u16 = 1024;
/// Most bytes that a loop may write before it looks at used memory again.
const ROOM_MAX: u64 = 256 * 1024;

/// A key that may go; the highest score goes first.
struct Candidate {
    score: u64,
    db: u16,
    slot: u16,
    key: Vec<u8>,
}

thread_local! {
    static CANDIDATES: RefCell<Vec<Candidate>> = const { RefCell::new(Vec::new()) };
}

/// Makes room for a write: how many bytes this loop may add before it asks again, or `None` when used
/// memory stays above maxmemory. The caller holds no locks.
pub fn make_room(shared: &Shared, env: &Env) -> Option<i64> {
    let max = shared.config.maxmemory();
    let used = shared.used_memory();
    if max == 0 || used <= max {
        let share = max.saturating_sub(used) / (2 * shared.loops.len().max(1) as u64);
        return Some(share.min(ROOM_MAX) as i64);
    }
    let hot = shared.config.hot();
    if hot.import_mode {
        return Some(ROOM_MAX as i64);
    }
    if hot.maxmemory_policy == Policy::NoEviction {
        return None;
    }
    let begin = clock::monotonic_us();
    let made = CANDIDATES.with_borrow_mut(|pool| {
        loop {
            if !evict_one(shared, env, &hot, pool) {
                return None;
            }
            if shared.used_memory() <= max {
                return Some(0);
            }
            // Longer would hold up the clients; what is over goes with the next writes.
            if clock::monotonic_us() - begin > hot.eviction_us {
                return Some(0);
            }
        }
    });
    shared.note_latency("eviction-cycle", env.now_ms, clock::monotonic_us() - begin);
    made
}

/// Brings memory back under the limit for a while, without a write that asks for it.
pub fn tick(shared: &Shared, env: &Env) {
    let max = shared.config.maxmemory();
    if max > 0 && !env.hides_expired && shared.used_memory() > max {
        make_room(shared, env);
    }
}

/// Deletes one key; `false` when there is none that may go.
fn evict_one(shared: &Shared, env: &Env, hot: &Hot, pool: &mut Vec<Candidate>) -> bool {
    // A candidate may have gone since, or been used: some rounds may come to nothing.
    for _ in 0..POOL * 2 {
        if !sample(shared, env, hot, pool) && pool.is_empty() {
            return false;
        }
        while let Some(candidate) = pool.pop() {
            if delete(shared, env, hot, &candidate) {
                return true;
            }
        }
    }
    false
}

/// How good it is for an entry to go; `None`: the policy spares it.
fn score(entry: &Entry, env: &Env, policy: Policy) -> Option<u64> {
    let ttl = entry.ttl();
    if policy.is_volatile() && ttl.is_none() {
        return None;
    }
    Some(match policy {
        Policy::NoEviction => return None,
        Policy::AllKeysRandom | Policy::VolatileRandom => random::next(),
        Policy::VolatileTtl => u64::MAX - ttl.unwrap_or(i64::MAX).max(0) as u64,
        Policy::AllKeysLfu | Policy::VolatileLfu => {
            u64::from(255 - lfu_counter(entry.access(), env))
        }
        Policy::AllKeysLru | Policy::VolatileLru => {
            recency::score(entry.is_proven(), idle_seconds(entry, env))
        }
    })
}

fn idle_seconds(entry: &Entry, env: &Env) -> u32 {
    lru_clock(env.now_ms).wrapping_sub(entry.access()) & 0x00ff_ffff
}

/// Puts a few keys of a random place into the pool; `false` when nothing was found anywhere.
fn sample(shared: &Shared, env: &Env, hot: &Hot, pool: &mut Vec<Candidate>) -> bool {
    let databases: Vec<u16> =
        (0..shared.keyspace.databases()).filter(|db| shared.keyspace.is_made(*db)).collect();
    let mut found = 0;
    let mut look = |slot: u16, pool: &mut Vec<Candidate>| {
        for db in &databases {
            let mut locked = shared.keyspace.lock_slot(slot);
            let table = locked.table(*db, slot);
            if table.is_empty() || (hot.maxmemory_policy.is_volatile() && table.expires == 0) {
                continue;
            }
            // Buckets of a table may be empty, and hold keys that are spared: a few are looked at, each once,
            // so that the keys that are compared are different ones.
            let mut cursor = random::next();
            for _ in 0..hot.maxmemory_samples {
                cursor = table.scan(cursor, |entry| {
                    if let Some(score) = score(entry, env, hot.maxmemory_policy) {
                        found += 1;
                        if hot.maxmemory_policy.is_lru() {
                            recency::note_sampled(entry.is_proven(), idle_seconds(entry, env));
                        }
                        offer(pool, score, *db, slot, entry.key());
                    }
                });
                if found >= hot.maxmemory_samples || cursor == 0 {
                    break;
                }
            }
        }
        found >= hot.maxmemory_samples
    };
    for _ in 0..TRIES {
        if look(random::below(u64::from(SLOTS)) as u16, pool) {
            return true;
        }
    }
    // Few slots have keys that may go: those from a random place on. As many as the policy wants to compare,
    // or what a bounded walk finds; a choice among too few would take keys in use.
    let from = random::below(u64::from(SLOTS)) as u16;
    for step in 0..SLOTS {
        if look((from + step) % SLOTS, pool) || (step >= WALK_SLOTS && !pool.is_empty()) {
            return true;
        }
    }
    !pool.is_empty()
}

/// Keeps the best candidates, the best one last.
fn offer(pool: &mut Vec<Candidate>, score: u64, db: u16, slot: u16, key: &[u8]) {
    if pool.len() >= POOL && score <= pool[0].score {
        return;
    }
    if pool.iter().any(|c| c.db == db && c.slot == slot && c.key == key) {
        return;
    }
    if pool.len() >= POOL {
        pool.remove(0);
    }
    let at = pool.partition_point(|c| c.score <= score);
    pool.insert(at, Candidate { score, db, slot, key: key.to_vec() });
}

/// Deletes a candidate that is still there and still may go, and tells the journal.
fn delete(shared: &Shared, env: &Env, hot: &Hot, candidate: &Candidate) -> bool {
    let mut env = env.clone();
    let locked = shared.keyspace.lock_slot(candidate.slot);
    if shared.state.is_replica.load(Ordering::Acquire) {
        // Since this was asked for: what is evicted is the primary's to say.
        return false;
    }
    shared.heed(&mut env);
    let preimages = shared.preimages();
    let mut db = Db::new(locked, candidate.db, &env, preimages.as_deref());
    let key = candidate.key.as_slice();
    let still = db.peek(key).and_then(|entry| score(entry, &env, hot.maxmemory_policy));
    // Used since it was sampled, or given more time: it is not what the policy wants to go.
    let by_chance = matches!(hot.maxmemory_policy, Policy::AllKeysRandom | Policy::VolatileRandom);
    let gone = match still {
        Some(now) if by_chance || now >= candidate.score => db.take(key),
        _ => None,
    };
    if gone.is_some() && !shared.cluster.owns(candidate.slot) {
        moves::cut_unaware(shared);
    }
    if let Some(entry) = &gone {
        if hot.maxmemory_policy.is_lru() {
            recency::note_evicted(entry.is_proven(), idle_seconds(entry, &env));
        }
        db.note_changed(key);
        db.note_event(class::EVICTED, "evicted", key);
    }
    if shared.journal.is_active() && (gone.is_some() || db.has_expired()) {
        shared.journal.append(candidate.db, &[b"DEL".as_slice(), key]);
    }
    let freed = gone.is_some() || db.has_expired();
    db.take_expired();
    // Watchers are told while the lock is held, as by every other change.
    shared.tell(&mut db, 0);
    drop(db);
    if let Some(entry) = gone {
        shared.stats.evicted_keys.fetch_add(1, Ordering::Relaxed);
        crate::lazy::free(entry);
    }
    freed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_keeps_the_sixteen_best_in_order() {
        let mut pool = Vec::new();
        for i in 0..100u64 {
            let score = i * 37 % 101;
            offer(&mut pool, score, 0, 0, &i.to_le_bytes());
        }
        let scores: Vec<u64> = pool.iter().map(|c| c.score).collect();
        assert_eq!(scores.len(), POOL);
        assert!(scores.is_sorted());
        let mut all: Vec<u64> = (0..100u64).map(|i| i * 37 % 101).collect();
        all.sort_unstable();
        assert_eq!(scores, all[84..]);
        let best = pool.last().map(|c| c.key.clone());
        offer(&mut pool, 1000, 0, 0, &best.clone().unwrap_or_default());
        assert_eq!(pool.last().map(|c| c.key.clone()), best);
    }
}
