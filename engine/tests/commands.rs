//! What a stock server cannot be compared with: our own settings, limits, eviction, the slow log, CLIENT.

#[path = "support/mod.rs"]
mod support;

use std::process::Command;
use std::time::Duration;

use support::{Client, Server, Value, value::text};

/// A field of INFO as a number.
fn figure(client: &mut Client, name: &str) -> u64 {
    let info = text(&client.words("INFO everything"));
    let line = info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {info}")).trim().parse().unwrap()
}

fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_larder-server"))
}

#[test]
fn version_is_printed_as_launchers_look_for_it() {
    let out = binary().arg("-v").output().unwrap();
    let line = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && line.contains("v="), "{line}");
}

#[test]
fn bad_configuration_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.conf");
    std::fs::write(&path, "port 0\nappendfsync everysec # slow\n").unwrap();
    let out = binary().arg(&path).output().unwrap();
    let error = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success());
    for part in ["FATAL CONFIG FILE ERROR", "at line 2", ">>> 'appendfsync everysec # slow'"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn renamed_commands_are_gone_under_their_old_names() {
    let server = Server::larder(&[
        "--rename-command",
        "FLUSHALL",
        "",
        "--rename-command",
        "FLUSHDB",
        "wipe",
    ]);
    let mut client = server.connect();
    client.words("SET k v");
    for name in ["FLUSHALL", "flushall", "FLUSHDB"] {
        assert!(text(&client.words(name)).starts_with("ERR unknown command"), "{name}");
    }
    assert_eq!(text(&client.words("DBSIZE")), "1");
    assert_eq!(text(&client.words("WIPE")), "OK");
    assert_eq!(text(&client.words("DBSIZE")), "0");
}

#[test]
fn hits_misses_and_commands_are_counted_exactly() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    client.words("SET k v");
    let before = [figure(&mut client, "keyspace_hits"), figure(&mut client, "keyspace_misses")];
    for _ in 0..30 {
        client.words("GET k");
    }
    for _ in 0..10 {
        client.words("GET none");
    }
    assert_eq!(figure(&mut client, "keyspace_hits"), before[0] + 30);
    assert_eq!(figure(&mut client, "keyspace_misses"), before[1] + 10);
    assert_eq!(figure(&mut client, "connected_clients"), 1);
    assert!(figure(&mut client, "used_memory_peak") >= figure(&mut client, "used_memory"));
}

#[test]
fn slow_commands_are_listed_and_quick_ones_are_not() {
    let server = Server::larder(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    assert_eq!(text(&client.words("CONFIG SET slowlog-log-slower-than 20000")), "OK");
    client.words("SET quick 1");
    client.words("DEBUG SLEEP 0.05");
    let Value::Array(entries) = client.words("SLOWLOG GET 10") else { panic!("no list") };
    let first_words: Vec<String> = entries
        .iter()
        .map(|entry| match entry {
            Value::Array(parts) => match &parts[3] {
                Value::Array(args) => text(&args[0]),
                other => panic!("no arguments: {other:?}"),
            },
            other => panic!("no entry: {other:?}"),
        })
        .collect();
    assert!(first_words.iter().any(|w| w == "DEBUG"), "{first_words:?}");
    assert!(first_words.iter().all(|w| w != "SET"), "{first_words:?}");
    assert_eq!(text(&client.words("SLOWLOG RESET")), "OK");
    assert_eq!(text(&client.words("CONFIG SET slowlog-log-slower-than 0")), "OK");
    client.words("SET quick 1");
    assert_ne!(text(&client.words("SLOWLOG LEN")), "0");
}

#[test]
fn debug_is_closed_unless_it_was_opened() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    assert!(text(&client.words("DEBUG SLEEP 0")).starts_with("ERR DEBUG command not allowed"));
    assert!(text(&client.words("CONFIG SET dir /tmp")).contains("protected"));
}

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

#[test]
fn dumped_values_are_restored_whole() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    client.words("SET s hello");
    client.words("SET n 12345");
    client.words("RPUSH l a b 3");
    client.words("HSET h f v g 2");
    client.words("ZADD z 1.5 a 2 b");
    client.words("SADD set 1 2 x");
    for key in ["s", "n", "l", "h", "z", "set"] {
        let Value::Bulk(payload) = client.words(&format!("DUMP {key}")) else { panic!("{key}") };
        let copy = format!("{key}:copy");
        let reply = client.command(&[b"RESTORE".as_slice(), copy.as_bytes(), b"0", &payload]);
        assert_eq!(text(&reply), "OK", "{key}");
        let Value::Bulk(again) = client.words(&format!("DUMP {copy}")) else { panic!("{copy}") };
        assert_eq!(again.len(), payload.len(), "{key}");
        let mut broken = payload.clone();
        broken[0] ^= 0x55;
        let reply = client.command(&[b"RESTORE".as_slice(), b"x", b"0", &broken]);
        assert_eq!(text(&reply), "ERR DUMP payload version or checksum are wrong");
    }
}

#[test]
fn scan_sees_every_key_that_stays() {
    let server = Server::larder(&["--io-threads", "2"]);
    let (mut client, mut other) = (server.connect(), server.connect());
    for i in 0..3000 {
        let reply = client.command(&["SET", &format!("stay:{i}"), "v"]);
        assert_eq!(text(&reply), "OK", "stay:{i}");
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut cursor = "0".to_string();
    let mut round = 0;
    loop {
        let reply = client.command(&["SCAN", &cursor, "MATCH", "stay:*", "COUNT", "50"]);
        let Value::Array(parts) = reply else { panic!("no list") };
        let Value::Array(keys) = &parts[1] else { panic!("no keys") };
        seen.extend(keys.iter().map(text));
        cursor = text(&parts[0]);
        if cursor == "0" {
            break;
        }
        for i in 0..20 {
            other.command(&["SET", &format!("come:{round}:{i}"), "v"]);
            other.command(&["DEL", &format!("come:{}:{i}", round / 2)]);
        }
        round += 1;
    }
    assert_eq!(seen.len(), 3000);
}

#[test]
fn paused_writers_go_on_when_they_may() {
    let server = Server::larder(&[]);
    let (mut client, mut writer) = (server.connect(), server.connect());
    assert_eq!(text(&client.words("CLIENT PAUSE 60000 WRITE")), "OK");
    writer.send(&["SET", "k", "v"]);
    assert_eq!(text(&client.words("GET k")), "NilBulk");
    assert_eq!(text(&client.words("CLIENT UNPAUSE")), "OK");
    assert_eq!(text(&writer.reply().unwrap()), "OK");
    assert_eq!(text(&client.words("GET k")), "v");
}

#[test]
fn killed_clients_are_closed_and_the_killer_gets_its_reply() {
    let server = Server::larder(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    other.words("PING");
    assert_eq!(text(&client.words("CLIENT KILL TYPE normal")), "1");
    assert!(other.reply().is_err());
    assert_eq!(text(&client.words("CLIENT KILL TYPE normal SKIPME no")), "1");
    assert!(client.reply().is_err());
}

#[test]
fn emptied_databases_give_their_memory_back() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    for i in 0..2000 {
        client.command(&["SET", &format!("key:{i}"), &"x".repeat(500)]);
    }
    assert!(figure(&mut client, "used_memory_dataset") > 1_000_000);
    assert_eq!(text(&client.words("FLUSHALL")), "OK");
    // What is large is freed aside: it is gone in a moment, not at once.
    let emptied = (0..2000).any(|_| figure(&mut client, "used_memory_dataset") == 0);
    assert!(emptied, "{} bytes are left", figure(&mut client, "used_memory_dataset"));
    assert_eq!(text(&client.words("DBSIZE")), "0");
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

#[test]
fn a_watched_key_cannot_change_unseen() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 400;
    let server = Server::larder(&["--io-threads", "4"]);
    server.connect().words("SET n 0");
    let done: usize = std::thread::scope(|scope| {
        let run = || {
            let mut client = server.connect();
            let mut done = 0;
            for _ in 0..ROUNDS {
                client.words("WATCH n");
                let n: u64 = text(&client.words("GET n")).parse().unwrap();
                client.words("MULTI");
                client.words(&format!("SET n {}", n + 1));
                done += usize::from(matches!(client.words("EXEC"), Value::Array(_)));
            }
            done
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(run)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    // Each EXEC that ran counted one up from what its client had read: none overwrote another.
    assert_eq!(text(&server.connect().words("GET n")), done.to_string());
    assert!(done >= ROUNDS, "{done}");
}

#[test]
fn a_fault_costs_only_the_connection_that_met_it() {
    let mut server = Server::larder(&["--enable-debug-command", "yes", "--io-threads", "2"]);
    let mut others: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    others[0].words("SET k v");
    for _ in 0..4 {
        let mut client = server.connect();
        client.send(&["DEBUG", "FAULT"]);
        assert!(client.reply().is_err());
    }
    assert!(server.is_alive());
    for other in &mut others {
        assert_eq!(text(&other.words("GET k")), "v");
    }
    let mut last = server.connect();
    assert_eq!(text(&last.words("SET k w")), "OK");
    assert_eq!(figure(&mut last, "connected_clients"), 5);
}

#[test]
fn settings_changed_live_are_in_the_rewritten_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("larder.conf");
    let text_before = "# kept\nmaxmemory 100mb\nsave 900 1\nsave 300 10\ntimeout 7\n\
                       client-output-buffer-limit pubsub 32mb 8mb 60\n";
    std::fs::write(&path, text_before).unwrap();
    let settings: &[(&str, &str)] = &[
        ("maxmemory", "209715200"),
        ("maxmemory-policy", "volatile-ttl"),
        ("requirepass", "a \"b\" c'd"),
        ("client-output-buffer-limit", "normal 1 2 3 slave 4 5 6 pubsub 7 8 9"),
        ("hash-max-listpack-entries", "77"),
        ("slowlog-log-slower-than", "-1"),
        ("latency-tracking", "yes"),
    ];
    let server = Server::larder_from(&path);
    let mut client = server.connect();
    for (name, value) in settings {
        assert_eq!(text(&client.command(&["CONFIG", "SET", name, value])), "OK", "{name}");
    }
    assert_eq!(text(&client.words("CONFIG REWRITE")), "OK");
    drop(server);
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written.starts_with("# kept\n"), "{written}");
    let server = Server::larder_from(&path);
    let mut client = server.connect();
    assert!(text(&client.words("GET a")).starts_with("NOAUTH"), "{written}");
    assert_eq!(text(&client.command(&["AUTH", "a \"b\" c'd"])), "OK", "{written}");
    for (name, value) in settings.iter().chain(&[("timeout", "7")]) {
        let got = client.command(&["CONFIG", "GET", name]);
        let Value::Array(pair) = &got else { panic!("{got}") };
        assert_eq!(text(&pair[1]), *value, "{name} in {written}");
    }
}

#[test]
fn a_password_set_live_holds_for_new_connections() {
    let server = Server::larder(&[]);
    let mut old = server.connect();
    assert_eq!(text(&old.words("CONFIG SET requirepass secret")), "OK");
    assert_eq!(text(&old.words("SET a 1")), "OK", "who is in stays in");
    let mut new = server.connect();
    assert!(text(&new.words("GET a")).starts_with("NOAUTH"));
    assert_eq!(text(&new.words("AUTH secret")), "OK");
    assert_eq!(text(&new.words("GET a")), "1");
    assert_eq!(text(&new.words("RESET")), "RESET");
    assert!(text(&new.words("GET a")).starts_with("NOAUTH"), "RESET forgets who it was");
    assert_eq!(text(&old.command(&["CONFIG", "SET", "requirepass", ""])), "OK");
    assert_eq!(text(&server.connect().words("GET a")), "1");
}

#[test]
fn values_are_compared_and_set_together_as_by_later_versions() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    client.words("LPUSH l a");
    for (words, reply) in [
        ("SET k v IFEQ a", "(nil)"),
        ("SET k v IFNE a", "OK"),
        ("SET k w IFEQ v", "OK"),
        ("SET k w IFEQ v", "(nil)"),
        ("SET k x IFEQ w GET", "w"),
        ("SET k y IFEQ w GET", "x"),
        ("SET k y IFNE x", "(nil)"),
        ("SET k x IFEQ", "ERR syntax error"),
        ("SET k x IFEQ a NX", "ERR syntax error"),
        ("SET k x XX IFEQ a", "ERR syntax error"),
        ("SET k x IFEQ a IFNE b", "ERR syntax error"),
        ("SET l x IFEQ a", "WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("SET k y IFEQ x EX 100", "OK"),
        ("TTL k", "100"),
        ("DELIFEQ k x", "0"),
        ("DELIFEQ k y", "1"),
        ("DELIFEQ k y", "0"),
        ("DELIFEQ l a", "WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("MSETEX 1 a 1", "1"),
        ("MSETEX 2 a 1", "ERR syntax error"),
        ("MSETEX 2 a 1 b 2 EX 100", "1"),
        ("TTL b", "100"),
        ("MSETEX 2 a 3 b 4 KEEPTTL", "1"),
        ("TTL a", "100"),
        ("MSETEX 2 a 1 c 2 NX", "0"),
        ("MSETEX 2 a 1 c 2 XX", "0"),
        ("EXISTS c", "0"),
        ("MSETEX 1 c 1 NX PX 100000", "1"),
        ("MSETEX 0 a 1", "ERR invalid numkeys value or out of range"),
        ("MSETEX 99999999999 a 1", "ERR invalid numkeys value or out of range"),
        ("MSETEX 1 a 1 EX 0", "ERR invalid expire time in 'msetex' command"),
        ("MSETEX 1 a 1 NX XX", "ERR syntax error"),
        ("MSETEX 1 a 1 EX 10 KEEPTTL", "ERR syntax error"),
        ("MSETEX 1 a 1 b 2", "ERR syntax error"),
        ("MSETEX 1 a 1 PXAT 1", "1"),
        ("EXISTS a", "0"),
        ("MSETEX 2 a 1 a 2", "1"),
        ("GET a", "2"),
        ("HSET h a 1 b 2", "2"),
        (
            "HGETDEL h FIELDS 0 b",
            "ERR numfields should be greater than 0 and match the provided number of fields",
        ),
        (
            "HGETDEL h FIELDS 2 b",
            "ERR numfields should be greater than 0 and match the provided number of fields",
        ),
        ("HGETDEL h FOO 1 b", "ERR syntax error"),
        (
            "HGETDEL l FIELDS 1 a",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
        ("EXISTS h", "1"),
    ] {
        let got = client.words(words);
        let got = match got {
            Value::NilBulk => "(nil)".into(),
            Value::Int(n) => n.to_string(),
            other => text(&other),
        };
        assert_eq!(got, reply, "{words}");
    }
    let bulk = |text: &str| Value::Bulk(text.as_bytes().to_vec());
    let taken = client.words("HGETDEL h FIELDS 3 a x a");
    assert_eq!(taken, Value::Array(vec![bulk("1"), Value::NilBulk, Value::NilBulk]));
    assert_eq!(client.words("HGETDEL h FIELDS 1 b"), Value::Array(vec![bulk("2")]));
    assert_eq!(client.words("EXISTS h"), Value::Int(0));
    assert_eq!(client.words("HGETDEL h FIELDS 1 b"), Value::Array(vec![Value::NilBulk]));
}

#[test]
fn large_requests_and_replies_are_written_down_with_their_bytes() {
    let server = Server::larder(&[
        "--commandlog-request-larger-than",
        "1000",
        "--commandlog-reply-larger-than",
        "2000",
        "--commandlog-large-reply-max-len",
        "2",
    ]);
    let mut client = server.connect();
    client.words(&format!("SET small {}", "v".repeat(900)));
    client.words(&format!("SET large {}", "v".repeat(3000)));
    for _ in 0..3 {
        client.words("GET large");
    }
    client.words("GET small");
    assert_eq!(text(&client.words("COMMANDLOG LEN large-request")), "1");
    assert_eq!(text(&client.words("COMMANDLOG LEN large-reply")), "2");
    let Value::Array(entries) = client.words("COMMANDLOG GET -1 large-request") else { panic!() };
    let fields = entries[0].clone().items();
    assert_eq!(text(&fields[2]), "3033");
    assert_eq!(fields[3].clone().items().len(), 3);
    let Value::Array(entries) = client.words("COMMANDLOG GET 1 large-reply") else { panic!() };
    let fields = entries[0].clone().items();
    assert_eq!((text(&fields[0]), text(&fields[2])), ("2".into(), "3009".into()));
    assert_eq!(text(&client.words("COMMANDLOG RESET large-reply")), "OK");
    assert_eq!(text(&client.words("COMMANDLOG LEN large-reply")), "0");
    let refused = text(&client.words("COMMANDLOG LEN other"));
    let known = "ERR type should be one of the following: slow, large-request, large-reply";
    assert_eq!(refused, known);
    assert_eq!(text(&client.words("COMMANDLOG LEN slow")), text(&client.words("SLOWLOG LEN")));
}

#[test]
fn spikes_are_recorded_above_the_threshold_and_times_of_commands_are_counted() {
    let server = Server::larder(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.words("DEBUG SLEEP 0.02");
    assert_eq!(client.words("LATENCY LATEST"), Value::Array(vec![]));
    assert!(text(&client.words("LATENCY DOCTOR")).contains("latency-monitor-threshold"));
    client.words("CONFIG SET latency-monitor-threshold 10");
    client.words("DEBUG SLEEP 0.02");
    let latest = client.words("LATENCY LATEST").items();
    let event = latest[0].clone().items();
    assert_eq!(text(&event[0]), "command");
    assert!(text(&event[3]).parse::<u64>().unwrap() >= 20);
    assert_eq!(client.words("LATENCY HISTORY command").items().len(), 1);
    assert_eq!(client.words("LATENCY HISTORY other").items().len(), 0);
    assert!(text(&client.words("LATENCY DOCTOR")).contains("command: 1 seconds"));
    assert_eq!(text(&client.words("LATENCY RESET other")), "0");
    assert_eq!(text(&client.words("LATENCY RESET")), "1");
    let counted = client.words("LATENCY HISTOGRAM debug nosuch").items();
    assert_eq!(text(&counted[0]), "debug");
    let fields = counted[1].clone().items();
    assert_eq!((text(&fields[0]), text(&fields[1])), ("calls".into(), "2".into()));
    assert!(
        text(&client.words("INFO latencystats")).contains("latency_percentiles_usec_debug:p50=")
    );
    (0..3).for_each(|_| drop(client.words("SET k v")));
    let counted = client.words("LATENCY HISTOGRAM set").items()[1].clone().items();
    assert_eq!(text(&counted[1]), "3");
    assert_eq!(text(counted[3].clone().items().last().unwrap()), "3");
    client.words("CONFIG RESETSTAT");
    assert!(client.words("LATENCY HISTOGRAM debug").items().is_empty());
}
