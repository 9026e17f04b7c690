//! The stock tools: redis-cli that follows and that manages, redis-benchmark.

use std::collections::BTreeMap;

use crate::nodes::{Nodes, create, has_tool, run};
use crate::processes::Server;
use crate::{check_filled, fill, three_with_a_replica_each};

#[test]
fn the_slot_of_a_key_decides_its_node_and_redis_cli_follows() {
    if !has_tool("redis-cli") {
        return;
    }
    let nodes = Nodes::start(3);
    create(&nodes, 0);
    let owner = nodes.owner_of(12893);
    let to = nodes.address(owner);
    let others: Vec<usize> = (0..3).filter(|n| *n != owner).collect();
    for n in &others {
        let mut client = nodes.client(*n);
        assert_eq!(client.call(&["CLUSTER", "KEYSLOT", "user:123"]), "12893");
        assert_eq!(client.call(&["SET", "user:123", "x"]), format!("-MOVED 12893 {to}"));
    }
    for (n, words) in
        [(others[0], ["SET", "user:123", "Ada"].as_slice()), (others[1], &["GET", "user:123"])]
    {
        let port = nodes.port(n).to_string();
        let said = run("redis-cli", &[&["-c", "-p", &port], words].concat());
        assert_eq!(said.trim(), if words[0] == "SET" { "OK" } else { "Ada" });
    }
    assert_eq!(nodes.client(owner).call(&["GET", "user:123"]), "Ada");
}

#[test]
fn redis_cli_makes_a_cluster_and_changes_it() {
    if !has_tool("redis-cli") {
        return;
    }
    let mut nodes = three_with_a_replica_each();
    let mut ranges: BTreeMap<String, String> = BTreeMap::new();
    let text = nodes.client(0).call(&["CLUSTER", "NODES"]);
    let mut followed: Vec<&str> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if words[2].contains("master") {
            ranges.insert(words[8].to_owned(), words[0].to_owned());
        } else {
            followed.push(words[3]);
        }
    }
    assert_eq!(ranges.keys().collect::<Vec<_>>(), ["0-5460", "10923-16383", "5461-10922"]);
    followed.sort_unstable();
    let mut primaries: Vec<&String> = ranges.values().collect();
    primaries.sort_unstable();
    assert_eq!(followed, primaries, "one replica each");
    fill(&nodes);
    check_filled(&nodes);
    if has_tool("redis-benchmark") {
        let port = nodes.port(0).to_string();
        let text = run(
            "redis-benchmark",
            &["-p", &port, "--cluster", "-t", "set,get", "-n", "2000", "-q", "-r", "1000"],
        );
        assert!(text.contains("GET:") && !text.to_lowercase().contains("error"), "{text}");
    }
    let at = nodes.address(0);
    let call = nodes.cli(&["call", &at, "dbsize"]);
    assert_eq!(call.lines().filter(|l| l.starts_with("127.0.0.1:")).count(), 6, "{call}");
    assert!(nodes.cli(&["info", &at]).contains("in 3 masters"));
    let folder = nodes.folder("backup");
    assert!(nodes.cli(&["backup", &at, &folder]).contains("Backup created"));

    // Valkey's verbs, on top of the moves that the council decides on.
    let (owner, heir) = (nodes.owner_of(0), nodes.owner_of(16383));
    let id = nodes.client(heir).call(&["CLUSTER", "MYID"]);
    let migrate = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "0", "99", "NODE", &id];
    nodes.client(owner).ok(&migrate);
    nodes.until("the slots have moved", |n| n.owns(heir, 0));
    nodes.client(owner).until(&["CLUSTER", "GETSLOTMIGRATIONS"], "");
    let id = nodes.client(owner).call(&["CLUSTER", "MYID"]);
    let back = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "0", "99", "NODE", &id];
    nodes.client(heir).until(&back, "OK");
    nodes.until("they are back", |n| n.owns(owner, 0));
    nodes.until_agreed(6);
    check_filled(&nodes);

    // A primary without slots, a replica of it, slots to it and back, and both go. Functions are on every primary: a
    // new one is given them, and takes requests that may write once it owns slots.
    let library =
        "#!lua name=lib\nredis.register_function('greets', function() return 'hello' end)";
    for owner in [owner, heir] {
        assert_eq!(nodes.client(owner).call(&["FUNCTION", "LOAD", library]), "lib");
    }
    let seventh = nodes.add();
    let added = nodes.cli(&["add-node", &nodes.address(seventh), &at]);
    assert!(added.contains("New node added correctly"), "{added}");
    let id = nodes.client(seventh).call(&["CLUSTER", "MYID"]);
    nodes.until_agreed(7);
    let eighth = nodes.add();
    let added = nodes.cli(&[
        "add-node",
        &nodes.address(eighth),
        &at,
        "--cluster-slave",
        "--cluster-master-id",
        &id,
    ]);
    assert!(added.contains("New node added correctly"), "{added}");
    nodes.until_agreed(8);
    let first = nodes.client(0).call(&["CLUSTER", "MYID"]);
    let reshard = |from: &str, to: &str| {
        nodes.cli(&[
            "reshard",
            &at,
            "--cluster-from",
            from,
            "--cluster-to",
            to,
            "--cluster-slots",
            "120",
            "--cluster-yes",
        ])
    };
    reshard(&first, &id);
    nodes.until_agreed(8);
    assert_eq!(nodes.slots_of(seventh), 120);
    nodes.client(seventh).until(&["FCALL", "greets", "0"], "hello");
    check_filled(&nodes);
    nodes.client(eighth).until_info("master_link_status", "up");
    let rebalanced = nodes.cli(&["rebalance", &at, "--cluster-weight", &format!("{id}=0")]);
    assert!(rebalanced.contains("Moving"), "{rebalanced}");
    nodes.until_agreed(8);
    assert_eq!(nodes.slots_of(seventh), 0);
    check_filled(&nodes);
    let replica = nodes.client(eighth).call(&["CLUSTER", "MYID"]);
    for (node, id) in [(eighth, &replica), (seventh, &id)] {
        nodes.cli(&["del-node", &at, id]);
        let alone = nodes.client(node).call(&["CLUSTER", "INFO"]);
        assert!(alone.contains("cluster_known_nodes:1"), "{alone}");
        // What the cluster has is not kept.
        nodes.client(node).until(&["DBSIZE"], "0");
    }
    nodes.drop_last(2);
    nodes.until_agreed(6);
    check_filled(&nodes);
}

#[test]
fn keys_of_a_standalone_server_are_imported() {
    let folder = tempfile::tempdir().unwrap();
    let Some(redis) = Server::redis(folder.path(), &[]) else { return };
    let nodes = Nodes::start(3);
    create(&nodes, 0);
    let mut client = redis.client();
    for n in 0..50 {
        client.ok(&["SET", &format!("key:{n}"), &n.to_string()]);
    }
    client.call(&["ZADD", "zset", "1", "a", "2", "b"]);
    let from = format!("127.0.0.1:{}", redis.port);
    let at = nodes.address(0);
    nodes.cli(&["import", &at, "--cluster-from", &from, "--cluster-copy"]);
    assert!(nodes.cli(&["info", &at]).contains("[OK] 51 keys in 3 masters"));
    // And out of a standalone server of this kind.
    let other = tempfile::tempdir().unwrap();
    let plain = Server::start(other.path(), &[]);
    plain.client().ok(&["SET", "another", "one"]);
    let from = format!("127.0.0.1:{}", plain.port);
    nodes.cli(&["import", &at, "--cluster-from", &from]);
    assert!(nodes.cli(&["info", &at]).contains("[OK] 52 keys in 3 masters"));
    assert_eq!(plain.client().call(&["DBSIZE"]), "0");
}
