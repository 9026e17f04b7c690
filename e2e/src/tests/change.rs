//! Planned change under load: every member made anew, pods evicted, shards added and taken away. Nobody who
//! follows redirections feels it.

use super::form::spec;
use crate::clock::{self, eventually};
use crate::cluster::{Cluster, Member};
use crate::failure::Result;
use crate::ledger::{self, Writers};
use crate::world::Room;
use k8s_openapi::api::core::v1::Pod;
use kube::api::EvictParams;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const PACE: Duration = Duration::from_millis(2);
/// All six members made anew within this.
const ROLL_MAX: Duration = Duration::from_secs(60);

pub(super) async fn all_members_rolled_under_load(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", spec()).await?;
    let writers = cluster.writers(PACE).await?;
    let before = cluster.members().await?;
    let mut spec = spec();
    spec["annotations"] = json!({"example.com/change": "1"});
    let start = clock::now();
    cluster.change(spec).await?;
    none_of(&cluster, &before, ROLL_MAX * 2).await?;
    cluster.whole(ROLL_MAX * 2).await?;
    let took = start.elapsed();
    println!("      six members made anew in {}", clock::seconds(took));
    nothing_felt(&cluster, writers).await?;
    crate::ensure!(took <= ROLL_MAX, "it took {}", clock::seconds(took));
    Ok(())
}

/// What a drain of each primary's node does to its pod: an eviction, which the budget lets through one by one.
pub(super) async fn primaries_evicted_under_load(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", spec()).await?;
    let writers = cluster.writers(PACE).await?;
    for shard in 0..3 {
        let primary = cluster.primaries().await?[shard].clone();
        let before: Vec<Member> =
            cluster.members().await?.into_iter().filter(|m| m.name == primary).collect();
        let pods: kube::Api<Pod> = room.world.pods(&room.namespace);
        eventually("the budget allows the eviction", Duration::from_secs(60), || async {
            pods.evict(&primary, &EvictParams::default()).await?;
            Ok(())
        })
        .await?;
        none_of(&cluster, &before, Duration::from_secs(60)).await?;
        cluster.whole(Duration::from_secs(120)).await?;
    }
    nothing_felt(&cluster, writers).await
}

/// Waits until none of these pods is there any more.
async fn none_of(cluster: &Cluster, before: &[Member], limit: Duration) -> Result {
    let old: BTreeSet<&str> = before.iter().map(|member| member.uid.as_str()).collect();
    eventually("new pods in place of the old ones", limit, || async {
        let now = cluster.members().await?;
        let left = now.iter().filter(|member| old.contains(member.uid.as_str())).count();
        crate::ensure!(left == 0, "{left} of the old pods are there");
        Ok(())
    })
    .await
}

/// No write failed, none was lost, and nobody waited long.
async fn nothing_felt(cluster: &Cluster, writers: Writers) -> Result {
    let gap = writers.gaps().into_iter().max().unwrap_or_default();
    let ledgers = writers.stop().await;
    let loss = ledger::check(&cluster.book, cluster.password.as_deref(), &ledgers).await?;
    let failures: usize = ledgers.iter().map(|ledger| ledger.failures).sum();
    println!(
        "      longest write gap {} ms; {} writes acknowledged, {} lost, {failures} attempts failed",
        gap.as_millis(),
        loss.acknowledged,
        loss.lost.len()
    );
    crate::ensure!(loss.lost.is_empty(), "writes were lost");
    let last = ledgers.iter().find_map(|ledger| ledger.last_error.clone()).unwrap_or_default();
    crate::ensure!(failures == 0, "{failures} attempts failed, the last one: {last}");
    Ok(())
}
