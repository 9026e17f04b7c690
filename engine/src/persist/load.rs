//! Loading: a snapshot's entries into the keyspace, a log's requests through the executor.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::manifest::Manifest;
use super::{Lineage, position};
use crate::clock;
use crate::command::exec::Executor;
use crate::command::find;
use crate::disk::Disk;
use crate::keyspace::db::fresh_access;
use crate::keyspace::{Db, Entry, Env, Item};
use crate::rdb::{Event, Reader, Value};
use crate::resp::{Decoder, Limits, Reply};
use crate::script::library::Libraries;
use crate::script::run;
use crate::server::Shared;
use crate::session::{ClientInfo, Session};
use crate::tally::Tally;

const READ_BYTES: usize = 256 * 1024;

/// What a snapshot says of the journal's place.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub replid: Option<String>,
    pub offset: u64,
    pub db: u16,
    pub lineage: Option<Lineage>,
    pub keys: u64,
    pub expired: u64,
    /// When it was taken, unix seconds.
    pub taken_s: Option<i64>,
}

/// An environment for work outside the loops: the log while loading, the link to the primary.
pub fn env(shared: &Shared) -> Env {
    let hot = shared.config.hot();
    Env {
        now_ms: clock::unix_ms(),
        lfu: hot.maxmemory_policy.is_lfu(),
        lfu_log_factor: hot.lfu_log_factor,
        lfu_decay_minutes: hot.lfu_decay_minutes,
        sees_expired: true,
        tracks_changes: shared.waiters.any(),
        events: shared.config.events(),
        ..Env::new(Tally::ANY_THREAD, hot.limits)
    }
}

/// An executor for requests that come from the primary or the log.
pub fn executor(shared: &Shared) -> Executor<'_> {
    Executor::new(shared, env(shared), &shared.stats.loops[shared.loops.len()])
}

/// A session for requests that come from the primary or the log: no checks, no replies.
pub fn session(addr: &str) -> Session {
    let info = ClientInfo::new(0, addr.into(), String::new(), 0, usize::MAX, usize::MAX);
    info.is_primary.store(true, Ordering::Relaxed);
    let mut session = Session::new(Arc::new(info), true);
    session.from_primary = true;
    session
}

/// Runs one request in such a session.
pub fn execute(
    executor: &mut Executor<'_>,
    session: &mut Session,
    reply: &mut Reply,
    args: &[&[u8]],
) {
    reply.out.clear();
    executor.run(session, reply, args.first().and_then(|name| find(name)), args, None);
}

/// Reads a snapshot to its end without keeping anything: is it whole, and can all of it be loaded?
pub fn verify(
    shared: &Shared,
    source: impl Read,
    mut progress: impl FnMut(u64),
) -> Result<(), String> {
    let databases = u64::from(shared.keyspace.databases());
    let mut reader = Reader::new(source, env(shared).limits);
    let (mut events, mut libraries) = (0u64, Libraries::default());
    loop {
        match reader.next_event().map_err(|e| e.to_string())? {
            Event::End => return Ok(()),
            Event::Db(db) if db >= databases => return Err(too_few_databases(db)),
            Event::Function(source) => take_library(shared, &mut libraries, &source)?,
            _ => {}
        }
        events += 1;
        if events.is_multiple_of(4096) {
            progress(reader.offset());
        }
    }
}

/// Runs a library of a snapshot; one that cannot be run keeps the snapshot from being loaded.
fn take_library(shared: &Shared, libraries: &mut Libraries, source: &[u8]) -> Result<(), String> {
    run::load_library(shared, libraries, source, false, true)
        .map(drop)
        .map_err(|e| format!("a library of functions cannot be loaded: {e}"))
}

fn too_few_databases(db: u64) -> String {
    format!("it holds database {db}, and `databases` allows no such")
}

/// Loads a snapshot into a keyspace (that is empty). Keys that have expired are left out when this
/// member decides so itself, `keep_expired` when its primary does.
pub fn snapshot(
    shared: &Shared,
    source: impl Read,
    keep_expired: bool,
    mut progress: impl FnMut(u64),
) -> Result<Origin, String> {
    let env = env(shared);
    let databases = u64::from(shared.keyspace.databases());
    let mut reader = Reader::new(source, env.limits);
    let mut origin = Origin::default();
    let (mut db, mut item) = (0u16, Item::default());
    loop {
        match reader.next_event().map_err(|e| e.to_string())? {
            Event::End => return Ok(origin),
            Event::Aux(key, value) if key == crate::snapshot::ITEM_AUX => item = item_of(&value),
            Event::Aux(key, source) if key == b"lua" => shared.scripts.restore(source),
            Event::Aux(key, value) => note_aux(&mut origin, &key, &value),
            Event::Db(index) if index >= databases => return Err(too_few_databases(index)),
            Event::Db(index) => db = index as u16,
            Event::Resize { .. } => {}
            Event::Function(source) => {
                let mut libraries = shared.scripts.libraries().clone();
                take_library(shared, &mut libraries, &source)?;
                *shared.scripts.libraries_mut() = libraries;
            }
            Event::Key { key, value, expire_at_ms, idle, freq } => {
                let item = std::mem::take(&mut item);
                if !keep_expired && expire_at_ms.is_some_and(|at| at <= env.now_ms) {
                    origin.expired += 1;
                    continue;
                }
                let access = match (freq, idle) {
                    (Some(freq), _) if env.lfu => fresh_access(&env) & !0xff | u32::from(freq),
                    (_, Some(idle)) if !env.lfu => {
                        fresh_access(&env).wrapping_sub(idle as u32) & 0x00ff_ffff
                    }
                    _ => fresh_access(&env),
                };
                let entry = match value {
                    Value::String(bytes) => {
                        Entry::string_item(&key, &bytes, expire_at_ms, access, false, item)
                    }
                    Value::Collection(value) => {
                        Entry::collection(&key, value, expire_at_ms, access)
                    }
                };
                let locked = shared.keyspace.lock_keys(std::iter::once(key.as_slice()));
                Db::new(locked, db, &env, None).put(&key, entry);
                origin.keys += 1;
                if origin.keys.is_multiple_of(4096) {
                    progress(reader.offset());
                }
            }
        }
    }
}

/// Flags and marks of the key that follows.
fn item_of(text: &[u8]) -> Item {
    let mut words = std::str::from_utf8(text).unwrap_or_default().split(' ');
    let mut next = || words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    Item { flags: next(), state: next() & (Item::STALE | Item::TOKEN_SENT), cas: 0 }
}

fn note_aux(origin: &mut Origin, key: &[u8], value: &[u8]) {
    let text = String::from_utf8_lossy(value);
    match key {
        b"repl-id" if crate::replication::is_replid(&text) => {
            origin.replid = Some(text.into_owned());
        }
        b"ctime" => origin.taken_s = text.parse().ok(),
        b"repl-offset" => origin.offset = text.parse().unwrap_or(0),
        b"repl-stream-db" => origin.db = text.parse().unwrap_or(0),
        b"larder-lineage" => origin.lineage = serde_json::from_str(&text).ok(),
        _ => {}
    }
}

/// Empties all databases, and forgets the libraries of functions.
pub fn empty(shared: &Shared) {
    let mut locked = shared.keyspace.lock_all();
    *shared.scripts.libraries_mut() = Libraries::default();
    let tables: Vec<_> =
        (0..shared.keyspace.databases()).flat_map(|db| locked.take_database(db)).collect();
    let mut freed = 0i64;
    for table in &tables {
        freed += table.memory() as i64;
        table.each(|entry| freed += entry.memory() as i64);
    }
    shared.keyspace.count_memory(Tally::ANY_THREAD, -freed);
    drop(locked);
    drop(tables);
    shared.invalidate_all();
}

/// How a file of the log ended.
struct Replayed {
    /// Bytes up to the end of the last whole request (or transaction).
    good: u64,
    /// Why what is behind is not good, if there is anything.
    torn: Option<String>,
}

/// What loading the log came to.
pub struct Loaded {
    pub origin: Origin,
    /// Good bytes of the last file.
    pub last_len: u64,
}

/// Loads the log that a manifest describes.
pub fn log(
    shared: &Shared,
    disk: &dyn Disk,
    folder: &Path,
    manifest: &Manifest,
) -> Result<Loaded, String> {
    let mut origin = Origin::default();
    if let Some(base) = &manifest.base {
        let path = folder.join(&base.name);
        let file = disk.open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        if base.name.ends_with(".rdb") {
            origin = snapshot(shared, file, true, |_| {})
                .map_err(|e| format!("{}: {e}", path.display()))?;
        } else {
            let (head, rest) = peek(file).map_err(|e| format!("{}: {e}", path.display()))?;
            let source = head.as_slice().chain(rest);
            if head.starts_with(b"REDIS") || head.starts_with(b"VALKEY") {
                // The single file of old: a snapshot, and requests behind it.
                return Err(format!(
                    "{}: a base with a preamble in an .aof file is not supported",
                    path.display()
                ));
            }
            replay(shared, source, &mut origin)
                .and_then(|r| r.torn.map_or(Ok(()), Err))
                .map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    let mut last_len = 0;
    let truncates = shared.config.get("aof-load-truncated").is_none_or(|v| v != "no");
    for (i, part) in manifest.incr.iter().enumerate() {
        let path = folder.join(&part.name);
        let file = disk.open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let replayed =
            replay(shared, file, &mut origin).map_err(|e| format!("{}: {e}", path.display()))?;
        last_len = replayed.good;
        if let Some(why) = replayed.torn {
            let last = i + 1 == manifest.incr.len();
            if !last || !truncates {
                return Err(format!(
                    "{}: {why}; only the last file may end early, and only with aof-load-truncated",
                    path.display()
                ));
            }
            tracing::warn!(file = %path.display(), good = last_len, why, "the log's torn tail is cut");
        }
    }
    Ok(Loaded { origin, last_len })
}

fn peek(mut file: Box<dyn Read + Send>) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let mut head = Vec::new();
    (&mut file).take(9).read_to_end(&mut head)?;
    Ok((head, file))
}

/// Runs the requests of one file. An error is a request that cannot be right; a request that merely
/// ends early is a torn tail.
fn replay(shared: &Shared, mut source: impl Read, origin: &mut Origin) -> Result<Replayed, String> {
    let mut executor = executor(shared);
    let mut session = session("aof");
    let mut reply = Reply::new(Vec::new(), false);
    let mut decoder = Decoder::default();
    let limits = Limits { authenticated: true, bulk_bytes_max: usize::MAX >> 1 };
    let (mut buffer, mut at, mut base) = (Vec::new(), 0usize, 0u64);
    // Where the last whole request ended, in the file and in the journal: a comment is a part of the file alone.
    let (mut good, mut good_offset) = (0u64, origin.offset);
    loop {
        // Comment lines stand between requests only.
        if buffer.get(at) == Some(&b'#')
            && let Some(n) = memchr::memchr(b'\n', &buffer[at..])
        {
            if let Some((replid, offset)) = position::parse(&buffer[at..at + n]) {
                (origin.replid, origin.offset) = (Some(replid), offset);
            }
            at += n + 1;
            if session.queue.is_none() {
                (good, good_offset) = (base + at as u64, origin.offset);
            }
            continue;
        }
        let comment = buffer.get(at) == Some(&b'#');
        let found = if comment {
            None
        } else {
            let failed = |e| format!("at offset {}: {e}", base + at as u64);
            if buffer.get(at).is_some_and(|b| *b != b'*') {
                return Err(format!("at offset {}: not a request", base + at as u64));
            }
            decoder.next(&buffer, at, limits).map_err(failed)?
        };
        if let Some(end) = found {
            let args: SmallVec<[&[u8]; 8]> =
                decoder.args.iter().map(|(a, b)| &buffer[*a..*b]).collect();
            if args.first().is_some_and(|name| find(name).is_none()) {
                let name = String::from_utf8_lossy(args[0]).chars().take(64).collect::<String>();
                return Err(format!("at offset {}: unknown command {name:?}", base + at as u64));
            }
            if !args.is_empty() {
                execute(&mut executor, &mut session, &mut reply, &args);
            }
            origin.offset += (end - at) as u64;
            at = end;
            if session.queue.is_none() {
                (good, good_offset) = (base + at as u64, origin.offset);
            }
            continue;
        }
        if at > 0 {
            buffer.drain(..at);
            decoder.shift_to_request(at);
            base += at as u64;
            at = 0;
        }
        let have = buffer.len();
        buffer.resize(have + READ_BYTES.max(decoder.need().saturating_sub(have)).min(64 << 20), 0);
        let n = read_some(&mut source, &mut buffer[have..]).map_err(|e| e.to_string())?;
        buffer.truncate(have + n);
        if n == 0 {
            break;
        }
    }
    origin.db = session.db;
    let end = base + buffer.len() as u64;
    let torn = if good == end {
        None
    } else if session.queue.is_some() {
        Some(format!("it ends inside a transaction that began at offset {good}"))
    } else {
        Some(format!("it ends inside a request at offset {good}"))
    };
    // What the torn transaction added does not count.
    origin.offset = good_offset;
    Ok(Replayed { good, torn })
}

fn read_some(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
