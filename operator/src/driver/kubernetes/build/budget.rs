//! The PodDisruptionBudget: a drain takes one member at a time.

use serde_json::json;

use super::labels::CLUSTER;
use super::{Build, Kind, Object};

/// At most one member of the whole cluster may be evicted at a time: one of each shard at once could
/// take the council's majority.
///
/// `minAvailable` and not `maxUnavailable`: for the latter Kubernetes would ask the CacheCluster's
/// scale subresource for the number of pods, and that one counts shards.
pub(super) fn budget(build: &Build) -> Object {
    let body = json!({
        "spec": {
            "minAvailable": build.members().saturating_sub(1),
            "selector": {"matchLabels": {CLUSTER: build.name()}},
        },
    });
    build.object(Kind::PodDisruptionBudget, build.name().to_owned(), true, body)
}
