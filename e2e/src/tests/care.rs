//! What the manifest asks of a cluster that is whole: primaries where they are to be, and a change that is tried on one
//! member first.

use super::cut::gather_two_primaries;
use super::form::spec;
use crate::clock::{self, eventually};
use crate::cluster::{Cluster, Member};
use crate::failure::{Context, Result};
use crate::ledger;
use crate::world::{Room, condition};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const PACE: Duration = Duration::from_millis(2);

/// With `primaries: Manual` they stay where failovers have brought them, until a request is written into the manifest.
pub(super) async fn primaries_are_handed_back_when_asked(room: Arc<Room>) -> Result {
    let mut spec = spec();
    spec["balance"] = json!({"primaries": "Manual"});
    let cluster = Cluster::create(&room, "demo", spec.clone()).await?;
    let node = gather_two_primaries(&cluster).await?;
    says(&cluster, "Balanced", "False").await?;
    let writers = cluster.writers(PACE).await?;
    writers.all_resume(Duration::from_secs(10)).await?;

    let asked = clock::now();
    spec["balance"]["request"] = json!("once");
    cluster.change(spec).await?;
    eventually("the request is met", Duration::from_secs(60), || async {
        let object = cluster.object().await?;
        crate::ensure!(
            object["status"]["balance"]["request"] == "once",
            "{node} had two primaries"
        );
        Ok(())
    })
    .await?;
    println!(
        "      primaries spread {} after they were asked for",
        clock::seconds(asked.elapsed())
    );
    says(&cluster, "Balanced", "True").await?;
    let (members, primaries) = (cluster.members().await?, cluster.primaries().await?);
    let nodes: BTreeSet<_> =
        members.iter().filter(|m| primaries.contains(&m.name)).map(|m| &m.node).collect();
    crate::ensure!(nodes.len() == 3, "the primaries are on {nodes:?}");
    ledger::nothing_felt(&cluster.book, cluster.password.as_deref(), writers).await
}

/// A member that cannot start with what the manifest says now is the only one: the rest is as it was and serves, and takes the
/// manifest's word back.
pub(super) async fn a_bad_change_stops_at_its_first_member(room: Arc<Room>) -> Result {
    let good = {
        let mut spec = spec();
        spec["rollout"] = json!({"readyWithin": "10s"});
        spec
    };
    let cluster = Cluster::create(&room, "demo", good.clone()).await?;
    let before = cluster.members().await?;
    let writers = cluster.writers(PACE).await?;
    let mut bad = good.clone();
    // No node has as much.
    bad["resources"] = json!({"requests": {"cpu": "1000"}});
    cluster.change(bad).await?;
    eventually("the change is stopped", Duration::from_secs(60), || async {
        let object = cluster.object().await?;
        let stalled = condition(&object, "Stalled").context("condition Stalled")?;
        crate::ensure!(stalled["reason"] == "RolloutStopped", "{}", stalled["reason"]);
        Ok(())
    })
    .await?;
    let now = cluster.members().await?;
    let is_old = |member: &&Member| before.iter().any(|b| b.uid == member.uid && member.ready);
    let kept = now.iter().filter(is_old).count();
    crate::ensure!(kept == 5, "{kept} of 6 members are as they were");

    let back = clock::now();
    cluster.change(good).await?;
    cluster.whole(Duration::from_secs(60)).await?;
    println!(
        "      whole again {} after the change was taken back",
        clock::seconds(back.elapsed())
    );
    ledger::nothing_felt(&cluster.book, cluster.password.as_deref(), writers).await
}

async fn says(cluster: &Cluster, type_: &str, status: &str) -> Result {
    eventually(&format!("{type_} is {status}"), Duration::from_secs(60), || async {
        let object = cluster.object().await?;
        let said = condition(&object, type_).context("the condition")?;
        crate::ensure!(said["status"] == status, "{}: {}", said["reason"], said["message"]);
        Ok(())
    })
    .await
}
