//! Scripts in Lua 5.1: EVAL, functions, and what keeps them from harming anybody.
//!
//! ```text
//! exec: checks, locks -> handler (run) -> interpreter: the script -> redis.call -> handler: one command -> ...
//!                                                 \-> each slice of time -> handler: is it killed? others' turn
//! ```
//!
//! # While a script runs
//! It runs on the thread of its client's loop, like any command. After its first slice of time it is known to all
//! loops; once it is older than `busy-reply-threshold`, they answer with BUSY whatever is not SCRIPT KILL, SHUTDOWN
//! NOSAVE or harmless. Its own loop does so from within the interpreter's instruction hook, and a loop that waits for a
//! lock of the script's from within the wait (see `busy`): there is always somebody who takes SCRIPT KILL. A script that
//! has written cannot be killed; what it did would stay half done.
//!
//! # Which locks
//! A script begins under all locks where there are several loops, the first time, and later if it was seen to touch
//! keys that it had not declared. Any other one begins under the locks of its declared keys' slots, as any command. It
//! lets go of none until its end. When it reaches for a slot that it does not hold:
//!
//! 1. a free lock is taken: who does not wait can be part of no circle;
//! 2. a lock that is taken, by a script that has done nothing: the script is ended unseen and run again under all
//!    locks. Outside this server nothing of its first run has happened;
//! 3. a lock that is taken, by a script that has done something: it waits, and everybody else who waits for a lock
//!    while he holds others lets go of them (`Keyspace::take`): nothing was done under these yet. What is left are two
//!    scripts that both have done something and both wait, each for the first time: after `CONFLICT_MS` one of them is
//!    told an error.
//!
//! In a cluster each key must be this member's, looked at under its lock; a script whose first line is `#!lua` keeps to
//! one slot besides, as in Redis.
//!
//! # What a script leaves behind
//! Its effects, each as the journal's request of the command that it called, in MULTI and EXEC when there are several.
//! Scripts themselves are journaled by SCRIPT LOAD, and are in snapshots (`lua` in the header), so that EVALSHA finds
//! them after a restart and on a promoted replica. What EVAL brings is cached, the oldest of more than
//! `EVAL_CACHE_MAX` going first, and not journaled: who uses EVALSHA after EVAL falls back to EVAL at NOSCRIPT, as
//! every client library does.
//!
//! # How it is ended
//! The interpreter's hook looks at the clock after so many instructions, the fewer the more memory there is to be copied by
//! one of them; the collector's turns tell when that has grown. What the language's own functions do in one call is
//! bounded by the memory, or they are ours: patterns, `rep`, JSON, MessagePack and replies count steps (`pattern::Budget`),
//! and what walks along a table's length is Lua itself (`prelude.lua`).
//!
//! # Functions
//! Libraries are data: in the journal as FUNCTION LOAD, DELETE, FLUSH and RESTORE, in every snapshot, the same on
//! replicas; FLUSHALL keeps them. They change under all locks (see `library`). FUNCTION LOAD runs a library's source for
//! `LOAD_MS` at most. In a cluster each primary has its own, as in Redis; one that takes slots in gets those that it has not
//! (see `moves::functions`).
//!
//! Modules in reading order: `cache` (scripts by their hash), `library`, `run` (the handler), `interpreter` (the other side),
//! `api` (what `redis.*` does), `reply` (values to and from the wire), then the libraries: `pattern` and
//! `text` (the language's own that may take long), `json`, `msgpack`, `structs`, `bit`.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

mod api;
mod bit;
pub mod cache;
pub(crate) mod format;
mod interpreter;
mod json;
pub mod library;
mod msgpack;
mod pattern;
mod random;
mod reply;
pub(crate) mod run;
mod structs;
mod text;

use cache::Cache;
use library::Libraries;

/// Scripts that EVAL brought and that are kept; SCRIPT LOAD's are kept until SCRIPT FLUSH.
pub const EVAL_CACHE_MAX: usize = 500;
/// How long a script that has written waits for locks that it had not declared, milliseconds.
const CONFLICT_MS: u64 = 1_000;
/// How long a script runs before its loop looks after its other clients, microseconds.
const SLICE_US: u64 = 3_000;

const CLEAN: u8 = 0;
const WROTE: u8 = 1;
const KILLED: u8 = 2;

/// How long a library may take to register its functions, milliseconds.
pub const LOAD_MS: u64 = 500;
/// The same where it comes from the primary, the log or a snapshot: another server has loaded it before.
pub const TRUSTED_LOAD_MS: u64 = 10_000;

/// A script that has outlived its first slice.
pub struct Running {
    /// What FUNCTION STATS calls it: a hash, or a function's name.
    pub name: String,
    pub is_function: bool,
    /// The request, as FUNCTION STATS shows it.
    pub command: Vec<Vec<u8>>,
    /// Monotonic milliseconds.
    pub since_ms: u64,
    /// Written to the data set, or killed: never both.
    state: AtomicU8,
}

impl Running {
    /// The script is about to write; `false` when it was killed.
    fn may_write(&self) -> bool {
        let was = self.state.compare_exchange(CLEAN, WROTE, Ordering::AcqRel, Ordering::Acquire);
        was != Err(KILLED)
    }

    fn is_killed(&self) -> bool {
        self.state.load(Ordering::Acquire) == KILLED
    }
}

/// What others are told while a script runs for long.
pub const BUSY_SCRIPT: &str =
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
/// The same of a function.
pub const BUSY_FUNCTION: &str =
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";

/// What became of SCRIPT KILL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kill {
    Done,
    Nobody,
    Unkillable,
    /// FUNCTION KILL of a script, or the other way round.
    OtherKind,
}

/// What all loops know of scripts.
#[derive(Default)]
pub struct Scripts {
    pub cache: Mutex<Cache>,
    /// Changed under every lock, read under any.
    libraries: RwLock<Libraries>,
    running: Mutex<Vec<Arc<Running>>>,
    /// Monotonic milliseconds since which the oldest long script runs; 0: none does.
    since_ms: AtomicU64,
    /// The server ends without saving: scripts end, written or not.
    abandoned: AtomicBool,
    /// Bytes of each loop's interpreter, as of its last script.
    vm_bytes: Mutex<Vec<(usize, usize)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scripts {
    pub fn cache(&self) -> MutexGuard<'_, Cache> {
        lock(&self.cache)
    }

    /// A look at the libraries.
    pub fn libraries(&self) -> RwLockReadGuard<'_, Libraries> {
        self.libraries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The libraries, to be changed; the caller holds every lock.
    pub fn libraries_mut(&self) -> RwLockWriteGuard<'_, Libraries> {
        self.libraries.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a script of SCRIPT LOAD that a snapshot holds.
    pub fn restore(&self, source: Vec<u8>) {
        // One whose first line is not understood could not be run: it is left out.
        let Ok(flags) = cache::parse_flags(&source) else { return };
        let (hash, breadth) = (cache::hash_of(&source), cache::Breadth::default());
        self.cache().put(Arc::new(cache::Script { hash, source, flags, breadth }), true);
    }

    fn enter(&self, running: &Arc<Running>) {
        let mut all = lock(&self.running);
        all.push(running.clone());
        self.note_oldest(&all);
    }

    fn leave(&self, running: &Arc<Running>) {
        let mut all = lock(&self.running);
        all.retain(|r| !Arc::ptr_eq(r, running));
        self.note_oldest(&all);
    }

    fn note_oldest(&self, all: &[Arc<Running>]) {
        let oldest = all.iter().map(|r| r.since_ms.max(1)).min().unwrap_or(0);
        self.since_ms.store(oldest, Ordering::Release);
    }

    /// A script runs that has run for longer than its first slice.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.since_ms.load(Ordering::Acquire) > 0
    }

    /// Requests are to be answered with BUSY.
    #[inline]
    pub fn is_busy(&self, mono_ms: u64, threshold_ms: u64) -> bool {
        let since = self.since_ms.load(Ordering::Acquire);
        since > 0 && threshold_ms > 0 && mono_ms >= since + threshold_ms
    }

    /// What to answer then.
    pub fn busy_reply(&self) -> &'static str {
        match self.oldest() {
            Some(running) if running.is_function => BUSY_FUNCTION,
            _ => BUSY_SCRIPT,
        }
    }

    /// The script that runs longest.
    pub fn oldest(&self) -> Option<Arc<Running>> {
        lock(&self.running).iter().min_by_key(|r| r.since_ms).cloned()
    }

    /// Ends the scripts that run for long, or the functions, as far as they have not written.
    pub fn kill(&self, functions: bool) -> Kill {
        let all = lock(&self.running);
        if all.is_empty() {
            return Kill::Nobody;
        }
        let mut result = Kill::OtherKind;
        for running in all.iter().filter(|r| r.is_function == functions) {
            let was =
                running.state.compare_exchange(CLEAN, KILLED, Ordering::AcqRel, Ordering::Acquire);
            match was {
                Err(WROTE) if result != Kill::Done => result = Kill::Unkillable,
                Err(WROTE) => {}
                _ => result = Kill::Done,
            }
        }
        result
    }

    /// The server is about to end without saving: nothing of what scripts do will be seen, whether they have written
    /// or not.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    fn note_vm(&self, thread: usize, bytes: usize) {
        let mut all = lock(&self.vm_bytes);
        match all.iter_mut().find(|(t, _)| *t == thread) {
            Some(entry) => entry.1 = bytes,
            None => all.push((thread, bytes)),
        }
    }

    /// Bytes of all interpreters.
    pub fn vm_bytes(&self) -> usize {
        lock(&self.vm_bytes).iter().map(|(_, bytes)| bytes).sum()
    }
}
