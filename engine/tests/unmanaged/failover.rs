//! A primary that dies, and the death of all.

use crate::nodes::has_tool;
use crate::{check_filled, fill, three_with_a_replica_each};

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
