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
