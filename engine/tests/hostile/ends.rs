//! Resources that end: memory for replies, file descriptors, channels, the stack.

use std::time::{Duration, Instant};

use crate::BOUNDED;
use crate::support::{Client, Server, Value, encode, value::text};

#[test]
fn replies_that_would_fill_memory_are_refused() {
    let server = Server::larder(&["--client-output-buffer-limit", "normal", "4mb", "0", "0"]);
    let mut client = server.connect();
    client.command(&["SET", "big", &"x".repeat(100_000)]);
    client.words("SADD set a b c");
    client.words("HSET h a 1 b 2");
    client.words("ZADD z 1 a 2 b");
    client.words("RPUSH l a b");
    let many_times = [vec!["MGET"], vec!["big"; 1000]].concat();
    let requests: &[&[&str]] = &[
        &["SRANDMEMBER", "set", "-9223372036854775807"],
        &["SRANDMEMBER", "set", "-1000000000"],
        &["HRANDFIELD", "h", "-4611686018427387903", "WITHVALUES"],
        &["HRANDFIELD", "h", "-9223372036854775807"],
        &["ZRANDMEMBER", "z", "-4611686018427387903", "WITHSCORES"],
        &["ZRANDMEMBER", "z", "-9223372036854775807"],
        &many_times,
    ];
    for request in requests {
        let mut client = server.connect();
        // Pipelined in front of it: what is answered already is not lost.
        client.send(&["ECHO", "before"]);
        let begin = Instant::now();
        client.send(request);
        assert_eq!(text(&client.reply().unwrap()), "before");
        let refused = text(&client.reply().unwrap());
        assert!(refused.starts_with("ERR the reply is larger"), "{request:?}: {refused}");
        assert!(client.reply().is_err(), "{request:?}: open");
        assert!(begin.elapsed() < BOUNDED, "{request:?}");
    }
    let mut client = server.connect();
    client.words("MULTI");
    for _ in 0..100 {
        client.words("GET big");
    }
    assert!(text(&client.words("EXEC")).starts_with("ERR the reply is larger"));
    assert!(client.reply().is_err());
    // Below the limit all is well.
    let mut client = server.connect();
    assert_eq!(client.words("SRANDMEMBER set -10000").items().len(), 10_000);
    assert_eq!(text(&client.words("GET big")).len(), 100_000);
}

#[test]
fn service_returns_by_itself_when_file_descriptors_do() {
    let mut server = Server::larder_with_files(40);
    let mut held: Vec<Client> = Vec::new();
    let mut waiting = Vec::new();
    // More than it has descriptors for: those beyond are connected by the kernel and not accepted.
    for _ in 0..60 {
        let mut client = server.connect();
        client.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        client.try_send_raw(&encode(&["PING"]));
        match client.reply() {
            Ok(_) => held.push(client),
            Err(_) => waiting.push(client),
        }
    }
    assert!(held.len() > 5 && waiting.len() > 5, "{} served, {} wait", held.len(), waiting.len());
    assert!(server.is_alive());
    for client in &mut held {
        assert_eq!(text(&client.words("SET k v")), "OK", "who is in is served");
    }
    drop(held);
    // Nobody new comes: those who wait are found all the same.
    let mut served = 0;
    for client in waiting.iter_mut().take(10) {
        client.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        served += usize::from(client.reply().is_ok_and(|reply| text(&reply) == "PONG"));
    }
    assert_eq!(served, 10, "of those who waited");
}

#[test]
fn nested_arrays_are_no_requests() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    client.try_send_raw(&b"*1\r\n".repeat(100_000));
    let refused = text(&client.reply().unwrap());
    assert_eq!(refused, "ERR Protocol error: expected '$', got '*'");
    assert_eq!(text(&server.connect().words("PING")), "PONG");
}

#[test]
fn one_connection_listens_to_a_bounded_number_of_channels() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let names: Vec<String> = (0..1_048_575).map(|i| i.to_string()).collect();
    for chunk in names.chunks(100_000) {
        let request: Vec<&str> =
            std::iter::once("SUBSCRIBE").chain(chunk.iter().map(String::as_str)).collect();
        client.send(&request);
        for _ in chunk {
            let reply = client.reply().unwrap();
            if reply.is_error() {
                assert_eq!(text(&reply), "ERR too many subscriptions of one connection");
                assert_eq!(server.connect().words("PUBLISH 1 x"), Value::Int(1));
                return;
            }
        }
    }
    client.send(&["SUBSCRIBE", "one", "more", "and", "more"]);
    let reply = client.reply().unwrap();
    assert_eq!(text(&reply), "ERR too many subscriptions of one connection");
}
