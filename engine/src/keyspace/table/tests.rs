use std::collections::{BTreeMap, BTreeSet};

use super::bucket::spread;
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
    for bits in 0..128u8 {
        let expected: u64 =
            (0..7).filter(|i| bits >> i & 1 == 1).map(|i| 1u64 << (8 * i + 7)).sum();
        assert_eq!(spread(bits), expected);
    }
}

#[test]
fn behaves_as_a_map_while_it_grows_and_shrinks() {
    let mut table = Table::default();
    let mut model = BTreeMap::new();
    let mut x = 7u64;
    for step in 0..60_000u64 {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let range = if step < 30_000 { 4_000 } else { 40 };
        let key = format!("key:{}", (x >> 33) % range);
        if (x >> 20).is_multiple_of(3) {
            let gone = table.remove(hash_key(key.as_bytes()), key.as_bytes());
            assert_eq!(gone.is_some(), model.remove(&key).is_some());
        } else {
            let value = format!("{step}");
            put(&mut table, &key, &value);
            model.insert(key, value);
        }
        assert_eq!(table.len(), model.len());
    }
    for (key, value) in &model {
        assert_eq!(get(&table, key), Some(value.as_bytes()));
    }
    for key in model.keys() {
        assert!(table.remove(hash_key(key.as_bytes()), key.as_bytes()).is_some());
    }
    assert_eq!(table.memory(), 0);
}

#[test]
fn a_scan_sees_every_key_that_stays_through_growth_and_shrinking() {
    for seed in 0..40u64 {
        let mut table = Table::default();
        let stay: BTreeSet<String> = (0..300).map(|i| format!("stay:{seed}:{i}")).collect();
        stay.iter().for_each(|k| put(&mut table, k, "v"));
        let mut seen = BTreeSet::new();
        let (mut cursor, mut turn, mut extra) = (0, 0u64, Vec::new());
        loop {
            cursor = table.scan(cursor, |e| {
                seen.insert(String::from_utf8_lossy(e.key()).into_owned());
            });
            if cursor == 0 {
                break;
            }
            turn += 1;
            for i in 0..20 {
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
