//! MULTI and EXEC: what is queued, and its run under the union of its locks.

use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::Executor;
use super::effects::{Journaled, collect};
use crate::acl;
use crate::command::{Command, Ctx, Effects, events, flag};
use crate::keyspace::{Db, Locked};
use crate::resp::Reply;
use crate::server::{Shared, bump};
use crate::session::Session;
use crate::topology::slot_of;

/// Longest MULTI queue, bytes of arguments.
const QUEUE_BYTES_MAX: usize = 1 << 30;

impl Executor<'_> {
    /// EXEC: the queued commands under the union of their locks.
    pub(super) fn transaction(
        &mut self,
        session: &mut Session,
        reply: &mut Reply,
    ) -> Vec<(u16, Vec<u8>)> {
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
        if shared.routes_again(session) {
            for (command, args) in &queue.commands {
                let args: SmallVec<[&[u8]; 8]> = args.iter().map(Vec::as_slice).collect();
                if let Err(error) = shared.route_locked(session, command, &args, &mut db) {
                    reply.error(&not_executed(&error));
                    if db.has_expired() {
                        self.journal(session, &mut db, &args, 0, &mut Effects::Verbatim);
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
            db.tells_misses = self.env.events != 0 && events::tells_misses(command);
            let errors = reply.errors;
            let mut ctx = Ctx {
                shared,
                stats: self.stats,
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
        shared.state.dirty.add(self.env.thread, total as i64);
        if !out.is_empty() && !session.from_primary && shared.writes_journal() {
            session.last_write = shared.journal.append_all(&out);
        }
        self.note_quorum(session, &mut db, !out.is_empty());
        self.count(&db);
        self.changed(&mut db, session.info.id)
    }
}

pub fn queue(session: &mut Session, reply: &mut Reply, command: &'static Command, args: &[&[u8]]) {
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

pub(super) fn abort_queue(session: &mut Session) {
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

/// What EXEC says when it is refused. Where to go instead is said as it is, for clients that follow it.
pub(super) fn not_executed(error: &str) -> String {
    let redirects = ["MOVED ", "ASK ", "TRYAGAIN ", "CROSSSLOT "];
    if redirects.iter().any(|code| error.starts_with(code)) {
        return error.to_string();
    }
    let reason = error.strip_prefix("ERR ").unwrap_or(error);
    format!("EXECABORT Transaction discarded because of: {reason}")
}
