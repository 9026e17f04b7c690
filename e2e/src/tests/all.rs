//! Scenario 5: everything goes at once, and comes back by itself with other addresses.

use super::form::spec;
use crate::clock::{self, eventually};
use crate::cluster::{Cluster, Member};
use crate::failure::Result;
use crate::figures;
use crate::ledger::{self, Ledger, Writers};
use crate::world::Room;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Pause of a writer between two writes.
const PACE: Duration = Duration::from_millis(2);

/// Data that survives its pod, each write on disk before it is acknowledged.
pub(super) fn durable() -> Value {
    let mut spec = spec();
    spec["persistence"] =
        json!({"aof": {"fsync": "always"}, "volume": {"size": "1Gi", "onDelete": "Keep"}});
    spec
}

pub(super) async fn all_pods_deleted_at_once(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", durable()).await?;
    let writers = cluster.writers(PACE).await?;
    written(&writers, 500).await?;
    let before = cluster.members().await?;
    writers.reset_gaps();
    let start = clock::now();
    futures::future::try_join_all(before.iter().map(|member| cluster.delete_pod(&member.name)))
        .await?;
    replaced(&cluster, &before).await?;
    cluster.whole(Duration::from_secs(180)).await?;
    println!("      whole again after {}", clock::seconds(start.elapsed()));
    writers.all_resume(Duration::from_secs(30)).await?;
    let gap = writers.gaps().into_iter().max().unwrap_or_default();
    figures::tell("longest gap", gap);
    everything_is_there(&cluster, &writers.stop().await).await
}

pub(super) async fn all_nodes_restarted(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", durable()).await?;
    let ledgers = fill(&cluster, 500).await?;
    let before = cluster.members().await?;
    let nodes: BTreeSet<String> = before.iter().map(|member| member.node.clone()).collect();
    room.world.fault(|provider| {
        nodes.iter().try_for_each(|node| provider.node_power_off(node))?;
        nodes.iter().try_for_each(|node| provider.node_power_on(node))
    })?;
    let start = clock::now();
    eventually("new addresses", Duration::from_secs(180), || async {
        let old: BTreeSet<_> = before.iter().filter_map(|member| member.address).collect();
        let now: Vec<_> =
            cluster.members().await?.into_iter().filter(|member| member.ready).collect();
        let fresh =
            now.iter().filter(|member| member.address.is_some_and(|at| !old.contains(&at))).count();
        crate::ensure!(
            fresh == before.len(),
            "{fresh} of {} members have a new address",
            before.len()
        );
        Ok(())
    })
    .await?;
    cluster.whole(Duration::from_secs(180)).await?;
    println!("      whole again after {}", clock::seconds(start.elapsed()));
    everything_is_there(&cluster, &ledgers).await
}

/// Some writes to each shard; the writers have stopped when it returns.
pub(super) async fn fill(cluster: &Cluster, each: usize) -> Result<Vec<Ledger>> {
    let writers = cluster.writers(Duration::ZERO).await?;
    written(&writers, each).await?;
    Ok(writers.stop().await)
}

/// So many writes to each shard are acknowledged.
async fn written(writers: &Writers, each: usize) -> Result {
    eventually("writes to each shard", Duration::from_secs(60), || async {
        let least = writers.ledgers().iter().map(|ledger| ledger.acks.len()).min().unwrap_or(0);
        crate::ensure!(least >= each, "{least} so far");
        Ok(())
    })
    .await
}

pub(super) async fn everything_is_there(cluster: &Cluster, ledgers: &[Ledger]) -> Result {
    let loss = ledger::check(&cluster.book, cluster.password.as_deref(), ledgers).await?;
    println!("      {} writes acknowledged, {} lost", loss.acknowledged, loss.lost.len());
    crate::ensure!(
        loss.lost.is_empty(),
        "{} of {} writes lost",
        loss.lost.len(),
        loss.acknowledged
    );
    Ok(())
}

async fn replaced(cluster: &Cluster, before: &[Member]) -> Result {
    eventually("pods replaced", Duration::from_secs(120), || async {
        let now = cluster.members().await?;
        let old =
            now.iter().filter(|member| before.iter().any(|known| known.uid == member.uid)).count();
        crate::ensure!(
            old == 0 && now.len() == before.len(),
            "{} pods, {old} of them old",
            now.len()
        );
        Ok(())
    })
    .await
}
