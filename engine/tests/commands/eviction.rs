//! What goes when memory is full, and what stays.

use std::time::Duration;

use crate::figure;
use crate::support::{Client, Server, Value, value::text};

#[test]
fn memory_is_kept_at_its_bound_and_keys_in_use_stay() {
    let server = Server::larder(&[
        "--maxmemory",
        "4mb",
        "--maxmemory-policy",
        "allkeys-lru",
        "--maxmemory-samples",
        "10",
    ]);
    let mut client = server.connect();
    let value = "x".repeat(1000);
    client.command(&["SET", "hot", "1"]);
    for i in 0..16_000 {
        let reply = client.command(&["SET", &format!("key:{i}"), &value]);
        assert_eq!(text(&reply), "OK", "at {i}");
        if i % 50 == 0 {
            client.words("GET hot");
        }
    }
    assert!(figure(&mut client, "evicted_keys") > 8000);
    assert!(figure(&mut client, "used_memory") <= (4 << 20) + (512 << 10));
    assert_eq!(text(&client.words("CONFIG SET maxmemory-policy noeviction")), "OK");
    assert_eq!(text(&client.words("CONFIG SET maxmemory 1mb")), "OK");
    let refused = text(&client.command(&["SET", "more", &value]));
    assert_eq!(refused, "OOM command not allowed when used memory > 'maxmemory'.");
    assert_eq!(text(&client.words("DEL key:15999")), "1");
}

#[test]
fn volatile_policies_spare_keys_without_an_expiry() {
    let server = Server::larder(&["--maxmemory", "2mb", "--maxmemory-policy", "volatile-ttl"]);
    let mut client = server.connect();
    let value = "x".repeat(1000);
    client.words("SET kept 1");
    for i in 0..4000 {
        client.command(&["SET", &format!("key:{i}"), &value, "EX", "1000"]);
    }
    assert!(figure(&mut client, "evicted_keys") > 1000);
    assert_eq!(text(&client.words("GET kept")), "1");
}

/// Keys of each kind that are there when memory ends, and of those that come then.
const KEPT: usize = 400;
const NEW: usize = 260;

fn fill(client: &mut Client, name: &str, count: usize, ttl_s: Option<fn(usize) -> usize>) {
    let value = "x".repeat(1000);
    for i in 0..count {
        let key = format!("{name}:{i}");
        let reply = match ttl_s {
            None => client.command(&["SET", &key, &value]),
            Some(ttl) => client.command(&["SET", &key, &value, "EX", &ttl(i).to_string()]),
        };
        assert_eq!(text(&reply), "OK", "{key}");
    }
}

/// Which of `name:0..count` are still there.
fn left(client: &mut Client, name: &str, count: usize) -> Vec<usize> {
    let there = |i: &usize| client.command(&["EXISTS", &format!("{name}:{i}")]) == Value::Int(1);
    (0..count).filter(there).collect()
}

#[test]
fn each_policy_evicts_what_it_says_and_nothing_else() {
    for policy in [
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ] {
        let server = Server::larder(&["--maxmemory-samples", "10"]);
        let mut client = server.connect();
        let set = client.command(&["CONFIG", "SET", "maxmemory-policy", policy]);
        assert_eq!(text(&set), "OK");
        fill(&mut client, "stays", KEPT, None);
        fill(&mut client, "goes", KEPT, Some(|i| 10_000 + 10 * i));
        let by_use = policy.ends_with("lru") || policy.ends_with("lfu");
        if policy.ends_with("lru") {
            // The clock of access times has seconds.
            for _ in 0..500 {
                if figure_of(&client.words("OBJECT IDLETIME goes:399")) >= 2 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // Twenty are read and twenty are written all the time.
        let used: Vec<usize> = (0..40).map(|i| i * 10).collect();
        for _ in 0..if by_use { 50 } else { 0 } {
            for i in &used {
                let key = format!("goes:{i}");
                if i % 20 == 0 {
                    client.command(&["GET", &key]);
                } else {
                    client.command(&["SET", &key, &"y".repeat(1000), "KEEPTTL"]);
                }
            }
        }
        // From here on each new key takes the place of another.
        let full = figure(&mut client, "used_memory");
        let set = client.command(&["CONFIG", "SET", "maxmemory", &full.to_string()]);
        assert_eq!(text(&set), "OK");
        fill(&mut client, "new", NEW, Some(|_| 100_000));
        let evicted = figure(&mut client, "evicted_keys");
        assert!((NEW as u64 / 2..NEW as u64 * 3 / 2).contains(&evicted), "{policy}: {evicted}");
        let stayed = left(&mut client, "stays", KEPT);
        if policy.starts_with("volatile") {
            assert_eq!(stayed.len(), KEPT, "{policy} took keys without an expiry time");
        } else {
            assert!(stayed.len() < KEPT * 9 / 10, "{policy} left {}", stayed.len());
        }
        let there = left(&mut client, "goes", KEPT);
        if by_use {
            let kept = used.iter().filter(|i| there.contains(i)).count();
            assert!(kept >= 36, "{policy} kept {kept} of the 40 keys in use");
            assert!(there.len() < KEPT * 9 / 10, "{policy} left {}", there.len());
        } else if policy == "volatile-ttl" {
            let gone: Vec<usize> = (0..KEPT).filter(|i| !there.contains(i)).collect();
            let mean = |of: &[usize]| of.iter().sum::<usize>() as f64 / of.len().max(1) as f64;
            // In the order of their times, near enough: a few are sampled, not all compared.
            assert!(mean(&gone) * 2.0 < mean(&there), "{} against {}", mean(&gone), mean(&there));
            assert_eq!(left(&mut client, "new", NEW).len(), NEW, "{policy} took what ends last");
        } else {
            let new = left(&mut client, "new", NEW).len();
            assert!(new < NEW && !there.is_empty(), "{policy} spared the new");
        }
    }
}

fn figure_of(value: &Value) -> i64 {
    match value {
        Value::Int(n) => *n,
        other => panic!("no number: {other}"),
    }
}

#[test]
fn nothing_is_evicted_where_no_policy_allows_it() {
    let value = "x".repeat(1000);
    for policy in ["noeviction", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"]
    {
        let server = Server::larder(&["--maxmemory", "1mb", "--maxmemory-policy", policy]);
        let mut client = server.connect();
        let mut stored = 0;
        let refused = loop {
            let reply = text(&client.command(&["SET", &format!("key:{stored}"), &value]));
            if reply != "OK" {
                break reply;
            }
            stored += 1;
            assert!(stored < 5000, "{policy} refuses nothing");
        };
        assert_eq!(refused, "OOM command not allowed when used memory > 'maxmemory'.", "{policy}");
        assert_eq!(figure(&mut client, "evicted_keys"), 0, "{policy}");
        assert_eq!(text(&client.words("DBSIZE")), stored.to_string(), "{policy}");
        // Reads go on, and what gives memory back is taken; in a transaction too.
        assert_eq!(text(&client.words("GET key:0")).len(), 1000, "{policy}");
        assert_eq!(text(&client.words("MULTI")), "OK");
        let refused = text(&client.command(&["SET", "more", &value]));
        assert!(refused.starts_with("OOM"), "{policy}: {refused}");
        assert!(text(&client.words("EXEC")).starts_with("EXECABORT"), "{policy}");
        for i in 0..stored / 2 {
            assert_eq!(client.words(&format!("DEL key:{i}")), Value::Int(1), "{policy}");
        }
        assert_eq!(text(&client.command(&["SET", "more", &value])), "OK", "{policy}");
    }
}
