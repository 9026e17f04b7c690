//! Blocked commands run again once a key that they wait for has changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::Executor;
use super::effects::Changed;
use crate::acl;
use crate::command::{Ctx, Effects, Group};
use crate::keyspace::Db;
use crate::resp::Reply;
use crate::server::Basis;
use crate::session::Session;
use crate::topology::slot_of;
use crate::waiters::Waiter;

impl Executor<'_> {
    /// Runs the commands of those who wait for changed keys.
    pub(super) fn serve(&mut self, changed: Vec<(u16, Vec<u8>)>) {
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
                    Some((bytes, basis, more)) => {
                        waiter.finish();
                        shared.waiters.unblock(&waiter);
                        shared.deliver(&waiter.client, bytes.into(), Some(basis));
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

    /// Runs a blocked command again: its reply, what that rests on and the keys that it changed, or nothing.
    fn retry(&mut self, waiter: &Arc<Waiter>) -> Option<(Vec<u8>, Basis, Changed)> {
        let shared = self.shared;
        let args: SmallVec<[&[u8]; 8]> = waiter.args.iter().map(Vec::as_slice).collect();
        let mut session = Session::new(waiter.client.clone(), true);
        session.db = waiter.db;
        session.resp3 = waiter.resp3;
        let mut reply = Reply::new(Vec::new(), waiter.resp3);
        if let Some(error) = acl::refusal_of_waiter(shared, waiter, self.env.now_ms) {
            reply.error(&error);
            return Some((reply.out, shared.basis(), Vec::new()));
        }
        let keys = waiter.command.key_positions(&args);
        let locked = shared.keyspace.lock_slots(keys.iter().map(|i| slot_of(args[*i])).collect());
        // Whoever made the key ready may have been demoted since: who is blocked is sent on by that.
        if waiter.command.writes(&args) && shared.state.is_replica.load(Ordering::Acquire) {
            return None;
        }
        shared.heed(&mut self.env);
        let preimages = shared.preimages();
        let mut db = Db::new(locked, waiter.db, &self.env, preimages.as_deref());
        let mut ctx = Ctx {
            shared,
            stats: self.stats,
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
        let (dirty, mut effects) = (ctx.dirty, ctx.effects);
        if dirty > 0 || db.has_expired() {
            self.journal(&mut session, &mut db, &args, dirty, &mut effects);
        }
        // The slots are locked: nobody has taken over since.
        let basis = shared.basis();
        let changed = self.changed(&mut db, session.info.id);
        (!reply.out.is_empty()).then_some((reply.out, basis, changed))
    }
}
