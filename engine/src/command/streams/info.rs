//! XINFO: a stream, its groups and consumers, as people and tools read them.

use super::super::{Ctx, exec::printable};
use super::{reply_entries, reply_entry, reply_id};
use crate::keyspace::WrongType;
use crate::resp::Reply;
use crate::types::stream::{Consumer, Group, Log};
use crate::types::{Stream, StreamId};

const HELP: &[&str] = &[
    "XINFO <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CONSUMERS <key> <group>",
    "    The consumers of a group.",
    "GROUPS <key>",
    "    The groups of a stream.",
    "STREAM <key> [FULL [COUNT <count>]]",
    "    The stream; FULL: with entries and all that is pending.",
];

pub(super) fn xinfo(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"help", 2) => return ctx.help(HELP),
        (b"stream", 3..) | (b"groups", 3) | (b"consumers", 4) => {}
        (b"help" | b"stream" | b"groups" | b"consumers", _) => return ctx.wrong_sub_arity(),
        _ => return ctx.unknown_subcommand(),
    }
    let key = ctx.args[2];
    let now = ctx.db.now_ms();
    let mut full = None;
    if word == b"stream" && ctx.args.len() > 3 {
        let fits = ctx.is_word(3, "full")
            && (ctx.args.len() == 4 || ctx.args.len() == 6 && ctx.is_word(4, "count"));
        if !fits {
            return ctx.bad_subcommand();
        }
        full = match ctx.args.len() {
            4 => Some(10),
            _ => match ctx.int_arg(5) {
                None => return,
                // 0 is all; a negative number is as if nothing had been said.
                Some(n) => Some(u64::try_from(n).unwrap_or(10)),
            },
        };
    }
    let stream = match ctx.db.read::<Stream>(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(None) => return ctx.reply.error(super::super::keys::NO_SUCH_KEY),
        Ok(Some(stream)) => stream,
    };
    match (word.as_slice(), full) {
        (b"stream", None) => summary(ctx.reply, stream),
        (b"stream", Some(most)) => everything(ctx.reply, stream, most),
        (b"groups", _) => groups(ctx.reply, stream),
        _ => match stream.group(ctx.args[3]) {
            Some(group) => consumers(ctx.reply, group, now),
            None => {
                let (key, name) = (printable(key), printable(ctx.args[3]));
                let error = format!("NOGROUP No such consumer group '{name}' for key name '{key}'");
                ctx.reply.error(&error);
            }
        },
    }
}

fn field_int(reply: &mut Reply, name: &str, value: i64) {
    reply.bulk(name.as_bytes());
    reply.int(value);
}

fn field_id(reply: &mut Reply, name: &str, id: StreamId) {
    reply.bulk(name.as_bytes());
    reply_id(reply, id);
}

/// What both forms of XINFO STREAM begin with: seven fields.
fn head(reply: &mut Reply, log: &Log) {
    field_int(reply, "length", log.len() as i64);
    let nodes = log.nodes().len() as i64;
    field_int(reply, "radix-tree-keys", nodes);
    // The index is no radix tree: its nodes and its root stand for that.
    field_int(reply, "radix-tree-nodes", nodes + 1);
    field_id(reply, "last-generated-id", log.last_id);
    field_id(reply, "max-deleted-entry-id", log.max_deleted_id);
    field_int(reply, "entries-added", log.entries_added as i64);
    field_id(reply, "recorded-first-entry-id", log.first_id());
}

fn summary(reply: &mut Reply, stream: &Stream) {
    let log = stream.log();
    reply.map(10);
    head(reply, log);
    field_int(reply, "groups", stream.groups().len() as i64);
    for (name, backwards) in [("first-entry", false), ("last-entry", true)] {
        reply.bulk(name.as_bytes());
        match log.range(StreamId::MIN, StreamId::MAX, backwards).next() {
            Some(entry) => reply_entry(reply, &entry),
            None => reply.null(),
        }
    }
}

fn everything(reply: &mut Reply, stream: &Stream, most: u64) {
    let log = stream.log();
    reply.map(9);
    head(reply, log);
    reply.bulk(b"entries");
    reply_entries(reply, log.range(StreamId::MIN, StreamId::MAX, false), most);
    reply.bulk(b"groups");
    reply.array(stream.groups().len());
    let most = if most == 0 { usize::MAX } else { most as usize };
    for (name, group) in stream.groups() {
        reply.map(7);
        reply.bulk(b"name");
        reply.bulk(name);
        position(reply, log, group);
        field_int(reply, "pel-count", group.pending_len() as i64);
        reply.bulk(b"pending");
        let pending = group.pending_from(StreamId::MIN).take(most);
        reply.array(group.pending_len().min(most));
        for (id, pending) in pending {
            reply.array(4);
            reply_id(reply, id);
            reply.bulk(group.consumer(pending.consumer).name());
            reply.int(pending.delivered_ms);
            reply.int(pending.count as i64);
        }
        reply.bulk(b"consumers");
        reply.array(group.consumers().len());
        group.consumers().for_each(|consumer| consumer_in_full(reply, group, consumer, most));
    }
}

fn consumer_in_full(reply: &mut Reply, group: &Group, consumer: &Consumer, most: usize) {
    reply.map(5);
    reply.bulk(b"name");
    reply.bulk(consumer.name());
    field_int(reply, "seen-time", consumer.seen_ms);
    field_int(reply, "active-time", consumer.active_ms);
    field_int(reply, "pel-count", consumer.pending_len() as i64);
    reply.bulk(b"pending");
    reply.array(consumer.pending_len().min(most));
    for id in consumer.pending_from(StreamId::MIN).take(most) {
        let pending = group.pending(id);
        reply.array(3);
        reply_id(reply, id);
        reply.int(pending.map_or(0, |pending| pending.delivered_ms));
        reply.int(pending.map_or(0, |pending| pending.count as i64));
    }
}

/// How far a group has read: three fields.
fn position(reply: &mut Reply, log: &Log, group: &Group) {
    field_id(reply, "last-delivered-id", group.last_id);
    reply.bulk(b"entries-read");
    match group.entries_read {
        Some(read) => reply.int(read as i64),
        None => reply.null(),
    }
    reply.bulk(b"lag");
    match log.lag(group) {
        Some(lag) => reply.int(lag),
        None => reply.null(),
    }
}

fn groups(reply: &mut Reply, stream: &Stream) {
    reply.array(stream.groups().len());
    for (name, group) in stream.groups() {
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(name);
        field_int(reply, "consumers", group.consumers().len() as i64);
        field_int(reply, "pending", group.pending_len() as i64);
        position(reply, stream.log(), group);
    }
}

fn consumers(reply: &mut Reply, group: &Group, now: i64) {
    reply.array(group.consumers().len());
    for consumer in group.consumers() {
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(consumer.name());
        field_int(reply, "pending", consumer.pending_len() as i64);
        field_int(reply, "idle", now.saturating_sub(consumer.seen_ms).max(0));
        let inactive = match consumer.active_ms {
            -1 => -1,
            at => now.saturating_sub(at).max(0),
        };
        field_int(reply, "inactive", inactive);
    }
}
