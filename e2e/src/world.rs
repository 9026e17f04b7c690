//! What a test is given: a Kubernetes with Larder installed, and a namespace of its own.

use crate::clock::eventually;
use crate::failure::{Context, Result};
use crate::provider::Provider;
use k8s_openapi::api::core::v1::{Event, Namespace, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, ListParams, LogParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Who applies what the tests apply.
pub const MANAGER: &str = "larder-e2e";

pub struct World {
    pub provider: Box<dyn Provider>,
    pub client: Client,
}

impl World {
    pub async fn open(provider: Box<dyn Provider>) -> Result<Arc<Self>> {
        let kubeconfig = Kubeconfig::read_from(provider.kubeconfig()).context("kubeconfig")?;
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        Ok(Arc::new(Self { provider, client }))
    }

    pub fn clusters(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &cache_cluster())
    }

    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Faults and other calls that take their time, off the threads that the writers run on.
    pub fn fault<T>(&self, make: impl FnOnce(&dyn Provider) -> Result<T>) -> Result<T> {
        tokio::task::block_in_place(|| make(self.provider.as_ref()))
    }

    /// A fresh namespace with restricted pod security.
    pub async fn room(self: &Arc<Self>, test: &str) -> Result<Room> {
        let room =
            Room { world: self.clone(), namespace: format!("e2e-{}", test.replace('_', "-")) };
        room.leave().await?;
        let api: Api<Namespace> = Api::all(self.client.clone());
        eventually("end of the namespace of an earlier run", Duration::from_secs(90), || async {
            crate::ensure!(
                api.get_opt(&room.namespace).await?.is_none(),
                "{} is there",
                room.namespace
            );
            Ok(())
        })
        .await?;
        let object = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": room.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        });
        api.patch(&room.namespace, &PatchParams::apply(MANAGER), &Patch::Apply(object)).await?;
        Ok(room)
    }
}

pub fn cache_cluster() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("larder.dev", "v1alpha1", "CacheCluster"))
}

/// A test's namespace.
pub struct Room {
    pub world: Arc<World>,
    pub namespace: String,
}

impl Room {
    /// Deletes the CacheClusters first, so that their operator can do what they ask for, then the namespace.
    pub async fn leave(&self) -> Result {
        let namespaces: Api<Namespace> = Api::all(self.world.client.clone());
        if namespaces.get_opt(&self.namespace).await?.is_none() {
            return Ok(());
        }
        let clusters = self.world.clusters(&self.namespace);
        // No such kind yet before the first installation: then there is nothing to delete.
        if clusters
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .is_ok()
        {
            eventually("end of the CacheClusters", Duration::from_secs(30), || async {
                let left = clusters.list(&ListParams::default()).await?.items.len();
                crate::ensure!(left == 0, "{left} left");
                Ok(())
            })
            .await
            .ok();
        }
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let pods = self.world.pods(&self.namespace);
        pods.delete_collection(&now, &ListParams::default()).await?;
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(self.world.client.clone(), &self.namespace);
        claims.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        eventually("end of pods and claims", Duration::from_secs(60), || async {
            let left = pods.list(&ListParams::default()).await?.items.len();
            crate::ensure!(left == 0, "{left} pods");
            let left = claims.list(&ListParams::default()).await?.items.len();
            crate::ensure!(left == 0, "{left} claims");
            Ok(())
        })
        .await?;
        // The rest goes in its own time: the next test has another namespace.
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        self.world.fault(|provider| provider.recycle_volumes())
    }

    /// Writes down all that helps to understand a failure; returns the folder.
    pub async fn diagnose(&self, test: &str) -> PathBuf {
        let folder = crate::tools::project().join("target/e2e").join(test);
        std::fs::remove_dir_all(&folder).ok();
        std::fs::create_dir_all(&folder).ok();
        self.write_objects(&folder).await;
        for namespace in [self.namespace.as_str(), crate::install::NAMESPACE] {
            self.write_logs(&folder, namespace).await;
        }
        folder
    }

    async fn write_objects(&self, folder: &Path) {
        let clusters = self.world.clusters(&self.namespace).list(&ListParams::default()).await;
        for cluster in clusters.map(|list| list.items).unwrap_or_default() {
            let text = serde_json::to_string_pretty(&cluster).unwrap_or_default();
            std::fs::write(folder.join(format!("{}.json", cluster.name_any())), text).ok();
        }
        let wide = self.world.fault(|provider| {
            provider.kubectl(&[
                "-n",
                &self.namespace,
                "get",
                "pods,pvc,svc,secret,endpointslices,pdb",
                "-o",
                "wide",
            ])
        });
        std::fs::write(folder.join("objects.txt"), wide.unwrap_or_default()).ok();
        let events: Api<Event> = Api::namespaced(self.world.client.clone(), &self.namespace);
        let mut text = String::new();
        for event in
            events.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
        {
            let about = event.involved_object.name.unwrap_or_default();
            let (reason, message) =
                (event.reason.unwrap_or_default(), event.message.unwrap_or_default());
            let at = event.event_time.map(|time| time.0.to_string());
            let at = at.or(event.last_timestamp.map(|time| time.0.to_string())).unwrap_or_default();
            writeln!(text, "{at} {about} {reason}: {message}").ok();
        }
        std::fs::write(folder.join("events.txt"), text).ok();
    }

    async fn write_logs(&self, folder: &Path, namespace: &str) {
        let pods = self.world.pods(namespace);
        for pod in
            pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
        {
            for previous in [false, true] {
                let params = LogParams { previous, tail_lines: Some(2000), ..LogParams::default() };
                if let Ok(log) = pods.logs(&pod.name_any(), &params).await {
                    let suffix = if previous { ".previous" } else { "" };
                    std::fs::write(folder.join(format!("{}{suffix}.log", pod.name_any())), log)
                        .ok();
                }
            }
        }
    }
}

/// The condition of a type in a status.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}
