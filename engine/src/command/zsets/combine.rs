//! Unions, intersections and differences of sorted sets (plain sets count as scored 1).

use std::collections::HashMap;

use super::super::Ctx;
use super::super::collections::counted_keys;
use super::compare_scores;
use super::range::store;
use crate::keyspace::WrongType;
use crate::number::parse_f64;
use crate::types::{CollectionRef, Item};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            // inf and -inf make 0, as documented for ZUNIONSTORE.
            Aggregate::Sum => {
                let sum = a + b;
                if sum.is_nan() { 0.0 } else { sum }
            }
            Aggregate::Min => a.min(b),
            Aggregate::Max => a.max(b),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Inter,
    Diff,
}

impl Operation {
    fn of_name(name: &str) -> Operation {
        match &name[1..3] {
            "un" => Operation::Union,
            "in" => Operation::Inter,
            _ => Operation::Diff,
        }
    }
}

/// Members with scores of a set of either kind; empty when there is none.
fn members(ctx: &mut Ctx<'_, '_>, key: &[u8]) -> Result<Vec<(Vec<u8>, f64)>, WrongType> {
    let Some(entry) = ctx.db.get(key) else { return Ok(Vec::new()) };
    match entry.as_collection() {
        Some(CollectionRef::ZSet(zset)) => Ok(zset.iter().map(|(m, s)| (m.to_vec(), s)).collect()),
        Some(CollectionRef::Set(set)) => {
            Ok(set.iter().map(|m: Item<'_>| (m.to_vec(), 1.0)).collect())
        }
        _ => Err(WrongType),
    }
}

fn combined(
    ctx: &mut Ctx<'_, '_>,
    operation: Operation,
    keys: &[&[u8]],
    weights: &[f64],
    aggregate: Aggregate,
) -> Result<Vec<(Vec<u8>, f64)>, WrongType> {
    let mut all: HashMap<Vec<u8>, (f64, usize)> = HashMap::new();
    for (i, key) in keys.iter().enumerate() {
        let found = members(ctx, key)?;
        let weight = weights.get(i).copied().unwrap_or(1.0);
        for (member, score) in found {
            let weighted = score * weight;
            let score = if weighted.is_nan() { 0.0 } else { weighted };
            match operation {
                Operation::Union => {
                    let entry = all.entry(member);
                    entry.and_modify(|(s, _)| *s = aggregate.of(*s, score)).or_insert((score, 1));
                }
                Operation::Inter if i == 0 => {
                    all.insert(member, (score, 1));
                }
                Operation::Inter => {
                    if let Some((s, seen)) = all.get_mut(&member).filter(|(_, seen)| *seen == i) {
                        *s = aggregate.of(*s, score);
                        *seen += 1;
                    }
                }
                Operation::Diff if i == 0 => {
                    all.insert(member, (score, 1));
                }
                Operation::Diff => {
                    all.remove(&member);
                }
            }
        }
    }
    let whole = keys.len();
    let mut out: Vec<(Vec<u8>, f64)> = all
        .into_iter()
        .filter(|(_, (_, seen))| operation != Operation::Inter || *seen == whole)
        .map(|(member, (score, _))| (member, score))
        .collect();
    out.sort_by(|(am, a), (bm, b)| compare_scores(*a, *b).then_with(|| am.cmp(bm)));
    Ok(out)
}

/// ZUNION, ZINTER, ZDIFF and their storing forms.
pub(super) fn zcombine(ctx: &mut Ctx<'_, '_>) {
    let name = ctx.command.name;
    let (stores, operation) = (name.ends_with("store"), Operation::of_name(name));
    let at = if stores { 2 } else { 1 };
    let error = format!("ERR at least 1 input key is needed for '{name}' command");
    if ctx.int_arg(at).is_none() {
        return;
    }
    let Some((keys, mut i)) = counted_keys(ctx, at, &error) else { return };
    let (mut weights, mut aggregate, mut with_scores) = (Vec::new(), Aggregate::Sum, false);
    while i < ctx.args.len() {
        let left = ctx.args.len() - i;
        if operation != Operation::Diff && left > keys.len() && ctx.is_word(i, "weights") {
            for text in &ctx.args[i + 1..=i + keys.len()] {
                match parse_f64(text).filter(|w| !w.is_nan()) {
                    Some(weight) => weights.push(weight),
                    None => return ctx.reply.error("ERR weight value is not a float"),
                }
            }
            i += keys.len() + 1;
        } else if operation != Operation::Diff && left > 1 && ctx.is_word(i, "aggregate") {
            aggregate = match ctx.args[i + 1].to_ascii_lowercase().as_slice() {
                b"sum" => Aggregate::Sum,
                b"min" => Aggregate::Min,
                b"max" => Aggregate::Max,
                _ => return ctx.reply.syntax_error(),
            };
            i += 2;
        } else if !stores && ctx.is_word(i, "withscores") {
            with_scores = true;
            i += 1;
        } else {
            return ctx.reply.syntax_error();
        }
    }
    let pairs = match combined(ctx, operation, keys, &weights, aggregate) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(pairs) => pairs,
    };
    if stores {
        return store(ctx, pairs);
    }
    let reply = &mut *ctx.reply;
    reply.array(if with_scores && !reply.resp3 { pairs.len() * 2 } else { pairs.len() });
    for (member, score) in &pairs {
        if with_scores {
            reply.item_and_score(Item::Bytes(member), *score);
        } else {
            reply.bulk(member);
        }
    }
}

/// ZINTERCARD numkeys key... [LIMIT n].
pub(super) fn zintercard(ctx: &mut Ctx<'_, '_>) {
    if ctx.int_arg(1).is_none() {
        return;
    }
    let error = "ERR at least 1 input key is needed for 'zintercard' command";
    let Some((keys, next)) = counted_keys(ctx, 1, error) else {
        return;
    };
    let limit = match ctx.args.len() - next {
        0 => 0,
        2 if ctx.is_word(next, "limit") => {
            match crate::number::parse_i64(ctx.args[next + 1]).filter(|n| *n >= 0) {
                Some(n) => n as usize,
                None => return ctx.reply.error("ERR LIMIT can't be negative"),
            }
        }
        _ => return ctx.reply.syntax_error(),
    };
    match combined(ctx, Operation::Inter, keys, &[], Aggregate::Sum) {
        Err(WrongType) => ctx.reply.wrong_type(),
        Ok(pairs) => {
            let n = if limit == 0 { pairs.len() } else { pairs.len().min(limit) };
            ctx.reply.int(n as i64);
        }
    }
}
