//! OBJECT, MEMORY and DEBUG: how values are held.

use smallvec::{SmallVec, smallvec};

use super::{Command, Ctx, Group, Keys, digest, flag, info};
use crate::keyspace::db::{lfu_counter, lru_clock};
use crate::keyspace::{Entry, ValueRef};
use crate::number::parse_i64;
use crate::server::Shared;

const KEY_SECOND: Keys = Keys::Range { first: 2, last: 2, step: 1 };

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("object", -2, flag::READONLY, KEY_SECOND, Group::Generic, "2.2.3", "Shows how a value is held.", object),
    Command::new("memory", -2, flag::READONLY | flag::MOVABLE_KEYS, Keys::Custom(usage_key), Group::Server, "4.0.0", "Shows what memory is used for.", memory),
    Command::new("debug", -2, flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::MOVABLE_KEYS | flag::WALKS, Keys::Custom(object_key), Group::Server, "1.0.0", "Tools for the server's own tests.", debug),
];

fn key_of(args: &[&[u8]], subcommand: &str) -> SmallVec<[usize; 8]> {
    let fits = args.len() > 2 && args[1].eq_ignore_ascii_case(subcommand.as_bytes());
    if fits { smallvec![2] } else { SmallVec::new() }
}

fn usage_key(args: &[&[u8]]) -> SmallVec<[usize; 8]> {
    key_of(args, "usage")
}

fn object_key(args: &[&[u8]]) -> SmallVec<[usize; 8]> {
    key_of(args, "object")
}

/// What OBJECT ENCODING says of an entry.
pub(super) fn encoding(entry: &Entry) -> &'static str {
    match entry.value() {
        ValueRef::Collection(collection) => collection.encoding_name(),
        ValueRef::String(_) if entry.is_raw() => "raw",
        ValueRef::String(value) if parse_i64(value).is_some() => "int",
        ValueRef::String(value) if value.len() <= 44 => "embstr",
        ValueRef::String(_) => "raw",
    }
}

const OBJECT_HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    How the value is held.",
    "FREQ <key>",
    "    How often the key was used; with an LFU maxmemory-policy only.",
    "IDLETIME <key>",
    "    Seconds since the key was used; not with an LFU maxmemory-policy.",
    "REFCOUNT <key>",
    "    Always 1: values are not shared.",
];

fn object(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"help", 2) => return ctx.help(OBJECT_HELP),
        (b"encoding" | b"freq" | b"idletime" | b"refcount", 3) => {}
        (b"encoding" | b"freq" | b"idletime" | b"refcount", _) => return ctx.wrong_sub_arity(),
        _ => return ctx.unknown_subcommand(),
    }
    let env = ctx.db.env;
    let Some(entry) = ctx.db.peek(ctx.args[2]) else { return ctx.reply.null() };
    match word.as_slice() {
        b"encoding" => {
            let name = encoding(entry);
            ctx.reply.bulk(name.as_bytes());
        }
        b"refcount" => ctx.reply.int(1),
        b"freq" if !env.lfu => ctx.reply.error(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note \
             that when switching between policies at runtime LRU and LFU data will take some time to \
             adjust.",
        ),
        b"freq" => {
            let counter = lfu_counter(entry.access(), env);
            ctx.reply.int(i64::from(counter));
        }
        _ if env.lfu => ctx.reply.error(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when \
             switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ),
        _ => {
            let idle = lru_clock(env.now_ms).wrapping_sub(entry.access()) & 0x00ff_ffff;
            ctx.reply.int(i64::from(idle));
        }
    }
}

const MEMORY_HELP: &[&str] = &[
    "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "USAGE <key> [SAMPLES <count>]",
    "    Bytes of a key and its value; exact, so that SAMPLES changes nothing.",
    "STATS, DOCTOR, MALLOC-STATS, PURGE",
    "    What memory is used for.",
];

fn memory(ctx: &mut Ctx<'_, '_>) {
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"usage", 3..) => {
            if ctx.args.len() > 3 {
                if ctx.args.len() != 5 || !ctx.is_word(3, "samples") {
                    return ctx.reply.syntax_error();
                }
                match ctx.int_arg(4) {
                    None => return,
                    Some(n) if n < 0 => return ctx.reply.syntax_error(),
                    Some(_) => {}
                }
            }
            match ctx.db.peek(ctx.args[2]).map(Entry::memory) {
                // Its share of the table: a bucket of 64 bytes holds six entries.
                Some(bytes) => ctx.reply.int(bytes as i64 + 11),
                None => ctx.reply.null(),
            }
        }
        (b"stats", 2) => memory_stats(ctx),
        (b"doctor", 2) => {
            let text = memory_doctor(ctx.shared);
            ctx.reply.verbatim(&text);
        }
        (b"malloc-stats", 2) => {
            let text = malloc_stats(ctx.shared);
            ctx.reply.verbatim(&text);
        }
        (b"purge", 2) => ctx.reply.ok(),
        (b"help", 2) => ctx.help(MEMORY_HELP),
        (b"usage" | b"stats" | b"doctor" | b"malloc-stats" | b"purge", _) => ctx.wrong_sub_arity(),
        _ => ctx.unknown_subcommand(),
    }
}

fn memory_stats(ctx: &mut Ctx<'_, '_>) {
    let shared = ctx.shared;
    let used = shared.used_memory();
    let data = shared.keyspace.used_memory();
    let peak = shared.stats.peak_memory.load(std::sync::atomic::Ordering::Relaxed).max(used);
    // The count of keys looks at locks of its own: it is left to DBSIZE and INFO.
    let fields = [
        ("peak.allocated", peak),
        ("total.allocated", used),
        ("startup.allocated", 0),
        ("replication.backlog", shared.journal.memory()),
        ("clients.normal", used.saturating_sub(data)),
        ("dataset.bytes", data),
    ];
    ctx.reply.map(fields.len());
    for (name, value) in fields {
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.int(value as i64);
    }
}

/// Below that nothing can be told from what any server needs, bytes.
const DOCTOR_BYTES_MIN: u64 = 5 << 20;
/// What the process itself takes beside its data is less, bytes.
const GAPS_BYTES_MIN: u64 = 64 << 20;

/// What is unusual about the memory in use, with the figures that say so.
fn memory_doctor(shared: &Shared) -> String {
    let used = shared.used_memory();
    if used < DOCTOR_BYTES_MIN {
        return "Too little memory is used for a diagnosis.\n".into();
    }
    let data = shared.keyspace.used_memory();
    let peak = shared.stats.peak_memory.load(std::sync::atomic::Ordering::Relaxed).max(used);
    let (rss, backlog) = (info::rss_bytes(), shared.journal.memory());
    let buffers = used.saturating_sub(data).saturating_sub(backlog);
    let max = shared.config.maxmemory();
    let mut found = Vec::new();
    if peak > used / 2 * 3 {
        found.push(format!(
            "Peak: {peak} bytes were used once, {used} are now. What was freed may stay with the allocator \
             for a while: resident memory follows later."
        ));
    }
    if rss > used / 10 * 14 && rss - used > GAPS_BYTES_MIN {
        found.push(format!(
            "Resident memory: {rss} bytes for {used} that are used. Freed values leave gaps that new ones of \
             their sizes fill again."
        ));
    }
    if buffers > data / 2 && buffers > DOCTOR_BYTES_MIN {
        found.push(format!(
            "Buffers: {buffers} bytes beside {data} of data. CLIENT LIST shows who does not read (omem); \
             client-output-buffer-limit bounds it."
        ));
    }
    let (scripts, cached) = {
        let cache = shared.scripts.cache();
        (cache.bytes() as u64, cache.len())
    };
    if cached > 1000 || scripts > DOCTOR_BYTES_MIN {
        found.push(format!(
            "Scripts: {cached} are cached with {scripts} bytes. Arguments belong into ARGV, not into the text."
        ));
    }
    if max > 0 && used > max / 100 * 98 {
        found.push(format!(
            "Limit: {used} bytes of maxmemory {max} are used; INFO stats shows what is evicted."
        ));
    }
    if found.is_empty() {
        return format!("Nothing unusual: {used} bytes are used, {data} of them by data.\n");
    }
    found.iter().map(|line| format!("{line}\n")).collect()
}

/// The allocator's figures as far as they are counted: its own statistics are not compiled in, since they cost each
/// allocation time.
fn malloc_stats(shared: &Shared) -> String {
    let (used, rss) = (shared.used_memory(), info::rss_bytes());
    format!(
        "jemalloc, size classes in steps of 8 bytes up to 64, then four per doubling\nallocated: {used}\n\
         of it data: {}\nof it journal: {}\nresident: {rss}\nresident beyond what is allocated: {}\n",
        shared.keyspace.used_memory(),
        shared.journal.memory(),
        rss.saturating_sub(used),
    )
}

const DEBUG_HELP: &[&str] = &[
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "DIGEST, DIGEST-VALUE <key> [<key> ...]",
    "    Sums of the whole data set, and of values.",
    "OBJECT <key>",
    "    How a value is held.",
    "FAULT",
    "    Meets a fault of the server's own: this connection is closed.",
    "SLEEP <seconds>",
    "    Stops this connection's event loop for a while.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    Whether expired keys are deleted although nobody reads them.",
];

fn debug(ctx: &mut Ctx<'_, '_>) {
    let allowed = match ctx.shared.config.get("enable-debug-command").as_deref() {
        Some("yes") => true,
        Some("local") => is_local(&ctx.session.info.addr),
        _ => false,
    };
    if !allowed {
        return ctx.reply.error(
            "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you \
             can run it from a local connection, otherwise you need to set this option in the \
             configuration file, and then restart the server.",
        );
    }
    let word = ctx.args[1].to_ascii_lowercase();
    match (word.as_slice(), ctx.args.len()) {
        (b"sleep", 3) => {
            let Some(seconds) = ctx.float_arg(2) else { return };
            let seconds = seconds.clamp(0.0, 3600.0);
            std::thread::sleep(std::time::Duration::from_secs_f64(seconds));
            ctx.reply.ok();
        }
        (b"digest", 2) => digest::digest(ctx),
        (b"digest-value", 2..) => digest::digest_values(ctx),
        (b"object", 3) => {
            let lru = lru_clock(ctx.db.now_ms());
            let Some(entry) = ctx.db.peek(ctx.args[2]) else {
                return ctx.reply.error(super::keys::NO_SUCH_KEY);
            };
            let text = format!(
                "Value at:0x0 refcount:1 encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{}",
                encoding(entry),
                entry.memory(),
                entry.access(),
                lru.wrapping_sub(entry.access()) & 0x00ff_ffff,
            );
            ctx.reply.simple(&text);
        }
        (b"set-active-expire", 3) => {
            let on = ctx.is_word(2, "1");
            ctx.shared.state.active_expire_off.store(!on, std::sync::atomic::Ordering::Release);
            ctx.reply.ok();
        }
        #[expect(clippy::panic, reason = "what a fault costs is tested by one")]
        (b"fault", 2) => panic!("DEBUG FAULT was asked for"),
        (b"help", 2) => ctx.help(DEBUG_HELP),
        _ => ctx.bad_subcommand(),
    }
}

fn is_local(addr: &str) -> bool {
    addr.parse::<std::net::SocketAddr>().is_ok_and(|a| a.ip().to_canonical().is_loopback())
}
