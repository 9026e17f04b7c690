use super::*;
use crate::keyspace::Keyspace;

#[test]
fn memory_is_counted_when_an_entry_that_is_made_anew_shrinks_its_table() {
    let (keyspace, env) = (Keyspace::new(1), Env::new(0, Limits::default()));
    let key = |n: usize| format!("{{a}}{n}").into_bytes();
    {
        let mut db = Db::new(keyspace.lock_all(), 0, &env, None);
        // Seven entries have two buckets; when one of four is taken out, to come back longer, one bucket is left.
        (0..7).for_each(|n| db.set(&key(n), b"value", Ttl::Clear));
        (0..3).for_each(|n| assert!(db.remove(&key(n))));
        assert!(db.expire(&key(3), Some(1000)));
        (3..7).for_each(|n| assert!(db.remove(&key(n))));
    }
    assert_eq!(keyspace.used_memory(), 0);
}

#[test]
fn a_value_that_fits_is_put_where_the_old_one_is_and_all_else_stays() {
    let keyspace = Keyspace::new(1);
    let mut env = Env::new(0, Limits::default());
    env.now_ms = 1_000;
    for ttl in [Ttl::Clear, Ttl::At(2_000)] {
        let mut db = Db::new(keyspace.lock_all(), 0, &env, None);
        db.set(b"key", b"9", ttl);
        for length in (1..200).chain((1..200).rev()) {
            let value = vec![b'x'; length];
            db.set(b"key", &value, Ttl::Keep);
            let entry = db.peek(b"key").unwrap();
            assert_eq!(entry.as_string(), Some(&*value));
            assert_eq!(entry.key(), b"key");
            assert_eq!(entry.ttl(), if ttl == Ttl::Clear { None } else { Some(2_000) });
            let fresh = Entry::string(b"key", &value, entry.ttl(), 0, false);
            assert_eq!(entry.memory(), fresh.memory(), "{length} bytes");
        }
        db.remove(b"key");
    }
    assert_eq!(keyspace.used_memory(), 0);
}

#[test]
fn a_value_that_keeps_the_expiry_time_of_another_does_not_bring_it_back() {
    let keyspace = Keyspace::new(1);
    let mut env = Env::new(0, Limits::default());
    Db::new(keyspace.lock_all(), 0, &env, None).set(b"key", b"1", Ttl::At(1_000));
    env.now_ms = 1_000;
    let mut db = Db::new(keyspace.lock_all(), 0, &env, None);
    db.set(b"key", b"2", Ttl::Keep);
    assert_eq!(db.peek(b"key").unwrap().ttl(), None);
    assert_eq!(db.take_expired().len(), 1, "the old one is deleted first");
    db.remove(b"key");
}

#[test]
fn a_sum_is_put_where_the_old_number_is_or_makes_the_entry_anew_and_all_else_stays() {
    let keyspace = Keyspace::new(1);
    let mut env = Env::new(0, Limits::default());
    env.now_ms = 1_000;
    for ttl in [Ttl::Clear, Ttl::At(2_000)] {
        let mut db = Db::new(keyspace.lock_all(), 0, &env, None);
        assert_eq!(db.add_integer(b"key", 7), Ok(7), "a missing key counts as 0");
        db.set(b"key", b"0", ttl);
        let mut sum = 0i64;
        for by in (0..18).map(|power| 7 * 10i64.pow(power)).chain([-777_777_777_777_777_777, -3]) {
            sum += by;
            assert_eq!(db.add_integer(b"key", by), Ok(sum));
            let entry = db.peek(b"key").unwrap();
            assert_eq!(entry.as_string(), Some(sum.to_string().as_bytes()));
            assert_eq!(entry.ttl(), if ttl == Ttl::Clear { None } else { Some(2_000) });
            let text = sum.to_string();
            let fresh = Entry::string(b"key", text.as_bytes(), entry.ttl(), 0, false);
            assert_eq!(entry.memory(), fresh.memory());
        }
        assert_eq!(db.add_integer(b"key", i64::MIN), Err(NotAdded::Overflow));
        assert_eq!(db.string(b"key"), Ok(Some(b"-3".as_slice())));
        db.set(b"key", b"07", Ttl::Keep);
        assert_eq!(db.add_integer(b"key", 1), Err(NotAdded::NotAnInteger));
        db.remove(b"key");
        db.upsert::<crate::types::List, _>(b"key", |list, limits| list.push_back(b"1", limits))
            .unwrap();
        assert_eq!(db.add_integer(b"key", 1), Err(NotAdded::WrongType));
        db.remove(b"key");
    }
    assert_eq!(keyspace.used_memory(), 0);
}

#[test]
fn a_number_whose_time_is_over_counts_as_missing() {
    let keyspace = Keyspace::new(1);
    let mut env = Env::new(0, Limits::default());
    Db::new(keyspace.lock_all(), 0, &env, None).set(b"key", b"41", Ttl::At(1_000));
    env.now_ms = 1_000;
    let mut db = Db::new(keyspace.lock_all(), 0, &env, None);
    assert_eq!(db.add_integer(b"key", 1), Ok(1));
    assert_eq!(db.peek(b"key").unwrap().ttl(), None);
    assert_eq!(db.take_expired().len(), 1, "the old one is deleted first");
    assert_eq!((db.hits, db.misses), (0, 1));
    db.remove(b"key");
}
