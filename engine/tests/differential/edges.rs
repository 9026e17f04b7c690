//! Every numeric argument at the ends of its range, and every command with too few or many words.

use crate::pair::{By, Pair};
use crate::script::parse;

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "4294967295",
    "4294967296",
    "9223372036854775806",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775807",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e309",
    "1.5",
    "-0",
    "nan",
    "inf",
    "-inf",
    "+1",
    "01",
    "0x10",
    "\"\"",
    "\" 1\"",
    "\"1 \"",
    "abc",
];

/// What the commands of `NUMERIC` work on.
const GROUND: &[&str] = &[
    "FLUSHALL",
    "SET s hello",
    "SET n 10",
    "RPUSH l a b c b a",
    "SADD set a b c",
    "HSET h a 1 b 2 c x",
    "ZADD z 1 a 2 b 3 c",
];

/// `N` is the number. What prints or stores at random is left to `RANDOM`.
const NUMERIC: &[&str] = &[
    "SETRANGE s N x",
    "GETRANGE s N -1",
    "GETRANGE s 0 N",
    "GETRANGE s N N",
    "INCRBY n N",
    "DECRBY n N",
    "INCRBYFLOAT n N",
    "SET s v EX N",
    "SET s v PX N",
    "SET s v EXAT N",
    "SET s v PXAT N",
    "SETEX s N v",
    "PSETEX s N v",
    "GETEX s EX N",
    "GETEX s PXAT N",
    "EXPIRE s N",
    "PEXPIRE s N",
    "EXPIREAT s N",
    "PEXPIREAT s N",
    "HINCRBY h a N",
    "HINCRBYFLOAT h a N",
    "LRANGE l N -1",
    "LRANGE l 0 N",
    "LINDEX l N",
    "LSET l N x",
    "LTRIM l N -1",
    "LTRIM l 0 N",
    "LREM l N a",
    "LPOP l N",
    "RPOP l N",
    "LPOS l a RANK N",
    "LPOS l a COUNT N",
    "LPOS l a MAXLEN N",
    "LMPOP N l LEFT",
    "LMPOP 1 l LEFT COUNT N",
    "SINTERCARD N set set",
    "SINTERCARD 1 set LIMIT N",
    "ZADD z N a",
    "ZADD z INCR N a",
    "ZINCRBY z N a",
    "ZRANGE z N -1",
    "ZRANGE z 0 N",
    "ZRANGE z N N BYSCORE",
    "ZRANGE z -inf +inf BYSCORE LIMIT N 1",
    "ZRANGE z -inf +inf BYSCORE LIMIT 0 N",
    "ZRANGEBYSCORE z N +inf",
    "ZRANGEBYSCORE z (N +inf WITHSCORES",
    "ZREVRANGEBYSCORE z N -inf LIMIT 0 N",
    "ZCOUNT z N +inf",
    "ZREMRANGEBYRANK z N -1",
    "ZREMRANGEBYSCORE z N +inf",
    "ZPOPMIN z N",
    "ZPOPMAX z N",
    "ZMPOP N z MIN",
    "ZMPOP 1 z MIN COUNT N",
    "ZUNION N z z",
    "ZUNION 1 z WEIGHTS N WITHSCORES",
    "ZINTERCARD 1 z LIMIT N",
    "ZUNIONSTORE d N z z",
    "ZINTERSTORE d 1 z WEIGHTS N",
    "ZINTER N z z",
    "ZDIFF N z z",
    "ZRANGESTORE d z N -1",
    "ZRANGEBYLEX z - + LIMIT N 1",
    "ZRANGEBYLEX z - + LIMIT 0 N",
    "SETBIT s N 1",
    "SETBIT s 1 N",
    "GETBIT s N",
    "BITCOUNT s N -1",
    "BITCOUNT s 0 N",
    "BITCOUNT s N N BIT",
    "BITPOS s N",
    "BITPOS s 1 N",
    "BITPOS s 0 0 N",
    "BITPOS s 1 N N BIT",
    "SUBSTR s N -1",
    "LCS s n IDX MINMATCHLEN N",
    "SORT l LIMIT N 1 ALPHA",
    "SORT l LIMIT 0 N ALPHA",
    "RESTORE r N x",
    "WAIT 0 N",
    "CLIENT UNBLOCK N",
    "BLMPOP N 1 l LEFT",
    "BLMPOP 1 N l LEFT",
    "BLMPOP 1 1 l LEFT COUNT N",
    "BLMOVE l l LEFT RIGHT N",
    "BRPOPLPUSH l l N",
    "BZMPOP N 1 z MIN",
    "BZPOPMAX z N",
    "GETEX s PX N",
    "GETEX s EXAT N",
    "SELECT N",
    "COPY s t DB N",
    "MOVE s N",
    "SWAPDB N 0",
    "BLPOP l N",
    "BZPOPMIN z N",
    "MEMORY USAGE none SAMPLES N",
    "SLOWLOG GET N",
    "CLIENT KILL ID N",
    "HELLO N",
];

/// The key that a row of `NUMERIC` may have changed is shown after it by these.
const SHOWN: &[&str] = &[
    "GET s",
    "PEXPIRETIME s",
    "GET n",
    "LRANGE l 0 -1",
    "HGETALL h",
    "ZRANGE z 0 -1 WITHSCORES",
    "SELECT 0",
];

const RANDOM: &[&str] = &[
    "SCAN N COUNT 1000",
    "SCAN 0 COUNT N",
    "HSCAN h N COUNT 1000",
    "HSCAN h 0 COUNT N",
    "SSCAN set 0 COUNT N",
    "ZSCAN z 0 COUNT N",
    "SRANDMEMBER set N",
    "SPOP set N",
    "HRANDFIELD h N",
    "ZRANDMEMBER z N",
];

pub(crate) fn numbers() {
    for protocol in [2, 3] {
        let Some(mut pair) = Pair::start(protocol) else { return };
        for template in NUMERIC {
            for number in NUMBERS {
                if template.starts_with("HELLO") && ["0", "1", "2"].contains(number) {
                    continue;
                }
                pair.prepare(GROUND);
                let line = fill_in(template, number);
                let clock = ["EX ", "PX ", "SETEX", "EXPIRE "].iter().any(|t| template.contains(t));
                pair.run(1, &line, &parse(&line), By::Default);
                SHOWN.iter().for_each(|shown| pair.send(1, &parse(shown)));
                for shown in SHOWN {
                    // A relative time becomes an absolute one that differs by the clocks.
                    let by =
                        if clock && *shown == "PEXPIRETIME s" { By::Shape } else { By::Default };
                    let name = shown.split(' ').next().unwrap_or_default().as_bytes();
                    pair.compare(1, &format!("{shown}    after {line}"), name, by);
                }
            }
        }
        for template in RANDOM {
            // Counts below zero ask for that many: here redis-server would try.
            let huge =
                |number: &str| number.starts_with("-21474") || number == "-9223372036854775807";
            for number in NUMBERS.iter().filter(|number| !huge(number)) {
                pair.prepare(GROUND);
                let line = fill_in(template, number);
                pair.run(1, &line, &parse(&line), By::Shape);
            }
        }
        pair.finish();
    }
}

fn fill_in(template: &str, number: &str) -> String {
    let words: Vec<String> = template
        .split(' ')
        .map(|word| match word {
            "N" => number.to_owned(),
            "(N" => format!("({}", number.trim_matches('"')),
            other => other.to_owned(),
        })
        .collect();
    words.join(" ")
}

/// Commands called with 0 to 5 arguments that mean nothing, on keys that do not exist.
const NAMES: &[&str] = &[
    "GET",
    "SET",
    "SETNX",
    "SETEX",
    "PSETEX",
    "GETSET",
    "GETDEL",
    "GETEX",
    "APPEND",
    "STRLEN",
    "GETRANGE",
    "SETRANGE",
    "MGET",
    "MSET",
    "MSETNX",
    "INCR",
    "DECR",
    "INCRBY",
    "DECRBY",
    "INCRBYFLOAT",
    "SUBSTR",
    "LCS",
    "DEL",
    "UNLINK",
    "EXISTS",
    "TYPE",
    "TOUCH",
    "RENAME",
    "RENAMENX",
    "COPY",
    "MOVE",
    "EXPIRE",
    "PEXPIRE",
    "EXPIREAT",
    "PEXPIREAT",
    "TTL",
    "PTTL",
    "EXPIRETIME",
    "PEXPIRETIME",
    "PERSIST",
    "KEYS",
    "SCAN",
    "RANDOMKEY",
    "DBSIZE",
    "FLUSHDB",
    "SWAPDB",
    "SELECT",
    "OBJECT",
    "HSET",
    "HGET",
    "HMSET",
    "HMGET",
    "HGETALL",
    "HDEL",
    "HLEN",
    "HKEYS",
    "HVALS",
    "HEXISTS",
    "HSTRLEN",
    "HSETNX",
    "HINCRBY",
    "HINCRBYFLOAT",
    "HRANDFIELD",
    "HSCAN",
    "LPUSH",
    "RPUSH",
    "LPUSHX",
    "RPUSHX",
    "LPOP",
    "RPOP",
    "LLEN",
    "LRANGE",
    "LINDEX",
    "LSET",
    "LREM",
    "LTRIM",
    "LPOS",
    "LINSERT",
    "RPOPLPUSH",
    "LMOVE",
    "LMPOP",
    "SADD",
    "SREM",
    "SCARD",
    "SMEMBERS",
    "SISMEMBER",
    "SMISMEMBER",
    "SPOP",
    "SRANDMEMBER",
    "SMOVE",
    "SINTER",
    "SUNION",
    "SDIFF",
    "SINTERSTORE",
    "SUNIONSTORE",
    "SDIFFSTORE",
    "SINTERCARD",
    "SSCAN",
    "ZADD",
    "ZINCRBY",
    "ZREM",
    "ZSCORE",
    "ZMSCORE",
    "ZCARD",
    "ZRANGE",
    "ZREVRANGE",
    "ZRANGEBYSCORE",
    "ZREVRANGEBYSCORE",
    "ZRANGEBYLEX",
    "ZREVRANGEBYLEX",
    "ZCOUNT",
    "ZLEXCOUNT",
    "ZRANK",
    "ZREVRANK",
    "ZREMRANGEBYRANK",
    "ZREMRANGEBYSCORE",
    "ZREMRANGEBYLEX",
    "ZPOPMIN",
    "ZPOPMAX",
    "ZMPOP",
    "ZUNION",
    "ZINTER",
    "ZDIFF",
    "ZUNIONSTORE",
    "ZINTERSTORE",
    "ZDIFFSTORE",
    "ZINTERCARD",
    "ZRANGESTORE",
    "ZRANDMEMBER",
    "ZSCAN",
    "MULTI",
    "EXEC",
    "DISCARD",
    "WATCH",
    "UNWATCH",
    "PUBLISH",
    "ECHO",
    "PING",
    "WAIT",
    "ROLE",
    "SLOWLOG",
    "PUBSUB",
    "CONFIG",
    "CLIENT",
    "MEMORY",
    "AUTH",
    "NOSUCHCOMMAND",
    "BLPOP",
    "BRPOP",
    "BLMOVE",
    "BRPOPLPUSH",
    "BLMPOP",
    "BZPOPMIN",
    "BZPOPMAX",
    "BZMPOP",
    "RESTORE",
    "DUMP",
];

pub(crate) fn arities() {
    for protocol in [2, 3] {
        let Some(mut pair) = Pair::start(protocol) else { return };
        for name in NAMES {
            for count in 0..=5 {
                let words = [vec![*name], vec!["a"; count]].concat();
                let line = words.join(" ");
                pair.run(1, &line, &parse(&line), By::Default);
                // A transaction or a key that a call has left behind must not colour the next.
                pair.prepare(&["DISCARD", "FLUSHALL"]);
            }
        }
        pair.finish();
    }
}
