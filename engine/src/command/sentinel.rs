//! SENTINEL, as clients ask it to find a primary: every managed member answers for all shards of its cluster.
//!
//! A shard is a "master" by the name of its members without their index: `demo-0` for `demo-0-1`; a cluster
//! of one shard answers to `demo` as well. The members are the sentinels: whoever asks one of them learns of
//! the others, and hears `+switch-master` from each. Who is primary is the council's business: what would make
//! a Sentinel watch other servers is refused.

use super::{Command, Ctx, Group, Keys, cluster_change, flag};
use crate::cluster::View;
use crate::resp::Reply;
use crate::server::Shared;
use crate::topology::{Member, Shard, ShardId, Topology};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("sentinel", -2, flag::ADMIN | flag::LOADING | flag::STALE | flag::NOSCRIPT, Keys::None, Group::Sentinel, "2.8.4", "Tells Sentinel clients where the primaries are.", sentinel),
];

const HELP: &[&str] = &[
    "SENTINEL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "MASTERS, MASTER <name>, REPLICAS <name>, SENTINELS <name>",
    "    The shards, a shard's members, and the members that answer as sentinels.",
    "GET-MASTER-ADDR-BY-NAME <name>",
    "    Host and port of a shard's primary.",
    "CKQUORUM <name>, FAILOVER <name>, MYID",
    "    Whether the council can decide, a handover, this member.",
];

fn sentinel(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    if word == b"help" {
        return ctx.help(HELP);
    }
    if ctx.shared.managed.get().is_none() {
        return ctx.reply.error("ERR this server has no council: it knows of no primaries");
    }
    let view = ctx.shared.cluster.view();
    let by_tls = ctx.session.info.is_tls();
    match (word.as_slice(), ctx.args.len()) {
        (b"masters", 2) => {
            ctx.reply.array(view.topology.shards.len());
            for (id, shard) in &view.topology.shards {
                write(ctx.reply, &shard_fields(&view, *id, shard, by_tls));
            }
        }
        (b"myid", 2) => ctx.reply.bulk(view.my_id.as_bytes()),
        (b"get-master-addr-by-name", 3) => {
            match found(ctx, &view).and_then(|id| view.primary_of(id)) {
                Some(primary) => {
                    ctx.reply.array(2);
                    ctx.reply.bulk(primary.host.as_bytes());
                    ctx.reply.bulk(primary.client_port(by_tls).to_string().as_bytes());
                }
                None => ctx.reply.null_array(),
            }
        }
        (b"is-master-down-by-addr", 6) => {
            ctx.reply.array(3);
            ctx.reply.int(0);
            ctx.reply.bulk(b"*");
            ctx.reply.int(0);
        }
        (b"master" | b"replicas" | b"slaves" | b"sentinels" | b"ckquorum" | b"failover", 3) => {
            let Some(id) = found(ctx, &view) else {
                return ctx.reply.error("ERR No such master with that name");
            };
            about(ctx, &view, &word, id);
        }
        (b"monitor" | b"remove" | b"set" | b"reset" | b"config" | b"flushconfig", _) => {
            ctx.reply.error("ERR the members' council decides what is watched, and how");
        }
        (
            b"masters"
            | b"myid"
            | b"get-master-addr-by-name"
            | b"is-master-down-by-addr"
            | b"master"
            | b"replicas"
            | b"slaves"
            | b"sentinels"
            | b"ckquorum"
            | b"failover",
            _,
        ) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}

/// What is asked about one shard.
fn about(ctx: &mut Ctx<'_, '_>, view: &View, word: &[u8], id: ShardId) {
    let topology = &view.topology;
    let by_tls = ctx.session.info.is_tls();
    let Some(shard) = topology.shards.get(&id) else { return ctx.reply.null() };
    match word {
        b"master" => write(ctx.reply, &shard_fields(view, id, shard, by_tls)),
        b"replicas" | b"slaves" => {
            let is_replica = |m: &&Member| shard.primary.as_ref() != Some(&m.id);
            let all: Vec<_> = topology.members_of(id).into_iter().filter(is_replica).collect();
            ctx.reply.array(all.len());
            for member in all {
                write(ctx.reply, &replica_fields(view, id, shard, member, by_tls));
            }
        }
        b"sentinels" => {
            let others: Vec<_> = topology.members.values().filter(|m| m.id != view.my_id).collect();
            ctx.reply.array(others.len());
            for member in others {
                let mut fields = fields_of(member.client_address(by_tls), member, by_tls);
                fields.push(("flags", "sentinel".into()));
                fields.push(("voted-leader", "?".into()));
                fields.push(("voted-leader-epoch", "0".into()));
                write(ctx.reply, &fields);
            }
        }
        b"ckquorum" => {
            let lease = &ctx.shared.state.lease_until_ms;
            let until = lease.load(std::sync::atomic::Ordering::Acquire);
            let voters = topology.voters.len();
            let is_replica = ctx.shared.state.is_replica.load(std::sync::atomic::Ordering::Acquire);
            if is_replica || crate::clock::monotonic_ms() < until {
                ctx.reply.simple(&format!(
                    "OK {voters} usable Sentinels. Quorum and failover authorization can be reached"
                ));
            } else {
                ctx.reply.error("NOQUORUM The council does not answer this member.");
            }
        }
        _ => cluster_change::hand_over(ctx, id, shard),
    }
}

/// `demo-0` of `demo-0-1`; `demo` is the only shard of its cluster.
fn name_of(topology: &Topology, id: ShardId) -> String {
    let members = topology.members_of(id);
    let name = members.first().and_then(|m| m.name.rsplit_once('-')).map(|(shard, _)| shard);
    name.map_or_else(|| format!("shard-{id}"), str::to_string)
}

fn found(ctx: &Ctx<'_, '_>, view: &View) -> Option<ShardId> {
    let wanted = ctx.args[2];
    let topology = &view.topology;
    let only = topology.shards.len() == 1;
    topology.shards.keys().copied().find(|id| {
        let name = name_of(topology, *id);
        let short = name.rsplit_once('-').map_or("", |(cluster, _)| cluster);
        name.as_bytes() == wanted || only && short.as_bytes() == wanted
    })
}

type Fields = Vec<(&'static str, String)>;

fn fields_of(name: String, member: &Member, by_tls: bool) -> Fields {
    vec![
        ("name", name),
        ("ip", member.host.clone()),
        ("port", member.client_port(by_tls).to_string()),
        ("runid", member.id.clone()),
        ("link-pending-commands", "0".into()),
        ("link-refcount", "1".into()),
        ("last-ping-sent", "0".into()),
        ("last-ok-ping-reply", "0".into()),
        ("last-ping-reply", "0".into()),
    ]
}

fn shard_fields(view: &View, id: ShardId, shard: &Shard, by_tls: bool) -> Fields {
    let topology = &view.topology;
    let primary = view.primary_of(id);
    let name = name_of(topology, id);
    let mut fields = match primary {
        Some(primary) => fields_of(name, primary, by_tls),
        None => vec![("name", name)],
    };
    let replicas = topology.members_of(id).len().saturating_sub(usize::from(primary.is_some()));
    let flags = if primary.is_some() { "master" } else { "master,s_down,o_down" };
    fields.extend([
        ("flags", flags.to_string()),
        ("role-reported", "master".into()),
        ("config-epoch", shard.epoch.to_string()),
        ("num-slaves", replicas.to_string()),
        ("num-other-sentinels", topology.members.len().saturating_sub(1).to_string()),
        ("quorum", (topology.voters.len() / 2 + 1).to_string()),
    ]);
    fields
}

fn replica_fields(
    view: &View,
    id: ShardId,
    shard: &Shard,
    member: &Member,
    by_tls: bool,
) -> Fields {
    let primary = view.primary_of(id);
    let in_sync = shard.in_sync.contains_key(&member.id);
    let mut fields = fields_of(member.client_address(by_tls), member, by_tls);
    fields.extend([
        ("flags", if in_sync { "slave" } else { "slave,disconnected" }.to_string()),
        ("role-reported", "slave".into()),
        ("master-link-status", if in_sync { "ok" } else { "err" }.into()),
        ("master-host", primary.map_or("?", |p| &p.host).to_string()),
        ("master-port", primary.map_or(0, |p| p.client_port(by_tls)).to_string()),
        ("slave-priority", "100".into()),
    ]);
    fields
}

fn write(reply: &mut Reply, fields: &Fields) {
    reply.map(fields.len());
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
}

/// Tells this member's subscribers of primaries that are others than before.
pub(crate) fn announce(shared: &Shared, before: &Topology, after: &Topology) {
    // All hear the same: where members find each other.
    let by_tls = shared.config.is_yes("tls-replication");
    for (id, shard) in &after.shards {
        let place = |topology: &Topology, primary: Option<&String>| {
            let member = topology.members.get(primary?)?;
            Some(format!("{} {}", member.host, member.client_port(by_tls)))
        };
        let old = before.shards.get(id).and_then(|s| place(before, s.primary.as_ref()));
        let new = place(after, shard.primary.as_ref());
        let (Some(old), Some(new)) = (old, new) else { continue };
        if old == new {
            continue;
        }
        let name = name_of(after, *id);
        let mut names = vec![name.as_str()];
        if after.shards.len() == 1 {
            names.extend(name.rsplit_once('-').map(|(cluster, _)| cluster));
        }
        for name in names {
            shared.publish(b"+switch-master", format!("{name} {old} {new}").as_bytes());
        }
    }
}
