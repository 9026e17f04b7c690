//! A hash table that grows by one bucket at a time: linear hashing over buckets of one cache line.
//!
//! ```text
//! bucket, 64 bytes:  7 tags (u8) | used bits, bit 7 = has a child | 7 words (entries; word 6 = child when bit 7)
//! level L, split s:  2^L + s buckets; bucket of h = h mod 2^(L+1), less 2^L when that bucket is not there yet
//! ```
//!
//! Why: no growth ever stalls (a split moves one bucket's entries), the fill stays level at 6 of 7, and
//! a cursor in reversed bits walks the table with SCAN's guarantee through splits and merges: each
//! bucket of level L+1 is a child of the bucket of level L with the same low bits.
//!
//! Up to `SEGMENT` buckets lie in one array that grows by steps of the allocator's classes; beyond that
//! a directory points to segments of `SEGMENT` buckets, so that growing never copies buckets.

#![expect(unsafe_code, reason = "buckets of raw words in raw arrays; see each SAFETY note")]

mod bucket;
mod growth;
mod scan;

use super::entry::Entry;
use crate::prefetch::prefetch;
use bucket::{Bucket, CHILD_BIT, ENTRIES, drain_chain, entry, matches, place, tag};

const SEGMENT: usize = 64;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Entries per bucket at which the table splits one more bucket, and below which it merges one.
const FILL_MAX: usize = 6;
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
            segments * SEGMENT * 64 + self.capacity as usize * 8
        } else {
            self.capacity as usize * 64
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
    fn bucket(&self, index: usize) -> *mut Bucket {
        debug_assert!(index < self.buckets as usize);
        if self.buckets as usize <= SEGMENT {
            // SAFETY: the array behind `base` has at least `buckets` buckets.
            unsafe { (self.base as *mut Bucket).add(index) }
        } else {
            // SAFETY: the directory has a live segment for every bucket below `buckets`.
            unsafe {
                let segment = *(self.base as *const *mut Bucket).add(index / SEGMENT);
                segment.add(index % SEGMENT)
            }
        }
    }

    /// Brings the bucket of a hash nearer, ahead of its use.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if self.buckets != 0 {
            prefetch(self.bucket(self.index(hash)));
        }
    }

    /// Brings the entries that may match a hash nearer; the bucket should be in the cache by now.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        if self.buckets == 0 {
            return;
        }
        // SAFETY: the bucket is live.
        let bucket = unsafe { &*self.bucket(self.index(hash)) };
        let mut hits = matches(bucket, tag(hash));
        while hits != 0 {
            let i = hits.trailing_zeros() as usize / 8;
            hits &= hits - 1;
            // Header and key lie in the first line; a value of usual length ends in the second.
            let entry = bucket.words[i] as *const u8;
            prefetch(entry);
            prefetch(entry.wrapping_add(LINE));
        }
        if bucket.used & CHILD_BIT != 0 {
            prefetch(bucket.words[ENTRIES - 1] as *const Bucket);
        }
    }

    /// Where the entry of a key is: its bucket and index in it.
    #[inline]
    fn locate(&self, hash: u64, key: &[u8]) -> Option<(*mut Bucket, usize)> {
        if self.buckets == 0 {
            return None;
        }
        let tag = tag(hash);
        let mut at = self.bucket(self.index(hash));
        loop {
            // SAFETY: `at` is a live bucket of this table; used words are live entries.
            let bucket = unsafe { &*at };
            let mut hits = matches(bucket, tag);
            while hits != 0 {
                let i = hits.trailing_zeros() as usize / 8;
                hits &= hits - 1;
                if entry(bucket, i).key() == key {
                    return Some((at, i));
                }
            }
            if bucket.used & CHILD_BIT == 0 {
                return None;
            }
            at = bucket.words[ENTRIES - 1] as *mut Bucket;
        }
    }

    #[inline]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        let (bucket, i) = self.locate(hash, key)?;
        // SAFETY: located in this table, and borrowed as long as the table is.
        Some(unsafe { &*(&raw const (*bucket).words[i]).cast::<Entry>() })
    }

    #[inline]
    pub fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        let (bucket, i) = self.locate(hash, key)?;
        // SAFETY: as in `get`; exclusive by `&mut self`. An entry is one word, `repr(transparent)`.
        Some(unsafe { &mut *(&raw mut (*bucket).words[i]).cast::<Entry>() })
    }

    /// Puts an entry in, replacing and returning the one with the same key.
    pub fn insert(&mut self, hash: u64, mut new: Entry) -> Option<Entry> {
        let expires = new.ttl().is_some();
        self.next_expiry = self.next_expiry.min(new.next_due());
        let old = match self.locate(hash, new.key()) {
            Some((bucket, i)) => {
                new.set_proven();
                // SAFETY: the word is a live entry; it is taken out as the new one goes in.
                Some(unsafe {
                    let word = &mut (*bucket).words[i];
                    Entry::from_raw(std::mem::replace(word, new.into_raw()))
                })
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
        } else if self.len as usize >= self.buckets as usize * FILL_MAX {
            self.split();
        }
        place(self.bucket(self.index(hash)), tag(hash), new.into_raw());
        self.len += 1;
    }

    /// Takes an entry out.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Entry> {
        let (bucket, i) = self.locate(hash, key)?;
        // SAFETY: located in this table; clearing its used bit gives the word up.
        let taken = unsafe {
            (*bucket).used &= !(1 << i);
            (*bucket).tags[i] = 0;
            Entry::from_raw((*bucket).words[i])
        };
        self.len -= 1;
        if taken.ttl().is_some() {
            self.expires -= 1;
        }
        if self.len == 0 {
            self.free_all();
        } else {
            // A bucket's last child entry may have gone: fold the chain when it is this bucket's.
            if self.buckets > 1 && (self.len as usize) < self.buckets as usize * FILL_MIN {
                self.merge();
            }
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
