//! Scenario 3: a node is cut off with its pods alive. The rest fails over; the isolated primary had stopped before.

use super::form::spec;
use crate::clock::{self, eventually};
use crate::cluster::{Cluster, shard_of};
use crate::failure::{Context, Failure, Result};
use crate::install;
use crate::ledger;
use crate::tools;
use crate::world::Room;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Every shard serves again within this.
const FAILOVER_MAX: Duration = Duration::from_secs(5);
const PACE: Duration = Duration::from_millis(5);

pub(super) async fn node_with_one_primary_is_cut_off(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", spec()).await?;
    let primary = cluster.primaries().await?[0].clone();
    let node = cluster.member(&primary).await?.node;
    cut_and_heal(&cluster, &node).await
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
    let primaries = cluster.primaries().await?;
    let members = cluster.members().await?;
    let inside: Vec<_> = members.iter().filter(|member| member.node == node).collect();
    let isolated: Vec<_> =
        inside.iter().filter(|member| primaries.contains(&member.name)).collect();
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
        let range = writers.tags().get(member.shard).context("tag of a shard")?.clone();
        captives.push((member.shard, Captive::start(cluster, node, &address, &range)?));
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
    cluster.world.fault(|provider| provider.node_cut(node))?;
    let resumed = writers.all_resume(Duration::from_secs(60)).await;
    let gap = writers.gaps().into_iter().max().unwrap_or_default();
    let first_acks = first_acks_after_silence(&writers.ledgers(), cut_at);
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
    let isolated_acks: Vec<_> =
        captives.iter().map(|(shard, captive)| (*shard, captive.last_ack())).collect();
    drop(captives);
    cluster.world.fault(|provider| provider.node_heal(node))?;
    resumed.and(during).and(thousand)?;

    println!("      longest gap {}", clock::seconds(gap));
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
    let ledgers = writers.stop().await;
    let loss = ledger::check(&cluster.book, cluster.password.as_deref(), &ledgers).await?;
    let after: Vec<_> = loss.lost.iter().filter(|ack| ack.at > cut_at + micros(gap)).collect();
    println!("      {} writes acknowledged, {} of them lost", loss.acknowledged, loss.lost.len());
    crate::ensure!(after.is_empty(), "{} writes of the majority side lost on healing", after.len());
    crate::ensure!(gap <= FAILOVER_MAX, "a shard did not serve for {}", clock::seconds(gap));
    Ok(())
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

/// A writer in the network of a node. It prints the time of each acknowledged write.
struct Captive {
    child: Child,
    last: Arc<std::sync::Mutex<(u64, String)>>,
}

impl Captive {
    fn start(cluster: &Cluster, node: &str, address: &str, tag: &str) -> Result<Self> {
        let program = tools::this_program();
        let mut command =
            cluster.world.fault(|provider| provider.command_on_node(node, program.as_os_str()))?;
        let mut child = command
            .args(["captive", address, tag])
            .env("LARDER_E2E_PASSWORD", cluster.password.as_deref().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("output of the captive")?;
        let last = Arc::new(std::sync::Mutex::new((0, String::new())));
        let seen = last.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Some(at) = line.strip_prefix("ack ").and_then(|at| at.parse().ok()) {
                    seen.0 = at;
                }
                seen.1 = line;
            }
        });
        Ok(Self { child, last })
    }

    fn last_ack(&self) -> u64 {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    fn last_line(&self) -> String {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1.clone()
    }
}

impl Drop for Captive {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the captive process does: writes to one member, follows nobody, prints each acknowledgement's time.
pub async fn captive(address: &str, tag: &str) -> Result {
    let password = std::env::var("LARDER_E2E_PASSWORD").ok();
    let address = address.parse()?;
    let patience = Duration::from_millis(300);
    let mut connection = None;
    loop {
        let result = async {
            if connection.is_none() {
                connection = Some(
                    crate::wire::Connection::open(address, password.as_deref(), patience).await?,
                );
            }
            let open = connection.as_mut().context("connection")?;
            open.call(&["SET", &format!("{tag}captive"), "1"]).await?.ok()
        }
        .await;
        match result {
            Ok(_) => println!("ack {}", clock::wall_micros()),
            Err(failure) => {
                println!("refused: {failure}");
                connection = None;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Makes primaries fail over until some node has two of them; returns the node.
async fn gather_two_primaries(cluster: &Cluster) -> Result<String> {
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
