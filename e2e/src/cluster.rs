//! One CacheCluster as the tests see it: its pods, its status, its clients.

use crate::client::{AddressBook, Client};
use crate::clock::{self, eventually};
use crate::failure::{Context, Failure, Result};
use crate::ledger::Writers;
use crate::slot::held_ms;
use crate::wire::Connection;
use crate::world::{MANAGER, Room, World, condition};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, LogParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

pub const PORT: u16 = 6379;

/// A member's pod.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub uid: String,
    pub shard: usize,
    pub node: String,
    pub address: Option<SocketAddr>,
    pub container: Option<String>,
    pub ready: bool,
}

/// The shard of a witness.
const NO_SHARD: usize = usize::MAX;

impl Member {
    fn has_data(&self) -> bool {
        self.shard != NO_SHARD
    }
}

/// One CacheCluster.
pub struct Cluster {
    pub world: Arc<World>,
    pub namespace: String,
    pub name: String,
    pub book: AddressBook,
    pub password: Option<String>,
    members_wanted: AtomicUsize,
    watcher: JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Cluster {
    /// Applies a CacheCluster and follows its pods; does not wait.
    pub async fn apply(room: &Room, name: &str, spec: Value) -> Result<Self> {
        put(&room.world, &room.namespace, name, &spec).await?;
        let book = AddressBook::default();
        let watcher = tokio::spawn(follow(
            room.world.clone(),
            room.namespace.clone(),
            name.to_owned(),
            book.clone(),
        ));
        Ok(Self {
            world: room.world.clone(),
            namespace: room.namespace.clone(),
            name: name.to_owned(),
            book,
            password: None,
            members_wanted: AtomicUsize::new(members_in(&spec)?),
            watcher,
        })
    }

    /// Applies another spec; does not wait.
    pub async fn change(&self, spec: Value) -> Result {
        self.members_wanted.store(members_in(&spec)?, Ordering::Relaxed);
        put(&self.world, &self.namespace, &self.name, &spec).await
    }

    /// Applies, waits until it is whole, and reads the password.
    pub async fn create(room: &Room, name: &str, spec: Value) -> Result<Self> {
        let mut cluster = Self::apply(room, name, spec).await?;
        cluster.ready(Duration::from_secs(90)).await?;
        cluster.read_password().await?;
        cluster.whole(Duration::from_secs(90)).await?;
        Ok(cluster)
    }

    /// The generated password, out of its Secret.
    pub async fn read_password(&mut self) -> Result {
        let secrets: Api<Secret> = Api::namespaced(self.world.client.clone(), &self.namespace);
        let secret = secrets
            .get(&format!("{}-auth", self.name))
            .await
            .context("Secret with the password")?;
        let password = secret
            .data
            .unwrap_or_default()
            .remove("password")
            .context("key password of the Secret")?;
        self.password = Some(String::from_utf8(password.0)?);
        Ok(())
    }

    pub async fn object(&self) -> Result<Value> {
        let object = self.world.clusters(&self.namespace).get(&self.name).await?;
        Ok(serde_json::to_value(object)?)
    }

    /// Waits for `Ready=True` for the present generation; returns how long it took.
    pub async fn ready(&self, limit: Duration) -> Result<Duration> {
        let start = clock::now();
        eventually("CacheCluster Ready", limit, || async {
            let object = self.object().await?;
            let ready = condition(&object, "Ready").context("condition Ready")?;
            let said = format!("{}: {}", ready["reason"], ready["message"]);
            crate::ensure!(ready["status"] == "True", "{said}");
            let generation = &object["metadata"]["generation"];
            crate::ensure!(
                &ready["observedGeneration"] == generation,
                "{said}, for an old generation"
            );
            Ok(())
        })
        .await?;
        Ok(start.elapsed())
    }

    /// Waits until it is Ready and every wanted member serves in its place.
    pub async fn whole(&self, limit: Duration) -> Result<Duration> {
        let start = clock::now();
        self.ready(limit).await?;
        eventually("all members in place", limit.saturating_sub(start.elapsed()), || async {
            let object = self.object().await?;
            let wanted_members = self.members_wanted.load(Ordering::Relaxed);
            let wanted = format!("{wanted_members}/{wanted_members}");
            let ready = object["status"]["ready"].as_str().unwrap_or_default();
            crate::ensure!(
                ready == wanted,
                "{ready} members are ready: {}",
                object["status"]["plan"]
            );
            // The status may be older than what just happened to a pod: the pods themselves are asked, too.
            let members = self.members().await?;
            let pods = members.iter().filter(|member| member.ready).count();
            crate::ensure!(pods == wanted_members, "{pods} pods are ready");
            // Whoever is named as primary can be reached: the address book and the members agree.
            self.book.set(addresses(&members));
            self.primaries().await?;
            // And a process that was just killed is not what the kubelet last saw.
            for member in members.iter().filter(|member| member.has_data()) {
                let facts = self.replication_facts(&member.name).await?;
                crate::ensure!(
                    facts.contains("larder_in_sync:1"),
                    "{} is not in sync",
                    member.name
                );
            }
            Ok(())
        })
        .await?;
        Ok(start.elapsed())
    }

    /// Its members' pods.
    pub async fn members(&self) -> Result<Vec<Member>> {
        members(&self.world, &self.namespace, &self.name).await
    }

    /// For how long moves of slots held their clients in the last so many seconds, milliseconds, as the logs of the pods that
    /// are there tell.
    pub async fn held_ms(&self, since_seconds: i64) -> Result<Vec<f64>> {
        let pods = self.world.pods(&self.namespace);
        let params = LogParams { since_seconds: Some(since_seconds), ..LogParams::default() };
        let mut held = vec![];
        for member in self.members().await? {
            // One that is just going has none to give.
            let log = pods.logs(&member.name, &params).await.unwrap_or_default();
            held.extend(held_ms(&log));
        }
        Ok(held)
    }

    pub fn client(&self) -> Client {
        Client::new(&self.book, self.password.as_deref())
    }

    /// Writers on all shards; every key is new.
    pub async fn writers(&self, pace: Duration) -> Result<Writers> {
        Writers::start(&self.book, self.password.as_deref(), pace).await
    }

    /// The primary of each shard by name, as the members themselves say.
    pub async fn primaries(&self) -> Result<Vec<String>> {
        let mut client = self.client();
        client.refresh().await?;
        let mut found = BTreeMap::new();
        for range in client.ranges() {
            let address = range.members.first().context("a primary")?;
            let name = self.book.name_at(*address).context(format!("member at {address}"))?;
            found.insert(shard_of(&name).context("shard of a member")?, name);
        }
        Ok(found.into_values().collect())
    }

    pub async fn member(&self, name: &str) -> Result<Member> {
        self.members()
            .await?
            .into_iter()
            .find(|member| member.name == name)
            .context(format!("member {name}"))
    }

    /// A connection to one member, with the password.
    pub async fn connect(&self, member: &str) -> Result<Connection> {
        let address = self.book.of(member).context(format!("address of {member}"))?;
        Connection::open(address, self.password.as_deref(), Duration::from_secs(2)).await
    }

    /// How many replicas follow a member, by its own word.
    pub async fn replicas_of(&self, member: &str) -> Result<usize> {
        Ok(self.replication_facts(member).await?.matches("state=online").count())
    }

    async fn replication_facts(&self, member: &str) -> Result<String> {
        let mut connection = self.connect(member).await?;
        let facts = connection.call(&["INFO", "replication"]).await?.ok()?;
        Ok(facts.text().unwrap_or_default())
    }

    /// `kubectl delete pod --force`.
    pub async fn delete_pod(&self, name: &str) -> Result {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.world.pods(&self.namespace).delete(name, &now).await?;
        Ok(())
    }

    /// kill -9 of the engine; Kubernetes restarts the container.
    pub async fn kill(&self, name: &str) -> Result {
        let member = self.member(name).await?;
        let container = member.container.context("a running container")?;
        self.world.fault(|provider| provider.container_kill(&member.node, &container))
    }

    /// Deletes the CacheCluster and waits until it and its pods are gone.
    pub async fn delete(&self) -> Result {
        let clusters = self.world.clusters(&self.namespace);
        clusters.delete(&self.name, &DeleteParams::default()).await?;
        eventually("end of the CacheCluster and its pods", Duration::from_secs(60), || async {
            crate::ensure!(
                clusters.get_opt(&self.name).await?.is_none(),
                "the CacheCluster is there"
            );
            let left = self.members().await?.len();
            crate::ensure!(left == 0, "{left} pods are left");
            Ok(())
        })
        .await
    }

    /// How many writes the status says were dropped, and how many failovers could not tell.
    pub async fn dropped(&self) -> Result<(i64, usize)> {
        let object = self.object().await?;
        let failovers = object["status"]["failovers"].as_array().cloned().unwrap_or_default();
        let told: i64 =
            failovers.iter().filter_map(|failover| failover["droppedWrites"].as_i64()).sum();
        let untold =
            failovers.iter().filter(|failover| failover["droppedWrites"].is_null()).count();
        Ok((told, untold))
    }
}

fn members_in(spec: &Value) -> Result<usize> {
    let shards = spec["shards"].as_u64().context("shards")?;
    let replicas = spec["replicasPerShard"].as_u64().unwrap_or(1);
    let members = usize::try_from(shards * (1 + replicas))?;
    // Two have no majority without each other: a witness comes to them.
    Ok(if members == 2 { 3 } else { members })
}

async fn put(world: &World, namespace: &str, name: &str, spec: &Value) -> Result {
    let object = json!({
        "apiVersion": "larder.dev/v1alpha1",
        "kind": "CacheCluster",
        "metadata": {"name": name},
        "spec": spec,
    });
    let patch = Patch::Apply(object);
    world.clusters(namespace).patch(name, &PatchParams::apply(MANAGER), &patch).await?;
    Ok(())
}

/// `demo-2-1` is of shard 2.
pub fn shard_of(member: &str) -> Option<usize> {
    let mut parts = member.rsplitn(3, '-');
    parts.next()?;
    parts.next()?.parse().ok()
}

async fn members(world: &World, namespace: &str, name: &str) -> Result<Vec<Member>> {
    let selector = ListParams::default().labels(&format!("larder.dev/cluster={name}"));
    let pods = world.pods(namespace).list(&selector).await?;
    Ok(pods.items.iter().map(member).collect())
}

fn member(pod: &Pod) -> Member {
    let status = pod.status.clone().unwrap_or_default();
    let label = pod.labels().get("larder.dev/shard");
    let running = status.phase.as_deref() == Some("Running");
    let ip = status.pod_ip.filter(|_| running).and_then(|ip| ip.parse().ok());
    let containers = status.container_statuses.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    Member {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        shard: label
            .and_then(|shard| shard.parse().ok())
            .or(shard_of(&pod.name_any()))
            .unwrap_or(NO_SHARD),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        address: ip.map(|ip| SocketAddr::new(ip, PORT)),
        container: containers.first().and_then(|container| container.container_id.clone()),
        ready: conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
    }
}

fn addresses(members: &[Member]) -> BTreeMap<String, SocketAddr> {
    members.iter().filter_map(|member| Some((member.name.clone(), member.address?))).collect()
}

/// Keeps the address book up to date for as long as the API answers; while it does not, the last addresses stay.
async fn follow(world: Arc<World>, namespace: String, name: String, book: AddressBook) {
    loop {
        let list =
            tokio::time::timeout(Duration::from_secs(2), members(&world, &namespace, &name)).await;
        match list {
            Ok(Ok(members)) if !members.is_empty() => book.set(addresses(&members)),
            Ok(Ok(_) | Err(Failure { .. })) | Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
