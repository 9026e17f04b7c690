use super::*;
use crate::keyspace::Keyspace;

fn env() -> Env {
    Env {
        now_ms: 0,
        thread: 0,
        lfu: false,
        lfu_log_factor: 10,
        lfu_decay_minutes: 1,
        hides_expired: false,
        sees_expired: false,
        tracks_changes: false,
        events: 0,
        no_touch: false,
        slowlog_us: -1,
        limits: Limits::default(),
    }
}

#[test]
fn memory_is_counted_when_an_entry_that_is_made_anew_shrinks_its_table() {
    let (keyspace, env) = (Keyspace::new(1), env());
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
