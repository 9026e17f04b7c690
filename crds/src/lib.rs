//! The API types of Larder: one kind, `CacheCluster`, and the vocabulary of its status.
//!
//! The whole manifest, as users meet it (everything but `shards` has a default):
//!
//! ```yaml
//! apiVersion: larder.dev/v1alpha1
//! kind: CacheCluster
//! metadata: {name: demo}
//! spec:
//!   shards: 3                      # scale subresource
//!   replicasPerShard: 1
//!   memory: 512Mi                  # data; the pod's limit is derived from it, or resources: says it
//!   eviction: AllKeysLru
//!   durability: Async
//!   persistence:
//!     aof: {fsync: everysec}
//!     rdb: {save: [{after: 900s, changes: 1}, {after: 300s, changes: 10}]}
//!     volume: {size: 2Gi, storageClassName: fast, onDelete: Keep}
//!   config: {slowlog-max-len: "1024"}
//!   tls: {}                        # a certificate that Larder issues, or {secretName: mine, clientAuth: Required}
//!   plain: {enabled: false}        # true: a port where a member forwards what it does not own
//!   memcached: {enabled: false}
//! ```
//!
//! Reading order: the spec with its CEL rules and its parts (clients, persistence, upkeep), the status, the
//! words of conditions and events, the two small grammars (quantities, durations), and what turns the types
//! into the CRD's YAML.

#[expect(unreachable_pub, reason = "the schema derive writes shadow structs inside functions")]
mod cache_cluster;
#[expect(unreachable_pub, reason = "the schema derive writes shadow structs inside functions")]
mod clients;
#[expect(unreachable_pub, reason = "the schema derive writes shadow structs inside functions")]
mod persistence;
#[expect(unreachable_pub, reason = "the schema derive writes shadow structs inside functions")]
mod status;
#[expect(unreachable_pub, reason = "the schema derive writes shadow structs inside functions")]
mod upkeep;

pub mod quantity;
pub mod reasons;
pub mod schema;

pub use cache_cluster::*;
pub use clients::*;
pub use persistence::*;
pub use status::*;
pub use upkeep::*;

/// API group of every kind of Larder, and prefix of its labels and annotations.
pub const GROUP: &str = "larder.dev";
