//! Planned change under load: every member made anew, pods evicted, shards added and taken away. Nobody who
//! follows redirections feels it.

use super::form::spec;
use crate::clock::{self, eventually};
use crate::cluster::{Cluster, Member};
use crate::failure::{Context, Result};
use crate::figures;
use crate::ledger::{self, Writers};
use crate::slot::slot_of;
use crate::wire::Connection;
use crate::world::Room;
use k8s_openapi::api::core::v1::Pod;
use kube::api::EvictParams;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const PACE: Duration = Duration::from_millis(2);
/// All six members made anew within this.
const ROLL_MAX: Duration = Duration::from_secs(60);
/// Slots and keys have moved within this.
const SCALE_MAX: Duration = Duration::from_secs(120);
const KEYS: usize = 300_000;

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
    figures::tell("six members made anew", took);
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

/// Shards come and go with everything that is in them, while clients write.
pub(super) async fn shards_added_and_taken_away_under_load(room: Arc<Room>) -> Result {
    let mut spec = spec();
    spec["memory"] = json!("128Mi");
    let cluster = Cluster::create(&room, "demo", spec.clone()).await?;
    let keys = fill(&cluster, KEYS).await?;
    let writers = cluster.writers(PACE).await?;
    for shards in [4, 3] {
        spec["shards"] = json!(shards);
        let start = clock::now();
        cluster.change(spec.clone()).await?;
        eventually(&format!("{shards} shards share the slots"), SCALE_MAX, || async {
            cluster.client().ensure_even(shards).await
        })
        .await?;
        figures::tell(&format!("{shards} shards share the slots"), start.elapsed());
        let mut held = cluster.held_ms(start.elapsed().as_secs().cast_signed() + 1).await?;
        held.sort_by(f64::total_cmp);
        if let (Some(median), Some(most)) = (held.get(held.len() / 2), held.last()) {
            println!("      {} moves held clients for {median} ms, {most} at most", held.len());
        }
        cluster.whole(SCALE_MAX).await?;
    }
    let values = cluster.client().get_all(&keys).await?;
    let lost = values.iter().filter(|v| v.as_deref().map(<[u8]>::len) != Some(100)).count();
    crate::ensure!(lost == 0, "{lost} of {KEYS} keys are gone");
    nothing_felt(&cluster, writers).await
}

/// Writes keys with values of 100 bytes, many at a time.
async fn fill(cluster: &Cluster, number: usize) -> Result<Vec<String>> {
    let mut client = cluster.client();
    client.refresh().await?;
    let keys: Vec<String> = (0..number).map(|i| format!("fill:{i}")).collect();
    let value = "v".repeat(100);
    let mut at: BTreeMap<SocketAddr, Vec<Vec<&str>>> = BTreeMap::new();
    for key in &keys {
        let primary = client.primary_of(slot_of(key.as_bytes())).context("owner of the slot")?;
        at.entry(primary).or_default().push(vec!["SET", key, &value]);
    }
    for (primary, requests) in at {
        let patience = Duration::from_secs(10);
        let mut connection =
            Connection::open(primary, cluster.password.as_deref(), patience).await?;
        for batch in requests.chunks(500) {
            for reply in connection.pipeline(batch).await? {
                reply.ok().context("SET")?;
            }
        }
    }
    Ok(keys)
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

async fn nothing_felt(cluster: &Cluster, writers: Writers) -> Result {
    ledger::nothing_felt(&cluster.book, cluster.password.as_deref(), writers).await
}
