//! Members that follow each other, and real redis-servers on either side.

mod processes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use processes::{Client, Server, check_filled_readonly, fill};

fn follow(replica: &mut Client, primary: &Server) {
    replica.ok(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    replica.until_info("master_link_status", "up");
}

#[test]
fn a_replica_takes_the_data_set_and_every_write_after_it() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let primary = Server::start(dirs[0].path(), &[]);
    let replica = Server::start(dirs[1].path(), &[]);
    let (mut p, mut r) = (primary.client(), replica.client());
    fill(&mut p);
    follow(&mut r, &primary);
    check_filled_readonly(&mut r);
    assert!(r.call(&["SET", "x", "y"]).starts_with("-READONLY"));
    p.ok(&["MULTI"]);
    p.call(&["SET", "t1", "1"]);
    p.call(&["SET", "t2", "2"]);
    p.call(&["EXEC"]);
    assert_eq!(p.call(&["WAIT", "1", "10000"]), "1");
    assert_eq!(r.call(&["MGET", "t1", "t2"]), "1 2");
    assert!(p.call(&["ROLE"]).starts_with("master "));
    assert!(r.call(&["ROLE"]).starts_with("slave 127.0.0.1 "));
    r.ok(&["REPLICAOF", "NO", "ONE"]);
    r.ok(&["SET", "x", "y"]);
}

#[test]
fn a_cut_link_is_taken_up_where_it_broke() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let primary = Server::start(dirs[0].path(), &[]);
    let replica = Server::start(dirs[1].path(), &[]);
    let (mut p, mut r) = (primary.client(), replica.client());
    p.ok(&["SELECT", "2"]);
    p.ok(&["SET", "a", "1"]);
    follow(&mut r, &primary);
    p.ok(&["SET", "b", "2"]);
    assert_eq!(p.call(&["WAIT", "1", "10000"]), "1");
    p.call(&["CLIENT", "KILL", "TYPE", "replica"]);
    p.ok(&["SET", "c", "3"]);
    r.ok(&["SELECT", "2"]);
    r.until(&["GET", "c"], "3");
    p.until_info("sync_partial_ok", "1");
    assert_eq!(p.info("sync_full"), "1");
}

#[test]
fn a_chain_follows_its_head_through_a_promotion() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut members: Vec<Server> = dirs.iter().map(|d| Server::start(d.path(), &[])).collect();
    let mut clients: Vec<Client> = members.iter().map(Server::client).collect();
    fill(&mut clients[0]);
    follow(&mut clients[1], &members[0]);
    follow(&mut clients[2], &members[1]);
    clients[0].ok(&["SET", "end", "1"]);
    clients[2].until(&["GET", "end"], "1");
    check_filled_readonly(&mut clients[2]);
    let offset = clients[0].info("master_repl_offset");
    clients[2].until_info("master_repl_offset", &offset);
    members[0].kill();
    clients[1].ok(&["REPLICAOF", "NO", "ONE"]);
    clients[1].ok(&["SET", "end", "2"]);
    clients[2].until(&["GET", "end"], "2");
    // The promoted member remembers the old history: no full sync beyond the first.
    assert_eq!(clients[1].info("sync_full"), "1");
}

/// Who followed a replica before that one was promoted must not take the new history for the old one: it would let the former
/// primary go on with the stream in the middle, with writes of its own in place of those that it lacks.
#[test]
fn who_followed_a_replica_that_is_promoted_learns_of_the_new_history() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let members: Vec<Server> = dirs.iter().map(|d| Server::start(d.path(), &[])).collect();
    let mut clients: Vec<Client> = members.iter().map(Server::client).collect();
    let [former, promoted, next] = &mut clients[..] else { panic!("three were started") };
    former.ok(&["SET", "shared", "1"]);
    follow(promoted, &members[0]);
    follow(next, &members[1]);
    former.ok(&["SET", "shared", "2"]);
    next.until(&["GET", "shared"], "2");
    promoted.ok(&["REPLICAOF", "NO", "ONE"]);
    promoted.ok(&["SET", "of-the-promoted", "1"]);
    promoted.ok(&["SET", "more", &"x".repeat(1000)]);
    let replid = promoted.info("master_replid");
    next.until_info("master_replid", &replid);
    next.until_info("master_repl_offset", &promoted.info("master_repl_offset"));
    former.ok(&["SET", "of-the-former", "1"]);
    next.ok(&["REPLICAOF", "NO", "ONE"]);
    follow(former, &members[2]);
    former.until(&["GET", "of-the-promoted"], "1");
    assert_eq!(former.call(&["EXISTS", "of-the-former"]), "0");
}

#[test]
fn a_former_primary_gives_up_what_only_it_has_and_counts_it() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let old = Server::start(dirs[0].path(), &[]);
    let new = Server::start(dirs[1].path(), &[]);
    let (mut o, mut n) = (old.client(), new.client());
    o.ok(&["SET", "shared", "1"]);
    follow(&mut n, &old);
    o.ok(&["SET", "shared", "2"]);
    assert_eq!(o.call(&["WAIT", "1", "10000"]), "1");
    n.ok(&["REPLICAOF", "NO", "ONE"]);
    for i in 0..3 {
        o.ok(&["SET", &format!("lost:{i}"), "1"]);
    }
    n.ok(&["SET", "kept", "1"]);
    follow(&mut o, &new);
    o.until(&["GET", "kept"], "1");
    assert_eq!(o.call(&["EXISTS", "lost:0", "lost:1", "lost:2"]), "0");
    assert_eq!(o.info("larder_dropped_writes"), "3");
}

/// A script makes room before it runs; a replica's data set is its primary's, and so is what its journal has.
#[test]
fn a_script_on_a_replica_without_room_evicts_nothing_there() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let primary = Server::start(dirs[0].path(), &[]);
    let replica = Server::start(dirs[1].path(), &["--maxmemory-policy", "allkeys-random"]);
    let (mut p, mut r) = (primary.client(), replica.client());
    follow(&mut r, &primary);
    for i in 0..100 {
        p.ok(&["SET", &format!("key:{i}"), &"x".repeat(1000)]);
    }
    assert_eq!(p.call(&["WAIT", "1", "10000"]), "1");
    r.ok(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(r.call(&["EVAL", "#!lua flags=no-writes,allow-oom\nreturn 1", "0"]), "1");
    assert_eq!(r.call(&["DBSIZE"]), "100");
    let offset = p.info("master_repl_offset");
    r.until_info("master_repl_offset", &offset);
}

#[test]
fn a_restarted_replica_with_a_log_needs_no_full_sync() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let primary = Server::start(dirs[0].path(), &[]);
    let mut p = primary.client();
    fill(&mut p);
    let port = primary.port.to_string();
    let target = format!("127.0.0.1 {port}");
    let args = ["--appendonly", "yes", "--replicaof", "127.0.0.1", &port];
    assert!(target.ends_with(&port));
    let mut replica = Server::start(dirs[1].path(), &args);
    let mut r = replica.client();
    r.until_info("master_link_status", "up");
    r.until_info("aof_pending_rewrite", "0");
    r.until_info("aof_rewrite_in_progress", "0");
    let folder = dirs[1].path().join("appendonlydir");
    p.ok(&["SET", "more", "1"]);
    r.until(&["GET", "more"], "1");
    // The log counts once it has its base of the new data set.
    while r.info("aof_rewrites").parse::<u64>().unwrap_or(0) < 2 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(folder.exists());
    r.send(&["SHUTDOWN"]).unwrap();
    assert_eq!(replica.ended(), Some(0));
    p.ok(&["SET", "meanwhile", "1"]);
    let replica = Server::start(dirs[1].path(), &args);
    let mut r = replica.client();
    r.until(&["GET", "meanwhile"], "1");
    check_filled_readonly(&mut r);
    assert_eq!(p.info("sync_full"), "1");
}

#[test]
fn messages_reach_the_replica_and_what_is_published_there_stays_out_of_the_journal() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let primary = Server::start(dirs[0].path(), &[]);
    let replica = Server::start(dirs[1].path(), &[]);
    let (mut p, mut r) = (primary.client(), replica.client());
    follow(&mut r, &primary);
    let mut listener = replica.client();
    assert_eq!(listener.call(&["SSUBSCRIBE", "c"]), "ssubscribe c 1");
    assert_eq!(listener.call(&["SUBSCRIBE", "c"]), "subscribe c 1");
    assert_eq!(p.call(&["SPUBLISH", "c", "one"]), "0");
    assert_eq!(listener.reply().unwrap(), "smessage c one");
    assert_eq!(p.call(&["PUBLISH", "c", "two"]), "0");
    assert_eq!(listener.reply().unwrap(), "message c two");
    for word in ["SPUBLISH", "PUBLISH"] {
        assert_eq!(r.call(&[word, "c", "here"]), "1");
        assert!(listener.reply().unwrap().ends_with("message c here"));
    }
    p.ok(&["SET", "k", "v"]);
    assert_eq!(p.call(&["WAIT", "1", "10000"]), "1");
    assert_eq!(r.call(&["GET", "k"]), "v");
    assert_eq!(r.info("master_repl_offset"), p.info("master_repl_offset"));
}

#[test]
fn redis_follows_us_and_we_follow_redis() {
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let ours = Server::start(dirs[0].path(), &[]);
    let Some(redis) = Server::redis(dirs[1].path(), &[]) else { return };
    let (mut o, mut r) = (ours.client(), redis.client());
    fill(&mut o);
    follow(&mut r, &ours);
    check_filled_readonly(&mut r);
    o.ok(&["SET", "later", "1"]);
    o.call(&["ZADD", "zset2", "3", "m"]);
    assert_eq!(o.call(&["WAIT", "1", "10000"]), "1");
    assert_eq!(r.call(&["ZSCORE", "zset2", "m"]), "3");
    // And the other way round, with the history that it took from us.
    r.ok(&["REPLICAOF", "NO", "ONE"]);
    r.ok(&["SET", "mine", "1"]);
    follow(&mut o, &redis);
    o.until(&["GET", "mine"], "1");
    r.call(&["RPUSH", "list", "d"]);
    o.until(&["LRANGE", "list", "0", "-1"], "a b c d");
    assert_eq!(r.call(&["WAIT", "1", "10000"]), "1");
}

/// XINFO STREAM FULL without what is of one server alone: when it was asked, its index, what 7.0 does not tell.
fn stream_in_full(client: &mut Client) -> String {
    let text = client.call(&["XINFO", "STREAM", "s", "FULL", "COUNT", "0"]);
    let mut words = text.split(' ');
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if ["seen-time", "active-time", "radix-tree-nodes", "lag"].contains(&word) {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

#[test]
fn groups_of_consumers_are_the_same_on_replicas_of_either_kind_and_after_a_restart() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut primary = Server::start(dirs[0].path(), &["--appendonly", "yes"]);
    let replica = Server::start(dirs[1].path(), &[]);
    let redis = Server::redis(dirs[2].path(), &[]);
    let mut p = primary.client();
    let mut followers = vec![replica.client()];
    followers.extend(redis.as_ref().map(Server::client));
    p.call(&["XADD", "s", "1-1", "before", "1"]);
    followers.iter_mut().for_each(|follower| follow(follower, &primary));
    for line in [
        "XGROUP CREATE s g 0",
        "XGROUP CREATE other g $ MKSTREAM",
        "XADD s 2-* a 1",
        "XADD s MAXLEN ~ 100 3-1 a 1 b 2",
        "XADD s * a 1",
        "XREADGROUP GROUP g c1 COUNT 2 STREAMS s >",
        "XREADGROUP GROUP g idle STREAMS other >",
        "XREADGROUP GROUP g c2 NOACK COUNT 1 STREAMS s >",
        "XREADGROUP GROUP g c2 STREAMS s >",
        "XREADGROUP GROUP g c1 STREAMS s 0",
        "XCLAIM s g c3 0 1-1",
        "XCLAIM s g c3 0 3-1 FORCE JUSTID RETRYCOUNT 9 LASTID 4-0",
        "XADD s * a 1",
        "XDEL s 2-0",
        "XAUTOCLAIM s g c1 0 0 COUNT 5",
        "XACK s g 1-1",
        "XADD s MINID = 2 * a 1",
        "XTRIM s MAXLEN 3",
        "XGROUP CREATECONSUMER s g c4",
        "XGROUP DELCONSUMER s g c2",
        "XGROUP CREATE s g2 $",
        "XREADGROUP GROUP g c5 BLOCK 5 STREAMS s >",
        "XGROUP SETID s g2 3 ENTRIESREAD 3",
        "XSETID s 9999999999999-0 ENTRIESADDED 50",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let reply = p.call(&words);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    let count = followers.len().to_string();
    assert_eq!(p.call(&["WAIT", &count, "10000"]), count);
    let expected = stream_in_full(&mut p);
    for follower in &mut followers {
        assert_eq!(stream_in_full(follower), expected);
    }
    p.send(&["SHUTDOWN"]).unwrap();
    assert_eq!(primary.ended(), Some(0));
    let again = Server::start(dirs[0].path(), &["--appendonly", "yes"]);
    let mut p = again.client();
    assert_eq!(stream_in_full(&mut p), expected);
    // From the file that a rewrite makes, too.
    p.call(&["BGREWRITEAOF"]);
    p.until_info("aof_rewrite_in_progress", "0");
    assert_eq!(p.info("aof_last_bgrewrite_status"), "ok");
    drop(p);
    drop(again);
    let again = Server::start(dirs[0].path(), &["--appendonly", "yes"]);
    assert_eq!(stream_in_full(&mut again.client()), expected);
}

#[test]
fn waitaof_tells_when_writes_are_on_disks() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let primary = Server::start(dirs[0].path(), &["--appendonly", "yes"]);
    let replica = Server::start(dirs[1].path(), &[]);
    let (mut p, mut r) = (primary.client(), replica.client());
    for (args, expected) in [
        (["2", "0", "0"], "-ERR value is out of range, value must between 0 and 1"),
        (["x", "0", "0"], "-ERR value is not an integer or out of range"),
        (["0", "-1", "0"], "-ERR value is out of range, must be positive"),
        (["0", "0", "x"], "-ERR timeout is not an integer or out of range"),
        (["0", "0", "-1"], "-ERR timeout is negative"),
    ] {
        assert_eq!(p.call(&["WAITAOF", args[0], args[1], args[2]]), expected, "{args:?}");
    }
    p.ok(&["SET", "a", "1"]);
    assert_eq!(p.call(&["WAITAOF", "1", "0", "0"]), "1 0", "synced within a second");
    follow(&mut r, &primary);
    p.ok(&["SET", "a", "2"]);
    assert_eq!(p.call(&["WAIT", "1", "10000"]), "1");
    assert_eq!(
        p.call(&["WAITAOF", "0", "1", "50"]).split(' ').next_back(),
        Some("0"),
        "no log there"
    );
    r.ok(&["CONFIG", "SET", "appendonly", "yes"]);
    p.ok(&["SET", "a", "3"]);
    assert_eq!(p.call(&["WAITAOF", "1", "1", "0"]), "1 1");
    p.ok(&["CONFIG", "SET", "appendfsync", "always"]);
    p.ok(&["SET", "a", "4"]);
    assert_eq!(p.call(&["WAITAOF", "1", "0", "0"]), "1 0", "on disk before SET was answered");
    assert!(
        r.call(&["WAITAOF", "0", "0", "0"]).starts_with("-ERR WAITAOF cannot be used with replica")
    );
    p.ok(&["CONFIG", "SET", "appendfsync", "no"]);
    p.ok(&["SET", "a", "5"]);
    p.send(&["WAITAOF", "1", "0", "0"]).unwrap();
    let mut other = primary.client();
    other.until_info("blocked_clients", "1");
    other.ok(&["CONFIG", "SET", "appendonly", "no"]);
    // A log is on disk once it is closed: that is seen first, or that there is none any more.
    let told = p.reply().unwrap();
    assert!(
        told == "1 0" || told.contains("when numlocal is set but appendonly is disabled"),
        "{told}"
    );
    assert!(
        p.call(&["WAITAOF", "1", "0", "0"])
            .starts_with("-ERR WAITAOF cannot be used when numlocal")
    );
    // The replica's log would sync this write, too, sooner or later.
    r.ok(&["CONFIG", "SET", "appendonly", "no"]);
    r.until_info("aof_enabled", "0");
    p.ok(&["SET", "a", "6"]);
    assert_eq!(p.call(&["WAITAOF", "0", "0", "0"]), "0 0");
}

/// Its log was on disk up to a higher offset of its own history.
#[test]
fn a_replica_whose_log_holds_another_data_set_has_nothing_of_this_one_on_disk() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let primary = Server::start(dirs[0].path(), &[]);
    let args = ["--appendonly", "yes", "--appendfsync", "always"];
    let replica = Server::start(dirs[1].path(), &args);
    let (mut p, mut r) = (primary.client(), replica.client());
    r.ok(&["SET", "before", &"x".repeat(100_000)]);
    // It cannot begin a log of its new data set.
    let folder = dirs[1].path().join("appendonlydir");
    std::fs::remove_dir_all(&folder).unwrap();
    follow(&mut r, &primary);
    p.ok(&["SET", "a", "1"]);
    assert_eq!(p.call(&["WAIT", "1", "10000"]), "1");
    assert_eq!(p.call(&["WAITAOF", "0", "1", "300"]), "0 0");
    std::fs::create_dir(&folder).unwrap();
    assert_eq!(p.call(&["WAITAOF", "0", "1", "0"]), "0 1");
}

#[test]
fn a_client_in_wait_can_be_unblocked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let (mut waiting, mut other) = (server.client(), server.client());
    let id = waiting.call(&["CLIENT", "ID"]);
    assert_eq!(other.call(&["CLIENT", "UNBLOCK", &id]), "0", "it is not blocked");
    waiting.ok(&["SET", "a", "1"]);
    for (how, command, reply) in [
        ("TIMEOUT", &["WAIT", "1", "0"][..], "0"),
        ("TIMEOUT", &["WAITAOF", "0", "1", "0"], "0 0"),
        ("ERROR", &["WAIT", "1", "0"], "-UNBLOCKED client unblocked via CLIENT UNBLOCK"),
    ] {
        waiting.send(command).unwrap();
        other.until_info("blocked_clients", "1");
        assert_eq!(other.call(&["CLIENT", "UNBLOCK", &id, how]), "1");
        assert_eq!(waiting.reply().unwrap(), reply, "{command:?}");
        assert_eq!(other.info("blocked_clients"), "0");
    }
    assert_eq!(waiting.call(&["GET", "a"]), "1");
}

/// Writers who go on as long as it takes, each with its own counter: the last value that was acknowledged.
fn count_until(stop: &AtomicBool, ports: [u16; 2]) -> u64 {
    let mut clients: Vec<Client> = Vec::new();
    let (mut at, mut acknowledged) = (0, 0);
    while !stop.load(Ordering::Acquire) {
        if clients.is_empty() {
            clients = ports.map(|port| Client::try_connect(port).unwrap()).into();
        }
        match clients[at].try_call(&["INCR", "count"]) {
            Ok(reply) if !reply.starts_with('-') => acknowledged = reply.parse().unwrap(),
            _ => at = 1 - at,
        }
    }
    acknowledged
}

/// The first gives its place to the second, under load; nothing that was acknowledged is lost, and nothing is sent anew.
fn hands_over(old: &Server, new: &Server) {
    let (mut o, mut n) = (old.client(), new.client());
    o.ok(&["SET", "count", "0"]);
    follow(&mut n, old);
    o.until_info("connected_slaves", "1");
    o.until(&["WAIT", "1", "100"], "1");
    let stop = Arc::new(AtomicBool::new(false));
    let (stops, ports) = (stop.clone(), [old.port, new.port]);
    let writer = std::thread::spawn(move || count_until(&stops, ports));
    o.ok(&["FAILOVER", "TO", "127.0.0.1", &new.port.to_string(), "TIMEOUT", "20000"]);
    n.until_info("role", "master");
    o.until_info("master_link_status", "up");
    let before: u64 = n.call(&["GET", "count"]).parse().unwrap();
    while n.call(&["GET", "count"]).parse::<u64>().unwrap() < before + 100 {}
    stop.store(true, Ordering::Release);
    let acknowledged = writer.join().unwrap();
    assert_eq!(n.call(&["GET", "count"]).parse::<u64>().unwrap(), acknowledged);
    o.until_info("master_failover_state", "no-failover");
    assert_eq!(n.call(&["WAIT", "1", "10000"]), "1");
    assert_eq!(o.call(&["GET", "count"]), n.call(&["GET", "count"]));
    assert!(o.call(&["ROLE"]).starts_with("slave 127.0.0.1 "));
    assert_eq!(n.info("sync_full"), "0", "it went on where it was");
}

#[test]
fn failover_gives_the_place_of_a_primary_to_its_replica_under_load() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [0, 1].map(|i| Server::start(dirs[i].path(), &[]));
    hands_over(&one, &two);
    hands_over_again(&two, &one);
}

/// And back: the former primary is a replica by now.
fn hands_over_again(old: &Server, new: &Server) {
    let (mut o, mut n) = (old.client(), new.client());
    o.ok(&["FAILOVER"]);
    n.until_info("role", "master");
    o.until_info("master_link_status", "up");
    n.ok(&["SET", "after", "1"]);
    o.until(&["GET", "after"], "1");
}

#[test]
fn failover_works_with_a_redis_server_on_either_side() {
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let Some(redis) = Server::redis(dirs[0].path(), &[]) else { return };
    let larder = Server::start(dirs[1].path(), &[]);
    hands_over(&larder, &redis);
    let Some(redis) = Server::redis(dirs[2].path(), &[]) else { return };
    let larder = Server::start(dirs[3].path(), &[]);
    hands_over(&redis, &larder);
}

#[test]
fn failover_is_refused_or_called_off_and_the_primary_goes_on() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [0, 1].map(|i| Server::start(dirs[i].path(), &[]));
    let (mut p, mut r) = (one.client(), two.client());
    assert_eq!(p.call(&["FAILOVER"]), "-ERR FAILOVER requires connected replicas.");
    assert_eq!(p.call(&["FAILOVER", "ABORT"]), "-ERR No failover in progress.");
    follow(&mut r, &one);
    p.until_info("connected_slaves", "1");
    let port = two.port.to_string();
    for (words, why) in [
        (&["TO", "127.0.0.1", "1"][..], "-ERR FAILOVER target HOST and PORT is not a replica."),
        (&["TIMEOUT", "0"], "-ERR FAILOVER timeout must be greater than 0"),
        (
            &["TO", "127.0.0.1", &port, "FORCE"],
            "-ERR FAILOVER with force option requires both a timeout",
        ),
        (&["ABORT", "TIMEOUT", "5"], "-ERR syntax error"),
        (&["SIDEWAYS"], "-ERR syntax error"),
    ] {
        let reply = p.call(&[&["FAILOVER"], words].concat());
        assert!(reply.starts_with(why), "{words:?}: {reply}");
    }
    assert_eq!(r.call(&["FAILOVER"]), "-ERR FAILOVER is not valid when server is a replica.");
    // A replica that stands still never has all: the time ends it, or ABORT does.
    let stopped = |signal: &str| {
        let pid = two.pid().to_string();
        assert!(
            std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success()
        );
    };
    stopped("-STOP");
    p.ok(&["SET", "k", "1"]);
    p.ok(&["FAILOVER", "TIMEOUT", "300"]);
    assert_eq!(p.call(&["FAILOVER"]), "-ERR FAILOVER already in progress.");
    p.ok(&["SET", "k", "2"]);
    p.until_info("master_failover_state", "no-failover");
    p.ok(&["FAILOVER"]);
    p.until_info("master_failover_state", "waiting-for-sync");
    p.ok(&["FAILOVER", "ABORT"]);
    p.ok(&["SET", "k", "3"]);
    stopped("-CONT");
    r.until(&["GET", "k"], "3");
    assert!(p.call(&["ROLE"]).starts_with("master "));
}
