//! What the LRU policies take for the least recently used: two segments, whose balance follows the traffic.
//!
//! A key that came and was not used again since is *young*, the others are *proven*: one bit of an entry. Plain LRU
//! keeps what was asked for once (a scan, the long tail) as long as what is asked for all day. Here a young key counts as
//! idle for `weight` times its time, so that most of the memory goes to proven ones.
//!
//! The weight tunes itself. A hit on a key that was about to go (idle for at least half as long as those of its segment
//! that went lately) tells what a little more room brings to that segment; the keys that eviction samples tell how many
//! there are that old. The segment with more such hits a key gets more room. Where popularity drifts, so that the young
//! are those that matter, the weight falls to 1, which is plain LRU; where much is asked for once, it rises.
//!
//! Nothing is remembered of keys that have gone (as ARC and S3-FIFO do), and nothing is shared: each event loop tunes
//! by the hits that it serves and the keys that it evicts, a random part of all.

use std::cell::Cell;

/// Weight 1.
const ONE: u64 = 256;
const WEIGHT_START: u64 = 4 * ONE;
const WEIGHT_MAX: u64 = 16 * ONE;
/// Evictions between two steps of the weight.
const STEP_EVERY: u32 = 1000;
/// A step up or down is a sixteenth; it takes so many hits on old keys.
const HITS_MIN: u64 = 20;
/// Ages are means of whole seconds, in parts of one.
const SECOND: u64 = 1 << 16;
/// No key has gone yet.
const NEVER: u64 = u64::MAX;

thread_local! {
    static TUNING: Tuning = const { Tuning::new() };
}

/// How good it is for a key to go that has been idle for so many seconds.
pub fn score(proven: bool, idle: u32) -> u64 {
    TUNING.with(|t| t.score(proven, idle))
}

/// A key is used that has been idle for so many seconds.
pub fn note_use(proven: bool, idle: u32) {
    TUNING.with(|t| t.note_use(proven, idle));
}

/// Eviction looked at a key by chance.
pub fn note_sampled(proven: bool, idle: u32) {
    TUNING.with(|t| t.note_sampled(proven, idle));
}

/// A key was evicted.
pub fn note_evicted(proven: bool, idle: u32) {
    TUNING.with(|t| t.note_evicted(proven, idle));
}

/// The keys of one segment that are about to go.
struct Segment {
    /// Idle time of those that went, a running mean.
    age: Cell<u64>,
    hits: Cell<u64>,
    sampled: Cell<u64>,
}

impl Segment {
    const fn new() -> Self {
        Self { age: Cell::new(NEVER), hits: Cell::new(0), sampled: Cell::new(0) }
    }

    fn is_old(&self, idle: u32) -> bool {
        u64::from(idle) * SECOND >= self.age.get() / 2
    }

    fn note_gone(&self, idle: u32) {
        let idle = u64::from(idle) * SECOND;
        let age = self.age.get();
        let mean = if age == NEVER { idle } else { age - age / 128 + idle / 128 };
        self.age.set(mean);
    }

    /// Older counts weigh half as much.
    fn fade(&self) {
        self.hits.set(self.hits.get() / 2);
        self.sampled.set(self.sampled.get() / 2);
    }
}

struct Tuning {
    /// In parts of `ONE`.
    weight: Cell<u64>,
    evictions: Cell<u32>,
    young: Segment,
    proven: Segment,
}

impl Tuning {
    const fn new() -> Self {
        Self {
            weight: Cell::new(WEIGHT_START),
            evictions: Cell::new(0),
            young: Segment::new(),
            proven: Segment::new(),
        }
    }

    fn segment(&self, proven: bool) -> &Segment {
        if proven { &self.proven } else { &self.young }
    }

    fn score(&self, proven: bool, idle: u32) -> u64 {
        (u64::from(idle) + 1) * if proven { ONE } else { self.weight.get() }
    }

    fn note_use(&self, proven: bool, idle: u32) {
        let segment = self.segment(proven);
        if segment.is_old(idle) {
            segment.hits.set(segment.hits.get() + 1);
        }
    }

    fn note_sampled(&self, proven: bool, idle: u32) {
        let segment = self.segment(proven);
        if segment.is_old(idle) {
            segment.sampled.set(segment.sampled.get() + 1);
        }
    }

    fn note_evicted(&self, proven: bool, idle: u32) {
        self.segment(proven).note_gone(idle);
        let other = self.segment(!proven);
        if other.age.get() == NEVER {
            // Until one of them goes, all of them count.
            other.age.set(0);
        }
        self.evictions.set(self.evictions.get() + 1);
        if self.evictions.get() >= STEP_EVERY {
            self.evictions.set(0);
            self.step();
        }
    }

    fn step(&self) {
        let (young, proven) = (&self.young, &self.proven);
        if young.hits.get() + proven.hits.get() < HITS_MIN {
            return;
        }
        // Hits a key, of one against the other; one key more each, so that none is divided by 0.
        let for_young = young.hits.get() * (proven.sampled.get() + 1);
        let for_proven = proven.hits.get() * (young.sampled.get() + 1);
        let weight = self.weight.get();
        let next = if for_young > for_proven { weight * 15 / 16 } else { weight * 17 / 16 };
        self.weight.set(next.clamp(ONE, WEIGHT_MAX));
        young.fade();
        proven.fade();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::council::rng::Rng;

    const ROOM: usize = 2000;
    const REQUESTS: u64 = 200_000;
    /// Requests in one second of the model.
    const PACE: u64 = 500;

    struct Key {
        name: u64,
        used_at: u32,
        proven: bool,
    }

    /// Up to twenty times as many keys as there is room for, the n-th in proportion to 1/n.
    fn by_rank(rng: &mut Rng) -> u64 {
        let unit = (rng.draw() >> 11) as f64 / (1u64 << 53) as f64;
        (20.0 * ROOM as f64).powf(unit) as u64
    }

    /// Misses of a cache that looks at sixteen keys by chance for each that goes.
    fn misses(tuned: bool, mut request: impl FnMut(u64, &mut Rng) -> u64) -> u64 {
        let tuning = Tuning::new();
        let mut rng = Rng::new(1);
        let mut places: HashMap<u64, usize> = HashMap::new();
        let mut keys: Vec<Key> = Vec::new();
        let mut misses = 0;
        for n in 0..REQUESTS {
            let name = request(n, &mut rng);
            let now = (n / PACE) as u32;
            if let Some(at) = places.get(&name) {
                let key = &mut keys[*at];
                tuning.note_use(key.proven, now - key.used_at);
                (key.used_at, key.proven) = (now, true);
                continue;
            }
            misses += u64::from(n > REQUESTS / 4);
            if keys.len() == ROOM {
                let sampled: Vec<usize> =
                    (0..16).map(|_| rng.below(ROOM as u64) as usize).collect();
                let score = |at: &usize| {
                    let idle = now - keys[*at].used_at;
                    if tuned { tuning.score(keys[*at].proven, idle) } else { u64::from(idle) }
                };
                for at in &sampled {
                    tuning.note_sampled(keys[*at].proven, now - keys[*at].used_at);
                }
                let goes = sampled.iter().copied().max_by_key(score).unwrap();
                let gone = keys.swap_remove(goes);
                tuning.note_evicted(gone.proven, now - gone.used_at);
                places.remove(&gone.name);
                if let Some(moved) = keys.get(goes) {
                    places.insert(moved.name, goes);
                }
            }
            places.insert(name, keys.len());
            keys.push(Key { name, used_at: now, proven: false });
        }
        misses
    }

    fn ratio(request: impl Fn(u64, &mut Rng) -> u64) -> f64 {
        misses(true, &request) as f64 / misses(false, &request) as f64
    }

    #[test]
    fn what_is_asked_for_once_takes_little_room() {
        let popular = ratio(|_, rng| by_rank(rng));
        assert!(popular < 0.93, "the long tail: {popular:.3} of LRU's misses");
        let scanned = ratio(|n, rng| if n % 5 == 0 { 1 << 40 | n } else { by_rank(rng) });
        assert!(scanned < 0.95, "a scan beside it: {scanned:.3} of LRU's misses");
        let round = ratio(|n, _| n % (ROOM as u64 * 6 / 5));
        assert!(round < 0.8, "round and round: {round:.3} of LRU's misses");
    }

    #[test]
    fn where_popularity_drifts_it_is_lru() {
        let drifting = ratio(|n, rng| by_rank(rng) + n / 8);
        assert!(drifting < 1.03, "{drifting:.3} of LRU's misses");
        let even = ratio(|_, rng| rng.below(2 * ROOM as u64));
        assert!((0.98..1.02).contains(&even), "{even:.3} of LRU's misses");
    }

    #[test]
    fn nothing_is_counted_before_a_key_has_gone() {
        let tuning = Tuning::new();
        tuning.note_use(true, 100);
        tuning.note_use(false, 0x00ff_ffff);
        assert_eq!((tuning.young.hits.get(), tuning.proven.hits.get()), (0, 0));
        tuning.note_evicted(false, 10);
        tuning.note_use(false, 4);
        tuning.note_use(false, 5);
        tuning.note_use(true, 0);
        assert_eq!((tuning.young.hits.get(), tuning.proven.hits.get()), (1, 1));
    }
}
