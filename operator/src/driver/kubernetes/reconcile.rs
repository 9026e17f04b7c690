//! One cluster's turn: a round of the driver, and what users see of it besides the status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::reasons::{condition, event, reason};
use crds::{CacheCluster, CacheClusterSpec, CacheClusterStatus, Condition};
use engine::bus::tls::Tls;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::build::{Build, Kind, Secrets};
use super::stores::Stores;
use super::{MANAGER, Settings};
use crate::Error;
use crate::desired::{Desired, Seat};
use crate::driver::Driver;
use crate::health::Health;
use crate::metrics::{Cluster, Outcome};
use crate::observed::Observed;
use crate::round::{Fate, Round, round};
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
    /// The status as it was written last: the store may still have the one before.
    pub(super) status: Option<Status>,
    /// What ended the round before it could look, when users can do something about it.
    pub(super) obstacle: Option<(&'static str, String)>,
}

/// The driver of one cluster for one round.
pub(super) struct Kubernetes<'a> {
    pub(super) context: &'a Context,
    pub(super) cluster: &'a CacheCluster,
    pub(super) namespace: String,
    pub(super) memory: &'a mut Memory,
    /// IPs of the pods, as this round saw them: a dial by IP needs no DNS.
    pub(super) ips: BTreeMap<Seat, String>,
    /// Members that are in the cluster, the council's leader first: whom wishes are put to.
    pub(super) council: Vec<Seat>,
}

impl<'a> Kubernetes<'a> {
    pub(super) fn build<'b>(&'b self, desired: &'b Desired) -> Build<'b> {
        Build { cluster: self.cluster, desired, settings: &self.context.settings }
    }
}

impl Driver for Kubernetes<'_> {
    async fn scaffold(&mut self, desired: &Desired) -> Result<(), Error> {
        self.keep_secrets(desired).await?;
        if desired.paused {
            return Ok(());
        }
        self.apply_scaffold(desired).await
    }

    async fn observe(&mut self, desired: &Desired) -> Result<Observed, Error> {
        self.look(desired).await
    }

    async fn apply(&mut self, desired: &Desired, step: &crate::plan::Step) -> Result<(), Error> {
        self.carry_out(desired, step).await
    }

    async fn record(&mut self, _: &Desired, status: &Status) -> Result<(), Error> {
        self.context.write_status(&self.namespace, &self.cluster.name_any(), status).await?;
        self.memory.status = Some(status.clone());
        Ok(())
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
        // The user's fault: nothing that runs is touched, and only a new manifest changes anything.
        Err(Error::Invalid { field, message }) => {
            let said = format!("{field}: {message}");
            context.say(&object, &mut memory, reason::INVALID_SPEC, &said).await?;
            Ok(Action::await_change())
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
    let mut driver = Kubernetes {
        context,
        cluster,
        namespace: namespace.to_owned(),
        memory,
        ips: BTreeMap::new(),
        council: Vec::new(),
    };
    let done = round(&mut driver, &desired).await?;
    let labelled = driver.label_roles(&desired, &done.observed).await;
    context.tell(cluster, &done).await;
    context.health.metrics.cluster(namespace, &desired.name, numbers(&desired, &done.status));
    labelled?;
    Ok(done.wait().min(LOOK_AGAIN_MAX))
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

    async fn write_status(
        &self,
        namespace: &str,
        name: &str,
        status: &Status,
    ) -> Result<(), Error> {
        let api: Api<DeserializeGuard<CacheCluster>> =
            Api::namespaced(self.client.clone(), namespace);
        let mut patch = json!({
            "apiVersion": CacheCluster::api_version(&()),
            "kind": CacheCluster::kind(&()),
            "metadata": {"name": name},
            "status": status,
        });
        // An apply of `{}` over fields that it owned leaves null, which the API server then refuses: an
        // empty plan is left out, and so removed.
        if let Some(fields) = patch["status"].as_object_mut() {
            fields.retain(|_, field| *field != json!({}));
        }
        self.health.metrics.write("CacheCluster");
        match api
            .patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch))
            .await
        {
            Ok(_) => Ok(()),
            // Deleted meanwhile: there is nobody left to tell.
            Err(kube::Error::Api(s)) if s.is_not_found() => Ok(()),
            Err(error) => Err(Error::world("write the status", error)),
        }
    }

    /// The first field of a spec that does not fit its type: each is tried alone.
    async fn misfit(&self, namespace: &str, name: &str) -> Option<String> {
        let kind = ApiResource::erase::<CacheCluster>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        let object = api.get_opt(name).await.ok()??;
        misfit_in(object.data.get("spec")?)
    }

    /// Sets Ready=False for this reason, and leaves the rest of the account as it is.
    async fn say(
        &self,
        object: &DeserializeGuard<CacheCluster>,
        memory: &mut Memory,
        reason: &'static str,
        message: &str,
    ) -> Result<(), Error> {
        let stored = object.0.as_ref().ok().and_then(|c| c.status.clone());
        let past = memory.status.clone().or(stored).unwrap_or_default();
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let status = held_up(&past, object.meta().generation, reason, message, &now);
        if status != past {
            let namespace = object.namespace().unwrap_or_default();
            self.write_status(&namespace, &object.name_any(), &status).await?;
            memory.status = Some(status);
            self.publish(object, EventType::Warning, reason, message).await;
        }
        Ok(())
    }

    /// Events of one round: its steps, the failovers that it learned of, and changes of Ready.
    async fn tell(&self, cluster: &CacheCluster, done: &Round) {
        for (planned, fate) in done.plan.steps.iter().zip(&done.fates) {
            match fate {
                Fate::Skipped => {}
                Fate::Done => {
                    self.health.metrics.step(planned.rule, true);
                    self.publish(cluster, EventType::Normal, planned.rule, &planned.why).await;
                }
                Fate::Failed(error) => {
                    self.health.metrics.step(planned.rule, false);
                    let note = format!("{}: {error}", planned.step);
                    tracing::warn!(cluster = cluster.name_any(), rule = planned.rule, "{note}");
                    self.publish(cluster, EventType::Warning, event::STEP_FAILED, &note).await;
                }
            }
        }
        let past = done.observed.past.as_deref();
        for (kind, reason, note) in news(past, &done.status) {
            self.publish(cluster, kind, reason, &note).await;
        }
    }

    async fn publish<K>(&self, about: &K, type_: EventType, reason: &str, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        let note: String = note.chars().take(1000).collect();
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(note),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &about.object_ref(&())).await {
            // An account that could not be given changes nothing of what was done.
            tracing::debug!("cannot publish an event: {error}");
        }
    }
}

/// What is new in an account, as events.
fn news(past: Option<&Status>, now: &Status) -> Vec<(EventType, &'static str, String)> {
    let mut news = Vec::new();
    let known = |f: &crds::FailoverStatus| {
        past.is_some_and(|p| p.failovers.iter().any(|k| k.shard == f.shard && k.epoch == f.epoch))
    };
    // Without an earlier account nobody knows what is new.
    for failover in now.failovers.iter().filter(|f| past.is_some() && !known(f)) {
        let from = failover.from.as_deref().unwrap_or("nobody");
        let dropped = match failover.dropped_writes {
            Some(writes) => format!("{writes} acknowledged writes dropped"),
            None => "acknowledged writes that were dropped are counted when it returns".into(),
        };
        let note = format!(
            "shard {}: {} is primary after {from} since epoch {}; within {} ms; {dropped}",
            failover.shard, failover.to, failover.epoch, failover.window_ms
        );
        news.push((EventType::Warning, event::FAILED_OVER, note));
    }
    if let (Some(before), Some(after)) =
        (past.map(|p| p.incarnation.unwrap_or_default()), now.incarnation)
        && before > 0
        && after > before
    {
        let note = format!("all members had lost their memory; incarnation {after} begins empty");
        news.push((EventType::Warning, event::FORMED_ANEW, note));
    }
    let ready = |s: &Status| s.condition(condition::READY).map(|c| c.status == "True");
    let (before, after) = (past.and_then(ready).unwrap_or(false), ready(now).unwrap_or(false));
    if before != after {
        let message = now.condition(condition::READY).map(|c| c.message.clone());
        let (kind, reason) = if after {
            (EventType::Normal, event::READY)
        } else {
            (EventType::Warning, event::NOT_READY)
        };
        news.push((kind, reason, message.unwrap_or_default()));
    }
    news
}

/// The name of the first field that does not fit its type.
fn misfit_in(spec: &Value) -> Option<String> {
    let fits = |field: &str, value: &Value| {
        let mut alone = json!({"shards": 1});
        alone[field] = value.clone();
        serde_json::from_value::<CacheClusterSpec>(alone).is_ok()
    };
    let (field, _) = spec.as_object()?.iter().find(|(field, value)| !fits(field, value))?;
    Some(format!("spec.{field}"))
}

/// The account of a manifest that cannot be acted on.
fn held_up(
    past: &Status,
    generation: Option<i64>,
    reason: &str,
    message: &str,
    now: &str,
) -> CacheClusterStatus {
    let mut status = past.clone();
    status.observed_generation = generation;
    for (type_, is) in [(condition::READY, "False"), (condition::PROGRESSING, "False")] {
        let before = past.condition(type_).filter(|c| c.status == is);
        let condition = Condition {
            type_: type_.into(),
            status: is.into(),
            reason: reason.into(),
            message: message.into(),
            observed_generation: generation,
            last_transition_time: before
                .map_or_else(|| now.to_owned(), |c| c.last_transition_time.clone()),
        };
        status.conditions.retain(|c| c.type_ != type_);
        status.conditions.push(condition);
    }
    status
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
        failovers: u64::try_from(status.failovers.len()).unwrap_or_default(),
        dropped_writes: status.failovers.iter().map(|f| count(f.dropped_writes)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::FailoverStatus;

    fn status(ready: &str) -> Status {
        Status {
            conditions: vec![Condition {
                type_: "Ready".into(),
                status: ready.into(),
                reason: "Serving".into(),
                last_transition_time: "2026-01-01T00:00:00Z".into(),
                ..Condition::default()
            }],
            shards: vec![crds::ShardStatus { shard: 0, ..Default::default() }],
            ..Status::default()
        }
    }

    #[test]
    fn invalid_manifest_keeps_the_account_and_names_the_field() {
        let past = status("True");
        let say = |past: &Status, now: &str| {
            held_up(past, Some(2), reason::INVALID_SPEC, "spec.memory: must be", now)
        };
        let said = say(&past, "2026-01-02T00:00:00Z");
        let ready = said.condition("Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "InvalidSpec"));
        assert_eq!(ready.message, "spec.memory: must be");
        assert_eq!(ready.last_transition_time, "2026-01-02T00:00:00Z");
        assert_eq!(said.shards, past.shards);
        // Said again later, nothing changes, so that nothing is written.
        assert_eq!(say(&said, "2026-01-03T00:00:00Z"), said);
    }

    #[test]
    fn field_that_does_not_fit_is_found_by_name() {
        let spec = json!({"shards": 3, "memory": "1Gi", "tolerations": [{"key": 5}]});
        assert_eq!(misfit_in(&spec).as_deref(), Some("spec.tolerations"));
        assert_eq!(misfit_in(&json!({"shards": "three"})).as_deref(), Some("spec.shards"));
        assert_eq!(misfit_in(&json!({"shards": 3})), None);
    }

    #[test]
    fn failovers_and_changes_of_ready_are_news_once() {
        let before = status("True");
        let mut after = status("False");
        after.failovers.push(FailoverStatus {
            shard: 1,
            epoch: 7,
            from: Some("demo-1-0".into()),
            to: "demo-1-1".into(),
            dropped_writes: Some(3),
            window_ms: 900,
        });
        let news_of = |past, now| -> Vec<&str> {
            news(past, now).into_iter().map(|(_, reason, _)| reason).collect()
        };
        assert_eq!(news_of(Some(&before), &after), ["FailedOver", "NotReady"]);
        assert!(news_of(Some(&after), &after).is_empty());
        assert!(news_of(None, &after).is_empty(), "an operator that starts repeats no old news");
    }

    #[test]
    fn numbers_come_from_the_account() {
        let mut account = status("True");
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
