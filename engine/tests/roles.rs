//! Who plays which part in a managed shard whose primary dies or is replaced.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "managed/cluster.rs"]
mod cluster;
mod managed;
mod processes;

use cluster::Cluster;
use engine::bus::{Answer, Ask};
use engine::topology::{Change, Member};
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

/// A pod deleted by force is followed by one of the same name, while its process lives on for a moment: forgotten by its council
/// it would serve nobody, and its shard would have to fail over from one that was about to hand over.
#[test]
fn nobody_takes_the_place_of_a_primary_that_still_answers() {
    let mut cluster = Cluster::form(&[0, 0, 0], 1, &[]);
    let first = cluster.primary_of(0).unwrap();
    let old = cluster.nodes[first].member.clone();
    let heir = Member { id: old.id.chars().rev().collect(), ..old };
    for n in 0..3 {
        let wish = Ask::Wish { change: Change::Join(heir.clone()), expected_epoch: None };
        let answer = cluster.try_ask(n, wish);
        let Some(Answer::Refused { reason }) = &answer else { panic!("{n}: {answer:?}") };
        let by_leader = reason.contains("whose place it is to take, still answers");
        assert!(by_leader || reason.contains("lead"), "{reason}");
    }
    assert_eq!(cluster.primary_of(0), Some(first));
    cluster.nodes[first].server.kill();
    cluster.wish(Change::Join(heir));
}
