//! CLUSTERSCAN: walks over the keys of a whole cluster, one slot behind the other, wherever they are.
//!
//! ```text
//! cursor = fingerprint-{tag}-at     tag: a text whose slot is the one to go on in, so that the cursor is routed as a key is
//!                                   at:  the cursor in the slot's table, of the process with that fingerprint
//! ```
//!
//! In another process the slot begins anew: its tables are in another order. The cursor's slot is locked as that of a key;
//! slots behind it that are here too are walked as far as their locks are free.

use std::sync::OnceLock;

use smallvec::{SmallVec, smallvec};

use super::cluster_slots::slot_arg;
use super::{Command, Ctx, Group, Keys, flag};
use crate::glob;
use crate::keyspace::hash_key;
use crate::number::parse_cursor;
use crate::topology::{SLOTS, slot_of};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("clusterscan", -2, flag::READONLY, Keys::Custom(cursor_key), Group::Generic, "9.1.0", "Walks over the keys of the cluster in steps.", clusterscan),
];

/// Slots that one request walks over, under all their locks.
const SLOTS_MAX: usize = 256;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BEGINNING: &[u8] = b"0";

/// A cursor goes where its slot is; the first one anywhere.
fn cursor_key(args: &[&[u8]]) -> SmallVec<[usize; 8]> {
    if args.get(1).is_some_and(|cursor| *cursor == BEGINNING) { smallvec![] } else { smallvec![1] }
}

fn letters(mut n: u64, count: usize) -> String {
    let mut text = String::with_capacity(count);
    for _ in 0..count {
        text.push(char::from(LETTERS[(n % 62) as usize]));
        n /= 62;
    }
    text
}

/// A text of three letters in each slot.
fn tag(slot: u16) -> &'static str {
    static TAGS: OnceLock<Vec<String>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let mut tags = vec![String::new(); usize::from(SLOTS)];
        for text in (0..62 * 62 * 62).map(|n| letters(n, 3)) {
            let place = &mut tags[usize::from(slot_of(text.as_bytes()))];
            if place.is_empty() {
                *place = text;
            }
        }
        tags
    });
    &tags[usize::from(slot)]
}

/// Names the order of this process's tables.
fn fingerprint() -> String {
    letters(hash_key(b"clusterscan"), 6)
}

/// Where to go on: a slot, and the place in its table.
fn cursor(slot: u16, at: u64) -> String {
    let whose = if at == 0 { BEGINNING_OF_SLOT.into() } else { fingerprint() };
    format!("{whose}-{{{}}}-{at}", tag(slot))
}

/// In place of a fingerprint, where nothing was walked yet.
const BEGINNING_OF_SLOT: &str = "0";

fn parse_place(text: &[u8]) -> Option<(u16, u64)> {
    let mut parts = text.splitn(2, |byte| *byte == b'-');
    let (whose, rest) = (parts.next()?, parts.next()?);
    let dash = rest.iter().rposition(|byte| *byte == b'-')?;
    let at = parse_cursor(&rest[dash + 1..])?;
    if !rest.starts_with(b"{") || !rest[..dash].ends_with(b"}") {
        return None;
    }
    Some((slot_of(text), if whose == fingerprint().as_bytes() { at } else { 0 }))
}

#[derive(Default)]
struct Options<'a> {
    pattern: Option<&'a [u8]>,
    count: usize,
    kind: Option<Vec<u8>>,
    only: Option<u16>,
}

impl<'a> Options<'a> {
    fn parse(ctx: &mut Ctx<'a, '_>) -> Option<Self> {
        let mut options = Options { count: 10, ..Options::default() };
        if !ctx.args.len().is_multiple_of(2) {
            ctx.reply.syntax_error();
            return None;
        }
        for i in (2..ctx.args.len()).step_by(2) {
            let value = ctx.args[i + 1];
            if ctx.is_word(i, "match") {
                options.pattern = Some(value);
            } else if ctx.is_word(i, "count") {
                match ctx.int_arg(i + 1)? {
                    n if n < 1 => {
                        ctx.reply.syntax_error();
                        return None;
                    }
                    n => options.count = n as usize,
                }
            } else if ctx.is_word(i, "type") {
                let kind = value.to_ascii_lowercase();
                let known = ["string", "list", "set", "zset", "hash", "stream"];
                if !known.iter().any(|name| name.as_bytes() == kind) {
                    let name = super::exec::printable(value);
                    ctx.reply.error(&format!("ERR unknown type name '{name}'"));
                    return None;
                }
                options.kind = Some(kind);
            } else if ctx.is_word(i, "slot") {
                options.only = Some(slot_arg(ctx, i + 1)?);
            } else {
                ctx.reply.syntax_error();
                return None;
            }
        }
        Some(options)
    }
}

fn clusterscan(ctx: &mut Ctx<'_, '_>) {
    if !ctx.shared.cluster.is_enabled() {
        return ctx.reply.error("ERR This instance has cluster support disabled");
    }
    let Some(options) = Options::parse(ctx) else { return };
    if ctx.args[1] == BEGINNING {
        // Nobody knows yet who has the first slot: the next request goes there.
        return reply(ctx, &cursor(options.only.unwrap_or(0), 0), &[]);
    }
    let Some((mut slot, mut at)) = parse_place(ctx.args[1]) else {
        return ctx.reply.error("ERR Invalid cursor");
    };
    if options.only.is_some_and(|only| only != slot) {
        return ctx.reply.error("ERR Cursor slot mismatch with SLOT argument");
    }
    let (mut found, mut looked_at) = (Vec::new(), 0);
    for _ in 0..SLOTS_MAX {
        at = walk(ctx, slot, at, &options, &mut looked_at, &mut found);
        if at != 0 {
            break;
        }
        slot += 1;
        if options.only.is_some() || slot == SLOTS {
            return reply(ctx, "0", &found);
        }
        let here = ctx.shared.cluster.owns(slot);
        if looked_at >= options.count || !here || !ctx.db.locked().try_add(slot) {
            break;
        }
    }
    reply(ctx, &cursor(slot, at), &found);
}

/// Walks on in a slot until enough was looked at; gives the place to go on at, 0 at its end.
fn walk(
    ctx: &mut Ctx<'_, '_>,
    slot: u16,
    mut at: u64,
    options: &Options<'_>,
    looked_at: &mut usize,
    found: &mut Vec<Vec<u8>>,
) -> u64 {
    let (index, now) = (ctx.db.index, ctx.db.now_ms());
    if !ctx.shared.keyspace.is_made(index) {
        return 0;
    }
    let table = ctx.db.locked().table(index, slot);
    loop {
        at = table.scan(at, |entry| {
            *looked_at += 1;
            let kind = || super::keys::type_name(entry).as_bytes();
            let wanted = entry.ttl().is_none_or(|ttl| ttl > now)
                && options.pattern.is_none_or(|p| glob::matches(p, entry.key()))
                && options.kind.as_deref().is_none_or(|wanted| wanted == kind());
            if wanted {
                found.push(entry.key().to_vec());
            }
        });
        if at == 0 || *looked_at >= options.count {
            return at;
        }
    }
}

fn reply(ctx: &mut Ctx<'_, '_>, next: &str, found: &[Vec<u8>]) {
    ctx.reply.array(2);
    ctx.reply.bulk(next.as_bytes());
    ctx.reply.array(found.len());
    found.iter().for_each(|key| ctx.reply.bulk(key));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_a_tag_that_leads_there() {
        for slot in 0..SLOTS {
            assert_eq!(slot_of(cursor(slot, 0).as_bytes()), slot);
            assert_eq!(parse_place(cursor(slot, 7).as_bytes()), Some((slot, 7)));
        }
    }

    #[test]
    fn places_of_other_processes_begin_their_slot_anew() {
        let elsewhere = cursor(42, 7).replace(&fingerprint(), "nobody");
        assert_eq!(parse_place(elsewhere.as_bytes()), Some((42, 0)));
        for bad in ["", "1", "abc", "x-{06S}", "a-{06S}-x", "a-{06S}--1"] {
            assert_eq!(parse_place(bad.as_bytes()), None, "{bad}");
        }
    }
}
