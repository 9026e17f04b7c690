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

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use super::entry::Entry;
use super::prefetch;

const ENTRIES: usize = 7;
const CHILD_BIT: u8 = 0x80;
const SEGMENT: usize = 64;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Entries per bucket at which the table splits one more bucket, and below which it merges one.
const FILL_MAX: usize = 6;
const FILL_MIN: usize = 2;

#[repr(C, align(64))]
struct Bucket {
    tags: [u8; ENTRIES],
    used: u8,
    words: [usize; ENTRIES],
}

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

    /// Splits the bucket at the split pointer in two.
    fn split(&mut self) {
        let n = self.buckets as usize;
        self.reserve(n + 1);
        self.buckets += 1;
        let low = n - (1 << n.ilog2());
        let drained = drain_chain(self.bucket(low));
        for (tag, word) in drained {
            // SAFETY: the word is the live entry just taken out of the chain.
            let e = unsafe { Entry::from_raw(word) };
            let at = self.bucket(self.index(super::hash_key(e.key())));
            place(at, tag, e.into_raw());
        }
    }

    /// Undoes the last split.
    fn merge(&mut self) {
        let last = self.buckets as usize - 1;
        let drained = drain_chain(self.bucket(last));
        let low = last - (1 << last.ilog2());
        let into = self.bucket(low);
        if self.buckets as usize == SEGMENT + 1 {
            self.leave_directory();
            self.buckets -= 1;
            let into = self.bucket(low);
            drained.into_iter().for_each(|(tag, word)| place(into, tag, word));
            return;
        }
        drained.into_iter().for_each(|(tag, word)| place(into, tag, word));
        self.buckets -= 1;
        if self.buckets as usize > SEGMENT && (self.buckets as usize).is_multiple_of(SEGMENT) {
            let index = self.buckets as usize / SEGMENT;
            // SAFETY: the last segment holds no bucket any more; it was allocated with this layout.
            unsafe {
                let segment = *(self.base as *const *mut Bucket).add(index);
                dealloc(segment.cast(), buckets_layout(SEGMENT));
            }
        } else if self.buckets as usize * 2 <= self.capacity as usize
            && self.buckets as usize <= SEGMENT
        {
            self.resize_array(grown(self.buckets as usize));
        }
    }

    /// Makes room for `n` buckets; new ones are zero, that is, empty.
    fn reserve(&mut self, n: usize) {
        if n <= SEGMENT {
            if n > self.capacity as usize {
                self.resize_array(grown(n));
            }
            return;
        }
        if n == SEGMENT + 1 {
            self.enter_directory();
        }
        let segments = n.div_ceil(SEGMENT);
        if segments > self.capacity as usize {
            self.resize_directory(segments.next_power_of_two());
        }
        if n % SEGMENT == 1 {
            // SAFETY: the directory has room for `segments` pointers.
            unsafe {
                *(self.base as *mut *mut Bucket).add(segments - 1) = allocate_buckets(SEGMENT);
            }
        }
    }

    fn resize_array(&mut self, capacity: usize) {
        let made = allocate_buckets(capacity);
        if self.base != 0 {
            // SAFETY: both arrays have at least `buckets` buckets and are distinct; the old one was
            // allocated with its capacity.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    self.base as *const Bucket,
                    made,
                    self.buckets as usize,
                );
                dealloc(self.base as *mut u8, buckets_layout(self.capacity as usize));
            }
        }
        self.base = made as usize;
        self.capacity = capacity as u32;
    }

    /// The full array of SEGMENT buckets becomes the first segment of a directory.
    fn enter_directory(&mut self) {
        debug_assert_eq!(self.capacity as usize, SEGMENT);
        let array = self.base;
        let capacity = 4;
        // SAFETY: a fresh directory of four zero pointers.
        unsafe {
            let directory = alloc_zeroed(directory_layout(capacity)).cast::<usize>();
            if directory.is_null() {
                handle_alloc_error(directory_layout(capacity));
            }
            *directory = array;
            self.base = directory as usize;
        }
        self.capacity = capacity as u32;
    }

    /// Back from two segments to one array; the second segment holds nothing any more.
    fn leave_directory(&mut self) {
        let directory = self.base as *const *mut Bucket;
        // SAFETY: with SEGMENT + 1 buckets there are exactly two segments.
        unsafe {
            let first = *directory;
            dealloc((*directory.add(1)).cast(), buckets_layout(SEGMENT));
            dealloc(self.base as *mut u8, directory_layout(self.capacity as usize));
            self.base = first as usize;
        }
        self.capacity = SEGMENT as u32;
    }

    fn resize_directory(&mut self, capacity: usize) {
        // SAFETY: the new directory is larger than the old one, whose pointers are copied over.
        unsafe {
            let made = alloc_zeroed(directory_layout(capacity));
            if made.is_null() {
                handle_alloc_error(directory_layout(capacity));
            }
            let old = self.capacity as usize;
            std::ptr::copy_nonoverlapping(self.base as *const u8, made, old * 8);
            dealloc(self.base as *mut u8, directory_layout(old));
            self.base = made as usize;
        }
        self.capacity = capacity as u32;
    }

    /// Frees the arrays; every entry has been taken out or dropped.
    fn free_all(&mut self) {
        for i in 0..self.buckets as usize {
            drop(drain_chain(self.bucket(i)));
        }
        let n = self.buckets as usize;
        // SAFETY: each array was allocated with the layout used here, and nothing points into it any more.
        unsafe {
            if n > SEGMENT {
                for s in 0..n.div_ceil(SEGMENT) {
                    let segment = *(self.base as *const *mut Bucket).add(s);
                    dealloc(segment.cast(), buckets_layout(SEGMENT));
                }
                dealloc(self.base as *mut u8, directory_layout(self.capacity as usize));
            } else if self.base != 0 {
                dealloc(self.base as *mut u8, buckets_layout(self.capacity as usize));
            }
        }
        self.base = 0;
        self.buckets = 0;
        self.capacity = 0;
        self.expires = 0;
        self.next_expiry = i64::MAX;
    }

    /// Calls `f` for the entries of one bucket of the scan, and gives the next cursor (0: done).
    /// Every entry that is there throughout a scan is seen at least once, whatever else changes.
    pub fn scan(&self, cursor: u64, mut f: impl FnMut(&Entry)) -> u64 {
        if self.buckets == 0 {
            return 0;
        }
        let n = self.buckets as usize;
        let level = n.ilog2();
        let mask = (1u64 << level) - 1;
        let at = (cursor & mask) as usize;
        self.each_in(at, &mut f);
        let twin = at + (1 << level);
        if twin < n {
            self.each_in(twin, &mut f);
        }
        // Increment the reversed cursor: set the bits above the mask, reverse, add one, reverse back.
        let next = (cursor | !mask).reverse_bits().wrapping_add(1).reverse_bits();
        if level == 0 { 0 } else { next }
    }

    fn each_in(&self, index: usize, f: &mut impl FnMut(&Entry)) {
        let mut at = self.bucket(index);
        loop {
            // SAFETY: a live bucket of this table.
            let bucket = unsafe { &*at };
            for i in 0..usable(bucket) {
                if bucket.used >> i & 1 == 1 {
                    f(entry(bucket, i));
                }
            }
            if bucket.used & CHILD_BIT == 0 {
                return;
            }
            at = bucket.words[ENTRIES - 1] as *mut Bucket;
        }
    }

    /// Calls `f` for every entry.
    pub fn each(&self, mut f: impl FnMut(&Entry)) {
        for index in 0..self.buckets as usize {
            self.each_in(index, &mut f);
        }
    }

    /// Calls `f` for every entry, to change it without changing its key, size or expiry time.
    pub fn each_mut(&mut self, mut f: impl FnMut(&mut Entry)) {
        for index in 0..self.buckets as usize {
            self.each_mut_in(index, &mut f);
        }
    }

    /// As `scan`, with entries that may be changed as in `each_mut`.
    pub fn scan_mut(&mut self, cursor: u64, mut f: impl FnMut(&mut Entry)) -> u64 {
        if self.buckets == 0 {
            return 0;
        }
        let next = self.scan(cursor, |_| {});
        let level = (self.buckets as usize).ilog2();
        let at = (cursor & ((1u64 << level) - 1)) as usize;
        self.each_mut_in(at, &mut f);
        let twin = at + (1 << level);
        if twin < self.buckets as usize {
            self.each_mut_in(twin, &mut f);
        }
        next
    }

    fn each_mut_in(&mut self, index: usize, f: &mut impl FnMut(&mut Entry)) {
        let mut at = self.bucket(index);
        loop {
            // SAFETY: a live bucket of this table, exclusive by `&mut self`; used words are entries.
            let bucket = unsafe { &mut *at };
            for i in 0..usable(bucket) {
                if bucket.used >> i & 1 == 1 {
                    // SAFETY: as above; an entry is one word.
                    f(unsafe { &mut *(&raw mut bucket.words[i]).cast::<Entry>() });
                }
            }
            if bucket.used & CHILD_BIT == 0 {
                return;
            }
            at = bucket.words[ENTRIES - 1] as *mut Bucket;
        }
    }

    /// Some entry, chosen by `random` (not quite evenly: by bucket first); `None` when empty.
    pub fn random(&self, random: u64) -> Option<&Entry> {
        if self.len == 0 {
            return None;
        }
        let n = self.buckets as usize;
        let start = (random >> 32) as usize % n;
        for step in 0..n {
            let mut found: Option<*const Entry> = None;
            let mut seen = 0u64;
            self.each_in((start + step) % n, &mut |e| {
                seen += 1;
                if random.is_multiple_of(seen) || found.is_none() {
                    found = Some(e);
                }
            });
            if let Some(e) = found {
                // SAFETY: the pointer is to an entry of this table, which is borrowed.
                return Some(unsafe { &*e });
            }
        }
        None
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

#[inline]
fn tag(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// Bit 8i+7 set for each used word i whose tag may be `tag` (a false hit is possible, a miss is not).
#[inline]
fn matches(bucket: &Bucket, tag: u8) -> u64 {
    const LOW: u64 = 0x0001_0101_0101_0101;
    const HIGH: u64 = 0x0080_8080_8080_8080;
    let mut word = [0u8; 8];
    word[..ENTRIES].copy_from_slice(&bucket.tags);
    let x = u64::from_le_bytes(word) ^ (LOW * u64::from(tag));
    let zero = x.wrapping_sub(LOW) & !x & HIGH;
    // Spread the used bits (less the child's word) to the same places.
    let used = bucket.used & used_mask(bucket);
    zero & spread(used)
}

#[inline]
fn spread(bits: u8) -> u64 {
    let x = u64::from(bits & 0x7f);
    // Bit i goes to bit 8i+7: multiply to copies at distance 7, then pick.
    (x.wrapping_mul(0x0002_0408_1020_4081) & 0x0001_0101_0101_0101) << 7
}

#[inline]
fn used_mask(bucket: &Bucket) -> u8 {
    if bucket.used & CHILD_BIT != 0 { 0x3f } else { 0x7f }
}

#[inline]
fn usable(bucket: &Bucket) -> usize {
    if bucket.used & CHILD_BIT != 0 { ENTRIES - 1 } else { ENTRIES }
}

#[inline]
fn entry(bucket: &Bucket, i: usize) -> &Entry {
    // SAFETY: callers pass used words only; an entry is one word, `repr(transparent)`.
    unsafe { &*(&raw const bucket.words[i]).cast::<Entry>() }
}

/// Puts a word into the first free place of a chain, adding a child at its end when there is none.
fn place(mut at: *mut Bucket, tag: u8, word: usize) {
    loop {
        // SAFETY: a live bucket that only this table's owner touches.
        let bucket = unsafe { &mut *at };
        let free = !bucket.used & used_mask(bucket);
        if free != 0 {
            let i = free.trailing_zeros() as usize;
            bucket.used |= 1 << i;
            bucket.tags[i] = tag;
            bucket.words[i] = word;
            return;
        }
        if bucket.used & CHILD_BIT == 0 {
            let child = allocate_buckets(1);
            // SAFETY: a fresh bucket of our own; the last word moves there to make room for the pointer.
            unsafe {
                (*child).used = 1;
                (*child).tags[0] = bucket.tags[ENTRIES - 1];
                (*child).words[0] = bucket.words[ENTRIES - 1];
            }
            bucket.tags[ENTRIES - 1] = 0;
            bucket.words[ENTRIES - 1] = child as usize;
            bucket.used = bucket.used & 0x3f | CHILD_BIT;
        }
        at = bucket.words[ENTRIES - 1] as *mut Bucket;
    }
}

/// Empties a chain: frees its children, gives its words with their tags.
fn drain_chain(head: *mut Bucket) -> Vec<(u8, usize)> {
    let mut out = Vec::with_capacity(ENTRIES * 2);
    let mut at = head;
    loop {
        // SAFETY: live buckets of one table; each child is freed after its content was copied out.
        unsafe {
            let bucket = &mut *at;
            for i in 0..usable(bucket) {
                if bucket.used >> i & 1 == 1 {
                    out.push((bucket.tags[i], bucket.words[i]));
                }
            }
            let child =
                (bucket.used & CHILD_BIT != 0).then(|| bucket.words[ENTRIES - 1] as *mut Bucket);
            bucket.used = 0;
            bucket.tags = [0; ENTRIES];
            if at != head {
                dealloc(at.cast(), buckets_layout(1));
            }
            match child {
                Some(child) => at = child,
                None => return out,
            }
        }
    }
}

/// Array capacities: each is a class of the allocator, so that no bucket is paid for and not used.
fn grown(n: usize) -> usize {
    match n {
        0..=8 => n,
        9..=16 => n.next_multiple_of(2),
        17..=32 => n.next_multiple_of(4),
        _ => n.next_multiple_of(8).min(SEGMENT.max(n)),
    }
}

fn buckets_layout(n: usize) -> Layout {
    Layout::array::<Bucket>(n).unwrap_or_else(|_| unreachable!("bucket counts are small"))
}

fn directory_layout(n: usize) -> Layout {
    Layout::array::<usize>(n).unwrap_or_else(|_| unreachable!("segment counts are small"))
}

fn allocate_buckets(n: usize) -> *mut Bucket {
    let layout = buckets_layout(n);
    // SAFETY: n is at least 1; zeroed buckets are empty ones.
    let made = unsafe { alloc_zeroed(layout) };
    if made.is_null() {
        handle_alloc_error(layout);
    }
    made.cast()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::keyspace::hash_key;

    fn put(table: &mut Table, key: &str, value: &str) {
        table.insert(
            hash_key(key.as_bytes()),
            Entry::string(key.as_bytes(), value.as_bytes(), None, 0, false),
        );
    }

    fn get<'a>(table: &'a Table, key: &str) -> Option<&'a [u8]> {
        table.get(hash_key(key.as_bytes()), key.as_bytes()).and_then(Entry::as_string)
    }

    #[test]
    fn spread_puts_bit_i_at_8i_plus_7() {
        for bits in 0..128u8 {
            let expected: u64 =
                (0..7).filter(|i| bits >> i & 1 == 1).map(|i| 1u64 << (8 * i + 7)).sum();
            assert_eq!(spread(bits), expected);
        }
    }

    #[test]
    fn behaves_as_a_map_while_it_grows_and_shrinks() {
        let mut table = Table::default();
        let mut model = BTreeMap::new();
        let mut x = 7u64;
        for step in 0..60_000u64 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let range = if step < 30_000 { 4_000 } else { 40 };
            let key = format!("key:{}", (x >> 33) % range);
            if (x >> 20).is_multiple_of(3) {
                let gone = table.remove(hash_key(key.as_bytes()), key.as_bytes());
                assert_eq!(gone.is_some(), model.remove(&key).is_some());
            } else {
                let value = format!("{step}");
                put(&mut table, &key, &value);
                model.insert(key, value);
            }
            assert_eq!(table.len(), model.len());
        }
        for (key, value) in &model {
            assert_eq!(get(&table, key), Some(value.as_bytes()));
        }
        for key in model.keys() {
            assert!(table.remove(hash_key(key.as_bytes()), key.as_bytes()).is_some());
        }
        assert_eq!(table.memory(), 0);
    }

    #[test]
    fn a_scan_sees_every_key_that_stays_through_growth_and_shrinking() {
        for seed in 0..40u64 {
            let mut table = Table::default();
            let stay: BTreeSet<String> = (0..300).map(|i| format!("stay:{seed}:{i}")).collect();
            stay.iter().for_each(|k| put(&mut table, k, "v"));
            let mut seen = BTreeSet::new();
            let (mut cursor, mut turn, mut extra) = (0, 0u64, Vec::new());
            loop {
                cursor = table.scan(cursor, |e| {
                    seen.insert(String::from_utf8_lossy(e.key()).into_owned());
                });
                if cursor == 0 {
                    break;
                }
                turn += 1;
                for i in 0..20 {
                    if (turn / 7 + seed) % 2 == 0 {
                        let key = format!("extra:{turn}:{i}");
                        put(&mut table, &key, "v");
                        extra.push(key);
                    } else if let Some(key) = extra.pop() {
                        table.remove(hash_key(key.as_bytes()), key.as_bytes());
                    }
                }
            }
            assert!(stay.is_subset(&seen), "seed {seed}");
        }
    }
}
