//! Settings: a table of directives with redis.conf's names, their values as text, and what is read often.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::types::Limits;

/// Values that hot paths read, parsed once per change.
#[derive(Clone)]
pub struct Hot {
    pub requirepass: Vec<u8>,
    pub maxmemory: u64,
    pub maxmemory_policy: Policy,
    pub maxmemory_samples: usize,
    pub lfu_log_factor: u32,
    pub lfu_decay_minutes: u32,
    pub proto_max_bulk_len: usize,
    pub client_query_buffer_limit: usize,
    pub maxclients: usize,
    pub timeout_s: u64,
    pub slowlog_us: i64,
    pub slowlog_max_len: usize,
    pub limits: Limits,
    pub pubsub_output_bytes_max: usize,
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
}

pub struct Config {
    values: RwLock<BTreeMap<String, String>>,
    hot: RwLock<Arc<Hot>>,
    generation: AtomicU64,
}

impl Config {
    /// From `--name value…` arguments (and a file, later in this module's life).
    pub fn from_args(args: &[String]) -> Result<Config, String> {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        let mut name: Option<String> = None;
        for arg in args {
            if let Some(flag) = arg.strip_prefix("--") {
                values.insert(flag.to_ascii_lowercase(), String::new());
                name = Some(flag.to_ascii_lowercase());
            } else if let Some(value) = name.as_ref().and_then(|n| values.get_mut(n)) {
                if !value.is_empty() {
                    value.push(' ');
                }
                value.push_str(arg);
            } else {
                return Err(format!("unexpected argument {arg:?}: directives begin with --"));
            }
        }
        let hot = parse(&values)?;
        Ok(Config {
            values: RwLock::new(values),
            hot: RwLock::new(Arc::new(hot)),
            generation: AtomicU64::new(1),
        })
    }

    pub fn get(&self, name: &str) -> Option<String> {
        self.values.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.get(name).and_then(|v| v.parse().ok()).unwrap_or(default)
    }

    pub fn set(&self, name: &str, value: &str) -> Result<(), String> {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = values.clone();
        next.insert(name.to_string(), value.to_string());
        let hot = parse(&next)?;
        *values = next;
        *self.hot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(hot);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    pub fn hot(&self) -> Arc<Hot> {
        self.hot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Grows with every change: who keeps a `Hot` looks here whether it is still right.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

fn parse(values: &BTreeMap<String, String>) -> Result<Hot, String> {
    let int = |name: &str, default: i64| -> Result<i64, String> {
        match values.get(name) {
            None => Ok(default),
            Some(v) => v.parse().map_err(|_| format!("{name}: {v:?} is not an integer")),
        }
    };
    let policy = match values.get("maxmemory-policy").map(String::as_str) {
        None | Some("noeviction") => Policy::NoEviction,
        Some("allkeys-lru") => Policy::AllKeysLru,
        Some("allkeys-lfu") => Policy::AllKeysLfu,
        Some("allkeys-random") => Policy::AllKeysRandom,
        Some("volatile-lru") => Policy::VolatileLru,
        Some("volatile-lfu") => Policy::VolatileLfu,
        Some("volatile-random") => Policy::VolatileRandom,
        Some("volatile-ttl") => Policy::VolatileTtl,
        Some(other) => return Err(format!("maxmemory-policy: {other:?} is not a policy")),
    };
    Ok(Hot {
        requirepass: values.get("requirepass").map(|v| v.as_bytes().to_vec()).unwrap_or_default(),
        maxmemory: int("maxmemory", 0)?.max(0) as u64,
        maxmemory_policy: policy,
        maxmemory_samples: int("maxmemory-samples", 5)?.max(1) as usize,
        lfu_log_factor: int("lfu-log-factor", 10)?.max(0) as u32,
        lfu_decay_minutes: int("lfu-decay-time", 1)?.max(0) as u32,
        proto_max_bulk_len: int("proto-max-bulk-len", 512 << 20)?.max(0) as usize,
        client_query_buffer_limit: int("client-query-buffer-limit", 1 << 30)?.max(0) as usize,
        maxclients: int("maxclients", 10_000)?.max(1) as usize,
        timeout_s: int("timeout", 0)?.max(0) as u64,
        slowlog_us: int("slowlog-log-slower-than", 10_000)?,
        slowlog_max_len: int("slowlog-max-len", 128)?.max(0) as usize,
        limits: Limits::default(),
        pubsub_output_bytes_max: 32 << 20,
    })
}
