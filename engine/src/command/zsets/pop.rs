//! Taking members with the lowest or highest scores, the blocking forms included.

use super::super::collections::counted_keys;
use super::super::{Ctx, flag};
use crate::keyspace::WrongType;
use crate::notify::class;
use crate::number::parse_i64;
use crate::types::ZSet;
use crate::waiters::OnTimeout;

type Popped = Vec<(Vec<u8>, f64)>;

/// Takes up to `count` members; `None` when there is no set.
fn take(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    lowest: bool,
    count: usize,
) -> Result<Option<Popped>, WrongType> {
    let popped = ctx.db.update::<ZSet, _>(key, |zset, _| {
        let n = count.min(zset.len());
        (0..n)
            .filter_map(|_| if lowest { zset.pop_min() } else { zset.pop_max() })
            .collect::<Popped>()
    })?;
    if let Some(popped) = &popped
        && !popped.is_empty()
    {
        ctx.modified_as(key, class::ZSET, if lowest { "zpopmin" } else { "zpopmax" });
        let mut request: Vec<&[u8]> = vec![b"ZREM", key];
        request.extend(popped.iter().map(|(member, _)| member.as_slice()));
        ctx.propagate(&request);
    }
    Ok(popped)
}

/// ZPOPMIN and ZPOPMAX.
pub(super) fn zpop(ctx: &mut Ctx<'_, '_>) {
    let key = ctx.args[1];
    let lowest = ctx.command.name == "zpopmin";
    if ctx.args.len() > 3 {
        return ctx.reply.syntax_error();
    }
    let count = match ctx.args.get(2).map(|n| parse_i64(n)) {
        None => None,
        Some(Some(n)) if n >= 0 => Some(n as usize),
        Some(_) => return ctx.reply.error("ERR value is out of range, must be positive"),
    };
    let popped = match take(ctx, key, lowest, count.unwrap_or(1)) {
        Err(WrongType) => return ctx.reply.wrong_type(),
        Ok(popped) => popped.unwrap_or_default(),
    };
    let reply = &mut *ctx.reply;
    // With a count RESP3 gets pairs of their own; without one, member and score side by side.
    let nested = count.is_some() && reply.resp3;
    reply.array(if nested { popped.len() } else { popped.len() * 2 });
    for (member, score) in &popped {
        if nested {
            reply.array(2);
        }
        reply.bulk(member);
        reply.double(*score);
    }
}

/// BZPOPMIN and BZPOPMAX.
pub(super) fn bzpop(ctx: &mut Ctx<'_, '_>) {
    let lowest = ctx.command.name == "bzpopmin";
    let last = ctx.args.len() - 1;
    let Some(deadline) = ctx.deadline_arg(last) else { return };
    let keys = &ctx.args[1..last];
    for &key in keys {
        match take(ctx, key, lowest, 1) {
            // A key of another type has woken the client for nothing.
            Err(WrongType) if ctx.retry => {}
            Err(WrongType) => return ctx.reply.wrong_type(),
            Ok(popped) => {
                if let Some((member, score)) = popped.unwrap_or_default().first() {
                    ctx.reply.array(3);
                    ctx.reply.bulk(key);
                    ctx.reply.bulk(member);
                    ctx.reply.double(*score);
                    return;
                }
            }
        }
    }
    ctx.block(keys, deadline, OnTimeout::NullArray);
}

/// ZMPOP and BZMPOP.
pub(super) fn zmpop(ctx: &mut Ctx<'_, '_>) {
    let blocks = ctx.command.is(flag::BLOCKING);
    let at = if blocks { 2 } else { 1 };
    let Some((keys, next)) = counted_keys(ctx, at, "ERR numkeys should be greater than 0") else {
        return;
    };
    let lowest = ctx.is_word(next, "min");
    if !lowest && !ctx.is_word(next, "max") {
        return ctx.reply.syntax_error();
    }
    let count = match ctx.args.len() - next {
        1 => 1,
        3 if ctx.is_word(next + 1, "count") => {
            match super::super::hashes::positive(ctx.args[next + 2]) {
                Some(n) => n,
                None => return ctx.reply.error("ERR count should be greater than 0"),
            }
        }
        _ => return ctx.reply.syntax_error(),
    };
    let deadline = if blocks {
        match ctx.deadline_arg(1) {
            Some(deadline) => deadline,
            None => return,
        }
    } else {
        0
    };
    for &key in keys {
        match take(ctx, key, lowest, count) {
            // A key of another type has woken the client for nothing.
            Err(WrongType) if ctx.retry => {}
            Err(WrongType) => return ctx.reply.wrong_type(),
            Ok(None) => {}
            Ok(Some(popped)) => {
                let reply = &mut *ctx.reply;
                reply.array(2);
                reply.bulk(key);
                reply.array(popped.len());
                for (member, score) in &popped {
                    reply.array(2);
                    reply.bulk(member);
                    reply.double(*score);
                }
                return;
            }
        }
    }
    if blocks {
        ctx.block(keys, deadline, OnTimeout::NullArray);
    } else {
        ctx.reply.null_array();
    }
}
