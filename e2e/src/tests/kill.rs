//! Scenario 2: primaries die, one way or another, and writes go on.

use super::form::spec;
use crate::clock::{self, eventually};
use crate::cluster::Cluster;
use crate::failure::Result;
use crate::figures;
use crate::ledger;
use crate::world::Room;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Writes resume within this after a primary is gone.
const GAP_MAX: Duration = Duration::from_secs(3);
const PACE: Duration = Duration::from_millis(2);

pub(super) async fn primary_deleted_or_killed_ten_times(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", spec()).await?;
    let writers = cluster.writers(PACE).await?;
    let mut gaps = Vec::new();
    for round in 0..10 {
        let shard = round % 3;
        let primary = cluster.primaries().await?[shard].clone();
        writers.reset_gaps();
        if round % 2 == 0 {
            cluster.delete_pod(&primary).await?;
        } else {
            cluster.kill(&primary).await?;
        }
        writers.all_resume(Duration::from_secs(30)).await?;
        cluster.whole(Duration::from_secs(120)).await?;
        let gap = writers.gaps().into_iter().max().unwrap_or_default();
        let fault = if round % 2 == 0 { "deleted" } else { "killed" };
        figures::tell(&format!("gap when a primary is {fault}"), gap);
        gaps.push(gap);
    }
    let ledgers = writers.stop().await;
    let loss = ledger::check(&cluster.book, cluster.password.as_deref(), &ledgers).await?;
    let (told, untold) = cluster.dropped().await?;
    println!(
        "      {} writes acknowledged, {} lost; the status tells of {told}, {untold} failovers could not tell",
        loss.acknowledged,
        loss.lost.len()
    );
    // A primary whose disk went with its pod cannot come back to tell; its window is all that can be known.
    let lost = i64::try_from(loss.lost.len())?;
    crate::ensure!(untold > 0 || lost <= told, "{lost} writes lost, the status tells of {told}");
    let worst = gaps.into_iter().max().unwrap_or_default();
    crate::ensure!(worst <= GAP_MAX, "no write for {}", clock::seconds(worst));
    Ok(())
}

pub(super) async fn empty_restart_never_wipes_its_replicas(room: Arc<Room>) -> Result {
    // Nothing is written to disk: a container that restarts is empty.
    let mut spec = spec();
    spec["persistence"] = json!({});
    let cluster = Cluster::create(&room, "demo", spec).await?;
    for shard in 0..3 {
        let writers = cluster.writers(PACE).await?;
        clock::eventually("a thousand writes to each shard", Duration::from_secs(60), || async {
            for ledger in writers.ledgers() {
                crate::ensure!(ledger.acks.len() >= 1000, "{} so far", ledger.acks.len());
            }
            Ok(())
        })
        .await?;
        let ledgers = writers.stop().await;
        let primary = cluster.primaries().await?[shard].clone();
        replicated(&cluster, &primary).await?;
        let start = clock::now();
        cluster.kill(&primary).await?;
        let promoted = eventually("another primary", Duration::from_secs(15), || async {
            let now = cluster.primaries().await?[shard].clone();
            crate::ensure!(now != primary, "{now} still is");
            Ok(now)
        })
        .await?;
        println!(
            "      {primary} restarted empty; {promoted} after {}",
            clock::seconds(start.elapsed())
        );
        cluster.whole(Duration::from_secs(120)).await?;
        let loss = ledger::check(&cluster.book, cluster.password.as_deref(), &ledgers).await?;
        crate::ensure!(
            loss.lost.is_empty(),
            "{} of {} writes lost",
            loss.lost.len(),
            loss.acknowledged
        );
    }
    Ok(())
}

/// Waits until a primary's replica has everything, so that a loss afterwards is not the tail that Async may lose.
async fn replicated(cluster: &Cluster, primary: &str) -> Result {
    eventually("the replica has everything", Duration::from_secs(10), || async {
        let mut connection = cluster.connect(primary).await?;
        let count = connection.call(&["WAIT", "1", "1000"]).await?.ok()?.number();
        crate::ensure!(count >= Some(1), "WAIT answered {count:?}");
        Ok(())
    })
    .await
}
