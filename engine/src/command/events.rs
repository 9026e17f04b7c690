//! The event of each command that changes keys, for keyspace notifications.
//!
//! A command says of each key that it was modified (`Ctx::modified`), and this table says what that is called. Commands whose
//! event depends on what they did name it themselves (`Ctx::modified_as`). What is the same for all is noted where it
//! happens: `new`, `expired` and `keymiss` in `keyspace::db`, `evicted` in `eviction`.

use std::sync::LazyLock;

use super::{Command, all, flag};
use crate::keyspace::Db;
use crate::notify::class;

/// What a modified key is called to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Named {
    /// This, and `del` behind it when the last element went, and the key with it.
    Changed(u32, &'static str),
    /// This, or `del` when the key is gone instead.
    Put(u32, &'static str),
    /// The command names its events where it makes them.
    Itself,
    /// Nothing that has a name.
    Nothing,
}

use Named::{Changed, Itself, Nothing, Put};
use class::{GENERIC, HASH, LIST, SET, STREAM, STRING, ZSET};

#[rustfmt::skip]
const NAMES: &[(&str, Named)] = &[
    ("del", Put(GENERIC, "del")),
    ("unlink", Put(GENERIC, "del")),
    ("delifeq", Put(GENERIC, "del")),
    ("delex", Put(GENERIC, "del")),
    ("expire", Put(GENERIC, "expire")),
    ("pexpire", Put(GENERIC, "expire")),
    ("expireat", Put(GENERIC, "expire")),
    ("pexpireat", Put(GENERIC, "expire")),
    ("persist", Changed(GENERIC, "persist")),
    ("rename", Itself),
    ("renamenx", Itself),
    ("copy", Changed(GENERIC, "copy_to")),
    ("move", Itself),
    ("restore", Put(GENERIC, "restore")),
    ("restore-asking", Put(GENERIC, "restore")),
    ("migrate", Itself),
    ("sort", Put(LIST, "sortstore")),
    ("set", Put(STRING, "set")),
    ("larder.item", Put(STRING, "set")),
    ("setnx", Put(STRING, "set")),
    ("setex", Put(STRING, "set")),
    ("psetex", Put(STRING, "set")),
    ("getset", Put(STRING, "set")),
    ("mset", Put(STRING, "set")),
    ("msetnx", Put(STRING, "set")),
    ("msetex", Put(STRING, "set")),
    ("getdel", Put(GENERIC, "del")),
    ("getex", Itself),
    ("append", Changed(STRING, "append")),
    ("setrange", Changed(STRING, "setrange")),
    ("incr", Changed(STRING, "incrby")),
    ("decr", Changed(STRING, "incrby")),
    ("incrby", Changed(STRING, "incrby")),
    ("decrby", Changed(STRING, "incrby")),
    ("increx", Put(STRING, "incrby")),
    ("incrbyfloat", Changed(STRING, "incrbyfloat")),
    ("setbit", Changed(STRING, "setbit")),
    ("bitfield", Changed(STRING, "setbit")),
    ("bitop", Put(STRING, "set")),
    ("pfadd", Changed(STRING, "pfadd")),
    ("pfmerge", Changed(STRING, "pfadd")),
    ("pfdebug", Nothing),
    ("hset", Changed(HASH, "hset")),
    ("hmset", Changed(HASH, "hset")),
    ("hsetnx", Changed(HASH, "hset")),
    ("hdel", Changed(HASH, "hdel")),
    ("hgetdel", Changed(HASH, "hdel")),
    ("hexpire", Itself),
    ("hpexpire", Itself),
    ("hexpireat", Itself),
    ("hpexpireat", Itself),
    ("hpersist", Itself),
    ("hgetex", Itself),
    ("hsetex", Itself),
    ("hincrby", Changed(HASH, "hincrby")),
    ("hincrbyfloat", Changed(HASH, "hincrbyfloat")),
    ("lpush", Changed(LIST, "lpush")),
    ("lpushx", Changed(LIST, "lpush")),
    ("rpush", Changed(LIST, "rpush")),
    ("rpushx", Changed(LIST, "rpush")),
    ("lpop", Changed(LIST, "lpop")),
    ("rpop", Changed(LIST, "rpop")),
    ("blpop", Changed(LIST, "lpop")),
    ("brpop", Changed(LIST, "rpop")),
    ("lmpop", Itself),
    ("blmpop", Itself),
    ("lmove", Itself),
    ("blmove", Itself),
    ("rpoplpush", Itself),
    ("brpoplpush", Itself),
    ("lset", Changed(LIST, "lset")),
    ("linsert", Changed(LIST, "linsert")),
    ("lrem", Changed(LIST, "lrem")),
    ("ltrim", Changed(LIST, "ltrim")),
    ("sadd", Changed(SET, "sadd")),
    ("srem", Changed(SET, "srem")),
    ("spop", Changed(SET, "spop")),
    ("smove", Itself),
    ("sinterstore", Put(SET, "sinterstore")),
    ("sunionstore", Put(SET, "sunionstore")),
    ("sdiffstore", Put(SET, "sdiffstore")),
    ("zadd", Changed(ZSET, "zadd")),
    ("zincrby", Changed(ZSET, "zincr")),
    ("zrem", Changed(ZSET, "zrem")),
    ("zremrangebyrank", Changed(ZSET, "zremrangebyrank")),
    ("zremrangebyscore", Changed(ZSET, "zremrangebyscore")),
    ("zremrangebylex", Changed(ZSET, "zremrangebylex")),
    ("zpopmin", Changed(ZSET, "zpopmin")),
    ("zpopmax", Changed(ZSET, "zpopmax")),
    ("bzpopmin", Changed(ZSET, "zpopmin")),
    ("bzpopmax", Changed(ZSET, "zpopmax")),
    ("zmpop", Itself),
    ("bzmpop", Itself),
    ("zunionstore", Put(ZSET, "zunionstore")),
    ("zinterstore", Put(ZSET, "zinterstore")),
    ("zdiffstore", Put(ZSET, "zdiffstore")),
    ("zrangestore", Put(ZSET, "zrangestore")),
    ("geoadd", Changed(ZSET, "zadd")),
    ("georadius", Put(ZSET, "georadiusstore")),
    ("georadiusbymember", Put(ZSET, "georadiusstore")),
    ("geosearchstore", Put(ZSET, "geosearchstore")),
    ("xadd", Changed(STREAM, "xadd")),
    ("xdel", Changed(STREAM, "xdel")),
    ("xdelex", Itself),
    ("xackdel", Itself),
    ("xtrim", Changed(STREAM, "xtrim")),
    ("xsetid", Changed(STREAM, "xsetid")),
    ("xgroup", Itself),
    ("xreadgroup", Itself),
    ("xclaim", Itself),
    ("xautoclaim", Itself),
    ("xack", Nothing),
];

/// Writing commands that look keys up as a reader does: what they do not find is told as missed.
const READERS: &[&str] = &[
    "set",
    "getset",
    "getdel",
    "getex",
    "copy",
    "sort",
    "bitop",
    "pfmerge",
    "sinterstore",
    "sunionstore",
    "sdiffstore",
    "zunionstore",
    "zinterstore",
    "zdiffstore",
    "zrangestore",
    "georadius",
    "georadiusbymember",
    "geosearchstore",
    "xreadgroup",
    "xack",
    "xclaim",
    "xautoclaim",
];

/// Readers whose lookups nobody is told of.
const QUIET: &[&str] = &["object", "memory", "debug"];

/// By the place of the command in the table: its event, and whether it tells of misses.
static EVENTS: LazyLock<Vec<(Named, bool)>> = LazyLock::new(|| {
    let name = |c: &Command| NAMES.iter().find(|(n, _)| *n == c.name).map_or(Nothing, |(_, n)| *n);
    let misses =
        |c: &Command| READERS.contains(&c.name) || c.is(flag::READONLY) && !QUIET.contains(&c.name);
    all().map(|c| (name(c), misses(c))).collect()
});

fn of(command: &Command) -> (Named, bool) {
    EVENTS.get(command.id()).copied().unwrap_or((Nothing, false))
}

/// Notes what a command did to a key.
#[cold]
pub(super) fn note(db: &mut Db<'_>, command: &Command, key: &[u8]) {
    match of(command).0 {
        Changed(class, name) => {
            db.note_event(class, name, key);
            note_emptied(db, key);
        }
        Put(class, name) if db.is_there(key) => db.note_event(class, name, key),
        Put(..) => db.note_event(GENERIC, "del", key),
        Itself | Nothing => {}
    }
}

/// A collection that has lost its last element has gone with it.
pub(super) fn note_emptied(db: &mut Db<'_>, key: &[u8]) {
    if db.env.events & GENERIC != 0 && !db.is_there(key) {
        db.note_event(GENERIC, "del", key);
    }
}

/// What this command does not find is told.
#[cold]
pub(crate) fn tells_misses(command: &Command) -> bool {
    of(command).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Keys;

    #[test]
    fn every_command_that_writes_to_keys_has_its_event() {
        for command in all().filter(|c| c.is(flag::WRITE) && !matches!(c.keys, Keys::None)) {
            assert!(NAMES.iter().any(|(n, _)| *n == command.name), "{}", command.name);
        }
        for (name, _) in NAMES {
            assert!(crate::command::find_canonical(name.as_bytes()).is_some(), "{name}");
        }
    }
}
