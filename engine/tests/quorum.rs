//! `durability: Quorum` on real managed servers: whoever dies, what was acknowledged is there, and where a
//! majority is missing nothing is acknowledged.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "managed/cluster.rs"]
mod cluster;
mod managed;
mod processes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cluster::{Cluster, Follower};
use engine::bus::{Answer, Ask};
use engine::topology::{Change, Lineage, SlotRange, even_slots, slot_of};
use processes::Client;

const QUORUM: &[&str] = &["--larder-durability", "quorum"];

fn key_in(range: SlotRange, salt: &str) -> String {
    (0..).map(|i| format!("{salt}:{i}")).find(|k| range.contains(slot_of(k.as_bytes()))).unwrap()
}

#[test]
fn what_a_member_refuses_for_a_reason_of_its_own_is_counted() {
    let cluster = Cluster::form(&[0, 0, 0], 1, &[]);
    let n = cluster.primary_of(0).unwrap();
    let counted = || match cluster.try_ask(n, Ask::Report) {
        Some(Answer::Report { report, .. }) => (report.requests, report.faults),
        other => panic!("{other:?}"),
    };
    let mut client = Client::try_connect(cluster.ports()[n]).unwrap();
    client.ok(&["SET", "k", "v"]);
    let (requests, faults) = counted();
    client.ok(&["CONFIG", "SET", "maxmemory", "1"]);
    for _ in 0..3 {
        assert!(client.call(&["SET", "k", "v"]).starts_with("-OOM"));
    }
    // What clients do wrong, or have to look for elsewhere, is no fault of the member.
    for (words, error) in [
        (&["LPUSH", "k", "v"][..], "-OOM"),
        (&["LRANGE", "k", "0", "1"], "-WRONGTYPE"),
        (&["NOTHING"], "-ERR unknown command"),
    ] {
        let reply = client.call(words);
        assert!(reply.starts_with(error), "{words:?}: {reply}");
    }
    let after = counted();
    assert!(after.0 >= requests + 7, "{after:?} after {requests}");
    assert_eq!(after.1, faults + 4);
    client.ok(&["CONFIG", "RESETSTAT"]);
    assert_eq!(counted().1, 0);
}

const ALONE: &[&str] = &["--larder-durability", "quorum", "--larder-min-in-sync", "1"];
const TWO: &[&str] = &["--larder-durability", "quorum", "--larder-min-in-sync", "2"];

#[test]
fn no_acknowledged_write_is_lost_whichever_primary_is_killed() {
    for durability in [QUORUM, ALONE, TWO] {
        nothing_is_lost(durability);
    }
}

fn nothing_is_lost(durability: &[&str]) {
    let mut cluster = Cluster::form(&[0, 0, 0], 1, durability);
    let stop = Arc::new(AtomicBool::new(false));
    let acks = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..4)
        .map(|t| {
            let (stop, acks, ports) = (stop.clone(), acks.clone(), cluster.ports());
            std::thread::spawn(move || count(&stop, &acks, ports, t))
        })
        .collect();
    for _ in 0..4 {
        let goal = acks.load(Ordering::Acquire) + 250;
        cluster.until("writes go on", |_| acks.load(Ordering::Acquire) >= goal);
        let primary = cluster.primary_of(0).unwrap();
        cluster.nodes[primary].restart();
        // It may be its own successor: it is back at once, and has a write that nobody else had yet.
        cluster.until("a primary", |c| c.primary_of(0).is_some());
        cluster.until("everybody serves", |c| (0..3).all(|n| c.ready(n)));
    }
    stop.store(true, Ordering::Release);
    let mut client = Follower::new(cluster.ports());
    for writer in writers {
        for (key, acknowledged) in writer.join().unwrap() {
            let now: u64 = client.call(&key, &["GET", &key]).unwrap().parse().unwrap();
            assert!(now >= acknowledged, "{key}: {now} of {acknowledged} acknowledged");
        }
    }
}

/// Counts keys up until it is stopped; gives what was acknowledged.
fn count(
    stop: &AtomicBool,
    acks: &AtomicU64,
    ports: Vec<u16>,
    thread: usize,
) -> BTreeMap<String, u64> {
    let mut client = Follower::new(ports.clone());
    let mut acknowledged = BTreeMap::new();
    for round in 0u64.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let key = format!("count:{thread}:{}", round % 50);
        match client.call(&key, &["INCR", &key]) {
            Ok(reply) if !reply.starts_with('-') => {
                acknowledged.insert(key, reply.parse().unwrap());
                acks.fetch_add(1, Ordering::AcqRel);
            }
            _ => {
                // Whoever is asked first may be the one that is gone.
                let mut others = ports.clone();
                others.rotate_left(round as usize % ports.len());
                client = Follower::new(others);
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    acknowledged
}

#[test]
fn without_a_majority_writes_are_refused_and_reads_go_on() {
    let mut cluster = Cluster::form(&[0, 0, 1, 1, 1], 2, QUORUM);
    let mut client = Follower::new(cluster.ports());
    let here = key_in(even_slots(0, 2), "here");
    let there = key_in(even_slots(1, 2), "there");
    for key in [&here, &there] {
        assert_eq!(client.call(key, &["SET", key, "1"]).unwrap(), "OK");
    }
    let primary = cluster.primary_of(0).unwrap();
    let replica = 1 - primary;
    cluster.nodes[replica].server.kill();
    let refused = "-NOREPLICAS Not enough good replicas to write.";
    cluster.until("writes are refused", |c| {
        Follower::new(c.ports()).call(&here, &["SET", &here, "2"]).is_ok_and(|r| r == refused)
    });
    let mut client = Follower::new(cluster.ports());
    assert_eq!(client.call(&there, &["SET", &there, "2"]).unwrap(), "OK");
    assert_eq!(client.call(&there, &["GET", &there]).unwrap(), "2");
    let other = key_in(even_slots(0, 2), "other");
    assert_eq!(client.call(&other, &["GET", &other]).unwrap(), "(nil)");
    cluster.nodes[replica].restart();
    cluster.until("writes are taken again", |c| {
        Follower::new(c.ports()).call(&here, &["SET", &here, "3"]).is_ok_and(|r| r == "OK")
    });
    assert_eq!(Follower::new(cluster.ports()).call(&here, &["GET", &here]).unwrap(), "3");
}

/// It hangs, or its network does: its link stays, and the writes that began meanwhile are of unknown end. Those that come later
/// must not wait for it.
#[test]
fn a_replica_that_falls_silent_has_writes_refused_as_one_that_is_gone() {
    for durability in [QUORUM, TWO] {
        let cluster = Cluster::form(&[0, 0, 1, 1, 1], 2, durability);
        let key = key_in(even_slots(0, 2), "here");
        cluster.until("a write", |c| answers(c, &key, &["SET", &key, "1"], "OK"));
        let replica = 1 - cluster.primary_of(0).unwrap();
        cluster.nodes[replica].server.signal("-STOP");
        let refused = "-NOREPLICAS Not enough good replicas to write.";
        cluster.until("writes are refused", |c| answers(c, &key, &["SET", &key, "2"], refused));
        cluster.nodes[replica].server.signal("-CONT");
        cluster.until("writes are taken again", |c| answers(c, &key, &["SET", &key, "3"], "OK"));
    }
}

/// Its data set is loaded, and the topology on its disk still says that it is primary; what others have done since it cannot
/// know.
#[test]
fn a_primary_that_was_restarted_and_hears_nobody_answers_for_no_key() {
    let mut cluster = Cluster::form(&[0, 0, 0], 1, QUORUM);
    assert!(answers(&cluster, "k", &["SET", "k", "v"], "OK"));
    let primary = cluster.primary_of(0).unwrap();
    cluster.nodes.iter_mut().for_each(|node| node.server.kill());
    cluster.nodes[primary].restart();
    let port = cluster.ports()[primary];
    let ask = |args: &[&str]| Client::try_connect(port).and_then(|mut c| c.try_call(args));
    cluster.until("its data are loaded", |_| ask(&["DBSIZE"]).is_ok_and(|n| n == "1"));
    let reply = ask(&["GET", "k"]).unwrap();
    assert!(reply.starts_with("-CLUSTERDOWN"), "{reply}");
}

/// The file beside the log is written when a new epoch is heard of; what came before that may not have got into the log, and
/// who has it must not lose against who only knows the epoch.
#[test]
fn a_restarted_member_tells_the_epoch_that_its_log_has_come_to() {
    let mut cluster = Cluster::form(&[0, 0, 0], 1, QUORUM);
    assert!(answers(&cluster, "k", &["SET", "k", "v"], "OK"));
    let replica = (0..3).find(|n| cluster.primary_of(0) != Some(*n)).unwrap();
    cluster.nodes.iter_mut().for_each(|node| node.server.kill());
    let file = cluster.nodes[replica].dir.join("appendonlydir/lineage.json");
    let told: Lineage = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let ahead = Lineage { epoch: told.epoch + 1, ..told.clone() };
    std::fs::write(&file, serde_json::to_vec(&ahead).unwrap()).unwrap();
    cluster.nodes[replica].restart();
    cluster.until("its data are loaded", |c| match c.try_ask(replica, Ask::Report) {
        Some(Answer::Report { report, .. }) => {
            let lineage = report.lineage.filter(|_| !report.loading);
            lineage.is_some_and(|lineage| {
                assert_eq!(lineage.epoch, told.epoch);
                true
            })
        }
        _ => false,
    });
}

/// An old primary that holds its clients asks its successor: it may send them on once that one holds them, too.
#[test]
fn a_primary_tells_how_far_it_is_in_its_reign() {
    let cluster = Cluster::form(&[0, 0], 1, QUORUM);
    assert!(answers(&cluster, "k", &["SET", "k", "v"], "OK"));
    let primary = cluster.primary_of(0).unwrap();
    let epoch = cluster.topology(primary).unwrap().shards[&0].epoch;
    let ask = |n: usize, epoch: &str| {
        let mut client = Client::try_connect(cluster.ports()[n]).unwrap();
        client.try_call(&["REPLCONF", "larder-reign", epoch]).unwrap()
    };
    let told = |n: usize, epoch: u64| ask(n, &epoch.to_string());
    assert!(ask(primary, "x").starts_with("-ERR value is not an integer"));
    assert_eq!(told(primary, epoch), "begun");
    assert_eq!(told(primary, epoch - 1), "begun", "it is followed whoever was primary before");
    assert_eq!(told(primary, epoch + 1), "unknown");
    assert_eq!(told(1 - primary, epoch), "unknown", "it is not the primary");
}

/// More than what the system keeps for a connection whose other end does not read, bytes.
const FILL_BYTES: usize = 16 << 20;

/// A write that nobody else has waits for replicas when its primary is replaced. Should that one soon be primary again, with the
/// data of its successor, then replicas are at a higher offset, and it is not acknowledged all the same.
#[test]
fn what_was_dropped_is_not_acknowledged_when_its_primary_is_primary_again() {
    let cluster = Cluster::form(&[0, 0, 0], 1, QUORUM);
    let first = cluster.primary_of(0).unwrap();
    let others: Vec<usize> = (0..3).filter(|n| *n != first).collect();
    let port = cluster.ports()[first];
    let mut writer = Client::try_connect(port).unwrap();
    others.iter().for_each(|n| cluster.nodes[*n].server.signal("-STOP"));
    // Ahead of it so much that none of it leaves this process.
    writer.send(&["SET", "filler", &"x".repeat(FILL_BYTES)]).unwrap();
    writer.send(&["SET", "dropped", "1"]).unwrap();
    cluster.until("both are executed", |_| {
        Client::try_connect(port).unwrap().call(&["DBSIZE"]) == "2"
    });
    cluster.nodes[first].server.signal("-STOP");
    others.iter().for_each(|n| cluster.nodes[*n].server.signal("-CONT"));
    let is_led = |c: &Cluster, n: usize| {
        let primary = c.topology(n).and_then(|t| t.shards[&0].primary.clone());
        primary.is_some_and(|id| id != c.nodes[first].member.id)
    };
    cluster.until("a successor", |c| others.iter().all(|n| is_led(c, *n)));
    cluster.nodes[first].server.signal("-CONT");
    cluster.until("it follows", |c| is_led(c, first) && c.ready(first));
    cluster.until("it is primary again", |c| {
        Client::try_connect(port).unwrap().call(&["CLUSTER", "FAILOVER"]);
        c.primary_of(0) == Some(first)
    });
    // The journal comes to where it was, and further.
    let more = "x".repeat(FILL_BYTES + 1000);
    cluster.until("a write", |c| answers(c, "after", &["SET", "after", &more], "OK"));
    assert!(answers(&cluster, "dropped", &["GET", "dropped"], "(nil)"));
    let reply = writer.reply();
    assert!(reply.is_err(), "{reply:?}");
}

fn answers(cluster: &Cluster, key: &str, args: &[&str], reply: &str) -> bool {
    Follower::new(cluster.ports()).call(key, args).is_ok_and(|r| r == reply)
}

#[test]
fn a_shard_of_two_goes_on_alone_where_it_may_and_whoever_was_left_out_does_not_take_over() {
    let mut cluster = Cluster::form(&[0, 0, 1, 1, 1], 2, ALONE);
    let key = key_in(even_slots(0, 2), "here");
    cluster.until("a write", |c| answers(c, &key, &["SET", &key, "both"], "OK"));
    let primary = cluster.primary_of(0).unwrap();
    let replica = 1 - primary;
    cluster.nodes[replica].server.kill();
    cluster.until("a write alone", |c| answers(c, &key, &["SET", &key, "alone"], "OK"));
    cluster.nodes[primary].server.kill();
    // Who was left out is back first, and heard; the data set is another's.
    cluster.nodes[replica].restart();
    let left_out = cluster.nodes[replica].member.id.clone();
    cluster.until("it hears that it was left out", |c| {
        c.topology(replica).is_some_and(|t| !t.shards[&0].in_sync.contains_key(&left_out))
    });
    assert_eq!(cluster.nodes[replica].server.client().info("larder_in_sync"), "0");
    cluster.nodes[primary].restart();
    cluster.until("the last write", |c| answers(c, &key, &["GET", &key], "alone"));
    cluster.until("both again", |c| (0..2).all(|n| c.ready(n)));
    cluster.until("both may be promoted", |c| {
        (0..2).all(|n| c.nodes[n].server.client().info("larder_in_sync") == "1")
    });
}

#[test]
fn a_replica_that_is_asked_to_end_holds_nobody_up() {
    let mut cluster = Cluster::form(&[0, 0, 1, 1, 1], 2, ALONE);
    let key = key_in(even_slots(0, 2), "here");
    cluster.until("a write", |c| answers(c, &key, &["SET", &key, "0"], "OK"));
    let primary = cluster.primary_of(0).unwrap();
    cluster.nodes[1 - primary].server.terminate();
    // It has left the set before it ended, so that this one waits for nobody.
    let view = cluster.topology(primary).unwrap();
    assert_eq!(view.shards[&0].in_sync.len(), 1, "{:?}", view.shards[&0]);
    assert!(answers(&cluster, &key, &["SET", &key, "1"], "OK"));
}

/// The primary and the one that leaves were the majority that had acknowledged; the third one lags. Let go at once, it would
/// have left a shard of two of which that third one is half: enough to be promoted without those writes.
#[test]
fn a_replica_does_not_leave_before_the_others_have_what_it_acknowledged() {
    let mut cluster = Cluster::form(&[0, 0, 0, 1, 1], 2, QUORUM);
    let key = key_in(even_slots(0, 2), "here");
    let primary = cluster.primary_of(0).unwrap();
    let (leaver, other) = ((primary + 1) % 3, (primary + 2) % 3);
    let leave = Change::Leave { member: cluster.nodes[leaver].member.id.clone() };
    let wish = Ask::Wish { change: leave.clone(), expected_epoch: None };
    cluster.nodes[other].server.signal("-STOP");
    cluster.until("a write", |c| answers(c, &key, &["SET", &key, "1"], "OK"));
    match cluster.try_ask(primary, wish) {
        Some(Answer::Refused { reason }) => assert!(reason.contains("no majority"), "{reason}"),
        answer => panic!("{answer:?}"),
    }
    let view = cluster.topology(primary).unwrap();
    assert!(view.members.contains_key(&cluster.nodes[leaver].member.id));
    cluster.nodes[other].server.signal("-CONT");
    cluster.wish(leave);
    let view = cluster.topology(primary).unwrap();
    assert_eq!(view.shards[&0].electors.len(), 2, "{:?}", view.shards[&0]);
    cluster.nodes[primary].server.kill();
    cluster.until("the other one is primary", |c| c.primary_of(0) == Some(other));
    // Alone it answers nothing: a majority of two is both.
    cluster.nodes[primary].restart();
    cluster.until("the other one serves", |c| {
        let mut client = Client::try_connect(c.ports()[other]).unwrap();
        client.try_call(&["GET", &key]).is_ok_and(|reply| reply == "1")
    });
}
