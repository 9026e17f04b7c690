//! What is wanted: the manifest with every default filled in, as far as the plan has to know it.
//!
//! What only a driver needs (tolerations, storage classes, labels) stays in the manifest, which the
//! driver holds. Parsed once, at the door: whoever holds a `Desired` holds a valid one.

use std::collections::BTreeMap;
use std::fmt;

use crds::{CacheCluster, CacheClusterSpec, Durability, Persistence, quantity};
use engine::config::directives::{self, DIRECTIVES, Directive, Kind};
use engine::config::file::quote;
use engine::topology::ShardId;

use crate::Error;
use crate::when::Window;

/// Port of clients by TLS, unless a driver has another one.
pub const TLS_PORT: u16 = 6379;
/// Port of clients that follow nothing, unless a driver has another one.
pub const PLAIN_PORT: u16 = 6380;
/// Port of Memcached clients, unless a driver has another one.
pub const MEMCACHED_PORT: u16 = 11211;

/// The wish for one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Name of the cluster: the first part of every member's name.
    pub name: String,
    /// Generation of the manifest, where there is one.
    pub generation: Option<i64>,
    pub shards: u16,
    /// Replicas of each primary.
    pub replicas: u16,
    /// Look and tell, change nothing.
    pub paused: bool,
    /// The incarnation as which survivors are to go on when the council is lost for good.
    pub recovery: Option<u64>,
    /// Shards in which a member may be restarted at the same time.
    pub shards_at_once: u16,
    pub rollout: Rollout,
    pub balance: Balance,
    /// Directives that every member has, those of `spec.config` included; neither ports, nor
    /// passwords, nor names, which the driver adds.
    pub directives: BTreeMap<String, String>,
}

/// What is asked of members that are made anew; times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The first one has to be in sync for so long before another one is restarted.
    pub canary_pause: i64,
    /// One that is not in sync within this time stops the change.
    pub ready_within: i64,
    /// Hundredths of a percent of its requests that the first one may refuse for a reason of its own.
    pub max_error_rate: Option<u32>,
    /// Bytes that the first one may be behind its primary.
    pub max_lag: Option<u64>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { canary_pause: 0, ready_within: 600, max_error_rate: None, max_lag: None }
    }
}

/// When primaries are handed back to where they are spread best.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// By themselves, and not only on request.
    pub automatic: bool,
    /// And then only at this time of the day.
    pub window: Option<Window>,
    /// Whatever the time, once for each value.
    pub request: Option<String>,
}

impl Default for Balance {
    fn default() -> Self {
        Self { automatic: true, window: None, request: None }
    }
}

/// A place in a cluster, from which the name of a member is made. The member that sits in it has an
/// ID of its own, and another one after its disk was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seat {
    /// A primary or replica of a shard: `demo-0-1`.
    Data { shard: ShardId, index: u16 },
    /// A member that votes and holds no data: `demo-w-0`.
    Witness { index: u16 },
}

impl Seat {
    /// The name of the member in this seat, which is also its pod's.
    pub fn name(self, cluster: &str) -> String {
        format!("{cluster}-{self}")
    }

    /// The seat that a member's name tells; `None` when it is not one of this cluster's.
    pub fn parse(cluster: &str, name: &str) -> Option<Self> {
        let rest = name.strip_prefix(cluster)?.strip_prefix('-')?;
        let (first, index) = rest.split_once('-')?;
        let index = index.parse().ok()?;
        let seat = match first {
            "w" => Self::Witness { index },
            shard => Self::Data { shard: shard.parse().ok()?, index },
        };
        // Only the one spelling counts: `demo-00-1` is nobody's name.
        (seat.name(cluster) == name).then_some(seat)
    }

    pub fn shard(self) -> Option<ShardId> {
        match self {
            Self::Data { shard, .. } => Some(shard),
            Self::Witness { .. } => None,
        }
    }

    pub fn index(self) -> u16 {
        match self {
            Self::Data { index, .. } | Self::Witness { index } => index,
        }
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data { shard, index } => write!(f, "{shard}-{index}"),
            Self::Witness { index } => write!(f, "w-{index}"),
        }
    }
}

/// Whether the engine reads this directive at its start only, so that a member has to be restarted for
/// it. Every other one is set live, as CONFIG SET does; one that the engine does not know is refused
/// by the first member that is asked to take it.
fn is_at_start(name: &str) -> bool {
    // The council is given its time-outs when it starts, whatever the table says.
    name == "larder-failure-timeout-ms"
        || directives::find(name).is_some_and(|d| d.is(directives::FIXED))
}

impl Desired {
    /// What a manifest wishes for.
    ///
    /// # Errors
    /// `Error::Invalid` with the first field that is not understood. The API server checks most of
    /// it before; a manifest from a file comes here unchecked.
    pub fn of(cluster: &CacheCluster) -> Result<Self, Error> {
        let spec = &cluster.spec;
        let name = cluster.metadata.name.clone().unwrap_or_default();
        let dns_label = name.len() <= 40
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !dns_label {
            let message = "must be 1 to 40 characters of a-z, 0-9 and -, begin with a letter and \
                           end with a letter or digit";
            return Err(invalid("metadata.name", message));
        }
        agree(spec)?;
        let auth = spec.auth.as_ref().and_then(|a| a.secret_name.as_deref());
        let tls = spec.tls.as_ref().and_then(|t| t.secret_name.as_deref());
        for (field, secret) in [("spec.auth.secretName", auth), ("spec.tls.secretName", tls)] {
            if let Some(rest) = secret.and_then(|s| s.strip_prefix(name.as_str()))
                && ["-auth", "-tls", "-operator-tls"].contains(&rest)
            {
                let message =
                    "is the name of a Secret that Larder makes, and that goes with the cluster";
                return Err(invalid(field, message));
            }
        }
        let shards_at_once = spec.rollout.as_ref().map_or(1, |r| r.shards_at_once);
        Ok(Self {
            name,
            generation: cluster.metadata.generation,
            shards: count("spec.shards", spec.shards, 1, 500)?,
            replicas: count("spec.replicasPerShard", spec.replicas_per_shard, 0, 5)?,
            paused: spec.pause,
            recovery: recovery(spec)?,
            shards_at_once: count("spec.rollout.shardsAtOnce", shards_at_once, 1, 500)?,
            rollout: rollout(spec)?,
            balance: balance(spec)?,
            directives: directives(spec)?,
        })
    }

    /// Members of each shard: its primary and its replicas.
    pub fn members_per_shard(&self) -> u16 {
        self.replicas + 1
    }

    /// Witnesses wanted: one when there are two members with data, of one shard or of two. Neither could tell
    /// whether the other one is dead or cut off, and one that came back without its disk, and so without its
    /// vote, would end the council (seed 140 of the simulation). A single member has nobody to hand over to, so that
    /// a council of one is all it needs.
    pub fn witnesses(&self) -> u16 {
        self.witnesses_beside(self.shards)
    }

    /// The same beside so many shards: what was formed votes, whatever is wished for since.
    pub fn witnesses_beside(&self, shards: u16) -> u16 {
        u16::from(u32::from(shards) * u32::from(self.members_per_shard()) == 2)
    }

    /// Clients are served by TLS, and not without.
    pub fn serves_tls(&self) -> bool {
        self.directives.contains_key("tls-port")
    }

    /// Clients that follow nothing are served.
    pub fn serves_plain(&self) -> bool {
        self.directives.contains_key("larder-plain-port")
    }

    /// Memcached clients are served.
    pub fn serves_memcached(&self) -> bool {
        self.directives.contains_key("memcached-port")
    }

    /// The directives that are set without a restart.
    pub fn live(&self) -> impl Iterator<Item = (&str, &str)> {
        self.split(false)
    }

    /// The directives that take a restart: part of what makes a pod's template old.
    pub fn at_start(&self) -> impl Iterator<Item = (&str, &str)> {
        self.split(true)
    }

    /// The live directives that the manifest could say and does not: they are at their default. Without
    /// this one that was taken out of `spec.config` would stay in force until the next restart.
    pub fn unsaid(&self) -> impl Iterator<Item = &'static str> {
        let free =
            |name: &str| OF_ABSENT_FIELDS.contains(&name) || !is_ours(name) && !is_at_start(name);
        DIRECTIVES.iter().map(|d| d.name).filter(move |name| {
            let said = |said: &String| directives::find(said).is_some_and(|d| d.name == *name);
            free(name) && !self.directives.keys().any(said)
        })
    }

    /// The directives as lines of a configuration file.
    pub fn conf(&self) -> String {
        let line = |(name, value): (&String, &String)| {
            let several = |d: &Directive| {
                matches!(d.kind, Kind::Words | Kind::Save | Kind::OutputLimits) && !value.is_empty()
            };
            // One word each, with the few exceptions; a name that is not known is left as it is.
            match directives::find(name) {
                Some(d) if !several(d) => format!("{name} {}\n", quote(value)),
                _ => format!("{name} {value}\n"),
            }
        };
        self.directives.iter().map(line).collect()
    }

    fn split(&self, at_start: bool) -> impl Iterator<Item = (&str, &str)> {
        self.directives
            .iter()
            .filter(move |(name, _)| is_at_start(name) == at_start)
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What `larder-config-hash` says of a member in which the live directives are in force.
    pub fn live_hash(&self) -> String {
        hash(self.live())
    }

    /// The same of the directives that take a restart; a driver hashes it into its template.
    pub fn at_start_hash(&self) -> String {
        hash(self.at_start())
    }
}

/// The longest duration of most fields.
const DAY: &str = "24h";

/// A duration in milliseconds that is within bounds, which are given as the message says them.
fn duration_between(field: &str, text: &str, least: &str, most: &str) -> Result<u64, Error> {
    let ms = quantity::duration_ms(text);
    let is_within = |ms: &u64| {
        quantity::duration_ms(least).is_some_and(|least| least <= *ms)
            && quantity::duration_ms(most).is_some_and(|most| *ms <= most)
    };
    ms.filter(is_within)
        .ok_or_else(|| invalid(field, format!("must be between {least} and {most}")))
}

fn rollout(spec: &CacheClusterSpec) -> Result<Rollout, Error> {
    let Some(given) = &spec.rollout else { return Ok(Rollout::default()) };
    let seconds = |field: &str, text: &str, least: &str| {
        let ms = duration_between(field, text, least, DAY)?;
        Ok(i64::try_from(ms / 1000).unwrap_or(i64::MAX))
    };
    let pause = given.canary_pause.as_deref();
    let pause = pause.map(|p| seconds("spec.rollout.canaryPause", p, "1s")).transpose()?;
    let ready_within = seconds("spec.rollout.readyWithin", &given.ready_within, "10s")?;
    let rate = given.max_error_rate.as_deref().map(|rate| {
        let message = "must be a share from 0% to 100%, such as 1% or 0.25%";
        quantity::basis_points(rate).ok_or_else(|| invalid("spec.rollout.maxErrorRate", message))
    });
    let lag = given.max_lag.as_deref().map(|lag| {
        let message = "must be a quantity, such as 16Mi";
        quantity::bytes(lag).ok_or_else(|| invalid("spec.rollout.maxLag", message))
    });
    let (max_error_rate, max_lag) = (rate.transpose()?, lag.transpose()?);
    if pause.is_none() && (max_error_rate.is_some() || max_lag.is_some()) {
        let field = if max_error_rate.is_some() { "maxErrorRate" } else { "maxLag" };
        let message = "needs canaryPause: it is looked at in it";
        return Err(invalid(&format!("spec.rollout.{field}"), message));
    }
    let canary_pause = pause.unwrap_or_default();
    Ok(Rollout { canary_pause, ready_within, max_error_rate, max_lag })
}

fn balance(spec: &CacheClusterSpec) -> Result<Balance, Error> {
    let Some(given) = &spec.balance else { return Ok(Balance::default()) };
    let automatic = given.primaries == crds::HandBack::Automatic;
    if given.window.is_some() && !automatic {
        let message =
            "needs primaries: Automatic: with Manual, primaries are handed over on request only";
        return Err(invalid("spec.balance.window", message));
    }
    let window = |w: &crds::BalanceWindow| {
        let duration = duration_between("spec.balance.window.duration", &w.duration, "1m", DAY)?;
        let message = "must be a time of day in UTC, such as 02:30";
        Window::new(&w.start, duration).ok_or_else(|| invalid("spec.balance.window.start", message))
    };
    let window = given.window.as_ref().map(window).transpose()?;
    Ok(Balance { automatic, window, request: given.request.clone() })
}

fn recovery(spec: &CacheClusterSpec) -> Result<Option<u64>, Error> {
    let Some(recovery) = &spec.recovery else { return Ok(None) };
    match u64::try_from(recovery.incarnation) {
        Ok(incarnation) if incarnation >= 2 => Ok(Some(incarnation)),
        _ => Err(invalid(
            "spec.recovery.incarnation",
            "must be 2 or more: the first one is what is lost",
        )),
    }
}

fn min_in_sync(spec: &CacheClusterSpec, min: i32) -> Result<i32, Error> {
    let most = spec.replicas_per_shard + 1;
    if spec.durability != Durability::Quorum {
        return Err(invalid("spec.minInSync", "needs durability: Quorum"));
    }
    if !(1..=most).contains(&min) {
        let message = format!("must be between 1 and replicasPerShard + 1 ({most}), and is {min}");
        return Err(invalid("spec.minInSync", message));
    }
    Ok(min)
}

fn invalid(field: &str, message: impl Into<String>) -> Error {
    Error::Invalid { field: field.into(), message: message.into() }
}

fn count(field: &str, value: i32, min: u16, max: u16) -> Result<u16, Error> {
    u16::try_from(value)
        .ok()
        .filter(|v| (min..=max).contains(v))
        .ok_or_else(|| invalid(field, format!("must be between {min} and {max}, and is {value}")))
}

/// Fields that have to agree with each other; the CRD's rules say the same, in the same words.
fn agree(spec: &CacheClusterSpec) -> Result<(), Error> {
    let memory = quantity::bytes(&spec.memory).unwrap_or(0);
    if let Some(persistence) = &spec.persistence {
        if persistence.volume.is_some() && persistence.aof.is_none() && persistence.rdb.is_none() {
            let message = "needs aof or rdb: without them nothing is written to it";
            return Err(invalid("spec.persistence.volume", message));
        }
        if let Some(volume) = &persistence.volume {
            let field = "spec.persistence.volume.size";
            match quantity::bytes(&volume.size) {
                None => return Err(invalid(field, "must be a quantity, such as 2Gi")),
                Some(size) if size < memory => {
                    let message =
                        "must be at least memory: the volume has to hold what memory holds";
                    return Err(invalid(field, message));
                }
                Some(_) => {}
            }
        }
    }
    let limits = spec.resources.as_ref().and_then(|r| r.limits.as_ref());
    if let Some(limit) = limits.and_then(|l| l.get("memory"))
        && quantity::bytes(&limit.0).is_none_or(|limit| limit <= memory)
    {
        let message = "must be larger than memory: buffers and snapshots need room beside the data";
        return Err(invalid("spec.resources.limits.memory", message));
    }
    if spec.auth.as_ref().is_some_and(|a| a.secret_name.is_none() && a.secret_key != "password") {
        let message = "names a key of secretName; in the Secret that is generated it is password";
        return Err(invalid("spec.auth.secretKey", message));
    }
    let asks = |tls: &crds::Tls| tls.client_auth != crds::ClientAuth::None;
    if spec.tls.as_ref().is_some_and(|tls| asks(tls) && tls.secret_name.is_none()) {
        let message =
            "needs secretName: whose certificates clients may show is said by the ca.crt in it";
        return Err(invalid("spec.tls.clientAuth", message));
    }
    if spec.auth.as_ref().is_some_and(|a| a.disabled && a.secret_name.is_some()) {
        let message = "secretName and disabled: true contradict each other";
        return Err(invalid("spec.auth", message));
    }
    Ok(())
}

/// What the typed fields of the manifest mean to the engine, and `spec.config` beside it.
fn directives(spec: &CacheClusterSpec) -> Result<BTreeMap<String, String>, Error> {
    let mut out = BTreeMap::new();
    for (name, value) in &spec.config {
        let field = format!("spec.config.{name}");
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(is_word) {
            return Err(invalid(
                &field,
                "a directive is written in lower case letters, digits and -",
            ));
        }
        if is_ours(name) {
            return Err(invalid(
                &field,
                "is set by Larder; use memory, eviction, persistence, auth, tls, memcached",
            ));
        }
        if value.contains(['\n', '\r']) {
            return Err(invalid(&field, "a value is one line"));
        }
        out.insert(name.clone(), value.clone());
    }
    let memory = quantity::bytes(&spec.memory).filter(|b| *b >= 16 << 20);
    let memory =
        memory.ok_or_else(|| invalid("spec.memory", "must be a quantity of at least 16Mi"))?;
    let timeout = duration_between("spec.failureTimeout", &spec.failure_timeout, "300ms", "60s")?;
    let mut set = |name: &str, value: String| out.insert(name.into(), value);
    set("maxmemory", memory.to_string());
    set("maxmemory-policy", spec.eviction.directive().into());
    set("larder-failure-timeout-ms", timeout.to_string());
    if spec.durability == Durability::Quorum {
        set("larder-durability", "quorum".into());
    }
    if let Some(tls) = &spec.tls {
        set("tls-port", TLS_PORT.to_string());
        set("tls-auth-clients", tls.client_auth.directive().into());
        set("tls-replication", "yes".into());
        set("tls-cluster", "yes".into());
        set("memcached-tls", "yes".into());
        set("larder-plain-tls", "yes".into());
    }
    if spec.plain.as_ref().is_some_and(|plain| plain.enabled) {
        set("larder-plain-port", PLAIN_PORT.to_string());
    }
    if let Some(memcached) = spec.memcached.as_ref().filter(|m| m.enabled) {
        set("memcached-port", MEMCACHED_PORT.to_string());
        set("memcached-flush", if memcached.flush { "yes" } else { "no" }.into());
        // Said although it may be the default: it is live, and goes back only where it is said.
        let size = memcached.item_size_max.as_deref().unwrap_or("1Mi");
        let size = quantity::bytes(size).filter(|size| (1 << 10..=1 << 30).contains(size));
        let field = "spec.memcached.itemSizeMax";
        let size = size.ok_or_else(|| invalid(field, "must be between 1Ki and 1Gi"))?;
        set("memcached-item-size-max", size.to_string());
    }
    if let Some(min) = spec.min_in_sync {
        set("larder-min-in-sync", min_in_sync(spec, min)?.to_string());
    }
    if let Some(bound) = &spec.max_staleness {
        let bound = duration_between("spec.maxStaleness", bound, "10ms", DAY)?;
        set("larder-max-staleness-ms", bound.to_string());
    }
    if let Some(bound) = spec.balance.as_ref().and_then(|b| b.max_move_latency.as_ref()) {
        let bound = duration_between("spec.balance.maxMoveLatency", bound, "0s", "10s")?;
        set("larder-move-p99-ms", bound.to_string());
    }
    let default = Persistence { aof: Some(crds::Aof::default()), ..Persistence::default() };
    let persistence = spec.persistence.as_ref().unwrap_or(&default);
    set("appendonly", if persistence.aof.is_some() { "yes" } else { "no" }.into());
    if let Some(aof) = &persistence.aof {
        set("appendfsync", aof.fsync.directive().into());
    }
    let mut points = Vec::new();
    if let Some(rdb) = &persistence.rdb {
        for (at, point) in rdb.save.iter().enumerate() {
            let field = format!("spec.persistence.rdb.save[{at}]");
            let after = quantity::duration_ms(&point.after).filter(|ms| *ms >= 1000);
            let after = after.ok_or_else(|| invalid(&field, "after must be at least 1s"))?;
            if point.changes < 1 {
                return Err(invalid(&field, "changes must be at least 1"));
            }
            points.push(format!("{} {}", after / 1000, point.changes));
        }
        if points.is_empty() {
            points.push("3600 1 300 100 60 10000".into());
        }
    }
    set("save", points.join(" "));
    Ok(out)
}

/// Live directives of fields that may be absent: they are at their default then.
const OF_ABSENT_FIELDS: &[&str] = &["larder-max-staleness-ms", "larder-move-p99-ms"];

/// Directives that follow from other fields, or that a driver sets: `spec.config` must not have them.
const OURS: &[&str] = &[
    "appendfsync",
    "appendonly",
    "bind",
    "cluster-enabled",
    "daemonize",
    "dir",
    "include",
    "masterauth",
    "masteruser",
    "maxmemory",
    "maxmemory-policy",
    "memcached-flush",
    "memcached-item-size-max",
    "memcached-port",
    "memcached-tls",
    "memcached-unixsocket",
    "port",
    "protected-mode",
    "replicaof",
    "requirepass",
    "save",
    "slaveof",
    "tls-auth-clients",
    "tls-ca-cert-dir",
    "tls-ca-cert-file",
    "tls-cert-file",
    "tls-client-cert-file",
    "tls-client-key-file",
    "tls-cluster",
    "tls-key-file",
    "tls-port",
    "tls-replication",
];

fn is_ours(name: &str) -> bool {
    OURS.contains(&name)
        || ["larder-", "cluster-announce-"].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether the engine of this very version takes `spec.config`. Of another version's engine nobody
/// here can tell: there the first member that is asked does.
///
/// # Errors
/// `Error::Invalid` with the first directive that it would refuse, and why.
pub fn check_config(spec: &CacheClusterSpec) -> Result<(), Error> {
    for (name, value) in &spec.config {
        let field = format!("spec.config.{name}");
        let known = directives::find(name)
            .ok_or_else(|| invalid(&field, "is not a directive of the engine"))?;
        let words = match known.kind {
            Kind::Words | Kind::Save | Kind::OutputLimits => {
                value.split_ascii_whitespace().map(String::from).collect()
            }
            _ => vec![value.clone()],
        };
        known.parse(&words, known.default).map_err(|why| invalid(&field, why))?;
    }
    Ok(())
}

/// A short fingerprint (FNV-1a, 64 bits): equal settings have equal ones, in every version.
pub fn hash<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (name, value) in pairs {
        for byte in name.bytes().chain([0]).chain(value.bytes()).chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests;
