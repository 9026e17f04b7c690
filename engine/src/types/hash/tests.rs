use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn limits() -> Limits {
    Limits { hash_max_listpack_entries: 8, hash_max_listpack_value: 20, ..Limits::default() }
}

fn contents(hash: &Hash) -> BTreeMap<Vec<u8>, Vec<u8>> {
    hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect()
}

#[test]
fn encoding_follows_the_limits() {
    let limits = limits();
    let mut hash = Hash::new();
    for n in 0..8 {
        assert!(hash.set(&[b'a' + n], b"1", &limits));
    }
    assert!(!hash.set(b"a", b"2", &limits));
    assert_eq!(hash.encoding(), "listpack");
    assert!(hash.set(b"z", b"1", &limits));
    assert_eq!(hash.encoding(), "hashtable");
    let mut wide = Hash::new();
    wide.set(b"a", &[b'x'; 21], &limits);
    assert_eq!(wide.encoding(), "hashtable");
}

#[test]
fn a_listpack_with_a_repeated_field_is_refused() {
    let mut pack = Listpack::new();
    for text in ["a", "1", "a", "2"] {
        pack.push_back(text.as_bytes());
    }
    assert!(Hash::from_listpack(pack.clone(), &limits()).is_none());
    pack.push_back(b"b");
    assert!(Hash::from_listpack(pack, &limits()).is_none());
}

proptest! {
    #[test]
    fn behaves_as_a_map(
        ops in prop::collection::vec(("[a-d1-9]{1,2}", prop::option::of(prop_oneof!["[0-9]{0,3}", "[x-z]{0,300}"])), 0..120),
    ) {
        let (mut hash, mut model) = (Hash::new(), BTreeMap::new());
        for (field, value) in ops {
            let field = field.into_bytes();
            match value {
                Some(value) => {
                    let value = value.into_bytes();
                    let new = model.insert(field.clone(), value.clone()).is_none();
                    prop_assert_eq!(hash.set(&field, &value, &limits()), new);
                }
                None => prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some()),
            }
            prop_assert_eq!(hash.get(&field).map(Item::to_vec), model.get(&field).cloned());
            prop_assert_eq!(hash.len(), model.len());
        }
        prop_assert_eq!(contents(&hash), model.clone());
        let mut seen = BTreeMap::new();
        let mut cursor = 0;
        loop {
            cursor = hash.scan(cursor, 3, |field, value| drop(seen.insert(field.to_vec(), value.to_vec())));
            if cursor == 0 {
                break;
            }
        }
        prop_assert_eq!(seen, model.clone());
        if let Repr::Table(table) = &hash.0 {
            prop_assert_eq!(table.pair_bytes, table.dict.iter().map(Pair::heap_size).sum::<usize>());
        }
        let mut state = 1u64;
        let mut entropy = || { state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1); state };
        prop_assert_eq!(hash.random(&mut entropy).is_some(), !model.is_empty());
        let mut chosen = BTreeMap::new();
        hash.random_distinct(4, &mut entropy, |f, v| drop(chosen.insert(f.to_vec(), v.to_vec())));
        prop_assert_eq!(chosen.len(), model.len().min(4));
    }
}

#[test]
fn fields_longer_than_a_byte_counts_are_kept() {
    let mut hash = Hash::new();
    for len in [0, 1, 254, 255, 256, 70_000] {
        hash.set(&vec![b'f'; len], &vec![b'v'; len], &limits());
        assert_eq!(hash.get(&vec![b'f'; len]).unwrap().to_vec(), vec![b'v'; len]);
    }
    assert_eq!(hash.len(), 6);
}
