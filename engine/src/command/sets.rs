//! Set commands.

use super::collections::{ScanOptions, counted_keys, random_count, reply_scan};
use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::{Ttl, WrongType};
use crate::notify::class;
use crate::random;
use crate::types::{Collection, Item, Set};

const fn row(
    name: &'static str,
    arity: i16,
    flags: u32,
    keys: Keys,
    since: &'static str,
    summary: &'static str,
    run: super::Handler,
) -> Command {
    Command::new(name, arity, flags, keys, Group::Set, since, summary, run)
}

const READ: u32 = flag::READONLY;
const READ_FAST: u32 = flag::READONLY | flag::FAST;
const WRITE_FAST: u32 = flag::WRITE | flag::FAST;
const GROW: u32 = flag::WRITE | flag::DENYOOM;
const ONE: Keys = Keys::FIRST;
const ALL: Keys = Keys::ALL;

pub const COMMANDS: &[Command] = &[
    row("sadd", -3, GROW | flag::FAST, ONE, "1.0.0", "Adds members.", sadd),
    row("srem", -3, WRITE_FAST, ONE, "1.0.0", "Removes members.", srem),
    row("scard", 2, READ_FAST, ONE, "1.0.0", "Returns the number of members.", scard),
    row("sismember", 3, READ_FAST, ONE, "1.0.0", "Tells whether a member is there.", sismember),
    row("smismember", -3, READ_FAST, ONE, "6.2.0", "Tells which members are there.", smismember),
    row("smembers", 2, READ, ONE, "1.0.0", "Returns all members.", smembers),
    row("spop", -2, WRITE_FAST, ONE, "1.0.0", "Takes random members.", spop),
    row("srandmember", -2, READ, ONE, "1.0.0", "Returns random members.", srandmember),
    row("smove", 4, WRITE_FAST, Keys::TWO, "1.0.0", "Moves a member.", smove),
    row("sinter", -2, READ, ALL, "1.0.0", "Returns the intersection.", combine),
    row("sunion", -2, READ, ALL, "1.0.0", "Returns the union.", combine),
    row("sdiff", -2, READ, ALL, "1.0.0", "Returns the difference.", combine),
    row("sinterstore", -3, GROW, ALL, "1.0.0", "Stores the intersection.", combine_store),
    row("sunionstore", -3, GROW, ALL, "1.0.0", "Stores the union.", combine_store),
    row("sdiffstore", -3, GROW, ALL, "1.0.0", "Stores the difference.", combine_store),
    row(
        "sintercard",
        -3,
        READ | flag::MOVABLE_KEYS,
        Keys::Counted { at: 1, also: 0 },
        "7.0.0",
        "Returns the size of the intersection.",
        sintercard,
    ),
    row("sscan", -3, READ, ONE, "2.8.0", "Walks the members.", sscan),
];

fn sadd(ctx: &mut Ctx<'_, '_>) {
    let (key, members) = (ctx.args[1], &ctx.args[2..]);
    let new = ctx
        .db
        .upsert::<Set, _>(key, |set, limits| members.iter().filter(|m| set.add(m, limits)).count());
    changed(ctx, key, new.map(Some));
}

fn srem(ctx: &mut Ctx<'_, '_>) {
    let (key, members) = (ctx.args[1], &ctx.args[2..]);
    let gone =
        ctx.db.update::<Set, _>(key, |set, _| members.iter().filter(|m| set.remove(m)).count());
    changed(ctx, key, gone);
}

fn changed(ctx: &mut Ctx<'_, '_>, key: &[u8], n: Result<Option<usize>, WrongType>) {
    match n {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(n) => {
            let n = n.unwrap_or(0);
            if n > 0 {
                ctx.modified(key);
            }
            ctx.reply.int(n as i64);
        }
    }
}

fn scard(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.read::<Set>(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(set) => ctx.reply.int(set.map_or(0, Set::len) as i64),
    }
}

fn sismember(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.read::<Set>(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(set) => ctx.reply.int(i64::from(set.is_some_and(|s| s.contains(ctx.args[2])))),
    }
}

fn smismember(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.read::<Set>(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(set) => {
            ctx.reply.array(ctx.args.len() - 2);
            for member in &ctx.args[2..] {
                ctx.reply.int(i64::from(set.is_some_and(|s| s.contains(member))));
            }
        }
    }
}

fn smembers(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.read::<Set>(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(None) => ctx.reply.set(0),
        Ok(Some(set)) => {
            ctx.reply.set(set.len());
            set.iter().for_each(|member| ctx.reply.item(member));
        }
    }
}

fn spop(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    if ctx.args.len() > 3 {
        return ctx.reply.syntax_error();
    }
    let count = match ctx.args.get(2).map(|n| crate::number::parse_i64(n)) {
        None => None,
        Some(Some(n)) if n >= 0 => Some(n as usize),
        Some(_) => return ctx.reply.error("ERR value is out of range, must be positive"),
    };
    let popped = ctx.db.update::<Set, _>(key, |set, _| {
        let n = count.unwrap_or(1).min(set.len());
        (0..n).filter_map(|_| set.pop_random(&mut random::next)).collect::<Vec<_>>()
    });
    let popped = match popped {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(popped) => popped.unwrap_or_default(),
    };
    if !popped.is_empty() {
        ctx.modified(key);
        let mut request: Vec<&[u8]> = vec![b"SREM", key];
        request.extend(popped.iter().map(Vec::as_slice));
        ctx.propagate(&request);
    }
    match count {
        None => match popped.first() {
            Some(member) => ctx.reply.bulk(member),
            None => ctx.reply.null(),
        },
        Some(_) => {
            ctx.reply.set(popped.len());
            popped.iter().for_each(|member| ctx.reply.bulk(member));
        }
    }
}

fn srandmember(ctx: &mut Ctx<'_, '_>) {
    if ctx.args.len() > 3 {
        return ctx.reply.syntax_error();
    }
    let Ok((count, _)) = random_count(ctx, "") else { return };
    let set = match ctx.db.read::<Set>(ctx.args[1]) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(set) => set,
    };
    let reply = &mut *ctx.reply;
    match (count, set) {
        (None, None) => reply.null(),
        (None, Some(set)) => match set.random(&mut random::next) {
            Some(member) => reply.item(member),
            None => reply.null(),
        },
        (Some(_), None) | (Some(0), _) => reply.array(0),
        (Some(n), Some(set)) if n > 0 => {
            let n = set.len().min(n as usize);
            reply.array(n);
            set.random_distinct(n, &mut random::next, |member| reply.item(member));
        }
        (Some(n), Some(set)) => {
            reply.array(n.unsigned_abs() as usize);
            // As many as were asked for, or as many as a reply may hold.
            for _ in 0..n.unsigned_abs() {
                match set.random(&mut random::next) {
                    Some(member) if !reply.over => reply.item(member),
                    _ => break,
                }
            }
        }
    }
}

fn smove(ctx: &mut Ctx<'_, '_>) {
    let (from, to, member) = (ctx.args[1], ctx.args[2], ctx.args[3]);
    let there = match ctx.db.read::<Set>(from) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(None) => return ctx.reply.int(0),
        Ok(Some(set)) => set.contains(member),
    };
    if let Err(WrongType) = ctx.db.read::<Set>(to) {
        return ctx.reply.wrong_type();
    }
    if !there || from == to {
        return ctx.reply.int(i64::from(there));
    }
    // Both types were checked above, under the same locks.
    let _ = ctx.db.update::<Set, _>(from, |set, _| set.remove(member));
    ctx.modified_as(from, class::SET, "srem");
    let added = ctx.db.upsert::<Set, _>(to, |set, limits| set.add(member, limits));
    if added == Ok(true) {
        ctx.modified_to(to, class::SET, "sadd");
    }
    ctx.reply.int(1);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Inter,
    Union,
    Diff,
}

impl Operation {
    fn of_name(name: &str) -> Operation {
        match &name[1..3] {
            "in" => Operation::Inter,
            "un" => Operation::Union,
            _ => Operation::Diff,
        }
    }
}

/// The members of a combination of sets.
fn combined(
    ctx: &mut Ctx<'_, '_>,
    operation: Operation,
    keys: &[&[u8]],
    limit: usize,
) -> Result<Vec<Vec<u8>>, WrongType> {
    let limits = ctx.db.env.limits;
    match operation {
        Operation::Inter => {
            // From the smallest set: each of its members is looked for in all others.
            let mut smallest: Option<(usize, &[u8])> = None;
            let mut missing = false;
            for &key in keys {
                match ctx.db.read::<Set>(key)?.map(Set::len) {
                    None => missing = true,
                    Some(n) if smallest.is_none_or(|(m, _)| n < m) => smallest = Some((n, key)),
                    Some(_) => {}
                }
            }
            let Some((_, first)) = smallest.filter(|_| !missing) else { return Ok(Vec::new()) };
            let mut members: Vec<Vec<u8>> = ctx
                .db
                .read::<Set>(first)?
                .map_or_else(Vec::new, |s| s.iter().map(Item::to_vec).collect());
            for &key in keys.iter().filter(|k| **k != first) {
                if let Some(set) = ctx.db.read::<Set>(key)? {
                    members.retain(|m| set.contains(m));
                }
            }
            members.truncate(limit);
            Ok(members)
        }
        Operation::Union => {
            let mut all = Set::new();
            for &key in keys {
                if let Some(set) = ctx.db.read::<Set>(key)? {
                    for member in set.iter() {
                        all.add(&member.to_vec(), &limits);
                    }
                }
            }
            Ok(all.iter().map(Item::to_vec).collect())
        }
        Operation::Diff => {
            let mut members: Vec<Vec<u8>> = ctx
                .db
                .read::<Set>(keys[0])?
                .map_or_else(Vec::new, |s| s.iter().map(Item::to_vec).collect());
            for &key in &keys[1..] {
                if let Some(set) = ctx.db.read::<Set>(key)? {
                    members.retain(|m| !set.contains(m));
                }
            }
            Ok(members)
        }
    }
}

fn combine(ctx: &mut Ctx<'_, '_>) {
    let (operation, keys) = (Operation::of_name(ctx.command.name), &ctx.args[1..]);
    match combined(ctx, operation, keys, usize::MAX) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(members) => {
            ctx.reply.set(members.len());
            members.iter().for_each(|member| ctx.reply.bulk(member));
        }
    }
}

fn combine_store(ctx: &mut Ctx<'_, '_>) {
    let (to, keys) = (ctx.args[1], &ctx.args[2..]);
    let operation = Operation::of_name(ctx.command.name);
    match combined(ctx, operation, keys, usize::MAX) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(members) => {
            let limits = ctx.db.env.limits;
            let mut set = Set::new();
            members.iter().for_each(|member| {
                set.add(member, &limits);
            });
            if !set.is_empty() || ctx.db.exists(to) {
                ctx.db.set_collection(to, Collection::Set(set), Ttl::Clear);
                ctx.modified(to);
            }
            ctx.reply.int(members.len() as i64);
        }
    }
}

fn sintercard(ctx: &mut Ctx<'_, '_>) {
    if crate::number::parse_i64(ctx.args[1]).is_some_and(|n| n > ctx.args.len() as i64 - 2) {
        return ctx.reply.error("ERR Number of keys can't be greater than number of args");
    }
    let Some((keys, next)) = counted_keys(ctx, 1, "ERR numkeys should be greater than 0") else {
        return;
    };
    let limit = match ctx.args.len() - next {
        0 => 0,
        2 if ctx.is_word(next, "limit") => match crate::number::parse_i64(ctx.args[next + 1]) {
            Some(n) if n >= 0 => n as usize,
            Some(_) => return ctx.reply.error("ERR LIMIT can't be negative"),
            None => return ctx.reply.error("ERR LIMIT can't be negative"),
        },
        _ => return ctx.reply.syntax_error(),
    };
    let most = if limit == 0 { usize::MAX } else { limit };
    match combined(ctx, Operation::Inter, keys, most) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(members) => ctx.reply.int(members.len() as i64),
    }
}

fn sscan(ctx: &mut Ctx<'_, '_>) {
    let Some(options) = ScanOptions::parse(ctx, 2, &[]) else { return };
    let set = match ctx.db.read::<Set>(ctx.args[1]) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(set) => set,
    };
    let mut found: Vec<Vec<u8>> = Vec::new();
    let next = set.map_or(0, |set| {
        set.scan(options.cursor, options.count, |member| {
            let member = member.to_vec();
            if options.fits(&member) {
                found.push(member);
            }
        })
    });
    reply_scan(ctx, next, &found);
}
