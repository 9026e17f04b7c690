//! Who is a member: alone, met, killed while it joins, forgotten, linked.

use crate::nodes::{Nodes, create};
use crate::processes::Client;

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
fn a_node_that_is_killed_while_it_joins_is_alone_or_a_member() {
    let mut nodes = Nodes::start(3);
    nodes.meet(1, 0);
    nodes.until("two have met", |n| n.knows(0) == 2 && n.knows(1) == 2);
    nodes.client(2).ok(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    nodes.client(2).ok(&["SET", "kept", "1"]);
    let id = nodes.client(2).call(&["CLUSTER", "MYID"]);
    for round in 0..12 {
        nodes.meet(2, 0);
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
    nodes.meet(2, 0);
    nodes.until_agreed(3);
    nodes.until("its slots are served again", |n| n.client(2).call(&["SET", "kept", "2"]) == "OK");
}

#[test]
fn two_that_meet_each_other_at_once_are_one_cluster_and_two_clusters_are_not() {
    let nodes = Nodes::start(4);
    for (a, b) in [(0, 1), (2, 3)] {
        nodes.meet(a, b);
        nodes.meet(b, a);
    }
    nodes.until("both pairs have met", |n| (0..4).all(|at| n.knows(at) == 2));
    nodes.meet(0, 2);
    nodes.until("it is refused, and said so", |n| n.log(0).contains("which do not become one"));
    assert!((0..4).all(|at| nodes.knows(at) == 2));
}

#[test]
fn a_member_is_forgotten_by_all_with_one_word() {
    let mut nodes = Nodes::start(4);
    for n in 1..4 {
        nodes.meet(n, 0);
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
