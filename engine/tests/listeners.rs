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
