//! What takes long to delete: done beside the clients, who are not held up by it.

use std::time::{Duration, Instant};

use crate::support::{Client, Server, Value, encode, value::text};
use crate::{is_int, is_ok, pipelined};

#[test]
fn keys_that_expire_together_hold_nobody_up() {
    const KEYS: usize = 200_000;
    let server = Server::larder(&[]);
    let mut client = server.connect();
    // All in one slot: the worst case for whoever sweeps it.
    let at = engine::clock::unix_ms() + 3000;
    let requests =
        (0..KEYS).map(|i| encode(&["SET", &format!("{{t}}{i}"), "v", "PXAT", &at.to_string()]));
    pipelined(&mut client, requests, is_ok);
    client.words("SET stays v");
    let mut slowest = Duration::ZERO;
    let begin = Instant::now();
    // DBSIZE counts what is not deleted yet.
    while client.words("DBSIZE") != Value::Int(1) {
        let asked = Instant::now();
        assert_eq!(text(&client.words("GET stays")), "v");
        slowest = slowest.max(asked.elapsed());
        assert!(begin.elapsed() < Duration::from_secs(60), "they never go");
    }
    assert!(slowest < Duration::from_millis(500), "a read waited for {slowest:?}");
    // On a slow machine the last ones are born expired.
    assert!(info(&mut client, "expired_keys") > 1000);
}

/// A field of INFO as a number.
fn info(client: &mut Client, name: &str) -> u64 {
    let info = text(&client.words("INFO everything"));
    let line = info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {info}")).trim().parse().unwrap()
}

#[test]
fn large_values_and_databases_are_freed_aside() {
    const MEMBERS: usize = 300_000;
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let fill = |client: &mut Client, key: &str| {
        let requests = (0..MEMBERS / 1000).map(|chunk| {
            let mut request = vec!["SADD".to_string(), key.to_string()];
            request.extend((0..1000).map(|i| format!("member:{}", chunk * 1000 + i)));
            encode(&request)
        });
        pipelined(client, requests, is_int);
    };
    for (what, request) in [
        ("DEL", &["DEL", "set"][..]),
        ("SET over it", &["SET", "set", "v"]),
        ("RENAME over it", &["RENAME", "other", "set"]),
        ("SUNIONSTORE over it", &["SUNIONSTORE", "set", "small"]),
        ("an expiry time of the past", &["PEXPIREAT", "set", "1"]),
        ("FLUSHALL", &["FLUSHALL"]),
    ] {
        let mut run = || {
            client.words("DEL set");
            client.words("SET other v");
            client.words("SADD small a");
            fill(&mut client, "set");
            let begin = Instant::now();
            let reply = client.command(request);
            assert!(!reply.is_error(), "{what}: {reply}");
            begin.elapsed()
        };
        // The best of three: the machine may be busy with something else.
        let took = (0..3).map(|_| run()).min().unwrap_or_default();
        // To free them on the spot takes several times as long in a debug build.
        assert!(took < Duration::from_millis(40), "{what} took {took:?}");
    }
}
