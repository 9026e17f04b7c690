//! What clients may send to do harm: a real server must answer or close, go on for others, and stay up.
//!
//! Protocol framing has its own tables in `wire`; here are the commands: random ones from the whole table
//! with the arguments that break things, patterns and algorithms that could run away, and resources that end.

#![expect(clippy::disallowed_methods, reason = "answer times are what is measured")]

#[path = "support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use engine::command::{Command, all, flag};
use support::{Client, Server, Value, dice::Dice, encode, value::text};

/// A heavy command may take this long in a debug build on a busy machine; what runs away takes hours.
const BOUNDED: Duration = Duration::from_secs(15);

/// Runs one command and fails when it takes longer than anything bounded would.
fn bounded<A: AsRef<[u8]>>(client: &mut Client, what: &str, args: &[A]) -> Value {
    let begin = Instant::now();
    let reply = client.command(args);
    let took = begin.elapsed();
    assert!(took < BOUNDED, "{what} took {took:?}");
    reply
}

/// Sends many requests ahead of their replies, which must all be `expected`.
fn pipelined(client: &mut Client, requests: impl Iterator<Item = Vec<u8>>, is: fn(&Value) -> bool) {
    let mut waiting = 0;
    let mut batch = Vec::new();
    let take = |client: &mut Client, n: usize| {
        for _ in 0..n {
            let reply = client.reply().unwrap();
            assert!(is(&reply), "{reply}");
        }
    };
    for request in requests {
        batch.extend(request);
        waiting += 1;
        if waiting == 500 {
            client.send_raw(&std::mem::take(&mut batch));
            take(client, waiting);
            waiting = 0;
        }
    }
    client.send_raw(&batch);
    take(client, waiting);
}

fn is_ok(value: &Value) -> bool {
    *value == Value::Simple(b"OK".to_vec())
}

fn is_int(value: &Value) -> bool {
    matches!(value, Value::Int(_))
}

/// Keys of every type, and one that is not there.
const KEYS: &[&[u8]] =
    &[b"s", b"n", b"l", b"big", b"set", b"ints", b"h", b"z", b"none", b"{t}a", b"{t}b"];

const NUMBERS: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1",
    b"2",
    b"3",
    b"-3",
    b"100",
    b"2147483647",
    b"2147483648",
    b"-2147483648",
    b"4294967295",
    b"4294967296",
    b"4611686018427387904",
    b"9223372036854775807",
    b"-9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"1.5",
    b"1e308",
    b"-1e308",
    b"inf",
    b"-inf",
    b"nan",
    b"(1",
    b"(inf",
    b"[a",
    b"(b",
    b"-",
    b"+",
];

const WORDS: &[&[u8]] = &[
    b"EX",
    b"PX",
    b"EXAT",
    b"PXAT",
    b"KEEPTTL",
    b"PERSIST",
    b"NX",
    b"XX",
    b"GT",
    b"LT",
    b"CH",
    b"INCR",
    b"GET",
    b"BY",
    b"ASC",
    b"DESC",
    b"ALPHA",
    b"LIMIT",
    b"STORE",
    b"COUNT",
    b"MATCH",
    b"TYPE",
    b"RANK",
    b"MAXLEN",
    b"LEFT",
    b"RIGHT",
    b"MIN",
    b"MAX",
    b"BEFORE",
    b"AFTER",
    b"BYSCORE",
    b"BYLEX",
    b"REV",
    b"WITHSCORES",
    b"WITHSCORE",
    b"WITHVALUES",
    b"NOVALUES",
    b"WEIGHTS",
    b"AGGREGATE",
    b"SUM",
    b"REPLACE",
    b"DB",
    b"ABSTTL",
    b"IDLETIME",
    b"FREQ",
    b"AND",
    b"OR",
    b"XOR",
    b"NOT",
    b"BIT",
    b"BYTE",
    b"LEN",
    b"IDX",
    b"MINMATCHLEN",
    b"WITHMATCHLEN",
    b"SAMPLES",
    b"USAGE",
    b"ENCODING",
    b"OBJECT",
    b"LIST",
    b"INFO",
    b"GETKEYS",
    b"DOCS",
    b"FILTERBY",
    b"PATTERN",
    b"CHANNELS",
    b"NUMSUB",
    b"SETNAME",
    b"AUTH",
    b"ID",
    b"SLOTS",
    b"SHARDS",
    b"KEYSLOT",
    b"GETKEYSINSLOT",
    b"COUNTKEYSINSLOT",
    b"u8",
    b"i64",
    b"#0",
    b"SET",
    b"INCRBY",
    b"OVERFLOW",
    b"WRAP",
    b"SAT",
    b"FAIL",
    b"string",
    b"ASYNC",
    b"SYNC",
];

const BYTES: &[&[u8]] = &[
    b"",
    b"\0",
    b"\r\n",
    b"\xff\xfe\xfd",
    b"a",
    b"b",
    b"f",
    b"*",
    b"?",
    b"[",
    b"[^",
    b"[a-",
    b"\\",
    b"h*->f",
    b"*->",
    b"->*",
    b"{",
    b"{}",
    b"{t}",
    b" 1",
    b"1 ",
];

const GROUND: &[&str] = &[
    "FLUSHALL",
    "SET s hello",
    "SET n 10",
    "SET {t}a 5",
    "RPUSH l a b c 1 2 3",
    "SADD set a b c",
    "SADD ints 1 2 3 -9223372036854775808",
    "HSET h a 1 b 2 f x",
    "ZADD z 1 a 2 b -inf c inf d",
    "ZADD {t}b 0 a 0 b 0 c",
];

/// Commands that end the server, the connection or the role, or wait for another one by design.
const LEFT_OUT: &[&str] = &[
    "shutdown",
    "replicaof",
    "slaveof",
    "psync",
    "sync",
    "quit",
    "reset",
    "save",
    "bgsave",
    "bgrewriteaof",
    "debug",
    "multi",
];

fn random_request(dice: &mut Dice, commands: &[&'static Command]) -> Vec<Vec<u8>> {
    let command = commands[dice.below(commands.len())];
    let least = command.arity.unsigned_abs() as usize;
    let count = if command.arity > 0 && dice.below(8) > 0 { least } else { least + dice.below(5) };
    let mut request = vec![command.name.as_bytes().to_vec()];
    for at in 1..count.max(1) {
        // A key where a key is likely, so that most requests come past the first check.
        let word = match dice.below(10) {
            0..=3 => dice.pick(if at == 1 { KEYS } else { NUMBERS }),
            4 | 5 => dice.pick(KEYS),
            6 => dice.pick(NUMBERS),
            7 | 8 => dice.pick(WORDS),
            _ => dice.pick(BYTES),
        };
        request.push(word.to_vec());
    }
    if command.name == "client" && request.get(1).is_some_and(|w| !w.eq_ignore_ascii_case(b"list"))
    {
        // Its subcommands close, pause and silence connections: CLIENT has tests of its own.
        request[1] = b"INFO".to_vec();
    }
    request
}

/// What ends an answer: the reply of the PING sent behind the request.
const MARKER: &[u8] = b"$8\r\nmarker-0\r\n";

/// A picker of random elements is told an error and is closed when it asks for so many.
fn wants_more_than_a_reply_holds(request: &[Vec<u8>]) -> bool {
    let name = request[0].to_ascii_lowercase();
    let picks = [&b"srandmember"[..], b"hrandfield", b"zrandmember"].contains(&name.as_slice());
    let count = request.get(2).and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
    picks && count.is_some_and(|count: i64| count < -1_000_000)
}

#[test]
fn no_request_brings_the_server_down() {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=4).collect(),
    };
    let commands: Vec<&'static Command> = all()
        .filter(|c| !LEFT_OUT.contains(&c.name) && !c.is(flag::BLOCKING) && c.name != "wait")
        .collect();
    for seed in seeds {
        let mut server = Server::larder(&["--io-threads", "2", "--proto-max-bulk-len", "1mb"]);
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut client = server.connect();
        let mut last = Vec::new();
        for at in 0..6000 {
            if at % 200 == 0 {
                client = server.connect();
                client.words("HELLO 3");
                for line in GROUND {
                    client.words(line);
                }
            }
            let request = random_request(&mut dice, &commands);
            let shown: Vec<String> = request.iter().map(|a| a.escape_ascii().to_string()).collect();
            last.push(shown.join(" "));
            let in_multi = dice.below(5) == 0;
            if in_multi {
                client.send(&["MULTI"]);
            }
            client.send(&request);
            if in_multi {
                client.send(&["EXEC"]);
            }
            client.send(&["PING", "marker-0"]);
            let answered = client.read_until(MARKER);
            let is_closed_by_design = !answered && wants_more_than_a_reply_holds(&request);
            if is_closed_by_design {
                client = server.connect();
            }
            assert!(
                (answered || is_closed_by_design) && server.is_alive(),
                "SEED={seed}, request {at}: {}",
                last[last.len().saturating_sub(3)..].join("\n")
            );
        }
        // Every loop still serves.
        for _ in 0..4 {
            assert_eq!(text(&server.connect().words("PING")), "PONG", "SEED={seed}");
        }
        let log = server.log();
        assert!(!log.contains("panicked"), "SEED={seed}: {log}");
    }
}

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
