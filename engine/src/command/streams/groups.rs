//! XGROUP, XACK and XPENDING.

use super::super::{Ctx, exec::printable};
use super::{args, no_group, reply_id};
use crate::keyspace::WrongType;
use crate::notify::class;
use crate::types::stream::Group;
use crate::types::{Stream, StreamId};

const HELP: &[&str] = &[
    "XGROUP <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CREATE <key> <group> <id|$> [MKSTREAM] [ENTRIESREAD <read>]",
    "    Makes a group that reads behind an ID.",
    "CREATECONSUMER <key> <group> <consumer>, DELCONSUMER <key> <group> <consumer>",
    "    Makes or removes a consumer; what is pending for it goes with it.",
    "DESTROY <key> <group>",
    "    Removes a group.",
    "SETID <key> <group> <id|$> [ENTRIESREAD <read>]",
    "    Lets a group go on behind an ID.",
];

/// Options behind the ID of CREATE and SETID.
#[derive(Default)]
struct Options {
    make: bool,
    read: Option<u64>,
}

pub(super) fn xgroup(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"help", 2) => ctx.help(HELP),
        (b"create" | b"setid", 5..) => {
            if let Some(options) = options(ctx, word == b"create") {
                with_group(ctx, &word, &options);
            }
        }
        (b"destroy", 4) | (b"createconsumer" | b"delconsumer", 5) => {
            with_group(ctx, &word, &Options::default());
        }
        (b"help" | b"create" | b"setid" | b"destroy" | b"createconsumer" | b"delconsumer", _) => {
            ctx.wrong_sub_arity();
        }
        _ => ctx.unknown_subcommand(),
    }
}

fn options(ctx: &mut Ctx<'_, '_>, creates: bool) -> Option<Options> {
    let mut options = Options::default();
    let mut i = 5;
    while i < ctx.args.len() {
        if creates && ctx.is_word(i, "mkstream") {
            options.make = true;
            i += 1;
        } else if ctx.is_word(i, "entriesread") && i + 1 < ctx.args.len() {
            let read = ctx.int_arg(i + 1)?;
            if read < -1 {
                ctx.reply.error("ERR value for ENTRIESREAD must be positive or -1");
                return None;
            }
            options.read = u64::try_from(read).ok();
            i += 2;
        } else {
            ctx.bad_subcommand();
            return None;
        }
    }
    Some(options)
}

fn with_group(ctx: &mut Ctx<'_, '_>, word: &[u8], options: &Options) {
    let (key, name) = (ctx.args[2], ctx.args[3]);
    let last_id = match ctx.db.read::<Stream>(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(None) if !options.make => {
            return ctx.reply.error(
                "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use \
                 the MKSTREAM option to create an empty stream automatically.",
            );
        }
        Ok(None) => StreamId::MIN,
        Ok(Some(stream)) => {
            if stream.group(name).is_none() && word != b"create" && word != b"destroy" {
                let (key, name) = (printable(key), printable(name));
                let error = format!("NOGROUP No such consumer group '{name}' for key name '{key}'");
                return ctx.reply.error(&error);
            }
            stream.log().last_id
        }
    };
    match word {
        b"create" | b"setid" => {
            let id = if ctx.args[4] == b"$" { Some(last_id) } else { group_id(ctx, word) };
            match id {
                Some(id) if word == b"create" => create(ctx, id, options),
                Some(id) => set_id(ctx, id, options),
                None => {}
            }
        }
        b"destroy" => {
            let gone = ctx.db.update::<Stream, _>(key, |stream, _| stream.remove_group(name));
            let gone = gone.ok().flatten().unwrap_or(false);
            if gone {
                ctx.modified_to(key, class::STREAM, "xgroup-destroy");
            }
            ctx.reply.int(i64::from(gone));
        }
        _ => consumer(ctx, word == b"createconsumer"),
    }
}

fn group_id(ctx: &mut Ctx<'_, '_>, word: &[u8]) -> Option<StreamId> {
    if word == b"create" {
        return args::id(ctx, 4, 0);
    }
    // Where a group goes on, `-` and `+` are known too.
    let id = StreamId::parse_bound(ctx.args[4], 0);
    if id.is_none() {
        ctx.reply.error(args::INVALID_ID);
    }
    id
}

fn create(ctx: &mut Ctx<'_, '_>, id: StreamId, options: &Options) {
    let (key, name) = (ctx.args[2], ctx.args[3]);
    let made = ctx
        .db
        .upsert::<Stream, _>(key, |stream, _| stream.add_group(name, Group::new(id, options.read)));
    if made != Ok(true) {
        return ctx.reply.error("BUSYGROUP Consumer Group name already exists");
    }
    ctx.modified_to(key, class::STREAM, "xgroup-create");
    let (id, read) = (id.text(), options.read.map_or(-1, |read| read as i64).to_string());
    let mut request: Vec<&[u8]> = vec![b"XGROUP", b"CREATE", key, name, &id, b"MKSTREAM"];
    if options.read.is_some() {
        request.extend([b"ENTRIESREAD", read.as_bytes()]);
    }
    ctx.propagate(&request);
    ctx.reply.ok();
}

fn set_id(ctx: &mut Ctx<'_, '_>, id: StreamId, options: &Options) {
    let (key, name) = (ctx.args[2], ctx.args[3]);
    let _ = ctx.db.update::<Stream, _>(key, |stream, _| {
        stream.change_group(name, |_, group| {
            group.last_id = id;
            group.entries_read = options.read;
        })
    });
    ctx.modified_to(key, class::STREAM, "xgroup-setid");
    let (id, read) = (id.text(), options.read.map_or(-1, |read| read as i64).to_string());
    ctx.propagate(&[b"XGROUP", b"SETID", key, name, &id, b"ENTRIESREAD", read.as_bytes()]);
    ctx.reply.ok();
}

fn consumer(ctx: &mut Ctx<'_, '_>, adds: bool) {
    let (key, name, consumer) = (ctx.args[2], ctx.args[3], ctx.args[4]);
    let now = ctx.db.now_ms();
    let done = ctx.db.update::<Stream, _>(key, |stream, _| {
        stream.change_group(name, |_, group| {
            if adds {
                group.find_or_add(consumer, now).1.then_some(1)
            } else {
                group.remove_consumer(consumer)
            }
        })
    });
    let done = done.ok().flatten().flatten().flatten();
    if done.is_some() {
        let name = if adds { "xgroup-createconsumer" } else { "xgroup-delconsumer" };
        ctx.modified_to(key, class::STREAM, name);
    }
    ctx.reply.int(done.unwrap_or(0) as i64);
}

pub(super) fn xack(ctx: &mut Ctx<'_, '_>) {
    let (key, name) = (ctx.args[1], ctx.args[2]);
    match ctx.db.read::<Stream>(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(stream) => {
            if stream.and_then(|stream| stream.group(name)).is_none() {
                return ctx.reply.int(0);
            }
        }
    }
    let Some(ids) = args::ids(ctx, 3) else { return };
    let done = ctx.db.update::<Stream, _>(key, |stream, _| {
        stream
            .change_group(name, |_, group| ids.iter().filter(|id| group.acknowledge(**id)).count())
    });
    let done = done.ok().flatten().flatten().unwrap_or(0);
    // Nothing that anybody waits for has changed.
    ctx.dirty += done as u64;
    ctx.reply.int(done as i64);
}

/// `[IDLE ms] start end count [consumer]`.
struct Wanted<'a> {
    idle_ms: i64,
    start: StreamId,
    end: StreamId,
    most: u64,
    consumer: Option<&'a [u8]>,
}

pub(super) fn xpending(ctx: &mut Ctx<'_, '_>) {
    let (key, name) = (ctx.args[1], ctx.args[2]);
    let wanted = match ctx.args.len() {
        3 => None,
        6..=9 => match wanted(ctx) {
            None => return,
            wanted => wanted,
        },
        _ => return ctx.reply.syntax_error(),
    };
    let now = ctx.db.now_ms();
    let group = match ctx.db.read::<Stream>(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(stream) => stream.and_then(|stream| stream.group(name)),
    };
    match (group, wanted) {
        (None, _) => no_group(ctx, key, name, ""),
        (Some(group), None) => summary(ctx.reply, group),
        (Some(group), Some(wanted)) => list(ctx.reply, group, &wanted, now),
    }
}

fn wanted<'a>(ctx: &mut Ctx<'a, '_>) -> Option<Wanted<'a>> {
    let (mut at, mut idle_ms) = (3, 0);
    if ctx.is_word(3, "idle") {
        idle_ms = ctx.int_arg(4)?;
        at = 5;
        if ctx.args.len() < 8 {
            ctx.reply.syntax_error();
            return None;
        }
    }
    let most = args::count(ctx, at + 2)?;
    let (start, end) = (args::start(ctx, at)?, args::end(ctx, at + 1)?);
    Some(Wanted { idle_ms, start, end, most, consumer: ctx.args.get(at + 3).copied() })
}

fn summary(reply: &mut crate::resp::Reply, group: &Group) {
    reply.array(4);
    reply.int(group.pending_len() as i64);
    let first = group.pending_from(StreamId::MIN).next().map(|(id, _)| id);
    let (Some(first), Some(last)) = (first, group.last_pending()) else {
        reply.null();
        reply.null();
        return reply.null_array();
    };
    reply_id(reply, first);
    reply_id(reply, last);
    let begin = reply.begin();
    let mut n = 0;
    for consumer in group.consumers().filter(|consumer| consumer.pending_len() > 0) {
        reply.array(2);
        reply.bulk(consumer.name());
        reply.bulk_int(consumer.pending_len() as i64);
        n += 1;
    }
    reply.end_array(begin, n);
}

fn list(reply: &mut crate::resp::Reply, group: &Group, wanted: &Wanted<'_>, now: i64) {
    let consumer = match wanted.consumer.map(|name| group.find(name)) {
        // Nothing is pending for somebody who is not there.
        Some(None) => return reply.array(0),
        Some(found) => found,
        None => None,
    };
    let begin = reply.begin();
    let mut n = 0;
    let mut show = |id: StreamId| {
        let Some(pending) = group.pending(id) else { return true };
        let idle = now.saturating_sub(pending.delivered_ms);
        if id > wanted.end || n as u64 >= wanted.most {
            return false;
        }
        if wanted.idle_ms == 0 || idle >= wanted.idle_ms {
            reply.array(4);
            reply_id(reply, id);
            reply.bulk(group.consumer(pending.consumer).name());
            reply.int(idle.max(0));
            reply.int(pending.count as i64);
            n += 1;
        }
        true
    };
    match consumer {
        Some(consumer) => {
            let _ = group.consumer(consumer).pending_from(wanted.start).all(&mut show);
        }
        None => {
            let _ = group.pending_from(wanted.start).all(|(id, _)| show(id));
        }
    }
    reply.end_array(begin, n);
}
