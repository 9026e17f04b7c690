//! Scenario 4: the members decide alone. No operator, no API server, or no DNS, and a primary dies.

use super::form::spec;
use crate::clock;
use crate::cluster::Cluster;
use crate::failure::{Context, Result};
use crate::figures;
use crate::install;
use crate::ledger;
use crate::world::Room;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const GAP_MAX: Duration = Duration::from_secs(5);

pub(super) async fn failover_without_operator_and_api(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", spec()).await?;
    let deployments: Api<Deployment> =
        Api::namespaced(room.world.client.clone(), install::NAMESPACE);
    let operator = deployments.list(&ListParams::default()).await?.items;
    let operator = operator.first().context("the operator's Deployment")?.clone();
    let replicas = operator.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let name = operator.name_any();
    scale(&deployments, &name, 0).await?;
    clock::eventually("end of the operator's pods", Duration::from_secs(60), || async {
        let left =
            room.world.pods(install::NAMESPACE).list(&ListParams::default()).await?.items.len();
        crate::ensure!(left == 0, "{left} pods are left");
        Ok(())
    })
    .await?;

    let result = without_api(&room, &cluster).await;
    // Both come back, whatever happened.
    room.world.fault(|provider| provider.api_start())?;
    scale(&deployments, &name, replicas).await?;
    result?;
    cluster.whole(Duration::from_secs(120)).await?;
    Ok(())
}

async fn without_api(room: &Room, cluster: &Cluster) -> Result {
    let primary = cluster.primaries().await?[0].clone();
    let member = cluster.member(&primary).await?;
    let container = member.container.context("a running container")?;
    let writers = cluster.writers(Duration::from_millis(2)).await?;
    room.world.fault(|provider| provider.api_stop())?;
    writers.all_resume(Duration::from_secs(5)).await?;
    writers.reset_gaps();
    // The kubelet is stopped too: nobody brings the primary back.
    room.world.fault(|provider| {
        provider.kubelet_stop(&member.node)?;
        provider.container_kill(&member.node, &container)
    })?;
    let resumed = writers.all_resume(Duration::from_secs(30)).await;
    let gap = writers.gaps().into_iter().max().unwrap_or_default();
    figures::tell("longest gap without operator and API server", gap);
    room.world.fault(|provider| provider.kubelet_start(&member.node))?;
    writers.stop().await;
    resumed?;
    crate::ensure!(gap <= GAP_MAX, "a shard did not serve for {}", clock::seconds(gap));
    Ok(())
}

/// DNS is gone, and the shard's primary dies: the members know where the others are.
pub(super) async fn failover_without_dns(room: Arc<Room>) -> Result {
    let mut spec = spec();
    spec["replicasPerShard"] = json!(2);
    spec["shards"] = json!(1);
    let cluster = Cluster::create(&room, "demo", spec).await?;
    let deployments: Api<Deployment> = Api::namespaced(room.world.client.clone(), "kube-system");
    scale(&deployments, DNS, 0).await?;
    let result = without_dns(&room, &cluster).await;
    // It comes back, whatever happened.
    scale(&deployments, DNS, 2).await?;
    clock::eventually("DNS is back", Duration::from_secs(60), || async {
        let dns = deployments.get(DNS).await?;
        let ready = dns.status.and_then(|status| status.ready_replicas).unwrap_or(0);
        crate::ensure!(ready == 2, "{ready} of 2 pods are ready");
        Ok(())
    })
    .await?;
    result?;
    cluster.whole(Duration::from_secs(120)).await?;
    Ok(())
}

const DNS: &str = "coredns";

/// A primary dies, then its successor: by then the first one has come back, and follows.
async fn without_dns(room: &Room, cluster: &Cluster) -> Result {
    let of_dns = ListParams::default().labels("k8s-app=kube-dns");
    clock::eventually("end of DNS", Duration::from_secs(60), || async {
        let left = room.world.pods("kube-system").list(&of_dns).await?.items.len();
        crate::ensure!(left == 0, "{left} pods are left");
        Ok(())
    })
    .await?;
    let writers = cluster.writers(Duration::from_millis(2)).await?;
    for time in ["first", "second"] {
        writers.all_resume(Duration::from_secs(5)).await?;
        writers.reset_gaps();
        let primary = cluster.primaries().await?[0].clone();
        cluster.kill(&primary).await?;
        clock::eventually("another primary", Duration::from_secs(30), || async {
            let now = cluster.primaries().await?;
            crate::ensure!(now != [primary.clone()], "{primary} is it still");
            Ok(())
        })
        .await?;
        writers.all_resume(Duration::from_secs(30)).await?;
        let gap = writers.gaps().into_iter().max().unwrap_or_default();
        figures::tell(&format!("longest gap without DNS, {time} time"), gap);
        crate::ensure!(gap <= GAP_MAX, "a shard did not serve for {}", clock::seconds(gap));
        clock::eventually("both replicas follow", Duration::from_secs(30), || async {
            let following = cluster.replicas_of(&cluster.primaries().await?[0]).await?;
            crate::ensure!(following == 2, "{following} do");
            Ok(())
        })
        .await?;
    }
    let ledgers = writers.stop().await;
    let loss = ledger::check(&cluster.book, cluster.password.as_deref(), &ledgers).await?;
    println!("      {} writes acknowledged, {} lost", loss.acknowledged, loss.lost.len());
    Ok(())
}

async fn scale(deployments: &Api<Deployment>, name: &str, replicas: i32) -> Result {
    let patch = json!({"spec": {"replicas": replicas}});
    clock::eventually("a Deployment is scaled", Duration::from_secs(30), || async {
        deployments.patch_scale(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    })
    .await
}
