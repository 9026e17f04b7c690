//! SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE and their opposites, PUBLISH, SPUBLISH, PUBSUB.

use std::sync::atomic::Ordering;

use super::{Command, Ctx, Group, Keys, flag};
use crate::resp::Reply;
use crate::server::Shared;
use crate::session::Session;
use crate::topology::slot_of;

const LISTEN: u32 =
    flag::PUBSUB | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::IN_SUBSCRIBE;
const TELL: u32 = flag::PUBSUB | flag::LOADING | flag::STALE;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("subscribe", -2, LISTEN, Keys::None, Group::PubSub, "2.0.0", "Listens to channels.", subscribe),
    Command::new("unsubscribe", -1, LISTEN, Keys::None, Group::PubSub, "2.0.0", "Stops listening to channels.", unsubscribe),
    Command::new("psubscribe", -2, LISTEN, Keys::None, Group::PubSub, "2.0.0", "Listens to all channels that match patterns.", psubscribe),
    Command::new("punsubscribe", -1, LISTEN, Keys::None, Group::PubSub, "2.0.0", "Stops listening to patterns.", punsubscribe),
    Command::new("publish", 3, TELL | flag::FAST, Keys::None, Group::PubSub, "2.0.0", "Sends a message to a channel's listeners.", publish),
    Command::new("ssubscribe", -2, LISTEN, Keys::ALL, Group::PubSub, "7.0.0", "Listens to channels of one slot, on the shard that owns it.", ssubscribe),
    Command::new("sunsubscribe", -1, LISTEN, Keys::ALL, Group::PubSub, "7.0.0", "Stops listening to shard channels.", sunsubscribe),
    Command::new("spublish", 3, TELL | flag::FAST, Keys::FIRST, Group::PubSub, "7.0.0", "Sends a message to a shard channel's listeners.", spublish),
    Command::new("pubsub", -2, TELL, Keys::None, Group::PubSub, "2.8.0", "Shows channels and who listens.", pubsub),
];

/// Channels and patterns of one connection.
const SUBSCRIPTIONS_MAX: usize = 1 << 20;

fn count(session: &Session) -> usize {
    session.channels.len() + session.patterns.len()
}

fn note_counts(session: &Session) {
    session.info.subscriptions.store(session.channels.len() as u32, Ordering::Relaxed);
    session.info.patterns.store(session.patterns.len() as u32, Ordering::Relaxed);
    session.info.shard_channels.store(session.shard_channels.len() as u32, Ordering::Relaxed);
}

/// What the client is told of each change: the kind, the name, how many are left (of shard channels apart).
fn tell(ctx: &mut Ctx<'_, '_>, kind: &str, name: Option<&[u8]>) {
    tell_session(ctx.session, ctx.reply, kind, name);
}

fn tell_session(session: &Session, reply: &mut Reply, kind: &str, name: Option<&[u8]>) {
    reply.push(3);
    reply.bulk(kind.as_bytes());
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    let of_shards = matches!(kind, "ssubscribe" | "sunsubscribe");
    let left = if of_shards { session.shard_channels.len() } else { count(session) };
    reply.int(left as i64);
}

fn too_many(ctx: &mut Ctx<'_, '_>) -> bool {
    let had = count(ctx.session) + ctx.session.shard_channels.len();
    let over = had + ctx.args.len() > SUBSCRIPTIONS_MAX;
    if over {
        ctx.reply.error("ERR too many subscriptions of one connection");
    }
    over
}

fn subscribe(ctx: &mut Ctx<'_, '_>) {
    if too_many(ctx) {
        return;
    }
    let names = &ctx.args[1..];
    for name in names {
        if ctx.session.channels.insert(name.to_vec()) {
            ctx.shared.pubsub.subscribe(name, &ctx.session.info);
        }
        note_counts(ctx.session);
        tell(ctx, "subscribe", Some(name));
    }
}

fn psubscribe(ctx: &mut Ctx<'_, '_>) {
    if too_many(ctx) {
        return;
    }
    let names = &ctx.args[1..];
    for name in names {
        if ctx.session.patterns.insert(name.to_vec()) {
            ctx.shared.pubsub.psubscribe(name, &ctx.session.info);
        }
        note_counts(ctx.session);
        tell(ctx, "psubscribe", Some(name));
    }
}

fn unsubscribe(ctx: &mut Ctx<'_, '_>) {
    let names: Vec<Vec<u8>> = if ctx.args.len() > 1 {
        ctx.args[1..].iter().map(|n| n.to_vec()).collect()
    } else {
        ctx.session.channels.iter().cloned().collect()
    };
    if names.is_empty() {
        return tell(ctx, "unsubscribe", None);
    }
    for name in names {
        if ctx.session.channels.remove(&name) {
            ctx.shared.pubsub.unsubscribe(&name, &ctx.session.info);
        }
        note_counts(ctx.session);
        tell(ctx, "unsubscribe", Some(&name));
    }
}

fn punsubscribe(ctx: &mut Ctx<'_, '_>) {
    let names: Vec<Vec<u8>> = if ctx.args.len() > 1 {
        ctx.args[1..].iter().map(|n| n.to_vec()).collect()
    } else {
        ctx.session.patterns.iter().cloned().collect()
    };
    if names.is_empty() {
        return tell(ctx, "punsubscribe", None);
    }
    for name in names {
        if ctx.session.patterns.remove(&name) {
            ctx.shared.pubsub.punsubscribe(&name, &ctx.session.info);
        }
        note_counts(ctx.session);
        tell(ctx, "punsubscribe", Some(&name));
    }
}

fn ssubscribe(ctx: &mut Ctx<'_, '_>) {
    if too_many(ctx) {
        return;
    }
    let names = &ctx.args[1..];
    for name in names {
        let is_new = ctx.session.shard_channels.insert(name.to_vec());
        if is_new {
            ctx.shared.pubsub.ssubscribe(name, &ctx.session.info);
        }
        // The slot may have gone since the request was routed. Looked at behind the subscription: either we see it, or
        // whoever takes the slot away sees the subscription.
        if is_new && !ctx.shared.hears_shard(slot_of(name)) {
            ctx.session.shard_channels.remove(*name);
            ctx.shared.pubsub.sunsubscribe(name, &ctx.session.info);
            let error = ctx.shared.cluster.redirection(slot_of(name), ctx.session.info.is_tls());
            return ctx.reply.error(&error.unwrap_or("CLUSTERDOWN Hash slot not served".into()));
        }
        note_counts(ctx.session);
        tell(ctx, "ssubscribe", Some(name));
    }
}

fn sunsubscribe(ctx: &mut Ctx<'_, '_>) {
    let names: Vec<Vec<u8>> = if ctx.args.len() > 1 {
        ctx.args[1..].iter().map(|n| n.to_vec()).collect()
    } else {
        ctx.session.shard_channels.iter().cloned().collect()
    };
    if names.is_empty() {
        return tell(ctx, "sunsubscribe", None);
    }
    for name in names {
        if ctx.session.shard_channels.remove(&name) {
            ctx.shared.pubsub.sunsubscribe(&name, &ctx.session.info);
        }
        note_counts(ctx.session);
        tell(ctx, "sunsubscribe", Some(&name));
    }
}

/// The slot of a shard channel is served elsewhere now.
pub(crate) fn leave_shard_channel(
    shared: &Shared,
    session: &mut Session,
    reply: &mut Reply,
    name: &[u8],
) {
    // It may have come back meanwhile.
    if !shared.hears_shard(slot_of(name)) && session.shard_channels.remove(name) {
        shared.pubsub.sunsubscribe(name, &session.info);
        note_counts(session);
        tell_session(session, reply, "sunsubscribe", Some(name));
    }
}

/// Ends every subscription of a connection, without telling it (RESET).
pub(super) fn forget_all(shared: &Shared, session: &mut Session) {
    for name in std::mem::take(&mut session.channels) {
        shared.pubsub.unsubscribe(&name, &session.info);
    }
    for name in std::mem::take(&mut session.patterns) {
        shared.pubsub.punsubscribe(&name, &session.info);
    }
    for name in std::mem::take(&mut session.shard_channels) {
        shared.pubsub.sunsubscribe(&name, &session.info);
    }
    note_counts(session);
}

fn publish(ctx: &mut Ctx<'_, '_>) {
    let (channel, message) = (ctx.args[1], ctx.args[2]);
    let receivers = ctx.shared.publish(channel, message);
    pass_on(ctx);
    ctx.reply.int(receivers as i64);
}

fn spublish(ctx: &mut Ctx<'_, '_>) {
    let (channel, message) = (ctx.args[1], ctx.args[2]);
    let receivers = ctx.shared.spublish(channel, message);
    pass_on(ctx);
    ctx.reply.int(receivers as i64);
}

/// Replicas have subscribers of their own: a message goes with the writes, though nothing changed. What is published
/// on a replica stays there: its journal is its primary's.
fn pass_on(ctx: &mut Ctx<'_, '_>) {
    let is_replica = ctx.shared.state.is_replica.load(Ordering::Acquire);
    if ctx.shared.journal.is_active() && !ctx.session.from_primary && !is_replica {
        ctx.dirty += 1;
    }
}

const HELP: &[&str] = &[
    "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CHANNELS [<pattern>]",
    "    Channels that somebody listens to.",
    "NUMPAT",
    "    How many patterns are listened to.",
    "NUMSUB [<channel> ...]",
    "    How many listen to each channel.",
    "SHARDCHANNELS [<pattern>], SHARDNUMSUB [<channel> ...]",
    "    The same of shard channels.",
];

fn pubsub(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"channels" | b"shardchannels", 2..=3) => {
            let (pubsub, pattern) = (&ctx.shared.pubsub, ctx.args.get(2).copied());
            let of_shards = word.starts_with(b"shard");
            let found =
                if of_shards { pubsub.shard_channels(pattern) } else { pubsub.channels(pattern) };
            ctx.reply.array(found.len());
            found.iter().for_each(|name| ctx.reply.bulk(name));
        }
        (b"numpat", 2) => {
            let n = ctx.shared.pubsub.patterns();
            ctx.reply.int(n as i64);
        }
        (b"numsub" | b"shardnumsub", _) => {
            let names = &ctx.args[2..];
            ctx.reply.array(names.len() * 2);
            for name in names {
                ctx.reply.bulk(name);
                let pubsub = &ctx.shared.pubsub;
                let n = match word.as_slice() {
                    b"numsub" => pubsub.listeners_of(name),
                    _ => pubsub.shard_listeners_of(name),
                };
                ctx.reply.int(n as i64);
            }
        }
        (b"help", 2) => ctx.help(HELP),
        (b"channels" | b"shardchannels", _) => ctx.bad_subcommand(),
        (b"numpat", _) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}
