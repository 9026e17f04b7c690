//! Parsers by themselves: requests, replies, patterns, settings, rules, lines.

use std::path::Path;

use engine::acl::{User, join_selectors};
use engine::memcached::{meta, text};
use engine::resp::frame::Frame;
use engine::resp::{Decoder, Limits};
use engine::{config, glob};

use super::{Target, owned, shape};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "resp",
        seeds: || {
            owned(&[
                b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n*1\r\n$4\r\nPING\r\n",
                b"PING\r\nSET k \"a \\x41\\n\" 'b'\r\n\r\n",
                b"*0\r\n*-1\r\n*2\r\n$0\r\n\r\n$-1\r\n",
            ])
        },
        words: &[b"*1\r\n", b"$4\r\n", b"\r\n", b"$1048577\r\n", b"*1048577\r\n"],
        runs: 20_000,
        feed: resp,
    },
    Target {
        name: "replies",
        seeds: || {
            owned(&[
                b"*2\r\n$1\r\na\r\n:1\r\n+OK\r\n-ERR x\r\n$-1\r\n",
                b"%1\r\n+a\r\n~2\r\n#t\r\n,1.5\r\n>1\r\n_\r\n|1\r\n+k\r\n:1\r\n=7\r\ntxt:abc\r\n",
            ])
        },
        words: &[b"*-1\r\n", b"%9223372036854775807\r\n", b"|1\r\n", b"$18446744073709551615\r\n"],
        runs: 20_000,
        feed: replies,
    },
    Target {
        name: "glob",
        seeds: || {
            owned(&[
                b"h?llo*\0hello world",
                b"*a*b*c\0xxaxxbxxc",
                b"\\*x\0*x",
                b"[a-c]\\]\0b]",
                b"[^a]*\0bcd",
            ])
        },
        words: &[b"*", b"?", b"[a-z]", b"[^", b"]", b"\\", b"\0"],
        runs: 20_000,
        feed: patterns,
    },
    Target {
        name: "config",
        seeds: || {
            owned(&[
                b"port 7000\nsave 900 1 300 10\nappendonly yes\nmaxmemory 100mb\n# remark\n",
                b"requirepass \"a\\x41 b\"\nrename-command FLUSHALL \"\"\nuser a on >p ~* +@all\n",
                b"client-output-buffer-limit normal 0 0 0 pubsub 32mb 8mb 60\nnotify-keyspace-events KEA\n",
            ])
        },
        words: &[
            b"include x\n",
            b"maxmemory-policy ",
            b"\"",
            b"\\x",
            b"\n",
            b" yes",
            b" 1gb",
            b"bind * -::*\n",
        ],
        runs: 20_000,
        feed: settings,
    },
    Target {
        name: "acl",
        seeds: || {
            owned(&[
                // A pattern that ends with a parenthesis, within a selector: a file with it could not be read back.
                b"on ~a (%R~b))",
                b"on >secret ~cache:* &news:* +@read -get +set|x",
                b"off nopass allkeys allchannels allcommands (%R~a* +get) (%W~b* +set)",
                b"reset resetkeys resetchannels clearselectors sanitize-payload #e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ])
        },
        words: &[
            b" +@all",
            b" -@dangerous",
            b" +config|get",
            b" ~*",
            b" %RW~x",
            b" (",
            b")",
            b" |",
            b" +",
            b" #",
            b" !",
        ],
        runs: 20_000,
        feed: rules,
    },
    Target {
        name: "memcached-lines",
        seeds: || {
            owned(&[
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
            ])
        },
        words: &[b" noreply", b" b", b" T-1", b" E99", b" MX", b" 4294967296"],
        runs: 20_000,
        feed: memcached_lines,
    },
];

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

/// Requests are the same in whatever pieces they come.
fn resp(input: &[u8]) -> u64 {
    let whole = requests(&[input]);
    let (first, rest) = input.split_at(input.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    let pieces = requests(&[first, second, third]);
    assert_eq!(whole, pieces, "in pieces");
    shape((whole.0.len(), whole.0.iter().map(Vec::len).max(), whole.1))
}

/// Replies end where they end in whatever pieces they come.
fn replies(input: &[u8]) -> u64 {
    let whole = ends(&[input]);
    let (first, rest) = input.split_at(input.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    assert_eq!(whole, ends(&[first, second, third]), "in pieces");
    shape((whole.0.len(), whole.1))
}

/// Where the replies in a buffer end that comes in pieces, and whether something in it was none.
fn ends(pieces: &[&[u8]]) -> (Vec<usize>, bool) {
    let (mut frame, mut buffer) = (Frame::default(), Vec::new());
    let (mut out, mut start) = (Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match frame.end(&buffer[start..]) {
                Ok(Some(length)) => {
                    assert!(length > 0 && start + length <= buffer.len());
                    start += length;
                    out.push(start);
                    frame = Frame::default();
                }
                Ok(None) => break,
                Err(_) => return (out, true),
            }
        }
    }
    (out, false)
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

/// Patterns mean what they say, and end.
fn patterns(input: &[u8]) -> u64 {
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
}

/// Settings are taken, or refused with a reason.
fn settings(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    // One level, and a file that is included is not to be found: but by an absolute path.
    if text.contains('/') && text.to_ascii_lowercase().contains("include") {
        return shape("left out");
    }
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
}

/// Rules of users read back as they are written.
fn rules(input: &[u8]) -> u64 {
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
        let rules = join_selectors(&words).unwrap_or_else(|at| panic!("word {at} of {words:?}"));
        for rule in rules {
            assert!(again.apply(&rule, false).is_ok(), "{}", rule.escape_ascii());
        }
        assert_eq!(user.line().escape_ascii().to_string(), again.line().escape_ascii().to_string());
    }
    shape((said, user.is_unrestricted(), user.others().len()))
}

/// Lines of Memcached are requests, or refused.
fn memcached_lines(input: &[u8]) -> u64 {
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
}
