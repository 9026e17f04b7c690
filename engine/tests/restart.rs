//! A managed member that starts again: its data on disk, and what its primary sends meanwhile.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "managed/cluster.rs"]
mod cluster;
mod managed;
mod processes;

use cluster::{Cluster, Follower};

const KEYS: usize = 300;
const ELEMENTS: usize = 1000;

/// The member knows from its disk whom it follows long before its log is loaded. Had it asked its primary by
/// then, a full sync would have come first, the log on top of it, and its place in the journal would have been
/// the log's: a replica that never catches up, with data that nobody else has.
#[test]
fn a_replica_that_restarts_loads_its_data_before_it_follows() {
    let mut cluster = Cluster::form(&[0, 0], 1, &[]);
    let mut client = Follower::new(cluster.ports());
    let elements: Vec<String> = (0..ELEMENTS).map(|i| i.to_string()).collect();
    for key in 0..KEYS {
        let key = format!("list:{key}");
        let mut push = vec!["RPUSH", &key];
        push.extend(elements.iter().map(String::as_str));
        assert_eq!(client.call(&key, &push).unwrap(), ELEMENTS.to_string());
    }
    let primary = cluster.primary_of(0).unwrap();
    let replica = 1 - primary;
    cluster.until("the replica has everything", |c| c.ready(replica));
    cluster.nodes[replica].restart();
    cluster.until("the replica is back", |c| c.ready(replica));
    let syncs = cluster.nodes[primary].server.client().info("sync_full");
    assert_eq!(syncs, "1", "its log is all that it needs");

    cluster.until("the replica takes over", |c| {
        let reply = c.nodes[replica].server.client().call(&["CLUSTER", "FAILOVER"]);
        reply == "OK" || c.primary_of(0) == Some(replica)
    });
    cluster.until("it is primary", |c| c.primary_of(0) == Some(replica) && c.ready(replica));
    let mut client = Follower::new(cluster.ports());
    for key in 0..KEYS {
        let key = format!("list:{key}");
        assert_eq!(client.call(&key, &["LLEN", &key]).unwrap(), ELEMENTS.to_string());
    }
}
