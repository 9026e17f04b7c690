//! Access times: the LRU clock, the LFU counter, and what a lookup makes of them.

use super::{Db, Env};
use crate::keyspace::{Entry, recency};

impl Db<'_> {
    /// Access field of an entry that is made now.
    #[inline]
    pub fn access(&self) -> u32 {
        fresh_access(self.env)
    }

    /// Access field of a value that is put over another: how often the key was used belongs to the key, so
    /// that LFU does not take what is written all the time for new
    /// (see: each_policy_evicts_what_it_says_and_nothing_else).
    #[inline]
    pub(super) fn access_over(&mut self, key: &[u8], hash: u64, slot: u16) -> u32 {
        let env = self.env;
        if env.lfu
            && let Some(entry) = self.locked.table(self.index, slot).get_mut(hash, key)
        {
            touch(entry, env);
            return entry.access();
        }
        self.access()
    }
}

/// Access field for a new entry: the LRU clock in seconds, or LFU's minutes and a counter of 5.
pub fn fresh_access(env: &Env) -> u32 {
    if env.lfu { lfu_minutes(env.now_ms) << 8 | 5 } else { lru_clock(env.now_ms) }
}

/// LRU clock: seconds, 24 bits.
pub fn lru_clock(now_ms: i64) -> u32 {
    (now_ms / 1000) as u32 & 0x00ff_ffff
}

/// LFU clock: minutes, 16 bits.
pub fn lfu_minutes(now_ms: i64) -> u32 {
    (now_ms / 60_000) as u32 & 0xffff
}

/// LFU counter of an access field after the decay of the minutes since.
pub fn lfu_counter(access: u32, env: &Env) -> u32 {
    let (then, counter) = (access >> 8, access & 0xff);
    if env.lfu_decay_minutes == 0 {
        return counter;
    }
    let idle = lfu_minutes(env.now_ms).wrapping_sub(then) & 0xffff;
    counter.saturating_sub(idle / env.lfu_decay_minutes)
}

#[inline]
pub(super) fn touch(entry: &mut Entry, env: &Env) {
    if env.no_touch {
        return;
    }
    let access = entry.access();
    if env.lfu {
        let counter = lfu_counter(access, env);
        let base = counter.saturating_sub(5);
        // A cheap random number: the access counter only needs to be right on average.
        let mut x = u64::from(access).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ (env.now_ms as u64).wrapping_mul(0xd134_2543_de82_ef95)
            ^ (std::ptr::from_mut(entry) as u64).rotate_left(17);
        x ^= x >> 29;
        x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let odds = u64::from(base) * u64::from(env.lfu_log_factor) + 1;
        let up = counter < 255 && (x >> 32).is_multiple_of(odds);
        entry.set_access(lfu_minutes(env.now_ms) << 8 | (counter + u32::from(up)));
    } else {
        let clock = lru_clock(env.now_ms);
        let proven = entry.is_proven();
        // Written only when it changed, so that reads of one second do not dirty the cache line.
        if access != clock || !proven {
            recency::note_use(proven, clock.wrapping_sub(access) & 0x00ff_ffff);
            entry.set_access(clock);
            entry.set_proven();
        }
    }
}
