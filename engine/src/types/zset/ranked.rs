//! A large sorted set: members in a slab, found by a table, ordered by a tree.

use super::{
    compare,
    slab::Slab,
    tree::{Cursor, Tree},
};
use crate::types::{
    Item,
    dict::{Dict, hash_key},
    size_class,
};

#[derive(Clone)]
pub(super) struct Ranked {
    slab: Slab,
    table: Dict<u32>,
    tree: Tree,
}

impl Ranked {
    /// From distinct members in order; nothing if a member is there twice.
    pub(super) fn build<'a>(
        sorted: impl Iterator<Item = (&'a [u8], f64)>,
        seed: u64,
    ) -> Option<Self> {
        let (mut slab, mut table) = (Slab::default(), Dict::new(seed));
        let mut entries = Vec::new();
        for (member, score) in sorted {
            let hash = table.hash(member);
            if table.find(hash, |&id| slab.member(id) == member).is_some() {
                return None;
            }
            let id = slab.insert(member, score);
            table.insert(hash, id, |&id| hash_key(seed, slab.member(id)));
            entries.push((score, id));
        }
        Some(Self { tree: Tree::build(&entries), slab, table })
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn memory_usage(&self) -> usize {
        size_class(size_of::<Self>())
            + self.slab.memory_usage()
            + self.table.memory_usage()
            + self.tree.memory_usage()
    }

    fn find(&self, member: &[u8]) -> Option<u32> {
        let hash = self.table.hash(member);
        self.table.find(hash, |&id| self.slab.member(id) == member).copied()
    }

    pub(super) fn score(&self, member: &[u8]) -> Option<f64> {
        self.find(member).map(|id| self.slab[id].score)
    }

    /// Gives a member the score that `choose` makes of the old one, or leaves all as it is; gives the old one.
    pub(super) fn put(
        &mut self,
        member: &[u8],
        choose: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Option<f64> {
        let hash = self.table.hash(member);
        let found = self.table.find(hash, |&id| self.slab.member(id) == member).copied();
        let old = found.map(|id| self.slab[id].score);
        let Some(score) = choose(old) else { return old };
        assert!(!score.is_nan(), "a score is a number");
        match found.zip(old) {
            Some((id, old)) => {
                if old != score {
                    self.change(id, old, score);
                }
            }
            None => {
                let id = self.slab.insert(member, score);
                let (slab, seed) = (&self.slab, self.table.seed());
                self.table.insert(hash, id, |&id| hash_key(seed, slab.member(id)));
                self.tree.insert((score, id), &self.slab);
            }
        }
        old
    }

    fn change(&mut self, id: u32, old: f64, score: f64) {
        if !self.tree.try_move((old, id), score, &self.slab) {
            self.tree.remove((old, id), &self.slab);
            self.tree.insert((score, id), &self.slab);
        }
        self.slab.set_score(id, score);
    }

    /// Looks a member up ahead of its use, in a set that is too large for the nearer caches.
    #[inline]
    pub(super) fn prefetch(&self, member: &[u8]) {
        self.table.prefetch(member, |&id| self.slab[id].member.prefetch());
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let id = self.find(member)?;
        let score = self.slab[id].score;
        self.drop_id(id);
        Some(score)
    }

    pub(super) fn remove_rank(&mut self, rank: usize) {
        if let Some((_, id)) = self.tree.seek(rank).and_then(|cursor| self.tree.get(cursor)) {
            self.drop_id(id);
        }
    }

    fn drop_id(&mut self, id: u32) {
        let (slab, seed) = (&self.slab, self.table.seed());
        self.tree.remove((slab[id].score, id), slab);
        let hash = self.table.hash(slab.member(id));
        self.table.remove(hash, |&other| other == id, |&id| hash_key(seed, slab.member(id)));
        self.slab.remove(id);
    }

    pub(super) fn rank_where(&self, holds: impl Fn(f64, &[u8]) -> bool) -> usize {
        self.tree.rank_where(|(score, id)| holds(score, self.slab.member(id)))
    }

    pub(super) fn scan<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        mut visit: impl FnMut(Item<'a>, f64),
    ) -> u64 {
        let seed = self.table.seed();
        let hash_of = |id: &u32| hash_key(seed, self.slab.member(*id));
        self.table.scan(cursor, count, hash_of, |&id| {
            let slot = &self.slab[id];
            visit(Item::Bytes(slot.member.as_bytes()), slot.score);
        })
    }

    /// The members of a range of ranks; the caller takes no more than those.
    pub(super) fn iter(&self, start: usize, end: usize) -> Iter<'_> {
        let empty = start >= end;
        Iter {
            ranked: self,
            front: if empty { None } else { self.tree.seek(start) },
            last: end.saturating_sub(1),
            back: None,
        }
    }
}

/// Members in order; the back is looked up when it is first asked for.
pub(super) struct Iter<'a> {
    ranked: &'a Ranked,
    front: Option<Cursor>,
    last: usize,
    back: Option<Cursor>,
}

impl<'a> Iter<'a> {
    fn pair(&self, cursor: Cursor) -> Option<(Item<'a>, f64)> {
        let (score, id) = self.ranked.tree.get(cursor)?;
        Some((Item::Bytes(self.ranked.slab.member(id)), score))
    }

    pub(super) fn next(&mut self) -> Option<(Item<'a>, f64)> {
        let cursor = self.front?;
        self.front = self.ranked.tree.after(cursor);
        self.pair(cursor)
    }

    pub(super) fn next_back(&mut self) -> Option<(Item<'a>, f64)> {
        let cursor = match self.back {
            None => self.ranked.tree.seek(self.last)?,
            Some(cursor) => self.ranked.tree.before(cursor)?,
        };
        self.back = Some(cursor);
        self.pair(cursor)
    }
}

impl std::fmt::Debug for Ranked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut list = f.debug_list();
        let mut iter = self.iter(0, self.len());
        while let Some(pair) = iter.next() {
            list.entry(&pair);
        }
        list.finish()
    }
}

/// The order of two entries of the tree.
pub(super) fn compare_entries(a: (f64, u32), b: (f64, u32), slab: &Slab) -> std::cmp::Ordering {
    if a.0 == b.0 {
        compare((a.0, slab.member(a.1)), (b.0, slab.member(b.1)))
    } else {
        // Members are not looked at, which saves a cache miss.
        a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal)
    }
}
