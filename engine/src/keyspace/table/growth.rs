//! Growing and shrinking by one bucket, and the arrays that the buckets lie in.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use super::bucket::{
    BUCKET_BYTES, Drained, allocate_buckets, buckets_layout, drain_chain, fill_chain,
};
use super::{Entry, SEGMENT, Table};
use crate::keyspace::hash_key;

impl Table {
    /// Splits the bucket at the split pointer in two.
    pub(super) fn split(&mut self) {
        let n = self.buckets as usize;
        self.reserve(n + 1);
        self.buckets += 1;
        let level = n.ilog2();
        let low = self.bucket(n - (1 << level));
        let (mut stay, mut go) = (Drained::new(), Drained::new());
        for (tag, word) in drain_chain(low) {
            // SAFETY: the word is the live entry just taken out of the chain.
            let entry = unsafe { Entry::from_raw(word) };
            let side = if hash_key(entry.key()) >> level & 1 == 0 { &mut stay } else { &mut go };
            side.push((tag, entry.into_raw()));
        }
        fill_chain(low, &stay);
        fill_chain(self.bucket(n), &go);
    }

    /// Undoes the last split.
    pub(super) fn merge(&mut self) {
        let last = self.buckets as usize - 1;
        let low = last - (1 << last.ilog2());
        let mut both = drain_chain(self.bucket(last));
        both.extend(drain_chain(self.bucket(low)));
        if last == SEGMENT {
            self.leave_directory();
        }
        self.buckets -= 1;
        fill_chain(self.bucket(low), &both);
        if self.buckets as usize > SEGMENT && (self.buckets as usize).is_multiple_of(SEGMENT) {
            let index = self.buckets as usize / SEGMENT;
            // SAFETY: the last segment holds no bucket any more; it was allocated with this layout.
            unsafe {
                let segment = *(self.base as *const *mut u64).add(index);
                dealloc(segment.cast(), buckets_layout(SEGMENT));
            }
        } else if self.buckets as usize * 2 <= self.capacity as usize
            && self.buckets as usize <= SEGMENT
        {
            self.resize_array(self.buckets as usize);
        }
    }

    /// Makes room for `n` buckets; new ones are zero, that is, empty.
    pub(super) fn reserve(&mut self, n: usize) {
        if n <= SEGMENT {
            if n > self.capacity as usize {
                self.resize_array(n.next_power_of_two());
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
                *(self.base as *mut *mut u64).add(segments - 1) = allocate_buckets(SEGMENT);
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
                    self.base as *const u8,
                    made.cast(),
                    self.buckets as usize * BUCKET_BYTES,
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
        let directory = allocate_directory(capacity);
        // SAFETY: a fresh directory of four zero pointers.
        unsafe { *directory = array };
        self.base = directory as usize;
        self.capacity = capacity as u32;
    }

    /// Back from two segments to one array; the second segment holds nothing any more.
    fn leave_directory(&mut self) {
        let directory = self.base as *const *mut u64;
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
        let made = allocate_directory(capacity);
        let old = self.capacity as usize;
        // SAFETY: the new directory is larger than the old one, whose pointers are copied over.
        unsafe {
            std::ptr::copy_nonoverlapping(self.base as *const usize, made, old);
            dealloc(self.base as *mut u8, directory_layout(old));
        }
        self.base = made as usize;
        self.capacity = capacity as u32;
    }

    /// Frees the arrays; every entry has been taken out or dropped.
    pub(super) fn free_all(&mut self) {
        for i in 0..self.buckets as usize {
            drop(drain_chain(self.bucket(i)));
        }
        let n = self.buckets as usize;
        // SAFETY: each array was allocated with the layout used here, and nothing points into it any more.
        unsafe {
            if n > SEGMENT {
                for s in 0..n.div_ceil(SEGMENT) {
                    let segment = *(self.base as *const *mut u64).add(s);
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
}

fn directory_layout(n: usize) -> Layout {
    Layout::array::<usize>(n).unwrap_or_else(|_| unreachable!("segment counts are small"))
}

fn allocate_directory(n: usize) -> *mut usize {
    let layout = directory_layout(n);
    // SAFETY: n is at least 1; zeroed pointers are null.
    let made = unsafe { alloc_zeroed(layout) };
    if made.is_null() {
        handle_alloc_error(layout);
    }
    made.cast()
}
