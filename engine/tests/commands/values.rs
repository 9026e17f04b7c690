//! Values and keys: copied by DUMP, scanned, compared, given up.

use crate::figure;
use crate::support::{Server, Value, value::text};

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
fn many_keys_of_one_request_are_each_found_or_not() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    client.words("RPUSH {k}:list a");
    let mut request = vec!["MGET".to_owned()];
    let mut expected = Vec::new();
    for n in 0..50 {
        let key = if n % 7 == 3 { "{k}:list".to_owned() } else { format!("k:{n}") };
        let is_there = n % 7 != 3 && n % 5 != 0;
        if is_there {
            client.words(&format!("SET {key} value:{n}"));
        }
        expected.push(if is_there { format!("value:{n}") } else { "NilBulk".to_owned() });
        request.push(key);
    }
    // The first key again, and one behind the last group of keys that are fetched together.
    request.push("k:1".to_owned());
    expected.push("value:1".to_owned());
    let Value::Array(values) = client.command(&request) else { panic!("no list") };
    assert_eq!(values.iter().map(text).collect::<Vec<_>>(), expected);
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
