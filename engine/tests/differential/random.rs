//! Seeded random commands of one type over few keys, so that they meet each other's results.

use crate::pair::{By, Command, Pair};

const ROUNDS: u64 = 6;
const COMMANDS: usize = 1500;

/// Runs the same seeds over RESP2 and RESP3; `SEED=` runs that one alone.
pub(crate) fn run(what: &str, generate: fn(&mut Dice) -> String) {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..ROUNDS).collect(),
    };
    for protocol in [2, 3] {
        let Some(mut pair) = Pair::start(protocol) else { return };
        for &seed in &seeds {
            let mut dice = Dice::new(seed);
            pair.prepare(&["FLUSHALL"]);
            for at in 0..COMMANDS {
                let line = generate(&mut dice);
                let command = words(&line);
                let label = format!("{what}, SEED={seed}, command {at}: {line}");
                // From a difference on, the data sets may differ too: begin again.
                if !pair.run(1, &label, &command, By::Default) {
                    pair.prepare(&["FLUSHALL"]);
                }
            }
        }
        pair.finish();
    }
}

fn words(line: &str) -> Command {
    crate::script::parse(line)
}

/// A seeded source of choices.
pub(crate) struct Dice(u64, usize);

impl Dice {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15), 0)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn key(&mut self) -> &'static str {
        self.pick(&["k1", "k2", "k3", "k4"])
    }

    fn member(&mut self) -> String {
        match self.below(4) {
            0 => self.below(12).to_string(),
            1 => format!("m{}", self.below(40)),
            2 => format!("x{{{}}}", 60 + self.below(10)),
            _ => self.pick(&["a", "b", "c", "\"\"", "\"\\x00\\xff\"", "-5", "1.5", "007"]).into(),
        }
    }

    fn members(&mut self) -> String {
        let count = 1 + self.below(6);
        (0..count).map(|_| self.member()).collect::<Vec<_>>().join(" ")
    }

    fn index(&mut self) -> i64 {
        self.below(24) as i64 - 8
    }

    /// Many different numbers, some of them long.
    fn numbers(&mut self) -> String {
        let count = self.below(60);
        (0..=count)
            .map(|_| format!("{}", self.below(30_000) * 77_777))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// IDs of streams, mostly rising with time, so that most of them can be added.
    fn id(&mut self) -> String {
        self.1 += 1;
        let recent = self.1 / 6;
        match self.below(8) {
            0 => format!("{}-*", recent),
            1 => self.below(recent + 2).to_string(),
            2 => format!("{}-{}", self.below(recent + 2), self.below(3)),
            3 => format!("{}", recent),
            _ => format!("{recent}-{}", 1 + self.below(4)),
        }
    }

    fn score(&mut self) -> String {
        match self.below(3) {
            0 => self.index().to_string(),
            1 => format!("{}.{}", self.index(), self.below(1000)),
            _ => self.pick(&["inf", "-inf", "1e10", "0.1", "-0", "3.0", "1e-5"]).into(),
        }
    }
}

/// Replaces the capital placeholders of a template: K key, M member, MS members, I index, S score, C count,
/// T stream ID, F field, G group, P consumer,
/// NS numbers, X and Y degrees, D distance.
fn fill(dice: &mut Dice, template: &str) -> String {
    let words: Vec<String> = template
        .split(' ')
        .map(|word| match word {
            "K" => dice.key().to_owned(),
            "M" => dice.member(),
            "MS" => dice.members(),
            "I" => dice.index().to_string(),
            "C" => dice.below(8).to_string(),
            "S" => dice.score(),
            "T" => dice.id(),
            "NS" => dice.numbers(),
            "X" => format!("{}.{}", dice.below(360) as i64 - 180, dice.below(1000)),
            "Y" => format!("{}.{}", dice.below(170) as i64 - 85, dice.below(1000)),
            "D" => (dice.below(100) * dice.below(100)).to_string(),
            "(T" => format!("({}", dice.id()),
            "F" => dice.pick(&["a", "b", "long-field", "7"]).to_owned(),
            "G" => dice.pick(&["g1", "g2"]).to_owned(),
            "P" => dice.pick(&["c1", "c2", "other"]).to_owned(),
            "(S" => format!("({}", dice.score()),
            "[M" => format!("[{}", dice.below(9)),
            other => other.to_owned(),
        })
        .collect();
    words.join(" ")
}

fn generate(dice: &mut Dice, templates: &[&str]) -> String {
    let template = dice.pick(templates);
    fill(dice, template)
}

const GENERIC: &[&str] = &[
    "DEL K",
    "EXISTS K K",
    "TYPE K",
    "RENAME K K",
    "RENAMENX K K",
    "COPY K K",
    "COPY K K REPLACE",
    "EXPIRE K 1000",
    "TTL K",
    "PERSIST K",
    "DBSIZE",
    "KEYS *",
    "UNLINK K",
];

const STRINGS: &[&str] = &[
    "SET K M",
    "SET K M NX",
    "SET K M XX GET",
    "SET K M EX 1000",
    "SET K M KEEPTTL",
    "GET K",
    "GETDEL K",
    "GETSET K M",
    "APPEND K M",
    "STRLEN K",
    "GETRANGE K I I",
    "SETRANGE K C M",
    "INCR K",
    "DECR K",
    "INCRBY K I",
    "INCRBYFLOAT K S",
    "MSET K M K M",
    "MGET K K K",
    "MSETNX K M K M",
    "GETEX K PERSIST",
    "SETNX K M",
    "LCS K K",
    "LCS K K LEN",
    "BITFIELD K GET u5 C GET i9 #C SET u3 C C INCRBY i5 #C I",
    "BITFIELD K OVERFLOW SAT INCRBY i6 C I INCRBY u6 #C I",
];

const HASHES: &[&str] = &[
    "HSET K M M",
    "HSET K M M M M M M",
    "HGET K M",
    "HMGET K MS",
    "HDEL K MS",
    "HLEN K",
    "HGETALL K",
    "HKEYS K",
    "HVALS K",
    "HEXISTS K M",
    "HSTRLEN K M",
    "HSETNX K M M",
    "HINCRBY K M I",
    "HINCRBYFLOAT K M S",
    "HSET K M I",
    "HSET K M I",
];

const LISTS: &[&str] = &[
    "LPUSH K MS",
    "RPUSH K MS",
    "LPUSHX K M",
    "RPUSHX K MS",
    "LPOP K",
    "RPOP K",
    "LPOP K C",
    "RPOP K C",
    "LLEN K",
    "LRANGE K I I",
    "LRANGE K 0 -1",
    "LINDEX K I",
    "LSET K I M",
    "LREM K I M",
    "LTRIM K I I",
    "LPOS K M",
    "LPOS K M COUNT C",
    "LPOS K M RANK I",
    "LINSERT K BEFORE M M",
    "LINSERT K AFTER M M",
    "RPOPLPUSH K K",
    "LMOVE K K LEFT RIGHT",
    "LMOVE K K RIGHT RIGHT",
    "LMPOP 2 K K LEFT COUNT C",
    "RPUSH K MS",
    "LPUSH K MS",
];

const SETS: &[&str] = &[
    "SADD K MS",
    "SADD K MS",
    "SADD K I I I",
    "SREM K MS",
    "SCARD K",
    "SMEMBERS K",
    "SISMEMBER K M",
    "SMISMEMBER K MS",
    "SMOVE K K M",
    "SINTER K K",
    "SUNION K K",
    "SDIFF K K K",
    "SINTERSTORE K K K",
    "SUNIONSTORE K K K",
    "SDIFFSTORE K K K",
    "SINTERCARD 2 K K",
    "SINTERCARD 2 K K LIMIT C",
    "SPOP K 1000",
];

const ZSETS: &[&str] = &[
    "ZADD K S M",
    "ZADD K S M S M S M",
    "ZADD K NX S M",
    "ZADD K XX CH S M",
    "ZADD K GT CH S M",
    "ZADD K LT S M",
    "ZADD K INCR S M",
    "ZINCRBY K S M",
    "ZREM K MS",
    "ZSCORE K M",
    "ZMSCORE K MS",
    "ZCARD K",
    "ZRANGE K I I",
    "ZRANGE K I I REV WITHSCORES",
    "ZRANGE K S S BYSCORE",
    "ZRANGE K (S S BYSCORE LIMIT C C",
    "ZRANGE K S S BYSCORE REV",
    "ZADD lex 0 M 0 M",
    "ZREM lex M",
    "ZRANGE lex [M [M BYLEX",
    "ZRANGEBYSCORE K S +inf WITHSCORES",
    "ZCOUNT K S (S",
    "ZRANK K M",
    "ZREVRANK K M",
    "ZPOPMIN K",
    "ZPOPMAX K C",
    "ZREMRANGEBYRANK K I I",
    "ZREMRANGEBYSCORE K S S",
    "ZUNION 2 K K WITHSCORES",
    "ZINTER 2 K K WEIGHTS S 2 WITHSCORES",
    "ZDIFF 2 K K",
    "ZUNIONSTORE K 2 K K AGGREGATE MAX",
    "ZINTERSTORE K 2 K K",
    "ZDIFFSTORE K 2 K K",
    "ZRANGESTORE K K I I",
    "ZINTERCARD 2 K K",
    "ZLEXCOUNT lex - [M",
    "ZREMRANGEBYLEX lex [M (5",
    "ZMPOP 2 K K MIN COUNT C",
    "ZRANGE K 0 -1 WITHSCORES",
];

const STREAMS: &[&str] = &[
    "XADD K T F M",
    "XADD K T F M F M",
    "XADD K T a M b M",
    "XADD K T a M b M",
    "XADD K NOMKSTREAM T F M",
    "XADD K MAXLEN 5 T F M",
    "XADD K MAXLEN ~ C T F M",
    "XADD K MINID T T F M",
    "XADD K MINID ~ T LIMIT C T F M",
    "XLEN K",
    "XRANGE K - +",
    "XRANGE K T T",
    "XRANGE K (T (T COUNT C",
    "XREVRANGE K + -",
    "XREVRANGE K T T COUNT C",
    "XREVRANGE K (T -",
    "XDEL K T T T",
    "XDEL K T",
    "XTRIM K MAXLEN C",
    "XTRIM K MAXLEN ~ C LIMIT C",
    "XTRIM K MINID T",
    "XTRIM K MINID ~ T",
    "XREAD COUNT C STREAMS K K T T",
    "XREAD STREAMS K $",
    "XSETID K T",
    "XSETID K T ENTRIESADDED C MAXDELETEDID T",
    "XGROUP CREATE K G T",
    "XGROUP CREATE K G $ MKSTREAM",
    "XGROUP CREATE K G 0 ENTRIESREAD C",
    "XGROUP SETID K G T",
    "XGROUP SETID K G $ ENTRIESREAD C",
    "XGROUP DESTROY K G",
    "XGROUP DELCONSUMER K G P",
    "XREADGROUP GROUP G P COUNT C STREAMS K >",
    "XREADGROUP GROUP G P STREAMS K >",
    "XREADGROUP GROUP G P NOACK STREAMS K >",
    "XREADGROUP GROUP G P COUNT C STREAMS K T",
    "XREADGROUP GROUP G P STREAMS K 0",
    "XREADGROUP GROUP G P STREAMS K K > 0",
    "XACK K G T T",
    "XPENDING K G",
    "XPENDING K G - + 10",
    "XPENDING K G (T + C P",
    "XCLAIM K G P 0 T T",
    "XCLAIM K G P 0 T JUSTID",
    "XCLAIM K G P 0 T T FORCE RETRYCOUNT C LASTID T",
    "XAUTOCLAIM K G P 0 T",
    "XAUTOCLAIM K G P 0 0 COUNT 3 JUSTID",
    "XINFO STREAM K",
    "XINFO STREAM K FULL",
    "XINFO STREAM K FULL COUNT 2",
    "XINFO GROUPS none",
];

const HYPERLOGLOGS: &[&str] = &[
    "PFADD K NS",
    "PFADD K NS",
    "PFADD K NS",
    "PFADD K",
    "PFCOUNT K",
    "PFCOUNT K K K",
    "PFMERGE K K",
    "PFMERGE K K K",
    "GET K",
    "PFDEBUG ENCODING K",
    "PFDEBUG DECODE K",
];

const PLACES: &[&str] = &[
    "GEOADD K X Y M",
    "GEOADD K X Y M X Y M X Y M",
    "GEOADD K X Y M X Y M X Y M",
    "GEOADD K NX CH X Y M",
    "GEOADD K XX CH X Y M",
    "GEOPOS K M M",
    "GEOHASH K M M",
    "GEODIST K M M km",
    "ZRANGE K 0 -1 WITHSCORES",
    "GEOSEARCH K FROMLONLAT X Y BYRADIUS D km ASC WITHDIST WITHCOORD WITHHASH",
    "GEOSEARCH K FROMLONLAT X Y BYBOX D D km ASC WITHDIST",
    "GEOSEARCH K FROMLONLAT X Y BYRADIUS D km",
    "GEOSEARCH K FROMMEMBER M BYRADIUS D mi DESC COUNT 3",
    "GEORADIUS K X Y D km COUNT 2 WITHDIST",
    "GEORADIUS K X Y D km COUNT 2 ANY",
    "GEORADIUS K X Y D km STORE K",
    "GEORADIUSBYMEMBER K M D ft STOREDIST K",
    "GEORADIUSBYMEMBER_RO K M D km ASC",
    "GEOSEARCHSTORE K K FROMLONLAT X Y BYRADIUS D km",
    "GEOSEARCHSTORE K K FROMLONLAT X Y BYBOX D D km STOREDIST",
];

fn one_type(dice: &mut Dice, own: &[&str]) -> String {
    if dice.below(12) == 0 { generate(dice, GENERIC) } else { generate(dice, own) }
}

pub(crate) fn strings(dice: &mut Dice) -> String {
    one_type(dice, STRINGS)
}

pub(crate) fn hashes(dice: &mut Dice) -> String {
    one_type(dice, HASHES)
}

pub(crate) fn lists(dice: &mut Dice) -> String {
    one_type(dice, LISTS)
}

pub(crate) fn sets(dice: &mut Dice) -> String {
    one_type(dice, SETS)
}

pub(crate) fn zsets(dice: &mut Dice) -> String {
    one_type(dice, ZSETS)
}

pub(crate) fn hyperloglogs(dice: &mut Dice) -> String {
    one_type(dice, HYPERLOGLOGS)
}

pub(crate) fn places(dice: &mut Dice) -> String {
    one_type(dice, PLACES)
}

pub(crate) fn streams(dice: &mut Dice) -> String {
    one_type(dice, STREAMS)
}

/// All types over the same keys: wrong types, overwritten keys, transactions left open.
pub(crate) fn mixture(dice: &mut Dice) -> String {
    match dice.below(8) {
        0 => generate(dice, STRINGS),
        1 => generate(dice, HASHES),
        2 => generate(dice, LISTS),
        3 => generate(dice, SETS),
        4 => generate(dice, ZSETS),
        5 => generate(dice, &["MULTI", "EXEC", "DISCARD", "WATCH K", "UNWATCH"]),
        _ => generate(dice, GENERIC),
    }
}
