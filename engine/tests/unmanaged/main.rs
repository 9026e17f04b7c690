//! Plain servers that make up a cluster by themselves, as users of Redis make one: with a real redis-cli.
#![expect(clippy::unwrap_used, reason = "a test")]

mod failover;
mod members;
mod nodes;
#[path = "../processes/mod.rs"]
mod processes;
mod scan;
mod slots;
mod tools;

use nodes::{Nodes, create};

/// What redis-benchmark, a cluster client and a few keys by hand leave in the cluster.
const KEYS: usize = 400;

fn cluster_client(nodes: &Nodes) -> redis::cluster::ClusterConnection {
    let seeds: Vec<String> = nodes.live().map(|p| format!("redis://127.0.0.1:{p}/")).collect();
    redis::cluster::ClusterClient::new(seeds).unwrap().get_connection().unwrap()
}

fn fill(nodes: &Nodes) {
    let mut client = cluster_client(nodes);
    for n in 0..KEYS {
        let key = format!("key:{n}");
        redis::cmd("SET").arg(&key).arg(n).exec(&mut client).unwrap();
    }
}

fn check_filled(nodes: &Nodes) {
    let mut client = cluster_client(nodes);
    for n in 0..KEYS {
        let value: Option<usize> =
            redis::cmd("GET").arg(format!("key:{n}")).query(&mut client).unwrap();
        assert_eq!(value, Some(n), "key:{n}");
    }
}

fn three_with_a_replica_each() -> Nodes {
    let nodes = Nodes::start(6);
    create(&nodes, 1);
    nodes
}
