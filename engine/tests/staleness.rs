//! Reads of replicas with a bound: served while the replica is known to be no further behind, sent to the primary or
//! refused when it is not, whatever the link looks like.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "managed/cluster.rs"]
mod cluster;
mod managed;
mod processes;

use std::sync::atomic::{AtomicBool, Ordering};

use cluster::{Cluster, Follower};
use engine::topology::{Change, SlotRange};
use processes::{Client, Server};

/// Longer than anything in a test takes.
const LONG: &str = "3600000";

fn signal(server: &Server, name: &str) {
    let pid = server.pid().to_string();
    assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// Calls until the reply begins so.
fn until_begins(client: &mut Client, args: &[&str], with: &str) {
    for _ in 0..3000 {
        if client.call(args).starts_with(with) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{args:?} is never answered {with}");
}

#[test]
fn a_replica_whose_primary_hangs_refuses_reads_once_it_is_older_than_the_client_allows() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let primary = Server::start(dirs[0].path(), &[]);
    let port = primary.port.to_string();
    let replica = Server::start(dirs[1].path(), &["--replicaof", "127.0.0.1", &port]);
    // A replica of the replica: its link is up all the time.
    let port = replica.port.to_string();
    let last = Server::start(dirs[2].path(), &["--replicaof", "127.0.0.1", &port]);
    let mut p = primary.client();
    p.ok(&["SET", "k", "v"]);
    let mut clients = [replica.client(), last.client()];
    for r in &mut clients {
        r.until_info("master_link_status", "up");
        r.until(&["GET", "k"], "v");
        r.ok(&["READONLY", "MAXSTALE", "200"]);
        until_begins(r, &["GET", "k"], "v");
        assert!(r.info("larder_staleness_ms").parse::<i64>().unwrap() > 0);
    }
    // What was queued in time is not executed too late, and that nothing has come is no answer when it may have.
    let (mut queued, mut waiting) = (replica.client(), replica.client());
    for r in [&mut queued, &mut waiting] {
        r.ok(&["READONLY", "MAXSTALE", "200"]);
        until_begins(r, &["GET", "k"], "v");
    }
    queued.ok(&["MULTI"]);
    assert_eq!(queued.call(&["GET", "k"]), "QUEUED");
    waiting.send(&["XREAD", "BLOCK", "2000", "STREAMS", "s", "0"]).unwrap();
    signal(&primary, "-STOP");
    assert!(waiting.reply().unwrap().starts_with("-STALE The replica may be "));
    let late = queued.call(&["EXEC"]);
    assert!(late.contains("STALE The replica may be "), "{late}");
    for r in &mut clients {
        until_begins(r, &["GET", "k"], "-STALE The replica may be ");
        assert_eq!(r.info("master_link_status"), "up");
        assert!(r.call(&["SCAN", "0"]).starts_with("-STALE "));
        assert_eq!(r.call(&["PING"]), "PONG");
        r.ok(&["READONLY", "MAXSTALE", LONG]);
        assert_eq!(r.call(&["GET", "k"]), "v");
        r.ok(&["READONLY", "MAXSTALE", "200"]);
    }
    signal(&primary, "-CONT");
    for r in &mut clients {
        until_begins(r, &["GET", "k"], "v");
        // Who says no bound gets the one of the settings, which changes while the server runs.
        r.ok(&["READWRITE"]);
        r.ok(&["CONFIG", "SET", "larder-max-staleness-ms", "1"]);
        until_begins(r, &["GET", "k"], "-STALE ");
        r.ok(&["CONFIG", "SET", "larder-max-staleness-ms", "0"]);
        assert_eq!(r.call(&["GET", "k"]), "v");
    }
    assert_eq!(p.call(&["GET", "k"]), "v");
}

#[test]
fn a_reader_that_waits_is_not_answered_with_what_came_later_than_its_client_allows() {
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let primary = Server::start(dirs[0].path(), &[]);
    let port = primary.port.to_string();
    let replica = Server::start(dirs[1].path(), &["--replicaof", "127.0.0.1", &port]);
    let (mut p, mut other) = (primary.client(), replica.client());
    p.ok(&["SET", "k", "v"]);
    let mut waiting = ["200", LONG].map(|bound| {
        let mut r = replica.client();
        r.until_info("master_link_status", "up");
        r.ok(&["READONLY", "MAXSTALE", bound]);
        until_begins(&mut r, &["GET", "k"], "v");
        r.send(&["XREAD", "BLOCK", "0", "STREAMS", "s", "0"]).unwrap();
        r
    });
    other.until_info("blocked_clients", "2");
    // What comes meanwhile stays with the kernel until the replica goes on.
    signal(&replica, "-STOP");
    p.call(&["XADD", "s", "1-1", "f", "v"]);
    // It says so each second how far it is: one second behind it may be while nothing is wrong.
    for _ in 0..3000 {
        if p.info("slave0").contains("lag=2") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // And nobody tells it then that it is current again.
    signal(&primary, "-STOP");
    signal(&replica, "-CONT");
    let [bounded, patient] = &mut waiting;
    let late = bounded.reply().unwrap();
    assert!(late.starts_with("-STALE The replica may be "), "{late}");
    assert!(patient.reply().unwrap().contains("1-1"));
    signal(&primary, "-CONT");
}

#[test]
fn what_the_replica_is_told_is_no_part_of_the_stream() {
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let primary = Server::start(dirs[0].path(), &[]);
    let port = primary.port.to_string();
    let args = ["--replicaof", "127.0.0.1", &port, "--larder-max-staleness-ms", "20"];
    let replica = Server::start(dirs[1].path(), &args);
    let (mut p, mut r) = (primary.client(), replica.client());
    r.until_info("master_link_status", "up");
    // Transactions, large values and many small ones, while the replica asks every few milliseconds.
    let large = "x".repeat(300_000);
    for i in 0..200 {
        let i = i.to_string();
        p.ok(&["MULTI"]);
        p.call(&["INCR", "n"]);
        p.call(&["RPUSH", "l", &i]);
        p.call(&["EXEC"]);
        p.ok(&["SET", &format!("large:{}", i.len()), &large]);
    }
    assert_eq!(p.call(&["WAIT", "1", "20000"]), "1");
    let offset = p.info("master_repl_offset");
    r.until_info("master_repl_offset", &offset);
    until_begins(&mut r, &["GET", "n"], "200");
    until_begins(&mut r, &["LLEN", "l"], "200");
    assert_eq!(p.info("sync_full"), "1");
}

#[test]
fn a_redis_primary_vouches_for_nothing_and_is_followed_all_the_same() {
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let Some(primary) = Server::redis(dirs[0].path(), &[]) else { return };
    let port = primary.port.to_string();
    let replica = Server::start(dirs[1].path(), &["--replicaof", "127.0.0.1", &port]);
    let (mut p, mut r) = (primary.client(), replica.client());
    p.ok(&["SET", "k", "v"]);
    r.until(&["GET", "k"], "v");
    assert_eq!(r.info("larder_staleness_ms"), "-1");
    r.ok(&["READONLY", "MAXSTALE", LONG]);
    assert!(r.call(&["GET", "k"]).starts_with("-STALE How far the replica is behind is not known"));
}

#[test]
fn in_a_cluster_a_replica_that_is_too_old_sends_the_client_to_the_primary() {
    let cluster = Cluster::form(&[0, 0], 1, &[]);
    let primary = cluster.primary_of(0).unwrap();
    let [p, r] = [primary, 1 - primary].map(|n| cluster.nodes[n].member.port);
    let (mut to_primary, mut client) =
        (Client::try_connect(p).unwrap(), Client::try_connect(r).unwrap());
    to_primary.ok(&["SET", "k", "v"]);
    let moved = format!("-MOVED 7629 127.0.0.1:{p}");
    assert_eq!(client.call(&["GET", "k"]), moved);
    client.ok(&["READONLY"]);
    client.until(&["GET", "k"], "v");
    client.ok(&["READONLY", "MAXSTALE", LONG]);
    until_begins(&mut client, &["GET", "k"], "v");
    for wrong in
        [&["READONLY", "MAXSTALE", "0"][..], &["READONLY", "MAXSTALE"], &["READONLY", "1", "2"]]
    {
        assert!(client.call(wrong).starts_with("-ERR "), "{wrong:?}");
    }
    // Nobody is that close all the time.
    client.ok(&["READONLY", "MAXSTALE", "1"]);
    until_begins(&mut client, &["GET", "k"], &moved);
    assert_eq!(client.call(&["RESET"]), "RESET");
    assert_eq!(client.call(&["GET", "k"]), moved);
    client.ok(&["READONLY"]);
    assert_eq!(client.call(&["GET", "k"]), "v");
    client.ok(&["CONFIG", "SET", "larder-max-staleness-ms", "1"]);
    until_begins(&mut client, &["GET", "k"], &moved);
    // Of the primary nothing is asked.
    to_primary.ok(&["READONLY", "MAXSTALE", "1"]);
    assert_eq!(to_primary.call(&["GET", "k"]), "v");
}

#[test]
fn a_primary_whose_lease_has_ended_vouches_for_nothing() {
    let mut cluster = Cluster::form(&[0, 1, 2, 3, 3], 4, &[]);
    let primary = cluster.primary_of(3).unwrap();
    let replica = 3 + 4 - primary;
    let [p, r] = [primary, replica].map(|n| cluster.nodes[n].member.port);
    let (mut to_primary, mut client) =
        (Client::try_connect(p).unwrap(), Client::try_connect(r).unwrap());
    let key =
        (0..).map(|i| i.to_string()).find(|k| engine::topology::slot_of(k.as_bytes()) >= 3 * 4096);
    let key = key.unwrap();
    to_primary.ok(&["SET", &key, "v"]);
    client.ok(&["READONLY", "MAXSTALE", "500"]);
    until_begins(&mut client, &["GET", &key], "v");
    // Two of five are left: they reach each other, and nobody prolongs a lease.
    for n in 0..3 {
        cluster.nodes[n].server.kill();
    }
    until_begins(&mut to_primary, &["GET", &key], "-CLUSTERDOWN");
    until_begins(&mut client, &["GET", &key], "-MOVED");
    let before: i64 = client.info("larder_staleness_ms").parse().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let after: i64 = client.info("larder_staleness_ms").parse().unwrap();
    assert!(after >= before + 300, "{before} {after}");
    assert_eq!(client.info("master_link_status"), "up");
}

/// Reads all keys at one member, again and again: what it said of those that it answered for.
fn read_on(port: u16, keys: &[String], stop: &AtomicBool) -> (u64, Vec<String>) {
    let mut client = Client::try_connect(port).unwrap();
    client.ok(&["READONLY", "MAXSTALE", LONG]);
    let (mut found, mut wrong) = (0, Vec::new());
    for key in keys.iter().cycle() {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let reply = client.call(&["GET", key]);
        match reply.as_str() {
            "v" => found += 1,
            reply if reply.starts_with('-') => {}
            _ => wrong.push(format!("{key} on {port}: {reply}")),
        }
    }
    (found, wrong)
}

/// A replica learns later or sooner than its primary that a slot has come or gone. What it has not got yet, or has deleted with
/// its primary, is no answer to a client that allows it to be an hour behind.
#[test]
fn a_replica_says_of_no_key_that_it_is_not_there_while_its_slot_moves_to_and_fro() {
    let cluster = Cluster::form(&[0, 0, 1, 1], 2, &[]);
    let moving = SlotRange { first: 0, last: 4095 };
    let in_moving = |key: &String| moving.contains(engine::topology::slot_of(key.as_bytes()));
    let keys: Vec<String> = (0..2_000).map(|i| format!("k:{i}")).filter(in_moving).collect();
    let mut writer = Follower::new(cluster.ports());
    for key in &keys {
        assert_eq!(writer.call(key, &["SET", key, "v"]).unwrap(), "OK");
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = cluster
            .ports()
            .into_iter()
            .map(|port| {
                scope.spawn({
                    let (keys, stop) = (&keys, &stop);
                    move || read_on(port, keys, stop)
                })
            })
            .collect();
        for (from, to) in [(0, 1), (1, 0), (0, 1), (1, 0), (0, 1), (1, 0)] {
            cluster.wish(Change::Move { slots: vec![moving], from, to });
            cluster.until("the slots have moved", |c| {
                (0..c.nodes.len()).all(|n| {
                    c.topology(n)
                        .is_some_and(|t| t.owner_of(&moving) == Some(to) && t.moves.is_empty())
                })
            });
        }
        stop.store(true, Ordering::Release);
        for reader in readers {
            let (found, wrong) = reader.join().unwrap();
            assert!(wrong.is_empty(), "{} of {found}: {:?}", wrong.len(), wrong.first());
        }
    });
}

/// FLUSHALL deletes what is left of slots that have gone, and does not wait until replicas know of them: one that has got the
/// FLUSHALL, and not the topology, said of keys that another shard has that they are not there.
#[test]
fn a_replica_does_not_get_a_flush_before_it_knows_which_slots_have_gone() {
    let cluster = Cluster::form(&[0, 0, 1, 1], 2, &[]);
    let slots = vec![SlotRange { first: 0, last: 4095 }];
    let is_in = |key: &String| slots[0].contains(engine::topology::slot_of(key.as_bytes()));
    let keys: Vec<String> = (0..200).map(|i| format!("k:{i}")).filter(is_in).collect();
    let mut writer = Follower::new(cluster.ports());
    for key in &keys {
        assert_eq!(writer.call(key, &["SET", key, "v"]).unwrap(), "OK");
    }
    for (from, to) in [(0, 1), (1, 0), (0, 1), (1, 0)] {
        let primaries = [0, 1].map(|shard| cluster.primary_of(shard).unwrap());
        let source = primaries[from as usize];
        let shard = |n: &usize| cluster.nodes[*n].member.shard == Some(from);
        let replica = (0..4).filter(shard).find(|n| *n != source).unwrap();
        let mut reader = Client::try_connect(cluster.ports()[replica]).unwrap();
        reader.ok(&["READONLY", "MAXSTALE", LONG]);
        cluster.wish(Change::Move { slots: slots.clone(), from, to });
        cluster.until("the source holds the slots no more", |c| {
            // It is stopped only once it has all that was there before the move.
            let topology = c.topology(source).unwrap();
            if !topology.moves.is_empty() {
                signal(&c.nodes[replica].server, "-STOP");
            }
            topology.owner_of(&slots[0]) == Some(to)
        });
        Client::try_connect(cluster.ports()[source]).unwrap().ok(&["FLUSHALL"]);
        let replies = std::thread::scope(|scope| {
            let reading = scope
                .spawn(|| keys.iter().map(|key| reader.call(&["GET", key])).collect::<Vec<_>>());
            signal(&cluster.nodes[replica].server, "-CONT");
            reading.join().unwrap()
        });
        let wrong = |reply: &&String| *reply != "v" && !reply.starts_with('-');
        assert_eq!(replies.iter().find(wrong), None, "of {} keys", keys.len());
        cluster.until("all know who has the slots", |c| {
            (0..4).all(|n| {
                c.topology(n)
                    .is_some_and(|t| t.owner_of(&slots[0]) == Some(to) && t.moves.is_empty())
            })
        });
    }
}
