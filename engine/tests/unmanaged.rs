//! Plain servers that make up a cluster by themselves, as users of Redis make one: with a real redis-cli.
#![expect(clippy::unwrap_used, reason = "a test")]

mod processes;
mod unmanaged_cluster;

use std::collections::BTreeMap;

use processes::{Client, Server};
use unmanaged_cluster::{Nodes, create, has_tool, run};

/// What redis-benchmark, a cluster client and a few keys by hand leave in the cluster.
const KEYS: usize = 400;

fn fill(nodes: &Nodes) {
    let seeds: Vec<String> =
        nodes.ports().iter().map(|p| format!("redis://127.0.0.1:{p}/")).collect();
    let mut client = redis::cluster::ClusterClient::new(seeds).unwrap().get_connection().unwrap();
    for n in 0..KEYS {
        let key = format!("key:{n}");
        redis::cmd("SET").arg(&key).arg(n).exec(&mut client).unwrap();
    }
}

fn check_filled(nodes: &Nodes) {
    let seeds: Vec<String> = nodes.live().map(|p| format!("redis://127.0.0.1:{p}/")).collect();
    let mut client = redis::cluster::ClusterClient::new(seeds).unwrap().get_connection().unwrap();
    for n in 0..KEYS {
        let value: Option<usize> =
            redis::cmd("GET").arg(format!("key:{n}")).query(&mut client).unwrap();
        assert_eq!(value, Some(n), "key:{n}");
    }
}

#[test]
fn a_node_alone_looks_like_redis_and_comes_back_as_it_was() {
    let mut nodes = Nodes::start(1);
    let mut client = nodes.client(0);
    let info = client.call(&["CLUSTER", "INFO"]);
    for line in
        ["cluster_enabled:1", "cluster_state:fail", "cluster_known_nodes:1", "cluster_size:0"]
    {
        assert!(info.contains(line), "{line} in {info}");
    }
    let id = client.call(&["CLUSTER", "MYID"]);
    let port = nodes.port(0);
    let line = client.call(&["CLUSTER", "NODES"]);
    let bus = nodes.bus_port(0);
    assert!(line.starts_with(&format!("{id} :{port}@{bus} myself,master - 0 0 ")), "{line}");
    assert_eq!(client.call(&["SET", "a", "1"]), "-CLUSTERDOWN Hash slot not served");
    for (args, error) in [
        (&["ADDSLOTS", "16384"][..], "-ERR Invalid or out of range slot"),
        (&["ADDSLOTS", "5", "5"], "-ERR Slot 5 specified multiple times"),
        (
            &["ADDSLOTSRANGE", "9", "3"],
            "-ERR start slot number 9 is greater than end slot number 3",
        ),
        (&["DELSLOTS", "5"], "-ERR Slot 5 is already unassigned"),
        (&["SETSLOT", "5", "MIGRATING", &id], "-ERR I'm not the owner of hash slot 5"),
        (&["SETSLOT", "5", "NODE", "x"], "-ERR Unknown node x"),
        (&["FORGET", &id], "-ERR I tried hard but I can't forget myself..."),
        (&["FORGET", "x"], "-ERR Unknown node x"),
        (&["REPLICATE", &id], "-ERR Can't replicate myself"),
        (&["MEET", "127.0.0.1", "0"], "-ERR Invalid node address specified: 127.0.0.1:0"),
        (&["MEET", "nowhere", "x"], "-ERR Invalid TCP base port specified: x"),
        (&["FAILOVER"], "-ERR You should send CLUSTER FAILOVER to a replica"),
        (&["COUNT-FAILURE-REPORTS", "x"], "-ERR Unknown node x"),
    ] {
        let all: Vec<&str> = [&["CLUSTER"], args].concat();
        assert_eq!(client.call(&all), error, "{args:?}");
    }
    client.ok(&["CLUSTER", "ADDSLOTSRANGE", "0", "16382"]);
    assert!(client.call(&["CLUSTER", "INFO"]).contains("cluster_slots_assigned:16383"));
    assert_eq!(client.call(&["CLUSTER", "ADDSLOTS", "7"]), "-ERR Slot 7 is already busy");
    client.ok(&["CLUSTER", "ADDSLOTS", "16383"]);
    assert!(client.call(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    client.ok(&["CLUSTER", "DELSLOTSRANGE", "10", "20"]);
    client.ok(&["CLUSTER", "SET-CONFIG-EPOCH", "40"]);
    client.ok(&["CLUSTER", "SAVECONFIG"]);
    client.ok(&["SET", "a", "1"]);
    assert_eq!(
        client.call(&["CLUSTER", "FLUSHSLOTS"]),
        "-ERR DB must be empty to perform CLUSTER FLUSHSLOTS."
    );
    let why = "-ERR CLUSTER RESET can't be called with master nodes containing keys";
    assert_eq!(client.call(&["CLUSTER", "RESET"]), why);
    nodes.kill(0);
    nodes.restart(0);
    let mut client = nodes.client(0);
    assert_eq!(client.call(&["CLUSTER", "MYID"]), id);
    let line = client.call(&["CLUSTER", "NODES"]);
    assert!(line.trim_end().ends_with("connected 0-9 21-16383"), "{line}");
    // It serves again once the lease of the process before is over.
    client.until(&["SET", "a", "2"], "OK");
    client.call(&["DEL", "a"]);
    client.ok(&["CLUSTER", "FLUSHSLOTS"]);
    client.ok(&["CLUSTER", "RESET", "SOFT"]);
    assert_eq!(client.call(&["CLUSTER", "MYID"]), id);
    client.ok(&["CLUSTER", "RESET", "HARD"]);
    assert_ne!(client.call(&["CLUSTER", "MYID"]), id);
}

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

fn three_with_a_replica_each() -> Nodes {
    let nodes = Nodes::start(6);
    create(&nodes, 1);
    nodes
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
    // new one is given them.
    let library =
        "#!lua name=lib\nredis.register_function('greets', function() return 'hello' end)";
    for owner in [owner, heir] {
        assert_eq!(nodes.client(owner).call(&["FUNCTION", "LOAD", library]), "lib");
    }
    let seventh = nodes.add();
    let added = nodes.cli(&["add-node", &nodes.address(seventh), &at]);
    assert!(added.contains("New node added correctly"), "{added}");
    assert_eq!(nodes.client(seventh).call(&["FCALL", "greets", "0"]), "hello");
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
fn a_slot_that_was_left_half_moved_is_fixed() {
    if !has_tool("redis-cli") {
        return;
    }
    let nodes = Nodes::start(3);
    create(&nodes, 0);
    let ids: Vec<String> = (0..3).map(|n| nodes.client(n).call(&["CLUSTER", "MYID"])).collect();
    let (mut source, mut target) = (nodes.client(0), nodes.client(1));
    // Slot 0 to 5460 are the first one's.
    let slot: u16 = source.call(&["CLUSTER", "KEYSLOT", "{c}"]).parse().unwrap();
    let owner = nodes.owner_of(slot);
    if owner != 0 {
        source = nodes.client(owner);
        target = nodes.client((owner + 1) % 3);
    }
    let (from, to) = (&ids[owner], &ids[(owner + 1) % 3]);
    let to_port = nodes.port((owner + 1) % 3).to_string();
    let slot = slot.to_string();
    for n in 0..6 {
        source.ok(&["SET", &format!("{{c}}{n}"), &n.to_string()]);
    }
    source.call(&["RPUSH", "{c}list", "a", "b"]);
    source.ok(&["SET", "{c}later", "v", "EX", "1000"]);
    target.ok(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", from]);
    source.ok(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", to]);
    assert!(source.call(&["CLUSTER", "NODES"]).contains(&format!(" [{slot}->-{to}]")));
    assert!(target.call(&["CLUSTER", "NODES"]).contains(&format!(" [{slot}-<-{from}]")));
    // What is here is answered here; what is not is asked for there.
    let ask = format!("-ASK {slot} 127.0.0.1:{to_port}");
    assert_eq!(source.call(&["GET", "{c}1"]), "1");
    assert_eq!(source.call(&["GET", "{c}new"]), ask);
    source.ok(&["MIGRATE", "127.0.0.1", &to_port, "{c}0", "0", "2000"]);
    assert_eq!(source.call(&["GET", "{c}0"]), ask);
    assert_eq!(
        source.call(&["MGET", "{c}0", "{c}1"]),
        "-TRYAGAIN Multiple keys request during rehashing of slot"
    );
    let nokey = source.call(&["MIGRATE", "127.0.0.1", &to_port, "{c}0", "0", "2000"]);
    assert_eq!(nokey, "NOKEY");
    assert!(target.call(&["GET", "{c}0"]).starts_with("-MOVED"));
    target.ok(&["ASKING"]);
    assert_eq!(target.call(&["GET", "{c}0"]), "0");
    target.ok(&["ASKING"]);
    assert_eq!(
        target.call(&["MGET", "{c}0", "{c}1"]),
        "-TRYAGAIN Multiple keys request during rehashing of slot"
    );
    target.ok(&["ASKING"]);
    target.ok(&["SET", "{c}new", "here"]);
    source.ok(&[
        "MIGRATE",
        "127.0.0.1",
        &to_port,
        "",
        "0",
        "2000",
        "KEYS",
        "{c}list",
        "{c}later",
        "{c}gone",
    ]);
    let early = target.call(&["CLUSTER", "SETSLOT", &slot, "STABLE"]);
    assert!(early.contains("holds keys that were imported"), "{early}");
    let refused = source.call(&["CLUSTER", "SETSLOT", &slot, "NODE", to]);
    assert!(refused.contains("while I still hold keys"), "{refused}");
    let fixed = nodes.cli(&["fix", &nodes.address(0)]);
    assert!(fixed.contains("[OK] All 16384 slots covered."), "{fixed}");
    assert!(!nodes.client(owner).call(&["CLUSTER", "NODES"]).contains('['), "{fixed}");
    nodes.until_agreed(3);
    // Whoever had more of them has all of them now.
    let mut holder = nodes.client(nodes.owner_of(slot.parse().unwrap()));
    assert_eq!(holder.call(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "9", "{fixed}");
    assert_eq!(holder.call(&["LRANGE", "{c}list", "0", "-1"]), "a b");
    assert_eq!(holder.call(&["MGET", "{c}0", "{c}1", "{c}new"]), "0 1 here");
    let ttl: i64 = holder.call(&["TTL", "{c}later"]).parse().unwrap();
    assert!((900..=1000).contains(&ttl), "{ttl}");
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

#[test]
fn a_primary_that_dies_is_replaced_and_all_find_each_other_again() {
    if !has_tool("redis-cli") {
        return;
    }
    let mut nodes = three_with_a_replica_each();
    fill(&nodes);
    nodes.until_in_sync();
    nodes.until_council(5);
    let mine = nodes.slots_text(0);
    let dead = nodes.client(0).call(&["CLUSTER", "MYID"]);
    nodes.kill(0);
    let heir = nodes.until_some("a replica takes over", |n| {
        (1..6).find(|at| n.slots_text(*at) == mine && n.is_primary(*at))
    });
    check_filled(&nodes);
    nodes.until("the dead one is shown", |n| {
        let text = n.client(heir).call(&["CLUSTER", "NODES"]);
        text.lines().any(|l| {
            l.starts_with(&dead) && l.contains("slave,fail ") && l.contains("disconnected")
        })
    });
    nodes.restart(0);
    let followed = nodes.client(heir).call(&["CLUSTER", "MYID"]);
    nodes.until("the former primary follows", |n| {
        let text = n.client(0).call(&["CLUSTER", "NODES"]);
        text.lines()
            .any(|l| l.starts_with(&dead) && l.contains(&format!("myself,slave {followed}")))
    });
    nodes.client(0).until_info("master_link_status", "up");
    nodes.until_in_sync();
    // A handover back, and then the lights go out.
    nodes.client(0).until(&["CLUSTER", "FAILOVER"], "OK");
    nodes.until("it is primary again", |n| n.is_primary(0));
    check_filled(&nodes);
    nodes.until_agreed(6);
    for n in 0..6 {
        nodes.kill(n);
    }
    for n in 0..6 {
        nodes.restart(n);
    }
    nodes.until_agreed(6);
    nodes.until_some("it takes writes again", |n| {
        let mut client = n.client(0);
        (client.call(&["SET", "{06S}again", "1"]) == "OK"
            || client.call(&["SET", "a", "1"]).starts_with("-MOVED"))
        .then_some(())
    });
    fill(&nodes);
    check_filled(&nodes);
}

#[test]
fn a_node_that_is_killed_while_it_joins_is_alone_or_a_member() {
    let mut nodes = Nodes::start(3);
    nodes.client(1).ok(&[
        "CLUSTER",
        "MEET",
        "127.0.0.1",
        &nodes.port(0).to_string(),
        &nodes.bus_port(0).to_string(),
    ]);
    nodes.until("two have met", |n| n.knows(0) == 2 && n.knows(1) == 2);
    nodes.client(2).ok(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    nodes.client(2).ok(&["SET", "kept", "1"]);
    let id = nodes.client(2).call(&["CLUSTER", "MYID"]);
    for round in 0..12 {
        let meet = [
            "CLUSTER",
            "MEET",
            "127.0.0.1",
            &nodes.port(0).to_string(),
            &nodes.bus_port(0).to_string(),
        ];
        nodes.client(2).ok(&meet);
        std::thread::sleep(std::time::Duration::from_millis(round * 3));
        nodes.kill(2);
        nodes.restart(2);
        assert_eq!(nodes.client(2).call(&["CLUSTER", "MYID"]), id);
        // For a moment its council has not spoken yet.
        nodes.until("it knows at least itself", |n| n.knows(2) > 0);
        let known = nodes.knows(2);
        assert!(known == 1 || known == 3, "{known}");
        if known == 3 {
            assert_eq!(nodes.knows(0), 3, "it stands in the council that it speaks in");
            break;
        }
    }
    nodes.client(2).ok(&[
        "CLUSTER",
        "MEET",
        "127.0.0.1",
        &nodes.port(0).to_string(),
        &nodes.bus_port(0).to_string(),
    ]);
    nodes.until_agreed(3);
    nodes.until("its slots are served again", |n| n.client(2).call(&["SET", "kept", "2"]) == "OK");
}

#[test]
fn two_that_meet_each_other_at_once_are_one_cluster_and_two_clusters_are_not() {
    let nodes = Nodes::start(4);
    let meet = |from: usize, to: usize| {
        let (port, bus) = (nodes.port(to).to_string(), nodes.bus_port(to).to_string());
        nodes.client(from).ok(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    };
    for (a, b) in [(0, 1), (2, 3)] {
        meet(a, b);
        meet(b, a);
    }
    nodes.until("both pairs have met", |n| (0..4).all(|at| n.knows(at) == 2));
    meet(0, 2);
    nodes.until("it is refused, and said so", |n| n.log(0).contains("which do not become one"));
    assert!((0..4).all(|at| nodes.knows(at) == 2));
}

#[test]
fn a_member_is_forgotten_by_all_with_one_word() {
    let mut nodes = Nodes::start(4);
    for n in 1..4 {
        let (port, bus) = (nodes.port(0).to_string(), nodes.bus_port(0).to_string());
        nodes.client(n).ok(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    }
    nodes.until_agreed(4);
    nodes.until_council(3);
    let id = nodes.client(3).call(&["CLUSTER", "MYID"]);
    nodes.client(3).ok(&["CLUSTER", "ADDSLOTS", "7"]);
    let refused = nodes.client(0).call(&["CLUSTER", "FORGET", &id]);
    assert!(refused.contains("owns slots"), "one that is there is not forgotten: {refused}");
    nodes.kill(3);
    nodes.until("it is missed", |n| n.client(0).call(&["CLUSTER", "FORGET", &id]) == "OK");
    for n in 1..3 {
        nodes.client(n).until(&["CLUSTER", "FORGET", &id], "OK");
        assert_eq!(nodes.knows(n), 3);
    }
    nodes.client(0).ok(&["CLUSTER", "ADDSLOTS", "7"]);
    let mut replica: Client = nodes.client(1);
    replica.ok(&["CLUSTER", "REPLICATE", &nodes.client(0).call(&["CLUSTER", "MYID"])]);
    replica.until_info("master_link_status", "up");
    let own = replica.call(&["CLUSTER", "FORGET", &nodes.client(0).call(&["CLUSTER", "MYID"])]);
    assert_eq!(own, "-ERR Can't forget my master!");
}

#[test]
fn keys_that_change_while_they_are_moved_are_not_lost() {
    let nodes = Nodes::start(2);
    let meet = [
        "CLUSTER",
        "MEET",
        "127.0.0.1",
        &nodes.port(0).to_string(),
        &nodes.bus_port(0).to_string(),
    ];
    nodes.client(0).ok(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    nodes.client(1).ok(&meet);
    nodes.until_agreed(2);
    let (mut source, mut target) = (nodes.client(0), nodes.client(1));
    let (from, to) = (source.call(&["CLUSTER", "MYID"]), target.call(&["CLUSTER", "MYID"]));
    let slot = source.call(&["CLUSTER", "KEYSLOT", "{k}"]);
    source.until(&["SET", "{k}0", "0"], "OK");
    for n in 0..100 {
        source.ok(&["SET", &format!("{{k}}{n}"), "0"]);
    }
    target.ok(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]);
    source.ok(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]);
    // Counts each key up at whoever answers for it, until told to stop: nothing that was answered may be missing.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let count = |first: usize| {
        let mut clients = [nodes.client(0), nodes.client(1)];
        let mut counted = [0i64; 100];
        while !stop.load(std::sync::atomic::Ordering::Acquire) {
            for n in (first..100).step_by(2) {
                let incr = ["INCR", &format!("{{k}}{n}")];
                let mut reply = clients[0].call(&incr);
                if reply.starts_with("-ASK") {
                    clients[1].ok(&["ASKING"]);
                    reply = clients[1].call(&incr);
                } else if reply.starts_with("-MOVED") {
                    reply = clients[1].call(&incr);
                }
                counted[n] += i64::from(!reply.starts_with('-'));
            }
        }
        counted
    };
    let counted = std::thread::scope(|scope| {
        let count = &count;
        let counting = [0, 1].map(|first| scope.spawn(move || count(first)));
        let port = nodes.port(1).to_string();
        let keys: Vec<String> = (0..100).map(|n| format!("{{k}}{n}")).collect();
        for some in keys.chunks(5) {
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(some.iter().map(String::as_str));
            source.until(&migrate, "OK");
        }
        target.ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]);
        source.ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]);
        stop.store(true, std::sync::atomic::Ordering::Release);
        counting.map(|c| c.join().unwrap())
    });
    for n in 0..100 {
        let value: i64 = target.call(&["GET", &format!("{{k}}{n}")]).parse().unwrap();
        assert_eq!(value, counted[n % 2][n], "key {n}");
    }
}

/// Follows a scan of the whole cluster from node to node, as a client that knows no more than MOVED.
fn cluster_scan(nodes: &Nodes, options: &[&str]) -> BTreeMap<String, usize> {
    let mut clients: BTreeMap<u16, Client> =
        nodes.live().map(|port| (port, Client::try_connect(port).unwrap())).collect();
    let mut port = *clients.keys().next().unwrap();
    let (mut cursor, mut found) = ("0".to_owned(), BTreeMap::new());
    loop {
        let args = [&["CLUSTERSCAN", &cursor], options].concat();
        let reply = clients.get_mut(&port).unwrap().call(&args);
        if let Some(moved) = reply.strip_prefix("-MOVED ") {
            port = moved.rsplit(':').next().unwrap().parse().unwrap();
            continue;
        }
        let mut words = reply.split(' ').filter(|word| !word.is_empty()).map(str::to_owned);
        cursor = words.next().unwrap();
        assert!(!cursor.starts_with('-'), "{reply}");
        words.for_each(|key| *found.entry(key).or_default() += 1);
        if cursor == "0" {
            return found;
        }
    }
}

#[test]
fn a_scan_of_the_cluster_finds_every_key_once() {
    if !has_tool("redis-cli") {
        return;
    }
    let nodes = Nodes::start(3);
    create(&nodes, 0);
    fill(&nodes);
    for options in [&[][..], &["COUNT", "1"], &["COUNT", "1000000"], &["TYPE", "string"]] {
        let found = cluster_scan(&nodes, options);
        assert_eq!(found.len(), KEYS, "{options:?}");
        assert!(found.values().all(|times| *times == 1));
    }
    assert_eq!(cluster_scan(&nodes, &["MATCH", "key:1?"]).len(), 10);
    assert!(cluster_scan(&nodes, &["TYPE", "hash"]).is_empty());
    let mut client = nodes.client(0);
    let slot = client.call(&["CLUSTER", "KEYSLOT", "key:7"]);
    assert!(cluster_scan(&nodes, &["SLOT", &slot]).contains_key("key:7"));
    for (args, error) in [
        (&["abc"][..], "-ERR Invalid cursor"),
        (&["0", "SLOT", "16384"], "-ERR Invalid or out of range slot"),
        (&["0", "SLOT", "x"], "-ERR Invalid or out of range slot"),
        (&["0", "TYPE", "nope"], "-ERR unknown type name 'nope'"),
        (&["0", "COUNT", "0"], "-ERR syntax error"),
        (&["0", "MATCH"], "-ERR syntax error"),
    ] {
        let reply = client.call(&[&["CLUSTERSCAN"], args].concat());
        assert!(reply == error || reply.starts_with("-MOVED "), "{args:?} {reply}");
    }
}

#[test]
fn links_among_members_are_told_by_both_ends() {
    let nodes = Nodes::start(3);
    create(&nodes, 0);
    nodes.until_council(3);
    let ids: Vec<String> = (0..3).map(|n| nodes.client(n).call(&["CLUSTER", "MYID"])).collect();
    nodes.until("every member has links", |nodes| {
        (0..3).all(|n| {
            let links = nodes.client(n).call(&["CLUSTER", "LINKS"]);
            ["to", "from"].iter().all(|way| {
                let from_others = ids.iter().enumerate().filter(|(at, _)| *at != n);
                from_others.clone().any(|(_, id)| {
                    links.contains(&format!("direction {way} node {id} create-time "))
                })
            })
        })
    });
    let links = nodes.client(0).call(&["CLUSTER", "LINKS"]);
    assert!(!links.contains(&ids[0]), "{links}");
    for field in [" events r", " send-buffer-allocated ", " send-buffer-used "] {
        assert!(links.contains(field), "{links}");
    }
}

#[test]
fn a_slot_is_emptied_here_and_on_its_replica() {
    let nodes = three_with_a_replica_each();
    let slot: u16 = nodes.client(0).call(&["CLUSTER", "KEYSLOT", "{a}"]).parse().unwrap();
    let mut client = nodes.client(nodes.owner_of(slot));
    let keys: Vec<String> = (0..600).map(|n| format!("{{a}}{n}")).collect();
    for key in &keys {
        client.ok(&["SET", key, "v"]);
    }
    let text = slot.to_string();
    for (args, error) in [
        (&["FLUSHSLOT"][..], "-ERR wrong number of arguments for 'cluster|flushslot' command"),
        (&["FLUSHSLOT", "16384"], "-ERR Invalid or out of range slot"),
        (&["FLUSHSLOT", &text, "NOW"], "-ERR syntax error"),
    ] {
        assert_eq!(client.call(&[&["CLUSTER"], args].concat()), error, "{args:?}");
    }
    let replica = (0..6).find(|n| {
        let replicas = client.call(&["CLUSTER", "MYID"]);
        nodes
            .client(*n)
            .call(&["CLUSTER", "NODES"])
            .lines()
            .any(|line| line.contains("myself,slave") && line.contains(&replicas))
    });
    let mut replica = nodes.client(replica.unwrap());
    let refused = replica.call(&["CLUSTER", "FLUSHSLOT", &text]);
    assert!(refused.starts_with("-READONLY"), "{refused}");
    client.ok(&["CLUSTER", "FLUSHSLOT", &text, "ASYNC"]);
    assert_eq!(client.call(&["CLUSTER", "COUNTKEYSINSLOT", &text]), "0");
    replica.until(&["CLUSTER", "COUNTKEYSINSLOT", &text], "0");
    client.ok(&["SET", "{a}", "v"]);
    client.ok(&["MULTI"]);
    client.call(&["CLUSTER", "FLUSHSLOT", &text]);
    assert_eq!(client.call(&["EXEC"]), "OK");
    assert_eq!(client.call(&["EXISTS", "{a}"]), "0");
}
