//! Connection commands: PING, ECHO, HELLO, AUTH, SELECT, RESET, QUIT, READONLY, ASKING.

use std::sync::atomic::Ordering;

use super::{Command, Ctx, Group, Keys, flag};
use crate::session::After;

/// Runs whatever state the server is in.
const ALWAYS: u32 = flag::FAST | flag::LOADING | flag::STALE;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("ping", -1, flag::FAST | flag::IN_SUBSCRIBE, Keys::None, Group::Connection, "1.0.0", "Answers PONG, or the message.", ping),
    Command::new("echo", 2, ALWAYS, Keys::None, Group::Connection, "1.0.0", "Returns its argument.", echo),
    Command::new("hello", -1, ALWAYS | flag::NO_AUTH | flag::NOSCRIPT | flag::SKIP_LOG, Keys::None, Group::Connection, "6.0.0", "Chooses the protocol, and says who the server is.", hello),
    Command::new("auth", -2, ALWAYS | flag::NO_AUTH | flag::NOSCRIPT | flag::SKIP_LOG, Keys::None, Group::Connection, "1.0.0", "Authenticates the connection.", auth),
    Command::new("select", 2, ALWAYS, Keys::None, Group::Connection, "1.0.0", "Changes the database of the connection.", select),
    Command::new("reset", 1, ALWAYS | flag::NO_AUTH | flag::NOSCRIPT | flag::UNQUEUED | flag::IN_SUBSCRIBE, Keys::None, Group::Connection, "6.2.0", "Puts the connection back to how it began.", reset),
    Command::new("quit", -1, ALWAYS | flag::NO_AUTH | flag::NOSCRIPT | flag::UNQUEUED | flag::IN_SUBSCRIBE, Keys::None, Group::Connection, "1.0.0", "Closes the connection.", quit),
    Command::new("readonly", -1, ALWAYS, Keys::None, Group::Cluster, "3.0.0", "Lets this connection read from a replica, with MAXSTALE only while that is no further behind.", readonly),
    Command::new("readwrite", 1, ALWAYS, Keys::None, Group::Cluster, "3.0.0", "Ends READONLY.", readwrite),
    Command::new("asking", 1, flag::FAST, Keys::None, Group::Cluster, "3.0.0", "Lets the next request use a slot that is being moved here.", asking),
];

fn ping(ctx: &mut Ctx<'_, '_>) {
    if ctx.args.len() > 2 {
        ctx.wrong_arity();
        return;
    }
    let message = ctx.args.get(1).copied();
    if ctx.session.in_subscribe_mode() {
        ctx.reply.array(2);
        ctx.reply.bulk(b"pong");
        ctx.reply.bulk(message.unwrap_or_default());
        return;
    }
    match message {
        Some(message) => ctx.reply.bulk(message),
        None => ctx.reply.simple("PONG"),
    }
}

fn echo(ctx: &mut Ctx<'_, '_>) {
    ctx.reply.bulk(ctx.args[1]);
}

/// The client becomes the user whose name and password these are; a wrong one stands in the ACL log.
fn log_in(ctx: &mut Ctx<'_, '_>, user: &[u8], password: &[u8]) -> bool {
    let shared = ctx.shared;
    match shared.acl.authenticate(user, password) {
        Some(user) => {
            shared.acl.become_user(ctx.session, user);
            true
        }
        None => {
            let (word, now_ms) = (ctx.args[0], ctx.db.now_ms());
            crate::acl::note_wrong_password(shared, ctx.session, user, word, now_ms);
            ctx.reply.error(WRONG_PASSWORD);
            false
        }
    }
}

/// Longest bound of READONLY MAXSTALE, milliseconds: a day.
const MAXSTALE_MS: i64 = 86_400_000;
const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

fn auth(ctx: &mut Ctx<'_, '_>) {
    let (user, password) = match ctx.args {
        [_, password] => {
            if ctx.shared.acl.default_has_no_password() {
                return ctx.reply.error(
                    "ERR AUTH <password> called without any password configured for the default user. \
                     Are you sure your configuration is correct?",
                );
            }
            (b"default".as_slice(), *password)
        }
        [_, user, password] => (*user, *password),
        _ => return ctx.reply.syntax_error(),
    };
    if log_in(ctx, user, password) {
        ctx.reply.ok();
    }
}

fn hello(ctx: &mut Ctx<'_, '_>) {
    let mut resp3 = ctx.session.resp3;
    let mut i = 1;
    if let Some(version) = ctx.args.get(1) {
        match crate::number::parse_i64(version) {
            None => {
                return ctx.reply.error("ERR Protocol version is not an integer or out of range");
            }
            Some(n @ (2 | 3)) => resp3 = n == 3,
            Some(_) => return ctx.reply.error("NOPROTO unsupported protocol version"),
        }
        i = 2;
    }
    let (mut name, mut credentials) = (None, None);
    while i < ctx.args.len() {
        if ctx.is_word(i, "auth") && i + 2 < ctx.args.len() {
            credentials = Some((ctx.args[i + 1], ctx.args[i + 2]));
            i += 3;
        } else if ctx.is_word(i, "setname") && i + 1 < ctx.args.len() {
            if !super::client::is_plain(ctx.args[i + 1]) {
                return ctx.reply.error(super::client::BAD_NAME);
            }
            name = Some(String::from_utf8_lossy(ctx.args[i + 1]).into_owned());
            i += 2;
        } else {
            let word = super::exec::printable(ctx.args[i]);
            return ctx.reply.error(&format!("ERR Syntax error in HELLO option '{word}'"));
        }
    }
    if let Some((user, password)) = credentials
        && !log_in(ctx, user, password)
    {
        return;
    }
    if !ctx.session.authenticated {
        return ctx.reply.error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
             <proto> AUTH <user> <pass> option can be used to authenticate the client and select the \
             RESP protocol version at the same time",
        );
    }
    if let Some(name) = name {
        ctx.session.info.set_names(|names| names.name = name);
    }
    if !resp3 {
        // They come as pushes, which RESP2 has not.
        ctx.shared.maintenance.remove(&ctx.session.info);
    }
    ctx.session.resp3 = resp3;
    ctx.session.info.resp3.store(resp3, Ordering::Relaxed);
    ctx.reply.resp3 = resp3;
    describe_server(ctx);
}

fn describe_server(ctx: &mut Ctx<'_, '_>) {
    let mode = if ctx.shared.cluster.is_enabled() { "cluster" } else { "standalone" };
    let is_replica = ctx.shared.state.is_replica.load(Ordering::Acquire);
    let zone = ctx.shared.config.get("larder-zone").unwrap_or_default();
    ctx.reply.map(if zone.is_empty() { 7 } else { 8 });
    let texts = [("server", "redis"), ("version", super::info::REDIS_VERSION)];
    for (name, value) in texts {
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.bulk(value.as_bytes());
    }
    ctx.reply.bulk(b"proto");
    ctx.reply.int(if ctx.session.resp3 { 3 } else { 2 });
    ctx.reply.bulk(b"id");
    ctx.reply.int(ctx.session.info.id as i64);
    ctx.reply.bulk(b"mode");
    ctx.reply.bulk(mode.as_bytes());
    ctx.reply.bulk(b"role");
    ctx.reply.bulk(if is_replica { b"replica" } else { b"master" });
    ctx.reply.bulk(b"modules");
    ctx.reply.array(0);
    if !zone.is_empty() {
        ctx.reply.bulk(b"availability_zone");
        ctx.reply.bulk(zone.as_bytes());
    }
}

fn select(ctx: &mut Ctx<'_, '_>) {
    let Some(n) = ctx.i32_arg(1) else { return };
    if ctx.shared.cluster.is_enabled() && n != 0 {
        return ctx.reply.error("ERR SELECT is not allowed in cluster mode");
    }
    match u16::try_from(n).ok().filter(|n| *n < ctx.shared.keyspace.databases()) {
        Some(db) => {
            ctx.session.select(db);
            ctx.db.select(db);
            ctx.reply.ok();
        }
        None => ctx.reply.error("ERR DB index is out of range"),
    }
}

fn reset(ctx: &mut Ctx<'_, '_>) {
    let session = &mut *ctx.session;
    session.queue = None;
    super::exec::unwatch(ctx.shared, session);
    super::pubsub::forget_all(ctx.shared, session);
    ctx.shared.monitors.remove(&session.info);
    ctx.shared.maintenance.remove(&session.info);
    session.monitors = false;
    super::tracking::forget(ctx.shared, session);
    session.select(0);
    session.resp3 = false;
    (session.readonly, session.max_stale_ms) = (false, 0);
    session.asking = false;
    session.reply_off = false;
    session.reply_skip = false;
    session.no_touch = false;
    super::client::set_redirects(session, false);
    super::client::set_import_source(session, false);
    ctx.shared.acl.become_default(session);
    let info = &session.info;
    info.resp3.store(false, Ordering::Relaxed);
    info.in_multi.store(false, Ordering::Relaxed);
    info.no_evict.store(false, Ordering::Relaxed);
    info.set_names(|names| names.name.clear());
    ctx.reply.resp3 = false;
    ctx.reply.simple("RESET");
}

fn quit(ctx: &mut Ctx<'_, '_>) {
    ctx.session.after = After::Close;
    ctx.reply.ok();
}

fn needs_cluster(ctx: &mut Ctx<'_, '_>) -> bool {
    let enabled = ctx.shared.cluster.is_enabled();
    if !enabled {
        ctx.reply.error("ERR This instance has cluster support disabled");
    }
    enabled
}

/// `READONLY [MAXSTALE milliseconds]`. With a bound it is for replicas outside of clusters, too.
fn readonly(ctx: &mut Ctx<'_, '_>) {
    let bound = match ctx.args.len() {
        1 => 0,
        3 if ctx.is_word(1, "maxstale") => match ctx.int_arg(2) {
            None => return,
            Some(ms @ 1..=MAXSTALE_MS) => ms as u64,
            Some(_) => {
                let text = format!("ERR MAXSTALE is between 1 and {MAXSTALE_MS} milliseconds");
                return ctx.reply.error(&text);
            }
        },
        _ => return ctx.reply.syntax_error(),
    };
    // Who is redirected to the primary may choose not to be, without a cluster too.
    if bound == 0 && !ctx.session.redirects && !needs_cluster(ctx) {
        return;
    }
    if bound != 0 {
        ctx.shared.replication.fresh.want(bound);
    }
    (ctx.session.readonly, ctx.session.max_stale_ms) = (true, bound);
    ctx.reply.ok();
}

fn readwrite(ctx: &mut Ctx<'_, '_>) {
    let was_bound = ctx.session.max_stale_ms != 0;
    if was_bound || ctx.session.redirects || needs_cluster(ctx) {
        (ctx.session.readonly, ctx.session.max_stale_ms) = (false, 0);
        ctx.reply.ok();
    }
}

fn asking(ctx: &mut Ctx<'_, '_>) {
    if needs_cluster(ctx) {
        ctx.session.asking = true;
        ctx.reply.ok();
    }
}
