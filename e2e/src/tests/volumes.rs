//! Scenario 6: what becomes of the volumes when a CacheCluster is deleted.

use super::all::{durable, everything_is_there, fill};
use crate::clock::eventually;
use crate::cluster::Cluster;
use crate::failure::Result;
use crate::world::Room;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn kept_volumes_bring_the_data_back(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", durable()).await?;
    let ledgers = fill(&cluster, 500).await?;
    cluster.delete().await?;
    let kept = names::<PersistentVolumeClaim>(&room).await?;
    crate::ensure!(kept.len() == 6, "kept volumes: {kept:?}");
    drop(cluster);
    let again = Cluster::create(&room, "demo", durable()).await?;
    everything_is_there(&again, &ledgers).await
}

pub(super) async fn deleted_volumes_leave_nothing(room: Arc<Room>) -> Result {
    let mut spec = durable();
    spec["persistence"]["volume"]["onDelete"] = json!("Delete");
    let cluster = Cluster::create(&room, "demo", spec).await?;
    fill(&cluster, 10).await?;
    cluster.delete().await?;
    eventually("nothing is left", Duration::from_secs(60), || async {
        let mut left = names::<PersistentVolumeClaim>(&room).await?;
        left.extend(names::<Secret>(&room).await?);
        left.extend(names::<Service>(&room).await?);
        left.extend(names::<PodDisruptionBudget>(&room).await?);
        left.extend(names::<NetworkPolicy>(&room).await?);
        left.extend(
            names::<ConfigMap>(&room).await?.into_iter().filter(|name| name != "kube-root-ca.crt"),
        );
        crate::ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}

async fn names<K>(room: &Room) -> Result<Vec<String>>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let api: Api<K> = Api::namespaced(room.world.client.clone(), &room.namespace);
    Ok(api.list(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any).collect())
}
