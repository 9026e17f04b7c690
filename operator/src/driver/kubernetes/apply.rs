//! Writes: the scaffold that is applied, the steps that are carried out, the labels that follow the council.

use crds::reasons::reason;
use engine::bus::tls::Tls;
use engine::bus::{Ask, client};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::build::{BUS_PORT, CLAIMED, CLUSTER, Kind, LABELS, Object, ROLE};
use super::reconcile::Kubernetes;
use super::stores::of_cluster;
use super::{ASK_LIMIT, MANAGER};
use crate::Error;
use crate::admin::{self, Said};
use crate::desired::{self, Desired, Seat};
use crate::observed::{Mark, Observed, Told};
use crate::plan::Step;

impl Kubernetes<'_> {
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.context.client.clone(), &self.namespace)
    }

    /// Applies everything that has no order, as far as it changed. An object that is refused holds up
    /// no other; the first refusal is told.
    pub(super) async fn apply_scaffold(&mut self, desired: &Desired) -> Result<(), Error> {
        let objects = self.build(desired).scaffold();
        let mut done = Ok(());
        for object in &objects {
            done = done.and(self.apply_object(object).await);
        }
        done = done.and(self.drop_services(&desired.name, &objects).await);
        done = done.and(self.keep_claims(desired).await);
        done.and(self.restore_claims(desired).await)
    }

    /// Applies one object server-side, unless the store has it just as it was applied last.
    pub(super) async fn apply_object(&mut self, object: &Object) -> Result<(), Error> {
        let hash = desired::hash([("", object.json.to_string().as_str())].into_iter());
        let key = (object.kind, object.name.clone());
        let stored = self.context.stores.version(object.kind, &self.namespace, &object.name);
        if let (Some((was, version)), Some(stored)) = (self.memory.applied.get(&key), &stored)
            && *was == hash
            && version == stored
        {
            return Ok(());
        }
        let known = stored.is_some() || self.memory.applied.contains_key(&key);
        let version = match object.kind {
            Kind::Secret => self.put::<Secret>(object, known).await,
            Kind::ConfigMap => self.put::<ConfigMap>(object, known).await,
            Kind::Service => self.put::<Service>(object, known).await,
            Kind::PodDisruptionBudget => self.put::<PodDisruptionBudget>(object, known).await,
            Kind::NetworkPolicy => self.put::<NetworkPolicy>(object, known).await,
            Kind::PersistentVolumeClaim => self.put::<PersistentVolumeClaim>(object, known).await,
            Kind::Pod => self.put::<Pod>(object, known).await,
        }?;
        self.memory.applied.insert(key, (hash, version));
        Ok(())
    }

    async fn put<K>(&mut self, object: &Object, known: bool) -> Result<String, Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        let api = self.api::<K>();
        // The stores have only what carries our label: of this name there may be somebody else's.
        if !known {
            let found = api.get_metadata_opt(&object.name).await;
            let found = found.map_err(|e| failed("look at", object.kind, &object.name, e))?;
            if let Some(found) = found {
                self.claim_name(object, &found.metadata)?;
                if object.kind == Kind::Secret {
                    // What is in it cannot be made again: with its label back, it is read first.
                    let label = json!({"metadata": {"labels": {CLUSTER: self.cluster.name_any()}}});
                    let patched = api
                        .patch_metadata(&object.name, &PatchParams::default(), &Patch::Merge(label))
                        .await;
                    patched.map_err(|e| failed("label", object.kind, &object.name, e))?;
                    let why = "it is there, and was not read yet";
                    return Err(Error::world(format!("make Secret {}", object.name), why));
                }
            }
        }
        self.context.health.metrics.write(object.kind.as_str());
        let parameters = PatchParams::apply(MANAGER).force();
        let applied = api
            .patch(&object.name, &parameters, &Patch::Apply(&object.json))
            .await
            .map_err(|e| failed("apply", object.kind, &object.name, e))?;
        Ok(applied.resource_version().unwrap_or_default())
    }

    /// An object that is there, though no store has it, may be taken up when it is this cluster's.
    fn claim_name(&mut self, object: &Object, found: &ObjectMeta) -> Result<(), Error> {
        let (kind, name) = (object.kind.as_str(), &object.name);
        let owners = found.owner_references.iter().flatten();
        let labelled = found.labels.as_ref().and_then(|l| l.get(CLUSTER));
        let ours = owners.into_iter().any(|o| o.uid == self.memory.uid)
            || labelled == self.cluster.metadata.name.as_ref();
        if ours {
            return Ok(());
        }
        let why = format!(
            "{kind} {name} is there already, and is not of this CacheCluster: delete it, or choose \
             another name for the cluster"
        );
        self.memory.obstacle = Some((reason::NAME_TAKEN, why.clone()));
        Err(Error::world(format!("apply {kind} {name}"), why))
    }

    /// Deletes Services that no shard stands behind any more.
    async fn drop_services(&self, cluster: &str, wanted: &[Object]) -> Result<(), Error> {
        for service in of_cluster(&self.context.stores.services, &self.namespace, cluster) {
            let name = service.name_any();
            if wanted.iter().any(|o| o.kind == Kind::Service && o.name == name) {
                continue;
            }
            self.delete::<Service>(Kind::Service, &name, DeleteParams::default()).await?;
        }
        Ok(())
    }

    /// Makes volumes go with the CacheCluster, or stay, and gives them the labels that the manifest has
    /// now. The rest of a volume stays as it was made.
    async fn keep_claims(&self, desired: &Desired) -> Result<(), Error> {
        let build = self.build(desired);
        for claim in of_cluster(&self.context.stores.claims, &self.namespace, &desired.name) {
            let name = claim.name_any();
            let member = name.strip_suffix("-data").unwrap_or_default();
            let seat = Seat::parse(&desired.name, member);
            let Some(wanted) = seat.and_then(|s| build.claim(s)) else { continue };
            let Some(patch) = change_of_claim(&claim, &wanted.json, &self.memory.uid) else {
                continue;
            };
            self.context.health.metrics.write(Kind::PersistentVolumeClaim.as_str());
            self.api::<PersistentVolumeClaim>()
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map_err(|e| failed("change", Kind::PersistentVolumeClaim, &name, e))?;
        }
        Ok(())
    }

    /// Makes the volume of a pod anew that has lost it: the pod waits for one of this very name.
    async fn restore_claims(&self, desired: &Desired) -> Result<(), Error> {
        let stores = &self.context.stores;
        for pod in of_cluster(&stores.pods, &self.namespace, &desired.name) {
            let seat = Seat::parse(&desired.name, &pod.name_any());
            let going = pod.metadata.deletion_timestamp.is_some();
            let build = self.build(desired);
            let Some(claim) = seat.filter(|_| !going).and_then(|s| build.claim(s)) else {
                continue;
            };
            if stores.version(claim.kind, &self.namespace, &claim.name).is_none() {
                self.create::<PersistentVolumeClaim>(&claim).await?;
            }
        }
        Ok(())
    }

    /// Creates an object; one that is there already stays as it is.
    pub(super) async fn create<K>(&self, object: &Object) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
    {
        let typed: K = serde_json::from_value(object.json.clone())
            .map_err(|e| Error::world(format!("build {}", object.name), e))?;
        self.context.health.metrics.write(object.kind.as_str());
        let parameters = PostParams { field_manager: Some(MANAGER.into()), ..Default::default() };
        match self.api::<K>().create(&parameters, &typed).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(s)) if s.is_already_exists() => Ok(()),
            Err(error) => Err(failed("create", object.kind, &object.name, error)),
        }
    }

    /// Deletes an object; one that is gone is no error. `false`: it is another one by now, or has changed, and stays.
    async fn delete<K>(
        &self,
        kind: Kind,
        name: &str,
        parameters: DeleteParams,
    ) -> Result<bool, Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.context.health.metrics.write(kind.as_str());
        match self.api::<K>().delete(name, &parameters).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(s)) if s.is_not_found() => Ok(true),
            Err(kube::Error::Api(s)) if s.is_conflict() => Ok(false),
            Err(error) => Err(failed("delete", kind, name, error)),
        }
    }

    /// Carries out one step.
    pub(super) async fn carry_out(&mut self, desired: &Desired, step: &Step) -> Result<(), Error> {
        match step {
            Step::CreateMember { seat } => {
                let build = self.build(desired);
                let pod = build.pod(*seat);
                let claim = build.claim(*seat).filter(|c| {
                    let stores = &self.context.stores;
                    stores.version(Kind::PersistentVolumeClaim, &self.namespace, &c.name).is_none()
                });
                if let Some(claim) = claim {
                    self.create::<PersistentVolumeClaim>(&claim).await?;
                }
                self.create::<Pod>(&pod).await
            }
            Step::DeleteMember { seat, seen, disk, force } => {
                if let Some(body) = &seen.body
                    && !self.delete_pod(desired, *seat, unchanged(body), *force).await?
                {
                    return Ok(());
                }
                if let Some(volume) = seen.disk.as_ref().filter(|_| *disk) {
                    let name = self.build(desired).volume_name(*seat);
                    let kind = Kind::PersistentVolumeClaim;
                    let parameters = DeleteParams::default().preconditions(unchanged(volume));
                    self.delete::<PersistentVolumeClaim>(kind, &name, parameters).await?;
                }
                Ok(())
            }
            Step::RestartMember { seat, uid } => {
                let this = Preconditions { uid: Some(uid.clone()), ..Preconditions::default() };
                self.delete_pod(desired, *seat, this, false).await.map(|_| ())
            }
            Step::Join { member, .. } => {
                self.lay_claim::<Pod>(Kind::Pod, &member.name).await?;
                let build = self.build(desired);
                let seat = Seat::parse(&desired.name, &member.name);
                if let Some(claim) = seat.and_then(|s| build.claim(s)) {
                    self.lay_claim::<PersistentVolumeClaim>(claim.kind, &claim.name).await?;
                }
                self.say(step).await
            }
            _ => self.say(step).await,
        }
    }

    /// Changes an object, so that whoever saw it before deletes it no more. What is being deleted cannot be claimed any more.
    /// see: `crate::plan::members::dismiss`
    async fn lay_claim<K>(&self, kind: Kind, name: &str) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        let now = jiff::Timestamp::now().to_string();
        let patch = json!({"metadata": {"annotations": {CLAIMED: now}}});
        self.context.health.metrics.write(kind.as_str());
        let claimed = self
            .api::<K>()
            .patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map_err(|e| failed("claim", kind, name, e))?;
        if claimed.metadata.deletion_timestamp.is_some() {
            return Err(Error::world(
                format!("claim {} {name}", kind.as_str()),
                "it is being deleted",
            ));
        }
        Ok(())
    }

    /// Says what the step says to members.
    async fn say(&self, step: &Step) -> Result<(), Error> {
        match admin::said(step) {
            Some(Said::Member(seat, ask)) => self.ask_seat(seat, ask).await,
            Some(Said::Council(ask)) => self.wish(ask).await,
            None => Ok(()),
        }
    }

    /// `false`: it is not the one that the preconditions tell of, and stays.
    async fn delete_pod(
        &self,
        desired: &Desired,
        seat: Seat,
        preconditions: Preconditions,
        force: bool,
    ) -> Result<bool, Error> {
        let mut parameters = DeleteParams::default().preconditions(preconditions);
        if force {
            parameters = parameters.grace_period(0);
        }
        self.delete::<Pod>(Kind::Pod, &seat.name(&desired.name), parameters).await
    }

    /// Asks one member to do something.
    async fn ask_seat(&self, seat: Seat, ask: Ask) -> Result<(), Error> {
        let Some(ip) = self.ips.get(&seat) else {
            return Err(Error::world(format!("ask member {seat}"), "its pod has no address"));
        };
        admin::ask(&socket(ip), self.tls()?, ask).await
    }

    /// Puts a wish to the council, by the first of its members that takes it.
    async fn wish(&self, wish: Ask) -> Result<(), Error> {
        let addresses: Vec<String> = self
            .council
            .iter()
            .filter_map(|seat| self.ips.get(seat))
            .map(|ip| socket(ip))
            .collect();
        admin::wish(&addresses, self.tls()?, wish).await
    }

    fn tls(&self) -> Result<&Tls, Error> {
        let missing = || Error::world("speak to members", "there is no certificate yet");
        self.memory.tls.as_ref().ok_or_else(missing)
    }

    /// Labels pods as the council's topology says, so that Services lead there; also when the operator
    /// only looks, for it tells what is. A label that is no longer true goes first: for a moment nobody
    /// is primary, never two.
    pub(super) async fn label_roles(
        &self,
        desired: &Desired,
        observed: &Observed,
    ) -> Result<(), Error> {
        let pods = of_cluster(&self.context.stores.pods, &self.namespace, &desired.name);
        let mut changes = Vec::new();
        for pod in &pods {
            let name = pod.name_any();
            let Some(seat) = Seat::parse(&desired.name, &name) else { continue };
            let is = pod.labels().get(ROLE).map(String::as_str);
            let Some(should) = role_of(observed, seat, is) else { continue };
            if is != Some(should) {
                changes.push((should == "primary", name, pod.uid(), should));
            }
        }
        changes.sort();
        for (_, name, uid, role) in changes {
            let patch: Value = json!({"metadata": {"uid": uid, "labels": {ROLE: role}}});
            self.context.health.metrics.write(Kind::Pod.as_str());
            match self
                .api::<Pod>()
                .patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                Ok(_) => {}
                Err(kube::Error::Api(s)) if s.is_not_found() || s.is_conflict() => {}
                Err(error) => return Err(failed("label", Kind::Pod, &name, error)),
            }
        }
        Ok(())
    }

    /// One report of every pod that has an address, all asked at the same time.
    pub(super) async fn reports(&self) -> Vec<(Seat, Told)> {
        let Some(tls) = &self.memory.tls else { return Vec::new() };
        let asks = self.ips.iter().map(|(seat, ip)| async move {
            match client::ask(&socket(ip), tls, Ask::Report, ASK_LIMIT).await {
                Ok(answer) => Told::of(answer).map(|told| (*seat, told)),
                Err(error) => {
                    tracing::debug!(member = %seat, "no report: {error}");
                    None
                }
            }
        });
        futures::future::join_all(asks).await.into_iter().flatten().collect()
    }
}

/// It is as it was seen.
fn unchanged(seen: &Mark) -> Preconditions {
    let known = |s: &String| Some(s.clone()).filter(|s| !s.is_empty());
    Preconditions { uid: known(&seen.uid), resource_version: known(&seen.version) }
}

/// What has to change about a volume's owner and labels; `None`: nothing.
pub(super) fn change_of_claim(
    claim: &PersistentVolumeClaim,
    wanted: &Value,
    uid: &str,
) -> Option<Value> {
    let metadata = &wanted["metadata"];
    let mut patch = json!({});
    let owner = claim.owner_references().iter().find(|o| o.kind == "CacheCluster");
    let owned = owner.is_some_and(|o| o.uid == uid);
    if owned == metadata["ownerReferences"].is_null() || owner.is_some() != owned {
        patch["ownerReferences"] = metadata["ownerReferences"].clone();
    }
    let labels = |name: &str| metadata["labels"][name].as_str();
    let names = claim.annotations().get(LABELS).map(String::as_str).unwrap_or_default();
    for gone in names.split(',').filter(|n| !n.is_empty() && labels(n).is_none()) {
        if claim.labels().contains_key(gone) {
            patch["labels"][gone] = Value::Null;
        }
    }
    for (name, value) in metadata["labels"].as_object().into_iter().flatten() {
        if claim.labels().get(name).map(String::as_str) != value.as_str() {
            patch["labels"][name] = value.clone();
        }
    }
    let now = metadata["annotations"][LABELS].as_str();
    if now.is_some_and(|now| now != names) {
        patch["annotations"][LABELS] = json!(now);
    }
    (patch != json!({})).then(|| json!({"metadata": patch}))
}

fn failed(verb: &str, kind: Kind, name: &str, error: kube::Error) -> Error {
    Error::world(format!("{verb} {} {name}", kind.as_str()), error)
}

fn socket(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:{BUS_PORT}") } else { format!("{ip}:{BUS_PORT}") }
}

/// The role that a pod's label should tell; `None`: leave it, nobody knows better.
pub(super) fn role_of(observed: &Observed, seat: Seat, is: Option<&str>) -> Option<&'static str> {
    let topology = observed.topology.as_ref()?;
    let Some(shard) = seat.shard() else { return Some("witness") };
    let primary = topology.shards.get(&shard)?.primary.as_ref();
    let report = observed.members.get(&seat).and_then(|m| m.report.as_ref());
    match report {
        Some(report) => Some(if primary == Some(&report.id) { "primary" } else { "replica" }),
        // Unseen: it keeps its label, unless another seat is primary now.
        None => {
            let elsewhere = primary
                .and_then(|id| topology.members.get(id))
                .is_some_and(|m| !m.name.ends_with(&format!("-{seat}")));
            match is {
                Some("primary") if elsewhere => Some("replica"),
                Some(_) => None,
                None => Some("replica"),
            }
        }
    }
}
