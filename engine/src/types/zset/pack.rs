//! A small sorted set: a listpack of members and scores in turn, in order.

use std::cmp::Ordering;

use super::compare;
use crate::{
    number,
    types::{Digits, Item, Listpack, listpack},
};

pub(super) fn find(pack: &Listpack, member: &[u8]) -> Option<(usize, f64)> {
    let at = pack.find(pack.first()?, member, 2)?;
    Some((at, pack.get(pack.next(at)?).as_f64()?))
}

pub(super) fn push(pack: &mut Listpack, member: &[u8], score: f64) {
    pack.push_back(member);
    number::with_f64(score, |text| pack.push_back(text));
}

/// Puts a member that is not there yet in its place.
pub(super) fn insert(pack: &mut Listpack, member: &[u8], score: f64) {
    insert_from(pack, pack.first(), member, score);
}

/// Gives the member at `at` another score.
pub(super) fn change(pack: &mut Listpack, at: usize, member: &[u8], old: f64, score: f64) {
    if stays(pack, at, member, score)
        && let Some(behind) = pack.next(at)
    {
        number::with_f64(score, |text| pack.replace(behind, text));
        return;
    }
    pack.remove(at, 2);
    // Those before it are less than it was.
    let from = if score > old { (at < pack.end()).then_some(at) } else { pack.first() };
    insert_from(pack, from, member, score);
}

/// With this score the member at `at` is where it belongs.
fn stays(pack: &Listpack, at: usize, member: &[u8], score: f64) -> bool {
    let mut digits = Digits::new();
    let mut order = |at: usize, behind: usize| {
        let here = pack.get(behind).as_f64().unwrap_or(0.0);
        compare((here, pack.get(at).bytes(&mut digits)), (score, member))
    };
    let before = pack.prev(at).and_then(|behind| Some((pack.prev(behind)?, behind)));
    let next = pack.next(at).and_then(|behind| pack.next(behind));
    let next = next.and_then(|at| Some((at, pack.next(at)?)));
    before.is_none_or(|(at, behind)| order(at, behind) == Ordering::Less)
        && next.is_none_or(|(at, behind)| order(at, behind) == Ordering::Greater)
}

/// The place is at or behind `place`; `None`: at the end.
fn insert_from(pack: &mut Listpack, mut place: Option<usize>, member: &[u8], score: f64) {
    let mut digits = Digits::new();
    while let Some(at) = place {
        let Some(behind) = pack.next(at) else { break };
        let here = pack.get(behind).as_f64().unwrap_or(0.0);
        // Mostly the scores decide, and the member need not be looked at.
        if here > score
            || here == score
                && compare((here, pack.get(at).bytes(&mut digits)), (score, member))
                    == Ordering::Greater
        {
            number::with_f64(score, |text| pack.insert(at, text));
            pack.insert(at, member);
            return;
        }
        place = pack.next(behind);
    }
    push(pack, member, score);
}

pub(super) fn is_valid(pack: &Listpack) -> bool {
    let mut scores = pack.iter().skip(1).step_by(2);
    let is_score = |item: Item<'_>| item.as_f64().is_some_and(|score| !score.is_nan());
    pack.len().is_multiple_of(2)
        && scores.all(is_score)
        && crate::types::hash::all_distinct(pack.iter().step_by(2))
        && is_sorted(pack)
}

fn is_sorted(pack: &Listpack) -> bool {
    let (mut a, mut b) = (Digits::new(), Digits::new());
    let pairs = || iter(pack, 0, pack.len() / 2);
    pairs().zip(pairs().skip(1)).all(|(left, right)| {
        compare((left.1, left.0.bytes(&mut a)), (right.1, right.0.bytes(&mut b))).is_lt()
    })
}

/// The pairs of a range of ranks.
pub(super) fn iter(pack: &Listpack, start: usize, end: usize) -> Iter<'_> {
    let from = pack.seek(start * 2).unwrap_or(pack.end());
    Iter { items: pack.iter_from(from), behind: pack.len() - end * 2 }
}

pub(super) struct Iter<'a> {
    items: listpack::Iter<'a>,
    /// Items behind the range; skipped only if someone asks from the back.
    behind: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Item<'a>, f64);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.items.next()?, self.items.next()?.as_f64().unwrap_or(0.0)))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let score = self.items.nth_back(std::mem::take(&mut self.behind))?;
        Some((self.items.next_back()?, score.as_f64().unwrap_or(0.0)))
    }
}
