//! Members ordered by score, then by bytes: a listpack while small, then a table and a counted B+tree.
//!
//! Every range is a range of ranks: bounds by score or by bytes are turned into ranks first
//! ([`ZSet::rank_range_by_score`], [`ZSet::rank_range_by_lex`]), and the elements are then walked from either end
//! ([`ZSet::iter_ranks`]). Counting is subtracting. A score is never NaN: whoever calls refuses it first.

use std::{cmp::Ordering, ops::Range};

use super::word::{Large, one_word};
use super::{Digits, Item, Limits, Listpack, below};

mod bound;
mod pack;
mod ranked;
mod slab;
mod tree;

pub use bound::{LexBound, ScoreBound};
use ranked::Ranked;

/// A sorted set.
#[derive(Clone, Debug)]
pub struct ZSet(Repr);

one_word! {
    Pack(Listpack),
    Ranked(Large<Ranked, 1>),
}

/// The order of a sorted set.
fn compare(a: (f64, &[u8]), b: (f64, &[u8])) -> Ordering {
    a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal).then_with(|| a.1.cmp(b.1))
}

impl Default for ZSet {
    fn default() -> Self {
        Self::new()
    }
}

impl ZSet {
    /// An empty sorted set.
    pub fn new() -> Self {
        Self(Listpack::new().into())
    }

    /// Takes a well-formed listpack from outside: members and scores in turn, in order, no NaN, no member twice.
    pub fn from_listpack(pack: Listpack, limits: &Limits) -> Option<Self> {
        if !pack::is_valid(&pack) {
            return None;
        }
        let widest = pack.iter().step_by(2).map(Item::len).max().unwrap_or(0);
        let fits = pack.len() / 2 <= limits.zset_max_listpack_entries
            && widest <= limits.zset_max_listpack_value;
        let mut zset = Self(pack.into());
        if !fits {
            zset.convert(limits);
        }
        Some(zset)
    }

    /// Builds a sorted set at once, in any order; nothing if a score is NaN or a member is there twice.
    pub fn from_pairs(mut pairs: Vec<(Vec<u8>, f64)>, limits: &Limits) -> Option<Self> {
        if pairs.iter().any(|(_, score)| score.is_nan()) {
            return None;
        }
        // Others write the highest score first.
        if pairs.len() > 1 && pairs[0].1 > pairs[pairs.len() - 1].1 {
            pairs.reverse();
        }
        pairs.sort_by(|a, b| compare((a.1, &a.0), (b.1, &b.0)));
        let fits = pairs.len() <= limits.zset_max_listpack_entries
            && pairs.iter().all(|(member, _)| member.len() <= limits.zset_max_listpack_value);
        if !fits {
            let sorted = pairs.iter().map(|(member, score)| (&member[..], *score));
            return Some(Self(Large::new(Ranked::build(sorted, limits.seed)?).into()));
        }
        let mut pack = Listpack::new();
        for (member, score) in &pairs {
            pack::push(&mut pack, member, *score);
        }
        pack::is_valid(&pack).then(|| Self(pack.into()))
    }

    /// The whole value as a listpack, while it is one.
    pub fn as_listpack(&self) -> Option<&Listpack> {
        match self.0.held() {
            Held::Pack(pack) => Some(pack),
            Held::Ranked(_) => None,
        }
    }

    /// What OBJECT ENCODING prints (the ecosystem's name for the large form, whatever the tree is).
    pub fn encoding(&self) -> &'static str {
        match self.0.held() {
            Held::Pack(_) => "listpack",
            Held::Ranked(_) => "skiplist",
        }
    }

    /// What it takes from the allocator, besides `self`.
    #[inline]
    pub fn memory_usage(&self) -> usize {
        match self.0.held() {
            Held::Pack(pack) => pack.memory_usage(),
            Held::Ranked(ranked) => ranked.memory_usage(),
        }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        match self.0.held() {
            Held::Pack(pack) => pack.len() / 2,
            Held::Ranked(ranked) => ranked.len(),
        }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        match self.0.held() {
            Held::Pack(pack) => pack.is_empty(),
            Held::Ranked(ranked) => ranked.len() == 0,
        }
    }

    /// Brings a member nearer, ahead of its use.
    #[inline]
    pub fn prefetch(&self, member: &[u8]) {
        if let Held::Ranked(ranked) = self.0.held() {
            ranked.prefetch(member);
        }
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match self.0.held() {
            Held::Pack(pack) => pack::find(pack, member).map(|(_, score)| score),
            Held::Ranked(ranked) => ranked.score(member),
        }
    }

    /// Whether the member is there.
    pub fn contains(&self, member: &[u8]) -> bool {
        self.score(member).is_some()
    }

    /// How many members stand before this one.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        let score = self.score(member)?;
        Some(self.rank_where(|s, m| compare((s, m), (score, member)).is_lt()))
    }

    /// Adds a member or changes its score; gives the score that it had.
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &Limits) -> Option<f64> {
        self.put(member, limits, |_| Some(score))
    }

    /// Gives a member the score that `choose` makes of the one that it has (of none, if it is not there); nothing: all stays.
    /// The member is looked up once. Gives the score that it had.
    pub fn put(
        &mut self,
        member: &[u8],
        limits: &Limits,
        choose: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Option<f64> {
        let pack = match self.0.held_mut() {
            HeldMut::Ranked(ranked) => return ranked.put(member, choose),
            HeldMut::Pack(pack) => pack,
        };
        let found = pack::find(pack, member);
        let old = found.map(|(_, old)| old);
        let Some(score) = choose(old) else { return old };
        assert!(!score.is_nan(), "a score is a number");
        if let Some((at, old)) = found {
            if old != score {
                pack::change(pack, at, member, old, score);
            }
            return Some(old);
        }
        let fits = pack.len() / 2 < limits.zset_max_listpack_entries
            && member.len() <= limits.zset_max_listpack_value
            && pack.has_room(member.len() + 40);
        if fits {
            pack::insert(pack, member, score);
            return None;
        }
        self.convert(limits);
        match self.0.held_mut() {
            HeldMut::Ranked(ranked) => ranked.put(member, |_| Some(score)),
            HeldMut::Pack(_) => unreachable!("converted above"),
        }
    }

    /// Adds to a member's score (0 if it is new) and gives the result; nothing, and no change, if that is NaN.
    pub fn incr(&mut self, member: &[u8], by: f64, limits: &Limits) -> Option<f64> {
        let score = self.score(member).unwrap_or(0.0) + by;
        if score.is_nan() {
            return None;
        }
        self.insert(member, score, limits);
        Some(score)
    }

    /// Removes a member; gives the score that it had.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match self.0.held_mut() {
            HeldMut::Pack(pack) => {
                let (at, score) = pack::find(pack, member)?;
                pack.remove(at, 2);
                Some(score)
            }
            HeldMut::Ranked(ranked) => ranked.remove(member),
        }
    }

    /// Takes the member with the lowest score.
    pub fn pop_min(&mut self) -> Option<(Vec<u8>, f64)> {
        self.pop_at(0)
    }

    /// Takes the member with the highest score.
    pub fn pop_max(&mut self) -> Option<(Vec<u8>, f64)> {
        self.pop_at(self.len().checked_sub(1)?)
    }

    fn pop_at(&mut self, rank: usize) -> Option<(Vec<u8>, f64)> {
        let (member, score) = self.iter_ranks(rank..rank + 1).next()?;
        let member = member.to_vec();
        self.remove(&member);
        Some((member, score))
    }

    /// Removes a range of ranks; gives how many there were.
    pub fn remove_ranks(&mut self, ranks: Range<usize>) -> usize {
        let end = ranks.end.min(self.len());
        let count = end.saturating_sub(ranks.start);
        match self.0.held_mut() {
            HeldMut::Pack(pack) => {
                if let Some(at) = pack.seek(ranks.start.saturating_mul(2)) {
                    pack.remove(at, count * 2);
                }
            }
            HeldMut::Ranked(ranked) => {
                for _ in 0..count {
                    ranked.remove_rank(ranks.start);
                }
            }
        }
        count
    }

    /// All members with their scores, lowest first; reversible.
    pub fn iter(&self) -> Iter<'_> {
        self.iter_ranks(0..usize::MAX)
    }

    /// The members of a range of ranks (what lies beyond the end is ignored); reversible.
    pub fn iter_ranks(&self, ranks: Range<usize>) -> Iter<'_> {
        let end = ranks.end.min(self.len());
        let start = ranks.start.min(end);
        let repr = match self.0.held() {
            Held::Pack(pack) => IterRepr::Pack(pack::iter(pack, start, end)),
            Held::Ranked(ranked) => IterRepr::Ranked(ranked.iter(start, end)),
        };
        Iter { repr, left: end - start }
    }

    /// The ranks of the members between two scores.
    pub fn rank_range_by_score(&self, min: ScoreBound, max: ScoreBound) -> Range<usize> {
        let start = self.rank_where(|score, _| min.is_above(score));
        let end = self.rank_where(|score, _| !max.is_below(score));
        start..end.max(start)
    }

    /// The ranks of the members between two texts; meaningful while all scores are equal.
    pub fn rank_range_by_lex(&self, min: LexBound<'_>, max: LexBound<'_>) -> Range<usize> {
        let start = self.rank_where(|_, member| min.is_above(member));
        let end = self.rank_where(|_, member| !max.is_below(member));
        start..end.max(start)
    }

    /// How many members the condition holds for, which must hold up to some rank and not beyond.
    fn rank_where(&self, holds: impl Fn(f64, &[u8]) -> bool) -> usize {
        match self.0.held() {
            Held::Pack(pack) => {
                let mut digits = Digits::new();
                pack::iter(pack, 0, pack.len() / 2)
                    .position(|(member, score)| !holds(score, member.bytes(&mut digits)))
                    .unwrap_or(pack.len() / 2)
            }
            Held::Ranked(ranked) => ranked.rank_where(holds),
        }
    }

    /// Visits about `count` members from `cursor` on and gives the next cursor, 0 at the end. A small set is visited
    /// whole. A member that stays is visited exactly once in a whole scan.
    pub fn scan<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        mut visit: impl FnMut(Item<'a>, f64),
    ) -> u64 {
        match self.0.held() {
            Held::Pack(_) => {
                self.iter().for_each(|(member, score)| visit(member, score));
                0
            }
            Held::Ranked(ranked) => ranked.scan(cursor, count, visit),
        }
    }

    /// A member, each with the same chance.
    pub fn random(&self, entropy: &mut dyn FnMut() -> u64) -> Option<(Item<'_>, f64)> {
        let rank = below(entropy, self.len());
        self.iter_ranks(rank..rank + 1).next()
    }

    /// Visits `count` distinct members chosen at random (all, if there are not more).
    pub fn random_distinct<'a>(
        &'a self,
        count: usize,
        entropy: &mut dyn FnMut() -> u64,
        mut visit: impl FnMut(Item<'a>, f64),
    ) {
        let len = self.len();
        if count > len / 3 {
            return super::sample_pass(self.iter(), len, count, entropy, |(m, s)| visit(m, s));
        }
        let mut seen = hashbrown::HashSet::with_capacity(count);
        while seen.len() < count {
            let rank = below(entropy, len);
            // A poor source of entropy must not keep us here.
            let rank = (rank..len).chain(0..rank).find(|&rank| seen.insert(rank)).unwrap_or(0);
            if let Some((member, score)) = self.iter_ranks(rank..rank + 1).next() {
                visit(member, score);
            }
        }
    }

    fn convert(&mut self, limits: &Limits) {
        if let Held::Pack(pack) = self.0.held() {
            let pairs: Vec<(Vec<u8>, f64)> = pack::iter(pack, 0, pack.len() / 2)
                .map(|(member, score)| (member.to_vec(), score))
                .collect();
            let sorted = pairs.iter().map(|(member, score)| (&member[..], *score));
            let ranked = Ranked::build(sorted, limits.seed);
            self.0 = Large::new(ranked.expect("a listpack holds each member once")).into();
        }
    }
}

/// Members with their scores, in order.
pub struct Iter<'a> {
    repr: IterRepr<'a>,
    left: usize,
}

enum IterRepr<'a> {
    Pack(pack::Iter<'a>),
    Ranked(ranked::Iter<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Item<'a>, f64);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        match &mut self.repr {
            IterRepr::Pack(pairs) => pairs.next(),
            IterRepr::Ranked(pairs) => pairs.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        match &mut self.repr {
            IterRepr::Pack(pairs) => pairs.next_back(),
            IterRepr::Ranked(pairs) => pairs.next_back(),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests;
