//! CLUSTER subcommands that change something: each is a wish that is put to the council.
//!
//! As in Redis and Valkey they answer when the wish has been made; what became of it is seen in CLUSTER NODES
//! and CLUSTER GETSLOTMIGRATIONS.

use super::Ctx;
use crate::cluster::View;
use crate::topology::{Change, MemberId, Move, SLOTS, Shard, ShardId, SlotRange};

/// Puts changes to the council without waiting for them: a loop must not.
fn wish(ctx: &mut Ctx<'_, '_>, changes: Vec<Change>) {
    let Some(engine) = ctx.shared.managed.get().cloned() else {
        return ctx.reply.error("ERR this member has no council");
    };
    let put = move || {
        for change in changes {
            if let Err(why) = engine.propose(change) {
                tracing::warn!(why, "a wish of a client's was not granted");
            }
        }
    };
    match std::thread::Builder::new().name("wish".into()).spawn(put) {
        Ok(_) => ctx.reply.ok(),
        Err(error) => ctx.reply.error(&format!("ERR cannot start a thread: {error}")),
    }
}

/// Where no operator looks on, the answer waits until the council has decided.
fn decide(ctx: &mut Ctx<'_, '_>, changes: Vec<Change>) {
    if ctx.shared.is_unmanaged() {
        super::cluster_own::put_changes(ctx, changes);
    } else {
        wish(ctx, changes);
    }
}

/// `CLUSTER FAILOVER [FORCE|TAKEOVER]`, sent to the replica that is to be primary. A primary that is gone is
/// replaced without being asked for, so that the words change nothing.
pub(super) fn failover(ctx: &mut Ctx<'_, '_>, view: &View) {
    let known = ctx.args.len() == 2 || ctx.is_word(2, "force") || ctx.is_word(2, "takeover");
    if !known {
        return ctx.reply.syntax_error();
    }
    let Some(shard) = view.me().and_then(|m| m.shard) else {
        return ctx.reply.error("ERR a witness holds no data");
    };
    let state = view.topology.shards.get(&shard);
    let Some(state) = state.filter(|s| s.primary.as_ref() != Some(&view.my_id)) else {
        return ctx.reply.error("ERR You should send CLUSTER FAILOVER to a replica");
    };
    promote(ctx, shard, view.my_id.clone(), state.epoch);
}

/// A handover of the shard to whoever the council finds best.
pub(super) fn hand_over(ctx: &mut Ctx<'_, '_>, shard: ShardId, state: &Shard) {
    if state.in_sync.len() < 2 {
        return ctx.reply.error("NOGOODSLAVE No suitable replica to promote");
    }
    promote(ctx, shard, MemberId::new(), state.epoch);
}

fn promote(ctx: &mut Ctx<'_, '_>, shard: ShardId, to: MemberId, expected: u64) {
    wish(ctx, vec![Change::handover(shard, to, expected)]);
}

/// `CLUSTER MIGRATESLOTS SLOTSRANGE first last [first last ...] NODE id`, sent to the primary that has the slots.
pub(super) fn migrate_slots(ctx: &mut Ctx<'_, '_>, view: &View) {
    let Some(node) = ctx.args.iter().position(|a| a.eq_ignore_ascii_case(b"node")) else {
        return ctx.reply.syntax_error();
    };
    if !ctx.is_word(2, "slotsrange") || node + 2 != ctx.args.len() || node < 5 || node % 2 == 0 {
        return ctx.reply.syntax_error();
    }
    let mut slots = Vec::new();
    for i in (3..node).step_by(2) {
        let (Some(first), Some(last)) = (ctx.int_arg(i), ctx.int_arg(i + 1)) else { return };
        let slot = |n: i64| u16::try_from(n).ok().filter(|slot| *slot < SLOTS);
        match (slot(first), slot(last)) {
            (Some(first), Some(last)) if first <= last => slots.push(SlotRange { first, last }),
            (Some(_), Some(_)) => {
                return ctx.reply.error(&format!(
                    "ERR start slot number {first} is greater than end slot number {last}"
                ));
            }
            _ => return ctx.reply.error("ERR Invalid or out of range slot"),
        }
    }
    let id = String::from_utf8_lossy(ctx.args[node + 1]).into_owned();
    let Some(to) = primary_shard(view, &id) else {
        let id = super::exec::printable(id.as_bytes());
        return ctx.reply.error(&format!("ERR {id} is not a primary that this member knows"));
    };
    match primary_shard(view, &view.my_id) {
        Some(from) => decide(ctx, vec![Change::Move { slots, from, to }]),
        None => ctx.reply.error("ERR Slot migration can only be used on primary nodes"),
    }
}

/// `CLUSTER CANCELSLOTMIGRATIONS`: of all moves away from this primary.
pub(super) fn cancel_slot_migrations(ctx: &mut Ctx<'_, '_>, view: &View) {
    let mine = primary_shard(view, &view.my_id);
    let moves = view.topology.moves.iter().filter(|m| Some(m.from) == mine);
    let changes: Vec<Change> = moves.map(|m| Change::CancelMove { id: m.id }).collect();
    if changes.is_empty() {
        return ctx.reply.error("ERR No migrations ongoing");
    }
    decide(ctx, changes);
}

/// `CLUSTER GETSLOTMIGRATIONS`: the moves under way that this member's shard takes part in.
pub(super) fn slot_migrations(ctx: &mut Ctx<'_, '_>, view: &View) {
    let mine = view.me().and_then(|m| m.shard);
    let concerns = |m: &&Move| Some(m.from) == mine || Some(m.to) == mine;
    let moves: Vec<&Move> = view.topology.moves.iter().filter(concerns).collect();
    // What is sent is known where it is sent.
    let given = ctx.shared.moves_given();
    ctx.reply.array(moves.len());
    for under_way in moves {
        let operation = if Some(under_way.from) == mine { "EXPORT" } else { "IMPORT" };
        let id = |shard: ShardId| {
            view.primary_of(shard).map_or_else(|| "-".to_string(), |m| m.id.clone())
        };
        let ranges: Vec<String> =
            under_way.slots.iter().map(|r| format!("{}-{}", r.first, r.last)).collect();
        let mut fields = vec![
            ("name", under_way.id.to_string()),
            ("operation", operation.to_string()),
            ("slot_ranges", ranges.join(" ")),
            ("source_node", id(under_way.from)),
            ("target_node", id(under_way.to)),
            ("state", "in-progress".to_string()),
        ];
        if let Some(progress) = given.iter().find(|p| p.id == under_way.id) {
            let shown = |n: Option<u64>| n.map_or_else(|| "-1".to_string(), |n| n.to_string());
            fields.extend([
                ("keys", progress.keys.to_string()),
                ("keys_total", progress.keys_total.to_string()),
                ("bytes", progress.bytes.to_string()),
                ("bytes_total", shown(progress.bytes_total)),
                ("eta_ms", shown(progress.eta_ms)),
                ("limit_bytes_per_second", shown(progress.limit)),
            ]);
        }
        ctx.reply.map(fields.len());
        for (name, value) in fields {
            ctx.reply.bulk(name.as_bytes());
            ctx.reply.bulk(value.as_bytes());
        }
    }
}

/// The shard whose primary has this ID.
pub(super) fn primary_shard(view: &View, id: &MemberId) -> Option<ShardId> {
    let leads = |(_, s): &(&ShardId, &Shard)| s.primary.as_ref() == Some(id);
    view.topology.shards.iter().find(leads).map(|(shard, _)| *shard)
}
