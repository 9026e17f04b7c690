//! What a command does to each of its keys, as users' patterns (`%R~`, `%W~`) allow it or not.
//!
//! The needs are those of Redis's key specifications: `access` asks for reading; `insert`, `update` and `delete` for
//! writing. Whether a key is there or how long it is asks for neither: any pattern that names the key will do.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use super::{Command, Keys, all, categories, flag};

pub const READ: u8 = 1;
pub const WRITE: u8 = 2;
const BOTH: u8 = READ | WRITE;

/// Commands that tell of a key no more than that it is there, what it is and how large.
const ASKING_LITTLE: &[&str] = &[
    "exists",
    "hexists",
    "hlen",
    "hstrlen",
    "llen",
    "memory",
    "object",
    "scard",
    "sismember",
    "strlen",
    "touch",
    "type",
    "watch",
    "xlen",
    "zcard",
];

/// Writes that also give out or use what was there. Others only write.
const READING_WRITES: &[&str] = &[
    "blmpop",
    "blpop",
    "brpop",
    "bzmpop",
    "bzpopmax",
    "bzpopmin",
    "decr",
    "decrby",
    "getdel",
    "getex",
    "getset",
    "hgetdel",
    "hgetex",
    "hincrby",
    "hincrbyfloat",
    "incr",
    "incrby",
    "incrbyfloat",
    "increx",
    "lmpop",
    "lpop",
    "migrate",
    "move",
    "rpop",
    "setbit",
    "spop",
    "zincrby",
    "zmpop",
    "zpopmax",
    "zpopmin",
];

/// Flagged as writes or as nothing, but of their keys they only read.
const READS: &[&str] = &["eval_ro", "evalsha_ro", "fcall_ro", "pfdebug", "xreadgroup"];

/// The first key, and the others.
const UNEQUAL: &[(&str, u8, u8)] = &[
    ("bitop", WRITE, READ),
    ("geosearchstore", WRITE, READ),
    ("sdiffstore", WRITE, READ),
    ("sinterstore", WRITE, READ),
    ("sunionstore", WRITE, READ),
    ("zdiffstore", WRITE, READ),
    ("zinterstore", WRITE, READ),
    ("zrangestore", WRITE, READ),
    ("zunionstore", WRITE, READ),
    ("pfmerge", BOTH, READ),
    ("copy", READ, WRITE),
    ("georadius", READ, WRITE),
    ("georadiusbymember", READ, WRITE),
    ("sort", READ, WRITE),
    ("blmove", BOTH, WRITE),
    ("brpoplpush", BOTH, WRITE),
    ("lmove", BOTH, WRITE),
    ("rename", BOTH, WRITE),
    ("renamenx", BOTH, WRITE),
    ("rpoplpush", BOTH, WRITE),
    ("smove", BOTH, WRITE),
];

fn of_row(command: &Command) -> (u8, u8) {
    let name = &command.name;
    if let Some((_, first, others)) = UNEQUAL.iter().find(|(unequal, ..)| unequal == name) {
        return (*first, *others);
    }
    let need = if ASKING_LITTLE.contains(name) {
        0
    } else if READS.contains(name) || command.is(flag::READONLY) {
        READ
    } else if command.is(flag::WRITE) && !READING_WRITES.contains(name) {
        WRITE
    } else {
        BOTH
    };
    (need, need)
}

/// What a request does to the `nth` of its keys, in the order of `Command::key_positions`.
pub fn need(command: &Command, args: &[&[u8]], nth: usize) -> u8 {
    static NEEDS: OnceLock<Vec<(u8, u8)>> = OnceLock::new();
    let has = |word: &str| args.iter().skip(2).any(|a| a.eq_ignore_ascii_case(word.as_bytes()));
    // A comparison tells of the value as much as reading it does.
    let tells = |word: &&[u8]| {
        let told = [b"get".as_slice(), b"ifeq", b"ifne", b"ifdeq", b"ifdne"];
        told.iter().any(|told| word.eq_ignore_ascii_case(told))
    };
    match command.name {
        "set" if args.iter().skip(3).any(tells) => BOTH,
        "delex" if args.len() > 2 => BOTH,
        "bitfield" => {
            if has("set") || has("incrby") {
                BOTH
            } else {
                READ
            }
        }
        _ => {
            let needs = NEEDS.get_or_init(|| all().map(of_row).collect());
            let (first, others) = needs.get(command.id()).copied().unwrap_or((BOTH, BOTH));
            if nth == 0 { first } else { others }
        }
    }
}

/// Where the channels stand that a request names: begin, end, and whether they are patterns.
pub fn channels(command: &Command, args: &[&[u8]]) -> Option<(std::ops::Range<usize>, bool)> {
    match command.name {
        "publish" | "spublish" => Some((1..args.len().min(2), false)),
        "subscribe" | "ssubscribe" => Some((1..args.len(), false)),
        "psubscribe" => Some((1..args.len(), true)),
        _ => None,
    }
}

/// The argument that names a database which is not allowed: that which the request runs in, or one that it names.
pub fn foreign_database(
    command: &Command,
    args: &[&[u8]],
    db: u16,
    allowed: &BTreeSet<i32>,
) -> Option<usize> {
    let is_foreign = |at: &usize| {
        // What is no number is refused by the command itself.
        let number = args.get(*at).and_then(|text| crate::number::parse_i64(text));
        number.is_some_and(|n| i32::try_from(n).is_ok_and(|n| !allowed.contains(&n)))
    };
    let touches = categories::KEYSPACE | categories::READ | categories::WRITE;
    match command.name {
        // It may lead to one that is allowed.
        "select" => return Some(1).filter(is_foreign),
        "swapdb" => return [1, 2].into_iter().find(is_foreign),
        // Every database is emptied.
        "flushall" => return Some(0),
        _ => {}
    }
    let sub = categories::sub_of(command, args);
    let bits = sub.map_or_else(|| categories::of(command), |sub| categories::by_id(sub.id));
    let has_keys = match sub {
        Some(_) => !command.key_positions(args).is_empty(),
        None => !matches!(command.keys, Keys::None) && !command.names_no_keys(),
    };
    if !allowed.contains(&i32::from(db)) && (has_keys || bits & touches != 0) {
        return Some(0);
    }
    match command.name {
        "move" => Some(2).filter(is_foreign),
        "copy" => {
            let is_db = |at: &usize| args[*at].eq_ignore_ascii_case(b"db");
            (3..args.len()).find(is_db).map(|at| at + 1).filter(is_foreign)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    #[test]
    fn needs_follow_what_is_done_to_each_key() {
        for (line, needs) in [
            ("get k", &[READ][..]),
            ("exists k l", &[0, 0]),
            ("set k v", &[WRITE]),
            ("set k v nx get", &[BOTH]),
            ("set k get", &[WRITE]),
            ("set k v ifeq w", &[BOTH]),
            ("set k v ifdne 0123456789abcdef", &[BOTH]),
            ("delex k", &[WRITE]),
            ("delex k ifeq v", &[BOTH]),
            ("increx k", &[BOTH]),
            ("hgetex h fields 1 f", &[BOTH]),
            ("hsetex h fields 1 f v", &[WRITE]),
            ("httl h fields 1 f", &[READ]),
            ("clusterscan 0", &[]),
            ("msetex 2 a 1 b 2 ex 10", &[WRITE, WRITE]),
            ("msetex 3 a 1 b 2", &[]),
            ("incr k", &[BOTH]),
            ("mset a 1 b 2", &[WRITE, WRITE]),
            ("bitfield k get u8 0", &[READ]),
            ("bitfield k overflow fail incrby u8 0 1", &[BOTH]),
            ("bitop and d a b", &[WRITE, READ, READ]),
            ("zunionstore d 2 a b", &[WRITE, READ, READ]),
            ("sort l by w_* store d", &[READ, WRITE]),
            ("sort_ro l", &[READ]),
            ("georadius k 1 1 1 km store d", &[READ, WRITE]),
            ("copy a b", &[READ, WRITE]),
            ("rename a b", &[BOTH, WRITE]),
            ("xreadgroup group g c streams s >", &[READ]),
            ("del a b", &[WRITE, WRITE]),
        ] {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let command = find(args[0]).unwrap();
            let keys = command.key_positions(&args).len();
            let got: Vec<u8> = (0..keys).map(|nth| need(command, &args, nth)).collect();
            assert_eq!(got, needs, "{line}");
        }
    }

    #[test]
    fn a_command_that_only_reads_never_needs_to_write() {
        for command in all().filter(|c| c.is(flag::READONLY)) {
            let (first, others) = of_row(command);
            assert_eq!((first | others) & WRITE, 0, "{}", command.name);
        }
    }
}
