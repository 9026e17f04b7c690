//! CLUSTER: the topology as cluster clients read it.

use std::fmt::Write;
use std::net::IpAddr;

use super::walk::with_slot;
use super::{Command, Ctx, Group, Keys, cluster_change, cluster_own, flag, slot_stats};
use crate::cluster::View;
use crate::topology::{Member, MemberId, SLOTS, Shard, ShardId, slot_of};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("cluster", -2, flag::LOADING | flag::STALE | flag::WALKS, Keys::None, Group::Cluster, "3.0.0", "Shows the cluster's members, shards and slots.", cluster),
];

const HELP: &[&str] = &[
    "CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "INFO, NODES, SLOTS, SHARDS, LINKS",
    "    The cluster's state, members, and who serves which slots.",
    "MYID, MYSHARDID, REPLICAS <node-id>",
    "    This member, and the replicas of a primary.",
    "KEYSLOT <key>, COUNTKEYSINSLOT <slot>, GETKEYSINSLOT <slot> <count>",
    "FLUSHSLOT <slot> [ASYNC|SYNC]",
    "SLOT-STATS SLOTSRANGE <first> <last> | ORDERBY key-count [LIMIT <n>] [ASC|DESC]",
    "    Keys and slots.",
    "MEET <ip> <port> [<bus-port>], FORGET <node-id>, RESET [HARD|SOFT]",
    "    Members that make up a cluster by themselves (not where an operator does).",
    "ADDSLOTS, ADDSLOTSRANGE, DELSLOTS, DELSLOTSRANGE, FLUSHSLOTS, SETSLOT, REPLICATE <node-id>",
    "    Who owns which slots, and who follows whom (likewise).",
    "FAILOVER [FORCE|TAKEOVER]",
    "    Makes this replica the primary of its shard, by a handover.",
    "MIGRATESLOTS SLOTSRANGE <first> <last> [<first> <last> ...] NODE <node-id>",
    "    Moves slots of this primary to another one.",
    "GETSLOTMIGRATIONS, CANCELSLOTMIGRATIONS",
    "    The moves under way, and the end of those away from here.",
];

/// What every cluster knows.
const VERBS: &[&[u8]] = &[
    b"info",
    b"nodes",
    b"slots",
    b"shards",
    b"links",
    b"myid",
    b"myshardid",
    b"keyslot",
    b"countkeysinslot",
    b"getkeysinslot",
    b"flushslot",
    b"slot-stats",
    b"replicas",
    b"slaves",
    b"failover",
    b"migrateslots",
    b"getslotmigrations",
    b"cancelslotmigrations",
    b"count-failure-reports",
];
/// What only those without an operator do.
const OWN_VERBS: &[&[u8]] = &[
    b"reset",
    b"meet",
    b"forget",
    b"addslots",
    b"addslotsrange",
    b"delslots",
    b"delslotsrange",
    b"setslot",
    b"replicate",
    b"bumpepoch",
    b"set-config-epoch",
    b"flushslots",
    b"saveconfig",
];

fn cluster(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    if word == b"help" {
        return ctx.help(HELP);
    }
    if !ctx.shared.cluster.is_enabled() {
        return ctx.reply.error("ERR This instance has cluster support disabled");
    }
    let view = ctx.shared.cluster.view();
    match (word.as_slice(), ctx.args.len()) {
        (b"info", 2) => info(ctx, &view),
        (b"nodes", 2) => {
            let silent = ctx.shared.cluster.silent();
            let members = view.topology.members.values();
            let by_tls = ctx.session.info.is_tls();
            let text: String = members.map(|m| node_line(&view, m, &silent, by_tls)).collect();
            ctx.reply.verbatim(&text);
        }
        (b"slots", 2) => slots(ctx, &view),
        (b"shards", 2) => shards(ctx, &view),
        (b"links", 2) => links(ctx),
        (b"myid", 2) => ctx.reply.bulk(view.my_id.as_bytes()),
        (b"myshardid", 2) => {
            let id = view.me().and_then(|m| m.shard).map(|s| shard_id(&view, s));
            ctx.reply.bulk(id.unwrap_or_else(|| view.my_id.clone()).as_bytes());
        }
        (b"keyslot", 3) => ctx.reply.int(i64::from(slot_of(ctx.args[2]))),
        (b"countkeysinslot", 3) => {
            let Some(slot) = slot_arg(ctx) else { return };
            let db = ctx.db.index;
            let n = with_slot(ctx.shared, ctx.db, db, slot, |t| t.len()).unwrap_or(0);
            ctx.reply.int(n as i64);
        }
        (b"getkeysinslot", 4) => keys_in_slot(ctx),
        (b"flushslot", 3 | 4) => super::cluster_slots::flush_slot(ctx),
        (b"slot-stats", 5..) => slot_stats::slot_stats(ctx),
        (b"replicas" | b"slaves", 3) => replicas(ctx, &view),
        (b"failover", 2 | 3) => cluster_change::failover(ctx, &view),
        (b"migrateslots", 7..) => cluster_change::migrate_slots(ctx, &view),
        (b"getslotmigrations", 2) => cluster_change::slot_migrations(ctx, &view),
        (b"cancelslotmigrations", 2) => cluster_change::cancel_slot_migrations(ctx, &view),
        (b"count-failure-reports", 3) => {
            let id = String::from_utf8_lossy(ctx.args[2]).to_ascii_lowercase();
            if view.topology.members.contains_key(&id) {
                // Nobody reports failures to anybody but the council.
                ctx.reply.int(0);
            } else {
                let id = super::exec::printable(ctx.args[2]);
                ctx.reply.error(&format!("ERR Unknown node {id}"));
            }
        }
        _ if ctx.shared.is_unmanaged() && cluster_own::run(ctx, &view, &word) => {}
        (own, _) if OWN_VERBS.contains(&own) && !ctx.shared.is_unmanaged() => {
            let word = String::from_utf8_lossy(own).to_ascii_uppercase();
            ctx.reply.error(&format!(
                "ERR CLUSTER {word} is not supported: the members' council decides on slots and roles"
            ));
        }
        (known, _) if VERBS.contains(&known) || OWN_VERBS.contains(&known) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}

/// This request deletes keys.
pub(super) fn writes(args: &[&[u8]]) -> bool {
    args.get(1).is_some_and(|word| word.eq_ignore_ascii_case(b"flushslot"))
}

/// Each connection among members carries one direction, and is dialled by who sends.
fn links(ctx: &mut Ctx<'_, '_>) {
    let driver = ctx.shared.managed.get().and_then(|engine| engine.driver().ok());
    let links = driver.map(|driver| driver.links()).unwrap_or_default();
    ctx.reply.array(links.len());
    for link in links {
        let waiting = link.waiting_bytes();
        let events = if waiting > 0 { "rw" } else { "r" };
        ctx.reply.map(6);
        let direction = if link.sends { "to" } else { "from" };
        for (name, value) in [("direction", direction), ("node", &*link.peer)] {
            ctx.reply.bulk(name.as_bytes());
            ctx.reply.bulk(value.as_bytes());
        }
        ctx.reply.bulk(b"create-time");
        ctx.reply.int(link.created_ms);
        ctx.reply.bulk(b"events");
        ctx.reply.bulk(events.as_bytes());
        for name in ["send-buffer-allocated", "send-buffer-used"] {
            ctx.reply.bulk(name.as_bytes());
            ctx.reply.int(waiting as i64);
        }
    }
}

fn slot_arg(ctx: &mut Ctx<'_, '_>) -> Option<u16> {
    let slot = ctx.int_arg(2)?;
    let slot = u16::try_from(slot).ok().filter(|s| *s < SLOTS);
    if slot.is_none() {
        ctx.reply.error("ERR Invalid slot");
    }
    slot
}

fn keys_in_slot(ctx: &mut Ctx<'_, '_>) {
    let Some(slot) = slot_arg(ctx) else { return };
    let Some(count) = ctx.int_arg(3) else { return };
    if count < 0 {
        return ctx.reply.error("ERR Invalid number of keys");
    }
    let (db, begin) = (ctx.db.index, ctx.reply.begin());
    let mut found = 0;
    let reply = &mut *ctx.reply;
    with_slot(ctx.shared, ctx.db, db, slot, |table| {
        table.each(|entry| {
            if found < count {
                reply.bulk(entry.key());
                found += 1;
            }
        });
    });
    ctx.reply.end_array(begin, found as usize);
}

fn info(ctx: &mut Ctx<'_, '_>, view: &View) {
    let assigned = ctx.shared.cluster.assigned();
    let t = &view.topology;
    let served = t.shards.iter().filter(|(_, s)| s.primary.is_some() && !s.slots.is_empty());
    let all = assigned == SLOTS as usize
        && t.shards.values().all(|s| s.primary.is_some() || s.slots.is_empty());
    let my_epoch = view
        .me()
        .and_then(|m| m.shard)
        .and_then(|s| t.shards.get(&s))
        .map_or(0, |shard| shard.epoch);
    let mut text = format!(
        "cluster_enabled:1\r\ncluster_state:{}\r\ncluster_slots_assigned:{assigned}\r\n\
         cluster_slots_ok:{assigned}\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n\
         cluster_known_nodes:{}\r\ncluster_size:{}\r\ncluster_current_epoch:{}\r\n\
         cluster_my_epoch:{my_epoch}\r\ncluster_stats_messages_sent:0\r\n\
         cluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n",
        if all { "ok" } else { "fail" },
        t.members.len().max(1),
        served.count(),
        t.epoch,
    );
    if ctx.shared.is_unmanaged() {
        // Until there are three no member can be lost; and who is not in sync does not take over.
        let in_sync: usize = t.shards.values().map(|s| s.in_sync.len()).sum();
        let voters = t.voters.len();
        let _ =
            write!(text, "larder_council_voters:{voters}\r\nlarder_members_in_sync:{in_sync}\r\n");
    }
    ctx.reply.verbatim(&text);
}

fn is_primary(view: &View, member: &Member) -> bool {
    shard_of(view, member).is_some_and(|s| s.primary.as_ref() == Some(&member.id))
}

fn shard_of<'v>(view: &'v View, member: &Member) -> Option<&'v Shard> {
    view.topology.shards.get(&member.shard?)
}

fn is_ip(host: &str) -> bool {
    // One that nobody has reached yet does not know its host.
    host.is_empty() || host.parse::<IpAddr>().is_ok()
}

/// `<id> <host:port@busport[,hostname]> <flags> <primary> <ping> <pong> <epoch> <link> <slots...>`
fn node_line(view: &View, member: &Member, silent: &[MemberId], by_tls: bool) -> String {
    let shard = shard_of(view, member);
    let primary = is_primary(view, member);
    let mut flags = Vec::new();
    if member.id == view.my_id {
        flags.push("myself");
    }
    flags.push(if primary || member.shard.is_none() { "master" } else { "slave" });
    let is_silent = member.id != view.my_id && silent.contains(&member.id);
    if is_silent {
        flags.push("fail");
    }
    if shard.is_some_and(|s| s.primary.is_none()) {
        flags.push("noaddr");
    }
    let followed = shard.and_then(|s| s.primary.as_deref()).filter(|_| !primary).unwrap_or("-");
    let hostname = if is_ip(&member.host) { String::new() } else { format!(",{}", member.host) };
    let mut line = format!(
        "{} {}:{}@{}{hostname} {} {followed} 0 0 {} {}",
        member.id,
        member.host,
        member.client_port(by_tls),
        member.bus_port,
        flags.join(","),
        shard.map_or(0, |s| s.epoch),
        if is_silent { "disconnected" } else { "connected" },
    );
    if primary {
        for range in shard.map_or(&[][..], |s| &s.slots) {
            let _ = write!(line, " {range}");
        }
    }
    if primary && member.id == view.my_id {
        open_slots(&mut line, view, member);
    }
    line.push('\n');
    line
}

/// ` [slot->-id]` for one that this member gives away key by key, ` [slot-<-id]` for one that it takes in.
fn open_slots(line: &mut String, view: &View, me: &Member) {
    let own = &view.topology.unmanaged;
    let id = |shard: &ShardId| view.primary_of(*shard).map_or("-", |m| m.id.as_str());
    for (slot, to) in &own.migrating {
        if view.topology.shard_of_slot(*slot) == me.shard {
            let _ = write!(line, " [{slot}->-{}]", id(to));
        }
    }
    for (slot, import) in own.importing.iter().filter(|(_, i)| Some(i.into) == me.shard) {
        let _ = write!(line, " [{slot}-<-{}]", id(&import.from));
    }
}

/// The primary first, then the others.
fn serving<'v>(view: &'v View, id: ShardId, shard: &Shard) -> Vec<&'v Member> {
    let mut members = view.topology.members_of(id);
    members.sort_by_key(|m| shard.primary.as_ref() != Some(&m.id));
    members
}

fn slots(ctx: &mut Ctx<'_, '_>, view: &View) {
    let by_tls = ctx.session.info.is_tls();
    let begin = ctx.reply.begin();
    let mut found = 0;
    for (id, shard) in &view.topology.shards {
        if shard.primary.is_none() {
            continue;
        }
        let members = serving(view, *id, shard);
        for range in &shard.slots {
            found += 1;
            ctx.reply.array(2 + members.len());
            ctx.reply.int(i64::from(range.first));
            ctx.reply.int(i64::from(range.last));
            for member in &members {
                ctx.reply.array(4);
                ctx.reply.bulk(member.host.as_bytes());
                ctx.reply.int(i64::from(member.client_port(by_tls)));
                ctx.reply.bulk(member.id.as_bytes());
                if is_ip(&member.host) {
                    ctx.reply.array(0);
                } else {
                    ctx.reply.array(2);
                    ctx.reply.bulk(b"hostname");
                    ctx.reply.bulk(member.host.as_bytes());
                }
            }
        }
    }
    ctx.reply.end_array(begin, found);
}

/// 40 hex digits that name a shard as long as the cluster lives.
fn shard_id(view: &View, shard: ShardId) -> String {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(format!("{}/{shard}", view.topology.cluster));
    hash.iter().take(20).map(|b| format!("{b:02x}")).collect()
}

fn shards(ctx: &mut Ctx<'_, '_>, view: &View) {
    ctx.reply.array(view.topology.shards.len());
    for (id, shard) in &view.topology.shards {
        let members = serving(view, *id, shard);
        ctx.reply.map(2);
        ctx.reply.bulk(b"slots");
        ctx.reply.array(shard.slots.len() * 2);
        for range in &shard.slots {
            ctx.reply.int(i64::from(range.first));
            ctx.reply.int(i64::from(range.last));
        }
        ctx.reply.bulk(b"nodes");
        ctx.reply.array(members.len());
        for member in members {
            let named = !is_ip(&member.host);
            let role = if is_primary(view, member) { "master" } else { "replica" };
            // Of the two ports those that there are, as Redis shows them.
            let ports = [("port", member.port), ("tls-port", member.tls_port)];
            let ports = ports.into_iter().filter(|(_, port)| *port != 0);
            ctx.reply.map(6 + usize::from(named) + ports.clone().count());
            let texts = [("id", &*member.id), ("ip", &*member.host), ("endpoint", &*member.host)];
            let hostname = named.then_some(("hostname", &*member.host));
            let texts =
                texts.into_iter().chain(hostname).chain([("role", role), ("health", "online")]);
            for (name, value) in texts {
                ctx.reply.bulk(name.as_bytes());
                ctx.reply.bulk(value.as_bytes());
            }
            for (name, port) in ports {
                ctx.reply.bulk(name.as_bytes());
                ctx.reply.int(i64::from(port));
            }
            ctx.reply.bulk(b"replication-offset");
            let offset = if member.id == view.my_id { ctx.shared.journal.end() } else { 0 };
            ctx.reply.int(offset as i64);
        }
    }
}

fn replicas(ctx: &mut Ctx<'_, '_>, view: &View) {
    let id = String::from_utf8_lossy(ctx.args[2]).into_owned();
    let Some(member) = view.topology.members.get(&id) else {
        let id = super::exec::printable(ctx.args[2]);
        return ctx.reply.error(&format!("ERR Unknown node {id}"));
    };
    let Some(shard) = member.shard.filter(|_| is_primary(view, member)) else {
        return ctx.reply.error("ERR The specified node is not a master");
    };
    let others = view.topology.members_of(shard);
    let others: Vec<_> = others.into_iter().filter(|m| m.id != id).collect();
    let silent = ctx.shared.cluster.silent();
    ctx.reply.array(others.len());
    for other in others {
        let line = node_line(view, other, &silent, ctx.session.info.is_tls());
        ctx.reply.bulk(line.trim_end().as_bytes());
    }
}
