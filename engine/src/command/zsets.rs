//! Sorted set commands: members and scores here, ranges in `range`, combinations in `combine`, pops in `pop`.

use smallvec::SmallVec;

use super::collections::{ScanOptions, random_count, reply_scan};
use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::WrongType;
use crate::notify::class;
use crate::number::{format_f64, parse_f64};
use crate::random;
use crate::types::{Item, ZSet};

mod combine;
mod pop;
mod range;

const fn row(
    name: &'static str,
    arity: i16,
    flags: u32,
    keys: Keys,
    since: &'static str,
    summary: &'static str,
    run: super::Handler,
) -> Command {
    Command::new(name, arity, flags, keys, Group::SortedSet, since, summary, run)
}

const READ: u32 = flag::READONLY;
const READ_FAST: u32 = flag::READONLY | flag::FAST;
const WRITE: u32 = flag::WRITE;
const WRITE_FAST: u32 = flag::WRITE | flag::FAST;
const GROW: u32 = flag::WRITE | flag::DENYOOM;
const BLOCK: u32 = flag::WRITE | flag::BLOCKING | flag::NOSCRIPT;
const MOVABLE: u32 = flag::MOVABLE_KEYS;
const ONE: Keys = Keys::FIRST;
const COUNTED: Keys = Keys::Counted { at: 1, also: 0 };
const STORED: Keys = Keys::Counted { at: 2, also: 1 };
const BUT_LAST: Keys = Keys::Range { first: 1, last: -2, step: 1 };

pub const COMMANDS: &[Command] = &[
    row("zadd", -4, GROW | flag::FAST, ONE, "1.2.0", "Adds members or sets their scores.", zadd),
    row("zincrby", 4, GROW | flag::FAST, ONE, "1.2.0", "Adds to the score of a member.", zincrby),
    row("zrem", -3, WRITE_FAST, ONE, "1.2.0", "Removes members.", zrem),
    row("zcard", 2, READ_FAST, ONE, "1.2.0", "Returns the number of members.", zcard),
    row("zscore", 3, READ_FAST, ONE, "1.2.0", "Returns the score of a member.", zscore),
    row("zmscore", -3, READ_FAST, ONE, "6.2.0", "Returns the scores of members.", zmscore),
    row("zrank", -3, READ_FAST, ONE, "2.0.0", "Returns the rank, lowest first.", zrank),
    row("zrevrank", -3, READ_FAST, ONE, "2.0.0", "Returns the rank, highest first.", zrank),
    row("zrandmember", -2, READ, ONE, "6.2.0", "Returns random members.", zrandmember),
    row("zscan", -3, READ, ONE, "2.8.0", "Walks the members.", zscan),
    row("zrange", -4, READ, ONE, "1.2.0", "Returns a range of members.", range::zrange),
    row("zrevrange", -4, READ, ONE, "1.2.0", "Returns a range, highest first.", range::zrange),
    row("zrangebyscore", -4, READ, ONE, "1.0.5", "Returns a range of scores.", range::zrange),
    row("zrevrangebyscore", -4, READ, ONE, "2.2.0", "The same, highest first.", range::zrange),
    row("zrangebylex", -4, READ, ONE, "2.8.9", "Returns a range of names.", range::zrange),
    row("zrevrangebylex", -4, READ, ONE, "2.8.9", "The same, last first.", range::zrange),
    row("zrangestore", -5, GROW, Keys::TWO, "6.2.0", "Stores a range.", range::zrange),
    row("zcount", 4, READ_FAST, ONE, "2.0.0", "Counts a range of scores.", range::zcount),
    row("zlexcount", 4, READ_FAST, ONE, "2.8.9", "Counts a range of names.", range::zcount),
    row("zremrangebyrank", 4, WRITE, ONE, "2.0.0", "Removes a range of ranks.", range::zremrange),
    row("zremrangebyscore", 4, WRITE, ONE, "1.2.0", "Removes a range of scores.", range::zremrange),
    row("zremrangebylex", 4, WRITE, ONE, "2.8.9", "Removes a range of names.", range::zremrange),
    row("zpopmin", -2, WRITE_FAST, ONE, "5.0.0", "Takes the lowest members.", pop::zpop),
    row("zpopmax", -2, WRITE_FAST, ONE, "5.0.0", "Takes the highest members.", pop::zpop),
    row(
        "bzpopmin",
        -3,
        BLOCK | flag::FAST,
        BUT_LAST,
        "5.0.0",
        "Takes the lowest, or waits.",
        pop::bzpop,
    ),
    row(
        "bzpopmax",
        -3,
        BLOCK | flag::FAST,
        BUT_LAST,
        "5.0.0",
        "Takes the highest, or waits.",
        pop::bzpop,
    ),
    row("zmpop", -4, WRITE | MOVABLE, COUNTED, "7.0.0", "Takes from the first set.", pop::zmpop),
    row(
        "bzmpop",
        -5,
        WRITE | flag::BLOCKING | MOVABLE,
        Keys::Counted { at: 2, also: 0 },
        "7.0.0",
        "Takes from the first set, or waits.",
        pop::zmpop,
    ),
    row("zunion", -3, READ | MOVABLE, COUNTED, "6.2.0", "Returns the union.", combine::zcombine),
    row("zinter", -3, READ | MOVABLE, COUNTED, "6.2.0", "The intersection.", combine::zcombine),
    row("zdiff", -3, READ | MOVABLE, COUNTED, "6.2.0", "The difference.", combine::zcombine),
    row("zunionstore", -4, GROW | MOVABLE, STORED, "2.0.0", "Stores it.", combine::zcombine),
    row("zinterstore", -4, GROW | MOVABLE, STORED, "2.0.0", "Stores it.", combine::zcombine),
    row("zdiffstore", -4, GROW | MOVABLE, STORED, "6.2.0", "Stores it.", combine::zcombine),
    row("zintercard", -3, READ | MOVABLE, COUNTED, "7.0.0", "Its size.", combine::zintercard),
];

/// The order of scores, none of which is NaN: the two zeros are the same.
pub(super) fn compare_scores(a: f64, b: f64) -> std::cmp::Ordering {
    a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal)
}

#[derive(Default)]
struct AddOptions {
    only_new: bool,
    only_there: bool,
    greater: bool,
    less: bool,
    count_changed: bool,
    incr: bool,
}

fn zadd(ctx: &mut Ctx<'_, '_>) {
    let (mut options, mut i) = (AddOptions::default(), 2);
    while i < ctx.args.len() {
        let is = |word: &[u8]| ctx.args[i].eq_ignore_ascii_case(word);
        let option = match ctx.args[i].len() {
            2 if is(b"nx") => &mut options.only_new,
            2 if is(b"xx") => &mut options.only_there,
            2 if is(b"gt") => &mut options.greater,
            2 if is(b"lt") => &mut options.less,
            2 if is(b"ch") => &mut options.count_changed,
            4 if is(b"incr") => &mut options.incr,
            _ => break,
        };
        *option = true;
        i += 1;
    }
    let pairs = &ctx.args[i..];
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return ctx.reply.syntax_error();
    }
    if options.only_new && options.only_there {
        return ctx.reply.error("ERR XX and NX options at the same time are not compatible");
    }
    let limited = [options.only_new, options.greater, options.less];
    if limited.iter().filter(|o| **o).count() > 1 {
        return ctx
            .reply
            .error("ERR GT, LT, and/or NX options at the same time are not compatible");
    }
    if options.incr && pairs.len() > 2 {
        return ctx.reply.error("ERR INCR option supports a single increment-element pair");
    }
    let mut scored: SmallVec<[(&[u8], f64); 4]> = SmallVec::new();
    for pair in pairs.chunks_exact(2) {
        match parse_f64(pair[0]).filter(|s| !s.is_nan()) {
            Some(score) => scored.push((pair[1], score)),
            None => return ctx.reply.not_a_float(),
        }
    }
    add(ctx, &options, &scored);
}

/// Adds members as ZADD with NX, XX and CH does.
pub(super) fn add_scored(
    ctx: &mut Ctx<'_, '_>,
    (only_new, only_there, count_changed): (bool, bool, bool),
    scored: &[(&[u8], f64)],
) {
    let options = AddOptions { only_new, only_there, count_changed, ..AddOptions::default() };
    add(ctx, &options, scored);
}

fn add(ctx: &mut Ctx<'_, '_>, options: &AddOptions, scored: &[(&[u8], f64)]) {
    let key = ctx.args[1];
    if options.only_there {
        match ctx.db.read::<ZSet>(key) {
            Err(WrongType) => return ctx.reply.wrong_type(),
            Ok(None) if options.incr => return ctx.reply.null(),
            Ok(None) => return ctx.reply.int(0),
            Ok(Some(_)) => {}
        }
    }
    let (mut new, mut changed, mut result, mut nan) = (0, 0, None, false);
    let done = ctx.db.upsert::<ZSet, _>(key, |zset, limits| {
        for (member, score) in scored {
            zset.put(member, limits, |old| {
                let score = if options.incr { old.unwrap_or(0.0) + score } else { *score };
                if score.is_nan() {
                    nan = true;
                    return None;
                }
                let skip = match old {
                    None => options.only_there,
                    Some(old) => {
                        options.only_new
                            || (options.greater && score <= old)
                            || (options.less && score >= old)
                    }
                };
                if skip {
                    return None;
                }
                result = Some(score);
                new += usize::from(old.is_none());
                changed += usize::from(old.is_some_and(|old| old != score));
                Some(score)
            });
            if nan {
                return;
            }
        }
    });
    if let Err(WrongType) = done {
        return ctx.reply.wrong_type();
    }
    if nan {
        return ctx.reply.error("ERR resulting score is not a number (NaN)");
    }
    if new + changed > 0 {
        let name = if options.incr { "zincr" } else { "zadd" };
        ctx.modified_to(key, class::ZSET, name);
    }
    if options.incr {
        match result {
            Some(score) => {
                if new + changed > 0 {
                    ctx.propagate(&[b"ZADD", key, &format_f64(score), scored[0].0]);
                }
                ctx.reply.double(score);
            }
            None => ctx.reply.null(),
        }
    } else {
        let n = if options.count_changed { new + changed } else { new };
        ctx.reply.int(n as i64);
    }
}

fn zincrby(ctx: &mut Ctx<'_, '_>) {
    let Some(by) = parse_f64(ctx.args[2]).filter(|n| !n.is_nan()) else {
        return ctx.reply.not_a_float();
    };
    let options = AddOptions { incr: true, ..AddOptions::default() };
    add(ctx, &options, &[(ctx.args[3], by)]);
}

fn zrem(ctx: &mut Ctx<'_, '_>) {
    let (key, members) = (ctx.args[1], &ctx.args[2..]);
    let gone = ctx.db.update::<ZSet, _>(key, |zset, _| {
        members.iter().filter(|m| zset.remove(m).is_some()).count()
    });
    match gone {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(gone) => {
            let gone = gone.unwrap_or(0);
            if gone > 0 {
                ctx.modified(key);
            }
            ctx.reply.int(gone as i64);
        }
    }
}

fn zcard(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.read::<ZSet>(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(zset) => ctx.reply.int(zset.map_or(0, ZSet::len) as i64),
    }
}

fn score(reply: &mut crate::resp::Reply, score: Option<f64>) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

fn zscore(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.read::<ZSet>(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(zset) => score(ctx.reply, zset.and_then(|z| z.score(ctx.args[2]))),
    }
}

fn zmscore(ctx: &mut Ctx<'_, '_>) {
    match ctx.db.read::<ZSet>(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(zset) => {
            ctx.reply.array(ctx.args.len() - 2);
            for member in &ctx.args[2..] {
                score(ctx.reply, zset.and_then(|z| z.score(member)));
            }
        }
    }
}

fn zrank(ctx: &mut Ctx<'_, '_>) {
    let member = ctx.args[2];
    let with_score = ctx.args.len() == 4 && ctx.is_word(3, "withscore");
    if ctx.args.len() > 4 {
        return ctx.wrong_arity();
    }
    if ctx.args.len() == 4 && !with_score {
        return ctx.reply.syntax_error();
    }
    let zset = match ctx.db.read::<ZSet>(ctx.args[1]) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(zset) => zset,
    };
    let found = zset.and_then(|z| {
        let rank = z.rank(member)?;
        let rank = if ctx.command.name == "zrank" { rank } else { z.len() - 1 - rank };
        Some((rank, z.score(member)?))
    });
    match found {
        None if with_score => ctx.reply.null_array(),
        None => ctx.reply.null(),
        Some((rank, score)) => {
            if with_score {
                ctx.reply.array(2);
            }
            ctx.reply.int(rank as i64);
            if with_score {
                ctx.reply.double(score);
            }
        }
    }
}

fn zrandmember(ctx: &mut Ctx<'_, '_>) {
    let Ok((count, with_scores)) = random_count(ctx, "withscores") else { return };
    let zset = match ctx.db.read::<ZSet>(ctx.args[1]) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(zset) => zset,
    };
    let reply = &mut *ctx.reply;
    let Some(count) = count else {
        return match zset.and_then(|z| z.random(&mut random::next)) {
            Some((member, _)) => reply.item(member),
            None => reply.null(),
        };
    };
    let Some(zset) = zset.filter(|_| count != 0) else { return reply.array(0) };
    let distinct = count > 0;
    let n = if distinct { zset.len().min(count as usize) } else { count.unsigned_abs() as usize };
    reply.array(if with_scores && !reply.resp3 { n * 2 } else { n });
    let mut put = |member: Item<'_>, score: f64| {
        if with_scores {
            reply.item_and_score(member, score);
        } else {
            reply.item(member);
        }
        !reply.over
    };
    if distinct {
        zset.random_distinct(n, &mut random::next, |member, score| {
            put(member, score);
        });
    } else {
        // As many as were asked for, or as many as a reply may hold.
        for _ in 0..n {
            match zset.random(&mut random::next) {
                Some((member, score)) if put(member, score) => {}
                _ => break,
            }
        }
    }
}

fn zscan(ctx: &mut Ctx<'_, '_>) {
    let Some(options) = ScanOptions::parse(ctx, 2, &[]) else { return };
    let zset = match ctx.db.read::<ZSet>(ctx.args[1]) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(zset) => zset,
    };
    let mut found: Vec<Vec<u8>> = Vec::new();
    let next = zset.map_or(0, |zset| {
        zset.scan(options.cursor, options.count, |member, score| {
            let member = member.to_vec();
            if options.fits(&member) {
                found.push(member);
                found.push(format_f64(score));
            }
        })
    });
    reply_scan(ctx, next, &found);
}
