//! CLUSTER SLOT-STATS: how much is in each slot of this member, as in Valkey 8 where only keys are counted.
//!
//! Time and bytes of each slot are not counted: that would be a write to memory that is shared by all loops with every
//! request. Valkey, too, leaves them out unless `cluster-slot-stats-enabled` says otherwise.

use super::Ctx;
use super::cluster_slots::slot_arg;
use super::walk::with_slot;
use crate::topology::SLOTS;

/// A slot and its number of keys.
type Count = (u16, i64);

pub(super) fn slot_stats(ctx: &mut Ctx<'_, '_>) {
    let counts = if ctx.is_word(2, "slotsrange") && ctx.args.len() == 5 {
        in_range(ctx)
    } else if ctx.is_word(2, "orderby") && ctx.args.len() >= 4 {
        in_order(ctx)
    } else {
        return ctx.reply.syntax_error();
    };
    // What was wrong is replied.
    let Some(counts) = counts else { return };
    ctx.reply.array(counts.len());
    for (slot, keys) in counts {
        ctx.reply.array(2);
        ctx.reply.int(i64::from(slot));
        ctx.reply.map(1);
        ctx.reply.bulk(b"key-count");
        ctx.reply.int(keys);
    }
}

fn count(ctx: &mut Ctx<'_, '_>, slots: impl Iterator<Item = u16>) -> Vec<Count> {
    let db = ctx.db.index;
    let mine = slots.filter(|slot| ctx.shared.cluster.owns(*slot)).collect::<Vec<u16>>();
    let mut keys = |slot| with_slot(ctx.shared, ctx.db, db, slot, |t| t.len()).unwrap_or(0) as i64;
    mine.into_iter().map(|slot| (slot, keys(slot))).collect()
}

fn in_range(ctx: &mut Ctx<'_, '_>) -> Option<Vec<Count>> {
    let (first, last) = (slot_arg(ctx, 3)?, slot_arg(ctx, 4)?);
    if first > last {
        let text = format!("ERR Start slot number {first} is greater than end slot number {last}");
        ctx.reply.error(&text);
        return None;
    }
    Some(count(ctx, first..=last))
}

fn in_order(ctx: &mut Ctx<'_, '_>) -> Option<Vec<Count>> {
    if !ctx.is_word(3, "key-count") {
        ctx.reply.error("ERR Unrecognized sort metric for ORDERBY.");
        return None;
    }
    let (mut limit, mut ascends) = (usize::from(SLOTS), false);
    let mut at = 4;
    while at < ctx.args.len() {
        if ctx.is_word(at, "limit") && at + 1 < ctx.args.len() {
            let number = crate::number::parse_i64(ctx.args[at + 1]);
            let number = number.and_then(|n| usize::try_from(n).ok());
            let Some(number) = number.filter(|n| (1..=usize::from(SLOTS)).contains(n)) else {
                let text = "ERR Limit has to lie in between 1 and 16384 (maximum number of slots).";
                ctx.reply.error(text);
                return None;
            };
            limit = number;
            at += 2;
        } else if ctx.is_word(at, "asc") || ctx.is_word(at, "desc") {
            ascends = ctx.is_word(at, "asc");
            at += 1;
        } else {
            ctx.reply.syntax_error();
            return None;
        }
    }
    let mut counts = count(ctx, 0..SLOTS);
    // Of equal ones the lower slot comes first, either way.
    counts.sort_by_key(|(slot, keys)| (if ascends { *keys } else { -keys }, *slot));
    counts.truncate(limit);
    Some(counts)
}
