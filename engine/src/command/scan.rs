//! KEYS, SCAN, RANDOMKEY, DBSIZE: what walks over a whole database.
//!
//! A cursor is the slot in the low 14 bits and the table's own cursor above them. Slots never move and a
//! table's cursor keeps its promise while the table grows and shrinks, so a scan sees every key that is
//! there from its beginning to its end.

use super::walk::{sum, with_slot};
use super::{Command, Ctx, Group, Keys, flag};
use crate::glob;
use crate::keyspace::{Entry, Table};
use crate::number::{parse_cursor, parse_i64};
use crate::topology::{SLOTS, slot_of};

const WALK: u32 = flag::READONLY | flag::WALKS;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("keys", 2, WALK, Keys::None, Group::Generic, "1.0.0", "Returns the keys that match a pattern.", keys),
    Command::new("scan", -2, WALK, Keys::None, Group::Generic, "2.8.0", "Walks over the keys in steps.", scan),
    Command::new("randomkey", 1, WALK, Keys::None, Group::Generic, "1.0.0", "Returns a random key.", randomkey),
    Command::new("dbsize", 1, WALK, Keys::None, Group::Server, "1.0.0", "Counts the keys of the database.", dbsize),
];

fn is_due(entry: &Entry, now_ms: i64) -> bool {
    entry.ttl().is_some_and(|at| at <= now_ms)
}

/// A pattern whose hash tag has no wildcard can only match keys of one slot.
fn only_slot(ctx: &Ctx<'_, '_>, pattern: &[u8]) -> Option<u16> {
    if let Some(key) = glob::literal(pattern) {
        return Some(slot_of(key));
    }
    let tag = crate::topology::hash_tag(pattern);
    let before = pattern.len() - tag.len();
    // The tag must come first: a wildcard before it could match an earlier brace.
    let is_prefix = tag.len() < pattern.len() && before >= 2 && pattern[1..].starts_with(tag);
    (ctx.shared.cluster.is_enabled() && is_prefix && glob::literal(tag).is_some())
        .then(|| slot_of(pattern))
}

fn keys(ctx: &mut Ctx<'_, '_>) {
    let pattern = ctx.args[1];
    let (index, now) = (ctx.db.index, ctx.db.now_ms());
    let slots = only_slot(ctx, pattern).map_or(0..=SLOTS - 1, |slot| slot..=slot);
    let begin = ctx.reply.begin();
    let mut found = 0;
    for slot in slots {
        let reply = &mut *ctx.reply;
        with_slot(ctx.shared, ctx.db, index, slot, |table| {
            table.each(|entry| {
                if !is_due(entry, now) && glob::matches(pattern, entry.key()) {
                    reply.bulk(entry.key());
                    found += 1;
                }
            });
        });
    }
    ctx.reply.end_array(begin, found);
}

fn scan(ctx: &mut Ctx<'_, '_>) {
    let Some(cursor) = parse_cursor(ctx.args[1]) else {
        return ctx.reply.error("ERR invalid cursor");
    };
    let (mut pattern, mut count, mut kind): (Option<&[u8]>, usize, Option<&[u8]>) =
        (None, 10, None);
    if !ctx.args.len().is_multiple_of(2) {
        return ctx.reply.syntax_error();
    }
    for i in (2..ctx.args.len()).step_by(2) {
        let value = ctx.args[i + 1];
        if ctx.is_word(i, "match") {
            pattern = Some(value);
        } else if ctx.is_word(i, "count") {
            match parse_i64(value) {
                None => return ctx.reply.not_an_integer(),
                Some(n) if n < 1 => return ctx.reply.syntax_error(),
                Some(n) => count = n as usize,
            }
        } else if ctx.is_word(i, "type") {
            kind = Some(value);
        } else {
            return ctx.reply.syntax_error();
        }
    }
    let only = pattern.and_then(|pattern| only_slot(ctx, pattern));
    let (index, now) = (ctx.db.index, ctx.db.now_ms());
    let mut slot = (cursor & u64::from(SLOTS - 1)) as u16;
    let mut at = cursor >> 14;
    if let Some(only) = only
        && slot < only
    {
        (slot, at) = (only, 0);
    }
    let mut looked_at = 0;
    let mut body = crate::resp::Reply::new(Vec::new(), false);
    let mut found = 0;
    while slot < SLOTS && looked_at < count {
        let next = with_slot(ctx.shared, ctx.db, index, slot, |table| {
            loop {
                at = table.scan(at, |entry| {
                    looked_at += 1;
                    let wanted = !is_due(entry, now)
                        && pattern.is_none_or(|p| glob::matches(p, entry.key()))
                        && kind.is_none_or(|k| {
                            k.eq_ignore_ascii_case(super::keys::type_name(entry).as_bytes())
                        });
                    if wanted {
                        body.bulk(entry.key());
                        found += 1;
                    }
                });
                if at == 0 || looked_at >= count {
                    return at;
                }
            }
        });
        match next {
            None => slot = SLOTS,
            Some(0) if only == Some(slot) => slot = SLOTS,
            Some(0) => slot += 1,
            Some(_) => {}
        }
    }
    let next = if slot >= SLOTS { 0 } else { at << 14 | u64::from(slot) };
    ctx.reply.array(2);
    ctx.reply.bulk(next.to_string().as_bytes());
    ctx.reply.array(found);
    ctx.reply.out.extend_from_slice(&body.out);
}

fn randomkey(ctx: &mut Ctx<'_, '_>) {
    let (index, now) = (ctx.db.index, ctx.db.now_ms());
    let from = crate::random::below(u64::from(SLOTS)) as u16;
    for step in 0..SLOTS {
        let slot = (from + step) % SLOTS;
        let found = with_slot(ctx.shared, ctx.db, index, slot, |table| random_key(table, now));
        match found {
            None => break,
            Some(None) => {}
            Some(Some(key)) => return ctx.reply.bulk(&key),
        }
    }
    ctx.reply.null();
}

/// A random key of a table that has not expired.
fn random_key(table: &Table, now_ms: i64) -> Option<Vec<u8>> {
    if table.is_empty() {
        return None;
    }
    let (mut seen, mut chosen) = (0, None);
    let mut cursor = crate::random::next();
    // A bucket may be empty: a few are tried, then all.
    for _ in 0..16 {
        table.scan(cursor, |entry| {
            if !is_due(entry, now_ms) {
                seen += 1;
                if crate::random::below(seen) == 0 {
                    chosen = Some(entry.key().to_vec());
                }
            }
        });
        if chosen.is_some() {
            return chosen;
        }
        cursor = crate::random::next();
    }
    table.each(|entry| {
        if chosen.is_none() && !is_due(entry, now_ms) {
            chosen = Some(entry.key().to_vec());
        }
    });
    chosen
}

fn dbsize(ctx: &mut Ctx<'_, '_>) {
    let index = ctx.db.index;
    let keys = sum(ctx.shared, ctx.db, index, Table::len);
    ctx.reply.int(keys as i64);
}
