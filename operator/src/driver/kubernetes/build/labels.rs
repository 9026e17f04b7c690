//! Labels: by them Services select, stores filter and people search.

use serde_json::{Value, json};

use crate::desired::Seat;

/// Which cluster an object belongs to.
pub const CLUSTER: &str = "larder.dev/cluster";
/// Which shard a pod or volume belongs to; a witness has none.
pub const SHARD: &str = "larder.dev/shard";
/// Which seat, for example `0-1` or `w-0`.
pub const SEAT: &str = "larder.dev/seat";
/// Which place within the shard: the same in each shard, so that first primaries are spread.
pub(super) const INDEX: &str = "larder.dev/index";
/// `primary`, `replica` or `witness`, as the council's topology says; set by nobody but the operator.
pub const ROLE: &str = "larder.dev/role";
/// Annotation of a volume: names of the labels out of the manifest, so that one is taken off again.
pub const LABELS: &str = "larder.dev/labels";
/// Annotation of a pod: fingerprint of what it was made from.
pub const TEMPLATE: &str = "larder.dev/template";
/// Annotation of pods and volumes: when the member was last about to be let into the cluster.
pub const CLAIMED: &str = "larder.dev/claimed";

/// Labels of everything that belongs to a cluster.
pub(super) fn common(cluster: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "larder",
        "app.kubernetes.io/instance": cluster,
        "app.kubernetes.io/managed-by": "larder",
        CLUSTER: cluster,
    })
}

/// Labels of a member's pod and volume, beside the common ones.
pub(super) fn member(seat: Seat) -> Value {
    match seat {
        Seat::Data { shard, index } => json!({
            "app.kubernetes.io/component": "data",
            SHARD: shard.to_string(),
            INDEX: index.to_string(),
            SEAT: seat.to_string(),
        }),
        Seat::Witness { .. } => json!({
            "app.kubernetes.io/component": "witness",
            SEAT: seat.to_string(),
        }),
    }
}

/// Selector of all pods of a cluster, as text: what the scale subresource shows.
pub fn selector(cluster: &str) -> String {
    format!("{CLUSTER}={cluster}")
}
