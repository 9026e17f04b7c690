//! From a request to its reply: checks, queueing, locks, the function, the journal, waiting clients.
//!
//! ```text
//! request -> row? arity? auth? (admit)                            -> in MULTI: queue (transaction)
//!         -> slot ours? may write? memory? (admit)                -> lock the keys -> run
//!         -> journal, watched keys, still locked (effects)        -> unlock
//!         -> whoever waits for a changed key is served (waiting)
//! ```

mod admit;
mod effects;
mod transaction;
mod waiting;

use std::sync::atomic::Ordering;

use smallvec::SmallVec;

pub(crate) use self::admit::{LOADING, STALE};
use self::effects::Changed;
pub(crate) use self::effects::{Journaled, collect, remember};
use self::transaction::{abort_queue, not_executed};
pub use self::transaction::{queue, unwatch};
use super::{Command, Ctx, Effects, Keys, events, flag, slowlog};
use crate::clock;
use crate::forward;
use crate::keyspace::{Db, Env, Locked, hash_key};
use crate::memcached::forwarded;
use crate::resp::Reply;
use crate::server::{LoopStats, Shared, bump};
use crate::session::{After, Session};
use crate::topology::{SLOTS, slot_of};

/// What one thread executes with.
pub struct Executor<'s> {
    pub shared: &'s Shared,
    pub env: Env,
    pub stats: &'s LoopStats,
    /// Monotonic milliseconds, read once a turn.
    pub mono_ms: u64,
    /// Every command is timed, because the slow log wants even quick ones.
    pub times_all: bool,
    /// Bytes that quick writes may still add before used memory is looked at again.
    pub room: i64,
    /// A script runs for long: as of this turn.
    pub is_busy: bool,
}

/// Of the commands that are not timed one by one, each this-many-th is, and stands for the others.
const TIMED_SAMPLE: u64 = 64;
/// Kinds of errors that are counted apart.
const ERROR_KINDS_MAX: usize = 128;

/// Codes of the errors that are the server's own doing: what a change of the server can bring about, while its clients are
/// the same. There is no room for a write, or no disk, or too few replicas; the data set is not there yet, or cannot be had
/// from the primary; nobody answers for the slot; somebody else's script holds all up.
///
/// Not among them: what clients do wrong (ERR, WRONGTYPE, CROSSSLOT, NOSCRIPT ..) and what they may not (NOAUTH, NOPERM,
/// WRONGPASS), for one bad client would stop every change; and MOVED, ASK, TRYAGAIN, READONLY, by which clients find
/// their way when primaries and slots move, as they do in a change that is in order.
pub const FAULTS: &[&str] =
    &["BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM"];

impl<'s> Executor<'s> {
    pub fn new(shared: &'s Shared, env: Env, stats: &'s LoopStats) -> Executor<'s> {
        Executor { shared, env, stats, mono_ms: 0, times_all: false, room: 0, is_busy: false }
    }

    /// Runs one request. `hint` is hash and slot of its first key, where the caller has them.
    pub fn run(
        &mut self,
        session: &mut Session,
        reply: &mut Reply,
        command: Option<&'static Command>,
        args: &[&[u8]],
        hint: Option<(u64, u16)>,
    ) {
        bump(&self.stats.commands, 1);
        let Some(command) = command else {
            abort_queue(session);
            self.refuse(reply, &unknown(args));
            return;
        };
        let checked = self.check(session, command, args, hint);
        if session.plain.is_some() {
            let refused = checked.as_ref().err().map(String::as_str);
            if forward::takes(self.shared, session, reply, command, args, refused) {
                return;
            }
        }
        let (id, all) = (command.id(), self.stats);
        let stats = &all.calls[id];
        if let Err(error) = checked {
            bump(&stats.rejected, 1);
            self.reject(session, reply, command, &error);
            return;
        }
        if session.queue.is_some() && !command.is(flag::UNQUEUED) {
            queue(session, reply, command, args);
            return;
        }
        let info = &session.info;
        bump(&info.commands, 1);
        info.last_command.store(id as u32 + 1, Ordering::Relaxed);
        let calls = stats.calls.load(Ordering::Relaxed);
        stats.calls.store(calls + 1, Ordering::Relaxed);
        let each = !command.is(flag::FAST | flag::QUICK) || self.times_all;
        let timed = each || calls.is_multiple_of(TIMED_SAMPLE);
        let from = if timed { clock::monotonic_us() } else { 0 };
        let (errors, begin) = (reply.errors, reply.out.len());
        let changed = match command.name {
            "exec" => self.transaction(session, reply),
            forwarded::NAME => {
                forwarded::run(self, session, reply, args);
                Changed::new()
            }
            _ => self.single(session, reply, command, args, hint),
        };
        if self.shared.monitors.any() {
            self.shared.show(session, command, args);
        }
        if timed {
            self.note_time(session, command, args, from, each);
        }
        if reply.errors > errors {
            bump(&stats.failed, 1);
            if let Some((b'-', error)) = reply.out[begin..].split_first() {
                self.count_error(error);
            }
        }
        if reply.over {
            // What was left out cannot be told from what was there: the client gets no part of it.
            reply.over = false;
            reply.truncate(begin);
            self.refuse(reply, "ERR the reply is larger than a client's output buffer may be");
            session.after = After::Close;
        }
        session.asking = session.asking && command.name == "asking";
        session.caching = session.caching && (command.name == "client" || session.queue.is_some());
        if !changed.is_empty() {
            self.serve(changed);
        }
    }

    /// Answers a request that is not run.
    #[cold]
    fn reject(
        &self,
        session: &mut Session,
        reply: &mut Reply,
        command: &'static Command,
        error: &str,
    ) {
        abort_queue(session);
        if command.name == "exec" {
            if session.queue.take().is_some() {
                session.info.in_multi.store(false, Ordering::Relaxed);
            }
            unwatch(self.shared, session);
            self.refuse(reply, &not_executed(error));
        } else {
            self.refuse(reply, error);
        }
    }

    /// Notes how long a command took that began at `from`, microseconds; `each`: it does not stand for others.
    #[inline(never)]
    fn note_time(
        &self,
        session: &Session,
        command: &'static Command,
        args: &[&[u8]],
        from: u64,
        each: bool,
    ) {
        let stats = &self.stats.calls[command.id()];
        let usec = clock::monotonic_us() - from;
        let calls = if each { 1 } else { TIMED_SAMPLE };
        bump(&stats.usec, usec * calls);
        stats.histogram.count(usec, calls);
        let event = if command.is(flag::FAST) { "fast-command" } else { "command" };
        self.shared.note_latency(event, self.env.now_ms, usec);
        if each {
            slowlog::note(self.shared, session, command, args, usec, &self.env);
        }
    }

    #[cold]
    fn refuse(&self, reply: &mut Reply, error: &str) {
        reply.error(error);
        self.count_error(error.as_bytes());
    }

    /// Counts an error reply by its code, the first word.
    #[cold]
    fn count_error(&self, error: &[u8]) {
        let code: String = error
            .iter()
            .take(32)
            .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
            .map(|b| char::from(*b))
            .collect();
        if FAULTS.contains(&code.as_str()) {
            self.shared.stats.faults.fetch_add(1, Ordering::Relaxed);
        }
        let mut errors =
            self.shared.stats.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if errors.len() < ERROR_KINDS_MAX || errors.contains_key(&code) {
            *errors.entry(code).or_default() += 1;
        }
    }

    /// Does with one key what has no request in RESP, as a request of `command` is done: the same checks,
    /// counters, lock, journal and waiting clients. `args` are the command's name and the key; what goes to
    /// the journal `act` says by `Ctx::propagate`. The error is what a RESP client would be replied.
    pub fn keyed<T>(
        &mut self,
        session: &mut Session,
        reply: &mut Reply,
        command: &'static Command,
        args: &[&[u8]; 2],
        act: impl FnOnce(&mut Ctx<'_, '_>) -> T,
    ) -> Result<T, String> {
        bump(&self.stats.commands, 1);
        let hint = Some((hash_key(args[1]), slot_of(args[1])));
        let stats = &self.stats.calls[command.id()];
        if let Err(error) = self.admit(session, command, args, hint) {
            if session.plain.is_some() && forward::is_elsewhere(self.shared, &error) {
                // It is forwarded, and not refused.
                return Err(error);
            }
            bump(&stats.rejected, 1);
            self.count_error(error.as_bytes());
            return Err(error);
        }
        bump(&session.info.commands, 1);
        session.info.last_command.store(command.id() as u32 + 1, Ordering::Relaxed);
        let calls = stats.calls.load(Ordering::Relaxed);
        stats.calls.store(calls + 1, Ordering::Relaxed);
        let timed = self.times_all || calls.is_multiple_of(TIMED_SAMPLE);
        let from = if timed { clock::monotonic_us() } else { 0 };
        let (done, changed) = self.locked(session, reply, command, args, (hint, false), act);
        if self.shared.monitors.any() {
            self.shared.show(session, command, args);
        }
        if timed {
            self.note_time(session, command, args, from, self.times_all);
        }
        if !changed.is_empty() {
            self.serve(changed);
        }
        done
    }

    /// One command under the locks of its keys. Gives the keys that changed, when anybody wants to know.
    fn single(
        &mut self,
        session: &mut Session,
        reply: &mut Reply,
        command: &'static Command,
        args: &[&[u8]],
        hint: Option<(u64, u16)>,
    ) -> Changed {
        let wide = command.locks_all(args);
        let (begin, errors) = (reply.out.len(), reply.errors);
        match self.locked(session, reply, command, args, (hint, wide), run) {
            (Ok(true), _) if !wide => {}
            (Err(error), changed) => {
                reply.error(&error);
                return changed;
            }
            (_, changed) => return changed,
        }
        reply.truncate(begin);
        reply.errors = errors;
        self.widely(session, reply, command, args, hint)
    }

    /// The same under all locks, which it turned out to need.
    #[cold]
    fn widely(
        &mut self,
        session: &mut Session,
        reply: &mut Reply,
        command: &'static Command,
        args: &[&[u8]],
        hint: Option<(u64, u16)>,
    ) -> Changed {
        let (result, changed) = self.locked(session, reply, command, args, (hint, true), run);
        if let Err(error) = result {
            reply.error(&error);
        }
        changed
    }

    /// Takes the locks of a command that has not just one key in front.
    #[inline(never)]
    fn lock_keys(&self, command: &'static Command, args: &[&[u8]]) -> Locked<'s> {
        let keyspace = &self.shared.keyspace;
        if matches!(command.keys, Keys::None) {
            // Roles change under all locks: what is published cannot get into the journal of a new replica.
            return match args.last() {
                Some(last) if command.is(flag::PUBSUB) => keyspace.lock_slot(slot_of(last)),
                _ => keyspace.lock_slots(SmallVec::new()),
            };
        }
        let keys = command.key_positions(args);
        let mut slots: SmallVec<[u16; 8]> = keys.iter().map(|i| slot_of(args[*i])).collect();
        if slots.is_empty() && command.is(flag::SCRIPT) {
            // Any one: while it is held no snapshot begins, and no role changes.
            slots.push(self.env.thread as u16 % SLOTS);
        }
        keyspace.lock_slots(slots)
    }

    /// Runs `act` as a command under the locks of its keys, or under all (`wide`): its result, or the error that a client is replied,
    /// and the keys that changed: a request that is refused may find expired ones.
    #[inline(always)]
    fn locked<T>(
        &mut self,
        session: &mut Session,
        reply: &mut Reply,
        command: &'static Command,
        args: &[&[u8]],
        (hint, wide): (Option<(u64, u16)>, bool),
        act: impl FnOnce(&mut Ctx<'_, '_>) -> T,
    ) -> (Result<T, String>, Changed) {
        let shared = self.shared;
        let locked = match (&command.keys, hint) {
            _ if wide => shared.keyspace.lock_all(),
            (Keys::Range { first: 1, last: 1, .. }, Some((_, slot))) => {
                shared.keyspace.lock_slot(slot)
            }
            _ => self.lock_keys(command, args),
        };
        // Roles change under all locks: asked again now, no write slips in behind a change.
        if command.is(flag::WRITE)
            && !session.from_primary
            && let Some(error) = shared.state.refuses_write()
        {
            return (Err(error), Vec::new());
        }
        // Waiters register under the locks of their keys: looked at once ours are held, none is missed.
        shared.heed(&mut self.env);
        // A script may take the locks of more keys.
        self.env.tracks_changes |= command.is(flag::SCRIPT);
        // A snapshot begins under all locks: looked at once ours are held, it cannot begin meanwhile.
        let preimages = shared.preimages();
        let mut db = Db::new(locked, session.db, &self.env, preimages.as_deref());
        db.tells_misses = self.env.events != 0 && events::tells_misses(command);
        if let (Some((hash, slot)), Some(key)) = (hint, args.get(1)) {
            db.hint(key, hash, slot);
        }
        if shared.routes_again(session)
            && let Err(error) = shared.route_locked(session, command, args, &mut db)
        {
            if db.has_expired() {
                self.journal(session, &mut db, args, 0, &mut Effects::Verbatim);
            }
            return (Err(error), self.changed(&mut db, session.info.id));
        }
        let mut ctx = Ctx {
            shared,
            stats: self.stats,
            session,
            reply,
            args,
            db: &mut db,
            command,
            dirty: 0,
            effects: Effects::Verbatim,
            retry: false,
            in_exec: false,
        };
        let result = act(&mut ctx);
        let (dirty, mut effects) = (ctx.dirty, ctx.effects);
        self.remember(session, command, args);
        let writes = dirty > 0 || db.has_expired();
        if writes {
            self.journal(session, &mut db, args, dirty, &mut effects);
        }
        if matches!(effects, Effects::Verbatim) {
            // It holds nothing, and to find that out would be a call for each command.
            std::mem::forget(effects);
        }
        self.note_quorum(session, &mut db, writes);
        self.count(&db);
        let changed = self.changed(&mut db, session.info.id);
        (Ok(result), changed)
    }
}

/// Runs a command; `true`: it has done nothing, and is to be run again under all locks.
#[inline]
fn run(ctx: &mut Ctx<'_, '_>) -> bool {
    (ctx.command.run)(ctx);
    matches!(ctx.effects, Effects::Again)
}

fn unknown(args: &[&[u8]]) -> String {
    let name = args.first().map_or(String::new(), |n| printable(n));
    let mut text = format!("ERR unknown command '{name}', with args beginning with: ");
    for arg in args.iter().skip(1) {
        if text.len() >= 256 {
            break;
        }
        text.push_str(&format!("'{}' ", printable(arg)));
    }
    text
}

/// User input as it may stand in an error: bounded, without control bytes.
pub fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(128)])
        .chars()
        .map(|c| if c == '\r' || c == '\n' || c == '\0' { ' ' } else { c })
        .collect()
}
