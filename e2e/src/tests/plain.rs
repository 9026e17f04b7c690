//! Clients that follow nothing, at the plain port of one member.

use crate::clock::{self, eventually};
use crate::cluster::Cluster;
use crate::failure::{Context, Result};
use crate::wire::{Connection, Reply};
use crate::world::Room;
use k8s_openapi::api::core::v1::Pod;
use kube::api::EvictParams;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PLAIN_PORT: u16 = 6380;
/// Longer than a request is put anew.
const PATIENCE: Duration = Duration::from_secs(10);
const KEYS: usize = 100;

/// They see all keys at a replica, whoever has them, and an eviction of the other shard's primary is a pause for them.
pub(super) async fn clients_that_follow_nothing_feel_no_eviction(room: Arc<Room>) -> Result {
    let spec = json!({"shards": 2, "replicasPerShard": 1, "memory": "64Mi", "plain": {}});
    let cluster = Cluster::create(&room, "demo", spec).await?;
    let object = cluster.object().await?;
    let endpoints = object["status"]["endpoints"].as_array().context("endpoints")?;
    let wanted = json!({"name": "plain", "address": format!("demo.{}.svc.cluster.local:{PLAIN_PORT}", room.namespace)});
    crate::ensure!(endpoints.contains(&wanted), "{endpoints:?}");

    let primaries = cluster.primaries().await?;
    let members = cluster.members().await?;
    let replica = members.iter().find(|m| m.shard == 0 && !primaries.contains(&m.name));
    let replica = replica.context("a replica of shard 0")?.name.clone();
    let mut client = connect(&cluster, &replica).await?;
    for i in 0..KEYS {
        client.call(&["SET", &format!("key:{i}"), &i.to_string()]).await?.ok()?;
    }
    let mut elsewhere = connect(&cluster, &primaries[1]).await?;
    for i in 0..KEYS {
        let got = elsewhere.call(&["GET", &format!("key:{i}")]).await?.ok()?;
        crate::ensure!(got.text() == Some(i.to_string()), "key:{i} is {got:?}");
    }

    let is_over = AtomicBool::new(false);
    let evict = async {
        let pods: kube::Api<Pod> = room.world.pods(&room.namespace);
        let evicted =
            eventually("the budget allows the eviction", Duration::from_secs(60), || async {
                pods.evict(&primaries[1], &EvictParams::default()).await?;
                Ok(())
            })
            .await;
        let moved = eventually("another is primary", Duration::from_secs(60), || async {
            let now = cluster.primaries().await?;
            crate::ensure!(now[1] != primaries[1], "{} is primary still", primaries[1]);
            Ok(())
        })
        .await;
        let whole = cluster.whole(Duration::from_secs(120)).await;
        is_over.store(true, Ordering::Release);
        evicted?;
        moved?;
        whole
    };
    let count = async {
        let (mut count, mut longest) = (0, Duration::ZERO);
        while !is_over.load(Ordering::Acquire) {
            for key in 0..KEYS {
                let start = clock::now();
                let reply = client.call(&["INCR", &format!("count:{key}")]).await?.ok()?;
                crate::ensure!(
                    reply == Reply::Number(count + 1),
                    "count:{key} is {reply:?} after {count}"
                );
                longest = longest.max(start.elapsed());
            }
            count += 1;
        }
        Ok((count, longest))
    };
    let (whole, counted) = futures::future::join(evict, count).await;
    whole?;
    let (count, longest) = counted?;
    println!("      {KEYS} counters to {count} each, longest wait {} ms", longest.as_millis());
    Ok(())
}

async fn connect(cluster: &Cluster, member: &str) -> Result<Connection> {
    let mut address = cluster.book.of(member).context(format!("address of {member}"))?;
    address.set_port(PLAIN_PORT);
    Connection::open(address, cluster.password.as_deref(), PATIENCE).await
}
