//! What users read beside the status of a round: events, and the account of a cluster that cannot be acted on.

use crds::reasons::{condition, event, reason};
use crds::{Blocked, CacheCluster, CacheClusterSpec, CacheClusterStatus, Condition, PlanStatus};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::MANAGER;
use super::reconcile::{Account, Context, Memory};
use crate::Error;
use crate::driver::Recorded;
use crate::round::{Fate, Round};
use crate::status::Status;

impl Context {
    /// Gives an account in place of the one that `next.version` has, and remembers it. When the object is of another version by
    /// now, nothing is written, and what is remembered is forgotten: the next round begins with what is stored.
    pub(super) async fn give_account(
        &self,
        namespace: &str,
        name: &str,
        next: Account,
        memory: &mut Memory,
    ) -> Result<Recorded, Error> {
        let api: Api<DeserializeGuard<CacheCluster>> =
            Api::namespaced(self.client.clone(), namespace);
        // (An apply of `{}` over fields that it owned would leave null, which the API server refuses: an account has none.)
        let patch = json!({
            "apiVersion": CacheCluster::api_version(&()),
            "kind": CacheCluster::kind(&()),
            "metadata": {"name": name, "resourceVersion": next.version},
            "status": next.status,
        });
        self.health.metrics.write("CacheCluster");
        match api
            .patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch))
            .await
        {
            Ok(written) => {
                let version = written.resource_version();
                memory.account = Some(Account { version, ..next });
                Ok(Recorded::Written)
            }
            Err(kube::Error::Api(s)) if s.is_conflict() => {
                memory.account = None;
                Ok(Recorded::Outdated)
            }
            // Deleted meanwhile: there is nobody left to tell.
            Err(kube::Error::Api(s)) if s.is_not_found() => Ok(Recorded::Outdated),
            Err(error) => Err(Error::world("write the status", error)),
        }
    }

    /// The object as it is written, with what no type has room for.
    async fn raw(&self, namespace: &str, name: &str) -> Result<Option<DynamicObject>, Error> {
        let kind = ApiResource::erase::<CacheCluster>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        api.get_opt(name).await.map_err(|error| Error::world("read the manifest", error))
    }

    pub(super) async fn raw_spec(&self, namespace: &str, name: &str) -> Option<Value> {
        self.raw(namespace, name).await.ok()??.data.get("spec").cloned()
    }

    /// The account of an object whose spec fits no type.
    async fn raw_account(&self, namespace: &str, name: &str) -> Result<Account, Error> {
        let Some(object) = self.raw(namespace, name).await? else { return Ok(Account::default()) };
        let status = object.data.get("status").cloned();
        let status = status.and_then(|s| serde_json::from_value(s).ok());
        Ok(Account { status, version: object.resource_version() })
    }

    /// The first field of a spec that does not fit its type: each is tried alone.
    pub(super) async fn misfit(&self, namespace: &str, name: &str) -> Option<String> {
        misfit_in(&self.raw_spec(namespace, name).await?)
    }

    /// Sets Ready=False for this reason, and leaves the rest of the account as it is.
    pub(super) async fn say(
        &self,
        object: &DeserializeGuard<CacheCluster>,
        memory: &mut Memory,
        reason: &'static str,
        message: &str,
    ) -> Result<(), Error> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let stored = match &object.0 {
            Ok(cluster) => {
                Account { status: cluster.status.clone(), version: cluster.resource_version() }
            }
            Err(_) => self.raw_account(&namespace, &name).await?,
        };
        let Account { status, version } = memory.account_beside(stored);
        let past = status.unwrap_or_default();
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let status = held_up(&past, object.meta().generation, reason, message, &now);
        if status != past {
            let next = Account { status: Some(status), version };
            if self.give_account(&namespace, &name, next, memory).await? == Recorded::Written {
                self.publish(object, EventType::Warning, reason, message).await;
            }
        }
        Ok(())
    }

    /// Events of one round: its steps, the failovers that it learned of, and changes of Ready.
    pub(super) async fn tell(&self, cluster: &CacheCluster, done: &Round) {
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
        // Who gave the account that is there now tells what is new in it.
        if done.recorded == Recorded::Outdated {
            return;
        }
        let past = done.observed.past.as_deref();
        for (kind, reason, note) in news(past, &done.status) {
            self.publish(cluster, kind, reason, &note).await;
        }
    }

    pub(super) async fn publish<K>(&self, about: &K, type_: EventType, reason: &str, note: &str)
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
        // Who goes on with what is left keeps the cluster's ID; who begins anew has another one.
        let is_same = past.is_some_and(|p| p.cluster_id == now.cluster_id);
        let (reason, note) = if is_same {
            let note =
                format!("what was left of incarnation {before} goes on as incarnation {after}");
            (event::RECOVERED, note)
        } else {
            let note =
                format!("all members had lost their memory; incarnation {after} begins empty");
            (event::FORMED_ANEW, note)
        };
        news.push((EventType::Warning, reason, note));
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
    // Only a new manifest can help: kstatus calls that failed. The rest may come about by itself.
    let stalled = (reason == reason::INVALID_SPEC).then_some((condition::STALLED, "True"));
    status.conditions.retain(|c| c.type_ != condition::STALLED);
    let said = [(condition::READY, "False"), (condition::PROGRESSING, "False")];
    for (type_, is) in said.into_iter().chain(stalled) {
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
    let blocked = past.plan.iter().flat_map(|p| &p.blocked).find(|b| b.reason == reason);
    let blocked = Blocked {
        reason: reason.into(),
        message: message.into(),
        since: blocked.and_then(|b| b.since.clone()).or_else(|| Some(now.to_owned())),
    };
    status.plan = Some(PlanStatus { next: Vec::new(), blocked: vec![blocked] });
    status
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
}
