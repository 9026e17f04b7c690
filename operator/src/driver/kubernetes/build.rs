//! Builds every Kubernetes object of a cluster: pure functions from manifest to JSON, golden files beside.
//!
//! JSON, because that is what server-side apply takes: exactly the fields that are ours, and no other.
//! A test reads each object back through its Kubernetes type, so that no field is misspelled.
//!
//! ```text
//! NAME              Service, any member      NAME-config        ConfigMap, larder.conf
//! NAME-read         Service, replicas        NAME-auth          Secret, password and auth.conf
//! NAME-N-primary    Service, primary of N    NAME-tls           Secret, the members' certificate
//! NAME-members      Service, DNS names       NAME-operator-tls  Secret, the operator's, with the CA's key
//! NAME-ca           ConfigMap, the CA, where Larder issues the certificate that clients see
//! NAME-S-I          Pod (seat S-I)           NAME-S-I-data      PersistentVolumeClaim
//! NAME              PodDisruptionBudget, NetworkPolicy
//! ```

mod budget;
mod config_map;
mod labels;
mod pod;
mod policy;
mod secret;
mod service;
mod volume;

#[cfg(test)]
mod tests;

use crds::CacheCluster;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::desired::Desired;
use crate::driver::kubernetes::Settings;

pub use labels::{CLAIMED, CLUSTER, LABELS, ROLE, SEAT, SHARD, TEMPLATE, selector};
pub use pod::{OWN_TOLERATIONS, template_of};
pub use secret::{Secrets, auth_name, generated_auth_name, operator_tls_name, tls_name};

/// Port of the client protocol.
pub const PORT: u16 = 6379;
/// Port of the bus.
pub const BUS_PORT: u16 = 16379;
/// Port of `/metrics`, `/healthz` and `/readyz`.
pub const METRICS_PORT: u16 = 9121;

/// Everything that builders look at.
#[derive(Clone, Copy)]
pub struct Build<'a> {
    pub cluster: &'a CacheCluster,
    pub desired: &'a Desired,
    pub settings: &'a Settings,
    /// Shards that there are or are to be: one that is to go has its Service until it is gone.
    pub shards: u16,
}

/// An object to be applied: its kind and its JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub kind: Kind,
    pub name: String,
    pub json: Value,
}

/// The kinds that are applied each round, in the order in which they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Secret,
    ConfigMap,
    Service,
    PodDisruptionBudget,
    NetworkPolicy,
    PersistentVolumeClaim,
    Pod,
}

impl Kind {
    /// The word in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::Pod => "Pod",
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::PodDisruptionBudget => "policy/v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
            _ => "v1",
        }
    }
}

impl Build<'_> {
    fn name(&self) -> &str {
        &self.desired.name
    }

    fn namespace(&self) -> String {
        self.cluster.namespace().unwrap_or_else(|| "default".into())
    }

    /// Name of the headless Service that gives each member its DNS name.
    pub fn members_service(&self) -> String {
        format!("{}-members", self.name())
    }

    /// DNS name of a Service or, with the headless one as suffix, of a member.
    pub fn dns(&self, service: &str) -> String {
        format!("{service}.{}.svc.{}", self.namespace(), self.settings.cluster_domain)
    }

    /// DNS name of a member.
    pub fn host(&self, member: &str) -> String {
        self.dns(&format!("{member}.{}", self.members_service()))
    }

    /// What the port of RESP clients is called.
    fn client_port_name(&self) -> &'static str {
        if self.desired.serves_tls() { "resp-tls" } else { "resp" }
    }

    /// Members wanted, witnesses included.
    pub fn members(&self) -> u32 {
        let desired = self.desired;
        u32::from(self.shards) * u32::from(desired.members_per_shard())
            + u32::from(desired.witnesses_beside(self.shards).max(desired.witnesses()))
    }

    /// All objects that have no order: everything but pods, volumes and Secrets.
    pub fn scaffold(&self) -> Vec<Object> {
        let mut objects = vec![config_map::config_map(self)];
        objects.extend(service::services(self));
        objects.push(budget::budget(self));
        objects.push(policy::policy(self));
        objects
    }

    /// One object: our metadata, and what `body` adds.
    fn object(&self, kind: Kind, name: String, owned: bool, body: Value) -> Object {
        let mut json = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.as_str(),
            "metadata": {
                "name": name,
                "namespace": self.namespace(),
                "labels": labels::common(self.name()),
            },
        });
        if owned {
            json["metadata"]["ownerReferences"] = json!([self.owner()]);
        }
        merge(&mut json, body);
        Object { kind, name, json }
    }

    /// What makes Kubernetes delete an object together with its CacheCluster.
    fn owner(&self) -> Value {
        json!({
            "apiVersion": "larder.dev/v1alpha1",
            "kind": "CacheCluster",
            "name": self.name(),
            "uid": self.cluster.metadata.uid.as_deref().unwrap_or_default(),
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }
}

/// Merges maps key by key; everything else is replaced.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
