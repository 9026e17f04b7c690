//! Scripts: one command a line, run on both servers.
//!
//! ```text
//! # a comment
//! SET key "a b\x00"      words; in quotes \xHH \n \r \t \" \\ stand for bytes
//! SET key v{5000}        the letter v 5000 times
//! ~ LRANGE key 0 -1      compared as a set
//! ? TIME                 compared by type and size
//! * HSCAN key 0          iterated to the end, all elements compared as a set
//! @2 GET key             on connection 2 (others are on 1)
//! @2> BLPOP key 0        sent only, and awaited until it blocks
//! @2<                    the next reply of connection 2
//! ```

use crate::pair::{By, Command, Pair};

pub(crate) fn run(text: &str) {
    for protocol in [2, 3] {
        let Some(mut pair) = Pair::start(protocol) else { return };
        for line in text.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') {
                run_line(&mut pair, line);
            }
        }
        pair.finish();
    }
}

fn run_line(pair: &mut Pair, line: &str) {
    if let Some(rest) = line.strip_prefix("* ") {
        pair.scan(line, &parse(rest));
    } else if let Some(rest) = line.strip_prefix("~ ") {
        pair.run(1, rest, &parse(rest), By::Set);
    } else if let Some(rest) = line.strip_prefix("? ") {
        pair.run(1, rest, &parse(rest), By::Shape);
    } else if let Some(rest) = line.strip_prefix('@') {
        let (number, rest) = rest.split_at(1);
        let number = number.parse().unwrap();
        if rest == "<" {
            pair.compare(number, line, b"", By::Default);
        } else if let Some(rest) = rest.strip_prefix("> ") {
            pair.send(number, &parse(rest));
            pair.await_blocked(number);
        } else {
            pair.run(number, line, &parse(rest), By::Default);
        }
    } else {
        pair.run(1, line, &parse(line), By::Default);
    }
}

pub(crate) fn parse(line: &str) -> Command {
    let mut words = Vec::new();
    let mut rest = line.trim_start().as_bytes();
    while !rest.is_empty() {
        let word;
        if rest[0] == b'"' {
            (word, rest) = quoted(&rest[1..]);
        } else {
            let end = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
            word = repeated(&rest[..end]);
            rest = &rest[end..];
        }
        words.push(word);
        rest = rest.trim_ascii_start();
    }
    words
}

fn quoted(mut rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut word = Vec::new();
    loop {
        match rest {
            [b'"', after @ ..] => return (word, after),
            [b'\\', b'x', high, low, after @ ..] => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                word.push(u8::from_str_radix(digits, 16).unwrap());
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
            [] => panic!("a quote is not closed"),
        }
    }
}

fn repeated(word: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(word).unwrap();
    let counted = text.strip_suffix('}').and_then(|text| text.split_once('{'));
    match counted.and_then(|(unit, count)| Some((unit, count.parse::<usize>().ok()?))) {
        Some((unit, count)) => unit.repeat(count).into_bytes(),
        None => word.to_vec(),
    }
}
