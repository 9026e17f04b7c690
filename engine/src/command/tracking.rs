//! CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR: how a client wants to hear of what it caches.

use super::Ctx;
use super::exec::printable;
use crate::session::Session;
use crate::tracking::{Mode, Remembers};

/// Longest list of prefixes of one client.
const PREFIXES_MAX: usize = 1 << 16;

/// The error is already replied when there is none.
fn options(ctx: &mut Ctx<'_, '_>) -> Option<Mode> {
    let mut mode = Mode::default();
    let mut i = 3;
    while i < ctx.args.len() {
        let more = i + 1 < ctx.args.len();
        if more && ctx.is_word(i, "redirect") {
            i += 1;
            if mode.redirect != 0 {
                ctx.reply.error("ERR A client can only redirect to a single other client");
                return None;
            }
            let id = ctx.int_arg(i)?;
            match u64::try_from(id).ok().filter(|id| ctx.shared.clients.get(*id).is_some()) {
                Some(id) => mode.redirect = id,
                None => {
                    ctx.reply.error("ERR The client ID you want redirect to does not exist");
                    return None;
                }
            }
        } else if more && ctx.is_word(i, "prefix") {
            i += 1;
            mode.prefixes.push(ctx.args[i].to_vec());
        } else if ctx.is_word(i, "bcast") {
            mode.bcast = true;
        } else if ctx.is_word(i, "optin") {
            mode.opt_in = true;
        } else if ctx.is_word(i, "optout") {
            mode.opt_out = true;
        } else if ctx.is_word(i, "noloop") {
            mode.no_loop = true;
        } else {
            ctx.reply.syntax_error();
            return None;
        }
        i += 1;
    }
    Some(mode)
}

fn mode(session: &Session) -> Option<Mode> {
    session.info.tracking().clone()
}

pub(super) fn tracking(ctx: &mut Ctx<'_, '_>) {
    let Some(mut wanted) = options(ctx) else { return };
    if ctx.is_word(2, "off") {
        forget(ctx.shared, ctx.session);
        return ctx.reply.ok();
    }
    if !ctx.is_word(2, "on") {
        return ctx.reply.syntax_error();
    }
    let old = mode(ctx.session);
    if let Err(why) = check(&wanted, old.as_ref()) {
        return ctx.reply.error(&why);
    }
    if wanted.bcast {
        // Prefixes add up; without any, it is all keys.
        let mut all = old.map_or_else(Vec::new, |old| old.prefixes);
        all.append(&mut wanted.prefixes);
        if all.is_empty() {
            all.push(Vec::new());
        }
        wanted.prefixes = all;
    }
    ctx.session.remembers = wanted.remembers();
    ctx.session.caching = false;
    ctx.shared.tracking.on(&ctx.session.info, wanted);
    ctx.reply.ok();
}

/// What is wanted goes together, and with how the client tracks already.
fn check(wanted: &Mode, old: Option<&Mode>) -> Result<(), String> {
    let refuse = |text: &str| Err(format!("ERR {text}"));
    if !wanted.bcast && !wanted.prefixes.is_empty() {
        return refuse("PREFIX option requires BCAST mode to be enabled");
    }
    if old.is_some_and(|old| old.bcast != wanted.bcast) {
        return refuse(
            "You can't switch BCAST mode on/off before disabling tracking for this client, and then \
             re-enabling it with a different mode.",
        );
    }
    if wanted.bcast && (wanted.opt_in || wanted.opt_out) {
        return refuse("OPTIN and OPTOUT are not compatible with BCAST");
    }
    if wanted.opt_in && wanted.opt_out {
        return refuse("You can't specify both OPTIN mode and OPTOUT mode");
    }
    if old.is_some_and(|old| old.opt_out && wanted.opt_in || old.opt_in && wanted.opt_out) {
        return refuse(
            "You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
             re-enabling it with a different mode.",
        );
    }
    let had = old.map_or(&[][..], |old| &old.prefixes);
    if had.len() + wanted.prefixes.len() > PREFIXES_MAX {
        return refuse("too many prefixes of one client");
    }
    let collide = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let tail = "Prefixes for a single client must not overlap.";
    for (i, prefix) in wanted.prefixes.iter().enumerate() {
        let show = printable(prefix);
        if let Some(other) = had.iter().find(|other| collide(prefix, other)) {
            let other = printable(other);
            return refuse(&format!(
                "Prefix '{show}' overlaps with an existing prefix '{other}'. {tail}"
            ));
        }
        if let Some(other) = wanted.prefixes[i + 1..].iter().find(|other| collide(prefix, other)) {
            let other = printable(other);
            return refuse(&format!(
                "Prefix '{show}' overlaps with another provided prefix '{other}'. {tail}"
            ));
        }
    }
    Ok(())
}

/// Ends tracking of a connection.
pub(crate) fn forget(shared: &crate::server::Shared, session: &mut Session) {
    shared.tracking.off(&session.info);
    session.remembers = Remembers::Nothing;
    session.caching = false;
}

pub(super) fn caching(ctx: &mut Ctx<'_, '_>) {
    let Some(mode) = mode(ctx.session) else {
        return ctx.reply.error(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or \
             OPTOUT mode enabled",
        );
    };
    if ctx.is_word(2, "yes") {
        if !mode.opt_in {
            return ctx.reply.error(
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            );
        }
    } else if ctx.is_word(2, "no") {
        if !mode.opt_out {
            return ctx.reply.error(
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            );
        }
    } else {
        return ctx.reply.syntax_error();
    }
    ctx.session.caching = true;
    ctx.reply.ok();
}

/// -1 without tracking, 0 without redirection.
pub(super) fn getredir(ctx: &mut Ctx<'_, '_>) {
    let id = mode(ctx.session).map_or(-1, |mode| mode.redirect as i64);
    ctx.reply.int(id);
}

pub(super) fn trackinginfo(ctx: &mut Ctx<'_, '_>) {
    let caching = ctx.session.caching;
    let mode = mode(ctx.session);
    let is = |pick: fn(&Mode) -> bool| mode.as_ref().is_some_and(pick);
    let flags = [
        (mode.is_none(), "off"),
        (mode.is_some(), "on"),
        (is(|m| m.bcast), "bcast"),
        (is(|m| m.opt_in), "optin"),
        (is(|m| m.opt_in) && caching, "caching-yes"),
        (is(|m| m.opt_out), "optout"),
        (is(|m| m.opt_out) && caching, "caching-no"),
        (is(|m| m.no_loop), "noloop"),
        (is(|m| m.broken), "broken_redirect"),
    ];
    let flags: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    ctx.reply.map(3);
    ctx.reply.bulk(b"flags");
    ctx.reply.set(flags.len());
    flags.iter().for_each(|flag| ctx.reply.bulk(flag.as_bytes()));
    ctx.reply.bulk(b"redirect");
    ctx.reply.int(mode.as_ref().map_or(-1, |mode| mode.redirect as i64));
    ctx.reply.bulk(b"prefixes");
    let mut prefixes = mode.map_or_else(Vec::new, |mode| mode.prefixes);
    prefixes.sort();
    ctx.reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| ctx.reply.bulk(prefix));
}
