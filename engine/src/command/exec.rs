//! From a request to its reply: checks, queueing, locks, the function, the journal, waiting clients.
//!
//! ```text
//! request -> row? arity? auth? -> in MULTI: queue
//!         -> slot ours? may write? memory? -> lock the keys -> run -> journal (still locked) -> unlock
//!         -> whoever waits for a changed key is served
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::{Command, Ctx, Effects, Group, Keys, flag, scripting, slowlog};
use crate::acl::{self, Context};
use crate::clock;
use crate::keyspace::{Db, Env, Locked, hash_key};
use crate::resp::Reply;
use crate::server::{LoopStats, Shared, bump};
use crate::session::{After, Session};
use crate::topology::{SLOTS, slot_of};
use crate::tracking::Remembers;
use crate::waiters::Waiter;

/// Longest MULTI queue, bytes of arguments.
const QUEUE_BYTES_MAX: usize = 1 << 30;

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
/// What a quick write adds besides its arguments, at most, bytes.
const WRITE_OVERHEAD: i64 = 256;
/// Kinds of errors that are counted apart.
const ERROR_KINDS_MAX: usize = 128;

/// Keys that changed, with their databases.
type Changed = Vec<(u16, Vec<u8>)>;

/// Effects of one request or of a whole transaction, for the journal.
pub(crate) type Journaled = Vec<(u16, Vec<Vec<u8>>)>;

impl<'s> Executor<'s> {
    pub fn new(shared: &'s Shared, env: Env, stats: &'s LoopStats) -> Executor<'s> {
        Executor { shared, env, stats, mono_ms: 0, times_all: false, room: 0, is_busy: false }
    }

    /// This member answers for its keys under a lease.
    pub fn is_leased(&self) -> bool {
        let state = &self.shared.state;
        state.lease_until_ms.load(Ordering::Acquire) != u64::MAX
            && !state.is_replica.load(Ordering::Acquire)
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
        if let Err(error) = self.check(session, command, args, hint) {
            abort_queue(session);
            bump(&self.stats.calls[command.id()].rejected, 1);
            if command.name == "exec" {
                if session.queue.take().is_some() {
                    session.info.in_multi.store(false, Ordering::Relaxed);
                }
                unwatch(self.shared, session);
                self.refuse(reply, &not_executed(&error));
            } else {
                self.refuse(reply, &error);
            }
            return;
        }
        if session.queue.is_some() && !command.is(flag::UNQUEUED) {
            queue(session, reply, command, args);
            return;
        }
        let info = &session.info;
        bump(&info.commands, 1);
        info.last_command.store(command.id() as u32 + 1, Ordering::Relaxed);
        let stats = &self.stats.calls[command.id()];
        let calls = stats.calls.load(Ordering::Relaxed);
        stats.calls.store(calls + 1, Ordering::Relaxed);
        let each = !command.is(flag::FAST | flag::QUICK) || self.times_all;
        let timed = each || calls.is_multiple_of(TIMED_SAMPLE);
        let from = if timed { clock::monotonic_us() } else { 0 };
        let (errors, begin) = (reply.errors, reply.out.len());
        let changed = if command.name == "exec" {
            self.transaction(session, reply)
        } else {
            self.single(session, reply, command, args, hint)
        };
        if self.shared.monitors.any() {
            self.shared.show(session, command, args);
        }
        let stats = &self.stats.calls[command.id()];
        if timed {
            let usec = clock::monotonic_us() - from;
            let calls = if each { 1 } else { TIMED_SAMPLE };
            bump(&stats.usec, usec * calls);
            stats.histogram.count(usec, calls);
            let event = if command.is(flag::FAST) { "fast-command" } else { "command" };
            self.shared.note_latency(event, self.env.now_ms, usec);
            if each {
                slowlog::note(self.shared, session, command, args, usec, self.env.now_ms);
            }
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
            reply.out.truncate(begin);
            self.refuse(reply, "ERR the reply is larger than a client's output buffer may be");
            session.after = After::Close;
        }
        session.asking = session.asking && command.name == "asking";
        session.caching = session.caching && (command.name == "client" || session.queue.is_some());
        if !changed.is_empty() {
            self.serve(changed);
        }
    }

    fn refuse(&self, reply: &mut Reply, error: &str) {
        reply.error(error);
        self.count_error(error.as_bytes());
    }

    /// Counts an error reply by its code, the first word.
    fn count_error(&self, error: &[u8]) {
        let code: String = error
            .iter()
            .take(32)
            .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
            .map(|b| char::from(*b))
            .collect();
        let mut errors =
            self.shared.stats.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if errors.len() < ERROR_KINDS_MAX || errors.contains_key(&code) {
            *errors.entry(code).or_default() += 1;
        }
    }

    /// Everything that can refuse a request before it runs.
    fn check(
        &mut self,
        session: &mut Session,
        command: &'static Command,
        args: &[&[u8]],
        hint: Option<(u64, u16)>,
    ) -> Result<(), String> {
        if !command.arity_fits(args.len()) {
            return Err(format!("ERR wrong number of arguments for '{}' command", command.name));
        }
        self.admit(session, command, args, hint)
    }

    /// The same, without the number of arguments.
    #[inline]
    fn admit(
        &mut self,
        session: &mut Session,
        command: &'static Command,
        args: &[&[u8]],
        hint: Option<(u64, u16)>,
    ) -> Result<(), String> {
        if session.from_primary || session.importing {
            return Ok(());
        }
        if !session.authenticated && !command.is(flag::NO_AUTH) {
            return Err("NOAUTH Authentication required.".into());
        }
        if session.rights.restricted {
            self.check_rights(session, command, args)?;
        }
        if session.in_subscribe_mode() && !command.is(flag::IN_SUBSCRIBE) {
            return Err(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
                 are allowed in this context",
                command.name
            ));
        }
        if self.is_busy && !scripting::answers_while_busy(command, args) {
            return Err(crate::script::BUSY.into());
        }
        if session.monitors && (!matches!(command.keys, Keys::None) || command.is(flag::WRITE)) {
            return Err("ERR Replica can't interact with the keyspace".into());
        }
        if session.queue.is_some() && command.is(flag::NO_MULTI) {
            return Err("ERR Command not allowed inside a transaction".into());
        }
        if self.shared.state.loading.load(Ordering::Acquire) && !command.is(flag::LOADING) {
            return Err("LOADING Larder is loading the dataset in memory".into());
        }
        let slot = match command.keys {
            Keys::Range { first: 1, last: 1, .. } => hint.map(|(_, slot)| slot),
            _ => None,
        };
        self.shared.route(session, command, args, slot)?;
        let has_keys = !matches!(command.keys, Keys::None) && !command.is(flag::PUBSUB);
        if has_keys || command.writes(args) {
            self.check_lease(session)?;
        }
        if command.is(flag::WRITE) {
            self.check_write(command, args)?;
        } else if command.is(flag::SCRIPT) {
            self.make_room();
        } else if command.name == "exec" {
            self.check_queue(session)?;
        }
        Ok(())
    }

    /// May the session's user make this request?
    #[cold]
    fn check_rights(
        &self,
        session: &Session,
        command: &'static Command,
        args: &[&[u8]],
    ) -> Result<(), String> {
        let context = if session.queue.is_some() { Context::Multi } else { Context::TopLevel };
        let now_ms = self.env.now_ms;
        acl::refusal(self.shared, session, command, args, context, now_ms).map_or(Ok(()), Err)
    }

    /// A primary that the council manages answers for its keys only while its lease holds, reads too: another
    /// one may have written meanwhile.
    #[inline]
    fn check_lease(&self, session: &mut Session) -> Result<(), String> {
        let state = &self.shared.state;
        let lease = state.lease_until_ms.load(Ordering::Acquire);
        if lease == u64::MAX || state.is_replica.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.mono_ms >= lease {
            return Err("CLUSTERDOWN The primary's lease has ended".into());
        }
        // One that began in this very turn holds from the next one on: only what has waited in vain is refused.
        if self.shared.hold.is_vain(self.mono_ms) {
            return Err("CLUSTERDOWN The shard's primary is changing".into());
        }
        session.leased = true;
        Ok(())
    }

    /// May this member take writes now, and is there room?
    fn check_write(&mut self, command: &'static Command, args: &[&[u8]]) -> Result<(), String> {
        let state = &self.shared.state;
        if let Some(error) = state.refuses_write() {
            return Err(error);
        }
        if self.shared.quorum.is_on() && !self.shared.quorum.has_enough() {
            return Err("NOREPLICAS Not enough good replicas to write.".into());
        }
        if command.is(flag::DENYOOM) && self.shared.config.maxmemory() > 0 {
            self.check_room(command, args)?;
        }
        Ok(())
    }

    /// Quick writes add little more than their arguments: used memory is summed up only when what the
    /// last look left free may be used up. Others may add any amount, so that each is looked at.
    fn check_room(&mut self, command: &'static Command, args: &[&[u8]]) -> Result<(), String> {
        if command.is(flag::FAST | flag::QUICK) {
            let bytes: usize = args.iter().map(|a| a.len()).sum();
            self.room -= bytes as i64 + WRITE_OVERHEAD;
            if self.room > 0 {
                return Ok(());
            }
        }
        match crate::eviction::make_room(self.shared, &self.env) {
            Some(room) => {
                self.room = room;
                Ok(())
            }
            None => {
                self.room = 0;
                Err("OOM command not allowed when used memory > 'maxmemory'.".into())
            }
        }
    }

    /// Ahead of a script, which looks for itself whether there was any.
    fn make_room(&mut self) {
        if self.shared.config.maxmemory() > 0 {
            self.room = crate::eviction::make_room(self.shared, &self.env).unwrap_or(0);
        }
    }

    /// What was checked when the commands were queued may hold no more: a lost lease, a moved slot.
    fn check_queue(&mut self, session: &mut Session) -> Result<(), String> {
        if session.queue.as_ref().is_none_or(|q| q.aborted) {
            return Ok(());
        }
        self.check_lease(session)?;
        let Some(queue) = &session.queue else { return Ok(()) };
        let mut common = None;
        for (command, args) in &queue.commands {
            let args: SmallVec<[&[u8]; 8]> = args.iter().map(Vec::as_slice).collect();
            if self.shared.cluster.is_enabled() {
                for at in command.key_positions(&args) {
                    let slot = slot_of(args[at]);
                    if *common.get_or_insert(slot) != slot {
                        return Err("CROSSSLOT Keys in request don't hash to the same slot".into());
                    }
                }
                self.shared.route(session, command, &args, None)?;
            }
            if command.is(flag::WRITE) {
                self.check_write(command, &args)?;
            } else if command.is(flag::SCRIPT) {
                self.make_room();
            }
        }
        Ok(())
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
        let stats = &self.stats.calls[command.id()];
        if timed {
            let usec = clock::monotonic_us() - from;
            bump(&stats.usec, if self.times_all { usec } else { usec * TIMED_SAMPLE });
            if self.times_all {
                slowlog::note(self.shared, session, command, args, usec, self.env.now_ms);
            }
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
        let act = |ctx: &mut Ctx<'_, '_>| {
            (command.run)(ctx);
            matches!(ctx.effects, Effects::Again)
        };
        let mut wide = command.locks_all(args);
        loop {
            let (begin, errors) = (reply.out.len(), reply.errors);
            match self.locked(session, reply, command, args, (hint, wide), act) {
                (Ok(true), _) if !wide => wide = true,
                (Err(error), changed) => {
                    reply.error(&error);
                    return changed;
                }
                (_, changed) => return changed,
            }
            reply.out.truncate(begin);
            reply.errors = errors;
        }
    }

    /// Runs `act` as a command under the locks of its keys, or under all (`wide`): its result, or the error that a client is replied,
    /// and the keys that changed: a request that is refused may find expired ones.
    #[inline]
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
        let locked = match (command.keys, hint) {
            _ if wide => shared.keyspace.lock_all(),
            // Roles change under all locks: what is published cannot get into the journal of a new replica.
            (Keys::None, _) if command.is(flag::PUBSUB) => {
                shared.keyspace.lock_slot(slot_of(args[args.len() - 1]))
            }
            (Keys::None, _) => shared.keyspace.lock_slots(SmallVec::new()),
            (Keys::Range { first: 1, last: 1, .. }, Some((_, slot))) => {
                shared.keyspace.lock_slot(slot)
            }
            _ => {
                let keys = command.key_positions(args);
                let mut slots: SmallVec<[u16; 8]> =
                    keys.iter().map(|i| slot_of(args[*i])).collect();
                if slots.is_empty() && command.is(flag::SCRIPT) {
                    // Any one: while it is held no snapshot begins, and no role changes.
                    slots.push(self.env.thread as u16 % SLOTS);
                }
                shared.keyspace.lock_slots(slots)
            }
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
        db.tells_misses = self.env.events != 0 && super::events::tells_misses(command);
        if let (Some((hash, slot)), Some(key)) = (hint, args.get(1)) {
            db.hint(key, hash, slot);
        }
        if shared.cluster.is_unmanaged()
            && !session.from_primary
            && !session.importing
            && let Err(error) = shared.route_locked(session, command, args, &mut db)
        {
            if !db.expired.is_empty() {
                self.journal(session, &mut db, args, 0, Effects::Verbatim);
            }
            return (Err(error), self.changed(&mut db, session.info.id));
        }
        let mut ctx = Ctx {
            shared,
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
        let (dirty, effects) = (ctx.dirty, ctx.effects);
        self.remember(session, command, args);
        let writes = dirty > 0 || !db.expired.is_empty();
        if writes {
            self.journal(session, &mut db, args, dirty, effects);
        }
        self.note_quorum(session, &mut db, writes);
        self.count(&db);
        let changed = self.changed(&mut db, session.info.id);
        (Ok(result), changed)
    }

    /// Writes what one command did to the journal, while its locks are held.
    fn journal(
        &self,
        session: &mut Session,
        db: &mut Db<'_>,
        args: &[&[u8]],
        dirty: u64,
        effects: Effects,
    ) {
        let shared = self.shared;
        shared.state.dirty.fetch_add(dirty, Ordering::Relaxed);
        if !shared.journal.is_active() || session.from_primary {
            db.expired.clear();
            return;
        }
        if db.expired.is_empty() && matches!(effects, Effects::Verbatim) {
            session.last_write = shared.journal.append(db.index, args);
            return;
        }
        let mut out = Journaled::new();
        collect(&mut out, db, args, dirty, effects);
        if !out.is_empty() {
            session.last_write = shared.journal.append_all(&out);
        }
    }

    /// EXEC: the queued commands under the union of their locks.
    fn transaction(&mut self, session: &mut Session, reply: &mut Reply) -> Vec<(u16, Vec<u8>)> {
        let Some(queue) = session.queue.take() else {
            reply.error("ERR EXEC without MULTI");
            return Vec::new();
        };
        session.info.in_multi.store(false, Ordering::Relaxed);
        if queue.aborted {
            unwatch(self.shared, session);
            reply.error("EXECABORT Transaction discarded because of previous errors.");
            return Vec::new();
        }
        let shared = self.shared;
        // What a script reaches for is not known ahead, and in here it cannot begin anew.
        let every = flag::LOCK_ALL | flag::WALKS | flag::SCRIPT;
        let all = queue.commands.iter().any(|(c, _)| c.is(every));
        let mut slots: SmallVec<[u16; 8]> =
            session.watched.iter().map(|(_, k)| slot_of(k)).collect();
        for (command, args) in &queue.commands {
            let args: SmallVec<[&[u8]; 8]> = args.iter().map(Vec::as_slice).collect();
            slots.extend(command.key_positions(&args).iter().map(|i| slot_of(args[*i])));
            if command.is(flag::PUBSUB) {
                slots.extend(args.last().map(|last| slot_of(last)));
            }
        }
        let locked: Locked<'_> =
            if all { shared.keyspace.lock_all() } else { shared.keyspace.lock_slots(slots) };
        let broken = session.watch_broken.as_ref().is_some_and(|b| b.load(Ordering::Acquire))
            || watched_expired(session, self.env.now_ms, &locked);
        unwatch(shared, session);
        if broken {
            reply.null_array();
            return Vec::new();
        }
        if !session.from_primary
            && queue.commands.iter().any(|(c, _)| c.is(flag::WRITE))
            && let Some(error) = shared.state.refuses_write()
        {
            reply.error(&format!("EXECABORT Transaction discarded because of: {error}"));
            return Vec::new();
        }
        shared.heed(&mut self.env);
        let preimages = shared.preimages();
        let mut db = Db::new(locked, session.db, &self.env, preimages.as_deref());
        if shared.cluster.is_unmanaged() && !session.from_primary {
            for (command, args) in &queue.commands {
                let args: SmallVec<[&[u8]; 8]> = args.iter().map(Vec::as_slice).collect();
                if let Err(error) = shared.route_locked(session, command, &args, &mut db) {
                    reply.error(&not_executed(&error));
                    if !db.expired.is_empty() {
                        self.journal(session, &mut db, &args, 0, Effects::Verbatim);
                    }
                    return self.changed(&mut db, session.info.id);
                }
            }
        }
        let mut out = Journaled::new();
        let mut total = 0;
        reply.array(queue.commands.len());
        for (command, args) in &queue.commands {
            let args: SmallVec<[&[u8]; 8]> = args.iter().map(Vec::as_slice).collect();
            db.index = session.db;
            if session.rights.restricted
                && let Some(error) =
                    acl::refusal_at_exec(shared, session, command, &args, self.env.now_ms)
            {
                reply.error(&error);
                continue;
            }
            db.tells_misses = self.env.events != 0 && super::events::tells_misses(command);
            let errors = reply.errors;
            let mut ctx = Ctx {
                shared,
                session,
                reply,
                args: &args,
                db: &mut db,
                command,
                dirty: 0,
                effects: Effects::Verbatim,
                retry: false,
                in_exec: true,
            };
            (command.run)(&mut ctx);
            let (dirty, effects) = (ctx.dirty, ctx.effects);
            total += dirty;
            self.remember(session, command, &args);
            if shared.monitors.any() {
                shared.show(session, command, &args);
            }
            collect(&mut out, &mut db, &args, dirty, effects);
            let stats = &self.stats.calls[command.id()];
            bump(&stats.calls, 1);
            bump(&stats.failed, u64::from(reply.errors > errors));
        }
        shared.state.dirty.fetch_add(total, Ordering::Relaxed);
        if !out.is_empty() && shared.journal.is_active() && !session.from_primary {
            session.last_write = shared.journal.append_all(&out);
        }
        self.note_quorum(session, &mut db, !out.is_empty());
        self.count(&db);
        self.changed(&mut db, session.info.id)
    }

    /// Remembers, while the locks are held, which offset the reply has to wait for.
    #[inline]
    fn note_quorum(&self, session: &mut Session, db: &mut Db<'_>, writes: bool) {
        let quorum = &self.shared.quorum;
        if !quorum.is_on() || session.from_primary {
            return;
        }
        let wrote = writes.then(|| self.shared.journal.end());
        let gates = db.locked().slots().map(|slot| quorum.gate(slot, wrote));
        session.quorum_gate = gates.max().unwrap_or(0).max(session.quorum_gate);
    }

    /// Remembers, while the locks are held, who has read what.
    #[inline]
    fn remember(&self, session: &Session, command: &'static Command, args: &[&[u8]]) {
        remember(self.shared, session, command, args);
    }

    /// The keys that changed. Who watches them is told while their locks are held: an EXEC that waits for
    /// the locks must find it (see: a_watched_key_cannot_change_unseen).
    #[inline]
    fn changed(&self, db: &mut Db<'_>, by: u64) -> Changed {
        self.shared.tell(db, by)
    }

    #[inline]
    fn count(&self, db: &Db<'_>) {
        if db.hits + db.misses > 0 {
            bump(&self.stats.hits, db.hits);
            bump(&self.stats.misses, db.misses);
        }
    }

    /// Runs the commands of those who wait for changed keys.
    fn serve(&mut self, changed: Vec<(u16, Vec<u8>)>) {
        let shared = self.shared;
        let mut ready = changed;
        // Serving one may make another key ready (BLMOVE): until nothing more happens.
        while let Some((db, key)) = ready.pop() {
            // A command that found nothing finds nothing for the next client either, but another
            // one may: BLPOP behind a BZPOPMIN. Readers of streams differ in where they are.
            let mut unserved: SmallVec<[usize; 4]> = SmallVec::new();
            for waiter in shared.waiters.waiting(db, &key) {
                if unserved.contains(&waiter.command.id()) || !waiter.claim() {
                    continue;
                }
                match self.retry(&waiter) {
                    Some((bytes, more)) => {
                        waiter.finish();
                        shared.waiters.unblock(&waiter);
                        shared.deliver(&waiter.client, bytes.into(), true);
                        ready.extend(more);
                    }
                    None => {
                        waiter.unclaim();
                        if waiter.command.group != Group::Stream {
                            unserved.push(waiter.command.id());
                        }
                    }
                }
            }
        }
    }

    /// Runs a blocked command again: its reply and the keys that it changed, or nothing.
    fn retry(&mut self, waiter: &Arc<Waiter>) -> Option<(Vec<u8>, Changed)> {
        let shared = self.shared;
        let args: SmallVec<[&[u8]; 8]> = waiter.args.iter().map(Vec::as_slice).collect();
        let mut session = Session::new(waiter.client.clone(), true);
        session.db = waiter.db;
        session.resp3 = waiter.resp3;
        let mut reply = Reply::new(Vec::new(), waiter.resp3);
        if let Some(error) = acl::refusal_of_waiter(shared, waiter, self.env.now_ms) {
            reply.error(&error);
            return Some((reply.out, Vec::new()));
        }
        let keys = waiter.command.key_positions(&args);
        let locked = shared.keyspace.lock_slots(keys.iter().map(|i| slot_of(args[*i])).collect());
        shared.heed(&mut self.env);
        let preimages = shared.preimages();
        let mut db = Db::new(locked, waiter.db, &self.env, preimages.as_deref());
        let mut ctx = Ctx {
            shared,
            session: &mut session,
            reply: &mut reply,
            args: &args,
            db: &mut db,
            command: waiter.command,
            dirty: 0,
            effects: Effects::Verbatim,
            retry: true,
            in_exec: false,
        };
        (waiter.command.run)(&mut ctx);
        let (dirty, effects) = (ctx.dirty, ctx.effects);
        if dirty > 0 || !db.expired.is_empty() {
            self.journal(&mut session, &mut db, &args, dirty, effects);
        }
        let changed = self.changed(&mut db, session.info.id);
        (!reply.out.is_empty()).then_some((reply.out, changed))
    }
}

/// Remembers, while the locks are held, who has read what.
#[inline]
pub(crate) fn remember(
    shared: &Shared,
    session: &Session,
    command: &'static Command,
    args: &[&[u8]],
) {
    let wanted = match session.remembers {
        Remembers::Nothing => return,
        Remembers::Reads => true,
        Remembers::OptIn => session.caching,
        Remembers::OptOut => !session.caching,
    };
    if wanted && command.is(flag::READONLY) {
        let keys = command.key_positions(args);
        shared.remember_reads(keys.iter().map(|i| args[*i]), session.info.id);
    }
}

/// Puts the journal's requests of one command behind `out`.
pub(crate) fn collect(
    out: &mut Journaled,
    db: &mut Db<'_>,
    args: &[&[u8]],
    dirty: u64,
    effects: Effects,
) {
    out.extend(db.expired.drain(..).map(|(at, key)| (at, vec![b"DEL".to_vec(), key])));
    if let Effects::Listed(requests) = effects {
        out.extend(requests);
        return;
    }
    if dirty == 0 {
        return;
    }
    match effects {
        Effects::Listed(_) | Effects::Again => {}
        Effects::Verbatim => out.push((db.index, args.iter().map(|a| a.to_vec()).collect())),
        Effects::Rewritten(requests) => {
            out.extend(requests.into_iter().map(|request| (db.index, request)));
        }
    }
}

fn queue(session: &mut Session, reply: &mut Reply, command: &'static Command, args: &[&[u8]]) {
    let Some(queue) = &mut session.queue else { return };
    let bytes: usize = args.iter().map(|a| a.len() + 32).sum();
    if queue.bytes + bytes > QUEUE_BYTES_MAX {
        queue.aborted = true;
        reply.error("ERR the transaction is larger than 1 GB");
        return;
    }
    queue.bytes += bytes;
    queue.commands.push((command, args.iter().map(|a| a.to_vec()).collect()));
    reply.simple("QUEUED");
}

fn abort_queue(session: &mut Session) {
    if let Some(queue) = &mut session.queue {
        queue.aborted = true;
    }
}

/// Forgets what the session watches.
pub fn unwatch(shared: &Shared, session: &mut Session) {
    if let Some(broken) = session.watch_broken.take() {
        session.watched_ttls.clear();
        for (db, key) in session.watched.drain(..) {
            shared.waiters.unwatch(db, &key, &broken);
        }
    }
}

/// A watched key that was there and has expired since breaks the transaction, whether deleted yet or not.
fn watched_expired(session: &Session, now_ms: i64, locked: &Locked<'_>) -> bool {
    debug_assert!(session.watched.iter().all(|(_, key)| locked.holds(slot_of(key))));
    session.watched_ttls.iter().any(|ttl| *ttl <= now_ms)
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

/// What EXEC says when it is refused. Where to go instead is said as it is, for clients that follow it.
fn not_executed(error: &str) -> String {
    let redirects = ["MOVED ", "ASK ", "TRYAGAIN ", "CROSSSLOT "];
    if redirects.iter().any(|code| error.starts_with(code)) {
        return error.to_string();
    }
    let reason = error.strip_prefix("ERR ").unwrap_or(error);
    format!("EXECABORT Transaction discarded because of: {reason}")
}

/// User input as it may stand in an error: bounded, without control bytes.
pub fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(128)])
        .chars()
        .map(|c| if c == '\r' || c == '\n' || c == '\0' { ' ' } else { c })
        .collect()
}
