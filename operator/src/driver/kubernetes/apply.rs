//! Writes: the scaffold that is applied, the steps that are carried out, the labels that follow the council.

use engine::bus::tls::Tls;
use engine::bus::{Answer, Ask, client};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::build::{BUS_PORT, Kind, Object, ROLE};
use super::reconcile::Kubernetes;
use super::stores::of_cluster;
use super::{ASK_LIMIT, MANAGER};
use crate::Error;
use crate::admin::{self, Said};
use crate::desired::{self, Desired, Seat};
use crate::observed::Observed;
use crate::plan::Step;

impl Kubernetes<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.context.client.clone(), &self.namespace)
    }

    /// Applies everything that has no order, as far as it changed.
    pub(super) async fn apply_scaffold(&mut self, desired: &Desired) -> Result<(), Error> {
        let objects = self.build(desired).scaffold();
        for object in &objects {
            self.apply_object(object).await?;
        }
        self.drop_services(&desired.name, &objects).await?;
        self.own_claims(desired).await?;
        self.restore_claims(desired).await
    }

    /// Applies one object server-side, unless the store has it just as it was applied last.
    pub(super) async fn apply_object(&mut self, object: &Object) -> Result<(), Error> {
        let hash = desired::hash([("", object.json.to_string().as_str())].into_iter());
        let key = (object.kind, object.name.clone());
        let stored = self.context.stores.version(object.kind, &self.namespace, &object.name);
        if let (Some((was, version)), Some(stored)) = (self.memory.applied.get(&key), stored)
            && *was == hash
            && *version == stored
        {
            return Ok(());
        }
        let version = match object.kind {
            Kind::Secret => self.put::<Secret>(object).await,
            Kind::ConfigMap => self.put::<ConfigMap>(object).await,
            Kind::Service => self.put::<Service>(object).await,
            Kind::PodDisruptionBudget => self.put::<PodDisruptionBudget>(object).await,
            Kind::NetworkPolicy => self.put::<NetworkPolicy>(object).await,
            Kind::PersistentVolumeClaim => self.put::<PersistentVolumeClaim>(object).await,
            Kind::Pod => self.put::<Pod>(object).await,
        }?;
        self.memory.applied.insert(key, (hash, version));
        Ok(())
    }

    async fn put<K>(&self, object: &Object) -> Result<String, Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.context.health.metrics.write(object.kind.as_str());
        let parameters = PatchParams::apply(MANAGER).force();
        let applied = self
            .api::<K>()
            .patch(&object.name, &parameters, &Patch::Apply(&object.json))
            .await
            .map_err(|e| failed("apply", object.kind, &object.name, e))?;
        Ok(applied.resource_version().unwrap_or_default())
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

    /// Makes volumes go with the CacheCluster, or stay, as the manifest says now.
    async fn own_claims(&self, desired: &Desired) -> Result<(), Error> {
        let build = self.build(desired);
        for claim in of_cluster(&self.context.stores.claims, &self.namespace, &desired.name) {
            let owner = claim.owner_references().iter().find(|o| o.kind == "CacheCluster");
            let owned = owner.is_some_and(|o| o.uid == self.memory.uid);
            if owned == build.owns_volumes() && owner.is_some() == owned {
                continue;
            }
            let Some(seat) = Seat::parse(
                &desired.name,
                claim.name_any().strip_suffix("-data").unwrap_or_default(),
            ) else {
                continue;
            };
            let Some(wanted) = build.claim(seat) else { continue };
            let owners = wanted.json["metadata"]["ownerReferences"].clone();
            let patch = json!({"metadata": {"ownerReferences": owners}});
            self.context.health.metrics.write(Kind::PersistentVolumeClaim.as_str());
            self.api::<PersistentVolumeClaim>()
                .patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map_err(|e| failed("own", Kind::PersistentVolumeClaim, &claim.name_any(), e))?;
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

    /// Deletes an object; one that is gone, or is another one by now, is no error.
    async fn delete<K>(&self, kind: Kind, name: &str, parameters: DeleteParams) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.context.health.metrics.write(kind.as_str());
        match self.api::<K>().delete(name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(s)) if s.is_not_found() || s.is_conflict() => Ok(()),
            Err(error) => Err(failed("delete", kind, name, error)),
        }
    }

    /// Carries out one step.
    pub(super) async fn carry_out(&mut self, desired: &Desired, step: &Step) -> Result<(), Error> {
        match step {
            Step::CreateMember { seat } => {
                let build = self.build(desired);
                let claim = build.claim(*seat).filter(|c| {
                    let stores = &self.context.stores;
                    stores.version(Kind::PersistentVolumeClaim, &self.namespace, &c.name).is_none()
                });
                let pod = build.pod(*seat);
                if let Some(claim) = claim {
                    self.create::<PersistentVolumeClaim>(&claim).await?;
                }
                self.create::<Pod>(&pod).await
            }
            Step::DeleteMember { seat, uid, disk, force } => {
                if let Some(uid) = uid {
                    self.delete_pod(desired, *seat, uid, *force).await?;
                }
                if *disk {
                    let name = self.build(desired).volume_name(*seat);
                    let kind = Kind::PersistentVolumeClaim;
                    let parameters = DeleteParams::default();
                    self.delete::<PersistentVolumeClaim>(kind, &name, parameters).await?;
                }
                Ok(())
            }
            Step::RestartMember { seat, uid } => self.delete_pod(desired, *seat, uid, false).await,
            _ => match admin::said(step) {
                Some(Said::Member(seat, ask)) => self.ask_seat(seat, ask).await,
                Some(Said::Council(ask)) => self.wish(ask).await,
                None => Ok(()),
            },
        }
    }

    async fn delete_pod(
        &self,
        desired: &Desired,
        seat: Seat,
        uid: &str,
        force: bool,
    ) -> Result<(), Error> {
        let preconditions = Preconditions { uid: Some(uid.into()), ..Preconditions::default() };
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

    /// Labels pods as the council's topology says, so that Services lead there. A label that is no
    /// longer true goes first: for a moment nobody is primary, never two.
    pub(super) async fn label_roles(
        &self,
        desired: &Desired,
        observed: &Observed,
    ) -> Result<(), Error> {
        if desired.paused {
            return Ok(());
        }
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
    pub(super) async fn reports(&self) -> Vec<(Seat, Answer)> {
        let Some(tls) = &self.memory.tls else { return Vec::new() };
        let asks = self.ips.iter().map(|(seat, ip)| async move {
            match client::ask(&socket(ip), tls, Ask::Report, ASK_LIMIT).await {
                Ok(answer) => Some((*seat, answer)),
                Err(error) => {
                    tracing::debug!(member = %seat, "no report: {error}");
                    None
                }
            }
        });
        futures::future::join_all(asks).await.into_iter().flatten().collect()
    }
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
