//! Snapshots without fork: a walk over the slots that sees every entry as it was at one moment.
//!
//! Each entry has a parity bit. A snapshot begins, under all locks, by turning the parity that entries
//! are born with; an entry whose bit differs has not been saved yet. The walk saves and marks it, slot by
//! slot; whoever changes or deletes an entry before the walk has come there saves its old value first.
//! So the snapshot is the data set of the moment it began, and what it costs is the old values of the
//! entries that changed meanwhile, until the walk has taken them.
//!
//! When the walk ends, every entry has the new parity: the next snapshot may begin. That holds for one
//! that fails too: its walk goes on to the end, marking and not writing. A snapshot fails when its sink
//! does, when old values pile up beyond a limit, and when whole databases are exchanged or emptied.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::clock;
use crate::config::Policy;
use crate::keyspace::db::lru_clock;
use crate::keyspace::{Entry, ValueRef};
use crate::moves::progress::Progress;
use crate::rdb::{self, Access, WriteOptions, Writer, encode_entry};
use crate::script::library::Libraries;
use crate::server::Shared;
use crate::topology::SLOTS;

/// Encoded bytes of one turn under a slot's lock.
const SLICE_BYTES: usize = 64 * 1024;
/// Buckets looked at in one turn under a slot's lock.
const SLICE_BUCKETS: usize = 256;
/// Name of the remark that holds flags and marks of the key that follows it.
pub const ITEM_AUX: &[u8] = b"larder-item";
/// Least limit of the old values that wait to be written.
const PENDING_MIN: u64 = 64 << 20;

/// How entries become bytes.
struct Codec {
    options: WriteOptions,
    policy: Policy,
    now_ms: i64,
    /// RESTORE requests of the keys in its slots, in place of a snapshot file's entries of all keys.
    requests: Option<Arc<Progress>>,
}

impl Codec {
    fn encode(&self, slot: u16, entry: &Entry, out: &mut Vec<u8>) {
        if let Some(progress) = &self.requests {
            if progress.slots.contains(slot) {
                encode_restore(entry, out);
                progress.count_key();
            }
            return;
        }
        let access = match self.policy {
            Policy::AllKeysLru | Policy::VolatileLru => {
                let idle = lru_clock(self.now_ms).wrapping_sub(entry.access()) & 0x00ff_ffff;
                Access::Idle(u64::from(idle))
            }
            Policy::AllKeysLfu | Policy::VolatileLfu => Access::Freq(entry.access() as u8),
            _ => Access::Unknown,
        };
        let value = match entry.value() {
            ValueRef::String(bytes) => rdb::ValueRef::String(bytes),
            ValueRef::Collection(collection) => rdb::ValueRef::Collection(collection),
        };
        let item = entry.item();
        if item.flags != 0 || item.state != 0 {
            // A remark about the key that follows: servers that do not know it pass over it.
            rdb::encode_aux(out, ITEM_AUX, format!("{} {}", item.flags, item.state).as_bytes());
        }
        encode_entry(out, entry.key(), value, entry.ttl(), access, &self.options);
    }
}

/// Old values that writers gave to a running snapshot.
pub struct Preimages {
    parity: bool,
    codec: Codec,
    saved: Mutex<Vec<(u16, Vec<u8>)>>,
    /// Bytes in `saved`, and the most that may be there.
    pending: AtomicU64,
    limit: u64,
    /// Nothing is wanted any more but the marks.
    failed: AtomicBool,
}

impl Preimages {
    /// Saves an entry that is about to change, once; the caller holds its slot's lock.
    pub fn save(&self, db: u16, slot: u16, entry: &mut Entry) {
        if entry.parity() == self.parity {
            return;
        }
        entry.set_parity(self.parity);
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        let mut bytes = Vec::new();
        self.codec.encode(slot, entry, &mut bytes);
        if bytes.is_empty() {
            return;
        }
        let pending = self.pending.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if pending > self.limit {
            self.failed.store(true, Ordering::Relaxed);
        }
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).push((db, bytes));
    }

    fn take(&self) -> Vec<(u16, Vec<u8>)> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        self.pending.store(0, Ordering::Relaxed);
        std::mem::take(&mut *saved)
    }

    /// Bytes of old values that wait to be written.
    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Snapshots of one server: one at a time.
#[derive(Default)]
pub struct Snapshots {
    turn: Mutex<()>,
    running: AtomicBool,
}

/// The right to take the next snapshot.
pub struct Turn<'s> {
    snapshots: &'s Snapshots,
    _held: MutexGuard<'s, ()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.snapshots.running.store(false, Ordering::Release);
    }
}

impl Snapshots {
    /// Waits until no other snapshot is under way.
    pub fn turn(&self) -> Turn<'_> {
        let held = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.running.store(true, Ordering::Release);
        Turn { snapshots: self, _held: held }
    }

    /// The turn, if no other snapshot is under way.
    pub fn try_turn(&self) -> Option<Turn<'_>> {
        let held = match self.turn.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.running.store(true, Ordering::Release);
        Some(Turn { snapshots: self, _held: held })
    }

    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }
}

/// When a snapshot was taken, in terms of the journal.
#[derive(Clone, Debug)]
pub struct Moment {
    pub offset: u64,
    pub replid: String,
    /// Database that the journal's next request relies on; `None`: it says its own.
    pub db: Option<u16>,
    /// Changes since the last save, at that moment.
    pub dirty: u64,
}

/// A snapshot that has begun; `write` must follow (dropping it marks what is left).
pub struct Begun<'s> {
    shared: &'s Shared,
    _turn: Turn<'s>,
    preimages: Arc<Preimages>,
    upheavals: u64,
    walked: bool,
    /// As they were at the moment.
    libraries: Libraries,
    pub moment: Moment,
}

/// The request that makes a key anew elsewhere.
fn encode_restore(entry: &Entry, out: &mut Vec<u8>) {
    let payload = crate::command::dump::payload(entry);
    let at = entry.ttl().unwrap_or(0).to_string();
    let words: [&[u8]; 6] =
        [b"RESTORE", entry.key(), at.as_bytes(), &payload, b"REPLACE", b"ABSTTL"];
    crate::resp::encode_request(out, &words);
    let item = entry.item();
    if item.flags != 0 || item.state != 0 {
        // What RESTORE has no place for. The CAS is each member's own.
        let [flags, state] = [item.flags, item.state].map(|n| n.to_string());
        let words: [&[u8]; 5] =
            [b"LARDER.ITEM", entry.key(), flags.as_bytes(), state.as_bytes(), b"0"];
        crate::resp::encode_request(out, &words);
    }
}

/// What a snapshot's file says of itself beyond the data.
#[derive(Clone, Copy, Default)]
pub struct Form {
    /// 0: the version that everybody reads, or the first that has all that is there.
    pub version: u32,
    pub aof_base: bool,
}

/// Begins a snapshot: the data set of this moment is what it will hold. `at_moment` runs under all locks.
pub fn begin<'s>(
    shared: &'s Shared,
    turn: Turn<'s>,
    form: Form,
    at_moment: impl FnOnce(&Moment),
) -> Begun<'s> {
    begin_as(shared, turn, form, None, at_moment)
}

/// Begins a snapshot of some slots, to be written by `write_requests`.
pub fn begin_slots<'s>(
    shared: &'s Shared,
    turn: Turn<'s>,
    progress: Arc<Progress>,
    at_moment: impl FnOnce(&Moment),
) -> Begun<'s> {
    begin_as(shared, turn, Form::default(), Some(progress), at_moment)
}

fn begin_as<'s>(
    shared: &'s Shared,
    turn: Turn<'s>,
    form: Form,
    requests: Option<Arc<Progress>>,
    at_moment: impl FnOnce(&Moment),
) -> Begun<'s> {
    let hot = shared.config.hot();
    let yes = |name| shared.config.get(name).is_none_or(|v| v != "no");
    let mut options = WriteOptions {
        version: if form.version == 0 { rdb::VERSION } else { form.version },
        compress: yes("rdbcompression"),
        checksum: yes("rdbchecksum"),
    };
    let (policy, now_ms) = (hot.maxmemory_policy, clock::unix_ms());
    // What the link to the primary applies and appends is one step: never seen half done.
    let applying = shared.replication.applying();
    let mut locked = shared.keyspace.lock_all();
    if form.version == 0 && shared.keyspace.any_timed() {
        options.version = rdb::VERSION_FIELDS;
    }
    let codec = Codec { options, policy, now_ms, requests };
    let preimages = Arc::new(Preimages {
        parity: locked.turn_parity(),
        codec,
        saved: Mutex::default(),
        pending: AtomicU64::new(0),
        limit: PENDING_MIN.max(hot.maxmemory / 8),
        failed: AtomicBool::new(false),
    });
    *shared.preimages.write().unwrap_or_else(PoisonError::into_inner) = Some(preimages.clone());
    shared.snapshotting.store(true, Ordering::Release);
    let is_replica = shared.state.is_replica.load(Ordering::Acquire);
    if !is_replica {
        shared.journal.forget_db();
    }
    let moment = Moment {
        offset: shared.journal.end(),
        replid: shared.replication.replid(),
        db: if is_replica { Some(shared.replication.stream_db()) } else { None },
        dirty: shared.state.dirty.sum(),
    };
    let upheavals = shared.keyspace.upheavals();
    let libraries = shared.scripts.libraries().clone();
    at_moment(&moment);
    drop(locked);
    drop(applying);
    Begun { shared, _turn: turn, preimages, upheavals, walked: false, libraries, moment }
}

impl Begun<'_> {
    /// Walks all slots and writes the snapshot. The error says why there is none.
    pub fn write<W: Write>(mut self, sink: W, form: Form) -> io::Result<W> {
        let options = self.preimages.codec.options;
        let mut writer = Writer::new(sink, options);
        self.head(&mut writer, form)?;
        let mut db_written = None;
        let mut out = Vec::with_capacity(SLICE_BYTES * 2);
        for slot in 0..SLOTS {
            for db in 0..self.shared.keyspace.databases() {
                let mut cursor = 0;
                while let Some(next) = self.slice(db, slot, cursor, &mut out)? {
                    if !out.is_empty() {
                        select(&mut writer, &mut db_written, db)?;
                        writer.encoded(&out)?;
                        out.clear();
                    }
                    self.old_values(&mut writer, &mut db_written)?;
                    cursor = next;
                    if cursor == 0 {
                        break;
                    }
                }
            }
        }
        self.old_values(&mut writer, &mut db_written)?;
        if self.preimages.has_failed() {
            return Err(too_many());
        }
        self.walked = true;
        writer.end()
    }

    /// Walks all slots, the chosen ones first, and gives the requests that make their keys anew to `send`: its second
    /// argument says that old values pile up, so that there is no time to lose.
    pub fn write_requests(
        mut self,
        send: &mut dyn FnMut(&[u8], bool) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = Vec::with_capacity(SLICE_BYTES * 2);
        let chosen = self.preimages.codec.requests.clone();
        let is_chosen = |slot: &u16| chosen.as_ref().is_some_and(|c| c.slots.contains(*slot));
        for slot in (0..SLOTS).filter(is_chosen).chain((0..SLOTS).filter(|s| !is_chosen(s))) {
            for db in 0..self.shared.keyspace.databases() {
                let mut cursor = 0;
                while let Some(next) = self.slice(db, slot, cursor, &mut out)? {
                    cursor = next;
                    self.send(send, &mut out, SLICE_BYTES)?;
                    if cursor == 0 {
                        break;
                    }
                }
            }
        }
        self.send(send, &mut out, 0)?;
        if self.preimages.has_failed() {
            return Err(too_many());
        }
        self.walked = true;
        Ok(())
    }

    /// Sends what was encoded, and old values, once there is more than `keep`.
    fn send(
        &self,
        send: &mut dyn FnMut(&[u8], bool) -> io::Result<()>,
        out: &mut Vec<u8>,
        keep: usize,
    ) -> io::Result<()> {
        let pending = self.preimages.pending();
        if pending > 0 {
            self.preimages.take().into_iter().for_each(|(_, bytes)| out.extend_from_slice(&bytes));
        }
        if out.len() > keep {
            send(out, pending > self.preimages.limit / 4)?;
            out.clear();
        }
        Ok(())
    }

    fn head<W: Write>(&self, writer: &mut Writer<W>, form: Form) -> io::Result<()> {
        let moment = &self.moment;
        let shared = self.shared;
        writer.header()?;
        writer.aux(b"redis-ver", b"7.4.0")?;
        writer.aux(b"redis-bits", b"64")?;
        let ctime = self.preimages.codec.now_ms / 1000;
        writer.aux(b"ctime", ctime.to_string().as_bytes())?;
        writer.aux(b"used-mem", shared.used_memory().to_string().as_bytes())?;
        // Where the stream goes on, database included, so that who loads this can follow it.
        writer.aux(b"repl-stream-db", moment.db.unwrap_or(0).to_string().as_bytes())?;
        writer.aux(b"repl-id", moment.replid.as_bytes())?;
        writer.aux(b"repl-offset", moment.offset.to_string().as_bytes())?;
        if let Some(lineage) = shared.persist.lineage_text() {
            writer.aux(b"larder-lineage", lineage.as_bytes())?;
        }
        // The field under which older servers kept scripts: SCRIPT LOAD outlives a restart and reaches replicas.
        for script in shared.scripts.cache().loaded() {
            writer.aux(b"lua", &script.source)?;
        }
        writer.aux(b"aof-base", if form.aof_base { b"1" } else { b"0" })?;
        // Servers that read nothing newer know of no functions.
        if self.preimages.codec.options.version > rdb::VERSION_MIN {
            self.libraries.all().try_for_each(|library| writer.function(&library.source))?;
        }
        Ok(())
    }

    /// Encodes and marks a few buckets; gives the cursor to go on with, or nothing for an empty table.
    fn slice(
        &self,
        db: u16,
        slot: u16,
        mut cursor: u64,
        out: &mut Vec<u8>,
    ) -> io::Result<Option<u64>> {
        let Some(mut locked) = self.shared.keyspace.lock_table(db, slot) else { return Ok(None) };
        if self.preimages.has_failed() {
            return Err(too_many());
        }
        if self.shared.keyspace.upheavals() != self.upheavals {
            return Err(io::Error::other("a whole database was exchanged or emptied meanwhile"));
        }
        let table = locked.table(db, slot);
        for _ in 0..SLICE_BUCKETS {
            cursor = table.scan_mut(cursor, |entry| {
                if entry.parity() != self.preimages.parity {
                    entry.set_parity(self.preimages.parity);
                    self.preimages.codec.encode(slot, entry, out);
                }
            });
            if cursor == 0 || out.len() > SLICE_BYTES {
                break;
            }
        }
        Ok(Some(cursor))
    }

    fn old_values<W: Write>(
        &self,
        writer: &mut Writer<W>,
        db_written: &mut Option<u16>,
    ) -> io::Result<()> {
        if self.preimages.pending() == 0 {
            return Ok(());
        }
        for (db, bytes) in self.preimages.take() {
            select(writer, db_written, db)?;
            writer.encoded(&bytes)?;
        }
        Ok(())
    }

    /// Marks what a failed walk left unmarked. A slot's tables of all databases are marked under one
    /// lock, so that it does not matter when databases are exchanged meanwhile.
    fn mark_all(&self) {
        self.preimages.failed.store(true, Ordering::Relaxed);
        let keyspace = &self.shared.keyspace;
        for slot in 0..SLOTS {
            let mut locked = keyspace.lock_slot(slot);
            for db in 0..keyspace.databases() {
                if keyspace.has_database(db) {
                    let parity = self.preimages.parity;
                    locked.table(db, slot).each_mut(|entry| entry.set_parity(parity));
                }
            }
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.walked {
            self.mark_all();
        }
        // Every entry is marked: writers that still hold the old values' place find nothing to save.
        self.shared.snapshotting.store(false, Ordering::Release);
        *self.shared.preimages.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn too_many() -> io::Error {
    io::Error::other("old values piled up: writes are faster than the snapshot can be written")
}

fn select<W: Write>(writer: &mut Writer<W>, written: &mut Option<u16>, db: u16) -> io::Result<()> {
    if *written != Some(db) {
        *written = Some(db);
        writer.select_db(u64::from(db))?;
    }
    Ok(())
}
