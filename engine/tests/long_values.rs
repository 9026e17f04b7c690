//! Long values over sockets: they go out from where they are, and arrive as they were when they were asked for.

mod support;

use std::time::Duration;

use support::{Client, Server, Value, encode};

/// More than what the system keeps for a connection whose other end does not read, bytes.
const STALLS: usize = 16 << 20;

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251 + seed * 7) as u8).collect()
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("in vain: {what}");
}

/// A number that INFO, or a line of CLIENT LIST, shows.
fn figure(text: &Value, name: &str) -> u64 {
    let Value::Bulk(text) = text else { panic!("{text:?}") };
    let text = String::from_utf8_lossy(text);
    let shown = text.split([' ', '\r', '\n']).find_map(|word| word.strip_prefix(name));
    shown.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// A client that has asked for a value and reads no further than its socket does by itself.
fn stalled(server: &Server, admin: &mut Client, key: &str) -> Client {
    let mut reader = server.connect();
    let Value::Int(id) = reader.words("CLIENT ID") else { panic!("an ID") };
    reader.send(&["GET", key]);
    let list = format!("CLIENT LIST ID {id}");
    until("it is stalled", || figure(&admin.words(&list), "omem=") > 0);
    reader
}

type Request<'a> = &'a [&'a [u8]];

#[test]
fn a_reader_that_stalls_within_a_value_gets_it_as_it_was() {
    let server = Server::larder(&[]);
    let mut admin = server.connect();
    let old = bytes(STALLS, 1);
    let same = bytes(STALLS, 2);
    let done = |admin: &mut Client, args: &[&[u8]]| {
        let reply = admin.command(args);
        assert!(!matches!(reply, Value::Error(_)), "{reply:?}");
    };
    // What befalls the key, and what is there afterwards.
    let cases: [(Request<'_>, Option<Vec<u8>>); 12] = [
        (&[b"SET", b"k", &same], Some(same.clone())),
        (&[b"SET", b"k", b"short"], Some(b"short".to_vec())),
        (&[b"APPEND", b"k", b"more"], Some([&old[..], b"more"].concat())),
        (&[b"SETRANGE", b"k", b"0", b"######"], Some([&b"######"[..], &old[6..]].concat())),
        (&[b"SETBIT", b"k", b"0", b"1"], Some([&[old[0] | 0x80], &old[1..]].concat())),
        (&[b"DEL", b"k"], None),
        (&[b"UNLINK", b"k"], None),
        (&[b"GETDEL", b"k"], None),
        (&[b"PEXPIRE", b"k", b"1"], None),
        (&[b"FLUSHALL"], None),
        (&[b"RENAME", b"k", b"other"], None),
        (&[b"EXPIRE", b"k", b"100"], Some(old.clone())),
    ];
    for (change, left) in cases {
        let name = String::from_utf8_lossy(change[0]);
        done(&mut admin, &[b"SET", b"k", &old]);
        let mut readers = [0, 1].map(|_| stalled(&server, &mut admin, "k"));
        done(&mut admin, change);
        until("the change is seen", || {
            let is_there = admin.words("EXISTS k") == Value::Int(1);
            is_there == left.is_some()
        });
        let now = admin.words("GET k");
        match &left {
            Some(left) => assert!(now == Value::Bulk(left.clone()), "after {name}"),
            None => assert_eq!(now, Value::NilBulk, "after {name}"),
        }
        for reader in &mut readers {
            assert!(reader.reply() == Ok(Value::Bulk(old.clone())), "what {name} did was seen");
            assert_eq!(reader.words("PING"), Value::Simple(b"PONG".to_vec()));
        }
        done(&mut admin, &[b"FLUSHALL"]);
    }
}

#[test]
fn what_a_reader_holds_counts_as_used_memory_until_it_is_read() {
    let server = Server::larder(&[]);
    let mut admin = server.connect();
    let value = bytes(STALLS, 3);
    admin.command(&[b"SET", &b"k"[..], &value]);
    let used = |admin: &mut Client| figure(&admin.words("INFO memory"), "used_memory:") as usize;
    let mut readers = [0, 1].map(|_| stalled(&server, &mut admin, "k"));
    until("one value is counted once", || (STALLS..STALLS * 3 / 2).contains(&used(&mut admin)));
    assert_eq!(admin.words("DEL k"), Value::Int(1));
    until("it is counted where it is held", || {
        (STALLS..STALLS * 3 / 2).contains(&used(&mut admin))
    });
    for reader in &mut readers {
        assert!(reader.reply() == Ok(Value::Bulk(value.clone())));
    }
    until("it is gone", || used(&mut admin) < STALLS / 2);
    // Who leaves in the midst of it lets go of it too.
    admin.command(&[b"SET", &b"k"[..], &value]);
    let reader = stalled(&server, &mut admin, "k");
    admin.words("DEL k");
    drop(reader);
    until("it is gone", || used(&mut admin) < STALLS / 2);
}

/// Lengths around the border from which on values are held, and far beyond.
const LENGTHS: [usize; 9] = [0, 1, 500, 16_383, 16_384, 16_385, 40_000, 65_536, 300_000];

/// Every way of reading a whole value, in one pipeline: the replies stand in their order, and each is whole.
#[test]
fn replies_with_long_values_are_in_step_with_all_others() {
    for extra in [&[][..], &["--io-threads", "4"]] {
        let server = Server::larder(extra);
        let mut client = server.connect();
        let values: Vec<Vec<u8>> = LENGTHS.iter().map(|len| bytes(*len, *len)).collect();
        let bulk = |n: usize| Value::Bulk(values[n].clone());
        for resp3 in [false, true] {
            if resp3 {
                client.words("HELLO 3");
            }
            let null = || if resp3 { Value::Null } else { Value::NilBulk };
            let ok = || Value::Simple(b"OK".to_vec());
            let queued = || Value::Simple(b"QUEUED".to_vec());
            let (mut sent, mut expected) = (Vec::new(), Vec::new());
            let mut ask = |words: &[&[u8]], reply: Option<Value>| {
                sent.extend(encode(words));
                expected.extend(reply);
            };
            for (n, value) in values.iter().enumerate() {
                let key = format!("{{k}}{n}").into_bytes();
                ask(&[b"SET", &key, value], Some(ok()));
                ask(&[b"GET", &key], Some(bulk(n)));
                ask(&[b"GET", b"{k}none"], Some(null()));
                ask(&[b"SET", &key, value, b"GET"], Some(bulk(n)));
                ask(&[b"GETSET", &key, b"short"], Some(bulk(n)));
                ask(&[b"GETDEL", &key], Some(Value::Bulk(b"short".to_vec())));
                ask(&[b"SET", &key, value], Some(ok()));
                ask(&[b"GETEX", &key, b"PERSIST"], Some(bulk(n)));
                ask(&[b"ECHO", &key], Some(Value::Bulk(key.clone())));
                ask(&[b"CLIENT", b"REPLY", b"SKIP"], None);
                ask(&[b"GET", &key], None);
                ask(&[b"CLIENT", b"REPLY", b"OFF"], None);
                ask(&[b"GET", &key], None);
                ask(&[b"CLIENT", b"REPLY", b"ON"], Some(ok()));
                ask(&[b"GETDEL", &key], Some(bulk(n)));
                ask(&[b"SET", &key, value, b"PX", b"1000000"], Some(ok()));
                let script = b"return {redis.call('GET', KEYS[1]), 'end'}";
                let both = vec![bulk(n), Value::Bulk(b"end".to_vec())];
                ask(&[b"EVAL", script, b"1", &key], Some(Value::Array(both)));
                ask(&[b"MULTI"], Some(ok()));
                ask(&[b"GET", &key], Some(queued()));
                ask(&[b"GETRANGE", &key, b"0", b"-1"], Some(queued()));
                ask(&[b"EXEC"], Some(Value::Array(vec![bulk(n), bulk(n)])));
            }
            let keys: Vec<Vec<u8>> =
                (0..=values.len()).map(|n| format!("{{k}}{n}").into_bytes()).collect();
            let mut words: Vec<&[u8]> = vec![b"MGET"];
            words.extend(keys.iter().chain(&keys).map(Vec::as_slice));
            let each: Vec<Value> = (0..values.len()).map(bulk).chain([null()]).collect();
            ask(&words, Some(Value::Array([each.clone(), each].concat())));
            ask(&[b"PING"], Some(Value::Simple(b"PONG".to_vec())));
            // Read while it is sent: no more than the system's buffers may be unread.
            let mut writer = client.stream.try_clone().unwrap();
            let sending = std::thread::spawn(move || {
                std::io::Write::write_all(&mut writer, &sent).unwrap();
            });
            for (n, expected) in expected.iter().enumerate() {
                let reply = client.reply().unwrap_or_else(|why| panic!("reply {n}: {why}"));
                assert!(reply == *expected, "reply {n} of {expected:.40?} is {reply:.40?}");
            }
            sending.join().unwrap();
        }
    }
}

/// A limit of the output buffer counts what is held as what is copied: a few bytes ask for any amount.
#[test]
fn a_reply_beyond_the_output_buffers_limit_is_refused_though_nothing_is_copied() {
    let server = Server::larder(&["--client-output-buffer-limit", "normal 4mb 0 0"]);
    let mut client = server.connect();
    client.command(&[b"SET", &b"k"[..], &bytes(1 << 20, 4)]);
    let ask = |client: &mut Client, many: usize| {
        client.words("MULTI");
        (0..many)
            .for_each(|_| assert_eq!(client.words("GET k"), Value::Simple(b"QUEUED".to_vec())));
        client.send(&["EXEC"]);
    };
    ask(&mut client, 3);
    assert!(matches!(client.reply(), Ok(Value::Array(all)) if all.len() == 3));
    ask(&mut client, 100);
    let (answer, closed) = client.drain(Duration::from_secs(5));
    assert!(closed && answer.starts_with(b"-ERR the reply is larger"), "{}", answer.len());
}
