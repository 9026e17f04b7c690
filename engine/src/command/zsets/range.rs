//! Ranges of a sorted set by rank, score and name.

use std::ops::Range;

use super::super::Ctx;
use super::super::collections::index_range;
use crate::keyspace::{Ttl, WrongType};
use crate::types::{Collection, LexBound, ScoreBound, ZSet};

/// What the two ends of a range mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// The ends, parsed. Lowest first, whatever the direction.
#[derive(Clone, Copy)]
enum Ends<'a> {
    Rank(i64, i64),
    Score(ScoreBound, ScoreBound),
    Lex(LexBound<'a>, LexBound<'a>),
}

impl<'a> Ends<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Ends<'a>, &'static str> {
        match by {
            By::Rank => crate::number::parse_i64(min)
                .zip(crate::number::parse_i64(max))
                .map(|(a, b)| Ends::Rank(a, b))
                .ok_or("ERR value is not an integer or out of range"),
            By::Score => ScoreBound::parse(min)
                .zip(ScoreBound::parse(max))
                .map(|(a, b)| Ends::Score(a, b))
                .ok_or("ERR min or max is not a float"),
            By::Lex => LexBound::parse(min)
                .zip(LexBound::parse(max))
                .map(|(a, b)| Ends::Lex(a, b))
                .ok_or("ERR min or max not valid string range item"),
        }
    }

    /// The ranks between the ends, lowest first.
    fn ranks(self, zset: &ZSet, reverse: bool) -> Range<usize> {
        match self {
            Ends::Rank(start, stop) => {
                let range = index_range(start, stop, zset.len());
                if reverse { zset.len() - range.end..zset.len() - range.start } else { range }
            }
            Ends::Score(min, max) => zset.rank_range_by_score(min, max),
            Ends::Lex(min, max) => zset.rank_range_by_lex(min, max),
        }
    }
}

/// ZRANGE, ZRANGESTORE and the older commands that it took in.
pub(super) fn zrange(ctx: &mut Ctx<'_, '_>) {
    let name = ctx.command.name;
    let stores = name == "zrangestore";
    let new_style = matches!(name, "zrange" | "zrangestore");
    let from = if stores { 2 } else { 1 };
    let mut reverse = name.starts_with("zrev");
    let mut by = if name.ends_with("byscore") {
        Some(By::Score)
    } else if name.ends_with("bylex") {
        Some(By::Lex)
    } else {
        None
    };
    let (mut with_scores, mut limit) = (false, None);
    let mut i = from + 3;
    while i < ctx.args.len() {
        if new_style && !reverse && ctx.is_word(i, "rev") {
            reverse = true;
        } else if new_style && by.is_none() && ctx.is_word(i, "byscore") {
            by = Some(By::Score);
        } else if new_style && by.is_none() && ctx.is_word(i, "bylex") {
            by = Some(By::Lex);
        } else if !stores && ctx.is_word(i, "withscores") {
            with_scores = true;
        } else if ctx.is_word(i, "limit") && i + 2 < ctx.args.len() {
            let Some(offset) = ctx.int_arg(i + 1) else { return };
            let Some(count) = ctx.int_arg(i + 2) else { return };
            limit = Some((offset, count));
            i += 2;
        } else {
            return ctx.reply.syntax_error();
        }
        i += 1;
    }
    let by = by.unwrap_or(By::Rank);
    if limit.is_some() && by == By::Rank {
        return ctx.reply.error(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        );
    }
    if with_scores && by == By::Lex {
        return ctx
            .reply
            .error("ERR syntax error, WITHSCORES not supported in combination with BYLEX");
    }
    // Ranges of values that go backwards are given highest first.
    let swapped = reverse && by != By::Rank;
    let (a, b) = (ctx.args[from + 1], ctx.args[from + 2]);
    let (min, max) = if swapped { (b, a) } else { (a, b) };
    let ends = match Ends::parse(by, min, max) {
        Ok(ends) => ends,
        Err(error) => return ctx.reply.error(error),
    };
    let zset = match ctx.db.read::<ZSet>(ctx.args[from]) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(zset) => zset,
    };
    let ranks = zset.map_or(0..0, |z| limited(ends.ranks(z, reverse), limit, reverse));
    if stores {
        let pairs: Vec<(Vec<u8>, f64)> = zset.map_or_else(Vec::new, |z| {
            z.iter_ranks(ranks).map(|(member, score)| (member.to_vec(), score)).collect()
        });
        return store(ctx, pairs);
    }
    let Some(zset) = zset else { return ctx.reply.array(0) };
    let reply = &mut *ctx.reply;
    reply.array(if with_scores && !reply.resp3 { ranks.len() * 2 } else { ranks.len() });
    let mut put = |(member, score): (crate::types::Item<'_>, f64)| {
        if with_scores {
            reply.item_and_score(member, score);
        } else {
            reply.item(member);
        }
    };
    if reverse {
        zset.iter_ranks(ranks).rev().for_each(&mut put);
    } else {
        zset.iter_ranks(ranks).for_each(&mut put);
    }
}

/// LIMIT offset count, counted from the end that comes first.
fn limited(ranks: Range<usize>, limit: Option<(i64, i64)>, reverse: bool) -> Range<usize> {
    let Some((offset, count)) = limit else { return ranks };
    if offset < 0 || offset as u64 >= ranks.len() as u64 {
        return 0..0;
    }
    let left = ranks.len() - offset as usize;
    let take = if count < 0 { left } else { left.min(count as usize) };
    if reverse {
        let end = ranks.end - offset as usize;
        end - take..end
    } else {
        let start = ranks.start + offset as usize;
        start..start + take
    }
}

/// Puts pairs in place of the first key, and answers how many there are.
pub(super) fn store(ctx: &mut Ctx<'_, '_>, pairs: Vec<(Vec<u8>, f64)>) {
    let to = ctx.args[1];
    let n = pairs.len();
    if n > 0 || ctx.db.exists(to) {
        let limits = ctx.db.env.limits;
        let zset = ZSet::from_pairs(pairs, &limits).unwrap_or_default();
        ctx.db.set_collection(to, Collection::ZSet(zset), Ttl::Clear);
        ctx.modified(to);
    }
    ctx.reply.int(n as i64);
}

/// ZCOUNT and ZLEXCOUNT.
pub(super) fn zcount(ctx: &mut Ctx<'_, '_>) {
    let by = if ctx.command.name == "zcount" { By::Score } else { By::Lex };
    let ends = match Ends::parse(by, ctx.args[2], ctx.args[3]) {
        Ok(ends) => ends,
        Err(error) => return ctx.reply.error(error),
    };
    match ctx.db.read::<ZSet>(ctx.args[1]) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(zset) => ctx.reply.int(zset.map_or(0, |z| ends.ranks(z, false).len()) as i64),
    }
}

/// ZREMRANGEBYRANK, -BYSCORE and -BYLEX.
pub(super) fn zremrange(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    let by = match ctx.command.name {
        "zremrangebyrank" => By::Rank,
        "zremrangebyscore" => By::Score,
        _ => By::Lex,
    };
    let ends = match Ends::parse(by, ctx.args[2], ctx.args[3]) {
        Ok(ends) => ends,
        Err(error) => return ctx.reply.error(error),
    };
    let gone = ctx.db.update::<ZSet, _>(key, |zset, _| {
        let ranks = ends.ranks(zset, false);
        zset.remove_ranks(ranks)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_from_the_end_that_comes_first() {
        assert_eq!(limited(2..8, None, false), 2..8);
        assert_eq!(limited(2..8, Some((1, 2)), false), 3..5);
        assert_eq!(limited(2..8, Some((1, 2)), true), 5..7);
        assert_eq!(limited(2..8, Some((4, -1)), false), 6..8);
        assert_eq!(limited(2..8, Some((6, 1)), false), 0..0);
        assert_eq!(limited(2..8, Some((-1, 1)), false), 0..0);
        assert_eq!(limited(2..8, Some((0, i64::MAX)), true), 2..8);
    }
}
