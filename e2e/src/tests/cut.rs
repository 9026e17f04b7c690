//! Scenario 3: a node is cut off with its pods alive. The rest fails over; the isolated primary had stopped before.

use super::captive::Captive;
use super::form::spec;
use crate::clock::{self, eventually};
use crate::cluster::{Cluster, Member, shard_of};
use crate::failure::{Context, Failure, Result};
use crate::figures;
use crate::install;
use crate::ledger;
use crate::probes::Probes;
use crate::provider::Wire;
use crate::world::Room;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Every shard serves again within this.
const FAILOVER_MAX: Duration = Duration::from_secs(5);
const PACE: Duration = Duration::from_millis(5);

pub(super) async fn node_with_one_primary_is_cut_off(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", spec()).await?;
    let node = node_of_a_primary(&cluster).await?;
    cut_and_heal(&cluster, &node).await
}

async fn node_of_a_primary(cluster: &Cluster) -> Result<String> {
    Ok(cluster.member(&cluster.primaries().await?[0]).await?.node)
}

pub(super) async fn node_with_two_primaries_is_cut_off(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", spec()).await?;
    let node = gather_two_primaries(&cluster).await?;
    cut_and_heal(&cluster, &node).await
}

pub(super) async fn node_with_the_operator_is_cut_off(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", spec()).await?;
    let node = node_of_the_operator(&room).await?;
    move_a_primary_to(&cluster, &node).await?;
    cut_and_heal(&cluster, &node).await
}

/// A node that sends but hears nothing: half of a cut.
pub(super) async fn deaf_primary_is_replaced(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", spec()).await?;
    let node = node_of_a_primary(&cluster).await?;
    isolate_and_heal(&cluster, &node, Some(Wire::Deaf)).await
}

/// A node that hears but sends nothing: the other half.
pub(super) async fn mute_primary_is_replaced(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", spec()).await?;
    let node = node_of_a_primary(&cluster).await?;
    isolate_and_heal(&cluster, &node, Some(Wire::Mute)).await
}

/// One primary's node after the other is deaf, is mute, loses a tenth of its packets, and sends them late: what clients saw is a
/// history of one register for each key all the same.
pub(super) async fn quorum_is_linearizable_on_bad_wires(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", by_majority()).await?;
    let probes = Probes::start(&cluster.book, cluster.password.as_deref()).await?;
    for wire in [Wire::Deaf, Wire::Mute, Wire::Lossy(10), Wire::Slow(256)] {
        let node = node_of_a_primary(&cluster).await?;
        match cluster.world.fault(|provider| provider.node_impair(&node, wire)) {
            // Not in every kernel; all else is.
            Err(why) if why.to_string().contains("qdisc kind is unknown") => {
                println!("      {wire:?}: skipped, the node's kernel has no token bucket filter");
                continue;
            }
            made => made?,
        }
        let begun = clock::now();
        let serves = a_thousand_operations(&probes).await;
        println!(
            "      {wire:?}: a thousand operations on each shard in {}",
            clock::seconds(begun.elapsed())
        );
        cluster.world.fault(|provider| provider.node_heal(&node))?;
        serves?;
        cluster.whole(Duration::from_secs(120)).await?;
    }
    probes.check(Vec::new()).await
}

/// Two shards of three, where a write is acknowledged by a majority.
fn by_majority() -> Value {
    json!({"shards": 2, "replicasPerShard": 2, "memory": "64Mi", "durability": "Quorum"})
}

async fn a_thousand_operations(probes: &Probes) -> Result {
    let goal: Vec<_> = probes.tags().iter().map(|tag| (tag, probes.ended(tag) + 1000)).collect();
    eventually("both shards serve", Duration::from_secs(90), || async {
        for (tag, goal) in &goal {
            crate::ensure!(probes.ended(tag) >= *goal, "{tag}: {} of {goal}", probes.ended(tag));
        }
        Ok(())
    })
    .await
}

/// Clients on both sides of the cut write and read the same keys. With `durability: Quorum` what all of them saw is a history
/// of one register for each key, and the majority's side goes on.
pub(super) async fn quorum_is_linearizable_across_a_cut(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", by_majority()).await?;
    let probes = Probes::start(&cluster.book, cluster.password.as_deref()).await?;
    let primary = cluster.member(&cluster.primaries().await?[0]).await?;
    let address = primary.address.context("address of a primary")?.to_string();
    let tag = probes.tags()[0].clone();
    let captive = Captive::start(&cluster, &primary.node, &address, &format!("{tag}0"))?;
    eventually("the captive client writes", Duration::from_secs(10), || async {
        crate::ensure!(captive.last_ack() > 0, "{}", captive.last_line());
        Ok(())
    })
    .await?;
    cluster.world.fault(|provider| provider.node_cut(&primary.node))?;
    let cut = clock::now();
    let serves = a_thousand_operations(&probes).await;
    figures::tell("a thousand operations on each shard after the cut", cut.elapsed());
    cluster.world.fault(|provider| provider.node_heal(&primary.node))?;
    serves?;
    cluster.whole(Duration::from_secs(120)).await?;
    let seen = captive.operations();
    crate::ensure!(seen.iter().any(|one| one.end.is_some()), "the captive client saw nothing");
    probes.check(seen).await
}

/// The node of the operator that leads, by its Lease.
async fn node_of_the_operator(room: &Room) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(room.world.client.clone(), install::NAMESPACE);
    let leases = leases.list(&ListParams::default()).await?.items;
    let holders: Vec<String> =
        leases.into_iter().filter_map(|lease| lease.spec?.holder_identity).collect();
    let pods = room.world.pods(install::NAMESPACE).list(&ListParams::default()).await?.items;
    let leader = pods
        .into_iter()
        .find(|pod| holders.iter().any(|holder| holder.contains(&pod.name_any())))
        .context(format!("pod of the operator that leads; holders: {holders:?}"))?;
    leader.spec.and_then(|spec| spec.node_name).context("node of the operator")
}

async fn cut_and_heal(cluster: &Cluster, node: &str) -> Result {
    isolate_and_heal(cluster, node, None).await
}

/// `wire`: what is wrong with it, where it is not cut.
async fn isolate_and_heal(cluster: &Cluster, node: &str, wire: Option<Wire>) -> Result {
    let primaries = cluster.primaries().await?;
    let members = cluster.members().await?;
    let inside: Vec<_> = members.iter().filter(|member| member.node == node).collect();
    let isolated: Vec<_> =
        inside.iter().copied().filter(|member| primaries.contains(&member.name)).collect();
    println!(
        "      {node} has the primaries {:?}",
        isolated.iter().map(|member| &member.name).collect::<Vec<_>>()
    );
    crate::ensure!(!isolated.is_empty(), "no primary is on {node}");

    let writers = cluster.writers(PACE).await?;
    // Clients that are cut off together with the primaries: they share the machine's clock with us.
    let mut captives = Vec::new();
    for member in &isolated {
        let address = member.address.context("address of a primary")?.to_string();
        let tag = writers.tags().get(member.shard).context("tag of a shard")?;
        captives.push((
            member.shard,
            Captive::start(cluster, node, &address, &format!("{tag}captive"))?,
        ));
    }
    clock::eventually("captive clients write", Duration::from_secs(10), || async {
        for (shard, captive) in &captives {
            crate::ensure!(
                captive.last_ack() > 0,
                "none at shard {shard}: {}",
                captive.last_line()
            );
        }
        Ok(())
    })
    .await?;

    writers.reset_gaps();
    let cut_at = clock::wall_micros();
    cluster.world.fault(|provider| match wire {
        Some(wire) => provider.node_impair(node, wire),
        None => provider.node_cut(node),
    })?;
    let replaced = replaced(cluster, &isolated).await;
    let resumed = writers.all_resume(Duration::from_secs(60)).await;
    // A while of isolation in which every shard serves: what is written now must survive the heal.
    let during = writers.all_resume(Duration::from_secs(10)).await;
    let serving_since = clock::wall_micros();
    let thousand = eventually("the majority side writes on", Duration::from_secs(30), || async {
        for ledger in writers.ledgers() {
            let count = ledger.acks.iter().filter(|ack| ack.at > serving_since).count();
            crate::ensure!(count >= 300, "{count} writes so far");
        }
        Ok(())
    })
    .await;
    let gap = writers.gaps().into_iter().max().unwrap_or_default();
    let first_acks = first_acks_after_silence(&writers.ledgers(), cut_at);
    let isolated_acks: Vec<_> =
        captives.iter().map(|(shard, captive)| (*shard, captive.last_ack())).collect();
    drop(captives);
    cluster.world.fault(|provider| provider.node_heal(node))?;
    replaced.and(resumed).and(during).and(thousand)?;
    let healed = clock::now();

    figures::tell("longest gap", gap);
    for (shard, last) in &isolated_acks {
        let first =
            first_acks.get(*shard).copied().flatten().context("first write after the failover")?;
        let late = i128::from(first) - i128::from(*last);
        println!(
            "      shard {shard}: the isolated primary's last write came {} ms before the next one's first",
            late / 1000
        );
        crate::ensure!(
            late > 0,
            "shard {shard} had two primaries that acknowledged, {} ms long",
            -late / 1000
        );
    }
    cluster.whole(Duration::from_secs(120)).await?;
    followed_again(cluster, &isolated).await?;
    figures::tell("all in sync after it was healed", healed.elapsed());
    let ledgers = writers.stop().await;
    let loss = ledger::check(&cluster.book, cluster.password.as_deref(), &ledgers).await?;
    let after: Vec<_> = loss.lost.iter().filter(|ack| ack.at > cut_at + micros(gap)).collect();
    println!("      {} writes acknowledged, {} of them lost", loss.acknowledged, loss.lost.len());
    crate::ensure!(after.is_empty(), "{} writes of the majority side lost on healing", after.len());
    crate::ensure!(gap <= FAILOVER_MAX, "a shard did not serve for {}", clock::seconds(gap));
    Ok(())
}

/// Waits until the rest of the cluster knows other primaries. Only then does a write tell of the failover: a reply of the old
/// one may have been on its way.
async fn replaced(cluster: &Cluster, isolated: &[&Member]) -> Result {
    eventually("other primaries", Duration::from_secs(60), || async {
        let primaries = cluster.primaries().await?;
        let still = isolated.iter().find(|member| primaries.contains(&member.name));
        crate::ensure!(still.is_none(), "{primaries:?}");
        Ok(())
    })
    .await
}

/// Waits until each primary has a replica.
async fn followed_again(cluster: &Cluster, isolated: &[&Member]) -> Result {
    eventually("each primary is followed", Duration::from_secs(60), || async {
        for primary in cluster.primaries().await? {
            let old = isolated.iter().any(|member| member.name == primary);
            crate::ensure!(!old, "a member asked takes {primary} for the primary still");
            let following = cluster.replicas_of(&primary).await?;
            crate::ensure!(following > 0, "nobody follows {primary}");
        }
        Ok(())
    })
    .await
}

/// For each ledger, the first acknowledgement after its longest silence since the cut.
fn first_acks_after_silence(ledgers: &[ledger::Ledger], cut_at: u64) -> Vec<Option<u64>> {
    let first = |ledger: &ledger::Ledger| {
        let before = ledger.acks.iter().rposition(|ack| ack.at <= cut_at)?;
        let since = ledger.acks.get(before..)?;
        let longest = since.windows(2).max_by_key(|pair| pair[1].at - pair[0].at)?;
        Some(longest[1].at)
    };
    ledgers.iter().map(first).collect()
}

/// Makes primaries fail over until some node has two of them; returns the node.
pub(super) async fn gather_two_primaries(cluster: &Cluster) -> Result<String> {
    for _ in 0..4 {
        let members = cluster.members().await?;
        let primaries = cluster.primaries().await?;
        let on = |node: &str| {
            let here = members.iter().filter(|member| member.node == node);
            here.filter(|member| primaries.contains(&member.name)).count()
        };
        let mut nodes: Vec<_> = members.iter().map(|member| member.node.clone()).collect();
        nodes.sort();
        nodes.dedup();
        if let Some(node) = nodes.iter().find(|node| on(node) == 2) {
            return Ok(node.clone());
        }
        // A node that has one, and a replica of another shard: fail that shard over to it.
        let target = nodes.iter().find(|node| on(node) == 1).context("a node with one primary")?;
        let shard = members
            .iter()
            .find(|member| &member.node == target && !primaries.contains(&member.name))
            .map(|member| member.shard)
            .context("a replica on that node")?;
        fail_over(cluster, shard).await?;
    }
    Err(Failure::new("no node came to have two primaries"))
}

/// Makes sure that a node has a primary.
async fn move_a_primary_to(cluster: &Cluster, node: &str) -> Result {
    let primaries = cluster.primaries().await?;
    let members = cluster.members().await?;
    let here: Vec<_> = members.iter().filter(|member| member.node == node).collect();
    if here.iter().any(|member| primaries.contains(&member.name)) {
        return Ok(());
    }
    let shard = here.first().context("a member on the operator's node")?.shard;
    fail_over(cluster, shard).await
}

async fn fail_over(cluster: &Cluster, shard: usize) -> Result {
    let primary = cluster
        .primaries()
        .await?
        .into_iter()
        .find(|name| shard_of(name) == Some(shard))
        .context("primary")?;
    cluster.kill(&primary).await?;
    eventually("failover", Duration::from_secs(20), || async {
        crate::ensure!(
            !cluster.primaries().await?.contains(&primary),
            "{primary} still is primary"
        );
        Ok(())
    })
    .await?;
    cluster.whole(Duration::from_secs(120)).await?;
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
