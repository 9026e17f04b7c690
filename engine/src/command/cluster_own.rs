//! CLUSTER subcommands of a cluster without an operator: what its users decide, each put to the council.
//!
//! They answer when the council has decided and this member knows of it, so that what comes next sees it; inside
//! MULTI, where nothing can wait, when they were put. Texts are those of Redis 7.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::cluster_change::primary_shard;
use super::exec::printable;
use super::walk;
use super::{Ctx, deferred::Deferred};
use crate::clock;
use crate::cluster::View;
use crate::council::is_transient;
use crate::member::Answered;
use crate::server::Shared;
use crate::topology::{Change, MemberId, OwnChange, ShardId, SlotRange};

/// How long a change is put again that the council had nobody to decide on, milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// How long this member waits for a topology that others know, milliseconds.
const TOPOLOGY_MS: u64 = 5_000;

/// Runs the subcommand, if it is one of these.
pub(super) fn run(ctx: &mut Ctx<'_, '_>, view: &View, word: &[u8]) -> bool {
    match (word, ctx.args.len()) {
        (b"meet", 4 | 5) => meet(ctx),
        (b"forget", 3) => forget(ctx, view),
        (b"replicate", 3) => replicate(ctx, view),
        (b"reset", 2 | 3) => reset(ctx, view),
        (b"set-config-epoch", 3) => set_config_epoch(ctx, view),
        (b"bumpepoch", 2) => bump_epoch(ctx, view),
        // The council's file is synced before anything is said of what is in it.
        (b"saveconfig", 2) => ctx.reply.ok(),
        (b"addslots" | b"delslots", 3..) => super::cluster_slots::slots(ctx, view, word),
        (b"addslotsrange" | b"delslotsrange", 4..) => super::cluster_slots::ranges(ctx, view, word),
        (b"flushslots", 2) => super::cluster_slots::flush(ctx, view),
        (b"setslot", 4 | 5) => super::cluster_slots::set_slot(ctx, view),
        _ => return false,
    }
    true
}

/// Puts changes to the council, in this order, and answers when all are decided.
pub(super) fn put(ctx: &mut Ctx<'_, '_>, changes: Vec<OwnChange>) {
    put_changes(ctx, changes.into_iter().map(Change::Own).collect());
}

pub(super) fn put_changes(ctx: &mut Ctx<'_, '_>, changes: Vec<Change>) {
    // Put before another command can be: what one client asks for is decided in its order.
    let wished: Result<Vec<(Change, Answered)>, String> = match ctx.shared.managed.get() {
        Some(engine) => engine.driver().map(|driver| {
            let with = |change: Change| (change.clone(), driver.wish(change));
            changes.into_iter().map(with).collect()
        }),
        None => Err("this member has no council".to_owned()),
    };
    match wished {
        Ok(wished) => ctx.answer_later("wish", move |shared, client| {
            let decided = wished
                .into_iter()
                .try_for_each(|(change, answered)| decide(shared, change, &answered));
            answer(client, decided);
        }),
        Err(why) => ctx.reply.error(&format!("ERR {why}")),
    }
}

pub(super) fn answer(client: Option<Deferred>, decided: Result<(), String>) {
    match (client, decided) {
        (Some(client), Ok(())) => client.answer(|reply| reply.ok()),
        (Some(client), Err(why)) => client.answer(|reply| reply.error(&format!("ERR {why}"))),
        (None, Ok(())) => {}
        (None, Err(why)) => tracing::warn!(why, "a wish of a client's was not granted"),
    }
}

/// Waits until the council has decided, and this member knows of it.
pub(super) fn decide(
    shared: &Arc<Shared>,
    change: Change,
    answered: &Answered,
) -> Result<(), String> {
    let gone = || "the council's driver has ended".to_owned();
    let until = clock::monotonic_ms() + PATIENCE_MS;
    let mut outcome = answered.recv().map_err(|_| gone())?;
    while let Err(why) = &outcome {
        if !is_transient(why) || clock::monotonic_ms() >= until {
            return Err(why.clone());
        }
        std::thread::sleep(Duration::from_millis(20));
        let engine = shared.managed.get().ok_or_else(gone)?;
        outcome = engine.propose(change.clone());
    }
    let epoch = outcome?;
    let until = clock::monotonic_ms() + TOPOLOGY_MS;
    while shared.cluster.view().topology.epoch < epoch && clock::monotonic_ms() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The keys of database 0, the only one of a cluster.
pub(super) fn keys(ctx: &mut Ctx<'_, '_>) -> usize {
    walk::sum(ctx.shared, ctx.db, 0, crate::keyspace::Table::len)
}

fn unknown_node(ctx: &mut Ctx<'_, '_>, at: usize) {
    let id = printable(ctx.args[at]);
    ctx.reply.error(&format!("ERR Unknown node {id}"));
}

pub(super) fn node_arg(ctx: &Ctx<'_, '_>, at: usize) -> MemberId {
    String::from_utf8_lossy(ctx.args[at]).to_ascii_lowercase()
}

/// `CLUSTER MEET ip port [bus-port]`: answers at once; the meeting is seen in CLUSTER NODES, or in the log.
fn meet(ctx: &mut Ctx<'_, '_>) {
    let number = |at: usize| ctx.args.get(at).and_then(|a| crate::number::parse_i64(a));
    let Some(port) = number(3) else {
        let text = printable(ctx.args[3]);
        return ctx.reply.error(&format!("ERR Invalid TCP base port specified: {text}"));
    };
    let bus_port = match (ctx.args.len(), number(4)) {
        (4, _) => port.saturating_add(10_000),
        (_, Some(port)) => port,
        (_, None) => {
            let text = printable(ctx.args[4]);
            return ctx.reply.error(&format!("ERR Invalid TCP bus port specified: {text}"));
        }
    };
    let host = String::from_utf8_lossy(ctx.args[2]).into_owned();
    let fits = |port: i64| u16::try_from(port).ok().filter(|port| *port > 0);
    let (Ok(address), Some(_), Some(bus_port)) =
        (host.parse::<IpAddr>(), fits(port), fits(bus_port))
    else {
        let (host, port) = (printable(ctx.args[2]), printable(ctx.args[3]));
        return ctx.reply.error(&format!("ERR Invalid node address specified: {host}:{port}"));
    };
    match ctx.shared.managed.get().map(|engine| engine.driver()) {
        Some(Ok(driver)) => {
            driver.meet(address.to_string(), bus_port);
            ctx.reply.ok();
        }
        Some(Err(why)) => ctx.reply.error(&format!("ERR {why}")),
        None => ctx.reply.error("ERR this member has no council"),
    }
}

fn forget(ctx: &mut Ctx<'_, '_>, view: &View) {
    let member = node_arg(ctx, 2);
    let Some(known) = view.topology.members.get(&member) else {
        if view.topology.unmanaged.forgotten.contains(&member) {
            // Every node is told in turn, and the council has forgotten it with the first.
            return ctx.reply.ok();
        }
        return unknown_node(ctx, 2);
    };
    if member == view.my_id {
        return ctx.reply.error("ERR I tried hard but I can't forget myself...");
    }
    let mine = view.me().and_then(|m| m.shard);
    if known.shard == mine && primary_shard(view, &member).is_some() {
        return ctx.reply.error("ERR Can't forget my master!");
    }
    put(ctx, vec![OwnChange::Forget { member }]);
}

fn replicate(ctx: &mut Ctx<'_, '_>, view: &View) {
    let id = node_arg(ctx, 2);
    if !view.topology.members.contains_key(&id) {
        return unknown_node(ctx, 2);
    }
    if id == view.my_id {
        return ctx.reply.error("ERR Can't replicate myself");
    }
    let Some(shard) = primary_shard(view, &id) else {
        return ctx.reply.error("ERR I can only replicate a master, not a replica.");
    };
    if let Some(mine) = primary_shard(view, &view.my_id) {
        let owns = view.topology.shards.get(&mine).is_some_and(|s| !s.slots.is_empty());
        if owns || keys(ctx) > 0 {
            let why = "ERR To set a master the node must be empty and without assigned slots.";
            return ctx.reply.error(why);
        }
    }
    put(ctx, vec![OwnChange::Replicate { member: view.my_id.clone(), shard }]);
}

fn reset(ctx: &mut Ctx<'_, '_>, view: &View) {
    let hard = ctx.is_word(2, "hard");
    if ctx.args.len() == 3 && !hard && !ctx.is_word(2, "soft") {
        return ctx.reply.syntax_error();
    }
    if primary_shard(view, &view.my_id).is_some() && keys(ctx) > 0 {
        let why = "ERR CLUSTER RESET can't be called with master nodes containing keys";
        return ctx.reply.error(why);
    }
    let answered = match ctx.shared.managed.get().map(|engine| engine.driver()) {
        Some(Ok(driver)) => driver.reset(hard),
        Some(Err(why)) => return ctx.reply.error(&format!("ERR {why}")),
        None => return ctx.reply.error("ERR this member has no council"),
    };
    ctx.answer_later("reset", move |_, client| {
        let decided = answered.recv().map_err(|_| "the council's driver has ended".to_owned());
        answer(client, decided.flatten().map(|_| ()));
    });
}

fn set_config_epoch(ctx: &mut Ctx<'_, '_>, view: &View) {
    let Some(epoch) = ctx.int_arg(2) else { return };
    let Ok(epoch) = u64::try_from(epoch) else {
        return ctx.reply.error(&format!("ERR Invalid config epoch specified: {epoch}"));
    };
    if view.topology.members.len() > 1 {
        let why = "ERR The user can assign a config epoch only when the node does not know any \
                   other node.";
        return ctx.reply.error(why);
    }
    put(ctx, vec![OwnChange::Raise { epoch }]);
}

/// No two primaries ever have one epoch here, and no epoch decides who owns a slot: there is nothing to bump.
fn bump_epoch(ctx: &mut Ctx<'_, '_>, view: &View) {
    let shard = view.my_shard();
    let epoch = shard.map_or(0, |s| s.epoch);
    ctx.reply.simple(&format!("STILL {epoch}"));
}

/// The shard that this member is primary of; the error is already replied when it is none.
pub(super) fn my_shard(ctx: &mut Ctx<'_, '_>, view: &View, why: &str) -> Option<ShardId> {
    let shard = primary_shard(view, &view.my_id);
    if shard.is_none() {
        ctx.reply.error(why);
    }
    shard
}

/// One slot as a range.
pub(super) fn one(slot: u16) -> SlotRange {
    SlotRange { first: slot, last: slot }
}
