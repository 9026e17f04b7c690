//! Commands on keys whatever they hold: existence, deletion, names, expiry times.

use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::{Entry, ValueRef};
use crate::lazy;
use crate::notify::class;

const R: u32 = flag::READONLY;
const W: u32 = flag::WRITE;
const FAST: u32 = flag::FAST;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("del", -2, W, Keys::ALL, Group::Generic, "1.0.0", "Deletes keys.", del),
    Command::new("unlink", -2, W | FAST, Keys::ALL, Group::Generic, "4.0.0", "Deletes keys; large values are freed aside.", del),
    Command::new("exists", -2, R | FAST, Keys::ALL, Group::Generic, "1.0.0", "Counts the keys that are there.", exists),
    Command::new("touch", -2, R | FAST, Keys::ALL, Group::Generic, "3.2.1", "Renews the access time of keys.", touch),
    Command::new("type", 2, R | FAST, Keys::FIRST, Group::Generic, "1.0.0", "Names the type of a key's value.", type_of),
    Command::new("expire", -3, W | FAST, Keys::FIRST, Group::Generic, "1.0.0", "Lets a key expire after seconds.", expire),
    Command::new("pexpire", -3, W | FAST, Keys::FIRST, Group::Generic, "2.6.0", "Lets a key expire after milliseconds.", pexpire),
    Command::new("expireat", -3, W | FAST, Keys::FIRST, Group::Generic, "1.2.0", "Lets a key expire at a unix time.", expireat),
    Command::new("pexpireat", -3, W | FAST, Keys::FIRST, Group::Generic, "2.6.0", "Lets a key expire at a unix time in milliseconds.", pexpireat),
    Command::new("ttl", 2, R | FAST, Keys::FIRST, Group::Generic, "1.0.0", "Returns the seconds until a key expires.", ttl),
    Command::new("pttl", 2, R | FAST, Keys::FIRST, Group::Generic, "2.6.0", "Returns the milliseconds until a key expires.", pttl),
    Command::new("expiretime", 2, R | FAST, Keys::FIRST, Group::Generic, "7.0.0", "Returns the unix time at which a key expires.", expiretime),
    Command::new("pexpiretime", 2, R | FAST, Keys::FIRST, Group::Generic, "7.0.0", "Returns the unix time in milliseconds at which a key expires.", pexpiretime),
    Command::new("persist", 2, W | FAST, Keys::FIRST, Group::Generic, "2.2.0", "Takes the expiry time off a key.", persist),
    Command::new("rename", 3, W, Keys::TWO, Group::Generic, "1.0.0", "Renames a key.", rename),
    Command::new("renamenx", 3, W | FAST, Keys::TWO, Group::Generic, "1.0.0", "Renames a key if the new name is free.", renamenx),
    Command::new("copy", -3, W | flag::DENYOOM, Keys::TWO, Group::Generic, "6.2.0", "Copies a value to another key.", copy),
    Command::new("move", 3, W | FAST, Keys::FIRST, Group::Generic, "1.0.0", "Moves a key to another database.", move_key),
];

pub(super) const NO_SUCH_KEY: &str = "ERR no such key";

fn del(ctx: &mut Ctx<'_, '_>) {
    let args = ctx.args;
    let mut gone = 0;
    for key in &args[1..] {
        if let Some(entry) = ctx.db.take(key) {
            lazy::free(entry);
            ctx.modified(key);
            gone += 1;
        }
    }
    ctx.reply.int(gone);
}

fn exists(ctx: &mut Ctx<'_, '_>) {
    let found = ctx.args[1..].iter().filter(|key| ctx.db.get(key).is_some()).count();
    ctx.reply.int(found as i64);
}

fn touch(ctx: &mut Ctx<'_, '_>) {
    exists(ctx);
}

/// What TYPE says of an entry.
pub(super) fn type_name(entry: &Entry) -> &'static str {
    match entry.value() {
        ValueRef::String(_) => "string",
        ValueRef::Collection(collection) => collection.type_name(),
    }
}

fn type_of(ctx: &mut Ctx<'_, '_>) {
    let name = ctx.db.peek(ctx.args[1]).map_or("none", type_name);
    if name == "none" && ctx.db.tells_misses {
        ctx.db.note_event(class::KEY_MISS, "keymiss", ctx.args[1]);
    }
    ctx.reply.simple(name);
}

fn expire(ctx: &mut Ctx<'_, '_>) {
    let now = ctx.db.now_ms();
    expire_at(ctx, now, 1000);
}

fn pexpire(ctx: &mut Ctx<'_, '_>) {
    let now = ctx.db.now_ms();
    expire_at(ctx, now, 1);
}

fn expireat(ctx: &mut Ctx<'_, '_>) {
    expire_at(ctx, 0, 1000);
}

fn pexpireat(ctx: &mut Ctx<'_, '_>) {
    expire_at(ctx, 0, 1);
}

/// What an expiry time that is there must be like for another to take its place.
#[derive(Default)]
pub(super) struct When {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl When {
    pub(super) fn refuses(&self, current: Option<i64>, at: i64) -> bool {
        self.nx && current.is_some()
            || self.xx && current.is_none()
            || self.gt && current.is_none_or(|ttl| at <= ttl)
            || self.lt && current.is_some_and(|ttl| at >= ttl)
    }
}

/// The conditions behind the time; an error has been replied when they make no sense.
pub(super) fn conditions(ctx: &mut Ctx<'_, '_>, places: std::ops::Range<usize>) -> Option<When> {
    let mut when = When::default();
    for i in places {
        if ctx.is_word(i, "nx") {
            when.nx = true;
        } else if ctx.is_word(i, "xx") {
            when.xx = true;
        } else if ctx.is_word(i, "gt") {
            when.gt = true;
        } else if ctx.is_word(i, "lt") {
            when.lt = true;
        } else {
            let word = super::exec::printable(ctx.args[i]);
            ctx.reply.error(&format!("ERR Unsupported option {word}"));
            return None;
        }
    }
    if when.nx && (when.xx || when.gt || when.lt) {
        let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
        ctx.reply.error(text);
        return None;
    }
    if when.gt && when.lt {
        ctx.reply.error("ERR GT and LT options at the same time are not compatible");
        return None;
    }
    Some(when)
}

fn expire_at(ctx: &mut Ctx<'_, '_>, base_ms: i64, unit_ms: i64) {
    let key = ctx.args[1];
    let Some(when) = conditions(ctx, 3..ctx.args.len()) else { return };
    let Some(n) = ctx.int_arg(2) else { return };
    let Some(at) = n.checked_mul(unit_ms).and_then(|ms| ms.checked_add(base_ms)) else {
        return super::expiry_args::invalid(ctx);
    };
    let Some(current) = ctx.db.peek(key).map(Entry::ttl) else { return ctx.reply.int(0) };
    if when.refuses(current, at) {
        return ctx.reply.int(0);
    }
    // A time that has passed deletes at once, except where the primary decides: there its DEL will come.
    if at <= ctx.db.now_ms() && !ctx.db.env.sees_expired {
        if let Some(entry) = ctx.db.take(key) {
            lazy::free(entry);
        }
        ctx.propagate(&[b"DEL", key]);
    } else {
        ctx.db.expire(key, Some(at));
        ctx.propagate(&[b"PEXPIREAT", key, at.to_string().as_bytes()]);
    }
    ctx.modified(key);
    ctx.reply.int(1);
}

/// -2 without the key, -1 without an expiry time, else what `show` makes of it.
fn show_ttl(ctx: &mut Ctx<'_, '_>, show: impl Fn(i64) -> i64) {
    let n = match ctx.db.get(ctx.args[1]).map(Entry::ttl) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => show(at),
    };
    ctx.reply.int(n);
}

fn ttl(ctx: &mut Ctx<'_, '_>) {
    let now = ctx.db.now_ms();
    show_ttl(ctx, |at| (at - now).max(0).saturating_add(500) / 1000);
}

fn pttl(ctx: &mut Ctx<'_, '_>) {
    let now = ctx.db.now_ms();
    show_ttl(ctx, |at| (at - now).max(0));
}

fn expiretime(ctx: &mut Ctx<'_, '_>) {
    show_ttl(ctx, |at| at.saturating_add(500) / 1000);
}

fn pexpiretime(ctx: &mut Ctx<'_, '_>) {
    show_ttl(ctx, |at| at);
}

fn persist(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    if ctx.db.peek(key).is_none_or(|entry| entry.ttl().is_none()) {
        return ctx.reply.int(0);
    }
    ctx.db.expire(key, None);
    ctx.modified(key);
    ctx.reply.int(1);
}

fn rename(ctx: &mut Ctx<'_, '_>) {
    if rename_unless(ctx, false).is_some() {
        ctx.reply.ok();
    }
}

fn renamenx(ctx: &mut Ctx<'_, '_>) {
    if let Some(done) = rename_unless(ctx, true) {
        ctx.reply.int(i64::from(done));
    }
}

/// Renames, unless the new name must be free and is not. `None`: an error has been replied.
fn rename_unless(ctx: &mut Ctx<'_, '_>, must_be_free: bool) -> Option<bool> {
    let (from, to) = (ctx.args[1], ctx.args[2]);
    if !ctx.db.exists(from) {
        ctx.reply.error(NO_SUCH_KEY);
        return None;
    }
    if must_be_free && ctx.db.exists(to) {
        return Some(false);
    }
    if from == to {
        return Some(true);
    }
    let entry = ctx.db.take(from)?;
    if let Some(old) = ctx.db.take(to) {
        lazy::free(old);
    }
    ctx.db.put(to, entry.with_key(to));
    ctx.modified_to(from, class::GENERIC, "rename_from");
    ctx.modified_to(to, class::GENERIC, "rename_to");
    Some(true)
}

/// A database's number; an error has been replied when there is none such.
fn database(ctx: &mut Ctx<'_, '_>, i: usize) -> Option<u16> {
    let n = ctx.i32_arg(i)?;
    let found = u16::try_from(n).ok().filter(|n| *n < ctx.shared.keyspace.databases());
    if found.is_none() {
        ctx.reply.error("ERR DB index is out of range");
    }
    found
}

fn copy(ctx: &mut Ctx<'_, '_>) {
    let (from, to) = (ctx.args[1], ctx.args[2]);
    let source = ctx.db.index;
    let (mut target, mut replace) = (source, false);
    let mut i = 3;
    while i < ctx.args.len() {
        if ctx.is_word(i, "replace") {
            replace = true;
        } else if ctx.is_word(i, "db") && i + 1 < ctx.args.len() {
            i += 1;
            let Some(db) = database(ctx, i) else { return };
            target = db;
        } else {
            return ctx.reply.syntax_error();
        }
        i += 1;
    }
    if from == to && source == target {
        return ctx.reply.error("ERR source and destination objects are the same");
    }
    let access = ctx.db.access();
    let Some(made) = ctx.db.get(from).map(|entry| duplicate(entry, to, access)) else {
        return ctx.reply.int(0);
    };
    ctx.db.select(target);
    let done = replace || !ctx.db.exists(to);
    if done {
        if let Some(old) = ctx.db.take(to) {
            lazy::free(old);
        }
        ctx.db.put(to, made);
        ctx.modified(to);
    }
    ctx.db.select(source);
    ctx.reply.int(i64::from(done));
}

/// A copy of an entry under another key.
fn duplicate(entry: &Entry, key: &[u8], access: u32) -> Entry {
    match entry.value() {
        ValueRef::String(value) => {
            let (ttl, raw, item) = (entry.ttl(), entry.is_raw(), entry.item().changed());
            Entry::string_item(key, value, ttl, access, raw, item)
        }
        ValueRef::Collection(value) => {
            Entry::collection(key, value.to_collection(), entry.ttl(), access)
        }
    }
}

fn move_key(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    let source = ctx.db.index;
    let Some(target) = database(ctx, 2) else { return };
    if source == target {
        return ctx.reply.error("ERR source and destination objects are the same");
    }
    if !ctx.db.exists(key) {
        return ctx.reply.int(0);
    }
    ctx.db.select(target);
    let taken = ctx.db.exists(key);
    ctx.db.select(source);
    if taken {
        return ctx.reply.int(0);
    }
    let Some(entry) = ctx.db.take(key) else { return ctx.reply.int(0) };
    ctx.db.select(target);
    ctx.db.put(key, entry);
    ctx.db.select(source);
    ctx.modified_to(key, class::GENERIC, "move_from");
    ctx.db.select(target);
    ctx.modified_to(key, class::GENERIC, "move_to");
    ctx.db.select(source);
    ctx.reply.int(1);
}
