//! Persistence: the snapshot file, the append-only log, loading at start, and the way down.
//!
//! ```text
//! journal -> writer -> incr files          snapshot -> dump.rdb (SAVE, save points)
//!              ^ switch at the moment of          |-> base file of the log (rewrite)
//! ```
//!
//! Modules in reading order: `manifest`, `position` (remarks in the log), `aof` (the files, step by step),
//! `running` (who writes), `writer` (the thread), `rewrite`, `save`, `load`, `start` (loading, timers, the way down).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

pub mod aof;
pub mod load;
pub mod manifest;
pub mod position;
pub mod rewrite;
pub mod running;
pub mod save;
pub mod start;
pub mod writer;

pub use crate::topology::Lineage;

use crate::disk;
use crate::server::Shared;
use running::Running;
use writer::Policy;

const LINEAGE_FILE: &str = "lineage.json";

/// What persistence keeps for one server.
#[derive(Default)]
pub struct Persist {
    me: OnceLock<Weak<Shared>>,
    aof: Mutex<Option<Arc<Running>>>,
    lineage: Mutex<Option<Lineage>>,
    /// Unix seconds of the last save that succeeded.
    pub last_save_s: AtomicI64,
    pub saving: AtomicBool,
    pub save_failed: AtomicBool,
    pub last_save_took_s: AtomicI64,
    pub saves: AtomicU64,
    pub rewriting: AtomicBool,
    /// Held while the log is rewritten: one rewrite at a time, whoever asks for it.
    rewrite_turn: Mutex<()>,
    pub rewrite_wanted: AtomicBool,
    pub rewrite_failed: AtomicBool,
    pub last_rewrite_took_s: AtomicI64,
    pub rewrites: AtomicU64,
    /// Bytes that are to be loaded and that have been, and since when, unix seconds.
    pub loading_total: AtomicU64,
    pub loading_done: AtomicU64,
    pub loading_since_s: AtomicI64,
    pub loaded_keys: AtomicU64,
    pub loaded_expired: AtomicU64,
    /// When the snapshot was taken that the data set began with, unix seconds; 0: with none.
    pub loaded_taken_s: AtomicI64,
}

/// Figures for INFO persistence.
#[derive(Clone, Debug, Default)]
pub struct Info {
    pub loading: bool,
    pub loading_total_bytes: u64,
    pub loading_loaded_bytes: u64,
    pub loading_start_time: i64,
    pub rdb_changes_since_last_save: u64,
    pub rdb_bgsave_in_progress: bool,
    pub rdb_last_save_time: i64,
    pub rdb_last_bgsave_ok: bool,
    pub rdb_last_bgsave_time_sec: i64,
    pub rdb_saves: u64,
    pub rdb_last_load_keys_loaded: u64,
    pub rdb_last_load_keys_expired: u64,
    pub rdb_last_load_taken_s: i64,
    pub aof_enabled: bool,
    pub aof_rewrite_in_progress: bool,
    pub aof_rewrite_scheduled: bool,
    pub aof_last_rewrite_time_sec: i64,
    pub aof_last_bgrewrite_ok: bool,
    pub aof_last_write_ok: bool,
    pub aof_rewrites: u64,
    pub aof_current_size: u64,
    pub aof_base_size: u64,
    pub aof_buffer_length: u64,
    /// Old values that a running snapshot holds in memory.
    pub snapshot_pending_bytes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Persist {
    /// The log, when it is on.
    pub fn aof(&self) -> Option<Arc<Running>> {
        lock(&self.aof).clone()
    }

    fn set_aof(&self, running: Option<Arc<Running>>) {
        *lock(&self.aof) = running;
    }

    /// Lineage of the data set as a snapshot file holds it.
    pub fn lineage_text(&self) -> Option<String> {
        lock(&self.lineage).as_ref().and_then(|l| serde_json::to_string(l).ok())
    }
}

impl Shared {
    /// The server itself, for threads that outlive the caller; `None` before it has started.
    pub fn strong(&self) -> Option<Arc<Shared>> {
        self.persist.me.get().and_then(Weak::upgrade)
    }

    fn folder(&self) -> PathBuf {
        PathBuf::from(self.config.get("dir").unwrap_or_else(|| ".".into()))
    }

    fn aof_folder(&self) -> PathBuf {
        self.folder()
            .join(self.config.get("appenddirname").unwrap_or_else(|| "appendonlydir".into()))
    }

    fn aof_name(&self) -> String {
        self.config.get("appendfilename").unwrap_or_else(|| "appendonly.aof".into())
    }

    fn dump_path(&self) -> PathBuf {
        self.folder().join(self.config.get("dbfilename").unwrap_or_else(|| "dump.rdb".into()))
    }

    /// A directive that is yes or no.
    pub(crate) fn is_on(&self, name: &str, default: bool) -> bool {
        self.config.get(name).map_or(default, |v| v.eq_ignore_ascii_case("yes"))
    }

    /// A directive in bytes, with the units of redis.conf.
    pub(crate) fn bytes(&self, name: &str, default: u64) -> u64 {
        self.config.get(name).and_then(|v| parse_bytes(&v)).unwrap_or(default)
    }
}

/// `64mb`, `1g`, `100`: k, m and g are thousands, kb, mb and gb powers of two.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Lineage of the data set in memory, with the journal's place; `None`: nothing loaded, nothing synced.
pub fn lineage(shared: &Shared) -> Option<Lineage> {
    let mut lineage = lock(&shared.persist.lineage).clone()?;
    lineage.replid = shared.replication.replid();
    lineage.offset = shared.journal.end();
    Some(lineage)
}

/// Says under which cluster, shard and epoch the data set is now written; whether that is another than before.
/// `store_lineage` puts it on disk.
pub fn note_lineage(shared: &Shared, lineage: Option<Lineage>) -> bool {
    let place = |l: &Lineage| (l.cluster.clone(), l.incarnation, l.shard, l.epoch);
    let mut kept = lock(&shared.persist.lineage);
    let is_new = kept.as_ref().map(place) != lineage.as_ref().map(place);
    if is_new {
        *kept = lineage;
    }
    is_new
}

/// Puts the lineage beside the log's manifest, on disk before this returns; unless what is on disk is another data set
/// still (a log that waits for its new base). It counts for a log that holds no mark, see `start`.
pub fn store_lineage(shared: &Shared) -> std::io::Result<()> {
    let counts = shared.persist.aof().is_some_and(|running| lock(&running.log).counts());
    match shared.persist.lineage_text().filter(|_| counts) {
        Some(text) => {
            disk::replace(&*shared.disk, &shared.aof_folder(), LINEAGE_FILE, text.as_bytes())
        }
        None => Ok(()),
    }
}

/// Why the disk cannot be written, for the member's report.
pub fn disk_error(shared: &Shared) -> Option<String> {
    shared.persist.aof().and_then(|running| running.failure())
}

/// When the snapshot was taken that the data set began with, unix seconds; `None`: it began with a log, or with nothing.
pub fn snapshot_taken_s(shared: &Shared) -> Option<i64> {
    Some(shared.persist.loaded_taken_s.load(Ordering::Relaxed)).filter(|taken| *taken != 0)
}

pub fn info(shared: &Shared) -> Info {
    let p = &shared.persist;
    let aof = p.aof();
    let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
    Info {
        loading: shared.state.loading.load(Ordering::Acquire),
        loading_total_bytes: get(&p.loading_total),
        loading_loaded_bytes: get(&p.loading_done),
        loading_start_time: p.loading_since_s.load(Ordering::Relaxed),
        rdb_changes_since_last_save: shared.state.dirty.sum(),
        rdb_bgsave_in_progress: p.saving.load(Ordering::Acquire),
        rdb_last_save_time: p.last_save_s.load(Ordering::Relaxed),
        rdb_last_bgsave_ok: !p.save_failed.load(Ordering::Relaxed),
        rdb_last_bgsave_time_sec: p.last_save_took_s.load(Ordering::Relaxed),
        rdb_saves: get(&p.saves),
        rdb_last_load_keys_loaded: get(&p.loaded_keys),
        rdb_last_load_keys_expired: get(&p.loaded_expired),
        rdb_last_load_taken_s: snapshot_taken_s(shared).unwrap_or(0),
        aof_enabled: aof.is_some(),
        aof_rewrite_in_progress: p.rewriting.load(Ordering::Acquire),
        aof_rewrite_scheduled: p.rewrite_wanted.load(Ordering::Relaxed),
        aof_last_rewrite_time_sec: p.last_rewrite_took_s.load(Ordering::Relaxed),
        aof_last_bgrewrite_ok: !p.rewrite_failed.load(Ordering::Relaxed),
        aof_last_write_ok: aof.as_ref().is_none_or(|r| r.failure().is_none()),
        aof_rewrites: get(&p.rewrites),
        aof_current_size: aof.as_ref().map_or(0, |r| get(&r.bytes)),
        aof_base_size: aof.as_ref().map_or(0, |r| get(&r.base_bytes)),
        aof_buffer_length: aof
            .as_ref()
            .map_or(0, |r| shared.journal.end().saturating_sub(r.written())),
        snapshot_pending_bytes: shared.preimages().map_or(0, |images| images.pending()),
    }
}

/// Replies to writes wait for the log, or with `appendfsync always` for the disk, while the log counts. A majority
/// that is to have it on disk is waited for until the log counts: a member that has just taken its data from another may be
/// primary before.
fn apply_policy(shared: &Shared) {
    let always = Policy::of(shared) == Policy::Always;
    let by_majority = always && shared.quorum.is_configured();
    let running = shared.persist.aof();
    let counts = running.as_ref().is_some_and(|r| {
        by_majority || r.failure().is_some() || !r.is_suspended() && lock(&r.log).counts()
    });
    let state = &shared.state;
    if always && counts {
        if !state.acks_wait_for_disk.swap(true, Ordering::AcqRel) {
            shared.journal.wake();
        }
    } else if state.acks_wait_for_disk.swap(false, Ordering::AcqRel) {
        shared.wake_loops();
    }
    let waits = counts && !always;
    if state.acks_wait_for_log.swap(waits, Ordering::AcqRel) && !waits {
        shared.wake_loops();
    }
}

/// The data set was replaced by one of this lineage. What is on disk follows with its own base.
pub(crate) fn take_lineage(shared: &Shared, lineage: Option<Lineage>) {
    *lock(&shared.persist.lineage) = lineage;
    shared.persist.loaded_taken_s.store(0, Ordering::Relaxed);
}
