//! More shards and fewer: members that are made or let go, and slots that move between them.
//!
//! The plan says which slots go where, a few at a time; the members copy the keys, and the council makes
//! the target their owner all at once. A wish that changes half-way is one more plan from what is there.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crds::reasons::reason;
use engine::topology::{Move, ShardId, Topology};

use super::members::{dismiss, make};
use super::slots::{SLOTS_PER_MOVE, Share, count, last_slots, shares};
use super::view::View;
use super::{Draft, Scope, Step};

/// Moves that the account names; of the others it tells the number.
const MOVES_NAMED: usize = 4;

/// Makes the members of new shards, lets those of empty ones go, and moves slots.
pub(super) fn scale(view: &View<'_>, scope: Scope, draft: &mut Draft) {
    let Some(topology) = view.topology() else { return };
    match scope {
        Scope::Shard(shard) if !view.serves(shard) => {
            make(view, scope, draft);
            if view.wanted(scope).is_empty() {
                dismantle(view, shard, draft);
            }
        }
        Scope::Slots if view.is_dealt() => balance(view, topology, draft),
        Scope::Shard(_) | Scope::Witnesses | Scope::Slots | Scope::Primaries { .. } => {}
    }
}

/// Lets the members of an empty shard go one after the other, the primary last: whoever asks the shard
/// meanwhile is still told where the slots went.
fn dismantle(view: &View<'_>, shard: ShardId, draft: &mut Draft) {
    let mut seats = view.surplus(Scope::Shard(shard));
    seats.sort_by_key(|seat| view.is_primary(*seat));
    let Some(seat) = seats.first() else { return };
    let witnesses = view.wanted(Scope::Witnesses);
    if let Some(witness) = witnesses.into_iter().find(|w| !view.is_in_sync(*w)) {
        let (name, witness) = (view.name(*seat), view.name(witness));
        let message = format!("{name} votes until {witness} does, which fewer shards need");
        draft.blocked(reason::CHANGING, message);
        return;
    }
    // A body that nobody knows and that says nothing could have joined since the topology was told.
    let unheard = view.body(*seat).is_some() && view.report(*seat).is_none();
    if unheard && !view.council_can_decide() {
        let message =
            format!("{} is too many, and too few voters answer to be sure", view.name(*seat));
        draft.blocked(reason::COUNCIL_SILENT, message);
        return;
    }
    dismiss(view, *seat, "the shard is not wanted, and owns no slots any more", draft);
}

/// Sees to it that each shard gets its share of the slots.
fn balance(view: &View<'_>, topology: &Topology, draft: &mut Draft) {
    for wrong in topology.moves.iter().filter(|m| view.goes(m.to)) {
        let why = format!("shard {} is not wanted any more", wrong.to);
        draft.step(why, Step::CancelMove { id: wrong.id });
    }
    if !draft.steps.is_empty() {
        return;
    }
    let shares = shares(topology, view.desired.shards);
    let left: u16 = shares.values().map(|share| share.excess()).sum();
    if left > 0 {
        match room(view) {
            Ok(()) => begin_move(view, topology, &shares, draft),
            Err((reason, message)) => draft.blocked(reason, message),
        }
    }
    if !topology.moves.is_empty() {
        draft.blocked(reason::MOVING_SLOTS, text_of(&topology.moves, left));
    } else if !draft.steps.is_empty() {
        draft.blocked(reason::MOVING_SLOTS, format!("moving slots: {left} to move"));
    } else if left > 0 {
        draft.blocked(reason::SCALING, format!("{left} slots are to move to other shards"));
    }
}

/// Begins one move: each alters the epoch that the next one has to name. No shard gives or takes in two
/// moves at a time, and none without a primary that serves.
fn begin_move(
    view: &View<'_>,
    topology: &Topology,
    shares: &BTreeMap<ShardId, Share>,
    draft: &mut Draft,
) {
    let is_free = |shard: ShardId| topology.moves.iter().all(|m| m.from != shard && m.to != shard);
    let idle = || shares.iter().filter(|(shard, _)| is_free(**shard)).map(|(id, s)| (*id, *s));
    let mut sources: Vec<_> = idle().filter(|(_, share)| share.excess() > 0).collect();
    let mut targets: Vec<_> = idle().filter(|(_, share)| share.lack() > 0).collect();
    sources.sort_by_key(|(_, share)| Reverse(share.excess()));
    targets.sort_by_key(|(_, share)| Reverse(share.lack()));
    if sources.is_empty() || targets.is_empty() {
        return;
    }
    let mut hold = Vec::new();
    sources.retain(|(shard, _)| is_so(may_give(view, *shard), &mut hold));
    targets.retain(|(shard, _)| is_so(may_take(view, *shard), &mut hold));
    for message in hold {
        draft.blocked(reason::SCALING, message);
    }
    let (Some((from, source)), Some((to, target))) = (sources.first(), targets.first()) else {
        return;
    };
    let number = source.excess().min(target.lack()).min(SLOTS_PER_MOVE);
    let Some(shard) = topology.shards.get(from) else { return };
    let (slots, epoch) = (last_slots(shard, number), topology.epoch);
    let why = format!("{} slots of shard {from} are to be of shard {to}", count(&slots));
    draft.step(why, Step::Move { slots, from: *from, to: *to, epoch });
}

fn is_so(answer: Result<(), String>, hold: &mut Vec<String>) -> bool {
    answer.map_err(|why| hold.push(why)).is_ok()
}

fn may_give(view: &View<'_>, shard: ShardId) -> Result<(), String> {
    let primary = view.acting_primary(shard);
    primary.map(|_| ()).ok_or_else(|| format!("no slots leave shard {shard}: no primary serves it"))
}

/// Where replicas are wanted one has to be there: what moves is not to be in one place only.
fn may_take(view: &View<'_>, shard: ShardId) -> Result<(), String> {
    if view.acting_primary(shard).is_none() {
        return Err(format!("no slots move to shard {shard}: no primary serves it yet"));
    }
    if view.desired.replicas > 0 && !view.has_replica(shard) {
        return Err(format!("no slots move to shard {shard}: no replica is in sync yet"));
    }
    Ok(())
}

/// What all shards hold fits into those that stay; else the reason why nothing moves. It is asked before
/// every move, for clients go on writing.
fn room(view: &View<'_>) -> Result<(), (&'static str, String)> {
    let going = view.shards().filter(|s| view.goes(*s) && view.owns_slots(*s)).count();
    if going == 0 {
        return Ok(());
    }
    let (mut used, mut room) = (0u64, 0u64);
    for shard in view.shards().filter(|s| !view.goes(*s) || view.owns_slots(*s)) {
        let Some(report) = view.acting_primary(shard).and_then(|seat| view.report(seat)) else {
            let message = format!("shard {shard} has no primary that tells how much it holds");
            return Err((reason::SCALING, message));
        };
        used = used.saturating_add(report.used_memory);
        if !view.goes(shard) {
            // No limit is no lack of room.
            let limit = if report.maxmemory == 0 { u64::MAX } else { report.maxmemory };
            room = room.saturating_add(limit);
        }
    }
    if used <= room {
        return Ok(());
    }
    let stay = view.desired.shards;
    let message = format!(
        "spec.shards: all shards hold {used} bytes, and those that stay have room for {room} \
         (shards that stay: {stay}, that go: {going}): no slots move"
    );
    Err((reason::NO_ROOM, message))
}

/// "moving slots: 512 of shard 0 to shard 3 under way, 2218 more to move"
fn text_of(moves: &[Move], left: u16) -> String {
    let name = |m: &Move| format!("{} of shard {} to shard {}", count(&m.slots), m.from, m.to);
    let mut parts: Vec<String> = moves.iter().take(MOVES_NAMED).map(name).collect();
    let rest: u16 = moves.iter().skip(MOVES_NAMED).map(|m| count(&m.slots)).sum();
    if rest > 0 {
        parts.push(format!("{rest} of other shards"));
    }
    let more = if left > 0 { format!(", {left} more to move") } else { String::new() };
    format!("moving slots: {} under way{more}", parts.join(", "))
}
