//! COMMAND: the table of commands as clients read it.

use super::specs::{self, Begin, Find, Spec};
use super::subcommands::Row;
use super::{Command, Ctx, Group, Keys, all, categories, docs, find, flag, subcommands};
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
                match named(name) {
                    Some((c, None)) => describe(ctx.reply, c),
                    Some((c, Some(row))) => describe_sub(ctx.reply, c, row),
                    None => ctx.reply.null(),
                }
            }
        }
        (b"docs", _) => {
            let found: Vec<Named> = if ctx.args.len() == 2 {
                all().map(|c| (c, None)).collect()
            } else {
                ctx.args[2..].iter().filter_map(|n| named(n)).collect()
            };
            ctx.reply.map(found.len());
            for (command, sub) in found {
                match sub {
                    None => docs_of(ctx.reply, command),
                    Some(row) => docs_of_sub(ctx.reply, command, row),
                }
            }
        }
        (b"list", _) => list(ctx),
        (b"getkeys" | b"getkeysandflags", 3..) => get_keys(ctx, word.ends_with(b"flags")),
        (b"help", 2) => ctx.help(HELP),
        (b"count" | b"getkeys" | b"getkeysandflags", _) => ctx.wrong_sub_arity(),
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
    texts(reply, specs::tips(command.name));
    key_specs(reply, specs::of(command.name));
    let rows = subcommands::of(command);
    reply.array(rows.len());
    rows.iter().for_each(|row| describe_sub(reply, command, row));
}

/// A command, or one of its subcommands.
type Named = (&'static Command, Option<&'static Row>);

/// What `get` or `config|get` names.
fn named(name: &[u8]) -> Option<Named> {
    let Some(at) = name.iter().position(|b| *b == b'|') else {
        return find(name).map(|command| (command, None));
    };
    let command = find(&name[..at])?;
    let fits = |row: &&Row| row.name.as_bytes().eq_ignore_ascii_case(&name[at + 1..]);
    let row = subcommands::of(command).iter().find(fits)?;
    Some((command, Some(row)))
}

fn full_name(command: &Command, row: &Row) -> String {
    format!("{}|{}", command.name, row.name)
}

fn texts(reply: &mut Reply, texts: &[&str]) {
    reply.set(texts.len());
    texts.iter().for_each(|text| reply.bulk(text.as_bytes()));
}

fn describe_sub(reply: &mut Reply, command: &Command, row: &Row) {
    let name = full_name(command, row);
    let specs = specs::of(&name);
    reply.array(10);
    reply.bulk(name.as_bytes());
    reply.int(row.arity);
    let flags = row.flags.split(' ').filter(|name| !name.is_empty());
    reply.set(flags.clone().count());
    flags.for_each(|name| reply.simple(name));
    // Whatever subcommand has keys has one, at a fixed place.
    let (at, step) = match specs.first() {
        Some(Spec { begin: Begin::Index(at), .. }) => (*at, 1),
        _ => (0, 0),
    };
    [at, at, step].into_iter().for_each(|n| reply.int(n));
    let sub = categories::subs(command).iter().find(|sub| sub.name == row.name);
    let bits = sub.map_or(0, |sub| categories::by_id(sub.id));
    let categories: Vec<_> = categories::names(bits).collect();
    reply.set(categories.len());
    categories.iter().for_each(|name| reply.simple(&format!("@{name}")));
    texts(reply, specs::tips(&name));
    key_specs(reply, specs);
    reply.array(0);
}

/// One of the two halves of a specification: its kind, and the figures of its kind.
fn half(reply: &mut Reply, name: &str, kind: &str, fields: &[(&str, i64)], word: Option<&str>) {
    reply.bulk(name.as_bytes());
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(fields.len() + usize::from(word.is_some()));
    if let Some(word) = word {
        reply.bulk(b"keyword");
        reply.bulk(word.as_bytes());
    }
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.int(*value);
    }
}

fn key_specs(reply: &mut Reply, specs: &[Spec]) {
    reply.set(specs.len());
    for spec in specs {
        reply.map(3);
        reply.bulk(b"flags");
        let flags = spec.flags.split(' ');
        reply.set(flags.clone().count());
        flags.for_each(|flag| reply.simple(flag));
        let begin = "begin_search";
        match spec.begin {
            Begin::Index(at) => half(reply, begin, "index", &[("index", at)], None),
            Begin::Keyword(word, from) => {
                half(reply, begin, "keyword", &[("startfrom", from)], Some(word));
            }
            Begin::Unknown => half(reply, begin, "unknown", &[], None),
        }
        let find = "find_keys";
        match spec.find {
            Find::Range(last, step, limit) => {
                let fields = [("lastkey", last), ("keystep", step), ("limit", limit)];
                half(reply, find, "range", &fields, None);
            }
            Find::Count(at, first, step) => {
                let fields = [("keynumidx", at), ("firstkey", first), ("keystep", step)];
                half(reply, find, "keynum", &fields, None);
            }
            Find::Unknown => half(reply, find, "unknown", &[], None),
        }
    }
}

fn doc_fields(reply: &mut Reply, command: &Command, summary: &str, since: &str, more: usize) {
    let fields = [("summary", summary), ("since", since), ("group", group_name(command.group))];
    reply.map(fields.len() + more);
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
}

fn docs_of(reply: &mut Reply, command: &Command) {
    let rows = subcommands::of(command);
    reply.bulk(command.name.as_bytes());
    let more = docs::fields(command.name) + usize::from(!rows.is_empty());
    doc_fields(reply, command, command.summary, command.since, more);
    docs::write(reply, command.name);
    if !rows.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(rows.len());
        rows.iter().for_each(|row| docs_of_sub(reply, command, row));
    }
}

fn docs_of_sub(reply: &mut Reply, command: &Command, row: &Row) {
    let name = full_name(command, row);
    reply.bulk(name.as_bytes());
    doc_fields(reply, command, row.summary, row.since, docs::fields(&name));
    docs::write(reply, &name);
}

/// Names of commands and subcommands, all or those of one kind.
fn list(ctx: &mut Ctx<'_, '_>) {
    let is_filter = |ctx: &Ctx<'_, '_>, word: &str| {
        ctx.args.len() == 5 && ctx.is_word(2, "filterby") && ctx.is_word(3, word)
    };
    let begin = ctx.reply.begin();
    let wanted = if ctx.args.len() == 2 {
        None
    } else if is_filter(ctx, "pattern") {
        Some(0)
    } else if is_filter(ctx, "aclcat") {
        Some(categories::find(ctx.args[4]).unwrap_or(0))
    } else if is_filter(ctx, "module") {
        // There are none.
        return ctx.reply.array(0);
    } else {
        return ctx.reply.syntax_error();
    };
    let pattern = ctx.args.get(4).filter(|_| is_filter(ctx, "pattern")).copied();
    let fits = |name: &str, bits: u32| match (pattern, wanted) {
        (Some(pattern), _) => glob::matches_nocase(pattern, name.as_bytes()),
        (None, Some(wanted)) => bits & wanted != 0,
        (None, None) => true,
    };
    let mut found = 0;
    let mut add = |reply: &mut Reply, name: &str, bits: u32| {
        if fits(name, bits) {
            reply.bulk(name.as_bytes());
            found += 1;
        }
    };
    for command in all() {
        add(ctx.reply, command.name, categories::of(command));
        let subs = categories::subs(command);
        for row in subcommands::of(command) {
            let sub = subs.iter().find(|sub| sub.name == row.name);
            let bits = sub.map_or(0, |sub| categories::by_id(sub.id));
            add(ctx.reply, &full_name(command, row), bits);
        }
    }
    ctx.reply.end_array(begin, found);
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
    let sub = categories::sub_of(command, args);
    let name = sub.map_or(command.name.to_owned(), |sub| sub.full_name.clone());
    ctx.reply.array(positions.len());
    for (nth, at) in positions.into_iter().enumerate() {
        if with_flags {
            ctx.reply.array(2);
        }
        ctx.reply.bulk(args[at]);
        if with_flags {
            let done: Vec<_> = specs::done_to_key(&name, args, nth).collect();
            ctx.reply.set(done.len());
            done.iter().for_each(|word| ctx.reply.simple(word));
        }
    }
}
