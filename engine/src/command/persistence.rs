//! SAVE, BGSAVE, LASTSAVE, BGREWRITEAOF, SHUTDOWN, REPLICAOF, ROLE, and what replicas say: PSYNC, SYNC, REPLCONF.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Command, Ctx, Group, Keys, flag};
use crate::clock;
use crate::managed::Reign;
use crate::persist::start::{Goodbye, shut_down};
use crate::persist::{rewrite, save};
use crate::replication;
use crate::replication::failover::Wish;
use crate::server::Shared;
use crate::session::After;

const ADMIN: u32 = flag::ADMIN | flag::NOSCRIPT;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("save", 1, ADMIN | flag::NO_MULTI, Keys::None, Group::Server, "1.0.0", "Saves the data set to disk and waits for it.", save_now),
    Command::new("bgsave", -1, ADMIN, Keys::None, Group::Server, "1.0.0", "Saves the data set to disk in the background.", bgsave),
    Command::new("lastsave", 1, flag::LOADING | flag::STALE | flag::FAST, Keys::None, Group::Server, "1.0.0", "Returns when the data set was last saved, unix seconds.", lastsave),
    Command::new("bgrewriteaof", 1, ADMIN, Keys::None, Group::Server, "1.0.0", "Rewrites the append-only file in the background.", bgrewriteaof),
    Command::new("shutdown", -1, ADMIN | flag::LOADING | flag::STALE | flag::NO_MULTI, Keys::None, Group::Server, "1.0.0", "Saves the data set as configured and ends the server.", shutdown),
    Command::new("failover", -1, ADMIN | flag::STALE, Keys::None, Group::Server, "6.2.0", "Gives a primary's place to one of its replicas.", failover),
    Command::new("replicaof", 3, ADMIN | flag::STALE, Keys::None, Group::Server, "5.0.0", "Follows a primary, or becomes one.", replicaof),
    Command::new("slaveof", 3, ADMIN | flag::STALE, Keys::None, Group::Server, "1.0.0", "The old name of REPLICAOF.", replicaof),
    Command::new("role", 1, flag::LOADING | flag::STALE | flag::FAST | flag::NOSCRIPT, Keys::None, Group::Server, "2.8.12", "Returns the role in replication.", role),
    Command::new("psync", -3, ADMIN | flag::NO_MULTI, Keys::None, Group::Server, "2.8.0", "Begins replication, from a place in a history.", psync),
    Command::new("sync", 1, ADMIN | flag::NO_MULTI, Keys::None, Group::Server, "1.0.0", "Begins replication with a full sync.", sync),
    Command::new("replconf", -1, ADMIN | flag::LOADING | flag::STALE, Keys::None, Group::Server, "3.0.0", "What a replica tells of itself.", replconf),
];

/// The server behind a context, to be kept by a thread; the error is already replied.
fn server(ctx: &mut Ctx<'_, '_>) -> Option<Arc<Shared>> {
    let shared = ctx.shared.strong();
    if shared.is_none() {
        ctx.reply.error("ERR the server is not ready");
    }
    shared
}

fn save_now(ctx: &mut Ctx<'_, '_>) {
    if ctx.shared.persist.saving.swap(true, Ordering::AcqRel) {
        ctx.reply.error("ERR Background save already in progress");
        return;
    }
    let result = save::save(ctx.shared);
    ctx.shared.persist.saving.store(false, Ordering::Release);
    match result {
        Ok(()) => ctx.reply.ok(),
        Err(e) => ctx.reply.error(&format!("ERR {e}")),
    }
}

fn bgsave(ctx: &mut Ctx<'_, '_>) {
    if ctx.args.len() > 2 || (ctx.args.len() == 2 && !ctx.is_word(1, "schedule")) {
        ctx.reply.syntax_error();
        return;
    }
    let Some(shared) = server(ctx) else { return };
    match save::background(&shared) {
        Ok(()) => ctx.reply.simple("Background saving started"),
        Err(e) => ctx.reply.error(&e),
    }
}

fn lastsave(ctx: &mut Ctx<'_, '_>) {
    ctx.reply.int(ctx.shared.persist.last_save_s.load(Ordering::Relaxed));
}

fn bgrewriteaof(ctx: &mut Ctx<'_, '_>) {
    let Some(shared) = server(ctx) else { return };
    if shared.persist.aof().is_none() {
        ctx.reply.error("ERR the append-only file is off (appendonly no)");
        return;
    }
    if shared.persist.saving.load(Ordering::Acquire) {
        shared.persist.rewrite_wanted.store(true, Ordering::Release);
        ctx.reply.simple("Background append only file rewriting scheduled");
        return;
    }
    match rewrite::background(&shared, false) {
        Ok(()) => ctx.reply.simple("Background append only file rewriting started"),
        Err(e) => ctx.reply.error(&e),
    }
}

fn shutdown(ctx: &mut Ctx<'_, '_>) {
    let (mut how, mut force) = (Goodbye::AsConfigured, false);
    for i in 1..ctx.args.len() {
        match ctx.arg(i).to_ascii_lowercase().as_slice() {
            b"save" => how = Goodbye::Save,
            b"nosave" => how = Goodbye::NoSave,
            b"force" => force = true,
            b"now" => {}
            b"abort" => {
                ctx.reply.error("ERR No shutdown in progress.");
                return;
            }
            _ => {
                ctx.reply.syntax_error();
                return;
            }
        }
    }
    let Some(shared) = server(ctx) else { return };
    if how == Goodbye::NoSave {
        shared.scripts.abandon();
    }
    let client = ctx.session.info.clone();
    let spawned = std::thread::Builder::new().name("shutdown".into()).spawn(move || {
        if let Err(why) = shut_down(&shared, how, force) {
            let line = format!("-ERR Errors trying to SHUTDOWN. {why}\r\n");
            shared.deliver(&client, line.into_bytes().into(), Some(shared.basis()));
        }
    });
    if spawned.is_err() {
        ctx.reply.error("ERR cannot start a thread");
    }
}

fn replicaof(ctx: &mut Ctx<'_, '_>) {
    if ctx.shared.cluster.is_enabled() {
        ctx.reply.error("ERR REPLICAOF not allowed in cluster mode.");
        return;
    }
    let Some(shared) = server(ctx) else { return };
    let alone = ctx.is_word(1, "no") && ctx.is_word(2, "one");
    let host = String::from_utf8_lossy(ctx.arg(1)).into_owned();
    let port = crate::number::parse_i64(ctx.arg(2)).and_then(|p| u16::try_from(p).ok());
    if !alone && port.is_none() {
        ctx.reply.error("ERR Invalid master port");
        return;
    }
    // CONFIG GET and REWRITE tell whom the server follows, as Sentinel relies on.
    let primary = if alone { String::new() } else { format!("{host} {}", port.unwrap_or(0)) };
    let note = |shared: &Shared| {
        if let Err(e) = shared.config.set("replicaof", &primary) {
            tracing::error!(error = e, "CONFIG does not tell the new role");
        }
    };
    let change = move |shared: &Arc<Shared>| match port {
        Some(port) if !alone => {
            replication::follow(shared, &host, port);
            Ok(())
        }
        _ => replication::promote(shared),
    };
    if ctx.in_exec {
        // Roles change under all locks, and the transaction may hold some: right behind it then.
        note(ctx.shared);
        let spawned = std::thread::Builder::new().name("role".into()).spawn(move || {
            if let Err(e) = change(&shared) {
                tracing::error!(error = e, "the role was not changed");
            }
        });
        match spawned {
            Ok(_) => ctx.reply.ok(),
            Err(_) => ctx.reply.error("ERR cannot start a thread"),
        }
        return;
    }
    match change(&shared) {
        Ok(()) => {
            note(&shared);
            ctx.reply.ok();
        }
        Err(e) => ctx.reply.error(&e),
    }
}

fn role(ctx: &mut Ctx<'_, '_>) {
    let info = replication::info(ctx.shared);
    if let Some(link) = info.link.filter(|_| info.is_replica) {
        ctx.reply.array(5);
        ctx.reply.bulk(b"slave");
        ctx.reply.bulk(link.host.as_bytes());
        ctx.reply.int(i64::from(link.port));
        ctx.reply.bulk(link.state.as_bytes());
        ctx.reply.int(if link.up { link.offset as i64 } else { -1 });
        return;
    }
    let online: Vec<_> = info.peers.iter().filter(|p| p.state == "online").collect();
    ctx.reply.array(3);
    ctx.reply.bulk(b"master");
    ctx.reply.int(info.offset as i64);
    ctx.reply.array(online.len());
    for peer in online {
        ctx.reply.array(3);
        ctx.reply.bulk(peer.ip.as_bytes());
        ctx.reply.bulk(peer.port.to_string().as_bytes());
        ctx.reply.bulk(peer.offset.to_string().as_bytes());
    }
}

/// A member feeds others only what is surely the shard's data: as primary while its lease holds, as
/// replica while it is in sync. So one that came back empty never empties another.
fn may_feed(shared: &Shared) -> bool {
    if shared.state.is_replica.load(Ordering::Acquire) {
        return replication::info(shared).link.is_some_and(|link| link.up);
    }
    clock::monotonic_ms() < shared.state.lease_until_ms.load(Ordering::Acquire)
}

/// The connection becomes a replica's link, unless we have nothing to give.
fn become_replica(ctx: &mut Ctx<'_, '_>, wants: Option<(String, i64)>) {
    if !may_feed(ctx.shared) {
        ctx.reply.error("NOMASTERLINK Can't SYNC while not connected with my master");
        return;
    }
    ctx.session.replica.is_sync = wants.is_none();
    ctx.session.replica.wants = wants;
    ctx.session.after = After::Replica;
}

/// The primary that this server follows gives its place up, and will follow it. `false`: refused, and replied.
fn take_over(ctx: &mut Ctx<'_, '_>, replid: &str) -> bool {
    let refusal = if ctx.shared.cluster.is_enabled() {
        Some("ERR PSYNC FAILOVER is not for members of a cluster: their council decides on roles")
    } else if !ctx.shared.state.is_replica.load(Ordering::Acquire) {
        Some("ERR PSYNC FAILOVER can't be sent to a master.")
    } else if replid != ctx.shared.replication.replid() {
        Some("ERR PSYNC FAILOVER replid must match my replid.")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        ctx.reply.error(refusal);
        return false;
    }
    let Some(shared) = server(ctx) else { return false };
    tracing::info!("the primary asks for a failover");
    if let Err(error) = replication::promote(&shared) {
        ctx.reply.error(&error);
        return false;
    }
    if let Err(error) = shared.config.set("replicaof", "") {
        tracing::error!(error, "CONFIG does not tell the new role");
    }
    true
}

fn failover(ctx: &mut Ctx<'_, '_>) {
    if ctx.shared.cluster.is_enabled() {
        return ctx.reply.error("ERR FAILOVER not allowed in cluster mode.");
    }
    let Some(shared) = server(ctx) else { return };
    let asked = match failover_args(ctx) {
        Ok(Some(wish)) => replication::failover::begin(&shared, wish),
        Ok(None) => replication::failover::abort(&shared),
        Err(error) => Err(error),
    };
    match asked {
        Ok(()) => ctx.reply.ok(),
        Err(error) => ctx.reply.error(error),
    }
}

/// `None`: the one under way is to end.
fn failover_args(ctx: &Ctx<'_, '_>) -> Result<Option<Wish>, &'static str> {
    let mut wish = Wish::default();
    let (mut at, mut aborts, mut timed) = (1, false, false);
    let number = |at: usize| crate::number::parse_i64(ctx.arg(at));
    while at < ctx.args.len() {
        let left = ctx.args.len() - at - 1;
        if ctx.is_word(at, "abort") && !aborts {
            aborts = true;
            at += 1;
        } else if ctx.is_word(at, "timeout") && left >= 1 && !timed {
            let ms = number(at + 1).ok_or("ERR value is not an integer or out of range")?;
            let ms = u64::try_from(ms).ok().filter(|ms| *ms > 0);
            wish.timeout_ms = ms.ok_or("ERR FAILOVER timeout must be greater than 0")?;
            timed = true;
            at += 2;
        } else if ctx.is_word(at, "to") && left >= 2 && wish.to.is_none() {
            let port = number(at + 2).and_then(|port| u16::try_from(port).ok());
            let port = port.ok_or("ERR value is not an integer or out of range")?;
            wish.to = Some((String::from_utf8_lossy(ctx.arg(at + 1)).into_owned(), port));
            at += 3;
        } else if ctx.is_word(at, "force") && !wish.force {
            wish.force = true;
            at += 1;
        } else {
            return Err("ERR syntax error");
        }
    }
    if aborts {
        return if wish == Wish::default() { Ok(None) } else { Err("ERR syntax error") };
    }
    if wish.force && (wish.to.is_none() || !timed) {
        return Err(
            "ERR FAILOVER with force option requires both a timeout and target HOST and IP to be set.",
        );
    }
    Ok(Some(wish))
}

fn psync(ctx: &mut Ctx<'_, '_>) {
    let replid = String::from_utf8_lossy(ctx.arg(1)).chars().take(64).collect::<String>();
    let Some(offset) = ctx.int_arg(2) else { return };
    if ctx.args.len() > 3 && ctx.is_word(3, "failover") && !take_over(ctx, &replid) {
        return;
    }
    become_replica(ctx, Some((replid, offset)));
}

fn sync(ctx: &mut Ctx<'_, '_>) {
    become_replica(ctx, None);
}

fn replconf(ctx: &mut Ctx<'_, '_>) {
    if ctx.args.len().is_multiple_of(2) {
        ctx.reply.syntax_error();
        return;
    }
    for i in (1..ctx.args.len()).step_by(2) {
        let (name, value) = (ctx.arg(i).to_ascii_lowercase(), ctx.arg(i + 1));
        let text = || String::from_utf8_lossy(value).chars().take(128).collect::<String>();
        let number = crate::number::parse_i64(value);
        let told = &mut ctx.session.replica;
        match name.as_slice() {
            b"listening-port" => match number.and_then(|n| u16::try_from(n).ok()) {
                Some(port) => told.listening_port = port,
                None => {
                    ctx.reply.not_an_integer();
                    return;
                }
            },
            b"ip-address" => told.ip_address = text(),
            b"capa" if value.eq_ignore_ascii_case(b"eof") => told.capa_eof = true,
            b"capa" if value.eq_ignore_ascii_case(b"psync2") => told.capa_psync2 = true,
            b"capa" if value.eq_ignore_ascii_case(b"rdb-channel-repl") => told.capa_redis_8 = true,
            b"capa" => {}
            b"version" => told.version = text(),
            b"larder-member" => told.member = text(),
            b"larder-boot" => told.boot = text(),
            // The replica learns that we vouch for how current it is, once it follows (see `replication::fresh`).
            b"larder-clock" => {}
            b"rdb-only" => told.rdb_only = number == Some(1),
            // Said behind the handshake only, where no reply is wanted.
            b"ack" | b"fack" | b"getack" => return,
            // Asked by who waits to follow us.
            b"larder-reign" => {
                let Some(epoch) = number.and_then(|n| u64::try_from(n).ok()) else {
                    return ctx.reply.not_an_integer();
                };
                let managed = ctx.shared.managed.get();
                let reign = managed.map_or(Reign::Unknown, |engine| engine.reign(epoch));
                return ctx.reply.simple(reign.word());
            }
            b"larder-common" => {
                let end = ctx.shared.journal.end();
                match ctx.shared.replication.common(&text(), end) {
                    Some(offset) => ctx.reply.simple(&offset.to_string()),
                    None => ctx.reply.error("ERR not a history of this member"),
                }
                return;
            }
            _ => {
                let name = super::exec::printable(&name);
                ctx.reply.error(&format!("ERR Unrecognized REPLCONF option: {name}"));
                return;
            }
        }
    }
    ctx.reply.ok();
}
