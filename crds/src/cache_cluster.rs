//! The spec of a CacheCluster: its fields, its defaults and the CEL rules that the API server checks.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clients::{Auth, Memcached, Plain, Tls};
use crate::persistence::Persistence;
use crate::status::CacheClusterStatus;
use crate::upkeep::{Balance, Recovery, Rollout};

/// A Kubernetes quantity of bytes, as a pattern.
pub const QUANTITY_PATTERN: &str =
    r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[mkMGTPE]|[eE][+]?[0-9]+)?$";
/// A duration such as 900s, 1m30s or 500ms, as a pattern.
pub const DURATION_PATTERN: &str = r"^([0-9]{1,9}(ms|s|m|h))+$";

/// A share such as 1% or 0.25%, as a pattern.
pub const PERCENT_PATTERN: &str = r"^([0-9]{1,2}(\.[0-9]{1,2})?|100)%$";

/// A time of day such as 02:30, as a pattern.
pub const TIME_OF_DAY_PATTERN: &str = "^([01][0-9]|2[0-3]):[0-5][0-9]$";

/// A sharded, replicated, persistent cache that keeps itself alive.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "larder.dev",
    version = "v1alpha1",
    kind = "CacheCluster",
    namespaced,
    shortname = "cc",
    category = "all",
    status = "CacheClusterStatus",
    derive = "PartialEq",
    doc = "A sharded, replicated, persistent cache that keeps itself alive.",
    scale(
        spec_replicas_path = ".spec.shards",
        status_replicas_path = ".status.shardCount",
        label_selector_path = ".status.labelSelector"
    ),
    printcolumn(
        name = "Shards",
        type_ = "integer",
        json_path = ".spec.shards",
        description = "Shards wanted"
    ),
    printcolumn(
        name = "Replicas",
        type_ = "integer",
        json_path = ".spec.replicasPerShard",
        description = "Replicas wanted per shard"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.ready",
        description = "Members that are ready of those wanted"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why it is ready, or not"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        description = "The same as a sentence",
        priority = "1"
    ),
    validation = Rule::new(
        "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
    ).message(
        "metadata.name must be at most 40 characters of a-z, 0-9 and -, begin with a letter and end with a letter or digit: pods, Services and DNS names are made from it"
    ),
    validation = Rule::new("!self.metadata.name.matches('-(members|read|primary)$')").message(
        "metadata.name must not end in -members, -read or -primary: a Service of another cluster could have that name"
    ),
    validation = Rule::new(
        "!has(self.spec.auth) || !has(self.spec.auth.secretName) || !(self.spec.auth.secretName in [self.metadata.name + '-auth', self.metadata.name + '-tls', self.metadata.name + '-operator-tls'])"
    ).message(
        "auth.secretName must not be NAME-auth, NAME-tls or NAME-operator-tls: Secrets of these names are made by Larder, and go with the CacheCluster"
    ),
    validation = Rule::new(
        "!has(self.spec.tls) || !has(self.spec.tls.secretName) || !(self.spec.tls.secretName in [self.metadata.name + '-auth', self.metadata.name + '-tls', self.metadata.name + '-operator-tls'])"
    ).message(
        "tls.secretName must not be NAME-auth, NAME-tls or NAME-operator-tls: Secrets of these names are made by Larder, and go with the CacheCluster"
    )
)]
#[x_kube(
    validation = Rule::new(
        "!has(self.resources) || !has(self.resources.limits) || !('memory' in self.resources.limits) || quantity(string(self.resources.limits['memory'])).compareTo(quantity(self.memory)) > 0"
    ).message("resources.limits.memory must be larger than memory: buffers and snapshots need room beside the data"),
    validation = Rule::new(
        "!has(self.persistence) || !has(self.persistence.volume) || quantity(self.persistence.volume.size).compareTo(quantity(self.memory)) >= 0"
    ).message("persistence.volume.size must be at least memory: the volume has to hold what memory holds"),
    validation = Rule::new(
        "(has(self.persistence) && has(self.persistence.volume)) == (has(oldSelf.persistence) && has(oldSelf.persistence.volume))"
    ).message("persistence.volume cannot be added or removed later: create a new cluster and move the data"),
    validation = Rule::new(
        "!has(self.minInSync) || (has(self.durability) && self.durability == 'Quorum')"
    ).message("minInSync needs durability: Quorum: with Async no write waits for a replica"),
    validation = Rule::new(
        "!has(self.minInSync) || self.minInSync <= (has(self.replicasPerShard) ? self.replicasPerShard : 1) + 1"
    ).message("minInSync must be at most replicasPerShard + 1: no shard has more members"),
    validation = Rule::new(
        "has(self.minInSync) == has(oldSelf.minInSync) && (!has(self.minInSync) || self.minInSync == oldSelf.minInSync)"
    ).message("minInSync cannot be changed in this version: while it is rolled out, members would not agree on who may be promoted"),
    validation = Rule::new(
        "has(self.auth) == has(oldSelf.auth) && (!has(self.auth) || self.auth == oldSelf.auth)"
    ).message(
        "auth cannot be changed in this version: while it is rolled out, members and clients would not agree on the password"
    ),
    validation = Rule::new(
        "has(self.tls) == has(oldSelf.tls) && (!has(self.tls) || (has(self.tls.secretName) == has(oldSelf.tls.secretName) && (!has(self.tls.secretName) || self.tls.secretName == oldSelf.tls.secretName)))"
    ).message(
        "tls and tls.secretName cannot be changed in this version: while it is rolled out, members could not follow each other"
    )
)]
pub struct CacheClusterSpec {
    /// Number of shards; the 16,384 slots are dealt evenly among them. When it changes, slots move with
    /// their keys while clients go on; fewer shards need the memory for what all of them hold.
    #[schemars(range(min = 1, max = 500))]
    pub shards: i32,

    /// Replicas of each primary.
    #[serde(default = "defaults::replicas_per_shard")]
    #[schemars(range(min = 0, max = 5))]
    pub replicas_per_shard: i32,

    /// Memory for the data of one member (maxmemory). The pod's limit is derived from it:
    /// a quarter more and 96 MiB, unless resources says otherwise.
    #[serde(default = "defaults::memory")]
    #[schemars(length(max = 32), regex(pattern = QUANTITY_PATTERN))]
    #[x_kube(
        validation = Rule::new("!isQuantity(self) || quantity(self).compareTo(quantity('16Mi')) >= 0")
            .message("memory must be at least 16Mi")
    )]
    pub memory: String,

    /// What goes when memory is full (maxmemory-policy).
    #[serde(default)]
    pub eviction: Eviction,

    /// When a write is acknowledged.
    #[serde(default)]
    pub durability: Durability,

    /// With durability Quorum: a write is acknowledged once every member in sync has it, and only while so many are, the
    /// primary among them. With 1 a shard goes on alone, and what is written then is lost with that member's disk; with
    /// 2 its writes stop while nobody else is in sync. Absent: a majority of the shard's members. Cannot be changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 6))]
    pub min_in_sync: Option<i32>,

    /// How far a replica may be behind its primary and still answer the reads of READONLY clients, such as 500ms
    /// (READONLY MAXSTALE says another bound): while it is further behind, or does not know, they are sent to the
    /// primary. Absent: as far as it may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = DURATION_PATTERN))]
    #[x_kube(
        validation = Rule::new(
            "!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('10ms') && duration(self) <= duration('24h'))"
        ).message("maxStaleness must be between 10ms and 24h")
    )]
    pub max_staleness: Option<String>,

    /// What is written to disk, and where. Absent: the AOF, synced every second, on the pod's own
    /// disk, which lives as long as the pod. Present: exactly what it says; {} writes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,

    /// Image of the engine; absent: the one that the operator was released with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// When the image is pulled; absent: as Kubernetes decides from its tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Any other directive of the engine. One that a member refuses stops at the first member.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::directives")]
    #[x_kube(
        validation = Rule::new("self.all(k, k.matches('^[a-z][a-z0-9-]{0,63}$'))")
            .message("config: a directive is written in lower case letters, digits and -"),
        validation = Rule::new("self.all(k, !self[k].contains('\\n') && !self[k].contains('\\r'))")
            .message("config: a value is one line"),
        validation = Rule::new(
            "self.all(k, !k.startsWith('larder-') && !k.startsWith('cluster-announce-') && !(k in ['port', 'bind', 'dir', 'include', 'daemonize', 'protected-mode', 'cluster-enabled', 'replicaof', 'slaveof', 'requirepass', 'masterauth', 'masteruser', 'tls-port', 'tls-cert-file', 'tls-key-file', 'tls-client-cert-file', 'tls-client-key-file', 'tls-ca-cert-file', 'tls-ca-cert-dir', 'tls-auth-clients', 'tls-replication', 'tls-cluster', 'memcached-port', 'memcached-unixsocket', 'memcached-item-size-max', 'memcached-flush', 'memcached-tls', 'maxmemory', 'maxmemory-policy', 'appendonly', 'appendfsync', 'save']))"
        ).message(
            "config: port, bind, dir, include, daemonize, protected-mode, cluster-enabled, cluster-announce-*, replicaof, requirepass, masterauth, memcached-port, -unixsocket, -item-size-max, -flush and -tls, maxmemory, maxmemory-policy, appendonly, appendfsync, save, larder-* and what tls says are set by Larder; use memory, eviction, persistence, auth, tls and memcached"
        )
    )]
    pub config: BTreeMap<String, String>,

    /// The password of clients. Absent: one is generated, in the Secret NAME-auth. Cannot be changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,

    /// TLS of clients, in place of the plain port; members follow each other by it, too. {}: with a certificate that Larder
    /// issues, whose CA stands in the ConfigMap NAME-ca. Cannot be added, removed or given another Secret later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// A second port for clients that know nothing of clusters: any member takes any request there and forwards what another
    /// one serves. Absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<Plain>,

    /// Clients of memcached, beside those of RESP: they see the keys of database 0. Absent: none are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memcached: Option<Memcached>,

    /// Requests and limits of each member, instead of those derived from memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::resources")]
    pub resources: Option<ResourceRequirements>,

    /// Affinity of the pods, instead of the default one (members of a shard on different nodes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::open_object")]
    pub affinity: Option<Affinity>,

    /// Tolerations of the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::open_objects")]
    pub tolerations: Vec<Toleration>,

    /// Topology spread constraints of the pods, instead of the default ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::open_objects")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// Labels added to every pod and volume.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::small_map")]
    #[x_kube(
        validation = Rule::new("self.all(k, !k.startsWith('larder.dev/') && !k.startsWith('app.kubernetes.io/'))")
            .message("labels: the prefixes larder.dev/ and app.kubernetes.io/ belong to Larder")
    )]
    pub labels: BTreeMap<String, String>,

    /// Annotations added to every pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::small_map")]
    #[x_kube(
        validation = Rule::new("self.all(k, !k.startsWith('larder.dev/'))")
            .message("annotations: the prefix larder.dev/ belongs to Larder")
    )]
    pub annotations: BTreeMap<String, String>,

    /// When primaries are handed back, one after the other, so that no node and no zone has more of them than it need
    /// have: after a failover or a restart they are where they were not before. Absent: once the cluster is whole again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,

    /// How members are restarted when something about them changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,

    /// The operator looks and tells, and changes nothing. Failover goes on, for it is the members' own,
    /// and the Services follow it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pause: bool,

    /// What to do when the council has lost its majority for good. Absent: nothing, and the status says what it would cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,

    /// Silence after which a member is taken for failed. Cannot be changed later.
    #[serde(default = "defaults::failure_timeout")]
    #[schemars(length(max = 16), regex(pattern = DURATION_PATTERN))]
    #[x_kube(
        validation = Rule::new(
            "!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('300ms') && duration(self) <= duration('60s'))"
        ).message("failureTimeout must be between 300ms and 60s"),
        validation = Rule::new("self == oldSelf")
            .message("failureTimeout cannot be changed in this version: leases are safe only while all members agree on it")
    )]
    pub failure_timeout: String,
}

/// What goes when memory is full.
#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Eviction {
    /// Nothing: writes that need memory fail.
    #[default]
    NoEviction,
    /// Any key, the least recently used first.
    AllKeysLru,
    /// Any key, the least frequently used first.
    AllKeysLfu,
    /// Any key, at random.
    AllKeysRandom,
    /// Keys that expire, the least recently used first.
    VolatileLru,
    /// Keys that expire, the least frequently used first.
    VolatileLfu,
    /// Keys that expire, at random.
    VolatileRandom,
    /// Keys that expire, the one that expires first.
    VolatileTtl,
}

impl Eviction {
    /// The word that `maxmemory-policy` takes.
    pub fn directive(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllKeysLru => "allkeys-lru",
            Self::AllKeysLfu => "allkeys-lfu",
            Self::AllKeysRandom => "allkeys-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }
}

/// When a write is acknowledged.
#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Durability {
    /// By the primary alone: a failover may lose a bounded tail, which is counted.
    #[default]
    Async,
    /// By a majority of the shard's members, in memory, or on disk with fsync: always. No failover loses an
    /// acknowledged write as long as a minority of the shard's members is missing; with fewer than a majority
    /// there, writes are refused and reads go on.
    Quorum,
}

/// When the image is pulled.
#[derive(
    JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum ImagePullPolicy {
    /// At every start of a pod.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never.
    Never,
}

impl ImagePullPolicy {
    /// The word that a pod takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The defaults, as the CRD carries them: the API server writes them into the object, so that a new
/// version with other defaults changes no cluster that runs.
mod defaults {
    pub(super) fn replicas_per_shard() -> i32 {
        1
    }
    pub(super) fn memory() -> String {
        "256Mi".into()
    }
    pub(super) fn failure_timeout() -> String {
        "1s".into()
    }
}
