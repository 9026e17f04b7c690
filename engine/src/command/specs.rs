//! Key specifications and tips of commands: where their keys stand, what is done to each of them, and how a client of a
//! cluster asks several members.
//!
//! Facts of Redis and Valkey that clients route by. A specification finds the first key (at an index, or behind a word)
//! and from there the others (a range, or as many as a count says).

/// How the first key is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    Index(i64),
    /// Behind this word, looked for from that place on (from the end if it is negative).
    Keyword(&'static str, i64),
    Unknown,
}

/// How the keys behind the first one are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Find {
    /// The last key from the first one on (from the end if it is negative), the step, and which part of what is left
    /// are keys (2: half of it).
    Range(i64, i64, i64),
    /// Where the count stands and where the first key does, from the place that was found; and the step.
    Count(i64, i64, i64),
    Unknown,
}

/// Some of a command's keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spec {
    /// By their names, with blanks between them.
    pub flags: &'static str,
    pub begin: Begin,
    pub find: Find,
}

const fn spec(flags: &'static str, begin: Begin, find: Find) -> Spec {
    Spec { flags, begin, find }
}

/// The names are of commands and of subcommands.
type Facts<T> = &'static [(&'static [T], &'static [&'static str])];

#[rustfmt::skip]
const SPECS: Facts<Spec> = &[
    (&[spec("OW insert", Begin::Index(1), Find::Range(-1, 2, 0))], &["msetnx"]),
    (&[spec("OW insert", Begin::Index(1), Find::Range(0, 1, 0))], &["setnx"]),
    (&[spec("OW update", Begin::Index(1), Find::Count(0, 1, 2))], &["msetex"]),
    (&[spec("OW update", Begin::Index(1), Find::Range(-1, 2, 0))], &["mset"]),
    (&[spec("OW update", Begin::Index(1), Find::Range(0, 1, 0))], &["psetex", "restore", "restore-asking", "setex"]),
    (&[spec("OW update", Begin::Index(1), Find::Range(0, 1, 0)), spec("RO access", Begin::Index(2), Find::Count(0, 1, 1))], &["zdiffstore", "zinterstore", "zunionstore"]),
    (&[spec("OW update", Begin::Index(1), Find::Range(0, 1, 0)), spec("RO access", Begin::Index(2), Find::Range(-1, 1, 0))], &["sdiffstore", "sinterstore", "sunionstore"]),
    (&[spec("OW update", Begin::Index(1), Find::Range(0, 1, 0)), spec("RO access", Begin::Index(2), Find::Range(0, 1, 0))], &["geosearchstore", "zrangestore"]),
    (&[spec("OW update", Begin::Index(2), Find::Range(0, 1, 0)), spec("RO access", Begin::Index(3), Find::Range(-1, 1, 0))], &["bitop"]),
    (&[spec("RM delete", Begin::Index(1), Find::Range(-1, 1, 0))], &["del", "unlink"]),
    (&[spec("RM delete", Begin::Index(1), Find::Range(0, 1, 0))], &["delex", "delifeq"]),
    (&[spec("RO access", Begin::Index(1), Find::Count(0, 1, 1))], &["sintercard", "zdiff", "zinter", "zintercard", "zunion"]),
    (&[spec("RO access", Begin::Index(1), Find::Range(-1, 1, 0))], &["mget", "sdiff", "sinter", "sunion"]),
    (&[spec("RO access", Begin::Index(1), Find::Range(0, 1, 0))], &["bitcount", "bitfield_ro", "bitpos", "digest", "dump", "expiretime", "geodist", "geohash", "geopos", "georadius_ro", "georadiusbymember_ro", "geosearch", "get", "getbit", "getrange", "hexpiretime", "hget", "hgetall", "hkeys", "hmget", "hpexpiretime", "hpttl", "hrandfield", "hscan", "httl", "hvals", "lindex", "lpos", "lrange", "pexpiretime", "pttl", "smembers", "smismember", "srandmember", "sscan", "substr", "ttl", "xpending", "xrange", "xrevrange", "zcount", "zlexcount", "zmscore", "zrandmember", "zrange", "zrangebylex", "zrangebyscore", "zrank", "zrevrange", "zrevrangebylex", "zrevrangebyscore", "zrevrank", "zscan", "zscore"]),
    (&[spec("RO access", Begin::Index(1), Find::Range(0, 1, 0)), spec("OW update variable_flags", Begin::Keyword("STORE", 5), Find::Range(0, 1, 0)), spec("OW update variable_flags", Begin::Keyword("STOREDIST", 5), Find::Range(0, 1, 0))], &["georadiusbymember"]),
    (&[spec("RO access", Begin::Index(1), Find::Range(0, 1, 0)), spec("OW update variable_flags", Begin::Keyword("STORE", 6), Find::Range(0, 1, 0)), spec("OW update variable_flags", Begin::Keyword("STOREDIST", 6), Find::Range(0, 1, 0))], &["georadius"]),
    (&[spec("RO access", Begin::Index(1), Find::Range(0, 1, 0)), spec("OW update", Begin::Index(2), Find::Range(0, 1, 0))], &["copy"]),
    (&[spec("RO access", Begin::Index(1), Find::Range(0, 1, 0)), spec("RO access", Begin::Unknown, Find::Unknown)], &["sort_ro"]),
    (&[spec("RO access", Begin::Index(1), Find::Range(0, 1, 0)), spec("RO access", Begin::Unknown, Find::Unknown), spec("OW update", Begin::Unknown, Find::Unknown)], &["sort"]),
    (&[spec("RO access", Begin::Index(1), Find::Range(1, 1, 0))], &["lcs"]),
    (&[spec("RO access", Begin::Index(2), Find::Count(0, 1, 1))], &["eval_ro", "evalsha_ro", "fcall_ro"]),
    (&[spec("RO access", Begin::Index(2), Find::Range(0, 1, 0))], &["xinfo|consumers", "xinfo|groups", "xinfo|stream"]),
    (&[spec("RO access", Begin::Keyword("STREAMS", 1), Find::Range(-1, 1, 2))], &["xread"]),
    (&[spec("RO access", Begin::Keyword("STREAMS", 4), Find::Range(-1, 1, 2))], &["xreadgroup"]),
    (&[spec("RO", Begin::Index(1), Find::Range(-1, 1, 0))], &["exists", "touch", "watch"]),
    (&[spec("RO", Begin::Index(1), Find::Range(0, 1, 0))], &["hexists", "hlen", "hstrlen", "llen", "scard", "sismember", "strlen", "type", "xlen", "zcard"]),
    (&[spec("RO", Begin::Index(2), Find::Range(0, 1, 0))], &["memory|usage", "object|encoding", "object|freq", "object|idletime", "object|refcount"]),
    (&[spec("RW access delete", Begin::Index(1), Find::Count(0, 1, 1))], &["lmpop", "zmpop"]),
    (&[spec("RW access delete", Begin::Index(1), Find::Range(-2, 1, 0))], &["blpop", "brpop", "bzpopmax", "bzpopmin"]),
    (&[spec("RW access delete", Begin::Index(1), Find::Range(0, 1, 0))], &["getdel", "hgetdel", "lpop", "rpop", "spop", "zpopmax", "zpopmin"]),
    (&[spec("RW access delete", Begin::Index(1), Find::Range(0, 1, 0)), spec("OW insert", Begin::Index(2), Find::Range(0, 1, 0))], &["renamenx"]),
    (&[spec("RW access delete", Begin::Index(1), Find::Range(0, 1, 0)), spec("OW update", Begin::Index(2), Find::Range(0, 1, 0))], &["rename"]),
    (&[spec("RW access delete", Begin::Index(1), Find::Range(0, 1, 0)), spec("RW insert", Begin::Index(2), Find::Range(0, 1, 0))], &["blmove", "brpoplpush", "lmove", "rpoplpush", "smove"]),
    (&[spec("RW access delete", Begin::Index(2), Find::Count(0, 1, 1))], &["blmpop", "bzmpop"]),
    (&[spec("RW access delete", Begin::Index(3), Find::Range(0, 1, 0)), spec("RW access delete incomplete", Begin::Keyword("KEYS", -2), Find::Range(-1, 1, 0))], &["migrate"]),
    (&[spec("RW access insert", Begin::Index(1), Find::Range(0, 1, 0)), spec("RO access", Begin::Index(2), Find::Range(-1, 1, 0))], &["pfmerge"]),
    (&[spec("RW access update variable_flags", Begin::Index(1), Find::Range(0, 1, 0))], &["bitfield", "set"]),
    (&[spec("RW access update", Begin::Index(1), Find::Range(0, 1, 0))], &["decr", "decrby", "getex", "getset", "hgetex", "hincrby", "hincrbyfloat", "incr", "incrby", "incrbyfloat", "increx", "larder.memcached", "move", "setbit", "zincrby"]),
    (&[spec("RW access update", Begin::Index(2), Find::Count(0, 1, 1))], &["eval", "evalsha", "fcall"]),
    (&[spec("RW access", Begin::Index(1), Find::Range(-1, 1, 0))], &["pfcount"]),
    (&[spec("RW access", Begin::Index(2), Find::Range(0, 1, 0))], &["pfdebug"]),
    (&[spec("RW delete", Begin::Index(1), Find::Range(0, 1, 0))], &["hdel", "lrem", "ltrim", "srem", "xautoclaim", "xdel", "xdelex", "xtrim", "zrem", "zremrangebylex", "zremrangebyrank", "zremrangebyscore"]),
    (&[spec("RW delete", Begin::Index(2), Find::Range(0, 1, 0))], &["xgroup|delconsumer", "xgroup|destroy"]),
    (&[spec("RW insert", Begin::Index(1), Find::Range(0, 1, 0))], &["append", "hsetex", "hsetnx", "linsert", "lpush", "lpushx", "pfadd", "rpush", "rpushx", "sadd"]),
    (&[spec("RW insert", Begin::Index(2), Find::Range(0, 1, 0))], &["xgroup|create", "xgroup|createconsumer"]),
    (&[spec("RW update delete", Begin::Index(1), Find::Range(0, 1, 0))], &["xackdel"]),
    (&[spec("RW update", Begin::Index(1), Find::Range(0, 1, 0))], &["expire", "expireat", "geoadd", "hexpire", "hexpireat", "hmset", "hpersist", "hpexpire", "hpexpireat", "hset", "larder.item", "lset", "persist", "pexpire", "pexpireat", "setrange", "xack", "xadd", "xclaim", "xsetid", "zadd"]),
    (&[spec("RW update", Begin::Index(2), Find::Range(0, 1, 0))], &["xgroup|setid"]),
    (&[spec("not_key", Begin::Index(1), Find::Range(-1, 1, 0))], &["ssubscribe", "sunsubscribe"]),
    (&[spec("not_key", Begin::Index(1), Find::Range(0, 1, 0))], &["clusterscan", "spublish"]),
];

#[rustfmt::skip]
const TIPS: Facts<&str> = &[
    (&["nondeterministic_output"], &["client|info", "client|list", "cluster|bumpepoch", "cluster|count-failure-reports", "cluster|getkeysinslot", "cluster|info", "cluster|links", "cluster|myshardid", "cluster|nodes", "cluster|replicas", "cluster|shards", "cluster|slaves", "cluster|slots", "dump", "hrandfield", "hscan", "lastsave", "migrate", "object|encoding", "object|freq", "object|idletime", "object|refcount", "pttl", "spop", "srandmember", "sscan", "time", "ttl", "xadd", "xautoclaim", "xclaim", "xinfo|consumers", "xpending", "xtrim", "zrandmember", "zscan"]),
    (&["nondeterministic_output", "request_policy:all_nodes"], &["commandlog|get", "slowlog|get"]),
    (&["nondeterministic_output", "request_policy:all_nodes", "response_policy:agg_sum"], &["commandlog|len", "slowlog|len"]),
    (&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"], &["latency|doctor", "latency|graph", "latency|histogram", "latency|history", "latency|latest"]),
    (&["nondeterministic_output", "request_policy:all_shards"], &["cluster|slot-stats"]),
    (&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"], &["function|stats", "info", "memory|doctor", "memory|malloc-stats", "memory|stats", "randomkey"]),
    (&["nondeterministic_output", "request_policy:special", "response_policy:special"], &["clusterscan", "scan"]),
    (&["nondeterministic_output_order"], &["command", "command|docs", "command|info", "command|list", "function|list", "hgetall", "hkeys", "hvals", "module|list", "sdiff", "sinter", "smembers", "sunion"]),
    (&["nondeterministic_output_order", "request_policy:all_shards"], &["keys"]),
    (&["request_policy:all_nodes", "response_policy:agg_sum"], &["latency|reset"]),
    (&["request_policy:all_nodes", "response_policy:all_succeeded"], &["acl|deluser", "acl|save", "acl|setuser", "client|setinfo", "client|setname", "commandlog|reset", "config|resetstat", "config|rewrite", "config|set", "script|flush", "script|load", "slowlog|reset"]),
    (&["request_policy:all_shards", "response_policy:agg_logical_and"], &["script|exists"]),
    (&["request_policy:all_shards", "response_policy:agg_min"], &["wait", "waitaof"]),
    (&["request_policy:all_shards", "response_policy:agg_sum"], &["dbsize"]),
    (&["request_policy:all_shards", "response_policy:all_succeeded"], &["flushall", "flushdb", "function|delete", "function|flush", "function|load", "function|restore", "memory|purge", "ping"]),
    (&["request_policy:all_shards", "response_policy:one_succeeded"], &["function|kill", "script|kill"]),
    (&["request_policy:multi_shard"], &["mget"]),
    (&["request_policy:multi_shard", "response_policy:agg_sum"], &["del", "exists", "touch", "unlink"]),
    (&["request_policy:multi_shard", "response_policy:all_succeeded"], &["mset", "msetex"]),
];

fn look<T>(facts: Facts<T>, name: &str) -> &'static [T] {
    facts.iter().find(|(_, names)| names.contains(&name)).map_or(&[], |(found, _)| found)
}

/// The specifications of a command (`get`) or subcommand (`xinfo|stream`).
pub fn of(name: &str) -> &'static [Spec] {
    look(SPECS, name)
}

/// What a client of a cluster should know of it.
pub fn tips(name: &str) -> &'static [&'static str] {
    look(TIPS, name)
}

/// What a request does to the `nth` of its keys, in the order of `Command::key_positions`, in the words of COMMAND
/// GETKEYSANDFLAGS.
pub fn done_to_key(name: &str, args: &[&[u8]], nth: usize) -> impl Iterator<Item = &'static str> {
    let has = |from: usize, words: &[&[u8]]| {
        let mut rest = args.iter().skip(from);
        rest.any(|arg| words.iter().any(|word| arg.eq_ignore_ascii_case(word)))
    };
    let flags = match name {
        "set" if !has(3, &[b"get", b"ifeq", b"ifne", b"ifdeq", b"ifdne"]) => "OW update",
        "bitfield" if !has(2, &[b"set", b"incrby"]) => "RO access",
        // The keys that are stored to stand behind the one that is read.
        "sort" | "georadius" | "georadiusbymember" if nth > 0 => "OW update",
        _ => {
            let specs = of(name);
            specs.get(nth).or(specs.last()).map_or("RW access update", |spec| spec.flags)
        }
    };
    flags.split(' ').filter(|word| !matches!(*word, "variable_flags" | "incomplete"))
}

#[cfg(test)]
mod tests {
    use super::super::{Keys, access, all, categories, find};
    use super::*;

    #[test]
    fn every_command_with_keys_has_a_specification_and_no_other_has() {
        for command in all() {
            let subs = categories::subs(command).iter();
            let inside = subs.flat_map(|sub| of(&sub.full_name)).count();
            let has = !of(command.name).is_empty() || inside > 0 || command.name == "debug";
            let is_channel = command.is(super::super::flag::PUBSUB);
            assert!(is_channel || has != matches!(command.keys, Keys::None), "{}", command.name);
        }
        let names = SPECS.iter().flat_map(|(_, names)| *names);
        for name in names.chain(TIPS.iter().flat_map(|(_, names)| *names)) {
            assert!(categories::named(name.as_bytes()).is_some(), "{name}");
        }
    }

    #[test]
    fn what_is_done_to_a_key_agrees_with_the_rights_that_it_needs() {
        for command in all().filter(|c| !of(c.name).is_empty() && !c.names_no_keys()) {
            for (nth, spec) in of(command.name).iter().enumerate().take(2) {
                let has = |word: &str| spec.flags.split(' ').any(|flag| flag == word);
                if has("variable_flags") || matches!(spec.begin, Begin::Unknown) {
                    continue;
                }
                let writes = ["insert", "update", "delete"].into_iter().any(has);
                let needs =
                    u8::from(has("access")) * access::READ + u8::from(writes) * access::WRITE;
                let args = [command.name.as_bytes(), b"k"];
                assert_eq!(access::need(command, &args, nth), needs, "{} {nth}", command.name);
            }
        }
    }

    #[test]
    fn options_change_what_is_done_to_a_key() {
        for (line, nth, flags) in [
            ("set k v", 0, "OW update"),
            ("set k v get", 0, "RW access update"),
            ("bitfield k get u8 0", 0, "RO access"),
            ("bitfield k set u8 0 1", 0, "RW access update"),
            ("sort k store d", 1, "OW update"),
            ("zunionstore d 2 a b", 2, "RO access"),
            ("rename a b", 1, "OW update"),
        ] {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let name = find(args[0]).unwrap().name;
            let done: Vec<_> = done_to_key(name, &args, nth).collect();
            assert_eq!(done.join(" "), flags, "{line}");
        }
    }
}
