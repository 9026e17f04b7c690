//! The two kinds of node, as arrays that are searched and shifted.

use super::Entry;

/// Entries of a leaf: 880 bytes, just under an allocator's class.
pub(super) const LEAF: usize = 72;
/// Children of an inner node: 1268 bytes, likewise.
pub(super) const INNER: usize = 63;
/// No leaf.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Clone)]
pub(super) struct Leaf {
    scores: [f64; LEAF],
    ids: [u32; LEAF],
    len: u16,
    pub(super) prev: u32,
    pub(super) next: u32,
}

impl Default for Leaf {
    fn default() -> Self {
        Self { scores: [0.0; LEAF], ids: [0; LEAF], len: 0, prev: NONE, next: NONE }
    }
}

/// The first index below `len` where the condition no longer holds.
fn partition(len: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn insert_in<T: Copy>(array: &mut [T], len: usize, at: usize, value: T) {
    array.copy_within(at..len, at + 1);
    array[at] = value;
}

impl Leaf {
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(super) fn get(&self, at: usize) -> Entry {
        (self.scores[at], self.ids[at])
    }

    pub(super) fn position_where(&self, holds: impl Fn(Entry) -> bool) -> usize {
        partition(self.len(), |at| holds(self.get(at)))
    }

    pub(super) fn set_score(&mut self, at: usize, score: f64) {
        self.scores[at] = score;
    }

    pub(super) fn insert(&mut self, at: usize, (score, id): Entry) {
        let len = self.len();
        insert_in(&mut self.scores, len, at, score);
        insert_in(&mut self.ids, len, at, id);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, at: usize) {
        let len = self.len();
        self.scores.copy_within(at + 1..len, at);
        self.ids.copy_within(at + 1..len, at);
        self.len -= 1;
    }

    /// Takes the entries from `at` on.
    pub(super) fn split(&mut self, at: usize) -> Self {
        let mut upper = Self::default();
        let moved = self.len() - at;
        upper.scores[..moved].copy_from_slice(&self.scores[at..self.len()]);
        upper.ids[..moved].copy_from_slice(&self.ids[at..self.len()]);
        upper.len = moved as u16;
        self.len = at as u16;
        upper
    }

    pub(super) fn append(&mut self, other: &Self) {
        let (len, more) = (self.len(), other.len());
        self.scores[len..len + more].copy_from_slice(&other.scores[..more]);
        self.ids[len..len + more].copy_from_slice(&other.ids[..more]);
        self.len += other.len;
    }
}

#[derive(Clone)]
pub(super) struct Inner {
    /// The lowest entry below each child.
    scores: [f64; INNER],
    ids: [u32; INNER],
    /// How many entries stand below each child.
    counts: [u32; INNER],
    children: [u32; INNER],
    len: u16,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            scores: [0.0; INNER],
            ids: [0; INNER],
            counts: [0; INNER],
            children: [0; INNER],
            len: 0,
        }
    }
}

impl Inner {
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(super) fn child(&self, at: usize) -> u32 {
        self.children[at]
    }

    pub(super) fn count(&self, at: usize) -> u32 {
        self.counts[at]
    }

    pub(super) fn entry(&self, at: usize) -> Entry {
        (self.scores[at], self.ids[at])
    }

    pub(super) fn first(&self) -> Entry {
        self.entry(0)
    }

    pub(super) fn total(&self) -> u32 {
        self.counts[..self.len()].iter().sum()
    }

    pub(super) fn count_before(&self, at: usize) -> usize {
        self.counts[..at].iter().map(|&count| count as usize).sum()
    }

    /// The last child whose lowest entry the condition holds for, or the first child.
    pub(super) fn child_where(&self, holds: impl Fn(Entry) -> bool) -> usize {
        partition(self.len() - 1, |at| holds(self.entry(at + 1)))
    }

    /// The child that holds the entry of a rank, which is then the rank within it.
    pub(super) fn child_at(&self, rank: &mut usize) -> Option<usize> {
        for (at, &count) in self.counts[..self.len()].iter().enumerate() {
            if *rank < count as usize {
                return Some(at);
            }
            *rank -= count as usize;
        }
        None
    }

    pub(super) fn add_to_count(&mut self, at: usize, change: i32) {
        self.counts[at] = self.counts[at].wrapping_add_signed(change);
    }

    pub(super) fn set_first(&mut self, at: usize, first: Entry) {
        (self.scores[at], self.ids[at]) = first;
    }

    pub(super) fn set(&mut self, at: usize, first: Entry, count: u32) {
        self.set_first(at, first);
        self.counts[at] = count;
    }

    pub(super) fn insert(&mut self, at: usize, child: u32, first: Entry, count: u32) {
        let len = self.len();
        insert_in(&mut self.scores, len, at, first.0);
        insert_in(&mut self.ids, len, at, first.1);
        insert_in(&mut self.counts, len, at, count);
        insert_in(&mut self.children, len, at, child);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, at: usize) {
        let len = self.len();
        self.scores.copy_within(at + 1..len, at);
        self.ids.copy_within(at + 1..len, at);
        self.counts.copy_within(at + 1..len, at);
        self.children.copy_within(at + 1..len, at);
        self.len -= 1;
    }

    /// Splits a full node that is about to take a child at `at`: in order, it stays full.
    pub(super) fn split(&mut self, at: usize) -> Self {
        self.split_at(if at == INNER { INNER } else { INNER / 2 })
    }

    /// Takes the children from `at` on.
    pub(super) fn split_at(&mut self, at: usize) -> Self {
        let mut upper = Self::default();
        let moved = self.len() - at;
        upper.scores[..moved].copy_from_slice(&self.scores[at..self.len()]);
        upper.ids[..moved].copy_from_slice(&self.ids[at..self.len()]);
        upper.counts[..moved].copy_from_slice(&self.counts[at..self.len()]);
        upper.children[..moved].copy_from_slice(&self.children[at..self.len()]);
        upper.len = moved as u16;
        self.len = at as u16;
        upper
    }

    pub(super) fn append(&mut self, other: &Self) {
        let (len, more) = (self.len(), other.len());
        self.scores[len..len + more].copy_from_slice(&other.scores[..more]);
        self.ids[len..len + more].copy_from_slice(&other.ids[..more]);
        self.counts[len..len + more].copy_from_slice(&other.counts[..more]);
        self.children[len..len + more].copy_from_slice(&other.children[..more]);
        self.len += other.len;
    }
}
