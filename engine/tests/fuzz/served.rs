//! A server as its clients meet it: whatever comes in, it answers or closes, serves others meanwhile, and stays up.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use engine::command::find_canonical;

use crate::support::{Client, Server, encode, value::text};
use crate::targets::kinds;
use crate::{Search, fuzz};

/// Others are asked after so many inputs.
const CHECK_EVERY: u64 = 100;
/// Replies to one input are read to here, bytes.
const REPLY_BYTES_MAX: usize = 1 << 16;
/// Silence after which no more is awaited of an input.
const SILENCE: Duration = Duration::from_millis(40);
/// What runs for longer than this is not bounded.
const BOUNDED: Duration = Duration::from_secs(20);

/// Commands that would end, stop or redirect the server, or wait for somebody else.
const WITHOUT: &[&str] = &[
    "SHUTDOWN",
    "DEBUG",
    "REPLICAOF",
    "SLAVEOF",
    "CONFIG",
    "FAILOVER",
    "MIGRATE",
    "CLIENT",
    "ACL",
    "EVAL",
    "EVALSHA",
    "EVAL_RO",
    "EVALSHA_RO",
    "SCRIPT",
    "FUNCTION",
    "FCALL",
    "FCALL_RO",
    "BGSAVE",
    "SAVE",
    "BGREWRITEAOF",
    "MONITOR",
    "SYNC",
    "PSYNC",
    "LATENCY",
];

/// One input on a connection of its own: the begin of what came back.
fn say(addr: SocketAddr, input: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    stream.set_write_timeout(Some(BOUNDED)).unwrap();
    // It may have been closed on us already.
    let _ = stream.write_all(input);
    let _ = stream.shutdown(Shutdown::Write);
    let (mut reply, mut buffer) = (Vec::new(), [0; 4096]);
    while reply.len() < REPLY_BYTES_MAX {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => reply.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    reply
}

fn is_well(server: &Server, client: &mut Client) {
    assert_eq!(text(&client.words("PING")), "PONG");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

fn every_so_often(server: &Server, mut feed: impl FnMut(&[u8]) -> u64) -> impl FnMut(&[u8]) -> u64 {
    let mut client = server.connect();
    let mut count = 0;
    move |input| {
        let found = feed(input);
        count += 1;
        if count % CHECK_EVERY == 0 {
            is_well(server, &mut client);
        }
        found
    }
}

#[test]
fn a_server_stays_up_whatever_its_clients_say() {
    let mut args = vec!["--maxmemory", "256mb", "--client-query-buffer-limit", "16mb"];
    let known = WITHOUT.iter().filter(|name| find_canonical(name.as_bytes()).is_some());
    args.extend(known.flat_map(|name| ["--rename-command", name, ""]));
    let server = Server::larder(&args);
    let request = |words: &[&str]| encode(&words.iter().map(|w| w.as_bytes()).collect::<Vec<_>>());
    let corpus = [
        &["SET", "k", "v", "EX", "100", "NX"][..],
        &["MULTI"],
        &["HSET", "h", "f", "1", "g", "2"],
        &["ZADD", "z", "GT", "1.5", "a", "2", "b"],
        &["ZRANGESTORE", "d", "z", "(1", "+inf", "BYSCORE", "LIMIT", "0", "5"],
        &["XADD", "s", "MAXLEN", "~", "10", "1-1", "f", "v"],
        &["XREADGROUP", "GROUP", "g", "c", "COUNT", "1", "STREAMS", "s", ">"],
        &["GEOSEARCH", "z", "FROMLONLAT", "15", "37", "BYBOX", "400", "400", "km"],
        &[
            "BITFIELD", "b", "SET", "u8", "#3", "255", "GET", "i16", "0", "OVERFLOW", "SAT",
            "INCRBY", "u2", "100", "1",
        ],
        &["SORT", "l", "BY", "w_*", "GET", "#", "ALPHA", "STORE", "d"],
        &["RESTORE", "r", "0", "\0\u{5}hello"],
        &["LPOS", "l", "a", "RANK", "-1", "COUNT", "0"],
        &["SUBSCRIBE", "a", "b"],
        &["HELLO", "3"],
        &["PFADD", "p", "a", "b"],
        &["SCAN", "0", "MATCH", "*", "COUNT", "100", "TYPE", "hash"],
        &["LCS", "k", "q", "IDX", "WITHMATCHLEN"],
        &["COMMAND", "GETKEYSANDFLAGS", "MSET", "a", "1", "b", "2"],
    ];
    let search = Search {
        name: "commands",
        corpus: corpus
            .iter()
            .map(|words| request(words))
            .chain([b"PING\r\nGET k\r\n".to_vec()])
            .collect(),
        words: &[
            b"*1\r\n$4\r\nEXEC\r\n",
            b"\r\n",
            b"$-1\r\n",
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
            b"$1\r\n*\r\n",
        ],
        runs: 3_000,
    };
    fuzz(&search, every_so_often(&server, |input| kinds(&say(server.addr, input))));
    is_well(&server, &mut server.connect());
}

#[test]
fn a_server_stays_up_whatever_memcached_clients_say() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::larder(&["--maxmemory", "256mb", "--memcached-port", &port.to_string()]);
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let packet = |opcode: u8, extras: &[u8], key: &[u8], value: &[u8]| {
        let mut out = vec![0x80, opcode];
        out.extend_from_slice(&(key.len() as u16).to_be_bytes());
        out.extend_from_slice(&[extras.len() as u8, 0, 0, 0]);
        out.extend_from_slice(&((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
        out.extend_from_slice(&[0; 12]);
        [out.as_slice(), extras, key, value].concat()
    };
    let mut corpus: Vec<Vec<u8>> = [
        "set k 0 60 5\r\nhello\r\nget k\r\n",
        "gets a b c\r\nincr n 1\r\ntouch k 5\r\n",
        "mg k t v f c q O1 k\r\nmn\r\n",
        "ms k 2 T60 F1\r\nok\r\nmd k q\r\nma n N0 J5 v\r\n",
        "cas k 0 0 2 1 noreply\r\nok\r\nflush_all 10\r\nstats\r\n",
        "lru_crawler metadump all\r\nverbosity 1\r\nversion\r\n",
    ]
    .map(|lines| lines.as_bytes().to_vec())
    .into();
    corpus.extend([
        packet(0x01, &[0, 0, 0, 0, 0, 0, 0, 60], b"key", b"value"),
        packet(0x00, &[], b"key", b""),
        packet(0x0d, &[], b"key", b""),
        packet(0x05, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 9], b"n", b""),
        packet(0x10, &[], b"items", b""),
        packet(0x21, &[], b"PLAIN", b"\0user\0password"),
    ]);
    let search = Search {
        name: "memcached",
        corpus,
        words: &[b"\r\n", b" noreply", b"\x80", b"\x80\x00\xff\xff", b" 4294967295", b" b"],
        runs: 3_000,
    };
    fuzz(&search, every_so_often(&server, |input| kinds(&say(addr, input))));
    is_well(&server, &mut server.connect());
}

#[test]
fn a_server_stays_up_whatever_scripts_do() {
    let server = Server::larder(&["--maxmemory", "256mb", "--busy-reply-threshold", "20"]);
    let corpus = [
        "return redis.call('GET', KEYS[1])",
        "local t = {} for i = 1, 100 do t[i] = i * 2 end return t",
        "return {redis.pcall('HGETALL', 'h'), redis.status_reply('OK'), redis.error_reply('ERR x')}",
        "return cjson.encode({a = {1, 2, {b = cjson.null}}})",
        "return cjson.decode('[1, {\"a\": [true, null]}]')[2].a[1]",
        "return cmsgpack.unpack(cmsgpack.pack({1, 'a', {x = 1.5}}))",
        "return struct.pack('>I2hs4', 1, -2, 'abcd')",
        "return {struct.unpack('<i4s2', '\\1\\2\\3\\4ab')}",
        "return bit.bxor(bit.lshift(1, 31), 0xff)",
        "return string.gsub('hello world', '(%w+)', string.upper)",
        "return string.format('%5.2f %q %s %x', 1.234, 'a\\nb', 'c', 255)",
        "return table.concat({1, 2, 3}, ',', 1, 3)",
        "local ok, e = pcall(error, {code = 1}) return tostring(e)",
        "return select('#', unpack({1, 2, 3}, 1, 3))",
        "local co = coroutine.wrap(function() coroutine.yield(1) end) return co()",
        "while true do end",
        "return tostring(setmetatable({}, {__tostring = function() return 'x' end}))",
        "return loadstring('return 1 + 1')()",
    ];
    let search = Search {
        name: "scripts",
        corpus: corpus.iter().map(|script| script.as_bytes().to_vec()).collect(),
        words: &[
            b" return ",
            b"(",
            b")",
            b"{",
            b"}",
            b" end ",
            b"pcall",
            b"..",
            b"#",
            b"nil",
            b"redis.call",
            b"%f",
            b"%b()",
            b"_G",
            b"'",
        ],
        runs: 2_000,
    };
    let (mut killer, addr) = (server.connect(), server.addr);
    fuzz(
        &search,
        every_so_often(&server, move |input| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_read_timeout(Some(SILENCE)).unwrap();
            stream.write_all(&encode(&[b"EVAL_RO".as_slice(), input, b"1", b"key"])).unwrap();
            let (mut reply, mut buffer) = (Vec::new(), [0; 4096]);
            for _ in 0..BOUNDED.as_millis() / SILENCE.as_millis() {
                match stream.read(&mut buffer) {
                    Ok(n) => {
                        reply.extend_from_slice(&buffer[..n]);
                        return kinds(&reply);
                    }
                    // It runs for long: as an administrator would, it is ended.
                    Err(_) => drop(killer.words("SCRIPT KILL")),
                }
            }
            panic!("a script went on for {BOUNDED:?}, whatever was done");
        }),
    );
}
