//! Stream commands: XADD and what reads, cuts and deletes entries; in modules, reading by groups and what shows them.

use smallvec::SmallVec;

use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::WrongType;
use crate::notify::class;
use crate::resp::Reply;
use crate::types::stream::{ENTRY_BYTES_MAX, EntryRef, ParseId, Trim, TrimTo};
use crate::types::{Limits, Stream, StreamId};

mod args;
mod claim;
mod delete;
mod groups;
mod info;
mod read;

use args::{Options, count, end, ids, start};
use delete::Cut;

const fn row(
    name: &'static str,
    arity: i16,
    flags: u32,
    keys: Keys,
    since: &'static str,
    summary: &'static str,
    run: super::Handler,
) -> Command {
    Command::new(name, arity, flags, keys, Group::Stream, since, summary, run)
}

const READ: u32 = flag::READONLY;
const READ_FAST: u32 = flag::READONLY | flag::FAST;
const WRITE: u32 = flag::WRITE;
const WRITE_FAST: u32 = flag::WRITE | flag::FAST;
const GROW_FAST: u32 = flag::WRITE | flag::DENYOOM | flag::FAST;
const ONE: Keys = Keys::FIRST;
const SECOND: Keys = Keys::Range { first: 2, last: 2, step: 1 };
const LISTED: Keys = Keys::Custom(listed_keys);

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    row("xadd", -5, GROW_FAST, ONE, "5.0.0", "Appends an entry.", xadd),
    row("xlen", 2, READ_FAST, ONE, "5.0.0", "Returns the number of entries.", xlen),
    row("xrange", -4, READ, ONE, "5.0.0", "Returns the entries between two IDs.", xrange),
    row("xrevrange", -4, READ, ONE, "5.0.0", "Returns the entries between two IDs, last first.", xrange),
    row("xdel", -3, WRITE_FAST, ONE, "5.0.0", "Deletes entries.", xdel),
    row("xdelex", -5, WRITE_FAST, ONE, "8.2.0", "Deletes entries, with a say in who refers to them.", delete::xdelex),
    row("xackdel", -6, WRITE_FAST, ONE, "8.2.0", "Acknowledges entries of a group and deletes them.", delete::xackdel),
    row("xtrim", -4, WRITE, ONE, "5.0.0", "Deletes the oldest entries.", xtrim),
    row("xsetid", -3, GROW_FAST, ONE, "5.0.0", "Sets the last ID (for replication).", xsetid),
    row("xread", -4, READ | flag::BLOCKING | flag::MOVABLE_KEYS, LISTED, "5.0.0", "Returns the entries behind given IDs, or waits.", read::xread),
    row("xreadgroup", -7, WRITE | flag::BLOCKING | flag::MOVABLE_KEYS, LISTED, "5.0.0", "Reads as one of a group, or waits.", read::xread),
    row("xgroup", -2, WRITE | flag::DENYOOM, SECOND, "5.0.0", "Makes, changes and destroys groups and consumers.", groups::xgroup),
    row("xack", -4, WRITE_FAST, ONE, "5.0.0", "Acknowledges entries that a group was given.", groups::xack),
    row("xpending", -3, READ, ONE, "5.0.0", "Shows the entries that wait to be acknowledged.", groups::xpending),
    row("xclaim", -6, WRITE_FAST, ONE, "5.0.0", "Takes over entries that wait to be acknowledged.", claim::xclaim),
    row("xautoclaim", -6, WRITE_FAST, ONE, "6.2.0", "Takes over the entries that have waited long.", claim::xautoclaim),
    row("xinfo", -2, READ, SECOND, "5.0.0", "Shows a stream, its groups and consumers.", info::xinfo),
];

/// The first half of what follows STREAMS.
fn listed_keys(args: &[&[u8]]) -> SmallVec<[usize; 8]> {
    let mut i = 1;
    while i < args.len() {
        let is = |word: &str| args[i].eq_ignore_ascii_case(word.as_bytes());
        if is("block") || is("count") {
            i += 2;
        } else if is("group") {
            i += 3;
        } else if is("noack") {
            i += 1;
        } else if is("streams") {
            let listed = args.len() - i - 1;
            return if listed.is_multiple_of(2) {
                (i + 1..i + 1 + listed / 2).collect()
            } else {
                SmallVec::new()
            };
        } else {
            break;
        }
    }
    SmallVec::new()
}

fn reply_id(reply: &mut Reply, id: StreamId) {
    reply.bulk(&id.text());
}

/// An entry: its ID, then fields and values in turn.
fn reply_entry(reply: &mut Reply, entry: &EntryRef<'_>) {
    reply.array(2);
    reply_id(reply, entry.id);
    reply.array(entry.len() * 2);
    for (field, value) in entry.fields() {
        reply.item(field);
        reply.item(value);
    }
}

/// An entry that a consumer was given and that is deleted since.
fn reply_deleted(reply: &mut Reply, id: StreamId) {
    reply.array(2);
    reply_id(reply, id);
    reply.null_array();
}

/// Up to `most` entries (0: all), as an array.
fn reply_entries<'a>(reply: &mut Reply, entries: impl Iterator<Item = EntryRef<'a>>, most: u64) {
    let begin = reply.begin();
    let mut n = 0;
    for entry in entries {
        reply_entry(reply, &entry);
        n += 1;
        if n as u64 == most {
            break;
        }
    }
    reply.end_array(begin, n);
}

const EXHAUSTED: &str =
    "ERR The stream has exhausted the last possible ID, unable to add more items";
const NOT_BEHIND: &str =
    "ERR The ID specified in XADD is equal or smaller than the target stream top item";

/// The ID of an entry that is added behind `last`.
fn new_id(last: StreamId, wanted: Option<ParseId>, now_ms: i64) -> Result<StreamId, &'static str> {
    if last == StreamId::MAX {
        return Err(EXHAUSTED);
    }
    let id = match wanted {
        None => last.next_at(now_ms),
        Some(ParseId::Whole(id)) => Some(id),
        Some(ParseId::Partial(ms)) if ms == last.ms => {
            last.seq.checked_add(1).map(|seq| StreamId { ms, seq })
        }
        Some(ParseId::Partial(ms)) => Some(StreamId { ms, seq: 0 }),
    };
    id.filter(|id| *id > last).ok_or(NOT_BEHIND)
}

/// What is left after a cut, in place of how it was made: the same wherever it is applied.
fn exact_trim(stream: &Stream, trim: &Trim) -> [Vec<u8>; 3] {
    let (word, to): (&[u8], _) = match trim.to {
        TrimTo::Id(_) if !stream.is_empty() => (b"MINID", stream.log().first_id().to_vec()),
        _ => (b"MAXLEN", stream.len().to_string().into_bytes()),
    };
    [word.to_vec(), b"=".to_vec(), to]
}

fn xadd(ctx: &mut Ctx<'_, '_>) {
    let (key, now) = (ctx.args[1], ctx.db.now_ms());
    let Some(Options { trim, refs, make, id: wanted, id_at }) = Options::parse(ctx, true) else {
        return;
    };
    let pairs = ctx.args.get(id_at + 1..).unwrap_or_default();
    if pairs.is_empty() || pairs.len() % 2 == 1 {
        return ctx.wrong_arity();
    }
    if wanted == Some(ParseId::Whole(StreamId::MIN)) {
        return ctx.reply.error("ERR The ID specified in XADD must be greater than 0-0");
    }
    if !ctx.db.exists(key) && !make {
        return ctx.reply.null();
    }
    let bytes: usize = pairs.iter().map(|part| part.len()).sum();
    if bytes > ENTRY_BYTES_MAX {
        return ctx.reply.error("ERR Elements are too large to be stored");
    }
    let add = |stream: &mut Stream, limits: &Limits| {
        let id = new_id(stream.log().last_id, wanted, now)?;
        stream.log_mut().append(id, pairs, limits);
        Ok((id, trim.map(|trim| Cut::make(stream, &trim, refs))))
    };
    match ctx.db.upsert::<Stream, _>(key, add) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(Err(error)) => ctx.reply.error(error),
        Ok(Ok((id, cut))) => {
            let text = id.text();
            ctx.reply.bulk(&text);
            ctx.modified(key);
            if cut.as_ref().is_some_and(|cut| cut.gone > 0) {
                ctx.db.note_event(class::STREAM, "xtrim", key);
            }
            if trim.is_some() || !matches!(wanted, Some(ParseId::Whole(_))) {
                let mut request: Vec<&[u8]> = vec![b"XADD", key];
                let left = cut.as_ref().and_then(|cut| cut.left.as_ref());
                request.extend(left.into_iter().flatten().map(Vec::as_slice));
                request.push(&text);
                request.extend_from_slice(pairs);
                ctx.propagate(&request);
                if let Some(cut) = &cut {
                    cut.journal_rest(ctx);
                }
            }
        }
    }
}

fn xlen(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.read::<Stream>(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(stream) => ctx.reply.int(stream.map_or(0, Stream::len) as i64),
    }
}

/// XRANGE and XREVRANGE.
fn xrange(ctx: &mut Ctx<'_, '_>) {
    let backwards = ctx.command.name == "xrevrange";
    let (start_at, end_at) = if backwards { (3, 2) } else { (2, 3) };
    let Some(from) = start(ctx, start_at) else { return };
    let Some(to) = end(ctx, end_at) else { return };
    let mut most = None;
    let mut i = 4;
    while i < ctx.args.len() {
        if !ctx.is_word(i, "count") || i + 1 >= ctx.args.len() {
            return ctx.reply.syntax_error();
        }
        most = match count(ctx, i + 1) {
            None => return,
            some => some,
        };
        i += 2;
    }
    match (ctx.db.read::<Stream>(ctx.args[1]), most) {
        (Err(WrongType), _) => ctx.reply.wrong_type(),
        (Ok(None), _) => ctx.reply.array(0),
        (Ok(Some(_)), Some(0)) => ctx.reply.null_array(),
        (Ok(Some(stream)), most) => {
            let range = stream.log().range(from, to, backwards);
            reply_entries(ctx.reply, range, most.unwrap_or(0));
        }
    }
}

fn xdel(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    match ctx.db.read::<Stream>(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(None) => return ctx.reply.int(0),
        Ok(Some(_)) => {}
    }
    let Some(ids) = ids(ctx, 2) else { return };
    let gone = ctx.db.update::<Stream, _>(key, |stream, _| {
        ids.iter().filter(|id| stream.log_mut().delete(**id)).count()
    });
    let gone = gone.ok().flatten().unwrap_or(0);
    if gone > 0 {
        ctx.modified(key);
    }
    ctx.reply.int(gone as i64);
}

fn xtrim(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    let Some(Options { trim: Some(trim), refs, .. }) = Options::parse(ctx, false) else { return };
    let cut = ctx.db.update::<Stream, _>(key, |stream, _| Cut::make(stream, &trim, refs));
    match cut {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(None) => ctx.reply.int(0),
        Ok(Some(cut)) => {
            if cut.gone > 0 {
                ctx.modified(key);
                if let Some([word, sign, to]) = &cut.left {
                    ctx.propagate(&[b"XTRIM", key, word, sign, to]);
                }
                cut.journal_rest(ctx);
            }
            ctx.reply.int(cut.gone as i64);
        }
    }
}

fn xsetid(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    let Some(id) = args::id(ctx, 2, 0) else { return };
    let (mut added, mut deleted) = (None, None);
    let mut i = 3;
    while i < ctx.args.len() {
        if i + 1 < ctx.args.len() && ctx.is_word(i, "entriesadded") {
            match ctx.int_arg(i + 1) {
                None => return,
                Some(n) if n < 0 => return ctx.reply.error("ERR entries_added must be positive"),
                Some(n) => added = Some(n as u64),
            }
        } else if i + 1 < ctx.args.len() && ctx.is_word(i, "maxdeletedid") {
            deleted = args::id(ctx, i + 1, 0);
            match deleted {
                None => return,
                Some(deleted) if id < deleted => {
                    return ctx.reply.error(
                        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                    );
                }
                Some(_) => {}
            }
        } else {
            return ctx.reply.syntax_error();
        }
        i += 2;
    }
    let set = ctx.db.update::<Stream, _>(key, |stream, _| {
        let log = stream.log_mut();
        if id < log.max_deleted_id {
            return Err("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id");
        }
        if log.last_live().is_some_and(|last| id < last) {
            return Err("ERR The ID specified in XSETID is smaller than the target stream top item");
        }
        if !log.is_empty() && added.is_some_and(|added| added < log.len() as u64) {
            return Err(
                "ERR The entries_added specified in XSETID is smaller than the target stream length",
            );
        }
        log.last_id = id;
        log.entries_added = added.unwrap_or(log.entries_added);
        if let Some(deleted) = deleted.filter(|id| *id != StreamId::MIN) {
            log.max_deleted_id = deleted;
        }
        Ok(())
    });
    match set {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(None) => ctx.reply.error(super::keys::NO_SUCH_KEY),
        Ok(Some(Err(error))) => ctx.reply.error(error),
        Ok(Some(Ok(()))) => {
            ctx.modified(key);
            ctx.reply.ok();
        }
    }
}

/// `NOGROUP`, as the commands that need a group say it.
fn no_group(ctx: &mut Ctx<'_, '_>, key: &[u8], group: &[u8], tail: &str) {
    let (key, group) = (super::exec::printable(key), super::exec::printable(group));
    ctx.reply.error(&format!("NOGROUP No such key '{key}' or consumer group '{group}'{tail}"));
}
