//! Random requests from the whole table, with the arguments that break things.

use engine::command::{Command, all, flag};

use crate::support::{Server, dice::Dice, value::text};

/// Keys of every type, and one that is not there.
const KEYS: &[&[u8]] =
    &[b"s", b"n", b"l", b"big", b"set", b"ints", b"h", b"z", b"none", b"{t}a", b"{t}b"];

const NUMBERS: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1",
    b"2",
    b"3",
    b"-3",
    b"100",
    b"2147483647",
    b"2147483648",
    b"-2147483648",
    b"4294967295",
    b"4294967296",
    b"4611686018427387904",
    b"9223372036854775807",
    b"-9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"1.5",
    b"1e308",
    b"-1e308",
    b"inf",
    b"-inf",
    b"nan",
    b"(1",
    b"(inf",
    b"[a",
    b"(b",
    b"-",
    b"+",
];

const WORDS: &[&[u8]] = &[
    b"EX",
    b"PX",
    b"EXAT",
    b"PXAT",
    b"KEEPTTL",
    b"PERSIST",
    b"NX",
    b"XX",
    b"GT",
    b"LT",
    b"CH",
    b"INCR",
    b"GET",
    b"BY",
    b"ASC",
    b"DESC",
    b"ALPHA",
    b"LIMIT",
    b"STORE",
    b"COUNT",
    b"MATCH",
    b"TYPE",
    b"RANK",
    b"MAXLEN",
    b"LEFT",
    b"RIGHT",
    b"MIN",
    b"MAX",
    b"BEFORE",
    b"AFTER",
    b"BYSCORE",
    b"BYLEX",
    b"REV",
    b"WITHSCORES",
    b"WITHSCORE",
    b"WITHVALUES",
    b"NOVALUES",
    b"WEIGHTS",
    b"AGGREGATE",
    b"SUM",
    b"REPLACE",
    b"DB",
    b"ABSTTL",
    b"IDLETIME",
    b"FREQ",
    b"AND",
    b"OR",
    b"XOR",
    b"NOT",
    b"BIT",
    b"BYTE",
    b"LEN",
    b"IDX",
    b"MINMATCHLEN",
    b"WITHMATCHLEN",
    b"SAMPLES",
    b"USAGE",
    b"ENCODING",
    b"OBJECT",
    b"LIST",
    b"INFO",
    b"GETKEYS",
    b"DOCS",
    b"FILTERBY",
    b"PATTERN",
    b"CHANNELS",
    b"NUMSUB",
    b"SETNAME",
    b"AUTH",
    b"ID",
    b"SLOTS",
    b"SHARDS",
    b"KEYSLOT",
    b"GETKEYSINSLOT",
    b"COUNTKEYSINSLOT",
    b"u8",
    b"i64",
    b"#0",
    b"SET",
    b"INCRBY",
    b"OVERFLOW",
    b"WRAP",
    b"SAT",
    b"FAIL",
    b"string",
    b"ASYNC",
    b"SYNC",
];

const BYTES: &[&[u8]] = &[
    b"",
    b"\0",
    b"\r\n",
    b"\xff\xfe\xfd",
    b"a",
    b"b",
    b"f",
    b"*",
    b"?",
    b"[",
    b"[^",
    b"[a-",
    b"\\",
    b"h*->f",
    b"*->",
    b"->*",
    b"{",
    b"{}",
    b"{t}",
    b" 1",
    b"1 ",
];

const GROUND: &[&str] = &[
    "FLUSHALL",
    "SET s hello",
    "SET n 10",
    "SET {t}a 5",
    "RPUSH l a b c 1 2 3",
    "SADD set a b c",
    "SADD ints 1 2 3 -9223372036854775808",
    "HSET h a 1 b 2 f x",
    "ZADD z 1 a 2 b -inf c inf d",
    "ZADD {t}b 0 a 0 b 0 c",
];

/// Commands that end the server, the connection or the role, or wait for another one by design.
const LEFT_OUT: &[&str] = &[
    "shutdown",
    "replicaof",
    "slaveof",
    "psync",
    "sync",
    "quit",
    "reset",
    "save",
    "bgsave",
    "bgrewriteaof",
    "debug",
    "multi",
];

fn random_request(dice: &mut Dice, commands: &[&'static Command]) -> Vec<Vec<u8>> {
    let command = commands[dice.below(commands.len())];
    let least = command.arity.unsigned_abs() as usize;
    let count = if command.arity > 0 && dice.below(8) > 0 { least } else { least + dice.below(5) };
    let mut request = vec![command.name.as_bytes().to_vec()];
    for at in 1..count.max(1) {
        // A key where a key is likely, so that most requests come past the first check.
        let word = match dice.below(10) {
            0..=3 => dice.pick(if at == 1 { KEYS } else { NUMBERS }),
            4 | 5 => dice.pick(KEYS),
            6 => dice.pick(NUMBERS),
            7 | 8 => dice.pick(WORDS),
            _ => dice.pick(BYTES),
        };
        request.push(word.to_vec());
    }
    if command.name == "client" && request.get(1).is_some_and(|w| !w.eq_ignore_ascii_case(b"list"))
    {
        // Its subcommands close, pause and silence connections: CLIENT has tests of its own.
        request[1] = b"INFO".to_vec();
    }
    request
}

/// What ends an answer: the reply of the PING sent behind the request.
const MARKER: &[u8] = b"$8\r\nmarker-0\r\n";

/// A picker of random elements is told an error and is closed when it asks for so many.
fn wants_more_than_a_reply_holds(request: &[Vec<u8>]) -> bool {
    let name = request[0].to_ascii_lowercase();
    let picks = [&b"srandmember"[..], b"hrandfield", b"zrandmember"].contains(&name.as_slice());
    let count = request.get(2).and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
    picks && count.is_some_and(|count: i64| count < -1_000_000)
}

#[test]
fn no_request_brings_the_server_down() {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=4).collect(),
    };
    let commands: Vec<&'static Command> = all()
        .filter(|c| !LEFT_OUT.contains(&c.name) && !c.is(flag::BLOCKING) && c.name != "wait")
        .collect();
    for seed in seeds {
        let mut server = Server::larder(&["--io-threads", "2", "--proto-max-bulk-len", "1mb"]);
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut client = server.connect();
        let mut last = Vec::new();
        for at in 0..6000 {
            if at % 200 == 0 {
                client = server.connect();
                client.words("HELLO 3");
                for line in GROUND {
                    client.words(line);
                }
            }
            let request = random_request(&mut dice, &commands);
            let shown: Vec<String> = request.iter().map(|a| a.escape_ascii().to_string()).collect();
            last.push(shown.join(" "));
            let in_multi = dice.below(5) == 0;
            if in_multi {
                client.send(&["MULTI"]);
            }
            client.send(&request);
            if in_multi {
                client.send(&["EXEC"]);
            }
            client.send(&["PING", "marker-0"]);
            let answered = client.read_until(MARKER);
            let is_closed_by_design = !answered && wants_more_than_a_reply_holds(&request);
            if is_closed_by_design {
                client = server.connect();
            }
            assert!(
                (answered || is_closed_by_design) && server.is_alive(),
                "SEED={seed}, request {at}: {}",
                last[last.len().saturating_sub(3)..].join("\n")
            );
        }
        // Every loop still serves.
        for _ in 0..4 {
            assert_eq!(text(&server.connect().words("PING")), "PONG", "SEED={seed}");
        }
        let log = server.log();
        assert!(!log.contains("panicked"), "SEED={seed}: {log}");
    }
}
