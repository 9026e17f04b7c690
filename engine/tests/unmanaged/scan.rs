//! CLUSTERSCAN, from node to node.

use std::collections::BTreeMap;

use crate::nodes::{Nodes, create, has_tool};
use crate::processes::Client;
use crate::{KEYS, fill};

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
