//! What introductions to caches teach, done as they teach it: counters, limits, locks, leaderboards, subscribers, names.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};

use support::{Client, Server, Value, encode, value::text};

fn ok(client: &mut Client, words: &str) {
    assert_eq!(text(&client.words(words)), "OK", "{words}");
}

#[test]
fn settings_are_told_as_they_were_given() {
    let settings = ["--io-threads", "2", "--save", "900 1 300 10 60 10000"];
    let server = Server::larder(&settings);
    let mut client = server.connect();
    ok(&mut client, "CONFIG SET maxmemory 2gb");
    for (name, value) in [
        ("io-threads", "2"),
        ("save", "900 1 300 10 60 10000"),
        ("maxmemory", "2147483648"),
        ("proto-max-bulk-len", "536870912"),
    ] {
        let told = client.command(&["CONFIG", "GET", name]).items();
        assert_eq!(text(&told[1]), value, "{name}");
    }
    assert!(text(&client.words("INFO memory")).contains("maxmemory_human:2.00G\r\n"));
    let refused = client.words("SETRANGE big 536870912 x");
    let error = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert_eq!(text(&refused), error);
}

#[test]
fn info_has_its_headings_and_each_section_can_be_asked_for() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let sections = ["Server", "Clients", "Memory", "Stats", "Replication"];
    for words in ["INFO", "INFO all", "INFO everything"] {
        let info = text(&client.words(words));
        for section in sections {
            assert!(info.contains(&format!("# {section}\r\n")), "{section} in {words}");
        }
    }
    for section in sections {
        let info = text(&client.words(&format!("INFO {section}")));
        assert!(info.starts_with(&format!("# {section}\r\n")), "{info}");
        assert_eq!(info.matches("# ").count(), 1, "{info}");
    }
}

#[test]
fn a_hundred_clients_count_to_a_hundred_thousand() {
    let server = Server::larder(&["--io-threads", "2"]);
    let mut clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    let requests = encode(&["INCR", "counter"]).repeat(1000);
    clients.iter_mut().for_each(|client| client.send_raw(&requests));
    for client in &mut clients {
        (0..1000).for_each(|_| assert!(matches!(client.reply(), Ok(Value::Int(_)))));
    }
    assert_eq!(text(&clients[0].words("GET counter")), "100000");
}

#[test]
fn a_pipeline_of_a_thousand_is_answered_as_a_thousand_calls_are() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let set = |way: &str, n: usize| ["SET".into(), format!("{way}:{n}"), n.to_string()];
    let singly: Vec<Value> = (0..1000).map(|n| client.command(&set("singly", n))).collect();
    let whole: Vec<u8> = (0..1000).flat_map(|n| encode(&set("piped", n))).collect();
    client.send_raw(&whole);
    let piped: Vec<Value> = (0..1000).map(|_| client.reply().unwrap()).collect();
    assert_eq!(piped, singly);
    assert!(piped.iter().all(|reply| text(reply) == "OK"));
    assert_eq!(client.words("DBSIZE"), Value::Int(2000));
    for n in [0, 1, 499, 999] {
        assert_eq!(text(&client.words(&format!("GET piped:{n}"))), n.to_string());
    }
}

#[test]
fn a_transaction_is_seen_as_a_whole_or_not_at_all() {
    let server = Server::larder(&["--io-threads", "2"]);
    let transaction: Vec<u8> = [&["MULTI"][..], &["INCR", "a"], &["INCR", "b"], &["EXEC"]]
        .iter()
        .flat_map(|words| encode(words))
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = server.connect();
                for _ in 0..500 {
                    client.send_raw(&transaction);
                    (0..4).for_each(|_| assert!(!client.reply().unwrap().is_error()));
                }
            });
        }
        scope.spawn(|| {
            let mut client = server.connect();
            for _ in 0..2000 {
                let both = client.words("MGET a b").items();
                assert_eq!(both[0], both[1]);
            }
        });
    });
    let mut client = server.connect();
    assert_eq!(text(&client.words("GET a")), "1000");
}

#[test]
fn a_thousand_subscribers_hear_every_message_once_and_in_order() {
    let server = Server::larder(&["--io-threads", "2"]);
    let mut subscribers: Vec<Client> = (0..1000).map(|_| server.connect()).collect();
    subscribers.iter_mut().for_each(|client| {
        client.words("SUBSCRIBE news");
    });
    let mut publisher = server.connect();
    for n in 0..20 {
        assert_eq!(publisher.words(&format!("PUBLISH news {n}")), Value::Int(1000));
    }
    for client in &mut subscribers {
        for n in 0..20 {
            let message: Vec<String> = client.reply().unwrap().items().iter().map(text).collect();
            assert_eq!(message, ["message", "news", &n.to_string()]);
        }
    }
}

const LIMITER: &str = "local n = redis.call('INCR', KEYS[1]) \
    if n == 1 then redis.call('EXPIRE', KEYS[1], tonumber(ARGV[2])) end \
    if n > tonumber(ARGV[1]) then return 0 end return 1";

#[test]
fn of_a_hundred_and_fifty_requests_a_limit_of_a_hundred_lets_exactly_so_many_through() {
    let server = Server::larder(&["--io-threads", "2"]);
    let (left, passed) = (AtomicU32::new(150), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = server.connect();
                let take = |n: u32| n.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    let may = client.command(&["EVAL", LIMITER, "1", "rate:u", "100", "60"]);
                    passed.fetch_add(u32::from(may == Value::Int(1)), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 100);
    let Value::Int(ttl) = server.connect().words("TTL rate:u") else { panic!("no TTL") };
    assert!((1..=60).contains(&ttl), "{ttl}");
}

const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

#[test]
fn a_lock_lets_one_in_at_a_time_and_only_its_holder_releases_it() {
    let server = Server::larder(&["--io-threads", "2"]);
    let inside = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for me in 0..8 {
            let (server, inside) = (&server, &inside);
            scope.spawn(move || {
                let (mut client, me) = (server.connect(), format!("holder {me}"));
                for _ in 0..20 {
                    while text(&client.command(&["SET", "lock:x", &me, "NX", "EX", "10"])) != "OK" {
                        let stranger = client.command(&["EVAL", RELEASE, "1", "lock:x", "nobody"]);
                        assert_eq!(stranger, Value::Int(0));
                    }
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    let released = client.command(&["EVAL", RELEASE, "1", "lock:x", &me]);
                    assert_eq!(released, Value::Int(1));
                }
            });
        }
    });
}

#[test]
fn any_bytes_come_back_as_they_were() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    let bytes: Vec<u8> = (0..=255).cycle().take(4000).collect();
    let stored = client.command(&[b"SETEX".as_slice(), b"k", b"3600", &bytes]);
    assert_eq!(text(&stored), "OK");
    assert_eq!(client.words("GET k"), Value::Bulk(bytes));
    assert_eq!(client.words("STRLEN k"), Value::Int(4000));
}

#[test]
fn names_by_their_parts_are_found_and_allowed_by_them() {
    let server = Server::larder(&[]);
    let mut client = server.connect();
    ok(&mut client, "MSET user:123:profile p user:123:settings s post:456:likes 1 session:a x");
    let mut found = Vec::new();
    let mut cursor = "0".to_string();
    loop {
        let mut reply = client.words(&format!("SCAN {cursor} MATCH user:123:*")).items();
        found.extend(reply.pop().unwrap().items().iter().map(text));
        cursor = text(&reply[0]);
        if cursor == "0" {
            break;
        }
    }
    found.sort();
    assert_eq!(found, ["user:123:profile", "user:123:settings"]);
    ok(&mut client, "ACL SETUSER app on nopass +@all ~user:*");
    ok(&mut client, "AUTH app x");
    assert_eq!(text(&client.words("GET user:123:profile")), "p");
    assert!(text(&client.words("GET session:a")).starts_with("NOPERM"));
}
