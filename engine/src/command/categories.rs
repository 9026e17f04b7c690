//! ACL categories of commands and their subcommands: what `ACL CAT` lists and users get rights by.
//!
//! A command's categories follow from its row (group and flags), as in Redis; `EXCEPTIONS` names those that do not.
//! Subcommands have rights of their own, so that each has a number behind those of the table's rows.

use std::ops::Range;
use std::sync::OnceLock;

use super::{Command, all, flag, table};

pub const KEYSPACE: u32 = 1;
pub const READ: u32 = 1 << 1;
pub const WRITE: u32 = 1 << 2;
pub const SET: u32 = 1 << 3;
pub const SORTEDSET: u32 = 1 << 4;
pub const LIST: u32 = 1 << 5;
pub const HASH: u32 = 1 << 6;
pub const STRING: u32 = 1 << 7;
pub const BITMAP: u32 = 1 << 8;
pub const HYPERLOGLOG: u32 = 1 << 9;
pub const GEO: u32 = 1 << 10;
pub const STREAM: u32 = 1 << 11;
pub const PUBSUB: u32 = 1 << 12;
pub const ADMIN: u32 = 1 << 13;
pub const FAST: u32 = 1 << 14;
pub const SLOW: u32 = 1 << 15;
pub const BLOCKING: u32 = 1 << 16;
pub const DANGEROUS: u32 = 1 << 17;
pub const CONNECTION: u32 = 1 << 18;
pub const TRANSACTION: u32 = 1 << 19;
pub const SCRIPTING: u32 = 1 << 20;

/// Names by bit, in the order in which they are printed.
pub const NAMES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// Commands whose rows do not say it all: what they have in place of their group's category and besides the
/// flags' ones. FAST or SLOW here stand for what the flag says.
const EXCEPTIONS: &[(&str, u32)] = &[
    ("asking", CONNECTION),
    ("readonly", CONNECTION),
    ("readwrite", CONNECTION),
    ("command", CONNECTION),
    ("wait", CONNECTION),
    ("waitaof", CONNECTION | BLOCKING),
    ("dbsize", KEYSPACE | FAST),
    ("flushall", KEYSPACE | DANGEROUS),
    ("flushdb", KEYSPACE | DANGEROUS),
    ("swapdb", KEYSPACE | DANGEROUS),
    ("restore", KEYSPACE | DANGEROUS),
    ("restore-asking", KEYSPACE | DANGEROUS),
    ("migrate", KEYSPACE | DANGEROUS),
    ("keys", KEYSPACE | DANGEROUS),
    ("info", DANGEROUS),
    ("lastsave", ADMIN | DANGEROUS),
    ("role", ADMIN | DANGEROUS),
    ("sort", SET | SORTEDSET | LIST | DANGEROUS),
    ("sort_ro", SET | SORTEDSET | LIST | DANGEROUS),
    ("bitcount", BITMAP),
    ("bitfield", BITMAP),
    ("bitfield_ro", BITMAP),
    ("bitop", BITMAP),
    ("bitpos", BITMAP),
    ("getbit", BITMAP),
    ("setbit", BITMAP),
];

const ADMINISTERS: u32 = ADMIN | DANGEROUS;

/// Container, categories besides SLOW, subcommands. Names of other servers stand here too: rules that name them
/// are understood, and one that is added to this server has its categories.
#[rustfmt::skip]
const SUBCOMMANDS: &[(&str, u32, &[&str])] = &[
    ("acl", 0, &["cat", "genpass", "help", "whoami"]),
    ("acl", ADMINISTERS, &["deluser", "dryrun", "getuser", "list", "load", "log", "save", "setuser", "users"]),
    ("client", CONNECTION, &["caching", "capa", "getname", "getredir", "help", "id", "import-source", "info",
        "maint_notifications", "no-touch", "reply", "setinfo", "setname", "tracking", "trackinginfo"]),
    ("client", CONNECTION | ADMINISTERS, &["kill", "list", "no-evict", "pause", "unblock", "unpause"]),
    ("cluster", 0, &["countkeysinslot", "getkeysinslot", "help", "info", "keyslot", "links", "myid", "myshardid", "nodes",
        "shards", "slot-stats", "slots"]),
    ("cluster", ADMINISTERS, &["addslots", "addslotsrange", "bumpepoch", "cancelslotmigrations", "count-failure-reports",
        "delslots", "delslotsrange", "failover", "flushslots", "forget", "getslotmigrations", "meet", "migrateslots",
        "migration", "replicas", "replicate", "reset", "saveconfig", "set-config-epoch", "setslot", "slaves", "syncslots"]),
    ("cluster", KEYSPACE | WRITE | ADMINISTERS, &["flushslot"]),
    ("command", CONNECTION, &["count", "docs", "getkeys", "getkeysandflags", "help", "info", "list"]),
    ("commandlog", 0, &["help"]),
    ("commandlog", ADMINISTERS, &["get", "len", "reset"]),
    ("config", 0, &["help"]),
    ("config", ADMINISTERS, &["get", "resetstat", "rewrite", "set"]),
    ("function", SCRIPTING, &["dump", "help", "kill", "list", "stats"]),
    ("function", SCRIPTING | WRITE, &["delete", "flush", "load", "restore"]),
    ("latency", 0, &["help"]),
    ("latency", ADMINISTERS, &["doctor", "graph", "histogram", "history", "latest", "reset"]),
    ("memory", 0, &["doctor", "help", "malloc-stats", "purge", "stats"]),
    ("memory", READ, &["usage"]),
    ("module", 0, &["help"]),
    ("module", ADMINISTERS, &["list", "load", "loadex", "unload"]),
    ("object", KEYSPACE, &["help"]),
    ("object", KEYSPACE | READ, &["encoding", "freq", "idletime", "refcount"]),
    ("pubsub", 0, &["help"]),
    ("pubsub", PUBSUB, &["channels", "numpat", "numsub", "shardchannels", "shardnumsub"]),
    ("script", SCRIPTING, &["debug", "exists", "flush", "help", "kill", "load", "show"]),
    ("slowlog", 0, &["help"]),
    ("slowlog", ADMINISTERS, &["get", "len", "reset"]),
    ("xgroup", STREAM, &["help"]),
    ("xgroup", STREAM | WRITE, &["create", "createconsumer", "delconsumer", "destroy", "setid"]),
    ("xinfo", STREAM, &["help"]),
    ("xinfo", STREAM | READ, &["consumers", "groups", "stream"]),
];

/// A subcommand of a command of the table.
pub struct Sub {
    pub container: &'static Command,
    pub name: &'static str,
    /// `config|get`
    pub full_name: String,
    /// Behind those of the table's rows.
    pub id: usize,
}

/// Commands and subcommands by number.
struct Catalog {
    categories: Vec<u32>,
    subs: Vec<Sub>,
    /// By the container's number.
    subs_of: Vec<Range<usize>>,
}

fn catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(|| {
        let mut categories: Vec<u32> = all().map(of_row).collect();
        let (mut subs, mut subs_of) = (Vec::new(), Vec::new());
        for container in all() {
            let begin = subs.len();
            for (_, extra, names) in SUBCOMMANDS.iter().filter(|(c, ..)| *c == container.name) {
                for name in *names {
                    let full_name = format!("{}|{name}", container.name);
                    subs.push(Sub { container, name, full_name, id: categories.len() });
                    categories.push(extra | SLOW);
                }
            }
            subs_of.push(begin..subs.len());
        }
        Catalog { categories, subs, subs_of }
    })
}

/// The category of a row's group, by the name that the docs have for it.
fn of_group(command: &Command) -> u32 {
    match table::group_name(command.group) {
        "generic" => KEYSPACE,
        "string" => STRING,
        "hash" => HASH,
        "list" => LIST,
        "set" => SET,
        "sorted-set" => SORTEDSET,
        "stream" => STREAM,
        "hyperloglog" => HYPERLOGLOG,
        "geo" => GEO,
        "pubsub" => PUBSUB,
        "transactions" => TRANSACTION,
        "connection" => CONNECTION,
        "scripting" => SCRIPTING,
        _ => 0,
    }
}

fn of_row(command: &Command) -> u32 {
    let exception = EXCEPTIONS.iter().find(|(name, _)| *name == command.name);
    let is_container = SUBCOMMANDS.iter().any(|(name, ..)| *name == command.name);
    if is_container {
        return exception.map_or(0, |(_, bits)| *bits) | SLOW;
    }
    let mut bits = exception.map_or_else(|| of_group(command), |(_, bits)| *bits);
    let is_script = bits & SCRIPTING != 0;
    for (bit, category) in [
        (flag::WRITE, WRITE),
        (flag::READONLY, if is_script { 0 } else { READ }),
        (flag::ADMIN, ADMINISTERS),
        (flag::PUBSUB, PUBSUB),
        (flag::BLOCKING, BLOCKING),
    ] {
        if command.is(bit) {
            bits |= category;
        }
    }
    if bits & FAST == 0 {
        bits |= if command.is(flag::FAST) { FAST } else { SLOW };
    }
    bits
}

/// How many commands and subcommands have a number.
pub fn count() -> usize {
    catalog().categories.len()
}

/// Categories by number, of commands and subcommands.
pub fn by_id(id: usize) -> u32 {
    catalog().categories.get(id).copied().unwrap_or(0)
}

pub fn of(command: &Command) -> u32 {
    by_id(command.id())
}

/// Names of categories, in the order in which they are printed.
pub fn names(bits: u32) -> impl Iterator<Item = &'static str> {
    NAMES.iter().enumerate().filter(move |(bit, _)| bits & 1 << bit != 0).map(|(_, name)| *name)
}

/// The bit of a category's name, in any case.
pub fn find(name: &[u8]) -> Option<u32> {
    let at = NAMES.iter().position(|known| known.as_bytes().eq_ignore_ascii_case(name))?;
    Some(1 << at)
}

pub fn subs(command: &Command) -> &'static [Sub] {
    let catalog = catalog();
    catalog.subs_of.get(command.id()).map_or(&[], |range| &catalog.subs[range.clone()])
}

/// The subcommand that a request names, when it is a known one.
pub fn sub_of(command: &Command, args: &[&[u8]]) -> Option<&'static Sub> {
    let word = args.get(1)?;
    subs(command).iter().find(|sub| sub.name.as_bytes().eq_ignore_ascii_case(word))
}

/// What `get` or `config|get` names, whatever `rename-command` has made of it.
pub fn named(name: &[u8]) -> Option<(&'static Command, Option<&'static Sub>)> {
    let (name, word) = match name.iter().position(|b| *b == b'|') {
        Some(at) => (&name[..at], Some(&name[at + 1..])),
        None => (name, None),
    };
    let command = all().find(|c| c.name.as_bytes().eq_ignore_ascii_case(name))?;
    match word {
        None => Some((command, None)),
        Some(word) => sub_of(command, &[name, word]).map(|sub| (command, Some(sub))),
    }
}

/// Names of the commands and subcommands of a category.
pub fn members(category: u32) -> Vec<&'static str> {
    let fits = |id: usize| by_id(id) & category != 0;
    let mut found = Vec::new();
    for command in all() {
        if fits(command.id()) {
            found.push(command.name);
        }
        let inside = subs(command).iter().filter(|sub| fits(sub.id));
        found.extend(inside.map(|sub| sub.full_name.as_str()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exception_and_category_names_something() {
        for (name, _) in EXCEPTIONS {
            assert!(named(name.as_bytes()).is_some(), "{name}");
        }
        for (bit, name) in NAMES.iter().enumerate() {
            assert_eq!(find(name.to_ascii_uppercase().as_bytes()), Some(1 << bit));
        }
        assert_eq!(find(b"all"), None);
    }

    #[test]
    fn every_command_is_fast_or_slow_and_nothing_has_no_category() {
        for id in 0..count() {
            let bits = by_id(id) & (FAST | SLOW);
            assert!(bits == FAST || bits == SLOW, "{id}");
        }
    }

    #[test]
    fn subcommands_are_found_in_any_case() {
        let (command, sub) = named(b"CONFIG|Get").unwrap();
        assert_eq!((command.name, sub.unwrap().full_name.as_str()), ("config", "config|get"));
        assert!(named(b"config|nosuch").is_none() && named(b"get|x").is_none());
        assert!(sub_of(command, &[b"config"]).is_none());
    }
}
