//! What Memcached clients may send to do harm: refused by the protocol's own line and left behind, with the
//! connection in step or closed, memory bounded, and others served meanwhile.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use crate::support::Value;
use crate::support::dice::Dice;
use crate::{ask, connect, larder, packet, packets_of, read_to, text};

const NEXT: &[u8] = b"set next 0 0 2\r\nok\r\nget next\r\nmn\r\n";
const ANSWERED: &str = "STORED\r\nVALUE next 0 2\r\nok\r\nEND\r\n";

/// What is answered to the bytes, once the request behind them has got its own right answer.
fn in_step(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(addr);
    stream.write_all(&[bytes, NEXT].concat()).unwrap();
    let reply = String::from_utf8_lossy(&read_to(&mut stream, b"MN\r\n")).into_owned();
    let Some(refused) = reply.strip_suffix(ANSWERED) else {
        panic!("{}: {reply:?}", bytes[..bytes.len().min(80)].escape_ascii());
    };
    refused.to_string()
}

#[test]
fn whatever_is_refused_the_next_request_gets_its_own_answer() {
    let (_server, addr) = larder(&[]);
    const BAD: &str = "CLIENT_ERROR bad command line format\r\n";
    let long = "k".repeat(251);
    let data = "set next 1 0 3\r\nbad"; // What would harm, were it taken for a request.
    let len = data.len();
    let opaque = "o".repeat(32);
    for (bytes, expected) in [
        (format!("set {long} 0 0 {len}\r\n{data}\r\n"), BAD),
        (format!("set a x 0 {len}\r\n{data}\r\n"), BAD),
        (format!("set a 0 x {len}\r\n{data}\r\n"), BAD),
        (format!("set a -1 0 {len} noreply\r\n{data}\r\n"), ""),
        (format!("cas a 0 0 {len} x\r\n{data}\r\n"), BAD),
        (format!("ms {long} {len}\r\n{data}\r\n"), BAD),
        (format!("ms a {len} Z\r\n{data}\r\n"), "CLIENT_ERROR invalid flag\r\n"),
        (format!("ms a {len} T1 T2\r\n{data}\r\n"), "CLIENT_ERROR duplicate flag\r\n"),
        (format!("ms a {len} MX\r\n{data}\r\n"), "CLIENT_ERROR invalid mode for ms M token\r\n"),
        (format!("ms Zm9 {len} b\r\n{data}\r\n"), "CLIENT_ERROR error decoding key\r\n"),
        (format!("ms a {len} O{opaque}\r\n{data}\r\n"), "CLIENT_ERROR opaque token too long\r\n"),
        (
            format!("set a 0 0 {}\r\n{data}\r\n", len - 2),
            "CLIENT_ERROR bad data chunk\r\nERROR\r\n",
        ),
        ("set a 0 0 -1\r\n".into(), BAD),
        ("set a 0 0 9223372036854775807\r\n".into(), BAD),
        ("set a 0 0 99999999999999999999\r\n".into(), BAD),
        ("set a 0 0 2147483647\r\n".into(), BAD),
        ("ms a -1\r\n".into(), BAD),
        ("ms a 4294967295\r\n".into(), BAD),
        (format!("get a {long} b\r\n"), BAD),
        (format!("delete {long} noreply\r\n"), ""),
        (format!("incr {long} 1 noreply\r\n"), ""),
        ("incr a x noreply\r\n".into(), ""),
        (format!("mg {long} v\r\n"), BAD),
        (" \r\n".into(), "ERROR\r\n"),
        ("\n".into(), "ERROR\r\n"),
        ("\r\n".into(), "ERROR\r\n"),
        ("get a\n".into(), "END\r\n"),
        ("get a\r\r\n".into(), "END\r\n"),
        ("get a\0b\r\n".into(), "END\r\n"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), "ERROR\r\nERROR\r\nERROR\r\n"),
        (format!("stats {}\r\n", "x ".repeat(900)), "ERROR\r\n"),
        ("stats detail on\r\n".into(), "SERVER_ERROR counting by prefix is not supported\r\n"),
        (
            "watch fetchers\r\n".into(),
            "ERROR watch is not supported: see INFO, SLOWLOG and the metrics\r\n",
        ),
        ("slabs reassign 1 2\r\n".into(), "NOSPARE source class has no spare pages\r\n"),
    ] {
        assert_eq!(in_step(addr, bytes.as_bytes()), expected, "{}", bytes.escape_debug());
    }
    let large = 2_000_000;
    for head in
        [format!("set a 0 0 {large}"), format!("add a 0 0 {large}"), format!("ms a {large} q")]
    {
        let bytes =
            [head.as_bytes(), b"\r\n", &b"flush_all\n".repeat(large / 10), b"\r\n"].concat();
        assert_eq!(in_step(addr, &bytes), "SERVER_ERROR object too large for cache\r\n", "{head}");
    }
}

#[test]
fn requests_cut_at_any_byte_are_the_same_requests() {
    let (_server, addr) = larder(&[]);
    let script: &[u8] = b"set a 5 0 4\r\nx\r\ny\r\nget a  none a\r\nms b 2 F3 k\r\nhi\r\nmg b f v\r\nset a 0 0 1 x\r\nz\r\n\
        incr a 1\r\nget a\r\nmn\r\n";
    let whole = text(addr, &script[..script.len() - 4]);
    assert!(whole.starts_with(b"STORED\r\nVALUE a 5 4\r\nx\r\ny\r\n"), "{}", whole.escape_ascii());
    for at in 1..script.len() - 1 {
        let mut stream = connect(addr);
        stream.write_all(&script[..at]).unwrap();
        // What is whole by now is answered before the rest is sent.
        std::thread::yield_now();
        stream.write_all(&script[at..]).unwrap();
        let reply = read_to(&mut stream, b"MN\r\n");
        assert_eq!(reply.escape_ascii().to_string(), whole.escape_ascii().to_string(), "{at}");
    }
}

#[test]
fn lines_without_end_are_cut_off_and_the_keys_of_a_get_are_not_counted() {
    let (_server, addr) = larder(&[]);
    for line in [vec![b'x'; 4096], [b"set ", &vec![b'x'; 4096][..]].concat()] {
        let mut stream = connect(addr);
        stream.write_all(&line).unwrap();
        let reply = read_to(&mut stream, b"never");
        assert_eq!(reply, b"CLIENT_ERROR line too long\r\n<closed>");
    }
    let mut stream = connect(addr);
    stream.write_all(&[b"get a ", &vec![b'x'; 4096][..]].concat()).unwrap();
    assert!(read_to(&mut stream, b"never").ends_with(b"<closed>"));
    let many = (0..100_000).map(|n| format!(" key:{n}")).collect::<String>();
    assert_eq!(in_step(addr, format!("get{many}\r\n").as_bytes()), "END\r\n");
    assert_eq!(in_step(addr, format!("gets{many} next\r\n").as_bytes()).lines().count(), 3);
}

#[test]
fn binary_lengths_that_lie_end_the_connection_or_are_passed_over() {
    let (_server, addr) = larder(&[]);
    let noop = packet(0x0a, 0, &[], b"", b"");
    let mut end = noop.clone();
    end[0] = 0x81;
    let with = |opcode: u8, key: u16, extras: u8, body: u32, rest: &[u8]| {
        let mut bytes = packet(opcode, 0, &[], b"", b"");
        bytes[2..4].copy_from_slice(&key.to_be_bytes());
        bytes[4] = extras;
        bytes[8..12].copy_from_slice(&body.to_be_bytes());
        [&bytes, rest].concat()
    };
    for bytes in [
        with(0x00, 5, 0, 3, b"abc"),
        with(0x01, 2, 255, 10, b"abcdefghij"),
        with(0x00, u16::MAX, 0, 70_000, b""),
        with(0x00, 0, 0, u32::MAX, b""),
        with(0x1c, 1, 0, 1, b"k"),
        with(0x01, 1, 4, 5, b"abcdk"),
        with(0x0e, 1, 8, 9, b"abcdefghk"),
        with(0x04, 1, 0, 2, b"kv"),
        with(0x10, 251, 0, 251, &[b'k'; 251]),
        [&noop[..], b"get a\r\n"].concat(),
    ] {
        let reply = ask(addr, &bytes, b"", b"never");
        assert!(reply.ends_with(b"<closed>"), "{}: {}", bytes.escape_ascii(), reply.escape_ascii());
    }
    // A length with its highest bit set, and others that are larger than an item may be: refused by their head.
    let mut stream = connect(addr);
    stream.write_all(&with(0x01, 1, 8, 0x8000_0000, b"abcdefghk")).unwrap();
    assert_eq!(read_to(&mut stream, b"Too large.").len(), 24);
    let large =
        with(0x01, 1, 8, 9 + 2_000_000, &[&b"abcdefghk"[..], &vec![0x80; 2_000_000]].concat());
    let get = packet(0x00, 0, &[], b"none", b"");
    let reply = ask(addr, &[large, get].concat(), &noop, &end);
    let statuses: Vec<u8> = packets_of(&reply).iter().map(|p| p[7]).collect();
    assert_eq!(statuses, [3, 1]);
    let mut stream = connect(addr);
    for _ in 0..200 {
        stream.write_all(&packet(0x09, 0, &[], b"none", b"").repeat(500)).unwrap();
    }
    stream.write_all(&noop).unwrap();
    assert_eq!(read_to(&mut stream, &end), b"");
}

#[test]
fn an_append_that_would_be_too_large_leaves_the_value_as_it_is() {
    let (_server, addr) = larder(&["--memcached-item-size-max", "4096"]);
    let piece = "x".repeat(1500);
    let request = |verb: &str| format!("{verb} a 0 0 1500\r\n{piece}\r\n").into_bytes();
    assert_eq!(text(addr, &[request("set"), request("append")].concat()), b"STORED\r\nSTORED\r\n");
    for verb in ["append", "prepend"] {
        assert_eq!(in_step(addr, &request(verb)), "SERVER_ERROR object too large for cache\r\n");
    }
    assert!(text(addr, b"mg a s\r\n").starts_with(b"HD s3000"));
}

#[test]
fn who_has_not_logged_in_is_held_to_little() {
    let (server, addr) = larder(&["--requirepass", "secret"]);
    let refused = "CLIENT_ERROR unauthenticated\r\n";
    let quit = |bytes: &[u8]| {
        let reply = ask(addr, bytes, b"quit\r\n", b"never");
        String::from_utf8(reply).unwrap().replace("<closed>", "")
    };
    for bytes in [
        "get a\r\n",
        "ms a 5\r\nget a\r\n",
        "add a 0 0 5\r\nget a\r\n",
        "lru_crawler metadump all\r\n",
    ] {
        assert_eq!(quit(bytes.as_bytes()), refused, "{bytes:?}");
    }
    let token = "CLIENT_ERROR bad authentication token format\r\n";
    assert_eq!(quit(b"set u 0 0 0\r\n\r\n"), token);
    assert_eq!(quit(b"set u 0 0 1\r\n \r\n"), token);
    assert_eq!(quit(b"set u 0 0 1000000\r\n"), token);
    // A value of a megabyte is passed over, not kept until it is whole.
    let large = packet(0x01, 0, &[0; 8], b"k", &vec![0x80; 1_000_000]);
    let get = packet(0x00, 0, &[], b"k", b"");
    let reply = ask(addr, &[large, get].concat(), &packet(0x07, 0, &[], b"", b""), b"never");
    let statuses: Vec<u8> =
        packets_of(reply.strip_suffix(b"<closed>").unwrap()).iter().map(|p| p[7]).collect();
    assert_eq!(statuses, [0x20, 0x20, 0]);
    let mut admin = server.connect();
    admin.words("AUTH secret");
    assert_eq!(admin.words("DBSIZE"), Value::Int(0));
}

/// Bytes of replies that wait for memcached clients, as CLIENT LIST has them.
fn waiting(client: &mut crate::support::Client) -> usize {
    let list = match client.words("CLIENT LIST") {
        Value::Bulk(text) | Value::Verbatim(text) => String::from_utf8(text).unwrap(),
        other => panic!("{other}"),
    };
    let of = |line: &str| -> usize {
        line.split(' ').find_map(|w| w.strip_prefix("omem=")).unwrap().parse().unwrap()
    };
    list.lines().filter(|l| l.contains("proto=memcached")).map(of).sum()
}

#[test]
fn who_asks_and_does_not_read_holds_a_bounded_reply() {
    const BOUND: usize = 4 << 20;
    let (server, addr) = larder(&[]);
    let mut client = server.connect();
    let value = "x".repeat(100_000);
    client.command(&["SET", "big", &value]);
    let keys = 60_000;
    for piece in (0..keys).collect::<Vec<_>>().chunks(1000) {
        let name = |n: &usize| format!("a-key-with-a-long-name-so-that-a-dump-is-large:{n}");
        let words: Vec<String> = piece.iter().flat_map(|n| [name(n), "v".into()]).collect();
        client.command(&[vec!["MSET".to_string()], words].concat());
    }
    let mut dump = connect(addr);
    dump.write_all(b"lru_crawler metadump all\r\nmn\r\n").unwrap();
    let mut gets = connect(addr);
    gets.write_all(&b"get big\r\n".repeat(1000)).unwrap();
    let mut large = connect(addr);
    large.write_all(&[b"get", &b" big".repeat(1000)[..], b"\r\n"].concat()).unwrap();
    let mut most = 0;
    for _ in 0..100 {
        most = most.max(waiting(&mut client));
        assert_eq!(text(addr, b"get none\r\n"), b"END\r\n");
    }
    assert!(most > 0 && most < 3 * BOUND, "{most} bytes wait");
    let all = String::from_utf8(read_to(&mut dump, b"MN\r\n")).unwrap();
    let mut names: Vec<&str> = all.lines().filter_map(|l| l.split(' ').next()).collect();
    names.retain(|n| n.starts_with("key=a-key"));
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), all.ends_with("END\r\n")), (keys, true));
    // What was asked for ahead comes whole once it is read.
    let one = format!("VALUE big 0 {}\r\n{value}\r\n", value.len());
    let mut reply = vec![0; 1000 * (one.len() + 5)];
    gets.read_exact(&mut reply).unwrap();
    let mut reply = vec![0; 1000 * one.len() + 5];
    large.read_exact(&mut reply).unwrap();
    assert!(reply.ends_with(b"END\r\n"));
}

const VERBS: &[&str] = &[
    "get",
    "gets",
    "gat",
    "gats",
    "set",
    "add",
    "replace",
    "append",
    "prepend",
    "cas",
    "incr",
    "decr",
    "touch",
    "delete",
    "flush_all",
    "mg",
    "ms",
    "md",
    "ma",
    "me",
    "mn",
    "verbosity",
    "stats",
    "lru_crawler",
    "slabs",
    "lru",
    "version",
    "watch",
    "shutdown",
    "cache_memlimit",
    "refresh_certs",
];
const WORDS: &[&str] = &[
    "a",
    "n",
    "list",
    "missing",
    "0",
    "1",
    "5",
    "-1",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "noreply",
    "v",
    "t",
    "k",
    "f",
    "c",
    "s",
    "h",
    "l",
    "q",
    "b",
    "x",
    "I",
    "T0",
    "T-1",
    "T30",
    "N0",
    "N30",
    "R10",
    "MA",
    "MI",
    "MD",
    "E7",
    "C7",
    "D5",
    "J1",
    "Oxyz",
    "F9",
    "S5",
    "Zm9v",
    "metadump",
    "all",
    "settings",
    "items",
    "detail",
    "dump",
    "\0",
    "\u{7f}",
    "\t",
    "",
];

fn random_text(dice: &mut Dice) -> Vec<u8> {
    let mut line = VERBS[dice.below(VERBS.len())].to_string();
    for _ in 0..dice.below(8) {
        line.push(' ');
        line.push_str(WORDS[dice.below(WORDS.len())]);
    }
    let end = ["\r\n", "\n", "\r\n\r\n", "\r\nhello\r\n", "\r\nx\r\n"][dice.below(5)];
    [line.as_bytes(), end.as_bytes()].concat()
}

fn random_packet(dice: &mut Dice) -> Vec<u8> {
    let keys: [&[u8]; 5] = [b"a", b"n", b"list", b"", b"missing"];
    let extras = vec![dice.below(3) as u8 * 127; [0, 4, 8, 20, 1][dice.below(5)]];
    let value = vec![b'1'; [0, 1, 5, 300][dice.below(4)]];
    let opcode = dice.below(0x28) as u8;
    let mut bytes = packet(opcode, dice.below(2) as u64, &extras, keys[dice.below(5)], &value);
    if dice.below(4) == 0 {
        let at = 1 + dice.below(bytes.len() - 1);
        bytes[at] = dice.below(256) as u8;
    }
    bytes
}

#[test]
fn no_bytes_bring_the_server_down() {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=4).collect(),
    };
    for seed in seeds {
        let (mut server, addr) = larder(&["--io-threads", "2"]);
        server.connect().words("RPUSH list 1");
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for round in 0..150 {
            let is_binary = dice.below(2) == 0;
            let mut stream = connect(addr);
            for _ in 0..40 {
                let bytes =
                    if is_binary { random_packet(&mut dice) } else { random_text(&mut dice) };
                // The server may have had enough of this connection.
                if stream.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
            assert!(server.is_alive(), "SEED={seed}, round {round}");
        }
        assert_eq!(in_step(addr, b"mg none\r\n"), "EN\r\n", "SEED={seed}");
        let log = server.log();
        assert!(!log.contains("panicked") && !log.contains("fault"), "SEED={seed}: {log}");
    }
}
