//! CLUSTER subcommands of a cluster without an operator that say who owns which slots.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cluster_change::primary_shard;
use super::cluster_own::{answer, decide, my_shard, node_arg, one, put, put_changes};
use super::exec::printable;
use super::walk::with_slot;
use super::{Ctx, Effects};
use crate::clock;
use crate::cluster::View;
use crate::council::is_transient;
use crate::lazy;
use crate::moves::SlotSet;
use crate::notify::class;
use crate::server::Shared;
use crate::topology::{Change, Epoch, OwnChange, SLOTS, ShardId, SlotRange};

/// Keys that one request of the journal deletes.
const KEYS_PER_REQUEST: usize = 256;
const REPLICA: &str = "ERR You can change slots only on masters.";
/// How long the loops may take to hold slots that are given up, milliseconds.
const HOLD_MS: u64 = 500;
const BUSY: &str = "the slots' clients did not come to rest: try again";
/// How many times slots were given up so far.
static RELEASES: AtomicU64 = AtomicU64::new(0);
/// Between two looks at what the council has decided.
const LOOK: Duration = Duration::from_millis(20);
/// How long a slot that nobody owns is looked at, whether somebody takes it, milliseconds.
const RETAKEN_MS: u64 = 200;

/// The slot that an argument names; `None`: it names none, and that is replied.
pub(super) fn slot_arg(ctx: &mut Ctx<'_, '_>, at: usize) -> Option<u16> {
    let slot = crate::number::parse_i64(ctx.args[at]).and_then(|n| u16::try_from(n).ok());
    let slot = slot.filter(|slot| *slot < SLOTS);
    if slot.is_none() {
        ctx.reply.error("ERR Invalid or out of range slot");
    }
    slot
}

/// `CLUSTER ADDSLOTS slot [slot ...]` and `DELSLOTS`.
pub(super) fn slots(ctx: &mut Ctx<'_, '_>, view: &View, word: &[u8]) {
    let mut slots = Vec::new();
    for at in 2..ctx.args.len() {
        let Some(slot) = slot_arg(ctx, at) else { return };
        slots.push(slot);
    }
    change(ctx, view, slots, word.starts_with(b"add"));
}

/// `CLUSTER ADDSLOTSRANGE first last [first last ...]` and `DELSLOTSRANGE`.
pub(super) fn ranges(ctx: &mut Ctx<'_, '_>, view: &View, word: &[u8]) {
    if !ctx.args.len().is_multiple_of(2) {
        return ctx.wrong_sub_arity();
    }
    let mut slots = Vec::new();
    for at in (2..ctx.args.len()).step_by(2) {
        let Some(first) = slot_arg(ctx, at) else { return };
        let Some(last) = slot_arg(ctx, at + 1) else { return };
        if first > last {
            return ctx.reply.error(&format!(
                "ERR start slot number {first} is greater than end slot number {last}"
            ));
        }
        slots.extend(first..=last);
    }
    change(ctx, view, slots, word.starts_with(b"add"));
}

fn change(ctx: &mut Ctx<'_, '_>, view: &View, slots: Vec<u16>, adds: bool) {
    let Some(shard) = my_shard(ctx, view, REPLICA) else { return };
    let mut seen = BTreeSet::new();
    for slot in &slots {
        let owner = ctx.shared.cluster.owner_of(*slot);
        // In a transaction it may have been given up by the command before.
        let is_mine = ctx.in_exec && owner == Some(shard);
        if adds && owner.is_some() && !is_mine {
            return ctx.reply.error(&format!("ERR Slot {slot} is already busy"));
        }
        if !adds && owner.is_none() {
            return unassigned(ctx, *slot);
        }
        if !seen.insert(*slot) {
            return ctx.reply.error(&format!("ERR Slot {slot} specified multiple times"));
        }
    }
    if adds {
        return put_changes(ctx, vec![Change::Assign { shard, slots: joined(&seen) }]);
    }
    // Redis forgets, for a moment, who else owns a slot. Here there is nothing to forget: each gives up its own.
    seen.retain(|slot| ctx.shared.cluster.owner_of(*slot) == Some(shard));
    if seen.is_empty() { ctx.reply.ok() } else { release(ctx, view, shard, joined(&seen)) }
}

/// Nobody owns the slot, as far as is known here: an error, but for an owner who gives it up and takes it again in one
/// transaction, as `redis-cli --cluster fix` has it done before it asks the others. Then half of that may be known yet.
fn unassigned(ctx: &mut Ctx<'_, '_>, slot: u16) {
    let error = format!("ERR Slot {slot} is already unassigned");
    if ctx.in_exec {
        return ctx.reply.error(&error);
    }
    ctx.answer_later("unassigned", move |shared, client| {
        let until = clock::monotonic_ms() + RETAKEN_MS;
        while shared.cluster.owner_of(slot).is_none() && clock::monotonic_ms() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let Some(client) = client else { return };
        match shared.cluster.owner_of(slot) {
            Some(_) => client.answer(|reply| reply.ok()),
            None => client.answer(|reply| reply.error(&error)),
        }
    });
}

fn joined(slots: &BTreeSet<u16>) -> Vec<SlotRange> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    for slot in slots {
        match ranges.last_mut() {
            Some(last) if last.last + 1 == *slot => last.last = *slot,
            _ => ranges.push(one(*slot)),
        }
    }
    ranges
}

/// `CLUSTER FLUSHSLOTS`
pub(super) fn flush(ctx: &mut Ctx<'_, '_>, view: &View) {
    if super::cluster_own::keys(ctx) > 0 {
        return ctx.reply.error("ERR DB must be empty to perform CLUSTER FLUSHSLOTS.");
    }
    let Some(shard) = my_shard(ctx, view, REPLICA) else { return };
    let slots = view.topology.shards.get(&shard).map(|s| s.slots.clone()).unwrap_or_default();
    release(ctx, view, shard, slots);
}

/// `CLUSTER FLUSHSLOT slot [ASYNC|SYNC]`: deletes the keys of a slot; large values are always freed aside. Under every
/// lock, as nobody else's keys are named by the request.
pub(super) fn flush_slot(ctx: &mut Ctx<'_, '_>) {
    let Some(slot) = slot_arg(ctx, 2) else { return };
    if ctx.args.len() == 4 && !ctx.is_word(3, "async") && !ctx.is_word(3, "sync") {
        return ctx.reply.syntax_error();
    }
    let refused = ctx.shared.state.refuses_write();
    if let Some(why) = refused.or_else(|| ctx.shared.quorum.refusal().map(Into::into)) {
        return ctx.reply.error(&why);
    }
    if !ctx.db.locked().holds_all() {
        ctx.effects = Effects::Again;
        return;
    }
    let index = ctx.db.index;
    let mut keys: Vec<Vec<u8>> = Vec::new();
    if ctx.shared.keyspace.is_made(index) {
        ctx.db.locked().table(index, slot).each(|entry| keys.push(entry.key().to_vec()));
    }
    for key in &keys {
        if let Some(entry) = ctx.db.take(key) {
            lazy::free(entry);
            ctx.modified_to(key, class::GENERIC, "del");
        }
    }
    for some in keys.chunks(KEYS_PER_REQUEST) {
        let mut request: Vec<&[u8]> = vec![b"UNLINK"];
        request.extend(some.iter().map(Vec::as_slice));
        ctx.propagate(&request);
    }
    ctx.reply.ok();
}

/// The slots' clients wait meanwhile: once nobody owns them another shard may take them, before this member knows.
fn release(ctx: &mut Ctx<'_, '_>, view: &View, shard: ShardId, slots: Vec<SlotRange>) {
    if ctx.in_exec {
        return put(ctx, vec![OwnChange::Release { shard, slots }]);
    }
    let epoch = view.topology.shards.get(&shard).map_or(0, |s| s.epoch);
    ctx.answer_later("release", move |shared, client| {
        // No move has such a number: those of moves count up. Each has its own, for one that is refused must not let go of
        // slots that another one still holds.
        let id = u64::MAX - RELEASES.fetch_add(1, Ordering::Relaxed);
        let number = shared.hold_slots(id, &SlotSet::of(&slots));
        let until = clock::monotonic_ms() + HOLD_MS;
        while !shared.are_slots_held_by_all(number) && clock::monotonic_ms() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
        let first = slots.first().map(|range| range.first);
        let change = Change::Own(OwnChange::Release { shard, slots });
        let driver = shared.managed.get().map(|engine| engine.driver());
        match driver {
            _ if !shared.are_slots_held_by_all(number) => answer(client, Err(BUSY.to_owned())),
            Some(Ok(driver)) => {
                let decided = decide(shared, change.clone(), &driver.wish(change.clone()));
                let is_refused = decided.as_ref().is_err_and(|why| !is_transient(why));
                answer(client, decided);
                let is_gone = |slot| shared.cluster.owner_of(slot) != Some(shard);
                if !is_refused {
                    see_through(shared, epoch, &change, || first.is_none_or(is_gone));
                }
            }
            _ => answer(client, Err("the council's driver has not begun".to_owned())),
        }
        shared.release_slots(id);
    });
}

/// As long as the council may still let go of the slots nobody may write to them here, whatever its client was told: it is
/// asked until it says yes or no. Under another shard epoch there is nothing to wait for: whoever acts then knows what was
/// decided before.
fn see_through(shared: &Shared, epoch: Epoch, change: &Change, is_known: impl Fn() -> bool) {
    let Some(engine) = shared.managed.get() else { return };
    while !is_known() {
        if !engine.is_primary_of(epoch) || shared.state.shutdown.load(Ordering::Acquire) {
            return;
        }
        match engine.propose(change.clone()) {
            Err(why) if !is_transient(&why) => return,
            _ => std::thread::sleep(LOOK),
        }
    }
}

/// `CLUSTER SETSLOT slot IMPORTING id | MIGRATING id | NODE id | STABLE`
pub(super) fn set_slot(ctx: &mut Ctx<'_, '_>, view: &View) {
    let Some(mine) = my_shard(ctx, view, "ERR You can use SETSLOT only with masters.") else {
        return;
    };
    let Some(slot) = slot_arg(ctx, 2) else { return };
    let action = ctx.args[3].to_ascii_lowercase();
    match (action.as_slice(), ctx.args.len()) {
        (b"stable", 4) => stable(ctx, view, slot, mine),
        (b"migrating", 5) => migrating(ctx, view, slot, mine),
        (b"importing", 5) => importing(ctx, view, slot, mine),
        (b"node", 5) => node(ctx, view, slot, mine),
        _ => ctx
            .reply
            .error("ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP"),
    }
}

/// The shard whose primary is named; the error is already replied when there is none.
fn shard_arg(ctx: &mut Ctx<'_, '_>, view: &View, unknown: &str) -> Option<ShardId> {
    let id = node_arg(ctx, 4);
    if !view.topology.members.contains_key(&id) {
        let id = printable(ctx.args[4]);
        ctx.reply.error(&format!("ERR {unknown} {id}"));
        return None;
    }
    let shard = primary_shard(view, &id);
    if shard.is_none() {
        ctx.reply.error("ERR Target node is not a master");
    }
    shard
}

fn migrating(ctx: &mut Ctx<'_, '_>, view: &View, slot: u16, mine: ShardId) {
    if !ctx.shared.cluster.owns(slot) {
        return ctx.reply.error(&format!("ERR I'm not the owner of hash slot {slot}"));
    }
    let Some(to) = shard_arg(ctx, view, "I don't know about node") else { return };
    if to == mine {
        return ctx.reply.error("ERR Target node is not another master");
    }
    put(ctx, vec![OwnChange::Migrating { slot, from: mine, to: Some(to) }]);
}

fn importing(ctx: &mut Ctx<'_, '_>, view: &View, slot: u16, mine: ShardId) {
    if ctx.shared.cluster.owns(slot) {
        return ctx.reply.error(&format!("ERR I'm already the owner of hash slot {slot}"));
    }
    let Some(from) = shard_arg(ctx, view, "I don't know about node") else { return };
    if from == mine {
        return ctx.reply.error("ERR Target node is not another master");
    }
    put(ctx, vec![OwnChange::Importing { slot, into: mine, from: Some(from) }]);
}

fn keys_in(ctx: &mut Ctx<'_, '_>, slot: u16) -> usize {
    with_slot(ctx.shared, ctx.db, 0, slot, |table| table.len()).unwrap_or(0)
}

fn stable(ctx: &mut Ctx<'_, '_>, view: &View, slot: u16, mine: ShardId) {
    let own = &view.topology.unmanaged;
    let imports = own.importing.get(&slot).is_some_and(|i| i.into == mine);
    let owner = ctx.shared.cluster.owner_of(slot);
    if imports && owner.is_some_and(|owner| owner != mine) && keys_in(ctx, slot) > 0 {
        // Keys in a slot of another shard's are swept, and these may be nowhere else.
        return ctx.reply.error(&format!(
            "ERR Slot {slot} holds keys that were imported: move them to its owner first"
        ));
    }
    let mut changes = Vec::new();
    if imports {
        changes.push(OwnChange::Importing { slot, into: mine, from: None });
    }
    if owner == Some(mine) && own.migrating.contains_key(&slot) {
        changes.push(OwnChange::Migrating { slot, from: mine, to: None });
    }
    if changes.is_empty() { ctx.reply.ok() } else { put(ctx, changes) }
}

fn node(ctx: &mut Ctx<'_, '_>, view: &View, slot: u16, mine: ShardId) {
    let Some(to) = shard_arg(ctx, view, "Unknown node") else { return };
    if ctx.shared.cluster.owns(slot) && to != mine && keys_in(ctx, slot) > 0 {
        return ctx.reply.error(&format!(
            "ERR Can't assign hashslot {slot} to a different node while I still hold keys for \
             this hash slot."
        ));
    }
    let own = &view.topology.unmanaged;
    let is_open = own.migrating.contains_key(&slot) || own.importing.contains_key(&slot);
    if ctx.shared.cluster.owner_of(slot) == Some(to) && !is_open {
        // Every node is told in turn, and the council knows since the first.
        return ctx.reply.ok();
    }
    put(ctx, vec![OwnChange::Take { slot, shard: to }]);
}
