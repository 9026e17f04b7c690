//! Whether Kubernetes takes what the manifest says, asked before anything that runs is touched.
//!
//! The CRD leaves tolerations, affinity, resources and the like to Kubernetes, which looks at them when a
//! pod is made. In a rolling restart that is too late: the pod before is gone by then. So a pod and a
//! volume are made in a dry run once per generation, and what is refused is the manifest's fault.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Resource;
use kube::api::PostParams;
use kube::core::{NamespaceResourceScope, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::MANAGER;
use super::build::{Kind, OWN_TOLERATIONS, Object};
use super::reconcile::Kubernetes;
use crate::Error;
use crate::desired::{self, Desired, Seat};

/// What a refusal of Kubernetes' own validation has for a code.
const UNPROCESSABLE: u16 = 422;

impl Kubernetes<'_> {
    /// Refuses a manifest that the CRD's rules let through and that cannot work.
    pub(super) async fn check(&mut self, desired: &Desired) -> Result<(), Error> {
        let generation = self.cluster.metadata.generation;
        if self.memory.checked == Some(generation) {
            return Ok(());
        }
        let spec = &self.cluster.spec;
        // Of an engine of another version only that one knows what it takes.
        if spec.image.is_none() {
            desired::check_config(spec)?;
        }
        let raw = self.context.raw_spec(&self.namespace, &desired.name).await;
        let typed = serde_json::to_value(spec).unwrap_or_default();
        if let Some(field) = raw.and_then(|raw| unknown_in(&raw, &typed, "spec")) {
            let message = "is not a field that Kubernetes knows".into();
            return Err(Error::Invalid { field, message });
        }
        let seat = Seat::Data { shard: 0, index: 0 };
        let build = self.build(desired);
        let (pod, claim) = (build.pod(seat), build.claim(seat));
        self.rehearse::<Pod>(&pod).await?;
        if let Some(claim) = claim {
            self.rehearse::<PersistentVolumeClaim>(&claim).await?;
        }
        self.memory.checked = Some(generation);
        Ok(())
    }

    /// Creates an object in a dry run. Only a refusal of its content counts: that the name is taken, a
    /// quota is used up or a policy says no shows when it is made.
    async fn rehearse<K>(&self, object: &Object) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let action = || format!("rehearse {}", object.name);
        let typed: K = serde_json::from_value(object.json.clone())
            .map_err(|e| Error::world(format!("build {}", object.name), e))?;
        let parameters = PostParams { dry_run: true, field_manager: Some(MANAGER.into()) };
        match self.api::<K>().create(&parameters, &typed).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == UNPROCESSABLE => {
                let (field, message) = refusal(object.kind, &status);
                Err(Error::Invalid { field, message })
            }
            Err(kube::Error::Api(status)) => {
                tracing::debug!("{}: {}", action(), status.message);
                Ok(())
            }
            Err(error) => Err(Error::world(action(), error)),
        }
    }
}

/// The field of the manifest that a refusal is about, and what Kubernetes says of it.
fn refusal(kind: Kind, status: &Status) -> (String, String) {
    let causes = status.details.as_ref().map(|d| d.causes.as_slice()).unwrap_or_default();
    match causes.first() {
        Some(cause) => (field_of(kind, &cause.field), cause.message.clone()),
        None => ("spec".into(), status.message.clone()),
    }
}

/// The field of the manifest from which a field of a pod or of a volume was made.
fn field_of(kind: Kind, field: &str) -> String {
    const POD: &[(&str, &str)] = &[
        ("spec.containers[0].resources", "spec.resources"),
        ("spec.containers[0].image", "spec.image"),
        ("spec.affinity", "spec.affinity"),
        ("spec.topologySpreadConstraints", "spec.topologySpreadConstraints"),
        ("metadata.labels", "spec.labels"),
        ("metadata.annotations", "spec.annotations"),
    ];
    const CLAIM: &[(&str, &str)] = &[
        ("spec.storageClassName", "spec.persistence.volume.storageClassName"),
        ("spec.resources", "spec.persistence.volume.size"),
        ("metadata.labels", "spec.labels"),
    ];
    // Behind those that every pod has.
    if let Some(rest) = field.strip_prefix("spec.tolerations[")
        && let Some((index, rest)) = rest.split_once(']')
        && let Some(index) = index.parse().ok().and_then(|i: usize| i.checked_sub(OWN_TOLERATIONS))
    {
        return format!("spec.tolerations[{index}]{rest}");
    }
    let table = if kind == Kind::Pod { POD } else { CLAIM };
    let made_from = table.iter().find_map(|(theirs, ours)| {
        let rest = field.strip_prefix(theirs)?;
        Some(if *ours == "spec.persistence.volume.size" {
            (*ours).to_owned()
        } else {
            format!("{ours}{rest}")
        })
    });
    made_from.unwrap_or_else(|| "spec".into())
}

/// The first field that is written and was not understood: it would be dropped in silence.
fn unknown_in(raw: &Value, typed: &Value, path: &str) -> Option<String> {
    match (raw, typed) {
        (Value::Object(raw), Value::Object(typed)) => raw.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match typed.get(name) {
                Some(known) => unknown_in(value, known, &path),
                // What says nothing may be left out.
                None => (!says_nothing(value)).then_some(path),
            }
        }),
        (Value::Array(raw), Value::Array(typed)) => raw
            .iter()
            .zip(typed)
            .enumerate()
            .find_map(|(at, (raw, typed))| unknown_in(raw, typed, &format!("{path}[{at}]"))),
        _ => None,
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn field_of_a_pod_is_told_as_the_field_of_the_manifest() {
        for (kind, theirs, ours) in [
            (Kind::Pod, "spec.containers[0].resources.requests", "spec.resources.requests"),
            (Kind::Pod, "spec.tolerations[3].effect", "spec.tolerations[1].effect"),
            (Kind::Pod, "spec.affinity.nodeAffinity", "spec.affinity.nodeAffinity"),
            (Kind::Pod, "metadata.labels", "spec.labels"),
            (Kind::Pod, "spec.hostname", "spec"),
            (
                Kind::PersistentVolumeClaim,
                "spec.storageClassName",
                "spec.persistence.volume.storageClassName",
            ),
            (
                Kind::PersistentVolumeClaim,
                "spec.resources[storage]",
                "spec.persistence.volume.size",
            ),
        ] {
            assert_eq!(field_of(kind, theirs), ours, "{theirs}");
        }
    }

    #[test]
    fn field_that_is_dropped_in_silence_is_found() {
        let typed =
            json!({"shards": 1, "affinity": {"podAffinity": {}}, "tolerations": [{"key": "a"}]});
        let found = |raw| unknown_in(&raw, &typed, "spec");
        assert_eq!(found(json!({"shards": 1, "pause": false, "labels": {}})), None);
        assert_eq!(
            found(json!({"affinity": {"nodeAfinity": {"x": 1}}})).as_deref(),
            Some("spec.affinity.nodeAfinity")
        );
        assert_eq!(
            found(json!({"tolerations": [{"key": "a", "efect": "NoSchedule"}]})).as_deref(),
            Some("spec.tolerations[0].efect")
        );
    }
}
