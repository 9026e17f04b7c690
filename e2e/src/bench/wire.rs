//! Requests made from templates, for a cheap client: a copy of bytes made once, with the digits of its key written over.

use std::io::Write as _;

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
    /// MGET of ten keys.
    Mget,
    /// MGET of 16 keys, out of ten times the last-level cache unless `--keys` says otherwise.
    Mget16,
    Incr,
    Hset,
    Hget,
    Lpush,
    Rpush,
    Rpop,
    /// LINDEX of any element.
    Lindex,
    Sadd,
    Zadd,
    /// ZADD that gives a member another score.
    Zmove,
}

/// One word of a request.
#[derive(Debug, Clone, Copy)]
enum Word {
    Text(&'static str),
    /// The prefix given and 12 digits of the key picked.
    Key(&'static str),
    /// So many words, each with the prefix and a key of its own.
    Keys(&'static str, usize),
    Value,
    /// 12 digits that follow from the key picked but differ from it.
    Digits,
    /// 12 digits that differ each time, too.
    Score,
    /// The key picked as a number without leading zeros; the last word.
    Index,
}

impl Word {
    /// Words of the request that it stands for.
    fn count(self) -> usize {
        if let Self::Keys(_, count) = self { count } else { 1 }
    }
}

/// What one request is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pick {
    pub(super) key: u64,
    /// Keys that there are: those that a request names beside the first are among them, too.
    pub(super) keys: u64,
    pub(super) chance: u32,
}

impl Workload {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ping => "PING",
            Self::Set => "SET",
            Self::Get => "GET",
            Self::Mix => "GET and SET",
            Self::Mget => "MGET of 10",
            Self::Mget16 => "MGET of 16",
            Self::Incr => "INCR",
            Self::Hset => "HSET",
            Self::Hget => "HGET",
            Self::Lpush => "LPUSH",
            Self::Rpush => "RPUSH",
            Self::Rpop => "RPOP",
            Self::Lindex => "LINDEX",
            Self::Sadd => "SADD",
            Self::Zadd => "ZADD",
            Self::Zmove => "ZADD of another score",
        }
    }

    fn words(self) -> &'static [Word] {
        use Word::{Digits, Index, Key, Keys, Score, Text, Value};
        match self {
            Self::Ping => &[Text("PING")],
            Self::Set => &[Text("SET"), Key("key:"), Value],
            Self::Get | Self::Mix => &[Text("GET"), Key("key:")],
            Self::Mget => &[Text("MGET"), Keys("key:", 10)],
            Self::Mget16 => &[Text("MGET"), Keys("key:", 16)],
            Self::Incr => &[Text("INCR"), Key("ctr:")],
            Self::Hset => &[Text("HSET"), Text("hash"), Key("fld:"), Value],
            Self::Hget => &[Text("HGET"), Text("hash"), Key("fld:")],
            Self::Lpush => &[Text("LPUSH"), Text("list"), Value],
            Self::Rpush => &[Text("RPUSH"), Text("list"), Value],
            Self::Rpop => &[Text("RPOP"), Text("list")],
            Self::Lindex => &[Text("LINDEX"), Text("list"), Index],
            Self::Sadd => &[Text("SADD"), Text("set"), Key("mem:")],
            Self::Zadd => &[Text("ZADD"), Text("zset"), Digits, Key("mem:")],
            Self::Zmove => &[Text("ZADD"), Text("zset"), Score, Key("mem:")],
        }
    }

    /// Bytes of the reply that the floor gives.
    pub(super) fn floor_reply(self, value: usize) -> Vec<u8> {
        let bulk = || [format!("${value}\r\n").as_bytes(), &payload(value), b"\r\n"].concat();
        let many = |count| [format!("*{count}\r\n").as_bytes(), &bulk().repeat(count)].concat();
        match self {
            Self::Get | Self::Hget => bulk(),
            Self::Mget => many(10),
            Self::Mget16 => many(16),
            Self::Ping => b"+PONG\r\n".to_vec(),
            _ => b"+OK\r\n".to_vec(),
        }
    }

    /// `mix` and `lindex` have no single length, and so no floor; only the strings exist in memcached.
    pub(super) fn runs_on(self, dialect: Dialect) -> bool {
        match dialect {
            Dialect::Resp => true,
            Dialect::Floor => !matches!(self, Self::Mix | Self::Lindex),
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

/// What 12 digits of a template are of.
#[derive(Debug, Clone, Copy)]
enum Hole {
    Key,
    /// Of several keys the one with this number.
    Nth(usize),
    Scrambled,
    Score,
}

impl Hole {
    fn number(self, pick: Pick) -> u64 {
        const PRIME: u64 = 1_000_000_007;
        let Pick { key, keys, chance } = pick;
        let scrambled = key.wrapping_mul(2_654_435_761);
        match self {
            Self::Key | Self::Nth(0) => key,
            Self::Nth(nth) => mixed(key ^ ((nth as u64) << 56) ^ (u64::from(chance) << 32)) % keys,
            Self::Scrambled => scrambled % PRIME,
            Self::Score => scrambled.wrapping_add(u64::from(chance) * 1_000_003) % PRIME,
        }
    }
}

/// Numbers that are near each other become ones that are not (the last steps of splitmix64).
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[derive(Debug, Clone, Default)]
struct Template {
    bytes: Vec<u8>,
    /// Where 12 digits go.
    holes: Vec<(usize, Hole)>,
    /// The key follows as a number.
    ends_with_index: bool,
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
        let count: usize = words.iter().map(|word| word.count()).sum();
        template.push(format!("*{}\r\n", count + expiry.len()).as_bytes());
        for word in words {
            match word {
                Word::Text(text) => template.bulk(text.as_bytes()),
                Word::Value => template.bulk(&payload(value)),
                Word::Key(prefix) => template.digits(prefix, Hole::Key),
                Word::Keys(prefix, count) => {
                    (0..*count).for_each(|nth| template.digits(prefix, Hole::Nth(nth)));
                }
                Word::Digits => template.digits("", Hole::Scrambled),
                Word::Score => template.digits("", Hole::Score),
                Word::Index => template.ends_with_index = true,
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
        template.hole(Hole::Key);
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

    fn digits(&mut self, prefix: &str, hole: Hole) {
        self.push(format!("${}\r\n{prefix}", prefix.len() + DIGITS).as_bytes());
        self.hole(hole);
        self.push(b"\r\n");
    }

    fn hole(&mut self, hole: Hole) {
        self.holes.push((self.bytes.len(), hole));
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

    /// Appends one request for what was picked; its chance decides what a mix sends.
    pub(super) fn encode(&self, pick: Pick, out: &mut Vec<u8>) {
        let Pick { key, chance, .. } = pick;
        let template = match &self.write {
            Some(write) if chance % (self.ratio.0 + self.ratio.1) >= self.ratio.0 => write,
            _ => &self.main,
        };
        let start = out.len();
        out.extend_from_slice(&template.bytes);
        for &(at, hole) in &template.holes {
            let mut rest = hole.number(pick);
            for byte in out[start + at..][..DIGITS].iter_mut().rev() {
                *byte = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        if template.ends_with_index {
            let digits = key.checked_ilog10().unwrap_or(0) + 1;
            // Writing to memory does not fail.
            let _ = write!(out, "${digits}\r\n{key}\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(key: u64, chance: u32) -> Pick {
        Pick { key, keys: 1000, chance }
    }

    #[test]
    fn requests_carry_their_key_in_a_fixed_length() {
        let encoder = Encoder::new(Dialect::Resp, Workload::Set, 3, Some(9), (1, 0));
        let mut out = Vec::new();
        encoder.encode(pick(42, 0), &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "*5\r\n$3\r\nSET\r\n$16\r\nkey:000000000042\r\n$3\r\naho\r\n$2\r\nEX\r\n$1\r\n9\r\n"
        );
        assert_eq!(out.len(), encoder.request_len());
        out.clear();
        Encoder::new(Dialect::Meta, Workload::Get, 3, None, (1, 0)).encode(pick(7, 0), &mut out);
        assert_eq!(out, b"mg key:000000000007 v\r\n");
    }

    #[test]
    fn an_index_has_no_leading_zeros() {
        let encoder = Encoder::new(Dialect::Resp, Workload::Lindex, 3, None, (1, 0));
        for (key, word) in [(0, "$1\r\n0\r\n"), (9, "$1\r\n9\r\n"), (120, "$3\r\n120\r\n")] {
            let mut out = Vec::new();
            encoder.encode(pick(key, 7), &mut out);
            let text = format!("*3\r\n$6\r\nLINDEX\r\n$4\r\nlist\r\n{word}");
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }

    #[test]
    fn a_moved_member_has_another_score_each_time() {
        let score = |workload, chance| {
            let mut out = Vec::new();
            let encoder = Encoder::new(Dialect::Resp, workload, 3, None, (1, 0));
            encoder.encode(pick(42, chance), &mut out);
            out
        };
        assert_ne!(score(Workload::Zmove, 1), score(Workload::Zmove, 2));
        assert_eq!(score(Workload::Zadd, 1), score(Workload::Zadd, 2));
    }

    #[test]
    fn a_request_for_many_keys_names_as_many_that_exist() {
        for (workload, count) in [(Workload::Mget, 10), (Workload::Mget16, 16)] {
            let mut out = Vec::new();
            let encoder = Encoder::new(Dialect::Resp, workload, 3, None, (1, 0));
            encoder.encode(pick(999, 5), &mut out);
            assert_eq!(out.len(), encoder.request_len());
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with(&format!("*{}\r\n$4\r\nMGET\r\n", count + 1)), "{text}");
            let keys: Vec<u64> =
                text.lines().filter_map(|l| l.strip_prefix("key:")?.parse().ok()).collect();
            assert_eq!((keys.len(), keys[0]), (count, 999));
            assert!(keys.iter().all(|key| *key < 1000), "{keys:?}");
            let others: std::collections::BTreeSet<u64> = keys.into_iter().collect();
            assert!(others.len() > count / 2, "{others:?}");
        }
    }

    #[test]
    fn the_floor_answers_many_keys_with_as_many_values() {
        assert_eq!(Workload::Hget.floor_reply(2), b"$2\r\nah\r\n");
        let many = Workload::Mget.floor_reply(2);
        assert_eq!(many, [&b"*10\r\n"[..], &b"$2\r\nah\r\n".repeat(10)].concat());
    }

    #[test]
    fn mix_follows_its_ratio() {
        let encoder = Encoder::new(Dialect::Resp, Workload::Mix, 3, None, (3, 1));
        let mut out = Vec::new();
        (0..8).for_each(|chance| encoder.encode(pick(1, chance), &mut out));
        let text = String::from_utf8_lossy(&out);
        assert_eq!((text.matches("GET").count(), text.matches("SET").count()), (6, 2));
    }
}
