//! XREAD and XREADGROUP, waiting included.
//!
//! A client that waits is tried again whenever one of its keys changes. What it said by `$` and `+` is fixed when it
//! begins to wait; `>` is asked of the group each time. A key or group that goes away ends the wait of XREADGROUP.

use super::super::Ctx;
use super::{args, no_group, reply_deleted, reply_entries, reply_entry};
use crate::keyspace::WrongType;
use crate::notify::class;
use crate::number::parse_i64;
use crate::resp::Reply;
use crate::types::stream::{ConsumerId, Group, Log};
use crate::types::{Stream, StreamId};
use crate::waiters::OnTimeout;

/// IDs in one request to the journal.
const CLAIMED_MAX: usize = 1000;

/// What is asked for.
struct Request<'a> {
    keys: &'a [&'a [u8]],
    ids: &'a [&'a [u8]],
    ids_at: usize,
    /// 0: all.
    most: u64,
    /// When to give up waiting (0: never); nothing: not to wait.
    deadline: Option<i64>,
    group: Option<(&'a [u8], &'a [u8])>,
    no_ack: bool,
}

/// From where on a stream is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Behind(StreamId),
    /// Behind what the group was given last.
    New,
}

impl<'a> Request<'a> {
    fn parse(ctx: &mut Ctx<'a, '_>) -> Option<Request<'a>> {
        let args = ctx.args;
        let grouped = ctx.command.name == "xreadgroup";
        let mut request = Request {
            keys: &[],
            ids: &[],
            ids_at: 0,
            most: 0,
            deadline: None,
            group: None,
            no_ack: false,
        };
        let mut i = 1;
        while i < args.len() {
            let more = args.len() - 1 - i;
            if more > 0 && ctx.is_word(i, "block") {
                request.deadline = Some(deadline(ctx, i + 1)?);
                i += 1;
            } else if more > 0 && ctx.is_word(i, "count") {
                request.most = args::count(ctx, i + 1)?;
                i += 1;
            } else if more > 0 && ctx.is_word(i, "streams") {
                if !more.is_multiple_of(2) {
                    let (name, symbol) = if grouped { ("xreadgroup", '>') } else { ("xread", '$') };
                    ctx.reply.error(&format!(
                        "ERR Unbalanced '{name}' list of streams: for each stream key an ID or '{symbol}' \
                         must be specified."
                    ));
                    return None;
                }
                (request.keys, request.ids) = args[i + 1..].split_at(more / 2);
                request.ids_at = i + 1 + more / 2;
                break;
            } else if more > 1 && ctx.is_word(i, "group") {
                if !grouped {
                    return only_for_groups(ctx, "GROUP");
                }
                request.group = Some((args[i + 1], args[i + 2]));
                i += 2;
            } else if ctx.is_word(i, "noack") {
                if !grouped {
                    return only_for_groups(ctx, "NOACK");
                }
                request.no_ack = true;
            } else {
                ctx.reply.syntax_error();
                return None;
            }
            i += 1;
        }
        if request.keys.is_empty() {
            ctx.reply.syntax_error();
            return None;
        }
        if grouped && request.group.is_none() {
            ctx.reply.error("ERR Missing GROUP option for XREADGROUP");
            return None;
        }
        Some(request)
    }

    /// Where each stream is to be read from. The error is already replied when there is none.
    fn resolve(&self, ctx: &mut Ctx<'_, '_>) -> Option<Vec<From>> {
        let mut found = Vec::with_capacity(self.keys.len());
        for (&key, &text) in self.keys.iter().zip(self.ids) {
            let stream = match ctx.db.read::<Stream>(key) {
                Ok(stream) => stream,
                // A key of another type has woken the client for nothing.
                Err(WrongType) if ctx.retry && self.group.is_none() => None,
                Err(WrongType) => {
                    ctx.reply.wrong_type();
                    return None;
                }
            };
            if let Some((group, _)) = self.group
                && stream.and_then(|stream| stream.group(group)).is_none()
            {
                no_group(ctx, key, group, " in XREADGROUP with GROUP option");
                return None;
            }
            let log = stream.map(Stream::log);
            found.push(match (text, self.group.is_some()) {
                (b"$" | b"+", true) => {
                    let symbol = char::from(text[0]);
                    ctx.reply.error(&format!(
                        "ERR The {symbol} ID is meaningless in the context of XREADGROUP: you want to read the \
                         history of this consumer by specifying a proper ID, or use the > ID to get new \
                         messages. The {symbol} ID would just return an empty result set."
                    ));
                    return None;
                }
                (b"$", false) => From::Behind(log.map_or(StreamId::MIN, |log| log.last_id)),
                (b"+", false) => From::Behind(log.map_or(StreamId::MIN, before_last)),
                (b">", true) => From::New,
                (b">", false) => {
                    ctx.reply.error(
                        "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> \
                         <consumer> option.",
                    );
                    return None;
                }
                _ => match StreamId::parse(text, 0) {
                    // The highest ID is how `>` is said to others.
                    Some(StreamId::MAX) if self.group.is_some() => From::New,
                    Some(id) => From::Behind(id),
                    None => {
                        ctx.reply.error(args::INVALID_ID);
                        return None;
                    }
                },
            });
        }
        Some(found)
    }
}

fn only_for_groups<T>(ctx: &mut Ctx<'_, '_>, option: &str) -> Option<T> {
    ctx.reply.error(&format!(
        "ERR The {option} option is only supported by XREADGROUP. You called XREAD instead."
    ));
    None
}

/// The ID behind which there is the last entry; where there is none, the last ID.
fn before_last(log: &Log) -> StreamId {
    log.last_live().and_then(StreamId::prev).unwrap_or(log.last_id)
}

/// Milliseconds to wait, as the moment when they are over (0: never).
fn deadline(ctx: &mut Ctx<'_, '_>, i: usize) -> Option<i64> {
    let now = ctx.db.now_ms();
    let refused = match parse_i64(ctx.args[i]) {
        None => "ERR timeout is not an integer or out of range",
        Some(0) => return Some(0),
        Some(ms) if ms < 0 => "ERR timeout is negative",
        Some(ms) => match ms.checked_add(now) {
            Some(at) => return Some(at),
            None => "ERR timeout is out of range",
        },
    };
    ctx.reply.error(refused);
    None
}

/// XREAD and XREADGROUP.
pub(super) fn xread(ctx: &mut Ctx<'_, '_>) {
    let Some(request) = Request::parse(ctx) else { return };
    let Some(from) = request.resolve(ctx) else { return };
    let begin = ctx.reply.begin();
    let mut served = 0;
    for (&key, &from) in request.keys.iter().zip(&from) {
        let found = match request.group {
            None => read(ctx, key, from, request.most),
            Some(group) => read_as(ctx, key, group, from, &request),
        };
        served += usize::from(found);
    }
    if served > 0 {
        if ctx.reply.resp3 {
            ctx.reply.end_map(begin, served);
        } else {
            ctx.reply.end_array(begin, served);
        }
        return;
    }
    match request.deadline {
        None => ctx.reply.null_array(),
        Some(deadline) => {
            let mut args: Vec<Vec<u8>> = ctx.args.iter().map(|arg| arg.to_vec()).collect();
            for (arg, from) in args[request.ids_at..].iter_mut().zip(&from) {
                if let From::Behind(id) = from {
                    *arg = id.to_vec();
                }
            }
            ctx.block_as(args, request.keys, deadline, OnTimeout::NullArray);
        }
    }
}

fn reply_key(reply: &mut Reply, key: &[u8]) {
    if !reply.resp3 {
        reply.array(2);
    }
    reply.bulk(key);
}

/// Reads a stream; `false` when there is nothing.
fn read(ctx: &mut Ctx<'_, '_>, key: &[u8], from: From, most: u64) -> bool {
    let From::Behind(id) = from else { return false };
    let Some(start) = id.next() else { return false };
    let Ok(Some(stream)) = ctx.db.read::<Stream>(key) else { return false };
    let mut entries = stream.log().range(start, StreamId::MAX, false).peekable();
    if entries.peek().is_none() {
        return false;
    }
    reply_key(ctx.reply, key);
    reply_entries(ctx.reply, entries, most);
    true
}

/// What reading as a consumer has changed.
#[derive(Default)]
struct Change {
    added: bool,
    /// What is pending now, as it stands.
    pending: Vec<(StreamId, i64, u64)>,
    /// How far the group has read.
    advanced: Option<(StreamId, Option<u64>)>,
    served: bool,
}

/// Reads a stream as a consumer; `false` when there is nothing.
fn read_as(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    (name, consumer_name): (&[u8], &[u8]),
    from: From,
    request: &Request<'_>,
) -> bool {
    let now = ctx.db.now_ms();
    // A client that is woken for nothing leaves no trace.
    if ctx.retry && !has_new(ctx, key, name, from) {
        return false;
    }
    let reply = &mut *ctx.reply;
    let change = ctx.db.update::<Stream, _>(key, |stream, _| {
        stream.change_group(name, |log, group| {
            let (consumer, added) = group.hear(consumer_name, now);
            let mut change = Change { added, ..Change::default() };
            match from {
                From::New => deliver(reply, key, log, group, consumer, now, request, &mut change),
                From::Behind(id) => {
                    repeat(reply, key, log, group, consumer, id, now, request.most, &mut change);
                }
            }
            change
        })
    });
    let Ok(Some(Some(change))) = change else { return false };
    if change.added || change.served {
        // Others who wait for entries are not told: there are no new ones.
        ctx.dirty += 1;
        tell(ctx, key, name, consumer_name, &change);
    }
    change.served
}

fn has_new(ctx: &mut Ctx<'_, '_>, key: &[u8], name: &[u8], from: From) -> bool {
    let Ok(Some(stream)) = ctx.db.read::<Stream>(key) else { return false };
    let Some(group) = stream.group(name) else { return false };
    from != From::New || stream.log().last_live().is_some_and(|last| last > group.last_id)
}

/// Gives a consumer the entries that nobody of its group was given.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one read, taken apart for the borrow checker"
)]
fn deliver(
    reply: &mut Reply,
    key: &[u8],
    log: &Log,
    group: &mut Group,
    consumer: ConsumerId,
    now: i64,
    request: &Request<'_>,
    change: &mut Change,
) {
    let Some(start) = group.last_id.next() else { return };
    let mut entries = log.range(start, StreamId::MAX, false).peekable();
    if entries.peek().is_none() {
        return;
    }
    change.served = true;
    reply_key(reply, key);
    let begin = reply.begin();
    let mut n = 0;
    for entry in entries {
        reply_entry(reply, &entry);
        group.advance(log, entry.id);
        if !request.no_ack {
            group.assign(entry.id, now, 1, consumer);
            change.pending.push((entry.id, now, 1));
        }
        n += 1;
        if n as u64 == request.most {
            break;
        }
    }
    reply.end_array(begin, n);
    group.consumer_mut(consumer).active_ms = now;
    change.advanced = Some((group.last_id, group.entries_read));
}

/// Gives a consumer what it was given before and has not acknowledged.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one read, taken apart for the borrow checker"
)]
fn repeat(
    reply: &mut Reply,
    key: &[u8],
    log: &Log,
    group: &mut Group,
    consumer: ConsumerId,
    behind: StreamId,
    now: i64,
    most: u64,
    change: &mut Change,
) {
    change.served = true;
    reply_key(reply, key);
    let most = if most == 0 { usize::MAX } else { usize::try_from(most).unwrap_or(usize::MAX) };
    let ids: Vec<StreamId> = match behind.next() {
        Some(start) => group.consumer(consumer).pending_from(start).take(most).collect(),
        None => Vec::new(),
    };
    reply.array(ids.len());
    for id in ids {
        let count = group.pending(id).map_or(0, |pending| pending.count);
        match log.get(id) {
            Some(entry) => {
                reply_entry(reply, &entry);
                group.assign(id, now, count.saturating_add(1), consumer);
                change.pending.push((id, now, count.saturating_add(1)));
            }
            None => reply_deleted(reply, id),
        }
    }
}

/// Writes to the journal what reading has changed.
fn tell(ctx: &mut Ctx<'_, '_>, key: &[u8], group: &[u8], consumer: &[u8], change: &Change) {
    if ctx.dirty > 0 && matches!(ctx.effects, super::super::Effects::Verbatim) {
        ctx.propagate_nothing();
    }
    if change.added {
        ctx.db.note_event(class::STREAM, "xgroup-createconsumer", key);
        ctx.propagate(&[b"XGROUP", b"CREATECONSUMER", key, group, consumer]);
    }
    let last_id = change.advanced.map(|(id, _)| id);
    claimed(ctx, key, group, consumer, last_id, &change.pending);
    if let Some((id, read)) = change.advanced {
        let read = read.map_or(-1, |read| read as i64).to_string();
        let id = id.text();
        ctx.propagate(&[b"XGROUP", b"SETID", key, group, &id, b"ENTRIESREAD", read.as_bytes()]);
    }
}

/// Pending entries as they stand, as requests: as many IDs in one as have time and count in common.
pub(super) fn claimed(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    group: &[u8],
    consumer: &[u8],
    last_id: Option<StreamId>,
    pending: &[(StreamId, i64, u64)],
) {
    for run in pending.chunk_by(|a, b| (a.1, a.2) == (b.1, b.2)) {
        let [(_, at, count), ..] = run else { continue };
        let (at, count) = (at.to_string(), count.to_string());
        for ids in run.chunks(CLAIMED_MAX) {
            let ids: Vec<_> = ids.iter().map(|(id, ..)| id.text()).collect();
            let mut request: Vec<&[u8]> = vec![b"XCLAIM", key, group, consumer, b"0"];
            request.extend(ids.iter().map(|id| id.as_slice()));
            request.extend([b"TIME", at.as_bytes(), b"RETRYCOUNT", count.as_bytes()]);
            request.extend([b"FORCE".as_slice(), b"JUSTID"]);
            let last = last_id.map(StreamId::text);
            if let Some(last) = &last {
                request.extend([b"LASTID".as_slice(), last]);
            }
            ctx.propagate(&request);
        }
    }
}
