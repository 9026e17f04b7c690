//! FUNCTION, FCALL and FCALL_RO: libraries of functions, and calls.

use super::scripting::{self, KEYS, RUNS, RUNS_RO, keys_and_args};
use super::{Command, Ctx, Group, Keys, flag};
use crate::clock;
use crate::eviction::OOM;
use crate::rdb;
use crate::script::library::{Libraries, Library};
use crate::script::run::{self, Code};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("function", -2, flag::NOSCRIPT | flag::LOCK_ALL, Keys::None, Group::Scripting, "7.0.0", "Loads, lists, saves and forgets libraries of functions.", function),
    Command::new("fcall", -3, RUNS, KEYS, Group::Scripting, "7.0.0", "Calls a function of a library.", fcall),
    Command::new("fcall_ro", -3, RUNS_RO, KEYS, Group::Scripting, "7.0.0", "Calls a function that only reads.", fcall),
];

fn fcall(ctx: &mut Ctx<'_, '_>) {
    let found = ctx.shared.scripts.libraries().with_function(ctx.args[1]);
    let Some((library, name)) = found else {
        return ctx.reply.error("ERR Function not found");
    };
    let Some((keys, args)) = keys_and_args(ctx, "ERR Bad number of keys provided") else { return };
    let read_only = ctx.command.is(flag::READONLY);
    run::run(ctx, &Code::function(library, name), keys, args, read_only);
}

const HELP: &[&str] = &[
    "FUNCTION <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "LOAD [REPLACE] <FUNCTION CODE>",
    "    Creates a library, or one in place of another of its name.",
    "DELETE <LIBRARY NAME>",
    "    Forgets a library.",
    "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
    "    Tells of libraries and their functions.",
    "STATS",
    "    Tells which function runs, and how many there are.",
    "KILL",
    "    Ends the function that runs, unless it has written.",
    "FLUSH [ASYNC|SYNC]",
    "    Forgets every library.",
    "DUMP",
    "    Returns all libraries as one payload.",
    "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
    "    Takes the libraries of a payload in: in place of all others, beside them (the default), or in place of",
    "    those of the same names.",
];

fn function(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"load", 3..) => change(ctx, true, load),
        (b"restore", 3..) => change(ctx, true, restore),
        (b"delete", 3) => change(ctx, false, delete),
        (b"flush", 2..) => change(ctx, false, flush),
        (b"list", 2..) => list(ctx),
        (b"dump", 2) => {
            let payload = dump(&ctx.shared.scripts.libraries());
            ctx.reply.bulk(&payload);
        }
        (b"stats", 2) => stats(ctx),
        (b"kill", 2) => scripting::kill(ctx, true),
        (b"help", 2) => ctx.help(HELP),
        (
            b"load" | b"restore" | b"delete" | b"flush" | b"list" | b"dump" | b"stats" | b"kill"
            | b"help",
            _,
        ) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}

/// Makes a change if this member takes any: libraries are data. Every lock is held.
fn change(ctx: &mut Ctx<'_, '_>, grows: bool, make: fn(&mut Ctx<'_, '_>) -> Result<(), String>) {
    // Taken in with slots, they are let in as keys are.
    if ctx.session.importing
        && let Some(error) = ctx.shared.state.refuses_write()
    {
        return ctx.reply.error(&error);
    }
    if !ctx.session.from_primary
        && !ctx.session.importing
        && let Some(error) = refusal(ctx, grows)
    {
        return ctx.reply.error(&error);
    }
    match make(ctx) {
        Ok(()) => {
            let request = ctx.args;
            ctx.journal_script(request);
        }
        Err(error) => ctx.reply.error(&format!("ERR {error}")),
    }
}

fn refusal(ctx: &Ctx<'_, '_>, grows: bool) -> Option<String> {
    let shared = ctx.shared;
    if let Some(error) = shared.state.refuses_write() {
        return Some(error);
    }
    if let Some(error) = shared.quorum.refusal() {
        return Some(error.into());
    }
    let max = shared.config.maxmemory();
    let is_full = grows && max > 0 && shared.used_memory() > max;
    is_full.then(|| OOM.into())
}

fn load(ctx: &mut Ctx<'_, '_>) -> Result<(), String> {
    let (options, source) = (&ctx.args[2..ctx.args.len() - 1], ctx.args[ctx.args.len() - 1]);
    if let Some(other) = options.iter().find(|word| !word.eq_ignore_ascii_case(b"replace")) {
        return Err(format!("Unknown option given: {}", super::exec::printable(other)));
    }
    let is_trusted = ctx.session.from_primary || ctx.session.importing;
    let shared = ctx.shared;
    // Nobody looks meanwhile: every lock is held. What FUNCTION LOAD runs does not.
    let mut libraries = shared.scripts.libraries().clone();
    let replaces = !options.is_empty();
    let name = run::load_library(shared, &mut libraries, source, replaces, is_trusted)?;
    *shared.scripts.libraries_mut() = libraries;
    ctx.reply.bulk(&name);
    Ok(())
}

fn delete(ctx: &mut Ctx<'_, '_>) -> Result<(), String> {
    let removed = ctx.shared.scripts.libraries_mut().remove(ctx.args[2]);
    removed.ok_or("Library not found")?;
    ctx.reply.ok();
    Ok(())
}

fn flush(ctx: &mut Ctx<'_, '_>) -> Result<(), String> {
    if ctx.args.len() > 3 {
        return Err(syntax(ctx));
    }
    let is_mode = ctx.is_word(2, "async") || ctx.is_word(2, "sync");
    if ctx.args.len() == 3 && !is_mode {
        return Err("FUNCTION FLUSH only supports SYNC|ASYNC option".into());
    }
    *ctx.shared.scripts.libraries_mut() = Libraries::default();
    run::forget();
    ctx.reply.ok();
    Ok(())
}

fn syntax(ctx: &Ctx<'_, '_>) -> String {
    let sub = super::exec::printable(ctx.args[1]);
    format!("unknown subcommand or wrong number of arguments for '{sub}'. Try FUNCTION HELP.")
}

/// Every library, as a snapshot has them.
fn dump(libraries: &Libraries) -> Vec<u8> {
    rdb::dump_functions(libraries.all().map(|library| library.source.as_slice()))
}

fn restore(ctx: &mut Ctx<'_, '_>) -> Result<(), String> {
    if ctx.args.len() > 4 {
        return Err(syntax(ctx));
    }
    let is_policy = |word| ctx.is_word(3, word);
    let (flushes, replaces) = (is_policy("flush"), is_policy("replace"));
    if ctx.args.len() == 4 && !flushes && !replaces && !is_policy("append") {
        return Err(
            "Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.".into()
        );
    }
    let sources = rdb::restore_functions(ctx.args[2])?;
    let (shared, is_trusted) = (ctx.shared, ctx.session.from_primary);
    let mut restored = Libraries::default();
    for source in &sources {
        run::load_library(shared, &mut restored, source, false, is_trusted)?;
    }
    if flushes {
        *shared.scripts.libraries_mut() = restored;
    } else {
        shared.scripts.libraries_mut().join(&restored, replaces)?;
    }
    ctx.reply.ok();
    Ok(())
}

fn list(ctx: &mut Ctx<'_, '_>) {
    let (mut pattern, mut with_code) = (None, false);
    let mut words = ctx.args[2..].iter();
    while let Some(word) = words.next() {
        if !with_code && word.eq_ignore_ascii_case(b"withcode") {
            with_code = true;
        } else if pattern.is_none() && word.eq_ignore_ascii_case(b"libraryname") {
            pattern = words.next().copied();
            if pattern.is_none() {
                return ctx.reply.error("ERR library name argument was not given");
            }
        } else {
            let word = super::exec::printable(word);
            return ctx.reply.error(&format!("ERR Unknown argument {word}"));
        }
    }
    let libraries = ctx.shared.scripts.libraries();
    let fits = |name: &[u8]| pattern.is_none_or(|p| crate::glob::matches_nocase(p, name));
    let chosen: Vec<_> = libraries.all().filter(|library| fits(&library.name)).collect();
    ctx.reply.array(chosen.len());
    chosen.into_iter().for_each(|library| show(ctx, library, with_code));
}

fn show(ctx: &mut Ctx<'_, '_>, library: &Library, with_code: bool) {
    let reply = &mut *ctx.reply;
    reply.map(3 + usize::from(with_code));
    reply.bulk(b"library_name");
    reply.bulk(&library.name);
    reply.bulk(b"engine");
    reply.bulk(b"LUA");
    reply.bulk(b"functions");
    reply.array(library.functions.len());
    for (name, info) in &library.functions {
        reply.map(3);
        reply.bulk(b"name");
        reply.bulk(name);
        reply.bulk(b"description");
        match &info.description {
            Some(text) => reply.bulk(text),
            None => reply.null(),
        }
        reply.bulk(b"flags");
        let flags = info.flags.names();
        reply.set(flags.len());
        flags.iter().for_each(|flag| reply.simple(flag));
    }
    if with_code {
        reply.bulk(b"library_code");
        reply.bulk(&library.source);
    }
}

fn stats(ctx: &mut Ctx<'_, '_>) {
    let scripts = &ctx.shared.scripts;
    let running = scripts.oldest();
    if running.as_ref().is_some_and(|running| !running.is_function) {
        return ctx.reply.error(scripts.busy_reply());
    }
    let reply = &mut *ctx.reply;
    reply.map(2);
    reply.bulk(b"running_script");
    match running {
        None => reply.null(),
        Some(running) => {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(running.name.as_bytes());
            reply.bulk(b"command");
            reply.array(running.command.len());
            running.command.iter().for_each(|word| reply.bulk(word));
            reply.bulk(b"duration_ms");
            reply.int(clock::monotonic_ms().saturating_sub(running.since_ms) as i64);
        }
    }
    let libraries = scripts.libraries();
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.int(libraries.count() as i64);
    reply.bulk(b"functions_count");
    reply.int(libraries.function_count() as i64);
}
