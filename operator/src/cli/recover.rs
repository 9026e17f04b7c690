//! `larder recover`: what it costs to go on without a lost council, and the word that it be done.

use crds::CacheCluster;
use crds::reasons::{condition, reason};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::RecoverArgs;
use crate::Error;

pub(super) async fn recover(args: RecoverArgs) -> Result<(), Error> {
    // The one provider of the tree; a second call finds it there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let failed = |what: &str| format!("{what} CacheCluster {}", args.name);
    let client =
        Client::try_default().await.map_err(|e| Error::world("reach the API server", e))?;
    let namespace = args.namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let api: Api<CacheCluster> = Api::namespaced(client, &namespace);
    let cluster = api.get(&args.name).await.map_err(|e| Error::world(failed("read"), e))?;
    let Lost { message, next } =
        lost(&cluster).map_err(|why| Error::world(failed("recover"), why))?;
    println!("{message}");
    if !args.yes {
        println!("Nothing was done. To go on with what is left as incarnation {next}: add --yes.");
        return Ok(());
    }
    // Only this object as it was read: what was stated is what is agreed to.
    let patch = json!({
        "metadata": {"resourceVersion": cluster.resource_version()},
        "spec": {"recovery": {"incarnation": next}},
    });
    api.patch(&args.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map_err(|e| Error::world(failed("change"), e))?;
    println!(
        "spec.recovery.incarnation is {next}: `kubectl get cacheclusters -w` shows what comes of it."
    );
    Ok(())
}

/// What the status says of a council that is lost.
#[derive(Debug, PartialEq, Eq)]
struct Lost {
    message: String,
    /// The incarnation as which those who are left may go on.
    next: i64,
}

fn lost(cluster: &CacheCluster) -> Result<Lost, String> {
    let status = cluster.status.as_ref().ok_or("the operator has not looked at it yet")?;
    if status.observed_generation != cluster.metadata.generation {
        return Err("the operator has not looked at the manifest as it is now; try again".into());
    }
    let ready = status.condition(condition::READY).filter(|c| c.reason == reason::COUNCIL_LOST);
    let Some(ready) = ready else {
        return Err("its council is not lost (Ready is not False for CouncilLost): what is missing may come back by \
                    itself, and nothing has to be given up"
            .into());
    };
    let incarnation = status.incarnation.ok_or("the status names no incarnation")?;
    Ok(Lost { message: ready.message.clone(), next: incarnation + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(reason: &str, seen: i64) -> CacheCluster {
        serde_json::from_value(json!({
            "apiVersion": "larder.dev/v1alpha1",
            "kind": "CacheCluster",
            "metadata": {"name": "demo", "generation": 3},
            "spec": {"shards": 1},
            "status": {
                "observedGeneration": seen,
                "incarnation": 1,
                "conditions": [{
                    "type": "Ready", "status": "False", "reason": reason, "message": "it costs something",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn only_a_lost_council_is_given_up_and_what_it_costs_is_said() {
        let found = lost(&cluster("CouncilLost", 3)).unwrap();
        assert_eq!(found, Lost { message: "it costs something".into(), next: 2 });
        assert!(lost(&cluster("ShardDown", 3)).unwrap_err().contains("not lost"));
        assert!(lost(&cluster("CouncilLost", 2)).unwrap_err().contains("try again"));
        let unseen = CacheCluster { status: None, ..cluster("CouncilLost", 3) };
        assert!(lost(&unseen).unwrap_err().contains("not looked"));
    }
}
