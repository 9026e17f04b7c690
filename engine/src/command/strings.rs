//! String commands: values of bytes, counters, ranges, many keys at once.

use super::conditional::{self, Compared};
use super::expiry_args::{Expiry, expiry_option, parse_expiry};
use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::{FETCHED, HELD_BYTES_MIN, NotAdded, Ttl, WrongType};
use crate::notify::class;
use crate::number::{DecimalError, add_decimal};

const R: u32 = flag::READONLY;
const W: u32 = flag::WRITE;
const WM: u32 = flag::WRITE | flag::DENYOOM;
const FAST: u32 = flag::FAST;
/// MSET: keys and values in turn.
const PAIRS: Keys = Keys::Range { first: 1, last: -1, step: 2 };

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("get", 2, R | FAST, Keys::FIRST, Group::String, "1.0.0", "Returns the value of a key.", get),
    Command::new("set", -3, WM | flag::QUICK, Keys::FIRST, Group::String, "1.0.0", "Sets the value of a key.", set),
    Command::new("setnx", 3, WM | FAST, Keys::FIRST, Group::String, "1.0.0", "Sets a key that is not there.", setnx),
    Command::new("setex", 4, WM | flag::QUICK, Keys::FIRST, Group::String, "2.0.0", "Sets a value that expires after seconds.", setex),
    Command::new("psetex", 4, WM | flag::QUICK, Keys::FIRST, Group::String, "2.6.0", "Sets a value that expires after milliseconds.", psetex),
    Command::new("getset", 3, WM | FAST, Keys::FIRST, Group::String, "1.0.0", "Sets a value and returns the old one.", getset),
    Command::new("getdel", 2, W | FAST, Keys::FIRST, Group::String, "6.2.0", "Returns a value and deletes its key.", getdel),
    Command::new("getex", -2, W | FAST, Keys::FIRST, Group::String, "6.2.0", "Returns a value and changes its expiry time.", getex),
    Command::new("mget", -2, R | FAST, Keys::ALL, Group::String, "1.0.0", "Returns the values of keys.", mget),
    Command::new("mset", -3, WM, PAIRS, Group::String, "1.0.1", "Sets keys, all at once.", mset),
    Command::new("msetnx", -3, WM, PAIRS, Group::String, "1.0.1", "Sets keys if none of them is there.", msetnx),
    Command::new("append", 3, WM | FAST, Keys::FIRST, Group::String, "2.0.0", "Adds bytes at the end of a value.", append),
    Command::new("strlen", 2, R | FAST, Keys::FIRST, Group::String, "2.2.0", "Returns the length of a value.", strlen),
    Command::new("incr", 2, WM | FAST, Keys::FIRST, Group::String, "1.0.0", "Adds 1 to a number.", incr),
    Command::new("decr", 2, WM | FAST, Keys::FIRST, Group::String, "1.0.0", "Takes 1 from a number.", decr),
    Command::new("incrby", 3, WM | FAST, Keys::FIRST, Group::String, "1.0.0", "Adds to a number.", incrby),
    Command::new("decrby", 3, WM | FAST, Keys::FIRST, Group::String, "1.0.0", "Takes from a number.", decrby),
    Command::new("incrbyfloat", 3, WM | FAST, Keys::FIRST, Group::String, "2.6.0", "Adds to a decimal number.", incrbyfloat),
    Command::new("getrange", 4, R, Keys::FIRST, Group::String, "2.4.0", "Returns a part of a value.", getrange),
    Command::new("substr", 4, R, Keys::FIRST, Group::String, "1.0.0", "Returns a part of a value (old name of GETRANGE).", getrange),
    Command::new("setrange", 4, WM, Keys::FIRST, Group::String, "2.2.0", "Overwrites a part of a value.", setrange),
];

pub(super) const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";

fn get(ctx: &mut Ctx<'_, '_>) {
    let Some(entry) = ctx.db.get(ctx.args[1]) else { return ctx.reply.null() };
    match entry.as_string() {
        Some(value) if value.len() < HELD_BYTES_MIN => ctx.reply.bulk(value),
        Some(value) => ctx.reply.long(value, entry),
        None => ctx.reply.wrong_type(),
    }
}

/// Only set when the key is there, or only when it is not; when its value compares as wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition<'a> {
    Exists,
    Absent,
    /// The value, or its digest, is or is not what it is compared with.
    Compares(Compared<'a>, bool),
}

fn set(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    if ctx.args.len() == 3 {
        ctx.db.set(key, ctx.args[2], Ttl::Clear);
        ctx.modified(key);
        ctx.reply.ok();
        return;
    }
    let (mut condition, mut get, mut expiry) = (None, false, Expiry::None);
    let mut i = 3;
    while i < ctx.args.len() {
        if ctx.is_word(i, "nx") && condition.is_none_or(|c| c == Condition::Absent) {
            condition = Some(Condition::Absent);
        } else if ctx.is_word(i, "xx") && condition.is_none_or(|c| c == Condition::Exists) {
            condition = Some(Condition::Exists);
        } else if condition.is_none()
            && i + 1 < ctx.args.len()
            && let Some((compared, equal)) = Compared::parse(ctx.args[i], ctx.args[i + 1])
        {
            condition = Some(Condition::Compares(compared, equal));
            i += 1;
        } else if ctx.is_word(i, "get") {
            get = true;
        } else {
            match expiry_option(ctx, i, &mut expiry) {
                Some(more) => i += more,
                None => return,
            }
        }
        i += 1;
    }
    let compared = match condition {
        Some(Condition::Compares(compared, _)) => Some(compared),
        _ => None,
    };
    let (exists, equal) = if get || compared.is_some() {
        match ctx.db.string(key) {
            Err(WrongType) => return ctx.reply.wrong_type(),
            Ok(value) => {
                let is = |value| compared.map_or(Some(false), |compared| compared.is(value));
                let Some(equal) = value.map_or(Some(false), is) else {
                    return ctx.reply.error(conditional::BAD_DIGEST);
                };
                match value {
                    Some(value) if get => ctx.reply.bulk(value),
                    None if get => ctx.reply.null(),
                    _ => {}
                }
                (value.is_some(), equal)
            }
        }
    } else {
        (condition.is_some() && ctx.db.exists(key), false)
    };
    let refused = match condition {
        Some(Condition::Absent) => exists,
        Some(Condition::Exists) => !exists,
        Some(Condition::Compares(_, wanted)) => equal != wanted,
        None => false,
    };
    if refused {
        if !get {
            ctx.reply.null();
        }
        return;
    }
    store(ctx, key, ctx.args[2], expiry);
    if !get {
        ctx.reply.ok();
    }
}

/// Sets a value, and writes it to the journal with the time at which it expires.
pub(super) fn store(ctx: &mut Ctx<'_, '_>, key: &[u8], value: &[u8], expiry: Expiry) {
    match expiry {
        Expiry::None => {
            ctx.db.set(key, value, Ttl::Clear);
            ctx.propagate(&[b"SET", key, value]);
        }
        Expiry::Keep => {
            ctx.db.set(key, value, Ttl::Keep);
            ctx.propagate(&[b"SET", key, value, b"KEEPTTL"]);
        }
        Expiry::At(at) if at <= ctx.db.now_ms() && !ctx.db.env.sees_expired => {
            // Born expired: what is left of it is that the old value is gone.
            ctx.db.remove(key);
            ctx.propagate(&[b"DEL", key]);
        }
        Expiry::At(at) => {
            ctx.db.set(key, value, Ttl::At(at));
            ctx.propagate(&[b"SET", key, value, b"PXAT", at.to_string().as_bytes()]);
            ctx.modified(key);
            return ctx.db.note_event(class::GENERIC, "expire", key);
        }
    }
    ctx.modified(key);
}

fn setnx(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    if ctx.db.exists(key) {
        return ctx.reply.int(0);
    }
    ctx.db.set(key, ctx.args[2], Ttl::Clear);
    ctx.modified(key);
    ctx.reply.int(1);
}

fn setex(ctx: &mut Ctx<'_, '_>) {
    set_for(ctx, 1000);
}

fn psetex(ctx: &mut Ctx<'_, '_>) {
    set_for(ctx, 1);
}

fn set_for(ctx: &mut Ctx<'_, '_>, unit_ms: i64) {
    let Some(n) = ctx.int_arg(2) else { return };
    let at = n.checked_mul(unit_ms).and_then(|ms| ms.checked_add(ctx.db.now_ms()));
    match at {
        Some(at) if n > 0 => {
            store(ctx, ctx.args[1], ctx.args[3], Expiry::At(at));
            ctx.reply.ok();
        }
        _ => super::expiry_args::invalid(ctx),
    }
}

fn getset(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    match ctx.db.string(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(Some(value)) => ctx.reply.bulk(value),
        Ok(None) => ctx.reply.null(),
    }
    ctx.db.set(key, ctx.args[2], Ttl::Clear);
    ctx.propagate(&[b"SET", key, ctx.args[2]]);
    ctx.modified(key);
}

fn getdel(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    match ctx.db.string(key) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(None) => ctx.reply.null(),
        Ok(Some(value)) => {
            ctx.reply.bulk(value);
            ctx.db.remove(key);
            ctx.propagate(&[b"DEL", key]);
            ctx.modified(key);
        }
    }
}

fn getex(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    let (mut persist, mut expiry) = (false, Expiry::None);
    match ctx.args.len() {
        2 => {}
        3 if ctx.is_word(2, "persist") => persist = true,
        4 => match parse_expiry(ctx, 2) {
            Some(Ok(parsed)) => expiry = parsed,
            Some(Err(())) => return,
            None => return ctx.reply.syntax_error(),
        },
        _ => return ctx.reply.syntax_error(),
    }
    match ctx.db.string(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(None) => return ctx.reply.null(),
        Ok(Some(value)) => ctx.reply.bulk(value),
    }
    match expiry {
        Expiry::At(at) if at <= ctx.db.now_ms() => {
            ctx.db.remove(key);
            ctx.propagate(&[b"DEL", key]);
            ctx.modified_to(key, class::GENERIC, "del");
        }
        Expiry::At(at) => {
            ctx.db.expire(key, Some(at));
            ctx.propagate(&[b"PEXPIREAT", key, at.to_string().as_bytes()]);
            ctx.modified_to(key, class::GENERIC, "expire");
        }
        _ if persist && ctx.db.peek(key).is_some_and(|e| e.ttl().is_some()) => {
            ctx.db.expire(key, None);
            ctx.propagate(&[b"PERSIST", key]);
            ctx.modified_to(key, class::GENERIC, "persist");
        }
        _ => {}
    }
}

fn mget(ctx: &mut Ctx<'_, '_>) {
    ctx.reply.array(ctx.args.len() - 1);
    for keys in ctx.args[1..].chunks(FETCHED) {
        let places = ctx.db.fetch(keys);
        for (key, (hash, slot)) in keys.iter().zip(places) {
            ctx.db.hint(key, hash, slot);
            match ctx.db.string(key) {
                Ok(Some(value)) => ctx.reply.bulk(value),
                Ok(None) | Err(WrongType) => ctx.reply.null(),
            }
        }
    }
    ctx.db.clear_hint();
}

fn mset(ctx: &mut Ctx<'_, '_>) {
    if ctx.args.len().is_multiple_of(2) {
        return ctx.wrong_arity();
    }
    set_pairs(ctx);
    ctx.reply.ok();
}

fn msetnx(ctx: &mut Ctx<'_, '_>) {
    if ctx.args.len().is_multiple_of(2) {
        return ctx.wrong_arity();
    }
    if ctx.args[1..].iter().step_by(2).any(|key| ctx.db.exists(key)) {
        return ctx.reply.int(0);
    }
    set_pairs(ctx);
    ctx.reply.int(1);
}

fn set_pairs(ctx: &mut Ctx<'_, '_>) {
    let args = ctx.args;
    for pair in args[1..].chunks_exact(2) {
        ctx.db.set(pair[0], pair[1], Ttl::Clear);
        ctx.modified(pair[0]);
    }
}

fn append(ctx: &mut Ctx<'_, '_>) {
    let (key, tail) = (ctx.args[1], ctx.args[2]);
    let limit = value_bytes_max(ctx);
    let value = match ctx.db.string(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(None) => {
            ctx.db.set(key, tail, Ttl::Clear);
            ctx.modified(key);
            return ctx.reply.int(tail.len() as i64);
        }
        Ok(Some(value)) if value.len() + tail.len() > limit => return ctx.reply.error(TOO_LONG),
        Ok(Some(value)) => [value, tail].concat(),
    };
    ctx.db.set_changed(key, &value);
    ctx.modified(key);
    ctx.reply.int(value.len() as i64);
}

pub(super) fn value_bytes_max(ctx: &Ctx<'_, '_>) -> usize {
    ctx.shared.config.hot().proto_max_bulk_len.min(u32::MAX as usize)
}

fn strlen(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.string(ctx.args[1]) {
        Ok(value) => ctx.reply.int(value.map_or(0, |v| v.len() as i64)),
        Err(WrongType) => ctx.reply.wrong_type(),
    }
}

fn incr(ctx: &mut Ctx<'_, '_>) {
    add(ctx, 1);
}

fn decr(ctx: &mut Ctx<'_, '_>) {
    add(ctx, -1);
}

fn incrby(ctx: &mut Ctx<'_, '_>) {
    if let Some(by) = ctx.int_arg(2) {
        add(ctx, by);
    }
}

fn decrby(ctx: &mut Ctx<'_, '_>) {
    let Some(by) = ctx.int_arg(2) else { return };
    match by.checked_neg() {
        Some(by) => add(ctx, by),
        None => ctx.reply.error("ERR decrement would overflow"),
    }
}

fn add(ctx: &mut Ctx<'_, '_>, by: i64) {
    let key = ctx.args[1];
    match ctx.db.add_integer(key, by) {
        Ok(sum) => {
            ctx.modified(key);
            ctx.reply.int(sum);
        }
        Err(NotAdded::WrongType) => ctx.reply.wrong_type(),
        Err(NotAdded::NotAnInteger) => ctx.reply.not_an_integer(),
        Err(NotAdded::Overflow) => {
            ctx.reply.error("ERR increment or decrement would overflow");
        }
    }
}

fn incrbyfloat(ctx: &mut Ctx<'_, '_>) {
    let (key, by) = (ctx.args[1], ctx.args[2]);
    let sum = match ctx.db.string(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(None) => add_decimal(b"0", by),
        Ok(Some(value)) => add_decimal(value, by),
    };
    match sum {
        Ok(sum) => {
            ctx.db.set(key, &sum, Ttl::Keep);
            ctx.propagate(&[b"SET", key, &sum, b"KEEPTTL"]);
            ctx.modified(key);
            ctx.reply.bulk(&sum);
        }
        Err(DecimalError::OutOfRange) => {
            ctx.reply.error("ERR increment would produce NaN or Infinity");
        }
        Err(_) => ctx.reply.not_a_float(),
    }
}

/// `start..=end`, negative counting from the end, as a range of `len` bytes.
pub(super) fn clamp_range(start: i64, end: i64, len: usize) -> std::ops::Range<usize> {
    let len = len as i64;
    let from_end = |i: i64| if i < 0 { i.saturating_add(len).max(0) } else { i };
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    if len == 0 || start > end { 0..0 } else { start as usize..end as usize + 1 }
}

fn getrange(ctx: &mut Ctx<'_, '_>) {
    let Some(start) = ctx.int_arg(2) else { return };
    let Some(end) = ctx.int_arg(3) else { return };
    match ctx.db.string(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(value) => {
            let value = value.unwrap_or_default();
            ctx.reply.bulk(&value[clamp_range(start, end, value.len())]);
        }
    }
}

fn setrange(ctx: &mut Ctx<'_, '_>) {
    let (key, piece) = (ctx.args[1], ctx.args[3]);
    let Some(offset) = ctx.int_arg(2) else { return };
    if offset < 0 {
        return ctx.reply.error("ERR offset is out of range");
    }
    let limit = value_bytes_max(ctx);
    let offset = offset as usize;
    let old = match ctx.db.string(key) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(old) => old.unwrap_or_default(),
    };
    if piece.is_empty() {
        let len = old.len();
        return ctx.reply.int(len as i64);
    }
    let Some(end) = offset.checked_add(piece.len()).filter(|end| *end <= limit) else {
        return ctx.reply.error(TOO_LONG);
    };
    let mut value = Vec::with_capacity(old.len().max(end));
    value.extend_from_slice(old);
    value.resize(old.len().max(end), 0);
    value[offset..end].copy_from_slice(piece);
    ctx.db.set_changed(key, &value);
    ctx.modified(key);
    ctx.reply.int(value.len() as i64);
}

#[cfg(test)]
mod tests {
    use super::clamp_range;

    #[test]
    fn ranges_are_clamped_at_every_end() {
        for (start, end, len, expected) in [
            (0, -1, 5, 0..5),
            (1, 2, 5, 1..3),
            (-3, -1, 5, 2..5),
            (-100, 100, 5, 0..5),
            (3, 1, 5, 0..0),
            (5, 9, 5, 0..0),
            (-1, -3, 5, 0..0),
            (i64::MIN, i64::MAX, 5, 0..5),
            (i64::MAX, i64::MIN, 5, 0..0),
            (0, 0, 0, 0..0),
            (i64::MIN, i64::MIN, 5, 0..1),
        ] {
            assert_eq!(clamp_range(start, end, len), expected, "{start} {end} {len}");
        }
    }
}
