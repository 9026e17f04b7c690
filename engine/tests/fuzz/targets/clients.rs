//! Whole conversations of clients, with a server on the same thread.

use engine::memcached::{Client, Protocol, Step};
use engine::persist::load;
use engine::resp::{Reply, encode_request};
use engine::session::After;

use super::alone::{Alone, check_replies, each_request};
use super::{Target, kinds, owned};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "requests",
        seeds: request_seeds,
        words: &[
            b"*1\r\n$4\r\nEXEC\r\n",
            b"*1\r\n$5\r\nMULTI\r\n",
            b"\r\n",
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
            b"GET k\r\n",
            b"HELLO 3\r\n",
            b" NX",
            b" WITHSCORES",
            b" COUNT 2",
        ],
        runs: 2_000,
        feed: requests,
    },
    Target {
        name: "memcached-text",
        seeds: memcached_text_seeds,
        words: &[
            b"\r\n",
            b" noreply",
            b" b",
            b" 4294967295",
            b" -1",
            b" T30",
            b" I",
            b"mg k v\r\n",
            b"ms k 1\r\na\r\n",
            b"get k\r\n",
        ],
        runs: 3_000,
        feed: memcached,
    },
    Target {
        name: "memcached-binary",
        seeds: memcached_binary_seeds,
        words: &[b"\x80", b"\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01", b"\xff\xff\xff\xff"],
        runs: 3_000,
        feed: memcached,
    },
];

/// Commands that end, stop or redirect the process, start threads, or change what outlives the data.
const WITHOUT: &[&str] = &[
    "shutdown",
    "debug",
    "replicaof",
    "slaveof",
    "config",
    "failover",
    "migrate",
    "acl",
    "eval",
    "evalsha",
    "eval_ro",
    "evalsha_ro",
    "script",
    "function",
    "fcall",
    "fcall_ro",
    "bgsave",
    "save",
    "bgrewriteaof",
    "sync",
    "psync",
];
/// Clients that one input may leave blocked.
const BLOCKED_MAX: usize = 8;

fn request(words: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_request(&mut out, words);
    out
}

/// Requests one after the other, each row's words separated by blanks.
fn lines(rows: &[&str]) -> Vec<u8> {
    rows.iter().flat_map(|row| request(&row.split(' ').collect::<Vec<_>>())).collect()
}

/// Conversations that say much, and one with each command of the table.
fn request_seeds() -> Vec<Vec<u8>> {
    let rare = engine::command::all().filter(|command| !WITHOUT.contains(&command.name));
    conversations().into_iter().chain(rare.map(|c| every_type(c.name, c.arity))).collect()
}

/// A command with as few words as it takes, or a few more, on a key of each type.
fn every_type(name: &str, arity: i16) -> Vec<u8> {
    let mut out = lines(&[
        "SET k 12",
        "RPUSH l 1 2",
        "HSET h 1 2",
        "ZADD z 1 1",
        "SADD s 1",
        "XADD x 1-1 1 2",
    ]);
    for key in ["k", "l", "h", "z", "s", "x"] {
        let least = usize::from(arity.unsigned_abs());
        for more in if arity < 0 { 0..3 } else { 0..1 } {
            let rest = (1..least + more).map(|at| if at == 1 { key } else { ["1", "2"][at % 2] });
            out.extend(request(&[name].into_iter().chain(rest).collect::<Vec<_>>()));
        }
    }
    out
}

fn conversations() -> Vec<Vec<u8>> {
    vec![
        lines(&["SET k v EX 100 NX", "GET k", "APPEND k w", "SETRANGE k 5 x", "STRLEN k"]),
        lines(&["MULTI", "INCR n", "INCRBYFLOAT f 1.5", "EXEC", "WATCH k", "UNWATCH"]),
        lines(&[
            "HSET h f 1 g 2",
            "HINCRBY h f 3",
            "HGETALL h",
            "HEXPIRE h 9 FIELDS 1 f",
            "HRANDFIELD h -3",
        ]),
        lines(&["ZADD z GT 1.5 a 2 b", "ZRANGESTORE d z (1 +inf BYSCORE LIMIT 0 5", "ZPOPMIN d 2"]),
        lines(&[
            "XADD s MAXLEN ~ 10 1-1 f v",
            "XGROUP CREATE s g 0",
            "XREADGROUP GROUP g c COUNT 1 STREAMS s >",
        ]),
        lines(&[
            "XADD s * f v",
            "XPENDING s g - + 9",
            "XAUTOCLAIM s g c 0 0",
            "XINFO STREAM s FULL",
        ]),
        lines(&["GEOADD z 15 37 p", "GEOSEARCH z FROMLONLAT 15 37 BYBOX 400 400 km WITHDIST"]),
        lines(&[
            "BITFIELD b SET u8 #3 255 GET i16 0 OVERFLOW SAT INCRBY u2 100 1",
            "BITOP NOT c b",
        ]),
        lines(&["RPUSH l 3 1 2", "SORT l BY w_* GET # ALPHA STORE d", "LPOS l 1 RANK -1 COUNT 0"]),
        lines(&["LINSERT l BEFORE 1 x", "LMOVE l m LEFT RIGHT", "LMPOP 2 l m LEFT COUNT 2"]),
        lines(&["SUBSCRIBE a b", "UNSUBSCRIBE"]),
        lines(&[
            "HELLO 3",
            "SADD s a b 1",
            "SINTERCARD 2 s t LIMIT 1",
            "SSCAN s 0 MATCH * COUNT 9",
        ]),
        lines(&["PFADD p a b", "PFMERGE q p", "PFCOUNT p q", "COPY p r REPLACE", "RENAME r t"]),
        lines(&[
            "LCS k q IDX WITHMATCHLEN",
            "COMMAND GETKEYSANDFLAGS MSET a 1 b 2",
            "COMMAND DOCS get",
        ]),
        lines(&["BLPOP l 0", "RPUSH l a", "BZPOPMIN z 0", "ZADD z 1 a", "SWAPDB 0 1", "SELECT 1"]),
        lines(&[
            "CLIENT TRACKING ON",
            "CLIENT LIST",
            "OBJECT ENCODING k",
            "MEMORY USAGE k",
            "DUMP k",
        ]),
        b"PING\r\nSET k \"a\\x00b\"\r\nGET k\r\n".to_vec(),
    ]
}

/// A client, or several where one is left blocked. Whatever they do, replies are whole, and who executes what the
/// journal was told has the same data.
fn requests(input: &[u8]) -> u64 {
    thread_local! {
        static SERVERS: (Alone, Alone) = (Alone::new(), Alone::new());
    }
    SERVERS.with(|(server, replica)| {
        let shared = &server.shared;
        let mut executor = server.executor();
        let mut blocked = Vec::new();
        let mut session = server.client();
        let mut reply = Reply::new(Vec::new(), false);
        each_request(input, |args| {
            let command = engine::command::find(args[0]);
            if command.is_some_and(|c| WITHOUT.contains(&c.name)) {
                return true;
            }
            executor.env.tracks_changes = shared.waiters.any();
            reply.resp3 = session.resp3;
            executor.run(&mut session, &mut reply, command, args, None);
            if session.is_blocked() {
                blocked.push(std::mem::replace(&mut session, server.client()));
            }
            session.after == After::Continue && blocked.len() < BLOCKED_MAX
        });
        check_replies(&reply.out);
        blocked.into_iter().chain([session]).for_each(|session| server.end(session));
        let journal = server.journal();
        if !journal.is_empty() {
            let mut follows = load::executor(&replica.shared);
            follows.env.now_ms = executor.env.now_ms;
            let (mut link, mut silent) = (load::session("fuzz"), Reply::new(Vec::new(), false));
            each_request(&journal, |args| {
                load::execute(&mut follows, &mut link, &mut silent, args);
                true
            });
            let digests = [server, replica].map(|s| s.digest(executor.env.now_ms));
            assert_eq!(digests[0], digests[1], "after b\"{}\"", journal.escape_ascii());
            load::empty(&replica.shared);
            replica.tidy();
        }
        server.tidy();
        kinds(&reply.out)
    })
}

fn memcached_text_seeds() -> Vec<Vec<u8>> {
    owned(&[
        b"set k 0 60 5\r\nhello\r\nget k\r\n",
        b"gets a b c\r\nincr n 1\r\ntouch k 5\r\ngat 9 k\r\n",
        b"set n 5 0 2\r\n10\r\nincr n 1\r\ndecr n 20\r\nappend n 0 0 1\r\n7\r\n",
        b"mg k t v f c q O1 k\r\nmn\r\n",
        b"ms k 2 T60 F1\r\nok\r\nmg k s v h l t\r\nmd k q\r\nma n N0 J5 v\r\n",
        b"ms a2V5 S2 b I\r\nok\r\nmd a2V5 b I T9\r\nmg a2V5 b E5 N3 v c\r\nme k\r\n",
        b"cas k 0 0 2 1 noreply\r\nok\r\nflush_all 10\r\nstats\r\n",
        b"lru_crawler metadump all\r\nverbosity 1\r\nversion\r\nstats items\r\n",
        b"set k 0 0 2000000\r\n",
    ])
}

/// A packet of the binary protocol.
fn packet(opcode: u8, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, opcode];
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(&[extras.len() as u8, 0, 0, 0]);
    out.extend_from_slice(&((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
    out.extend_from_slice(&[0; 12]);
    [out.as_slice(), extras, key, value].concat()
}

fn memcached_binary_seeds() -> Vec<Vec<u8>> {
    let count = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 9];
    let set = packet(0x01, &[0, 0, 0, 0, 0, 0, 0, 60], b"key", b"value");
    vec![
        [set.clone(), packet(0x00, &[], b"key", b"")].concat(),
        [set.clone(), packet(0x0e, &[], b"key", b"more"), packet(0x0c, &[], b"key", b"")].concat(),
        [set, packet(0x1d, &[0, 0, 0, 9], b"key", b""), packet(0x04, &[], b"key", b"")].concat(),
        [packet(0x05, &count, b"n", b""), packet(0x06, &count, b"n", b"")].concat(),
        [packet(0x0d, &[], b"key", b""), packet(0x0a, &[], b"", b"")].concat(),
        packet(0x10, &[], b"items", b""),
        packet(0x08, &[0, 0, 0, 9], b"", b""),
        packet(0x20, &[], b"", b""),
        packet(0x21, &[], b"PLAIN", b"\0user\0password"),
        packet(0x07, &[], b"", b""),
    ]
}

/// Steps of one input: far more than it has requests.
const STEPS_MAX: usize = 20_000;

/// A client of Memcached whose bytes come in two pieces.
fn memcached(input: &[u8]) -> u64 {
    thread_local! {
        static SERVER: Alone = Alone::new();
    }
    SERVER.with(|server| {
        let (mut executor, mut session) = (server.executor(), server.client());
        let mut reply = Reply::new(Vec::new(), false);
        let (mut protocol, mut at, mut steps) = (Protocol::default(), 0, 0);
        'pieces: for buffer in [&input[..input.len() / 2], input] {
            loop {
                let mut client = Client {
                    executor: &mut executor,
                    session: &mut session,
                    reply: &mut reply,
                    holds: &|_, _| false,
                    item_size_max: 1 << 20,
                    large: (usize::MAX, usize::MAX),
                    refused: None,
                };
                match protocol.step(&mut client, buffer, at) {
                    Step::Need => break,
                    Step::Done(end) => {
                        assert!((at..=buffer.len()).contains(&end), "{at} to {end}");
                        at = end;
                    }
                    Step::Held(_) => panic!("held, and nobody holds"),
                    Step::Close(_) => break 'pieces,
                }
                steps += 1;
                assert!(steps < STEPS_MAX, "no end");
            }
        }
        server.end(session);
        server.shared.memcached.set_flush(0);
        server.tidy();
        kinds(&reply.out)
    })
}
