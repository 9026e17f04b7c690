//! Scenario 7: the chart, the examples, and manifests that must be refused.

use super::form::spec;
use crate::clock::eventually;
use crate::failure::{Context, Result};
use crate::world::{MANAGER, Room, condition};
use crate::{install, tools};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn examples_become_ready(room: Arc<Room>) -> Result {
    let folder = tools::project().join("examples");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .context("examples")?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    crate::ensure!(!files.is_empty(), "no examples in {}", folder.display());
    let clusters = room.world.clusters(&room.namespace);
    for file in files {
        let shown = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = file.display().to_string();
        room.world.fault(|provider| {
            provider.kubectl(&["-n", &room.namespace, "apply", "--server-side", "-f", &path])
        })?;
        eventually(&format!("{shown} Ready"), Duration::from_secs(120), || async {
            let list = clusters.list(&Default::default()).await?;
            crate::ensure!(!list.items.is_empty(), "no CacheCluster in it");
            for cluster in list.items {
                let object = serde_json::to_value(&cluster)?;
                let ready = condition(&object, "Ready").context("condition Ready")?;
                crate::ensure!(
                    ready["status"] == "True",
                    "{}: {}",
                    ready["reason"],
                    ready["message"]
                );
            }
            Ok(())
        })
        .await?;
        println!("      {shown} is Ready");
        clusters.delete_collection(&DeleteParams::default(), &Default::default()).await?;
        eventually("end of the example", Duration::from_secs(60), || async {
            let left = clusters.list(&Default::default()).await?.items.len();
            crate::ensure!(left == 0, "{left} CacheClusters are left");
            let pods =
                room.world.pods(&room.namespace).list(&Default::default()).await?.items.len();
            crate::ensure!(pods == 0, "{pods} pods are left");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// A change to a good manifest that makes it bad, and what the refusal must say.
struct Bad {
    path: &'static str,
    value: Value,
    says: &'static str,
}

fn bad(path: &'static str, value: Value, says: &'static str) -> Bad {
    Bad { path, value, says }
}

pub(super) async fn invalid_manifests_are_refused(room: Arc<Room>) -> Result {
    let limits = json!({"limits": {"memory": "32Mi"}});
    let table = [
        bad("/metadata/name", json!("demo-members"), "must not end in"),
        bad("/metadata/name", json!("9demo"), "metadata.name"),
        bad("/spec/shards", json!(0), "spec.shards"),
        bad("/spec/shards", json!(501), "spec.shards"),
        bad("/spec/replicasPerShard", json!(6), "spec.replicasPerShard"),
        bad("/spec/memory", json!("much"), "spec.memory"),
        bad("/spec/memory", json!("1Mi"), "memory must be at least 16Mi"),
        bad("/spec/eviction", json!("Oldest"), "spec.eviction"),
        bad("/spec/config", json!({"port": "7000"}), "are set by Larder"),
        bad("/spec/config", json!({"Save": "no"}), "lower case"),
        bad(
            "/spec/persistence",
            json!({"volume": {"size": "1Gi"}}),
            "persistence.volume needs aof or rdb",
        ),
        bad("/spec/persistence", json!({"aof": {}, "volume": {"size": "1Mi"}}), "at least memory"),
        bad("/spec/resources", limits, "larger than memory"),
        bad("/spec/failureTimeout", json!("1ms"), "failureTimeout"),
        bad("/spec/auth", json!({"secretName": "a", "disabled": true}), "contradict"),
        bad("/spec/labels", json!({"larder.dev/shard": "9"}), "belong to Larder"),
    ];
    let clusters = room.world.clusters(&room.namespace);
    for bad in table {
        let mut object = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "CacheCluster", "metadata": {"name": "demo"}, "spec": spec(),
        });
        let (parent, field) = bad.path.rsplit_once('/').context(bad.path)?;
        object.pointer_mut(parent).context(parent)?[field] = bad.value.clone();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let answer =
            clusters.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(object)).await;
        match answer {
            Ok(_) => crate::fail!("{} = {} was accepted", bad.path, bad.value),
            Err(refusal) => {
                let text = refusal.to_string();
                crate::ensure!(text.contains(bad.says), "{} = {}: {text}", bad.path, bad.value);
            }
        }
    }
    Ok(())
}

pub(super) async fn helm_test_passes(room: Arc<Room>) -> Result {
    room.world.fault(|provider| {
        install::helm(provider, &["test", install::RELEASE, "-n", install::NAMESPACE])
    })?;
    Ok(())
}
