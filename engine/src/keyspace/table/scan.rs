//! Walks over the entries: SCAN's cursor in reversed bits, all of them, one by chance.

use super::{Entry, Table};

impl Table {
    /// Calls `f` for the entries of one bucket of the scan, and gives the next cursor (0: done).
    /// Every entry that is there throughout a scan is seen at least once, whatever else changes.
    pub fn scan(&self, cursor: u64, mut f: impl FnMut(&Entry)) -> u64 {
        let Some((at, twin, next)) = self.at_cursor(cursor) else { return 0 };
        self.each_in(at, &mut f);
        if let Some(twin) = twin {
            self.each_in(twin, &mut f);
        }
        next
    }

    /// As `scan`, with entries that may be changed as in `each_mut`.
    pub fn scan_mut(&mut self, cursor: u64, mut f: impl FnMut(&mut Entry)) -> u64 {
        let Some((at, twin, next)) = self.at_cursor(cursor) else { return 0 };
        self.each_mut_in(at, &mut f);
        if let Some(twin) = twin {
            self.each_mut_in(twin, &mut f);
        }
        next
    }

    /// Where a cursor stands: a bucket, its twin of the next level where that is there already, and the next cursor.
    #[inline]
    fn at_cursor(&self, cursor: u64) -> Option<(usize, Option<usize>, u64)> {
        if self.buckets == 0 {
            return None;
        }
        let n = self.buckets as usize;
        let level = n.ilog2();
        let mask = (1u64 << level) - 1;
        let at = (cursor & mask) as usize;
        let twin = at + (1 << level);
        // Increment the reversed cursor: set the bits above the mask, reverse, add one, reverse back.
        let next = (cursor | !mask).reverse_bits().wrapping_add(1).reverse_bits();
        Some((at, (twin < n).then_some(twin), if level == 0 { 0 } else { next }))
    }

    fn each_in(&self, index: usize, f: &mut impl FnMut(&Entry)) {
        let mut next = Some(self.bucket(index));
        while let Some(node) = next {
            // SAFETY: the places of a live node of this table that hold entries; the table is borrowed.
            node.entries().for_each(|i| f(unsafe { node.entry(i) }));
            next = node.child().map(|child| child.node);
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

    fn each_mut_in(&mut self, index: usize, f: &mut impl FnMut(&mut Entry)) {
        let mut next = Some(self.bucket(index));
        while let Some(node) = next {
            // SAFETY: as above, exclusive by `&mut self`.
            node.entries().for_each(|i| f(unsafe { node.entry_mut(i) }));
            next = node.child().map(|child| child.node);
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
