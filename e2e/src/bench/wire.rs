//! Requests made from templates and replies counted with the least parsing: a cheap client.
//!
//! A request is a copy of bytes made once, with the digits of its key written over. A reply is
//! only followed far enough to know where it ends and whether it is an error.

/// A protocol that the load generator speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Resp,
    /// Memcached's `get` and `set`.
    Classic,
    /// Memcached's `mg` and `ms`.
    Meta,
    /// RESP requests to the floor, which answers by length and not by content.
    Floor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    Ping,
    Set,
    Get,
    /// GET and SET by the ratio asked for.
    Mix,
    Incr,
    Hset,
    Lpush,
    Rpop,
    Sadd,
    Zadd,
}

/// One word of a request.
#[derive(Debug, Clone, Copy)]
enum Word {
    Text(&'static str),
    /// The prefix given and 12 digits of the key picked.
    Key(&'static str),
    Value,
    /// 12 digits that follow from the key picked but differ from it.
    Digits,
}

impl Workload {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ping => "PING",
            Self::Set => "SET",
            Self::Get => "GET",
            Self::Mix => "GET and SET",
            Self::Incr => "INCR",
            Self::Hset => "HSET",
            Self::Lpush => "LPUSH",
            Self::Rpop => "RPOP",
            Self::Sadd => "SADD",
            Self::Zadd => "ZADD",
        }
    }

    fn words(self) -> &'static [Word] {
        use Word::{Digits, Key, Text, Value};
        match self {
            Self::Ping => &[Text("PING")],
            Self::Set => &[Text("SET"), Key("key:"), Value],
            Self::Get | Self::Mix => &[Text("GET"), Key("key:")],
            Self::Incr => &[Text("INCR"), Key("ctr:")],
            Self::Hset => &[Text("HSET"), Text("hash"), Key("fld:"), Value],
            Self::Lpush => &[Text("LPUSH"), Text("list"), Value],
            Self::Rpop => &[Text("RPOP"), Text("list")],
            Self::Sadd => &[Text("SADD"), Text("set"), Key("mem:")],
            Self::Zadd => &[Text("ZADD"), Text("zset"), Digits, Key("mem:")],
        }
    }

    /// Bytes of the reply that the floor gives.
    pub(super) fn floor_reply(self, value: usize) -> Vec<u8> {
        match self {
            Self::Get => [format!("${value}\r\n").as_bytes(), &payload(value), b"\r\n"].concat(),
            Self::Ping => b"+PONG\r\n".to_vec(),
            _ => b"+OK\r\n".to_vec(),
        }
    }

    /// `mix` has no single length, and so no floor; only the strings exist in memcached.
    pub(super) fn runs_on(self, dialect: Dialect) -> bool {
        match dialect {
            Dialect::Resp => true,
            Dialect::Floor => self != Self::Mix,
            Dialect::Classic | Dialect::Meta => {
                matches!(self, Self::Set | Self::Get | Self::Mix)
            }
        }
    }
}

fn payload(length: usize) -> Vec<u8> {
    // Letters that neither compress nor look like a number to an encoder.
    (0..length).map(|at| b'a' + u8::try_from(at * 7 % 26).unwrap_or(0)).collect()
}

const DIGITS: usize = 12;

#[derive(Debug, Clone, Default)]
struct Template {
    bytes: Vec<u8>,
    /// Where 12 digits go, and whether they are scrambled.
    holes: Vec<(usize, bool)>,
}

impl Template {
    fn new(dialect: Dialect, workload: Workload, value: usize, ttl: Option<u64>) -> Self {
        match dialect {
            Dialect::Resp | Dialect::Floor => Self::resp(workload, value, ttl),
            Dialect::Classic | Dialect::Meta => Self::memcached(dialect, workload, value, ttl),
        }
    }

    fn resp(workload: Workload, value: usize, ttl: Option<u64>) -> Self {
        let expiry: &[String] = &match ttl {
            Some(seconds) if workload == Workload::Set => vec!["EX".into(), seconds.to_string()],
            _ => vec![],
        };
        let words = workload.words();
        let mut template = Self::default();
        template.push(format!("*{}\r\n", words.len() + expiry.len()).as_bytes());
        for word in words {
            match word {
                Word::Text(text) => template.bulk(text.as_bytes()),
                Word::Value => template.bulk(&payload(value)),
                Word::Key(prefix) => template.digits(prefix, false),
                Word::Digits => template.digits("", true),
            }
        }
        for word in expiry {
            template.bulk(word.as_bytes());
        }
        template
    }

    fn memcached(dialect: Dialect, workload: Workload, value: usize, ttl: Option<u64>) -> Self {
        let mut template = Self::default();
        let ttl = ttl.unwrap_or(0);
        let (head, tail) = match (dialect, workload == Workload::Set) {
            (Dialect::Classic, true) => ("set key:", format!(" 0 {ttl} {value}\r\n")),
            (Dialect::Classic, false) => ("get key:", "\r\n".into()),
            (_, true) if ttl > 0 => ("ms key:", format!(" {value} T{ttl}\r\n")),
            (_, true) => ("ms key:", format!(" {value}\r\n")),
            (_, false) => ("mg key:", " v\r\n".into()),
        };
        template.push(head.as_bytes());
        template.hole(false);
        template.push(tail.as_bytes());
        if workload == Workload::Set {
            template.push(&payload(value));
            template.push(b"\r\n");
        }
        template
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn bulk(&mut self, bytes: &[u8]) {
        self.push(format!("${}\r\n", bytes.len()).as_bytes());
        self.push(bytes);
        self.push(b"\r\n");
    }

    fn digits(&mut self, prefix: &str, scrambled: bool) {
        self.push(format!("${}\r\n{prefix}", prefix.len() + DIGITS).as_bytes());
        self.hole(scrambled);
        self.push(b"\r\n");
    }

    fn hole(&mut self, scrambled: bool) {
        self.holes.push((self.bytes.len(), scrambled));
        self.push(&[b'0'; DIGITS]);
    }
}

/// Makes requests of one workload.
#[derive(Debug, Clone)]
pub(super) struct Encoder {
    main: Template,
    /// The writes of a mix, and how many of `ratio.0 + ratio.1` requests are reads.
    write: Option<Template>,
    ratio: (u32, u32),
}

impl Encoder {
    pub(super) fn new(
        dialect: Dialect,
        workload: Workload,
        value: usize,
        ttl: Option<u64>,
        ratio: (u32, u32),
    ) -> Self {
        let write =
            (workload == Workload::Mix).then(|| Template::new(dialect, Workload::Set, value, ttl));
        Self { main: Template::new(dialect, workload, value, ttl), write, ratio }
    }

    pub(super) fn request_len(&self) -> usize {
        self.main.bytes.len()
    }

    /// Appends one request for `key`; `chance` decides what a mix sends.
    pub(super) fn encode(&self, key: u64, chance: u32, out: &mut Vec<u8>) {
        let template = match &self.write {
            Some(write) if chance % (self.ratio.0 + self.ratio.1) >= self.ratio.0 => write,
            _ => &self.main,
        };
        let start = out.len();
        out.extend_from_slice(&template.bytes);
        for &(at, scrambled) in &template.holes {
            let mut rest =
                if scrambled { key.wrapping_mul(2_654_435_761) % 1_000_000_007 } else { key };
            for byte in out[start + at..][..DIGITS].iter_mut().rev() {
                *byte = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
    }
}

/// Counts the replies in a stream of bytes.
#[derive(Debug)]
pub(super) struct Replies {
    dialect: Dialect,
    /// Elements that the reply being read still lacks.
    open: u64,
    /// Bytes of a bulk that are still to pass.
    skip: usize,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

impl Replies {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, open: 0, skip: 0, errors: 0, first_error: None }
    }

    /// Returns how many bytes were taken and how many replies ended in them; what is left is an
    /// incomplete line.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, u64) {
        let (mut at, mut done) = (0, 0);
        while at < bytes.len() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len() - at);
                at += passed;
                self.skip -= passed;
                if self.skip > 0 {
                    break;
                }
            } else {
                let Some(end) = bytes[at..].iter().position(|&byte| byte == b'\n') else { break };
                let line = &bytes[at..at + end];
                at += end + 1;
                match self.dialect {
                    Dialect::Resp | Dialect::Floor => self.resp_line(line),
                    Dialect::Classic => self.classic_line(line),
                    Dialect::Meta => self.meta_line(line),
                }
            }
            if self.open == 0 && self.skip == 0 {
                done += 1;
            }
        }
        (at, done)
    }

    fn resp_line(&mut self, line: &[u8]) {
        let open = self.open.max(1) - 1;
        self.open = open;
        match line.first() {
            Some(b'$' | b'=') => {
                self.skip = match line.get(1) {
                    Some(b'-') => 0,
                    _ => number(&line[1..]) as usize + 2,
                }
            }
            Some(b'*' | b'~' | b'>') if line.get(1) != Some(&b'-') => {
                self.open = open + number(&line[1..]);
            }
            Some(b'%') => self.open = open + 2 * number(&line[1..]),
            Some(b'-' | b'!') => self.error(line),
            _ => {}
        }
    }

    fn classic_line(&mut self, line: &[u8]) {
        // `open` is 1 while END is awaited.
        self.open = 0;
        if line.starts_with(b"VALUE ") {
            self.skip = last_number(line) + 2;
            self.open = 1;
        } else if !(line.starts_with(b"END") || line.starts_with(b"STORED")) {
            self.error(line);
        }
    }

    fn meta_line(&mut self, line: &[u8]) {
        if line.starts_with(b"VA ") {
            self.skip = number(&line[3..]) as usize + 2;
        } else if !(line.starts_with(b"HD") || line.starts_with(b"EN")) {
            self.error(line);
        }
    }

    fn error(&mut self, line: &[u8]) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| String::from_utf8_lossy(line).trim_end().to_owned());
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |number, byte| number * 10 + u64::from(byte - b'0'))
}

fn last_number(line: &[u8]) -> usize {
    let trimmed = line.trim_ascii_end();
    let start = trimmed.iter().rposition(|&byte| byte == b' ').map_or(0, |at| at + 1);
    number(&trimmed[start..]) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(dialect: Dialect, bytes: &[u8]) -> (u64, u64) {
        // One byte at a time, with what is left carried over, as a slow socket would deliver.
        let mut replies = Replies::new(dialect);
        let (mut held, mut done) = (Vec::new(), 0);
        for &byte in bytes {
            held.push(byte);
            let (taken, ended) = replies.feed(&held);
            held.drain(..taken);
            done += ended;
        }
        assert!(held.is_empty(), "left over: {held:?}");
        let whole = Replies::new(dialect).feed(bytes);
        assert_eq!(whole, (bytes.len(), done), "split and whole differ");
        (done, replies.errors)
    }

    #[test]
    fn resp_replies_are_counted_to_their_end() {
        assert_eq!(count(Dialect::Resp, b"+OK\r\n$3\r\na\nb\r\n$-1\r\n:5\r\n"), (4, 0));
        assert_eq!(count(Dialect::Resp, b"*2\r\n$1\r\nx\r\n*1\r\n:1\r\n-ERR no\r\n"), (2, 1));
        assert_eq!(count(Dialect::Resp, b"%1\r\n+a\r\n_\r\n*0\r\n*-1\r\n"), (3, 0));
        assert_eq!(count(Dialect::Resp, b"$0\r\n\r\n"), (1, 0));
    }

    #[test]
    fn memcached_replies_are_counted_to_their_end() {
        assert_eq!(
            count(Dialect::Classic, b"VALUE k 0 4\r\nEND\r\r\nEND\r\nEND\r\nSTORED\r\nERROR\r\n"),
            (4, 1)
        );
        assert_eq!(count(Dialect::Meta, b"VA 2 t1\r\nEN\r\nEN\r\nHD\r\nNS\r\n"), (4, 1));
    }

    #[test]
    fn requests_carry_their_key_in_a_fixed_length() {
        let encoder = Encoder::new(Dialect::Resp, Workload::Set, 3, Some(9), (1, 0));
        let mut out = Vec::new();
        encoder.encode(42, 0, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "*5\r\n$3\r\nSET\r\n$16\r\nkey:000000000042\r\n$3\r\naho\r\n$2\r\nEX\r\n$1\r\n9\r\n"
        );
        assert_eq!(out.len(), encoder.request_len());
        out.clear();
        Encoder::new(Dialect::Meta, Workload::Get, 3, None, (1, 0)).encode(7, 0, &mut out);
        assert_eq!(out, b"mg key:000000000007 v\r\n");
    }

    #[test]
    fn mix_follows_its_ratio() {
        let encoder = Encoder::new(Dialect::Resp, Workload::Mix, 3, None, (3, 1));
        let mut out = Vec::new();
        (0..8).for_each(|chance| encoder.encode(1, chance, &mut out));
        let text = String::from_utf8_lossy(&out);
        assert_eq!((text.matches("GET").count(), text.matches("SET").count()), (6, 2));
    }
}
