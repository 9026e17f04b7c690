//! The account: what users read of a cluster, as a function of what is wanted, seen and planned.
//!
//! It is written once a round and only when it changed, so nothing in it moves by itself: offsets are
//! rounded, and a time is when something began to be so, taken over from the account before.

use crds::reasons::{condition, reason};
use crds::{
    BalanceStatus, Blocked, Condition, FailoverStatus, MemberStatus, PlanStatus, RestartStatus,
    ShardStatus,
};
use engine::topology::{Role, Topology, slots_text};

pub use crds::CacheClusterStatus as Status;

use crate::desired::{Desired, Seat};
use crate::observed::Observed;
use crate::plan::{Plan, RULE_OF_SHARDS, Scope, Step, View, request_done};
use crate::when;

mod moves;

/// Offsets are told in steps of so many bytes.
const OFFSET_STEP: u64 = 1 << 20;
/// A list of steps in the account is cut there.
const NEXT_MAX: usize = 16;

/// The account of one round.
pub fn status(desired: &Desired, observed: &Observed, plan: &Plan) -> Status {
    let view = View::new(desired, observed);
    let past = observed.past.as_deref();
    let topology = observed.topology.as_ref();
    let wanted: Vec<Seat> = view.all_wanted().collect();
    let ready = wanted.iter().filter(|s| view.is_in_sync(**s)).count();
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Status {
        observed_generation: desired.generation,
        conditions: conditions(&view, plan, &wanted),
        ready: Some(format!("{ready}/{}", wanted.len())),
        // What was formed is not forgotten while nobody tells of it.
        shard_count: topology
            .map(|t| i32::try_from(t.shards.len()).unwrap_or(0))
            .or_else(|| past.and_then(|p| p.shard_count))
            .or(Some(0)),
        label_selector: observed.access.label_selector.clone(),
        // Once formed, always formed: a council that is silent for a while is not forgotten.
        cluster_id: topology
            .map(|t| t.cluster.clone())
            .or_else(|| past.and_then(|p| p.cluster_id.clone())),
        incarnation: topology
            .map(|t| number(t.incarnation))
            .or_else(|| past.and_then(|p| p.incarnation)),
        epoch: topology.map(|t| number(t.epoch)).or_else(|| past.and_then(|p| p.epoch)),
        shards: shards(&view),
        endpoints: observed.access.endpoints.clone(),
        auth_secret: observed.access.auth_secret.clone(),
        // Left out when it is empty: so it is stored, and so it is read again.
        plan: Some(account_of(plan, observed)).filter(|plan| *plan != PlanStatus::default()),
        moves: moves::moves(&view),
        restarting: restarting(&view, plan),
        rollout: view.rollout().cloned(),
        balance: balance(&view, plan),
        failovers: topology
            .map(failovers)
            .or_else(|| past.map(|p| p.failovers.clone()))
            .unwrap_or_default(),
    }
}

/// Whom this round restarts, and whom an earlier one was to: it may have been another operator's, which has not come to it yet.
fn restarting(view: &View<'_>, plan: &Plan) -> Vec<RestartStatus> {
    let is_planned = |seat: Seat| {
        let is_its =
            |step: &Step| matches!(step, Step::RestartMember { seat: s, .. } if *s == seat);
        plan.steps.iter().any(|p| is_its(&p.step))
    };
    let restart = |(seat, uid): (Seat, &str)| {
        let goes = is_planned(seat) || view.is_restarting(seat);
        goes.then(|| RestartStatus { member: view.name(seat), uid: uid.into() })
    };
    let bodies = view.observed.members.iter();
    let bodies = bodies.filter_map(|(seat, m)| Some((*seat, m.body.as_ref()?.uid.as_str())));
    bodies.filter_map(restart).collect()
}

/// A request is met once primaries are where they are to be.
fn balance(view: &View<'_>, plan: &Plan) -> Option<BalanceStatus> {
    let met = plan.primaries.as_ref().is_some_and(|p| p.spread == Some(true));
    let now = view.desired.balance.request.clone().filter(|_| met);
    let request = now.or_else(|| request_done(view).map(String::from))?;
    Some(BalanceStatus { request: Some(request) })
}

fn shards(view: &View<'_>) -> Vec<ShardStatus> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let member = |seat: Seat| {
        let report = view.report(seat);
        let role = match report.map(|r| r.role) {
            Some(Role::Primary) if view.is_primary(seat) => "Primary",
            Some(Role::Primary | Role::Replica) => "Replica",
            Some(Role::Witness) => "Witness",
            Some(Role::None) | None => "None",
        };
        let offset = report.and_then(|r| r.lineage.as_ref()).map(|l| l.offset);
        MemberStatus {
            name: view.name(seat),
            role: role.into(),
            ready: view.is_in_sync(seat),
            offset: offset.map(|o| number(o - o % OFFSET_STEP)),
            snapshot_time: report.and_then(|r| r.snapshot_s).map(when::text),
            node: view.body(seat).and_then(|b| b.node.clone()),
        }
    };
    let topology = view.topology();
    let shard = |id: u16| {
        let shard = topology.and_then(|t| t.shards.get(&id));
        let primary = shard.and_then(|s| s.primary.as_ref());
        ShardStatus {
            shard: i32::from(id),
            primary: primary.zip(topology).map(|(p, t)| name_of(t, p)),
            epoch: shard.map_or(0, |s| number(s.epoch)),
            slots: shard.map(|s| slots_text(&s.slots)).unwrap_or_default(),
            members: view.wanted(Scope::Shard(id)).into_iter().map(member).collect(),
        }
    };
    let is_there =
        |id: &u16| !view.goes(*id) || topology.is_some_and(|t| t.shards.contains_key(id));
    view.shards().filter(is_there).map(shard).collect()
}

/// The name of a member, or its ID when it has left.
pub fn name_of(topology: &Topology, id: &str) -> String {
    topology.members.get(id).map_or_else(|| id.to_string(), |m| m.name.clone())
}

fn failovers(topology: &Topology) -> Vec<FailoverStatus> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let failover = |f: &engine::topology::Failover| FailoverStatus {
        shard: i32::from(f.shard),
        epoch: number(f.epoch),
        from: f.from.as_ref().map(|id| name_of(topology, id)),
        to: name_of(topology, &f.to),
        dropped_writes: f.dropped_writes.map(number),
        window_ms: number(f.window_ms),
    };
    topology.failovers.iter().map(failover).collect()
}

fn account_of(plan: &Plan, observed: &Observed) -> PlanStatus {
    let past = observed.past.as_ref().and_then(|p| p.plan.as_ref());
    let past = past.map(|p| p.blocked.as_slice()).unwrap_or_default();
    let since = |reason: &str, message: &str| {
        let same = |b: &&Blocked| b.reason == reason && b.message == message;
        let alike = |b: &&Blocked| b.reason == reason;
        let known = past.iter().find(same).or_else(|| past.iter().find(alike));
        known.and_then(|b| b.since.clone()).unwrap_or_else(|| observed.now.clone())
    };
    let mut next: Vec<String> =
        plan.steps.iter().take(NEXT_MAX).map(|p| format!("{}: {}", p.rule, p.step)).collect();
    if plan.steps.len() > NEXT_MAX {
        next.push(format!("and {} more", plan.steps.len() - NEXT_MAX));
    }
    let blocked = plan.blocked.iter().map(|b| Blocked {
        reason: b.reason.into(),
        message: b.message.clone(),
        since: Some(since(b.reason, &b.message)),
    });
    PlanStatus { next, blocked: blocked.collect() }
}

/// `Ready`, `Progressing` and `Degraded`, each with one reason and one sentence, `Balanced`, and `Stalled` while
/// only a new manifest can help: kstatus calls the object failed by it, and else goes by `Ready`.
fn conditions(view: &View<'_>, plan: &Plan, wanted: &[Seat]) -> Vec<Condition> {
    let known = |(is, reason, message)| (Some(is), reason, message);
    let said = [
        (condition::READY, known(ready(view, plan, wanted))),
        (condition::PROGRESSING, known(progressing(plan))),
        (condition::DEGRADED, known(degraded(view, plan, wanted))),
    ];
    let balanced = plan.primaries.clone();
    let balanced = balanced.map(|p| (condition::BALANCED, (p.spread, p.reason, p.message)));
    let hopeless = |b: &&crate::plan::Blocked| {
        let words = [
            reason::INVALID_SPEC,
            reason::CONFIG_REFUSED,
            reason::COUNCIL_LOST,
            reason::ROLLOUT_STOPPED,
        ];
        words.contains(&b.reason)
    };
    let stalled = plan.blocked.iter().find(hopeless);
    let stalled = stalled.map(|b| (condition::STALLED, (Some(true), b.reason, b.message.clone())));
    let past = view.observed.past.as_ref();
    let make = |(type_, (is, reason, message)): (&str, (Option<bool>, &str, String))| {
        let status = is.map_or("Unknown", |is| if is { "True" } else { "False" });
        let before = past.and_then(|p| p.condition(type_)).filter(|c| c.status == status);
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message,
            observed_generation: view.desired.generation,
            last_transition_time: before
                .map_or_else(|| view.observed.now.clone(), |c| c.last_transition_time.clone()),
        }
    };
    said.into_iter().chain(balanced).chain(stalled).map(make).collect()
}

type Said = (bool, &'static str, String);

/// Every shard has a primary that serves, every member that is wanted is in the cluster, and what
/// runs is what the manifest says. A member that is lost later takes nothing away from that.
fn ready(view: &View<'_>, plan: &Plan, wanted: &[Seat]) -> Said {
    let find = |reason: &str| plan.blocked.iter().find(|b| b.reason == reason);
    if let Some(invalid) = find(reason::INVALID_SPEC) {
        return (false, reason::INVALID_SPEC, invalid.message.clone());
    }
    if view.topology().is_none() {
        let silent = find(reason::COUNCIL_SILENT);
        let stuck = find(reason::POD_STUCK);
        let why = stuck.or(silent).map_or("no cluster is formed yet", |b| b.message.as_str());
        let reason = if silent.is_some() || view.was_formed() {
            reason::COUNCIL_SILENT
        } else {
            stuck.map_or(reason::FORMING, |_| reason::POD_STUCK)
        };
        return (false, reason, why.into());
    }
    if let Some(lost) = find(reason::COUNCIL_LOST) {
        return (false, reason::COUNCIL_LOST, lost.message.clone());
    }
    let down = shards_down(view);
    if !down.is_empty() {
        let text = format!("no primary serves {}", list_of_shards(&down));
        let reason = if is_first(view) { reason::FORMING } else { reason::SHARD_DOWN };
        return (false, reason, text);
    }
    let lacking: Vec<Seat> = wanted.iter().copied().filter(|s| view.known(*s).is_empty()).collect();
    if !lacking.is_empty() {
        let missing: Vec<String> = lacking.iter().map(|s| view.name(*s)).collect();
        let text = format!("not in the cluster yet: {}", missing.join(", "));
        let else_ = if is_first(view) { reason::FORMING } else { reason::CHANGING };
        let is_new = |s: &Seat| s.shard().is_some_and(|shard| !view.serves(shard));
        let else_ = if lacking.iter().all(is_new) { reason::SCALING } else { else_ };
        return (false, find(reason::POD_STUCK).map_or(else_, |b| b.reason), text);
    }
    if let Some(refused) = find(reason::CONFIG_REFUSED) {
        return (false, reason::CONFIG_REFUSED, refused.message.clone());
    }
    if let Some(stopped) = find(reason::ROLLOUT_STOPPED) {
        return (false, reason::ROLLOUT_STOPPED, stopped.message.clone());
    }
    let old: Vec<String> = wanted
        .iter()
        .filter(|s| view.body(**s).is_some_and(|b| b.outdated))
        .map(|s| view.name(*s))
        .collect();
    if !old.is_empty() {
        let text = format!("made from an older template: {}", old.join(", "));
        return (false, reason::CHANGING, text);
    }
    let scaling = [reason::NO_ROOM, reason::MOVING_SLOTS, reason::SCALING];
    if let Some(said) = scaling.into_iter().find_map(find) {
        return (false, said.reason, said.message.clone());
    }
    let count = view.shards().filter(|s| view.serves(*s)).count();
    (true, reason::SERVING, format!("{count} of {count} shards serve"))
}

/// It was never ready, as far as the account goes.
fn is_first(view: &View<'_>) -> bool {
    let past = view.observed.past.as_ref().and_then(|p| p.condition(condition::READY));
    past.is_none_or(|c| c.reason == reason::FORMING)
}

fn progressing(plan: &Plan) -> Said {
    let paused = plan.blocked.iter().find(|b| b.reason == reason::PAUSED);
    if let Some(paused) = paused {
        return (false, reason::PAUSED, paused.message.clone());
    }
    if let Some(moving) = plan.blocked.iter().find(|b| b.reason == reason::MOVING_SLOTS) {
        return (true, reason::MOVING_SLOTS, moving.message.clone());
    }
    if let Some(first) = plan.steps.first() {
        let more = plan.steps.len() - 1;
        let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
        let scales = plan.steps.iter().any(|p| p.rule == RULE_OF_SHARDS);
        let reason = if scales { reason::SCALING } else { reason::CHANGING };
        return (true, reason, format!("{}: {}{more}", first.rule, first.step));
    }
    if let Some(stopped) = plan.blocked.iter().find(|b| b.reason == reason::ROLLOUT_STOPPED) {
        return (false, reason::ROLLOUT_STOPPED, stopped.message.clone());
    }
    let waits = |b: &&crate::plan::Blocked| b.reason != reason::INVALID_SPEC;
    match plan.blocked.iter().find(waits) {
        Some(b) => (true, b.reason, b.message.clone()),
        None => (false, reason::SETTLED, "nothing is left to do".into()),
    }
}

fn degraded(view: &View<'_>, plan: &Plan, wanted: &[Seat]) -> Said {
    if let Some(refused) = plan.blocked.iter().find(|b| b.reason == reason::CONFIG_REFUSED) {
        return (true, reason::CONFIG_REFUSED, refused.message.clone());
    }
    if !view.was_formed() {
        return (false, reason::FORMING, "no cluster is formed yet".into());
    }
    if view.topology().is_none() {
        return (true, reason::COUNCIL_SILENT, "no member tells a topology".into());
    }
    if let Some(lost) = plan.blocked.iter().find(|b| b.reason == reason::COUNCIL_LOST) {
        return (true, reason::COUNCIL_LOST, lost.message.clone());
    }
    let down = shards_down(view);
    if !down.is_empty() {
        let text = format!("no primary serves {}", list_of_shards(&down));
        return (true, reason::SHARD_DOWN, text);
    }
    let serving = view.shards().filter(|s| view.serves(*s));
    let bare: Vec<u16> =
        serving.filter(|s| view.desired.replicas > 0 && !view.has_replica(*s)).collect();
    if !bare.is_empty() {
        let text = format!("no replica is in sync in {}", list_of_shards(&bare));
        return (true, reason::NO_REPLICA, text);
    }
    // Of a shard that nobody needs yet nothing is missing.
    let counts = |s: &&Seat| s.shard().is_none_or(|shard| view.serves(shard));
    let broken = wanted.iter().filter(counts).filter(|s| !view.is_in_sync(**s));
    let missing: Vec<String> = broken.map(|s| view.name(*s)).collect();
    if missing.is_empty() {
        return (false, reason::HEALTHY, "every member is in its role and in sync".into());
    }
    (true, reason::MEMBER_LOST, format!("missing or not in sync: {}", missing.join(", ")))
}

/// Shards without a primary that was seen and serves.
fn shards_down(view: &View<'_>) -> Vec<u16> {
    let serving = view.shards().filter(|s| view.serves(*s));
    serving.filter(|s| view.acting_primary(*s).is_none()).collect()
}

fn list_of_shards(shards: &[u16]) -> String {
    let names: Vec<String> = shards.iter().take(8).map(u16::to_string).collect();
    let more =
        if shards.len() > 8 { format!(" and {} more", shards.len() - 8) } else { String::new() };
    format!("shard{} {}{more}", if shards.len() == 1 { "" } else { "s" }, names.join(", "))
}

#[cfg(test)]
mod tests {
    use crds::CacheCluster;
    use engine::topology::Report;

    use super::*;
    use crate::observed::{Member, Told};
    use crate::plan::plan;

    #[test]
    fn a_member_that_began_with_a_snapshot_says_from_when_that_is() {
        let cluster: CacheCluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "CacheCluster", "metadata": {"name": "demo"},
            "spec": {"shards": 1},
        }))
        .unwrap();
        let desired = Desired::of(&cluster).unwrap();
        let mut observed = Observed::default();
        for (index, snapshot_s) in [(0, Some(1_750_000_000)), (1, None)] {
            let seat = Seat::Data { shard: 0, index };
            observed.members.insert(seat, Member::default());
            let report = Report { snapshot_s, ..Report::default() };
            observed.hear(seat, Told { report, ..Told::default() });
        }
        let told = status(&desired, &observed, &plan(&desired, &observed));
        let times: Vec<_> =
            told.shards[0].members.iter().map(|m| m.snapshot_time.as_deref()).collect();
        assert_eq!(times, [Some("2025-06-15T15:06:40Z"), None]);
    }
}
