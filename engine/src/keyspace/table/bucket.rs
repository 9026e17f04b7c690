//! One bucket, and the chain of children that hangs from it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use super::Entry;

pub(super) const ENTRIES: usize = 7;
pub(super) const CHILD_BIT: u8 = 0x80;

#[repr(C, align(64))]
pub(super) struct Bucket {
    pub(super) tags: [u8; ENTRIES],
    pub(super) used: u8,
    pub(super) words: [usize; ENTRIES],
}

#[inline]
pub(super) fn tag(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// Bit 8i+7 set for each used word i whose tag may be `tag` (a false hit is possible, a miss is not).
#[inline]
pub(super) fn matches(bucket: &Bucket, tag: u8) -> u64 {
    const LOW: u64 = 0x0001_0101_0101_0101;
    const HIGH: u64 = 0x0080_8080_8080_8080;
    // Tags and used bits are the first word; what comes of the used bits is masked away.
    // SAFETY: a bucket begins with these eight bytes, and is aligned to more.
    let word = u64::from_le(unsafe { std::ptr::from_ref(bucket).cast::<u64>().read() });
    let x = word ^ (LOW * u64::from(tag));
    let zero = x.wrapping_sub(LOW) & !x & HIGH;
    // Spread the used bits (less the child's word) to the same places.
    let used = bucket.used & used_mask(bucket);
    zero & spread(used)
}

#[inline]
pub(super) fn spread(bits: u8) -> u64 {
    let x = u64::from(bits & 0x7f);
    // Bit i goes to bit 8i+7: multiply to copies at distance 7, then pick.
    (x.wrapping_mul(0x0002_0408_1020_4081) & 0x0001_0101_0101_0101) << 7
}

#[inline]
fn used_mask(bucket: &Bucket) -> u8 {
    if bucket.used & CHILD_BIT != 0 { 0x3f } else { 0x7f }
}

#[inline]
pub(super) fn usable(bucket: &Bucket) -> usize {
    if bucket.used & CHILD_BIT != 0 { ENTRIES - 1 } else { ENTRIES }
}

#[inline]
pub(super) fn entry(bucket: &Bucket, i: usize) -> &Entry {
    // SAFETY: callers pass used words only; an entry is one word, `repr(transparent)`.
    unsafe { &*(&raw const bucket.words[i]).cast::<Entry>() }
}

/// Puts a word into the first free place of a chain, adding a child at its end when there is none.
#[inline]
pub(super) fn place(mut at: *mut Bucket, tag: u8, word: usize) {
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
pub(super) fn drain_chain(head: *mut Bucket) -> Vec<(u8, usize)> {
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

pub(super) fn buckets_layout(n: usize) -> Layout {
    Layout::array::<Bucket>(n).unwrap_or_else(|_| unreachable!("bucket counts are small"))
}

pub(super) fn allocate_buckets(n: usize) -> *mut Bucket {
    let layout = buckets_layout(n);
    // SAFETY: n is at least 1; zeroed buckets are empty ones.
    let made = unsafe { alloc_zeroed(layout) };
    if made.is_null() {
        handle_alloc_error(layout);
    }
    made.cast()
}
