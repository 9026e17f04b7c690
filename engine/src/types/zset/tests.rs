use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::types::steps;

fn limits() -> Limits {
    Limits { zset_max_listpack_entries: 8, zset_max_listpack_value: 20, ..Limits::default() }
}

fn contents(zset: &ZSet) -> Vec<(Vec<u8>, f64)> {
    zset.iter().map(|(member, score)| (member.to_vec(), score)).collect()
}

fn sorted(model: &BTreeMap<Vec<u8>, f64>) -> Vec<(Vec<u8>, f64)> {
    let mut pairs: Vec<_> = model.iter().map(|(member, score)| (member.clone(), *score)).collect();
    pairs.sort_by(|a, b| a.1.partial_cmp(&b.1).unwrap().then_with(|| a.0.cmp(&b.0)));
    pairs
}

#[test]
fn encoding_follows_the_limits() {
    let mut zset = ZSet::new();
    for n in 0..8 {
        zset.insert(&[b'a' + n], 1.5, &limits());
    }
    assert_eq!(zset.encoding(), "listpack");
    assert_eq!(zset.insert(b"a", -2.0, &limits()), Some(1.5));
    assert_eq!(zset.rank(b"a"), Some(0));
    zset.insert(b"z", 0.0, &limits());
    assert_eq!(zset.encoding(), "skiplist");
    assert_eq!(zset.rank(b"z"), Some(1));
}

/// The most nodes that any of some ranks, inserts, ranges of ten and removals looks at, in a set of so many members.
fn most_steps(members: u32) -> [usize; 4] {
    let limits = Limits::default();
    let name = |n: u32| format!("member:{n}").into_bytes();
    // Spread over all scores, many of them equal.
    let score = |n: u32| f64::from(n.wrapping_mul(2_654_435_761) >> 12);
    let mut zset = ZSet::new();
    for n in 0..members {
        zset.insert(&name(n), score(n), &limits);
    }
    let mut most = [0; 4];
    for n in 0..2_000u32 {
        let known = name(n.wrapping_mul(40_503) % members);
        let new = members + n;
        let rank = zset.rank(&known).unwrap();
        let taken = [
            steps::of(|| zset.rank(&known)),
            steps::of(|| zset.insert(&name(new), score(new), &limits)),
            steps::of(|| assert!(zset.iter_ranks(rank..rank + 10).count() > 0)),
            steps::of(|| assert!(zset.remove(&known).is_some())),
        ];
        zset.insert(&known, score(n), &limits);
        for (most, taken) in most.iter_mut().zip(taken) {
            *most = taken.max(*most);
        }
    }
    most
}

#[test]
fn work_in_a_million_members_is_that_of_a_path_through_the_tree() {
    let (some, many) = (most_steps(10_000), most_steps(1_000_000));
    // A hundred times as many members make the tree at most two levels higher, and nothing else.
    for (what, (some, many)) in
        ["rank", "insert", "range", "remove"].iter().zip(some.iter().zip(many))
    {
        assert!(many <= some + 24 && many <= 64, "{what}: {some} nodes looked at, then {many}");
    }
}

#[test]
fn infinite_scores_and_bounds_are_ordinary() {
    let mut zset = ZSet::new();
    for (member, score) in [("a", f64::NEG_INFINITY), ("b", 0.0), ("c", f64::INFINITY)] {
        zset.insert(member.as_bytes(), score, &limits());
    }
    let bound = |text: &str| ScoreBound::parse(text.as_bytes()).unwrap();
    assert_eq!(zset.rank_range_by_score(bound("-inf"), bound("+inf")), 0..3);
    assert_eq!(zset.rank_range_by_score(bound("(-inf"), bound("(inf")), 1..2);
    assert_eq!(zset.rank_range_by_score(bound("5"), bound("1")), 2..2);
    assert_eq!(zset.incr(b"c", f64::NEG_INFINITY, &limits()), None);
    assert_eq!(zset.score(b"c"), Some(f64::INFINITY));
    // No number at all is 0, as redis reads it.
    assert_eq!(ScoreBound::parse(b"("), ScoreBound::parse(b"(0"));
    assert!(ScoreBound::parse(b"(x").is_none() && ScoreBound::parse(b"nan").is_none());
    assert!(LexBound::parse(b"a").is_none());
}

#[test]
fn outside_bytes_with_nan_disorder_or_repeats_are_refused() {
    let pack = |texts: &[&str]| {
        let mut pack = Listpack::new();
        texts.iter().for_each(|text| pack.push_back(text.as_bytes()));
        pack
    };
    assert!(ZSet::from_listpack(pack(&["a", "1", "b", "2"]), &limits()).is_some());
    assert!(ZSet::from_listpack(pack(&["a", "1", "b"]), &limits()).is_none());
    assert!(ZSet::from_listpack(pack(&["a", "nan"]), &limits()).is_none());
    assert!(ZSet::from_listpack(pack(&["a", "2", "b", "1"]), &limits()).is_none());
    assert!(ZSet::from_listpack(pack(&["a", "1", "a", "2"]), &limits()).is_none());
    let many = |count: usize| (0..count).map(|n| (vec![b'x'; n % 9], 1.0)).collect::<Vec<_>>();
    assert!(ZSet::from_pairs(many(5), &limits()).is_some());
    assert!(ZSet::from_pairs(many(10), &limits()).is_none());
    assert!(ZSet::from_pairs(vec![(vec![], f64::NAN)], &limits()).is_none());
}

proptest! {
    #[test]
    fn behaves_as_a_sorted_list_of_pairs(
        ops in prop::collection::vec((0u8..6, "[a-f]{1,2}", -3i32..4), 0..250),
        queries in prop::collection::vec((-4i32..5, any::<bool>(), -4i32..5, any::<bool>()), 1..6),
        texts in prop::collection::vec(("[a-f]{0,2}", any::<bool>(), "[a-f]{0,2}", any::<bool>()), 1..6),
    ) {
        let (mut zset, mut model) = (ZSet::new(), BTreeMap::new());
        for (kind, member, score) in ops {
            let member = member.into_bytes();
            let score = f64::from(score) / 2.0;
            match kind {
                0 => prop_assert_eq!(zset.remove(&member), model.remove(&member)),
                1 => {
                    let result = zset.incr(&member, score, &limits());
                    let slot = model.entry(member.clone()).or_insert(0.0);
                    *slot += score;
                    prop_assert_eq!(result, Some(*slot));
                }
                _ => {
                    let old = model.insert(member.clone(), score);
                    prop_assert_eq!(zset.insert(&member, score, &limits()), old);
                }
            }
            prop_assert_eq!(zset.score(&member), model.get(&member).copied());
            prop_assert_eq!(zset.len(), model.len());
        }
        let mut expected = sorted(&model);
        prop_assert_eq!(&contents(&zset), &expected);
        let mut backward: Vec<_> = zset.iter().rev().map(|(m, s)| (m.to_vec(), s)).collect();
        backward.reverse();
        prop_assert_eq!(&backward, &expected);
        for (rank, (member, _)) in expected.iter().enumerate() {
            prop_assert_eq!(zset.rank(member), Some(rank));
        }
        for (min, min_out, max, max_out) in queries {
            let (min, max) = (f64::from(min) / 2.0, f64::from(max) / 2.0);
            let range = zset.rank_range_by_score(
                ScoreBound { value: min, exclusive: min_out },
                ScoreBound { value: max, exclusive: max_out },
            );
            let within = |score: f64| {
                (if min_out { score > min } else { score >= min })
                    && (if max_out { score < max } else { score <= max })
            };
            let wanted: Vec<_> = expected.iter().filter(|(_, score)| within(*score)).cloned().collect();
            prop_assert_eq!(range.len(), wanted.len());
            let got: Vec<_> = zset.iter_ranks(range.clone()).map(|(m, s)| (m.to_vec(), s)).collect();
            prop_assert_eq!(&got, &wanted);
            let mut got: Vec<_> = zset.iter_ranks(range).rev().map(|(m, s)| (m.to_vec(), s)).collect();
            got.reverse();
            prop_assert_eq!(&got, &wanted);
        }
        let mut seen = BTreeSet::new();
        let mut cursor = 0;
        loop {
            cursor = zset.scan(cursor, 3, |member, score| {
                seen.insert((member.to_vec(), score.to_bits()));
            });
            if cursor == 0 {
                break;
            }
        }
        prop_assert_eq!(seen.len(), expected.len());
        let rebuilt = ZSet::from_pairs(contents(&zset).into_iter().rev().collect(), &limits()).unwrap();
        prop_assert_eq!(&contents(&rebuilt), &expected);

        let mut flat = zset.clone();
        for (member, _) in &expected {
            flat.insert(member, 0.0, &limits());
        }
        let members: Vec<Vec<u8>> = model.keys().cloned().collect();
        for (min, min_out, max, max_out) in &texts {
            let (min, max) = (min.as_bytes(), max.as_bytes());
            let range = flat.rank_range_by_lex(
                if *min_out { LexBound::Excluded(min) } else { LexBound::Included(min) },
                if *max_out { LexBound::Excluded(max) } else { LexBound::Included(max) },
            );
            let wanted: Vec<_> = members
                .iter()
                .filter(|m| if *min_out { &m[..] > min } else { &m[..] >= min })
                .filter(|m| if *max_out { &m[..] < max } else { &m[..] <= max })
                .cloned()
                .collect();
            let got: Vec<_> = flat.iter_ranks(range).map(|(m, _)| m.to_vec()).collect();
            prop_assert_eq!(got, wanted);
        }
        prop_assert_eq!(flat.rank_range_by_lex(LexBound::Min, LexBound::Max), 0..members.len());

        prop_assert_eq!(zset.remove_ranks(2..4), expected.drain(2.min(expected.len())..4.min(expected.len())).count());
        while let Some(pair) = zset.pop_min() {
            prop_assert_eq!(pair, expected.remove(0));
            prop_assert_eq!(zset.pop_max(), expected.pop());
        }
        prop_assert!(expected.is_empty());
    }
}
