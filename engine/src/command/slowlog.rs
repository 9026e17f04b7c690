//! SLOWLOG and COMMANDLOG, and what gets into them: commands that took long, and large requests and replies.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::{Command, Ctx, Group, Keys, flag};
use crate::keyspace::Env;
use crate::server::{Shared, Slow, Slowlog};
use crate::session::Session;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("slowlog", -2, flag::ADMIN | flag::LOADING | flag::STALE, Keys::None, Group::Server, "2.2.12", "Shows commands that took long.", slowlog),
    Command::new("commandlog", -2, flag::ADMIN | flag::LOADING | flag::STALE, Keys::None, Group::Server, "8.1.0", "Shows commands that took long, and large requests and replies.", commandlog),
];

/// Arguments of one entry, and bytes of one argument, that are kept.
const ARGS_MAX: usize = 32;
const ARG_BYTES_MAX: usize = 128;

/// Writes down a command that took `usec`, if that is long.
pub(super) fn note(
    shared: &Shared,
    session: &Session,
    command: &'static Command,
    args: &[&[u8]],
    usec: u64,
    env: &Env,
) {
    let is_long = env.slowlog_us >= 0 && usec as i64 >= env.slowlog_us;
    if is_long && !command.is(flag::SKIP_LOG) {
        let most = shared.config.hot().slowlog_max_len;
        write(&shared.slowlog, most, session, command, args, usec, env.now_ms);
    }
}

/// Writes down a request or reply of many bytes.
#[cold]
pub(crate) fn note_large(
    shared: &Shared,
    session: &Session,
    command: &'static Command,
    args: &[&[u8]],
    (request, reply): (usize, usize),
    now_ms: i64,
) {
    let hot = shared.config.hot();
    let is_over = |bytes: usize, most: i64| most >= 0 && bytes as i64 > most;
    if command.is(flag::SKIP_LOG) {
        return;
    }
    if is_over(request, hot.large_request_bytes) {
        let (log, most) = (&shared.large_requests, hot.large_requests_max);
        write(log, most, session, command, args, request as u64, now_ms);
    }
    if is_over(reply, hot.large_reply_bytes) {
        let (log, most) = (&shared.large_replies, hot.large_replies_max);
        write(log, most, session, command, args, reply as u64, now_ms);
    }
}

fn write(
    log: &Slowlog,
    most: usize,
    session: &Session,
    command: &'static Command,
    args: &[&[u8]],
    value: u64,
    now_ms: i64,
) {
    if most == 0 {
        return;
    }
    let mut kept: Vec<Vec<u8>> = Vec::with_capacity(args.len().min(ARGS_MAX));
    let secrets = crate::monitor::secrets(command, args);
    for (i, arg) in args.iter().enumerate() {
        if i == ARGS_MAX - 1 && args.len() > ARGS_MAX {
            kept.push(format!("... ({} more arguments)", args.len() - i).into_bytes());
            break;
        }
        if secrets.contains(&i) {
            kept.push(b"(redacted)".to_vec());
        } else if arg.len() > ARG_BYTES_MAX {
            let mut cut = arg[..ARG_BYTES_MAX].to_vec();
            let more = format!("... ({} more bytes)", arg.len() - ARG_BYTES_MAX);
            cut.extend_from_slice(more.as_bytes());
            kept.push(cut);
        } else {
            kept.push(arg.to_vec());
        }
    }
    let slow = Slow {
        id: log.next_id.fetch_add(1, Ordering::Relaxed),
        unix_s: now_ms / 1000,
        value,
        args: kept,
        addr: session.info.addr.clone(),
        name: session.info.names().name,
    };
    let mut entries = log.entries.lock().unwrap_or_else(PoisonError::into_inner);
    entries.push_front(slow);
    entries.truncate(most);
}

const HELP: &[&str] = &[
    "SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET [<count>]",
    "    The newest entries (10, or <count>; -1 for all): ID, time, microseconds, arguments, client.",
    "LEN",
    "    How many there are.",
    "RESET",
    "    Empties the log.",
];

fn slowlog(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    let lock = || ctx.shared.slowlog.entries.lock().unwrap_or_else(PoisonError::into_inner);
    match (word.as_slice(), ctx.args.len()) {
        (b"len", 2) => {
            let n = lock().len();
            ctx.reply.int(n as i64);
        }
        (b"reset", 2) => {
            lock().clear();
            ctx.reply.ok();
        }
        (b"get", 2 | 3) => get(ctx, &ctx.shared.slowlog),
        (b"help", 2) => ctx.help(HELP),
        (b"len" | b"reset" | b"get", _) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}

const LOG_HELP: &[&str] = &[
    "COMMANDLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET <count> <type>",
    "    The newest entries (-1: all): ID, time, microseconds or bytes, arguments, client.",
    "LEN <type>",
    "    How many there are.",
    "RESET <type>",
    "    Empties a log. The types: slow, large-request, large-reply.",
];

/// One of the logs, by the name of its type; the error is already replied when there is none such.
fn log_of<'a>(ctx: &mut Ctx<'a, '_>, i: usize) -> Option<&'a Slowlog> {
    let shared = ctx.shared;
    let logs = [
        ("slow", &shared.slowlog),
        ("large-request", &shared.large_requests),
        ("large-reply", &shared.large_replies),
    ];
    let found = logs.into_iter().find(|(name, _)| ctx.is_word(i, name)).map(|(_, log)| log);
    if found.is_none() {
        ctx.reply
            .error("ERR type should be one of the following: slow, large-request, large-reply");
    }
    found
}

fn commandlog(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"get", 4) => {
            if let Some(log) = log_of(ctx, 3) {
                get(ctx, log);
            }
        }
        (b"len", 3) => {
            let Some(log) = log_of(ctx, 2) else { return };
            let n = log.entries.lock().unwrap_or_else(PoisonError::into_inner).len();
            ctx.reply.int(n as i64);
        }
        (b"reset", 3) => {
            let Some(log) = log_of(ctx, 2) else { return };
            log.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
            ctx.reply.ok();
        }
        (b"help", 2) => ctx.help(LOG_HELP),
        (b"get" | b"len" | b"reset", _) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}

fn get(ctx: &mut Ctx<'_, '_>, log: &Slowlog) {
    let mut count = 10;
    if ctx.args.len() > 2 {
        match crate::number::parse_i64(ctx.args[2]) {
            Some(n) if n >= -1 => count = n,
            _ => return ctx.reply.error("ERR count should be greater than or equal to -1"),
        }
    }
    let entries = log.entries.lock().unwrap_or_else(PoisonError::into_inner);
    let count = if count < 0 { entries.len() } else { entries.len().min(count as usize) };
    ctx.reply.array(count);
    for slow in entries.iter().take(count) {
        ctx.reply.array(6);
        ctx.reply.int(slow.id as i64);
        ctx.reply.int(slow.unix_s);
        ctx.reply.int(slow.value as i64);
        ctx.reply.array(slow.args.len());
        slow.args.iter().for_each(|arg| ctx.reply.bulk(arg));
        ctx.reply.bulk(slow.addr.as_bytes());
        ctx.reply.bulk(slow.name.as_bytes());
    }
}
