//! Patterns, algorithms and numbers of keys that could run away: answered in bounded time.

use crate::support::{Server, Value, encode, value::text};
use crate::{bounded, is_int, is_ok, pipelined};

#[test]
fn patterns_of_a_hundred_kilobytes_are_matched_in_bounded_time() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let keys = (0..50).map(|i| encode(&["SET", &format!("{}{i}", "a".repeat(300)), "v"]));
    pipelined(&mut client, keys, is_ok);
    let member = "a".repeat(300);
    client.command(&["SADD", "set", &member]);
    client.command(&["HSET", "h", &member, "v"]);
    client.command(&["ZADD", "z", "1", &member]);
    let patterns = [
        "a*".repeat(50_000) + "b",
        "*a".repeat(50_000) + "b",
        "*?".repeat(50_000),
        format!("*[{}]b", "x-z".repeat(33_000)),
        "*".repeat(100_000) + "b",
        "[".repeat(100_000),
        "\\".repeat(100_000),
    ];
    for pattern in &patterns {
        let shown = &pattern[..8];
        for request in [
            &["KEYS", pattern][..],
            &["SCAN", "0", "COUNT", "1000", "MATCH", pattern],
            &["SSCAN", "set", "0", "MATCH", pattern],
            &["HSCAN", "h", "0", "MATCH", pattern],
            &["ZSCAN", "z", "0", "MATCH", pattern],
            &["CONFIG", "GET", pattern],
            &["PUBSUB", "CHANNELS", pattern],
            &["COMMAND", "LIST", "FILTERBY", "PATTERN", pattern],
        ] {
            let what = format!("{} of {shown}", request[0]);
            let reply = bounded(&mut client, &what, request);
            assert!(!reply.is_error(), "{what}: {reply}");
        }
        let mut listener = server.connect();
        bounded(&mut listener, "PSUBSCRIBE", &["PSUBSCRIBE", pattern]);
    }
    bounded(&mut client, "PUBLISH", &["PUBLISH", &"a".repeat(1000), "x"]);
}

#[test]
fn heavy_combinations_end_in_bounded_time() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    for set in ["s1", "s2"] {
        let requests = (0..100).map(|chunk: usize| {
            let mut request = vec!["SADD".to_string(), set.to_string()];
            request.extend((0..1000).map(|i| format!("member:{}", chunk * 1000 + i)));
            encode(&request)
        });
        pipelined(&mut client, requests, is_int);
    }
    let weights = (0..2000).map(|i| encode(&["SET", &format!("weight:{i}"), "1"]));
    pipelined(&mut client, weights, is_ok);
    client.command(&["SET", "a", &"ab".repeat(3000)]);
    client.command(&["SET", "b", &"ba".repeat(3000)]);
    client.command(&["SET", "long", &"ab".repeat(500_000)]);
    client.words("SETBIT bits 80000000 1");
    let list: Vec<String> = (0..2000).map(|i| i.to_string()).collect();
    let push: Vec<&str> =
        ["RPUSH", "l"].into_iter().chain(list.iter().map(String::as_str)).collect();
    client.command(&push);
    for line in [
        "SINTERCARD 2 s1 s2",
        "SINTERSTORE d s1 s2",
        "SUNIONSTORE d s1 s2",
        "SDIFFSTORE d s1 s2",
        "ZUNIONSTORE d 2 s1 s2 WEIGHTS inf -inf AGGREGATE SUM",
        "ZINTERSTORE d 2 s1 s2 WEIGHTS 1e308 1e308",
        "SORT s1 ALPHA LIMIT 0 1",
        "SORT l BY weight:* GET # GET weight:* LIMIT 0 10",
        "SORT s1 BY nosuch:* LIMIT 0 1",
        "LCS a b LEN",
        "BITOP NOT d bits",
        "BITOP XOR d bits bits bits",
        "BITCOUNT bits",
        "BITPOS bits 1",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let reply = bounded(&mut client, line, &words);
        assert!(!reply.is_error(), "{line}: {reply}");
    }
    let refused = bounded(&mut client, "LCS of long values", &["LCS", "long", "long"]);
    assert!(text(&refused).contains("too long for LCS"), "{refused}");
}

#[test]
fn requests_of_very_many_keys_are_answered_in_bounded_time() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let keys: Vec<String> = (0..200_000).map(|i| format!("key:{i}")).collect();
    let mset: Vec<&str> =
        std::iter::once("MSET").chain(keys.iter().flat_map(|k| [k.as_str(), "v"])).collect();
    let reply = bounded(&mut client, "MSET", &mset);
    assert_eq!(text(&reply), "OK");
    for (name, expected) in [("EXISTS", 200_000), ("TOUCH", 200_000), ("DEL", 200_000), ("DEL", 0)]
    {
        let request: Vec<&str> =
            std::iter::once(name).chain(keys.iter().map(String::as_str)).collect();
        assert_eq!(bounded(&mut client, name, &request), Value::Int(expected), "{name}");
    }
}
