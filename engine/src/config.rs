//! Settings: a table of directives with redis.conf's names, their values as text, and what is read often.
//!
//! Values come from the defaults, then the file, then the command line, then CONFIG SET. They are kept as
//! canonical text; `Hot` holds what hot paths read, parsed once per change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::types::Limits;

pub mod cgroup;
pub mod directives;
pub mod file;
pub mod lists;
mod rewrite;
pub mod units;

pub(crate) use rewrite::replace as replace_file;

use directives::{DIRECTIVES, Directive, FIXED, Kind, PROTECTED};
use lists::OutputLimit;

/// Values that hot paths read, parsed once per change.
#[derive(Clone)]
pub struct Hot {
    pub requirepass: Vec<u8>,
    pub maxmemory: u64,
    pub maxmemory_policy: Policy,
    pub maxmemory_samples: usize,
    /// Longest time that one write spends on making room, microseconds.
    pub eviction_us: u64,
    pub lfu_log_factor: u32,
    pub lfu_decay_minutes: u32,
    pub proto_max_bulk_len: usize,
    /// Bytes up to which a HyperLogLog stays sparse.
    pub hll_sparse_max_bytes: usize,
    pub client_query_buffer_limit: usize,
    pub maxclients: usize,
    pub timeout_s: u64,
    /// After which an idle client is asked whether it is there; none: never.
    pub tcp_keepalive: Duration,
    pub slowlog_us: i64,
    pub slowlog_max_len: usize,
    pub limits: Limits,
    pub pubsub_output_bytes_max: usize,
    /// Largest reply to one request, bytes.
    pub reply_bytes_max: usize,
    /// Age from which on a script makes others hear BUSY, milliseconds; 0: never.
    pub busy_reply_ms: u64,
    /// Most memory of one event loop's interpreter.
    pub script_memory_bytes: usize,
    /// Of normal clients, replicas, subscribers.
    pub output_limits: [OutputLimit; 3],
    pub protected_mode: bool,
    /// Connections to each TLS port that are taken in between two rounds of handshakes.
    pub tls_accepts_per_turn: usize,
    /// Largest item of Memcached clients, key and header with it, bytes.
    pub item_size_max: usize,
    pub replica_serves_stale: bool,
    /// Nothing expires and nothing is evicted: somebody imports data who says when keys go.
    pub import_mode: bool,
    /// A turn of a loop that is longer slows the sending of slots, microseconds; 0: none does.
    pub move_turn_us: u64,
    pub max_staleness_ms: u64,
    /// Classes of keyspace events that are told, as bits of `notify::class`.
    pub events: u32,
    pub tracking_keys_max: usize,
    /// Milliseconds from which on something is a spike; 0: never.
    pub latency_threshold_ms: u64,
    /// Bytes above which a request and a reply are written down; negative: never.
    pub large_request_bytes: i64,
    pub large_reply_bytes: i64,
    pub large_requests_max: usize,
    pub large_replies_max: usize,
}

/// maxmemory-policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    NoEviction,
    AllKeysLru,
    AllKeysLfu,
    AllKeysRandom,
    VolatileLru,
    VolatileLfu,
    VolatileRandom,
    VolatileTtl,
}

impl Policy {
    pub fn is_lfu(self) -> bool {
        matches!(self, Policy::AllKeysLfu | Policy::VolatileLfu)
    }

    pub fn is_lru(self) -> bool {
        matches!(self, Policy::AllKeysLru | Policy::VolatileLru)
    }

    /// Only keys with an expiry time may go.
    pub fn is_volatile(self) -> bool {
        use Policy::{VolatileLfu, VolatileLru, VolatileRandom, VolatileTtl};
        matches!(self, VolatileLru | VolatileLfu | VolatileRandom | VolatileTtl)
    }

    fn parse(name: &str) -> Policy {
        match name {
            "allkeys-lru" => Policy::AllKeysLru,
            "allkeys-lfu" => Policy::AllKeysLfu,
            "allkeys-random" => Policy::AllKeysRandom,
            "volatile-lru" => Policy::VolatileLru,
            "volatile-lfu" => Policy::VolatileLfu,
            "volatile-random" => Policy::VolatileRandom,
            "volatile-ttl" => Policy::VolatileTtl,
            _ => Policy::NoEviction,
        }
    }
}

type Values = BTreeMap<&'static str, String>;

pub struct Config {
    values: RwLock<Values>,
    /// Names that a file, the command line or CONFIG SET gave a value.
    given: Mutex<BTreeSet<&'static str>>,
    hot: RwLock<Arc<Hot>>,
    maxmemory: AtomicU64,
    generation: AtomicU64,
    /// Classes of keyspace events that are told.
    events: AtomicU32,
    /// Keys that CLIENT TRACKING remembers at most; 0: any number.
    tracking_keys_max: AtomicUsize,
    /// `replica-serve-stale-data no`.
    refuses_stale: AtomicBool,
    /// What replicas may be behind, milliseconds; 0: anything.
    max_staleness_ms: AtomicU64,
    /// The file that the server was started with.
    file: Option<PathBuf>,
    /// `rename-command` lines: old name, new name (empty: the command is gone).
    pub renames: Vec<(String, String)>,
    /// `user` lines: a name and its rules.
    pub users: Vec<Vec<String>>,
}

impl Config {
    /// From `[FILE] [--directive value...]`, as redis-server takes them.
    pub fn from_args(args: &[String]) -> Result<Config, String> {
        let mut builder = Builder::default();
        let mut rest = args;
        let mut path = None;
        if let Some((first, others)) = args.split_first()
            && !first.starts_with("--")
        {
            let file = if first == "-" { Path::new("/dev/stdin") } else { Path::new(first) };
            for line in file::read(file, 0)? {
                builder.take(&line.words).map_err(|reason| {
                    let shown = shown(&line.words).unwrap_or(line.text);
                    file::fatal(line.number, &shown, &reason)
                })?;
            }
            path =
                (first != "-").then(|| std::path::absolute(file).unwrap_or_else(|_| file.into()));
            rest = others;
        }
        for (at, words) in flag_lines(rest)?.into_iter().enumerate() {
            let line: Vec<String> = words.iter().map(|w| file::quote(w)).collect();
            let line = shown(&words).unwrap_or(line.join(" "));
            builder.take(&words).map_err(|reason| file::fatal(at + 1, &line, &reason))?;
        }
        builder.size_by_cgroup(cgroup::read(), processors());
        let hot = parse_hot(&builder.values)?;
        Ok(Config {
            maxmemory: AtomicU64::new(hot.maxmemory),
            events: AtomicU32::new(hot.events),
            tracking_keys_max: AtomicUsize::new(hot.tracking_keys_max),
            refuses_stale: AtomicBool::new(!hot.replica_serves_stale),
            max_staleness_ms: AtomicU64::new(hot.max_staleness_ms),
            values: RwLock::new(builder.values),
            given: Mutex::new(builder.given),
            hot: RwLock::new(Arc::new(hot)),
            generation: AtomicU64::new(1),
            file: path,
            renames: builder.renames,
            users: builder.users,
        })
    }

    fn values(&self) -> Values {
        self.values.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn given(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a directive, as CONFIG GET prints it; `None` for an unknown name.
    pub fn get(&self, name: &str) -> Option<String> {
        let name = directives::find(name)?.name;
        self.values.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The value of a directive as a number, or `default` when it is none.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.get(name).and_then(|v| v.parse().ok()).unwrap_or(default)
    }

    /// The value of a yes-or-no directive.
    pub fn is_yes(&self, name: &str) -> bool {
        self.get(name).as_deref() == Some("yes")
    }

    /// Where clients reach this server: by TLS if that is wanted and served, or if nothing else is.
    pub fn own_port(&self, by_tls: bool) -> u16 {
        let (plain, tls) = (self.int("port", 6379) as u16, self.int("tls-port", 0) as u16);
        if tls != 0 && (by_tls || plain == 0) { tls } else { plain }
    }

    /// The request by which this server logs in at another one; `None`: it needs not.
    pub fn login(&self) -> Option<Vec<String>> {
        let password = self.get("masterauth").filter(|p| !p.is_empty())?;
        let user = self.get("masteruser").filter(|u| !u.is_empty());
        Some(["AUTH".to_owned()].into_iter().chain(user).chain([password]).collect())
    }

    /// Somebody gave the directive a value; else it has its default.
    pub fn is_given(&self, name: &str) -> bool {
        directives::find(name).is_some_and(|d| self.given().contains(d.name))
    }

    /// The file that the server was started with.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Sets one directive whatever its flags, for the server's own use.
    pub fn set(&self, name: &str, value: &str) -> Result<(), String> {
        let directive = directives::find(name).ok_or_else(|| format!("Unknown option '{name}'"))?;
        self.apply(&[(directive, value.to_string())]).map_err(|(_, reason)| reason)
    }

    /// CONFIG SET: all of the pairs or none; the error is the reply's text.
    pub fn set_live(&self, pairs: &[(&[u8], &[u8])]) -> Result<(), String> {
        let mut changes: Vec<(&'static Directive, String)> = Vec::new();
        for (name, value) in pairs {
            let name = String::from_utf8_lossy(name);
            let failed = |reason: &str| {
                let name = crate::command::exec::printable(name.as_bytes());
                format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")
            };
            let Some(directive) = directives::find(&name) else {
                let name = crate::command::exec::printable(name.as_bytes());
                return Err(format!(
                    "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
                ));
            };
            if directive.is(FIXED) {
                return Err(failed("can't set immutable config"));
            }
            if directive.is(PROTECTED)
                && self.get("enable-protected-configs").as_deref() == Some("no")
            {
                return Err(failed("can't set protected config"));
            }
            if changes.iter().any(|(d, _)| d.name == directive.name) {
                return Err(failed("duplicate parameter"));
            }
            let value = std::str::from_utf8(value).map_err(|_| failed("the value is not UTF-8"))?;
            changes.push((directive, value.to_string()));
        }
        self.apply(&changes).map_err(|(name, reason)| {
            format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")
        })
    }

    fn apply(
        &self,
        changes: &[(&'static Directive, String)],
    ) -> Result<(), (&'static str, String)> {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = values.clone();
        for (directive, value) in changes {
            let old = next.get(directive.name).cloned().unwrap_or_default();
            let value = directive
                .parse(&words_of(directive, value), &old)
                .map_err(|e| (directive.name, e))?;
            next.insert(directive.name, value);
        }
        let name = changes.first().map_or("", |(d, _)| d.name);
        let hot = parse_hot(&next).map_err(|e| (name, e))?;
        *values = next;
        self.maxmemory.store(hot.maxmemory, Ordering::Release);
        self.events.store(hot.events, Ordering::Release);
        self.tracking_keys_max.store(hot.tracking_keys_max, Ordering::Release);
        self.refuses_stale.store(!hot.replica_serves_stale, Ordering::Release);
        self.max_staleness_ms.store(hot.max_staleness_ms, Ordering::Release);
        *self.hot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(hot);
        drop(values);
        self.given().extend(changes.iter().map(|(d, _)| d.name));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    pub fn hot(&self) -> Arc<Hot> {
        self.hot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// maxmemory, for the path of every write.
    #[inline]
    pub fn maxmemory(&self) -> u64 {
        self.maxmemory.load(Ordering::Relaxed)
    }

    /// Classes of keyspace events that are told, as bits of `notify::class`.
    #[inline]
    pub fn events(&self) -> u32 {
        self.events.load(Ordering::Relaxed)
    }

    /// A replica that has lost its primary does not answer for its keys.
    #[inline]
    pub fn refuses_stale(&self) -> bool {
        self.refuses_stale.load(Ordering::Relaxed)
    }

    /// What replicas may be behind for reads of clients that say nothing else, milliseconds; 0: anything.
    #[inline]
    pub fn max_staleness_ms(&self) -> u64 {
        self.max_staleness_ms.load(Ordering::Relaxed)
    }

    /// Keys that CLIENT TRACKING remembers at most; 0: any number.
    pub fn tracking_keys_max(&self) -> usize {
        self.tracking_keys_max.load(Ordering::Relaxed)
    }

    /// Grows with every change: who keeps a `Hot` looks here whether it is still right.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// CONFIG REWRITE: writes what was given and what differs from the defaults into the file.
    /// `users` are the lines of the users that there are now.
    pub fn rewrite(&self, users: &[String]) -> Result<(), String> {
        let path = self.file.as_deref().ok_or("The server is running without a config file")?;
        rewrite::rewrite(path, &self.values(), &self.given(), &self.renames, users)
    }
}

/// The words of a value that came as one text.
fn words_of(directive: &Directive, value: &str) -> Vec<String> {
    match directive.kind {
        Kind::Words | Kind::Save | Kind::OutputLimits => {
            value.split_ascii_whitespace().map(String::from).collect()
        }
        _ => vec![value.to_string()],
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// `--name value... --name value...` as lines.
fn flag_lines(args: &[String]) -> Result<Vec<Vec<String>>, String> {
    let mut lines: Vec<Vec<String>> = Vec::new();
    for arg in args {
        if let Some(name) = arg.strip_prefix("--").filter(|name| !name.is_empty()) {
            // `--name=value` is a common slip that would otherwise be an unknown name.
            lines.push(vec![name.to_string()]);
        } else if let Some(line) = lines.last_mut() {
            line.push(arg.clone());
        } else {
            return Err(format!("unexpected argument '{arg}': directives begin with --"));
        }
    }
    for line in &mut lines {
        // `--port "6379"` and `--save "60 1"` come as single arguments with spaces in them.
        if let [name, value] = line.as_slice()
            && name.eq_ignore_ascii_case("user")
        {
            let words = file::split_words(value).ok_or("unbalanced quotes behind --user")?;
            *line = [vec![name.clone()], words].concat();
        } else if let [name, value] = line.as_slice()
            && let Some(d) = directives::find(name)
            && matches!(d.kind, Kind::Words | Kind::Save | Kind::OutputLimits)
            && value.contains(' ')
        {
            let mut words = vec![name.clone()];
            words.extend(value.split_ascii_whitespace().map(String::from));
            *line = words;
        }
    }
    Ok(lines)
}

/// Values while they are read, in the order in which they come.
struct Builder {
    values: Values,
    given: BTreeSet<&'static str>,
    renames: Vec<(String, String)>,
    users: Vec<Vec<String>>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            values: DIRECTIVES.iter().map(|d| (d.name, d.default.to_string())).collect(),
            given: BTreeSet::new(),
            renames: Vec::new(),
            users: Vec::new(),
        }
    }
}

impl Builder {
    /// One line: a name and its words.
    fn take(&mut self, line: &[String]) -> Result<(), String> {
        let Some((name, words)) = line.split_first() else { return Ok(()) };
        match name.to_ascii_lowercase().as_str() {
            "rename-command" => return self.rename(words),
            "user" => return self.user(words),
            "loadmodule" => {
                return Err(format!("'{name}' is not supported by this server"));
            }
            _ => {}
        }
        let directive = directives::find(name)
            .ok_or_else(|| "Bad directive or wrong number of arguments".to_string())?;
        if words.is_empty() && !matches!(directive.kind, Kind::Words) {
            return Err("wrong number of arguments".into());
        }
        let first = self.given.insert(directive.name);
        let old = self.values.get(directive.name).cloned().unwrap_or_default();
        let mut value = directive.parse(words, &old)?;
        if matches!(directive.kind, Kind::Save) && !first && !value.is_empty() && !old.is_empty() {
            value = format!("{old} {value}");
        }
        self.values.insert(directive.name, value);
        Ok(())
    }

    /// Its rules are checked now, so that the line at fault is told; what comes of them is made when all is read.
    fn user(&mut self, words: &[String]) -> Result<(), String> {
        if words.is_empty() {
            return Err("wrong number of arguments".into());
        }
        if self.users.iter().any(|line| line.first() == words.first()) {
            return Err(
                "Duplicate user found. A user can only be defined once in config files".into()
            );
        }
        let all_channels =
            self.values.get("acl-pubsub-default").is_some_and(|v| v == "allchannels");
        crate::acl::Acl::new(b"").define(words, all_channels)?;
        self.users.push(words.to_vec());
        Ok(())
    }

    fn rename(&mut self, words: &[String]) -> Result<(), String> {
        let [from, to] = words else { return Err("wrong number of arguments".into()) };
        if !crate::command::all().any(|c| c.name.eq_ignore_ascii_case(from)) {
            return Err("No such command in rename-command".into());
        }
        let taken = crate::command::all().any(|c| c.name.eq_ignore_ascii_case(to))
            || self.renames.iter().any(|(_, t)| !t.is_empty() && t.eq_ignore_ascii_case(to));
        if taken {
            return Err("Target command name already exists".into());
        }
        self.renames.push((from.to_ascii_lowercase(), to.to_ascii_lowercase()));
        Ok(())
    }

    /// Threads from the processor quota, and on a managed member maxmemory from the memory limit,
    /// where nobody gave them.
    fn size_by_cgroup(&mut self, limits: cgroup::CgroupLimits, processors: usize) {
        if !self.given.contains("io-threads") {
            self.values.insert("io-threads", limits.threads(processors).to_string());
        }
        let is_managed = self.values.get("larder-managed").is_some_and(|v| v == "yes");
        let unset = self.values.get("maxmemory").is_some_and(|v| v == "0");
        if is_managed
            && unset
            && let Some(bytes) = limits.maxmemory()
        {
            self.values.insert("maxmemory", bytes.to_string());
        }
    }
}

fn parse_hot(values: &Values) -> Result<Hot, String> {
    let text = |name: &str| values.get(name).map(String::as_str).unwrap_or_default();
    let int =
        |name: &str| text(name).parse::<i64>().map_err(|_| format!("{name} is not an integer"));
    let size = |name: &str| int(name).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let output_limits = lists::parse_output_limits(text("client-output-buffer-limit"));
    let tenacity = int("maxmemory-eviction-tenacity")?;
    Ok(Hot {
        requirepass: text("requirepass").as_bytes().to_vec(),
        maxmemory: int("maxmemory")?.max(0) as u64,
        maxmemory_policy: Policy::parse(text("maxmemory-policy")),
        maxmemory_samples: size("maxmemory-samples")?.max(1),
        // 10 is half a millisecond; 100 is as long as it takes.
        eviction_us: if tenacity >= 100 { u64::MAX } else { tenacity.max(1) as u64 * 50 },
        lfu_log_factor: int("lfu-log-factor")?.max(0) as u32,
        lfu_decay_minutes: int("lfu-decay-time")?.max(0) as u32,
        proto_max_bulk_len: size("proto-max-bulk-len")?,
        hll_sparse_max_bytes: size("hll-sparse-max-bytes")?,
        client_query_buffer_limit: size("client-query-buffer-limit")?,
        maxclients: size("maxclients")?.max(1),
        timeout_s: int("timeout")?.max(0) as u64,
        tcp_keepalive: Duration::from_secs(int("tcp-keepalive")?.max(0) as u64),
        slowlog_us: int("slowlog-log-slower-than")?,
        slowlog_max_len: size("slowlog-max-len")?,
        limits: Limits {
            list_max_listpack_size: int("list-max-listpack-size")?.clamp(-5, i64::from(i32::MAX))
                as i32,
            hash_max_listpack_entries: size("hash-max-listpack-entries")?,
            hash_max_listpack_value: size("hash-max-listpack-value")?,
            set_max_intset_entries: size("set-max-intset-entries")?,
            set_max_listpack_entries: size("set-max-listpack-entries")?,
            set_max_listpack_value: size("set-max-listpack-value")?,
            zset_max_listpack_entries: size("zset-max-listpack-entries")?,
            zset_max_listpack_value: size("zset-max-listpack-value")?,
            stream_node_max_bytes: size("stream-node-max-bytes")?,
            stream_node_max_entries: size("stream-node-max-entries")?,
            seed: hash_seed(),
        },
        reply_bytes_max: reply_bytes_max(output_limits[0], int("maxmemory")?),
        busy_reply_ms: int("busy-reply-threshold")?.max(0) as u64,
        script_memory_bytes: size("larder-script-memory-bytes")?,
        pubsub_output_bytes_max: usize::try_from(output_limits[2].hard).unwrap_or(usize::MAX),
        output_limits,
        protected_mode: text("protected-mode") == "yes",
        tls_accepts_per_turn: size("max-new-tls-connections-per-cycle")?.max(1),
        item_size_max: size("memcached-item-size-max")?,
        replica_serves_stale: text("replica-serve-stale-data") == "yes",
        import_mode: text("import-mode") == "yes",
        move_turn_us: int("larder-move-p99-ms")?.max(0) as u64 * 1000,
        max_staleness_ms: int("larder-max-staleness-ms")?.max(0) as u64,
        events: crate::notify::told(text("notify-keyspace-events")),
        tracking_keys_max: size("tracking-table-max-keys")?,
        latency_threshold_ms: int("latency-monitor-threshold")?.max(0) as u64,
        large_request_bytes: int("commandlog-request-larger-than")?,
        large_reply_bytes: int("commandlog-reply-larger-than")?,
        large_requests_max: size("commandlog-large-request-max-len")?,
        large_replies_max: size("commandlog-large-reply-max-len")?,
    })
}

/// What `client-output-buffer-limit normal` says; without it, what a data set of the allowed size can fill.
fn reply_bytes_max(limit: OutputLimit, maxmemory: i64) -> usize {
    const LEAST: u64 = 64 << 20;
    const MOST: u64 = 1 << 30;
    let bytes = match (limit.hard, maxmemory.max(0) as u64) {
        (0, 0) => MOST,
        (0, maxmemory) => maxmemory.clamp(LEAST, MOST),
        (hard, _) => hard,
    };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A line whose words are secrets, as it may be shown; `None`: any other.
fn shown(words: &[String]) -> Option<String> {
    let name = words.first()?;
    if name.eq_ignore_ascii_case("user") {
        return Some(format!("{name} {} ...", words.get(1)?));
    }
    directives::find(name).filter(|d| d.is(directives::SECRET)).map(|_| format!("{name} ..."))
}

/// One seed for the life of the process.
fn hash_seed() -> u64 {
    static SEED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *SEED.get_or_init(crate::random::seed)
}

#[cfg(test)]
mod tests;
