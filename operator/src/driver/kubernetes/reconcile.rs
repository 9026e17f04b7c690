//! One cluster's turn: a round of the driver, and what users see of it besides the status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::CacheCluster;
use crds::reasons::{condition, event, reason};
use engine::bus::tls::Tls;
use k8s_openapi::api::core::v1::NodeSelectorTerm;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::{EventType, Recorder};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Settings;
use super::build::{Build, Kind, Secrets};
use super::stores::Stores;
use crate::Error;
use crate::desired::{Desired, Seat};
use crate::driver::{Driver, Recorded};
use crate::health::Health;
use crate::metrics::{Cluster, Outcome};
use crate::observed::Observed;
use crate::round::round;
use crate::status::Status;

/// The longest time between two looks at a settled cluster: a failover changes no object of
/// Kubernetes', and the labels that Services select by have to follow it.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(5);
/// After the world's fault.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Memory of each cluster, by namespace and name.
type Memories = BTreeMap<(String, String), Arc<Mutex<Memory>>>;

/// What all clusters of one scope share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) settings: Arc<Settings>,
    pub(super) stores: Stores,
    pub(super) recorder: Recorder,
    pub(super) health: Arc<Health>,
    /// Memory of each cluster, by namespace and name. It only saves work: an operator that starts
    /// with none of it does the same.
    pub(super) memories: Mutex<Memories>,
}

/// What is remembered of one cluster from round to round.
#[derive(Default)]
pub(super) struct Memory {
    /// Uid of the CacheCluster that this memory is of: another one of the same name starts afresh.
    pub(super) uid: String,
    /// Fingerprint and resource version of what was applied last.
    pub(super) applied: BTreeMap<(Kind, String), (String, String)>,
    pub(super) secrets: Option<Secrets>,
    pub(super) tls: Option<Tls>,
    /// The account as it was given last: the store may still have the one before.
    pub(super) account: Option<Account>,
    /// What ended the round before it could look, when users can do something about it.
    pub(super) obstacle: Option<(&'static str, String)>,
    /// Generation of the manifest that Kubernetes was found to take.
    pub(super) checked: Option<Option<i64>>,
    /// Where volumes can be used, as far as it was asked.
    pub(super) volumes: BTreeMap<String, Vec<NodeSelectorTerm>>,
    /// When the user's Secret was looked at last.
    pub(super) secret_seen: Option<Instant>,
}

/// An account, and the version of the object that has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    pub(super) status: Option<Status>,
    pub(super) version: Option<String>,
}

impl Memory {
    /// The account that is known, of what is stored and what was written last. A change of the manifest leaves the account
    /// as it is, and is a new version. When each of the two is another account, nobody here knows which one is older:
    /// what was written is refused if the other one came after it, and then forgotten.
    pub(super) fn account_beside(&self, stored: Account) -> Account {
        match &self.account {
            Some(written) if written.status != stored.status => written.clone(),
            _ => stored,
        }
    }
}

/// The driver of one cluster for one round.
pub(super) struct Kubernetes<'a> {
    pub(super) context: &'a Context,
    pub(super) cluster: &'a CacheCluster,
    pub(super) namespace: String,
    pub(super) memory: &'a mut Memory,
    /// What this round begins with.
    pub(super) past: Account,
    /// IPs of the pods, as this round saw them: a dial by IP needs no DNS.
    pub(super) ips: BTreeMap<Seat, String>,
    /// Members that are in the cluster, the council's leader first: whom wishes are put to.
    pub(super) council: Vec<Seat>,
    /// Shards that there are, as the account remembers them; `None`: the cluster is not formed.
    pub(super) formed: Option<u16>,
    /// What was refused this round and holds up nothing else.
    pub(super) troubles: Vec<String>,
}

impl<'a> Kubernetes<'a> {
    pub(super) fn new(
        context: &'a Context,
        cluster: &'a CacheCluster,
        namespace: &str,
        memory: &'a mut Memory,
    ) -> Self {
        let stored =
            Account { status: cluster.status.clone(), version: cluster.resource_version() };
        let past = memory.account_beside(stored);
        let formed = past.status.as_ref().and_then(formed_shards);
        Self {
            context,
            cluster,
            namespace: namespace.to_owned(),
            memory,
            past,
            ips: BTreeMap::new(),
            council: Vec::new(),
            formed,
            troubles: Vec::new(),
        }
    }

    pub(super) fn build<'b>(&'b self, desired: &'b Desired) -> Build<'b> {
        let shards = self.formed.unwrap_or_default().max(desired.shards);
        Build { cluster: self.cluster, desired, settings: &self.context.settings, shards }
    }
}

/// One more than the highest shard that was there: the lower ones may be gone before it.
fn formed_shards(past: &Status) -> Option<u16> {
    let highest = past.shards.iter().map(|s| s.shard + 1).max().unwrap_or_default();
    let shards = past.cluster_id.as_ref().and(past.shard_count).unwrap_or_default();
    u16::try_from(highest.max(shards)).ok().filter(|_| shards > 0)
}

impl Driver for Kubernetes<'_> {
    async fn scaffold(&mut self, desired: &Desired) -> Result<(), Error> {
        if desired.paused {
            return self.keep_secrets(desired).await;
        }
        self.check(desired).await?;
        self.keep_secrets(desired).await?;
        match self.apply_scaffold(desired).await {
            // Whoever runs is looked after all the same.
            Err(error) if self.formed.is_some() => {
                self.memory.obstacle = None;
                self.troubles.push(error.to_string());
                Ok(())
            }
            Err(error) => {
                let why = (reason::ROUND_FAILED, error.to_string());
                self.memory.obstacle.get_or_insert(why);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    async fn observe(&mut self, desired: &Desired) -> Result<Observed, Error> {
        self.look(desired).await
    }

    async fn apply(&mut self, desired: &Desired, step: &crate::plan::Step) -> Result<(), Error> {
        self.carry_out(desired, step).await
    }

    async fn record(&mut self, _: &Desired, status: &Status) -> Result<Recorded, Error> {
        let next = Account { status: Some(status.clone()), version: self.past.version.clone() };
        let name = self.cluster.name_any();
        self.context.give_account(&self.namespace, &name, next, self.memory).await
    }
}

/// Brings one cluster a step nearer to its manifest.
pub(super) async fn reconcile(
    object: Arc<DeserializeGuard<CacheCluster>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    if object.meta().deletion_timestamp.is_some() {
        context.forget(&namespace, &name).await;
        return Ok(Action::await_change());
    }
    let memory = context.memory_of(&namespace, &name).await;
    let mut memory = memory.lock().await;
    let uid = object.uid().unwrap_or_default();
    if memory.uid != uid {
        *memory = Memory { uid, ..Memory::default() };
    }
    let began = tokio::time::Instant::now();
    let result = match &object.0 {
        Ok(cluster) => turn(&context, cluster, &namespace, &mut memory).await,
        Err(invalid) => Err(Error::Invalid {
            field: context.misfit(&namespace, &name).await.unwrap_or_else(|| "spec".into()),
            message: invalid.error.clone(),
        }),
    };
    let outcome = match &result {
        Ok(_) => Outcome::Done,
        Err(Error::Invalid { .. }) => Outcome::Invalid,
        Err(Error::World { .. }) => Outcome::Failed,
    };
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    context.health.metrics.round(outcome, took);
    match result {
        Ok(wait) => Ok(Action::requeue(wait)),
        // The user's fault: nothing that runs is touched, and only a new manifest changes anything. But
        // the council goes on deciding, and Services have to follow it.
        Err(Error::Invalid { field, message }) => {
            let said = format!("{field}: {message}");
            context.say(&object, &mut memory, reason::INVALID_SPEC, &said).await?;
            follow_council(&context, &object, &namespace, &mut memory).await;
            Ok(Action::requeue(LOOK_AGAIN_MAX))
        }
        Err(error) => {
            match memory.obstacle.take() {
                Some((reason, message)) => {
                    context.say(&object, &mut memory, reason, &message).await?;
                }
                None => {
                    let note = error.to_string();
                    let kind = EventType::Warning;
                    context.publish(&*object, kind, event::ROUND_FAILED, &note).await;
                }
            }
            Err(error)
        }
    }
}

/// What follows from an error that is not the user's.
pub(super) fn error_policy(
    object: Arc<DeserializeGuard<CacheCluster>>,
    error: &Error,
    _: Arc<Context>,
) -> Action {
    let cluster = object.name_any();
    tracing::warn!(namespace = object.namespace(), cluster, "round failed: {error}");
    Action::requeue(TRY_AGAIN)
}

async fn turn(
    context: &Context,
    cluster: &CacheCluster,
    namespace: &str,
    memory: &mut Memory,
) -> Result<Duration, Error> {
    let desired = Desired::of(cluster)?;
    let mut driver = Kubernetes::new(context, cluster, namespace, memory);
    let done = round(&mut driver, &desired).await?;
    let labelled = driver.label_roles(&desired, &done.observed).await;
    context.tell(cluster, &done).await;
    context.health.metrics.cluster(namespace, &desired.name, numbers(&desired, &done.status));
    labelled?;
    Ok(done.wait().min(LOOK_AGAIN_MAX))
}

/// Keeps the labels that Services select by true for a cluster whose manifest cannot be acted on. All that
/// this takes is its name.
async fn follow_council(
    context: &Context,
    object: &DeserializeGuard<CacheCluster>,
    namespace: &str,
    memory: &mut Memory,
) {
    let stand_in = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "CacheCluster",
        "metadata": object.meta(), "spec": {"shards": 1},
    });
    let Ok(cluster) = serde_json::from_value::<CacheCluster>(stand_in) else { return };
    let Ok(desired) = Desired::of(&cluster) else { return };
    let mut driver = Kubernetes::new(context, &cluster, namespace, memory);
    driver.recall_identity(&desired.name);
    let followed = match driver.look(&desired).await {
        Ok(observed) => driver.label_roles(&desired, &observed).await,
        Err(error) => Err(error),
    };
    if let Err(error) = followed {
        tracing::warn!(namespace, cluster = desired.name, "labels do not follow: {error}");
    }
}

impl Context {
    async fn memory_of(&self, namespace: &str, name: &str) -> Arc<Mutex<Memory>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.memories.lock().await.entry(key).or_default().clone()
    }

    /// The cluster is gone, or going.
    pub(super) async fn forget(&self, namespace: &str, name: &str) {
        self.memories.lock().await.remove(&(namespace.to_owned(), name.to_owned()));
        self.health.metrics.forget(namespace, name);
    }
}

fn numbers(desired: &Desired, status: &Status) -> Cluster {
    let is = |type_: &str| status.condition(type_).is_some_and(|c| c.status == "True");
    let count = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
    let members = status.ready.as_deref().and_then(|r| r.split_once('/'));
    let part = |text: Option<&str>| text.and_then(|t| t.parse().ok()).unwrap_or_default();
    Cluster {
        ready: is(condition::READY),
        degraded: is(condition::DEGRADED),
        shards: u64::from(desired.shards),
        members_wanted: part(members.map(|m| m.1)),
        members_ready: part(members.map(|m| m.0)),
        epoch: count(status.epoch),
        moves: u64::try_from(status.moves.len()).unwrap_or_default(),
        failovers: u64::try_from(status.failovers.len()).unwrap_or_default(),
        dropped_writes: status.failovers.iter().map(|f| count(f.dropped_writes)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_there_until_the_account_does_not_name_it_any_more() {
        let shard = |shard| crds::ShardStatus { shard, ..crds::ShardStatus::default() };
        let mut past = Status { shard_count: Some(2), ..Status::default() };
        assert_eq!(formed_shards(&past), None, "nothing is formed yet");
        past.cluster_id = Some("c1".into());
        assert_eq!(formed_shards(&past), Some(2));
        past.shards = vec![shard(0), shard(4)];
        assert_eq!(formed_shards(&past), Some(5));
    }

    #[test]
    fn numbers_come_from_the_account() {
        let mut account = Status::default();
        account.conditions.push(crds::Condition {
            type_: condition::READY.into(),
            status: "True".into(),
            ..crds::Condition::default()
        });
        account.ready = Some("5/6".into());
        account.epoch = Some(12);
        let cluster: CacheCluster = serde_json::from_value(json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "CacheCluster",
            "metadata": {"name": "demo"}, "spec": {"shards": 3},
        }))
        .unwrap();
        let numbers = numbers(&Desired::of(&cluster).unwrap(), &account);
        assert!(numbers.ready && !numbers.degraded);
        assert_eq!((numbers.members_ready, numbers.members_wanted, numbers.epoch), (5, 6, 12));
    }
}
