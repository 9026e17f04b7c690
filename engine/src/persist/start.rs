//! Loading at start, the timers of persistence, and the way down.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::aof::Log;
use super::load::{self, Origin};
use super::running::Running;
use super::writer;
use super::{LINEAGE_FILE, apply_policy, lock, position, rewrite, save};
use crate::clock;
use crate::disk;
use crate::server::Shared;
use crate::tally::Tally;

const TICK: Duration = Duration::from_millis(100);
/// Time before a failed save or rewrite is tried again, seconds.
const RETRY_S: i64 = 5;
const LINEAGE_BYTES_MAX: u64 = 64 * 1024;

/// Loads what is on disk and starts the threads of persistence. The loops may run already: they answer
/// LOADING until this is done.
pub fn start(shared: &Arc<Shared>) -> Result<(), String> {
    let persist = &shared.persist;
    // A server starts once.
    let _ = persist.me.set(Arc::downgrade(shared));
    shared.state.loading.store(true, Ordering::Release);
    persist.loading_since_s.store(clock::unix_ms() / 1000, Ordering::Relaxed);
    let wants_log = shared.is_on("appendonly", false);
    let disk = shared.disk.clone();
    let mut log = if wants_log {
        let folder = shared.aof_folder();
        let failed = |e: io::Error| format!("{}: {e}", folder.display());
        disk.make_folder(&folder).map_err(failed)?;
        Some(Log::open(disk.clone(), &folder, &shared.aof_name()).map_err(failed)?)
    } else {
        None
    };
    let from_log = log
        .as_ref()
        .is_some_and(|log| log.manifest().base.is_some() || !log.manifest().incr.is_empty());
    let mut last_len = 0;
    let origin = if let (Some(log), true) = (&log, from_log) {
        let (base, incr) = log.sizes();
        persist.loading_total.store(base + incr, Ordering::Relaxed);
        let loaded = load::log(shared, &*disk, &shared.aof_folder(), log.manifest())?;
        last_len = loaded.last_len;
        let mut origin = loaded.origin;
        // The last mark in the log comes behind its base. The file beside them may be ahead of the mark, and what was
        // made before the mark may not have got into the log: it says something only of a log without lineage.
        let marked = lock(&persist.lineage).take();
        origin.lineage = marked.or(origin.lineage);
        let path = shared.aof_folder().join(LINEAGE_FILE);
        if origin.lineage.is_none()
            && let Ok(Some(bytes)) = disk::read(&*disk, &path, LINEAGE_BYTES_MAX)
        {
            origin.lineage = serde_json::from_slice(&bytes).ok();
        }
        origin
    } else {
        dump(shared)?
    };
    begin_journal(shared, &origin);
    if let Some(log) = log.take() {
        let going_on = from_log.then_some(last_len);
        open_log(shared, log, going_on).map_err(|e| format!("the append-only file: {e}"))?;
    }
    persist.last_save_s.store(clock::unix_ms() / 1000, Ordering::Relaxed);
    let dirty = &shared.state.dirty;
    dirty.add(Tally::ANY_THREAD, -(dirty.sum() as i64));
    shared.state.loading.store(false, Ordering::Release);
    let with = shared.clone();
    let spawned = std::thread::Builder::new().name("timers".into()).spawn(move || timers(&with));
    spawned.map_err(|e| format!("cannot start a thread: {e}"))?;
    Ok(())
}

/// Loads the snapshot file, if there is one.
fn dump(shared: &Shared) -> Result<Origin, String> {
    let path = shared.dump_path();
    let disk = shared.disk.clone();
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Origin::default()),
        Err(e) => return Err(format!("{}: {e}", path.display())),
    };
    let persist = &shared.persist;
    persist.loading_total.store(disk.len(&path).unwrap_or(0), Ordering::Relaxed);
    let keep_expired = shared.config.get("replicaof").is_some_and(|t| !t.is_empty());
    let done = |bytes| persist.loading_done.store(bytes, Ordering::Relaxed);
    let origin = load::snapshot(shared, file, keep_expired, done)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    persist.loaded_keys.store(origin.keys, Ordering::Relaxed);
    persist.loaded_expired.store(origin.expired, Ordering::Relaxed);
    persist.loaded_taken_s.store(origin.taken_s.unwrap_or(0), Ordering::Relaxed);
    let age_s = origin.taken_s.map(|taken_s| clock::unix_ms() / 1000 - taken_s);
    tracing::info!(keys = origin.keys, expired = origin.expired, age_s, "snapshot file loaded");
    Ok(origin)
}

/// The journal goes on where the loaded data set says.
fn begin_journal(shared: &Shared, origin: &Origin) {
    shared.journal.reset(origin.offset);
    shared.replication.loaded(origin.replid.as_deref(), origin.offset, origin.db);
    *lock(&shared.persist.lineage) = origin.lineage.clone();
    shared.journal.set_keep(shared.bytes("repl-backlog-size", 10 << 20));
    shared.journal.set_active(shared.has_council() || shared.is_on("appendonly", false));
}

/// Begins to write the log: behind its good bytes, or anew with a base.
fn open_log(shared: &Arc<Shared>, mut log: Log, going_on: Option<u64>) -> io::Result<()> {
    let offset = shared.journal.end();
    let goes_on = match going_on {
        None => false,
        Some(len) => log.go_on(len)?,
    };
    if goes_on {
        log.write(&position::line(&shared.replication.replid(), offset))?;
        log.sync()?;
    }
    let running = spawn_writer(shared, log, offset, !goes_on)?;
    if !goes_on {
        rewrite::rewrite(shared, &running, true)?;
    }
    shared.state.durable_offset.store(offset, Ordering::Release);
    apply_policy(shared);
    Ok(())
}

/// `waits`: nothing is written before a restart gives the log a file.
fn spawn_writer(
    shared: &Arc<Shared>,
    log: Log,
    offset: u64,
    waits: bool,
) -> io::Result<Arc<Running>> {
    let (base, incr) = log.sizes();
    let pin = shared
        .journal
        .pin(offset, u64::MAX)
        .ok_or_else(|| io::Error::other("the journal does not hold its own end"))?;
    let running = Arc::new(Running::new(log, pin));
    if waits {
        running.suspend(shared);
    }
    running.base_bytes.store(base, Ordering::Relaxed);
    running.bytes.store(base + incr, Ordering::Relaxed);
    shared.persist.set_aof(Some(running.clone()));
    let (with, write) = (shared.clone(), running.clone());
    std::thread::Builder::new().name("log".into()).spawn(move || writer::run(&with, &write))?;
    Ok(running)
}

/// CONFIG SET appendonly yes: the log begins with a base of this moment.
fn switch_on(shared: &Arc<Shared>) -> io::Result<()> {
    let disk = shared.disk.clone();
    let folder = shared.aof_folder();
    disk.make_folder(&folder)?;
    let log = Log::open(disk, &folder, &shared.aof_name())?;
    {
        let _locked = shared.keyspace.lock_all();
        shared.journal.set_active(true);
    }
    let running = spawn_writer(shared, log, shared.journal.end(), true)?;
    rewrite::rewrite(shared, &running, true)
}

/// CONFIG SET appendonly no.
fn switch_off(shared: &Shared) {
    if let Some(running) = shared.persist.aof() {
        running.close(shared);
        shared.persist.set_aof(None);
        shared.state.block_writes_for("aof", "");
        shared.state.disk_failed.store(false, Ordering::Release);
        apply_policy(shared);
    }
}

/// What is looked at ten times a second.
fn timers(shared: &Arc<Shared>) {
    let (mut last_try_s, mut generation) = (0, 0);
    while !shared.state.shutdown.load(Ordering::Acquire) {
        std::thread::sleep(TICK);
        let now_s = clock::unix_ms() / 1000;
        let persist = &shared.persist;
        if shared.config.generation() != generation {
            generation = shared.config.generation();
            shared.journal.set_keep(shared.bytes("repl-backlog-size", 10 << 20));
        }
        apply_policy(shared);
        crate::replication::tick(shared, clock::monotonic_ms());
        let may_try = now_s - last_try_s >= RETRY_S;
        let wants_log = shared.is_on("appendonly", false);
        match persist.aof() {
            None if wants_log && may_try => {
                last_try_s = now_s;
                if let Err(e) = switch_on(shared) {
                    tracing::error!(error = %e, "cannot switch the append-only file on");
                }
            }
            Some(_) if !wants_log => switch_off(shared),
            Some(running) => {
                let anew = running.is_suspended()
                    || running.must_restart.load(Ordering::Acquire)
                    || (!lock(&running.log).counts() && may_try);
                let wanted = persist.rewrite_wanted.swap(false, Ordering::AcqRel);
                if (anew && (may_try || running.failure().is_none()))
                    || wanted
                    || (may_try && rewrite::is_due(shared, &running))
                {
                    last_try_s = now_s;
                    // Under way already: what is due stays due.
                    let _ = rewrite::background(shared, anew);
                }
            }
            None => {}
        }
        let failed = persist.save_failed.load(Ordering::Acquire);
        if !persist.saving.load(Ordering::Acquire)
            && (!failed || may_try)
            && save::is_due(shared, now_s)
        {
            last_try_s = if failed { now_s } else { last_try_s };
            let _ = save::background(shared);
        }
    }
}

/// How the data set is treated when the server ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goodbye {
    /// Saved if there are save points.
    AsConfigured,
    Save,
    NoSave,
}

/// Ends the server: no more writes, everything on disk, then the loops stop. The error says why not.
pub fn shut_down(shared: &Arc<Shared>, how: Goodbye, force: bool) -> Result<(), String> {
    {
        let _locked = shared.keyspace.lock_all();
        shared.state.block_writes_for("shutdown", "ERR the server is shutting down");
    }
    let saves = match how {
        Goodbye::Save => true,
        Goodbye::NoSave => false,
        Goodbye::AsConfigured => {
            !save::points(shared).is_empty() && !shared.state.loading.load(Ordering::Acquire)
        }
    };
    let mut failed = None;
    if saves && let Err(e) = save::save(shared) {
        failed = Some(format!("cannot save the snapshot file: {e}"));
    }
    let whole = !shared.state.loading.load(Ordering::Acquire);
    if let (Some(running), None) = (shared.persist.aof(), &failed)
        && whole
        && how != Goodbye::NoSave
        && let Err(e) = rewrite::complete(shared, &running)
    {
        failed = Some(format!("cannot write the append-only file: {e}"));
    }
    if let (Some(running), None) = (shared.persist.aof(), &failed)
        && !running.close(shared)
        && how != Goodbye::NoSave
    {
        failed = running.failure().map(|e| format!("cannot write the append-only file: {e}"));
    }
    if let (Some(why), false) = (failed, force) {
        tracing::error!(why, "not shut down");
        shared.state.block_writes_for("shutdown", "");
        return Err(why);
    }
    crate::replication::stop(shared);
    shared.state.shutdown.store(true, Ordering::Release);
    shared.wake_loops();
    Ok(())
}
