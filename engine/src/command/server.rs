//! Commands on the server as a whole: emptying and exchanging databases, time, and what is not there.

use super::{Command, Ctx, Group, Keys, flag};
use crate::{clock, lazy, moves};

const W: u32 = flag::WRITE | flag::LOCK_ALL;
const ANY: u32 = flag::LOADING | flag::STALE;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("time", 1, ANY | flag::FAST, Keys::None, Group::Server, "2.6.0", "Returns the server's clock.", time),
    Command::new("flushdb", -1, W, Keys::None, Group::Server, "1.0.0", "Deletes every key of the database.", flushdb),
    Command::new("flushall", -1, W, Keys::None, Group::Server, "1.0.0", "Deletes every key of every database.", flushall),
    Command::new("swapdb", 3, W | flag::FAST, Keys::None, Group::Server, "4.0.0", "Exchanges two databases.", swapdb),
    Command::new("module", -2, flag::ADMIN | flag::NOSCRIPT, Keys::None, Group::Server, "4.0.0", "Lists loaded modules: there are none.", module),
];

fn time(ctx: &mut Ctx<'_, '_>) {
    // The command's own time, not that of its batch: clients measure clocks with it.
    let now = clock::unix_us();
    ctx.reply.array(2);
    ctx.reply.bulk_int(now / 1_000_000);
    ctx.reply.bulk_int(now % 1_000_000);
}

/// ASYNC and SYNC are accepted: what is large is always freed aside, after the locks are let go.
fn flush_mode(ctx: &mut Ctx<'_, '_>) -> bool {
    let fits = match ctx.args.len() {
        1 => true,
        2 => ctx.is_word(1, "async") || ctx.is_word(1, "sync"),
        _ => false,
    };
    if !fits {
        ctx.reply.syntax_error();
    }
    fits
}

fn empty(ctx: &mut Ctx<'_, '_>, db: u16) {
    let tables = ctx.db.take_database(db);
    if !tables.is_empty() {
        ctx.shared.waiters.database_changed(db);
        // A group that somebody reads from is gone with its stream.
        note_waiting(ctx, &[db]);
    }
    lazy::free_databases(ctx.shared.keyspace.memory_counters(), tables);
}

fn flushdb(ctx: &mut Ctx<'_, '_>) {
    if flush_mode(ctx) {
        let db = ctx.db.index;
        moves::cut_unaware(ctx.shared);
        empty(ctx, db);
        ctx.shared.invalidate_all();
        ctx.dirty += 1;
        ctx.propagate(&[b"FLUSHDB"]);
        ctx.reply.ok();
    }
}

fn flushall(ctx: &mut Ctx<'_, '_>) {
    if flush_mode(ctx) {
        moves::cut_unaware(ctx.shared);
        for db in 0..ctx.shared.keyspace.databases() {
            empty(ctx, db);
        }
        ctx.shared.invalidate_all();
        ctx.dirty += 1;
        ctx.propagate(&[b"FLUSHALL"]);
        ctx.reply.ok();
    }
}

/// Whoever waits for a key in these databases is tried again.
fn note_waiting(ctx: &mut Ctx<'_, '_>, dbs: &[u16]) {
    for waiter in ctx.shared.waiters.all_waiting() {
        if dbs.contains(&waiter.db) {
            let keys = waiter.keys.iter().map(|key| (waiter.db, key.clone()));
            ctx.db.noted().changed.extend(keys);
        }
    }
}

fn swapdb(ctx: &mut Ctx<'_, '_>) {
    if ctx.shared.cluster.is_enabled() {
        return ctx.reply.error("ERR SWAPDB is not allowed in cluster mode");
    }
    let mut found = [0u16; 2];
    for (i, which) in ["first", "second"].into_iter().enumerate() {
        let index = crate::number::parse_i64(ctx.args[i + 1]);
        let Some(n) = index.and_then(|n| i32::try_from(n).ok()) else {
            return ctx.reply.error(&format!("ERR invalid {which} DB index"));
        };
        match u16::try_from(n).ok().filter(|n| *n < ctx.shared.keyspace.databases()) {
            Some(db) => found[i] = db,
            None => return ctx.reply.error("ERR DB index is out of range"),
        }
    }
    if found[0] != found[1] {
        ctx.db.swap_databases(found[0], found[1]);
        found.iter().for_each(|db| ctx.shared.waiters.database_changed(*db));
        // Whoever waits in either database may find its key there now.
        note_waiting(ctx, &found);
        ctx.shared.invalidate_all();
    }
    ctx.dirty += 1;
    ctx.reply.ok();
}

fn module(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match word.as_slice() {
        b"list" => ctx.reply.array(0),
        b"load" | b"loadex" | b"unload" => {
            ctx.reply.error("ERR modules are not supported by this server");
        }
        b"help" => ctx.help(&["MODULE <subcommand>. Subcommands are:", "LIST"]),
        _ => ctx.unknown_subcommand(),
    }
}
