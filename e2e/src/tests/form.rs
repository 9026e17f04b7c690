//! Scenario 1: a manifest becomes a cluster that clients of all kinds can use, and nobody without the password.

use crate::clock;
use crate::cluster::Cluster;
use crate::failure::{Context, Result};
use crate::slot::slot_of;
use crate::tools;
use crate::wire::{Connection, Reply};
use crate::world::Room;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// The bound for apply to Ready.
const READY_MAX: Duration = Duration::from_secs(20);
const KEYS: usize = 100_000;

/// Three shards with one replica each, small enough for six of them on this machine.
pub(super) fn spec() -> Value {
    json!({"shards": 3, "replicasPerShard": 1, "memory": "64Mi"})
}

pub(super) async fn forms_and_serves(room: Arc<Room>) -> Result {
    let start = clock::now();
    let mut cluster = Cluster::apply(&room, "demo", spec()).await?;
    cluster.ready(Duration::from_secs(120)).await?;
    let took = start.elapsed();
    println!("      apply to Ready: {}", clock::seconds(took));
    cluster.read_password().await?;
    cluster.whole(Duration::from_secs(60)).await?;

    let members = cluster.members().await?;
    crate::ensure!(members.len() == 6, "{} members", members.len());
    for shard in 0..3 {
        let nodes: BTreeSet<_> =
            members.iter().filter(|member| member.shard == shard).map(|m| &m.node).collect();
        crate::ensure!(nodes.len() == 2, "shard {shard} is on {nodes:?} only");
    }
    closed_without_password(&cluster).await?;
    hash_tags_stay_together(&cluster).await?;
    status_tells_the_truth(&cluster).await?;
    crate::ensure!(took <= READY_MAX, "apply to Ready took {}", clock::seconds(took));
    Ok(())
}

async fn closed_without_password(cluster: &Cluster) -> Result {
    let address = *cluster.book.all().first().context("a member")?;
    let mut stranger = Connection::open(address, None, Duration::from_secs(2)).await?;
    for command in [
        &["GET", "a"][..],
        &["SET", "a", "b"],
        &["CLUSTER", "SLOTS"],
        &["INFO"],
        &["CONFIG", "GET", "*"],
    ] {
        let reply = stranger.call(command).await?;
        let refused = matches!(&reply, Reply::Error(error) if error.starts_with("NOAUTH"));
        crate::ensure!(refused, "{command:?} without a password answered {reply:?}");
    }
    Ok(())
}

async fn hash_tags_stay_together(cluster: &Cluster) -> Result {
    let mut client = cluster.client();
    let set = client.call("{user7}a", &["MSET", "{user7}a", "1", "{user7}b", "2"]).await?.ok()?;
    crate::ensure!(set == Reply::Text("OK".to_owned()), "MSET under one tag answered {set:?}");
    let got = client.call("{user7}a", &["MGET", "{user7}a", "{user7}b"]).await?.ok()?;
    crate::ensure!(got.list().len() == 2, "MGET under one tag answered {got:?}");
    let crossed = client.call("a", &["MSET", "a", "1", "b", "2"]).await?;
    let refused = matches!(&crossed, Reply::Error(error) if error.starts_with("CROSSSLOT"));
    crate::ensure!(refused, "MSET over two slots answered {crossed:?}");
    Ok(())
}

async fn status_tells_the_truth(cluster: &Cluster) -> Result {
    let object = cluster.object().await?;
    let shards = object["status"]["shards"].as_array().context("status.shards")?;
    let told: Vec<_> = shards.iter().filter_map(|shard| shard["primary"].as_str()).collect();
    let true_ones = cluster.primaries().await?;
    crate::ensure!(told == true_ones, "status names {told:?}, the members {true_ones:?}");
    Ok(())
}

pub(super) async fn clients_of_all_kinds_fill_it(room: Arc<Room>) -> Result {
    let cluster = Cluster::create(&room, "demo", spec()).await?;
    let start = clock::now();
    redis_cli(&cluster, KEYS / 2)?;
    println!("      {} keys by redis-cli -c: {}", KEYS / 2, clock::seconds(start.elapsed()));
    let start = clock::now();
    cluster_client(&cluster, KEYS / 2)?;
    println!("      {} keys by the cluster client: {}", KEYS / 2, clock::seconds(start.elapsed()));

    let mut total = 0;
    for primary in cluster.primaries().await? {
        let mut connection = cluster.connect(&primary).await?;
        total += connection.call(&["DBSIZE"]).await?.ok()?.number().unwrap_or(0);
    }
    crate::ensure!(total == i64::try_from(KEYS)?, "{total} keys of {KEYS}");
    let keys: Vec<String> = (0..KEYS / 2)
        .step_by(97)
        .flat_map(|n| [format!("cli:{n}"), format!("client:{n}")])
        .collect();
    let values = cluster.client().get_all(&keys).await?;
    for (key, value) in keys.iter().zip(values) {
        let number = key.rsplit(':').next().unwrap_or_default();
        crate::ensure!(value.as_deref() == Some(number.as_bytes()), "{key} is {value:?}");
    }
    Ok(())
}

/// Keys in the order of their slots, so that redis-cli is redirected seldom: it follows by a new connection each time.
fn redis_cli(cluster: &Cluster, count: usize) -> Result {
    let mut keys: Vec<(u16, String)> =
        (0..count).map(|n| format!("cli:{n}")).map(|key| (slot_of(key.as_bytes()), key)).collect();
    keys.sort();
    let mut script = String::new();
    for (_, key) in &keys {
        let number = key.trim_start_matches("cli:");
        writeln!(script, "SET {key} {number}")?;
    }
    let address = *cluster.book.all().first().context("a member")?;
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let output = cluster.world.fault(|provider| {
        let mut command = provider.client_command("redis-cli".as_ref())?;
        command.args(["-c", "--no-auth-warning", "-h", &host, "-p", &port]);
        command.args(["-a", cluster.password.as_deref().unwrap_or_default()]);
        crate::sh::feed(&mut command, &script)
    })?;
    let oks = output.lines().filter(|line| line.trim() == "OK").count();
    crate::ensure!(oks == count, "redis-cli had {oks} OK of {count}");
    Ok(())
}

/// The `redis` crate's cluster client, in a process of its own that can resolve the cluster's names.
fn cluster_client(cluster: &Cluster, count: usize) -> Result {
    let address = *cluster.book.all().first().context("a member")?;
    cluster.world.fault(|provider| {
        let program = tools::this_program();
        let mut command = provider.client_command(program.as_os_str())?;
        command.args(["fill", &address.to_string(), "client", &count.to_string()]);
        command.env("LARDER_E2E_PASSWORD", cluster.password.as_deref().unwrap_or_default());
        crate::sh::run(&mut command)
    })?;
    Ok(())
}

/// What that process does: SETs `PREFIX:0` to `PREFIX:COUNT-1` in pipelines.
pub fn fill(address: &str, prefix: &str, count: usize) -> Result {
    let password = std::env::var("LARDER_E2E_PASSWORD").unwrap_or_default();
    let client = redis::cluster::ClusterClientBuilder::new([format!("redis://{address}")])
        .password(password)
        .build()
        .context("cluster client")?;
    let mut connection = client.get_connection().context("cluster client's connection")?;
    let numbers: Vec<usize> = (0..count).collect();
    for batch in numbers.chunks(1000) {
        let mut pipe = redis::cluster::cluster_pipe();
        for number in batch {
            pipe.cmd("SET").arg(format!("{prefix}:{number}")).arg(*number).ignore();
        }
        pipe.query::<()>(&mut connection).context("pipeline")?;
    }
    Ok(())
}
