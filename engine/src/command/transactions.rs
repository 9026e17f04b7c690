//! MULTI, EXEC, DISCARD, WATCH, UNWATCH. Queueing and EXEC itself are part of execution (`exec`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::Entry;
use crate::session::Queue;

const FLAGS: u32 = flag::FAST | flag::LOADING | flag::STALE | flag::NOSCRIPT | flag::UNQUEUED;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("multi", 1, FLAGS, Keys::None, Group::Transactions, "1.2.0", "Begins a transaction.", multi),
    Command::new("exec", 1, FLAGS & !flag::FAST, Keys::None, Group::Transactions, "1.2.0", "Runs the queued commands, all or none.", exec),
    Command::new("discard", 1, FLAGS, Keys::None, Group::Transactions, "2.0.0", "Forgets the queued commands.", discard),
    Command::new("watch", -2, FLAGS, Keys::ALL, Group::Transactions, "2.2.0", "Lets EXEC do nothing if a key changes before it.", watch),
    Command::new("unwatch", 1, FLAGS & !flag::UNQUEUED, Keys::None, Group::Transactions, "2.2.0", "Forgets the watched keys.", unwatch),
];

fn multi(ctx: &mut Ctx<'_, '_>) {
    if ctx.session.queue.is_some() {
        return ctx.reply.error("ERR MULTI calls can not be nested");
    }
    ctx.session.queue = Some(Queue::default());
    ctx.session.info.in_multi.store(true, Ordering::Relaxed);
    ctx.reply.ok();
}

/// Only reached where there is no executor around it to take the queue.
fn exec(ctx: &mut Ctx<'_, '_>) {
    ctx.reply.error("ERR EXEC without MULTI");
}

fn discard(ctx: &mut Ctx<'_, '_>) {
    if ctx.session.queue.take().is_none() {
        return ctx.reply.error("ERR DISCARD without MULTI");
    }
    ctx.session.info.in_multi.store(false, Ordering::Relaxed);
    super::exec::unwatch(ctx.shared, ctx.session);
    ctx.reply.ok();
}

fn watch(ctx: &mut Ctx<'_, '_>) {
    if ctx.session.queue.is_some() {
        return ctx.reply.error("ERR WATCH inside MULTI is not allowed");
    }
    let broken =
        ctx.session.watch_broken.get_or_insert_with(|| Arc::new(AtomicBool::new(false))).clone();
    let db = ctx.session.db;
    for key in &ctx.args[1..] {
        if ctx.session.watched.iter().any(|(d, k)| *d == db && k == key) {
            continue;
        }
        // The key's lock is held: whoever changes it from now on sees that it is watched.
        let ttl = ctx.db.peek(key).and_then(Entry::ttl);
        ctx.session.watched_ttls.extend(ttl);
        ctx.session.watched.push((db, key.to_vec()));
        ctx.shared.waiters.watch(db, key, &broken);
    }
    ctx.reply.ok();
}

fn unwatch(ctx: &mut Ctx<'_, '_>) {
    super::exec::unwatch(ctx.shared, ctx.session);
    ctx.reply.ok();
}
