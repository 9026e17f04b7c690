//! Hash commands.

use super::collections::random_count;
use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::{Db, WrongType};
use crate::notify::class;
use crate::number::{DecimalError, add_decimal, parse_f64, parse_i64};
use crate::random;
use crate::types::hash::{NEVER, View};
use crate::types::{Hash, Item};

const fn row(
    name: &'static str,
    arity: i16,
    flags: u32,
    since: &'static str,
    summary: &'static str,
    run: super::Handler,
) -> Command {
    Command::new(name, arity, flags, Keys::FIRST, Group::Hash, since, summary, run)
}

const READ: u32 = flag::READONLY;
const READ_FAST: u32 = flag::READONLY | flag::FAST;
const WRITE_FAST: u32 = flag::WRITE | flag::FAST;
const GROW_FAST: u32 = flag::WRITE | flag::DENYOOM | flag::FAST;

pub const COMMANDS: &[Command] = &[
    row("hset", -4, GROW_FAST, "2.0.0", "Sets fields.", hset),
    row("hmset", -4, GROW_FAST, "2.0.0", "Sets fields; answers OK.", hset),
    row("hsetnx", 4, GROW_FAST, "2.0.0", "Sets a field that is not there.", hsetnx),
    row("hget", 3, READ_FAST, "2.0.0", "Returns the value of a field.", hget),
    row("hmget", -3, READ_FAST, "2.0.0", "Returns the values of fields.", hmget),
    row("hgetall", 2, READ, "2.0.0", "Returns all fields and values.", hgetall),
    row("hkeys", 2, READ, "2.0.0", "Returns all fields.", hkeys),
    row("hvals", 2, READ, "2.0.0", "Returns all values.", hvals),
    row("hlen", 2, READ_FAST, "2.0.0", "Returns the number of fields.", hlen),
    row("hstrlen", 3, READ_FAST, "3.2.0", "Returns the length of a field's value.", hstrlen),
    row("hexists", 3, READ_FAST, "2.0.0", "Tells whether a field is there.", hexists),
    row("hdel", -3, WRITE_FAST, "2.0.0", "Deletes fields.", hdel),
    row(
        "hgetdel",
        -5,
        WRITE_FAST,
        "8.0.0",
        "Returns the values of fields and deletes them.",
        hgetdel,
    ),
    row("hincrby", 4, GROW_FAST, "2.0.0", "Adds to the integer of a field.", hincrby),
    row("hincrbyfloat", 4, GROW_FAST, "2.6.0", "Adds to the number of a field.", hincrbyfloat),
    row("hrandfield", -2, READ, "6.2.0", "Returns random fields.", hrandfield),
    row("hscan", -3, READ, "2.8.0", "Walks the fields.", hscan),
];

/// The hash of a key for a read: fields whose time is over are not there.
pub(super) fn view<'d>(db: &'d mut Db<'_>, key: &[u8]) -> Result<Option<View<'d>>, WrongType> {
    let now = db.fields_ms();
    Ok(db.read::<Hash>(key)?.map(|hash| hash.at(now)))
}

/// The field is there, and its time is over: whoever writes it begins anew.
#[inline]
pub(super) fn is_over(hash: &Hash, field: &[u8], now_ms: i64) -> bool {
    hash.next_due() <= now_ms && hash.time(field).is_some_and(|time| time <= now_ms)
}

/// Counts fields that went because their time was over.
pub(super) fn count_lapsed(ctx: &Ctx<'_, '_>, fields: usize) {
    let counter = &ctx.shared.stats.expired_fields;
    counter.fetch_add(fields as u64, std::sync::atomic::Ordering::Relaxed);
}

/// Says that a command met fields whose time was over.
pub(super) fn note_lapsed(ctx: &mut Ctx<'_, '_>, key: &[u8], fields: usize) {
    if fields > 0 {
        count_lapsed(ctx, fields);
        ctx.db.note_event(class::HASH, "hexpired", key);
    }
}

fn hset(ctx: &mut Ctx<'_, '_>) {
    if !ctx.args.len().is_multiple_of(2) {
        ctx.wrong_arity();
        return;
    }
    let (key, args, now) = (ctx.args[1], ctx.args, ctx.db.fields_ms());
    let mut lapsed = 0;
    let new = ctx.db.upsert::<Hash, _>(key, |hash, limits| {
        let mut set = |pair: &&[&[u8]]| {
            let over = is_over(hash, pair[0], now);
            lapsed += usize::from(over);
            hash.set(pair[0], pair[1], limits) || over
        };
        args[2..].chunks_exact(2).filter(&mut set).count()
    });
    match new {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(new) => {
            note_lapsed(ctx, key, lapsed);
            ctx.modified(key);
            if ctx.command.name == "hmset" { ctx.reply.ok() } else { ctx.reply.int(new as i64) }
        }
    }
}

fn hsetnx(ctx: &mut Ctx<'_, '_>) {
    let (key, field, value) = (ctx.args[1], ctx.args[2], ctx.args[3]);
    let there = match view(ctx.db, key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(hash) => hash.is_some_and(|h| h.contains(field)),
    };
    if !there {
        let new = ctx.db.upsert::<Hash, _>(key, |hash, limits| hash.set(field, value, limits));
        if new == Ok(false) {
            note_lapsed(ctx, key, 1);
            ctx.propagate(&[b"HSET", key, field, value]);
        }
        ctx.modified(key);
    }
    ctx.reply.int(i64::from(!there));
}

fn hget(ctx: &mut Ctx<'_, '_>) {
    match view(ctx.db, ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(hash) => value(ctx.reply, hash.and_then(|h| h.get(ctx.args[2]))),
    }
}

fn value(reply: &mut crate::resp::Reply, item: Option<Item<'_>>) {
    match item {
        Some(item) => reply.item(item),
        None => reply.null(),
    }
}

fn hmget(ctx: &mut Ctx<'_, '_>) {
    match view(ctx.db, ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(hash) => {
            ctx.reply.array(ctx.args.len() - 2);
            for field in &ctx.args[2..] {
                value(ctx.reply, hash.and_then(|h| h.get(field)));
            }
        }
    }
}

fn hgetall(ctx: &mut Ctx<'_, '_>) {
    match view(ctx.db, ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(None) => ctx.reply.map(0),
        Ok(Some(hash)) => {
            ctx.reply.map(hash.len());
            hash.each(|field, value| {
                ctx.reply.item(field);
                ctx.reply.item(value);
            });
        }
    }
}

fn one_side(ctx: &mut Ctx<'_, '_>, pick: for<'a> fn(Item<'a>, Item<'a>) -> Item<'a>) {
    match view(ctx.db, ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(None) => ctx.reply.array(0),
        Ok(Some(hash)) => {
            ctx.reply.array(hash.len());
            hash.each(|field, value| ctx.reply.item(pick(field, value)));
        }
    }
}

fn hkeys(ctx: &mut Ctx<'_, '_>) {
    one_side(ctx, |field, _| field);
}

fn hvals(ctx: &mut Ctx<'_, '_>) {
    one_side(ctx, |_, value| value);
}

/// Answers an integer that is found in the hash (0 without one).
fn count(ctx: &mut Ctx<'_, '_>, of: impl FnOnce(View<'_>) -> usize) {
    match view(ctx.db, ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(hash) => ctx.reply.int(hash.map_or(0, of) as i64),
    }
}

/// Also counts fields whose time is over and that are still to be taken out, as everywhere in the family: it takes no walk.
fn hlen(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.read::<Hash>(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(hash) => ctx.reply.int(hash.map_or(0, Hash::len) as i64),
    }
}

fn hstrlen(ctx: &mut Ctx<'_, '_>) {
    let field = ctx.args[2];
    count(ctx, |hash| hash.get(field).map_or(0, Item::len));
}

fn hexists(ctx: &mut Ctx<'_, '_>) {
    let field = ctx.args[2];
    count(ctx, |hash| usize::from(hash.contains(field)));
}

fn hdel(ctx: &mut Ctx<'_, '_>) {
    let (key, fields, now) = (ctx.args[1], &ctx.args[2..], ctx.db.fields_ms());
    let mut lapsed = 0;
    let gone = ctx.db.update::<Hash, _>(key, |hash, _| {
        let mut remove = |field: &&&[u8]| {
            let over = is_over(hash, field, now);
            lapsed += usize::from(over);
            hash.remove(field) && !over
        };
        fields.iter().filter(&mut remove).count()
    });
    match gone {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(gone) => {
            let gone = gone.unwrap_or(0);
            if gone > 0 {
                note_lapsed(ctx, key, lapsed);
                ctx.modified(key);
            } else if lapsed > 0 {
                count_lapsed(ctx, lapsed);
                ctx.modified_as(key, class::HASH, "hexpired");
            }
            ctx.reply.int(gone as i64);
        }
    }
}

/// `HGETDEL key FIELDS numfields field ...`
fn hgetdel(ctx: &mut Ctx<'_, '_>) {
    if !ctx.is_word(2, "fields") {
        return ctx.reply.syntax_error();
    }
    let Some(n) = ctx.int_arg(3) else { return };
    let (key, fields, now) = (ctx.args[1], &ctx.args[4..], ctx.db.fields_ms());
    if usize::try_from(n) != Ok(fields.len()) {
        return ctx.reply.error(super::hash_fields::NUMFIELDS);
    }
    let taken = ctx.db.update::<Hash, _>(key, |hash, _| {
        let mut take = |field: &&[u8]| {
            let value = hash.at(now).get(field).map(Item::to_vec);
            if value.is_some() {
                hash.remove(field);
            }
            value
        };
        fields.iter().map(&mut take).collect::<Vec<_>>()
    });
    let taken = match taken {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(taken) => taken.unwrap_or_else(|| vec![None; fields.len()]),
    };
    let mut gone: Vec<&[u8]> = vec![b"HDEL", key];
    ctx.reply.array(taken.len());
    for (field, value) in fields.iter().zip(&taken) {
        match value {
            Some(value) => {
                ctx.reply.bulk(value);
                gone.push(field);
            }
            None => ctx.reply.null(),
        }
    }
    if gone.len() > 2 {
        ctx.propagate(&gone);
        ctx.modified(key);
    }
}

fn hincrby(ctx: &mut Ctx<'_, '_>) {
    let (key, field) = (ctx.args[1], ctx.args[2]);
    let Some(by) = ctx.int_arg(3) else { return };
    let old = match view(ctx.db, key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(hash) => hash.and_then(|h| h.get(field)).map(Item::as_i64),
    };
    let Some(old) = old.unwrap_or(Some(0)) else {
        return ctx.reply.error("ERR hash value is not an integer");
    };
    let Some(new) = old.checked_add(by) else {
        return ctx.reply.error("ERR increment or decrement would overflow");
    };
    store(ctx, key, field, new.to_string().as_bytes(), false);
    ctx.reply.int(new);
}

fn hincrbyfloat(ctx: &mut Ctx<'_, '_>) {
    let (key, field, by) = (ctx.args[1], ctx.args[2], ctx.args[3]);
    match parse_f64(by) {
        None => return ctx.reply.not_a_float(),
        Some(by) if !by.is_finite() => return ctx.reply.error("ERR value is NaN or Infinity"),
        Some(_) => {}
    }
    let old = match view(ctx.db, key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(hash) => hash.and_then(|h| h.get(field)).map(Item::to_vec),
    };
    match add_decimal(old.as_deref().unwrap_or(b"0"), by) {
        Ok(sum) => {
            store(ctx, key, field, &sum, true);
            ctx.reply.bulk(&sum);
        }
        Err(DecimalError::OutOfRange) => {
            ctx.reply.error("ERR increment would produce NaN or Infinity");
        }
        Err(_) => ctx.reply.error("ERR hash value is not a float"),
    }
}

/// Puts a sum in its field, which keeps the time that it has. `as_value`: the journal gets the value in place of the
/// request, as it does wherever a time of the field decides what the request means.
fn store(ctx: &mut Ctx<'_, '_>, key: &[u8], field: &[u8], value: &[u8], as_value: bool) {
    let now = ctx.db.fields_ms();
    // The type was checked by the caller under the same lock.
    let Ok((over, time)) = ctx.db.upsert::<Hash, _>(key, |hash, limits| {
        let over = is_over(hash, field, now);
        if over {
            hash.set(field, value, limits);
        } else {
            hash.set_value(field, value, limits);
        }
        (over, if hash.is_timed() { hash.time(field).unwrap_or(NEVER) } else { NEVER })
    }) else {
        return;
    };
    note_lapsed(ctx, key, usize::from(over));
    if time != NEVER {
        let at = time.to_string();
        ctx.propagate(&[b"HSETEX", key, b"PXAT", at.as_bytes(), b"FIELDS", b"1", field, value]);
    } else if over || as_value {
        ctx.propagate(&[b"HSET", key, field, value]);
    }
    ctx.modified(key);
}

fn hrandfield(ctx: &mut Ctx<'_, '_>) {
    let Ok((count, with_values)) = random_count(ctx, "withvalues") else { return };
    let hash = match view(ctx.db, ctx.args[1]) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(hash) => hash.filter(|hash| !hash.is_empty()),
    };
    let reply = &mut *ctx.reply;
    let Some(count) = count else {
        return value(reply, hash.and_then(|h| h.random(&mut random::next)).map(|(f, _)| f));
    };
    let Some(hash) = hash.filter(|_| count != 0) else { return reply.array(0) };
    let distinct = count > 0;
    let n = if distinct { hash.len().min(count as usize) } else { count.unsigned_abs() as usize };
    reply.array(if with_values && !reply.resp3 { n * 2 } else { n });
    let mut put = |field: Item<'_>, value: Item<'_>| {
        if with_values && reply.resp3 {
            reply.array(2);
        }
        reply.item(field);
        if with_values {
            reply.item(value);
        }
        !reply.over
    };
    if distinct {
        hash.random_distinct(n, &mut random::next, |field, value| {
            put(field, value);
        });
    } else {
        // As many as were asked for, or as many as a reply may hold.
        for _ in 0..n {
            match hash.random(&mut random::next) {
                Some((field, value)) if put(field, value) => {}
                _ => break,
            }
        }
    }
}

fn hscan(ctx: &mut Ctx<'_, '_>) {
    let Some(options) = super::collections::ScanOptions::parse(ctx, 2, &["novalues"]) else {
        return;
    };
    let hash = match view(ctx.db, ctx.args[1]) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(hash) => hash,
    };
    let mut found: Vec<Vec<u8>> = Vec::new();
    let next = hash.map_or(0, |hash| {
        hash.scan(options.cursor, options.count, |field, value| {
            let field = field.to_vec();
            if options.fits(&field) {
                found.push(field);
                if !options.flagged {
                    found.push(value.to_vec());
                }
            }
        })
    });
    super::collections::reply_scan(ctx, next, &found);
}

/// An integer argument bounded as the commands with a count want it.
pub(super) fn positive(text: &[u8]) -> Option<usize> {
    parse_i64(text).filter(|n| *n > 0).map(|n| n as usize)
}
