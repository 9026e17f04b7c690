//! CLIENT: who is connected, what a connection is called, and closing, pausing and unblocking it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::{Command, Ctx, Group, Keys, flag};
use crate::maintenance::{ENDPOINTS, Endpoint};
use crate::number::parse_i64;
use crate::resp::Reply;
use crate::session::{After, ClientInfo, Session};
use crate::tracking::Mode;
use crate::waiters::OnTimeout;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("client", -2, flag::NOSCRIPT | flag::LOADING | flag::STALE, Keys::None, Group::Connection, "2.4.0", "Shows and controls connections.", client),
    Command::new("monitor", 1, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, Keys::None, Group::Server, "1.0.0", "Shows every command as it is run.", monitor),
];

pub(super) const BAD_NAME: &str =
    "ERR Client names cannot contain spaces, newlines or special characters.";

/// A name of visible characters, which cannot break the lines of CLIENT LIST.
pub(super) fn is_plain(name: &[u8]) -> bool {
    name.iter().all(|b| (b'!'..=b'~').contains(b))
}

const HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME, SETNAME <name>, SETINFO <LIB-NAME|LIB-VER> <value>",
    "    The name of the connection, and of the library that made it.",
    "ID, INFO, LIST [TYPE <type>] [ID <id> ...]",
    "    The connection's number; one connection or many in readable lines.",
    "KILL <ip:port> | KILL <filter> <value> ...",
    "    Close connections. Filters: ID, ADDR, LADDR, TYPE, USER, SKIPME, MAXAGE.",
    "CAPA <capability> [<capability> ...]",
    "    What the client understands. redirect: -REDIRECT from a replica that is not in a cluster.",
    "IMPORT-SOURCE <ON|OFF>",
    "    In import mode: this connection imports data, and sees expired keys too.",
    "NO-EVICT <ON|OFF>, NO-TOUCH <ON|OFF>, REPLY <ON|OFF|SKIP>",
    "    Switches of this connection.",
    "TRACKING <ON|OFF> [REDIRECT <id>] [BCAST] [PREFIX <prefix> ...] [OPTIN] [OPTOUT] [NOLOOP]",
    "    Be told when keys change that this connection has read.",
    "CACHING <YES|NO>, TRACKINGINFO, GETREDIR",
    "    Whether the next reads are remembered; how this connection tracks.",
    "MAINT_NOTIFICATIONS <ON [moving-endpoint-type <type>]|OFF>",
    "    Be told when slots or the primary are about to change, and when this server is about to end.",
    "PAUSE <ms> [WRITE|ALL], UNPAUSE, UNBLOCK <id> [TIMEOUT|ERROR]",
    "    Hold clients back, let them go on, end a blocking command.",
];

fn client(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    let n = ctx.args.len();
    match (word.as_slice(), n) {
        (b"id", 2) => ctx.reply.int(ctx.session.info.id as i64),
        (b"getname", 2) => {
            let name = ctx.session.info.names().name;
            if name.is_empty() { ctx.reply.null() } else { ctx.reply.bulk(name.as_bytes()) }
        }
        (b"setname", 3) => setname(ctx),
        (b"setinfo", 4) => setinfo(ctx),
        (b"info", 2) => {
            let line = format!("{}\n", line(&ctx.session.info, ctx.db.now_ms()));
            ctx.reply.verbatim(&line);
        }
        (b"list", _) => list(ctx),
        (b"kill", 3..) => kill(ctx),
        (b"reply", 3) => set_reply(ctx),
        (b"no-evict", 3) => switch(ctx, |ctx, on| {
            ctx.session.info.no_evict.store(on, Ordering::Relaxed);
        }),
        (b"capa", 3..) => {
            if ctx.args[2..].iter().any(|word| word.eq_ignore_ascii_case(b"redirect")) {
                set_redirects(ctx.session, true);
            }
            // What this server does not know of needs nothing of it.
            ctx.reply.ok();
        }
        (b"import-source", 3) => import_source(ctx),
        (b"no-touch", 3) => switch(ctx, |ctx, on| ctx.session.no_touch = on),
        (b"unblock", 3..=4) => unblock(ctx),
        (b"pause", 3..=4) => pause(ctx),
        (b"unpause", 2) => {
            ctx.shared.state.clients_paused_until_ms.store(0, Ordering::Release);
            ctx.shared.wake_loops();
            ctx.reply.ok();
        }
        (b"tracking", 3..) => super::tracking::tracking(ctx),
        (b"caching", 3) => super::tracking::caching(ctx),
        (b"trackinginfo", 2) => super::tracking::trackinginfo(ctx),
        (b"getredir", 2) => super::tracking::getredir(ctx),
        (b"maint_notifications", 3..) => maint_notifications(ctx),
        (b"help", 2) => ctx.help(HELP),
        (
            b"id"
            | b"capa"
            | b"import-source"
            | b"getname"
            | b"setname"
            | b"setinfo"
            | b"info"
            | b"kill"
            | b"reply"
            | b"no-evict"
            | b"no-touch"
            | b"unblock"
            | b"pause"
            | b"unpause"
            | b"tracking"
            | b"caching"
            | b"trackinginfo"
            | b"getredir"
            | b"maint_notifications",
            _,
        ) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}

fn monitor(ctx: &mut Ctx<'_, '_>) {
    if ctx.in_exec {
        return ctx.reply.error("ERR MONITOR isn't allowed for DENY BLOCKING client");
    }
    if !ctx.session.monitors {
        ctx.session.monitors = true;
        ctx.shared.monitors.add(&ctx.session.info);
        ctx.reply.ok();
    }
}

/// Asked for by current clients as soon as they are connected, where they speak RESP3.
fn maint_notifications(ctx: &mut Ctx<'_, '_>) {
    let off = ctx.is_word(2, "off");
    if !off && !ctx.is_word(2, "on") {
        return ctx.reply.error("ERR syntax error");
    }
    let mut endpoint = Endpoint::Unnamed;
    for pair in ctx.args[3..].chunks(2) {
        let [name, value] = pair else { return ctx.reply.error("ERR syntax error") };
        if !name.eq_ignore_ascii_case(b"moving-endpoint-type") || off {
            return ctx.reply.error("ERR syntax error");
        }
        let is_it = |(word, _): &&(&str, Endpoint)| value.eq_ignore_ascii_case(word.as_bytes());
        let Some((_, known)) = ENDPOINTS.iter().find(is_it) else {
            let words: Vec<&str> = ENDPOINTS.iter().map(|(word, _)| *word).collect();
            let text = format!("ERR moving-endpoint-type is one of {}", words.join(", "));
            return ctx.reply.error(&text);
        };
        endpoint = *known;
    }
    if off {
        ctx.shared.maintenance.remove(&ctx.session.info);
    } else if ctx.session.resp3 {
        ctx.shared.maintenance.add(&ctx.session.info, endpoint);
    } else {
        return ctx
            .reply
            .error("ERR maintenance notifications are pushes of RESP3: say HELLO 3 first");
    }
    ctx.reply.ok();
}

pub(super) fn set_redirects(session: &mut Session, on: bool) {
    session.redirects = on;
    session.info.redirects.store(on, Ordering::Relaxed);
}

pub(super) fn set_import_source(session: &mut Session, on: bool) {
    session.import_source = on;
    session.info.import_source.store(on, Ordering::Relaxed);
}

fn import_source(ctx: &mut Ctx<'_, '_>) {
    let off = ctx.is_word(2, "off");
    if !off && !ctx.shared.config.hot().import_mode {
        return ctx.reply.error("ERR Server is not in import mode");
    }
    if !off && !ctx.is_word(2, "on") {
        return ctx.reply.syntax_error();
    }
    set_import_source(ctx.session, !off);
    ctx.reply.ok();
}

fn setname(ctx: &mut Ctx<'_, '_>) {
    let name = ctx.args[2];
    if !is_plain(name) {
        return ctx.reply.error(BAD_NAME);
    }
    let name = String::from_utf8_lossy(name).into_owned();
    ctx.session.info.set_names(|names| names.name = name);
    ctx.reply.ok();
}

fn setinfo(ctx: &mut Ctx<'_, '_>) {
    let value = ctx.args[3];
    let is_name = ctx.is_word(2, "lib-name");
    if !is_name && !ctx.is_word(2, "lib-ver") {
        let word = super::exec::printable(ctx.args[2]);
        return ctx.reply.error(&format!("ERR Unrecognized option '{word}'"));
    }
    if !is_plain(value) {
        let what = if is_name { "lib-name" } else { "lib-ver" };
        let text = format!("ERR {what} cannot contain spaces, newlines or special characters.");
        return ctx.reply.error(&text);
    }
    let value = String::from_utf8_lossy(value).into_owned();
    ctx.session.info.set_names(|names| {
        if is_name { names.lib_name = value } else { names.lib_version = value }
    });
    ctx.reply.ok();
}

/// The kind of a client, as CLIENT LIST TYPE and KILL TYPE name it.
fn kind(info: &ClientInfo) -> &'static str {
    if info.is_primary.load(Ordering::Relaxed) {
        "master"
    } else if info.is_replica.load(Ordering::Relaxed) {
        "replica"
    } else if info.listens_to() > 0 {
        "pubsub"
    } else {
        "normal"
    }
}

fn parse_kind(word: &[u8]) -> Option<&'static str> {
    let names = [("normal", "normal"), ("replica", "replica"), ("slave", "replica")];
    let names = names.into_iter().chain([("pubsub", "pubsub"), ("master", "master")]);
    names.into_iter().find(|(n, _)| word.eq_ignore_ascii_case(n.as_bytes())).map(|(_, kind)| kind)
}

/// One client as a line of CLIENT LIST.
pub(crate) fn line(info: &ClientInfo, now_ms: i64) -> String {
    let names = info.names();
    let tracking = info.tracking().clone();
    let tracks = |pick: fn(&Mode) -> bool| tracking.as_ref().is_some_and(pick);
    let get = |n: &AtomicI64| n.load(Ordering::Relaxed);
    let mut flags = String::new();
    for (set, letter) in [
        (info.is_replica.load(Ordering::Relaxed), 'S'),
        (info.is_primary.load(Ordering::Relaxed), 'M'),
        (info.listens_to() > 0, 'P'),
        (info.in_multi.load(Ordering::Relaxed), 'x'),
        (info.blocked.load(Ordering::Relaxed), 'b'),
        (info.no_evict.load(Ordering::Relaxed), 'e'),
        (info.monitors.load(Ordering::Relaxed), 'O'),
        (info.import_source.load(Ordering::Relaxed), 'I'),
        (tracking.is_some(), 't'),
        (tracks(|mode| mode.broken), 'R'),
        (tracks(|mode| mode.bcast), 'B'),
    ] {
        if set {
            flags.push(letter);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let pending = info.pending_out.load(Ordering::Relaxed);
    let last = info.last_command.load(Ordering::Relaxed) as usize;
    let last = last.checked_sub(1).and_then(|id| super::all().nth(id)).map_or("NULL", |c| c.name);
    let is_memcached = info.is_memcached();
    format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} capa={} db={} sub={} psub={} ssub={} \
         multi={} watch=0 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll={} omem={} \
         tot-mem={} events=r cmd={} user={} redir={} resp={} lib-name={} lib-ver={} tot-net-in={} \
         tot-net-out={} tot-cmds={}{}",
        info.id,
        info.addr,
        info.laddr,
        info.token,
        names.name,
        (now_ms - info.created_ms).max(0) / 1000,
        (now_ms - get(&info.last_ms)).max(0) / 1000,
        flags,
        if info.redirects.load(Ordering::Relaxed) { "r" } else { "" },
        info.db.load(Ordering::Relaxed),
        info.subscriptions.load(Ordering::Relaxed),
        info.patterns.load(Ordering::Relaxed),
        info.shard_channels.load(Ordering::Relaxed),
        if info.in_multi.load(Ordering::Relaxed) { 0 } else { -1 },
        u8::from(pending > 0),
        pending,
        pending + 1024,
        last,
        names.user,
        tracking.as_ref().map_or(-1, |mode| mode.redirect as i64),
        match info.resp3.load(Ordering::Relaxed) {
            _ if is_memcached => 0,
            true => 3,
            false => 2,
        },
        names.lib_name,
        names.lib_version,
        info.in_bytes.load(Ordering::Relaxed),
        info.out_bytes.load(Ordering::Relaxed),
        info.commands.load(Ordering::Relaxed),
        // Behind all that tools know by its name, and only where it is so.
        if is_memcached { " proto=memcached" } else { "" },
    )
}

fn list(ctx: &mut Ctx<'_, '_>) {
    let all = ctx.shared.clients.all();
    let now = ctx.db.now_ms();
    let chosen: Vec<Arc<ClientInfo>> = if ctx.args.len() == 2 {
        all
    } else if ctx.args.len() == 4 && ctx.is_word(2, "type") {
        let Some(wanted) = parse_kind(ctx.args[3]) else { return unknown_kind(ctx, 3) };
        all.into_iter().filter(|c| kind(c) == wanted).collect()
    } else if ctx.args.len() > 3 && ctx.is_word(2, "id") {
        let ids: Option<Vec<u64>> = ctx.args[3..]
            .iter()
            .map(|id| parse_i64(id).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0))
            .collect();
        let Some(ids) = ids else { return ctx.reply.error("ERR Invalid client ID") };
        all.into_iter().filter(|c| ids.contains(&c.id)).collect()
    } else {
        return ctx.reply.syntax_error();
    };
    let text: String = chosen.iter().map(|c| line(c, now) + "\n").collect();
    ctx.reply.verbatim(&text);
}

fn unknown_kind(ctx: &mut Ctx<'_, '_>, i: usize) {
    let word = super::exec::printable(ctx.args[i]);
    ctx.reply.error(&format!("ERR Unknown client type '{word}'"));
}

#[derive(Default)]
struct Filter {
    id: Option<u64>,
    addr: Option<String>,
    laddr: Option<String>,
    kind: Option<&'static str>,
    user: Option<String>,
    max_age_s: Option<i64>,
    with_me: bool,
}

impl Filter {
    fn fits(&self, c: &ClientInfo, me: u64, now_ms: i64) -> bool {
        (self.with_me || c.id != me)
            && self.id.is_none_or(|id| id == c.id)
            && self.addr.as_ref().is_none_or(|a| *a == c.addr)
            && self.laddr.as_ref().is_none_or(|a| *a == c.laddr)
            && self.kind.is_none_or(|k| k == kind(c))
            && self.user.as_ref().is_none_or(|u| *u == c.names().user)
            && self.max_age_s.is_none_or(|s| (now_ms - c.created_ms) / 1000 >= s)
    }
}

fn kill(ctx: &mut Ctx<'_, '_>) {
    let mut filter = Filter::default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let old_form = ctx.args.len() == 3;
    if old_form {
        filter.addr = Some(text(ctx.args[2]));
        filter.with_me = true;
    } else if !ctx.args.len().is_multiple_of(2) {
        return ctx.reply.syntax_error();
    }
    let pairs = if old_form { 3 } else { 2 };
    for i in (pairs..ctx.args.len()).step_by(2) {
        let value = ctx.args[i + 1];
        if ctx.is_word(i, "id") {
            match parse_i64(value).filter(|id| *id > 0) {
                Some(id) => filter.id = Some(id as u64),
                None => return ctx.reply.error("ERR client-id should be greater than 0"),
            }
        } else if ctx.is_word(i, "addr") {
            filter.addr = Some(text(value));
        } else if ctx.is_word(i, "laddr") {
            filter.laddr = Some(text(value));
        } else if ctx.is_word(i, "type") {
            let Some(kind) = parse_kind(value) else { return unknown_kind(ctx, i + 1) };
            filter.kind = Some(kind);
        } else if ctx.is_word(i, "user") {
            if std::str::from_utf8(value).ok().and_then(|name| ctx.shared.acl.user(name)).is_none()
            {
                let user = super::exec::printable(value);
                return ctx.reply.error(&format!("ERR No such user '{user}'"));
            }
            filter.user = Some(text(value));
        } else if ctx.is_word(i, "maxage") {
            let Some(age) = ctx.int_arg(i + 1) else { return };
            filter.max_age_s = Some(age);
        } else if ctx.is_word(i, "skipme") && ctx.is_word(i + 1, "yes") {
            filter.with_me = false;
        } else if ctx.is_word(i, "skipme") && ctx.is_word(i + 1, "no") {
            filter.with_me = true;
        } else {
            return ctx.reply.syntax_error();
        }
    }
    let (me, now) = (ctx.session.info.id, ctx.db.now_ms());
    let mut killed = 0;
    for other in ctx.shared.clients.all() {
        if !filter.fits(&other, me, now) {
            continue;
        }
        killed += 1;
        if other.id == me {
            // The reply goes out first.
            ctx.session.after = After::Close;
        } else {
            ctx.shared.kill(&other);
        }
    }
    match (old_form, killed) {
        (false, n) => ctx.reply.int(n),
        (true, 0) => ctx.reply.error("ERR No such client"),
        (true, _) => ctx.reply.ok(),
    }
}

fn set_reply(ctx: &mut Ctx<'_, '_>) {
    if ctx.is_word(2, "on") {
        ctx.session.reply_off = false;
        ctx.reply.ok();
    } else if ctx.is_word(2, "off") {
        ctx.session.reply_off = true;
    } else if ctx.is_word(2, "skip") {
        ctx.session.reply_skip = !ctx.session.reply_off;
    } else {
        ctx.reply.syntax_error();
    }
}

fn switch(ctx: &mut Ctx<'_, '_>, set: impl FnOnce(&mut Ctx<'_, '_>, bool)) {
    let on = ctx.is_word(2, "on");
    if !on && !ctx.is_word(2, "off") {
        return ctx.reply.syntax_error();
    }
    set(ctx, on);
    ctx.reply.ok();
}

pub const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

fn unblock(ctx: &mut Ctx<'_, '_>) {
    let Some(id) = ctx.int_arg(2) else { return };
    let with_error = match ctx.args.get(3) {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"timeout") => false,
        Some(word) if word.eq_ignore_ascii_case(b"error") => true,
        Some(_) => {
            return ctx.reply.error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
        }
    };
    let waiting = ctx.shared.waiters.all_waiting();
    let found = waiting.into_iter().find(|w| w.client.id as i64 == id);
    let Some(waiter) = found.filter(|w| w.cancel()) else {
        let client = u64::try_from(id).ok().and_then(|id| ctx.shared.clients.get(id));
        let cut = client.is_some_and(|client| ctx.shared.cut_wait(&client, with_error));
        return ctx.reply.int(i64::from(cut));
    };
    ctx.shared.waiters.unblock(&waiter);
    let mut reply = Reply::new(Vec::new(), waiter.resp3);
    match waiter.on_timeout {
        _ if with_error => reply.error(UNBLOCKED),
        OnTimeout::NullArray => reply.null_array(),
        OnTimeout::Null => reply.null(),
    }
    ctx.shared.deliver(&waiter.client, reply.out.into(), Some(ctx.shared.basis()));
    ctx.reply.int(1);
}

fn pause(ctx: &mut Ctx<'_, '_>) {
    let ms = match parse_i64(ctx.args[2]) {
        None => return ctx.reply.error("ERR timeout is not an integer or out of range"),
        Some(ms) if ms < 0 => return ctx.reply.error("ERR timeout is negative"),
        Some(ms) => ms,
    };
    let writes_only = match ctx.args.get(3) {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"all") => false,
        Some(word) if word.eq_ignore_ascii_case(b"write") => true,
        Some(_) => return ctx.reply.error("ERR CLIENT PAUSE mode must be WRITE or ALL"),
    };
    let Some(until) = ms.checked_add(ctx.db.now_ms()) else {
        return ctx.reply.error("ERR timeout is out of range");
    };
    let state = &ctx.shared.state;
    // A pause under way is never made shorter or weaker by another one.
    let running = state.clients_paused_until_ms.load(Ordering::Acquire) > ctx.db.now_ms();
    let was_all = running && !state.pause_writes_only.load(Ordering::Acquire);
    state.pause_writes_only.store(writes_only && !was_all, Ordering::Release);
    state.clients_paused_until_ms.fetch_max(until, Ordering::AcqRel);
    ctx.reply.ok();
}
