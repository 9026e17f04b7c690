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
        if let Held::Table(table) = hash.0.held() {
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

/// A field of the model: its value, and when it goes.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

#[derive(Clone, Debug)]
enum Op {
    Set(Vec<u8>, Vec<u8>),
    SetValue(Vec<u8>, Vec<u8>),
    SetUntil(Vec<u8>, Vec<u8>, i64),
    SetTime(Vec<u8>, i64),
    Remove(Vec<u8>),
    Take(usize),
    Wait(i64),
}

fn op() -> impl Strategy<Value = Op> {
    let field = || "[a-d1-9]{1,2}".prop_map(String::into_bytes);
    let value = || prop_oneof!["[0-9]{0,3}", "[x-z]{0,300}"].prop_map(String::into_bytes);
    let time = || prop_oneof![Just(NEVER), 0..200i64, Just(NEVER - 1)];
    prop_oneof![
        2 => (field(), value()).prop_map(|(f, v)| Op::Set(f, v)),
        2 => (field(), value()).prop_map(|(f, v)| Op::SetValue(f, v)),
        4 => (field(), value(), time()).prop_map(|(f, v, t)| Op::SetUntil(f, v, t)),
        4 => (field(), time()).prop_map(|(f, t)| Op::SetTime(f, t)),
        2 => field().prop_map(Op::Remove),
        1 => (1..4usize).prop_map(Op::Take),
        1 => (0..20i64).prop_map(Op::Wait),
    ]
}

/// Does the same to both, and compares what they answer.
fn apply(hash: &mut Hash, model: &mut Model, now: &mut i64, op: Op) {
    let limits = limits();
    match op {
        Op::Set(f, v) => {
            assert_eq!(hash.set(&f, &v, &limits), model.insert(f, (v, NEVER)).is_none());
        }
        Op::SetValue(f, v) => {
            let kept = model.get(&f).map(|(_, time)| *time);
            assert_eq!(hash.set_value(&f, &v, &limits), kept.is_none());
            model.insert(f, (v, kept.unwrap_or(NEVER)));
        }
        Op::SetUntil(f, v, time) => {
            let new = hash.set_until(&f, &v, time, &limits);
            assert_eq!(new, model.insert(f, (v, time)).is_none());
        }
        Op::SetTime(f, time) => {
            let slot = model.get_mut(&f).map(|(_, slot)| slot);
            assert_eq!(hash.set_time(&f, time), slot.is_some());
            slot.into_iter().for_each(|slot| *slot = time);
        }
        Op::Remove(f) => assert_eq!(hash.remove(&f), model.remove(&f).is_some()),
        Op::Take(limit) => {
            let mut taken = hash.take_due(*now, limit);
            while taken.len() < limit && hash.next_due() <= *now {
                taken.extend(hash.take_due(*now, limit - taken.len()));
            }
            let due = model.values().filter(|(_, time)| *time <= *now).count();
            assert_eq!(taken.len(), due.min(limit));
            for field in taken {
                assert!(model.remove(&field).is_some_and(|(_, time)| time <= *now));
            }
        }
        Op::Wait(ms) => *now += ms,
    }
}

fn check_times(hash: &Hash, model: &Model, now: i64) {
    let all: Model = hash.iter_timed().map(|(f, v, t)| (f.to_vec(), (v.to_vec(), t))).collect();
    assert_eq!(&all, model);
    assert_eq!(hash.len(), model.len());
    let next = model.values().map(|(_, time)| *time).min().unwrap_or(NEVER);
    assert_eq!(hash.is_timed(), next != NEVER);
    assert!(hash.next_due() <= next);
    let seen: BTreeMap<_, _> = model
        .iter()
        .filter(|(_, (_, t))| *t > now)
        .map(|(f, (v, _))| (f.clone(), v.clone()))
        .collect();
    let view = hash.at(now);
    assert_eq!((view.len(), view.is_empty()), (seen.len(), seen.is_empty()));
    let mut each = BTreeMap::new();
    view.each(|f, v| drop(each.insert(f.to_vec(), v.to_vec())));
    assert_eq!(each, seen);
    let (mut scanned, mut cursor) = (BTreeMap::new(), 0);
    loop {
        cursor = view.scan(cursor, 3, |f, v| drop(scanned.insert(f.to_vec(), v.to_vec())));
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(scanned, seen);
    for (field, (value, time)) in model {
        let there = *time > now;
        assert_eq!(view.get(field).map(Item::to_vec), there.then(|| value.clone()));
        assert_eq!(view.time(field), there.then_some(*time));
    }
    let mut state = 7u64;
    let mut dice = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state
    };
    let random = view.random(&mut dice).map(|(f, _)| f.to_vec());
    assert_eq!(random.is_some(), !seen.is_empty());
    assert!(random.is_none_or(|field| seen.contains_key(&field)));
    let mut distinct = std::collections::BTreeSet::new();
    view.random_distinct(5, &mut dice, |f, _| {
        distinct.insert(f.to_vec());
    });
    assert_eq!(distinct.len(), seen.len().min(5));
    assert!(distinct.iter().all(|field| seen.contains_key(field)));
}

proptest! {
    #[test]
    fn fields_go_when_their_time_comes_as_in_a_map(ops in prop::collection::vec(op(), 0..160)) {
        let (mut hash, mut model, mut now) = (Hash::new(), Model::new(), 0);
        for op in ops {
            apply(&mut hash, &mut model, &mut now, op);
            check_times(&hash, &model, now);
        }
        // The last time takes all of its costs with it.
        for field in model.keys() {
            hash.set_time(field, NEVER);
        }
        let mut plain = Hash::new();
        for (field, value) in hash.iter() {
            plain.set(&field.to_vec(), &value.to_vec(), &limits());
        }
        if hash.encoding() == plain.encoding() {
            prop_assert!(matches!(hash.0.held(), Held::Pack(_) | Held::Table(_)));
            // Copies: what was larger once has some room left.
            let (left, plain) = (hash.clone().memory_usage(), plain.clone().memory_usage());
            prop_assert!(hash.encoding() != "listpack" || left == plain, "{left} {plain}");
        }
    }
}

#[test]
fn times_that_change_all_the_time_leave_little_behind() {
    let mut hash = Hash::new();
    for n in 0..100u32 {
        hash.set(format!("field:{n}").as_bytes(), b"v", &limits());
    }
    let plain = hash.memory_usage();
    for round in 1..2000i64 {
        assert!(hash.set_time(b"field:1", round));
        assert!(hash.set_time(b"field:2", 5000 - round));
    }
    assert!(hash.memory_usage() < plain + 4096, "{plain} {}", hash.memory_usage());
    assert_eq!(hash.take_due(1998, 10), Vec::<Vec<u8>>::new());
    assert_eq!(hash.take_due(1999, 10), [b"field:1"]);
    assert!(hash.take_due(3000, 10).is_empty() && hash.is_timed());
    assert!(hash.set_time(b"field:2", NEVER));
    assert!(!hash.is_timed());
    hash.remove(b"field:2");
    assert!(hash.memory_usage() <= plain);
}

#[test]
fn a_large_hash_gives_its_fields_up_in_slices() {
    let mut hash = Hash::new();
    for n in 0..10_000u32 {
        hash.set_until(format!("field:{n}").as_bytes(), b"v", 1000, &limits());
    }
    let mut calls = 0;
    while hash.next_due() <= 1000 {
        assert!(hash.take_due(1000, 64).len() <= 64);
        calls += 1;
    }
    assert!(hash.is_empty() && !hash.is_timed() && calls < 10_000 / 64 * 3);
}
