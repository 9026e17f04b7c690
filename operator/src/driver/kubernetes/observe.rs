//! One look: pods, volumes and nodes from the stores, and what every member says of itself.

use std::sync::Arc;

use engine::topology::MemberId;
use k8s_openapi::api::core::v1::{
    ContainerStatus, Node, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim, Pod,
};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use super::build::{BUS_PORT, PORT, TEMPLATE, auth_name, selector, template_of};
use super::reconcile::Kubernetes;
use super::stores::of_cluster;
use crate::Error;
use crate::desired::{Desired, PLAIN_PORT, Seat};
use crate::observed::{Access, Address, Body, Disk, Observed, Phase};

/// Of what a container said at its end, so many lines and characters are told.
const LAST_LINES: usize = 3;
const LAST_WORDS_MAX: usize = 300;

impl Kubernetes<'_> {
    pub(super) async fn look(&mut self, desired: &Desired) -> Result<Observed, Error> {
        let mut observed = Observed {
            past: self.past(),
            access: self.access(desired),
            troubles: self.troubles.clone(),
            now: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            template: self.template(desired),
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
        self.find_lost_disks(desired, &mut observed).await;
        let build = self.build(desired);
        for (seat, member) in &mut observed.members {
            let host = build.host(&seat.name(&desired.name));
            let (port, tls_port) = if desired.serves_tls() { (0, PORT) } else { (PORT, 0) };
            member.address = Address { host, port, tls_port, bus_port: BUS_PORT };
        }
        self.hear(&mut observed).await;
        Ok(observed)
    }

    /// Looks after the volumes that pods wait for: one may be tied to a node that is gone.
    async fn find_lost_disks(&mut self, desired: &Desired, observed: &mut Observed) {
        let Some(nodes) = self.context.stores.nodes.as_ref().map(|n| n.state()) else { return };
        for (seat, member) in &mut observed.members {
            let waits = |b: &Body| b.phase == Phase::Pending && b.stuck.is_some();
            let Some(disk) =
                member.disk.as_mut().filter(|_| member.body.as_ref().is_some_and(waits))
            else {
                continue;
            };
            let name = self.build(desired).volume_name(*seat);
            let claim = ObjectRef::<PersistentVolumeClaim>::new(&name).within(&self.namespace);
            let claim = self.context.stores.claims.get(&claim);
            let volume = claim.and_then(|c| c.spec.as_ref()?.volume_name.clone());
            let Some(volume) = volume.filter(|_| !disk.lost) else { continue };
            match self.terms_of(&volume).await {
                Ok(terms) => disk.lost = is_out_of_reach(&terms, &nodes),
                Err(error) => tracing::debug!(volume, "cannot look where it is: {error}"),
            }
        }
    }

    /// On which nodes a volume can be used; that does not change while it lives.
    async fn terms_of(&mut self, volume: &str) -> Result<Vec<NodeSelectorTerm>, kube::Error> {
        if let Some(terms) = self.memory.volumes.get(volume) {
            return Ok(terms.clone());
        }
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let found = api.get_opt(volume).await?;
        let affinity = found.and_then(|v| v.spec?.node_affinity?.required);
        let terms = affinity.map(|a| a.node_selector_terms).unwrap_or_default();
        self.memory.volumes.insert(volume.to_owned(), terms.clone());
        Ok(terms)
    }

    async fn hear(&mut self, observed: &mut Observed) {
        for (seat, told) in self.reports().await {
            observed.hear(seat, told);
        }
        let Some(topology) = &observed.topology else {
            self.council.clear();
            return;
        };
        let heard = observed.members.values().filter_map(|m| m.belongs.as_ref());
        let leaders: Vec<&MemberId> = heard.filter_map(|b| b.leader.as_ref()).collect();
        // The leader first, then voters, then the rest: whoever is asked passes a wish on.
        let mut council: Vec<(bool, bool, Seat)> = observed
            .members
            .iter()
            .filter_map(|(seat, member)| {
                let id = &member.report.as_ref()?.id;
                topology
                    .members
                    .contains_key(id)
                    .then(|| (!leaders.contains(&id), !topology.voters.contains(id), *seat))
            })
            .collect();
        council.sort();
        self.council = council.into_iter().map(|(_, _, seat)| seat).collect();
    }

    /// The account as it was written last. What the API server fills in is nobody's account.
    fn past(&self) -> Option<Box<crate::status::Status>> {
        let past = self.past.status.as_ref().filter(|s| s.observed_generation.is_some());
        past.cloned().map(Box::new)
    }

    fn access(&self, desired: &Desired) -> Access {
        let build = self.build(desired);
        let at = |name: String, service: &str, port: u16| crds::Endpoint {
            name,
            address: format!("{}:{port}", build.dns(service)),
        };
        let endpoint = |name: String, service: &str| at(name, service, PORT);
        let name = &desired.name;
        let mut endpoints = vec![
            endpoint("cluster".into(), name),
            endpoint("read".into(), &format!("{name}-read")),
        ];
        endpoints.extend(desired.serves_plain().then(|| at("plain".into(), name, PLAIN_PORT)));
        for shard in 0..build.shards {
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

    /// Of a member with data; others differ only where they always do.
    fn template(&self, desired: &Desired) -> String {
        let pod = self.build(desired).pod(Seat::Data { shard: 0, index: 0 }).json;
        pod["metadata"]["annotations"][TEMPLATE].as_str().unwrap_or_default().to_owned()
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
            version: pod.resource_version().unwrap_or_default(),
            phase: phase(pod, &node, &self.memory.uid),
            started: started(pod),
            outdated: template_of(pod) != template,
            stuck: stuck(pod),
            node: node_name,
            zone,
            restarts: restarts(pod),
            draining: matches!(&node, NodeView::There(n) if n.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true))),
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

/// How often its containers were started again.
fn restarts(pod: &Pod) -> u32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let counts = statuses.into_iter().flatten().filter_map(|c| u32::try_from(c.restart_count).ok());
    counts.sum()
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
    status.container_statuses.iter().flatten().find_map(stuck_container)
}

/// Why a container waits, and with what words it ended the last time.
fn stuck_container(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if matches!(reason, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let message = waiting.message.as_deref().unwrap_or_default();
    let ended = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let words = ended.and_then(|e| e.message.as_deref()).map(last_words).unwrap_or_default();
    let words = if words.is_empty() { words } else { format!(" ({words})") };
    Some(format!("{reason}: {message}{words}"))
}

/// The last lines of what a container said at its end, as one.
fn last_words(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("; ");
    last.chars().take(LAST_WORDS_MAX).collect()
}

/// All places where the volume could be used are nodes that are not there.
pub(super) fn is_out_of_reach(terms: &[NodeSelectorTerm], nodes: &[Arc<Node>]) -> bool {
    let is_gone = |term: &NodeSelectorTerm| {
        let by_label =
            term.match_expressions.iter().flatten().map(|r| (r, "kubernetes.io/hostname"));
        let by_field = term.match_fields.iter().flatten().map(|r| (r, "metadata.name"));
        by_label.chain(by_field).any(|(rule, key)| {
            let names = rule.values.as_deref().unwrap_or_default();
            let is = |node: &Arc<Node>| match key {
                "metadata.name" => names.contains(&node.name_any()),
                label => node.labels().get(label).is_some_and(|l| names.contains(l)),
            };
            rule.key == key && rule.operator == "In" && !nodes.iter().any(is)
        })
    };
    // No node at all: it is the operator that does not see.
    !terms.is_empty() && !nodes.is_empty() && terms.iter().all(is_gone)
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
        version: claim.resource_version().unwrap_or_default(),
        // Nobody writes to a claim before it is bound; one that is bound may have been written to.
        fresh: phase == Some("Pending") || phase.is_none(),
        // Kubernetes' own word for a claim whose volume is no more.
        lost: phase == Some("Lost"),
    }
}
