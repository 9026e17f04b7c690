//! Who listens to a server: to its keyspace events, to its commands, and caches that are told what is no longer true.

#[path = "support/mod.rs"]
mod support;

use support::{Client, Server, Value};

fn text(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Int(n) => n.to_string(),
        Value::Error(e) => format!("-{}", String::from_utf8_lossy(e)),
        other => String::from_utf8_lossy(other.bytes()).into_owned(),
    }
}

fn call(client: &mut Client, words: &str) -> String {
    text(&client.words(words))
}

fn next(client: &mut Client) -> String {
    text(&client.reply().unwrap())
}

fn listener(server: &Server, pattern: &str) -> Client {
    let mut listener = server.connect();
    assert_eq!(
        call(&mut listener, &format!("PSUBSCRIBE {pattern}")),
        format!("psubscribe {pattern} 1")
    );
    listener
}

#[test]
fn keys_that_expire_unread_and_keys_that_are_evicted_are_told() {
    let server = Server::larder(&["--notify-keyspace-events", "Exe", "--io-threads", "2"]);
    let mut client = server.connect();
    let mut heard = listener(&server, "__key*__:*");
    client.words("SET short v PX 1");
    assert_eq!(next(&mut heard), "pmessage __key*__:* __keyevent@0__:expired short");
    client.words("SELECT 3");
    client.words("SET long v");
    client.words("CONFIG SET maxmemory-policy allkeys-random");
    client.words("CONFIG SET maxmemory 1");
    assert_eq!(next(&mut heard), "pmessage __key*__:* __keyevent@3__:evicted long");
    assert_eq!(
        call(&mut client, "CONFIG GET notify-keyspace-events"),
        "notify-keyspace-events xeE"
    );
    let refused = call(&mut client, "CONFIG SET notify-keyspace-events q");
    assert!(
        refused.ends_with("Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
        "{refused}"
    );
}

#[test]
fn events_of_a_key_are_heard_in_the_order_in_which_it_changed_whoever_changes_it() {
    const EACH: usize = 200;
    let server = Server::larder(&["--notify-keyspace-events", "KA", "--io-threads", "4"]);
    let mut heard = listener(&server, "__keyspace@0__:*");
    let addr = server.addr;
    let writers: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::new(addr);
                for _ in 0..EACH {
                    client.words("RPUSH list x");
                    client.words("LPOP list");
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|w| w.join().unwrap());
    // An element is there, and the key with it, between a push and the pop that takes it.
    let (mut len, mut heard_of) = (0i64, 0);
    while heard_of < 8 * EACH {
        let event = next(&mut heard);
        match event.rsplit(' ').next().unwrap() {
            "rpush" => len += 1,
            "lpop" => len -= 1,
            "del" => {
                assert_eq!(len, 0, "the list was not empty");
                continue;
            }
            _ => panic!("{event}"),
        }
        heard_of += 1;
        assert!(len >= 0, "a pop was heard before its push");
    }
}

#[test]
fn a_replica_tells_of_what_it_applies() {
    let primary = Server::larder(&[]);
    let replica = Server::larder(&["--notify-keyspace-events", "KEA"]);
    let (mut p, mut r) = (primary.connect(), replica.connect());
    r.words(&format!("REPLICAOF 127.0.0.1 {}", primary.addr.port()));
    while !call(&mut r, "INFO replication").contains("master_link_status:up") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mut heard = listener(&replica, "__keyevent@0__:*");
    p.words("SADD set a");
    p.words("SPOP set");
    p.words("SET k v PX 1");
    for event in ["sadd set", "srem set", "del set", "set k", "expire k", "del k"] {
        assert_eq!(next(&mut heard), format!("pmessage __keyevent@0__:* __keyevent@0__:{event}"));
    }
}

/// The words of a line of MONITOR, without its time.
fn shown(client: &mut Client) -> String {
    let line = next(client);
    let (time, rest) = line.split_once(' ').unwrap();
    let (seconds, micros) = time.split_once('.').unwrap();
    assert!(seconds.parse::<u64>().unwrap() > 1_500_000_000 && micros.len() == 6, "{line}");
    rest.to_owned()
}

fn my_address(client: &mut Client) -> String {
    client.stream.local_addr().unwrap().to_string()
}

#[test]
fn monitors_are_shown_commands_as_they_are_run_and_no_secrets() {
    for protocol in ["2", "3"] {
        let server = Server::larder(&["--io-threads", "3", "--requirepass", "p"]);
        let mut monitor = server.connect();
        assert!(call(&mut monitor, "MONITOR").starts_with("-NOAUTH"));
        monitor.words(&format!("HELLO {protocol} AUTH default p"));
        assert_eq!(call(&mut monitor, "MONITOR"), "OK");
        let mut client = server.connect();
        let me = my_address(&mut client);
        client.words("GET refused");
        for (words, line) in [
            ("AUTH wrong", r#"0 {} "AUTH" "(redacted)""#),
            ("AUTH default p", r#"0 {} "AUTH" "(redacted)" "(redacted)""#),
            ("HELLO 2 AUTH default p", r#"0 {} "HELLO" "2" "AUTH" "(redacted)" "(redacted)""#),
            ("seT key value", r#"0 {} "seT" "key" "value""#),
            ("SELECT 3", r#"3 {} "SELECT" "3""#),
            ("INCR key", r#"3 {} "INCR" "key""#),
            ("CLIENT GETNAME", r#"3 {} "CLIENT" "GETNAME""#),
            ("BLPOP none 0.001", r#"3 {} "BLPOP" "none" "0.001""#),
            ("MULTI", r#"3 {} "MULTI""#),
        ] {
            // Of administrators, and of what is not there, nothing is shown.
            client.words("CONFIG SET requirepass p");
            client.words("NOSUCH command");
            client.words(words);
            assert_eq!(shown(&mut monitor), format!("[{}", line.replace("{}", &format!("{me}]"))));
        }
        client.words("SET a 1");
        client.words("EXEC");
        assert_eq!(shown(&mut monitor), format!(r#"[3 {me}] "SET" "a" "1""#));
        assert_eq!(shown(&mut monitor), format!(r#"[3 {me}] "EXEC""#));
        assert!(call(&mut client, "CLIENT LIST").contains("flags=O "));
        assert_eq!(call(&mut monitor, "GET a"), "-ERR Replica can't interact with the keyspace");
        assert_eq!(call(&mut monitor, "RESET"), "RESET");
        client.words("SET a 2");
        monitor.words("AUTH p");
        assert_eq!(call(&mut monitor, "GET key"), "value");
    }
}

#[test]
fn a_monitor_that_does_not_read_is_cut_off() {
    let limits = "normal 1mb 0 0 replica 0 0 0 pubsub 0 0 0";
    let server = Server::larder(&["--client-output-buffer-limit", limits]);
    let mut monitor = server.connect();
    monitor.words("MONITOR");
    let mut client = server.connect();
    let value = "v".repeat(500_000);
    let mut left = 200;
    while call(&mut client, "CLIENT LIST").contains("flags=O ") {
        client.words(&format!("SET key {value}"));
        left -= 1;
        assert!(left > 0, "it is still there");
    }
    let (read, closed) = monitor.drain(std::time::Duration::from_secs(10));
    assert!(closed && !read.is_empty());
}
