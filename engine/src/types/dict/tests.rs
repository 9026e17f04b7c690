use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn key(n: u64) -> Vec<u8> {
    n.to_le_bytes().to_vec()
}

struct Numbers(Dict<u64>);

impl Numbers {
    fn add(&mut self, n: u64) {
        let hash = self.0.hash(&key(n));
        let seed = self.0.seed();
        self.0.insert(hash, n, |&n| hash_key(seed, &key(n)));
    }

    fn remove(&mut self, n: u64) -> bool {
        let hash = self.0.hash(&key(n));
        let seed = self.0.seed();
        self.0.remove(hash, |&other| other == n, |&n| hash_key(seed, &key(n))).is_some()
    }

    fn has(&self, n: u64) -> bool {
        self.0.find(self.0.hash(&key(n)), |&other| other == n).is_some()
    }

    fn scan(&self, cursor: u64, count: usize, seen: &mut BTreeMap<u64, usize>) -> u64 {
        let seed = self.0.seed();
        self.0.scan(
            cursor,
            count,
            |&n| hash_key(seed, &key(n)),
            |&n| {
                *seen.entry(n).or_default() += 1;
            },
        )
    }

    fn check(&self) {
        let dict = &self.0;
        let tables: usize = dict.segments.iter().map(|segment| bytes_of(&segment.table)).sum();
        assert_eq!(dict.table_bytes, tables);
        assert_eq!(dict.len, dict.iter().count());
        assert_eq!(dict.directory.len(), 1 << dict.depth);
        let named: BTreeSet<u32> = dict.directory.iter().copied().collect();
        assert!(named.into_iter().eq(0..dict.segments.len() as u32));
    }
}

#[test]
fn only_what_is_in_a_large_table_is_fetched_ahead() {
    let mut numbers = Numbers(Dict::new(7));
    let fetched = |numbers: &Numbers, n: u64| {
        let seen = std::cell::Cell::new(false);
        numbers.0.prefetch(&key(n), |&other| seen.set(seen.get() || other == n));
        seen.get()
    };
    let far = FAR as u64;
    (0..far - 1).for_each(|n| numbers.add(n));
    assert!(!fetched(&numbers, 5), "it is near as it is");
    numbers.add(far - 1);
    assert!((0..far).all(|n| fetched(&numbers, n)));
    assert!((far..far + 1000).all(|n| !fetched(&numbers, n)));
}

#[test]
fn a_large_table_finds_everything_and_shrinks_again() {
    let mut numbers = Numbers(Dict::new(7));
    for n in 0..50_000 {
        numbers.add(n);
    }
    numbers.check();
    assert!((0..50_000).all(|n| numbers.has(n)));
    let full = numbers.0.memory_usage();
    assert!(full < 50_000 * 20, "{full}");
    for n in 0..49_990 {
        assert!(numbers.remove(n));
    }
    numbers.check();
    assert!((49_990..50_000).all(|n| numbers.has(n)));
    assert!(numbers.0.memory_usage() < full / 20, "{}", numbers.0.memory_usage());
}

#[test]
fn equal_hashes_grow_a_segment_and_not_the_directory() {
    let mut dict = Dict::new(1);
    for n in 0..2000u64 {
        dict.insert(42, n, |_| 42);
    }
    assert_eq!(dict.len(), 2000);
    assert!(dict.directory.len() <= 1 << (DEPTH_SLACK + 5));
    assert!(dict.find(42, |&n| n == 1999).is_some());
    let mut seen = 0;
    let mut cursor = dict.scan(0, 10, |_| 42, |_| seen += 1);
    assert_eq!(seen, 2000, "a cursor cannot stand between them");
    while cursor != 0 {
        cursor = dict.scan(cursor, 10, |_| 42, |_| seen += 1);
    }
    assert_eq!(seen, 2000);
}

#[test]
fn every_element_is_chosen_about_as_often() {
    let mut numbers = Numbers(Dict::new(3));
    for n in 0..1000 {
        numbers.add(n);
    }
    let mut state = 1u64;
    let mut entropy = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
    };
    let mut hits = vec![0u32; 1000];
    for _ in 0..100_000 {
        hits[*numbers.0.random(&mut entropy).unwrap() as usize] += 1;
    }
    assert!(hits.iter().all(|&count| (50..170).contains(&count)), "{hits:?}");
    for count in [0, 5, 300, 700, 1000, 5000] {
        let mut chosen = BTreeSet::new();
        numbers.0.sample(count, &mut entropy, |&n| assert!(chosen.insert(n)));
        assert_eq!(chosen.len(), count.min(1000));
    }
}

/// Joining the last segment with its upper half moved it, and left its new slots pointing past the end.
#[test]
fn a_segment_that_joins_and_moves_keeps_all_its_slots() {
    let mut numbers = Numbers(Dict::new(12_349_877_341_737_565_096));
    for n in 0..1561 {
        numbers.add(n);
    }
    for n in 0..1516 {
        assert!(numbers.remove(n));
        numbers.check();
    }
    assert!((1516..1561).all(|n| numbers.has(n)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_stays_during_a_scan_is_returned_exactly_once(
        seed: u64, before in 0u64..3000, added in 0u64..3000, removed in 0u64..3000, count in 1usize..200,
    ) {
        let mut numbers = Numbers(Dict::new(seed));
        for n in 0..before {
            numbers.add(n);
        }
        let mut seen = BTreeMap::new();
        let mut cursor = numbers.scan(0, count, &mut seen);
        for n in before..before + added {
            numbers.add(n);
        }
        if cursor != 0 {
            cursor = numbers.scan(cursor, count, &mut seen);
        }
        let removed = removed.min(before);
        for n in 0..removed {
            prop_assert!(numbers.remove(n));
        }
        numbers.check();
        while cursor != 0 {
            cursor = numbers.scan(cursor, count, &mut seen);
        }
        for n in removed..before {
            prop_assert_eq!(seen.get(&n), Some(&1));
        }
        prop_assert!(seen.values().all(|&times| times == 1));
    }
}
