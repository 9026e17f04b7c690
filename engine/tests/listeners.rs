//! Who listens to a server: to its keyspace events, to its commands, and caches that are told what is no longer true.

#[path = "support/mod.rs"]
mod support;

use support::{Client, Server, Value};

/// A reply as text: arrays joined by spaces, pushes in angle brackets, null as `(nil)`.
fn text(value: &Value) -> String {
    let join = |items: &[Value]| items.iter().map(text).collect::<Vec<_>>().join(" ");
    match value {
        Value::Array(items) | Value::Set(items) => join(items),
        Value::Push(items) => format!("<{}>", join(items)),
        Value::Map(pairs) => {
            let pair = |(a, b): &(Value, Value)| format!("{}={}", text(a), text(b));
            pairs.iter().map(pair).collect::<Vec<_>>().join(" ")
        }
        Value::Null | Value::NilBulk | Value::NilArray => "(nil)".into(),
        Value::Int(n) => n.to_string(),
        Value::Error(e) => format!("-{}", String::from_utf8_lossy(e)),
        Value::Verbatim(text) => String::from_utf8_lossy(text).into_owned(),
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

/// The engine, and where it is installed a stock redis-server: what is said of both holds for both.
fn both() -> Vec<Server> {
    let ours = Server::larder(&["--io-threads", "3"]);
    match Server::oracle(&[]) {
        Ok(redis) => vec![ours, redis],
        Err(why) => {
            println!("not compared: {why}");
            vec![ours]
        }
    }
}

/// A client that tracks, in RESP3.
fn tracking(server: &Server, words: &str) -> Client {
    let mut client = server.connect();
    client.words("HELLO 3");
    assert_eq!(call(&mut client, &format!("CLIENT TRACKING ON {words}")), "OK");
    client
}

/// Nothing has come before the reply to this.
fn hears_nothing(client: &mut Client) {
    assert_eq!(call(client, "PING"), "PONG");
}

#[test]
fn who_has_read_a_key_is_told_once_that_it_changed() {
    for server in both() {
        let (mut cache, mut other) = (tracking(&server, ""), server.connect());
        other.words("SET a 0");
        assert_eq!(call(&mut cache, "GET a"), "0");
        assert_eq!(call(&mut cache, "MGET b c"), "(nil) (nil)");
        assert_eq!(call(&mut other, "SET a 1"), "OK");
        assert_eq!(next(&mut cache), "<invalidate a>");
        other.words("SET a 2");
        other.words("SET unread 2");
        hears_nothing(&mut cache);
        other.words("MSET b 1 c 1");
        assert_eq!(next(&mut cache), "<invalidate b>");
        assert_eq!(next(&mut cache), "<invalidate c>");
        // Its own changes too, behind the reply.
        cache.words("EXISTS a");
        assert_eq!(call(&mut cache, "SET a 3"), "OK");
        assert_eq!(next(&mut cache), "<invalidate a>");
        cache.words("GET a");
        other.words("MULTI");
        other.words("SET a 4");
        other.words("EXEC");
        assert_eq!(next(&mut cache), "<invalidate a>");
        let flags = call(&mut cache, "CLIENT TRACKINGINFO");
        assert_eq!(flags, "flags=on redirect=0 prefixes=");
        assert_eq!(call(&mut cache, "CLIENT GETREDIR"), "0");
        for flush in ["FLUSHALL", "FLUSHDB"] {
            cache.words("GET a");
            other.words(flush);
            assert_eq!(next(&mut cache), "<invalidate (nil)>");
        }
        assert!(call(&mut other, "INFO clients").contains("tracking_clients:1"));
        cache.words("GET a");
        assert!(call(&mut other, "INFO stats").contains("tracking_total_keys:1"));
        cache.words("CLIENT TRACKING OFF");
        other.words("SET a 5");
        hears_nothing(&mut cache);
        assert_eq!(call(&mut cache, "CLIENT TRACKINGINFO"), "flags=off redirect=-1 prefixes=");
        assert!(call(&mut other, "INFO clients").contains("tracking_clients:0"));
    }
}

#[test]
fn keys_that_expire_are_told_to_caches() {
    for server in both() {
        let (mut cache, mut other) = (tracking(&server, ""), server.connect());
        loop {
            other.words("SET k v PX 50");
            if call(&mut cache, "GET k") == "v" {
                break;
            }
        }
        assert_eq!(next(&mut cache), "<invalidate k>");
    }
}

#[test]
fn a_client_may_leave_out_its_own_changes_and_choose_what_is_remembered() {
    for server in both() {
        let mut other = server.connect();
        let mut cache = tracking(&server, "NOLOOP");
        cache.words("GET a");
        assert_eq!(call(&mut cache, "SET a 1"), "OK");
        hears_nothing(&mut cache);
        cache.words("GET a");
        other.words("SET a 1");
        assert_eq!(next(&mut cache), "<invalidate a>");

        let mut cache = tracking(&server, "OPTIN");
        cache.words("GET a");
        other.words("SET a 1");
        hears_nothing(&mut cache);
        assert_eq!(call(&mut cache, "CLIENT CACHING YES"), "OK");
        let flags = call(&mut cache, "CLIENT TRACKINGINFO");
        assert_eq!(flags, "flags=on optin caching-yes redirect=0 prefixes=");
        cache.words("GET a");
        cache.words("GET b");
        other.words("MSET b 1 a 1");
        assert_eq!(next(&mut cache), "<invalidate a>");
        cache.words("CLIENT CACHING YES");
        cache.words("MULTI");
        cache.words("GET a");
        cache.words("GET b");
        cache.words("EXEC");
        cache.words("GET c");
        other.words("MSET c 1 a 1 b 1");
        assert_eq!(next(&mut cache), "<invalidate a>");
        assert_eq!(next(&mut cache), "<invalidate b>");
        hears_nothing(&mut cache);

        let mut cache = tracking(&server, "OPTOUT");
        cache.words("CLIENT CACHING NO");
        cache.words("GET a");
        cache.words("GET b");
        other.words("MSET a 1 b 1");
        assert_eq!(next(&mut cache), "<invalidate b>");
        hears_nothing(&mut cache);
    }
}

#[test]
fn prefixes_are_told_of_whether_read_or_not() {
    for server in both() {
        let mut other = server.connect();
        let mut cache = tracking(&server, "BCAST PREFIX user: PREFIX item: NOLOOP");
        other.words("MSET user:1 a other:1 b user:2 c");
        assert_eq!(next(&mut cache), "<invalidate user:1 user:2>");
        other.words("SET item:1 a");
        assert_eq!(next(&mut cache), "<invalidate item:1>");
        cache.words("SET item:1 a");
        hears_nothing(&mut cache);
        let flags = call(&mut cache, "CLIENT TRACKINGINFO");
        assert_eq!(flags, "flags=on bcast noloop redirect=0 prefixes=item: user:");
        assert_eq!(call(&mut cache, "CLIENT TRACKING ON BCAST PREFIX more:"), "OK");
        assert!(call(&mut other, "INFO stats").contains("tracking_total_prefixes:3"));
        other.words("SET more:1 a");
        assert_eq!(next(&mut cache), "<invalidate more:1>");
        let refused = call(&mut cache, "CLIENT TRACKING ON BCAST PREFIX mo");
        assert_eq!(
            refused,
            "-ERR Prefix 'mo' overlaps with an existing prefix 'more:'. Prefixes for a single client must \
             not overlap."
        );
        assert_eq!(call(&mut cache, "RESET"), "RESET");
        assert!(call(&mut other, "INFO stats").contains("tracking_total_prefixes:0"));
        // All keys.
        let mut cache = tracking(&server, "BCAST");
        other.words("SET any a");
        assert_eq!(next(&mut cache), "<invalidate any>");
        other.words("FLUSHALL");
        assert_eq!(next(&mut cache), "<invalidate (nil)>");
    }
}

#[test]
fn another_connection_hears_in_place_of_the_one_that_reads() {
    for server in both() {
        let (mut hears, mut cache, mut other) =
            (server.connect(), server.connect(), server.connect());
        let id = call(&mut hears, "CLIENT ID");
        hears.words("SUBSCRIBE __redis__:invalidate");
        assert_eq!(call(&mut cache, &format!("CLIENT TRACKING ON REDIRECT {id}")), "OK");
        assert_eq!(call(&mut cache, "CLIENT GETREDIR"), id);
        assert!(call(&mut cache, "CLIENT INFO").contains(&format!("redir={id} ")));
        cache.words("GET a");
        other.words("SET a 1");
        assert_eq!(next(&mut hears), "message __redis__:invalidate a");
        other.words("FLUSHALL");
        assert_eq!(next(&mut hears), "message __redis__:invalidate (nil)");
        hears_nothing(&mut cache);
        let reading = "CLIENT TRACKING ON REDIRECT 4000000000";
        let refused = call(&mut cache, reading);
        assert_eq!(refused, "-ERR The client ID you want redirect to does not exist");
        // In RESP3 it is told when the other one is gone.
        cache.words("HELLO 3");
        cache.words("GET a");
        assert_eq!(call(&mut other, &format!("CLIENT KILL ID {id}")), "1");
        while call(&mut other, "CLIENT LIST").contains(&format!("id={id} ")) {
            std::thread::yield_now();
        }
        other.words("SET a 1");
        assert_eq!(next(&mut cache), format!("<tracking-redir-broken {id}>"));
        let flags = call(&mut cache, "CLIENT TRACKINGINFO");
        assert_eq!(flags, format!("flags=on broken_redirect redirect={id} prefixes="));
    }
}

#[test]
fn the_table_of_readers_is_bounded_and_evicted_keys_are_told() {
    let server = Server::larder(&["--tracking-table-max-keys", "10", "--io-threads", "2"]);
    let (mut cache, mut other) = (tracking(&server, ""), server.connect());
    for i in 0..10 {
        cache.words(&format!("GET k{i}"));
    }
    hears_nothing(&mut cache);
    for i in 10..60 {
        cache.send(&["GET", &format!("k{i}")]);
    }
    let heard: Vec<String> = (0..100).map(|_| next(&mut cache)).collect();
    assert_eq!(heard.iter().filter(|text| text.starts_with("<invalidate k")).count(), 50);
    assert!(
        call(&mut other, "INFO stats")
            .contains("tracking_total_keys:10\r\ntracking_total_items:10")
    );
    cache.words("CLIENT TRACKING OFF");
    let mut cache = tracking(&server, "");
    other.words("SET victim v");
    assert_eq!(call(&mut cache, "GET victim"), "v");
    other.words("CONFIG SET maxmemory-policy allkeys-random");
    other.words("CONFIG SET maxmemory 1");
    assert_eq!(next(&mut cache), "<invalidate victim>");
}

#[test]
fn a_cache_never_misses_the_last_change_however_many_write() {
    const EACH: i64 = 300;
    let server = Server::larder(&["--io-threads", "4"]);
    let addr = server.addr;
    let writers: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::new(addr);
                (0..EACH).for_each(|_| drop(client.words("INCR n")));
            })
        })
        .collect();
    let mut cache = tracking(&server, "");
    loop {
        // Whatever it has heard before, it hears of every change after this read.
        cache.send(&["GET", "n"]);
        let value = loop {
            match cache.reply().unwrap() {
                Value::Push(_) => {}
                value => break text(&value),
            }
        };
        if value == (3 * EACH).to_string() {
            break;
        }
        assert_eq!(next(&mut cache), "<invalidate n>");
    }
    writers.into_iter().for_each(|w| w.join().unwrap());
}

#[test]
fn a_replica_tells_caches_of_what_its_primary_changes() {
    let (primary, replica) = (Server::larder(&[]), Server::larder(&[]));
    let (mut p, mut r) = (primary.connect(), replica.connect());
    r.words(&format!("REPLICAOF 127.0.0.1 {}", primary.addr.port()));
    while !call(&mut r, "INFO replication").contains("master_link_status:up") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mut cache = tracking(&replica, "");
    cache.words("GET k");
    p.words("SET k v");
    assert_eq!(next(&mut cache), "<invalidate k>");
    p.words("FLUSHALL");
    assert_eq!(next(&mut cache), "<invalidate (nil)>");
}

/// Redis and Valkey tell any name to whoever listens to all: a user who may not read a key is not to learn its name here.
#[test]
fn names_of_keys_are_not_told_to_who_may_not_read_them() {
    let server = Server::larder(&[]);
    let (mut other, mut cache) = (server.connect(), server.connect());
    let rules = "ACL SETUSER u on nopass +@all resetkeys ~a* %W~w* (+get ~shared)";
    assert_eq!(call(&mut other, rules), "OK");
    cache.words("HELLO 3 AUTH u x");
    assert_eq!(call(&mut cache, "CLIENT TRACKING ON BCAST"), "OK");
    other.words("MSET a1 1 b1 1 w1 1 shared 1");
    assert_eq!(next(&mut cache), "<invalidate a1 shared>");
    other.words("SET b1 2");
    hears_nothing(&mut cache);
    assert_eq!(call(&mut other, "ACL SETUSER u allkeys"), "OK");
    other.words("SET b1 3");
    assert_eq!(next(&mut cache), "<invalidate b1>");
}
