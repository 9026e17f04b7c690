//! SUBSCRIBE, PSUBSCRIBE and their opposites, PUBLISH, PUBSUB.

use std::sync::atomic::Ordering;

use super::{Command, Ctx, Group, Keys, flag};
use crate::server::Shared;
use crate::session::Session;

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
}

/// What the client is told of each change: the kind, the name, how many are left.
fn tell(ctx: &mut Ctx<'_, '_>, kind: &str, name: Option<&[u8]>) {
    ctx.reply.push(3);
    ctx.reply.bulk(kind.as_bytes());
    match name {
        Some(name) => ctx.reply.bulk(name),
        None => ctx.reply.null(),
    }
    let left = count(ctx.session);
    ctx.reply.int(left as i64);
}

fn too_many(ctx: &mut Ctx<'_, '_>) -> bool {
    let over = count(ctx.session) + ctx.args.len() > SUBSCRIPTIONS_MAX;
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

/// Ends every subscription of a connection, without telling it (RESET).
pub(super) fn forget_all(shared: &Shared, session: &mut Session) {
    for name in std::mem::take(&mut session.channels) {
        shared.pubsub.unsubscribe(&name, &session.info);
    }
    for name in std::mem::take(&mut session.patterns) {
        shared.pubsub.punsubscribe(&name, &session.info);
    }
    note_counts(session);
}

fn publish(ctx: &mut Ctx<'_, '_>) {
    let (channel, message) = (ctx.args[1], ctx.args[2]);
    let receivers = ctx.shared.publish(channel, message);
    // Replicas have subscribers of their own: the message goes with the writes, though nothing changed.
    if ctx.shared.journal.is_active() && !ctx.session.from_primary {
        ctx.dirty += 1;
    }
    ctx.reply.int(receivers as i64);
}

const HELP: &[&str] = &[
    "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CHANNELS [<pattern>]",
    "    Channels that somebody listens to.",
    "NUMPAT",
    "    How many patterns are listened to.",
    "NUMSUB [<channel> ...]",
    "    How many listen to each channel.",
];

fn pubsub(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"channels", 2..=3) => {
            let found = ctx.shared.pubsub.channels(ctx.args.get(2).copied());
            ctx.reply.array(found.len());
            found.iter().for_each(|name| ctx.reply.bulk(name));
        }
        (b"numpat", 2) => {
            let n = ctx.shared.pubsub.patterns();
            ctx.reply.int(n as i64);
        }
        (b"numsub", _) => {
            let names = &ctx.args[2..];
            ctx.reply.array(names.len() * 2);
            for name in names {
                ctx.reply.bulk(name);
                let n = ctx.shared.pubsub.listeners_of(name);
                ctx.reply.int(n as i64);
            }
        }
        (b"shardchannels", 2..=3) => ctx.reply.array(0),
        (b"shardnumsub", _) => {
            let names = &ctx.args[2..];
            ctx.reply.array(names.len() * 2);
            for name in names {
                ctx.reply.bulk(name);
                ctx.reply.int(0);
            }
        }
        (b"help", 2) => ctx.help(HELP),
        (b"channels" | b"numpat", _) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}
