//! Members that do not come back: a council without its majority, a shard of two that is one.

use super::all::{durable, everything_is_there, fill};
use crate::clock::{self, eventually};
use crate::cluster::{Cluster, Member};
use crate::failure::{Context, Result};
use crate::ledger;
use crate::wire::Reply;
use crate::world::{Room, condition};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const PACE: Duration = Duration::from_millis(1);

/// Two of three voters lose their disks. Nothing is decided any more until the manifest says so, and then the third one's data
/// are there.
pub(super) async fn council_lost_goes_on_when_told(room: Arc<Room>) -> Result {
    let mut spec = durable();
    spec["shards"] = json!(1);
    spec["replicasPerShard"] = json!(2);
    let cluster = Cluster::create(&room, "demo", spec.clone()).await?;
    let ledgers = fill(&cluster, 300).await?;
    let primary = cluster.primaries().await?[0].clone();
    let everywhere = cluster.connect(&primary).await?.call(&["WAIT", "2", "5000"]).await?;
    crate::ensure!(everywhere == Reply::Number(2), "replicas that have all: {everywhere:?}");

    let others: Vec<String> =
        cluster.members().await?.into_iter().map(|m| m.name).filter(|n| *n != primary).collect();
    // The primary's disk goes, too: who is left was a replica.
    lose_disks(&room, &cluster, &[primary.as_str(), others[0].as_str()]).await?;
    let told = eventually("the council is said to be lost", Duration::from_secs(120), || async {
        let object = cluster.object().await?;
        let ready = condition(&object, "Ready").context("condition Ready")?;
        crate::ensure!(
            ready["reason"] == "CouncilLost",
            "{}: {}",
            ready["reason"],
            ready["message"]
        );
        Ok(ready["message"].as_str().unwrap_or_default().to_owned())
    })
    .await?;
    println!("      {told}");
    crate::ensure!(told.contains(&others[1]), "the message names who is left: {told}");

    let start = clock::now();
    spec["recovery"] = json!({"incarnation": 2});
    cluster.change(spec).await?;
    cluster.whole(Duration::from_secs(120)).await?;
    println!("      whole again {} after the word", clock::seconds(start.elapsed()));
    let object = cluster.object().await?;
    crate::ensure!(object["status"]["incarnation"] == 2, "{}", object["status"]["incarnation"]);
    everything_is_there(&cluster, &ledgers).await
}

/// Deletes pods together with their volumes, and ends their processes at once: for the seconds that those of a deleted pod
/// live on the council would have its majority, and let the new ones take their places.
async fn lose_disks(room: &Room, cluster: &Cluster, members: &[&str]) -> Result {
    let all = cluster.members().await?.into_iter();
    let lost: Vec<Member> = all.filter(|m| members.contains(&m.name.as_str())).collect();
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(room.world.client.clone(), &room.namespace);
    let all = claims.list(&ListParams::default()).await?.items;
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    for member in members {
        let claim =
            all.iter().map(ResourceExt::name_any).find(|name| *name == format!("{member}-data"));
        let claim = claim.context(format!("the claim of {member}"))?;
        claims.delete(&claim, &DeleteParams::default()).await?;
    }
    let pods = room.world.pods(&room.namespace);
    futures::future::try_join_all(members.iter().map(|member| pods.delete(member, &now))).await?;
    for member in lost {
        let container = member.container.context("a running container")?;
        // Who has ended by then is not found.
        room.world.fault(|provider| provider.container_kill(&member.node, &container)).ok();
    }
    Ok(())
}

fn two(min_in_sync: usize) -> Value {
    json!({
        "shards": 1, "replicasPerShard": 1, "memory": "64Mi", "durability": "Quorum", "minInSync": min_in_sync,
    })
}

/// The other member with data.
async fn replica_of(cluster: &Cluster, primary: &str) -> Result<Member> {
    let mut members = cluster.members().await?.into_iter();
    members.find(|m| m.shard == 0 && m.name != primary).context("a replica")
}

/// With `minInSync: 1` a primary whose replica is cut off writes on after a pause, and nothing is lost.
pub(super) async fn shard_of_two_goes_on_alone(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", two(1)).await?;
    let primary = cluster.primaries().await?[0].clone();
    let replica = replica_of(&cluster, &primary).await?;
    let writers = cluster.writers(PACE).await?;
    writers.all_resume(Duration::from_secs(10)).await?;
    writers.reset_gaps();
    cluster.world.fault(|provider| provider.node_cut(&replica.node))?;
    let resumed = writers.all_resume(Duration::from_secs(30)).await;
    let gap = writers.gaps().into_iter().max().unwrap_or_default();
    cluster.world.fault(|provider| provider.node_heal(&replica.node))?;
    resumed?;
    println!("      pause without the replica: {}", clock::seconds(gap));
    cluster.whole(Duration::from_secs(120)).await?;
    let ledgers = writers.stop().await;
    let loss = ledger::check(&cluster.book, cluster.password.as_deref(), &ledgers).await?;
    crate::ensure!(loss.lost.is_empty(), "{} of {} lost", loss.lost.len(), loss.acknowledged);
    Ok(())
}

/// With `minInSync: 2` it refuses writes meanwhile, saying why, reads on, and writes again once the replica is back.
pub(super) async fn shard_of_two_waits_for_the_other(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", two(2)).await?;
    let primary = cluster.primaries().await?[0].clone();
    let mut client = cluster.connect(&primary).await?;
    client.call(&["SET", "a", "1"]).await?.ok()?;
    client.call(&["SET", "b", "1"]).await?.ok()?;
    let replica = replica_of(&cluster, &primary).await?;
    cluster.world.fault(|provider| provider.node_cut(&replica.node))?;
    let refused = eventually("writes are refused", Duration::from_secs(20), || async {
        let mut client = cluster.connect(&primary).await?;
        let refused = client.call(&["SET", "a", "2"]).await?;
        let is_clear = matches!(&refused, Reply::Error(e) if e.starts_with("NOREPLICAS"));
        crate::ensure!(is_clear, "SET answered {refused:?}");
        // Not of the key whose write may still come about: that read has to wait.
        let read = client.call(&["GET", "b"]).await?.ok()?;
        crate::ensure!(read.text().is_some(), "GET answered {read:?}");
        Ok(())
    })
    .await;
    cluster.world.fault(|provider| provider.node_heal(&replica.node))?;
    refused?;
    let start = clock::now();
    eventually("writes are taken again", Duration::from_secs(60), || async {
        let mut client = cluster.connect(&primary).await?;
        client.call(&["SET", "a", "3"]).await?.ok().map(|_| ())
    })
    .await?;
    println!(
        "      writes taken again {} after the replica is back",
        clock::seconds(start.elapsed())
    );
    cluster.whole(Duration::from_secs(60)).await?;
    Ok(())
}
