//! Clients that follow nothing, at the plain port of one member: they see one server with all keys, whoever has them,
//! and a change of primary or of a slot's owner is a pause for them and no error.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "managed/cluster.rs"]
mod cluster;
mod managed;
mod processes;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use cluster::Cluster;
use engine::topology::{Change, SlotRange, even_slots, slot_of};
use processes::Client;

const PLAIN: [&str; 2] = ["--larder-plain-port", "{port}"];

/// One cluster at a time: several starve each other on few cores, and one that is starved is not what is looked at.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two shards with a replica each, in no hurry to replace anybody.
fn form() -> Cluster {
    Cluster::form(&[0, 1, 0, 1], 2, &[PLAIN[0], PLAIN[1], "--larder-failure-timeout-ms", "3000"])
}

/// At the plain port of a member.
fn client_at(cluster: &Cluster, node: usize) -> Client {
    Client::try_connect(cluster.nodes[node].port_of(PLAIN[0])).unwrap()
}

/// The n-th key whose slot is this one's shard of two, with a tag of its own.
fn key_of(shard: u16, nth: usize) -> String {
    let slots = even_slots(shard, 2);
    let keys = (0..).map(|i| format!("{{{shard}:{i}}}"));
    keys.filter(|key| slots.contains(slot_of(key.as_bytes()))).nth(nth).unwrap()
}

#[test]
fn every_key_is_there_at_every_member() {
    let _alone = alone();
    let cluster = form();
    for node in 0..4 {
        let mut client = client_at(&cluster, node);
        for i in 0..100 {
            client.ok(&["SET", &format!("{node}:{i}"), &format!("value {i}")]);
        }
    }
    let long = "x".repeat(1_000_000);
    let mut client = client_at(&cluster, 3);
    for shard in 0..2 {
        let key = key_of(shard, 0);
        client.ok(&["SET", &key, &long]);
        assert_eq!(client.call(&["GET", &key]), long);
        assert_eq!(client.call(&["GET", &format!("{key}none")]), "(nil)");
        assert!(client.call(&["LPUSH", &key, "a"]).starts_with("-WRONGTYPE"));
        assert_eq!(
            client.call(&["EVAL", "return redis.call('STRLEN', KEYS[1])", "1", &key]),
            "1000000"
        );
        client.ok(&["MSET", &format!("{key}a"), "1", &format!("{key}b"), "2"]);
        assert_eq!(client.call(&["MGET", &format!("{key}a"), &format!("{key}b")]), "1 2");
    }
    assert!(client.call(&["MGET", &key_of(0, 0), &key_of(1, 0)]).starts_with("-CROSSSLOT"));
    // Replies come in the order of the requests, whoever gave them.
    for node in 0..4 {
        let mut client = client_at(&cluster, node);
        let keys: Vec<(String, String)> = (0..4)
            .flat_map(|of| (0..100).map(move |i| (format!("{of}:{i}"), format!("value {i}"))))
            .collect();
        keys.iter().for_each(|(key, _)| client.send(&["GET", key]).unwrap());
        for (key, value) in &keys {
            assert_eq!(client.reply().unwrap(), *value, "{key} at member {node}");
        }
        assert_ne!(client.info("larder_forwarded_requests"), "0");
    }
}

#[test]
fn a_transaction_goes_to_the_one_member_that_has_its_keys() {
    let _alone = alone();
    let cluster = form();
    for node in 0..4 {
        let mut client = client_at(&cluster, node);
        let mut other = client_at(&cluster, 0);
        for shard in 0..2 {
            let key = key_of(shard, node);
            client.ok(&["MULTI"]);
            assert_eq!(client.call(&["SET", &key, "1"]), "QUEUED");
            assert_eq!(client.call(&["INCR", &key]), "QUEUED");
            assert_eq!(client.call(&["GET", &key]), "QUEUED");
            assert_eq!(client.call(&["EXEC"]), "OK 2 2");

            client.ok(&["WATCH", &key]);
            assert_eq!(client.call(&["GET", &key]), "2");
            client.ok(&["MULTI"]);
            assert_eq!(client.call(&["INCR", &key]), "QUEUED");
            other.ok(&["SET", &key, "7"]);
            assert_eq!(client.call(&["EXEC"]), "(nil)", "it was changed meanwhile");
            client.ok(&["WATCH", &key]);
            client.ok(&["MULTI"]);
            assert_eq!(client.call(&["INCR", &key]), "QUEUED");
            assert_eq!(client.call(&["EXEC"]), "8");

            client.ok(&["MULTI"]);
            assert_eq!(client.call(&["SET", &key, "x"]), "QUEUED");
            client.ok(&["DISCARD"]);
            assert_eq!(client.call(&["GET", &key]), "8");
            client.ok(&["MULTI"]);
            assert!(client.call(&["INCR", &key, "2"]).starts_with("-ERR wrong number"));
            assert!(client.call(&["EXEC"]).starts_with("-EXECABORT"));
        }
        client.ok(&["MULTI"]);
        client.call(&["SET", &key_of(0, node), "x"]);
        client.call(&["SET", &key_of(1, node), "x"]);
        let refused = client.call(&["EXEC"]);
        assert!(refused.contains("CROSSSLOT"), "{refused}");
        assert_eq!(client.call(&["GET", &key_of(0, node)]), "8");
        assert_eq!(client.call(&["PING"]), "PONG");
    }
}

#[test]
fn a_client_waits_at_another_member_and_a_map_is_a_map() {
    let _alone = alone();
    let cluster = form();
    for node in 0..2 {
        let queue = key_of(1 - node as u16, 5);
        let mut client = client_at(&cluster, node);
        assert!(client.call(&["HELLO", "3"]).contains("proto 3"));
        client.send(&["BLPOP", &queue, "0"]).unwrap();
        let there = cluster.primary_of(1 - node as u16).unwrap();
        let mut there = Client::try_connect(cluster.ports()[there]).unwrap();
        there.until_info("blocked_clients", "1");
        client_at(&cluster, node).call(&["RPUSH", &queue, "a"]);
        assert_eq!(client.reply().unwrap(), format!("{queue} a"));
        assert_eq!(client.call(&["BLPOP", &queue, "0.05"]), "_");

        let hash = key_of(1 - node as u16, 6);
        client.call(&["HSET", &hash, "f", "1"]);
        client.send(&["HGETALL", &hash]).unwrap();
        assert_eq!(client.reply().unwrap(), "f 1");
        // Who goes away while he waits leaves nobody waiting there.
        client.send(&["BLPOP", &queue, "0"]).unwrap();
        there.until_info("blocked_clients", "1");
        drop(client);
        there.until_info("blocked_clients", "0");
    }
}

#[test]
fn a_user_may_do_there_what_he_may_do_here() {
    let _alone = alone();
    let cluster = form();
    let mine = key_of(1, 7);
    for port in cluster.ports() {
        let mut admin = Client::try_connect(port).unwrap();
        admin.ok(&[
            "ACL",
            "SETUSER",
            "ann",
            "on",
            ">secret",
            &format!("~{mine}*"),
            "+@all",
            "-@dangerous",
        ]);
        admin.ok(&["ACL", "SETUSER", "clerk", "on", ">secret", "~*", "+get"]);
    }
    let mut client = client_at(&cluster, 0);
    client.ok(&["AUTH", "ann", "secret"]);
    client.ok(&["SET", &mine, "1"]);
    assert!(client.call(&["SET", &key_of(1, 8), "1"]).starts_with("-NOPERM"));
    // What a script reaches for is seen only where it runs.
    let script = "return redis.call('GET', ARGV[1])";
    let reached = client.call(&["EVAL", script, "1", &mine, &format!("{}x", key_of(1, 8))]);
    assert!(reached.contains("permission") || reached.contains("ACL"), "{reached}");
    assert!(client.call(&["LARDER.AS", "default"]).starts_with("-NOPERM"));
    client.ok(&["AUTH", "clerk", "secret"]);
    assert_eq!(client.call(&["GET", &mine]), "1");
    assert!(client.call(&["SET", &mine, "2"]).starts_with("-NOPERM"));
}

/// Counters in both shards, by clients that follow nothing.
struct Counting {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(String, u64, Vec<String>)>>,
}

impl Counting {
    fn start(cluster: &Cluster, node: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..4)
            .map(|n| {
                let (stop, mut client) = (stop.clone(), client_at(cluster, node));
                std::thread::spawn(move || {
                    let (key, mut done, mut failed) = (key_of(n % 2, n as usize), 0, Vec::new());
                    while !stop.load(Ordering::Acquire) {
                        let reply = client.call(&["INCR", &key]);
                        match reply.parse() {
                            Ok(count) => done = count,
                            Err(_) => failed.push(reply),
                        }
                    }
                    (key, done, failed)
                })
            })
            .collect();
        Self { stop, threads }
    }

    /// The counters, and what was refused.
    fn stop(self) -> Vec<(String, u64, Vec<String>)> {
        self.stop.store(true, Ordering::Release);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }
}

#[test]
fn a_change_of_primary_or_owner_is_a_pause_and_no_error() {
    let _alone = alone();
    let cluster = form();
    // At a replica, which has nothing of its own to give.
    let at = (0..4).find(|n| (0..2).all(|shard| cluster.primary_of(shard) != Some(*n))).unwrap();
    let counting = Counting::start(&cluster, at);
    for shard in [0, 1, 0] {
        cluster.hand_over(shard);
    }
    let all = even_slots(0, 2);
    let moving = SlotRange { first: all.first, last: all.last / 2 };
    for (from, to) in [(0, 1), (1, 0)] {
        cluster.wish(Change::Move { slots: vec![moving], from, to });
        cluster.until("the slots have moved", |c| {
            c.topology(0).is_some_and(|t| t.owner_of(&moving) == Some(to) && t.moves.is_empty())
        });
    }
    let mut client = client_at(&cluster, at);
    for (key, done, failed) in counting.stop() {
        assert_eq!(failed, Vec::<String>::new(), "{key}");
        assert!(done > 0, "{key}");
        assert_eq!(client.call(&["GET", &key]), done.to_string(), "{key}: each once");
    }
}

#[test]
fn a_primary_that_dies_loses_nothing_that_was_acknowledged_and_who_asks_again_goes_on() {
    let _alone = alone();
    let settings = [PLAIN[0], PLAIN[1], "--larder-durability", "quorum"];
    let mut cluster = Cluster::form(&[0, 1, 1, 1], 2, &settings);
    let victim = cluster.primary_of(1).unwrap();
    let at = 0;
    let counting = Counting::start(&cluster, at);
    cluster.nodes[victim].server.kill();
    cluster.until("another is primary", |c| c.primary_of(1).is_some_and(|n| n != victim));
    cluster.nodes[victim].restart();
    cluster.until("all are ready", |c| (0..4).all(|n| c.ready(n)));
    let mut client = client_at(&cluster, at);
    for (key, done, failed) in counting.stop() {
        // What was under way when it died; the rest waited, until the next one said that it has too few replicas.
        let is = |text: &'static str| failed.iter().filter(|f| f.contains(text)).count();
        let (unknown, refused) = (is("whether this was done is not known"), is("-NOREPLICAS"));
        assert_eq!(failed.len(), unknown + refused, "{key}: {:?}", failed.first());
        let count: u64 = client.call(&["GET", &key]).parse().unwrap();
        assert!((done..=done + unknown as u64).contains(&count), "{key}: {count} of {done}");
    }
}
