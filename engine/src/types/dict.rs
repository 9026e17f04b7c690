//! The hash table of large collections: it grows without stalling and can be scanned while it changes.
//!
//! Extendible hashing over small tables: a directory, indexed by the leading bits of a key's *order* (48 bits of its
//! hash), names the segment that holds the key; a full segment splits in two and nothing else moves.
//!
//! ```text
//! directory  00 01 10 11           order = hash bits 8..56
//!             |  |   \ /           segment = a table of at most 112 elements; it holds all keys of one prefix
//!             s0 s1   s2           (bits 0..8 and 57..64 of the hash place a key within its segment)
//! ```
//!
//! SCAN walks in ascending order; its cursor is the order to go on from. An order belongs to the key alone, not to
//! the table's present shape, so that every element that stays is returned exactly once, whatever happens meanwhile.

use std::hash::Hasher;

use foldhash::{SharedSeed, quality::FoldHasher};
use hashbrown::{HashSet, HashTable};

use super::{below, size_class};

const ORDER_BITS: u32 = 48;
const ORDERS: u64 = 1 << ORDER_BITS;
/// A segment splits rather than take more; hashbrown keeps this many in 128 buckets.
const SEGMENT_MAX: usize = 112;
const SEGMENT_BUCKETS: usize = 128;
/// A table of so many elements is fetched ahead.
const FAR: usize = 10_000;
/// How much deeper than an even spread needs the directory may get, before a segment grows instead.
const DEPTH_SLACK: u32 = 6;

/// A hash table of elements whose keys the caller knows: it passes hashes in, and a function that hashes an element.
pub(super) struct Dict<E> {
    directory: Vec<u32>,
    segments: Vec<Segment<E>>,
    depth: u32,
    len: usize,
    /// What the tables of all segments take.
    table_bytes: usize,
    /// What the directory and the list of segments take.
    frame_bytes: usize,
    seed: u64,
}

impl<E: Clone> Clone for Dict<E> {
    fn clone(&self) -> Self {
        let (directory, segments) = (self.directory.clone(), self.segments.clone());
        Self { frame_bytes: frame(&directory, &segments), directory, segments, ..*self }
    }
}

#[derive(Clone)]
struct Segment<E> {
    table: HashTable<E>,
    /// How many leading bits of the order all its keys share.
    depth: u32,
    /// The lowest order that belongs here.
    start: u64,
}

fn order(hash: u64) -> u64 {
    (hash >> 8) & (ORDERS - 1)
}

fn bytes_of<E>(table: &HashTable<E>) -> usize {
    size_class(table.allocation_size())
}

fn frame<E>(directory: &Vec<u32>, segments: &Vec<Segment<E>>) -> usize {
    size_class(directory.capacity() * size_of::<u32>())
        + size_class(segments.capacity() * size_of::<Segment<E>>())
}

/// Hashes a key under a seed; the seed keeps clients from choosing keys that collide.
pub(super) fn hash_key(seed: u64, key: &[u8]) -> u64 {
    let mut hasher = FoldHasher::with_seed(seed, SharedSeed::global_random());
    hasher.write(key);
    hasher.finish()
}

impl<E> Dict<E> {
    pub(super) fn new(seed: u64) -> Self {
        let segments = vec![Segment { table: HashTable::new(), depth: 0, start: 0 }];
        let directory = vec![0];
        let frame_bytes = frame(&directory, &segments);
        Self { directory, segments, depth: 0, len: 0, table_bytes: 0, frame_bytes, seed }
    }

    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        hash_key(self.seed, key)
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What the tables and the directory take, without what elements own.
    #[inline]
    pub(super) fn memory_usage(&self) -> usize {
        self.table_bytes + self.frame_bytes
    }

    fn slot(&self, hash: u64) -> usize {
        (order(hash) >> (ORDER_BITS - self.depth)) as usize
    }

    fn segment_of(&self, hash: u64) -> usize {
        self.directory[self.slot(hash)] as usize
    }

    /// Looks a key up ahead of its use, in a table that is too large for the nearer caches: what such lookups wait for
    /// they wait for side by side, and `bring` has what the elements own come nearer.
    #[inline]
    pub(super) fn prefetch(&self, key: &[u8], bring: impl Fn(&E)) {
        if self.len >= FAR {
            let found = self.find(self.hash(key), |element| {
                bring(element);
                false
            });
            debug_assert!(found.is_none());
        }
    }

    pub(super) fn find(&self, hash: u64, eq: impl FnMut(&E) -> bool) -> Option<&E> {
        self.segments[self.segment_of(hash)].table.find(hash, eq)
    }

    pub(super) fn find_mut(&mut self, hash: u64, eq: impl FnMut(&E) -> bool) -> Option<&mut E> {
        let segment = self.segment_of(hash);
        self.segments[segment].table.find_mut(hash, eq)
    }

    /// Adds an element whose key is not there yet.
    pub(super) fn insert(&mut self, hash: u64, element: E, hash_of: impl Fn(&E) -> u64) {
        let mut at = self.segment_of(hash);
        while self.segments[at].table.len() >= SEGMENT_MAX && self.may_split(at) {
            self.split(at, self.slot(hash), &hash_of);
            at = self.segment_of(hash);
        }
        let table = &mut self.segments[at].table;
        let full = table.len() == table.capacity();
        let before = if full { bytes_of(table) } else { 0 };
        table.insert_unique(hash, element, hash_of);
        if full {
            self.table_bytes = self.table_bytes + bytes_of(table) - before;
        }
        self.len += 1;
    }

    /// Removes the element and gives it back.
    pub(super) fn remove(
        &mut self,
        hash: u64,
        eq: impl FnMut(&E) -> bool,
        hash_of: impl Fn(&E) -> u64,
    ) -> Option<E> {
        let at = self.segment_of(hash);
        let table = &mut self.segments[at].table;
        let element = table.find_entry(hash, eq).ok()?.remove().0;
        self.len -= 1;
        let (len, buckets) = (table.len(), table.num_buckets());
        if len * 8 < buckets {
            let before = bytes_of(table);
            table.shrink_to_fit(&hash_of);
            self.table_bytes = self.table_bytes + bytes_of(table) - before;
            self.merge(at, self.slot(hash), &hash_of);
        }
        Some(element)
    }

    /// All elements, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &E> {
        self.segments.iter().flat_map(|segment| segment.table.iter())
    }

    /// Visits about `count` elements from `cursor` on and gives the next cursor, 0 at the end.
    pub(super) fn scan<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        hash_of: impl Fn(&E) -> u64,
        mut visit: impl FnMut(&'a E),
    ) -> u64 {
        let (mut from, mut visited) = (cursor, 0);
        while from < ORDERS && visited < count.max(1) {
            let slot = (from >> (ORDER_BITS - self.depth)) as usize;
            let segment = &self.segments[self.directory[slot] as usize];
            let mut due: Vec<(u64, &E)> = segment
                .table
                .iter()
                .map(|element| (order(hash_of(element)), element))
                .filter(|&(order, _)| order >= from)
                .collect();
            due.sort_unstable_by_key(|&(order, _)| order);
            let shift = ORDER_BITS - segment.depth;
            let mut next = ((from >> shift) + 1) << shift;
            let mut last = None;
            for (order, element) in due {
                // Elements of one order go together: a cursor cannot stand between them.
                if visited >= count && last != Some(order) {
                    next = order;
                    break;
                }
                visit(element);
                visited += 1;
                last = Some(order);
            }
            from = next;
        }
        if from >= ORDERS { 0 } else { from }
    }

    /// An element, each with the same chance.
    pub(super) fn random(&self, entropy: &mut dyn FnMut() -> u64) -> Option<&E> {
        if self.len == 0 {
            return None;
        }
        // A slot of the directory, then a bucket of a segment of the largest size: a miss tries again, so that small
        // segments are not favoured; nor are those that more than one slot names.
        for _ in 0..4096 {
            let slot = below(entropy, self.directory.len());
            let segment = &self.segments[self.directory[slot] as usize];
            let buckets = segment.table.num_buckets();
            let single = self.segments.len() == 1;
            let width = if single { buckets } else { buckets.max(2 * SEGMENT_BUCKETS) };
            let bucket = below(entropy, width);
            let shared = self.depth - segment.depth;
            if shared > 0 && below(entropy, 1 << shared) > 0 {
                continue;
            }
            if bucket < buckets
                && let Some(element) = segment.table.get_bucket(bucket)
            {
                return Some(element);
            }
        }
        self.iter().next()
    }

    /// Visits `count` distinct elements chosen at random (all, if there are not more).
    pub(super) fn sample<'a>(
        &'a self,
        count: usize,
        entropy: &mut dyn FnMut() -> u64,
        mut visit: impl FnMut(&'a E),
    ) {
        if count >= self.len || count > self.len / 3 {
            // One pass, each element taken with the chance that is left.
            let (mut wanted, mut left) = (count.min(self.len), self.len);
            for element in self.iter() {
                if below(entropy, left) < wanted {
                    visit(element);
                    wanted -= 1;
                }
                left -= 1;
            }
            return;
        }
        let mut seen = HashSet::with_capacity(count);
        let mut tries = 0;
        while seen.len() < count && tries < count * 64 {
            tries += 1;
            if let Some(element) = self.random(entropy)
                && seen.insert(std::ptr::from_ref(element).addr())
            {
                visit(element);
            }
        }
    }

    /// Identical hashes cannot be parted, and must not blow up the directory.
    fn may_split(&self, at: usize) -> bool {
        let needed = (self.len / SEGMENT_MAX).checked_ilog2().unwrap_or(0);
        self.segments[at].depth < (needed + DEPTH_SLACK).min(ORDER_BITS - 1)
    }

    fn split(&mut self, at: usize, slot: usize, hash_of: impl Fn(&E) -> u64) {
        if self.segments[at].depth == self.depth {
            let doubled = self.directory.iter().flat_map(|&segment| [segment, segment]).collect();
            self.directory = doubled;
            self.depth += 1;
            return self.split(at, slot * 2, hash_of);
        }
        let segment = &mut self.segments[at];
        self.table_bytes -= bytes_of(&segment.table);
        let bit = 1 << (ORDER_BITS - 1 - segment.depth);
        segment.depth += 1;
        let upper: Vec<E> =
            segment.table.extract_if(|element| order(hash_of(element)) & bit != 0).collect();
        segment.table.shrink_to_fit(&hash_of);
        let mut table = HashTable::with_capacity(upper.len());
        for element in upper {
            table.insert_unique(hash_of(&element), element, &hash_of);
        }
        self.table_bytes += bytes_of(&segment.table) + bytes_of(&table);
        let (depth, start) = (segment.depth, segment.start | bit);
        let new = self.segments.len() as u32;
        self.segments.push(Segment { table, depth, start });
        self.frame_bytes = frame(&self.directory, &self.segments);
        // The upper half of the slots that named the segment.
        let width = 1usize << (self.depth - depth);
        let first = slot & !(2 * width - 1);
        self.directory[first + width..first + 2 * width].fill(new);
    }

    /// Joins a segment with the other half of its last split, if both fit in half a segment.
    fn merge(&mut self, at: usize, slot: usize, hash_of: impl Fn(&E) -> u64) {
        let depth = self.segments[at].depth;
        if depth == 0 {
            return;
        }
        let width = 1usize << (self.depth - depth);
        let first = slot & !(2 * width - 1);
        let (low, high) = (self.directory[first] as usize, self.directory[first + width] as usize);
        let room = self.segments[low].table.len() + self.segments[high].table.len();
        if self.segments[low].depth != self.segments[high].depth || room > SEGMENT_MAX / 2 {
            return;
        }
        self.directory[first..first + 2 * width].fill(low as u32);
        // Before anything moves: the joined segment may itself be the one that fills the gap, and has all slots of both.
        self.segments[low].depth -= 1;
        let freed = self.segments.swap_remove(high);
        let moved = self.segments.len();
        if moved != high {
            let segment = &self.segments[high];
            let first = (segment.start >> (ORDER_BITS - self.depth)) as usize;
            let width = 1usize << (self.depth - segment.depth);
            self.directory[first..first + width].fill(high as u32);
        }
        let low = if low == moved { high } else { low };
        let target = &mut self.segments[low];
        self.table_bytes -= bytes_of(&freed.table) + bytes_of(&target.table);
        for element in freed.table {
            target.table.insert_unique(hash_of(&element), element, &hash_of);
        }
        self.table_bytes += bytes_of(&target.table);
        if self.segments.len().is_power_of_two() {
            self.shrink_directory();
        }
    }

    fn shrink_directory(&mut self) {
        let deepest = self.segments.iter().map(|segment| segment.depth).max().unwrap_or(0);
        if deepest < self.depth {
            let step = 1 << (self.depth - deepest);
            self.directory = self.directory.iter().step_by(step).copied().collect();
            self.depth = deepest;
        }
        self.segments.shrink_to(self.segments.len() * 2);
        self.frame_bytes = frame(&self.directory, &self.segments);
    }
}

#[cfg(test)]
mod tests;
