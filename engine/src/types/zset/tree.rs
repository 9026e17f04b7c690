//! A counted B+tree of (score, member) entries: order, rank and walk of a large sorted set.
//!
//! ```text
//! Inner   [count, child, first entry] ...     the count of each subtree makes rank and seek logarithmic
//!            |        \
//! Leaf  [scores | ids] <-> [scores | ids]     leaves are linked; scores stand together, so that a search reads
//!                                             one short run of numbers and no member unless scores are equal
//! ```
//!
//! Nodes live in arenas and name each other by number. `first` of a child is exactly its lowest entry: every change
//! refreshes it along the path, so that no entry ever names a member that is gone.

use super::{ranked::compare_entries, slab::Slab};

mod arena;
mod node;

use arena::Arena;
use node::{INNER, Inner, LEAF, Leaf, NONE};

/// A score, and the number of its member.
pub(super) type Entry = (f64, u32);

/// A place in a leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    leaf: u32,
    at: usize,
}

/// The inner nodes passed on the way down, with the child taken in each; deeper than any tree of 2^32 entries.
#[derive(Default)]
struct Path {
    steps: [(u32, usize); 12],
    len: usize,
}

impl Path {
    fn push(&mut self, step: (u32, usize)) {
        self.steps[self.len] = step;
        self.len += 1;
    }

    fn pop(&mut self) -> Option<(u32, usize)> {
        self.len = self.len.checked_sub(1)?;
        Some(self.steps[self.len])
    }
}

#[derive(Clone)]
pub(super) struct Tree {
    leaves: Arena<Leaf>,
    inners: Arena<Inner>,
    root: u32,
    /// How many levels of inner nodes stand above the leaves.
    height: usize,
}

impl Tree {
    /// From entries in order. Leaves some room in every node.
    pub(super) fn build(entries: &[Entry]) -> Self {
        let mut tree =
            Self { leaves: Arena::default(), inners: Arena::default(), root: 0, height: 0 };
        let mut level: Vec<(u32, Entry, u32)> = Vec::new();
        let mut before = NONE;
        for chunk in entries.chunks(LEAF - LEAF / 8) {
            let mut leaf = Leaf::default();
            leaf.prev = before;
            for (at, &entry) in chunk.iter().enumerate() {
                leaf.insert(at, entry);
            }
            let id = tree.leaves.insert(leaf);
            if before != NONE {
                tree.leaves[before].next = id;
            }
            before = id;
            level.push((id, chunk[0], chunk.len() as u32));
        }
        if level.is_empty() {
            tree.root = tree.leaves.insert(Leaf::default());
            return tree;
        }
        while level.len() > 1 {
            level = level
                .chunks(INNER - INNER / 8)
                .map(|children| {
                    let mut inner = Inner::default();
                    for (at, &(child, first, count)) in children.iter().enumerate() {
                        inner.insert(at, child, first, count);
                    }
                    let count = inner.total();
                    (tree.inners.insert(inner), children[0].1, count)
                })
                .collect();
            tree.height += 1;
        }
        tree.root = level[0].0;
        tree
    }

    pub(super) fn memory_usage(&self) -> usize {
        self.leaves.memory_usage() + self.inners.memory_usage()
    }

    /// How many entries the condition holds for, which must hold up to some rank and not beyond.
    pub(super) fn rank_where(&self, holds: impl Fn(Entry) -> bool) -> usize {
        let (mut node, mut rank) = (self.root, 0);
        for _ in 0..self.height {
            let inner = &self.inners[node];
            let child = inner.child_where(&holds);
            rank += inner.count_before(child);
            node = inner.child(child);
        }
        rank + self.leaves[node].position_where(&holds)
    }

    /// The place of a rank.
    pub(super) fn seek(&self, rank: usize) -> Option<Cursor> {
        let (mut node, mut left) = (self.root, rank);
        for _ in 0..self.height {
            let inner = &self.inners[node];
            let child = inner.child_at(&mut left)?;
            node = inner.child(child);
        }
        (left < self.leaves[node].len()).then_some(Cursor { leaf: node, at: left })
    }

    pub(super) fn get(&self, cursor: Cursor) -> Option<Entry> {
        let leaf = &self.leaves[cursor.leaf];
        (cursor.at < leaf.len()).then(|| leaf.get(cursor.at))
    }

    pub(super) fn after(&self, cursor: Cursor) -> Option<Cursor> {
        let leaf = &self.leaves[cursor.leaf];
        if cursor.at + 1 < leaf.len() {
            return Some(Cursor { at: cursor.at + 1, ..cursor });
        }
        (leaf.next != NONE).then_some(Cursor { leaf: leaf.next, at: 0 })
    }

    pub(super) fn before(&self, cursor: Cursor) -> Option<Cursor> {
        if cursor.at > 0 {
            return Some(Cursor { at: cursor.at - 1, ..cursor });
        }
        let leaf = self.leaves[cursor.leaf].prev;
        (leaf != NONE).then(|| Cursor { leaf, at: self.leaves[leaf].len() - 1 })
    }

    /// Changes the score of an entry where it stands, if its order among all others allows; says whether it did.
    pub(super) fn try_move(&mut self, entry: Entry, score: f64, slab: &Slab) -> bool {
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = &self.inners[node];
            node =
                inner.child(inner.child_where(|other| compare_entries(other, entry, slab).is_le()));
        }
        let leaf = &mut self.leaves[node];
        let at = leaf.position_where(|other| compare_entries(other, entry, slab).is_lt());
        // At the ends of a leaf the neighbours are elsewhere, and the first entry is known above.
        if at == 0 || at + 1 >= leaf.len() || leaf.get(at) != entry {
            return false;
        }
        let moved = (score, entry.1);
        let fits = compare_entries(leaf.get(at - 1), moved, slab).is_lt()
            && compare_entries(moved, leaf.get(at + 1), slab).is_lt();
        if fits {
            leaf.set_score(at, score);
        }
        fits
    }

    /// Adds an entry that is not there yet.
    pub(super) fn insert(&mut self, entry: Entry, slab: &Slab) {
        let (leaf, mut path) = self.descend(entry, slab, 1);
        let at =
            self.leaves[leaf].position_where(|other| compare_entries(other, entry, slab).is_lt());
        if self.leaves[leaf].len() < LEAF {
            self.leaves[leaf].insert(at, entry);
            self.refresh_up(path, leaf);
            return;
        }
        let new = self.split_leaf(leaf, at, entry);
        let (mut left, mut right) = (
            (leaf, self.leaves[leaf].get(0), self.leaves[leaf].len() as u32),
            (new, self.leaves[new].get(0), self.leaves[new].len() as u32),
        );
        while let Some((parent, at)) = path.pop() {
            let inner = &mut self.inners[parent];
            inner.set(at, left.1, left.2);
            if inner.len() < INNER {
                inner.insert(at + 1, right.0, right.1, right.2);
                self.refresh_up(path, parent);
                return;
            }
            let mut upper = inner.split(at + 1);
            if at + 1 > inner.len() || inner.len() == INNER {
                upper.insert(at + 1 - inner.len(), right.0, right.1, right.2);
            } else {
                inner.insert(at + 1, right.0, right.1, right.2);
            }
            left = (parent, inner.first(), inner.total());
            right = (0, upper.first(), upper.total());
            right.0 = self.inners.insert(upper);
        }
        let mut root = Inner::default();
        root.insert(0, left.0, left.1, left.2);
        root.insert(1, right.0, right.1, right.2);
        self.root = self.inners.insert(root);
        self.height += 1;
    }

    /// Removes an entry, which is there.
    pub(super) fn remove(&mut self, entry: Entry, slab: &Slab) {
        let (leaf_id, mut path) = self.descend(entry, slab, -1);
        let leaf = &mut self.leaves[leaf_id];
        let at = leaf.position_where(|other| compare_entries(other, entry, slab).is_lt());
        assert!(at < leaf.len() && leaf.get(at).1 == entry.1, "the tree holds every member");
        leaf.remove(at);
        let mut child = leaf_id;
        let mut is_leaf = true;
        while let Some((parent, at)) = path.pop() {
            self.settle(parent, at, child, is_leaf);
            child = parent;
            is_leaf = false;
        }
        while self.height > 0 && self.inners[self.root].len() == 1 {
            let only = self.inners[self.root].child(0);
            self.inners.remove(self.root);
            self.root = only;
            self.height -= 1;
        }
    }

    /// Walks down to the leaf where an entry belongs, and adds to the counts on the way.
    fn descend(&mut self, entry: Entry, slab: &Slab, change: i32) -> (u32, Path) {
        let (mut node, mut path) = (self.root, Path::default());
        for _ in 0..self.height {
            let inner = &mut self.inners[node];
            let child = inner.child_where(|other| compare_entries(other, entry, slab).is_le());
            inner.add_to_count(child, change);
            path.push((node, child));
            node = inner.child(child);
        }
        (node, path)
    }

    /// Tells the ancestors what the lowest entry below them is, up to the first that is not affected.
    fn refresh_up(&mut self, mut path: Path, changed: u32) {
        let Some((parent, at)) = path.pop() else { return };
        let first = if path.len + 1 == self.height {
            self.leaves[changed].get(0)
        } else {
            self.inners[changed].first()
        };
        self.inners[parent].set_first(at, first);
        let (mut at, mut first) = (at, self.inners[parent].first());
        while at == 0
            && let Some((parent, above)) = path.pop()
        {
            self.inners[parent].set_first(above, first);
            at = above;
            first = self.inners[parent].first();
        }
    }

    /// Makes room in a full leaf and puts the entry in; gives the new leaf to the right.
    fn split_leaf(&mut self, id: u32, at: usize, entry: Entry) -> u32 {
        let leaf = &mut self.leaves[id];
        let next = leaf.next;
        // Entries that come in order fill each leaf; others find half of it empty.
        let keep = if at == LEAF && next == NONE { LEAF } else { LEAF / 2 };
        let mut new = leaf.split(keep);
        if at > keep || keep == LEAF {
            new.insert(at - keep, entry);
        } else {
            leaf.insert(at, entry);
        }
        new.prev = id;
        new.next = next;
        let new = self.leaves.insert(new);
        self.leaves[id].next = new;
        if next != NONE {
            self.leaves[next].prev = new;
        }
        new
    }

    /// After a removal below: drops an empty child, refreshes what is known of it, and joins it with a neighbour when
    /// both have become small.
    fn settle(&mut self, parent: u32, at: usize, child: u32, is_leaf: bool) {
        let (len, full) = if is_leaf {
            (self.leaves[child].len(), LEAF)
        } else {
            (self.inners[child].len(), INNER)
        };
        if len == 0 {
            if is_leaf {
                self.unlink_leaf(child);
            } else {
                self.inners.remove(child);
            }
            self.inners[parent].remove(at);
            return;
        }
        let first = if is_leaf { self.leaves[child].get(0) } else { self.inners[child].first() };
        self.inners[parent].set_first(at, first);
        if len >= full / 4 {
            return;
        }
        let inner = &self.inners[parent];
        let left = if at + 1 < inner.len() { at } else { at.saturating_sub(1) };
        if left + 1 >= inner.len() {
            return;
        }
        let (a, b) = (inner.child(left), inner.child(left + 1));
        if is_leaf {
            if self.leaves[a].len() + self.leaves[b].len() > full * 3 / 4 {
                return;
            }
            let moved = self.leaves[b].split(0);
            self.leaves[a].append(&moved);
            self.unlink_leaf(b);
        } else {
            if self.inners[a].len() + self.inners[b].len() > full * 3 / 4 {
                return;
            }
            let moved = self.inners[b].split_at(0);
            self.inners[a].append(&moved);
            self.inners.remove(b);
        }
        let inner = &mut self.inners[parent];
        let count = inner.count(left) + inner.count(left + 1);
        let first = inner.entry(left);
        inner.remove(left + 1);
        inner.set(left, first, count);
    }

    fn unlink_leaf(&mut self, id: u32) {
        let (prev, next) = (self.leaves[id].prev, self.leaves[id].next);
        if prev != NONE {
            self.leaves[prev].next = next;
        }
        if next != NONE {
            self.leaves[next].prev = prev;
        }
        self.leaves.remove(id);
    }
}

#[cfg(test)]
mod tests;
