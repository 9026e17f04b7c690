//! COMMAND: the table of commands as clients read it.

use super::{Command, Ctx, Group, Keys, all, categories, find, flag};
use crate::glob;
use crate::resp::Reply;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("command", -1, flag::LOADING | flag::STALE, Keys::None, Group::Server, "2.8.13", "Shows the table of commands.", command),
];

const HELP: &[&str] = &[
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand), INFO [<name> ...]",
    "    Arity, flags and key positions.",
    "COUNT, LIST [FILTERBY PATTERN <pattern> | ACLCAT <category>], DOCS [<name> ...]",
    "    How many commands there are, their names, what they do.",
    "GETKEYS <command>, GETKEYSANDFLAGS <command>",
    "    The keys of a whole command line.",
];

fn command(ctx: &mut Ctx<'_, '_>) {
    let Some(word) = ctx.args.get(1).map(|w| w.to_ascii_lowercase()) else {
        ctx.reply.array(all().count());
        all().for_each(|c| describe(ctx.reply, c));
        return;
    };
    match (word.as_slice(), ctx.args.len()) {
        (b"count", 2) => ctx.reply.int(all().count() as i64),
        (b"info", 2) => {
            ctx.reply.array(all().count());
            all().for_each(|c| describe(ctx.reply, c));
        }
        (b"info", _) => {
            ctx.reply.array(ctx.args.len() - 2);
            for name in &ctx.args[2..] {
                match find(name) {
                    Some(c) => describe(ctx.reply, c),
                    None => ctx.reply.null(),
                }
            }
        }
        (b"docs", _) => {
            let named: Vec<&Command> = if ctx.args.len() == 2 {
                all().collect()
            } else {
                ctx.args[2..].iter().filter_map(|n| find(n)).collect()
            };
            ctx.reply.map(named.len());
            named.iter().for_each(|c| docs(ctx.reply, c));
        }
        (b"list", 2 | 5) => list(ctx),
        (b"getkeys" | b"getkeysandflags", 3..) => get_keys(ctx, word.ends_with(b"flags")),
        (b"help", 2) => ctx.help(HELP),
        (b"count" | b"list" | b"getkeys" | b"getkeysandflags", _) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}

/// Flags by the names that COMMAND prints.
const FLAGS: &[(u32, &str)] = &[
    (flag::WRITE, "write"),
    (flag::READONLY, "readonly"),
    (flag::DENYOOM, "denyoom"),
    (flag::ADMIN, "admin"),
    (flag::PUBSUB, "pubsub"),
    (flag::NOSCRIPT, "noscript"),
    (flag::BLOCKING, "blocking"),
    (flag::LOADING, "loading"),
    (flag::STALE, "stale"),
    (flag::FAST, "fast"),
    (flag::NO_AUTH, "no_auth"),
    (flag::NO_MULTI, "no_multi"),
    (flag::MOVABLE_KEYS, "movablekeys"),
    (flag::SKIP_LOG, "skip_slowlog"),
];

pub fn flag_names(command: &Command) -> Vec<&'static str> {
    FLAGS.iter().filter(|(bit, _)| command.is(*bit)).map(|(_, name)| *name).collect()
}

pub fn group_name(group: Group) -> &'static str {
    match group {
        Group::Generic => "generic",
        Group::String => "string",
        Group::Hash => "hash",
        Group::List => "list",
        Group::Set => "set",
        Group::SortedSet => "sorted-set",
        Group::Stream => "stream",
        Group::HyperLogLog => "hyperloglog",
        Group::Geo => "geo",
        Group::PubSub => "pubsub",
        Group::Transactions => "transactions",
        Group::Connection => "connection",
        Group::Server => "server",
        Group::Cluster => "cluster",
        Group::Sentinel => "sentinel",
        Group::Scripting => "scripting",
    }
}

/// First key, last key and step, as COMMAND prints them.
fn key_range(command: &Command) -> (i64, i64, i64) {
    match command.keys {
        Keys::Range { first, last, step } => (first as i64, last as i64, step as i64),
        Keys::Counted { also, .. } if also != 0 => (also as i64, also as i64, 1),
        Keys::Custom(find) => match find(&[command.name.as_bytes(), b"key"]).first() {
            // The one that is always there, of those that depend on the arguments.
            Some(at) => (*at as i64, *at as i64, 1),
            None => (0, 0, 0),
        },
        Keys::None | Keys::Counted { .. } => (0, 0, 0),
    }
}

fn describe(reply: &mut Reply, command: &Command) {
    let (first, last, step) = key_range(command);
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.int(i64::from(command.arity));
    let mut flags = flag_names(command);
    if matches!(command.keys, Keys::Counted { .. }) && !flags.contains(&"movablekeys") {
        flags.push("movablekeys");
    }
    reply.set(flags.len());
    flags.iter().for_each(|name| reply.simple(name));
    reply.int(first);
    reply.int(last);
    reply.int(step);
    let categories: Vec<_> = categories::names(categories::of(command)).collect();
    reply.set(categories.len());
    categories.iter().for_each(|name| reply.simple(&format!("@{name}")));
    // Tips, key specifications, subcommands.
    reply.array(0);
    reply.array(0);
    reply.array(0);
}

fn docs(reply: &mut Reply, command: &Command) {
    reply.bulk(command.name.as_bytes());
    let fields = [
        ("summary", command.summary),
        ("since", command.since),
        ("group", group_name(command.group)),
    ];
    reply.map(fields.len());
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
}

fn list(ctx: &mut Ctx<'_, '_>) {
    let names: Vec<&str> = if ctx.args.len() == 2 {
        all().map(|c| c.name).collect()
    } else if ctx.is_word(2, "filterby") && ctx.is_word(3, "pattern") {
        let fits = |name: &str| glob::matches_nocase(ctx.args[4], name.as_bytes());
        all().map(|c| c.name).filter(|n| fits(n)).collect()
    } else if ctx.is_word(2, "filterby") && ctx.is_word(3, "aclcat") {
        let wanted = categories::find(ctx.args[4]).unwrap_or(0);
        let fits = |c: &&Command| categories::of(c) & wanted != 0;
        all().filter(fits).map(|c| c.name).collect()
    } else if ctx.is_word(2, "filterby") && ctx.is_word(3, "module") {
        Vec::new()
    } else {
        return ctx.reply.syntax_error();
    };
    ctx.reply.array(names.len());
    names.iter().for_each(|n| ctx.reply.bulk(n.as_bytes()));
}

fn get_keys(ctx: &mut Ctx<'_, '_>, with_flags: bool) {
    let args = &ctx.args[2..];
    let Some(command) = find(args[0]) else {
        return ctx.reply.error("ERR Invalid command specified");
    };
    if !command.arity_fits(args.len()) {
        return ctx.reply.error("ERR Invalid number of arguments specified for command");
    }
    if matches!(command.keys, Keys::None) {
        return ctx.reply.error("ERR The command has no key arguments");
    }
    let positions = command.key_positions(args);
    if positions.is_empty() {
        return ctx.reply.error("ERR Invalid arguments specified for command");
    }
    ctx.reply.array(positions.len());
    for at in positions {
        if with_flags {
            ctx.reply.array(2);
        }
        ctx.reply.bulk(args[at]);
        if with_flags {
            let words: &[&str] = if command.is(flag::WRITE) {
                &["RW", "access", "update"]
            } else {
                &["RO", "access"]
            };
            ctx.reply.set(words.len());
            words.iter().for_each(|w| ctx.reply.simple(w));
        }
    }
}
