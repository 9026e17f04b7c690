//! The volume of one member: made beside its pod, and outliving it.

use crds::OnDelete;
use serde_json::json;

use super::labels;
use super::{Build, Kind, Object};
use crate::desired::Seat;

impl Build<'_> {
    /// Name of a member's PersistentVolumeClaim.
    pub fn volume_name(&self, seat: Seat) -> String {
        format!("{}-data", seat.name(self.name()))
    }

    /// Whether volumes go with the CacheCluster.
    pub fn owns_volumes(&self) -> bool {
        self.volume().is_some_and(|v| v.on_delete == OnDelete::Delete)
    }

    pub(super) fn volume(&self) -> Option<&crds::Volume> {
        self.cluster.spec.persistence.as_ref()?.volume.as_ref()
    }

    /// The claim of a seat; `None` where the manifest wants no volumes. A witness has one too: its
    /// vote must outlive its pod.
    pub fn claim(&self, seat: Seat) -> Option<Object> {
        let volume = self.volume()?;
        let mut body = json!({
            "metadata": {"labels": labels::member(seat)},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": volume.size}},
            },
        });
        if let Some(class) = &volume.storage_class_name {
            body["spec"]["storageClassName"] = json!(class);
        }
        let labels = &self.cluster.spec.labels;
        super::merge(&mut body["metadata"]["labels"], json!(labels));
        let names: Vec<&str> = labels.keys().map(String::as_str).collect();
        body["metadata"]["annotations"] = json!({labels::LABELS: names.join(",")});
        Some(self.object(
            Kind::PersistentVolumeClaim,
            self.volume_name(seat),
            self.owns_volumes(),
            body,
        ))
    }
}
