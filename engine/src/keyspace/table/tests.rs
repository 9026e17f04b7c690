use std::collections::{BTreeMap, BTreeSet};

use super::bucket::{
    ENTRIES, allocate_buckets, buckets_layout, child_bytes, child_places, fill_chain, spread,
};
use super::*;
use crate::keyspace::hash_key;

fn put(table: &mut Table, key: &str, value: &str) {
    table.insert(
        hash_key(key.as_bytes()),
        Entry::string(key.as_bytes(), value.as_bytes(), None, 0, false),
    );
}

fn get<'a>(table: &'a Table, key: &str) -> Option<&'a [u8]> {
    table.get(hash_key(key.as_bytes()), key.as_bytes()).and_then(Entry::as_string)
}

#[test]
fn spread_puts_bit_i_at_8i_plus_7() {
    for bits in 0..128u64 {
        let expected: u64 =
            (0..7).filter(|i| bits >> i & 1 == 1).map(|i| 1u64 << (8 * i + 7)).sum();
        assert_eq!(spread(bits), expected);
    }
}

/// Pseudo-random numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

/// Entries and bytes of a bucket's chain beside the bucket, having looked that it is as short as it can be.
fn measure(bucket: Node) -> (usize, usize) {
    let (mut node, mut places, mut len, mut bytes) = (bucket, ENTRIES, 0, 0);
    loop {
        len += node.len();
        let Some(child) = node.child() else { break };
        assert_eq!(places, ENTRIES, "a smaller child has no child");
        assert_eq!(node.len(), ENTRIES - 1, "only the last of a chain has free places");
        node = child.node;
        places = child.places;
        bytes += child_bytes(places);
    }
    if node != bucket {
        assert!(node.len() >= 2, "one entry alone needs no child");
        assert!(node.len() <= places);
        assert!(node.len() + 1 >= child_places(places - 2), "a smaller one would do");
    }
    (len, bytes)
}

/// Bytes of the children of a table, each of whose chains is as short as it can be.
fn children(table: &Table) -> usize {
    let chains = (0..table.buckets as usize).map(|i| measure(table.bucket(i)));
    let (len, bytes) = chains.fold((0, 0), |sum, chain| (sum.0 + chain.0, sum.1 + chain.1));
    assert_eq!(len, table.len());
    bytes
}

/// One bucket without a table, whose words are numbers of no meaning.
struct Chain(Node);

impl Chain {
    fn new() -> Chain {
        Chain(Node::at(allocate_buckets(1)))
    }

    fn put(&self, word: usize) {
        place(self.0, word as u8, word);
    }

    fn remove(&self, word: usize) {
        let mut next = Some(self.0);
        while let Some(node) = next {
            if let Some(i) = node.entries().find(|i| node.word(*i) == word) {
                assert_eq!(node.take(i), (word as u8, word));
                return close_gap(self.0, node, i);
            }
            next = node.child().map(|child| child.node);
        }
        panic!("{word} is not there");
    }

    fn words(&self) -> BTreeSet<usize> {
        let (mut next, mut words) = (Some(self.0), BTreeSet::new());
        while let Some(node) = next {
            for i in node.entries() {
                assert!(words.insert(node.word(i)), "there twice");
                let hits = matches(node.head(), node.word(i) as u8);
                assert!(hits >> (8 * i + 7) & 1 == 1, "found by its tag");
            }
            next = node.child().map(|child| child.node);
        }
        words
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        drop(drain_chain(self.0));
        // SAFETY: allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.0.address().cast_mut(), buckets_layout(1)) }
    }
}

#[test]
fn children_are_as_large_as_what_they_hold() {
    let chain = Chain::new();
    // A child of three, of five or of seven; from the fourteenth on the full child has one of its own.
    let expected = |len| match len {
        0..=7 => 0,
        8..=9 => 32,
        10..=11 => 48,
        12..=13 => 64,
        14..=15 => 64 + 32,
        16..=17 => 64 + 48,
        18..=19 => 64 + 64,
        20..=21 => 128 + 32,
        22..=23 => 128 + 48,
        _ => 128 + 64,
    };
    for len in 1..=25 {
        chain.put(len);
        assert_eq!(measure(chain.0), (len, expected(len)));
        assert_eq!(chain.words(), (1..=len).collect());
        // Filled at once it is of the same form.
        let (filled, words) = (Chain::new(), drain_chain(chain.0));
        assert_eq!(measure(chain.0), (0, 0));
        fill_chain(filled.0, &words);
        assert_eq!(measure(filled.0), (len, expected(len)));
        assert_eq!(filled.words(), (1..=len).collect());
        fill_chain(chain.0, &words);
    }
    for len in (0..25).rev() {
        // The oldest goes first: what lies in children moves up.
        chain.remove(25 - len);
        // A child becomes smaller one turn later than it had become larger.
        let late = if matches!(len, 9 | 11 | 15 | 17 | 21 | 23) { 16 } else { 0 };
        assert_eq!(measure(chain.0), (len, expected(len) + late));
        assert_eq!(chain.words(), (26 - len..=25).collect());
    }
}

#[test]
fn a_chain_holds_what_was_put_in_and_not_taken_out() {
    for seed in 0..200 {
        let (chain, mut model, mut dice) = (Chain::new(), BTreeSet::new(), Dice(seed));
        let top = 1 + dice.below(30);
        for word in 1..400 {
            if model.len() < top && dice.below(5) > 1 {
                chain.put(word);
                model.insert(word);
            } else if let Some(word) = model.iter().nth(dice.below(model.len().max(1))).copied() {
                chain.remove(word);
                model.remove(&word);
            }
            assert_eq!(chain.words(), model);
            assert_eq!(measure(chain.0).0, model.len());
        }
        let drained: BTreeSet<usize> = drain_chain(chain.0).into_iter().map(|(_, w)| w).collect();
        assert_eq!(drained, model);
        assert_eq!(measure(chain.0), (0, 0));
    }
}

#[test]
fn behaves_as_a_map_while_it_grows_and_shrinks() {
    let (mut table, mut model, mut dice) = (Table::default(), BTreeMap::new(), Dice(7));
    // One bucket, an array, several segments, and back.
    let ranges = [5, 40, 4_000, 400, 4_000, 40, 3];
    for (turn, range) in ranges.into_iter().enumerate() {
        for step in 0..10_000 {
            // What this turn's keys do not name goes bit by bit.
            let others = model.keys().next_back().filter(|_| model.len() > range).cloned();
            let key = others.unwrap_or_else(|| format!("key:{}", dice.below(range)));
            if model.len() > range || dice.below(3) == 0 {
                let gone = table.remove(hash_key(key.as_bytes()), key.as_bytes());
                assert_eq!(gone.is_some(), model.remove(&key).is_some());
            } else {
                let value = format!("{turn}:{step}");
                put(&mut table, &key, &value);
                model.insert(key, value);
            }
            assert_eq!(table.len(), model.len());
            if step % 64 == 0 {
                children(&table);
            }
        }
        children(&table);
        let mut seen = BTreeMap::new();
        table.each(|e| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            seen.insert(text(e.key()), e.as_string().map(text).unwrap_or_default());
        });
        assert_eq!(seen, model);
        let mut count = 0;
        table.each_mut(|_| count += 1);
        assert_eq!(count, model.len());
        for (key, value) in &model {
            assert_eq!(get(&table, key), Some(value.as_bytes()));
        }
    }
    for key in model.keys() {
        assert!(table.remove(hash_key(key.as_bytes()), key.as_bytes()).is_some());
    }
    assert_eq!(table.memory(), 0);
}

#[test]
fn what_is_allocated_is_split_into_at_once_and_shrinks_with_the_entries() {
    let mut table = Table::default();
    let mut arrays = BTreeSet::new();
    for n in 0..4_000 {
        put(&mut table, &format!("{n}"), "v");
        arrays.insert(table.memory() / BUCKET_BYTES);
        let room = if table.buckets as usize > SEGMENT { SEGMENT } else { table.capacity as usize };
        let missing = (table.buckets as usize).next_multiple_of(room) - table.buckets as usize;
        if missing > 0 {
            // As many inserts as there are buckets to split fill the room.
            (0..missing).for_each(|m| put(&mut table, &format!("{n}:{m}"), "v"));
            assert_eq!(table.buckets as usize % room, 0);
        }
    }
    assert_eq!(arrays.iter().take(7).copied().collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64]);
    let largest = table.buckets as usize;
    // An entry taken out and put in again is no reason to split what was merged.
    let mut keys = Vec::new();
    table.each(|e| keys.push(e.key().to_vec()));
    while let Some(key) = keys.pop() {
        table.remove(hash_key(&key), &key);
        let buckets = table.buckets;
        if buckets > 0 && buckets < 100 {
            table.insert(hash_key(&key), Entry::string(&key, b"v", None, 0, false));
            assert_eq!(table.buckets, buckets);
            table.remove(hash_key(&key), &key);
        }
        let buckets = table.buckets as usize;
        assert!(buckets <= largest.min(table.len() / FILL_MIN + 1));
        let room = if buckets > SEGMENT { buckets + SEGMENT } else { 2 * buckets };
        assert!(table.memory() <= room * BUCKET_BYTES + table.capacity as usize * 8);
    }
    assert_eq!(table.memory(), 0);
}

#[test]
fn buckets_and_children_take_some_twelve_bytes_an_entry() {
    let (mut bytes, mut entries) = (0, 0);
    // As many as the slots' tables have at a million to two million keys, and some turns of keys that come and go.
    for len in 61..122 {
        for churn in [0, 4] {
            let mut table = Table::default();
            let key = |n: usize| format!("{len}:{churn}:{n}");
            (0..len).for_each(|n| put(&mut table, &key(n), "v"));
            for n in len..len * (1 + churn) {
                let old = key(n - len);
                table.remove(hash_key(old.as_bytes()), old.as_bytes());
                put(&mut table, &key(n), "v");
            }
            bytes += table.memory() + children(&table);
            entries += len;
        }
    }
    let mean = bytes as f64 / entries as f64;
    assert!((11.5..13.5).contains(&mean), "{mean} bytes an entry");
}

#[test]
fn one_by_chance_comes_from_anywhere() {
    let (mut table, mut dice) = (Table::default(), Dice(3));
    assert!(table.random(1).is_none());
    let keys: BTreeSet<String> = (0..70).map(|n| format!("{n}")).collect();
    keys.iter().for_each(|key| put(&mut table, key, "v"));
    let mut seen = BTreeSet::new();
    for _ in 0..20_000 {
        let number = (dice.below(1 << 31) as u64) << 32 | dice.below(1 << 31) as u64;
        seen.extend(table.random(number).map(|e| String::from_utf8_lossy(e.key()).into_owned()));
    }
    assert!(seen.is_subset(&keys) && seen.len() > 60, "{} of 70", seen.len());
}

#[test]
fn a_scan_sees_every_key_that_stays_through_growth_and_shrinking() {
    // Arrays of some buckets, the border to segments, and segments.
    for (seed, keys, burst) in (0..40).map(|seed| match seed % 4 {
        0 => (seed, 60, 3),
        1 => (seed, 300, 20),
        2 => (seed, 560, 20),
        _ => (seed, 1500, 40),
    }) {
        let mut table = Table::default();
        let stay: BTreeSet<String> = (0..keys).map(|i| format!("stay:{seed}:{i}")).collect();
        stay.iter().for_each(|k| put(&mut table, k, "v"));
        let mut seen = BTreeSet::new();
        let (mut cursor, mut turn, mut extra) = (0, 0u64, Vec::new());
        loop {
            let mut note = |e: &Entry| {
                seen.insert(String::from_utf8_lossy(e.key()).into_owned());
            };
            cursor = match turn % 2 {
                0 => table.scan(cursor, note),
                _ => table.scan_mut(cursor, |e| note(e)),
            };
            if cursor == 0 {
                break;
            }
            turn += 1;
            for i in 0..burst {
                if (turn / 7 + seed) % 2 == 0 {
                    let key = format!("extra:{turn}:{i}");
                    put(&mut table, &key, "v");
                    extra.push(key);
                } else if let Some(key) = extra.pop() {
                    table.remove(hash_key(key.as_bytes()), key.as_bytes());
                }
            }
        }
        assert!(stay.is_subset(&seen), "seed {seed}");
    }
}
