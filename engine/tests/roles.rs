//! What INFO says of roles after the primary of a managed shard has died.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "managed/cluster.rs"]
mod cluster;
mod managed;
mod processes;

use cluster::Cluster;
use processes::Client;

fn told(cluster: &Cluster, n: usize, field: &str) -> String {
    // Who is about to follow another primary may end a connection.
    let ask = || {
        let args = ["INFO", "replication"];
        Client::try_connect(cluster.nodes[n].member.port)?.try_call(&args)
    };
    let text = ask().unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.unwrap_or_default().to_owned()
}

/// One of these members says that it is primary with so many replicas, the others that they follow it.
fn agree(cluster: &Cluster, members: &[usize]) -> bool {
    let Some(primary) = members.iter().find(|n| told(cluster, **n, "role") == "master") else {
        return false;
    };
    let port = cluster.nodes[*primary].member.port.to_string();
    let replicas = members.len() - 1;
    told(cluster, *primary, "connected_slaves") == replicas.to_string()
        && members.iter().filter(|n| *n != primary).all(|n| {
            told(cluster, *n, "role") == "slave"
                && told(cluster, *n, "master_port") == port
                && told(cluster, *n, "master_link_status") == "up"
        })
}

#[test]
fn after_a_failover_roles_and_connected_replicas_are_told_as_they_are() {
    let mut cluster = Cluster::form(&[0, 0, 0], 1, &[]);
    cluster.until("three that agree", |c| agree(c, &[0, 1, 2]));
    let first = cluster.primary_of(0).unwrap();
    cluster.nodes[first].server.kill();
    let others: Vec<usize> = (0..3).filter(|n| *n != first).collect();
    cluster.until("two that agree", |c| agree(c, &others));
    cluster.nodes[first].restart();
    cluster.until("three that agree again", |c| agree(c, &[0, 1, 2]));
}
