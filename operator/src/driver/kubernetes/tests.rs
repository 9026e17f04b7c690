use engine::topology::{Member, Report, Shard, Topology};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::apply::role_of;
use super::observe::{NodeView, phase, stuck};
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

fn observed(primary: &str, reports: &[(Seat, &str)]) -> Observed {
    let mut topology = Topology::default();
    for (name, id) in [("demo-0-0", "a"), ("demo-0-1", "b")] {
        let member = Member {
            id: id.into(),
            name: name.into(),
            host: String::new(),
            port: 1,
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

mod crash;
mod fake;
