//! EVAL, EVALSHA and SCRIPT.

use std::sync::Arc;

use super::{Command, Ctx, Group, Keys, flag};
use crate::number::parse_i64;
use crate::script::Kill;
use crate::script::cache::{Breadth, Hash, Script, hash_of, hex, parse_flags, parse_hash};
use crate::script::run::{self, Code};

pub(super) const KEYS: Keys = Keys::Counted { at: 2, also: 0 };
pub(super) const RUNS: u32 = flag::NOSCRIPT | flag::STALE | flag::SCRIPT | flag::MOVABLE_KEYS;
pub(super) const RUNS_RO: u32 = RUNS | flag::READONLY;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("eval", -3, RUNS, KEYS, Group::Scripting, "2.6.0", "Runs a script.", eval),
    Command::new("evalsha", -3, RUNS, KEYS, Group::Scripting, "2.6.0", "Runs a cached script by its hash.", evalsha),
    Command::new("eval_ro", -3, RUNS_RO, KEYS, Group::Scripting, "7.0.0", "Runs a script that only reads.", eval),
    Command::new("evalsha_ro", -3, RUNS_RO, KEYS, Group::Scripting, "7.0.0", "Runs a cached script that only reads, by its hash.", evalsha),
    Command::new("script", -2, flag::NOSCRIPT | flag::LOCK_ALL, Keys::None, Group::Scripting, "2.6.0", "Loads, looks for, forgets and ends scripts.", script),
];

/// A request of SCRIPT or FUNCTION that changes what replicas and the log must know. Such a one holds every
/// lock: it falls on one side of a snapshot's beginning and of a change of roles.
pub(super) fn changes(args: &[&[u8]]) -> bool {
    const WORDS: [&[u8]; 4] = [b"load", b"flush", b"delete", b"restore"];
    args.get(1).is_some_and(|word| WORDS.iter().any(|w| word.eq_ignore_ascii_case(w)))
}

/// What is answered although a script runs for long: it needs no lock.
pub(super) fn answers_while_busy(command: &Command, args: &[&[u8]]) -> bool {
    let word = |word: &str| args.get(1).is_some_and(|w| w.eq_ignore_ascii_case(word.as_bytes()));
    match command.name {
        "auth" | "hello" | "quit" | "reset" | "multi" | "discard" | "unwatch" | "replconf" => true,
        "script" => word("kill"),
        "function" => word("kill") || word("stats"),
        // Saving would wait for the script.
        "shutdown" => args.iter().skip(1).any(|w| w.eq_ignore_ascii_case(b"nosave")),
        _ => false,
    }
}

const NOT_A_COUNT: &str = "ERR value is not an integer or out of range";
const NOSCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";

type Words<'a> = &'a [&'a [u8]];

/// The keys and the arguments behind a count at position 2; the error is already replied. `not_a_count`: that of what is
/// no number.
pub(super) fn keys_and_args<'a>(
    ctx: &mut Ctx<'a, '_>,
    not_a_count: &str,
) -> Option<(Words<'a>, Words<'a>)> {
    let args = ctx.args;
    let Some(count) = parse_i64(args[2]) else {
        ctx.reply.error(not_a_count);
        return None;
    };
    let rest = &args[3..];
    if count > rest.len() as i64 {
        ctx.reply.error("ERR Number of keys can't be greater than number of args");
        return None;
    }
    if count < 0 {
        ctx.reply.error("ERR Number of keys can't be negative");
        return None;
    }
    Some(rest.split_at(count as usize))
}

fn is_read_only(ctx: &Ctx<'_, '_>) -> bool {
    ctx.command.is(flag::READONLY)
}

/// A script that was not known yet: read, compiled and cached.
fn take_in(
    ctx: &Ctx<'_, '_>,
    hash: Hash,
    source: &[u8],
    is_loaded: bool,
) -> Result<Arc<Script>, String> {
    let script = Arc::new(Script {
        hash,
        source: source.to_vec(),
        flags: parse_flags(source)?,
        breadth: Breadth::default(),
    });
    run::check(ctx.shared, &script)?;
    let mut cache = ctx.shared.scripts.cache();
    cache.put(script.clone(), is_loaded);
    Ok(cache.get(&hash).unwrap_or(script))
}

fn eval(ctx: &mut Ctx<'_, '_>) {
    let Some((keys, args)) = keys_and_args(ctx, NOT_A_COUNT) else { return };
    let source = ctx.args[1];
    let hash = hash_of(source);
    let known = ctx.shared.scripts.cache().get(&hash);
    let script = match known.map_or_else(|| take_in(ctx, hash, source, false), Ok) {
        Ok(script) => script,
        Err(error) => return ctx.reply.error(&error),
    };
    let read_only = is_read_only(ctx);
    run::run(ctx, &Code::script(script), keys, args, read_only);
}

fn evalsha(ctx: &mut Ctx<'_, '_>) {
    let Some((keys, args)) = keys_and_args(ctx, NOT_A_COUNT) else { return };
    let known = parse_hash(ctx.args[1]).and_then(|hash| ctx.shared.scripts.cache().get(&hash));
    let Some(script) = known else { return ctx.reply.error(NOSCRIPT) };
    let read_only = is_read_only(ctx);
    run::run(ctx, &Code::script(script), keys, args, read_only);
}

const HELP: &[&str] = &[
    "SCRIPT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "EXISTS <sha1> [<sha1> ...]",
    "    Which of these scripts are cached.",
    "FLUSH [ASYNC|SYNC]",
    "    Forgets every script.",
    "KILL",
    "    Ends the script that runs, unless it has written.",
    "SHOW <sha1>",
    "    The text of a cached script.",
    "LOAD <script>",
    "    Caches a script, here and on replicas, until SCRIPT FLUSH.",
];

fn script(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"load", 3) => load(ctx),
        (b"exists", 3..) => {
            let cache = ctx.shared.scripts.cache();
            ctx.reply.array(ctx.args.len() - 2);
            for text in &ctx.args[2..] {
                let known = parse_hash(text).is_some_and(|hash| cache.contains(&hash));
                ctx.reply.int(i64::from(known));
            }
        }
        (b"flush", 2..) => {
            let is_mode = ctx.is_word(2, "async") || ctx.is_word(2, "sync");
            if ctx.args.len() > 3 || (ctx.args.len() == 3 && !is_mode) {
                return ctx.reply.error("ERR SCRIPT FLUSH only support SYNC|ASYNC option");
            }
            ctx.shared.scripts.cache().flush();
            run::forget();
            ctx.journal_script(&[b"SCRIPT", b"FLUSH"]);
            ctx.reply.ok();
        }
        (b"show", 3) => {
            let cache = ctx.shared.scripts.cache();
            match parse_hash(ctx.args[2]).and_then(|hash| cache.source(&hash)) {
                Some(source) => ctx.reply.bulk(source),
                None => ctx.reply.error("NOSCRIPT No matching script."),
            }
        }
        (b"kill", 2) => kill(ctx, false),
        (b"debug", 3) => ctx.reply.error(
            "ERR the script debugger is not supported by this server; redis.log writes to its log",
        ),
        (b"help", 2) => ctx.help(HELP),
        (b"load" | b"exists" | b"flush" | b"show" | b"kill" | b"debug", _) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}

fn load(ctx: &mut Ctx<'_, '_>) {
    let source = ctx.args[2];
    let hash = hash_of(source);
    if let Err(error) = take_in(ctx, hash, source, true) {
        return ctx.reply.error(&error);
    }
    ctx.journal_script(&[b"SCRIPT", b"LOAD", source]);
    ctx.reply.bulk(hex(&hash).as_bytes());
}

/// SCRIPT KILL and FUNCTION KILL.
pub(super) fn kill(ctx: &mut Ctx<'_, '_>, functions: bool) {
    match ctx.shared.scripts.kill(functions) {
        Kill::Done => ctx.reply.ok(),
        Kill::Nobody => ctx.reply.error("NOTBUSY No scripts in execution right now."),
        Kill::Unkillable => ctx.reply.error(
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You can \
             either wait the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE \
             command.",
        ),
        Kill::OtherKind => ctx.reply.error(ctx.shared.scripts.busy_reply()),
    }
}
