//! What is written to disk, and where: the part of the spec about files and volumes.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DURATION_PATTERN, QUANTITY_PATTERN};

/// What is written to disk, and where.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.volume) || has(self.aof) || has(self.rdb)")
        .message("persistence.volume needs aof or rdb: without them nothing is written to it")
)]
pub struct Persistence {
    /// The append-only file: every write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aof: Option<Aof>,
    /// Snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdb: Option<Rdb>,
    /// A volume per member, which outlives its pod. Absent: the pod's own disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
}

/// The append-only file.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aof {
    /// When the file is synced (appendfsync).
    #[serde(default)]
    pub fsync: Fsync,
}

/// When the append-only file is synced.
#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// Once a second.
    #[default]
    Everysec,
    /// Before a write is acknowledged.
    Always,
    /// When the kernel likes.
    No,
}

/// Snapshots.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rdb {
    /// A snapshot is made when one of these holds. Absent: 3600s and 1, 300s and 100, 60s and 10000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub save: Vec<SavePoint>,
}

/// When a snapshot is made.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavePoint {
    /// So long after the last one, in whole seconds.
    #[schemars(length(max = 16), regex(pattern = DURATION_PATTERN))]
    #[x_kube(
        validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || duration(self) >= duration('1s')")
            .message("persistence.rdb.save.after must be at least 1s")
    )]
    pub after: String,
    /// And at least so many changes.
    #[schemars(range(min = 1))]
    pub changes: i64,
}

/// A volume per member.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)"
    ).message("persistence.volume.storageClassName cannot be changed later")
)]
pub struct Volume {
    /// Size of each.
    #[schemars(length(max = 32), regex(pattern = QUANTITY_PATTERN))]
    #[x_kube(
        validation = Rule::new("quantity(self).compareTo(quantity(oldSelf)) == 0")
            .message("persistence.volume.size cannot be changed in this version: volumes do not grow yet")
    )]
    pub size: String,
    /// Storage class; absent: the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// What happens to the volumes when the CacheCluster is deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
}

/// What happens to the volumes when the CacheCluster is deleted.
#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum OnDelete {
    /// They stay, and a CacheCluster of the same name finds its data again.
    #[default]
    Keep,
    /// They go with it.
    Delete,
}

impl Fsync {
    /// The word that `appendfsync` takes.
    pub fn directive(self) -> &'static str {
        match self {
            Self::Everysec => "everysec",
            Self::Always => "always",
            Self::No => "no",
        }
    }
}
