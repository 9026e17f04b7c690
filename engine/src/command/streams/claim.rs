//! XCLAIM and XAUTOCLAIM: entries change hands.

use super::super::{Ctx, exec::printable};
use super::{args, no_group, read, reply_entry, reply_id};
use crate::keyspace::WrongType;
use crate::notify::class;
use crate::resp::Reply;
use crate::types::stream::{ConsumerId, Group, Log};
use crate::types::{Stream, StreamId};

/// How many pending entries XAUTOCLAIM looks at for each that it may take.
const LOOKED_AT_FACTOR: i64 = 10;

/// What claiming has changed, for the journal.
#[derive(Default)]
struct Change {
    added: bool,
    pending: Vec<(StreamId, i64, u64)>,
    /// Forgotten, because the entries are deleted.
    deleted: Vec<StreamId>,
    advanced: Option<StreamId>,
    read: Option<u64>,
}

/// Options of XCLAIM.
struct Options {
    ids: Vec<StreamId>,
    idle_ms: i64,
    delivered_ms: Option<i64>,
    count: Option<u64>,
    force: bool,
    just_id: bool,
    last_id: Option<StreamId>,
}

/// The group is there; the error is already replied when it is not.
fn check_group(ctx: &mut Ctx<'_, '_>) -> bool {
    let (key, name) = (ctx.args[1], ctx.args[2]);
    match ctx.db.read::<Stream>(key) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(stream) if stream.and_then(|stream| stream.group(name)).is_some() => return true,
        Ok(_) => no_group(ctx, key, name, ""),
    }
    false
}

pub(super) fn xclaim(ctx: &mut Ctx<'_, '_>) {
    if !check_group(ctx) {
        return;
    }
    let Some(options) = options(ctx) else { return };
    let (key, name, consumer_name) = (ctx.args[1], ctx.args[2], ctx.args[3]);
    let now = ctx.db.now_ms();
    let reply = &mut *ctx.reply;
    let change = ctx.db.update::<Stream, _>(key, |stream, _| {
        stream.change_group(name, |log, group| {
            let mut change = Change::default();
            if let Some(id) = options.last_id.filter(|id| *id > group.last_id) {
                group.last_id = id;
                change.advanced = Some(id);
            }
            let (consumer, added) = group.hear(consumer_name, now);
            change.added = added;
            let begin = reply.begin();
            let mut n = 0;
            for &id in &options.ids {
                n +=
                    usize::from(claim(reply, log, group, consumer, id, now, &options, &mut change));
            }
            reply.end_array(begin, n);
            change.read = group.entries_read;
            change
        })
    });
    if let Ok(Some(Some(change))) = change {
        tell(ctx, &change);
    }
}

fn options(ctx: &mut Ctx<'_, '_>) -> Option<Options> {
    let idle_ms = args::number(ctx, 4, "ERR Invalid min-idle-time argument for XCLAIM")?.max(0);
    let ids: Vec<StreamId> =
        ctx.args[5..].iter().map_while(|text| StreamId::parse(text, 0)).collect();
    let mut i = 5 + ids.len();
    let mut options = Options {
        ids,
        idle_ms,
        delivered_ms: None,
        count: None,
        force: false,
        just_id: false,
        last_id: None,
    };
    let now = ctx.db.now_ms();
    while i < ctx.args.len() {
        let more = i + 1 < ctx.args.len();
        if ctx.is_word(i, "force") {
            options.force = true;
        } else if ctx.is_word(i, "justid") {
            options.just_id = true;
        } else if more && ctx.is_word(i, "idle") {
            i += 1;
            let idle = args::number(ctx, i, "ERR Invalid IDLE option argument for XCLAIM")?;
            options.delivered_ms = Some(now.saturating_sub(idle));
        } else if more && ctx.is_word(i, "time") {
            i += 1;
            options.delivered_ms =
                Some(args::number(ctx, i, "ERR Invalid TIME option argument for XCLAIM")?);
        } else if more && ctx.is_word(i, "retrycount") {
            i += 1;
            let count = args::number(ctx, i, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
            options.count = u64::try_from(count).ok();
        } else if more && ctx.is_word(i, "lastid") {
            i += 1;
            options.last_id = Some(args::id(ctx, i, 0)?);
        } else {
            let option = printable(ctx.args[i]);
            ctx.reply.error(&format!("ERR Unrecognized XCLAIM option '{option}'"));
            return None;
        }
        i += 1;
    }
    Some(options)
}

/// Gives one entry to a consumer and replies it; `false` when it stays where it is, or is gone.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one claim, taken apart for the borrow checker"
)]
fn claim(
    reply: &mut Reply,
    log: &Log,
    group: &mut Group,
    consumer: ConsumerId,
    id: StreamId,
    now: i64,
    options: &Options,
    change: &mut Change,
) -> bool {
    let pending = group.pending(id).copied();
    let Some(entry) = log.get(id) else {
        if group.acknowledge(id) {
            change.deleted.push(id);
        }
        return false;
    };
    let before = match pending {
        // Made by FORCE, it counts as delivered once already.
        None if options.force => 1,
        None => return false,
        Some(pending) => {
            let idle = now.saturating_sub(pending.delivered_ms);
            if options.idle_ms > 0 && idle < options.idle_ms {
                return false;
            }
            pending.count
        }
    };
    // A time out of the possible is not refused: clients count it from their own clocks.
    let at = options.delivered_ms.filter(|at| (0..=now).contains(at)).unwrap_or(now);
    let count = match options.count {
        Some(count) => count,
        None if options.just_id => before,
        None => before.saturating_add(1),
    };
    group.assign(id, at, count, consumer);
    group.consumer_mut(consumer).active_ms = now;
    change.pending.push((id, at, count));
    if options.just_id {
        reply_id(reply, id);
    } else {
        reply_entry(reply, &entry);
    }
    true
}

pub(super) fn xautoclaim(ctx: &mut Ctx<'_, '_>) {
    let invalid = "ERR Invalid min-idle-time argument for XAUTOCLAIM";
    let Some(idle_ms) = args::number(ctx, 4, invalid).map(|ms| ms.max(0)) else { return };
    let Some(start) = args::start(ctx, 5) else { return };
    let (mut most, mut just_id) = (100, false);
    let mut i = 6;
    while i < ctx.args.len() {
        if i + 1 < ctx.args.len() && ctx.is_word(i, "count") {
            // The largest number whose multiples below are numbers still.
            match crate::number::parse_i64(ctx.args[i + 1]) {
                Some(n) if (1..=i64::MAX / 16).contains(&n) => most = n,
                _ => return ctx.reply.error("ERR COUNT must be > 0"),
            }
            i += 1;
        } else if ctx.is_word(i, "justid") {
            just_id = true;
        } else {
            return ctx.reply.syntax_error();
        }
        i += 1;
    }
    if !check_group(ctx) {
        return;
    }
    let options = Options {
        ids: Vec::new(),
        idle_ms,
        delivered_ms: None,
        count: None,
        force: false,
        just_id,
        last_id: None,
    };
    let (key, name, consumer_name) = (ctx.args[1], ctx.args[2], ctx.args[3]);
    let now = ctx.db.now_ms();
    let reply = &mut *ctx.reply;
    let change = ctx.db.update::<Stream, _>(key, |stream, _| {
        stream.change_group(name, |log, group| {
            let (consumer, added) = group.hear(consumer_name, now);
            let mut change = Change { added, ..Change::default() };
            sweep(reply, log, group, consumer, now, (start, most), &options, &mut change);
            change
        })
    });
    if let Ok(Some(Some(change))) = change {
        tell(ctx, &change);
    }
}

/// Walks the pending entries and takes over those that have waited; replies all three parts.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one claim, taken apart for the borrow checker"
)]
fn sweep(
    reply: &mut Reply,
    log: &Log,
    group: &mut Group,
    consumer: ConsumerId,
    now: i64,
    (start, most): (StreamId, i64),
    options: &Options,
    change: &mut Change,
) {
    let begin = reply.begin();
    let (mut next, mut taken, mut left) = (Some(start), 0, most);
    for _ in 0..most.saturating_mul(LOOKED_AT_FACTOR) {
        let found = next.and_then(|from| group.pending_from(from).next()).map(|(id, _)| id);
        let Some(id) = found.filter(|_| left > 0) else { break };
        let deleted = change.deleted.len();
        let claimed = claim(reply, log, group, consumer, id, now, options, change);
        taken += usize::from(claimed);
        // What is gone counts too: it is in the reply.
        left -= i64::from(claimed || change.deleted.len() > deleted);
        next = id.next();
    }
    let cursor = next.and_then(|from| group.pending_from(from).next()).map(|(id, _)| id);
    // The cursor stands before what it was found by.
    let entries = reply.out.split_off(begin);
    reply.array(3);
    reply_id(reply, cursor.unwrap_or_default());
    reply.array(taken);
    reply.out.extend_from_slice(&entries);
    reply.array(change.deleted.len());
    change.deleted.iter().for_each(|id| reply_id(reply, *id));
}

/// Writes to the journal what claiming has changed.
fn tell(ctx: &mut Ctx<'_, '_>, change: &Change) {
    let (key, name, consumer) = (ctx.args[1], ctx.args[2], ctx.args[3]);
    let nothing = !change.added
        && change.pending.is_empty()
        && change.deleted.is_empty()
        && change.advanced.is_none();
    if nothing {
        return;
    }
    // Nothing that anybody waits for has changed.
    ctx.dirty += 1;
    if change.added {
        ctx.db.note_event(class::STREAM, "xgroup-createconsumer", key);
        ctx.propagate(&[b"XGROUP", b"CREATECONSUMER", key, name, consumer]);
    }
    for id in &change.deleted {
        ctx.propagate(&[b"XACK", key, name, &id.text()]);
    }
    read::claimed(ctx, key, name, consumer, change.advanced, &change.pending);
    if let Some(id) = change.advanced {
        let read = change.read.map_or(-1, |read| read as i64).to_string();
        ctx.propagate(&[
            b"XGROUP",
            b"SETID",
            key,
            name,
            &id.text(),
            b"ENTRIESREAD",
            read.as_bytes(),
        ]);
    }
}
