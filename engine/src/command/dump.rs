//! DUMP and RESTORE: a value as bytes that other servers of the family read.

use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::{Entry, ValueRef};
use crate::notify::class;
use crate::{lazy, rdb};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("dump", 2, flag::READONLY, Keys::FIRST, Group::Generic, "2.6.0", "Returns a value in the form that RESTORE takes.", dump),
    Command::new("restore", -4, flag::WRITE | flag::DENYOOM, Keys::FIRST, Group::Generic, "2.6.0", "Makes a key from the bytes of DUMP.", restore),
];

/// Version of the form: the one that files are written in, which old servers read too.
const VERSION: u32 = rdb::VERSION;

fn dump(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.get(ctx.args[1]) {
        Some(entry) => ctx.reply.bulk(&payload(entry)),
        None => ctx.reply.null(),
    }
}

/// An entry's value as RESTORE takes it.
pub(crate) fn payload(entry: &Entry) -> Vec<u8> {
    let value = match entry.value() {
        ValueRef::String(bytes) => match crate::number::parse_i64(bytes) {
            Some(n) => rdb::ValueRef::Int(n),
            None => rdb::ValueRef::String(bytes),
        },
        ValueRef::Collection(collection) => rdb::ValueRef::Collection(collection),
    };
    rdb::dump_payload(value, VERSION)
}

pub(super) fn restore(ctx: &mut Ctx<'_, '_>) {
    let (key, payload) = (ctx.args[1], ctx.args[3]);
    let (mut replace, mut absolute) = (false, false);
    let (mut idle, mut freq) = (None, None);
    let mut i = 4;
    while i < ctx.args.len() {
        if ctx.is_word(i, "replace") {
            replace = true;
        } else if ctx.is_word(i, "absttl") {
            absolute = true;
        } else if ctx.is_word(i, "idletime") && i + 1 < ctx.args.len() && freq.is_none() {
            i += 1;
            let Some(n) = ctx.int_arg(i) else { return };
            if n < 0 {
                return ctx.reply.error("ERR Invalid IDLETIME value, must be >= 0");
            }
            idle = Some(n);
        } else if ctx.is_word(i, "freq") && i + 1 < ctx.args.len() && idle.is_none() {
            i += 1;
            let Some(n) = ctx.int_arg(i) else { return };
            if !(0..=255).contains(&n) {
                return ctx.reply.error("ERR Invalid FREQ value, must be >= 0 and <= 255");
            }
            freq = Some(n as u32);
        } else {
            return ctx.reply.syntax_error();
        }
        i += 1;
    }
    if !replace && ctx.db.exists(key) {
        return ctx.reply.error("BUSYKEY Target key name already exists.");
    }
    let Some(ttl) = ctx.int_arg(2) else { return };
    let now = ctx.db.now_ms();
    let at = match ttl {
        0 => None,
        n if n > 0 => n.checked_add(if absolute { 0 } else { now }),
        _ => return ctx.reply.error("ERR Invalid TTL value, must be >= 0"),
    };
    let value = match rdb::restore_payload(payload, &ctx.db.env.limits) {
        Ok(value) => value,
        Err(error) => {
            let text = match error.kind {
                rdb::ErrorKind::Version(_) | rdb::ErrorKind::Checksum => {
                    "ERR DUMP payload version or checksum are wrong"
                }
                _ => "ERR Bad data format",
            };
            return ctx.reply.error(text);
        }
    };
    if let Some(old) = ctx.db.take(key) {
        lazy::free(old);
        ctx.dirty += 1;
        ctx.db.note_changed(key);
    }
    if at.is_some_and(|at| at <= now) && !ctx.db.env.sees_expired {
        if ctx.dirty > 0 {
            ctx.db.note_event(class::GENERIC, "del", key);
        }
        ctx.propagate(&[b"DEL", key]);
        return ctx.reply.ok();
    }
    let env = ctx.db.env;
    let access = match (idle, freq) {
        (_, Some(freq)) if env.lfu => crate::keyspace::db::lfu_minutes(now) << 8 | freq,
        (Some(idle), _) if !env.lfu => {
            crate::keyspace::db::lru_clock(now.saturating_sub(idle.saturating_mul(1000)))
        }
        _ => ctx.db.access(),
    };
    let entry = match value {
        rdb::Value::String(bytes) => Entry::string(key, &bytes, at, access, false),
        rdb::Value::Collection(collection) => Entry::collection(key, collection, at, access),
    };
    ctx.db.put(key, entry);
    let at = at.unwrap_or(0).to_string();
    ctx.propagate(&[b"RESTORE", key, at.as_bytes(), payload, b"REPLACE", b"ABSTTL"]);
    ctx.modified(key);
    ctx.reply.ok();
}
