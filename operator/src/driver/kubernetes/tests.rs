use engine::topology::{Member, Report, Shard, Topology};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, Pod};
use serde_json::{Value, json};

use super::apply::role_of;
use super::observe::{NodeView, is_out_of_reach, phase, stuck};
use crate::desired::Seat;
use crate::observed::{Observed, Phase};

fn pod(extra: Value) -> Pod {
    let mut pod = json!({
        "metadata": {
            "name": "demo-0-0",
            "ownerReferences": [{
                "apiVersion": "larder.dev/v1alpha1", "kind": "CacheCluster", "name": "demo", "uid": "u-1",
            }],
        },
        "status": {"phase": "Running"},
    });
    for (key, value) in extra.as_object().unwrap() {
        for (inner, value) in value.as_object().unwrap() {
            pod[key][inner] = value.clone();
        }
    }
    serde_json::from_value(pod).unwrap()
}

fn node(ready: &str) -> NodeView {
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "n"},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }))
    .unwrap();
    NodeView::There(Box::new(node))
}

#[test]
fn pod_is_lost_only_when_its_node_is_gone_or_silent_and_kubernetes_gave_it_up() {
    let running = pod(json!({}));
    let going = pod(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    assert_eq!(phase(&running, &node("True"), "u-1"), Phase::Running);
    assert_eq!(
        phase(&running, &node("Unknown"), "u-1"),
        Phase::Running,
        "silence alone is nothing"
    );
    assert_eq!(phase(&going, &node("True"), "u-1"), Phase::Stopping);
    assert_eq!(phase(&going, &node("Unknown"), "u-1"), Phase::Lost);
    assert_eq!(phase(&running, &NodeView::Gone, "u-1"), Phase::Lost);
    assert_eq!(phase(&going, &NodeView::Unknown, "u-1"), Phase::Stopping);
}

#[test]
fn pod_of_an_earlier_cluster_of_the_same_name_is_on_its_way_out() {
    assert_eq!(phase(&pod(json!({})), &node("True"), "u-2"), Phase::Stopping);
}

#[test]
fn stuck_pod_says_why_in_the_words_of_kubernetes() {
    assert_eq!(stuck(&pod(json!({}))), None);
    let unscheduled = pod(json!({"status": {"phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available",
    }]}}));
    assert_eq!(stuck(&unscheduled).unwrap(), "Unschedulable: 0/3 nodes are available");
    let waiting = |reason: &str| {
        pod(json!({"status": {"phase": "Pending", "containerStatuses": [{
            "name": "engine", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": "no such image"}},
        }]}}))
    };
    assert_eq!(stuck(&waiting("ImagePullBackOff")).unwrap(), "ImagePullBackOff: no such image");
    assert_eq!(stuck(&waiting("ContainerCreating")), None);
}

#[test]
fn container_that_ends_again_and_again_says_what_it_said_last() {
    let crashing = pod(json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": "engine", "image": "x", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {
            "exitCode": 1,
            "message": "starting\n\nat line 3\n>>> 'no-such 1'\nBad directive\n",
        }},
    }]}}));
    assert_eq!(
        stuck(&crashing).unwrap(),
        "CrashLoopBackOff: back-off 40s (at line 3; >>> 'no-such 1'; Bad directive)"
    );
}

#[test]
fn volume_is_out_of_reach_only_when_all_nodes_that_it_can_be_used_on_are_gone() {
    let terms = |value: Value| -> Vec<NodeSelectorTerm> { serde_json::from_value(value).unwrap() };
    let on = |names: Value| {
        terms(json!([{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": names},
        ]}]))
    };
    let nodes: Vec<Arc<Node>> = ["a", "b"]
        .map(|name| {
            let labels = json!({"kubernetes.io/hostname": name});
            let node = json!({"metadata": {"name": name, "labels": labels}});
            Arc::new(serde_json::from_value(node).unwrap())
        })
        .to_vec();
    assert!(is_out_of_reach(&on(json!(["c"])), &nodes));
    assert!(!is_out_of_reach(&on(json!(["c", "a"])), &nodes));
    let either = [on(json!(["c"])), on(json!(["b"]))].concat();
    assert!(!is_out_of_reach(&either, &nodes), "one of the terms is enough");
    // A volume of a zone without nodes is there again with the next node.
    let zone = terms(json!([{"matchExpressions": [
        {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["z"]},
    ]}]));
    assert!(!is_out_of_reach(&zone, &nodes));
    assert!(!is_out_of_reach(&[], &nodes), "a volume that is tied to no node");
    assert!(!is_out_of_reach(&on(json!(["c"])), &[]), "an operator that sees no node");
}

fn observed(primary: &str, reports: &[(Seat, &str)]) -> Observed {
    let mut topology = Topology::default();
    for (name, id) in [("demo-0-0", "a"), ("demo-0-1", "b")] {
        let member = Member {
            id: id.into(),
            name: name.into(),
            host: String::new(),
            port: 1,
            tls_port: 0,
            bus_port: 2,
            shard: Some(0),
            node: None,
            zone: None,
        };
        topology.members.insert(id.into(), member);
    }
    let shard = Shard { primary: Some(primary.into()), epoch: 3, ..Shard::default() };
    topology.shards.insert(0, shard);
    let mut observed = Observed { topology: Some(topology), ..Observed::default() };
    for (seat, id) in reports {
        let report = Report { id: (*id).into(), ..Report::default() };
        observed.members.entry(*seat).or_default().report = Some(report);
    }
    observed
}

#[test]
fn label_follows_the_council_and_not_the_name() {
    let (zero, one) = (Seat::Data { shard: 0, index: 0 }, Seat::Data { shard: 0, index: 1 });
    let seen = observed("b", &[(zero, "a"), (one, "b")]);
    assert_eq!(role_of(&seen, zero, Some("primary")), Some("replica"));
    assert_eq!(role_of(&seen, one, None), Some("primary"));
    assert_eq!(role_of(&seen, Seat::Witness { index: 0 }, None), Some("witness"));
    // A pod made anew answers with a new ID: it has the name of the primary, and is not it.
    let anew = observed("a", &[(zero, "c"), (one, "b")]);
    assert_eq!(role_of(&anew, zero, None), Some("replica"));
}

#[test]
fn unseen_primary_keeps_its_label_until_another_is_appointed() {
    let (zero, one) = (Seat::Data { shard: 0, index: 0 }, Seat::Data { shard: 0, index: 1 });
    let before = observed("a", &[(one, "b")]);
    assert_eq!(role_of(&before, zero, Some("primary")), None);
    let after = observed("b", &[(one, "b")]);
    assert_eq!(role_of(&after, zero, Some("primary")), Some("replica"));
    assert_eq!(role_of(&Observed::default(), zero, Some("primary")), None);
}

mod account;
mod claims;
mod crash;
mod fake;
mod grants;
mod neighbours;
mod spec;
