//! Scripts and functions where there is more than one server: slots, replicas, a primary that changes.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "managed/cluster.rs"]
mod cluster;
mod managed;
mod processes;

use cluster::{Cluster, Follower};
use engine::topology::{Change, SlotRange};
use processes::{Client, Server};

/// Slots: `a` 15495, `b` 3300, `c` 7365. All but that of `b` are here.
fn owns_most(server: &Server) -> Client {
    let mut client = server.client();
    client.ok(&["CLUSTER", "ADDSLOTSRANGE", "0", "3299", "3301", "16383"]);
    client.ok(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    client.until(&["SET", "a", "1"], "OK");
    client.ok(&["SET", "c", "1"]);
    client
}

const CROSSING: &str = "redis.call('set', 'a', 1) return redis.call('set', 'c', 1)";

#[test]
fn scripts_keep_to_slots_as_in_redis() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let more = ["--cluster-enabled", "yes"];
    let Some(redis) = Server::redis(dirs[0].path(), &more) else { return };
    let ours = Server::start(dirs[1].path(), &more);
    let (mut theirs, mut ours) = (owns_most(&redis), owns_most(&ours));
    let flagged = |flags: &str| format!("#!lua{flags}\n{CROSSING}");
    let library = "#!lua name=cross\n\
        local function f() redis.call('set', 'a', 1) return redis.call('set', 'c', 1) end\n\
        redis.register_function('keeps', f)\n\
        redis.register_function{function_name='crosses', callback=f, flags={'allow-cross-slot-keys'}}\n\
        redis.register_function{function_name='alone', callback=f, flags={'no-cluster'}}";
    for words in [
        vec!["EVAL", "return 1", "2", "a", "c"],
        vec!["EVAL", "return redis.call('get', KEYS[1])", "1", "a"],
        vec!["EVAL", "return redis.call('get', KEYS[1])", "1", "b"],
        vec!["EVAL", "return redis.call('get', 'a')", "0"],
        vec!["EVAL", "return redis.call('get', 'b')", "0"],
        vec!["EVAL", "return redis.pcall('get', 'b')", "1", "a"],
        vec!["EVAL", "return redis.call('mget', 'a', 'c')", "0"],
        vec!["EVAL", CROSSING, "0"],
        vec!["EVAL", CROSSING, "1", "a"],
        vec!["EVAL", &flagged(""), "0"],
        vec!["EVAL", &flagged(""), "1", "a"],
        vec!["EVAL", &flagged(""), "1", "c"],
        vec!["EVAL", &flagged(" flags=allow-cross-slot-keys"), "1", "a"],
        vec!["EVAL", &flagged(" flags=no-cluster"), "1", "a"],
        vec!["FUNCTION", "LOAD", library],
        vec!["FCALL", "keeps", "0"],
        vec!["FCALL", "keeps", "1", "a"],
        vec!["FCALL", "crosses", "1", "a"],
        vec!["FCALL", "alone", "1", "a"],
        vec!["FCALL", "keeps", "1", "b"],
    ] {
        assert_eq!(ours.call(&words), theirs.call(&words), "{words:?}");
    }
}

#[test]
fn a_replica_that_may_not_serve_what_is_stale_runs_what_may() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut primary = Server::start(dirs[0].path(), &[]);
    let more = ["--replica-serve-stale-data", "no"];
    let Some(redis) = Server::redis(dirs[1].path(), &more) else { return };
    let ours = Server::start(dirs[2].path(), &more);
    let library = "#!lua name=reads\n\
        redis.register_function{function_name='reads', callback=function() return redis.call('get', 'k') end, flags={'no-writes'}}\n\
        redis.register_function{function_name='stale', callback=function() return 'stale' end, flags={'no-writes', 'allow-stale'}}";
    let mut client = primary.client();
    client.ok(&["SET", "k", "v"]);
    assert_eq!(client.call(&["FUNCTION", "LOAD", library]), "reads");
    let mut replicas = [ours.client(), redis.client()];
    for replica in &mut replicas {
        assert_eq!(replica.call(&["GET", "k"]), "(nil)");
        replica.ok(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
        replica.until_info("master_link_status", "up");
        assert_eq!(replica.call(&["EVAL_RO", "return redis.call('get', 'k')", "1", "k"]), "v");
        assert_eq!(replica.call(&["FCALL_RO", "reads", "0"]), "v");
        let refused = replica.call(&["EVAL", "return redis.call('set', 'k', 1)", "1", "k"]);
        assert!(refused.starts_with("-READONLY You can't write against a read only"), "{refused}");
    }
    primary.kill();
    for words in [
        vec!["GET", "k"],
        vec!["SET", "k", "w"],
        vec!["DBSIZE"],
        vec!["EVAL", "return 1", "0"],
        vec!["EVAL", "return redis.call('get', 'k')", "1", "k"],
        vec!["EVAL", "return redis.call('set', 'k', 1)", "1", "k"],
        vec!["EVAL", "return #redis.call('time')", "0"],
        vec!["EVAL", "#!lua\nreturn 1", "0"],
        vec!["EVAL", "#!lua flags=no-writes\nreturn 1", "0"],
        vec!["EVAL", "#!lua flags=allow-stale\nreturn 1", "0"],
        vec!["EVAL", "#!lua flags=no-writes,allow-stale\nreturn 1", "0"],
        vec!["EVAL", "#!lua flags=no-writes,allow-stale\nreturn redis.call('get', 'k')", "1", "k"],
        vec!["FCALL_RO", "reads", "0"],
        vec!["FCALL_RO", "stale", "0"],
        vec!["FUNCTION", "LIST"],
    ] {
        let [ours, theirs] = &mut replicas;
        if words[0] == "GET" {
            // Both have to see that it is gone.
            let down =
                "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
            ours.until(&words, down);
            theirs.until(&words, down);
        }
        assert_eq!(ours.call(&words), theirs.call(&words), "{words:?}");
    }
}

/// Counts up for so many milliseconds; how far it has come.
const COUNTS: &str = "local function now() local t = redis.call('time') return t[1] * 1e3 + t[2] / 1e3 end \
    local n, ends = 0, now() + ARGV[1] \
    repeat n = redis.call('incr', KEYS[1]) until now() > ends return n";

#[test]
fn what_a_script_has_written_while_the_primary_changes_is_there_afterwards() {
    let cluster = Cluster::form(&[0, 0, 0], 1, &[]);
    let mut follower = Follower::new(cluster.ports());
    for round in 0..3 {
        let old = cluster.primary_of(0).unwrap();
        let new = (old + 1) % 3;
        cluster.until("the replica has everything", |c| c.ready(new));
        let key = format!("n{round}");
        let mut client = Client::try_connect(cluster.ports()[old]).unwrap();
        client.send(&["EVAL", COUNTS, "1", &key, "400"]).unwrap();
        // It is answered before it is decided, and not granted while the council has not heard that the replica is in sync.
        cluster.until("the replica takes over", |c| {
            Client::try_connect(c.ports()[new]).unwrap().call(&["CLUSTER", "FAILOVER"]);
            c.primary_of(0) == Some(new) && c.ready(new)
        });
        let kept = follower.call(&key, &["GET", &key]).unwrap();
        // It has either answered, and all of it is there, or it was not run.
        match client.reply() {
            Ok(reply) if reply.parse::<u64>().is_ok() => assert_eq!(kept, reply),
            other => assert_eq!(kept, "(nil)", "{other:?}"),
        }
        assert!(follower.call(&key, &["EVAL", COUNTS, "1", &key, "1"]).is_ok());
    }
}

/// A library with one function of one text.
fn library(name: &str, function: &str, text: &str) -> String {
    format!(
        "#!lua name={name}\nredis.register_function('{function}', function(keys) \
         return redis.call('get', keys[1]) .. '{text}' end)"
    )
}

#[test]
fn a_shard_that_takes_slots_in_has_the_functions_of_the_shard_that_gave_them() {
    let mut cluster = Cluster::form(&[0, 1, 2, 2], 2, &[]);
    let client =
        |c: &Cluster, shard| Client::try_connect(c.ports()[c.primary_of(shard).unwrap()]).unwrap();
    let (mut source, mut target) = (client(&cluster, 0), client(&cluster, 2));
    let load = |client: &mut Client, name: &str, function: &str, text: &str| {
        let loaded = client.call(&["FUNCTION", "LOAD", &library(name, function, text)]);
        assert_eq!(loaded, name);
    };
    for (name, function) in [("one", "first"), ("both", "second"), ("away", "third")] {
        load(&mut source, name, function, " of the source");
    }
    load(&mut target, "both", "second", " of the target");
    // A function's name that another library has: that one is not taken in, and nothing ends by it.
    load(&mut target, "here", "third", " of the target");
    let mut follower = Follower::new(cluster.ports());
    // Slot 5061.
    assert_eq!(follower.call("bar", &["SET", "bar", "value"]).unwrap(), "OK");
    let moving = SlotRange { first: 5000, last: 5100 };
    cluster.wish(Change::Move { slots: vec![moving], from: 0, to: 2 });
    cluster.until("the slots have moved", |c| {
        (0..4).all(|n| c.topology(n).is_some_and(|t| t.owner_of(&moving) == Some(2)))
    });
    let called = [
        ("first", "value of the source"),
        ("second", "value of the target"),
        ("third", "value of the target"),
    ];
    let check = |target: &mut Client| {
        for (function, reply) in called {
            assert_eq!(target.call(&["FCALL", function, "1", "bar"]), reply, "{function}");
        }
        let stats = target.call(&["FUNCTION", "STATS"]);
        assert!(stats.ends_with("libraries_count 3 functions_count 3"), "{stats}");
    };
    check(&mut target);
    let old = cluster.primary_of(2).unwrap();
    let log = cluster.nodes[old].dir.join(format!("{}.log", cluster.ports()[old]));
    let said = std::fs::read_to_string(log).unwrap();
    let collides = |line: &str| line.contains("library=away") && line.contains("Function third");
    assert!(said.lines().any(collides), "{said}");

    let new = if old == 2 { 3 } else { 2 };
    cluster.until("the replica has everything", |c| c.ready(new));
    cluster.nodes[old].server.kill();
    cluster.until("the replica takes over", |c| c.primary_of(2) == Some(new));
    let mut target = client(&cluster, 2);
    target.until(&["GET", "bar"], "value");
    check(&mut target);
}

/// Two scripts that have both written reach for what the other one holds: nothing hangs, and no more than one of the
/// two is told that it came too late.
#[test]
fn of_two_scripts_that_reach_for_each_others_keys_one_goes_on_at_least() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--io-threads", "3"]);
    let script = format!(
        "redis.call('set', KEYS[1], 'written') \
         if ARGV[2] == '' then return 'keeps' end \
         local function count() {} end \
         KEYS[1] = '{{' .. KEYS[1] .. '}}n' count() \
         return redis.call('set', ARGV[2], 'reached')",
        COUNTS.replace("ARGV[1]", "300")
    );
    let mut clients: Vec<Client> = (0..6).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.call(&["EVAL", &script, "1", "a", "0", ""]), "keeps");
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let [own, other] = if n % 2 == 0 { ["a", "b"] } else { ["b", "a"] };
        client.send(&["EVAL", &script, "1", own, "0", other]).unwrap();
    }
    let late = "-ERR Script attempted to access a key that it had not declared, while another script held it";
    let replies: Vec<String> = clients.iter_mut().map(|c| c.reply().unwrap()).collect();
    assert!(replies.iter().all(|r| r == "OK" || r.starts_with(late)), "{replies:?}");
    // Of six there are three such pairs, one after the other or at once.
    let reached = replies.iter().filter(|r| *r == "OK").count();
    assert!(reached >= replies.len() / 2, "{replies:?}");
    assert!(["reached", "written"].contains(&server.client().call(&["GET", "a"]).as_str()));
}
