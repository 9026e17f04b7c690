//! Parsers by themselves.

use std::path::Path;

use crc_fast::{CrcAlgorithm, checksum};
use engine::acl::{User, join_selectors};
use engine::memcached::{meta, text};
use engine::rdb::{self, Event, Reader, dump_payload, restore_payload};
use engine::resp::{Decoder, Limits};
use engine::{config, glob, types};

use crate::{Target, fuzz, shape};

fn owned(corpus: &[&[u8]]) -> Vec<Vec<u8>> {
    corpus.iter().map(|input| input.to_vec()).collect()
}

/// The requests in a buffer that comes in pieces, and how it ended.
fn requests(pieces: &[&[u8]]) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
    let limits = Limits { authenticated: true, bulk_bytes_max: 1 << 20 };
    let (mut decoder, mut buffer) = (Decoder::default(), Vec::new());
    let (mut out, mut start) = (Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&buffer, start, limits) {
                Ok(Some(end)) => {
                    assert!(end > start && end <= buffer.len());
                    start = end;
                    let args = decoder.args.iter().map(|(a, b)| buffer[*a..*b].to_vec());
                    let words: Vec<Vec<u8>> =
                        args.chain(decoder.unquoted.iter().cloned()).collect();
                    out.push(words);
                }
                Ok(None) => break,
                Err(error) => return (out, Some(error.to_string())),
            }
        }
    }
    (out, None)
}

#[test]
fn requests_are_the_same_in_whatever_pieces_they_come() {
    let target = Target {
        name: "resp",
        corpus: owned(&[
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n*1\r\n$4\r\nPING\r\n",
            b"PING\r\nSET k \"a \\x41\\n\" 'b'\r\n\r\n",
            b"*0\r\n*-1\r\n*2\r\n$0\r\n\r\n$-1\r\n",
        ]),
        words: &[b"*1\r\n", b"$4\r\n", b"\r\n", b"$1048577\r\n", b"*1048577\r\n"],
        runs: 20_000,
    };
    fuzz(&target, |input| {
        let whole = requests(&[input]);
        let (first, rest) = input.split_at(input.len() / 3);
        let (second, third) = rest.split_at(rest.len() / 2);
        let pieces = requests(&[first, second, third]);
        assert_eq!(whole, pieces, "in pieces");
        shape((whole.0.len(), whole.0.iter().map(Vec::len).max(), whole.1))
    });
}

/// What a pattern means, as directly as it can be said; exponential.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.first() {
        None => text.is_empty(),
        Some(b'*') => (0..=text.len()).any(|n| matches(&pattern[1..], &text[n..])),
        Some(b'?') => !text.is_empty() && matches(&pattern[1..], &text[1..]),
        Some(b'\\') if pattern.len() > 1 => {
            text.first() == Some(&pattern[1]) && matches(&pattern[2..], &text[1..])
        }
        Some(byte) => text.first() == Some(byte) && matches(&pattern[1..], &text[1..]),
    }
}

#[test]
fn patterns_mean_what_they_say_and_end() {
    let target = Target {
        name: "glob",
        corpus: owned(&[
            b"h?llo*\0hello world",
            b"*a*b*c\0xxaxxbxxc",
            b"\\*x\0*x",
            b"[a-c]\\]\0b]",
            b"[^a]*\0bcd",
        ]),
        words: &[b"*", b"?", b"[a-z]", b"[^", b"]", b"\\", b"\0"],
        runs: 20_000,
    };
    fuzz(&target, |input| {
        let cut = input.iter().position(|b| *b == 0).unwrap_or(input.len());
        let (pattern, text) = (&input[..cut], input.get(cut + 1..).unwrap_or_default());
        let found = glob::matches(pattern, text);
        glob::matches_nocase(pattern, text);
        if !pattern.contains(&b'[') && pattern.len() <= 12 && text.len() <= 16 {
            assert_eq!(
                found,
                matches(pattern, text),
                "{} {}",
                pattern.escape_ascii(),
                text.escape_ascii()
            );
        }
        shape((found, pattern.len().min(8), text.len().min(8)))
    });
}

#[test]
fn settings_are_taken_or_refused_with_a_reason() {
    let target = Target {
        name: "config",
        corpus: owned(&[
            b"port 7000\nsave 900 1 300 10\nappendonly yes\nmaxmemory 100mb\n# remark\n",
            b"requirepass \"a\\x41 b\"\nrename-command FLUSHALL \"\"\nuser a on >p ~* +@all\n",
            b"client-output-buffer-limit normal 0 0 0 pubsub 32mb 8mb 60\nnotify-keyspace-events KEA\n",
        ]),
        words: &[b"include x\n", b"maxmemory-policy ", b"\"", b"\\x", b"\n", b" yes", b" 1gb", b"bind * -::*\n"],
        runs: 20_000,
    };
    fuzz(&target, |input| {
        let text = String::from_utf8_lossy(input);
        // One level: a file that includes is not to be found.
        let lines = config::file::lines(&text, Path::new("nowhere"), 15);
        let Ok(lines) = lines else { return shape("refused") };
        let args: Vec<String> = lines
            .iter()
            .take(20)
            .flat_map(|line| {
                let first = line.words.first().map(|word| format!("--{word}"));
                first.into_iter().chain(line.words.iter().skip(1).cloned()).collect::<Vec<_>>()
            })
            .collect();
        match config::Config::from_args(&args) {
            Ok(_) => shape(("taken", args.len())),
            Err(why) => {
                assert!(!why.is_empty());
                shape(why.split('\'').next().map(str::to_owned))
            }
        }
    });
}

#[test]
fn rules_of_users_read_back_as_they_are_written() {
    let target = Target {
        name: "acl",
        corpus: owned(&[
            // A pattern that ends with a parenthesis, within a selector: a file with it could not be read back.
            b"on ~a (%R~b))",
            b"on >secret ~cache:* &news:* +@read -get +set|x",
            b"off nopass allkeys allchannels allcommands (%R~a* +get) (%W~b* +set)",
            b"reset resetkeys resetchannels clearselectors sanitize-payload #e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ]),
        words: &[b" +@all", b" -@dangerous", b" +config|get", b" ~*", b" %RW~x", b" (", b")", b" |", b" +", b" #", b" !"],
        runs: 20_000,
    };
    fuzz(&target, |input| {
        let mut user = User::new("u", 1, false);
        let mut said = Vec::new();
        for rule in input.split(|b| *b == b' ') {
            match user.apply(rule, false) {
                Ok(()) => {}
                Err(error) => {
                    said.push(error.text());
                    break;
                }
            }
        }
        if said.is_empty() {
            let mut again = User::new("u", 1, false);
            let words = user.words();
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let rules =
                join_selectors(&words).unwrap_or_else(|at| panic!("word {at} of {words:?}"));
            for rule in rules {
                assert!(again.apply(&rule, false).is_ok(), "{}", rule.escape_ascii());
            }
            assert_eq!(
                user.line().escape_ascii().to_string(),
                again.line().escape_ascii().to_string()
            );
        }
        shape((said, user.is_unrestricted(), user.others().len()))
    });
}

/// What is wrong, without where.
fn why(error: &rdb::Error) -> String {
    let text = error.to_string();
    text.split_once(": ").map_or(text.clone(), |(_, why)| why.to_owned())
}

/// A payload whose version and checksum are right again.
fn signed(input: &[u8]) -> Vec<u8> {
    let mut payload = input.to_vec();
    payload.extend_from_slice(&11u16.to_le_bytes());
    payload.extend_from_slice(&checksum(CrcAlgorithm::Crc64Redis, &payload).to_le_bytes());
    payload
}

/// Bodies of payloads as servers of several versions write them.
fn payloads() -> Vec<Vec<u8>> {
    owned(&[
        b"\x00\x05hello",
        b"\x00\xc0\x2a",
        b"\x00\xc3\x05\x14\x01aa\xe0\x07\x00\x01aa",
        b"\x01\x02\x01a\x01b",
        b"\x02\x02\x01a\x01b",
        b"\x04\x01\x01f\x01v",
        b"\x05\x01\x01m\x00\x00\x00\x00\x00\x00\xf0\x3f",
        b"\x0b\x0a\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00",
        b"\x10\x0d\x0d\x00\x00\x00\x02\x00\x81f\x02\x81v\x02\xff",
        b"\x11\x0c\x0c\x00\x00\x00\x02\x00\x81m\x02\x01\x01\xff",
        b"\x12\x01\x02\x0b\x0b\x00\x00\x00\x01\x00\x83abc\x04\xff",
        b"\x14\x0b\x0b\x00\x00\x00\x01\x00\x83abc\x04\xff",
        b"\x0a\x0f\x0f\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x02hi\xff",
        b"\x0f\x01\x10\x00\x00\x01\x8b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x1d\x1d\x00\x00\x00\x0a\x00\x01\x01\x00\x01\x01\x01\x81f\x02\x00\x01\x02\x01\x00\x01\x00\x01\x81v\x02\x04\x01\xff\x01\x81\x00\x00\x01\x8b\x00\x00\x00",
    ])
}

#[test]
fn payloads_of_restore_are_refused_or_read_back_the_same() {
    let target = Target {
        name: "restore",
        corpus: payloads(),
        words: &[b"\xff", b"\xc3", b"\x80\x00\x01\x00\x00"],
        runs: 40_000,
    };
    let limits = types::Limits::default();
    fuzz(&target, |input| {
        let value = match restore_payload(&signed(input), &limits) {
            Ok(value) => value,
            Err(error) => return shape(why(&error)),
        };
        // What is read may be kept in another way than it came in; from there on it stays as it is.
        let again = |bytes: &[u8]| {
            let value = restore_payload(bytes, &limits);
            let value = value.unwrap_or_else(|error| panic!("read back: {error}"));
            dump_payload(value.as_ref(), rdb::VERSION)
        };
        let written = again(&dump_payload(value.as_ref(), rdb::VERSION));
        assert_eq!(again(&written), written);
        shape((input.first().copied(), written.len().min(40)))
    });
}

#[test]
fn files_of_snapshots_are_refused_or_read_to_their_end() {
    let mut corpus = vec![b"REDIS0011\xfa\x09redis-ver\x057.2.0\xfe\x00\xfb\x01\x00\x00\x01k\x01v\xff\0\0\0\0\0\0\0\0".to_vec()];
    for payload in payloads() {
        let mut file = b"REDIS0011\xfe\x00\xfc\x00\x00\x00\x00\x00\x01\x00\x00".to_vec();
        file.push(payload[0]);
        file.extend_from_slice(b"\x01k");
        file.extend_from_slice(&payload[1..]);
        file.extend_from_slice(b"\xff\0\0\0\0\0\0\0\0");
        corpus.push(file);
    }
    let target = Target {
        name: "rdb",
        corpus,
        words: &[b"\xfe\x00", b"\xfb", b"\xf5", b"\xff", b"\xfa", b"\xf7"],
        runs: 40_000,
    };
    fuzz(&target, |input| {
        let mut reader = Reader::new(input, types::Limits::default());
        let mut keys = 0;
        loop {
            match reader.next_event() {
                Ok(Event::End) => return shape(("end", keys)),
                Ok(Event::Key { .. }) => keys += 1,
                Ok(_) => {}
                Err(error) => return shape((keys, why(&error))),
            }
        }
    });
}

#[test]
fn lines_of_memcached_are_requests_or_refused() {
    let target = Target {
        name: "memcached lines",
        corpus: owned(&[
            b"set key 0 60 5 noreply",
            b"gets a b c",
            b"cas k 1 2 3 4",
            b"incr n 1",
            b"flush_all 10 noreply",
            b"mg key t v f c q O1234 k",
            b"ms key 5 T60 F1 I MS",
            b"md key q I T30",
            b"ma n N60 J1 D2 MI",
            b"me key",
            b"stats items",
            b"verbosity 1",
        ]),
        words: &[b" noreply", b" b", b" T-1", b" E99", b" MX", b" 4294967296"],
        runs: 20_000,
    };
    fuzz(&target, |input| {
        let line: Vec<u8> = input.iter().copied().filter(|b| *b != b'\n').collect();
        let request = text::decode(&line);
        let mut words: Vec<&[u8]> = text::words(&line).into_iter().collect();
        let verb = words.first().copied().unwrap_or_default();
        if let [b'm', verb] = verb {
            words.remove(0);
            let _ = meta::decode(*verb, &words);
        }
        let told = format!("{request:?}");
        shape((told.split(['(', ' ', '{']).next().map(str::to_owned), request.is_noreply()))
    });
}
