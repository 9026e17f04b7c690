//! Commands on fields of hashes that expire by themselves.
//!
//! The journal gets absolute times, and what they did: HPEXPIREAT, HSETEX with PXAT, HPERSIST, and HDEL for fields whose time
//! was over when it was given. Who applies the journal sees fields whose time is over, and takes none out before it is told.

use super::hashes::{count_lapsed, is_over, note_lapsed, view};
use super::keys::conditions;
use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::WrongType;
use crate::notify::class;
use crate::types::hash::NEVER;
use crate::types::{Hash, Item};

const fn row(
    name: &'static str,
    arity: i16,
    flags: u32,
    since: &'static str,
    summary: &'static str,
    run: super::Handler,
) -> Command {
    Command::new(name, arity, flags | flag::FAST, Keys::FIRST, Group::Hash, since, summary, run)
}

const R: u32 = flag::READONLY;
const W: u32 = flag::WRITE;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    row("hexpire", -6, W, "7.4.0", "Lets fields expire after seconds.", hexpire),
    row("hpexpire", -6, W, "7.4.0", "Lets fields expire after milliseconds.", hpexpire),
    row("hexpireat", -6, W, "7.4.0", "Lets fields expire at a unix time.", hexpireat),
    row("hpexpireat", -6, W, "7.4.0", "Lets fields expire at a unix time in milliseconds.", hpexpireat),
    row("httl", -5, R, "7.4.0", "Returns the seconds until fields expire.", httl),
    row("hpttl", -5, R, "7.4.0", "Returns the milliseconds until fields expire.", hpttl),
    row("hexpiretime", -5, R, "7.4.0", "Returns the unix times at which fields expire.", hexpiretime),
    row("hpexpiretime", -5, R, "7.4.0", "Returns the unix times in milliseconds at which fields expire.", hpexpiretime),
    row("hpersist", -5, W, "7.4.0", "Takes the expiry times off fields.", hpersist),
    row("hgetex", -5, W, "8.0.0", "Returns the values of fields and changes when they expire.", hgetex),
    row("hsetex", -6, W | flag::DENYOOM, "8.0.0", "Sets fields with one condition and expiry time for all.", hsetex),
];

pub(super) const NUMFIELDS: &str =
    "ERR numfields should be greater than 0 and match the provided number of fields";

/// Without the field, and without a time.
const NO_FIELD: i64 = -2;
const NO_TIME: i64 = -1;

/// `FIELDS numfields ...` at argument `at`, with `width` arguments for each field: what stands there. An error has been
/// replied when there is none such.
fn fields<'a>(ctx: &mut Ctx<'a, '_>, at: usize, width: usize) -> Option<&'a [&'a [u8]]> {
    let Some(count) = ctx.args.get(at + 1) else {
        ctx.reply.error(NUMFIELDS);
        return None;
    };
    let Some(n) = crate::number::parse_i64(count) else {
        ctx.reply.not_an_integer();
        return None;
    };
    let fields = &ctx.args[at + 2..];
    if n <= 0 || usize::try_from(n).ok().and_then(|n| n.checked_mul(width)) != Some(fields.len()) {
        ctx.reply.error(NUMFIELDS);
        return None;
    }
    Some(fields)
}

/// Where FIELDS stands, from argument `from` on.
fn find_fields(ctx: &mut Ctx<'_, '_>, from: usize) -> Option<usize> {
    let found = (from..ctx.args.len()).find(|i| ctx.is_word(*i, "fields"));
    if found.is_none() {
        ctx.reply.error(NUMFIELDS);
    }
    found
}

/// A time argument as unix milliseconds; an error has been replied when it is before the beginning of time, or beyond what
/// can be counted.
fn time_arg(ctx: &mut Ctx<'_, '_>, i: usize, unit_ms: i64, relative: bool) -> Option<i64> {
    let n = ctx.int_arg(i)?;
    let base = if relative { ctx.db.now_ms() } else { 0 };
    let at = n.checked_mul(unit_ms).and_then(|ms| ms.checked_add(base)).filter(|_| n >= 0);
    if at.is_none() {
        super::expiry_args::invalid(ctx);
    }
    at.map(|at| at.min(NEVER - 1))
}

/// The time has passed, and it is this member that decides what that means.
fn is_past(ctx: &Ctx<'_, '_>, at: i64) -> bool {
    at <= ctx.db.now_ms() && !ctx.db.env.sees_expired
}

/// Writes a request on some fields to the journal: the words, how many fields, and them.
fn propagate(ctx: &mut Ctx<'_, '_>, words: &[&[u8]], fields: &[&[u8]], width: usize) {
    let count = (fields.len() / width).to_string();
    let request = [words, &[b"FIELDS", count.as_bytes()], fields].concat();
    ctx.propagate(&request);
}

/// Fields went because they were given a time that has passed.
fn gone(ctx: &mut Ctx<'_, '_>, key: &[u8], fields: &[&[u8]]) {
    ctx.propagate(&[&[b"HDEL".as_slice(), key], fields].concat());
    count_lapsed(ctx, fields.len());
    ctx.modified_as(key, class::HASH, "hexpired");
}

/// Fields got another time; `past`: they went at once.
fn timed(ctx: &mut Ctx<'_, '_>, key: &[u8], fields: &[&[u8]], at: i64, past: bool) {
    if fields.is_empty() {
        return;
    }
    if past {
        return gone(ctx, key, fields);
    }
    let at = at.to_string();
    propagate(ctx, &[b"HPEXPIREAT", key, at.as_bytes()], fields, 1);
    ctx.modified_to(key, class::HASH, "hexpire");
}

fn persisted(ctx: &mut Ctx<'_, '_>, key: &[u8], fields: &[&[u8]]) {
    if !fields.is_empty() {
        propagate(ctx, &[b"HPERSIST", key], fields, 1);
        ctx.modified_to(key, class::HASH, "hpersist");
    }
}

fn hexpire(ctx: &mut Ctx<'_, '_>) {
    expire(ctx, 1000, true);
}

fn hpexpire(ctx: &mut Ctx<'_, '_>) {
    expire(ctx, 1, true);
}

fn hexpireat(ctx: &mut Ctx<'_, '_>) {
    expire(ctx, 1000, false);
}

fn hpexpireat(ctx: &mut Ctx<'_, '_>) {
    expire(ctx, 1, false);
}

/// `HEXPIRE key time [NX | XX | GT | LT] FIELDS numfields field ...`: for each field -2 without it, 0 when the condition is
/// not met, 1 when it got the time, 2 when it is gone.
fn expire(ctx: &mut Ctx<'_, '_>, unit_ms: i64, relative: bool) {
    let Some(from) = find_fields(ctx, 3) else { return };
    let Some(fields) = fields(ctx, from, 1) else { return };
    let Some(when) = conditions(ctx, 3..from) else { return };
    let Some(at) = time_arg(ctx, 2, unit_ms, relative) else { return };
    let (key, now, past) = (ctx.args[1], ctx.db.fields_ms(), is_past(ctx, at));
    let mut changed: Vec<&[u8]> = Vec::new();
    let done = ctx.db.update::<Hash, _>(key, |hash, _| {
        let mut change = |field: &&'_ [u8]| {
            let Some(time) = hash.at(now).time(field) else { return NO_FIELD };
            let has = (time != NEVER).then_some(time);
            if when.refuses(has, at) {
                return 0;
            }
            if past {
                hash.remove(field);
            } else {
                hash.set_time(field, at);
            }
            1 + i64::from(past)
        };
        let mut answers = Vec::with_capacity(fields.len());
        for field in fields {
            answers.push(change(field));
            if answers.last() > Some(&0) {
                changed.push(field);
            }
        }
        answers
    });
    match done {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(done) => answer(ctx, fields.len(), done),
    }
    timed(ctx, key, &changed, at, past);
}

/// A number for each field; without a hash, that it has none of them.
fn answer(ctx: &mut Ctx<'_, '_>, fields: usize, answers: Option<Vec<i64>>) {
    let answers = answers.unwrap_or_else(|| vec![NO_FIELD; fields]);
    ctx.reply.array(answers.len());
    answers.iter().for_each(|n| ctx.reply.int(*n));
}

/// `HTTL key FIELDS numfields field ...`: for each field what `show` makes of its time, or that there is none.
fn show(ctx: &mut Ctx<'_, '_>, show: impl Fn(i64) -> i64) {
    if !ctx.is_word(2, "fields") {
        return ctx.reply.syntax_error();
    }
    let Some(n) = ctx.int_arg(3) else { return };
    let (key, fields) = (ctx.args[1], &ctx.args[4..]);
    if usize::try_from(n) != Ok(fields.len()) {
        return ctx.reply.syntax_error();
    }
    let hash = match view(ctx.db, key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(hash) => hash,
    };
    ctx.reply.array(fields.len());
    for field in fields {
        ctx.reply.int(match hash.and_then(|hash| hash.time(field)) {
            None => NO_FIELD,
            Some(NEVER) => NO_TIME,
            Some(at) => show(at),
        });
    }
}

fn httl(ctx: &mut Ctx<'_, '_>) {
    let now = ctx.db.now_ms();
    show(ctx, |at| (at - now).max(0).saturating_add(500) / 1000);
}

fn hpttl(ctx: &mut Ctx<'_, '_>) {
    let now = ctx.db.now_ms();
    show(ctx, |at| (at - now).max(0));
}

fn hexpiretime(ctx: &mut Ctx<'_, '_>) {
    show(ctx, |at| at.saturating_add(500) / 1000);
}

fn hpexpiretime(ctx: &mut Ctx<'_, '_>) {
    show(ctx, |at| at);
}

/// `HPERSIST key FIELDS numfields field ...`: for each field -2 without it, -1 when it has no time, 1 when it had one.
fn hpersist(ctx: &mut Ctx<'_, '_>) {
    if !ctx.is_word(2, "fields") {
        return ctx.reply.syntax_error();
    }
    let Some(fields) = fields(ctx, 2, 1) else { return };
    let (key, now) = (ctx.args[1], ctx.db.fields_ms());
    let mut changed: Vec<&[u8]> = Vec::new();
    let done = ctx.db.update::<Hash, _>(key, |hash, _| {
        let mut answers = Vec::with_capacity(fields.len());
        for field in fields {
            answers.push(match hash.at(now).time(field) {
                None => NO_FIELD,
                Some(NEVER) => NO_TIME,
                Some(_) => {
                    hash.set_time(field, NEVER);
                    changed.push(field);
                    1
                }
            });
        }
        answers
    });
    match done {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(done) => answer(ctx, fields.len(), done),
    }
    persisted(ctx, key, &changed);
}

/// What a request says of the times of its fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Time {
    /// Nothing.
    Unsaid,
    /// They keep what they have.
    Keep,
    Persist,
    At(i64),
}

/// `EX`, `PX`, `EXAT` or `PXAT` with its time at argument `i`, with room before `end`. `before`: where there was one already;
/// the same word may come again. `None`: it is none of them; an error has been replied.
fn time_option(
    ctx: &mut Ctx<'_, '_>,
    i: usize,
    end: usize,
    before: &mut Option<usize>,
) -> Option<Time> {
    let known = [("ex", 1000, true), ("px", 1, true), ("exat", 1000, false), ("pxat", 1, false)];
    let unit = known.iter().find(|(word, ..)| ctx.is_word(i, word));
    match unit {
        Some((word, unit_ms, relative))
            if i + 1 < end && before.is_none_or(|at| ctx.is_word(at, word)) =>
        {
            *before = Some(i);
            time_arg(ctx, i + 1, *unit_ms, *relative).map(Time::At)
        }
        _ => {
            ctx.reply.syntax_error();
            None
        }
    }
}

/// `HGETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST] FIELDS numfields field ...`
fn hgetex(ctx: &mut Ctx<'_, '_>) {
    let Some(from) = find_fields(ctx, 2) else { return };
    let (mut time, mut before) = (Time::Unsaid, None);
    let mut i = 2;
    while i < from {
        if ctx.is_word(i, "persist") && before.is_none() {
            time = Time::Persist;
        } else if time == Time::Persist {
            return ctx.reply.syntax_error();
        } else {
            let Some(said) = time_option(ctx, i, from, &mut before) else { return };
            time = said;
            i += 1;
        }
        i += 1;
    }
    let Some(fields) = fields(ctx, from, 1) else { return };
    let (key, now) = (ctx.args[1], ctx.db.fields_ms());
    let values = match view(ctx.db, key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(hash) => fields
            .iter()
            .map(|field| hash.and_then(|hash| hash.get(field)).map(Item::to_vec))
            .collect::<Vec<_>>(),
    };
    ctx.reply.array(values.len());
    for value in &values {
        match value {
            Some(value) => ctx.reply.bulk(value),
            None => ctx.reply.null(),
        }
    }
    let at = match time {
        Time::Unsaid | Time::Keep => return,
        Time::Persist => NEVER,
        Time::At(at) => at,
    };
    let past = at != NEVER && is_past(ctx, at);
    // The type was checked above, under the same lock.
    let changed = ctx.db.update::<Hash, _>(key, |hash, _| {
        let mut change = |field: &&&[u8]| match hash.at(now).time(field) {
            None => false,
            Some(NEVER) if at == NEVER => false,
            Some(_) if past => hash.remove(field),
            Some(_) => hash.set_time(field, at),
        };
        fields.iter().filter(&mut change).copied().collect::<Vec<_>>()
    });
    let changed = changed.ok().flatten().unwrap_or_default();
    match time {
        Time::Persist => persisted(ctx, key, &changed),
        _ => timed(ctx, key, &changed, at, past),
    }
}

/// What must be, or must not be, for HSETEX to do anything.
#[derive(Clone, Copy, Default)]
struct Wanted {
    key: Option<bool>,
    /// All of the fields.
    fields: Option<bool>,
}

/// `HSETEX key [NX | XX] [FNX | FXX] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL] FIELDS numfields field value ...`
fn hsetex(ctx: &mut Ctx<'_, '_>) {
    let Some(from) = find_fields(ctx, 2) else { return };
    let (mut time, mut before, mut wanted) = (Time::Unsaid, None, Wanted::default());
    let mut i = 2;
    while i < from {
        if ctx.is_word(i, "nx") && wanted.key != Some(true) {
            wanted.key = Some(false);
        } else if ctx.is_word(i, "xx") && wanted.key != Some(false) {
            wanted.key = Some(true);
        } else if ctx.is_word(i, "fnx") && wanted.fields != Some(true) {
            wanted.fields = Some(false);
        } else if ctx.is_word(i, "fxx") && wanted.fields != Some(false) {
            wanted.fields = Some(true);
        } else if ctx.is_word(i, "keepttl") && before.is_none() {
            time = Time::Keep;
        } else if time == Time::Keep {
            return ctx.reply.syntax_error();
        } else {
            let Some(said) = time_option(ctx, i, from, &mut before) else { return };
            time = said;
            i += 1;
        }
        i += 1;
    }
    let Some(pairs) = fields(ctx, from, 2) else { return };
    let key = ctx.args[1];
    let there = ctx.db.exists(key);
    let hash = match view(ctx.db, key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(hash) => hash,
    };
    let has = |pair: &[&[u8]]| hash.is_some_and(|hash| hash.contains(pair[0]));
    let met = wanted.key.is_none_or(|wanted| wanted == there)
        && wanted.fields.is_none_or(|wanted| pairs.chunks_exact(2).all(|pair| has(pair) == wanted));
    if met {
        match time {
            Time::At(at) if is_past(ctx, at) => set_in_vain(ctx, key, pairs),
            _ => set(ctx, key, pairs, time),
        }
    }
    ctx.reply.int(i64::from(met));
}

fn set(ctx: &mut Ctx<'_, '_>, key: &[u8], pairs: &[&[u8]], time: Time) {
    let now = ctx.db.fields_ms();
    let (mut lapsed, mut kept, mut fresh) = (0, Vec::new(), Vec::new());
    // The type was checked by the caller, under the same lock.
    let done = ctx.db.upsert::<Hash, _>(key, |hash, limits| {
        for pair in pairs.chunks_exact(2) {
            let over = is_over(hash, pair[0], now);
            lapsed += usize::from(over);
            match time {
                Time::At(at) => hash.set_until(pair[0], pair[1], at, limits),
                Time::Keep if !over => hash.set_value(pair[0], pair[1], limits),
                _ => hash.set(pair[0], pair[1], limits),
            };
            let stays = time == Time::Keep && !over;
            if stays { &mut kept } else { &mut fresh }.extend_from_slice(pair);
        }
    });
    if done.is_err() {
        return;
    }
    note_lapsed(ctx, key, lapsed);
    if let Time::At(at) = time {
        let at = at.to_string();
        propagate(ctx, &[b"HSETEX", key, b"PXAT", at.as_bytes()], &fresh, 2);
    } else if !fresh.is_empty() {
        // One whose time was over must not keep it elsewhere.
        ctx.propagate(&[&[b"HSET".as_slice(), key], fresh.as_slice()].concat());
    }
    if !kept.is_empty() {
        propagate(ctx, &[b"HSETEX", key, b"KEEPTTL"], &kept, 2);
    }
    ctx.modified_to(key, class::HASH, "hset");
    if matches!(time, Time::At(_)) {
        ctx.db.note_event(class::HASH, "hexpire", key);
    }
}

/// The time of the fields has passed already: what was there under their names goes.
fn set_in_vain(ctx: &mut Ctx<'_, '_>, key: &[u8], pairs: &[&[u8]]) {
    ctx.db.note_event(class::HASH, "hset", key);
    ctx.db.note_event(class::HASH, "hexpire", key);
    let removed = ctx.db.update::<Hash, _>(key, |hash, _| {
        let fields = pairs.iter().step_by(2).copied();
        fields.filter(|field| hash.remove(field)).collect::<Vec<_>>()
    });
    match removed.ok().flatten().unwrap_or_default() {
        none if none.is_empty() => {
            ctx.db.note_event(class::HASH, "hexpired", key);
            super::events::note_emptied(ctx.db, key);
        }
        removed => gone(ctx, key, &removed),
    }
}
