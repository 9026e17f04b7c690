//! CONFIG: reading and changing settings while the server runs.

use std::sync::atomic::Ordering;

use super::{Command, Ctx, Group, Keys, flag};
use crate::config::directives::DIRECTIVES;
use crate::glob;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("config", -2, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::SKIP_LOG, Keys::None, Group::Server, "2.0.0", "Reads and changes settings.", config),
];

const HELP: &[&str] = &[
    "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET <pattern> [<pattern> ...]",
    "    Settings whose names match.",
    "SET <directive> <value> [<directive> <value> ...]",
    "    Changes settings, all or none.",
    "RESETSTAT",
    "    Sets the counters of INFO to 0.",
    "REWRITE",
    "    Writes the settings into the configuration file.",
];

fn config(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"get", 3..) => get(ctx),
        (b"set", n) if n >= 4 && n.is_multiple_of(2) => {
            let pairs: Vec<(&[u8], &[u8])> =
                ctx.args[2..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            let tls = ctx.shared.tls.try_values(&ctx.shared.config, &pairs);
            let tls = tls.map_err(|why| tls_refused(&pairs, &why));
            match tls.and_then(|tls| ctx.shared.config.set_live(&pairs).map(|()| tls)) {
                Ok(tls) => {
                    ctx.shared.tls.adopt(tls);
                    if pairs.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"requirepass")) {
                        ctx.shared.acl.set_default_password(&ctx.shared.config.hot().requirepass);
                    }
                    ctx.reply.ok();
                }
                Err(error) => ctx.reply.error(&error),
            }
        }
        (b"resetstat", 2) => {
            reset(ctx);
            ctx.reply.ok();
        }
        (b"rewrite", 2) => match crate::acl::config_lines(ctx.shared)
            .and_then(|users| ctx.shared.config.rewrite(&users))
        {
            Ok(()) => ctx.reply.ok(),
            Err(error) => ctx.reply.error(&format!("ERR {error}")),
        },
        (b"help", 2) => ctx.help(HELP),
        (b"get" | b"set" | b"resetstat" | b"rewrite", _) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}

/// Redis's words, which send the reader to the log.
fn tls_refused(pairs: &[(&[u8], &[u8])], why: &std::io::Error) -> String {
    tracing::warn!("CONFIG SET of TLS changes nothing: {why}");
    let name = pairs.iter().map(|(name, _)| *name).find(|name| crate::tls::concerns(name));
    let name = super::exec::printable(name.unwrap_or_default());
    format!(
        "ERR CONFIG SET failed (possibly related to argument '{name}') - Unable to update TLS \
         configuration. Check server logs."
    )
}

fn get(ctx: &mut Ctx<'_, '_>) {
    let patterns = &ctx.args[2..];
    let fits = |name: &str| {
        !name.is_empty() && patterns.iter().any(|p| glob::matches_nocase(p, name.as_bytes()))
    };
    let begin = ctx.reply.begin();
    let mut found = 0;
    for d in DIRECTIVES {
        let value = ctx.shared.config.get(d.name).unwrap_or_default();
        for name in [d.name, d.alias] {
            if fits(name) {
                ctx.reply.bulk(name.as_bytes());
                ctx.reply.bulk(value.as_bytes());
                found += 1;
            }
        }
    }
    ctx.reply.end_map(begin, found);
}

fn reset(ctx: &mut Ctx<'_, '_>) {
    let stats = &ctx.shared.stats;
    for one in &stats.loops {
        let zero = [&one.commands, &one.hits, &one.misses, &one.in_bytes, &one.out_bytes];
        zero.iter().for_each(|c| c.store(0, Ordering::Relaxed));
        for call in &one.calls {
            call.histogram.clear();
            let zero = [&call.calls, &call.usec, &call.failed, &call.rejected];
            zero.iter().for_each(|c| c.store(0, Ordering::Relaxed));
        }
    }
    for counter in [
        &stats.connections,
        &stats.rejected_connections,
        &stats.expired_keys,
        &stats.expired_fields,
        &stats.evicted_keys,
        &stats.evicted_clients,
        &stats.unexpected_errors,
        &stats.faults,
        &stats.sync_full,
        &stats.sync_partial_ok,
        &stats.sync_partial_err,
    ] {
        counter.store(0, Ordering::Relaxed);
    }
    stats.peak_memory.store(ctx.shared.used_memory(), Ordering::Relaxed);
    stats.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
}
