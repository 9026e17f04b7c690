//! One look: pods, volumes and nodes from the stores, and what every member says of itself.

use engine::bus::Answer;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::build::{BUS_PORT, PORT, TEMPLATE, auth_name, selector, template_of};
use super::reconcile::Kubernetes;
use super::stores::of_cluster;
use crate::Error;
use crate::desired::{Desired, Seat};
use crate::observed::{Access, Address, Body, Disk, Observed, Phase};

impl Kubernetes<'_> {
    pub(super) async fn look(&mut self, desired: &Desired) -> Result<Observed, Error> {
        let mut observed = Observed {
            past: self.past(),
            access: self.access(desired),
            now: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            ..Observed::default()
        };
        let stores = &self.context.stores;
        for claim in of_cluster(&stores.claims, &self.namespace, &desired.name) {
            let name = claim.name_any();
            let Some(seat) = name.strip_suffix("-data").and_then(|m| Seat::parse(&desired.name, m))
            else {
                continue;
            };
            observed.members.entry(seat).or_default().disk = Some(disk(&claim));
        }
        self.ips.clear();
        for pod in of_cluster(&stores.pods, &self.namespace, &desired.name) {
            let Some(seat) = Seat::parse(&desired.name, &pod.name_any()) else { continue };
            if let Some(ip) = reachable(&pod) {
                self.ips.insert(seat, ip);
            }
            let body = self.body(desired, seat, &pod);
            observed.members.entry(seat).or_default().body = Some(body);
        }
        let build = self.build(desired);
        for (seat, member) in &mut observed.members {
            let host = build.host(&seat.name(&desired.name));
            member.address = Address { host, port: PORT, bus_port: BUS_PORT };
        }
        self.hear(&mut observed).await;
        Ok(observed)
    }

    async fn hear(&mut self, observed: &mut Observed) {
        let mut leaders = Vec::new();
        for (seat, answer) in self.reports().await {
            if let Answer::Report { report, topology, leader } = answer {
                leaders.extend(leader);
                observed.hear(seat, *report, topology.map(|t| *t));
            }
        }
        let Some(topology) = &observed.topology else {
            self.council.clear();
            return;
        };
        // The leader first, then voters, then the rest: whoever is asked passes a wish on.
        let mut council: Vec<(bool, bool, Seat)> = observed
            .members
            .iter()
            .filter_map(|(seat, member)| {
                let id = &member.report.as_ref()?.id;
                topology
                    .members
                    .contains_key(id)
                    .then(|| (!leaders.contains(id), !topology.voters.contains(id), *seat))
            })
            .collect();
        council.sort();
        self.council = council.into_iter().map(|(_, _, seat)| seat).collect();
    }

    /// The account as it was written last.
    fn past(&self) -> Option<Box<crate::status::Status>> {
        self.memory.status.clone().or_else(|| self.cluster.status.clone()).map(Box::new)
    }

    fn access(&self, desired: &Desired) -> Access {
        let build = self.build(desired);
        let endpoint = |name: String, service: &str| crds::Endpoint {
            name,
            address: format!("{}:{PORT}", build.dns(service)),
        };
        let name = &desired.name;
        let mut endpoints = vec![
            endpoint("cluster".into(), name),
            endpoint("read".into(), &format!("{name}-read")),
        ];
        for shard in 0..desired.shards {
            endpoints.push(endpoint(
                format!("shard-{shard}-primary"),
                &format!("{name}-{shard}-primary"),
            ));
        }
        Access {
            endpoints,
            auth_secret: auth_name(self.cluster).map(|(secret, _)| secret),
            label_selector: Some(selector(name)),
        }
    }

    fn body(&self, desired: &Desired, seat: Seat, pod: &Pod) -> Body {
        let node_name = pod.spec.as_ref().and_then(|s| s.node_name.clone());
        let node = self.node(node_name.as_deref());
        let wanted = self.build(desired).pod(seat);
        let template = wanted.json["metadata"]["annotations"][TEMPLATE].as_str();
        let zone = match &node {
            NodeView::There(node) => node.labels().get("topology.kubernetes.io/zone").cloned(),
            _ => None,
        };
        Body {
            uid: pod.uid().unwrap_or_default(),
            phase: phase(pod, &node, &self.memory.uid),
            started: started(pod),
            outdated: template_of(pod) != template,
            stuck: stuck(pod),
            node: node_name,
            zone,
        }
    }

    fn node(&self, name: Option<&str>) -> NodeView {
        let (Some(nodes), Some(name)) = (&self.context.stores.nodes, name) else {
            return NodeView::Unknown;
        };
        match nodes.get(&ObjectRef::new(name)) {
            Some(node) => NodeView::There(Box::new((*node).clone())),
            None => NodeView::Gone,
        }
    }
}

/// What is known of a pod's node.
pub(super) enum NodeView {
    /// The operator may not read nodes, or the pod has none yet.
    Unknown,
    There(Box<Node>),
    Gone,
}

/// How far a pod is.
pub(super) fn phase(pod: &Pod, node: &NodeView, owner: &str) -> Phase {
    let silent = match node {
        NodeView::Unknown => false,
        NodeView::Gone => true,
        NodeView::There(node) => is_silent(node),
    };
    let going = pod.metadata.deletion_timestamp.is_some();
    if matches!(node, NodeView::Gone) || (going && silent) {
        return Phase::Lost;
    }
    // A pod of an earlier CacheCluster of the same name is about to be collected.
    let strange = pod.owner_references().iter().any(|o| o.kind == "CacheCluster" && o.uid != owner);
    if going || strange {
        return Phase::Stopping;
    }
    match pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
        Some("Running") => Phase::Running,
        Some("Succeeded" | "Failed") => Phase::Ended,
        _ => Phase::Pending,
    }
}

/// The node's kubelet has not been heard of for a while.
fn is_silent(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "Unknown")
}

/// Whether a process has ever run in it.
fn started(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    statuses.into_iter().flatten().any(|c| {
        let ran = |s: &k8s_openapi::api::core::v1::ContainerState| {
            s.running.is_some() || s.terminated.is_some()
        };
        c.restart_count > 0 || [&c.state, &c.last_state].into_iter().flatten().any(ran)
    })
}

/// Why a pod does not get on, in Kubernetes' own words.
pub(super) fn stuck(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unscheduled = status.conditions.iter().flatten().find(|c| {
        c.type_ == "PodScheduled" && c.status == "False" && c.reason.as_deref() != Some("")
    });
    if let Some(condition) = unscheduled {
        let reason = condition.reason.as_deref().unwrap_or("Unschedulable");
        let message = condition.message.as_deref().unwrap_or_default();
        return Some(format!("{reason}: {message}"));
    }
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|c| c.state.as_ref()?.waiting.as_ref())
        .find(|w| {
            !matches!(w.reason.as_deref(), None | Some("ContainerCreating" | "PodInitializing"))
        })?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    Some(format!("{reason}: {}", waiting.message.as_deref().unwrap_or_default()))
}

/// Where a pod's bus is, when a process may listen there.
fn reachable(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() != Some("Running") {
        return None;
    }
    status.pod_ip.clone().filter(|ip| !ip.is_empty())
}

fn disk(claim: &PersistentVolumeClaim) -> Disk {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    Disk {
        uid: claim.uid().unwrap_or_default(),
        // Nobody writes to a claim before it is bound; one that is bound may have been written to.
        fresh: phase == Some("Pending") || phase.is_none(),
    }
}
