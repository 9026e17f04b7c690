//! A hash table that grows by one bucket at a time: linear hashing over buckets of one cache line.
//!
//! ```text
//! bucket, 64 bytes:  7 tags (u8) | used bits, bit 7 = has a child | 7 words (entries; word 6 = child when bit 7)
//! child:             the same, or a smaller one, of 32 or 48 bytes: 3 or 5 entries
//! level L, split s:  2^L + s buckets; bucket of h = h mod 2^(L+1), less 2^L when that bucket is not there yet
//! ```
//!
//! Why: no growth ever stalls (a split moves one bucket's entries), and a cursor in reversed bits walks
//! the table with SCAN's guarantee through splits and merges: each bucket of level L+1 is a child of the
//! bucket of level L with the same low bits.
//!
//! Up to `SEGMENT` buckets lie in one array, whose capacity doubles; beyond that a directory points to
//! segments of `SEGMENT` buckets, so that growing never copies buckets. What is allocated is split into at
//! once, a bucket per insert: buckets that are paid for hold entries, and all are as full.
//!
//! Why doubling: the many tables of a keyspace grow together, and each array that is left for a larger one
//! leaves a hole in its allocator's class. With a class for every second bucket those holes were six bytes
//! per key, a tenth of what a small one takes; with a class per doubling they are less than two.

#![expect(unsafe_code, reason = "buckets of raw words in raw arrays; see each SAFETY note")]

mod bucket;
mod growth;
mod scan;

use super::entry::Entry;
use crate::prefetch::prefetch;
use bucket::{BUCKET_BYTES, Node, close_gap, drain_chain, matches, place, tag};

const SEGMENT: usize = 64;
/// Entries per bucket at which the array doubles. Nearly a quarter of the entries, on the mean over a doubling, are in children then.
const FILL_MAX: usize = 10;
/// The same for one more segment of a large table, half of whose buckets may have twice the entries of the others.
const FILL_MAX_SEGMENTS: usize = 7;
/// Entries per bucket at which buckets are split as long as there is room for more: just doubled, a table has more.
const FILL_ROOM: usize = 4;
/// Entries per bucket below which two are merged.
const FILL_MIN: usize = 2;

/// Entries of one slot in one database.
pub struct Table {
    /// Up to SEGMENT buckets: the bucket array. Above: an array of segment pointers. Null when empty.
    base: usize,
    buckets: u32,
    /// Capacity of the array behind `base`: buckets, or segment pointers.
    capacity: u32,
    len: u32,
    /// Entries with an expiry time.
    pub expires: u32,
    /// No entry expires before this time, and no field of a hash, unix milliseconds: a lower bound.
    pub next_expiry: i64,
}

impl Default for Table {
    fn default() -> Table {
        Table { base: 0, buckets: 0, capacity: 0, len: 0, expires: 0, next_expiry: i64::MAX }
    }
}

impl Table {
    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the bucket arrays (children not counted; they are a few percent).
    pub fn memory(&self) -> usize {
        let segments = (self.buckets as usize).div_ceil(SEGMENT);
        if segments > 1 {
            segments * SEGMENT * BUCKET_BYTES + self.capacity as usize * 8
        } else {
            self.capacity as usize * BUCKET_BYTES
        }
    }

    #[inline]
    fn index(&self, hash: u64) -> usize {
        let n = self.buckets as usize;
        debug_assert!(n > 0);
        let level = n.ilog2();
        let wide = hash as usize & ((2 << level) - 1);
        if wide < n { wide } else { wide & ((1 << level) - 1) }
    }

    #[inline]
    fn bucket(&self, index: usize) -> Node {
        debug_assert!(index < self.buckets as usize);
        let (array, index) = if self.buckets as usize <= SEGMENT {
            (self.base as *mut u64, index)
        } else {
            // SAFETY: the directory has a live segment for every bucket below `buckets`.
            (unsafe { *(self.base as *const *mut u64).add(index / SEGMENT) }, index % SEGMENT)
        };
        // SAFETY: the array or segment has that bucket.
        Node::at(unsafe { array.add(index * (BUCKET_BYTES / size_of::<u64>())) })
    }

    /// Brings the bucket of a hash nearer, ahead of its use.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if self.buckets != 0 {
            prefetch(self.bucket(self.index(hash)).address());
        }
    }

    /// Brings the entries that may match a hash nearer; the bucket should be in the cache by now. `true`: none does, but its
    /// child is on its way: `prefetch_in_child` comes next.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) -> bool {
        if self.buckets == 0 {
            return false;
        }
        let bucket = self.bucket(self.index(hash));
        let is_here = bucket.prefetch_matches(hash);
        let child = bucket.child_of(bucket.head());
        if let Some(child) = &child {
            prefetch(child.node.address());
        }
        !is_here && child.is_some()
    }

    /// The same in the child of the bucket; what lies deeper yet is rare.
    pub fn prefetch_in_child(&self, hash: u64) {
        if self.buckets == 0 {
            return;
        }
        let bucket = self.bucket(self.index(hash));
        if let Some(child) = bucket.child_of(bucket.head()) {
            child.node.prefetch_matches(hash);
        }
    }

    /// Where the entry of a key is: its bucket or child, and the place in it.
    #[inline]
    fn locate(&self, hash: u64, key: &[u8]) -> Option<(Node, usize)> {
        if self.buckets == 0 {
            return None;
        }
        let tag = tag(hash);
        let mut at = self.bucket(self.index(hash));
        loop {
            let head = at.head();
            let mut hits = matches(head, tag);
            while hits != 0 {
                let i = hits.trailing_zeros() as usize / 8;
                hits &= hits - 1;
                // SAFETY: `at` is a live node of this table, which is borrowed, and the place is used.
                if unsafe { at.entry(i) }.key() == key {
                    return Some((at, i));
                }
            }
            at = at.child_of(head)?.node;
        }
    }

    #[inline]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        let (node, i) = self.locate(hash, key)?;
        // SAFETY: located in this table, and borrowed as long as the table is.
        Some(unsafe { node.entry(i) })
    }

    #[inline]
    pub fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        let (node, i) = self.locate(hash, key)?;
        // SAFETY: as in `get`; exclusive by `&mut self`.
        Some(unsafe { node.entry_mut(i) })
    }

    /// Puts an entry in, replacing and returning the one with the same key.
    pub fn insert(&mut self, hash: u64, mut new: Entry) -> Option<Entry> {
        let expires = new.ttl().is_some();
        self.next_expiry = self.next_expiry.min(new.next_due());
        let old = match self.locate(hash, new.key()) {
            Some((node, i)) => {
                new.set_proven();
                // SAFETY: located in this table, which is exclusive by `&mut self`.
                Some(std::mem::replace(unsafe { node.entry_mut(i) }, new))
            }
            None => {
                self.insert_new(hash, new);
                None
            }
        };
        if old.as_ref().is_some_and(|e| e.ttl().is_some()) {
            self.expires -= 1;
        }
        self.expires += u32::from(expires);
        old
    }

    fn insert_new(&mut self, hash: u64, new: Entry) {
        if self.buckets == 0 {
            self.reserve(1);
            self.buckets = 1;
        } else if self.is_to_split() {
            self.split();
        }
        place(self.bucket(self.index(hash)), tag(hash), new.into_raw());
        self.len += 1;
    }

    #[inline]
    fn is_to_split(&self) -> bool {
        let (len, buckets) = (self.len as usize, self.buckets as usize);
        if len < buckets * FILL_ROOM {
            return false;
        }
        let (has_room, fill_max) = if buckets <= SEGMENT {
            (buckets < self.capacity as usize, FILL_MAX)
        } else {
            (!buckets.is_multiple_of(SEGMENT), FILL_MAX_SEGMENTS)
        };
        has_room || len >= buckets * fill_max
    }

    /// Takes an entry out.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Entry> {
        let (node, i) = self.locate(hash, key)?;
        let (_, word) = node.take(i);
        // SAFETY: the word was a live entry of this table and is not in it any more.
        let taken = unsafe { Entry::from_raw(word) };
        close_gap(self.bucket(self.index(hash)), node, i);
        self.len -= 1;
        if taken.ttl().is_some() {
            self.expires -= 1;
        }
        if self.len == 0 {
            self.free_all();
        } else if self.buckets > 1 && (self.len as usize) < self.buckets as usize * FILL_MIN {
            self.merge();
        }
        Some(taken)
    }

    /// Notes that the caller has changed in place when an entry, or a field of it, expires.
    pub fn note_due(&mut self, at_ms: i64) {
        self.next_expiry = self.next_expiry.min(at_ms);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for index in 0..self.buckets as usize {
            for (_, word) in drain_chain(self.bucket(index)) {
                // SAFETY: the word was a live entry and has been taken out of the table.
                drop(unsafe { Entry::from_raw(word) });
            }
        }
        self.free_all();
    }
}

// SAFETY: a table owns its buckets and entries, and entries are Send.
unsafe impl Send for Table {}

#[cfg(test)]
mod tests;
