//! The status of a CacheCluster: an account of what the last round saw. What members are and have is never read from it; only what
//! a round has begun with them (a restart, a change member by member) stands nowhere else.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the last round saw, and what it would do next.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheClusterStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Progressing and Degraded, Balanced where nodes are known, and Stalled while only a new manifest can help.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Members that are ready of those wanted, for example 5/6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Shards that have members now (status of the scale subresource).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_count: Option<i32>,
    /// Label selector of the members' pods (selector of the scale subresource).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<String>,
    /// ID of the cluster, made by the council at formation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Grows when a pure cache whose members all vanished is formed anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<i64>,
    /// Version of the topology.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Each shard with its primary, slots and members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["shard".into()]))]
    pub shards: Vec<ShardStatus>,
    /// Where clients connect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub endpoints: Vec<Endpoint>,
    /// Secret that holds the password (key password), unless auth is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret: Option<String>,
    /// What comes next, what blocks it, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// Slots on their way from one shard to another, the oldest first; absent when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<MoveStatus>,
    /// Members that are being restarted, or about to be: put down here before their bodies are ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["member".into()]))]
    pub restarting: Vec<RestartStatus>,
    /// How far a change is that takes restarts; absent: no member has to be restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// How far the requests of spec.balance are met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<BalanceStatus>,
    /// The last failovers and what each cost, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failovers: Vec<FailoverStatus>,
}

/// One member that is restarted, by whoever looks next.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestartStatus {
    /// Name of the member and of its pod.
    pub member: String,
    /// Uid of the pod that is ended: with another one it has been.
    pub uid: String,
}

/// How far a change is that takes restarts.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Fingerprint of what members are made from now.
    #[serde(default)]
    pub template: String,
    /// The member that is made anew first, where there is to be a pause after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// Since when that one is made from it, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub since: Option<String>,
    /// Since when it has been in sync, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub ready_since: Option<String>,
    /// Requests of clients that it had served by then.
    #[serde(default)]
    pub requests_before: i64,
    /// Those of them that it had refused for a reason of its own.
    #[serde(default)]
    pub faults_before: i64,
    /// The pause is over.
    #[serde(default)]
    pub passed: bool,
    /// Since when a member that was made anew has not been in sync, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub waiting_since: Option<String>,
    /// How often those that need no restart had been started again when it began.
    #[serde(default)]
    pub restarts_before: i64,
    /// Why nothing more is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// How far the requests of spec.balance are met.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BalanceStatus {
    /// The last spec.balance.request after which primaries were where they are to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// One condition, as Kubernetes' own kinds have them.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Ready, Progressing, Degraded, Balanced or Stalled.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// One word, for programs.
    pub reason: String,
    /// One sentence, for people.
    #[serde(default)]
    pub message: String,
    /// The generation of the spec that this condition speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the status last changed, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
}

/// One shard.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    /// Index of the shard, from 0.
    pub shard: i32,
    /// Name of the member that is primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Epoch since which it is.
    #[serde(default)]
    pub epoch: i64,
    /// Slots that the shard owns, for example 0-5460.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub slots: String,
    /// Its members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub members: Vec<MemberStatus>,
}

/// One member.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Name of the member and of its pod.
    pub name: String,
    /// Primary, Replica, Witness, or None while it has no role yet.
    pub role: String,
    /// Whether it serves: a primary with a lease, a replica in sync.
    pub ready: bool,
    /// Offset of its journal in bytes, rounded down to 1 MiB so that writes do not churn the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// When the snapshot was taken with which it started, RFC 3339: what came later was lost, unless another member had it. Absent:
    /// it started with a log, empty, or took everything from its primary since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub snapshot_time: Option<String>,
    /// Node that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// One address for clients.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// What it leads to: cluster, read, plain, or shard-0-primary.
    pub name: String,
    /// Host and port.
    pub address: String,
}

/// What the plan would do next.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// Steps of the next round, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
    /// Why nothing more can be done now, one sentence per reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<Blocked>,
}

/// What holds the plan up.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocked {
    /// One word, for programs.
    pub reason: String,
    /// One sentence, for people.
    pub message: String,
    /// Since when, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub since: Option<String>,
}

/// Slots on their way. How far they are is told by the source, and rounded, so that it does not churn the status.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MoveStatus {
    /// The slots, for example 5000-5460.
    pub slots: String,
    /// Index of the shard that gives them.
    pub from: i32,
    /// Index of the shard that takes them.
    pub to: i32,
    /// Keys that are copied, of a hundred; at 100 only what is written meanwhile is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<i32>,
    /// Bytes that are sent, rounded down to 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// The same of all keys, estimated from those that are sent, rounded up to 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    /// Seconds until all are sent at the rate so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<i64>,
    /// Bytes per second to which the source holds itself because its clients would feel more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

/// One failover.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailoverStatus {
    /// Index of the shard.
    pub shard: i32,
    /// Epoch of the new primary's term.
    pub epoch: i64,
    /// Name or ID of the primary before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Name or ID of the primary after.
    pub to: String,
    /// Acknowledged writes dropped; absent while the old primary has not come back to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_writes: Option<i64>,
    /// Width of the window in which writes may have been dropped, milliseconds.
    pub window_ms: i64,
}

impl CacheClusterStatus {
    /// The condition of this type, when there is one.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == type_)
    }
}
