//! The stores: what the API server has of our objects, kept up by watches, filtered by label.
//!
//! Only metadata is kept where nothing else is read. A round lists nothing: it looks in here.

use std::sync::Arc;

use crds::CacheCluster;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::Store;

use super::build::{CLUSTER, Kind};

/// What is kept of one scope: all namespaces, or one.
pub(super) struct Stores {
    pub(super) clusters: Store<DeserializeGuard<CacheCluster>>,
    pub(super) pods: Store<Pod>,
    pub(super) claims: Store<PersistentVolumeClaim>,
    pub(super) secrets: Store<Secret>,
    pub(super) services: Store<PartialObjectMeta<Service>>,
    pub(super) config_maps: Store<PartialObjectMeta<ConfigMap>>,
    pub(super) budgets: Store<PartialObjectMeta<PodDisruptionBudget>>,
    pub(super) policies: Store<PartialObjectMeta<NetworkPolicy>>,
    /// `None`: the operator may not read nodes.
    pub(super) nodes: Option<Store<Node>>,
}

/// Those of one cluster.
pub(super) fn of_cluster<K>(store: &Store<K>, namespace: &str, cluster: &str) -> Vec<Arc<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let ours = |k: &K| {
        k.namespace().as_deref() == Some(namespace)
            && k.labels().get(CLUSTER).is_some_and(|c| c == cluster)
    };
    store.state().into_iter().filter(|k| ours(k)).collect()
}

impl Stores {
    /// The resource version of an object, when the store has it.
    pub(super) fn version(&self, kind: Kind, namespace: &str, name: &str) -> Option<String> {
        match kind {
            Kind::Secret => version(&self.secrets, namespace, name),
            Kind::ConfigMap => version(&self.config_maps, namespace, name),
            Kind::Service => version(&self.services, namespace, name),
            Kind::PodDisruptionBudget => version(&self.budgets, namespace, name),
            Kind::NetworkPolicy => version(&self.policies, namespace, name),
            Kind::PersistentVolumeClaim => version(&self.claims, namespace, name),
            Kind::Pod => version(&self.pods, namespace, name),
        }
    }
}

fn version<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<String>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&kube::runtime::reflector::ObjectRef::new(name).within(namespace))?.resource_version()
}
