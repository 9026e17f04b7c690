//! What is done to a cluster that runs, and when: the part of the spec about restarts, handing back and recovery.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DURATION_PATTERN, PERCENT_PATTERN, QUANTITY_PATTERN, TIME_OF_DAY_PATTERN};

/// When primaries are handed back to where they are spread best.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.window) || !has(self.primaries) || self.primaries == 'Automatic'")
        .message("balance.window needs balance.primaries: Automatic: with Manual, primaries are handed over on request only")
)]
pub struct Balance {
    /// Whether that is done by itself.
    #[serde(default)]
    pub primaries: HandBack,
    /// The time of the day at which it is. Absent: at any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<BalanceWindow>,
    /// Any text. When it changes, primaries are handed back once, at once, whatever else is said here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub request: Option<String>,
    /// What clients of a shard may meet while slots are sent from it: when more than one request in a hundred is served in a
    /// turn longer than this, they are sent slower, but never so slow that it takes for ever. 0s: they are not. Absent: 5ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = DURATION_PATTERN))]
    #[x_kube(
        validation = Rule::new(
            "!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('0s') && duration(self) <= duration('10s'))"
        ).message("balance.maxMoveLatency must be between 0s and 10s")
    )]
    pub max_move_latency: Option<String>,
}

/// Whether primaries are handed back by themselves.
#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum HandBack {
    /// When the cluster has been whole for a while, within the window if there is one.
    #[default]
    Automatic,
    /// Only on request.
    Manual,
}

/// Part of each day.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BalanceWindow {
    /// When it opens, in UTC: HH:MM.
    #[schemars(length(max = 5), regex(pattern = TIME_OF_DAY_PATTERN))]
    pub start: String,
    /// For how long, from 1m to 24h; it may go over midnight.
    #[schemars(length(max = 16), regex(pattern = DURATION_PATTERN))]
    #[x_kube(
        validation = Rule::new(
            "!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1m') && duration(self) <= duration('24h'))"
        ).message("balance.window.duration must be between 1m and 24h")
    )]
    pub duration: String,
}

/// How members are restarted when something about them changes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.maxErrorRate) && !has(self.maxLag) || has(self.canaryPause)")
        .message("rollout.maxErrorRate and rollout.maxLag need rollout.canaryPause: they are looked at in it")
)]
pub struct Rollout {
    /// So many shards at a time; in each shard it is one member at a time.
    #[serde(default = "defaults::shards_at_once")]
    #[schemars(range(min = 1, max = 500))]
    pub shards_at_once: i32,
    /// So long the first member that was made anew has to be in sync before a second one is restarted. Absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = DURATION_PATTERN))]
    #[x_kube(
        validation = Rule::new(
            "!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('24h'))"
        ).message("rollout.canaryPause must be between 1s and 24h")
    )]
    pub canary_pause: Option<String>,
    /// When a member that was made anew is not in sync within this time, or is started again three times, nothing more
    /// is restarted until the manifest changes (RolloutStopped).
    #[serde(default = "defaults::ready_within")]
    #[schemars(length(max = 16), regex(pattern = DURATION_PATTERN))]
    #[x_kube(
        validation = Rule::new(
            "!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('10s') && duration(self) <= duration('24h'))"
        ).message("rollout.readyWithin must be between 10s and 24h")
    )]
    pub ready_within: String,
    /// When more than this share of the requests that the first member has served since it was in sync, such as 1% or 0.25%, was
    /// refused for a reason of the server's own (OOM, MISCONF, LOADING, CLUSTERDOWN, NOREPLICAS, MASTERDOWN, BUSY; ten at least),
    /// nothing more is restarted until the manifest changes. It is looked at during canaryPause. Absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), regex(pattern = PERCENT_PATTERN))]
    pub max_error_rate: Option<String>,
    /// When the first member is a replica and further behind its primary than so many bytes of writes, such as 16Mi, at the end of
    /// canaryPause, nothing more is restarted until the manifest changes. Absent: it is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = QUANTITY_PATTERN))]
    pub max_lag: Option<String>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            shards_at_once: defaults::shards_at_once(),
            canary_pause: None,
            ready_within: defaults::ready_within(),
            max_error_rate: None,
            max_lag: None,
        }
    }
}

/// A word for a cluster whose council lost the disks of its majority.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// The incarnation as which those who are left are to go on: the one in the status, and one. What only the lost ones
    /// had is lost. It has no effect while the council can still come back, nor once that incarnation is there.
    #[schemars(range(min = 2))]
    pub incarnation: i64,
}

mod defaults {
    pub(super) fn shards_at_once() -> i32 {
        1
    }
    pub(super) fn ready_within() -> String {
        "10m".into()
    }
}
