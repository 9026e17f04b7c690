//! LATENCY: shows what `crate::latency` has noted.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::{Command, Ctx, Group, Keys, all, find, flag, latency_graph};
use crate::latency::Sums;
use crate::server::Shared;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("latency", -2, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE, Keys::None, Group::Server, "2.8.13", "Shows latency spikes, and how long commands take.", latency),
];

const HELP: &[&str] = &[
    "LATENCY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "LATEST, HISTORY <event>",
    "    The last and the worst spike of each event; the spikes of one event.",
    "RESET [<event> ...]",
    "    Forgets spikes.",
    "HISTOGRAM [<command> ...]",
    "    How many calls of each command took how many microseconds.",
    "GRAPH <event>",
    "    The spikes of one event as a picture.",
    "DOCTOR",
    "    The spikes in readable words.",
];

fn latency(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"latest", 2) => latest(ctx),
        (b"history", 3) => history(ctx),
        (b"reset", _) => {
            let names = &ctx.args[2..];
            let mut events = ctx.shared.latency.events();
            let before = events.len();
            events.retain(|name, _| {
                !names.is_empty() && !names.iter().any(|n| n.eq_ignore_ascii_case(name.as_bytes()))
            });
            ctx.reply.int((before - events.len()) as i64);
        }
        (b"histogram", _) => histogram(ctx),
        (b"doctor", 2) => {
            let text = doctor(ctx.shared);
            ctx.reply.verbatim(&text);
        }
        (b"graph", 3) => graph(ctx),
        (b"help", 2) => ctx.help(HELP),
        (b"latest" | b"graph" | b"history" | b"doctor", _) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}

fn latest(ctx: &mut Ctx<'_, '_>) {
    let events = ctx.shared.latency.events();
    ctx.reply.array(events.len());
    for (name, series) in events.iter() {
        let (at, ms) = series.samples.back().copied().unwrap_or_default();
        ctx.reply.array(4);
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.int(at);
        ctx.reply.int(ms as i64);
        ctx.reply.int(series.worst_ms as i64);
    }
}

fn history(ctx: &mut Ctx<'_, '_>) {
    let events = ctx.shared.latency.events();
    let name = ctx.args[2];
    let Some((_, series)) = events.iter().find(|(n, _)| name.eq_ignore_ascii_case(n.as_bytes()))
    else {
        return ctx.reply.array(0);
    };
    ctx.reply.array(series.samples.len());
    for (at, ms) in &series.samples {
        ctx.reply.array(2);
        ctx.reply.int(*at);
        ctx.reply.int(*ms as i64);
    }
}

fn graph(ctx: &mut Ctx<'_, '_>) {
    let events = ctx.shared.latency.events();
    let name = ctx.args[2];
    let known = events.iter().find(|(n, _)| name.eq_ignore_ascii_case(n.as_bytes()));
    let Some((known, series)) = known else {
        let name = super::exec::printable(name);
        return ctx.reply.error(&format!("ERR No samples available for event '{name}'"));
    };
    let text = latency_graph::draw(known, series, ctx.db.now_ms() / 1000);
    ctx.reply.verbatim(&text);
}

/// The times of a command on all loops.
pub(super) fn sums(shared: &Shared, command: &Command) -> Sums {
    let mut sums = Sums::default();
    for stats in &shared.stats.loops {
        stats.calls[command.id()].histogram.add_to(&mut sums);
    }
    sums
}

fn histogram(ctx: &mut Ctx<'_, '_>) {
    let named: Vec<&Command> = if ctx.args.len() > 2 {
        ctx.args[2..].iter().filter_map(|name| find(name)).collect()
    } else {
        all().collect()
    };
    let begin = ctx.reply.begin();
    let mut shown = 0;
    for command in named {
        let sums = sums(ctx.shared, command);
        if sums.total() == 0 {
            continue;
        }
        shown += 1;
        // Each timed call of a quick command has been counted for many: the shares are right, the sum is of the calls.
        let loops = &ctx.shared.stats.loops;
        let calls = loops.iter().map(|l| l.calls[command.id()].calls.load(Ordering::Relaxed));
        let calls: u64 = calls.sum();
        ctx.reply.bulk(command.name.as_bytes());
        ctx.reply.map(2);
        ctx.reply.bulk(b"calls");
        ctx.reply.int(calls as i64);
        ctx.reply.bulk(b"histogram_usec");
        let buckets: Vec<(u64, u64)> = sums.cumulated().collect();
        ctx.reply.map(buckets.len());
        for (usec, seen) in buckets {
            ctx.reply.int(usec as i64);
            ctx.reply.int((u128::from(seen) * u128::from(calls) / u128::from(sums.total())) as i64);
        }
    }
    ctx.reply.end_map(begin, shown);
}

fn doctor(shared: &Shared) -> String {
    let threshold = shared.config.hot().latency_threshold_ms;
    if threshold == 0 {
        return "Spikes are not recorded: CONFIG SET latency-monitor-threshold <milliseconds> begins it. \
                SLOWLOG GET shows slow commands.\n"
            .into();
    }
    let events = shared.latency.events();
    if events.is_empty() {
        return format!("Nothing has taken {threshold} ms or more.\n");
    }
    let mut text = format!("What has taken {threshold} ms or more:\n");
    for (name, series) in events.iter() {
        let n = series.samples.len().max(1) as u64;
        let sum: u64 = series.samples.iter().map(|(_, ms)| ms).sum();
        let advice = match *name {
            "command" | "fast-command" => "SLOWLOG GET shows which commands they were.",
            "expire-cycle" => "Many keys expire at the same time.",
            _ => "More is written than maxmemory has room for.",
        };
        let worst = series.worst_ms;
        let _ = writeln!(
            text,
            "{name}: {n} seconds, {} ms on average, {worst} ms at worst. {advice}",
            sum / n
        );
    }
    text
}
